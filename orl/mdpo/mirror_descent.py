"""The mathematics of MDPO as functions of tensors: divergences from the old policy, and the losses of both algorithms.

The generalised logarithm of order q is ``ln_q(x) = (x^(q-1) - 1) / (q - 1)``, with ``ln_1 = log`` (q = 2: ``x - 1``).
The Bregman divergence of ``psi(p) = E_p[ln_q p]``, *new* from *old*, is

    B_q(new, old) = E_new[ln_q new - q ln_q old] + (q - 1) E_old[ln_q old],

which is KL(new || old) at q = 1 and the squared Euclidean distance at q = 2 (categorical). An action of several
components has one factor a component; its divergence is the sum over the factors. At q = 1 that is the divergence of
the joint distribution; for other q it is a definition, chosen because a joint density of many components raised to a
power explodes.

Source: Tomar et al., Mirror Descent Policy Optimization (arXiv 2005.09814), equations of the on-policy and off-policy
updates; the forms for q != 1 were derived from the definition above (see the reference page).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from sb3_contrib.common.maskable.distributions import (
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
    StateDependentNoiseDistribution,
)


class Gaussian(NamedTuple):
    """Independent normal factors of N states: ``mean`` and ``log_std``, float[N, D] (or broadcastable to it)."""

    mean: torch.Tensor
    log_std: torch.Tensor


class Categoricals(NamedTuple):
    """Independent categorical factors of N states: a tensor float[N, n_d] of log-probabilities for each factor."""

    log_probs: tuple[torch.Tensor, ...]


Factors = Gaussian | Categoricals


def factors(distribution: Distribution) -> Factors:
    """The factors of an SB3 (or sb3-contrib, masked) action distribution; gradients flow.

    A Bernoulli component is a categorical factor of two options. A squashed Gaussian is represented by the Gaussian
    before the squashing, which has the same divergences at q = 1.

    Raises:
        TypeError: another kind of distribution.
    """
    if isinstance(distribution, DiagGaussianDistribution | StateDependentNoiseDistribution):
        normal = distribution.distribution
        return Gaussian(normal.mean, normal.stddev.log())
    if isinstance(distribution, CategoricalDistribution | MaskableCategoricalDistribution):
        return Categoricals((distribution.distribution.logits,))
    if isinstance(distribution, MultiCategoricalDistribution):
        return Categoricals(tuple(d.logits for d in distribution.distribution))
    if isinstance(distribution, MaskableMultiCategoricalDistribution):
        return Categoricals(tuple(d.logits for d in distribution.distributions))
    if isinstance(distribution, BernoulliDistribution):
        logits = distribution.distribution.logits
        two = torch.stack((-logits, logits), -1)
        return Categoricals(torch.nn.functional.logsigmoid(two).unbind(-2))
    raise TypeError(f"no closed-form divergence for {type(distribution).__name__}")


def detached(old: Factors) -> Factors:
    """The same factors without their history."""
    if isinstance(old, Gaussian):
        return Gaussian(old.mean.detach(), old.log_std.detach())
    return Categoricals(tuple(part.detach() for part in old.log_probs))


# ---- divergences ---------------------------------------------------------------------------------------------------
def bregman_divergence(new: Factors, old: Factors, q: float = 1.0) -> torch.Tensor:
    """B_q(new, old) of every state, float[N]; KL(new || old) at q = 1. Closed forms, no samples.

    >>> one, two = (Gaussian(torch.tensor([[m]]), torch.tensor([[s]]).log()) for m, s in ((1.0, 2.0), (0.0, 1.0)))
    >>> round(float(bregman_divergence(one, two)), 6), round(float(bregman_divergence(two, one)), 6)
    (1.306853, 0.443147)
    """
    if isinstance(new, Gaussian) and isinstance(old, Gaussian):
        form = _gaussian_kl if q == 1.0 else _gaussian_tsallis
        return form(new, old, q).sum(-1)
    if isinstance(new, Categoricals) and isinstance(old, Categoricals):
        parts = zip(new.log_probs, old.log_probs, strict=True)
        return torch.stack([_categorical(one, other, q) for one, other in parts]).sum(0)
    raise TypeError(f"divergence of a {type(new).__name__} from a {type(old).__name__}")


def _gaussian_kl(new: Gaussian, old: Gaussian, q: float) -> torch.Tensor:
    ratio = (2 * (new.log_std - old.log_std)).exp()
    shift = (new.mean - old.mean).square() * (-2 * old.log_std).exp()
    return old.log_std - new.log_std + (ratio + shift - 1) / 2


def _gaussian_tsallis(new: Gaussian, old: Gaussian, q: float) -> torch.Tensor:
    """From the integrals of new^q, new * old^(q-1) and old^q, by ``expm1`` of their logarithms (0 at q = 1)."""
    r = q - 1

    def log_power(log_std: torch.Tensor) -> torch.Tensor:
        """log of the integral of a normal density to the power q."""
        return -r * (log_std + math.log(2 * math.pi) / 2) - math.log(q) / 2

    squared_ratio = (2 * (new.log_std - old.log_std)).exp()
    shift = (new.mean - old.mean).square() * (-2 * old.log_std).exp()
    spread = 1 + r * squared_ratio
    log_cross = -r * (old.log_std + math.log(2 * math.pi) / 2) - spread.log() / 2 - r * shift / (2 * spread)
    return (log_power(new.log_std).expm1() - q * log_cross.expm1()) / r + log_power(old.log_std).expm1()


def _categorical(new: torch.Tensor, old: torch.Tensor, q: float) -> torch.Tensor:
    if q == 1.0:
        return (new.exp() * (new - old)).sum(-1)
    ln_new, ln_old = generalised_log(new, q), generalised_log(old, q)
    return (new.exp() * (ln_new - q * ln_old) + (q - 1) * old.exp() * ln_old).sum(-1)


def generalised_log(log_p: torch.Tensor, q: float) -> torch.Tensor:
    """ln_q(p) from log p, elementwise: ``expm1((q - 1) log p) / (q - 1)``, and log p at q = 1.

    >>> float(generalised_log(torch.tensor(0.5).log(), 2.0))
    -0.5
    """
    return log_p if q == 1.0 else ((q - 1) * log_p).expm1() / (q - 1)


# ---- losses --------------------------------------------------------------------------------------------------------
def mirror_step_loss(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantages: torch.Tensor,
    divergence: torch.Tensor,
    step_size: float,
) -> torch.Tensor:
    """On-policy loss, a scalar: ``-mean(ratio * advantage) + mean(divergence) / step_size``; arguments are float[N]."""
    ratio = torch.exp(log_prob - old_log_prob)
    return -(ratio * advantages).mean() + divergence.mean() / step_size


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, clip_range: float | None
) -> torch.Tensor:
    """Mean of the larger of two squared errors, sample by sample: of the value, and of the value held near the old one.

    All arguments are float[N] in one order of samples; ``clip_range`` None means no clipping.
    """
    error = (values - returns).square()
    if clip_range is None:
        return error.mean()
    held = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return torch.maximum(error, (held - returns).square()).mean()


def soft_mirror_step(
    ln_new: torch.Tensor, ln_old: torch.Tensor, q_values: torch.Tensor, bregman_coef: float, ent_coef: float, q: float
) -> torch.Tensor:
    """Off-policy actor loss of every sample: ``c ln_q new - q (c - lambda) ln_q old - Q``, at the new policy's actions.

    ``ln_new`` and ``ln_old`` are :func:`generalised_log` of the two densities at the same action; c = ``bregman_coef``,
    lambda = ``ent_coef``. At c = lambda the old policy drops out and this is SAC's loss.
    """
    return bregman_coef * ln_new - q * (bregman_coef - ent_coef) * ln_old - q_values
