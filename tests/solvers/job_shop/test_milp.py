"""The MILP: teaching sizes proved, hints, limits, refusals."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from pyomo.repn import generate_standard_repn

from orl.common.errors import InputError
from orl.envs.job_shop import library
from orl.envs.job_shop.builders import flexible_job_shop, job_shop, rcpsp
from orl.envs.job_shop.generators import UniformJobShop
from orl.envs.job_shop.instance import Schedule
from orl.envs.job_shop.model import Mode, Model
from orl.solvers.job_shop import milp
from orl.solvers.job_shop.cp_sat import CpSat
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


@pytest.mark.parametrize("value", ["abc", 2.5, -1, True, None])
def test_bad_arguments_are_refused(value):
    with pytest.raises(InputError, match="Milp, max_disjunctions: bad value.*expected an integer >= 0"):
        Milp(max_disjunctions=value)


@pytest.mark.parametrize("low, high", [(1, 5_000_000), (4_900_000, 5_100_000), (1, 80_000_000)])
def test_large_durations_are_solved(low, high):
    rng = np.random.default_rng(7)
    for _ in range(4):
        instance = UniformJobShop(4, 3, low=low, high=high)(rng)
        result = Milp().solve(instance, time_limit=60)
        optimum = CpSat(auto_hint=False).solve(instance, time_limit=60)
        assert optimum.status == "optimal"
        check = instance.check(result.solution)
        assert check.feasible, check.violations
        assert result.bound <= optimum.objective <= result.objective == check.objective
        assert result.objective == pytest.approx(optimum.objective, rel=1e-6)
        objectives = [p.objective for p in result.log]
        assert objectives == sorted(objectives, reverse=True)
        assert objectives[-1] == result.objective


@pytest.mark.parametrize("objective", ["total_flow", "weighted_tardiness"])
def test_large_durations_with_other_objectives(objective):
    machines, durations = [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]], [[5, 3, 4], [4, 5, 2], [3, 3, 5], [1, 4, 4]]
    unit, due = 1_000_003, [12, 13, 14, 15]
    small = Milp().solve(job_shop(machines, durations, due=due, objective=objective))
    large = job_shop(machines, np.multiply(durations, unit), due=np.multiply(due, unit), objective=objective)
    result = Milp().solve(large, time_limit=60)
    assert small.status == "optimal"
    assert result.bound <= small.objective * unit <= result.objective == large.check(result.solution).objective
    assert result.objective == pytest.approx(small.objective * unit, rel=1e-6)


def test_an_inaccurate_solution_is_read_as_a_feasible_schedule():
    instance = library.load("ft06")
    best = Milp().solve(instance)
    model = milp.build_model(instance, milp._disjunctions(instance), instance.horizon)
    column = {id(v): k for k, (v, _) in enumerate(milp._values(model, instance, best.solution))}
    values = np.array([value for _, value in milp._values(model, instance, best.solution)])
    exact = milp._schedule(instance, model, column, values)
    assert instance.check(exact).objective == best.objective
    rng = np.random.default_rng(0)
    for _ in range(30):
        noisy = milp._schedule(instance, model, column, values + rng.uniform(-4, 4, len(values)))
        assert instance.check(noisy).feasible


def test_a_deadline_missed_by_the_tolerance_is_an_input_error(monkeypatch):
    model = Model("dated")
    saw = model.unary("saw")
    for k in range(2):
        model.interval(f"o{k}", [Mode(3, {saw: 1})], deadline=7)
    late = Schedule(np.array([0, 5], np.int32), np.zeros(2, np.int32))
    monkeypatch.setattr(milp, "_schedule", lambda *_: late)
    with pytest.raises(InputError, match="dated, horizon: HiGHS misses a deadline by its tolerance"):
        Milp().solve(model.compile())


def test_the_big_constants_are_those_of_the_windows():
    instance = job_shop([[0, 1], [0, 1]], [[3, 2], [4, 1]])
    model = milp.build_model(instance, milp._disjunctions(instance), 9)
    assert [model.start[o].bounds for o in range(4)] == [(0, 4), (3, 7), (0, 4), (4, 8)]
    constants = set()
    for rule in model.rules.values():
        linear = generate_standard_repn(rule.body)
        coefficients = {v.name: c for v, c in zip(linear.linear_vars, linear.linear_coefs, strict=True)}
        constants |= {(name, abs(c)) for name, c in coefficients.items() if name.startswith("first")}
    # the latest ends are 7, 9, 8, 9 and the earliest starts 0, 3, 0, 4
    assert constants == {("first[0,2]", 7), ("first[0,2]", 8), ("first[1,3]", 5), ("first[1,3]", 6)}
