"""Fix and relax: a good plan from many small mixed-integer programmes (Pochet and Wolsey 2006, section 3.6).

Decisions are binary only within a window of periods; before it they are fixed, after it they may be fractions. The
window moves on by less than its length, so every decision is taken with the whole future in sight, blurred.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import highspy
import numpy as np

from orl.envs.lot_sizing.instance import Integers
from orl.solvers.lot_sizing.milp import Programme, load


def fix_and_relax(
    programme: Programme,
    *,
    window: int = 8,
    step: int = 4,
    time_limit: float | None = None,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Integers | None:
    """Actions int64[T, M] of a plan for a programme over a path; None when the time ends first.

    Args:
        programme: From :func:`orl.solvers.lot_sizing.milp.build` (over a chain) or
            :func:`orl.solvers.lot_sizing.network.build_network`.
        window: Periods with binary decisions.
        step: Periods fixed after each solve, at most ``window``.
        time_limit: Wall seconds, shared evenly by the windows; None: every window is solved to optimality.
        seed: Seed of HiGHS.
        stop: Asked after every window; True ends the search.
    """
    began = time.perf_counter()
    x = programme.columns["x"]
    n_periods = len(x)
    highs = load(programme, seed)
    integer = np.flatnonzero(programme.integer).astype(np.int32)
    period = np.full(programme.n_columns, -1)
    period[x[x >= 0]] = np.nonzero(x >= 0)[0]
    for name in ("full", "short"):  # node n ends period n - 1
        if name in programme.columns:
            columns = programme.columns[name]
            period[columns[columns >= 0]] = np.nonzero(columns >= 0)[0] - 1
    fixed = 0
    starts = list(range(0, max(1, n_periods - window + step), step))
    for turn, start in enumerate(starts):
        end = n_periods if turn == len(starts) - 1 else start + window
        kinds = ((period[integer] >= start) & (period[integer] < end)).astype(np.uint8)
        highs.changeColsIntegrality(len(integer), integer, kinds)
        if time_limit is not None:
            left = time_limit - (time.perf_counter() - began)
            if left <= 0.0:
                return None
            highs.setOptionValue("time_limit", highs.getRunTime() + left / (len(starts) - turn))
        highs.run()
        if highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None
        values = np.array(highs.getSolution().col_value)
        until = end if end == n_periods else min(start + step, n_periods)
        now = integer[(period[integer] >= fixed) & (period[integer] < until)]
        rounded = np.round(values[now])
        highs.changeColsBounds(len(now), now, rounded, rounded)
        fixed = until
        if stop is not None and stop():
            return None
    return programme.actions(values)
