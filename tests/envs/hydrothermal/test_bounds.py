"""The energy bound: it is the optimum of its relaxation, and below every dispatch and every expected cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hydrothermal_cases import one_bus_dispatch
from scipy.optimize import linprog

from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.bounds import _largest, energy_bound, energy_worth, path_bound
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.generators import cascade

TRI3_OPTIMUM = 2615.584700 / 0.73  # USD for each hour of a stage
TRI3_WAIT_AND_SEE = 2607.830173 / 0.73


def relaxation(instance, inflows):
    """The programme whose optimum the bound is: one bus, hydro power limited by stage and, summed, by energy."""
    horizon, plants = instance.horizon, instance.plant_generator
    thermal = np.setdiff1d(np.arange(instance.n_generators), plants)
    demand = np.array([instance.stage_demand(t).sum() for t in range(horizon)])
    cheapest = instance.generator_costs[plants][instance.max_power[plants] > 0].min()
    most = (instance.production_factor * instance.most_outflow).sum() / instance.base_mva
    water = instance.initial_volume + instance.water_factor * np.cumsum(inflows, axis=0)
    energy = water @ energy_worth(instance) / instance.base_mva
    g = len(thermal)
    # variables of a stage: hydro, thermal plants, deficit
    cost = np.tile([cheapest, *instance.generator_costs[thermal], instance.deficit_cost], horizon)
    limits = [(0, most), *zip(instance.min_power[thermal], instance.max_power[thermal], strict=True), (0, None)]
    serve = -np.kron(np.eye(horizon), np.ones(g + 2))
    use = np.kron(np.tril(np.ones((horizon, horizon))), [1.0, *[0.0] * (g + 1)])
    found = linprog(
        cost,
        A_ub=np.vstack([serve, use]),
        b_ub=np.concatenate([-demand, energy]),
        bounds=limits * horizon,
        method="highs",
    )
    assert found.status == 0
    return found.fun


def cases():
    for n, seed in [(1, 0), (4, 1), (7, 2), (12, 3)]:
        instance = cascade(n, 1, seed, horizon=9, n_columns=4)
        yield instance
        hydro_cost = np.zeros(instance.n_generators)
        hydro_cost[instance.plant_generator] = 1800.0
        scale = np.random.default_rng(seed).choice([0.0, 1.0, 2.5], 12)
        yield replace(
            instance,
            generator_costs=instance.generator_costs + hydro_cost,
            min_power=np.where(instance.generator_costs > 4000, 0.4, 0.0) * instance.max_power,
            demand=instance.demand * scale[:, None],
            deficit_cost=7000.0,
        )


def test_the_bound_is_the_optimum_of_its_relaxation():
    rng = np.random.default_rng(0)
    for instance in cases():
        columns = rng.integers(instance.n_columns, size=instance.horizon)
        inflows = instance.path_inflows(columns) * rng.choice([0.0, 0.3, 1.0, 3.0], (instance.horizon, 1))
        assert path_bound(instance, inflows) == pytest.approx(relaxation(instance, inflows), rel=1e-7, abs=1e-6)


def test_nested_limits_are_shared_out_in_full():
    rng = np.random.default_rng(1)
    for _ in range(40):
        horizon = int(rng.integers(1, 8))
        limits, totals = rng.integers(0, 5, horizon).astype(float), rng.integers(0, 12, horizon).astype(float)
        amounts = _largest(limits, totals)
        assert (amounts >= 0).all()
        assert (amounts <= limits).all()
        assert (np.cumsum(amounts) <= totals + 1e-12).all()
        best = linprog(
            -np.ones(horizon), A_ub=np.tril(np.ones((horizon, horizon))), b_ub=totals, bounds=[(0, x) for x in limits]
        )
        assert amounts.sum() == pytest.approx(-best.fun)


@pytest.mark.parametrize("seed", range(4))
def test_no_dispatch_is_cheaper(seed):
    scenario = replace(cascade(5, 1, seed, horizon=10), network="copper").scenario(seed)
    rng = np.random.default_rng(seed)
    for low, high in ((0.0, 0.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0)):
        dispatch = one_bus_dispatch(scenario, rng.uniform(low, high, (10, 5)))
        check = scenario.check(dispatch)
        assert check.feasible
        assert 0 < scenario.lower_bound() <= check.objective


def test_bounds_of_tri3_lie_below_its_known_optima():
    instance = library.load("tri3")
    paths = [energy_bound(instance.scenario_of(columns)) for columns in product(range(3), repeat=4)]
    assert 0 < instance.lower_bound() <= np.mean(paths) <= TRI3_WAIT_AND_SEE < TRI3_OPTIMUM
    assert np.mean(paths) > 0.9 * TRI3_WAIT_AND_SEE


def test_water_is_worth_what_its_best_way_down_gives():
    instance = hydrothermal(
        horizon=1,
        stage_hours=1 / 0.0036,  # K = 1
        production_factor=[1.0, 2.0, 5.0, 0.5],
        max_volume=[1.0] * 4,
        max_outflow=[1.0] * 4,
        turbine_to=[1, -1, -1, 0],
        spill_to=[2, -1, -1, -1],
        inflows=[[[1.0]] * 4],
        max_power=[1.0] * 4,
        generator_costs=[0.0] * 4,
        plant_generator=[0, 1, 2, 3],
        demand=[[1.0]],
        deficit_cost=1.0,
    )
    # from plant 0, spilling to plant 2 (5) beats turbining (1) on to plant 1 (2)
    np.testing.assert_allclose(energy_worth(instance), [5.0, 2.0, 5.0, 5.5])
