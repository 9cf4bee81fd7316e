"""Two tanks above one another, a small problem with a target model and an optimum that linear programming finds."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from scipy.optimize import linprog

from orl.common import counter_noise

Floats = npt.NDArray[np.float64]

CAPACITY = np.array([30.0, 15.0])
TURBINE = np.array([12.0, 14.0])
YIELD = np.array([1.0, 0.8])
DEMAND = 26.0
CHEAP, CHEAP_PRICE, DEAR_PRICE = 12.0, 10.0, 100.0
INFLOW = np.array([[[14.0, 6.0], [9.0, 3.0]], [[8.0, 5.0], [3.0, 2.0]], [[6.0, 4.0], [0.5, 0.0]]])
"""[T, outcomes, tanks], each outcome with chance 1/2."""


class Tanks:
    """What the upper tank lets go flows into the lower one; turbines at both serve a demand, the rest is bought.

    The price of a stage is piecewise linear and convex in states before and after it. Fractions are those of the water
    that a tank can keep; with ``reachable=False`` they are targets between empty and full.

    Attributes:
        blind: Derivatives of ``reach`` take the limits as constants, which is wrong (for a test that notices).
    """

    n_stages = len(INFLOW)
    initial_state = np.array([5.0, 2.0])
    state_unit = CAPACITY.copy()
    state_at = slice(0, 2)
    cost_unit = 100.0
    target_lower = np.zeros(2)
    target_upper = CAPACITY.copy()
    penalty = 400.0

    def __init__(self, reachable: bool = True) -> None:
        self.reachable = reachable
        self.blind = False

    def draw(self, keys: npt.NDArray[np.uint64]) -> Floats:
        outcomes = counter_noise.integers(2, np.asarray(keys), np.arange(self.n_stages)[:, None])
        return self.noise_of(outcomes)

    def noise_of(self, outcomes: npt.NDArray[np.int64]) -> Floats:
        return INFLOW[np.arange(self.n_stages)[:, None], outcomes]

    def features(self, noise: Floats) -> Floats:
        stages = np.arange(len(noise))[:, None, None]
        seen = np.zeros((*noise.shape[:2], 5))
        seen[..., 2:4] = (noise - 5.0) / 4.0
        seen[..., 4:] = stages / self.n_stages
        return seen

    def reach(self, state: Floats, noise: Floats, fractions: Floats) -> Floats:
        return self._reach(state, noise, fractions)[0]

    def _reach(self, state: Floats, noise: Floats, fractions: Floats) -> tuple[Floats, Floats]:
        """States after and water at hand."""
        at_hand = state + noise
        after = np.empty_like(at_hand)
        for i in range(2):
            if i == 1:
                at_hand[:, 1] += at_hand[:, 0] - after[:, 0]
            limit = np.minimum(CAPACITY[i], at_hand[:, i])
            if self.reachable:
                after[:, i] = fractions[:, i] * limit
            else:
                after[:, i] = np.minimum(fractions[:, i] * CAPACITY[i], limit)
        return after, at_hand

    def reach_gradient(
        self, state: Floats, noise: Floats, fractions: Floats, gradient: Floats
    ) -> tuple[Floats, Floats]:
        _, at_hand = self._reach(state, noise, fractions)
        below = at_hand < CAPACITY
        if self.reachable:
            by_hand, by_fraction = fractions * below, np.minimum(CAPACITY, at_hand)
        else:
            met = fractions * CAPACITY <= np.minimum(CAPACITY, at_hand)
            by_hand, by_fraction = (~met & below).astype(float), met * CAPACITY
        if self.blind:
            by_hand = np.zeros_like(by_hand)
        lower = gradient[:, 1] * by_hand[:, 1]  # by water at hand, part of which is let go above
        upper = (gradient[:, 0] - lower) * by_hand[:, 0] + lower
        by_fractions = np.stack([(gradient[:, 0] - lower) * by_fraction[:, 0], gradient[:, 1] * by_fraction[:, 1]], 1)
        return np.stack([upper, lower], 1), by_fractions

    def costs_and_gradients(self, before: Floats, noise: Floats, after: Floats) -> tuple[Floats, Floats, Floats]:
        net = before + noise - after
        release = np.stack([net[..., 0], net[..., 0] + net[..., 1]], -1)
        assert release.min() > -1e-9
        bought = DEMAND - (YIELD * np.minimum(release, TURBINE)).sum(-1)
        dear = np.maximum(bought - CHEAP, 0.0)
        cost = CHEAP_PRICE * np.clip(bought, 0.0, CHEAP) + DEAR_PRICE * dear
        price = np.where(bought > CHEAP, DEAR_PRICE, np.where(bought > 0, CHEAP_PRICE, 0.0))
        by_release = -price[..., None] * YIELD * (release < TURBINE)
        by_net = np.stack([by_release.sum(-1), by_release[..., 1]], -1)
        return cost, by_net, -by_net

    def soft_costs_and_gradients(
        self, noise: Floats, targets: Floats, penalty: float, window: int | None = None
    ) -> tuple[Floats, Floats, Floats]:
        n_paths = targets.shape[1]
        costs, penalties, gradient = np.zeros(n_paths), np.zeros(n_paths), np.zeros_like(targets)
        for b in range(n_paths):
            state = self.initial_state
            for first in range(0, self.n_stages, window or self.n_stages):
                rows = slice(first, first + (window or self.n_stages))
                paths = [[noise[t, b]] for t in range(*rows.indices(self.n_stages))]
                answer = _programme(paths, state, targets[rows, b], penalty)
                costs[b] += answer[0]
                penalties[b] += answer[1]
                gradient[rows, b], state = answer[2], answer[3]
        return costs, penalties, gradient


def optimum() -> float:
    """Least expected cost, from the linear programme over the tree of outcomes."""
    return _programme([list(stage) for stage in INFLOW], Tanks.initial_state, None, 0.0)[0]


def all_outcomes() -> npt.NDArray[np.int64]:
    """Outcomes int64[T, 2^T] of all paths, which are equally likely."""
    return np.array(list(itertools.product(range(2), repeat=len(INFLOW)))).T


def _programme(inflows: list[list[Any]], start: Floats, targets: Floats | None, penalty: float) -> tuple[Any, ...]:
    """The programme over a tree whose stage t has the equally likely outcomes inflows[t].

    Columns of a node: after (2), turbined (2), spilled (2), cheap, dear, missed above and below (2 + 2).
    Returns cost, penalties, derivatives by targets, states at the end of the last node.
    """
    nodes: list[tuple[int, int, Any, float]] = []  # parent, stage, inflow, probability
    level: list[tuple[int, float]] = [(-1, 1.0)]
    for t, outcomes in enumerate(inflows):
        following = []
        for parent, probability in level:
            for inflow in outcomes:
                following.append((len(nodes), probability / len(outcomes)))
                nodes.append((parent, t, inflow, probability / len(outcomes)))
        level = following
    width, costs, bounds = 12, [], []
    equal, right, more, least = [], [], [], []
    for k, (parent, _, inflow, probability) in enumerate(nodes):
        costs += list(probability * np.array([0, 0, 0, 0, 0, 0, CHEAP_PRICE, DEAR_PRICE, *[penalty] * 4]))
        missed = (0, None) if targets is not None else (0, 0)
        bounds += [(0, c) for c in CAPACITY] + [(0, c) for c in TURBINE] + [(0, None)] * 2
        bounds += [(0, CHEAP), (0, None)] + [missed] * 4
        for i in range(2):
            row = np.zeros(width * len(nodes))
            row[width * k + np.array([i, 2 + i, 4 + i])] = 1.0
            if i == 1:
                row[width * k + np.array([2, 4])] = -1.0
            if parent >= 0:
                row[width * parent + i] = -1.0
            equal.append(row)
            right.append(inflow[i] + (start[i] if parent < 0 else 0.0))
        row = np.zeros(width * len(nodes))
        row[width * k + np.array([2, 3, 6, 7])] = [-YIELD[0], -YIELD[1], -1.0, -1.0]
        more.append(row)
        least.append(-DEMAND)
    marginal_rows = len(equal)
    if targets is not None:
        for k, (_, t, _, _) in enumerate(nodes):
            for i in range(2):
                row = np.zeros(width * len(nodes))
                row[width * k + np.array([i, 8 + i, 10 + i])] = [1.0, 1.0, -1.0]
                equal.append(row)
                right.append(targets[t, i])
    answer = linprog(costs, np.array(more), least, np.array(equal), right, bounds)
    x = answer.x.reshape(len(nodes), width)
    penalties = penalty * x[:, 8:].sum()
    gradient = answer.eqlin.marginals[marginal_rows:].reshape(-1, 2)
    return answer.fun - penalties, penalties, gradient, x[-1, :2]


class TankEnv(gymnasium.Env[Any, Any]):
    """The tanks as an environment; the reward is minus the cost of the stage."""

    observation_space = spaces.Box(-10.0, 10.0, (5,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, reachable: bool = True) -> None:
        self.model = Tanks(reachable)

    def target_model(self) -> Tanks:
        return Tanks(self.model.reachable)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        key = counter_noise.draw_key(self.np_random)
        self.noise = self.model.draw(np.array([key]))
        self.features = self.model.features(self.noise)[:, 0]
        self.t, self.state = 0, self.model.initial_state
        return self._observation(), {"key": key}

    def _observation(self) -> npt.NDArray[np.float32]:
        seen = self.features[min(self.t, self.model.n_stages - 1)].copy()
        seen[:2] = self.state / self.model.state_unit
        return seen.astype(np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        fractions = (np.asarray(action, np.float64)[None] + 1.0) / 2.0
        after = self.model.reach(self.state[None], self.noise[self.t], fractions)
        cost, *_ = self.model.costs_and_gradients(self.state[None, None], self.noise[self.t][None], after[None])
        self.state, self.t = after[0], self.t + 1
        return self._observation(), -float(cost[0, 0]), self.t == self.model.n_stages, False, {}
