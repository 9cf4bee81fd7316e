"""Paths of states: what a policy does along given noise, differentiable for training and exactly as deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orl.common.protocols import TargetModel
from orl.tsddr.policies import TargetPolicy, as_actions

Floats = npt.NDArray[np.float64]


class Reach(torch.autograd.Function):
    """Next states by ``TargetModel.reach``, with its derivatives: limits that depend on the state stay in the graph."""

    @staticmethod
    def forward(ctx: Any, state: torch.Tensor, fractions: torch.Tensor, model: TargetModel, noise: Floats) -> Any:
        ctx.model, ctx.noise = model, noise
        ctx.save_for_backward(state, fractions)
        return torch.from_numpy(model.reach(_array(state), noise, _array(fractions)))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        state, fractions = (_array(saved) for saved in ctx.saved_tensors)
        by_state, by_fractions = ctx.model.reach_gradient(state, ctx.noise, fractions, _array(gradients[0]))
        return torch.from_numpy(by_state), torch.from_numpy(by_fractions), None, None


@dataclass(frozen=True, eq=False)
class Path:
    """What a policy does along noise, as a graph.

    Attributes:
        states: float64[T, B, n], the states after the stages.
        fractions: float64[T, B, n].
    """

    states: torch.Tensor
    fractions: torch.Tensor


def follow(policy: TargetPolicy, model: TargetModel, noise: Floats) -> Path:
    """The path of a policy along noise float64[T, B, m]; gradients run through every stage to the policy.

    Nothing is rounded as observations and actions are: a path is smooth where the policy and the model are.
    """
    context = torch.as_tensor(model.features(noise)[..., policy.context_at], dtype=policy.torch_dtype)
    encoded, _ = policy.encode(context.to(policy.device))
    unit = torch.from_numpy(model.state_unit)
    state: Any = torch.from_numpy(np.tile(model.initial_state, (noise.shape[1], 1)))
    states, fractions = [], []
    for stage_encoded, stage_noise in zip(encoded, noise, strict=True):
        seen = (state / unit).to(policy.device, policy.torch_dtype)
        fraction = policy.decide(stage_encoded, seen).to("cpu", torch.float64)
        state = Reach.apply(state, fraction, model, stage_noise)
        states.append(state)
        fractions.append(fraction)
    return Path(torch.stack(states), torch.stack(fractions))


@dataclass(frozen=True, eq=False)
class Simulation:
    """What episodes with a policy would be in the environment.

    Attributes:
        states: float64[T + 1, B, n], the initial state first.
        costs: float64[T, B], in the model's unit.
    """

    states: Floats
    costs: Floats

    @property
    def totals(self) -> Floats:
        """Costs of the episodes, float64[B]."""
        totals: Floats = self.costs.sum(0)
        return totals


def simulate(policy: TargetPolicy, model: TargetModel, noise: Floats) -> Simulation:
    """Play episodes with noise float64[T, B, m] as the environment would, all at once.

    Observations and actions are rounded to float32 as they are there.
    """
    policy.set_training_mode(False)
    dtype, device = policy.torch_dtype, policy.device
    rounded = model.features(noise)[..., policy.context_at].astype(np.float32)
    states = [np.tile(model.initial_state, (noise.shape[1], 1))]
    with torch.no_grad():
        encoded, _ = policy.encode(torch.as_tensor(rounded).to(device, dtype))
        for stage_encoded, stage_noise in zip(encoded, noise, strict=True):
            seen = torch.from_numpy((states[-1] / model.state_unit).astype(np.float32)).to(device, dtype)
            actions = as_actions(policy.decide(stage_encoded, seen))
            states.append(model.reach(states[-1], stage_noise, (actions.astype(np.float64) + 1.0) / 2.0))
    path = np.stack(states)
    return Simulation(path, model.costs_and_gradients(path[:-1], noise, path[1:])[0])


def state_gradient(by_before: Floats, by_after: Floats) -> Floats:
    """Derivatives of the sum of all stage costs by the states after the stages, float64[T, B, n].

    A state is where its own stage ends and where the next one begins, but for the last.

    Args:
        by_before, by_after: float64[T, B, n], of each stage's cost by the states before and after it.
    """
    gradient = by_after.copy()
    gradient[:-1] += by_before[1:]
    return gradient


def _array(tensor: torch.Tensor) -> Floats:
    array: Floats = np.ascontiguousarray(tensor.detach().numpy())
    return array
