"""Runs as tasks of a Ray cluster. The driver alone writes records, so nodes need not share a disk with it.

A run whose node or worker is lost is done again by Ray, ``MAX_RETRIES`` times at most. On nodes that see the folder of
the sweep, checkpoints are kept in it and a lost training goes on from there; elsewhere they are kept on the node.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orl.bench.local_engine import GRACE_SECONDS, POLL_SECONDS, THREAD_VARIABLES, default_jobs
from orl.bench.one_run import Place, RunReport, describe, write_failure, write_failure_record, write_finished
from orl.bench.plan import Task
from orl.bench.record import Outcome
from orl.bench.stop_signal import StopSignal
from orl.common.errors import InputError, MissingExtraError

MAX_RETRIES = 3
"""Times that Ray does a run again whose worker or node was lost."""
CONNECT_SECONDS = 5.0
"""Time that a cluster's address has to answer."""
TOKEN = ".driver"
"""File under ``work/`` by which a node knows that it sees the folder of the sweep."""


@dataclass(frozen=True)
class Assignment:
    """What a node needs beside the task.

    Attributes:
        place: Folder and name of the sweep, as the driver sees them.
        token: What the token file holds, if the node sees the folder.
        driver: The driver's host and folder, from which nodes name their own folders.
    """

    place: Place
    token: str
    driver: str


@dataclass(frozen=True)
class Answer:
    """What a node gives back: an outcome, the record of a failure and its message, or neither (interrupted)."""

    outcome: Outcome | None = None
    failure: dict[str, Any] | None = None
    message: str = ""
    seconds: float = 0.0


def require_ray() -> Any:
    """The module ``ray``; raises MissingExtraError when it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "--engine ray") from error
    return ray


# ---- the driver ------------------------------------------------------------------------------------------------------
def run_on_ray(
    tasks: Iterable[tuple[str, Task]],
    place: Place,
    stop: StopSignal,
    *,
    threads: int,
    jobs: int | None = None,
    address: str | None = None,
) -> Generator[RunReport]:
    """Run tasks on a Ray cluster, ``threads`` processors each; a connection that exists already is used and kept.

    A few more tasks than the cluster has room for are in flight, ``jobs`` at most; nodes may come and go. After a first
    request to stop, trainings are asked to save checkpoints; those not done after ``GRACE_SECONDS``, or all at a second
    request, are cut off.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: no cluster answers at ``address``.
    """
    ray = require_ray()
    with _connected(ray, address, jobs or default_jobs()), _token(place) as token, stop.listening():
        assignment = Assignment(place, token, f"{platform.node()}:{place.folder.root}")
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads))
        remote = ray.remote(num_cpus=threads, max_retries=MAX_RETRIES, runtime_env={"env_vars": variables})(run_on_node)
        left = iter(tasks)
        in_flight: dict[Any, tuple[str, Task, float]] = {}
        deadline: float | None = None
        try:
            while True:
                room = jobs or int(ray.cluster_resources().get("CPU", 0) // threads) + 1
                while not stop.requested and len(in_flight) < room:
                    following = next(left, None)
                    if following is None:
                        break
                    run, task = following
                    in_flight[remote.remote(run, task, assignment)] = (run, task, time.perf_counter())
                    yield RunReport(run, "started")
                if not in_flight:
                    return
                if stop.requested and deadline is None:
                    deadline = time.monotonic() + GRACE_SECONDS
                    for reference in in_flight:
                        ray.cancel(reference)
                if stop.insisted or (deadline is not None and time.monotonic() > deadline):
                    yield from (RunReport(run, "interrupted") for run, _, _ in in_flight.values())
                    return
                ready, _ = ray.wait(list(in_flight), timeout=POLL_SECONDS)
                for reference in ready:
                    run, task, begin = in_flight.pop(reference)
                    yield _report(ray, reference, run, task, place, begin)
        finally:
            for reference in in_flight:
                ray.cancel(reference, force=True)


def _report(ray: Any, reference: Any, run: str, task: Task, place: Place, begin: float) -> RunReport:
    """Write what a task gave."""
    try:
        answer: Answer = ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return RunReport(run, "interrupted")
    except ray.exceptions.RayError as error:  # lost too often, or a node that cannot run it at all
        return write_failure(run, task, place, error, time.perf_counter() - begin)
    if answer.outcome is not None:
        return replace(write_finished(run, task, place, answer.outcome, begin), seconds=answer.seconds)
    if answer.failure is not None:
        return write_failure_record(run, place, answer.failure, answer.message, answer.seconds)
    return RunReport(run, "interrupted", seconds=answer.seconds)


@contextmanager
def _connected(ray: Any, address: str | None, jobs: int) -> Iterator[None]:
    """Connect to the cluster at ``address``, or start one of ``jobs`` processors here; an old connection is kept."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        ray.init(address="local", num_cpus=jobs, include_dashboard=False, **quiet)
    else:
        _require_answer(address)
        try:
            ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError, SystemExit) as error:  # Ray leaves by SystemExit when it gives up
            raise _no_cluster(address, describe(error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Knock at ``host:port``: Ray itself tries for more than a minute and then ends the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
            pass
    except (OSError, OverflowError, ValueError) as error:
        raise _no_cluster(address, describe(error)) from error


def _no_cluster(address: str, reason: str) -> InputError:
    expected = "the address of a running cluster, such as auto or 10.0.0.1:6379"
    return InputError(f"no Ray cluster answers: {reason}", field="address", value=address, expected=expected)


@contextmanager
def _token(place: Place) -> Iterator[str]:
    """A random text in a file under ``work/`` while the block runs."""
    path, token = place.folder.work(TOKEN), uuid.uuid4().hex
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token)
    try:
        yield token
    finally:
        path.unlink(missing_ok=True)


# ---- a node ----------------------------------------------------------------------------------------------------------
def run_on_node(run: str, task: Task, assignment: Assignment) -> Answer:
    """The Ray task: execute a run and give back what it made; whatever it raises becomes the record of a failure."""
    from orl.bench.execution import Interrupted, execute, failure_record

    begin, sweep = time.perf_counter(), assignment.place.sweep
    try:
        with _asked_to_stop() as asked, _folders(run, task, assignment) as (work, logs, own):
            _require_same_version(task)
            outcome = execute(task, sweep=sweep, work=work, tensorboard=logs, stop=lambda: bool(asked))
            if own is not None and logs is not None:
                outcome = _with_logs(outcome, run, logs)
    except (Interrupted, KeyboardInterrupt):
        return Answer(seconds=time.perf_counter() - begin)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a run raises must not end the other runs)
        seconds = time.perf_counter() - begin
        return Answer(failure=failure_record(task, sweep, error, seconds), message=describe(error), seconds=seconds)
    return Answer(outcome=outcome, seconds=time.perf_counter() - begin)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that is filled once the driver cancels the task, which Ray tells a worker as an interrupt."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _folders(run: str, task: Task, assignment: Assignment) -> Iterator[tuple[Path, Path | None, Path | None]]:
    """Folders of checkpoints and of TensorBoard logs: the sweep's own where this node sees it, else the node's.

    The third one is what has to go when the run has ended well, None for the sweep's own. After a failure or a stop the
    node's folder stays for the next try.
    """
    place = assignment.place
    if _sees(place, assignment.token):
        yield place.folder.work(run), place.logs(run, task), None
        return
    digest = hashlib.sha256(assignment.driver.encode()).hexdigest()[:8]
    own = Path(tempfile.gettempdir()) / f"orl-sweep-{digest}" / run
    yield own / "work", own / "tensorboard" if task.keep.tensorboard else None, own
    shutil.rmtree(own, ignore_errors=True)
    with contextlib.suppress(OSError):  # other runs of the sweep may be there
        own.parent.rmdir()


def _sees(place: Place, token: str) -> bool:
    try:
        return place.folder.work(TOKEN).read_text() == token
    except OSError:
        return False


def _with_logs(outcome: Outcome, run: str, logs: Path) -> Outcome:
    """The outcome with the TensorBoard logs that only this node sees."""
    found = {
        f"tensorboard/{run}/{path.relative_to(logs).as_posix()}": path.read_bytes()
        for path in sorted(logs.rglob("*"))
        if path.is_file()
    }
    return replace(outcome, files={**outcome.files, **found})


def _require_same_version(task: Task) -> None:
    import orl

    if task.configuration.orl != orl.__version__:
        raise InputError(
            "another version of orl on this node",
            source=platform.node(),
            value=orl.__version__,
            expected=task.configuration.orl,
        )
