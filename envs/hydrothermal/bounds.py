"""A lower bound without a linear programme: energy that the water can give, sold to the dearest demand.

Three relaxations of a dispatch lead to it.

1. One bus: summed over buses the power balances lose their flows.
2. Water as energy: an hm3 at plant u gives at most ``e_u = max(rho_u / K + e_i, e_j)`` MW-stages, where turbined water
   goes on to plant i and spilled water to j (0 where it leaves). Summing the water balances with weights e shows that
   the hydro energy of the stages 0..t is at most ``sum_u e_u (v_u + K (w_u,0 + ... + w_u,t))``; volumes left over only
   lower it. Storage limits are dropped.
3. Hydro power of a stage is at most what the plants' generators and turbines can give together.

What is left gives each stage an amount of hydro energy, which replaces its dearest supply first (deficit, then thermal
plants by cost), under limits on the amounts of single stages and of all stages up to t. These sets are nested or
disjoint, so the amounts form a polymatroid and a greedy allocation in the order of the costs saved is exact.

The bound of a path is convex in the inflows (it is the value of a linear programme that has them on its right-hand
side). So at expected inflows it is, by Jensen's inequality, at most the expected bound over paths, hence at most the
expected cost of every policy, even of one that knows the future.
"""

from __future__ import annotations

import numpy as np

from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance

_ROUNDING = 1e-9  # the bound is often met exactly; rounding must not lift it above a cost


def energy_bound(instance: HydrothermalInstance) -> float:
    """Lower bound, USD for each hour of a stage, summed: of a scenario's dispatches, else of expected costs."""
    if instance.columns is not None:
        inflows = instance.path_inflows(instance.columns)
    else:
        inflows = instance.mean_inflows[np.arange(instance.horizon) % len(instance.mean_inflows)]
    return path_bound(instance, inflows)


def path_bound(instance: HydrothermalInstance, inflows: Floats) -> float:
    """Lower bound on the cost of every dispatch that meets inflows float64[T, n], m3/s."""
    hydro = np.zeros(instance.n_generators, np.bool_)
    hydro[instance.plant_generator] = True
    worth = energy_worth(instance)
    water = instance.initial_volume + instance.water_factor * np.cumsum(inflows, axis=0)
    energy = water @ worth / instance.base_mva  # per unit, of the stages up to t
    most = float((instance.production_factor * instance.most_outflow).sum()) / instance.base_mva
    room = np.full(instance.horizon, most)  # for more hydro power

    rows = np.arange(instance.horizon) % len(instance.demand)
    forced = instance.min_power[~hydro]
    costs = instance.generator_costs[~hydro]
    missing = np.maximum(instance.demand[rows].sum(1) - forced.sum(), 0.0)
    cost = instance.horizon * float(forced @ costs)
    cheapest_water = float(instance.generator_costs[hydro & (instance.max_power > 0)].min(initial=np.inf))

    order = np.argsort(costs, kind="stable")
    order = order[costs[order] < instance.deficit_cost]
    sizes = [*(instance.max_power[~hydro] - forced)[order], np.inf]
    prices = [*costs[order], instance.deficit_cost]
    supplied = []  # by each kind of supply when there is no water, [k][T]
    for size in sizes:
        supplied.append(np.minimum(missing, size))
        missing = missing - supplied[-1]
    for price, supply in zip(reversed(prices), reversed(supplied), strict=True):
        cost += price * float(supply.sum())
        saving = price - cheapest_water
        if saving <= 0 or not supply.any():
            continue
        amounts = _largest(np.minimum(supply, room), energy)
        cost -= saving * float(amounts.sum())
        room = room - amounts
        energy = energy - np.cumsum(amounts)
    return max(cost * (1.0 - _ROUNDING), 0.0)


def energy_worth(instance: HydrothermalInstance) -> Floats:
    """float64[n]: the most energy that an hm3 at a plant can give on its way down, MW over a stage.

    >>> from orl.envs.hydrothermal.library import load
    >>> (energy_worth(load("tri3")) * 2.628).round(3).tolist()
    [1.6, 0.6, 0.8]
    """
    worth = np.zeros(instance.n_plants)
    per_hm3 = instance.production_factor / instance.water_factor
    for u in instance.upstream_first[::-1].tolist():
        after_turbine = worth[instance.turbine_to[u]].sum()
        after_spill = worth[instance.spill_to[u]].sum()
        worth[u] = max(per_hm3[u] + after_turbine, after_spill)
    return worth


def _largest(limits: Floats, totals: Floats) -> Floats:
    """The amounts [T] of largest sum with amounts <= limits and, for all t, amounts[0] + ... + amounts[t] <= totals[t].

    Later totals hold for earlier stages, too; with totals made increasing in this way, the sum up to t is the least of
    ``totals[s] + limits[s + 1] + ... + limits[t]`` over s <= t, and of all limits up to t.
    """
    totals = np.minimum.accumulate(totals[::-1])[::-1]
    all_limits = np.cumsum(limits)
    reached = all_limits + np.minimum(np.minimum.accumulate(totals - all_limits), 0.0)
    return np.maximum(np.diff(np.maximum(reached, 0.0), prepend=0.0), 0.0)
