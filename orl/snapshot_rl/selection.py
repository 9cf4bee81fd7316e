"""Which snapshots are alike, and which one an episode starts from.

Snapshots are grouped by one figure (the teacher's value, as a rule) with k-means, exactly: among all ways to cut the
sorted values into K runs, dynamic programming finds one of least squared distance. :class:`StartSampler` then draws a
cluster uniformly and a snapshot uniformly inside it, so that rare values are drawn as often as frequent ones.

Source: the status classification of Zhao et al., *Snapshot Reinforcement Learning* (arXiv 2403.00673), whose k-means is
Lloyd's heuristic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def cluster_values(values: npt.ArrayLike, n_clusters: int) -> Integers:
    """Labels int64[n] of an optimal 1-D k-means of ``values`` float[n]; cluster 0 has the smallest values.

    There are at most as many clusters as distinct values, and none is empty. Takes time K n^2 of the distinct values:
    a tenth of a second for 2,000.

    Raises:
        InputError: No cluster is asked for, or a value is not finite.

    >>> cluster_values([0.0, 5.1, 0.2, 5.0, 9.0], 3).tolist()
    [0, 1, 0, 1, 2]
    """
    values = np.asarray(values, np.float64)
    _require_clusters(n_clusters)
    if not np.isfinite(values).all():
        raise InputError("not finite", field="values", value=values[~np.isfinite(values)][0], expected="finite numbers")
    points, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    n = len(points)
    k = min(n_clusters, n)
    if k == 0:
        return np.zeros(0, np.int64)
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    centred = points - points.mean()
    first = np.concatenate([[0.0], np.cumsum(counts * centred)])
    second = np.concatenate([[0.0], np.cumsum(counts * centred**2)])

    def scatter(i: Integers, j: int) -> Floats:
        """Squared distance of points i..j-1 to their mean, for an array of i."""
        total = first[j] - first[i]
        return np.maximum(second[j] - second[i] - total**2 / (weight[j] - weight[i]), 0.0)

    everything = np.arange(n + 1)
    least = np.array([0.0] + [scatter(everything[:1], j)[0] for j in range(1, n + 1)])  # of the first j points
    cuts = np.zeros((k, n + 1), np.int64)  # where the last run starts
    for run in range(1, k):
        following = np.full(n + 1, np.inf)
        for j in range(run + 1, n + 1):
            starts = everything[run:j]
            cost = least[run:j] + scatter(starts, j)
            best = int(cost.argmin())
            following[j], cuts[run, j] = cost[best], starts[best]
        least = following
    labels, end = np.zeros(n, np.int64), n
    for run in range(k - 1, -1, -1):
        start = int(cuts[run, end])
        labels[start:end], end = run, start
    return labels[inverse.ravel()]


def cluster_points(points: Floats, n_clusters: int, seed: int = 0, rounds: int = 100) -> Integers:
    """Labels int64[n] of a k-means of ``points`` float[n, d]: Lloyd's method from a k-means++ start drawn by ``seed``.

    >>> cluster_points(np.array([[0.0, 0.0], [9.0, 9.0], [0.1, 0.0]]), 2).tolist()
    [0, 1, 0]
    """
    _require_clusters(n_clusters)
    points = np.asarray(points, np.float64)
    rng = np.random.default_rng(seed)
    k = min(n_clusters, len(np.unique(points, axis=0)))
    if k == 0:
        return np.zeros(0, np.int64)
    centres = points[:1].copy()
    while len(centres) < k:
        nearest = _distances(points, centres).min(1)
        centres = np.vstack([centres, points[rng.choice(len(points), p=nearest / nearest.sum())]])
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        following = _distances(points, centres).argmin(1)
        if np.array_equal(following, labels):
            break
        labels = following
        for c in np.unique(labels):
            centres[c] = points[labels == c].mean(0)
    names = list(dict.fromkeys(labels.tolist()))  # in order of first appearance, without the empty ones
    return np.array([names.index(label) for label in labels.tolist()], np.int64)


def _distances(points: Floats, centres: Floats) -> Floats:
    return np.asarray(((points[:, None, :] - centres[None]) ** 2).sum(-1), np.float64)


def _require_clusters(n_clusters: int) -> None:
    if n_clusters < 1:
        raise InputError("no clusters", field="n_clusters", value=n_clusters, expected=">= 1")


class StartSampler:
    """Draws indices of snapshots, uniformly over clusters and inside them, or plainly uniformly.

    Args:
        clusters: int64[n], a label for each snapshot.
        clustered: Whether clusters count.

    >>> sampler = StartSampler(np.array([0, 1, 1, 1]))
    >>> sampler.probabilities().tolist()[0]
    0.5
    """

    def __init__(self, clusters: npt.ArrayLike, clustered: bool = True) -> None:
        labels = np.asarray(clusters, np.int64)
        if not len(labels):
            raise InputError("no snapshots", field="clusters", expected="at least one")
        self.n = len(labels)
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)] if clustered else [np.arange(self.n)]
        self.members: list[Any] = groups

    def draw(self, rng: np.random.Generator) -> int:
        """One index; takes two draws of ``rng``."""
        group = self.members[int(rng.integers(len(self.members)))]
        return int(group[int(rng.integers(len(group)))])

    def probabilities(self) -> Floats:
        """float64[n]: how probable each snapshot is."""
        out = np.zeros(self.n)
        for group in self.members:
            out[group] = 1.0 / (len(self.members) * len(group))
        return out
