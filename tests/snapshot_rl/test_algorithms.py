"""Algorithms learn from snapshots as they are; pictures; what an import brings."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from snapshot_cases import counting_snapshots, snapshots_of
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import orl
from orl.common.errors import InputError
from orl.fast.lean_vec_env import LeanVecEnv
from orl.mdpo import MDPO, OffPolicyMDPO
from orl.pdppo import PDPPO
from orl.snapshot_rl import SnapshotSchedule, SnapshotWrapper, VecSnapshotWrapper, save_picture, snapshot_figure

ON_POLICY = {"n_steps": 24}
OFF_POLICY = {"learning_starts": 16, "batch_size": 8, "buffer_size": 200}
LOT_SIZING = "orl:orl/LotSizing-v0"


def starts(venv) -> int:
    return sum(int(counts.sum()) for counts in venv.get_attr("start_counts"))


@pytest.mark.parametrize(
    "kind, options",
    [
        (PPO, ON_POLICY | {"batch_size": 48}),
        (MDPO, ON_POLICY | {"vf_batch_size": 48}),
        (SAC, OFF_POLICY),
        (TD3, OFF_POLICY),
        (OffPolicyMDPO, OFF_POLICY),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_continuous_actions(kind, options) -> None:
    pytest.importorskip("mujoco")
    snapshots = snapshots_of("Hopper-v5")

    def make():
        return Monitor(SnapshotWrapper(gymnasium.make("Hopper-v5"), snapshots, truncate_step=10, seed=0))

    venv = VecNormalize(DummyVecEnv([make] * 2))
    model = kind("MlpPolicy", venv, seed=0, device="cpu", **options)
    model.learn(96, callback=SnapshotSchedule(48))
    assert model.num_timesteps == 96
    assert starts(venv) >= 4
    assert model._last_obs.shape == (2, 11)


@pytest.mark.parametrize("kind", [MaskablePPO, PDPPO, PPO])
@pytest.mark.parametrize("native", [True, False])
def test_discrete_actions_masks_and_post_decisions(kind, native) -> None:
    snapshots = snapshots_of(LOT_SIZING)
    if native:
        inner = VecSnapshotWrapper(orl.make_vec(LOT_SIZING, 2, illegal="count"), snapshots, truncate_step=10, seed=0)
        venv = VecMonitor(inner)
    else:

        def make():
            env = gymnasium.make(LOT_SIZING, illegal="count")
            return Monitor(SnapshotWrapper(env, snapshots, truncate_step=10, seed=0))

        venv = LeanVecEnv([make] * 2)
    model = kind("MlpPolicy", venv, n_steps=24, batch_size=48, seed=0, device="cpu")
    model.learn(96, callback=SnapshotSchedule(48))
    assert model.num_timesteps == 96
    count = inner.start_counts.sum() if native else starts(venv)
    assert 4 <= count <= 12
    if kind is not PPO:
        illegal = venv.venv.venv.illegal_actions if native else np.array(venv.get_attr("illegal_actions"))
        assert illegal.sum() == 0


class TestPictures:
    def test_values_over_time_and_starts(self, tmp_path) -> None:
        snapshots = counting_snapshots().classify(3)
        save_picture(snapshots, tmp_path / "a.png", np.arange(30))
        assert (tmp_path / "a.png").stat().st_size > 5000
        figure = snapshot_figure(snapshots)
        above, below = figure.axes
        assert sum(len(dots.get_offsets()) for dots in above.collections) == 30
        heights = sum(bar.get_height() for bar in below.patches)
        assert heights == pytest.approx(1.0)
        drawn = snapshot_figure(snapshots, np.arange(30)).axes[1]
        assert sum(bar.get_height() for bar in drawn.patches) == pytest.approx(2.0)

    def test_what_cannot_be_drawn_is_refused(self, tmp_path) -> None:
        with pytest.raises(InputError, match="start_counts"):
            snapshot_figure(counting_snapshots(), [1, 2])
        with pytest.raises(InputError, match="no snapshots"):
            snapshot_figure(counting_snapshots().subset([]))
        with pytest.raises(InputError, match="picture format"):
            save_picture(counting_snapshots(), tmp_path / "a.txt")


def test_collecting_and_wrapping_bring_no_learning_library() -> None:
    script = (
        "import sys, orl.snapshot_rl as s\n"
        "s.SnapshotWrapper, s.collect_snapshots, s.check_snapshot_env, s.SnapshotSet, s.snapshot_figure\n"
        "assert not {'torch', 'stable_baselines3', 'matplotlib', 'mujoco'} & sys.modules.keys()\n"
        "assert set(s.__all__) <= set(dir(s))\n"
        "for name in s.__all__: getattr(s, name)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
