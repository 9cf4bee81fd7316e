"""Action masks for on-policy algorithms that take them where the environment offers them."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import (
    MaskableActorCriticCnnPolicy,
    MaskableActorCriticPolicy,
    MaskableMultiInputActorCriticPolicy,
)
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)

MASKABLE: dict[type[BasePolicy], type[BasePolicy]] = {
    ActorCriticPolicy: MaskableActorCriticPolicy,
    ActorCriticCnnPolicy: MaskableActorCriticCnnPolicy,
    MultiInputActorCriticPolicy: MaskableMultiInputActorCriticPolicy,
}
"""SB3's policies and what stands for them where actions are masked."""


def masks_wanted(model: Any, use_masking: bool | None) -> bool:
    """Whether actions are masked; then ``model.policy_class``, one of SB3's own, becomes its maskable kind.

    Args:
        model: SB3 algorithm whose policy is not built yet.
        use_masking: What the user asked for; None: masks where the environment offers them.

    Raises:
        ValueError: Masks are asked for and the environment offers none, or the policy class cannot take them.
    """
    chosen = model.policy_class
    offered = (
        model.env is not None and not isinstance(model.action_space, spaces.Box) and is_masking_supported(model.env)
    )
    if use_masking and not offered and model.env is not None:
        raise ValueError("use_masking=True, but the environment offers no action_masks()")
    wanted = offered if use_masking is None else use_masking
    if wanted and not (issubclass(chosen, MaskableActorCriticPolicy) or chosen in MASKABLE):
        raise ValueError(
            f"the environment offers action masks, but {chosen.__name__} cannot take them: derive it "
            "from sb3_contrib's MaskableActorCriticPolicy, or say use_masking=False"
        )
    if wanted:
        model.policy_class = MASKABLE.get(chosen, chosen)
    return wanted


def predict_masked(
    policy: Any,
    observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
    state: tuple[npt.NDArray[Any], ...] | None,
    episode_start: npt.NDArray[Any] | None,
    deterministic: bool,
    action_masks: npt.NDArray[Any] | None,
) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
    """``predict`` of a policy with or without masks.

    Raises:
        ValueError: Masks for a policy that cannot take them.
    """
    if action_masks is None:
        return policy.predict(observation, state, episode_start, deterministic)
    if not isinstance(policy, MaskableActorCriticPolicy):
        raise ValueError("this policy takes no action masks: it was made for an environment without them")
    return policy.predict(observation, state, episode_start, deterministic, action_masks=action_masks)
