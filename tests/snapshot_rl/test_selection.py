"""Clusters are optimal, and every one is drawn as often as any other."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from orl.common.errors import InputError
from orl.snapshot_rl.selection import StartSampler, cluster_points, cluster_values


def scatter(values, labels) -> float:
    values = np.asarray(values, np.float64)
    return float(sum(((values[labels == c] - values[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels)))


def best_scatter(values, k) -> float:
    """By trying every way to cut the sorted values."""
    values = np.sort(values)
    best = np.inf
    for cuts in itertools.combinations(range(1, len(values)), k - 1):
        best = min(best, sum(((part - part.mean()) ** 2).sum() for part in np.split(values, cuts)))
    return best


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=9), st.integers(1, 4))
def test_no_other_clusters_are_closer(values, k) -> None:
    values = np.array(values)
    labels = cluster_values(values, k)
    distinct = len(np.unique(values))
    assert set(labels) == set(range(min(k, distinct)))
    order = np.argsort(values, kind="stable")
    assert (np.diff(labels[order]) >= 0).all()
    if k <= distinct:
        size = max(1.0, float(np.abs(values).max())) ** 2
        assert scatter(values, labels) <= best_scatter(values, k) + 1e-9 * size


def test_a_large_offset_does_not_blur_the_clusters() -> None:
    values = 1e9 + np.array([0.0, 0.1, 5.0, 5.1, 9.0])
    assert cluster_values(values, 3).tolist() == [0, 0, 1, 1, 2]


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        cluster_values([0.0, np.nan], 2)
    with pytest.raises(InputError, match="no clusters"):
        cluster_values([0.0], 0)


def test_points_are_clustered_by_place_and_alike_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(c, 0.1, (20, 3)) for c in (0.0, 5.0, 10.0)])
    labels = cluster_points(points, 3, seed=1)
    assert [len(set(labels[i : i + 20])) for i in (0, 20, 40)] == [1, 1, 1]
    assert len(set(labels)) == 3
    np.testing.assert_array_equal(labels, cluster_points(points, 3, seed=1))
    assert set(cluster_points(np.zeros((4, 2)), 3)) == {0}


def test_small_clusters_are_drawn_as_often_as_large_ones() -> None:
    labels = np.array([0] + [7] * 99)
    rng = np.random.default_rng(0)
    n = 4000
    drawn = np.array([StartSampler(labels).draw(rng) for _ in range(n)])
    assert abs((drawn == 0).mean() - 0.5) < 3 * np.sqrt(0.25 / n)
    plain = np.array([StartSampler(labels, clustered=False).draw(rng) for _ in range(n)])
    assert abs((plain == 0).mean() - 0.01) < 3 * np.sqrt(0.01 * 0.99 / n)
    np.testing.assert_allclose(StartSampler(labels).probabilities()[:2], [0.5, 0.5 / 99])


def test_draws_are_those_of_the_seed() -> None:
    sampler = StartSampler(np.arange(20) % 3)
    one, two = ([sampler.draw(np.random.default_rng(5)) for _ in range(1)] for _ in range(2))
    assert one == two
