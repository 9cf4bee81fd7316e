"""SnapshotRL and S3RL: students that start where a teacher has been, under any algorithm, unchanged.

A teacher (a trained model, a rule, a schedule that a solver found) plays some episodes, of which snapshots are kept.
For the first share of its training a student's episodes start from these; then it goes on in the ordinary env. S3RL
adds two things: starts are drawn uniformly over clusters of the teacher's values, and such episodes are cut after a
hundred steps.

    snapshots = collect_snapshots(teacher, gymnasium.make("Hopper-v5"), n_episodes=10, interval=10)
    snapshots.save("hopper.npz")
    env = Monitor(SnapshotWrapper(gymnasium.make("Hopper-v5"), "hopper.npz", seed=0))
    PPO("MlpPolicy", env).learn(1_000_000, callback=SnapshotSchedule(snapshot_steps=100_000))

Source of the method: Zhao et al., *Snapshot Reinforcement Learning: Leveraging Prior Trajectories for Efficiency*
(arXiv 2403.00673). Names are loaded when they are used, so that importing this package brings no SB3 and no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orl.snapshot_rl.checker import SnapshotError as SnapshotError
    from orl.snapshot_rl.checker import check_snapshot_env as check_snapshot_env
    from orl.snapshot_rl.codecs import MethodCodec as MethodCodec
    from orl.snapshot_rl.codecs import MujocoCodec as MujocoCodec
    from orl.snapshot_rl.codecs import PickleCodec as PickleCodec
    from orl.snapshot_rl.codecs import StateCodec as StateCodec
    from orl.snapshot_rl.codecs import codec_of as codec_of
    from orl.snapshot_rl.collect import collect_snapshots as collect_snapshots
    from orl.snapshot_rl.schedule import SnapshotSchedule as SnapshotSchedule
    from orl.snapshot_rl.snapshots import SnapshotSet as SnapshotSet
    from orl.snapshot_rl.teachers import teacher_from_actions as teacher_from_actions
    from orl.snapshot_rl.vec_wrapper import VecSnapshotWrapper as VecSnapshotWrapper
    from orl.snapshot_rl.viewer import save_picture as save_picture
    from orl.snapshot_rl.viewer import snapshot_figure as snapshot_figure
    from orl.snapshot_rl.wrapper import SnapshotWrapper as SnapshotWrapper

_MODULES = {
    "MethodCodec": "codecs",
    "MujocoCodec": "codecs",
    "PickleCodec": "codecs",
    "SnapshotError": "checker",
    "SnapshotSchedule": "schedule",
    "SnapshotSet": "snapshots",
    "SnapshotWrapper": "wrapper",
    "StateCodec": "codecs",
    "VecSnapshotWrapper": "vec_wrapper",
    "check_snapshot_env": "checker",
    "codec_of": "codecs",
    "collect_snapshots": "collect",
    "save_picture": "viewer",
    "snapshot_figure": "viewer",
    "teacher_from_actions": "teachers",
}
__all__ = [
    "MethodCodec",
    "MujocoCodec",
    "PickleCodec",
    "SnapshotError",
    "SnapshotSchedule",
    "SnapshotSet",
    "SnapshotWrapper",
    "StateCodec",
    "VecSnapshotWrapper",
    "check_snapshot_env",
    "codec_of",
    "collect_snapshots",
    "save_picture",
    "snapshot_figure",
    "teacher_from_actions",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return globals().setdefault(name, getattr(import_module(f"{__name__}.{_MODULES[name]}"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
