"""The native batched environment: the other thin face over the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from orl.common.protocols import IllegalActions
from orl.common.vector_episodes import (
    autoreset_mode_of,
    copies_to_reset,
    final_infos,
    info_columns,
    refuse_finished,
    require_sizes,
    seeded,
)
from orl.envs.hydrothermal.batch import (
    RESET_OPTIONS,
    TERMINAL_KEYS,
    ActionMode,
    Evaluator,
    HydrothermalBatch,
    HydrothermalState,
    InstanceLike,
    Settings,
    instance_of,
)
from orl.envs.hydrothermal.env import require_render_mode, target_model_of
from orl.envs.hydrothermal.instance import HydrothermalInstance, Network
from orl.envs.hydrothermal.observation import ObservationKind
from orl.envs.hydrothermal.plan import ReservoirPlan

if TYPE_CHECKING:
    from orl.envs.hydrothermal.target_model import HydrothermalTargets

Observations = npt.NDArray[np.float32]


class HydrothermalVectorEnv(VectorEnv[Observations, npt.NDArray[Any], npt.NDArray[Any]]):
    """N copies of :class:`orl.envs.hydrothermal.env.HydrothermalEnv`, whose stages are priced in one call.

    Actions float[N, n]; observations, rewards float64[N] and flags bool[N] as in Gymnasium's vector API. A seed s gives
    copy i what the single env gives for s + i. ``illegal_actions`` int64[N] counts those of the running episodes.

    Args:
        num_envs: N.
        autoreset_mode: SAME_STEP (default), NEXT_STEP or DISABLED; ``reset(options={"reset_mask": bool[N]})`` resets
            the marked copies in every mode. The options ``columns`` and ``volumes`` of the single env may have a
            leading axis N.
        max_episode_steps: Truncate episodes after so many steps.
        copy: False hands out the env's own buffer, overwritten by the next step, as observations.
        render_mode: ``"rgb_array"``: ``render()`` returns one picture a copy.
        instance, network, ...: As in the single env; ``illegal`` defaults to ``"count"``.

    >>> envs = HydrothermalVectorEnv(3, "tri3")
    >>> obs, infos = envs.reset(seed=0)
    >>> obs, rewards, terminated, truncated, infos = envs.step(np.zeros((3, 3)))
    >>> obs.shape, rewards.shape
    ((3, 9), (3,))
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        instance: InstanceLike = "tri3",
        *,
        network: Network | None = None,
        horizon: int | None = None,
        action_mode: ActionMode = "reach",
        observation: ObservationKind = "flat",
        evaluator: Evaluator = "pool",
        reward_scale: float = 1e-4,
        illegal: IllegalActions = "count",
        infos: Literal["lean", "full"] = "lean",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        copy: bool = True,
        render_mode: str | None = None,
    ) -> None:
        settings = Settings(
            action_mode=action_mode,
            observation=observation,
            evaluator=evaluator,
            reward_scale=reward_scale,
            illegal=illegal,
            infos=infos,
        )
        require_sizes(num_envs, max_episode_steps)
        require_render_mode(render_mode)
        self.num_envs = num_envs
        self.batch = HydrothermalBatch(num_envs, instance_of(instance, network, horizon), settings)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.max_episode_steps = max_episode_steps
        self.copy = copy
        self.render_mode = render_mode
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.illegal_actions = np.zeros(num_envs, np.int64)
        self._generators: list[np.random.Generator] = []
        self._over = np.zeros(num_envs, np.bool_)
        self._any_over = False
        self._full, self._reward_scale = infos == "full", float(reward_scale)

    @property
    def instance(self) -> HydrothermalInstance:
        """The instance, or scenario, that every copy plays."""
        return self.batch.problem

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Start episodes in all copies, or in those marked by ``options["reset_mask"]``; seeds apply to the marked."""
        which = copies_to_reset(options, self.num_envs, started=bool(self._generators), known=RESET_OPTIONS)
        self._generators = seeded(self._generators, seed, which)
        self._restart(which, options)
        return self._observation(), {}

    def step(
        self, actions: npt.NDArray[Any]
    ) -> tuple[Observations, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Step every copy with actions float[N, n]; finished copies follow the autoreset mode."""
        batch = self.batch
        chosen = batch.actions_of(actions, batch.volumes.shape)
        if not self._generators:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        active = batch.everyone
        if self._any_over:
            active = self._restart_finished(chosen)
        batch.step(chosen, active)
        self.illegal_actions = batch.illegal.copy()
        terminated, truncated = batch.over.copy(), np.zeros(self.num_envs, np.bool_)
        if self.max_episode_steps is not None:
            truncated = ~terminated & (batch.stage >= self.max_episode_steps)
        over = terminated | truncated
        rewards = 0.0 - batch.costs * self._reward_scale
        infos: dict[str, Any] = {}
        if self._full:
            for key, column in batch.step_columns(active).items():
                infos[key], infos["_" + key] = column, active.copy()
        if over.any():
            infos = self._finish(over, infos)
        return self._observation(), rewards, terminated, truncated, infos

    # ---- the problem behind the env ----------------------------------------------------------------------------------
    def target_model(self) -> HydrothermalTargets:
        """The problem as algorithms that learn targets see it; see the single env."""
        return target_model_of(self.batch)

    # ---- snapshots and pictures --------------------------------------------------------------------------------------
    def plan(self, i: int) -> ReservoirPlan:
        """What was done and which inflow columns came in the episode of copy ``i`` so far."""
        return self.batch.plan(i)

    def get_state(self, i: int) -> HydrothermalState:
        """Exact snapshot of copy ``i``."""
        return self.batch.get_state(i)

    def set_state(self, i: int, state: HydrothermalState) -> Observations:
        """Restore a snapshot into copy ``i``; returns its single observation."""
        self.batch.set_state(i, state)
        self._over[i] = self.batch.over[i]
        self._any_over = bool(self._over.any())
        self._generators = seeded(self._generators, None, self.batch.everyone)
        observed: Observations = self.batch.observations[i].copy()
        return observed

    def redrawn(self, state: HydrothermalState, rng: np.random.Generator) -> HydrothermalState:
        """The snapshot with the same past and the inflows to come drawn anew."""
        return self.batch.redrawn(state, rng)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """One picture uint8[H, W, 3] a copy (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.hydrothermal.viewer import rgb

        return tuple(rgb(self.instance, self.batch.plan(b)) for b in range(self.num_envs))

    # ---- episodes ----------------------------------------------------------------------------------------------------
    def _restart(self, which: npt.NDArray[np.bool_], options: dict[str, Any] | None = None) -> None:
        self.batch.reset(which, self._generators, options)
        self._over[which] = False
        self._any_over = bool(self._over.any())

    def _restart_finished(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Restart finished copies as NEXT_STEP says; returns the copies that take part in the step."""
        if self.autoreset_mode != AutoresetMode.NEXT_STEP:
            refuse_finished(self._over)
        restarted = self._over.copy()
        active = ~restarted
        self.batch.refuse_illegal(actions, active)
        self._restart(restarted)
        return active

    def _finish(self, over: npt.NDArray[np.bool_], infos: dict[str, Any]) -> dict[str, Any]:
        """Report the copies that just ended and, in SAME_STEP mode, start their next episodes."""
        final_info = info_columns(self.batch.terminal_columns(np.flatnonzero(over).tolist()), TERMINAL_KEYS, over)
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over |= over
            self._any_over = True
            return _merged(infos, final_info)
        infos = final_infos(infos, final_info, self.batch.observations[over], over)
        self._restart(over)
        return infos

    def _observation(self) -> Observations:
        """The batched observation: a copy, or a read-only view under ``copy=False``."""
        if self.copy:
            copied: Observations = self.batch.observations.copy()
            return copied
        rows: Observations = self.batch.observations.view()
        rows.flags.writeable = False
        return rows


def _merged(infos: dict[str, Any], final_info: dict[str, Any]) -> dict[str, Any]:
    """Infos of a step with those of the copies that ended; a key of both keeps the rows of the step."""
    return infos | {key: value for key, value in final_info.items() if key not in infos}
