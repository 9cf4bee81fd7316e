"""``orl sweep``: check, run, follow and report a benchmark sweep (:mod:`orl.bench`)."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orl.common.errors import InputError
from orl.terminal import INTERRUPTED, require_writable

sweep_app = typer.Typer(help="Benchmark sweeps: one file in, one table and one page out.", no_args_is_help=True)

SweepFile = Annotated[Path, typer.Argument(help="Sweep file (YAML).")]
StrictCode = Annotated[
    bool, typer.Option("--strict-code", help="A run of another git commit is another run, to be done again.")
]
Jobs = Annotated[int | None, typer.Option(help="Runs at a time [one a usable core]; 0: in this process.")]


class Engine(StrEnum):
    """Where runs run."""

    local = "local"
    ray = "ray"


class Format(StrEnum):
    """What ``orl sweep report`` writes."""

    html = "html"
    md = "md"
    csv = "csv"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def _table(title: str, columns: tuple[str, ...], left: tuple[str, ...]) -> Table:
    """An empty table; the columns named in ``left`` hold text, the others figures."""
    table = Table(title=Text(title), title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    return table


def _add(table: Table, *cells: str) -> None:
    """Add a row; brackets in labels such as ``ppo[gamma=0.9]`` are no markup."""
    table.add_row(*map(Text, cells))


@sweep_app.command("check")
def check(
    file: SweepFile,
    jobs: Jobs = None,
    probe_seconds: Annotated[float, typer.Option(help="Longest measurement of an algorithm; 0: none.")] = 2.0,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep: records tell times.")] = None,
    strict_code: StrictCode = False,
) -> None:
    """Read a sweep file, print its runs and an estimate of their time. Every mistake is one line with its place."""
    from orl.bench.description import read_sweep
    from orl.bench.estimate import estimate, wall_seconds
    from orl.bench.local_engine import default_jobs
    from orl.bench.store import runs

    plan = read_sweep(file, strict_code=strict_code)
    records = runs(out) if out is not None and out.exists() else None
    rows = estimate(plan, probe_seconds=probe_seconds, records=records)
    columns = ("environment", "subject", "runs", "seconds a run", "basis", "hours")
    table = _table(f"{plan.name}: {len(plan.tasks)} runs", columns, ("environment", "subject", "basis"))
    for row in rows:
        seconds = "-" if row.seconds is None else f"{row.seconds:,.2f}"
        hours = "-" if row.total is None else f"{row.total / 3600:.3f}"
        _add(table, row.environment, row.subject, str(row.runs), seconds, row.basis, hours)
    console = _console()
    console.print(table)
    workers = max(1, default_jobs(plan.threads) if jobs is None else jobs)
    more = " and what is not known" if any(row.seconds is None for row in rows) else ""
    console.print(f"about {_duration(wall_seconds(rows, workers))}{more} with {workers} at a time", soft_wrap=True)
    if records is not None and len(records):
        done = int(records["run"].isin([task.configuration.hash for task in plan.tasks]).sum())
        console.print(f"{done} of {len(plan.tasks)} have a record in {out}", soft_wrap=True)


@sweep_app.command("run")
def run(
    file: SweepFile,
    out: Annotated[Path, typer.Option(help="Folder of the sweep; what it holds already is not run again.")],
    jobs: Jobs = None,
    engine: Annotated[Engine, typer.Option(help="Worker processes here, or a Ray cluster.")] = Engine.local,
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster: auto, or host:port.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed runs again.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only runs whose hash begins so; repeatable.")] = None,
    strict_code: StrictCode = False,
) -> None:
    """Run what is missing. Stop it any way you like and start it again: it goes on where it was.

    Exit code 1 when runs failed (their tracebacks are in FOLDER/failed), 130 after Ctrl-C.
    """
    from orl.bench.description import read_sweep
    from orl.bench.runner import run_sweep

    if address is not None and engine is not Engine.ray:
        raise InputError(
            "only a Ray cluster has one", field="--address", value=address, expected="--engine ray beside it"
        )
    plan = read_sweep(file, strict_code=strict_code)
    console = _console()
    done = run_sweep(
        plan,
        out,
        jobs=jobs,
        engine=engine.value,
        address=address,
        retry_failed=retry_failed,
        only=only,
        console=Console(stderr=True),
    )
    if done.done_before + done.done:
        _print_summary(console, out)
    parts = [f"{done.done} done", f"{done.done_before} done before", f"{done.failed} failed"]
    if done.failed_before:
        parts.append(f"{done.failed_before} failed before")
    left = done.total - done.done - done.done_before - done.failed - done.failed_before
    if left:
        parts.append(f"{left} left")
    console.print(f"{', '.join(parts)}; {_duration(done.seconds)}; records in {out}", soft_wrap=True)
    if done.failed or done.failed_before:
        console.print(f"tracebacks: {out / 'failed'}; again with --retry-failed", soft_wrap=True)
    if done.interrupted:
        console.print("ended by Ctrl-C; the same command goes on", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if done.failed or done.failed_before:
        raise typer.Exit(1)


@sweep_app.command("status")
def status(folder: Annotated[Path, typer.Argument(help="Folder of a sweep.")]) -> None:
    """How far a sweep is: runs done, failed and left, by environment and subject."""
    from orl.bench.store import plan, runs

    planned = plan(folder)
    states = runs(folder).set_index("run")["state"].to_dict()
    counts: dict[tuple[str, str], list[int]] = {}
    for name, labels in planned["tasks"].items():
        place = ("done", "failed").index(states[name]) if name in states else 2
        counts.setdefault((labels["environment"], labels["subject"]), [0, 0, 0])[place] += 1
    table = _table(str(folder), ("environment", "subject", "done", "failed", "left"), ("environment", "subject"))
    for (environment, subject), numbers in counts.items():
        _add(table, environment, subject, *map(str, numbers))
    _console().print(table)


@sweep_app.command("report")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write [FOLDER/report.FORMAT].")] = None,
    format: Annotated[Format | None, typer.Option(help="Form [by the suffix of the file, else html].")] = None,
) -> None:
    """Write tables, curves, profiles, pictures, failures and every run's configuration into one file."""
    from orl.bench.report import write_report

    if format is None:
        suffix = "html" if out is None else out.suffix.lstrip(".").lower()
        if suffix not in set(Format):
            expected = "one of .html, .md, .csv, or --format"
            raise InputError("unknown format", field="--out", value=str(out), expected=expected)
        format = Format(suffix)
    target = folder / f"report.{format.value}" if out is None else out
    require_writable(target, "--out")
    write_report(folder, target, format=format.value)
    _console().print(f"written: {target}", soft_wrap=True)


def _print_summary(console: Console, folder: Path) -> None:
    """One row an environment and subject: runs, interquartile mean with its interval, gap to the bound, seconds."""
    from orl.bench.store import load
    from orl.bench.summaries import summary

    rows: list[dict[Any, Any]] = summary(load(folder)).to_dict("records")
    columns = ("environment", "subject", "runs", "value", "IQM", "interval", "gap", "seconds")
    title = "interquartile mean (IQM) over runs, each the mean of its instances and episodes; 95 % interval"
    table = _table(title, columns, ("environment", "subject", "value"))
    for row in rows:
        interval = f"{_figure(row['low'])} .. {_figure(row['high'])}" if row["n_runs"] > 1 else "-"
        gap = "-" if row["gap"] != row["gap"] else f"{100 * row['gap']:.2f} %"
        figures = (str(row["n_runs"]), row["value"], _figure(row["iqm"]), interval, gap, _figure(row["seconds"]))
        _add(table, row["environment"], row["subject"], *figures)
    console.print(table)


def _figure(value: float) -> str:
    if value != value:
        return "-"
    return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.1f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
