"""Checkpoints of a training: everything from which a new process goes on as if nothing had happened.

SB3's ``save`` keeps networks and optimisers. For the same result as an uninterrupted training one needs the rest too:
the replay buffer, the environments in the middle of their episodes, running statistics, every random generator.

How it is done. The new process builds model and environments as at the start, then :func:`restore` writes the saved
state into them, layer by layer (each VecEnv, each wrapper, each environment): its attributes, or what its
``__getstate__`` gives. References between layers are kept as references, arrays that are views of one another stay so,
networks are restored through their state dicts. A checkpoint is taken where a rollout begins, so that no half rollout
has to be saved. There SB3 has drawn exploration noise already: generators and noise are written back at that very place
(:meth:`Restored.at_rollout_start`), not before.

What cannot be saved in this way (an environment that holds a process, a socket or a simulator of foreign code; an
algorithm that is neither SB3's on-policy nor off-policy kind) goes on with its environments reset, and says so:
``exact`` is False. State that an environment keeps outside of its attributes, or in foreign code that pickles but
forgets, is not seen.

Checkpoints are pickles: whoever can write one can run code in the process that reads it. They are read from the run's
own work folder only; do not take one from elsewhere.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium
import numpy as np
import torch
from gymnasium.utils import EzPickle
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import recursive_getattr, recursive_setattr
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from orl.bench.interruption import Interrupted
from orl.bench.random_streams import read_streams, write_streams
from orl.bench.resources import Spent
from orl.common.atomic import atomic_path
from orl.common.errors import InputError

SCHEMA = "orl.checkpoint/1"
FILE = "checkpoint.pkl"
CANNOT_BE_PICKLED = (
    AttributeError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PicklingError,
)
"""What objects raise that cannot be pickled."""
KEPT = frozenset({"class_attributes"})
"""Attributes of VecEnvWrappers that are the same in every process and cannot be pickled."""
RECURRENT = "_last_lstm_states"
"""Memory of recurrent policies between rollouts, which sb3-contrib leaves out of saved models."""
CONFIGURED = frozenset({"_update_current_progress_remaining", "action_space", "observation_space", "tensorboard_log"})
"""Attributes of a model that the new process sets itself, or that are restored as layers."""


@dataclass(frozen=True)
class Notes:
    """What a checkpoint says beside the state of the training.

    Attributes:
        steps: Environment steps done.
        seconds, cpu_seconds: Of training, evaluation excluded.
        curve: The learning curve so far, JSON lines.
        spent: What the run has used.
        resumed: Times the run has gone on from a checkpoint.
        exact: Whether the result is that of an uninterrupted training so far.
        finished: The training is over, only the final evaluation is missing.
        versions: Versions of packages.
    """

    steps: int
    seconds: float
    cpu_seconds: float
    curve: str
    spent: Spent
    resumed: int = 0
    exact: bool = True
    finished: bool = False
    versions: dict[str, Any] = field(default_factory=dict)


@dataclass
class Restored:
    """A checkpoint that has been written into a model.

    Attributes:
        notes: What it says.
        exact: Whether everything was in it; if not, the environments have to be reset.
    """

    notes: Notes
    exact: bool
    _model: BaseAlgorithm
    _late: bytes

    def at_rollout_start(self) -> None:
        """Write back what SB3 changes between the call of ``learn`` and the first step of a rollout."""
        late = pickle.loads(self._late)
        noise = getattr(self._model, "action_noise", None)
        if noise is not None and late["action_noise"] is not None:
            noise.__dict__.update(late["action_noise"])
        for distribution, matrices in zip(_explorations(self._model), late["explorations"], strict=True):
            distribution.exploration_mat, distribution.exploration_matrices = matrices
        write_streams(late["streams"])


def save(model: BaseAlgorithm, notes: Notes, folder: Path) -> bool:
    """Write a checkpoint into ``folder``; the one that was there is replaced when the new one is safely on the disk.

    Args:
        model: At the start of a rollout, or after ``learn``.
        notes: What to say beside it.
        folder: The run's work folder.

    Returns:
        Whether a training that goes on from it has the result of an uninterrupted one.

    Raises:
        OSError: the disk is full.
    """
    layers = _layers(model)
    exact = isinstance(model, OnPolicyAlgorithm | OffPolicyAlgorithm)
    with atomic_path(folder / FILE) as temporary, temporary.open("wb") as file:
        if exact:
            try:
                _dump(file, layers, {i: _layer_state(layer) for i, layer in enumerate(layers)})
            except CANNOT_BE_PICKLED:
                exact = False
        if not exact:
            file.seek(0)
            file.truncate()
            kept = (VecEnvWrapper, gymnasium.Space)
            _dump(file, layers, {i: _layer_state(x) for i, x in enumerate(layers) if isinstance(x, kept)})
        late = {
            "streams": read_streams(),
            "action_noise": _attributes(getattr(model, "action_noise", None)),
            "explorations": [(d.exploration_mat, d.exploration_matrices) for d in _explorations(model)],
        }
        rest = {
            "schema": SCHEMA,
            "notes": notes,
            "exact": exact,
            "attributes": _model_attributes(model),
            "tensors": _tensors(model),
            "late": cloudpickle.dumps(late),
            "replay_buffer": _buffer_state(getattr(model, "replay_buffer", None)),
        }
        _dump(file, layers, rest)
        file.flush()
        os.fsync(file.fileno())
    return exact


def restore(model: BaseAlgorithm, folder: Path) -> Restored | None:
    """Write the checkpoint in ``folder`` into a model that was built as at the start; None if there is none.

    What a process that was killed while it wrote has left there is removed.

    Raises:
        InputError: the checkpoint is damaged or not ours.
    """
    for leftover in folder.glob(f".{FILE}.*"):
        shutil.rmtree(leftover)
    path = folder / FILE
    if not path.exists():
        return None
    layers = _layers(model)
    try:
        with path.open("rb") as file:
            states = _Unpickler(file, layers).load()
            rest = _Unpickler(file, layers).load()
    except (*CANNOT_BE_PICKLED, pickle.UnpicklingError, EOFError, ImportError, LookupError) as error:
        expected = "a checkpoint of this run; remove its folder to start it anew"
        raise InputError("cannot be read", source=str(path), value=str(error), expected=expected) from error
    if not isinstance(rest, dict) or rest.get("schema") != SCHEMA:
        raise InputError("not a checkpoint", source=str(path), field="schema", expected=SCHEMA)
    for index, state in states.items():
        _set_layer_state(layers[index], state)
    model.__dict__.update(rest["attributes"])
    _set_tensors(model, rest["tensors"])
    _set_buffer_state(getattr(model, "replay_buffer", None), rest["replay_buffer"])
    if not rest["exact"]:
        model._last_obs = None  # learn() then resets the environments
    return Restored(rest["notes"], rest["exact"], model, rest["late"])


class Checkpoints(BaseCallback):
    """Saves checkpoints where rollouts begin, and ends the training when it is asked to stop.

    Args:
        save: Saves one.
        every: Steps between two; None for one only when asked to stop.
        stop: Polled at every step; once true, the training saves a checkpoint at the next start of a rollout and raises
            Interrupted.
        restored: The checkpoint from which this training goes on.
        pause: Context in which the clock of the training stands still.
    """

    def __init__(
        self,
        save: Callable[[], None],
        *,
        every: int | None,
        stop: Callable[[], bool],
        restored: Restored | None,
        pause: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self.save, self.every, self.stop, self.restored, self.pause = save, every, stop, restored, pause
        self.asked = False
        self.last = 0 if restored is None else restored.notes.steps

    def _on_rollout_start(self) -> None:
        if self.restored is not None:
            self.restored.at_rollout_start()
            self.restored = None
        self.asked = self.asked or self.stop()
        steps = self.model.num_timesteps
        due = self.every is not None and steps // self.every > self.last // self.every
        if self.asked or due:
            with self.pause():
                self.save()
            self.last = steps
        if self.asked:
            raise Interrupted

    def _on_step(self) -> bool:
        self.asked = self.asked or self.stop()
        return True


# ---- layers --------------------------------------------------------------------------------------------------------
def _layers(model: BaseAlgorithm) -> list[Any]:
    """The objects of a training that exist in the new process too, in an order that is the same there."""
    found: list[Any] = [model.action_space, model.observation_space]
    found += _environment_layers(model.env)
    buffer = getattr(model, "replay_buffer", None)
    return found if buffer is None else [*found, buffer]


def _environment_layers(env: Any) -> Iterator[Any]:
    """An environment, single or batched, and all that it wraps."""
    yield env
    if isinstance(env, VecEnvWrapper):
        yield from _environment_layers(env.venv)
    elif isinstance(env, gymnasium.Wrapper | gymnasium.vector.VectorWrapper):
        yield from _environment_layers(env.env)
    elif isinstance(env, VecEnv) and isinstance(inner := getattr(env, "env", None), gymnasium.vector.VectorEnv):
        yield from _environment_layers(inner)
    elif isinstance(env, VecEnv | gymnasium.vector.VectorEnv):
        for copy in getattr(env, "envs", ()):
            yield from _environment_layers(copy)


def _gives_own_state(layer: Any) -> bool:
    """Whether an environment says itself what its state is; EzPickle's arguments of the constructor are none."""
    if not isinstance(layer, gymnasium.Env | gymnasium.vector.VectorEnv):
        return False
    own: Any = type(layer).__getstate__
    return own is not object.__getstate__ and own is not EzPickle.__getstate__


def _layer_state(layer: Any) -> Any:
    if _gives_own_state(layer):
        return layer.__getstate__()
    if isinstance(layer, BaseBuffer):
        return {}  # a replay buffer, which is saved in its own way
    return {name: value for name, value in layer.__dict__.items() if name not in KEPT}


def _set_layer_state(layer: Any, state: Any) -> None:
    if isinstance(layer, BaseBuffer):
        return
    kept = {name: value for name, value in layer.__dict__.items() if name in KEPT}
    layer.__dict__.clear()
    if _gives_own_state(layer) and hasattr(layer, "__setstate__"):
        layer.__setstate__(state)
    else:
        layer.__dict__.update(state | kept)


# ---- pickles -------------------------------------------------------------------------------------------------------
def _dump(file: Any, layers: list[Any], state: Any) -> None:
    _Pickler(file, layers).dump(state)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes layers as their place in the list, and views of arrays as views."""

    def __init__(self, file: Any, layers: list[Any]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.places = {id(layer): place for place, layer in enumerate(layers)}

    def persistent_id(self, value: Any) -> int | None:
        place = self.places.get(id(value))
        if place is None and isinstance(value, EzPickle):
            raise pickle.PicklingError(
                f"{type(value).__name__} pickles the arguments of its constructor, not its state"
            )
        return place

    def reducer_override(self, value: Any) -> Any:
        base = value.base if type(value) is np.ndarray else None
        if type(base) is np.ndarray and base.flags.c_contiguous and not base.dtype.hasobject:
            offset = value.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            return _view, (base, value.shape, value.dtype, offset, value.strides, value.flags.writeable)
        return super().reducer_override(value)


def _view(base: Any, shape: Any, dtype: Any, offset: int, strides: Any, writeable: bool) -> Any:
    view = np.ndarray(shape, dtype, base, offset, strides)
    view.flags.writeable = writeable
    return view


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, layers: list[Any]) -> None:
        super().__init__(file)
        self.layers = layers

    def persistent_load(self, place: Any) -> Any:
        return self.layers[place]


# ---- the model -----------------------------------------------------------------------------------------------------
def _attributes(value: Any) -> dict[str, Any] | None:
    return None if value is None else dict(value.__dict__)


def _model_attributes(model: BaseAlgorithm) -> dict[str, Any]:
    """Attributes that are neither networks and optimisers nor environments, buffers and loggers."""
    states, tensors = model._get_torch_save_params()
    left_out = {*model._excluded_save_params(), *CONFIGURED, *(name.partition(".")[0] for name in states + tensors)}
    return {
        name: value
        for name, value in model.__dict__.items()
        if name == RECURRENT or (name not in left_out and not _is_network_part(value))
    }


def _is_network_part(value: Any) -> bool:
    """Networks and optimisers, and the lists that SB3 keeps of a network's own tensors (``batch_norm_stats``)."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, torch.Tensor) for item in value)
    return isinstance(value, torch.nn.Module | torch.optim.Optimizer)


def _tensors(model: BaseAlgorithm) -> bytes:
    """State dicts and further tensors as SB3 saves them."""
    names = model._get_torch_save_params()[1]
    further = {name: recursive_getattr(model, name) for name in names}
    stream = io.BytesIO()
    torch.save({"parameters": model.get_parameters(), "further": further}, stream)
    return stream.getvalue()


def _set_tensors(model: BaseAlgorithm, data: bytes) -> None:
    saved = torch.load(io.BytesIO(data), map_location=model.device, weights_only=False)
    model.set_parameters(saved["parameters"], exact_match=True, device=model.device)
    for name, value in saved["further"].items():
        if value is not None:
            recursive_setattr(model, f"{name}.data", value.data)


def _explorations(model: BaseAlgorithm) -> list[StateDependentNoiseDistribution]:
    """The distributions whose exploration matrices (gSDE) stay the same for some steps; none without gSDE."""
    distributions = (getattr(module, "action_dist", None) for module in model.policy.modules())
    return [
        d for d in distributions if isinstance(d, StateDependentNoiseDistribution) and hasattr(d, "exploration_mat")
    ]


# ---- the replay buffer ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Rows:
    """The first rows of an array of a replay buffer; the others have not been written yet."""

    values: Any


def _buffer_state(buffer: Any) -> dict[str, Any] | None:
    """Attributes of a replay buffer, its arrays as far as they are filled."""
    if buffer is None:
        return None
    shape = (buffer.buffer_size, buffer.n_envs)
    used = buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)

    def filled(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.shape[:2] == shape:
            return _Rows(value if used == len(value) else value[:used].copy())
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        return value

    return {name: filled(value) for name, value in buffer.__dict__.items()}


def _set_buffer_state(buffer: Any, state: dict[str, Any] | None) -> None:
    if state is None:
        return

    def write(value: Any, into: Any) -> Any:
        if isinstance(value, _Rows):
            into[: len(value.values)] = value.values
            return into
        if isinstance(value, dict):
            return {key: write(item, into.get(key) if isinstance(into, dict) else None) for key, item in value.items()}
        return value

    buffer.__dict__.update({name: write(value, buffer.__dict__.get(name)) for name, value in state.items()})
