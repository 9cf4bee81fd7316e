"""Differences between the values of two actions from K draws of the demand, with and without common random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from critics import Critics
from episodes import Floats, Numbers, Policy

from orl.envs.lot_sizing.vector import LotSizingVectorEnv


def compare(
    numbers: Numbers, policy: Policy, exact: Critics, draws: Sequence[int], discount: float, copies: int, seed: int
) -> list[dict[str, Any]]:
    """One row for each number of draws K.

    In every state that ``copies`` episodes of the policy visit, Q(s, a) of all actions is estimated by
    ``r^d + mean_K (r^w + gamma V(s'))`` with the exact V. ``common``: the same K draws for all actions, as
    ``simulate_decisions`` gives them. ``separate``: K draws of its own for each action, taken from further draws of
    the same call. Columns: mean squared error of ``Q(s, a) - Q(s, b)`` over states and pairs of actions, their ratio,
    and how much value the action with the largest estimate loses on average.
    """
    space = numbers.space
    n_items, n_actions, most = space.instance.n_items, space.n_setups, max(draws)
    every = np.broadcast_to(space.setups, (copies, *space.setups.shape))
    action = np.arange(n_actions)
    first, second = np.triu_indices(n_actions, 1)
    rng = np.random.default_rng(seed)
    env = LotSizingVectorEnv(copies, space.instance, observation="raw")
    observation, _ = env.reset(seed=seed)
    sums = {k: np.zeros(4) for k in draws}
    for t in range(space.instance.horizon):
        between, reward, after, noise, _ = env.simulate_decisions(every, n_actions * most)
        posts = numbers.posts(between[..., :n_items].astype(np.int64), action)
        true = reward + exact.post_values[t, posts]
        states = numbers.states(after[..., :n_items].astype(np.int64), action[:, None])
        worth = (noise + discount * exact.values[t + 1, states]).reshape(copies, n_actions, n_actions, most)
        for k in draws:
            means: Floats = worth[..., :k].mean(-1)
            for column, estimated in enumerate((means[:, :, 0], means[:, action, action])):
                error = reward + estimated - true
                sums[k][column] += ((error[:, first] - error[:, second]) ** 2).mean()
                chosen = (reward + estimated).argmax(1)
                sums[k][2 + column] += (true.max(1) - true[np.arange(copies), chosen]).mean()
        state = numbers.states(
            observation[:, :n_items].astype(np.int64), space.setup_index(observation[:, n_items:].astype(np.int64))
        )
        levels = policy(t)[state].cumsum(-1)[:, :-1]
        played = (rng.random((copies, 1)) >= levels).sum(-1)
        observation = env.step(space.setups[played])[0]
    rows = []
    for k in draws:
        common, separate, common_loss, separate_loss = (sums[k] / space.instance.horizon).tolist()
        rows.append(
            {
                "draws": k,
                "mse_common": common,
                "mse_separate": separate,
                "ratio": separate / common if common > 0 else float("nan"),
                "loss_common": common_loss,
                "loss_separate": separate_loss,
            }
        )
    return rows
