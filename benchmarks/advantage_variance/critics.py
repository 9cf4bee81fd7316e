"""Exact critics of a fixed policy for every estimator, and critics with a chosen error.

What an estimator's critics are fitted to differs, so what it would learn without error does, too:

``own``      V(s) = E[sum of r], V^x(s^x) = E[r^w + gamma V(s')] (``interleaved``, ``max_full``)
``streams``  V(s) = E[sum of r^w], V^x(s^x) = E[r^d + ... | s^x], the sum of r^d (``paper_max``)
``returns``  V(s) = E[sum of r], V^x(s^x) = E[r^d + r^w + ... | s^x], the same sum (``early_min``)

The cost r^d of the decision just taken is not a function of s^x: several states and decisions lead there. Its mean,
which the critics of the last two kinds learn, depends on how often the policy comes from where. It is computed from the
exact distribution of the states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from episodes import Floats, Numbers, Policy

from orl.common.errors import InputError
from orl.solvers.lot_sizing.demand_expectation import DemandExpectation, demand_expectation
from orl.solvers.lot_sizing.dynamic_programming import ExactValues, evaluate_policy

KINDS = ("own", "streams", "returns")


@dataclass(frozen=True)
class Critics:
    """Tables of one pair of critics.

    Attributes:
        values: float64[T + 1, n_states], V of each period, 0 after the last.
        post_values: float64[T, n_posts], V^x.
        draw_means: float64[T, n_posts], the mean of r^w + gamma V(s') over infinitely many draws of the demand.
    """

    values: Floats
    post_values: Floats
    draw_means: Floats


def exact(numbers: Numbers, policy: Policy, discount: float) -> dict[str, Critics]:
    """The critics of all kinds that know the policy's values."""
    instance = numbers.space.instance
    free = replace(instance, setup_costs=np.zeros_like(instance.setup_costs))  # same states, rewards r^w alone
    whole, stochastic = (
        evaluate_policy(i, lambda inventory, setup, period: policy(int(period[0])), discount=discount, keep="values")
        for i in (instance, free)
    )
    values, noise_values = _table(whole), _table(stochastic)
    post, noise_post = draw_means(numbers, whole), draw_means(numbers, stochastic)
    paid = paid_before(numbers, policy)
    return {
        "own": Critics(values, post, post),
        "streams": Critics(noise_values, paid + post - noise_post, noise_post),
        "returns": Critics(values, paid + post, post),
    }


def draw_means(numbers: Numbers, values: ExactValues) -> Floats:
    """E[r^w + gamma V(s')] float64[T, n_posts] of any V."""
    return np.stack([numbers.post_table(values, t) for t in range(numbers.space.instance.horizon)])


def _table(values: ExactValues) -> Floats:
    return np.stack(values.values).reshape(len(values.values), -1)


def paid_before(numbers: Numbers, policy: Policy) -> Floats:
    """E[r^d of the decision | s^x] float64[T, n_posts], 0 where the policy never comes."""
    space = numbers.space
    horizon, stationary = space.instance.horizon, space.instance.demand.stationary
    mass, table = initial_distribution(numbers), demand_expectation(space, 0)
    paid = np.zeros((horizon, numbers.n_posts))
    for t in range(horizon):
        if t and not stationary:
            table = demand_expectation(space, t)
        chosen = policy(t).reshape(*mass.shape, -1)
        following = space.array()
        for a, moves in enumerate(space.moves):
            there, sums = (np.zeros(tuple(space.post_sizes[a])) for _ in range(2))
            for cost, reached, setups in moves:
                weight = sum(mass[j] * chosen[j, ..., a] for j in setups)
                there[reached] += weight
                sums[reached] -= cost * weight
            begin = numbers.first_post[a]
            paid[t, begin : begin + there.size] = np.divide(sums, there, out=sums, where=there > 0).ravel()
            following[a] = _after_demand(table, a, there)
        mass = following
    return paid


def initial_distribution(numbers: Numbers) -> Floats:
    """Probabilities float64[S, n_1, ..., n_I] of the random start: what ``StateSpace.initial_mean`` averages over."""
    space = numbers.space
    mass = space.array()
    ready = np.ones(space.n_setups, np.bool_)
    for m, row in enumerate(space.instance.production):
        items = np.flatnonzero(row > 0) + 1
        ready &= np.isin(space.setups[:, m], items if len(items) else [0])
    stocks = np.ix_(
        np.flatnonzero(ready),
        *(
            np.arange(max(int(top), 1)) - low
            for low, top in zip(space.lowest, space.instance.max_inventory, strict=True)
        ),
    )
    mass[stocks] = 1.0
    return mass / mass.sum()


def _after_demand(table: DemandExpectation, a: int, mass: Floats) -> Floats:
    """Distribution of the stocks after demand, from that of the post-decision stocks after action ``a``."""
    if table.joint is not None:
        raise InputError("the items' demand is correlated", field="demand", expected="independent items")
    begin, size = table.space.post_lowest[a] - table.bottom, table.space.post_sizes[a]
    for matrix, first, n in zip(table.matrices, begin, size, strict=True):
        mass = np.tensordot(mass, matrix[first : first + n], axes=(0, 0))  # the contracted axis comes back last
    return mass


# ---- errors ----------------------------------------------------------------------------------------------------------
Error = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Wrong values and post-values from exact ones; V after the last period remains 0."""


def wrong(numbers: Numbers, critics: Critics, error: Error, discount: float) -> Critics:
    """Critics with an error; the mean over infinitely many draws is that of the wrong V."""
    values, post_values = error(critics.values[:-1], critics.post_values)
    values = np.concatenate([values, critics.values[-1:]])
    means = critics.draw_means
    if not np.array_equal(values, critics.values):
        shape = (numbers.space.n_setups, *numbers.space.sizes)
        believed = ExactValues(numbers.space, [v.reshape(shape) for v in values], None, discount, False)
        means = draw_means(numbers, believed)
    return Critics(values, post_values, means)


def scaled(values_by: float, post_values_by: float) -> Error:
    """V and V^x times a factor each."""
    return lambda values, post_values: (values * values_by, post_values * post_values_by)


def noisy(values_by: float, post_values_by: float, seed: int = 0) -> Error:
    """V and V^x with independent normal errors in every state and period, of a standard deviation each."""

    def error(values: Floats, post_values: Floats) -> tuple[Floats, Floats]:
        rng = np.random.default_rng(seed)
        first, second = rng.normal(size=values.shape), rng.normal(size=post_values.shape)
        return values + values_by * first, post_values + post_values_by * second

    return error
