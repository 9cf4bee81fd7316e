"""The batched transition for numba, in place: decisions, demand, costs and observations of many copies in one call.

The same numbers, bit for bit, as :mod:`orl.envs.lot_sizing.transition`, :mod:`orl.envs.lot_sizing.scenario` and
:meth:`orl.envs.lot_sizing.demand.Demand.draw`, which are written for reading. Three kinds of tuples of arrays go
through the functions (:mod:`orl.envs.lot_sizing.bank` makes the first):

``bank``
    What the instances are, one row an instance; ``MADE``, ``CHANGE_COST``, ... are the places in the tuple.
``copies``
    ``(inventory int64[N, I], setup int64[N, M], period int64[N], row int64[N], keys uint64[N])``: the states of N
    copies, or their post-decision states; ``row`` is the instance of a copy.
``view``
    ``(kind, with_time, reward_scale)``: what observations and rewards look like.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from orl.common import counter_noise
from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()

from orl.common.counter_noise_numba import integers, normal_quantile  # noqa: E402  (compiled kernels come after)

_block = njit(cache=True, inline="always")(counter_noise.philox_block)
_LOW = np.uint64(0xFFFFFFFF)
_U11, _U32, _ZERO = np.uint64(11), np.uint64(32), np.uint64(0)
_TWO_TO_MINUS_53 = counter_noise.TWO_TO_MINUS_53

MADE, CHANGE_COST, LEGAL, LIMITS, MONEY, UNIT, SIZES, VALUES, THRESHOLDS, GUIDE, FACTOR = range(11)
"""Places in ``bank``: see :class:`orl.envs.lot_sizing.bank.Bank`."""

FLAT, RAW, INVENTORY, SCALED = range(4)
"""Kinds of observation rows: scaled stock and one-hot set-ups; stock and set-ups; stock; scaled stock."""


# ---- one period of one copy ------------------------------------------------------------------------------------------
# These functions are pasted into their callers, and take arrays with the index of a copy instead of views of one: the
# making of views costs several times what they compute.
@njit(cache=True, inline="always")
def _is_legal(legal, r, actions, b, m, exclusive):
    a = actions[b, m]
    allowed = 0 <= a < legal.shape[2] and legal[r, m, a]
    if exclusive and a > 0:
        for other in range(m):
            if actions[b, other] == a and legal[r, other, a]:
                allowed = False
    return allowed


@njit(cache=True, inline="always")
def _decide(made, change_cost, legal, r, inventory, setup, b, actions, k, exclusive, post_inventory, post_setup, c):
    """Row k of ``actions`` in state b: write post-decision state c; returns set-up cost and whether a part was illegal.

    Illegal parts are replaced by idling.
    """
    for i in range(inventory.shape[1]):
        post_inventory[c, i] = inventory[b, i]
    cost, replaced = 0.0, False
    for m in range(setup.shape[1]):
        a = actions[k, m]
        if not _is_legal(legal, r, actions, k, m, exclusive):
            a, replaced = 0, True
        if a > 0:
            j = setup[b, m]
            post_inventory[c, a - 1] += made[r, m, j, a - 1]
            cost += change_cost[r, m, j, a - 1]
        post_setup[c, m] = a
    return cost, replaced


@njit(cache=True, inline="always")
def _draw_demand(values, thresholds, guide, factor, n_periods, correlated, r, key, period, draw, noise, demand):
    """Demand of a period into ``demand``; ``noise`` is scratch space float64[I]."""
    t, k = np.uint64(period + 1) & _LOW, np.uint64(draw) & _LOW
    for i in range(len(noise)):  # the loop that the compiler turns into vector instructions
        word_0, word_1, _, _ = _block(key, t, np.uint64(i), k, _ZERO)
        noise[i] = np.float64(((word_1 << _U32) | word_0) >> _U11) * _TWO_TO_MINUS_53
    p = min(period, n_periods - 1)
    if correlated:
        for i in range(len(noise)):
            noise[i] = normal_quantile(noise[i] + 0.5 * _TWO_TO_MINUS_53)
        for i in range(len(noise) - 1, -1, -1):
            total = 0.0
            for j in range(i + 1):
                total += factor[r, i, j] * noise[j]
            noise[i] = total
    cells = guide.shape[3]
    for i in range(len(noise)):
        index = 0 if correlated else guide[r, p, i, np.int64(noise[i] * cells)]
        while noise[i] >= thresholds[r, p, i, index]:
            index += 1
        demand[i] = values[r, p, i, index]


@njit(cache=True, inline="always")
def _realise(limits, money, r, post_inventory, c, demand, inventory, b):
    """Write stock b at the end of the period; returns lost-sales cost and holding (and backlog) cost."""
    lost_cost, holding_cost = 0.0, 0.0
    for i in range(len(demand)):
        left = post_inventory[c, i] - demand[i]
        lost = max(-left - limits[r, 1, i], 0)
        stock = min(max(left, -limits[r, 1, i]), limits[r, 0, i])
        inventory[b, i] = stock
        lost_cost += money[r, 1, i] * lost
        holding_cost += money[r, 0, i] * max(stock, 0) + money[r, 2, i] * max(-stock, 0)
    return lost_cost, holding_cost


@njit(cache=True, inline="always")
def _observe(unit, r, inventory, b, setup, c, time, view, rows, k):
    """Write observation row k of stock b, set-ups c and ``time``, the share of the horizon that has passed."""
    kind, with_time, _ = view
    n_items, n_machines = inventory.shape[1], setup.shape[1]
    if kind in (FLAT, SCALED):
        for i in range(n_items):
            rows[k, i] = inventory[b, i] / unit[r, i]
    else:
        for i in range(n_items):
            rows[k, i] = inventory[b, i]
    end = n_items
    if kind == FLAT:
        end = n_items + n_machines * (n_items + 1)
        for place in range(n_items, end):
            rows[k, place] = 0.0
        for m in range(n_machines):
            rows[k, n_items + m * (n_items + 1) + setup[c, m]] = 1.0
    elif kind == RAW:
        end = n_items + n_machines
        for m in range(n_machines):
            rows[k, n_items + m] = setup[c, m]
    if with_time:
        rows[k, end] = time


# ---- batches ---------------------------------------------------------------------------------------------------------
@njit(cache=True)
def first_illegal(bank, row, actions, active, exclusive):
    """The first active copy with an illegal action in ``actions`` int64[N, M], or -1."""
    legal = bank[LEGAL]
    for b in range(len(row)):
        if active[b]:
            for m in range(actions.shape[1]):
                if not _is_legal(legal, row[b], actions, b, m, exclusive):
                    return b
    return -1


@njit(cache=True)
def reset_batch(bank, start, copies, which, init_fixed, first, totals, illegal, over, view, rows):
    """Put the marked copies, whose rows and keys are set, at the start of their episodes.

    ``first`` (inventory int64[N, I], setup int64[N, M]) keeps these starts; sums and counts become 0.
    """
    own_inventory, own_setup, able, starts_fixed = start
    inventory, setup, period, row, keys = copies
    n_items = inventory.shape[1]
    for b in range(len(row)):
        if not which[b]:
            continue
        r, key = row[b], keys[b]
        period[b], illegal[b], over[b] = 0, 0, False
        totals[b, :] = 0.0
        if init_fixed or starts_fixed[r]:
            inventory[b, :] = own_inventory[r]
            setup[b, :] = own_setup[r]
        else:
            for i in range(n_items):
                inventory[b, i] = integers(max(bank[LIMITS][r, 0, i], 1), key, 0, i, 0)
            for m in range(setup.shape[1]):
                count = able[r, m, 0]
                setup[b, m] = able[r, m, 1 + integers(count, key, 0, n_items + m, 0)] if count > 0 else 0
        first[0][b, :] = inventory[b]
        first[1][b, :] = setup[b]
        _observe(bank[UNIT], r, inventory, b, setup, b, 0.0, view, rows, b)


@njit(cache=True)
def observe_batch(bank, copies, which, view, rows):
    """Write the observations of the marked copies."""
    inventory, setup, period, row, _ = copies
    for b in range(len(row)):
        if which[b]:
            time = period[b] / bank[SIZES][row[b], 0]
            _observe(bank[UNIT], row[b], inventory, b, setup, b, time, view, rows, b)


@njit(cache=True)
def step_batch(
    bank, copies, post, actions, active, exclusive, strict, view, history, totals, illegal, seen, rewards, over
):
    """Step the active copies: states, post-decision states, histories, sums and observations; 0 reward for others.

    Returns -1; or, with ``strict``, the first active copy whose action is illegal, and nothing has been done then.

    ``history`` is ``(demand int32[N, T, I], actions int32[N, T, M], scripted bool[N])``: what happened in the episode;
    the demand of scripted copies stands there beforehand. ``totals`` float64[N, 3] (set-up, lost sales, holding) and
    ``illegal`` int64[N] are summed up. ``seen`` is the pair of observation rows after the step and between decision and
    demand, ``rewards`` float64[3, N]: whole, deterministic, stochastic.
    """
    if strict:
        refused = first_illegal(bank, copies[3], actions, active, exclusive)
        if refused >= 0:
            return refused
    made, change_cost, legal, limits, money, unit, sizes, values, thresholds, guide, factor = bank
    inventory, setup, period, row, keys = copies
    post_inventory, post_setup, post_period, post_row, post_keys = post
    demand_of, action_of, scripted = history
    after, between = seen
    scale = view[2]
    noise, demand = np.empty(inventory.shape[1]), np.empty(inventory.shape[1], np.int64)
    for b in range(len(row)):
        if not active[b]:
            rewards[0, b], rewards[1, b], rewards[2, b] = 0.0, 0.0, 0.0
            continue
        r, t = row[b], period[b]
        horizon = sizes[r, 0]
        post_period[b], post_row[b], post_keys[b] = t, r, keys[b]
        setup_cost, replaced = _decide(
            made, change_cost, legal, r, inventory, setup, b, actions, b, exclusive, post_inventory, post_setup, b
        )
        illegal[b] += replaced
        for m in range(setup.shape[1]):
            setup[b, m] = post_setup[b, m]
            action_of[b, t, m] = post_setup[b, m]
        _observe(unit, r, post_inventory, b, post_setup, b, t / horizon, view, between, b)
        if scripted[b]:
            for i in range(len(demand)):
                demand[i] = demand_of[b, t, i]
        else:
            _draw_demand(values, thresholds, guide, factor, sizes[r, 1], sizes[r, 2], r, keys[b], t, 0, noise, demand)
            for i in range(len(demand)):
                demand_of[b, t, i] = demand[i]
        lost_cost, holding_cost = _realise(limits, money, r, post_inventory, b, demand, inventory, b)
        totals[b, 0] += setup_cost
        totals[b, 1] += lost_cost
        totals[b, 2] += holding_cost
        rewards[1, b] = 0.0 - scale * setup_cost
        rewards[2, b] = 0.0 - scale * (lost_cost + holding_cost)
        rewards[0, b] = rewards[1, b] + rewards[2, b]
        t += 1
        period[b], over[b] = t, t >= horizon
        _observe(unit, r, inventory, b, setup, b, t / horizon, view, after, b)
    return -1


@njit(cache=True)
def decide_batch(bank, copies, post, actions, n_candidates, exclusive, view, rows, rewards):
    """Candidates ``actions`` [N * A, M], the A of a copy together: their post-decision states, rows and rewards."""
    inventory, setup, period, row, keys = copies
    post_inventory, post_setup, post_period, post_row, post_keys = post
    for c in range(len(actions)):
        b = c // n_candidates
        r = row[b]
        post_period[c], post_row[c], post_keys[c] = period[b], r, keys[b]
        cost, _ = _decide(
            bank[MADE], bank[CHANGE_COST], bank[LEGAL], r,
            inventory, setup, b, actions, c, exclusive, post_inventory, post_setup, c,
        )  # fmt: skip
        rewards[c] = 0.0 - view[2] * cost
        _observe(bank[UNIT], r, post_inventory, c, post_setup, c, period[b] / bank[SIZES][r, 0], view, rows, c)


@njit(cache=True)
def sample_batch(bank, post, n_candidates, view, rows, rewards, last):
    """Draws 1..n of demand after post-decision states [N * A], the A of a copy meeting the same demand.

    Writes observation rows [N * A * n, D], stochastic rewards [N * A, n] and whether the episode ends [N * A, n].
    """
    _, _, _, limits, money, unit, sizes, values, thresholds, guide, factor = bank
    post_inventory, post_setup, post_period, post_row, post_keys = post
    n_samples, n_items = rewards.shape[1], post_inventory.shape[1]
    noise, demand, stock = np.empty(n_items), np.empty(n_items, np.int64), np.empty((1, n_items), np.int64)
    for first in range(0, len(post_row), n_candidates):
        r, t = post_row[first], post_period[first]
        time = (t + 1) / sizes[r, 0]
        for k in range(n_samples):
            _draw_demand(
                values, thresholds, guide, factor, sizes[r, 1], sizes[r, 2],
                r, post_keys[first], t, k + 1, noise, demand,
            )  # fmt: skip
            for c in range(first, first + n_candidates):
                lost_cost, holding_cost = _realise(limits, money, r, post_inventory, c, demand, stock, 0)
                rewards[c, k] = 0.0 - view[2] * (lost_cost + holding_cost)
                last[c, k] = t + 1 >= sizes[r, 0]
                _observe(unit, r, stock, 0, post_setup, c, time, view, rows, c * n_samples + k)


# ---- the bound of a path ---------------------------------------------------------------------------------------------
@njit(cache=True)
def bound_batch(bank, tables, row, which, demand_of, first_inventory, first_setup, destroys, out):
    """Lower bounds on the cost of the demand paths of copies ``which`` int64[C] into ``out`` float64[C].

    The bound of :func:`orl.envs.lot_sizing.bounds.path_bound`, which tells why it holds, in loops. ``destroys``:
    actions can destroy stock (``incompatible="reference"``).
    """
    limits, money, sizes = bank[LIMITS], bank[MONEY], bank[SIZES]
    production, entry_cost, lengths, prices, worth, earned = tables
    n_items, n_machines, n_lengths = first_inventory.shape[1], first_setup.shape[1], lengths.shape[1]
    needed = np.empty((n_lengths, n_items))
    for c in range(len(which)):
        b = which[c]
        r = row[b]
        held, alone = 0.0, 0.0
        for i in range(n_items):
            entry, most, backlog = np.inf, 0, limits[r, 1, i]
            for m in range(n_machines):
                most += production[r, m, i]
                if production[r, m, i] > 0:
                    entry = 0.0 if first_setup[b, m] == i + 1 else min(entry, entry_cost[r, m, i])
            # Stock if the item were never made, and if every machine made it in every period.
            never, always, stays, amount, s = first_inventory[b, i], first_inventory[b, i], 0, 0, 0
            lost_never, lost_always, owed_never, owed_always = 0, 0, 0, 0
            for t in range(sizes[r, 0]):
                demand = demand_of[b, t, i]
                amount += demand
                never -= demand
                always += most - demand
                stays += max(never, 0)
                lost_never, lost_always = max(lost_never, -never - backlog), max(lost_always, -always - backlog)
                owed_never += max(-(never + lost_never), 0)
                owed_always += max(-(always + lost_always), 0)
                while s < n_lengths and lengths[r, s] == t + 1:
                    needed[s, i] = amount - first_inventory[b, i] - backlog
                    s += 1
            alone += min(
                money[r, 1, i] * lost_never + money[r, 2, i] * owed_never,
                entry + money[r, 1, i] * lost_always + money[r, 2, i] * owed_always,
            )
            if not destroys:
                held += money[r, 0, i] * stays
        together = 0.0
        for s in range(n_lengths):
            for w in range(prices.shape[1]):
                value = 0.0
                for i in range(n_items):
                    value += prices[r, w, i] * needed[s, i]
                for m in range(n_machines):
                    best, own = earned[r, s, w, m], first_setup[b, m] - 1
                    if own >= 0:
                        best = max(best, lengths[r, s] * worth[r, w, m, own])
                    value -= best
                together = max(together, value)
        out[c] = held + max(alone, together)
