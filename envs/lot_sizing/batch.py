"""B copies of the lot-sizing MDP over one kernel: what the single env and the vector env have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.common.counter_noise import draw_key
from orl.common.errors import IllegalActionError, InputError
from orl.common.protocols import IllegalActions
from orl.envs.lot_sizing import kernel, observation
from orl.envs.lot_sizing.bank import Bank
from orl.envs.lot_sizing.builders import MAX_UNITS
from orl.envs.lot_sizing.instance import Floats, Incompatible, Init, Integers, LotSizingInstance, LotSizingPlan
from orl.envs.lot_sizing.instance_source import InstanceLike, InstanceSource
from orl.envs.lot_sizing.observation import KINDS, ObservationKind

TimeLimit = Literal["truncate", "terminal"]
Flags = npt.NDArray[np.bool_]

RESET_OPTIONS = ("inventory", "setup", "demand_path")
TERMINAL_KEYS: dict[str, type] = {
    "objective": float,
    "bound": float,
    "solution": object,
    "setup_cost": float,
    "lost_sales_cost": float,
    "holding_cost": float,
    "illegal_actions": int,
}
"""What the info of a last step holds, and the dtype of its column in a batch."""


@dataclass(frozen=True)
class Settings:
    """Options of the MDP, with the meanings given in :class:`orl.envs.lot_sizing.env.LotSizingEnv`."""

    observation: ObservationKind = "flat"
    append_time: bool = False
    init: Init = "random"
    incompatible: Incompatible = "mask"
    exclusive_items: bool = False
    time_limit: TimeLimit = "truncate"
    reward_scale: float = 1.0
    illegal: IllegalActions = "raise"
    infos: Literal["lean", "full"] = "lean"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("observation", tuple(KINDS)),
            ("append_time", (False, True)),
            ("init", ("random", "fixed")),
            ("incompatible", ("mask", "waste", "reference")),
            ("exclusive_items", (False, True)),
            ("time_limit", ("truncate", "terminal")),
            ("illegal", ("raise", "remap", "count")),
            ("infos", ("lean", "full")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError("unknown option", field=name, value=getattr(self, name), expected=f"one of {allowed}")
        scale = self.reward_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float, np.number)) or not 0 < scale < np.inf:
            raise InputError("bad scale", field="reward_scale", value=scale, expected="a positive number")


@dataclass(frozen=True, eq=False)
class LotSizingState:
    """Snapshot of one copy in the middle of an episode.

    Attributes:
        instance: The instance that it plays.
        inventory, setup, period, key: State and noise key.
        first_inventory, first_setup: Where the episode started.
        actions: int64[t, M], what was done so far.
        demand: int64[t, I], what came so far; int64[T, I] when the demand is ``scripted``.
        scripted: Whether the episode's demand was given.
        totals: float64[3], set-up, lost-sales and holding (with backlog) cost so far.
        illegal_actions: Actions replaced so far.
    """

    instance: LotSizingInstance
    inventory: Integers
    setup: Integers
    period: int
    key: np.uint64
    first_inventory: Integers
    first_setup: Integers
    actions: Integers
    demand: Integers
    scripted: bool
    totals: Floats
    illegal_actions: int


class LotSizingBatch:
    """States, histories, buffers and kernel calls of N copies.

    Attributes:
        inventory: int64[N, I], stock (negative: backlog).
        setup: int64[N, M], 0 idle, i item i.
        period: int64[N], periods done; equal to the horizon at the end of an episode.
        keys: uint64[N], noise keys of the episodes.
        over: bool[N], the horizon is reached (also before the first reset).
        rewards: float64[3, N], of the last step: whole, deterministic, stochastic.
    """

    def __init__(self, n_copies: int, instance: InstanceLike | Sequence[InstanceLike], settings: Settings) -> None:
        self.n_copies, self.settings = n_copies, settings
        self.source = InstanceSource(instance)
        n_items, n_machines = self.source.n_items, self.source.n_machines
        self.n_items, self.n_machines = n_items, n_machines
        # A copy with instances of its own has two rows: the last step may belong to the instance before a reset.
        rows = [self.source.sample] * (2 * n_copies) if self.source.random else self.source.fixed
        self.bank = Bank(rows, settings.incompatible)
        kind, with_time = settings.observation, bool(settings.append_time)
        self.view = (KINDS[kind], with_time, float(settings.reward_scale))
        self.observation_space, self.post_decision_space = observation.make_spaces(
            kind,
            with_time,
            None if self.source.random else self.source.fixed,
            settings.incompatible,
            self.source.sample,
        )
        self.action_space = spaces.MultiDiscrete([n_items + 1] * n_machines)

        self.inventory, self.post_inventory = (np.zeros((n_copies, n_items), np.int64) for _ in range(2))
        self.setup, self.post_setup = (np.zeros((n_copies, n_machines), np.int64) for _ in range(2))
        self.period, self.post_period = (np.zeros(n_copies, np.int64) for _ in range(2))
        self.row, self.post_row = (np.zeros(n_copies, np.int64) for _ in range(2))
        self.keys, self.post_keys = (np.zeros(n_copies, np.uint64) for _ in range(2))
        self.copies = (self.inventory, self.setup, self.period, self.row, self.keys)
        self.post = (self.post_inventory, self.post_setup, self.post_period, self.post_row, self.post_keys)

        self.first = (np.zeros((n_copies, n_items), np.int64), np.zeros((n_copies, n_machines), np.int64))
        self.scripted = np.zeros(n_copies, np.bool_)
        self.totals = np.zeros((n_copies, 3))
        self.illegal = np.zeros(n_copies, np.int64)
        self.over = np.ones(n_copies, np.bool_)  # no episode runs before reset
        self._make_histories(self.bank.longest)

        width = observation.row_length(kind, with_time, n_items, n_machines)
        self.observations, self.post_observations = (np.zeros((n_copies, width), np.float32) for _ in range(2))
        self._seen = (self.observations, self.post_observations)
        self._exclusive, self._strict = bool(settings.exclusive_items), settings.illegal == "raise"
        self.rewards = np.zeros((3, n_copies))
        self.actions = np.zeros((n_copies, n_machines), np.int64)
        self.everyone = np.ones(n_copies, np.bool_)
        self.stepped = False

    def _make_histories(self, horizon: int) -> None:
        """Room for episodes of so many periods; what stands there is kept."""
        old = getattr(self, "history", None)
        demand = np.zeros((self.n_copies, horizon, self.n_items), np.int32)
        actions = np.zeros((self.n_copies, horizon, self.n_machines), np.int32)
        if old is not None:
            demand[:, : old[0].shape[1]], actions[:, : old[1].shape[1]] = old[0], old[1]
        self.history = (demand, actions, self.scripted)

    # ---- episodes ----------------------------------------------------------------------------------------------
    def reset(
        self, which: Flags, generators: Sequence[np.random.Generator], options: dict[str, Any] | None = None
    ) -> None:
        """Start episodes in the marked copies, each with a key from its Generator, and write their observations."""
        marked = np.flatnonzero(which).tolist()
        for b in marked:
            self.keys[b] = key = draw_key(generators[b])
            if self.source.random or len(self.source.fixed) > 1:
                self._choose(b, key)
        self.scripted[which] = False
        if self.bank.start[3].any():
            for b in marked:
                path = self.instance(b).demand_path
                if path is not None:
                    self.history[0][b, : len(path)], self.scripted[b] = path, True
        kernel.reset_batch(
            self.bank.tables,
            self.bank.start,
            self.copies,
            which,
            self.settings.init == "fixed",
            self.first,
            self.totals,
            self.illegal,
            self.over,
            self.view,
            self.observations,
        )
        if options:
            self._override(which, marked, options)

    def _choose(self, b: int, key: np.uint64) -> None:
        index, instance = self.source.draw(key)
        if self.source.random:
            self.source.require_size(instance)
            self._put(b, instance)
        else:
            self.row[b] = index

    def _put(self, b: int, instance: LotSizingInstance) -> None:
        """Give copy ``b`` an instance of its own, in the row that its last step does not need."""
        row = b if self.post_row[b] != b else self.n_copies + b
        self.bank.put(row, instance)
        self.row[b] = row
        if instance.horizon > self.history[0].shape[1]:
            self._make_histories(instance.horizon)

    def _override(self, which: Flags, marked: list[int], options: dict[str, Any]) -> None:
        """Reset options ``inventory`` [I] or [N, I], ``setup`` [M] or [N, M], ``demand_path`` [T, I] or [N, T, I]."""
        known = {"inventory": (self.n_items,), "setup": (self.n_machines,), "demand_path": (None, self.n_items)}
        given = {key: _integers(options[key], key, known[key], self.n_copies) for key in known if key in options}
        for b in marked:
            instance = self.instance(b)
            limits: dict[str, tuple[Any, Any]] = {
                "inventory": (-instance.max_backlog, instance.max_inventory),
                "setup": (0, self.n_items),
                "demand_path": (0, MAX_UNITS),
            }
            for key, value in given.items():
                mine = value if value.ndim == len(known[key]) else value[b]
                if (mine < limits[key][0]).any() or (mine > limits[key][1]).any():
                    raise InputError(
                        "out of range", field=key, value=mine.tolist(), expected=f"{limits[key][0]}..{limits[key][1]}"
                    )
                if key == "demand_path":
                    if len(mine) != instance.horizon:
                        raise InputError("bad length", field=key, value=len(mine), expected=str(instance.horizon))
                    self.history[0][b, : len(mine)], self.scripted[b] = mine, True
                elif key == "inventory":
                    self.inventory[b] = self.first[0][b] = mine
                else:
                    self.setup[b] = self.first[1][b] = mine
        self._observe(which)

    def step(self, actions: Integers, active: Flags) -> None:
        """Step the active copies with ``actions`` int64[N, M] into ``rewards``, ``over`` and the observations."""
        refused = kernel.step_batch(
            self.bank.tables,
            self.copies,
            self.post,
            actions,
            active,
            self._exclusive,
            self._strict,
            self.view,
            self.history,
            self.totals,
            self.illegal,
            self._seen,
            self.rewards,
            self.over,
        )
        if refused >= 0:
            self._refuse(refused, actions[refused])
        self.stepped = True

    def refuse_illegal(self, actions: Integers, active: Flags) -> None:
        """Under ``illegal="raise"``, raise for the first active copy whose action is illegal; changes nothing."""
        if self._strict:
            b = kernel.first_illegal(self.bank.tables, self.row, actions, active, self._exclusive)
            if b >= 0:
                self._refuse(b, actions[b])

    def _refuse(self, b: int, action: Integers) -> NoReturn:
        legal = self.bank.instances[self.row[b]].production > 0
        allowed = [[0, *(np.flatnonzero(row) + 1).tolist()] for row in legal]
        one_each = ", each item on one machine" if self.settings.exclusive_items else ""
        raise IllegalActionError(
            f"action {action.tolist()} of copy {b} is illegal; legal for each machine{one_each}: {allowed} "
            "(see action_masks(); illegal='remap' or 'count' lets a machine idle instead)"
        )

    def _observe(self, which: Flags) -> None:
        kernel.observe_batch(self.bank.tables, self.copies, which, self.view, self.observations)

    # ---- exogenous draws ---------------------------------------------------------------------------------------
    def exogenous_samples(self, n_samples: int) -> tuple[Any, Floats, Flags]:
        """Draws 1..n after the last step: see :class:`orl.common.protocols.ExogenousSampler`."""
        if not self.stepped:
            raise gymnasium.error.ResetNeeded("exogenous_samples() belongs to a step: call step() first")
        return self._sample(self.post, (self.n_copies,), _count(n_samples))

    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Any, Floats, Any, Floats, Flags]:
        """Candidates in the present states: see :class:`orl.common.protocols.ExogenousSampler`."""
        n_copies, n_samples = self.n_copies, _count(n_samples)
        actions = np.asarray(actions)
        if actions.ndim != 3 or actions.shape[::2] != (n_copies, self.n_machines) or actions.dtype.kind not in "iu":
            found = f"{actions.dtype}{list(actions.shape)}"
            expected = f"integers [{n_copies}, A, {self.n_machines}]"
            raise InputError("bad actions", field="actions", value=found, expected=expected)
        if self.over.any():
            raise gymnasium.error.ResetNeeded(f"copies {np.flatnonzero(self.over).tolist()} play no episode")
        lead = actions.shape[:2]
        actions = np.ascontiguousarray(actions, np.int64).reshape(-1, self.n_machines)
        if self._strict:
            for candidate in range(lead[1]):
                self.refuse_illegal(actions[candidate :: lead[1]].copy(), self.everyone)
        n = len(actions)
        post = tuple(np.empty((n, *array.shape[1:]), array.dtype) for array in self.copies)
        rows, reward = np.empty((n, self.observations.shape[1]), np.float32), np.empty(n)
        kernel.decide_batch(
            self.bank.tables, self.copies, post, actions, lead[1], self._exclusive, self.view, rows, reward
        )
        between = self.shaped(rows.reshape(*lead, rows.shape[1]), post[1].reshape(*lead, self.n_machines))
        return between, reward.reshape(lead), *self._sample(post, lead, n_samples)

    def _sample(self, post: Any, lead: tuple[int, ...], n_samples: int) -> tuple[Any, Floats, Flags]:
        """Draws 1..n after post-decision states [N] or [N, A] (``lead``), which lie in ``post`` one after the other."""
        n, width, shape = len(post[0]), self.observations.shape[1], (*lead, n_samples)
        rows = np.empty((n * n_samples, width), np.float32)
        reward, last = np.empty((n, n_samples)), np.empty((n, n_samples), np.bool_)
        n_candidates = lead[1] if len(lead) == 2 else 1
        kernel.sample_batch(self.bank.tables, post, n_candidates, self.view, rows, reward, last)
        if self.settings.time_limit == "truncate":
            last[:] = False
        setup = np.repeat(post[1], n_samples, axis=0).reshape(*shape, self.n_machines)
        return self.shaped(rows.reshape(*shape, width), setup), reward.reshape(shape), last.reshape(shape)

    # ---- views -------------------------------------------------------------------------------------------------
    def instance(self, b: int) -> LotSizingInstance:
        """The instance (or scenario) that copy ``b`` plays."""
        return self.bank.instances[self.row[b]]

    def masks(self) -> Flags:
        """Action masks bool[N, M * (I + 1)], machine after machine; they belong to the instance and never change."""
        masks: Flags = self.bank.tables[kernel.LEGAL][self.row].reshape(self.n_copies, -1)
        return masks

    def shaped(self, rows: npt.NDArray[np.float32], setup: Integers) -> Any:
        """Observations of rows float32[..., D] and set-ups int64[..., M]; the Dict observation is made of views."""
        return observation.shaped(self.settings.observation, self.n_items, rows, setup)

    def observation_of(self, b: int, inventory: Any, setup: Any, period: int) -> Any:
        """Observation of a state (or post-decision state) of copy ``b``'s instance."""
        copies = (
            np.array([inventory], np.int64),
            np.array([setup], np.int64),
            np.array([period], np.int64),
            self.row[b : b + 1],
            self.keys[b : b + 1],
        )
        rows = np.empty((1, self.observations.shape[1]), np.float32)
        kernel.observe_batch(self.bank.tables, copies, np.ones(1, np.bool_), self.view, rows)
        return self.shaped(rows[0], copies[1][0])

    def plan(self, b: int) -> LotSizingPlan:
        """What was done and what demand came in the episode of copy ``b`` so far."""
        t, (demand, actions, _) = int(self.period[b]), self.history
        return LotSizingPlan(
            actions[b, :t].astype(np.int64),
            demand[b, :t].astype(np.int64),
            self.first[0][b].copy(),
            self.first[1][b].copy(),
        )

    def _plans(self, which: Integers) -> list[LotSizingPlan]:
        """The plans of copies int64[C]; those of equal length are read at once and share an array."""
        plans: dict[int, LotSizingPlan] = {}
        for t in np.unique(self.period[which]).tolist():
            alike = which[self.period[which] == t]
            demand, actions = (self.history[k][alike, :t].astype(np.int64) for k in (0, 1))
            inventory, setup = (array[alike] for array in self.first)
            plans.update(zip(alike.tolist(), map(LotSizingPlan, actions, demand, inventory, setup), strict=True))
        return [plans[b] for b in which.tolist()]

    def terminal_columns(self, ended: list[int]) -> dict[str, Any]:
        """End-of-episode keys of copies ``ended`` as columns of that length.

        An episode that was cut before its horizon has an infinite objective and the bound 0.
        """
        which = np.array(ended, np.int64)
        totals, bound, solution = self.totals[which], np.empty(len(which)), np.empty(len(which), object)
        complete = self.period[which] >= self.bank.tables[kernel.SIZES][self.row[which], 0]
        kernel.bound_batch(
            self.bank.tables,
            self.bank.bound_tables,
            self.row,
            which,
            self.history[0],
            *self.first,
            self.settings.incompatible == "reference",
            bound,
        )
        solution[:] = self._plans(which)
        return {
            "objective": np.where(complete, totals[:, 0] + totals[:, 1] + totals[:, 2], np.inf),
            "bound": np.where(complete, bound, 0.0),
            "solution": solution,
            "setup_cost": totals[:, 0],
            "lost_sales_cost": totals[:, 1],
            "holding_cost": totals[:, 2],
            "illegal_actions": self.illegal[which],
        }

    def step_columns(self) -> dict[str, Any]:
        """Per-step keys under ``infos="full"``, [N] and [N, ...]: what the last step was."""
        copies = np.arange(self.n_copies)
        return {
            "period": self.post_period.copy(),
            "demand": self.history[0][copies, self.post_period].astype(np.int64),
            "illegal_actions": self.illegal.copy(),
            "post_decision_observation": self.shaped(self.post_observations.copy(), self.post_setup.copy()),
            "reward_deterministic": self.rewards[1].copy(),
            "reward_stochastic": self.rewards[2].copy(),
        }

    # ---- snapshots ---------------------------------------------------------------------------------------------
    def get_state(self, b: int) -> LotSizingState:
        """Snapshot of copy ``b``; independent of the batch and of later steps, picklable."""
        instance, t, scripted = self.instance(b), int(self.period[b]), bool(self.scripted[b])
        demand, actions, _ = self.history
        return LotSizingState(
            instance=instance,
            inventory=self.inventory[b].copy(),
            setup=self.setup[b].copy(),
            period=t,
            key=self.keys[b],
            first_inventory=self.first[0][b].copy(),
            first_setup=self.first[1][b].copy(),
            actions=actions[b, :t].astype(np.int64),
            demand=demand[b, : instance.horizon if scripted else t].astype(np.int64),
            scripted=scripted,
            totals=self.totals[b].copy(),
            illegal_actions=int(self.illegal[b]),
        )

    @staticmethod
    def redrawn(state: LotSizingState, rng: np.random.Generator) -> LotSizingState:
        """The snapshot with another noise key; prescribed demand stays."""
        return replace(state, key=draw_key(rng))

    def set_state(self, b: int, state: LotSizingState) -> None:
        """Restore a snapshot into copy ``b`` (also one of another batch that plays the same instances)."""
        self.source.require_size(state.instance)
        if self.source.random:
            self._put(b, state.instance)
        else:
            self.row[b] = self._row_of(state.instance)
        self.inventory[b], self.setup[b], self.period[b] = state.inventory, state.setup, state.period
        self.keys[b], self.scripted[b], self.totals[b] = state.key, state.scripted, state.totals
        self.first[0][b], self.first[1][b], self.illegal[b] = (
            state.first_inventory,
            state.first_setup,
            state.illegal_actions,
        )
        self.history[0][b, : len(state.demand)] = state.demand
        self.history[1][b, : len(state.actions)] = state.actions
        self.over[b] = state.period >= state.instance.horizon
        which = np.zeros(self.n_copies, np.bool_)
        which[b] = True
        self._observe(which)

    def _row_of(self, instance: LotSizingInstance) -> int:
        known = self.bank.instances
        rows = [k for k, own in enumerate(known) if own is instance]
        rows = rows or [k for k, own in enumerate(known) if own.name == instance.name and own.same_as(instance)]
        if not rows:
            names = str([own.name for own in known[:8]])
            raise InputError("the snapshot is of another instance", field="state", value=instance.name, expected=names)
        return rows[0]


def _count(n_samples: int) -> int:
    if isinstance(n_samples, bool) or not isinstance(n_samples, (int, np.integer)) or n_samples < 0:
        raise InputError("bad number of samples", field="n_samples", value=n_samples, expected="an integer >= 0")
    return int(n_samples)


def _integers(value: Any, field: str, shape: tuple[int | None, ...], n_copies: int) -> Integers:
    """An integer array of a shape (None: any length), with or without a leading axis N."""
    array = np.asarray(value)
    own = array.shape[1:] if array.ndim == len(shape) + 1 and len(array) == n_copies else array.shape
    fits = len(own) == len(shape) and all(want in (None, have) for want, have in zip(shape, own, strict=True))
    if not fits or array.dtype.kind not in "iu":
        wanted = ["T" if size is None else size for size in shape]
        expected = f"integers {wanted} or {[n_copies, *wanted]}".replace("'", "")
        raise InputError("bad array", field=field, value=f"{array.dtype}{list(array.shape)}", expected=expected)
    return array.astype(np.int64)


def row_of_columns(columns: dict[str, Any]) -> dict[str, Any]:
    """The first row of columns as an info dict: Python scalars, arrays, dicts and objects.

    >>> row_of_columns({"cost": np.array([1.5]), "demand": np.array([[1, 2]])})
    {'cost': 1.5, 'demand': array([1, 2])}
    """
    first = {key: row_of_columns(value) if isinstance(value, dict) else value[0] for key, value in columns.items()}
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in first.items()}
