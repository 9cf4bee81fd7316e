"""The exact optimum of a lake: published figures, brute force, simulation."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

import orl
from orl.common.errors import InputError
from orl.envs.frozen_lake.generators import random_lake
from orl.envs.frozen_lake.instance import LakeInstance, LakePolicy
from orl.envs.frozen_lake.library import load, names
from orl.envs.frozen_lake.transition import decide, expected_reward, expected_value
from orl.solvers.frozen_lake.dynamic_programming import DynamicProgramming, RulePolicy, plan_lake

ID = "orl:orl/PostDecisionFrozenLake-v0"
# Map: optimal return, probability of the goal under it, largest probability of the goal, return of that policy.
FIGURES = {
    1: (43.83, 0.705, 0.984, 22.61),
    2: (34.89, 0.713, 0.957, 13.91),
    3: (21.39, 0.372, 0.509, 8.43),
    4: (13.78, 0.380, 0.463, 8.14),
    5: (29.13, 0.778, 0.951, 10.97),
    6: (12.10, 0.000, 0.281, 9.82),
}


@pytest.mark.parametrize("k", FIGURES)
def test_the_known_figures_of_the_shaped_lakes(k) -> None:
    lake = load(f"lake-10x10-{k}")
    best, safest = plan_lake(lake), plan_lake(lake, "success")
    found = best.expected_return, best.success, safest.success, safest.expected_return
    assert found == pytest.approx(FIGURES[k], abs=0.01)


@pytest.mark.parametrize("name", names())
def test_the_librarys_best_known_objectives_are_the_optima(name) -> None:
    lake = load(name)
    assert -plan_lake(lake).expected_return == pytest.approx(lake.best_known().upper, abs=1e-9)


def test_no_policy_of_a_tiny_lake_is_better() -> None:
    """All stationary policies of 2 steps, and all pairs of them, on a lake of five tiles with two that matter."""
    directions = np.random.default_rng(3).dirichlet(np.ones(4), 4)
    lake = LakeInstance("tiny", ("SF", "HG"), directions, horizon=2)
    best, safest = plan_lake(lake), plan_lake(lake, "success")
    values, successes = [], []
    for a, b, c, d in itertools.product(range(4), repeat=4):
        policy = LakePolicy(np.array([[a, b, 0, 0], [c, d, 0, 0]]))
        values.append(-lake.check(policy).objective)
        successes.append(lake.success(policy))
    assert best.expected_return == pytest.approx(max(values))
    assert safest.success == pytest.approx(max(successes))


@pytest.mark.parametrize("maximise", ["return", "success"])
def test_the_instance_prices_the_plan_as_the_plan_does(maximise) -> None:
    lake = random_lake(7, seed=4)
    plan = plan_lake(lake, maximise)
    assert lake.check(plan.policy).objective == pytest.approx(-plan.expected_return)
    assert lake.success(plan.policy) == pytest.approx(plan.success)


def test_values_obey_the_recursion_through_the_post_decision_state() -> None:
    lake = load("lake-8x8")
    plan, tables = plan_lake(lake), lake.tables
    tiles = np.flatnonzero(~tables.ends)
    for t in (0, 50, 99):
        after = expected_reward(tables) + expected_value(tables, plan.value[t + 1])
        np.testing.assert_allclose(plan.post_value[t], after)
        choices = np.array([decide(tables, tiles, a)[1] + after[decide(tables, tiles, a)[0]] for a in range(4)])
        np.testing.assert_allclose(plan.value[t, tiles], choices.max(0))
        assert (plan.value[t, tables.ends] == 0).all()


def test_sparse_lakes_are_worth_their_largest_probability_of_the_goal() -> None:
    lake = load("lake-10x10-5")
    sparse = plan_lake(lake.with_reward("sparse"))
    assert sparse.expected_return == pytest.approx(sparse.success)
    assert sparse.success == pytest.approx(plan_lake(lake, "success").success)


@pytest.mark.parametrize("maximise", ["return", "success"])
def test_the_rule_earns_what_the_plan_promises(maximise) -> None:
    n, lake = 3000, load("lake-4x4")
    plan = plan_lake(lake, maximise)
    env = gymnasium.make_vec(ID, n, instance=lake, autoreset_mode="NEXT_STEP")
    policy = RulePolicy(env, maximise)
    obs, _ = env.reset(seed=1)
    objectives, successes = np.full(n, np.nan), np.zeros(n)
    while np.isnan(objectives).any():
        actions, _ = policy.predict(obs)
        obs, _, terminated, truncated, infos = env.step(actions)
        for b in np.flatnonzero((terminated | truncated) & np.isnan(objectives)):
            objectives[b], successes[b] = infos["objective"][b], infos["success"][b]
    assert abs(-objectives.mean() - plan.expected_return) < 4 * objectives.std() / np.sqrt(n)
    assert abs(successes.mean() - plan.success) < 4 * 0.5 / np.sqrt(n)


def test_the_rule_reads_every_kind_of_batch() -> None:
    plan = plan_lake(load("lake-4x4"))
    for env, shape in (
        (gymnasium.make(ID, instance="lake-4x4"), ()),
        (gymnasium.make_vec(ID, 3, instance="lake-4x4"), (3,)),
        (orl.make_vec(ID, 3, instance="lake-4x4"), (3,)),
        (DummyVecEnv([lambda: gymnasium.make(ID, instance="lake-4x4")] * 3), (3,)),
    ):
        obs = env.reset()
        actions, _ = RulePolicy(env).predict(obs)
        assert np.shape(actions) == shape
        assert (np.asarray(actions) == plan.actions[0, 0]).all()
    with pytest.raises(InputError, match="not an environment of this domain"):
        RulePolicy(gymnasium.make("CartPole-v1"))


def test_solver_and_rule_stand_in_one_table() -> None:
    lake = load("lake-4x4")
    solved = orl.evaluate(DynamicProgramming(), lake)
    assert solved["status"].iloc[0] == "optimal"
    assert solved["objective"].iloc[0] == pytest.approx(lake.best_known().upper)
    safest = DynamicProgramming("success").solve(lake)
    assert safest.status == "feasible"
    assert safest.bound == solved["bound"].iloc[0]
    played = orl.evaluate(lambda env: RulePolicy(env), lake, env_id=ID, n_episodes=5)
    assert played["checked"].all()
    assert (played["gap"] >= 0).all()
    with pytest.raises(InputError, match="maximise"):
        plan_lake(lake, "luck")
