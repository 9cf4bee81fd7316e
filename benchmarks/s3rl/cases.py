"""What is trained: cases, variants of starts, and the learners with their environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

import orl
from orl.bench.zoo_files import read_zoo_file
from orl.snapshot_rl import SnapshotWrapper, VecSnapshotWrapper
from orl.targets import build_targets

TUNED = Path(__file__).resolve().parents[1] / "mdpo_mujoco" / "ppo.yml"
PHASE = 0.1
"""Share of a training that starts from snapshots."""
BASE, S3RL, FRESH = "base", "S3RL", "S3RL, fresh demand"
ABLATION = (S3RL, "clusters alone", "truncation alone", "neither")
STARTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        S3RL: {"clustered": True, "truncate_step": 100},
        FRESH: {"clustered": True, "truncate_step": 100, "fresh_noise": True},
        "clusters alone": {"clustered": True, "truncate_step": None},
        "truncation alone": {"clustered": False, "truncate_step": 100},
        "neither": {"clustered": False, "truncate_step": None},
    }
)
"""How episodes start in the phase, variant by variant; ``base`` has no phase."""
OFF_POLICY: Mapping[str, Any] = MappingProxyType({"buffer_size": 50_000, "learning_starts": 1_000, "batch_size": 128})


@dataclass(frozen=True)
class Case:
    """A learner on an environment.

    Attributes:
        env_id, kwargs: Of ``gymnasium.make``.
        learner: "PPO" (tuned), "PPO, defaults", "TD3", "SAC", or "masked PPO" on a native batch.
        teacher: Key of ``teachers.TEACHERS``.
        steps, seeds: Of each variant; seeds are 0, 1, ...
        every, episodes: Steps between evaluations, and episodes of each.
        variants: ``base`` and some of :data:`STARTS`.
        n_envs: Copies of a native batch.
        hyper: Of masked PPO.
        cost: Scores are objectives, which are better if lower; otherwise they are returns.
    """

    env_id: str
    learner: str
    teacher: str
    steps: int
    seeds: int
    every: int
    episodes: int = 5
    variants: tuple[str, ...] = (BASE, S3RL)
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    n_envs: int = 1
    hyper: Mapping[str, Any] = field(default_factory=dict)
    cost: bool = False


def _mujoco(env_id: str, learner: str, variants: tuple[str, ...] = (BASE, S3RL)) -> Case:
    on_policy = learner.startswith("PPO")
    teacher = env_id.partition("-")[0]
    return Case(
        env_id,
        learner,
        teacher,
        steps=150_000 if on_policy else 40_000,
        seeds=5 if on_policy else 3,
        every=10_000 if on_policy else 4_000,
        variants=variants,
    )


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "PPO, Hopper": _mujoco("Hopper-v5", "PPO", (BASE, *ABLATION)),
        "PPO with defaults, Hopper": _mujoco("Hopper-v5", "PPO, defaults"),
        "PPO, Walker2d": _mujoco("Walker2d-v5", "PPO"),
        "PPO, HalfCheetah": _mujoco("HalfCheetah-v5", "PPO"),
        "TD3, Hopper": _mujoco("Hopper-v5", "TD3"),
        "TD3, HalfCheetah": _mujoco("HalfCheetah-v5", "TD3"),
        "SAC, Hopper": _mujoco("Hopper-v5", "SAC"),
        "SAC, HalfCheetah": _mujoco("HalfCheetah-v5", "SAC"),
        "MaskablePPO, ft10": Case(
            "orl/JobShop-v0",
            "masked PPO",
            "ft10",
            steps=400_000,
            seeds=5,
            every=20_000,
            episodes=1,  # one instance, a greedy policy: every episode is the same
            kwargs={"instance": "ft10", "observation": "compact", "propagation": 1},
            n_envs=16,
            hyper={"n_steps": 128, "batch_size": 256, "n_epochs": 4, "gamma": 1.0, "ent_coef": 0.01},
            cost=True,
        ),
        "MaskablePPO, lot sizing 15x5": Case(
            "orl/LotSizing-v0",
            "masked PPO",
            "ls-15x5-s0",
            steps=300_000,
            seeds=5,
            every=20_000,
            episodes=20,
            variants=(BASE, S3RL, FRESH),
            kwargs={"instance": "ls-15x5-s0", "reward_scale": 0.02},
            n_envs=16,
            hyper={
                "n_steps": 128,
                "batch_size": 256,
                "n_epochs": 8,
                "gamma": 0.95,
                "learning_rate": LinearSchedule(1e-3, 0.0, 1.0),
            },
            cost=True,
        ),
    }
)


# ---- environments ----------------------------------------------------------------------------------------------------
def plain_envs(case: Case, n: int) -> VecEnv:
    """``n`` copies without snapshots, rewards and observations as they are."""
    if case.learner == "masked PPO":
        return orl.make_vec(f"orl:{case.env_id}", n, **case.kwargs)
    return DummyVecEnv([partial(gymnasium.make, case.env_id, **case.kwargs)] * n)


def training_envs(case: Case, variant: str, seed: int, snapshots: Path) -> VecEnv:
    """What a student trains in; ``snapshots`` is not read for ``base``."""
    start = STARTS.get(variant)
    if case.learner == "masked PPO":
        batch = plain_envs(case, case.n_envs)
        return VecMonitor(batch if start is None else VecSnapshotWrapper(batch, snapshots, seed=seed, **start))

    def make() -> Monitor[Any, Any]:
        env: gymnasium.Env[Any, Any] = gymnasium.make(case.env_id, **case.kwargs)
        return Monitor(env if start is None else SnapshotWrapper(env, snapshots, seed=seed, **start))

    return DummyVecEnv([make])


# ---- learners --------------------------------------------------------------------------------------------------------
def student(case: Case, seed: int, venv: VecEnv) -> BaseAlgorithm:
    """The learner, untrained: the same for all variants."""
    if case.learner == "masked PPO":
        return orl.FastMaskablePPO("MlpPolicy", venv, seed=seed, device="cpu", **case.hyper)
    if case.learner == "PPO":
        return tuned_ppo(case.env_id, seed, venv)
    if case.learner == "PPO, defaults":
        return default_ppo(case.env_id, seed, venv)
    size = venv.action_space.shape or ()
    network: dict[str, Any] = {"net_arch": [64, 64]}
    if case.learner == "TD3":
        noise = NormalActionNoise(np.zeros(size), np.full(size, 0.1))
        options = {"action_noise": noise, "policy_kwargs": network, **OFF_POLICY}
        return orl.FastTD3("MlpPolicy", venv, seed=seed, device="cpu", **options)
    return orl.FastSAC("MlpPolicy", venv, policy_kwargs=network, seed=seed, device="cpu", **OFF_POLICY)


def tuned_ppo(env_id: str, seed: int, venv: VecEnv) -> BaseAlgorithm:
    """PPO with rl-zoo3's values of ``benchmarks/mdpo_mujoco/ppo.yml``, behind VecNormalize."""
    hyper = build_targets(read_zoo_file(TUNED, env_id)["hyper"])
    normalized = VecNormalize(venv, gamma=hyper["gamma"])
    return orl.FastPPO("MlpPolicy", normalized, seed=seed, device="cpu", **hyper)


def default_ppo(env_id: str, seed: int, venv: VecEnv) -> BaseAlgorithm:
    """PPO with SB3's values, behind VecNormalize."""
    return orl.FastPPO("MlpPolicy", VecNormalize(venv, gamma=0.99), seed=seed, device="cpu")
