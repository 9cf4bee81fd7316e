"""evaluate: one table for policies and solvers, with every solution checked and priced."""

from __future__ import annotations

import contextlib
import functools
import math
import signal
import threading
import warnings
from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from orl import registry
from orl.common.errors import InputError
from orl.common.evaluation import COLUMNS, evaluate
from orl.common.interrupts import noting_ctrl_c
from orl.common.problem import Bounds, Check, SolveResult


@dataclass(frozen=True)
class Digits:
    """Toy problem: choose digits that sum to at least ``target``; the objective is their sum."""

    target: int
    known: float | None = None

    @property
    def name(self):
        return f"digits{self.target}"

    def check(self, solution):
        total = sum(solution)
        missing = () if total >= self.target else (f"sum {total} below {self.target}",)
        return Check(not missing, float(total), missing)

    def lower_bound(self):
        return self.target - 1.0

    def best_known(self):
        return None if self.known is None else Bounds(self.known, self.known, "hand", "2026-01-01")

    def to_json(self):
        return {"target": self.target}


class Overshoot:
    """Solver that misses the optimum by ``seed``; optional lies."""

    name = "overshoot"

    def __init__(self, *, short=False, lie=0.0, bound=None):
        self.short, self.lie, self.bound, self.limits = short, lie, bound, []

    def solve(self, instance, *, time_limit=None, seed=0, hint=None):
        self.limits.append(time_limit)
        solution = [instance.target + (-2 if self.short else seed % 1_000_003)]
        return SolveResult("feasible", solution, float(solution[0]) + self.lie, self.bound)


class DigitsEnv(gymnasium.Env):
    """Say digits 0..3 until the target is met; 0 is masked after the first step."""

    action_space = gymnasium.spaces.Discrete(4)
    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)

    def __init__(self, instance=None, illegal="raise", luck=0.0):
        self.instance, self.illegal, self.luck = instance or Digits(5, 5.0), illegal, luck

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.said = []
        return self._obs(), {}

    def action_masks(self):
        return np.array([not self.said, True, True, True])

    def step(self, action):
        if not self.action_masks()[action]:
            assert self.illegal == "count"
            action = 1
        self.said.append(int(action))
        over = sum(self.said) >= self.instance.target
        info = {}
        if over:
            info = {"objective": float(sum(self.said)), "solution": list(self.said)}
            info["bound"] = self.instance.lower_bound() - self.luck
        return self._obs(), -float(action), over, len(self.said) > 50, info

    def _obs(self):
        return np.array([sum(self.said)], np.float32)


class Always:
    def __init__(self, action):
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.array(self.action), state


class Lazy(Always):
    """Takes masks: the first legal action."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        return np.array(int(np.argmax(action_masks))), state


@pytest.fixture(autouse=True)
def digits_id():
    if "test/Digits-v0" not in gymnasium.registry:
        gymnasium.register("test/Digits-v0", entry_point=DigitsEnv)
    return "test/Digits-v0"


def test_solvers_are_checked_and_priced() -> None:
    table = evaluate(Overshoot(bound=9.5), [Digits(10, 10.0), Digits(20)], n_episodes=2, seed=3)
    assert tuple(table.columns) == COLUMNS
    assert table["subject"].eq("overshoot").all()
    assert list(table["instance"]) == ["digits10"] * 2 + ["digits20"] * 2
    assert list(table["seed"]) == [3, 4, 3, 4]
    assert list(table["objective"]) == [13, 14, 23, 24]
    assert list(table["bound"]) == [9.5, 9.5, 19.0, 19.0]
    np.testing.assert_allclose(table["gap"], [3.5 / 9.5, 4.5 / 9.5, 4 / 19, 5 / 19])
    np.testing.assert_allclose(table["gap_to_best_known"], [0.3, 0.4, np.nan, np.nan])
    assert table["checked"].all()
    assert table["violations"].eq("").all()
    assert table["return"].isna().all()
    assert (table["seconds"] >= 0).all()


def test_every_row_is_told_with_its_instance_and_solution(digits_id: str) -> None:
    told: list = []
    evaluate(Overshoot(), [Digits(5), Digits(9)], seed=1, on_row=lambda *row: told.append(row))
    evaluate(Always(3), Digits(5), env_id=digits_id, on_row=lambda *row: told.append(row))
    evaluate(Always(0), "CartPole-v1", on_row=lambda *row: told.append(row))
    found = [(row.objective, instance and instance.target, solution) for row, instance, solution in told]
    assert found == [(6.0, 5, [6]), (10.0, 9, [10]), (6.0, 5, [3, 3]), (None, None, None)]

    def refuse(*row: object) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        evaluate(Overshoot(), Digits(5), on_row=refuse)


def test_policies_can_draw_differently_in_equal_episodes() -> None:
    class Dice:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            drawn.append((float(observation[0]), np.random.random()))  # noqa: NPY002
            return 0, state

    played = []
    for sampling_seed in (None, 0, 7):
        drawn: list = []
        evaluate(Dice(), "CartPole-v1", n_episodes=2, sampling_seed=sampling_seed)
        played.append(drawn)
    starts, draws = ([[step[part] for step in drawn] for drawn in played] for part in (0, 1))
    assert starts[0] == starts[1] == starts[2]
    assert draws[0] == draws[1] != draws[2]


def test_a_wrong_solution_has_no_objective_and_says_why() -> None:
    row = evaluate(Overshoot(short=True), Digits(10)).iloc[0]
    assert math.isnan(row["objective"])
    assert not row["checked"]
    assert row["violations"] == "sum 8 below 10"
    assert row["status"] == "unknown"


def test_wrong_figures_are_named() -> None:
    assert "reported objective 12.0, recomputed 10" in evaluate(Overshoot(lie=2.0), Digits(10)).iloc[0]["violations"]
    assert "above the objective" in evaluate(Overshoot(bound=11.0), Digits(10)).iloc[0]["violations"]
    row = evaluate(Overshoot(bound=12.0), Digits(10, 10.0), seed=5).iloc[0]
    assert "above the best known" in row["violations"]
    assert row["bound"] == 9.0


def test_best_of_keeps_the_best_and_shares_the_time_limit() -> None:
    class Falling(Overshoot):
        def solve(self, instance, **kwargs):
            kwargs["seed"] = 3 - len(self.limits)
            return super().solve(instance, **kwargs)

    solver = Falling()
    row = evaluate(solver, Digits(10), best_of=3, time_limit=100.0).iloc[0]
    assert row["objective"] == 11
    assert len(solver.limits) == 3
    assert solver.limits[0] > solver.limits[1] > solver.limits[2] > 90
    solver = Falling()
    evaluate(solver, Digits(10), best_of=3, time_limit=0.0)
    assert len(solver.limits) == 1


def test_policies_play_instances_through_an_env_id(digits_id) -> None:
    table = evaluate(Lazy(0), [Digits(3), Digits(4, 4.0)], env_id=digits_id)
    assert list(table["objective"]) == [3, 4]
    assert list(table["return"]) == [-3, -4]
    assert list(table["illegal_actions"]) == [0, 0]
    assert list(table["bound"]) == [2, 3]
    assert table["checked"].all()


def test_a_policy_without_masks_warns_and_its_illegal_actions_are_counted(digits_id) -> None:
    with pytest.warns(UserWarning, match="takes no action_masks"):
        row = evaluate(Always(0), Digits(3), env_id=digits_id).iloc[0]
    assert row["illegal_actions"] == 3
    assert row["objective"] == 3
    model = MaskablePPO("MlpPolicy", DigitsEnv(), n_steps=8, batch_size=8, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = evaluate(model, Digits(6), env_id=digits_id, n_episodes=20, deterministic=False)
    assert table["illegal_actions"].sum() == 0


def test_a_policy_can_be_built_on_the_env(digits_id) -> None:
    class Rule(Always):
        def __init__(self, action, env):
            super().__init__(action)
            self.env = env

    table = evaluate(functools.partial(Rule, 3), [Digits(3), Digits(5)], env_id=digits_id)
    assert list(table["subject"]) == ["Rule 3"] * 2
    assert list(table["objective"]) == [3, 6]
    assert table["status"].iloc[0] == "feasible"
    env = DigitsEnv(Digits(4))
    assert evaluate(Rule(2, env), env, name="two").iloc[0]["objective"] == 4
    with pytest.raises(InputError, match="another"):
        evaluate(Rule(2, env), Digits(3), env_id=digits_id)


def test_meeting_the_bound_is_optimal(digits_id) -> None:
    class Sharp(Digits):
        def lower_bound(self):
            return float(self.target)

    assert evaluate(Lazy(0), Sharp(4), env_id=digits_id).iloc[0]["status"] == "optimal"


def test_an_episodes_own_bound_counts_where_a_lucky_one_may_beat_that_of_the_instance(digits_id) -> None:
    class Expected(Digits):
        def lower_bound(self):
            return self.target + 2.0

    row = evaluate(Lazy(0), Expected(4), env_id=digits_id, env_kwargs={"luck": 3.0}).iloc[0]
    assert (row["objective"], row["bound"], row["status"], row["violations"]) == (4, 3, "feasible", "")


def test_any_gymnasium_env_has_returns_and_no_objective() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0)
    table = evaluate(model, ["CartPole-v1", gymnasium.make("CartPole-v1", max_episode_steps=5)], n_episodes=2)
    assert table["return"].iloc[0] > 5
    assert list(table["status"])[2:] == ["truncated"] * 2
    assert list(table["return"])[2:] == [5, 5]
    assert table["checked"].isna().all()
    assert table["objective"].isna().all()


def test_sampled_evaluation_repeats_and_leaves_the_global_generators_alone() -> None:
    model = A2C("MlpPolicy", "CartPole-v1", seed=0)
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    first = evaluate(model, "CartPole-v1", n_episodes=5, deterministic=False, seed=3)
    assert np.random.random() == expected  # noqa: NPY002
    again = evaluate(model, "CartPole-v1", n_episodes=5, deterministic=False, seed=3)
    other = evaluate(model, "CartPole-v1", n_episodes=5, deterministic=False, seed=30)
    assert list(first["return"]) == list(again["return"])
    assert list(first["return"]) != list(other["return"])


@pytest.mark.parametrize("rule", ["mwkr", "random"])
def test_the_seed_column_decides_the_row_of_a_random_rule(rule) -> None:
    policy = functools.partial(registry.rule, "job_shop", rule)
    play = functools.partial(evaluate, policy, "ta01", env_id="orl/JobShop-v0", deterministic=False)
    rows = play(n_episodes=6).set_index("seed")["objective"]
    assert rows.nunique() > 1
    np.random.seed(99)  # noqa: NPY002
    later = play(n_episodes=3, seed=3).set_index("seed")["objective"]
    assert later.to_dict() == rows.loc[3:].to_dict()


def pressed_in(call: int, solver):
    """The solver, with Ctrl-C in one of its calls, answered as solvers do: by the best so far."""
    original = solver.solve

    def solve(instance, **kwargs):
        if len(solver.limits) == call:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return original(instance, **kwargs)

    solver.solve = solve
    return solver


def test_ctrl_c_ends_the_table_and_marks_the_row_that_it_cut_short() -> None:
    before = signal.getsignal(signal.SIGINT)
    table = evaluate(pressed_in(3, Overshoot()), [Digits(10), Digits(20), Digits(30)], n_episodes=2)
    assert list(table["instance"]) == ["digits10", "digits10", "digits20", "digits20"]
    assert list(table["interrupted"]) == [False, False, False, True]
    assert list(table["objective"]) == [10, 11, 20, 21]
    assert signal.getsignal(signal.SIGINT) is before
    solver = pressed_in(1, Overshoot())
    assert evaluate(solver, Digits(10), best_of=5)["interrupted"].all()
    assert len(solver.limits) == 2
    assert not evaluate(Overshoot(), Digits(10))["interrupted"].any()


def test_ctrl_c_in_an_episode_leaves_its_row_without_figures(digits_id) -> None:
    class Pressing(Lazy):
        calls = 0

        def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
            self.calls += 1
            if self.calls == 9:
                signal.raise_signal(signal.SIGINT)
            return super().predict(observation, state, action_masks=action_masks)

    for problems, env_id in (([Digits(5), Digits(6)], digits_id), (DigitsEnv(Digits(5)), None), (digits_id, None)):
        table = evaluate(Pressing(0), problems, env_id=env_id, n_episodes=3)
        assert list(table["interrupted"]) == [False, True]
        assert list(table["seed"]) == [0, 1]
        assert table["instance"].iloc[1] in ("digits5", digits_id)
        assert table["objective"].isna().tolist() == [False, True]
        assert (table["status"].iloc[1], table["checked"].isna().iloc[1]) == ("unknown", True)


def test_notes_of_ctrl_c_nest_and_need_the_main_thread() -> None:
    with noting_ctrl_c() as outer:
        with noting_ctrl_c() as inner, pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert outer.pressed
        assert inner.pressed
        with noting_ctrl_c() as later:
            pass
        assert not later.pressed
    tables = []
    thread = threading.Thread(target=lambda: tables.append(evaluate(Overshoot(), Digits(10))))
    thread.start()
    thread.join()
    assert tables[0]["objective"].iloc[0] == 10


def test_best_of_samples_after_the_greedy_attempt(digits_id) -> None:
    model = MaskablePPO("MlpPolicy", DigitsEnv(), n_steps=8, batch_size=8, seed=0)
    greedy = evaluate(model, Digits(7), env_id=digits_id).iloc[0]["objective"]
    assert evaluate(model, Digits(7), env_id=digits_id, best_of=30).iloc[0]["objective"] <= greedy
    assert evaluate(model, Digits(7), env_id=digits_id, best_of=30).iloc[0]["objective"] == 7


def test_observations_are_normalised_as_in_training() -> None:
    venv = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]))
    model = PPO("MlpPolicy", venv, n_steps=32, batch_size=32, n_epochs=1, seed=0).learn(64)
    seen = []
    original = model.predict
    model.predict = lambda observation, **kw: (seen.append(observation), original(observation, **kw))[1]
    evaluate(model, "CartPole-v1")
    raw, _ = gymnasium.make("CartPole-v1").reset(seed=0)
    np.testing.assert_allclose(seen[0], venv.normalize_obs(raw))


def test_misuse_is_explained(digits_id) -> None:
    with pytest.raises(InputError, match="solver needs instances"):
        evaluate(Overshoot(), "ft06")
    with pytest.raises(InputError, match="env_id"):
        evaluate(Always(0), Digits(3))
    with pytest.raises(InputError, match="cannot be evaluated"):
        evaluate(3, "CartPole-v1")
    with pytest.raises(InputError, match="best_of"):
        evaluate(Overshoot(), Digits(3), best_of=0)
    with pytest.raises(InputError, match="env_kwargs"):
        evaluate(Always(0), DigitsEnv(), env_kwargs={"illegal": "count"})
