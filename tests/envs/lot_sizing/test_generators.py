"""Recipes: the stated distributions, soundness, and the same numbers for ever."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.lot_sizing.generators import paper_recipe, short_recipe, tiny, trigeiro


def feasible_setups(instance):
    setup = instance.initial_setup
    return (instance.production[np.arange(instance.n_machines), np.maximum(setup - 1, 0)] > 0)[setup > 0].all()


def test_the_paper_recipe_has_its_ranges_and_shares():
    instance = paper_recipe(200, 40, 0)
    made, other = instance.production, np.arange(201)[:, None] != np.arange(1, 201)
    assert (made.min(), made.max()) == (0, 40)
    assert (made == 0).mean() == pytest.approx(0.4, abs=0.02)
    assert np.bincount(made[made > 0], minlength=41)[1:].min() > 60  # uniform: 120 expected
    cost, loss = instance.setup_costs[:, other], instance.setup_loss[:, other]
    assert set(np.unique(cost)) == set(range(15, 31))
    assert (cost == 15).mean() == pytest.approx(0.2, abs=0.02)
    assert set(np.unique(loss)) == {1, 2, 3}
    assert (loss == 1).mean() == pytest.approx(0.7, abs=0.02)
    assert set(instance.lost_sales_costs) == {0.1, 1.1}
    assert (instance.lost_sales_costs == 0.1).mean() == pytest.approx(0.5, abs=0.12)
    assert set(instance.holding_costs) == {0.01}
    assert set(instance.max_inventory) == {100}
    assert instance.initial_inventory.max() <= 50
    assert instance.demand.mean[0] == pytest.approx(np.full(200, 8.0))
    assert instance.horizon == 100
    assert feasible_setups(instance)


@pytest.mark.parametrize("recipe", [paper_recipe, short_recipe])
def test_every_item_has_a_producer(recipe):
    for seed in range(30):
        instance = recipe(6, 2, seed)  # 16 % of the columns are drawn again
        assert (instance.production > 0).any(0).all()
        assert feasible_setups(instance)


def test_recipes_repeat_and_seeds_differ():
    assert paper_recipe(15, 5, 3).same_as(paper_recipe(15, 5, 3))
    assert not np.array_equal(paper_recipe(15, 5, 3).production, paper_recipe(15, 5, 4).production)
    assert np.unique([paper_recipe(5, 2, seed).production.sum() for seed in range(20)]).size > 10


@pytest.mark.parametrize(
    "instance, digest",
    [
        (paper_recipe(15, 5, 0), "961dfd406737e6e2"),
        (paper_recipe(25, 10, 0), "2bbe6f84ec5b30b9"),
        (short_recipe(5, 2, 1), "7376857d2e0daa29"),
        (tiny(7, n_machines=2, sequence_dependent=True, backlog=True), "fb760657572904a6"),
        (trigeiro(4, 12, 0), "9adea11e21d2c4bc"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_recipes_give_the_same_numbers_for_ever(instance, digest):
    data = {k: v for k, v in instance.to_json().items() if k not in ("demand", "name")}
    assert hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16] == digest


def test_the_short_family_has_five_periods():
    instance = short_recipe(10, 4, 2)
    assert instance.horizon == 5
    assert set(instance.lost_sales_costs) <= {1, 2, 3}
    assert instance.production.max() <= 4
    assert set(np.unique(instance.setup_costs)) <= {0, 1, 2}


def test_tiny_instances_meet_every_constraint():
    cases = [tiny(seed, sequence_dependent=seed % 2 == 1, backlog=seed % 3 == 0) for seed in range(60)]
    assert any((p > 0) & (p < i.setup_loss[:, 0]).any() for i in cases for p in i.production.ravel())
    assert all((i.production > 0).any(0).all() for i in cases)
    assert any(i.sequence_dependent for i in cases)
    assert any(i.max_backlog.any() for i in cases)
    assert not tiny(0, setup_costs=False).setup_costs.any()


def test_trigeiro_instances_are_scenarios_of_the_asked_load():
    scenario = trigeiro(6, 20, 1, utilisation=0.9)
    assert scenario.demand_path.shape == (20, 6)
    load = scenario.demand_path.sum() / (20 * scenario.production[0, 0])
    assert load == pytest.approx(0.9, abs=0.02)
    assert scenario.scenario(5) is scenario
    assert (scenario.demand.draw(np.uint64(3), np.arange(20)) == scenario.demand_path).all()


@pytest.mark.parametrize(
    "sizes", [(0, 2, 0), (2, 0, 0), (2, 2, -1), (2, 2, 2**64), (2, 2, 1.5), (2.5, 2, 0), (True, 2, 0), (5000, 1, 0)]
)
def test_bad_sizes_and_seeds_are_refused(sizes):
    with pytest.raises(InputError):
        paper_recipe(*sizes)
