"""PDPPO beside PPO, rules and exact optima, as sweeps. See README.md for the question.

python benchmarks/pdppo/run.py            # full run, resumable; writes results/ and the README tables
python benchmarks/pdppo/run.py --table    # no training: the tables of the runs that are there
python benchmarks/pdppo/run.py --quick    # within a minute
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure
import numpy as np
import pandas
from scipy.stats import t as student

from orl import bench, registry
from orl.bench.configuration import BudgetPart, EvaluationPart
from orl.bench.plan import Keep, Plan, Task

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
BOUNDS = RESULTS / "bounds.json"
FOLDER = HERE.parents[1] / "runs" / "pdppo"
SWEEPS = ("small", "medium", "large", "lake", "variance", "reference")
BASELINE = "PPO"
CLOSE = 0.05
"""Steps are counted until the mean learning curve is this close to the best final cost of all learners."""
BOUND_SECONDS = 120.0
PACKAGES = ("numpy", "numba", "gymnasium", "torch", "stable-baselines3", "sb3-contrib")
ROW_COLUMNS = (
    *("run", "environment", "subject", "kind", "run_seed", "steps", "run_seconds", "run_cpu_seconds"),
    *("instance", "episode", "seed", "return", "objective"),
)
QUICK_STEPS = 4096


# ---- runs ------------------------------------------------------------------------------------------------------------
def read_plans() -> dict[str, Plan]:
    """The sweeps as their files say."""
    return {name: bench.read_sweep(HERE / f"{name}.yaml") for name in SWEEPS}


def quick_plans() -> dict[str, Plan]:
    """Two seeds of the small sweep's learners, a few steps each, and its cheap rules."""

    def shortened(task: Task) -> Task:
        changes: dict[str, Any] = {"evaluation": EvaluationPart(episodes=5)}
        if task.configuration.budget is not None:
            changes["budget"] = BudgetPart(steps=QUICK_STEPS)
        return replace(task, configuration=task.configuration.model_copy(update=changes), keep=Keep(model=False))

    plan = read_plans()["small"]
    wanted = (BASELINE, "interleaved[n_exogenous_samples=8]", "static", "dynamic-programming")
    tasks = [task for task in plan.tasks if task.subject in wanted and task.configuration.seed < 2]
    return {"small": replace(plan, tasks=tuple(map(shortened, tasks)))}


def train(plans: dict[str, Plan], folder: Path, jobs: int | None) -> None:
    """Do the runs that have no record yet."""
    for name, plan in plans.items():
        summary = bench.run_sweep(plan, folder / name, jobs=jobs, retry_failed=True)
        print(f"{name}: {summary}", flush=True)
        if summary.interrupted:
            raise SystemExit("stopped; the same command goes on")


def load(plans: dict[str, Plan], folder: Path) -> dict[str, pandas.DataFrame]:
    """The evaluation episodes of finished runs, one table a sweep.

    Plans of the authors' protocol ask machines for items that they cannot make; the instance's checker does not price
    them, so their cost is minus the return.
    """
    tables = {name: bench.load(folder / name) for name in plans if (folder / name / "sweep.json").exists()}
    if "reference" in tables:
        table = tables["reference"]
        table["objective"] = table["objective"].fillna(-table["return"])
    return {name: table for name, table in tables.items() if len(table)}


# ---- bounds ----------------------------------------------------------------------------------------------------------
def bounds(instances: list[str], kept: Path | None) -> dict[str, dict[str, Any]]:
    """Exact expected cost of an optimal policy where it can be had, else a valid lower bound; kept in a file."""
    known: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept and kept.exists() else {}
    for name in instances:
        if name not in known:
            known[name] = _bound(name)
            if kept:
                kept.parent.mkdir(exist_ok=True)
                measure.write_json(kept, known)
    return known


def _bound(name: str) -> dict[str, Any]:
    if name.startswith("lake"):
        instance = registry.domain("frozen_lake").load(name)
        return {"value": float(instance.best_known().lower), "method": "dynamic programming", "exact": True}
    from orl.solvers.lot_sizing.dynamic_programming import expected_cost
    from orl.solvers.lot_sizing.expected_bound import expected_cost_bound

    own = HERE / "instances" / f"{name}.json"
    instance = registry.domain("lot_sizing").load(own if own.exists() else name)
    if np.prod((instance.max_inventory + 1).astype(float)) * (instance.n_items + 1) ** instance.n_machines < 1e6:
        return {"value": expected_cost(instance), "method": "dynamic programming", "exact": True}
    value = expected_cost_bound(instance, time_limit=BOUND_SECONDS).value
    return {"value": value, "method": "machine periods priced", "exact": False}


# ---- tables ----------------------------------------------------------------------------------------------------------
def mean_interval(values: np.ndarray) -> tuple[float, float | None]:
    """Mean and half width of Student's 95 % interval; None for one value."""
    if len(values) < 2:
        return float(values.mean()), None
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def steps_to_close(folder: Path, rows: pandas.DataFrame) -> dict[tuple[str, str], float]:
    """Steps until a subject's mean learning curve comes within CLOSE of the best final value of all learners."""
    learners = rows[rows["kind"] == "algorithm"]
    found = {}
    for environment, part in learners.groupby("environment", sort=False):
        curves = {}
        for subject, of_subject in part.groupby("subject", sort=False):
            points = [bench.curve(folder, str(run)) for run in of_subject["run"].unique()]
            grid = sorted(set.intersection(*(set(p["steps"]) for p in points)))
            means = [np.mean([np.mean(p["returns"][list(p["steps"]).index(step)]) for p in points]) for step in grid]
            curves[str(subject)] = (grid, np.array(means))
        best = max(float(means[-1]) for _, means in curves.values() if len(means))
        for subject, (grid, means) in curves.items():
            inside = np.flatnonzero(means >= best - CLOSE * abs(best))
            found[str(environment), subject] = float(grid[inside[0]]) if len(inside) else float("nan")
    return found


def figures(name: str, rows: pandas.DataFrame, known: dict[str, dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """One row a subject and environment: mean cost over runs, gap, paired difference with PPO, steps, time."""
    steps = steps_to_close(folder / name, rows)
    table = []
    for environment, part in rows.groupby("environment", sort=False):
        costs = {s: p.groupby("run_seed")["objective"].mean() for s, p in part.groupby("subject", sort=False)}
        baseline = costs.get(BASELINE)
        for subject, of_runs in costs.items():
            mine = part[part["subject"] == subject]
            learner = mine["kind"].iloc[0] == "algorithm"
            mean, half = mean_interval(of_runs.to_numpy())
            bound = known.get(str(mine["instance"].iloc[0]))
            gain: tuple[float | None, float | None] = (None, None)
            if learner and baseline is not None and subject != BASELINE:
                shared = baseline.index.intersection(of_runs.index)
                if len(shared):
                    gain = mean_interval((baseline[shared] - of_runs[shared]).to_numpy())
            reached = steps.get((str(environment), str(subject)))
            table.append(
                {
                    "environment": environment,
                    "subject": subject,
                    "runs": len(of_runs),
                    "mean cost": _decimal(mean),
                    "±": _decimal(half),
                    "gap %": None if bound is None else 100.0 * (mean - bound["value"]) / abs(bound["value"]),
                    "gap to": None if bound is None else ("optimum" if bound["exact"] else "bound"),
                    "gain on PPO": _decimal(gain[0]),
                    "± gain": _decimal(gain[1]),
                    "steps to 5 %": None if reached is None or np.isnan(reached) else f"{reached:,.0f}",
                    "CPU-s a run": float(mine.drop_duplicates("run")["run_cpu_seconds"].median()),
                }
            )
    return table


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:,.1f}"


def describe(plans: dict[str, Plan], tables: dict[str, pandas.DataFrame], known: Any, folder: Path) -> str:
    """The state of the runs and one table a sweep, in Markdown."""
    total = sum(len(plan.tasks) for plan in plans.values())
    done = sum(table["run"].nunique() for table in tables.values())
    parts = [f"{'All' if done == total else '**Partial:**'} {done} of {total} runs are finished."]
    for name, table in tables.items():
        learners = [task for task in plans[name].tasks if task.configuration.budget is not None]
        steps = max((task.configuration.budget.steps or 0) for task in learners if task.configuration.budget)
        parts += [f"`{name}.yaml`, {steps:,} steps:", measure.table(figures(name, table, known, folder))]
    lines = [f"{key}: {row['value']:.2f} ({row['method']})" for key, row in known.items()]
    return "\n\n".join([*parts, "Optimal expected cost, or lower bound on it: " + "; ".join(lines) + "."])


def result(tables: dict[str, pandas.DataFrame], known: Any, folder: Path) -> dict[str, Any]:
    """The figures of the RESULT line: mean cost of every learner and rule of the small sweep, and the gain on PPO."""
    found: dict[str, Any] = {"runs": sum(int(table["run"].nunique()) for table in tables.values())}
    for row in figures("small", tables["small"], known, folder) if "small" in tables else []:
        words = "".join(c if c.isalnum() else " " for c in str(row["subject"]).lower()).split()
        found["_".join(words) + "_cost"] = float(row["mean cost"].replace(",", ""))
        if row["gain on PPO"] is not None:
            found["_".join(words) + "_gain_on_ppo"] = float(row["gain on PPO"].replace(",", ""))
    return found


def write_results(tables: dict[str, pandas.DataFrame], text: str) -> None:
    """Write the rows of every run (means over its episodes), the machine, and the README's tables."""
    RESULTS.mkdir(exist_ok=True)
    rows = pandas.concat([table[list(ROW_COLUMNS)].assign(sweep=name) for name, table in tables.items()])
    labels = ["sweep", "environment", "subject", "kind", "instance", "run_seed"]
    keys = [*labels, "steps", "run_seconds", "run_cpu_seconds"]
    means = rows.groupby(keys, sort=False, dropna=False)[["return", "objective"]].mean()
    means["episodes"] = rows.groupby(keys, sort=False, dropna=False).size()
    means.reset_index().to_csv(RESULTS / "runs.csv", index=False, float_format="%.6g")
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
        folder = Path(scratch) / "runs" if options.quick else FOLDER
        plans = quick_plans() if options.quick else read_plans()
        if options.fresh and not options.quick:
            shutil.rmtree(FOLDER, ignore_errors=True)
        if not options.table or options.quick:
            train(plans, folder, 0 if options.quick else options.jobs)
        tables = load(plans, folder)
        if not tables:
            raise SystemExit("no run is finished yet")
        instances = sorted({str(i) for table in tables.values() for i in table["instance"].unique()})
        known = bounds(instances, None if options.quick else BOUNDS)
        text = describe(plans, tables, known, folder)
        print(text)
        if not options.quick:
            write_results(tables, text)
        measure.print_result(**result(tables, known, folder))


if __name__ == "__main__":
    main()
