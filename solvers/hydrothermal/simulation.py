"""Panels of paths played by a rule in batches: every rule meets the same inflows (common random numbers)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.hydrothermal.dual_pool import DualPool
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance
from orl.envs.hydrothermal.reach import ReachableMap
from orl.solvers.hydrothermal.deterministic_equivalent import paths_of
from orl.solvers.hydrothermal.rules import Decide

DIGITS = 6
"""Decimals of a stage's cost in USD, as in the environment: which of several optimal bases answered does not show."""


def simulate(
    instance: HydrothermalInstance, decide: Decide, columns: npt.ArrayLike, pool: DualPool | None = None
) -> tuple[Floats, Floats]:
    """Play a rule over paths of inflows; stage costs come from the pool.

    Args:
        instance: The problem.
        decide: A rule made for it, called once a stage with all paths.
        columns: int64[T, N], a path in each column of the array (int64[T, N, n] if not joint).
        pool: Of the same problem, so that its bases serve again; None: a new one.

    Returns:
        Stage costs float64[N, T], USD for each hour of a stage, and volumes float64[N, T + 1, n], hm3.

    Raises:
        InputError: Columns of another shape, or none such in the instance.

    >>> from orl.envs.hydrothermal.library import load
    >>> from orl.solvers.hydrothermal.rules import make_rule
    >>> tri3 = load("tri3")
    >>> costs, volumes = simulate(tri3, make_rule("myopic", tri3), [[0, 2], [0, 2], [0, 2], [0, 2]])
    >>> costs.shape, volumes.shape, bool(costs[0].sum() > costs[1].sum())
    ((2, 4), (2, 5, 3), True)
    """
    paths = paths_of(instance, columns)
    if paths.shape[1] != instance.horizon:
        expected = f"{instance.horizon} rows"
        raise InputError("bad paths", source=instance.name, field="columns", value=paths.shape[1], expected=expected)
    inflows, reach = instance.path_inflows(paths), ReachableMap(instance)
    n_paths, horizon, n = inflows.shape
    volumes = np.empty((n_paths, horizon + 1, n))
    volumes[:, 0] = instance.initial_volume
    for t in range(horizon):
        volumes[:, t + 1] = play(reach, decide, np.full(n_paths, t), volumes[:, t], inflows[:, t])
    used = volumes[:, :-1] + instance.water_factor * inflows - volumes[:, 1:]
    costs, _ = (DualPool(instance) if pool is None else pool).costs_and_duals(used, np.arange(horizon))
    return np.round(costs, DIGITS), volumes


def play(reach: ReachableMap, decide: Decide, stage: npt.NDArray[np.int64], volumes: Floats, inflows: Floats) -> Floats:
    """Volumes float64[B, n] after a stage, as an environment has them: through an action in [-1, 1].

    Args:
        reach: Of the problem.
        decide: The rule.
        stage: int64[B].
        volumes: float64[B, n], hm3.
        inflows: float64[B, n], m3/s.
    """
    actions = reach_actions(reach, volumes, inflows, decide(stage, volumes, inflows))
    return reach(volumes, inflows, (actions + 1) / 2).volumes


def reach_actions(reach: ReachableMap, volumes: Floats, inflows: Floats, targets: Floats) -> Floats:
    """Actions float64[B, n] in [-1, 1] of the mode ``reach`` that lead to targets float64[B, n], hm3.

    A target that cannot be reached leads to the nearest volume that can be, from the top plant down.

    >>> from orl.envs.hydrothermal.library import load
    >>> reach = ReachableMap(load("tri3"))
    >>> state = np.array([[100.0, 10.0, 40.0]]), np.array([[30.0, 10.0, 14.0]])
    >>> actions = reach_actions(reach, *state, np.array([[500.0, 15.0, 0.0]]))
    >>> actions.tolist(), reach(*state, (actions + 1) / 2).volumes.round(2).tolist()
    ([[1.0, 0.5, -1.0]], [[178.84, 15.0, 0.0]])
    """
    found = reach.project(volumes, inflows, targets)
    width = found.upper - found.lower
    share = np.divide(found.volumes - found.lower, width, out=np.zeros_like(width), where=width > 0)
    return 2 * share - 1


def target_actions(instance: HydrothermalInstance, targets: Floats) -> Floats:
    """Actions float64[B, n] in [-1, 1] of the mode ``target`` that stand for targets float64[B, n], hm3.

    >>> from orl.envs.hydrothermal.library import load
    >>> target_actions(load("tri3"), np.array([[200.0, 10.0, 0.0]])).tolist()
    [[1.0, 0.0, -1.0]]
    """
    width = instance.max_volume - instance.min_volume
    above = np.clip(targets, instance.min_volume, instance.max_volume) - instance.min_volume
    share = np.divide(above, width, out=np.zeros_like(above), where=width > 0)
    return 2 * share - 1
