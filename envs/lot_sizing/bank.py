"""Instances of equal size laid out in arrays with a leading axis, one row an instance, as the kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.envs.lot_sizing.bounds import PREFIXES
from orl.envs.lot_sizing.instance import Incompatible, LotSizingInstance

Arrays = tuple[npt.NDArray[Any], ...]

TABLES = (
    "made",
    "change_cost",
    "legal",
    "limits",
    "money",
    "unit",
    "sizes",
    "values",
    "thresholds",
    "guide",
    "factor",
)
"""The tables in the order of the places ``MADE``, ``CHANGE_COST``, ... of :mod:`orl.envs.lot_sizing.kernel`."""
START = ("first_inventory", "first_setup", "able", "starts_fixed")
BOUND_TABLES = ("production", "entry_cost", "lengths", "prices", "worth", "earned")
GUIDE_CELLS = 256


class Bank:
    """Rows of instances with the same numbers of items I and machines M.

    Attributes:
        instances: The instance of each row.
        tables: The tuple ``bank`` of the kernels, R rows each:

            - ``made`` int64[R, M, I + 1, I]: units made when a machine goes from item j (0 idle) to item i;
            - ``change_cost`` float64[R, M, I + 1, I]: what that change-over costs;
            - ``legal`` bool[R, M, I + 1]: legal actions;
            - ``limits`` int64[R, 2, I]: largest stock, largest backlog;
            - ``money`` float64[R, 3, I]: holding, lost-sales and backlog cost of a unit;
            - ``unit`` float64[R, I]: what scaled observations divide stock by, max(1, largest stock);
            - ``sizes`` int64[R, 3]: horizon, periods with demand tables of their own, whether items are correlated;
            - ``values`` int64[R, P, I, K] and ``thresholds`` float64[R, P, I, K]: of the demand tables;
            - ``guide`` int32[R, P, I, 256]: where the search for uniform numbers in [g / 256, (g + 1) / 256) starts;
            - ``factor`` float64[R, I, I]: Cholesky factor of the correlation.
        start: ``(first_inventory int64[R, I], first_setup int64[R, M], able int64[R, M, 1 + I], starts_fixed
            bool[R])``: the instances' own starts; number of items that a machine can make, then these items; whether
            it is a scenario.
        bound_tables: What :func:`orl.envs.lot_sizing.kernel.bound_batch` reads: ``production`` int64[R, M, I],
            ``entry_cost`` float64[R, M, I], cheapest change-overs, ``lengths`` int64[R, S] of beginnings of a path,
            ``prices`` float64[R, W, I] that are tried, ``worth`` float64[R, W, M, I] of a full period at these prices,
            ``earned`` float64[R, S, W, M], the most that a machine earns in so many periods after a change-over.
    """

    def __init__(self, instances: Sequence[LotSizingInstance], incompatible: Incompatible) -> None:
        self.instances = list(instances)
        self.incompatible = incompatible
        self._stack()

    def put(self, row: int, instance: LotSizingInstance) -> bool:
        """Replace the instance of a row; returns whether the arrays are new ones (larger tables were needed)."""
        if self.instances[row] is instance:
            return False
        self.instances[row] = instance
        parts = _row(instance, self.incompatible)
        if any(max(a, b) > b for k in parts for a, b in zip(parts[k].shape, self._arrays[k].shape[1:], strict=True)):
            self._stack()
            return True
        for key, part in parts.items():
            self._arrays[key][row] = _widened(key, part, self._arrays[key].shape[1:])
        return False

    @property
    def longest(self) -> int:
        """The largest horizon."""
        return max(instance.horizon for instance in self.instances)

    def _stack(self) -> None:
        """Lay all instances out anew, as wide as the widest needs."""
        distinct = {id(instance): instance for instance in self.instances}
        parts = {key: _row(instance, self.incompatible) for key, instance in distinct.items()}
        first = next(iter(parts.values()))
        shapes = {
            k: tuple(max(sizes) for sizes in zip(*(p[k].shape for p in parts.values()), strict=True)) for k in first
        }
        wide = {key: {k: _widened(k, part[k], shapes[k]) for k in part} for key, part in parts.items()}
        self._arrays = {k: np.ascontiguousarray([wide[id(instance)][k] for instance in self.instances]) for k in first}
        self.tables: Arrays = tuple(self._arrays[k] for k in TABLES)
        self.start: Arrays = tuple(self._arrays[k] for k in START)
        self.bound_tables: Arrays = tuple(self._arrays[k] for k in BOUND_TABLES)


def _widened(key: str, part: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A table of demand or prices, filled up to a shape; other tables have that shape already."""
    if part.shape == shape:
        return part
    pads = [(0, wide - own) for wide, own in zip(shape, part.shape, strict=True)]
    if key in ("thresholds", "prices", "worth", "earned"):
        return np.pad(part, pads, constant_values=np.inf if key == "thresholds" else 0.0)
    return np.pad(part, pads, mode="edge")


def _row(instance: LotSizingInstance, incompatible: Incompatible) -> dict[str, npt.NDArray[Any]]:
    """The arrays of one instance by name; the tables of :class:`Bank` without their leading axis."""
    made = instance.production[:, None, :] - instance.setup_loss
    if incompatible != "reference":
        made = np.maximum(made, 0)
    able = instance.production > 0
    legal = np.concatenate([np.ones((len(able), 1), np.bool_), able | (incompatible != "mask")], axis=1)
    items = np.argsort(~able, axis=1, kind="stable") + 1  # the items that a machine can make come first
    demand, correlation = instance.demand, instance.demand.factor
    other = np.arange(instance.n_items + 1)[:, None] != np.arange(1, instance.n_items + 1)
    rate = instance.production.max(0)
    levels = np.unique(instance.lost_sales_costs * rate)[:, None]
    prices = np.minimum(instance.lost_sales_costs, np.where(rate > 0, levels / np.maximum(rate, 1), np.inf))
    entry_cost = np.where(other, instance.setup_costs, np.inf).min(1)
    entry_loss = np.minimum(np.where(other, instance.setup_loss, np.iinfo(np.int64).max).min(1), instance.production)
    worth = prices[:, None, :] * instance.production  # [W, M, I]
    entered = entry_cost + prices[:, None, :] * entry_loss
    lengths = np.minimum((*PREFIXES, instance.horizon), instance.horizon)
    return {
        "made": made,
        "change_cost": instance.setup_costs,
        "legal": legal,
        "limits": np.stack([instance.max_inventory, instance.max_backlog]),
        "money": np.stack([instance.holding_costs, instance.lost_sales_costs, instance.backlog_costs]),
        "unit": np.maximum(instance.max_inventory, 1).astype(np.float64),
        "sizes": np.array([instance.horizon, len(demand.values), correlation is not None]),
        "values": demand.values,
        "thresholds": demand.thresholds,
        "guide": _guide(demand.thresholds),
        "factor": np.eye(instance.n_items) if correlation is None else correlation,
        "first_inventory": instance.initial_inventory,
        "first_setup": instance.initial_setup,
        "able": np.concatenate([able.sum(1, keepdims=True), items], axis=1),
        "starts_fixed": np.array(instance.demand_path is not None),
        "production": instance.production,
        "entry_cost": entry_cost,
        "lengths": lengths,
        "prices": prices,
        "worth": worth,
        "earned": np.maximum((lengths[:, None, None, None] * worth - entered).max(-1), 0.0),
    }


def _guide(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """int32[P, I, 256]: how many thresholds a number in each cell of [0, 1) has passed at least."""
    edges = np.arange(GUIDE_CELLS) / GUIDE_CELLS
    rows = thresholds.reshape(-1, thresholds.shape[-1])
    passed = np.array([np.searchsorted(row, edges, side="right") for row in rows], np.int32)
    return passed.reshape(*thresholds.shape[:-1], GUIDE_CELLS)
