"""The last frames of a single env stacked as SB3's VecFrameStack stacks them in training."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations


class FrameStack(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An env whose observation is the last ``frames`` observations, zeros before the first one.

    Args:
        env: With Box observations, or a Dict of them.
        frames: How many.

    >>> env = FrameStack(gymnasium.make("CartPole-v1"), 3)
    >>> env.reset(seed=0)[0].shape
    (12,)
    """

    def __init__(self, env: gymnasium.Env[Any, Any], frames: int) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        self.stack: StackedObservations[Any] = StackedObservations(1, frames, space)
        self.observation_space = self.stack.stacked_observation_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return _first(self.stack.reset(_batch(observation))), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        stacked, _ = self.stack.update(_batch(observation), np.zeros(1, np.bool_), [{}])
        return _first(stacked), reward, terminated, truncated, info


def _batch(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.asarray(value)[None] for key, value in observation.items()}
    return np.asarray(observation)[None]


def _first(stacked: Any) -> Any:
    if isinstance(stacked, dict):
        return {key: value[0].copy() for key, value in stacked.items()}
    return stacked[0].copy()
