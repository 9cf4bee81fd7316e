"""The module that all benchmarks share: files that survive a stop, tables, the RESULT line; and the worker protocol."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("measure")


def row(repetition: int, contender: str, value: float = 1.0) -> dict[str, Any]:
    return {"case": "a", "repetition": repetition, "contender": contender, "value": value}


def test_result_is_the_last_line_and_one_json_object(measure: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    print("table")
    measure.print_result(ratio_vs_peer=12.3456789, steps=7)
    word, _, rest = capsys.readouterr().out.splitlines()[-1].partition(" ")
    assert word == "RESULT"
    assert json.loads(rest) == {"ratio_vs_peer": 12.3457, "steps": 7}


def test_interleaving_measures_everyone_once_a_round_in_turning_order(measure: ModuleType) -> None:
    calls: list[str] = []
    contenders = {name: (lambda name=name: calls.append(name) or name.upper()) for name in "abc"}
    samples = list(measure.interleaved(contenders, 2))
    assert calls == ["a", "b", "c", "c", "b", "a"]
    assert samples[3] == (1, "c", "C")


def test_rows_survive_and_a_begun_round_is_measured_again(measure: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "results" / "samples.csv"
    assert measure.complete_rounds(path, ["x", "y"], case="a") == 0
    for sample in (row(0, "x"), row(0, "y", 2.5), row(1, "y")):
        measure.append_row(path, sample)
    measure.append_row(path, {**row(1, "x"), "case": "b"})
    assert measure.complete_rounds(path, ["x", "y"], case="a") == 1
    left = measure.read_rows(path)
    assert [(r["case"], r["repetition"], r["contender"]) for r in left] == [
        ("a", "0", "x"),
        ("a", "0", "y"),
        ("b", "1", "x"),
    ]
    assert float(left[1]["value"]) == 2.5


def test_a_row_with_other_columns_is_refused(measure: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    measure.append_row(path, {"a": 1})
    with pytest.raises(ValueError, match="columns"):
        measure.append_row(path, {"b": 1})
    assert measure.read_rows(path) == [{"a": "1"}]


def test_results_of_another_machine_end_the_run(measure: ModuleType, tmp_path: Path) -> None:
    path, present = tmp_path / "environment.json", measure.machine()
    measure.same_machine(path, present)
    measure.same_machine(path, present)
    with pytest.raises(SystemExit, match="--fresh"):
        measure.same_machine(path, present | {"cores": -1})


def test_only_the_text_between_the_markers_changes(measure: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- begin table -->\nold\n<!-- end table -->\nafter\n")
    for _ in range(2):
        measure.write_between_markers(path, "table", measure.table([{"name": "x", "rate": 12345.6}]))
    text = path.read_text()
    assert text.startswith("before\n<!-- begin table -->\n| name |")
    assert text.endswith("\n<!-- end table -->\nafter\n")
    assert "12,346" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="markers"):
        measure.write_between_markers(path, "missing", "")


def test_table_leaves_missing_values_empty(measure: ModuleType) -> None:
    lines = measure.table([{"a": "x", "b": 1.5}, {"a": "y", "b": None}]).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["y", ""]


@pytest.mark.parametrize("kind", ["single", "batch"])
def test_worker_answers_the_protocol(measure: ModuleType, kind: str) -> None:
    client = importlib.import_module("peers.client")
    machines, durations = [[0, 1], [1, 0]], [[3, 2], [4, 1]]
    arguments = ("batch", "3") if kind == "batch" else ("single",)
    with client.ours(kind, BENCHMARKS / "job_shop_throughput" / "ours.py", *arguments) as worker:
        loaded = worker.call("load", machines=machines, durations=durations, seed=0)
        assert (loaded["machines"], loaded["durations"]) == (machines, durations)
        replayed = worker.call("replay", actions=[0, 1, 0, 1])
        assert replayed["makespan"] == 6
        assert replayed["starts"] == [[0, 4], [0, 4]]
        assert replayed["masks"][0] == [1, 1, 0]
        sample = worker.call("run", seconds=0.05)
        assert sample["steps"] > 0
        assert 0 < sample["env_cpu_seconds"] < sample["loop_cpu_seconds"]
        assert min(sample["makespans"]) >= 6
        with pytest.raises(RuntimeError, match="unknown request"):
            worker.call("sing")


def test_a_missing_peer_is_named_with_the_command_that_installs_it(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = importlib.import_module("peers.client")
    monkeypatch.setattr(client.setup, "FOLDER", tmp_path)
    (tmp_path / "jssenv").mkdir()
    with pytest.raises(client.PeerMissing, match=r"peers/setup\.py jssenv"):
        client.peer("jssenv")
    with pytest.raises(client.PeerMissing, match="cannot be installed"):
        client.ensure_installed("jssenv")
