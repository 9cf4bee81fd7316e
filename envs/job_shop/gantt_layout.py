"""Where the rows and bars of a Gantt chart lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.schedule_graph import chosen_modes

NO_RESOURCE = "no resource"
_ROW_GAP = 0.16  # share of a row that stays empty


@dataclass(frozen=True)
class GanttRow:
    """A resource in the picture: its name and the band of lanes [bottom, bottom + height) it fills, top row at 0."""

    name: str
    bottom: float
    height: float


@dataclass(frozen=True)
class Bar:
    """A rectangle of the picture: operation ``op`` on a row during [start, start + duration), time units.

    An operation has a bar on each resource it uses, more than one where its units do not lie side by side.
    """

    op: int
    job: int
    row: int
    start: int
    duration: int
    bottom: float
    height: float


def layout(instance: ShopInstance, schedule: Schedule) -> tuple[list[GanttRow], list[Bar]]:
    """Rows (declared resources, and one more for operations that use none) and bars of the placed operations.

    Units of a cumulative resource are given to operations in the order of their starts, side by side where possible.
    The rows depend on the instance alone. Overlaps of an infeasible schedule are drawn as overlaps.
    """
    chosen = chosen_modes(instance, schedule).tolist()
    start = np.asarray(schedule.start)
    n_rows = instance.n_declared_resources
    rows, bottom = [], 0.0
    for r in range(n_rows):
        capacity = int(instance.capacity[r])
        height = 1.0 if capacity == 1 else float(np.clip(0.55 * capacity, 1.2, 5.0))
        rows.append(GanttRow(instance.resource_names[r], bottom, height))
        bottom += height
    declared = instance.use_resource < n_rows
    used = np.add.reduceat(np.append(declared, False), instance.use_ptr[:-1]) * (np.diff(instance.use_ptr) > 0)
    if (used == 0).any():
        rows.append(GanttRow(NO_RESOURCE, bottom, 1.0))
    ptr, resource, demand = instance.use_ptr.tolist(), instance.use_resource.tolist(), instance.use_demand.tolist()
    placed = np.flatnonzero(start >= 0)
    duration, job = instance.mode_duration.tolist(), instance.job.tolist()
    running: list[list[tuple[int, int, int]]] = [[] for _ in rows]  # (first unit, units, end), by first unit
    bars = []
    for o in placed[np.argsort(start[placed], kind="stable")].tolist():
        q, begin = chosen[o], int(start[o])
        uses = [(resource[u], demand[u]) for u in range(ptr[q], ptr[q + 1]) if resource[u] < n_rows]
        for r, units in uses or [(n_rows, 1)]:
            capacity = int(instance.capacity[r]) if r < n_rows else 1
            running[r] = [block for block in running[r] if block[2] > begin]
            for first, size in _free_units(running[r], units, capacity):
                if duration[q] > 0:
                    running[r].append((first, size, begin + duration[q]))
                lane = rows[r].height / capacity
                gap = _ROW_GAP * min(1.0, lane * size)
                low = rows[r].bottom + first * lane + gap / 2
                bars.append(Bar(o, job[o], r, begin, duration[q], low, size * lane - gap))
            running[r].sort()
    return rows, bars


def _free_units(running: list[tuple[int, int, int]], units: int, capacity: int) -> list[tuple[int, int]]:
    """Blocks (first, size) of free units: one block if there is a gap wide enough, else several; overlaps if none."""
    gaps, at = [], 0
    for first, size, _ in running:
        if first > at:
            gaps.append((at, first - at))
        at = max(at, first + size)
    if at < capacity:
        gaps.append((at, capacity - at))
    for first, size in gaps:
        if size >= units:
            return [(first, units)]
    if sum(size for _, size in gaps) < units:
        return [(0, units)]
    blocks = []
    for first, size in gaps:
        take = min(size, units)
        blocks.append((first, take))
        units -= take
        if units == 0:
            break
    return blocks
