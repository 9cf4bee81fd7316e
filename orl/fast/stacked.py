"""An ensemble of equal MLPs as one batch of matrix products: twin critics, ensembles of critics or of models.

The members stay ordinary layers (SB3's ``qf0``, ``qf1``, ...). Their parameters must lie in a
:class:`~orl.fast.flat_parameters.FlatParameters` in :func:`stacked_order`: then the weights of one layer of all k
members are one tensor [k, out, in], and a layer of the ensemble is one ``baddbmm``.

>>> members = [[torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)] for _ in range(2)]
>>> flat = FlatParameters(stacked_order(members))
>>> stack = StackedMlp(members, "relu", flat)
>>> x = torch.ones(5, 3)
>>> out = stack.forward(x)
>>> tuple(out.shape), bool(torch.allclose(out[1], members[1][1](torch.relu(members[1][0](x)))))
((2, 5, 1), True)
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt
import torch

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import (
    KEPT_WORKSPACES,
    Activation,
    activation_backward,
    apply_activation,
    input_gradient,
    narrow,
    weight_gradient,
    with_zeros,
)

drop_stale_kernels()

Floats = npt.NDArray[np.float32]


@numba.njit(cache=True, error_model="numpy")
def _head_backward(rows, d_out, weight, hidden, is_tanh, grad):
    """Gradient at the input of the last activation for some rows: d_out times the last layer's weight row."""
    one, zero = np.float32(1.0), np.float32(0.0)
    for i in range(rows.size):
        d, at = d_out[rows[i]], rows[i]
        for j in range(weight.size):
            h = hidden[at, j]
            g = d * weight[j]
            grad[i, j] = g * (one - h * h) if is_tanh else (g if h > zero else zero)


@numba.njit(cache=True, error_model="numpy")
def _single_output_backward(d_out, weight, hidden, is_tanh, parameters, grad, weight_grad, bias_grad):
    """The last layer with its one output and the activation below it: gradients at the activation's input, of the last
    layer's weights and of the biases below, in one pass."""
    one, zero = np.float32(1.0), np.float32(0.0)
    rows, width = hidden.shape
    weight_grad[:] = zero
    bias_grad[:] = zero
    for i in range(rows):
        d = d_out[i]
        for j in range(width):
            h = hidden[i, j]
            g = d * weight[j]
            g = g * (one - h * h) if is_tanh else (g if h > zero else zero)
            grad[i, j] = g
            if parameters:
                bias_grad[j] += g
                weight_grad[j] += d * h


@numba.njit(cache=True, error_model="numpy")
def _chosen_activation_backward(rows, hidden, is_tanh, grad):
    one, zero = np.float32(1.0), np.float32(0.0)
    for i in range(rows.size):
        at = rows[i]
        for j in range(hidden.shape[1]):
            h = hidden[at, j]
            grad[i, j] = grad[i, j] * (one - h * h) if is_tanh else (grad[i, j] if h > zero else zero)


def stacked_order(members: Sequence[Sequence[torch.nn.Linear]]) -> list[torch.nn.Parameter]:
    """Parameters layer by layer: the weights of all members, then their biases."""
    order: list[torch.nn.Parameter] = []
    for layers in zip(*members, strict=True):
        order += [layer.weight for layer in layers]
        order += [layer.bias for layer in layers]
    return order


class _Workspace:
    """Buffers of one batch size: the output [k, B, width] of every layer, and the gradient with respect to it."""

    def __init__(self, members: int, rows: int, widths: Sequence[int], needs_grad: bool) -> None:
        self.x = torch.empty(0)
        self.out = [torch.empty(members, rows, width) for width in widths]
        self.grad = [torch.empty_like(out) for out in self.out[:-1]] if needs_grad else []
        self.out_arrays = [out.numpy() for out in self.out]
        self.grad_arrays = [grad.numpy() for grad in self.grad]


class StackedMlp:
    """k MLPs of the same widths with an activation after each layer but the last (float32, CPU).

    Args:
        members: The linear layers of every member.
        activation: ``"tanh"`` or ``"relu"``.
        flat: Holds the members' parameters in :func:`stacked_order`, in one piece; it may hold others before and after.
            After ``flat.refresh()`` returned True, build a new StackedMlp.

    Raises:
        ValueError: Members of different widths, or parameters that do not lie in ``flat`` in that order.
    """

    def __init__(
        self, members: Sequence[Sequence[torch.nn.Linear]], activation: Activation, flat: FlatParameters
    ) -> None:
        if len({tuple((layer.in_features, layer.out_features) for layer in member) for member in members}) != 1:
            raise ValueError("the members of an ensemble must have equal layers")
        order = [id(parameter) for parameter in stacked_order(members)]
        ids = [id(parameter) for parameter in flat.parameters]
        at = ids.index(order[0]) if order[0] in ids else 0
        if ids[at : at + len(order)] != order:
            raise ValueError("the parameters do not lie in the flat buffer in stacked_order")
        self.size, self._activation = len(members), activation
        self._widths = [layer.out_features for layer in members[0]]
        self._weights, self._biases = self._layer_views(flat.data, flat, at, members)
        self._weight_grads, self._bias_grads = self._layer_views(flat.grad, flat, at, members)
        self._transposed = [weight.transpose(1, 2) for weight in self._weights]
        self._bias_rows = [bias[:, None] for bias in self._biases]
        self._bias_grad_arrays = [bias.numpy() for bias in self._bias_grads]
        self._trained: dict[tuple[int, int], _Workspace] = {}
        self._predicted: dict[int, _Workspace] = {}

    @staticmethod
    def _layer_views(
        buffer: torch.Tensor, flat: FlatParameters, at: int, members: Sequence[Sequence[torch.nn.Linear]]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        weights, biases = [], []
        start, k = flat.bounds[at][0], len(members)
        for layer in members[0]:
            stop = start + k * layer.weight.numel()
            weights.append(buffer[start:stop].view(k, layer.out_features, layer.in_features))
            biases.append(buffer[stop : stop + k * layer.out_features].view(k, layer.out_features))
            start = stop + k * layer.out_features
        return weights, biases

    def _run(self, work: _Workspace, x: torch.Tensor) -> torch.Tensor:
        hidden = x.expand(self.size, *x.shape) if x.dim() == 2 else x
        work.x = hidden
        last = len(self._weights) - 1
        for k, (weight, bias) in enumerate(zip(self._transposed, self._bias_rows, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight, out=work.out[k])
            if k < last:
                apply_activation(self._activation, work.out_arrays[k])
        return hidden

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs float32[k, B, out] for ``x`` float32[B, in] (the same rows for all) or [k, B, in].

        Nothing is remembered for :meth:`backward`; the result is a buffer, written again by the next ``predict`` with
        as many rows.
        """
        rows = x.shape[-2]
        if rows not in self._predicted:
            if len(self._predicted) >= KEPT_WORKSPACES:
                del self._predicted[next(iter(self._predicted))]
            self._predicted[rows] = _Workspace(self.size, rows, self._widths, False)
        return self._run(self._predicted[rows], x)

    def forward(self, x: torch.Tensor, slot: int = 0) -> torch.Tensor:
        """The same, keeping the hidden layers for :meth:`backward`; ``x`` is kept by reference."""
        key = (x.shape[-2], slot)
        if key not in self._trained:
            if len(self._trained) >= KEPT_WORKSPACES:
                del self._trained[next(iter(self._trained))]
            self._trained[key] = _Workspace(self.size, key[0], self._widths, True)
        return self._run(self._trained[key], x)

    def backward(
        self, grad: torch.Tensor, slot: int = 0, *, parameters: bool = True, inputs: bool = False
    ) -> torch.Tensor | None:
        """Backpropagate ``grad`` float32[k, B, out], the gradient with respect to the last ``forward`` of ``slot``.

        Args:
            grad: Gradient of a scalar with respect to the outputs.
            slot: That of the ``forward`` it belongs to.
            parameters: Write the gradients of all members into the flat gradient buffer.
            inputs: Return the gradient with respect to the input of every member.

        Returns:
            float32[k, B, in] if ``inputs`` (add over the members where they share their rows), else None.
        """
        work = self._trained[grad.shape[1], slot]
        last = len(self._weights) - 1
        if parameters:
            torch.sum(grad, 1, out=self._bias_grads[-1])
        for k in range(last, -1, -1):
            below = work.out[k - 1] if k else work.x
            single = k == last > 0 and self._widths[-1] == 1
            if parameters and not single:
                if k == 0 and narrow(below.shape[1], below.shape[2], grad.shape[2]):
                    padded = with_zeros(below[0]) if below.stride(0) == 0 else None
                    for member in range(self.size):
                        weight_gradient(grad[member], below[member], self._weight_grads[0][member], padded)
                else:
                    torch.bmm(grad.transpose(1, 2), below, out=self._weight_grads[k])
            if k == 0:
                break
            if not single:
                torch.bmm(grad, self._weights[k], out=work.grad[k - 1])
            for member in range(self.size):
                bias_grad = (
                    self._bias_grad_arrays[k - 1][member] if parameters else np.empty(below.shape[2], np.float32)
                )
                hidden_grad, hidden = work.grad_arrays[k - 1][member], work.out_arrays[k - 1][member]
                if not single:
                    activation_backward(self._activation, hidden_grad, hidden, bias_grad)
                    continue
                weight = self._weights[k][member, 0].numpy()
                weight_grad = self._weight_grads[k][member, 0].numpy() if parameters else bias_grad
                d_out = grad[member, :, 0].numpy()
                is_tanh = self._activation == "tanh"
                _single_output_backward(d_out, weight, hidden, is_tanh, parameters, hidden_grad, weight_grad, bias_grad)
            grad = work.grad[k - 1]
        return torch.bmm(grad, self._weights[0]) if inputs else None

    def chosen_input_gradient(
        self, chosen: npt.NDArray[np.int64], d_out: Floats, columns: slice, slot: int = 0
    ) -> torch.Tensor:
        """Gradient of ``sum_b d_out[b] * out[chosen[b], b, 0]`` with respect to some columns of the shared input.

        Each row goes back through one member only, which costs 1/k of :meth:`backward` for all. This is what an actor
        needs that ascends the smallest of several critics.

        Args:
            chosen: Member of each row, int64[B].
            d_out: float32[B].
            columns: Columns of the input.
            slot: That of the ``forward`` it belongs to; the members have one output each.

        Returns:
            float32[B, columns].
        """
        work = self._trained[len(chosen), slot]
        if self._widths[-1] != 1:
            raise ValueError(f"members with one output expected, these have {self._widths[-1]}")
        is_tanh = self._activation == "tanh"
        result = torch.empty(len(chosen), len(range(*columns.indices(self._weights[0].shape[2]))))
        result_array = result.numpy()
        for member in range(self.size):
            rows = np.flatnonzero(chosen == member)
            if len(rows) == 0:
                continue
            last = len(self._weights) - 1
            if last == 0:
                result_array[rows] = d_out[rows, None] * self._weights[0][member][:, columns].numpy()
                continue
            grad = work.grad[last - 1][member][: len(rows)]
            weight = self._weights[last][member, 0].numpy()
            _head_backward(rows, d_out, weight, work.out_arrays[last - 1][member], is_tanh, grad.numpy())
            for k in range(last - 1, 0, -1):
                below = work.grad[k - 1][member][: len(rows)]
                torch.mm(grad, self._weights[k][member], out=below)
                _chosen_activation_backward(rows, work.out_arrays[k - 1][member], is_tanh, below.numpy())
                grad = below
            result_array[rows] = input_gradient(grad, self._weights[0][member], columns).numpy()
        return result
