"""Transitions against the authors' figures, scenarios, and the checker of plans."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orl.envs.lot_sizing import formats, library
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.distributions import binomial, deterministic
from orl.envs.lot_sizing.generators import paper_recipe, tiny
from orl.envs.lot_sizing.instance import LotSizingPlan
from orl.envs.lot_sizing.scenario import demand_path, initial_state, replay
from orl.envs.lot_sizing.transition import decide, realise

# inventory, set-up, action, demand, next inventory, next set-up, costs (set-up, lost, holding), incompatible: ls-4x2
GOLDEN_4X2 = [
    ([3, 9, 3, 5], [1, 3], [3, 4], [1, 2, 0, 2], [2, 7, 5, 2], [3, 4], (4.0, 0.0, 1.6), True),
    ([2, 7, 5, 2], [3, 4], [0, 4], [4, 2, 2, 3], [0, 5, 3, 0], [0, 4], (0.0, 7.0, 0.8), True),
    ([0, 5, 3, 0], [0, 4], [2, 2], [3, 0, 1, 3], [0, 7, 2, 0], [2, 2], (4.0, 12.0, 0.9), False),
    ([0, 6, 2, 0], [3, 1], [4, 0], [2, 0, 2, 2], [0, 6, 0, 0], [4, 0], (2.0, 6.0, 0.6), False),
    ([2, 9, 0, 0], [2, 2], [2, 2], [2, 2, 1, 0], [0, 10, 0, 0], [2, 2], (0.0, 2.0, 1.0), False),
]


def golden_file():
    root = os.environ.get("ORL_DATA_DIR")
    candidates = [] if not root else [Path(root, folder, "golden_transitions.json") for folder in FOLDERS]
    return next((path for path in candidates if path.is_file()), None)


FOLDERS = ("lot_sizing", "lotsizing")


def transition(instance, inventory, setup, action, demand, incompatible):
    post, setup, setup_cost = decide(instance, inventory, setup, action, incompatible)
    level, _, lost_cost, holding_cost = realise(instance, post, np.array(demand))
    return level.tolist(), setup.tolist(), float(setup_cost), float(lost_cost), float(holding_cost)


@pytest.mark.parametrize("row", GOLDEN_4X2)
def test_transitions_of_the_authors_code(row):
    inventory, setup, action, demand, *expected, incompatible = row
    instance = library.load("ls-4x2")
    level, state, *costs = transition(instance, inventory, setup, action, demand, "reference")
    assert [level, state] == expected[:2]
    assert costs == pytest.approx(expected[2], abs=1e-12)
    if not incompatible:
        again = transition(instance, inventory, setup, action, demand, "mask")
        assert again == (level, state, *costs)


@pytest.mark.skipif(golden_file() is None, reason="needs the golden transitions in ORL_DATA_DIR")
def test_all_recorded_transitions():
    path = golden_file()
    rows = 0
    for name, transitions in json.loads(path.read_text()).items():
        instance = formats.read(path.with_name(f"{name}.json"))
        for row in transitions:
            for incompatible in ("reference",) if row["incompatible"] else ("reference", "mask", "waste"):
                found = transition(instance, row["inv"], row["setup"], row["action"], row["demand"], incompatible)
                assert found[:2] == (row["next_inv"], row["next_setup"])
                assert found[2:] == pytest.approx((row["setup_cost"], row["lost_cost"], row["holding_cost"]), abs=1e-9)
            rows += 1
    assert rows == 180


def one_item(**changes):
    values = {
        "horizon": 3,
        "production": [[40]],
        "setup_costs": [[5]],
        "setup_loss": [[1]],
        "holding_costs": 1.0,
        "lost_sales_costs": 10.0,
        "max_inventory": 100,
        "demand": deterministic([8]),
    }
    return lot_sizing(**(values | changes))


def plan_of(instance, actions, demand, inventory, setup):
    arrays = (np.array(a, np.int64) for a in (actions, demand, inventory, setup))
    return LotSizingPlan(*arrays)


def test_an_idle_machine_forgets_its_setup():
    instance = one_item()
    _, costs = replay(instance, plan_of(instance, [[1], [0], [1]], [[8]] * 3, [0], [0]))
    assert costs[:, 0].tolist() == [5, 0, 5]
    levels, costs = replay(instance, plan_of(instance, [[1], [1], [1]], [[8]] * 3, [0], [0]))
    assert costs[:, 0].tolist() == [5, 0, 0]
    assert levels[:, 0].tolist() == [0, 31, 63, 95]


def test_the_storage_limit_applies_after_demand():
    instance = one_item(horizon=2)
    levels, costs = replay(instance, plan_of(instance, [[1], [1]], [[8], [8]], [100], [1]))
    assert levels[:, 0].tolist() == [100, 100, 100]  # 140 after the decision, 132 after demand, 100 kept
    assert costs.sum() == 200


def test_backlog_is_owed_up_to_its_limit_and_then_lost():
    instance = one_item(max_backlog=5, backlog_costs=2.0, initial_inventory=[-2])
    levels, costs = replay(instance, plan_of(instance, [[0], [0], [1]], [[8]] * 3, [-2], [0]))
    assert levels[:, 0].tolist() == [-2, -5, -5, 26]  # 5 of 8 lost, then 8 of 8, then 39 made
    assert costs.tolist() == [[0, 50, 10], [0, 80, 10], [5, 0, 26]]


def test_change_overs_may_depend_on_the_item_before():
    instance = lot_sizing(
        horizon=3,
        production=[[4, 4]],
        setup_costs=[[[1, 2], [0, 7], [3, 0]]],
        setup_loss=[[[0, 1], [0, 4], [9, 0]]],
        holding_costs=0.0,
        lost_sales_costs=1.0,
        max_inventory=50,
        demand=deterministic([0, 0]),
    )
    levels, costs = replay(instance, plan_of(instance, [[1], [2], [1]], [[0, 0]] * 3, [0, 0], [0]))
    assert costs[:, 0].tolist() == [1, 7, 3]
    assert levels.tolist() == [[0, 0], [4, 0], [4, 0], [4, 0]]  # losses of 4 and 9 leave nothing of 4 units


def test_units_are_conserved():
    rng = np.random.default_rng(0)
    for seed in range(40):
        instance = tiny(seed, n_items=3, n_machines=2, horizon=12, backlog=seed % 2 == 0)
        scenario = instance.scenario(seed)
        actions = rng.integers(0, 4, (12, 2))
        actions = np.where(np.take_along_axis(scenario.production, np.maximum(actions.T - 1, 0), 1).T > 0, actions, 0)
        level, setup = scenario.initial_inventory, scenario.initial_setup
        for t in range(12):
            post, setup, _ = decide(scenario, level, setup, actions[t])
            after, lost, _, _ = realise(scenario, post, scenario.demand_path[t])
            discarded = post - scenario.demand_path[t] + lost - after
            assert (discarded >= 0).all()
            assert (lost >= 0).all()
            assert not (lost * (after > -scenario.max_backlog)).any()
            assert not (discarded * (after < scenario.max_inventory)).any()
            assert (post >= level).all()
            level = after


# ---- scenarios -----------------------------------------------------------------------------------------------------
def test_a_scenario_is_a_function_of_its_seed():
    instance = paper_recipe(6, 2, 0)
    one, same, other = instance.scenario(3), instance.scenario(3), instance.scenario(4)
    assert one.same_as(same)
    assert (one.demand_path != other.demand_path).any()
    assert one.name == "ls-6x2-s0/scenario-3"
    fixed = instance.scenario(3, "fixed")
    assert fixed.name == "ls-6x2-s0/scenario-3-fixed"
    assert (fixed.demand_path == one.demand_path).all()
    assert (fixed.initial_inventory == instance.initial_inventory).all()
    assert one.scenario(9) is one


def test_drawing_leaves_the_instance_alone():
    instance = library.load("ls-6x3")
    before = json.dumps(instance.to_json())
    scenario = instance.scenario(0)
    replay(instance, plan_of(instance, np.ones((100, 3)), scenario.demand_path, [0] * 6, [0] * 3))
    assert json.dumps(instance.to_json()) == before
    for array in (instance.production, scenario.demand_path, scenario.initial_inventory, instance.demand.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_random_starts_have_the_stated_distribution():
    instance = replace(library.load("ls-4x2"), production=np.array([[3, 1, 3, 3], [0, 0, 0, 0]]))
    stock, setup = initial_state(instance, np.arange(20_000, dtype=np.uint64))
    counts = np.stack([np.bincount(stock[:, i], minlength=10) for i in range(4)])
    assert counts.shape == (4, 10)  # 0..max_inventory - 1
    assert abs(counts / 2000 - 1).max() < 0.15
    assert np.bincount(setup[:, 0], minlength=5)[0] == 0
    assert abs(np.bincount(setup[:, 0])[1:] / 5000 - 1).max() < 0.1
    assert not setup[:, 1].any()  # it can make nothing


def test_demand_does_not_depend_on_the_horizon_or_on_the_batch():
    long, short = library.load("ls-4x2"), library.load("ls-4x2-t20")
    keys = np.arange(5, dtype=np.uint64)
    paths = demand_path(long, keys)
    assert (paths[:, :20] == demand_path(short, keys)).all()
    assert (demand_path(long, keys[3]) == paths[3]).all()


# ---- the checker ---------------------------------------------------------------------------------------------------
@pytest.fixture
def scenario():
    return library.load("ls-4x2-t6/scenario-2")


@pytest.fixture
def plan(scenario):
    actions = np.array([[1, 2], [1, 2], [4, 3], [4, 3], [3, 0], [0, 2]])
    return LotSizingPlan(actions, scenario.demand_path, scenario.initial_inventory, scenario.initial_setup)


def test_a_plan_is_feasible_and_costs_what_its_replay_costs(scenario, plan):
    check = scenario.check(plan)
    assert check.feasible
    assert check.violations == ()
    assert check.objective == pytest.approx(replay(scenario, plan)[1].sum())
    assert library.load("ls-4x2-t6").check(plan).objective == check.objective
    again = LotSizingPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert scenario.check(again) == check


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda p: {"actions": p.actions[:-1]}, "actions: expected integers [6, 2], got int64[5, 2]"),
        (lambda p: {"actions": p.actions.astype(float)}, "actions: expected integers [6, 2], got float64[6, 2]"),
        (lambda p: {"actions": p.actions + 3}, "actions[0, 1]: 5 is not in 0..4"),
        (lambda p: {"actions": p.actions - 1}, "actions[4, 1]: -1 is not in 0..4"),
        (lambda p: {"actions": np.where(p.actions == 2, 4, p.actions)}, "period 0: machine 2 cannot make item 4"),
        (lambda p: {"demand": p.demand[:, :3]}, "demand: expected integers [6, 4], got int64[6, 3]"),
        (lambda p: {"demand": p.demand * 0 - 1}, "demand[0, 0]: -1 is not in 0.."),
        (lambda p: {"demand": p.demand + 1}, "period 0: demand of item 1 is"),
        (lambda p: {"initial_inventory": p.initial_inventory + 1}, "the scenario starts with"),
        (lambda p: {"initial_setup": np.array([0, 0])}, "initial_setup[0] is 0, the scenario starts with"),
        (lambda p: {"initial_setup": np.array([0, 9])}, "initial_setup[1]: 9 is not in 0..4"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(scenario, plan, change, sentence):
    check = scenario.check(replace(plan, **change(plan)))
    assert not check.feasible
    assert any(sentence in violation for violation in check.violations), check.violations
    assert len(check.violations) <= 36


def test_without_a_path_demand_must_be_possible(plan):
    instance = library.load("ls-4x2-t6")
    demand = plan.demand.copy()
    demand[3, 1] = 5  # Binomial(4, 0.4) ends at 4
    check = instance.check(replace(plan, demand=demand))
    assert check.violations == ("period 3: demand 5 of item 2 has probability 0",)
    check = instance.check(replace(plan, initial_inventory=np.array([0, 0, 0, 11])))
    assert check.violations == ("initial_inventory[3] is 11, outside 0..10",)
    seasons = lot_sizing(
        horizon=2,
        production=[[1]],
        setup_costs=0,
        setup_loss=0,
        holding_costs=1,
        lost_sales_costs=1,
        max_inventory=5,
        demand=deterministic([[1], [2]]),
    )
    assert seasons.check(plan_of(seasons, [[0], [0]], [[1], [2]], [0], [0])).feasible
    assert not seasons.check(plan_of(seasons, [[0], [0]], [[2], [1]], [0], [0])).feasible


def test_binomial_paths_are_always_possible():
    instance = replace(library.load("ls-2x1-t6"), demand=binomial(2, 3, 0.3))
    for seed in range(20):
        scenario = instance.scenario(seed)
        start = (scenario.initial_inventory, scenario.initial_setup)
        idle = LotSizingPlan(np.zeros((6, 1), np.int64), scenario.demand_path, *start)
        assert instance.check(idle).feasible
        assert scenario.check(idle).feasible
