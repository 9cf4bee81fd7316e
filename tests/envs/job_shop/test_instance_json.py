"""Versioned JSON of instances and schedules: exact round trips, and one InputError for anything tampered with."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.common.problem import Bounds
from orl.envs.job_shop.builders import job_shop
from orl.envs.job_shop.generators import UniformFlexibleJobShop, UniformJobShop, UniformOpenShop, UniformProject
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.model import Mode, Model

GENERATORS = (
    UniformJobShop((1, 3), (1, 3), low=0),
    UniformOpenShop((1, 3), (1, 3)),
    UniformFlexibleJobShop((1, 3), (1, 3)),
    UniformProject((1, 6), (1, 3), n_modes=(1, 3), max_lag=3),
)


def rich() -> ShopInstance:
    """Every kind of field in one instance."""
    model = Model("rich")
    crew, oven = model.cumulative("crew", 3), model.unary("oven")
    for k, label in enumerate((5, 5, 9, None, 9)):
        modes = [Mode(2 + k, {crew: 2}), Mode(1 + k, {oven: 1, crew: 1})][: 1 + k % 2]
        model.interval(f"i{k}", modes, job=label, release=k, deadline=90 if k == 2 else None)
    model.precedence(1, 0, lag=2)
    model.precedence(3, 4)
    model.exclusive_group(9)
    model.objective("weighted_tardiness", due={5: 7, 9: -1}, weight={9: 4})
    return replace(model.compile(), known_bounds=Bounds(1, 2.5, "hand", "2026-01"))


def through_text(data):
    return json.loads(json.dumps(data))


@given(st.integers(0, len(GENERATORS) - 1), st.integers(0, 2**32))
def test_random_instances_survive_the_round_trip(which, seed):
    instance = GENERATORS[which](np.random.default_rng(seed))
    assert ShopInstance.from_json(through_text(instance.to_json())).to_json() == instance.to_json()


def test_every_field_survives_the_round_trip():
    instance = rich()
    again = ShopInstance.from_json(through_text(instance.to_json()))
    assert again.to_json() == instance.to_json()
    assert again.known_bounds == instance.known_bounds
    assert (again.objective, again.due.tolist(), again.weight.tolist()) == ("weighted_tardiness", [7, -1, 0], [1, 4, 1])
    assert again.resource_names == ("crew", "oven", "job 9")


def test_schedules_survive_the_round_trip():
    answer = Schedule(np.array([0, 4], np.int32), np.array([0, 1], np.int32))
    again = Schedule.from_json(through_text(answer.to_json()))
    np.testing.assert_array_equal(again.start, answer.start)
    np.testing.assert_array_equal(again.mode, answer.mode)


@pytest.mark.parametrize("field", [name for name in rich().to_json() if name != "known_bounds"])
@pytest.mark.parametrize("value", ["x", -1, 2.5, None, [], [1.5], {"a": 1}, [2**40], True, [[0]], "delete"])
def test_a_field_of_the_wrong_kind_is_named(field, value):
    data = rich().to_json()
    if value == "x" and field == "name":
        return
    if value == "delete":
        del data[field]
    else:
        data[field] = value
    with pytest.raises(InputError) as caught:
        ShopInstance.from_json(data, source="a.json")
    assert caught.value.source == "a.json"
    assert caught.value.field


@given(st.data())
def test_one_changed_number_is_refused_or_makes_another_sound_instance(data):
    tampered = copy.deepcopy(rich().to_json())
    field = data.draw(
        st.sampled_from([k for k, v in tampered.items() if isinstance(v, list) and v and type(v[0]) is int])
    )
    place = data.draw(st.integers(0, len(tampered[field]) - 1))
    tampered[field][place] = data.draw(st.integers(-3, 12) | st.sampled_from([2**31 - 1, -(2**31), 2**30]))
    refused = instance = None
    try:
        instance = ShopInstance.from_json(tampered, source="a.json")
    except InputError as error:
        refused = error
    if refused is not None:
        assert refused.source == "a.json"
        assert refused.field
    else:
        assert instance.to_json() == tampered
        assert 0 <= instance.makespan_bound <= instance.horizon


@pytest.mark.parametrize(
    "field, place, value",
    [
        ("tail", 0, 99),
        ("line_op", 0, 0),
        ("succ_op", 0, 1),
        ("job", 0, 1),
        ("capacity", -1, 2),
        ("use_demand", 0, 4),
        ("mode_duration", 0, -1),
        ("pred_lag", 0, -1),
        ("deadline", 0, 2**30 + 1),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(field, place, value):
    data = rich().to_json()
    data[field][place] = value
    with pytest.raises(InputError):
        ShopInstance.from_json(data)


@pytest.mark.parametrize(
    "bounds",
    [
        5,
        {"lower": 1, "upper": 2},
        {"lower": 3, "upper": 2, "source": "s", "date": "d"},
        {"lower": float("nan"), "upper": 2, "source": "s", "date": "d"},
        {"lower": 1, "upper": 10**400, "source": "s", "date": "d"},
        {"lower": 1, "upper": 2, "source": 3, "date": "d"},
        {"lower": True, "upper": 2, "source": "s", "date": "d"},
    ],
)
def test_bad_bounds_are_refused(bounds):
    data = job_shop([[0]], [[1]]).to_json() | {"known_bounds": bounds}
    with pytest.raises(InputError, match="known_bounds"):
        ShopInstance.from_json(data)


@pytest.mark.parametrize("data", [None, [], "x", {}, {"schema": "orl.job_shop.instance/2"}, {"schema": ["x"]}])
def test_other_data_is_not_an_instance_nor_a_schedule(data):
    with pytest.raises(InputError, match="not a job-shop instance"):
        ShopInstance.from_json(data)
    with pytest.raises(InputError, match="not a schedule"):
        Schedule.from_json(data)


@pytest.mark.parametrize("field", ["start", "mode"])
@pytest.mark.parametrize("value", [None, 3, ["0", 1], [0, 1.5], [0, 2**31], [0, True]])
def test_bad_schedules_are_refused(field, value):
    data = Schedule(np.zeros(2, np.int32), np.zeros(2, np.int32)).to_json() | {field: value}
    with pytest.raises(InputError, match=field):
        Schedule.from_json(data, source="s.json")
