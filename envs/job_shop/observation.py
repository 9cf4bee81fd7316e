"""Observations of the shop-scheduling MDP: spaces, and numba writers that fill preallocated buffers.

Times are given relative to ``now`` and divided by the mean (minimum) duration of the instance, so that no row depends
on padding or on other copies. Rows of padded lines are zero (window: marked as padding).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from numba import njit

from orl.envs.job_shop.arena import (
    END,
    LOAD,
    LONGEST_LINE,
    LOWER_BOUND,
    MEAN_DURATION,
    MODE,
    N_DECLARED,
    N_LINES,
    N_OPS,
    NOW,
    OP,
    PREDS_LEFT,
    READY,
    RESOURCE_PRED,
    START,
    Flags,
    Floats,
    Ints,
    Layout,
    Longs,
)
from orl.envs.job_shop.kernel import Config, step_batch, unpack
from orl.envs.job_shop.sizes import Sizes

ObservationKind = Literal["window", "compact", "graph"]
Normalization = Literal["scale", "reference"]

COMPACT_FEATURES = (
    "legal",
    "start - now",
    "duration",
    "remaining work of the line",
    "remaining operations of the line",
    "remaining load of the machine",
    "wait",
    "tail",
    "slack",
)
"""Features of a slot. Times are divided by the mean duration; work and tail also by the length of the longest line,
the load also by the operations per resource; remaining operations is a fraction of the longest line. ``wait`` is how
long the operation has been ready, ``slack`` how far its path stays below the lower bound of the state."""

WINDOW_KEYS = ("interval_rep", "index_interval", "start_end_tokens", "attention_interval_mask", "next_machine")
NODE_FEATURES = ("fixed", "available", "start - now", "duration", "tail", "slack", "legal")


def observation_space(
    kind: ObservationKind,
    largest: Sizes,
    window: int,
    observe_mask: bool,
    observe_resource_mask: bool,
) -> spaces.Space:
    """The space of ``kind`` for instances up to the sizes of ``largest``."""
    lines, slots = largest.lines, largest.lines * largest.max_modes
    boxes: dict[str, spaces.Space] = {}
    if kind == "window":
        low, high = np.zeros((lines, window, 4), np.float32), np.ones((lines, window, 4), np.float32)
        low[:, :, 1:3], high[:, :, 1:3] = -np.inf, np.inf
        boxes["interval_rep"] = spaces.Box(low, high)
        boxes["index_interval"] = spaces.Box(0, largest.longest_line + 1, (lines, window), np.float32)
        boxes["start_end_tokens"] = spaces.Box(0, 2, (lines, window), np.float32)
        boxes["attention_interval_mask"] = spaces.Box(0, 1, (lines, window), np.float32)
        boxes["next_machine"] = spaces.MultiDiscrete(np.full(slots, largest.resources + 1))
        if observe_resource_mask:
            boxes["job_resource_mask"] = spaces.Box(0, 1, (slots + 1, slots + 1), np.float32)
    elif kind == "compact":
        box = spaces.Box(-np.inf, np.inf, (slots * len(COMPACT_FEATURES),), np.float32)
        if not observe_mask:
            return box
        boxes["slots"] = box
    else:
        n_edges = largest.arcs + largest.ops
        boxes["node_features"] = spaces.Box(-np.inf, np.inf, (largest.ops, len(NODE_FEATURES)), np.float32)
        boxes["edge_index"] = spaces.Box(-1, largest.ops, (2, n_edges), np.float32)
    if observe_mask:
        boxes["action_mask"] = spaces.MultiBinary(slots + 1)
    return spaces.Dict(boxes)


def make_buffers(space: spaces.Space, n_copies: int) -> dict[str, npt.NDArray[Any]]:
    """Zeroed buffers [B, ...] for each key of ``space`` (a lone Box is stored under ``slots``)."""
    boxes = space.spaces if isinstance(space, spaces.Dict) else {"slots": space}
    return {key: np.zeros((n_copies, *(box.shape or ())), box.dtype) for key, box in boxes.items()}


@njit(cache=True)
def write_window(
    packed: Longs,
    ints: Ints,
    longs_of: Longs,
    floats: Floats,
    row: Longs,
    state: Ints,
    clock_of: Longs,
    mask_of: Flags,
    which: Flags,
    interval_rep: npt.NDArray[np.float32],
    index_interval: npt.NDArray[np.float32],
    tokens: npt.NDArray[np.float32],
    padding: npt.NDArray[np.float32],
    next_machine: npt.NDArray[np.int64],
    resource_mask: npt.NDArray[np.float32],
    relative: bool,
) -> None:
    """Window observation of the marked copies.

    Slot 0 of a line holds its last fixed operation, or the start token; then its next operations in order; then end
    tokens, of which only the first is visible. ``relative=False`` writes absolute, unscaled times. Rows whose line
    has not moved since the last call only get new times (``shown`` remembers). ``resource_mask`` may have length 0.
    """
    L, c = unpack(packed)
    for b in range(len(row)):
        if not which[b]:
            continue
        p, longs, s, clock = ints[row[b]], longs_of[row[b]], state[b], clock_of[b]
        n_lines = longs[N_LINES]
        now = clock[NOW] if relative else 0
        unit = 1.0 / floats[row[b], MEAN_DURATION] if relative else 1.0
        least = s[L.position]
        for line in range(1, n_lines):
            least = min(least, s[L.position + line])
        lines = interval_rep.shape[1]
        stale = not relative or s[L.shown + lines] != least
        s[L.shown + lines] = least
        for line in range(lines):
            position = s[L.position + line] if line < n_lines else 0
            if stale or s[L.shown + line] != position:
                s[L.shown + line] = position
                _write_line(
                    L,
                    c,
                    p,
                    longs,
                    s,
                    line,
                    least,
                    now,
                    unit,
                    interval_rep[b, line],
                    index_interval[b, line],
                    tokens[b, line],
                    padding[b, line],
                    next_machine[b],
                )
            elif line < n_lines:
                w = 1 if position == 0 else 0
                at = p[L.line_ptr + line] + position - 1 + w
                while w < interval_rep.shape[2] and at < p[L.line_ptr + line + 1]:
                    interval_rep[b, line, w, 1] = (s[L.ops + OP * (p[L.line_op + at]) + START] - now) * unit
                    w += 1
                    at += 1
        if len(resource_mask) > 0:
            _write_resource_mask(longs[N_DECLARED], mask_of[b], next_machine[b], resource_mask[b])


@njit(cache=True, forceinline=True)
def _write_line(
    L: Layout,
    c: Config,
    p: Ints,
    longs: Longs,
    s: Ints,
    line: int,
    least: int,
    now: int,
    unit: float,
    interval_rep: npt.NDArray[np.float32],
    index_interval: npt.NDArray[np.float32],
    tokens: npt.NDArray[np.float32],
    padding: npt.NDArray[np.float32],
    next_machine: npt.NDArray[np.int64],
) -> None:
    """All of one line's window row [W, ...] and its slots of ``next_machine``."""
    width = len(tokens)
    shift = 1 if least == 0 else 0
    w, visible = 0, False
    for m in range(c.max_modes):
        next_machine[line * c.max_modes + m] = longs[N_DECLARED]
    if line < longs[N_LINES]:
        visible = True
        first, last = p[L.line_ptr + line], p[L.line_ptr + line + 1]
        position = s[L.position + line]
        if position == 0:
            interval_rep[0, :] = 0.0
            index_interval[0] = least - 1 + shift
            tokens[0] = 1.0
            padding[0] = 0.0
            w = 1
        at = first + position - 1 + w
        while w < width and at < last:
            o = p[L.line_op + at]
            fixed = s[L.ops + OP * o + MODE] >= 0
            duration = (
                p[L.mode_duration + p[L.mode_ptr + o] + s[L.ops + OP * o + MODE]] if fixed else p[L.min_duration + o]
            )
            interval_rep[w, 0] = 1.0 if fixed else 0.0
            interval_rep[w, 1] = (s[L.ops + OP * o + START] - now) * unit
            interval_rep[w, 2] = duration * unit
            interval_rep[w, 3] = 1.0 if at == first + position else 0.0
            index_interval[w] = at - first + shift
            tokens[w] = 0.0
            padding[w] = 0.0
            w += 1
            at += 1
        if position < last - first:
            o = p[L.line_op + first + position]
            for m in range(p[L.mode_ptr + o + 1] - p[L.mode_ptr + o]):
                machine = p[L.primary + p[L.mode_ptr + o] + m]
                if machine >= 0:
                    next_machine[line * c.max_modes + m] = machine
    while w < width:
        interval_rep[w, :] = 0.0
        index_interval[w] = least - 1 + shift
        tokens[w] = 2.0
        padding[w] = 0.0 if visible else 1.0
        visible = False
        w += 1


@njit(cache=True, forceinline=True)
def _write_resource_mask(
    none: int, mask: Flags, next_machine: npt.NDArray[np.int64], out: npt.NDArray[np.float32]
) -> None:
    """Who competes with whom: identity, legal slots of one machine see each other and the no-op, last row the mask."""
    n_slots = len(next_machine)
    out[:, :] = 0.0
    for i in range(n_slots):
        out[i, i] = 1.0
        if mask[i] and next_machine[i] < none:
            machine = next_machine[i]
            out[i, n_slots] = mask[n_slots]
            for j in range(i):
                if next_machine[j] == machine and mask[j]:
                    out[i, j] = 1.0
                    out[j, i] = 1.0
    for j in range(n_slots + 1):
        out[n_slots, j] = mask[j]


@njit(cache=True)
def write_compact(
    packed: Longs,
    ints: Ints,
    longs_of: Longs,
    floats: Floats,
    row: Longs,
    state: Ints,
    clock_of: Longs,
    mask_of: Flags,
    which: Flags,
    out: npt.NDArray[np.float32],
) -> None:
    """Compact observation [B, slots * 9] of the marked copies, see ``COMPACT_FEATURES``."""
    L, c = unpack(packed)
    n_features = 9
    for b in range(len(row)):
        if not which[b]:
            continue
        p, longs, s, clock, mask = ints[row[b]], longs_of[row[b]], state[b], clock_of[b], mask_of[b]
        out[b, :] = 0.0
        now, bound = clock[NOW], clock[LOWER_BOUND]
        unit = 1.0 / floats[row[b], MEAN_DURATION]
        longest = np.float64(longs[LONGEST_LINE])
        operations_per_resource = longs[N_OPS] / max(1, longs[N_DECLARED])
        for line in range(longs[N_LINES]):
            first, last = p[L.line_ptr + line], p[L.line_ptr + line + 1]
            at = first + s[L.position + line]
            if at == last:
                continue
            o = p[L.line_op + at]
            for m in range(p[L.mode_ptr + o + 1] - p[L.mode_ptr + o]):
                slot = line * c.max_modes + m
                start = s[L.slot_start + slot]
                if start < 0:
                    continue
                q = p[L.mode_ptr + o] + m
                duration = p[L.mode_duration + q]
                load = np.int64(0)
                if p[L.primary + q] >= 0:
                    load = clock[LOAD + p[L.primary + q]]
                f = slot * n_features
                out[b, f] = 1.0 if mask[slot] else 0.0
                out[b, f + 1] = (start - now) * unit
                out[b, f + 2] = duration * unit
                out[b, f + 3] = s[L.work + line] * unit / longest
                out[b, f + 4] = (last - at) / longest
                out[b, f + 5] = load * unit / operations_per_resource
                out[b, f + 6] = max(0, now - s[L.ops + OP * o + READY]) * unit
                out[b, f + 7] = p[L.tail + o] * unit / longest
                out[b, f + 8] = (bound - start - duration - p[L.tail + o]) * unit


@njit(cache=True)
def write_graph(
    packed: Longs,
    ints: Ints,
    longs_of: Longs,
    floats: Floats,
    row: Longs,
    state: Ints,
    clock_of: Longs,
    mask_of: Flags,
    which: Flags,
    nodes: npt.NDArray[np.float32],
    edges: npt.NDArray[np.float32],
) -> None:
    """Graph observation: nodes are operations; edges are precedences, then resource predecessor -> operation.

    Unused columns of ``edges`` hold -1.
    """
    L, c = unpack(packed)
    for b in range(len(row)):
        if not which[b]:
            continue
        p, longs, s, clock, mask = ints[row[b]], longs_of[row[b]], state[b], clock_of[b], mask_of[b]
        nodes[b, :, :] = 0.0
        edges[b, :, :] = -1.0
        now, bound = clock[NOW], clock[LOWER_BOUND]
        unit = 1.0 / floats[row[b], MEAN_DURATION]
        n = longs[N_OPS]
        column = 0
        for o in range(n):
            fixed = s[L.ops + OP * o + MODE] >= 0
            duration = (
                p[L.mode_duration + p[L.mode_ptr + o] + s[L.ops + OP * o + MODE]] if fixed else p[L.min_duration + o]
            )
            nodes[b, o, 0] = 1.0 if fixed else 0.0
            nodes[b, o, 2] = (s[L.ops + OP * o + START] - now) * unit
            nodes[b, o, 3] = duration * unit
            nodes[b, o, 4] = p[L.tail + o] * unit
            nodes[b, o, 5] = (bound - s[L.ops + OP * o + END] - p[L.tail + o]) * unit
            for e in range(p[L.succ_ptr + o], p[L.succ_ptr + o + 1]):
                edges[b, 0, column] = o
                edges[b, 1, column] = p[L.succ_op + e]
                column += 1
        for o in range(n):
            if s[L.ops + OP * o + RESOURCE_PRED] >= 0:
                edges[b, 0, column] = s[L.ops + OP * o + RESOURCE_PRED]
                edges[b, 1, column] = o
                column += 1
        for line in range(longs[N_LINES]):
            at = p[L.line_ptr + line] + s[L.position + line]
            if at < p[L.line_ptr + line + 1]:
                o = p[L.line_op + at]
                nodes[b, o, 1] = 1.0 if s[L.ops + OP * o + PREDS_LEFT] == 0 else 0.0
                for m in range(p[L.mode_ptr + o + 1] - p[L.mode_ptr + o]):
                    if mask[line * c.max_modes + m]:
                        nodes[b, o, 6] = 1.0


@njit(cache=True)
def step_window(
    packed: Longs,
    ints: Ints,
    longs: Longs,
    floats: Floats,
    row: Longs,
    state: Ints,
    clock: Longs,
    mask: Flags,
    active: Flags,
    interval_rep: npt.NDArray[np.float32],
    index_interval: npt.NDArray[np.float32],
    tokens: npt.NDArray[np.float32],
    padding: npt.NDArray[np.float32],
    next_machine: npt.NDArray[np.int64],
    resource_mask: npt.NDArray[np.float32],
    relative: bool,
    actions: Longs,
    reward: Floats,
    terminated: Flags,
) -> int:
    """:func:`step_batch`, then :func:`write_window`, in one call from Python."""
    illegal = step_batch(packed, ints, longs, floats, row, state, clock, mask, actions, active, reward, terminated)
    if illegal >= 0:
        return illegal
    write_window(
        packed,
        ints,
        longs,
        floats,
        row,
        state,
        clock,
        mask,
        active,
        interval_rep,
        index_interval,
        tokens,
        padding,
        next_machine,
        resource_mask,
        relative,
    )
    return -1


def normalize_reference(
    interval_rep: npt.NDArray[np.float32], duration_mean: float, duration_std: float
) -> npt.NDArray[np.float32]:
    """Normalise an absolute window [J, W, 4] the way the published job-shop-cp-env weights expect it.

    Reproduces a fault of that package: the mean and deviation used for the start column are taken over interval slot 1
    with all four features mixed. Needed to load its weights; meant for nothing else.
    """
    slot = interval_rep[:, 1]
    mean = np.array([0, slot.mean(), duration_mean, 0], np.float32)
    deviation = np.array([1, float(slot.std()) + 1e-8, duration_std + 1e-8, 1], np.float32)
    return (interval_rep - mean) / deviation
