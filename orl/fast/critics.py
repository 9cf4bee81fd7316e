"""The critics of SAC and TD3 and their targets as stacked networks on flat buffers.

:class:`Critics` drives SB3's ``ContinuousCritic`` and its target copy: targets, one regression step, the gradient of
the smallest or the first critic with respect to the action, and the slow update of the targets.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.policies import ContinuousCritic

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import Activation, Mlp, extractor_ineligible, hidden_layers, module_ineligible, parameters_of
from orl.fast.stacked import StackedMlp, stacked_order

drop_stale_kernels()

Floats = npt.NDArray[np.float32]


@numba.njit(cache=True, error_model="numpy")
def _squared_errors(q_values, targets, factor, grad):
    """Returns factor times the sum over critics of the mean squared error; ``grad`` [k, B] gets its gradient."""
    members, rows = q_values.shape
    total = 0.0
    scale = np.float32(2.0) * factor / np.float32(rows)
    for k in range(members):
        for i in range(rows):
            error = q_values[k, i] - targets[i]
            total += error * error
            grad[k, i] = scale * error
    return factor * total / rows


def critic_networks(critic: Any) -> tuple[list[list[torch.nn.Linear]], Activation]:
    """Linear layers of every critic, and their activation.

    Raises:
        ValueError: Critics that are not such networks, or not equal ones.
    """
    members: list[list[torch.nn.Linear]] = []
    activations = set()
    for net in critic.q_networks:
        hidden, activation = hidden_layers(net[:-1])
        if type(net[-1]) is not torch.nn.Linear or net[-1].bias is None:
            raise ValueError("the last layer of a critic is not a linear layer with bias")
        members.append([*hidden, net[-1]])
        activations.add(activation or "relu")
    shapes = {tuple((layer.in_features, layer.out_features) for layer in member) for member in members}
    if len(activations) > 1 or len(shapes) > 1 or members[0][-1].out_features != 1:
        raise ValueError("the critics are not equal networks with one output")
    return members, activations.pop()


def critics_ineligible(critic: Any, target: Any) -> str | None:
    """Why :class:`Critics` cannot drive these critics; None if it can."""
    for module in (critic, target):
        if type(module) is not ContinuousCritic:
            return f"the critic is a {type(module).__name__}, not SB3's ContinuousCritic"
        if (reason := extractor_ineligible(module.features_extractor) or module_ineligible(module)) is not None:
            return reason
        try:
            members, _ = critic_networks(module)
        except ValueError as error:
            return str(error)
        if len(list(module.parameters())) != sum(len(parameters_of(member)) for member in members):
            return "the critic has parameters beside its networks"
    return adam_ineligible(critic.optimizer, list(critic.parameters()))


class Critics:
    """k critics with one output, and their targets.

    Args:
        critic, target: SB3's, with :func:`critics_ineligible` None; ``critic.optimizer`` is Adam.

    Attributes:
        flat, target_flat: Parameters of critics and targets, in the same order.
        adam: Steps of ``critic.optimizer``.
        networks, target_networks: The stacked networks.
    """

    def __init__(self, critic: Any, target: Any) -> None:
        members, activation = critic_networks(critic)
        targets, _ = critic_networks(target)
        self.flat, self.target_flat = FlatParameters(stacked_order(members)), FlatParameters(stacked_order(targets))
        self.adam = FlatAdam(self.flat, critic.optimizer)
        self.networks = StackedMlp(members, activation, self.flat)
        self.target_networks = StackedMlp(targets, activation, self.target_flat)
        self._first = Mlp(members[0], activation)
        self._sentinels = (members[0][0], targets[0][0])
        self.size = len(members)
        self._grads: dict[int, torch.Tensor] = {}

    @property
    def intact(self) -> bool:
        """Whether the networks still lie in the flat buffers; attaches gradients that were dropped."""
        layer, target_layer = self._sentinels
        return (
            layer.weight is self.flat.parameters[0]
            and target_layer.weight is self.target_flat.parameters[0]
            and self.adam.in_step
            and not self.flat.refresh()
            and self.target_flat.intact
        )

    def target_values(self, x: torch.Tensor) -> Floats:
        """Smallest target value of each row, a new array float32[B], for ``x`` float32[B, S + P]."""
        values: Floats = self.target_networks.predict(x).numpy()[:, :, 0].min(0)
        return values

    def fit(self, x: torch.Tensor, targets: Floats, factor: float) -> float:
        """One Adam step on ``factor * sum_k mean_b (Q_k(x_b) - targets_b)^2``; returns that loss before the step."""
        loss = self.fit_gradient(x, targets, factor)
        self.adam.step()
        return loss

    def fit_gradient(self, x: torch.Tensor, targets: Floats, factor: float) -> float:
        """The loss of :meth:`fit`, with its gradient written into ``flat.grad``."""
        rows = len(x)
        if rows not in self._grads:
            if len(self._grads) >= 8:
                del self._grads[next(iter(self._grads))]
            self._grads[rows] = torch.empty(self.size, rows, 1)
        grad = self._grads[rows]
        q_values = self.networks.forward(x)
        loss = _squared_errors(q_values.numpy()[:, :, 0], targets, np.float32(factor), grad.numpy()[:, :, 0])
        self.networks.backward(grad)
        return float(loss)

    def smallest(self, x: torch.Tensor, columns: slice) -> tuple[Floats, Floats]:
        """Smallest value of each row, and what an actor descends.

        Returns:
            ``values`` float32[B], and the gradient of ``-mean(values)`` with respect to ``columns`` of ``x``,
            float32[B, columns].
        """
        q_values = self.networks.forward(x).numpy()[:, :, 0]
        chosen = q_values.argmin(0)
        d_out = np.full(len(x), -1.0 / len(x), np.float32)
        return q_values.min(0), self.networks.chosen_input_gradient(chosen, d_out, columns).numpy()

    def first(self, x: torch.Tensor, columns: slice) -> tuple[Floats, Floats]:
        """The same for the first critic."""
        values = self._first.forward(x)
        grad = self._first.backward(
            torch.full((len(x), 1), -1.0 / len(x)), parameters=False, inputs=True, columns=columns
        )
        assert grad is not None
        return values.numpy()[:, 0], grad.numpy()

    def follow(self, tau: float) -> None:
        """Move the targets: ``target = (1 - tau) target + tau critic``."""
        polyak(self.flat, self.target_flat, tau)


def polyak(flat: FlatParameters, target: FlatParameters, tau: float) -> None:
    """``target = (1 - tau) target + tau flat`` for two buffers in the same order, as SB3's ``polyak_update``."""
    target.data.mul_(1 - tau)
    torch.add(target.data, flat.data, alpha=tau, out=target.data)
