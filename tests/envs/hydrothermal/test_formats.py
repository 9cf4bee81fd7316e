"""HydroPowerModels case folders: what is read, and what is refused with file, field and value."""

from __future__ import annotations

import json
from functools import reduce

import numpy as np
import pytest
from hydrothermal_cases import INFLOWS, small_case, write_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.envs.hydrothermal import formats, library
from orl.envs.hydrothermal.instance import HydrothermalInstance
from orl.envs.hydrothermal.reach import ReachableMap

SYSTEM, HYDRO, TABLE, CHANCES = "PowerModels.json", "hydro.json", "inflows.csv", "scenarioprobability.csv"


def read_small(**options):
    return formats.parse_case(*small_case(), name="small", source="case", **options)


def test_a_case_is_read_by_position():
    instance = read_small()
    assert (instance.name, instance.network, instance.horizon) == ("small", "dc", 2)
    assert instance.bus_names == ("north", "bus 2", "bus 10")
    assert instance.reference_bus == 0
    assert instance.plant_names == ("top", "plant 2", "plant 3")
    assert instance.stage_hours == 730
    np.testing.assert_allclose(instance.demand, [[0.5, 0.0, 0.4]])  # two loads share a bus, one is out of service
    assert instance.deficit_cost == 500 * 100
    np.testing.assert_array_equal(instance.generator_bus, [0, 1, 2, 2, 1])  # numbered 1, 2, 3, 4, 12; 5 is out
    np.testing.assert_array_equal(instance.generator_costs, [2000, 6000, 0, 0, 10])
    np.testing.assert_array_equal(instance.min_power, [0, 0.1, 0, 0, 0])
    np.testing.assert_array_equal(instance.plant_generator, [2, 4, 3])
    np.testing.assert_array_equal(instance.initial_volume, [0, 0, 4])  # 9e-316 means 0
    np.testing.assert_array_equal(instance.spill_costs, [0, 2.5, 0])
    np.testing.assert_array_equal(instance.max_volume, [50, 0, 12])
    assert np.argwhere(instance.turbine_to).tolist() == [[0, 1], [1, 2]]
    assert np.argwhere(instance.spill_to).tolist() == [[0, 1]]
    assert instance.upstream_first.tolist() == [0, 1, 2]


def test_branches_and_angles_of_a_case():
    instance = read_small()
    np.testing.assert_array_equal(instance.branch_from, [0, 1, 2])
    np.testing.assert_array_equal(instance.branch_to, [1, 2, 1])
    assert instance.susceptance[0] == pytest.approx(0.1067 / (0.0033**2 + 0.1067**2))
    assert instance.susceptance[0] == pytest.approx(9.3631, abs=1e-4)
    np.testing.assert_array_equal(instance.max_flow, [0.7, np.inf, np.inf])
    assert list(zip(instance.pair_from, instance.pair_to, strict=True)) == [(0, 1), (1, 2)]
    np.testing.assert_allclose(instance.min_angle, [-1.0, -0.5])
    np.testing.assert_allclose(instance.max_angle, [1.0, 0.4])  # the parallel branch runs the other way


def test_inflows_are_blocks_of_plants():
    instance = read_small()
    assert instance.inflows.shape == (2, 3, 2)
    assert instance.inflows[0].tolist() == [[10, 20], [1, 2], [0.5, 0.25]]
    assert instance.inflow(3, 1).tolist() == [8, 1, 0.1]
    np.testing.assert_array_equal(instance.probabilities, [[0.25, 0.75], [0.5, 0.5]])
    uniform = formats.parse_case(*small_case()[:3])
    np.testing.assert_array_equal(uniform.probabilities, np.full((2, 2), 0.5))


def test_options_replace_what_the_files_say():
    instance = read_small(network="copper", horizon=7, stage_hours=168, demand_scale=[0.5, 1.0, 2.0], deficit_cost=60.0)
    assert (instance.network, instance.horizon, instance.stage_hours) == ("copper", 7, 168.0)
    np.testing.assert_allclose(instance.demand[:, 0], [0.25, 0.5, 1.0])
    assert instance.deficit_cost == 6000
    hydro = small_case()[1]
    del hydro["stage_hours"]
    system = small_case()[0]
    assert formats.parse_case(system, hydro, INFLOWS).stage_hours == 1


def test_a_folder_is_read(tmp_path):
    folder = write_case(tmp_path / "my case")
    assert formats.read(folder).same_as(formats.read_case(folder))
    assert formats.read(folder).name == "my case"
    assert library.load(folder).name == "my case"
    assert library.load(str(folder)).n_plants == 3
    assert formats.read(folder, network="transport", horizon=3).horizon == 3
    (folder / CHANCES).unlink()
    np.testing.assert_array_equal(formats.read(folder).probabilities, np.full((2, 2), 0.5))


@pytest.mark.parametrize("part", range(3))
def test_a_missing_file_is_named(tmp_path, part):
    case = [*small_case()]
    case[part] = None
    with pytest.raises(InputError, match=f"{(SYSTEM, HYDRO, TABLE)[part]}: missing file"):
        formats.read_case(write_case(tmp_path / "case", case))


@pytest.mark.parametrize("part", [SYSTEM, HYDRO, TABLE, CHANCES])
def test_a_damaged_file_is_named(tmp_path, part):
    folder = write_case(tmp_path / "case")
    (folder / part).write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match=part):
        formats.read_case(folder)


def put(data, path, value):
    """Set, or with value ... delete, what a path of keys leads to."""
    parent = reduce(lambda level, key: level[key], path[:-1], data)
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value


PLANT = ("Hydrogenerators", 1)
MISTAKES = [  # part, where, value, words of the message
    (SYSTEM, ("gen", "2", "gen_bus"), 99, "gen.2.gen_bus: no such bus (got 99"),
    (SYSTEM, ("load", "3", "load_bus"), 11, "load.3.load_bus: no such bus (got 11"),
    (SYSTEM, ("branch", "2", "t_bus"), 7, "branch.2.t_bus: no such bus (got 7"),
    (SYSTEM, ("branch", "2", "t_bus"), 2, "branch.2.t_bus: joins a bus with itself"),
    (SYSTEM, ("branch", "2", "br_x"), 0, "branch.2.br_x: no reactance"),
    (SYSTEM, ("branch", "2", "shift"), 0.1, "branch.2.shift: not modelled"),
    (SYSTEM, ("branch", "2", "angmin"), 1.0, "angmin is above angmax"),
    (SYSTEM, ("branch", "1", "rate_a"), -1, "branch.1.rate_a: bad number (got -1"),
    (SYSTEM, ("gen", "2", "pmin"), 0.7, "gen.2.pmin: pmin is above pmax (got 0.7, expected at most 0.4"),
    (SYSTEM, ("gen", "2", "pmin"), -0.7, "gen.2.pmin: bad number (got -0.7"),
    (SYSTEM, ("gen", "2", "pmax"), float("nan"), "gen.2.pmax: bad number (got nan"),
    (SYSTEM, ("gen", "2", "pmax"), float("inf"), "gen.2.pmax: bad number (got inf"),
    (SYSTEM, ("gen", "2", "pmax"), "0.4", "gen.2.pmax: not a number (got '0.4'"),
    (SYSTEM, ("gen", "2", "pmax"), True, "gen.2.pmax: not a number (got True"),
    (SYSTEM, ("gen", "2", "pmax"), ..., "gen.2.pmax: missing key"),
    (SYSTEM, ("gen", "2", "index"), 1, "gen.2.index: two generators with one index"),
    (SYSTEM, ("gen", "1", "cost"), [-5, 0], "gen.1.cost: negative cost (got -5"),
    (SYSTEM, ("gen", "1", "cost"), [2, 0, 0], "gen.1.cost: not as many as ncost"),
    (SYSTEM, ("gen", "2", "cost"), [1, 6000, 0], "gen.2.cost: not a linear cost"),
    (SYSTEM, ("gen", "1", "model"), 1, "gen.1.model: not a polynomial cost"),
    (SYSTEM, ("gen",), {}, "gen: no generators in service"),
    (SYSTEM, ("gen", "2"), [], "gen.2: not an object"),
    (SYSTEM, ("bus", "1", "bus_type"), 2, "bus_type: no reference bus"),
    (SYSTEM, ("bus", "2", "bus_type"), 3, "bus_type: several reference buses (got [1, 2]"),
    (SYSTEM, ("bus", "2", "bus_type"), 4, "bus.2.bus_type: bad bus"),
    (SYSTEM, ("bus", "2", "bus_i"), 1, "bus.2.bus_i: two buses with one number"),
    (SYSTEM, ("bus", "2", "bus_i"), 2.5, "bus.2.bus_i: not a whole number"),
    (SYSTEM, ("bus",), {}, "bus: no buses"),
    (SYSTEM, ("bus",), ..., "bus: missing key"),
    (SYSTEM, ("load", "1", "pd"), None, "load.1.pd: not a number"),
    (SYSTEM, ("baseMVA",), 0, "baseMVA: bad number (got 0"),
    (SYSTEM, ("cost_deficit",), ..., "cost_deficit: missing key"),
    (SYSTEM, ("cost_deficit",), -1, "cost_deficit: bad number (got -1"),
    (SYSTEM, ("per_unit",), False, "per_unit: not per unit"),
    (SYSTEM, ("storage",), {"1": {}}, "storage: not modelled"),
    (SYSTEM, ("shunt",), {"1": {"gs": 0.1}}, "shunt.1.gs: not modelled"),
    (HYDRO, (*PLANT, "downstream_turn"), [41], "Hydrogenerators[1].downstream_turn[0]: no such plant (got 41"),
    (HYDRO, (*PLANT, "downstream_turn"), [7, 40], "Hydrogenerators[1].downstream_turn: several plants downstream"),
    (HYDRO, (*PLANT, "downstream_turn"), 40, "Hydrogenerators[1].downstream_turn: not a list"),
    (HYDRO, (*PLANT, "downstream_spill"), [7], "the cascade has a cycle"),
    (HYDRO, (*PLANT, "downstream_turn"), [3], "the cascade has a cycle"),
    (HYDRO, (*PLANT, "index"), 7, "Hydrogenerators[1].index: two plants with one index"),
    (HYDRO, (*PLANT, "index_grid"), 6, "Hydrogenerators[1].index_grid: no such generator in service (got 6"),
    (HYDRO, (*PLANT, "index_grid"), 5, "Hydrogenerators[1].index_grid: no such generator in service (got 5"),
    (HYDRO, (*PLANT, "index_grid"), 3, "index_grid: two plants with one generator (got 3"),
    (HYDRO, (*PLANT, "initial_volume"), 1, "initial_volume is above max_volume (got 1.0, expected at most 0"),
    (HYDRO, (*PLANT, "min_turn"), 50, "min_turn is above max_turn"),
    (HYDRO, ("Hydrogenerators", 2, "min_volume"), 5, "min_volume is above initial_volume"),
    (HYDRO, ("Hydrogenerators", 2, "min_turn"), 3, "water may not suffice for the least outflow (got 3.0"),
    (HYDRO, (*PLANT, "max_volume"), float("nan"), "Hydrogenerators[1].max_volume: bad number (got nan"),
    (HYDRO, (*PLANT, "max_volume"), -1, "Hydrogenerators[1].max_volume: bad number (got -1"),
    (HYDRO, (*PLANT, "max_turn"), ..., "Hydrogenerators[1].max_turn: missing key"),
    (HYDRO, (*PLANT,), 3, "Hydrogenerators[1]: not an object"),
    (HYDRO, ("Hydrogenerators",), [], "Hydrogenerators: no plants"),
    (HYDRO, ("stage_hours",), 0, "stage_hours: bad number (got 0"),
]


@pytest.mark.parametrize(("part", "where", "value", "words"), MISTAKES, ids=[m[3][:50] for m in MISTAKES])
def test_a_mistake_is_named_with_file_field_and_value(part, where, value, words):
    system, hydro, inflows, probabilities = small_case()
    put(system if part == SYSTEM else hydro, where, value)
    with pytest.raises(InputError) as caught:
        formats.parse_case(system, hydro, inflows, probabilities, source="case")
    message = str(caught.value)
    assert words in message
    assert message.startswith("case")
    if "cycle" not in words and "suffice" not in words:
        assert message.startswith(f"case/{part}")


@pytest.mark.parametrize(
    ("inflows", "words"),
    [
        ("1,2,3,4\n", "columns: the columns do not divide among the plants (got 4, expected a multiple of 3 plants"),
        ("1,2,3,4,5,6\n1,2,3\n", "line 2: wrong number of columns (got 3, expected 6"),
        ("1,2,3\n1,nan,3\n", "line 2, column 2: not a number (got 'nan'"),
        ("1,2,3\n1,,3\n", "line 2, column 2: not a number (got ''"),
        ("1,inf,3\n", "line 1, column 2: not a number (got 'inf'"),
        ("1,-2,3\n", "line 1, column 2: negative inflow (got -2"),
        ("a,b,c\n1,2,3\n", "line 1, column 1: not a number (got 'a'"),
        ("1_0,2,3\n", "line 1, column 1: not a number (got '1_0'"),
        ("\n", "empty"),
        ("1,2,3\n", f"{CHANCES}: wrong shape (got [2, 2], expected [1, 1]"),
    ],
)
def test_a_mistake_in_the_inflows_is_named(inflows, words):
    system, hydro, _, probabilities = small_case()
    with pytest.raises(InputError) as caught:
        formats.parse_case(system, hydro, inflows, probabilities, source="case")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"case/{CHANCES if CHANCES in words else TABLE}")


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        ("0.5,0.6\n0.5,0.5\n", "line 1: does not sum to 1 (got 1.1"),
        ("0.5,0.5\n-0.5,1.5\n", "line 2, column 1: negative (got -0.5"),
        ("0.5,0.5\n", "wrong shape (got [1, 2], expected [2, 2]"),
        ("0.5;0.5\n", "line 1, column 1: not a number"),
    ],
)
def test_a_mistake_in_the_probabilities_is_named(probabilities, words):
    system, hydro, inflows, _ = small_case()
    with pytest.raises(InputError) as caught:
        formats.parse_case(system, hydro, inflows, probabilities, source="case")
    assert str(caught.value).startswith(f"case/{CHANCES}")
    assert words in str(caught.value)


def test_last_line_without_an_end_and_spaces_are_read():
    assert formats.csv_table("\ufeff1, 2\r\n3 ,4").tolist() == [[1, 2], [3, 4]]
    assert formats.csv_table("5\n\n\n").tolist() == [[5]]


def test_options_that_make_no_sense_are_refused(tmp_path):
    for options in (
        {"network": "ac"},
        {"horizon": 0},
        {"demand_scale": -1},
        {"demand_scale": "a"},
        {"demand_scale": []},
    ):
        with pytest.raises(InputError, match=next(iter(options))):
            read_small(**options)
    file = tmp_path / "a.json"
    formats.write(read_small(), file)
    with pytest.raises(InputError, match="options"):
        formats.read(file, horizon=3)
    with pytest.raises(InputError, match="cannot be read"):
        formats.read(tmp_path / "none.json")


def test_instances_survive_their_json(tmp_path):
    for instance in (read_small(), library.load("tri3/scenario-3"), library.load("cascade-7x6-s3")):
        file = tmp_path / "instance.json"
        formats.write(instance, file)
        again = formats.read(file)
        assert again.same_as(instance)
        for name in ("turbine_to", "spill_to", "upstream_first", "max_flow", "inflows", "probabilities"):
            np.testing.assert_array_equal(getattr(again, name), getattr(instance, name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "orl.hydrothermal.instance/2"}, "schema"),
        ({"horizon": 0}, "horizon"),
        ({"network": "ac"}, "network"),
        ({"turbine_to": [1, 0, -1]}, "cycle"),
        ({"turbine_to": [5, -1, -1]}, "turbine_to[0]"),
        ({"max_volume": [1.0, 2.0]}, "max_volume"),
        ({"max_volume": [200.0, None, 80.0]}, "max_volume[1]"),
        ({"initial_volume": [201.0, 0.0, 0.0]}, "initial_volume[0]"),
        ({"probabilities": [[0.5, 0.5, 0.5]] * 4}, "probabilities[0]"),
        ({"probabilities": None}, "probabilities"),
        ({"inflows": [[[1.0]]]}, "shape"),
        ({"plant_generator": [0, 1, 1]}, "plant_generator"),
        ({"reference_bus": 1}, "reference_bus"),
        ({"joint": 1}, "joint"),
        ({"columns": [0, 0, 0, 3]}, "columns[3]"),
        ({"name": ""}, "name"),
        ({"plant_names": "ABC"}, "plant_names"),
        ({"demand": [[1e99]]}, "demand"),
        ({"min_power": [0.0, 0.0, 0.0, 0.0, 9.0]}, "min_power[4]"),
        ({"branch_from": [0], "branch_to": [0], "susceptance": [1.0], "max_flow": [None]}, "branch_to[0]"),
        ({"branch_from": [[0], [0, 1]]}, "branch_from"),
        ({"branch_from": 3}, "branch_from"),
        ({"deficit_cost": float("nan")}, "deficit_cost"),
    ],
)
def test_json_with_a_mistake_is_refused(change, words):
    data = json.loads(json.dumps(library.load("tri3").to_json())) | change
    with pytest.raises(InputError) as caught:
        HydrothermalInstance.from_json(data, source="a.json")
    assert words in str(caught.value)
    assert "a.json" in str(caught.value)


def test_json_needs_every_field():
    data = library.load("tri3").to_json()
    for key in set(data) - {"schema", "columns"}:
        with pytest.raises(InputError, match=f"{key}: missing key"):
            HydrothermalInstance.from_json({k: v for k, v in data.items() if k != key})


# ---- whatever the files hold, the answer is an instance that can be operated or one InputError ---------------------
def paths_of(data, path=()):
    """Every place in JSON data."""
    yield path
    if isinstance(data, dict | list):
        keys = data if isinstance(data, dict) else range(len(data))
        for key in keys:
            yield from paths_of(data[key], (*path, key))


PLACES = {part: sorted(paths_of(small_case()[k]), key=str)[1:] for k, part in enumerate((SYSTEM, HYDRO))}
OWN = json.loads(json.dumps(library.load("cascade-2x2-s0-t2").to_json()))
OWN_PLACES = [path for path in paths_of(OWN) if path and len(path) < 4]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.integers(),
    st.floats(),
    st.floats(0, 2),
    st.text(max_size=3),
    st.lists(st.integers(-1, 41), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
FUZZ = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def must_be_operable(instance):
    assert HydrothermalInstance.from_json(json.loads(json.dumps(instance.to_json()))).same_as(instance)
    reach = ReachableMap(instance)
    half = np.full((1, instance.n_plants), 0.5)
    step = reach(instance.initial_volume[None], instance.inflow(0, int(instance.probabilities[0].argmax()))[None], half)
    assert np.isfinite(step.volumes).all()
    assert (step.release >= instance.water_factor * instance.least_outflow - 1e-6 * (1 + step.release)).all()
    assert instance.lower_bound() >= 0


@FUZZ
@given(st.lists(st.tuples(st.sampled_from([SYSTEM, HYDRO]), st.integers(0, 10**6), ODD), min_size=1, max_size=3))
def test_any_case_is_read_or_refused(changes):
    system, hydro, inflows, probabilities = small_case()
    for part, number, value in changes:
        data, places = (system if part == SYSTEM else hydro), PLACES[part]
        try:
            put(data, places[number % len(places)], value)
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            continue
    try:
        instance = formats.parse_case(system, hydro, inflows, probabilities, source="case")
    except InputError:
        return
    must_be_operable(instance)


@FUZZ
@given(st.text(alphabet="0123456789.,-e \n\rnaif+_;", max_size=60))
def test_any_table_is_read_or_refused(text):
    system, hydro, _, _ = small_case()
    try:
        instance = formats.parse_case(system, hydro, text, source="case")
    except InputError:
        return
    must_be_operable(instance)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 10**6), ODD), min_size=1, max_size=2))
def test_any_json_is_read_or_refused(changes):
    data = json.loads(json.dumps(OWN))
    for number, value in changes:
        try:
            put(data, OWN_PLACES[number % len(OWN_PLACES)], value)
        except (KeyError, IndexError, TypeError):
            continue
    try:
        instance = HydrothermalInstance.from_json(data)
    except InputError:
        return
    must_be_operable(instance)


@FUZZ
@given(ODD, ODD, ODD)
def test_any_object_is_refused(system, hydro, own):
    with pytest.raises(InputError):
        formats.parse_case(system, hydro, INFLOWS)
    with pytest.raises(InputError):
        formats.parse_case(small_case()[0], hydro, INFLOWS)
    with pytest.raises(InputError):
        HydrothermalInstance.from_json(own)
