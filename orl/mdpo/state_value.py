"""The state-value network of off-policy MDPO, built like the critics of SB3's SAC policy."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.sac.policies import SACPolicy


class StateValue(BaseModel):
    """V(s): features extractor and multilayer perceptron; observations of N states give float32[N, 1]."""

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[torch.nn.Module],
        normalize_images: bool,
    ) -> None:
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.network = torch.nn.Sequential(*create_mlp(features_dim, 1, net_arch, activation_fn))

    def forward(self, observations: Any) -> torch.Tensor:
        """Values float32[N, 1]."""
        values: torch.Tensor = self.network(self.extract_features(observations, self.features_extractor))
        return values


def state_value(policy: SACPolicy) -> StateValue:
    """A state-value network with the layers of the policy's critics and a features extractor of its own."""
    arguments = {k: v for k, v in policy.critic_kwargs.items() if k not in ("n_critics", "share_features_extractor")}
    return StateValue(**policy._update_features_extractor(arguments, None)).to(policy.device)
