"""Rolling horizon: windows equal programmes built afresh, the fan, and cuts as terminal prices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hydrothermal_toys import TRI3_OPTIMA, case, random_case, tri3

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import HydrothermalInstance
from orl.solvers.hydrothermal.deterministic_equivalent import expected_value, wait_and_see
from orl.solvers.hydrothermal.myopic import energy_of_water
from orl.solvers.hydrothermal.rolling_horizon import fan
from orl.solvers.hydrothermal.rules import make_rule
from orl.solvers.hydrothermal.scenario_tree import TreeProgramme
from orl.solvers.hydrothermal.sddp import SDDP
from orl.solvers.hydrothermal.simulation import simulate

ALL_PATHS = np.array(np.meshgrid(*[range(3)] * 4, indexing="ij")).reshape(4, -1)


def without_noise(instance: HydrothermalInstance) -> HydrothermalInstance:
    return replace(
        instance, inflows=instance.mean_inflows[:, :, None].copy(), probabilities=np.ones((len(instance.inflows), 1))
    )


@pytest.mark.parametrize("scenarios", [None, 3])
@pytest.mark.parametrize("network", ["copper", "dc"])
def test_with_certain_inflows_a_window_to_the_end_is_optimal(network: Any, scenarios: int | None) -> None:
    for instance in (tri3(6), random_case(1, network, horizon=7)):
        certain = without_noise(instance)
        columns = np.zeros((certain.horizon, 1), np.int64)
        decide = make_rule("rolling-horizon", certain, window=certain.horizon, scenarios=scenarios)
        costs, _ = simulate(certain, decide, columns)
        assert costs.sum() == pytest.approx(expected_value(certain), rel=1e-6)


@pytest.mark.parametrize("scenarios", [None, 2])
def test_first_decisions_are_optimal_in_programmes_built_afresh(scenarios: int | None) -> None:
    """In any order of stages: demand (3 rows), inflows (2 rows) and length of the window change in place."""
    instance, window, seed = random_case(4, "dc", horizon=8), 3, 7
    decide = make_rule("rolling-horizon", instance, window=window, scenarios=scenarios, seed=seed)
    rng, stored = np.random.default_rng(0), []
    for t in (5, 1, 7, 6, 0, 4):
        volume, inflow = rng.uniform(0, instance.max_volume), instance.inflow(t, int(rng.integers(3)))
        after = decide(np.array([t]), volume[None], inflow[None])[0]
        tree = fan(instance, t, min(window, 8 - t), scenarios, seed)
        tree.inflow[0] = inflow
        programme = TreeProgramme(instance, tree, volume)
        best = programme.solve()
        assert best is not None
        stored.append(energy_of_water(instance) @ (after - best.values[0][programme.block.columns["volume"]]))
        for i, value in enumerate(after.tolist()):
            place = programme.block.columns["volume"].start + i
            programme.highs.changeColBounds(place, max(value - 1e-7, 0.0), value + 1e-7)
        held = programme.solve()
        assert held is not None
        assert held.cost == pytest.approx(best.cost, rel=1e-5, abs=0.05)
    assert min(stored) > -1e-3  # of equal plans one that stores most is taken, not any
    assert max(stored) > 1


def test_a_longer_window_costs_less_and_a_fan_less_still() -> None:
    instance = tri3()
    means = []
    for options in ({"window": 1}, {"window": 2}, {"window": 4}, {"window": 4, "scenarios": 30}):
        costs, _ = simulate(instance, make_rule("rolling-horizon", instance, **options), ALL_PATHS)
        means.append(costs.sum(1).mean())
    assert means == sorted(means, reverse=True)
    assert means[-1] < 1.03 * TRI3_OPTIMA[4]
    assert means[-1] >= wait_and_see(instance, ALL_PATHS).mean()


def test_of_equal_plans_one_that_stores_is_taken() -> None:
    """Thermal power costs the same in both stages and is needed in both: water may be used in either."""
    instance = case(
        horizon=2,
        max_volume=[10],
        initial_volume=[4],
        max_outflow=[100],
        production_factor=[1],
        thermal=[(20, 3)],
        demand=[5],
        inflows=[[[0]]],
    )
    decide = make_rule("rolling-horizon", instance, window=2)
    assert decide(np.array([0]), np.array([[4.0]]), np.zeros((1, 1))) == pytest.approx(np.array([[4.0]]))


# ---- the fan ---------------------------------------------------------------------------------------------------------
def test_the_fan_follows_seed_and_stage_and_the_distribution() -> None:
    instance = replace(tri3(6), probabilities=np.tile([0.0, 0.75, 0.25], (4, 1)))
    one, again, other, later = (fan(instance, t, 3, 400, seed) for t, seed in ((1, 5), (1, 5), (1, 6), (2, 5)))
    assert np.array_equal(one.inflow, again.inflow)
    assert not np.array_equal(one.inflow, other.inflow)
    assert later.stage.tolist() == [2] + [3] * 400 + [4] * 400
    assert one.parent.tolist() == [-1] + [0] * 400 + list(range(1, 401))
    for k, t in enumerate((2, 3)):
        drawn = one.inflow[1 + 400 * k : 1 + 400 * (k + 1)]
        table = instance.inflows[t % 4].T
        which = (drawn[:, None] == table).all(-1)
        assert which.any(1).all()
        assert not which[:, 0].any()
        assert which[:, 1].mean() == pytest.approx(0.75, abs=0.08)
    assert np.array_equal(fan(instance, 1, 3, None, 0).inflow, instance.mean_inflows[1:4])


# ---- terminal prices -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("multicut", [False, True])
def test_one_stage_and_good_cuts_are_the_optimal_policy(multicut: bool) -> None:
    instance = tri3()
    sddp = SDDP(instance, multicut=multicut)
    sddp.train(iterations=120)
    costs, _ = simulate(instance, make_rule("rolling-horizon", instance, window=1, terminal=sddp), ALL_PATHS)
    assert costs.sum(1).mean() == pytest.approx(TRI3_OPTIMA[4], rel=2e-3)  # cuts are exact where training went
    assert costs.sum(1).mean() >= TRI3_OPTIMA[4] * (1 - 1e-7)


def test_cuts_from_a_file_help_and_later_training_changes_nothing(tmp_path: Any) -> None:
    instance = tri3()
    sddp = SDDP(instance)
    sddp.train(iterations=30)
    sddp.save(tmp_path / "cuts.json")
    plain, priced, filed = (
        make_rule("rolling-horizon", instance, window=2, terminal=terminal)
        for terminal in (None, sddp, tmp_path / "cuts.json")
    )
    costs, volumes = simulate(instance, priced, ALL_PATHS)
    sddp.train(iterations=5)
    assert np.array_equal(simulate(instance, priced, ALL_PATHS)[1], volumes)
    assert simulate(instance, filed, ALL_PATHS)[0].sum() == pytest.approx(costs.sum(), rel=1e-6)
    assert costs.sum() < 0.95 * simulate(instance, plain, ALL_PATHS)[0].sum()
    with_fan = make_rule("rolling-horizon", instance, window=2, terminal=sddp, scenarios=20)
    assert simulate(instance, with_fan, ALL_PATHS)[0].sum() < costs.sum()


@pytest.mark.parametrize("scenarios", [None, 2])
def test_with_cuts_too_decisions_do_not_hang_on_those_before(scenarios: int | None) -> None:
    instance = random_case(6, "dc", horizon=5)
    sddp = SDDP(instance)
    sddp.train(iterations=6)
    options = {"window": 2, "terminal": sddp, "scenarios": scenarios}
    volumes = np.random.default_rng(0).uniform(0, instance.max_volume, (5, 4))
    inflows = np.array([instance.inflow(t, t % 3) for t in range(5)])
    found = []
    for order in (np.arange(5), np.array([4, 2, 3, 0, 1]), np.array([2, 1, 0, 4, 3])):
        decide = make_rule("rolling-horizon", instance, **options)
        for _ in range(2):
            after = np.empty((5, 4))
            after[order] = decide(order, volumes[order], inflows[order])
            found.append(after)
    assert all(np.array_equal(after, found[0]) for after in found)


def test_bad_options_are_refused() -> None:
    instance, other, discounted = tri3(), SDDP(tri3(6)), SDDP(tri3(), discount=0.9)
    for field, options in (
        ("window", {"window": 0}),
        ("window", {"window": 2.0}),
        ("scenarios", {"scenarios": 0}),
        ("cuts", {"terminal": other}),
        ("terminal", {"terminal": discounted}),
    ):
        with pytest.raises(InputError, match=field):
            make_rule("rolling-horizon", instance, **options)
