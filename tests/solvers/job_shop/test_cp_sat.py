"""CP-SAT: proofs on public instances, hints, prefixes, bounds, curves, determinism, interruption."""

from __future__ import annotations

import itertools
import os
import signal
import time

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.job_shop import library
from orl.envs.job_shop.builders import flexible_job_shop, job_shop
from orl.envs.job_shop.generators import UniformFlexibleJobShop, UniformJobShop, UniformProject, taillard_job_shop
from orl.envs.job_shop.instance import Schedule
from orl.envs.job_shop.model import Mode, Model
from orl.solvers.job_shop import cp_sat, tabu_search
from orl.solvers.job_shop.cp_sat import CpSat
from orl.solvers.job_shop.tabu_search import TabuSearch

OPEN_SHOPS = [193, 236, 271, 250, 295, 189, 201, 217, 261, 217]


def prove(instance, optimum, **kwargs):
    result = CpSat(**kwargs).solve(instance, time_limit=120)
    check = instance.check(result.solution)
    assert check.feasible, check.violations
    assert (result.status, result.objective, result.bound, check.objective) == ("optimal", optimum, optimum, optimum)
    assert result.gap == 0


@pytest.mark.parametrize("auto_hint", [False, True])
def test_ft06(auto_hint):
    prove(library.load("ft06"), 55, auto_hint=auto_hint)


def test_la01(named):
    prove(named("la01"), 666)


@pytest.mark.parametrize("k", range(10))
def test_open_shops(k):
    prove(library.load(f"tai4_4_{k + 1:02d}"), OPEN_SHOPS[k])


def test_mk01(named):
    prove(named("mk01"), 40)


@pytest.mark.slow
def test_mk08(named):
    prove(named("mk08"), 523)


def test_the_default_number_of_workers_does_not_depend_on_the_machine():
    assert CpSat().num_workers == 8


@pytest.mark.parametrize("generate", [UniformJobShop((3, 5), 4), UniformFlexibleJobShop(4, 3), UniformProject(9, 2)])
def test_fixing_a_complete_schedule_keeps_its_makespan(generate):
    rng = np.random.default_rng(5)
    for _ in range(4):
        instance = generate(rng)
        solution = CpSat(num_workers=1, auto_hint=False).solve(instance, time_limit=20).solution
        fixed = np.ones(instance.n_ops, bool)
        again = CpSat(num_workers=1).solve_prefix(instance, solution.start, solution.mode, fixed, 0, time_limit=20)
        assert again.status == "optimal"
        assert again.objective == instance.check(solution).objective
        assert (again.solution.start == solution.start).all()
        assert (again.solution.mode == solution.mode).all()


@pytest.mark.parametrize("generate", [UniformJobShop((3, 5), 4), UniformFlexibleJobShop(4, 3)])
def test_a_prefix_of_an_optimal_schedule_completes_to_the_optimum(generate):
    rng = np.random.default_rng(6)
    for _ in range(4):
        instance = generate(rng)
        whole = CpSat(num_workers=1).solve(instance, time_limit=20)
        now = int(np.median(whole.solution.start))
        fixed = whole.solution.start < now
        start = np.where(fixed, whole.solution.start, -1).astype(np.int32)
        result = CpSat(num_workers=1).solve_prefix(instance, start, whole.solution.mode, fixed, now, time_limit=20)
        assert result.status == "optimal"
        assert result.objective == whole.objective
        assert instance.check(result.solution).feasible
        assert (result.solution.start[fixed] == start[fixed]).all()
        assert (result.solution.start[~fixed] >= now).all()


def test_a_bad_prefix_costs_and_its_bound_holds_for_the_prefix():
    instance = job_shop([[0], [0], [1]], [[3], [2], [1]], objective="total_flow")
    start, fixed = np.array([4, -1, -1], np.int32), np.array([True, False, False])
    result = CpSat(num_workers=1).solve_prefix(instance, start, np.zeros(3, np.int32), fixed, 1, time_limit=20)
    assert result.solution.start.tolist() == [4, 1, 1]
    assert (result.status, result.objective, result.bound) == ("optimal", 7 + 3 + 2, 7 + 3 + 2)


@pytest.mark.parametrize("start", [[0, 2, -1], [0, -1, 1]])
def test_a_prefix_without_completion_is_infeasible(start):
    instance = job_shop([[0, 1], [0]], [[3, 2], [2]])
    start = np.array(start, np.int32)
    result = CpSat(num_workers=1).solve_prefix(instance, start, np.zeros(3, np.int32), start >= 0, 0, time_limit=20)
    assert result.status == "infeasible"
    assert result.solution is None


def test_a_prefix_must_fit_the_instance():
    instance = job_shop([[0, 1], [0]], [[3, 2], [2]])
    zeros, fixed = np.zeros(3, np.int32), np.ones(3, bool)
    with pytest.raises(InputError, match="start: wrong array"):
        CpSat().solve_prefix(instance, zeros[:2], zeros, fixed, 0)
    with pytest.raises(InputError, match="fixed: wrong array"):
        CpSat().solve_prefix(instance, zeros, zeros, zeros, 0)
    with pytest.raises(InputError, match="J0.1.*bad start or mode"):
        CpSat().solve_prefix(instance, zeros, np.array([0, 1, 0], np.int32), fixed, 0)


def test_a_hint_is_accepted_and_never_made_worse():
    instance = taillard_job_shop(20, 15, 4711, 4712)
    hint = TabuSearch(iterations=2000).solve(instance).solution
    value = instance.check(hint).objective
    result = CpSat(num_workers=1).solve(instance, time_limit=1.5, hint=hint)
    assert result.objective <= value
    first = next(p.objective for p in result.log if p.objective is not None)
    assert first <= value
    assert instance.check(result.solution).feasible


def test_a_hint_survives_a_limit_too_short_to_search():
    instance = taillard_job_shop(20, 15, 4711, 4712)
    hint = TabuSearch(iterations=2000).solve(instance).solution
    late = Schedule(hint.start + np.int32(7), hint.mode)
    result = CpSat().solve(instance, time_limit=0, hint=late)
    assert result.status == "feasible"
    assert result.objective == instance.check(hint).objective
    assert result.bound == instance.makespan_bound


def test_an_infeasible_hint_is_only_a_suggestion():
    instance = flexible_job_shop([[[(0, 5), (1, 3)], [(1, 2)]], [[(0, 2)], [(0, 4), (1, 4)]]])
    hint = Schedule(np.zeros(4, np.int32), np.array([1, 0, 0, 1], np.int32))
    assert not instance.check(hint).feasible
    assert CpSat().solve(instance, time_limit=20, hint=hint).objective == CpSat().solve(instance).objective


def test_a_hint_of_another_instance_is_refused():
    hint = TabuSearch(iterations=0).solve(library.load("ft06")).solution
    with pytest.raises(InputError, match="hint"):
        CpSat().solve(job_shop([[0]], [[1]]), time_limit=1, hint=hint)


def test_without_time_the_answer_is_unknown_with_a_bound():
    instance = UniformFlexibleJobShop(6, 4)(np.random.default_rng(0))
    result = CpSat().solve(instance, time_limit=0)
    assert result.status == "unknown"
    assert result.solution is None
    assert result.bound == instance.makespan_bound


def test_the_bound_never_exceeds_a_known_makespan():
    instance = library.load("ta01")
    result = CpSat().solve(instance, time_limit=2)
    assert instance.makespan_bound <= result.bound <= 1231 <= result.objective
    bounds = [p.bound for p in result.log if p.bound is not None]
    assert bounds == sorted(bounds)
    assert max(bounds) <= 1231
    objectives = [p.objective for p in result.log if p.objective is not None]
    assert objectives == sorted(objectives, reverse=True)


def test_a_deterministic_limit_gives_the_same_schedule_twice():
    instance = taillard_job_shop(10, 10, 31, 32)
    solver = CpSat(deterministic_limit=0.1)
    first, second = (solver.solve(instance, seed=3) for _ in range(2))
    assert (first.solution.start == second.solution.start).all()
    assert (first.objective, first.bound) == (second.objective, second.bound)


def test_the_limit_may_be_cpu_seconds():
    instance = taillard_job_shop(20, 20, 31, 32)
    before = time.process_time()
    result = CpSat(cpu_time=True).solve(instance, time_limit=2)
    assert 1.5 < time.process_time() - before < 20
    assert result.status == "feasible"
    assert max(p.seconds for p in result.log) <= time.process_time() - before


def test_ctrl_c_returns_the_best_so_far(monkeypatch):
    instance = taillard_job_shop(15, 15, 31, 32)
    sent = []

    class Interrupting(cp_sat._Curve):
        def new_bound(self, bound):
            super().new_bound(bound)
            if not sent:
                sent.append(True)
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(cp_sat, "_Curve", Interrupting)
    hint = TabuSearch(iterations=500).solve(instance).solution
    result = CpSat().solve(instance, time_limit=120, hint=hint)
    assert sent
    assert result.status == "feasible"
    assert result.seconds < 60
    assert instance.check(result.solution).feasible


def test_ctrl_c_during_the_hint_returns_the_hint(monkeypatch):
    instance = taillard_job_shop(15, 15, 31, 32)
    tabu_search.compile_kernel()
    monkeypatch.setattr(tabu_search._Search, "advance", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    result = CpSat().solve(instance, time_limit=60)
    assert result.status == "feasible"
    assert instance.check(result.solution).feasible


@pytest.mark.parametrize("hinted", [True, False])
def test_the_kernel_behind_the_hint_is_compiled_before_the_clock_starts(monkeypatch, hinted):
    events, clock = [], cp_sat._Clock
    monkeypatch.setattr(cp_sat, "compile_kernel", lambda: events.append("compile"))
    monkeypatch.setattr(cp_sat, "_Clock", lambda cpu_time: events.append("clock") or clock(cpu_time))
    result = CpSat(num_workers=1, auto_hint=hinted).solve(library.load("ft06"), time_limit=20)
    assert events == (["compile", "clock"] if hinted else ["clock"])
    assert result.objective == 55


def test_no_kernel_is_compiled_where_no_hint_can_be(monkeypatch):
    monkeypatch.setattr(cp_sat, "compile_kernel", lambda: pytest.fail("compiled"))
    instance = UniformFlexibleJobShop(3, 2)(np.random.default_rng(0))
    assert CpSat(num_workers=1).solve(instance, time_limit=20).status == "optimal"


def test_an_instance_too_large_for_the_tabu_search_has_no_hint(monkeypatch):
    instance = library.load("ft06")
    monkeypatch.setattr(tabu_search, "MAX_TABU_BYTES", 8 * 36 * 6)
    monkeypatch.setattr(TabuSearch, "run", lambda *_, **__: pytest.fail("tabu search ran"))
    assert CpSat().solve(instance, time_limit=60).objective == 55


def test_any_integer_is_a_seed():
    assert CpSat().solve(library.load("ft06"), time_limit=60, seed=-1).objective == 55


def test_capacity_one_is_no_overlap():
    rng = np.random.default_rng(1)
    for _ in range(3):
        machines, durations = rng.permuted(np.tile(np.arange(3), (4, 1)), axis=1), rng.integers(1, 9, (4, 3))
        shop = job_shop(machines, durations)
        model = Model("doubled")
        resources = [model.cumulative(f"R{m}", 2) for m in range(3)]
        for j in range(4):
            ops = [
                model.interval(f"{j}.{k}", [Mode(int(durations[j, k]), {resources[machines[j, k]]: 2})], job=j)
                for k in range(3)
            ]
            for a, b in itertools.pairwise(ops):
                model.precedence(a, b)
        solver = CpSat(num_workers=1)
        assert solver.solve(model.compile()).objective == solver.solve(shop).objective


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_workers": 0},
        {"num_workers": 1.5},
        {"deterministic_limit": 0},
        {"deterministic_limit": "abc"},
        {"auto_hint": "abc"},
        {"cpu_time": 1},
    ],
)
def test_bad_arguments_are_refused(kwargs):
    with pytest.raises(InputError, match=next(iter(kwargs))):
        CpSat(**kwargs)


def test_jobs_without_weight_cost_nothing():
    shop = job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]], weight=[0, 0], objective="weighted_tardiness")
    assert CpSat(num_workers=1).solve(shop).objective == 0


def test_a_negative_time_limit_is_refused():
    with pytest.raises(InputError, match="time_limit"):
        CpSat().solve(library.load("ft06"), time_limit=-1)
