"""What PDPPO notes of a rollout beside SB3's buffer, whichever code collects it.

:class:`StepWatch` stands around the training envs and shows every step to a :class:`PostDecisionRecord`;
:class:`FinishFirst` stands around the callback and completes the buffer before anyone looks at it. So SB3's own
``collect_rollouts`` and the fast engine's ``collect`` run unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from orl.common.post_decision import ExogenousDraws, PostDecisionStep

Values = Callable[[Any], npt.NDArray[np.float32]]
"""V of a batch of observations."""
ROWS_AT_ONCE = 4096
"""Observations whose values are computed together; those of further draws are forgotten then."""


class PostDecisionRecord:
    """Post-decision data of one rollout after the other, T steps of N copies.

    Args:
        steps, copies: T and N.
        read: The post-decision step of the last ``env.step`` (``orl.common.post_decision.post_decision_reader``); None:
            only rewards and time limits are noted.
        draws: Where further draws come from, and
        n_draws: K, how many there are of every step, the one that happened among them; 1 needs no ``draws``.

    Attributes:
        post_observations: [T, N, ...], or a dict of such arrays.
        deterministic, stochastic: float32[T, N], the shares of the rewards.
        rewards: float32[T, N], as the env gave them.
        truncated: bool[T, N], steps after which a time limit ended the episode and SB3 adds V of its last state.
        other_draws: float64[T, N], sum of ``r^w + gamma V(s')`` over the further draws.
        post_values, post_returns: float32[T, N], written when the rollout ends.
    """

    def __init__(
        self,
        steps: int,
        copies: int,
        read: Callable[[Any], PostDecisionStep] | None,
        draws: ExogenousDraws | None = None,
        n_draws: int = 1,
    ) -> None:
        self.read, self.draws, self.n_draws = read, draws, n_draws
        shape = (steps, copies)
        self.deterministic, self.stochastic, self.rewards = (np.empty(shape, np.float32) for _ in range(3))
        self.post_values, self.post_returns = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.truncated = np.zeros(shape, np.bool_)
        self.other_draws = np.zeros(shape)
        self.post_observations: Any = None
        self._shape = shape
        self._step = 0
        self._waiting: list[tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.bool_]]] = []
        self._values: Values | None = None
        self._gamma = 1.0

    def begin(self, gamma: float = 1.0, values: Values | None = None) -> None:
        """Start a rollout, in which further draws are valued with ``gamma`` and ``values``."""
        self._step, self._waiting, self._gamma, self._values = 0, [], gamma, values
        self.truncated[...] = False
        self.other_draws[...] = 0.0

    def before(self, actions: npt.NDArray[Any]) -> None:
        """``env.step(actions)`` comes next."""
        if self.draws is not None:
            self.draws.before_step(actions)

    def after(self, rewards: npt.NDArray[Any], dones: npt.NDArray[Any], infos: list[dict[str, Any]]) -> None:
        """``env.step`` returned this."""
        t = self._step
        if self.read is not None:
            step = self.read(infos)
            if self.post_observations is None:
                self.post_observations = _storage(step.post_observations, self._shape)
            _write(self.post_observations, t, step.post_observations)
            self.deterministic[t], self.stochastic[t] = step.reward_deterministic, step.reward_stochastic
        self.rewards[t] = rewards
        for i in np.flatnonzero(dones).tolist():
            info = infos[i]
            self.truncated[t, i] = info.get("terminal_observation") is not None and info.get(
                "TimeLimit.truncated", False
            )
        self._step = t + 1
        if self.draws is not None:
            drawn = self.draws.exogenous_samples(self.n_draws - 1)
            self._waiting.append(drawn)
            if len(self._waiting) * drawn[1].size >= ROWS_AT_ONCE or self._step == self._shape[0]:
                self._value_draws()

    def _value_draws(self) -> None:
        """Add ``r^w + gamma V(s')`` of the waiting draws to their steps."""
        assert self._values is not None
        rewards = np.stack([rewards for _, rewards, _ in self._waiting])
        alive = ~np.stack([terminated for _, _, terminated in self._waiting])
        values = self._values(_joined([observations for observations, _, _ in self._waiting]))
        totals = rewards + self._gamma * values.reshape(rewards.shape).astype(np.float64) * alive
        self.other_draws[self._step - len(rewards) : self._step] = totals.sum(-1)
        self._waiting = []

    def flat(self, array: Any) -> Any:
        """[T, N, ...] as [N * T, ...] in the order of SB3's flattened buffers (copy after copy)."""
        if isinstance(array, Mapping):
            return {key: self.flat(part) for key, part in array.items()}
        return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])


def _storage(observations: Any, shape: tuple[int, int]) -> Any:
    if isinstance(observations, Mapping):
        return {key: _storage(part, shape) for key, part in observations.items()}
    return np.empty((*shape, *observations.shape[1:]), observations.dtype)


def _write(storage: Any, t: int, observations: Any) -> None:
    if isinstance(storage, Mapping):
        for key, part in storage.items():
            part[t] = observations[key]
    else:
        storage[t] = observations


def _joined(observations: list[Any]) -> Any:
    """Arrays [N, n, ...] (or dicts of them) of several steps as one batch."""
    if isinstance(observations[0], Mapping):
        return {key: _joined([part[key] for part in observations]) for key in observations[0]}
    return np.concatenate([part.reshape(-1, *part.shape[2:]) for part in observations])


class StepWatch(VecEnvWrapper):
    """The training envs, with every step shown to a record.

    Args:
        venv: The envs.
        record: Told of every step.
    """

    def __init__(self, venv: VecEnv, record: PostDecisionRecord) -> None:
        super().__init__(venv)
        self.record = record

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        self.record.before(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        self.record.after(rewards, dones, infos)
        return observations, rewards, dones, infos


class FinishFirst:
    """A callback whose ``on_rollout_end`` comes after ``finish``; everything else is the callback's own."""

    def __init__(self, callback: Any, finish: Callable[[], None]) -> None:
        self._callback, self._finish = callback, finish

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)

    def on_rollout_end(self) -> None:
        self._finish()
        self._callback.on_rollout_end()


def values_in_chunks(network: Any, device: torch.device, observations: Any) -> npt.NDArray[np.float32]:
    """Output float32[B] of a network with one output, without gradients.

    Args:
        network: Maps a tensor, or a dict of tensors, to one value a row.
        observations: Array [B, ...], or a dict of such arrays.
    """
    whole = not isinstance(observations, Mapping)
    out = np.empty(len(observations if whole else next(iter(observations.values()))), np.float32)
    with torch.no_grad():
        for first in range(0, len(out), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            chunk = observations[rows] if whole else {key: part[rows] for key, part in observations.items()}
            out[rows] = network(obs_as_tensor(chunk, device)).flatten().cpu().numpy()
    return out
