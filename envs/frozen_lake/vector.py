"""The native batch of lakes: the other thin face over the same kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from orl.common.errors import InputError
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
from orl.envs.frozen_lake.batch import (
    TERMINAL_KEYS,
    Infos,
    InstanceLike,
    LakeBatch,
    LakeState,
    Settings,
    TimeLimit,
    require_render_mode,
)
from orl.envs.frozen_lake.instance import LakeInstance
from orl.envs.frozen_lake.transition import N_ACTIONS, Reward

Flags = npt.NDArray[np.bool_]
Observations = npt.NDArray[np.float32]


class PostDecisionFrozenLakeVectorEnv(VectorEnv[Observations, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N copies of :class:`orl.envs.frozen_lake.env.PostDecisionFrozenLakeEnv` stepped by one kernel call.

    Actions int64[N], observations float32[N, D], rewards float64[N] and flags bool[N] as in Gymnasium's vector API. A
    seed s gives copy i what the single env gives for s + i. Side channels, valid after a step and left alone by resets
    (the reset steps of NEXT_STEP among them): ``post_decision_observation`` float32[N, D], ``reward_deterministic`` and
    ``reward_stochastic`` float64[N]; None before the first step. ``exogenous_samples`` and ``simulate_decisions`` draw
    the slips again (:class:`orl.common.protocols.ExogenousSampler`).

    Args:
        num_envs: N.
        autoreset_mode: SAME_STEP (default), NEXT_STEP or DISABLED; ``reset(options={"reset_mask": bool[N]})`` resets
            the marked copies in every mode.
        max_episode_steps: Truncate episodes after so many steps, if that is before the horizon.
        render_mode: ``"rgb_array"``: ``render()`` returns one picture a copy.
        instance, reward, ...: As in the single env; ``illegal`` defaults to ``"count"``.

    >>> envs = PostDecisionFrozenLakeVectorEnv(4, "lake-4x4")
    >>> obs, infos = envs.reset(seed=0)
    >>> obs, rewards, terminated, truncated, infos = envs.step(np.array([0, 1, 2, 3]))
    >>> envs.post_decision_observation.argmax(1).tolist()
    [0, 4, 1, 0]
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        instance: InstanceLike = "lake-10x10-1",
        *,
        reward: Reward | None = None,
        append_time: bool = False,
        time_limit: TimeLimit = "truncate",
        illegal: IllegalActions = "count",
        infos: Infos = "lean",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        settings = Settings(reward, append_time, time_limit, illegal, infos)
        require_sizes(num_envs, max_episode_steps)
        require_render_mode(render_mode)
        self.num_envs = num_envs
        self.batch = LakeBatch(num_envs, instance, settings)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.max_episode_steps, self.render_mode = max_episode_steps, render_mode
        self.single_observation_space = self.post_decision_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator] = []
        self._over = np.zeros(num_envs, np.bool_)
        self._full = infos == "full"

    @property
    def instances(self) -> list[LakeInstance]:
        """The instance each copy plays."""
        return [self.batch.lake] * self.num_envs

    @property
    def illegal_actions(self) -> npt.NDArray[np.int64]:
        """int64[N], always 0."""
        return np.zeros(self.num_envs, np.int64)

    @property
    def post_decision_observation(self) -> Observations | None:
        """float32[N, D] of each copy's last step."""
        return self.batch.post_observation() if self.batch.stepped else None

    @property
    def reward_deterministic(self) -> npt.NDArray[np.float64] | None:
        """float64[N], share of the last step's reward that the move settled."""
        return self.batch.deterministic.copy() if self.batch.stepped else None

    @property
    def reward_stochastic(self) -> npt.NDArray[np.float64] | None:
        """float64[N], the rest of that reward."""
        return self.batch.stochastic.copy() if self.batch.stepped else None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start episodes in all copies, or in those marked by ``options["reset_mask"]``; seeds apply to the marked."""
        which = copies_to_reset(options, self.num_envs, started=bool(self._generators))
        self._generators = seeded(self._generators, seed, which)
        self._restart(which)
        return self.batch.observation(), {}

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observations, npt.NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Step every copy; finished copies follow the autoreset mode."""
        batch = self.batch
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            found = f"{actions.dtype}{list(actions.shape)}"
            raise InputError("bad actions", field="actions", value=found, expected=f"int64[{self.num_envs}]")
        if not self._generators:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        active = batch.everyone
        if self._over.any():
            if self.autoreset_mode != AutoresetMode.NEXT_STEP:
                refuse_finished(self._over)
            active = ~self._over
        batch.step(actions.astype(np.int64, copy=False), active)
        self._restart(~active)
        terminated, truncated = (active & flags for flags in batch.ended())
        if self.max_episode_steps is not None:
            truncated |= active & ~terminated & (batch.period >= self.max_episode_steps)
        rewards = np.where(active, batch.reward, 0.0)
        infos = self._step_infos(active)
        over = terminated | truncated
        if over.any():
            infos = self._finish(over, infos)
        return batch.observation(), rewards, terminated, truncated, infos

    def action_masks(self) -> Flags:
        """bool[N, 4], all True."""
        return np.ones((self.num_envs, N_ACTIONS), np.bool_)

    def exogenous_samples(self, n_samples: int) -> tuple[Observations, npt.NDArray[np.float64], Flags]:
        """See :meth:`orl.common.protocols.ExogenousSampler.exogenous_samples`."""
        if not self.batch.stepped:
            raise gymnasium.error.ResetNeeded("call step() before exogenous_samples()")
        return self.batch.exogenous_samples(n_samples)

    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Observations, npt.NDArray[np.float64], Observations, npt.NDArray[np.float64], Flags]:
        """See :meth:`orl.common.protocols.ExogenousSampler.simulate_decisions`."""
        return self.batch.simulate_decisions(actions, n_samples)

    def get_state(self, i: int) -> LakeState:
        """Exact snapshot of copy ``i``."""
        return self.batch.get_state(i)

    def set_state(self, i: int, state: LakeState) -> Observations:
        """Restore a snapshot into copy ``i``; returns its single observation."""
        self.batch.set_state(i, state)
        self._over[i] = any(flags[i] for flags in self.batch.ended())
        self._generators = seeded(self._generators, None, self.batch.everyone)
        return self.batch.observation()[i]

    def redrawn(self, state: LakeState, rng: np.random.Generator) -> LakeState:
        """The snapshot with the same past and the slips to come drawn anew."""
        return self.batch.redrawn(state, rng)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """One picture uint8[H, W, 3] a copy (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.frozen_lake.viewer import lake_rgb

        return tuple(lake_rgb(self.batch.lake, self.batch.walk(b)) for b in range(self.num_envs))

    # ---- episodes ----------------------------------------------------------------------------------------------
    def _restart(self, which: Flags) -> None:
        for b in np.flatnonzero(which).tolist():
            self.batch.start(b, self._generators[b])
        self._over[which] = False

    def _step_infos(self, active: Flags) -> dict[str, Any]:
        """With ``infos="full"``: the post-decision data; the mask is False in a NEXT_STEP reset."""
        if not self._full:
            return {}
        infos: dict[str, Any] = {}
        for name in ("post_decision_observation", "reward_deterministic", "reward_stochastic"):
            infos[name], infos["_" + name] = getattr(self, name), active.copy()
        return infos

    def _finish(self, over: Flags, infos: dict[str, Any]) -> dict[str, Any]:
        """Report the copies that just ended and, in SAME_STEP mode, start their next episodes."""
        final_info = self._terminal_infos(over)
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over |= over
            return infos | final_info
        infos = final_infos(infos, final_info, self.batch.observation()[over], over)
        self._restart(over)
        return infos

    def _terminal_infos(self, ended: Flags) -> dict[str, Any]:
        """End-of-episode keys of the marked copies as arrays [N], each with its mask ``_key``."""
        rows = [self.batch.terminal_info(b) for b in np.flatnonzero(ended).tolist()]
        return info_columns({key: [row[key] for row in rows] for key in TERMINAL_KEYS}, TERMINAL_KEYS, ended)
