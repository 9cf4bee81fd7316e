"""The checker: feasible dispatches pass at their cost, and every kind of mistake is told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_cases import one_bus_dispatch

from orl.common.errors import InputError
from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.dispatch import stage_costs
from orl.envs.hydrothermal.instance import Dispatch

KINDS = ("volumes", "turbined", "spilled", "power", "deficit", "surplus", "flows", "angles")


@pytest.fixture(scope="module")
def scenario():
    return library.load("cascade-6x5-s0-copper-t6").scenario(3)


@pytest.fixture(scope="module")
def dispatch(scenario):
    fractions = np.random.default_rng(0).random((scenario.horizon, scenario.n_plants))
    return one_bus_dispatch(scenario, fractions)


def changed(dispatch, kind, where, by):
    array = getattr(dispatch, kind).astype(float).copy()
    array[where] += by
    return replace(dispatch, **{kind: array})


def two_buses(**options):
    """A plant at the reference bus, a thermal plant and the demand at the other one, two parallel branches."""
    return hydrothermal(
        horizon=1,
        stage_hours=1 / 0.0036,  # K = 1
        production_factor=[1.0],
        max_volume=[50.0],
        initial_volume=[20.0],
        max_outflow=[60.0],
        spill_costs=[3.0],
        inflows=[[[30.0, 10.0]]],
        probabilities=[[1.0, 0.0]],
        max_power=[0.6, 0.5],
        generator_costs=[10.0, 2000.0],
        generator_bus=[0, 1],
        plant_generator=[0],
        demand=[[0.0, 0.7]],
        deficit_cost=9000.0,
        branch_from=[0, 1],
        branch_to=[1, 0],
        susceptance=[5.0, 10.0],
        max_flow=[0.15, None],
        pair_from=[0],
        pair_to=[1],
        min_angle=[-0.5],
        max_angle=[0.5],
        **options,
    )


def by_hand():
    """25 m3/s turbined, 5 hm3 spilled; 0.25 per unit flow over both branches in proportion to their susceptance."""
    return Dispatch(
        columns=np.array([0]),
        volumes=np.array([[20.0], [20.0]]),
        turbined=np.array([[25.0]]),
        spilled=np.array([[5.0]]),
        power=np.array([[0.25, 0.4]]),
        deficit=np.array([[0.0, 0.05]]),
        surplus=np.zeros((1, 2)),
        flows=np.array([[0.25 / 3, -0.5 / 3]]),
        angles=np.array([[0.0, -0.05 / 3]]),
    )


@pytest.mark.parametrize("network", ["copper", "transport", "dc"])
def test_a_dispatch_by_hand_costs_what_it_should(network):
    check = two_buses(network=network).check(by_hand())
    assert check.violations == ()
    assert check.feasible
    assert check.objective == pytest.approx(0.25 * 10 + 0.4 * 2000 + 0.05 * 9000 + 5 * 3)
    assert stage_costs(two_buses(), by_hand()).tolist() == [[802.5, 450.0, 15.0]]


def test_networks_allow_less_and_less():
    through_one = replace(by_hand(), flows=np.array([[0.0, -0.25]]))
    assert two_buses(network="transport").check(through_one).feasible
    told = two_buses(network="dc").check(through_one).violations
    assert [v for v in told if "flow and angles differ" in v]
    no_flow = replace(by_hand(), flows=np.zeros((1, 2)), angles=np.zeros((1, 2)))
    assert two_buses(network="copper").check(no_flow).feasible
    assert any("power balance" in v for v in two_buses(network="transport").check(no_flow).violations)


@pytest.mark.parametrize(
    ("kind", "where", "by", "words"),
    [
        ("volumes", (0, 0), 0.1, "starts with 20.1 hm3"),
        ("volumes", (1, 0), 31.0, "51 is not in 0..50"),
        ("volumes", (1, 0), 0.01, "water balance is off by 0.01 hm3"),
        ("turbined", (0, 0), 40.0, "65 is not in 0..60"),
        ("turbined", (0, 0), 1e-3, "power and turbined flow differ"),
        ("spilled", (0, 0), -6.0, "-1 is not in 0..inf"),
        ("power", (0, 1), 0.2, "0.6 is not in 0..0.5"),
        ("power", (0, 1), 1e-3, "bus 2: the power balance is off by 0.001"),
        ("deficit", (0, 1), -0.1, "is not in 0..inf"),
        ("surplus", (0, 0), -0.1, "is not in 0..inf"),
        ("flows", (0, 0), 0.1, "is not in -0.15..0.15"),
        ("angles", (0, 1), -0.6, "angle between the buses of pair"),
        ("angles", (0, 1), 1e-3, "branch 0: flow and angles differ"),
        ("angles", (0, slice(None)), 0.1, "angle of the reference bus is 0.1"),
    ],
)
def test_every_constraint_is_checked(kind, where, by, words):
    check = two_buses().check(changed(by_hand(), kind, where, by))
    assert not check.feasible
    assert any(words in sentence for sentence in check.violations), check.violations
    assert check.objective is not None


def test_rounding_is_forgiven(scenario, dispatch):
    for kind in KINDS:
        array = getattr(dispatch, kind)
        assert scenario.check(changed(dispatch, kind, ..., 1e-9 * np.abs(array).max())).feasible
    assert not scenario.check(changed(dispatch, "turbined", (2, 1), 1e-3)).feasible


def test_surplus_needs_leave():
    thrown_away = changed(changed(by_hand(), "surplus", (0, 1), 0.05), "deficit", (0, 1), 0.05)
    assert two_buses().check(thrown_away).feasible
    assert not two_buses(surplus=False).check(thrown_away).feasible


def test_columns_must_be_possible_and_the_scenarios_own(scenario, dispatch):
    assert scenario.check(dispatch).feasible
    assert any("probability 0" in v for v in two_buses().check(replace(by_hand(), columns=np.array([1]))).violations)
    other = replace(dispatch, columns=(dispatch.columns + 1) % scenario.n_columns)
    assert any("comes in the scenario" in v for v in scenario.check(other).violations)
    assert not scenario.check(replace(dispatch, columns=dispatch.columns[:-1])).feasible
    assert not scenario.check(replace(dispatch, columns=dispatch.columns + 100)).feasible
    stochastic = replace(scenario, columns=None)
    assert stochastic.check(dispatch).feasible
    assert any("water balance" in v for v in stochastic.check(other).violations)


def test_arrays_that_do_not_fit_have_no_objective(scenario, dispatch):
    for kind in KINDS:
        check = scenario.check(replace(dispatch, **{kind: getattr(dispatch, kind)[:-1]}))
        assert (check.feasible, check.objective) == (False, None)
        assert kind in check.violations[0]
    broken = changed(dispatch, "power", (1, 2), np.nan)
    assert scenario.check(broken).objective is None
    assert "power[1, 2]: nan" in scenario.check(broken).violations[0]


def test_plants_may_have_columns_of_their_own(scenario):
    apart = replace(scenario, joint=False, columns=None).scenario(8)
    assert apart.columns.shape == (6, 6)
    dispatch = one_bus_dispatch(apart, np.full((6, 6), 0.4))
    assert apart.check(dispatch).feasible
    assert not scenario.check(dispatch).feasible


def test_json_gives_the_dispatch_back(scenario, dispatch):
    again = Dispatch.from_json(json.loads(json.dumps(dispatch.to_json())))
    for kind in ("columns", *KINDS):
        np.testing.assert_array_equal(getattr(again, kind), getattr(dispatch, kind))
    assert scenario.check(again) == scenario.check(dispatch)
    assert Dispatch.from_json(two_buses_without_branches().to_json()).flows.shape == (1, 0)


def two_buses_without_branches():
    return replace(by_hand(), flows=np.zeros((1, 0)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "other"}, "schema"),
        ({"columns": None}, "columns"),
        ({"columns": [0.5]}, "columns"),
        ({"volumes": [[1.0]]}, "volumes"),
        ({"power": [[1.0, float("nan")]]}, "power"),
        ({"power": [["1"]]}, "power"),
        ({"turbined": [[1.0], [2.0]]}, "turbined"),
        ({"deficit": 3}, "deficit"),
    ],
)
def test_json_with_a_mistake_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        Dispatch.from_json(by_hand().to_json() | change, source="a.json")
    data = by_hand().to_json()
    del data["angles"]
    with pytest.raises(InputError, match="a.json, angles: missing key"):
        Dispatch.from_json(data, source="a.json")
