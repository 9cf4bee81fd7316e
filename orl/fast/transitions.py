"""Transitions of a replay buffer as rows for networks of states and actions.

:class:`Transitions` draws the same transitions as ``replay_buffer.sample`` from the same state of numpy's generator.
SB3's plain ReplayBuffer with Box observations is read in one pass; any other buffer (Dict, n-step, hindsight, one of
the user's) and VecNormalize go through ``sample`` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from orl.common.kernel_cache import drop_stale_kernels
from orl.fast.features import Features

drop_stale_kernels()

Floats = npt.NDArray[np.float32]


@numba.njit(cache=True, error_model="numpy")
def _gather(chosen, following, copies, obs, next_obs, actions, rewards, dones, timeouts, gamma, rows, out, discounts):
    """``rows`` [2B, S+P]: states and actions, then next states; ``discounts`` [B]: gamma, 0 after a terminal step."""
    count, width, one = chosen.size, obs.shape[2], np.float32(1.0)
    for i in range(count):
        t, n, e = chosen[i], following[i], copies[i]
        for j in range(width):
            rows[i, j] = obs[t, e, j]
            rows[count + i, j] = next_obs[n, e, j]
        for j in range(actions.shape[2]):
            rows[i, width + j] = actions[t, e, j]
        out[i] = rewards[t, e]
        discounts[i] = (one - dones[t, e] * (one - timeouts[t, e])) * gamma


@dataclass(slots=True)
class Batch:
    """B transitions; all arrays are buffers that the next draw of as many transitions writes again.

    Attributes:
        now: States and actions, float32[B, S + P].
        then: Next states; the columns of the actions are left to the user, float32[B, S + P].
        states, next_states: Their first S columns.
        action_columns: Where the actions stand in ``now`` and ``then``.
        actions, next_actions: Those columns as numpy arrays, float32[B, P].
        rewards: float32[B].
        discounts: gamma (of n-step returns: to the power of the steps), 0 after a terminal step, float32[B].
    """

    now: torch.Tensor
    then: torch.Tensor
    states: torch.Tensor
    next_states: torch.Tensor
    action_columns: slice
    actions: Floats
    next_actions: Floats
    rewards: Floats
    discounts: Floats


class Transitions:
    """Draws batches from replay buffers.

    Args:
        features: Turns observations into rows.
        width: Number of action components P.
    """

    def __init__(self, features: Features, width: int) -> None:
        self._features, self._width = features, width
        self._kept: dict[int, tuple[Floats, Batch]] = {}

    def _buffers(self, count: int) -> tuple[Floats, Batch]:
        if count not in self._kept:
            if len(self._kept) >= 4:
                del self._kept[next(iter(self._kept))]
            states = self._features.width
            rows = np.zeros((2 * count, states + self._width), np.float32)
            both = torch.from_numpy(rows)
            self._kept[count] = (
                rows,
                Batch(
                    now=both[:count],
                    then=both[count:],
                    states=both[:count, :states],
                    next_states=both[count:, :states],
                    action_columns=slice(states, states + self._width),
                    actions=rows[:count, states:],
                    next_actions=rows[count:, states:],
                    rewards=np.empty(count, np.float32),
                    discounts=np.empty(count, np.float32),
                ),
            )
        return self._kept[count]

    def draw(self, buffer: Any, count: int, gamma: float, normalize: Any = None) -> Batch:
        """Draw ``count`` transitions.

        Args:
            buffer: SB3 replay buffer.
            count: B.
            gamma: Discount factor.
            normalize: The training env's VecNormalize, if it has one.
        """
        rows, batch = self._buffers(count)
        if normalize is None and type(buffer) is ReplayBuffer and isinstance(buffer.observation_space, spaces.Box):
            self._read(buffer, count, gamma, rows, batch)
            return batch
        data = buffer.sample(count, env=normalize)
        states = self._features.width
        for part, observations in ((rows[:count], data.observations), (rows[count:], data.next_observations)):
            arrays = (
                {key: value.numpy() for key, value in observations.items()}
                if isinstance(observations, dict)
                else observations.numpy()
            )
            self._features(arrays, part[:, :states])
        batch.actions[...] = data.actions.numpy()
        batch.rewards[...] = data.rewards.numpy()[:, 0]
        discounts = gamma if data.discounts is None else data.discounts.numpy()[:, 0]
        batch.discounts[...] = (1 - data.dones.numpy()[:, 0]) * discounts
        return batch

    @staticmethod
    def _read(buffer: ReplayBuffer, count: int, gamma: float, rows: Floats, batch: Batch) -> None:
        size, random = buffer.buffer_size, np.random  # SB3's own random stream
        if not buffer.optimize_memory_usage:
            chosen = following = random.randint(0, size if buffer.full else buffer.pos, size=count)
        else:
            if buffer.full:
                chosen = (random.randint(1, size, size=count) + buffer.pos) % size
            else:
                chosen = random.randint(0, buffer.pos, size=count)
            following = (chosen + 1) % size
        copies = random.randint(0, high=buffer.n_envs, size=(count,))
        next_obs = buffer.observations if buffer.optimize_memory_usage else buffer.next_observations
        shape = (size, buffer.n_envs, -1)
        _gather(
            chosen,
            following,
            copies,
            buffer.observations.reshape(shape),
            next_obs.reshape(shape),
            buffer.actions,
            buffer.rewards,
            buffer.dones,
            buffer.timeouts,
            np.float32(gamma),
            rows,
            batch.rewards,
            batch.discounts,
        )
