"""Advantages and targets of PDPPO against plain loops, hand-made numbers and the identities of the method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from orl.pdppo.advantages import (
    MODES,
    Rollout,
    decision_advantages,
    draw_correction,
    episode_ends,
    estimate,
    gae,
    interleaved,
    post_targets,
)

GAMMA, LAMBDA, LAMBDA_POST, LX = 0.9, 0.8, 0.6, 0.3


def draw_rollout(seed: int, steps: int = 23, copies: int = 4, dtype: Any = np.float64) -> Rollout:
    """Arbitrary numbers; about a fifth of the steps end an episode, some of those by a time limit."""
    rng = np.random.default_rng(seed)
    values, post_values, deterministic, noise = (rng.normal(size=(steps, copies)) for _ in range(4))
    ends = rng.random((steps, copies)) < 0.2
    truncated = ends & (rng.random((steps, copies)) < 0.5)
    bootstrap = np.where(truncated, rng.normal(size=(steps, copies)), 0.0)
    stochastic = noise + bootstrap
    arrays = (deterministic + stochastic, deterministic, stochastic, values, post_values, rng.normal(size=copies))
    return Rollout(*(array.astype(dtype) for array in arrays), ends, truncated, bootstrap.astype(dtype))


def oracle_gae(rewards, values, last_values, ends, gamma, gae_lambda):
    out = np.zeros_like(rewards)
    for i in range(rewards.shape[1]):
        following, after = last_values[i], 0.0
        for t in reversed(range(len(rewards))):
            alive = 0.0 if ends[t, i] else 1.0
            delta = rewards[t, i] + gamma * alive * following - values[t, i]
            out[t, i] = after = delta + gamma * gae_lambda * alive * after
            following = values[t, i]
    return out


def oracle_interleaved(r: Rollout, lx: float):
    """A_t = delta^d_t + lx (delta^w_t + gamma lambda A_{t+1}), as it is written."""
    out = np.zeros_like(r.rewards)
    for i in range(r.rewards.shape[1]):
        following, after = r.last_values[i], 0.0
        for t in reversed(range(len(r.rewards))):
            alive = 0.0 if r.ends[t, i] else 1.0
            decision = r.deterministic[t, i] + r.post_values[t, i] - r.values[t, i]
            noise = r.stochastic[t, i] + GAMMA * alive * following - r.post_values[t, i]
            out[t, i] = after = decision + lx * (noise + GAMMA * LAMBDA * alive * after)
            following = r.values[t, i]
    return out


def oracle_post_stream(r: Rollout, gamma: float, gae_lambda: float):
    """Stream of deterministic rewards; where it is cut, the sum is V^x of that step."""
    out = np.zeros_like(r.rewards)
    for i in range(r.rewards.shape[1]):
        after = 0.0
        for t in reversed(range(len(r.rewards))):
            if r.truncated[t, i] or (t == len(r.rewards) - 1 and not r.ends[t, i]):
                after = 0.0
            elif r.ends[t, i]:
                after = r.deterministic[t, i] - r.post_values[t, i]
            else:
                delta = r.deterministic[t, i] + gamma * r.post_values[t + 1, i] - r.post_values[t, i]
                after = delta + gamma * gae_lambda * after
            out[t, i] = after
    return out


@pytest.mark.parametrize("seed", range(5))
def test_interleaved_with_weight_one_is_gae_for_arbitrary_post_values(seed: int) -> None:
    r = draw_rollout(seed)
    plain = gae(r.rewards, r.values, r.last_values, r.ends, GAMMA, LAMBDA)
    np.testing.assert_allclose(
        plain, oracle_gae(r.rewards, r.values, r.last_values, r.ends, GAMMA, LAMBDA), rtol=0, atol=4e-15
    )
    np.testing.assert_allclose(oracle_interleaved(r, 1.0), plain, rtol=0, atol=8e-15)
    ours = estimate("interleaved", r, GAMMA, LAMBDA, LAMBDA, 1.0)
    np.testing.assert_array_equal(ours.advantages, plain)


@pytest.mark.parametrize("seed", range(3))
def test_every_mode_equals_its_formula(seed: int) -> None:
    r = draw_rollout(seed)
    plain = oracle_gae(r.rewards, r.values, r.last_values, r.ends, GAMMA, LAMBDA)
    decisions = r.deterministic + r.post_values - r.values
    targets = plain + r.values
    following = np.concatenate([targets[1:], r.last_values[None]])
    post = r.stochastic + GAMMA * np.where(r.ends, 0.0, following)
    noise = oracle_gae(r.stochastic, r.values, r.last_values, r.ends, GAMMA, LAMBDA)
    setup = oracle_post_stream(r, GAMMA, LAMBDA_POST)
    mean, deviation = 1.5, 2.5
    end_values = np.where(r.truncated, r.bootstrap * deviation + GAMMA * mean, 0.0)
    last = r.last_values * deviation + mean
    sums = oracle_gae(r.rewards - r.bootstrap + end_values, np.zeros_like(plain), last, r.ends, GAMMA, 1.0)
    scaled = (sums - sums.mean()) / (sums.std(ddof=1) + 1e-7)
    expected = {
        "interleaved": (oracle_interleaved(r, LX), targets, post),
        "max_full": (np.maximum(plain, decisions), targets, post),
        "paper_max": (np.maximum(noise, setup), noise + r.values, setup + r.post_values),
        "early_min": (scaled - np.minimum(r.values, r.post_values), scaled, scaled),
    }
    for mode, arrays in expected.items():
        e = estimate(mode, r, GAMMA, LAMBDA, LAMBDA_POST, LX, (mean, deviation))  # type: ignore[arg-type]
        for ours, theirs in zip((e.advantages, e.returns, e.post_returns), arrays, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-14, err_msg=mode)
        assert (e.statistics != (0.0, 1.0)) == (mode == "early_min")


def test_gae_equals_the_rollout_buffer_of_sb3_to_the_last_bit() -> None:
    r = draw_rollout(3, dtype=np.float32)
    steps, copies = r.rewards.shape
    buffer = RolloutBuffer(steps, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", LAMBDA, GAMMA, copies)
    starts = np.concatenate([np.ones((1, copies), np.float32), r.ends[:-1].astype(np.float32)])
    buffer.rewards, buffer.values, buffer.episode_starts = r.rewards, r.values, starts
    buffer.compute_returns_and_advantage(torch.from_numpy(r.last_values), r.ends[-1])
    ends = episode_ends(starts, r.ends[-1])
    np.testing.assert_array_equal(ends, r.ends)
    ours = gae(r.rewards, r.values, r.last_values, ends, GAMMA, LAMBDA)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, buffer.advantages)


def test_both_streams_of_returns_add_up_to_the_return_of_ppo() -> None:
    r = draw_rollout(7)
    r = replace(r, post_values=np.zeros_like(r.values), truncated=np.zeros_like(r.ends), ends=r.ends.copy())
    r.ends[-1] = True  # no stream is cut
    both = estimate("paper_max", r, GAMMA, 1.0, 1.0)
    whole = gae(r.rewards, r.values, r.last_values, r.ends, GAMMA, 1.0) + r.values
    np.testing.assert_allclose(both.returns + both.post_returns, whole, rtol=0, atol=1e-13)


def test_a_return_is_the_deterministic_reward_and_the_post_return_when_lambda_is_one() -> None:
    r = draw_rollout(8)
    e = estimate("interleaved", r, GAMMA, 1.0, 1.0, LX)
    np.testing.assert_allclose(e.returns, r.deterministic + e.post_returns, rtol=0, atol=1e-13)


def test_paper_max_on_three_steps_by_hand() -> None:
    column = lambda *numbers: np.array(numbers, np.float64)[:, None]  # noqa: E731
    stochastic, deterministic = column(-1, -2, -4), column(-2, 0, -2)
    nothing = np.zeros((3, 1))
    ends = np.array([[False], [False], [True]])
    r = Rollout(
        stochastic + deterministic,
        deterministic,
        stochastic,
        column(-2, -2, -2),
        column(-1, -1, -1),
        np.zeros(1),
        ends,
        np.zeros_like(ends),
        nothing,
    )
    e = estimate("paper_max", r, 0.5, 1.0, 1.0)
    np.testing.assert_allclose(e.returns, column(-3, -4, -4))
    np.testing.assert_allclose(e.post_returns, column(-2.5, -1, -2))
    np.testing.assert_allclose(e.advantages, column(-1, 0, -1))


# ---- several draws -------------------------------------------------------------------------------------------------
def with_draws(r: Rollout, n_draws: int, seed: int = 0) -> tuple[Rollout, np.ndarray]:
    """The rollout with K - 1 further draws; and y_k = r^w_k + gamma V(s'_k) of all draws, [T, N, K], draw 0 first."""
    following = np.concatenate([r.values[1:], r.last_values[None]])
    happened = r.stochastic + GAMMA * np.where(r.ends, 0.0, following)
    others = np.random.default_rng(seed).normal(size=(*happened.shape, n_draws - 1))
    draws = np.concatenate([happened[..., None], others], axis=-1)
    return replace(r, other_draws=others.sum(-1), n_draws=n_draws), draws


@pytest.mark.parametrize("lx", [0.0, 0.3, 1.0])
def test_several_draws_average_delta_w_and_keep_the_path_that_happened(lx: float) -> None:
    r = draw_rollout(11)
    several, draws = with_draws(r, 5)
    mean = draws.mean(-1)
    expected = np.zeros_like(r.rewards)
    for i in range(r.rewards.shape[1]):
        after = 0.0
        for t in reversed(range(len(r.rewards))):
            decision = r.deterministic[t, i] + r.post_values[t, i] - r.values[t, i]
            alive = 0.0 if r.ends[t, i] else 1.0
            noise = mean[t, i] - r.post_values[t, i]
            expected[t, i] = after = decision + lx * (noise + GAMMA * LAMBDA * alive * after)
    e = estimate("interleaved", several, GAMMA, LAMBDA, LAMBDA, lx)
    np.testing.assert_allclose(e.advantages, expected, rtol=0, atol=2e-14)
    plain = estimate("interleaved", several, GAMMA, LAMBDA, LAMBDA, 1.0).advantages
    np.testing.assert_allclose(e.returns, plain + r.values, rtol=0, atol=1e-14)
    following = np.concatenate([e.returns[1:], r.last_values[None]])
    path = np.concatenate([r.values[1:], r.last_values[None]])
    post = mean + GAMMA * np.where(r.ends, 0.0, following - path)
    np.testing.assert_allclose(e.post_returns, post, rtol=0, atol=2e-14)


@pytest.mark.parametrize("mode", MODES[1:])
def test_one_draw_is_the_plain_mode_to_the_last_bit(mode: Any) -> None:
    for dtype in (np.float32, np.float64):
        r = draw_rollout(12, dtype=dtype)
        one, _ = with_draws(r, 1)
        assert not draw_correction(r.stochastic, r.values, r.last_values, r.ends, GAMMA, one.other_draws, 1).any()
        a, b = (estimate(mode, x, GAMMA, LAMBDA, LAMBDA_POST, LX) for x in (r, one))
        for name in ("advantages", "returns", "post_returns"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_with_standardised_returns_draws_are_valued_in_the_scale_of_rewards() -> None:
    r = draw_rollout(13)
    mean, deviation = 0.7, 3.0
    scaled = replace(r, values=r.values * deviation + mean, last_values=r.last_values * deviation + mean)
    scaled = replace(
        scaled,
        stochastic=r.stochastic - r.bootstrap + np.where(r.truncated, r.bootstrap * deviation + GAMMA * mean, 0.0),
    )
    _, draws = with_draws(scaled, 4)
    correction = draws.mean(-1) - draws[..., 0]
    several = replace(r, other_draws=draws[..., 1:].sum(-1), n_draws=4)
    ours = estimate("early_min", several, GAMMA, LAMBDA, LAMBDA, 1.0, (mean, deviation))
    moved = replace(r, rewards=r.rewards + correction, stochastic=r.stochastic + correction)
    theirs = estimate("early_min", moved, GAMMA, LAMBDA, LAMBDA, 1.0, (mean, deviation))
    np.testing.assert_allclose(ours.advantages, theirs.advantages, rtol=0, atol=1e-13)


def test_nothing_flows_over_the_end_of_an_episode() -> None:
    r = draw_rollout(14)
    r.ends[10], r.truncated[10] = True, False
    changed = replace(r, rewards=r.rewards.copy(), values=r.values.copy())
    changed.rewards[11:] += 5.0
    changed.values[11:] -= 3.0
    decisions = decision_advantages(r.deterministic, r.values, r.post_values)
    for lx in (0.5, 1.0):
        a, b = (
            interleaved(x.rewards, decisions, x.values, x.last_values, x.ends, GAMMA, LAMBDA, lx)[:11]
            for x in (r, changed)
        )
        np.testing.assert_array_equal(a, b)
    returns = np.arange(r.rewards.size, dtype=np.float64).reshape(r.rewards.shape)
    targets = post_targets(r.stochastic, returns, r.last_values, r.ends, GAMMA)
    np.testing.assert_array_equal(targets[10], r.stochastic[10])
