"""Statistics over learning curves: one course with a band, the area under it, steps to reach a level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orl.bench.bootstrap import Array, Interval, Method, Statistic, bootstrap_band, bootstrap_interval
from orl.bench.statistics import iqm
from orl.common.errors import InputError


class Curve(NamedTuple):
    """The learning curve of one run.

    Attributes:
        task: Task of the run.
        steps: ``[n]``: steps at which it was evaluated, increasing.
        values: ``[n]``: mean score of each evaluation.
    """

    task: str
    steps: npt.ArrayLike
    values: npt.ArrayLike


@dataclass(frozen=True)
class SampleEfficiency:
    """Learning curves of several runs as one.

    Attributes:
        steps: ``[points]``: common grid, within the range that every run covers.
        estimate, low, high: ``[points]``: statistic over runs and tasks, and its pointwise band.
        area: Area under each run's curve over its width (a mean height): statistic and interval.
        level: The level asked for, or None.
        steps_to_level: ``[runs]``, in the order given: first evaluation that reaches the level; NaN for runs that never
            do (censored at their last evaluation). Empty without a level.
        n_censored: Number of runs that never reach it.
        median_steps_to_level: Median over runs, censored ones counted as longest; infinite when half or more never
            reach it; NaN without a level.
        n_runs, note: As in :class:`Interval`.
    """

    steps: Array
    estimate: Array
    low: Array
    high: Array
    area: Interval
    level: float | None
    steps_to_level: Array
    n_censored: int
    median_steps_to_level: float
    n_runs: int
    note: str


def sample_efficiency(
    curves: Sequence[Curve | tuple[str, npt.ArrayLike, npt.ArrayLike]],
    *,
    grid: npt.ArrayLike | None = None,
    statistic: Statistic = iqm,
    level: float | None = None,
    maximise: bool = True,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    method: Method = "widened",
) -> SampleEfficiency:
    """A statistic of runs along their training steps, with a band; area under the curve; steps to reach a level.

    Between its evaluations a run is interpolated linearly; outside of them it has no value, and the grid ends where the
    first run ends: nothing is extrapolated, and no point compares fewer runs than another. Whole runs are resampled.

    Args:
        curves: One a run. Tasks are pooled: normalise their scores first.
        grid: Steps; by default every evaluated step in the common range, or 200 even ones when there are more.
        level: Score whose first evaluation at or beyond it is looked for.
        maximise: Whether higher is better (for the level).

    Raises:
        InputError: No curve, an empty one, steps that do not increase, values that are not finite, no common range, a
            grid outside of it.

    >>> runs = [("a", [0, 10, 20], [0.0, 1.0, 2.0]), ("a", [0, 20], [0.0, 4.0])]
    >>> found = sample_efficiency(runs, level=2.0)
    >>> found.estimate.tolist(), found.steps_to_level.tolist()
    ([0.0, 1.5, 3.0], [20.0, 20.0])
    """
    checked = [_checked_curve(i, *curve) for i, curve in enumerate(curves)]
    if not checked:
        raise InputError("no curve", field="curves", expected="one a run")
    steps = _grid([curve_steps for _, curve_steps, _ in checked], grid)
    heights = np.array([np.interp(steps, curve_steps, values) for _, curve_steps, values in checked])
    scores = _by_task([task for task, _, _ in checked], heights)
    band = bootstrap_band(scores, statistic, confidence=confidence, resamples=resamples, seed=seed, method=method)
    width = steps[-1] - steps[0]
    areas = np.trapezoid(heights, steps, axis=1) / width if width > 0 else heights[:, 0]
    area = bootstrap_interval(
        _by_task([task for task, _, _ in checked], areas[:, None])[0],
        statistic,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        method=method,
    )
    reached = np.array([_first_step(s, v, level, maximise) for _, s, v in checked] if level is not None else [])
    ordered = np.sort(np.where(np.isnan(reached), np.inf, reached))
    return SampleEfficiency(
        steps=steps,
        estimate=band.estimate,
        low=band.low,
        high=band.high,
        area=area,
        level=level,
        steps_to_level=reached,
        n_censored=int(np.isnan(reached).sum()),
        median_steps_to_level=float("nan") if level is None else _median_of_sorted(ordered),
        n_runs=band.n_runs,
        note=band.note,
    )


def _checked_curve(place: int, task: str, steps: npt.ArrayLike, values: npt.ArrayLike) -> tuple[str, Array, Array]:
    s, v = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    source = f"curve {place}"
    if s.ndim != 1 or s.shape != v.shape or len(s) == 0:
        shapes = f"{s.shape} and {v.shape}"
        raise InputError("not a curve", source=source, value=shapes, expected="two vectors of one length, not empty")
    if not np.isfinite(s).all() or not np.isfinite(v).all():
        raise InputError("not finite", source=source, field="steps, values", expected="numbers")
    if (np.diff(s) <= 0).any():
        raise InputError("not increasing", source=source, field="steps", expected="each step beyond the one before")
    return task, s, v


def _grid(steps: list[Array], grid: npt.ArrayLike | None) -> Array:
    first, last = max(s[0] for s in steps), min(s[-1] for s in steps)
    if first > last:
        raise InputError("the runs share no range of steps", field="curves", value=f"first {first:g}, last {last:g}")
    if grid is not None:
        asked = np.atleast_1d(np.asarray(grid, np.float64))
        if (np.diff(asked) <= 0).any() or asked[0] < first or asked[-1] > last:
            expected = f"increasing steps from {first:g} to {last:g}"
            raise InputError("outside what every run covers", field="grid", value=grid, expected=expected)
        return asked
    union = np.unique(np.concatenate(steps))
    union = union[(union >= first) & (union <= last)]
    return union if len(union) <= 200 else np.linspace(first, last, 200)


def _by_task(tasks: Sequence[str], heights: Array) -> Array:
    """``[points, runs, tasks]`` from the curves ``[runs of all tasks, points]``; NaN where a task has fewer runs."""
    names = list(dict.fromkeys(tasks))
    members = [[i for i, task in enumerate(tasks) if task == name] for name in names]
    out = np.full((heights.shape[1], max(map(len, members)), len(names)), np.nan)
    for k, rows in enumerate(members):
        out[:, : len(rows), k] = heights[rows].T
    return out


def _first_step(steps: Array, values: Array, level: float, maximise: bool) -> float:
    there = np.flatnonzero(values >= level if maximise else values <= level)
    return float(steps[there[0]]) if len(there) else float("nan")


def _median_of_sorted(values: Array) -> float:
    """Median where infinite values may stand in the middle."""
    n = len(values)
    return float(values[n // 2]) if n % 2 or np.isinf(values[n // 2]) else float(values[n // 2 - 1 : n // 2 + 1].mean())
