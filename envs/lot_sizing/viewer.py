"""One picture of a plan: what is in stock of every item, above what every machine does.

Each item has a strip: filled its stock at the end of the periods (top of the strip: storage limit), below the line what
was lost in red and what is owed in grey. Below the strips each machine has a row; colour and number say the item, a
hatched part is a period in which the machine was changed over. matplotlib is imported when a picture is made; no global
state of it is touched.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.figures import DPI, even_inches, picture_suffix, pixels, write_figure
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance, LotSizingPlan
from orl.envs.lot_sizing.transition import decide, realise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "light" scheme, its grey a little darker; later items take the same hues darker, then lighter.
COLOURS = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#44BB99", "#BBCC33", "#99DDFF", "#AAAA00", "#C4C4C4")
_LOST, _OWED, _CAP = "#CC3311", "#888888", "#555555"
_BELOW = 0.4  # depth of the part of a strip that shows losses, in strip heights


@dataclass(frozen=True)
class _Course:
    """What happened: levels int64[t + 1, I], lost and discarded int64[t, I], costs float64[t, 3], runs of machines."""

    levels: Integers
    lost: Integers
    discarded: Integers
    costs: Floats
    setup: Integers  # [t, M], 0 idle
    changed: npt.NDArray[np.bool_]  # [t, M]


def picture(instance: LotSizingInstance, plan: LotSizingPlan) -> Figure:
    """A complete plan, or its first periods, as a matplotlib figure; the size depends on the instance alone.

    Raises:
        InputError: the plan's arrays do not fit the instance.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    course = _course(instance, plan)
    n_items, n_machines, horizon = instance.n_items, instance.n_machines, instance.horizon
    width = even_inches(float(np.clip(2.6 + 0.11 * horizon, 7.6, 24.0)))
    strip = float(np.clip(7.0 / n_items, 0.34, 0.8)) if n_items <= 60 else 20.0 / n_items
    row = 0.3 if n_machines <= 40 else 12.0 / n_machines
    top, gap, bottom, left, right = 0.46, 0.3, 0.86, 0.85, 0.85
    height = even_inches(top + n_items * strip + gap + n_machines * row + bottom)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    across = (left / width, 1 - (left + right) / width)
    stock = figure.add_axes(
        (across[0], (bottom + n_machines * row + gap) / height, across[1], n_items * strip / height)
    )
    gantt = figure.add_axes((across[0], bottom / height, across[1], n_machines * row / height))
    _draw_stock(stock, instance, course, strip)
    _draw_machines(gantt, instance, course, row, 72 * width * across[1] / (horizon + 1))
    headline = _title(instance, course)
    size = min(11.0, 72 * (width - left - 0.2) / (0.56 * len(headline)))
    figure.text(across[0], 1 - 0.3 / height, headline, fontsize=size, parse_math=False)
    _draw_key(figure, instance, course, across[0], width, height)
    return figure


def rgb(instance: LotSizingInstance, plan_so_far: LotSizingPlan) -> npt.NDArray[np.uint8]:
    """The figure of :func:`picture` as uint8[H, W, 3]; H and W are even, fixed by the instance."""
    return pixels(picture(instance, plan_so_far))


def save_picture(instance: LotSizingInstance, solution: LotSizingPlan, path: str | Path) -> None:
    """Write the figure of :func:`picture`; the suffix of ``path`` chooses png, svg or pdf. A file is replaced.

    Raises:
        InputError: another suffix.
        OSError: the file cannot be written; nothing half-written is left.
    """
    picture_suffix(path)  # before anything is drawn
    write_figure(picture(instance, solution), path)


# ---- what is drawn -------------------------------------------------------------------------------------------------
def _course(instance: LotSizingInstance, plan: LotSizingPlan) -> _Course:
    actions, demand = np.asarray(plan.actions), np.asarray(plan.demand)
    for field, array, columns in (("actions", actions, instance.n_machines), ("demand", demand, instance.n_items)):
        fits = array.ndim == 2 and array.shape[1] == columns and len(array) == len(actions) <= instance.horizon
        if not fits:
            expected = f"at most {instance.horizon} rows of {columns}"
            raise InputError("wrong shape", source=instance.name, field=field, value=array.shape, expected=expected)
    level, setup = np.asarray(plan.initial_inventory), np.asarray(plan.initial_setup)
    levels, lost, discarded, costs, setups, changed = [level], [], [], [], [], []
    for action, wanted in zip(actions, demand, strict=True):
        post, now, setup_cost = decide(instance, level, setup, action)
        level, missed, lost_cost, holding_cost = realise(instance, post, wanted)
        changed.append((now != setup) & (now > 0))
        discarded.append(post - wanted + missed - level)
        setup = now
        levels.append(level)
        lost.append(missed)
        setups.append(setup)
        costs.append((float(setup_cost), float(lost_cost), float(holding_cost)))
    periods, items, machines = len(actions), instance.n_items, instance.n_machines
    return _Course(
        np.array(levels),
        np.array(lost, np.int64).reshape(periods, items),
        np.array(discarded, np.int64).reshape(periods, items),
        np.array(costs, np.float64).reshape(periods, 3),
        np.array(setups, np.int64).reshape(periods, machines),
        np.array(changed, np.bool_).reshape(periods, machines),
    )


def _title(instance: LotSizingInstance, course: _Course) -> str:
    """Name, cost and its parts, lower bound; how far a partial plan is."""
    setup, lost, holding = course.costs.sum(0)
    kept = "holding" if not instance.max_backlog.any() else "holding and backlog"
    parts = [instance.name, f"cost {setup + lost + holding:,.2f}"]
    parts.append(f"set-ups {setup:,.2f}, lost sales {lost:,.2f}, {kept} {holding:,.2f}")
    if len(course.costs) < instance.horizon:
        parts.insert(1, f"{len(course.costs)} of {instance.horizon} periods")
    elif instance.demand_path is not None:
        parts.append(f"lower bound {instance.lower_bound():,.2f}")
    return " · ".join(parts)


def _colour(item: int) -> tuple[float, float, float]:
    """Colour of an item, counted from 0."""
    base = COLOURS[item % len(COLOURS)]
    share, target = ((0.0, 0.0), (0.3, 0.0), (0.5, 1.0))[item // len(COLOURS) % 3]
    red, green, blue = ((1.0 - share) * int(base[k : k + 2], 16) / 255 + share * target for k in (1, 3, 5))
    return red, green, blue


def _draw_stock(axes: Axes, instance: LotSizingInstance, course: _Course, inches: float) -> None:
    """A strip for each item; y counts strips from the top, a strip's line of no stock lies at its lower part."""
    n_items, periods = instance.n_items, len(course.costs)
    edges = np.arange(-1, periods + 1)
    deepest = max(1, int(course.lost.max(initial=0)), int(instance.max_backlog.max()))
    share = 0.86 / (1 + _BELOW)  # of a strip, for stock
    axes.set_xlim(-1, instance.horizon)
    axes.set_ylim(n_items, 0)
    for i in range(n_items):
        zero, full = i + 0.06 + share, max(1, int(instance.max_inventory[i]))
        level = course.levels[:, i]
        colour = _colour(i)
        if i % 2 == 0:
            axes.axhspan(i, i + 1, color="#F6F6F6", zorder=0, linewidth=0)
        stock = zero - share * np.clip(level / full, 0.0, 1.0)
        axes.stairs(stock, edges, baseline=zero, fill=True, facecolor=colour, zorder=2)
        axes.stairs(stock, edges, baseline=zero, edgecolor="#444444", linewidth=0.5, zorder=3)
        lost = np.concatenate([[0], course.lost[:, i]])
        if (level < 0).any():
            owed = zero + share * _BELOW * np.maximum(-level, 0) / deepest
            axes.stairs(owed, edges, baseline=zero, fill=True, facecolor=_OWED, zorder=2)
        if lost.any():
            depth = zero + share * _BELOW * lost / deepest
            axes.stairs(depth, edges, baseline=zero, fill=True, facecolor=_LOST, zorder=3)
        full_at = np.flatnonzero(course.discarded[:, i]) + 0.5
        axes.plot(full_at, np.full(len(full_at), zero - share), "v", color=_CAP, markersize=2.6, zorder=4)
        axes.hlines(zero, -1, instance.horizon, color="#444444", linewidth=0.5, zorder=1)
        axes.hlines(zero - share, -1, instance.horizon, color=_CAP, linewidth=0.6, linestyle=(0, (2, 3)), zorder=1)
    font = float(np.clip(72 * inches * 0.36, 3.0, 9.0))
    for i in range(n_items):
        zero = i + 0.06 + share
        axes.text(-0.012, zero - share / 2, f"item {i + 1}", fontsize=font, va="center", ha="right", **_beside(axes))
        limit = f"{instance.max_inventory[i]}"
        axes.text(1.006, zero - share, limit, fontsize=0.8 * font, va="center", color=_CAP, **_beside(axes))
        total = int(course.lost[:, i].sum())
        if total:
            axes.text(
                1.006, zero + 0.06, f"lost {total}", fontsize=0.9 * font, va="center", color=_LOST, **_beside(axes)
            )
    axes.axvline(0, color="black", linewidth=0.8, zorder=5)
    axes.set_yticks([])
    axes.tick_params(labelbottom=False, length=0)
    _frame(axes, instance, periods)


def _beside(axes: Axes) -> dict[str, Any]:
    """Text beside the axes: x in widths of the axes, y in data."""
    return {"transform": axes.get_yaxis_transform(), "clip_on": False, "parse_math": False}


def _draw_machines(axes: Axes, instance: LotSizingInstance, course: _Course, inches: float, points: float) -> None:
    """A row for each machine; ``points`` is the width of a period."""
    from matplotlib.collections import PolyCollection

    n_machines, periods = instance.n_machines, len(course.costs)
    axes.set_xlim(-1, instance.horizon)
    axes.set_ylim(n_machines, 0)
    corners, fills, hatched = [], [], []
    font = float(np.clip(72 * inches * 0.4, 3.0, 8.0))
    for m in range(n_machines):
        setup = course.setup[:, m]
        starts = np.flatnonzero(np.diff(setup, prepend=-1) != 0)
        for start, end in pairwise([*starts.tolist(), periods]):
            item = int(setup[start])
            if item == 0:
                continue
            corners.append(_box(start, end, m))
            fills.append(_colour(item - 1))
            if course.changed[start, m]:
                hatched.append(_box(start, start + 1, m))
            room = 0.62 * font * len(str(item)) + 1.5
            begin = start + bool(course.changed[start, m])  # beside the hatching where there is room
            if points * (end - begin) <= room:
                begin = start
            if points * (end - begin) > room:
                over = {"facecolor": fills[-1], "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
                where = ((begin + end) / 2, m + 0.5)
                box = over if begin == start and course.changed[start, m] else None
                axes.text(*where, str(item), fontsize=font, ha="center", va="center_baseline", zorder=4, bbox=box)
        if m % 2 == 0:
            axes.axhspan(m, m + 1, color="#F6F6F6", zorder=0, linewidth=0)
        axes.text(-0.012, m + 0.5, f"machine {m + 1}", fontsize=font, va="center", ha="right", **_beside(axes))
    if corners:
        axes.add_collection(PolyCollection(corners, facecolors=fills, edgecolors="white", linewidths=0.5, zorder=2))
    if hatched:
        style: dict[str, Any] = {"facecolors": "none", "hatch": "//////", "linewidths": 0.0, "zorder": 3}
        axes.add_collection(PolyCollection(hatched, edgecolors="#333333", **style))
    axes.axvline(0, color="black", linewidth=0.8, zorder=5)
    axes.set_yticks([])
    axes.tick_params(labelsize=9)
    axes.set_xlabel("period", fontsize=9, labelpad=1)
    _frame(axes, instance, periods)


def _box(start: float, end: float, row: float) -> list[tuple[float, float]]:
    low, high = row + 0.1, row + 0.9
    return [(start, low), (end, low), (end, high), (start, high)]


def _frame(axes: Axes, instance: LotSizingInstance, periods: int) -> None:
    """Time ticks and grid; a dashed line where a partial plan ends."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]).tick_values(0, instance.horizon)
    axes.set_xticks([t for t in ticks if 0 <= t <= instance.horizon])
    axes.grid(axis="x", color="#D8D8D8", linewidth=0.6, zorder=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if periods < instance.horizon:
        axes.axvline(periods, color=_LOST, linewidth=1.2, linestyle="dashed", zorder=6)


def _draw_key(
    figure: Figure, instance: LotSizingInstance, course: _Course, left: float, width: float, height: float
) -> None:
    """What the marks mean, at the foot."""
    words = ["filled: stock at the end of a period (left of 0: at the start)", "dotted: storage limit"]
    words += ["triangle: surplus discarded"] if course.discarded.any() else []
    words += ["red: lost sales"] if course.lost.any() else []
    words += ["grey below the line: backlog"] if instance.max_backlog.any() else []
    words += ["number and colour: item", "hatched: change-over"]
    letters = int(72 * width * (1 - left) / 4.3)
    lines = textwrap.wrap("  ·  ".join(word.replace(" ", "\u00a0") for word in words), letters)
    figure.text(left, 0.08 / height, "\n".join(lines), fontsize=8, color="#444444", linespacing=1.3)
