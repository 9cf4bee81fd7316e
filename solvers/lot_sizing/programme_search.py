"""Searching a programme of this room with HiGHS or with CP-SAT: the same columns and rows, the same answer type."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import highspy
import numpy as np
from ortools.sat.python import cp_model

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Integers
from orl.solvers.lot_sizing.milp import Programme, load

FALLBACK_SCALE = 10**6


@dataclass(frozen=True, eq=False)
class Found:
    """Outcome of a search.

    Attributes:
        values: float64[V] of the best solution, or None.
        bound: Valid lower bound on the programme; minus infinity if there is none.
        finished: The search proved that nothing is better (up to the gap it was given).
    """

    values: Floats | None
    bound: float
    finished: bool


def search_with_highs(
    programme: Programme,
    *,
    time_limit: float | None = None,
    seed: int = 0,
    threads: int = 1,
    absolute_gap: float = 1e-6,
    relative_gap: float = 0.0,
    start: Integers | None = None,
    stop: Callable[[], bool] | None = None,
    on_solution: Callable[[Floats, float], None] | None = None,
) -> Found:
    """Branch and cut.

    Args:
        programme: What to minimise.
        time_limit: Wall seconds; None: until proved.
        seed: Seed of HiGHS.
        threads: Threads of HiGHS.
        absolute_gap: Stop when the bound is so close,
        relative_gap: or so close as a fraction of the objective.
        start: Actions int64[K, M] of a feasible solution to start from.
        stop: Asked often; True ends the search.
        on_solution: Called with every better solution and the bound of that moment.
    """
    highs = load(programme, seed, threads)
    highs.setOptionValue("mip_rel_gap", relative_gap)
    highs.setOptionValue("mip_abs_gap", absolute_gap)
    if time_limit is not None:
        highs.setOptionValue("time_limit", max(0.0, time_limit))
    if start is not None:
        x = programme.columns["x"]
        running = start[..., None] == np.arange(1, x.shape[-1] + 1)
        columns = x[x >= 0]
        highs.setSolution(len(columns), columns.astype(np.int32), running[x >= 0].astype(np.float64))
    if stop is not None:

        def ask(event: Any) -> None:
            if stop():
                event.interrupt()

        highs.cbMipInterrupt += ask
        highs.cbSimplexInterrupt += ask
    if on_solution is not None:
        highs.cbMipImprovingSolution += lambda event: on_solution(
            np.array(event.data_out.mip_solution), float(event.data_out.mip_dual_bound)
        )
    highs.run()
    info, state = highs.getInfo(), highs.getModelStatus()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    values = np.array(highs.getSolution().col_value) if feasible else None
    bound = info.mip_dual_bound if programme.integer.any() else info.objective_function_value
    return Found(
        values, float(bound) if math.isfinite(bound) else -math.inf, state == highspy.HighsModelStatus.kOptimal
    )


def search_with_cp_sat(
    programme: Programme,
    *,
    unit: Fraction | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    threads: int = 1,
    start: Integers | None = None,
    stop: Callable[[], bool] | None = None,
    on_solution: Callable[[Floats, float], None] | None = None,
) -> Found:
    """Constraint programming, on a programme whose rows and column bounds are integers.

    Costs are counted in ``unit`` s (:func:`orl.solvers.lot_sizing.milp.cost_unit`), exactly. Without a unit they are
    rounded down to millionths, so the bound stays valid (no column is negative).

    Args: as :func:`search_with_highs`.

    Raises:
        InputError: Fractional demand or stock.
    """
    matrix = programme.matrix
    for numbers in (matrix.data, programme.lower, programme.upper, programme.row_lower, programme.row_upper):
        finite = numbers[np.isfinite(numbers)]
        if (finite != np.round(finite)).any():
            raise InputError("CP-SAT needs integers", field="demand", expected="whole units (use backend='highs')")
    scale = float(FALLBACK_SCALE if unit is None else 1 / unit)
    cost = np.round(programme.cost * scale) if unit is not None else np.floor(programme.cost * scale)
    model = cp_model.CpModel()
    columns = [model.new_int_var(int(a), int(b), "") for a, b in zip(programme.lower, programme.upper, strict=True)]
    no_limit = 2**40
    lower = np.maximum(programme.row_lower, -no_limit).astype(np.int64).tolist()
    upper = np.minimum(programme.row_upper, no_limit).astype(np.int64).tolist()
    pointers, indices, values = matrix.indptr.tolist(), matrix.indices.tolist(), matrix.data.astype(np.int64).tolist()
    for row, (a, b) in enumerate(pairwise(pointers)):
        terms = cp_model.LinearExpr.weighted_sum([columns[j] for j in indices[a:b]], values[a:b])
        model.add_linear_constraint(terms, lower[row], upper[row])
    paid = np.flatnonzero(cost)
    model.minimize(cp_model.LinearExpr.weighted_sum([columns[j] for j in paid], cost[paid].astype(np.int64).tolist()))
    if start is not None:
        x = programme.columns["x"]
        for (k, m, i), column in np.ndenumerate(x):
            if column >= 0:
                model.add_hint(columns[column], int(start[k, m] == i + 1))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = threads
    solver.parameters.random_seed = seed % 2**31
    solver.parameters.linearization_level = 2  # the proofs come from the linear relaxation
    solver.parameters.catch_sigint_signal = False
    if time_limit is not None:
        solver.parameters.max_time_in_seconds = max(0.0, time_limit)
    state = _run(solver, model, _Report(columns, scale, on_solution), stop)
    found = state in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    answer = np.array([float(solver.value(c)) for c in columns]) if found else None
    bound = solver.best_objective_bound / scale if state != cp_model.UNKNOWN or time_limit != 0 else -math.inf
    return Found(answer, bound, state == cp_model.OPTIMAL and unit is not None)


class _Report(cp_model.CpSolverSolutionCallback):
    def __init__(self, columns: list[Any], scale: float, tell: Callable[[Floats, float], None] | None) -> None:
        super().__init__()
        self.columns, self.scale, self.tell = columns, scale, tell

    def on_solution_callback(self) -> None:
        if self.tell is not None:
            values = np.array([float(self.value(c)) for c in self.columns])
            self.tell(values, self.best_objective_bound / self.scale)


def _run(
    solver: cp_model.CpSolver, model: cp_model.CpModel, report: _Report, stop: Callable[[], bool] | None
) -> cp_model.CpSolverStatus:
    """The search in a thread, so that this one hears signals while it waits."""
    with ThreadPoolExecutor(1) as pool:
        search = pool.submit(solver.solve, model, report)
        while not wait([search], timeout=0.05).done:
            if stop is not None and stop():
                solver.stop_search()
    return search.result()
