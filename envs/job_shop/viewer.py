"""Pictures of a schedule: a Gantt chart as matplotlib figure, as RGB array, as interactive page, as file.

One row a machine; a cumulative resource shows one lane a unit. Colour and dark bands say the job (nine colours that the
colour-blind can tell apart, times six patterns of bands), and so does the number inside a bar where it fits. A black
outline marks the critical path, a thin black line joins its operations. matplotlib and plotly are imported when a
picture is made; no global matplotlib state is touched.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orl.common.atomic import write_text
from orl.common.errors import MissingExtraError
from orl.common.figures import DPI, FIGURE_SUFFIXES, even_inches, picture_suffix, pixels, write_figure
from orl.envs.job_shop.gantt_layout import Bar, GanttRow, layout
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.schedule_graph import chosen_modes, critical_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path as Outline

# Paul Tol's "light" scheme, its grey a little darker: fills for cells with black text on them, told apart under the
# usual colour deficiencies.
COLOURS = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#44BB99", "#BBCC33", "#99DDFF", "#AAAA00", "#C4C4C4")
# Dark bands across a bar, as shares of its height from the top; a job takes the next pattern each time colours run out.
BANDS: tuple[tuple[tuple[float, float], ...], ...] = (
    (),
    ((0.86, 1.0),),
    ((0.0, 0.14),),
    ((0.0, 0.14), (0.86, 1.0)),
    ((0.74, 0.8), (0.86, 1.0)),
    ((0.0, 0.14), (0.2, 0.26)),
)
PLOTLY_PATTERNS = ("", "/", ".", "x", "|", "-")  # the page shows these instead of bands
PICTURE_SUFFIXES = (*FIGURE_SUFFIXES, ".html")
_NAME_LENGTH = 24  # letters of a resource name that are shown


# ---- words on the picture -----------------------------------------------------------------------------------------
def _job_label(instance: ShopInstance, bar: Bar) -> str:
    """What a bar says: the job number, or the operation's name where jobs have one operation each."""
    return instance.op_names[bar.op] if _one_job_an_operation(instance) else str(bar.job)


def _one_job_an_operation(instance: ShopInstance) -> bool:
    return instance.kind == "general" and instance.n_jobs == instance.n_ops


def _title(instance: ShopInstance, schedule: Schedule) -> str:
    """Name, objective and how far it is from the optimum or the best bound, or how much is placed."""
    placed = int((np.asarray(schedule.start) >= 0).sum())
    if placed < instance.n_ops:
        return f"{instance.name} · {placed} of {instance.n_ops} operations placed"
    check = instance.check(schedule)
    value = instance.objective_value(_ends(instance, schedule))
    parts = [instance.name, f"{instance.objective.replace('_', ' ')} {value:,}"]
    known = instance.best_known()
    bound = instance.lower_bound() if known is None else known.lower
    if not check.feasible:
        return " · ".join([*parts, "infeasible"])
    if value == bound:
        return " · ".join([*parts, "optimal"])
    if known is not None and known.lower == known.upper:
        parts.append(f"optimum {bound:,.0f}")
    else:
        parts += [] if known is None else [f"best known {known.upper:,.0f}"]
        parts.append(f"lower bound {bound:,.0f}")
    if bound > 0:
        parts.append(f"{100 * (value - bound) / bound:.1f} % above")
    return " · ".join(parts)


def _ends(instance: ShopInstance, schedule: Schedule) -> npt.NDArray[np.int64]:
    """[N] end of every operation, 0 for a missing one."""
    start = np.asarray(schedule.start).astype(np.int64)
    duration = instance.mode_duration[chosen_modes(instance, schedule)]
    return np.where(start >= 0, start + duration, 0)


def _joints(bars: list[Bar], path: list[int]) -> Iterator[tuple[Bar, Bar]]:
    """Pairs of bars that the critical path joins: the nearest bars of consecutive operations."""
    of_op: dict[int, list[Bar]] = {}
    for bar in bars:
        of_op.setdefault(bar.op, []).append(bar)
    for a, b in pairwise(path):
        yield min(
            ((p, q) for p in of_op[a] for q in of_op[b]), key=lambda pair: abs(_middle(pair[0]) - _middle(pair[1]))
        )


def _middle(bar: Bar) -> float:
    return bar.bottom + bar.height / 2


# ---- matplotlib ---------------------------------------------------------------------------------------------------
def gantt(
    instance: ShopInstance,
    schedule: Schedule,
    *,
    title: str | None = None,
    critical: bool = True,
    now: int | None = None,
) -> Figure:
    """Gantt chart of a schedule as a matplotlib figure (with an Agg canvas; nothing is registered in pyplot).

    The size depends on the instance alone, so the frames of an episode fit into one film.

    Args:
        instance: The problem.
        schedule: A complete or partial schedule; operations with start -1 are left out.
        title: Headline; default name, objective and best known value or lower bound.
        critical: Mark the critical path (complete schedules only).
        now: Time of the dashed now-line of a partial schedule; default the latest start.

    Raises:
        InputError: the schedule has another number of operations than the instance, or a mode that is none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, bars = layout(instance, schedule)
    start = np.asarray(schedule.start)
    complete = bool((start >= 0).all())
    lanes = rows[-1].bottom + rows[-1].height
    uses_a_mode = (instance.use_resource < instance.n_declared_resources).sum() / len(instance.mode_duration)
    bars_a_row = uses_a_mode * instance.n_ops / len(rows)
    name_width = 0.085 * min(_NAME_LENGTH, max(len(row.name) for row in rows))
    width = even_inches(float(np.clip(3.0 + 0.5 * bars_a_row, 6.4, 26.0)) + name_width)
    height = even_inches(float(np.clip(1.25 + 0.42 * lanes, 2.4, 22.0)))
    left, right, top, bottom = name_width + 0.35, 0.35, 0.5, 0.5
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    makespan = int(_ends(instance, schedule).max())
    horizon = max(1.0, float(makespan) if complete else float(max(makespan, instance.makespan_bound)))
    axes.set_xlim(0, 1.02 * horizon)
    axes.set_ylim(lanes + 0.1, -0.1)
    scale = 72 * box[2] * width / (1.02 * horizon), 72 * box[3] * height / (lanes + 0.2)  # points a data unit
    _draw_frame(axes, rows, horizon, scale)
    _draw_bars(axes, bars, scale[0])
    _draw_labels(axes, instance, bars, scale)
    path = critical_path(instance, schedule) if complete and critical else []
    if path:
        _draw_path(axes, bars, path)
    whole = [[(0.0, 0.0), (0.0, lanes + 0.1)]]
    if complete:
        line = np.add(whole, (makespan, 0))
        _add(axes, "LineCollection", "makespan", line, colors="black", linewidths=1.0, linestyles="dotted", zorder=1)
    else:
        line = np.add(whole, (max(0, int(start.max()) if now is None else now), 0))
        _add(axes, "LineCollection", "now", line, colors="#CC3311", linewidths=1.4, linestyles="dashed", zorder=6)
    headline = _title(instance, schedule) if title is None else title
    size = min(11.0, 72 * box[2] * width / (0.62 * max(1, len(headline))))
    figure.text(left / width, 1 - 0.34 / height, headline, fontsize=size, parse_math=False)
    what = "label and colour: operation" if _one_job_an_operation(instance) else "number and colour: job"
    key = ["time", what, "outline: critical path" if path else "", "" if complete else "dashed: now"]
    figure.text(left / width, 0.1 / height, "   ·   ".join(filter(None, key)), fontsize=8, color="#444444")
    return figure


def gantt_rgb(instance: ShopInstance, schedule: Schedule, **options: Any) -> npt.NDArray[np.uint8]:
    """The chart of :func:`gantt` (same options) as uint8[H, W, 3]; H and W are even, fixed by the instance."""
    return pixels(gantt(instance, schedule, **options))


def _add(axes: Axes, kind: str, gid: str, *data: Any, **style: Any) -> None:
    """Add a PolyCollection, LineCollection or PathCollection. The shared colour map spares it a copy of the default."""
    from matplotlib import collections

    collection = getattr(collections, kind)(*data, cmap=_colour_map(), **style)
    collection.set_gid(gid)
    if kind == "PathCollection":
        from matplotlib.transforms import IdentityTransform

        collection.set_transform(IdentityTransform())  # sizes in points, wherever the offsets are
    axes.add_collection(collection, autolim=False)


@lru_cache(maxsize=1)
def _colour_map() -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap(["black"])


def _draw_frame(axes: Axes, rows: list[GanttRow], horizon: float, scale: tuple[float, float]) -> None:
    """Alternating bands, names, time axis and grid (a few collections: half the cost of matplotlib's own axes)."""
    from matplotlib.ticker import MaxNLocator

    axes.set_axis_off()
    right, floor = axes.get_xlim()[1], axes.get_ylim()[0]
    low_high = [(r.bottom, r.bottom + r.height) for r in rows[::2]]
    stripes = [[(0.0, low), (right, low), (right, high), (0.0, high)] for low, high in low_high]
    _add(axes, "PolyCollection", "stripes", stripes, facecolors="#F5F5F5", edgecolors="none", zorder=0)
    most = int(right * scale[0] / (6.0 * len(f"{horizon:,.0f}") + 18.0))  # ticks that have room for their labels
    locator = MaxNLocator(min(9, max(1, most)), integer=True, steps=[1, 2, 2.5, 5, 10])
    ticks = [t for t in locator.tick_values(0, horizon) if t <= right]
    grid = [[(t, rows[0].bottom), (t, floor)] for t in ticks]
    _add(axes, "LineCollection", "grid", grid, colors="#D8D8D8", linewidths=0.6, zorder=0.5)
    line = [[(0, floor), (right, floor)]]
    _add(axes, "LineCollection", "axis", line, colors="black", linewidths=0.8, zorder=0.6, clip_on=False)
    named = rows[:: max(1, math.ceil(11.0 * len(rows) / (floor * scale[1])))]  # not all of hundreds of machines
    names = [row.name if len(row.name) <= _NAME_LENGTH else row.name[: _NAME_LENGTH - 1] + "…" for row in named]
    at = [(0.0, row.bottom + row.height / 2) for row in named]
    _write(axes, "rows", names, at, 9.0, anchor=(1.0, 0.5, -6.0, 0.0))
    _write(axes, "ticks", [f"{t:,.0f}" for t in ticks], [(t, floor) for t in ticks], 9.0, anchor=(0.5, 1.0, 0.0, -4.0))


def _draw_bars(axes: Axes, bars: list[Bar], points_a_unit: float) -> None:
    """One collection for the bars, one for their bands; operations of zero duration are vertical ticks."""
    wide = [b for b in bars if b.duration > 0]
    if wide:
        corners, fills = _corners(wide), [COLOURS[b.job % len(COLOURS)] for b in wide]
        # a white edge would hide a bar of a pixel or two
        edges = ["white" if b.duration * points_a_unit > 2.0 else fill for b, fill in zip(wide, fills, strict=True)]
        style: dict[str, Any] = {"linewidths": 0.5}
        _add(axes, "PolyCollection", "operations", corners, facecolors=fills, edgecolors=edges, zorder=2, **style)
        bands, shades = [], []
        for box, bar in zip(corners, wide, strict=True):
            for top, bottom in BANDS[bar.job // len(COLOURS) % len(BANDS)]:
                band = box.copy()
                band[:2, 1] = bar.bottom + top * bar.height
                band[2:, 1] = bar.bottom + bottom * bar.height
                bands.append(band)
                shades.append(_shade(COLOURS[bar.job % len(COLOURS)]))
        if bands:
            shape = np.array(bands)
            _add(axes, "PolyCollection", "bands", shape, facecolors=shades, edgecolors="white", zorder=2.5, **style)
    instants = [b for b in bars if b.duration == 0]
    if instants:
        lines = [[(b.start, b.bottom), (b.start, b.bottom + b.height)] for b in instants]
        shades = [_shade(COLOURS[b.job % len(COLOURS)]) for b in instants]
        _add(axes, "LineCollection", "instants", lines, colors=shades, linewidths=2.0, zorder=3)


def _shade(colour: str) -> str:
    """The colour at six tenths of its brightness."""
    return "#" + "".join(f"{int(colour[k : k + 2], 16) * 6 // 10:02X}" for k in (1, 3, 5))


def _corners(bars: list[Bar]) -> npt.NDArray[np.float64]:
    """[n, 4, 2] corners in data units."""
    left = np.array([b.start for b in bars], float)
    right = left + [b.duration for b in bars]
    top = np.array([b.bottom for b in bars])
    bottom = top + [b.height for b in bars]
    return np.stack([np.stack(p, 1) for p in ((left, top), (right, top), (right, bottom), (left, bottom))], 1)


def _draw_labels(axes: Axes, instance: ShopInstance, bars: list[Bar], scale: tuple[float, float]) -> None:
    """Job labels in the bars that are large enough: one common size, smaller (5 points at least) where it must be."""
    wide = [b for b in bars if b.duration > 0]
    if not wide:
        return
    texts = [_job_label(instance, b) for b in wide]
    width = np.array([b.duration * scale[0] for b in wide])
    height = np.array([b.height * scale[1] for b in wide])
    need = 0.66 * np.array([len(text) for text in texts]) + 0.1  # text widths in font sizes
    largest = np.minimum(width / need, height / 1.1)
    common = float(np.clip(np.quantile(largest, 0.4), 5.0, 9.0))
    fits = np.flatnonzero(largest >= 5.0)
    at = [(wide[k].start + wide[k].duration / 2, _middle(wide[k])) for k in fits]
    _write(axes, "labels", [texts[k] for k in fits], at, np.minimum(largest[fits], common), anchor=(0.5, 0.5, 0.0, 0.0))


def _write(
    axes: Axes,
    gid: str,
    texts: list[str],
    at: Sequence[tuple[float, float]],
    size: float | npt.NDArray[np.float64],
    *,
    anchor: tuple[float, float, float, float],
) -> None:
    """Write short texts at data points as one collection of glyph outlines: ten times quicker than Text artists.

    ``anchor``: shares of a text's width and of a digit's height that lie left of and below its point (0..1), then a
    shift in points; ``size`` in points.
    """
    if not texts:
        return
    across, up, right, higher = anchor
    sizes = np.broadcast_to(np.asarray(size, float), len(texts))
    unit = float(sizes.max())
    outlines = [_outline(text, across, up, right / unit, higher / unit) for text in texts]
    style: dict[str, Any] = {"facecolors": "black", "linewidths": 0, "zorder": 5, "clip_on": False}
    # a PathCollection scales its paths by the square root of the sizes
    _add(axes, "PathCollection", gid, outlines, sizes**2, offsets=at, offset_transform=axes.transData, **style)


@lru_cache(maxsize=4096)
def _outline(text: str, across: float, up: float, right: float, higher: float) -> Outline:
    """Outline of a text in font size 1 around its anchor."""
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), text.replace("$", r"\$"), size=100)
    width = path.get_extents().x1 if len(path.vertices) else 0.0
    digit_height = 73.0  # of DejaVu Sans, matplotlib's own font
    vertices = (path.vertices - (across * width, up * digit_height)) / 100 + (right, higher)
    return Outline(vertices, path.codes)


def _draw_path(axes: Axes, bars: list[Bar], path: list[int]) -> None:
    """Outline the operations of the critical path and join them."""
    on_path = set(path)
    marked = [b for b in bars if b.op in on_path]
    style: dict[str, Any] = {"linewidths": 1.4, "zorder": 4}
    _add(axes, "PolyCollection", "critical", _corners(marked), facecolors="none", edgecolors="black", **style)
    lines = [[(a.start + a.duration, _middle(a)), (b.start, _middle(b))] for a, b in _joints(bars, path)]
    _add(axes, "LineCollection", "joints", lines, colors="black", linewidths=1.0, zorder=4)


# ---- plotly -------------------------------------------------------------------------------------------------------
def gantt_html(instance: ShopInstance, schedule: Schedule, title: str | None = None) -> str:
    """The chart as one HTML page that needs no network: hover for details, click a job in the legend to hide it.

    Args:
        instance: The problem.
        schedule: A complete or partial schedule.
        title: Headline; default as in :func:`gantt`.

    Raises:
        MissingExtraError: plotly is not installed (extra ``report``).
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise MissingExtraError("plotly", "report", "An interactive Gantt chart") from error

    rows, bars = layout(instance, schedule)
    complete = bool((np.asarray(schedule.start) >= 0).all())
    path = critical_path(instance, schedule) if complete else []
    on_path = set(path)
    figure = go.Figure()
    for job in sorted({b.job for b in bars}):
        mine = [b for b in bars if b.job == job]
        figure.add_bar(
            orientation="h",
            name=html.escape(instance.op_names[mine[0].op] if _one_job_an_operation(instance) else f"job {job}"),
            base=[b.start for b in mine],
            x=[b.duration for b in mine],
            y=[_middle(b) for b in mine],
            width=[b.height for b in mine],
            text=[html.escape(_job_label(instance, b)) for b in mine],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": "black"},
            customdata=[_hover(instance, schedule, rows, b) for b in mine],
            hovertemplate="<b>%{customdata[0]}</b><br>job %{customdata[1]}, %{customdata[2]}<br>"
            "start %{customdata[3]}, end %{customdata[4]}, duration %{customdata[5]}%{customdata[6]}<extra></extra>",
            marker={
                "color": COLOURS[job % len(COLOURS)],
                "pattern": {"shape": PLOTLY_PATTERNS[job // len(COLOURS) % len(PLOTLY_PATTERNS)], "fgcolor": "white"},
                "line": {
                    "color": ["black" if b.op in on_path else "white" for b in mine],
                    "width": [2.0 if b.op in on_path else 0.5 for b in mine],
                },
            },
        )
    if len(path) > 1:
        xs: list[float | None] = []
        ys: list[float | None] = []
        for a, b in _joints(bars, path):
            xs += [a.start + a.duration, b.start, None]
            ys += [_middle(a), _middle(b), None]
        line = {"color": "black", "width": 1}
        figure.add_scatter(x=xs, y=ys, mode="lines", name="critical path", line=line, hoverinfo="skip")
    lanes = rows[-1].bottom + rows[-1].height
    figure.update_layout(
        title={"text": html.escape(_title(instance, schedule) if title is None else title)},
        barmode="overlay",
        template="plotly_white",
        height=round(180 + 36 * lanes),
        xaxis={"title": {"text": "time"}, "rangemode": "tozero"},
        yaxis={
            "tickvals": [row.bottom + row.height / 2 for row in rows],
            "ticktext": [html.escape(row.name) for row in rows],
            "range": [lanes, 0],
            "showgrid": False,
        },
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, div_id="gantt", config={"displaylogo": False})
    return page


def _hover(instance: ShopInstance, schedule: Schedule, rows: list[GanttRow], bar: Bar) -> list[str | int]:
    modes = int(instance.mode_ptr[bar.op + 1] - instance.mode_ptr[bar.op])
    mode = f"<br>mode {int(schedule.mode[bar.op])} of {modes}" if modes > 1 else ""
    name, row = html.escape(instance.op_names[bar.op]), html.escape(rows[bar.row].name)
    return [name, bar.job, row, bar.start, bar.start + bar.duration, bar.duration, mode]


# ---- files --------------------------------------------------------------------------------------------------------
def save_picture(instance: ShopInstance, solution: Schedule, path: str | Path) -> None:
    """Write a Gantt chart; the suffix of ``path`` chooses png, svg, pdf or html. An existing file is replaced.

    Raises:
        InputError: another suffix.
        MissingExtraError: html without plotly (extra ``report``).
        OSError: the file cannot be written; nothing half-written is left.
    """
    if picture_suffix(path, PICTURE_SUFFIXES) == ".html":
        write_text(path, gantt_html(instance, solution))
    else:
        write_figure(gantt(instance, solution), path)
