"""Compiled instances and states as rows of a few flat arrays, which numba passes around at no cost.

An instance is one row of ``ints`` (int32), ``longs`` (int64) and ``floats`` (float64); a state is one row of ``state``
(int32), ``clock`` (int64) and ``mask`` (bool). :class:`Layout` holds the offset of every named array in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.job_shop.instance import OBJECTIVES, ShopInstance

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

INF = 2**30
"""A time later than any other (all horizons stay below)."""

MAX_UNITS = 1_000_000
"""Units of all resources together; the state of a copy holds one int32 each."""

# ---- longs: constants of an instance, in front of its int64 arrays
N_OPS, N_LINES, N_JOBS, N_RESOURCES, N_DECLARED, N_UNITS = range(6)
OBJECTIVE, ROOT_BOUND, DEAD_VALUE, UPPER_BOUND, MAX_DURATION, LONGEST_LINE, PLAIN = range(6, 13)
N_CONSTANTS = 13  # PLAIN: one mode and at most one successor an operation, machines only, no arcs between lines
# ---- floats
MEAN_DURATION, SCALE = range(2)
# ---- clock: scalars of a state, then the remaining load of each resource
NOW, NEXT_EVENT, N_FIXED, LOWER_BOUND, LAST_RESOURCE, DEAD, ELAPSED, ILLEGAL = range(8)
LOAD = 8
# ---- record of an operation in a state; one record lies in one cache line, which random access is bound by
START = 0  # start of a fixed operation, earliest start of an open one
END = 1  # end, or earliest end over modes
READY = 2  # release and predecessors
FLOOR = 3  # posted by no-ops (and by level-2 propagation)
MODE = 4  # chosen mode, -1 while open
PREDS_LEFT = 5  # open predecessors
RESOURCE_PRED = 6  # operation started before it on its first resource, -1
QUEUED = 7  # scratch of the propagation
OP = 8


class Layout(NamedTuple):
    """Offsets of the named arrays; ``max_ops`` and ``n_slots`` are sizes."""

    max_ops: int
    n_slots: int
    # int32 arrays of an instance (CSR layouts as in ShopInstance)
    mode_ptr: int
    mode_duration: int
    use_ptr: int
    use_resource: int
    use_demand: int
    unit_ptr: int  # [R+1] units of resource r are unit_ptr[r]:unit_ptr[r+1] in unit_free
    user_ptr: int  # [R+1] operations with a mode that uses r
    user_op: int
    mandatory_ptr: int  # [R+1] operations that use r in every mode
    mandatory_op: int
    succ_ptr: int
    succ_op: int
    succ_lag: int
    pred_count: int
    topological: int
    job: int
    deadline: int
    tail: int
    min_duration: int
    line_ptr: int
    line_op: int
    twin: int  # [L] nearest earlier line that is identical, else -1
    primary: int  # [Q] the declared resource of a mode that uses exactly one, else -1
    due: int
    weight: int
    root_start: int  # [N] earliest starts by releases and precedences
    root_work: int  # [L] sum of minimum durations of a line
    # int64 arrays of an instance
    mandatory_energy: int  # smallest duration x demand
    root_load: int  # [R] sum over modes of duration x demand
    first_start: int  # [J] earliest release of a job's operations
    # int32 arrays of a state
    ops: int  # [N, OP] one record an operation, see the columns START..QUEUED
    unit_free: int  # [units] sorted within a resource
    last_op: int  # [R] operation started last, -1
    position: int  # [L] operations of the line already fixed
    next_op: int  # [L] next operation of the line, -1 when it is finished
    work: int  # [L] remaining work of the line
    job_end: int  # [J] lower bound on the completion of the job
    slot_start: int  # [S] earliest start of the slot's operation and mode, -1: no operation left
    queue: int  # [N] scratch of the propagation
    latest: int  # [N] scratch of level 2
    hidden: int  # [S] scratch of symmetry breaking
    shown: int  # [L+1] what the window buffer shows: position of each line, least position; -1: to be written


_LONGS = ("mandatory_energy", "root_load", "first_start")
_STATE = Layout._fields[Layout._fields.index("ops") :]
_SCRATCH = ("queue", "latest", "hidden", "shown")
_INTS = Layout._fields[2 : Layout._fields.index("mandatory_energy")]


def instance_arrays(x: ShopInstance, upper_bound: int | None = None) -> dict[str, npt.NDArray[Any]]:
    """The named arrays of one instance, and its ``constants`` and ``floats``.

    ``upper_bound``: only better schedules are sought (propagation level 2).
    """
    n, n_resources = x.n_ops, x.n_resources
    use_mode = np.repeat(np.arange(len(x.mode_duration)), np.diff(x.use_ptr))
    use_op = np.repeat(np.arange(n), np.diff(x.mode_ptr))[use_mode]
    pairs = np.unique(x.use_resource.astype(np.int64) * n + use_op)
    resource, mandatory_op, energy = x.mandatory_work()
    by_resource = np.argsort(resource, kind="stable")
    load = np.zeros(n_resources, np.int64)
    np.add.at(load, x.use_resource, x.mode_duration[use_mode].astype(np.int64) * x.use_demand)
    first = np.full(x.n_jobs, INF, np.int64)
    np.minimum.at(first, x.job, x.release.astype(np.int64))
    units = _usable_units(x)
    if units.sum() > MAX_UNITS:
        raise InputError(
            "too many resource units",
            source=x.name,
            field="capacity",
            value=int(units.sum()),
            expected=f"at most {MAX_UNITS} in all: divide capacities and demands by a common divisor",
        )
    unit_ptr = _pointer(units)
    bound = int(x.lower_bound())
    worst = int(x.objective_value(np.full(n, x.horizon)))
    constants = np.zeros(N_CONSTANTS, np.int64)
    constants[N_OPS], constants[N_LINES], constants[N_JOBS] = n, x.n_lines, x.n_jobs
    constants[N_RESOURCES], constants[N_DECLARED] = n_resources, x.n_declared_resources
    constants[N_UNITS] = unit_ptr[-1]
    constants[OBJECTIVE], constants[ROOT_BOUND] = OBJECTIVES.index(x.objective), bound
    # a missed deadline counts as worse than any schedule; a pruned state as the upper bound it cannot beat
    constants[DEAD_VALUE] = worst + max(1, bound) if upper_bound is None else max(upper_bound, bound)
    constants[UPPER_BOUND] = INF if upper_bound is None else upper_bound
    constants[MAX_DURATION] = max(1, int(x.mode_duration.max()))
    constants[LONGEST_LINE] = int(np.diff(x.line_ptr).max())
    single = x.max_modes == 1 and bool((np.diff(x.succ_ptr) <= 1).all()) and bool((np.diff(unit_ptr) == 1).all())
    constants[PLAIN] = single and not _crossing_arcs(x)[0].any()
    return {
        "constants": constants,
        "floats": np.array([max(float(x.min_duration.mean()), 1e-9), max(1, bound)]),
        "mode_ptr": x.mode_ptr,
        "mode_duration": x.mode_duration,
        "use_ptr": x.use_ptr,
        "use_resource": x.use_resource,
        "use_demand": x.use_demand,
        "unit_ptr": unit_ptr,
        "user_ptr": _pointer(np.bincount(pairs // n, minlength=n_resources)),
        "user_op": pairs % n,
        "mandatory_ptr": _pointer(np.bincount(resource, minlength=n_resources)),
        "mandatory_op": mandatory_op[by_resource],
        "mandatory_energy": energy[by_resource],
        "succ_ptr": x.succ_ptr,
        "succ_op": x.succ_op,
        "succ_lag": x.succ_lag,
        "pred_count": np.diff(x.pred_ptr),
        "topological": x.topological_order,
        "job": x.job,
        "deadline": x.deadline,
        "tail": x.tail,
        "min_duration": x.min_duration,
        "line_ptr": x.line_ptr,
        "line_op": x.line_op,
        "twin": _twins(x),
        "primary": x.primary_resource,
        "due": x.due,
        "weight": x.weight,
        "root_start": x.earliest_start,
        "root_work": np.add.reduceat(x.min_duration[x.line_op].astype(np.int64), x.line_ptr[:-1]),
        "root_load": load,
        "first_start": first,
    }


def _pointer(counts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)])


def _crossing_arcs(x: ShopInstance) -> tuple[Flags, Ints, Ints]:
    """Which arcs (in succ order) join two lines, and the lines at their ends."""
    line_of = np.empty(x.n_ops, np.int32)
    line_of[x.line_op] = np.repeat(np.arange(x.n_lines), np.diff(x.line_ptr))
    source = line_of[np.repeat(np.arange(x.n_ops), np.diff(x.succ_ptr))]
    target = line_of[x.succ_op]
    return source != target, source, target


def _usable_units(x: ShopInstance) -> npt.NDArray[np.int64]:
    """[R] capacity, clipped to what all users together could ever take."""
    most = np.zeros(x.n_resources, np.int64)
    np.add.at(most, x.use_resource, x.use_demand.astype(np.int64))
    return np.maximum(1, np.minimum(x.capacity, most))


def _twins(x: ShopInstance) -> npt.NDArray[np.int32]:
    """[L] the nearest earlier line with the same modes, times, lags and weight and no arc to another line, else -1."""
    crossing, source, target = _crossing_arcs(x)
    entangled = {*source[crossing].tolist(), *target[crossing].tolist()}
    lines_of_job = np.bincount(x.job[x.line_op[x.line_ptr[:-1]]], minlength=x.n_jobs)
    twin = np.full(x.n_lines, -1, np.int32)
    seen: dict[tuple[bytes, ...], int] = {}
    for line in range(x.n_lines):
        ops = x.line_op[x.line_ptr[line] : x.line_ptr[line + 1]]
        job = x.job[ops[0]]
        if line in entangled or (x.objective != "makespan" and lines_of_job[job] > 1):
            continue
        parts = [x.release[ops], x.deadline[ops], np.diff(x.succ_ptr)[ops]]
        if x.objective != "makespan":
            parts.append(np.array([x.due[job], x.weight[job]]))
        for o in ops:
            modes = slice(x.mode_ptr[o], x.mode_ptr[o + 1])
            uses = slice(x.use_ptr[modes.start], x.use_ptr[modes.stop])
            lags = x.succ_lag[x.succ_ptr[o] : x.succ_ptr[o + 1]]
            parts += [x.mode_duration[modes], np.diff(x.use_ptr[modes.start : modes.stop + 1])]
            parts += [x.use_resource[uses], x.use_demand[uses], lags]
        key = tuple(np.ascontiguousarray(part).tobytes() for part in parts)
        twin[line] = seen.get(key, -1)
        seen[key] = line
    return twin


class Arena:
    """Instances in K rows and states of B copies, in one layout that grows when a larger instance arrives."""

    def __init__(
        self,
        instances: Sequence[ShopInstance],
        n_copies: int,
        n_lines: int,
        max_modes: int,
        upper_bound: int | None = None,
    ) -> None:
        self.upper_bound, self.n_lines, self.n_copies = upper_bound, n_lines, n_copies
        self.n_slots = n_slots = n_lines * max_modes
        self.instances = list(instances)
        self._arrays = [instance_arrays(instance, upper_bound) for instance in instances]
        self._sizes: dict[str, int] = {}
        self.state, self.clock = np.zeros((n_copies, 0), np.int32), np.zeros((n_copies, 0), np.int64)
        self.mask = np.zeros((n_copies, n_slots + 1), np.bool_)
        self.mask[:, -1] = True  # before the first reset, as in a terminal state
        self.row = np.zeros(n_copies, np.int64)  # the instance that each copy plays
        self._lay_out()

    def put(self, k: int, instance: ShopInstance) -> bool:
        """Replace row ``k``, keeping the states of all copies; True when everything had to be laid out anew."""
        self.instances[k] = instance
        self._arrays[k] = instance_arrays(instance, self.upper_bound)
        if all(len(value) <= self._sizes[name] for name, value in self._arrays[k].items()):
            self._write(k)
            return False
        self._lay_out()
        return True

    def operations(self, b: int, column: int) -> Ints:
        """A column of the operation records of copy ``b``: int32[number of operations], writable."""
        n = self.longs[self.row[b], N_OPS]
        return self.state[b, self.layout.ops : self.layout.ops + n * OP].reshape(n, OP)[:, column]

    def view(self, name: str, b: int, size: int) -> Ints:
        """The first ``size`` entries of a named state array of copy ``b``, writable."""
        offset = getattr(self.layout, name)
        return self.state[b, offset : offset + size]

    def snapshot(self, b: int) -> dict[str, npt.NDArray[Any]]:
        """Copies of the named state arrays of copy ``b`` (scratch left out), and its clock and mask."""
        arrays = {name: self.view(name, b, self._sizes[name]).copy() for name in _STATE if name not in _SCRATCH}
        return arrays | {"clock": self.clock[b].copy(), "mask": self.mask[b].copy()}

    def restore(self, b: int, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Write a snapshot into copy ``b``; arrays of another padding are cut or filled with zeros."""
        self.state[b] = 0
        self.view("shown", b, self._sizes["shown"])[:] = -1
        for name, value in arrays.items():
            target = getattr(self, name)[b] if name in ("clock", "mask") else self.view(name, b, self._sizes[name])
            shared = min(len(target), len(value))
            target[:] = 0
            target[:shared] = value[:shared]

    def _lay_out(self) -> None:
        """Choose offsets that hold every row and move states into them."""
        old, old_sizes = getattr(self, "layout", None), self._sizes
        largest = {name: max(len(a[name]) for a in self._arrays) for name in self._arrays[0]}
        largest = {name: max(size, old_sizes.get(name, 0)) for name, size in largest.items()}
        n, resources = largest["pred_count"], largest["root_load"]
        units = max(int(a["constants"][N_UNITS]) for a in self._arrays)
        sizes = dict.fromkeys(_STATE, n) | {
            "ops": n * OP,
            "unit_free": max(units, old_sizes.get("unit_free", 0)),
            "last_op": resources,
            "position": largest["root_work"],
            "next_op": largest["root_work"],
            "work": largest["root_work"],
            "job_end": largest["due"],
            "slot_start": self.n_slots,
            "hidden": self.n_slots,
            "shown": self.n_lines + 1,
        }
        self._sizes = largest | sizes
        offsets = {"max_ops": n, "n_slots": self.n_slots}
        widths = []
        for names, first in ((_INTS, 0), (_LONGS, N_CONSTANTS), (_STATE, 0)):
            for name in names:
                offsets[name] = first
                first += self._sizes[name]
            widths.append(first)
        self.layout = Layout(**offsets)
        k = len(self.instances)
        self.ints, self.longs = np.zeros((k, widths[0]), np.int32), np.zeros((k, widths[1]), np.int64)
        self.floats = np.zeros((k, 2))
        for row in range(k):
            self._write(row)
        state, clock = self.state, self.clock
        self.state = np.zeros((self.n_copies, widths[2]), np.int32)
        self.clock = np.zeros((self.n_copies, LOAD + resources), np.int64)
        if old is not None:
            self.clock[:, : clock.shape[1]] = clock
            for name in _STATE:
                at, before, size = getattr(self.layout, name), getattr(old, name), old_sizes[name]
                self.state[:, at : at + size] = state[:, before : before + size]

    def _write(self, k: int) -> None:
        self.longs[k, :N_CONSTANTS] = self._arrays[k]["constants"]
        self.floats[k] = self._arrays[k]["floats"]
        for names, rows in ((_INTS, self.ints), (_LONGS, self.longs)):
            for name in names:
                value = self._arrays[k][name]
                offset = getattr(self.layout, name)
                rows[k, offset : offset + len(value)] = value
