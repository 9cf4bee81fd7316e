"""Demand distributions by name: each function gives a :class:`orl.envs.lot_sizing.demand.Demand`.

>>> demand = correlated(seasonal(3, 100, mean=8.0, amplitude=0.5, cycle=20, trials=20), 0.6)
>>> demand.values.shape, demand.stationary
((100, 3, 21), False)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.numbers import MAX_TABLE, numbers
from orl.envs.lot_sizing.builders import MAX_HORIZON, MAX_ITEMS, MAX_UNITS, whole_number
from orl.envs.lot_sizing.demand import Demand, independent

MAX_TRIALS = 1_000
MAX_VALUES = 10_000


def binomial(n_items: int, trials: int, probability: float, source: str | None = None) -> Demand:
    """Binomial(trials, probability) for each item, independent of each other.

    >>> binomial(2, 4, 0.4).mean.round(6).tolist()
    [[1.6, 1.6]]
    """
    n = whole_number(trials, "n", 0, MAX_TRIALS, source)
    p = float(numbers(probability, "p", (), integer=False, low=0, high=1, source=source))
    return _same(n_items, np.arange(n + 1), _binomial_table(n, p), source)


def discrete_uniform(n_items: int, low: int, high: int, source: str | None = None) -> Demand:
    """Each of low..high-1 with the same probability (``high`` is exclusive).

    >>> discrete_uniform(1, 2, 5).values.tolist()
    [[[2, 3, 4]]]
    """
    first = whole_number(low, "low", 0, MAX_UNITS, source)
    end = whole_number(high, "high", first + 1, min(first + MAX_VALUES, MAX_UNITS + 1), source)
    values = np.arange(first, end)
    return _same(n_items, values, np.full(len(values), 1.0 / len(values)), source)


def pmf(n_items: int, values: Any, probabilities: Any, source: str | None = None) -> Demand:
    """The same table of values and probabilities for each item; values may repeat.

    >>> pmf(1, [0, 1, 1], [0.5, 0.25, 0.25]).probabilities.tolist()
    [[[0.5, 0.5]]]
    """
    v = numbers(values, "vals", None, integer=True, low=0, high=MAX_UNITS, source=source)
    p = numbers(probabilities, "probs", None, integer=False, low=0, high=1, source=source)
    if v.ndim != 1 or not 1 <= len(v) <= MAX_VALUES:
        raise InputError("wrong shape", source=source, field="vals", value=list(v.shape), expected="a list of numbers")
    if p.shape != v.shape:
        raise InputError("wrong shape", source=source, field="probs", value=list(p.shape), expected=str(list(v.shape)))
    if abs(p.sum() - 1.0) >= 1e-9:
        raise InputError("does not sum to 1", source=source, field="probs", value=float(p.sum()), expected="1")
    return _same(n_items, v, p, source)


def deterministic(values: Any, source: str | None = None) -> Demand:
    """Known demand: [I] the same in every period, or [T, I].

    >>> deterministic([[3, 0], [1, 2]]).draw(7, [0, 1]).tolist()
    [[3, 0], [1, 2]]
    """
    table = numbers(values, "values", None, integer=True, low=0, high=MAX_UNITS, source=source)
    if table.ndim not in (1, 2) or not table.size:
        raise InputError(
            "wrong shape", source=source, field="values", value=list(table.shape), expected="[I] or [T, I]"
        )
    table = table.reshape(-1, table.shape[-1], 1)
    return Demand(table, np.ones(table.shape))


def item_specific(demands: Sequence[Demand]) -> Demand:
    """Items of several demands side by side (for instance one distribution an item).

    >>> item_specific([binomial(1, 4, 0.4), deterministic([2])]).mean.round(6).tolist()
    [[1.6, 2.0]]
    """
    if not demands or len({len(d.values) for d in demands}) != 1:
        raise InputError("the demands cover different numbers of periods", field="demands")
    if any(d.correlation is not None for d in demands):
        raise InputError("couple the items after joining them", field="demands", expected="independent items")
    width = max(d.values.shape[-1] for d in demands)
    _require_size(sum(d.n_items for d in demands) * len(demands[0].values) * width, None)
    padded = [_padded(d, width) for d in demands]
    return Demand(np.concatenate([v for v, _ in padded], axis=1), np.concatenate([p for _, p in padded], axis=1))


def periods(demands: Sequence[Demand]) -> Demand:
    """Non-stationary demand from one stationary demand a period.

    >>> periods([binomial(1, 4, 0.1), binomial(1, 4, 0.9)]).mean.round(6).tolist()
    [[0.4], [3.6]]
    """
    if not demands or not all(d.stationary for d in demands) or len({d.n_items for d in demands}) != 1:
        raise InputError("periods need stationary demands of the same items", field="demands")
    if any(d.correlation is not None for d in demands):
        raise InputError("couple the items after joining the periods", field="demands", expected="independent items")
    width = max(d.values.shape[-1] for d in demands)
    _require_size(len(demands) * demands[0].n_items * width, None)
    padded = [_padded(d, width) for d in demands]
    return Demand(np.concatenate([v for v, _ in padded]), np.concatenate([p for _, p in padded]))


def seasonal(
    n_items: int, horizon: int, *, mean: float, amplitude: float, cycle: float, trials: int, shift: bool = True
) -> Demand:
    """Binomial demand whose mean is ``mean * (1 + amplitude * sin(2 pi (t / cycle + phase)))`` in period t.

    Args:
        n_items: I.
        horizon: T.
        mean: Mean over whole cycles, units.
        amplitude: 0..1.
        cycle: Length of a cycle, periods.
        trials: n of the binomial; at least the largest mean.
        shift: Whether the items' phases are spread over the cycle (item i by i / I) or equal.
    """
    count = whole_number(n_items, "n_items", 1, MAX_ITEMS)
    length = whole_number(horizon, "horizon", 1, MAX_HORIZON)
    n = whole_number(trials, "trials", 1, MAX_TRIALS)
    for field, value, low, high in (
        ("amplitude", amplitude, 0.0, 1.0),
        ("cycle", cycle, 1e-6, 1e6),
        ("mean", mean, 0.0, n / (1.0 + amplitude)),
    ):
        numbers(value, field, (), integer=False, low=low, high=high)
    _require_size(length * count * (n + 1), None)
    phase = np.arange(count) / count if shift else np.zeros(count)
    level = mean * (1.0 + amplitude * np.sin(2.0 * np.pi * (np.arange(length)[:, None] / cycle + phase)))
    share = np.clip(level / n, 0.0, 1.0)
    tables = np.array([[_binomial_table(n, p) for p in row] for row in share])
    return Demand(np.broadcast_to(np.arange(n + 1), tables.shape).copy(), tables)


def correlated(demand: Demand, correlation: Any, source: str | None = None) -> Demand:
    """The same margins, coupled within a period by a Gaussian copula.

    Args:
        demand: Any demand.
        correlation: float[I, I] of the normal numbers (symmetric, ones on the diagonal, positive definite), or one
            number for all pairs.
        source: Where the correlation comes from, for messages.

    >>> correlated(binomial(2, 4, 0.4), -0.5).correlation.tolist()
    [[1.0, -0.5], [-0.5, 1.0]]
    """
    size = demand.n_items
    field, expected = "correlation", "symmetric, ones on the diagonal, positive definite"
    matrix = numbers(correlation, field, None, integer=False, low=-1, high=1, source=source)
    if matrix.ndim == 0:
        matrix = np.where(np.eye(size, dtype=bool), 1.0, matrix)
    if matrix.shape != (size, size):
        raise InputError(
            "wrong shape", source=source, field=field, value=list(matrix.shape), expected=f"{[size, size]}"
        )
    valid = np.array_equal(matrix, matrix.T) and bool((np.diag(matrix) == 1).all())
    if not valid or np.linalg.eigvalsh(matrix)[0] < 1e-9:
        raise InputError("not a correlation matrix", source=source, field=field, expected=expected)
    return Demand(demand.values, demand.probabilities, matrix)


def same_mean_binomial(n_items: int, mean: float, trials: int, *, scale: int = 1, horizon: int | None = None) -> Demand:
    """Demand of a given mean whose variance is chosen: ``scale * Binomial(trials, mean / (scale * trials))``.

    The variance is ``mean * (scale - mean / trials)``. ``trials = 0``: no variance at all; the demand of period t is
    then the step from t to t + 1 of the rounded-down line ``mean * t``, which needs ``horizon``.

    >>> demand = same_mean_binomial(1, 1.6, 4, scale=2)
    >>> float(((demand.values - 1.6) ** 2 * demand.probabilities).sum().round(6))
    2.56
    >>> same_mean_binomial(1, 1.6, 0, horizon=5).values[:, 0, 0].tolist()
    [1, 2, 1, 2, 2]
    """
    count = whole_number(n_items, "n_items", 1, MAX_ITEMS)
    n = whole_number(trials, "trials", 0, MAX_TRIALS)
    factor = whole_number(scale, "scale", 1, MAX_UNITS)
    average = float(numbers(mean, "mean", (), integer=False, low=0, high=float(n * factor) if n else MAX_UNITS))
    if n:
        return _same(count, factor * np.arange(n + 1), _binomial_table(n, average / (factor * n)), None)
    if horizon is None:
        raise InputError("demand without variance follows a path", field="horizon", expected="a number of periods")
    line = np.floor(average * np.arange(whole_number(horizon, "horizon", 1, MAX_HORIZON) + 1) + 1e-9).astype(np.int64)
    return deterministic(np.repeat(np.diff(line)[:, None], count, axis=1))


# ---- tables --------------------------------------------------------------------------------------------------------
def _binomial_table(n: int, p: float) -> npt.NDArray[np.float64]:
    """Probabilities float64[n + 1], scaled to sum to 1."""
    k = np.arange(n + 1)
    table = _combinations(n) * p**k * (1.0 - p) ** (n - k)
    return table / table.sum()


@lru_cache(maxsize=16)
def _combinations(n: int) -> npt.NDArray[np.float64]:
    return np.array([float(math.comb(n, k)) for k in range(n + 1)])


def _same(n_items: int, values: npt.ArrayLike, probabilities: npt.ArrayLike, source: str | None) -> Demand:
    count = whole_number(n_items, "n_items", 1, MAX_ITEMS, source)
    one = independent([(values, probabilities)], source)
    _require_size(count * one.values.shape[-1], source)
    return Demand(np.repeat(one.values, count, axis=1), np.repeat(one.probabilities, count, axis=1))


def _require_size(size: int, source: str | None) -> None:
    if size > MAX_TABLE:
        raise InputError(
            "too large", source=source, field="demand", value=size, expected=f"at most {MAX_TABLE} numbers"
        )


def _padded(demand: Demand, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Tables of ``width`` values: the last value repeats with probability 0."""
    pad = ((0, 0), (0, 0), (0, width - demand.values.shape[-1]))
    return np.pad(demand.values, pad, mode="edge"), np.pad(demand.probabilities, pad)
