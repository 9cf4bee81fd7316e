"""The checker of ShopInstance against a unit-time simulation, and against each single violation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orl.envs.job_shop.builders import flexible_job_shop, job_shop, open_shop, rcpsp
from orl.envs.job_shop.generators import UniformFlexibleJobShop, UniformJobShop, UniformOpenShop, UniformProject
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.model import Mode, Model

GENERATORS = (
    UniformJobShop((1, 3), (1, 3), low=0, high=4),
    UniformOpenShop((1, 3), (1, 3), low=0, high=4),
    UniformFlexibleJobShop((1, 3), (1, 3), n_operations=(1, 3), low=0, high=4),
    UniformProject((1, 6), (1, 3), n_modes=(1, 2), max_lag=2, low=0, high=4),
)


def schedule(start, mode=None) -> Schedule:
    return Schedule(np.array(start, np.int32), np.array(mode or [0] * len(start), np.int32))


def feasible_by_simulation(instance: ShopInstance, answer: Schedule) -> bool:
    """The definition of the problem, one operation and one unit of time after the other."""
    start, mode = answer.start.tolist(), answer.mode.tolist()
    end, uses = [], []
    for o in range(instance.n_ops):
        q = int(instance.mode_ptr[o]) + mode[o]
        if mode[o] < 0 or q >= instance.mode_ptr[o + 1]:
            return False
        span = range(instance.use_ptr[q], instance.use_ptr[q + 1])
        uses.append({int(instance.use_resource[u]): int(instance.use_demand[u]) for u in span})
        end.append(start[o] + int(instance.mode_duration[q]))
        if start[o] < instance.release[o] or end[o] > instance.deadline[o]:
            return False
    for o in range(instance.n_ops):
        for e in range(instance.pred_ptr[o], instance.pred_ptr[o + 1]):
            if end[instance.pred_op[e]] + instance.pred_lag[e] > start[o]:
                return False
    for r in range(instance.n_resources):
        users = [o for o in range(instance.n_ops) if r in uses[o]]
        for t in range(max(end)):
            if sum(uses[o][r] for o in users if start[o] <= t < end[o]) > instance.capacity[r]:
                return False
        for point in users:  # a zero duration does not fit strictly inside what fills the resource
            if start[point] == end[point]:
                around = sum(uses[o][r] for o in users if start[o] < start[point] < end[o])
                if around + uses[point][r] > instance.capacity[r]:
                    return False
    return True


def serial(instance: ShopInstance, rng: np.random.Generator) -> Schedule:
    """A feasible schedule: operations in topological order, each after the last that shares a resource with it."""
    start, mode = np.zeros(instance.n_ops, np.int32), np.zeros(instance.n_ops, np.int32)
    free = np.zeros(instance.n_resources, np.int64)
    end = np.zeros(instance.n_ops, np.int64)
    for o in instance.topological_order:
        q = rng.integers(instance.mode_ptr[o], instance.mode_ptr[o + 1])
        used = instance.use_resource[instance.use_ptr[q] : instance.use_ptr[q + 1]]
        arcs = slice(instance.pred_ptr[o], instance.pred_ptr[o + 1])
        ready = (end[instance.pred_op[arcs]] + instance.pred_lag[arcs]).max(initial=instance.release[o])
        start[o], mode[o] = max(ready, free[used].max(initial=0)), q - instance.mode_ptr[o]
        end[o] = start[o] + instance.mode_duration[q]
        free[used] = end[o]
    return Schedule(start, mode)


@given(st.integers(0, len(GENERATORS) - 1), st.integers(0, 2**32), st.integers(0, 3))
def test_check_agrees_with_simulation_on_perturbed_schedules(which, seed, n_changes):
    rng = np.random.default_rng(seed)
    instance = GENERATORS[which](rng)
    answer = serial(instance, rng)
    assert instance.check(answer).feasible
    for _ in range(n_changes):
        o = rng.integers(instance.n_ops)
        answer.start[o] = max(0, answer.start[o] + rng.integers(-4, 5))
        answer.mode[o] = rng.integers(0, instance.max_modes)
    verdict = instance.check(answer)
    assert verdict.feasible == feasible_by_simulation(instance, answer)
    assert verdict.feasible == (not verdict.violations)
    if verdict.feasible:
        chosen = instance.mode_ptr[:-1] + answer.mode
        assert verdict.objective == (answer.start + instance.mode_duration[chosen]).max()
        assert verdict.objective >= instance.lower_bound()


SHOP = job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]], name="tiny")


def test_the_hand_case_is_feasible_at_its_bound():
    verdict = SHOP.check(schedule([0, 4, 0, 4]))
    assert (verdict.feasible, verdict.objective, verdict.violations) == (True, 6.0, ())
    assert SHOP.makespan_bound == 6


@pytest.mark.parametrize(
    "instance, answer, sentence",
    [
        (SHOP, schedule([0, 4, 0]), "start: expected 4 integers, got int32[3]"),
        (SHOP, Schedule(np.zeros(4), np.zeros(4, np.int32)), "start: expected 4 integers, got float64[4]"),
        (
            SHOP,
            Schedule(np.zeros(4, np.int32), np.zeros((4, 1), np.int32)),
            "mode: expected 4 integers, got int32[4, 1]",
        ),
        (SHOP, schedule([0, 4, 0, 4], [0, 0, 1, 0]), "J1.0: no mode 1"),
        (SHOP, schedule([0, 4, 0, 4], [0, 0, -1, 0]), "J1.0: no mode -1"),
        (SHOP, schedule([-1, 4, 0, 4]), "J0.0 starts at -1, not a time"),
        (SHOP, Schedule(np.full(4, 2**63 - 1), np.zeros(4, int)), f"J0.0 starts at {2**63 - 1}, not a time"),
        (SHOP, schedule([0, 2, 4, 8]), "J0.1 starts at 2, before J0.0 ends plus lag 0"),
        (SHOP, schedule([0, 3, 0, 4]), "M1 carries 2 > 1 at time 3: J0.1, J1.0"),
        (job_shop([[0]], [[3]], release=[2]), schedule([1]), "J0.0 starts at 1, before its release 2"),
        (open_shop([[0, 1]], [[3, 4]]), schedule([0, 2]), "job 0 carries 2 > 1 at time 2: J0.0, J0.1"),
        (flexible_job_shop([[[(0, 3), (1, 1)]], [[(1, 2)]]]), schedule([0, 0], [1, 0]), "M1 carries 2 > 1 at time 0"),
        (rcpsp([4, 4, 4], [[2], [2], [1]], [4], []), schedule([0, 1, 2]), "R0 carries 5 > 4 at time 2: A0, A1, A2"),
        (job_shop([[0], [0]], [[4], [0]]), schedule([0, 2]), "M0 carries 2 > 1 at time 2: J0.0, J1.0"),
    ],
)
def test_each_violation_is_told(instance, answer, sentence):
    verdict = instance.check(answer)
    assert not verdict.feasible
    assert any(violation.startswith(sentence) for violation in verdict.violations), verdict.violations


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int64])
def test_any_integer_type_is_checked(dtype):
    assert SHOP.check(Schedule(np.array([0, 4, 0, 4], dtype), np.zeros(4, dtype))).feasible


def test_deadlines_and_lags_are_checked():
    model = Model()
    a, b = model.interval("a", [Mode(2)]), model.interval("b", [Mode(2)], deadline=6)
    model.precedence(a, b, lag=2)
    instance = model.compile()
    assert instance.check(schedule([0, 4])).feasible
    assert instance.check(schedule([0, 3])).violations == ("b starts at 3, before a ends plus lag 2",)
    assert instance.check(schedule([0, 5])).violations == ("b ends at 7, after its deadline 6",)


def test_zero_durations_may_sit_at_the_ends_of_an_operation():
    instance = job_shop([[0], [0], [0]], [[4], [0], [0]])
    assert instance.check(schedule([0, 0, 4])).feasible
    assert instance.check(schedule([0, 4, 4])).feasible


def test_objectives_are_recomputed():
    machines, durations, answer = [[0], [0]], [[3], [4]], schedule([0, 3])
    options = {"due": [1, 5], "weight": [2, 3]}
    assert job_shop(machines, durations, objective="total_flow").check(answer).objective == 10
    weighted = job_shop(machines, durations, objective="weighted_tardiness", **options)
    assert weighted.check(answer).objective == 2 * 2 + 3 * 2
    assert weighted.lower_bound() == 2 * 2


def test_a_large_schedule_is_checked_without_a_quadratic_table():
    n = 20_000
    instance = job_shop([[0]] * n, [[2]] * n)
    assert instance.check(Schedule(np.arange(0, 2 * n, 2, dtype=np.int32), np.zeros(n, np.int32))).feasible
    assert not instance.check(Schedule(np.arange(n, dtype=np.int32), np.zeros(n, np.int32))).feasible
