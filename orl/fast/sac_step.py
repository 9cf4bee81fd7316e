"""One gradient step of soft actor-critic on flat buffers: temperature, critics, actor, targets.

The mathematics and the order are those of Stable-Baselines3's ``SAC.train`` (Haarnoja et al., arXiv 1812.05905). The
actor's gradient goes back through the smaller critic of each row only. :class:`SquashedActor` is the actor alone, for
other algorithms with the same policy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.sac.policies import Actor, MultiInputPolicy, SACPolicy

from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.critics import Critics, critics_ineligible
from orl.fast.features import Features
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import Mlp, extractor_ineligible, hidden_layers, module_ineligible, parameters_of
from orl.fast.off_policy import spaces_ineligible
from orl.fast.squashed_gaussian import SquashedGaussian, SquashedSample
from orl.fast.transitions import Batch, Transitions

Floats = npt.NDArray[np.float32]


def squashed_actor_ineligible(actor: Any) -> str | None:
    """Why :class:`SquashedActor` cannot drive this actor; None if it can."""
    if type(actor) is not Actor:
        return f"the actor is a {type(actor).__name__}, not SB3's"
    if actor.use_sde:
        return "the policy explores with gSDE"
    distribution: Any = actor.action_dist
    if type(distribution) is not SquashedDiagGaussianDistribution or distribution.epsilon != 1e-6:
        return "the action distribution is not SB3's squashed Gaussian"
    if (reason := extractor_ineligible(actor.features_extractor) or module_ineligible(actor)) is not None:
        return reason
    try:
        hidden, _ = hidden_layers(actor.latent_pi)
    except ValueError as error:
        return str(error)
    if any(type(head) is not torch.nn.Linear or head.bias is None for head in (actor.mu, actor.log_std)):
        return "the heads are not linear layers with biases"
    heads: list[Any] = [actor.mu, actor.log_std]
    expected = parameters_of([*hidden, *heads])
    if {id(p) for p in actor.parameters()} != {id(p) for p in expected}:
        return "the actor has parameters beside its network"
    return adam_ineligible(actor.optimizer, expected)


class SquashedActor:
    """SB3's SAC actor on a flat buffer.

    Args:
        actor: With :func:`squashed_actor_ineligible` None.

    Attributes:
        flat: Its parameters, both heads side by side.
        adam: Steps of ``actor.optimizer``.
        network: From states to means and logarithms of deviations, float32[B, 2P].
        family: The distributions.
    """

    def __init__(self, actor: Any) -> None:
        hidden, activation = hidden_layers(actor.latent_pi)
        heads = [actor.mu.weight, actor.log_std.weight, actor.mu.bias, actor.log_std.bias]
        self.flat = FlatParameters([*parameters_of(hidden), *heads])
        self.adam = FlatAdam(self.flat, actor.optimizer)
        self.network = Mlp([*hidden, joined_heads(self.flat, actor.mu, actor.log_std)], activation or "relu")
        self.family = SquashedGaussian(actor.mu.out_features)
        self._sentinel = actor.log_std
        self._noise: dict[int, torch.Tensor] = {}

    @property
    def intact(self) -> bool:
        """Whether the network still lies in the flat buffer; attaches gradients that were dropped."""
        return self._sentinel.weight is self.flat.parameters[-3] and self.adam.in_step and not self.flat.refresh()

    def noise(self, rows: int) -> Floats:
        """Standard normal noise float32[rows, P], the next draw of torch's generator; a buffer."""
        if rows not in self._noise:
            if len(self._noise) >= 8:
                del self._noise[next(iter(self._noise))]
            self._noise[rows] = torch.empty(rows, self.family.width)
        array: Floats = self._noise[rows].normal_().numpy()
        return array

    def act(self, states: Floats) -> Floats:
        """Draw actions in [-1, 1], float32[N, P], for a few rows of states float32[N, S]."""
        return self.family.act(self.network.predict_few(states), self.noise(len(states)))

    def sample(self, states: torch.Tensor, keep: bool) -> SquashedSample:
        """Draw actions for states float32[B, S]; with ``keep`` :meth:`backward` may follow."""
        parameters = self.network.forward(states) if keep else self.network.predict(states)
        return self.family.evaluate(parameters.numpy(), self.noise(len(states)))

    def backward(self, sample: SquashedSample, d_log_prob: Floats, d_actions: Floats) -> None:
        """Write the gradient of a loss into ``flat.grad``; arguments as in :meth:`SquashedGaussian.gradient`.

        The sample must be the last one drawn with ``keep`` for as many rows.
        """
        self.network.backward(torch.from_numpy(self.family.gradient(sample, d_log_prob, d_actions)))


def joined_heads(flat: FlatParameters, first: torch.nn.Linear, second: torch.nn.Linear) -> torch.nn.Linear:
    """One layer whose outputs are those of two layers that lie in ``flat`` as weight, weight, bias, bias."""
    at = next(i for i, parameter in enumerate(flat.parameters) if parameter is first.weight)
    weight = slice(flat.bounds[at][0], flat.bounds[at + 1][1])
    bias = slice(flat.bounds[at + 2][0], flat.bounds[at + 3][1])
    shape = (first.out_features + second.out_features, first.in_features)
    layer: torch.nn.Linear = torch.nn.utils.skip_init(torch.nn.Linear, shape[1], shape[0])
    layer.weight = torch.nn.Parameter(flat.data[weight].view(shape))
    layer.weight.grad = flat.grad[weight].view(shape)
    layer.bias = torch.nn.Parameter(flat.data[bias])
    layer.bias.grad = flat.grad[bias]
    return layer


def sac_ineligible(model: Any) -> str | None:
    """Why :class:`SacEngine` cannot drive this SAC model; None if it can."""
    policy = model.policy
    if type(policy) not in (SACPolicy, MultiInputPolicy):
        return f"the policy is a {type(policy).__name__}, not SB3's MlpPolicy or MultiInputPolicy"
    reason = (
        spaces_ineligible(policy)
        or squashed_actor_ineligible(policy.actor)
        or critics_ineligible(policy.critic, policy.critic_target)
    )
    if reason is None and model.ent_coef_optimizer is not None:
        reason = adam_ineligible(model.ent_coef_optimizer, [model.log_ent_coef])
    return reason


class SacEngine:
    """An eligible SAC model on flat buffers.

    Args:
        model: SB3 SAC model for which :func:`sac_ineligible` is None.

    Attributes:
        actor, critics: The networks.
        features: Turns observations into rows.
        transitions: Draws from replay buffers.
    """

    def __init__(self, model: Any) -> None:
        if (reason := sac_ineligible(model)) is not None:
            raise ValueError(reason)
        self._policy, self._log_ent_coef = model.policy, model.log_ent_coef
        self._modules = (model.policy.actor, model.policy.critic, model.policy.critic_target)
        self.actor = SquashedActor(model.policy.actor)
        self.critics = Critics(model.policy.critic, model.policy.critic_target)
        extractors = getattr(model.policy.actor.features_extractor, "extractors", None)
        self.features = Features(model.policy.observation_space, None if extractors is None else list(extractors))
        self.transitions = Transitions(self.features, self.actor.family.width)
        self._temperature: FlatAdam | None = None
        if model.ent_coef_optimizer is not None:
            self._temperature = FlatAdam(FlatParameters([model.log_ent_coef]), model.ent_coef_optimizer)

    def intact(self, model: Any) -> bool:
        """Whether this engine still holds the model's memory; otherwise make a new one."""
        policy, temperature = model.policy, self._temperature
        return (
            policy is self._policy
            and (policy.actor, policy.critic, policy.critic_target) == self._modules
            and policy.actor.optimizer is self.actor.adam.optimizer
            and policy.critic.optimizer is self.critics.adam.optimizer
            and model.log_ent_coef is self._log_ent_coef
            and (
                model.ent_coef_optimizer is None
                if temperature is None
                else model.ent_coef_optimizer is temperature.optimizer
                and temperature.in_step
                and not temperature.flat.refresh()
            )
            and self.actor.intact
            and self.critics.intact
        )

    def act(self, observations: Any) -> Floats:
        """Draw actions in [-1, 1], float32[N, P], for a batch of observations."""
        return self.actor.act(self.features(observations))

    def _step_temperature(self, log_prob: Floats, target_entropy: float) -> tuple[float, float]:
        """Temperature before its step, and its loss."""
        adam = self._temperature
        assert adam is not None
        log_ent_coef = adam.flat.data.item()
        gradient = -float(log_prob.mean()) - target_entropy
        adam.flat.grad.fill_(gradient)
        adam.step()
        return float(np.exp(np.float32(log_ent_coef))), log_ent_coef * gradient

    def step(
        self, batch: Batch, target_entropy: float, ent_coef: float | None, tau: float | None
    ) -> tuple[float, float, float, float]:
        """One gradient step.

        Args:
            batch: Drawn by :attr:`transitions`; its action columns are overwritten.
            target_entropy: Of the automatic temperature.
            ent_coef: Fixed temperature, None for the automatic one.
            tau: Speed of the targets, None to leave them.

        Returns:
            Temperature, actor loss, critic loss, temperature loss (0 for a fixed temperature).

        Raises:
            ValueError: The log-probabilities are not finite.
        """
        actor, critics, rows = self.actor, self.critics, len(batch.rewards)
        sample = actor.sample(batch.states, keep=True)
        if not np.isfinite(sample.log_prob.sum()):
            raise ValueError("the policy or the observations hold numbers that are not finite")
        ent_coef_loss = 0.0
        if ent_coef is None:
            ent_coef, ent_coef_loss = self._step_temperature(sample.log_prob, target_entropy)
        alpha = np.float32(ent_coef)

        following = actor.sample(batch.next_states, keep=False)
        batch.next_actions[...] = following.actions
        next_values = critics.target_values(batch.then) - alpha * following.log_prob
        critic_loss = critics.fit(batch.now, batch.rewards + batch.discounts * next_values, 0.5)

        batch.actions[...] = sample.actions
        values, d_actions = critics.smallest(batch.now, batch.action_columns)
        actor_loss = float((alpha * sample.log_prob - values).mean())
        actor.backward(sample, np.full(rows, alpha / np.float32(rows), np.float32), d_actions)
        actor.adam.step()

        if tau is not None:
            critics.follow(tau)
        return ent_coef, actor_loss, critic_loss, ent_coef_loss
