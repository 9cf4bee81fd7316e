"""The readable programme and the sparse one have the same optimum."""

from __future__ import annotations

import pyomo.environ as pyo
import pytest
from lot_sizing_paths import KINDS, small_scenario

from orl.common.errors import InputError
from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing.milp import build, chain
from orl.solvers.lot_sizing.perfect_information import plan_cost
from orl.solvers.lot_sizing.programme_search import search_with_highs
from orl.solvers.lot_sizing.pyomo_model import build_model, plan_actions, solve_model


@pytest.mark.parametrize("kind", KINDS)
def test_pyomo_and_sparse_agree(kind):
    for seed in range(4):
        scenario = small_scenario(kind, 200 + seed, items=2, machines=2, horizon=4)
        model = build_model(scenario)
        solve_model(model)
        programme = build(
            scenario, chain(scenario.demand_path), scenario.initial_inventory, scenario.initial_setup, exact=True
        )
        value = float(programme.cost @ search_with_highs(programme).values)
        assert pyo.value(model.cost) == pytest.approx(value, abs=1e-5)
        assert plan_cost(scenario, plan_actions(model, scenario)) == pytest.approx(value, abs=1e-5)


def test_the_relaxed_form_is_lower():
    lower = 0
    for seed in range(5):
        scenario = small_scenario("tight-storage", seed)
        models = [build_model(scenario, exact=exact) for exact in (False, True)]
        for model in models:
            solve_model(model)
        relaxed, exact = (pyo.value(model.cost) for model in models)
        assert relaxed <= exact + 1e-5
        lower += relaxed < exact - 1e-3
    assert lower > 0


def test_a_path_is_needed():
    with pytest.raises(InputError, match="demand_path"):
        build_model(load("ls-2x1"))
