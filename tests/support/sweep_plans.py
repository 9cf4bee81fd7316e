"""Small sweeps of milliseconds a run: dispatching rules on the smallest job shop.

As a script, the driver process of a sweep: ``python sweep_plans.py FOLDER RUNS SECONDS [ADDRESS]``; with the address of
a Ray cluster, on that.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas

import orl
from orl.bench.configuration import Configuration, EnvironmentPart, EvaluationPart, RulePart
from orl.bench.plan import Keep, Plan, Task

TIMES = ["run_seconds", "run_cpu_seconds", "peak_memory_mb", "seconds", "cpu_seconds"]
"""Columns that two executions of a sweep do not share."""


def rule_task(rule: str = "random", seed: int = 0, **env_kwargs: Any) -> Task:
    """A rule on ft06, without a picture."""
    environment = EnvironmentPart(
        id="orl/JobShop-v0", version=f"orl {orl.__version__}", kwargs=env_kwargs, instances=("ft06",)
    )
    configuration = Configuration(
        environment=environment,
        subject=RulePart(key=rule),
        seed=seed,
        evaluation=EvaluationPart(episodes=1),
        orl=orl.__version__,
    )
    return Task(configuration, "small shop", rule.upper(), Keep(picture=False))


def rule_plan(runs: int, *extra: Task, **env_kwargs: Any) -> Plan:
    """``runs`` seeds of the random rule, and further tasks."""
    return Plan("rules", (*(rule_task(seed=seed, **env_kwargs) for seed in range(runs)), *extra))


def misbehaving(target: str, seed: int = 1000, **arguments: Any) -> Task:
    """A run during which something of ``sweep_faults`` happens."""
    return rule_task(seed=seed, window={"target": f"sweep_faults:{target}", "value": 5, **arguments})


def slow_plan(runs: int, seconds: float) -> Plan:
    """Runs that wait so many seconds each."""
    return rule_plan(runs, window={"target": "sweep_faults:waiting", "value": 5, "seconds": seconds})


def relabelled(plan: Plan, subject: str) -> Plan:
    """The same runs under another label."""
    return replace(plan, tasks=tuple(replace(task, subject=subject) for task in plan.tasks))


def names(plan: Plan) -> list[str]:
    """Names of the runs, in order."""
    return [task.configuration.hash for task in plan.tasks]


def without_times(table: pandas.DataFrame) -> pandas.DataFrame:
    """What two executions of a sweep must have in common."""
    return table.drop(columns=TIMES)


def temporary_files(folder: Path) -> list[Path]:
    """What a sweep must not leave behind: hidden files and anything under ``work/``."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.parent.name == "work"]


if __name__ == "__main__":
    from orl.bench.runner import run_sweep

    plan = slow_plan(int(sys.argv[2]), float(sys.argv[3]))
    if len(sys.argv) > 4:
        print(run_sweep(plan, sys.argv[1], engine="ray", address=sys.argv[4]))
    else:
        print(run_sweep(plan, sys.argv[1], jobs=2))
