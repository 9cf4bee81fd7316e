"""The native batched environment: the other thin face over the same kernel."""

from __future__ import annotations

from collections.abc import Sequence
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
    final_infos,
    info_columns,
    refuse_finished,
    require_sizes,
    seeded,
)
from orl.envs.lot_sizing.batch import (
    RESET_OPTIONS,
    TERMINAL_KEYS,
    LotSizingBatch,
    LotSizingState,
    Settings,
    TimeLimit,
)
from orl.envs.lot_sizing.env import require_render_mode
from orl.envs.lot_sizing.instance import Floats, Incompatible, Init, LotSizingInstance, LotSizingPlan
from orl.envs.lot_sizing.instance_source import InstanceLike
from orl.envs.lot_sizing.observation import ObservationKind


class LotSizingVectorEnv(VectorEnv[Any, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """N copies of :class:`orl.envs.lot_sizing.env.LotSizingEnv` stepped by one kernel call.

    Actions int64[N, M]; observations, rewards float64[N] and flags bool[N] as in Gymnasium's vector API, with
    ``action_masks() -> bool[N, M * (I + 1)]``. A seed s gives copy i what the single env gives for s + i.

    Side channels, valid after a step and describing that step also where copies were reset in it:
    ``post_decision_observation`` [N, ...], ``reward_deterministic`` and ``reward_stochastic`` float64[N],
    ``illegal_actions`` int64[N]. ``post_decision_space`` is the space of one copy. Copies that only restarted in a step
    (NEXT_STEP) keep the post-decision state of their last decision, with rewards 0.

    Args:
        num_envs: N.
        autoreset_mode: SAME_STEP (default), NEXT_STEP or DISABLED; ``reset(options={"reset_mask": bool[N]})`` resets
            the marked copies in every mode. The options ``inventory``, ``setup`` and ``demand_path`` of the single env
            may have a leading axis N.
        max_episode_steps: Truncate episodes after so many steps.
        copy: False hands out the env's own buffers, overwritten by the next step, as observations.
        render_mode: ``"rgb_array"``: ``render()`` returns one picture a copy.
        instance, observation, ...: As in the single env; ``illegal`` defaults to ``"count"``.

    >>> envs = LotSizingVectorEnv(3, "ls-4x2")
    >>> obs, infos = envs.reset(seed=0)
    >>> obs, rewards, terminated, truncated, infos = envs.step(np.array([[1, 2], [0, 0], [3, 3]]))
    >>> next_obs, stochastic, ended = envs.exogenous_samples(8)
    >>> next_obs.shape, bool((envs.reward_deterministic + envs.reward_stochastic == rewards).all())
    ((3, 8, 14), True)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        instance: InstanceLike | Sequence[InstanceLike] = "ls-4x2",
        *,
        observation: ObservationKind = "flat",
        append_time: bool = False,
        init: Init = "random",
        incompatible: Incompatible = "mask",
        exclusive_items: bool = False,
        time_limit: TimeLimit = "truncate",
        reward_scale: float = 1.0,
        illegal: IllegalActions = "count",
        infos: Literal["lean", "full"] = "lean",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        copy: bool = True,
        render_mode: str | None = None,
    ) -> None:
        settings = Settings(
            observation=observation,
            append_time=append_time,
            init=init,
            incompatible=incompatible,
            exclusive_items=exclusive_items,
            time_limit=time_limit,
            reward_scale=reward_scale,
            illegal=illegal,
            infos=infos,
        )
        require_sizes(num_envs, max_episode_steps)
        require_render_mode(render_mode)
        self.num_envs = num_envs
        self.batch = LotSizingBatch(num_envs, instance, settings)
        self.autoreset_mode = autoreset_mode_of(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.max_episode_steps = max_episode_steps
        self.copy = copy
        self.render_mode = render_mode
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = self.batch.action_space
        self.post_decision_space = self.batch.post_decision_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.illegal_actions = np.zeros(num_envs, np.int64)
        self._generators: list[np.random.Generator] = []
        self._over = np.zeros(num_envs, np.bool_)
        self._any_over = False
        self._watch = MaskWatch()
        self._full, self._terminal = infos == "full", time_limit == "terminal"

    @property
    def instances(self) -> list[LotSizingInstance]:
        """The instance each copy plays."""
        return [self.batch.instance(b) for b in range(self.num_envs)]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all copies, or in those marked by ``options["reset_mask"]``; seeds apply to the marked."""
        which = copies_to_reset(options, self.num_envs, started=bool(self._generators), known=RESET_OPTIONS)
        self._generators = seeded(self._generators, seed, which)
        self._restart(which, options)
        self._watch.reset()
        return self._observation(), {}

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Step every copy with actions int[N, M]; finished copies follow the autoreset mode."""
        batch = self.batch
        actions = np.asarray(actions)
        if actions.shape != batch.actions.shape or actions.dtype.kind not in "iu":
            found = f"{actions.dtype}{list(actions.shape)}"
            raise InputError("bad actions", field="actions", value=found, expected=f"int64{list(batch.actions.shape)}")
        if not self._generators:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        batch.actions[...] = actions
        active = batch.everyone
        if self._any_over:
            active = self._restart_finished()
        batch.step(batch.actions, active)
        self.illegal_actions = batch.illegal.copy()
        over, never = batch.over.copy(), np.zeros(self.num_envs, np.bool_)
        terminated, truncated = (over, never) if self._terminal else (never, over)
        if self.max_episode_steps is not None:
            truncated = truncated | (~terminated & (batch.period >= self.max_episode_steps))
            over = terminated | truncated
        rewards = batch.rewards[0].copy()
        infos: dict[str, Any] = {}
        if self._full:
            self._report(infos, batch.step_columns(), active)
        if over.any():
            infos = self._finish(over, infos)
        return self._observation(), rewards, terminated, truncated, infos

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """bool[N, M * (I + 1)], True where the action is legal."""
        self._watch.seen = True
        return self.batch.masks()

    # ---- the decision and demand ---------------------------------------------------------------------------------
    @property
    def post_decision_observation(self) -> Any:
        """Observations [N, ...] of the post-decision states of the last step (fresh copies); None before the first."""
        batch = self.batch
        return batch.shaped(batch.post_observations.copy(), batch.post_setup.copy()) if batch.stepped else None

    @property
    def reward_deterministic(self) -> Floats | None:
        """float64[N], the shares of the last rewards that the decisions fixed; None before the first step."""
        return self.batch.rewards[1].copy() if self.batch.stepped else None

    @property
    def reward_stochastic(self) -> Floats | None:
        """float64[N], the shares of the last rewards that came with demand; None before the first step."""
        return self.batch.rewards[2].copy() if self.batch.stepped else None

    def exogenous_samples(self, n_samples: int) -> tuple[Any, Floats, npt.NDArray[np.bool_]]:
        """What else the last step could have led to: see :class:`orl.common.protocols.ExogenousSampler`.

        Demand is drawn from the instances' distributions, also where the demand that happens is prescribed.
        """
        return self.batch.exogenous_samples(n_samples)

    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Any, Floats, Any, Floats, npt.NDArray[np.bool_]]:
        """What candidates [N, A, M] would lead to: see :class:`orl.common.protocols.ExogenousSampler`."""
        return self.batch.simulate_decisions(actions, n_samples)

    # ---- snapshots and pictures ----------------------------------------------------------------------------------
    def plan(self, i: int) -> LotSizingPlan:
        """What was done and what demand came in the episode of copy ``i`` so far."""
        return self.batch.plan(i)

    def get_state(self, i: int) -> LotSizingState:
        """Exact snapshot of copy ``i``."""
        return self.batch.get_state(i)

    def set_state(self, i: int, state: LotSizingState) -> Any:
        """Restore a snapshot into copy ``i``; returns its single observation."""
        self.batch.set_state(i, state)
        self._over[i] = self.batch.over[i]
        self._any_over = bool(self._over.any())
        self._generators = seeded(self._generators, None, self.batch.everyone)
        return self._single_observation(i)

    def redrawn(self, state: LotSizingState, rng: np.random.Generator) -> LotSizingState:
        """The snapshot with the same past and the demand to come drawn anew."""
        return self.batch.redrawn(state, rng)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """One picture uint8[H, W, 3] a copy (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.lot_sizing.viewer import rgb

        return tuple(rgb(self.batch.instance(b), self.batch.plan(b)) for b in range(self.num_envs))

    # ---- episodes ------------------------------------------------------------------------------------------------
    def _restart(self, which: npt.NDArray[np.bool_], options: dict[str, Any] | None = None) -> None:
        self.batch.reset(which, self._generators, options)
        self._over[which] = False
        self._any_over = bool(self._over.any())

    def _restart_finished(self) -> npt.NDArray[np.bool_]:
        """Restart finished copies as NEXT_STEP says; returns the copies that take part in the step."""
        if self.autoreset_mode != AutoresetMode.NEXT_STEP:
            refuse_finished(self._over)
        restarted = self._over.copy()
        active = ~restarted
        self.batch.refuse_illegal(self.batch.actions, active)
        self._restart(restarted)
        return active

    def _finish(self, over: npt.NDArray[np.bool_], infos: dict[str, Any]) -> dict[str, Any]:
        """Report the copies that just ended and, in SAME_STEP mode, start their next episodes."""
        if not self._watch.seen and self.batch.settings.illegal != "raise":
            self._watch.check(int(self.illegal_actions.sum()))
        final_info = self._terminal_infos(over)
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over |= over
            self._any_over = True
            return infos | final_info
        last = map(self.batch.shaped, self.batch.observations[over], self.batch.setup[over])
        infos = final_infos(infos, final_info, last, over)
        self._restart(over)
        return infos

    def _terminal_infos(self, ended: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """End-of-episode keys of the marked copies as arrays [N], each with its mask ``_key``."""
        return info_columns(self.batch.terminal_columns(np.flatnonzero(ended).tolist()), TERMINAL_KEYS, ended)

    def _report(self, infos: dict[str, Any], columns: dict[str, Any], present: npt.NDArray[np.bool_]) -> None:
        for key, column in columns.items():
            infos[key], infos["_" + key] = column, present.copy()

    def _single_observation(self, b: int) -> Any:
        return self.batch.shaped(self.batch.observations[b].copy(), self.batch.setup[b].copy())

    def _observation(self) -> Any:
        """The batched observation: copies, or read-only views under ``copy=False``."""
        rows, setup = self.batch.observations, self.batch.setup
        if self.copy:
            return self.batch.shaped(rows.copy(), setup.copy())
        rows, setup = rows.view(), setup.view()
        rows.flags.writeable = setup.flags.writeable = False
        return self.batch.shaped(rows, setup)
