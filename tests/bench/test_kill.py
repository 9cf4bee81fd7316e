"""kill -9 of anything at any time: started again, a sweep ends with the same table, and nothing else is left."""

from __future__ import annotations

import io
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import sweep_plans
from pandas.testing import assert_frame_equal
from rich.console import Console
from sweep_plans import names, rule_plan, slow_plan, temporary_files, without_times

from orl.bench import store
from orl.bench.runner import run_sweep
from orl.common.errors import InputError


def start(folder: Path, runs: int, seconds: float) -> subprocess.Popen[bytes]:
    """A driver process with two workers, in a session of its own."""
    command = [sys.executable, sweep_plans.__file__, str(folder), str(runs), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def wait_until(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Look until it is so; fails after a while."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def records(folder: Path) -> set[str]:
    """Names of the finished runs."""
    return {path.stem for path in folder.glob("records/[!.]*.json")}


def family(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The driver and all its descendants."""
    process = psutil.Process(driver.pid)
    return [process, *process.children(recursive=True)]


def workers_of(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker processes: children of the driver that run a worker, without what they call themselves (git)."""
    found = []
    for process in psutil.Process(driver.pid).children():
        with suppress(psutil.NoSuchProcess):
            if any("local_worker" in part for part in process.cmdline()):
                found.append(process)
    return found


def kill(processes: list[psutil.Process]) -> None:
    """kill -9, whoever is still there."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.mark.parametrize("runs, kills", [(40, 2), pytest.param(200, 5, marks=pytest.mark.slow)])
def test_a_sweep_killed_again_and_again_ends_with_the_same_table(tmp_path: Path, runs: int, kills: int) -> None:
    plan, rng = slow_plan(runs, 0.0), random.Random(2026)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_sweep(plan, whole, jobs=0, console=Console(file=io.StringIO()))
    expected = store.load(whole)
    assert expected["objective"].nunique() > 5
    kept: dict[str, int] = {}
    for number in range(kills):
        driver = start(killed, runs, 0.0)
        moment = len(records(killed)) + rng.randrange(1, runs // (kills + 1))
        wait_until(lambda moment=moment: len(records(killed)) >= moment)  # type: ignore[misc]
        time.sleep(rng.uniform(0.0, 0.05))
        everyone = family(driver)
        rng.shuffle(everyone)
        kill(everyone)
        driver.communicate()
        psutil.wait_procs(everyone, timeout=10)
        assert len(records(killed)) < runs, f"kill {number} came too late"
        times = {name: (killed / "records" / f"{name}.json").stat().st_mtime_ns for name in records(killed)}
        assert {name: times[name] for name in kept} == kept, "a finished run was done again"
        kept = times
    last = start(killed, runs, 0.0)
    _, errors = last.communicate(timeout=300)
    assert last.returncode == 0, errors.decode()
    assert records(killed) == set(names(plan))
    assert_frame_equal(without_times(store.load(killed)), without_times(expected))
    assert not temporary_files(killed)
    assert sorted(path.name for path in killed.iterdir()) == ["records", "sweep.json"]


def test_workers_vanish_with_their_killed_parent_and_its_lock_too(tmp_path: Path) -> None:
    driver = start(tmp_path, 50, 0.2)
    wait_until(lambda: len(records(tmp_path)) >= 1)
    with pytest.raises(InputError, match="another runner"):
        run_sweep(rule_plan(1), tmp_path, jobs=0, console=Console(file=io.StringIO()))
    workers = workers_of(driver)
    assert len(workers) == 2
    driver.kill()
    driver.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    left = len(records(tmp_path))
    assert left < 50
    summary = run_sweep(rule_plan(1), tmp_path, jobs=0, console=Console(file=io.StringIO()))
    assert summary.done == 1
    assert len(records(tmp_path)) == left + 1


def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    driver = start(tmp_path, 30, 0.1)
    wait_until(lambda: len(records(tmp_path)) >= 2)
    kill(workers_of(driver)[:1])
    _, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors.decode()
    assert records(tmp_path) == set(names(slow_plan(30, 0.1)))
    assert not (tmp_path / "failed").exists()
    assert not temporary_files(tmp_path)
