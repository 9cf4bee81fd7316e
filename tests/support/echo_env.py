"""``Echo-v0``: ten steps, each asks for the action that the observation shows; learned in a second."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class Echo(gymnasium.Env):
    """``reward`` for the action that the one-hot observation names; a random policy earns 2.5 of 10."""

    metadata = {"render_modes": ["rgb_array"]}
    observation_space = spaces.Box(0, 1, (4,), np.float32)
    action_space = spaces.Discrete(4)

    def __init__(self, reward: float = 1.0, render_mode: str | None = None) -> None:
        self.reward, self.render_mode = reward, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 10
        return self._ask(), {}

    def _ask(self) -> np.ndarray:
        self.wanted = int(self.np_random.integers(4))
        return np.eye(4, dtype=np.float32)[self.wanted]

    def step(self, action):
        reward = self.reward * (int(action) == self.wanted)
        self.left -= 1
        return self._ask(), reward, self.left == 0, False, {}


if "Echo-v0" not in gymnasium.registry:
    gymnasium.register("Echo-v0", Echo)
