"""Reading the folder of a sweep."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from rich.console import Console
from sweep_plans import misbehaving, names, relabelled, rule_plan, rule_task

from orl.bench import store
from orl.bench.record import CURVE_FIELDS, Folder
from orl.bench.runner import run_sweep
from orl.common.errors import InputError, UnknownNameError
from orl.common.evaluation import COLUMNS as EVALUATION_COLUMNS

PLAN = rule_plan(3, rule_task("spt"), misbehaving("raising"))
NAMES = names(PLAN)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep of four finished runs and a failed one."""
    run_sweep(PLAN, tmp_path, jobs=0, console=Console(file=io.StringIO()))
    return tmp_path


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a JSON file in place."""
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


# ---- load ------------------------------------------------------------------------------------------------------------
def test_one_row_an_episode_with_the_columns_of_evaluate(sweep: Path) -> None:
    table = store.load(sweep)
    assert list(table["run"]) == NAMES[:4]
    head = ["sweep", "run", "environment", "env_id", "kind", "subject", "key", "run_seed", "steps", "run_seconds"]
    head += ["run_cpu_seconds", "peak_memory_mb", "resumed", "exact"]
    assert list(table.columns) == head + [name for name in EVALUATION_COLUMNS if name != "subject"]
    row = table.iloc[3]
    assert (row["sweep"], row["environment"], row["env_id"]) == ("rules", "small shop", "orl/JobShop-v0")
    assert (row["kind"], row["subject"], row["key"], row["instance"]) == ("rule", "SPT", "spt", "ft06")
    assert row["objective"] == 88.0
    assert row["best_known"] == 55.0
    assert row["checked"]
    assert row["steps"] is pandas.NA


def test_the_types_do_not_depend_on_what_is_there(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    full = store.load(sweep)
    change(Folder(sweep).record(NAMES[0]), lambda data: data.update(steps=1000))
    change(Folder(sweep).record(NAMES[1]), lambda data: data["rows"][0].update(objective=None, checked=None))
    holes = store.load(sweep)
    assert holes["steps"].isna().sum() == 3
    assert holes["objective"].isna().sum() == 1
    empty = tmp_path_factory.mktemp("empty")
    run_sweep(rule_plan(1), empty, jobs=0, console=Console(file=io.StringIO()))
    Folder(empty).record(NAMES[0]).unlink()
    none = store.load(empty)
    assert len(none) == 0
    assert list(full.dtypes) == list(holes.dtypes) == list(none.dtypes)
    assert {name: str(none[name].dtype) for name in ("run_seed", "steps", "return", "checked", "exact")} == {
        "run_seed": "int64",
        "steps": "Int64",
        "return": "float64",
        "checked": "boolean",
        "exact": "boolean",
    }


def test_several_sweeps_in_one_table(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    run_sweep(rule_plan(2), other, jobs=0, console=Console(file=io.StringIO()))
    change(other / "sweep.json", lambda data: data.update(name="others"))
    table = store.load([sweep, str(other)])
    assert list(table["sweep"]) == ["rules"] * 4 + ["others"] * 2
    assert list(table.index) == list(range(6))


def test_records_outside_the_plan_only_when_asked_for(sweep: Path) -> None:
    change(sweep / "sweep.json", lambda data: data["tasks"].pop(NAMES[0]))
    assert NAMES[0] not in set(store.load(sweep)["run"])
    everything = store.load(sweep, everything=True)
    assert everything["run"].iloc[-1] == NAMES[0]
    assert len(everything) == 4


def test_records_without_a_plan_can_be_read_on_request(sweep: Path) -> None:
    (sweep / "sweep.json").unlink()
    with pytest.raises(InputError, match="no sweep here"):
        store.load(sweep)
    assert set(store.load(sweep, everything=True)["subject"]) == {"RANDOM", "SPT"}


def test_curves_are_not_opened(sweep: Path) -> None:
    (sweep / "curves").mkdir(exist_ok=True)
    (sweep / "curves" / f"{NAMES[0]}.jsonl").write_bytes(b"\xff")
    assert len(store.load(sweep)) == 4
    assert len(store.runs(sweep)) == 5


@pytest.mark.parametrize(
    "content, expected",
    [
        ("{", "cannot be read"),
        ("[]", "not what it should be"),
        ('{"schema": "orl.record/99"}', "written by a newer orl"),
        ('{"schema": "other/1"}', r"schema: not what it should be \(got 'other/1', expected orl.record/1\)"),
        ('{"schema": "orl.record/1"}', "configuration: missing"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(sweep: Path, content: str, expected: str) -> None:
    path = Folder(sweep).record(NAMES[1])
    path.write_text(content)
    for read in (store.load, store.runs):
        with pytest.raises(InputError, match=expected) as raised:
            read(sweep)
        assert str(path) in str(raised.value)


def test_a_row_without_a_column_is_named(sweep: Path) -> None:
    path = Folder(sweep).record(NAMES[1])
    change(path, lambda data: data["rows"][0].pop("bound"))
    with pytest.raises(InputError, match=f"{NAMES[1]}.json, bound: a row without this field"):
        store.load(sweep)


def test_a_folder_without_a_sweep_and_one_of_a_newer_orl(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sweep here"):
        store.load(tmp_path)
    with pytest.raises(InputError, match="no sweep here"):
        store.load(tmp_path / "nothing", everything=True)
    (tmp_path / "sweep.json").write_text('{"schema": "orl.sweep-plan/2"}')
    with pytest.raises(InputError, match="written by a newer orl"):
        store.runs(tmp_path)


# ---- runs, records, curves -------------------------------------------------------------------------------------------
def test_one_row_a_run_and_failed_ones_among_them(sweep: Path) -> None:
    table = store.runs(sweep)
    assert list(table["run"]) == NAMES
    assert list(table["state"]) == ["done"] * 4 + ["failed"]
    assert list(table["error"]) == [""] * 4 + ["RuntimeError: the shop is closed"]
    assert list(table["run_seed"]) == [0, 1, 2, 0, 1000]
    assert (table["run_seconds"] > 0).all()
    assert table["started"].str.startswith("20").all()


def test_runs_that_have_not_ended_are_not_there(sweep: Path) -> None:
    Folder(sweep).record(NAMES[0]).unlink()
    assert list(store.runs(sweep)["run"]) == NAMES[1:]


def test_labels_come_from_the_plan(sweep: Path) -> None:
    run_sweep(relabelled(PLAN, "any"), sweep, jobs=0, console=Console(file=io.StringIO()))
    assert set(store.runs(sweep)["subject"]) == {"any"}
    assert store.read_record(sweep, NAMES[0])["subject"] == "RANDOM"


def test_a_record_by_its_name_or_the_beginning_of_it(sweep: Path) -> None:
    assert store.read_record(sweep, NAMES[0])["run"] == NAMES[0]
    assert store.read_record(sweep, NAMES[4][:10])["state"] == "failed"
    with pytest.raises(UnknownNameError):
        store.read_record(sweep, "zzz")
    with pytest.raises(UnknownNameError):
        store.read_record(sweep, "")


def test_a_learning_curve_has_its_fields_as_columns(sweep: Path) -> None:
    points = [
        {"steps": 0, "seconds": 0.0, "cpu_seconds": 0.0, "returns": [-1.5, -2.0], "objectives": [60.0, None]},
        {"steps": 512, "seconds": 1, "cpu_seconds": 0.9, "returns": [-1.0, -1.0], "objectives": [56.0, 57.0]},
    ]
    path = Folder(sweep).curve(NAMES[0])
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(point) + "\n" for point in points))
    table = store.curve(sweep, NAMES[0])
    assert tuple(table.columns) == CURVE_FIELDS
    assert list(table["steps"]) == [0, 512]
    assert table["objectives"][0] == [60.0, None]
    assert table["seconds"].dtype == "float64"
    path.write_text(json.dumps(points[0]) + '\n{"steps": 5}\n')
    with pytest.raises(InputError, match=f"{NAMES[0]}.jsonl, line 2: no point of a curve"):
        store.curve(sweep, NAMES[0])


def test_what_does_not_learn_has_an_empty_curve(sweep: Path) -> None:
    table = store.curve(sweep, NAMES[3])
    assert tuple(table.columns) == CURVE_FIELDS
    assert len(table) == 0
    with pytest.raises(UnknownNameError):
        store.curve(sweep, "zzz")


def test_the_plan_gives_names_labels_and_scales(sweep: Path) -> None:
    plan = store.plan(sweep)
    assert plan["name"] == "rules"
    assert plan["tasks"][NAMES[3]] == {"environment": "small shop", "subject": "SPT"}
    assert plan["scales"] == {}
