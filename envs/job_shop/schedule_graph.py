"""The graph behind a schedule: local left shift, critical path and critical operations.

Nodes are operations in their chosen modes. An operation is held where it starts by its release, by a predecessor that
ends (plus lag) there, or by a resource that has no room for it just before; the last two are the *tight arcs*.

    >>> from orl.envs.job_shop.model import Mode, Model
    >>> m = Model("pair")
    >>> saw = m.unary("saw")
    >>> a, b = m.interval("a", [Mode(3, {saw: 1})]), m.interval("b", [Mode(2, {saw: 1})])
    >>> instance = m.compile()
    >>> late = Schedule(np.array([1, 9], np.int32), np.zeros(2, np.int32))
    >>> left_shift(instance, late).start.tolist()
    [0, 3]
    >>> critical_path(instance, left_shift(instance, late))
    [0, 1]
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.job_shop.instance import Schedule, ShopInstance


def left_shift(instance: ShopInstance, schedule: Schedule) -> Schedule:
    """Start every operation as early as it gets by sliding left; modes and the order on every machine stay.

    Operations are taken in the order of their starts and slide left until a release, a predecessor or a resource
    holds them: the result is semi-active (Sprecher, Kolisch, Drexl, EJOR 80, 1995). On resources of capacity 1 nothing
    can pass anything, so this is the longest path over the given machine orders; on a cumulative resource an operation
    may slide along free units beside others. No operation starts later than before, so no regular objective increases,
    and a second shift changes nothing. Each operation costs O(log N) plus the profile steps it slides over.

    Args:
        instance: The problem.
        schedule: A feasible schedule; operations with start -1 are missing and stay so.

    Returns:
        A new schedule, start and mode int32[N].

    Raises:
        InputError: an operation cannot keep its start because the schedule breaks a constraint. This is no full check
            (``instance.check`` is): an overlap that sliding left resolves goes unnoticed, late deadlines are kept.
    """
    duration, uses = _chosen(instance, schedule)
    start = np.asarray(schedule.start).astype(np.int64).tolist()
    profiles = [_Profile(c) for c in instance.capacity.tolist()]
    pred_ptr, pred_op, pred_lag = instance.pred_ptr.tolist(), instance.pred_op.tolist(), instance.pred_lag.tolist()
    release = instance.release.tolist()
    for o in _chronological(instance, start, duration):
        earliest = release[o]
        for e in range(pred_ptr[o], pred_ptr[o + 1]):
            p = pred_op[e]
            if start[p] >= 0:
                earliest = max(earliest, start[p] + duration[p] + pred_lag[e])
        for r, demand in uses[o]:
            earliest = max(earliest, profiles[r].blocked_until(demand, duration[o]))
        if earliest > start[o]:
            raise InputError(
                "an infeasible schedule cannot be shifted",
                source=instance.name,
                field=f"start of {instance.op_names[o]!r}",
                value=start[o],
                expected=f"at least {earliest}",
            )
        start[o] = earliest
        for r, demand in uses[o]:
            profiles[r].place(earliest, earliest + duration[o], demand)
    return Schedule(np.array(start, np.int32), np.array(schedule.mode, np.int32))


def critical_path(instance: ShopInstance, schedule: Schedule) -> list[int]:
    """One longest chain of tight arcs that ends at the makespan, operations in time order.

    In a left-shifted schedule the chain starts at a release (usually time 0): durations and lags along it, plus that
    release, add up to the makespan. In any other schedule it may start at an operation that waits for nothing. Where
    several chains are equally long, a predecessor is preferred to a resource. Missing operations (start -1) are left
    out; an empty schedule has an empty path.
    """
    arcs = _tight_arcs(instance, schedule)
    if not arcs.order:
        return []
    reach: dict[int, tuple[int, int]] = {}  # operation -> (start of the longest tight chain that ends in it, previous)
    for o in arcs.order:
        best = (arcs.start[o], -1)
        for p in arcs.before[o]:
            if reach[p][0] < best[0] or (best[1] < 0 and reach[p][0] == best[0]):
                best = (reach[p][0], p)
        reach[o] = best
    makespan = max(arcs.end[o] for o in arcs.order)
    last = min((o for o in arcs.order if arcs.end[o] == makespan), key=lambda o: (reach[o][0], o))
    path = [last]
    while reach[path[-1]][1] >= 0:
        path.append(reach[path[-1]][1])
    return path[::-1]


def critical_operations(instance: ShopInstance, schedule: Schedule) -> npt.NDArray[np.bool_]:
    """bool[N]: operations from which a chain of tight arcs leads to the makespan (the union of all critical paths)."""
    arcs = _tight_arcs(instance, schedule)
    critical = np.zeros(instance.n_ops, np.bool_)
    if not arcs.order:
        return critical
    makespan = max(arcs.end[o] for o in arcs.order)
    critical[[o for o in arcs.order if arcs.end[o] == makespan]] = True
    for o in reversed(arcs.order):
        if critical[o]:
            critical[arcs.before[o]] = True
    return critical


def chosen_modes(instance: ShopInstance, schedule: Schedule) -> npt.NDArray[np.int64]:
    """int64[N]: index of every operation's chosen mode among all modes of the instance, 0..Q-1.

    Raises:
        InputError: start or mode has not N entries, or an operation has no such mode.
    """
    start, mode = np.asarray(schedule.start), np.asarray(schedule.mode)
    for label, array in (("start", start), ("mode", mode)):
        if array.shape != (instance.n_ops,):
            expected = f"{instance.n_ops} integers"
            raise InputError("wrong shape", source=instance.name, field=label, value=array.shape, expected=expected)
    n_modes = np.diff(instance.mode_ptr)
    bad = np.flatnonzero((mode < 0) | (mode >= n_modes))
    if len(bad):
        o = int(bad[0])
        where, expected = f"mode of {instance.op_names[o]!r}", f"0..{n_modes[o] - 1}"
        raise InputError("no such mode", source=instance.name, field=where, value=int(mode[o]), expected=expected)
    return instance.mode_ptr[:-1].astype(np.int64) + mode


# ---- what holds an operation --------------------------------------------------------------------------------------
class _Arcs:
    """Tight arcs of a schedule: ``before[o]`` are the operations that hold ``o``; ``order`` is topological for them."""

    def __init__(self, order: list[int], start: list[int], end: list[int]) -> None:
        self.order, self.start, self.end = order, start, end
        self.before: dict[int, list[int]] = {o: [] for o in order}


def _tight_arcs(instance: ShopInstance, schedule: Schedule) -> _Arcs:
    duration, uses = _chosen(instance, schedule)
    start = np.asarray(schedule.start).astype(np.int64).tolist()
    end = [s + d for s, d in zip(start, duration, strict=True)]
    arcs = _Arcs(_chronological(instance, start, duration), start, end)
    profiles = [_Profile(c) for c in instance.capacity.tolist()]
    ended_at: dict[tuple[int, int], list[int]] = {}
    pred_ptr, pred_op, pred_lag = instance.pred_ptr.tolist(), instance.pred_op.tolist(), instance.pred_lag.tolist()
    seen = set()
    for o in arcs.order:
        before = arcs.before[o]
        for e in range(pred_ptr[o], pred_ptr[o + 1]):
            p = pred_op[e]
            if p in seen and end[p] + pred_lag[e] == start[o]:
                before.append(p)
        for r, demand in uses[o]:
            if profiles[r].blocked_until(demand, duration[o]) == start[o]:
                here = ended_at.get((r, start[o]), ())
                before.extend(k for k in here if k not in before and duration[k] + duration[o] > 0)
            profiles[r].place(start[o], end[o], demand)
            ended_at.setdefault((r, end[o]), []).append(o)
        seen.add(o)
    return arcs


def _chosen(instance: ShopInstance, schedule: Schedule) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """Duration and (resource, demand) uses of every operation in its chosen mode."""
    chosen = chosen_modes(instance, schedule)
    pairs = list(zip(instance.use_resource.tolist(), instance.use_demand.tolist(), strict=True))
    ptr = instance.use_ptr.tolist()
    return instance.mode_duration[chosen].tolist(), [pairs[ptr[q] : ptr[q + 1]] for q in chosen.tolist()]


def _chronological(instance: ShopInstance, start: list[int], duration: list[int]) -> list[int]:
    """Placed operations by start; at one time those of zero duration first, then in topological order."""
    placed = [o for o in instance.topological_order.tolist() if start[o] >= 0]
    return sorted(placed, key=lambda o: (start[o], duration[o] > 0))


class _Profile:
    """Units in use over time on one resource, filled by operations in the order of :func:`_chronological`.

    ``times[k]`` opens a segment with ``load[k]`` units in use; the last segment is empty and never ends.
    Operations of zero duration occupy nothing but must not lie inside what the capacity forbids.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.times: list[int] = [0]
        self.load: list[int] = [0]
        self.instants: list[tuple[int, int]] = []
        self.bars: list[tuple[int, int, int]] = []

    def blocked_until(self, demand: int, duration: int) -> int:
        """Earliest time from which ``demand`` more units are free for ever, as far as the profile is filled; else 0."""
        k = len(self.times) - 1
        while k >= 0 and self.load[k] + demand <= self.capacity:
            k -= 1
        blocked = self.times[k + 1] if k >= 0 else 0
        if duration > 0:
            for time, instant_demand in self.instants:
                if time > blocked and self._inside(time) + instant_demand + demand > self.capacity:
                    blocked = time
        return blocked

    def place(self, start: int, end: int, demand: int) -> None:
        """Take ``demand`` units during [start, end)."""
        if start == end:
            self.instants.append((start, demand))
            return
        first, last = self._split(start), self._split(end)
        for k in range(first, last):
            self.load[k] += demand
        self.bars.append((start, end, demand))

    def _split(self, time: int) -> int:
        k = bisect_left(self.times, time)
        if k == len(self.times) or self.times[k] != time:
            self.times.insert(k, time)
            self.load.insert(k, self.load[k - 1])
        return k

    def _inside(self, time: int) -> int:
        """Units of operations that run both before and after ``time``."""
        return sum(demand for start, end, demand in self.bars if start < time < end)
