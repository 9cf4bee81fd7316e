"""Named instances: sound, with dated bounds, from the package, the mirror or the cache."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from orl.common.errors import DataUnavailableError, InputError, UnknownNameError
from orl.envs.job_shop import formats, library
from orl.envs.job_shop.builders import job_shop

CHECKSUMS = {
    row["instance"]: row
    for row in csv.DictReader(Path(__file__).with_name("benchmark_checksums.csv").read_text().splitlines())
}
CLASSICS = [name for name, loader in library._loaders().items() if loader is library._classic]
BRANDIMARTE = [f"mk{k:02d}" for k in range(1, 11)]
HERE = set(library.available())


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    """No mirror and an empty cache."""
    monkeypatch.delenv("ORL_DATA_DIR", raising=False)
    monkeypatch.setenv("ORL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_all_families_are_known():
    names = library.names()
    assert len(names) == len(set(names)) == 273
    families = {
        "ta": 80,
        "dmu": 80,
        "tai4_4_": 10,
        "tai20_5_": 10,
        "ft": 3,
        "la": 40,
        "abz": 5,
        "orb": 10,
        "swv": 20,
        "yn": 4,
        "mk": 10,
    }
    for family, count in families.items():
        assert sum(re.fullmatch(rf"{family}\d+", name) is not None for name in names) == count, family
    assert set(CHECKSUMS) == set(names)


@pytest.mark.parametrize(
    "name, optimum, size", [("ft06", 55, (6, 6)), ("ft10", 930, (10, 10)), ("ft20", 1165, (20, 5))]
)
def test_fisher_thompson_instances_are_in_the_package(nothing_here, name, optimum, size):
    instance = library.load(name)
    assert (instance.n_jobs, instance.n_declared_resources) == size
    assert instance.best_known().upper == optimum
    digest = hashlib.sha256(formats.to_standard(instance).encode()).hexdigest()
    assert digest == CHECKSUMS[name]["sha256"]


def test_root_bounds_never_exceed_the_best_known_bounds():
    checked = 0
    for name in sorted(HERE):
        instance = library.load(name)
        assert instance.name == name
        bounds = instance.best_known()
        if bounds is not None:
            assert instance.lower_bound() <= bounds.lower <= bounds.upper, name
            checked += 1
    assert checked >= 80 + 80 + 10 + 3 + 2 + 1


def test_bounds_are_dated_and_name_their_source():
    bounds = library.known_bounds()
    assert set(bounds) <= set(library.names())
    assert all(re.fullmatch(r"\d{4}(-\d{2})?", entry.date) and entry.source for entry in bounds.values())
    assert (bounds["ta01"].lower, bounds["ta01"].upper, bounds["ta01"].date) == (1231, 1231, "2026-08")
    assert (bounds["ta30"].lower, bounds["ta30"].upper) == (1562, 1584)
    assert bounds["abz8"].upper == 667
    assert sum(entry.source == "ScheduleOpt/benchmarks" for entry in bounds.values()) == 252
    open_instances = [
        name for name, entry in bounds.items() if entry.lower < entry.upper and name.startswith(("ta", "dmu"))
    ]
    assert len(open_instances) > 50


@pytest.mark.skipif(not set(CLASSICS) <= HERE, reason="needs ORL_DATA_DIR/jobshop or `orl data fetch job_shop`")
def test_classic_instances_match_their_checksums():
    for name in CLASSICS:
        text = formats.to_standard(library.load(name))
        assert hashlib.sha256(text.encode()).hexdigest() == CHECKSUMS[name]["sha256"], name


@pytest.mark.skipif("orb07" not in HERE, reason="needs ORL_DATA_DIR/jobshop or `orl data fetch job_shop`")
def test_orb07_holds_a_zero_duration():
    instance = library.load("orb07")
    assert instance.mode_duration.min() == 0
    assert instance.best_known().upper == 397


@pytest.mark.skipif(not set(BRANDIMARTE) <= HERE, reason="needs ORL_DATA_DIR/jobshop or `orl data fetch job_shop`")
def test_brandimarte_instances_match_their_files_and_checksums():
    for name, file in zip(BRANDIMARTE, library.BRANDIMARTE_FILES, strict=True):
        instance = library.load(name)
        numbers = [float(token) for token in library._here(file).read_text().split()]
        assert (instance.n_jobs, instance.n_declared_resources) == (numbers[0], numbers[1])
        assert instance.kind == "flexible_job_shop"
        # header (2 or 3 numbers), one count a job and an operation, two numbers a mode
        sizes = instance.n_jobs + instance.n_ops + 2 * len(instance.mode_duration)
        assert len(numbers) - sizes in (2, 3)
        digest = hashlib.sha256(formats.to_fjs(instance).encode()).hexdigest()
        assert digest == CHECKSUMS[name]["sha256"], name


def test_the_flexible_instance_of_the_project_never_changes():
    instance = library.load("flex6x6_01")
    assert (instance.kind, instance.n_jobs, instance.n_ops, instance.max_modes) == ("flexible_job_shop", 6, 36, 3)
    assert instance.best_known().upper == 75


# ---- names, paths and missing data ---------------------------------------------------------------------------------
def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown name \(got 'ta1'.*did you mean 'ta01'"):
        library.load("ta1")


@pytest.mark.parametrize("name", ["la01", "mk03"])
def test_known_names_without_data_say_how_to_get_it(nothing_here, name):
    with pytest.raises(DataUnavailableError) as caught:
        library.load(name)
    assert "orl data fetch job_shop" in str(caught.value)
    assert "ORL_DATA_DIR" in str(caught.value)


def test_without_data_the_rest_is_available(nothing_here):
    available = set(library.available())
    assert available == set(library.names()) - set(CLASSICS) - set(BRANDIMARTE)


def test_the_mirror_is_used_when_it_has_the_files(monkeypatch, tmp_path):
    folder = tmp_path / "jobshop"
    (folder / "fjsp_brandimarte").mkdir(parents=True)
    (folder / "classic_instances.txt").write_text("la01 1 1\n0 7\nyn1 1 2\n0 3 1 4\n")
    (folder / "fjsp_brandimarte" / "mk02.fjs").write_text("1 2\n1 2 1 3 2 4\n")
    monkeypatch.setenv("ORL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("ORL_CACHE_DIR", str(tmp_path / "cache"))
    assert {"la01", "yn1", "mk02"} == set(library.available()) & {*CLASSICS, *BRANDIMARTE}
    assert library.load("yn1").mode_duration.tolist() == [3, 4]
    assert library.load("mk02").name == "mk02"
    with pytest.raises(UnknownNameError):
        library.load("la02")


def test_the_json_of_the_cache_is_used(nothing_here, monkeypatch):
    """The cached copy must have the pinned checksum; another content is as good as none."""
    file = library.CLASSICS_FILE
    content = json.dumps({"la01": {"machines_matrix": [[0]], "duration_matrix": [[7]]}}).encode()
    path = nothing_here / "job_shop" / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(DataUnavailableError):
        library.load("la01")
    pinned = type(file)(file.name, file.url, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(library, "CLASSICS_FILE", pinned)
    assert library.load("la01").mode_duration.tolist() == [7]


def test_downloads_are_pinned():
    assert len(library.DATA_FILES) == 11
    for file in library.DATA_FILES:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert re.search(r"/[0-9a-f]{40}/", file.url)


def test_files_are_loaded_by_path(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("1 2\n0 3 1 4\n")
    assert library.load(path).name == library.load(str(path)).name == "mine"
    assert library.load(path).best_known() is None
    assert isinstance(path, os.PathLike)
    with pytest.raises(InputError, match="no such file"):
        library.load(tmp_path / "other.txt")
    with pytest.raises(InputError, match="no such file"):
        library.load("other.txt")


def test_an_instance_of_a_collection_is_loaded_with_a_hash_mark(tmp_path):
    path = tmp_path / "many.txt"
    path.write_text(formats.to_collection([job_shop([[0]], [[d]], name=f"n{d}") for d in (3, 4)]))
    assert library.load(f"{path}#n4").mode_duration.tolist() == [4]
    with pytest.raises(UnknownNameError):
        library.load(f"{path}#n5")


def test_a_name_comes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ft06").write_text("1 1\n0 3\n")
    assert library.load("ft06").n_jobs == 6
    assert library.load(Path("ft06")).n_jobs == 1


def test_loading_twice_gives_equal_instances():
    first, second = library.load("ta01"), library.load("ta01")
    assert first.same_as(second)
    assert not first.same_as(library.load("ta02"))
