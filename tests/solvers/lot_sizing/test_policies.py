"""Rules as policies on every face of the environment, and as solvers of scenarios."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import orl
from orl.common.errors import InputError, UnknownNameError
from orl.common.evaluation import evaluate
from orl.envs.lot_sizing.distributions import binomial
from orl.envs.lot_sizing.env import LotSizingEnv
from orl.envs.lot_sizing.library import load
from orl.envs.lot_sizing.vector import LotSizingVectorEnv
from orl.fast.lean_vec_env import LeanVecEnv
from orl.solvers.lot_sizing import policies, rules
from orl.solvers.lot_sizing.policies import RulePolicy, RuleSolver
from orl.solvers.lot_sizing.rules import make_rule
from orl.solvers.lot_sizing.simulation import simulate

QUICK = ("idle", "static", "greedy", "base-stock", "dynamic-programming")
NAME = "ls-2x1-t6"


def costs_of_simulation(rule: str, name: str, n: int) -> np.ndarray:
    instance = load(name)
    return simulate(instance, make_rule(rule, instance), range(n))


# ---- policies --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", QUICK)
def test_policy_solver_and_simulation_cost_the_same(rule: str) -> None:
    env = gymnasium.make("orl:orl/LotSizing-v0", instance=NAME, illegal="raise")
    policy, solver = RulePolicy(rule, env), RuleSolver(rule)
    simulated = costs_of_simulation(rule, NAME, 5)
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        done = False
        while not done:
            action, _ = policy.predict(obs)
            assert action.shape == (1,)
            assert action.dtype == np.int64
            obs, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        result = solver.solve(load(NAME).scenario(seed))
        assert info["objective"] == pytest.approx(simulated[seed]) == pytest.approx(result.objective)
        assert np.array_equal(result.solution.actions, info["solution"].actions)


def faces(n: int) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"instance": "ls-4x2-t20", "illegal": "raise"}
    singles = [lambda: gymnasium.make("orl:orl/LotSizing-v0", **kwargs)] * n
    return {
        "bridge": orl.make_vec("orl/LotSizing-v0", n, **kwargs),
        "monitored bridge": VecMonitor(orl.make_vec("orl/LotSizing-v0", n, **kwargs)),
        "normalised bridge": VecNormalize(orl.make_vec("orl/LotSizing-v0", n, **kwargs)),
        "dummy": DummyVecEnv(singles),
        "monitored dummy": VecMonitor(DummyVecEnv(singles)),
        "lean": LeanVecEnv(singles),
    }


@pytest.mark.parametrize("face", faces(1))
def test_a_rule_plays_every_vectorised_face_alike(face: str) -> None:
    env = faces(3)[face]
    policy = RulePolicy("base-stock", env)
    env.seed(0)
    obs = env.reset()
    found = [0.0] * 3
    for _ in range(20):
        actions, _ = policy.predict(obs)
        assert actions.shape == (3, 2)
        obs, _, dones, infos = env.step(actions)
        for b in np.flatnonzero(dones):
            found[b] = infos[b]["objective"]
    assert found == pytest.approx(costs_of_simulation("base-stock", "ls-4x2-t20", 3))


def test_a_rule_plays_the_native_batch() -> None:
    env = LotSizingVectorEnv(num_envs=4, instance="ls-4x2-t20", illegal="raise")
    policy = RulePolicy("greedy", env)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        obs, _, terminated, truncated, infos = env.step(policy.predict(obs)[0])
    assert (terminated | truncated).all()
    found = infos["final_info"]["objective"]
    assert found == pytest.approx(costs_of_simulation("greedy", "ls-4x2-t20", 4))


def test_sb3s_evaluation_takes_a_rule() -> None:
    env = orl.make_vec("orl/LotSizing-v0", 2, instance=NAME)
    mean, _ = evaluate_policy(RulePolicy("greedy", env), env, n_eval_episodes=20, warn=False)
    assert -40 < mean < 0


def test_a_lucky_episode_may_beat_the_bound_on_expected_cost_but_not_its_own() -> None:
    instance, lucky = load("ls-4x2-t2"), 25
    row = evaluate(
        lambda env: RulePolicy("dynamic-programming", env), instance, env_id="orl:orl/LotSizing-v0", seed=lucky
    ).iloc[0]
    assert row["objective"] < instance.lower_bound()
    assert row["bound"] == pytest.approx(instance.scenario(lucky).lower_bound())
    assert row["bound"] <= row["objective"] + 1e-9
    assert row["violations"] == ""


def test_copies_with_different_instances_get_their_own_rule() -> None:
    instances = [load("ls-2x1-t6"), load("ls-2x1-t12")]
    env = LotSizingVectorEnv(num_envs=8, instance=instances, illegal="raise")
    policy = RulePolicy("dynamic-programming", env)
    obs, _ = env.reset(seed=0)
    for _ in range(14):
        actions, _ = policy.predict(obs)
        for b in range(8):
            batch = env.unwrapped.batch
            alone = make_rule("dynamic-programming", batch.instance(b))
            expected = alone(batch.inventory[b : b + 1], batch.setup[b : b + 1], batch.period[b : b + 1])
            assert np.array_equal(actions[b], expected[0])
        obs = env.step(actions)[0]


def test_a_rule_is_made_once_for_all_scenarios_of_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(key: str, instance: Any, **options: Any) -> Any:
        made.append(key)
        return make_rule(key, instance, **options)

    monkeypatch.setattr(policies, "make_rule", counted)
    solver = RuleSolver("dynamic-programming")
    for seed in range(4):
        solver.solve(load(NAME).scenario(seed))
    assert len(made) == 1
    solver.solve(load("ls-2x1-t7/scenario-0"))
    assert len(made) == 2
    scenario = load(NAME).scenario(0)
    for k, other in enumerate(({"demand": binomial(2, 2, 0.5)}, {"holding_costs": scenario.holding_costs + 1.0})):
        solver.solve(replace(scenario, **other))
        assert len(made) == 3 + k


def test_exclusive_items_are_respected() -> None:
    env = LotSizingEnv("ls-4x2-t20", exclusive_items=True, illegal="raise")
    policy = RulePolicy("random", env)
    np.random.seed(0)  # noqa: NPY002
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        obs, *_ = env.step(policy.predict(obs)[0])


def test_other_environments_and_unknown_rules_are_refused() -> None:
    with pytest.raises(InputError, match="not an environment of this domain"):
        RulePolicy("greedy", gymnasium.make("CartPole-v1"))
    with pytest.raises(UnknownNameError):
        RulePolicy("gredy", LotSizingEnv(NAME))
    with pytest.raises(UnknownNameError):
        RuleSolver("gredy")
    for make in (RuleSolver, lambda rule, **options: RulePolicy(rule, LotSizingEnv(NAME), **options)):
        with pytest.raises(UnknownNameError, match="option of greedy.*'perids'.*periods"):
            make("greedy", perids=3)


# ---- solvers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", QUICK)
@pytest.mark.parametrize("name", ["ls-2x1-t6", "ls-4x2-t5"])
def test_a_plan_passes_the_check_and_respects_the_bound(rule: str, name: str) -> None:
    solver = RuleSolver(rule)
    for seed in range(3):
        scenario = load(name).scenario(seed)
        result = solver.solve(scenario)
        check = scenario.check(result.solution)
        assert check.feasible, check.violations
        assert check.objective == pytest.approx(result.objective)
        assert result.bound <= result.objective + 1e-9
        assert result.status == ("optimal" if result.objective <= result.bound else "feasible")


def test_random_demand_needs_a_scenario() -> None:
    with pytest.raises(InputError, match=r"instance.scenario\(seed\)"):
        RuleSolver("greedy").solve(load(NAME))


def test_the_random_rule_follows_the_solvers_seed() -> None:
    scenario, solver = load("ls-4x2-t20/scenario-0"), RuleSolver("random")
    one, again, other = (solver.solve(scenario, seed=s).solution.actions for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def factory_with_limits(instance: Any, *, seed: int, time_limit_per_decision: float = 2.0, note: list[Any]) -> Any:
    note.append((seed, time_limit_per_decision))
    return make_rule("idle", instance)


def interrupted_factory(instance: Any) -> Any:
    def decide(inventory: Any, setup: Any, period: Any) -> Any:
        if period[0] == 3:
            signal.raise_signal(signal.SIGINT)
        return np.zeros_like(setup)

    return decide


def interrupted_while_made(instance: Any) -> Any:
    raise KeyboardInterrupt


@pytest.fixture
def own_rule(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(factory: Any) -> None:
        monkeypatch.setitem(rules.RULES, "own", "")
        real = rules.rule_factory
        for module in (rules, policies):
            monkeypatch.setattr(module, "rule_factory", lambda key: factory if key == "own" else real(key))

    return use


def test_factories_that_ask_for_seed_and_time_get_them(own_rule: Any) -> None:
    own_rule(factory_with_limits)
    note: list[Any] = []
    solver = RuleSolver("own", note=note)
    solver.solve(load("ls-2x1-t6/scenario-0"), seed=5, time_limit=3.0)
    RuleSolver("own", note=note, seed=7).solve(load("ls-2x1-t6/scenario-0"), seed=5)
    assert note == [(5, 0.5), (7, 2.0)]


def test_ctrl_c_and_the_time_limit_leave_a_complete_plan(own_rule: Any) -> None:
    own_rule(interrupted_factory)
    scenario = load("ls-2x1-t20/scenario-0")
    whole = RuleSolver("base-stock").solve(scenario)
    cut = RuleSolver("own").solve(scenario)
    assert not cut.solution.actions[:4].any()
    assert cut.solution.actions[4:].any()
    assert scenario.check(cut.solution).feasible
    own_rule(interrupted_while_made)
    assert np.array_equal(RuleSolver("own").solve(scenario).solution.actions, whole.solution.actions)
    late = RuleSolver("greedy").solve(scenario, time_limit=0.0)
    assert np.array_equal(late.solution.actions, whole.solution.actions)


def test_names_say_the_options() -> None:
    assert RuleSolver("greedy", periods=3).name == "greedy(periods=3)"
    assert RuleSolver("static").name == "static"


def test_rules_stand_in_the_table_of_evaluate() -> None:
    scenarios = [load(f"ls-2x1-t6/scenario-{seed}") for seed in range(3)]
    table = evaluate(RuleSolver("greedy"), scenarios)
    assert table["checked"].all()
    assert (table["gap"] >= 0).all()
    played = evaluate(lambda env: RulePolicy("greedy", env), scenarios, env_id="orl/LotSizing-v0")
    assert played["objective"].tolist() == pytest.approx(table["objective"].tolist())
