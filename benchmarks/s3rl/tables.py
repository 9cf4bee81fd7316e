"""Areas under evaluation curves, their ratios with intervals, and the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import measure
import numpy as np
from cases import BASE, CASES, FRESH, S3RL
from scipy import stats

Numbers = Sequence[float]


class Ratio(NamedTuple):
    """A ratio of means and its 95 % interval; None where the data give no bound."""

    value: float
    low: float | None
    high: float | None


def area(steps: Numbers, scores: Numbers, end: float, late: float = 0.0) -> float:
    """Mean height from 0 to ``end`` of the curve through the points, begun ``late`` steps later.

    >>> area([0, 10], [0.0, 10.0], 10), area([0, 10], [0.0, 10.0], 10, late=5)
    (5.0, 1.25)
    """
    points = np.asarray(steps, np.float64) + late
    grid = np.unique(np.concatenate([[0.0, end], points[points < end]]))
    heights = np.interp(grid, points, np.asarray(scores, np.float64))
    return float(np.trapezoid(heights, grid) / end)


def paired_ratio(above: Numbers, below: Numbers, confidence: float = 0.95) -> Ratio:
    """mean(above) / mean(below) of pairs, with Fieller's interval: all ratios r that a t test does not reject.

    The test is of mean(above - r below) = 0 with n - 1 degrees of freedom. Where the mean of ``below`` cannot be told
    from 0, no finite interval exists.

    >>> [round(bound, 2) for bound in paired_ratio([12.5, 15.0, 16.2], [9.0, 10.0, 11.0])]
    [1.46, 1.29, 1.57]
    """
    y, x = np.asarray(above, np.float64), np.asarray(below, np.float64)
    n = len(x)
    value = float(y.mean() / x.mean())
    if n < 2:
        return Ratio(value, None, None)
    factor = float(stats.t.ppf((1 + confidence) / 2, n - 1)) ** 2 / n
    (xx, xy), (_, yy) = np.cov(x, y)
    a, b, c = x.mean() ** 2 - factor * xx, x.mean() * y.mean() - factor * xy, y.mean() ** 2 - factor * yy
    if a <= 0:
        return Ratio(value, None, None)
    width = math.sqrt(max(b * b - a * c, 0.0))
    return Ratio(value, float((b - width) / a), float((b + width) / a))


# ---- tables ----------------------------------------------------------------------------------------------------------
def curves(rows: Sequence[dict[str, str]]) -> dict[tuple[str, str], dict[int, tuple[list[float], list[float]]]]:
    """Steps and scores of the finished runs by case and variant, then by seed."""
    found: dict[tuple[str, str], dict[int, tuple[list[float], list[float]]]] = {}
    for row in rows:
        points = ([float(x) for x in row[column].split()] for column in ("steps", "scores"))
        steps, scores = points
        found.setdefault((row["case"], row["variant"]), {})[int(row["seed"])] = (steps, scores)
    return found


def comparisons(rows: Sequence[dict[str, str]], collection: dict[str, int]) -> list[dict[str, Any]]:
    """One row for each case and variant other than ``base`` that shares a seed with it.

    Args:
        rows: Finished runs.
        collection: Steps that each teacher's snapshots took to collect.
    """
    found = curves(rows)
    table = []
    for name, case in CASES.items():
        for variant in case.variants:
            base, other = found.get((name, BASE), {}), found.get((name, variant), {})
            seeds = sorted(base.keys() & other.keys())
            if variant == BASE or not seeds:
                continue
            end = min(runs[seed][0][-1] for runs in (base, other) for seed in seeds)
            below = [area(*base[seed], end) for seed in seeds]
            above = [area(*other[seed], end) for seed in seeds]
            late = collection.get(case.teacher)
            charged = None if late is None else [area(*other[seed], end, late) for seed in seeds]
            sign = -1.0 if case.cost else 1.0
            ratio = paired_ratio(above, below)
            better, worse = [sign * value for value in above], [sign * value for value in below]
            table.append(
                {
                    "case": name,
                    "variant": variant,
                    "better is": "lower" if case.cost else "higher",
                    "seeds": f"{len(seeds)} of {case.seeds}",
                    "area, base": float(np.mean(below)),
                    "area": float(np.mean(above)),
                    "ratio": ratio.value,
                    "low": ratio.low,
                    "high": ratio.high,
                    "seeds ahead": f"{sum(b > w for b, w in zip(better, worse, strict=True))} of {len(seeds)}",
                    "ranges": _ranges(better, worse) if len(seeds) > 1 else "",
                    "ratio, charged": None if charged is None else float(np.mean(charged) / np.mean(below)),
                    "end, base": float(np.mean([base[seed][1][-1] for seed in seeds])),
                    "end": float(np.mean([other[seed][1][-1] for seed in seeds])),
                }
            )
    return table


def _ranges(better: list[float], worse: list[float]) -> str:
    if min(better) > max(worse):
        return "apart, ahead"
    return "apart, behind" if max(better) < min(worse) else "overlap"


def describe(rows: Sequence[dict[str, str]], table: list[dict[str, Any]], teachers: list[dict[str, Any]]) -> str:
    """The state of the runs and the tables, in Markdown."""
    total = sum(len(case.variants) * case.seeds for case in CASES.values())
    state = "All" if len(rows) == total else "**Partial:**"
    ablation = [row for row in table if row["case"] == "PPO, Hopper"]
    parts = [f"{state} {len(rows)} of {total} runs are finished."]
    parts += [measure.table([row for row in table if row["variant"] in (S3RL, FRESH)])] if table else []
    if len(ablation) > 1:
        parts += ["The two parts of S3RL, PPO on Hopper:", measure.table(ablation)]
    if teachers:
        parts += ["The teachers:", measure.table(teachers)]
    return "\n\n".join(parts)


def result(rows: Sequence[dict[str, str]], table: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the RESULT line."""
    figures: dict[str, Any] = {"runs": len(rows)}
    for row in table:
        words = "".join(letter if letter.isalnum() else " " for letter in f"{row['case']} {row['variant']}".lower())
        figures["_".join(words.split()) + "_ratio"] = row["ratio"]
    return figures
