"""Two shelves to stock, a small post-decision env for tests of algorithms: masks, Dicts, every kind of episode end."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

State = tuple[tuple[int, ...], int]


class TwoShelves(gymnasium.Env[Any, Any]):
    """Order 0..2 units for each of two shelves (0.3 a unit), then up to two units of each are asked for.

    A unit sold gives 1, one that is left costs 0.1; a shelf holds 4. The episode ends by chance (termination, part of
    the noise) with probability ``ends``, or after ``horizon`` periods (truncation). With ``masks`` only orders that
    fit on the shelf are legal, and others raise. Observations are noise-free: stocks over 4, and the period over the
    horizon.

    Args:
        demand: Constant demand of both items, None: uniform on {0, 1, 2}.
    """

    def __init__(
        self,
        masks: bool = False,
        dict_observation: bool = False,
        demand: int | None = None,
        ends: float = 0.1,
        horizon: int = 9,
        truncates: bool = True,
    ) -> None:
        self.masks, self.demand, self.ends, self.horizon = masks, demand, ends, horizon
        self._dict, self._truncates = dict_observation, truncates
        self.observation_space, self.post_decision_space = self._space(1.0), self._space(2.0)
        self.action_space = spaces.MultiDiscrete([3, 3])
        self.state: State = ((0, 0), 0)
        self.post_decision_observation: Any = None
        self.reward_deterministic: Any = None
        self.reward_stochastic: Any = None
        if masks:
            self.action_masks = self._action_masks

    def _space(self, high: float) -> spaces.Space[Any]:
        if not self._dict:
            return spaces.Box(0.0, high, (3,), np.float32)
        return spaces.Dict(
            {"stock": spaces.Box(0.0, high, (2,), np.float32), "time": spaces.Box(0.0, 1.0, (1,), np.float32)}
        )

    def _action_masks(self) -> npt.NDArray[np.bool_]:
        return np.concatenate([stock + np.arange(3) <= 4 for stock in self.state[0]])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = (tuple(self.np_random.integers(4, size=2).tolist()), 0)
        return self.observe(self.state), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.masks and not all(self._action_masks().reshape(2, 3)[np.arange(2), action]):
            raise AssertionError(f"illegal action {action}")
        post, deterministic = self.post_decision(self.state, action)
        self.state, stochastic = self.sample_exogenous(post, self.np_random)
        self.post_decision_observation = self.observe_post_decision(post)
        self.reward_deterministic, self.reward_stochastic = deterministic, stochastic
        cut = self._truncates and self.state[1] >= self.horizon
        ended = self.is_terminal(self.state)
        return self.observe(self.state), deterministic + stochastic, ended, cut and not ended, {}

    def current_state(self) -> State:
        return self.state

    def post_decision(self, state: State, action: Any) -> tuple[State, float]:
        orders = np.asarray(action).tolist()
        return (tuple(s + o for s, o in zip(state[0], orders, strict=True)), state[1]), -0.3 * sum(orders)

    def sample_exogenous(self, post_state: State, rng: np.random.Generator) -> tuple[State, float]:
        wanted = rng.integers(3, size=2).tolist() if self.demand is None else [self.demand] * 2
        left = [max(s - d, 0) for s, d in zip(post_state[0], wanted, strict=True)]
        sold = sum(post_state[0]) - sum(left)
        left = [min(s, 4) for s in left]
        period = post_state[1] + 1
        if rng.random() < self.ends or (not self._truncates and period >= self.horizon):
            period = -1
        return (tuple(left), period), sold - 0.1 * sum(left)

    def is_terminal(self, state: State) -> bool:
        return state[1] < 0

    def observe(self, state: State) -> Any:
        stock = np.array(state[0], np.float32) / 4
        time = np.array([max(state[1], 0) / self.horizon], np.float32)
        return {"stock": stock, "time": time} if self._dict else np.concatenate([stock, time])

    def observe_post_decision(self, post_state: State) -> Any:
        return self.observe(post_state)
