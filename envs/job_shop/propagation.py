"""What the start of an operation changes: earliest starts, ends and bounds, compiled with numba (see ``kernel.py``)."""

from __future__ import annotations

from numba import njit

from orl.common.kernel_cache import drop_stale_kernels
from orl.envs.job_shop.arena import (
    DEAD,
    END,
    FLOOR,
    INF,
    LOWER_BOUND,
    MODE,
    N_JOBS,
    N_OPS,
    N_RESOURCES,
    OBJECTIVE,
    OP,
    PREDS_LEFT,
    QUEUED,
    READY,
    START,
    UPPER_BOUND,
    Ints,
    Layout,
    Longs,
)

drop_stale_kernels()


@njit(cache=True, forceinline=True)
def earliest(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, o: int, q: int) -> int:
    """Earliest start of operation o in mode q (closed form of the propagation fixpoint)."""
    t = max(s[L.ops + OP * o + READY], s[L.ops + OP * o + FLOOR])
    for u in range(p[L.use_ptr + q], p[L.use_ptr + q + 1]):
        free = s[L.unit_free + p[L.unit_ptr + p[L.use_resource + u]] + p[L.use_demand + u] - 1]
        if free > t:
            t = free
    return t


@njit(cache=True, forceinline=True)
def raise_end(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, o: int, end: int) -> None:
    """Record a larger end (bound) of o in the bounds, and note a missed deadline."""
    s[L.ops + OP * o + END] = end
    if longs[OBJECTIVE] == 0:
        if end > clock[LOWER_BOUND]:
            clock[LOWER_BOUND] = end
    elif end > s[L.job_end + p[L.job + o]]:
        s[L.job_end + p[L.job + o]] = end
    if end > p[L.deadline + o]:
        clock[DEAD] = 1


@njit(cache=True)
def propagate(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, head: int, count: int) -> None:
    """Recompute the queued open operations and everything downstream until nothing changes (FIFO over a ring)."""
    n = L.max_ops
    behind = head + count if head + count < n else head + count - n
    while count > 0:
        o = s[L.queue + head]
        head = head + 1 if head + 1 < n else 0
        count -= 1
        s[L.ops + OP * o + QUEUED] = 0
        if s[L.ops + OP * o + MODE] >= 0:
            continue
        start, end = INF, INF
        for q in range(p[L.mode_ptr + o], p[L.mode_ptr + o + 1]):
            t = earliest(L, p, longs, s, clock, o, q)
            start = min(start, t)
            end = min(end, t + p[L.mode_duration + q])
        s[L.ops + OP * o + START] = start
        if end > s[L.ops + OP * o + END]:
            raise_end(L, p, longs, s, clock, o, end)
            for e in range(p[L.succ_ptr + o], p[L.succ_ptr + o + 1]):
                x = p[L.succ_op + e]
                if end + p[L.succ_lag + e] > s[L.ops + OP * x + READY]:
                    s[L.ops + OP * x + READY] = end + p[L.succ_lag + e]
                    if s[L.ops + OP * x + QUEUED] == 0:
                        s[L.ops + OP * x + QUEUED] = 1
                        s[L.queue + behind] = x
                        behind = behind + 1 if behind + 1 < n else 0
                        count += 1


@njit(cache=True, forceinline=True)
def take_units(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, r: int, demand: int, end: int) -> None:
    """Occupy the ``demand`` first free units of r until ``end``; the list stays sorted."""
    first, last = p[L.unit_ptr + r], p[L.unit_ptr + r + 1]
    i = first + demand
    while i < last and s[L.unit_free + i] < end:
        s[L.unit_free + i - demand] = s[L.unit_free + i]
        i += 1
    for j in range(i - demand, i):
        s[L.unit_free + j] = end


@njit(cache=True, forceinline=True)
def push_plain(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, o: int, q: int, end: int) -> None:
    """What starting o changes in a plain instance: its successor's chain, and the chains through its machines."""
    for e in range(p[L.succ_ptr + o], p[L.succ_ptr + o + 1]):
        x = p[L.succ_op + e]
        s[L.ops + OP * x + PREDS_LEFT] -= 1
        s[L.ops + OP * x + READY] = max(s[L.ops + OP * x + READY], end + p[L.succ_lag + e])
        raise_chain(L, p, longs, s, clock, x, end + p[L.succ_lag + e])
    for u in range(p[L.use_ptr + q], p[L.use_ptr + q + 1]):
        r = p[L.use_resource + u]
        s[L.unit_free + p[L.unit_ptr + r]] = end
        for i in range(p[L.user_ptr + r], p[L.user_ptr + r + 1]):
            x = p[L.user_op + i]
            if s[L.ops + OP * x + MODE] < 0:
                raise_chain(L, p, longs, s, clock, x, end)


@njit(cache=True, forceinline=True)
def raise_chain(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, o: int, start: int) -> None:
    """Raise the earliest start of a single-mode operation, and on along its chain while that changes anything.

    Equal to :func:`propagate` where every operation has one mode and at most one successor: all bounds on a start
    only grow, so the largest so far is the start.
    """
    while s[L.ops + OP * o + START] < start:
        end = start + p[L.min_duration + o]
        s[L.ops + OP * o + START] = start
        raise_end(L, p, longs, s, clock, o, end)
        e = p[L.succ_ptr + o]
        if e == p[L.succ_ptr + o + 1]:
            return
        o = p[L.succ_op + e]
        start = end + p[L.succ_lag + e]
        s[L.ops + OP * o + READY] = max(s[L.ops + OP * o + READY], start)


@njit(cache=True)
def push(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, o: int, q: int, end: int) -> None:
    """What starting o in mode q changes in general: its successors, and the users of its resources."""
    count = 0
    for e in range(p[L.succ_ptr + o], p[L.succ_ptr + o + 1]):
        x = p[L.succ_op + e]
        s[L.ops + OP * x + PREDS_LEFT] -= 1
        s[L.ops + OP * x + READY] = max(s[L.ops + OP * x + READY], end + p[L.succ_lag + e])
        if s[L.ops + OP * x + QUEUED] == 0:
            s[L.ops + OP * x + QUEUED] = 1
            s[L.queue + count] = x
            count += 1
    for u in range(p[L.use_ptr + q], p[L.use_ptr + q + 1]):
        r = p[L.use_resource + u]
        take_units(L, p, longs, s, clock, r, p[L.use_demand + u], end)
        for i in range(p[L.user_ptr + r], p[L.user_ptr + r + 1]):
            x = p[L.user_op + i]
            record = L.ops + OP * x
            if s[record + MODE] < 0 and s[record + START] < end and s[record + QUEUED] == 0:
                s[record + QUEUED] = 1
                s[L.queue + count] = x
                count += 1
    propagate(L, p, longs, s, clock, 0, count)


@njit(cache=True)
def resource_bounds(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs) -> None:
    """Level 1: per resource, least head + remaining work / capacity + least tail (makespan only)."""
    for r in range(longs[N_RESOURCES]):
        head, tail, energy = INF, INF, 0
        for i in range(p[L.mandatory_ptr + r], p[L.mandatory_ptr + r + 1]):
            o = p[L.mandatory_op + i]
            if s[L.ops + OP * o + MODE] < 0:
                head = min(head, s[L.ops + OP * o + START])
                tail = min(tail, p[L.tail + o])
                energy += longs[L.mandatory_energy + i]
        if energy > 0:
            capacity = p[L.unit_ptr + r + 1] - p[L.unit_ptr + r]
            bound = head + (energy + capacity - 1) // capacity + tail
            if bound > clock[LOWER_BOUND]:
                clock[LOWER_BOUND] = bound


@njit(cache=True)
def tighten(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs) -> None:
    """Level 2: latest starts under the upper bound and the pair rule on machines, to a fixpoint (makespan only).

    On a machine, if ``est(i) + dur(i) > lst(j)`` then i cannot precede j, so j comes first. An empty domain marks the
    state as a dead end.
    """
    n = longs[N_OPS]
    limit = longs[UPPER_BOUND] - 1
    for o in range(n):
        latest = limit - p[L.tail + o] - p[L.min_duration + o]
        s[L.latest + o] = min(latest, p[L.deadline + o] - p[L.min_duration + o])
    changed = True
    while changed and clock[DEAD] == 0:
        changed = False
        for r in range(longs[N_RESOURCES]):
            if p[L.unit_ptr + r + 1] - p[L.unit_ptr + r] != 1:
                continue
            for a in range(p[L.mandatory_ptr + r], p[L.mandatory_ptr + r + 1]):
                i = p[L.mandatory_op + a]
                if s[L.ops + OP * i + MODE] >= 0:
                    continue
                for c in range(p[L.mandatory_ptr + r], p[L.mandatory_ptr + r + 1]):
                    j = p[L.mandatory_op + c]
                    if (
                        i == j
                        or s[L.ops + OP * j + MODE] >= 0
                        or p[L.min_duration + i] == 0
                        or p[L.min_duration + j] == 0
                    ):
                        continue
                    if s[L.ops + OP * i + END] > s[L.latest + j]:
                        if s[L.ops + OP * j + END] > s[L.ops + OP * i + START]:
                            s[L.ops + OP * i + FLOOR] = max(s[L.ops + OP * i + FLOOR], s[L.ops + OP * j + END])
                            s[L.ops + OP * i + QUEUED] = 1
                            s[L.queue + 0] = i
                            propagate(L, p, longs, s, clock, 0, 1)
                            changed = True
                        if s[L.latest + i] - p[L.min_duration + j] < s[L.latest + j]:
                            s[L.latest + j] = s[L.latest + i] - p[L.min_duration + j]
                            changed = True
        for at in range(n - 1, -1, -1):
            o = p[L.topological + at]
            for e in range(p[L.succ_ptr + o], p[L.succ_ptr + o + 1]):
                latest = s[L.latest + p[L.succ_op + e]] - p[L.succ_lag + e] - p[L.min_duration + o]
                if latest < s[L.latest + o]:
                    s[L.latest + o] = latest
                    changed = True
            if s[L.ops + OP * o + MODE] < 0 and s[L.ops + OP * o + START] > s[L.latest + o]:
                clock[DEAD] = 1
        if clock[LOWER_BOUND] > limit:
            clock[DEAD] = 1


@njit(cache=True)
def objective_bound(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs) -> None:
    """Lower bound on a job-based objective from the job completion bounds (exact when the schedule is complete)."""
    total = 0
    for j in range(longs[N_JOBS]):
        if longs[OBJECTIVE] == 1:
            total += s[L.job_end + j] - longs[L.first_start + j]
        else:
            total += p[L.weight + j] * max(0, s[L.job_end + j] - p[L.due + j])
    clock[LOWER_BOUND] = max(total, clock[LOWER_BOUND])
