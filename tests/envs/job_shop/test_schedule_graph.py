"""Left shift and critical path on random instances of every family, checked by the instance itself."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.job_shop.instance import Schedule, ShopInstance
from orl.envs.job_shop.model import Mode, Model
from orl.envs.job_shop.schedule_graph import critical_operations, critical_path, left_shift

FAMILIES = ("job_shop", "open_shop", "flexible", "project")


def random_instance(family: str, rng: np.random.Generator) -> ShopInstance:
    """A small instance; zero durations, releases, lags and several resources a mode occur."""
    model = Model(family)
    if family == "project":
        capacity = [1, 2, 5]
        resources = [model.cumulative(f"r{k}", c) for k, c in enumerate(capacity)]
        for o in range(int(rng.integers(4, 25))):
            modes = []
            for _ in range(int(rng.integers(1, 3))):
                used = rng.choice(3, size=int(rng.integers(0, 4)), replace=False)
                uses = {resources[r]: int(rng.integers(1, capacity[r] + 1)) for r in used}
                modes.append(Mode(int(rng.integers(0, 7)), uses))
            model.interval(f"a{o}", modes, release=int(rng.integers(0, 5)) * int(rng.integers(0, 2)))
            for p in rng.choice(o, size=min(o, int(rng.integers(0, 3))), replace=False) if o else ():
                model.precedence(int(p), o, int(rng.integers(0, 3)))
        return model.compile()
    machines = [model.unary(f"m{k}") for k in range(int(rng.integers(2, 5)))]
    for job in range(int(rng.integers(2, 7))):
        previous = None
        for k, m in enumerate(rng.permutation(len(machines))):
            n_modes = int(rng.integers(1, 3)) if family == "flexible" else 1
            choice = [machines[m], *(int(r) for r in rng.permutation(machines) if r != machines[m])][:n_modes]
            modes = [Mode(int(rng.integers(0, 9)), {r: 1}) for r in choice]
            o = model.interval(f"{job}.{k}", modes, job=job, release=int(rng.integers(0, 4)) if k == 0 else 0)
            if previous is not None and family != "open_shop":
                model.precedence(previous, o)
            previous = o
        if family == "open_shop":
            model.exclusive_group(job)
    return model.compile()


def loose_schedule(instance: ShopInstance, rng: np.random.Generator) -> Schedule:
    """A feasible schedule with idle time: operations in a random topological order, each at a time that fits, or later.

    Feasibility comes from ``instance.check`` alone: an operation is tried at every time until the checker accepts.
    """
    left = np.diff(instance.pred_ptr).astype(int)
    mode = np.array([rng.integers(0, n) for n in np.diff(instance.mode_ptr)], np.int32)
    duration = instance.mode_duration[instance.mode_ptr[:-1] + mode]
    far = 10 * instance.horizon + 10 * instance.n_ops
    step = int(instance.max_duration.max()) + int(instance.pred_lag.max(initial=0)) + 1
    start = np.zeros(instance.n_ops, np.int64)
    start[instance.topological_order] = far + step * np.arange(instance.n_ops)  # not placed yet: far away and apart
    ready = [int(o) for o in np.flatnonzero(left == 0)]
    while ready:
        o = ready.pop(int(rng.integers(len(ready))))
        t = int(instance.release[o])
        for e in range(instance.pred_ptr[o], instance.pred_ptr[o + 1]):
            p = instance.pred_op[e]
            t = max(t, int(start[p] + duration[p] + instance.pred_lag[e]))
        t += int(rng.integers(0, 6)) * int(rng.integers(0, 2))
        start[o] = t
        while not instance.check(Schedule(start.astype(np.int32), mode)).feasible:
            start[o] += 1
        for e in range(instance.succ_ptr[o], instance.succ_ptr[o + 1]):
            s = int(instance.succ_op[e])
            left[s] -= 1
            if left[s] == 0:
                ready.append(s)
    return Schedule(start.astype(np.int32), mode)


def ends(instance: ShopInstance, schedule: Schedule) -> np.ndarray:
    return schedule.start + instance.mode_duration[instance.mode_ptr[:-1] + schedule.mode]


def shared(instance: ShopInstance, schedule: Schedule, a: int, b: int) -> bool:
    """Whether two operations use a common resource in their chosen modes."""
    used = []
    for o in (a, b):
        q = instance.mode_ptr[o] + schedule.mode[o]
        used.append(set(instance.use_resource[instance.use_ptr[q] : instance.use_ptr[q + 1]].tolist()))
    return bool(used[0] & used[1])


cases = pytest.mark.parametrize("family", FAMILIES)
seeds = pytest.mark.parametrize("seed", range(12))


@cases
@seeds
def test_left_shift_is_feasible_never_later_and_idempotent(family: str, seed: int) -> None:
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    instance = random_instance(family, rng)
    loose = loose_schedule(instance, rng)
    before = instance.check(loose)
    assert before.feasible
    shifted = left_shift(instance, loose)
    after = instance.check(shifted)
    assert after.feasible, after.violations
    assert after.objective is not None
    assert before.objective is not None
    assert after.objective <= before.objective
    assert (shifted.start <= loose.start).all()
    assert shifted.start.dtype == np.int32
    assert np.array_equal(left_shift(instance, shifted).start, shifted.start)


@cases
@seeds
def test_no_single_operation_of_a_shifted_schedule_can_start_one_unit_earlier(family: str, seed: int) -> None:
    rng = np.random.default_rng([seed, FAMILIES.index(family), 1])
    instance = random_instance(family, rng)
    shifted = left_shift(instance, loose_schedule(instance, rng))
    duration = ends(instance, shifted) - shifted.start
    for o in range(instance.n_ops):
        if shifted.start[o] == 0 or duration[o] == 0:
            continue  # an operation of zero duration could jump over one of length 1, which is no slide
        earlier = shifted.start.copy()
        earlier[o] -= 1
        passes = (duration == 0) & (shifted.start == shifted.start[o])
        if not passes.any():
            assert not instance.check(Schedule(earlier, shifted.mode)).feasible, instance.op_names[o]


@pytest.mark.parametrize("family", ("job_shop", "open_shop", "flexible"))
@seeds
def test_left_shift_keeps_the_order_on_machines(family: str, seed: int) -> None:
    rng = np.random.default_rng([seed, FAMILIES.index(family), 2])
    instance = random_instance(family, rng)
    loose = loose_schedule(instance, rng)
    shifted = left_shift(instance, loose)
    duration = ends(instance, loose) - loose.start
    for a in range(instance.n_ops):
        for b in range(instance.n_ops):
            if duration[a] > 0 and loose.start[a] < loose.start[b] and shared(instance, loose, a, b):
                assert ends(instance, shifted)[a] <= shifted.start[b]


@cases
@seeds
def test_critical_path_is_a_tight_chain_as_long_as_the_makespan(family: str, seed: int) -> None:
    rng = np.random.default_rng([seed, FAMILIES.index(family), 3])
    instance = random_instance(family, rng)
    shifted = left_shift(instance, loose_schedule(instance, rng))
    path, end = critical_path(instance, shifted), ends(instance, shifted)
    lags = 0
    for a, b in pairwise(path):
        arcs = range(instance.pred_ptr[b], instance.pred_ptr[b + 1])
        lag = [int(instance.pred_lag[e]) for e in arcs if instance.pred_op[e] == a]
        if lag and end[a] + max(lag) == shifted.start[b]:
            lags += max(lag)
        else:
            assert end[a] == shifted.start[b]
            assert shared(instance, shifted, a, b)
    first = path[0]
    assert shifted.start[first] == instance.release[first]
    duration = end - shifted.start
    assert int(shifted.start[first]) + int(duration[path].sum()) + lags == int(end.max())
    critical = critical_operations(instance, shifted)
    assert critical[path].all()
    assert critical[end == end.max()].all()


def test_critical_operations_agree_with_head_plus_tail_on_job_shops() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        instance = random_instance("job_shop", rng)
        shifted = left_shift(instance, loose_schedule(instance, rng))
        duration = ends(instance, shifted) - shifted.start
        if (duration == 0).any():
            continue
        tail = np.zeros(instance.n_ops, np.int64)
        for a in np.argsort(-shifted.start, kind="stable"):
            for b in range(instance.n_ops):
                follows = b in instance.succ_op[instance.succ_ptr[a] : instance.succ_ptr[a + 1]]
                if follows or (shifted.start[b] > shifted.start[a] and shared(instance, shifted, int(a), b)):
                    tail[a] = max(tail[a], duration[b] + tail[b])
        makespan = int((shifted.start + duration).max())
        expected = shifted.start + duration + tail == makespan
        assert np.array_equal(critical_operations(instance, shifted), expected)


def test_an_operation_slides_along_free_units_of_a_cumulative_resource() -> None:
    model = Model()
    crew = model.cumulative("crew", 3)
    for name, duration, demand in (("a", 4, 2), ("b", 2, 2), ("c", 5, 1)):
        model.interval(name, [Mode(duration, {crew: demand})])
    instance = model.compile()
    shifted = left_shift(instance, Schedule(np.array([0, 5, 6], np.int32), np.zeros(3, np.int32)))
    assert shifted.start.tolist() == [0, 4, 0]
    assert critical_path(instance, shifted) == [0, 1]
    assert critical_operations(instance, shifted).tolist() == [True, True, False]


def test_partial_schedules_leave_missing_operations_out() -> None:
    model = Model()
    saw = model.unary("saw")
    for name in "abc":
        model.interval(name, [Mode(2, {saw: 1})])
    instance = model.compile()
    partial = Schedule(np.array([7, -1, 1], np.int32), np.zeros(3, np.int32))
    assert left_shift(instance, partial).start.tolist() == [2, -1, 0]
    assert critical_path(instance, left_shift(instance, partial)) == [2, 0]
    empty = Schedule(np.full(3, -1, np.int32), np.zeros(3, np.int32))
    assert critical_path(instance, empty) == []
    assert not critical_operations(instance, empty).any()


def test_overlapping_operations_and_wrong_shapes_are_rejected_by_name() -> None:
    model = Model("shed")
    saw = model.unary("saw")
    for name in "ab":
        model.interval(name, [Mode(5, {saw: 1})])
    instance = model.compile()
    with pytest.raises(InputError, match="shed, start of 'b': an infeasible schedule .*got 2, expected at least 5"):
        left_shift(instance, Schedule(np.array([0, 2], np.int32), np.zeros(2, np.int32)))
    with pytest.raises(InputError, match="start: wrong shape"):
        critical_path(instance, Schedule(np.array([0], np.int32), np.zeros(2, np.int32)))
    with pytest.raises(InputError, match="mode of 'b': no such mode"):
        critical_path(instance, Schedule(np.array([0, 5], np.int32), np.array([0, 1], np.int32)))
