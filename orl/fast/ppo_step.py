"""One minibatch of proximal policy optimisation: losses, gradients, one Adam step.

The mathematics is that of Stable-Baselines3's ``PPO.train`` (Schulman et al., arXiv 1707.06347, with clipped values,
normalised advantages and the approximate KL of http://joschu.net/blog/kl-approx.html). :class:`ActorCriticEngine` holds
what any on-policy algorithm needs of an eligible policy: flat parameters, both networks, the action family and Adam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.distributions import Masks, action_family
from orl.fast.features import Features
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import ActorCriticMlp, policy_ineligible

drop_stale_kernels()

Floats = npt.NDArray[np.float32]


@numba.njit(cache=True, error_model="numpy")
def _losses(
    chosen,
    log_prob,
    entropy,
    values,
    old_log_probs,
    old_values,
    advantages,
    returns,
    clip_range,
    clip_range_vf,
    normalize,
    ent_coef,
    vf_coef,
    d_log_prob,
    d_entropy,
    d_values,
    figures,
):
    """Gradients of the loss by row; ``figures``: policy, value and entropy loss, loss, KL, clip fraction."""
    rows = chosen.size
    one = np.float32(1.0)
    share = one / np.float32(rows)
    mean, scale = 0.0, 1.0
    if normalize and rows > 1:
        for i in range(rows):
            mean += advantages[chosen[i]]
        mean /= rows
        square = 0.0
        for i in range(rows):
            square += (advantages[chosen[i]] - mean) ** 2
        scale = 1.0 / (np.sqrt(square / (rows - 1)) + 1e-8)
    policy, value, total_entropy, kl, clipped = 0.0, 0.0, 0.0, 0.0, 0
    for i in range(rows):
        at = chosen[i]
        advantage = np.float32((advantages[at] - mean) * scale)
        log_ratio = log_prob[i] - old_log_probs[at]
        ratio = np.exp(log_ratio)
        bounded = min(max(ratio, one - clip_range), one + clip_range)
        inside = ratio == bounded
        policy -= min(advantage * ratio, advantage * bounded)
        active = inside or advantage * ratio < advantage * bounded
        d_log_prob[i] = -advantage * ratio * share if active else np.float32(0.0)
        clipped += abs(ratio - one) > clip_range
        kl += (ratio - one) - log_ratio
        total_entropy += entropy[i]
        d_entropy[i] = -ent_coef * share
        predicted, passes = values[i], True
        if clip_range_vf >= 0.0:
            change = values[i] - old_values[at]
            predicted = old_values[at] + min(max(change, -clip_range_vf), clip_range_vf)
            passes = abs(change) <= clip_range_vf
        error = predicted - returns[at]
        value += error * error
        d_values[i] = np.float32(2.0) * vf_coef * error * share if passes else np.float32(0.0)
    figures[0] = policy / rows
    figures[1] = value / rows
    figures[2] = -total_entropy / rows
    figures[3] = figures[0] + ent_coef * figures[2] + vf_coef * figures[1]
    figures[4] = kl / rows
    figures[5] = clipped / rows


@dataclass
class Batch:
    """A rollout, flattened to N transitions in SB3's order (copy after copy).

    Attributes:
        features: float32[N, F].
        actions: float32[N, K] (Box: K action entries; otherwise the integers of the K factors).
        old_values, old_log_probs, advantages, returns: float32[N].
        masks: bool[N, A] or None.
    """

    features: Floats
    actions: Floats
    old_values: Floats
    old_log_probs: Floats
    advantages: Floats
    returns: Floats
    masks: Masks | None = None


@dataclass(frozen=True)
class Coefficients:
    """Of one call of ``train``; ``clip_range_vf`` None: values are not clipped."""

    clip_range: float
    clip_range_vf: float | None
    normalize_advantage: bool
    ent_coef: float
    vf_coef: float
    max_grad_norm: float


class ActorCriticEngine:
    """An eligible policy on flat buffers.

    Args:
        policy: SB3 actor-critic policy for which :func:`engine_ineligible` is None.

    Attributes:
        flat: All parameters in the order of ``policy.parameters()``.
        networks: Actor and critic.
        family: The action distributions.
        features: Turns observations into rows.
        adam: Steps of ``policy.optimizer`` over ``flat``.
    """

    def __init__(self, policy: Any) -> None:
        if (reason := engine_ineligible(policy)) is not None:
            raise ValueError(reason)
        self.policy, self.optimizer = policy, policy.optimizer
        self.flat = FlatParameters(policy.parameters())
        self.adam = FlatAdam(self.flat, policy.optimizer)
        self.networks = ActorCriticMlp(policy)
        self.family = action_family(policy)
        extractors = getattr(policy.features_extractor, "extractors", None)
        self.features = Features(policy.observation_space, None if extractors is None else list(extractors))
        self._kept: dict[int, tuple[Any, ...]] = {}
        self.figures = np.zeros(6)

    def intact(self, policy: Any) -> bool:
        """Whether this engine still holds the policy's memory; otherwise make a new one. Attaches lost gradients."""
        if policy is not self.policy or policy.optimizer is not self.optimizer or not self.adam.intact:
            return False
        return not self.flat.refresh()

    def values(self, features: Floats, chunk: int = 4096) -> Floats:
        """Values float32[B] of feature rows float32[B, F]."""
        out = np.empty(len(features), np.float32)
        for first in range(0, len(features), chunk):
            rows = torch.from_numpy(features[first : first + chunk])
            out[first : first + chunk] = self.networks.critic.predict(rows)[:, 0].numpy()
        return out

    def log_probs(self, features: Floats, actions: Any, masks: Masks | None = None, chunk: int = 4096) -> Floats:
        """Log-probabilities float32[B] of actions [B, K]."""
        out = np.empty(len(features), np.float32)
        for first in range(0, len(features), chunk):
            part = slice(first, first + chunk)
            parameters = self.networks.actor.predict(torch.from_numpy(features[part])).numpy()
            family: Any = self.family
            out[part] = family.evaluate(parameters, actions[part], None if masks is None else masks[part])[0]
        return out

    def _buffers(self, batch: Batch, rows: int) -> tuple[Any, ...]:
        if rows not in self._kept:
            if len(self._kept) >= 8:
                del self._kept[next(iter(self._kept))]
            features = np.empty((rows, batch.features.shape[1]), np.float32)
            d_values = np.empty(rows, np.float32)
            self._kept[rows] = (
                features,
                torch.from_numpy(features),
                np.empty((rows, batch.actions.shape[1]), np.float32),
                np.empty((rows, self.networks.actor.widths[-1]), np.bool_),
                np.empty(rows, np.float32),
                np.empty(rows, np.float32),
                d_values,
                torch.from_numpy(d_values)[:, None],
            )
        return self._kept[rows]

    def losses(self, batch: Batch, chosen: npt.NDArray[np.int64], c: Coefficients) -> npt.NDArray[np.float64]:
        """Forward pass over the transitions ``chosen``; the gradients wait for :meth:`step`.

        Returns:
            float64[6], a buffer: policy, value and entropy loss, total loss, approximate KL, clip fraction.
        """
        features, features_tensor, actions, masks, d_log_prob, d_entropy, d_values, _ = self._buffers(
            batch, len(chosen)
        )
        batch.features.take(chosen, 0, features, "clip")
        batch.actions.take(chosen, 0, actions, "clip")
        if batch.masks is not None:
            batch.masks.take(chosen, 0, masks, "clip")
        family: Any = self.family
        parameters = self.networks.actor.forward(features_tensor)
        values = self.networks.critic.forward(features_tensor)
        log_prob, entropy = family.evaluate(parameters.numpy(), actions, None if batch.masks is None else masks)
        _losses(
            chosen,
            log_prob,
            entropy,
            values.numpy()[:, 0],
            batch.old_log_probs,
            batch.old_values,
            batch.advantages,
            batch.returns,
            np.float32(c.clip_range),
            np.float32(-1.0 if c.clip_range_vf is None else c.clip_range_vf),
            c.normalize_advantage,
            np.float32(c.ent_coef),
            np.float32(c.vf_coef),
            d_log_prob,
            d_entropy,
            d_values,
            self.figures,
        )
        return self.figures

    def backward(self, batch: Batch, chosen: npt.NDArray[np.int64]) -> None:
        """Write the gradient of the loss of :meth:`losses` into ``flat.grad``."""
        *_, d_log_prob, d_entropy, _, d_values = self._buffers(batch, len(chosen))
        grad = self.family.gradient(d_log_prob, d_entropy)
        self.networks.actor.backward(torch.from_numpy(grad))
        self.networks.critic.backward(d_values)

    def step(self, batch: Batch, chosen: npt.NDArray[np.int64], max_grad_norm: float) -> None:
        """Backward pass of the last :meth:`losses`, gradient clipping, Adam."""
        self.backward(batch, chosen)
        self.adam.clip(max_grad_norm)
        self.adam.step()


def engine_ineligible(policy: Any) -> str | None:
    """Why :class:`ActorCriticEngine` cannot drive this policy; None if it can."""
    return policy_ineligible(policy) or adam_ineligible(policy.optimizer, list(policy.parameters()))
