"""What a sweep shows while it runs: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from orl.bench.one_run import RunReport
from orl.bench.plan import Task

LINE_SECONDS = 15.0
"""Time between two lines where there is no terminal."""
SHOWN = 3
"""Runs in progress that are named."""


def label(task: Task) -> str:
    """How people speak of a run.

    >>> from orl.bench.configuration import Configuration, EnvironmentPart, RulePart
    >>> part = EnvironmentPart(id="orl/JobShop-v0", version="orl 0.1.0", instances=("ft06",))
    >>> label(Task(Configuration(environment=part, subject=RulePart(key="spt"), seed=3, orl="0.1.0"), "shop", "SPT"))
    'SPT on shop (ft06), seed 3'
    """
    environment = task.configuration.environment
    only = environment.instances[0] if len(environment.instances) == 1 else None
    instance = f" ({only})" if isinstance(only, str) else ""
    return f"{task.subject} on {task.environment}{instance}, seed {task.configuration.seed}"


class SweepProgress:
    """Counts reports and shows them; use it as a context manager.

    Args:
        tasks: The runs to do, by name.
        console: Where to write.
    """

    def __init__(self, tasks: Mapping[str, Task], console: Console) -> None:
        self.tasks, self.console = tasks, console
        self.done = self.failed = 0
        self.running: dict[str, str] = {}
        self.begin = self.last_line = time.monotonic()
        self.bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            refresh_per_second=4,
        )
        self.row = self.bar.add_task("", total=len(tasks))

    def __enter__(self) -> SweepProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def note(self, report: RunReport) -> None:
        """Take in a report; a failure is written out at once."""
        if report.state == "started":
            self.running[report.run] = label(self.tasks[report.run])
        else:
            self.running.pop(report.run, None)
            self.done += report.state == "done"
            self.failed += report.state == "failed"
        if report.state == "failed":
            self.say(f"failed: {report.run} {label(self.tasks[report.run])}: {report.message.splitlines()[0]}")
        self._show()

    def say(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show(self) -> None:
        ended, now = self.done + self.failed, time.monotonic()
        failed = f"{self.failed} failed" if self.failed else ""
        if self.console.is_terminal:
            names = list(self.running.values())
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            text = " · ".join(part for part in (failed, "; ".join(names[:SHOWN]) + more) if part)
            self.bar.update(self.row, completed=ended, description=text)
        elif now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            rest = (now - self.begin) / ended * (len(self.tasks) - ended) if ended else None
            left = "" if rest is None else f"about {timedelta(seconds=round(rest))} left"
            parts = (f"{ended} of {len(self.tasks)} runs", failed, left)
            self.say(", ".join(part for part in parts if part))
