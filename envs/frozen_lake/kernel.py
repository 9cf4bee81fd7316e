"""The step of all copies at once, compiled; equal to :mod:`orl.envs.frozen_lake.transition` bit for bit.

In an episode with key k the slip after the move of period t is decided by the uniform number of (k, t, 0, d): draw
d = 0 happens, draws 1, 2, ... are alternatives.
"""

from __future__ import annotations

from numba import njit

from orl.common.counter_noise_numba import uniform
from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()


@njit(cache=True)
def slip(post, key, t, draw, neighbours, surprise, arrival, thresholds, goal):
    """Outcome, next tile and stochastic reward after the move to ``post``."""
    stay = neighbours.shape[1]
    number = uniform(key, t, 0, draw)
    outcome = 0
    while outcome < stay and number >= thresholds[post, outcome]:
        outcome += 1
    if outcome == stay or post == goal:
        return outcome, post, surprise[post]
    following = neighbours[post, outcome]
    return outcome, following, surprise[post] + arrival[following]


@njit(cache=True)
def step_batch(
    active, actions, keys, neighbours, decided, surprise, arrival, thresholds, goal,
    tile, period, post, outcome, deterministic, stochastic,
):  # fmt: skip
    """One step of the active copies; the last six arrays [N] are written."""
    for b in range(len(tile)):
        if not active[b]:
            continue
        u = neighbours[tile[b], actions[b]]
        post[b], deterministic[b] = u, decided[u]
        outcome[b], tile[b], stochastic[b] = slip(
            u, keys[b], period[b], 0, neighbours, surprise, arrival, thresholds, goal
        )
        period[b] += 1


@njit(cache=True)
def draw_batch(posts, keys, periods, neighbours, surprise, arrival, thresholds, goal, following, stochastic):
    """Draws 1..n after moves to ``posts`` [B, A]: ``following`` and ``stochastic`` [B, A, n] are written."""
    for b in range(posts.shape[0]):
        for a in range(posts.shape[1]):
            for k in range(following.shape[2]):
                _, following[b, a, k], stochastic[b, a, k] = slip(
                    posts[b, a], keys[b], periods[b], k + 1, neighbours, surprise, arrival, thresholds, goal
                )
