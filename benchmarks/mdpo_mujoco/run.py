"""MDPO beside PPO and TRPO, off-policy MDPO beside SAC, as three sweeps. See README.md for the question.

    python benchmarks/mdpo_mujoco/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/mdpo_mujoco/run.py --table    # no training: the table of the runs that are there
    python benchmarks/mdpo_mujoco/run.py --quick    # within a minute

A run goes on while ``--table`` looks at what it has finished.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure
import pandas

from orl import bench
from orl.bench.configuration import BudgetPart, EvaluationPart
from orl.bench.plan import Keep, Plan, Task

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FOLDER = HERE.parents[1] / "runs" / "mdpo_mujoco"
BASELINES = {"on_policy": "MDPO", "off_policy_pendulum": "SAC", "off_policy_hopper": "SAC"}
"""The sweeps, and the subject that the others of a sweep are compared with."""
PACKAGES = ("numpy", "gymnasium", "mujoco", "torch", "stable-baselines3", "sb3-contrib")
ROW_COLUMNS = (
    *("run", "environment", "subject", "run_seed", "steps", "run_seconds", "run_cpu_seconds", "resumed", "exact"),
    *("episode", "seed", "return"),
)
QUICK_STEPS = {"InvertedDoublePendulum-v5": 4096, "Pendulum-v1": 1200}


# ---- runs ------------------------------------------------------------------------------------------------------------
def read_plans() -> dict[str, Plan]:
    """The sweeps as their files say."""
    return {name: bench.read_sweep(HERE / f"{name}.yaml") for name in BASELINES}


def quick_plans() -> dict[str, Plan]:
    """One seed of the two cheapest tasks, a few steps each."""

    def shortened(task: Task) -> Task:
        changes = {"budget": BudgetPart(steps=QUICK_STEPS[task.environment]), "evaluation": EvaluationPart(episodes=2)}
        return replace(task, configuration=task.configuration.model_copy(update=changes), keep=Keep(model=False))

    plans = {}
    for name, plan in read_plans().items():
        tasks = [t for t in plan.tasks if t.environment in QUICK_STEPS and t.configuration.seed == 0]
        if tasks:
            plans[name] = replace(plan, tasks=tuple(map(shortened, tasks)))
    return plans


def train(plans: dict[str, Plan], folder: Path, jobs: int | None) -> None:
    """Do the runs that have no record yet, the first seed of all sweeps before the second of any."""
    for seed in sorted({task.configuration.seed for plan in plans.values() for task in plan.tasks}):
        for name, plan in plans.items():
            runs = [task.configuration.hash for task in plan.tasks if task.configuration.seed == seed]
            if not runs:
                continue
            summary = bench.run_sweep(plan, folder / name, jobs=jobs, only=runs, retry_failed=True)
            print(f"{name}, seed {seed}: {summary}", flush=True)
            if summary.interrupted:
                raise SystemExit("stopped; the same command goes on")


def load(plans: dict[str, Plan], folder: Path) -> dict[str, pandas.DataFrame]:
    """The evaluation episodes of the runs that are finished, one table a sweep; sweeps without any are left out."""
    tables = {name: bench.load(folder / name) for name in plans if (folder / name / "sweep.json").exists()}
    return {name: table for name, table in tables.items() if len(table)}


def load_curves(tables: dict[str, pandas.DataFrame], folder: Path) -> pandas.DataFrame:
    """The learning curves of the finished runs: the mean return of each evaluation during training."""
    points = []
    for name, table in tables.items():
        labels = table[["run", "environment", "subject", "run_seed"]].drop_duplicates()
        for run in labels.to_dict("records"):
            curve = bench.curve(folder / name, str(run["run"]))
            points += [
                {**run, "steps": steps, "return": sum(returns) / len(returns)}
                for steps, returns in zip(curve["steps"], curve["returns"], strict=True)
            ]
    return pandas.DataFrame(points)


# ---- tables ----------------------------------------------------------------------------------------------------------
def figures(plan: Plan, rows: pandas.DataFrame, baseline: str) -> list[dict[str, Any]]:
    """One row a subject and environment: IQM of the runs' mean returns, and how likely it beats the baseline."""
    planned = [(task.environment, task.subject) for task in plan.tasks]
    chances = {}
    if baseline in set(rows["subject"]) and rows["subject"].nunique() > 1:
        for row in bench.compare(rows, baseline, value="return").to_dict("records"):
            if row["unit"] == "run":
                chances[row["environment"], row["subject"]] = row
    cpu = rows.drop_duplicates("run").groupby(["environment", "subject"])["run_cpu_seconds"].median()
    result = []
    for row in bench.summary(rows, value="return").to_dict("records"):
        key = (row["environment"], row["subject"])
        chance = chances.get(key)
        several = row["n_runs"] > 1
        result.append(
            {
                "environment": row["environment"],
                "subject": row["subject"],
                "seeds": f"{row['n_runs']} of {planned.count(key)}",
                "IQM return": row["iqm"],
                "low": row["low"] if several else None,
                "high": row["high"] if several else None,
                f"P(beats {baseline})": chance and chance["probability_of_improvement"],
                "P low": chance and chance["probability_low"],
                "P high": chance and chance["probability_high"],
                "CPU-s a run": cpu[key],
            }
        )
    return result


def describe(plans: dict[str, Plan], tables: dict[str, pandas.DataFrame]) -> str:
    """The state of the runs and one table a sweep, in Markdown."""
    total = sum(len(plan.tasks) for plan in plans.values())
    done = sum(table["run"].nunique() for table in tables.values())
    state = "All" if done == total else "**Partial:**"
    parts = [f"{state} {done} of {total} runs are finished."]
    for name, table in tables.items():
        steps = [(task.configuration.budget or BudgetPart()).steps or 0 for task in plans[name].tasks]
        rows = figures(plans[name], table, BASELINES[name])
        parts += [f"`{name}.yaml`, {max(steps):,} steps:", measure.table(rows)]
    return "\n\n".join(parts)


def result(plans: dict[str, Plan], tables: dict[str, pandas.DataFrame]) -> dict[str, Any]:
    """The figures of the RESULT line: the IQM of every case."""
    found: dict[str, Any] = {"runs": sum(int(table["run"].nunique()) for table in tables.values())}
    for name, table in tables.items():
        for row in figures(plans[name], table, BASELINES[name]):
            case = f"{row['environment'].partition('-')[0]} {row['subject']}".lower()
            words = "".join(letter if letter.isalnum() or letter == "." else " " for letter in case).split()
            found["_".join(words).replace(".", "_") + "_iqm"] = row["IQM return"]
    return found


def write_results(plans: dict[str, Plan], tables: dict[str, pandas.DataFrame], text: str) -> None:
    """Write the rows, the learning curves, the machine, and the README's tables."""
    RESULTS.mkdir(exist_ok=True)
    rows = pandas.concat(tables.values())[list(ROW_COLUMNS)]
    rows.to_csv(RESULTS / "rows.csv", index=False, float_format="%.6g")
    load_curves(tables, FOLDER).to_csv(RESULTS / "curves.csv", index=False, float_format="%.6g")
    machine = measure.machine() | measure.versions(*PACKAGES) | {"date": measure.today()}
    measure.write_json(RESULTS / "environment.json", machine)
    measure.write_between_markers(HERE / "README.md", "table", text + "\n\n" + measure.describe(machine))


def main() -> None:
    """Train what is missing, print the tables and, last, the RESULT line."""
    parser = measure.argument_parser(__doc__)
    parser.add_argument("--table", action="store_true", help="train nothing: tables of the runs that are there")
    parser.add_argument("--jobs", type=int, help="runs at a time; by default one a usable core")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # MuJoCo writes its log into the working folder
        folder = Path(scratch) / "runs" if options.quick else FOLDER
        plans = quick_plans() if options.quick else read_plans()
        if options.fresh and not options.quick:
            shutil.rmtree(FOLDER, ignore_errors=True)
        if not options.table or options.quick:
            train(plans, folder, 0 if options.quick else options.jobs)
        tables = load(plans, folder)
        if not tables:
            raise SystemExit("no run is finished yet")
        text = describe(plans, tables)
        print(text)
        if not options.quick:
            write_results(plans, tables, text)
        measure.print_result(**result(plans, tables))
        os.chdir(HERE)


if __name__ == "__main__":
    main()
