"""A compiled scheduling problem as flat arrays, its solutions, and the independent checker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.problem import Bounds, Check

IntArray = npt.NDArray[np.int32]
Objective = Literal["makespan", "total_flow", "weighted_tardiness"]
OBJECTIVES: tuple[Objective, ...] = ("makespan", "total_flow", "weighted_tardiness")
NO_DEADLINE = 2**30
SCHEMA = "orl.job_shop.instance/1"
SCHEDULE_SCHEMA = "orl.job_shop.schedule/1"


@dataclass(frozen=True, eq=False)
class Schedule:
    """A solution: the start time of every operation and the mode it runs in.

    Attributes:
        start: int32[N], time units of the instance, one entry an operation in instance order.
        mode: int32[N], index among the operation's own modes (0 for single-mode operations).
    """

    start: IntArray
    mode: IntArray

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEDULE_SCHEMA, "start": self.start.tolist(), "mode": self.mode.tolist()}

    @classmethod
    def from_json(cls, data: dict[str, Any], source: str | None = None) -> Schedule:
        """Read what ``to_json`` wrote; raises InputError on anything else."""
        if not isinstance(data, dict) or data.get("schema") != SCHEDULE_SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise InputError("not a schedule", source=source, field="schema", value=found, expected=SCHEDULE_SCHEMA)
        return cls(_int_array(data, "start", source), _int_array(data, "mode", source))


@dataclass(frozen=True, eq=False)
class ShopInstance:
    """A scheduling problem compiled by :meth:`orl.envs.job_shop.model.Model.compile`.

    Operations are numbered 0..N-1, modes 0..Q-1 (all operations' modes in order), resources 0..R-1. Exclusive groups
    (an open-shop job) are resources of capacity 1 behind the declared ones. All arrays are int32 and C-contiguous;
    durations, lags, releases and deadlines share one time unit.

    Attributes:
        name: Name of the instance.
        kind: ``job_shop``, ``flow_shop``, ``open_shop``, ``flexible_job_shop`` or ``general``.
        mode_ptr: [N+1] modes of operation o are ``mode_ptr[o]:mode_ptr[o+1]``.
        mode_duration: [Q] duration of a mode, >= 0.
        use_ptr: [Q+1] resource uses of mode q are ``use_ptr[q]:use_ptr[q+1]``.
        use_resource: [U] resource of a use.
        use_demand: [U] units of it, 1 <= demand <= capacity.
        pred_ptr, pred_op, pred_lag: predecessors of an operation and minimum lags (end(pred) + lag <= start).
        succ_ptr, succ_op, succ_lag: the same arcs seen from the predecessor.
        job: [N] job (group) of an operation, 0..J-1.
        capacity: [R] units of a resource.
        n_declared_resources: resources below this index are the user's; those behind are exclusive groups.
        release, deadline: [N] earliest start, latest end (``NO_DEADLINE``: none).
        tail: [N] longest path from the END of an operation to the sink over minimum durations and lags.
        line_ptr, line_op: [L+1], [N] decision lines: the operations of a line are started in this order. A job whose
            operations form a chain is one line; any other operation is a line of its own.
        objective: ``makespan``, ``total_flow`` (sum of job completion times minus job releases) or
            ``weighted_tardiness``.
        due, weight: [J] due date and weight of a job (used by ``weighted_tardiness``).
        op_names, resource_names: names for pictures and messages.
    """

    name: str
    kind: str
    mode_ptr: IntArray
    mode_duration: IntArray
    use_ptr: IntArray
    use_resource: IntArray
    use_demand: IntArray
    pred_ptr: IntArray
    pred_op: IntArray
    pred_lag: IntArray
    succ_ptr: IntArray
    succ_op: IntArray
    succ_lag: IntArray
    job: IntArray
    capacity: IntArray
    n_declared_resources: int
    release: IntArray
    deadline: IntArray
    tail: IntArray
    line_ptr: IntArray
    line_op: IntArray
    objective: Objective
    due: IntArray
    weight: IntArray
    op_names: tuple[str, ...]
    resource_names: tuple[str, ...]
    known_bounds: Bounds | None = field(default=None)

    def __post_init__(self) -> None:
        """An instance is immutable data: its arrays refuse to be written."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    # ---- sizes -------------------------------------------------------------------------------------------------
    @property
    def n_ops(self) -> int:
        """Number of operations N."""
        return len(self.job)

    @property
    def n_jobs(self) -> int:
        """Number of jobs J."""
        return len(self.due)

    @property
    def n_resources(self) -> int:
        """Number of resources R, exclusive groups included."""
        return len(self.capacity)

    @property
    def n_lines(self) -> int:
        """Number of decision lines L."""
        return len(self.line_ptr) - 1

    @cached_property
    def max_modes(self) -> int:
        """Largest number of modes of an operation."""
        return int(np.diff(self.mode_ptr).max())

    @cached_property
    def min_duration(self) -> IntArray:
        """[N] shortest duration over an operation's modes."""
        return np.minimum.reduceat(self.mode_duration, self.mode_ptr[:-1])

    @cached_property
    def max_duration(self) -> IntArray:
        """[N] longest duration over an operation's modes."""
        return np.maximum.reduceat(self.mode_duration, self.mode_ptr[:-1])

    @cached_property
    def horizon(self) -> int:
        """A makespan that some schedule does not exceed: all operations one after another, deadlines ignored."""
        return int(self.release.max() + self.max_duration.sum(dtype=np.int64) + self.pred_lag.sum(dtype=np.int64))

    @cached_property
    def primary_resource(self) -> IntArray:
        """[Q] the declared resource of a mode that uses exactly one, else -1."""
        out = np.full(len(self.mode_duration), -1, np.int32)
        declared = self.use_resource < self.n_declared_resources
        mode = self._mode_of_use[declared]
        out[mode] = self.use_resource[declared]
        out[np.bincount(mode, minlength=len(out)) != 1] = -1
        return out

    @cached_property
    def _mode_of_use(self) -> npt.NDArray[np.int64]:
        """[U] mode of a resource use."""
        return np.repeat(np.arange(len(self.mode_duration)), np.diff(self.use_ptr))

    def same_as(self, other: ShopInstance) -> bool:
        """Equal data, names included."""
        return self is other or self.to_json() == other.to_json()

    # ---- bounds ------------------------------------------------------------------------------------------------
    @cached_property
    def earliest_start(self) -> IntArray:
        """[N] earliest start by releases and precedences alone."""
        start, duration = self.release.tolist(), self.min_duration.tolist()
        ptr, successor, lag = self.succ_ptr.tolist(), self.succ_op.tolist(), self.succ_lag.tolist()
        for o in self.topological_order.tolist():
            end = start[o] + duration[o]
            for e in range(ptr[o], ptr[o + 1]):
                if end + lag[e] > start[successor[e]]:
                    start[successor[e]] = end + lag[e]
        return np.array(start, np.int32)

    @cached_property
    def topological_order(self) -> IntArray:
        """[N] operations in an order that respects the precedences."""
        return topological_order(self.pred_ptr, self.succ_ptr, self.succ_op)

    @cached_property
    def job_bound(self) -> int:
        """Longest path over minimum durations: a lower bound on the makespan."""
        return int((self.earliest_start + self.min_duration + self.tail).max())

    @cached_property
    def makespan_bound(self) -> int:
        """LB_0: the larger of the job bound and, over resources, earliest head + work / capacity + shortest tail."""
        resource, op, energy = self.mandatory_work()
        if not len(op):
            return self.job_bound
        work = np.zeros(self.n_resources, np.int64)
        head = np.full(self.n_resources, np.iinfo(np.int64).max)
        tail = head.copy()
        np.add.at(work, resource, energy)
        np.minimum.at(head, resource, self.earliest_start[op])
        np.minimum.at(tail, resource, self.tail[op])
        used = np.unique(resource)
        bound = head[used] - (-work[used] // self.capacity[used]) + tail[used]
        return max(self.job_bound, int(bound.max()))

    def mandatory_work(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pairs (resource, operation) that meet in every mode, with the smallest positive duration x demand."""
        n_modes = np.diff(self.mode_ptr)
        op = np.repeat(np.arange(self.n_ops), n_modes)[self._mode_of_use]
        resource = self.use_resource.astype(np.int64)
        energy = self.mode_duration[self._mode_of_use].astype(np.int64) * self.use_demand
        if self.max_modes > 1 and len(op):
            key = op * self.n_resources + resource
            order = np.argsort(key, kind="stable")
            first = np.flatnonzero(np.diff(key[order], prepend=-1))
            count = np.diff(first, append=len(key))
            op, resource, energy = op[order][first], resource[order][first], np.minimum.reduceat(energy[order], first)
            energy = np.where(count == n_modes[op], energy, 0)
        keep = energy > 0
        return resource[keep], op[keep], energy[keep]

    def lower_bound(self) -> float:
        """A cheap valid lower bound on the objective (LB_0 for the makespan)."""
        if self.objective == "makespan":
            return float(self.makespan_bound)
        return float(self.objective_value(self.earliest_start + self.min_duration))

    def best_known(self) -> Bounds | None:
        """Best known bounds of a public instance."""
        return self.known_bounds

    # ---- objective and checker ---------------------------------------------------------------------------------
    def objective_value(self, end: npt.NDArray[Any]) -> int:
        """Objective of operation end times ``end`` [N]."""
        if self.objective == "makespan":
            return int(end.max())
        completion = np.zeros(self.n_jobs, np.int64)
        np.maximum.at(completion, self.job, end.astype(np.int64))
        if self.objective == "total_flow":
            release = np.full(self.n_jobs, np.iinfo(np.int64).max)
            np.minimum.at(release, self.job, self.release.astype(np.int64))
            return int((completion - release).sum())
        return int((self.weight * np.maximum(0, completion - self.due)).sum())

    def check(self, solution: Schedule) -> Check:
        """Check a schedule against every constraint and recompute its objective.

        Written from the definition of the problem alone: shares no code with the kernel or a solver.
        """
        given, mode = np.asarray(solution.start), np.asarray(solution.mode)
        for label, array in (("start", given), ("mode", mode)):
            if array.shape != (self.n_ops,) or array.dtype.kind not in "iu":
                found = f"{array.dtype}{list(array.shape)}"
                return Check(False, None, (f"{label}: expected {self.n_ops} integers, got {found}",))
        n_modes = np.diff(self.mode_ptr)
        bad = np.flatnonzero((mode < 0) | (mode >= n_modes))
        if len(bad):
            return Check(False, None, tuple(f"{self.op_names[o]}: no mode {mode[o]}" for o in bad[:20]))
        bad = np.flatnonzero((given < 0) | (given > np.iinfo(np.int32).max))
        if len(bad):
            return Check(False, None, tuple(f"{self.op_names[o]} starts at {given[o]}, not a time" for o in bad[:20]))
        chosen = self.mode_ptr[:-1] + mode.astype(np.int64)
        start = given.astype(np.int64)
        end = start + self.mode_duration[chosen]
        violations: list[str] = []
        for o in np.flatnonzero(start < self.release)[:20]:
            violations.append(f"{self.op_names[o]} starts at {start[o]}, before its release {self.release[o]}")
        for o in np.flatnonzero((self.deadline < NO_DEADLINE) & (end > self.deadline))[:20]:
            violations.append(f"{self.op_names[o]} ends at {end[o]}, after its deadline {self.deadline[o]}")
        succ = np.repeat(np.arange(self.n_ops), np.diff(self.pred_ptr))
        for e in np.flatnonzero(end[self.pred_op] + self.pred_lag > start[succ])[:20]:
            a, b = self.op_names[self.pred_op[e]], self.op_names[succ[e]]
            violations.append(f"{b} starts at {start[succ[e]]}, before {a} ends plus lag {self.pred_lag[e]}")
        violations.extend(self._overloads(chosen, start, end))
        return Check(not violations, float(self.objective_value(end)), tuple(violations))

    def _overloads(
        self, chosen: npt.NDArray[np.integer], start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
    ) -> list[str]:
        """Resources whose running demand exceeds the capacity at some time; zero durations occupy nothing.

        A zero-duration operation on a full unary resource may sit at a boundary but not inside another operation.
        """
        out = []
        n_uses = (self.use_ptr[1:] - self.use_ptr[:-1])[chosen]
        op = np.repeat(np.arange(self.n_ops), n_uses)
        use = np.repeat(self.use_ptr[chosen] - (np.cumsum(n_uses) - n_uses), n_uses) + np.arange(len(op))
        order = np.argsort(self.use_resource[use], kind="stable")
        limits = np.searchsorted(self.use_resource[use][order], np.arange(self.n_resources + 1))
        for r in range(self.n_resources):
            mine = order[limits[r] : limits[r + 1]]
            ops, demand = op[mine], self.use_demand[use[mine]].astype(np.int64)
            instant = start[ops] == end[ops]
            lasting, point = ops[~instant], ops[instant]
            started = _running_sum(start[lasting], demand[~instant])
            ended = _running_sum(end[lasting], demand[~instant])
            time = np.concatenate([start[lasting], start[point]])
            load = np.concatenate(
                [
                    started(start[lasting], "right") - ended(start[lasting], "right"),
                    started(start[point], "left") - ended(start[point], "right") + demand[instant],
                ]
            )
            over = np.flatnonzero(load > self.capacity[r])
            if len(over):
                worst = over[np.argmin(time[over])]
                t = int(time[worst])
                there = ops[((start[ops] <= t) & (end[ops] > t)) | (instant & (start[ops] == t))]
                names = ", ".join(self.op_names[o] for o in there[:4])
                out.append(f"{self.resource_names[r]} carries {load[worst]} > {self.capacity[r]} at time {t}: {names}")
        return out

    # ---- JSON --------------------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """The instance as versioned JSON data; :meth:`from_json` reads it back."""
        data: dict[str, Any] = {"schema": SCHEMA}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                value = value.tolist()
            elif isinstance(value, Bounds):
                value = vars(value)
            data[f.name] = list(value) if isinstance(value, tuple) else value
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any], source: str | None = None) -> ShopInstance:
        """Read what ``to_json`` wrote. Raises InputError naming source, field and value otherwise."""
        from orl.envs.job_shop.model import validate_arrays

        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise InputError("not a job-shop instance", source=source, field="schema", value=found, expected=SCHEMA)
        values: dict[str, Any] = {}
        for f in fields(cls):
            if f.name == "known_bounds":
                values[f.name] = _bounds(data.get(f.name), source)
            elif f.name not in data:
                raise InputError("missing field", source=source, field=f.name, expected="a value")
            elif f.type == "IntArray":
                values[f.name] = _int_array(data, f.name, source)
            elif f.name in ("op_names", "resource_names"):
                values[f.name] = _names(data, f.name, source)
            elif f.name == "n_declared_resources":
                values[f.name] = int(_int_array({f.name: [data[f.name]]}, f.name, source)[0])
            elif not isinstance(data[f.name], str):
                raise InputError("not a text", source=source, field=f.name, value=data[f.name], expected="a string")
            else:
                values[f.name] = data[f.name]
        instance = cls(**values)
        validate_arrays(instance, source)
        return instance


def _running_sum(
    key: npt.NDArray[np.int64], value: npt.NDArray[np.int64]
) -> Callable[[npt.NDArray[np.int64], Literal["left", "right"]], npt.NDArray[np.int64]]:
    """The function of t that sums ``value`` over ``key < t`` (side "left") or ``key <= t`` (side "right")."""
    order = np.argsort(key, kind="stable")
    ordered, total = key[order], np.concatenate([np.zeros(1, np.int64), np.cumsum(value[order])])
    return lambda t, side: total[np.searchsorted(ordered, t, side)]


def topological_order(pred_ptr: IntArray, succ_ptr: IntArray, succ_op: IntArray) -> IntArray:
    """Operations in precedence order (Kahn); shorter than N when the arcs hold a cycle."""
    left, ptr, successor = np.diff(pred_ptr).tolist(), succ_ptr.tolist(), succ_op.tolist()
    order = [o for o, count in enumerate(left) if count == 0]
    for o in order:
        for s in successor[ptr[o] : ptr[o + 1]]:
            left[s] -= 1
            if left[s] == 0:
                order.append(s)
    return np.array(order, np.int32)


def _int_array(data: dict[str, Any], name: str, source: str | None) -> IntArray:
    """``data[name]`` as int32, or an InputError."""
    values = data.get(name)
    if not isinstance(values, list):
        kind = None if values is None else type(values).__name__
        raise InputError("not a list of integers", source=source, field=name, value=kind, expected="a list")
    for k, value in enumerate(values):
        if type(value) is not int or not -(2**31) <= value < 2**31:
            found = value if isinstance(value, int | float | str) else type(value).__name__
            raise InputError("not a 32-bit integer", source=source, field=f"{name}[{k}]", value=found)
    return np.array(values, np.int32)


def _names(data: dict[str, Any], name: str, source: str | None) -> tuple[str, ...]:
    """``data[name]`` as a tuple of strings, or an InputError."""
    values = data.get(name)
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise InputError("not a list of strings", source=source, field=name, value=type(values).__name__)
    return tuple(values)


def _bounds(data: Any, source: str | None) -> Bounds | None:
    """``data`` as Bounds (None stays None), or an InputError."""
    if data is None:
        return None
    if not isinstance(data, dict) or set(data) != {f.name for f in fields(Bounds)}:
        raise InputError(
            "bad bounds", source=source, field="known_bounds", value=data, expected="lower, upper, source, date"
        )
    numbers = [data["lower"], data["upper"]]
    if any(type(v) not in (int, float) or not abs(v) <= 2**53 for v in numbers) or numbers[0] > numbers[1]:
        raise InputError("bad bounds", source=source, field="known_bounds", value=numbers, expected="lower <= upper")
    if not all(isinstance(data[key], str) for key in ("source", "date")):
        raise InputError(
            "bad bounds", source=source, field="known_bounds", value=data, expected="source and date as text"
        )
    return Bounds(**data)
