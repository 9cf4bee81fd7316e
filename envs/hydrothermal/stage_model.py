"""The linear programme of one stage as arrays, in the row order that tests and cached bases rely on.

Variables of the forms *storage* and *strict*, in this order: ``power`` of the G generators (per unit), ``deficit`` and,
where the instance has it, ``surplus`` of the buses (per unit), ``turbined`` (m3/s) and ``spilled`` water (hm3) of the n
plants, ``flow`` of the branches (per unit), ``angle`` of the buses (radians), ``volume`` at the end of the stage (hm3;
*storage* only).
A copper plate is one bus. Rows, in this order, with K hm3 for each m3/s over the stage:

    water      volume_i + K q_i + s_i - K sum_(u turbines to i) q_u - sum_(u spills to i) s_u = rhs_i
    production base power_g(i) - factor_i q_i = 0
    balance    sum_(g at b) power_g + deficit_b - surplus_b - flows out of b + flows into b = demand_b
    flow       f_l - y_l (angle_from - angle_to) = 0                                        (dc only)
    angle      min_angle <= angle_from - angle_to <= max_angle for every pair of buses      (dc only)

The right-hand side of the water rows is ``volume before + K inflow`` in the storage form and ``volume before + K inflow
- volume after`` in the *strict* form, where volumes are data. This is the stage problem of A. Rosemberg,
A. Street, J. Garcia, D. Valladao, T. Silva, O. Dowson, "Assessing the cost of network simplifications in long-term
hydrothermal dispatch planning models", IEEE Transactions on Sustainable Energy 13 (2022) 196-206.

In the *release* form what the plants turbine is data, too. There are neither water rows nor ``turbined``, ``spilled``
and ``volume``, and the production rows, now the first, read ``base power_g(i) = factor_i q_i`` with MW on the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance

COST_SCALE = 1e-3
"""Programmes count in thousands: with costs in USD, warm starts of HiGHS end now and then without a verdict."""
LARGEST_OPENINGS = 4096


@dataclass(frozen=True, eq=False)
class StageModel:
    """Minimise ``costs @ x`` (in units of 1 / COST_SCALE USD) with ``row_lower <= matrix @ x <= row_upper``.

    Attributes:
        costs, lower, upper: float64[V].
        matrix: float64[R, V], by rows.
        row_lower, row_upper: float64[R]; the first n rows (water; in the release form production) hold 0 until a
            right-hand side is known.
        columns: Where each kind of variable lies.
        rows: Where each kind of row lies.
    """

    costs: Floats
    lower: Floats
    upper: Floats
    matrix: sparse.csr_array
    row_lower: Floats
    row_upper: Floats
    columns: dict[str, slice]
    rows: dict[str, slice]


def stage_model(
    instance: HydrothermalInstance, stage: int = 0, form: Literal["strict", "storage", "release"] = "strict"
) -> StageModel:
    """The programme of a stage; stages with the same demand row have the same one.

    Raises:
        InputError: The release form of an instance without ``surplus``: what plants must give might not be wanted.

    >>> from orl.envs.hydrothermal.library import load
    >>> model = stage_model(load("tri3"))
    >>> model.matrix.shape == (len(model.row_lower), len(model.costs))
    True
    """
    if form == "release" and not instance.surplus:
        raise InputError("releases as data need surplus power", source=instance.name, field="surplus", expected="True")
    n, n_generators = instance.n_plants, len(instance.generator_bus)
    n_water = 0 if form == "release" else n
    copper, dc = instance.network == "copper", instance.network == "dc"
    n_buses = 1 if copper else len(instance.bus_names)
    n_branches = 0 if copper else len(instance.branch_from)
    sizes = {
        "power": n_generators,
        "deficit": n_buses,
        "surplus": n_buses if instance.surplus else 0,
        "turbined": n_water,
        "spilled": n_water,
        "flow": n_branches,
        "angle": n_buses if dc else 0,
        "volume": n if form == "storage" else 0,
    }
    n_pairs = len(instance.pair_from) if dc else 0
    kinds = {"water": n_water, "production": n, "balance": n_buses, "flow": n_branches if dc else 0, "angle": n_pairs}
    columns, rows = _places(sizes), _places(kinds)
    n_columns, n_rows = sum(sizes.values()), sum(kinds.values())
    costs, lower, upper = np.zeros(n_columns), np.zeros(n_columns), np.full(n_columns, np.inf)

    def set_column(name: str, cost: npt.ArrayLike, least: npt.ArrayLike, most: npt.ArrayLike) -> None:
        costs[columns[name]], lower[columns[name]], upper[columns[name]] = cost, least, most

    set_column("power", instance.generator_costs, instance.min_power, instance.max_power)
    set_column("deficit", instance.deficit_cost, 0, np.inf)
    set_column("surplus", instance.deficit_cost, 0, np.inf)
    if form != "release":
        set_column("turbined", 0, instance.min_outflow, instance.max_outflow)
        set_column("spilled", instance.spill_costs, 0, np.inf)
    if n_branches:
        set_column("flow", 0, -instance.max_flow, instance.max_flow)
    if dc:
        set_column("angle", 0, -np.inf, np.inf)
        reference = columns["angle"].start + instance.reference_bus
        lower[reference] = upper[reference] = 0
    if form == "storage":
        set_column("volume", 0, instance.min_volume, instance.max_volume)

    entries: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]] = []

    def add(row: npt.ArrayLike, column: npt.ArrayLike, value: npt.ArrayLike) -> None:
        i, j, a = np.broadcast_arrays(np.asarray(row, np.int64), np.asarray(column, np.int64), value)
        entries.append((i, j, a.astype(np.float64)))

    def column(name: str) -> npt.NDArray[np.int64]:
        return np.arange(columns[name].start, columns[name].stop)

    def row(name: str) -> npt.NDArray[np.int64]:
        return np.arange(rows[name].start, rows[name].stop)

    if form != "release":
        factor, turbined, spilled = instance.water_factor, column("turbined"), column("spilled")
        water = row("water")
        add(water, turbined, factor)
        add(water, spilled, 1)
        above, below = np.nonzero(instance.turbine_to)
        add(water[below], turbined[above], -factor)
        above, below = np.nonzero(instance.spill_to)
        add(water[below], spilled[above], -1)
        if form == "storage":
            add(water, column("volume"), 1)
        add(row("production"), turbined, -instance.production_factor)
    add(row("production"), column("power")[instance.plant_generator], instance.base_mva)
    balance = row("balance")
    bus = np.zeros_like(instance.generator_bus) if copper else instance.generator_bus
    add(balance[bus], column("power"), 1)
    add(balance, column("deficit"), 1)
    if instance.surplus:
        add(balance, column("surplus"), -1)
    if n_branches:
        add(balance[instance.branch_from], column("flow"), -1)
        add(balance[instance.branch_to], column("flow"), 1)
    if dc:
        angle = column("angle")
        add(row("flow"), column("flow"), 1)
        add(row("flow"), angle[instance.branch_from], -instance.susceptance)
        add(row("flow"), angle[instance.branch_to], instance.susceptance)
        add(row("angle"), angle[instance.pair_from], 1)
        add(row("angle"), angle[instance.pair_to], -1)
    i, j, a = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    matrix = sparse.csr_array((a, (i, j)), shape=(n_rows, n_columns))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()

    row_lower = np.zeros(n_rows)
    demand = instance.stage_demand(stage)
    row_lower[rows["balance"]] = demand.sum() if copper else demand
    row_upper = row_lower.copy()
    if dc:
        row_lower[rows["angle"]], row_upper[rows["angle"]] = instance.min_angle, instance.max_angle
    return StageModel(costs * COST_SCALE, lower, upper, matrix, row_lower, row_upper, columns, rows)


def _places(sizes: dict[str, int]) -> dict[str, slice]:
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def least_stage_cost(instance: HydrothermalInstance) -> float:
    """A bound in USD below the cost of any stage: generators at their cheapest end, nothing else. 0 in most cases."""
    cheapest = np.minimum(instance.generator_costs * instance.min_power, instance.generator_costs * instance.max_power)
    return float(cheapest.sum())


def openings(instance: HydrothermalInstance, stage: int) -> tuple[Floats, Floats]:
    """Everything that may flow in at a stage: inflows float64[O, n] in m3/s and their probabilities float64[O].

    Columns of probability 0 are left out. A scenario has one opening. Plants that draw apart have all combinations.

    Raises:
        InputError: More than 4096 combinations.
    """
    n = instance.n_plants
    if instance.columns is not None:
        return instance.path_inflows(instance.columns)[stage : stage + 1], np.ones(1)
    table = instance.inflows[stage % len(instance.inflows)]
    probabilities = instance.probabilities[stage % len(instance.probabilities)]
    kept = np.flatnonzero(probabilities > 0)
    if instance.joint:
        return table[:, kept].T.copy(), probabilities[kept] / probabilities[kept].sum()
    if len(kept) ** n > LARGEST_OPENINGS:
        raise InputError(
            "too many combinations of inflow where every plant draws its own column",
            source=instance.name,
            field="joint",
            value=f"{len(kept)} ** {n}",
            expected=f"at most {LARGEST_OPENINGS} (or joint=True)",
        )
    combined = np.array(list(product(kept, repeat=n)))
    chance = probabilities[combined].prod(1)
    return table[np.arange(n), combined], chance / chance.sum()
