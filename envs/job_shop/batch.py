"""B copies of the shop-scheduling MDP over one kernel: what the single env and the vector env have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.common.errors import IllegalActionError, InputError
from orl.common.problem import relative_gap
from orl.common.protocols import IllegalActions
from orl.envs.job_shop import kernel, observation
from orl.envs.job_shop.arena import (
    DEAD,
    ELAPSED,
    END,
    ILLEGAL,
    LOWER_BOUND,
    MODE,
    N_FIXED,
    NEXT_EVENT,
    NOW,
    START,
    Arena,
)
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.observation import Normalization, ObservationKind
from orl.envs.job_shop.sizes import Sizes

Generator = Callable[[np.random.Generator], ShopInstance]
InstanceLike = str | Path | ShopInstance | Generator
Reward = Literal["lower_bound", "makespan", "idle"]
REWARDS = {
    "lower_bound": kernel.REWARD_LOWER_BOUND,
    "makespan": kernel.REWARD_MAKESPAN,
    "idle": kernel.REWARD_IDLE,
}


TERMINAL_KEYS: dict[str, type] = {
    "objective": float,
    "bound": float,
    "solution": object,
    "makespan": float,
    "lb0": float,
    "best_known": float,
    "gap": float,
    "pruned": bool,
    "illegal_actions": int,
}
"""What the info of a last step holds, and the dtype of its column in a batch."""


@dataclass(frozen=True)
class Settings:
    """Options of the MDP, with the meanings given in :class:`orl.envs.job_shop.env.JobShopEnv`."""

    observation: ObservationKind = "window"
    window: int = 5
    reward: Reward = "lower_bound"
    noop: bool = True
    symmetry_breaking: bool = False
    propagation: int = 0
    upper_bound: int | None = None
    normalization: Normalization = "scale"
    illegal: IllegalActions = "raise"
    observe_mask: bool = False
    observe_resource_mask: bool = False
    infos: Literal["lean", "full"] = "lean"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("observation", ("window", "compact", "graph")),
            ("reward", tuple(REWARDS)),
            ("propagation", (0, 1, 2)),
            ("normalization", ("scale", "reference")),
            ("illegal", ("raise", "remap", "count")),
            ("infos", ("lean", "full")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError("unknown option", field=name, value=getattr(self, name), expected=f"one of {allowed}")
        for name, whole in (("window", self.window), ("upper_bound", self.upper_bound)):
            if whole is not None and (isinstance(whole, bool) or not isinstance(whole, (int, np.integer))):
                raise InputError("not an integer", field=name, value=whole, expected="an integer")
        if self.window < 2:
            raise InputError("the window is too narrow", field="window", value=self.window, expected=">= 2")
        if (self.propagation == 2) != (self.upper_bound is not None):
            raise InputError(
                "propagation level 2 and upper_bound go together",
                field="upper_bound",
                value=self.upper_bound,
                expected="a makespan to beat, with propagation=2",
            )
        if self.normalization == "reference" and self.observation != "window":
            raise InputError("only the window is normalised that way", field="normalization", value="reference")
        if self.observe_resource_mask and self.observation != "window":
            raise InputError("only the window has a resource mask", field="observe_resource_mask", value=True)


@dataclass(frozen=True)
class ShopState:
    """Snapshot of one copy: the instance, the rows of its state arrays and the steps taken in the episode."""

    instance: ShopInstance
    arrays: dict[str, npt.NDArray[Any]]
    elapsed: int


class InstanceSource:
    """Where the instance of an episode comes from: fixed instances (drawn uniformly) and generators."""

    def __init__(self, instance: InstanceLike | Sequence[InstanceLike]) -> None:
        items: list[Any] = list(instance) if isinstance(instance, (list, tuple)) else [instance]
        if not items:
            raise InputError("no instance given", field="instance", value=instance, expected="at least one")
        self.items: list[ShopInstance | Generator] = [_resolve(item) for item in items]
        self.fixed = [item for item in self.items if isinstance(item, ShopInstance)]
        self.random = len(self.fixed) < len(self.items)

    def sizes(self) -> Sizes:
        """Sizes that hold every instance this source gives (a plain callable is sampled once)."""
        out = None
        for item in self.items:
            largest = item if isinstance(item, ShopInstance) else getattr(item, "largest", None)
            if largest is None:
                assert not isinstance(item, ShopInstance)
                largest = item(np.random.default_rng(0))
            out = Sizes.of(largest) if out is None else out | Sizes.of(largest)
        assert out is not None
        return out

    def draw(self, rng: np.random.Generator) -> tuple[int, ShopInstance]:
        """Index of the item and its instance; one 64-bit key from ``rng`` decides everything."""
        key = int(rng.integers(2**63))
        if len(self.items) == 1 and not self.random:
            return 0, self.fixed[0]
        episode = np.random.default_rng(key)
        index = int(episode.integers(len(self.items))) if len(self.items) > 1 else 0
        item = self.items[index]
        return index, item if isinstance(item, ShopInstance) else item(episode)


def require_render_mode(render_mode: str | None) -> None:
    """Raise InputError for a render mode that no face of this domain offers."""
    if render_mode not in (None, "rgb_array"):
        raise InputError("unknown mode", field="render_mode", value=render_mode, expected="None or 'rgb_array'")


def _resolve(item: InstanceLike) -> ShopInstance | Generator:
    if isinstance(item, (str, Path)):
        from orl.envs.job_shop import library

        return library.load(item)
    if isinstance(item, ShopInstance) or callable(item):
        return item
    raise InputError(
        "not an instance",
        field="instance",
        value=item,
        expected="a library name, a path, a ShopInstance, a callable(rng) -> ShopInstance, or a list of these",
    )


class ShopBatch:
    """State, buffers and kernel calls of ``n_copies`` copies."""

    def __init__(
        self,
        n_copies: int,
        instance: InstanceLike | Sequence[InstanceLike],
        settings: Settings,
        pad_to: ShopInstance | None = None,
    ) -> None:
        self.n_copies, self.settings = n_copies, settings
        self.source = InstanceSource(instance)
        self.sizes = self.source.sizes()
        if pad_to is not None:
            if not isinstance(pad_to, ShopInstance):
                raise InputError("not an instance", field="pad_to", value=pad_to, expected="a ShopInstance")
            self.sizes = self.sizes | Sizes.of(pad_to)
        self.n_slots = self.sizes.lines * self.sizes.max_modes
        self.config = kernel.Config(
            noop=int(settings.noop),
            symmetry_breaking=int(settings.symmetry_breaking),
            propagation=settings.propagation,
            reward=REWARDS[settings.reward],
            max_modes=self.sizes.max_modes,
            strict=int(settings.illegal == "raise"),
        )
        self.observation_space = observation.observation_space(
            settings.observation,
            self.sizes,
            settings.window,
            settings.observe_mask,
            settings.observe_resource_mask,
        )
        self.action_space = spaces.Discrete(self.n_slots + 1)
        first = self.source.draw(np.random.default_rng(0))[1] if self.source.random else None
        rows = self.source.fixed if first is None else [first] * n_copies
        for row in rows:
            self._require_makespan(row)
        self.arena = Arena(rows, n_copies, self.sizes.lines, self.sizes.max_modes, settings.upper_bound)
        if self.source.random:
            self.arena.row[:] = np.arange(n_copies)
        self.buffers = observation.make_buffers(self.observation_space, n_copies)
        self.reward = np.zeros(n_copies)
        self.terminated = np.ones(n_copies, np.bool_)  # no episode runs before reset
        self.everyone = np.ones(n_copies, np.bool_)
        self._bind()

    # ---- transition --------------------------------------------------------------------------------------------
    def draw(self, b: int, rng: np.random.Generator) -> None:
        """Choose the instance of the next episode of copy ``b``."""
        index, instance = self.source.draw(rng)
        if self.source.random:
            self._put(b, instance)
        else:
            self.arena.row[b] = index

    def _put(self, b: int, instance: ShopInstance) -> None:
        """Write an instance into the bank row of copy ``b``; arrays grow when it is larger than all before."""
        if self.arena.instances[b] is not instance:
            self._require_makespan(instance)
            self.sizes.require(instance, graph=self.settings.observation == "graph")
            if self.arena.put(b, instance):
                self._bind()

    def _require_makespan(self, instance: ShopInstance) -> None:
        if self.settings.propagation == 2 and instance.objective != "makespan":
            raise InputError(
                "propagation level 2 prunes by the makespan",
                source=instance.name,
                field="propagation",
                value=2,
                expected=f"0 or 1 for the objective {instance.objective!r}",
            )

    def reset(self, which: npt.NDArray[np.bool_]) -> None:
        """Put the marked copies at the root of their instances and write their observations."""
        a = self.arena
        dead = kernel.reset_batch(self.packed, a.ints, a.longs, a.row, a.state, a.clock, a.mask, which, self.terminated)
        if dead >= 0:
            instance = self.instance(dead)
            if self.settings.upper_bound is None:
                raise InputError("no schedule meets the deadlines", source=instance.name, field="deadline")
            raise InputError(
                "no schedule is better than the upper bound",
                source=instance.name,
                field="upper_bound",
                value=self.settings.upper_bound,
            )
        self.observe(which)

    def step(self, actions: npt.NDArray[np.int64], active: npt.NDArray[np.bool_]) -> None:
        """Step the active copies into ``reward``, ``terminated`` and the observation buffers."""
        if self._window is not None:
            illegal = observation.step_window(*self._data, active, *self._window, actions, self.reward, self.terminated)  # type: ignore[call-arg]
            if self._reference and illegal < 0:
                self._normalize_reference(active)
        else:
            illegal = kernel.step_batch(*self._data, actions, active, self.reward, self.terminated)  # type: ignore[call-arg]
            if illegal < 0:
                self.observe(active)
        if illegal >= 0:
            self._refuse(illegal, int(actions[illegal]))

    def refuse_illegal(self, actions: npt.NDArray[np.int64], active: npt.NDArray[np.bool_]) -> None:
        """Under ``illegal="raise"``, raise for the first active copy whose action is illegal; changes nothing."""
        if self.settings.illegal == "raise":
            for b in np.flatnonzero(active).tolist():
                if kernel.legal_action(self.arena.mask[b], actions[b]) != actions[b]:
                    self._refuse(b, int(actions[b]))

    def _refuse(self, b: int, action: int) -> NoReturn:
        allowed = np.flatnonzero(self.arena.mask[b]).tolist()
        shown = f"{allowed[:12]}{'...' if len(allowed) > 12 else ''}"
        raise IllegalActionError(
            f"action {action} of copy {b} is illegal now; legal: {shown} "
            "(see action_masks(); illegal='remap' or 'count' replaces it by the lowest legal one)"
        )

    def observe(self, which: npt.NDArray[np.bool_]) -> None:
        """Write the observations of the marked copies into the buffers."""
        if self._window is not None:
            observation.write_window(*self._data, which, *self._window)  # type: ignore[call-arg]
            if self._reference:
                self._normalize_reference(which)
        elif self.settings.observation == "compact":
            observation.write_compact(*self._data, which, self.buffers["slots"])  # type: ignore[call-arg]
        else:
            observation.write_graph(*self._data, which, self.buffers["node_features"], self.buffers["edge_index"])  # type: ignore[call-arg]

    def _normalize_reference(self, which: npt.NDArray[np.bool_]) -> None:
        window = self.buffers["interval_rep"]
        for b in np.flatnonzero(which).tolist():
            duration = self.instance(b).min_duration
            mean, deviation = float(duration.mean()), float(duration.std()) + 1e-8
            window[b] = observation.normalize_reference(window[b], mean, deviation)

    def _bind(self) -> None:
        """Gather the arrays that every kernel call takes (again whenever the arena has been laid out anew)."""
        a = self.arena
        self.packed = np.array([*a.layout, *self.config], np.int64)
        self._data: Any = (
            self.packed,
            a.ints,
            a.longs,
            a.floats,
            a.row,
            a.state,
            a.clock,
            a.mask,
        )
        if self.settings.observe_mask:
            self.buffers["action_mask"] = a.mask.view(np.int8)
        self._window: Any = None
        self._reference = self.settings.normalization == "reference"
        if self.settings.observation == "window":
            self._window = (
                *(self.buffers[key] for key in observation.WINDOW_KEYS),
                self.buffers.get("job_resource_mask", np.zeros((0, 0, 0), np.float32)),
                not self._reference,
            )
        self.keys = list(self.observation_space) if isinstance(self.observation_space, spaces.Dict) else ["slots"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copies and pickles of an env must see their own arrays, not views of the original's."""
        self.__dict__.update(state)
        self._bind()

    # ---- views -------------------------------------------------------------------------------------------------
    def instance(self, b: int) -> ShopInstance:
        """The instance copy ``b`` plays."""
        return self.arena.instances[self.arena.row[b]]

    def schedule(self, b: int) -> Schedule:
        """The schedule of copy ``b`` so far: start -1 and mode 0 where an operation has not been started."""
        start, mode = self.arena.operations(b, START).copy(), self.arena.operations(b, MODE)
        start[mode < 0] = -1
        return Schedule(start, np.maximum(mode, 0))

    def terminal_info(self, b: int) -> dict[str, Any]:
        """End-of-episode keys of copy ``b``.

        The objective of an incomplete schedule is infinite: a dead end (``pruned``) or a truncated episode.
        """
        instance, clock = self.instance(b), self.arena.clock[b]
        pruned = bool(clock[DEAD])
        incomplete = pruned or clock[N_FIXED] < instance.n_ops
        solution = self.schedule(b)
        end = self.arena.operations(b, END)
        objective = np.inf if incomplete else float(instance.objective_value(end))
        known = instance.best_known()
        best = float("nan") if known is None else float(known.upper)
        return {
            "objective": objective,
            "bound": instance.lower_bound(),
            "solution": solution,
            "makespan": np.inf if incomplete else float(end.max()),
            "lb0": float(instance.makespan_bound),
            "best_known": best,
            "gap": float("nan") if known is None else relative_gap(objective, best),
            "pruned": pruned,
            "illegal_actions": int(clock[ILLEGAL]),
        }

    def step_info(self, b: int) -> dict[str, Any]:
        """Per-step keys under ``infos="full"``."""
        clock = self.arena.clock[b]
        return {
            "now": int(clock[NOW]),
            "next_event": int(clock[NEXT_EVENT]),
            "lower_bound": int(clock[LOWER_BOUND]),
            "n_started": int(clock[N_FIXED]),
            "illegal_actions": int(clock[ILLEGAL]),
        }

    def get_state(self, b: int) -> ShopState:
        """Snapshot of copy ``b``; independent of the batch and of later steps, picklable."""
        return ShopState(self.instance(b), self.arena.snapshot(b), int(self.arena.clock[b, ELAPSED]))

    def set_state(self, b: int, state: ShopState) -> None:
        """Restore a snapshot into copy ``b`` (also one of another batch over the same instance sizes)."""
        n_slots = len(state.arrays["slot_start"])
        if n_slots != self.n_slots:
            raise InputError(
                "the snapshot has another number of slots", field="state", value=n_slots, expected=str(self.n_slots)
            )
        if self.source.random:
            self._put(b, state.instance)
        else:
            instances = self.arena.instances
            known = [k for k, instance in enumerate(instances) if instance is state.instance]
            if not known:
                known = [k for k, instance in enumerate(instances) if instance.same_as(state.instance)]
            if not known:
                names = str([instance.name for instance in instances[:8]])
                raise InputError(
                    "the snapshot is of another instance", field="state", value=state.instance.name, expected=names
                )
            self.arena.row[b] = known[0]
        self.arena.restore(b, state.arrays)
        self.terminated[b] = kernel.finished(self.arena.longs[self.arena.row[b]], self.arena.clock[b])
        which = np.zeros(self.n_copies, np.bool_)
        which[b] = True
        self.observe(which)
