"""CP-SAT, the MILP and exhaustive search find the same optimum on tiny instances of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from orl.solvers.job_shop.cp_sat import CpSat
from orl.solvers.job_shop.milp import Milp

COUNT = {"job_shop": 16, "open_shop": 6, "flexible": 6, "project": 8, "dated": 8}


@pytest.mark.parametrize("kind", COUNT)
def test_cp_sat_equals_exhaustive_search(kind, tiny, brute_force):
    rng = np.random.default_rng(11)
    infeasible = 0
    for _ in range(COUNT[kind]):
        instance = tiny[kind](rng)
        optimum = brute_force(instance)
        result = CpSat(num_workers=1).solve(instance, time_limit=30)
        if optimum is None:
            infeasible += 1
            assert result.status == "infeasible"
            assert result.solution is None
            continue
        check = instance.check(result.solution)
        assert check.feasible, check.violations
        assert (result.status, result.objective, result.bound) == ("optimal", optimum, optimum)
        assert check.objective == optimum
    if kind == "dated":
        assert 0 < infeasible < COUNT[kind]


@pytest.mark.parametrize("kind", [k for k in COUNT if k != "project"])
def test_milp_equals_exhaustive_search(kind, tiny, brute_force):
    rng = np.random.default_rng(12)
    for _ in range(max(4, COUNT[kind] // 2)):
        instance = tiny[kind](rng)
        optimum = brute_force(instance)
        result = Milp().solve(instance, time_limit=60)
        if optimum is None:
            assert result.status == "infeasible"
            continue
        check = instance.check(result.solution)
        assert check.feasible, check.violations
        assert (result.status, result.objective, result.bound) == ("optimal", optimum, optimum)
        assert check.objective == optimum
