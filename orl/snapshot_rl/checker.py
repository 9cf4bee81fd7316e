"""``check_snapshot_env``: whether an env can be restored exactly, found out by restoring it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np

from orl.common.action_masks import random_legal_actions
from orl.common.batched_values import copy_tree
from orl.common.errors import InputError
from orl.snapshot_rl.codecs import (
    Env,
    MethodCodec,
    MujocoCodec,
    StateCodec,
    codec_of,
    refuse_stateful_layers,
    set_elapsed,
    stream_of,
    time_limit_of,
)
from orl.snapshot_rl.state_trees import pack, same_bits, unpack

Trace = list[dict[str, Any]]


class SnapshotError(ValueError):
    """An env cannot be restored exactly; the message says what was seen, and why if that could be found out."""


def check_snapshot_env(
    env: Env | Callable[[], Env],
    *,
    codec: StateCodec | None = None,
    n_trials: int = 5,
    n_steps: int = 25,
    seed: int = 0,
) -> tuple[str, ...]:
    """Take states in the middle of episodes, go on, scramble the env, restore, go on again: all must be equal.

    Compared to the last bit: observations, rewards, ends, and what infos hold of numbers, strings and arrays, over up
    to ``n_steps`` random legal actions.

    - *independence*: a state does not change when the env steps on, nor when it is restored and played;
    - *round trip*: the same env, restored after another episode from another seed, and then once more;
    - *other instance*: another env of the same kind (made by ``env`` if that is a function, else from ``env.spec``),
      which is what a student's env is;
    - *storage*: the state after it went through a file.

    The global streams of ``random`` and ``numpy.random`` are put back afterwards.

    Args:
        env: A single env, wrapped as a student would have it below SnapshotWrapper, or a function that makes one.
        codec: How states are taken; None: :func:`~orl.snapshot_rl.codecs.codec_of` the env.
        n_trials: States to try.
        n_steps: Steps after each.
        seed: Of resets and actions.

    Returns:
        Names of what was checked; ``"other instance"`` is missing where no second env could be made, ``"storage"``
        where states cannot be stored in a file (SnapshotSet.save then says why).

    Raises:
        SnapshotError: It cannot be restored exactly.
        InputError: It cannot be copied at all, or a wrapper inside has a state of its own.

    >>> check_snapshot_env(gymnasium.make("orl:orl/JobShop-v0"))
    ('independence', 'round trip', 'other instance', 'storage')
    """
    make: Callable[[], Env] | None
    if isinstance(env, gymnasium.Env):
        spec = env.spec
        make = None if spec is None else lambda: gymnasium.make(spec)
        first = env
    else:
        make, first = env, env()
    refuse_stateful_layers(first)
    first.reset(seed=seed)
    chosen = codec_of(first) if codec is None else codec
    other = None if make is None else make()
    stored = True
    with _streams_kept():
        for trial in range(n_trials):
            stored &= _Trial(first, other, chosen, n_steps, seed + trial).run()
    if other is not None:
        other.close()
    names = ("independence", "round trip", *(("other instance",) if other is not None else ()))
    return (*names, "storage") if stored else names


class _Trial:
    """One state of one episode."""

    def __init__(self, env: Env, other: Env | None, codec: StateCodec, n_steps: int, seed: int) -> None:
        self.env, self.other, self.codec, self.n_steps, self.seed = env, other, codec, n_steps, seed
        self.rng = np.random.default_rng(seed)

    def run(self) -> bool:
        """Raises SnapshotError; returns whether the state could also be stored."""
        self._reach_a_state()
        self.state = self.codec.get_state(self.env)
        limit = time_limit_of(self.env)
        self.elapsed = 0 if limit is None else limit._elapsed_steps or 0
        self.stream, self.streams = stream_of(self.env.unwrapped), _streams()
        try:
            packed: Any = pack([self.state])
        except InputError:
            packed = None
        self.actions: list[Any] = []
        self.trace = self._play(self.env)
        if packed is not None and not same_bits(self.state, unpack(packed)[0]):
            raise self._error("a state changes when the env steps on: it refers to live arrays; copy them")
        for _ in range(2):
            self._scramble(self.env)
            self._compare(self.env, self.state)
        if packed is not None and not same_bits(self.state, unpack(packed)[0]):
            raise self._error("a state changes when it is restored and played; copy its arrays into the env")
        if self.other is not None:
            self._scramble(self.other)
            self._compare(self.other, self.state, "another instance of the env")
        if packed is not None:
            self._scramble(self.env)
            self._compare(self.env, unpack(packed)[0], "a state that was stored in a file")
        return packed is not None

    def _reach_a_state(self) -> None:
        self.env.reset(seed=self.seed)
        for _ in range(int(self.rng.integers(0, 30))):
            _, _, terminated, truncated, _ = self.env.step(_random_action(self.env, self.rng))
            if terminated or truncated:
                self.env.reset()

    def _scramble(self, env: Env) -> None:
        """Another episode, from another seed, for some steps."""
        env.reset(seed=self.seed + 1000)
        for _ in range(int(self.rng.integers(1, 10))):
            _, _, terminated, truncated, _ = env.step(_random_action(env, self.rng))
            if terminated or truncated:
                env.reset()

    def _play(self, env: Env) -> Trace:
        """The actions of the first play again; the first play draws them."""
        trace: Trace = []
        for t in range(self.n_steps):
            if t == len(self.actions):
                self.actions.append(_random_action(env, self.rng))
            observation, reward, terminated, truncated, info = env.step(self.actions[t])
            trace.append(
                {
                    "observation": copy_tree(observation),
                    "reward": reward,
                    "terminated": bool(terminated),
                    "truncated": bool(truncated),
                    "info": _plain(info),
                }
            )
            if terminated or truncated:
                break
        return trace

    def _replay(self, env: Env, state: Any) -> Trace | ValueError:
        self.codec.set_state(env, state)
        set_elapsed(env, self.elapsed)
        try:
            return self._play(env)
        except ValueError as error:  # an action that was legal is not, after another course of events
            return error

    def _compare(self, env: Env, state: Any, where: str = "the env") -> None:
        found = self._difference(self._replay(env, state))
        if found is None:
            return
        with _streams_kept():
            _set_streams(self.streams)
            if self._difference(self._replay(env, state)) is None:
                raise self._error(
                    f"{found}, unless the global streams of random and numpy.random are put back, too: it draws from "
                    "one of them. Let it draw from self.np_random"
                )
        self.codec.set_state(env, state)
        if not same_bits(stream_of(env.unwrapped), self.stream) and isinstance(self.codec, MethodCodec):
            raise self._error(
                f"{found}. Its state leaves out the stream of np_random, which it draws from between resets: add "
                "self.np_random.bit_generator.state"
            )
        raise self._error(f"restored in {where}, {found}. {self._advice()}")

    def _difference(self, trace: Trace | ValueError) -> str | None:
        """What is other than in the first play, or None."""
        if isinstance(trace, ValueError):
            return f"the same actions are refused ({trace})"
        for t, (one, two) in enumerate(zip(self.trace, trace, strict=False), start=1):
            for key in one:
                if not _same(one[key], two[key]):
                    return f"{key} differs {t} step{'s' * (t > 1)} after the state"
        return None if len(self.trace) == len(trace) else "the episode has another length"

    def _advice(self) -> str:
        if isinstance(self.codec, MethodCodec):
            return "Something that the future depends on is missing in get_state(), or set_state() does not restore it"
        if isinstance(self.codec, MujocoCodec):
            return (
                "Beyond the physics, something changes: name attributes of the env in MujocoCodec(attributes=[...]), "
                "arrays of MjData that are read before a step in MujocoCodec(arrays=[...]); a model that is changed "
                "between episodes, or a wrapper with a state of its own, needs get_state() and set_state(state)"
            )
        return (
            "Part of its state is not in its attributes, or is in foreign code, which copies but forgets: give it "
            "get_state() and set_state(state)"
        )

    def _error(self, problem: str) -> SnapshotError:
        return SnapshotError(f"{self.env} cannot be restored exactly: {problem}.")


def _random_action(env: Env, rng: np.random.Generator) -> Any:
    if env.has_wrapper_attr("action_masks"):
        masks = np.asarray(env.get_wrapper_attr("action_masks")())[None]
        return random_legal_actions(env.action_space, masks, rng)[0]
    env.action_space.seed(int(rng.integers(2**31)))
    return env.action_space.sample()


def _plain(value: Any) -> Any:
    """What an info holds of numbers, strings and arrays; other things are left out."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else value.copy()
    return value if isinstance(value, bool | int | float | str | np.generic) else None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) or isinstance(b, Mapping):
        same_keys = isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys()
        return same_keys and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray | np.generic | float) or isinstance(b, np.ndarray | np.generic | float):
        x, y = np.asarray(a), np.asarray(b)
        return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
    return bool(a == b)


# ---- global streams --------------------------------------------------------------------------------------------------
def _streams() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()  # noqa: NPY002


def _set_streams(streams: tuple[Any, Any]) -> None:
    random.setstate(streams[0])
    np.random.set_state(streams[1])  # noqa: NPY002


@contextmanager
def _streams_kept() -> Iterator[None]:
    streams = _streams()
    try:
        yield
    finally:
        _set_streams(streams)
