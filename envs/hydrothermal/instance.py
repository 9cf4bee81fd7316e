"""A hydrothermal dispatch problem as immutable data, its solutions, and the independent checker."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from orl.common.problem import Bounds, Check

if TYPE_CHECKING:
    from orl.envs.hydrothermal.plan import ReservoirPlan

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Network = Literal["copper", "transport", "dc"]
NETWORKS: tuple[Network, ...] = ("copper", "transport", "dc")
HM3_PER_HOUR = 0.0036  # hm3 in one hour of 1 m3/s
SCHEMA = "orl.hydrothermal.instance/1"
DISPATCH_SCHEMA = "orl.hydrothermal.dispatch/1"


@dataclass(frozen=True, eq=False)
class Dispatch:
    """A solution for one inflow path: what every plant, generator and branch does in every stage.

    Attributes:
        columns: int64[T], the inflow columns met; int64[T, n] where every plant has its own.
        volumes: float64[T + 1, n], hm3; row 0 is the start, row t + 1 the end of stage t.
        turbined: float64[T, n], m3/s.
        spilled: float64[T, n], hm3 in the stage.
        power: float64[T, G], per unit.
        deficit, surplus: float64[T, B], per unit; on a copper plate only their sums over buses count.
        flows: float64[T, L], per unit, from ``branch_from`` to ``branch_to``; not read on a copper plate.
        angles: float64[T, B], radians; read only for the network ``dc``.
    """

    columns: Integers
    volumes: Floats
    turbined: Floats
    spilled: Floats
    power: Floats
    deficit: Floats
    surplus: Floats
    flows: Floats
    angles: Floats

    def to_json(self) -> dict[str, Any]:
        """The dispatch as versioned JSON data; :meth:`from_json` reads it back."""
        return {"schema": DISPATCH_SCHEMA, **{f.name: getattr(self, f.name).tolist() for f in fields(self)}}

    @classmethod
    def from_json(cls, data: Any, source: str | None = None) -> Dispatch:
        """Read what ``to_json`` wrote. Raises InputError naming source, field and value otherwise."""
        from orl.envs.hydrothermal.json_format import dispatch_from_json

        return dispatch_from_json(data, source)


@dataclass(frozen=True, eq=False)
class HydrothermalInstance:
    """n hydro plants, G generators, B buses and L branches over T stages, with random inflows.

    At the start of stage t (from 0) the inflow column of the stage is revealed, then the stage is dispatched; volumes
    at its end are the state of the next one. Powers are per unit on ``base_mva``; volumes hm3; flows of water m3/s,
    spilled water hm3 a stage; costs USD for each hour of a stage (not multiplied by ``stage_hours``), summed over the
    stages. Times ``stage_hours`` they are USD, times ``stage_hours / 1000`` thousands of USD.

    Water turbined (spilled) at a plant reaches at most one other plant, within the stage. Every instance that
    :mod:`orl.envs.hydrothermal.builders` accepts can be operated from every state: plants can always release their
    least outflow, what the network does not serve is deficit, and what it does not take is surplus. With
    ``surplus=False`` the last is not so: where least powers, or turbined water on its way to a plant that is to store
    it, give more than the demand, a stage has no dispatch.

    Attributes:
        name: Name of the instance.
        horizon: T.
        network: ``copper`` (one bus), ``transport`` (flows within limits) or ``dc`` (flows follow angles).
        stage_hours: Hours of a stage; K = 0.0036 * stage_hours hm3 for each m3/s.
        base_mva: MW of one per unit.
        plant_names: n names.
        plant_generator: int64[n], position of the plant's generator.
        production_factor: float64[n], MW for each m3/s turbined.
        min_volume, max_volume, initial_volume: float64[n], hm3.
        min_outflow, max_outflow: float64[n], turbined, m3/s.
        spill_costs: float64[n], USD per hm3.
        turbine_to, spill_to: bool[n, n]; ``[u, i]``: water turbined (spilled) at u reaches i in the same stage.
        upstream_first: int64[n], plants so ordered that every plant comes after those whose water reaches it.
        generator_bus: int64[G]; min_power, max_power: float64[G], per unit; generator_costs: float64[G], USD per
            per unit and hour.
        bus_names: B names; reference_bus: position of the bus with angle 0.
        demand: float64[P, B], per unit; stage t uses row ``t % P``.
        deficit_cost: USD per per unit and hour of demand not served; the same for surplus power where ``surplus``.
        branch_from, branch_to: int64[L], positions of buses.
        susceptance: float64[L], ``x / (r^2 + x^2)``.
        max_flow: float64[L], per unit, infinite where the branch has no limit.
        pair_from, pair_to: int64[A], bus pairs joined by branches; min_angle, max_angle: float64[A], radians.
        inflows: float64[R, n, S], m3/s; stage t draws a column of row ``t % R``.
        probabilities: float64[R, S].
        joint: Whether all plants take the same column (else each plant its own).
        surplus: Whether power may be thrown away at ``deficit_cost``.
        columns: int64[T] (int64[T, n] if not joint), or None. With columns given the instance is a scenario: those
            inflows come.
    """

    name: str
    horizon: int
    network: Network
    stage_hours: float
    base_mva: float
    plant_names: tuple[str, ...]
    plant_generator: Integers
    production_factor: Floats
    min_volume: Floats
    max_volume: Floats
    initial_volume: Floats
    min_outflow: Floats
    max_outflow: Floats
    spill_costs: Floats
    turbine_to: Booleans
    spill_to: Booleans
    upstream_first: Integers
    generator_bus: Integers
    min_power: Floats
    max_power: Floats
    generator_costs: Floats
    bus_names: tuple[str, ...]
    reference_bus: int
    demand: Floats
    deficit_cost: float
    branch_from: Integers
    branch_to: Integers
    susceptance: Floats
    max_flow: Floats
    pair_from: Integers
    pair_to: Integers
    min_angle: Floats
    max_angle: Floats
    inflows: Floats
    probabilities: Floats
    joint: bool = True
    surplus: bool = True
    columns: Integers | None = None

    def __post_init__(self) -> None:
        """An instance is immutable data: its arrays refuse to be written."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def n_plants(self) -> int:
        """n."""
        return len(self.plant_generator)

    @property
    def n_columns(self) -> int:
        """S, inflow columns of a stage."""
        return int(self.inflows.shape[2])

    @property
    def water_factor(self) -> float:
        """K, hm3 for each m3/s over a stage."""
        return HM3_PER_HOUR * self.stage_hours

    @property
    def n_generators(self) -> int:
        """G."""
        return len(self.generator_bus)

    @property
    def n_buses(self) -> int:
        """B."""
        return len(self.bus_names)

    @property
    def n_branches(self) -> int:
        """L."""
        return len(self.branch_from)

    @cached_property
    def least_outflow(self) -> Floats:
        """float64[n], m3/s: the least that a plant turbines, by its own limit and its generator's."""
        return self._outflow_limits[0]

    @cached_property
    def most_outflow(self) -> Floats:
        """float64[n], m3/s: the most that a plant can turbine, by its own limit and its generator's."""
        return self._outflow_limits[1]

    @cached_property
    def _outflow_limits(self) -> tuple[Floats, Floats]:
        productive = self.production_factor > 0
        per_flow = np.where(productive, self.production_factor, 1.0) / self.base_mva
        low, high = self.min_power[self.plant_generator], self.max_power[self.plant_generator]
        limits = (
            np.maximum(self.min_outflow, np.where(productive, low / per_flow, 0.0)),
            np.minimum(self.max_outflow, np.where(productive, high / per_flow, np.inf)),
        )
        for array in limits:
            array.setflags(write=False)
        return limits

    @cached_property
    def mean_inflows(self) -> Floats:
        """Expected inflow float64[R, n], m3/s."""
        mean: Floats = (self.inflows * self.probabilities[:, None, :]).sum(-1)
        mean.setflags(write=False)
        return mean

    def inflow(self, stage: int, column: int | Integers) -> Floats:
        """Inflow float64[n], m3/s, of a column of a stage; of a column for each plant with ``column`` int64[n]."""
        row: Floats = self.inflows[stage % len(self.inflows), np.arange(self.n_plants), column]
        return row

    def path_inflows(self, columns: Integers) -> Floats:
        """Inflows float64[..., T, n], m3/s, of paths int64[..., T] (int64[..., T, n] if not joint)."""
        columns = columns[..., None] if self.joint else columns
        rows = np.arange(columns.shape[-2]) % len(self.inflows)
        path: Floats = self.inflows[rows[:, None], np.arange(self.n_plants), columns]
        return path

    def stage_demand(self, stage: int) -> Floats:
        """Demand float64[B], per unit."""
        row: Floats = self.demand[stage % len(self.demand)]
        return row

    def same_as(self, other: HydrothermalInstance) -> bool:
        """Equal data, names included."""
        return self is other or self.to_json() == other.to_json()

    def with_horizon(self, horizon: int) -> HydrothermalInstance:
        """The same problem over T = ``horizon`` stages, named ``NAME-tT``; the columns of a scenario are cut.

        Raises:
            InputError: ``horizon`` is below 1, or above what the columns of a scenario cover.
        """
        from orl.envs.hydrothermal.scenario import change_horizon

        return change_horizon(self, horizon)

    def draw_columns(self, key: Any, draw: int = 0) -> Integers:
        """Columns int64[..., T] (int64[..., T, n] if not joint) of episodes with keys uint64[...].

        Stage t inverts the distribution of its columns at the uniform number of the counters (key, t, item, draw) of
        :mod:`orl.common.counter_noise`; item is 0, or the plant where every plant has its own. Draw 0 is what
        happens, 1, 2, ... are alternatives. A scenario's own columns, whatever the key, are its draw 0.
        """
        from orl.envs.hydrothermal.scenario import draw_columns

        return draw_columns(self, key, draw)

    def scenario_of(self, columns: Any, name: str | None = None) -> HydrothermalInstance:
        """The scenario with these columns, [T] (or [T, n] if not joint); ``name`` names it.

        Raises:
            InputError: wrong shape, no such column, or one of probability 0.
        """
        from orl.envs.hydrothermal.scenario import scenario_of

        return scenario_of(self, columns, name)

    def scenario(self, seed: int) -> HydrothermalInstance:
        """What an episode with ``reset(seed=seed)`` is going to meet; a scenario is its own for every seed."""
        from orl.envs.hydrothermal.scenario import draw_scenario

        return draw_scenario(self, seed)

    def check(self, solution: Dispatch | ReservoirPlan) -> Check:
        """Check every constraint of a dispatch and price it, with nothing but its numbers.

        A :class:`orl.envs.hydrothermal.plan.ReservoirPlan` is completed first, stage by stage at least cost. Water
        balances, production, power balances, the flow law, angle limits and all bounds hold to 1e-6 of the numbers
        involved. The objective is the cost in USD for each hour of a stage, summed over the stages.
        """
        from orl.envs.hydrothermal.dispatch import check_dispatch
        from orl.envs.hydrothermal.plan import check_plan

        return check_dispatch(self, solution) if isinstance(solution, Dispatch) else check_plan(self, solution)

    def lower_bound(self) -> float:
        """A cheap valid lower bound: on the cost of every dispatch of a scenario, else on expected costs.

        See :mod:`orl.envs.hydrothermal.bounds` for the idea and its proof.
        """
        from orl.envs.hydrothermal.bounds import energy_bound

        return energy_bound(self)

    def best_known(self) -> Bounds | None:
        """None: no public bounds are known for these instances."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The instance as versioned JSON data; :meth:`from_json` reads it back, to the last bit."""
        from orl.envs.hydrothermal.json_format import instance_to_json

        return instance_to_json(self)

    @classmethod
    def from_json(cls, data: Any, source: str | None = None) -> HydrothermalInstance:
        """Read what ``to_json`` wrote. Raises InputError naming source, field and value otherwise."""
        from orl.envs.hydrothermal.json_format import instance_from_json

        return instance_from_json(data, source)
