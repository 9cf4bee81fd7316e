"""An instance as the parts of a HydroPowerModels case folder, the way back from :mod:`orl.envs.hydrothermal.formats`.

Susceptance b becomes a branch with resistance 0 and reactance 1 / b. A case folder knows neither the kind of network
nor the horizon nor surplus: whoever reads it says which network and how many stages, and HydroPowerModels.jl has no
surplus. Least volumes and outflows, limits here, get a cost of violation above all that they could save. A scenario is
written as a problem whose stages have one inflow each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from orl.common.errors import InputError
from orl.common.numbers import integers
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance

_SMALLEST, _LARGEST = 1e-6, 1e9  # susceptances whose reactance can be read


def case_parts(
    instance: HydrothermalInstance, demand_stage: int | None = None
) -> tuple[dict[str, Any], dict[str, Any], str, str | None]:
    """JSON data of the network and of the hydro plants, and the text of the tables.

    Args:
        instance: The problem.
        demand_stage: A case has one demand for all stages: that of this stage (from 0), if stages differ.

    Returns:
        What ``PowerModels.json``, ``hydro.json``, ``inflows.csv`` and ``scenarioprobability.csv`` hold; None for the
        last where all columns are equally likely.

    Raises:
        InputError: what a case cannot express: demand that changes from stage to stage (without ``demand_stage``),
            plants that draw apart, a branch without susceptance or of capacity 0, an angle limit between buses that no
            branch joins.

    >>> from orl.envs.hydrothermal.generators import cascade
    >>> system, hydro, inflows, _ = case_parts(cascade(3, 2, seed=0), demand_stage=0)
    >>> len(system["bus"]), len(hydro["Hydrogenerators"]), inflows.count("\\n")
    (2, 3, 12)
    """
    if not instance.joint and instance.columns is None:
        _refuse(instance, "plants that draw apart", "joint", False, "True, or a scenario")
    if instance.columns is None:
        table, chances = instance.inflows, instance.probabilities
    else:
        table, chances = instance.path_inflows(instance.columns)[..., None], np.ones((instance.horizon, 1))
    uniform = bool((chances == 1.0 / chances.shape[1]).all())
    inflows = _csv(table.reshape(len(table), -1))
    return _system(instance, demand_stage), _hydro(instance), inflows, None if uniform else _csv(chances)


def _refuse(instance: HydrothermalInstance, problem: str, field: str, value: object, expected: str) -> None:
    message = f"a HydroPowerModels case cannot express {problem}"
    raise InputError(message, source=instance.name, field=field, value=value, expected=expected)


def _csv(table: Floats) -> str:
    return "".join(",".join(map(repr, row)) + "\n" for row in table.tolist())


# ---- the network -----------------------------------------------------------------------------------------------------
def _demand(instance: HydrothermalInstance, demand_stage: int | None) -> Floats:
    """Demand float64[B] of all stages, per unit."""
    rows = instance.demand
    if demand_stage is not None:
        return instance.stage_demand(int(integers(demand_stage, "demand_stage", (), low=0, high=instance.horizon - 1)))
    for t in np.flatnonzero((rows != rows[0]).any(1))[:1].tolist():
        expected = "as in demand[0], or demand_stage=..."
        _refuse(instance, "demand that changes from stage to stage", f"demand[{t}]", rows[t].tolist(), expected)
    return instance.stage_demand(0)


def _system(instance: HydrothermalInstance, demand_stage: int | None) -> dict[str, Any]:
    demand = _demand(instance, demand_stage)
    generator_buses = set(instance.generator_bus.tolist())
    kinds = [2 if b in generator_buses else 1 for b in range(instance.n_buses)]
    kinds[instance.reference_bus] = 3
    bus = {"vm": 1.0, "va": 0.0, "vmin": 0.9, "vmax": 1.1, "base_kv": 1.0, "area": 1, "zone": 1}
    load = {"qd": 0.0, "status": 1}
    return {
        "name": instance.name,
        "source_type": "matpower",
        "source_version": "2",
        "per_unit": True,
        "baseMVA": instance.base_mva,
        "cost_deficit": instance.deficit_cost / instance.base_mva,
        "bus": _numbered(
            {"bus_i": b + 1, "bus_type": kinds[b], "name": name, **bus} for b, name in enumerate(instance.bus_names)
        ),
        "gen": _numbered(_generator(instance, g) for g in range(instance.n_generators)),
        "branch": _numbered(_branches(instance)),
        "load": _numbered({"load_bus": b + 1, "pd": float(demand[b]), **load} for b in np.flatnonzero(demand).tolist()),
        "shunt": {},
        "storage": {},
        "dcline": {},
        "switch": {},
    }


def _numbered(items: Any) -> dict[str, dict[str, Any]]:
    return {str(number): {"index": number, **item} for number, item in enumerate(items, start=1)}


def _generator(instance: HydrothermalInstance, g: int) -> dict[str, Any]:
    return {
        "gen_bus": int(instance.generator_bus[g]) + 1,
        "gen_status": 1,
        "pmin": float(instance.min_power[g]),
        "pmax": float(instance.max_power[g]),
        "pg": 0.0,
        "qg": 0.0,
        "qmin": -999.0,
        "qmax": 999.0,
        "vg": 1.0,
        "mbase": instance.base_mva,
        "model": 2,
        "ncost": 2,
        "cost": [float(instance.generator_costs[g]), 0.0],
        "startup": 0.0,
        "shutdown": 0.0,
    }


def _branches(instance: HydrothermalInstance) -> list[dict[str, Any]]:
    limits: dict[tuple[int, int], tuple[float, float]] = {}
    for k in range(len(instance.pair_from)):
        pair = (int(instance.pair_from[k]), int(instance.pair_to[k]))
        limits[pair] = (float(instance.min_angle[k]), float(instance.max_angle[k]))
    joined = set(zip(instance.branch_from.tolist(), instance.branch_to.tolist(), strict=True))
    for k, (start, end) in enumerate(limits):
        if not {(start, end), (end, start)} & joined:
            names = f"{instance.bus_names[start]} - {instance.bus_names[end]}"
            _refuse(instance, "angle limits without a branch", f"pair_from[{k}]", names, "buses that a branch joins")
    found = []
    for number in range(instance.n_branches):
        start, end = int(instance.branch_from[number]), int(instance.branch_to[number])
        susceptance, most = float(instance.susceptance[number]), float(instance.max_flow[number])
        if not _SMALLEST <= abs(susceptance) <= _LARGEST:
            expected = f"{_SMALLEST:g}..{_LARGEST:g}"
            _refuse(instance, "this susceptance", f"susceptance[{number}]", susceptance, expected)
        if most == 0:
            _refuse(instance, "a branch of capacity 0, which means no limit", f"max_flow[{number}]", most, "above 0")
        branch: dict[str, Any] = {
            "f_bus": start + 1,
            "t_bus": end + 1,
            "br_r": 0.0,
            "br_x": 1.0 / susceptance,
            "g_fr": 0.0,
            "g_to": 0.0,
            "b_fr": 0.0,
            "b_to": 0.0,
            "tap": 1.0,
            "shift": 0.0,
            "br_status": 1,
            "transformer": False,
        }
        if np.isfinite(most):
            branch["rate_a"] = most
        low, high = limits.get((start, end), (-np.inf, np.inf))
        if (end, start) in limits:
            reverse_low, reverse_high = limits[end, start]
            low, high = max(low, -reverse_high), min(high, -reverse_low)
        if np.isfinite(low):
            branch["angmin"] = low
        if np.isfinite(high):
            branch["angmax"] = high
        found.append(branch)
    return found


# ---- the plants ------------------------------------------------------------------------------------------------------
def _hydro(instance: HydrothermalInstance) -> dict[str, Any]:
    worth = 10 * instance.deficit_cost / instance.base_mva * (1 + float(instance.production_factor.sum()))
    plants = []
    for i, name in enumerate(instance.plant_names):
        turbine, spill = instance.turbine_to[i], instance.spill_to[i]
        plants.append(
            {
                "index": i + 1,
                "index_grid": int(instance.plant_generator[i]) + 1,
                "name": name,
                "min_volume": float(instance.min_volume[i]),
                "max_volume": float(instance.max_volume[i]),
                "initial_volume": float(instance.initial_volume[i]),
                "final_volume": 0.0,
                "min_turn": float(instance.min_outflow[i]),
                "max_turn": float(instance.max_outflow[i]),
                "production_factor": float(instance.production_factor[i]),
                "spill_cost": float(instance.spill_costs[i]),
                "minimal_volume_violation_cost": worth / instance.water_factor if instance.min_volume[i] > 0 else 0.0,
                "minimal_outflow_violation_cost": worth if instance.min_outflow[i] > 0 else 0.0,
                "downstream_turn": (np.flatnonzero(turbine) + 1).tolist(),
                "downstream_spill": (np.flatnonzero(spill) + 1).tolist(),
            }
        )
    return {"stage_hours": instance.stage_hours, "Hydrogenerators": plants}
