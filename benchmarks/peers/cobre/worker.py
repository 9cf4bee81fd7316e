"""SDDP of cobre-python, one JSON request a line.

``{"op": "load", "tables": {path: JSON data, or for .parquet a list for each column}}``
    Writes the case into a folder of its own; ``valid``, ``errors``, ``versions``.
``{"op": "train", "config": {...}}``
    Trains with this ``config.json`` on one thread: ``bounds`` float[I] after each iteration, ``cpu_seconds`` and
    ``wall_seconds`` from the end of the first iteration to the end of the last.
"""

import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from serve import ANSWERS

# isort: split
import cobre
import polars


def column_type(name: str) -> Any:
    if name in ("opening_index", "entity_index"):
        return polars.UInt32
    return polars.Int32 if name.endswith("_id") else polars.Float64


def load(folder: Path, tables: dict[str, Any]) -> dict[str, Any]:
    for path, data in tables.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".json"):
            target.write_text(json.dumps(data))
        else:
            polars.DataFrame(data, schema={name: column_type(name) for name in data}).write_parquet(target)
    verdict = cobre.io.validate(str(folder))
    versions = {package: importlib.metadata.version(package) for package in ("cobre-python", "polars")}
    return {
        "valid": verdict["valid"],
        "errors": verdict["errors"],
        "versions": {"python": platform.python_version(), "solver of cobre": cobre.version_info()["solver"]} | versions,
    }


def train(folder: Path, output: Path, config: dict[str, Any]) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(config))
    bounds: list[float] = []
    clocks: list[tuple[float, float]] = []

    def note(event: dict[str, Any]) -> None:
        bounds.append(event["lower_bound"])
        clocks.append((time.process_time(), time.perf_counter()))

    cobre.run.run(str(folder), str(output), threads=1, on_iteration=note)
    cpu, wall = (clocks[-1][k] - clocks[0][k] for k in (0, 1))
    return {"bounds": bounds, "cpu_seconds": cpu, "wall_seconds": wall}


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, output = Path(place) / "case", Path(place) / "output"
        for line in sys.stdin:
            request = json.loads(line)
            op = request.pop("op")
            if op == "load":
                answer = load(folder, **request)
            elif op == "train":
                answer = train(folder, output, **request)
            else:
                raise ValueError(f"unknown request {op!r}")
            ANSWERS.write(json.dumps(answer) + "\n")
            ANSWERS.flush()


if __name__ == "__main__":
    main()
