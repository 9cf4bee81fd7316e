"""Teachers and envs for the tests of snapshots."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from orl.common.action_masks import random_legal_actions
from orl.snapshot_rl import SnapshotSet, collect_snapshots

MUJOCO = [
    f"{name}-v5"
    for name in (
        "Hopper",
        "Walker2d",
        "HalfCheetah",
        "Swimmer",
        "Ant",
        "Humanoid",
        "HumanoidStandup",
        "InvertedDoublePendulum",
    )
]


class RandomTeacher:
    """Random legal actions of an env."""

    def __init__(self, env: Any, seed: int = 0) -> None:
        self.env, self.rng = env, np.random.default_rng(seed)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        return random_action(self.env, self.rng), None


def random_action(env: Any, rng: np.random.Generator) -> Any:
    if env.has_wrapper_attr("action_masks"):
        return random_legal_actions(env.action_space, env.get_wrapper_attr("action_masks")()[None], rng)[0]
    env.action_space.seed(int(rng.integers(2**31)))
    return env.action_space.sample()


def snapshots_of(id: str, n_episodes: int = 3, interval: int = 3, **kwargs: Any) -> SnapshotSet:
    """What a random teacher passes through in an env of that id."""
    env = gymnasium.make(id, **kwargs)
    return collect_snapshots(RandomTeacher(env), env, n_episodes=n_episodes, interval=interval, seed=0)


class CountingEnv(gymnasium.Env[Any, Any]):
    """Shows how many steps the episode has, and a number that was drawn at its start; never ends by itself.

    Rewards are the action plus noise from ``np_random``. It can give and take its state.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(3)

    def __init__(self, ends_after: int | None = None) -> None:
        self.ends_after = ends_after
        self.steps, self.name, self.resets = 0, 0.0, 0

    def _observe(self) -> Any:
        return np.array([self.steps, self.name])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.name, self.resets = 0, float(self.np_random.random()), self.resets + 1
        return self._observe(), {"resets": self.resets}

    def step(self, action: Any) -> Any:
        self.steps += 1
        reward = float(action) + float(self.np_random.random())
        return self._observe(), reward, self.steps == self.ends_after, False, {}

    def get_state(self) -> Any:
        return {"steps": self.steps, "name": self.name, "stream": self.np_random.bit_generator.state}

    def set_state(self, state: Any) -> Any:
        self.steps, self.name = state["steps"], state["name"]
        self.np_random.bit_generator.state = state["stream"]
        return self._observe()


def counting_snapshots(n: int = 30, ends_after: int | None = None) -> SnapshotSet:
    """A snapshot of each of the first ``n`` steps of one episode."""
    env = gymnasium.wrappers.TimeLimit(CountingEnv(ends_after), n)
    return collect_snapshots(RandomTeacher(env), env, n_episodes=1, interval=1, seed=0)


class ForgetfulEnv(CountingEnv):
    """Its state leaves out the stream that it draws from."""

    def get_state(self) -> Any:
        return {"steps": self.steps, "name": self.name}

    def set_state(self, state: Any) -> Any:
        self.steps, self.name = state["steps"], state["name"]
        return self._observe()


class LiveEnv(CountingEnv):
    """Hands out the array that it goes on with."""

    def __init__(self) -> None:
        super().__init__()
        self.level = np.zeros(1)

    def step(self, action: Any) -> Any:
        self.level += 1.0
        return super().step(action)

    def get_state(self) -> Any:
        return super().get_state() | {"level": self.level}


class PlainEnv(gymnasium.Env[Any, Any]):
    """Can only be copied; the noise of its rewards comes from the stream that is named."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, stream: str = "own") -> None:
        self.stream, self.position, self.itself = stream, np.zeros(3, np.float32), self
        self.callbacks = {"noise": self.noise}

    def noise(self) -> float:
        if self.stream == "own":
            return float(self.np_random.normal())
        if self.stream == "random":
            return random.gauss(0.0, 1.0)
        return float(np.random.normal())  # noqa: NPY002

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=3).astype(np.float32)
        return self.position.copy(), {}

    def step(self, action: Any) -> Any:
        self.itself.position += np.float32(0.1) * action
        reward = float(self.position.sum()) + self.noise()
        return self.position.copy(), reward, bool(abs(self.position[0]) > 4.0), False, {"where": self.position.copy()}
