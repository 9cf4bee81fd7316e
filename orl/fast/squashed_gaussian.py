"""Gaussians squashed by tanh, as SAC's actor has them: draws, log-probabilities and gradients, hand-written.

A parameter row holds the means and, after them, the logarithms of the deviations before their limits. For noise e,

    u = mean + exp(log_std) e,  a = tanh(u),  log pi(a) = sum_j [ log N(u_j; mean_j, std_j) - log(1 - a_j^2 + 1e-6) ].

With the noise held fixed, log N depends on ``log_std`` alone (its derivative is -1), which the gradient uses. Source:
Haarnoja et al., arXiv 1812.05905, appendix C; constants of Stable-Baselines3.

>>> family = SquashedGaussian(2)
>>> sample = family.evaluate(np.zeros((1, 4), np.float32), np.array([[0.5, -1.0]], np.float32))
>>> bool(np.allclose(sample.actions, np.tanh([[0.5, -1.0]])))
True
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch

from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()

Floats = npt.NDArray[np.float32]

LOG_STD_MIN, LOG_STD_MAX = np.float32(-20.0), np.float32(2.0)
FLOOR = np.float32(1e-6)
HALF_LOG_TWO_PI = np.float32(0.5 * np.log(2.0 * np.pi))


class SquashedSample(NamedTuple):
    """Actions of B rows and what their gradient needs.

    Attributes:
        actions: In [-1, 1], float32[B, P].
        log_prob: Of the actions, float32[B].
        component_log_prob: The same, component by component, float32[B, P].
        unsquashed: u, float32[B, P].
        mean, log_std, std: Of the Gaussian, float32[B, P]; ``log_std`` within its limits.
        spread: ``std * noise``, float32[B, P].
        inside: Whether ``log_std`` was within its limits, bool[B, P].
    """

    actions: Floats
    log_prob: Floats
    component_log_prob: Floats
    unsquashed: Floats
    mean: Floats
    log_std: Floats
    std: Floats
    spread: Floats
    inside: npt.NDArray[np.bool_]


@numba.njit(cache=True, error_model="numpy")
def _gradient(actions, spread, inside, d_log_prob, d_actions, grad):
    one, two = np.float32(1.0), np.float32(2.0)
    width = actions.shape[1]
    for i in range(actions.shape[0]):
        d = d_log_prob[i]
        for j in range(width):
            a = actions[i, j]
            slope = one - a * a
            through = (d_actions[i, j] + d * two * a / (slope + FLOOR)) * slope
            grad[i, j] = through
            grad[i, width + j] = through * spread[i, j] - d if inside[i, j] else np.float32(0.0)


def _torch_exp(array: Floats) -> Floats:
    """In place. torch's, not numpy's: the last bit of an action near 1 can move its log-probability by a tenth."""
    return torch.from_numpy(array).exp_().numpy()


def _torch_tanh(array: Floats) -> Floats:
    return torch.from_numpy(array).tanh_().numpy()


class SquashedGaussian:
    """Squashed Gaussians of P components.

    Args:
        width: P.
    """

    def __init__(self, width: int) -> None:
        self.width = width

    def act(self, parameters: Floats, noise: Floats) -> Floats:
        """Actions in [-1, 1], a new array float32[B, P], for rows float32[B, 2P] and noise float32[B, P]."""
        log_std = np.clip(parameters[:, self.width :], LOG_STD_MIN, LOG_STD_MAX)
        return _torch_tanh(parameters[:, : self.width] + _torch_exp(log_std) * noise)

    def evaluate(self, parameters: Floats, noise: Floats) -> SquashedSample:
        """Actions and their log-probabilities for rows float32[B, 2P] and noise float32[B, P]; new arrays."""
        mean, raw = parameters[:, : self.width], parameters[:, self.width :]
        log_std = np.clip(raw, LOG_STD_MIN, LOG_STD_MAX)
        std = _torch_exp(log_std.copy())
        spread = std * noise
        unsquashed = mean + spread
        actions = _torch_tanh(unsquashed.copy())
        gap = unsquashed - mean
        components = gap * gap
        components /= np.float32(-2.0) * std * std
        components -= log_std
        components -= HALF_LOG_TWO_PI
        components -= np.log(np.float32(1.0) - actions * actions + FLOOR)
        inside = log_std == raw
        return SquashedSample(
            actions, components.sum(1), components, unsquashed, mean.copy(), log_std, std, spread, inside
        )

    def gradient(self, sample: SquashedSample, d_log_prob: Floats, d_actions: Floats) -> Floats:
        """Gradient with respect to the parameter rows, float32[B, 2P], with the noise of the sample held fixed.

        Args:
            sample: Result of :meth:`evaluate`.
            d_log_prob: Gradient of the loss with respect to each row's log-probability, float32[B].
            d_actions: Gradient with respect to the actions, float32[B, P], that through the log-probability left out.
        """
        grad = np.empty((len(d_log_prob), 2 * self.width), np.float32)
        _gradient(sample.actions, sample.spread, sample.inside, d_log_prob, d_actions, grad)
        return grad
