"""SB3's DummyVecEnv without its copies.

DummyVecEnv deep-copies the observations and all infos at every step; LeanVecEnv writes observations once into a fresh
array and hands out a shallow copy of each info. Everything else is the same: seeds, options, ``reset_infos``,
``terminal_observation``, ``TimeLimit.truncated``, attributes and methods of the copies, wrappers on top.

>>> import gymnasium
>>> env = LeanVecEnv([lambda: gymnasium.make("CartPole-v1")] * 2, monitor=True)
>>> _ = env.seed(0)
>>> env.reset().shape
(2, 4)
>>> obs, rewards, dones, infos = env.step([0, 1])
>>> infos[0]
{'TimeLimit.truncated': False}
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from orl.common.batched_values import copy_tree


class LeanVecEnv(DummyVecEnv):
    """Several Gymnasium envs, stepped one after the other in this process.

    Args:
        env_fns: Functions that each make an env of its own, with the same spaces.
        monitor: Put episode statistics ``{"r": return, "l": length, "t": seconds since the start}`` into
            ``info["episode"]`` of last steps, like SB3's Monitor, which is then not needed; ``env_is_wrapped(Monitor)``
            answers True.

    Nested objects in an info (arrays, dicts) are handed out as the env made them, not copied; an env that changes such
    an object later should copy it itself.

    Raises:
        ValueError: Two functions return the same env.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]], monitor: bool = False) -> None:
        super().__init__(list(env_fns))
        self._monitor = monitor
        self._started = time.time()
        self._returns = [0.0] * self.num_envs
        self._lengths = [0] * self.num_envs
        space = self.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else None
        self._dict = parts is not None
        self._tuple = isinstance(space, spaces.Tuple)
        self._layout: dict[Any, tuple[Any, Any]] = {
            key: ((self.num_envs, *array.shape[1:]), array.dtype) for key, array in self.buf_obs.items()
        }
        self._only = self._layout.get(None)

    def step_wait(self) -> VecEnvStepReturn:
        if self._only is None:
            return self._step_parts()
        obs = np.empty(*self._only)
        rewards = np.empty(self.num_envs, np.float32)
        dones = np.zeros(self.num_envs, np.bool_)
        infos: list[dict[str, Any]] = []
        for i, env in enumerate(self.envs):
            row, reward, terminated, truncated, info = env.step(self.actions[i])
            info = dict(info)
            infos.append(info)
            info["TimeLimit.truncated"] = truncated and not terminated
            if self._monitor:
                self._returns[i] += float(reward)
                self._lengths[i] += 1
            rewards[i] = reward
            if terminated or truncated:
                dones[i] = True
                row = self._restart(i, row, info)
            obs[i] = row
        return obs, rewards, dones, infos

    def _step_parts(self) -> VecEnvStepReturn:
        """A step for Dict and Tuple observations."""
        parts = {key: np.empty(*layout) for key, layout in self._layout.items()}
        rewards = np.empty(self.num_envs, np.float32)
        dones = np.zeros(self.num_envs, np.bool_)
        infos: list[dict[str, Any]] = []
        for i, env in enumerate(self.envs):
            row, reward, terminated, truncated, info = env.step(self.actions[i])
            info = dict(info)
            infos.append(info)
            info["TimeLimit.truncated"] = truncated and not terminated
            if self._monitor:
                self._returns[i] += float(reward)
                self._lengths[i] += 1
            rewards[i] = reward
            if terminated or truncated:
                dones[i] = True
                row = self._restart(i, row, info)
            for key, part in parts.items():
                part[i] = row[key]
        obs: Any = tuple(parts[key] for key in self.keys) if self._tuple else parts
        return cast(VecEnvObs, obs), rewards, dones, infos

    def _restart(self, i: int, last: Any, info: dict[str, Any]) -> Any:
        """Note the end of copy i's episode in ``info`` and reset it; returns its first observation."""
        info["terminal_observation"] = copy_tree(last)
        if self._monitor:
            seconds = round(time.time() - self._started, 6)
            info["episode"] = {"r": round(self._returns[i], 6), "l": self._lengths[i], "t": seconds}
            self._returns[i], self._lengths[i] = 0.0, 0
        first, self.reset_infos[i] = self.envs[i].reset()
        return first

    def reset(self) -> VecEnvObs:
        self._returns = [0.0] * self.num_envs
        self._lengths = [0] * self.num_envs
        return super().reset()

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Masks of all copies, bool[N, A]. Raises AttributeError where the envs have none."""
        return np.stack([env.get_wrapper_attr("action_masks")() for env in self.envs])

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether each copy is wrapped in that class; Monitor counts as such with ``monitor=True``."""
        wrapped = super().env_is_wrapped(wrapper_class, indices)
        return [True] * len(wrapped) if self._monitor and issubclass(wrapper_class, Monitor) else wrapped
