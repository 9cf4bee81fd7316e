"""Instance files: JSON in the layout of the authors of PDPPO, and the versioned JSON of this package.

The authors' layout (``leokan92/discrete_lot_sizing_rl_agents``, folder ``cfg_env``) is an object with

==================================== =================================================================================
``time_horizon``                     T
``n_items``, ``n_machines``          I, M
``machine_production``               [M][I], units a period; 0: the machine cannot make the item
``setup_costs``, ``setup_loss``      [M][I]; also [M][I + 1][I], from every set-up (0: idle) to every item
``holding_costs``                    [I]
``lost_sales_costs``                 [I]
``max_inventory_level``              [I]
``initial_inventory``                [I]
``initial_setup``                    [M], 0 idle, i in 1..I; idle where the machine cannot make i
``demand_distribution``              see below
==================================== =================================================================================

and, as options of this package, ``name``, ``backlog_costs`` [I], ``max_backlog`` [I], ``demand_path`` [T][I] and
``demand_correlation`` [I][I] (Gaussian copula). Distributions: ``{name: binomial, n, p}``, ``{name: discrete_uniform,
low, high}`` (high is exclusive), ``{name: probability_mass_function, vals, probs}``, ``{name: item_specific_uniform,
distributions: [one an item]}``, and of this package ``{name: deterministic, values}`` ([I] or [T][I]) and ``{name:
periods, distributions: [one a period]}``. Whole numbers may be written as floats; keys not listed are ignored.

Whatever is wrong with a file, the answer is one InputError that names file, field and value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from orl.common.atomic import write_text
from orl.common.errors import InputError, UnknownNameError
from orl.common.json_files import read_json
from orl.common.numbers import MAX_TABLE, numbers
from orl.envs.lot_sizing import distributions
from orl.envs.lot_sizing.builders import (
    MAX_HORIZON,
    MAX_ITEMS,
    MAX_MACHINES,
    MAX_UNITS,
    lot_sizing,
    whole_number,
)
from orl.envs.lot_sizing.demand import Demand
from orl.envs.lot_sizing.instance import PLAN_SCHEMA, SCHEMA, LotSizingInstance, LotSizingPlan

MAX_FILE_BYTES = 16 * 2**20
_AUTHORS = {
    "production": "machine_production",
    "setup_costs": "setup_costs",
    "setup_loss": "setup_loss",
    "holding_costs": "holding_costs",
    "lost_sales_costs": "lost_sales_costs",
    "max_inventory": "max_inventory_level",
    "initial_inventory": "initial_inventory",
    "initial_setup": "initial_setup",
}
_OPTIONAL = ("backlog_costs", "max_backlog", "demand_path")


def read(path: str | os.PathLike[str]) -> LotSizingInstance:
    """Read an instance file in either layout; its stem names the instance unless the file does.

    Raises:
        InputError: anything wrong with the file, a missing file too.
    """
    file = Path(path)
    if file.exists() and not file.is_file():
        raise InputError("not a regular file", source=str(file))
    return from_data(read_json(file, largest=MAX_FILE_BYTES, expected="a lot-sizing instance"), file.stem, str(file))


def parse(text: str | bytes, name: str = "unnamed", source: str | None = None) -> LotSizingInstance:
    """Like :func:`read`, from the content of a file; ``source`` stands for the file in messages."""
    if len(text) > MAX_FILE_BYTES:
        raise InputError("too large", source=source, field="size", value=len(text), expected=f"<= {MAX_FILE_BYTES}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("not JSON", source=source, value=str(error), expected="a lot-sizing instance") from error
    return from_data(data, name, source)


def from_data(data: Any, name: str = "unnamed", source: str | None = None) -> LotSizingInstance:
    """The instance of JSON data in either layout."""
    if isinstance(data, dict) and "schema" in data:
        return instance_from_json(data, source)
    return _from_authors(data, name, source)


def write(instance: LotSizingInstance, path: str | os.PathLike[str]) -> None:
    """Write an instance in the versioned layout of this package."""
    write_text(path, json.dumps(instance_to_json(instance)) + "\n")


# ---- the layout of this package ------------------------------------------------------------------------------------
def instance_to_json(instance: LotSizingInstance) -> dict[str, Any]:
    """See :meth:`LotSizingInstance.to_json`."""
    data: dict[str, Any] = {"schema": SCHEMA}
    compact = not instance.sequence_dependent
    for f in fields(instance):
        value = getattr(instance, f.name)
        if f.name in ("setup_costs", "setup_loss") and compact:
            value = value[:, 0]
        if isinstance(value, Demand):
            value = {g.name: getattr(value, g.name) for g in fields(value)}
            value = {k: None if v is None else v.tolist() for k, v in value.items()}
        data[f.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return data


def instance_from_json(data: Any, source: str | None = None) -> LotSizingInstance:
    """See :meth:`LotSizingInstance.from_json`."""
    _require_schema(data, SCHEMA, "a lot-sizing instance", source)
    values: dict[str, Any] = {}
    for f in fields(LotSizingInstance):
        if f.name not in data and f.name not in _OPTIONAL:
            raise InputError("missing key", source=source, field=f.name)
        if f.name in data:
            values[f.name] = data[f.name]
    values["demand"] = _demand_from_json(values["demand"], source)
    _require_lists(values, {name: name for name in values}, source)
    return lot_sizing(**values, source=source)


def _demand_from_json(data: Any, source: str | None) -> Demand:
    if not isinstance(data, dict):
        raise InputError("not an object", source=source, field="demand", value=type(data).__name__)
    for key in ("values", "probabilities"):
        if key not in data:
            raise InputError("missing key", source=source, field=f"demand.{key}")
    values = numbers(data["values"], "demand.values", None, integer=True, low=0, high=MAX_UNITS, source=source)
    probabilities = numbers(
        data["probabilities"], "demand.probabilities", None, integer=False, low=0, high=1, source=source
    )
    expected = "[periods][items][values]"
    if values.ndim != 3 or not values.size:
        raise InputError("wrong shape", source=source, field="demand.values", value=values.shape, expected=expected)
    if probabilities.shape != values.shape:
        found = list(probabilities.shape)
        raise InputError(
            "wrong shape", source=source, field="demand.probabilities", value=found, expected=f"{list(values.shape)}"
        )
    step = np.diff(values, axis=-1)
    if (step < 0).any() or ((step == 0) & (probabilities[..., 1:] > 0)).any():
        raise InputError("values do not increase", source=source, field="demand.values", expected="each value once")
    sums = probabilities.sum(-1)
    for p, i in np.argwhere(np.abs(sums - 1.0) >= 1e-9)[:1].tolist():
        place = f"demand.probabilities[{p}][{i}]"
        raise InputError("does not sum to 1", source=source, field=place, value=float(sums[p, i]), expected="1")
    demand = Demand(values, probabilities)
    correlation = data.get("correlation")
    return demand if correlation is None else distributions.correlated(demand, correlation, source)


def plan_from_json(data: Any, source: str | None = None) -> LotSizingPlan:
    """See :meth:`LotSizingPlan.from_json`."""
    _require_schema(data, PLAN_SCHEMA, "a lot-sizing plan", source)
    arrays = {}
    for name, ndim in (("actions", 2), ("demand", 2), ("initial_inventory", 1), ("initial_setup", 1)):
        if name not in data:
            raise InputError("missing key", source=source, field=name)
        low = -MAX_UNITS if name == "initial_inventory" else 0
        array = numbers(data[name], name, None, integer=True, low=low, high=MAX_UNITS, source=source)
        if array.ndim != ndim or not array.size:
            expected = "a list of whole numbers" if ndim == 1 else "a list of rows, one a period"
            raise InputError("wrong shape", source=source, field=name, value=list(array.shape), expected=expected)
        arrays[name] = array
    plan = LotSizingPlan(**arrays)
    if len(plan.actions) != len(plan.demand):
        raise InputError(
            "not as many periods as demand",
            source=source,
            field="actions",
            value=len(plan.actions),
            expected=str(len(plan.demand)),
        )
    return plan


def _require_schema(data: Any, schema: str, what: str, source: str | None) -> None:
    found = data.get("schema") if isinstance(data, dict) else type(data).__name__
    if not isinstance(data, dict) or found != schema:
        raise InputError(f"not {what}", source=source, field="schema", value=found, expected=schema)


def _require_lists(values: dict[str, Any], labels: dict[str, str], source: str | None) -> None:
    """In files every table is a list: one number for all items is a slip."""
    for name in (*_AUTHORS, *_OPTIONAL):
        value = values.get(name)
        if name in values and not isinstance(value, list) and not (name == "demand_path" and value is None):
            found = value if isinstance(value, int | float | str) else type(value).__name__
            raise InputError("not a list", source=source, field=labels.get(name, name), value=found)


# ---- the authors' layout -------------------------------------------------------------------------------------------
def _from_authors(data: Any, name: str, source: str | None) -> LotSizingInstance:
    if not isinstance(data, dict):
        raise InputError("not an instance", source=source, value=type(data).__name__, expected="a JSON object")
    for key in ("time_horizon", "n_items", "n_machines", *_AUTHORS.values(), "demand_distribution"):
        if key not in data:
            raise InputError("missing key", source=source, field=key)
    horizon = whole_number(data["time_horizon"], "time_horizon", 1, MAX_HORIZON, source)
    n_items = whole_number(data["n_items"], "n_items", 1, MAX_ITEMS, source)
    n_machines = whole_number(data["n_machines"], "n_machines", 1, MAX_MACHINES, source)
    demand = _distribution(data["demand_distribution"], "demand_distribution", n_items, horizon, source)
    if data.get("demand_correlation") is not None:
        demand = distributions.correlated(demand, data["demand_correlation"], source)
    values = {field: data[key] for field, key in _AUTHORS.items()}
    values |= {key: data[key] for key in _OPTIONAL if data.get(key) is not None}
    _require_lists(values, _AUTHORS, source)
    sizes = (n_machines, n_items)
    values["production"] = numbers(
        values["production"], "machine_production", sizes, integer=True, low=0, high=MAX_UNITS, source=source
    )
    instance = lot_sizing(
        **values,
        name=data.get("name", name),
        horizon=horizon,
        demand=demand,
        source=source,
        labels=_AUTHORS | {"demand": "demand_distribution", "horizon": "time_horizon"},
    )
    return _without_impossible_setups(instance)


def _without_impossible_setups(instance: LotSizingInstance) -> LotSizingInstance:
    """Machines that start with an item which they cannot make start idle; several of the authors' files have some."""
    setup = instance.initial_setup
    able = instance.production[np.arange(instance.n_machines), np.maximum(setup - 1, 0)] > 0
    return instance if able[setup > 0].all() else replace(instance, initial_setup=np.where(able, setup, 0))


def _distribution(data: Any, field: str, n_items: int, horizon: int, source: str | None) -> Demand:
    """The demand of a distribution's JSON object."""
    if not isinstance(data, dict):
        raise InputError("not an object", source=source, field=field, value=type(data).__name__)
    name = data.get("name")
    if not isinstance(name, str):
        problem = "missing key" if name is None else "not a text"
        raise InputError(problem, source=source, field=f"{field}.name", value=name)
    if name not in _DISTRIBUTIONS:
        raise UnknownNameError(f"{field}.name" if source is None else f"{source}, {field}.name", name, _DISTRIBUTIONS)
    keys, build = _DISTRIBUTIONS[name]
    for key in keys:
        if key not in data:
            raise InputError("missing key", source=source, field=f"{field}.{key}")
    where = field if source is None else f"{source}, {field}"
    demand = build(n_items, *(data[key] for key in keys), where, horizon)
    if demand.n_items != n_items:
        raise InputError("wrong number of items", source=where, value=demand.n_items, expected=str(n_items))
    return demand


def _parts(data: Any, count: int, per_part: int, where: str, horizon: int, what: str) -> list[Demand]:
    if not isinstance(data, list) or len(data) != count:
        found = len(data) if isinstance(data, list) else type(data).__name__
        raise InputError(
            "wrong length", source=where, field="distributions", value=found, expected=f"a list of {count}, one {what}"
        )
    nested = "periods" if what == "a period" else "item_specific_uniform"
    for k, part in enumerate(data):
        if isinstance(part, dict) and part.get("name") in ("periods", nested):
            raise InputError("cannot be nested", source=where, field=f"distributions[{k}]", value=part.get("name"))
    demands, size = [], 0
    for k, part in enumerate(data):
        demands.append(_distribution(part, f"distributions[{k}]", per_part, horizon, where))
        size += demands[-1].values.size
        if size > MAX_TABLE:
            raise InputError("too large", source=where, field="distributions", expected=f"at most {MAX_TABLE} numbers")
    return demands


def _item_specific(n_items: int, parts: Any, where: str, horizon: int) -> Demand:
    return distributions.item_specific(_parts(parts, n_items, 1, where, horizon, "an item"))


def _periods(n_items: int, parts: Any, where: str, horizon: int) -> Demand:
    return distributions.periods(_parts(parts, horizon, n_items, where, horizon, "a period"))


def _deterministic(n_items: int, values: Any, where: str, horizon: int) -> Demand:
    return distributions.deterministic(values, where)


_DISTRIBUTIONS: dict[str, tuple[tuple[str, ...], Callable[..., Demand]]] = {
    "binomial": (("n", "p"), lambda items, n, p, where, _: distributions.binomial(items, n, p, where)),
    "discrete_uniform": (
        ("low", "high"),
        lambda items, low, high, where, _: distributions.discrete_uniform(items, low, high, where),
    ),
    "probability_mass_function": (
        ("vals", "probs"),
        lambda items, vals, probs, where, _: distributions.pmf(items, vals, probs, where),
    ),
    "item_specific_uniform": (("distributions",), _item_specific),
    "deterministic": (("values",), _deterministic),
    "periods": (("distributions",), _periods),
}
