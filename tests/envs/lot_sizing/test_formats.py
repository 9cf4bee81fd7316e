"""Instance files: what is written is read back; whatever is wrong is one InputError with file, field and value."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.envs.lot_sizing import formats, library
from orl.envs.lot_sizing.distributions import binomial, correlated, seasonal
from orl.envs.lot_sizing.generators import paper_recipe, short_recipe, tiny, trigeiro
from orl.envs.lot_sizing.instance import LotSizingInstance, LotSizingPlan

AUTHORS = {
    "time_horizon": 6,
    "n_items": 3,
    "n_machines": 2,
    "initial_setup": [1, 0],
    "machine_production": [[3, 1, 3], [0, 3, 2]],
    "max_inventory_level": [10, 10, 10],
    "initial_inventory": [0, 4, 0],
    "holding_costs": [0.1, 0.1, 0.1],
    "lost_sales_costs": [3, 2, 2],
    "demand_distribution": {"name": "binomial", "n": 4, "p": 0.4},
    "setup_costs": [[2, 2, 2], [2, 1, 2]],
    "setup_loss": [[1, 1, 1], [1, 1, 0]],
}
OWN = json.loads(json.dumps(tiny(3, n_items=2, n_machines=2, horizon=3).scenario(1).to_json()))
PLAN = {
    "schema": "orl.lot_sizing.plan/1",
    "actions": [[1], [0]],
    "demand": [[1, 2], [0, 0]],
    "initial_inventory": [0, 1],
    "initial_setup": [0],
}
QUICK = settings(
    derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def changed(data, *path_and_value):
    *path, key, value = path_and_value
    result = copy.deepcopy(data)
    place = result
    for step in path:
        place = place[step]
    place[key] = value
    return result


def same(a, b):
    return json.dumps(a.to_json()) == json.dumps(b.to_json())


# ---- round trips ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "instance",
    [
        library.load("ls-4x2"),
        library.load("ls-2x1-t6/scenario-0"),
        paper_recipe(8, 3, 5),
        short_recipe(5, 2, 1),
        trigeiro(4, 12, 0),
        *(tiny(seed, n_machines=2, sequence_dependent=True, backlog=True).scenario(0) for seed in range(4)),
        library.load("ls-4x2-t20"),
    ],
    ids=lambda instance: instance.name,
)
def test_instances_are_read_back_to_the_last_bit(instance, tmp_path):
    formats.write(instance, tmp_path / "a.json")
    again = library.load(tmp_path / "a.json")
    assert same(again, instance)
    assert again.same_as(instance)
    for name in ("setup_costs", "setup_loss", "production"):
        assert (getattr(again, name) == getattr(instance, name)).all()
    assert again.scenario(7).same_as(instance.scenario(7))


def test_non_stationary_correlated_demand_is_read_back():
    base = tiny(0, n_items=3, horizon=10).to_json()
    demand = correlated(
        seasonal(3, 10, mean=3.0, amplitude=0.7, cycle=7, trials=9), [[1, 0.3, 0], [0.3, 1, 0], [0, 0, 1]]
    )
    base["demand"] = {
        "values": demand.values.tolist(),
        "probabilities": demand.probabilities.tolist(),
        "correlation": demand.correlation.tolist(),
    }
    instance = LotSizingInstance.from_json(json.loads(json.dumps(base)))
    assert (instance.demand.probabilities == demand.probabilities).all()
    assert (instance.demand.correlation == demand.correlation).all()
    assert same(LotSizingInstance.from_json(json.loads(json.dumps(instance.to_json()))), instance)
    assert (instance.scenario(0).demand_path == demand.draw(library_key(0), np.arange(10))).all()


def library_key(seed):
    from gymnasium.utils.seeding import np_random

    from orl.common.counter_noise import draw_key

    return draw_key(np_random(seed)[0])


def test_one_file_instances_of_the_authors_equal_the_library():
    data = os.environ.get("ORL_DATA_DIR")
    folder = data and next((f for f in (f"{data}/lot_sizing", f"{data}/lotsizing") if os.path.isdir(f)), None)
    if not folder:
        pytest.skip("needs the authors' files in ORL_DATA_DIR")
    for name, stem in (("ls-2x1", "2items_VI"), ("ls-4x2", "4items_2machines"), ("ls-6x3", "6items_3machines")):
        read, known = formats.read(f"{folder}/setting_{stem}.json").to_json(), library.load(name).to_json()
        assert {**read, "name": ""} == {**known, "name": ""}
    several = [file for file in sorted(os.listdir(folder)) if file.startswith("setting_")]
    assert len(several) >= 5
    for file in several:
        formats.read(f"{folder}/{file}")


def test_the_authors_layout_is_read():
    instance = formats.parse(json.dumps(AUTHORS), name="small")
    assert (instance.name, instance.horizon, instance.n_items, instance.n_machines) == ("small", 6, 3, 2)
    assert instance.setup_costs[1].tolist() == [[2, 1, 2], [0, 1, 2], [2, 0, 2], [2, 1, 0]]
    assert instance.demand.mean[0].tolist() == pytest.approx([1.6] * 3)
    assert not instance.max_backlog.any()


def test_floats_count_as_integers_and_unknown_keys_are_ignored():
    floats = json.loads(json.dumps(AUTHORS), parse_int=float)
    floats["note"] = {"name": [None]}
    floats["demand_distribution_example"] = {"name": "probability_mass_function", "vals": [0], "probs": [0.7]}
    assert same(formats.parse(json.dumps(floats)), formats.parse(json.dumps(AUTHORS)))


def test_a_machine_that_cannot_make_its_first_item_starts_idle():
    assert formats.from_data(changed(AUTHORS, "initial_setup", [1, 1])).initial_setup.tolist() == [1, 0]


@pytest.mark.parametrize(
    "distribution, mean",
    [
        ({"name": "discrete_uniform", "low": 0, "high": 3}, [1, 1, 1]),
        ({"name": "probability_mass_function", "vals": [0, 0, 4], "probs": [0.25, 0.25, 0.5]}, [2, 2, 2]),
        (
            {
                "name": "item_specific_uniform",
                "distributions": [
                    {"name": "binomial", "n": 4, "p": 0.25},
                    {"name": "probability_mass_function", "vals": [2, 4], "probs": [0.5, 0.5]},
                    {"name": "deterministic", "values": [9]},
                ],
            },
            [1, 3, 9],
        ),
        ({"name": "deterministic", "values": [1, 2, 3]}, [1, 2, 3]),
    ],
)
def test_distributions_of_files(distribution, mean):
    instance = formats.from_data(changed(AUTHORS, "demand_distribution", distribution))
    assert instance.demand.mean[0].tolist() == pytest.approx(mean)


def test_options_of_this_package_in_the_authors_layout():
    parts = [{"name": "binomial", "n": 4, "p": p} for p in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    data = {
        **AUTHORS,
        "name": "varied",
        "demand_distribution": {"name": "periods", "distributions": parts},
        "demand_correlation": [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]],
        "backlog_costs": [1, 1, 1],
        "max_backlog": [0, 3, 3],
        "demand_path": [[0, 1, 2]] * 6,
        "setup_costs": [[[1, 2, 3], [0, 2, 3], [1, 0, 3], [1, 2, 0]]] * 2,
    }
    instance = formats.from_data(data)
    assert instance.name == "varied"
    assert instance.demand.mean[:, 0].tolist() == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.4])
    assert instance.sequence_dependent is False  # the same from everywhere
    assert instance.max_backlog.tolist() == [0, 3, 3]
    assert instance.demand_path.shape == (6, 3)
    assert instance.demand.correlation is not None
    varied = formats.from_data(changed(data, "setup_costs", 0, 1, 1, 9))
    assert varied.sequence_dependent
    assert same(LotSizingInstance.from_json(json.loads(json.dumps(varied.to_json()))), varied)


# ---- what is wrong, one by one -------------------------------------------------------------------------------------
NAN, INF = float("nan"), float("inf")
WRONG_AUTHORS = [
    (changed(AUTHORS, "holding_costs", 1, -0.1), "holding_costs[1]", "-0.1"),
    (changed(AUTHORS, "lost_sales_costs", 0, -3), "lost_sales_costs[0]", "-3"),
    (changed(AUTHORS, "setup_costs", 1, 2, -1), "setup_costs[1][2]", "-1"),
    (changed(AUTHORS, "setup_loss", 0, 1, -1), "setup_loss[0][1]", "-1"),
    (changed(AUTHORS, "setup_loss", 0, 1, 0.5), "setup_loss[0][1]", "0.5"),
    (changed(AUTHORS, "machine_production", 0, 0, -3), "machine_production[0][0]", "-3"),
    (changed(AUTHORS, "machine_production", 0, 0, 2.5), "machine_production[0][0]", "2.5"),
    (changed(AUTHORS, "holding_costs", 1, NAN), "holding_costs[1]", "nan"),
    (changed(AUTHORS, "lost_sales_costs", 1, INF), "lost_sales_costs[1]", "inf"),
    (changed(AUTHORS, "setup_costs", 0, 0, -INF), "setup_costs[0][0]", "-inf"),
    (changed(AUTHORS, "initial_setup", 0, 4), "initial_setup[0]", "4"),
    (changed(AUTHORS, "initial_setup", 1, -1), "initial_setup[1]", "-1"),
    (changed(AUTHORS, "initial_inventory", 2, 11), "initial_inventory[2]", "11"),
    (changed(AUTHORS, "initial_inventory", 2, -1), "initial_inventory[2]", "-1"),
    (changed(AUTHORS, "max_inventory_level", 0, -1), "max_inventory_level[0]", "-1"),
    (changed(AUTHORS, "time_horizon", 0), "time_horizon", "0"),
    (changed(AUTHORS, "time_horizon", 2.5), "time_horizon", "2.5"),
    (changed(AUTHORS, "time_horizon", 10**9), "time_horizon", "1000000000"),
    (changed(AUTHORS, "time_horizon", 10**400), "time_horizon", "inf"),
    (changed(AUTHORS, "time_horizon", "6"), "time_horizon", "'6'"),
    (changed(AUTHORS, "time_horizon", True), "time_horizon", "True"),
    (changed(AUTHORS, "n_items", 4), "machine_production", "[2, 3]"),
    (changed(AUTHORS, "n_items", 10**7), "n_items", "10000000"),
    (changed(AUTHORS, "n_machines", 0), "n_machines", "0"),
    (changed(AUTHORS, "n_machines", None), "n_machines", "NoneType"),
    (changed(AUTHORS, "holding_costs", [0.1, 0.1]), "holding_costs", "[2]"),
    (changed(AUTHORS, "holding_costs", 0.1), "holding_costs", "0.1"),
    (changed(AUTHORS, "holding_costs", [0.1, [0.1], 0.1]), "holding_costs[1]", "list"),
    (changed(AUTHORS, "holding_costs", [0.1, True, 0.1]), "holding_costs[1]", "True"),
    (changed(AUTHORS, "holding_costs", [0.1, None, 0.1]), "holding_costs[1]", "NoneType"),
    (changed(AUTHORS, "holding_costs", {}), "holding_costs", "dict"),
    (changed(AUTHORS, "machine_production", [[3, 1, 3], [0, 3]]), "machine_production[1]", "2"),
    (changed(AUTHORS, "machine_production", []), "machine_production", "[0]"),
    (changed(AUTHORS, "setup_costs", [[2, 2, 2]]), "setup_costs", "[1, 3]"),
    (changed(AUTHORS, "setup_costs", [[[[1]]]]), "setup_costs", "3 levels"),
    (changed(AUTHORS, "setup_costs", [[[1, 1, 1]] * 4] * 2), "setup_costs[0][1][0]", "1"),
    (changed(AUTHORS, "initial_setup", [0, 0, 0]), "initial_setup", "[3]"),
    (changed(AUTHORS, "demand_distribution", "name", "poisson"), "demand_distribution.name", "'poisson'"),
    (changed(AUTHORS, "demand_distribution", "name", 3), "demand_distribution.name", "3"),
    (changed(AUTHORS, "demand_distribution", "p", 1.2), "demand_distribution, p", "1.2"),
    (changed(AUTHORS, "demand_distribution", "p", NAN), "demand_distribution, p", "nan"),
    (changed(AUTHORS, "demand_distribution", "n", -1), "demand_distribution, n", "-1"),
    (changed(AUTHORS, "demand_distribution", "n", 10**6), "demand_distribution, n", "1000000"),
    (changed(AUTHORS, "demand_distribution", {"name": "binomial", "n": 4}), "demand_distribution.p", "missing"),
    (changed(AUTHORS, "demand_distribution", {"n": 4}), "demand_distribution.name", "missing"),
    (changed(AUTHORS, "demand_distribution", []), "demand_distribution", "list"),
    (
        changed(
            AUTHORS, "demand_distribution", {"name": "probability_mass_function", "vals": [0, 1], "probs": [0.5, 0.6]}
        ),
        "demand_distribution, probs",
        "1.1",
    ),
    (
        changed(AUTHORS, "demand_distribution", {"name": "probability_mass_function", "vals": [0, 1], "probs": [1]}),
        "demand_distribution, probs",
        "[1]",
    ),
    (
        changed(
            AUTHORS, "demand_distribution", {"name": "probability_mass_function", "vals": [0, 1], "probs": [-0.5, 1.5]}
        ),
        "demand_distribution, probs[0]",
        "-0.5",
    ),
    (
        changed(AUTHORS, "demand_distribution", {"name": "discrete_uniform", "low": 3, "high": 3}),
        "demand_distribution, high",
        "3",
    ),
    (
        changed(AUTHORS, "demand_distribution", {"name": "discrete_uniform", "low": 0, "high": 10**9}),
        "demand_distribution, high",
        "1000000000",
    ),
    (
        changed(AUTHORS, "demand_distribution", {"name": "item_specific_uniform", "distributions": [{}]}),
        "distributions",
        "1",
    ),
    (
        changed(AUTHORS, "demand_distribution", {"name": "item_specific_uniform", "distributions": [{}] * 3}),
        "distributions[0].name",
        "missing",
    ),
    (
        changed(
            AUTHORS,
            "demand_distribution",
            {"name": "periods", "distributions": [{"name": "periods", "distributions": []}] * 6},
        ),
        "distributions[0]",
        "periods",
    ),
    (changed(AUTHORS, "demand_distribution", {"name": "deterministic", "values": [1, 2]}), "demand_distribution", "2"),
    ({**AUTHORS, "demand_correlation": [[1, 2], [2, 1]]}, "correlation[0][1]", "2"),
    ({**AUTHORS, "demand_path": [[1, 1, 1]] * 5}, "demand_path", "[5, 3]"),
    ({**AUTHORS, "max_backlog": [-1, 0, 0]}, "max_backlog[0]", "-1"),
    ({**AUTHORS, "name": 5}, "name", "5"),
    ([], "file.json", "list"),
    (None, "file.json", "NoneType"),
]


@pytest.mark.parametrize("data, field, value", WRONG_AUTHORS)
def test_what_is_wrong_is_named(data, field, value, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        formats.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert field in message
    assert value in message


@pytest.mark.parametrize("key", sorted(AUTHORS))
def test_every_key_of_the_authors_is_needed(key):
    with pytest.raises(InputError, match=f"^here, {key}: missing key"):
        formats.from_data({k: v for k, v in AUTHORS.items() if k != key}, source="here")


@pytest.mark.parametrize("key", sorted(set(OWN) - {"schema", "backlog_costs", "max_backlog", "demand_path"}))
def test_every_key_of_this_package_is_needed(key):
    with pytest.raises(InputError, match=f"^here, {key}: missing key"):
        LotSizingInstance.from_json({k: v for k, v in OWN.items() if k != key}, source="here")


@pytest.mark.parametrize(
    "data, field",
    [
        (changed(OWN, "schema", "orl.lot_sizing.instance/2"), "schema"),
        (changed(OWN, "demand", 3), "demand"),
        (changed(OWN, "demand", {"values": [[[0]]]}), "demand.probabilities"),
        (changed(OWN, "demand", {"values": [[0]], "probabilities": [[1]]}), "demand.values"),
        (changed(OWN, "demand", {"values": [[[0]]], "probabilities": [[[1]]]}), "demand"),
        (changed(OWN, "demand", {"values": [[[1, 0]]], "probabilities": [[[0.5, 0.5]]]}), "demand.values"),
        (changed(OWN, "demand", {"values": [[[0, 1]]], "probabilities": [[[0.5, 0.4]]]}), "demand.probabilities[0][0]"),
        (changed(OWN, "demand", {"values": [[[0, 1]]], "probabilities": [[[0.5]]]}), "demand.probabilities"),
        (changed(OWN, "demand", "correlation", [[1, 2], [2, 1]]), "correlation[0][1]"),
        (changed(OWN, "demand_path", 0, 0, -1), "demand_path[0][0]"),
        (changed(OWN, "demand_path", 3), "demand_path"),
        (changed(OWN, "production", 0, 0, "1"), "production[0][0]"),
        (changed(OWN, "horizon", 0), "horizon"),
        (changed(OWN, "initial_setup", 0, 3), "initial_setup[0]"),
    ],
)
def test_what_is_wrong_in_the_layout_of_this_package_is_named(data, field):
    with pytest.raises(InputError) as caught:
        LotSizingInstance.from_json(data, source="here")
    assert str(caught.value).startswith(f"here, {field}:")


@pytest.mark.parametrize(
    "data, field",
    [
        ([], "schema"),
        (changed(PLAN, "schema", "x"), "schema"),
        (changed(PLAN, "actions", [1, 0]), "actions"),
        (changed(PLAN, "actions", [[1]]), "actions"),
        (changed(PLAN, "actions", [[1], [0.5]]), "actions[1][0]"),
        (changed(PLAN, "actions", [[1], [-1]]), "actions[1][0]"),
        (changed(PLAN, "demand", [[1, 2], [0]]), "demand[1]"),
        (changed(PLAN, "demand", None), "demand"),
        (changed(PLAN, "initial_inventory", []), "initial_inventory"),
        (changed(PLAN, "initial_setup", [True]), "initial_setup[0]"),
        ({k: v for k, v in PLAN.items() if k != "initial_setup"}, "initial_setup"),
    ],
)
def test_what_is_wrong_with_a_plan_file_is_named(data, field):
    assert LotSizingPlan.from_json(PLAN).actions.tolist() == PLAN["actions"]
    with pytest.raises(InputError) as caught:
        LotSizingPlan.from_json(data, source="here")
    assert str(caught.value).startswith(f"here, {field}:")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00{",
        b"\x80abc",
        b'{"a": 1e999999',
        b"[" * 100_000,
        b'{"time_horizon": ' + b"9" * 10_000 + b"}",
        b"null",
        b'"text"',
    ],
)
def test_what_is_no_json_is_refused(content, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="file.json"):
        formats.read(path)


def test_missing_and_huge_files_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError):
            formats.read(path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(formats.MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match="too large"):
        formats.read(tmp_path / "huge.json")


def test_tables_too_large_for_memory_are_refused_before_they_are_built():
    part = {"name": "binomial", "n": 1000, "p": 0.5}
    big = {
        **AUTHORS,
        "time_horizon": 5000,
        "demand_distribution": {"name": "periods", "distributions": [part] * 5000},
    }
    with pytest.raises(InputError, match="too large"):
        formats.from_data(big)
    with pytest.raises(InputError, match="too large"):
        formats.from_data(changed(AUTHORS, "machine_production", [[1] * 3000] * 3000))


# ---- fuzzing -------------------------------------------------------------------------------------------------------
STRANGE = st.sampled_from(
    [None, True, -1, 0, 1, 0.5, 10**6, 10**30, -(10**400), 1e308, NAN, INF, "", "x", [], [[]], {}, [1], [[[1]]], [None]]
)


def places(data, path=()):
    """Paths to every value inside JSON data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def read_or_refuse(path):
    """Reading gives an instance that works, or an InputError that names the file."""
    refused = ""
    try:
        instance = formats.read(path)
    except InputError as error:
        refused = str(error)
    if refused:
        assert str(path) in refused
        return
    assert same(LotSizingInstance.from_json(json.loads(json.dumps(instance.to_json()))), instance)
    scenario = instance.scenario(0)
    start = (scenario.initial_inventory, scenario.initial_setup)
    idle = LotSizingPlan(np.zeros((scenario.horizon, scenario.n_machines), np.int64), scenario.demand_path, *start)
    check = scenario.check(idle)
    assert check.feasible
    assert scenario.lower_bound() <= check.objective + 1e-6 * abs(check.objective)
    assert np.isfinite(instance.lower_bound())


@QUICK
@given(data=st.data(), base=st.sampled_from([AUTHORS, OWN]), count=st.integers(1, 3))
def test_changed_values_never_crash_the_reader(data, base, count, tmp_path):
    mutant = copy.deepcopy(base)
    for _ in range(count):
        *path, key = data.draw(st.sampled_from(list(places(mutant))))
        place = mutant
        for step in path:
            place = place[step]
        if data.draw(st.booleans()):
            place[key] = data.draw(STRANGE)
        else:
            del place[key]
        if not list(places(mutant)):
            break
    path = tmp_path / "mutant.json"
    path.write_text(json.dumps(mutant))
    read_or_refuse(path)


@QUICK
@given(
    base=st.sampled_from([AUTHORS, OWN]),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 6)), min_size=1, max_size=4),
)
def test_changed_bytes_never_crash_the_reader(base, edits, tmp_path):
    content = bytearray(json.dumps(base).encode())
    for at, new, removed in edits:
        start = at % (len(content) + 1)
        content[start : start + removed] = new
    path = tmp_path / "mutant.json"
    path.write_bytes(bytes(content))
    read_or_refuse(path)


def test_demand_must_have_the_items_of_the_machines():
    with pytest.raises(InputError, match="wrong number of items"):
        formats.lot_sizing(
            horizon=3,
            production=[[1, 1]],
            setup_costs=0,
            setup_loss=0,
            holding_costs=0,
            lost_sales_costs=0,
            max_inventory=1,
            demand=binomial(3, 4, 0.4),
        )
