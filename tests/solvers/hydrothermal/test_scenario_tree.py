"""The optimum over a tree of inflows is the optimum, also where thousands of nodes weigh little."""

from __future__ import annotations

import numpy as np
import pytest

from orl.envs.hydrothermal.builders import hydrothermal
from orl.solvers.hydrothermal.scenario_tree import TreeProgramme, inflow_tree, tree_cost
from orl.solvers.hydrothermal.sddp import SDDP


def one_reservoir(horizon):
    """A large reservoir, ten inflows a stage, water that is worth much now and then: 1110 nodes for three stages."""
    rng = np.random.default_rng(20260401)
    return hydrothermal(
        horizon=horizon,
        network="copper",
        stage_hours=720.0,
        production_factor=[1.0],
        max_volume=[1000.0],
        initial_volume=[83.222],
        max_outflow=[50.0],
        spill_costs=[0.01 / (0.0036 * 720)],
        inflows=np.maximum(40 + 10 * rng.standard_normal((4, 1, 10)), 0),
        max_power=[0.50, 0.15, 0.15],
        generator_costs=[5.0, 500.0, 1000.0],
        plant_generator=[0],
        demand=[[0.75]],
        deficit_cost=100_000.0,
    )


def test_a_tighter_tolerance_finds_nothing_better():
    """At the default tolerance of HiGHS, 1e-7, the cost of this tree is 7e-6 too high."""
    instance = one_reservoir(4)
    programme = TreeProgramme(instance, inflow_tree(instance))
    found = programme.solve()
    programme.highs.setOptionValue("dual_feasibility_tolerance", 1e-10)
    best = programme.solve()
    assert found.cost == pytest.approx(best.cost, rel=1e-9)


def test_sddp_reaches_the_optimum_of_the_tree():
    instance = one_reservoir(3)
    sddp = SDDP(instance)
    sddp.train(iterations=200)
    assert sddp.lower_bound == pytest.approx(tree_cost(instance), rel=1e-8)
