"""A rule that values machines by prices: the sum of the items' own optimal values stands in for the value function.

The relaxation behind :func:`orl.solvers.lot_sizing.expected_bound.expected_cost_bound` gives every item a value of its
stock and of the machines that run it, future use of machines paid at the bound's prices. In each period the rule gives
the machines to the items so that set-up costs plus these values are least, with each machine for one item only: a
one-step look-ahead on the relaxed values (Hawkins 2003; Adelman and Mersereau 2008, section 5). Finding the best
assignment is a set partitioning problem over the machines, solved exactly by dynamic programming over sets of machines,
in which most items drop out at once because no machine is worth running for them now. Items that many machines can make
take at most two at a time.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numba
import numpy as np

from orl.common.errors import InputError
from orl.common.kernel_cache import drop_stale_kernels
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance
from orl.solvers.lot_sizing.expected_bound import expected_cost_bound
from orl.solvers.lot_sizing.item_programmes import ALL, ItemProgramme, item_programmes
from orl.solvers.lot_sizing.rules import Decide
from orl.solvers.lot_sizing.simulation import simulate
from orl.solvers.lot_sizing.tuning import FINALISTS, FIRST_ROUND, FIRST_SEED, SECOND_ROUND

drop_stale_kernels()

LARGEST_SHOP = 16  # machines
PRICES_SHARE, TUNING_SHARE = 0.4, 0.7  # shares of a time limit by whose end prices are found, and compared
SHARES = (1.0, 0.5, 0.0)
SCALES = (0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5)
"""Prices tried: scale * (share * prices by period + (1 - share) * their median over the periods)."""


def price_directed(
    instance: LotSizingInstance,
    *,
    prices: Floats | None = None,
    iterations: int = 40,
    tune: bool = True,
    time_limit_per_decision: float | None = None,
) -> Decide:
    """The rule for an instance.

    Prices that give the best bound are not quite those that give the best rule: a relaxed item may assume that the
    machine is there when it is wanted. So scaled and smoothed prices are compared in simulation, on seeds of their own
    (:data:`orl.solvers.lot_sizing.tuning.FIRST_SEED`) and always from the random start.

    Args:
        prices: float64[T, M], for instance of a bound found before. None: search for them, from the random start.
        iterations: Steps of that search.
        tune: Whether to compare; without it the prices are used as they are.
        time_limit_per_decision: Wall seconds times the horizon that prices and comparison may take together, None: no
            limit. With a limit the rule depends on the speed of the machine.

    Raises:
        InputError: More than 16 machines, bad prices, or a dynamic programme that is too large.

    >>> from orl.envs.lot_sizing.library import load
    >>> decide = price_directed(load("ls-2x1"))
    >>> decide(np.array([[0, 0]]), np.array([[1]]), np.array([0])).tolist()
    [[1]]
    """
    began = time.perf_counter()
    instance = replace(instance, demand_path=None)
    shape = (instance.horizon, instance.n_machines)
    limit = None if time_limit_per_decision is None else time_limit_per_decision * shape[0]
    if instance.n_machines > LARGEST_SHOP:
        raise InputError("too many machines", field="n_machines", value=shape[1], expected=f"at most {LARGEST_SHOP}")
    if prices is None:
        part = None if limit is None else PRICES_SHARE * limit
        prices = expected_cost_bound(instance, "random", iterations=iterations, time_limit=part).prices
    prices = np.asarray(prices, np.float64)
    if prices.shape != shape or not np.isfinite(prices).all() or (prices < 0).any():
        raise InputError("bad prices", field="prices", value=prices.shape, expected=f"float64 {shape}, >= 0")
    items = item_programmes(instance)
    if not tune or not prices.any():
        return _rule(instance, items, prices)
    median = np.median(prices, axis=0)  # what a period is worth far from the start and the end
    tried = [scale * (share * prices + (1 - share) * median) for share in SHARES for scale in SCALES]
    tried.sort(key=lambda p: float(np.abs(p - prices).sum()))  # the prices themselves first
    best = prices
    for n_episodes, n_left in ((FIRST_ROUND, FINALISTS), (SECOND_ROUND, 1)):
        seeds = range(FIRST_SEED, FIRST_SEED + n_episodes)
        costs: list[float] = []
        for candidate in tried:
            if limit is not None and time.perf_counter() - began > TUNING_SHARE * limit:
                break
            costs.append(float(simulate(instance, _rule(instance, items, candidate), seeds).mean()))
        if costs:
            best = tried[int(np.argmin(costs))]
        if len(costs) < len(tried):
            break
        tried = [tried[k] for k in np.argsort(costs, kind="stable")[:n_left]]
    return _rule(instance, items, best)


def _rule(instance: LotSizingInstance, items: list[ItemProgramme], prices: Floats) -> Decide:
    """The rule for given prices."""
    tables = [item.values(prices)[1] for item in items]  # [T, S, levels]
    values = np.concatenate([table.ravel() for table in tables])
    offset = np.cumsum([0, *(table.size for table in tables)])
    width = np.array([item.levels for item in items])
    low = np.array([item.low for item in items])
    n_sets = np.array([sum(mask != ALL for mask in item.sets.sets) for item in items])
    n_states = np.array([len(item.sets.sets) for item in items])
    sets = np.zeros((len(items), n_sets.max()), np.int64)  # as bit masks over all machines
    for item, row in zip(items, sets, strict=True):
        for s, mask in enumerate(item.sets.sets):
            if mask != ALL:
                row[s] = sum(1 << int(m) for place, m in enumerate(item.machines) if mask >> place & 1)
    made = np.maximum(instance.production[:, None, :] - instance.setup_loss, 0)
    last = instance.horizon - 1

    def decide(inventory: Integers, setup: Integers, period: Integers) -> Integers:
        inventory, setup, period = (np.array(a, np.int64) for a in (inventory, setup, period))
        actions = np.empty(setup.shape, np.int64)
        _assign(
            inventory, setup, np.minimum(period, last), values, offset, width, low, n_states, n_sets, sets,
            made, instance.setup_costs, actions,
        )  # fmt: skip
        return actions

    return decide


@numba.njit(cache=True, nogil=True)
def _assign(  # type: ignore[no-untyped-def]
    inventory, setup, period, values, offset, width, low, n_states, n_sets, sets, made, cost, actions
):
    """Best assignments int64[B, M]: ``gain`` of an item's sets of machines over leaving it alone, then the best
    disjoint sets: ``best[u]`` is the least sum over the items so far that use only machines of u."""
    n_copies, n_machines = setup.shape
    n_items, n_subsets = len(width), 1 << n_machines
    best, better = np.zeros(n_subsets), np.zeros(n_subsets)
    chosen = np.zeros((n_items, n_subsets), np.int32)
    useful, gain = np.zeros((n_items, sets.shape[1]), np.int64), np.zeros((n_items, sets.shape[1]))
    n_useful = np.zeros(n_items, np.int64)
    for b in range(n_copies):
        wanted = 0
        for i in range(n_items):
            n_useful[i] = 0
            base = offset[i] + period[b] * n_states[i] * width[i]
            stock = min(max(inventory[b, i] - low[i], 0), width[i] - 1)
            alone = values[base + stock]
            for s in range(1, n_sets[i]):
                mask, after, total = sets[i, s], stock, 0.0
                for m in range(n_machines):
                    if mask >> m & 1:
                        after += made[m, setup[b, m], i]
                        total += cost[m, setup[b, m], i]
                total += values[base + s * width[i] + min(after, width[i] - 1)] - alone
                if total >= -1e-9:
                    continue
                dominated = False
                for n in range(n_useful[i]):
                    if useful[i, n] & mask == useful[i, n] and gain[i, n] <= total:
                        dominated = True
                if not dominated:
                    useful[i, n_useful[i]], gain[i, n_useful[i]] = mask, total
                    n_useful[i] += 1
                    wanted |= mask
        best[:] = 0.0
        for i in range(n_items):
            if n_useful[i] == 0:
                continue
            better[:] = best
            chosen[i] = 0
            for n in range(n_useful[i]):
                mask, amount = useful[i, n], gain[i, n]
                free = wanted & ~mask
                rest = free  # all sets of the other machines that anybody wants
                while True:
                    total = best[rest] + amount
                    if total < better[rest | mask]:
                        better[rest | mask] = total
                        chosen[i, rest | mask] = mask
                    if rest == 0:
                        break
                    rest = (rest - 1) & free
            best, better = better, best
        actions[b] = 0
        left = wanted
        for i in range(n_items - 1, -1, -1):
            if n_useful[i]:
                mask = chosen[i, left]
                for m in range(n_machines):
                    if mask >> m & 1:
                        actions[b, m] = i + 1
                left &= ~mask
