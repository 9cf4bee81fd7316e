"""Batched observations and infos of Gymnasium's vector envs: rows, copies, comparisons, one info dict a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def is_batch(value: Any, n: int) -> bool:
    """Whether ``value`` has one entry for each of ``n`` copies: an array with leading axis n, a list or tuple of n."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and len(value) == n
    return isinstance(value, list | tuple) and len(value) == n


def row(batch: Any, i: int) -> Any:
    """Entry ``i`` of batched observations: an array, an object array of observations, or a dict or tuple of batches.

    >>> row({"a": np.arange(3), "b": np.eye(3)}, 1)["a"]
    np.int64(1)
    """
    if isinstance(batch, Mapping):
        return {key: row(value, i) for key, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(row(value, i) for value in batch)
    return batch[i]


def copy_tree(value: Any) -> Any:
    """A copy of the arrays in a dict or tuple (or of one array); other values as they are."""
    if isinstance(value, Mapping):
        return {key: copy_tree(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(copy_tree(item) for item in value)
    return value.copy() if isinstance(value, np.ndarray) else value


def equal_trees(a: Any, b: Any) -> bool:
    """Whether two observations are the same: same keys, shapes, dtypes and values (NaN equals NaN)."""
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(equal_trees(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(equal_trees, a, b))
    x, y = np.asarray(a), np.asarray(b)
    return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind in "fc")


def shares_memory(a: Any, b: Any) -> bool:
    """Whether two observations (of one space) may overlap in memory."""
    if isinstance(a, Mapping):
        return any(shares_memory(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return any(map(shares_memory, a, b))
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.may_share_memory(a, b)


def split_infos(infos: Mapping[str, Any], members: Sequence[int], n: int) -> list[dict[str, Any]]:
    """Gymnasium's dict of batched infos (with ``_key`` masks) as one dict for each of ``members``, of ``n`` copies.

    >>> split_infos({"x": np.array([5, 0]), "_x": np.array([True, False])}, [0, 1], 2)
    [{'x': np.int64(5)}, {}]
    """
    rows: list[dict[str, Any]] = [{} for _ in members]
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        present = infos.get("_" + key)
        if isinstance(value, Mapping):
            entries: Sequence[Any] = split_infos(value, members, n)
        elif is_batch(value, n):
            entries = [value[i] for i in members]
        else:
            entries = [value] * len(members)
        for out, i, entry in zip(rows, members, entries, strict=True):
            if present is None or present[i]:
                out[key] = entry
    return rows
