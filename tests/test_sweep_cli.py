"""``orl sweep`` on the command line: words, tables, files and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from orl import cli

FILE = """\
name: small
environments: [{id: orl/JobShop-v0, name: shops, instances: [ft06]}]
rules: [{rule: random, name: 'random[a=1]'}, {rule: random, name: 'random[a=2]', best_of: 2}, spt]
solvers: [{solver: cp-sat, time_limit: 30, options: {num_workers: 1}}]
evaluation: {episodes: 1}
"""
FAILS = """\
  - {id: CartPole-v1}
algorithms: [{algorithm: ppo, environments: [CartPole-v1], hyper: {batch_size: 1}, budget: {steps: 8}}]
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(FILE)
    return tmp_path


def sweep(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["orl", "sweep", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the rows of a printed table, by the second one: the subject."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return {row[1]: row for row in cells}


def test_a_sweep_is_checked_run_followed_and_reported(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(monkeypatch, "check", "small.yaml", "--jobs", "2", "--probe-seconds", "0") == 0
    said = capsys.readouterr().out
    assert said.startswith("small: 4 runs")
    assert rows(said)["cp-sat"][2:5] == ["1", "30.00", "time limit"]
    assert "about 30.0 s with 2 at a time" in said  # one run cannot be shared

    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out", "--jobs", "0") == 0
    said = capsys.readouterr().out
    assert set(rows(said)) == {"random[a=1]", "random[a=2]", "spt", "cp-sat"}
    assert rows(said)["cp-sat"][3:7] == ["objective", "55.000", "-", "0.00 %"]
    assert "4 done, 0 done before, 0 failed" in said
    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out") == 0
    assert "0 done, 4 done before, 0 failed" in capsys.readouterr().out

    (own_folder / "small.yaml").write_text(FILE + "seeds: 2\n")
    assert sweep(monkeypatch, "check", "small.yaml", "--out", "out") == 0
    assert "4 of 8 have a record in out" in capsys.readouterr().out
    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out", "--only", "no-such") == 2
    assert "no run of the sweep begins with this" in capsys.readouterr().err
    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out", "--address", "auto") == 2
    assert "--address: only a Ray cluster has one" in capsys.readouterr().err
    [first, *_] = json.loads((own_folder / "out" / "sweep.json").read_text())["tasks"]
    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out", "--only", first, "--jobs", "0") == 0
    capsys.readouterr()
    assert sweep(monkeypatch, "status", "out") == 0
    assert rows(capsys.readouterr().out)["random[a=1]"] == ["shops", "random[a=1]", "1", "0", "1"]

    assert sweep(monkeypatch, "report", "out", "-o", "table.md") == 0
    assert "## shops" in (own_folder / "table.md").read_text()
    assert sweep(monkeypatch, "report", "out", "--format", "csv") == 0
    assert len((own_folder / "out" / "report.csv").read_text().splitlines()) == 5
    assert sweep(monkeypatch, "report", "out", "-o", "table.txt") == 2
    assert "unknown format" in capsys.readouterr().err


def test_failed_runs_are_told_and_make_the_exit_code_one(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head, rest = FILE.split("rules:", 1)
    text = head.replace("[{id", "\n  - {id").replace("}]", "}") + FAILS + "rules:" + rest
    (own_folder / "small.yaml").write_text(text)
    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out", "--jobs", "0") == 1
    said = capsys.readouterr()
    assert "4 done, 0 done before, 1 failed" in said.out
    assert "again with --retry-failed" in said.out
    assert "ppo on CartPole-v1, seed 0" in said.err
    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out", "--jobs", "0") == 1
    assert "0 done, 4 done before, 0 failed, 1 failed before" in capsys.readouterr().out
    assert sweep(monkeypatch, "run", "small.yaml", "--out", "out", "--jobs", "0", "--retry-failed") == 1
    assert "0 done, 4 done before, 1 failed" in capsys.readouterr().out


def test_every_mistake_of_a_file_is_one_line_and_the_exit_code_is_two(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_folder / "small.yaml").write_text(FILE.replace("ft06", "ft66").replace("spt", "sptt") + "seeds: -1\n")
    for arguments in (["check", "small.yaml"], ["run", "small.yaml", "--out", "out"]):
        assert sweep(monkeypatch, *arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(":")[2].partition(":")[0] for line in lines] == [
            " small.yaml, line 2, environments[0].instances[0]",
            " small.yaml, line 3, rules[2].rule",
            " small.yaml, line 6, seeds",
        ]
    assert not (own_folder / "out").exists()


def test_a_folder_without_a_sweep_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("status", "report"):
        assert sweep(monkeypatch, command, "nowhere") == 2
        assert "nowhere: no sweep here" in capsys.readouterr().err
