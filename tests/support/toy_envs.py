"""A small seeded env over any flat spaces, with action masks, terminations and time limits, for tests of algorithms."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

BOX = spaces.Box(-1.0, 1.0, (5,), np.float32)
DOUBLE_BOX = spaces.Box(-10.0, 10.0, (2, 3), np.float64)
THREE_WAYS = spaces.Discrete(3)
MIXED = spaces.Dict({"level": BOX, "place": spaces.MultiDiscrete([2, 3]), "kind": spaces.Discrete(4)})


class ToyEnv(gymnasium.Env[Any, Any]):
    """Observations are noise from the env's own generator, so that rounding in an action cannot grow into another run.

    The reward tells actions and masks apart; an episode ends by chance (termination) or after 12 steps (truncation).
    """

    def __init__(
        self, observation_space: spaces.Space[Any] = BOX, action_space: spaces.Space[Any] = THREE_WAYS
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self._elapsed = 0
        self._masks = np.ones(0, np.bool_)

    def _observe(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self._masks = self._draw_masks()
        return self.observation_space.sample()

    def _draw_masks(self) -> npt.NDArray[np.bool_]:
        masks = []
        for size in _sizes(self.action_space):
            mask = self.np_random.random(size) < 0.5
            mask[self.np_random.integers(size)] = True
            masks.append(mask)
        return np.concatenate(masks) if masks else np.ones(0, np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._elapsed = 0
        return self._observe(), {"fresh": True}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._elapsed += 1
        reward = float(np.cos(np.sum(action))) + 0.1 * float(self.np_random.normal())
        terminated = bool(self.np_random.random() < 0.06)
        truncated = self._elapsed >= 12
        return self._observe(), reward, terminated, truncated, {"elapsed": self._elapsed}

    def action_masks(self) -> npt.NDArray[np.bool_]:
        return self._masks.copy()


class MaskedToyEnv(ToyEnv):
    """The same, raising on an illegal action."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        first = 0
        for size, choice in zip(_sizes(self.action_space), np.atleast_1d(action).tolist(), strict=True):
            if not self._masks[first + choice]:
                raise AssertionError(f"illegal choice {choice}")
            first += size
        return super().step(action)


def _sizes(space: spaces.Space[Any]) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(space.n)
    return []
