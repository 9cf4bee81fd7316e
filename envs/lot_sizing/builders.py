"""Validated lot-sizing instances from plain numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.numbers import MAX_TABLE, numbers
from orl.envs.lot_sizing.demand import Demand
from orl.envs.lot_sizing.instance import LotSizingInstance

MAX_HORIZON = 10_000
MAX_ITEMS = 1_000
MAX_MACHINES = 1_000
MAX_UNITS = 1_000_000
MAX_COST = 1e9


@dataclass(frozen=True)
class _Field:
    """What a table may hold: its shape in letters (T, M, I, and J = I + 1) or shapes, and the range of its numbers."""

    shapes: tuple[str, ...]
    integer: bool
    low: float = 0
    high: float = MAX_UNITS


_FIELDS = {
    "production": _Field(("MI",), True),
    "setup_costs": _Field(("MI", "MJI"), False, high=MAX_COST),
    "setup_loss": _Field(("MI", "MJI"), True),
    "holding_costs": _Field(("I",), False, high=MAX_COST),
    "lost_sales_costs": _Field(("I",), False, high=MAX_COST),
    "max_inventory": _Field(("I",), True),
    "initial_inventory": _Field(("I",), True, low=-MAX_UNITS),
    "initial_setup": _Field(("M",), True, high=MAX_ITEMS),
    "backlog_costs": _Field(("I",), False, high=MAX_COST),
    "max_backlog": _Field(("I",), True),
    "demand_path": _Field(("TI",), True),
}


def lot_sizing(
    *,
    horizon: int,
    production: Any,
    setup_costs: Any,
    setup_loss: Any,
    holding_costs: Any,
    lost_sales_costs: Any,
    max_inventory: Any,
    demand: Demand,
    initial_inventory: Any = 0,
    initial_setup: Any = 0,
    backlog_costs: Any = 0,
    max_backlog: Any = 0,
    demand_path: Any = None,
    name: str = "lot_sizing",
    source: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> LotSizingInstance:
    """A lot-sizing instance, checked.

    Args:
        horizon: T, periods.
        production: [M, I], units a period, 0: the machine cannot make the item.
        setup_costs: [M, I], or [M, I + 1, I] where they depend on the item before (row 0: from idle), which is 0 on
            staying with an item.
        setup_loss: Units lost in a change-over, likewise.
        holding_costs: [I] or one number for all items, like the following ones.
        lost_sales_costs: [I], for each lost unit.
        max_inventory: [I], the largest stock at the end of a period.
        demand: Distribution (:mod:`orl.envs.lot_sizing.distributions`); non-stationary ones cover at least T periods.
        initial_inventory: [I], from -max_backlog to max_inventory, and
        initial_setup: [M], 0 idle or an item 1..I.
        backlog_costs: [I], for each unit of backlog at the end of a period.
        max_backlog: [I], 0: demand that is not met is lost.
        demand_path: [T, I]: makes the instance a scenario.
        name: Name of the instance.
        source: Where the numbers come from, for messages.
        labels: Other names of the fields, for messages.

    Raises:
        InputError: wrong shape, not a number, out of range, too large; the message names source, field and value.

    >>> from orl.envs.lot_sizing.distributions import binomial
    >>> instance = lot_sizing(horizon=10, production=[[3, 2]], setup_costs=[[1, 1]], setup_loss=[[1, 1]],
    ...                       holding_costs=0.1, lost_sales_costs=[2, 3], max_inventory=10, demand=binomial(2, 4, 0.4))
    >>> instance.n_items, instance.n_machines, instance.setup_costs[0].tolist()
    (2, 1, [[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    """
    label = {name: name for name in (*_FIELDS, "horizon", "name", "demand")} | dict(labels or {})
    if not isinstance(name, str) or len(name) > 1000:
        raise InputError("not a name", source=source, field=label["name"], value=name, expected="a text")
    periods = whole_number(horizon, label["horizon"], 1, MAX_HORIZON, source)
    if not isinstance(demand, Demand):
        raise InputError("not a Demand", source=source, field=label["demand"], value=type(demand).__name__)
    made = numbers(production, label["production"], None, integer=True, low=0, high=MAX_UNITS, source=source)
    if made.ndim != 2:
        expected = "a table [machines][items]"
        raise InputError(
            "wrong shape", source=source, field=label["production"], value=list(made.shape), expected=expected
        )
    sizes = {"T": periods, "M": made.shape[0], "I": made.shape[1], "J": made.shape[1] + 1}
    for letter, what, limit in (("M", "machines", MAX_MACHINES), ("I", "items", MAX_ITEMS)):
        if not 1 <= sizes[letter] <= limit:
            raise InputError(
                f"bad number of {what}",
                source=source,
                field=label["production"],
                value=sizes[letter],
                expected=f"1..{limit}",
            )
    for size, what in ((sizes["M"] * sizes["I"] * sizes["J"], "production"), (periods * sizes["I"], "horizon")):
        if size > MAX_TABLE:
            raise InputError("too large", source=source, field=label[what], value=size, expected=f"<= {MAX_TABLE}")
    given = {
        "setup_costs": setup_costs,
        "setup_loss": setup_loss,
        "holding_costs": holding_costs,
        "lost_sales_costs": lost_sales_costs,
        "max_inventory": max_inventory,
        "initial_inventory": initial_inventory,
        "initial_setup": initial_setup,
        "backlog_costs": backlog_costs,
        "max_backlog": max_backlog,
    } | ({} if demand_path is None else {"demand_path": demand_path})
    arrays = {
        field: _array(value, _FIELDS[field], label[field], sizes, source, scalars=field not in ("demand_path",))
        for field, value in given.items()
    }
    for field in ("setup_costs", "setup_loss"):
        arrays[field] = _from_every_setup(arrays[field], label[field], source)
    _require_start(arrays, sizes["I"], label, source)
    demand = _fitting_demand(demand, periods, sizes["I"], label["demand"], source)
    return LotSizingInstance(name=name, horizon=periods, production=made, demand=demand, **arrays)


def change_horizon(instance: LotSizingInstance, horizon: int) -> LotSizingInstance:
    """See :meth:`LotSizingInstance.with_horizon`."""
    periods = whole_number(horizon, "horizon", 1, MAX_HORIZON, instance.name)
    demand, path = instance.demand, instance.demand_path
    covered = [] if demand.stationary else [len(demand.values)]
    covered += [] if path is None else [len(path)]
    if covered and periods > min(covered):
        raise InputError(
            "demand is not known that far",
            source=instance.name,
            field="horizon",
            value=periods,
            expected=f"1..{min(covered)}",
        )
    return replace(
        instance,
        name=f"{re.sub(r'-t[0-9]+$', '', instance.name)}-t{periods}",
        horizon=periods,
        demand=_fitting_demand(demand, periods, instance.n_items, "demand", instance.name),
        demand_path=None if path is None else path[:periods].copy(),
    )


# ---- checks --------------------------------------------------------------------------------------------------------
def whole_number(value: Any, field: str, low: int, high: int, source: str | None = None) -> int:
    """``value`` as an int in low..high; 6.0 counts as 6, bools do not. Raises InputError otherwise."""
    return int(numbers(value, field, (), integer=True, low=low, high=high, source=source))


def _array(
    value: Any, field: _Field, label: str, sizes: Mapping[str, int], source: str | None, scalars: bool
) -> npt.NDArray[Any]:
    array = numbers(value, label, None, integer=field.integer, low=field.low, high=field.high, source=source)
    shapes = [tuple(sizes[letter] for letter in letters) for letters in field.shapes]
    if array.ndim == 0 and scalars:
        return np.full(shapes[0], array[()])
    if array.shape not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise InputError("wrong shape", source=source, field=label, value=list(array.shape), expected=expected)
    return array


def _from_every_setup(table: npt.NDArray[Any], label: str, source: str | None) -> npt.NDArray[Any]:
    """A set-up table [M, I] as [M, I + 1, I]; one that has that shape must be 0 where nothing changes."""
    n_items = table.shape[-1]
    same = np.arange(n_items + 1)[:, None] == np.arange(1, n_items + 1)
    if table.ndim == 2:
        return np.where(same, 0, table[:, None, :]).astype(table.dtype)
    if table[:, same].any():
        m, k = np.argwhere(table[:, same])[0].tolist()
        place = f"{label}[{m}][{k + 1}][{k}]"
        raise InputError(
            "staying with an item is no change-over",
            source=source,
            field=place,
            value=table[m, k + 1, k].item(),
            expected="0",
        )
    return table


def _require_start(
    arrays: Mapping[str, npt.NDArray[Any]], n_items: int, label: Mapping[str, str], source: str | None
) -> None:
    """Start inside the limits of the stock; set-ups that exist."""
    inventory, low, high = arrays["initial_inventory"], -arrays["max_backlog"], arrays["max_inventory"]
    for i in np.flatnonzero((inventory < low) | (inventory > high)).tolist():
        raise InputError(
            "outside the limits of the stock",
            source=source,
            field=f"{label['initial_inventory']}[{i}]",
            value=int(inventory[i]),
            expected=f"{low[i]}..{high[i]}",
        )
    setup = arrays["initial_setup"]
    for m in np.flatnonzero(setup > n_items).tolist():
        raise InputError(
            "no such item",
            source=source,
            field=f"{label['initial_setup']}[{m}]",
            value=int(setup[m]),
            expected=f"0..{n_items}",
        )


def _fitting_demand(demand: Demand, horizon: int, n_items: int, label: str, source: str | None) -> Demand:
    """The demand, cut to the horizon."""
    if demand.n_items != n_items:
        raise InputError(
            "wrong number of items", source=source, field=label, value=demand.n_items, expected=str(n_items)
        )
    if not demand.stationary and len(demand.values) < horizon:
        raise InputError(
            "too few periods", source=source, field=label, value=len(demand.values), expected=f"at least {horizon}"
        )
    if demand.stationary or len(demand.values) == horizon:
        return demand
    return Demand(demand.values[:horizon], demand.probabilities[:horizon], demand.correlation)
