"""The target model of an environment: found, and checked against its spaces."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from orl.common.errors import InputError
from orl.common.protocols import SoftTargetModel, TargetModel
from orl.common.vec_env import GymVecEnv
from orl.common.venv_layers import unwrap

Mode = Literal["strict", "soft"]
PROBE_KEY = np.uint64(0x7072_6F62_65)


def target_model_of(env: VecEnv) -> TargetModel:
    """What the ``target_model()`` of the environments gives.

    Raises:
        InputError: they have no such method, wrappers that change what is observed or done, which no model knows, or
            single environments of different problems, of which one alone would be learned.
    """
    for kind in (gymnasium.ObservationWrapper, gymnasium.ActionWrapper):
        if any(env.env_is_wrapped(kind)):
            expected = "the environment without wrappers of observations or actions"
            raise InputError(
                "the model does not know this wrapper", field="env", value=kind.__name__, expected=expected
            )
    if not env.has_attr("target_model"):
        raise InputError(
            "the environment has no target_model()",
            field="env",
            value=env,
            expected="an environment with a model of its next states and costs (orl.common.protocols.TargetModel)",
        )
    model = env.env_method("target_model", indices=0)[0]
    if not isinstance(model, TargetModel):
        members = [*TargetModel.__annotations__, *(name for name in vars(TargetModel) if not name.startswith("_"))]
        missing = sorted(name for name in members if not hasattr(model, name))
        raise InputError("not a TargetModel", field="target_model()", value=model, expected=f"also {missing}")
    if not isinstance(unwrap(env)[1], GymVecEnv):  # whose copies share one model
        probe = _probe(model)
        for i in range(1, env.num_envs):
            other = env.env_method("target_model", indices=i)[0]
            if not np.array_equal(probe, _probe(other)):
                expected = "copies of one problem (one training learns one problem)"
                raise InputError(f"copies 0 and {i} play different problems", field="env", expected=expected)
    return model


def _probe(model: TargetModel) -> npt.NDArray[np.float64]:
    """Noise, states and costs of a fixed episode with all fractions a half: equal for equal problems."""
    noise = model.draw(np.array([PROBE_KEY]))
    states = [model.initial_state[None]]
    for stage in noise:
        states.append(model.reach(states[-1], stage, np.full_like(states[-1], 0.5)))
    path = np.stack(states)
    costs, *_ = model.costs_and_gradients(path[:-1], noise, path[1:])
    return np.concatenate([np.ravel(part) for part in (noise, path, costs)])


def check_spaces(model: TargetModel, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Refuse environments whose observations or actions are not those of the model.

    Raises:
        InputError: they are not; wrappers change them, for instance.
    """
    n = len(model.initial_state)
    unit_box = isinstance(action_space, spaces.Box) and action_space.shape == (n,)
    if not unit_box or not (np.all(action_space.low == -1.0) and np.all(action_space.high == 1.0)):  # type: ignore[attr-defined]
        raise InputError("not the model's actions", field="action_space", value=action_space, expected=f"[-1, 1]^{n}")
    noise = model.draw(np.zeros(1, np.uint64))
    width = model.features(noise).shape[-1]
    if not isinstance(observation_space, spaces.Box) or observation_space.shape != (width,):
        expected = f"a Box of shape ({width},), the model's features"
        raise InputError(
            "not the model's observations", field="observation_space", value=observation_space, expected=expected
        )


def check_mode(model: TargetModel, mode: Mode) -> None:
    """Refuse a mode that the model cannot serve.

    Raises:
        InputError: ``strict`` with targets that need not be reachable, ``soft`` with targets that always are, or
            without programmes that take any target.
    """
    if mode == "strict" and not model.reachable:
        raise InputError(
            "the environment's actions name targets that need not be reachable",
            field="mode",
            value=mode,
            expected="'soft', or an environment whose actions are fractions of what can be reached",
        )
    if mode == "soft" and model.reachable:
        raise InputError(
            "the environment's actions name only targets that can be reached: none is ever missed",
            field="mode",
            value=mode,
            expected="'strict', or an environment whose actions are targets anywhere between their limits",
        )
    if mode == "soft" and not isinstance(model, SoftTargetModel):
        raise InputError(
            "the environment's model has no programmes for targets that cannot be reached",
            field="mode",
            value=mode,
            expected="'strict', or a model that is a SoftTargetModel",
        )
