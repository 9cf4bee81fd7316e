"""The perfect-information solver: proofs, bounds, hints, limits, Ctrl-C, refusals."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
from lot_sizing_enumeration import cheapest_plan
from lot_sizing_paths import KINDS, small_scenario

from orl.common.errors import InputError
from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing.fix_and_relax import fix_and_relax
from orl.solvers.lot_sizing.milp import build, chain
from orl.solvers.lot_sizing.network import build_network
from orl.solvers.lot_sizing.perfect_information import PerfectInformation, plan_cost, plan_of
from orl.solvers.lot_sizing.rules import make_rule

OPTIONS = (
    {},
    {"formulation": "compact"},
    {"formulation": "compact", "relax_machines": False},
    {"relax_machines": False},
    {"formulation": "compact", "relax_machines": False, "backend": "cp-sat"},
    {"backend": "cp-sat"},
    {"relax_machines": False, "fix_and_relax": True},
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_proves_the_optimum(kind):
    for seed, options in enumerate(OPTIONS):
        scenario = small_scenario(kind, 100 + seed)
        result = PerfectInformation(**options).solve(scenario, time_limit=60)
        assert result.status == "optimal", options
        assert result.objective == result.bound == pytest.approx(cheapest_plan(scenario)[1], abs=1e-6)
        check = scenario.check(result.solution)
        assert check.feasible
        assert check.objective == pytest.approx(result.objective, abs=1e-9)


@pytest.mark.parametrize("kind", ["tight-storage", "backlog", "losses"])
def test_the_relaxed_form_bounds_from_below_and_prices_its_plan_truly(kind):
    for seed in range(10):
        scenario = small_scenario(kind, seed)
        best = cheapest_plan(scenario)[1]
        result = PerfectInformation(exact=False).solve(scenario, time_limit=60)
        assert result.bound <= best + 1e-6
        assert result.objective >= best - 1e-6
        assert scenario.check(result.solution).objective == pytest.approx(result.objective, abs=1e-9)


def test_the_small_paper_instance_is_proved():
    for seed, optimum in ((0, 63.2), (1, 51.8)):
        scenario = load("ls-4x2-t20").scenario(seed)
        result = PerfectInformation().solve(scenario, time_limit=1.0)
        assert result.bound <= optimum + 1e-6 <= result.objective + 2e-6
        assert result.gap < 0.15
        bounds = [p.bound for p in result.log if p.bound is not None]
        assert bounds == sorted(bounds)
        assert scenario.lower_bound() <= result.bound


def test_a_short_path_of_the_large_instance_is_proved():
    scenario = load("ls-15x5-s0-t8").scenario(0)
    result = PerfectInformation().solve(scenario, time_limit=60)
    assert result.status == "optimal"


def test_a_hint_is_never_worsened():
    scenario = load("ls-4x2-t20").scenario(0)
    best = PerfectInformation().solve(scenario, time_limit=2)
    again = PerfectInformation(relax_machines=False).solve(scenario, time_limit=0, hint=best.solution)
    assert again.objective <= best.objective
    assert again.log[0].objective == best.objective
    other = load("ls-4x2-t20").scenario(1)
    with pytest.raises(InputError, match="hint"):
        PerfectInformation().solve(other, hint=best.solution)


def test_without_time_there_is_still_a_plan_and_a_bound():
    scenario = load("ls-15x5-s0-t20").scenario(0)
    result = PerfectInformation().solve(scenario, time_limit=0)
    assert result.status == "feasible"
    assert scenario.lower_bound() <= result.bound <= result.objective
    assert scenario.check(result.solution).feasible


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"formulation": "compact", "relax_machines": False},
        {"formulation": "compact", "backend": "cp-sat", "relax_machines": False},
    ],
)
def test_ctrl_c_returns_the_best_plan_and_reaches_the_callers_handler(options):
    scenario = load("ls-4x2").scenario(0)
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    try:
        timer.start()
        result = PerfectInformation(**options).solve(scenario, time_limit=1e6)  # no end in sight but Ctrl-C
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
    assert scenario.check(result.solution).feasible


def test_fix_and_relax_gives_a_real_plan():
    scenario = load("ls-4x2-t8").scenario(2)
    best = PerfectInformation().solve(scenario, time_limit=30)
    state = (scenario.initial_inventory, scenario.initial_setup)
    for programme in (build_network(scenario), build(scenario, chain(scenario.demand_path), *state)):
        actions = fix_and_relax(programme, window=4, step=2)
        assert actions.shape == (8, 2)
        assert best.bound - 1e-6 <= plan_cost(scenario, actions) <= 1.3 * best.objective
    whole = fix_and_relax(build_network(scenario), window=8, step=8)
    assert plan_cost(scenario, whole) == pytest.approx(best.objective, abs=1e-6)


def test_the_solver_never_costs_more_than_the_rules():
    from orl.solvers.lot_sizing.perfect_information import play

    for seed in range(2):
        scenario = load("ls-6x3-t10").scenario(seed)
        result = PerfectInformation().solve(scenario, time_limit=1)
        for rule in ("idle", "static", "greedy", "base-stock"):
            plan = plan_of(scenario, play(scenario, make_rule(rule, scenario)))
            assert scenario.check(plan).objective >= result.objective - 1e-9


def test_bad_calls_are_refused():
    with pytest.raises(InputError, match=r"scenario\(seed\)"):
        PerfectInformation().solve(load("ls-4x2"))
    scenario = load("ls-2x1-t6").scenario(0)
    for bad in (-1.0, float("nan")):
        with pytest.raises(InputError, match="time_limit"):
            PerfectInformation().solve(scenario, time_limit=bad)
    for options in (
        {"formulation": "x"},
        {"backend": "gurobi"},
        {"threads": 0},
        {"exact": False, "formulation": "network"},
    ):
        with pytest.raises(InputError):
            PerfectInformation(**options)
    costs = np.array(scenario.setup_costs)
    costs[0, 2, 0] += 1.0
    with pytest.raises(InputError, match="item before"):
        PerfectInformation(formulation="network").solve(replace(scenario, setup_costs=costs))
