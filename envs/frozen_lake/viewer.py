"""One picture of a lake: its tiles with a walk on them, or with the actions of a policy.

A walk is a line from the start; a dot marks where the walker is, small crosses where slips ended. A policy shows its
action at the first step as an arrow on every tile. matplotlib is imported when a picture is made; no global matplotlib
state is touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.figures import DPI, even_inches, picture_suffix, pixels, write_figure
from orl.envs.frozen_lake.instance import LakeInstance, LakePolicy, LakeWalk
from orl.envs.frozen_lake.transition import MOVES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"S": "#EEDD88", "F": "#DDEEFF", "H": "#335577", "G": "#44BB99"}
_TILE, _LARGEST = 0.4, 12.0  # inches


def lake_figure(lake: LakeInstance, solution: LakeWalk | LakePolicy | None = None) -> Figure:
    """The lake as a matplotlib figure, with a walk or a policy if one is given.

    Raises:
        InputError: ``lake.check`` does not accept the solution.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    if solution is not None and not (check := lake.check(solution)).feasible:
        raise InputError("not a solution of this lake", source=lake.name, value="; ".join(check.violations))
    side = min(_TILE, _LARGEST / max(lake.n_rows, lake.n_columns))
    figure = Figure(figsize=(even_inches(side * lake.n_columns), even_inches(side * lake.n_rows)), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow([[to_rgb(COLOURS[letter]) for letter in row] for row in lake.tiles], aspect="auto")
    axes.set_xticks(np.arange(lake.n_columns - 1) + 0.5)
    axes.set_yticks(np.arange(lake.n_rows - 1) + 0.5)
    axes.grid(color="white", linewidth=1.0)
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
    axes.spines[:].set_visible(False)
    for name in "SG":
        row, column = divmod("".join(lake.tiles).index(name), lake.n_columns)
        axes.text(column, row, name, ha="center", va="center", fontsize=24 * side, color="black")
    if isinstance(solution, LakePolicy):
        _draw_policy(axes, lake, solution)
    elif solution is not None:
        _draw_walk(axes, lake, solution)
    return figure


def _draw_walk(axes: Any, lake: LakeInstance, walk: LakeWalk) -> None:
    rows, columns = np.divmod(lake.replay(walk), lake.n_columns)
    slipped = np.flatnonzero((rows[2::2] != rows[1::2]) | (columns[2::2] != columns[1::2])) * 2 + 2
    axes.plot(columns, rows, color="#CC3311", linewidth=1.5, alpha=0.6)
    axes.plot(columns[slipped], rows[slipped], "x", color="#CC3311", markersize=5)
    axes.plot(columns[-1:], rows[-1:], "o", color="#CC3311", markersize=9)


def _draw_policy(axes: Any, lake: LakeInstance, policy: LakePolicy) -> None:
    tiles = np.flatnonzero(~lake.tables.ends)
    rows, columns = np.divmod(tiles, lake.n_columns)
    down, right = np.array(MOVES)[policy.actions[0, tiles]].T
    axes.quiver(columns, rows, right, down, angles="xy", pivot="mid", scale_units="xy", scale=1.6, color="#333333")


def lake_rgb(lake: LakeInstance, solution: LakeWalk | LakePolicy | None = None) -> npt.NDArray[np.uint8]:
    """The picture of :func:`lake_figure` as uint8[H, W, 3]; H and W are even."""
    return pixels(lake_figure(lake, solution))


def save_picture(instance: LakeInstance, solution: LakeWalk | LakePolicy | None, path: str | Path) -> None:
    """Write a picture; the suffix of ``path`` chooses png, svg or pdf. An existing file is replaced.

    Raises:
        InputError: another suffix.
        OSError: the file cannot be written; nothing half-written is left.
    """
    picture_suffix(path)  # before anything is drawn
    write_figure(lake_figure(instance, solution), path)
