"""On-policy MDPO on flat buffers with hand-written gradients: the same updates as on autograd, to rounding."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.distributions import DiagGaussian, action_family
from orl.fast.features import Features
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import ActorCriticMlp, policy_ineligible
from orl.fast.ppo_step import ActorCriticEngine, Batch

drop_stale_kernels()


@numba.njit(cache=True, error_model="numpy")
def _value_gradient(chosen, values, old_values, returns, clip_range, d_values):
    """Gradient of the clipped value loss by row; returns the loss. A negative ``clip_range`` means no clipping."""
    share = np.float32(1.0) / np.float32(chosen.size)
    total = 0.0
    for i in range(chosen.size):
        at = chosen[i]
        error = values[i] - returns[at]
        change = values[i] - old_values[at]
        loss, slope = error * error, np.float32(2.0) * error * share
        if clip_range >= 0.0 and abs(change) > clip_range:
            held = old_values[at] + min(max(change, -clip_range), clip_range) - returns[at]
            if held * held > loss:
                loss, slope = held * held, np.float32(0.0)
        total += loss
        d_values[i] = slope
    return total / chosen.size


class MirrorEngine(ActorCriticEngine):
    """An eligible policy whose actor and critic lie in a flat buffer each, with an optimiser each.

    Args:
        policy: For which :func:`mirror_ineligible` is None.

    Attributes:
        value_flat: Parameters of the value function; ``flat`` holds the others.
        value_adam: Steps of ``policy.value_optimizer``; ``adam`` are those of ``policy.optimizer``.
    """

    def __init__(self, policy: Any) -> None:
        if (reason := mirror_ineligible(policy)) is not None:
            raise ValueError(reason)
        self.policy, self.optimizer, self.value_optimizer = policy, policy.optimizer, policy.value_optimizer
        self.flat = FlatParameters(_held(policy.optimizer))
        self.value_flat = FlatParameters(_held(policy.value_optimizer))
        self.adam = FlatAdam(self.flat, policy.optimizer)
        self.value_adam = FlatAdam(self.value_flat, policy.value_optimizer)
        self.networks = ActorCriticMlp(policy)
        self.family = action_family(policy)
        extractors = getattr(policy.features_extractor, "extractors", None)
        self.features = Features(policy.observation_space, None if extractors is None else list(extractors))

    def intact(self, policy: Any) -> bool:
        """Whether this engine still holds the policy's memory; otherwise make a new one."""
        same = policy is self.policy and policy.optimizer is self.optimizer
        if not same or policy.value_optimizer is not self.value_optimizer:
            return False
        if not self.adam.intact or not self.value_adam.intact:
            return False
        return not (self.flat.refresh() or self.value_flat.refresh())

    def improve_policy(
        self, batch: Batch, advantages: npt.NDArray[np.float32], t: float, steps: int, ent_coef: float, max_norm: float
    ) -> dict[str, float]:
        """``steps`` full-batch gradient steps from the old policy; figures of the policy that they reach."""
        actor, rows = self.networks.actor, len(advantages)
        family: Any = self.family
        features = torch.from_numpy(batch.features)
        d_entropy = np.full(rows, -ent_coef / rows, np.float32)
        d_divergence = np.full(rows, 1.0 / (t * rows), np.float32)
        norm, old_log_prob = 0.0, np.empty(0, np.float32)
        old: tuple[Any, ...] = ()
        for step in range(steps + 1):
            parameters = actor.forward(features).numpy()
            log_prob, entropy = family.evaluate(parameters, batch.actions, batch.masks)
            if step == 0:
                old_log_prob, old = log_prob.copy(), self._old(parameters, batch)
            divergence = family.divergence(*old)
            weighted = np.exp(log_prob - old_log_prob) * advantages
            if step < steps:
                grad = family.gradient(weighted / np.float32(-rows), d_entropy, d_divergence)
                actor.backward(torch.from_numpy(grad))
                norm = self.adam.clip(max_norm)
                self.adam.step()
        return {
            "policy_gradient_loss": -float(weighted.mean()),
            "entropy_loss": -float(entropy.mean()),
            "kl": float(divergence.mean()),
            "kl_max": float(divergence.max()),
            "ratio_max": float(np.exp(log_prob - old_log_prob).max()),
            "policy_grad_norm": norm,
        }

    def _old(self, parameters: npt.NDArray[np.float32], batch: Batch) -> tuple[Any, ...]:
        """What the family needs to know of the old policy, copied."""
        if isinstance(self.family, DiagGaussian):
            return parameters.copy(), self.family.log_std.copy()
        return (self.family.probabilities(parameters, batch.masks)[0].copy(),)

    def fit_values(self, batch: Batch, chosen: npt.NDArray[np.int64], clip_range: float | None) -> float:
        """One Adam step of the value function on the transitions ``chosen``; returns the loss before it."""
        critic = self.networks.critic
        values = critic.forward(torch.from_numpy(batch.features.take(chosen, 0)))
        d_values = np.empty(len(chosen), np.float32)
        loss = _value_gradient(
            chosen,
            values.numpy()[:, 0],
            batch.old_values,
            batch.returns,
            np.float32(-1.0 if clip_range is None else clip_range),
            d_values,
        )
        critic.backward(torch.from_numpy(d_values)[:, None])
        self.value_adam.step()
        return float(loss)


def mirror_ineligible(policy: Any) -> str | None:
    """Why :class:`MirrorEngine` cannot drive this policy; None if it can."""
    if (reason := policy_ineligible(policy)) is not None:
        return reason
    networks = ActorCriticMlp(policy)
    return adam_ineligible(policy.optimizer, networks.actor_parameters) or adam_ineligible(
        policy.value_optimizer, networks.critic_parameters
    )


def _held(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return list(optimizer.param_groups[0]["params"])
