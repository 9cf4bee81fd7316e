"""Volumes from releases: exact balances within bounds, which the strict programme can always meet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_toys import from_files, random_case, tri3

from orl.envs.hydrothermal.dual_pool import DualPool
from orl.envs.hydrothermal.instance import HydrothermalInstance
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.envs.hydrothermal.water_balance import WaterBalance
from orl.solvers.hydrothermal.sddp import SDDP


def dispatch(instance: HydrothermalInstance, water: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = StageLP(instance, form="storage").solve(water).primal
    return x["turbined"], x["spilled"], x["volume"]


@pytest.mark.parametrize("seed", range(4))
def test_a_clean_dispatch_keeps_its_volumes(seed) -> None:
    instance = random_case(seed)
    for water in np.random.default_rng(seed).uniform(0, 25, (10, 4)):
        turbined, spilled, volume = dispatch(instance, water)
        np.testing.assert_allclose(WaterBalance(instance).settle(water, turbined, spilled), volume, atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_noise_leaves_volumes_that_can_be_met(seed) -> None:
    """Releases off by a thousand times the tolerance: volumes within bounds that the strict programme can meet."""
    instance, rng = random_case(seed), np.random.default_rng(seed)
    balance, strict = WaterBalance(instance), StageLP(random_case(seed))
    for water in rng.uniform(0, 25, (20, 4)):
        turbined, spilled, clean = dispatch(instance, water)
        volume = balance.settle(water, turbined + rng.normal(0, 1e-4, 4), spilled + rng.normal(0, 1e-4, 4))
        assert (volume >= instance.min_volume).all()
        assert (volume <= instance.max_volume).all()
        np.testing.assert_allclose(volume, clean, atol=5e-3)
        strict.solve(water - volume)


def test_what_lacks_is_not_released_and_what_is_too_much_is_spilled() -> None:
    instance = replace(tri3(), min_volume=np.array([5.0, 0.0, 0.0]))
    balance, factor = WaterBalance(instance), instance.water_factor
    turbined, spilled = np.array([4.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
    low = balance.settle(np.array([8.0, 1.0, 1.0]), turbined, spilled)
    np.testing.assert_allclose(low, [5.0, 4.0, 1.0])  # 3 hm3 leave plant A for plant B
    high = balance.settle(np.array([300.0, 1.0, 90.0]), 0 * turbined, 0 * spilled)
    np.testing.assert_allclose(high, [200.0, 20.0, 80.0])
    assert 4.0 * factor + 1.0 > 3.0


def test_states_of_a_policy_are_data_of_the_strict_programme() -> None:
    """The whole way from SDDP's simulation to the pool: same costs, no state without a dispatch."""
    instance = from_files("bolivia-t12")
    sddp = SDDP(instance)
    sddp.train(iterations=4)
    columns = np.random.default_rng(0).integers(0, 15, (12, 30))
    costs, volumes = sddp.simulate(columns)
    rhs = volumes[:, :-1] + instance.water_factor * instance.path_inflows(columns.T) - volumes[:, 1:]
    again, _ = DualPool(instance).costs_and_duals(rhs, np.arange(12))
    np.testing.assert_allclose(again, costs, rtol=1e-6, atol=1e-2)
