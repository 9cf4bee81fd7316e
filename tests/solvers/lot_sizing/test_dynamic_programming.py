"""Exact dynamic programming: known values, an oracle without any trick, critics of other policies, refusals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from lot_sizing_oracle import KINDS, deterministic, tiny, tree_values
from scipy.stats import multivariate_normal, norm

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.envs.lot_sizing import distributions, transition
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.instance import LotSizingPlan
from orl.envs.lot_sizing.library import load
from orl.envs.lot_sizing.scenario import replay
from orl.solvers.lot_sizing.demand_expectation import joint_demand
from orl.solvers.lot_sizing.dynamic_programming import (
    dynamic_programming,
    evaluate_policy,
    expected_cost,
    optimal_values,
)
from orl.solvers.lot_sizing.rules import make_rule
from orl.solvers.lot_sizing.simulation import simulate

TWO_ITEMS = {  # horizon: idle and empty, item 1 set up and empty, mean over the random start
    1: (-2.0, -1.25, -0.57),
    3: (-3.8125, -2.85, -1.66),
    20: (-14.782846, -13.620401, -12.424166),
    100: (-66.207347, -65.045081, -63.848877),
}


# ---- known values --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("horizon", TWO_ITEMS)
def test_two_items_on_one_machine(horizon: int) -> None:
    exact = optimal_values(load(f"ls-2x1-t{horizon}"))
    idle, running, mean = TWO_ITEMS[horizon]
    assert exact.value([[0, 0], [0, 0]], [[0], [1]]) == pytest.approx([idle, running], abs=1e-6)
    assert exact.expected_cost("random") == pytest.approx(-mean, abs=1e-6)
    assert exact.expected_cost("fixed") == pytest.approx(-idle, abs=1e-6)


def test_the_discounted_problem_without_an_end() -> None:
    endless = optimal_values(load("ls-2x1"), discount=0.9, infinite=True, keep="all")
    assert endless.value([0, 0], [0]) == pytest.approx(-8.409095, abs=1e-6)
    long = optimal_values(load("ls-2x1-t250"), discount=0.9, keep="start")
    assert np.abs(endless.values[0] - long.values[0]).max() < 1e-8
    again = evaluate_policy(load("ls-2x1"), endless.decide, discount=0.9, infinite=True)
    assert np.abs(endless.values[0] - again.values[0]).max() < 1e-8


def test_four_items_on_two_machines() -> None:
    short = optimal_values(load("ls-4x2-t10"), keep="start")
    assert short.value([0] * 4, [0, 0]) == pytest.approx(-47.5126, abs=5e-5)
    assert short.expected_cost() == pytest.approx(29.2334, abs=5e-5)
    exact = optimal_values(load("ls-4x2"), keep="start")
    assert exact.value([[0] * 4] * 2, [[0, 0], [4, 0]]) == pytest.approx([-355.7701, -355.7701], abs=5e-5)
    assert exact.expected_cost() == pytest.approx(336.7856, abs=5e-5)


# ---- the recursion against an oracle that enumerates everything -----------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_policy_equal_the_enumeration_of_all_actions_and_demands(kind: str) -> None:
    for seed in range(3):
        instance = tiny(kind, seed)
        exact, oracle = optimal_values(instance, discount=0.95, keep="all"), tree_values(instance, 0.95)
        inventory, setup = exact.space.states()
        expected = [oracle(0, *map(tuple, state)) for state in zip(inventory.tolist(), setup.tolist(), strict=True)]
        assert exact.value(inventory, setup) == pytest.approx(expected, abs=1e-9)
        played = evaluate_policy(instance, exact.decide, discount=0.95)
        assert np.abs(played.values[0] - exact.values[0]).max() < 1e-7


@pytest.mark.parametrize("incompatible", ["waste", "reference"])
def test_other_meanings_of_items_that_a_machine_cannot_make(incompatible: str) -> None:
    instance = tiny("two-machines", 5)
    exact = optimal_values(instance, incompatible=incompatible)
    oracle = tree_values(instance, incompatible=incompatible)
    inventory, setup = exact.space.states()
    expected = [oracle(0, *map(tuple, state)) for state in zip(inventory.tolist(), setup.tolist(), strict=True)]
    assert exact.value(inventory, setup) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_with_known_demand_it_is_the_best_of_all_plans(seed: int) -> None:
    instance = deterministic(seed)
    start, path = (instance.initial_inventory, instance.initial_setup), instance.demand.values[:, :, 0]
    plans = product(range(3), repeat=instance.horizon)
    costs = [replay(instance, LotSizingPlan(np.array(p)[:, None], path, *start))[1].sum() for p in plans]
    assert expected_cost(instance, "fixed") == pytest.approx(min(costs), abs=1e-9)
    assert simulate(instance, dynamic_programming(instance), [0], "fixed")[0] == pytest.approx(min(costs), abs=1e-9)


# ---- simulation and other policies ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name, episodes", [("ls-2x1-t20", 8_000), ("ls-4x2-t20", 3_000)])
def test_simulation_agrees_with_the_expected_cost(name: str, episodes: int) -> None:
    exact = optimal_values(load(name))
    costs = simulate(load(name), exact.decide, range(episodes))
    assert abs(costs.mean() - exact.expected_cost()) < 3 * costs.std() / episodes**0.5


@pytest.mark.parametrize("kind", ["correlated", "non-stationary", "backlog"])
def test_simulation_agrees_on_other_kinds_of_demand(kind: str) -> None:
    instance = tiny(kind, 1, horizon=6)
    exact = optimal_values(instance)
    costs = simulate(instance, exact.decide, range(8_000))
    assert abs(costs.mean() - exact.expected_cost()) < 3 * costs.std() / 8_000**0.5


@pytest.mark.parametrize("name", ["ls-2x1-t20", "ls-4x2-t3"])
def test_no_rule_costs_less_than_the_optimum(name: str) -> None:
    instance = load(name)
    best = optimal_values(instance, keep="start").values[0]
    for rule in ("idle", "static", "greedy", "base-stock"):
        values = evaluate_policy(instance, make_rule(rule, instance)).values[0]
        assert (values <= best + 1e-9).all()
        assert values.mean() < best.mean() - 0.1


def test_exact_value_of_a_rule_is_what_it_costs_in_simulation() -> None:
    instance = load("ls-2x1-t20")
    for rule in ("greedy", "base-stock"):
        decide = make_rule(rule, instance)
        costs = simulate(instance, decide, range(5_000))
        assert abs(costs.mean() - evaluate_policy(instance, decide).expected_cost()) < 3 * costs.std() / 5_000**0.5


def test_critics_of_a_random_policy_satisfy_both_halves_of_the_recursion() -> None:
    """V(s) = E_a[r^d + V^x(s^x)] and V^x(s^x) = E_w[r^w + discount V(s')], with the environment's own transition."""
    instance, discount = load("ls-2x1-t20"), 0.9
    chances = np.random.default_rng(0).dirichlet(np.ones(3), 3 * 36)
    critics = evaluate_policy(instance, lambda *state: chances, discount=discount, keep="values")
    inventory, setup = critics.space.states()
    outcomes, weights = joint_demand(instance.demand, 0)
    for t in (0, 7, 18, 19):
        expected = np.zeros(len(setup))
        for a in range(3):
            action = np.broadcast_to(critics.space.setups[a], setup.shape)
            post, after, cost = transition.decide(instance, inventory, setup, action)
            of_post = critics.post_decision_value(post, after, t)
            expected += chances[:, a] * (of_post - cost)
            over_demand = np.zeros(len(setup))
            for demand, weight in zip(outcomes, weights, strict=True):
                stock, _, lost, holding = transition.realise(instance, post, demand)
                over_demand += weight * (discount * critics.value(stock, after, t + 1) - lost - holding)
            assert of_post == pytest.approx(over_demand, abs=1e-10)
        assert critics.value(inventory, setup, t) == pytest.approx(expected, abs=1e-10)


def test_post_decision_values_do_not_depend_on_the_leading_axes() -> None:
    exact = optimal_values(load("ls-2x1-t20"), keep="all")
    post, setup = np.array([[[2, 0], [0, 3]], [[1, 1], [5, 5]]]), np.array([[[1], [2]], [[0], [0]]])
    together = exact.post_decision_value(post, setup, 4)
    assert together.shape == (2, 2)
    for i, j in product(range(2), repeat=2):
        assert exact.post_decision_value(post[i, j], setup[i, j], 4) == together[i, j]


def test_actions_and_their_probabilities_are_two_ways_to_say_the_same_policy() -> None:
    instance = tiny("two-machines", 3)
    rule = make_rule("greedy", instance)
    space = optimal_values(instance).space

    def certain(inventory, setup, period):
        return np.eye(space.n_setups)[space.setup_index(rule(inventory, setup, period))]

    by_action, by_probability = evaluate_policy(instance, rule), evaluate_policy(instance, certain)
    assert by_action.values[0] == pytest.approx(by_probability.values[0])


def test_a_scenario_is_solved_by_its_distribution() -> None:
    instance = load("ls-2x1-t6")
    scenario = instance.scenario(3)
    exact = optimal_values(scenario)
    assert np.array_equal(exact.values[0], optimal_values(instance).values[0])
    start = exact.value(scenario.initial_inventory, scenario.initial_setup)
    assert exact.expected_cost() == pytest.approx(-float(start))


def test_what_is_kept() -> None:
    instance = load("ls-2x1-t6")
    start, policy = optimal_values(instance, keep="start"), optimal_values(instance, keep="policy")
    every = optimal_values(instance, keep="all")
    assert len(start.values) == len(policy.values) == 1
    assert (len(every.values), len(every.policy)) == (7, 6)
    assert np.array_equal(start.values[0], every.values[0])
    assert not every.values[6].any()
    for t in range(6):
        assert np.array_equal(policy.policy[t], every.policy[t])
        later = optimal_values(instance.with_horizon(6 - t), keep="start")
        assert np.array_equal(later.values[0], every.values[t])


def test_a_tie_goes_to_the_first_action_with_idle_machines_first() -> None:
    indifferent = lot_sizing(
        horizon=2,
        production=[[2, 2]],
        setup_costs=0.0,
        setup_loss=0,
        holding_costs=0.0,
        lost_sales_costs=1.0,
        max_inventory=3,
        demand=distributions.deterministic([[1, 1]]),
    )
    decide = dynamic_programming(indifferent)
    assert decide(np.array([[3, 3], [0, 0]]), np.array([[2], [2]]), np.array([0, 0])).tolist() == [[0], [1]]


# ---- joint demand of correlated items -------------------------------------------------------------------------------
def test_joint_demand_of_two_correlated_items_is_the_bivariate_normal_cell() -> None:
    demand = distributions.correlated(distributions.pmf(2, [0, 1, 2], [0.2, 0.5, 0.3]), 0.7)
    outcomes, found = joint_demand(demand, 0)
    edges = np.concatenate([[-9.0], norm.ppf([0.2, 0.7]), [9.0]])
    law = multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]])

    def below(a: float, b: float) -> float:
        return float(law.cdf([a, b]))

    for (i, j), probability in zip(outcomes, found, strict=True):
        cell = below(edges[i + 1], edges[j + 1]) - below(edges[i], edges[j + 1])
        cell -= below(edges[i + 1], edges[j]) - below(edges[i], edges[j])
        assert probability == pytest.approx(cell, abs=1e-7)


def test_joint_demand_keeps_the_tables_of_the_items_and_agrees_with_draws() -> None:
    correlation = np.array([[1.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 1.0]])
    plain = distributions.item_specific(
        [distributions.pmf(1, [0, 2], [0.4, 0.6]), distributions.binomial(1, 2, 0.3), distributions.pmf(1, [1], [1.0])]
    )
    demand = distributions.correlated(plain, correlation)
    outcomes, probabilities = joint_demand(demand, 0)
    assert len(outcomes) == 6
    for i, (values, table) in enumerate(zip(*plain.table(0), strict=True)):
        for value, probability in zip(values, table, strict=True):
            if probability > 0:
                assert probabilities[outcomes[:, i] == value].sum() == pytest.approx(probability, abs=1e-9)
    keys = np.array([counter_noise.draw_key(np.random.default_rng(k)) for k in range(8_000)])
    drawn = demand.draw(keys, 0)
    for outcome, probability in zip(outcomes, probabilities, strict=True):
        share = (drawn == outcome).all(-1).mean()
        assert abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / len(keys)) + 1e-12


def test_joint_demand_without_correlation_is_the_product() -> None:
    plain = distributions.pmf(2, [0, 1, 3], [0.2, 0.5, 0.3])
    product_law = joint_demand(plain, 0)
    copula = joint_demand(distributions.correlated(plain, 0.0), 0)
    assert np.array_equal(product_law[0], copula[0])
    assert product_law[1] == pytest.approx(copula[1], abs=1e-9)


# ---- refusals -------------------------------------------------------------------------------------------------------
def test_a_state_space_that_is_too_large_is_refused_with_its_size() -> None:
    with pytest.raises(InputError, match=r"ls-15x5-s0, memory_limit: the state space is too large.*states"):
        optimal_values(load("ls-15x5-s0"))
    with pytest.raises(InputError, match="too large"):
        optimal_values(load("ls-4x2"), keep="all", memory_limit=10**8)


@pytest.mark.parametrize(
    "options, field",
    [
        ({"discount": 0.0}, "discount"),
        ({"discount": 1.5}, "discount"),
        ({"infinite": True}, "discount"),
        ({"keep": "some"}, "keep"),
    ],
)
def test_bad_options_are_refused(options: dict, field: str) -> None:
    with pytest.raises(InputError, match=field):
        optimal_values(load("ls-2x1"), **options)


def test_demand_that_changes_has_no_stationary_value() -> None:
    with pytest.raises(InputError, match="infinite"):
        optimal_values(tiny("non-stationary", 0), discount=0.9, infinite=True)


def test_too_many_joint_demands_are_refused() -> None:
    wide = distributions.correlated(distributions.binomial(2, 80, 0.5), 0.5)
    instance = lot_sizing(
        horizon=2,
        production=[[1, 1]],
        setup_costs=1.0,
        setup_loss=0,
        holding_costs=0.1,
        lost_sales_costs=1.0,
        max_inventory=2,
        demand=wide,
    )
    with pytest.raises(InputError, match="6.56e\\+03 outcomes"):
        optimal_values(instance)


def test_states_outside_the_space_are_refused() -> None:
    exact = optimal_values(load("ls-2x1-t6"))
    with pytest.raises(InputError, match="inventory: stock outside its levels"):
        exact.value([6, 0], [0])
    with pytest.raises(InputError, match="setup"):
        optimal_values(load("ls-4x2-t1")).value([0] * 4, [0, 1])
    with pytest.raises(InputError, match="post_inventory: no decision"):
        exact.post_decision_value([9, 9], [1], 0)
    with pytest.raises(InputError, match="period: values of this period were not kept"):
        exact.value([0, 0], [0], period=1)
    with pytest.raises(InputError, match="keep"):
        optimal_values(load("ls-2x1-t6"), keep="values").decide([[0, 0]], [[0]], [0])


def test_bad_answers_of_a_policy_are_refused() -> None:
    with pytest.raises(InputError, match="sum to 1"):
        evaluate_policy(load("ls-2x1"), lambda i, s, t: np.full((len(s), 3), 0.5))
    with pytest.raises(InputError, match="actions or probabilities"):
        evaluate_policy(load("ls-2x1"), lambda i, s, t: np.zeros(len(s)))
