"""One picture of a lake: its tiles with a walk on them, or with the actions of a policy.

A walk is a line from the start; a dot marks where the walker is, small crosses where slips ended. A policy shows its
action at the first step as an arrow on every tile. matplotlib is imported when a picture is made; no global matplotlib
state is touched.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orl.common.atomic import atomic_path
from orl.common.errors import InputError
from orl.envs.frozen_lake.instance import LakeInstance, LakePolicy, LakeWalk
from orl.envs.frozen_lake.transition import MOVES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
COLOURS = {"S": "#EEDD88", "F": "#DDEEFF", "H": "#335577", "G": "#44BB99"}
_DPI = 100
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
    figure = Figure(figsize=(_even(side * lake.n_columns), _even(side * lake.n_rows)), dpi=_DPI)
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


def _even(inches: float) -> float:
    """The length rounded to an even number of pixels, as video encoders want."""
    return 2 * round(inches * _DPI / 2) / _DPI


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
    canvas: Any = lake_figure(lake, solution).canvas
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3].copy()


def save_picture(instance: LakeInstance, solution: LakeWalk | LakePolicy | None, path: str | Path) -> None:
    """Write a picture; the suffix of ``path`` chooses png, svg or pdf. An existing file is replaced.

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
    figure = lake_figure(instance, solution)
    figure.savefig(buffer, format=suffix[1:], dpi=1.5 * _DPI, metadata=dates.get(suffix))
    with atomic_path(path) as part:
        part.write_bytes(buffer.getvalue())
