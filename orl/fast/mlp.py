"""Multilayer perceptrons with a hand-written forward and backward pass.

:class:`Mlp` reads the weights of ``nn.Linear`` layers in place and writes the gradients into the tensors of
``parameter.grad``, which are views of one buffer when the parameters lie in a
:class:`~orl.fast.flat_parameters.FlatParameters`. Matrix products are torch's, into buffers that are kept for every
batch size; tanh is numpy's, on the same memory (measured at 64 x 64, one thread: 2 against 11 microseconds); the
derivative of an activation and the gradient of a bias share one pass. Autograd is the oracle of the tests.

:class:`ActorCriticMlp` is the pair of networks of an SB3 actor-critic policy, and :func:`policy_ineligible` tells
whether a policy is such a pair.

>>> layers = [torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)]
>>> for parameter in torch.nn.Sequential(*layers).parameters():
...     parameter.grad = torch.zeros_like(parameter)
>>> net = Mlp(layers, "tanh")
>>> x = torch.ones(3, 4)
>>> out = net.forward(x)
>>> bool(torch.allclose(out, layers[1](torch.tanh(layers[0](x)))))
True
>>> net.backward(torch.ones(3, 2))
>>> float(layers[1].bias.grad[0])
3.0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numba
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import (
    MaskableBernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy, MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, MlpExtractor

from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()

Activation = Literal["tanh", "relu"]
Floats = npt.NDArray[np.float32]

ACTIVATIONS: dict[type[torch.nn.Module], Activation] = {torch.nn.Tanh: "tanh", torch.nn.ReLU: "relu"}
# Below these sizes numpy's BLAS stays at one thread by itself; larger products go to torch, whose number of threads the
# user sets.
FEW_ROWS = 32
SMALL_LAYER = 9216
KEPT_WORKSPACES = 8


@numba.njit(cache=True, error_model="numpy")
def _tanh_backward(grad, hidden, bias_grad):
    rows, width = grad.shape
    bias_grad[:] = 0.0
    for i in range(rows):
        for j in range(width):
            g = grad[i, j] * (np.float32(1.0) - hidden[i, j] * hidden[i, j])
            grad[i, j] = g
            bias_grad[j] += g


@numba.njit(cache=True, error_model="numpy")
def _relu_backward(grad, hidden, bias_grad):
    rows, width = grad.shape
    bias_grad[:] = 0.0
    for i in range(rows):
        for j in range(width):
            g = grad[i, j] if hidden[i, j] > 0.0 else np.float32(0.0)
            grad[i, j] = g
            bias_grad[j] += g


@numba.njit(cache=True, error_model="numpy")
def _relu(hidden):
    for i in range(hidden.size):
        if hidden[i] < np.float32(0.0):
            hidden[i] = np.float32(0.0)


def apply_activation(activation: Activation, hidden: Floats) -> None:
    """Apply the activation to ``hidden`` (C-contiguous) in place."""
    if activation == "tanh":
        np.tanh(hidden, out=hidden)
    else:
        _relu(hidden.reshape(-1))


def narrow(rows: int, columns: int, width: int) -> bool:
    """Whether a product over that few columns gains from zeros up to a multiple of 16 (measured: up to three times)."""
    return columns < 128 and columns % 16 > 0 and rows * width >= 8192


def with_zeros(matrix: torch.Tensor) -> torch.Tensor:
    """A copy of ``matrix`` [B, K] with columns of zeros up to a multiple of 16."""
    rows, columns = matrix.shape
    wide = torch.zeros(rows, -(-columns // 16) * 16)
    wide[:, :columns] = matrix
    return wide


def weight_gradient(
    grad: torch.Tensor, below: torch.Tensor, out: torch.Tensor, padded: torch.Tensor | None = None
) -> None:
    """``out = grad.T @ below`` for ``grad`` [B, H], ``below`` [B, K]; ``padded``: ``with_zeros(below)`` if at hand."""
    if narrow(len(grad), below.shape[1], grad.shape[1]):
        wide = with_zeros(below) if padded is None else padded
        out.copy_(torch.mm(grad.t(), wide)[:, : below.shape[1]])
    else:
        torch.mm(grad.t(), below, out=out)


def input_gradient(grad: torch.Tensor, weight: torch.Tensor, columns: slice | None) -> torch.Tensor:
    """``grad @ weight[:, columns]`` for ``grad`` [B, H] and the weights [H, K] of the first layer."""
    if columns is not None:
        weight = weight[:, columns]
    if not narrow(len(grad), weight.shape[1], len(weight)):
        return torch.mm(grad, weight)
    return torch.mm(grad, with_zeros(weight))[:, : weight.shape[1]]


def activation_backward(activation: Activation, grad: Floats, hidden: Floats, bias_grad: Floats) -> None:
    """Turn ``grad`` [B, width] from the activation's output ``hidden`` to its input, in place; ``bias_grad`` gets its
    sum over the rows."""
    (_tanh_backward if activation == "tanh" else _relu_backward)(grad, hidden, bias_grad)


class _Workspace:
    """Buffers of one batch size: the output of every layer, and the gradient with respect to it."""

    def __init__(self, rows: int, widths: Sequence[int], needs_grad: bool) -> None:
        self.x: torch.Tensor | None = None
        self.out = [torch.empty(rows, width) for width in widths]
        self.out_arrays = [out.numpy() for out in self.out]
        self.grad = [torch.empty(rows, width) for width in widths[:-1]] if needs_grad else []
        self.grad_arrays = [grad.numpy() for grad in self.grad]


class Mlp:
    """Linear layers with an activation after each but the last (float32, CPU).

    Args:
        linears: The layers, with biases. Their memory is read in place: build a new Mlp after it was replaced.
        activation: ``"tanh"`` or ``"relu"``.

    Raises:
        ValueError: No layers, an unknown activation, or a layer without bias, of another dtype or device.
    """

    def __init__(self, linears: Sequence[torch.nn.Linear], activation: Activation) -> None:
        if not linears or activation not in ("tanh", "relu"):
            raise ValueError(f"one layer or more and 'tanh' or 'relu' expected, got {len(linears)} and {activation!r}")
        if any(
            layer.bias is None or layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu"
            for layer in linears
        ):
            raise ValueError("layers with biases, float32, on the CPU expected")
        self._linears, self._activation = tuple(linears), activation
        self._weights = [layer.weight.data for layer in linears]
        self._transposed = [weight.t() for weight in self._weights]
        self._biases = [layer.bias.data for layer in linears]
        self._weight_arrays = [weight.numpy().T for weight in self._weights]
        self._bias_arrays = [bias.numpy() for bias in self._biases]
        self._small = all(weight.numel() < SMALL_LAYER for weight in self._weights)
        self.widths = [layer.out_features for layer in linears]
        self._trained: dict[tuple[int, int], _Workspace] = {}
        self._predicted: dict[int, _Workspace] = {}

    def _workspace(self, kept: dict[Any, _Workspace], key: Any, rows: int, needs_grad: bool) -> _Workspace:
        if key not in kept:
            if len(kept) >= KEPT_WORKSPACES:
                del kept[next(iter(kept))]
            kept[key] = _Workspace(rows, self.widths, needs_grad)
        return kept[key]

    def _run(self, work: _Workspace, x: torch.Tensor) -> torch.Tensor:
        last = len(self._transposed) - 1
        for k, (weight, bias) in enumerate(zip(self._transposed, self._biases, strict=True)):
            x = torch.addmm(bias, x, weight, out=work.out[k])
            if k < last:
                apply_activation(self._activation, work.out_arrays[k])
        return x

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Output float32[B, out] for ``x`` float32[B, in]; nothing is remembered for :meth:`backward`.

        The result is a buffer that the next ``predict`` with as many rows writes again.
        """
        work = self._workspace(self._predicted, len(x), len(x), False)
        return self._run(work, x)

    def predict_few(self, x: Floats) -> Floats:
        """The same for a few rows on numpy arrays, where the cost of a call counts more than the product."""
        rows = len(x)
        if rows > FEW_ROWS or not self._small:
            return self.predict(torch.from_numpy(x)).numpy()
        work = self._workspace(self._predicted, rows, rows, False)
        last = len(self._weight_arrays) - 1
        for k, weight in enumerate(self._weight_arrays):
            out = work.out_arrays[k]
            np.dot(x, weight, out=out)
            np.add(out, self._bias_arrays[k], out=out)
            if k < last:
                apply_activation(self._activation, out)
            x = out
        return x

    def forward(self, x: torch.Tensor, slot: int = 0) -> torch.Tensor:
        """Output float32[B, out] for ``x`` float32[B, in]; the hidden layers are kept for :meth:`backward`.

        ``x`` is kept by reference. The result is a buffer: the next ``forward`` with as many rows and the same ``slot``
        writes it again.
        """
        work = self._workspace(self._trained, (len(x), slot), len(x), True)
        work.x = x
        return self._run(work, x)

    @torch.no_grad()
    def backward(
        self,
        grad: torch.Tensor,
        slot: int = 0,
        *,
        parameters: bool = True,
        inputs: bool = False,
        columns: slice | None = None,
    ) -> torch.Tensor | None:
        """Backpropagate ``grad`` float32[B, out], the gradient with respect to the last ``forward`` of ``slot``.

        Args:
            grad: Gradient of a scalar with respect to the output.
            slot: That of the ``forward`` it belongs to.
            parameters: Write the gradients of weights and biases into ``parameter.grad`` (they are replaced, not
                added to).
            inputs: Return the gradient with respect to the input.
            columns: Only with respect to these columns of it.

        Returns:
            float32[B, in] (or as many columns as asked for) if ``inputs``, else None.
        """
        work = self._trained[len(grad), slot]
        assert work.x is not None
        if parameters:
            _grad(self._linears[-1].bias).copy_(grad.sum(0))
        for k in range(len(self._weights) - 1, -1, -1):
            below = work.out[k - 1] if k else work.x
            if parameters:
                weight_gradient(grad, below, _grad(self._linears[k].weight))
            if k == 0:
                break
            torch.mm(grad, self._weights[k], out=work.grad[k - 1])
            bias_grad = _grad(self._linears[k - 1].bias).numpy() if parameters else np.empty(below.shape[1], np.float32)
            activation_backward(self._activation, work.grad_arrays[k - 1], work.out_arrays[k - 1], bias_grad)
            grad = work.grad[k - 1]
        return input_gradient(grad, self._weights[0], columns) if inputs else None


def _grad(parameter: torch.Tensor) -> torch.Tensor:
    if parameter.grad is None:
        raise ValueError("the parameters have no gradient tensors; lay them out in FlatParameters first")
    return parameter.grad


class ActorCriticMlp:
    """Policy and value network of an eligible SB3 actor-critic policy (see :func:`policy_ineligible`).

    Attributes:
        actor: From features to action means (Box) or logits.
        critic: From features to the value.
        actor_parameters: Parameters of the actor, with ``log_std`` where the policy has one.
        critic_parameters: Parameters of the critic.
    """

    def __init__(self, policy: Any) -> None:
        extractor = policy.mlp_extractor
        actor, activation = hidden_layers(extractor.policy_net)
        critic, critic_activation = hidden_layers(extractor.value_net)
        self.actor = Mlp([*actor, policy.action_net], activation or critic_activation or "tanh")
        self.critic = Mlp([*critic, policy.value_net], critic_activation or activation or "tanh")
        log_std = [policy.log_std] if hasattr(policy, "log_std") else []
        self.actor_parameters = log_std + parameters_of([*actor, policy.action_net])
        self.critic_parameters = parameters_of([*critic, policy.value_net])


def parameters_of(layers: Iterable[torch.nn.Linear]) -> list[torch.nn.Parameter]:
    """Weight and bias of the first layer, of the second, ..."""
    return [parameter for layer in layers for parameter in layer.parameters()]


def hidden_layers(net: torch.nn.Sequential) -> tuple[list[torch.nn.Linear], Activation | None]:
    """Linear layers of a Sequential of linear layer, activation, linear layer, activation, ..., and the activation.

    Raises:
        ValueError: Other modules, several kinds of activations, or one that is neither Tanh nor ReLU.
    """
    modules = list(net)
    linears: list[Any] = modules[::2]
    activations = {type(module) for module in modules[1::2]}
    if len(modules) % 2 or any(type(module) is not torch.nn.Linear or module.bias is None for module in linears):
        raise ValueError("the networks are not made of linear layers with biases, each followed by an activation")
    if activations - ACTIVATIONS.keys() or len(activations) > 1:
        names = sorted(kind.__name__ for kind in activations)
        raise ValueError(f"the activation is {', '.join(names)}; Tanh or ReLU is needed")
    return linears, next((ACTIVATIONS[kind] for kind in activations), None)


_POLICIES = (
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
    MaskableActorCriticPolicy,
    MaskableMultiInputActorCriticPolicy,
)
_DISTRIBUTIONS = (
    DiagGaussianDistribution,
    CategoricalDistribution,
    MultiCategoricalDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
    MaskableBernoulliDistribution,
)
_LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def observations_ineligible(space: spaces.Space[Any]) -> str | None:
    """Why observations of that space are no plain rows of numbers; None if they are (a flat Dict of such is, too)."""
    for name, part in space.spaces.items() if isinstance(space, spaces.Dict) else [("", space)]:
        what = f"part {name!r} of the observation" if name else "the observation"
        if not isinstance(part, _LEAVES):
            return f"{what} is a {type(part).__name__}"
        if is_image_space(part):
            return f"{what} is an image"
    return None


def extractor_ineligible(extractor: Any) -> str | None:
    """Why a features extractor does more than flatten; None if it does not."""
    flat = type(extractor) is FlattenExtractor or (
        type(extractor) is CombinedExtractor
        and all(type(part) is torch.nn.Flatten for part in extractor.extractors.values())
    )
    return None if flat else f"the features extractor is {type(extractor).__name__}"


def module_ineligible(module: torch.nn.Module) -> str | None:
    """Why a module's parameters are not all trained float32 on the CPU without hooks; None if they are."""
    for parameter in module.parameters():
        if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
            return f"the parameters are {parameter.dtype} on {parameter.device}, not float32 on the CPU"
        if not parameter.requires_grad:
            return "a parameter is frozen"
        if getattr(parameter, "_backward_hooks", None):
            return "a parameter has a hook"
    for part in module.modules():
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
            return "a module of the policy has a hook"
    return None


def policy_ineligible(policy: Any) -> str | None:
    """Why the hand-written passes cannot stand in for this policy; None if they can.

    Eligible are SB3's and sb3-contrib's own ``MlpPolicy`` and ``MultiInputPolicy`` without images or gSDE, with linear
    layers and Tanh or ReLU, float32 on the CPU, all parameters trained, without hooks.
    """
    if type(policy) not in _POLICIES:
        return f"the policy is a {type(policy).__name__}, not SB3's MlpPolicy or MultiInputPolicy"
    if getattr(policy, "use_sde", False):
        return "the policy explores with gSDE"
    if type(policy.action_dist) not in _DISTRIBUTIONS:
        return f"the action distribution is {type(policy.action_dist).__name__}"
    if (reason := observations_ineligible(policy.observation_space)) is not None:
        return reason
    for extractor in {policy.features_extractor, policy.pi_features_extractor, policy.vf_features_extractor}:
        if (reason := extractor_ineligible(extractor)) is not None:
            return reason
    if type(policy.mlp_extractor) is not MlpExtractor:
        return f"the MLP extractor is {type(policy.mlp_extractor).__name__}"
    try:
        used = [*hidden_layers(policy.mlp_extractor.policy_net)[0], *hidden_layers(policy.mlp_extractor.value_net)[0]]
    except ValueError as error:
        return str(error)
    heads = (policy.action_net, policy.value_net)
    if any(type(head) is not torch.nn.Linear or head.bias is None for head in heads):
        return "the heads are not linear layers with biases"
    expected = {id(p) for p in parameters_of([*used, *heads])}
    expected |= {id(policy.log_std)} if hasattr(policy, "log_std") else set()
    parameters = list(policy.parameters())
    if {id(p) for p in parameters} != expected or len(expected) != len(parameters):
        return "the policy has parameters beside its two networks"
    return module_ineligible(policy)
