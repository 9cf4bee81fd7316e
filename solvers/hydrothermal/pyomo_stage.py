"""The programme of one stage written in Pyomo, to be read; tests hold it equal to the one that solvers use.

>>> from orl.envs.hydrothermal.library import load
>>> instance = load("tri3")
>>> inflow = instance.inflow(0, 1)
>>> model = build_model(instance)
>>> solve_model(model, instance.initial_volume + instance.water_factor * inflow)
0.0
>>> [round(model.volume[i].value) <= 200 for i in model.plants]
[True, True, True]
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyomo.environ as pyo
from pyomo.contrib import appsi

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance

FORMS = ("strict", "storage")


def build_model(
    instance: HydrothermalInstance, stage: int = 0, form: Literal["strict", "storage"] = "storage"
) -> pyo.ConcreteModel:
    """The programme of a stage; its ``water_at_hand`` is set by :func:`solve_model`.

    Plants, generators, buses and branches are numbered by position from 0. Costs are USD for each hour.

    Args:
        instance: Any instance.
        stage: The stage whose demand is served.
        form: ``storage``: the volumes at the end are decided, water at hand is start volume + K inflow. ``strict``: the
            volumes at the end are given, water at hand is start volume + K inflow - end volume.

    Raises:
        InputError: another form.
    """
    if form not in FORMS:
        raise InputError("unknown form", field="form", value=form, expected=" | ".join(FORMS))
    copper, dc = instance.network == "copper", instance.network == "dc"
    k, base = instance.water_factor, instance.base_mva
    demand = instance.stage_demand(stage)

    def limits(low: Floats, high: Floats) -> Any:
        return lambda _, i: (_finite(low[i]), _finite(high[i]))

    model = pyo.ConcreteModel(instance.name)
    model.plants = pyo.RangeSet(0, instance.n_plants - 1)
    model.generators = pyo.RangeSet(0, instance.n_generators - 1)
    model.buses = pyo.RangeSet(0, 0 if copper else instance.n_buses - 1)
    model.branches = pyo.RangeSet(0, -1 if copper else instance.n_branches - 1)
    model.water_at_hand = pyo.Param(model.plants, mutable=True, initialize=0.0, within=pyo.Reals)  # hm3

    model.power = pyo.Var(model.generators, bounds=limits(instance.min_power, instance.max_power))  # per unit
    model.deficit = pyo.Var(model.buses, domain=pyo.NonNegativeReals)  # per unit
    model.surplus = pyo.Var(model.buses, bounds=(0, None if instance.surplus else 0))  # per unit
    model.turbined = pyo.Var(model.plants, bounds=limits(instance.min_outflow, instance.max_outflow))  # m3/s
    model.spilled = pyo.Var(model.plants, domain=pyo.NonNegativeReals)  # hm3
    model.flow = pyo.Var(model.branches, bounds=limits(-instance.max_flow, instance.max_flow))  # per unit
    if form == "storage":
        model.volume = pyo.Var(model.plants, bounds=limits(instance.min_volume, instance.max_volume))  # hm3

    def water(_: Any, i: int) -> Any:
        kept = k * model.turbined[i] + model.spilled[i] + (model.volume[i] if form == "storage" else 0)
        arrives = k * sum(model.turbined[u] for u in np.flatnonzero(instance.turbine_to[:, i]).tolist())
        arrives += sum(model.spilled[u] for u in np.flatnonzero(instance.spill_to[:, i]).tolist())
        return kept - arrives == model.water_at_hand[i]

    def production(_: Any, i: int) -> Any:
        return base * model.power[int(instance.plant_generator[i])] == instance.production_factor[i] * model.turbined[i]

    def balance(_: Any, b: int) -> Any:
        here = [g for g in model.generators if copper or instance.generator_bus[g] == b]
        supply = sum(model.power[g] for g in here) + model.deficit[b] - model.surplus[b]
        leaves = sum(model.flow[line] for line in model.branches if instance.branch_from[line] == b)
        enters = sum(model.flow[line] for line in model.branches if instance.branch_to[line] == b)
        return supply - leaves + enters == float(demand.sum() if copper else demand[b])

    model.water = pyo.Constraint(model.plants, rule=water)
    model.production = pyo.Constraint(model.plants, rule=production)
    model.balance = pyo.Constraint(model.buses, rule=balance)
    if dc:
        _add_angles(model, instance)
    model.cost = pyo.Objective(
        expr=sum(float(instance.generator_costs[g]) * model.power[g] for g in model.generators)
        + sum(float(instance.spill_costs[i]) * model.spilled[i] for i in model.plants)
        + instance.deficit_cost * sum(model.deficit[b] + model.surplus[b] for b in model.buses)
    )
    model.dual = pyo.Suffix(direction=pyo.Suffix.IMPORT)
    return model


def solve_model(model: pyo.ConcreteModel, water_at_hand: Floats) -> float:
    """HiGHS through Pyomo: the least cost, USD for each hour; loads the solution and duals into the model.

    Args:
        model: From :func:`build_model`.
        water_at_hand: float64[n], hm3, as its form says.

    Raises:
        RuntimeError: the programme has no optimum (end volumes that cannot be reached).
    """
    for i in model.plants:
        model.water_at_hand[i] = float(water_at_hand[i])
    solver = appsi.solvers.Highs()
    solver.config.load_solution = False
    solver.highs_options = {"threads": 1}
    result = solver.solve(model)
    if result.termination_condition != appsi.base.TerminationCondition.optimal:
        raise RuntimeError(f"the stage has no optimum: {result.termination_condition}")
    result.solution_loader.load_vars()
    for constraint, dual in result.solution_loader.get_duals().items():
        model.dual[constraint] = dual
    return float(pyo.value(model.cost))


def water_values(model: pyo.ConcreteModel) -> Floats:
    """Duals float64[n] of the water balances after :func:`solve_model`: USD for each hour and hm3, at most 0."""
    return np.array([model.dual[model.water[i]] for i in model.plants], np.float64)


def _add_angles(model: pyo.ConcreteModel, instance: HydrothermalInstance) -> None:
    """Flows follow the differences of angles (radians), which are limited for every pair of buses with a branch."""
    model.angle = pyo.Var(model.buses)
    model.angle[instance.reference_bus].fix(0.0)

    def flow_law(_: Any, line: int) -> Any:
        start, end = int(instance.branch_from[line]), int(instance.branch_to[line])
        return model.flow[line] == float(instance.susceptance[line]) * (model.angle[start] - model.angle[end])

    def limit(_: Any, p: int) -> Any:
        apart = model.angle[int(instance.pair_from[p])] - model.angle[int(instance.pair_to[p])]
        low, high = _finite(instance.min_angle[p]), _finite(instance.max_angle[p])
        return pyo.Constraint.Skip if low is None and high is None else (low, apart, high)

    model.flow_law = pyo.Constraint(model.branches, rule=flow_law)
    model.angle_limit = pyo.Constraint(pyo.RangeSet(0, len(instance.pair_from) - 1), rule=limit)


def _finite(limit: Any) -> float | None:
    return float(limit) if np.isfinite(limit) else None
