"""The look-up of :mod:`orl.envs.hydrothermal.dual_pool` for numba: the best function of every query, and its test."""

from __future__ import annotations

import numpy as np
from numba import njit

from orl.common.kernel_cache import drop_stale_kernels
from orl.envs.hydrothermal.instance import Booleans, Floats, Integers

drop_stale_kernels()

TIE = 1e-9
"""Relative: functions that lie so close to the highest are tested, too, since at kinks another one may have the basis
that fits."""


@njit(cache=True)
def _fitting(
    query: Floats,
    f: int,
    first: Integers,
    following: Integers,
    starts: Integers,
    slopes: Floats,
    lower: Floats,
    upper: Floats,
    x: Floats,
) -> int:
    """A basis of function ``f`` that is optimal for a query [n], now the first of its kind; -1: there is none."""
    previous, k = -1, int(first[f])
    while k >= 0:
        begin, count = starts[k], starts[k + 1] - starts[k]
        x[:count] = 0.0
        for i in range(len(query)):
            share = query[i]
            block = begin * len(query) + i * count
            for j in range(count):
                x[j] += share * slopes[block + j]
        outside = 0
        for j in range(count):
            outside += x[j] < lower[begin + j] or x[j] > upper[begin + j]
        if outside == 0:
            if previous >= 0:
                following[previous] = following[k]
                following[k] = first[f]
                first[f] = k
            return k
        previous, k = k, int(following[k])
    return -1


@njit(cache=True)
def look_up(
    queries: Floats,
    n_functions: int,
    gradients: Floats,
    offsets: Floats,
    first: Integers,
    following: Integers,
    starts: Integers,
    slopes: Floats,
    lower: Floats,
    upper: Floats,
    used: Integers,
    clock: int,
    certify: bool,
    values: Floats,
    best: Integers,
    certified: Booleans,
) -> None:
    """Fill ``values`` [Q], ``best`` [Q] and, if asked to certify, ``certified`` [Q] for queries [Q, n].

    Args:
        queries: float64[Q, n], right-hand sides.
        n_functions: F, at least 1.
        gradients: float64[n, >= F], a function in each column, and
        offsets: float64[>= F].
        first: int64[>= F], the first basis of a function;
        following: int64[K], the next one of the same function, -1: there is none. Bases that fit come to the front.
        starts: int64[K + 1]: basis k has rows ``starts[k] : starts[k + 1]`` of
        slopes: float64, [n, rows] of one basis after another, flat, and
        lower, upper: float64, what its rows must lie between.
        used: int64[K], set to ``clock`` where a basis fits.
    """
    n = queries.shape[1]
    heights = np.empty(n_functions)
    widest = 0
    for k in range(len(starts) - 1):
        widest = max(widest, starts[k + 1] - starts[k])
    x = np.empty(widest)
    for q in range(len(queries)):
        heights[:] = offsets[:n_functions]
        for i in range(n):
            share = queries[q, i]
            for f in range(n_functions):
                heights[f] += share * gradients[i, f]
        f = int(np.argmax(heights))
        best[q], values[q] = f, heights[f]
        if not certify:
            continue
        certified[q] = False
        least = heights[f] - TIE * max(1.0, abs(heights[f]))
        tested = f
        while True:
            k = _fitting(queries[q], tested, first, following, starts, slopes, lower, upper, x)
            if k >= 0:
                certified[q], used[k] = True, clock
                best[q], values[q] = tested, heights[tested]
                break
            heights[tested] = -np.inf
            tested = int(np.argmax(heights))
            if heights[tested] < least:
                break
