"""Names of instances, with horizons and scenarios; data files from the mirror or the cache."""

from __future__ import annotations

import hashlib

import pytest

from orl.common.data import is_available
from orl.common.errors import DataUnavailableError, InputError, UnknownNameError
from orl.envs.lot_sizing import library
from orl.envs.lot_sizing.formats import write

HERE = set(library.available())
LARGER = sorted(library._FILE)


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    """No mirror and an empty cache."""
    monkeypatch.delenv("ORL_DATA_DIR", raising=False)
    monkeypatch.setenv("ORL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", sorted(HERE))
def test_every_available_name_loads_under_its_name(name):
    assert library.load(name).name == name


def test_small_instances_and_recipes_need_no_files(nothing_here):
    here = library.available()
    assert {"ls-2x1", "ls-4x2", "ls-6x3", "ls-15x5-s0", "ls-25x10-s0", "ls-2x1-t6/scenario-0"} <= set(here)
    assert not set(here) & set(LARGER)
    with pytest.raises(DataUnavailableError, match="orl data fetch lot_sizing"):
        library.load("ls-mit-15x5")


@pytest.mark.parametrize("name", LARGER)
def test_larger_instances_are_what_their_names_say(name):
    if not is_available(library.DOMAIN, library._FILE[name]):
        pytest.skip("needs the authors' files in ORL_DATA_DIR")
    instance = library.load(name)
    items, machines = (int(part) for part in name.split("-")[2].split("x"))
    assert (instance.n_items, instance.n_machines, instance.horizon) == (items, machines, 100)
    file = library._FILE[name]
    path = library.data_path(library.DOMAIN, file.name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def test_sizes_seeds_horizons_and_scenarios_of_names():
    assert library.load("ls-7x3-s12").same_as(library.paper_recipe(7, 3, 12))
    instance = library.load("ls-4x2-t20")
    assert (instance.horizon, instance.name) == (20, "ls-4x2-t20")
    assert library.load("ls-15x5-s0-t7").horizon == 7
    assert library.load("ls-4x2-t20/scenario-3").same_as(instance.scenario(3))
    assert library.load("ls-4x2-t20/scenario-3-fixed").same_as(instance.scenario(3, "fixed"))
    assert library.load("ls-4x2-t20/scenario-3").name == "ls-4x2-t20/scenario-3"


def test_a_shorter_horizon_cuts_scenarios():
    scenario = library.load("ls-4x2/scenario-1")
    short = scenario.with_horizon(9)
    assert (short.demand_path == scenario.demand_path[:9]).all()
    with pytest.raises(InputError, match="horizon"):
        scenario.with_horizon(101)
    assert library.load("ls-4x2").with_horizon(400).horizon == 400


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ls-4x3",
        "ls-15x5",
        "ls-4x2-s",
        "ls-0x2-s0",
        "ls-4x2-s01",
        "ls-4x2/scenario-",
        "ls-4x2/scenario-1/scenario-2",
        "ls-4x2/scenario--1",
        "ls-4x2-t5-t6",
        "nothing",
    ],
)
def test_unknown_names_are_refused(name):
    with pytest.raises(UnknownNameError):
        library.load(name)


def test_near_names_are_offered():
    with pytest.raises(UnknownNameError, match="ls-mit-15x5"):
        library.load("ls-mit-15x6")


@pytest.mark.parametrize("name", ["ls-4x2-t0", "ls-4x2-t99999999", "ls-9999x9999-s0"])
def test_sizes_out_of_range_are_refused(name):
    with pytest.raises(InputError):
        library.load(name)


def test_files_are_loaded_by_path(tmp_path):
    instance = library.load("ls-6x3-t4")
    write(instance, tmp_path / "mine.json")
    assert library.load(tmp_path / "mine.json").same_as(instance)
    assert library.load(str(tmp_path / "mine.json")).same_as(instance)
    with pytest.raises(InputError, match="none.json"):
        library.load("none.json")


def test_data_files_are_pinned():
    for file in library.DATA_FILES:
        assert "/main/" not in file.url
        assert "/master/" not in file.url
        assert len(file.sha256) == 64
