"""The readable programme and the one that solvers use have the same optima and duals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.instance import NETWORKS
from orl.envs.hydrothermal.reach import ReachableMap
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.solvers.hydrothermal.pyomo_stage import build_model, solve_model, water_values

NAMES = ["tri3", "cascade-5x4-s2", "bolivia"]
HERE = set(library.available())


def load(name):
    if name == "bolivia" and name not in HERE:
        pytest.skip("needs ORL_DATA_DIR/hydrothermal or `orl data fetch hydrothermal`")
    return library.load(name)


def random_water(instance, count, seed):
    """Water at hand in both forms, float64[count, n]."""
    rng = np.random.default_rng(seed)
    shape = (count, instance.n_plants)
    volumes = rng.random(shape) * instance.max_volume
    rows, columns = rng.integers(len(instance.inflows), size=count), rng.integers(instance.n_columns, size=count)
    inflows = instance.inflows[rows, :, columns]
    ends = ReachableMap(instance)(volumes, inflows, rng.random(shape)).volumes
    at_hand = volumes + instance.water_factor * inflows
    return {"storage": at_hand, "strict": at_hand - ends}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_both_programmes_cost_the_same(name, network):
    instance = replace(load(name), network=network)
    for form, waters in random_water(instance, 6, 1).items():
        model, programme = build_model(instance, 2, form), StageLP(instance, 2, form)
        for water in waters:
            assert solve_model(model, water) == pytest.approx(programme.solve(water).cost, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("network", ["copper", "dc"])
def test_water_values_are_derivatives_of_the_cost(network):
    instance = library.load(f"cascade-5x4-s2{'' if network == 'dc' else '-copper'}")
    model = build_model(instance, 0, "strict")
    compared = 0
    for water in random_water(instance, 4, 3)["strict"]:
        cost = solve_model(model, water)
        values = water_values(model)
        assert (values <= 1e-9).all()
        for i in range(instance.n_plants):
            step = np.eye(instance.n_plants)[i] * 1e-3 * max(1.0, abs(water[i]))
            if water[i] - step[i] < 0:
                continue
            up, down = (solve_model(model, water + sign * step) - cost for sign in (1, -1))
            if abs(up + down) < 1e-6 * (1 + abs(up)):  # not at a kink
                assert values[i] == pytest.approx(up / step[i], rel=1e-6, abs=1e-6)
                compared += 1
    assert compared >= 10


def test_surplus_needs_leave():
    instance = replace(library.load("tri3"), min_power=np.array([0, 0, 0, 0.3, 0.4]), demand=np.array([[0.1]]))
    water = np.array([0.0, 0.0, 0.0])
    assert solve_model(build_model(instance), water) == pytest.approx(0.3 * 2000 + 0.4 * 6000 + 0.6 * 50000)
    with pytest.raises(RuntimeError, match="no optimum"):
        solve_model(build_model(replace(instance, surplus=False)), water)


def test_volumes_out_of_reach_have_no_optimum():
    with pytest.raises(RuntimeError, match="no optimum"):
        solve_model(build_model(library.load("tri3"), form="strict"), np.array([-1.0, 0.0, 0.0]))
    with pytest.raises(InputError, match="form"):
        build_model(library.load("tri3"), form="future")
