"""The native batched environment: the other thin face over the same kernel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from orl.common.errors import InputError
from orl.common.illegal_actions import MaskWatch
from orl.common.protocols import IllegalActions
from orl.common.vector_episodes import (
    autoreset_mode_of,
    copies_to_reset,
    info_columns,
    refuse_finished,
    require_sizes,
    seeded,
)
from orl.envs.job_shop.arena import ELAPSED, ILLEGAL
from orl.envs.job_shop.batch import (
    TERMINAL_KEYS,
    InstanceLike,
    Reward,
    Settings,
    ShopBatch,
    ShopState,
    require_render_mode,
)
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.observation import Normalization, ObservationKind


class JobShopVectorEnv(VectorEnv[Any, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N copies of :class:`orl.envs.job_shop.env.JobShopEnv` stepped by one kernel call.

    Actions int64[N]; observations, rewards float64[N] and flags bool[N] as in Gymnasium's vector API, with
    ``action_masks() -> bool[N, S + 1]`` and the side channel ``illegal_actions`` int64[N]. A seed s gives copy i what
    the single env gives for s + i.

    Args:
        num_envs: N.
        autoreset_mode: SAME_STEP (default), NEXT_STEP or DISABLED; ``reset(options={"reset_mask": bool[N]})`` resets
            the marked copies in every mode.
        max_episode_steps: Truncate episodes after so many steps.
        copy: False hands out the env's own buffers, overwritten by the next step.
        render_mode: ``"rgb_array"``: ``render()`` returns one Gantt chart a copy.
        instance, observation, ...: As in the single env; ``illegal`` defaults to ``"count"``.

    >>> envs = JobShopVectorEnv(4, "ft06")
    >>> obs, infos = envs.reset(seed=0)
    >>> obs, rewards, terminated, truncated, infos = envs.step(envs.action_masks().argmax(1))
    >>> rewards.shape
    (4,)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        instance: InstanceLike | Sequence[InstanceLike] = "ft06",
        *,
        observation: ObservationKind = "window",
        window: int = 5,
        reward: Reward = "lower_bound",
        noop: bool = True,
        symmetry_breaking: bool = False,
        propagation: int = 0,
        upper_bound: int | None = None,
        normalization: Normalization = "scale",
        illegal: IllegalActions = "count",
        observe_mask: bool = False,
        observe_resource_mask: bool = False,
        infos: Literal["lean", "full"] = "lean",
        pad_to: ShopInstance | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        copy: bool = True,
        render_mode: str | None = None,
    ) -> None:
        settings = Settings(
            observation=observation,
            window=window,
            reward=reward,
            noop=noop,
            symmetry_breaking=symmetry_breaking,
            propagation=propagation,
            upper_bound=upper_bound,
            normalization=normalization,
            illegal=illegal,
            observe_mask=observe_mask,
            observe_resource_mask=observe_resource_mask,
            infos=infos,
        )
        require_sizes(num_envs, max_episode_steps)
        self.num_envs = num_envs
        self.batch = ShopBatch(num_envs, instance, settings, pad_to)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        require_render_mode(render_mode)
        self.max_episode_steps = max_episode_steps
        self.copy = copy
        self.render_mode = render_mode
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator] = []
        self.illegal_actions = np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, np.bool_)
        self._watch = MaskWatch()
        self._full = infos == "full"
        self._dict = isinstance(self.single_observation_space, gymnasium.spaces.Dict)

    @property
    def instances(self) -> list[ShopInstance]:
        """The instance each copy plays."""
        return [self.batch.instance(b) for b in range(self.num_envs)]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all copies, or in those marked by ``options["reset_mask"]``; seeds apply to the marked."""
        which = copies_to_reset(options, self.num_envs, started=bool(self._generators))
        self._generators = seeded(self._generators, seed, which)
        self._restart(which)
        self._watch.reset()
        infos: dict[str, Any] = {}
        if self._full:
            for b in np.flatnonzero(which).tolist():
                infos = self._add_info(infos, self.batch.step_info(b), b)
        return self._observation(), infos

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Step every copy; finished copies follow the autoreset mode."""
        batch = self.batch
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            found = f"{actions.dtype}{list(actions.shape)}"
            raise InputError("bad actions", field="actions", value=found, expected=f"int64[{self.num_envs}]")
        actions = actions.astype(np.int64, copy=False)
        if not self._generators:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        if self.autoreset_mode != AutoresetMode.SAME_STEP and self._over.any():
            if self.autoreset_mode == AutoresetMode.DISABLED:
                refuse_finished(self._over)
            restarted = self._over.copy()
            active = ~restarted
            batch.refuse_illegal(actions, active)
            self._restart(restarted)
        else:
            active = batch.everyone
        batch.step(actions, active)
        self.illegal_actions = batch.arena.clock[:, ILLEGAL].copy()
        if not self._watch.seen and batch.settings.illegal != "raise":
            self._watch.check(int(self.illegal_actions.sum()))
        reward, terminated = batch.reward.copy(), batch.terminated.copy()
        truncated, over = np.zeros(self.num_envs, np.bool_), terminated
        if self.max_episode_steps is not None:
            truncated = active & ~terminated & (batch.arena.clock[:, ELAPSED] >= self.max_episode_steps)
            over = terminated | truncated
        infos: dict[str, Any] = {}
        if self._full:
            for b in range(self.num_envs):
                infos = self._add_info(infos, batch.step_info(b), b)
        if over.any():
            infos = self._finish(over, infos)
        return self._observation(), reward, terminated, truncated, infos

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """bool[N, S + 1], True where the action is legal."""
        self._watch.seen = True
        return self.batch.arena.mask.copy()

    def schedule(self, i: int) -> Schedule:
        """The schedule of copy ``i`` so far (start -1: not yet started)."""
        return self.batch.schedule(i)

    def get_state(self, i: int) -> ShopState:
        """Exact snapshot of copy ``i``."""
        return self.batch.get_state(i)

    def set_state(self, i: int, state: ShopState) -> Any:
        """Restore a snapshot into copy ``i``; returns its single observation."""
        self.batch.set_state(i, state)
        self._over[i] = self.batch.terminated[i] and self.autoreset_mode != AutoresetMode.SAME_STEP
        self._generators = seeded(self._generators, None, self.batch.everyone)
        return self._single_observation(i)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """One Gantt chart uint8[H, W, 3] a copy (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.job_shop.viewer import gantt_rgb

        return tuple(gantt_rgb(self.batch.instance(b), self.batch.schedule(b)) for b in range(self.num_envs))

    # ---- episodes ----------------------------------------------------------------------------------------------
    def _restart(self, which: npt.NDArray[np.bool_]) -> None:
        for b in np.flatnonzero(which).tolist():
            self.batch.draw(b, self._generators[b])
        self.batch.reset(which)
        self._over[which] = False

    def _finish(self, over: npt.NDArray[np.bool_], infos: dict[str, Any]) -> dict[str, Any]:
        """Report the copies that just ended and, in SAME_STEP mode, start their next episodes."""
        final_info = self._terminal_infos(over)
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over |= over
            return infos | final_info
        final_obs = np.full(self.num_envs, None, object)
        for b in np.flatnonzero(over).tolist():
            final_obs[b] = self._single_observation(b)
            if self._full:
                final_info = self._add_info(final_info, self.batch.step_info(b), b)
        infos |= {"final_obs": final_obs, "_final_obs": over, "final_info": final_info, "_final_info": over}
        self._restart(over)
        if self._full:
            for b in np.flatnonzero(over).tolist():
                infos = self._add_info(infos, self.batch.step_info(b), b)
        return infos

    def _terminal_infos(self, ended: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """End-of-episode keys of the marked copies as arrays [N], each with its mask ``_key``."""
        rows = [self.batch.terminal_info(b) for b in np.flatnonzero(ended).tolist()]
        return info_columns({key: [row[key] for row in rows] for key in TERMINAL_KEYS}, TERMINAL_KEYS, ended)

    def _single_observation(self, b: int) -> Any:
        chosen = {key: self.batch.buffers[key][b].copy() for key in self.batch.keys}
        return chosen if self._dict else chosen["slots"]

    def _observation(self) -> Any:
        """The batched observation: copies, or read-only views under ``copy=False``."""
        if self.copy:
            chosen = {key: buffer.copy() for key, buffer in self._views.items()}
        else:
            chosen = dict(self._views)
        return chosen if self._dict else chosen["slots"]

    @cached_property
    def _views(self) -> dict[str, npt.NDArray[Any]]:
        """Read-only views of the observation buffers."""
        views = {key: self.batch.buffers[key].view() for key in self.batch.keys}
        for view in views.values():
            view.flags.writeable = False
        return views

    def __getstate__(self) -> dict[str, Any]:
        """Views are left out: a copy must look at its own buffers."""
        return {key: value for key, value in self.__dict__.items() if key != "_views"}
