"""N copies of hydrothermal dispatch on one evaluator: what the single env and the vector env have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.common.counter_noise import draw_key
from orl.common.errors import IllegalActionError, InputError
from orl.common.numbers import floats
from orl.common.protocols import IllegalActions
from orl.envs.hydrothermal import library, observation
from orl.envs.hydrothermal.bounds import path_bound
from orl.envs.hydrothermal.builders import checked_columns
from orl.envs.hydrothermal.instance import NETWORKS, Floats, HydrothermalInstance, Integers, Network
from orl.envs.hydrothermal.observation import ObservationKind
from orl.envs.hydrothermal.plan import ReservoirPlan
from orl.envs.hydrothermal.reach import ReachableMap
from orl.envs.hydrothermal.stage_costs import StageCosts

ActionMode = Literal["reach", "target", "turbine"]
Evaluator = Literal["pool", "highs"]
InstanceLike = str | os.PathLike[str] | HydrothermalInstance
Flags = npt.NDArray[np.bool_]

OUTSIDE = 1e-6
"""How far an action may lie outside [-1, 1] before it counts as illegal; rounding moves it that far."""
DECIMALS = 6
"""Stage costs are rounded to 1e-6 USD: where several bases are optimal, the last bits hang on which one answered."""

RESET_OPTIONS = ("columns", "volumes")
TERMINAL_KEYS: dict[str, type] = {
    "objective": float,
    "bound": float,
    "solution": object,
    "target_violation": float,
    "illegal_actions": int,
}
"""What the info of a last step holds, and the dtype of its column in a batch."""


@dataclass(frozen=True)
class Settings:
    """Options of the MDP, with the meanings given in :class:`orl.envs.hydrothermal.env.HydrothermalEnv`."""

    action_mode: ActionMode = "reach"
    observation: ObservationKind = "flat"
    evaluator: Evaluator = "pool"
    reward_scale: float = 1e-4
    illegal: IllegalActions = "raise"
    infos: Literal["lean", "full"] = "lean"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("action_mode", get_args(ActionMode)),
            ("observation", get_args(ObservationKind)),
            ("evaluator", get_args(Evaluator)),
            ("illegal", get_args(IllegalActions)),
            ("infos", ("lean", "full")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError("unknown option", field=name, value=getattr(self, name), expected=f"one of {allowed}")
        scale = self.reward_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float, np.number)) or not 0 < scale < np.inf:
            raise InputError("bad scale", field="reward_scale", value=scale, expected="a positive number")


@dataclass(frozen=True, eq=False)
class HydrothermalState:
    """Snapshot of one copy in the middle of an episode.

    Attributes:
        name: Of the instance.
        key: Noise key.
        columns: int64[T] or int64[T, n], the inflow columns of the whole episode.
        scripted: Whether they were prescribed.
        stage: Stages done, t.
        volumes: float64[t + 1, n], hm3, from the start on.
        turbined: float64[t, n], m3/s, and
        spilled: float64[t, n], hm3, where actions are turbined water (None otherwise).
        objective: Cost so far, USD for each hour of a stage, summed.
        target_violation: hm3 by which volumes missed their targets so far.
        illegal_actions: Actions replaced so far.
    """

    name: str
    key: np.uint64
    columns: Integers
    scripted: bool
    stage: int
    volumes: Floats
    turbined: Floats | None
    spilled: Floats | None
    objective: float
    target_violation: float
    illegal_actions: int


def instance_of(
    given: InstanceLike, network: Network | None = None, horizon: int | None = None
) -> HydrothermalInstance:
    """The instance of a library name or path, or one as it is; with another network or horizon if asked for.

    A changed network or horizon shows in the name, e.g. ``bolivia-copper-t12``.

    Raises:
        InputError: Nothing of this kind, no such network, a horizon that the instance does not have.
        UnknownNameError: No such name.
        DataUnavailableError: Its data files are not here.
    """
    instance = library.load(given) if isinstance(given, (str, os.PathLike)) else given
    if not isinstance(instance, HydrothermalInstance):
        expected = "a library name, a path or a HydrothermalInstance"
        raise InputError("no instance", field="instance", value=type(given).__name__, expected=expected)
    if network is not None and network not in NETWORKS:
        raise InputError("unknown network", field="network", value=network, expected=" | ".join(NETWORKS))
    if network is not None and network != instance.network:
        instance = replace(instance, network=network, name=f"{instance.name}-{network}")
    return instance if horizon is None else instance.with_horizon(horizon)


class HydrothermalBatch:
    """States, histories and buffers of N copies that play one instance.

    Attributes:
        volumes: float64[N, n], hm3.
        inflows: float64[N, n], m3/s, of the present stage; 0 when over.
        stage: int64[N], stages done; T at the end of an episode.
        keys: uint64[N], noise keys of the episodes.
        over: bool[N], the last stage is done (also before the first reset).
        costs: float64[N], of the last step, USD for each hour of the stage; 0 for copies that took no part.
        objective, target_violation: float64[N], so far.
        illegal: int64[N], actions replaced so far.
        reach: The reachable volumes.
    """

    def __init__(self, n_copies: int, instance: HydrothermalInstance, settings: Settings) -> None:
        self.n_copies, self.settings, self.problem = n_copies, settings, instance
        self.reach = ReachableMap(instance)
        self.evaluator = StageCosts(instance, settings.evaluator, settings.action_mode == "turbine")
        self.scales = observation.scales(instance)
        n, horizon = instance.n_plants, instance.horizon
        self.observation_space = observation.make_space(settings.observation, instance)
        self.action_space = spaces.Box(-1.0, 1.0, (n,), np.float32)

        self.volumes, self.inflows = np.zeros((n_copies, n)), np.zeros((n_copies, n))
        self.stage = np.zeros(n_copies, np.int64)
        self.keys = np.zeros(n_copies, np.uint64)
        self.scripted = np.zeros(n_copies, np.bool_)
        self.columns = np.zeros((n_copies, horizon) if instance.joint else (n_copies, horizon, n), np.int64)
        self.paths = np.zeros((n_copies, horizon + 1, n))  # inflows, m3/s; the last row stays 0
        self.history = np.zeros((n_copies, horizon + 1, n))  # volumes, hm3
        self.releases: tuple[Floats, Floats] | None = None  # turbined m3/s and spilled hm3, float64[N, T, n]
        if settings.action_mode == "turbine":
            self.releases = np.zeros((n_copies, horizon, n)), np.zeros((n_copies, horizon, n))
        self.over = np.ones(n_copies, np.bool_)  # no episode runs before reset
        self.costs, self.objective, self.target_violation = np.zeros((3, n_copies))
        self.sources = np.full(n_copies, "", object)  # of the last costs, under infos="full"
        self.illegal = np.zeros(n_copies, np.int64)
        self.observations = np.zeros((n_copies, *self.observation_space.shape), np.float32)
        self.everyone = np.ones(n_copies, np.bool_)

    # ---- episodes --------------------------------------------------------------------------------------------------
    def reset(
        self, which: Flags, generators: Sequence[np.random.Generator], options: dict[str, Any] | None = None
    ) -> None:
        """Start episodes in the marked copies, each with a key from its Generator, and write their observations.

        Args:
            which: bool[N].
            generators: One a copy.
            options: ``columns`` int[T] (int[T, n] if not joint) and ``volumes`` float[n], with or without a leading
                axis N.

        Raises:
            InputError: Columns that are not there or not the scenario's, volumes outside their limits.
        """
        marked = np.flatnonzero(which)
        given, volumes = self._overrides(options or {})
        for b in marked.tolist():
            self.keys[b] = draw_key(generators[b])
        columns = self.problem.draw_columns(self.keys[marked]) if given is None else given[marked]
        self.columns[marked], self.scripted[marked] = columns, given is not None
        self.paths[marked, :-1] = self.problem.path_inflows(columns)
        self.volumes[marked] = self.problem.initial_volume if volumes is None else volumes[marked]
        self.history[marked, 0] = self.volumes[marked]
        self.inflows[marked] = self.paths[marked, 0]
        self.stage[marked], self.over[marked], self.illegal[marked] = 0, False, 0
        self.costs[marked] = self.objective[marked] = self.target_violation[marked] = 0.0
        self._observe(marked)

    def _overrides(self, options: dict[str, Any]) -> tuple[Integers | None, Floats | None]:
        """Columns [N, T] or [N, T, n] and volumes [N, n] that the options prescribe."""
        problem, columns, volumes = self.problem, None, None
        if "columns" in options:
            rows = self._of_copies(options["columns"], "columns", self.columns.ndim)
            known = problem.horizon, problem.probabilities, problem.n_plants, problem.joint, problem.name
            columns = np.stack([checked_columns(row, *known) for row in rows])
            if problem.columns is not None and (columns != problem.columns).any():
                expected = "those of the scenario, or none"
                raise InputError("other columns than its own", source=problem.name, field="columns", expected=expected)
        if "volumes" in options:
            rows = self._of_copies(options["volumes"], "volumes", 2)
            volumes = np.stack([floats(row, "volumes", (problem.n_plants,), source=problem.name) for row in rows])
            outside = (volumes < problem.min_volume) | (volumes > problem.max_volume)
            for b, i in np.argwhere(outside)[:1].tolist():
                raise InputError(
                    "out of range",
                    source=problem.name,
                    field=f"volumes of {problem.plant_names[i]}",
                    value=float(volumes[b, i]),
                    expected=f"{problem.min_volume[i]:g}..{problem.max_volume[i]:g} hm3",
                )
        return columns, volumes

    def _of_copies(self, value: Any, field: str, n_axes: int) -> list[Any]:
        """The rows of an option with a leading axis N, or one row for every copy."""
        n_given = np.asarray(value, object).ndim  # ragged lists are refused row by row
        if n_given == n_axes:
            if len(value) != self.n_copies:
                raise InputError("wrong number of rows", field=field, value=len(value), expected=str(self.n_copies))
            return list(value)
        return [value] * self.n_copies

    def step(self, actions: npt.NDArray[Any], active: Flags) -> None:
        """Step the active copies with ``actions`` float[N, n] into ``costs``, ``over`` and the observations.

        Raises:
            IllegalActionError: Under ``illegal="raise"``; nothing has been done then.
        """
        self.refuse_illegal(actions, active)
        which = np.arange(self.n_copies) if active.all() else np.flatnonzero(active)
        fractions, replaced = self._fractions(actions[which])
        stage, before, inflows = self.stage[which], self.volumes[which], self.inflows[which]
        after, missed, rhs, spill_costs = self._operate(which, before, inflows, fractions)
        if self.settings.infos == "full":
            costs, self.sources[which] = self.evaluator.costs_and_sources(rhs, stage)
        else:
            costs = self.evaluator.costs(rhs, stage)
        self.costs[:] = 0.0
        self.costs[which] = np.round(costs + spill_costs, DECIMALS)
        self.objective[which] += self.costs[which]
        self.target_violation[which] += missed
        self.illegal[which] += replaced
        self.volumes[which] = after
        self.stage[which] += 1
        self.history[which, stage + 1] = after
        self.inflows[which] = self.paths[which, stage + 1]
        self.over[which] = stage + 1 >= self.problem.horizon
        self._observe(which)

    def _operate(
        self, which: Integers, before: Floats, inflows: Floats, fractions: Floats
    ) -> tuple[Floats, Floats | float, Floats, Floats | float]:
        """End volumes [A, n], targets missed [A], right-hand sides [A, n] of programmes and costs [A] beside them."""
        problem, mode = self.problem, self.settings.action_mode
        if self.releases is not None:
            low, high = problem.least_outflow, problem.most_outflow
            done = self.reach.operate(before, inflows, low + (high - low) * fractions)
            stage = self.stage[which]
            self.releases[0][which, stage], self.releases[1][which, stage] = done.turbined, done.spilled
            rhs = problem.production_factor * done.turbined
            return done.volumes, 0.0, rhs, (done.spilled * problem.spill_costs).sum(1)
        missed: Floats | float = 0.0
        if mode == "target":
            targets = problem.min_volume + (problem.max_volume - problem.min_volume) * fractions
            after = self.reach.project(before, inflows, targets).volumes
            missed = np.abs(targets - after).sum(1)
        else:
            after = self.reach(before, inflows, fractions).volumes
        return after, missed, before + problem.water_factor * inflows - after, 0.0

    # ---- actions ---------------------------------------------------------------------------------------------------
    def actions_of(self, given: Any, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Actions as numbers of a shape; float64 stays what it is. Raises InputError for anything else."""
        actions = np.asarray(given)
        if actions.shape != shape or actions.dtype.kind not in "fiu":
            found = f"{actions.dtype}{list(actions.shape)}"
            raise InputError("bad actions", field="actions", value=found, expected=f"numbers {list(shape)}")
        return actions

    def refuse_illegal(self, actions: npt.NDArray[Any], active: Flags) -> None:
        """Under ``illegal="raise"``, raise for the first active copy whose action is illegal; changes nothing."""
        if self.settings.illegal != "raise":
            return
        legal = np.abs(actions) <= 1.0 + OUTSIDE  # NaN is not
        if legal.all():
            return
        for b in np.flatnonzero(active & ~legal.all(1))[:1].tolist():
            raise IllegalActionError(
                f"action {actions[b].tolist()} of copy {b} is illegal: each number must lie in [-1, 1] "
                "(illegal='remap' or 'count' clips them and takes 0 for NaN)"
            )

    def _fractions(self, actions: npt.NDArray[Any]) -> tuple[Floats, Integers]:
        """Fractions float64[A, n] in [0, 1], and which actions were illegal, int64[A]."""
        wide = actions.astype(np.float64)
        replaced: Integers = np.asarray((~(np.abs(wide) <= 1.0 + OUTSIDE)).any(1), np.int64)
        if replaced.any():
            wide[np.isnan(wide)] = 0.0
        return np.clip((wide + 1.0) / 2.0, 0.0, 1.0), replaced

    # ---- views -----------------------------------------------------------------------------------------------------
    def _observe(self, which: Integers) -> None:
        self.observations[which] = observation.observations(
            self.settings.observation,
            self.problem,
            self.volumes[which],
            self.inflows[which],
            self.stage[which],
            self.scales,
        )

    def instance(self, b: int) -> HydrothermalInstance:
        """The instance (or scenario) that copy ``b`` plays."""
        return self.problem

    def plan(self, b: int) -> ReservoirPlan:
        """What was done and which inflow columns came in the episode of copy ``b`` so far."""
        t = int(self.stage[b])
        releases = [None, None] if self.releases is None else [part[b, :t].copy() for part in self.releases]
        return ReservoirPlan(self.columns[b, :t].copy(), self.history[b, : t + 1].copy(), *releases)

    def terminal_columns(self, ended: list[int]) -> dict[str, Any]:
        """End-of-episode keys of copies ``ended`` as columns of that length.

        An episode that was cut before its horizon has an infinite objective and the bound 0.
        """
        which = np.array(ended, np.int64)
        complete, solution, bound = self.over[which], np.empty(len(which), object), np.zeros(len(which))
        for k, b in enumerate(ended):
            solution[k] = self.plan(b)
            if complete[k]:
                bound[k] = min(path_bound(self._start_of(b), self.paths[b, :-1]), self.objective[b])
        return {
            "objective": np.where(complete, self.objective[which], np.inf),
            "bound": bound,
            "solution": solution,
            "target_violation": self.target_violation[which],
            "illegal_actions": self.illegal[which],
        }

    def _start_of(self, b: int) -> HydrothermalInstance:
        """The instance with the volumes that the episode of copy ``b`` started from."""
        start = self.history[b, 0]
        same = bool((start == self.problem.initial_volume).all())
        return self.problem if same else replace(self.problem, initial_volume=start.copy())

    def step_columns(self, active: Flags) -> dict[str, Any]:
        """Per-step keys under ``infos="full"``, [N] and [N, ...]: what the last step was, in the active copies."""
        from orl.envs.hydrothermal.step_report import step_report

        return step_report(self, active)

    # ---- snapshots -------------------------------------------------------------------------------------------------
    def get_state(self, b: int) -> HydrothermalState:
        """Snapshot of copy ``b``; independent of the batch and of later steps, picklable."""
        plan = self.plan(b)
        return HydrothermalState(
            name=self.problem.name,
            key=self.keys[b],
            columns=self.columns[b].copy(),
            scripted=bool(self.scripted[b]),
            stage=plan.n_stages,
            volumes=plan.volumes,
            turbined=plan.turbined,
            spilled=plan.spilled,
            objective=float(self.objective[b]),
            target_violation=float(self.target_violation[b]),
            illegal_actions=int(self.illegal[b]),
        )

    def redrawn(self, state: HydrothermalState, rng: np.random.Generator) -> HydrothermalState:
        """The snapshot with another noise key and other columns after those of the stage that is about to be decided.

        A scenario keeps its own columns, and an episode those that were prescribed.
        """
        key = draw_key(rng)
        if state.scripted:
            return replace(state, key=key)
        columns = self.problem.draw_columns(key)
        columns[: state.stage + 1] = state.columns[: state.stage + 1]
        return replace(state, key=key, columns=columns)

    def set_state(self, b: int, state: HydrothermalState) -> None:
        """Restore a snapshot into copy ``b``, also one of another batch that plays the same instance.

        Raises:
            InputError: A snapshot of another instance, of other inflows than those of the scenario that is played, or
                of another kind of action.
        """
        if state.name != self.problem.name or state.columns.shape != self.columns[b].shape:
            expected = self.problem.name
            raise InputError("the snapshot is of another instance", field="state", value=state.name, expected=expected)
        if self.problem.columns is not None and (state.columns != self.problem.columns).any():
            expected = f"the columns of the scenario {self.problem.name}"
            raise InputError("the snapshot is of other inflows", field="state", value=state.columns, expected=expected)
        if (state.turbined is None) != (self.releases is None):
            mode = self.settings.action_mode
            raise InputError("the snapshot is of an env with another action_mode", field="state", expected=mode)
        t = state.stage
        self.keys[b], self.columns[b], self.scripted[b] = state.key, state.columns, state.scripted
        self.paths[b, :-1] = self.problem.path_inflows(state.columns)
        self.history[b, : t + 1] = state.volumes
        self.volumes[b], self.inflows[b] = state.volumes[t], self.paths[b, t]
        if self.releases is not None:
            self.releases[0][b, :t], self.releases[1][b, :t] = state.turbined, state.spilled
        self.stage[b], self.over[b] = t, t >= self.problem.horizon
        self.objective[b], self.target_violation[b] = state.objective, state.target_violation
        self.illegal[b] = state.illegal_actions
        self._observe(np.array([b]))
