"""What a teacher can be, and what it thinks a state is worth: models, rules, recorded actions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.common.errors import InputError

MASKS = "action_masks"
Values = Callable[[Any], npt.NDArray[Any]]
_CHUNK = 1024


class Teacher(Protocol):
    """Anything with SB3's ``predict``: models, rules, recorded actions."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]: ...


class RecordedActions:
    """A teacher that plays given actions, whatever it sees; see :func:`teacher_from_actions`."""

    def __init__(self, episodes: Sequence[Sequence[Any]]) -> None:
        self.episodes = [list(episode) for episode in episodes]
        if not self.episodes or not all(self.episodes):
            raise InputError("no actions", field="actions", expected="at least one in each episode")
        self._episode, self._step = -1, 0

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The next action; the first of the next episode where ``episode_start`` is True."""
        if episode_start is None or bool(np.any(episode_start)) or self._episode < 0:
            self._episode, self._step = (self._episode + 1) % len(self.episodes), 0
        actions = self.episodes[self._episode]
        if self._step == len(actions):
            raise InputError(
                "the recorded actions are over, but the episode is not",
                field="actions",
                value=len(actions),
                expected="as many actions as the episode has steps",
            )
        self._step += 1
        return actions[self._step - 1], None


def teacher_from_actions(actions: Sequence[Any]) -> RecordedActions:
    """A teacher that replays actions: those of one episode, or a list with the actions of several, played in turn.

    So whatever can be turned into actions teaches: a schedule that CP-SAT has found, a plan, a demonstration.

    Args:
        actions: ``[a_0, a_1, ...]``, or ``[[a_0, ...], [a_0, ...], ...]`` with a list (no array, no tuple) for each
            episode.

    >>> teacher = teacher_from_actions([0, 2])
    >>> [teacher.predict(None, episode_start=start)[0] for start in (True, False, True)]
    [0, 2, 0]
    """
    several = bool(len(actions)) and all(isinstance(episode, list) for episode in actions)
    return RecordedActions(actions if several else [actions])


def samples_actions(teacher: Any) -> bool:
    """Whether a teacher is played with sampled actions: SB3's stochastic policies are, TD3, DQN, rules are not.

    The policies of SAC and of the actor-critic family draw actions from a distribution that they learn.
    """
    policy = getattr(teacher, "policy", None)
    actor = getattr(policy, "actor", None)
    return hasattr(policy, "action_dist") or hasattr(actor, "action_dist")


def critic_of(teacher: Any) -> Values | None:
    """The teacher's own critic as a function of batches of (normalised) observations; None if it has none.

    PPO and its relatives: V(s), PDPPO's before the decision; SAC and TD3: the first critic at the policy's greedy
    action, Q1(s, pi(s)); DQN: the greatest Q. Policies with a memory have none that one observation determines.
    """
    policy = getattr(teacher, "policy", None)
    if policy is None or not hasattr(policy, "obs_to_tensor") or hasattr(policy, "lstm_actor"):
        return None
    if hasattr(policy, "predict_values"):
        return _in_chunks(policy, policy.predict_values)
    critic: Any = getattr(policy, "critic", None)
    if hasattr(critic, "q1_forward"):
        return _in_chunks(policy, lambda x: critic.q1_forward(x, policy._predict(x, deterministic=True)))
    if hasattr(policy, "q_net"):
        return _in_chunks(policy, lambda x: policy.q_net(x).max(dim=1).values)
    return None


def _in_chunks(policy: Any, evaluate: Callable[[Any], Any]) -> Values:
    import torch

    def values(observations: Any) -> npt.NDArray[Any]:
        n = len(next(iter(observations.values())) if isinstance(observations, Mapping) else observations)
        policy.set_training_mode(False)
        out = []
        with torch.no_grad():
            for start in range(0, n, _CHUNK):
                x, _ = policy.obs_to_tensor(_between(observations, start, start + _CHUNK))
                out.append(evaluate(x).reshape(-1).cpu().numpy())
        return np.concatenate(out) if out else np.zeros(0)

    return values


def _between(batch: Any, start: int, stop: int) -> Any:
    return {k: v[start:stop] for k, v in batch.items()} if isinstance(batch, Mapping) else batch[start:stop]


class Player:
    """Asks a teacher for actions in a single env: normalises what it sees, passes on masks and its memory.

    Args:
        teacher: See :class:`Teacher`.
        env: Where it plays.
        deterministic: Whether it acts greedily.
        normalize: What is done to observations first (of VecNormalize), or None.
    """

    def __init__(
        self, teacher: Any, env: gymnasium.Env[Any, Any], deterministic: bool, normalize: Callable[[Any], Any] | None
    ) -> None:
        self.teacher, self.env, self.deterministic, self.normalize = teacher, env, deterministic, normalize
        self._memory: Any = None
        self._masked = env.has_wrapper_attr(MASKS) and MASKS in inspect.signature(teacher.predict).parameters
        if self._masked and (policy := getattr(teacher, "policy", None)) is not None:
            self._masked = not hasattr(policy, "get_distribution") or (
                MASKS in inspect.signature(policy.get_distribution).parameters
            )

    def action(self, observation: Any, first: bool) -> Any:
        """The action after ``observation``, the first of an episode or not."""
        if first:
            self._memory = None
        shown = observation if self.normalize is None else self.normalize(observation)
        options = {MASKS: self.env.get_wrapper_attr(MASKS)()} if self._masked else {}
        action, self._memory = self.teacher.predict(
            shown,
            state=self._memory,
            episode_start=np.array([first]),
            deterministic=self.deterministic,
            **options,
        )
        return int(action) if isinstance(self.env.action_space, spaces.Discrete) else action
