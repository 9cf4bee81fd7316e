"""Execute one run and put what it gives into the folder of the sweep; the same code in every worker and engine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orl.bench.plan import Task
from orl.bench.record import Folder, Outcome, write_outcome
from orl.common.atomic import write_json

State = Literal["started", "done", "failed", "interrupted"]


@dataclass(frozen=True)
class RunReport:
    """What the driver of a sweep hears of a run; small, so that thousands of runs need no memory.

    Attributes:
        run: Name of the run (its hash).
        state: ``started``, or how it ended: ``interrupted`` runs wrote no record and are done again next time.
        message: One line on why it failed.
        seconds: Wall seconds from its start to its record.
    """

    run: str
    state: State
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where runs put their files.

    Attributes:
        folder: Folder of the sweep, absolute.
        sweep: Name of the sweep.
    """

    folder: Folder
    sweep: str

    def logs(self, run: str, task: Task) -> Path | None:
        """Folder of the run's TensorBoard logs, None when it shall write none."""
        return self.folder.root / "tensorboard" / run if task.keep.tensorboard else None


def execute_and_write(run: str, task: Task, place: Place, stop: Callable[[], bool]) -> RunReport:
    """Execute a run; write its record, or the record of its failure. Errors of the run end in the report.

    ``stop`` is asked now and then: once it is true, trainings save a checkpoint and end.
    """
    from orl.bench.execution import Interrupted, execute

    begin = time.perf_counter()
    try:
        outcome = execute(
            task, sweep=place.sweep, work=place.folder.work(run), tensorboard=place.logs(run, task), stop=stop
        )
    except (Interrupted, KeyboardInterrupt):
        return RunReport(run, "interrupted", seconds=time.perf_counter() - begin)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever a run raises must not end the other runs)
        return write_failure(run, task, place, error, time.perf_counter() - begin)
    return write_finished(run, task, place, outcome, begin)


def write_finished(run: str, task: Task, place: Place, outcome: Outcome, begin: float) -> RunReport:
    """Write an outcome and remove the run's checkpoint; when that fails, nothing of the outcome is left.

    Args:
        run: Name of the run.
        task: What was run.
        place: Where to write.
        outcome: What it gave.
        begin: ``time.perf_counter()`` at its start.
    """
    if any(row.get("interrupted") for row in outcome.record.get("rows", ())):
        return RunReport(run, "interrupted", seconds=time.perf_counter() - begin)
    try:
        write_outcome(place.folder, outcome)
    except (OSError, TypeError, ValueError) as error:
        for path in outcome.files:
            (place.folder.root / path).unlink(missing_ok=True)
        return write_failure(run, task, place, error, time.perf_counter() - begin)
    shutil.rmtree(place.folder.work(run), ignore_errors=True)
    return RunReport(run, "done", seconds=time.perf_counter() - begin)


def write_failure(run: str, task: Task, place: Place, error: BaseException, seconds: float) -> RunReport:
    """Write the record of a failed run."""
    from orl.bench.execution import failure_record

    return write_failure_record(run, place, failure_record(task, place.sweep, error, seconds), error, seconds)


def write_failure_record(
    run: str, place: Place, record: dict[str, object], error: BaseException | str, seconds: float
) -> RunReport:
    """Write a failure that is already a record; a disk too full even for that is told in the report."""
    message = error if isinstance(error, str) else describe(error)
    try:
        write_json(place.folder.failure(run), record, indent=1)
    except OSError as second:
        message += f"; its failure record cannot be written either: {describe(second)}"
    return RunReport(run, "failed", message, seconds)


def describe(error: BaseException) -> str:
    """One line: what was raised, and its text.

    >>> describe(ZeroDivisionError("division by\\n zero"))
    'ZeroDivisionError: division by zero'
    >>> describe(OSError(28, "No space left on device", "records/a.json"))
    "OSError: [Errno 28] No space left on device: 'records/a.json'"
    """
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
