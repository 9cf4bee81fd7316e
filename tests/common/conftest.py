"""A small masked env with the contracts of orl, alone and as a native batch, and ways to break it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from orl.common import counter_noise
from orl.common.errors import IllegalActionError
from orl.common.illegal_actions import MaskWatch

CELLS = 5


class Walk(gymnasium.Env):
    """Walk on cells 0..4; the walls mask left or right. Reward: noise plus the cell. Ends after 3 to 9 steps."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, illegal: str = "raise", observation: str = "box", render_mode: str | None = None) -> None:
        self.batch = WalkBatch(1, illegal=illegal, observation=observation, autoreset_mode=AutoresetMode.DISABLED)
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.batch.generators[0] = self.np_random
        obs, _ = self.batch.reset()
        return self._one(obs), {}

    def step(self, action: int):
        obs, rewards, terminated, truncated, infos = self.batch.step(np.array([action]))
        info = {"objective": infos["objective"][0]} if terminated[0] else {}
        return self._one(obs), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def action_masks(self):
        return self.batch.action_masks()[0]

    def render(self):
        return np.full((8, 8, 3), 30 * self.batch.cell[0], np.uint8)

    def _one(self, obs):
        return {k: v[0] for k, v in obs.items()} if isinstance(obs, dict) else obs[0]


class WalkBatch(VectorEnv):
    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        *,
        illegal: str = "count",
        observation: str = "box",
        infos: str = "lean",
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        copy: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs, self.illegal, self.kind, self.infos, self.copy = num_envs, illegal, observation, infos, copy
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.max_episode_steps, self.render_mode = max_episode_steps, render_mode
        box = spaces.Box(-10, 10, (3,), np.float32)
        self.single_observation_space = {
            "box": box,
            "dict": spaces.Dict(place=box, cell=spaces.Discrete(CELLS)),
            "discrete": spaces.Discrete(CELLS),
        }[observation]
        self.single_action_space = spaces.Discrete(3)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generators = [np.random.default_rng() for _ in range(num_envs)]
        self.cell, self.time, self.length = (np.zeros(num_envs, np.int64) for _ in range(3))
        self.total = np.zeros(num_envs)
        self.key = np.zeros(num_envs, np.uint64)
        self.over = np.zeros(num_envs, np.bool_)
        self.illegal_actions = np.zeros(num_envs, np.int64)
        self._illegal = np.zeros(num_envs, np.int64)
        self.buffer = np.zeros((num_envs, 3), np.float32)
        self.watch = MaskWatch()
        self.last_options: Any = None
        self.speed = 1.0

    def reset(self, *, seed=None, options=None):
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, np.bool_))
        self.last_options = options
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)] if not isinstance(seed, list) else seed
        )
        for i in np.flatnonzero(mask):
            if seeds[i] is not None:
                self.generators[i] = gymnasium.utils.seeding.np_random(seeds[i])[0]
        self.watch.reset()
        self.restart(mask, options.get("cell"))
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(mask):
            infos = self._add_info(infos, {"start": int(self.cell[i])}, i)
        return self.observe(), infos

    def restart(self, mask, cell=None) -> None:
        for i in np.flatnonzero(mask):
            self.key[i] = counter_noise.draw_key(self.generators[i])
            self.length[i] = 3 + counter_noise.integers(7, self.key[i], 0, item=1)
        self.time[mask], self.total[mask], self.over[mask], self._illegal[mask] = 0, 0.0, False, 0
        self.cell[mask] = 2 if cell is None else cell

    def step(self, actions):
        restarted = self.over.copy()
        assert self.autoreset_mode is not AutoresetMode.DISABLED or not restarted.any()
        if restarted.any():
            self.restart(restarted)
        active = ~restarted
        actions = np.where(active, actions, 1)
        illegal = ~np.take_along_axis(self.legal(), actions[:, None], 1)[:, 0]
        if illegal.any() and self.illegal == "raise":
            raise IllegalActionError(f"copies {np.flatnonzero(illegal)}: the wall")
        self._illegal += illegal
        self.illegal_actions = self._illegal.copy()
        if self.illegal == "count":
            self.watch.check(int(illegal.sum()))
        actions = np.where(illegal, 1, actions)
        self.cell[active] += actions[active] - 1
        self.time[active] += 1
        rewards = np.where(active, self.cell + counter_noise.uniform(self.key, self.time), 0.0) * self.speed
        self.total += rewards
        terminated = active & (self.time >= self.length)
        truncated = np.zeros(self.num_envs, np.bool_)
        if self.max_episode_steps is not None:
            truncated = active & ~terminated & (self.time >= self.max_episode_steps)
        ended, infos = terminated | truncated, {}
        if self.infos == "full":
            for i in range(self.num_envs):
                infos = self._add_info(infos, {"clock": int(self.time[i])}, i)
        infos = self.finish(ended, infos)
        return self.observe(), rewards, terminated, truncated, infos

    def finish(self, ended, infos):
        obs = self.observe() if ended.any() else None
        for i in np.flatnonzero(ended):
            info: dict[str, Any] = {"objective": -self.total[i], "illegal_actions": int(self._illegal[i])}
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                one = {k: v[i] for k, v in obs.items()} if isinstance(obs, dict) else obs[i]
                info = {"final_obs": one, "final_info": info}
            infos = self._add_info(infos, info, i)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            self.restart(ended)
            for i in np.flatnonzero(ended):
                infos = self._add_info(infos, {"start": int(self.cell[i])}, i)
        elif ended.any():
            self.over |= ended
        return infos

    def legal(self):
        return np.stack([self.cell > 0, np.ones(self.num_envs, np.bool_), self.cell < CELLS - 1], axis=1)

    def action_masks(self):
        self.watch.seen = True
        return self.legal()

    def observe(self):
        self.buffer[:, 0], self.buffer[:, 1] = self.cell, self.time
        self.buffer[:, 2] = counter_noise.normal(self.key, self.time, item=2)
        np.clip(self.buffer, -10, 10, out=self.buffer)
        place = self.buffer.copy() if self.copy else self.buffer
        cell = self.cell.copy()
        return {"box": place, "dict": {"cell": cell, "place": place}, "discrete": cell}[self.kind]

    def get_state(self, i: int):
        return tuple(a[i].copy() for a in self._arrays())

    def set_state(self, i: int, state):
        for array, value in zip(self._arrays(), state, strict=True):
            array[i] = value
        obs = self.observe()
        return {k: v[i] for k, v in obs.items()} if isinstance(obs, dict) else obs[i].copy()

    def _arrays(self):
        return self.cell, self.time, self.length, self.total, self.key, self.over, self._illegal

    def place_of(self, i: int) -> int:
        return int(self.cell[i])

    def render(self):
        return tuple(np.full((8, 8, 3), 30 * c, np.uint8) for c in self.cell)


@pytest.fixture
def walk():
    """The classes, and their Gymnasium id ``test/Walk-v0``."""
    if "test/Walk-v0" not in gymnasium.registry:
        gymnasium.register("test/Walk-v0", entry_point=Walk, vector_entry_point=WalkBatch)
    return SimpleNamespace(Env=Walk, Batch=WalkBatch, id="test/Walk-v0")
