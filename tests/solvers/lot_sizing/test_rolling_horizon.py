"""Rules that optimise: rolling horizon, sample average, scenario tree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lot_sizing_oracle import deterministic, tiny

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.envs.lot_sizing import distributions
from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing.perfect_information import PerfectInformation, plan_cost, play
from orl.solvers.lot_sizing.rolling_horizon import accumulated_quantiles, rolling_horizon
from orl.solvers.lot_sizing.rules import make_rule
from orl.solvers.lot_sizing.sample_average import sample_average
from orl.solvers.lot_sizing.scenario_tree import fast_forward, sampled_tree, scenario_tree
from orl.solvers.lot_sizing.tree_rule import sampling_key

RULES = {
    "rolling-horizon": {"window": 4},
    "sample-average": {"window": 4, "n_samples": 2},
    "scenario-tree": {"branching": (2, 1, 1, 1)},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("exact", [True, False])
def test_with_known_demand_and_a_full_window_nothing_is_lost(rule, exact):
    for seed in range(4):
        instance = deterministic(seed)
        scenario = instance.scenario(seed)
        best = PerfectInformation().solve(scenario).objective
        actions = play(scenario, make_rule(rule, scenario, time_limit_per_decision=None, exact=exact, **RULES[rule]))
        cost = plan_cost(scenario, actions)
        assert cost == pytest.approx(best, abs=1e-6) if exact else cost >= best - 1e-6


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["two-machines", "sequence-dependent", "backlog", "non-stationary", "correlated"])
def test_every_kind_of_instance_gets_legal_decisions(rule, kind):
    instance = tiny(kind, 1)
    decide = make_rule(rule, instance)
    rng = np.random.default_rng(0)
    copies = 3
    inventory = rng.integers(-instance.max_backlog, instance.max_inventory + 1, (copies, 2))
    setup = np.array(
        [[rng.choice([0, *(np.flatnonzero(row) + 1)]) for row in instance.production] for _ in range(copies)]
    )
    period = np.array([0, 1, 2])
    actions = decide(inventory, setup, period)
    assert actions.shape == setup.shape
    assert actions.dtype == np.int64
    able = np.concatenate([np.ones((instance.n_machines, 1), bool), instance.production > 0], axis=1)
    assert able[np.arange(instance.n_machines), actions].all()
    for b in range(copies):  # a batch is its copies
        alone = make_rule(rule, instance)(inventory[[b]], setup[[b]], period[[b]])
        assert (alone[0] == actions[b]).all()


def test_rules_do_not_read_the_path():
    scenario = load("ls-2x1-t6").scenario(0)
    other = replace(scenario, demand_path=scenario.demand_path[::-1].copy())
    state = (np.array([[2, 1]]), np.array([[1]]), np.array([1]))
    for factory in (rolling_horizon, sample_average, scenario_tree):
        assert (factory(scenario)(*state) == factory(other)(*state)).all()


def test_without_time_the_greedy_decision_stands():
    instance = load("ls-15x5-s0")
    inventory, setup = np.full((1, 15), 5), np.zeros((1, 5), np.int64)
    decide = sample_average(instance, time_limit_per_decision=0)
    expected = make_rule("greedy", instance)(inventory, setup, np.array([0]))
    assert (decide(inventory, setup, np.array([0])) == expected).all()


def test_accumulated_quantiles_are_quantiles_of_sums():
    instance = load("ls-4x2")
    level = np.array([0.5, 0.9, 0.99, 0.1])
    quantiles = accumulated_quantiles(instance, np.arange(5), level)
    rng = np.random.default_rng(1)
    sums = np.cumsum(rng.binomial(4, 0.4, (5, 40_000)), axis=0)
    for k in range(5):
        for i, q in enumerate(level):
            assert (sums[k] <= quantiles[k, i]).mean() >= q - 0.01
            assert (sums[k] < quantiles[k, i]).mean() <= q + 0.01
    assert (np.diff(quantiles, axis=0) >= 0).all()


def test_quantile_demand_produces_more():
    instance = load("ls-4x2-t10")
    totals = []
    for options in ({"quantile": 0.2}, {"quantile": 0.95}):
        decide = rolling_horizon(instance, window=3, demand="quantile", **options)
        inventory = np.full((1, 4), 4)
        totals.append(int((decide(inventory, np.array([[1, 2]]), np.array([0])) > 0).sum()))
    assert totals[0] < totals[1]


def test_trees_have_the_right_shape_and_probabilities():
    instance = load("ls-4x2")
    tree = sampled_tree(instance, 3, (4, 2, 2), sampling_key(0, 3))
    assert len(tree.parent) == 1 + 4 + 8 + 16
    assert len(tree.decisions) == 1 + 4 + 8
    for node in tree.decisions:
        children = tree.parent == node
        assert tree.probability[children].sum() == pytest.approx(tree.probability[node])
    reduced = sampled_tree(instance, 3, (3, 2), sampling_key(0, 3), candidates=40)
    assert reduced.probability[1:4].sum() == pytest.approx(1.0)
    assert len(np.unique(reduced.probability[1:4])) > 1


def test_sampled_demand_follows_the_distribution_of_its_period():
    one, two = distributions.deterministic([[1, 2]]), distributions.deterministic([[5, 7]])
    instance = replace(load("ls-2x1-t2"), horizon=2, demand=distributions.periods([one, two]))
    tree = sampled_tree(instance, 0, (2, 2), sampling_key(0, 0))
    assert (tree.demand[1:3] == [1, 2]).all()
    assert (tree.demand[3:] == [5, 7]).all()
    many = sampled_tree(load("ls-4x2"), 0, (4000,), sampling_key(1, 0))
    assert many.demand[1:].mean() == pytest.approx(1.6, abs=0.03)


def test_sampling_keys_are_their_own_and_differ_by_seed_and_period():
    keys = {int(sampling_key(seed, period)) for seed in range(20) for period in range(20)}
    episodes = {int(counter_noise.draw_key(np.random.default_rng(seed))) for seed in range(400)}
    assert len(keys) == 400
    assert not keys & episodes


def test_fast_forward_keeps_the_best_single_point_and_all_the_weight():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 2))
    kept, weights = fast_forward(points, 1)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1).sum(0)
    assert kept[0] == distances.argmin()
    assert weights.tolist() == [1.0]
    kept, weights = fast_forward(points, 30)
    assert sorted(kept) == list(range(30))
    assert weights == pytest.approx(np.full(30, 1 / 30))


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (rolling_horizon, {"window": 0}),
        (rolling_horizon, {"demand": "median"}),
        (rolling_horizon, {"quantile": 1.0}),
        (rolling_horizon, {"time_limit_per_decision": -1.0}),
        (sample_average, {"n_samples": 0}),
        (sample_average, {"gap": -0.1}),
        (scenario_tree, {"branching": ()}),
        (scenario_tree, {"branching": (2, 0)}),
        (scenario_tree, {"branching": (4, 2), "candidates": 3}),
    ],
)
def test_bad_options_are_refused(factory, options):
    with pytest.raises(InputError):
        factory(load("ls-2x1"), **options)
