"""The single lot-sizing environment: a thin Gymnasium face over the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt

from orl.common.counter_noise import draw_key
from orl.common.errors import InputError
from orl.common.illegal_actions import MaskWatch
from orl.common.protocols import IllegalActions
from orl.common.reset_options import refuse_unknown_options
from orl.envs.lot_sizing import transition
from orl.envs.lot_sizing.batch import RESET_OPTIONS, LotSizingBatch, LotSizingState, Settings, TimeLimit, row_of_columns
from orl.envs.lot_sizing.instance import Floats, Incompatible, Init, Integers, LotSizingInstance, LotSizingPlan
from orl.envs.lot_sizing.instance_source import InstanceLike
from orl.envs.lot_sizing.observation import ObservationKind

State = tuple[Integers, Integers, int]


class LotSizingEnv(gymnasium.Env[Any, npt.NDArray[np.int64]]):
    """Say in every period which item each machine makes; then demand comes. I items, M machines, T periods.

    Registered as ``orl/LotSizing-v0``. A machine that changes to an item pays a set-up cost and loses units of that
    period's production; an idle machine forgets its set-up. Demand takes from the stock; what is missing is lost (or
    owed, up to the instance's largest backlog), what exceeds the largest stock afterwards is discarded.

    **Action** ``MultiDiscrete([I + 1] * M)``: for each machine 0 (idle) or the item 1..I that it makes. The masks
    ``action_masks()`` bool[M * (I + 1)], machine after machine, mark the items that a machine can make. They never
    change. An illegal part of an action is replaced by idling (``illegal``); an action with one or several counts once.

    **Observation** (``observation``; float32 but for the integers of ``"dict"``; stock is negative where it is owed):

    - ``"flat"`` (default): Box [I + M * (I + 1)], stock / largest stock, then one-hot set-ups, machine after machine;
    - ``"raw"``: Box [I + M], stock and set-ups as numbers;
    - ``"inventory"``: Box [I], stock only. It hides the set-ups, so that the agent cannot know when a change-over is
      paid: for replication of published runs only;
    - ``"dict"``: ``inventory`` Box [I] as in ``"flat"``, ``setup`` MultiDiscrete([I + 1] * M).

    ``append_time`` adds t / T (``"dict"``: ``time`` Box [1]).

    **Reward** (maximised): minus set-up, lost-sales and holding (and backlog) cost of the period, times
    ``reward_scale``.

    **Episode end**: after T periods, ``truncated`` with ``time_limit="truncate"`` (default: the plant goes on),
    ``terminated`` with ``"terminal"``. The terminal info holds ``objective`` (total cost, not scaled), ``bound`` (a
    lower bound for the demand that came), ``solution`` (a LotSizingPlan), ``setup_cost``, ``lost_sales_cost``,
    ``holding_cost`` (with backlog) and ``illegal_actions``.

    **Post-decision state**: stock after production, not yet capped, and the new set-ups. After each step
    ``post_decision_observation`` (in ``post_decision_space``), ``reward_deterministic`` (set-up cost) and
    ``reward_stochastic`` (all other cost) describe it; ``post_decision``, ``sample_exogenous``, ``observe`` and
    ``observe_post_decision`` are the step's two halves as functions of states ``(inventory, setup, period)``;
    ``exogenous_samples`` and ``simulate_decisions`` are those of the batch with N = 1.

    **Randomness**: ``reset(seed=s)`` meets the start and the demand of ``instance.scenario(s)``, whatever is done.
    ``reset(options={"inventory": int[I], "setup": int[M], "demand_path": int[T, I]})`` prescribes any of them.

    Source: Felizardo, Fadda, Brandimarte, Del-Moral-Hernandez, Nascimento, "A Reinforcement Learning Method for
    Environments with Stochastic Variables", IJCNN 2025; see docs/reference/lot_sizing.md.

    Args:
        instance: Library name, path, LotSizingInstance, ``callable(rng) -> LotSizingInstance``, or a list of these from
            which each episode draws (equal I and M; horizons may differ). A scenario is replayed as it is.
        observation, append_time: See above.
        init: ``"random"`` stock and set-ups (see :func:`orl.envs.lot_sizing.scenario.initial_state`), or the instance's
            own (``"fixed"``).
        incompatible: A machine told an item that it cannot make: ``"mask"``: the action is illegal; ``"waste"``: legal,
            it pays the change-over and makes nothing; ``"reference"``: legal, the loss is taken from the stock, as in
            the authors' code.
        exclusive_items: An item may run on one machine only: on later machines it is illegal (masks do not show that).
        time_limit: See above.
        reward_scale: Positive factor of the rewards; objectives are not scaled.
        illegal: ``"raise"`` IllegalActionError, ``"remap"``, or ``"count"`` (remap and count).
        infos: ``"full"`` adds period, demand and post-decision data to every step's info.
        render_mode: ``"rgb_array"``: ``render()`` draws stock and machines so far.

    >>> env = LotSizingEnv("ls-4x2")
    >>> obs, info = env.reset(seed=0)
    >>> done = False
    >>> while not done:
    ...     obs, reward, terminated, truncated, info = env.step(np.array([1, 2]))
    ...     done = terminated or truncated
    >>> env.instance.scenario(0).check(info["solution"]).objective == info["objective"]
    True
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        instance: InstanceLike | Sequence[InstanceLike] = "ls-4x2",
        *,
        observation: ObservationKind = "flat",
        append_time: bool = False,
        init: Init = "random",
        incompatible: Incompatible = "mask",
        exclusive_items: bool = False,
        time_limit: TimeLimit = "truncate",
        reward_scale: float = 1.0,
        illegal: IllegalActions = "raise",
        infos: Literal["lean", "full"] = "lean",
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
        require_render_mode(render_mode)
        self.render_mode = render_mode
        self.batch = LotSizingBatch(1, instance, settings)
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self.post_decision_space = self.batch.post_decision_space
        self._full, self._strict, self._terminal = infos == "full", illegal == "raise", time_limit == "terminal"
        self._watch = MaskWatch()

    @property
    def instance(self) -> LotSizingInstance:
        """The instance of the current episode."""
        return self.batch.instance(0)

    @property
    def illegal_actions(self) -> int:
        """Illegal actions replaced in the current episode."""
        return int(self.batch.illegal[0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; a seed fixes every later draw. Options: see the class."""
        refuse_unknown_options(options, *RESET_OPTIONS)
        super().reset(seed=seed)
        self.batch.reset(self.batch.everyone, [self.np_random], options)
        self._watch.reset()
        return self._observation(), {}

    def step(self, action: npt.NDArray[np.int64]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let every machine do its part of ``action`` int[M], then meet demand; see the class for what is returned."""
        batch = self.batch
        if batch.over[0]:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        chosen = np.asarray(action)
        if chosen.shape != (batch.n_machines,) or chosen.dtype.kind not in "iu":
            raise InputError("bad action", field="action", value=action, expected=f"integers [{batch.n_machines}]")
        batch.actions[0] = chosen
        batch.step(batch.actions, batch.everyone)
        done = bool(batch.over[0])
        info: dict[str, Any] = row_of_columns(batch.step_columns()) if self._full else {}
        if done:
            info.update(row_of_columns(batch.terminal_columns([0])))
        if not self._strict:
            self._watch.check(self.illegal_actions)
        reward = float(batch.rewards[0, 0])
        return self._observation(), reward, done and self._terminal, done and not self._terminal, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """bool[M * (I + 1)], True where the action is legal, machine after machine."""
        self._watch.seen = True
        return self.batch.masks()[0]

    # ---- the decision and demand ---------------------------------------------------------------------------------
    @property
    def post_decision_observation(self) -> Any:
        """Observation of the post-decision state of the last step (a fresh copy); None before the first step."""
        batch = self.batch
        if not batch.stepped:
            return None
        return batch.shaped(batch.post_observations[0].copy(), batch.post_setup[0].copy())

    @property
    def reward_deterministic(self) -> float | None:
        """The share of the last reward that the decision fixed; None before the first step."""
        return float(self.batch.rewards[1, 0]) if self.batch.stepped else None

    @property
    def reward_stochastic(self) -> float | None:
        """The share of the last reward that came with demand; None before the first step."""
        return float(self.batch.rewards[2, 0]) if self.batch.stepped else None

    def current_state(self) -> State:
        """Inventory int64[I], set-up int64[M] and period."""
        batch = self.batch
        return batch.inventory[0].copy(), batch.setup[0].copy(), int(batch.period[0])

    def post_decision(self, state: State, action: npt.NDArray[np.int64]) -> tuple[State, float]:
        """Post-decision state and deterministic reward of an action; illegal parts idle."""
        inventory, setup, period = state
        executed = self._executed(np.asarray(action, np.int64))
        incompatible = self.batch.settings.incompatible
        post, new_setup, cost = transition.decide(self.instance, inventory, setup, executed, incompatible)
        return (post, new_setup, period), 0.0 - self.batch.settings.reward_scale * float(cost)

    def sample_exogenous(self, post_state: State, rng: np.random.Generator) -> tuple[State, float]:
        """A next state and its stochastic reward; demand is drawn from the instance's distribution."""
        post, setup, period = post_state
        distribution = self.instance.demand
        demand = distribution.draw(draw_key(rng), 0 if distribution.stationary else period)
        inventory, _, lost_cost, holding_cost = transition.realise(self.instance, post, demand)
        cost = float(lost_cost + holding_cost)
        return (inventory, setup.copy(), period + 1), 0.0 - self.batch.settings.reward_scale * cost

    def observe(self, state: State) -> Any:
        """Observation of a state."""
        return self.batch.observation_of(0, *state)

    def observe_post_decision(self, post_state: State) -> Any:
        """Observation of a post-decision state."""
        return self.batch.observation_of(0, *post_state)

    def is_terminal(self, state: State) -> bool:
        """Whether the problem ends in that state; a cut horizon (``time_limit="truncate"``) is no end."""
        return self._terminal and state[2] >= self.instance.horizon

    def exogenous_samples(self, n_samples: int) -> tuple[Any, Floats, npt.NDArray[np.bool_]]:
        """Draws 1..n after the last step, with a leading axis of 1: next observations, rewards, terminated."""
        return self.batch.exogenous_samples(n_samples)

    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Any, Floats, Any, Floats, npt.NDArray[np.bool_]]:
        """Candidate actions [1, A, M] in the current state: see :class:`orl.common.protocols.ExogenousSampler`."""
        return self.batch.simulate_decisions(actions, n_samples)

    def _executed(self, action: Integers) -> Integers:
        """``action`` with its illegal parts replaced by idling."""
        mask = self.batch.masks()[0].reshape(self.batch.n_machines, -1)
        inside = (action >= 0) & (action <= self.batch.n_items)
        executed = np.where(inside & mask[np.arange(len(mask)), np.where(inside, action, 0)], action, 0)
        if self.batch.settings.exclusive_items:
            for m in range(1, len(executed)):
                if executed[m] in executed[:m]:
                    executed[m] = 0
        return executed

    # ---- snapshots and pictures ----------------------------------------------------------------------------------
    def plan(self) -> LotSizingPlan:
        """What was done and what demand came so far."""
        return self.batch.plan(0)

    def get_state(self) -> LotSizingState:
        """Exact snapshot of the episode; independent of later steps, picklable."""
        return self.batch.get_state(0)

    def set_state(self, state: LotSizingState) -> Any:
        """Restore a snapshot and return its observation."""
        self.batch.set_state(0, state)
        return self._observation()

    def redrawn(self, state: LotSizingState, rng: np.random.Generator) -> LotSizingState:
        """The snapshot with the same past and the demand to come drawn anew."""
        return self.batch.redrawn(state, rng)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Stock and machines so far as uint8[H, W, 3] (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.lot_sizing.viewer import rgb

        return rgb(self.instance, self.plan())

    def _observation(self) -> Any:
        batch = self.batch
        return batch.shaped(batch.observations[0].copy(), batch.setup[0].copy())


def require_render_mode(render_mode: str | None) -> None:
    """Raise InputError for a render mode that no face of this domain offers."""
    if render_mode not in (None, "rgb_array"):
        raise InputError("unknown mode", field="render_mode", value=render_mode, expected="None or 'rgb_array'")
