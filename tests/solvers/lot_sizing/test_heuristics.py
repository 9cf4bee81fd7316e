"""Rules of thumb: what they do in plain situations, what they cost on known instances, tuning."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from lot_sizing_oracle import KINDS, tiny

from orl.common.errors import InputError, UnknownNameError
from orl.envs.lot_sizing import distributions
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.instance import LotSizingInstance
from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing import tuning
from orl.solvers.lot_sizing.dynamic_programming import evaluate_policy, expected_cost
from orl.solvers.lot_sizing.rules import make_rule
from orl.solvers.lot_sizing.simulation import simulate

HEURISTICS = ("idle", "random", "static", "greedy", "base-stock")


def states(instance: LotSizingInstance, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    setup = np.stack([rng.choice(np.append(0, np.flatnonzero(row) + 1), n) for row in instance.production], -1)
    inventory = rng.integers(-instance.max_backlog, instance.max_inventory + 1, (n, instance.n_items))
    return inventory, setup.astype(np.int64), rng.integers(0, instance.horizon, n)


def shop(production, mean_demand, **other) -> LotSizingInstance:
    """Set-up cost 1, no loss, demand ``mean_demand`` without randomness."""
    n_items = len(production[0])
    fields = {
        "horizon": 20,
        "setup_costs": 1.0,
        "setup_loss": 0,
        "holding_costs": 0.1,
        "lost_sales_costs": 2.0,
        "max_inventory": 50,
        "demand": distributions.item_specific([distributions.pmf(1, [d], [1.0]) for d in mean_demand]),
    }
    assert n_items == len(mean_demand)
    return lot_sizing(production=production, **{**fields, **other})


def act(rule: str, instance: LotSizingInstance, inventory, setup, period: int = 0, **options) -> list[int]:
    decide = make_rule(rule, instance, **options)
    return decide(np.array([inventory]), np.array([setup]), np.array([period]))[0].tolist()


# ---- every rule ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", HEURISTICS)
@pytest.mark.parametrize("name", [*KINDS, "ls-4x2", "ls-15x5-s0"])
def test_a_rule_gives_legal_actions_that_do_not_depend_on_the_other_copies(rule: str, name: str) -> None:
    instance = tiny(name, 2) if name in KINDS else load(name)
    options = {"seed": 1} if rule == "random" else {}
    decide = make_rule(rule, instance, **options)
    inventory, setup, period = states(instance, 40)
    actions = decide(inventory, setup, period)
    assert actions.dtype == np.int64
    assert actions.shape == setup.shape
    machines = np.arange(instance.n_machines)
    assert ((actions == 0) | (instance.production[machines, actions - 1] > 0)).all()
    assert np.array_equal(decide(inventory, setup, period), actions)
    if rule != "random":
        alone = [decide(*(a[b : b + 1] for a in (inventory, setup, period)))[0] for b in range(40)]
        assert np.array_equal(alone, actions)


@pytest.mark.parametrize("rule", HEURISTICS)
def test_a_rule_leaves_its_arguments_alone(rule: str) -> None:
    instance = load("ls-4x2")
    given = states(instance, 20)
    before = [a.copy() for a in given]
    make_rule(rule, instance)(*given)
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))


def test_unknown_rules_and_bad_options_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'greedy'"):
        make_rule("gredy", load("ls-2x1"))
    with pytest.raises(InputError, match="periods: too small"):
        make_rule("greedy", load("ls-2x1"), periods=0)
    for field in ("lead", "batch", "preempt"):
        with pytest.raises(InputError, match=f"{field}: too small"):
            make_rule("base-stock", load("ls-2x1"), **{field: -1})


def test_a_rule_is_never_shown_the_demand_path(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("orl.solvers.lot_sizing.rules.rule_factory", lambda key: shown.append)
    make_rule("idle", load("ls-2x1-t6/scenario-0"))
    assert shown[0].demand_path is None


# ---- single rules ----------------------------------------------------------------------------------------------------
def test_random_draws_evenly_from_what_a_machine_can_do() -> None:
    instance = load("ls-4x2")
    decide = make_rule("random", instance, seed=3)
    actions = decide(np.zeros((8_000, 4), np.int64), np.zeros((8_000, 2), np.int64), np.zeros(8_000, np.int64))
    for m, options in enumerate(([0, 1, 2, 3, 4], [0, 2, 3])):
        share = np.bincount(actions[:, m], minlength=5)[options] / 8_000
        assert share.sum() == pytest.approx(1.0)
        assert np.abs(share - 1 / len(options)).max() < 0.02


def test_random_takes_its_key_from_numpy_unless_it_has_a_seed() -> None:
    instance = load("ls-4x2")
    given = states(instance, 30)
    free = make_rule("random", instance)
    drawn = []
    for seed in (1, 1, 2):
        np.random.seed(seed)  # noqa: NPY002
        drawn.append(free(*given))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    one, other = (make_rule("random", instance, seed=s)(*given) for s in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(5))
def test_static_is_the_best_of_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = shop(rng.integers(0, 6, (3, 4)).tolist(), rng.integers(1, 5, 4), lost_sales_costs=rng.uniform(1, 3, 4))
    weight = np.minimum(instance.production, instance.demand.mean[0]) * instance.lost_sales_costs
    best = max(sum(weight[m, i] for m, i in enumerate(chosen)) for chosen in permutations(range(4), 3))
    actions = act("static", instance, [0] * 4, [0] * 3)
    assert sum(weight[m, a - 1] for m, a in enumerate(actions) if a) == pytest.approx(best)
    assert len({a for a in actions if a}) == sum(a > 0 for a in actions)


def test_static_lets_a_machine_idle_that_has_no_item_left() -> None:
    assert act("static", shop([[3], [5]], [4]), [0], [0, 0]) == [0, 1]


def test_greedy_takes_the_greatest_saving_and_tells_the_next_machine() -> None:
    instance = shop([[2, 2], [2, 2]], [1, 1], lost_sales_costs=[2.0, 3.0])
    assert act("greedy", instance, [0, 0], [0, 0], periods=2) == [2, 1]
    assert act("greedy", instance, [9, 9], [1, 2], periods=2) == [0, 0]


def test_greedy_changes_over_only_when_that_pays() -> None:
    instance = shop([[4, 4]], [1, 1], setup_costs=3.0)
    assert act("greedy", instance, [1, 1], [1], periods=2) == [1]
    assert act("greedy", instance, [2, 0], [1], periods=2) == [2]
    assert act("greedy", instance, [2, 1], [1], periods=2) == [0]


def test_greedy_plans_for_no_period_after_the_last() -> None:
    instance = shop([[4, 4]], [1, 1], setup_costs=3.0)
    assert act("greedy", instance, [0, 0], [0], period=0, periods=5) == [1]
    assert act("greedy", instance, [0, 0], [0], period=19, periods=5) == [0]


def test_base_stock_starts_below_s_and_stops_at_the_upper_level() -> None:
    instance = shop([[10]], [3], max_inventory=90)
    options = {"lead": 1, "safety": 0.0, "batch": 4.0}  # s = 3, S = 15
    assert act("base-stock", instance, [3], [0], **options) == [0]
    assert act("base-stock", instance, [2], [0], **options) == [1]
    assert act("base-stock", instance, [14], [1], **options) == [1]
    assert act("base-stock", instance, [15], [1], **options) == [0]


def test_base_stock_gives_scarce_machines_to_the_items_that_miss_most() -> None:
    instance = shop([[4, 6, 0], [4, 4, 4]], [4, 4, 4], lost_sales_costs=[1.0, 3.0, 2.0])
    assert act("base-stock", instance, [0, 0, 0], [0, 0]) == [2, 3]
    assert act("base-stock", instance, [0, 9, 9], [0, 0]) == [1, 0]


def test_base_stock_breaks_off_a_run_for_an_item_that_misses_more() -> None:
    instance = shop([[5, 5]], [2, 2], lost_sales_costs=[1.0, 4.0])
    assert act("base-stock", instance, [6, 0], [1], batch=4.0, preempt=1.0) == [2]
    assert act("base-stock", instance, [6, 0], [1], batch=4.0, preempt=np.inf) == [1]
    assert act("base-stock", instance, [0, 1], [1], batch=4.0, preempt=9.0) == [1]


def test_base_stock_holds_more_of_an_item_whose_demand_varies() -> None:
    spread = [distributions.pmf(1, [3], [1.0]), distributions.pmf(1, [0, 6], [0.5, 0.5])]
    instance = shop([[9, 9]], [3, 3], demand=distributions.item_specific(spread))
    assert act("base-stock", instance, [3, 3], [0], safety=1.0) == [2]
    assert act("base-stock", instance, [3, 6], [0], safety=1.0) == [0]


def test_rules_see_demand_that_changes() -> None:
    demand = distributions.periods([distributions.pmf(2, [d], [1.0]) for d in (0, 0, 0, 5, 5, 5)])
    instance = shop([[5, 5]], [0, 0], demand=demand, horizon=6)
    for rule, options in (("greedy", {"periods": 1}), ("base-stock", {})):
        assert act(rule, instance, [0, 0], [0], period=0, **options) == [0]
        assert act(rule, instance, [0, 0], [0], period=3, **options) != [0]


# ---- costs -----------------------------------------------------------------------------------------------------------
def test_costs_on_four_items_and_two_machines() -> None:
    """Idle, random and static against exact values, greedy and base-stock between the optimum and static."""
    instance = load("ls-4x2")
    exact = {"idle": 1247.046, "random": 981.040, "static": 667.039, "greedy": 434.066}
    for rule, expected in exact.items():
        costs = simulate(instance, make_rule(rule, instance), range(400))
        assert abs(costs.mean() - expected) < 3.5 * costs.std() / 20
    assert 336.79 < simulate(instance, make_rule("base-stock", instance), range(400)).mean() < 420


@pytest.mark.slow
def test_exact_costs_on_four_items_and_two_machines() -> None:
    instance = load("ls-4x2")
    for rule, expected in {"idle": 1247.046, "static": 667.039, "greedy": 434.066}.items():
        assert evaluate_policy(instance, make_rule(rule, instance)).expected_cost() == pytest.approx(expected, abs=1e-3)
    for incompatible, n_actions, expected in (("mask", 15, 981.040), ("reference", 25, 1177.443)):
        uniform = evaluate_policy(
            instance,
            lambda i, s, t, n=n_actions: np.full((len(s), n), 1 / n),
            stationary=True,
            incompatible=incompatible,
        )
        assert uniform.expected_cost() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["ls-15x5-s0", "ls-25x10-s0"])
def test_rules_that_watch_the_stock_beat_those_that_do_not_on_large_instances(name: str) -> None:
    instance = load(name)
    options = {"greedy": {"periods": 30}, "base-stock": {"batch": 16.0, "preempt": 2.0}}
    mean = {
        rule: simulate(instance, make_rule(rule, instance, **options.get(rule, {})), range(40)).mean()
        for rule in HEURISTICS
    }
    assert mean["base-stock"] < mean["greedy"] < mean["static"] < mean["idle"] < mean["random"]
    assert mean["base-stock"] < 0.75 * mean["static"]


# ---- tuning ----------------------------------------------------------------------------------------------------------
def test_tuning_finds_the_options_that_cost_least_on_its_own_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = load("ls-2x1-t20")
    seen: list[int] = []

    def watched(problem, decide, seeds):
        seen.extend(seeds)
        return simulate(problem, decide, seeds)

    monkeypatch.setattr(tuning, "simulate", watched)
    options = tuning.tuned_options("greedy", instance)
    assert min(seen) >= tuning.FIRST_SEED > 10**6
    exact = {h: evaluate_policy(instance, make_rule("greedy", instance, periods=h)).expected_cost() for h in (1, 3, 5)}
    found = evaluate_policy(instance, make_rule("greedy", instance, **options)).expected_cost()
    assert found <= min(exact.values()) * 1.02


@pytest.mark.parametrize("rule", ["greedy", "base-stock"])
def test_a_tuned_rule_costs_no_more_than_its_defaults_and_ignores_the_path(rule: str) -> None:
    instance = load("ls-2x1-t20")
    default, tuned = (
        evaluate_policy(instance, make_rule(key, instance)).expected_cost() for key in (rule, f"tuned-{rule}")
    )
    assert expected_cost(instance) - 1e-9 <= tuned <= default * 1.02
    assert tuning.tuned_options(rule, instance.scenario(4)) == tuning.tuned_options(rule, instance)


def test_only_rules_with_a_grid_can_be_tuned() -> None:
    with pytest.raises(UnknownNameError):
        tuning.tuned_options("static", load("ls-2x1"))
