"""Greedy actions without the cost of distribution objects: what ``predict(deterministic=True)`` gives, to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.utils import is_vectorized_observation

from orl.fast.distributions import Categoricals
from orl.fast.ppo_step import ActorCriticEngine


def greedy_actions(
    engine: ActorCriticEngine, action_space: spaces.Space[Any], observation: Any, action_masks: Any = None
) -> npt.NDArray[Any] | None:
    """Most likely actions as SB3's ``predict`` returns them: one for a single observation, else one a row.

    Args:
        engine: That of the policy.
        action_space: Of one copy.
        observation: One observation or a batch.
        action_masks: bool[A] or bool[N, A], or None.

    Returns:
        None where SB3's own code has to look at the arguments (a tuple of observation and info, a mask for other rows).

    Raises:
        ValueError: As SB3, an observation of another shape.
    """
    space = engine.policy.observation_space
    if isinstance(observation, tuple):
        return None
    several = is_vectorized_observation(observation, space)
    if isinstance(space, spaces.Dict):
        batch: Any = {key: _rows(observation[key], part) for key, part in space.spaces.items()}
    else:
        batch = _rows(observation, space)
    rows = engine.features(batch)
    parameters = engine.networks.actor.predict_few(rows)
    if isinstance(engine.family, Categoricals):
        masks = None
        if action_masks is not None:
            masks = np.ascontiguousarray(action_masks, np.bool_).reshape(-1, engine.family.width)
            if len(masks) != len(rows):
                return None
        _, probabilities = engine.family.probabilities(parameters, masks)
        stops = np.cumsum(engine.family.sizes)
        parts = np.split(probabilities, stops[:-1], axis=1)
        actions: npt.NDArray[Any] = np.stack([part.argmax(1) for part in parts], axis=1)
    elif action_masks is None and isinstance(action_space, spaces.Box):
        flat = (action_space.low.ravel(), action_space.high.ravel())
        actions = np.clip(parameters, *flat)
    else:
        return None
    actions = actions.reshape(-1, *(action_space.shape or ()))
    return actions if several else actions.squeeze(axis=0)


def _rows(observation: Any, space: spaces.Space[Any]) -> npt.NDArray[Any]:
    return np.asarray(observation).reshape(-1, *(space.shape or ()))
