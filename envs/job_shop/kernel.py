"""The transition of the shop-scheduling MDP, compiled with numba: chronological generation of schedules.

Functions work on one copy: ``p``, ``longs``, ``floats`` are the data of its instance, ``s`` and ``clock`` its state,
``mask`` its action mask; ``L`` says where each named array starts in ``p`` and ``s`` (see ``arena.py``).
``oracle.py`` states the same MDP in plain numpy.

Time moves only forward: an operation is started at the clock ``now`` (the least earliest start over available slots),
so all capacity still taken after ``now`` belongs to running operations. A resource of capacity c is therefore a sorted
list of c unit-free times, and the earliest time with d free units is its d-th entry (a machine: c = d = 1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from orl.common.kernel_cache import drop_stale_kernels
from orl.envs.job_shop.arena import (
    DEAD,
    DEAD_VALUE,
    ELAPSED,
    END,
    FLOOR,
    ILLEGAL,
    INF,
    LAST_RESOURCE,
    LOAD,
    LOWER_BOUND,
    MAX_DURATION,
    MODE,
    N_DECLARED,
    N_FIXED,
    N_LINES,
    N_OPS,
    N_RESOURCES,
    NEXT_EVENT,
    NOW,
    OBJECTIVE,
    OP,
    PLAIN,
    PREDS_LEFT,
    QUEUED,
    READY,
    RESOURCE_PRED,
    ROOT_BOUND,
    SCALE,
    START,
    Flags,
    Floats,
    Ints,
    Layout,
    Longs,
)
from orl.envs.job_shop.propagation import (
    earliest,
    objective_bound,
    propagate,
    push,
    push_plain,
    raise_chain,
    raise_end,
    resource_bounds,
    tighten,
)

drop_stale_kernels()

REWARD_LOWER_BOUND, REWARD_MAKESPAN, REWARD_IDLE = range(3)


class Config(NamedTuple):
    """What the MDP does with a problem (all ints, so that one compiled kernel serves every setting)."""

    noop: int
    symmetry_breaking: int
    propagation: int
    reward: int
    max_modes: int  # slots a line
    strict: int = 0  # refuse illegal actions instead of replacing them


@njit(cache=True, forceinline=True)
def _dispatch(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, line: int, m: int) -> None:
    """Start the next operation of ``line`` in its mode m at ``now``."""
    o = s[L.next_op + line]
    q = p[L.mode_ptr + o] + m
    now = clock[NOW]
    duration = p[L.mode_duration + q]
    end = now + duration
    s[L.ops + OP * o + MODE] = m
    s[L.ops + OP * o + START] = now
    raise_end(L, p, longs, s, clock, o, end)
    s[L.position + line] += 1
    at = p[L.line_ptr + line] + s[L.position + line]
    s[L.next_op + line] = p[L.line_op + at] if at < p[L.line_ptr + line + 1] else -1
    s[L.work + line] -= p[L.min_duration + o]
    clock[N_FIXED] += 1
    clock[LAST_RESOURCE] = -1 if duration == 0 else max(clock[LAST_RESOURCE], p[L.primary + q])
    for any_mode in range(p[L.mode_ptr + o], p[L.mode_ptr + o + 1]):
        for u in range(p[L.use_ptr + any_mode], p[L.use_ptr + any_mode + 1]):
            clock[LOAD + p[L.use_resource + u]] -= p[L.mode_duration + any_mode] * np.int64(p[L.use_demand + u])
    first = p[L.use_ptr + q]
    for u in range(first, p[L.use_ptr + q + 1]):
        r = p[L.use_resource + u]
        if u == first:
            s[L.ops + OP * o + RESOURCE_PRED] = s[L.last_op + r]
        s[L.last_op + r] = o
    if longs[PLAIN] != 0:
        push_plain(L, p, longs, s, clock, o, q, end)
    else:
        push(L, p, longs, s, clock, o, q, end)


@njit(cache=True, forceinline=True)
def _wait(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs) -> None:
    """The no-op: every available operation that could start before the next event waits for it."""
    event = clock[NEXT_EVENT]
    clock[LAST_RESOURCE] = -1
    count = 0
    for line in range(longs[N_LINES]):
        o = s[L.next_op + line]
        if o < 0 or s[L.ops + OP * o + START] >= event or s[L.ops + OP * o + PREDS_LEFT] > 0:
            continue
        s[L.ops + OP * o + FLOOR] = event
        if longs[PLAIN] != 0:
            raise_chain(L, p, longs, s, clock, o, event)
        else:
            s[L.ops + OP * o + QUEUED] = 1
            s[L.queue + count] = o
            count += 1
    propagate(L, p, longs, s, clock, 0, count)


@njit(cache=True, forceinline=True)
def _refresh(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, mask: Flags, c: Config) -> None:
    """Bounds of the chosen level, then clock, next event and action mask."""
    if longs[OBJECTIVE] != 0:
        objective_bound(L, p, longs, s, clock)
    elif c.propagation >= 1:
        if c.propagation >= 2 and clock[DEAD] == 0:
            tighten(L, p, longs, s, clock)
        resource_bounds(L, p, longs, s, clock)
    n_slots = L.n_slots
    if clock[DEAD] != 0 or clock[N_FIXED] == longs[N_OPS]:
        s[L.slot_start : L.slot_start + n_slots] = -1
        mask[:n_slots] = False
        mask[n_slots] = True
        clock[NEXT_EVENT] = INF
        latest = clock[NOW]
        for o in range(longs[N_OPS]):
            if s[L.ops + OP * o + MODE] >= 0:
                latest = max(latest, s[L.ops + OP * o + END])
        clock[NOW] = latest
        return
    previous = clock[NOW]
    if longs[PLAIN] != 0 and c.max_modes == 1:
        now, event = _scan_plain_lines(L, longs, s, mask)
    else:
        now, event = _scan_lines(L, p, longs, s, clock, mask, c)
        for slot in range(n_slots):
            mask[slot] = mask[slot] & (s[L.slot_start + slot] == now)
    clock[NOW], clock[NEXT_EVENT] = now, event
    if now > previous:
        clock[LAST_RESOURCE] = -1
    mask[n_slots] = c.noop != 0 and event < INF
    if c.symmetry_breaking != 0:
        _hide_symmetric_slots(L, p, longs, s, clock, mask, c)


@njit(cache=True, forceinline=True)
def _scan_plain_lines(L: Layout, longs: Longs, s: Ints, mask: Flags) -> tuple[int, int]:
    """:func:`_scan_lines` of a plain instance, where every next operation is available; marks those that start now."""
    n_lines = longs[N_LINES]
    now = INF
    for line in range(n_lines):
        o = s[L.next_op + line]
        t = s[L.ops + OP * o + START] if o >= 0 else -1
        s[L.slot_start + line] = t
        now = min(now, t if o >= 0 else INF)
    event = INF
    for line in range(n_lines):
        t = s[L.slot_start + line]
        mask[line] = t == now
        event = min(event, t if t > now else INF)
    return now, event


@njit(cache=True, forceinline=True)
def _scan_lines(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, mask: Flags, c: Config) -> tuple[int, int]:
    """Earliest starts of all slots; the two smallest distinct ones of the available slots, which get marked."""
    now, event = INF, INF
    for line in range(longs[N_LINES]):
        slot = line * c.max_modes
        for m in range(c.max_modes):
            s[L.slot_start + slot + m] = -1
            mask[slot + m] = False
        o = s[L.next_op + line]
        if o < 0:
            continue
        available = s[L.ops + OP * o + PREDS_LEFT] == 0
        n_modes = p[L.mode_ptr + o + 1] - p[L.mode_ptr + o]
        for m in range(n_modes):
            t = s[L.ops + OP * o + START] if n_modes == 1 else earliest(L, p, longs, s, clock, o, p[L.mode_ptr + o] + m)
            s[L.slot_start + slot + m] = t
            mask[slot + m] = available
            if available and t != now:
                event = min(event, max(now, t))
                now = min(now, t)
    return now, event


@njit(cache=True)
def _hide_symmetric_slots(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, mask: Flags, c: Config) -> None:
    """Dispatches at one time on different resources come in index order, and of identical lines at equal progress
    and equal start only the first may go; nothing is hidden where that would leave no action."""
    now, last = clock[NOW], clock[LAST_RESOURCE]
    n_left = 1 if mask[L.n_slots] else 0
    for slot in range(L.n_slots):
        if not mask[slot]:
            continue
        line, m = slot // c.max_modes, slot % c.max_modes
        o = s[L.next_op + line]
        resource = p[L.primary + p[L.mode_ptr + o] + m]
        hidden = 0 <= resource < last
        other = p[L.twin + line]
        while other >= 0 and not hidden:
            same_progress = s[L.position + other] == s[L.position + line]
            hidden = same_progress and s[L.slot_start + other * c.max_modes + m] == now
            other = p[L.twin + other]
        s[L.hidden + slot] = hidden
        if not hidden:
            n_left += 1
    if n_left > 0:
        for slot in range(L.n_slots):
            mask[slot] = mask[slot] and s[L.hidden + slot] == 0


@njit(cache=True, forceinline=True)
def _idle_time(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, before: int) -> int:
    """Machine time left idle between ``before`` and ``now``, summed over declared resources of capacity 1."""
    idle = 0
    now = clock[NOW]
    for r in range(longs[N_DECLARED]):
        if p[L.unit_ptr + r + 1] - p[L.unit_ptr + r] == 1:
            idle += max(0, now - max(before, s[L.unit_free + p[L.unit_ptr + r]]))
    return idle


@njit(cache=True)
def reset_one(L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, mask: Flags, c: Config) -> None:
    """Put a copy at the root of its instance."""
    clock[:] = 0
    clock[LOWER_BOUND] = longs[ROOT_BOUND]
    clock[LAST_RESOURCE] = -1
    mask[:] = False
    s[:] = 0
    s[L.slot_start : L.slot_start + L.n_slots] = -1
    s[L.shown : L.shown + L.n_slots // c.max_modes + 1] = -1
    for r in range(longs[N_RESOURCES]):
        s[L.last_op + r] = -1
        clock[LOAD + r] = longs[L.root_load + r]
    for o in range(longs[N_OPS]):
        s[L.ops + OP * o + START] = p[L.root_start + o]
        s[L.ops + OP * o + READY] = p[L.root_start + o]
        s[L.ops + OP * o + MODE] = -1
        s[L.ops + OP * o + RESOURCE_PRED] = -1
        s[L.ops + OP * o + PREDS_LEFT] = p[L.pred_count + o]
        raise_end(L, p, longs, s, clock, o, p[L.root_start + o] + p[L.min_duration + o])
    for line in range(longs[N_LINES]):
        s[L.work + line] = p[L.root_work + line]
        s[L.next_op + line] = p[L.line_op + p[L.line_ptr + line]]
    _refresh(L, p, longs, s, clock, mask, c)


@njit(cache=True, forceinline=True)
def step_one(
    L: Layout, p: Ints, longs: Longs, floats: Floats, s: Ints, clock: Longs, mask: Flags, c: Config, action: int
) -> float:
    """Apply a legal action; returns the reward. The episode is over when :func:`finished` says so."""
    now, bound = clock[NOW], clock[LOWER_BOUND]
    clock[ELAPSED] += 1
    duration = 0
    if action == L.n_slots:
        _wait(L, p, longs, s, clock)
    else:
        line, m = action // c.max_modes, action % c.max_modes
        o = s[L.next_op + line]
        duration = p[L.mode_duration + p[L.mode_ptr + o] + m]
        _dispatch(L, p, longs, s, clock, line, m)
    _refresh(L, p, longs, s, clock, mask, c)
    if c.reward == REWARD_IDLE:
        return (duration - _idle_time(L, p, longs, s, clock, now)) / longs[MAX_DURATION]
    value = clock[LOWER_BOUND]
    if clock[DEAD] != 0:
        value = max(value, longs[DEAD_VALUE])
    if c.reward == REWARD_LOWER_BOUND:
        return (bound - value) / floats[SCALE]
    return -value / floats[SCALE] if finished(longs, clock) else 0.0


@njit(cache=True)
def finished(longs: Longs, clock: Longs) -> bool:
    """All operations started, or a dead end (missed deadline, or no better schedule than the upper bound left)."""
    return clock[N_FIXED] == longs[N_OPS] or clock[DEAD] != 0


@njit(cache=True)
def legal_action(mask: Flags, action: int) -> int:
    """The action itself when legal, else the lowest legal one (the remap rule)."""
    if 0 <= action < len(mask) and mask[action]:
        return action
    for a in range(len(mask)):
        if mask[a]:
            return a
    return -1


@njit(cache=True, forceinline=True)
def unpack(d: Longs) -> tuple[Layout, Config]:
    """Layout and config from one int64 array: cheaper to hand over from Python than a tuple of 57 integers.

    Spelled out because numba builds a tuple from an array of variable length several times slower.
    """
    # fmt: off
    layout = Layout(
        d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12],
        d[13], d[14], d[15], d[16], d[17], d[18], d[19], d[20], d[21], d[22], d[23], d[24], d[25],
        d[26], d[27], d[28], d[29], d[30], d[31], d[32], d[33], d[34], d[35], d[36], d[37], d[38],
        d[39], d[40], d[41], d[42], d[43],
    )
    # fmt: on
    return layout, Config(d[44], d[45], d[46], d[47], d[48], d[49])


@njit(cache=True)
def step_batch(
    packed: Longs,
    ints: Ints,
    longs: Longs,
    floats: Floats,
    row: Longs,
    state: Ints,
    clock: Longs,
    mask: Flags,
    actions: Longs,
    active: Flags,
    reward: Floats,
    terminated: Flags,
) -> int:
    """Step every active copy; returns -1.

    Illegal actions are replaced by the lowest legal one and counted in ``clock[:, ILLEGAL]``; with ``strict`` nothing
    is stepped and the first copy whose action is illegal is returned.

    Args:
        ints, longs, floats: [K, ...] instance data; row: int64[B], the instance of each copy.
        state, clock, mask: [B, ...] state of the copies.
        actions: int64[B].
        active: bool[B]; copies that are left alone get reward 0 and keep their ``terminated`` flag.
        reward, terminated: float64[B], bool[B], written.
    """
    L, c = unpack(packed)
    if c.strict != 0:
        for b in range(len(actions)):
            if active[b] and legal_action(mask[b], actions[b]) != actions[b]:
                return b
    for b in range(len(actions)):
        reward[b] = 0.0
        if active[b]:
            k = row[b]
            action = legal_action(mask[b], actions[b])
            if action != actions[b]:
                clock[b, ILLEGAL] += 1
            reward[b] = step_one(L, ints[k], longs[k], floats[k], state[b], clock[b], mask[b], c, action)
            terminated[b] = finished(longs[k], clock[b])
    return -1


@njit(cache=True)
def reset_batch(
    packed: Longs,
    ints: Ints,
    longs: Longs,
    row: Longs,
    state: Ints,
    clock: Longs,
    mask: Flags,
    which: Flags,
    terminated: Flags,
) -> int:
    """Put the marked copies at their roots; returns the last whose root is a dead end, or -1."""
    L, c = unpack(packed)
    dead = -1
    for b in range(len(row)):
        if which[b]:
            reset_one(L, ints[row[b]], longs[row[b]], state[b], clock[b], mask[b], c)
            terminated[b] = False
            if clock[b, DEAD] != 0:
                dead = b
    return dead
