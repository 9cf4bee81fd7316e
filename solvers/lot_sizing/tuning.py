"""Rules whose parameters are chosen by simulation, on seeds that no evaluation uses.

The grid is small and fixed; all candidates meet the same scenarios, and ties go to the first. The tuning seeds start at
``FIRST_SEED``, far from those of tests and benchmarks (which count from 0), and the random start is always used, so a
tuned rule depends on the instance's distribution alone, never on a scenario.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from orl.common.errors import UnknownNameError
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.solvers.lot_sizing.rules import Decide, rule_factory
from orl.solvers.lot_sizing.simulation import simulate

FIRST_SEED = 1_000_000_000
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "greedy": {"periods": (1, 2, 3, 4, 5, 7, 10, 15, 20, 30)},
    "base-stock": {"safety": (-1.0, 0.0, 1.0), "batch": (3.0, 6.0, 9.0, 12.0, 16.0), "preempt": (0.4, 0.7, 1.0, 2.0)},
}
"""Values tried for each parameter of a rule."""
FIRST_ROUND, SECOND_ROUND, FINALISTS = 16, 64, 6
"""Episodes of all candidates, and of the best ones among them."""


def tuned_options(rule: str, instance: LotSizingInstance, first_seed: int = FIRST_SEED) -> dict[str, Any]:
    """The options of a rule that cost least: all candidates on a few scenarios, then the best ones on more.

    Raises:
        UnknownNameError: The rule has no grid.

    >>> from orl.envs.lot_sizing.library import load
    >>> sorted(tuned_options("greedy", load("ls-2x1-t20")))
    ['periods']
    """
    if rule not in GRIDS:
        raise UnknownNameError("rule", rule, GRIDS)
    problem, grid, make = replace(instance, demand_path=None), GRIDS[rule], rule_factory(rule)
    candidates = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    for n_episodes, n_left in ((FIRST_ROUND, FINALISTS), (SECOND_ROUND, 1)):
        seeds = range(first_seed, first_seed + n_episodes)
        means = [simulate(problem, make(problem, **options), seeds).mean() for options in candidates]
        candidates = [candidates[i] for i in np.argsort(means, kind="stable")[:n_left]]
    return candidates[0]


def tuned_greedy(instance: LotSizingInstance) -> Decide:
    """``greedy`` with tuned look-ahead."""
    return rule_factory("greedy")(instance, **tuned_options("greedy", instance))


def tuned_base_stock(instance: LotSizingInstance) -> Decide:
    """``base-stock`` with tuned lead, safety and batch."""
    return rule_factory("base-stock")(instance, **tuned_options("base-stock", instance))
