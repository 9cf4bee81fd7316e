"""A training from snapshots that is stopped and goes on from a checkpoint: as if it had never been stopped."""

from __future__ import annotations

import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import small_runs
import torch
from snapshot_cases import CountingEnv, counting_snapshots, snapshots_of
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import orl
from orl.bench import checkpoint
from orl.bench.checkpoint import Checkpoints, Notes, Restored
from orl.bench.execution import execute
from orl.bench.learning_curve import LearningCurve
from orl.bench.plan import Keep
from orl.bench.resources import Spent
from orl.snapshot_rl import SnapshotSchedule, SnapshotSet, SnapshotWrapper, VecSnapshotWrapper

STEPS, PHASE = 144, 96
LAKE = "orl:orl/PostDecisionFrozenLake-v0"


class Stopped(Exception):
    """Ends a training in the middle of a rollout, after its last checkpoint."""


class StopAt(BaseCallback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.steps:
            raise Stopped
        return True


class Recorder(BaseCallback):
    """Rewards and ends of each step, and which snapshot each copy's episode began at."""

    def __init__(self) -> None:
        super().__init__()
        self.trace: dict[int, Any] = {}

    def _on_step(self) -> bool:
        ends = [info.get("snapshot_episode") for info in self.locals["infos"]]
        self.trace[self.num_timesteps] = (self.locals["rewards"].tolist(), self.locals["dones"].tolist(), ends)
        return True


def hopper(snapshots: SnapshotSet, p_snapshot: float) -> Any:
    def make() -> Monitor[Any, Any]:
        env = gymnasium.make("Hopper-v5")
        return Monitor(SnapshotWrapper(env, snapshots, truncate_step=10, p_snapshot=p_snapshot, seed=0))

    return VecNormalize(DummyVecEnv([make] * 2))


def lakes(snapshots: SnapshotSet, p_snapshot: float) -> Any:
    batch = orl.make_vec(LAKE, 2, instance="lake-4x4")
    return VecMonitor(VecSnapshotWrapper(batch, snapshots, truncate_step=10, p_snapshot=p_snapshot, seed=0))


def on_policy(venv: Any) -> BaseAlgorithm:
    return PPO("MlpPolicy", venv, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu")


def off_policy(venv: Any) -> BaseAlgorithm:
    options = {"learning_starts": 16, "batch_size": 8, "buffer_size": 200, "policy_kwargs": {"net_arch": [8]}}
    return SAC("MlpPolicy", venv, seed=0, device="cpu", **options)


def learn(model: BaseAlgorithm, folder: Path, stop: int | None, restored: Restored | None) -> Recorder:
    """Train to the end or to ``stop``, with a checkpoint at every rollout that begins 40 steps after the last."""
    recorder = Recorder()

    def save() -> None:
        notes = Notes(steps=model.num_timesteps, seconds=0.0, cpu_seconds=0.0, curve="", spent=Spent())
        assert checkpoint.save(model, notes, folder)

    watch = Checkpoints(save, every=40, stop=lambda: False, restored=restored, pause=nullcontext)
    callbacks: list[BaseCallback] = [SnapshotSchedule(PHASE), recorder, watch]
    if stop is not None:
        callbacks.append(StopAt(stop))
    left = STEPS - model.num_timesteps
    try:
        model.learn(left, callback=callbacks, reset_num_timesteps=restored is None)
    except Stopped:
        assert stop is not None
    return recorder


@pytest.mark.parametrize("stop", [60, 100, 130], ids=["in the phase", "as it ends", "after it"])
@pytest.mark.parametrize("p_snapshot", [1.0, 0.5])
@pytest.mark.parametrize(
    ("make", "build"),
    [(hopper, on_policy), (hopper, off_policy), (lakes, on_policy)],
    ids=["PPO, Hopper", "SAC, Hopper", "PPO, native lakes"],
)
def test_it_goes_on_to_the_last_bit(make, build, p_snapshot, stop, tmp_path: Path) -> None:
    if make is hopper:
        pytest.importorskip("mujoco")
    snapshots = snapshots_of("Hopper-v5") if make is hopper else snapshots_of(LAKE, instance="lake-4x4")
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole_model = build(make(snapshots, p_snapshot))
    whole = learn(whole_model, tmp_path / "whole", None, None)
    learn(build(make(snapshots, p_snapshot)), tmp_path / "cut", stop, None)

    random.seed(99)
    np.random.seed(98)  # noqa: NPY002
    torch.manual_seed(97)
    model = build(make(snapshots, p_snapshot))
    restored = checkpoint.restore(model, tmp_path / "cut")
    assert restored is not None
    assert restored.exact
    assert 0 < restored.notes.steps < stop
    rest = learn(model, tmp_path / "cut", None, restored)

    assert min(rest.trace) == restored.notes.steps + 2
    assert rest.trace == {steps: what for steps, what in whole.trace.items() if steps > restored.notes.steps}
    for name, value in whole_model.policy.state_dict().items():
        assert torch.equal(value, model.policy.state_dict()[name]), name
    assert any(end is not None for _, _, ends in whole.trace.values() for end in ends)


def hopper_from(snapshots: str | None = None) -> Any:
    """Hopper as a sweep makes it: from snapshots in training, plain in evaluation."""
    env = gymnasium.make("Hopper-v5")
    return env if snapshots is None else SnapshotWrapper(env, snapshots, truncate_step=10)


@pytest.fixture
def snapshot_hopper() -> Any:
    pytest.importorskip("mujoco")
    gymnasium.register("SnapshotHopper-v0", entry_point=hopper_from)
    yield "SnapshotHopper-v0"
    del gymnasium.registry["SnapshotHopper-v0"]


def test_a_run_of_a_sweep_that_was_killed_goes_on_to_the_last_bit(snapshot_hopper: str, tmp_path: Path) -> None:
    snapshots_of("Hopper-v5").save(tmp_path / "hopper.npz")
    task = small_runs.task(
        small_runs.learner("ppo", normalize={}),
        snapshot_hopper,
        steps=160,
        keep=Keep(checkpoint_every=30, picture=False),
        evaluation={"every": 40},
        train_kwargs={"snapshots": str(tmp_path / "hopper.npz")},
    )
    whole = execute(task, sweep="test", work=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(LearningCurve, "_on_step", _stopping_at(117, LearningCurve._on_step))
        with pytest.raises(Stopped):
            execute(task, sweep="test", work=tmp_path / "cut")
    resumed = execute(task, sweep="test", work=tmp_path / "cut")
    assert (resumed.record["resumed"], resumed.record["exact"]) == (1, True)
    assert small_runs.parameters(whole) == small_runs.parameters(resumed)
    assert small_runs.curve(whole) == small_runs.curve(resumed)
    assert small_runs.rows(whole) == small_runs.rows(resumed)


def _stopping_at(steps: int, original: Any) -> Any:
    def step(self: LearningCurve) -> bool:
        if self.model.num_timesteps >= steps:
            raise Stopped
        return bool(original(self))

    return step


def test_an_env_that_cannot_be_saved_is_not_called_exact(tmp_path: Path) -> None:
    """An env that cannot be pickled goes on with a reset, under a SnapshotWrapper too; the checkpoint says so."""

    class Generating(CountingEnv):
        def reset(self, **options: Any) -> Any:
            self.left = iter(range(3))  # pickles, but the generator below does not
            self.lines = (number for number in self.left)
            return super().reset(**options)

    def build() -> BaseAlgorithm:
        venv = DummyVecEnv([lambda: Monitor(SnapshotWrapper(Generating(), counting_snapshots(), seed=0))])
        return on_policy(venv)

    model = build()
    model.learn(16, callback=SnapshotSchedule(12))
    notes = Notes(steps=16, seconds=0.0, cpu_seconds=0.0, curve="", spent=Spent())
    assert not checkpoint.save(model, notes, tmp_path)
    other = build()
    restored = checkpoint.restore(other, tmp_path)
    assert restored is not None
    assert not restored.exact
    assert other._last_obs is None
