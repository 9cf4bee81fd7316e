"""The compact programme of :mod:`orl.solvers.lot_sizing.milp` written in Pyomo, to be read; tests hold the two equal.

>>> from orl.envs.lot_sizing.library import load
>>> scenario = load("ls-2x1-t6/scenario-0")
>>> model = build_model(scenario)
>>> _ = solve_model(model)
>>> from orl.solvers.lot_sizing.perfect_information import PerfectInformation
>>> bool(abs(pyo.value(model.cost) - PerfectInformation().solve(scenario).objective) < 1e-6)
True
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.contrib import appsi

from orl.envs.lot_sizing.instance import Integers, LotSizingInstance
from orl.envs.lot_sizing.scenario import require_demand_path


def build_model(scenario: LotSizingInstance, *, exact: bool = True) -> pyo.ConcreteModel:
    """The programme of a scenario.

    Machines m, items i and set-ups j (0 idle) are numbered as in plans: items from 1. Periods t count from 0;
    ``stock[i, t]`` is the stock at the start of period t, so ``stock[i, T]`` at the end.

    Args:
        scenario: An instance with a demand path.
        exact: Units are discarded only when the storage is full, and lost only at the largest backlog.
    """
    path = require_demand_path(scenario)
    periods, machines = range(scenario.horizon), range(scenario.n_machines)
    items = range(1, scenario.n_items + 1)
    able = [(m, i) for m in machines for i in items if scenario.production[m, i - 1] > 0]
    setups = {m: [0] + [i for i in items if (m, i) in able] for m in machines}

    def units(m: int, i: int) -> int:
        return int(scenario.production[m, i - 1])

    def units_lost(m: int, j: int, i: int) -> int:
        return min(int(scenario.setup_loss[m, j, i - 1]), units(m, i))

    model = pyo.ConcreteModel(scenario.name)
    # x[m, j, t] = 1: machine m is set up for j in period t; change[m, j, i, t] = 1: it comes from j and runs i
    model.x = pyo.Var([(m, j, t) for m in machines for j in setups[m] for t in periods], domain=pyo.Binary)
    before = {m: sorted({*setups[m], int(scenario.initial_setup[m])}) for m in machines}
    moves = [(m, j, i, t) for m in machines for j in before[m] for i in setups[m] for t in periods]
    model.change = pyo.Var(moves, bounds=(0, 1))
    capacity = {i: sum(units(m, i) for m in machines) for i in items}
    low = {i: -int(scenario.max_backlog[i - 1]) for i in items}
    high = {i: int(scenario.max_inventory[i - 1]) for i in items}
    top = {i: max(high[i], int(scenario.initial_inventory[i - 1])) for i in items}
    states = [(i, t) for i in items for t in range(scenario.horizon + 1)]
    model.stock = pyo.Var(states, domain=pyo.NonNegativeReals)
    model.backlog = pyo.Var(states, bounds=lambda _, i, t: (0, -low[i]))
    model.lost = pyo.Var([(i, t) for i in items for t in periods], bounds=lambda _, i, t: (0, int(path[t, i - 1])))
    model.discarded = pyo.Var([(i, t) for i in items for t in periods], domain=pyo.NonNegativeReals)

    model.one_setup = pyo.Constraint(
        [(m, t) for m in machines for t in periods], rule=lambda _, m, t: sum(model.x[m, j, t] for j in setups[m]) == 1
    )

    def comes_from(_: Any, m: int, j: int, t: int) -> Any:
        leaving = sum(model.change[m, j, i, t] for i in setups[m])
        if t == 0:
            return leaving == int(scenario.initial_setup[m] == j)
        return leaving == (model.x[m, j, t - 1] if j in setups[m] else 0)

    model.comes_from = pyo.Constraint(
        [(m, j, t) for m in machines for j in before[m] for t in periods], rule=comes_from
    )
    model.goes_to = pyo.Constraint(
        [(m, i, t) for m in machines for i in setups[m] for t in periods],
        rule=lambda _, m, i, t: sum(model.change[m, j, i, t] for j in before[m]) == model.x[m, i, t],
    )

    def made(i: int, t: int) -> Any:
        return sum(
            (units(m, i) - units_lost(m, j, i)) * model.change[m, j, i, t]
            for m in machines
            if (m, i) in able
            for j in before[m]
        )

    def balance(_: Any, i: int, t: int) -> Any:
        arrives = model.stock[i, t] - model.backlog[i, t] + made(i, t) + model.lost[i, t]
        return model.stock[i, t + 1] - model.backlog[i, t + 1] == arrives - int(path[t, i - 1]) - model.discarded[i, t]

    model.balance = pyo.Constraint([(i, t) for i in items for t in periods], rule=balance)
    for i in items:
        start = int(scenario.initial_inventory[i - 1])
        model.stock[i, 0].fix(max(start, 0))
        model.backlog[i, 0].fix(max(-start, 0))
        for t in periods:
            model.stock[i, t + 1].setub(high[i])

    if exact:
        # full = 1: discarding is allowed, and the stock is at its limit; short = 1: likewise for losing sales
        model.full = pyo.Var([(i, t) for i in items for t in periods], domain=pyo.Binary)
        model.short = pyo.Var([(i, t) for i in items for t in periods if low[i] < 0], domain=pyo.Binary)
        model.discards = pyo.Constraint(
            [*model.full], rule=lambda _, i, t: model.discarded[i, t] <= (top[i] + capacity[i]) * model.full[i, t]
        )
        model.at_limit = pyo.Constraint(
            [*model.full],
            rule=lambda _, i, t: (
                model.stock[i, t + 1] - model.backlog[i, t + 1] >= high[i] - (high[i] - low[i]) * (1 - model.full[i, t])
            ),
        )
        model.loses = pyo.Constraint(
            [*model.short], rule=lambda _, i, t: model.lost[i, t] <= int(path[t, i - 1]) * model.short[i, t]
        )
        model.at_backlog = pyo.Constraint(
            [*model.short],
            rule=lambda _, i, t: (
                model.stock[i, t + 1] - model.backlog[i, t + 1] <= low[i] + (high[i] - low[i]) * (1 - model.short[i, t])
            ),
        )

    model.cost = pyo.Objective(
        expr=sum(
            float(scenario.setup_costs[m, j, i - 1]) * model.change[m, j, i, t] for m, j, i, t in moves if i in items
        )
        + sum(
            float(scenario.lost_sales_costs[i - 1]) * model.lost[i, t]
            + float(scenario.holding_costs[i - 1]) * model.stock[i, t + 1]
            + float(scenario.backlog_costs[i - 1]) * model.backlog[i, t + 1]
            for i in items
            for t in periods
        )
    )
    return model


def solve_model(model: pyo.ConcreteModel, *, time_limit: float | None = None) -> Any:
    """HiGHS through Pyomo, to optimality unless the time ends; loads the solution and returns Pyomo's result."""
    solver = appsi.solvers.Highs()
    solver.config.time_limit = time_limit
    solver.highs_options = {"mip_rel_gap": 0.0, "threads": 1}
    return solver.solve(model)


def plan_actions(model: pyo.ConcreteModel, scenario: LotSizingInstance) -> Integers:
    """What the solved programme does: int64[T, M], 0 idle."""
    actions = np.zeros((scenario.horizon, scenario.n_machines), np.int64)
    for (m, j, t), variable in model.x.items():
        if pyo.value(variable) > 0.5:
            actions[t, m] = j
    return actions
