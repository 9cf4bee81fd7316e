"""What compile accepts and rejects, and derived quantities against plain loops over the definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.envs.job_shop.generators import UniformFlexibleJobShop, UniformJobShop, UniformOpenShop, UniformProject
from orl.envs.job_shop.instance import ShopInstance
from orl.envs.job_shop.model import Mode, Model

GENERATORS = (
    UniformJobShop((1, 4), (1, 4), low=0, high=9),
    UniformOpenShop((1, 4), (1, 4), low=0, high=9),
    UniformFlexibleJobShop((1, 4), (1, 4), n_operations=(1, 4), low=0, high=9),
    UniformProject((1, 9), (1, 3), n_modes=(1, 3), max_lag=3, low=0, high=9),
)
INSTANCES = st.builds(
    lambda which, seed: GENERATORS[which](np.random.default_rng(seed)),
    st.integers(0, len(GENERATORS) - 1),
    st.integers(0, 2**32),
)


def test_cycles_are_rejected():
    model = Model("m")
    a, b, c = (model.interval(name, [Mode(1)]) for name in "abc")
    for before, after in ((a, b), (b, c), (c, b)):
        model.precedence(before, after)
    with pytest.raises(InputError, match=r"model 'm', precedence: precedence cycle \(got \['b', 'c'\]"):
        model.compile()


def test_an_operation_before_itself_is_a_cycle():
    model = Model()
    a = model.interval("a", [Mode(1)])
    model.precedence(a, a)
    with pytest.raises(InputError, match="precedence cycle"):
        model.compile()


def with_mode(mode, **interval):
    model = Model("m")
    model.cumulative("crew", 3)
    model.interval("a", [mode] if mode else [], **interval)
    return model


@pytest.mark.parametrize(
    "model, problem",
    [
        (with_mode(Mode(-1)), "bad duration"),
        (with_mode(Mode(1.5)), "bad duration"),
        (with_mode(Mode(True)), "bad duration"),
        (with_mode(Mode(2**30)), "bad duration"),
        (with_mode(Mode(1, {0: 4})), "demand above capacity"),
        (with_mode(Mode(1, {0: -1})), "bad demand"),
        (with_mode(Mode(1, {0: 1.5})), "bad demand"),
        (with_mode(Mode(1, {1: 1})), "unknown resource"),
        (with_mode(None), "an interval without a mode"),
        (with_mode(Mode(1), release=-1), "bad release"),
        (with_mode(Mode(1), deadline=-1), "bad deadline"),
        (Model("m"), "the model has no intervals"),
    ],
)
def test_impossible_intervals_are_rejected(model, problem):
    with pytest.raises(InputError, match=f"model 'm'.*{problem}"):
        model.compile()


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda m: m.precedence(0, 7), "unknown interval"),
        (lambda m: m.precedence(0, 1, lag=-1), "bad lag"),
        (lambda m: m.exclusive_group(9), "exclusive group without intervals"),
        (lambda m: m.objective("total_flow", due={9: 1}), "job without intervals"),
        (lambda m: m.precedence(0, 1, lag=2**30 - 1), "the horizon is too long"),
    ],
)
def test_bad_structure_is_rejected(change, problem):
    model = Model("m")
    for name in "ab":
        model.interval(name, [Mode(1)], job=0)
    change(model)
    with pytest.raises(InputError, match=problem):
        model.compile()


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "2", 2**30])
def test_bad_capacities_are_rejected_at_once(capacity):
    with pytest.raises(InputError, match="bad capacity"):
        Model().cumulative("crew", capacity)


@pytest.mark.parametrize(
    "arguments", [{"due": {0: 1.5}}, {"weight": {0: -1}}, {"due": {0: 2**31}}, {"weight": {0: "1"}}]
)
def test_bad_due_dates_and_weights_are_rejected(arguments):
    with pytest.raises(InputError, match="job 0"):
        Model().objective("weighted_tardiness", **arguments)


def test_due_dates_and_weights_follow_job_labels_not_positions():
    model = Model()
    model.interval("free", [Mode(1)])
    for label in (7, -1, 7):
        model.interval(f"of {label}", [Mode(1)], job=label)
    model.objective("weighted_tardiness", due={-1: 5, 7: 6}, weight={7: 3})
    instance = model.compile()
    assert instance.job.tolist() == [0, 1, 2, 1]
    assert instance.due.tolist() == [0, 6, 5]
    assert instance.weight.tolist() == [1, 3, 1]


def test_the_order_of_precedence_calls_does_not_matter():
    arcs = [(0, 1), (1, 3), (0, 2), (2, 3), (0, 3)]
    compiled = []
    for order in (arcs, arcs[::-1]):
        model = Model()
        for name in "abcd":
            model.interval(name, [Mode(2)], job=0)
        for arc in order:
            model.precedence(*arc)
        compiled.append(model.compile().to_json())
    assert compiled[0] == compiled[1]


def test_a_chain_given_out_of_order_is_one_line():
    model = Model()
    c, a, b = (model.interval(name, [Mode(1)], job=0) for name in "cab")
    model.precedence(b, c)
    model.precedence(a, b)
    instance = model.compile()
    assert instance.n_lines == 1
    assert instance.line_op.tolist() == [a, b, c]


def test_a_job_that_is_no_chain_is_cut_into_single_operations():
    model = Model()
    for name in "abc":
        model.interval(name, [Mode(1)], job=0)
    model.precedence(0, 1)
    model.precedence(0, 2)
    assert model.compile().line_ptr.tolist() == [0, 1, 2, 3]


# ---- derived quantities --------------------------------------------------------------------------------------------
def modes_of(instance: ShopInstance, o: int) -> list[tuple[int, dict[int, int]]]:
    """Duration and uses of the modes of an operation, from the definition of the arrays."""
    out = []
    for q in range(instance.mode_ptr[o], instance.mode_ptr[o + 1]):
        uses = range(instance.use_ptr[q], instance.use_ptr[q + 1])
        out.append(
            (int(instance.mode_duration[q]), {int(instance.use_resource[u]): int(instance.use_demand[u]) for u in uses})
        )
    return out


def longest_from(instance: ShopInstance, o: int) -> int:
    """Longest path from the end of ``o``, by recursion."""
    arcs = range(instance.succ_ptr[o], instance.succ_ptr[o + 1])
    return max(
        (
            int(instance.succ_lag[e])
            + min(duration for duration, _ in modes_of(instance, int(instance.succ_op[e])))
            + longest_from(instance, int(instance.succ_op[e]))
            for e in arcs
        ),
        default=0,
    )


def head_of(instance: ShopInstance, o: int) -> int:
    """Earliest start of ``o``, by recursion."""
    arcs = range(instance.pred_ptr[o], instance.pred_ptr[o + 1])
    ends = [
        head_of(instance, int(p)) + min(d for d, _ in modes_of(instance, int(p))) + int(lag)
        for p, lag in ((instance.pred_op[e], instance.pred_lag[e]) for e in arcs)
    ]
    return max([int(instance.release[o]), *ends])


@given(INSTANCES)
def test_heads_tails_and_bounds_follow_their_definitions(instance):
    operations = range(instance.n_ops)
    heads, tails = [head_of(instance, o) for o in operations], [longest_from(instance, o) for o in operations]
    shortest = [min(d for d, _ in modes_of(instance, o)) for o in operations]
    assert instance.earliest_start.tolist() == heads
    assert instance.tail.tolist() == tails
    bound = job_bound = max(h + d + t for h, d, t in zip(heads, shortest, tails, strict=True))
    for r in range(instance.n_resources):
        energy = {o: min(d * uses.get(r, 0) for d, uses in modes_of(instance, o)) for o in operations}
        energy = {o: e for o, e in energy.items() if e > 0}
        if energy:
            work = -(-sum(energy.values()) // int(instance.capacity[r]))
            bound = max(bound, min(heads[o] for o in energy) + work + min(tails[o] for o in energy))
    assert instance.job_bound == job_bound
    assert instance.makespan_bound == bound


@given(INSTANCES)
def test_primary_resource_is_the_only_declared_one(instance):
    want = []
    for o in range(instance.n_ops):
        for _, uses in modes_of(instance, o):
            declared = [r for r in uses if r < instance.n_declared_resources]
            want.append(declared[0] if len(declared) == 1 else -1)
    assert instance.primary_resource.tolist() == want


@given(INSTANCES)
def test_lines_partition_the_operations_and_chains_are_linked(instance):
    assert sorted(instance.line_op.tolist()) == list(range(instance.n_ops))
    for line in range(instance.n_lines):
        operations = instance.line_op[instance.line_ptr[line] : instance.line_ptr[line + 1]]
        for before, after in pairwise(operations.tolist()):
            assert before in instance.pred_op[instance.pred_ptr[after] : instance.pred_ptr[after + 1]]
    place = np.argsort(instance.topological_order)
    after = np.repeat(np.arange(instance.n_ops), np.diff(instance.pred_ptr))
    assert (place[instance.pred_op] < place[after]).all()
