"""PDPPO on flat buffers with hand-written gradients: the same updates as on autograd, to rounding.

Policy and state critic are those of :class:`orl.fast.ppo_step.ActorCriticEngine`, with its own Adam; the post-decision
critic has a flat buffer and an Adam of its own and takes its step on the same minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.features import Features
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import Mlp, extractor_ineligible, hidden_layers, module_ineligible, observations_ineligible
from orl.fast.ppo_step import ActorCriticEngine, Batch, Coefficients

drop_stale_kernels()

Floats = npt.NDArray[np.float32]


@numba.njit(cache=True, error_model="numpy")
def _value_gradient(chosen, values, old_values, returns, clip_range, factor, d_values):
    """Gradient of ``factor * mean((v - R)^2)`` by row, v clipped about the old value as in SB3; returns the mean."""
    share = np.float32(2.0) * factor / np.float32(chosen.size)
    total = 0.0
    for i in range(chosen.size):
        at = chosen[i]
        predicted, passes = values[i], True
        if clip_range >= 0.0:
            change = values[i] - old_values[at]
            predicted = old_values[at] + min(max(change, -clip_range), clip_range)
            passes = abs(change) <= clip_range
        error = predicted - returns[at]
        total += error * error
        d_values[i] = share * error if passes else np.float32(0.0)
    return total / chosen.size


@dataclass
class PostBatch:
    """The post-decision side of a rollout, in the order of :class:`orl.fast.ppo_step.Batch`.

    Attributes:
        features: float32[N, F] of the post-decision observations.
        old_values, returns: float32[N].
        vf_coef: Weight of the loss.
        clip_range_vf: None: values are not clipped.
        losses: Loss of every minibatch so far.
    """

    features: Floats
    old_values: Floats
    returns: Floats
    vf_coef: float
    clip_range_vf: float | None
    losses: list[float]


class TwoCriticsEngine(ActorCriticEngine):
    """An eligible policy and an eligible post-decision critic.

    Args:
        policy: SB3 actor-critic policy.
        post_critic: :class:`orl.pdppo.post_critic.PostCritic`; :func:`post_critic_ineligible` is None.

    Attributes:
        post_batch: Set it before the first ``step``.
    """

    post_batch: PostBatch

    def __init__(self, policy: Any, post_critic: Any) -> None:
        super().__init__(policy)
        if (reason := post_critic_ineligible(post_critic)) is not None:
            raise ValueError(reason)
        self.post_critic, self.post_optimizer = post_critic, post_critic.optimizer
        self.post_flat = FlatParameters(post_critic.parameters())
        self.post_adam = FlatAdam(self.post_flat, post_critic.optimizer)
        layers, activation = hidden_layers(post_critic.net[:-1])
        self.post_network = Mlp([*layers, post_critic.net[-1]], activation or "tanh")
        extractors = getattr(post_critic.features_extractor, "extractors", None)
        self.post_features = Features(post_critic.observation_space, None if extractors is None else list(extractors))

    def intact(self, policy: Any) -> bool:
        """Whether this engine still holds the memory of the policy and of the post-decision critic."""
        if not super().intact(policy) or self.post_critic.optimizer is not self.post_optimizer:
            return False
        return self.post_adam.intact and not self.post_flat.refresh()

    def post_values(self, features: Floats, chunk: int = 4096) -> Floats:
        """V^x float32[B] of feature rows float32[B, F]."""
        out = np.empty(len(features), np.float32)
        for first in range(0, len(features), chunk):
            rows = torch.from_numpy(features[first : first + chunk])
            out[first : first + chunk] = self.post_network.predict(rows)[:, 0].numpy()
        return out

    def step(self, batch: Batch, chosen: npt.NDArray[np.int64], max_grad_norm: float) -> None:
        """The policy's step, then that of the post-decision critic (none without weight)."""
        super().step(batch, chosen, max_grad_norm)
        if self.post_batch.vf_coef == 0.0:
            return
        loss, d_values = self.post_losses(chosen)
        self.post_batch.losses.append(loss)
        self.post_network.backward(torch.from_numpy(d_values)[:, None])
        self.post_adam.clip(max_grad_norm)
        self.post_adam.step()

    def post_losses(self, chosen: npt.NDArray[np.int64]) -> tuple[float, Floats]:
        """Loss of the post-decision critic on a minibatch (without ``vf_coef``), and its gradient by row (with it)."""
        post = self.post_batch
        values = self.post_network.forward(torch.from_numpy(post.features.take(chosen, 0)))
        d_values = np.empty(len(chosen), np.float32)
        loss = _value_gradient(
            chosen,
            values.numpy()[:, 0],
            post.old_values,
            post.returns,
            np.float32(-1.0 if post.clip_range_vf is None else post.clip_range_vf),
            np.float32(post.vf_coef),
            d_values,
        )
        return float(loss), d_values


class _SumOfValues:
    """The state critic as a network whose output is ``V(s) + V(s^x)``."""

    def __init__(self, network: Mlp) -> None:
        self.network = network
        self.post_rows: Floats = np.empty((0, 0), np.float32)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.predict(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = len(x)
        values = self.network.forward(torch.cat([x, torch.from_numpy(self.post_rows)]))
        return values[:rows] + values[rows:]

    def backward(self, grad: torch.Tensor) -> None:
        self.network.backward(torch.cat([grad, grad]))


class OneCriticEngine(ActorCriticEngine):
    """An eligible policy whose state critic also values post-decision observations.

    The loss is that of the sum ``V(s) + V(s^x)`` against the sum of the two targets.

    Attributes:
        post_batch: Set it before the first ``losses``.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        self._sum = _SumOfValues(self.networks.critic)
        self.networks.critic = self._sum  # type: ignore[assignment]
        self._batch: tuple[Batch, PostBatch] | None = None
        self._summed: Batch | None = None
        self._post: PostBatch | None = None
        self.post_features = self.features

    @property
    def post_batch(self) -> PostBatch:
        assert self._post is not None
        return self._post

    @post_batch.setter
    def post_batch(self, post: PostBatch) -> None:
        self._post, self._summed = post, None

    def post_values(self, features: Floats) -> Floats:
        """V(s^x) float32[B] of feature rows float32[B, F]."""
        return self.values(features)

    def losses(self, batch: Batch, chosen: npt.NDArray[np.int64], c: Coefficients) -> npt.NDArray[np.float64]:
        """As in the base class, with sums for values."""
        post = self.post_batch
        if self._summed is None:
            self._summed = replace(
                batch, old_values=batch.old_values + post.old_values, returns=batch.returns + post.returns
            )
        self._sum.post_rows = post.features.take(chosen, 0)
        return super().losses(self._summed, chosen, c)


def post_critic_ineligible(post_critic: Any) -> str | None:
    """Why :class:`TwoCriticsEngine` cannot drive this post-decision critic; None if it can."""
    if (reason := observations_ineligible(post_critic.observation_space)) is not None:
        return f"{reason} (of the post-decision observations)"
    if (reason := extractor_ineligible(post_critic.features_extractor)) is not None:
        return reason
    try:
        hidden_layers(post_critic.net[:-1])
    except ValueError as error:
        return str(error)
    return module_ineligible(post_critic) or adam_ineligible(post_critic.optimizer, list(post_critic.parameters()))
