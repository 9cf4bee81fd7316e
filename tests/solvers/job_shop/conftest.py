"""Small random instances of every kind, and an exhaustive search that shares nothing with the solvers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orl.common.errors import DataUnavailableError
from orl.envs.job_shop import library
from orl.envs.job_shop.builders import flexible_job_shop, job_shop, open_shop
from orl.envs.job_shop.generators import UniformProject
from orl.envs.job_shop.instance import NO_DEADLINE, Schedule, ShopInstance
from orl.envs.job_shop.model import Mode, Model


def tiny_job_shop(rng: np.random.Generator) -> ShopInstance:
    """Ragged, re-entrant, with durations of 0, releases and any objective; at most 6 operations."""
    lengths = [(2, 2, 2), (3, 2), (3, 3), (1, 3, 2), (4, 2)][rng.integers(5)]
    return job_shop(
        [rng.integers(0, 3, k).tolist() for k in lengths],
        [rng.integers(0, 8, k).tolist() for k in lengths],
        release=rng.integers(0, 5, len(lengths)) if rng.random() < 0.5 else None,
        due=rng.integers(0, 12, len(lengths)),
        weight=rng.integers(0, 4, len(lengths)),
        objective=["makespan", "total_flow", "weighted_tardiness"][rng.integers(3)],
    )


def tiny_open_shop(rng: np.random.Generator) -> ShopInstance:
    n_jobs, n_machines = [(2, 3), (3, 2), (2, 2)][rng.integers(3)]
    machines = [list(range(n_machines))] * n_jobs
    return open_shop(machines, rng.integers(0, 9, (n_jobs, n_machines)).tolist())


def tiny_flexible_shop(rng: np.random.Generator) -> ShopInstance:
    jobs = []
    for k in [(2, 2), (3, 2), (2, 1, 1)][rng.integers(3)]:
        modes = [rng.choice(3, rng.integers(1, 3), replace=False).tolist() for _ in range(k)]
        jobs.append([[(m, int(rng.integers(1, 8))) for m in machines] for machines in modes])
    return flexible_job_shop(jobs)


def tiny_project(rng: np.random.Generator) -> ShopInstance:
    """Cumulative resources, modes, lags and durations of 0."""
    return UniformProject(n_activities=5, n_resources=2, n_modes=(1, 2), max_lag=2, low=0, high=6)(rng)


def tiny_dated_model(rng: np.random.Generator) -> ShopInstance:
    """Two machines, releases and deadlines on single operations: sometimes infeasible."""
    model = Model("dated")
    machines = [model.unary("a"), model.unary("b")]
    ops = []
    for k in range(5):
        duration, release = int(rng.integers(0, 5)), int(rng.integers(0, 5))
        deadline = int(rng.integers(8, 20)) if rng.random() < 0.7 else None
        machine = machines[rng.integers(2)]
        ops.append(model.interval(f"o{k}", [Mode(duration, {machine: 1})], release=release, deadline=deadline))
    model.precedence(ops[0], ops[1], lag=int(rng.integers(0, 3)))
    model.precedence(ops[0], ops[2])
    return model.compile()


TINY: dict[str, Callable[[np.random.Generator], ShopInstance]] = {
    "job_shop": tiny_job_shop,
    "open_shop": tiny_open_shop,
    "flexible": tiny_flexible_shop,
    "project": tiny_project,
    "dated": tiny_dated_model,
}


@pytest.fixture(scope="session")
def tiny() -> dict[str, Callable[[np.random.Generator], ShopInstance]]:
    """Generators of tiny instances by kind."""
    return TINY


@pytest.fixture(scope="session")
def brute_force() -> Callable[[ShopInstance], int | None]:
    """The optimal objective by enumeration of all operation orders and modes; None when infeasible."""
    return _optimum


@pytest.fixture(scope="session")
def named() -> Callable[[str], ShopInstance]:
    """A library instance; the test is skipped when its data is not on this machine."""

    def load(name: str) -> ShopInstance:
        try:
            return library.load(name)
        except DataUnavailableError as error:
            pytest.skip(str(error))

    return load


def _optimum(instance: ShopInstance) -> int | None:
    """Serial schedule generation over all orders: its schedules are active, and one of them is optimal."""
    best: int | None = None
    n_modes = np.diff(instance.mode_ptr)
    for mode in itertools.product(*(range(k) for k in n_modes)):
        chosen = instance.mode_ptr[:-1] + np.array(mode)
        for order in itertools.permutations(range(instance.n_ops)):
            start = _serial(instance, chosen, order)
            if start is None:
                continue
            schedule = Schedule(np.array(start, np.int32), np.array(mode, np.int32))
            check = instance.check(schedule)
            if check.feasible and (best is None or check.objective < best):
                best = int(check.objective)
    return best


def _serial(instance: ShopInstance, chosen: Any, order: tuple[int, ...]) -> list[int] | None:
    start: dict[int, int] = {}
    end: dict[int, int] = {}
    uses = [
        {int(instance.use_resource[u]): int(instance.use_demand[u]) for u in range(*instance.use_ptr[q : q + 2])}
        for q in chosen
    ]
    for o in order:
        earliest = int(instance.release[o])
        for e in range(*instance.pred_ptr[o : o + 2]):
            p = int(instance.pred_op[e])
            if p not in end:
                return None
            earliest = max(earliest, end[p] + int(instance.pred_lag[e]))
        duration = int(instance.mode_duration[chosen[o]])
        for t in sorted({earliest, *(e for e in end.values() if e > earliest)}):
            if all(_fits(instance, r, d, t, t + duration, start, end, uses) for r, d in uses[o].items()):
                start[o], end[o] = t, t + duration
                break
        if instance.deadline[o] < NO_DEADLINE and end[o] > instance.deadline[o]:
            return None
    return [start[o] for o in range(instance.n_ops)]


def _fits(
    instance: ShopInstance, r: int, demand: int, begin: int, finish: int, start: dict, end: dict, uses: list
) -> bool:
    """Room for ``demand`` units during [begin, finish); an instant needs room strictly inside other operations."""
    others = [(start[k], end[k], uses[k][r]) for k in start if r in uses[k]]
    if begin == finish:
        return sum(d for s, e, d in others if s < begin < e) + demand <= instance.capacity[r]
    for t in {begin, *(s for s, _, _ in others if begin <= s < finish)}:
        if sum(d for s, e, d in others if s <= t < e) + demand > instance.capacity[r]:
            return False
    for s, e, d in others:
        if s == e and begin < s < finish:
            inside = sum(units for a, b, units in others if a < s < b)
            if inside + d + demand > instance.capacity[r]:
                return False
    return True
