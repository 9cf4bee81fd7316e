"""Matplotlib figures as pixels and files, alike in every viewer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.atomic import atomic_path
from orl.common.errors import InputError

DPI = 100
"""Pixels an inch of pictures; files have half as many again."""
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")


def even_inches(inches: float) -> float:
    """The length rounded to an even number of pixels, as video encoders want.

    >>> even_inches(6.413)
    6.42
    """
    return 2 * round(inches * DPI / 2) / DPI


def pixels(figure: Any) -> npt.NDArray[np.uint8]:
    """A figure on an Agg canvas as uint8[H, W, 3]."""
    canvas = figure.canvas
    canvas.draw()
    rgb: npt.NDArray[np.uint8] = np.array(canvas.buffer_rgba(), dtype=np.uint8)[:, :, :3].copy()
    return rgb


def picture_suffix(path: str | Path, known: Sequence[str] = FIGURE_SUFFIXES) -> str:
    """The suffix of a picture's path in small letters. Raises InputError unless it is a known one.

    >>> picture_suffix("a/plan.PNG")
    '.png'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        expected = "a name that ends in " + ", ".join(known)
        raise InputError("unknown picture format", source=str(path), field="suffix", value=suffix, expected=expected)
    return suffix


def write_figure(figure: Any, path: str | Path) -> None:
    """Write a figure; the suffix of ``path`` chooses png, svg or pdf. An existing file is replaced.

    Raises:
        InputError: another suffix.
        OSError: the file cannot be written; nothing half-written is left.
    """
    suffix = picture_suffix(path)
    buffer = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(buffer, format=suffix[1:], dpi=1.5 * DPI, metadata=dates.get(suffix))
    with atomic_path(path) as part:
        part.write_bytes(buffer.getvalue())
