"""What the scores of an environment say: standings with intervals, comparisons by pairs, and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from orl.bench.comparison import compare as paired_rows
from orl.bench.report_data import Arena, Measure, Sweep
from orl.bench.report_tables import decimals_of, figure
from orl.bench.statistics import (
    Array,
    Interval,
    bootstrap_interval,
    iqm,
    mean,
    median,
    normalize,
    optimality_gap,
    probability_of_improvement,
)

if TYPE_CHECKING:
    import pandas

RESAMPLES = 2000
Note = tuple[str, str]
"""Subject (empty: all of them) and what weakens its figures."""


@dataclass(frozen=True)
class Standing:
    """Aggregates of one subject with their intervals; ``optimality_gap`` of normalised scores only."""

    subject: str
    iqm: Interval
    mean: Interval
    median: Interval
    optimality_gap: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Scores of several subjects on the same tasks.

    Attributes:
        scores: ``[runs, tasks]`` by subject, NaN where a run is missing; tasks without any run are left out.
        ranked: Subjects that have all tasks, so that they may be compared.
        measure: What a score is.
        normalised: Whether the scores are normalised: 1 is the upper end of a scale.
    """

    scores: dict[str, Array]
    ranked: tuple[str, ...]
    measure: Measure
    normalised: bool = False

    @cached_property
    def standings(self) -> dict[str, Standing]:
        """By subject, the best of the ranked ones first, then the others."""
        found = {subject: self._standing(subject) for subject in self.scores}
        sign = -1 if self.measure.maximise else 1
        order = sorted(found, key=lambda subject: (subject not in self.ranked, sign * found[subject].iqm.estimate))
        return {subject: found[subject] for subject in order}

    def _standing(self, subject: str) -> Standing:
        scores = self.scores[subject]
        middle = median if scores.shape[1] > 1 else median_of_runs
        one, two, three = (bootstrap_interval(scores, what, resamples=RESAMPLES) for what in (iqm, mean, middle))
        gap = bootstrap_interval(scores, optimality_gap, resamples=RESAMPLES) if self.normalised else None
        return Standing(subject, one, two, three, gap)

    @property
    def leader(self) -> str | None:
        """The ranked subject with the best interquartile mean."""
        return next((subject for subject in self.standings if subject in self.ranked), None)

    @cached_property
    def improvement(self) -> dict[tuple[str, str], Interval]:
        """Probability that a run of the first of a pair beats a run of the second, for all ranked pairs."""
        found = {}
        order = [subject for subject in self.standings if subject in self.ranked]
        for i, one in enumerate(order):
            for other in order[i + 1 :]:
                interval = probability_of_improvement(
                    self.scores[one], self.scores[other], maximise=self.measure.maximise, resamples=RESAMPLES
                )
                found[one, other] = interval
                found[other, one] = replace(
                    interval, low=1 - interval.high, high=1 - interval.low, estimate=1 - interval.estimate
                )
        return found

    def decided(self, one: str, other: str) -> bool:
        """Whether the first of a pair is ahead beyond chance, at 5 %.

        The interval of the probability of improvement lies above one half. Where it has no width, every run of one
        beating every run of the other, an exact permutation test within the tasks decides instead: two runs against
        two prove nothing.
        """
        chance = self.improvement[one, other]
        if np.isnan(chance.low) or chance.low <= 0.5:
            return False
        if chance.low < chance.high:
            return True
        runs = [(~np.isnan(self.scores[subject])).sum(0) for subject in (one, other)]
        orders = math.prod(math.comb(int(n + m), int(n)) for n, m in zip(*runs, strict=True))
        return orders >= 40


def median_of_runs(scores: Array) -> Array:
    """Median over the runs of a single task: ``[..., runs, 1]`` to ``[...]``.

    >>> float(median_of_runs(np.array([[1.0], [2.0], [9.0]])))
    2.0
    """
    return np.asarray(np.nanmedian(scores[..., 0], axis=-1))


def compare(arena: Arena) -> Comparison:
    """The subjects of an environment."""
    scores = {subject: _without_empty_tasks(values) for subject, values in arena.scores.items()}
    return Comparison({s: values for s, values in scores.items() if values.size}, arena.ranked, arena.measure)


def _without_empty_tasks(scores: Array) -> Array:
    return np.asarray(scores[:, ~np.isnan(scores).all(0)])


def overall(sweep: Sweep) -> Comparison | None:
    """All environments that have a scale, together: normalised scores of the subjects that ran in each of them.

    None with fewer than two such environments.
    """
    scaled = [arena for arena in sweep.arenas if arena.scale is not None]
    if len(scaled) < 2:
        return None
    subjects = [subject for subject in sweep.subjects if all(subject in arena.ranked for arena in scaled)]
    scores = {}
    for subject in subjects:
        parts = [normalised(arena, arena.scores[subject]) for arena in scaled]
        runs = max(len(part) for part in parts)
        padded = [np.pad(part, ((0, runs - len(part)), (0, 0)), constant_values=np.nan) for part in parts]
        scores[subject] = np.concatenate(padded, axis=1)
    meaning = "(return - low) / (high - low) with the two figures of the scale of each environment; higher is better."
    measure = Measure("normalised score", True, False, meaning, False)
    return Comparison(scores, tuple(scores), measure, normalised=True) if scores else None


def normalised(arena: Arena, scores: Array) -> Array:
    """Scores on the scale of the environment."""
    assert arena.scale is not None
    return normalize(scores, arena.scale.low, arena.scale.high)


# ---- pairs -----------------------------------------------------------------------------------------------------------
def differences(arena: Arena, leader: str) -> pandas.DataFrame | None:
    """The leader compared with each other subject on shared scenarios (:func:`orl.bench.compare`); None without any.

    Subjects with a single run seed are paired with every run of the others.
    """
    import pandas

    rows = arena.rows[arena.rows["judged"].notna()]
    single = rows.groupby("subject")["run_seed"].transform("nunique") == 1
    rows = rows.assign(run_seed=rows["run_seed"].astype("Int64").mask(single))
    found = []
    for other in (subject for subject in arena.subjects if subject != leader):
        pair = rows[rows["subject"].isin([leader, other])]
        if (pair.groupby("instance")["subject"].nunique() == 2).any():
            found.append(paired_rows(pair, other, value="judged", maximise=arena.measure.maximise))
    return pandas.concat(found, ignore_index=True) if found else None


# ---- words -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Verdict:
    """Who is best in an environment.

    Attributes:
        environment: Its label.
        text: One or two sentences.
        certain: Whether one subject is ahead of all the others beyond chance.
        notes: What weakens it: pairs of a subject (or nothing) and a sentence.
    """

    environment: str
    text: str
    certain: bool
    notes: tuple[Note, ...]


def verdict(label: str, comparison: Comparison, remarks: Sequence[Note] = ()) -> Verdict:
    """Say who is best, with what certainty, and what is not known."""
    leader = comparison.leader
    if leader is None:
        text = "No subject has a valid result on every instance, so nobody is ranked."
        return Verdict(label, text, False, tuple(remarks))
    standing = comparison.standings[leader].iqm
    score = f"interquartile mean of the {comparison.measure.name}: {with_interval(standing, comparison.measure)}"
    notes = [*remarks, *([(leader, standing.note)] if standing.note else [])]
    others = [subject for subject in comparison.standings if subject in comparison.ranked and subject != leader]
    if not others:
        return Verdict(label, f"{leader} stands alone, with nobody to compare: {score}.", False, tuple(notes))
    chances = {subject: comparison.improvement[leader, subject] for subject in others}
    single = [subject for subject, chance in chances.items() if np.isnan(chance.low)]
    behind = [subject for subject in others if comparison.decided(leader, subject)]
    level = [subject for subject in others if subject not in (*single, *behind)]
    if level:
        nearest = min(level, key=lambda subject: chances[subject].estimate)
        text = f"Undecided: {leader} is first ({score}), but these runs do not tell it from {listed(level)}"
        sure = chances[nearest].estimate == 1
        text += f": they are too few, though {_beats(nearest, chances[nearest])}." if sure else "; "
        text += "" if sure else f"{_beats(nearest, chances[nearest])}."
        text += f" It is ahead of {listed(behind)}." if behind else ""
    else:
        text = f"{leader} is best ({score})"
        closest = min(behind, key=lambda subject: chances[subject].estimate, default=None)
        text += f"; {_beats(closest, chances[closest])}." if closest else "."
    if single:
        text += f" {_tasks_won(comparison)}"
        notes.append(("", f"One run a task of {listed([leader, *single])}: what chance does to them is not measured."))
    return Verdict(label, text, not level and not single, tuple(notes))


def _beats(other: str, chance: Interval) -> str:
    if chance.estimate == 1:
        return f"each of its runs beats each run of {other}"
    return f"a run of it beats a run of {other} with probability {chance_text(chance)}"


def _tasks_won(comparison: Comparison) -> str:
    """How often the leader is best, task by task."""
    leader = comparison.leader
    means = np.array([np.nanmean(comparison.scores[subject], axis=0) for subject in comparison.ranked])
    best = means.max(0) if comparison.measure.maximise else means.min(0)
    won = int(np.isclose(means[comparison.ranked.index(str(leader))], best, rtol=1e-9, atol=1e-12).sum())
    return f"It is best, or as good as the best, on {won} of {means.shape[1]} instances."


def remarks_on(arena: Arena) -> list[Note]:
    """What is missing: runs that failed or were not run, episodes without a valid solution, subjects left out."""
    found = []
    for subject, planned in arena.planned.items():
        done, failed, invalid = arena.done.get(subject, 0), arena.failed.get(subject, 0), arena.invalid.get(subject, 0)
        if failed:
            found.append((subject, f"{failed} of {planned} runs failed and do not count."))
        if planned - done - failed > 0:
            found.append((subject, f"{planned - done - failed} of {planned} runs are not done yet."))
        if invalid:
            found.append((subject, f"{invalid} episodes without a valid solution, therefore not ranked."))
        elif done and subject not in arena.ranked:
            found.append((subject, "no result on some instances, therefore not ranked."))
    return found


def with_interval(interval: Interval, measure: Measure) -> str:
    """``4.31, 95 % interval 4.1 to 4.6``; the figure alone where there is no interval."""
    decimals = decimals_of([interval.estimate], percent=measure.percent, digits=3)
    text = figure(interval.estimate, decimals, percent=measure.percent)
    if np.isnan(interval.low):
        return text
    ends = [figure(end, decimals, percent=measure.percent) for end in (interval.low, interval.high)]
    return f"{text}, 95 % interval {ends[0]} to {ends[1]}"


def chance_text(interval: Interval) -> str:
    """A probability with its interval."""
    if np.isnan(interval.low):
        return f"{interval.estimate:.2f} (no interval: one run)"
    return f"{interval.estimate:.2f} (95 % interval {interval.low:.2f} to {interval.high:.2f})"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def notes_of(comparison: Comparison) -> list[Note]:
    """What weakens the intervals of the standings."""
    return [(subject, found.iqm.note) for subject, found in comparison.standings.items() if found.iqm.note]


def grouped(notes: Iterable[Note]) -> list[str]:
    """Notes as sentences, subjects with the same one together.

    >>> grouped([("a", "Few runs."), ("b", "Few runs."), ("", "Other.")])
    ['a, b: Few runs.', 'Other.']
    """
    subjects: dict[str, list[str]] = {}
    for subject, text in notes:
        subjects.setdefault(text, []).extend([subject] if subject else [])
    return [f"{', '.join(dict.fromkeys(names))}: {text}" if names else text for text, names in subjects.items()]
