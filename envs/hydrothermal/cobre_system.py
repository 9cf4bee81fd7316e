"""Buses, lines, thermal and hydro plants of a cobre case, as fields of an instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orl.common.errors import InputError
from orl.envs.hydrothermal.cobre_case import (
    BUSES,
    HYDROS,
    LINES,
    PENALTIES,
    PRODUCTION,
    START,
    THERMALS,
    Case,
    objects,
    part,
    position_of,
)
from orl.envs.hydrothermal.cobre_export import TINY
from orl.envs.hydrothermal.instance import HM3_PER_HOUR
from orl.envs.hydrothermal.network_data import entry, required

BASE_MVA = 100.0
"""What one per unit of an instance that was read is."""
Records = Mapping[int, tuple[str, dict[str, Any]]]
"""Objects with their places, by id."""


def system_fields(case: Case, hydros: Records, buses: Records, hours: float, n_stages: int) -> dict[str, Any]:
    """Arguments of :func:`orl.envs.hydrothermal.builders.hydrothermal`: all but time, inflows and demand.

    Args:
        case: The case.
        hydros: Its hydro plants and
        buses: its buses, in the order of their ids.
        hours: Of a stage.
        n_stages: T.

    Raises:
        InputError: anything missing, wrong or not modelled.
    """
    generators = _Generators([], [], [], [])
    plants = _plants(case, hydros, buses, hours, n_stages, generators)
    for place, thermal in case.records(THERMALS, "thermals"):
        _thermal(case, thermal, place, buses, generators)
    return {
        **plants,
        **_lines(case, buses),
        "base_mva": BASE_MVA,
        "bus_names": [str(bus["name"])[:100] for _, bus in buses.values()],
        "deficit_cost": _deficit_cost(case, buses) * BASE_MVA,
        "generator_bus": generators.bus,
        "min_power": generators.low,
        "max_power": generators.high,
        "generator_costs": generators.cost,
    }


@dataclass(frozen=True)
class _Generators:
    """Columns of the generators read so far: position of the bus, per unit, per unit, USD per per unit and hour."""

    bus: list[int]
    low: list[float]
    high: list[float]
    cost: list[float]

    def add(self, bus: int, low_mw: float, high_mw: float, usd_per_mwh: float) -> None:
        self.bus.append(bus)
        self.low.append(low_mw / BASE_MVA)
        self.high.append(high_mw / BASE_MVA)
        self.cost.append(usd_per_mwh * BASE_MVA)


def _deficit_cost(case: Case, buses: Records) -> float:
    """USD per MWh, the same at every bus and for any amount."""
    common = part(case.data(PENALTIES), "bus", case.where(PENALTIES), "penalties")
    costs = []
    for place, bus in buses.values():
        case.only(bus, ("id", "name", "operational_start_date", "deficit_segments"), place, BUSES)
        own = bus.get("deficit_segments")
        path, at, listed = (BUSES, place, own) if own else (PENALTIES, "bus", common.get("deficit_segments"))
        source, field = case.where(path), f"{at}.deficit_segments"
        segments = list(objects(listed, source, field))
        if len(segments) != 1 or segments[0][1].get("depth_mw") is not None:
            raise InputError(
                "not modelled", source=source, field=field, value=listed, expected="one segment without depth_mw"
            )
        costs.append(entry(segments[0][1], "cost", None, source, f"{field}[0]", low=0))
        if costs[-1] != costs[0]:
            expected = f"{costs[0]:g}, as at the first bus"
            raise InputError(
                "not modelled", source=source, field=f"{field}[0].cost", value=costs[-1], expected=expected
            )
    excess = entry(common, "excess_cost", None, case.where(PENALTIES), "bus")
    case.refuse("excess_cost", excess, costs[0], "bus.excess_cost", PENALTIES)
    return costs[0]


def _lines(case: Case, buses: Records) -> dict[str, Any]:
    source = case.where(LINES)
    common = entry(
        part(case.data(PENALTIES), "line", case.where(PENALTIES), "penalties"), "exchange_cost", None, source, "line"
    )
    start, end, limits = [], [], []
    for place, line in case.records(LINES, "lines"):
        known = ("id", "name", "operational_start_date", "source_bus_id", "target_bus_id", "capacity")
        case.only(line, (*known, "exchange_cost", "losses_percent"), place, LINES)
        own = line.get("exchange_cost")
        cost = common if own is None else entry(line, "exchange_cost", None, source, place)
        case.refuse("exchange_cost", cost, 0.0, f"{place}.exchange_cost", LINES)
        losses = entry(line, "losses_percent", 0.0, source, place)
        case.refuse("losses_percent", losses, 0.0, f"{place}.losses_percent", LINES)
        capacity = part(line, "capacity", source, place)
        direct, reverse = (
            entry(capacity, key, None, source, f"{place}.capacity", low=0) for key in ("direct_mw", "reverse_mw")
        )
        if direct != reverse:
            expected = f"{direct:g}, as direct_mw"
            raise InputError(
                "not modelled", source=source, field=f"{place}.capacity.reverse_mw", value=reverse, expected=expected
            )
        start.append(position_of(line, "source_bus_id", buses, source, place))
        end.append(position_of(line, "target_bus_id", buses, source, place))
        limits.append(direct / BASE_MVA)
    return {"branch_from": start, "branch_to": end, "susceptance": [1.0] * len(start), "max_flow": limits}


def _thermal(case: Case, thermal: dict[str, Any], place: str, buses: Records, generators: _Generators) -> None:
    source = case.where(THERMALS)
    case.only(
        thermal, ("id", "name", "operational_start_date", "bus_id", "cost_per_mwh", "generation"), place, THERMALS
    )
    limits = part(thermal, "generation", source, place)
    low, high = (entry(limits, key, None, source, f"{place}.generation", low=0) for key in ("min_mw", "max_mw"))
    if low > high:
        field, expected = f"{place}.generation.min_mw", f"at most {high:g}"
        raise InputError("min_mw is above max_mw", source=source, field=field, value=low, expected=expected)
    cost = entry(thermal, "cost_per_mwh", None, source, place, low=0)
    generators.add(position_of(thermal, "bus_id", buses, source, place), low, high, cost)


def _plants(
    case: Case,
    hydros: Records,
    buses: Records,
    hours: float,
    n_stages: int,
    generators: _Generators,
) -> dict[str, Any]:
    """Fields of the plants; their generators are added to those known."""
    source, factors = case.where(HYDROS), _productivities(case, hydros, n_stages)
    penalties = part(case.data(PENALTIES), "hydro", case.where(PENALTIES), "penalties")
    start = _start(case, hydros)
    fields: dict[str, list[Any]] = {key: [] for key in _PLANT_FIELDS}
    for i, (place, hydro) in enumerate(hydros.values()):
        known = ("id", "name", "operational_start_date", "downstream_id", "reservoir", "outflow", "generation")
        case.only(hydro, (*known, "unit_groups", "penalties"), place, HYDROS)
        reservoir, outflow = (part(hydro, key, source, place) for key in ("reservoir", "outflow"))
        case.refuse(
            "min_outflow_m3s",
            entry(outflow, "min_outflow_m3s", 0.0, source, place),
            0.0,
            f"{place}.outflow.min_outflow_m3s",
            HYDROS,
        )
        if outflow.get("max_outflow_m3s") is not None and "max_outflow_m3s" not in case.leave_out:
            found = outflow["max_outflow_m3s"]
            field, expected = f"{place}.outflow.max_outflow_m3s", "null, or leave_out=['max_outflow_m3s']"
            raise InputError("not modelled", source=source, field=field, value=found, expected=expected)
        limits = _limits(hydro, source, place)
        own = part(hydro, "penalties", source, place) if hydro.get("penalties") is not None else {}
        costs = {
            key: penalties.get(key) if own.get(key) is None else own[key] for key in ("spillage_cost", "turbined_cost")
        }
        spill, turbine = (entry(costs, key, None, source, f"{place}.penalties", low=0) for key in costs)
        factor = factors[i]
        turbine = turbine if turbine > TINY else 0.0
        if turbine and not factor:
            field = f"{place}.penalties.turbined_cost"
            raise InputError(
                "not modelled", source=source, field=field, value=turbine, expected="0 for a plant without power"
            )
        downstream = hydro.get("downstream_id")
        to = -1 if downstream is None else position_of(hydro, "downstream_id", hydros, source, place)
        values = {
            "plant_names": str(hydro["name"])[:100],
            "plant_generator": len(generators.bus),
            "production_factor": factor,
            "min_volume": entry(reservoir, "min_storage_hm3", None, source, f"{place}.reservoir", low=0),
            "max_volume": entry(reservoir, "max_storage_hm3", None, source, f"{place}.reservoir", low=0),
            "initial_volume": start[i],
            "min_outflow": limits["min_turbined_m3s"],
            "max_outflow": limits["max_turbined_m3s"],
            "spill_costs": spill / (HM3_PER_HOUR * hours) if spill > TINY else 0.0,
            "turbine_to": to,
            "spill_to": to,
        }
        for key, value in values.items():
            fields[key].append(value)
        group = hydro["unit_groups"][0]
        bus = position_of(group, "bus_id", buses, source, f"{place}.unit_groups[0]")
        power = (limits["min_generation_mw"], limits["max_generation_mw"])
        generators.add(bus, *power, turbine / factor if turbine else 0.0)
    return fields


_PLANT_FIELDS = (
    "plant_names",
    "plant_generator",
    "production_factor",
    "min_volume",
    "max_volume",
    "initial_volume",
    "min_outflow",
    "max_outflow",
    "spill_costs",
    "turbine_to",
    "spill_to",
)
_LIMITS = ("min_turbined_m3s", "max_turbined_m3s", "min_generation_mw", "max_generation_mw")


def _limits(hydro: dict[str, Any], source: str, place: str) -> dict[str, float]:
    """The tighter ones of a plant's limits and those of its only group of units."""
    generation = part(hydro, "generation", source, place)
    model = generation.get("model")
    if model != "constant_productivity":
        field, expected = f"{place}.generation.model", "constant_productivity"
        raise InputError("not modelled", source=source, field=field, value=model, expected=expected)
    groups = list(objects(required(hydro, "unit_groups", source, place), source, f"{place}.unit_groups"))
    if len(groups) != 1:
        field = f"{place}.unit_groups"
        raise InputError("not modelled", source=source, field=field, value=len(groups), expected="one group of units")
    limits = {}
    for key in _LIMITS:
        both = [
            entry(item, key, None, source, at, low=0) for at, item in ((f"{place}.generation", generation), *groups)
        ]
        limits[key] = max(both) if key.startswith("min") else min(both)
    for low, high in (_LIMITS[:2], _LIMITS[2:]):
        if limits[low] > limits[high]:
            field, expected = f"{place}.generation.{low}", f"at most {limits[high]:g}"
            raise InputError(f"{low} is above {high}", source=source, field=field, value=limits[low], expected=expected)
    return limits


def _productivities(case: Case, hydros: Records, n_stages: int) -> list[float]:
    """MW for each m3/s of every plant, the same in all stages."""
    source = case.where(PRODUCTION)
    case.only(case.data(PRODUCTION), ("$schema", "production_models"), "", PRODUCTION)
    found: dict[int, float] = {}
    for place, model in case.records(PRODUCTION, "production_models"):
        i = position_of(model, "hydro_id", hydros, source, place)
        if model.get("selection_mode") != "stage_ranges":
            field, value = f"{place}.selection_mode", model.get("selection_mode")
            raise InputError("not modelled", source=source, field=field, value=value, expected="stage_ranges")
        ranges = list(objects(required(model, "stage_ranges", source, place), source, f"{place}.stage_ranges"))
        at, only = ranges[0] if len(ranges) == 1 else ("", {})
        end = only.get("end_stage_id")
        if len(ranges) != 1 or only.get("start_stage_id") != 0 or (end is not None and end != n_stages - 1):
            field, expected = f"{place}.stage_ranges", "one range over all stages"
            raise InputError("not modelled", source=source, field=field, value=model["stage_ranges"], expected=expected)
        if only.get("model") != "constant_productivity":
            field, expected = f"{at}.model", "constant_productivity"
            raise InputError("not modelled", source=source, field=field, value=only.get("model"), expected=expected)
        found[i] = entry(only, "productivity_mw_per_m3s", None, source, at, low=0)
    for i, number in enumerate(hydros):
        if i not in found:
            raise InputError(
                "missing plant", source=source, field="production_models", value=number, expected="every hydro_id"
            )
    return [found[i] for i in range(len(hydros))]


def _start(case: Case, hydros: Records) -> list[float]:
    """Initial volumes, hm3."""
    source = case.where(START)
    case.only(case.data(START), ("$schema", "storage"), "", START)
    found: dict[int, float] = {}
    for place, item in case.records(START, "storage"):
        i = position_of(item, "hydro_id", hydros, source, place)
        found[i] = entry(item, "value_hm3", None, source, place, low=0)
    for i, number in enumerate(hydros):
        if i not in found:
            raise InputError("missing plant", source=source, field="storage", value=number, expected="every hydro_id")
    return [found[i] for i in range(len(hydros))]
