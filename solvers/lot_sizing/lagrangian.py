"""Lagrangian relaxation of the machines: strong lower bounds and good plans for a known demand path, item by item.

If the rule "a machine makes one item at a time" is given up for a price ``price[t, m] >= 0`` of using machine m in
period t, the problem falls apart into one small dynamic programme for each item over its stock and the set of machines
that are set up for it. It knows the discard above the limit, lost sales, backlog and change-over losses exactly, so

    sum_i value_i(price) - sum price

is a lower bound on the *exact* cost of a demand path for every price, and far above the linear relaxation of the
mixed-integer programme: at the best prices it is the bound of Dantzig and Wolfe. Prices are improved by the subgradient
method with steps of Polyak (USSR Computational Mathematics and Mathematical Physics 9, 1969) that are halved when the
bound stands still (Held, Wolfe, Crowder, Mathematical Programming 6, 1974).

Plans come from the same dynamic programmes. An idle machine forgets its set-up, so items meet only where they want the
same machine in the same period: with the other items' periods closed, an item is planned optimally. Items are planned
one after the other at the current prices, then each again without prices until nothing improves, then by ruin and
recreate: a few items are taken out and planned anew in another order (Schrimpf et al., Journal of Computational Physics
159, 2000), kept when the whole is not worse.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.kernel_cache import drop_stale_kernels
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance
from orl.envs.lot_sizing.scenario import require_demand_path
from orl.solvers.lot_sizing.milp import changes_alike

drop_stale_kernels()

LARGEST_TABLE = 2**28  # choices of one item: bytes
PATIENCE = 20  # iterations without a better bound before the step is halved
SMALLEST_STEP = 1e-4
PLAN_EVERY = 10  # iterations
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Result of :func:`relax_machines`.

    Attributes:
        bound: A valid lower bound on the cost of any plan for the path.
        prices: float64[T, M] that prove it: what a period of a machine is worth.
        actions: int64[T, M] of the best plan met.
        cost: Its cost.
        iterations: Steps taken.
    """

    bound: float
    prices: Floats
    actions: Integers
    cost: float
    iterations: int


def relax_machines(
    scenario: LotSizingInstance,
    *,
    iterations: int = 1000,
    time_limit: float | None = None,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Relaxation:
    """A lower bound on every plan of a scenario, much better than that of the linear relaxation, and a good plan.

    Args:
        scenario: An instance with a demand path; changes may not depend on the item before.
        iterations: At most so many steps (one of 15 items, 5 machines and 20 periods takes about 5 milliseconds).
        time_limit: Wall seconds, None: none.
        seed: Seed of the orders in which items are planned.
        stop: Asked after every step; True ends the search.

    Raises:
        InputError: No demand path, sequence-dependent changes, tables beyond 256 MiB (see :func:`fits`).
    """
    began = time.perf_counter()
    items = path_programmes(scenario)
    rng = np.random.default_rng(seed)
    shape = (scenario.horizon, scenario.n_machines)
    price, direction = np.zeros(shape), np.zeros(shape)
    runs = plan_items(items, price, rng.permutation(len(items)), shape)
    cost = plan_cost(items, runs)
    best, best_price, scale, stale, step = -np.inf, price, 1.0, 0, 0
    while step < iterations:
        total = -float(price.sum())
        wanted = np.zeros((len(items), *shape), np.bool_)
        for item in items:
            value, wanted[item.index] = item.solve(price)
            total += value
        step += 1
        excess = wanted.sum(0) - 1.0
        if (excess <= 0.0).all() or step % PLAN_EVERY == 0:
            found = wanted if (excess <= 0.0).all() else plan_items(items, price, rng.permutation(len(items)), shape)
            value = plan_cost(items, found)
            if value < cost:
                runs, cost = found, value
        if step == 1 or total > best + 1e-9 * abs(best):
            best, best_price, stale = total, price, 0
        else:
            stale += 1
        out_of_time = time_limit is not None and time.perf_counter() - began > time_limit
        if out_of_time or best >= cost - 1e-9 * abs(cost) or (stop is not None and stop()):
            break
        if stale >= PATIENCE:
            scale, stale, price, direction = scale / 2, 0, best_price, np.zeros(shape)
            if scale < SMALLEST_STEP:
                break
            continue
        excess[(price <= 0.0) & (excess < 0.0)] = 0.0
        direction = 0.7 * direction + excess
        norm = float((direction * direction).sum())
        if norm == 0.0:
            break
        price = np.maximum(price + scale * (cost - total) / norm * direction, 0.0)
    return Relaxation(best, best_price, actions_of(runs), cost, step)


def ruin_and_recreate(
    scenario: LotSizingInstance,
    actions: Integers,
    prices: Floats,
    *,
    rounds: int = 1000,
    time_limit: float | None = None,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
) -> tuple[Integers, float]:
    """A plan at least as good as ``actions`` int64[T, M], and its cost; other arguments as :func:`relax_machines`."""
    began = time.perf_counter()
    items = path_programmes(scenario)
    rng = np.random.default_rng(seed)
    runs = np.stack([actions == item.index + 1 for item in items])
    cost = plan_cost(items, runs)
    for _ in range(rounds):
        if (time_limit is not None and time.perf_counter() - began > time_limit) or (stop is not None and stop()):
            break
        out = rng.permutation(len(items))[: rng.integers(2, max(3, min(6, len(items))) + 1)]
        kept = runs.copy()
        kept[out] = False
        found = plan_items(items, prices * rng.choice([0.0, 0.5, 1.0]), out, actions.shape, kept)
        value = plan_cost(items, found)
        if value <= cost:
            runs, cost = found, value
    return actions_of(runs), cost


def fits(instance: LotSizingInstance) -> bool:
    """Whether the dynamic programmes can be set up: changes cost the same from everywhere, tables fit in memory."""
    if not all(changes_alike(instance, m) for m in range(instance.n_machines)):
        return False
    machines = (instance.production > 0).sum(0)
    levels = _top(instance) + instance.max_backlog + 1
    return (
        bool((machines <= 20).all()) and int((instance.horizon * machines * levels << machines).max()) < LARGEST_TABLE
    )


def path_programmes(scenario: LotSizingInstance) -> list[PathProgramme]:
    """The dynamic programmes of all items; InputError as :func:`relax_machines`."""
    require_demand_path(scenario)
    if not fits(scenario):
        raise InputError(
            "no relaxation of the machines: changes depend on the item before, or the tables are too large",
            source=scenario.name,
            field="setup_costs, setup_loss, production, max_inventory",
        )
    return [PathProgramme(scenario, i) for i in range(scenario.n_items)]


def plan_items(
    items: list[PathProgramme],
    prices: Floats,
    order: Integers,
    shape: tuple[int, ...],
    kept: Booleans | None = None,
) -> Booleans:
    """Runs bool[I, T, M] that share no machine: ``order`` one by one at the prices, then all until nothing improves."""
    runs = np.zeros((len(items), *shape), np.bool_) if kept is None else kept
    for i in order.tolist():
        runs[i] = items[i].solve(np.where(runs.any(0), np.inf, prices))[1]
    costs = [item.cost_of(runs[item.index]) for item in items]
    improved = True
    while improved:
        improved = False
        for item in items:
            others = runs.sum(0) - runs[item.index] > 0
            value, found = item.solve(np.where(others, np.inf, 0.0))
            if value < costs[item.index] - 1e-9:
                runs[item.index], costs[item.index], improved = found, value, True
    return runs


def plan_cost(items: list[PathProgramme], runs: Booleans) -> float:
    """Total cost of runs bool[I, T, M]."""
    return float(sum(item.cost_of(runs[item.index]) for item in items))


def actions_of(runs: Booleans) -> Integers:
    """int64[T, M], 0 idle."""
    return np.where(runs.any(0), runs.argmax(0) + 1, 0)


def _top(instance: LotSizingInstance) -> Integers:
    """The largest post-decision stock of every item: int64[I]."""
    highest = np.maximum(instance.max_inventory, instance.initial_inventory)
    top: Integers = highest + instance.production.sum(0)
    return top


class PathProgramme:
    """One item's dynamic programme on a demand path, ready for any prices."""

    def __init__(self, scenario: LotSizingInstance, i: int) -> None:
        self.index = i
        self.machines = np.flatnonzero(scenario.production[:, i] > 0)
        self.units = scenario.production[self.machines, i]
        self.cost = scenario.setup_costs[self.machines, 0, i]
        self.loss = np.minimum(scenario.setup_loss[self.machines, 0, i], self.units)
        self.demand = np.ascontiguousarray(require_demand_path(scenario)[:, i])
        self.low, self.high = -int(scenario.max_backlog[i]), int(scenario.max_inventory[i])
        self.top = int(_top(scenario)[i])
        levels = np.arange(self.low, self.top + 1)
        left = levels[None, :] - self.demand[:, None]
        after = np.clip(left, self.low, self.high)
        self.after = after - self.low
        self.stage = (
            scenario.lost_sales_costs[i] * np.maximum(self.low - left, 0)
            + scenario.holding_costs[i] * np.maximum(after, 0)
            + scenario.backlog_costs[i] * np.maximum(-after, 0)
        )
        self.start = int(scenario.initial_inventory[i]) - self.low
        self.first = int(((scenario.initial_setup[self.machines] == i + 1) << np.arange(len(self.machines))).sum())
        shape = (len(self.demand), len(self.machines), len(levels), 1 << len(self.machines))
        self.choice = np.empty(shape, np.bool_)

    @property
    def pairs(self) -> int:
        """Arcs of a period: every stock level with every set of machines before and now."""
        return self.stage.shape[1] << 2 * len(self.machines)

    def solve(self, prices: Floats) -> tuple[float, Booleans]:
        """Least cost with the prices float64[T, M] (infinite: closed), and which machines run the item: bool[T, M]."""
        mine = np.ascontiguousarray(prices[:, self.machines])
        value, runs = _solve_item(
            mine, self.units, self.loss, self.cost, self.stage, self.after, self.start, self.first, self.choice
        )
        everywhere = np.zeros(prices.shape, np.bool_)
        everywhere[:, self.machines] = runs
        return value, everywhere

    def cost_of(self, runs: Booleans) -> float:
        """Cost of running the item as bool[T, M] says, without prices."""
        mine = np.ascontiguousarray(runs[:, self.machines])
        cost: float = _cost_of_runs(
            mine, self.units, self.loss, self.cost, self.stage, self.after, self.start, self.first
        )
        return cost


@numba.njit(cache=True, nogil=True)
def _solve_item(price, units, loss, cost, stage, after, start, first, choice):  # type: ignore[no-untyped-def]
    """Backward over periods, and within a period backward over machines (each decides alone: 2 choices, not 2^k).

    ``table[q, b]``: cost from here on, post-decision stock q (from the lowest level), bit m of b: machine m is set up
    for the item (machines already asked: now; the others: before the period).
    """
    n_periods, n_machines = price.shape
    n_levels, n_sets = stage.shape[1], 1 << n_machines
    table, future = np.zeros((n_levels, n_sets)), np.zeros((n_levels, n_sets))
    for t in range(n_periods - 1, -1, -1):
        for q in range(n_levels):
            to = after[t, q]
            for b in range(n_sets):
                table[q, b] = stage[t, q] + future[to, b]
        for m in range(n_machines - 1, -1, -1):
            bit = 1 << m
            running, changing = units[m], units[m] - loss[m]
            keep_cost, change_cost = price[t, m], price[t, m] + cost[m]
            for q in range(n_levels):  # levels are only raised, and higher ones are read before they are written
                high, low = min(q + running, n_levels - 1), min(q + changing, n_levels - 1)
                for b in range(n_sets):
                    if b & bit == 0:
                        idle = table[q, b]
                        kept = keep_cost + table[high, b | bit]
                        changed = change_cost + table[low, b | bit]
                        choice[t, m, q, b | bit] = kept < idle
                        choice[t, m, q, b] = changed < idle
                        future[q, b | bit] = min(kept, idle)
                        future[q, b] = min(changed, idle)
            for q in range(n_levels):
                for b in range(n_sets):
                    table[q, b] = future[q, b]
        for q in range(n_levels):
            for b in range(n_sets):
                future[q, b] = table[q, b]
    runs = np.zeros((n_periods, n_machines), np.bool_)
    q, b = start, first
    for t in range(n_periods):
        for m in range(n_machines):
            bit = 1 << m
            on = choice[t, m, q, b]
            if on:
                q = min(q + units[m] - (loss[m] if b & bit == 0 else 0), n_levels - 1)
                b |= bit
            else:
                b &= ~bit
            runs[t, m] = on
        q = after[t, q]
    return future[start, first], runs


@numba.njit(cache=True, nogil=True)
def _cost_of_runs(runs, units, loss, cost, stage, after, start, first):  # type: ignore[no-untyped-def]
    total, q, b = 0.0, start, first
    for t in range(len(runs)):
        for m in range(len(units)):
            bit = 1 << m
            if runs[t, m]:
                q += units[m]
                if b & bit == 0:
                    q -= loss[m]
                    total += cost[m]
                b |= bit
            else:
                b &= ~bit
        total += stage[t, q]
        q = after[t, q]
    return total
