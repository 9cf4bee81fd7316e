"""Exact states of single envs: three ways to take and restore them, and :func:`codec_of` that finds the right one.

======================  ======================================  ====================================================
codec                   for                                     what is recorded
======================  ======================================  ====================================================
:class:`MethodCodec`    envs with ``get_state/set_state``       what the env itself says is its state
:class:`MujocoCodec`    Gymnasium's MuJoCo envs                 the full integration state, the arrays that belong
                                                                to the position before it, the stream of
                                                                ``np_random``
:class:`PickleCodec`    anything that ``copy.deepcopy`` takes   the env's attributes, the stream of ``np_random``
======================  ======================================  ====================================================

A codec reads the env below all wrappers. Of Gymnasium's own wrappers only TimeLimit has a state that matters, its count
of steps; :func:`set_elapsed` restores it. :func:`refuse_stateful_layers` names the layers that have to stay outside.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import wrappers
from gymnasium.wrappers import TimeLimit

from orl.common.errors import InputError
from orl.common.post_decision import FunctionalPostDecision
from orl.common.venv_layers import owner_of

DERIVED = ("xpos", "xipos", "cinert", "cvel", "cfrc_ext", "qfrc_actuator")
"""Arrays of MjData that rewards and observations read after a step, where they still belong to the position before."""
SKIPPED = frozenset(
    {"action_space", "clock", "metadata", "observation_space", "render_mode", "screen", "spec", "viewer", "window"}
)
"""Attributes that PickleCodec leaves alone in every env: what is fixed, and handles of windows."""
STATEFUL = (
    wrappers.DelayObservation,
    wrappers.FrameStackObservation,
    wrappers.MaxAndSkipObservation,
    wrappers.NormalizeObservation,
    wrappers.NormalizeReward,
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.RenderCollection,
    wrappers.StickyAction,
    wrappers.TimeAwareObservation,
    FunctionalPostDecision,
)
"""Wrappers with a state of their own, which no codec records."""
CANNOT_BE_COPIED = (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What ``copy.deepcopy`` raises of objects that cannot be copied."""
Env = gymnasium.Env[Any, Any]


@runtime_checkable
class StateCodec(Protocol):
    """Takes and restores the exact state of a single env, wrapped or not."""

    def get_state(self, env: Env) -> Any:
        """The state, independent of the env and of later steps."""
        ...

    def set_state(self, env: Env, state: Any) -> Any:
        """Restore a state, which is left as it is. Returns the env's own observation of it, or None."""
        ...


class MethodCodec:
    """Asks the env itself: its outermost layer with ``get_state()`` and ``set_state(state)``.

    Everything that the future depends on belongs to such a state (:class:`orl.common.protocols.Cloneable`), the
    position in a stream of noise too, if the env draws between resets.

    >>> env = gymnasium.make("orl:orl/PostDecisionFrozenLake-v0")
    >>> first, _ = env.reset(seed=0)
    >>> codec = MethodCodec()
    >>> state = codec.get_state(env)
    >>> _ = env.step(2)
    >>> bool((codec.set_state(env, state) == first).all())
    True
    """

    def get_state(self, env: Env) -> Any:
        return owner_of(env, "get_state").get_state()

    def set_state(self, env: Env, state: Any) -> Any:
        return owner_of(env, "get_state").set_state(state)


class MujocoCodec:
    """The physics of a MuJoCo env as one float64 vector, and the stream of ``np_random``.

    The vector holds ``mj_getState`` with mjSTATE_INTEGRATION (time, positions, velocities, activations, controls, warm
    start) and the arrays ``arrays`` of MjData. They are derived, but after a step they still belong to the position
    before it, and Gymnasium's envs read them so: ``mj_forward`` would change them, and is not called. Hopper-v5 is
    restored in about 5 microseconds (``benchmarks/snapshot_cost``).

    Args:
        arrays: Derived arrays that rewards or observations read *before* the next step computes them.
        attributes: Names of attributes of the env itself that change, such as a goal; copied deeply.

    Source: MuJoCo's documentation of states (Computation, "The State"); the list of arrays was found by comparing
    replays, and :func:`orl.snapshot_rl.check_snapshot_env` says whether it is enough for an env.
    """

    def __init__(self, arrays: Iterable[str] = DERIVED, attributes: Iterable[str] = ()) -> None:
        self.arrays, self.attributes = tuple(arrays), tuple(attributes)
        self._data: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Views of an env's memory are left out; they are made again."""
        return {"arrays": self.arrays, "attributes": self.attributes, "_data": None}

    def _bind(self, base: Any) -> None:
        """Note the memory of an env: sizes, and flat views of its arrays."""
        import mujoco  # type: ignore[import-untyped]

        self._kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self._get, self._set = mujoco.mj_getState, mujoco.mj_setState
        self._size = size = mujoco.mj_stateSize(base.model, self._kind)
        self._views: list[tuple[npt.NDArray[np.float64], slice]] = []
        for name in self.arrays:
            view = getattr(base.data, name).reshape(-1)
            self._views.append((view, slice(size, size + view.size)))
            size += view.size
        self._total, self._data = size, base.data

    def get_state(self, env: Env) -> dict[str, Any]:
        base: Any = env.unwrapped
        if base.data is not self._data:
            self._bind(base)
        physics = np.empty(self._total)
        self._get(base.model, base.data, physics[: self._size], self._kind)
        for view, at in self._views:
            physics[at] = view
        state = {"physics": physics, "np_random": stream_of(base)}
        if self.attributes:
            state["attributes"] = {name: copy.deepcopy(getattr(base, name)) for name in self.attributes}
        return state

    def set_state(self, env: Env, state: dict[str, Any]) -> None:
        base: Any = env.unwrapped
        if base.data is not self._data:
            self._bind(base)
        physics = state["physics"]
        if len(physics) != self._total:
            raise InputError("a state of another model", field="physics", value=len(physics), expected=str(self._total))
        self._set(base.model, base.data, physics[: self._size], self._kind)
        for view, at in self._views:
            view[:] = physics[at]
        set_stream(base, state["np_random"])
        for name in self.attributes:
            setattr(base, name, copy.deepcopy(state["attributes"][name]))


class PickleCodec:
    """Copies the attributes of the env with ``copy.deepcopy``: slow, and exact where the whole state is in them.

    State in foreign code that copies but forgets, in files or in global variables is not seen:
    :func:`orl.snapshot_rl.check_snapshot_env` finds out. References to the env itself are followed to the env that is
    restored.

    Args:
        skip: Attributes that never change or cannot be copied (handles of a solver or a window), beside
            :data:`SKIPPED`.

    >>> env = gymnasium.make("CartPole-v1")
    >>> _ = env.reset(seed=0)
    >>> codec = PickleCodec()
    >>> state = codec.get_state(env)
    >>> one = env.step(1)[0]
    >>> codec.set_state(env, state)
    >>> bool((env.step(1)[0] == one).all())
    True
    """

    def __init__(self, skip: Iterable[str] = ()) -> None:
        self.skip = SKIPPED.union(skip, {"_np_random"})

    def get_state(self, env: Env) -> dict[str, Any]:
        base = env.unwrapped
        changing = {name: value for name, value in base.__dict__.items() if name not in self.skip}
        try:
            attributes = copy.deepcopy(changing, {id(base): _ITSELF})
        except CANNOT_BE_COPIED as error:
            name = next((name for name, value in changing.items() if not _copies(value, base)), "its attributes")
            raise InputError(
                "cannot be copied",
                source=str(base),
                field=name,
                value=str(error),
                expected="an env with get_state() and set_state(state), or PickleCodec(skip=[...]) that names what "
                "never changes",
            ) from error
        return {"attributes": attributes, "np_random": stream_of(base)}

    def set_state(self, env: Env, state: dict[str, Any]) -> None:
        base = env.unwrapped
        attributes = copy.deepcopy(state["attributes"], {id(_ITSELF): base})
        for name in [name for name in base.__dict__ if name not in self.skip and name not in attributes]:
            del base.__dict__[name]
        base.__dict__.update(attributes)
        set_stream(base, state["np_random"])


class _Itself:
    """Stands in a copy for the env that was copied; there is one."""

    def __reduce__(self) -> str:
        return "_ITSELF"


_ITSELF = _Itself()


def _copies(value: Any, base: Any) -> bool:
    try:
        copy.deepcopy(value, {id(base): _ITSELF})
    except CANNOT_BE_COPIED:
        return False
    return True


def codec_of(env: Env) -> StateCodec:
    """The codec for an env, in this order: its own methods, MuJoCo, copies of its attributes (with a UserWarning).

    Raises:
        InputError: The env can be copied in none of these ways; the message names what cannot.

    >>> type(codec_of(gymnasium.make("orl:orl/JobShop-v0"))).__name__
    'MethodCodec'
    """
    owner = owner_of(env, "get_state")
    if owner is not None and callable(getattr(owner, "set_state", None)):
        return MethodCodec()
    if _is_mujoco(env.unwrapped):
        return MujocoCodec()
    codec = PickleCodec()
    codec.get_state(env)
    warnings.warn(
        f"{env.unwrapped} has no get_state() and set_state(state): snapshots are deep copies of its attributes, which "
        "is slow, and exact only if its whole state is there. orl.snapshot_rl.check_snapshot_env tells whether it is.",
        UserWarning,
        stacklevel=2,
    )
    return codec


def _is_mujoco(base: Any) -> bool:
    mujoco = sys.modules.get("mujoco")
    if mujoco is None:
        return False
    return isinstance(getattr(base, "model", None), mujoco.MjModel) and isinstance(
        getattr(base, "data", None), mujoco.MjData
    )


# ---- the stream of np_random -----------------------------------------------------------------------------------------
def stream_of(base: Any) -> dict[str, Any] | None:
    """State of the env's ``np_random``; None before it is made."""
    generator = base._np_random
    return None if generator is None else generator.bit_generator.state


def set_stream(base: Any, state: Any) -> None:
    """Put the env's ``np_random`` at a place of its stream."""
    if state is None:
        base._np_random = None
        return
    generator = base._np_random
    if generator is None or type(generator.bit_generator).__name__ != state["bit_generator"]:
        base._np_random = generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
    generator.bit_generator.state = state


# ---- wrappers --------------------------------------------------------------------------------------------------------
def layers(env: Any) -> Iterator[Any]:
    """The env and what it wraps, from the outside."""
    yield env
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        yield env


def time_limit_of(env: Env) -> TimeLimit[Any, Any] | None:
    """The outermost TimeLimit, or None."""
    return next((layer for layer in layers(env) if isinstance(layer, TimeLimit)), None)


def set_elapsed(env: Env, steps: int) -> None:
    """Let every TimeLimit of the stack count on from ``steps``."""
    for layer in layers(env):
        if isinstance(layer, TimeLimit):
            layer._elapsed_steps = steps  # type: ignore[assignment]  # None before the first reset


def refuse_stateful_layers(env: Env) -> None:
    """Raise InputError if a wrapper has a state that no codec records (SB3's Monitor among them)."""
    monitor = getattr(sys.modules.get("stable_baselines3.common.monitor"), "Monitor", ())
    for layer in layers(env):
        if isinstance(layer, (*STATEFUL, *((monitor,) if monitor else ()))):
            raise InputError(
                "it has a state of its own, which snapshots do not hold",
                source=type(layer).__name__,
                expected="this wrapper outside SnapshotWrapper: Monitor(SnapshotWrapper(env, ...))",
            )
