"""Relaxation of the machines: valid bounds, real plans, prices that prune without harm."""

from __future__ import annotations

import numpy as np
import pytest
from lot_sizing_enumeration import cheapest_plan
from lot_sizing_paths import small_scenario

from orl.common.errors import InputError
from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing.lagrangian import path_programmes, relax_machines, ruin_and_recreate
from orl.solvers.lot_sizing.network import build_network
from orl.solvers.lot_sizing.perfect_information import plan_cost
from orl.solvers.lot_sizing.programme_search import search_with_highs

KINDS = ("plain", "no-setup-cost", "tight-storage", "backlog", "losses")


@pytest.mark.parametrize("kind", KINDS)
def test_bound_and_plan_enclose_the_optimum(kind):
    for seed in range(8):
        scenario = small_scenario(kind, seed)
        best = cheapest_plan(scenario)[1]
        found = relax_machines(scenario, iterations=200, seed=seed)
        assert found.bound <= best + 1e-6 <= found.cost + 2e-6, scenario.name
        assert plan_cost(scenario, found.actions) == pytest.approx(found.cost, abs=1e-6)
        assert (found.prices >= 0).all()
        actions, cost = ruin_and_recreate(scenario, found.actions, found.prices, rounds=5, seed=seed)
        assert best - 1e-6 <= cost <= found.cost + 1e-9
        assert plan_cost(scenario, actions) == pytest.approx(cost, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_any_prices_prove_a_bound(kind):
    rng = np.random.default_rng(0)
    for seed in range(5):
        scenario = small_scenario(kind, seed)
        best = cheapest_plan(scenario)[1]
        for _ in range(10):
            prices = rng.exponential(1.0, (scenario.horizon, scenario.n_machines))
            value = sum(item.solve(prices)[0] for item in path_programmes(scenario)) - prices.sum()
            assert value <= best + 1e-9


def test_one_item_alone_is_solved_exactly():
    for seed in range(10):
        scenario = small_scenario("plain", seed, items=1, machines=2, horizon=3)
        assert path_programmes(scenario)[0].solve(np.zeros((3, 2)))[0] == pytest.approx(cheapest_plan(scenario)[1])


def test_a_network_pruned_by_prices_keeps_an_optimal_plan():
    for seed in range(4):
        scenario = load("ls-4x2-t6").scenario(seed)
        found = relax_machines(scenario)
        full = build_network(scenario)
        pruned = build_network(scenario, prices=found.prices, slack=found.cost - found.bound + 1e-6)
        assert pruned.n_columns < full.n_columns
        values = [float(p.cost @ search_with_highs(p).values) for p in (full, pruned)]
        assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_the_bound_is_tight_on_the_paper_recipe():
    scenario = load("ls-15x5-s0-t10").scenario(0)
    found = relax_machines(scenario, iterations=300)
    assert 0.95 * found.cost <= found.bound <= found.cost


def test_equal_seeds_give_equal_plans():
    scenario = load("ls-4x2-t20").scenario(1)
    first, second = (relax_machines(scenario, iterations=60, seed=3) for _ in range(2))
    assert (first.actions == second.actions).all()
    assert first.bound == second.bound


def test_what_cannot_be_relaxed_is_refused():
    with pytest.raises(InputError, match="demand_path"):
        relax_machines(load("ls-4x2"))
    dependent = next(s for s in (small_scenario("sequence-dependent", k) for k in range(9)) if (s.production > 0).all())
    with pytest.raises(InputError, match="item before"):
        relax_machines(dependent)
