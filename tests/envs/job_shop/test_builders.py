"""The direct array path of the builders gives what the declarative model compiles to."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.envs.job_shop.builders import (
    flexible_job_shop,
    flexible_job_shop_arrays,
    flow_shop,
    job_shop,
    open_shop,
    rcpsp,
)
from orl.envs.job_shop.instance import ShopInstance
from orl.envs.job_shop.model import Mode, Model

N_MACHINES = 4
MODE = st.tuples(st.integers(0, N_MACHINES - 1), st.integers(0, 9))
FIXED_JOBS = st.lists(st.lists(st.lists(MODE, min_size=1, max_size=1), min_size=1, max_size=5), min_size=1, max_size=5)
FLEXIBLE_JOBS = st.lists(
    st.lists(st.lists(MODE, min_size=1, max_size=3), min_size=1, max_size=4), min_size=1, max_size=4
)


def compiled(kind: str, jobs: list[list[list[tuple[int, int]]]], name: str, **options: list[int] | str) -> ShopInstance:
    """The same shop through the declarative model."""
    model = Model(name, kind)
    machines = [model.unary(f"M{m}") for m in range(N_MACHINES)]
    release = options.get("release", [0] * len(jobs))
    for j, job in enumerate(jobs):
        previous = None
        for k, modes in enumerate(job):
            choices = [Mode(duration, {machines[machine]: 1}) for machine, duration in modes]
            operation = model.interval(f"J{j}.{k}", choices, job=j, release=release[j])
            if previous is not None and kind != "open_shop":
                model.precedence(previous, operation)
            previous = operation
        if kind == "open_shop":
            model.exclusive_group(j)
    due, weight = (dict(enumerate(options[key])) if key in options else None for key in ("due", "weight"))
    model.objective(options.get("objective", "makespan"), due=due, weight=weight)
    return model.compile()


def assert_same(a: ShopInstance, b: ShopInstance) -> None:
    for entry in fields(ShopInstance):
        left, right = getattr(a, entry.name), getattr(b, entry.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype == np.int32, entry.name
            assert left.flags.c_contiguous, entry.name
            np.testing.assert_array_equal(left, right, err_msg=entry.name)
        else:
            assert left == right, entry.name


@given(FIXED_JOBS)
def test_ragged_reentrant_job_shop_equals_the_compiled_model(jobs):
    machines = [[modes[0][0] for modes in job] for job in jobs]
    durations = [[modes[0][1] for modes in job] for job in jobs]
    assert_same(job_shop(machines, durations, name="x", n_machines=N_MACHINES), compiled("job_shop", jobs, "x"))


@given(FIXED_JOBS)
def test_open_shop_equals_the_compiled_model(jobs):
    machines = [[modes[0][0] for modes in job] for job in jobs]
    durations = [[modes[0][1] for modes in job] for job in jobs]
    assert_same(open_shop(machines, durations, name="x", n_machines=N_MACHINES), compiled("open_shop", jobs, "x"))


@given(FLEXIBLE_JOBS)
def test_flexible_job_shop_equals_the_compiled_model(jobs):
    built = flexible_job_shop(jobs, name="x", n_machines=N_MACHINES)
    assert_same(built, compiled("flexible_job_shop", jobs, "x"))


@given(st.lists(st.lists(st.integers(0, 9), min_size=N_MACHINES, max_size=N_MACHINES), min_size=1, max_size=5))
def test_flow_shop_equals_the_compiled_model(durations):
    jobs = [[[(m, d)] for m, d in enumerate(row)] for row in durations]
    assert_same(flow_shop(durations, name="x"), compiled("flow_shop", jobs, "x"))


@pytest.mark.parametrize("kind", ["job_shop", "open_shop"])
@pytest.mark.parametrize("objective", ["total_flow", "weighted_tardiness"])
def test_job_attributes_reach_the_arrays(kind, objective):
    options = {"release": [3, 0], "due": [10, -2], "weight": [2, 5], "objective": objective}
    machines, durations = [[0, 3], [1]], [[4, 5], [6]]
    jobs = [[[(m, d)] for m, d in zip(*row, strict=True)] for row in zip(machines, durations, strict=True)]
    build = job_shop if kind == "job_shop" else open_shop
    assert_same(build(machines, durations, name="x", **options), compiled(kind, jobs, "x", **options))


def test_total_flow_counts_from_the_release_of_the_job():
    instance = job_shop([[0, 1]], [[4, 5]], release=[3], objective="total_flow")
    assert instance.objective_value(np.array([7, 12])) == 9


def test_arrays_and_nested_lists_build_the_same_flexible_shop():
    jobs = [[[(0, 5), (1, 3)], [(1, 2)]], [[(2, 1)]]]
    flat = flexible_job_shop_arrays([2, 1], [2, 1, 1], np.array([0, 1, 1, 2]), [5, 3, 2, 1])
    assert_same(flexible_job_shop(jobs), flat)


def test_builders_accept_arrays_of_any_integer_type():
    machines, durations = np.array([[0, 1], [1, 0]], np.uint8), np.array([[3, 2], [4, 1]], np.int64)
    assert_same(job_shop(machines, durations), job_shop(machines.tolist(), durations.tolist()))


def test_rcpsp_is_a_general_project():
    instance = rcpsp([3, 2, 2], [[2, 0], [1, 1], [1, 0]], [2, 1], [(0, 1)], name="p")
    assert (instance.n_lines, instance.n_jobs, instance.capacity.tolist()) == (3, 3, [2, 1])
    assert instance.makespan_bound == 5


@pytest.mark.parametrize(
    "build, field, value",
    [
        (lambda: job_shop([], []), "jobs", None),
        (lambda: job_shop([[]], [[]]), "job 0", None),
        (lambda: job_shop([[0], [1]], [[1]]), "durations", 1),
        (lambda: job_shop([[0], [1, 0]], [[1], [2]]), "job 1", 1),
        (lambda: job_shop([[0], [1]], [[1], [-2]]), "job 1, operation 0, duration", -2),
        (lambda: job_shop([[0], [1]], [[1], [2.5]]), "job 1, operation 0, duration", 2.5),
        (lambda: job_shop([[0], [1]], [[1], ["7"]]), "job 1, operation 0, duration", "7"),
        (lambda: job_shop([[0], [[1]]], [[1], [2]]), "job 1, operation 0, machine", [1]),
        (lambda: job_shop([[0, 1]], [[1, 2**31]]), "job 0, operation 1, duration", 2**31),
        (lambda: job_shop([[0, 1]], [[1, 10**30]]), "job 0, operation 1, duration", 10**30),
        (lambda: job_shop([[0, 2]], [[1, 1]], n_machines=2), "job 0, operation 1, machine", 2),
        (lambda: job_shop([[0, -1]], [[1, 1]]), "job 0, operation 1, machine", -1),
        (lambda: job_shop([[0, 1]], [[2**29, 2**29]]), "durations", 2**30),
        (lambda: job_shop([[10**6]], [[1]]), "machines", 10**6 + 1),
        (lambda: job_shop([[0]], [[1]], release=[-1]), "release of job 0", -1),
        (lambda: job_shop([[0]], [[1]], weight=[-1]), "weight of job 0", -1),
        (lambda: job_shop([[0]], [[1]], due=[1, 2]), "due", "int64[2]"),
        (lambda: job_shop([[0]], [[1]], objective="fun"), "objective", "fun"),
        (lambda: flexible_job_shop([[[(0, 1)], []]]), "job 0, operation 1", None),
        (lambda: flexible_job_shop([[[(0, 1)], [(0, 1), (0,)]]]), "job 0, operation 1", (0,)),
        (lambda: flexible_job_shop([[[(0, 1)]], [[(0, 1), (1, -4)]]]), "job 1, operation 0, duration", -4),
        (lambda: flexible_job_shop_arrays([1], [2], [0], [1]), "mode_counts", (1, 1, 1)),
        (lambda: rcpsp([1], [[3]], [2], []), "interval 'A0'", 3),
        (lambda: rcpsp([1], [[1, 1]], [2], []), "demands of A0", 2),
        (lambda: rcpsp([1, 1], [[1]], [2], []), "demands", 1),
    ],
)
def test_bad_matrices_are_named(build, field, value):
    with pytest.raises(InputError) as caught:
        build()
    assert caught.value.field == field
    assert caught.value.value == value
    assert caught.value.source
