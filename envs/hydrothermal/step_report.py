"""What a step did to the network: the keys that ``infos="full"`` adds, from a programme solved for every copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from orl.envs.hydrothermal.instance import Booleans, Floats
from orl.envs.hydrothermal.plan import dispatch_of
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.envs.hydrothermal.stage_model import COST_SCALE

if TYPE_CHECKING:
    from orl.envs.hydrothermal.batch import HydrothermalBatch


def step_report(batch: HydrothermalBatch, active: Booleans) -> dict[str, Any]:
    """Columns [N] and [N, ...] of the keys that :class:`orl.envs.hydrothermal.env.HydrothermalEnv` lists.

    Programmes are solved from a cold start, so that the answer hangs on the step alone where several dispatches cost
    the least. Rows of copies that took no part are 0 (``lp_source``: empty).
    """
    problem, n_copies = batch.problem, batch.n_copies
    n, n_buses = problem.n_plants, problem.n_buses
    column_shape = batch.columns.shape[2:]
    report: dict[str, Any] = {
        "cost": batch.costs.copy(),
        **{name: np.zeros(n_copies) for name in ("thermal_cost", "deficit_mw", "deficit_cost", "spill_hm3")},
        **{name: np.zeros((n_copies, n)) for name in ("volumes", "inflow")},
        **{name: np.zeros(n_copies) for name in ("hydro_mw", "thermal_mw")},
        "water_value": np.zeros((n_copies, n)),
        "bus_price": np.zeros((n_copies, n_buses)),
        "lp_source": np.where(active, batch.sources, ""),
        "column": np.zeros((n_copies, *column_shape), np.int64),
        "target_violation": np.where(active, batch.target_violation, 0.0),
        "illegal_actions": np.where(active, batch.illegal, 0),
    }
    for b in np.flatnonzero(active).tolist():
        t = int(batch.stage[b]) - 1
        for name, value in _step(batch, b, t).items():
            report[name][b] = value
        report["volumes"][b], report["inflow"][b] = batch.history[b, t + 1], batch.paths[b, t]
        report["column"][b] = batch.columns[b, t]
    return report


def _step(batch: HydrothermalBatch, b: int, t: int) -> dict[str, Any]:
    """Power, costs and prices of stage t of copy b."""
    problem, releases = batch.problem, None
    before, after = batch.history[b, t], batch.history[b, t + 1]
    if batch.releases is None:
        rhs = before + problem.water_factor * batch.paths[b, t] - after
    else:
        releases = [part[b, t : t + 1] for part in batch.releases]
        rhs = problem.production_factor * releases[0][0]
    programme = batch.evaluator.programme(t)
    programme.restart()
    values, duals = programme.run(rhs)
    dispatch = dispatch_of(
        problem, batch.columns[b, t : t + 1], np.stack([before, after]), programme.model, values[None], *releases or ()
    )
    base, thermal = problem.base_mva, np.ones(problem.n_generators, np.bool_)
    thermal[problem.plant_generator] = False
    power, deficit = dispatch.power[0], float(dispatch.deficit.sum())
    per_hm3 = 1.0 if releases is None else problem.production_factor / problem.water_factor
    return {
        "thermal_cost": float(power[thermal] @ problem.generator_costs[thermal]),
        "deficit_mw": base * deficit,
        "deficit_cost": problem.deficit_cost * deficit,
        "spill_hm3": float(dispatch.spilled.sum()),
        "hydro_mw": base * float(power[~thermal].sum()),
        "thermal_mw": base * float(power[thermal].sum()),
        "water_value": -duals * per_hm3 + 0.0,
        "bus_price": bus_prices(programme, base),
    }


def bus_prices(programme: StageLP, base_mva: float) -> Floats:
    """Prices float64[B] (float64[1] on a copper plate) of the last solve, USD/MWh: duals of the power balances."""
    duals = np.array(programme.highs.getSolution().row_dual)[programme.model.rows["balance"]]
    prices: Floats = duals / (COST_SCALE * base_mva)
    return prices
