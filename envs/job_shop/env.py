"""The single shop-scheduling environment: a thin Gymnasium face over the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from operator import index
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.illegal_actions import MaskWatch
from orl.common.protocols import IllegalActions
from orl.common.reset_options import refuse_unknown_options
from orl.envs.job_shop.arena import ILLEGAL
from orl.envs.job_shop.batch import InstanceLike, Reward, Settings, ShopBatch, ShopState, require_render_mode
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.observation import Normalization, ObservationKind


class JobShopEnv(gymnasium.Env[Any, np.int64]):
    """Build a schedule in time order: at each step start one operation that can start now, or wait.

    Registered as ``orl/JobShop-v0``, ``orl/FlowShop-v0``, ``orl/OpenShop-v0`` and ``orl/FlexibleJobShop-v0``.

    **Action** ``Discrete(S + 1)``: slot ``line * max_modes + mode`` starts the next operation of that decision line
    (the job; in open shops the operation itself) in that mode at the current time; the last action is the no-op, which
    lets every available operation wait for the next event. ``action_masks()`` is bool[S + 1]; illegal actions follow
    ``illegal``, remapping to the lowest legal action. In a terminal state only the no-op is marked.

    **Observation** (float32; times relative to now and divided by the mean duration):

    - ``"window"`` (default): Dict with ``interval_rep`` [L, W, 4] (fixed, start, duration, next), ``index_interval``,
      ``start_end_tokens``, ``attention_interval_mask`` [L, W] and ``next_machine`` MultiDiscrete[S];
    - ``"compact"``: Box [S * 9], the features of ``orl.envs.job_shop.observation.COMPACT_FEATURES`` slot by slot;
    - ``"graph"``: Dict with ``node_features`` [N, 7] and ``edge_index`` [2, arcs + N] (-1: unused).

    **Reward** (maximised): ``"lower_bound"``: decrease of the lower bound over LB_0, so that the undiscounted return is
    (LB_0 - objective) / LB_0; ``"makespan"``: -objective / LB_0 at the end; ``"idle"``: duration of the started
    operation minus machine time left idle, over the longest duration.

    **Episode end**: ``terminated`` when every operation has been started (or at a dead end: a missed deadline, or
    propagation level 2 proving that nothing better than ``upper_bound`` is left); never truncated. The terminal info
    holds ``objective``, ``bound``, ``solution`` (a Schedule), ``makespan``, ``lb0``, ``best_known``, ``gap``,
    ``pruned`` and ``illegal_actions``.

    Source: Tassel, Gebser, Schekotihin (ICAPS 2023) for the MDP and the window; see docs/reference/job_shop.md.

    Args:
        instance: Library name, path, ShopInstance, ``callable(rng) -> ShopInstance``, or a list of these from which
            each episode draws.
        observation: See above.
        window: W, operations of a line shown by the window.
        reward: See above.
        noop: Whether waiting is allowed; without it only non-delay schedules can be built.
        symmetry_breaking: Hide actions that only permute simultaneous starts or identical jobs.
        propagation: 0: closed form; 1: machine bounds join the lower bound; 2: also prune with ``upper_bound``.
        upper_bound: With ``propagation=2``: the makespan to beat.
        normalization: ``"reference"`` reproduces job-shop-cp-env's (faulty) one, for its published weights.
        illegal: ``"raise"`` IllegalActionError, ``"remap"``, or ``"count"`` (remap and count).
        observe_mask: Add ``action_mask`` (MultiBinary) to the observation.
        observe_resource_mask: Add ``job_resource_mask`` [S + 1, S + 1] to the window.
        infos: ``"full"`` adds clock and bound to every step's info.
        pad_to: An instance whose sizes the spaces must hold too.
        render_mode: ``"rgb_array"``: ``render()`` draws the Gantt chart so far.

    >>> env = JobShopEnv("ft06")
    >>> obs, info = env.reset(seed=0)
    >>> done = False
    >>> while not done:
    ...     obs, reward, done, _, info = env.step(int(env.action_masks().argmax()))
    >>> env.instance.check(info["solution"]).feasible
    True
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
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
        illegal: IllegalActions = "raise",
        observe_mask: bool = False,
        observe_resource_mask: bool = False,
        infos: Literal["lean", "full"] = "lean",
        pad_to: ShopInstance | None = None,
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
        self.batch = ShopBatch(1, instance, settings, pad_to)
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        require_render_mode(render_mode)
        self.render_mode = render_mode
        self._actions = np.zeros(1, np.int64)
        self._dict = isinstance(self.observation_space, gymnasium.spaces.Dict)
        self._full = infos == "full"
        self._strict = illegal == "raise"
        self._watch = MaskWatch()

    @property
    def instance(self) -> ShopInstance:
        """The instance of the current episode."""
        return self.batch.instance(0)

    @property
    def illegal_actions(self) -> int:
        """Illegal actions replaced in the current episode."""
        return int(self.batch.arena.clock[0, ILLEGAL])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; a seed fixes every later draw of instances."""
        refuse_unknown_options(options)
        super().reset(seed=seed)
        self.batch.draw(0, self.np_random)
        self.batch.reset(self.batch.everyone)
        self._watch.reset()
        return self._observation(), self.batch.step_info(0) if self._full else {}

    def step(self, action: int | np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Start an operation or wait; see the class for the returned values."""
        batch = self.batch
        if batch.terminated[0]:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        try:
            self._actions[0] = index(action)
        except TypeError:
            raise InputError("bad action", field="action", value=action, expected="an integer") from None
        batch.step(self._actions, batch.everyone)
        done = bool(batch.terminated[0])
        info = batch.step_info(0) if self._full else {}
        if done:
            info.update(batch.terminal_info(0))
        if not self._strict:
            self._watch.check(self.illegal_actions)
        return self._observation(), float(batch.reward[0]), done, False, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """bool[S + 1], True where the action is legal."""
        self._watch.seen = True
        return self.batch.arena.mask[0].copy()

    def schedule(self) -> Schedule:
        """The schedule so far (start -1: not yet started)."""
        return self.batch.schedule(0)

    def get_state(self) -> ShopState:
        """Exact snapshot of the episode; independent of later steps, picklable."""
        return self.batch.get_state(0)

    def set_state(self, state: ShopState) -> Any:
        """Restore a snapshot and return its observation."""
        self.batch.set_state(0, state)
        return self._observation()

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The Gantt chart so far as uint8[H, W, 3] (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.job_shop.viewer import gantt_rgb

        return gantt_rgb(self.instance, self.schedule())

    def _observation(self) -> Any:
        chosen = {key: buffer.copy() for key, buffer in self._views.items()}
        return chosen if self._dict else chosen["slots"]

    @cached_property
    def _views(self) -> dict[str, npt.NDArray[Any]]:
        """The first (only) row of every observation buffer."""
        return {key: self.batch.buffers[key][0] for key in self.batch.keys}

    def __getstate__(self) -> dict[str, Any]:
        """Views are left out: a copy must look at its own buffers."""
        return {key: value for key, value in self.__dict__.items() if key != "_views"}
