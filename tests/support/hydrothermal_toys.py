"""Hydrothermal problems written out by hand, with known optima, and random ones of every network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orl.common.errors import DataUnavailableError
from orl.envs.hydrothermal.instance import HydrothermalInstance, Network
from orl.envs.hydrothermal.library import load

ONE_HM3 = 1 / 0.0036  # hours of a stage in which 1 m3/s is 1 hm3
TRI3_OPTIMA = {1: 0.0, 2: 162.255407, 3: 1206.236881, 4: 2615.584700, 5: 3155.678422, 6: 4046.035071}
TRI3_WAIT_AND_SEE_4 = 2607.830173


def case(
    *,
    horizon: int,
    max_volume: Any,
    initial_volume: Any,
    max_outflow: Any,
    production_factor: Any,
    thermal: list[tuple[float, float]],
    demand: Any,
    inflows: Any,
    probabilities: Any = None,
    links: tuple[tuple[int, int], ...] = (),
    stage_hours: float = ONE_HM3,
    base_mva: float = 1.0,
    deficit_cost: float = 1e4,
    network: Network = "copper",
    **changes: Any,
) -> HydrothermalInstance:
    """A problem on one bus; ``thermal`` lists (MW, cost for each MW), ``links`` turbine and spill from u to i.

    ``demand`` float64[P] (or [P, B]) in MW, ``inflows`` float64[R, n, S]; columns are alike likely unless told
    otherwise; ``changes`` are fields of the instance.
    """
    inflows = np.asarray(inflows, np.float64)
    n, n_thermal = inflows.shape[1], len(thermal)
    along = np.zeros((n, n), bool)
    for above, below in links:
        along[above, below] = True
    power = [mw / base_mva for mw, _ in thermal]
    if probabilities is None:
        probabilities = np.full((len(inflows), inflows.shape[2]), 1 / inflows.shape[2])
    none, nowhere = np.zeros(0), np.zeros(0, np.int64)
    instance = HydrothermalInstance(
        name="case",
        horizon=horizon,
        network=network,
        stage_hours=stage_hours,
        base_mva=base_mva,
        plant_names=tuple("ABCDEFGH"[:n]),
        plant_generator=np.arange(n_thermal, n_thermal + n),
        production_factor=np.asarray(production_factor, np.float64),
        min_volume=np.zeros(n),
        max_volume=np.asarray(max_volume, np.float64),
        initial_volume=np.asarray(initial_volume, np.float64),
        min_outflow=np.zeros(n),
        max_outflow=np.asarray(max_outflow, np.float64),
        spill_costs=np.zeros(n),
        turbine_to=along,
        spill_to=along.copy(),
        upstream_first=np.arange(n),
        generator_bus=np.zeros(n_thermal + n, np.int64),
        min_power=np.zeros(n_thermal + n),
        max_power=np.concatenate([power, np.full(n, 1e3)]),
        generator_costs=np.concatenate([[cost * base_mva for _, cost in thermal], np.zeros(n)]),
        bus_names=("bus",),
        reference_bus=0,
        demand=np.asarray(demand, np.float64).reshape(len(demand), -1) / base_mva,
        deficit_cost=deficit_cost * base_mva,
        branch_from=nowhere,
        branch_to=nowhere,
        susceptance=none,
        max_flow=none,
        pair_from=nowhere,
        pair_to=nowhere,
        min_angle=none,
        max_angle=none,
        inflows=inflows,
        probabilities=np.asarray(probabilities, np.float64),
    )
    return replace(instance, **changes)


def tri3(horizon: int = 4, **changes: Any) -> HydrothermalInstance:
    """Three reservoirs, A above B and C apart; optima in ``TRI3_OPTIMA``, thousands of dollars a stage of 730 hours."""
    base = np.array([[30, 10, 14], [22, 8, 10], [12, 4, 6], [16, 5, 8]], np.float64)
    hours = 0.73  # a price of 1 USD/MWh is so many thousand USD for a MW over a stage
    return case(
        horizon=horizon,
        stage_hours=730,
        base_mva=100,
        max_volume=[200, 20, 80],
        initial_volume=[100, 10, 40],
        max_outflow=[40, 60, 25],
        production_factor=[1, 0.6, 0.8],
        links=((0, 1),),
        thermal=[(30, 20 * hours), (40, 60 * hours)],
        deficit_cost=500 * hours,
        demand=[90, 95, 105, 100],
        inflows=base[:, :, None] * np.array([0.6, 1.0, 1.5]),
        **changes,
    )


def first_steps() -> HydrothermalInstance:
    """The introductory example of SDDP.jl: thermal power for 50, 100 and 150 in stages 0, 1 and 2; optimum 8333.3333.

    Prices do not change with the stage here, so each stage has a bus of its own: all demand, its thermal plant, and one
    of three plants without storage through which the water of the reservoir runs.
    """
    return case(
        horizon=3,
        max_volume=[200, 0, 0, 0],
        initial_volume=[200, 0, 0, 0],
        max_outflow=[1e3] * 4,
        production_factor=[0, 1, 1, 1],
        links=((0, 1), (1, 2), (2, 3)),
        thermal=[(1e3, 50), (1e3, 100), (1e3, 150)],
        demand=150 * np.eye(3),
        inflows=[[[0, 50, 100], [0, 0, 0], [0, 0, 0], [0, 0, 0]]],
        network="transport",
        generator_bus=np.array([0, 1, 2, 0, 0, 1, 2]),
        bus_names=("0", "1", "2"),
    )


def fast_hydro_thermal() -> HydrothermalInstance:
    """Two stages, a reservoir of 8 that starts empty, demand 6, inflow 6 then 2 or 10, thermal power for 5: optimum 10.

    An example of the FAST toolbox that SDDP.jl keeps as a test.
    """
    return case(
        horizon=2,
        max_volume=[8],
        initial_volume=[0],
        max_outflow=[1e3],
        production_factor=[1],
        thermal=[(1e3, 5)],
        demand=[6],
        inflows=[[[6, 6]], [[2, 10]]],
    )


def infinite_horizon() -> HydrothermalInstance:
    """The infinite-horizon example of SDDP.jl, discount 0.9: a reservoir of 5..15 at 10; optimum 119.167 or so.

    Inflow 0, 5 or 10 comes with demand 7.5, 5 or 2.5; here demand is 7.5, and a second plant without storage turbines
    half of the inflow (spilling it would be dear).
    """
    return case(
        horizon=1,
        max_volume=[15, 0],
        initial_volume=[10, 0],
        max_outflow=[1e3, 1e3],
        production_factor=[1, 1],
        thermal=[(1e3, 1)],
        demand=[7.5],
        inflows=[[[0, 5, 10], [0, 2.5, 5]]],
        min_volume=np.array([5.0, 0.0]),
        spill_costs=np.array([10.0, 1e3]),
    )


def random_case(seed: int, network: Network = "dc", *, horizon: int = 3, n_columns: int = 3) -> HydrothermalInstance:
    """Four plants in a random cascade (some links turbine or spill only) on five buses, two of them joined twice."""
    rng = np.random.default_rng(seed)
    ends = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], [1, 3], [1, 3]])
    pairs = np.unique(ends, axis=0)
    n_pairs, n_thermal = len(pairs), 4
    turbine_to, spill_to = np.zeros((2, 4, 4), bool)
    for above in range(3):
        below = rng.integers(above + 1, 5)  # 4: to the sea
        for link, share in ((turbine_to, 0.8), (spill_to, 0.7)):
            if below < 4 and rng.random() < share:
                link[above, below] = True
    angle = rng.uniform(0.05, 0.3, n_pairs)
    return case(
        horizon=horizon,
        stage_hours=168,
        base_mva=100,
        max_volume=rng.uniform(0, 10, 4),
        initial_volume=np.zeros(4),
        max_outflow=rng.uniform(5, 30, 4),
        production_factor=rng.uniform(1, 6, 4),
        thermal=[(float(mw), float(cost)) for mw, cost in rng.uniform([10, 10], [60, 90], (n_thermal, 2))],
        deficit_cost=400,
        demand=rng.uniform(0, 80, (3, 5)),
        inflows=rng.uniform(0, 20, (2, 4, n_columns)),
        turbine_to=turbine_to,
        spill_to=spill_to,
        network=network,
        generator_bus=rng.integers(0, 5, n_thermal + 4),
        bus_names=tuple("01234"),
        branch_from=ends[:, 0],
        branch_to=ends[:, 1],
        susceptance=rng.uniform(2, 12, len(ends)),
        max_flow=np.append(rng.uniform(0.1, 0.8, len(ends) - 1), np.inf),
        pair_from=pairs[:, 0],
        pair_to=pairs[:, 1],
        min_angle=-angle,
        max_angle=angle,
    )


def from_files(name: str, network: Network | None = None) -> HydrothermalInstance:
    """An instance of the library whose files must be here, else the test is skipped."""
    try:
        instance = load(name)
    except DataUnavailableError:
        pytest.skip(f"needs the files of {name} in ORL_DATA_DIR (or `orl data fetch hydrothermal`)")
    return instance if network is None else replace(instance, network=network)


def first_columns(instance: HydrothermalInstance, count: int, horizon: int) -> HydrothermalInstance:
    """The problem with the first ``count`` inflow columns only, alike likely."""
    chance = np.full((len(instance.probabilities), count), 1 / count)
    return replace(instance.with_horizon(horizon), inflows=instance.inflows[:, :, :count], probabilities=chance)
