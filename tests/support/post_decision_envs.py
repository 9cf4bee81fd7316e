"""A tiny inventory with post-decision data for tests, and ways in which such an env can be wrong."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

CAP, LARGEST_ORDER, HORIZON = 5, 3, 7


class Shelf(gymnasium.Env[Any, Any]):
    """Order 0..3 units at 0.5 each, then 0..2 units are asked for: each one sold gives 1; stock above 5 is lost.

    State (stock, period), observed as [stock, 2], or as a Dict with ``dict_observation``. A demand that meets an empty
    shelf ends the episode (stock -1); otherwise it is cut after ``horizon`` periods.
    """

    def __init__(self, infos: str = "lean", horizon: int = HORIZON, dict_observation: bool = False) -> None:
        self._dict = dict_observation
        self.observation_space = self._space(CAP)
        self.post_decision_space = self._space(CAP + LARGEST_ORDER)
        self.action_space = spaces.Discrete(LARGEST_ORDER + 1)
        self.horizon = horizon
        self._full = infos == "full"
        self.stock, self.period = 0, 0
        self.post_decision_observation: Any = None
        self.reward_deterministic: Any = None
        self.reward_stochastic: Any = None

    def _space(self, high: float) -> spaces.Space[Any]:
        box = spaces.Box(-1.0, high, (2,), np.float32)
        return spaces.Dict({"stock": box, "empty": spaces.Box(0.0, 1.0, (1,), np.float32)}) if self._dict else box

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.stock, self.period = int(self.np_random.integers(CAP)), 0
        return self.observe(self.current_state()), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        post, deterministic = self.post_decision(self.current_state(), action)
        (self.stock, self.period), stochastic = self.sample_exogenous(post, self.np_random)
        self.post_decision_observation = self.observe_post_decision(post)
        self.reward_deterministic, self.reward_stochastic = deterministic, stochastic
        info: dict[str, Any] = {}
        if self._full:
            names = ("post_decision_observation", "reward_deterministic", "reward_stochastic")
            info = {name: getattr(self, name) for name in names}
        state = self.current_state()
        truncated = self.period >= self.horizon
        return self.observe(state), deterministic + stochastic, self.is_terminal(state), truncated, info

    def current_state(self) -> tuple[int, int]:
        return self.stock, self.period

    def post_decision(self, state: tuple[int, int], action: Any) -> tuple[tuple[int, int], float]:
        return (state[0] + int(action), state[1]), -0.5 * int(action)

    def sample_exogenous(self, post_state: tuple[int, int], rng: np.random.Generator) -> tuple[tuple[int, int], float]:
        stock, period = post_state
        demand = int(rng.integers(3))
        sold = min(stock, demand)
        left = -1 if stock == 0 and demand > 0 else min(stock - sold, CAP)
        return (left, period + 1), float(sold)

    def is_terminal(self, state: tuple[int, int]) -> bool:
        return state[0] < 0

    def observe(self, state: tuple[int, int]) -> Any:
        stock = np.array([state[0], 2.0], np.float32)
        return {"stock": stock, "empty": np.array([state[0] <= 0], np.float32)} if self._dict else stock

    def observe_post_decision(self, post_state: tuple[int, int]) -> Any:
        return self.observe(post_state)


class AttributesOnly(gymnasium.Env[Any, Any]):
    """A shelf that shows the three attributes but has no pure functions."""

    def __init__(self) -> None:
        self._shelf = Shelf()
        self.observation_space, self.action_space = self._shelf.observation_space, self._shelf.action_space
        self.post_decision_space = self._shelf.post_decision_space
        self.post_decision_observation: Any = None
        self.reward_deterministic: Any = None
        self.reward_stochastic: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._shelf.reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self._shelf.step(action)
        self.post_decision_observation = self._shelf.post_decision_observation
        self.reward_deterministic = self._shelf.reward_deterministic
        self.reward_stochastic = self._shelf.reward_stochastic
        return result


class InfosOnly(gymnasium.Env[Any, Any]):
    """A shelf that tells its post-decision data in infos alone."""

    def __init__(self, horizon: int = HORIZON) -> None:
        self._shelf = Shelf(infos="full", horizon=horizon)
        self.observation_space, self.action_space = self._shelf.observation_space, self._shelf.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._shelf.reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._shelf.step(action)


# ---- wrong in one way each ------------------------------------------------------------------------------------------
class OutsideItsSpace(Shelf):
    def __init__(self) -> None:
        super().__init__()
        self.post_decision_space = self.observation_space


class OtherLayout(Shelf):
    def __init__(self) -> None:
        super().__init__()
        self.post_decision_space = spaces.Box(-1.0, 99.0, (3,), np.float32)


class SharesThatDoNotAddUp(Shelf):
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward - 0.01, terminated, truncated, info


class OneBufferForAll(Shelf):
    def __init__(self) -> None:
        super().__init__()
        self._buffer = np.zeros(2, np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = super().step(action)
        self._buffer[:] = self.post_decision_observation
        self.post_decision_observation = self._buffer
        return result


class ResetClears(Shelf):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.post_decision_observation is not None:
            self.post_decision_observation = np.zeros(2, np.float32)
        return super().reset(seed=seed, options=options)


class RandomDecision(Shelf):
    def post_decision(self, state: tuple[int, int], action: Any) -> tuple[tuple[int, int], float]:
        broken = int(self.np_random.integers(2))
        return (state[0] + int(action) * broken, state[1]), -0.5 * int(action)


class ForgetsTheOrder(Shelf):
    """The post-decision observation leaves the order out, on which the future depends."""

    def post_decision(self, state: tuple[int, int], action: Any) -> tuple[tuple[int, int, int], float]:
        return (state[0], int(action), state[1]), -0.5 * int(action)

    def sample_exogenous(self, post_state: Any, rng: np.random.Generator) -> tuple[tuple[int, int], float]:
        stock, order, period = post_state
        return super().sample_exogenous((stock + order, period), rng)


class OtherDraws(Shelf):
    """The model's demand is less than the one that comes."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._stepping = True
        result = super().step(action)
        self._stepping = False
        return result

    def sample_exogenous(self, post_state: tuple[int, int], rng: np.random.Generator) -> tuple[tuple[int, int], float]:
        if getattr(self, "_stepping", False) or rng.random() < 0.5:
            return super().sample_exogenous(post_state, rng)
        return (min(post_state[0], CAP), post_state[1] + 1), 0.0


class MutatesTheState(Shelf):
    def current_state(self) -> Any:
        return [self.stock, self.period]

    def post_decision(self, state: Any, action: Any) -> tuple[Any, float]:
        state[1] += 0 if int(action) == 0 else 1
        return (state[0] + int(action), state[1]), -0.5 * int(action)


class Endless(Shelf):
    """The model does not say when an episode terminates."""

    is_terminal = property()
