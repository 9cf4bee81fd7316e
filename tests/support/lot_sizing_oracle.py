"""Tiny lot-sizing problems of every kind, and their dynamic program written out state by state."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np

from orl.envs.lot_sizing import distributions, transition
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.demand import Demand
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.solvers.lot_sizing.demand_expectation import joint_demand

KINDS = ("plain", "two-machines", "sequence-dependent", "backlog", "non-stationary", "correlated", "no-setup-cost")


def tiny(kind: str, seed: int, horizon: int = 3) -> LotSizingInstance:
    """A random problem with 2 items, small enough for ``tree_values``."""
    rng = np.random.default_rng(seed)
    machines = 2 if kind == "two-machines" else 1
    production = rng.integers(1, 4, (machines, 2))
    if machines == 2:
        production[0, 1] = 0
    shape = (machines, 3, 2) if kind == "sequence-dependent" else (machines, 2)
    costs = rng.integers(0, 5, shape) / 2.0 * (kind != "no-setup-cost")
    loss = rng.integers(0, 3, shape)
    if kind == "sequence-dependent":
        for j in (1, 2):
            costs[:, j, j - 1] = loss[:, j, j - 1] = 0
    return lot_sizing(
        name=f"{kind}-{seed}",
        horizon=horizon,
        production=production,
        setup_costs=costs,
        setup_loss=loss,
        holding_costs=rng.integers(0, 4, 2) / 10.0,
        lost_sales_costs=rng.integers(1, 4, 2).astype(float),
        max_inventory=rng.integers(1, 4, 2),
        demand=_demand(kind, rng, horizon),
        backlog_costs=rng.integers(1, 3, 2).astype(float) if kind == "backlog" else 0,
        max_backlog=rng.integers(0, 3, 2) if kind == "backlog" else 0,
    )


def _demand(kind: str, rng: np.random.Generator, horizon: int) -> Demand:
    one = [distributions.pmf(2, [0, 1, 3], rng.dirichlet(np.ones(3))) for _ in range(horizon)]
    if kind == "non-stationary":
        return distributions.periods(one)
    return distributions.correlated(one[0], 0.6) if kind == "correlated" else one[0]


def deterministic(seed: int, horizon: int = 4) -> LotSizingInstance:
    """2 items, 1 machine, demand that is known in advance and changes from period to period."""
    rng = np.random.default_rng(seed)
    return lot_sizing(
        horizon=horizon,
        production=rng.integers(2, 5, (1, 2)),
        setup_costs=rng.integers(0, 4, (1, 2)).astype(float),
        setup_loss=rng.integers(0, 3, (1, 2)),
        holding_costs=rng.integers(1, 5, 2) / 10.0,
        lost_sales_costs=rng.integers(1, 4, 2).astype(float),
        max_inventory=rng.integers(2, 6, 2),
        demand=distributions.deterministic(rng.integers(0, 4, (horizon, 2))),
    )


def tree_values(
    instance: LotSizingInstance, discount: float = 1.0, incompatible: str = "mask"
) -> Callable[[int, tuple[int, ...], tuple[int, ...]], float]:
    """Optimal value of (period, inventory, set-up) by recursion over all actions and all joint demands."""
    actions = [np.array(a) for a in product(range(instance.n_items + 1), repeat=instance.n_machines)]
    laws = [joint_demand(instance.demand, t) for t in range(instance.horizon)]

    @cache
    def value(t: int, inventory: tuple[int, ...], setup: tuple[int, ...]) -> float:
        if t == instance.horizon:
            return 0.0
        best = -np.inf
        for action in actions:
            post, new_setup, cost = transition.decide(instance, inventory, setup, action, incompatible)
            total = -float(cost)
            for demand, probability in zip(*laws[t], strict=True):
                after, _, lost, holding = transition.realise(instance, post, demand)
                following = value(t + 1, tuple(after.tolist()), tuple(new_setup.tolist()))
                total += probability * (discount * following - float(lost) - float(holding))
            best = max(best, total)
        return best

    return value
