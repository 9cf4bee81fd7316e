"""``SnapshotWrapper``: episodes of a single env that start where a teacher has been."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from orl.common.errors import InputError
from orl.common.venv_layers import owner_of
from orl.snapshot_rl.codecs import (
    MethodCodec,
    MujocoCodec,
    PickleCodec,
    StateCodec,
    codec_of,
    refuse_stateful_layers,
    set_elapsed,
    set_stream,
    stream_of,
    time_limit_of,
)
from orl.snapshot_rl.selection import StartSampler
from orl.snapshot_rl.snapshots import SnapshotSet, as_snapshots

EPISODE = "snapshot_episode"
"""Key of the info of an episode's last step, if it began at a snapshot."""


class SnapshotWrapper(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Start episodes from snapshots; the rest of the env, and the algorithm that learns in it, stay as they are.

    While the wrapper is enabled, ``reset`` draws a snapshot (with probability ``p_snapshot``), restores it and returns
    the observation that was stored with it; ``info["snapshot"]`` holds its index, cluster, elapsed steps, return so far
    and value. An episode that began so is truncated after ``truncate_step`` steps, and its last info holds
    ``info["snapshot_episode"]`` with ``r`` and ``l``, return and length since the snapshot, and ``index``. TimeLimits
    inside start to count at the snapshot, so that one late in an episode has as many steps as any other.

    ``set_snapshots(False)`` ends the phase: an episode that began at a snapshot is truncated by its next step, and from
    then on every reset is the env's own. Resets that start from no snapshot go on in the env's own stream of random
    numbers, as if there had been no snapshot. Disabled from the start, the wrapper changes nothing.

    ``reset(options={"snapshot": i})`` starts from snapshot ``i``, ``{"snapshot": None}`` from none; other options are
    the env's, and ask for a reset of its own. A seed fixes the env's stream and the draws of snapshots.

    What has a state of its own goes outside: Monitor (its returns then count from the snapshot on), stacked frames,
    normalisation. ``Monitor(SnapshotWrapper(gymnasium.make(id), "teacher.npz", seed=0))``

    Args:
        env: The env that the teacher played (same wrappers, as far as they change observations).
        snapshots: A set or its file; with worker processes, the file.
        truncate_step: None: as long as the env's own time limit allows.
        clustered: Draw uniformly over clusters, then inside them; False: uniformly over snapshots.
        p_snapshot: Share of resets that start from a snapshot.
        enabled: Whether the phase is on from the start.
        seed: Of the draws; None: fresh ones.
        fresh_noise: Draw what is still to come anew at every start, so that no student meets the very future that the
            teacher met: by ``redrawn(state, rng)`` of the env (:class:`orl.common.protocols.Redrawable`) or of a codec
            of yours; in MuJoCo's and copied envs by another stream of ``np_random``, and of that alone. False: a
            snapshot is exact, its noise included.
        codec: How states are restored; None: :func:`~orl.snapshot_rl.codecs.codec_of` the env.

    Raises:
        InputError: A value outside its range, snapshots of another env, or a wrapper inside that has to be outside.

    >>> from orl.snapshot_rl import collect_snapshots, teacher_from_actions
    >>> def make():
    ...     return gymnasium.make("orl:orl/PostDecisionFrozenLake-v0", instance="lake-4x4")
    >>> right = teacher_from_actions([2] * 100)
    >>> snapshots = collect_snapshots(right, make(), n_episodes=5, interval=1, seed=0)
    >>> env = SnapshotWrapper(make(), snapshots, truncate_step=5, seed=0)
    >>> observation, info = env.reset(seed=0)
    >>> bool((observation == snapshots.observation(info["snapshot"]["index"])).all())
    True
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        snapshots: SnapshotSet | str | os.PathLike[str],
        *,
        truncate_step: int | None = 100,
        clustered: bool = True,
        p_snapshot: float = 1.0,
        enabled: bool = True,
        seed: int | None = None,
        fresh_noise: bool = False,
        codec: StateCodec | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            snapshots=snapshots,
            truncate_step=truncate_step,
            clustered=clustered,
            p_snapshot=p_snapshot,
            enabled=enabled,
            seed=seed,
            fresh_noise=fresh_noise,
            codec=codec,
            _disable_deepcopy=True,
        )
        gymnasium.Wrapper.__init__(self, env)
        refuse_stateful_layers(env)
        self.snapshots = as_snapshots(snapshots)
        require_settings(self.snapshots, truncate_step, p_snapshot)
        require_layout(self.snapshots, env.observation_space)
        self.truncate_step, self.p_snapshot, self.enabled = truncate_step, p_snapshot, enabled
        self.codec = codec_of(env) if codec is None else codec
        self.fresh_noise = fresh_noise
        self._redrawn = _redrawing(env, self.codec) if fresh_noise else None
        self.start_counts: npt.NDArray[np.int64] = np.zeros(len(self.snapshots), np.int64)
        """int64[n], how often an episode has started from each snapshot."""
        self._sampler = StartSampler(self.snapshots.clusters, clustered)
        self._draws = np.random.default_rng(seed)
        self._limit = _shortest(truncate_step, time_limit_of(env))
        self._started = False  # whether the env has ever been reset
        self._stream: Any = None  # of the env, while a snapshot stands at another place of it
        self._start: int | None = None  # the snapshot that the episode began at
        self._steps, self._return = 0, 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode, from a snapshot or as the env does; see the class."""
        if seed is not None:
            self._draws = draws_of(seed)
        wish, options = _split(options)
        if wish is _DRAW:
            wish = None if options else self._choose()
        if self._start is not None:
            set_stream(self.unwrapped, self._stream)
            self._start = None
        self._steps, self._return = 0, 0.0
        if wish is None:
            self._started = True
            return self.env.reset(seed=seed, options=options)
        if seed is not None or not self._started:
            self.env.reset(seed=seed)
            self._started = True
        return self._begin(wish)

    def _choose(self) -> int | None:
        """The snapshot of the next episode, or None."""
        if not self.enabled or (self.p_snapshot < 1.0 and self._draws.random() >= self.p_snapshot):
            return None
        return self._sampler.draw(self._draws)

    def _begin(self, index: int) -> tuple[Any, dict[str, Any]]:
        if not 0 <= index < len(self.snapshots):
            raise InputError(
                "no such snapshot", field="snapshot", value=index, expected=f"0 to {len(self.snapshots) - 1}, or None"
            )
        self._stream = stream_of(self.unwrapped)
        state = self.snapshots.states[index]
        self.codec.set_state(self.env, state if self._redrawn is None else self._redrawn(state, self._draws))
        if self.fresh_noise and self._redrawn is None:
            set_stream(self.unwrapped, np.random.default_rng(self._draws.integers(2**63)).bit_generator.state)
        set_elapsed(self.env, 0)
        self._start = index
        self.start_counts[index] += 1
        return self.snapshots.observation(index), {"snapshot": about_start(self.snapshots, index)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """The env's step; truncated where the class says so."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self._start is None:
            return observation, reward, terminated, truncated, info
        self._steps += 1
        self._return += float(reward)
        cut = not self.enabled or (self._limit is not None and self._steps >= self._limit)
        truncated = truncated or (cut and not terminated)
        if terminated or truncated:
            info = {**info, EPISODE: {"r": self._return, "l": self._steps, "index": self._start}}
        return observation, reward, terminated, truncated, info

    def set_snapshots(self, enabled: bool) -> bool:
        """Begin or end the phase. Returns whether the present episode has just begun, and would begin otherwise now."""
        changed, self.enabled = enabled != self.enabled, enabled
        return (
            self._started
            and self._steps == 0
            and (self._start is None and changed if enabled else self._start is not None)
        )

    def __str__(self) -> str:
        return f"<SnapshotWrapper of {len(self.snapshots)} snapshots{self.env}>"


def _shortest(truncate_step: int | None, limit: Any) -> int | None:
    steps = [n for n in (truncate_step, None if limit is None else limit._max_episode_steps) if n is not None]
    return min(steps, default=None)


def redrawing(taker: Any) -> Callable[[Any, np.random.Generator], Any]:
    """The method ``redrawn`` of the layer, batch or codec whose states are restored.

    Raises:
        InputError: It has none.
    """
    method: Callable[[Any, np.random.Generator], Any] | None = getattr(taker, "redrawn", None)
    if method is None:
        raise InputError(
            "its states cannot be given another future",
            source=type(taker).__name__,
            field="fresh_noise",
            expected="False (where nothing is random after the start), or redrawn(state, rng) beside set_state",
        )
    return method


def _redrawing(env: gymnasium.Env[Any, Any], codec: StateCodec) -> Callable[[Any, np.random.Generator], Any] | None:
    """How ``fresh_noise`` changes a state; None: it does not, the stream of ``np_random`` is changed."""
    if not isinstance(codec, MujocoCodec | PickleCodec):
        return redrawing(owner_of(env, "get_state") if isinstance(codec, MethodCodec) else codec)
    if owner_of(env, "get_state") is not None:
        raise InputError(
            "the noise of this env is not in np_random alone",
            source=type(codec).__name__,
            field="fresh_noise",
            expected="codec=None, since the env has get_state and set_state",
        )
    return None


_DRAW = object()


def _split(options: dict[str, Any] | None) -> tuple[Any, dict[str, Any] | None]:
    """The snapshot that the options ask for, and the env's own options."""
    if not options or "snapshot" not in options:
        return _DRAW, options
    own = {key: value for key, value in options.items() if key != "snapshot"}
    return options["snapshot"], own or None


def draws_of(seed: int) -> np.random.Generator:
    """The generator of the draws of snapshots; its numbers are not those of the env seeded alike."""
    return np.random.default_rng([seed, 0x5E1EC7])


def about_start(snapshots: SnapshotSet, index: int) -> dict[str, Any]:
    """What ``info["snapshot"]`` tells of a snapshot."""
    return {
        "index": index,
        "cluster": int(snapshots.clusters[index]),
        "elapsed": int(snapshots.elapsed[index]),
        "return": float(snapshots.returns[index]),
        "value": float(snapshots.values[index]),
    }


def require_settings(snapshots: SnapshotSet, truncate_step: int | None, p_snapshot: float) -> None:
    """Raise InputError unless there are snapshots and the settings are within their ranges."""
    if not len(snapshots):
        raise InputError("no snapshots", field="snapshots", expected="at least one")
    if truncate_step is not None and (type(truncate_step) is not int or truncate_step < 1):
        raise InputError("bad limit", field="truncate_step", value=truncate_step, expected="an int >= 1, or None")
    if not 0.0 <= p_snapshot <= 1.0:
        raise InputError("no probability", field="p_snapshot", value=p_snapshot, expected="between 0 and 1")


def require_layout(snapshots: SnapshotSet, space: spaces.Space[Any]) -> None:
    """Raise InputError unless the stored observations look like those of the space."""
    parts: dict[str, spaces.Space[Any]] = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
    stored = snapshots.observations if isinstance(snapshots.observations, Mapping) else {"": snapshots.observations}
    found = {key: (value.shape[1:], value.dtype.kind) for key, value in stored.items()}
    wanted = {key: (part.shape, None if part.dtype is None else part.dtype.kind) for key, part in parts.items()}
    if found != wanted:
        raise InputError(
            "the snapshots are of another env",
            field="observations",
            value=found,
            expected=f"{wanted} (shapes and kinds of dtype of {space})",
        )
