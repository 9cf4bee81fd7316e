"""What CP-SAT proves in a minute of wall time: ft10, ta01, and no bound above a best known makespan.

    python benchmarks/job_shop_cp_sat/run.py            # full run, about 20 minutes on two cores, resumable
    python benchmarks/job_shop_cp_sat/run.py --quick    # shorter limits, within a minute

Times are wall seconds, so the machine should be idle; the CPU seconds used stand beside. The solver is our default: 8
workers whatever the machine has, started from a short tabu search.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

from orl.envs.job_shop import library
from orl.solvers.job_shop.cp_sat import CpSat
from orl.solvers.job_shop.tabu_search import TabuSearch

FOLDER = Path(__file__).resolve().parent
RUNS, ENVIRONMENT = FOLDER / "results" / "runs.csv", FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

ARMS = {
    "default": CpSat(),
    "no hint": CpSat(auto_hint=False),
    "2 workers": CpSat(num_workers=2, auto_hint=False),
}
FULL = [(name, arm, 60.0) for name in ("ft10", "ta01") for arm in ARMS]
FULL += [(name, arm, 60.0) for name in ("ta11", "ta21", "ta31", "ta41", "ta51", "ta61", "ta71") for arm in ("default",)]
FULL += [(name, "default", 10.0) for name in ("ft06", "ft20", "tai4_4_01", "dmu01", "dmu41", "dmu80")]
QUICK = [("ft10", "default", 35.0), ("ta01", "default", 12.0), ("ta41", "default", 2.0), ("dmu41", "default", 2.0)]


def measure_run(name: str, arm: str, limit: float) -> dict[str, Any]:
    """Solve once; a bound above the best known makespan, or a makespan below its bound, ends the benchmark."""
    instance = library.load(name)
    known = instance.best_known()
    assert known is not None
    cpu = time.process_time()
    result = ARMS[arm].solve(instance, time_limit=limit)
    cpu = time.process_time() - cpu
    assert result.objective is not None
    assert result.bound is not None
    check = instance.check(result.solution)
    if not check.feasible or check.objective != result.objective:
        raise SystemExit(f"{name}: the schedule does not pass the checker: {check.violations[:1]}")
    bounds = [p.bound for p in result.log if p.bound is not None] + [result.bound]
    if max(bounds) > known.upper or result.objective < known.lower:
        raise SystemExit(f"{name}: bound {max(bounds)} or makespan {result.objective} contradicts {known}")
    return {
        "instance": name,
        "solver": arm,
        "limit_s": limit,
        "status": result.status,
        "makespan": int(result.objective),
        "bound": int(result.bound),
        "best_known": int(known.upper),
        "gap_percent": 100 * (result.objective / known.upper - 1),
        "proved_gap_percent": 100 * (result.objective - result.bound) / result.bound,
        "wall_seconds": result.seconds,
        "cpu_seconds": cpu,
    }


def figures(rows: list[dict[str, str]]) -> dict[str, Any]:
    """The figures of the RESULT line: our default on ft10 and ta01."""
    out: dict[str, Any] = {}
    for row in rows:
        if row["solver"] == "default" and row["instance"] in ("ft10", "ta01"):
            name = row["instance"]
            out[f"{name}_status"] = row["status"]
            out[f"{name}_makespan"], out[f"{name}_bound"] = int(row["makespan"]), int(row["bound"])
            out[f"{name}_gap_percent"] = float(row["gap_percent"])
            out[f"{name}_seconds"] = float(row["wall_seconds"])
    out["bounds_above_best_known"] = sum(int(row["bound"]) > int(row["best_known"]) for row in rows)
    return out


def shown(rows: list[dict[str, str]]) -> str:
    """The table that is printed and stands in the README."""
    integers, floats = ("makespan", "bound", "best_known"), ("gap_percent", "wall_seconds", "cpu_seconds")
    return measure.table(
        [
            {k: row[k] for k in ("instance", "solver", "limit_s", "status")}
            | {k: int(row[k]) for k in integers}
            | {k: float(row[k]) for k in floats}
            for row in rows
        ]
    )


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "ortools")


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    TabuSearch(iterations=1).solve(library.load("ft06"))  # compiles the kernel behind the hint
    if options.quick:
        rows = [{k: str(v) for k, v in measure_run(*job).items()} for job in QUICK]
    else:
        if options.fresh:
            RUNS.unlink(missing_ok=True)
            ENVIRONMENT.unlink(missing_ok=True)
        measure.same_machine(ENVIRONMENT, environment(), "ortools")
        done = {(row["instance"], row["solver"]) for row in measure.read_rows(RUNS)}
        for name, arm, limit in FULL:
            if (name, arm) not in done:
                print(name, arm, flush=True)
                measure.append_row(RUNS, measure_run(name, arm, limit))
        rows = measure.read_rows(RUNS)
        note = measure.describe(measure.read_json(ENVIRONMENT))
        measure.write_between_markers(README, "table", f"{shown(rows)}\n\n{note}")
    print(shown(rows))
    print(measure.describe(environment()))
    measure.print_result(**figures(rows))


if __name__ == "__main__":
    main()
