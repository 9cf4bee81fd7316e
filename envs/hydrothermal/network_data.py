"""The electrical part of a case: a PowerModels network as arrays by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from orl.common.errors import InputError
from orl.common.numbers import MAX_NUMBER, floats
from orl.envs.hydrothermal.builders import MAX_ANGLE
from orl.envs.hydrothermal.instance import Floats

_REFERENCE = 3
_REFUSED = ("dcline", "storage", "switch")


@dataclass(frozen=True, eq=False)
class PowerSystem:
    """Buses, generators and branches in service, by position in the order of their numbers.

    Attributes:
        base_mva: MW of one per unit.
        bus_names: B names.
        reference_bus: Position of the reference bus.
        demand: float64[B], per unit, the sum of the loads of a bus.
        generators: From the number of a generator to its position.
        columns: Lists by the names of the fields of an instance: generators, branches and bus pairs.
    """

    base_mva: float
    bus_names: tuple[str, ...]
    reference_bus: int
    demand: Floats
    generators: dict[int, int]
    columns: dict[str, list[Any]]

    def fields(self) -> dict[str, Any]:
        """Arguments of :func:`orl.envs.hydrothermal.builders.hydrothermal`; the demand is left to the caller."""
        return {
            "base_mva": self.base_mva,
            "bus_names": self.bus_names,
            "reference_bus": self.reference_bus,
            **self.columns,
        }


def power_system(data: Any, source: str) -> PowerSystem:
    """The arrays of a PowerModels network (parsed JSON, per unit).

    Raises:
        InputError: anything missing, out of range or referring to what is not there; ``source`` is the file's name.
    """
    if not isinstance(data, dict):
        raise InputError("not an object", source=source, value=type(data).__name__, expected="a PowerModels network")
    if data.get("per_unit", True) is not True:
        raise InputError("not per unit", source=source, field="per_unit", value=data["per_unit"], expected="true")
    for section in _REFUSED:
        if data.get(section):
            raise InputError("not modelled", source=source, field=section, expected="an empty object")
    for field, shunt in _section(data, "shunt", source, optional=True):
        if entry(shunt, "gs", 0.0, source, field) != 0 and entry(shunt, "status", 1.0, source, field) != 0:
            raise InputError("not modelled", source=source, field=f"{field}.gs", value=shunt["gs"], expected="0")
    base = floats(required(data, "baseMVA", source), "baseMVA", (), low=1e-3, high=1e6, source=source)
    buses, names, reference = _buses(data, source)
    demand = np.zeros(len(buses))
    for field, load in _section(data, "load", source):
        if entry(load, "status", 1.0, source, field) != 0:
            demand[_bus(load, "load_bus", buses, source, field)] += entry(load, "pd", None, source, field, high=1e7)
    generators, columns = _generators(data, buses, source)
    return PowerSystem(float(base), names, reference, demand, generators, columns | _branches(data, buses, source))


def required(data: dict[str, Any], key: str, source: str | None, field: str | None = None) -> Any:
    """``data[key]``, or an InputError that names what is missing."""
    if key not in data:
        raise InputError("missing key", source=source, field=key if field is None else f"{field}.{key}")
    return data[key]


def entry(
    data: dict[str, Any],
    key: str,
    default: float | None,
    source: str | None,
    field: str,
    *,
    low: float = -MAX_NUMBER,
    high: float = MAX_NUMBER,
) -> float:
    """A number of an object, in low..high; ``default`` (None: there is none) where it is missing."""
    if key not in data and default is not None:
        return default
    value = required(data, key, source, field)
    return float(floats(value, f"{field}.{key}", (), low=low, high=high, source=source))


# ---- parts of a network --------------------------------------------------------------------------------------------
def _section(data: dict[str, Any], name: str, source: str, optional: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a section in the order of their numbers, each with its place."""
    section = data.get(name, {}) if optional else required(data, name, source)
    if not isinstance(section, dict):
        raise InputError("not an object", source=source, field=name, value=type(section).__name__)
    found = []
    for key in sorted(section, key=lambda key: (not key.isdecimal(), key.zfill(12))):
        if not isinstance(section[key], dict):
            raise InputError("not an object", source=source, field=f"{name}.{key}", value=type(section[key]).__name__)
        found.append((f"{name}.{key}", section[key]))
    return found


def _number_of(item: dict[str, Any], key: str, source: str, field: str) -> int:
    value = entry(item, key, None, source, field, low=0, high=1e9)
    if value != int(value):
        raise InputError("not a whole number", source=source, field=f"{field}.{key}", value=value)
    return int(value)


def _bus(item: dict[str, Any], key: str, buses: dict[int, int], source: str, field: str) -> int:
    """Position of the bus that an object refers to."""
    number = _number_of(item, key, source, field)
    if number not in buses:
        expected = f"one of the {len(buses)} buses"
        raise InputError("no such bus", source=source, field=f"{field}.{key}", value=number, expected=expected)
    return buses[number]


def _buses(data: dict[str, Any], source: str) -> tuple[dict[int, int], tuple[str, ...], int]:
    """From the number of a bus to its position; names; position of the reference bus."""
    buses: dict[int, int] = {}
    names: list[str] = []
    references: list[tuple[int, int]] = []
    for field, bus in _section(data, "bus", source):
        number = _number_of(bus, "bus_i", source, field)
        if number in buses:
            raise InputError("two buses with one number", source=source, field=f"{field}.bus_i", value=number)
        kind = entry(bus, "bus_type", None, source, field)
        if kind not in (1, 2, _REFERENCE):
            expected = "1, 2 or 3 (isolated buses are not modelled)"
            raise InputError("bad bus", source=source, field=f"{field}.bus_type", value=kind, expected=expected)
        if kind == _REFERENCE:
            references.append((number, len(buses)))
        buses[number] = len(buses)
        names.append(str(bus.get("name", f"bus {number}")).strip()[:100])
    if not buses:
        raise InputError("no buses", source=source, field="bus", expected="at least one")
    if len(references) != 1:
        raise InputError(
            "no reference bus" if not references else "several reference buses",
            source=source,
            field="bus_type",
            value=[number for number, _ in references] or None,
            expected="exactly one bus of bus_type 3",
        )
    return buses, tuple(names), references[0][1]


def _generators(
    data: dict[str, Any], buses: dict[int, int], source: str
) -> tuple[dict[int, int], dict[str, list[Any]]]:
    """From the number of a generator to its position, and columns."""
    positions: dict[int, int] = {}
    columns: dict[str, list[Any]] = {"generator_bus": [], "min_power": [], "max_power": [], "generator_costs": []}
    for field, generator in _section(data, "gen", source):
        if entry(generator, "gen_status", 1.0, source, field) == 0:
            continue
        number = _number_of(generator, "index", source, field)
        if number in positions:
            raise InputError("two generators with one index", source=source, field=f"{field}.index", value=number)
        least = entry(generator, "pmin", None, source, field, low=0, high=1e7)
        most = entry(generator, "pmax", None, source, field, low=0, high=1e7)
        if least > most:
            expected = f"at most {most:g}"
            raise InputError("pmin is above pmax", source=source, field=f"{field}.pmin", value=least, expected=expected)
        positions[number] = len(positions)
        columns["generator_bus"].append(_bus(generator, "gen_bus", buses, source, field))
        columns["min_power"].append(least)
        columns["max_power"].append(most)
        columns["generator_costs"].append(_linear_cost(generator, source, field))
    if not positions:
        raise InputError("no generators in service", source=source, field="gen", expected="at least one")
    return positions, columns


def _linear_cost(generator: dict[str, Any], source: str, field: str) -> float:
    """The linear coefficient of a polynomial, highest power first; 0 for an empty list."""
    place = f"{field}.cost"
    cost = generator.get("cost", [])
    if not isinstance(cost, list):
        raise InputError("not a list", source=source, field=place, value=type(cost).__name__)
    if entry(generator, "model", 2.0, source, field) != 2 and cost:
        raise InputError(
            "not a polynomial cost", source=source, field=f"{field}.model", value=generator["model"], expected="2"
        )
    if entry(generator, "ncost", float(len(cost)), source, field) != len(cost):
        raise InputError(
            "not as many as ncost",
            source=source,
            field=place,
            value=len(cost),
            expected=f"{generator['ncost']} numbers",
        )
    if not cost:
        return 0.0
    numbers = floats(cost, place, (None,), source=source)
    if numbers[:-2].any():
        raise InputError("not a linear cost", source=source, field=place, value=cost, expected="[linear, constant]")
    linear = float(numbers[-2]) if len(numbers) > 1 else 0.0
    if linear < 0:
        raise InputError("negative cost", source=source, field=place, value=linear, expected=">= 0")
    return linear


def _branches(data: dict[str, Any], buses: dict[int, int], source: str) -> dict[str, list[Any]]:
    """Columns of branches, and of the bus pairs that they join; a pair's direction is its first branch's."""
    columns: dict[str, list[Any]] = {"branch_from": [], "branch_to": [], "susceptance": [], "max_flow": []}
    limits: dict[tuple[int, int], tuple[float, float]] = {}
    for field, branch in _section(data, "branch", source):
        if entry(branch, "br_status", 1.0, source, field) == 0:
            continue
        start, end = (_bus(branch, key, buses, source, field) for key in ("f_bus", "t_bus"))
        if start == end:
            raise InputError("joins a bus with itself", source=source, field=f"{field}.t_bus", value=branch["t_bus"])
        if entry(branch, "shift", 0.0, source, field) != 0:
            raise InputError("not modelled", source=source, field=f"{field}.shift", value=branch["shift"], expected="0")
        r, x = (entry(branch, key, None, source, field, low=-1e6, high=1e6) for key in ("br_r", "br_x"))
        if abs(x) < 1e-9:
            raise InputError("no reactance", source=source, field=f"{field}.br_x", value=x, expected="not 0")
        rate = entry(branch, "rate_a", 0.0, source, field, low=0, high=1e7)
        columns["branch_from"].append(start)
        columns["branch_to"].append(end)
        columns["susceptance"].append(x / (r * r + x * x))
        columns["max_flow"].append(rate if rate > 0 else np.inf)
        low, high = (
            entry(branch, key, default, source, field, low=-MAX_ANGLE, high=MAX_ANGLE) if key in branch else default
            for key, default in (("angmin", -np.inf), ("angmax", np.inf))
        )
        pair = (start, end)
        if (end, start) in limits:
            pair, low, high = (end, start), -high, -low
        before = limits.get(pair, (-np.inf, np.inf))
        limits[pair] = (max(before[0], low), min(before[1], high))
        if limits[pair][0] > limits[pair][1]:
            value = list(limits[pair])
            raise InputError("angmin is above angmax", source=source, field=f"{field}.angmin", value=value)
    columns["pair_from"] = [start for start, _ in limits]
    columns["pair_to"] = [end for _, end in limits]
    columns["min_angle"] = [low for low, _ in limits.values()]
    columns["max_angle"] = [high for _, high in limits.values()]
    return columns
