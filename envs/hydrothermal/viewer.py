"""One picture of a dispatch: what is in the reservoirs, above what serves the demand, above prices if they are given.

Each plant has a strip: filled its volume at the end of the stages (top of the strip: the largest volume), below the
line in green the water spilled. Then power by stage, stacked: hydro, thermal plants from the cheapest in at most five
groups, deficit in red; a line is the demand. matplotlib is imported when a picture is made; no global state of it is
touched.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orl.common.atomic import atomic_path
from orl.common.errors import InputError
from orl.envs.hydrothermal.dispatch import stage_costs
from orl.envs.hydrothermal.instance import Dispatch, Floats, HydrothermalInstance
from orl.envs.hydrothermal.plan import ReservoirPlan, completed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
_HYDRO, _WATER, _SPILL, _DEFICIT, _LIMIT, _PRICE = "#4477AA", "#77AADD", "#228833", "#CC3311", "#555555", "#333333"
_THERMAL = ("#F6E8C3", "#DFC27D", "#BF812D", "#8C510A", "#543005")  # ColorBrewer's BrBG, from cheap to dear
_DPI = 100
_BELOW = 0.35  # depth of the part of a strip that shows spillage, in strip heights
_GROUPS = len(_THERMAL)


def picture(
    instance: HydrothermalInstance, solution: Dispatch | ReservoirPlan, prices: npt.ArrayLike | None = None
) -> Figure:
    """A complete dispatch, or its first stages, as a matplotlib figure; its size hangs on the instance alone.

    Args:
        instance: The instance or scenario.
        solution: Arrays with t <= T stages (volumes t + 1). A plan is completed first.
        prices: float64[t] or [t, B], USD/MWh, drawn in a panel of their own: the mean, and the range over buses. An
            empty list keeps the panel.

    Raises:
        InputError: the arrays do not fit the instance.
        StageError: a plan that no dispatch meets.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dispatch = completed(instance, solution)
    stages = _stages(instance, dispatch)
    price = None if prices is None else _prices(instance, prices, stages)
    n, horizon = instance.n_plants, instance.horizon
    width = _even(float(np.clip(3.4 + 0.08 * horizon, 8.4, 22.0)))
    strip = float(np.clip(5.0 / n, 0.3, 0.8)) if n <= 60 else 18.0 / n
    heights = [n * strip, 2.4] + ([] if price is None else [1.2])
    top, gap, bottom, left, right = 0.46, 0.22, 0.85, 0.95, 1.3
    height = _even(top + sum(heights) + gap * (len(heights) - 1) + bottom)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    panels, y = [], height - top
    for tall in heights:
        y -= tall
        panels.append(figure.add_axes((left / width, y / height, 1 - (left + right) / width, tall / height)))
        y -= gap
    _draw_reservoirs(panels[0], instance, dispatch, strip)
    _draw_power(panels[1], instance, dispatch)
    if price is not None:
        _draw_prices(panels[2], price)
    for axes in panels:
        _frame(axes, horizon, stages, last=axes is panels[-1])
    headline = _title(instance, dispatch, stages)
    size = min(11.0, 72 * (width - left - 0.2) / (0.54 * len(headline)))
    figure.text(left / width, 1 - 0.3 / height, headline, fontsize=size, parse_math=False)
    _draw_key(figure, dispatch, price is not None, left / width, width, height)
    return figure


def rgb(
    instance: HydrothermalInstance, solution_so_far: Dispatch | ReservoirPlan, prices: npt.ArrayLike | None = None
) -> npt.NDArray[np.uint8]:
    """The figure of :func:`picture` as uint8[H, W, 3]; H and W are even, fixed by the instance and having prices."""
    canvas = picture(instance, solution_so_far, prices).canvas
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3].copy()  # type: ignore[attr-defined]


def save_picture(
    instance: HydrothermalInstance,
    solution: Dispatch | ReservoirPlan,
    path: str | Path,
    prices: npt.ArrayLike | None = None,
) -> None:
    """Write the figure of :func:`picture`; the suffix of ``path`` chooses png, svg or pdf. A file is replaced.

    Raises:
        InputError: another suffix.
        OSError: the file cannot be written; nothing half-written is left.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        expected = "a name that ends in " + ", ".join(PICTURE_SUFFIXES)
        raise InputError("unknown picture format", source=str(path), field="suffix", value=suffix, expected=expected)
    buffer = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure = picture(instance, solution, prices)
    figure.savefig(buffer, format=suffix[1:], dpi=1.5 * _DPI, metadata=dates.get(suffix))
    with atomic_path(path) as part:
        part.write_bytes(buffer.getvalue())


# ---- what is drawn -------------------------------------------------------------------------------------------------
def _stages(instance: HydrothermalInstance, dispatch: Dispatch) -> int:
    """Stages that the dispatch covers; refuses arrays that do not fit."""
    stages = len(dispatch.turbined)
    widths = {"volumes": instance.n_plants, "turbined": instance.n_plants, "spilled": instance.n_plants}
    widths |= {"power": instance.n_generators, "deficit": instance.n_buses, "surplus": instance.n_buses}
    for field, wanted in widths.items():
        array = np.asarray(getattr(dispatch, field))
        rows = stages + (field == "volumes")
        if array.shape != (rows, wanted) or stages > instance.horizon:
            expected = f"[{rows}, {wanted}], at most {instance.horizon} stages"
            raise InputError(
                "wrong shape", source=instance.name, field=field, value=list(array.shape), expected=expected
            )
    return stages


def _prices(instance: HydrothermalInstance, prices: npt.ArrayLike, stages: int) -> Floats:
    """Prices as float64[t, 1 or B]."""
    array = np.asarray(prices, np.float64)
    table = array.reshape(len(array), -1) if array.size else np.zeros((0, 1))
    fits = array.ndim in (1, 2) and len(table) == stages and table.shape[1] in (1, instance.n_buses)
    if not fits or not np.isfinite(table).all():
        expected = f"finite numbers [{stages}] or [{stages}, {instance.n_buses}]"
        raise InputError("bad prices", source=instance.name, field="prices", value=list(array.shape), expected=expected)
    return table


def _title(instance: HydrothermalInstance, dispatch: Dispatch, stages: int) -> str:
    """Name, cost and its parts, lower bound; how far a partial dispatch is."""
    generation, deficit, spill = stage_costs(instance, dispatch).sum(0)
    parts = [instance.name, f"cost {generation + deficit + spill:,.1f} USD per hour of a stage"]
    parts.append(f"deficit {deficit:,.1f}" + (f", spillage {spill:,.1f}" if spill else ""))
    if stages < instance.horizon:
        parts.insert(1, f"{stages} of {instance.horizon} stages")
    elif instance.columns is not None:
        parts.append(f"lower bound {instance.lower_bound():,.1f}")
    return " · ".join(parts)


def _draw_reservoirs(axes: Axes, instance: HydrothermalInstance, dispatch: Dispatch, inches: float) -> None:
    """A strip for each plant; y counts strips from the top, a strip's line of no water lies at its lower part."""
    n, stages = instance.n_plants, len(dispatch.turbined)
    edges = np.arange(-1, stages + 1)
    share = 0.84 / (1 + _BELOW)  # of a strip, for volumes
    font = float(np.clip(72 * inches * 0.36, 3.0, 9.0))
    axes.set_ylim(n, 0)
    for i in range(n):
        zero, most = i + 0.08 + share, float(instance.max_volume[i])
        if i % 2 == 0:
            axes.axhspan(i, i + 1, color="#F6F6F6", zorder=0, linewidth=0)
        if most > 0:
            level = zero - share * np.clip(dispatch.volumes[:, i] / most, 0.0, 1.0)
            axes.stairs(level, edges, baseline=zero, fill=True, facecolor=_WATER, zorder=2)
            axes.stairs(level, edges, baseline=zero, edgecolor="#335577", linewidth=0.5, zorder=3)
        spilled = dispatch.spilled[:, i]
        if (spilled > 1e-9).any():
            depth = zero + share * _BELOW * np.clip(spilled / max(most, float(spilled.max())), 0.0, 1.0)
            axes.stairs(depth, np.arange(stages + 1), baseline=zero, fill=True, facecolor=_SPILL, zorder=2)
            total = f"spilled {_short(float(spilled.sum()))}"
            axes.text(1.006, zero - 0.02, total, fontsize=0.85 * font, va="center", color=_SPILL, **_beside(axes))
        axes.hlines(zero, -1, instance.horizon, color="#444444", linewidth=0.5, zorder=1)
        axes.hlines(zero - share, -1, instance.horizon, color=_LIMIT, linewidth=0.6, linestyle=(0, (2, 3)), zorder=1)
        name = instance.plant_names[i]
        name = name if len(name) <= 12 else name[:11] + "…"
        axes.text(-0.012, zero - share / 2, name, fontsize=font, va="center", ha="right", **_beside(axes))
        limit = f"{_short(most)} hm3"
        axes.text(1.006, zero - share, limit, fontsize=0.85 * font, va="center", color=_LIMIT, **_beside(axes))
    axes.axvline(0, color="black", linewidth=0.8, zorder=5)
    axes.set_yticks([])


def _draw_power(axes: Axes, instance: HydrothermalInstance, dispatch: Dispatch) -> None:
    """Power by stage, MW, stacked: hydro, thermal plants in groups of like cost, deficit; the demand as a line."""
    stages, base = len(dispatch.turbined), instance.base_mva
    rows = np.arange(instance.horizon) % len(instance.demand)
    demand = base * instance.demand[rows].sum(1)
    edges = np.arange(stages + 1)
    layers = [
        ("hydro", _HYDRO, base * dispatch.power[:, instance.plant_generator].sum(1)),
        *_thermals(instance, dispatch),
    ]
    layers.append(("deficit", _DEFICIT, base * dispatch.deficit.sum(1)))
    floor = np.zeros(stages)
    for name, colour, power in layers:
        if name == "deficit" and not (power > 1e-6).any():
            continue
        if stages:
            axes.stairs(floor + power, edges, baseline=floor, fill=True, facecolor=colour, label=name, zorder=2)
        floor = floor + power
    axes.stairs(
        demand, np.arange(instance.horizon + 1), color="black", linewidth=1.0, label="demand", zorder=4, baseline=None
    )
    axes.set_ylim(0, 1.08 * max(float(demand.max()), float(floor.max(initial=0.0)), 1e-9))
    axes.set_ylabel("power, MW", fontsize=9)
    handles, names = axes.get_legend_handles_labels()
    style: dict[str, Any] = {"fontsize": 7.5, "title_fontsize": 7.5, "handlelength": 1.1, "labelspacing": 0.35}
    style |= {"loc": "upper left", "bbox_to_anchor": (1.002, 1.02), "frameon": False, "borderpad": 0.1}
    axes.legend(handles[::-1], names[::-1], title="USD/MWh", **style)


def _thermals(instance: HydrothermalInstance, dispatch: Dispatch) -> list[tuple[str, str, Floats]]:
    """Name, colour and power [t] in MW of at most five groups of thermal plants, from the cheapest."""
    thermal = np.setdiff1d(np.arange(instance.n_generators), instance.plant_generator)
    if not len(thermal):
        return []
    cost = instance.generator_costs[thermal] / instance.base_mva
    groups = np.array_split(thermal[np.argsort(cost, kind="stable")], min(_GROUPS, len(thermal)))
    colours = np.linspace(0, _GROUPS - 1, len(groups)).round().astype(int)
    layers = []
    for group, colour in zip(groups, colours.tolist(), strict=True):
        low, high = (_short(float(c) / instance.base_mva) for c in instance.generator_costs[group[[0, -1]]])
        name = f"at {low}" if low == high else f"at {low}–{high}"
        layers.append((name, _THERMAL[colour], instance.base_mva * dispatch.power[:, group].sum(1)))
    return layers


def _draw_prices(axes: Axes, price: Floats) -> None:
    """Mean over buses as a line, range over buses as an area; USD/MWh."""
    stages = len(price)
    if stages:
        edges, low, high = np.arange(stages + 1), price.min(1), price.max(1)
        axes.stairs(high, edges, baseline=low, fill=True, facecolor="#BBBBBB", zorder=2)
        axes.stairs(price.mean(1), edges, color=_PRICE, linewidth=1.0, zorder=3, baseline=None)
        axes.set_ylim(min(0.0, float(low.min())), 1.08 * max(float(high.max()), 1e-9))
    axes.set_ylabel("price, USD/MWh", fontsize=9)


def _frame(axes: Axes, horizon: int, stages: int, last: bool) -> None:
    """Time ticks and grid; a dashed line where a partial dispatch ends."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(-1, horizon)
    ticks = MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]).tick_values(0, horizon)
    axes.set_xticks([t for t in ticks if 0 <= t <= horizon])
    axes.grid(axis="x", color="#D8D8D8", linewidth=0.6, zorder=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, labelbottom=last, bottom=last)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if last:
        axes.set_xlabel("stage", fontsize=9, labelpad=1)
    if stages < horizon:
        axes.axvline(stages, color=_DEFICIT, linewidth=1.2, linestyle="dashed", zorder=6)


def _draw_key(figure: Figure, dispatch: Dispatch, priced: bool, left: float, width: float, height: float) -> None:
    """What the marks mean, at the foot."""
    words = ["filled: volume at the end of a stage (left of 0: at the start)", "dotted: largest volume"]
    words += ["green below the line: water spilled, hm3"] if (dispatch.spilled > 1e-9).any() else []
    words += ["price: mean over buses, grey: their range"] if priced else []
    letters = int(72 * width * (1 - left) / 4.3)
    lines = textwrap.wrap("  ·  ".join(word.replace(" ", "\u00a0") for word in words), letters)
    figure.text(left, 0.1 / height, "\n".join(lines), fontsize=8, color="#444444", linespacing=1.3)


def _beside(axes: Axes) -> dict[str, Any]:
    """Text beside the axes: x in widths of the axes, y in data."""
    return {"transform": axes.get_yaxis_transform(), "clip_on": False, "parse_math": False}


def _short(number: float) -> str:
    """Three digits at most after the first that counts, without an exponent."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _even(inches: float) -> float:
    """The length rounded to an even number of pixels, as video encoders want."""
    return 2 * round(inches * _DPI / 2) / _DPI
