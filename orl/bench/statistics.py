"""Statistics over ``scores[runs, tasks]``: what one may say from a few runs, and how surely.

A run is one training (one seed); NaN marks a run that is missing, so tasks may have different numbers of runs. Higher
scores are better unless ``maximise=False`` is said. Aggregates, performance profile and probability of improvement
follow Agarwal, Schwarzer, Castro, Courville and Bellemare (2021), "Deep Reinforcement Learning at the Edge of the
Statistical Precipice"; where every task has the same number of runs the figures are those of their package rliable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orl.bench.bootstrap import (
    METHODS,
    Array,
    Band,
    Influence,
    Interval,
    Method,
    Statistic,
    as_scores,
    bootstrap_band,
    bootstrap_interval,
    check_options,
    describe,
    ends,
)
from orl.common.errors import InputError

__all__ = [
    "METHODS",
    "STATISTICS",
    "Array",
    "Band",
    "Difference",
    "Interval",
    "Method",
    "Profile",
    "Statistic",
    "as_scores",
    "bootstrap_band",
    "bootstrap_interval",
    "bound_score",
    "iqm",
    "mean",
    "median",
    "normalize",
    "optimality_gap",
    "paired_difference",
    "performance_profile",
    "probability_of_improvement",
]


# ---- scores ----------------------------------------------------------------------------------------------------------
def normalize(scores: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> Array:
    """``(scores - low) / (high - low)``: 0 for the low reference (a random policy's score), 1 for the high one.

    ``low`` and ``high`` are numbers or arrays that broadcast, such as one a task. Raises InputError where they agree.

    >>> normalize([[10.0, 5.0]], low=[0.0, 4.0], high=[20.0, 6.0]).tolist()
    [[0.5, 0.5]]
    """
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if (bottom == top).any():
        raise InputError("no width", field="high", value=high, expected="a value other than low")
    return (np.asarray(scores, np.float64) - bottom) / (top - bottom)


def bound_score(objective: npt.ArrayLike, bound: npt.ArrayLike) -> Array:
    """``bound / objective`` of minimised objectives: 1 when proved optimal, 0.5 when at most twice the optimum.

    NaN stays NaN. Raises InputError unless all bounds and objectives are positive.

    >>> bound_score([110.0, 100.0], 100.0).round(3).tolist()
    [0.909, 1.0]
    """
    above, below = np.asarray(objective, np.float64), np.asarray(bound, np.float64)
    for field, values in (("objective", above), ("bound", below)):
        if (values <= 0).any():
            raise InputError("not positive", field=field, value=float(np.nanmin(values)), expected="> 0")
    return below / above


# ---- aggregates ------------------------------------------------------------------------------------------------------
def iqm(scores: npt.ArrayLike) -> Array:
    """Interquartile mean: the mean of the middle half of all scores, runs and tasks pooled.

    Of n scores the ``floor(n / 4)`` lowest and as many highest are left out; no score counts in part. This is
    ``scipy.stats.trim_mean(scores, 0.25, axis=None)``. Below 4 scores it is the plain mean.

    Takes ``[..., runs, tasks]``, gives ``[...]``; so do the other aggregates.

    >>> float(iqm([0.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 100.0]))
    6.5
    """
    array = as_scores(scores)
    flat = array.reshape(*array.shape[:-2], -1)
    counts = flat.shape[-1] - np.isnan(flat).sum(-1)
    n = int(counts.max())
    cut = n // 4
    if (counts == n).all():
        if cut == 0 and n == flat.shape[-1]:
            return np.asarray(flat.mean(-1))[()]
        # NaN go to the end.
        middle = np.partition(flat, sorted({cut, n - cut - 1}), axis=-1)[..., cut : n - cut]
        return np.asarray(middle.mean(-1))[()]
    cuts = (counts // 4)[..., None]
    place = np.arange(flat.shape[-1])
    kept = (place >= cuts) & (place < counts[..., None] - cuts)
    return np.asarray(np.where(kept, np.sort(flat, axis=-1), 0).sum(-1) / kept.sum(-1))[()]


def mean(scores: npt.ArrayLike) -> Array:
    """Mean over tasks of each task's mean: every task counts the same, however many runs it has.

    >>> float(mean([[1.0, 10.0], [3.0, np.nan]]))
    6.0
    """
    return np.asarray(_task_means(as_scores(scores)).mean(-1))[()]


def median(scores: npt.ArrayLike) -> Array:
    """Median over tasks of each task's mean.

    >>> float(median([[1.0, 10.0, 100.0], [3.0, 10.0, 100.0]]))
    10.0
    """
    return np.asarray(np.median(_task_means(as_scores(scores)), axis=-1))[()]


def optimality_gap(scores: npt.ArrayLike, gamma: float = 1.0) -> Array:
    """How far scores stay below ``gamma`` on average: ``gamma - mean(min(score, gamma))``; lower is better.

    The mean is over tasks of each task's mean.

    >>> float(optimality_gap([0.5, 2.0]))
    0.25
    """
    return np.asarray(gamma - mean(np.minimum(as_scores(scores), gamma)))[()]


STATISTICS: dict[str, Statistic] = {"iqm": iqm, "mean": mean, "median": median, "optimality_gap": optimality_gap}
"""The aggregates by name."""


def _task_means(array: Array) -> Array:
    missing = np.isnan(array)
    if not missing.any():
        return np.asarray(array.mean(-2))
    return np.asarray(np.where(missing, 0, array).sum(-2) / (~missing).sum(-2))


# ---- distributions ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Profile:
    """A performance profile.

    Attributes:
        taus: ``[n]``: the levels.
        share: ``[n]``: share of runs above each level, averaged over tasks.
        low, high: ``[n]``: pointwise confidence band within [0, 1].
        n_runs, note: As in :class:`Interval`.
    """

    taus: Array
    share: Array
    low: Array
    high: Array
    n_runs: int
    note: str


def performance_profile(
    scores: npt.ArrayLike,
    taus: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: Method = "widened",
) -> Profile:
    """Share of runs with a score above tau, averaged over tasks, for each tau (Agarwal et al. 2021, section 4.2).

    The area under it, from 0 up, is the mean of scores that are not negative. The band is pointwise, not simultaneous;
    where no run, or every run, lies above tau it has no width.

    Args:
        scores: ``[runs, tasks]``, NaN where a run is missing.
        taus: ``[n]``: levels.

    >>> performance_profile([0.2, 0.4, 0.6, 0.8], [0.0, 0.5, 0.9]).share.tolist()
    [1.0, 0.5, 0.0]
    """
    array, levels = as_scores(scores), np.atleast_1d(np.asarray(taus, np.float64))
    if array.ndim != 2:
        raise InputError("wrong shape", field="scores", value=array.shape, expected="[runs, tasks]")
    above = np.where(np.isnan(array), np.nan, array > levels[:, None, None])
    band = bootstrap_band(above, mean, confidence=confidence, resamples=resamples, seed=seed, method=method)
    low, high = np.clip(band.low, 0, 1), np.clip(band.high, 0, 1)
    return Profile(levels, band.estimate, low, high, band.n_runs, band.note)


def probability_of_improvement(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    maximise: bool = True,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    method: Method = "widened",
) -> Interval:
    """Probability that a run of x beats a run of y on a task drawn at random; ties count half.

    For each task the Mann-Whitney statistic over the product of the numbers of runs, then the mean over tasks (Agarwal
    et al. 2021, section 4.3). Runs of x and of y are resampled independently; the interval stays within [0, 1].

    Args:
        x, y: ``[runs, tasks]``, the same tasks in the same order; the numbers of runs may differ.
        maximise: Whether higher is better.

    >>> probability_of_improvement([1.0, 2.0, 3.0], [2.0, 2.0]).estimate
    0.5
    """
    one, other = as_scores(x), as_scores(y)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        shapes = f"{one.shape} and {other.shape}"
        raise InputError("not the same tasks", field="x, y", value=shapes, expected="[runs, tasks] with equal tasks")
    check_options(confidence, resamples, method)
    rng = np.random.default_rng(seed)
    tasks = one.shape[1]
    estimate, values = 0.0, np.zeros(resamples)
    influence: list[Array] = []
    n_runs = int(min((~np.isnan(one)).sum(0).min(), (~np.isnan(other)).sum(0).min()))
    for k in range(tasks):
        a, b = (np.sort(column[~np.isnan(column)]) for column in (one[:, k], other[:, k]))
        # Of each run the number of the other side's runs that it beats, ties half.
        lower, upper = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
        beaten_a = (lower + upper) / 2
        beaten_b = (np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")) / 2
        centre = float(beaten_a.mean() / len(b))
        estimate += centre / tasks
        below = np.zeros((resamples, len(b) + 1))
        np.cumsum(_draw_counts(len(b), resamples, rng), axis=1, out=below[:, 1:])
        drawn = _draw_counts(len(a), resamples, rng)
        values += (drawn * (below[:, lower] + below[:, upper])).sum(1) / (2 * len(a) * len(b) * tasks)
        sides = (beaten_a / len(b), 1 - beaten_b / len(a))
        influence += [(side - centre) / (len(side) * tasks) for side in sides if len(side) > 1]
    if not maximise:
        estimate, values, influence = 1 - estimate, 1 - values, [-part for part in influence]
    if not influence:
        return Interval(np.nan, np.nan, confidence, n_runs, "One run a task: no interval.", estimate)
    counts = np.array([len(part) for part in influence])
    moves = Influence(np.concatenate(influence), np.repeat(np.arange(len(counts)), counts), counts)
    low, high = np.clip(ends(values, np.asarray(estimate), moves, confidence, method), 0, 1)
    note = describe(method, n_runs, bool(np.ptp(values) <= 1e-12))
    return Interval(float(low), float(high), confidence, n_runs, note, estimate)


def _draw_counts(n: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """How often each of n runs is drawn in each resample: ``[resamples, n]``."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n)


# ---- paired runs -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Difference:
    """Two subjects on shared seeds or scenarios; differences are the first minus the second.

    Attributes:
        n: Pairs with both values.
        n_missing: Pairs left out because a value is missing.
        mean_a, mean_b: Means over the pairs.
        difference: Mean difference.
        std_error: Its standard error, ``std(differences, ddof=1) / sqrt(n)``; NaN for one pair.
        low, high: Student's t interval of the mean difference; NaN for one pair.
        bootstrap_low, bootstrap_high: Bootstrap interval of the same.
        win_rate: Share of pairs in which the first is better, ties counted half.
        ties: Share of pairs with equal values.
        p_value: Two-sided Wilcoxon signed-rank test (equal pairs as Pratt 1959 treats them), exact up to 50 pairs; NaN
            for one pair, 1 when all pairs are equal.
        confidence: Of both intervals.
        note: What weakens the figures; empty if nothing does.
    """

    n: int
    n_missing: int
    mean_a: float
    mean_b: float
    difference: float
    std_error: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    win_rate: float
    ties: float
    p_value: float
    confidence: float
    note: str


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    maximise: bool = True,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Compare values that share seeds or scenarios (common random numbers), pair by pair.

    Args:
        a, b: ``[n]``: values of the pairs; a pair with a NaN is left out and counted.
        maximise: Whether higher is better (for the win rate).

    Raises:
        InputError: Different lengths, infinite values, no pair with both values.

    >>> found = paired_difference([11.0, 12.0, 13.0], [10.0, 12.0, 11.0])
    >>> found.difference, round(found.std_error, 3), round(found.win_rate, 3)
    (1.0, 0.577, 0.833)
    """
    from scipy import special

    one, other = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise InputError(
            "not pairs", field="a, b", value=f"{one.shape} and {other.shape}", expected="two equal vectors"
        )
    complete = ~(np.isnan(one) | np.isnan(other))
    one, other = one[complete], other[complete]
    n, missing = len(one), int((~complete).sum())
    if n == 0:
        raise InputError("no pair with both values", field="a, b", expected="one or more")
    differences = one - other
    centre = float(differences.mean())
    influence = Influence((differences - centre) / n, np.zeros(n, np.intp), np.array([n]))
    interval = bootstrap_interval(
        differences, mean, confidence=confidence, resamples=resamples, seed=seed, influence=influence
    )
    notes = [f"Pairs left out because a value is missing: {missing}."] if missing else []
    error = low = high = p_value = float("nan")
    if n == 1:
        notes.append("One pair: no standard error, interval or test.")
    else:
        error = float(differences.std(ddof=1) / np.sqrt(n))
        half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * error
        low, high = centre - half, centre + half
        if not differences.any():
            p_value = 1.0
            notes.append("All pairs are equal.")
        else:
            p_value = _signed_rank(differences)
            if np.ptp(differences) == 0:
                notes.append("All differences agree: the intervals have no width.")
    ties = float((differences == 0).mean())
    wins = float((differences > 0).mean() if maximise else (differences < 0).mean())
    return Difference(
        n=n,
        n_missing=missing,
        mean_a=float(one.mean()),
        mean_b=float(other.mean()),
        difference=centre,
        std_error=error,
        low=low,
        high=high,
        bootstrap_low=interval.low,
        bootstrap_high=interval.high,
        win_rate=wins + ties / 2,
        ties=ties,
        p_value=p_value,
        confidence=confidence,
        note=" ".join(notes),
    )


def _signed_rank(differences: Array) -> float:
    """p-value of Wilcoxon's signed-rank test: exact, ties included, up to 50 pairs; then scipy's normal approximation.

    scipy enumerates all signs where there are ties; here the distribution of the rank sum is convolved rank by rank.
    """
    from scipy import stats

    if len(differences) > 50:
        return float(stats.wilcoxon(differences, zero_method="pratt", method="approx").pvalue)
    moved = differences != 0
    # Twice the rank, a whole number also for ties. Equal pairs have ranks, the lowest, and no sign.
    ranks = np.rint(2 * stats.rankdata(abs(differences))).astype(np.int64)[moved]
    positive = int(ranks[differences[moved] > 0].sum())
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[: len(chances) - rank]
        chances = (chances + shifted) / 2
    return float(min(1.0, 2 * min(chances[: positive + 1].sum(), chances[positive:].sum())))
