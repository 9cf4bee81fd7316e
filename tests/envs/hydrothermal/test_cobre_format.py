"""Cases of cobre: what is written comes back; what one side cannot express is refused with the field named."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orl.common.errors import InputError, MissingExtraError
from orl.envs.hydrothermal import cobre_format
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.cobre_export import case_tables
from orl.envs.hydrothermal.cobre_import import instance_of
from orl.envs.hydrothermal.generators import cascade
from orl.envs.hydrothermal.instance import HydrothermalInstance
from orl.envs.hydrothermal.library import load
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.solvers.hydrothermal.scenario_tree import tree_cost

SCENARIOS = "scenarios/"
INFLOW, LOAD, NOISE = (
    f"{SCENARIOS}{name}.parquet" for name in ("inflow_seasonal_stats", "load_seasonal_stats", "noise_openings")
)
needs_polars = pytest.mark.skipif(importlib.util.find_spec("polars") is None, reason="needs the extra cobre (polars)")


def expressible(n=4, buses=3, seed=0, **options):
    """A random cascade whose spilled water goes where turbined water goes."""
    instance = cascade(n, buses, seed, horizon=15, network="transport", n_columns=3, **options)
    return replace(instance, spill_to=instance.turbine_to)


def again(instance, **options):
    return instance_of(json.loads(json.dumps(case_tables(instance))), name=instance.name, source="case", **options)


def toy_tables():
    """Two stages, two plants in cascade, one thermal plant, two buses and a line: every entry that is read."""
    return copy.deepcopy(TOY)


# ---- there and back --------------------------------------------------------------------------------------------------
def test_the_example_of_the_package_comes_back():
    instance = load("tri3")
    back = again(instance)
    assert (back.horizon, back.network, back.bus_names) == (4, "copper", ("system",))
    for name in ("production_factor", "max_volume", "initial_volume", "max_outflow", "turbine_to", "spill_to"):
        np.testing.assert_array_equal(getattr(back, name), getattr(instance, name))
    for name in ("inflows", "probabilities", "demand", "max_power", "generator_costs", "deficit_cost"):
        np.testing.assert_allclose(getattr(back, name), getattr(instance, name), rtol=1e-12)
    assert tree_cost(back) == pytest.approx(tree_cost(instance), rel=1e-9)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6), st.sampled_from(["copper", "transport"]))
def test_stages_of_random_cascades_cost_the_same(n, buses, seed, network):
    instance = replace(expressible(n, buses, seed), network=network)
    back = again(instance)
    assert back.inflows.shape == instance.inflows.shape  # 15 stages of a cycle of 12 are again a cycle
    np.testing.assert_allclose(back.inflows, instance.inflows, atol=1e-9)
    assert back.network == ("copper" if buses == 1 else network)
    rng = np.random.default_rng(seed)
    for stage in (0, 13):
        ours, theirs = StageLP(instance, stage, "storage"), StageLP(back, stage, "storage")
        for share in rng.uniform(0, 1.5, (3, n)):
            water = instance.min_volume + share * (instance.max_volume + 50)
            assert theirs.solve(water).cost == pytest.approx(ours.solve(water).cost, rel=1e-7, abs=1e-3)


def test_costs_of_plants_keep_their_units():
    """A cost of spilling counts in hm3 here and in m3/s and hours there; one of hydro power in m3/s there."""
    instance = replace(
        load("tri3"), spill_costs=np.array([3.0, 0.0, 1.0]), generator_costs=np.array([0.0, 50.0, 200.0, 2e3, 6e3])
    )
    hydros = case_tables(instance)["system/hydros.json"]["hydros"]
    assert hydros[0]["penalties"]["spillage_cost"] == pytest.approx(3.0 * 0.0036 * 730)
    assert hydros[2]["penalties"]["turbined_cost"] == pytest.approx(200 / 100 * 0.8)
    back = again(instance)
    np.testing.assert_allclose(back.spill_costs, instance.spill_costs)
    np.testing.assert_allclose(back.generator_costs, instance.generator_costs)


def test_a_scenario_is_written_as_its_path():
    scenario = load("tri3-t6/scenario-4")
    back = again(scenario)
    assert back.n_columns == 1
    np.testing.assert_allclose(
        back.inflows[np.arange(6) % len(back.inflows), :, 0], scenario.path_inflows(scenario.columns)
    )


def test_rows_that_repeat_the_first_one_only_are_no_cycle():
    tri3 = load("tri3")
    instance = replace(tri3, demand=tri3.demand[[0, 0, 2, 3]], inflows=tri3.inflows[[0, 1, 0, 3]])
    back = again(instance)
    np.testing.assert_allclose(back.demand, instance.demand)
    np.testing.assert_allclose(back.inflows, instance.inflows)


def test_columns_of_probability_0_are_left_out():
    instance = load("tri3")
    back = again(replace(instance, probabilities=np.tile([0.5, 0.0, 0.5], (4, 1))))
    np.testing.assert_allclose(back.inflows, instance.inflows[:, :, [0, 2]])


def test_a_reservoir_without_capacity_comes_back():
    instance = replace(
        load("tri3"), max_volume=np.array([200.0, 0.0, 80.0]), initial_volume=np.array([100.0, 0.0, 40.0])
    )
    back = again(instance)
    assert back.max_volume.tolist() == [200, 0, 80]
    assert tree_cost(back) == pytest.approx(tree_cost(instance), rel=1e-9)


def test_lines_without_a_limit_get_one_that_never_binds():
    instance = expressible(3, 4, 1)
    free = replace(instance, max_flow=np.full(instance.n_branches, np.inf))
    back = again(free)
    assert np.isfinite(back.max_flow).all()
    water = instance.initial_volume
    assert StageLP(back, 0, "storage").solve(water).cost == pytest.approx(
        StageLP(free, 0, "storage").solve(water).cost, rel=1e-7
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "dc"}, "network: cobre cannot express angles (got 'dc'"),
        ({"joint": False}, "joint: cobre cannot express plants that draw apart"),
        ({"surplus": False}, "surplus: cobre cannot express"),
        ({"deficit_cost": 0.0}, "deficit_cost: cobre cannot express"),
        ({"probabilities": np.tile([0.25, 0.25, 0.5], (4, 1))}, "probabilities[0]: cobre cannot express openings"),
        ({"probabilities": np.array([[0.5, 0.5, 0]] + [[1 / 3] * 3] * 3)}, "probabilities[1]: not as many inflow"),
        ({"spill_to": np.zeros((3, 3), bool)}, "spill_to[0]: cobre cannot express spilled water of 'A'"),
        ({"demand": np.array([[-0.1]])}, "demand[0][0]: negative demand"),
    ],
)
def test_what_cobre_cannot_express_is_named(change, words):
    with pytest.raises(InputError) as caught:
        case_tables(replace(load("tri3"), **change))
    assert words in str(caught.value)
    assert str(caught.value).startswith("tri3")


def test_options_of_cobres_sddp_are_checked():
    config = case_tables(load("tri3"), iterations=7, forward_passes=2, seed=5)["config.json"]["training"]
    assert config["stopping_rules"] == [{"type": "iteration_limit", "limit": 7}]
    assert config["selection"]["forward_passes"] == 2
    assert config["tree_seed"] == config["scenario_source"]["seed"] == 5
    for option in ({"iterations": 0}, {"forward_passes": True}, {"seed": -1}):
        with pytest.raises(InputError, match=next(iter(option))):
            case_tables(load("tri3"), **option)


def test_dates_never_run_out():
    stages = case_tables(hydrothermal(**LONG))["stages.json"]["stages"]
    assert stages[0]["start_date"] == "2000-01-01"
    assert stages[-1]["end_date"] < "9999-12-31"
    assert stages[0]["blocks"][0]["hours"] == 1e5


LONG = {
    "horizon": 10_000,
    "stage_hours": 1e5,
    "production_factor": [1.0],
    "max_volume": [1.0],
    "max_outflow": [1.0],
    "inflows": [[[1.0]]],
    "max_power": [0.1],
    "generator_costs": [0.0],
    "plant_generator": [0],
    "demand": [[0.5]],
    "deficit_cost": 100.0,
    "network": "copper",
}


# ---- reading ---------------------------------------------------------------------------------------------------------
def group(number, **limits):
    return {"id": number, "name": "all", "bus_id": 7, **limits}


def hydro(number, name, downstream, low=0.0):
    limits = {
        "min_turbined_m3s": low,
        "max_turbined_m3s": 50.0,
        "min_generation_mw": 0.0,
        "max_generation_mw": 40.0,
    }
    return {
        "id": number,
        "name": name,
        "operational_start_date": "2020-01-01",
        "downstream_id": downstream,
        "reservoir": {"min_storage_hm3": 0.0, "max_storage_hm3": 100.0},
        "outflow": {"min_outflow_m3s": 0.0, "max_outflow_m3s": None},
        "generation": {"model": "constant_productivity", **limits},
        "unit_groups": [group(0, **(limits | {"max_turbined_m3s": 45.0}))],
        "penalties": {"spillage_cost": 0.02, "turbined_cost": None},
    }


def stage(number):
    days = ("2024-01-01", "2024-01-08", "2024-01-15")
    block = {"id": 0, "name": "all", "hours": 168.0}
    return {
        "id": number,
        "start_date": days[number],
        "end_date": days[number + 1],
        "blocks": [block],
        "num_openings": 2,
    }


def production(number, factor):
    model = {"start_stage_id": 0, "end_stage_id": 1, "model": "constant_productivity"}
    return {
        "hydro_id": number,
        "selection_mode": "stage_ranges",
        "stage_ranges": [model | {"productivity_mw_per_m3s": factor}],
    }


def line():
    return {
        "id": 0,
        "name": "L",
        "operational_start_date": "2020-01-01",
        "source_bus_id": 2,
        "target_bus_id": 7,
        "capacity": {"direct_mw": 20.0, "reverse_mw": 20.0},
        "exchange_cost": 1e-7,
    }


TOY = {
    "config.json": {"training": {}},
    "stages.json": {
        "policy_graph": {"type": "finite_horizon", "annual_discount_rate": 0.0},
        "stages": [stage(0), stage(1)],
    },
    "initial_conditions.json": {
        "storage": [{"hydro_id": 5, "value_hm3": 30.0}, {"hydro_id": 3, "value_hm3": 10.0}],
        "filling_storage": [],
    },
    "penalties.json": {
        "bus": {"deficit_segments": [{"depth_mw": None, "cost": 1000.0}], "excess_cost": 1000.0},
        "line": {"exchange_cost": 2.0},
        "hydro": {"spillage_cost": 0.01, "turbined_cost": 0.05},
        "non_controllable_source": {"curtailment_cost": 0.005},
    },
    "system/buses.json": {
        "buses": [
            {"id": 7, "name": "south", "operational_start_date": "2020-01-01"},
            {
                "id": 2,
                "name": "north",
                "operational_start_date": "2020-01-01",
                "deficit_segments": [{"depth_mw": None, "cost": 1000.0}],
            },
        ]
    },
    "system/lines.json": {"lines": [line()]},
    "system/thermals.json": {
        "thermals": [
            {
                "id": 0,
                "name": "T",
                "operational_start_date": "2020-01-01",
                "bus_id": 2,
                "generation": {"min_mw": 1.0, "max_mw": 30.0},
                "cost_per_mwh": 25.0,
            }
        ]
    },
    "system/hydros.json": {"hydros": [hydro(5, "low", None), hydro(3, "high", 5, low=1.0)]},
    "system/hydro_production_models.json": {"production_models": [production(3, 0.5), production(5, 0.9)]},
    INFLOW: {
        "hydro_id": [3, 3, 5, 5],
        "stage_id": [0, 1, 0, 1],
        "mean_m3s": [20.0, 10.0, 5.0, 5.0],
        "std_m3s": [4.0, 2.0, 1.0, 0.0],
    },
    LOAD: {"bus_id": [7, 7], "stage_id": [0, 1], "mean_mw": [50.0, 60.0], "std_mw": [0.0, 0.0]},
    NOISE: {
        "stage_id": [0, 0, 0, 0, 1, 1, 1, 1],
        "opening_index": [0, 0, 1, 1, 0, 0, 1, 1],
        "entity_index": [0, 1, 0, 1, 0, 1, 0, 1],
        "value": [-1.0, -0.5, 1.0, 0.5, -1.5, 0.0, 1.5, 0.0],
    },
}


def test_a_case_is_read_by_ids():
    instance = instance_of(toy_tables(), name="toy", source="case")
    assert (instance.network, instance.horizon, instance.stage_hours) == ("transport", 2, 168.0)
    assert instance.bus_names == ("north", "south")
    assert instance.plant_names == ("high", "low")
    assert np.argwhere(instance.turbine_to).tolist() == np.argwhere(instance.spill_to).tolist() == [[0, 1]]
    assert instance.initial_volume.tolist() == [10, 30]
    assert instance.min_outflow.tolist() == [1, 0]
    assert instance.max_outflow.tolist() == [45, 45]  # the tighter limit of plant and group
    assert instance.production_factor.tolist() == [0.5, 0.9]
    assert instance.generator_bus.tolist() == [1, 1, 0]
    np.testing.assert_allclose(instance.generator_costs, [0.05 / 0.5 * 100, 0.05 / 0.9 * 100, 2500])
    np.testing.assert_allclose(instance.spill_costs, 0.02 / (0.0036 * 168))
    np.testing.assert_allclose(instance.demand, [[0, 0.5], [0, 0.6]])
    np.testing.assert_allclose(instance.inflows, [[[16, 24], [4.5, 5.5]], [[7, 13], [5, 5]]])
    assert instance.max_flow.tolist() == [0.2]
    assert instance.min_power.tolist() == [0, 0, 0.01]
    assert instance.deficit_cost == 1e5


def put(data, path, value):
    """Set, or with value ... delete, what a path of keys leads to."""
    parent = reduce(lambda level, key: level[key], path[:-1], data)
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value


STAGE = ("stages.json", "stages", 1)
HYDRO = ("system/hydros.json", "hydros", 1)
MISTAKES = [  # where, value, words of the message
    (("system/lines.json",), ..., "system/lines.json: missing file"),
    ((INFLOW,), ..., "inflow_seasonal_stats.parquet: missing file"),
    ((NOISE,), ..., "noise_openings.parquet: missing file"),
    (("constraints/hydro_bounds.parquet",), {"hydro_id": [1]}, "constraints/hydro_bounds.parquet: not modelled"),
    (("scenarios/inflow_ar_coefficients.parquet",), {"lag": [1]}, "inflow_ar_coefficients.parquet: not modelled"),
    (("system/pumping_stations.json",), {"pumping_stations": [{}]}, "pumping_stations.json: not modelled"),
    (("stages.json", "policy_graph"), [], "policy_graph: not an object"),
    (("stages.json", "policy_graph", "type"), "cyclic", "policy_graph.type: not modelled (got 'cyclic'"),
    (("stages.json", "policy_graph", "annual_discount_rate"), 0.12, "annual_discount_rate: not modelled (got 0.12"),
    (("stages.json", "policy_graph", "nodes"), [{"id": 0}], "policy_graph.nodes: not modelled"),
    (
        ("stages.json", "policy_graph", "transitions"),
        [{"probability": 0.5}],
        "policy_graph.transitions[0].probability: not modelled (got 0.5",
    ),
    (("stages.json", "stages"), [], "stages: no stages"),
    ((*STAGE, "id"), 2, "stages[1].id: not in order (got 2"),
    ((*STAGE, "blocks", 0, "hours"), 169.0, "stages[1].blocks[0].hours: stages of different length (got 169"),
    ((*STAGE, "blocks", 0, "hours"), 0.0, "stages[1].blocks[0].hours: bad number"),
    ((*STAGE, "blocks"), [], "stages[1].blocks: not modelled (got 0, expected one block"),
    ((*STAGE, "risk_measure"), {"cvar": {"alpha": 0.9, "lambda": 0.5}}, "stages[1].risk_measure: not modelled"),
    ((*STAGE, "annual_discount_rate_override"), 0.1, "stages[1].annual_discount_rate_override: not modelled"),
    (("initial_conditions.json", "storage", 0, "hydro_id"), 6, "storage[0].hydro_id: refers to nothing (got 6"),
    (("initial_conditions.json", "storage", 0), ..., "storage: missing plant (got 5"),
    (("initial_conditions.json", "storage", 0, "value_hm3"), 101.0, "initial_volume is above max_volume"),
    (("initial_conditions.json", "past_defluences"), [{}], "past_defluences: not modelled"),
    (("penalties.json", "bus", "excess_cost"), 100.0, "bus.excess_cost: not modelled (got 100"),
    (("penalties.json", "bus", "deficit_segments", 0, "depth_mw"), 5.0, "bus.deficit_segments: not modelled"),
    (("penalties.json", "bus", "deficit_segments", 0, "cost"), 900.0, "bus.deficit_segments[0].cost: not modelled"),
    (("penalties.json", "hydro", "turbined_cost"), ..., "turbined_cost: not a number"),
    (("system/buses.json", "buses"), [], "system/buses.json, buses: empty"),
    (("system/buses.json", "buses", 0, "id"), 2, "buses[1].id: given twice (got 2"),
    (("system/buses.json", "buses", 0, "name"), ..., "buses[0].name: missing key"),
    (("system/lines.json", "lines", 0, "target_bus_id"), 1, "lines[0].target_bus_id: refers to nothing (got 1"),
    (("system/lines.json", "lines", 0, "target_bus_id"), 2, "joins a bus with itself"),
    (("system/lines.json", "lines", 0, "exchange_cost"), None, "lines[0].exchange_cost: not modelled (got 2"),
    (("system/lines.json", "lines", 0, "losses_percent"), 3.0, "lines[0].losses_percent: not modelled (got 3"),
    (("system/lines.json", "lines", 0, "capacity", "reverse_mw"), 10.0, "capacity.reverse_mw: not modelled (got 10"),
    (("system/lines.json", "lines", 0, "capacity", "direct_mw"), float("nan"), "direct_mw: bad number (got nan"),
    (("system/lines.json", "lines", 0, "entry_stage_id"), 1, "lines[0].entry_stage_id: not modelled (got 1"),
    (("system/thermals.json", "thermals", 0, "bus_id"), 4, "thermals[0].bus_id: refers to nothing (got 4"),
    (
        ("system/thermals.json", "thermals", 0, "generation", "min_mw"),
        31.0,
        "generation.min_mw: min_mw is above max_mw",
    ),
    (("system/thermals.json", "thermals", 0, "cost_per_mwh"), -1.0, "thermals[0].cost_per_mwh: bad number (got -1"),
    (("system/thermals.json", "thermals", 0, "anticipated_config"), {"lead_stages": 1}, "anticipated_config: not mod"),
    (("system/hydros.json", "hydros"), [], "system/hydros.json, hydros: empty"),
    (("system/hydros.json", "hydros", 0, "downstream_id"), 3, "the cascade has a cycle"),
    ((*HYDRO, "downstream_id"), 4, "hydros[1].downstream_id: refers to nothing (got 4"),
    ((*HYDRO, "outflow", "max_outflow_m3s"), 50.0, "hydros[1].outflow.max_outflow_m3s: not modelled (got 50"),
    ((*HYDRO, "outflow", "min_outflow_m3s"), 5.0, "hydros[1].outflow.min_outflow_m3s: not modelled (got 5"),
    ((*HYDRO, "generation", "model"), "fpha", "hydros[1].generation.model: not modelled (got 'fpha'"),
    ((*HYDRO, "generation", "min_turbined_m3s"), 46.0, "min_turbined_m3s is above max_turbined_m3s (got 46"),
    ((*HYDRO, "unit_groups"), [], "hydros[1].unit_groups: not modelled (got 0"),
    ((*HYDRO, "penalties"), [1], "hydros[1].penalties: not an object"),
    ((*HYDRO, "penalties", "spillage_cost"), -1.0, "hydros[1].penalties.spillage_cost: bad number (got -1"),
    ((*HYDRO, "evaporation"), {"coefficients_mm": [1.0]}, "hydros[1].evaporation: not modelled"),
    ((*HYDRO, "travel_time_hours"), 12.0, "hydros[1].travel_time_hours: not modelled (got 12"),
    ((*HYDRO, "reservoir"), 3, "hydros[1].reservoir: not an object"),
    (("system/hydro_production_models.json", "production_models", 0), ..., "production_models: missing plant (got 3"),
    (
        ("system/hydro_production_models.json", "production_models", 0, "stage_ranges", 0, "end_stage_id"),
        0,
        "production_models[0].stage_ranges: not modelled",
    ),
    (
        ("system/hydro_production_models.json", "production_models", 0, "selection_mode"),
        "seasonal",
        "production_models[0].selection_mode: not modelled",
    ),
    (
        (
            "system/hydro_production_models.json",
            "production_models",
            0,
            "stage_ranges",
            0,
            "productivity_mw_per_m3s",
        ),
        0.0,
        "hydros[1].penalties.turbined_cost: not modelled (got 0.05",
    ),
    ((INFLOW, "mean_m3s", 2), float("nan"), "mean_m3s[2]: bad number (got nan"),
    ((INFLOW, "mean_m3s", 2), -50.0, "negative inflow"),
    ((INFLOW, "hydro_id", 2), 4, "hydro_id[2]: refers to nothing (got 4"),
    ((INFLOW, "stage_id", 1), 0, "mean_m3s: row given twice"),
    ((INFLOW, "stage_id"), [0, 1, 0], "stage_id: columns of different length (got 3, expected 4"),
    ((LOAD, "stage_id", 1), 2, "stage_id[1]: refers to nothing (got 2"),
    ((LOAD, "std_mw", 0), 5.0, "std_mw: random demand is not modelled (got 5"),
    ((LOAD, "bus_id"), ..., "bus_id: missing key"),
    ((NOISE, "opening_index", 2), 10**7, "opening_index: too large"),
    ((NOISE, "opening_index", 2), 2, "value: missing row (got 'stage_id 0, entity_index 0, opening_index 1'"),
    ((NOISE, "entity_index", 1), 2, "entity_index[1]: refers to nothing (got 2"),
]


@pytest.mark.parametrize(("where", "value", "words"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_a_mistake_is_named_with_file_and_field(where, value, words):
    tables = toy_tables()
    put(tables, where, value)
    with pytest.raises(InputError) as caught:
        instance_of(tables, name="toy", source="case")
    assert words in str(caught.value)
    assert str(caught.value).startswith("case")


def test_the_monthly_example_of_cobre_is_read_when_told_what_to_leave_out():
    """Its 1dtoy: months of different length, discounting, another cost of surplus, a limit of total outflow."""
    tables = toy_tables()
    put(tables, (*STAGE, "blocks", 0, "hours"), 696.0)
    put(tables, ("stages.json", "policy_graph", "annual_discount_rate"), 0.12)
    put(tables, ("penalties.json", "bus", "excess_cost"), 100.0)
    put(tables, (*HYDRO, "outflow", "max_outflow_m3s"), 50.0)
    features = ["annual_discount_rate", "excess_cost", "max_outflow_m3s"]
    instance = instance_of(tables, name="toy", stage_hours=720.0, leave_out=features)
    assert instance.stage_hours == 720
    for left in features:
        with pytest.raises(InputError, match=left):
            instance_of(tables, name="toy", stage_hours=720.0, leave_out=[f for f in features if f != left])
    with pytest.raises(InputError, match="leave_out: cannot be left out"):
        instance_of(tables, name="toy", leave_out=["evaporation"])
    with pytest.raises(InputError, match="stage_hours: bad number"):
        instance_of(tables, name="toy", leave_out=features, stage_hours=float("nan"))


def test_inflows_without_deviation_need_no_noise():
    tables = toy_tables()
    del tables[NOISE]
    tables[INFLOW]["std_m3s"] = [0.0] * 4
    assert instance_of(tables, name="toy").inflows.tolist() == [[[20], [5]], [[10], [5]]]


def test_a_case_without_load_has_no_demand():
    tables = toy_tables()
    del tables[LOAD]
    assert not instance_of(tables, name="toy").demand.any()


def test_files_and_entries_that_say_nothing_are_read_over():
    tables = toy_tables() | {"system/energy_contracts.json": {"$schema": "x", "energy_contracts": []}}
    put(tables, (*HYDRO, "tailrace"), None)
    assert instance_of(tables, name="toy").same_as(instance_of(toy_tables(), name="toy"))


# ---- whatever the files hold, the answer is an instance or one InputError --------------------------------------------
def paths_of(data, path=()):
    yield path
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from paths_of(data[key], (*path, key))


PLACES = sorted(paths_of(TOY), key=str)[1:]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.integers(),
    st.floats(),
    st.floats(0, 60),
    st.text(max_size=3),
    st.lists(st.integers(-1, 9), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD), min_size=1, max_size=2))
def test_any_case_is_read_or_refused(changes):
    tables = toy_tables()
    for place, value in changes:
        try:
            put(tables, place, value)
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            assume(False)
    try:
        instance = instance_of(tables, name="toy", source="case")
    except InputError:
        return
    assert HydrothermalInstance.from_json(json.loads(json.dumps(instance.to_json()))).same_as(instance)


# ---- folders ---------------------------------------------------------------------------------------------------------
def test_without_polars_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtraError, match=r"orl\[cobre\]"):
        cobre_format.write(load("tri3"), tmp_path / "case")
    assert not (tmp_path / "case").exists()
    with pytest.raises(InputError, match="not a folder"):
        cobre_format.read(tmp_path / "case")


@needs_polars
def test_a_folder_that_was_written_is_read(tmp_path):
    for instance in (load("tri3"), expressible(3, 4, 2), load("tri3-t6/scenario-1")):
        folder = tmp_path / instance.name.replace("/", "-")
        cobre_format.write(instance, folder)
        assert cobre_format.read(folder, name=instance.name).same_as(again(instance))
    assert cobre_format.read(folder).name == "tri3-t6-scenario-1"


@needs_polars
def test_columns_have_the_types_that_cobre_reads(tmp_path):
    import polars

    cobre_format.write(load("tri3"), tmp_path)
    noise = polars.read_parquet(tmp_path / NOISE).schema
    assert noise == {
        "stage_id": polars.Int32,
        "opening_index": polars.UInt32,
        "entity_index": polars.UInt32,
        "value": polars.Float64,
    }
    assert list(polars.read_parquet(tmp_path / INFLOW).schema) == ["hydro_id", "stage_id", "mean_m3s", "std_m3s"]


@needs_polars
def test_a_damaged_file_is_named(tmp_path):
    cobre_format.write(load("tri3"), tmp_path)
    (tmp_path / NOISE).write_bytes(b"PAR1 no table")
    with pytest.raises(InputError, match="noise_openings.parquet"):
        cobre_format.read(tmp_path)
    cobre_format.write(load("tri3"), tmp_path)
    (tmp_path / "stages.json").write_text("{")
    with pytest.raises(InputError, match="stages.json"):
        cobre_format.read(tmp_path)
