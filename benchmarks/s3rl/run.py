"""Students that start from a teacher's snapshots beside the same students without. See README.md for the question.

python benchmarks/s3rl/run.py             # full run, resumable run by run; then writes the tables
python benchmarks/s3rl/run.py --table     # trains nothing: the tables of the runs that are there
python benchmarks/s3rl/run.py --teachers  # only makes the snapshots that are missing
python benchmarks/s3rl/run.py --quick     # within a minute
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

import tables  # noqa: E402
import teachers  # noqa: E402
from cases import BASE, CASES, S3RL, Case  # noqa: E402
from students import train  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
RUNS = RESULTS / "runs.csv"
ENVIRONMENT = RESULTS / "environment.json"
PACKAGES = ("numpy", "gymnasium", "mujoco", "torch", "stable-baselines3", "sb3-contrib")
QUICK_STEPS = {"PPO, Hopper": 2_048, "MaskablePPO, ft10": 4_096, "MaskablePPO, lot sizing 15x5": 4_096}


class Task(NamedTuple):
    """One run: a student of a case, a variant and a seed."""

    case: str
    variant: str
    seed: int


def tasks(only: list[str] | None = None) -> list[Task]:
    """All runs, the first seed of every case before the second of any; of the named cases only, if some are named."""
    listed = [
        Task(name, variant, seed)
        for seed in range(max(case.seeds for case in CASES.values()))
        for name, case in CASES.items()
        for variant in case.variants
        if seed < case.seeds
    ]
    return listed if not only else [task for task in listed if task.case in only]


def play(task: Task, case: Case, snapshots: Path) -> dict[str, Any]:
    """Do one run, in a process of its own; returns its row."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # MuJoCo writes its log into the working folder
        run = train(case, task.variant, task.seed, snapshots)
        os.chdir(HERE)
    return task._asdict() | {
        "training_steps": run.steps[-1],
        "snapshot_starts": run.starts,
        "cpu_seconds": run.cpu_seconds,
        "evaluation_cpu_seconds": run.evaluation_cpu_seconds,
        "wall_seconds": time.perf_counter() - begin,
        "date": measure.today(),
        "steps": " ".join(map(str, run.steps)),
        "scores": " ".join(f"{score:.6g}" for score in run.scores),
    }


def train_all(jobs: int, only: list[str] | None) -> None:
    """Do the runs that have no row yet; a row is written as soon as its run is over."""
    done = {(row["case"], row["variant"], int(row["seed"])) for row in measure.read_rows(RUNS)}
    left = [task for task in tasks(only) if tuple(task) not in done]
    paths = {CASES[task.case].teacher: teachers.snapshot_file(CASES[task.case].teacher) for task in left}
    print(f"{len(done)} runs are there, {len(left)} to do", flush=True)
    silent_end = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_DFL)}  # Ctrl-C: no traceback
    with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1, **silent_end) as pool:
        running: set[Future[dict[str, Any]]] = set()
        try:
            while left or running:
                while left and len(running) < jobs:
                    task = left.pop(0)
                    case = CASES[task.case]
                    running.add(pool.submit(play, task, case, paths[case.teacher]))
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    row = future.result()
                    measure.append_row(RUNS, row)
                    print(f"{row['case']}, {row['variant']}, seed {row['seed']}: {row['scores']}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise SystemExit("stopped; the same command goes on") from None


def quick() -> None:
    """A few steps of three cases, S3RL and base, in this process."""
    rows: list[dict[str, str]] = []
    described = []
    for name, steps in QUICK_STEPS.items():
        case = replace(CASES[name], steps=steps, every=steps, episodes=1)
        described.append(teachers.describe(case.teacher))
        for variant in (BASE, S3RL):
            row = play(Task(name, variant, 0), case, teachers.snapshot_file(case.teacher))
            rows.append({key: str(value) for key, value in row.items()})
    report(rows, [row for row in described if row is not None], write=False)


def report(rows: list[dict[str, str]], described: list[dict[str, Any]], write: bool) -> None:
    """Print the tables and, last, the RESULT line; write the tables into the README."""
    table = tables.comparisons(rows, {row["teacher"]: row["steps of collection"] for row in described})
    text = tables.describe(rows, table, described)
    print(text)
    if write:
        machine = measure.machine() | measure.versions(*PACKAGES) | {"date": measure.today()}
        measure.write_json(ENVIRONMENT, machine)
        measure.write_between_markers(HERE / "README.md", "table", text + "\n\n" + measure.describe(machine))
    measure.print_result(**tables.result(rows, table))


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = measure.argument_parser(__doc__)
    parser.add_argument("--table", action="store_true", help="train nothing: tables of the runs that are there")
    parser.add_argument("--teachers", action="store_true", help="only make the snapshots that are missing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time; by default one a core")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case; may be repeated")
    return parser.parse_args()


def main() -> None:
    """Train what is missing, print the tables and, last, the RESULT line."""
    options = parse()
    if options.quick:
        quick()
        return
    if options.fresh:
        RUNS.unlink(missing_ok=True)
    if options.teachers:
        for name in teachers.TEACHERS:
            teachers.snapshot_file(name)
    elif not options.table:
        train_all(options.jobs, options.case)
    described = [row for name in teachers.TEACHERS if (row := teachers.describe(name)) is not None]
    report(measure.read_rows(RUNS), described, write=not options.teachers)


if __name__ == "__main__":
    main()
