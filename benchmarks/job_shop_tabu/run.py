"""Tabu search on the 80 instances of Taillard (1993) at 1, 10 and 60 CPU-seconds, beside CP-SAT at equal CPU time.

    python benchmarks/job_shop_tabu/run.py            # full run, about an hour and a half, resumable; writes results
    python benchmarks/job_shop_tabu/run.py --quick    # the first instance of each size, two processes, about 40 s

Every run is one row of ``results/runs.csv``; the makespan at each budget is read from the anytime curve of one long
run, whose clock is the CPU time of the process with all its threads. Gaps are to the dated best known makespans of the
instance library.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

from orl.common.problem import Solver
from orl.envs.job_shop import library
from orl.solvers.job_shop.cp_sat import CpSat
from orl.solvers.job_shop.tabu_search import TabuSearch

FOLDER = Path(__file__).resolve().parent
RUNS, ENVIRONMENT = FOLDER / "results" / "runs.csv", FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

ALL = tuple(f"ta{k:02d}" for k in range(1, 81))
FIRST = ALL[::10]  # of each size
BUDGETS = (1, 10, 60)  # CPU-seconds
SEEDS = (0, 1, 2)
PROVED_BY_BOUND = {"ta51": 2760, "ta71": 5464}
SOLVERS: dict[str, Solver] = {
    "tabu-search": TabuSearch(cpu_time=True),
    "tabu-search n5": TabuSearch("n5", cpu_time=True),
    "cp-sat": CpSat(cpu_time=True, auto_hint=False),
}
Job = tuple[str, str, int, int]  # instance, solver, seed, CPU-seconds


def jobs() -> Iterator[Job]:
    """The runs of the full benchmark, those that the claim rests on first."""
    for solver in ("tabu-search", "cp-sat"):
        for name in ALL:
            yield name, solver, 0, 60 if name in FIRST else 10
    for name in FIRST:
        yield name, "tabu-search n5", 0, 10
    for seed in SEEDS[1:]:
        for name in ALL:
            yield name, "tabu-search", seed, 10


def measure_run(job: Job) -> dict[str, Any]:
    """Solve once; the row holds the makespan at every budget that the run covered and is checked by the instance."""
    name, solver, seed, seconds = job
    instance = library.load(name)
    result = SOLVERS[solver].solve(instance, time_limit=seconds, seed=seed)
    best_known = instance.best_known()
    assert best_known is not None
    row: dict[str, Any] = {"instance": name, "solver": solver, "seed": seed, "cpu_seconds": seconds}
    curve = [(p.seconds, p.objective) for p in result.log if p.objective is not None]
    for budget in BUDGETS:
        values = [objective for at, objective in curve if at <= budget] if budget <= seconds else []
        row[f"makespan_{budget}s"] = int(min(values)) if values else ""
    row["best_known"] = int(best_known.upper)
    row["bound"] = "" if result.bound is None else int(result.bound)
    row["last_improvement_s"] = curve[-1][0] if curve else ""
    row["wall_seconds"] = result.seconds
    if result.solution is not None:
        check = instance.check(result.solution)
        if not check.feasible or check.objective != result.objective:
            raise SystemExit(f"{name}, {solver}: the schedule does not pass the checker: {check.violations[:1]}")
        if check.objective < best_known.lower or (result.bound is not None and result.bound > best_known.upper):
            raise SystemExit(
                f"{name}, {solver}: makespan {check.objective} or bound {result.bound} contradicts {best_known}"
            )
    return row


def gaps(rows: list[dict[str, str]], solver: str, budget: int, names: Iterable[str]) -> list[float]:
    """Gaps in per cent, one a run of ``solver`` on an instance of ``names`` that has a makespan at ``budget``."""
    column, wanted = f"makespan_{budget}s", set(names)
    return [
        100 * (int(row[column]) / int(row["best_known"]) - 1)
        for row in rows
        if row["solver"] == solver and row["instance"] in wanted and row[column]
    ]


def mean(values: list[float]) -> float | None:
    """Arithmetic mean; None without values."""
    return sum(values) / len(values) if values else None


def unsolved(rows: list[dict[str, str]], solver: str, budget: int, names: Iterable[str]) -> int:
    """Runs that had no schedule yet at ``budget``."""
    wanted = set(names)
    return sum(
        row["solver"] == solver
        and row["instance"] in wanted
        and int(row["cpu_seconds"]) >= budget
        and not row[f"makespan_{budget}s"]
        for row in rows
    )


def size_table(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Mean gaps of all runs by size group, and over all 80 instances."""
    groups = [(f"ta{k + 1:02d}-{k + 10:02d}", ALL[k : k + 10]) for k in range(0, 80, 10)]
    groups += [("first of each size", FIRST), ("all 80", ALL)]
    out = []
    for label, names in groups:
        line: dict[str, Any] = {"instances": label}
        for solver in ("tabu-search", "cp-sat"):
            for budget in (1, 10):
                line[f"{solver} {budget} s"] = mean(gaps(rows, solver, budget, names))
                missing = unsolved(rows, solver, budget, names)
                if missing:
                    line[f"{solver} {budget} s"] = f"({missing} without a schedule)"
        line["runs"] = len(gaps(rows, "tabu-search", 10, names))
        out.append(line)
    return out


def first_table(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Makespans and gaps of seed 0 on the first instance of each size."""
    out = []
    for name in FIRST:
        mine = [row for row in rows if row["instance"] == name and row["seed"] == "0"]
        line: dict[str, Any] = {"instance": name}
        for row in mine:
            line["best known"] = int(row["best_known"])
            for budget in BUDGETS:
                if row[f"makespan_{budget}s"]:
                    line[f"{row['solver']} {budget} s"] = int(row[f"makespan_{budget}s"])
            if row["solver"] == "tabu-search":
                line["last improvement (CPU-s)"] = float(row["last_improvement_s"])
        out.append(line)
    columns = list(dict.fromkeys(key for line in out for key in line))
    return [{column: line.get(column) for column in columns} for line in out]


def figures(rows: list[dict[str, str]], names: Iterable[str]) -> dict[str, float | None]:
    """The figures of the RESULT line."""
    names = tuple(names)
    out = {
        "mean_gap_1s": mean(gaps(rows, "tabu-search", 1, names)),
        "mean_gap_10s": mean(gaps(rows, "tabu-search", 10, names)),
    }
    for name, optimum in PROVED_BY_BOUND.items():
        times = [
            float(row["last_improvement_s"])
            for row in rows
            if row["solver"] == "tabu-search" and row["instance"] == name and int(row["makespan_10s"]) == optimum
        ]
        out[f"{name}_optimal_s"] = max(times) if times else None
    return out


def text(row: dict[str, Any]) -> dict[str, str]:
    """A row as it reads from the file."""
    return {key: str(value) for key, value in row.items()}


def quick() -> None:
    """The first instance of each size with seed 0, in two processes; the longest ones start first."""
    TabuSearch(iterations=1).solve(library.load("ft06"))  # compiles the kernel once, for both processes
    order = ("ta41", "ta21", "ta11", "ta01", "ta31", "ta61", "ta51", "ta71")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = [text(row) for row in pool.imap(measure_run, [(name, "tabu-search", 0, 10) for name in order], 1)]
    rows.sort(key=lambda row: row["instance"])
    print(measure.table(first_table(rows)))
    print("\nTabu search only, seed 0, measured now; CP-SAT, other seeds and the other 72 instances: results/runs.csv.")
    print(measure.describe(environment()))
    measure.print_result(**figures(rows, FIRST))


def full(fresh: bool) -> None:
    """All runs, appended to the results as they end; a stopped run goes on where it was."""
    if fresh:
        RUNS.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numba", "ortools")
    TabuSearch(iterations=1).solve(library.load("ft06"))
    done = {(row["instance"], row["solver"], row["seed"]) for row in measure.read_rows(RUNS)}
    todo = [job for job in jobs() if (job[0], job[1], str(job[2])) not in done]
    for k, job in enumerate(todo):
        print(f"{k + 1}/{len(todo)}: {job[0]} {job[1]} seed {job[2]}", flush=True)
        measure.append_row(RUNS, measure_run(job))
    rows = measure.read_rows(RUNS)
    note = measure.describe(measure.read_json(ENVIRONMENT))
    tables = f"{measure.table(size_table(rows))}\n\n{measure.table(first_table(rows))}\n\n{note}"
    measure.write_between_markers(README, "table", tables)
    print(tables)
    first = figures(rows, FIRST)
    measure.print_result(
        **figures(rows, ALL),
        mean_gap_1s_first_eight=first["mean_gap_1s"],
        mean_gap_10s_first_eight=first["mean_gap_10s"],
    )


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "numba", "ortools")


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    measure.limit_threads(1)
    if options.quick:
        quick()
    else:
        full(options.fresh)


if __name__ == "__main__":
    main()
