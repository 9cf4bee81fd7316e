"""``VecSnapshotWrapper``: the same for batches, of single envs or native."""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from orl.common.batched_values import copy_tree, row, split_infos
from orl.common.errors import InputError
from orl.common.venv_layers import unwrap
from orl.snapshot_rl.selection import StartSampler
from orl.snapshot_rl.snapshots import SnapshotSet, as_snapshots
from orl.snapshot_rl.wrapper import (
    EPISODE,
    SnapshotWrapper,
    about_start,
    draws_of,
    redrawing,
    require_layout,
    require_settings,
)

Flags = npt.NDArray[np.bool_]


class VecSnapshotWrapper(VecEnvWrapper):
    """Snapshots in an SB3 VecEnv: the phase of all copies in one place, and native batches that start from snapshots.

    **A batch of single envs** (DummyVecEnv, SubprocVecEnv) holds a :class:`SnapshotWrapper` in each copy; this class
    passes the phase on. Give the copies the file of the set rather than the set.

    **A native batch** (``orl.make_vec``) has no single envs. Here the set is given to this class: after each automatic
    reset, the copy is put at a snapshot with the batch's ``set_state(i, state)``; snapshots of the single env fit.
    Episodes that began so are truncated as :class:`SnapshotWrapper` does it, with ``terminal_observation`` and
    ``TimeLimit.truncated``. A native batch's own ``max_episode_steps`` counts from the true start of an episode: leave
    it out.

    VecMonitor and VecNormalize go outside.

    Args:
        venv: See above.
        snapshots: A set or its file, for native batches only.
        truncate_step, clustered, p_snapshot, enabled, seed, fresh_noise: As in :class:`SnapshotWrapper`, for native
            batches only.

    Raises:
        InputError: A value outside its range; copies without a SnapshotWrapper in a batch that is not native; a
            wrapper inside that has to be outside.

    >>> import orl
    >>> from orl.snapshot_rl import collect_snapshots, teacher_from_actions
    >>> import gymnasium
    >>> lake = gymnasium.make("orl:orl/PostDecisionFrozenLake-v0")
    >>> snapshots = collect_snapshots(teacher_from_actions([2] * 100), lake, n_episodes=2, interval=1)
    >>> venv = VecSnapshotWrapper(orl.make_vec("orl:orl/PostDecisionFrozenLake-v0", 3), snapshots, seed=0)
    >>> _ = venv.reset()
    >>> int(venv.start_counts.sum()), sorted(venv.reset_infos[0]["snapshot"])
    (3, ['cluster', 'elapsed', 'index', 'return', 'value'])
    """

    def __init__(
        self,
        venv: VecEnv,
        snapshots: SnapshotSet | str | os.PathLike[str] | None = None,
        *,
        truncate_step: int | None = 100,
        clustered: bool = True,
        p_snapshot: float = 1.0,
        enabled: bool = True,
        seed: int | None = None,
        fresh_noise: bool = False,
    ) -> None:
        super().__init__(venv)
        self.enabled = enabled
        self.native = not all(venv.env_is_wrapped(SnapshotWrapper))
        inner, base = unwrap(venv)
        if any(hasattr(type(layer), "normalize_obs") for layer in inner):
            raise InputError(
                "its statistics would mix with stored observations",
                source="VecNormalize",
                expected="VecNormalize(VecSnapshotWrapper(...))",
            )
        if not self.native:
            if snapshots is not None:
                raise InputError(
                    "each copy has its own snapshots", field="snapshots", expected="None: every copy is wrapped already"
                )
            if fresh_noise:
                raise InputError(
                    "each copy draws for itself", field="fresh_noise", expected="SnapshotWrapper(..., fresh_noise=True)"
                )
            self.set_snapshots(enabled)
            return
        if inner:
            raise InputError(
                "it would not see episodes that are cut here",
                source=type(inner[-1]).__name__,
                expected=f"{type(inner[-1]).__name__}(VecSnapshotWrapper(...))",
            )
        self._batch = _native_batch(base)
        if snapshots is None:
            raise InputError("no snapshots", field="snapshots", expected="a SnapshotSet or its file")
        self.snapshots = as_snapshots(snapshots)
        require_settings(self.snapshots, truncate_step, p_snapshot)
        require_layout(self.snapshots, venv.observation_space)
        self.truncate_step, self.p_snapshot = truncate_step, p_snapshot
        self.start_counts: npt.NDArray[np.int64] = np.zeros(len(self.snapshots), np.int64)
        """int64[n], how often an episode has started from each snapshot."""
        self._sampler = StartSampler(self.snapshots.clusters, clustered)
        self._draws = np.random.default_rng(seed)
        self._redrawn = redrawing(self._batch) if fresh_noise else None
        self._start = np.full(self.num_envs, -1)  # the snapshot that each copy's episode began at
        self._steps = np.zeros(self.num_envs, np.int64)
        self._returns = np.zeros(self.num_envs)
        self._started = False

    def set_snapshots(self, enabled: bool) -> list[bool]:
        """Begin or end the phase. Returns whether each copy has just begun, and would begin otherwise now."""
        changed, self.enabled = enabled != self.enabled, enabled
        if not self.native:
            return list(self.venv.env_method("set_snapshots", enabled))
        fresh = self._started & (self._steps == 0)
        return list((fresh & ((self._start < 0) & changed if enabled else self._start >= 0)).tolist())

    def seed(self, seed: int | None = None) -> Any:
        """Seed the copies, and the draws of snapshots with them."""
        if self.native and seed is not None:
            self._draws = draws_of(seed)
        return self.venv.seed(seed)

    def reset(self) -> VecEnvObs:
        observations = self.venv.reset()
        if not self.native:
            return observations
        self._started = True
        return self._begin(observations, np.ones(self.num_envs, np.bool_))

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        if not self.native:
            return observations, rewards, dones, infos
        self._steps += 1
        self._returns += rewards
        limit = np.inf if self.truncate_step is None else self.truncate_step
        inside = self._start >= 0
        cut = inside & ~dones & ((self._steps >= limit) | (not self.enabled))
        for i in np.flatnonzero(cut).tolist():
            infos[i]["terminal_observation"] = copy_tree(row(observations, i))
            infos[i]["TimeLimit.truncated"] = True
        ended = dones | cut
        if not ended.any():
            return observations, rewards, dones, infos
        for i in np.flatnonzero(ended & inside).tolist():
            infos[i][EPISODE] = {
                "r": float(self._returns[i]),
                "l": int(self._steps[i]),
                "index": int(self._start[i]),
            }
        return self._begin(observations, ended, running=cut), rewards, ended, infos

    def _begin(self, observations: Any, which: Flags, running: Flags | None = None) -> VecEnvObs:
        """New episodes in the marked copies; those in ``running`` have not been reset by the batch yet."""
        indices = [(i, self._choose()) for i in np.flatnonzero(which).tolist()]
        self._steps[which], self._returns[which], self._start[which] = 0, 0.0, -1
        observations = copy_tree(observations)
        plain = np.zeros(self.num_envs, np.bool_)
        for i, index in indices:
            if index is None:
                plain[i] = running is not None and running[i]
                self.reset_infos[i] = self.venv.reset_infos[i]
                continue
            state = self.snapshots.states[index]
            self._batch.set_state(i, state if self._redrawn is None else self._redrawn(state, self._draws))
            self._start[i] = index
            self.start_counts[index] += 1
            self.reset_infos[i] = {"snapshot": about_start(self.snapshots, index)}
            _put(observations, i, self.snapshots.observation(index))
        if plain.any():
            fresh, infos = self._batch.reset(options={"reset_mask": plain})
            members = np.flatnonzero(plain).tolist()
            for i, info in zip(members, split_infos(infos, members, self.num_envs), strict=True):
                self.reset_infos[i] = info
                _put(observations, i, row(fresh, i))
        return cast(VecEnvObs, observations)

    def _choose(self) -> int | None:
        if not self.enabled or (self.p_snapshot < 1.0 and self._draws.random() >= self.p_snapshot):
            return None
        return self._sampler.draw(self._draws)


def _native_batch(base: Any) -> Any:
    """The native batch behind the bridge. Raises InputError if there is none whose copies can be restored."""
    batch = getattr(base, "env", None)
    if isinstance(batch, VectorEnv):
        for method in ("get_state", "set_state"):
            if not hasattr(batch, method):
                break
        else:
            return batch
    raise InputError(
        "its copies cannot be put at snapshots",
        source=type(base).__name__,
        expected="a native batch with get_state(i) and set_state(i, state) through orl.make_vec, or single envs that "
        "are wrapped each: DummyVecEnv([lambda: Monitor(SnapshotWrapper(gymnasium.make(id), 'teacher.npz'))] * 4)",
    )


def _put(batch: Any, i: int, observation: Any) -> None:
    if isinstance(batch, dict):
        for key, part in batch.items():
            part[i] = observation[key]
    else:
        batch[i] = observation
