"""Many episodes of a rule at once, in numpy: the same scenarios that the environment's ``reset(seed)`` meets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from gymnasium.utils.seeding import np_random

from orl.common import counter_noise
from orl.envs.lot_sizing import scenario, transition
from orl.envs.lot_sizing.instance import Floats, Incompatible, Init, LotSizingInstance
from orl.solvers.lot_sizing.rules import Decide


def simulate(
    instance: LotSizingInstance,
    decide: Decide,
    seeds: Iterable[int],
    init: Init = "random",
    incompatible: Incompatible = "mask",
) -> Floats:
    """Undiscounted cost float64[n] of one episode for each seed.

    Args:
        decide: A rule made for the instance; it is called once a period with all episodes.
        seeds: As given to ``LotSizingEnv(instance, init=init).reset(seed=...)``: equal seeds meet equal demand.

    >>> from orl.envs.lot_sizing.library import load
    >>> from orl.solvers.lot_sizing.rules import make_rule
    >>> instance = load("ls-2x1-t100")
    >>> costs = simulate(instance, make_rule("greedy", instance), range(50))
    >>> costs.shape, bool(60 < costs.mean() < 110)
    ((50,), True)
    """
    keys = np.array([counter_noise.draw_key(np_random(seed)[0]) for seed in seeds], np.uint64)
    inventory, setup = scenario.initial_state(instance, keys, init)
    demand = scenario.demand_path(instance, keys)
    total = np.zeros(len(keys))
    for t in range(instance.horizon):
        actions = decide(inventory, setup, np.full(len(keys), t))
        post, setup, setup_cost = transition.decide(instance, inventory, setup, actions, incompatible)
        inventory, _, lost_cost, holding_cost = transition.realise(instance, post, demand[:, t])
        total += setup_cost + lost_cost + holding_cost
    return total
