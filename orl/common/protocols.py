"""What an environment may offer beyond Gymnasium. Algorithms ask for these protocols, never for a domain."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

IllegalActions = Literal["raise", "remap", "count"]
"""How an env answers an illegal action: raise IllegalActionError, replace it as documented, or replace and count."""


@runtime_checkable
class ActionMasks(Protocol):
    """Legal actions: ``bool[A]`` alone, ``bool[N, A]`` in a batch. Never all False, also in terminal states."""

    def action_masks(self) -> npt.NDArray[np.bool_]: ...


@runtime_checkable
class Cloneable(Protocol):
    """Exact snapshots of one env: elapsed steps and the position in the noise stream belong to the state."""

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> Any:
        """Restore ``state`` and return the observation that belongs to it."""
        ...


@runtime_checkable
class CloneableBatch(Protocol):
    """Exact snapshots of copy ``i`` of a native vector env."""

    def get_state(self, i: int) -> Any: ...

    def set_state(self, i: int, state: Any) -> Any: ...


@runtime_checkable
class PostDecision(Protocol):
    """Envs whose step is a deterministic part (the decision) followed by exogenous randomness.

    After ``step``, ``post_decision_observation`` is the observation between the two parts (same space as an
    observation) and ``post_decision_reward`` the deterministic share of the reward; batched envs add a leading axis.
    """

    post_decision_observation: Any
    post_decision_reward: Any


@runtime_checkable
class VectorReward(Protocol):
    """Multi-objective envs: ``vector_reward`` is ``float64[K]`` (batched ``[N, K]``), valid after a step; maximised."""

    reward_dim: int
    vector_reward: npt.NDArray[np.float64]
