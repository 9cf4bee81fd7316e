"""What lies between an SB3 VecEnv (or a Gymnasium VectorEnv) and the env that has some data: the layers of a stack.

Found by what they have, not by their classes, so that nothing here needs SB3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorEnv, VectorObservationWrapper, VectorRewardWrapper, VectorWrapper
from gymnasium.wrappers import NormalizeReward
from gymnasium.wrappers.vector import NormalizeReward as NormalizeBatchReward

from orl.common.errors import InputError

Floats = npt.NDArray[np.float64]


def unwrap(venv: Any) -> tuple[list[Any], Any]:
    """VecEnvWrappers, innermost first, and what they wrap."""
    wrappers = []
    while "venv" in getattr(venv, "__dict__", {}):
        wrappers.append(venv)
        venv = venv.venv
    return wrappers[::-1], venv


class WrapperStack:
    """What the VecEnvWrappers of a stack do to observations and rewards, with their statistics as they are now."""

    def __init__(self, wrappers: Sequence[Any]) -> None:
        self._observation_maps: list[Callable[[Any], Any]] = []
        self._scales: list[Any] = []
        for wrapper in wrappers:
            kind = type(wrapper)  # an instance also answers for the wrappers below it
            if hasattr(kind, "normalize_obs"):
                if wrapper.norm_obs:
                    self._observation_maps.append(wrapper.normalize_obs)
                if wrapper.norm_reward:
                    self._scales.append(wrapper)
            elif hasattr(kind, "transpose_observations"):
                if not getattr(wrapper, "skip", False):
                    self._observation_maps.append(wrapper.transpose_observations)
            elif wrapper.observation_space != wrapper.venv.observation_space:
                raise InputError(
                    "it changes the observation in a way that post-decision observations cannot follow",
                    source=kind.__name__,
                    expected="VecMonitor, VecNormalize or VecTransposeImage; other changes inside the env, below its "
                    "post-decision data",
                )

    def observations(self, value: Any, lead: int) -> Any:
        """Observations with ``lead`` leading axes, as the top of the stack shows them."""
        if not self._observation_maps:
            return value
        shape, flat = _lead(value, lead), _with_lead(value, lead, (-1,))
        for apply in self._observation_maps:
            flat = apply(flat)
        return _with_lead(flat, 1, shape)

    def rewards(self, value: Floats) -> Floats:
        """Rewards (or shares of them) in the units of the top of the stack, not clipped."""
        for wrapper in self._scales:
            value = value / np.sqrt(wrapper.ret_rms.var + wrapper.epsilon)
        return value


def _lead(value: Any, lead: int) -> tuple[int, ...]:
    """Sizes of the first ``lead`` axes."""
    first = next(iter(value.values())) if isinstance(value, Mapping) else value
    return tuple(first.shape[:lead])


def _with_lead(value: Any, lead: int, sizes: tuple[int, ...]) -> Any:
    """The same entries with other leading axes in place of the first ``lead``; (-1,) makes one axis of them."""
    if isinstance(value, Mapping):
        return {key: _with_lead(part, lead, sizes) for key, part in value.items()}
    if sizes == (-1,):
        sizes = (int(np.prod(value.shape[:lead])),)
    return value.reshape((*sizes, *value.shape[lead:]))


def batch_with(base: Any, name: str) -> Any:
    """The layer of a native batch that has the attribute, or None."""
    layer = base if isinstance(base, VectorEnv) else getattr(base, "env", None)
    if not isinstance(layer, VectorEnv):
        return base if hasattr(base, name) else None
    top = layer
    while not hasattr(layer, name):
        if not isinstance(layer, VectorWrapper):
            return None
        layer = layer.env
    refuse_transforms(top, layer)
    return layer


def copies(base: Any) -> list[gymnasium.Env[Any, Any]] | None:
    """The single envs of a batch in this process, or None."""
    layer = base if isinstance(base, VectorEnv) else getattr(base, "env", None)
    if isinstance(layer, VectorEnv):
        refuse_transforms(layer, layer.unwrapped)
        base = layer.unwrapped
    envs = getattr(base, "envs", None)
    return list(envs) if isinstance(envs, list | tuple) and all(isinstance(e, gymnasium.Env) for e in envs) else None


def owner_of(env: Any, name: str) -> Any:
    """The outermost layer of a single env that has the attribute itself, or None."""
    while not hasattr(env, name):
        if not isinstance(env, gymnasium.Wrapper):
            return None
        env = env.env
    return env


_TRANSFORMS = (gymnasium.ObservationWrapper, gymnasium.RewardWrapper, NormalizeReward)
_BATCH_TRANSFORMS = (VectorObservationWrapper, VectorRewardWrapper, NormalizeBatchReward)


def refuse_transforms(layer: Any, owner: Any) -> None:
    """Raise InputError if a wrapper above the post-decision data changes observations or rewards."""
    while layer is not owner:
        inner = layer.env
        if isinstance(layer, _TRANSFORMS + _BATCH_TRANSFORMS) or layer.observation_space != inner.observation_space:
            raise InputError(
                "it changes observations or rewards, but not the post-decision data below it",
                source=type(layer).__name__,
                expected="SB3's VecNormalize around the batch instead, or the wrapper below FunctionalPostDecision",
            )
        layer = inner
