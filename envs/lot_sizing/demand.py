"""Demand as tables: one distribution for each item (and period), optionally correlated between items.

Every named distribution becomes a table of values and probabilities, so environments, dynamic programming and scenario
methods read the same numbers. A draw inverts the distribution function at a counter-based uniform number
(:mod:`orl.common.counter_noise`): demand of item i in period t is a function of the episode key, t, i and the draw, and
of nothing else, so it does not depend on the actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common import counter_noise
from orl.common.errors import InputError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Demand:
    """Distribution of the demand of all items in every period; periods are independent of each other.

    Attributes:
        values: int64[P, I, K], units, increasing along the last axis; P is 1 (stationary) or the horizon T. Items with
            fewer than K values repeat their last one with probability 0.
        probabilities: float64[P, I, K], each row sums to 1.
        correlation: float64[I, I] of the Gaussian copula that couples the items within a period, or None: independent.
    """

    values: Integers
    probabilities: Floats
    correlation: Floats | None = None

    def __post_init__(self) -> None:
        for array in (self.values, self.probabilities, self.correlation):
            if array is not None:
                array.setflags(write=False)

    @property
    def n_items(self) -> int:
        """I."""
        return int(self.values.shape[1])

    @property
    def stationary(self) -> bool:
        """Whether all periods have the same distribution."""
        return len(self.values) == 1

    @cached_property
    def mean(self) -> Floats:
        """Expected demand float64[P, I]."""
        mean: Floats = (self.values * self.probabilities).sum(-1)
        return mean

    @cached_property
    def thresholds(self) -> Floats:
        """float64[P, I, K]: a draw is ``values[k]`` with the smallest k whose threshold exceeds the noise number.

        Independent items: the distribution function, compared with a uniform number. Correlated items: its normal
        quantiles, compared with a normal number. The last threshold that can be reached is infinite.
        """
        cumulative = np.cumsum(self.probabilities, axis=-1)
        last = self.probabilities.shape[-1] - 1 - (self.probabilities[..., ::-1] > 0).argmax(-1)
        inside = np.arange(self.probabilities.shape[-1]) < last[..., None]
        if self.correlation is None:
            return np.where(inside, cumulative, np.inf)
        tiny = counter_noise.TWO_TO_MINUS_53
        quantiles = counter_noise.normal_quantile(np.clip(cumulative, tiny, 1.0 - tiny))
        return np.where(inside, np.where(cumulative > 0.0, quantiles, -np.inf), np.inf)

    @cached_property
    def factor(self) -> Floats | None:
        """Lower Cholesky factor float64[I, I] of the correlation; None for independent items."""
        if self.correlation is None:
            return None
        return np.linalg.cholesky(self.correlation).astype(np.float64)

    def table(self, period: int) -> tuple[Integers, Floats]:
        """Values int64[I, K] and probabilities float64[I, K] of a period, 0 <= period < T."""
        row = 0 if self.stationary else period
        return self.values[row], self.probabilities[row]

    def draw(self, key: Any, period: Any, draw: Any = 0) -> Integers:
        """Demand int64[..., I] of a period for episode keys uint64[...]; arguments broadcast.

        ``draw`` 0 is what happens, 1, 2, ... are alternatives. Periods count from 0; the noise counter is period + 1
        (0 belongs to the initial state).
        """
        key, period, draw = np.broadcast_arrays(np.asarray(key, np.uint64), period, draw)
        items = np.arange(self.n_items)
        counters = (key[..., None], period[..., None] + 1, items, draw[..., None])
        if self.factor is None:
            noise = counter_noise.uniform(*counters)
        else:
            independent = counter_noise.normal(*counters)
            noise = np.zeros_like(independent)
            for j in range(self.n_items):  # in this order, as the compiled kernel adds
                noise = noise + self.factor[:, j] * independent[..., j : j + 1]
        row = np.zeros_like(period) if self.stationary else period
        index = (noise[..., None] >= self.thresholds[row]).sum(-1)
        return np.take_along_axis(self.values[row], index[..., None], -1)[..., 0]


def independent(tables: list[tuple[npt.ArrayLike, npt.ArrayLike]], source: str | None = None) -> Demand:
    """Stationary demand from one ``(values, probabilities)`` pair for each item; equal values are merged.

    Raises:
        InputError: Negative or fractional values, probabilities that are negative or do not sum to 1 (to 1e-9).

    >>> independent([([0, 1, 0], [0.25, 0.5, 0.25])]).values[0].tolist()
    [[0, 1]]
    """
    rows = [_table(values, probabilities, f"item {i + 1}", source) for i, (values, probabilities) in enumerate(tables)]
    width = max(len(values) for values, _ in rows)
    values = np.stack([np.pad(v, (0, width - len(v)), mode="edge") for v, _ in rows])
    probabilities = np.stack([np.pad(p, (0, width - len(p))) for _, p in rows])
    return Demand(values[None], probabilities[None])


def _table(values: Any, probabilities: Any, what: str, source: str | None) -> tuple[Integers, Floats]:
    v, p = np.asarray(values, np.float64).ravel(), np.asarray(probabilities, np.float64).ravel()
    if v.size == 0 or v.shape != p.shape:
        raise InputError("values and probabilities differ in length", source=source, field=f"demand of {what}")
    if not (np.isfinite(v).all() and (v >= 0).all() and (v == np.round(v)).all()):
        raise InputError("bad demand values", source=source, field=f"demand of {what}", value=v.tolist())
    if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1.0) < 1e-9):
        raise InputError(
            "bad probabilities", source=source, field=f"demand of {what}", value=p.tolist(), expected=">= 0, sum 1"
        )
    unique, inverse = np.unique(v.astype(np.int64), return_inverse=True)
    merged = np.zeros(len(unique))
    np.add.at(merged, inverse, p)
    kept = merged > 0
    return unique[kept], merged[kept] / merged.sum()
