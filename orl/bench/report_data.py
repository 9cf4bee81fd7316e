"""What a report tells, gathered from the folder of a sweep: scores by environment, runs, failures, learning curves.

Each environment is judged by one score. Where subjects solve instances it is a gap, so that instances of all sizes
weigh the same; elsewhere it is the return.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from orl.bench import store
from orl.bench.learning_curves import Curve
from orl.bench.plan import Scale
from orl.bench.statistics import Array

if TYPE_CHECKING:
    import pandas

TOLERANCE = 1e-9
"""Relative difference below which an objective equals a bound or another objective."""


@dataclass(frozen=True)
class Measure:
    """The score by which the subjects of an environment are compared.

    Attributes:
        name: In tables and on axes.
        maximise: Whether higher is better.
        percent: Whether it is written as a percentage.
        meaning: One sentence.
        solves: Whether it comes from objectives of checked solutions; returns otherwise.
    """

    name: str
    maximise: bool
    percent: bool
    meaning: str
    solves: bool


RETURN = Measure("return", True, False, "Return of an episode, not discounted; higher is better.", False)
OBJECTIVE = Measure("objective", False, False, "Objective of the checked solution; lower is better.", True)
BEST_KNOWN = Measure(
    "gap to best known",
    False,
    True,
    "Gap to the best known objective of each instance, (objective - best known) / |best known|; lower is better.",
    True,
)
BOUND = Measure(
    "gap to bound",
    False,
    True,
    "Gap to the best lower bound of each instance, (objective - bound) / |bound|; lower is better.",
    True,
)
BEST_FOUND = Measure(
    "gap to best found",
    False,
    True,
    "Gap to the best objective that this sweep found for each instance, (objective - best) / |best|; lower is better.",
    True,
)


@dataclass(frozen=True)
class Arena:
    """One environment of a sweep and the scores in it.

    Attributes:
        label: Its label.
        measure: What a score is.
        subjects: Labels of the subjects with finished runs, in the order of the plan.
        instances: Names of the instances, in the order of the plan.
        rows: Evaluation episodes (:func:`orl.bench.load`) with two more columns: ``judged``, the score (NaN without a
            valid solution), and ``pooled_bound``, the best lower bound for the row (NaN where there is none).
        planned, failed: Runs by subject.
        scale: Scale of the environment, or None.
    """

    label: str
    measure: Measure
    subjects: tuple[str, ...]
    instances: tuple[str, ...]
    rows: pandas.DataFrame
    planned: dict[str, int]
    failed: dict[str, int]
    scale: Scale | None

    @cached_property
    def scores(self) -> dict[str, Array]:
        """``[runs, instances]`` by subject: mean over the episodes of a run on an instance; NaN where there is none."""
        return {subject: self._scores(subject) for subject in self.subjects}

    def _scores(self, subject: str) -> Array:
        mine = self.rows[self.rows["subject"] == subject]
        means = mine.groupby(["run_seed", "instance"])["judged"].mean().unstack("instance")
        return means.reindex(columns=list(self.instances)).to_numpy(np.float64)

    @cached_property
    def done(self) -> dict[str, int]:
        """Finished runs by subject."""
        return {str(s): int(n) for s, n in self.rows.groupby("subject")["run"].nunique().items()}

    @cached_property
    def invalid(self) -> dict[str, int]:
        """Episodes without a valid solution by subject; empty where scores are returns."""
        if not self.measure.solves:
            return {}
        missing = self.rows[self.rows["judged"].isna()]
        return {str(s): int(n) for s, n in missing.groupby("subject").size().items()}

    @cached_property
    def ranked(self) -> tuple[str, ...]:
        """Subjects that can be compared: a score on every instance and no episode without a valid solution."""
        return tuple(s for s in self.subjects if not self.invalid.get(s) and not np.isnan(self.scores[s]).all(0).any())

    @property
    def has_instances(self) -> bool:
        """Whether a table by instance says more than the summary."""
        return len(self.instances) > 1 or bool(self.rows["objective"].notna().any())


class Failure(NamedTuple):
    """A failed run."""

    run: str
    environment: str
    subject: str
    error: str
    traceback: str


@dataclass(frozen=True)
class Sweep:
    """A sweep as the report sees it.

    Attributes:
        folder: Where it lies.
        name: Its name.
        file: Whether the folder holds the sweep file.
        table: All evaluation episodes.
        runs: Finished and failed runs (:func:`orl.bench.runs`).
        planned: Number of runs of the plan.
        arenas: Environments with finished runs, in the order of the plan.
        failures: Failed runs.
        versions: Packages that the sweep was started with.
    """

    folder: Path
    name: str
    file: bool
    table: pandas.DataFrame
    runs: pandas.DataFrame
    planned: int
    arenas: tuple[Arena, ...]
    failures: tuple[Failure, ...]
    versions: dict[str, Any]

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """Labels of all subjects, in the order of the plan; their places decide their colours."""
        return tuple(dict.fromkeys(subject for arena in self.arenas for subject in arena.planned))


def read(folder: Path) -> Sweep:
    """Gather the folder of a sweep.

    Raises:
        InputError: no sweep there, or a file of it that cannot be read.
    """
    plan = store.plan(folder)
    table, runs = store.load(folder), store.runs(folder)
    labels = [(task["environment"], task["subject"]) for task in plan["tasks"].values()]
    planned = Counter(labels)
    bad = runs[runs["state"] == "failed"]
    failed = Counter(zip(bad["environment"], bad["subject"], strict=True))
    arenas = []
    for label in dict.fromkeys(environment for environment, _ in labels):
        rows = table[table["environment"] == label]
        if rows.empty:
            continue
        scale = plan["scales"].get(label)
        there = set(rows["subject"])
        subjects = list(dict.fromkeys(subject for environment, subject in labels if environment == label))
        arenas.append(
            _arena(
                label,
                rows,
                tuple(subject for subject in subjects if subject in there),
                {subject: planned[label, subject] for subject in subjects},
                {subject: failed[label, subject] for subject in subjects},
                None if scale is None else Scale(**scale),
            )
        )
    failures = tuple(_failure(folder, row) for row in bad.to_dict("records"))
    return Sweep(
        folder=folder,
        name=str(plan["name"]),
        file=(folder / "sweep.yaml").exists(),
        table=table,
        runs=runs,
        planned=len(labels),
        arenas=tuple(arenas),
        failures=failures,
        versions=plan.get("versions") or {},
    )


def _failure(folder: Path, row: dict[Any, Any]) -> Failure:
    data = store.read_record(folder, str(row["run"]))
    return Failure(
        str(row["run"]), str(row["environment"]), str(row["subject"]), str(row["error"]), traceback_of(data) or ""
    )


def traceback_of(record: dict[str, Any]) -> str | None:
    """Traceback in the record of a failed run; None in others."""
    return str(record["error"]["traceback"]).strip() if record.get("error") else None


def _arena(
    label: str,
    rows: pandas.DataFrame,
    subjects: tuple[str, ...],
    planned: dict[str, int],
    failed: dict[str, int],
    scale: Scale | None,
) -> Arena:
    rows = rows.assign(pooled_bound=_pooled_bound(rows))
    measure = _measure(rows)
    return Arena(
        label=label,
        measure=measure,
        subjects=subjects,
        instances=tuple(dict.fromkeys(map(str, rows["instance"]))),
        rows=rows.assign(judged=_score(rows, measure)),
        planned=planned,
        failed=failed,
        scale=scale if measure is RETURN else None,
    )


def _pooled_bound(rows: pandas.DataFrame) -> pandas.Series[float]:
    """The largest bound that any run reported for the instance of each row.

    Bounds of one instance are shared only where the instance is one problem: rules and policies, which report the
    instance's own bound, then agree on it, and no objective lies below the largest. Elsewhere (scenarios drawn anew in
    each episode) a row keeps its own bound.
    """
    groups = rows.groupby("instance")
    largest = groups["bound"].transform("max")
    own = rows["bound"].where(rows["kind"] != "solver")
    spread = own.groupby(rows["instance"]).transform(lambda values: values.max() - values.min()).fillna(0.0)
    lowest = groups["objective"].transform("min")
    slack = TOLERANCE * largest.abs()
    shared = (spread <= slack) & ~(lowest < largest - slack)
    return largest.where(shared, rows["bound"])


def _measure(rows: pandas.DataFrame) -> Measure:
    solved = rows[rows["objective"].notna()]
    if solved.empty:
        return OBJECTIVE if rows["return"].isna().all() else RETURN
    if solved["instance"].nunique() == 1:
        return OBJECTIVE
    for column, measure in (("best_known", BEST_KNOWN), ("pooled_bound", BOUND)):
        if (solved[column].notna() & (solved[column] != 0)).all():
            return measure
    best = solved.groupby("instance")["objective"].min()
    return OBJECTIVE if (best == 0).any() else BEST_FOUND


def _score(rows: pandas.DataFrame, measure: Measure) -> pandas.Series[float]:
    if measure is RETURN:
        return rows["return"]
    reference = _reference(rows, measure)
    return rows["objective"] if reference is None else (rows["objective"] - reference) / reference.abs()


def _reference(rows: pandas.DataFrame, measure: Measure) -> pandas.Series[float] | None:
    """What a gap is measured from, for each row; None where the score is no gap."""
    if measure is BEST_KNOWN:
        return rows["best_known"]
    if measure is BOUND:
        return rows["pooled_bound"]
    return rows.groupby("instance")["objective"].transform("min") if measure is BEST_FOUND else None


def curves(sweep: Sweep, arena: Arena) -> tuple[Measure, dict[str, list[Curve]]]:
    """The learning curves of an environment by subject, and what their values are.

    A point is the mean score of its evaluation. Where a curve holds no objective for some episode, all curves of the
    environment are of returns.
    """
    learning = arena.rows[arena.rows["kind"] == "algorithm"].drop_duplicates("run")
    points = {str(run): store.curve_points(sweep.folder, str(run)) for run in learning["run"]}
    measure = arena.measure
    if measure.solves and not all(_complete(point["objectives"]) for curve in points.values() for point in curve):
        measure = RETURN
    column = "objectives" if measure.solves else "returns"
    found: dict[str, list[Curve]] = {}
    for run, subject in zip(learning["run"], learning["subject"], strict=True):
        kept = [(point["steps"], point[column]) for point in points[str(run)] if _complete(point[column])]
        if not kept:
            continue
        reference = _instance_reference(arena, str(run)) if measure.solves else None
        scores = [_mean_score(values, reference) for _, values in kept]
        found.setdefault(str(subject), []).append(Curve(arena.label, [step for step, _ in kept], scores))
    return measure, found


def _complete(values: Any) -> bool:
    return bool(values) and all(value is not None for value in values)


def _instance_reference(arena: Arena, run: str) -> Array | None:
    """What gaps are measured from, instance after instance in the order of the run's evaluation."""
    reference = _reference(arena.rows, arena.measure)
    if reference is None:
        return None
    mine = arena.rows[arena.rows["run"] == run]
    return np.asarray(reference[mine.index].groupby(mine["instance"], sort=False).first(), dtype=np.float64)


def _mean_score(values: list[float], reference: Array | None) -> float:
    scores = np.asarray(values, dtype=np.float64)
    if reference is not None:
        below = np.repeat(reference, len(scores) // len(reference))
        scores = (scores - below) / np.abs(below)
    return float(scores.mean())
