"""``SnapshotSchedule``: snapshots for the first steps of a training, then the ordinary env."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from orl.common.errors import InputError
from orl.snapshot_rl.vec_wrapper import VecSnapshotWrapper
from orl.snapshot_rl.wrapper import EPISODE


class SnapshotSchedule(BaseCallback):
    """Ends the snapshot phase of the training env after ``snapshot_steps`` steps of all copies together.

    The last step of the phase, the one that brings ``num_timesteps`` to the limit or beyond, truncates every episode
    that began at a snapshot; so no transition after it comes from one, and the algorithm bootstraps where it was cut.
    Whether the phase is on follows from ``num_timesteps`` alone: a training that was saved and goes on with a new
    callback and a new env switches at the same step. Should such an env have begun at a snapshot after the phase is
    over, or the other way round, it is reset before the first step.

    Logged: ``snapshot/phase`` (1 or 0), ``snapshot/episodes``, ``snapshot/ep_rew_mean`` and ``snapshot/ep_len_mean`` of
    the last episodes that began at a snapshot, counted from there. They cannot be compared with those of ordinary
    episodes: compare evaluations on the ordinary env (EvalCallback).

    Args:
        snapshot_steps: Length of the phase.
        fraction: The same as a share of the steps of ``learn`` (with ``reset_num_timesteps=False``: of all so far and
            those); where a training comes in pieces give ``snapshot_steps``. The paper has 0.1.
        window: Episodes of the means.
        verbose: 1 tells when the phase ends.

    Raises:
        InputError: Not exactly one length, or one outside its range; at ``learn``: the env has no snapshots.

    >>> SnapshotSchedule(fraction=0.1).fraction
    0.1
    """

    def __init__(
        self,
        snapshot_steps: int | None = None,
        *,
        fraction: float | None = None,
        window: int = 100,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        if (snapshot_steps is None) == (fraction is None):
            raise InputError("one length of the phase is needed", field="snapshot_steps", expected="it, or fraction")
        if snapshot_steps is not None and snapshot_steps < 0:
            raise InputError("bad length", field="snapshot_steps", value=snapshot_steps, expected=">= 0")
        if fraction is not None and not 0.0 <= fraction <= 1.0:
            raise InputError("bad length", field="fraction", value=fraction, expected="between 0 and 1")
        self.snapshot_steps, self.fraction = snapshot_steps, fraction
        self._episodes: deque[dict[str, Any]] = deque(maxlen=window)
        self._count = 0
        self._on: bool | None = None

    @property
    def limit(self) -> int:
        """Steps of the phase."""
        if self.snapshot_steps is not None:
            return self.snapshot_steps
        assert self.fraction is not None
        return round(self.fraction * self.model._total_timesteps)

    def _on_training_start(self) -> None:
        # The env was reset before this call: what has just begun must have begun as the phase says. The first step may
        # already be the last of the phase.
        began = _tell(self.training_env, self.model.num_timesteps < self.limit)
        if all(began):
            self._reset_env()
        self._on = None
        self._switch()

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if EPISODE in info:
                self._episodes.append(info[EPISODE])
                self._count += 1
        self._switch()
        return True

    def _on_rollout_end(self) -> None:
        self.logger.record("snapshot/phase", int(bool(self._on)))
        self.logger.record("snapshot/episodes", self._count)
        if self._episodes:
            self.logger.record("snapshot/ep_rew_mean", float(np.mean([e["r"] for e in self._episodes])))
            self.logger.record("snapshot/ep_len_mean", float(np.mean([e["l"] for e in self._episodes])))

    def _switch(self) -> None:
        """Tell the envs whether the phase goes on beyond their next step, if that is news."""
        after = self.model.num_timesteps + self.training_env.num_envs
        on = after < self.limit
        if on == self._on:
            return
        if self._on and self.verbose:
            print(f"snapshot phase ends at step {after}")
        self._on = on
        _tell(self.training_env, on)

    def _reset_env(self) -> None:
        """Begin anew, as ``learn`` does: nothing has been played yet."""
        model: Any = self.model
        model._last_obs = self.training_env.reset()
        model._last_episode_starts = np.ones(self.training_env.num_envs, np.bool_)
        if model._vec_normalize_env is not None:
            model._last_original_obs = model._vec_normalize_env.get_original_obs()


def _tell(venv: Any, on: bool) -> list[bool]:
    """Set the phase of every copy; returns whether each has just begun, and would begin otherwise now."""
    layer = venv
    while layer is not None:
        if isinstance(layer, VecSnapshotWrapper):
            return layer.set_snapshots(on)
        layer = layer.__dict__.get("venv")
    try:
        return list(venv.env_method("set_snapshots", on))
    except AttributeError as error:
        raise InputError(
            "the training env starts from no snapshots",
            field="env",
            value=venv,
            expected="a SnapshotWrapper in every copy, or a VecSnapshotWrapper around a native batch",
        ) from error
