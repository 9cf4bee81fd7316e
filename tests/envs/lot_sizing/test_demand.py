"""Demand tables, their draws and the named distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orl.common.errors import InputError
from orl.envs.lot_sizing.demand import independent
from orl.envs.lot_sizing.distributions import (
    binomial,
    correlated,
    deterministic,
    discrete_uniform,
    item_specific,
    periods,
    pmf,
    same_mean_binomial,
    seasonal,
)

KEYS = np.arange(40_000, dtype=np.uint64)


def p_value(drawn, values, probabilities):
    """Chi-square test of draws against a table; values expected less than five times are joined."""
    expected = probabilities * len(drawn)
    observed = np.array([(drawn == v).sum() for v in values])
    assert observed.sum() == len(drawn)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    return stats.chisquare(observed[keep], expected[keep]).pvalue


@pytest.mark.parametrize("trials, probability", [(4, 0.4), (20, 0.4), (1, 0.5), (7, 0.99)])
def test_binomial_tables_and_draws_are_binomial(trials, probability):
    demand = binomial(3, trials, probability)
    known = stats.binom(trials, probability).pmf(np.arange(trials + 1))
    assert demand.probabilities[0] == pytest.approx(np.tile(known, (3, 1)), abs=1e-14)
    drawn = demand.draw(KEYS, 5)
    assert drawn.shape == (40_000, 3)
    for i in range(3):
        assert p_value(drawn[:, i], np.arange(trials + 1), known) > 1e-4
    assert abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03


def test_consecutive_periods_and_draws_are_independent_and_binomial():
    demand = binomial(1, 4, 0.4)
    path = demand.draw(np.uint64(7), np.arange(20_000))[:, 0]
    assert p_value(path, np.arange(5), stats.binom(4, 0.4).pmf(np.arange(5))) > 1e-4
    assert abs(np.corrcoef(path[:-1], path[1:])[0, 1]) < 0.03
    draws = demand.draw(np.uint64(7), 3, np.arange(20_000))[:, 0]
    assert p_value(draws, np.arange(5), stats.binom(4, 0.4).pmf(np.arange(5))) > 1e-4
    assert draws[0] == path[3]


def test_deterministic_demand_needs_no_luck():
    demand = deterministic([3, 0])
    assert demand.values.shape == (1, 2, 1)
    assert (demand.draw(KEYS[:50], 0) == [3, 0]).all()
    coupled = correlated(demand, 0.5)
    assert (coupled.draw(KEYS[:50], 0) == [3, 0]).all()
    path = deterministic([[1, 2], [3, 4], [5, 6]])
    assert path.draw(np.uint64(1), np.arange(3)).tolist() == [[1, 2], [3, 4], [5, 6]]


def test_probability_zero_is_never_drawn():
    demand = independent([([0, 1, 2, 3], [0.0, 0.5, 0.0, 0.5]), ([5], [1.0])])
    drawn = demand.draw(KEYS, 0)
    assert set(drawn[:, 0].tolist()) == {1, 3}
    assert set(drawn[:, 1].tolist()) == {5}


@pytest.mark.parametrize("correlation", [0.8, -0.8])
def test_correlated_demand_keeps_its_margins_and_has_the_rank_correlation(correlation):
    demand = correlated(binomial(2, 20, 0.4), correlation)
    drawn = demand.draw(KEYS, 0)
    for i in range(2):
        assert p_value(drawn[:, i], np.arange(21), stats.binom(20, 0.4).pmf(np.arange(21))) > 1e-4
    rank = stats.spearmanr(drawn[:, 0], drawn[:, 1]).statistic
    assert rank == pytest.approx(6 / np.pi * np.arcsin(correlation / 2), abs=0.03)  # of the copula, ties apart


def test_correlation_may_differ_between_pairs():
    matrix = np.array([[1.0, 0.7, 0.0], [0.7, 1.0, -0.5], [0.0, -0.5, 1.0]])
    drawn = correlated(binomial(3, 20, 0.5), matrix).draw(KEYS, 0)
    rank = stats.spearmanr(drawn).statistic
    assert rank[0, 1] > 0.6
    assert rank[1, 2] < -0.4
    assert abs(rank[0, 2]) < 0.03


@pytest.mark.parametrize(
    "matrix", [[[1, 0.5], [0.4, 1]], [[1, 1], [1, 1]], [[2, 0], [0, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], 1.0, "x"]
)
def test_what_is_no_correlation_is_refused(matrix):
    with pytest.raises(InputError, match="correlation"):
        correlated(binomial(2, 4, 0.4), matrix)


def test_uniform_leaves_out_its_upper_end():
    demand = discrete_uniform(2, 3, 6)
    assert demand.values[0].tolist() == [[3, 4, 5]] * 2
    assert demand.probabilities == pytest.approx(np.full((1, 2, 3), 1 / 3))


def test_repeated_values_add_up():
    demand = pmf(1, [0, 0, 1, 1, 2], [0.08, 0.261, 0.348, 0.232, 0.079])
    assert demand.values[0].tolist() == [[0, 1, 2]]
    assert demand.probabilities[0, 0].tolist() == pytest.approx([0.341, 0.58, 0.079])


def test_items_of_different_distributions_share_one_table():
    demand = item_specific([binomial(1, 4, 0.4), deterministic([7]), discrete_uniform(1, 0, 3)])
    assert demand.mean[0].tolist() == pytest.approx([1.6, 7, 1])
    drawn = demand.draw(KEYS, 0)
    assert drawn.max(0).tolist() == [4, 7, 2]
    assert (drawn[:, 1] == 7).all()


def test_periods_have_their_own_tables():
    demand = periods([binomial(2, 4, 0.1), deterministic([9, 9]), binomial(2, 8, 0.9)])
    assert not demand.stationary
    drawn = demand.draw(KEYS[:, None], np.arange(3))
    assert drawn.shape == (40_000, 3, 2)
    assert drawn.mean(0) == pytest.approx(np.array([[0.4, 0.4], [9, 9], [7.2, 7.2]]), abs=0.03)
    assert demand.mean == pytest.approx(np.array([[0.4, 0.4], [9, 9], [7.2, 7.2]]))
    assert demand.table(1)[0].max() == 9


def test_seasonal_demand_follows_its_wave():
    demand = seasonal(2, 40, mean=8.0, amplitude=0.5, cycle=20, trials=20)
    assert demand.mean[0] == pytest.approx([8, 8], abs=1e-9)
    assert demand.mean[5] == pytest.approx([12, 4])  # items half a cycle apart
    assert demand.mean.mean(0) == pytest.approx([8, 8])
    together = seasonal(2, 40, mean=8.0, amplitude=0.5, cycle=20, trials=20, shift=False)
    assert together.mean[5] == pytest.approx([12, 12])
    with pytest.raises(InputError, match="mean"):
        seasonal(2, 40, mean=15.0, amplitude=0.5, cycle=20, trials=20)


def test_the_variance_sweep_keeps_the_mean():
    variances = []
    for trials, scale in [(0, 1), (2, 1), (4, 1), (100, 1), (4, 2), (2, 4)]:
        demand = same_mean_binomial(2, 1.6, trials, scale=scale, horizon=20)
        assert demand.mean.mean() == pytest.approx(1.6)
        variances.append(float(((demand.values - demand.mean[..., None]) ** 2 * demand.probabilities).sum(-1).mean()))
    assert variances == pytest.approx([0, 0.32, 0.96, 1.5744, 2.56, 5.12])
    with pytest.raises(InputError, match="horizon"):
        same_mean_binomial(2, 1.6, 0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: binomial(0, 4, 0.4),
        lambda: binomial(2, -1, 0.4),
        lambda: binomial(2, 4, 1.5),
        lambda: binomial(2, 4, float("nan")),
        lambda: binomial(2, 4.5, 0.4),
        lambda: binomial(2, True, 0.4),
        lambda: discrete_uniform(1, 3, 3),
        lambda: pmf(1, [0, 1], [0.5, 0.6]),
        lambda: pmf(1, [0, 1], [0.5]),
        lambda: pmf(1, [0, -1], [0.5, 0.5]),
        lambda: pmf(1, [], []),
        lambda: deterministic([-1]),
        lambda: item_specific([]),
        lambda: periods([periods([binomial(1, 4, 0.4)] * 2)]),
        lambda: independent([([0, 1], [0.5, 0.6])]),
        lambda: independent([([0.5], [1.0])]),
        lambda: binomial(1000, 1000, 0.5) and item_specific([binomial(1000, 1000, 0.5)] * 5),
    ],
)
def test_what_is_no_distribution_is_refused(build):
    with pytest.raises(InputError):
        build()


def test_tables_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        binomial(2, 4, 0.4).values[0] = 1
