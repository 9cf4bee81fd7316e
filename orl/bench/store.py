"""Reading the folder of a sweep: one table of all evaluation episodes, one of all runs, single curves and records.

Everything is a plain file (:mod:`orl.bench.record`); these functions only gather. Labels come from ``sweep.json``, so
that a subject that is renamed in the sweep file is renamed in every table without being run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orl.bench.record import CURVE_FIELDS, PLAN_SCHEMA, SCHEMA, Folder
from orl.common.errors import InputError, UnknownNameError
from orl.common.evaluation import COLUMNS as EVALUATION_COLUMNS
from orl.common.evaluation import FIGURES
from orl.common.json_files import read_json

if TYPE_CHECKING:
    import pandas

SCHEMAS = (SCHEMA,)
"""Schemas of records that can be read; all have the same keys so far."""
LARGEST = 2**28
"""Bytes of a record, plan or curve that is read."""

_RUN: dict[str, str] = {
    "sweep": "str",
    "run": "str",
    "environment": "str",
    "env_id": "str",
    "kind": "str",
    "subject": "str",
    "key": "str",
    "run_seed": "int64",
    "steps": "Int64",
    "run_seconds": "float64",
    "run_cpu_seconds": "float64",
    "peak_memory_mb": "float64",
    "resumed": "Int64",
    "exact": "boolean",
}
_EPISODE: dict[str, str] = dict.fromkeys(EVALUATION_COLUMNS, "str") | {
    "episode": "int64",
    "seed": "int64",
    **dict.fromkeys(FIGURES, "float64"),
    "checked": "boolean",
    "illegal_actions": "Int64",
    "interrupted": "bool",
}
_STATE = {"state": "str", "error": "str", "started": "str", "orl": "str", "commit": "str"}
COLUMNS = tuple(dict.fromkeys((*_RUN, *_EPISODE)))
"""Columns of :func:`load`: of the run, then those of :func:`orl.evaluate`."""
RUN_COLUMNS = (*_RUN, *_STATE)
"""Columns of :func:`runs`."""

FolderName = str | os.PathLike[str]


def load(folders: FolderName | Sequence[FolderName], *, everything: bool = False) -> pandas.DataFrame:
    """One row an evaluation episode of every finished run, whatever the subject: the columns are :data:`COLUMNS`.

    ``run_seed`` is the seed of the run, ``seed`` that of the episode; ``run_seconds`` and ``run_cpu_seconds`` are those
    of the whole run, ``seconds`` and ``cpu_seconds`` those of the episode (all in seconds); ``peak_memory_mb`` is in
    MiB. Runs stand in the order of the plan. Curves are not opened.

    Args:
        folders: Folder of a sweep, or several.
        everything: Also records that the current plan does not name; they come last, with their own labels.

    Raises:
        InputError: no sweep in a folder; a file that cannot be read, is no record, or is one of a newer orl.
    """
    listed = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    own = [name for name in EVALUATION_COLUMNS if name not in _RUN]
    for folder in listed:
        for path, values, data in _finished(Folder(Path(folder)), everything):
            rows = _field(data, "rows", path)
            for name, value in values.items():
                columns[name].extend([value] * len(rows))
            for name in own:
                try:
                    columns[name].extend([row[name] for row in rows])
                except (KeyError, TypeError) as error:
                    raise InputError("a row without this field", source=str(path), field=name) from error
    return _table(columns, {**_EPISODE, **_RUN})


def runs(folder: FolderName) -> pandas.DataFrame:
    """One row a run of the current plan that has ended, failed ones too: the columns are :data:`RUN_COLUMNS`.

    ``state`` is ``done`` or ``failed``; ``error`` is what a failed run raised, on one line, empty otherwise (its
    traceback stands in :func:`read_record`).

    Raises:
        InputError: as in :func:`load`.
    """
    place = Folder(Path(folder))
    planned = plan(folder)
    columns: dict[str, list[Any]] = {name: [] for name in RUN_COLUMNS}
    for run, labels in planned["tasks"].items():
        path = next((path for path in (place.record(run), place.failure(run)) if path.exists()), None)
        if path is None:
            continue
        data = _read_record(path)
        configuration = _field(data, "configuration", path)
        error = data.get("error")
        values = _run_values(data, path, planned["name"], labels) | {
            "state": _field(data, "state", path),
            "error": " ".join(f"{error['type']}: {error['message']}".split()) if error else "",
            "started": data.get("started") or "",
            "orl": str(configuration.get("orl")),
            "commit": (data.get("git") or {}).get("commit") or "",
        }
        for name, value in values.items():
            columns[name].append(value)
    return _table(columns, _RUN | _STATE)


def curve(folder: FolderName, run: str) -> pandas.DataFrame:
    """The learning curve of a run, one row an evaluation; no rows for runs that do not learn.

    The columns are :data:`orl.bench.record.CURVE_FIELDS`: ``steps``, ``seconds`` and ``cpu_seconds`` of training so
    far, and the lists ``returns`` and ``objectives`` (None where there is none) of the evaluation's episodes.

    Args:
        folder: Folder of the sweep.
        run: Name of the run, or its beginning.

    Raises:
        UnknownNameError: no such run. InputError: the file cannot be read.
    """
    import pandas

    table = pandas.DataFrame(curve_points(folder, run), columns=list(CURVE_FIELDS))
    return table.astype({"steps": "int64", "seconds": "float64", "cpu_seconds": "float64"})


def curve_points(folder: FolderName, run: str) -> list[dict[str, Any]]:
    """The rows of :func:`curve` as dicts, which is quicker for thousands of runs; raises the same errors."""
    place = Folder(Path(folder))
    path = place.curve(_find(place, run).stem)
    points: list[dict[str, Any]] = []
    if not path.exists():
        return points
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError("cannot be read", source=str(path), value=str(error)) from error
    for number, line in enumerate(lines, 1):
        try:
            point = json.loads(line)
            points.append({name: point[name] for name in CURVE_FIELDS})
        except (ValueError, KeyError, TypeError) as error:
            expected = f"a JSON object with {', '.join(CURVE_FIELDS)}"
            raise InputError("no point of a curve", source=str(path), line=number, expected=expected) from error
    return points


def read_record(folder: FolderName, run: str) -> dict[str, Any]:
    """The record of a run, finished or failed, as it was written.

    Args:
        folder: Folder of the sweep.
        run: Name of the run, or its beginning.

    Raises:
        UnknownNameError: no such run. InputError: the file cannot be read, or is of a newer orl.
    """
    return _read_record(_find(Folder(Path(folder)), run))


def plan(folder: FolderName) -> dict[str, Any]:
    """What ``sweep.json`` says: ``name``, ``source``, ``tasks`` (labels by run), ``scales``, ``threads``, ``versions``.

    Raises:
        InputError: there is none, or it is of a newer orl.
    """
    path = Folder(Path(folder)).plan
    if not path.exists():
        raise InputError("no sweep here", source=str(folder), expected="the folder of `orl sweep run --out`")
    data = read_json(path, largest=LARGEST, expected="the plan of a sweep")
    _require_schema(data, path, (PLAN_SCHEMA,))
    for key in ("name", "tasks", "scales"):
        _field(data, key, path)
    return dict(data)


# ---- records ---------------------------------------------------------------------------------------------------------
def _finished(folder: Folder, everything: bool) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Path, values of the run's columns and data of each record."""
    records = folder.root / "records"
    there = {name.removesuffix(".json") for name in os.listdir(records)} if records.is_dir() else set()
    labels: dict[str, Any] = {}
    name = folder.root.absolute().name
    if folder.plan.exists() or not everything or not there:
        planned = plan(folder.root)
        labels, name = planned["tasks"], planned["name"]
    named = [run for run in labels if run in there]
    others = sorted(path.stem for path in records.glob("[!.]*.json") if path.stem not in labels) if everything else []
    for run in (*named, *others):
        path = folder.record(run)
        data = _read_record(path)
        yield path, _run_values(data, path, name, labels.get(run)), data


def _run_values(data: dict[str, Any], path: Path, sweep: str, labels: dict[str, str] | None) -> dict[str, Any]:
    configuration = _field(data, "configuration", path)
    subject = _field(configuration, "subject", path)
    shown = labels or data
    return {
        "sweep": sweep,
        "run": _field(data, "run", path),
        "environment": _field(shown, "environment", path),
        "env_id": _field(_field(configuration, "environment", path), "id", path),
        "kind": _field(subject, "kind", path),
        "subject": _field(shown, "subject", path),
        "key": _field(subject, "key", path),
        "run_seed": _field(configuration, "seed", path),
        "steps": data.get("steps"),
        "run_seconds": data.get("seconds"),
        "run_cpu_seconds": data.get("cpu_seconds"),
        "peak_memory_mb": data.get("peak_memory_mb"),
        "resumed": data.get("resumed"),
        "exact": data.get("exact"),
    }


def _find(folder: Folder, run: str) -> Path:
    """The record (or failure) of the one run that begins with ``run``."""
    for path in (folder.record(run), folder.failure(run)):
        if path.exists():
            return path
    found: dict[str, Path] = {}
    for kind in ("failed", "records"):
        found |= {path.stem: path for path in (folder.root / kind).glob("[!.]*.json")}
    matches = [name for name in found if run and name.startswith(run)]
    if len(matches) != 1:
        raise UnknownNameError("run", run, matches or found)
    return found[matches[0]]


def _read_record(path: Path) -> dict[str, Any]:
    data = read_json(path, largest=LARGEST, expected="a record of a run")
    _require_schema(data, path, SCHEMAS)
    return dict(data)


def _require_schema(data: Any, path: Path, known: tuple[str, ...]) -> None:
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema in known:
        return
    kind, _, version = str(schema).partition("/")
    ours, _, newest = known[-1].partition("/")
    newer = kind == ours and version.isdigit() and int(version) > int(newest)
    problem = "written by a newer orl, which is needed to read it" if newer else "not what it should be"
    raise InputError(problem, source=str(path), field="schema", value=schema, expected=" or ".join(known))


def _field(data: Any, key: str, path: Path) -> Any:
    try:
        return data[key]
    except (KeyError, TypeError) as error:
        raise InputError("missing", source=str(path), field=key) from error


def _table(columns: dict[str, list[Any]], types: dict[str, str]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame({name: pandas.Series(values, dtype=types[name]) for name, values in columns.items()})
