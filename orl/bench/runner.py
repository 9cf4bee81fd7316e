"""``run_sweep``: do the runs of a plan that have no record yet, on this machine or on a Ray cluster.

The folder of the sweep is all the state there is (:mod:`orl.bench.record`). A run is done when its record is there, so
a sweep that was killed, at whatever moment, goes on by being started again.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orl.bench.one_run import Place, RunReport
from orl.bench.plan import Plan, Task
from orl.bench.record import KINDS, PLAN_SCHEMA, Folder
from orl.bench.stop_signal import StopSignal
from orl.common.atomic import write_json, write_text
from orl.common.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Folders in which :func:`orl.common.atomic.atomic_path` prepares a file."""


@dataclass(frozen=True)
class Summary:
    """How a call of :func:`run_sweep` ended.

    Attributes:
        total: Runs of the plan (that ``only`` selects).
        done_before: Of these, runs with a record before the call.
        done: Runs finished by the call.
        failed: Runs that failed in the call.
        interrupted: Ctrl-C ended the call before every run had its turn.
        seconds: Wall seconds.
        failed_before: Runs that had failed earlier and were left alone (no ``retry_failed``).
    """

    total: int
    done_before: int
    done: int
    failed: int
    interrupted: bool
    seconds: float
    failed_before: int = 0


def run_sweep(
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    retry_failed: bool = False,
    only: Sequence[str] | None = None,
    console: Console | None = None,
) -> Summary:
    """Do the runs of ``plan`` that have no record in the folder ``out`` yet, longest first.

    A run that fails leaves its traceback under ``failed/`` and does not stop the others. Ctrl-C lets trainings save a
    checkpoint and ends with what is there; a second Ctrl-C ends at once.

    Args:
        plan: The runs (:func:`orl.bench.read_sweep`).
        out: Folder of the sweep; made if missing.
        jobs: Runs at a time. Local: None for as many as the processors allow, 0 for this very process. Ray: the largest
            number, None for as many as the cluster has room for.
        engine: ``local`` worker processes or ``ray`` tasks.
        address: Of the Ray cluster, such as ``auto`` or ``10.0.0.1:6379``; None starts one on this machine.
        retry_failed: Do runs again that have failed earlier.
        only: Beginnings of names of runs; others are left alone.
        console: Where to show progress; standard error by default.

    Raises:
        InputError: another runner works on the folder; ``jobs`` or ``only`` make no sense; no cluster at ``address``.
        MissingExtraError: ``engine="ray"`` without Ray.
        OSError: the folder cannot be written.
    """
    from rich.console import Console

    from orl.bench.sweep_progress import SweepProgress

    begin = time.perf_counter()
    if engine not in ("local", "ray"):
        raise InputError("unknown engine", field="engine", value=engine, expected="local or ray")
    if jobs is not None and jobs < (1 if engine == "ray" else 0):
        raise InputError("too small", field="jobs", value=jobs, expected=">= 1, or 0 for this process (local)")
    if engine == "ray":
        from orl.bench.ray_engine import require_ray

        require_ray()
    planned = {task.configuration.hash: task for task in plan.tasks}
    tasks = _selected(planned, only)
    folder = Folder(Path(out).absolute())
    folder.root.mkdir(parents=True, exist_ok=True)
    with _only_runner(folder):
        _tidy(folder)
        _write_plan(folder, plan, planned)
        done = _names(folder.root / "records") & tasks.keys()
        failed = (_names(folder.root / "failed") & tasks.keys()) - done
        skipped = set() if retry_failed else failed
        todo = {run: task for run, task in tasks.items() if run not in done and run not in skipped}
        ordered = sorted(todo.items(), key=lambda item: _length(item[1]), reverse=True)
        stop = StopSignal(raises=jobs == 0)
        ended = interrupted = 0
        with stop.listening(), SweepProgress(todo, console or Console(stderr=True)) as progress:
            if todo:
                with closing(_reports(ordered, Place(folder, plan.name), plan, stop, jobs, engine, address)) as reports:
                    for report in reports:
                        progress.note(report)
                        interrupted += report.state == "interrupted"
                        ended += report.state in ("done", "failed")
        if not any((folder.root / "work").glob("*")):
            shutil.rmtree(folder.root / "work", ignore_errors=True)
    return Summary(
        total=len(tasks),
        done_before=len(done),
        done=progress.done,
        failed=progress.failed,
        interrupted=interrupted > 0 or ended < len(todo),
        seconds=time.perf_counter() - begin,
        failed_before=len(skipped),
    )


def _reports(
    tasks: list[tuple[str, Task]],
    place: Place,
    plan: Plan,
    stop: StopSignal,
    jobs: int | None,
    engine: str,
    address: str | None,
) -> Generator[RunReport]:
    if engine == "ray":
        from orl.bench.ray_engine import run_on_ray

        return run_on_ray(tasks, place, stop, threads=plan.threads, jobs=jobs, address=address)
    from orl.bench.local_engine import default_jobs, run_here, run_local

    if jobs == 0:
        return run_here(tasks, place, stop)
    jobs = min(len(tasks), jobs if jobs is not None else default_jobs(plan.threads))
    return run_local(tasks, place, stop, jobs=jobs, threads=plan.threads)


# ---- what to run -----------------------------------------------------------------------------------------------------
def _selected(tasks: dict[str, Task], only: Sequence[str] | None) -> dict[str, Task]:
    if only is None:
        return tasks
    for prefix in only:
        if not any(run.startswith(prefix) for run in tasks):
            raise InputError("no run of the sweep begins with this", field="only", value=prefix)
    return {run: task for run, task in tasks.items() if run.startswith(tuple(only))}


def _length(task: Task) -> tuple[int, float, float]:
    """What sorts runs by their likely length: trainings by their budget, solvers by their time limit, then rules."""
    configuration = task.configuration
    subject, budget = configuration.subject, configuration.budget
    if subject.kind == "algorithm":
        return (2, (budget.steps if budget else 0) or 0, (budget.seconds if budget else 0) or 0)
    if subject.kind == "solver":
        return (1, subject.time_limit or 0, 0)
    return (0, 0, 0)


# ---- the folder ------------------------------------------------------------------------------------------------------
@contextmanager
def _only_runner(folder: Folder) -> Iterator[None]:
    """Hold the folder's lock: it lives in the system, on the folder itself, and ends with this process.

    Raises:
        InputError: another runner holds it.

    Warns:
        UserWarning: the file system of the folder knows no locks.
    """
    import fcntl

    descriptor = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "another runner is working on this folder", source=str(folder.root), expected="one runner a folder"
            ) from error
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
            warnings.warn(
                f"{folder.root}: this file system knows no locks; see to it that only one runner uses the folder",
                UserWarning,
                stacklevel=3,
            )
        yield
    finally:
        os.close(descriptor)


def _tidy(folder: Folder) -> None:
    """Remove what killed runs left behind: files in preparation, empty records, checkpoints of finished runs."""
    root, work = folder.root, folder.root / "work"
    trainings = [entry for entry in work.glob("*") if entry.is_dir()]
    for place in (root, *(root / name for name in ("records", "failed", *KINDS, "tensorboard")), work, *trainings):
        for entry in place.glob(".*"):
            if entry.is_dir() and LEFTOVER.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)
    for kind in ("records", "failed"):
        for entry in (root / kind).glob("*.json"):
            if entry.stat().st_size == 0:  # the machine went down before the content reached the disk
                entry.unlink()
    done = _names(root / "records")
    for run in _names(root / "failed") & done:
        folder.failure(run).unlink()
    for training in trainings:
        if training.name in done:
            shutil.rmtree(training, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    """Names of the runs with a JSON file in a folder."""
    if not folder.is_dir():
        return set()
    return {name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json")}


def _write_plan(folder: Folder, plan: Plan, planned: dict[str, Task]) -> None:
    """Write ``sweep.json`` (schema ``orl.sweep-plan/1``) and, if the plan came from a file, ``sweep.yaml``."""
    from orl.bench.versions import package_versions

    data = {
        "schema": PLAN_SCHEMA,
        "name": plan.name,
        "source": plan.source,
        "threads": plan.threads,
        "scales": {label: asdict(scale) for label, scale in plan.scales.items()},
        "versions": package_versions(),
        "tasks": {run: {"environment": task.environment, "subject": task.subject} for run, task in planned.items()},
    }
    if plan.text is not None:
        write_text(folder.file, plan.text)
    write_json(folder.plan, data)
