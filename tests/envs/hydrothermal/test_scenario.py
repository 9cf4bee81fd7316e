"""Inflow columns: counter-based, with the right frequencies; scenarios, horizons, names."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.generators import cascade


@pytest.fixture(scope="module")
def uneven():
    """Rows with different probabilities, some of them 0."""
    instance = cascade(2, 1, 0, horizon=5, n_columns=4)
    table = np.array([[0.0, 0.5, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]])
    return replace(instance, probabilities=np.tile(table, (3, 1)))


@pytest.mark.parametrize("joint", [True, False])
def test_columns_come_with_their_probabilities(uneven, joint):
    instance = replace(uneven, joint=joint)
    keys = np.arange(8000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    columns = instance.draw_columns(keys)
    assert columns.shape == ((8000, 5) if joint else (8000, 5, 2))
    for t in range(5):
        for item in range(1 if joint else 2):
            drawn = columns[:, t] if joint else columns[:, t, item]
            frequency = np.bincount(drawn, minlength=4) / 8000
            np.testing.assert_allclose(frequency, instance.probabilities[t % 12], atol=0.025)
            assert not frequency[instance.probabilities[t % 12] == 0].any()
    if not joint:
        assert (columns[:, 2, 0] != columns[:, 2, 1]).mean() == pytest.approx(0.7, abs=0.03)


def test_a_batch_of_keys_equals_single_keys(uneven):
    for instance in (uneven, replace(uneven, joint=False)):
        keys = np.array([[3, 4, 5], [6, 7, 2**63]], np.uint64)
        batch = instance.draw_columns(keys)
        for where in np.ndindex(2, 3):
            np.testing.assert_array_equal(batch[where], instance.draw_columns(keys[where]))


def test_the_first_plant_meets_the_joint_column(uneven):
    own = replace(uneven, joint=False).draw_columns(np.uint64(11))
    np.testing.assert_array_equal(own[:, 0], uneven.draw_columns(np.uint64(11)))


def test_draws_are_alternatives_of_a_scenario_and_draw_0_is_what_happens():
    instance = library.load("tri3-t12")
    scenario = instance.scenario(3)
    key = np.uint64(99)
    np.testing.assert_array_equal(scenario.draw_columns(key), scenario.columns)
    assert scenario.draw_columns(np.zeros(2, np.uint64)).shape == (2, 12)
    np.testing.assert_array_equal(scenario.draw_columns(key, 1), instance.draw_columns(key, 1))
    assert (instance.draw_columns(key, 1) != instance.draw_columns(key, 2)).any()


def test_a_seed_stands_for_one_scenario():
    instance = library.load("tri3")
    one, again, other = instance.scenario(5), instance.scenario(5), instance.scenario(6)
    assert one.same_as(again)
    assert not one.same_as(replace(other, name=one.name))
    assert one.name == "tri3/scenario-5"
    assert one.scenario(7) is one
    assert instance.scenario(0).columns.tolist() == library.load("tri3-t6/scenario-0").columns.tolist()[:4]


def test_known_columns_of_seeds():
    assert library.load("tri3-t6/scenario-0").columns.tolist() == [1, 1, 1, 2, 0, 2]
    instance = replace(library.load("tri3"), joint=False)
    assert instance.scenario(0).columns[:, 0].tolist() == [1, 1, 1, 2]


def test_inflows_follow_the_columns(uneven):
    scenario = uneven.scenario_of([1, 0, 2, 3, 3], name="mine")
    assert scenario.name == "mine"
    path = scenario.path_inflows(scenario.columns)
    for t, column in enumerate(scenario.columns):
        np.testing.assert_array_equal(path[t], uneven.inflows[t % 12, :, column])
        np.testing.assert_array_equal(path[t], uneven.inflow(t, int(column)))
    apart = replace(uneven, joint=False)
    columns = np.array([[1, 3], [0, 0], [2, 1], [3, 3], [3, 1]])
    np.testing.assert_array_equal(apart.path_inflows(columns)[2], uneven.inflows[2, [0, 1], [2, 1]])
    np.testing.assert_array_equal(apart.inflow(2, columns[2]), uneven.inflows[2, [0, 1], [2, 1]])
    assert uneven.path_inflows(np.zeros((7, 5), int)).shape == (7, 5, 2)


@pytest.mark.parametrize("columns", [[1, 0, 2, 3], [1, 0, 2, 3, 4], [0, 0, 2, 3, 3], [1, 0.5, 2, 3, 3], "abc", None])
def test_impossible_columns_are_refused(uneven, columns):
    with pytest.raises(InputError, match="columns"):
        uneven.scenario_of(columns)


def test_horizons_are_cut_and_stretched():
    instance = library.load("tri3")
    longer = instance.with_horizon(9)
    assert (longer.name, longer.horizon) == ("tri3-t9", 9)
    assert longer.with_horizon(2).name == "tri3-t2"
    np.testing.assert_array_equal(longer.stage_demand(8), instance.stage_demand(0))
    cut = longer.scenario(1).with_horizon(4)
    np.testing.assert_array_equal(cut.columns, longer.scenario(1).columns[:4])
    with pytest.raises(InputError, match="horizon"):
        cut.with_horizon(5)
    for horizon in (0, -1, 2.5, 10_001, "a", None, True):
        with pytest.raises(InputError, match="horizon"):
            instance.with_horizon(horizon)


def test_expected_inflows_weigh_columns_by_probability(uneven):
    expected = uneven.inflows[2] @ uneven.probabilities[2]
    np.testing.assert_allclose(uneven.mean_inflows[2], expected)


def test_instances_are_immutable_and_can_be_pickled():
    scenario = library.load("tri3/scenario-2")
    _ = scenario.mean_inflows, scenario.most_outflow
    again = pickle.loads(pickle.dumps(scenario))
    assert again.same_as(scenario)
    for array in (scenario.inflows, scenario.columns, scenario.mean_inflows, scenario.least_outflow):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
