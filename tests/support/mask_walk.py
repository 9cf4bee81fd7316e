"""Depth-first walk over every action sequence that the masks allow, in numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from orl.envs.job_shop import kernel
from orl.envs.job_shop.arena import DEAD, LOWER_BOUND, MODE, N_FIXED, START, Arena
from orl.envs.job_shop.instance import Schedule, ShopInstance


@njit
def _walk(L, p, longs, floats, state, clock, mask, action, c, best_state, limit):  # type: ignore[no-untyped-def]
    """Best objective, leaves, and the state of the best leaf; row d of the arrays is the state at depth d."""
    best, leaves, depth = np.int64(2**62), 0, 0
    kernel.reset_one(L, p, longs, state[0], clock[0], mask[0], c)
    action[0] = -1
    while depth >= 0:
        action[depth] += 1
        if action[depth] == mask.shape[1]:
            depth -= 1
            continue
        if not mask[depth, action[depth]]:
            continue
        state[depth + 1], clock[depth + 1], mask[depth + 1] = state[depth], clock[depth], mask[depth]
        kernel.step_one(L, p, longs, floats, state[depth + 1], clock[depth + 1], mask[depth + 1], c, action[depth])
        if kernel.finished(longs, clock[depth + 1]):
            leaves += 1
            if clock[depth + 1, DEAD] == 0 and clock[depth + 1, LOWER_BOUND] < best:
                best = clock[depth + 1, LOWER_BOUND]
                best_state[:] = state[depth + 1]
            if leaves >= limit:
                return best, -1
        else:
            depth += 1
            action[depth] = -1
    return best, leaves


def best_through_masks(
    instance: ShopInstance,
    *,
    noop: bool = True,
    symmetry_breaking: bool = False,
    upper_bound: int | None = None,
    limit: int = 5_000_000,
) -> tuple[float, int]:
    """Best objective over all action sequences and their number (-1 when there are more than ``limit``)."""
    modes = instance.max_modes
    depth = instance.n_ops * instance.n_lines * modes + 2
    arena = Arena([instance], depth + 1, instance.n_lines, modes, upper_bound)
    level = 0 if upper_bound is None else 2
    config = kernel.Config(int(noop), int(symmetry_breaking), level, kernel.REWARD_MAKESPAN, modes, 0)
    best_state = np.zeros_like(arena.state[0])
    best, leaves = _walk(
        arena.layout,
        arena.ints[0],
        arena.longs[0],
        arena.floats[0],
        arena.state,
        arena.clock,
        arena.mask,
        np.zeros(depth + 1, np.int64),
        config,
        best_state,
        limit,
    )
    if best == 2**62:
        return float("inf"), leaves
    assert arena.clock[0, N_FIXED] == 0
    arena.state[0] = best_state
    schedule = Schedule(arena.operations(0, START).copy(), arena.operations(0, MODE).copy())
    check = instance.check(schedule)
    assert check.feasible, check.violations
    assert check.objective == best or instance.objective != "makespan"
    return float(check.objective or 0.0), leaves
