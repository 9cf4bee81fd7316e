"""One gradient step of TD3 on flat buffers: critics, and every few steps the actor and the targets.

The mathematics and the order are those of Stable-Baselines3's ``TD3.train`` (Fujimoto et al., arXiv 1802.09477).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.td3.policies import Actor, MultiInputPolicy, TD3Policy

from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.critics import Critics, critics_ineligible, polyak
from orl.fast.features import Features
from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import Activation, Mlp, extractor_ineligible, hidden_layers, module_ineligible, parameters_of
from orl.fast.off_policy import spaces_ineligible
from orl.fast.transitions import Batch, Transitions

Floats = npt.NDArray[np.float32]


def actor_network(actor: Any) -> tuple[list[torch.nn.Linear], Activation]:
    """Linear layers of a TD3 actor, whose output is squashed by tanh, and its activation.

    Raises:
        ValueError: It is another network.
    """
    net = actor.mu
    if len(net) < 2 or type(net[-1]) is not torch.nn.Tanh or type(net[-2]) is not torch.nn.Linear:
        raise ValueError("the actor does not end in a linear layer and Tanh")
    hidden, activation = hidden_layers(net[:-2])
    if net[-2].bias is None:
        raise ValueError("the last layer of the actor has no bias")
    return [*hidden, net[-2]], activation or "relu"


def _actor_ineligible(actor: Any) -> str | None:
    if type(actor) is not Actor:
        return f"the actor is a {type(actor).__name__}, not SB3's"
    if (reason := extractor_ineligible(actor.features_extractor) or module_ineligible(actor)) is not None:
        return reason
    try:
        layers, _ = actor_network(actor)
    except ValueError as error:
        return str(error)
    if {id(p) for p in actor.parameters()} != {id(p) for p in parameters_of(layers)}:
        return "the actor has parameters beside its network"
    return None


def td3_ineligible(model: Any) -> str | None:
    """Why :class:`Td3Engine` cannot drive this TD3 model; None if it can."""
    policy = model.policy
    if type(policy) not in (TD3Policy, MultiInputPolicy):
        return f"the policy is a {type(policy).__name__}, not SB3's MlpPolicy or MultiInputPolicy"
    return (
        spaces_ineligible(policy)
        or _actor_ineligible(policy.actor)
        or _actor_ineligible(policy.actor_target)
        or adam_ineligible(policy.actor.optimizer, list(policy.actor.parameters()))
        or critics_ineligible(policy.critic, policy.critic_target)
    )


class Td3Engine:
    """An eligible TD3 model on flat buffers.

    Args:
        model: SB3 TD3 model for which :func:`td3_ineligible` is None.

    Attributes:
        flat, target_flat: Parameters of the actor and its target.
        adam: Steps of the actor's optimiser.
        actor, actor_target: From states to actions before tanh.
        critics: The critics.
        features: Turns observations into rows.
        transitions: Draws from replay buffers.
    """

    def __init__(self, model: Any) -> None:
        if (reason := td3_ineligible(model)) is not None:
            raise ValueError(reason)
        policy = self._policy = model.policy
        self._modules = (policy.actor, policy.actor_target, policy.critic, policy.critic_target)
        layers, activation = actor_network(policy.actor)
        targets, _ = actor_network(policy.actor_target)
        self.flat, self.target_flat = FlatParameters(parameters_of(layers)), FlatParameters(parameters_of(targets))
        self.adam = FlatAdam(self.flat, policy.actor.optimizer)
        self.actor, self.actor_target = Mlp(layers, activation), Mlp(targets, activation)
        self.critics = Critics(policy.critic, policy.critic_target)
        self._sentinels = (layers[0], targets[0])
        extractors = getattr(policy.actor.features_extractor, "extractors", None)
        self.features = Features(policy.observation_space, None if extractors is None else list(extractors))
        self.transitions = Transitions(self.features, layers[-1].out_features)

    def intact(self, model: Any) -> bool:
        """Whether this engine still holds the model's memory; otherwise make a new one."""
        policy = model.policy
        return (
            policy is self._policy
            and (policy.actor, policy.actor_target, policy.critic, policy.critic_target) == self._modules
            and policy.actor.optimizer is self.adam.optimizer
            and policy.critic.optimizer is self.critics.adam.optimizer
            and self._sentinels[0].weight is self.flat.parameters[0]
            and self._sentinels[1].weight is self.target_flat.parameters[0]
            and self.adam.in_step
            and not self.flat.refresh()
            and self.target_flat.intact
            and self.critics.intact
        )

    def act(self, observations: Any) -> Floats:
        """Actions in [-1, 1], float32[N, P], for a batch of observations."""
        return np.tanh(self.actor.predict_few(self.features(observations)))

    def step_critics(self, batch: Batch, noise: float, noise_clip: float) -> float:
        """One step on the critics; returns their loss before it.

        Args:
            batch: Drawn by :attr:`transitions`; its columns of next actions are written.
            noise, noise_clip: Standard deviation and limit of the noise on the target's actions.
        """
        drawn = torch.empty(batch.actions.shape).normal_(0, noise).numpy()
        np.clip(drawn, -noise_clip, noise_clip, out=drawn)
        drawn += np.tanh(self.actor_target.predict(batch.next_states).numpy())
        np.clip(drawn, -1.0, 1.0, out=batch.next_actions)
        next_values = self.critics.target_values(batch.then)
        return self.critics.fit(batch.now, batch.rewards + batch.discounts * next_values, 1.0)

    def actor_gradient(self, batch: Batch) -> float:
        """Loss of the actor, with its gradient written into ``flat.grad``; the action columns are overwritten."""
        actions = np.tanh(self.actor.forward(batch.states).numpy())
        batch.actions[...] = actions
        values, d_actions = self.critics.first(batch.now, batch.action_columns)
        self.actor.backward(torch.from_numpy(d_actions * (np.float32(1.0) - actions * actions)))
        return -float(values.mean())

    def step_actor(self, batch: Batch, tau: float) -> float:
        """One step on the actor, and the targets move; returns the actor's loss before it."""
        loss = self.actor_gradient(batch)
        self.adam.step()
        self.critics.follow(tau)
        polyak(self.flat, self.target_flat, tau)
        return loss
