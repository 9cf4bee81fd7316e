"""Rules of hydrothermal dispatch: what each decides, that none looks ahead, and panels played in batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hydrothermal_toys import TRI3_OPTIMA, case, from_files, random_case, tri3

from orl.common.errors import InputError, UnknownNameError
from orl.envs.hydrothermal.dual_pool import DualPool
from orl.envs.hydrothermal.instance import HydrothermalInstance
from orl.envs.hydrothermal.library import load
from orl.envs.hydrothermal.plan import ReservoirPlan
from orl.envs.hydrothermal.reach import ReachableMap
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.solvers.hydrothermal import cut_rule as cut_rule_module
from orl.solvers.hydrothermal import rules
from orl.solvers.hydrothermal.deterministic_equivalent import wait_and_see
from orl.solvers.hydrothermal.myopic import energy_of_water
from orl.solvers.hydrothermal.problem_key import problem_key
from orl.solvers.hydrothermal.rules import RULES, make_rule
from orl.solvers.hydrothermal.sddp import SDDP
from orl.solvers.hydrothermal.simulation import play, reach_actions, simulate, target_actions

ALL_PATHS = np.array(np.meshgrid(*[range(3)] * 4, indexing="ij")).reshape(4, -1)
OPTIMUM = TRI3_OPTIMA[4]
OPTIONS: dict[str, dict[str, Any]] = {
    "random": {"seed": 0},
    "rolling-horizon": {"window": 2, "scenarios": 2},
    "sddp": {"iterations": 15},
}


def options(rule: str) -> dict[str, Any]:
    return OPTIONS.get(rule, {})


def states(instance: HydrothermalInstance, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    stage = rng.integers(0, instance.horizon, n)
    volumes = rng.uniform(instance.min_volume, instance.max_volume, (n, instance.n_plants))
    columns = rng.integers(0, instance.n_columns, n)
    inflows = np.array([instance.inflow(int(t), int(c)) for t, c in zip(stage, columns, strict=True)])
    return stage, volumes, inflows


# ---- what they decide ------------------------------------------------------------------------------------------------
def test_empty_and_full_take_the_ends_of_what_can_be_reached() -> None:
    for seed in range(3):
        instance = random_case(seed)
        reach, state = ReachableMap(instance), states(instance, 40, seed)
        low, high = make_rule("empty", instance)(*state), make_rule("full", instance)(*state)
        assert (low == 0).all()
        full = reach(*state[1:], np.ones_like(low))
        assert np.array_equal(high, full.upper)
        assert (high <= instance.max_volume).all()
        assert high.sum() > 0


def test_random_decisions_follow_the_seed_or_the_global_generator() -> None:
    instance = tri3()
    stage, volumes, inflows = states(instance, 5)
    same_state = np.tile(volumes[0], (5, 1)), np.tile(inflows[0], (5, 1))
    one, again, other = (make_rule("random", instance, seed=s)(stage, *same_state) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.isclose(one, other).any()
    assert len(np.unique(one[:, 0])) == 5  # copies differ
    free = make_rule("random", instance)
    drawn = []
    for seed in (0, 0, 1):
        np.random.seed(seed)  # noqa: NPY002
        drawn.append(free(stage, volumes, inflows))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


@pytest.mark.parametrize("network", ["copper", "transport", "dc"])
def test_myopic_costs_least_and_then_stores_most_energy(network: Any) -> None:
    better = 0
    for seed in range(4):
        instance = random_case(seed, network)
        stage, volumes, inflows = states(instance, 15, seed)
        after = make_rule("myopic", instance)(stage, volumes, inflows)
        energy = energy_of_water(instance)
        for t, v, w, a in zip(stage.tolist(), volumes, inflows, after, strict=True):
            water = v + instance.water_factor * w
            any_cheapest = StageLP(instance, t, "storage").solve(water)
            found = StageLP(instance, t).solve(water - a).cost
            assert found == pytest.approx(any_cheapest.cost, rel=1e-7, abs=1e-3)
            more = energy @ (a - any_cheapest.primal["volume"])
            assert more >= -1e-5
            better += more > 1e-3
    assert better  # some vertex of the cheapest face wastes water


def test_myopic_keeps_water_that_is_worth_nothing_now() -> None:
    instance = case(
        horizon=1,
        max_volume=[5, 9],
        initial_volume=[2, 3],
        max_outflow=[100, 100],
        production_factor=[1, 1],
        thermal=[(10, 1)],
        demand=[0],
        inflows=[[[4], [1]]],
        links=((0, 1),),
    )
    after = make_rule("myopic", instance)(np.array([0]), np.array([[2.0, 3.0]]), np.array([[4.0, 1.0]]))
    assert after == pytest.approx(np.array([[5.0, 5.0]]))  # one hm3 overflows from the first plant to the second


def test_energy_counts_all_turbines_below() -> None:
    assert energy_of_water(tri3()).tolist() == [1.6, 0.6, 0.8]
    top_and_bottom = replace(tri3(), upstream_first=np.array([2, 0, 1]))
    assert energy_of_water(top_and_bottom).tolist() == [1.6, 0.6, 0.8]


def test_the_cuts_of_a_file_an_object_and_a_training_decide_alike(tmp_path: Any) -> None:
    instance, state = tri3(), states(tri3(), 12)
    sddp = SDDP(instance)
    sddp.train(iterations=15)
    sddp.save(tmp_path / "cuts.json")
    expected = np.array([sddp.decide(int(t), v, w) for t, v, w in zip(*state, strict=True)])
    for given in ({"iterations": 15}, {"cuts": sddp}, {"cuts": str(tmp_path / "cuts.json")}):
        assert np.allclose(make_rule("sddp", instance, **given)(*state), expected, atol=1e-6)
    assert sddp.iterations == 15
    make_rule("sddp", instance, cuts=sddp, iterations=2)
    assert sddp.iterations == 17
    make_rule("sddp", replace(instance, initial_volume=np.zeros(3)), cuts=sddp)
    with pytest.raises(InputError, match="cuts of another problem"):
        make_rule("sddp", tri3(6), cuts=sddp)


def test_an_interrupted_training_makes_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_rule_module.SDDP, "train", lambda self, **limits: "interrupted")
    with pytest.raises(KeyboardInterrupt):
        make_rule("sddp", tri3())


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="myopic"):
        make_rule("myopik", tri3())


# ---- no rule looks ahead or back -------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", RULES)
def test_no_rule_is_given_the_columns_of_a_scenario(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[HydrothermalInstance] = []
    factory = rules.rule_factory(rule)

    def spy(instance: HydrothermalInstance, **given: Any) -> Any:
        seen.append(instance)
        return factory(instance, **given)

    monkeypatch.setattr(rules, "rule_factory", lambda key: spy)
    make_rule(rule, tri3().scenario_of([0, 1, 2, 0]), **options(rule))
    assert [instance.columns for instance in seen] == [None]


@pytest.mark.parametrize("rule", RULES)
def test_decisions_are_a_function_of_the_state(rule: str) -> None:
    instance = random_case(5, horizon=4)
    decide, state = make_rule(rule, instance, **options(rule)), states(instance, 8)
    first = decide(*state)
    for order in (np.arange(8)[::-1], np.array([3, 3, 0, 7, 1, 2, 6, 5, 4])):
        if rule != "random":
            assert np.array_equal(decide(*(part[order] for part in state)), first[order])
    fresh = make_rule(rule, instance, **options(rule))
    assert np.array_equal(fresh(*state), first)


@pytest.mark.parametrize("rule", RULES)
def test_over_all_paths_no_rule_costs_less_than_the_optimum(rule: str) -> None:
    """Whoever saw an inflow too early would fall below it; one stage changed changes nothing before it."""
    instance = tri3()
    costs, volumes = simulate(instance, make_rule(rule, instance, **options(rule)), ALL_PATHS)
    assert costs.sum(1).mean() >= OPTIMUM * (1 - 1e-7)
    assert (costs.sum(1) >= wait_and_see(instance, ALL_PATHS) - 1e-3).all()
    if rule != "random":
        before = volumes.reshape(3, 3, 3, 3, 5, 3)  # by the columns of the four stages
        for t in range(4):
            early = before[..., : t + 1, :]
            same = np.broadcast_to(early[(slice(None),) * t + (slice(0, 1),) * (4 - t)], early.shape)
            assert np.array_equal(early, same)


# ---- panels ----------------------------------------------------------------------------------------------------------
def test_cuts_play_the_optimum_of_tri3_over_all_paths() -> None:
    sddp = SDDP(tri3())
    sddp.train(iterations=120)
    costs, volumes = simulate(tri3(), make_rule("sddp", tri3(), cuts=sddp), ALL_PATHS)
    assert costs.sum(1).mean() == pytest.approx(OPTIMUM, rel=1e-3)  # cuts are exact where training went
    own, _ = sddp.simulate(ALL_PATHS)  # starts its programmes warm and may meet other ones of several optima
    assert own.sum(1).mean() == pytest.approx(costs.sum(1).mean(), rel=1e-3)
    assert volumes.shape == (81, 5, 3)


@pytest.mark.parametrize("rule", ["myopic", "random", "rolling-horizon"])
def test_a_panel_is_priced_as_the_checker_prices_its_plans(rule: str) -> None:
    instance = random_case(2, "transport", horizon=5)
    columns = np.random.default_rng(0).integers(0, 3, (5, 4))
    pool = DualPool(instance)
    costs, volumes = simulate(instance, make_rule(rule, instance, **options(rule)), columns, pool)
    assert pool.counts.queries == 20
    assert np.array_equal(costs, np.round(costs, 6))
    for j in range(4):
        scenario = instance.scenario_of(columns[:, j])
        check = scenario.check(ReservoirPlan(scenario.columns, volumes[j]))
        assert check.feasible, check.violations
        assert check.objective == pytest.approx(costs[j].sum(), rel=1e-7, abs=1e-3)


def test_water_is_neither_made_nor_lost() -> None:
    instance = load("cascade-6x5-s1").with_horizon(6)
    columns = np.zeros((6, 1), np.int64)
    _, volumes = simulate(instance, make_rule("random", instance, seed=3), columns)
    scenario = instance.scenario_of(columns[:, 0])
    dispatch = ReservoirPlan(scenario.columns, volumes[0]).dispatch(scenario)
    factor, inflow = instance.water_factor, instance.path_inflows(scenario.columns)
    turbined_away = ~instance.turbine_to.any(1)
    spilled_away = ~instance.spill_to.any(1)
    left = factor * dispatch.turbined[:, turbined_away].sum() + dispatch.spilled[:, spilled_away].sum()
    came = volumes[0, 0].sum() + factor * inflow.sum()
    assert came - left == pytest.approx(volumes[0, -1].sum(), rel=1e-9)


def test_panels_of_another_shape_are_refused() -> None:
    decide = make_rule("full", tri3())
    for columns in ([0, 1, 2, 0], [[0], [1]], [[0], [1], [2], [3]], [[0.5]] * 4):
        with pytest.raises(InputError, match="columns"):
            simulate(tri3(), decide, columns)


def test_plants_that_draw_apart_have_a_column_each() -> None:
    instance = replace(tri3(), joint=False)
    columns = np.random.default_rng(0).integers(0, 3, (4, 2, 3))
    costs, _ = simulate(instance, make_rule("rolling-horizon", instance, window=3, scenarios=2), columns)
    assert costs.shape == (2, 4)
    assert (costs.sum(1) >= wait_and_see(instance, columns) - 1e-3).all()


def test_the_panel_of_bolivia_costs_what_is_known() -> None:
    instance = from_files("bolivia")
    columns = np.random.default_rng(20260706).integers(0, 15, size=(96, 30))
    pool = DualPool(instance)
    for rule, known in (("empty", 358_983), ("full", 387_500)):
        costs, _ = simulate(instance, make_rule(rule, instance), columns, pool)
        assert costs.sum(1).mean() == pytest.approx(known, rel=1e-4)


# ---- actions ---------------------------------------------------------------------------------------------------------
def test_actions_lead_to_the_volumes_asked_for() -> None:
    for seed in range(4):
        instance = random_case(seed)
        reach, (stage, volumes, inflows) = ReachableMap(instance), states(instance, 50, seed)
        shares = np.random.default_rng(seed).choice([0.0, 0.25, 0.7, 1.0], volumes.shape)
        wanted = reach(volumes, inflows, shares).volumes
        actions = reach_actions(reach, volumes, inflows, wanted)
        assert (np.abs(actions) <= 1).all()
        assert np.allclose(reach(volumes, inflows, (actions + 1) / 2).volumes, wanted, rtol=1e-12, atol=1e-12)
        named = (target_actions(instance, wanted) + 1) / 2
        targets = instance.min_volume + named * (instance.max_volume - instance.min_volume)
        assert np.allclose(targets, wanted, rtol=1e-12, atol=1e-12)
        far = play(reach, lambda *state: np.full_like(state[1], 1e9), stage, volumes, inflows)
        assert np.array_equal(far, reach(volumes, inflows, np.ones_like(volumes)).volumes)


def test_scenarios_of_a_problem_have_one_key() -> None:
    instance = tri3()
    assert problem_key(instance) == problem_key(replace(instance.scenario(3), name="other"))
    changed = [
        replace(instance, deficit_cost=1.0),
        replace(instance, network="dc"),
        replace(instance, joint=False),
        replace(instance, initial_volume=np.zeros(3)),
        replace(instance, inflows=instance.inflows * 1.0000001),
    ]
    assert len({problem_key(other) for other in [instance, *changed]}) == 6
    assert problem_key(changed[3], initial_volume=False) == problem_key(instance, initial_volume=False)
