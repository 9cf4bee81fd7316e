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
from orl.common.venv_layers import unwrap

Mode = Literal["strict", "soft"]


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
    _require_one_problem(env)
    return model


def _require_one_problem(env: VecEnv) -> None:
    """Refuse single environments of different problems.

    Models are made anew for this, since some answer a question in the light of earlier ones.
    """
    base = unwrap(env)[1]
    if env.num_envs == 1 or hasattr(getattr(base, "env", None), "target_model"):  # a native batch has one model
        return
    first, *others = env.env_method("target_model")
    expected_answers = _answers(first)
    for i, other in enumerate(others, 1):
        answers = _answers(other)
        if not all(
            numbers.shape == answers[name].shape and np.allclose(numbers, answers[name], rtol=1e-9, atol=1e-9)
            for name, numbers in expected_answers.items()
        ):
            expected = "copies of one problem (one training learns one problem)"
            raise InputError(f"copies 0 and {i} play different problems", field="env", expected=expected)


def _answers(model: TargetModel) -> dict[str, npt.NDArray[np.float64]]:
    """The model's figures, and noise, features, states and costs of eight episodes with fixed fractions."""
    noise = model.draw(np.arange(8, dtype=np.uint64))
    fractions = np.linspace(0.0, 1.0, 8)[:, None] * np.ones_like(model.initial_state)
    states = [np.tile(model.initial_state, (8, 1))]
    for stage in noise:
        states.append(model.reach(states[-1], stage, fractions))
    path = np.stack(states)
    costs, *_ = model.costs_and_gradients(path[:-1], noise, path[1:])
    figures = ("cost_unit", "state_unit", "target_lower", "target_upper")
    found = {name: getattr(model, name) for name in figures}
    found |= {"noise": noise, "features": model.features(noise), "path": path, "costs": costs}
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


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
