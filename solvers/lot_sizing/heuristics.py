"""Rules of thumb for lot-sizing, vectorised over copies; ties go to the lower item and the lower machine.

Every factory returns a function of inventory int64[B, I], set-up int64[B, M] and period int64[B] that gives actions
int64[B, M]. With P the production of a period, L the units and f the money lost by a change-over, rho the cost of a
unit short (backlog cost where there is backlog) and D the expected demand of the coming periods:

static: the assignment of items to machines that covers most shortage cost, sum of rho min(P, E d), kept for ever.

greedy: machines in order; each takes the item with the greatest saving rho min(shortage over ``periods``, its
production in them) - f, where the item it runs needs no change-over, and then counts that production as stock for the
next machines; without a saving it idles.

base-stock: item i is called for when its stock is below s = ``lead`` periods of demand + ``safety`` standard deviations
of it, and then produced until S = s + ``batch`` periods of demand. Machines whose item is below S go on; then, one
after the other, the item called for that misses most (rho times S - stock, less the set-up cost) gets the machine that
makes most of it, among those that are free or whose own item misses ``preempt`` times less. The last part matters where
capacity is short: without it runs up to S block the items that are already out of stock.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance
from orl.solvers.lot_sizing.rules import Decide


def idle(instance: LotSizingInstance) -> Decide:
    """No machine ever runs."""

    def decide(inventory: Integers, setup: Integers, period: Integers) -> Integers:
        return np.zeros_like(setup)

    return decide


def random(instance: LotSizingInstance, *, seed: int | None = None, compatible: bool = True) -> Decide:
    """Every machine draws evenly from idling and the items that it can make (all items: ``compatible=False``).

    Args:
        seed: With a seed, actions are a function of seed, period, copy and machine. None: every call takes a new key
            from numpy's global generator, as SB3's policies draw from torch's; ``orl.evaluate`` seeds both.
    """
    able = np.concatenate([np.ones((instance.n_machines, 1), np.bool_), instance.production > 0], axis=1)
    if not compatible:
        able[:] = True
    order = np.argsort(~able, axis=1, kind="stable")  # what a machine may do comes first
    machines = np.arange(instance.n_machines)

    def decide(inventory: Integers, setup: Integers, period: Integers) -> Integers:
        key = np.uint64(np.random.randint(2**31) if seed is None else seed % 2**64)  # noqa: NPY002
        place = np.arange(setup.size).reshape(setup.shape)
        choice = counter_noise.integers(able.sum(1), key, np.asarray(period)[:, None], place)
        return np.asarray(order[machines, choice], np.int64)

    return decide


def static(instance: LotSizingInstance) -> Decide:
    """One item a machine for ever, by maximum-weight assignment; machines without a useful item idle."""
    production, cost = instance.production, shortage_costs(instance)
    weight = np.minimum(production, instance.demand.mean[: instance.horizon].mean(0)) * cost
    machines, items = linear_sum_assignment(weight, maximize=True)
    actions = np.zeros(instance.n_machines, np.int64)
    actions[machines] = np.where(weight[machines, items] > 0, items + 1, 0)

    def decide(inventory: Integers, setup: Integers, period: Integers) -> Integers:
        return np.broadcast_to(actions, setup.shape).copy()

    return decide


def greedy(instance: LotSizingInstance, *, periods: int = 5) -> Decide:
    """Machine by machine the greatest saving over the next ``periods`` (fewer at the end of the horizon)."""
    require_at_least("periods", periods, 1)
    until = cumulative_demand(instance)
    cost, items = shortage_costs(instance), np.arange(instance.n_items)

    def decide(inventory: Integers, setup: Integers, period: Integers) -> Integers:
        first = np.clip(period, 0, instance.horizon)
        last = np.minimum(first + periods, instance.horizon)
        need = until[last] - until[first]
        stock = inventory.astype(np.float64)
        ahead = np.maximum(last - first, 1)[:, None]
        actions = np.zeros_like(setup)
        for m in range(instance.n_machines):
            loss = np.minimum(instance.setup_loss[m, setup[:, m]], instance.production[m])
            made = instance.production[m] * ahead - loss
            saving = cost * np.clip(need - stock, 0.0, made) - instance.setup_costs[m, setup[:, m]]
            saving[:, instance.production[m] == 0] = -np.inf
            best = saving.argmax(1)
            running = np.take_along_axis(saving, best[:, None], 1)[:, 0] > 0
            actions[:, m] = np.where(running, best + 1, 0)
            stock += np.where((items == best[:, None]) & running[:, None], made, 0.0)
        return actions

    return decide


def base_stock(
    instance: LotSizingInstance, *, lead: int = 1, safety: float = 0.0, batch: float = 8.0, preempt: float = 1.0
) -> Decide:
    """(s, S) for every item; s and S are counted from the period that is being planned and capped by the storage.

    Args:
        lead: Periods of demand in s, at least 1.
        safety: Standard deviations of that demand in s; negative where machines are scarce.
        batch: Periods of mean demand in S - s.
        preempt: A machine is taken from the item it runs when the new item misses more than ``preempt`` times as much
            (plus the set-up cost); infinite: a run always lasts until S.
    """
    for field, value, least in (("lead", lead, 1), ("batch", batch, 0), ("preempt", preempt, 0)):
        require_at_least(field, value, least)
    horizon, production, can = instance.horizon, instance.production, instance.production > 0
    low, high = reorder_levels(instance, lead, safety, batch)
    cost, machines = shortage_costs(instance), np.arange(instance.n_machines)

    def decide(inventory: Integers, setup: Integers, period: Integers) -> Integers:
        row, copies = np.clip(period, 0, horizon - 1), np.arange(len(setup))
        called, upper, stock = low[row], high[row], inventory.astype(np.float64)
        actions, held = np.zeros_like(setup), np.zeros(setup.shape)
        planned = np.zeros_like(setup)
        for m in machines:
            item = np.maximum(setup[:, m] - 1, 0)
            misses = upper[copies, item] - stock[copies, item]
            goes_on = (setup[:, m] > 0) & can[m, item] & (misses > 0)
            actions[:, m] = np.where(goes_on, setup[:, m], 0)
            held[goes_on, m] = preempt * (cost[item] * misses)[goes_on]
            planned[:, m] = np.where(goes_on, production[m, item], 0)
            stock[copies, item] += planned[:, m]
        change = instance.setup_costs[machines, setup]
        made = np.maximum(production - instance.setup_loss[machines, setup], 0)
        for _ in machines:
            misses = np.where(stock < called, cost * (upper - stock), 0.0)
            gain = np.where(can & (misses > 0)[:, None], misses[:, None] - change - held[..., None], -np.inf)
            item = gain.max(1).argmax(1)
            of_item = gain[copies, :, item]
            m = np.where(of_item > 0, made[copies, :, item], -1).argmax(1)
            takes = of_item[copies, m] > 0
            if not takes.any():
                break
            b, m, item = copies[takes], m[takes], item[takes]
            stock[b, np.maximum(actions[b, m] - 1, 0)] -= planned[b, m]
            actions[b, m], planned[b, m], held[b, m] = item + 1, made[b, m, item], np.inf
            stock[b, item] += planned[b, m]
        return actions

    return decide


# ---- what the rules know of an instance ----------------------------------------------------------------------------
def shortage_costs(instance: LotSizingInstance) -> Floats:
    """What a missing unit costs in a period, float64[I]: lost sales, or backlog where there is some."""
    return np.where(instance.max_backlog > 0, instance.backlog_costs, instance.lost_sales_costs)


def cumulative_demand(instance: LotSizingInstance) -> Floats:
    """Expected demand of the periods before t, float64[T + 1, I]."""
    mean = np.broadcast_to(instance.demand.mean[: instance.horizon], (instance.horizon, instance.n_items))
    return np.vstack([np.zeros(instance.n_items), np.cumsum(mean, axis=0)])


def reorder_levels(instance: LotSizingInstance, lead: int, safety: float, batch: float) -> tuple[Floats, Floats]:
    """s and S of every period and item, float64[T, I]: nothing is made for periods after the horizon."""
    horizon = instance.horizon
    until = cumulative_demand(instance)
    spread = np.vstack([np.zeros(instance.n_items), np.cumsum(demand_variance(instance), axis=0)])
    first = np.arange(horizon)
    last = np.minimum(first + lead, horizon)
    mean = until[last] - until[first]
    low = mean + safety * np.sqrt(spread[last] - spread[first])
    rest = until[horizon] - until[first] + safety * np.sqrt(spread[horizon] - spread[first])
    high = np.minimum(low + batch * mean / (last - first)[:, None], rest)
    storage = instance.max_inventory + until[1:] - until[:-1]  # more is discarded at the end of the period
    return np.minimum(low, storage), np.minimum(high, storage)


def demand_variance(instance: LotSizingInstance) -> Floats:
    """Variance of demand float64[T, I]."""
    demand = instance.demand
    second = (demand.values**2 * demand.probabilities).sum(-1)
    variance = np.maximum(second - demand.mean**2, 0.0)[: instance.horizon]
    return np.broadcast_to(variance, (instance.horizon, instance.n_items))


def require_at_least(field: str, value: float, least: float) -> None:
    """Raise InputError unless ``value`` >= ``least``."""
    if not value >= least:
        raise InputError("too small", field=field, value=value, expected=f">= {least}")
