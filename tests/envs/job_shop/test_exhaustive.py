"""Walking every path through the masks finds exactly the optimum that CP-SAT proves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from job_shop_families import FAMILIES, identical_jobs, mixed, ragged, weighted
from mask_walk import best_through_masks

from orl.envs.job_shop import builders, generators
from orl.envs.job_shop.instance import ShopInstance
from orl.solvers.job_shop.cp_sat import CpSat


def optimum(instance: ShopInstance) -> float:
    result = CpSat(num_workers=1).solve(instance, time_limit=30)
    assert result.status == "optimal"
    return result.objective


CASES: list[tuple[str, Callable[[np.random.Generator], ShopInstance], int]] = [
    ("job shop", generators.UniformJobShop((2, 3), (2, 3), 0, 9), 30),
    ("job shop 2x4", generators.UniformJobShop(2, 4, 1, 9), 10),
    ("ragged", ragged, 15),
    ("identical jobs", identical_jobs, 10),
    ("weighted", weighted, 8),
    ("open shop", generators.UniformOpenShop((2, 3), 2, 0, 9), 20),
    ("flexible", generators.UniformFlexibleJobShop((2, 3), 3, 2, (1, 3), 0, 9), 20),
    ("project", generators.UniformProject((3, 6), 2, (1, 3), (1, 2), 1, 0.3, 0, 6), 15),
    ("mixed", mixed, 10),
]


@pytest.mark.parametrize("name, family, count", CASES, ids=[case[0] for case in CASES])
def test_best_path_equals_cp_sat(name: str, family: Callable[..., ShopInstance], count: int) -> None:
    rng = np.random.default_rng(2023)
    done = 0
    while done < count:
        instance = family(rng)
        broken, fewer = best_through_masks(instance, symmetry_breaking=True, limit=200_000)
        if fewer < 0:
            continue
        free, leaves = best_through_masks(instance)
        if leaves < 0:
            continue
        expected = optimum(instance)
        assert free == expected
        assert broken == expected
        assert fewer <= leaves
        done += 1


def test_without_the_no_op_some_optimum_is_lost() -> None:
    rng = np.random.default_rng(1)
    family = generators.UniformJobShop(3, 3, 1, 9)
    lost = sum(
        best_through_masks(instance, noop=False)[0] > optimum(instance) for instance in (family(rng) for _ in range(25))
    )
    assert lost > 0


def test_known_symmetry_and_flexibility_traps() -> None:
    """Two instances on which narrower rules lose the optimum (specification, sections 3.3 and 3.6)."""
    zero = builders.job_shop([[3, 1, 2, 0], [2, 1, 3, 0]], [[1, 0, 3, 4], [1, 3, 2, 1]])
    assert best_through_masks(zero, symmetry_breaking=True)[0] == 9
    flexible = builders.flexible_job_shop([[[(2, 3), (1, 8), (0, 7)]], [[(1, 9), (0, 7), (2, 3)]]])
    assert best_through_masks(flexible)[0] == 6


@pytest.mark.parametrize("family", ["job shop", "ragged", "project"])
def test_level_two_keeps_an_optimum_below_the_upper_bound(family: str) -> None:
    rng = np.random.default_rng(9)
    for _ in range(10):
        instance = FAMILIES[family](rng)
        if instance.n_ops > 9 or instance.horizon == 0:
            continue
        expected = optimum(instance)
        best, fewer = best_through_masks(instance, upper_bound=int(expected) + 1)
        assert best == expected
        leaves = best_through_masks(instance)[1]
        assert fewer <= leaves or leaves < 0
        assert best_through_masks(instance, upper_bound=int(expected))[0] == float("inf")
