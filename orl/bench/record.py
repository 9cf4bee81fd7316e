"""The record of a run: what is written, where, and in which order.

Folder of a sweep::

    sweep.yaml            the sweep file as it was at the last start
    sweep.json            names, labels and hashes of the plan (orl.sweep-plan/1)
    records/HASH.json     one finished run each (orl.record/1), written whole, last of its files
    failed/HASH.json      one failed run each, with its traceback (orl.record/1, state "failed")
    curves/HASH.jsonl     learning curve: one JSON object an evaluation (see CURVE_FIELDS)
    solutions/HASH.json   best checked solution    pictures/HASH.svg   its picture
    models/HASH.zip       trained model            tensorboard/HASH/   logs, on request
    work/HASH/            checkpoint of a run in flight; gone when the record is there

A record stands alone: it holds the whole configuration, versions, machine and one row an evaluation episode with the
columns of :func:`orl.evaluate`. Nobody needs orl to read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orl.common.atomic import atomic_path, write_json

SCHEMA = "orl.record/1"
PLAN_SCHEMA = "orl.sweep-plan/1"
CURVE_FIELDS = ("steps", "seconds", "cpu_seconds", "returns", "objectives")
"""Of a line of a learning curve: steps done, wall and CPU seconds of training so far (evaluation excluded), and the
return and (or null) objective of each evaluation episode, instances one after the other."""
KINDS = ("curves", "solutions", "pictures", "models")


@dataclass(frozen=True)
class Folder:
    """Paths in the folder of a sweep."""

    root: Path

    def record(self, name: str) -> Path:
        return self.root / "records" / f"{name}.json"

    def failure(self, name: str) -> Path:
        return self.root / "failed" / f"{name}.json"

    def curve(self, name: str) -> Path:
        return self.root / "curves" / f"{name}.jsonl"

    def work(self, name: str) -> Path:
        return self.root / "work" / name

    @property
    def plan(self) -> Path:
        return self.root / "sweep.json"

    @property
    def file(self) -> Path:
        return self.root / "sweep.yaml"


@dataclass(frozen=True)
class Outcome:
    """What executing a run gives: its record and the files beside it, not yet written.

    Attributes:
        record: JSON data. Keys: ``schema, run, sweep (its name), state ("done"), environment, subject, kind,
            configuration, versions, git, machine, started (ISO 8601, UTC), seconds, cpu_seconds, peak_memory_mb, steps
            (None for rules and solvers), resumed (times it went on from a checkpoint), exact (False when resuming may
            have changed the result), rows (list of dicts with the columns of :func:`orl.evaluate`; NaN, infinite and
            missing values are null), files (list of the paths below)``.
        files: Content of the files beside it, by path relative to the folder of the sweep.
    """

    record: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


def write_outcome(folder: Folder, outcome: Outcome) -> None:
    """Write the files, then the record: a record that is there is complete.

    Raises:
        OSError: a file cannot be written, on a full disk for instance; the error names it.
    """
    for path, content in outcome.files.items():
        with _naming(folder.root / path), atomic_path(folder.root / path) as temporary:
            temporary.write_bytes(content)
    name = str(outcome.record["run"])
    with _naming(folder.record(name)):
        write_json(folder.record(name), outcome.record, indent=1)
    folder.failure(name).unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an OSError name this file: the system names the temporary one, or none at all when the disk is full."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
