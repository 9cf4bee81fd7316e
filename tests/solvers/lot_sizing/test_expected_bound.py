"""Bounds on expected cost by item programmes, against exact dynamic programming, plans and brute force."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from lot_sizing_cases import DEMANDS, instance_of
from lot_sizing_oracle import KINDS
from lot_sizing_oracle import tiny as tiny_of_kind

from orl.common.errors import InputError
from orl.envs.lot_sizing import generators
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing import item_programmes
from orl.solvers.lot_sizing.dynamic_programming import expected_cost
from orl.solvers.lot_sizing.expected_bound import expected_cost_bound
from orl.solvers.lot_sizing.item_programmes import ALL, ItemProgramme, machine_sets
from orl.solvers.lot_sizing.perfect_information import PerfectInformation
from orl.solvers.lot_sizing.rules import make_rule
from orl.solvers.lot_sizing.simulation import simulate

CASES = {
    **{kind: tiny_of_kind(kind, 1, horizon=5) for kind in KINDS},
    **{f"tiny-{seed}": generators.tiny(seed, n_machines=1 + seed % 3, horizon=6) for seed in range(6)},
    "tiny-backlog": generators.tiny(7, n_items=3, n_machines=2, horizon=6, backlog=True),
    "tiny-sequence": generators.tiny(8, n_items=3, n_machines=2, horizon=6, sequence_dependent=True),
    **{f"short-{seed}": generators.short_recipe(3, 2, seed) for seed in range(4)},
}


def one_item(instance: LotSizingInstance, i: int) -> LotSizingInstance:
    """The problem without the other items."""
    demand = replace(
        instance.demand,
        values=instance.demand.values[:, [i]],
        probabilities=instance.demand.probabilities[:, [i]],
        correlation=None,
    )
    return replace(
        instance,
        production=instance.production[:, [i]],
        setup_costs=instance.setup_costs[:, [0, i + 1]][:, :, [i]],
        setup_loss=instance.setup_loss[:, [0, i + 1]][:, :, [i]],
        holding_costs=instance.holding_costs[[i]],
        lost_sales_costs=instance.lost_sales_costs[[i]],
        max_inventory=instance.max_inventory[[i]],
        initial_inventory=instance.initial_inventory[[i]],
        initial_setup=(instance.initial_setup == i + 1).astype(np.int64),
        demand=demand,
        backlog_costs=instance.backlog_costs[[i]],
        max_backlog=instance.max_backlog[[i]],
    )


# ---- the bound -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("init", ["random", "fixed"])
def test_the_bound_is_below_the_optimum_for_all_prices(name: str, init) -> None:
    instance = CASES[name]
    optimum = expected_cost(instance, init)
    rng = np.random.default_rng(0)
    shape = (instance.horizon, instance.n_machines)
    for first in (np.zeros(shape), rng.exponential(1.0, shape), rng.exponential(5.0, shape)):
        assert expected_cost_bound(instance, init, iterations=1, first_prices=first).value <= optimum + 1e-9
    for prices in ("constant", "by_period"):
        bound = expected_cost_bound(instance, init, iterations=40, prices=prices)
        assert 0.0 <= bound.value <= optimum + 1e-9
        assert (np.diff(bound.history) >= 0).all()
        assert bound.history[-1] == bound.value
        assert len(bound.history) == bound.iterations <= 40
        assert (bound.prices >= 0).all()
        again = expected_cost_bound(instance, init, iterations=1, first_prices=bound.prices)
        assert again.value == pytest.approx(bound.value, abs=1e-9)


@pytest.mark.parametrize("name", ["plain", "two-machines", "backlog", "non-stationary", "short-0"])
@pytest.mark.parametrize("init", ["random", "fixed"])
def test_items_that_share_no_machine_leave_no_gap(name: str, init) -> None:
    instance = CASES[name]
    owner = np.arange(instance.n_machines)[:, None] % instance.n_items == np.arange(instance.n_items)
    alone = replace(
        instance, production=instance.production * owner, initial_setup=np.zeros_like(instance.initial_setup)
    )
    bound = expected_cost_bound(alone, init, iterations=1).value
    assert bound == pytest.approx(expected_cost(alone, init), abs=1e-9)


def test_the_bound_on_the_known_optimum_is_close_and_above_the_cheap_one() -> None:
    instance = load("ls-4x2")
    bound = expected_cost_bound(instance)
    assert instance.lower_bound() < 0.87 * 336.7856 < bound.value <= 336.7856
    assert expected_cost_bound(instance, prices="constant").value < bound.value


def test_the_bound_on_deterministic_demand_is_below_the_best_plan() -> None:
    instance = instance_of("deterministic", n_items=3, n_machines=2, horizon=6, seed=3)
    scenario = instance.scenario(0, "fixed")
    plan = PerfectInformation().solve(scenario, time_limit=20)
    assert plan.status == "optimal"
    bound = expected_cost_bound(scenario).value
    assert bound <= plan.objective + 1e-6
    assert bound == expected_cost_bound(instance, "fixed").value


@pytest.mark.parametrize("demand", DEMANDS)
def test_the_bound_is_below_what_a_policy_costs(demand: str) -> None:
    instance = instance_of(demand, backlog=demand == "correlated", sequence_dependent=demand == "binomial")
    costs = simulate(instance, make_rule("greedy", instance), range(300))
    bound = expected_cost_bound(instance, iterations=30).value
    assert bound <= costs.mean() + 3 * costs.std() / 300**0.5
    assert bound > 0


def test_prices_of_a_former_bound_are_improved() -> None:
    instance = load("ls-4x2-t20")
    first = expected_cost_bound(instance, iterations=10)
    second = expected_cost_bound(instance, iterations=10, first_prices=first.prices)
    assert second.history[0] == pytest.approx(first.value, abs=1e-9)
    assert second.value > first.value


# ---- the programmes of the items -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["two-machines", "backlog", "non-stationary", "correlated", "tiny-2", "tiny-backlog"])
def test_an_item_costs_what_the_problem_of_it_alone_costs(name: str) -> None:
    instance = CASES[name]
    for i in range(instance.n_items):
        programme = ItemProgramme(instance, i)
        value, use = programme.solve(
            np.zeros((instance.horizon, instance.n_machines)), programme.start(instance, "fixed")
        )
        assert value == pytest.approx(expected_cost(one_item(instance, i), "fixed"), abs=1e-9)
        assert ((use >= 0) & (use <= 1 + 1e-9)).all()
        assert not use[:, instance.production[:, i] == 0].any()


def test_the_expected_use_is_the_slope_of_the_value() -> None:
    instance = CASES["tiny-backlog"]
    prices = np.random.default_rng(1).random((instance.horizon, instance.n_machines))
    direction = np.random.default_rng(2).normal(size=prices.shape)
    for i in range(instance.n_items):
        programme = ItemProgramme(instance, i)
        start = programme.start(instance, "random")
        _, use = programme.solve(prices, start)
        up, down = (programme.solve(prices + step * direction, start)[0] for step in (1e-6, -1e-6))
        assert (up - down) / 2e-6 == pytest.approx(float((use * direction).sum()), abs=1e-6)


def test_the_random_start_is_the_environments() -> None:
    instance = load("ls-15x5-s0")
    programme = ItemProgramme(instance, 6)
    start = programme.start(instance, "random")
    assert start.sum() == pytest.approx(1.0)
    seeds = [instance.scenario(seed) for seed in range(400)]
    assert start.sum(0)[:100] == pytest.approx(0.01)
    ready = np.mean([(s.initial_setup[programme.machines] == 7) for s in seeds], axis=0)
    for place, share in enumerate(ready):
        told = sum(start[s].sum() for s, mask in enumerate(programme.sets.sets) if mask >> place & 1)
        assert abs(share - told) < 4 * (told / 400) ** 0.5


@pytest.mark.parametrize("init", ["random", "fixed"])
def test_telling_fewer_sets_of_machines_apart_lowers_the_value_a_little(init) -> None:
    instance = instance_of("binomial", n_items=2, n_machines=5, horizon=8, seed=5, sequence_dependent=True)
    instance = replace(instance, production=np.maximum(instance.production, 1))
    prices = np.random.default_rng(0).random((8, 5)) / 2
    for i in range(2):
        programmes = [ItemProgramme(instance, i, most) for most in (1, 2, 3, 5)]
        values = [p.solve(prices, p.start(instance, init))[0] for p in programmes]
        assert all(values[k] <= values[k + 1] + 1e-9 for k in range(3)), values
        assert values[0] < values[-1]
        starts = [p.start(instance, init) for p in programmes]
        assert all(start.sum() == pytest.approx(1.0) for start in starts)


def test_sets_of_machines_follow_their_decisions() -> None:
    for k, most in combinations(range(1, 6), 2):
        tables = machine_sets(most, k)  # most > k: sets of at most k machines of `most`
        for now in range(1 << most):
            for before in (0, 1, 3, ALL):
                s = tables.number(before)
                known = tables.sets[s]
                for m in range(most):
                    expected = 2 if known == ALL else known >> m & 1
                    assert tables.status[m, s] == expected
                    s = int((tables.run if now >> m & 1 else tables.idle)[m, s])
                assert tables.sets[s] == (now if now.bit_count() <= k else ALL)


# ---- limits and errors -----------------------------------------------------------------------------------------------
def test_a_time_limit_and_ctrl_c_keep_the_best_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = load("ls-4x2-t20")
    assert expected_cost_bound(instance, time_limit=0.0).iterations == 1
    calls = []

    def counting(*arguments):
        calls.append(1)
        if len(calls) == 10 * instance.n_items:
            signal.raise_signal(signal.SIGINT)
        return solve(*arguments)

    solve = ItemProgramme.solve
    monkeypatch.setattr(ItemProgramme, "solve", counting)
    bound = expected_cost_bound(instance)
    assert bound.iterations == 10
    assert bound.value == bound.history[-1] > bound.history[0]


def test_bad_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = load("ls-2x1")
    for options in ({"prices": "weekly"}, {"iterations": 0}, {"first_prices": [[1.0]]}):
        with pytest.raises(InputError):
            expected_cost_bound(instance, **options)
    with pytest.raises(InputError, match="prices"):
        expected_cost_bound(instance, first_prices=np.full((3, 1), -1.0))
    monkeypatch.setattr(item_programmes, "LARGEST_TABLE", 10)
    with pytest.raises(InputError, match="too large"):
        expected_cost_bound(instance)
