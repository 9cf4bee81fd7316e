"""A permutation-equivariant policy over a set of slots, whose weights do not depend on the number of slots.

Mathematics. An observation is a set of S slots with F features each, ``x[s] in R^F`` (a flat Box lists the slots
row-major). The discrete actions are one per slot and, last, the no-op: A = S + 1. A row of zeros is an absent slot.
With ``present`` the set of the other rows and phi(x) = sign(x) log(1 + abs(x)) element by element:

    z[s]  = (phi(x[s]) - mean) / (std + 0.1)        mean, std over the present slots, one a feature
    u[s]  = [phi(x[s]), clip(z[s], -5, 5)]          absolute and relative features, 2F
    h[s]  = relu(W1 u[s] + b1)                      the same weights for every slot
    c     = [mean_s h[s], max_s h[s], log(1 + S_present) / 4]     the pooled context
    g[s]  = relu(W2 h[s] + W3 c + b2)
    p     = [mean_s g[s], max_s g[s]]

    logit[s]     = v . g[s]                         one a slot: permuting slots permutes the logits
    logit[no-op] = head_noop(p)                     pooled: unchanged by a permutation
    value        = head_value(p)                    pooled: unchanged by a permutation

All pools run over present slots only, so padded rows change nothing. No parameter's shape depends on S: weights trained
on 6 jobs run on 100 (:meth:`SetPolicy.for_spaces`). Pooling as in Zaheer et al., "Deep Sets", NeurIPS 2017.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from orl.common.errors import InputError


def slot_shape(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> tuple[int, int]:
    """Number of slots S and features per slot F of a pair of spaces.

    Raises:
        InputError: the action space is not ``Discrete(S + 1)``, or the observation is not a Box of S x F numbers.

    >>> slot_shape(spaces.Box(-1, 1, (18,)), spaces.Discrete(7))
    (6, 3)
    """
    if not isinstance(action_space, spaces.Discrete) or action_space.n < 2:
        raise InputError("no slots", field="action_space", value=action_space, expected="Discrete(slots + 1)")
    n_slots = int(action_space.n) - 1
    size = int(np.prod(observation_space.shape)) if isinstance(observation_space, spaces.Box) else 0
    if size == 0 or size % n_slots:
        expected = f"a Box whose size is a multiple of the {n_slots} slots (for orl/JobShop-v0: observation='compact')"
        raise InputError("not a set of slots", field="observation_space", value=observation_space, expected=expected)
    return n_slots, size // n_slots


class SetNetwork(nn.Module):
    """Slots in, logits and pooled features out (see the module docstring).

    Args:
        n_features: Features a slot, F.
        width: Hidden width H.
    """

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.latent_dim_pi = self.latent_dim_vf = 2 * width  # names that SB3's policy reads
        self.embed = nn.Linear(2 * n_features, width)
        self.mix = nn.Linear(width, width)
        self.context = nn.Linear(2 * width + 1, width, bias=False)
        self.slot_logit = nn.Linear(width, 1)
        self.noop_logit = nn.Sequential(nn.Linear(2 * width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``features`` float32[B, S * F] -> logits float32[B, S + 1] and pooled features float32[B, 2H]."""
        x = features.reshape(features.shape[0], -1, self.n_features)
        present = (x != 0).any(-1, keepdim=True).to(x.dtype)
        count = present.sum(1).clamp(min=1.0)
        absolute = torch.sign(x) * torch.log1p(x.abs())
        mean = (absolute * present).sum(1) / count
        variance = ((absolute - mean[:, None]).square() * present).sum(1) / count
        relative = (absolute - mean[:, None]) / (variance.clamp(min=1e-12).sqrt()[:, None] + 0.1)
        hidden = torch.relu(self.embed(torch.cat((absolute, relative.clamp(-5.0, 5.0)), -1))) * present
        context = torch.cat((hidden.sum(1) / count, hidden.amax(1), torch.log1p(count) / 4), -1)
        mixed = torch.relu(self.mix(hidden) + self.context(context)[:, None]) * present
        pooled = torch.cat((mixed.sum(1) / count, mixed.amax(1)), -1)
        logits = torch.cat((self.slot_logit(mixed).squeeze(-1), self.noop_logit(pooled)), -1)
        return logits, pooled

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        return self.forward(features)[0]

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return self.forward(features)[1]


class SetPolicy(MaskableActorCriticPolicy):
    """SB3 policy for MaskablePPO over a :class:`SetNetwork`; give it as ``policy`` with ``policy_kwargs``.

    Args:
        observation_space: Box of S x F numbers, flat or [S, F].
        action_space: ``Discrete(S + 1)``, the last action is the no-op.
        lr_schedule: SB3's learning-rate schedule.
        width: Hidden width.
        **kwargs: Arguments of ``MaskableActorCriticPolicy`` (``net_arch`` and the features extractor are not used).

    >>> policy = SetPolicy(spaces.Box(-1, 1, (18,)), spaces.Discrete(7), lambda _: 1e-3)
    >>> larger = policy.for_spaces(spaces.Box(-1, 1, (60,)), spaces.Discrete(21))
    >>> action, _ = larger.predict(np.ones(60, np.float32), action_masks=np.eye(21, dtype=bool)[3])
    >>> int(action)
    3
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        width: int = 64,
        **kwargs: Any,
    ) -> None:
        self.n_slots, self.n_features = slot_shape(observation_space, action_space)
        self.width = width
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def for_spaces(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> SetPolicy:
        """The same weights, copied into a policy of another number of slots (its optimiser starts afresh).

        Raises:
            InputError: the new spaces have another number of features a slot.
        """
        _, n_features = slot_shape(observation_space, action_space)
        if n_features != self.n_features:
            raise InputError(
                "other features", field="observation_space", value=n_features, expected=str(self.n_features)
            )
        arguments = self._get_constructor_parameters()
        arguments |= {"observation_space": observation_space, "action_space": action_space}
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced at once
            policy = SetPolicy(**arguments)
        policy.load_state_dict(self.state_dict())
        return policy.to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {"width": self.width}

    def _build(self, lr_schedule: Schedule) -> None:
        network = SetNetwork(self.n_features, self.width)
        self.mlp_extractor: Any = network
        self.action_net: Any = nn.Identity()  # the network gives the logits itself
        self.value_net: Any = nn.Sequential(nn.Linear(2 * self.width, self.width), nn.Tanh(), nn.Linear(self.width, 1))
        if self.ortho_init:
            for module in (network, self.value_net):
                module.apply(partial(self.init_weights, gain=2**0.5))
            self.init_weights(network.slot_logit, gain=0.01)
            self.init_weights(network.noop_logit[-1], gain=0.01)
            self.init_weights(self.value_net[-1], gain=1.0)
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)
