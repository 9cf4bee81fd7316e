"""The pool of bases answers as HiGHS does, faster; and it says what it did."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hydrothermal_toys import from_files, random_case, tri3

from orl.common.errors import InputError
from orl.envs.hydrothermal.dual_pool import DualPool
from orl.envs.hydrothermal.instance import NETWORKS, HydrothermalInstance
from orl.envs.hydrothermal.stage_lp import StageError, StageLP


def queries(instance: HydrothermalInstance, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    most = instance.max_volume + instance.water_factor * instance.inflows.max((0, 2))
    return rng.uniform(0, 1, (count, instance.n_plants)) * most


@pytest.mark.parametrize("network", NETWORKS)
def test_it_answers_as_highs_does(network) -> None:
    instance = random_case(1, network)
    rhs = queries(instance, 1000)
    expected, gradients = StageLP(instance).costs_and_duals(rhs)
    pool = DualPool(instance)
    for batch in (slice(0, 10), slice(10, 500), slice(500, 1000)):
        costs, duals = pool.costs_and_duals(rhs[batch])
        np.testing.assert_allclose(costs, expected[batch], rtol=1e-8, atol=1e-6)
        np.testing.assert_allclose(duals, gradients[batch], rtol=1e-6, atol=1e-6)
    assert pool.counts.queries == 1000
    assert pool.counts.solved == pool.n_bases + pool.counts.rejected < 100
    solved = pool.counts.solved
    pool.costs_and_duals(rhs)
    assert pool.counts.solved == solved
    assert pool.counts.hit_rate > 0.95
    assert pool.retries == 0


@pytest.mark.slow
def test_it_answers_as_highs_does_on_5000_states_of_bolivia() -> None:
    instance = from_files("bolivia")
    rng = np.random.default_rng(0)
    volume = rng.uniform(0, 1, (5000, 11)) * instance.max_volume
    inflow = instance.inflows[rng.integers(0, 48, 5000), :, rng.integers(0, 15, 5000)]
    rhs = volume + instance.water_factor * inflow
    pool = DualPool(instance)
    np.testing.assert_allclose(pool.costs_and_duals(rhs)[0], StageLP(instance).costs_and_duals(rhs)[0], rtol=1e-8)
    assert pool.counts.hit_rate > 0.9


def test_every_stage_has_the_table_of_its_demand() -> None:
    instance = tri3(horizon=9)
    rhs = queries(instance, 45).reshape(5, 9, 3)
    pool = DualPool(instance)
    costs, duals = pool.costs_and_duals(rhs, np.arange(9))
    assert costs.shape == (5, 9)
    assert duals.shape == (5, 9, 3)
    for stage in range(9):
        np.testing.assert_allclose(
            costs[:, stage], StageLP(instance, stage).costs_and_duals(rhs[:, stage])[0], rtol=1e-9, atol=1e-6
        )
    assert len(pool._tables) == 4
    single, gradient = pool.costs_and_duals(rhs[2, 5], 5)
    assert single == pytest.approx(costs[2, 5])
    assert gradient.shape == (3,)


def test_without_certificates_it_bounds_from_below() -> None:
    instance = random_case(2, "dc")
    rhs = queries(instance, 400)
    exact, _ = StageLP(instance).costs_and_duals(rhs)
    pool = DualPool(instance, certify=False)
    few, _ = pool.costs_and_duals(rhs[:1])
    assert few[0] == pytest.approx(exact[0])
    bound, slope = pool.costs_and_duals(rhs)
    assert pool.counts.solved == 1
    assert (bound <= exact * (1 + 1e-9) + 1e-6).all()
    assert (bound < exact - 1).any()
    np.testing.assert_allclose(bound[0] + (rhs - rhs[0]) @ slope[0], bound, rtol=1e-9)  # one basis, one plane
    assert pool.gap(rhs[:50]) == pytest.approx(((exact - bound) / np.maximum(np.abs(exact), 1.0))[:50].max(), rel=1e-6)
    pool.certify = True
    pool.costs_and_duals(rhs)
    assert pool.gap(rhs) < 1e-8


def test_the_same_queries_give_the_same_answers() -> None:
    instance = random_case(0, "dc")
    rhs = queries(instance, 300)
    first, second = DualPool(instance), DualPool(instance)
    for one, two in zip(first.costs_and_duals(rhs), second.costs_and_duals(rhs), strict=True):
        np.testing.assert_array_equal(one, two)
    assert first.counts == second.counts


def test_a_full_pool_lets_the_idle_go_and_stays_right() -> None:
    instance = random_case(1, "dc")
    rhs = queries(instance, 600)
    exact, _ = StageLP(instance).costs_and_duals(rhs)
    pool = DualPool(instance, size=8)
    for start in range(0, 600, 20):
        costs, _ = pool.costs_and_duals(rhs[start : start + 20])
        np.testing.assert_allclose(costs, exact[start : start + 20], rtol=1e-8, atol=1e-6)
        assert pool.n_bases <= 8
        assert pool.n_functions <= pool.n_bases
    assert pool.counts.evicted > 0
    assert pool.counts.solved == pool.n_bases + pool.counts.evicted + pool.counts.rejected
    tiny = DualPool(instance, size=1)
    np.testing.assert_allclose(tiny.costs_and_duals(rhs[:30])[0], exact[:30], rtol=1e-8, atol=1e-6)
    assert tiny.n_bases == 1


def test_a_basis_that_was_used_lately_stays() -> None:
    instance = random_case(1, "dc")
    rhs = queries(instance, 200)
    pool = DualPool(instance, size=12)
    favourite = rhs[:1]
    pool.costs_and_duals(favourite)
    for start in range(1, 200, 5):
        pool.costs_and_duals(rhs[start : start + 5])
        before = pool.counts.solved
        pool.costs_and_duals(favourite)
        assert pool.counts.solved == before
    assert pool.counts.evicted > 0


def test_kinks_do_not_miss() -> None:
    """Where functions meet, an optimal basis of any of them will do: right-hand sides between two known planes."""
    instance = tri3()
    rhs = queries(instance, 200)
    pool = DualPool(instance)
    costs, duals = pool.costs_and_duals(rhs)
    offsets = costs - (duals * rhs).sum(1)
    kinks = []
    for a, b in zip(range(100), range(100, 200), strict=True):
        rise_a, rise_b = (duals[k] @ (rhs[b] - rhs[a]) for k in (a, b))
        if abs(rise_a - rise_b) < 1e-6:
            continue
        share = (offsets[b] + duals[b] @ rhs[a] - costs[a]) / (rise_a - rise_b)
        if 0 < share < 1:
            kinks.append(rhs[a] + share * (rhs[b] - rhs[a]))
    assert len(kinks) > 10
    exact, _ = StageLP(instance).costs_and_duals(kinks)
    np.testing.assert_allclose(pool.costs_and_duals(kinks)[0], exact, rtol=1e-9, atol=1e-6)
    assert pool.counts.false_misses <= pool.counts.solved // 4


def test_it_travels_between_processes() -> None:
    instance = random_case(0, "transport")
    rhs = queries(instance, 100)
    pool = DualPool(instance)
    pool.costs_and_duals(rhs)
    again = pickle.loads(pickle.dumps(pool))
    np.testing.assert_array_equal(again.costs_and_duals(rhs)[0], pool.costs_and_duals(rhs)[0])
    assert again.counts.solved == pool.counts.solved
    np.testing.assert_allclose(again.costs_and_duals(rhs * 0.9)[0], pool.costs_and_duals(rhs * 0.9)[0], rtol=1e-9)


def test_impossible_water_and_bad_sizes_are_refused() -> None:
    with pytest.raises(StageError, match="kInfeasible"):
        DualPool(tri3()).costs_and_duals([[-1.0, 0.0, 0.0]])
    with pytest.raises(InputError, match="a pool needs room"):
        DualPool(tri3(), size=0)
    costs, duals = DualPool(tri3()).costs_and_duals(np.zeros((0, 3)))
    assert costs.shape == (0,)
    assert duals.shape == (0, 3)
