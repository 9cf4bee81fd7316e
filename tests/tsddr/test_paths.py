"""Gradients of whole episodes against finite differences, and paths as the environment plays them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tank_toy import TankEnv, Tanks, all_outcomes

from orl.tsddr import LinearTarget, LSTMTarget, MLPTarget
from orl.tsddr.paths import follow, simulate, state_gradient

KEYS = np.arange(100, 108, dtype=np.uint64)


def policy_of(kind, seed: int = 0, **options):
    torch.manual_seed(seed)
    policy = kind(TankEnv.observation_space, TankEnv.action_space, lambda _: 1e-3, state_at=slice(0, 2), **options)
    if kind is LinearTarget:  # begins at zero otherwise
        for parameter in policy.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return policy


def total_cost(policy, model, noise) -> float:
    states = follow(policy, model, noise).states.detach().numpy()
    before = np.concatenate([np.broadcast_to(model.initial_state, states[:1].shape), states[:-1]])
    return float(model.costs_and_gradients(before, noise, states)[0].sum())


def slopes(policy, model, noise) -> tuple[float, list[float]]:
    """Derivative of the cost along a direction of parameters, by the chain of duals and by differences."""
    path = follow(policy, model, noise)
    states = path.states.detach().numpy()
    before = np.concatenate([np.broadcast_to(model.initial_state, states[:1].shape), states[:-1]])
    _, by_before, by_after = model.costs_and_gradients(before, noise, states)
    policy.zero_grad()
    (path.states * torch.from_numpy(state_gradient(by_before, by_after))).sum().backward()
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in policy.parameters()]
    exact = sum(float((p.grad * d).sum()) for p, d in zip(policy.parameters(), direction, strict=True))
    differences = []
    for step in (1e-4, 1e-5, 1e-6):
        costs = []
        for sign in (1.0, -1.0):
            for p, d in zip(policy.parameters(), direction, strict=True):
                p.data += sign * step * d
            costs.append(total_cost(policy, model, noise))
            for p, d in zip(policy.parameters(), direction, strict=True):
                p.data -= sign * step * d
        differences.append((costs[0] - costs[1]) / (2 * step))
    return exact, differences


@pytest.mark.parametrize("kind", [LSTMTarget, MLPTarget, LinearTarget])
@pytest.mark.parametrize("squash", ["stretch", "clip"])
@pytest.mark.parametrize("reachable", [True, False])
def test_the_gradient_of_an_episode_is_exact(kind, squash, reachable) -> None:
    model = Tanks(reachable)
    policy = policy_of(kind, squash=squash, activation_fn=torch.nn.Tanh)  # no kinks of its own
    exact, differences = slopes(policy, model, model.draw(KEYS))
    assert abs(exact) > 1e-3
    assert min(abs(exact / d - 1.0) for d in differences) < 1e-6


def test_limits_taken_as_constants_give_another_gradient() -> None:
    model = Tanks()
    model.blind = True
    exact, differences = slopes(policy_of(LSTMTarget), model, model.draw(KEYS))
    assert min(abs(exact / d - 1.0) for d in differences) > 1e-3


@pytest.mark.parametrize("kind", [LSTMTarget, MLPTarget, LinearTarget])
def test_nothing_is_anticipated(kind) -> None:
    model, policy = Tanks(), policy_of(kind)
    noise = model.noise_of(all_outcomes())
    for t in range(1, model.n_stages):
        changed = noise.copy()
        changed[t:] += 3.0
        for run in (lambda n: follow(policy, model, n).states.detach().numpy(), lambda n: play(policy, model, n)):
            before, after = run(noise), run(changed)
            np.testing.assert_array_equal(before[:t], after[:t])
            assert not np.array_equal(before[t], after[t])


def play(policy, model, noise):
    return simulate(policy, model, noise).states[1:]


def test_rounding_to_what_is_deployed_hardly_moves_a_path() -> None:
    model, policy = Tanks(), policy_of(LSTMTarget)
    noise = model.draw(KEYS)
    smooth, rounded = follow(policy, model, noise).states.detach().numpy(), play(policy, model, noise)
    assert 0 < np.abs(smooth - rounded).max() < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_states_and_costs_stay_float64(dtype) -> None:
    model, policy = Tanks(), policy_of(MLPTarget, dtype=dtype)
    path = follow(policy, model, model.draw(KEYS))
    assert path.states.dtype == torch.float64
    path.states.sum().backward()
    assert all(p.grad.dtype == getattr(torch, dtype) for p in policy.parameters())


def test_a_state_counts_where_its_stage_ends_and_where_the_next_one_begins() -> None:
    by_before, by_after = np.arange(6.0).reshape(3, 1, 2), 10 * np.ones((3, 1, 2))
    np.testing.assert_array_equal(state_gradient(by_before, by_after)[:, 0], [[12, 13], [14, 15], [10, 10]])
    assert by_after[0, 0, 0] == 10


def test_observations_that_hold_the_state_elsewhere() -> None:
    box, actions = spaces.Box(-1, 1, (6,)), spaces.Box(-1, 1, (2,))
    policy = LinearTarget(box, actions, lambda _: 1e-3, state_at=slice(3, 5))
    np.testing.assert_array_equal(policy.context_at, [0, 1, 2, 5])
    observation = torch.arange(6.0, dtype=torch.float64)[None]
    expected = policy.decide(policy.encode(observation[None, :, [0, 1, 2, 5]])[0][0], observation[:, 3:5])
    assert torch.equal(policy(observation)[0], expected)
