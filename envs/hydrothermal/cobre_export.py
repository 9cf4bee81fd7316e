"""An instance as the tables of a cobre case; see :mod:`orl.envs.hydrothermal.cobre_format` for what they mean."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import HM3_PER_HOUR, Floats, HydrothermalInstance
from orl.envs.hydrothermal.stage_model import openings

TINY = 1e-7
"""What a cost of 0 is written as, since cobre asks for costs above 0 (USD per MWh, or per m3/s and hour)."""
FIRST_DAY = datetime.date(2000, 1, 1)
_MOST_DAYS = 2_900_000  # dates end with the year 9999


def case_tables(
    instance: HydrothermalInstance, *, iterations: int = 100, forward_passes: int = 1, seed: int = 0
) -> dict[str, Any]:
    """Files of a case: JSON data, or for ``.parquet`` a list of numbers for each column, by path inside the folder.

    Args:
        instance: The problem. A scenario is written as a problem with one inflow path.
        iterations: Of cobre's SDDP.
        forward_passes: Paths simulated in each of them.
        seed: Of its random paths.

    Raises:
        InputError: What cobre cannot express; the message names the field.

    >>> from orl.envs.hydrothermal.library import load
    >>> tables = case_tables(load("tri3"))
    >>> [hydro["downstream_id"] for hydro in tables["system/hydros.json"]["hydros"]]
    [1, None, None]
    >>> tables["scenarios/load_seasonal_stats.parquet"]["mean_mw"]
    [90.0, 95.0, 105.0, 100.0]
    """
    _require_expressible(instance)
    inflows, demand = _inflow_table(instance), _demand_table(instance)
    return {
        "config.json": _config(iterations, forward_passes, seed),
        "stages.json": _stages(instance, inflows.shape[2]),
        "initial_conditions.json": _initial_conditions(instance),
        "penalties.json": _penalties(instance),
        "system/buses.json": {"buses": [_named(b, name) for b, name in enumerate(_bus_names(instance))]},
        "system/lines.json": {"lines": _lines(instance)},
        "system/thermals.json": {"thermals": _thermals(instance)},
        "system/hydros.json": {"hydros": [_hydro(instance, i) for i in range(instance.n_plants)]},
        "system/hydro_production_models.json": {
            "production_models": [_production(i, rho) for i, rho in enumerate(instance.production_factor.tolist())]
        },
        **_scenarios(inflows, demand),
    }


def _require_expressible(instance: HydrothermalInstance) -> None:
    def refuse(problem: str, field: str, value: object, expected: str) -> None:
        raise InputError(
            f"cobre cannot express {problem}", source=instance.name, field=field, value=value, expected=expected
        )

    if instance.network == "dc":
        refuse("angles", "network", "dc", "copper or transport")
    if not instance.joint and instance.columns is None:
        refuse("plants that draw apart", "joint", False, "True, or a scenario")
    if not instance.surplus:
        refuse("that no surplus is allowed", "surplus", False, "True")
    if not instance.deficit_cost > 0:
        refuse("deficit without a cost", "deficit_cost", instance.deficit_cost, "above 0")
    apart = np.flatnonzero((instance.turbine_to != instance.spill_to).any(1))
    for i in apart[:1].tolist():
        target = instance.spill_to[i]
        found = instance.plant_names[int(target.argmax())] if target.any() else "out of the system"
        where = instance.turbine_to[i]
        wanted = instance.plant_names[int(where.argmax())] if where.any() else "out of the system"
        refuse(
            f"spilled water of {instance.plant_names[i]!r} that goes elsewhere than its turbined water",
            f"spill_to[{i}]",
            found,
            wanted,
        )
    if instance.columns is not None:
        return
    for t in range(min(len(instance.probabilities), instance.horizon)):
        chances = instance.probabilities[t]
        chances = chances[chances > 0]
        if np.ptp(chances) > 1e-12:
            refuse(
                "openings that are not equally likely", f"probabilities[{t}]", chances.tolist(), "equal probabilities"
            )


# ---- scenarios -------------------------------------------------------------------------------------------------------
def _inflow_table(instance: HydrothermalInstance) -> Floats:
    """Inflows float64[T, n, S] of the openings, in m3/s."""
    stages = [openings(instance, t)[0].T for t in range(instance.horizon)]
    counts = [stage.shape[1] for stage in stages]
    if len(set(counts)) > 1:
        t = next(t for t, count in enumerate(counts) if count != counts[0])
        raise InputError(
            "not as many inflow columns of positive probability as in the first stage",
            source=instance.name,
            field=f"probabilities[{t % len(instance.probabilities)}]",
            value=counts[t],
            expected=str(counts[0]),
        )
    return np.array(stages)


def _demand_table(instance: HydrothermalInstance) -> Floats:
    """Demand float64[T, B] in MW; one bus on a copper plate."""
    table = np.array([instance.stage_demand(t) for t in range(instance.horizon)]) * instance.base_mva
    if instance.network == "copper":
        table = table.sum(1, keepdims=True)
    for t, b in np.argwhere(table < 0)[:1].tolist():
        place = f"demand[{t % len(instance.demand)}][{b}]"
        raise InputError("negative demand", source=instance.name, field=place, value=float(table[t, b]), expected=">=0")
    return table


def _scenarios(inflows: Floats, demand: Floats) -> dict[str, Any]:
    n_stages, n, count = inflows.shape
    mean, deviation = inflows.mean(2), inflows.std(2)
    noise = (inflows - mean[..., None]) / np.where(deviation > 0, deviation, 1.0)[..., None]
    stage, opening, plant = np.meshgrid(np.arange(n_stages), np.arange(count), np.arange(n), indexing="ij")
    plants, plant_stages = np.meshgrid(np.arange(n), np.arange(n_stages), indexing="ij")
    buses, bus_stages = np.meshgrid(np.arange(demand.shape[1]), np.arange(n_stages), indexing="ij")
    return {
        "scenarios/inflow_seasonal_stats.parquet": {
            "hydro_id": plants.ravel().tolist(),
            "stage_id": plant_stages.ravel().tolist(),
            "mean_m3s": mean.T.ravel().tolist(),
            "std_m3s": deviation.T.ravel().tolist(),
        },
        "scenarios/load_seasonal_stats.parquet": {
            "bus_id": buses.ravel().tolist(),
            "stage_id": bus_stages.ravel().tolist(),
            "mean_mw": demand.T.ravel().tolist(),
            "std_mw": [0.0] * demand.size,
        },
        "scenarios/noise_openings.parquet": {
            "stage_id": stage.ravel().tolist(),
            "opening_index": opening.ravel().tolist(),
            "entity_index": plant.ravel().tolist(),
            "value": noise.transpose(0, 2, 1).ravel().tolist(),
        },
    }


# ---- time and options ------------------------------------------------------------------------------------------------
def _config(iterations: int, forward_passes: int, seed: int) -> dict[str, Any]:
    for field, value, least in (
        ("iterations", iterations, 1),
        ("forward_passes", forward_passes, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError("bad option", field=field, value=value, expected=f"a whole number >= {least}")
    schemes = {name: {"scheme": "in_sample"} for name in ("inflow", "load", "ncs")}
    return {
        "training": {
            "tree_seed": seed,
            "selection": {"method": "sampled", "forward_passes": forward_passes},
            "stopping_rules": [{"type": "iteration_limit", "limit": iterations}],
            "scenario_source": {"seed": seed, **schemes, "openings": {"source": "file"}},
        },
        "modeling": {"inflow_non_negativity": {"method": "none"}},
        "simulation": {"enabled": False},
    }


def _stages(instance: HydrothermalInstance, n_openings: int) -> dict[str, Any]:
    days = max(1, min(round(instance.stage_hours / 24), _MOST_DAYS // instance.horizon))
    dates = [(FIRST_DAY + datetime.timedelta(days=days * t)).isoformat() for t in range(instance.horizon + 1)]
    return {
        "policy_graph": {"type": "finite_horizon", "annual_discount_rate": 0.0},
        "stages": [
            {
                "id": t,
                "start_date": dates[t],
                "end_date": dates[t + 1],
                "blocks": [{"id": 0, "name": "stage", "hours": instance.stage_hours}],
                "num_openings": n_openings,
            }
            for t in range(instance.horizon)
        ],
    }


def _initial_conditions(instance: HydrothermalInstance) -> dict[str, Any]:
    storage = [{"hydro_id": i, "value_hm3": volume} for i, volume in enumerate(instance.initial_volume.tolist())]
    return {"storage": storage, "filling_storage": []}


def _penalties(instance: HydrothermalInstance) -> dict[str, Any]:
    """Costs of what our instances never allow exceed what it could save: the power of all water below, at the deficit.

    A m3/s for an hour yields at most the sum of production factors in MWh, each worth at most deficit or surplus.
    """
    deficit = instance.deficit_cost / instance.base_mva
    flow = 10 * deficit * (1 + float(instance.production_factor.sum()))  # USD per m3/s and hour
    productive = instance.production_factor[instance.production_factor > 0]
    power = flow / float(productive.min()) if len(productive) else flow
    violations = {
        "turbined_violation_below_cost": flow,
        "outflow_violation_below_cost": flow,
        "outflow_violation_above_cost": flow,
        "evaporation_violation_cost": flow,
        "water_withdrawal_violation_cost": flow,
        "storage_violation_below_cost": flow / HM3_PER_HOUR,
        "filling_target_violation_cost": flow / HM3_PER_HOUR,
        "generation_violation_below_cost": power,
    }
    return {
        "bus": {"deficit_segments": [{"depth_mw": None, "cost": deficit}], "excess_cost": deficit},
        "line": {"exchange_cost": TINY},
        "hydro": {"spillage_cost": TINY, "turbined_cost": TINY, "diversion_cost": TINY, **violations},
        "non_controllable_source": {"curtailment_cost": TINY},
    }


# ---- the system ------------------------------------------------------------------------------------------------------
def _named(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "name": name, "operational_start_date": FIRST_DAY.isoformat()}


def _bus_names(instance: HydrothermalInstance) -> tuple[str, ...]:
    return ("system",) if instance.network == "copper" and instance.n_buses > 1 else instance.bus_names


def _bus(instance: HydrothermalInstance, generator: int) -> int:
    return 0 if instance.network == "copper" else int(instance.generator_bus[generator])


def _lines(instance: HydrothermalInstance) -> list[dict[str, Any]]:
    if instance.network == "copper":
        return []
    # No flow is ever larger than everything that the generators give and the buses lack.
    unlimited = instance.base_mva * float(instance.max_power.sum() + np.abs(instance.demand).sum(1).max())
    lines = []
    for number in range(instance.n_branches):
        limit = min(float(instance.max_flow[number]) * instance.base_mva, unlimited)
        lines.append(
            {
                **_named(number, f"line {number + 1}"),
                "source_bus_id": int(instance.branch_from[number]),
                "target_bus_id": int(instance.branch_to[number]),
                "capacity": {"direct_mw": limit, "reverse_mw": limit},
                "exchange_cost": TINY,
                "losses_percent": 0.0,
            }
        )
    return lines


def _thermals(instance: HydrothermalInstance) -> list[dict[str, Any]]:
    thermal = np.setdiff1d(np.arange(instance.n_generators), instance.plant_generator).tolist()
    base = instance.base_mva
    return [
        {
            **_named(number, f"thermal {number + 1}"),
            "bus_id": _bus(instance, g),
            "generation": {
                "min_mw": float(instance.min_power[g]) * base,
                "max_mw": float(instance.max_power[g]) * base,
            },
            "cost_per_mwh": float(instance.generator_costs[g]) / base,
        }
        for number, g in enumerate(thermal)
    ]


def _hydro(instance: HydrothermalInstance, i: int) -> dict[str, Any]:
    g, base = int(instance.plant_generator[i]), instance.base_mva
    limits = {
        "min_turbined_m3s": float(instance.min_outflow[i]),
        "max_turbined_m3s": float(instance.max_outflow[i]),
        "min_generation_mw": float(instance.min_power[g]) * base,
        "max_generation_mw": float(instance.max_power[g]) * base,
    }
    receiver = instance.turbine_to[i]
    cost = float(instance.generator_costs[g]) / base * float(instance.production_factor[i])
    return {
        **_named(i, instance.plant_names[i]),
        "downstream_id": int(receiver.argmax()) if receiver.any() else None,
        "reservoir": {
            "min_storage_hm3": float(instance.min_volume[i]),
            "max_storage_hm3": float(instance.max_volume[i]),
        },
        "outflow": {"min_outflow_m3s": 0.0, "max_outflow_m3s": None},
        "generation": {"model": "constant_productivity", **limits},
        "unit_groups": [{"id": 0, "name": "all", "bus_id": _bus(instance, g), **limits}],
        "penalties": {
            "spillage_cost": max(float(instance.spill_costs[i]) * instance.water_factor, TINY),
            "turbined_cost": max(cost, TINY),
        },
    }


def _production(number: int, factor: float) -> dict[str, Any]:
    model = {"start_stage_id": 0, "end_stage_id": None, "model": "constant_productivity"}
    return {
        "hydro_id": number,
        "selection_mode": "stage_ranges",
        "stage_ranges": [{**model, "productivity_mw_per_m3s": factor}],
    }
