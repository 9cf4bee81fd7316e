"""Small lot-sizing scenarios of every kind, small enough to try all plans."""

from __future__ import annotations

import numpy as np

from orl.envs.lot_sizing import distributions
from orl.envs.lot_sizing.builders import lot_sizing

KINDS = ("plain", "no-setup-cost", "tight-storage", "sequence-dependent", "backlog", "losses")


def small_scenario(kind, seed, *, items=2, machines=1, horizon=4):
    """A scenario with I = 2, M = 1, T = 4 unless said otherwise; costs are multiples of 0.1."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    sequence = kind == "sequence-dependent"
    shape = (machines, items + 1, items) if sequence else (machines, items)
    costs = rng.integers(0, 6, shape) / 2.0
    loss = rng.integers(0, 3, shape)
    if kind == "no-setup-cost":
        costs[:] = 0.0
    if kind == "losses":  # losing units pays: stock is dear, set-ups are nearly free
        costs, loss = rng.integers(0, 2, shape) / 10.0, rng.integers(1, 4, shape)
    if sequence:
        for j in range(1, items + 1):
            costs[:, j, j - 1] = loss[:, j, j - 1] = 0
    production = rng.integers(0, 5, (machines, items))
    production[:, 0] = np.maximum(production[:, 0], 1)
    top = rng.integers(1, 4 if kind == "tight-storage" else 9, items)
    backlog = rng.integers(0, 4, items) if kind == "backlog" else np.zeros(items, np.int64)
    holding = rng.integers(0, 4, items) / 10.0 + (1.0 if kind in ("tight-storage", "losses") else 0.0)
    path = rng.integers(0, 4, (horizon, items))
    return lot_sizing(
        name=f"{kind}-{seed}",
        horizon=horizon,
        production=production,
        setup_costs=costs,
        setup_loss=loss,
        holding_costs=holding,
        lost_sales_costs=rng.integers(1, 30, items) / 10.0,
        max_inventory=top,
        demand=distributions.discrete_uniform(items, 0, 4),
        initial_inventory=rng.integers(-backlog, top + 1),
        initial_setup=np.array([rng.choice([0, *(np.flatnonzero(row) + 1)]) for row in production]),
        backlog_costs=rng.integers(1, 10, items) / 10.0 if kind == "backlog" else 0,
        max_backlog=backlog,
        demand_path=path,
    )
