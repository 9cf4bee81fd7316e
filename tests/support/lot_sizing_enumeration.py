"""Every plan and every policy of tiny lot-sizing instances, by brute force in numpy."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

from orl.envs.lot_sizing.instance import LotSizingPlan
from orl.envs.lot_sizing.transition import decide, realise


def all_plans(instance):
    """Actions int64[B, T, M] of every plan in which machines run only what they can make."""
    machines = [[0, *(np.flatnonzero(row) + 1).tolist()] for row in instance.production]
    decisions = list(itertools.product(*machines))
    return np.array(list(itertools.product(decisions, repeat=instance.horizon)))


def plan_costs(instance, demand, inventory, setup, actions):
    """Total cost float64[B] of plans int64[B, T, M] for one path [T, I] and one start."""
    level = np.repeat(inventory[None], len(actions), axis=0)
    state = np.repeat(setup[None], len(actions), axis=0)
    total = np.zeros(len(actions))
    for t in range(instance.horizon):
        post, state, cost = decide(instance, level, state, actions[:, t])
        level, _, lost, holding = realise(instance, post, demand[t])
        total += cost + lost + holding
    return total


def cheapest_plan(scenario):
    """Optimal plan of a scenario and its cost."""
    actions = all_plans(scenario)
    costs = plan_costs(scenario, scenario.demand_path, scenario.initial_inventory, scenario.initial_setup, actions)
    best = int(costs.argmin())
    start = (scenario.initial_inventory, scenario.initial_setup)
    return LotSizingPlan(actions[best], scenario.demand_path, *start), float(costs[best])


def optimal_expected_cost(instance, inventory, setup):
    """Expected cost of the best policy from a start, by recursion; independent demand only."""
    machines = [[0, *(np.flatnonzero(row) + 1).tolist()] for row in instance.production]
    decisions = np.array(list(itertools.product(*machines)))

    @cache
    def value(t, inventory, setup):
        if t == instance.horizon:
            return 0.0
        values, probabilities = instance.demand.table(t)
        outcomes = np.array(list(itertools.product(*values)))
        weights = np.array([np.prod(row) for row in itertools.product(*probabilities)])
        outcomes, weights = outcomes[weights > 0], weights[weights > 0]
        levels, states = np.array([inventory] * len(decisions)), np.array([setup] * len(decisions))
        posts, states, costs = decide(instance, levels, states, decisions)
        best = np.inf
        for post, state, cost in zip(posts, states, costs, strict=True):
            level, _, lost, holding = realise(instance, np.repeat(post[None], len(outcomes), 0), outcomes)
            ahead = np.array([value(t + 1, tuple(row), tuple(state.tolist())) for row in level.tolist()])
            best = min(best, cost + weights @ (lost + holding + ahead))
        return best

    return value(0, tuple(inventory.tolist()), tuple(setup.tolist()))
