"""Rules as policies on every face of the environment, as solvers of scenarios, and in one paired table."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from hydrothermal_toys import case, random_case, tri3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import orl
from orl.bench.comparison import compare_policies
from orl.common.errors import InputError, UnknownNameError
from orl.common.evaluation import evaluate
from orl.envs.hydrothermal.library import load
from orl.envs.hydrothermal.stage_lp import StageError
from orl.envs.hydrothermal.vector import HydrothermalVectorEnv
from orl.fast.lean_vec_env import LeanVecEnv
from orl.solvers.hydrothermal import policies, rules
from orl.solvers.hydrothermal.deterministic_equivalent import DeterministicEquivalent, wait_and_see
from orl.solvers.hydrothermal.policies import RulePolicy, RuleSolver
from orl.solvers.hydrothermal.rules import make_rule
from orl.solvers.hydrothermal.simulation import simulate

ID = "orl:orl/Hydrothermal-v0"
QUICK = ("empty", "full", "myopic", "rolling-horizon", "sddp")
OPTIONS: dict[str, dict[str, Any]] = {"sddp": {"iterations": 12}, "rolling-horizon": {"window": 3}}


def panel(instance: Any, n: int) -> np.ndarray:
    """What ``reset(seed)`` meets for the seeds 0..n-1, int64[T, n]."""
    return np.stack([instance.scenario(seed).columns for seed in range(n)], axis=1)


def simulated(rule: str, instance: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    costs, volumes = simulate(instance, make_rule(rule, instance, **OPTIONS.get(rule, {})), panel(instance, n))
    return costs.sum(1), volumes


# ---- policies --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["reach", "target"])
@pytest.mark.parametrize("rule", QUICK)
def test_policy_solver_and_simulation_do_the_same(rule: str, mode: str) -> None:
    instance = random_case(3, "dc", horizon=4)
    env = gymnasium.make(ID, instance=instance, action_mode=mode, illegal="raise")
    policy, solver = (make(rule, **OPTIONS.get(rule, {})) for make in (partial(RulePolicy, env=env), RuleSolver))
    costs, volumes = simulated(rule, instance, 3)
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        done = False
        while not done:
            action, _ = policy.predict(obs)
            assert action.shape == (4,)
            assert action.dtype == np.float64
            obs, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        result = solver.solve(instance.scenario(seed))
        assert np.array_equal(result.solution.volumes, volumes[seed])
        assert result.objective == pytest.approx(costs[seed], rel=1e-7)
        if mode == "reach":
            assert np.array_equal(info["solution"].volumes, volumes[seed])
            assert info["objective"] == pytest.approx(costs[seed], rel=1e-12)
        else:
            assert info["target_violation"] == pytest.approx(0, abs=1e-9)
            assert np.allclose(info["solution"].volumes, volumes[seed], atol=1e-9)


def faces(n: int) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"instance": "tri3-t6", "illegal": "raise"}
    singles = [lambda: gymnasium.make(ID, **kwargs)] * n
    return {
        "bridge": orl.make_vec("orl/Hydrothermal-v0", n, **kwargs),
        "monitored bridge": VecMonitor(orl.make_vec("orl/Hydrothermal-v0", n, **kwargs)),
        "normalised bridge": VecNormalize(orl.make_vec("orl/Hydrothermal-v0", n, **kwargs)),
        "dummy": DummyVecEnv(singles),
        "monitored dummy": VecMonitor(DummyVecEnv(singles)),
        "lean": LeanVecEnv(singles),
    }


@pytest.mark.parametrize("face", faces(1))
def test_a_rule_plays_every_vectorised_face_alike(face: str) -> None:
    env = faces(3)[face]
    policy = RulePolicy("myopic", env)
    env.seed(0)
    obs = env.reset()
    found = [0.0] * 3
    for _ in range(6):
        actions, _ = policy.predict(obs)
        assert actions.shape == (3, 3)
        obs, _, dones, infos = env.step(actions)
        for b in np.flatnonzero(dones):
            found[b] = infos[b]["objective"]
    assert found == pytest.approx(simulated("myopic", load("tri3-t6"), 3)[0])


def test_a_rule_plays_the_native_batch_beyond_the_end() -> None:
    env = HydrothermalVectorEnv(4, "tri3-t6", illegal="raise", autoreset_mode="Disabled")
    policy = RulePolicy("rolling-horizon", env, window=3)
    obs, _ = env.reset(seed=0)
    for _ in range(6):
        obs, _, terminated, _, infos = env.step(policy.predict(obs)[0])
    assert terminated.all()
    assert infos["objective"] == pytest.approx(simulated("rolling-horizon", load("tri3-t6"), 4)[0])
    assert policy.predict(obs)[0].shape == (4, 3)  # an episode that is over has no stage, but SB3 may ask


def test_sb3s_evaluation_takes_a_rule() -> None:
    env = orl.make_vec("orl/Hydrothermal-v0", 2, instance="tri3")
    good, _ = evaluate_policy(RulePolicy("sddp", env, iterations=30), env, n_eval_episodes=10, warn=False)
    poor, _ = evaluate_policy(RulePolicy("empty", env), env, n_eval_episodes=10, warn=False)
    assert poor < good < 0


def test_other_environments_and_unknown_rules_are_refused() -> None:
    with pytest.raises(InputError, match="not an environment of this domain"):
        RulePolicy("full", gymnasium.make("CartPole-v1"))
    with pytest.raises(InputError, match="action_mode"):
        RulePolicy("full", gymnasium.make(ID, action_mode="turbine"))
    env = gymnasium.make(ID)
    for make in (RuleSolver, partial(RulePolicy, env=env)):
        with pytest.raises(UnknownNameError):
            make("fool")
        with pytest.raises(UnknownNameError, match="option of rolling-horizon.*'windows'.*window"):
            make("rolling-horizon", windows=3)
        with pytest.raises(UnknownNameError):
            make(make_rule("full", tri3()), seed=1)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def counted(key: str, instance: Any, **options: Any) -> Any:
        found.append(options)
        return make_rule(key, instance, **options)

    monkeypatch.setattr(policies, "make_rule", counted)
    return found


def test_a_rule_is_made_once_for_all_scenarios_of_a_problem(made: list[dict[str, Any]]) -> None:
    solver = RuleSolver("sddp", iterations=2)
    for seed in range(4):
        solver.solve(load("tri3").scenario(seed), time_limit=60.0 + seed)
    assert made == [{"iterations": 2, "time_limit": 30.0, "seed": 0}]
    solver.solve(load("tri3-t5/scenario-0"))
    assert len(made) == 2
    solver.solve(load("tri3/scenario-0"), seed=1)
    assert made[-1] == {"iterations": 2, "seed": 1}
    solver.solve(replace(load("tri3/scenario-0"), deficit_cost=1e5))
    assert len(made) == 4
    env = gymnasium.make(ID)
    policy = RulePolicy("full", env)
    for seed in range(2):
        policy.predict(env.reset(seed=seed)[0])
    assert len(made) == 5


def test_a_ready_rule_plays_many_envs() -> None:
    instance = load("tri3")
    ready = make_rule("sddp", instance, iterations=10)
    scenarios = [instance.scenario(seed) for seed in range(3)]
    played = evaluate(partial(RulePolicy, ready), scenarios, env_id=ID)
    solved = evaluate(RuleSolver(ready), scenarios)
    assert played["objective"].tolist() == pytest.approx(solved["objective"].tolist())
    assert solved["subject"].unique().tolist() == ["rule"]


# ---- solvers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", [*QUICK, "random"])
@pytest.mark.parametrize("name", ["tri3", "cascade-5x4-s2-t3"])
def test_a_plan_passes_the_check_and_respects_the_bound(rule: str, name: str) -> None:
    solver = RuleSolver(rule, **OPTIONS.get(rule, {}))
    for seed in range(2):
        scenario = load(name).scenario(seed)
        result = solver.solve(scenario)
        check = scenario.check(result.solution)
        assert check.feasible, check.violations
        assert check.objective == pytest.approx(result.objective)
        assert result.bound <= result.objective
        assert result.objective >= DeterministicEquivalent().solve(scenario).objective - 1e-3
        assert result.status == ("optimal" if result.objective <= result.bound else "feasible")


def test_a_rule_needs_a_scenario() -> None:
    with pytest.raises(InputError, match=r"instance.scenario\(seed\)"):
        RuleSolver("full").solve(load("tri3"))


def test_the_random_rule_follows_the_solvers_seed() -> None:
    scenario, solver = load("tri3/scenario-0"), RuleSolver("random")
    one, again, other = (solver.solve(scenario, seed=s).solution.volumes for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def interrupted_factory(instance: Any) -> Any:
    full = make_rule("full", instance)

    def decide(stage: Any, volumes: Any, inflows: Any) -> Any:
        if stage[0] == 2:
            signal.raise_signal(signal.SIGINT)
        return full(stage, volumes, inflows)

    return decide


def interrupted_while_made(instance: Any) -> Any:
    raise KeyboardInterrupt


def test_ctrl_c_and_the_time_limit_leave_a_complete_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rules.rule_factory
    own: list[Any] = [interrupted_factory]
    for module in (rules, policies):
        monkeypatch.setattr(module, "rule_factory", lambda key: own[0] if key == "own" else real(key))
    scenario = load("tri3-t6/scenario-0")
    full, empty = (RuleSolver(rule).solve(scenario).solution.volumes for rule in ("full", "empty"))
    cut = RuleSolver("own").solve(scenario)
    assert np.array_equal(cut.solution.volumes[:4], full[:4])
    assert not cut.solution.volumes[4:].any()
    assert scenario.check(cut.solution).feasible
    own[0] = interrupted_while_made
    assert np.array_equal(RuleSolver("own").solve(scenario).solution.volumes, empty)
    assert np.array_equal(RuleSolver("full").solve(scenario, time_limit=0.0).solution.volumes, empty)


def test_names_say_the_options() -> None:
    assert RuleSolver("rolling-horizon", window=3).name == "rolling-horizon(window=3)"
    assert RuleSolver("myopic").name == "myopic"


# ---- one table -------------------------------------------------------------------------------------------------------
def test_volumes_that_force_more_power_than_may_be_given_away_are_no_plan() -> None:
    """The lower plant is to keep all water that the upper one can turbine; the stage needs next to no power."""
    above = np.array([[False, True], [False, False]])
    toy = case(
        horizon=2,
        max_volume=[0.0, 50.0],
        initial_volume=[0.0, 0.0],
        max_outflow=[20.0, 20.0],
        production_factor=[1.0, 1.0],
        thermal=[(5.0, 10.0)],
        demand=[1.0],
        inflows=[[[15.0], [0.0]]],
        turbine_to=above,
        surplus=False,
    )
    scenario = toy.scenario_of([0, 0])
    found = RuleSolver("full").solve(scenario)
    assert (found.status, found.solution, found.objective) == ("unknown", None, None)
    assert found.bound == scenario.lower_bound()
    assert evaluate(RuleSolver("full"), scenario)["status"].tolist() == ["unknown"]
    assert RuleSolver("empty").solve(scenario).objective == 0
    env = gymnasium.make(ID, instance=scenario)
    before, _ = env.reset()
    with pytest.raises(StageError, match="stage 0"):
        env.step(np.ones(2))
    np.testing.assert_array_equal(env.unwrapped.set_state(env.unwrapped.get_state()), before)
    assert env.step(-np.ones(2))[1] == 0


def test_rules_and_perfect_foresight_stand_in_one_paired_table() -> None:
    """Policies on envs, rules as solvers and an exact solver on one list of scenarios, each an instance of its own."""
    instance = load("tri3")
    scenarios = [instance.scenario(seed) for seed in range(12)]
    subjects = {
        "foresight": DeterministicEquivalent(),
        "sddp": partial(RulePolicy, make_rule("sddp", instance, iterations=40)),
        "myopic": RuleSolver("myopic"),
    }
    found = compare_policies(subjects, scenarios, n_scenarios=1, env_id=ID, baseline="foresight")
    assert len(found.table) == 36
    assert found.table["checked"].all()
    assert found.table["violations"].eq("").all()
    known = wait_and_see(instance, panel(instance, 12))
    rows = found.comparison.set_index("subject")
    for rule in ("sddp", "myopic"):
        decide = make_rule(rule, instance, **({"iterations": 40} if rule == "sddp" else {}))
        costs = simulate(instance, decide, panel(instance, 12))[0].sum(1)
        difference, row = costs - known, rows.loc[rule]
        assert row["n_pairs"] == row["n"] == 12
        assert row["unit"] == "scenario"
        assert row["mean"] == pytest.approx(costs.mean())
        assert row["std"] == pytest.approx(costs.std(ddof=1))
        assert row["baseline_mean"] == pytest.approx(known.mean())
        assert row["difference"] == pytest.approx(difference.mean())
        assert row["std_error"] == pytest.approx(difference.std(ddof=1) / np.sqrt(12))
        assert row["win_rate"] <= (difference < 1e-3).mean()  # foresight is never beaten, at most met up to rounding
        assert row["bound"] == pytest.approx(known.mean())  # foresight proves one for every scenario
        assert row["seconds"] > 0
    assert rows.loc["sddp", "difference"] < rows.loc["myopic", "difference"]
