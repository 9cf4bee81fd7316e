"""The stage programme: against scipy, its duals, its cuts, its second tries, and its life outside one process."""

from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import highspy
import numpy as np
import pytest
from hydrothermal_toys import first_columns, from_files, random_case, tri3
from scipy.optimize import linprog

from orl.common.errors import InputError
from orl.envs.hydrothermal import stage_lp
from orl.envs.hydrothermal.instance import NETWORKS, HydrothermalInstance
from orl.envs.hydrothermal.library import load
from orl.envs.hydrothermal.stage_lp import StageError, StageLP, run_again
from orl.envs.hydrothermal.stage_model import COST_SCALE, least_stage_cost, openings, stage_model


def waters(instance: HydrothermalInstance, count: int, seed: int = 0) -> np.ndarray:
    """Right-hand sides float64[count, n]: water at hand, from almost none to plenty."""
    rng = np.random.default_rng(seed)
    most = instance.max_volume + instance.water_factor * instance.inflows.max((0, 2))
    return rng.uniform(0, 1, (count, instance.n_plants)) * most


def scipy_cost(instance: HydrothermalInstance, rhs: np.ndarray, form: str) -> float:
    model = stage_model(instance, 0, form)
    lower, upper = model.row_lower.copy(), model.row_upper.copy()
    lower[: len(rhs)] = upper[: len(rhs)] = rhs
    equal = lower == upper
    matrix = model.matrix.toarray()
    limits = np.concatenate([matrix[~equal], -matrix[~equal]])
    found = linprog(
        model.costs,
        A_ub=limits if len(limits) else None,
        b_ub=np.concatenate([upper[~equal], -lower[~equal]]) if len(limits) else None,
        A_eq=matrix[equal],
        b_eq=lower[equal],
        bounds=np.stack([model.lower, model.upper], axis=1),
        method="highs",
    )
    assert found.status == 0
    return found.fun / COST_SCALE


@pytest.mark.parametrize("form", ["strict", "storage"])
@pytest.mark.parametrize("network", NETWORKS)
def test_costs_are_those_of_scipy(network, form) -> None:
    instance = random_case(3, network)
    rhs = waters(instance, 50)
    costs, _ = StageLP(instance, form=form).costs_and_duals(rhs)
    assert np.ptp(costs) > 0
    np.testing.assert_allclose(costs, [scipy_cost(instance, r, form) for r in rhs], rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_every_network_law_costs_something(seed) -> None:
    rhs = waters(random_case(seed), 40)
    copper, transport, dc = (StageLP(random_case(seed, network)).costs_and_duals(rhs)[0] for network in NETWORKS)
    assert (copper <= transport * (1 + 1e-9) + 1e-6).all()
    assert (transport <= dc * (1 + 1e-9) + 1e-6).all()
    assert (copper < dc).any()


@pytest.mark.parametrize("network", NETWORKS)
def test_duals_are_derivatives_and_water_never_hurts(network) -> None:
    instance, step = random_case(1, network), 1e-4
    lp, rhs = StageLP(instance), waters(random_case(1), 30)
    costs, duals = lp.costs_and_duals(rhs)
    assert (duals <= 1e-9).all()
    assert duals.min() < -1
    checked = 0
    for i in range(instance.n_plants):
        move = step * np.eye(instance.n_plants)[i]
        above, below = lp.costs_and_duals(rhs + move)[0], lp.costs_and_duals(rhs - move)[0]
        right, left = (above - costs) / step, (costs - below) / step
        scale = np.maximum(1.0, np.abs(duals[:, i]))
        smooth = np.abs(right - left) <= 1e-6 * scale
        np.testing.assert_allclose(((right + left) / 2)[smooth], duals[smooth, i], rtol=1e-6, atol=1e-5)
        # At kinks, too, the dual lies between the one-sided derivatives.
        assert (duals[:, i] <= right + 1e-5 * scale).all()
        assert (duals[:, i] >= left - 1e-5 * scale).all()
        checked += smooth.sum()
    assert checked > 60


@pytest.mark.parametrize("network", NETWORKS)
def test_the_dispatch_meets_its_equations(network) -> None:
    instance = random_case(2, network)
    before, inflow = np.full(4, 2.0), np.full(4, 6.0)
    solution = StageLP(instance, 1, "storage").solve(before + instance.water_factor * inflow)
    x, factor = solution.primal, instance.water_factor
    out = factor * x["turbined"] + x["spilled"]
    arriving = instance.turbine_to.T @ (factor * x["turbined"]) + instance.spill_to.T @ x["spilled"]
    np.testing.assert_allclose(x["volume"], before + factor * inflow + arriving - out, atol=1e-7)
    mw = instance.base_mva * x["power"][instance.plant_generator]
    np.testing.assert_allclose(mw, instance.production_factor * x["turbined"], atol=1e-6)
    served = x["power"].sum() + x["deficit"].sum() - x["surplus"].sum()
    assert served == pytest.approx(instance.stage_demand(1).sum())
    paid = instance.generator_costs @ x["power"]
    paid += instance.deficit_cost * (x["deficit"].sum() + x["surplus"].sum())
    assert solution.cost == pytest.approx(paid + instance.spill_costs @ x["spilled"])
    if network == "dc":
        along = instance.susceptance * (x["angle"][instance.branch_from] - x["angle"][instance.branch_to])
        np.testing.assert_allclose(x["flow"], along, atol=1e-7)
        assert x["angle"][instance.reference_bus] == 0


def test_rows_come_in_their_fixed_order() -> None:
    instance = random_case(0, "dc")
    model = stage_model(instance, form="storage")
    assert list(model.rows) == ["water", "production", "balance", "flow", "angle"]
    assert [place.stop - place.start for place in model.rows.values()] == [4, 4, 5, 7, 6]
    assert len(stage_model(replace(instance, network="copper")).row_lower) == 4 + 4 + 1
    assert len(stage_model(replace(instance, network="transport")).row_lower) == 4 + 4 + 5


def test_the_size_of_bolivia_is_that_of_the_literature() -> None:
    model = stage_model(replace(from_files("bolivia"), surplus=False), form="storage")
    assert model.matrix.shape == (111, 154)
    copper = stage_model(replace(from_files("bolivia", "copper"), surplus=False), form="storage")
    assert copper.matrix.shape == (23, 68)


def test_the_hand_made_and_the_library_case_agree() -> None:
    """The library counts in USD an hour, the other in thousands of dollars a stage of 730 hours."""
    ours, theirs = tri3(), load("tri3")
    rhs = waters(ours, 20)
    for stage in range(4):
        costs, _ = StageLP(ours, stage).costs_and_duals(rhs)
        np.testing.assert_allclose(StageLP(theirs, stage).costs_and_duals(rhs)[0] * 0.73, costs, rtol=1e-9, atol=1e-6)


def test_cuts_bound_the_future() -> None:
    lp = StageLP(tri3(), 0, "future", future_weights=[0.25, 0.75], future_bound=-7.0)
    rich, poor = np.array([200.0, 20.0, 80.0]), np.array([1.0, 1.0, 1.0])
    without = lp.solve(rich)
    np.testing.assert_allclose(without.primal["future"], [-7.0, -7.0])
    lp.add_cuts([500.0, 100.0], [[-1.0, 0.0, -2.0], [0.0, -1.0, 0.0]], [0, 1])
    found = lp.solve(rich)
    volume, future = found.primal["volume"], found.primal["future"]
    assert future[0] == pytest.approx(max(-7.0, 500 - volume[0] - 2 * volume[2]))
    assert future[1] == pytest.approx(max(-7.0, 100 - volume[1]))
    assert found.cost > without.cost
    dear = lp.solve(poor)
    lp.remove_cuts([0])
    assert lp.n_cuts == 1
    assert lp.solve(poor).cost < dear.cost
    lp.remove_cuts([0])
    assert lp.solve(rich).cost == pytest.approx(without.cost)


def test_a_pickled_programme_starts_again_with_its_cuts() -> None:
    lp = StageLP(tri3(), 0, "future")
    lp.add_cuts(900.0, [-1.0, -1.0, -1.0])
    rhs = np.array([60.0, 10.0, 30.0])
    before = lp.solve(rhs)
    again = pickle.loads(pickle.dumps(lp))
    assert again._highs is None
    after = again.solve(rhs)
    assert after.cost == pytest.approx(before.cost, rel=1e-12)
    np.testing.assert_array_equal(after.basis.columns, before.basis.columns)


def test_water_that_is_not_there_is_named() -> None:
    lp = StageLP(tri3())
    with pytest.raises(StageError, match=r"stage 0 of case, right-hand side .*-5.* HiGHS says kInfeasible"):
        lp.solve([-5.0, 0.0, 0.0])
    assert lp.solve([5.0, 0.0, 0.0]).cost > 0  # and it goes on


class Moody:
    """A solver that answers ``kUnknown`` until it was started cold ``after`` times."""

    def __init__(self, after: int) -> None:
        self.after, self.cold, self.options = after, 0, []

    def clearSolver(self) -> None:
        self.cold += 1

    def setOptionValue(self, name, value) -> None:
        self.options.append((name, value))

    def run(self) -> None:
        pass

    def getModelStatus(self):
        status = highspy.HighsModelStatus
        return status.kOptimal if self.cold >= self.after else status.kUnknown


def test_a_failed_warm_start_is_tried_cold_and_then_without_presolve() -> None:
    easy, hard = Moody(1), Moody(2)
    assert run_again(easy, "a stage") == 1
    assert ("presolve", "off") not in easy.options
    assert run_again(hard, "a stage") == 2
    assert hard.options[-2:] == [("presolve", "off"), ("presolve", "choose")]
    with pytest.raises(StageError, match="a stage: no optimum, HiGHS says kUnknown"):
        run_again(Moody(3), "a stage")


def test_second_tries_are_counted(monkeypatch) -> None:
    lp = StageLP(tri3())
    lp.solve([10.0, 1.0, 1.0])
    assert (lp.solves, lp.retries) == (1, 0)
    real = lp.highs

    class Moody(SimpleNamespace):
        """HiGHS, but its next verdict is ``kUnknown``."""

        doubts = 1

        def __getattr__(self, name):
            return getattr(real, name)

        def getModelStatus(self):
            self.doubts -= 1
            return highspy.HighsModelStatus.kUnknown if self.doubts >= 0 else real.getModelStatus()

    monkeypatch.setattr(lp, "_highs", Moody())
    expected = StageLP(tri3()).solve([20.0, 1.0, 1.0]).cost
    assert lp.solve([20.0, 1.0, 1.0]).cost == pytest.approx(expected)
    assert (lp.solves, lp.retries) == (2, 1)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(InputError, match="unknown form"):
        StageLP(tri3(), form="loose")
    with pytest.raises(InputError, match="cuts need a future"):
        StageLP(tri3(), form="storage").add_cuts(1.0, [0.0, 0.0, 0.0])
    assert stage_lp.FORMS == ("strict", "storage", "future", "release")


def test_openings_cover_what_may_flow_in() -> None:
    joint = tri3()
    inflow, chance = openings(joint, 5)
    np.testing.assert_array_equal(inflow, joint.inflows[1].T)
    np.testing.assert_allclose(chance, 1 / 3)
    inflow, chance = openings(replace(joint, joint=False), 0)
    assert inflow.shape == (27, 3)
    np.testing.assert_allclose(chance @ inflow, joint.mean_inflows[0])
    uneven = replace(joint, probabilities=np.array([[0.25, 0.0, 0.75]] * 4))
    inflow, chance = openings(uneven, 0)
    np.testing.assert_array_equal(inflow, joint.inflows[0].T[[0, 2]])
    np.testing.assert_allclose(chance, [0.25, 0.75])
    inflow, chance = openings(joint.scenario_of([2, 1, 0, 2]), 3)
    np.testing.assert_array_equal(inflow, joint.inflows[3].T[[2]])
    many = np.tile(joint.inflows, (1, 1, 7))
    wide = replace(joint, joint=False, inflows=many, probabilities=np.full((4, 21), 1 / 21))
    with pytest.raises(InputError, match="21 \\*\\* 3"):
        openings(wide, 0)


def test_no_stage_costs_less_than_the_least() -> None:
    instance = first_columns(random_case(0), 2, 3)
    assert least_stage_cost(instance) == 0
    forced = replace(instance, min_power=instance.min_power + 0.05)
    assert least_stage_cost(forced) == pytest.approx(0.05 * instance.generator_costs.sum())
    assert StageLP(forced, form="storage").solve(np.full(4, 50.0)).cost >= least_stage_cost(forced)
