"""Files of cuts: what SDDP learned, as versioned JSON that fits one problem and one set of options."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orl.common.atomic import write_json
from orl.common.errors import InputError
from orl.common.json_files import read_json
from orl.envs.hydrothermal.instance import HydrothermalInstance
from orl.solvers.hydrothermal.cuts import CutPool

SCHEMA = "orl.hydrothermal.cuts/1"
LARGEST_FILE = 1 << 30


@dataclass(frozen=True, eq=False)
class Progress:
    """Which problem the cuts belong to, under which options they hold, and the work so far."""

    instance: HydrothermalInstance
    options: dict[str, Any]
    iterations: int
    lps: int
    seconds: float


def write_cuts(path: str | os.PathLike[str], progress: Progress, stages: Sequence[CutPool | None]) -> None:
    """Write the cuts of all stages, whole or not at all; None for a stage without a future."""
    data = {
        "schema": SCHEMA,
        "instance": progress.instance.name,
        "digest": _digest(progress.instance),
        "options": progress.options,
        "iterations": progress.iterations,
        "lps": progress.lps,
        "seconds": progress.seconds,
        "stages": [None if cuts is None else cuts.to_json() for cuts in stages],
    }
    write_json(path, data, indent=None)


def read_cuts(path: str | os.PathLike[str], expected: Progress, stages: Sequence[CutPool | None]) -> Progress:
    """Fill empty pools from a file; the counts of ``expected`` are not compared, those of the file are returned.

    Raises:
        InputError: Not a file of cuts, or one of another problem or other options. Some pools may be filled by then.
    """
    source = os.fspath(path)
    data = read_json(Path(path), largest=LARGEST_FILE, expected="the cuts of an SDDP policy as JSON")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        value = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise InputError("not the cuts of an SDDP policy", source=source, field="schema", value=value, expected=SCHEMA)
    if data.get("digest") != _digest(expected.instance):
        name, value = expected.instance.name, data.get("instance")
        raise InputError(
            "cuts of another problem", source=source, field="instance", value=value, expected=f"the data of {name}"
        )
    if data.get("options") != expected.options:
        wanted = json.dumps(expected.options)
        raise InputError(
            "cuts of other options", source=source, field="options", value=data.get("options"), expected=wanted
        )
    found, iterations, lps, seconds = (data.get(key) for key in ("stages", "iterations", "lps", "seconds"))
    if not isinstance(found, list) or len(found) != len(stages):
        raise InputError("bad cuts", source=source, field="stages", expected=f"a list of {len(stages)}")
    if not (isinstance(iterations, int) and isinstance(lps, int) and isinstance(seconds, int | float)):
        raise InputError("bad counts", source=source, field="iterations, lps, seconds", expected="numbers")
    for t, (pool, cuts) in enumerate(zip(stages, found, strict=True)):
        if pool is not None:
            pool.read_json(cuts, source, f"stages[{t}]")
    return replace(expected, iterations=iterations, lps=lps, seconds=float(seconds))


def _digest(instance: HydrothermalInstance) -> str:
    """A checksum of what cuts depend on."""
    data = {key: value for key, value in instance.to_json().items() if key not in ("name", "initial_volume")}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
