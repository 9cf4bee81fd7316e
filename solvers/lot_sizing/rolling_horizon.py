"""Rolling horizon: in every period plan a window of periods as if demand were known, and take the first decision."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance
from orl.solvers.lot_sizing.heuristics import shortage_costs
from orl.solvers.lot_sizing.milp import DemandTree, chain
from orl.solvers.lot_sizing.rules import Decide
from orl.solvers.lot_sizing.tree_rule import tree_rule


def rolling_horizon(
    instance: LotSizingInstance,
    *,
    window: int = 5,
    demand: Literal["mean", "quantile"] = "mean",
    quantile: float | None = None,
    time_limit_per_decision: float | None = 2.0,
    gap: float = 0.0,
    exact: bool = True,
    seed: int = 0,
) -> Decide:
    """The rule.

    With expected demand a safety stock is worth nothing to the programme, so it loses more sales than it thinks. With
    ``demand="quantile"`` it plans for a high quantile of the demand *accumulated* from now on: one safety stock for the
    window, not one for each period.

    Args:
        instance: The problem.
        window: Periods planned, fewer at the end of the horizon.
        demand: ``mean``: expected demand; ``quantile``: increments of quantiles of accumulated demand.
        quantile: Which, between 0 and 1; None: the critical ratio of every item, rho / (rho + window h).
        time_limit_per_decision, gap, exact, seed: As for :func:`orl.solvers.lot_sizing.tree_rule.tree_rule`.

    >>> from orl.envs.lot_sizing.library import load
    >>> rule = rolling_horizon(load("ls-2x1"), window=3)
    >>> rule(np.array([[3, 0]]), np.array([[1]]), np.array([0])).shape
    (1, 1)
    """
    if type(window) is not int or window < 1:
        raise InputError("bad window", field="window", value=window, expected="an integer >= 1")
    if demand not in ("mean", "quantile"):
        raise InputError("unknown demand", field="demand", value=demand, expected="mean or quantile")
    if quantile is not None and not 0.0 < quantile < 1.0:
        raise InputError("bad quantile", field="quantile", value=quantile, expected="between 0 and 1")
    short, holding = shortage_costs(instance), instance.holding_costs
    total = short + window * holding
    level = short / np.where(total > 0, total, 1.0) if quantile is None else np.full(instance.n_items, quantile)

    def tree_at(period: int) -> DemandTree:
        periods = np.arange(period, min(period + window, instance.horizon))
        if demand == "mean":
            mean = np.broadcast_to(instance.demand.mean, (instance.horizon, instance.n_items))
            return chain(mean[periods].round(9))  # whole means are whole: such windows are solved faster
        return chain(np.diff(accumulated_quantiles(instance, periods, level), axis=0, prepend=0))

    return tree_rule(
        instance, tree_at, time_limit_per_decision=time_limit_per_decision, gap=gap, exact=exact, seed=seed
    )


def accumulated_quantiles(instance: LotSizingInstance, periods: npt.ArrayLike, level: Floats) -> Integers:
    """Quantiles int64[H, I] of the demand of the first 1, 2, ..., H of the periods; ``level`` float64[I]."""
    steps = np.asarray(periods)
    quantiles = np.zeros((len(steps), instance.n_items), np.int64)
    for i in range(instance.n_items):
        distribution = np.ones(1)
        for k, period in enumerate(steps.tolist()):
            values, probabilities = instance.demand.table(period)
            one = np.bincount(values[i], probabilities[i])
            distribution = np.convolve(distribution, one)
            reached = np.cumsum(distribution) >= level[i] - 1e-12
            quantiles[k, i] = reached.argmax() if reached.any() else len(distribution) - 1
    return quantiles
