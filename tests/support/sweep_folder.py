"""A synthetic sweep folder in the format of orl.bench.record: every figure in it is drawn here, nothing is trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from orl.bench.configuration import (
    AlgorithmPart,
    BudgetPart,
    Configuration,
    EnvironmentPart,
    EvaluationPart,
    RulePart,
    SolverPart,
)
from orl.bench.plan import Scale, Task
from orl.bench.record import PLAN_SCHEMA, SCHEMA, Folder, Outcome, write_outcome
from orl.common.atomic import write_json, write_text
from orl.common.evaluation import COLUMNS

ORL = "0.1.0"
POINTS = 12
"""Points of a learning curve."""
SHOPS = {"ta01": (1231.0, 1231.0, 1005.0), "ta11": (1357.0, 1323.0, 1139.0), "ta21": (1642.0, 1642.0, 1407.0)}
"""Instances of the job shop: best known objective, bound of the solver, cheap bound of the instance."""
ENVIRONMENTS = {"cart pole": ("CartPole-v1", 500.0, 20.0), "lander": ("LunarLander-v3", 260.0, -180.0)}
"""Learning environments by label: id, return of a perfect policy, of a random one."""
LEARNERS = {"PPO": ("ppo", 0.95), "A2C": ("a2c", 0.75), "DQN": ("dqn", 0.6)}
"""Learning algorithms by label: registry key and the share of the way to perfect that they come."""
ERROR = {
    "type": "ValueError",
    "message": "expected a finite loss, got nan",
    "traceback": 'Traceback (most recent call last):\n  File "execution.py", line 12, in execute\n'
    "    model.learn(total)\nValueError: expected a finite loss, got nan\n",
}


def learning_tasks(seeds: int = 5, learners: dict[str, tuple[str, float]] | None = None) -> list[Task]:
    """Each learner on both environments; a run per seed."""
    budget, evaluation = BudgetPart(steps=100_000), EvaluationPart(every=100_000 // POINTS, episodes=4)
    tasks = []
    for environment, (env_id, *_) in ENVIRONMENTS.items():
        part = EnvironmentPart(id=env_id, version="gymnasium 1.4.0")
        for label, (key, _) in (learners or LEARNERS).items():
            subject = AlgorithmPart(key=key, hyper={"learning_rate": 3e-4, "policy_kwargs": {"net_arch": [64, 64]}})
            for seed in range(seeds):
                configuration = Configuration(
                    environment=part, subject=subject, seed=seed, budget=budget, evaluation=evaluation, orl=ORL
                )
                tasks.append(Task(configuration, environment, label))
    return tasks


def shop_tasks() -> list[Task]:
    """Two rules and a solver on three job shops; a run per instance, and for the random rule one more per seed."""
    subjects: list[tuple[str, Any, int]] = [
        ("shortest processing time", RulePart(key="spt"), 1),
        ("random rule", RulePart(key="random"), 3),
        ("CP-SAT, 60 s", SolverPart(key="cp-sat", time_limit=60.0), 1),
    ]
    return [
        Task(
            Configuration(
                environment=EnvironmentPart(id="orl/JobShop-v0", version=f"orl {ORL}", instances=(instance,)),
                subject=subject,
                seed=seed,
                evaluation=EvaluationPart(episodes=1),
                orl=ORL,
            ),
            "job shop",
            label,
        )
        for label, subject, seeds in subjects
        for instance in SHOPS
        for seed in range(seeds)
    ]


def write_sweep(
    root: Path,
    tasks: list[Task] | None = None,
    *,
    name: str = "small example",
    failed: tuple[int, ...] = (7,),
    scales: dict[str, Scale] | None = None,
) -> list[Task]:
    """Write the folder of a sweep whose runs are over; ``failed`` are places in ``tasks`` of runs that failed."""
    listed = [*learning_tasks(), *shop_tasks()] if tasks is None else tasks
    folder = Folder(root)
    write_text(folder.file, f"name: {json.dumps(name)}\n")
    write_json(
        folder.plan,
        {
            "schema": PLAN_SCHEMA,
            "name": name,
            "source": "sweep.yaml",
            "threads": 1,
            "scales": {label: asdict(scale) for label, scale in (scales or {}).items()},
            "versions": {"orl": ORL},
            "tasks": {
                task.configuration.hash: {"environment": task.environment, "subject": task.subject} for task in listed
            },
        },
    )
    for index, task in enumerate(listed):
        if index in failed:
            failure = frame(task) | {"state": "failed", "error": ERROR, "rows": []}
            write_json(folder.failure(task.configuration.hash), failure)
        else:
            write_outcome(folder, outcome(task))
    return listed


def frame(task: Task) -> dict[str, Any]:
    """Keys of a record that do not hang on the result."""
    configuration = task.configuration
    return {
        "schema": SCHEMA,
        "run": configuration.hash,
        "environment": task.environment,
        "subject": task.subject,
        "kind": configuration.subject.kind,
        "configuration": configuration.to_json(),
        "versions": {"orl": ORL, "numpy": "2.4.0", "python": "3.11.9"},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "machine": {"system": "Linux", "cpus": 2, "processor": "a processor"},
        "started": "2026-11-22T09:30:00+00:00",
        "seconds": 12.5,
        "cpu_seconds": 12.0,
        "peak_memory_mb": 310.5,
        "steps": 100_000 if configuration.budget else None,
        "resumed": 0,
        "exact": True,
        "files": [],
    }


def outcome(task: Task) -> Outcome:
    """The record of a finished run, and its learning curve or picture."""
    name = task.configuration.hash
    generator = np.random.default_rng(int(name, 16))
    rows, files = (learned if task.environment in ENVIRONMENTS else scheduled)(task, generator)
    return Outcome(frame(task) | {"state": "done", "rows": rows, "files": sorted(files)}, files)


def row(task: Task, **figures: Any) -> dict[str, Any]:
    plain = {"subject": task.subject, "episode": 0, "violations": "", "interrupted": False}
    return dict.fromkeys(COLUMNS) | plain | figures


def learned(task: Task, generator: np.random.Generator) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Returns that grow towards the share of the subject, with noise of the run and of the episode."""
    env_id, high, low = ENVIRONMENTS[task.environment]
    share = LEARNERS.get(task.subject, ("", 0.5))[1] + 0.08 * generator.standard_normal()
    lines = []
    for point in range(1, POINTS + 1):
        level = min(share, 1.0) * (1 - np.exp(-4 * point / POINTS))
        noise = 0.05 * generator.standard_normal(4)
        lines.append(
            {
                "steps": point * (100_000 // POINTS),
                "seconds": 1.0 * point,
                "cpu_seconds": 1.0 * point,
                "returns": [float(low + (high - low) * min(level + item, 1.0)) for item in noise],
                "objectives": None,
            }
        )
    rows = [
        row(
            task,
            instance=env_id,
            episode=episode,
            seed=1_000_000 + episode,
            **{"return": lines[-1]["returns"][episode]},
            seconds=0.05,
            cpu_seconds=0.05,
            status="terminated",
        )
        for episode in range(4)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return rows, {f"curves/{task.configuration.hash}.jsonl": text.encode()}


def scheduled(task: Task, generator: np.random.Generator) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """A schedule of one instance: the solver's is optimal or close to it, the rules' are not."""
    instance = str(task.configuration.environment.instances[0])
    best, bound, cheap = SHOPS[instance]
    solver = task.subject.startswith("CP-SAT")
    excess = {"shortest processing time": 0.18, "random rule": 0.42}.get(task.subject, 0.0)
    objective = best if solver else float(round(best * (1 + excess + 0.03 * generator.random())))
    known = bound if solver else cheap
    proved = solver and best == bound
    rows = [
        row(
            task,
            instance=instance,
            seed=task.configuration.seed if solver else 1_000_000,
            objective=objective,
            bound=known,
            gap=(objective - known) / known,
            best_known=best,
            gap_to_best_known=(objective - best) / best,
            seconds=41.0 if solver else 0.01,
            cpu_seconds=41.0 if solver else 0.01,
            status="optimal" if proved else "feasible",
            checked=True,
            illegal_actions=None if solver else 0,
            **{"return": None if solver else -objective},
        )
    ]
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 40" width="480" height="160">'
        '<rect width="70" height="12" x="2" y="4" fill="#0072b2"/>'
        '<rect width="50" height="12" x="60" y="22" fill="#e69f00"/>'
        f'<text x="2" y="38" font-size="4">{instance}: {objective:.0f}</text></svg>'
    )
    return rows, {f"pictures/{task.configuration.hash}.svg": picture.encode()}
