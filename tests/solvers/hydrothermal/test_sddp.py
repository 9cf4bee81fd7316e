"""SDDP: known optima, cuts that stay below the truth, selection that changes nothing, and training that can stop."""

from __future__ import annotations

import csv
import json
import math
import signal
from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_toys import (
    TRI3_OPTIMA,
    TRI3_WAIT_AND_SEE_4,
    fast_hydro_thermal,
    first_columns,
    first_steps,
    from_files,
    infinite_horizon,
    random_case,
    tri3,
)

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import NETWORKS
from orl.solvers.hydrothermal import sddp as sddp_module
from orl.solvers.hydrothermal.deterministic_equivalent import DeterministicEquivalent, wait_and_see
from orl.solvers.hydrothermal.risk import Expectation, MeanCVaR
from orl.solvers.hydrothermal.scenario_tree import TreeProgramme, inflow_tree, tree_cost
from orl.solvers.hydrothermal.sddp import SDDP
from orl.solvers.hydrothermal.stopping import BoundStalls, RelativeGap, StatisticalGap, TrainingRow

OPTIMUM = TRI3_OPTIMA[4]
ALL_PATHS = np.array(np.meshgrid(*[range(3)] * 4, indexing="ij")).reshape(4, -1)


def bounds_of(sddp: SDDP) -> np.ndarray:
    return np.array([row.lower_bound for row in sddp.rows])


@pytest.fixture(scope="module")
def trained() -> SDDP:
    sddp = SDDP(tri3())
    sddp.train(iterations=150)
    return sddp


# ---- Known optima ----------------------------------------------------------------------------------------------------
def test_tri3_is_solved_in_150_iterations(trained) -> None:
    bounds = bounds_of(trained)
    assert (np.diff(bounds) >= -1e-9 * OPTIMUM).all()
    assert bounds[0] < 0.99 * OPTIMUM
    assert bounds[-1] == pytest.approx(OPTIMUM, rel=1e-6)
    assert bounds.max() <= OPTIMUM * (1 + 1e-9)
    costs, volumes = trained.simulate(ALL_PATHS)
    assert costs.shape == (81, 4)
    assert volumes.shape == (81, 5, 3)
    assert costs.sum(1).mean() == pytest.approx(OPTIMUM, rel=1e-6)  # the policy is optimal, too
    assert (costs.sum(1) >= wait_and_see(tri3(), ALL_PATHS) * (1 - 1e-9)).all()
    assert TRI3_WAIT_AND_SEE_4 < OPTIMUM


@pytest.mark.parametrize("options", [{"multicut": True}, {"forward_passes": 3}, {"clean_every": 5, "seed": 3}], ids=str)
def test_other_forms_reach_the_same_optimum(options) -> None:
    sddp = SDDP(tri3(3), **options)
    sddp.train(iterations=60)
    assert sddp.lower_bound == pytest.approx(TRI3_OPTIMA[3], rel=1e-7)


def test_examples_of_the_literature() -> None:
    for instance, optimum in ((first_steps(), 25000 / 3), (fast_hydro_thermal(), 10)):
        sddp = SDDP(instance)
        sddp.train(iterations=30)
        assert sddp.lower_bound == pytest.approx(optimum)


def test_a_cyclic_horizon_never_ends() -> None:
    sddp = SDDP(infinite_horizon(), cyclic=True, discount=0.9)
    sddp.train(iterations=30)
    assert sddp.lower_bound == pytest.approx(119.167, abs=0.1)
    mean, interval = sddp.estimate(30)
    assert abs(mean - sddp.lower_bound) <= 2 * interval
    costs, _ = sddp.simulate(np.zeros((7, 2), int))  # paths of any length
    assert costs.shape == (2, 7)
    np.testing.assert_array_equal(sddp.water_value(13, [10.0, 0.0]), sddp.water_value(0, [10.0, 0.0]))


@pytest.mark.parametrize("network", NETWORKS)
def test_random_cases_of_every_network(network) -> None:
    instance = random_case(4, network)
    sddp = SDDP(instance)
    sddp.train(iterations=60)
    assert sddp.lower_bound == pytest.approx(tree_cost(instance), rel=1e-6)
    assert sddp.retries == 0


def test_plants_that_draw_apart() -> None:
    instance = replace(first_columns(tri3(), 2, 2), joint=False)
    sddp = SDDP(instance)
    sddp.train(iterations=30)
    assert sddp.lower_bound == pytest.approx(tree_cost(instance), rel=1e-7)
    costs, _ = sddp.simulate(np.zeros((2, 5, 3), int))
    assert costs.shape == (5, 2)


def test_a_scenario_is_solved_too() -> None:
    scenario = tri3().scenario_of([0, 0, 1, 2])
    sddp = SDDP(scenario)
    sddp.train(iterations=30)
    assert sddp.lower_bound == pytest.approx(DeterministicEquivalent().solve(scenario).objective, rel=1e-7)


def test_case3_is_approached_from_below() -> None:
    for network, optimum in (("copper", 7400.0), ("dc", 7405.63393)):
        sddp = SDDP(from_files("case3", network).with_horizon(8))
        sddp.train(iterations=60)
        assert 0.999 * optimum < sddp.lower_bound <= optimum * (1 + 1e-8)


@pytest.mark.slow
def test_bolivia_over_96_stages() -> None:
    """An independent implementation reached 303,716 in 76 iterations and cost 304,985 on the panel of 30 paths."""
    sddp = SDDP(from_files("bolivia"))
    sddp.train(iterations=40)
    assert (np.diff(bounds_of(sddp)) >= -1e-6).all()
    assert 303_000 < sddp.lower_bound < 304_985.1
    panel = np.random.default_rng(20260706).integers(0, 15, (96, 30))[:, :6]
    costs, _ = sddp.simulate(panel)
    known = np.array([299879.8, 302284.2, 296168.6, 310068.0, 310980.7, 304648.6])
    assert (costs.sum(1) >= known - 0.1).all()
    assert costs.sum(1).mean() < 1.01 * known.mean()
    assert sddp.retries <= sddp.lps // 1000


# ---- Cuts ------------------------------------------------------------------------------------------------------------
def test_no_cut_is_above_the_true_cost(trained) -> None:
    instance, rng = tri3(), np.random.default_rng(1)
    for stage in range(3):
        volumes = rng.uniform(0, 1, (12, 3)) * instance.max_volume
        believed = trained.future_cost(stage, volumes)
        exact = np.array([tree_cost(instance, stage + 1, volume) for volume in volumes])
        assert (believed <= exact * (1 + 1e-9) + 1e-6).all()
        assert (believed > 0.5 * exact).any()
    np.testing.assert_array_equal(trained.future_cost(3, volumes), np.zeros(12))


def test_selection_changes_no_bound() -> None:
    """Cuts that were left out come back where they matter: the bound is that of all cuts."""
    often, never = SDDP(tri3(), clean_every=1), SDDP(tri3(), clean_every=0)
    for sddp in (often, never):
        sddp.train(iterations=40)
    assert often.n_active_cuts < never.n_active_cuts == never.n_cuts
    assert (np.diff(bounds_of(often)) >= -1e-9 * OPTIMUM).all()
    bound, stages = never.bound(), never._stages
    for stage in stages[:-1]:
        points = np.array(stage.cuts.points)
        before = stage.cuts.values(points)
        stage.cuts.select()
        active = stage.cuts.active
        heights = points @ stage.cuts.slopes[active].T + stage.cuts.intercepts[active]
        np.testing.assert_allclose(heights.max(1), before[:, 0], rtol=1e-12)
        assert stage.lp.n_cuts == len(active)
    assert never.n_active_cuts < never.n_cuts
    assert never.bound() == pytest.approx(bound, rel=1e-9)


def test_equal_cuts_are_kept_once(trained) -> None:
    stage = trained._stages[0]
    count = stage.cuts.count
    assert not stage.cuts.add(float(stage.cuts.intercepts[0]), stage.cuts.slopes[0].copy())
    assert stage.cuts.count == count
    assert trained.n_cuts < 3 * 150


def test_water_is_worth_what_the_future_saves(trained) -> None:
    volume, step = np.array([60.0, 5.0, 30.0]), 1e-3
    value = trained.water_value(1, volume)
    assert (value >= 0).all()
    assert value.max() > 0
    for i in range(3):
        move = step * np.eye(3)[i]
        slope = (trained.future_cost(1, volume + move) - trained.future_cost(1, volume - move)) / (2 * step)
        assert -slope == pytest.approx(value[i], rel=1e-6, abs=1e-9)
    np.testing.assert_array_equal(trained.water_value(3, volume), np.zeros(3))


def test_water_values_of_a_multicut_policy() -> None:
    instance = replace(tri3(), probabilities=np.array([[0.2, 0.3, 0.5]] * 4))
    sddp = SDDP(instance, multicut=True)
    sddp.train(iterations=60)
    assert sddp.lower_bound == pytest.approx(tree_cost(instance), rel=1e-6)
    volume, step = np.array([60.0, 5.0, 30.0]), 1e-3
    exact = tree_cost(instance, 1, volume)
    assert sddp.future_cost(0, volume) <= exact * (1 + 1e-9)
    slope = (sddp.future_cost(0, volume + [step, 0, 0]) - sddp.future_cost(0, volume - [step, 0, 0])) / (2 * step)
    assert -slope == pytest.approx(sddp.water_value(0, volume)[0], rel=1e-6, abs=1e-9)


def test_a_decision_is_a_step_of_the_simulation(trained) -> None:
    instance = tri3()
    _, volumes = trained.simulate(ALL_PATHS[:, 40:41])
    for stage, column in enumerate(ALL_PATHS[:, 40]):
        after = trained.decide(stage, volumes[0, stage], instance.inflow(stage, int(column)))
        np.testing.assert_allclose(after, volumes[0, stage + 1], atol=1e-9)
        assert (after >= instance.min_volume).all()
        assert (after <= instance.max_volume).all()


def test_the_policy_is_a_function_of_the_state() -> None:
    """Whatever was solved in between, though several decisions may be optimal and idle cuts wake up."""
    sddp, columns = SDDP(tri3(), clean_every=4), ALL_PATHS[:, ::4]
    sddp.train(iterations=12)
    costs, volumes = sddp.simulate(columns)
    decision = sddp.decide(1, volumes[3, 1], [20.0, 5.0, 5.0])
    active = sddp.n_active_cuts
    sddp.bound()
    sddp.simulate(columns[:, ::-1])
    again, again_volumes = sddp.simulate(columns)
    np.testing.assert_array_equal(costs, again)
    np.testing.assert_array_equal(volumes, again_volumes)
    np.testing.assert_array_equal(decision, sddp.decide(1, volumes[3, 1], [20.0, 5.0, 5.0]))
    assert sddp.n_active_cuts - active <= 1  # those that the bound needed


def test_negative_costs_have_a_valid_start() -> None:
    """A generator that must run and is paid for: future costs are not above 0, and the bound still converges."""
    base = tri3(3)
    paid = base.generator_costs.copy()
    paid[0] = -10.0
    instance = replace(base, generator_costs=paid)
    sddp = SDDP(instance)
    sddp.train(iterations=60)
    assert sddp.rows[0].lower_bound <= tree_cost(instance)
    assert sddp.lower_bound == pytest.approx(tree_cost(instance), rel=1e-6)


# ---- Risk and discount -----------------------------------------------------------------------------------------------
def test_cvar_weighs_the_dearest_cases() -> None:
    costs, chance = np.array([5.0, 1.0, 9.0, 3.0]), np.array([0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(MeanCVaR(1.0, 0.25).weights(costs, chance), [0, 0, 1, 0])
    np.testing.assert_allclose(MeanCVaR(1.0, 0.375).weights(costs, chance), [1 / 3, 0, 2 / 3, 0])
    np.testing.assert_allclose(MeanCVaR(0.4, 1.0).weights(costs, chance), chance)
    np.testing.assert_allclose(MeanCVaR(0.0, 0.1).weights(costs, chance), chance)
    np.testing.assert_allclose(Expectation().weights(costs, chance), chance)
    for weight, tail in ((-0.1, 0.5), (1.1, 0.5), (0.5, 0.0), (0.5, 1.5)):
        with pytest.raises(InputError, match="of CVaR"):
            MeanCVaR(weight, tail)


def test_risk_aversion_costs_and_worst_cases_are_the_worst() -> None:
    """Over two stages the measure can be computed by hand from the exact costs of the second one."""
    instance = tri3(2)
    bounds = []
    for weight in (0.0, 0.5, 1.0):
        sddp = SDDP(instance, risk=MeanCVaR(weight, 1 / 3))
        sddp.train(iterations=40)
        bounds.append(sddp.lower_bound)
    assert bounds[0] == pytest.approx(tree_cost(instance))
    assert bounds[0] < bounds[1] < bounds[2]
    dry = np.argmin(instance.inflows.sum(1), axis=1)  # with a third of all cases in the tail: the driest, always
    worst = DeterministicEquivalent().solve(instance.scenario_of(dry[:2])).objective
    assert bounds[2] == pytest.approx(worst)


def test_discount_shrinks_the_future() -> None:
    """In the tree, a discount is a smaller weight of later stages."""
    instance = tri3(3)
    tree = inflow_tree(instance)
    weighed = replace(tree, probability=tree.probability * 0.5**tree.stage)
    sddp = SDDP(instance, discount=0.5)
    sddp.train(iterations=60)
    assert sddp.lower_bound == pytest.approx(TreeProgramme(instance, weighed).solve().cost, rel=1e-7)
    assert sddp.lower_bound < TRI3_OPTIMA[3]
    assert sddp.estimate(50)[0] == pytest.approx((sddp.simulate(_drawn(sddp, 50))[0] @ [1.0, 0.5, 0.25]).mean())


def _drawn(sddp: SDDP, count: int) -> np.ndarray:
    """Columns [T, N] of the paths that ``estimate(count)`` simulates."""
    rng = np.random.default_rng((sddp.seed, 0, sddp_module.SIMULATION))
    inflow = sddp._draw(rng, count, sddp.instance.horizon)
    rows = np.arange(sddp.instance.horizon) % len(sddp.instance.inflows)
    return (inflow[:, :, 0, None] == sddp.instance.inflows[rows, 0]).argmax(-1).T


# ---- Training and stopping -------------------------------------------------------------------------------------------
def test_the_bound_agrees_with_simulation(trained) -> None:
    mean, interval = trained.estimate(400, key=9)
    assert abs(mean - OPTIMUM) <= 2 * interval
    assert trained.estimate(400, key=9) == (mean, interval)
    assert trained.estimate(400, key=10) != (mean, interval)


def test_training_repeats_itself_and_goes_on_where_it_ended() -> None:
    whole, parts, other = SDDP(tri3(), seed=4), SDDP(tri3(), seed=4), SDDP(tri3(), seed=5)
    assert whole.train(iterations=12) == "iterations"
    for _ in range(3):
        parts.train(iterations=4)
    other.train(iterations=12)
    np.testing.assert_array_equal(bounds_of(whole), bounds_of(parts))
    assert (bounds_of(whole) != bounds_of(other)).any()
    seconds = [row.seconds for row in parts.rows]
    assert seconds == sorted(seconds)


def row(iteration: int, bound: float, mean: float = math.nan, interval: float = math.nan) -> TrainingRow:
    return TrainingRow(iteration, 0.0, bound, 0.0, mean, interval, 0, 0, 0)


def test_rules_say_stop_in_time() -> None:
    stalls = BoundStalls(relative=0.01, iterations=2)
    assert not stalls([row(1, 100.0), row(2, 100.0)])
    assert not stalls([row(1, 100.0), row(2, 101.0), row(3, 102.0)])
    assert stalls([row(1, 100.0), row(2, 100.1), row(3, 100.2)])
    statistical = StatisticalGap(z=1.64)
    assert not statistical([row(1, 100.0)])
    assert not statistical([row(1, 100.0, mean=110.0, interval=10.0)])  # 1.64 / 1.96 of the interval
    assert statistical([row(1, 100.0, mean=108.0, interval=10.0)])
    gap = RelativeGap(0.05)
    assert not gap([row(1, 100.0)])
    assert not gap([row(1, 100.0, mean=106.0, interval=50.0)])
    assert gap([row(1, 100.0, mean=104.0, interval=50.0)])


def test_training_stops_for_each_reason() -> None:
    assert SDDP(tri3()).train(time_limit=0.0) == "time limit"
    sddp = SDDP(tri3(2))
    assert sddp.train(iterations=500, stopping=[BoundStalls(iterations=5)]) == "BoundStalls"
    assert sddp.iterations < 100
    sddp = SDDP(tri3(2))
    assert sddp.train(iterations=500, stopping=[StatisticalGap()], simulate_every=5, simulations=40) == "StatisticalGap"
    simulated = [r.iteration for r in sddp.rows if not math.isnan(r.forward_mean)]
    assert simulated == list(range(5, sddp.iterations + 1, 5))
    assert sddp.train(iterations=300, stopping=[RelativeGap(0.5)]) == "RelativeGap"


def test_ctrl_c_keeps_what_was_learned(monkeypatch) -> None:
    sddp, heard = SDDP(tri3()), []
    backward = SDDP._backward

    def interrupted(self, volumes, over) -> None:
        backward(self, volumes, over)
        if self.iterations == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SDDP, "_backward", interrupted)
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        assert sddp.train(iterations=1000) == "interrupted"
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
    assert sddp.iterations == 6
    assert sddp.n_cuts > 0
    assert sddp.lower_bound >= sddp.rows[-1].lower_bound
    monkeypatch.undo()
    assert sddp.train(iterations=2) == "iterations"


def test_an_iteration_is_cut_short_by_time(monkeypatch) -> None:
    """The clock jumps in the middle of a backward pass: its cuts stay, the iteration is logged."""
    sddp, now = SDDP(tri3(6)), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    monkeypatch.setattr(sddp_module.time, "perf_counter", clock)
    assert sddp.train(time_limit=4.5) == "time limit"
    assert len(sddp.rows) == 1
    assert 0 < sddp.n_cuts < 5


def test_the_log_is_a_table(tmp_path, trained) -> None:
    trained.save_log(tmp_path / "log.csv")
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 150
    assert float(rows[-1]["lower_bound"]) == trained.rows[-1].lower_bound
    assert int(rows[-1]["lps"]) == trained.rows[-1].lps <= trained.lps
    assert int(rows[-1]["retries"]) == 0


def test_bad_options_are_refused() -> None:
    for options, message in (
        ({"forward_passes": 0}, "forward_passes"),
        ({"clean_every": -1}, "clean_every"),
        ({"discount": 0.0}, "discount"),
        ({"discount": 1.1}, "discount"),
        ({"multicut": True, "risk": MeanCVaR()}, "multicut"),
        ({"cyclic": True}, "discount"),
    ):
        with pytest.raises(InputError, match=message):
            SDDP(tri3(), **options)
    with pytest.raises(InputError, match="a multiple of the 4 rows of inflows"):
        SDDP(tri3(6), cyclic=True, discount=0.9)
    with pytest.raises(InputError, match="cyclic"):
        SDDP(tri3().scenario_of([0, 0, 0, 0]), cyclic=True, discount=0.9)
    sddp = SDDP(tri3())
    with pytest.raises(InputError, match="would never end"):
        sddp.train()
    with pytest.raises(InputError, match="too few paths"):
        sddp.train(iterations=1, simulations=10)
    with pytest.raises(InputError, match="no such stage"):
        sddp.decide(4, [0.0] * 3, [0.0] * 3)
    with pytest.raises(InputError, match="expected 4 rows"):
        sddp.simulate(np.zeros((5, 2), int))
    with pytest.raises(InputError, match="say nothing about a bound on risk"):
        SDDP(tri3(), risk=MeanCVaR()).train(stopping=[StatisticalGap()])


# ---- Files -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"multicut": True}, {"risk": MeanCVaR(0.3, 0.5), "discount": 0.9}], ids=str)
def test_saved_cuts_come_back(tmp_path, options) -> None:
    path = tmp_path / "cuts.json"
    first = SDDP(tri3(), **options)
    first.train(iterations=25)
    first.save(path)
    second = SDDP(tri3(), **options)
    second.load(path)
    assert second.bound() == pytest.approx(first.bound(), rel=1e-9)
    assert (second.n_cuts, second.n_active_cuts, second.iterations) == (first.n_cuts, first.n_active_cuts, 25)
    volumes = np.random.default_rng(0).uniform(0, 1, (20, 3)) * tri3().max_volume
    for stage in range(4):
        np.testing.assert_allclose(second.future_cost(stage, volumes), first.future_cost(stage, volumes), rtol=1e-12)
    before = second.lower_bound
    second.train(iterations=10)
    assert second.lower_bound > before
    assert second.rows[0].iteration == 26


def test_cuts_hold_from_other_volumes(tmp_path, trained) -> None:
    path = tmp_path / "cuts.json"
    trained.save(path)
    dry = replace(tri3(), initial_volume=np.array([10.0, 1.0, 5.0]))
    sddp = SDDP(dry)
    sddp.load(path)
    assert trained.lower_bound < sddp.lower_bound <= tree_cost(dry) * (1 + 1e-9)


def test_odd_files_are_refused(tmp_path, trained) -> None:
    path = tmp_path / "cuts.json"
    trained.save(path)
    with pytest.raises(InputError, match="cuts of another problem"):
        SDDP(tri3(5)).load(path)
    with pytest.raises(InputError, match="cuts of other options"):
        SDDP(tri3(), discount=0.5).load(path)
    with pytest.raises(InputError, match="has cuts already"):
        trained.load(path)
    data = json.loads(path.read_text())
    good = json.dumps(data["stages"])
    for spoil in (
        lambda stages: stages[0].pop("slopes"),
        lambda stages: stages[0]["intercepts"].append(1.0),
        lambda stages: stages[0]["kinds"].__setitem__(0, 7),
        lambda stages: stages[0]["active"].append(10**6),
        lambda stages: stages[1]["slopes"].__setitem__(0, [1.0]),
        lambda stages: stages[2]["intercepts"].__setitem__(0, None),
        lambda stages: [stages[0][key].append(stages[0][key][0]) for key in ("intercepts", "slopes", "kinds")],
        lambda stages: stages.pop(),
    ):
        stages = json.loads(good)
        spoil(stages)
        path.write_text(json.dumps({**data, "stages": stages}))
        sddp = SDDP(tri3())
        with pytest.raises(InputError, match="stages"):
            sddp.load(path)
        assert sddp.n_cuts == 0
    path.write_text(json.dumps({**data, "iterations": "many"}))
    with pytest.raises(InputError, match="bad counts"):
        SDDP(tri3()).load(path)
    for text in ("[]", '{"schema": "something/1"}', "{"):
        path.write_text(text)
        with pytest.raises(InputError):
            SDDP(tri3()).load(path)
