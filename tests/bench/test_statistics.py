"""Statistics against closed cases, scipy and known distributions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from scipy import special, stats

from orl.bench.bootstrap import METHODS, bootstrap_band
from orl.bench.learning_curves import Curve, sample_efficiency
from orl.bench.statistics import (
    STATISTICS,
    bootstrap_interval,
    bound_score,
    iqm,
    mean,
    median,
    normalize,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)
from orl.common.errors import InputError

quick = settings(max_examples=60, deadline=None)
NUMBERS = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 6))
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 5))


def matrices(elements: st.SearchStrategy[float] = NUMBERS) -> st.SearchStrategy[Any]:
    return SHAPES.flatmap(lambda shape: numpy_st.arrays(np.float64, shape, elements=elements))


@st.composite
def ragged(draw: st.DrawFn) -> Any:
    """Scores of tasks with different numbers of runs, one or more each, in any place."""
    scores = draw(matrices()).copy()
    missing = draw(numpy_st.arrays(np.bool_, scores.shape))
    missing[draw(st.integers(0, len(scores) - 1))] = False
    scores[missing] = np.nan
    return scores


# ---- aggregates ------------------------------------------------------------------------------------------------------
@quick
@given(ragged())
def test_iqm_is_scipys_trimmed_mean_of_all_scores_that_are_there(scores: Any) -> None:
    assert float(iqm(scores)) == pytest.approx(stats.trim_mean(scores[~np.isnan(scores)], 0.25), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([0.0, 9.0], 4.5),
        ([0.0, 1.0, 8.0], 3.0),  # below 4 scores nothing is cut
        ([0.0, 1.0, 3.0, 100.0], 2.0),
        ([0.0, 1.0, 2.0, 6.0, 100.0], 3.0),  # floor(5 / 4) = 1 off each end
        ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 700.0]], 3.5),
    ],
)
def test_iqm_by_hand(scores: Any, expected: float) -> None:
    assert float(iqm(scores)) == expected


def test_aggregates_by_hand_with_a_missing_run() -> None:
    scores = [[1.0, 0.0, 2.0], [3.0, 0.5, np.nan]]
    assert float(mean(scores)) == pytest.approx((2 + 0.25 + 2) / 3)
    assert float(median(scores)) == 2.0
    assert float(optimality_gap(scores)) == pytest.approx(1 - (1 + 0.25 + 1) / 3)
    assert float(optimality_gap(scores, gamma=0.0)) == 0.0


@quick
@given(ragged(), st.randoms(use_true_random=False), st.floats(0.1, 10), NUMBERS)
@pytest.mark.parametrize("name", ["iqm", "mean", "median"])
def test_order_of_runs_and_tasks_does_not_matter_and_units_carry_through(
    name: str, scores: Any, random: Any, scale: float, shift: float
) -> None:
    statistic = STATISTICS[name]
    value = float(statistic(scores))
    shuffled = scores[:, random.sample(range(scores.shape[1]), scores.shape[1])].copy()
    for k in range(scores.shape[1]):
        shuffled[:, k] = shuffled[random.sample(range(len(scores)), len(scores)), k]
    assert float(statistic(shuffled)) == pytest.approx(value, abs=1e-8)
    assert float(statistic(scale * scores + shift)) == pytest.approx(scale * value + shift, rel=1e-9, abs=1e-7)
    assert np.nanmin(scores) - 1e-9 <= value <= np.nanmax(scores) + 1e-9


@pytest.mark.parametrize("name", list(STATISTICS))
def test_a_batch_equals_its_members(name: str) -> None:
    scores = np.random.default_rng(0).normal(size=(6, 7, 3))
    scores[:, 5:, 1] = np.nan
    batch = STATISTICS[name](scores)
    assert batch.shape == (6,)
    np.testing.assert_allclose(batch, [STATISTICS[name](member) for member in scores], rtol=1e-13)
    scores[0, 0, 0] = np.nan  # members with different numbers of scores
    np.testing.assert_allclose(STATISTICS[name](scores)[0], STATISTICS[name](scores[0]), rtol=1e-13)


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ([], "no scores"),
        ([[1.0, np.nan]], "task without any run"),
        ([1.0, np.inf], "infinite"),
    ],
)
def test_scores_that_mean_nothing_are_refused(scores: Any, problem: str) -> None:
    for statistic in STATISTICS.values():
        with pytest.raises(InputError, match=problem):
            statistic(scores)


def test_scores_between_references_and_against_bounds() -> None:
    np.testing.assert_array_equal(normalize([[0.0, 5.0], [10.0, 6.0]], [0.0, 5.0], [10.0, 7.0]), [[0, 0], [1, 0.5]])
    np.testing.assert_array_equal(bound_score([10.0, np.nan, 20.0], [10.0, 5.0, 5.0]), [1.0, np.nan, 0.25])
    with pytest.raises(InputError, match="no width"):
        normalize([1.0], [1.0, 2.0], [3.0, 2.0])
    with pytest.raises(InputError, match="bound: not positive"):
        bound_score([1.0], [0.0])


# ---- intervals -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", list(STATISTICS))
def test_equal_scores_give_an_interval_without_width_that_says_so(name: str, method: Any) -> None:
    interval = bootstrap_interval(np.full((12, 3), 0.5), STATISTICS[name], method=method, resamples=200)
    assert interval.low == interval.estimate == interval.high
    assert "no width" in interval.note


def test_the_percentile_and_bca_intervals_are_scipys_for_one_task() -> None:
    scores = np.random.default_rng(3).lognormal(size=15)
    names: tuple[tuple[Any, str], ...] = (("percentile", "percentile"), ("bca", "BCa"))
    for method, name in names:
        ours = bootstrap_interval(scores, iqm, method=method, resamples=40_000)
        theirs = stats.bootstrap(
            (scores,),
            lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
            n_resamples=40_000,
            method=name,
            rng=np.random.default_rng(1),
        ).confidence_interval
        width = theirs.high - theirs.low
        assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
        assert ours.high == pytest.approx(theirs.high, abs=0.02 * width)


def test_the_widened_interval_is_the_percentile_interval_stretched_by_the_stated_factor() -> None:
    scores = np.random.default_rng(4).normal(size=6)
    plain = bootstrap_interval(scores, mean, method="percentile")
    wide = bootstrap_interval(scores, mean)
    factor = np.sqrt(6 / 5) * special.stdtrit(5, 0.975) / special.ndtri(0.975)
    assert wide.estimate - wide.low == pytest.approx(factor * (plain.estimate - plain.low))
    assert wide.high - wide.estimate == pytest.approx(factor * (plain.high - plain.estimate))


def test_the_t_interval_of_the_mean_is_students_up_to_resampling() -> None:
    scores = np.random.default_rng(5).normal(size=8)
    ours = bootstrap_interval(scores, mean, method="t", resamples=50_000)
    theirs = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02 * (theirs.high - theirs.low))


def test_two_tasks_have_welchs_degrees_of_freedom() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=5), 4 * rng.normal(size=9)
    scores = np.full((9, 2), np.nan)
    scores[:5, 0], scores[:, 1] = a, b
    ours = bootstrap_interval(scores, mean, method="t", resamples=50_000)
    # The mean of two task means is half the difference of a and -b.
    theirs = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low / 2, theirs.high / 2), rel=0.02)


@quick
@given(ragged(), st.floats(0.1, 10), NUMBERS)
def test_intervals_hold_the_estimate_and_change_units_with_the_scores(scores: Any, scale: float, shift: float) -> None:
    one = bootstrap_interval(scores, iqm, resamples=100)
    other = bootstrap_interval(scale * scores + shift, iqm, resamples=100)
    assert one.n_runs == int((~np.isnan(scores)).sum(0).min())
    if (~np.isnan(scores)).sum(0).max() < 2:
        assert np.isnan([one.low, one.high]).all()
        assert one.note == "One run a task: no interval."
        return
    assert one.low <= one.estimate <= one.high
    slack = 1e-5 * (1 + np.nanmax(abs(scores)) * scale + abs(shift))
    assert other.low == pytest.approx(scale * one.low + shift, abs=slack)
    assert other.high == pytest.approx(scale * one.high + shift, abs=slack)


def test_runs_that_the_interquartile_mean_trims_away_weigh_nothing_wherever_zero_lies() -> None:
    scores = np.zeros((7, 2))
    scores[1:3, 0], scores[1, 1], scores[6, 1] = np.nan, np.nan, -1.0
    here, there = (bootstrap_interval(scores + shift, iqm, resamples=100) for shift in (0.0, 1.710938))
    assert (there.low - there.estimate, there.high - there.estimate) == pytest.approx(
        (here.low - here.estimate, here.high - here.estimate), abs=1e-9
    )


def test_where_missing_runs_stand_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    complete = rng.normal(size=(12, 3))
    first, last = complete.copy(), complete.copy()
    first[:4, 1], last[-4:, 1] = np.nan, np.nan
    last[:8, 1] = complete[4:, 1]
    one, other = (bootstrap_interval(scores, iqm, seed=1) for scores in (first, last))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert one.n_runs == 8


def test_the_seed_decides_the_interval_and_confidence_its_width() -> None:
    scores = np.random.default_rng(8).normal(size=(10, 4))
    assert bootstrap_interval(scores, iqm, seed=3) == bootstrap_interval(scores, iqm, seed=3)
    assert bootstrap_interval(scores, iqm, seed=3) != bootstrap_interval(scores, iqm, seed=4)
    narrow, wide = (bootstrap_interval(scores, iqm, confidence=c) for c in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_few_runs_are_noted() -> None:
    scores = np.random.default_rng(9).normal(size=(12, 2))
    assert bootstrap_interval(scores, iqm).note == ""
    assert "too narrow" in bootstrap_interval(scores[:5], iqm, method="percentile").note
    assert "5 runs a task" in bootstrap_interval(scores[:5], iqm).note
    scores[1:, 0] = np.nan
    assert "one run only" in bootstrap_interval(scores, iqm).note


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"method": "best"}, "method: unknown method"),
        ({"confidence": 95}, "confidence"),
        ({"resamples": 10}, "resamples: too few"),
    ],
)
def test_options_that_no_interval_can_have_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        bootstrap_interval([1.0, 2.0], iqm, **options)


def test_a_band_needs_whole_runs() -> None:
    scores = np.zeros((4, 3, 1))
    scores[2, 1, 0] = np.nan
    with pytest.raises(InputError, match="some points only"):
        bootstrap_band(scores, iqm)


def coverage(
    name: str, runs: int, tasks: int, repetitions: int, method: Any = "widened", ragged: bool = False
) -> float:
    """Share of intervals of the IQM that hold the true one; its standard error is below 0.25 / sqrt(repetitions)."""
    levels = (np.arange(50_000) + 0.5) / 50_000
    draws = {
        "normal": (special.ndtri(levels), lambda z: z),
        "lognormal": (np.exp(0.75 * special.ndtri(levels)), lambda z: np.exp(0.75 * z)),
    }
    whole, shaped = draws[name]
    place = np.linspace(0, 1, tasks) if tasks > 1 else np.zeros(1)
    scores = place + shaped(np.random.default_rng(0).normal(size=(repetitions, runs, tasks)))
    truth = float(iqm(place + whole[:, None]))
    if ragged:
        # Half of the runs of every second task are missing; the pooled distribution weighs the tasks accordingly.
        scores[:, runs // 2 :, ::2] = np.nan
        weight = np.where(np.arange(tasks) % 2 == 0, (runs // 2) / runs, 1.0)
        parts = [(place[k] + whole)[:: 1 if weight[k] == 1 else round(1 / weight[k])] for k in range(tasks)]
        truth = float(iqm(np.concatenate(parts)))
    batch = 100
    bands = [
        bootstrap_band(scores[i : i + batch], iqm, resamples=400, method=method, seed=i)
        for i in range(0, repetitions, batch)
    ]
    return float(np.mean([(band.low <= truth) & (truth <= band.high) for band in bands]))


@pytest.mark.parametrize(("name", "tasks"), [("normal", 1), ("normal", 8), ("lognormal", 1), ("lognormal", 8)])
def test_ten_runs_are_covered_as_stated(name: str, tasks: int) -> None:
    assert 0.92 <= coverage(name, 10, tasks, 600) <= 0.98


def test_five_runs_are_covered_by_the_widened_interval_and_not_by_the_percentiles() -> None:
    assert coverage("normal", 5, 8, 400) > 0.93
    assert coverage("normal", 5, 1, 600) > 0.93
    assert coverage("normal", 5, 1, 600, method="percentile") < 0.93


@pytest.mark.slow
@pytest.mark.parametrize("runs", [10, 20])
@pytest.mark.parametrize("tasks", [1, 3, 8])
@pytest.mark.parametrize("name", ["normal", "lognormal"])
def test_ten_runs_and_more_are_covered_as_stated(name: str, tasks: int, runs: int) -> None:
    assert 0.92 <= coverage(name, runs, tasks, 2000) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "lognormal"])
def test_tasks_with_half_the_runs_are_covered_as_stated(name: str) -> None:
    assert 0.92 <= coverage(name, 20, 8, 2000, ragged=True) <= 0.98


# ---- profiles and probabilities --------------------------------------------------------------------------------------
@quick
@given(matrices(st.floats(0, 1)))
def test_a_profile_falls_from_one_to_zero_and_its_area_is_the_mean(scores: Any) -> None:
    taus = np.unique(np.concatenate([[-1.0, 0.0, 1.0], scores.ravel()]))
    profile = performance_profile(scores, taus, resamples=100)
    assert (np.diff(profile.share) <= 1e-12).all()
    assert profile.share[0] == 1
    assert profile.share[-1] == 0
    # Between two levels no score lies strictly inside: the profile is a step function.
    area = (np.diff(taus) * profile.share[:-1])[taus[:-1] >= 0].sum()
    assert area == pytest.approx(scores.mean(), abs=1e-9)
    if len(scores) > 1:
        assert (profile.low <= profile.share + 1e-12).all()
        assert (profile.share <= profile.high + 1e-12).all()
        assert profile.low.min() >= 0
        assert profile.high.max() <= 1


def test_a_profile_weighs_tasks_alike_whatever_their_runs() -> None:
    profile = performance_profile([[0.2, 0.9], [0.6, np.nan]], [0.5])
    assert profile.share.tolist() == [0.75]


@quick
@given(ragged(), st.data())
def test_improving_and_being_improved_on_add_to_one(x: Any, data: st.DataObject) -> None:
    y = data.draw(numpy_st.arrays(np.float64, (4, x.shape[1]), elements=st.sampled_from([-1.0, 0.0, 1.0, 2.0])))
    x = np.round(x / 400)  # so that ties happen
    there = probability_of_improvement(x, y, resamples=200)
    back = probability_of_improvement(y, x, resamples=200)
    assert there.estimate + back.estimate == pytest.approx(1)
    assert probability_of_improvement(x, y, maximise=False, resamples=200).estimate == pytest.approx(back.estimate)
    expected = []
    for k in range(x.shape[1]):
        a = x[~np.isnan(x[:, k]), k]
        expected.append(stats.mannwhitneyu(a, y[:, k]).statistic / (len(a) * 4))
    assert there.estimate == pytest.approx(np.mean(expected))
    assert 0 <= there.low <= there.high <= 1


def test_probability_of_improvement_in_clear_cases() -> None:
    low, high = np.arange(10.0)[:, None] / 10, 2 + np.arange(12.0)[:, None]
    sure = probability_of_improvement(high, low)
    assert (sure.estimate, sure.low, sure.high) == (1, 1, 1)
    assert "no width" in sure.note
    assert probability_of_improvement(low, low).estimate == 0.5
    alone = probability_of_improvement([[1.0]], [[0.0]])
    assert alone.estimate == 1
    assert np.isnan(alone.low)
    with pytest.raises(InputError, match="same tasks"):
        probability_of_improvement(np.zeros((3, 2)), np.zeros((3, 1)))


@pytest.mark.slow
def test_probability_of_improvement_is_covered_as_stated() -> None:
    rng, held, repetitions = np.random.default_rng(0), 0, 600
    truth = float(special.ndtr(0.5 / np.sqrt(2)))
    for i in range(repetitions):
        x, y = rng.normal(0.5, 1, (10, 4)), rng.normal(0, 1, (10, 4))
        interval = probability_of_improvement(x, y, resamples=400, seed=i)
        held += interval.low <= truth <= interval.high
    assert 0.92 <= held / repetitions <= 0.98


# ---- paired runs -----------------------------------------------------------------------------------------------------
def test_paired_difference_is_the_paired_t_test_and_wilcoxons() -> None:
    rng = np.random.default_rng(2)
    b = rng.normal(size=30)
    a = b + 0.3 + 0.2 * rng.normal(size=30)
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.difference / found.std_error == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(stats.wilcoxon(a, b, zero_method="pratt").pvalue)
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx((found.low, found.high), abs=0.03)
    assert (found.n, found.n_missing, found.note) == (30, 0, "")


@pytest.mark.parametrize("n", [2, 5, 9, 12, 60])
@pytest.mark.parametrize("whole", [False, True])
def test_the_signed_rank_test_is_scipys_with_ties_and_without(n: int, whole: bool) -> None:
    differences = np.random.default_rng(n).normal(0.4, 1.5, size=n)
    differences = np.round(differences) if whole else differences
    if not differences.any():
        differences[0] = 1.0
    found = paired_difference(differences, np.zeros(n)).p_value
    exact = stats.wilcoxon(differences, zero_method="pratt", method="auto").pvalue
    assert found == pytest.approx(exact, rel=1e-9)


@quick
@given(
    numpy_st.arrays(np.float64, st.integers(1, 12), elements=NUMBERS),
    st.data(),
)
def test_swapping_the_sides_turns_everything_round(a: Any, data: st.DataObject) -> None:
    b = data.draw(numpy_st.arrays(np.float64, a.shape, elements=NUMBERS))
    there, back = paired_difference(a, b, resamples=100), paired_difference(b, a, resamples=100)
    assert there.difference == pytest.approx(-back.difference)
    assert there.win_rate == pytest.approx(1 - back.win_rate)
    assert there.win_rate == pytest.approx(paired_difference(b, a, maximise=False, resamples=100).win_rate)
    if len(a) > 1:
        assert there.std_error == pytest.approx(back.std_error)
        assert there.low == pytest.approx(-back.high, abs=1e-6)
        assert there.p_value == pytest.approx(back.p_value)


def test_degenerate_pairs_say_so() -> None:
    one = paired_difference([3.0], [1.0])
    assert (one.n, one.difference, one.win_rate) == (1, 2.0, 1.0)
    assert np.isnan([one.std_error, one.low, one.high, one.bootstrap_low, one.p_value]).all()
    assert "One pair" in one.note
    same = paired_difference([1.0, 2.0], [1.0, 2.0])
    assert (same.difference, same.std_error, same.p_value, same.win_rate, same.ties) == (0, 0, 1, 0.5, 1)
    assert "All pairs are equal" in same.note
    shifted = paired_difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (shifted.low, shifted.high) == (1, 1)
    assert "no width" in shifted.note
    missing = paired_difference([1.0, np.nan, 5.0], [0.0, 1.0, 3.0])
    assert (missing.n, missing.n_missing, missing.difference) == (2, 1, 1.5)
    with pytest.raises(InputError, match="no pair"):
        paired_difference([np.nan], [1.0])
    with pytest.raises(InputError, match="not pairs"):
        paired_difference([1.0, 2.0], [1.0])


# ---- learning curves -------------------------------------------------------------------------------------------------
def test_curves_meet_on_a_common_grid_and_are_not_extrapolated() -> None:
    curves = [Curve("a", [0, 10, 30], [0.0, 1.0, 3.0]), Curve("a", [5, 20], [1.0, 4.0])]
    found = sample_efficiency(curves, level=2.5)
    assert found.steps.tolist() == [5, 10, 20]
    np.testing.assert_allclose(found.estimate, [0.75, 1.5, 3.0])  # means of 0.5, 1, 2 and of 1, 2, 4
    np.testing.assert_allclose(found.area.estimate, ((0.75 + 1.5) / 2 * 5 + (1.5 + 3) / 2 * 10) / 15)
    assert found.steps_to_level.tolist() == [30, 20]
    assert (found.n_censored, found.median_steps_to_level) == (0, 25)
    with pytest.raises(InputError, match="outside what every run covers"):
        sample_efficiency(curves, grid=[0, 10])


def test_runs_that_never_reach_the_level_are_counted_as_censored() -> None:
    curves = [Curve("a", [1, 2, 3], values) for values in ([0.0, 2.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0])]
    found = sample_efficiency(curves, level=2.0)
    np.testing.assert_array_equal(found.steps_to_level, [2, 3, np.nan])
    assert (found.n_censored, found.median_steps_to_level) == (1, 3)
    assert sample_efficiency(curves, level=9.0).median_steps_to_level == np.inf
    assert sample_efficiency(curves, level=0.0, maximise=False).steps_to_level.tolist() == [1, 1, 1]
    assert sample_efficiency(curves).steps_to_level.size == 0


def test_the_band_of_a_curve_is_the_interval_of_each_point() -> None:
    rng = np.random.default_rng(0)
    runs = [(task, np.arange(4), rng.normal(size=4)) for task in "ab" for _ in range(6 if task == "a" else 4)]
    found = sample_efficiency(runs, seed=5, resamples=300)
    scores = np.full((6, 2), np.nan)
    for k, task in enumerate("ab"):
        values = [values[2] for name, _, values in runs if name == task]
        scores[: len(values), k] = values
    point = bootstrap_interval(scores, iqm, seed=5, resamples=300)
    assert (found.estimate[2], found.low[2], found.high[2]) == pytest.approx((point.estimate, point.low, point.high))
    assert found.n_runs == 4


@pytest.mark.parametrize(
    ("curves", "problem"),
    [
        ([], "no curve"),
        ([("a", [], [])], "not a curve"),
        ([("a", [0, 0], [1.0, 2.0])], "not increasing"),
        ([("a", [0, 1], [1.0, np.nan])], "not finite"),
        ([("a", [0, 1], [1.0, 2.0]), ("a", [2, 3], [1.0, 2.0])], "share no range"),
    ],
)
def test_curves_that_cannot_be_joined_are_refused(curves: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        sample_efficiency(curves)


def test_the_committed_coverage_is_what_the_documentation_states() -> None:
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "interval_coverage"
    with (folder / "results" / "coverage.csv").open(newline="", encoding="utf-8") as file:
        iqm_rows = [row for row in csv.DictReader(file) if row["statistic"] == "iqm"]
    enough = [100 * float(row["widened"]) for row in iqm_rows if int(row["runs"]) >= 10]
    assert len(enough) == 18
    assert (min(enough), max(enough)) == (pytest.approx(94.2, abs=0.051), pytest.approx(97.4, abs=0.051))
    for text in (str(bootstrap_interval.__doc__), (folder / "README.md").read_text(encoding="utf-8")):
        assert "94.2 to 97.4 %" in text
