"""Plans of reservoirs: completed by stage programmes, checked like dispatches, refused in words; releases as data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_cases import one_bus_dispatch
from hydrothermal_toys import random_case, tri3

from orl.common.errors import InputError
from orl.envs.hydrothermal import viewer
from orl.envs.hydrothermal.dual_pool import DualPool
from orl.envs.hydrothermal.generators import cascade
from orl.envs.hydrothermal.instance import NETWORKS, Dispatch, HydrothermalInstance
from orl.envs.hydrothermal.plan import ReservoirPlan, read_solution
from orl.envs.hydrothermal.reach import ReachableMap
from orl.envs.hydrothermal.stage_lp import StageError, StageLP


def random_plan(scenario: HydrothermalInstance, seed: int, stages: int | None = None) -> ReservoirPlan:
    """A plan whose volumes lie at random between what can be reached."""
    rng, reach, n = np.random.default_rng(seed), ReachableMap(scenario), scenario.n_plants
    volumes = [scenario.initial_volume]
    for inflow in scenario.path_inflows(scenario.columns)[:stages]:
        fractions = rng.choice([0.0, 1.0, rng.random()], n)
        volumes.append(reach(volumes[-1][None], inflow[None], fractions[None]).volumes[0])
    return ReservoirPlan(scenario.columns[: len(volumes) - 1], np.array(volumes))


def operated_plan(scenario: HydrothermalInstance, seed: int) -> ReservoirPlan:
    """A plan that turbines at random."""
    rng, reach, n = np.random.default_rng(seed), ReachableMap(scenario), scenario.n_plants
    volumes, turbined, spilled = [scenario.initial_volume], [], []
    for inflow in scenario.path_inflows(scenario.columns):
        done = reach.operate(volumes[-1][None], inflow[None], rng.random((1, n)) * scenario.most_outflow)
        volumes.append(done.volumes[0])
        turbined.append(done.turbined[0])
        spilled.append(done.spilled[0])
    return ReservoirPlan(scenario.columns, np.array(volumes), np.array(turbined), np.array(spilled))


# ---- completion ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", range(4))
def test_every_reachable_plan_has_a_dispatch_of_the_cost_of_its_stages(network, seed):
    scenario = random_case(seed, network).scenario(seed)
    plan = random_plan(scenario, seed)
    check = scenario.check(plan)
    assert check.feasible, check.violations
    inflows = scenario.path_inflows(scenario.columns)
    water = plan.volumes[:-1] + scenario.water_factor * inflows - plan.volumes[1:]
    cost = sum(StageLP(scenario, t).solve(water[t]).cost for t in range(scenario.horizon))
    assert check.objective == pytest.approx(cost, rel=1e-9, abs=1e-6)
    assert check.objective >= scenario.lower_bound() - 1e-6


def test_a_plan_costs_at_most_what_a_dispatch_with_its_volumes_costs():
    for seed in range(5):
        scenario = cascade(5, 1, seed, network="copper", horizon=6).scenario(0)
        dispatch = one_bus_dispatch(scenario, np.random.default_rng(seed).random((6, 5)))
        check = scenario.check(ReservoirPlan(scenario.columns, dispatch.volumes))
        assert check.feasible, check.violations
        assert check.objective <= scenario.check(dispatch).objective + 1e-6


@pytest.mark.parametrize("network", NETWORKS)
def test_given_releases_are_kept_and_priced(network):
    scenario = random_case(2, network).scenario(1)
    plan = operated_plan(scenario, 0)
    dispatch, check = plan.dispatch(scenario), scenario.check(plan)
    assert check.feasible, check.violations
    np.testing.assert_array_equal(dispatch.turbined, plan.turbined)
    np.testing.assert_array_equal(dispatch.spilled, plan.spilled)
    free = scenario.check(ReservoirPlan(plan.columns, plan.volumes))
    assert free.objective <= check.objective + 1e-6


def test_a_part_of_a_plan_has_a_part_of_the_dispatch_and_a_picture():
    scenario = tri3(horizon=6).scenario(3)
    plan = random_plan(scenario, 0)
    whole = plan.dispatch(scenario)
    part = ReservoirPlan(plan.columns[:2], plan.volumes[:3])
    np.testing.assert_allclose(part.dispatch(scenario).power, whole.power[:2], atol=1e-9)
    pictures = [
        viewer.rgb(scenario, found) for found in (plan, part, ReservoirPlan(plan.columns[:0], plan.volumes[:1]))
    ]
    assert len({picture.shape for picture in pictures}) == 1
    np.testing.assert_array_equal(pictures[0], viewer.rgb(scenario, whole))
    verdict = scenario.check(part)
    assert not verdict.feasible
    assert "2 stages" in verdict.violations[0]


# ---- what is refused -----------------------------------------------------------------------------------------------
def test_a_plan_that_no_dispatch_meets_names_the_stage():
    scenario = tri3().scenario_of([0, 0, 0, 0])
    plan = random_plan(scenario, 1)
    greedy = plan.volumes.copy()
    greedy[3] = scenario.max_volume
    wrong = ReservoirPlan(plan.columns, greedy)
    check = scenario.check(wrong)
    assert not check.feasible
    assert check.objective is None
    assert check.violations[0].startswith("stage 2: ")
    with pytest.raises(StageError, match="stage 2: "):
        wrong.dispatch(scenario)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: replace(p, volumes=p.volumes[:-1]), "volumes"),
        (lambda p: replace(p, volumes=p.volumes[:, :2]), "volumes"),
        (lambda p: replace(p, volumes=np.where(p.volumes > 50, np.nan, p.volumes)), "not a finite number"),
        (lambda p: replace(p, volumes=p.volumes.astype(str)), "volumes"),
        (lambda p: replace(p, volumes=p.volumes + 1.0), "volumes"),
        (lambda p: replace(p, columns=p.columns.astype(float)), "columns"),
        (lambda p: replace(p, columns=np.int64(3)), "columns"),
        (lambda p: replace(p, columns=np.array([0, 1, 2, 3])), "columns"),
        (lambda p: replace(p, columns=np.array([2, 1, 2, 0])), "columns"),
        (lambda p: ReservoirPlan(np.zeros(5, np.int64), np.zeros((6, 3))), "5 stages"),
        (lambda p: replace(p, turbined=np.zeros((4, 3))), "without the other"),
        (lambda p: replace(p, turbined=np.zeros((4, 2)), spilled=np.zeros((4, 3))), "turbined"),
        (lambda p: replace(p, turbined=np.zeros((4, 3)), spilled=np.zeros((4, 3))), "water balance"),
        (lambda p: replace(p, turbined=np.full((4, 3), 99.0), spilled=np.zeros((4, 3))), "stage 0"),
    ],
)
def test_the_check_of_a_broken_plan_says_what_is_wrong(change, word):
    scenario = tri3().scenario_of([0, 1, 2, 0])
    check = scenario.check(change(random_plan(scenario, 3)))
    assert not check.feasible
    assert any(word in violation for violation in check.violations), check.violations


def test_a_plan_that_does_not_fit_cannot_be_completed():
    scenario = tri3().scenario_of([0, 1, 2, 0])
    with pytest.raises(InputError, match="volumes"):
        ReservoirPlan(scenario.columns, np.zeros((4, 3))).dispatch(scenario)


# ---- JSON ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("make", [random_plan, operated_plan])
def test_plans_survive_json_to_the_last_bit(joint, make):
    scenario = tri3(joint=joint).scenario(2)
    plan = make(scenario, 7)
    again = read_solution(json.loads(json.dumps(plan.to_json())))
    assert isinstance(again, ReservoirPlan)
    for name in ("columns", "volumes", "turbined", "spilled"):
        before, after = getattr(plan, name), getattr(again, name)
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(before, after)
            assert before.dtype == after.dtype
    assert scenario.check(again) == scenario.check(plan)
    whole = read_solution(plan.dispatch(scenario).to_json())
    assert isinstance(whole, Dispatch)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema": "orl.lot_sizing.plan/1"}, "schema"),
        ({"volumes": [[0, 0, 0]] * 4}, "volumes"),
        ({"volumes": [[0, 0, "x"]] * 5}, "volumes"),
        ({"columns": [0, 0.5, 1, 2]}, "columns"),
        ({"turbined": [[0, 0, 0]] * 4}, "turbined, spilled"),
        ({"turbined": [[0, 0]] * 4, "spilled": [[0, 0]] * 4}, "turbined"),
    ],
)
def test_bad_json_is_refused_by_name(change, field):
    data = random_plan(tri3().scenario(0), 0).to_json() | change
    with pytest.raises(InputError) as caught:
        read_solution(data, "plan.json")
    assert caught.value.source == "plan.json"
    assert caught.value.field.startswith(field)
    for name in ("columns", "volumes"):
        with pytest.raises(InputError, match=name):
            read_solution(
                {key: value for key, value in random_plan(tri3().scenario(0), 0).to_json().items() if key != name}
            )
    for nothing in (None, [], {}):
        with pytest.raises(InputError, match="schema"):
            read_solution(nothing)


# ---- the form with releases as data ----------------------------------------------------------------------------------
@pytest.mark.parametrize("network", NETWORKS)
def test_the_release_form_is_the_stage_with_its_turbined_water_fixed(network):
    """Against the storage form with bounds on turbined water set equal."""
    instance = random_case(4, network)
    rng, n = np.random.default_rng(0), instance.n_plants
    turbined = instance.least_outflow + rng.random((20, n)) * (instance.most_outflow - instance.least_outflow)
    lp, pool = StageLP(instance, form="release"), DualPool(instance, form="release")
    costs, duals = lp.costs_and_duals(instance.production_factor * turbined)
    np.testing.assert_allclose(pool.costs_and_duals(instance.production_factor * turbined)[0], costs, rtol=1e-9)
    for q, cost in zip(turbined, costs, strict=True):
        fixed = replace(instance, min_outflow=q, max_outflow=q, max_volume=np.full(n, 1e6))
        assert cost == pytest.approx(StageLP(fixed, form="storage").solve(np.full(n, 1e4)).cost, rel=1e-7, abs=1e-6)
    apart = (turbined[1:] - turbined[:1]) * instance.production_factor
    assert (costs[1:] >= costs[0] + apart @ duals[0] - 1e-6).all()  # convex, with these derivatives
    assert lp.model.rows["production"] == slice(0, n)
    assert not {"turbined", "spilled", "volume"} & {k for k, v in lp.model.columns.items() if v.stop > v.start}


def test_the_release_form_needs_surplus():
    with pytest.raises(InputError, match="surplus"):
        StageLP(tri3(surplus=False), form="release")
