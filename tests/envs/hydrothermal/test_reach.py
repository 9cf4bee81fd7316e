"""Reachable volumes: every choice between the limits can be operated, and the limits are as wide as can be."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_cases import one_bus_dispatch
from scipy.optimize import linprog

from orl.common.errors import InputError
from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.dispatch import arrivals
from orl.envs.hydrothermal.generators import cascade
from orl.envs.hydrothermal.reach import ALL, LEFT_OVER, SPILLED, TURBINED, ReachableMap, links, require_acyclic
from orl.envs.hydrothermal.stage_lp import StageLP


def random_states(instance, count, seed):
    """Volumes, inflows and fractions [count, n]; corners are common."""
    rng = np.random.default_rng(seed)
    shape = (count, instance.n_plants)
    low, high = instance.min_volume, instance.max_volume
    volumes = low + (high - low) * np.clip(rng.uniform(-0.3, 1.3, shape), 0, 1)
    rows, columns = rng.integers(len(instance.inflows), size=count), rng.integers(instance.n_columns, size=count)
    return volumes, instance.inflows[rows, :, columns], np.clip(rng.uniform(-0.3, 1.3, shape), 0, 1)


def with_least_limits(instance):
    """The same cascade with least volumes and least outflows (of plants that always have the water)."""
    least = 0.3 * instance.inflows.min(axis=(0, 2))
    return replace(
        instance,
        min_outflow=np.minimum(least, 0.9 * instance.most_outflow),
        min_volume=0.1 * instance.max_volume,
    )


CASES = [cascade(n, 1, seed) for n, seed in [(3, 0), (6, 1), (9, 2), (12, 3), (20, 4)]]
CASES += [with_least_limits(case) for case in CASES]


@pytest.mark.parametrize("number", range(10))
def test_ten_thousand_random_choices_are_operated_by_their_releases(number):
    instance = CASES[number]
    reach = ReachableMap(instance)
    volumes, inflows, fractions = random_states(instance, 1000, number)
    step = reach(volumes, inflows, fractions)
    turbined, spilled = reach.releases(step.release)
    factor = instance.water_factor
    kept = step.volumes + factor * turbined + spilled - arrivals(instance, turbined, spilled)
    at_hand = volumes + factor * inflows
    for smaller, larger in (
        (step.lower, step.volumes),
        (step.volumes, step.upper),
        (step.volumes, instance.max_volume),
        (instance.min_volume, step.volumes),
        (instance.least_outflow, turbined),
        (turbined, instance.most_outflow),
    ):
        assert (smaller <= larger + 1e-9).all()
    assert spilled.min() >= -1e-9 * at_hand.max()
    # where turbined and spilled water part, the spilled water is all counted, so the balance is an identity
    np.testing.assert_allclose(kept, at_hand, atol=1e-9 * at_hand.max())


def test_the_cases_have_every_kind_of_link_and_three_levels():
    kinds = {kind for case in CASES for pairs in links(case) for _, kind in pairs}
    assert kinds == {ALL, TURBINED, SPILLED, LEFT_OVER}
    deepest = 0
    for case in CASES:
        depth = np.zeros(case.n_plants, int)
        for u in case.upstream_first:
            for i in np.flatnonzero(case.turbine_to[u] | case.spill_to[u]):
                depth[i] = max(depth[i], depth[u] + 1)
        deepest = max(deepest, depth.max())
    assert deepest >= 2


def most_volume(instance, volumes, inflows, upstream, plant):
    """By linear programme: the largest end volume of a plant when the plants ``upstream`` end at given volumes."""
    n, factor = instance.n_plants, instance.water_factor
    eye = np.eye(n)
    # variables: end volumes, turbined, spilled
    rows = np.hstack([eye, factor * (eye - instance.turbine_to.T), eye - instance.spill_to.T])
    bounds = [
        *(
            (v, v) if (v := upstream.get(i)) is not None else (instance.min_volume[i], instance.max_volume[i])
            for i in range(n)
        ),
        *zip(instance.least_outflow, instance.most_outflow, strict=True),
        *[(0, None)] * n,
    ]
    found = linprog(-np.eye(3 * n)[plant], A_eq=rows, b_eq=volumes + factor * inflows, bounds=bounds, method="highs")
    assert found.status == 0, found.message
    return -found.fun


@pytest.mark.parametrize("number", [0, 1, 2, 6, 7])
def test_upper_limits_are_the_most_that_can_be_stored(number):
    instance = CASES[number]
    reach = ReachableMap(instance)
    for volumes, inflows, fractions in zip(*random_states(instance, 4, 77 + number), strict=True):
        step = reach(volumes[None], inflows[None], fractions[None])
        upstream = {}
        parted = False  # from where turbined and spilled water have parted, not everything is offered
        for i in instance.upstream_first.tolist():
            parted = parted or any(kind == LEFT_OVER for _, kind in reach.links[i])
            most = most_volume(instance, volumes, inflows, upstream, i)
            assert step.upper[0, i] <= most + 1e-6
            if not parted:
                assert step.upper[0, i] == pytest.approx(most, abs=1e-6)
            upstream[i] = step.volumes[0, i]


@pytest.mark.parametrize("name", ["cascade-6x5-s0", "cascade-8x1-s5", "tri3"])
def test_the_programme_of_the_stage_is_feasible_at_every_choice(name):
    instance = library.load(name)
    reach, programme = ReachableMap(instance), StageLP(instance)
    volumes, inflows, fractions = random_states(instance, 40, 5)
    step = reach(volumes, inflows, fractions)
    rhs = volumes + instance.water_factor * inflows - step.volumes
    for row in rhs:
        assert programme.solve(row).cost >= 0


def test_fractions_move_volumes_from_limit_to_limit():
    instance = CASES[1]
    reach = ReachableMap(instance)
    volumes, inflows, _ = random_states(instance, 50, 3)
    empty, full = (reach(volumes, inflows, np.full(volumes.shape, y)) for y in (0.0, 1.0))
    np.testing.assert_array_equal(empty.volumes, empty.lower)
    np.testing.assert_array_equal(full.volumes, full.upper)
    assert (empty.volumes <= full.upper + 1e-12).all()


def test_projection_leaves_reachable_targets_and_moves_others_to_a_limit():
    instance = CASES[6]
    reach = ReachableMap(instance)
    volumes, inflows, fractions = random_states(instance, 200, 9)
    reached = reach(volumes, inflows, fractions)
    np.testing.assert_allclose(reach.project(volumes, inflows, reached.volumes).volumes, reached.volumes, atol=1e-12)
    wild = np.random.default_rng(0).uniform(-50, 2 * instance.max_volume.max(), volumes.shape)
    moved = reach.project(volumes, inflows, wild)
    at_limit = (moved.volumes == moved.lower) | (moved.volumes == moved.upper)
    assert (at_limit | (moved.volumes == wild)).all()
    assert at_limit.mean() > 0.5


def test_turbine_only_links_pass_on_what_the_turbines_take():
    instance = hydrothermal(
        horizon=1,
        stage_hours=1 / 0.0036,  # K = 1
        production_factor=[1.0, 1.0],
        max_volume=[10.0, 100.0],
        initial_volume=[10.0, 0.0],
        max_outflow=[4.0, 50.0],
        turbine_to=[1, -1],
        inflows=[[[2.0], [1.0]]],
        max_power=[0.03, 1.0],  # the generator lets 3 m3/s through, the turbine 4
        generator_costs=[0.0, 0.0],
        plant_generator=[0, 1],
        demand=[[1.0]],
        deficit_cost=1.0,
    )
    step = ReachableMap(instance)(np.array([[10.0, 0.0]]), np.array([[2.0, 1.0]]), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(step.volumes, [[0.0, 4.0]])
    np.testing.assert_allclose(step.release, [[12.0, 0.0]])


def test_water_is_conserved_over_an_episode():
    instance = replace(cascade(9, 1, 2), network="copper").scenario(4)
    fractions = np.random.default_rng(1).random((instance.horizon, instance.n_plants))
    dispatch = one_bus_dispatch(instance, fractions)
    factor = instance.water_factor
    turbine_leaves, spill_leaves = ~instance.turbine_to.any(1), ~instance.spill_to.any(1)
    left = factor * dispatch.turbined[:, turbine_leaves].sum() + dispatch.spilled[:, spill_leaves].sum()
    came = factor * instance.path_inflows(instance.columns).sum()
    stored = dispatch.volumes[-1].sum() - dispatch.volumes[0].sum()
    assert came == pytest.approx(stored + left, rel=1e-9)


def test_an_order_in_which_water_flows_back_is_refused():
    instance = library.load("tri3")
    require_acyclic(instance)
    for order in ([1, 0, 2], [0, 0, 1], [0, 1]):
        with pytest.raises(InputError, match="upstream_first"):
            ReachableMap(replace(instance, upstream_first=np.array(order)))


def one_sided(weights, states, k, i, step, function):
    """Differences of ``(weights * function(*states)).sum(1)`` by entry i of states[k], to the left and to the right."""
    values = []
    for move in (-step, 0.0, step):
        moved = [state.copy() for state in states]
        moved[k][:, i] += move
        values.append((weights * function(*moved).volumes).sum(1))
    return (values[1] - values[0]) / step, (values[2] - values[1]) / step


@pytest.mark.parametrize("as_targets", [False, True])
@pytest.mark.parametrize("number", range(10))
def test_gradients_are_those_of_finite_differences(number, as_targets):
    instance = CASES[number]
    reach = ReachableMap(instance)
    volumes, inflows, choices = random_states(instance, 60, 500 + number)
    volumes = volumes * np.random.default_rng(number).random(volumes.shape) ** 2  # also less than the least volumes
    function = reach
    if as_targets:
        function = reach.project
        choices = choices * 1.2 * np.maximum(instance.max_volume, 1.0) - 0.1
    weights = np.random.default_rng(number).normal(size=volumes.shape)
    by_volumes, by_choices = reach.gradient(volumes, inflows, choices, weights, as_targets=as_targets)
    checked = 0
    for k, gradient in ((0, by_volumes), (2, by_choices)):
        for i in range(instance.n_plants):
            left, right = one_sided(weights, (volumes, inflows, choices), k, i, 1e-6, function)
            scale = np.maximum(1.0, np.abs(gradient[:, i]))
            smooth = np.abs(left - right) <= 1e-4 * scale
            np.testing.assert_array_less(np.abs((left + right) / 2 - gradient[:, i])[smooth], 1e-4 * scale[smooth])
            # at a kink between two pieces it is the derivative of one of them; at corners there may be more pieces
            side = np.minimum(np.abs(left - gradient[:, i]), np.abs(right - gradient[:, i])) <= 1e-4 * scale
            assert side.mean() > 0.8
            checked += smooth.sum()
    assert checked > 0.6 * 2 * volumes.size


def test_gradients_at_the_ends_of_fractions_are_those_inside():
    reach = ReachableMap(CASES[0])
    volumes, inflows, _ = random_states(CASES[0], 50, 3)
    weights = np.ones(volumes.shape)
    for y, inside in ((0.0, 1e-9), (1.0, 1 - 1e-9)):
        at_end = reach.gradient(volumes, inflows, np.full(volumes.shape, y), weights)
        near = reach.gradient(volumes, inflows, np.full(volumes.shape, inside), weights)
        np.testing.assert_allclose(at_end[1], near[1], atol=1e-6)
        assert np.abs(at_end[1]).max() > 1
        outside = reach.gradient(volumes, inflows, np.full(volumes.shape, 2 * y - 0.5), weights)
        assert not outside[1].any()


@pytest.mark.parametrize("number", range(10))
def test_a_thousand_requests_for_turbined_water_are_met_as_far_as_water_goes(number):
    instance = CASES[number]
    reach, factor = ReachableMap(instance), instance.water_factor
    volumes, inflows, shares = random_states(instance, 1000, 40 + number)
    low, high = instance.least_outflow, instance.most_outflow
    asked = low + shares * (high - low)
    done = reach.operate(volumes, inflows, asked)
    at_hand = volumes + factor * inflows + arrivals(instance, done.turbined, done.spilled)
    tiny = 1e-9 * at_hand.max()
    np.testing.assert_allclose(done.volumes + factor * done.turbined + done.spilled, at_hand, atol=tiny)
    assert (done.turbined >= low).all()
    assert (done.turbined <= asked).all()
    assert (done.volumes <= instance.max_volume).all()
    assert (done.volumes >= 0).all()
    assert (done.spilled >= 0).all()
    spilling = done.spilled > 0
    np.testing.assert_array_equal(done.volumes[spilling], np.broadcast_to(instance.max_volume, volumes.shape)[spilling])
    less, above_least = done.turbined < asked - tiny, done.turbined > low + tiny
    np.testing.assert_allclose(
        done.volumes[less & above_least],
        np.broadcast_to(instance.min_volume, volumes.shape)[less & above_least],
        atol=tiny,
    )
    assert spilling.any()
    assert less.any()
    assert (~less).any()
    beyond = reach.operate(volumes, inflows, asked + np.where(shares == 1, 99.0, 0.0) - np.where(shares == 0, 99.0, 0))
    np.testing.assert_array_equal(beyond.volumes, done.volumes)


def test_read_only_and_strided_arrays_are_taken():
    reach = ReachableMap(CASES[1])
    states = random_states(CASES[1], 8, 0)
    expected = reach(*states).volumes
    strided = [np.repeat(state, 2, axis=0)[::2] for state in states]
    for state in strided:
        state.setflags(write=False)
    np.testing.assert_array_equal(reach(*strided).volumes, expected)
    assert reach(*[state[:0] for state in states]).volumes.shape == (0, 6)


def test_the_map_can_be_pickled():
    reach = ReachableMap(CASES[0])
    states = random_states(CASES[0], 5, 0)
    again = pickle.loads(pickle.dumps(reach))
    np.testing.assert_array_equal(again(*states).volumes, reach(*states).volumes)
