"""Log-probability, entropy, KL divergence and their gradients, hand-written over arrays.

Two families answer the same questions about a batch of B parameter rows:

* :class:`Categoricals`: independent categorical factors given by logits: Discrete (one factor), MultiDiscrete, and
  MultiBinary as two-way factors. Masks follow sb3-contrib: the logit of an illegal action counts as -1e8, it adds
  nothing to the entropy, and no gradient flows into it.
* :class:`DiagGaussian`: a mean for every row and one ``log_std`` for all, as in SB3's PPO.

The order of calls is ``evaluate`` (log-probability and entropy), optionally ``divergence`` (KL of the evaluated
distribution from a fixed old one, *new* first), then ``gradient``, which combines the gradients of the three by the
chain rule. All arrays are float32 and C-contiguous unless a docstring says otherwise; results are buffers that the next
call with as many rows writes again.

KL(new||old), diagonal Gaussian:
``sum_j [log s_old - log s_new + (s_new^2 + (m_new - m_old)^2) / (2 s_old^2) - 1/2]``;
categorical: ``sum_a p_new (log p_new - log p_old)``, summed over the factors.

>>> import numpy as np
>>> family = Categoricals([3])
>>> log_prob, entropy = family.evaluate(np.zeros((1, 3), np.float32), np.array([[1.0]], np.float32))
>>> round(float(np.exp(log_prob[0])), 4), round(float(entropy[0]), 4)
(0.3333, 1.0986)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()

Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]

ILLEGAL_LOGIT = -1e8
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_NO_MASKS = np.ones((0, 0), np.bool_)
_ILLEGAL = np.float32(ILLEGAL_LOGIT)


# ---- categorical factors -------------------------------------------------------------------------------------------
@numba.njit(cache=True, error_model="numpy")
def _normalise(logits, masks, bounds, log_probs, probs):
    """Log-probabilities and probabilities of every factor; illegal entries get the logit -1e8 and probability 0."""
    masked = masks.size > 0
    for i in range(logits.shape[0]):
        for k in range(bounds.size - 1):
            first, stop = bounds[k], bounds[k + 1]
            top = -np.float32(np.inf)
            legal = 0
            for a in range(first, stop):
                if not masked or masks[i, a]:
                    top = max(top, logits[i, a])
                    legal += 1
            if legal == 0:  # sb3-contrib: all logits equal, so a uniform choice
                for a in range(first, stop):
                    log_probs[i, a] = -np.float32(np.log(np.float32(stop - first)))
                    probs[i, a] = np.float32(1.0) / np.float32(stop - first)
                continue
            total = np.float32(0.0)
            for a in range(first, stop):
                if not masked or masks[i, a]:
                    probs[i, a] = np.exp(logits[i, a] - top)
                    total += probs[i, a]
            log_total = np.log(total)
            for a in range(first, stop):
                if not masked or masks[i, a]:
                    log_probs[i, a] = (logits[i, a] - top) - log_total
                    probs[i, a] /= total
                else:
                    log_probs[i, a] = _ILLEGAL
                    probs[i, a] = np.float32(0.0)


@numba.njit(cache=True, error_model="numpy")
def _evaluate_categoricals(log_probs, probs, masks, bounds, actions, log_prob, entropies, entropy):
    masked = masks.size > 0
    for i in range(log_probs.shape[0]):
        log_prob[i] = np.float32(0.0)
        entropy[i] = np.float32(0.0)
        for k in range(bounds.size - 1):
            first, stop = bounds[k], bounds[k + 1]
            log_prob[i] += log_probs[i, first + int(actions[i, k])]
            h = np.float32(0.0)
            for a in range(first, stop):
                if (not masked or masks[i, a]) and probs[i, a] > 0.0:
                    h -= probs[i, a] * log_probs[i, a]
            entropies[i, k] = h
            entropy[i] += h


@numba.njit(cache=True, error_model="numpy")
def _kl_categoricals(log_probs, probs, old_log_probs, bounds, divergences, divergence):
    for i in range(log_probs.shape[0]):
        divergence[i] = np.float32(0.0)
        for k in range(bounds.size - 1):
            d = np.float32(0.0)
            for a in range(bounds[k], bounds[k + 1]):
                if probs[i, a] > 0.0:
                    d += probs[i, a] * (log_probs[i, a] - old_log_probs[i, a])
            divergences[i, k] = d
            divergence[i] += d


@numba.njit(cache=True, error_model="numpy")
def _categorical_gradient(
    log_probs,
    probs,
    masks,
    bounds,
    actions,
    entropies,
    old_log_probs,
    divergences,
    d_log_prob,
    d_entropy,
    d_divergence,
    grad,
):
    masked, with_kl = masks.size > 0, old_log_probs.size > 0
    for i in range(log_probs.shape[0]):
        for k in range(bounds.size - 1):
            first, stop = bounds[k], bounds[k + 1]
            legal = 0
            for a in range(first, stop):
                legal += 1 if not masked or masks[i, a] else 0
            chosen = first + int(actions[i, k])
            for a in range(first, stop):
                if legal == 0 or (masked and not masks[i, a]):
                    grad[i, a] = np.float32(0.0)
                    continue
                p = probs[i, a]
                g = -d_log_prob[i] * p
                if a == chosen:
                    g += d_log_prob[i]
                if p > 0.0:
                    g -= d_entropy[i] * p * (log_probs[i, a] + entropies[i, k])
                    if with_kl:
                        g += d_divergence[i] * p * (log_probs[i, a] - old_log_probs[i, a] - divergences[i, k])
                grad[i, a] = g


class Categoricals:
    """Independent categorical factors; a parameter row holds their logits side by side.

    Args:
        sizes: Number of choices of every factor; P is their sum, K their number.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = [int(size) for size in sizes]
        self.width = sum(self.sizes)
        self._bounds = np.array([0, *np.cumsum(self.sizes)], np.int64)
        self._kept: dict[int, tuple[Floats, ...]] = {}
        self._masks: Masks = _NO_MASKS
        self._actions: Any = None
        self._old: Floats | None = None

    def _buffers(self, rows: int) -> tuple[Floats, ...]:
        if rows not in self._kept:
            if len(self._kept) >= 8:
                del self._kept[next(iter(self._kept))]
            wide, tall = (rows, self.width), (rows, len(self.sizes))
            shapes: list[tuple[int, ...]] = [wide, wide, (rows,), tall, (rows,), tall, (rows,), wide]
            self._kept[rows] = tuple(np.empty(shape, np.float32) for shape in shapes)
        return self._kept[rows]

    def probabilities(self, logits: Floats, masks: Masks | None = None) -> tuple[Floats, Floats]:
        """Log-probabilities and probabilities, float32[B, P] each."""
        log_probs, probs, *_ = self._buffers(len(logits))
        _normalise(logits, _NO_MASKS if masks is None else masks, self._bounds, log_probs, probs)
        return log_probs, probs

    def evaluate(self, logits: Floats, actions: Any, masks: Masks | None = None) -> tuple[Floats, Floats]:
        """Log-probability of ``actions`` and entropy, float32[B] each.

        Args:
            logits: float32[B, P], in any scale.
            actions: [B, K], float32 or int64 holding integers.
            masks: bool[B, P], legal entries are True; None: all are legal.
        """
        self._masks, self._actions, self._old = _NO_MASKS if masks is None else masks, actions, None
        log_probs, probs, log_prob, entropies, entropy, *_ = self._buffers(len(logits))
        _normalise(logits, self._masks, self._bounds, log_probs, probs)
        _evaluate_categoricals(log_probs, probs, self._masks, self._bounds, actions, log_prob, entropies, entropy)
        return log_prob, entropy

    def divergence(self, old_log_probs: Floats) -> Floats:
        """KL(new||old), float32[B], of the rows evaluated last, from old log-probabilities under the same masks."""
        log_probs, probs, _, _, _, divergences, divergence, _ = self._buffers(len(old_log_probs))
        _kl_categoricals(log_probs, probs, old_log_probs, self._bounds, divergences, divergence)
        self._old = old_log_probs
        return divergence

    def gradient(self, d_log_prob: Floats, d_entropy: Floats, d_divergence: Floats | None = None) -> Floats:
        """Gradient with respect to the logits, float32[B, P].

        Args:
            d_log_prob, d_entropy, d_divergence: Gradient of the loss with respect to each row's log-probability,
                entropy and divergence, float32[B]; ``d_divergence`` only after :meth:`divergence`.
        """
        log_probs, probs, _, entropies, _, divergences, _, grad = self._buffers(len(d_log_prob))
        with_kl = d_divergence is not None and self._old is not None
        _categorical_gradient(
            log_probs,
            probs,
            self._masks,
            self._bounds,
            self._actions,
            entropies,
            self._old if with_kl else log_probs[:0],
            divergences,
            d_log_prob,
            d_entropy,
            d_divergence if with_kl else d_entropy,
            grad,
        )
        return grad


# ---- diagonal Gaussian ---------------------------------------------------------------------------------------------
@numba.njit(cache=True, error_model="numpy")
def _evaluate_gaussian(mean, log_std, actions, log_prob, entropy):
    half = np.float32(0.5)
    constant = np.float32(0.0)
    for j in range(log_std.size):
        constant += log_std[j] + np.float32(HALF_LOG_TWO_PI)
    inverse = np.exp(np.float32(-2.0) * log_std)
    for i in range(mean.shape[0]):
        square = np.float32(0.0)
        for j in range(log_std.size):
            d = actions[i, j] - mean[i, j]
            square += d * d * inverse[j]
        log_prob[i] = -half * square - constant
        entropy[i] = constant + half * np.float32(log_std.size)


@numba.njit(cache=True, error_model="numpy")
def _kl_gaussian(mean, log_std, old_mean, old_log_std, divergence):
    half = np.float32(0.5)
    constant = np.float32(0.0)
    for j in range(log_std.size):
        gap = log_std[j] - old_log_std[j]
        constant += half * (np.exp(np.float32(2.0) * gap) - np.float32(1.0)) - gap
    inverse = np.exp(np.float32(-2.0) * old_log_std)
    for i in range(mean.shape[0]):
        square = np.float32(0.0)
        for j in range(log_std.size):
            d = mean[i, j] - old_mean[i, j]
            square += d * d * inverse[j]
        divergence[i] = half * square + constant


@numba.njit(cache=True, error_model="numpy")
def _gaussian_gradient(
    mean,
    log_std,
    actions,
    old_mean,
    old_log_std,
    d_log_prob,
    d_entropy,
    d_divergence,
    grad,
    log_std_grad,
):
    with_kl = old_mean.size > 0
    inverse = np.exp(np.float32(-2.0) * log_std)
    total_kl = np.float32(0.0)
    log_std_grad[:] = 0.0
    for i in range(mean.shape[0]):
        for j in range(log_std.size):
            d = actions[i, j] - mean[i, j]
            grad[i, j] = d_log_prob[i] * d * inverse[j]
            log_std_grad[j] += d_log_prob[i] * (d * d * inverse[j] - np.float32(1.0)) + d_entropy[i]
    if with_kl:
        old_inverse = np.exp(np.float32(-2.0) * old_log_std)
        for i in range(mean.shape[0]):
            total_kl += d_divergence[i]
            for j in range(log_std.size):
                grad[i, j] += d_divergence[i] * (mean[i, j] - old_mean[i, j]) * old_inverse[j]
        for j in range(log_std.size):
            ratio = np.exp(np.float32(2.0) * (log_std[j] - old_log_std[j]))
            log_std_grad[j] += total_kl * (ratio - np.float32(1.0))


class DiagGaussian:
    """Independent Gaussians; a parameter row holds the means, the logarithm of the deviations is the same for all rows.

    Args:
        log_std: float32[P], read in place.
        log_std_grad: float32[P], where :meth:`gradient` writes its gradient.
    """

    def __init__(self, log_std: Floats, log_std_grad: Floats) -> None:
        self.log_std, self.log_std_grad = log_std, log_std_grad
        self.width = len(log_std)
        self._kept: dict[int, tuple[Floats, ...]] = {}
        self._mean: Any = None
        self._actions: Any = None
        self._old: tuple[Floats, Floats] | None = None

    def _buffers(self, rows: int) -> tuple[Floats, ...]:
        if rows not in self._kept:
            if len(self._kept) >= 8:
                del self._kept[next(iter(self._kept))]
            shapes: list[tuple[int, ...]] = [(rows,), (rows,), (rows,), (rows, self.width)]
            self._kept[rows] = tuple(np.empty(shape, np.float32) for shape in shapes)
        return self._kept[rows]

    def evaluate(self, mean: Floats, actions: Floats, masks: None = None) -> tuple[Floats, Floats]:
        """Log-probability of ``actions`` float32[B, P] and entropy, float32[B] each. There are no masks."""
        self._mean, self._actions, self._old = mean, actions, None
        log_prob, entropy, *_ = self._buffers(len(mean))
        _evaluate_gaussian(mean, self.log_std, actions, log_prob, entropy)
        return log_prob, entropy

    def divergence(self, old_mean: Floats, old_log_std: Floats) -> Floats:
        """KL(new||old), float32[B], of the rows evaluated last."""
        divergence = self._buffers(len(old_mean))[2]
        _kl_gaussian(self._mean, self.log_std, old_mean, old_log_std, divergence)
        self._old = (old_mean, old_log_std)
        return divergence

    def gradient(self, d_log_prob: Floats, d_entropy: Floats, d_divergence: Floats | None = None) -> Floats:
        """Gradient with respect to the means, float32[B, P]; that of ``log_std`` goes to ``log_std_grad``.

        Args:
            d_log_prob, d_entropy, d_divergence: As in :meth:`Categoricals.gradient`.
        """
        grad = self._buffers(len(d_log_prob))[3]
        with_kl = d_divergence is not None and self._old is not None
        old_mean, old_log_std = self._old if self._old is not None and with_kl else (grad[:0], self.log_std)
        _gaussian_gradient(
            self._mean,
            self.log_std,
            self._actions,
            old_mean,
            old_log_std,
            d_log_prob,
            d_entropy,
            d_divergence if with_kl else d_entropy,
            grad,
            self.log_std_grad,
        )
        return grad


Family = Categoricals | DiagGaussian


def action_family(policy: Any) -> Family:
    """The family of an eligible SB3 policy; a Gaussian's ``log_std`` must have a gradient tensor already."""
    distribution = policy.action_dist
    if hasattr(policy, "log_std"):
        return DiagGaussian(policy.log_std.data.numpy(), policy.log_std.grad.numpy())
    if hasattr(distribution, "action_dims"):
        return Categoricals(distribution.action_dims)
    return Categoricals([distribution.action_dim])
