"""Scenario trees and perfect foresight: published and hand-made optima, and dispatches that the checker accepts."""

from __future__ import annotations

import signal
import threading
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
    random_case,
    tri3,
)

from orl.common.errors import InputError
from orl.common.problem import Solver
from orl.envs.hydrothermal.instance import NETWORKS
from orl.envs.hydrothermal.library import load
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.envs.hydrothermal.stage_model import openings
from orl.solvers.hydrothermal import scenario_tree
from orl.solvers.hydrothermal.deterministic_equivalent import (
    DeterministicEquivalent,
    expected_value,
    paths_of,
    stage_by_stage,
    wait_and_see,
)
from orl.solvers.hydrothermal.scenario_tree import inflow_tree, tree_cost

ALL_PATHS = np.array(np.meshgrid(*[range(3)] * 4, indexing="ij")).reshape(4, -1)  # of tri3 over 4 stages: 81


@pytest.mark.parametrize("horizon", TRI3_OPTIMA)
def test_the_tree_of_tri3_has_its_known_optimum(horizon) -> None:
    assert tree_cost(tri3(horizon)) == pytest.approx(TRI3_OPTIMA[horizon], abs=1e-6)


def test_examples_of_the_literature() -> None:
    assert tree_cost(first_steps()) == pytest.approx(25000 / 3)
    assert tree_cost(fast_hydro_thermal()) == pytest.approx(10)


BOLIVIA = {
    "copper": (1215.4045, 2432.2505, 3809.1143),
    "transport": (1626.1536, 3198.1909, 4713.8403),
    "dc": (1626.1536, 3198.6383, 4736.9083),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_trees_of_bolivia(network) -> None:
    bolivia = from_files("bolivia", network)
    for (horizon, count), optimum in zip(((1, 15), (2, 15), (3, 4)), BOLIVIA[network], strict=True):
        assert tree_cost(first_columns(bolivia, count, horizon)) == pytest.approx(optimum, abs=5e-4 * horizon)


def test_trees_of_case3() -> None:
    for network, horizon, optimum in (
        ("copper", 3, 1426.8),
        ("copper", 6, 4411.7153),
        ("dc", 3, 1639.11599),
        ("dc", 6, 4457.98472),
    ):
        assert tree_cost(from_files("case3", network).with_horizon(horizon)) == pytest.approx(optimum, abs=1e-4)
    for network in ("copper", "dc"):
        assert tree_cost(from_files("case3deterministic", network).with_horizon(12)) == pytest.approx(11000)


@pytest.mark.slow
def test_a_larger_tree_of_case3() -> None:
    for network, optimum in (("copper", 7400.0), ("dc", 7405.63393)):
        assert tree_cost(from_files("case3", network).with_horizon(8)) == pytest.approx(optimum, abs=1e-4)


def test_a_tree_starts_at_any_stage_and_volume() -> None:
    """One stage left: the mean of the stage programmes."""
    instance, volume = random_case(0, "dc"), np.array([1.0, 2.0, 0.5, 3.0])
    lp = StageLP(instance, 2, "storage")
    inflow, chance = openings(instance, 2)
    costs, _ = lp.costs_and_duals(volume + instance.water_factor * inflow)
    assert tree_cost(instance, 2, volume) == pytest.approx(chance @ costs)
    assert tree_cost(instance, 1, volume) > tree_cost(instance, 1, volume + 1)


@pytest.mark.parametrize("seed", range(3))
def test_bounds_stand_in_their_order(seed) -> None:
    """Mean inflows <= perfect foresight <= the tree, and networks from copper to dc."""
    optima = []
    for network in NETWORKS:
        instance = random_case(seed, network)
        every = np.array(np.meshgrid(*[range(3)] * 3, indexing="ij")).reshape(3, -1)
        mean, seen, optimum = expected_value(instance), wait_and_see(instance, every).mean(), tree_cost(instance)
        assert mean <= seen * (1 + 1e-9)
        assert seen <= optimum * (1 + 1e-9)
        assert mean < optimum
        optima.append(optimum)
    assert optima[0] <= optima[1] * (1 + 1e-9)
    assert optima[1] <= optima[2] * (1 + 1e-9)


def test_wait_and_see_of_tri3() -> None:
    assert wait_and_see(tri3(), ALL_PATHS).mean() == pytest.approx(TRI3_WAIT_AND_SEE_4, abs=1e-6)


def test_wait_and_see_takes_a_column_for_every_plant() -> None:
    apart = replace(tri3(), joint=False)
    paths = ALL_PATHS[:, ::20]
    np.testing.assert_allclose(wait_and_see(apart, np.repeat(paths[..., None], 3, -1)), wait_and_see(tri3(), paths))
    mixed = np.random.default_rng(0).integers(0, 3, (4, 1, 3))
    found = DeterministicEquivalent().solve(apart.scenario_of(mixed[:, 0]))
    assert wait_and_see(apart, mixed)[0] == pytest.approx(found.objective)


@pytest.mark.parametrize("network", NETWORKS)
def test_its_dispatch_passes_the_instances_own_check(network) -> None:
    instance = random_case(1, network, horizon=6)
    columns = np.array([0, 2, 1, 1, 0, 2])
    scenario = instance.scenario_of(columns)
    solver = DeterministicEquivalent()
    assert isinstance(solver, Solver)
    result = solver.solve(scenario)
    assert result.status == "optimal"
    check = scenario.check(result.solution)
    assert check.feasible, check.violations
    assert check.objective == result.objective == result.bound
    assert result.objective == pytest.approx(wait_and_see(instance, columns[:, None])[0])
    assert scenario.lower_bound() <= result.objective * (1 + 1e-9)
    greedy = scenario.check(stage_by_stage(scenario))
    assert greedy.feasible, greedy.violations
    assert greedy.objective > result.objective


def test_a_scenario_of_bolivia() -> None:
    scenario = from_files("bolivia").with_horizon(12).scenario(0)
    result = DeterministicEquivalent().solve(scenario)
    check = scenario.check(result.solution)
    assert check.feasible, check.violations
    assert result.objective == pytest.approx(check.objective)


@pytest.mark.slow
def test_perfect_foresight_over_96_stages_of_bolivia() -> None:
    """The first six paths of the panel, and mean inflows, as computed by an independent programme."""
    bolivia = from_files("bolivia")
    panel = np.random.default_rng(20260706).integers(0, 15, (96, 30))[:, :6]
    known = [299879.8, 302284.2, 296168.6, 310068.0, 310980.7, 304648.6]
    np.testing.assert_allclose(wait_and_see(bolivia, panel), known, atol=0.1)
    assert expected_value(bolivia) == pytest.approx(301883.1, abs=0.1)


def test_without_time_it_falls_back() -> None:
    scenario = tri3().scenario_of([0, 1, 0, 1])
    best = DeterministicEquivalent().solve(scenario)
    cut_short = DeterministicEquivalent().solve(scenario, time_limit=0.0)
    assert cut_short.status == "feasible"
    assert scenario.check(cut_short.solution).feasible
    assert cut_short.bound <= best.objective < cut_short.objective
    hinted = DeterministicEquivalent().solve(scenario, time_limit=0.0, hint=best.solution)
    assert hinted.objective == pytest.approx(best.objective)


def test_ctrl_c_ends_it_with_a_dispatch() -> None:
    scenario = random_case(0, "dc", horizon=600).scenario_of(np.arange(600) % 3)
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    timer = threading.Timer(0.15, signal.raise_signal, (signal.SIGINT,))
    try:
        timer.start()
        result = DeterministicEquivalent().solve(scenario)
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert scenario.check(result.solution).feasible
    assert result.status == "optimal" or heard


def test_what_it_cannot_solve_is_said() -> None:
    with pytest.raises(InputError, match=r"take instance.scenario_of\(columns\)"):
        DeterministicEquivalent().solve(tri3())
    scenario = tri3().scenario_of([0, 1, 2, 0])
    other = DeterministicEquivalent().solve(tri3().scenario_of([2, 2, 2, 2])).solution
    with pytest.raises(InputError, match="the hint is no dispatch of this scenario"):
        DeterministicEquivalent().solve(scenario, hint=other)
    with pytest.raises(InputError, match="bad time limit"):
        DeterministicEquivalent().solve(scenario, time_limit=-1)
    with pytest.raises(InputError, match="too large for one linear programme"):
        tree_cost(tri3(20))
    with pytest.raises(InputError, match="no such stage"):
        inflow_tree(tri3(), 4)
    for bad in (np.zeros(4, int), np.zeros((4, 2)), np.zeros((4, 2, 3), int), np.zeros((4, 0), int)):
        with pytest.raises(InputError, match="bad paths"):
            paths_of(tri3(), bad)
    with pytest.raises(InputError, match="no such inflow column"):
        paths_of(tri3(), np.full((4, 2), 3))


def test_two_million_columns_are_too_many(monkeypatch) -> None:
    monkeypatch.setattr(scenario_tree, "LARGEST_PROGRAMME", 500)
    with pytest.raises(InputError, match="too many columns"):
        wait_and_see(tri3(60), np.zeros((60, 1), int))


def test_library_and_hand_made_trees_agree() -> None:
    assert tree_cost(load("tri3")) * 0.73 == pytest.approx(TRI3_OPTIMA[4], abs=1e-6)
