"""How far estimated advantages lie from the true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from critics import Critics
from episodes import Episodes, Floats, Integers

from orl.pdppo.advantages import Mode, Rollout, estimate


class Estimator(NamedTuple):
    """A way to estimate advantages: mode, weights, and the kind of critics it is fitted with."""

    name: str
    mode: Mode
    kind: str = "own"
    stochastic_lambda: float = 1.0
    gae_lambda: float = 0.95


ESTIMATORS = (
    Estimator("pre (lx 1)", "interleaved"),
    Estimator("lx 0.8", "interleaved", stochastic_lambda=0.8),
    Estimator("lx 0.5", "interleaved", stochastic_lambda=0.5),
    Estimator("lx 0", "interleaved", stochastic_lambda=0.0),
    Estimator("pre, lambda 0", "interleaved", gae_lambda=0.0),
    Estimator("max_full", "max_full"),
    Estimator("paper_max", "paper_max", "streams"),
    Estimator("early_min", "early_min", "returns"),
)


@dataclass(frozen=True)
class Quality:
    """Of one estimator on some episodes; deviation is estimated minus true advantage.

    Attributes:
        bias: Mean deviation.
        bias_squared: Mean over steps of the squared expected deviation given period, state and action, from pairs of
            episodes that share their past; it can come out slightly negative.
        variance: Mean variance given period, state and action: ``mse - bias_squared``.
        mse: Mean squared deviation.
        correlation: Of estimated and true advantages.
    """

    bias: float
    bias_squared: float
    variance: float
    mse: float
    correlation: float


def true_advantages(episodes: Episodes, exact: Critics) -> Floats:
    """Q - V, float64[T, n]."""
    period = np.arange(len(episodes.states))[:, None]
    post, state = exact.post_values[period, episodes.posts], exact.values[period, episodes.states]
    return np.asarray(episodes.deterministic + post - state)


class Opinions:
    """What a pair of critics says of some episodes: a rollout for any number of draws."""

    def __init__(self, episodes: Episodes, critics: Critics, discount: float) -> None:
        steps, n = episodes.states.shape
        period = np.arange(steps)[:, None]
        ends = np.zeros((steps, n), np.bool_)
        ends[-1] = True
        self.rollout = Rollout(
            rewards=episodes.deterministic + episodes.stochastic,
            deterministic=episodes.deterministic,
            stochastic=episodes.stochastic,
            values=critics.values[period, episodes.states],
            post_values=critics.post_values[period, episodes.posts],
            last_values=np.zeros(n),
            ends=ends,
            truncated=np.zeros_like(ends),
            bootstrap=np.zeros((steps, n)),
        )
        following = critics.values[period[..., None] + 1, episodes.draw_states]
        self._sums = np.cumsum(episodes.draw_rewards + discount * following, axis=-1)
        self._means = critics.draw_means[period, episodes.posts]
        reached = np.concatenate([self.rollout.values[1:], np.zeros((1, n))])
        self._happened = episodes.stochastic + discount * reached

    def with_draws(self, n_draws: float) -> Rollout:
        """The rollout with K draws; K may be infinite."""
        if n_draws == 1:
            return self.rollout
        if math.isinf(n_draws):
            correction = self._means - self._happened
            r = self.rollout
            return replace(r, rewards=r.rewards + correction, stochastic=r.stochastic + correction)
        return replace(self.rollout, other_draws=self._sums[..., int(n_draws) - 2], n_draws=int(n_draws))


def advantages(estimator: Estimator, rollout: Rollout, discount: float) -> Floats:
    """Estimated advantages float64[T, n], in the scale of rewards."""
    lambdas = (estimator.gae_lambda, estimator.gae_lambda, estimator.stochastic_lambda)
    if estimator.mode != "early_min":
        return np.asarray(estimate(estimator.mode, rollout, discount, *lambdas).advantages)
    # Its critics speak of standardised returns, so the mean and the deviation have to be known first.
    mean, deviation = estimate(estimator.mode, rollout, discount, *lambdas).statistics
    standardised = replace(
        rollout,
        values=(rollout.values - mean) / deviation,
        post_values=(rollout.post_values - mean) / deviation,
    )
    return np.asarray(
        deviation * estimate(estimator.mode, standardised, discount, *lambdas, (mean, deviation)).advantages
    )


def quality(estimated: Floats, true: Floats, fork: Integers) -> Quality:
    """Compare advantages float64[T, 2N] of pairs of episodes that part at ``fork`` int64[N]."""
    deviation, pairs = estimated - true, np.arange(len(fork))
    mse = float((deviation**2).mean())
    systematic = float((deviation[fork, pairs] * deviation[fork, pairs + len(fork)]).mean())
    spread = float(estimated.std() * true.std())
    covariance = float(((estimated - estimated.mean()) * (true - true.mean())).mean())
    correlation = covariance / spread if spread > 0 else math.nan
    return Quality(float(deviation.mean()), systematic, mse - systematic, mse, correlation)


def qualities(
    episodes: Episodes,
    true: Floats,
    critics: Critics,
    estimators: Sequence[Estimator],
    draws: Sequence[float],
    discount: float,
) -> dict[tuple[str, float], Quality]:
    """Quality by name of the estimator and number of draws; all estimators use the same critics.

    Args:
        true: float64[T, 2N], the true advantages.
    """
    opinions = Opinions(episodes, critics, discount)
    found = {}
    for n_draws in draws:
        rollout = opinions.with_draws(n_draws)
        for e in estimators:
            found[e.name, n_draws] = quality(advantages(e, rollout, discount), true, episodes.fork)
    return found
