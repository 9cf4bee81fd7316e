"""Cheap lower bounds on the cost of a demand path and on expected cost; each function tells why its bound holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orl.envs.lot_sizing.instance import Floats, Incompatible, Integers, LotSizingInstance

PREFIXES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)  # lengths of the beginnings of a path that are tried


def path_bound(
    instance: LotSizingInstance,
    demand: Integers,
    inventory: Integers,
    setup: Integers,
    incompatible: Incompatible = "mask",
) -> Floats:
    """A lower bound on the cost of every plan for given demand paths and starts.

    The sum of a bound on holding cost and the larger of two bounds on all other cost:

    - Holding: with more production the stock of an item is never smaller, so what remains of the first stock without
      any production has to be held. (Left out with ``incompatible="reference"``, where actions can destroy stock.)
    - Each item alone: with more production it is never larger that lost sales and backlog are. Either the item is never
      made and all demand beyond the stock is lost, or its cheapest change-over is paid once (none where a machine
      starts with it) and the losses are at least those of all machines making it all the time, without storage limit.
    - Items together, weak duality: in the first s periods at least R = demand - stock - max_backlog - production units
      are lost, so for any prices 0 <= l <= lost-sales cost the cost is at least ``sum l R``, change-overs included.
      What remains separates into machines: at most ``max(0, s l P - entry, s l P of the item it starts with)`` can be
      earned by one, because every further item costs its own entry. Tried: several s, and for every item's worth of a
      full period the prices that make no item worth more.

    Args:
        instance: The problem.
        demand: int64[..., T, I].
        inventory: int64[..., I] and
        setup: int64[..., M], the starts.
        incompatible: As in :func:`orl.envs.lot_sizing.transition.decide`.

    Returns:
        float64[...].

    >>> from orl.envs.lot_sizing.library import load
    >>> scenario = load("ls-4x2-t20/scenario-0")
    >>> scenario.lower_bound() > 0
    True
    """
    demand, inventory, setup = (np.asarray(a, np.int64) for a in (demand, inventory, setup))
    total = np.cumsum(demand, axis=-2)  # [..., T, I]
    left = inventory[..., None, :] - total
    stays = np.maximum(left, 0).sum(-2) @ instance.holding_costs
    if incompatible == "reference":
        stays = np.zeros_like(stays)
    alone = np.minimum(
        _unmet(instance, left),
        _first_entry(instance, setup)
        + _unmet(instance, left + instance.production.sum(0) * np.arange(1, instance.horizon + 1)[:, None]),
    )
    bound: Floats = stays + np.maximum(alone.sum(-1), _together(instance, total, inventory, setup))
    return bound


def expected_bound(instance: LotSizingInstance) -> float:
    """A lower bound on the expected total cost of every policy, from a random and from the fixed start.

    The larger of two bounds:

    - Newsvendor: demand of a period is independent of the stock that it meets, so the expected holding, lost-sales and
      backlog cost of an item in a period is at least that of the best post-decision stock. It is at least 0 (owing
      before demand only adds cost) and at most ``max_inventory`` plus what all machines make in a period.
    - The items together, as in :func:`path_bound`, whose formula is linear in demand and first stock once the prices
      are fixed: expectations replace them, with the larger of the two starts and no cost of a first change-over.
    """
    newsvendor = sum(_newsvendor(instance, row).sum() for row in range(len(instance.demand.values)))
    newsvendor *= instance.horizon if instance.demand.stationary else 1
    mean = np.broadcast_to(instance.demand.mean, (instance.horizon, instance.n_items))
    start = np.maximum(instance.initial_inventory, np.maximum(instance.max_inventory - 1, 0) / 2)
    together = _together(instance, np.cumsum(mean, axis=0), start, None)
    return float(max(newsvendor, together))


def _unmet(instance: LotSizingInstance, level: Integers) -> Floats:
    """Lost-sales and backlog cost float64[..., I] where ``level`` [..., T, I] is stock if nothing were ever lost."""
    lost = np.maximum(np.maximum.accumulate(-level - instance.max_backlog, axis=-2), 0)
    cost: Floats = instance.lost_sales_costs * lost[..., -1, :]
    if instance.max_backlog.any():
        cost = cost + instance.backlog_costs * np.maximum(-(level + lost), 0).sum(-2)
    return cost


def _entry(instance: LotSizingInstance) -> tuple[Floats, Integers]:
    """Cheapest change-over and smallest loss, [M, I] each, into an item from anything else; loss at most production."""
    other = np.arange(instance.n_items + 1)[:, None] != np.arange(1, instance.n_items + 1)
    cost = np.where(other, instance.setup_costs, np.inf).min(1)
    loss = np.where(other, instance.setup_loss, np.iinfo(np.int64).max).min(1)
    return cost, np.minimum(loss, instance.production)


def _first_entry(instance: LotSizingInstance, setup: Integers) -> Floats:
    """Cost float64[..., I] of the first change-over to an item: 0 where a machine that can make it starts with it."""
    able = instance.production > 0
    cheapest = np.where(able, _entry(instance)[0], np.inf).min(0)
    ready = ((setup[..., None] == np.arange(1, instance.n_items + 1)) & able).any(-2)
    return np.where(ready, 0.0, cheapest)


def _together(
    instance: LotSizingInstance, total: npt.NDArray, inventory: npt.NDArray, setup: Integers | None
) -> Floats:
    """The duality bound of :func:`path_bound`, float64[...], from cumulated demand [..., T, I]; at least 0.

    Without a set-up every machine starts with the item that suits it best.
    """
    production, rate = instance.production, instance.production.max(0)
    worth = np.unique(instance.lost_sales_costs * rate)
    worth = worth[worth > 0]
    if not len(worth):
        return np.zeros(total.shape[:-2])
    with np.errstate(divide="ignore"):
        prices = np.minimum(instance.lost_sales_costs, np.where(rate > 0, worth[:, None] / rate, np.inf))  # [W, I]
    length = np.array([s for s in PREFIXES if s < instance.horizon] + [instance.horizon])
    gain = prices[:, None, :] * production  # [W, M, I], a full period
    if setup is None:
        machines = length[:, None] * gain.max(-1).sum(-1)  # [S, W]
    else:
        cost, loss = _entry(instance)
        entered = (length[:, None, None, None] * gain - (cost + prices[:, None, :] * loss)).max(-1)  # [S, W, M]
        kept = np.pad(gain, ((0, 0), (0, 0), (1, 0)))[:, np.arange(instance.n_machines), setup]  # [W, ..., M]
        kept = length[:, None, None] * np.moveaxis(kept, 0, -2)[..., None, :, :]  # [..., S, W, M]
        machines = np.maximum(np.maximum(entered, kept), 0.0).sum(-1)
    needed = total[..., length - 1, :] - inventory[..., None, :] - instance.max_backlog  # [..., S, I]
    bound: Floats = np.maximum((needed @ prices.T - machines).max((-1, -2)), 0.0)
    return bound


def _newsvendor(instance: LotSizingInstance, row: int) -> Floats:
    """Least expected cost float64[I] of a period, over the integer stocks that demand can meet."""
    best = np.empty(instance.n_items)
    for i in range(instance.n_items):
        values, probabilities = instance.demand.values[row, i], instance.demand.probabilities[row, i]
        backlog = instance.max_backlog[i]
        most = min(values.max(), instance.max_inventory[i] + instance.production[:, i].sum())
        left = np.arange(most + 1)[:, None] - values
        stock = np.clip(left, -backlog, instance.max_inventory[i])
        cost = (
            instance.lost_sales_costs[i] * np.maximum(-left - backlog, 0)
            + instance.holding_costs[i] * np.maximum(stock, 0)
            + instance.backlog_costs[i] * np.maximum(-stock, 0)
        )
        best[i] = (cost @ probabilities).min()
    return best
