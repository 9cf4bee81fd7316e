"""The advantages of every mode with exact critics: bias and noise on a problem that dynamic programming solves.

Two items on one machine over 20 periods under the uniform random policy; V and V^x of that policy are exact, so what is
left of an advantage's error is the estimator's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import orl
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.envs.lot_sizing.library import load
from orl.envs.lot_sizing.transition import decide, realise
from orl.pdppo import PDPPO
from orl.pdppo.advantages import Rollout, estimate
from orl.solvers.lot_sizing.dynamic_programming import ExactValues, evaluate_policy

HORIZON, EPISODES, LAMBDA = 20, 8000, 0.95


@dataclass(frozen=True)
class Sample:
    """Episodes of the random policy with exact values: arrays [T, N], ``truth`` = r^d + V^x - V, ``pairs``: (s, a)."""

    rollout: Rollout
    truth: npt.NDArray[np.float64]
    pairs: npt.NDArray[np.int64]


def instance(noise: bool = True) -> LotSizingInstance:
    small = replace(load("ls-2x1"), horizon=HORIZON)
    if noise:
        return small
    demand = replace(small.demand, probabilities=np.broadcast_to([0.0, 1.0], small.demand.probabilities.shape))
    return replace(small, demand=demand)


def uniform(inventory: Any, setup: Any, period: Any) -> npt.NDArray[np.float64]:
    return np.full((len(setup), 3), 1 / 3)


@cache
def sample(noise: bool = True, draws: int = 1, seed: int = 0) -> Sample:
    problem = instance(noise)
    exact: ExactValues = evaluate_policy(problem, uniform, stationary=True, keep="all")
    rng = np.random.default_rng(seed)
    shape = (HORIZON, EPISODES)
    stock = rng.integers(problem.max_inventory, size=(EPISODES, 2))
    setup = rng.integers(1, 3, size=(EPISODES, 1))
    rows: dict[str, list[Any]] = {name: [] for name in ("d", "w", "v", "x", "others", "pair")}
    chance = np.asarray(problem.demand.probabilities)[0, :, 1]
    for t in range(HORIZON):
        action = rng.integers(3, size=(EPISODES, 1))
        post, new_setup, cost = decide(problem, stock, setup, action)
        others = np.zeros(EPISODES)
        for _ in range(draws - 1):
            after, _, lost, holding = realise(problem, post, rng.random((EPISODES, 2)) < chance)
            others += exact.value(after, new_setup, t + 1) - lost - holding
        rows["pair"].append((((t * 6 + stock[:, 0]) * 6 + stock[:, 1]) * 3 + setup[:, 0]) * 3 + action[:, 0])
        rows["v"].append(exact.value(stock, setup, t))
        rows["x"].append(exact.post_decision_value(post, new_setup, t))
        stock, _, lost, holding = realise(problem, post, rng.random((EPISODES, 2)) < chance)
        setup = new_setup
        rows["d"].append(-cost)
        rows["w"].append(-lost - holding)
        rows["others"].append(others)
    d, w, v, x, others = (np.array(rows[name]) for name in ("d", "w", "v", "x", "others"))
    ends = np.zeros(shape, np.bool_)
    ends[-1] = True
    rollout = Rollout(
        d + w,
        d,
        w,
        v,
        x,
        np.zeros(EPISODES),
        ends,
        np.zeros_like(ends),
        np.zeros(shape),
        others if draws > 1 else None,
        draws,
    )
    return Sample(rollout, d + x - v, np.array(rows["pair"]))


def advantages(mode: Any, s: Sample, lx: float = 1.0) -> npt.NDArray[np.float64]:
    return estimate(mode, s.rollout, 1.0, LAMBDA, LAMBDA, lx).advantages


def test_exact_values_fulfil_both_halves_of_bellmans_equation() -> None:
    s = sample()
    r = s.rollout
    following = np.concatenate([r.values[1:], np.zeros((1, EPISODES))])
    noise = r.stochastic + following - r.post_values
    assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(noise.size)
    assert abs(s.truth.mean()) < 4 * s.truth.std() / np.sqrt(s.truth.size)  # E_a[Q - V] = 0


def test_weight_zero_is_the_true_advantage_and_weight_one_is_right_in_the_mean() -> None:
    s = sample()
    np.testing.assert_array_equal(advantages("interleaved", s, 0.0), s.truth)
    for lx in (0.5, 1.0):
        error = advantages("interleaved", s, lx) - s.truth
        pairs, counts = np.unique(s.pairs, return_counts=True)
        checked = 0
        for pair in pairs[counts > 60]:
            of_pair = error[s.pairs == pair]
            assert abs(of_pair.mean()) < 5 * of_pair.std() / np.sqrt(len(of_pair)) + 1e-9
            checked += 1
        assert checked > 100


@pytest.mark.parametrize("lx, expected", [(1.0, 2.718), (0.5, 0.152), (0.0, 0.0)])
def test_a_smaller_weight_leaves_less_noise(lx: float, expected: float) -> None:
    s = sample()
    mse = ((advantages("interleaved", s, lx) - s.truth) ** 2).mean()
    assert mse == pytest.approx(expected, rel=0.05, abs=1e-20)


def test_averages_over_draws_leave_less_noise_and_no_bias() -> None:
    errors = {k: advantages("interleaved", sample(draws=k)) - sample(draws=k).truth for k in (1, 4, 32)}
    mse = {k: (error**2).mean() for k, error in errors.items()}
    assert mse[1] == pytest.approx(2.72, rel=0.05)
    assert mse[32] == pytest.approx(1.55 + (2.72 - 1.55) / 32, rel=0.05)
    assert mse[4] == pytest.approx(1.55 + (2.72 - 1.55) / 4, rel=0.05)
    assert all(abs(error.mean()) < 0.03 for error in errors.values())


def test_the_larger_of_two_estimates_is_too_large() -> None:
    s = sample()
    largest, plain = advantages("max_full", s), advantages("interleaved", s)
    assert (largest - s.truth).mean() == pytest.approx(0.61, rel=0.05)
    assert ((largest - s.truth) ** 2).mean() == pytest.approx(1.25, rel=0.06)
    correlation = [np.corrcoef(a.ravel(), s.truth.ravel())[0, 1] for a in (plain, largest)]
    np.testing.assert_allclose(correlation, [0.32, 0.50], atol=0.03)


def test_without_noise_the_larger_of_two_estimates_is_either() -> None:
    """delta^w = 0 then; what is left of the error is the policy's chance in later steps, gone at lambda = 0."""
    s = sample(noise=False)
    both = [estimate(mode, s.rollout, 1.0, 0.0, 0.0).advantages for mode in ("max_full", "interleaved")]
    for ours in both:
        np.testing.assert_allclose(ours, s.truth, rtol=0, atol=1e-12)
    assert ((advantages("max_full", s) - s.truth) >= -1e-12).all()


def test_the_post_critic_comes_near_the_exact_values_of_the_policy() -> None:
    """Trained on the environment beside a policy that stands still; a constant is five times further off."""
    problem = instance()
    env = orl.make_vec(
        "orl:orl/LotSizing-v0", 16, seed=0, instance=problem, append_time=True, time_limit="terminal", reward_scale=0.1
    )
    model = PDPPO(
        "MlpPolicy",
        env,
        learning_rate=lambda _: 0.0,
        post_learning_rate=lambda progress: 4e-3 * progress,
        n_steps=100,
        batch_size=200,
        gamma=1.0,
        gae_lambda=1.0,
        seed=0,
        device="cpu",
    ).learn(16 * 100 * 14)
    batch = env.env.unwrapped.batch

    def policy(inventory: Any, setup: Any, period: Any) -> npt.NDArray[np.float64]:
        states = zip(inventory, setup, period, strict=True)
        observations = np.stack([batch.observation_of(0, *state) for state in states])
        tensor, _ = model.policy.obs_to_tensor(observations)
        masks = np.ones((len(observations), 3), np.bool_)
        return (
            model.policy.get_distribution(tensor, action_masks=masks).distributions[0].probs.detach().double().numpy()
        )

    exact = evaluate_policy(problem, policy, keep="all")
    post = model._record.post_observations  # [T, N, stocks over the cap, one-hot set-up, time]
    stock = np.rint(post[..., :2] * problem.max_inventory).astype(np.int64)
    setup = post[..., 2:5].argmax(-1)[..., None]
    truth = np.array([exact.post_decision_value(stock[t], setup[t], t % HORIZON) for t in range(len(post))])
    error = 10.0 * model.predict_post_values(post.reshape(-1, post.shape[-1])).reshape(truth.shape) - truth
    assert np.sqrt((error**2).mean()) < truth.std() / 5
