"""What every benchmark shares: clocks, interleaving, result files, README tables, the machine, the RESULT line.

A benchmark's ``run.py`` puts this folder on ``sys.path`` and imports the module by name::

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import measure

Only the standard library is imported here, so that ``limit_threads`` can run before numpy and its linear algebra load.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


# ---- the run ---------------------------------------------------------------------------------------------------------
def limit_threads(n: int = 1) -> None:
    """Let numerical libraries of this process and its children use ``n`` threads; call it before importing numpy."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(n)


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """The options every benchmark has: ``--quick`` (ends within a minute) and ``--fresh`` (forget earlier results)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short run within a minute; writes no results")
    parser.add_argument("--fresh", action="store_true", help="delete earlier results of the full run and start anew")
    return parser


def print_result(**figures: Any) -> None:
    """Print the last line of a benchmark: ``RESULT`` and one JSON object; floats have 6 significant digits."""
    sys.stdout.flush()
    print("RESULT " + json.dumps({key: _rounded(value) for key, value in figures.items()}), flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, bool | int | str) or value is None:
        return value
    return float(f"{float(value):.6g}")


# ---- clocks and statistics -------------------------------------------------------------------------------------------
def interleaved(contenders: Mapping[str, Callable[[], Any]], repetitions: int) -> Iterator[tuple[int, str, Any]]:
    """Measure every contender once a round, in turn, so that a change of the machine's load meets all of them.

    Yields ``(repetition, name, sample)`` as soon as the sample is there. Uneven rounds go backwards, so that no
    contender always follows the same one.
    """
    names = list(contenders)
    for repetition in range(repetitions):
        for name in names if repetition % 2 == 0 else reversed(names):
            yield repetition, name, contenders[name]()


def median(values: Iterable[float]) -> float:
    """Median; NaN when there is no value."""
    listed = list(values)
    return statistics.median(listed) if listed else float("nan")


def spread(values: Iterable[float]) -> float:
    """(largest - smallest) / median: how far repetitions lie apart; NaN when there is no value."""
    listed = list(values)
    return (max(listed) - min(listed)) / statistics.median(listed) if listed else float("nan")


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024.0**2 if sys.platform == "darwin" else 1024.0)
    # Not ru_maxrss: on Linux a child process starts from its parent's.
    return int(status.split("VmHWM:")[1].split()[0]) / 1024.0


# ---- the machine -----------------------------------------------------------------------------------------------------
def machine() -> dict[str, Any]:
    """Processor, cores, memory (GiB), system, Python and the load when asked (1-minute average)."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each distribution, ``not installed`` where it is missing."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def today() -> str:
    """The date, as ``2026-01-31``."""
    return datetime.date.today().isoformat()


def describe(environment: Mapping[str, Any]) -> str:
    """One line of Markdown from what :func:`machine`, :func:`versions` and :func:`today` gave, merged in one dict."""
    return " · ".join(f"{key} {value}" for key, value in environment.items())


# ---- result files ----------------------------------------------------------------------------------------------------
def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV file as dicts of strings; no rows when the file is missing."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV file, made with a header when missing; raises ValueError when the columns differ.

    The file is flushed to disk with every row, so that a run that was stopped can go on (see :func:`complete_rounds`).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    if not is_new:
        with path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
        if header != list(row):
            raise ValueError(f"{path.name}: columns are {header}, the new row has {list(row)}")
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow({key: _written(value) for key, value in row.items()})
        file.flush()
        os.fsync(file.fileno())


def _written(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def complete_rounds(path: str | Path, contenders: Iterable[str], **where: str) -> int:
    """Rounds that a stopped run has finished; the rows of a round that it had begun are removed.

    Rows need the columns ``contender`` and ``repetition`` (from 0); ``where`` gives the columns that tell one measured
    case from another.
    """
    rows = read_rows(path)
    case = [row for row in rows if all(row[column] == value for column, value in where.items())]
    found = {(int(row["repetition"]), row["contender"]) for row in case}
    contenders = list(contenders)
    complete = 0
    while all((complete, name) in found for name in contenders):
        complete += 1
    begun = [row for row in case if int(row["repetition"]) >= complete]
    if begun:
        Path(path).unlink()
        for row in rows:
            if not any(row is other for other in begun):
                append_row(path, row)
    return complete


def same_machine(path: str | Path, present: Mapping[str, Any], *keys: str) -> None:
    """Keep ``present`` in a JSON file, or end the run when the file holds results of another machine or version."""
    known = read_json(path)
    for key in ("processor", "cores", "python", *keys):
        if known and known.get(key) != present[key]:
            raise SystemExit(
                f"earlier results come from {key} {known.get(key)}, this is {present[key]}: start anew with --fresh"
            )
    if not known:
        write_json(path, present)


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write indented JSON through a temporary file, so that nothing half-written is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object; empty when the file is missing."""
    path = Path(path)
    if not path.exists():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name}: expected a JSON object, found {type(data).__name__}")
    return data


# ---- tables ----------------------------------------------------------------------------------------------------------
def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A Markdown table, also legible as text: text to the left, figures to the right, missing values empty."""
    columns = list(columns or (rows[0] if rows else []))
    cells = [[_shown(row.get(column)) for column in columns] for row in rows]
    numeric = [all(isinstance(row.get(c), int | float | None) for row in rows) for c in columns]
    width = [max([len(name), 3, *(len(line[i]) for line in cells)]) for i, name in enumerate(columns)]

    def line(parts: Sequence[str]) -> str:
        aligned = [
            part.rjust(size) if right else part.ljust(size)
            for part, size, right in zip(parts, width, numeric, strict=True)
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = [("-" * (size - 1) + ":") if right else "-" * size for size, right in zip(width, numeric, strict=True)]
    return "\n".join([line(columns), line(rule), *(line(c) for c in cells)])


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def write_between_markers(path: str | Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` in a Markdown file.

    Raises ValueError when the file does not hold exactly one such pair, in this order.
    """
    path = Path(path)
    content = path.read_text(encoding="utf-8")
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise ValueError(f"{path.name}: expected one pair of markers '{begin}' ... '{end}'")
    before, rest = content.split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")
