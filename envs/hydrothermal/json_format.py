"""The versioned JSON of instances and dispatches.

The keys of an instance are the fields of :class:`HydrothermalInstance`, except that ``turbine_to`` and ``spill_to`` are
the positions of the plants that the water reaches (-1: none), and that ``upstream_first`` is left out. Limits that are
infinite are null.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from orl.common.errors import InputError
from orl.common.numbers import floats, integers
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.instance import DISPATCH_SCHEMA, SCHEMA, Dispatch, HydrothermalInstance

_OPTIONAL = ("columns",)
_COMPUTED = ("upstream_first",)


def instance_to_json(instance: HydrothermalInstance) -> dict[str, Any]:
    """See :meth:`HydrothermalInstance.to_json`."""
    data: dict[str, Any] = {"schema": SCHEMA}
    for f in fields(instance):
        value = getattr(instance, f.name)
        if f.name in _COMPUTED:
            continue
        if f.name in ("turbine_to", "spill_to"):
            value = np.where(value.any(1), value.argmax(1), -1)
        if isinstance(value, np.ndarray):
            value = value.tolist()
            if f.name in _UNLIMITED:
                value = [limit if math.isfinite(limit) else None for limit in value]
        data[f.name] = list(value) if isinstance(value, tuple) else value
    return data


_UNLIMITED = ("max_flow", "min_angle", "max_angle")


def instance_from_json(data: Any, source: str | None = None) -> HydrothermalInstance:
    """See :meth:`HydrothermalInstance.from_json`."""
    _require_schema(data, SCHEMA, "a hydrothermal instance", source)
    values: dict[str, Any] = {}
    for f in fields(HydrothermalInstance):
        if f.name in data:
            values[f.name] = data[f.name]
        elif f.name not in (*_OPTIONAL, *_COMPUTED):
            raise InputError("missing key", source=source, field=f.name)
    for name in _COMPUTED:
        values.pop(name, None)
    for name, value in values.items():
        if value is None and name not in _OPTIONAL:
            raise InputError("missing value", source=source, field=name, value="null")
    return hydrothermal(**values, source=source)


def dispatch_from_json(data: Any, source: str | None = None) -> Dispatch:
    """See :meth:`Dispatch.from_json`."""
    _require_schema(data, DISPATCH_SCHEMA, "a hydrothermal dispatch", source)
    for f in fields(Dispatch):
        if f.name not in data:
            raise InputError("missing key", source=source, field=f.name)
    given = data["columns"]
    own = isinstance(given, list) and bool(given) and isinstance(given[0], list)
    columns = integers(given, "columns", (None, None) if own else (None,), low=0, high=2**31, source=source)
    horizon = len(columns)
    arrays = {}
    for f in fields(Dispatch)[1:]:
        rows = horizon + 1 if f.name == "volumes" else horizon
        value = data[f.name]
        width = len(value[0]) if isinstance(value, list) and value and isinstance(value[0], list) else None
        arrays[f.name] = floats(value, f.name, (rows, width), source=source)
    return Dispatch(columns, **arrays)


def _require_schema(data: Any, schema: str, what: str, source: str | None) -> None:
    found = data.get("schema") if isinstance(data, dict) else type(data).__name__
    if not isinstance(data, dict) or found != schema:
        raise InputError(f"not {what}", source=source, field="schema", value=found, expected=schema)
