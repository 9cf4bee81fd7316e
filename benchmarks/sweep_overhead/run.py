"""What the runner of sweeps costs beside the runs: time for each run, memory of the driver, time to load the records.

    python benchmarks/sweep_overhead/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/sweep_overhead/run.py --quick    # within a minute

A sweep of trivial runs (the rule SPT plays ft06 once, about 10 ms) with two worker processes, each sweep in a fresh
driver process. Overhead of a run: what two workers have of wall time, less the time inside ``execute``; and all CPU
time of driver and workers, their start included, less that inside ``execute``, which a busy machine changes little.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

FOLDER = Path(__file__).resolve().parent
SAMPLES = FOLDER / "results" / "samples.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

JOBS = 2
WARM_UP = 100
"""Runs that are not counted at the beginning, while the workers start and load compiled kernels."""
FULL = (250, 1000, 5000)
REPETITIONS = 2
QUICK = 300
LOADED = 5000
"""Records in the measurement of loading."""


# ---- the driver process ----------------------------------------------------------------------------------------------
def plan_of(runs: int) -> Any:
    """SPT on ft06 with so many seeds: equal work, other names."""
    import orl
    from orl.bench.configuration import Configuration, EnvironmentPart, EvaluationPart, RulePart
    from orl.bench.plan import Keep, Plan, Task

    environment = EnvironmentPart(id="orl/JobShop-v0", version=f"orl {orl.__version__}", instances=("ft06",))
    evaluation, rule = EvaluationPart(episodes=1), RulePart(key="spt")
    tasks = [
        Task(
            Configuration(environment=environment, subject=rule, seed=seed, evaluation=evaluation, orl=orl.__version__),
            "ft06",
            "SPT",
            Keep(picture=False),
        )
        for seed in range(runs)
    ]
    return Plan("overhead", tuple(tasks))


def drive(runs: int, folder: Path) -> dict[str, float]:
    """Run one sweep in this process's workers and measure it."""
    from orl.bench.runner import run_sweep

    plan = plan_of(runs)
    before, cpu, begin = measure.peak_memory_mb(), time.process_time(), time.time()
    summary = run_sweep(plan, folder, jobs=JOBS)
    cpu = time.process_time() - cpu
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    workers_cpu = workers.ru_utime + workers.ru_stime
    after = measure.peak_memory_mb()
    if summary.done != runs:
        raise SystemExit(f"{summary.done} of {runs} runs done: not the work that was asked for")
    ended, execute_cpu = [], 0.0
    for path in (folder / "records").iterdir():
        record = json.loads(path.read_text())
        if record["rows"][0]["objective"] != 88.0:
            raise SystemExit(f"{path.name}: SPT on ft06 has makespan 88: not the work that was asked for")
        ended.append((path.stat().st_mtime, float(record["seconds"])))
        execute_cpu += float(record["cpu_seconds"])
    ended.sort()
    start, inside = ended[WARM_UP - 1][0], 0.0
    for end, seconds in ended:
        inside += max(0.0, min(seconds, end - start))
    counted = len(ended) - WARM_UP
    return {
        "ms_per_run": 1000 * (JOBS * (ended[-1][0] - start) - inside) / counted,
        "execute_ms": 1000 * inside / counted,
        "driver_cpu_ms": 1000 * cpu / runs,
        "overhead_cpu_ms": 1000 * (cpu + workers_cpu - execute_cpu) / runs,
        "start_s": ended[0][0] - begin,
        "sweep_s": summary.seconds,
        "parent_mb": after,
        "parent_growth_mb": after - before,
    }


def load(folder: Path) -> dict[str, float]:
    """Time ``orl.bench.load``; pandas is imported before."""
    import pandas  # noqa: F401

    from orl import bench

    begin = time.perf_counter()
    rows = len(bench.load(folder))
    seconds = time.perf_counter() - begin
    if rows != LOADED:
        raise SystemExit(f"{rows} rows loaded, not {LOADED}")
    return {"load_s": seconds}


def in_fresh_process(what: str, *arguments: object) -> dict[str, float]:
    """Call :func:`drive` or :func:`load` in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


# ---- the measurements ------------------------------------------------------------------------------------------------
def sample(runs: int) -> dict[str, float]:
    """One sweep; the time to load 5,000 records as well: its own, or as many copies of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = in_fresh_process("drive", runs, folder)
        multiply(folder, LOADED)
        return figures | in_fresh_process("load", folder)


def multiply(folder: Path, wanted: int) -> None:
    """Copy records under new names until there are so many."""
    plan = json.loads((folder / "sweep.json").read_text())
    names = list(plan["tasks"])
    for number in range(len(names), wanted):
        source = names[number % len(names)]
        copy = f"{number:020x}"
        text = (folder / "records" / f"{source}.json").read_text()
        (folder / "records" / f"{copy}.json").write_text(text.replace(f'"run": "{source}"', f'"run": "{copy}"'))
        plan["tasks"][copy] = plan["tasks"][source]
    (folder / "sweep.json").write_text(json.dumps(plan))


def measure_sizes(sizes: tuple[int, ...], repetitions: int, on_row: Callable[[dict[str, Any]], object]) -> None:
    """Measure every size once a round, in turn."""
    done = {runs: measure.complete_rounds(SAMPLES, ["runner"], runs=str(runs)) for runs in sizes}
    for repetition in range(repetitions):
        for runs in sizes:
            if repetition >= done[runs] or repetitions == 1:
                print(f"{runs} runs, round {repetition + 1} of {repetitions}", flush=True)
                row = {"runs": runs, "contender": "runner", "repetition": repetition} | sample(runs)
                on_row(row | {"date": measure.today()})


def summary(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One row a size: medians over the repetitions."""
    out = []
    for runs in dict.fromkeys(int(row["runs"]) for row in rows):
        mine = [row for row in rows if int(row["runs"]) == runs]

        def middle(column: str, mine: list[dict[str, str]] = mine) -> float:
            return measure.median(float(row[column]) for row in mine)

        out.append(
            {
                "runs": runs,
                "overhead ms/run": middle("ms_per_run"),
                "spread": measure.spread(float(row["ms_per_run"]) for row in mine),
                "execute ms/run": middle("execute_ms"),
                "overhead CPU ms/run": middle("overhead_cpu_ms"),
                "driver CPU ms/run": middle("driver_cpu_ms"),
                "first record s": middle("start_s"),
                "sweep s": middle("sweep_s"),
                "driver MB": middle("parent_mb"),
                "of it, growth MB": middle("parent_growth_mb"),
                "load of 5,000 s": middle("load_s"),
            }
        )
    return out


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "pandas", "pydantic", "rich")


def full(fresh: bool) -> list[dict[str, Any]]:
    """The run whose samples are kept; goes on after the last complete round of each size."""
    if fresh:
        SAMPLES.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "pandas", "pydantic")
    measure_sizes(FULL, REPETITIONS, lambda row: measure.append_row(SAMPLES, row))
    rows = summary(measure.read_rows(SAMPLES))
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", measure.table(rows) + "\n\n" + note)
    return rows


def quick() -> list[dict[str, Any]]:
    """One small sweep that is printed and not kept."""
    samples: list[dict[str, str]] = []
    measure_sizes((QUICK,), 1, lambda row: samples.append({key: str(value) for key, value in row.items()}))
    return summary(samples)


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    parser = measure.argument_parser(__doc__)
    parser.add_argument("--measure", nargs="+", help="what a fresh process measures (used by this script itself)")
    options = parser.parse_args()
    measure.limit_threads(1)
    if options.measure:
        what, *arguments = options.measure
        print(json.dumps(drive(int(arguments[0]), Path(arguments[1])) if what == "drive" else load(Path(arguments[0]))))
        return
    rows = quick() if options.quick else full(options.fresh)
    print(measure.table(rows))
    print(measure.describe(environment()))
    last = rows[-1]
    measure.print_result(
        ms_per_run=last["overhead ms/run"],
        load_s=last["load of 5,000 s"],
        parent_mb=last["driver MB"],
        parent_growth_mb=last["of it, growth MB"],
        runs=last["runs"],
        overhead_cpu_ms=last["overhead CPU ms/run"],
        ms_per_run_at_fewest_runs=rows[0]["overhead ms/run"],
    )


if __name__ == "__main__":
    main()
