"""Multistage stochastic programming: decisions adapt to demand along a sampled tree of what may come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance
from orl.solvers.lot_sizing.milp import DemandTree
from orl.solvers.lot_sizing.rules import Decide
from orl.solvers.lot_sizing.tree_rule import sampling_key, tree_rule


def scenario_tree(
    instance: LotSizingInstance,
    *,
    branching: Sequence[int] = (4, 2, 2),
    candidates: int | None = None,
    seed: int = 0,
    time_limit_per_decision: float | None = 2.0,
    gap: float = 0.0,
    exact: bool = True,
) -> Decide:
    """The rule: every node of the tree has its own decision, taken before the demand of its children is known.

    Args:
        instance: The problem.
        branching: Children of every node, stage by stage; the window has as many periods.
        candidates: Draw so many demands at every node and keep the ``branching`` that represent them best
            (:func:`fast_forward`); None: draw just the children.
        seed: Seed of the draws (their noise keys are not those of any episode) and of HiGHS.
        time_limit_per_decision, gap, exact: As for :func:`orl.solvers.lot_sizing.tree_rule.tree_rule`.

    >>> from orl.envs.lot_sizing.library import load
    >>> rule = scenario_tree(load("ls-2x1"), branching=(3, 2))
    >>> rule(np.array([[3, 0]]), np.array([[1]]), np.array([0])).shape
    (1, 1)
    """
    if not branching or any(type(n) is not int or n < 1 for n in branching):
        value = list(branching)
        raise InputError("bad branching", field="branching", value=value, expected="integers >= 1, one for each stage")
    if candidates is not None and candidates < max(branching):
        raise InputError(
            "too few candidates", field="candidates", value=candidates, expected=f"at least {max(branching)}"
        )

    def tree_at(period: int) -> DemandTree:
        stages = list(branching)[: instance.horizon - period]
        return sampled_tree(instance, period, stages, sampling_key(seed, period), candidates)

    return tree_rule(
        instance, tree_at, time_limit_per_decision=time_limit_per_decision, gap=gap, exact=exact, seed=seed
    )


def sampled_tree(
    instance: LotSizingInstance,
    period: int,
    branching: Sequence[int],
    key: np.uint64,
    candidates: int | None = None,
) -> DemandTree:
    """A tree of demands drawn independently at every node, from ``period`` on."""
    parents: list[Integers] = [np.array([-1])]
    demand: list[Floats] = [np.zeros((1, instance.n_items))]
    probability: list[Floats] = [np.ones(1)]
    level, count, drawn = np.array([0]), 1, 0
    for stage, children in enumerate(branching):
        n_draws = children if candidates is None else candidates
        draws = 1 + drawn + np.arange(len(level) * n_draws)  # draw 0 is what happens in episodes
        drawn += len(draws)
        values = instance.demand.draw(key, period + stage, draws).reshape(len(level), n_draws, -1).astype(float)
        weights = np.full((len(level), children), 1.0 / children)
        if candidates is not None:
            kept, weights = (np.stack(part) for part in zip(*(fast_forward(v, children) for v in values), strict=True))
            values = np.take_along_axis(values, kept[..., None], 1)
        parents.append(np.repeat(level, children))
        demand.append(values.reshape(-1, instance.n_items))
        probability.append((probability[-1][:, None] * weights).ravel())
        level = count + np.arange(len(parents[-1]))
        count += len(level)
    return DemandTree(np.concatenate(parents), np.concatenate(demand), np.concatenate(probability))


def fast_forward(points: npt.ArrayLike, n_kept: int) -> tuple[Integers, Floats]:
    """Fast forward selection (Heitsch and Roemisch, Computational Optimization and Applications 24, 2003).

    One by one the point is kept that most lowers the mean distance from all points to the nearest one kept; every point
    then gives its weight to that one.

    Args:
        points: float64[N, D], equally likely.
        n_kept: How many to keep, at most N.

    Returns:
        Indices int64[n_kept] and weights float64[n_kept] that sum to 1.

    >>> kept, weights = fast_forward([[0.0], [0.1], [5.0], [5.2], [5.1]], 2)
    >>> sorted(zip(kept.tolist(), weights.round(2).tolist()))
    [(0, 0.4), (2, 0.6)]
    """
    values = np.asarray(points, np.float64)
    distance = np.sqrt(((values[:, None] - values[None]) ** 2).sum(-1))
    nearest = np.full(len(values), np.inf)
    kept: list[int] = []
    for _ in range(n_kept):
        total = np.minimum(nearest[:, None], distance).sum(0)
        total[kept] = np.inf
        kept.append(int(total.argmin()))
        nearest = np.minimum(nearest, distance[:, kept[-1]])
    owner = distance[:, kept].argmin(1)
    return np.array(kept), np.bincount(owner, minlength=n_kept) / len(values)
