"""The post-decision critic: a network of its own for V^x(s^x), with an optimiser of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import create_mlp


class PostCritic(BaseModel):
    """Value of post-decision observations, built like the value network of an SB3 actor-critic policy.

    Layers are ``net_arch["vfx"]``, where missing those of ``"vf"`` (a list counts for all networks); activation,
    features extractor, initialisation and optimiser are the policy's.

    Args:
        space: Of the post-decision observations.
        policy: SB3 actor-critic policy.
        learning_rate: Of the optimiser at the start.
    """

    def __init__(self, space: spaces.Space[Any], policy: Any, learning_rate: float) -> None:
        super().__init__(
            space,
            policy.action_space,
            policy.features_extractor_class,
            policy.features_extractor_kwargs,
            normalize_images=policy.normalize_images,
            optimizer_class=policy.optimizer_class,
            optimizer_kwargs=policy.optimizer_kwargs,
        )
        self.features_extractor = self.make_features_extractor()
        layers = create_mlp(self.features_extractor.features_dim, 1, _layers(policy.net_arch), policy.activation_fn)
        self.net = torch.nn.Sequential(*layers)
        if policy.ortho_init:
            for module, gain in ((self.features_extractor, np.sqrt(2)), (self.net, np.sqrt(2)), (self.net[-1], 1.0)):
                for part in module.modules():
                    policy.init_weights(part, gain=gain)
        optimizer_class: Any = self.optimizer_class
        self.optimizer = optimizer_class(self.parameters(), lr=learning_rate, **self.optimizer_kwargs)

    def forward(self, observations: Any) -> torch.Tensor:
        """Values float32[B] of a batch of post-decision observations (tensors)."""
        assert self.features_extractor is not None
        return self.net(self.extract_features(observations, self.features_extractor)).flatten()


def _layers(net_arch: Any) -> list[int]:
    if isinstance(net_arch, Mapping):
        return list(net_arch.get("vfx", net_arch.get("vf", [])))
    return list(net_arch)


def same_layout(space: spaces.Space[Any], other: spaces.Space[Any]) -> bool:
    """Whether one network can read observations of both spaces (bounds may differ).

    >>> same_layout(spaces.Box(0, 1, (3,)), spaces.Box(0, 9, (3,)))
    True
    """
    if isinstance(space, spaces.Dict) and isinstance(other, spaces.Dict):
        return list(space) == list(other) and all(same_layout(space[key], other[key]) for key in space)
    if isinstance(space, spaces.Box):
        return isinstance(other, spaces.Box) and space.shape == other.shape
    return space == other
