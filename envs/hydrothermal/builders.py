"""Validated hydrothermal instances from plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from orl.common.errors import InputError
from orl.common.numbers import floats, integers
from orl.envs.hydrothermal.instance import NETWORKS, Booleans, Floats, HydrothermalInstance, Integers

MAX_HORIZON = 10_000
MAX_PLANTS = 1_000
MAX_SIZE = 100_000
"""Most generators, buses or branches."""
MAX_ANGLE = 1e3
_SUM_TOLERANCE = 1e-9
_SLACK = 1e-9  # of limits that are computed from each other


def hydrothermal(
    *,
    horizon: int,
    production_factor: Any,
    max_volume: Any,
    max_outflow: Any,
    inflows: Any,
    max_power: Any,
    generator_costs: Any,
    plant_generator: Any,
    demand: Any,
    deficit_cost: float,
    stage_hours: float = 1.0,
    base_mva: float = 100.0,
    network: str = "dc",
    name: str = "hydrothermal",
    plant_names: Any = None,
    min_volume: Any = None,
    initial_volume: Any = None,
    min_outflow: Any = None,
    spill_costs: Any = None,
    turbine_to: Any = None,
    spill_to: Any = None,
    generator_bus: Any = None,
    min_power: Any = None,
    bus_names: Any = None,
    reference_bus: int = 0,
    branch_from: Any = (),
    branch_to: Any = (),
    susceptance: Any = (),
    max_flow: Any = (),
    pair_from: Any = (),
    pair_to: Any = (),
    min_angle: Any = (),
    max_angle: Any = (),
    probabilities: Any = None,
    joint: bool = True,
    surplus: bool = True,
    columns: Any = None,
    source: str | None = None,
) -> HydrothermalInstance:
    """A hydrothermal instance, checked. Fields are those of :class:`HydrothermalInstance`, as lists or arrays, except:

    Args:
        turbine_to: int[n], the position of the plant that a plant's turbined water reaches; -1: it leaves the system.
        spill_to: Likewise for spilled water. Both default to -1.
        min_volume, initial_volume, min_outflow, spill_costs, min_power: 0 where left out.
        generator_bus: All on bus 0 where left out.
        plant_names, bus_names: ``plant 1``, ... and ``bus 1``, ... where left out.
        max_flow: None stands for a branch without a limit; likewise ``min_angle`` and ``max_angle``.
        probabilities: Uniform where left out.
        source: Where the numbers come from, for messages.

    Raises:
        InputError: wrong shapes, bad numbers, positions that do not exist, a lower limit above the upper one, a cyclic
            cascade, probabilities that do not sum to 1, a least outflow that the water may not suffice for, ...; the
            message names source, field and value.

    >>> instance = hydrothermal(horizon=3, production_factor=[1.0], max_volume=[50.0], max_outflow=[20.0],
    ...                         inflows=[[[5.0, 15.0]]], max_power=[0.2, 0.3], generator_costs=[0.0, 4000.0],
    ...                         plant_generator=[0], demand=[[0.4]], deficit_cost=50000.0, stage_hours=730.0)
    >>> instance.n_plants, instance.n_columns, round(instance.water_factor, 3)
    (1, 2, 2.628)
    """
    if not isinstance(name, str) or not 0 < len(name) <= 1000:
        raise InputError("not a name", source=source, field="name", value=name, expected="a text")
    if network not in NETWORKS:
        raise InputError(
            "unknown network", source=source, field="network", value=network, expected=" | ".join(NETWORKS)
        )
    for field, flag in (("joint", joint), ("surplus", surplus)):
        if not isinstance(flag, bool):
            raise InputError("not true or false", source=source, field=field, value=flag)
    stages = whole_horizon(horizon, source)
    hours = float(floats(stage_hours, "stage_hours", (), low=1e-3, high=1e5, source=source))
    base = float(floats(base_mva, "base_mva", (), low=1e-3, high=1e6, source=source))
    demand_table = floats(demand, "demand", (None, None), source=source)
    inflow_table = floats(inflows, "inflows", (None, None, None), low=0, source=source)
    n_buses, n = demand_table.shape[1], inflow_table.shape[1]
    _require_size(n_buses, MAX_SIZE, "buses", "demand", source)
    _require_size(n, MAX_PLANTS, "plants", "inflows", source)

    def of_plants(value: Any, field: str) -> Floats:
        return np.zeros(n) if value is None else floats(value, field, (n,), low=0, source=source)

    capacity = floats(max_power, "max_power", (None,), low=0, source=source)
    g = len(capacity)
    _require_size(g, MAX_SIZE, "generators", "max_power", source)
    least_power = np.zeros(g) if min_power is None else floats(min_power, "min_power", (g,), low=0, source=source)
    generator = integers(plant_generator, "plant_generator", (n,), low=0, high=g - 1, source=source)
    _require_once(generator, "plant_generator", source)
    receivers = {
        field: np.full(n, -1) if to is None else integers(to, field, (n,), low=-1, high=n - 1, source=source)
        for field, to in (("turbine_to", turbine_to), ("spill_to", spill_to))
    }
    turbine, spill = (_matrix(to) for to in receivers.values())
    branches = integers(branch_from, "branch_from", _length(branch_from), low=0, high=n_buses - 1, source=source)
    pairs = integers(pair_from, "pair_from", _length(pair_from), low=0, high=n_buses - 1, source=source)
    n_branches, n_pairs = (len(branches),), (len(pairs),)
    _require_size(len(branches), MAX_SIZE, "branches", "branch_from", source)
    buses = np.zeros(g, np.int64) if generator_bus is None else generator_bus
    instance = HydrothermalInstance(
        name=name,
        horizon=stages,
        network=network,
        stage_hours=hours,
        base_mva=base,
        plant_names=_names(plant_names, n, "plant", source),
        plant_generator=generator,
        production_factor=floats(production_factor, "production_factor", (n,), low=0, source=source),
        min_volume=of_plants(min_volume, "min_volume"),
        max_volume=of_plants(max_volume, "max_volume"),
        initial_volume=of_plants(min_volume if initial_volume is None else initial_volume, "initial_volume"),
        min_outflow=of_plants(min_outflow, "min_outflow"),
        max_outflow=of_plants(max_outflow, "max_outflow"),
        spill_costs=of_plants(spill_costs, "spill_costs"),
        turbine_to=turbine,
        spill_to=spill,
        upstream_first=upstream_first(receivers["turbine_to"], receivers["spill_to"], source),
        generator_bus=integers(buses, "generator_bus", (g,), low=0, high=n_buses - 1, source=source),
        min_power=least_power,
        max_power=capacity,
        generator_costs=floats(generator_costs, "generator_costs", (g,), low=0, source=source),
        bus_names=_names(bus_names, n_buses, "bus", source),
        reference_bus=int(integers(reference_bus, "reference_bus", (), low=0, high=n_buses - 1, source=source)),
        demand=demand_table,
        deficit_cost=float(floats(deficit_cost, "deficit_cost", (), low=0, source=source)),
        branch_from=branches,
        branch_to=integers(branch_to, "branch_to", n_branches, low=0, high=n_buses - 1, source=source),
        susceptance=floats(susceptance, "susceptance", n_branches, source=source),
        max_flow=floats(max_flow, "max_flow", n_branches, low=0, none=np.inf, source=source),
        pair_from=pairs,
        pair_to=integers(pair_to, "pair_to", n_pairs, low=0, high=n_buses - 1, source=source),
        min_angle=floats(min_angle, "min_angle", n_pairs, low=-MAX_ANGLE, high=MAX_ANGLE, none=-np.inf, source=source),
        max_angle=floats(max_angle, "max_angle", n_pairs, low=-MAX_ANGLE, high=MAX_ANGLE, none=np.inf, source=source),
        inflows=inflow_table,
        probabilities=_probabilities(probabilities, inflow_table, source),
        joint=joint,
        surplus=surplus,
    )
    _require_order(instance, source)
    _require_least_outflow(instance, source)
    if columns is None:
        return instance
    given = checked_columns(columns, stages, instance.probabilities, n, joint, source)
    object.__setattr__(instance, "columns", given)
    given.setflags(write=False)
    return instance


def whole_horizon(value: Any, source: str | None = None) -> int:
    """A number of stages, checked."""
    return int(integers(value, "horizon", (), low=1, high=MAX_HORIZON, source=source))


def checked_columns(
    columns: Any, horizon: int, probabilities: Floats, n_plants: int, joint: bool, source: str | None = None
) -> Integers:
    """Inflow columns int64[T] (int64[T, n] if not joint) that exist and have a positive probability."""
    shape = (horizon,) if joint else (horizon, n_plants)
    given = integers(columns, "columns", shape, low=0, high=probabilities.shape[1] - 1, source=source)
    rows = np.arange(horizon) % len(probabilities)
    chance = probabilities[rows if joint else rows[:, None], given]
    for where in np.argwhere(chance <= 0)[:1].tolist():
        field = "columns" + "".join(f"[{k}]" for k in where)
        raise InputError("a column of probability 0", source=source, field=field, value=int(given[tuple(where)]))
    return given


def upstream_first(turbine_to: Integers, spill_to: Integers, source: str | None = None) -> Integers:
    """Plants int64[n] in an order in which water only flows onward; of plants that are free to come, the first.

    Raises:
        InputError: the cascade has a cycle; the message names the plants on one.

    >>> upstream_first(np.array([-1, 0, 1]), np.array([-1, -1, 0])).tolist()
    [2, 1, 0]
    """
    n = len(turbine_to)
    receivers = [sorted({int(to) for to in (turbine_to[u], spill_to[u]) if to >= 0}) for u in range(n)]
    waits_for = np.zeros(n, np.int64)
    for to in receivers:
        waits_for[to] += 1
    order: list[int] = []
    free = [u for u in range(n) if waits_for[u] == 0]
    while free:
        u = free.pop(0)
        order.append(u)
        for i in receivers[u]:
            waits_for[i] -= 1
            if waits_for[i] == 0:
                free.append(i)
    if len(order) < n:
        raise InputError(
            "the cascade has a cycle",
            source=source,
            field="turbine_to, spill_to",
            value=_cycle(receivers, set(range(n)) - set(order)),
            expected="water that never comes back to a plant (positions of plants, from 0)",
        )
    return np.array(order, np.int64)


def _cycle(receivers: list[list[int]], left: set[int]) -> list[int]:
    """One cycle among the plants ``left``, each of which still waits for another of them."""
    senders = {i: u for u in sorted(left) for i in receivers[u] if i in left}
    walk = [min(left)]
    while senders[walk[-1]] not in walk:
        walk.append(senders[walk[-1]])
    start = walk.index(senders[walk[-1]])
    return [*walk[start:][::-1], walk[start:][-1]]


# ---- checks --------------------------------------------------------------------------------------------------------
def _length(value: Any) -> tuple[int]:
    """The shape of a list of whatever length; one that is no list is refused by the reader of numbers."""
    listed = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return (len(value),) if listed else (0,)


def _matrix(to: Integers) -> Booleans:
    """Receivers int64[n] (-1: none) as bool[n, n]."""
    matrix: Booleans = to[:, None] == np.arange(len(to))
    return matrix


def _require_size(found: int, limit: int, what: str, field: str, source: str | None) -> None:
    if found > limit:
        raise InputError(f"too many {what}", source=source, field=field, value=found, expected=f"at most {limit}")


def _require_once(generator: Integers, field: str, source: str | None) -> None:
    values, counts = np.unique(generator, return_counts=True)
    if (counts > 1).any():
        twice = int(values[counts > 1][0])
        raise InputError("two plants with one generator", source=source, field=field, value=twice)


def _names(given: Any, count: int, what: str, source: str | None) -> tuple[str, ...]:
    if given is None:
        return tuple(f"{what} {k + 1}" for k in range(count))
    field = f"{what}_names"
    if not isinstance(given, list | tuple) or not all(isinstance(name, str) and len(name) <= 1000 for name in given):
        raise InputError("not a list of texts", source=source, field=field, value=type(given).__name__)
    if len(given) != count:
        raise InputError("wrong length", source=source, field=field, value=len(given), expected=str(count))
    return tuple(given)


def _probabilities(given: Any, inflows: Floats, source: str | None) -> Floats:
    rows, _, n_columns = inflows.shape
    if given is None:
        return np.full((rows, n_columns), 1.0 / n_columns)
    table = floats(given, "probabilities", (rows, n_columns), low=0, high=1, source=source)
    sums = table.sum(1)
    for r in np.flatnonzero(np.abs(sums - 1.0) > _SUM_TOLERANCE)[:1].tolist():
        place = f"probabilities[{r}]"
        raise InputError("do not sum to 1", source=source, field=place, value=float(sums[r]), expected="1")
    return table


def _require_order(instance: HydrothermalInstance, source: str | None) -> None:
    """Lower limits at most at the upper ones; branches between two buses; no power asked of a plant that gives none."""
    pairs: tuple[tuple[str, Floats, str, Floats], ...] = (
        ("min_volume", instance.min_volume, "max_volume", instance.max_volume),
        ("initial_volume", instance.initial_volume, "max_volume", instance.max_volume),
        ("min_volume", instance.min_volume, "initial_volume", instance.initial_volume),
        ("min_outflow", instance.min_outflow, "max_outflow", instance.max_outflow),
        ("min_power", instance.min_power, "max_power", instance.max_power),
        ("min_angle", instance.min_angle, "max_angle", instance.max_angle),
    )
    for low_name, low, high_name, high in pairs:
        for k in np.flatnonzero(low > high)[:1].tolist():
            raise InputError(
                f"{low_name} is above {high_name}",
                source=source,
                field=f"{low_name}[{k}]",
                value=float(low[k]),
                expected=f"at most {high[k]:g}",
            )
    for field, start, end in (
        ("branch_to", instance.branch_from, instance.branch_to),
        ("pair_to", instance.pair_from, instance.pair_to),
    ):
        for k in np.flatnonzero(start == end)[:1].tolist():
            raise InputError("joins a bus with itself", source=source, field=f"{field}[{k}]", value=int(end[k]))
    forced = instance.min_power[instance.plant_generator]
    for i in np.flatnonzero((forced > 0) & (instance.production_factor == 0))[:1].tolist():
        raise InputError(
            "its plant gives no power",
            source=source,
            field=f"min_power[{instance.plant_generator[i]}]",
            value=float(forced[i]),
            expected="0",
        )


def _require_least_outflow(instance: HydrothermalInstance, source: str | None) -> None:
    """Every plant can turbine its least outflow from the driest inflow and what plants upstream release at least.

    So every instance can be operated from every state, and the reachable volumes are never an empty set.
    """
    low, high = instance.least_outflow, instance.most_outflow
    for i in np.flatnonzero(low > high + _SLACK)[:1].tolist():
        raise InputError(
            "the least outflow is above the most",
            source=source,
            field=f"min_outflow or min_power of {instance.plant_names[i]!r}",
            value=float(low[i]),
            expected=f"at most {high[i]:g} m3/s",
        )
    possible = np.where(instance.probabilities[:, None, :] > 0, instance.inflows, np.inf)
    sure = possible.min(axis=(0, 2)) + instance.turbine_to.T.astype(float) @ low
    for i in np.flatnonzero(low > sure + _SLACK)[:1].tolist():
        raise InputError(
            "the water may not suffice for the least outflow",
            source=source,
            field=f"min_outflow or min_power of {instance.plant_names[i]!r}",
            value=float(low[i]),
            expected=f"at most {sure[i]:g} m3/s, the driest inflow with what arrives from upstream at least",
        )
