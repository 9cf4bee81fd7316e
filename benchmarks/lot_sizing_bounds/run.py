"""Plans and bounds with perfect information: our decomposition, HiGHS and CP-SAT on the same demand paths.

python benchmarks/lot_sizing_bounds/run.py            # full run, up to 25 minutes on one thread, resumable
python benchmarks/lot_sizing_bounds/run.py --quick    # two paths with short limits, within a minute
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

from orl.envs.lot_sizing import library  # noqa: E402
from orl.solvers.lot_sizing.perfect_information import PerfectInformation  # noqa: E402

FOLDER = Path(__file__).resolve().parent
RUNS, ENVIRONMENT = FOLDER / "results" / "runs.csv", FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

METHODS = {
    "default": PerfectInformation(),
    "default, cp-sat": PerfectInformation(backend="cp-sat"),
    "compact, HiGHS": PerfectInformation(formulation="compact", relax_machines=False),
    "compact, CP-SAT": PerfectInformation(formulation="compact", relax_machines=False, backend="cp-sat"),
    "relaxed, HiGHS": PerfectInformation(exact=False),
}
SMALL, LARGE = ("ls-4x2-t20", 60.0), ("ls-15x5-s0-t20", 120.0)
FULL = [(*SMALL, seed, method) for method in ("default", "default, cp-sat") for seed in range(10)]
FULL += [(*SMALL, seed, method) for method in list(METHODS)[2:] for seed in range(3)]
FULL += [(*LARGE, seed, method) for method in ("default", "default, cp-sat") for seed in range(5)]
FULL += [(*LARGE, seed, method) for method in list(METHODS)[2:] for seed in range(2)]
FULL += [("ls-15x5-s0", 120.0, seed, "default") for seed in range(2)]
FULL += [("ls-4x2", 120.0, 0, "default")]
QUICK = [("ls-4x2-t20", 8.0, 0, method) for method in METHODS]
QUICK += [("ls-15x5-s0-t20", 6.0, 0, method) for method in ("default", "relaxed, HiGHS")]
TOLERANCE = 1e-6


def measure_run(name: str, limit: float, seed: int, method: str) -> dict[str, Any]:
    """Solve one path once; a plan that the checker prices otherwise ends the benchmark."""
    scenario = library.load(name).scenario(seed)
    result = METHODS[method].solve(scenario, time_limit=limit)
    check = scenario.check(result.solution)
    if not check.feasible or abs(check.objective - result.objective) > TOLERANCE:
        raise SystemExit(f"{scenario.name}, {method}: the checker says {check}, the solver {result.objective}")
    return {
        "instance": name,
        "path": seed,
        "method": method,
        "limit_s": limit,
        "status": result.status,
        "plan": result.objective,
        "bound": result.bound,
        "seconds": result.seconds,
    }


def summary(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One line an instance and method: mean and worst gaps, paths proved, seconds; contradictions end the run."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        path = (row["instance"], row["path"])
        best[path] = min(best.get(path, float("inf")), float(row["plan"]))
    lines = []
    for instance, method in dict.fromkeys((row["instance"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["instance"], row["method"]) == (instance, method)]
        gaps, below = [], []
        for row in mine:
            plan, bound, known = float(row["plan"]), float(row["bound"]), best[instance, row["path"]]
            if bound > known * (1 + 1e-5):
                raise SystemExit(
                    f"{instance}, path {row['path']}: the bound {bound} of {method} exceeds a plan of {known}"
                )
            gaps.append(100 * (plan - bound) / bound)
            below.append(100 * (known - bound) / known)
        lines.append(
            {
                "instance": instance,
                "method": method,
                "limit_s": mine[0]["limit_s"],
                "paths": len(mine),
                "proved": sum(row["status"] == "optimal" for row in mine),
                "mean gap_percent": sum(gaps) / len(gaps),
                "worst gap_percent": max(gaps),
                "mean bound_percent": sum(below) / len(below),
                "mean seconds": sum(float(row["seconds"]) for row in mine) / len(mine),
            }
        )
    return lines


def figures(rows: list[dict[str, str]]) -> dict[str, Any]:
    """The figures of the RESULT line: worst gaps of the default and of HiGHS and CP-SAT alone."""
    short = {"ls-4x2-t20": "4x2_t20", "ls-15x5-s0-t20": "15x5_t20", "ls-15x5-s0": "15x5_t100", "ls-4x2": "4x2_t100"}
    out: dict[str, Any] = {}
    for line in summary(rows):
        key = f"{short[line['instance']]}_{line['method'].replace(', ', '_').replace('-', '_').lower()}"
        out[f"worst_gap_percent_{key}"] = line["worst gap_percent"]
        out[f"proved_{key}"] = f"{line['proved']}/{line['paths']}"
    return out


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "highspy", "ortools")


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    PerfectInformation().solve(library.load("ls-2x1-t6/scenario-0"), time_limit=1.0)  # compiles the kernels
    if options.quick:
        rows = [{k: str(v) for k, v in measure_run(*job).items()} for job in QUICK]
    else:
        if options.fresh:
            RUNS.unlink(missing_ok=True)
            ENVIRONMENT.unlink(missing_ok=True)
        measure.same_machine(ENVIRONMENT, environment(), "highspy", "ortools")
        done = {(row["instance"], row["path"], row["method"]) for row in measure.read_rows(RUNS)}
        for name, limit, seed, method in FULL:
            if (name, str(seed), method) not in done:
                print(name, seed, method, flush=True)
                measure.append_row(RUNS, measure_run(name, limit, seed, method))
        rows = measure.read_rows(RUNS)
        note = measure.describe(measure.read_json(ENVIRONMENT))
        measure.write_between_markers(README, "table", f"{measure.table(summary(rows))}\n\n{note}")
    print(measure.table(summary(rows)))
    print(measure.describe(environment()))
    measure.print_result(**figures(rows))


if __name__ == "__main__":
    main()
