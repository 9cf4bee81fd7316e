"""The sparse programmes: equal to brute force, replayed to the same cost, relaxed below exact, trees."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from lot_sizing_enumeration import cheapest_plan
from lot_sizing_paths import KINDS, small_scenario

from orl.common.errors import InputError
from orl.envs.lot_sizing.library import load
from orl.envs.lot_sizing.transition import decide, realise
from orl.solvers.lot_sizing.milp import DemandTree, build, chain, cost_unit
from orl.solvers.lot_sizing.network import build_network, build_tree_network
from orl.solvers.lot_sizing.perfect_information import plan_cost
from orl.solvers.lot_sizing.programme_search import search_with_cp_sat, search_with_highs


def compact(scenario, exact=True):
    path = chain(scenario.demand_path)
    return build(scenario, path, scenario.initial_inventory, scenario.initial_setup, exact=exact)


def optimum(programme):
    found = search_with_highs(programme)
    assert found.finished
    return float(programme.cost @ found.values), programme.actions(found.values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_programme_equals_brute_force_and_its_replay(kind):
    for seed in range(50 if kind in ("plain", "no-setup-cost") else 20):
        scenario = small_scenario(kind, seed)
        value, actions = optimum(compact(scenario))
        assert value == pytest.approx(cheapest_plan(scenario)[1], abs=1e-6), scenario.name
        assert value == pytest.approx(plan_cost(scenario, actions), abs=1e-6), scenario.name


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"sequence-dependent"}))
def test_the_networks_equal_the_compact_programme(kind):
    for seed in range(8):
        scenario = small_scenario(kind, seed, machines=2, items=3, horizon=3)
        expected = optimum(compact(scenario))[0]
        state = (scenario.initial_inventory, scenario.initial_setup)
        for programme in (build_network(scenario), build_tree_network(scenario, chain(scenario.demand_path), *state)):
            value, actions = optimum(programme)
            assert value == pytest.approx(expected, abs=1e-6)
            assert plan_cost(scenario, actions) == pytest.approx(expected, abs=1e-6)


def test_replays_agree_on_larger_random_instances():
    storage_binds = 0
    for seed in range(50):
        kind = KINDS[seed % len(KINDS)]
        scenario = small_scenario(kind, seed, items=3, machines=2, horizon=4)
        programme = compact(scenario)
        found = search_with_highs(programme, time_limit=10)
        value = float(programme.cost @ found.values)
        assert value == pytest.approx(plan_cost(scenario, programme.actions(found.values)), abs=1e-6), scenario.name
        full = programme.columns["discarded"]
        storage_binds += bool((np.where(full >= 0, found.values[full], 0) > 0.5).any())
    assert storage_binds >= 5


def test_the_relaxed_optimum_is_below_the_exact_one_and_sometimes_far_below():
    lower = 0
    for kind in ("tight-storage", "backlog"):
        for seed in range(12):
            scenario = small_scenario(kind, seed)
            relaxed, exact = (optimum(compact(scenario, exact))[0] for exact in (False, True))
            assert relaxed <= exact + 1e-6
            lower += relaxed < exact - 1e-3
    assert lower >= 3


@pytest.mark.parametrize("kind", ["plain", "backlog", "sequence-dependent"])
def test_cp_sat_and_highs_agree(kind):
    for seed in range(5):
        scenario = small_scenario(kind, seed)
        programme = compact(scenario)
        unit = cost_unit(programme.cost)
        found = search_with_cp_sat(programme, unit=unit, time_limit=30)
        assert found.finished
        assert found.bound == pytest.approx(optimum(programme)[0], abs=1e-6)
        assert plan_cost(scenario, programme.actions(found.values)) == pytest.approx(found.bound, abs=1e-6)


def test_cp_sat_without_a_unit_still_bounds_from_below():
    scenario = small_scenario("plain", 3)
    programme = compact(scenario)
    found = search_with_cp_sat(programme, unit=None, time_limit=30)
    value = optimum(programme)[0]
    assert not found.finished
    assert value - 1e-3 < found.bound <= value + 1e-9


def test_cp_sat_refuses_fractional_demand():
    scenario = small_scenario("plain", 0)
    tree = chain(scenario.demand_path + 0.5)
    with pytest.raises(InputError, match="integers"):
        search_with_cp_sat(build(scenario, tree, scenario.initial_inventory, scenario.initial_setup))


def expected_cost(instance, tree, inventory, setup, actions):
    """Cost of a tree's decisions, node by node."""
    position = {int(node): k for k, node in enumerate(tree.decisions)}
    level, state, posts, total = {0: inventory}, {0: setup}, {}, 0.0
    for node in range(len(tree.parent)):
        if node > 0:
            parent = int(tree.parent[node])
            post, after = posts[parent]
            level[node], _, lost, holding = realise(instance, post, tree.demand[node].astype(np.int64))
            state[node] = after
            total += tree.probability[node] * (lost + holding)
        if node in position:
            post, after, cost = decide(instance, level[node], state[node], actions[position[node]])
            posts[node] = (post, after)
            total += tree.probability[node] * cost
    return total


@pytest.mark.parametrize("kind", ["plain", "backlog", "tight-storage", "sequence-dependent"])
def test_a_tree_of_demand_costs_what_its_decisions_cost(kind):
    rng = np.random.default_rng(5)
    parent = np.array([-1, 0, 0, 1, 1, 2, 2])
    chance = np.array([1.0, 0.25, 0.75, 0.1, 0.15, 0.25, 0.5])
    for seed in range(6):
        instance = small_scenario(kind, seed)
        tree = DemandTree(parent, rng.integers(0, 4, (7, 2)).astype(float), chance)
        state = (instance.initial_inventory, instance.initial_setup)
        programme = build(instance, tree, *state)
        value, actions = optimum(programme)
        assert value == pytest.approx(expected_cost(instance, tree, *state, actions), abs=1e-6)
        every = [
            expected_cost(instance, tree, *state, np.array(plan)[:, None])
            for plan in np.ndindex(3, 3, 3)
            if all(item == 0 or instance.production[0, item - 1] > 0 for item in plan)
        ]
        assert value == pytest.approx(min(every), abs=1e-6)
        network = build_tree_network(instance, tree, *state)
        if kind == "sequence-dependent":
            assert network is None or optimum(network)[0] == pytest.approx(value, abs=1e-6)
        else:
            assert optimum(network)[0] == pytest.approx(value, abs=1e-6)


def test_fractional_demand_is_allowed():
    instance = load("ls-4x2")
    mean = np.broadcast_to(instance.demand.mean, (3, 4))
    state = (np.array([2, 2, 2, 2]), np.array([1, 2]))
    values = [
        optimum(programme)[0]
        for programme in (build(instance, chain(mean), *state), build_tree_network(instance, chain(mean), *state))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_cost_units():
    assert cost_unit([2.0, 0.5], [0.1]) == Fraction(1, 10)
    assert cost_unit([3.0, 6.0], 9.0) == 3
    assert cost_unit([np.pi]) is None
    assert cost_unit([0.0]) is None
