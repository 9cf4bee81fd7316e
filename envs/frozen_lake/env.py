"""The single slippery lake: a thin Gymnasium face over the kernel."""

from __future__ import annotations

from operator import index
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.protocols import IllegalActions
from orl.common.reset_options import refuse_unknown_options
from orl.envs.frozen_lake.batch import (
    Infos,
    InstanceLike,
    LakeBatch,
    LakeState,
    Settings,
    TimeLimit,
    require_render_mode,
)
from orl.envs.frozen_lake.instance import LakeInstance, LakeWalk
from orl.envs.frozen_lake.transition import N_ACTIONS, Reward, decide, outcome, realise

State = tuple[int, int]


class PostDecisionFrozenLakeEnv(gymnasium.Env[npt.NDArray[np.float32], np.int64]):
    """Walk over a frozen lake: each step a move with a known outcome, then perhaps a slip.

    Registered as ``orl/PostDecisionFrozenLake-v0``. The lake is that of the post-decision PPO experiments: the move
    always works (walls hold), then with probability 0.5 the walker slips by one tile in a direction drawn from the
    tile's own distribution.

    **Action** ``Discrete(4)``: 0 left, 1 down, 2 right, 3 up; all are legal everywhere.

    **Observation** ``Box(float32[S])``: one-hot tile, counted row by row; with ``append_time`` the share of the horizon
    that is over comes last.

    **Post-decision observation**: the tile that the move led to, in the same form (the time is that before the step);
    ``post_decision_space`` is the observation space. ``reward_deterministic`` is 1 / (1 + distance) of that tile,
    ``reward_stochastic`` the rest.

    **Reward** (maximised): ``"shaped"``: every arrival, of a move and of a slip, gives 1 / (1 + Manhattan distance to
    the goal), less 1 / (rows + columns) in a hole. It pays more to loiter near the goal than to reach it, so look at
    ``success``, too, and at the exact optimum (:mod:`orl.solvers.frozen_lake.dynamic_programming`). ``"sparse"``: 1 at
    the goal, 0 elsewhere, so that the return is the success.

    **Episode end**: ``terminated`` at the goal, or when a step leaves the walker in a hole (a slip may leave the hole
    that a move led into). ``truncated`` after the instance's horizon of 100 steps; with ``time_limit="terminal"`` that
    is ``terminated``, too, which suits ``append_time``. The terminal info holds ``objective`` (the negative return),
    ``bound`` (no walk is better), ``solution`` (a LakeWalk), ``success`` and ``illegal_actions`` (always 0).

    Source: Felizardo et al., Post-Decision Proximal Policy Optimization (IJCNN 2025), its lake experiment. There, an
    episode that a hole ends takes one more step with reward 0: same returns.

    Args:
        instance: Library name, path or LakeInstance.
        reward: ``"shaped"`` or ``"sparse"``; None: as the instance says.
        append_time, time_limit: See above.
        illegal: Taken as by every env; no action is illegal here.
        infos: ``"full"`` adds the post-decision data to every step's info.
        render_mode: ``"rgb_array"``: ``render()`` draws the map and the walk so far.

    >>> env = PostDecisionFrozenLakeEnv("lake-4x4")
    >>> obs, info = env.reset(seed=0)
    >>> obs, reward, terminated, truncated, info = env.step(2)
    >>> int(env.post_decision_observation.argmax())
    1
    >>> reward == env.reward_deterministic + env.reward_stochastic
    True
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        instance: InstanceLike = "lake-10x10-1",
        *,
        reward: Reward | None = None,
        append_time: bool = False,
        time_limit: TimeLimit = "truncate",
        illegal: IllegalActions = "raise",
        infos: Infos = "lean",
        render_mode: str | None = None,
    ) -> None:
        settings = Settings(reward, append_time, time_limit, illegal, infos)
        require_render_mode(render_mode)
        self.batch = LakeBatch(1, instance, settings)
        self.observation_space = self.batch.observation_space
        self.post_decision_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self.render_mode = render_mode
        self._full = infos == "full"
        self._over = True

    @property
    def instance(self) -> LakeInstance:
        """The lake, under the reward that is played."""
        return self.batch.lake

    @property
    def illegal_actions(self) -> int:
        """Always 0."""
        return 0

    @property
    def post_decision_observation(self) -> npt.NDArray[np.float32] | None:
        """float32[D] of the last step; None before the first."""
        return self.batch.post_observation()[0] if self.batch.stepped else None

    @property
    def reward_deterministic(self) -> float | None:
        """Share of the last step's reward that the move settled; None before the first."""
        return float(self.batch.deterministic[0]) if self.batch.stepped else None

    @property
    def reward_stochastic(self) -> float | None:
        """The rest of that reward."""
        return float(self.batch.stochastic[0]) if self.batch.stepped else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Start an episode at the start tile; the post-decision data of the last step stay."""
        refuse_unknown_options(options)
        super().reset(seed=seed)
        self.batch.start(0, self.np_random)
        self._over = False
        return self.batch.observation()[0], {}

    def step(self, action: int | np.int64) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move and perhaps slip; see the class for the returned values."""
        if self._over:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        try:
            actions = np.array([index(action)], np.int64)
        except TypeError:
            raise InputError("bad action", field="action", value=action, expected="an integer") from None
        batch = self.batch
        batch.step(actions, batch.everyone)
        terminated, truncated = (bool(flag[0]) for flag in batch.ended())
        info = batch.step_info(0) if self._full else {}
        self._over = terminated or truncated
        if self._over:
            info.update(batch.terminal_info(0))
        return batch.observation()[0], float(batch.reward[0]), terminated, truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """bool[4], all True."""
        return np.ones(N_ACTIONS, np.bool_)

    def walk(self) -> LakeWalk:
        """What has happened in this episode."""
        return self.batch.walk(0)

    def get_state(self) -> LakeState:
        """Exact snapshot of the episode; independent of later steps, picklable."""
        return self.batch.get_state(0)

    def set_state(self, state: LakeState) -> npt.NDArray[np.float32]:
        """Restore a snapshot and return its observation."""
        self.batch.set_state(0, state)
        self._over = any(flag[0] for flag in self.batch.ended())
        return self.batch.observation()[0]

    def redrawn(self, state: LakeState, rng: np.random.Generator) -> LakeState:
        """The snapshot with the same past and the slips to come drawn anew."""
        return self.batch.redrawn(state, rng)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The map and the walk so far as uint8[H, W, 3] (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.frozen_lake.viewer import lake_rgb

        return lake_rgb(self.instance, self.walk())

    # ---- the two halves of a step as pure functions ------------------------------------------------------------
    def current_state(self) -> State:
        """(tile, steps made)."""
        return int(self.batch.tile[0]), int(self.batch.period[0])

    def post_decision(self, state: State, action: Any) -> tuple[State, float]:
        """(tile after the move, steps made before it), and the deterministic share of the reward."""
        post, reward = decide(self.instance.tables, state[0], int(action))
        return (int(post), state[1]), float(reward)

    def sample_exogenous(self, post_state: State, rng: np.random.Generator) -> tuple[State, float]:
        """A next state (tile, steps made) and the stochastic share of the reward."""
        tables = self.instance.tables
        following, reward = realise(tables, post_state[0], outcome(tables, post_state[0], rng.random()))
        return (int(following), post_state[1] + 1), float(reward)

    def is_terminal(self, state: State) -> bool:
        """Whether the episode terminates in that state."""
        return bool(self.batch.terminates(*state))

    def observe(self, state: State) -> npt.NDArray[np.float32]:
        """Observation float32[D] of a state."""
        return self.batch.encode(np.array(state[0]), state[1])

    def observe_post_decision(self, post_state: State) -> npt.NDArray[np.float32]:
        """Post-decision observation float32[D] of a post-decision state."""
        return self.observe(post_state)
