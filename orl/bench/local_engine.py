"""Runs on this machine: persistent worker processes, or (``jobs=0``) this very process.

Workers write their records themselves, so that finished runs outlive a killed parent, and send back a few words. A
worker that dies (killed, out of memory, crashed) takes one run with it; the run is tried once more in a new worker.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO

from orl.bench.local_worker import READY, Assignment
from orl.bench.one_run import Place, RunReport, execute_and_write, write_failure
from orl.bench.plan import Task
from orl.bench.stop_signal import StopSignal

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""Threads of numerical libraries; torch follows the first."""
GRACE_SECONDS = 10.0
"""What workers are given to save their checkpoints after Ctrl-C."""
TRIES = 2
"""Workers that a run may take with it before it counts as failed."""
POLL_SECONDS = 0.2
OUTPUT_KEPT = 4000
"""Bytes of a dead worker's last output that its failure record tells."""
START = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from orl.bench.local_worker import main; "
START += "main(int(sys.argv[1]))"


class WorkerDiedError(RuntimeError):
    """A worker process ended in the middle of a run."""


# ---- processors ------------------------------------------------------------------------------------------------------
def default_jobs(threads: int = 1) -> int:
    """Runs at a time when nothing is said: the processors that this process may use, divided by the threads of a run.

    The processor affinity and the limits of the control group (containers, batch systems) are respected.

    >>> 1 <= default_jobs() <= os.cpu_count()
    True
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(affinity, _group_limit(Path("/")))) // threads)


def _group_limit(root: Path) -> float:
    """Processors that the control group of this process and the groups around it allow; infinity without a limit."""
    limit = math.inf
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return limit
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = base / path.lstrip("/")
        # In a container the group's own path may not exist: its limit then stands at the top.
        for folder in (group, *group.parents):
            if folder == base.parent:
                break
            limit = min(limit, _quota(folder))
    return limit


def _quota(folder: Path) -> float:
    """Processors that one control group allows (cgroup v2: cpu.max; v1: cpu.cfs_*)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return math.inf
    return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)


# ---- this process ----------------------------------------------------------------------------------------------------
def run_here(tasks: Iterable[tuple[str, Task]], place: Place, stop: StopSignal) -> Generator[RunReport]:
    """Run one after the other in this process, where a debugger can look; threads are as they are."""
    for run, task in tasks:
        if stop.requested:
            return
        yield RunReport(run, "started")
        yield execute_and_write(run, task, place, lambda: stop.requested)


# ---- worker processes ------------------------------------------------------------------------------------------------
class _Worker:
    """One process, its socket, and the run it is busy with."""

    def __init__(self, place: Place, threads: int) -> None:
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        self.run: str | None = None
        self.is_ready = False
        self.connection, theirs = multiprocessing.Pipe()
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-c", START, str(theirs.fileno()), json.dumps(sys.path)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited: no Ctrl-C while it starts
        try:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=self.output,
                pass_fds=(theirs.fileno(),),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self.send(Assignment(os.getpid(), place))

    def send(self, message: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died, which is found when its answer is read
            self.connection.send(message)

    def receive(self) -> RunReport | str | None:
        """What it says; None when it has died."""
        try:
            message: RunReport | str = self.connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def close(self, patience: float) -> None:
        """Let it end by itself for so many seconds, then kill it."""
        self.connection.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()

    def last_words(self) -> tuple[str, str]:
        """How the process ended, and what it printed last; a process that only its socket has left is killed."""
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            how += "; out of memory?"
        size = os.fstat(self.output.fileno()).st_size
        printed = os.pread(self.output.fileno(), OUTPUT_KEPT, max(0, size - OUTPUT_KEPT))
        return how, printed.decode(errors="replace").strip()


def run_local(
    tasks: Iterable[tuple[str, Task]], place: Place, stop: StopSignal, *, jobs: int, threads: int
) -> Generator[RunReport]:
    """Run ``jobs`` at a time, each in a worker process of its own; workers stay for the next run.

    A task is taken from ``tasks`` only when a worker is free. After a first request to stop, no task is taken, workers
    are asked to save checkpoints, and those that are not done after ``GRACE_SECONDS`` are killed; a second request
    kills them at once. Whatever ends this generator, its workers are gone afterwards.

    Raises:
        ChildProcessError: workers die before they can take their first run.
    """
    left = iter(tasks)
    lost: deque[tuple[str, Task]] = deque()
    in_flight: dict[str, Task] = {}
    deaths: dict[str, int] = {}
    stillborn = 0
    workers: list[_Worker] = []
    deadline = math.inf
    try:
        while True:
            while not stop.requested and len(in_flight) < jobs:
                following = lost.popleft() if lost else next(left, None)
                if following is None:
                    break
                run, task = following
                worker = next((worker for worker in workers if worker.run is None), None)
                if worker is None:
                    worker = _Worker(place, threads)
                    workers.append(worker)
                worker.run, in_flight[run] = run, task
                worker.send((run, task))
                yield RunReport(run, "started")
            busy = [worker for worker in workers if worker.run is not None]
            if not busy:
                return
            if stop.requested and deadline == math.inf:
                deadline = time.monotonic() + GRACE_SECONDS
                for worker in busy:
                    worker.process.terminate()
            if stop.insisted or time.monotonic() > deadline:
                yield from (RunReport(run, "interrupted") for run in in_flight)
                return
            heard = wait([worker.connection for worker in busy], POLL_SECONDS)
            for worker in busy:
                # A process that the worker had started may keep the socket of a dead worker open: ask the system, too.
                if worker.connection not in heard and worker.process.poll() is None:
                    continue
                message = worker.receive() if worker.connection.poll() else None
                assert worker.run is not None
                if message == READY:
                    worker.is_ready, stillborn = True, 0
                    continue
                task = in_flight.pop(worker.run)
                if isinstance(message, RunReport):
                    worker.run = None
                    yield message
                    continue
                workers.remove(worker)
                run, (how, printed) = worker.run, worker.last_words()
                worker.close(0.0)
                if place.folder.record(run).exists():  # it died between its record and its answer
                    yield RunReport(run, "done")
                elif stop.requested:
                    yield RunReport(run, "interrupted")
                elif not worker.is_ready:
                    stillborn += 1
                    if stillborn > TRIES:
                        raise ChildProcessError(f"worker processes cannot start: {how}\n{printed}")
                    lost.append((run, task))
                else:
                    deaths[run] = deaths.get(run, 0) + 1
                    if deaths[run] < TRIES:
                        lost.append((run, task))
                    else:
                        error = WorkerDiedError(f"worker died {TRIES} times: {how}")
                        error.add_note(f"Its last output:\n{printed}")
                        yield write_failure(run, task, place, error, 0.0)
    finally:
        _close_all(workers)


def _close_all(workers: list[_Worker]) -> None:
    """Idle workers end by themselves when their socket closes; busy ones are killed."""
    for worker in workers:
        if worker.run is not None:
            worker.process.kill()
        worker.connection.close()
    for worker in workers:
        worker.close(5.0)
