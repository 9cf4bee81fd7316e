"""The single hydrothermal environment: a thin Gymnasium face over the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.protocols import IllegalActions
from orl.common.reset_options import refuse_unknown_options
from orl.envs.hydrothermal.batch import (
    RESET_OPTIONS,
    ActionMode,
    Evaluator,
    HydrothermalBatch,
    HydrothermalState,
    InstanceLike,
    Settings,
    instance_of,
)
from orl.envs.hydrothermal.instance import HydrothermalInstance, Network
from orl.envs.hydrothermal.observation import ObservationKind
from orl.envs.hydrothermal.plan import ReservoirPlan

if TYPE_CHECKING:
    from orl.envs.hydrothermal.target_model import HydrothermalTargets


class HydrothermalEnv(gymnasium.Env[Any, npt.NDArray[Any]]):
    """Say at every stage how full each reservoir shall be afterwards; the network is then dispatched at least cost.

    Registered as ``orl/Hydrothermal-v0``. n hydro plants, T stages. The inflow of the stage is seen before the
    decision; the next one is not.

    **Action** ``Box(-1, 1, [n])`` float32; float64 is used as it is. With y = (a + 1) / 2 for each plant, by
    ``action_mode``:

    - ``"reach"`` (default): y of the way from the least to the greatest volume that can be reached
      (:class:`orl.envs.hydrothermal.reach.ReachableMap`);
    - ``"target"``: y of the way from the least to the greatest volume of the reservoir, then moved to the nearest that
      can be reached;
    - ``"turbine"``: y of the way from the least to the most turbined water; less where water is short. Only what does
      not fit is spilled. The plants' power is then fixed. Needs an instance with ``surplus``.

    Numbers outside [-1, 1] (by more than 1e-6) and NaN are illegal (``illegal``). There are no masks.

    **Observation** float32 (``observation``):

    - ``"flat"`` (default): Box [2 n + 3], volume / largest volume, inflow less its mean over its standard deviation,
      sine and cosine of the season, t / T;
    - ``"raw"``: Box [2 n + 1], volumes in hm3, inflows in m3/s, t.

    After the last stage the inflow features are 0.

    **Reward** (maximised): minus the cost of the stage in USD for each hour of it, times ``reward_scale``.

    An instance with ``surplus=False`` may force more power than it takes; such a step raises
    :class:`orl.envs.hydrothermal.stage_lp.StageError` and changes nothing.

    **Episode end**: ``terminated`` after T stages. The terminal info holds ``objective`` (total cost, not scaled),
    ``bound`` (a lower bound for the inflows that came), ``solution`` (a ReservoirPlan), ``target_violation`` (hm3 by
    which volumes missed the targets of mode ``"target"``, summed) and ``illegal_actions``.

    **Randomness**: ``reset(seed=s)`` meets the inflows of ``instance.scenario(s)``, whatever is done.
    ``reset(options={"columns": int[T], "volumes": float[n]})`` prescribes inflow columns ([T, n] where every plant has
    its own) or the volumes to start from, hm3; the solution of an episode that started elsewhere is one of the
    instance with that ``initial_volume``.

    Source: the stage problem is that of Rosemberg and others (2022), stated with its reference in
    :mod:`orl.envs.hydrothermal.stage_model`.

    Args:
        instance: Library name, path or HydrothermalInstance. A scenario is replayed as it is.
        network: ``copper``, ``transport`` or ``dc`` instead of the instance's own.
        horizon: T instead of the instance's own.
        action_mode, observation: See above.
        evaluator: ``"pool"``: costs by table (:class:`orl.envs.hydrothermal.dual_pool.DualPool`), fast once it is warm;
            ``"highs"``: a programme solved at every step. Costs agree to 1e-6 USD but for rounding.
        reward_scale: Positive factor of the rewards; objectives are not scaled.
        illegal: ``"raise"`` IllegalActionError, ``"remap"`` (clip, 0 for NaN), or ``"count"`` (remap and count).
        infos: ``"full"`` adds to every step's info, at the price of a programme solved from a cold start, ``cost``,
            ``thermal_cost`` and ``deficit_cost`` (USD for each hour of the stage), ``deficit_mw``, ``hydro_mw`` and
            ``thermal_mw``, ``spill_hm3``, ``volumes`` [n] after the stage (hm3), ``inflow`` [n] (m3/s),
            ``water_value`` [n] (USD per hm3 more; in mode ``"turbine"`` per hm3 turbined), ``bus_price`` [B] (USD/MWh),
            ``lp_source`` (``"pool"`` or ``"simplex"``: where the cost came from), ``column`` (of inflow),
            ``target_violation`` and ``illegal_actions`` so far.
        render_mode: ``"rgb_array"``: ``render()`` draws volumes and supply so far.

    >>> env = HydrothermalEnv("tri3")
    >>> obs, info = env.reset(seed=0)
    >>> done = False
    >>> while not done:
    ...     obs, reward, done, truncated, info = env.step(np.array([0.5, 0.0, 1.0]))
    >>> check = env.instance.scenario(0).check(info["solution"])
    >>> check.feasible, bool(abs(check.objective - info["objective"]) < 1e-3)
    (True, True)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        instance: InstanceLike = "tri3",
        *,
        network: Network | None = None,
        horizon: int | None = None,
        action_mode: ActionMode = "reach",
        observation: ObservationKind = "flat",
        evaluator: Evaluator = "pool",
        reward_scale: float = 1e-4,
        illegal: IllegalActions = "raise",
        infos: Literal["lean", "full"] = "lean",
        render_mode: str | None = None,
    ) -> None:
        settings = Settings(
            action_mode=action_mode,
            observation=observation,
            evaluator=evaluator,
            reward_scale=reward_scale,
            illegal=illegal,
            infos=infos,
        )
        require_render_mode(render_mode)
        self.render_mode = render_mode
        self.batch = HydrothermalBatch(1, instance_of(instance, network, horizon), settings)
        self.observation_space = self.batch.observation_space
        self.action_space = self.batch.action_space
        self._full, self._reward_scale = infos == "full", float(reward_scale)

    @property
    def instance(self) -> HydrothermalInstance:
        """The instance, or scenario, that is played."""
        return self.batch.problem

    @property
    def illegal_actions(self) -> int:
        """Illegal actions replaced in the current episode."""
        return int(self.batch.illegal[0])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Start an episode; a seed fixes every later draw. Options: see the class."""
        refuse_unknown_options(options, *RESET_OPTIONS)
        super().reset(seed=seed)
        self.batch.reset(self.batch.everyone, [self.np_random], options)
        return self.batch.observations[0].copy(), {}

    def step(self, action: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Do ``action`` float[n] and pay for the stage; see the class for what is returned."""
        batch = self.batch
        if batch.over[0]:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode is running")
        chosen = batch.actions_of(action, batch.volumes.shape[1:])
        batch.step(chosen[None], batch.everyone)
        done = bool(batch.over[0])
        info: dict[str, Any] = row_of_columns(batch.step_columns(batch.everyone)) if self._full else {}
        if done:
            info.update(row_of_columns(batch.terminal_columns([0])))
        reward = 0.0 - float(batch.costs[0]) * self._reward_scale
        return batch.observations[0].copy(), reward, done, False, info

    # ---- the problem behind the env ----------------------------------------------------------------------------------
    def target_model(self) -> HydrothermalTargets:
        """The problem as algorithms that learn targets see it: :class:`orl.common.protocols.TargetModel`.

        Raises:
            InputError: ``action_mode="turbine"`` or ``observation="raw"``.
        """
        return target_model_of(self.batch)

    # ---- snapshots and pictures --------------------------------------------------------------------------------------
    def plan(self) -> ReservoirPlan:
        """What was done and which inflow columns came so far."""
        return self.batch.plan(0)

    def get_state(self) -> HydrothermalState:
        """Exact snapshot of the episode; independent of later steps, picklable."""
        return self.batch.get_state(0)

    def set_state(self, state: HydrothermalState) -> npt.NDArray[np.float32]:
        """Restore a snapshot and return its observation."""
        self.batch.set_state(0, state)
        observed: npt.NDArray[np.float32] = self.batch.observations[0].copy()
        return observed

    def redrawn(self, state: HydrothermalState, rng: np.random.Generator) -> HydrothermalState:
        """The snapshot with the same past and the inflows to come drawn anew."""
        return self.batch.redrawn(state, rng)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Volumes and supply so far as uint8[H, W, 3] (``render_mode="rgb_array"``)."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() without a render mode: make the env with render_mode='rgb_array'.")
            return None
        from orl.envs.hydrothermal.viewer import rgb

        return rgb(self.instance, self.plan())


def require_render_mode(render_mode: str | None) -> None:
    """Raise InputError for a render mode that no face of this domain offers."""
    if render_mode not in (None, "rgb_array"):
        raise InputError("unknown mode", field="render_mode", value=render_mode, expected="None or 'rgb_array'")


def row_of_columns(columns: dict[str, Any]) -> dict[str, Any]:
    """The first row of columns as an info dict: Python scalars, arrays and objects.

    >>> row_of_columns({"cost": np.array([1.5]), "volumes": np.array([[1.0, 2.0]])})
    {'cost': 1.5, 'volumes': array([1., 2.])}
    """
    first = {key: value[0] for key, value in columns.items()}
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in first.items()}


def target_model_of(batch: HydrothermalBatch) -> HydrothermalTargets:
    """The target model of a batch; see :meth:`HydrothermalEnv.target_model`."""
    from orl.envs.hydrothermal.target_model import HydrothermalTargets

    mode, kind = batch.settings.action_mode, batch.settings.observation
    if mode == "turbine":
        expected = "reach or target: actions that name the next volumes"
        raise InputError("no targets", field="action_mode", value=mode, expected=expected)
    if kind == "raw":
        raise InputError("not the features of the target model", field="observation", value=kind, expected="flat")
    return HydrothermalTargets(batch.problem, mode)
