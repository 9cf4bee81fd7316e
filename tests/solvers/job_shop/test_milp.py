"""The MILP: teaching sizes proved, hints, limits, refusals."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.job_shop import library
from orl.envs.job_shop.builders import flexible_job_shop, job_shop, rcpsp
from orl.envs.job_shop.instance import Schedule
from orl.solvers.job_shop import milp
from orl.solvers.job_shop.milp import Milp
from orl.solvers.job_shop.tabu_search import TabuSearch


@pytest.mark.parametrize("name, optimum", [("ft06", 55), ("tai4_4_01", 193)])
def test_small_named_instances_are_proved(name, optimum):
    instance = library.load(name)
    result = Milp().solve(instance, time_limit=120)
    assert instance.check(result.solution).feasible
    assert (result.status, result.objective, result.bound) == ("optimal", optimum, optimum)


def test_a_hint_survives_a_limit_too_short_to_search():
    instance = library.load("ft06")
    hint = TabuSearch(iterations=0).solve(instance).solution
    late = Schedule(hint.start + np.int32(3), hint.mode)
    result = Milp().solve(instance, time_limit=0, hint=late)
    assert result.objective <= instance.check(hint).objective
    assert instance.makespan_bound <= result.bound <= 55
    assert instance.check(result.solution).feasible


@pytest.mark.parametrize("objective", ["makespan", "total_flow", "weighted_tardiness"])
def test_an_optimal_hint_is_accepted_as_it_is(objective):
    instance = job_shop([[0, 1], [1, 0], [0, 1]], [[3, 2], [4, 1], [1, 1]], due=[4, 4, 2], objective=objective)
    best = Milp().solve(instance)
    again = Milp().solve(instance, hint=best.solution)
    assert again.log[0].objective == best.objective == again.objective
    assert again.status == "optimal"


def test_without_time_the_answer_is_unknown_with_a_bound():
    instance = library.load("ft06")
    result = Milp().solve(instance, time_limit=0)
    assert result.status == "unknown"
    assert result.bound >= instance.makespan_bound


def test_the_model_has_a_binary_a_pair_and_a_mode():
    instance = flexible_job_shop([[[(0, 5), (1, 3)], [(1, 2)]], [[(0, 2)], [(1, 4)]]])
    pairs = milp._disjunctions(instance)
    assert pairs == [(0, 2, 0), (0, 3, 1), (1, 3, 1)]
    model = milp.build_model(instance, pairs, instance.horizon)
    assert (len(model.first), len(model.use), len(model.start)) == (3, 2, 4)


def test_ctrl_c_returns_the_best_so_far():
    instance = library.load("ft10")
    hint = TabuSearch(iterations=0).solve(instance).solution
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        result = Milp().solve(instance, time_limit=120, hint=hint)
    finally:
        timer.cancel()
    assert result.status == "feasible"
    assert result.seconds < 60
    assert instance.check(result.solution).feasible


def test_cumulative_resources_are_refused():
    with pytest.raises(InputError, match="capacity of 'R0': the MILP has no cumulative resources"):
        Milp().solve(rcpsp([3, 2], [[2], [1]], [2], []))


def test_large_instances_are_refused():
    with pytest.raises(InputError, match="too large for the MILP.*got 1575.*at most 1000"):
        Milp().solve(library.load("ta01"))


def test_bad_hints_and_limits_are_refused():
    instance = library.load("ft06")
    with pytest.raises(InputError, match="hint"):
        Milp().solve(instance, hint=Schedule(np.zeros(36, np.int32), np.zeros(36, np.int32)))
    with pytest.raises(InputError, match="time_limit"):
        Milp().solve(instance, time_limit=-1)
