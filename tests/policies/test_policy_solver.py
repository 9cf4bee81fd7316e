"""A policy as a Solver: same schedules as in the single env, best of many, reproducible."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import orl
from orl.common.problem import Solver
from orl.envs.job_shop.library import load
from orl.policies.policy_solver import PolicySolver
from orl.policies.set_policy import SetPolicy

ENV_ID = "orl/JobShop-v0"
ENV_KWARGS = {"observation": "compact", "noop": False}


@pytest.fixture(scope="module")
def policy() -> SetPolicy:
    """Random weights, large enough that sampling and greedy choice differ from instance to instance."""
    env = gym.make(ENV_ID, instance="ft06", **ENV_KWARGS)
    torch.manual_seed(0)
    policy = SetPolicy(env.observation_space, env.action_space, lambda _: 1e-3, width=16)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy


@pytest.mark.parametrize("name", ["ft06", "ta01", "tai4_4_01"])
def test_greedy_gives_the_schedule_of_the_single_env(policy: SetPolicy, name: str) -> None:
    instance = load(name)
    result = PolicySolver(policy.for_spaces, ENV_ID, ENV_KWARGS).solve(instance)
    assert instance.check(result.solution).objective == result.objective

    def on(env: gym.Env) -> SetPolicy:
        return policy.for_spaces(env.observation_space, env.action_space)

    row = orl.evaluate(on, instance, env_id=ENV_ID, env_kwargs=ENV_KWARGS).iloc[0]
    assert row["objective"] == result.objective


def test_more_attempts_are_never_worse_and_follow_the_seed(policy: SetPolicy) -> None:
    instance = load("ta01")
    greedy = PolicySolver(policy.for_spaces, ENV_ID, ENV_KWARGS).solve(instance)
    many = PolicySolver(policy.for_spaces, ENV_ID, ENV_KWARGS, samples=16)
    assert isinstance(many, Solver)
    before = torch.random.get_rng_state()
    first, again, other = (many.solve(instance, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.objective < greedy.objective
    assert (first.solution.start == again.solution.start).all()
    assert not np.array_equal(first.solution.start, other.solution.start)
    assert instance.check(first.solution).feasible
    assert first.bound <= instance.best_known().upper
    assert [point.objective for point in first.log] == sorted({point.objective for point in first.log}, reverse=True)
