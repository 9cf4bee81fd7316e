"""Episodes of a fixed policy as numbers of states, in pairs that share their past and not their future.

Everything lies in flat arrays over the states and the post-decision states of a small instance, so that a critic is a
table and its opinion of a million states one look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from orl.common import counter_noise
from orl.envs.lot_sizing import scenario, transition
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.solvers.lot_sizing.dynamic_programming import ExactValues, optimal_values
from orl.solvers.lot_sizing.state_space import StateSpace

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Policy = Callable[[int], Floats]
"""Probabilities float64[states, S] of the actions ``StateSpace.setups`` in a period."""
_ACTION = 1 << 20
"""Noise item of the choice of an action, far from those of the demand."""


class Numbers:
    """Flat numbers of the states and post-decision states of an instance.

    Attributes:
        space: The states and actions.
        n_states, n_posts: How many there are.
        first_post: int64[S], number of the first post-decision state after each action.
    """

    def __init__(self, instance: LotSizingInstance) -> None:
        self.space = space = StateSpace(instance)
        self.n_states = space.n_states
        sizes = space.post_sizes.prod(1)
        self.first_post = np.cumsum(sizes) - sizes
        self.n_posts = int(sizes.sum())
        self._strides = _strides(np.array(space.sizes)[None])[0]
        self._post_strides = _strides(space.post_sizes)
        self._stocks = int(np.prod(space.sizes))

    def states(self, inventory: Integers, action: Integers) -> Integers:
        """Numbers int64[...] of stocks int64[..., I] with the set-up that action number int64[...] leads to."""
        number: Integers = action * self._stocks + ((inventory - self.space.lowest) * self._strides).sum(-1)
        return number

    def posts(self, post_inventory: Integers, action: Integers) -> Integers:
        """Numbers int64[...] of the post-decision states with stocks int64[..., I] after actions int64[...]."""
        level = post_inventory - self.space.post_lowest[action]
        number: Integers = self.first_post[action] + (level * self._post_strides[action]).sum(-1)
        return number

    def post_table(self, values: ExactValues, period: int) -> Floats:
        """V^x of a period, float64[n_posts]."""
        return np.concatenate([values.post_values(a, period).ravel() for a in range(self.space.n_setups)])


def _strides(sizes: Integers) -> Integers:
    """Steps int64[..., I] of each axis in C order of arrays with sizes int64[..., I]."""
    shifted = np.concatenate([sizes[..., 1:], np.ones((*sizes.shape[:-1], 1), np.int64)], axis=-1)
    return np.cumprod(shifted[..., ::-1], axis=-1)[..., ::-1].astype(np.int64)


# ---- policies --------------------------------------------------------------------------------------------------------
def uniform(numbers: Numbers) -> Policy:
    """Every action of every machine with the same probability."""
    table = np.full((numbers.n_states, numbers.space.n_setups), 1.0 / numbers.space.n_setups)
    return lambda period: table


def softened_optimum(numbers: Numbers, discount: float, temperature: float) -> Policy:
    """Probabilities proportional to ``exp(Q / temperature)`` with the optimal Q of the period."""
    exact = optimal_values(numbers.space.instance, discount=discount, keep="values")

    @cache
    def probabilities(period: int) -> Floats:
        weight = action_values(numbers, exact, period) / temperature
        weight -= weight.max(-1, keepdims=True)
        np.exp(weight, out=weight)
        weight /= weight.sum(-1, keepdims=True)
        return weight

    return probabilities


def action_values(numbers: Numbers, exact: ExactValues, period: int) -> Floats:
    """Q float64[n_states, S] of a period: ``r^d + V^x``."""
    space = numbers.space
    q = np.empty((space.n_setups, *space.sizes, space.n_setups))
    for a, moves in enumerate(space.moves):
        post = exact.post_values(a, period)
        for cost, reached, setups in moves:
            for j in setups:
                q[j, ..., a] = post[reached] - cost
    return q.reshape(-1, space.n_setups)


# ---- simulation ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Episodes:
    """2N episodes, in time order.

    Attributes:
        states, posts: int64[T, 2N], numbers of the states and post-decision states.
        deterministic, stochastic: float64[T, 2N], r^d and r^w.
        draw_states: int64[T, 2N, D], states that D further draws of the demand would have led to.
        draw_rewards: float64[T, 2N, D], their r^w.
        fork: int64[N]. Episodes n and N + n are the same up to the decision of period ``fork[n]``, which is uniform,
            and independent of each other from the demand of that period on.
    """

    states: Integers
    posts: Integers
    deterministic: Floats
    stochastic: Floats
    draw_states: Integers
    draw_rewards: Floats
    fork: Integers


def simulate(numbers: Numbers, policy: Policy, pairs: int, draws: int, seed: int) -> Episodes:
    """Play ``pairs`` pairs of episodes from random starts, with ``draws`` further draws of each demand."""
    space = numbers.space
    instance = space.instance
    rng = np.random.default_rng(seed)
    horizon, n = instance.horizon, 2 * pairs
    past = np.tile(rng.integers(0, 2**64, pairs, dtype=np.uint64), 2)
    future = np.concatenate([past[:pairs], rng.integers(0, 2**64, pairs, dtype=np.uint64)])
    fork = rng.integers(0, horizon, pairs)
    forks = np.tile(fork, 2)
    shape, further = (horizon, n), (horizon, n, draws)
    out = Episodes(
        states=np.empty(shape, np.int64),
        posts=np.empty(shape, np.int64),
        deterministic=np.empty(shape),
        stochastic=np.empty(shape),
        draw_states=np.empty(further, np.int64),
        draw_rewards=np.empty(further),
        fork=fork,
    )
    inventory, setup = scenario.initial_state(instance, past)
    state = numbers.states(inventory, space.setup_index(setup))
    for t in range(horizon):
        chance = counter_noise.uniform(np.where(t > forks, future, past), t + 1, _ACTION)
        levels = policy(t)[state].cumsum(-1)[:, :-1]
        action = (chance[:, None] >= levels).sum(-1)
        post, setup, cost = transition.decide(instance, inventory, setup, space.setups[action])
        key = np.where(t >= forks, future, past)
        demand = instance.demand.draw(key[:, None], t, np.arange(draws + 1))
        stock, _, lost, holding = transition.realise(instance, post[:, None], demand)
        after = numbers.states(stock, action[:, None])
        out.states[t], out.posts[t] = state, numbers.posts(post, action)
        out.deterministic[t], out.stochastic[t] = -cost, -(lost + holding)[:, 0]
        out.draw_states[t], out.draw_rewards[t] = after[:, 1:], -(lost + holding)[:, 1:]
        inventory, state = stock[:, 0], after[:, 0]
    return out
