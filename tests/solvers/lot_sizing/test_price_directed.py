"""The price-directed rule: legal, exact assignments, cheap on known instances, never below the bound."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from lot_sizing_cases import DEMANDS, instance_of
from lot_sizing_oracle import KINDS
from lot_sizing_oracle import tiny as tiny_of_kind

from orl.common.errors import InputError
from orl.envs.lot_sizing import transition
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing import price_directed as module
from orl.solvers.lot_sizing.dynamic_programming import evaluate_policy, expected_cost
from orl.solvers.lot_sizing.expected_bound import expected_cost_bound
from orl.solvers.lot_sizing.item_programmes import item_programmes
from orl.solvers.lot_sizing.price_directed import price_directed
from orl.solvers.lot_sizing.rules import make_rule
from orl.solvers.lot_sizing.simulation import simulate


def states(instance: LotSizingInstance, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    setup = np.stack([rng.choice(np.append(0, np.flatnonzero(row) + 1), n) for row in instance.production], -1)
    inventory = rng.integers(-instance.max_backlog, instance.max_inventory + 1, (n, instance.n_items))
    return inventory, setup.astype(np.int64), rng.integers(0, instance.horizon, n)


@pytest.mark.parametrize("demand", DEMANDS)
def test_actions_are_legal_and_those_of_every_copy_alone(demand: str) -> None:
    instance = instance_of(demand, backlog=demand == "seasonal", sequence_dependent=demand == "correlated")
    decide = make_rule("price-directed", instance, iterations=10, tune=False)
    given = states(instance, 50)
    before = [a.copy() for a in given]
    actions = decide(*given)
    assert actions.dtype == np.int64
    assert actions.shape == given[1].shape
    assert ((actions == 0) | (instance.production[np.arange(instance.n_machines), actions - 1] > 0)).all()
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))
    assert np.array_equal(actions, [decide(*(a[b : b + 1] for a in given))[0] for b in range(50)])


@pytest.mark.parametrize("sequence_dependent", [False, True])
def test_no_assignment_of_machines_has_a_smaller_look_ahead_value(sequence_dependent: bool) -> None:
    instance = instance_of(n_items=3, n_machines=3, backlog=True, sequence_dependent=sequence_dependent, seed=4)
    prices = expected_cost_bound(instance, iterations=20).prices
    inventory, setup, period = states(instance, 60)
    chosen = price_directed(instance, prices=prices, tune=False)(inventory, setup, period)
    tables = [(item, item.values(prices)[1]) for item in item_programmes(instance)]

    def look_ahead(b: int, actions: np.ndarray) -> float:
        post, after, cost = transition.decide(instance, inventory[b], setup[b], actions)
        total = float(cost)
        for i, (item, values) in enumerate(tables):
            mask = int((1 << np.flatnonzero(after[item.machines] == i + 1)).sum())
            total += values[period[b], item.sets.number(mask), min(post[i] - item.low, item.levels - 1)]
        return total

    for b in range(60):
        every = product(*[[0, *(np.flatnonzero(row) + 1)] for row in instance.production])
        least = min(look_ahead(b, np.array(actions)) for actions in every)
        assert look_ahead(b, chosen[b]) == pytest.approx(least, abs=1e-4)  # values are kept in single precision


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_costs_no_less_than_the_optimum(kind: str) -> None:
    instance = tiny_of_kind(kind, 2, horizon=5)
    cost = evaluate_policy(instance, price_directed(instance)).expected_cost()
    optimum = expected_cost(instance)
    assert optimum - 1e-9 <= cost <= 1.25 * optimum
    assert expected_cost_bound(instance).value <= optimum + 1e-9


def test_one_item_is_played_optimally() -> None:
    instance = instance_of("seasonal", n_items=1, n_machines=2, backlog=True)
    cost = evaluate_policy(instance, price_directed(instance, tune=False)).expected_cost()
    assert cost == pytest.approx(expected_cost(instance), abs=1e-4)


def test_the_rule_is_near_the_known_optimum_and_above_the_bound() -> None:
    instance = load("ls-4x2")
    costs = simulate(instance, make_rule("price-directed", instance), range(200))
    error = costs.std() / 200**0.5
    assert expected_cost_bound(instance).value - 3 * error <= 336.7856 - 3 * error <= costs.mean() < 1.1 * 336.7856


def test_the_rule_beats_the_rules_of_thumb_where_no_optimum_is_known() -> None:
    instance = load("ls-15x5-s0-t30")
    bound = expected_cost_bound(instance, iterations=20)
    decide = price_directed(instance, prices=bound.prices, tune=False)
    costs, others = (simulate(instance, rule, range(50)) for rule in (decide, make_rule("base-stock", instance)))
    assert bound.value - 3 * costs.std() / 50**0.5 <= costs.mean() < 1.25 * bound.value
    assert costs.mean() < others.mean()


def test_tuned_prices_cost_no_more_on_the_tuning_seeds() -> None:
    instance = load("ls-15x5-s0-t10")
    prices = expected_cost_bound(instance, iterations=5).prices
    seeds = range(module.FIRST_SEED, module.FIRST_SEED + module.SECOND_ROUND)
    tuned, plain = (simulate(instance, price_directed(instance, prices=prices, tune=t), seeds) for t in (True, False))
    assert tuned.mean() <= plain.mean()


def test_a_time_limit_still_gives_a_rule() -> None:
    instance = load("ls-4x2")
    decide = price_directed(instance, time_limit_per_decision=0.0)
    inventory, setup, period = states(instance, 5)
    assert decide(inventory, setup, period).shape == (5, 2)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="prices"):
        price_directed(load("ls-2x1"), prices=np.zeros((2, 2)))
    with pytest.raises(InputError, match="machines"):
        price_directed(load("ls-30x20-s0"))
