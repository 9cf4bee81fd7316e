"""Small runs of sweeps: tasks that end within a second or two, and what of their results must be equal."""

from __future__ import annotations

import json
from typing import Any

import orl
from orl.bench.configuration import (
    AlgorithmPart,
    BudgetPart,
    Configuration,
    EnvironmentPart,
    EvaluationPart,
    RulePart,
    SolverPart,
)
from orl.bench.plan import Keep, Task
from orl.bench.record import Outcome

NOTHING = Keep(model=False, picture=False)
TIMES = ("seconds", "cpu_seconds")
TINY = {"policy_kwargs": {"net_arch": [8]}}
LEARNERS: dict[str, dict[str, Any]] = {
    "ppo": {"key": "ppo", "hyper": {"n_steps": 16, "batch_size": 16, "n_epochs": 2} | TINY, "n_envs": 2},
    "a2c": {"key": "a2c", "hyper": {"n_steps": 4} | TINY, "n_envs": 2},
    "dqn": {
        "key": "dqn",
        "hyper": {"learning_starts": 20, "buffer_size": 100, "batch_size": 8, "train_freq": 2} | TINY,
    },
    "sac": {"key": "sac", "hyper": {"learning_starts": 20, "buffer_size": 300, "batch_size": 8} | TINY},
    "maskable-ppo": {
        "key": "maskable-ppo",
        "hyper": {"n_steps": 16, "batch_size": 16, "n_epochs": 2} | TINY,
        "n_envs": 2,
    },
}


def task(
    subject: AlgorithmPart | RulePart | SolverPart,
    env_id: str = "orl/JobShop-v0",
    *,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    keep: Keep = NOTHING,
    evaluation: dict[str, Any] | None = None,
    **environment: Any,
) -> Task:
    """A task of that subject; further keywords are those of EnvironmentPart."""
    configuration = Configuration(
        environment=EnvironmentPart(id=env_id, version="any", **environment),
        subject=subject,
        seed=seed,
        budget=None if steps is None and seconds is None else BudgetPart(steps=steps, seconds=seconds),
        evaluation=EvaluationPart(**{"episodes": 2, "curve_episodes": 2, **(evaluation or {})}),
        orl=orl.__version__,
    )
    return Task(configuration, env_id, subject.key, keep)


def learner(name: str, **changes: Any) -> AlgorithmPart:
    """A tiny algorithm."""
    return AlgorithmPart(**{**LEARNERS[name], **changes})


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Rows of the record without times."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in outcome.record["rows"]]


def curve(outcome: Outcome) -> list[dict[str, Any]]:
    """Points of the learning curve without times."""
    text = outcome.files[f"curves/{outcome.record['run']}.jsonl"].decode()
    points = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in point.items() if key not in TIMES} for point in points]


def parameters(outcome: Outcome) -> dict[str, Any]:
    """Networks and optimisers of the saved model, by name, as nested plain data of lists and numbers."""
    import io

    from stable_baselines3.common.save_util import load_from_zip_file

    _, saved, further = load_from_zip_file(io.BytesIO(outcome.files[f"models/{outcome.record['run']}.zip"]))
    return {"saved": _plain(saved), "further": _plain(further)}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
