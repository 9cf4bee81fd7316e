"""Advantage estimators beside exact critics: how far they deviate, and where a bias comes from."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orl.envs.lot_sizing.distributions import deterministic, same_mean_binomial
from orl.envs.lot_sizing.library import load

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "advantage_variance"
TINY = load("ls-2x1-t20")
ALTERNATING = replace(TINY, demand=deterministic([[t % 2, (t + 1) % 2] for t in range(20)]))


@pytest.fixture(scope="module")
def study() -> Iterator[SimpleNamespace]:
    """The modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        names = ("episodes", "critics", "quality", "common_numbers")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def played(study: SimpleNamespace, instance: Any, policy: Any, pairs: int, draws: int = 0) -> tuple[Any, Any, Any]:
    """Numbers, exact critics of all kinds, and episodes of a policy made by ``policy(numbers)``."""
    numbers = study.episodes.Numbers(instance)
    made = policy(numbers)
    return numbers, study.critics.exact(numbers, made, 1.0), study.episodes.simulate(numbers, made, pairs, draws, 0)


@pytest.fixture(scope="module")
def tiny(study: SimpleNamespace) -> tuple[Any, Any, Any]:
    return played(study, TINY, study.episodes.uniform, 10_000)


def found(study: SimpleNamespace, case: tuple[Any, Any, Any], draws: tuple[float, ...], used: Any = None) -> Any:
    """Quality of all estimators; ``used`` are critics of kind "own" instead of the exact ones."""
    _, exact, episodes = case
    true = study.quality.true_advantages(episodes, exact["own"])
    qualities = {}
    for kind in ("own",) if used else study.critics.KINDS:
        group = [e for e in study.quality.ESTIMATORS if e.kind == kind]
        qualities |= study.quality.qualities(episodes, true, used or exact[kind], group, draws, 1.0)
    return qualities


# ---- exact critics -------------------------------------------------------------------------------------------------
def test_known_errors_of_a_uniform_policy_on_the_tiny_instance(study: SimpleNamespace, tiny: Any) -> None:
    quality = found(study, tiny, (1, math.inf))
    assert quality["pre (lx 1)", 1].mse == pytest.approx(2.718, rel=0.05)
    assert quality["lx 0.5", 1].mse == pytest.approx(0.152, rel=0.05)
    assert quality["lx 0", 1].mse < 1e-20
    assert quality["pre (lx 1)", math.inf].mse == pytest.approx(1.55, rel=0.05)
    assert quality["max_full", 1].bias == pytest.approx(0.61, rel=0.05)
    assert quality["max_full", 1].mse == pytest.approx(1.25, rel=0.05)
    assert quality["max_full", 1].correlation == pytest.approx(0.50, abs=0.02)
    assert quality["pre (lx 1)", 1].correlation == pytest.approx(0.32, abs=0.02)
    for name in ("pre (lx 1)", "lx 0.8", "lx 0.5", "pre, lambda 0"):
        assert abs(quality[name, 1].bias) < 0.02, name
        assert abs(quality[name, 1].bias_squared) < 0.05 * quality[name, 1].mse, name
    for name in ("max_full", "paper_max"):
        assert quality[name, 1].bias_squared > 0.3, name


def test_more_draws_never_hurt_beside_exact_critics(study: SimpleNamespace) -> None:
    case = played(study, TINY, study.episodes.uniform, 2_000, draws=15)
    quality = found(study, case, (1, 2, 4, 16, math.inf))
    for name in ("pre (lx 1)", "lx 0.5", "max_full", "paper_max", "early_min"):
        errors = [quality[name, k].mse for k in (1, 2, 4, 16, math.inf)]
        assert errors == sorted(errors, reverse=True), name
    one_step = [quality["pre, lambda 0", k].mse * k for k in (1, 4, 16)]
    np.testing.assert_allclose(one_step, one_step[0], rtol=0.03)  # the variance of a mean of K
    assert quality["pre, lambda 0", math.inf].mse < 1e-20


def test_the_mean_reward_of_episodes_is_the_policys_value(study: SimpleNamespace, tiny: Any) -> None:
    numbers, exact, episodes = tiny
    start = study.critics.initial_distribution(numbers).ravel()
    for kind, rewards in (
        ("own", episodes.deterministic + episodes.stochastic),
        ("streams", episodes.stochastic),
    ):
        sums = rewards.sum(0)
        error = 4 * sums.std() / math.sqrt(sums.size)
        assert sums.mean() == pytest.approx(start @ exact[kind].values[0], abs=error), kind


def test_the_start_is_that_of_the_exact_means(study: SimpleNamespace, tiny: Any) -> None:
    numbers, exact, _ = tiny
    start = study.critics.initial_distribution(numbers)
    values = exact["own"].values[0].reshape(start.shape)
    assert (start * values).sum() == pytest.approx(numbers.space.initial_mean(values), rel=1e-12)


@pytest.mark.parametrize("period", [0, 7])
def test_the_mean_cost_before_a_post_decision_state(study: SimpleNamespace, tiny: Any, period: int) -> None:
    numbers, exact, episodes = tiny
    paid = exact["streams"].post_values[period] - (exact["own"].post_values - exact["streams"].draw_means)[period]
    posts, cost = episodes.posts[period], episodes.deterministic[period]
    count, total = np.bincount(posts, minlength=numbers.n_posts), np.bincount(posts, cost, numbers.n_posts)
    often = count > 100
    assert often.sum() > 20
    error = (total - count * paid)[often] / np.sqrt(count[often] * 0.25)  # a cost is 0 or 1
    assert np.abs(error).max() < 5
    assert ((paid[often] < -0.1) & (paid[often] > -0.9)).any()  # reached with and without a change-over


# ---- where the bias of a maximum comes from ------------------------------------------------------------------------
def test_without_any_noise_the_maximum_has_no_bias(study: SimpleNamespace) -> None:
    one_step = study.quality.Estimator("one step", "max_full", gae_lambda=0.0)
    plain = study.quality.Estimator("plain", "interleaved", gae_lambda=0.0)
    _, exact, episodes = played(study, ALTERNATING, study.episodes.uniform, 500)
    true = study.quality.true_advantages(episodes, exact["own"])
    assert true.std() > 0.1
    rollout = study.quality.Opinions(episodes, exact["own"], 1.0).with_draws(1)
    maximum, gae = (study.quality.advantages(e, rollout, 1.0) for e in (one_step, plain))
    np.testing.assert_allclose(maximum, gae, rtol=0, atol=1e-12)
    np.testing.assert_allclose(maximum, true, rtol=0, atol=1e-12)

    optimal = played(study, ALTERNATING, lambda n: study.episodes.softened_optimum(n, 1.0, 1e-6), 500)
    quality = found(study, optimal, (1,))
    for name in ("max_full", "pre (lx 1)"):
        assert quality[name, 1].mse < 1e-20, name


def test_later_actions_are_noise_too(study: SimpleNamespace) -> None:
    quality = found(study, played(study, ALTERNATING, study.episodes.uniform, 3_000), (1,))
    assert abs(quality["pre (lx 1)", 1].bias) < 0.05
    assert quality["max_full", 1].bias > 0.3


def test_draws_of_known_demand_change_nothing(study: SimpleNamespace) -> None:
    path = replace(TINY, demand=same_mean_binomial(2, 0.6, 0, horizon=20))
    quality = found(study, played(study, path, study.episodes.uniform, 300, draws=3), (1, 4, math.inf))
    for e in study.quality.ESTIMATORS:
        for k in (4, math.inf):
            assert quality[e.name, k].mse == pytest.approx(quality[e.name, 1].mse, rel=1e-9, abs=1e-20), e.name


# ---- wrong critics -------------------------------------------------------------------------------------------------
def test_a_wrong_post_decision_critic_does_not_reach_plain_advantages(study: SimpleNamespace, tiny: Any) -> None:
    numbers, exact, _ = tiny
    noisy = study.critics.noisy(0.0, 0.5)
    used = study.critics.wrong(numbers, exact["own"], noisy, 1.0)
    right, wrong = (found(study, tiny, (1,), c) for c in (exact["own"], used))
    assert right["pre (lx 1)", 1].mse == pytest.approx(wrong["pre (lx 1)", 1].mse, rel=1e-12)
    assert wrong["lx 0", 1].mse == pytest.approx(0.25, rel=0.05)  # the variance of the error, all of it a bias
    assert wrong["lx 0", 1].bias_squared == pytest.approx(0.25, rel=0.05)


def test_the_mean_over_infinitely_many_draws_is_that_of_the_wrong_critic(study: SimpleNamespace) -> None:
    case = played(study, TINY, study.episodes.uniform, 50, draws=400)
    numbers, exact, episodes = case
    used = study.critics.wrong(numbers, exact["own"], study.critics.scaled(0.5, 1.0), 1.0)
    opinions = study.quality.Opinions(episodes, used, 1.0)
    one_step = study.quality.Estimator("one step", "interleaved", gae_lambda=0.0)
    many, all_ = (study.quality.advantages(one_step, opinions.with_draws(k), 1.0) for k in (401, math.inf))
    assert abs((many - all_).mean()) < 0.005
    assert np.abs(many - all_).max() < 0.3


# ---- episodes ------------------------------------------------------------------------------------------------------
def test_pairs_share_their_past_and_not_their_future(study: SimpleNamespace, tiny: Any) -> None:
    _, _, episodes = tiny
    pairs = len(episodes.fork)
    period = np.arange(20)[:, None]
    first, second = episodes.posts[:, :pairs], episodes.posts[:, pairs:]
    assert (first == second)[period <= episodes.fork].all()
    a, b = (episodes.stochastic[:, half] for half in (slice(pairs), slice(pairs, None)))
    assert (a == b)[np.broadcast_to(period < episodes.fork, a.shape)].all()
    at = episodes.fork, np.arange(pairs)
    assert 0.1 < (a[at] != b[at]).mean() < 0.9
    assert np.bincount(episodes.fork, minlength=20).min() > 0.8 * pairs / 20


# ---- common random numbers -----------------------------------------------------------------------------------------
def test_common_random_numbers_compare_actions_with_less_variance(study: SimpleNamespace) -> None:
    numbers = study.episodes.Numbers(TINY)
    policy = study.episodes.uniform(numbers)
    exact = study.critics.exact(numbers, policy, 1.0)["own"]
    rows = study.common_numbers.compare(numbers, policy, exact, (1, 4), 1.0, copies=200, seed=0)
    for row in rows:
        assert row["ratio"] == pytest.approx(2.1, rel=0.1)
        assert row["loss_common"] < row["loss_separate"]
    for column in ("mse_common", "mse_separate"):
        assert rows[0][column] == pytest.approx(4 * rows[1][column], rel=0.1)


def test_common_random_numbers_on_known_demand_are_exact(study: SimpleNamespace) -> None:
    numbers = study.episodes.Numbers(ALTERNATING)
    policy = study.episodes.uniform(numbers)
    exact = study.critics.exact(numbers, policy, 1.0)["own"]
    (row,) = study.common_numbers.compare(numbers, policy, exact, (2,), 1.0, copies=20, seed=0)
    for column in ("mse_common", "mse_separate", "loss_common", "loss_separate"):
        assert row[column] < 1e-20, column
