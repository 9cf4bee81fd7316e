"""A disjunctive mixed-integer programme (Manne, Operations Research 8, 1960) in Pyomo, solved by HiGHS: to be read.

Two operations on one machine need an order: a binary ``first[a, b]`` chooses it and a big constant switches the other
order off. The relaxation is weak, so this is for teaching sizes (ft06 takes seconds); use CP-SAT for anything larger.

HiGHS computes in floating point and keeps integers and constraints up to a tolerance, which the big constants multiply
by the times of the instance. Large times are therefore counted in a larger unit, only the order of the operations and
their modes are read from a solution (starts and objectives are recomputed in integers), and bounds are lowered by what
the tolerance may hide before they are rounded up: with objectives near 10**9 and above, a result may stay ``feasible``
a few units above its bound.

    >>> from orl.envs.job_shop.builders import job_shop
    >>> Milp().solve(job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]]), time_limit=10).objective
    6.0
"""

from __future__ import annotations

import heapq
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import pyomo.environ as pyo

from orl.common.errors import InputError
from orl.common.problem import Progress, SolveResult, Status
from orl.envs.job_shop.instance import NO_DEADLINE, Schedule, ShopInstance
from orl.envs.job_shop.schedule_graph import left_shift


@dataclass(frozen=True)
class Milp:
    """Mixed-integer programme for job, flow, open and flexible shops on machines of capacity 1, all objectives.

    Args:
        max_disjunctions: Refuse instances with more pairs of operations to order (ft06 has 90, ft10 450, ta01 1575).
    """

    max_disjunctions: int = 1000

    def __post_init__(self) -> None:
        if type(self.max_disjunctions) is not int or self.max_disjunctions < 0:
            value = self.max_disjunctions
            raise InputError(
                "bad value", source="Milp", field="max_disjunctions", value=value, expected="an integer >= 0"
            )

    @property
    def name(self) -> str:
        """Key of this solver."""
        return "milp"

    def solve(
        self, instance: ShopInstance, *, time_limit: float | None = None, seed: int = 0, hint: Schedule | None = None
    ) -> SolveResult:
        """Minimise the objective of ``instance``; Ctrl-C returns the best schedule so far.

        Args:
            instance: The problem.
            time_limit: Wall seconds; None: until proved optimal.
            seed: Seed of HiGHS.
            hint: A feasible schedule to start from; the result is never worse.

        Raises:
            InputError: cumulative resources, too many disjunctions, an infeasible hint, a negative time limit,
                deadlines that HiGHS keeps only up to its tolerance (times of many millions).
        """
        started = time.perf_counter()
        if time_limit is not None and not time_limit >= 0:
            raise InputError("bad time limit", field="time_limit", value=time_limit, expected="seconds >= 0 or None")
        pairs = _disjunctions(instance)
        if len(pairs) > self.max_disjunctions:
            raise InputError(
                "too large for the MILP (use cp-sat, or raise max_disjunctions)",
                source=instance.name,
                field="disjunctions",
                value=len(pairs),
                expected=f"at most {self.max_disjunctions}",
            )
        incumbent = _checked(instance, hint)
        horizon = _horizon(instance, incumbent)
        unit = _unit(instance, horizon)
        model = build_model(instance, pairs, horizon, unit)
        highs, label = _load(model)
        highs.setOptionValue("random_seed", seed % 2**31)
        highs.setOptionValue("mip_feasibility_tolerance", _tolerance(instance, horizon))
        highs.setOptionValue("mip_rel_gap", 0.0)
        highs.setOptionValue(
            "mip_abs_gap", max(0.0, 0.999 - _hidden(instance, horizon)) / unit
        )  # objectives are integers
        if time_limit is not None:
            highs.setOptionValue("time_limit", max(0.0, time_limit - (time.perf_counter() - started)))
        log: list[Progress] = []
        if incumbent is not None:
            _hint(highs, model, label, instance, incumbent, unit)
            log.append(Progress(time.perf_counter() - started, _value(instance, incumbent)))
        best = [] if incumbent is None else [incumbent]

        def record(event: Any) -> None:
            found = _schedule(instance, model, label, event.data_out.mip_solution, unit)
            value = _value(instance, found)
            if (not best or value < _value(instance, best[-1])) and instance.check(found).feasible:
                best.append(found)
                bound = event.data_out.mip_dual_bound
                proved = min(bound * unit - _hidden(instance, horizon), value) if math.isfinite(bound) else None
                log.append(Progress(time.perf_counter() - started, value, proved))

        highs.cbMipImprovingSolution += record
        highs.HandleKeyboardInterrupt = True
        highs.solve()
        return _result(instance, model, label, highs, horizon, best, log, started)


def build_model(
    instance: ShopInstance, pairs: list[tuple[int, int, int]], horizon: int, unit: int = 1
) -> pyo.ConcreteModel:
    """The programme: ``pairs`` are triples (operation, operation, resource) to order; nothing ends after ``horizon``.

    A time unit of the programme is ``unit`` times that of the instance.

    The constant that switches an order off is the smallest that the windows of its two operations allow: the latest end
    of the one (its longest way to the end before the horizon) less the earliest start of the other.

    Variables: ``start[o]`` in its window, ``use[o, k]`` (mode k of operation o, only where there is a choice),
    ``first[a, b]`` (1: a before b) and the objective's ``makespan``, ``completion[j]`` and ``tardiness[j]``.
    """
    model = pyo.ConcreteModel(instance.name)
    operations = range(instance.n_ops)
    choices = [(o, k) for o in operations if _n_modes(instance, o) > 1 for k in range(_n_modes(instance, o))]
    earliest_start: list[int] = instance.earliest_start.tolist()
    latest_end: list[int] = np.minimum(horizon - instance.tail.astype(np.int64), instance.deadline).tolist()

    def window(_: pyo.ConcreteModel, o: int) -> tuple[float, float]:
        latest_start = max(latest_end[o] - int(instance.min_duration[o]), earliest_start[o])
        return earliest_start[o] / unit, latest_start / unit

    model.start = pyo.Var(operations, bounds=window)
    model.use = pyo.Var(choices, domain=pyo.Binary)
    model.first = pyo.Var(sorted({(a, b) for a, b, _ in pairs}), domain=pyo.Binary)

    def uses(o: int, k: int) -> Any:
        return model.use[o, k] if _n_modes(instance, o) > 1 else 1

    def end(o: int) -> Any:
        durations = [int(instance.mode_duration[q]) for q in range(instance.mode_ptr[o], instance.mode_ptr[o + 1])]
        return model.start[o] + sum(d / unit * uses(o, k) for k, d in enumerate(durations))

    def on(o: int, r: int) -> Any:
        """1 when operation o runs on resource r."""
        return sum(uses(o, k) for k in range(_n_modes(instance, o)) if r in _resources(instance, o, k))

    model.rules = pyo.ConstraintList()
    for o in operations:
        if _n_modes(instance, o) > 1:
            model.rules.add(sum(uses(o, k) for k in range(_n_modes(instance, o))) == 1)
        if instance.deadline[o] < NO_DEADLINE:
            model.rules.add(end(o) <= int(instance.deadline[o]) / unit)
        for e in range(instance.pred_ptr[o], instance.pred_ptr[o + 1]):
            model.rules.add(end(int(instance.pred_op[e])) + int(instance.pred_lag[e]) / unit <= model.start[o])
    for a, b, r in pairs:
        both = 2 - on(a, r) - on(b, r)  # 0 when both run on r
        a_late, b_late = (max(0, latest_end[x] - earliest_start[y]) / unit for x, y in ((a, b), (b, a)))
        model.rules.add(end(a) <= model.start[b] + a_late * (1 - model.first[a, b] + both))
        model.rules.add(end(b) <= model.start[a] + b_late * (model.first[a, b] + both))
    model.objective = pyo.Objective(expr=_objective(model, instance, end, horizon, unit))
    return model


def _objective(model: pyo.ConcreteModel, instance: ShopInstance, end: Any, horizon: int, unit: int) -> Any:
    if instance.objective == "makespan":
        model.makespan = pyo.Var(bounds=(instance.makespan_bound / unit, horizon / unit))
        for o in range(instance.n_ops):
            model.rules.add(end(o) <= model.makespan)
        return model.makespan
    jobs = range(instance.n_jobs)
    model.completion = pyo.Var(jobs, bounds=(0, horizon / unit))
    for o in range(instance.n_ops):
        model.rules.add(end(o) <= model.completion[int(instance.job[o])])
    if instance.objective == "total_flow":
        release = [int(instance.release[instance.job == j].min()) for j in jobs]
        return sum(model.completion[j] for j in jobs) - sum(release) / unit
    model.tardiness = pyo.Var(jobs, bounds=(0, None))
    for j in jobs:
        model.rules.add(model.completion[j] - int(instance.due[j]) / unit <= model.tardiness[j])
    return sum(int(instance.weight[j]) * model.tardiness[j] for j in jobs)


def _disjunctions(instance: ShopInstance) -> list[tuple[int, int, int]]:
    """Pairs of operations, and the machine, that no precedence orders yet; InputError on cumulative resources."""
    if (instance.capacity > 1).any():
        r = int(np.flatnonzero(instance.capacity > 1)[0])
        raise InputError(
            "the MILP has no cumulative resources (use cp-sat)",
            source=instance.name,
            field=f"capacity of {instance.resource_names[r]!r}",
            value=int(instance.capacity[r]),
            expected="1",
        )
    later: list[set[int]] = [set() for _ in range(instance.n_ops)]
    for o in instance.topological_order[::-1].tolist():
        for s in instance.succ_op[instance.succ_ptr[o] : instance.succ_ptr[o + 1]].tolist():
            later[o] |= {s} | later[s]
    users: list[list[int]] = [[] for _ in range(instance.n_resources)]
    for o in range(instance.n_ops):
        for r in sorted({r for k in range(_n_modes(instance, o)) for r in _resources(instance, o, k)}):
            users[r].append(o)
    return [
        (a, b, r)
        for r, ops in enumerate(users)
        for i, a in enumerate(ops)
        for b in ops[i + 1 :]
        if b not in later[a] and a not in later[b]
    ]


def _n_modes(instance: ShopInstance, o: int) -> int:
    return int(instance.mode_ptr[o + 1] - instance.mode_ptr[o])


def _resources(instance: ShopInstance, o: int, k: int) -> list[int]:
    q = instance.mode_ptr[o] + k
    resources: list[int] = instance.use_resource[instance.use_ptr[q] : instance.use_ptr[q + 1]].tolist()
    return resources


def _horizon(instance: ShopInstance, incumbent: Schedule | None) -> int:
    if incumbent is not None and instance.objective == "makespan":
        return int(_value(instance, incumbent))
    return instance.horizon


def _tolerance(instance: ShopInstance, horizon: int) -> float:
    """HiGHS's tolerance: its default for small times, then smaller so that objectives are right to about 0.1.

    Far below 1e-9 HiGHS often rejects its own solutions.
    """
    return min(1e-6, max(1e-9, 0.1 / _largest_objective(instance, horizon)))


def _hidden(instance: ShopInstance, horizon: int) -> float:
    """What the tolerance may hide in an objective: taken off HiGHS's bounds before they are rounded up."""
    return max(1e-4, _tolerance(instance, horizon) * _largest_objective(instance, horizon))


def _unit(instance: ShopInstance, horizon: int) -> int:
    """1 for small times; else a power of two that leaves numbers around 1000, far above the precision of a float."""
    largest = _largest_objective(instance, horizon)
    return 1 if largest <= 100_000 else 2 ** round(math.log2(largest / 1000))


def _largest_objective(instance: ShopInstance, horizon: int) -> int:
    weights = {"makespan": 1, "total_flow": instance.n_jobs, "weighted_tardiness": int(instance.weight.sum())}
    return max(1, horizon * weights[instance.objective])


def _checked(instance: ShopInstance, hint: Schedule | None) -> Schedule | None:
    if hint is None:
        return None
    check = instance.check(hint)
    if not check.feasible:
        raise InputError("the hint is not feasible", source=instance.name, field="hint", value=check.violations[0])
    return left_shift(instance, hint)


def _value(instance: ShopInstance, schedule: Schedule) -> float:
    return float(instance.objective_value(_ends(instance, schedule)))


def _ends(instance: ShopInstance, schedule: Schedule) -> np.ndarray:
    return schedule.start.astype(np.int64) + instance.mode_duration[instance.mode_ptr[:-1] + schedule.mode]


# ---- Pyomo to HiGHS and back -----------------------------------------------------------------------------------------
def _load(model: pyo.ConcreteModel) -> tuple[highspy.Highs, dict[int, int]]:
    """A HiGHS solver that read the programme, and the column of every Pyomo variable (by id).

    Pyomo's own interfaces to HiGHS start it in a way that Ctrl-C cannot end before the time limit.
    """
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "programme.lp")
        _, number = model.write(path)
        highs.readModel(path)
    symbols = model.solutions.symbol_map[number]
    column = {name: k for k, name in enumerate(highs.allVariableNames())}
    pairs = ((id(v), symbols.byObject.get(id(v))) for v in model.component_data_objects(pyo.Var))
    return highs, {variable: column[name] for variable, name in pairs if name in column}


def _values(
    model: pyo.ConcreteModel, instance: ShopInstance, schedule: Schedule, unit: int = 1
) -> Iterator[tuple[Any, float]]:
    """The value of every variable in a schedule."""
    ends = _ends(instance, schedule)
    done = np.zeros(instance.n_jobs, np.int64)
    np.maximum.at(done, instance.job, ends)
    yield from ((v, float(schedule.start[o]) / unit) for o, v in model.start.items())
    yield from ((v, float(schedule.mode[o] == k)) for (o, k), v in model.use.items())
    for (a, b), v in model.first.items():
        yield v, float((schedule.start[a], ends[a]) <= (schedule.start[b], ends[b]))
    if instance.objective == "makespan":
        yield model.makespan, float(ends.max()) / unit
        return
    yield from ((v, float(done[j]) / unit) for j, v in model.completion.items())
    if instance.objective == "weighted_tardiness":
        yield from ((v, float(max(0, done[j] - instance.due[j])) / unit) for j, v in model.tardiness.items())


def _hint(
    highs: highspy.Highs,
    model: pyo.ConcreteModel,
    column: dict[int, int],
    instance: ShopInstance,
    schedule: Schedule,
    unit: int,
) -> None:
    solution = highspy.HighsSolution()
    values = np.zeros(highs.numVariables)
    for variable, value in _values(model, instance, schedule, unit):
        if id(variable) in column:
            values[column[id(variable)]] = value
    solution.col_value = values.tolist()
    highs.setSolution(solution)


def _result(
    instance: ShopInstance,
    model: pyo.ConcreteModel,
    column: dict[int, int],
    highs: highspy.Highs,
    horizon: int,
    best: list[Schedule],
    log: list[Progress],
    started: float,
) -> SolveResult:
    unit = _unit(instance, horizon)
    info, state = highs.getInfo(), highs.getModelStatus()
    seconds = time.perf_counter() - started
    if state == highspy.HighsModelStatus.kInfeasible and not best:
        return SolveResult("infeasible", seconds=seconds, log=tuple(log))
    schedule = best[-1] if best else None
    if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        found = _schedule(instance, model, column, highs.getSolution().col_value, unit)
        kept = instance.check(found).feasible
        if kept and (schedule is None or _value(instance, found) <= _value(instance, schedule)):
            schedule = found
        if schedule is None:
            problem = "HiGHS misses a deadline by its tolerance: the times are too large for the MILP (use cp-sat)"
            raise InputError(problem, source=instance.name, field="horizon", value=horizon, expected="smaller times")
    bound = instance.lower_bound()
    if math.isfinite(info.mip_dual_bound):
        bound = max(bound, float(math.ceil(info.mip_dual_bound * unit - _hidden(instance, horizon))))
    if schedule is None:
        return SolveResult("unknown", bound=bound, seconds=seconds, log=tuple(log))
    objective = _value(instance, schedule)
    bound = min(bound, objective)
    status: Status = "optimal" if bound == objective else "feasible"
    log.append(Progress(seconds, objective, bound))
    return SolveResult(status, schedule, objective, bound, seconds=seconds, log=tuple(log))


def _schedule(
    instance: ShopInstance, model: pyo.ConcreteModel, column: dict[int, int], values: Sequence[float], unit: int = 1
) -> Schedule:
    """The schedule of the modes and of the machine orders of a solution of the programme, each operation its earliest.

    Operations are taken in the order of their rounded starts, after their predecessors (ties: shorter ones first, then
    the topological order). Where rounding gives a feasible schedule, this is that schedule shifted to the left; where
    the tolerance of HiGHS breaks a constraint, it still meets every constraint but deadlines.
    """
    mode = np.zeros(instance.n_ops, np.int32)
    for (o, k), v in model.use.items():
        if values[column[id(v)]] > 0.5:
            mode[o] = k
    duration = instance.mode_duration[instance.mode_ptr[:-1] + mode].tolist()
    rank = np.empty(instance.n_ops, np.int64)
    rank[instance.topological_order] = np.arange(instance.n_ops)
    rough = [round(values[column[id(v)]] * unit) for v in model.start.values()]
    key = [(rough[o], rough[o] + duration[o], int(rank[o]), o) for o in range(instance.n_ops)]
    start, free = instance.release.astype(np.int64).tolist(), [0] * instance.n_resources
    left = np.diff(instance.pred_ptr).tolist()
    ready = [key[o] for o in range(instance.n_ops) if left[o] == 0]
    heapq.heapify(ready)
    while ready:
        o = heapq.heappop(ready)[-1]
        machines = _resources(instance, o, int(mode[o]))
        start[o] = max([start[o], *(free[r] for r in machines)])
        end = start[o] + duration[o]
        for r in machines:
            free[r] = end
        for e in range(instance.succ_ptr[o], instance.succ_ptr[o + 1]):
            s = int(instance.succ_op[e])
            start[s] = max(start[s], end + int(instance.succ_lag[e]))
            left[s] -= 1
            if left[s] == 0:
                heapq.heappush(ready, key[s])
    return Schedule(np.array(start, np.int32), mode)
