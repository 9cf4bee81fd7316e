"""Worker processes of this machine: what they are given, how they die, and that nothing of them stays."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from pandas.testing import assert_frame_equal
from rich.console import Console
from sweep_plans import misbehaving, names, rule_plan, rule_task, slow_plan, temporary_files, without_times

from orl.bench import local_engine, store
from orl.bench.local_engine import _group_limit, default_jobs, run_local
from orl.bench.one_run import Place
from orl.bench.plan import Plan
from orl.bench.record import Folder
from orl.bench.runner import Summary, run_sweep
from orl.bench.stop_signal import StopSignal


def run(plan: Plan, folder: Path, jobs: int = 1) -> Summary:
    """``run_sweep`` with workers, without output."""
    return run_sweep(plan, folder, jobs=jobs, console=Console(file=io.StringIO()))


def children() -> list[psutil.Process]:
    """Worker processes of this process."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "orl.bench.local_worker" in " ".join(child.cmdline())
    ]


# ---- processors ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, float("inf")),
        ({"proc/self/cgroup": "0::/user/job\n"}, float("inf")),
        ({"proc/self/cgroup": "0::/user/job\n", "sys/fs/cgroup/user/job/cpu.max": "max 100000\n"}, float("inf")),
        ({"proc/self/cgroup": "0::/user/job\n", "sys/fs/cgroup/user/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/gone\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
    ],
)
def test_limits_of_control_groups_are_respected(tmp_path: Path, files: dict[str, str], expected: float) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert _group_limit(tmp_path) == expected


def test_jobs_share_the_processors_by_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(local_engine, "_group_limit", lambda _: 6.5)
    assert [default_jobs(threads) for threads in (1, 2, 4, 7)] == [6, 3, 1, 1]


# ---- what workers do -------------------------------------------------------------------------------------------------
def test_workers_give_the_table_of_this_process_with_threads_limited(tmp_path: Path) -> None:
    note = tmp_path / "note"
    variables = list(local_engine.THREAD_VARIABLES)
    noting = misbehaving("noting_environment", path=str(note), names=variables)
    plan = rule_plan(6, rule_task("spt"), noting)
    assert run(plan, tmp_path / "two", jobs=2).done == 8
    pid, *threads = note.read_text().splitlines()
    assert int(pid) != os.getpid()
    assert threads == ["1"] * len(variables)
    assert run_sweep(plan, tmp_path / "none", jobs=0, console=Console(file=io.StringIO())).done == 8
    one, two = store.load(tmp_path / "none"), store.load(tmp_path / "two")
    assert_frame_equal(without_times(one), without_times(two))
    assert not children()
    assert not temporary_files(tmp_path / "two")


def test_a_run_that_lost_its_worker_is_tried_once_more(tmp_path: Path) -> None:
    dying = misbehaving("killing", marker=str(tmp_path / "marker"))
    summary = run(rule_plan(2, dying), tmp_path / "out")
    assert (summary.done, summary.failed) == (3, 0)
    assert (tmp_path / "marker").exists()


def test_a_run_that_kills_every_worker_fails_and_says_how(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    killed, crashed = misbehaving("killing"), misbehaving("killing", seed=1001, number=int(signal.SIGSEGV))
    summary = run(rule_plan(3, killed, crashed), tmp_path, jobs=2)
    assert (summary.done, summary.failed) == (3, 2)
    errors = store.runs(tmp_path).set_index("run")["error"]
    expected = "WorkerDiedError: worker died 2 times: signal 9, Killed; out of memory?"
    assert errors[killed.configuration.hash] == expected
    assert "signal 11" in errors[crashed.configuration.hash]
    trace = store.read_record(tmp_path, crashed.configuration.hash)["error"]["traceback"]
    assert "these are my last words" in trace
    assert "Segmentation fault" in trace
    assert "in killing" in trace  # where it crashed
    assert "last words" not in "".join(capfd.readouterr())
    assert not temporary_files(tmp_path)


def test_a_disk_full_for_one_record_costs_that_run_alone(tmp_path: Path) -> None:
    full = misbehaving("with_full_disk", folders=["records", "failed"])
    screen = io.StringIO()
    summary = run_sweep(rule_plan(3, full), tmp_path, jobs=1, console=Console(file=screen))
    assert (summary.done, summary.failed) == (3, 1)
    assert "No space left on device" in screen.getvalue()
    assert not temporary_files(tmp_path)


def test_workers_that_cannot_start_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "START", "raise SystemExit('no such thing as a worker')")
    with pytest.raises(ChildProcessError, match=r"worker processes cannot start: exit code 1\nno such thing"):
        run(rule_plan(3), tmp_path)
    assert not children()


# ---- stopping --------------------------------------------------------------------------------------------------------
def reports(folder: Path, plan: Plan, stop: StopSignal, jobs: int = 2) -> Any:
    """The engine alone."""
    tasks = zip(names(plan), plan.tasks, strict=True)
    return run_local(tasks, Place(Folder(folder), plan.name), stop, jobs=jobs, threads=1)


def test_whoever_stops_listening_leaves_no_workers(tmp_path: Path) -> None:
    with closing(reports(tmp_path, slow_plan(4, 60.0), StopSignal())) as heard:
        assert [next(heard).state, next(heard).state] == ["started", "started"]
        assert len(children()) == 2
    assert not children()


def test_a_stop_lets_the_run_in_flight_end_and_takes_no_more(tmp_path: Path) -> None:
    stop, states, most = StopSignal(), [], 0
    for report in reports(tmp_path, slow_plan(4, 0.5), stop, jobs=1):
        states.append(report.state)
        most = max(most, len(children()))
        stop.count = int(len(states) >= 3)  # by now the worker has finished a run, and has taken the next one
    assert states == ["started", "done", "started", "done"]
    assert most == 1
    assert not children()


def test_a_stop_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "GRACE_SECONDS", 0.5)
    stop, plan = StopSignal(), slow_plan(3, 60.0)
    states = []
    for report in reports(tmp_path, plan, stop):
        states.append(report.state)
        stop.count = int(len(states) >= 2)
    assert states == ["started", "started", "interrupted", "interrupted"]
    assert not children()
    assert not (tmp_path / "records").exists()


def test_ctrl_c_twice_ends_at_once(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def press() -> None:
        while not marker.exists():
            time.sleep(0.01)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    presser = threading.Thread(target=press)
    presser.start()
    plan = Plan("stop", tuple(misbehaving("waiting", seed, seconds=60.0, marker=str(marker)) for seed in range(3)))
    summary = run(plan, tmp_path / "out", jobs=1)
    presser.join()
    assert summary.interrupted
    assert summary.done == summary.failed == 0
    assert not children()
    assert not temporary_files(tmp_path / "out")
