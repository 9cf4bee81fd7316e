"""Constraint programming with OR-Tools CP-SAT: proofs and lower bounds for every shop and project of this domain.

>>> from orl.envs.job_shop.builders import job_shop
>>> result = CpSat().solve(job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]]), time_limit=10)
>>> result.status, result.objective, result.bound
('optimal', 6.0, 6.0)
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from orl.common.errors import InputError
from orl.common.interruption import minding_ctrl_c
from orl.common.problem import Progress, SolveResult, Status
from orl.envs.job_shop.instance import IntArray, Schedule, ShopInstance
from orl.envs.job_shop.schedule_graph import left_shift
from orl.solvers.job_shop.cp_sat_model import Prefix, ShopModel, ends_of
from orl.solvers.job_shop.tabu_search import TabuSearch, compile_kernel, is_classical

HINT_SHARE = 0.1
HINT_SECONDS = 2.0
HINT_MOVES_AN_OPERATION = 400
HINT_MOVES = 200_000


@dataclass(frozen=True)
class CpSat:
    """CP-SAT on the interval model: modes, lags, releases, deadlines, any resource, any objective.

    Args:
        num_workers: Search threads. The default is 8 whatever the machine has: the first workers of CP-SAT's portfolio
            look for solutions, those that prove bounds come later, and with 1 or 2 workers the bound of a job shop
            hardly moves (measured on two cores: ft10 is proved in 19 s with 8 workers, not in 60 s with 2).
            Oversubscription costs little. Take 1 where many small problems run side by side.
        auto_hint: Without a ``hint``, start classical job shops from a short tabu search (at most a tenth
            of the time limit, 2 seconds and 400 moves an operation), where it fits in memory (see
            :func:`~orl.solvers.job_shop.tabu_search.is_classical`).
        deterministic_limit: Stop after this much of CP-SAT's deterministic time (about seconds of one core) with one
            worker: the result then depends on the seed alone. Wall-clock limits are never reproducible.
        cpu_time: Measure the time limit and the curve in CPU seconds of the process, all threads together, instead of
            wall seconds (for comparisons at equal work).
    """

    num_workers: int = 8
    auto_hint: bool = True
    deterministic_limit: float | None = None
    cpu_time: bool = False

    def __post_init__(self) -> None:
        if type(self.num_workers) is not int or self.num_workers < 1:
            raise InputError("bad value", source="CpSat", field="num_workers", value=self.num_workers, expected=">= 1")
        limit = self.deterministic_limit
        if limit is not None and (type(limit) not in (int, float) or not limit > 0):
            expected = "a number > 0 or None"
            raise InputError("bad value", source="CpSat", field="deterministic_limit", value=limit, expected=expected)
        for field in ("auto_hint", "cpu_time"):
            value = getattr(self, field)
            if type(value) is not bool:
                raise InputError("bad value", source="CpSat", field=field, value=value, expected="True or False")

    @property
    def name(self) -> str:
        """Key of this solver."""
        return "cp-sat"

    def solve(
        self, instance: ShopInstance, *, time_limit: float | None = None, seed: int = 0, hint: Schedule | None = None
    ) -> SolveResult:
        """Minimise the objective of ``instance``; Ctrl-C returns the best schedule so far.

        The first call on a machine that starts from the automatic hint compiles the kernel of the tabu search (several
        seconds, kept on disk), which no time limit covers.

        Args:
            instance: The problem.
            time_limit: Wall seconds, hint included; None: until proved optimal (or the deterministic limit).
            seed: Seed of the search and of the tabu search behind the automatic hint, any integer.
            hint: A schedule to start from, complete. A feasible one also bounds the search: the result is never worse.

        Returns:
            ``status`` optimal or infeasible when proved, feasible with the best schedule found, unknown otherwise; a
            left-shifted schedule; a valid lower ``bound``; the curve of objectives and bounds.

        Raises:
            InputError: a hint that does not belong to the instance, a negative time limit.
        """
        _check_limit(time_limit)
        starts_from_tabu_search = hint is None and self.auto_hint and is_classical(instance)
        if starts_from_tabu_search:
            compile_kernel()
        clock = _Clock(self.cpu_time)
        log: list[Progress] = []
        if starts_from_tabu_search:
            starter = TabuSearch(
                iterations=min(HINT_MOVES, HINT_MOVES_AN_OPERATION * instance.n_ops), cpu_time=self.cpu_time
            )
            limit = None
            if self.deterministic_limit is None:
                limit = HINT_SECONDS if time_limit is None else min(HINT_SECONDS, HINT_SHARE * time_limit)
            found = starter.run(instance, time_limit=limit, seed=seed)
            hint, log = found.result.solution, list(found.result.log)
            if found.interrupted or found.result.status == "optimal":
                return replace(found.result, seconds=clock.wall())
        return self._search(instance, None, time_limit, seed, hint, log, clock)

    def solve_prefix(
        self,
        instance: ShopInstance,
        start: IntArray,
        mode: IntArray,
        fixed: npt.NDArray[np.bool_],
        floors: IntArray | int,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        hint: Schedule | None = None,
    ) -> SolveResult:
        """Complete a partial schedule: the best schedule that keeps what is already dispatched.

        Args:
            instance: The problem.
            start: int[N], starts of the fixed operations (other entries are ignored).
            mode: int[N], modes of the fixed operations (other entries are ignored).
            fixed: bool[N], operations that keep ``start`` and ``mode``.
            floors: int[N] or one integer, earliest starts of the other operations (the current time of an episode).
            time_limit, seed, hint: As for :meth:`solve`; a hint that moves a fixed operation is only a suggestion.

        Returns:
            As for :meth:`solve`; the bound holds for the completions of this prefix, and ``infeasible`` means that the
            prefix has none.

        Raises:
            InputError: arrays of a wrong shape, a fixed mode that does not exist.
        """
        clock = _Clock(self.cpu_time)
        _check_limit(time_limit)
        prefix = Prefix.of(instance, start, mode, fixed, floors)
        return self._search(instance, prefix, time_limit, seed, hint, [], clock)

    def _search(
        self,
        instance: ShopInstance,
        prefix: Prefix | None,
        time_limit: float | None,
        seed: int,
        hint: Schedule | None,
        log: list[Progress],
        clock: _Clock,
    ) -> SolveResult:
        restricted = instance if prefix is None else replace(instance, release=prefix.release)
        incumbent: Schedule | None = None
        if hint is not None:
            _check_hint(instance, hint)
            if restricted.check(hint).feasible and (prefix is None or prefix.keeps(hint)):
                incumbent = left_shift(restricted, hint)
        suggested = hint if incumbent is None else incumbent
        shop = ShopModel(restricted, instance, prefix, suggested, incumbent is not None)
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.random_seed = seed % 2**31
        parameters.num_workers = self.num_workers
        if self.deterministic_limit is not None:
            parameters.num_workers = 1
            parameters.max_deterministic_time = self.deterministic_limit
        left = None if time_limit is None else max(0.0, time_limit - clock())
        if left is not None and (left == 0.0 or not self.cpu_time):
            parameters.max_time_in_seconds = left
        curve = _Curve(clock, log, float(shop.constant))
        if incumbent is not None:
            value = float(_value(instance, incumbent))
            if not log or log[-1].objective is None or value < log[-1].objective:
                log.append(Progress(clock(), value))
        solver.best_bound_callback = curve.new_bound
        with _stopped_at(solver, clock, time_limit if self.cpu_time else None):
            code = _solve_minding_ctrl_c(solver, shop.model, curve)
        if code == cp_model.MODEL_INVALID:
            raise RuntimeError(f"{instance.name}: CP-SAT rejects the model: {shop.model.validate()}")
        schedule = incumbent
        if code in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            found = left_shift(restricted, shop.schedule(solver))
            if incumbent is None or _value(instance, found) <= _value(instance, incumbent):
                schedule = found
        if code == cp_model.INFEASIBLE and incumbent is None:
            return SolveResult("infeasible", seconds=clock.wall(), log=tuple(log))
        bound = float(shop.lower_bound)
        if code in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.UNKNOWN):
            proved = solver.best_objective_bound + shop.constant
            if math.isfinite(proved):
                bound = max(bound, math.ceil(proved - 1e-6))
        if schedule is None:
            return SolveResult("unknown", bound=bound, seconds=clock.wall(), log=tuple(log))
        objective = float(_value(instance, schedule))
        bound = min(float(bound), objective)
        status: Status = "optimal" if bound == objective else "feasible"
        if not log or log[-1].objective != objective or log[-1].bound != bound:
            log.append(Progress(clock(), objective, bound))
        return SolveResult(status, schedule, objective, bound, seconds=clock.wall(), log=tuple(log))


class _Clock:
    """Seconds since it was made: of the wall, or of this process's CPU."""

    def __init__(self, cpu_time: bool) -> None:
        self.read: Callable[[], float] = time.process_time if cpu_time else time.perf_counter
        self.began, self.began_wall = self.read(), time.perf_counter()

    def __call__(self) -> float:
        return self.read() - self.began

    def wall(self) -> float:
        """Wall seconds since it was made."""
        return time.perf_counter() - self.began_wall


@contextmanager
def _stopped_at(solver: cp_model.CpSolver, clock: _Clock, limit: float | None) -> Iterator[None]:
    """Stop the search inside when ``clock`` reaches ``limit`` (None: never); CP-SAT itself knows wall limits only."""
    if limit is None:
        yield
        return
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.01):
            if clock() >= limit:
                solver.stop_search()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


class _Curve(cp_model.CpSolverSolutionCallback):
    """Records objectives and bounds with the seconds of ``clock``."""

    def __init__(self, clock: _Clock, log: list[Progress], constant: float) -> None:
        super().__init__()
        self.clock, self.log, self.constant = clock, log, constant

    def on_solution_callback(self) -> None:
        objective, bound = self.objective_value + self.constant, self.best_objective_bound + self.constant
        last = next((p.objective for p in reversed(self.log) if p.objective is not None), None)
        if last is None or objective < last:
            self.log.append(Progress(self.clock(), objective, bound))

    def new_bound(self, bound: float) -> None:
        """Called by CP-SAT when the best bound rises."""
        value = bound + self.constant
        last = next((p for p in reversed(self.log) if p.bound is not None), None)
        if last is None or last.bound is None or value > last.bound:
            self.log.append(Progress(self.clock(), None, value))


def _solve_minding_ctrl_c(
    solver: cp_model.CpSolver, model: cp_model.CpModel, curve: cp_model.CpSolverSolutionCallback
) -> Any:
    """``solver.solve``; Ctrl-C ends it with the best so far, and is handed on to the handler that the caller has set.

    CP-SAT's own answer to Ctrl-C replaces the handler of the process in C, so that a caller never hears of it, and
    leaves the system's default behind. It stays off: the search runs in a thread, while this one waits and hears the
    signal (:func:`orl.common.interruption.minding_ctrl_c`).
    """
    solver.parameters.catch_sigint_signal = False
    with minding_ctrl_c() as pressed, ThreadPoolExecutor(1) as pool:
        search = pool.submit(solver.solve, model, curve)
        while not wait([search], timeout=0.05).done:
            if pressed():
                solver.stop_search()
    return search.result()


def _value(instance: ShopInstance, schedule: Schedule) -> int:
    return instance.objective_value(ends_of(instance, schedule))


def _check_limit(time_limit: float | None) -> None:
    if time_limit is not None and not time_limit >= 0:
        raise InputError("bad time limit", field="time_limit", value=time_limit, expected="seconds >= 0 or None")


def _check_hint(instance: ShopInstance, hint: Schedule) -> None:
    if not isinstance(hint, Schedule):
        raise InputError("not a schedule", field="hint", value=type(hint).__name__, expected="a Schedule")
    check = instance.check(hint)
    if check.objective is None:
        raise InputError("the hint does not belong to the instance", field="hint", value=check.violations[0])
