"""Adam over one flat buffer, with its state in the layout of ``torch.optim.Adam``.

:class:`FlatAdam` drives an existing ``torch.optim.Adam`` whose parameters lie in a
:class:`~orl.fast.flat_parameters.FlatParameters`. The moments are views of two flat buffers that stand in
``optimizer.state``, so ``optimizer.state_dict()`` is an ordinary Adam checkpoint, loads from one are taken over, and
``optimizer.step()`` itself goes on from the same state. Hyper-parameters are read from ``optimizer.param_groups`` at
every step.

Source of the update: Kingma and Ba, Adam, algorithm 1 (arXiv 1412.6980), in the order of operations of PyTorch's
default implementation; the two agree to rounding in the last bit (PyTorch contracts some products and sums).
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.flat_parameters import FlatParameters

drop_stale_kernels()


@numba.njit(cache=True, error_model="numpy")
def _update(data, grad, mean, square, weight, beta2, weight2, decay, step_size, correction, eps):
    for i in range(data.size):
        g = grad[i] + decay * data[i]
        m = mean[i] + weight * (g - mean[i])
        v = square[i] * beta2 + weight2 * g * g
        mean[i] = m
        square[i] = v
        data[i] -= step_size * m / (np.sqrt(v) / correction + eps)


def adam_ineligible(optimizer: Any, parameters: Any) -> str | None:
    """Why :class:`FlatAdam` cannot stand in for this optimiser; None if it can."""
    if type(optimizer) is not torch.optim.Adam:
        return f"the optimiser is {type(optimizer).__name__}, not torch.optim.Adam"
    if len(optimizer.param_groups) != 1:
        return "the optimiser has several parameter groups"
    group = optimizer.param_groups[0]
    for option in ("amsgrad", "maximize", "capturable", "differentiable", "decoupled_weight_decay"):
        if group.get(option):
            return f"the optimiser has {option}=True"
    if not all(isinstance(value, float | int) for value in (group["lr"], group["eps"], *group["betas"])):
        return "the optimiser has hyper-parameters that are tensors"
    if {id(p) for p in group["params"]} != {id(p) for p in parameters}:
        return "the optimiser does not hold exactly the parameters of the policy"
    steps = {float(optimizer.state[p]["step"]) if optimizer.state.get(p) else 0.0 for p in group["params"]}
    if len(steps) > 1:
        return "the parameters have made different numbers of optimiser steps"
    return None


class FlatAdam:
    """The steps of a ``torch.optim.Adam``, each one pass over the flat buffers (float32, CPU).

    Args:
        flat: The parameters that the optimiser holds, and no others.
        optimizer: Its hyper-parameters rule; its state is taken over and kept up to date.

    Raises:
        ValueError: See :func:`adam_ineligible`.
    """

    def __init__(self, flat: FlatParameters, optimizer: torch.optim.Adam) -> None:
        if (reason := adam_ineligible(optimizer, flat.parameters)) is not None:
            raise ValueError(reason)
        if flat.data.dtype != torch.float32 or flat.data.device.type != "cpu":
            raise ValueError(f"float32 parameters on the CPU expected, got {flat.data.dtype} on {flat.data.device}")
        self.flat, self.optimizer = flat, optimizer
        self._mean, self._square = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
        self._steps = torch.zeros(len(flat.parameters), dtype=torch.float32)
        self._take_over()
        self._state = optimizer.state
        self._steps_array = self._steps.numpy()
        self._arrays = (flat.data.numpy(), flat.grad.numpy(), self._mean.numpy(), self._square.numpy())

    def _take_over(self) -> None:
        """Copy the optimiser's state into the flat buffers and hang their views into the optimiser."""
        views = zip(self.flat.views(self._mean), self.flat.views(self._square), strict=True)
        for i, (parameter, (mean, square)) in enumerate(zip(self.flat.parameters, views, strict=True)):
            if state := self.optimizer.state.get(parameter):
                self._steps[i] = float(state["step"])
                mean.copy_(state["exp_avg"])
                square.copy_(state["exp_avg_sq"])
            self.optimizer.state[parameter] = {"step": self._steps[i], "exp_avg": mean, "exp_avg_sq": square}
        self.steps = int(self._steps[0])

    @property
    def intact(self) -> bool:
        """Whether parameters and optimiser state still are the views that this object made."""
        if not self.flat.intact or self.flat.data.data_ptr() != self._arrays[0].ctypes.data:
            return False
        size = self._mean.element_size()
        for i, (parameter, (start, _)) in enumerate(zip(self.flat.parameters, self.flat.bounds, strict=True)):
            state = self.optimizer.state.get(parameter)
            if (
                not state
                or state["step"].data_ptr() != self._steps.data_ptr() + i * size
                or state["exp_avg"].data_ptr() != self._mean.data_ptr() + start * size
                or state["exp_avg_sq"].data_ptr() != self._square.data_ptr() + start * size
            ):
                return False
        return int(self._steps[0]) == self.steps

    @property
    def in_step(self) -> bool:
        """A quick version of :attr:`intact`, for every gradient step: no checkpoint was loaded into the optimiser, and
        it made no steps of its own. The parameters are not looked at."""
        return self.optimizer.state is self._state and int(self._steps_array[0]) == self.steps

    def clip(self, max_norm: float) -> float:
        """Scale the gradient to at most that Euclidean norm, like ``torch.nn.utils.clip_grad_norm_``.

        Returns:
            The norm before.
        """
        norm = torch.linalg.vector_norm(self.flat.grad).item()
        coefficient = min(max_norm / (norm + 1e-6), 1.0)
        if coefficient != 1.0:
            self.flat.grad.mul_(coefficient)
        return norm

    def step(self) -> None:
        """One Adam step with the gradient in ``flat.grad``."""
        group = self.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        self.steps += 1
        step_size = group["lr"] / (1 - beta1**self.steps)
        correction = math.sqrt(1 - beta2**self.steps)
        single = np.float32
        data, grad, mean, square = self._arrays
        _update(
            data,
            grad,
            mean,
            square,
            single(1 - beta1),
            single(beta2),
            single(1 - beta2),
            single(group["weight_decay"]),
            single(step_size),
            single(correction),
            single(group["eps"]),
        )
        self._steps.fill_(self.steps)
