"""Lower bounds never exceed the optimum, which brute force finds on tiny instances."""

from __future__ import annotations

import numpy as np
import pytest
from lot_sizing_enumeration import cheapest_plan, optimal_expected_cost, plan_costs

from orl.envs.lot_sizing import library
from orl.envs.lot_sizing.bounds import expected_bound, path_bound
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.distributions import deterministic
from orl.envs.lot_sizing.generators import paper_recipe, tiny
from orl.envs.lot_sizing.transition import decide

VARIANTS = [
    {},
    {"setup_costs": False},
    {"sequence_dependent": True},
    {"backlog": True},
    {"backlog": True, "sequence_dependent": True},
    {"n_machines": 2, "horizon": 3},
    {"n_items": 3, "horizon": 5},
    {"n_items": 1, "horizon": 7},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_plan_is_cheaper_than_the_bound_of_its_path(variant):
    positive = equal = 0
    for seed in range(40):
        scenario = tiny(seed, **variant).scenario(seed, "fixed" if seed % 2 else "random")
        _, optimum = cheapest_plan(scenario)
        bound = scenario.lower_bound()
        assert bound <= optimum + 1e-9, seed
        positive += bound > 0
        equal += bound >= optimum - 1e-9
    assert positive >= 20  # not a trivial bound
    assert equal >= 1


@pytest.mark.parametrize("variant", VARIANTS[:5])
def test_no_policy_is_cheaper_than_the_expected_bound(variant):
    positive = 0
    for seed in range(6):
        instance = tiny(seed, **{**variant, "horizon": 3})
        fixed = optimal_expected_cost(instance, instance.initial_inventory, instance.initial_setup)
        assert instance.lower_bound() <= fixed + 1e-9, seed
        able = [np.flatnonzero(row) + 1 for row in instance.production]
        starts = [
            optimal_expected_cost(instance, np.array([a, b]), np.array([setup]))
            for a in range(instance.max_inventory[0])
            for b in range(instance.max_inventory[1])
            for setup in able[0]
        ]
        assert instance.lower_bound() <= np.mean(starts) + 1e-9, seed
        positive += instance.lower_bound() > 0
    assert positive >= 4


def test_destroying_stock_does_not_beat_the_bound_of_the_reference_rule():
    """A machine that cannot make an item takes its loss from the stock: here that saves all holding cost."""
    instance = lot_sizing(
        horizon=2,
        production=[[0, 1]],
        setup_costs=0,
        setup_loss=[[9, 0]],
        holding_costs=[1, 0],
        lost_sales_costs=[0, 0],
        max_inventory=9,
        demand=deterministic([0, 0]),
        initial_inventory=[9, 0],
    )
    path = np.zeros((2, 2), np.int64)
    start = (instance.initial_inventory, instance.initial_setup)
    assert path_bound(instance, path, *start) == 18
    assert path_bound(instance, path, *start, "reference") == 0
    assert plan_costs(instance, path, *start, np.array([[[0], [0]], [[2], [2]]])).tolist() == [18, 18]
    post, _, cost = decide(instance, *start, np.array([1]), "reference")
    assert post.tolist() == [0, 0]
    assert cost == 0


def test_scarce_capacity_is_priced():
    """Two items that need a machine each share one: half of all demand is lost."""
    instance = lot_sizing(
        horizon=10,
        production=[[4, 4]],
        setup_costs=0,
        setup_loss=0,
        holding_costs=0,
        lost_sales_costs=1,
        max_inventory=100,
        demand=deterministic([4, 4]),
    )
    assert instance.scenario(0, "fixed").lower_bound() == 40
    assert expected_bound(instance) == 0  # a start with 99 units of both serves everything


def test_a_change_over_loses_at_most_what_the_machine_makes():
    instance = lot_sizing(
        horizon=2,
        production=[[1]],
        setup_costs=0,
        setup_loss=[[3]],
        holding_costs=0,
        lost_sales_costs=1,
        max_inventory=5,
        demand=deterministic([1]),
    )
    scenario = instance.scenario(0, "fixed")
    assert scenario.lower_bound() == cheapest_plan(scenario)[1] == 1


def test_a_batch_of_paths_has_the_bounds_of_its_members():
    instance = paper_recipe(7, 3, 2)
    scenarios = [instance.scenario(seed) for seed in range(5)]
    batch = [
        np.stack([getattr(s, f) for s in scenarios]) for f in ("demand_path", "initial_inventory", "initial_setup")
    ]
    bounds = path_bound(instance, *batch)
    assert bounds.shape == (5,)
    assert bounds.tolist() == pytest.approx([s.lower_bound() for s in scenarios])


def test_bounds_of_the_library_are_below_known_optima():
    assert 0 < library.load("ls-4x2").lower_bound() < 336.79  # exact optimum from random starts
    assert 0 < library.load("ls-2x1").lower_bound() < 1.67
