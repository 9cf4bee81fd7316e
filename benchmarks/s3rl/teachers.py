"""The teachers, each by a recipe that is repeated if its file of snapshots is missing.

    python benchmarks/s3rl/run.py --teachers      # makes the missing files of teachers/ and describes all of them

MuJoCo: PPO until the mean of twenty greedy episodes has reached a return. Job shop: a schedule of CP-SAT, replayed. Lot
sizing: the price-directed rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from cases import CASES, Case, default_ppo, plain_envs, tuned_ppo
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from students import Curve

from orl import registry
from orl.snapshot_rl import SnapshotSet, collect_snapshots, teacher_from_actions

FOLDER = Path(__file__).resolve().parent / "teachers"
SEED = 100
"""Of teachers' trainings and collections; no student has it."""
Learner = Callable[[str, int, VecEnv], BaseAlgorithm]


@dataclass(frozen=True)
class Trained:
    """PPO until twenty greedy episodes bring ``enough`` on average, looked at every 20,000 steps."""

    env_id: str
    learner: Learner
    enough: float
    most_steps: int

    def snapshots(self) -> SnapshotSet:
        """Train, play ten greedy episodes, keep every tenth state."""
        torch.set_num_threads(1)
        venv = DummyVecEnv([lambda: Monitor(gymnasium.make(self.env_id))])
        model = self.learner(self.env_id, SEED, venv)
        case = Case(self.env_id, "PPO", "", 0, 0, 0)
        curve = Curve(plain_envs(case, 20), 20_000, self.enough)
        model.learn(self.most_steps, callback=curve)
        run = curve.run
        if run.scores[-1] < self.enough:
            raise SystemExit(f"{self.env_id}: {run.scores[-1]:.0f} after {run.steps[-1]} steps, not {self.enough:.0f}")
        env = gymnasium.make(self.env_id)
        found = collect_snapshots(model, env, n_episodes=10, interval=10, deterministic=True, seed=SEED)
        trained = {
            "recipe": f"{self.learner.__name__}, until {self.enough:,.0f}",
            "training_steps": run.steps[-1],
            "training_cpu_seconds": round(run.cpu_seconds, 1),
            "greedy_return": round(run.scores[-1], 1),
        }
        return replace(found, about={**found.about, **trained})


@dataclass(frozen=True)
class Schedule:
    """The best schedule of a job shop that CP-SAT finds in ``seconds``, played as actions."""

    case: str
    seconds: float

    def snapshots(self) -> SnapshotSet:
        """Replay the schedule and keep every state."""
        env = _plain_env(self.case)
        base: Any = env.unwrapped
        solved = registry.solver("job_shop", "cp-sat", num_workers=1).solve(base.instance, time_limit=self.seconds)
        actions = schedule_actions(env, solved.solution)
        found = collect_snapshots(teacher_from_actions(actions), env, n_episodes=1, interval=1, seed=SEED)
        recipe = f"CP-SAT, makespan {solved.objective:,.0f} ({solved.status})"
        return replace(found, about={**found.about, "recipe": recipe, "solver_seconds": self.seconds})


@dataclass(frozen=True)
class Rule:
    """A rule of the domain."""

    case: str
    domain: str
    key: str

    def snapshots(self) -> SnapshotSet:
        """Play fifty episodes, which have as many demand paths, and keep every 25th state."""
        env = _plain_env(self.case)
        rule = registry.rule(self.domain, self.key, env)
        found = collect_snapshots(rule, env, n_episodes=50, interval=25, seed=SEED)
        return replace(found, about={**found.about, "recipe": f"the rule {self.key}"})


TEACHERS: dict[str, Trained | Schedule | Rule] = {
    "Hopper": Trained("Hopper-v5", default_ppo, 2000.0, 400_000),
    "Walker2d": Trained("Walker2d-v5", tuned_ppo, 2000.0, 1_000_000),
    "HalfCheetah": Trained("HalfCheetah-v5", tuned_ppo, 2000.0, 400_000),
    "ft10": Schedule("MaskablePPO, ft10", 60.0),
    "ls-15x5-s0": Rule("MaskablePPO, lot sizing 15x5", "lot_sizing", "price-directed"),
}


def snapshot_file(teacher: str, folder: Path = FOLDER) -> Path:
    """The file of a teacher's snapshots; made by its recipe if it is missing."""
    path = folder / f"{teacher}.npz"
    if not path.exists():
        print(f"teacher {teacher}: {TEACHERS[teacher]}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        TEACHERS[teacher].snapshots().save(path)
    return path


def describe(teacher: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """A row of the table of teachers; None without its file."""
    path = folder / f"{teacher}.npz"
    if not path.exists():
        return None
    found = SnapshotSet.load(path)
    return {
        "teacher": teacher,
        "recipe": found.about["recipe"],
        "training steps": found.about.get("training_steps"),
        "greedy return": found.about.get("greedy_return"),
        "return as collected": float(found.episode_returns.mean()),
        "steps of collection": found.about["teacher_steps"],
        "snapshots": len(found),
        "MB": path.stat().st_size / 1e6,
    }


def schedule_actions(env: gymnasium.Env[Any, Any], schedule: Any) -> list[int]:
    """The actions that build a left-shifted schedule of a job shop in time order: start what it starts now, or wait."""
    env.reset()
    base: Any = env.unwrapped
    starts, actions, over = np.asarray(schedule.start), [], False
    while not over:
        mask, done = base.action_masks(), np.asarray(base.schedule().start)
        choice = len(mask) - 1
        for action in np.flatnonzero(mask[:-1]).tolist():
            state = base.get_state()
            *_, over, _, info = env.step(action)
            after = np.asarray(info["solution"].start if over else base.schedule().start)
            base.set_state(state)
            changed = np.flatnonzero(after != done)
            if (after[changed] == starts[changed]).all():
                choice = action
                break
        actions.append(choice)
        _, _, over, _, info = env.step(choice)
    if not np.array_equal(info["solution"].start, starts):
        raise SystemExit("the actions do not build the schedule")
    return actions


def _plain_env(case: str) -> gymnasium.Env[Any, Any]:
    return partial(gymnasium.make, f"orl:{CASES[case].env_id}", **CASES[case].kwargs)()
