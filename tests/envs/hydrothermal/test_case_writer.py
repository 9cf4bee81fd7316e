"""HydroPowerModels case folders written: reading them back gives the same problem, or the writer says what is lost."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hydrothermal_cases import small_case
from hydrothermal_toys import from_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.envs.hydrothermal import formats
from orl.envs.hydrothermal.case_writer import case_parts
from orl.envs.hydrothermal.generators import cascade as seasonal_cascade
from orl.envs.hydrothermal.stage_lp import StageLP


def cascade(*size_and_seed, **options):
    """A random cascade with the demand of its first stage in all stages."""
    instance = seasonal_cascade(*size_and_seed, **options)
    return replace(instance, demand=instance.demand[:1])


def read_again(instance):
    parts = case_parts(instance)
    return formats.parse_case(*parts, name=instance.name, network=instance.network, horizon=instance.horizon)


PAIRS = ("pair_from", "pair_to", "min_angle", "max_angle")


def angle_limits(instance):
    """Limits of each pair of buses, the lower number first."""
    limits = {}
    for start, end, low, high in zip(*(getattr(instance, name).tolist() for name in PAIRS), strict=True):
        limits[min(start, end), max(start, end)] = (low, high) if start < end else (-high, -low)
    return limits


def must_agree(again, instance, apart=()):
    """All fields equal, numbers that were divided to 1e-12; a pair of buses may be named the other way round."""
    assert angle_limits(again) == angle_limits(instance)
    for f in fields(instance):
        if f.name in (*apart, *PAIRS):
            continue
        ours, theirs = getattr(instance, f.name), getattr(again, f.name)
        if isinstance(ours, np.ndarray) and ours.dtype.kind == "f":
            np.testing.assert_allclose(theirs, ours, rtol=1e-12, err_msg=f.name)
        else:
            np.testing.assert_array_equal(theirs, ours, err_msg=f.name)


def test_a_case_with_every_peculiarity_comes_back():
    instance = formats.parse_case(*small_case(), name="small")
    must_agree(read_again(instance), instance)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 7), st.integers(1, 8), st.integers(0, 10**6), st.sampled_from(["copper", "transport", "dc"]))
def test_random_cascades_come_back(n, buses, seed, network):
    instance = cascade(n, buses, seed, horizon=5, network=network, n_columns=3)
    must_agree(read_again(instance), instance)


@pytest.mark.parametrize("name", ["case3", "case3deterministic", "bolivia", "bolivia-paper2024"])
def test_public_cases_come_back(name):
    instance = from_files(name)
    must_agree(read_again(instance), instance)


def test_a_folder_that_was_written_is_read(tmp_path):
    instance = cascade(3, 4, 5)
    formats.write_case(instance, tmp_path / "case")
    again = formats.read_case(tmp_path / "case", horizon=24)
    assert again.name == "case"
    must_agree(again, instance, apart=("name",))
    assert not (tmp_path / "case" / formats.PROBABILITIES).exists()


def test_of_changing_demand_one_stage_is_written_if_it_is_named(tmp_path):
    instance = seasonal_cascade(3, 4, 5)
    with pytest.raises(InputError, match="demand that changes from stage to stage"):
        formats.write_case(instance, tmp_path)
    formats.write_case(instance, tmp_path, demand_stage=13)
    assert (instance.demand[1] != instance.demand[0]).any()
    np.testing.assert_array_equal(formats.read(tmp_path).demand, instance.demand[1:2])
    with pytest.raises(InputError, match="demand_stage"):
        formats.write_case(instance, tmp_path, demand_stage=24)


def test_probabilities_are_written_only_where_they_differ(tmp_path):
    instance = formats.parse_case(*small_case(), name="small")
    formats.write_case(instance, tmp_path)
    np.testing.assert_array_equal(formats.read(tmp_path).probabilities, instance.probabilities)
    formats.write_case(replace(instance, probabilities=np.full((2, 2), 0.5)), tmp_path)
    assert not (tmp_path / formats.PROBABILITIES).exists()


def test_stage_costs_agree():
    instance = cascade(4, 5, 2)
    ours, theirs = StageLP(instance), StageLP(read_again(instance))
    rng = np.random.default_rng(0)
    for water in rng.uniform(0, 100, (10, 4)):
        assert theirs.solve(water).cost == pytest.approx(ours.solve(water).cost, rel=1e-9)


def test_a_scenario_is_written_as_its_path():
    instance = cascade(3, 2, 1, horizon=5)
    scenario = instance.scenario(8)
    again = read_again(scenario)
    assert again.columns is None
    assert again.inflows.shape == (5, 3, 1)
    np.testing.assert_array_equal(again.inflows[..., 0], scenario.path_inflows(scenario.columns))


def test_limits_of_pairs_stand_on_their_branches():
    """Parallel branches and one that runs against its pair all carry the limits of the pair."""
    instance = formats.parse_case(*small_case(), name="small")
    branches = case_parts(instance)[0]["branch"]
    assert (branches["2"]["angmin"], branches["2"]["angmax"]) == (-0.5, 0.4)
    assert (branches["3"]["angmin"], branches["3"]["angmax"]) == (-0.4, 0.5)
    assert "rate_a" not in branches["2"]


def test_limits_get_a_cost_that_exceeds_what_they_save():
    instance = cascade(3, 2, 1)
    plants = case_parts(instance)[1]["Hydrogenerators"]
    worth = instance.deficit_cost / instance.base_mva * instance.production_factor.sum()
    for i, plant in enumerate(plants):
        assert (plant["minimal_outflow_violation_cost"] > worth) == (instance.min_outflow[i] > 0)
        assert (plant["minimal_volume_violation_cost"] > worth / instance.water_factor) == (instance.min_volume[i] > 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"demand": np.array([[0.5, 0.0, 0.4], [0.5, 0.1, 0.4]])}, "demand[1]: a HydroPowerModels case cannot express"),
        ({"joint": False}, "joint: a HydroPowerModels case cannot express plants that draw apart (got False"),
        ({"susceptance": np.array([9.0, 0.0, 5.0])}, "susceptance[1]: a HydroPowerModels case cannot express"),
        (
            {"max_flow": np.array([0.7, 0.0, 1.0])},
            "max_flow[1]: a HydroPowerModels case cannot express a branch of cap",
        ),
        ({"pair_to": np.array([1, 0])}, "pair_from[0]"),
    ],
)
def test_what_a_case_cannot_express_is_named(tmp_path, change, words):
    instance = formats.parse_case(*small_case(), name="small")
    if "pair_to" in change:
        change = {"pair_from": np.array([0, 1]), "pair_to": np.array([2, 2])}
    with pytest.raises(InputError) as caught:
        formats.write_case(replace(instance, **change), tmp_path / "case")
    assert words in str(caught.value)
    assert str(caught.value).startswith("small")
    assert not (tmp_path / "case").exists()


def test_julia_finds_the_keys_of_a_parsed_network():
    """PowerModels checks these when it reads a parsed network; a missing one is an error there."""
    system = json.loads(json.dumps(case_parts(cascade(2, 3, 0))[0]))
    assert {"baseMVA", "per_unit", "bus", "gen", "branch", "load", "shunt", "storage", "dcline"} <= set(system)
    needed = {
        "bus": {"index", "bus_i", "bus_type", "vmin", "vmax"},
        "gen": {"index", "gen_bus", "gen_status", "pmin", "pmax", "qmin", "qmax", "model", "ncost", "cost"},
        "branch": {"index", "f_bus", "t_bus", "br_r", "br_x", "g_fr", "g_to", "b_fr", "b_to", "tap", "shift"},
        "load": {"index", "load_bus", "pd", "qd", "status"},
    }
    for section, keys in needed.items():
        for number, item in system[section].items():
            assert keys <= set(item)
            assert item["index"] == int(number)
