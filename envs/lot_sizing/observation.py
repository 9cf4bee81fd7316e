"""Observation spaces of the lot-sizing MDP, before and after the decision, and the layout of observation rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.envs.lot_sizing import kernel
from orl.envs.lot_sizing.instance import Incompatible, LotSizingInstance

ObservationKind = Literal["flat", "raw", "inventory", "dict"]
KINDS: dict[ObservationKind, int] = {
    "flat": kernel.FLAT,
    "raw": kernel.RAW,
    "inventory": kernel.INVENTORY,
    "dict": kernel.SCALED,
}
Range = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def row_length(kind: ObservationKind, with_time: bool, n_items: int, n_machines: int) -> int:
    """Entries of an observation row of the kernels (``dict``: without the set-ups, which are integers of their own)."""
    setups = {"flat": n_machines * (n_items + 1), "raw": n_machines, "inventory": 0, "dict": 0}[kind]
    return n_items + setups + int(with_time)


def make_spaces(
    kind: ObservationKind,
    with_time: bool,
    instances: Sequence[LotSizingInstance] | None,
    incompatible: Incompatible,
    sample: LotSizingInstance,
) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Spaces of observations and post-decision observations of all ``instances``.

    None: instances come from a generator, so that stock has no known limit; ``sample`` is one of them.
    """
    if instances is None:
        unlimited = np.full(sample.n_items, np.inf)
        before = after = (-unlimited, unlimited)
    else:
        before, after = stock_ranges(instances, incompatible, kind in ("flat", "dict"))
    one, other = (_space(kind, with_time, stock, sample.n_machines) for stock in (before, after))
    return one, other


def stock_ranges(
    instances: Sequence[LotSizingInstance], incompatible: Incompatible, scaled: bool
) -> tuple[Range, Range]:
    """Lowest and highest stock float64[I] of all instances at decisions and after them."""
    before, after = [], []
    for instance in instances:
        made = instance.production[:, None, :] - instance.setup_loss
        if incompatible != "reference":
            made = np.maximum(made, 0)
        low = np.minimum(-instance.max_backlog, instance.initial_inventory)
        high = np.maximum(instance.max_inventory, instance.initial_inventory)
        unit = np.maximum(instance.max_inventory, 1) if scaled else 1
        least = low + np.minimum(made.min(1), 0).sum(0)
        most = high + np.maximum(made.max(1), 0).sum(0)
        before.append((low / unit, np.maximum(high / unit, 1.0 if scaled else 0.0)))
        after.append((least / unit, np.maximum(most / unit, 1.0 if scaled else 0.0)))
    ranges = [(np.min([low for low, _ in part], 0), np.max([high for _, high in part], 0)) for part in (before, after)]
    return ranges[0], ranges[1]


def _space(kind: ObservationKind, with_time: bool, stock: Range, n_machines: int) -> spaces.Space[Any]:
    low, high = stock
    n_items = len(low)
    if kind == "dict":
        parts: dict[str, spaces.Space[Any]] = {
            "inventory": spaces.Box(low.astype(np.float32), high.astype(np.float32)),
            "setup": spaces.MultiDiscrete([n_items + 1] * n_machines),
        }
        return spaces.Dict(parts | ({"time": spaces.Box(0.0, 1.0, (1,))} if with_time else {}))
    if kind != "inventory":
        width, top = (n_machines * (n_items + 1), 1) if kind == "flat" else (n_machines, n_items)
        low, high = np.append(low, np.zeros(width)), np.append(high, np.full(width, top))
    if with_time:
        low, high = np.append(low, 0.0), np.append(high, 1.0)
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))


def shaped(kind: ObservationKind, n_items: int, rows: npt.NDArray[np.float32], setup: npt.NDArray[np.int64]) -> Any:
    """Observations of rows float32[..., D] and set-ups int64[..., M]: the rows themselves, or a Dict of views."""
    if kind != "dict":
        return rows
    parts = {"inventory": rows[..., :n_items], "setup": setup}
    return parts if rows.shape[-1] == n_items else parts | {"time": rows[..., n_items:]}
