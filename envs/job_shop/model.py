"""The declarative scheduling model: intervals with modes, precedences, resources; compiled to flat arrays.

>>> m = Model("tiny")
>>> lathe, drill = m.unary("lathe"), m.unary("drill")
>>> a = m.interval("a", [Mode(3, {lathe: 1})], job=0)
>>> b = m.interval("b", [Mode(2, {drill: 1}), Mode(4, {lathe: 1})], job=0)
>>> m.precedence(a, b)
>>> instance = m.compile()
>>> instance.n_ops, instance.n_lines, instance.makespan_bound
(2, 1, 5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from orl.common.errors import InputError
from orl.envs.job_shop.instance import (
    NO_DEADLINE,
    OBJECTIVES,
    IntArray,
    Objective,
    ShopInstance,
    topological_order,
)

MAX_HORIZON = 2**30 - 1
KINDS = ("job_shop", "flow_shop", "open_shop", "flexible_job_shop", "general")


@dataclass(frozen=True)
class Mode:
    """One way to run an interval: a duration (>= 0) and the units it takes of each resource (handles of the model)."""

    duration: int
    uses: Mapping[int, int] = field(default_factory=dict)


@dataclass
class _Interval:
    name: str
    modes: tuple[Mode, ...]
    release: int
    deadline: int | None
    job: int | None


class Model:
    """Collects intervals, precedences, resources and groups; :meth:`compile` checks them and returns a ShopInstance."""

    def __init__(self, name: str = "unnamed", kind: str = "general") -> None:
        self.name, self.kind = name, kind
        if kind not in KINDS:
            raise self._error("unknown kind", "kind", kind, f"one of {KINDS}")
        self._intervals: list[_Interval] = []
        self._arcs: list[tuple[int, int, int]] = []
        self._capacity: list[int] = []
        self._resource_names: list[str] = []
        self._exclusive: set[int] = set()
        self._objective: Objective = "makespan"
        self._due: Mapping[int, int] = {}
        self._weight: Mapping[int, int] = {}

    def unary(self, name: str) -> int:
        """A machine: runs one interval at a time. Returns its handle."""
        return self.cumulative(name, 1)

    def cumulative(self, name: str, capacity: int) -> int:
        """A resource with ``capacity`` >= 1 units. Returns its handle."""
        if not _is_integer(capacity, 1, MAX_HORIZON):
            raise self._error("bad capacity", name, capacity, f"an integer in 1..{MAX_HORIZON}")
        self._capacity.append(int(capacity))
        self._resource_names.append(name)
        return len(self._capacity) - 1

    def interval(
        self,
        name: str,
        modes: Sequence[Mode],
        *,
        release: int = 0,
        deadline: int | None = None,
        job: int | None = None,
    ) -> int:
        """An interval to schedule in one of its modes; ``job`` groups intervals. Returns its handle."""
        self._intervals.append(_Interval(name, tuple(modes), release, deadline, job))
        return len(self._intervals) - 1

    def precedence(self, before: int, after: int, lag: int = 0) -> None:
        """``end(before) + lag <= start(after)`` with ``lag`` >= 0."""
        self._arcs.append((before, after, lag))

    def exclusive_group(self, job: int) -> None:
        """Intervals of this job may not overlap (an open-shop job)."""
        self._exclusive.add(job)

    def objective(
        self,
        objective: Objective,
        *,
        due: Mapping[int, int] | None = None,
        weight: Mapping[int, int] | None = None,
    ) -> None:
        """Choose what is minimised; ``due`` and ``weight`` map jobs to due dates and weights (default 0 and 1)."""
        if objective not in OBJECTIVES:
            raise self._error("unknown objective", "objective", objective, f"one of {OBJECTIVES}")
        for label, values, low in (("due date", due or {}, -MAX_HORIZON), ("weight", weight or {}, 0)):
            for job, value in values.items():
                if not _is_integer(value, low, MAX_HORIZON):
                    raise self._error(f"bad {label}", f"job {job}", value, f"an integer in {low}..{MAX_HORIZON}")
        self._objective, self._due, self._weight = objective, due or {}, weight or {}

    def compile(self) -> ShopInstance:
        """Check the model and turn it into arrays.

        Raises:
            InputError: no intervals, an interval without a mode, a negative or fractional duration, release or lag, a
                demand below 0 or above the capacity, an unknown handle, an exclusive group, due date or weight of a
                job without intervals, a precedence cycle, a horizon above 2**30 - 1.
        """
        n = len(self._intervals)
        if n == 0:
            raise self._error("the model has no intervals", "intervals", None, "at least one")
        jobs = self._job_numbers()
        capacity = list(self._capacity)
        names = list(self._resource_names)
        group_resource: dict[int, int] = {}
        for label in self._exclusive:
            if label not in jobs.labels:
                raise self._error("exclusive group without intervals", "exclusive_group", label, "a job of an interval")
        for label in (*self._due, *self._weight):
            if label not in jobs.labels:
                raise self._error("due date or weight of a job without intervals", "objective", label, "a known job")
        for label, number in jobs.labels.items():
            if label in self._exclusive:
                group_resource[number] = len(capacity)
                capacity.append(1)
                names.append(f"job {label}")
        mode_ptr, durations, use_ptr, use_resource, use_demand = [0], [], [0], [], []
        job_of_op = jobs.of_op.tolist()
        for o, interval in enumerate(self._intervals):
            self._check_interval(interval)
            for mode in interval.modes:
                durations.append(int(mode.duration))
                for resource, demand in mode.uses.items():
                    if demand > 0:
                        use_resource.append(int(resource))
                        use_demand.append(int(demand))
                if job_of_op[o] in group_resource:
                    use_resource.append(group_resource[job_of_op[o]])
                    use_demand.append(1)
                use_ptr.append(len(use_resource))
            mode_ptr.append(len(durations))
        pred, succ = self._arc_arrays()
        order = topological_order(pred[0], succ[0], succ[1])
        if len(order) < n:
            cyclic = sorted(set(range(n)) - set(order.tolist()))
            raise self._error(
                "precedence cycle", "precedence", [self._intervals[o].name for o in cyclic[:4]], "no cycle"
            )
        horizon = sum(max(m.duration for m in i.modes) for i in self._intervals)
        horizon += max(i.release for i in self._intervals) + sum(lag for _, _, lag in self._arcs)
        if horizon > MAX_HORIZON:
            raise self._error("the horizon is too long", "durations", horizon, f"a sum of at most {MAX_HORIZON}")
        min_duration = [min(m.duration for m in i.modes) for i in self._intervals]
        tail, minimum = [0] * n, min_duration
        ptr, successor, succ_lag = (array.tolist() for array in succ)
        for o in order[::-1].tolist():
            for e in range(ptr[o], ptr[o + 1]):
                length = succ_lag[e] + minimum[successor[e]] + tail[successor[e]]
                if length > tail[o]:
                    tail[o] = length
        line_ptr, line_op = _lines(jobs.of_op, jobs.count, pred, order)
        due, weight = [0] * jobs.count, [1] * jobs.count
        for label, number in jobs.labels.items():
            due[number], weight[number] = self._due.get(label, 0), self._weight.get(label, 1)
        deadlines = [NO_DEADLINE if i.deadline is None else i.deadline for i in self._intervals]
        return ShopInstance(
            name=self.name,
            kind=self.kind,
            mode_ptr=_i32(mode_ptr),
            mode_duration=_i32(durations),
            use_ptr=_i32(use_ptr),
            use_resource=_i32(use_resource),
            use_demand=_i32(use_demand),
            pred_ptr=pred[0],
            pred_op=pred[1],
            pred_lag=pred[2],
            succ_ptr=succ[0],
            succ_op=succ[1],
            succ_lag=succ[2],
            job=jobs.of_op,
            capacity=_i32(capacity),
            n_declared_resources=len(self._capacity),
            release=_i32([i.release for i in self._intervals]),
            deadline=_i32(deadlines),
            tail=_i32(tail),
            line_ptr=line_ptr,
            line_op=line_op,
            objective=self._objective,
            due=_i32(due),
            weight=_i32(weight),
            op_names=tuple(i.name for i in self._intervals),
            resource_names=tuple(names),
        )

    # ---- checks ------------------------------------------------------------------------------------------------
    def _error(self, problem: str, where: str, value: object, expected: str) -> InputError:
        return InputError(problem, source=f"model {self.name!r}", field=where, value=value, expected=expected)

    def _check_interval(self, interval: _Interval) -> None:
        where = f"interval {interval.name!r}"
        if not interval.modes:
            raise self._error("an interval without a mode", where, None, "at least one mode")
        for label, value in (("release", interval.release), ("deadline", interval.deadline)):
            if value is not None and not _is_integer(value, 0, MAX_HORIZON):
                raise self._error(f"bad {label}", where, value, f"0..{MAX_HORIZON}")
        for mode in interval.modes:
            if not _is_integer(mode.duration, 0, MAX_HORIZON):
                raise self._error("bad duration", where, mode.duration, f"0..{MAX_HORIZON}")
            for resource, demand in mode.uses.items():
                if not _is_integer(resource, 0, len(self._capacity) - 1):
                    raise self._error("unknown resource", where, resource, f"a handle below {len(self._capacity)}")
                if not _is_integer(demand, 0, self._capacity[resource]):
                    limit = f"0..{self._capacity[resource]} units of {self._resource_names[resource]!r}"
                    problem = "demand above capacity" if demand > self._capacity[resource] else "bad demand"
                    raise self._error(problem, where, demand, limit)

    def _job_numbers(self) -> _Jobs:
        """Dense job numbers in order of first appearance; an interval without a job becomes a job of its own."""
        labels: dict[int, int] = {}
        of_op: list[int] = []
        count = 0
        for interval in self._intervals:
            if interval.job is None:
                of_op.append(count)
                count += 1
            else:
                if interval.job not in labels:
                    labels[interval.job] = count
                    count += 1
                of_op.append(labels[interval.job])
        return _Jobs(_i32(of_op), count, labels)

    def _arc_arrays(self) -> tuple[tuple[IntArray, IntArray, IntArray], tuple[IntArray, IntArray, IntArray]]:
        n = len(self._intervals)
        for before, after, lag in self._arcs:
            if not (_is_integer(before, 0, n - 1) and _is_integer(after, 0, n - 1)):
                raise self._error("unknown interval", "precedence", (before, after), f"handles below {n}")
            if not _is_integer(lag, 0, MAX_HORIZON):
                raise self._error("bad lag", "precedence", lag, f"0..{MAX_HORIZON}")
        arcs = np.array(sorted(self._arcs), np.int64).reshape(-1, 3)
        return _csr(arcs[:, 1], arcs[:, 0], arcs[:, 2], n), _csr(arcs[:, 0], arcs[:, 1], arcs[:, 2], n)


@dataclass(frozen=True)
class _Jobs:
    of_op: IntArray
    count: int
    labels: dict[int, int]


def _is_integer(value: object, low: int, high: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(low <= value <= high)


def _i32(values: Sequence[int]) -> IntArray:
    return np.array(values, np.int32)


def _csr(key: np.ndarray, other: np.ndarray, lag: np.ndarray, n: int) -> tuple[IntArray, IntArray, IntArray]:
    """Arcs grouped by ``key``: pointer [n+1], other end, lag."""
    order = np.argsort(key, kind="stable")
    ptr = np.zeros(n + 1, np.int32)
    np.cumsum(np.bincount(key, minlength=n), out=ptr[1:])
    return ptr, other[order].astype(np.int32), lag[order].astype(np.int32)


def _lines(
    job: IntArray, n_jobs: int, pred: tuple[IntArray, IntArray, IntArray], order: IntArray
) -> tuple[IntArray, IntArray]:
    """Decision lines: a job whose operations form one chain is a line, any other operation is a line of its own.

    ``order`` is a topological order; in a chain the operations that follow each other in it are linked by an arc.
    """
    ptr, before = pred[0].tolist(), pred[1].tolist()
    chains: list[list[int]] = [[] for _ in range(n_jobs)]
    job_of_op = job.tolist()
    for o in order.tolist():
        chains[job_of_op[o]].append(o)
    line_ptr, line_op = [0], []
    for chain in chains:
        if all(chain[k - 1] in before[ptr[chain[k]] : ptr[chain[k] + 1]] for k in range(1, len(chain))):
            line_op.extend(chain)
            line_ptr.append(len(line_op))
        else:
            for o in sorted(chain):
                line_op.append(o)
                line_ptr.append(len(line_op))
    return _i32(line_ptr), _i32(line_op)


def validate_arrays(instance: ShopInstance, source: str | None) -> None:
    """Raise InputError unless an instance read from JSON is exactly what its model compiles to."""

    def fail(problem: str, where: str, value: object, expected: str) -> InputError:
        return InputError(problem, source=source, field=where, value=value, expected=expected)

    n, modes = len(instance.job), len(instance.mode_duration)
    if instance.kind not in KINDS:
        raise fail("unknown kind", "kind", instance.kind, f"one of {KINDS}")
    if instance.objective not in OBJECTIVES:
        raise fail("unknown objective", "objective", instance.objective, f"one of {OBJECTIVES}")
    if n == 0:
        raise fail("no operations", "job", None, "at least one")
    if not 0 <= instance.n_declared_resources <= len(instance.capacity):
        raise fail("bad count", "n_declared_resources", instance.n_declared_resources, f"0..{len(instance.capacity)}")
    lengths = {
        "release": n,
        "deadline": n,
        "tail": n,
        "op_names": n,
        "line_op": n,
        "use_demand": len(instance.use_resource),
        "pred_lag": len(instance.pred_op),
        "succ_op": len(instance.pred_op),
        "succ_lag": len(instance.pred_op),
        "weight": len(instance.due),
        "resource_names": len(instance.capacity),
    }
    for name, length in lengths.items():
        if len(getattr(instance, name)) != length:
            raise fail("wrong length", name, len(getattr(instance, name)), f"{length} values")
    pointers = {
        "mode_ptr": (n, modes),
        "use_ptr": (modes, len(instance.use_resource)),
        "pred_ptr": (n, len(instance.pred_op)),
        "succ_ptr": (n, len(instance.succ_op)),
    }
    for name, (rows, total) in pointers.items():
        ptr = getattr(instance, name)
        if len(ptr) != rows + 1 or ptr[0] != 0 or ptr[-1] != total or (np.diff(ptr) < 0).any():
            raise fail("not a row pointer", name, len(ptr), f"{rows + 1} non-decreasing values from 0 to {total}")
    for name, high in (("use_resource", len(instance.capacity)), ("pred_op", n), ("job", len(instance.due))):
        values = getattr(instance, name)
        bad = np.flatnonzero((values < 0) | (values >= high))
        if len(bad):
            raise fail("out of range", f"{name}[{bad[0]}]", int(values[bad[0]]), f"0..{high - 1}")
    if len(np.unique(instance.job)) != len(instance.due):
        raise fail("a job without operations", "job", len(np.unique(instance.job)), f"{len(instance.due)} jobs")
    try:
        again = _to_model(instance).compile()
    except InputError as error:
        where = f"{error.source}, {error.field}"
        raise InputError(
            error.problem, source=source, field=where, value=error.value, expected=error.expected
        ) from error
    for entry in fields(ShopInstance):
        if entry.name in ("name", "kind", "op_names", "resource_names", "known_bounds"):
            continue
        want, found = getattr(again, entry.name), getattr(instance, entry.name)
        if isinstance(want, np.ndarray) and want.shape == found.shape:
            differ = np.flatnonzero(want != found)
            if len(differ):
                k = differ[0]
                raise fail("inconsistent array", f"{entry.name}[{k}]", int(found[k]), f"{want[k]}")
        elif isinstance(want, np.ndarray) or want != found:
            raise fail("inconsistent value", entry.name, None, "the value that the other fields imply")


def _to_model(instance: ShopInstance) -> Model:
    """The model that compiles to ``instance``."""
    model = Model(instance.name, instance.kind)
    declared = instance.n_declared_resources
    for name, capacity in zip(instance.resource_names[:declared], instance.capacity[:declared].tolist(), strict=True):
        model.cumulative(name, capacity)
    mode_ptr, use_ptr, pred_ptr = (a.tolist() for a in (instance.mode_ptr, instance.use_ptr, instance.pred_ptr))
    resource, demand, duration = (
        a.tolist() for a in (instance.use_resource, instance.use_demand, instance.mode_duration)
    )
    before, lag, job = (a.tolist() for a in (instance.pred_op, instance.pred_lag, instance.job))
    release, deadline = instance.release.tolist(), instance.deadline.tolist()
    for o in range(instance.n_ops):
        modes = []
        for q in range(mode_ptr[o], mode_ptr[o + 1]):
            uses = range(use_ptr[q], use_ptr[q + 1])
            if any(resource[u] >= declared for u in uses):
                model.exclusive_group(job[o])
            modes.append(Mode(duration[q], {resource[u]: demand[u] for u in uses if resource[u] < declared}))
        end = None if deadline[o] == NO_DEADLINE else deadline[o]
        model.interval(instance.op_names[o], modes, release=release[o], deadline=end, job=job[o])
        for e in range(pred_ptr[o], pred_ptr[o + 1]):
            model.precedence(before[e], o, lag[e])
    due, weight = dict(enumerate(instance.due.tolist())), dict(enumerate(instance.weight.tolist()))
    model.objective(instance.objective, due=due, weight=weight)
    return model
