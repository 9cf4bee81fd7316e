"""The runner: what is run, what is skipped, what a failure, a full disk or Ctrl-C leaves behind."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pandas.testing import assert_frame_equal
from rich.console import Console
from sweep_plans import misbehaving, names, relabelled, rule_plan, rule_task, temporary_files, without_times

from orl.bench import runner, store, sweep_progress
from orl.bench.configuration import AlgorithmPart, BudgetPart, SolverPart
from orl.bench.plan import Plan, Scale
from orl.bench.record import Folder
from orl.bench.runner import Summary
from orl.common.errors import InputError


def run(plan: Plan, folder: Path, **options: Any) -> Summary:
    """``run_sweep`` in this process, without output."""
    return runner.run_sweep(plan, folder, console=Console(file=io.StringIO()), **{"jobs": 0, **options})


def records(folder: Path) -> dict[str, float]:
    """Names of the records and when they were written."""
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "records").iterdir()}


# ---- what is run -----------------------------------------------------------------------------------------------------
def test_every_run_gets_a_record_and_a_second_start_does_nothing(tmp_path: Path) -> None:
    plan = rule_plan(4, rule_task("spt"))
    first = run(plan, tmp_path)
    assert first == Summary(5, 0, 5, 0, False, first.seconds)
    before = records(tmp_path)
    assert set(before) == set(names(plan))
    second = run(plan, tmp_path)
    assert second == Summary(5, 5, 0, 0, False, second.seconds)
    assert records(tmp_path) == before
    assert not temporary_files(tmp_path)


def test_a_missing_record_is_made_again_and_nothing_else(tmp_path: Path) -> None:
    plan = rule_plan(4)
    run(plan, tmp_path)
    table, before = store.load(tmp_path), records(tmp_path)
    lost = names(plan)[2]
    Folder(tmp_path).record(lost).unlink()
    summary = run(plan, tmp_path)
    assert (summary.done_before, summary.done) == (3, 1)
    assert {name for name, time in records(tmp_path).items() if before[name] != time} == {lost}
    assert_frame_equal(without_times(store.load(tmp_path)), without_times(table))


def test_two_sweeps_give_the_same_table_in_whatever_order_they_ran(tmp_path: Path) -> None:
    plan = rule_plan(6, rule_task("spt"))
    shuffled = list(plan.tasks)
    random.Random(1).shuffle(shuffled)
    run(plan, tmp_path / "one")
    run(replace(plan, tasks=tuple(shuffled)), tmp_path / "two")
    run(plan, tmp_path / "two")
    one, two = store.load(tmp_path / "one"), store.load(tmp_path / "two")
    assert_frame_equal(without_times(one), without_times(two))
    assert one["objective"].nunique() > 2


def test_a_new_label_runs_nothing_and_shows_in_the_table(tmp_path: Path) -> None:
    plan = rule_plan(2)
    run(plan, tmp_path)
    assert run(relabelled(plan, "chance"), tmp_path).done == 0
    assert set(store.load(tmp_path)["subject"]) == {"chance"}


def test_more_runs_in_the_plan_are_the_only_ones_to_run(tmp_path: Path) -> None:
    run(rule_plan(3), tmp_path)
    assert run(rule_plan(5), tmp_path).done == 2
    run(rule_plan(2), tmp_path)
    assert len(store.load(tmp_path)) == 2
    assert len(store.load(tmp_path, everything=True)) == 5


def test_only_the_runs_asked_for(tmp_path: Path) -> None:
    plan = rule_plan(5)
    wanted = names(plan)[3]
    assert run(plan, tmp_path, only=[wanted[:12]]).total == 1
    assert set(records(tmp_path)) == {wanted}
    with pytest.raises(InputError, match=r"only: no run of the sweep begins with this \(got 'xyz'\)"):
        run(plan, tmp_path, only=["xyz"])


def test_long_runs_come_first() -> None:
    rule = rule_task("spt")

    def other(subject: Any, budget: BudgetPart | None = None) -> Any:
        return replace(rule, configuration=rule.configuration.model_copy(update={"subject": subject, "budget": budget}))

    solver, ppo = SolverPart(key="cp-sat", time_limit=5.0), AlgorithmPart(key="ppo")
    tasks = [rule, other(solver), other(ppo, BudgetPart(steps=10)), other(ppo, BudgetPart(steps=99))]
    assert sorted(tasks, key=runner._length, reverse=True) == tasks[::-1]


def test_the_folder_says_what_the_plan_was(tmp_path: Path) -> None:
    plan = replace(rule_plan(2), text="name: rules # as it was\n", scales={"small shop": Scale(-2.0, 0.0)})
    run(plan, tmp_path)
    assert (tmp_path / "sweep.yaml").read_text() == plan.text
    data = json.loads((tmp_path / "sweep.json").read_text())
    assert data["schema"] == "orl.sweep-plan/1"
    assert data["tasks"] == {name: {"environment": "small shop", "subject": "RANDOM"} for name in names(plan)}
    assert data["scales"] == {"small shop": {"low": -2.0, "high": 0.0}}
    assert data["versions"]["numpy"]


@pytest.mark.parametrize("options", [{"engine": "slurm"}, {"jobs": -1}, {"engine": "ray", "jobs": 0}])
def test_senseless_options_are_refused_before_anything_is_written(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        run(rule_plan(1), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


# ---- failures --------------------------------------------------------------------------------------------------------
def test_a_failed_run_keeps_its_traceback_and_does_not_stop_the_others(tmp_path: Path) -> None:
    bad, leaves = misbehaving("raising"), misbehaving("leaving")
    summary = run(rule_plan(3, bad, leaves), tmp_path)
    assert (summary.done, summary.failed, summary.interrupted) == (3, 2, False)
    failure = store.read_record(tmp_path, bad.configuration.hash)
    assert failure["state"] == "failed"
    assert "the shop is closed" in failure["error"]["traceback"]
    assert "in raising" in failure["error"]["traceback"]
    table = store.runs(tmp_path).set_index("run")
    assert table.loc[bad.configuration.hash, "error"] == "RuntimeError: the shop is closed"
    assert table.loc[leaves.configuration.hash, "error"] == "SystemExit: 3"
    assert list(table["state"]).count("done") == 3


def test_failed_runs_are_left_alone_until_a_retry_is_asked_for(tmp_path: Path) -> None:
    key = tmp_path / "key"
    plan = rule_plan(2, misbehaving("raising", unless=str(key)))
    out = tmp_path / "out"
    assert run(plan, out).failed == 1
    key.touch()
    again = run(plan, out)
    assert (again.done_before, again.done, again.failed, again.failed_before) == (2, 0, 0, 1)
    last = run(plan, out, retry_failed=True)
    assert (last.done, last.failed) == (1, 0)
    assert not list((out / "failed").iterdir())
    assert set(store.runs(out)["state"]) == {"done"}


def test_a_disk_that_is_full_for_one_record_costs_that_run_alone(tmp_path: Path) -> None:
    full = misbehaving("with_full_disk", folders=["records"])
    name = full.configuration.hash
    plan = replace(rule_plan(3), tasks=(full, *rule_plan(3).tasks))
    summary = run(plan, tmp_path)
    assert (summary.done, summary.failed) == (3, 1)
    error = store.runs(tmp_path).set_index("run").loc[name, "error"]
    assert "No space left on device" in error
    assert f"records/{name}.json" in error
    assert not Folder(tmp_path).record(name).exists()
    assert not temporary_files(tmp_path)


def test_a_disk_too_full_even_for_the_failure_is_said_on_the_screen(tmp_path: Path) -> None:
    full = misbehaving("with_full_disk", folders=["records", "failed"])
    screen = io.StringIO()
    plan = Plan("full", (full, rule_task()))
    summary = runner.run_sweep(plan, tmp_path, jobs=0, console=Console(file=screen))
    assert (summary.done, summary.failed) == (1, 1)
    assert f"records/{full.configuration.hash}.json" in screen.getvalue()
    assert "its failure record cannot be written either" in screen.getvalue()
    assert not temporary_files(tmp_path)
    assert run(plan, tmp_path).failed == 1  # no record of the failure: it is tried again


def test_files_beside_a_record_that_cannot_be_written_are_gone(tmp_path: Path) -> None:
    full = misbehaving("with_full_disk", folders=["records"])
    full = replace(full, keep=replace(full.keep, picture=True))
    assert run(Plan("full", (full,)), tmp_path).failed == 1
    assert not [path for kind in ("pictures", "solutions") for path in (tmp_path / kind).iterdir()]


# ---- stops and leftovers ---------------------------------------------------------------------------------------------
def test_ctrl_c_ends_in_order_and_the_next_start_goes_on(tmp_path: Path) -> None:
    pressed = misbehaving("pressing_ctrl_c")
    plan = Plan("stop", (rule_task(seed=0), pressed, rule_task(seed=1), rule_task(seed=2)))
    before = signal.getsignal(signal.SIGINT)
    first = run(plan, tmp_path)
    assert first.interrupted
    assert first.failed == 0
    assert first.done < 4
    assert signal.getsignal(signal.SIGINT) is before
    rest = Plan("stop", tuple(task for task in plan.tasks if task is not pressed))
    second = run(rest, tmp_path)
    assert not second.interrupted
    assert set(names(rest)) <= set(records(tmp_path))


def test_a_second_ctrl_c_ends_a_run_in_this_process_at_once(tmp_path: Path) -> None:
    plan = Plan("stop", (misbehaving("pressing_ctrl_c", times=2), rule_task()))
    summary = run(plan, tmp_path)
    assert summary.interrupted
    assert summary.done == summary.failed == 0
    assert not temporary_files(tmp_path)


def test_leftovers_of_killed_runs_are_removed_and_other_hidden_folders_are_not(tmp_path: Path) -> None:
    plan = rule_plan(2)
    run(plan, tmp_path)
    name = names(plan)[0]
    for folder in ("records", "failed", "curves", "work", f"work/{name}", "work/unfinished", "."):
        place = tmp_path / folder / f".{name}.json.abcd_123"
        place.mkdir(parents=True)
        (place / "half").write_text("{")
    (tmp_path / ".git").mkdir()
    (tmp_path / "failed" / f"{name}.json").write_text("{}")
    run(plan, tmp_path)
    assert [path.name for path in temporary_files(tmp_path)] == [".git", "unfinished"]
    assert not list((tmp_path / "failed").iterdir())
    shutil.rmtree(tmp_path / "work")
    run(plan, tmp_path)
    assert not (tmp_path / "work").exists()


def test_an_empty_record_is_no_record(tmp_path: Path) -> None:
    plan = rule_plan(2)
    run(plan, tmp_path)
    Folder(tmp_path).record(names(plan)[1]).write_text("")
    assert run(plan, tmp_path).done == 1
    assert len(store.load(tmp_path)) == 2


def test_two_runners_cannot_work_on_one_folder(tmp_path: Path) -> None:
    run(rule_plan(1), tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with (
        runner._only_runner(Folder(tmp_path)),
        pytest.raises(InputError, match="another runner is working on this folder"),
    ):
        run(rule_plan(2), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert run(rule_plan(2), tmp_path).done == 1


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="knows no locks"):
        assert run(rule_plan(1), tmp_path).done == 1


# ---- what is shown ---------------------------------------------------------------------------------------------------
def test_a_log_file_gets_lines_and_each_failure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_progress, "LINE_SECONDS", 0.0)
    screen = io.StringIO()
    bad = misbehaving("raising", seed=7)
    runner.run_sweep(rule_plan(3, bad), tmp_path, jobs=0, console=Console(file=screen, width=80))
    lines = screen.getvalue().splitlines()
    assert [line for line in lines if line.startswith("failed:")] == [
        f"failed: {bad.configuration.hash} RANDOM on small shop (ft06), seed 7: RuntimeError: the shop is closed"
    ]
    assert any(line.startswith("2 of 4 runs, about 0:00:0") for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    runner.run_sweep(rule_plan(3), tmp_path, jobs=0, console=console)
    assert "0/3" in screen.getvalue()


def test_a_sweep_raises_no_warnings_of_its_own(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(rule_plan(1), tmp_path).done == 1
