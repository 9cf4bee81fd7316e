"""Tabu search: valid schedules, never worse than the start, exact heads and tails, reproducible, anytime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.envs.job_shop import library
from orl.envs.job_shop.builders import flexible_job_shop, flow_shop, job_shop, open_shop, rcpsp
from orl.envs.job_shop.generators import UniformJobShop, taillard_job_shop
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.model import Mode, Model
from orl.solvers.job_shop import tabu_search
from orl.solvers.job_shop.cp_sat import CpSat
from orl.solvers.job_shop.tabu_search import TabuSearch, is_classical

GOLDEN_LRPT = {"ft06": 60, "ta01": 1484, "ta41": 2583, "ta71": 5801}


@st.composite
def job_shops(draw: st.DrawFn) -> ShopInstance:
    """Ragged, re-entrant job shops with durations of 0 (often several in a row), releases; up to 8 jobs."""
    n_machines = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=8))
    machine, duration = st.integers(0, n_machines - 1), st.sampled_from([0, 0, 1, 1, 2, 3, 5, 9])
    return job_shop(
        [draw(st.lists(machine, min_size=k, max_size=k)) for k in lengths],
        [draw(st.lists(duration, min_size=k, max_size=k)) for k in lengths],
        release=[draw(st.sampled_from([0, 0, 3])) for _ in lengths],
    )


def search_of(instance: ShopInstance, neighbourhood: str, seed: int) -> tabu_search._Search:
    graph = tabu_search._Graph(instance)
    return tabu_search._Search(graph, graph.order_of(None), neighbourhood, seed)


@pytest.mark.parametrize("neighbourhood", ["n5", "n7"])
@settings(max_examples=150, deadline=None)
@given(instance=job_shops(), seed=st.integers(0, 2**32))
def test_every_schedule_is_valid_and_never_worse_than_the_start(neighbourhood, instance, seed):
    start = TabuSearch(neighbourhood, iterations=0).solve(instance)
    result = TabuSearch(neighbourhood, iterations=200).solve(instance, seed=seed)
    check = instance.check(result.solution)
    assert check.feasible, check.violations
    assert check.objective == result.objective <= start.objective
    assert result.bound == instance.makespan_bound <= result.objective
    assert (result.status == "optimal") == (result.objective == result.bound)


@pytest.mark.parametrize("neighbourhood", ["n5", "n7"])
@settings(max_examples=60, deadline=None)
@given(instance=job_shops(), seed=st.integers(0, 2**32))
def test_moves_keep_a_topological_order_with_exact_heads_and_tails(neighbourhood, instance, seed):
    search = search_of(instance, neighbourhood, seed)
    graph = search.graph
    real = np.zeros(len(graph.length), bool)
    real[search.order] = True
    for _ in range(25):
        search.advance(1, 0)
        assert sorted(search.order.tolist()) == np.flatnonzero(real).tolist()
        assert (search.position[search.order] == np.arange(len(search.order))).all()
        for v in search.order.tolist():
            for before in (v - 1, int(search.machine_before[v])):
                assert not real[before] or search.position[before] < search.position[v]
        again = tabu_search._Search(graph, search.order, neighbourhood, 0)
        for name in ("machine_before", "machine_after", "head_end", "tail"):
            assert (getattr(search, name)[real] == getattr(again, name)[real]).all(), name


@settings(max_examples=60, deadline=None)
@given(instance=job_shops(), seed=st.integers(0, 2**32))
def test_a_hint_is_the_start(instance, seed):
    hint = TabuSearch(iterations=30).solve(instance, seed=seed).solution
    late = Schedule(hint.start + np.int32(5), hint.mode)
    again = TabuSearch(iterations=0).solve(instance, hint=late)
    assert again.objective <= instance.check(hint).objective
    assert instance.check(again.solution).feasible


@pytest.mark.parametrize("name", GOLDEN_LRPT)
def test_it_starts_from_the_lrpt_schedule(name):
    assert TabuSearch(iterations=0).solve(library.load(name)).objective == GOLDEN_LRPT[name]


@pytest.mark.parametrize("neighbourhood", ["n5", "n7"])
def test_ft06_is_solved(neighbourhood):
    instance = library.load("ft06")
    result = TabuSearch(neighbourhood, iterations=50_000, target=55).solve(instance)
    assert result.objective == 55
    assert instance.check(result.solution).feasible
    assert result.status == "optimal" if instance.makespan_bound == 55 else "feasible"


def test_la01_is_proved_by_its_bound(named):
    result = TabuSearch(iterations=200_000).solve(named("la01"))
    assert (result.status, result.objective, result.bound) == ("optimal", 666, 666)


@pytest.mark.parametrize("name, optimum", [("ta51", 2760), ("ta71", 5464)])
def test_wide_taillard_instances_reach_their_bound(name, optimum):
    result = TabuSearch(iterations=400_000).solve(library.load(name))
    assert (result.status, result.objective) == ("optimal", optimum)


def test_n7_beats_the_dispatching_rule_by_far():
    instance = taillard_job_shop(15, 15, 123456, 654321)
    start = TabuSearch(iterations=0).solve(instance).objective
    assert TabuSearch(iterations=50_000).solve(instance).objective < 0.95 * start


def test_the_makespan_is_optimal_on_small_shops():
    rng = np.random.default_rng(3)
    for _ in range(12):
        instance = UniformJobShop((3, 6), (3, 5))(rng)
        optimum = CpSat(num_workers=1, auto_hint=False).solve(instance, time_limit=60)
        assert optimum.status == "optimal"
        found = TabuSearch(iterations=50_000, target=int(optimum.objective)).solve(instance)
        assert found.objective == optimum.objective


def test_same_seed_same_result_and_another_seed_another_path():
    instance = taillard_job_shop(10, 10, 777, 888)
    runs = [TabuSearch(iterations=3000).solve(instance, seed=s) for s in (1, 1, 2)]
    assert (runs[0].solution.start == runs[1].solution.start).all()
    assert (runs[0].solution.start != runs[2].solution.start).any()


@pytest.mark.parametrize("seed", [-1, np.int64(-7), 2**70])
def test_any_integer_is_a_seed(seed):
    instance = taillard_job_shop(10, 10, 777, 888)
    runs = [TabuSearch(iterations=500).solve(instance, seed=s) for s in (seed, seed, 0)]
    assert (runs[0].solution.start == runs[1].solution.start).all()
    assert (runs[0].solution.start != runs[2].solution.start).any()


def test_the_curve_falls_and_ends_at_the_result():
    instance = taillard_job_shop(20, 15, 777, 888)
    result = TabuSearch(iterations=20_000).solve(instance)
    objectives = [p.objective for p in result.log]
    seconds = [p.seconds for p in result.log]
    assert objectives == sorted(set(objectives), reverse=True)
    assert seconds == sorted(seconds)
    assert objectives[-1] == result.objective


def test_a_target_stops_the_search():
    instance = taillard_job_shop(15, 15, 123456, 654321)
    start = TabuSearch(iterations=0).solve(instance).objective
    run = TabuSearch(iterations=10**9, target=int(start) - 1).run(instance, time_limit=60)
    assert run.result.objective < start
    assert run.moves < 10**6


@pytest.mark.parametrize("cpu_time", [False, True])
def test_a_time_limit_of_zero_returns_the_start(cpu_time):
    instance = taillard_job_shop(15, 15, 123456, 654321)
    result = TabuSearch(cpu_time=cpu_time).solve(instance, time_limit=0)
    assert result.objective == TabuSearch(iterations=0).solve(instance).objective


def test_an_interrupt_returns_the_best_so_far(monkeypatch):
    instance = taillard_job_shop(15, 15, 123456, 654321)
    advance, calls = tabu_search._Search.advance, []

    def interrupted_advance(self, iterations, target):
        calls.append(iterations)
        if len(calls) == 4:
            raise KeyboardInterrupt
        advance(self, iterations, target)

    tabu_search.compile_kernel()
    start = TabuSearch(iterations=0).solve(instance).objective
    monkeypatch.setattr(tabu_search._Search, "advance", interrupted_advance)
    run = TabuSearch().run(instance, time_limit=60)
    assert run.interrupted
    assert run.moves == sum(calls[:3])
    assert run.result.objective < start
    assert instance.check(run.result.solution).feasible


def test_lags_and_releases_are_kept():
    model = Model("lags")
    machines = [model.unary(f"M{k}") for k in range(3)]
    rng = np.random.default_rng(0)
    for j in range(5):
        previous = None
        for k in rng.permutation(3):
            op = model.interval(f"{j}.{k}", [Mode(int(rng.integers(0, 9)), {machines[k]: 1})], job=j, release=2 * j)
            if previous is not None:
                model.precedence(previous, op, lag=int(rng.integers(0, 4)))
            previous = op
        model.precedence(previous, model.interval(f"{j} cooling", [Mode(6)], job=j, release=2 * j))
    instance = model.compile()
    exact = CpSat(auto_hint=False).solve(instance, time_limit=60)
    result = TabuSearch(iterations=20_000).solve(instance)
    assert instance.check(result.solution).feasible
    assert result.objective == exact.objective
    again = TabuSearch(iterations=0).solve(instance, hint=exact.solution)
    assert again.objective == exact.objective


def test_flow_shops_are_classical():
    instance = flow_shop([[3, 2, 4], [1, 5, 2], [2, 2, 2]])
    assert is_classical(instance)
    assert instance.check(TabuSearch(iterations=500).solve(instance).solution).feasible


def dated(**kwargs) -> ShopInstance:
    model = Model("dated")
    saw = model.unary("saw")
    first = model.interval("first", [Mode(2, {saw: 1})], job=0)
    second = model.interval("second", [Mode(2, {saw: 1})], job=0, **kwargs)
    model.precedence(first, second)
    return model.compile()


@pytest.mark.parametrize(
    "instance, field",
    [
        (flexible_job_shop([[[(0, 5), (1, 3)], [(1, 2)]]]), "modes"),
        (open_shop([[0, 1], [1, 0]], [[3, 4], [2, 1]]), "uses"),
        (rcpsp([3, 2], [[2], [1]], [2], []), "capacity"),
        (rcpsp([3, 2, 1], [[1], [1], [1]], [1], [(0, 1), (0, 2)]), "precedence"),
        (job_shop([[0], [0]], [[1], [2]], objective="total_flow"), "objective"),
        (dated(deadline=9), "deadline"),
        (dated(release=7), "release"),
    ],
)
def test_other_problems_are_refused_with_the_reason(instance, field):
    assert not is_classical(instance)
    with pytest.raises(InputError, match=f"{field}: tabu search covers classical job shops only"):
        TabuSearch().solve(instance, time_limit=1)


def test_instances_whose_tabu_list_fills_the_memory_are_refused():
    instance = job_shop([[0]] * 30_000, [[1]] * 30_000)
    assert not is_classical(instance)
    expected = r"operations on the busiest machine: .*30000 x 30000, a tabu list of 13.4 GiB.*expected at most 1 GiB"
    with pytest.raises(InputError, match=expected):
        TabuSearch().solve(instance, time_limit=1)


@settings(max_examples=60, deadline=None)
@given(instance=job_shops())
def test_the_memory_is_known_before_it_is_taken(instance):
    n_bytes = search_of(instance, "n7", 0).forbidden.nbytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabu_search, "MAX_TABU_BYTES", n_bytes)
        assert is_classical(instance)
        patch.setattr(tabu_search, "MAX_TABU_BYTES", n_bytes - 1)
        assert not is_classical(instance)


def test_bad_arguments_are_refused():
    instance = library.load("ft06")
    with pytest.raises(InputError, match="neighbourhood"):
        TabuSearch("n6")
    for iterations in (-1, "abc", 1.5):
        with pytest.raises(InputError, match="TabuSearch, iterations: bad value.*expected an integer >= 0 or None"):
            TabuSearch(iterations=iterations)
    for target in ("abc", 55.0):
        with pytest.raises(InputError, match="TabuSearch, target: bad value.*expected an integer or None"):
            TabuSearch(target=target)
    with pytest.raises(InputError, match="TabuSearch, cpu_time: bad value.*expected True or False"):
        TabuSearch(cpu_time="abc")
    with pytest.raises(InputError, match="time_limit"):
        TabuSearch().solve(instance, time_limit=-1)
    with pytest.raises(InputError, match="hint"):
        TabuSearch().solve(instance, hint=Schedule(np.zeros(36, np.int32), np.zeros(36, np.int32)))


def test_the_result_travels_as_json(tmp_path: Path):
    result = TabuSearch(iterations=100).solve(library.load("ft06"))
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(result.solution.to_json()))
    again = Schedule.from_json(json.loads(path.read_text()))
    assert (again.start == result.solution.start).all()
