"""Two-stage stochastic programming over sampled demand (sample average approximation)."""

from __future__ import annotations

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.solvers.lot_sizing.milp import DemandTree
from orl.solvers.lot_sizing.rules import Decide
from orl.solvers.lot_sizing.scenario_tree import sampled_tree
from orl.solvers.lot_sizing.tree_rule import sampling_key, tree_rule


def sample_average(
    instance: LotSizingInstance,
    *,
    window: int = 5,
    n_samples: int = 10,
    seed: int = 0,
    time_limit_per_decision: float | None = 2.0,
    gap: float = 0.0,
    exact: bool = True,
) -> Decide:
    """The rule: one decision now for all samples; from the next period on every sample has a plan of its own.

    The later plans know their sample's demand (wait and see), so they are optimistic: the rule undervalues what a
    decision keeps open. :func:`orl.solvers.lot_sizing.scenario_tree.scenario_tree` mends that at a price.

    Args:
        instance: The problem.
        window: Periods of every sample, fewer at the end of the horizon.
        n_samples: Demand paths drawn in every period.
        seed: Seed of the draws (their noise keys are not those of any episode) and of HiGHS.
        time_limit_per_decision, gap, exact: As for :func:`orl.solvers.lot_sizing.tree_rule.tree_rule`.

    >>> from orl.envs.lot_sizing.library import load
    >>> import numpy as np
    >>> rule = sample_average(load("ls-2x1"), window=3, n_samples=4)
    >>> rule(np.array([[3, 0]]), np.array([[1]]), np.array([0])).shape
    (1, 1)
    """
    for field, value in (("window", window), ("n_samples", n_samples)):
        if type(value) is not int or value < 1:
            raise InputError("bad value", field=field, value=value, expected="an integer >= 1")

    def tree_at(period: int) -> DemandTree:
        stages = [n_samples] + [1] * (min(window, instance.horizon - period) - 1)
        return sampled_tree(instance, period, stages, sampling_key(seed, period))

    return tree_rule(
        instance, tree_at, time_limit_per_decision=time_limit_per_decision, gap=gap, exact=exact, seed=seed
    )
