"""Hydrothermal dispatch for algorithms that decide on next states: volumes after a stage as targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.protocols import SoftTargetModel
from orl.envs.hydrothermal.dual_pool import DualPool
from orl.envs.hydrothermal.horizon_lp import TargetFollowing, water_value_limit
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.observation import features, scales, state_at
from orl.envs.hydrothermal.reach import ReachableMap

TargetMode = Literal["reach", "target"]
TARGET_MODES: tuple[TargetMode, ...] = get_args(TargetMode)


class HydrothermalTargets:
    """The :class:`orl.common.protocols.SoftTargetModel` of an instance.

    The state is the volumes (hm3) before a stage, the noise its inflows (m3/s), the decision the volumes after it. With
    volumes as data a stage is the strict programme of :mod:`orl.envs.hydrothermal.stage_lp`, whose right-hand side is
    ``before + K inflow - after``: its duals are the derivatives of the cost by ``before``, and their negatives those by
    ``after``. A :class:`orl.envs.hydrothermal.dual_pool.DualPool` answers them in batches. Costs are USD for each hour
    of a stage; losses count in thousands.

    A pickled model keeps its pool.

    Args:
        instance: The problem; the noise of a scenario is its own inflows, whatever the keys.
        action_mode: ``reach``: fractions lie between the limits of what can be reached. ``target``: between least and
            largest volumes, and what cannot be reached is moved to the nearest limit, from the top plant down.
        pool_size: Bases that the pool may hold for each row of demand.

    Attributes:
        pool: The pool. It is new with every model: results depend on what the model was asked, and nothing else.
        penalty: Twice the greatest value that an hm3 can have.

    Raises:
        InputError: Unknown ``action_mode``, ``pool_size`` below 1, an instance whose water flows back.

    >>> from orl.envs.hydrothermal.library import load
    >>> model = HydrothermalTargets(load("tri3"))
    >>> noise = model.draw(np.arange(2, dtype=np.uint64))  # of two episodes
    >>> after = model.reach(np.tile(model.initial_state, (2, 1)), noise[0], np.full((2, 3), 0.5))
    >>> noise.shape, after.shape
    ((4, 2, 3), (2, 3))
    """

    def __init__(
        self, instance: HydrothermalInstance, action_mode: TargetMode = "reach", *, pool_size: int = 4096
    ) -> None:
        if action_mode not in TARGET_MODES:
            expected = f"one of {TARGET_MODES}"
            raise InputError("this mode has no targets", field="action_mode", value=action_mode, expected=expected)
        self.instance, self.action_mode = instance, action_mode
        self.reachable = action_mode == "reach"
        self.n_stages = instance.horizon
        self.initial_state: Floats = np.array(instance.initial_volume)
        self._scales = scales(instance)
        self.state_unit = self._scales.volume_unit
        self.state_at = state_at(instance)
        self.cost_unit = 1000.0
        self.target_lower: Floats = np.array(instance.min_volume)
        self.target_upper: Floats = np.array(instance.max_volume)
        self.penalty = 2.0 * water_value_limit(instance)
        self.pool = DualPool(instance, size=pool_size)
        self._map = ReachableMap(instance)
        self._following = TargetFollowing(instance)

    # ---- Noise -------------------------------------------------------------------------------------------------------
    def draw(self, keys: npt.NDArray[np.uint64]) -> Floats:
        """Inflows float64[T, B, n], m3/s, of episodes with keys uint64[B]; an env meets the same with the same key."""
        return np.moveaxis(self.instance.path_inflows(self.instance.draw_columns(keys)), -2, 0)

    def noise_of(self, columns: npt.ArrayLike) -> Floats:
        """Inflows float64[T, B, n], m3/s, of columns int64[T, B] (int64[T, B, n] where plants have their own).

        Raises:
            InputError: Columns of another shape, or none such in the instance.
        """
        given: Integers = np.asarray(columns)
        shape = f"int64[{self.n_stages}, B]" if self.instance.joint else f"int64[{self.n_stages}, B, n]"
        n_axes = 2 if self.instance.joint else 3
        if given.ndim != n_axes or len(given) != self.n_stages or given.dtype.kind not in "iu":
            problem = f"{given.dtype}{list(given.shape)}"
            raise InputError("bad columns", source=self.instance.name, field="columns", value=problem, expected=shape)
        if given.size and not 0 <= int(given.min()) <= int(given.max()) < self.instance.n_columns:
            outside = given[(given < 0) | (given >= self.instance.n_columns)][0]
            expected = f"0..{self.instance.n_columns - 1}"
            raise InputError(
                "no such inflow column", source=self.instance.name, field="columns", value=outside, expected=expected
            )
        return np.moveaxis(self.instance.path_inflows(np.moveaxis(given, 0, 1)), -2, 0)

    def features(self, noise: Floats) -> Floats:
        """Observations float64[T, B, 2 n + 3] of inflows float64[T, B, n], with 0 where the volumes stand."""
        return features(self.instance, noise, np.arange(len(noise))[:, None], self._scales)

    # ---- Next states -------------------------------------------------------------------------------------------------
    def reach(self, state: Floats, noise: Floats, fractions: Floats) -> Floats:
        """Volumes float64[B, n] after a stage with volumes, inflows and fractions float64[B, n]."""
        if self.reachable:
            return self._map(state, noise, fractions).volumes
        return self._map.project(state, noise, self._targets(fractions)).volumes

    def reach_gradient(
        self, state: Floats, noise: Floats, fractions: Floats, gradient: Floats
    ) -> tuple[Floats, Floats]:
        """Derivatives of ``(gradient * reach(...)).sum()`` by volumes and fractions, float64[B, n] each.

        They are exact; at kinks they are those on one of the sides.
        """
        if self.reachable:
            return self._map.gradient(state, noise, fractions, gradient)
        targets = self._targets(fractions)
        by_state, by_targets = self._map.gradient(state, noise, targets, gradient, as_targets=True)
        return by_state, by_targets * (self.target_upper - self.target_lower)

    def _targets(self, fractions: Floats) -> Floats:
        return self.target_lower + fractions * (self.target_upper - self.target_lower)

    # ---- Costs -------------------------------------------------------------------------------------------------------
    def costs_and_gradients(self, before: Floats, noise: Floats, after: Floats) -> tuple[Floats, Floats, Floats]:
        """Stage costs float64[T, B] from volumes to volumes [T, B, n] with inflows, and derivatives by both volumes.

        Raises:
            StageError: Volumes that no dispatch leads to.
        """
        right_hand_sides = before + self.instance.water_factor * noise - after
        stages = np.arange(len(right_hand_sides))[:, None]
        costs, duals = self.pool.costs_and_duals(right_hand_sides, stages)
        return costs, duals, -duals

    def soft_costs_and_gradients(
        self, noise: Floats, targets: Floats, penalty: float, window: int | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """See the protocol; the programmes are those of :mod:`orl.envs.hydrothermal.horizon_lp`.

        Raises:
            InputError: ``penalty`` below 0 or not finite, ``window`` below 1.
        """
        if not 0 <= penalty < np.inf:
            raise InputError("bad price of missed targets", field="penalty", value=penalty, expected="a number >= 0")
        if window is not None and window < 1:
            raise InputError("no window", field="window", value=window, expected="stages >= 1, or None for all")
        n_paths = targets.shape[1]
        costs, penalties, gradients = np.empty(n_paths), np.empty(n_paths), np.empty(targets.shape)
        for b in range(n_paths):
            costs[b], penalties[b], gradients[:, b] = self._following(noise[:, b], targets[:, b], penalty, window)
        return costs, penalties, gradients

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.instance.name!r}, {self.action_mode!r})"


if TYPE_CHECKING:
    _protocol: type[SoftTargetModel] = HydrothermalTargets
