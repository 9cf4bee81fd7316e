"""One run: a student trained from snapshots or not, and its scores on the plain environment."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cases import BASE, PHASE, Case, plain_envs, student, training_envs
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from orl.snapshot_rl import SnapshotSchedule

EVALUATION_SEED = 1_000_000
"""Of the first episode of every evaluation; episode i has this plus i."""


@dataclass
class Run:
    """What a run leaves: the evaluation curve, and what the training cost."""

    steps: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    evaluation_cpu_seconds: float = 0.0
    starts: int = 0


def evaluate(model: BaseAlgorithm, venv: VecEnv) -> npt.NDArray[np.float64]:
    """One greedy episode of each copy: its objective if the environment has one, else its return."""
    statistics = model.get_vec_normalize_env()
    masked = is_masking_supported(venv)
    venv.seed(EVALUATION_SEED)
    observations: Any = venv.reset()
    scores, running = np.zeros(venv.num_envs), np.ones(venv.num_envs, np.bool_)
    while running.any():
        options: dict[str, Any] = {"action_masks": get_action_masks(venv)} if masked else {}
        shown = observations if statistics is None else statistics.normalize_obs(observations)
        actions, _ = model.predict(shown, deterministic=True, **options)
        observations, rewards, dones, infos = venv.step(actions)
        scores[running] += rewards[running]
        for i in np.flatnonzero(dones & running).tolist():
            scores[i] = infos[i].get("objective", scores[i])
        running &= ~dones
    return scores


class Curve(BaseCallback):
    """Evaluates before the first step and then every ``every`` steps; ends the training at a score, if one is given."""

    def __init__(self, venv: VecEnv, every: int, enough: float = np.inf) -> None:
        super().__init__()
        self.venv, self.every, self.enough, self.run = venv, every, enough, Run()

    def _on_training_start(self) -> None:
        self.start = time.process_time()
        self.point()

    def _on_step(self) -> bool:
        if self.num_timesteps // self.every > self.run.steps[-1] // self.every:
            self.point()
        return self.run.scores[-1] < self.enough

    def _on_training_end(self) -> None:
        if self.run.steps[-1] < self.num_timesteps:
            self.point()
        self.run.cpu_seconds = time.process_time() - self.start - self.run.evaluation_cpu_seconds

    def point(self) -> None:
        """Add a point to the curve."""
        begin = time.process_time()
        self.run.steps.append(self.num_timesteps)
        self.run.scores.append(float(evaluate(self.model, self.venv).mean()))
        self.run.evaluation_cpu_seconds += time.process_time() - begin


def train(case: Case, variant: str, seed: int, snapshots: Path) -> Run:
    """Train a student and return its curve."""
    torch.set_num_threads(1)
    venv = training_envs(case, variant, seed, snapshots)
    plain = plain_envs(case, case.episodes)
    curve = Curve(plain, case.every)
    callbacks: list[BaseCallback] = [curve]
    if variant != BASE:
        callbacks.append(SnapshotSchedule(fraction=PHASE))
    model = student(case, seed, venv)
    model.learn(case.steps, callback=callbacks)
    if variant != BASE:
        counts: Any = venv.get_attr("start_counts") if case.n_envs == 1 else [venv.venv.start_counts]  # type: ignore[attr-defined]
        curve.run.starts = int(sum(int(count.sum()) for count in counts))
    venv.close()
    plain.close()
    return curve.run
