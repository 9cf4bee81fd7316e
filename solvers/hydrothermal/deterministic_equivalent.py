"""Perfect foresight: the best dispatch of a known path of inflows, and what it says about all policies.

``DeterministicEquivalent`` solves a scenario, one linear programme over its stages. :func:`wait_and_see` does it for
many paths, :func:`expected_value` for the path of mean inflows. Both bound the expected cost of every policy from
below: the first because no policy knows the future (A. Madansky, Management Science 6 (1960) 197-204), the second
because the cost is convex in the inflows (Jensen). The tree over all histories of inflow, whose optimum is that of the
stochastic problem itself, is :func:`orl.solvers.hydrothermal.scenario_tree.tree_cost`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.interruption import minding_ctrl_c
from orl.common.problem import Progress, SolveResult, Status
from orl.envs.hydrothermal.instance import Dispatch, Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.plan import ReservoirPlan, dispatch_of
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.envs.hydrothermal.stage_model import StageModel, stage_model
from orl.envs.hydrothermal.water_balance import WaterBalance
from orl.solvers.hydrothermal.scenario_tree import TreeProgramme, path_tree


@dataclass(frozen=True)
class DeterministicEquivalent:
    """Solver for scenarios: all stages in one linear programme, the inflows known.

    The answer is ``optimal`` with its own objective as the bound. Where time runs out first, it is the hint or a
    dispatch that minimises stage after stage, whichever costs less, with the instance's own bound.

    >>> from orl.envs.hydrothermal.library import load
    >>> result = DeterministicEquivalent().solve(load("tri3").scenario_of([0, 1, 2, 0]))
    >>> result.status, bool(abs(result.objective - result.bound) < 1e-9)
    ('optimal', True)
    """

    name: str = "deterministic-equivalent"

    def solve(
        self,
        instance: HydrothermalInstance,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        hint: Dispatch | ReservoirPlan | None = None,
    ) -> SolveResult:
        """The least cost of a scenario.

        Args:
            instance: An instance with columns.
            time_limit: Seconds; None: until optimal.
            seed: Not used, the method has no chance in it.
            hint: A dispatch or plan of this scenario to fall back on.

        Raises:
            InputError: No columns, a hint that is no dispatch of this scenario, a negative time limit.
        """
        if time_limit is not None and not time_limit >= 0:
            raise InputError("bad time limit", field="time_limit", value=time_limit, expected="seconds >= 0 or None")
        if instance.columns is None:
            raise InputError(
                "perfect foresight needs inflow columns",
                source=instance.name,
                field="columns",
                expected="a scenario: take instance.scenario_of(columns) or instance.scenario(seed)",
            )
        began = time.perf_counter()
        if hint is not None and not (verdict := instance.check(hint)).feasible:
            violation = verdict.violations[0] if verdict.violations else None
            raise InputError(
                "the hint is no dispatch of this scenario", source=instance.name, field="hint", value=violation
            )
        inflows = instance.path_inflows(instance.columns)
        with minding_ctrl_c() as pressed:
            programme = TreeProgramme(instance, path_tree(inflows), stop=pressed)
            left = None if time_limit is None else max(0.0, time_limit - (time.perf_counter() - began))
            found = programme.solve(time_limit=left)
        if found is not None:
            dispatch: Dispatch | ReservoirPlan = _dispatch(instance, programme.block, found.values)
        else:
            dispatch = stage_by_stage(instance)
        objective = instance.check(dispatch).objective
        assert objective is not None
        if found is None and hint is not None:
            hinted = instance.check(hint).objective
            if hinted is not None and hinted < objective:
                dispatch, objective = hint, hinted
        bound = objective if found is not None else min(instance.lower_bound(), objective)
        seconds = time.perf_counter() - began
        log = (Progress(seconds, objective, bound),)
        status: Status = "feasible" if found is None else "optimal"
        return SolveResult(status, dispatch, objective, bound, seconds=seconds, log=log)


def wait_and_see(instance: HydrothermalInstance, columns: npt.ArrayLike) -> Floats:
    """Least cost of each of N paths if all its inflows were known from the start.

    Args:
        instance: The problem.
        columns: int64[T, N], a path in each column of the array (int64[T, N, n] if not joint).

    Returns:
        float64[N], USD for each hour of a stage, summed over the stages.

    Raises:
        InputError: Columns of another shape, or none such in the instance.

    >>> from orl.envs.hydrothermal.library import load
    >>> costs = wait_and_see(load("tri3"), [[0, 2], [0, 2], [0, 2], [0, 2]])
    >>> bool(costs[0] > costs[1])
    True
    """
    paths = instance.path_inflows(paths_of(instance, columns))
    programme = TreeProgramme(instance, path_tree(paths[0]))
    costs = np.empty(len(paths))
    for j, path in enumerate(paths):
        programme.set_water(path, instance.initial_volume)
        solution = programme.solve()
        assert solution is not None  # there was no time limit
        costs[j] = solution.cost
    return costs


def expected_value(instance: HydrothermalInstance) -> float:
    """Least cost in USD if every inflow were its mean: a lower bound on the expected cost of every policy.

    >>> from orl.envs.hydrothermal.library import load
    >>> from orl.solvers.hydrothermal.scenario_tree import tree_cost
    >>> expected_value(load("tri3")) < tree_cost(load("tri3"))
    True
    """
    mean = instance.mean_inflows[np.arange(instance.horizon) % len(instance.mean_inflows)]
    if instance.columns is not None:
        mean = instance.path_inflows(instance.columns)
    solution = TreeProgramme(instance, path_tree(mean)).solve()
    assert solution is not None  # there was no time limit
    return solution.cost


def paths_of(instance: HydrothermalInstance, columns: npt.ArrayLike) -> Integers:
    """Columns int64[T, N] (int64[T, N, n] if not joint) as paths int64[N, T] (int64[N, T, n]), checked.

    Raises:
        InputError: Another shape, or columns that are not there.
    """
    given = np.asarray(columns)
    wanted = "int[T, N]" if instance.joint else "int[T, N, n]"
    fits = given.ndim == (2 if instance.joint else 3) and given.dtype.kind in "iu" and given.shape[1] > 0
    if not fits or (not instance.joint and given.shape[2] != instance.n_plants) or not len(given):
        raise InputError("bad paths", source=instance.name, field="columns", value=given.shape, expected=wanted)
    if given.min() < 0 or given.max() >= instance.n_columns:
        outside = given[(given < 0) | (given >= instance.n_columns)][0]
        expected = f"0..{instance.n_columns - 1}"
        raise InputError(
            "no such inflow column", source=instance.name, field="columns", value=outside, expected=expected
        )
    return np.moveaxis(given.astype(np.int64), 1, 0)


def _dispatch(instance: HydrothermalInstance, model: StageModel, values: Floats) -> Dispatch:
    """The dispatch of a scenario from the variables float64[T, V] of its stages in the storage form."""
    assert instance.columns is not None
    volumes = np.clip(values[:, model.columns["volume"]], instance.min_volume, instance.max_volume) + 0.0
    path = np.concatenate([instance.initial_volume[None], volumes])
    return dispatch_of(instance, instance.columns, path, model, values)


def stage_by_stage(instance: HydrothermalInstance) -> Dispatch:
    """A dispatch of a scenario that minimises the cost of every stage with no thought of the next."""
    assert instance.columns is not None
    balance, volume, rows = WaterBalance(instance), instance.initial_volume, []
    for stage, inflow in enumerate(instance.path_inflows(instance.columns)):
        lp, water = StageLP(instance, stage, "storage"), volume + instance.water_factor * inflow
        values, _ = lp.run(water)
        columns = lp.model.columns
        volume = balance.settle(water, values[columns["turbined"]], values[columns["spilled"]])
        rows.append(values)
    return _dispatch(instance, stage_model(instance, 0, "storage"), np.array(rows))
