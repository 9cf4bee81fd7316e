"""What an environment may offer beyond Gymnasium. Algorithms ask for these protocols, never for a domain."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

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
class Redrawable(Protocol):
    """Envs, single or batched, whose snapshots can be taken on into another future."""

    def redrawn(self, state: Any, rng: np.random.Generator) -> Any:
        """A snapshot with the same past and the same observation, whose noise to come is drawn anew with ``rng``.

        A path that the instance or a reset option prescribes stays. ``state`` is left as it is.
        """
        ...


@runtime_checkable
class PostDecision(Protocol):
    """Envs whose step is a decision with a known outcome, followed by exogenous randomness.

    After every ``step``, the last of an episode included (also where the batch resets finished copies in the same
    step), the attributes describe that step: the post-decision state as an observation, and the two shares of the
    reward, which add up to it. They are fresh arrays; a ``reset`` leaves them alone. A batch adds a leading axis N.

    ``post_decision_observation`` tells everything that the future depends on; it lies in ``post_decision_space``,
    which need not be the observation space but has its layout (VecNormalize applies the same statistics to both).
    """

    post_decision_space: spaces.Space[Any]
    post_decision_observation: Any
    reward_deterministic: Any
    reward_stochastic: Any


@runtime_checkable
class PostDecisionModel(Protocol):
    """Single envs that also give the two halves of a step as pure functions of states (no mutation, no hidden draw)."""

    def current_state(self) -> Any:
        """The state s of the decision process (a tuple of arrays; no noise key)."""
        ...

    def post_decision(self, state: Any, action: Any) -> tuple[Any, float]:
        """Post-decision state s^x of (s, a) and the deterministic share of the reward."""
        ...

    def sample_exogenous(self, post_state: Any, rng: np.random.Generator) -> tuple[Any, float]:
        """A next state and the stochastic share of the reward."""
        ...

    def observe(self, state: Any) -> Any:
        """Observation of a state."""
        ...

    def observe_post_decision(self, post_state: Any) -> Any:
        """Post-decision observation of a post-decision state."""
        ...

    def is_terminal(self, state: Any) -> bool:
        """Whether the problem ends in a state, so that nothing follows it; a cut horizon is no end."""
        ...


@runtime_checkable
class ExogenousSampler(Protocol):
    """Native batches that draw their own randomness again, cheaply and in one call.

    Draw 0 is what happens; draws 1, 2, ... are alternatives from the same post-decision state. The noise of draw k in
    period t of copy i is the same for every action (common random numbers).
    """

    def exogenous_samples(self, n_samples: int) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """What else the last step could have led to: draws 1..n_samples from its post-decision state.

        Returns:
            Next observations [N, n, ...] (before any reset), stochastic rewards float64[N, n], terminated bool[N, n].
        """
        ...

    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Any, npt.NDArray[np.float64], Any, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """What ``A`` candidate actions [N, A, ...] would lead to in the current states; nothing changes.

        Returns:
            Post-decision observations [N, A, ...], deterministic rewards float64[N, A], and of draws 1..n_samples: next
            observations [N, A, n, ...], stochastic rewards float64[N, A, n], terminated bool[N, A, n].
        """
        ...


@runtime_checkable
class VectorReward(Protocol):
    """Multi-objective envs: ``vector_reward`` is ``float64[K]`` (batched ``[N, K]``), valid after a step; maximised."""

    reward_dim: int
    vector_reward: npt.NDArray[np.float64]


@runtime_checkable
class TargetModel(Protocol):
    """Problems in which a decision names the next state, and a convex programme prices the step to it.

    In stage t = 0..T-1 the state x float64[n] and the noise w float64[m] of the stage are known; fractions y in
    [0, 1]^n choose the next state x' = reach(x, w, y); the stage costs Q_t(x, w, x'). Noise does not depend on
    decisions. Environments give such a model with ``target_model()``; their action a in [-1, 1]^n is 2 y - 1, and their
    observation is ``features`` with x / ``state_unit`` at ``state_at``, rounded to float32.

    Costs and states are float64 and arrays may have any leading axes ``...``; the model is not tied to an episode.

    Attributes:
        n_stages: T.
        initial_state: float64[n].
        state_unit: float64[n], positive.
        state_at: Where the state stands in an observation.
        cost_unit: What one unit of a loss should stand for: losses are costs / ``cost_unit``.
        target_lower, target_upper: float64[n], least and greatest targets anywhere.
        reachable: Whether ``reach`` maps fractions onto what can be reached (True), or to targets between
            ``target_lower`` and ``target_upper`` which are then moved to the nearest reachable state (False).
    """

    n_stages: int
    initial_state: npt.NDArray[np.float64]
    state_unit: npt.NDArray[np.float64]
    state_at: slice
    cost_unit: float
    target_lower: npt.NDArray[np.float64]
    target_upper: npt.NDArray[np.float64]
    reachable: bool

    def draw(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
        """Noise float64[T, B, m] of episodes with keys uint64[B]; an env's episode with the same key has the same."""
        ...

    def features(self, noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Observations float64[T, B, d] of noise float64[T, B, m], before rounding, with 0 where the state stands."""
        ...

    def reach(
        self,
        state: npt.NDArray[np.float64],
        noise: npt.NDArray[np.float64],
        fractions: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Next states float64[B, n] from states [B, n], noise [B, m] and fractions [B, n]."""
        ...

    def reach_gradient(
        self,
        state: npt.NDArray[np.float64],
        noise: npt.NDArray[np.float64],
        fractions: npt.NDArray[np.float64],
        gradient: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Derivatives of ``(gradient * reach(...)).sum()`` by states and by fractions, float64[B, n] each."""
        ...

    def costs_and_gradients(
        self,
        before: npt.NDArray[np.float64],
        noise: npt.NDArray[np.float64],
        after: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Stage costs float64[T, B] of steps from [T, B, n] to [T, B, n], and their derivatives by both."""
        ...


@runtime_checkable
class SoftTargetModel(TargetModel, Protocol):
    """Target models whose programmes also take targets that cannot be reached, at a price for every unit missed.

    Attributes:
        penalty: A price above any value of a unit of state: targets are then met where they can be.
    """

    penalty: float

    def soft_costs_and_gradients(
        self,
        noise: npt.NDArray[np.float64],
        targets: npt.NDArray[np.float64],
        penalty: float,
        window: int | None = None,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Cost of following targets float64[T, B, n] as well as pays, in programmes that know the noise ahead.

        Args:
            noise: float64[T, B, m].
            targets: float64[T, B, n], wished states after the stages.
            penalty: Price of a unit missed.
            window: Stages of one programme; the next one starts where it ends. None: one programme for all stages.

        Returns:
            Costs without penalties float64[B], penalties paid float64[B], and the derivatives of their sum by the
            targets float64[T, B, n].
        """
        ...
