"""N copies of one lake over the kernel: what the single env and the vector env have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.common.counter_noise import draw_key
from orl.common.errors import InputError
from orl.common.protocols import IllegalActions
from orl.envs.frozen_lake import kernel
from orl.envs.frozen_lake.instance import LakeInstance, LakeWalk
from orl.envs.frozen_lake.library import load
from orl.envs.frozen_lake.transition import N_ACTIONS, Reward

TimeLimit = Literal["truncate", "terminal"]
Infos = Literal["lean", "full"]
InstanceLike = str | os.PathLike[str] | LakeInstance
TERMINAL_KEYS: dict[str, type] = {
    "objective": float,
    "bound": float,
    "solution": object,
    "success": bool,
    "illegal_actions": int,
}
"""What the info of a last step holds, and the dtype of its column in a batch."""


@dataclass(frozen=True)
class Settings:
    """Options of the MDP, with the meanings given in :class:`orl.envs.frozen_lake.env.PostDecisionFrozenLakeEnv`."""

    reward: Reward | None = None
    append_time: bool = False
    time_limit: TimeLimit = "truncate"
    illegal: IllegalActions = "raise"
    infos: Infos = "lean"

    def __post_init__(self) -> None:
        for name, choices in (
            ("reward", (None, *get_args(Reward))),
            ("time_limit", get_args(TimeLimit)),
            ("illegal", get_args(IllegalActions)),
            ("infos", get_args(Infos)),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise InputError("unknown choice", field=name, value=value, expected=", ".join(map(str, choices)))


class LakeState(NamedTuple):
    """Exact snapshot of an episode: tile, step, noise key, return so far, and the walk so far."""

    tile: int
    period: int
    key: np.uint64
    total: float
    actions: npt.NDArray[np.int8]
    outcomes: npt.NDArray[np.int8]


class LakeBatch:
    """The state of N copies.

    Attributes:
        lake: The instance that all copies play.
        tile, period: int64[N], where a copy is and how many steps of its episode it has made.
        post: int64[N], the tile that the last step's move led to.
        deterministic, stochastic: float64[N], the shares of the last step's reward.
        total: float64[N], return of the episode so far.
        stepped: Whether there was a step yet.
    """

    def __init__(self, n: int, instance: InstanceLike, settings: Settings) -> None:
        lake = instance if isinstance(instance, LakeInstance) else load(instance)
        self.lake = lake if settings.reward is None else lake.with_reward(settings.reward)
        self.n, self.settings = n, settings
        t = self.lake.tables
        self._slips = t.neighbours, t.surprise, t.arrival, t.thresholds, t.goal
        self._moves = t.neighbours, t.decided, *self._slips[1:]
        self.tile = np.full(n, self.lake.start, np.int64)
        self.period, self.post, self._outcome = (np.zeros(n, np.int64) for _ in range(3))
        self.deterministic, self.stochastic, self.total = (np.zeros(n) for _ in range(3))
        self._keys = np.zeros(n, np.uint64)
        self._step_keys, self._step_periods = self._keys.copy(), self.period.copy()
        self._actions, self._outcomes = (np.zeros((n, self.lake.horizon), np.int8) for _ in range(2))
        self._copies = np.arange(n)
        self.everyone = np.ones(n, np.bool_)
        self.stepped = False
        width = self.lake.n_tiles + settings.append_time
        self.observation_space = spaces.Box(0.0, 1.0, (width,), np.float32)
        self.action_space = spaces.Discrete(N_ACTIONS)

    def instance(self, b: int) -> LakeInstance:
        """The instance that copy ``b`` plays."""
        return self.lake

    def start(self, b: int, rng: np.random.Generator) -> None:
        """Begin an episode in copy ``b``; the data of its last step stay."""
        self.tile[b], self.period[b], self.total[b] = self.lake.start, 0, 0.0
        self._keys[b] = draw_key(rng)

    def step(self, actions: npt.NDArray[np.int64], active: npt.NDArray[np.bool_]) -> None:
        """Step the active copies; raises InputError on an action that does not exist."""
        if ((actions < 0) | (actions >= N_ACTIONS))[active].any():
            raise InputError("no such action", field="action", value=actions.tolist(), expected=f"0..{N_ACTIONS - 1}")
        np.copyto(self._step_keys, self._keys, where=active)
        np.copyto(self._step_periods, self.period, where=active)
        kernel.step_batch(
            active, actions, self._keys, *self._moves,
            self.tile, self.period, self.post, self._outcome, self.deterministic, self.stochastic,
        )  # fmt: skip
        self.total[active] += self.reward[active]
        moved = np.flatnonzero(active)
        at = self.period[moved] - 1
        self._actions[moved, at], self._outcomes[moved, at] = actions[moved], self._outcome[moved]
        self.stepped = True

    @property
    def reward(self) -> npt.NDArray[np.float64]:
        """float64[N], reward of the last step."""
        return self.deterministic + self.stochastic

    def ended(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Whether the copies have terminated and whether the horizon has truncated them, bool[N] each."""
        over = self.terminates(self.tile, self.period)
        return over, ~over & (self.period >= self.lake.horizon)

    def terminates(self, tile: Any, period: Any) -> Any:
        """Whether episodes terminate on those tiles after so many steps."""
        ends = self.lake.tables.ends[tile]
        return ends | (period >= self.lake.horizon) if self.settings.time_limit == "terminal" else ends

    # ---- observations ------------------------------------------------------------------------------------------
    def encode(self, tile: npt.NDArray[np.int64], period: Any) -> npt.NDArray[np.float32]:
        """Observations float32[..., S] (one-hot; with the share of the horizon that is over at the end) of states."""
        flat = np.asarray(tile, np.int64)
        code = np.zeros((flat.size, self.lake.n_tiles + self.settings.append_time), np.float32)
        code[np.arange(flat.size), flat.ravel()] = 1.0
        if self.settings.append_time:
            code[:, -1] = (np.broadcast_to(period, flat.shape) / self.lake.horizon).ravel()
        return code.reshape(*flat.shape, code.shape[-1])

    def observation(self) -> npt.NDArray[np.float32]:
        """float32[N, D] of all copies."""
        return self.encode(self.tile, self.period)

    def post_observation(self) -> npt.NDArray[np.float32]:
        """float32[N, D] of the last step's post-decision states; the time is that before the step."""
        return self.encode(self.post, self._step_periods)

    # ---- further draws -----------------------------------------------------------------------------------------
    def exogenous_samples(self, n: int) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """See :class:`orl.common.protocols.ExogenousSampler`."""
        observations, rewards, over = self._draw(self.post[:, None], self._step_keys, self._step_periods, n)
        return observations[:, 0], rewards[:, 0], over[:, 0]

    def simulate_decisions(self, actions: npt.NDArray[Any], n: int) -> tuple[Any, Any, Any, Any, Any]:
        """See :class:`orl.common.protocols.ExogenousSampler`."""
        actions = np.asarray(actions)
        if actions.ndim != 2 or len(actions) != self.n or actions.dtype.kind not in "iu":
            found = f"{actions.dtype}{list(actions.shape)}"
            raise InputError("bad actions", field="actions", value=found, expected=f"int64[{self.n}, A]")
        if ((actions < 0) | (actions >= N_ACTIONS)).any():
            raise InputError("no such action", field="actions", value=actions, expected=f"0..{N_ACTIONS - 1}")
        tables = self.lake.tables
        post = tables.neighbours[self.tile[:, None], actions]
        return (
            self.encode(post, self.period[:, None]),
            tables.decided[post],
            *self._draw(post, self._keys, self.period, n),
        )

    def _draw(self, post: Any, keys: Any, periods: Any, n: int) -> tuple[Any, Any, Any]:
        following, rewards = np.empty((*post.shape, n), np.int64), np.empty((*post.shape, n))
        kernel.draw_batch(post, keys, periods, *self._slips, following, rewards)
        later = (periods + 1)[:, None, None]
        return self.encode(following, later), rewards, self.terminates(following, later)

    # ---- infos and snapshots -----------------------------------------------------------------------------------
    def step_info(self, b: int) -> dict[str, Any]:
        """What ``infos="full"`` adds to the info of a step."""
        return {
            "post_decision_observation": self.encode(self.post[b], self._step_periods[b]),
            "reward_deterministic": float(self.deterministic[b]),
            "reward_stochastic": float(self.stochastic[b]),
        }

    def terminal_info(self, b: int) -> dict[str, Any]:
        """End-of-episode keys of copy ``b``."""
        return {
            "objective": -float(self.total[b]),
            "bound": self.lake.lower_bound(),
            "solution": self.walk(b),
            "success": bool(self.tile[b] == self.lake.tables.goal),
            "illegal_actions": 0,
        }

    def walk(self, b: int) -> LakeWalk:
        """What has happened to copy ``b`` in this episode."""
        done = int(self.period[b])
        return LakeWalk(self._actions[b, :done].astype(np.int64), self._outcomes[b, :done].astype(np.int64))

    def get_state(self, b: int) -> LakeState:
        """Exact snapshot of copy ``b``."""
        done = int(self.period[b])
        walk = self._actions[b, :done].copy(), self._outcomes[b, :done].copy()
        return LakeState(int(self.tile[b]), done, self._keys[b], float(self.total[b]), *walk)

    def set_state(self, b: int, state: LakeState) -> None:
        """Restore a snapshot into copy ``b``; the data of its last step stay."""
        self.tile[b], self.period[b], self._keys[b], self.total[b] = state[:4]
        self._actions[b, : state.period], self._outcomes[b, : state.period] = state.actions, state.outcomes

    @staticmethod
    def redrawn(state: LakeState, rng: np.random.Generator) -> LakeState:
        """The snapshot with another noise key."""
        return state._replace(key=draw_key(rng))


def require_render_mode(mode: str | None) -> None:
    """Raise InputError unless the mode is None or ``rgb_array``."""
    if mode not in (None, "rgb_array"):
        raise InputError("unknown mode", field="render_mode", value=mode, expected="'rgb_array' or None")
