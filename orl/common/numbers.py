"""Numbers that come from anywhere, as arrays: every mistake is one InputError that names the place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError

MAX_TABLE = 4_000_000
"""Most numbers of one table."""
MAX_NUMBER = 1e9
"""Largest size of any number unless told otherwise; beyond it a linear programme would lose its accuracy."""
MAX_LEVELS = 3
"""Levels of nested lists where any shape will do."""

Shape = tuple[int | None, ...] | None


def numbers(
    value: Any,
    field: str,
    shape: Shape,
    *,
    integer: bool,
    low: float = -MAX_NUMBER,
    high: float = MAX_NUMBER,
    none: float | None = None,
    source: str | None = None,
) -> npt.NDArray[Any]:
    """A number, nested lists or an array as a float64 or int64 array that owns its data.

    Args:
        value: What was given.
        field: Its name in messages.
        shape: The shape it must have, where a length None may be any but 0; None: any shape.
        integer: Whether only whole numbers will do (6.0 is one).
        low: Smallest and
        high: largest number allowed.
        none: What a None stands for, an infinity that ``low`` and ``high`` do not apply to; None: Nones are refused.
        source: Where it comes from, for messages.

    Raises:
        InputError: bools, texts, NaN, ragged lists, another shape, out of range.

    >>> numbers([[1, 2.0]], "production", (1, None), integer=True, low=0).tolist()
    [[1, 2]]
    >>> numbers([1.5, None], "limits", (2,), integer=False, none=float("inf")).tolist()
    [1.5, inf]
    """
    kind = "whole number" if integer else "number"
    expected = f"a {kind} in {low:g}..{high:g}" if shape == () else f"{kind}s in {low:g}..{high:g}"
    array = _array(value, field, shape, expected, none, source)
    if shape is not None:
        _require_shape(array, field, shape, source)
    wrong = ~((array >= low) & (array <= high))  # NaN fails both
    if none is not None:
        wrong &= array != none
    if integer:
        wrong |= array != np.round(array)
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0].tolist())
        found = _plain(array[where])
        raise InputError("bad number", source=source, field=_place(field, where), value=found, expected=expected)
    return array.astype(np.int64) if integer else array


def floats(
    value: Any,
    field: str,
    shape: Shape,
    *,
    low: float = -MAX_NUMBER,
    high: float = MAX_NUMBER,
    none: float | None = None,
    source: str | None = None,
) -> npt.NDArray[np.float64]:
    """:func:`numbers` as float64."""
    return numbers(value, field, shape, integer=False, low=low, high=high, none=none, source=source)


def integers(
    value: Any, field: str, shape: Shape, *, low: int, high: int, source: str | None = None
) -> npt.NDArray[np.int64]:
    """:func:`numbers` as int64."""
    return numbers(value, field, shape, integer=True, low=low, high=high, source=source)


def _place(field: str, where: tuple[int, ...]) -> str:
    """``field[2][0]``."""
    return field + "".join(f"[{k}]" for k in where)


def _plain(number: Any) -> float | int:
    """A number as it was written: 6, not 6.0."""
    value = float(number)
    return int(value) if value.is_integer() else value


def _require_shape(
    array: npt.NDArray[np.float64], field: str, shape: tuple[int | None, ...], source: str | None
) -> None:
    fits = array.ndim == len(shape) and all(
        found == wanted if wanted is not None else found > 0 for found, wanted in zip(array.shape, shape, strict=False)
    )
    if not fits:
        wanted = "[" + ", ".join("at least 1" if size is None else str(size) for size in shape) + "]"
        found = list(array.shape) if array.ndim else _plain(array) if np.isfinite(array) else float(array)
        expected = f"shape {wanted}" if shape else "one number"
        raise InputError("wrong shape", source=source, field=field, value=found, expected=expected)


def _array(
    value: Any, field: str, wanted: Shape, expected: str, none: float | None, source: str | None
) -> npt.NDArray[np.float64]:
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise InputError("not numbers", source=source, field=field, value=str(array.dtype), expected=expected)
        return array.astype(np.float64)
    levels = MAX_LEVELS if wanted is None else max(len(wanted), 1)
    shape: list[int] = []
    level = value
    while isinstance(level, list | tuple):
        shape.append(len(level))
        if len(shape) > levels or math.prod(shape) > MAX_TABLE:
            limit = f"at most {MAX_TABLE} numbers, {levels} level{'s' if levels > 1 else ''}"
            raise InputError("too large", source=source, field=field, expected=limit)
        level = level[0] if level else None
    flat: list[float] = []
    _flatten(value, tuple(shape), field, flat, expected, none, source)
    if wanted is not None and len(shape) < len(wanted) and not all(shape) and (*shape,) == wanted[: len(shape)]:
        shape = [*shape, *(size or 0 for size in wanted[len(shape) :])]  # [] stands for an empty table
    return np.array(flat, np.float64).reshape(shape)


def _flatten(
    value: Any,
    shape: tuple[int, ...],
    where: str,
    flat: list[float],
    expected: str,
    none: float | None,
    source: str | None,
) -> None:
    if shape:
        if not isinstance(value, list | tuple) or len(value) != shape[0]:
            found = len(value) if isinstance(value, list | tuple) else value
            wanted = f"a list of {shape[0]}, like the first"
            raise InputError("wrong shape", source=source, field=where, value=found, expected=wanted)
        for k, part in enumerate(value):
            _flatten(part, shape[1:], f"{where}[{k}]", flat, expected, none, source)
        return
    if value is None and none is not None:
        flat.append(none)
        return
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        found = value if isinstance(value, bool | str) else type(value).__name__
        raise InputError("not a number", source=source, field=where, value=found, expected=expected)
    try:
        flat.append(float(value))
    except OverflowError:
        flat.append(math.inf if value > 0 else -math.inf)
