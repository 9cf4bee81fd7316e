"""Sweeps as Ray tasks; what needs a cluster is slow: ``pytest -m slow tests/bench/test_ray_engine.py``."""

from __future__ import annotations

import io
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sweep_plans
from pandas.testing import assert_frame_equal
from rich.console import Console
from sweep_plans import misbehaving, names, rule_plan, rule_task, slow_plan, temporary_files, without_times

from orl.bench import ray_engine, store
from orl.bench.one_run import Place
from orl.bench.plan import Plan, Task
from orl.bench.ray_engine import Assignment, run_on_node
from orl.bench.record import Folder
from orl.bench.runner import run_sweep
from orl.common.errors import InputError, MissingExtraError


def run(plan: Plan, folder: Path, **options: Any) -> Any:
    """``run_sweep`` on Ray, without output."""
    return run_sweep(plan, folder, engine="ray", console=Console(file=io.StringIO()), **options)


# ---- without a cluster -----------------------------------------------------------------------------------------------
def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs the package 'ray': .*pip install 'orl\[ray\]'"):
        run(rule_plan(1), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_answers_is_one_clear_error(tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=r"address: no Ray cluster answers: ConnectionRefusedError.*got '.*127"):
            run(rule_plan(1), tmp_path, address=address)


def test_an_address_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="address: no Ray cluster answers"):
        run(rule_plan(1), tmp_path, address="nonsense")


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a node."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr(ray_engine.tempfile, "gettempdir", lambda: str(folder))
    return folder


def assignment(folder: Path, token: str) -> Assignment:
    return Assignment(Place(Folder(folder), "sweep"), token, "host:folder")


def on_node(task: Task, given: Assignment) -> ray_engine.Answer:
    """A task on a node, after the journey of its arguments and back."""
    run, task, given = pickle.loads(pickle.dumps((task.configuration.hash, task, given)))
    answer: ray_engine.Answer = pickle.loads(pickle.dumps(run_on_node(run, task, given)))
    return answer


def test_a_node_gives_back_an_outcome_and_writes_nothing(tmp_path: Path, far: Path) -> None:
    sweep = tmp_path / "sweep"
    answer = on_node(rule_task("spt"), assignment(sweep, "token"))
    assert answer.outcome is not None
    assert answer.outcome.record["rows"][0]["objective"] == 88.0
    assert not sweep.exists()
    assert not list(far.iterdir())


def test_a_failure_on_a_node_comes_back_as_a_record(tmp_path: Path, far: Path) -> None:
    answer = on_node(misbehaving("raising"), assignment(tmp_path, "token"))
    assert answer.outcome is None
    assert answer.message == "RuntimeError: the shop is closed"
    assert answer.failure is not None
    assert "in raising" in answer.failure["error"]["traceback"]


def test_a_node_with_another_orl_refuses(tmp_path: Path, far: Path) -> None:
    task = rule_task()
    other = Task(task.configuration.model_copy(update={"orl": "0.0.1"}), task.environment, task.subject, task.keep)
    answer = on_node(other, assignment(tmp_path, "token"))
    assert "another version of orl on this node" in answer.message


def test_only_a_node_that_sees_the_folder_works_in_it(tmp_path: Path, far: Path) -> None:
    task = rule_task()
    place = Place(Folder(tmp_path), "sweep")
    with ray_engine._token(place) as token:
        with ray_engine._folders("abc", task, assignment(tmp_path, token)) as (work, logs, own):
            assert (work, logs, own) == (tmp_path / "work" / "abc", None, None)
        with ray_engine._folders("abc", task, assignment(tmp_path, "other")) as (work, logs, own):
            assert far in work.parents
            assert own in work.parents
    assert not list((tmp_path / "work").iterdir())


def test_what_a_node_keeps_goes_with_success_and_stays_for_the_next_try(tmp_path: Path, far: Path) -> None:
    given = assignment(tmp_path, "token")

    def attempt() -> Iterator[Path]:
        with ray_engine._folders("abc", rule_task(), given) as (work, _, _):
            work.mkdir(parents=True, exist_ok=True)
            yield work

    failed = attempt()
    work = next(failed)
    with pytest.raises(RuntimeError):
        failed.throw(RuntimeError())
    assert work.exists()
    assert list(attempt()) == [work]
    assert not list(far.iterdir())


def test_logs_of_a_far_node_travel_with_the_outcome(tmp_path: Path) -> None:
    (tmp_path / "PPO_1").mkdir()
    (tmp_path / "PPO_1" / "events").write_bytes(b"\x00")
    outcome = ray_engine._with_logs(ray_engine.Outcome({}, {"curves/abc.jsonl": b""}), "abc", tmp_path)
    assert outcome.files == {"curves/abc.jsonl": b"", "tensorboard/abc/PPO_1/events": b"\x00"}


# ---- with a cluster --------------------------------------------------------------------------------------------------
@pytest.fixture
def ray_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that are started by the test find the modules that tests share."""
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(sweep_plans.__file__).parent))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_nodes")
def test_a_cluster_of_this_machine_gives_the_same_table(tmp_path: Path) -> None:
    bad, deadly = misbehaving("raising"), misbehaving("killing")
    plan = rule_plan(6, rule_task("spt"), bad, deadly)
    summary = run(plan, tmp_path / "ray", jobs=2)
    assert (summary.done, summary.failed, summary.interrupted) == (7, 2, False)
    errors = store.runs(tmp_path / "ray").set_index("run")["error"]
    assert errors[bad.configuration.hash] == "RuntimeError: the shop is closed"
    assert "WorkerCrashedError" in errors[deadly.configuration.hash]
    run_sweep(rule_plan(6, rule_task("spt")), tmp_path / "here", jobs=0, console=Console(file=io.StringIO()))
    one, two = store.load(tmp_path / "ray"), store.load(tmp_path / "here")
    assert_frame_equal(without_times(one), without_times(two))
    assert not temporary_files(tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_nodes")
def test_a_node_is_lost_and_another_one_comes(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    plan, out = slow_plan(60, 0.3), tmp_path / "ray"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = cluster.add_node(num_cpus=1)
        command = [sys.executable, sweep_plans.__file__, str(out), "60", "0.3", cluster.address]
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(list(out.glob("records/*.json"))) < 30:
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.02)
        cluster.remove_node(lost, allow_graceful=False)
        at_loss = len(list(out.glob("records/*.json")))
        cluster.add_node(num_cpus=1)
        shown, errors = driver.communicate(timeout=300)
    finally:
        cluster.shutdown()
    assert 30 <= at_loss < 60
    assert driver.returncode == 0, errors
    assert "done=60, failed=0, interrupted=False" in shown
    assert {path.stem for path in (out / "records").iterdir()} == set(names(plan))
    run_sweep(slow_plan(60, 0.3), tmp_path / "here", jobs=0, console=Console(file=io.StringIO()))
    assert_frame_equal(without_times(store.load(out)), without_times(store.load(tmp_path / "here")))
    assert not temporary_files(out)
