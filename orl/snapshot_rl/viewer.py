"""A picture of a set of snapshots: what the teacher expected when, the clusters, and how starts were drawn.

matplotlib is imported when a picture is made; no global matplotlib state is touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.figures import DPI, even_inches, picture_suffix, write_figure
from orl.snapshot_rl.selection import StartSampler
from orl.snapshot_rl.snapshots import SnapshotSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#000000")


def snapshot_figure(snapshots: SnapshotSet, start_counts: npt.ArrayLike | None = None) -> Figure:
    """Values over the teacher's time, coloured by cluster; below, how probable each cluster is as a start.

    Without clusters a start is as probable as a cluster is large (grey bars); with them, every cluster is as probable
    as any other (line). ``start_counts`` adds what was drawn: coloured bars below, and above, marks as large as the
    number of episodes that began there.

    Args:
        snapshots: At least one.
        start_counts: int[n], episodes that began at each snapshot (``SnapshotWrapper.start_counts``).

    Raises:
        InputError: No snapshots, or another number of counts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(snapshots)
    if n == 0:
        raise InputError("no snapshots", field="snapshots", expected="at least one")
    counts = None if start_counts is None else np.asarray(start_counts, np.int64)
    if counts is not None and counts.shape != (n,):
        raise InputError("another number of counts", field="start_counts", value=counts.shape, expected=f"[{n}]")
    labels = np.unique(snapshots.clusters)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(labels))]
    figure = Figure(figsize=(even_inches(8.0), even_inches(6.4)), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, height_ratios=[2, 1])
    most = 1 if counts is None else max(1, int(counts.max()))
    for label, colour in zip(labels.tolist(), colours, strict=True):
        inside = snapshots.clusters == label
        sizes = 12.0 if counts is None else 6.0 + 60.0 * counts[inside] / most
        above.scatter(snapshots.elapsed[inside], snapshots.values[inside], sizes, colour, alpha=0.7, linewidths=0)
    above.set_xlabel("steps of the teacher since the start of its episode")
    above.set_ylabel("value")
    title = f"{n} snapshots of {len(snapshots.episode_returns)} episodes"
    above.set_title(title if (env := snapshots.about.get("env")) is None else f"{env}: {title}", loc="left")
    _draw_starts(below, snapshots, labels, colours, counts)
    return figure


def _draw_starts(axes: Any, snapshots: SnapshotSet, labels: Any, colours: Any, counts: Any) -> None:
    places = np.arange(len(labels))
    inside = [snapshots.clusters == label for label in labels]
    size = np.array([members.mean() for members in inside])
    equal = StartSampler(snapshots.clusters).probabilities()
    axes.bar(places - 0.2, size, 0.4, color="#DDDDDD", label="share of the snapshots")
    shares = [equal[members].sum() for members in inside]
    axes.hlines(shares, places - 0.45, places + 0.45, colors="black", label="uniform over clusters")
    if counts is not None and counts.sum():
        drawn = [counts[members].sum() / counts.sum() for members in inside]
        axes.bar(places + 0.2, drawn, 0.4, color=colours, label=f"share of {counts.sum()} starts")
    names = [f"{snapshots.values[members].min():.3g} to {snapshots.values[members].max():.3g}" for members in inside]
    axes.set_xticks(places, names, fontsize=8)
    axes.set_xlabel("values of the cluster")
    axes.set_ylabel("share")
    axes.legend(fontsize=8, frameon=False)


def save_picture(snapshots: SnapshotSet, path: str | Path, start_counts: npt.ArrayLike | None = None) -> None:
    """Write :func:`snapshot_figure`; the suffix of ``path`` chooses png, svg or pdf.

    Raises:
        InputError: Another suffix, or what :func:`snapshot_figure` refuses.
    """
    picture_suffix(path)
    write_figure(snapshot_figure(snapshots, start_counts), path)
