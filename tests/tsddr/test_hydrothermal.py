"""Hydrothermal dispatch: the policy's costs in the environment, a gradient through the duals, and the known optimum."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.seeding import np_random
from stable_baselines3.common.evaluation import evaluate_policy

import orl
from orl.common import counter_noise
from orl.tsddr.paths import follow, state_gradient

OPTIMUM = 3582.992740  # of tri3 with 4 stages, from the programme over the tree of all scenarios


def env(**options):
    return gymnasium.make("orl:orl/Hydrothermal-v0", instance="tri3", **options)


def all_paths(model) -> np.ndarray:
    return model.noise_of(np.array(list(itertools.product(range(3), repeat=4))).T)


@pytest.mark.parametrize("policy", ["LSTMTarget", "MLPTarget"])
@pytest.mark.parametrize("mode, action_mode", [("strict", "reach"), ("soft", "target")])
def test_the_environment_gives_the_costs_of_simulate(policy, mode, action_mode) -> None:
    model = orl.TSDDR(policy, env(action_mode=action_mode), mode=mode, batch_size=2, seed=0).learn(5 * 8)
    for n_envs in (1, 3):
        vec, found = orl.make_vec("orl:orl/Hydrothermal-v0", n_envs, seed=5, action_mode=action_mode), {}

        def note(state, _, found=found):  # rewards of a VecEnv are float32, the objective is not
            if state["done"]:
                found[state["i"]] = state["info"]["objective"]

        evaluate_policy(model, vec, n_eval_episodes=n_envs, callback=note, warn=False)
        keys = [counter_noise.draw_key(np_random(5 + i)[0]) for i in range(n_envs)]
        costs = model.simulate(model.target_model.draw(np.array(keys))).totals
        objectives = [found[i] for i in range(n_envs)]
        np.testing.assert_allclose(objectives, costs, rtol=1e-9, atol=4e-6)  # the env rounds costs to 1e-6


def test_the_gradient_through_the_duals_is_exact() -> None:
    algorithm = orl.TSDDR("LSTMTarget", env(), seed=0, policy_kwargs={"activation_fn": torch.nn.Tanh})
    model, policy = algorithm.target_model, algorithm.policy
    noise = model.draw(np.arange(6, dtype=np.uint64))

    def priced():
        path = follow(policy, model, noise)
        states = path.states.detach().numpy()
        before = np.concatenate([np.broadcast_to(model.initial_state, states[:1].shape), states[:-1]])
        return path, model.costs_and_gradients(before, noise, states)

    path, (_, by_before, by_after) = priced()
    (path.states * torch.from_numpy(state_gradient(by_before, by_after))).sum().backward()
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in policy.parameters()]
    exact = sum(float((p.grad * d).sum()) for p, d in zip(policy.parameters(), direction, strict=True))
    errors = []
    for step in (1e-4, 1e-5, 1e-6):
        costs = []
        for sign in (1.0, -2.0):  # forth, then back to the other side
            for p, d in zip(policy.parameters(), direction, strict=True):
                p.data += sign * step * d
            costs.append(priced()[1][0].sum())
        for p, d in zip(policy.parameters(), direction, strict=True):
            p.data += step * d
        errors.append(abs((costs[0] - costs[1]) / (2 * step) / exact - 1.0))
    assert min(errors) < 1e-6


def test_it_comes_close_to_the_optimum_of_tri3_and_never_beats_it() -> None:
    model = orl.TSDDR("MLPTarget", env(), learning_rate=0.01, seed=0).learn(400 * 64)
    mean = model.simulate(all_paths(model.target_model)).totals.mean()
    assert OPTIMUM * (1 - 1e-9) <= mean <= 1.01 * OPTIMUM


def test_a_linear_rule_on_tri3_is_no_better_than_the_optimum() -> None:
    model = orl.TSDDR("LinearTarget", env(), learning_rate=0.03, seed=0).learn(200 * 64)
    mean = model.simulate(all_paths(model.target_model)).totals.mean()
    assert OPTIMUM * (1 - 1e-9) <= mean <= 1.1 * OPTIMUM


def test_soft_targets_learn_on_tri3() -> None:
    model = orl.TSDDR("MLPTarget", env(action_mode="target"), mode="soft", batch_size=4, learning_rate=0.01, seed=0)
    before = model.simulate(all_paths(model.target_model)).totals.mean()
    model.learn(60 * 16)
    after = model.simulate(all_paths(model.target_model)).totals.mean()
    assert OPTIMUM * (1 - 1e-9) <= after < 0.8 * before
