"""Random lot-sizing instances of every kind that the kernel knows, for tests that need no particular numbers."""

from __future__ import annotations

import numpy as np

from orl.envs.lot_sizing import distributions
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.demand import Demand
from orl.envs.lot_sizing.instance import LotSizingInstance

DEMANDS = ("binomial", "deterministic", "item-specific", "seasonal", "correlated", "correlated-seasonal")


def demand_of(kind: str, n_items: int, horizon: int) -> Demand:
    seasonal = distributions.seasonal(n_items, horizon, mean=3.0, amplitude=0.7, cycle=5, trials=9)
    if kind == "deterministic":
        return distributions.deterministic(np.arange(n_items * horizon).reshape(horizon, n_items) % 5)
    if kind == "item-specific":
        wide = distributions.discrete_uniform(n_items - 1, 2, 150)
        return distributions.item_specific([wide, distributions.pmf(1, [7, 0, 7], [0.25, 0.5, 0.25])])
    if kind == "seasonal":
        return seasonal
    if kind == "correlated":
        return distributions.correlated(distributions.binomial(n_items, 9, 0.4), 0.6)
    if kind == "correlated-seasonal":
        return distributions.correlated(seasonal, -0.3 / n_items)
    return distributions.binomial(n_items, 9, 0.4)


def instance_of(
    demand: str = "binomial",
    *,
    n_items: int = 4,
    n_machines: int = 3,
    horizon: int = 9,
    backlog: bool = False,
    sequence_dependent: bool = False,
    seed: int = 0,
) -> LotSizingInstance:
    """A random instance; some production is smaller than the loss of a change-over, some is zero."""
    rng = np.random.default_rng(seed)
    production = rng.integers(1, 9, (n_machines, n_items)) * (rng.random((n_machines, n_items)) < 0.7)
    production[0, 0] = 5
    shape = (n_machines, n_items + 1, n_items) if sequence_dependent else (n_machines, n_items)
    costs, loss = rng.integers(0, 30, shape) / 8.0, rng.integers(0, 5, shape)
    if sequence_dependent:
        for i in range(n_items):
            costs[:, i + 1, i] = loss[:, i + 1, i] = 0
    return lot_sizing(
        name=f"case-{demand}-{n_items}x{n_machines}-{seed}",
        horizon=horizon,
        production=production,
        setup_costs=costs,
        setup_loss=loss,
        holding_costs=rng.integers(1, 5, n_items) / 7.0,
        lost_sales_costs=rng.integers(5, 30, n_items) / 7.0,
        max_inventory=rng.integers(0, 25, n_items),
        backlog_costs=rng.integers(1, 9, n_items) / 7.0 if backlog else 0,
        max_backlog=rng.integers(0, 9, n_items) if backlog else 0,
        demand=demand_of(demand, n_items, horizon),
    )


def random_actions(instance: LotSizingInstance, n: int, rng: np.random.Generator) -> np.ndarray:
    """Actions int64[n, M] that need not be legal."""
    return rng.integers(0, instance.n_items + 1, (n, instance.n_machines))
