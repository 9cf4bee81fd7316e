"""Time and memory that a run uses, over all the processes that have worked on it."""

from __future__ import annotations

import datetime
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""What Linux takes in ``clear_refs`` as the wish to forget the peak so far (proc(5))."""


class Stopwatch:
    """Wall and CPU seconds of a training; stands still in blocks under :meth:`paused`.

    Args:
        seconds, cpu_seconds: What it starts from.

    >>> watch = Stopwatch()
    >>> watch.start()
    >>> with watch.paused():
    ...     before = watch.seconds
    ...     time.sleep(0.001)
    ...     watch.seconds == before
    True
    """

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self._seconds, self._cpu_seconds = seconds, cpu_seconds
        self._begin: tuple[float, float] | None = None

    def start(self) -> None:
        """Go on."""
        self._begin = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Stand still."""
        self._seconds, self._cpu_seconds, self._begin = self.seconds, self.cpu_seconds, None

    @property
    def seconds(self) -> float:
        """Wall seconds so far."""
        return self._seconds + (0.0 if self._begin is None else time.perf_counter() - self._begin[0])

    @property
    def cpu_seconds(self) -> float:
        """Seconds of the processor so far, all threads of this process."""
        return self._cpu_seconds + (0.0 if self._begin is None else time.process_time() - self._begin[1])

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still inside the block, go on after it."""
        self.stop()
        try:
            yield
        finally:
            self.start()


@dataclass(frozen=True)
class Spent:
    """What a run has used so far.

    Attributes:
        started: Its very first start, ISO 8601 in UTC.
        seconds, cpu_seconds: Wall seconds and seconds of the processor.
        peak_memory_mb: Largest resident memory in MiB of a process while it worked on the run.
    """

    started: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0


class Meter:
    """Measures from its making on; :meth:`add` counts what earlier processes used for the same run.

    Memory is that of the whole process: on Linux since the meter was made, elsewhere (and where Linux does not permit
    forgetting the earlier peak) since the process started.
    """

    def __init__(self) -> None:
        with suppress(OSError):
            CLEAR_REFS.write_text(RESET_PEAK)
        self._watch, self._earlier = Stopwatch(), Spent()
        self._watch.start()

    def add(self, earlier: Spent) -> None:
        """Count on from what a checkpoint says; replaces what was added before."""
        self._earlier = earlier

    def read(self) -> Spent:
        """Everything so far."""
        earlier = self._earlier
        return Spent(
            earlier.started,
            earlier.seconds + self._watch.seconds,
            earlier.cpu_seconds + self._watch.cpu_seconds,
            max(earlier.peak_memory_mb, peak_memory_mb()),
        )


def peak_memory_mb() -> float:
    """Largest resident memory of this process in MiB: since it was last forgotten on Linux, else since the start.

    >>> peak_memory_mb() > 1
    True
    """
    if STATUS.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) / 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
