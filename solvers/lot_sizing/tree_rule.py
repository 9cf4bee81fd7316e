"""A rule that optimises over a tree of demand from the present state and takes the first decision of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance
from orl.solvers.lot_sizing.heuristics import greedy
from orl.solvers.lot_sizing.milp import DemandTree, build
from orl.solvers.lot_sizing.network import build_tree_network
from orl.solvers.lot_sizing.perfect_information import PerfectInformation
from orl.solvers.lot_sizing.programme_search import search_with_highs
from orl.solvers.lot_sizing.rules import Decide

SAMPLES = 0x5C3A7E
"""First entropy word of every sampling seed: keys of rules have nothing to do with those of episodes."""


def tree_rule(
    instance: LotSizingInstance,
    tree_at: Callable[[int], DemandTree],
    *,
    time_limit_per_decision: float | None = 2.0,
    gap: float = 0.0,
    exact: bool = True,
    seed: int = 0,
) -> Decide:
    """A rule from what it expects of demand in every period.

    A path of whole units is planned by :class:`orl.solvers.lot_sizing.perfect_information.PerfectInformation`, any
    other tree by HiGHS on flows (:func:`orl.solvers.lot_sizing.network.build_tree_network`), on the compact programme
    where these are too many. HiGHS starts from what the greedy rule would do all over the tree, and that decision
    stands if time ends before HiGHS has any answer. Copies in equal states share one solve.

    Args:
        instance: The problem.
        tree_at: Tree of demand from a period on.
        time_limit_per_decision: Wall seconds, None: none (optimal over the tree).
        gap: Stop HiGHS when the decision is proved to be within this fraction of the least cost over the tree.
        exact: Model the discard above the storage limit exactly.
        seed: Seed of HiGHS.
    """
    if time_limit_per_decision is not None and not time_limit_per_decision >= 0:
        expected = "seconds >= 0 or None"
        value = time_limit_per_decision
        raise InputError("bad time limit", field="time_limit_per_decision", value=value, expected=expected)
    if not gap >= 0:
        raise InputError("bad gap", field="gap", value=gap, expected=">= 0")
    start_rule = greedy(instance)
    trees: dict[int, DemandTree] = {}

    def decide_one(inventory: Integers, setup: Integers, period: int) -> Integers:
        tree = trees[period]
        if exact and _is_known_path(tree):
            window = replace(
                instance,
                horizon=len(tree.parent) - 1,
                initial_inventory=inventory,
                initial_setup=setup,
                demand_path=tree.demand[1:].astype(np.int64),
            )
            plan = PerfectInformation().solve(window, time_limit=time_limit_per_decision, seed=seed).solution
            first: Integers = plan.actions[0]
            return first
        start = actions_on_tree(instance, tree, start_rule, inventory, setup, period)
        programme = build_tree_network(instance, tree, inventory, setup) if exact else None
        if programme is None:
            programme = build(instance, tree, inventory, setup, exact=exact)
        found = search_with_highs(
            programme, time_limit=time_limit_per_decision, seed=seed, start=start, relative_gap=gap
        )
        return start[0] if found.values is None else programme.actions(found.values)[0]

    def decide(inventory: Integers, setup: Integers, period: Integers) -> Integers:
        actions = np.zeros_like(setup)
        known: dict[bytes, Integers] = {}
        for b in range(len(setup)):
            now = int(np.clip(period[b], 0, instance.horizon - 1))
            if now not in trees:
                trees[now] = tree_at(now)
            state = np.concatenate([inventory[b], setup[b], [now]]).tobytes()
            if state not in known:
                known[state] = decide_one(inventory[b], setup[b], now)
            actions[b] = known[state]
        return actions

    return decide


def _is_known_path(tree: DemandTree) -> bool:
    return bool(
        (tree.parent == np.arange(-1, len(tree.parent) - 1)).all() and (tree.demand == tree.demand.round()).all()
    )


def actions_on_tree(
    instance: LotSizingInstance, tree: DemandTree, rule: Decide, inventory: Integers, setup: Integers, period: int
) -> Integers:
    """What a rule does at every decision of a tree: int64[K, M]. Fractions of units are rounded for the rule."""
    machine = np.arange(instance.n_machines)
    decisions = tree.decisions
    position = {int(node): k for k, node in enumerate(decisions)}
    actions = np.zeros((len(decisions), instance.n_machines), np.int64)
    stock: Floats = np.zeros((len(tree.parent), instance.n_items))
    state = np.zeros((len(tree.parent), instance.n_machines), np.int64)
    when = np.full(len(tree.parent), period)
    post = np.zeros_like(stock)
    for node in range(len(tree.parent)):
        if node == 0:
            stock[0], state[0] = inventory, setup
        else:
            parent = tree.parent[node]
            left = post[parent] - tree.demand[node]
            stock[node] = np.clip(left, -instance.max_backlog, instance.max_inventory)
            state[node], when[node] = actions[position[int(parent)]], when[parent] + 1
        if node not in position:
            continue
        whole = np.round(stock[node]).astype(np.int64)
        action = rule(whole[None], state[node][None], when[node][None])[0]
        item = np.maximum(action - 1, 0)
        made = np.maximum(instance.production[machine, item] - instance.setup_loss[machine, state[node], item], 0)
        post[node] = stock[node]
        np.add.at(post[node], item, np.where(action > 0, made, 0))
        actions[position[node]] = action
    return actions


def sampling_key(seed: int, period: int) -> np.uint64:
    """The noise key of what a rule samples in a period; never the key of an episode (they come from env seeds)."""
    return np.uint64(np.random.SeedSequence([SAMPLES, seed % 2**32, period]).generate_state(1, np.uint64)[0])
