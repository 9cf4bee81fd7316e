"""Expectations over one period's demand on a grid of stock levels, exactly.

With independent items the expectation of a function of all stocks is taken item by item: its cost is a few small matrix
products instead of one term for each of the K^I joint outcomes. Correlated items need the joint outcomes, whose
probabilities come from the Gaussian copula by nested quadrature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from orl.common.errors import InputError
from orl.envs.lot_sizing.demand import Demand
from orl.envs.lot_sizing.instance import Floats, Integers
from orl.envs.lot_sizing.transition import realise
from orl.solvers.lot_sizing.state_space import StateSpace

JOINT_OUTCOMES = 4096
"""Largest number of joint demands of correlated items in a period."""
NODES = 4_000_000
"""Largest number of quadrature nodes for their probabilities."""
FAR = 8.3
"""Normal numbers beyond it are left out: their probability is below 1e-16."""


@dataclass(frozen=True)
class DemandExpectation:
    """What a period's demand does to post-decision stocks.

    Attributes:
        space: The states.
        bottom: int64[I], least post-decision stock after any action.
        matrices: For each item float64[post levels, levels], distribution of the next stock (independent items).
        costs: For each item float64[post levels], expected cost of lost sales, holding and backlog.
        joint: Joint demands int64[D, I] and their probabilities float64[D] of correlated items, or None.
    """

    space: StateSpace
    bottom: Integers
    matrices: list[Floats]
    costs: list[Floats]
    joint: tuple[Integers, Floats] | None

    def post_values(self, a: int, next_values: Floats, discount: float) -> Floats:
        """V^x(s^x) = E[-cost + discount V(s')] after action ``a``: float64[post_sizes[a]].

        Args:
            next_values: V of the next period with the set-up that a leads to, float64[n_1, ..., n_I].
        """
        space = self.space
        begin, size = space.post_lowest[a] - self.bottom, space.post_sizes[a]
        rows = [slice(int(b), int(b + n)) for b, n in zip(begin, size, strict=True)]
        if self.joint is None:
            expected = next_values
            for matrix, row in zip(self.matrices, rows, strict=True):
                expected = np.tensordot(expected, matrix[row], axes=(0, 1))  # the contracted axis comes back last
        else:
            expected = np.zeros(tuple(size))
            levels = [np.arange(n) + low for n, low in zip(size, space.post_lowest[a], strict=True)]
            for demand, probability in zip(*self.joint, strict=True):
                after = [
                    np.clip(level - d, low, low + n - 1) - low
                    for level, d, low, n in zip(levels, demand, space.lowest, space.sizes, strict=True)
                ]
                expected += probability * next_values[np.ix_(*after)]
        expected = discount * expected
        for i, (cost, row) in enumerate(zip(self.costs, rows, strict=True)):
            expected -= cost[row].reshape((-1,) + (1,) * (len(rows) - 1 - i))
        return expected


def demand_expectation(space: StateSpace, period: int) -> DemandExpectation:
    """Tables of a period's demand for the states of an instance.

    Raises:
        InputError: Correlated items with too many joint outcomes.
    """
    instance = space.instance
    values, probabilities = instance.demand.table(period)
    bottom = space.post_lowest.min(0)
    top = (space.post_lowest + space.post_sizes).max(0)
    matrices, costs = [], []
    for i, (low, high) in enumerate(zip(bottom, top, strict=True)):
        post = np.zeros((high - low, values.shape[1], instance.n_items), np.int64)
        post[..., i] = np.arange(low, high)[:, None]
        demand = np.zeros_like(post)
        demand[..., i] = values[i]
        stock, _, lost, holding = realise(instance, post, demand)
        matrix = np.zeros((high - low, space.sizes[i]))
        row = np.broadcast_to(np.arange(high - low)[:, None], stock.shape[:2])
        np.add.at(matrix, (row, stock[..., i] - space.lowest[i]), np.broadcast_to(probabilities[i], row.shape))
        matrices.append(matrix)
        costs.append((lost + holding) @ probabilities[i])
    joint = None if instance.demand.correlation is None else joint_demand(instance.demand, period, instance.name)
    return DemandExpectation(space, bottom, matrices, costs, joint)


def joint_demand(demand: Demand, period: int, source: str | None = None) -> tuple[Integers, Floats]:
    """All joint demands of a period int64[D, I] and their probabilities float64[D], correlated or not.

    The probability of a cell of the Gaussian copula is a nested integral over independent normal numbers; every
    interval gets its own Gauss-Legendre nodes, and the last item is integrated in closed form. Errors are about 1e-9
    unless the correlation is close to 1.

    Raises:
        InputError: Too many joint outcomes or quadrature nodes.
    """
    values, probabilities = demand.table(period)
    n_items, width = values.shape
    counts = width - (probabilities[:, ::-1] > 0).argmax(-1)
    n_outcomes = math.prod(int(k) for k in counts)
    if n_outcomes > JOINT_OUTCOMES:
        raise InputError(
            "too many joint demands of correlated items for exact dynamic programming",
            source=source,
            field="demand",
            value=f"{n_outcomes:.3g} outcomes",
            expected=f"at most {JOINT_OUTCOMES}",
        )
    index = np.stack([g.ravel() for g in np.meshgrid(*map(np.arange, counts), indexing="ij")], -1)
    outcomes = values[np.arange(n_items), index]
    if demand.factor is None:
        return outcomes, probabilities[np.arange(n_items), index].prod(-1)
    per_interval = 48
    if math.prod(int(k) * per_interval for k in counts[:-1]) > NODES:
        per_interval = 24
    if math.prod(int(k) * per_interval for k in counts[:-1]) > NODES:
        raise InputError(
            "too many correlated items for exact dynamic programming",
            source=source,
            field="demand.correlation",
            value=f"{n_items} items",
            expected="fewer items or fewer demand values",
        )
    thresholds = demand.thresholds[0 if demand.stationary else period]
    nodes, weights = np.polynomial.legendre.leggauss(per_interval)
    factor = demand.factor
    drawn = np.zeros((1, 0))  # independent normal numbers of the items so far, one row a node
    mass = np.ones(1)
    cell = np.zeros(1, np.int64)
    for i in range(n_items):
        edges = np.concatenate([[-np.inf], thresholds[i, : counts[i] - 1], [np.inf]])
        edges = (edges - (drawn @ factor[i, :i])[:, None]) / factor[i, i]  # in units of this item's own number
        cell = cell[:, None] * counts[i] + np.arange(counts[i])
        if i == n_items - 1:
            mass = mass[:, None] * np.diff(ndtr(edges), axis=-1)
            break
        edges = np.clip(edges, -FAR, FAR)
        middle, half = (edges[:, 1:] + edges[:, :-1]) / 2, np.diff(edges, axis=-1) / 2
        point = middle[..., None] + half[..., None] * nodes
        density = np.exp(-0.5 * point**2) / math.sqrt(2 * math.pi)
        mass = (mass[:, None, None] * half[..., None] * weights * density).ravel()
        before = np.repeat(drawn, point.shape[1] * per_interval, axis=0)
        drawn = np.concatenate([before, point.reshape(-1, 1)], axis=1)
        cell = np.repeat(cell.ravel(), per_interval)
    probability = np.bincount(cell.ravel(), mass.ravel(), n_outcomes)
    return outcomes, probability / probability.sum()
