"""The figures of a report as plotly's plain JSON: traces and layout, no colour of the page itself.

Every subject keeps its colour, dash and marker in all figures of a report. Labels are escaped, as plotly reads a little
HTML in them.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from orl.bench.learning_curves import sample_efficiency
from orl.bench.report_data import Arena, Measure, Sweep, curves
from orl.bench.report_sections import colour_of
from orl.bench.report_summaries import Comparison, Note
from orl.bench.statistics import Array, performance_profile
from orl.common.errors import InputError

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")
RESAMPLES = 1000
MOST_LEVELS = 150
"""Levels of a performance profile."""

Figure = dict[str, Any]


def standing_figure(comparison: Comparison, places: dict[str, int]) -> Figure:
    """Interquartile means with their intervals, the best on top."""
    traces = []
    order = list(reversed(comparison.standings))
    for height, subject in enumerate(order):
        standing = comparison.standings[subject]
        interval = standing.iqm
        error = {
            "type": "data",
            "symmetric": False,
            "array": _plain([interval.high - interval.estimate]),
            "arrayminus": _plain([interval.estimate - interval.low]),
            "thickness": 2,
            "width": 5,
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(subject),
                "x": _plain([interval.estimate]),
                "y": [height],
                "error_x": error,
                "marker": {"color": colour_of(places[subject]), "symbol": _marker(places[subject]), "size": 11},
                "hovertemplate": "%{x}<extra></extra>",
                "showlegend": False,
            }
        )
    layout = {
        "xaxis": _axis(comparison.measure, "IQM of "),
        "yaxis": {
            "automargin": True,
            "tickvals": list(range(len(order))),
            "ticktext": [f"{escape(_short(subject, 24))}  " for subject in order],
            "range": [-0.6, len(order) - 0.4],
            "zeroline": False,
        },
    }
    return {"data": traces, "layout": layout}


def curve_figure(sweep: Sweep, arena: Arena, places: dict[str, int]) -> tuple[Figure, list[Note]] | None:
    """Learning curves: interquartile mean over the runs of a subject and its band; notes on what weakens them.

    None without a curve.
    """
    measure, found = curves(sweep, arena)
    traces: list[dict[str, Any]] = []
    notes = []
    for subject, runs in found.items():
        try:
            course = sample_efficiency(runs, resamples=RESAMPLES)
        except InputError as error:
            notes.append((subject, f"No curve: {error}."))
            continue
        if course.note:
            notes.append((subject, course.note))
        colour, place = colour_of(places[subject]), places[subject]
        common = {"type": "scatter", "x": _plain(course.steps), "legendgroup": str(place)}
        if np.isfinite(course.low).all():
            edge = {**common, "mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
            traces.append({**edge, "y": _plain(course.low)})
            traces.append({**edge, "y": _plain(course.high), "fill": "tonexty", "fillcolor": _transparent(colour)})
        traces.append(
            {
                **common,
                "mode": "lines+markers",
                "name": escape(_short(subject)),
                "y": _plain(course.estimate),
                "line": {"color": colour, "dash": _dash(place), "width": 2.2},
                "marker": {"color": colour, "symbol": _marker(place), "size": 7, "maxdisplayed": 12},
                "hovertemplate": "%{x} steps: %{y}",
            }
        )
    if not traces:
        return None
    layout = {"xaxis": {"title": {"text": "training steps"}, "automargin": True}, "yaxis": _axis(measure, "IQM of ")}
    return {"data": traces, "layout": layout}, notes


def profile_figure(comparison: Comparison, places: dict[str, int]) -> Figure:
    """Performance profile: the share of runs that are at least as good as each level."""
    measure = comparison.measure
    levels = _levels(comparison)
    sign = 1.0 if measure.maximise else -1.0
    shape = "vh" if measure.maximise else "hv"  # a step belongs to the score itself
    traces: list[dict[str, Any]] = []
    for subject in comparison.standings:
        if subject not in comparison.ranked:
            continue
        # A share above a level becomes one at the level or beyond it with a level a hair lower.
        below = np.nextafter(sign * levels, -np.inf)
        found = performance_profile(sign * comparison.scores[subject], below, resamples=RESAMPLES)
        place, colour = places[subject], colour_of(places[subject])
        common = {"type": "scatter", "mode": "lines", "x": _plain(levels), "legendgroup": str(place)}
        if np.isfinite(found.low).all():
            edge = {**common, "line": {"width": 0, "shape": shape}, "showlegend": False, "hoverinfo": "skip"}
            traces.append({**edge, "y": _plain(found.low)})
            traces.append({**edge, "y": _plain(found.high), "fill": "tonexty", "fillcolor": _transparent(colour)})
        traces.append(
            {
                **common,
                "name": escape(_short(subject)),
                "y": _plain(found.share),
                "line": {"color": colour, "dash": _dash(place), "width": 2.2, "shape": shape},
                "hovertemplate": "%{y:.0%} at %{x} or better",
            }
        )
    better = "or more" if measure.maximise else "or less"
    axis = _axis(measure)
    axis["title"] = {"text": f"{axis['title']['text']} of this {better}"}
    shares = {"title": {"text": "share of runs"}, "range": [-0.03, 1.03], "tickformat": ".0%", "automargin": True}
    return {"data": traces, "layout": {"xaxis": axis, "yaxis": shares}}


def _levels(comparison: Comparison) -> Array:
    """Every score that occurs (or even levels, where there are many) and a level beyond each end."""
    scores = np.unique(np.concatenate([comparison.scores[subject].ravel() for subject in comparison.ranked]))
    scores = scores[~np.isnan(scores)]
    low, high = float(scores[0]), float(scores[-1])
    margin = (high - low) * 0.03 or max(abs(high), 1.0) * 0.03
    inner = scores if len(scores) <= MOST_LEVELS else np.linspace(low, high, MOST_LEVELS)
    return np.concatenate([[low - margin], inner, [high + margin]])


def _axis(measure: Measure, before: str = "") -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": before + measure.name}, "automargin": True, "zeroline": False}
    return axis | ({"tickformat": ".1~%", "hoverformat": ".2%"} if measure.percent else {"hoverformat": ".4~g"})


def _marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]


def _dash(place: int) -> str:
    return DASHES[place % len(DASHES)]


def _transparent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def _short(label: str, length: int = 32) -> str:
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _plain(values: Any) -> list[float | None]:
    """Numbers for JSON: six digits, null where there is none."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64)]
