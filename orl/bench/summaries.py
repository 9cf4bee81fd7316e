"""One row a subject from tables of :func:`orl.evaluate` and :func:`orl.bench.load`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orl.bench.score_tables import group_columns, groups, has_runs, prepared
from orl.bench.statistics import STATISTICS, Array, Interval, bootstrap_interval, iqm
from orl.common.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas

SUMMARY: dict[str, str] = {
    "subject": "str",
    "value": "str",
    "n_runs": "int64",
    "iqm": "float64",
    "mean": "float64",
    "median": "float64",
    "low": "float64",
    "high": "float64",
    "confidence": "float64",
    "seconds": "float64",
    "gap": "float64",
    "optimal": "float64",
    "n_rows": "int64",
    "fails": "int64",
    "note": "str",
}
"""Columns of :func:`summary`, after those of ``by``, and their types."""


def summary(
    table: pandas.DataFrame,
    *,
    value: str | None = None,
    by: str | Sequence[str] | None = None,
    statistic: str = "iqm",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pandas.DataFrame:
    """One row a subject (and group of ``by``): statistics over runs, each run being the mean of its episodes.

    The score of a run seed is the mean over its instances and episodes; without run seeds each episode seed stands for
    a run. A run that lacks a value somewhere, or an instance that other subjects of the group have, has no score: the
    mean of what it did solve would flatter it. It is left out of the statistics and the note says so. (A report shows
    gaps, which have one scale on all instances, and therefore takes the IQM of runs and instances pooled.) Columns,
    after those of ``by``:

    - ``subject, value``; ``n_runs``: runs with a score.
    - ``iqm, mean, median``: of the scores of runs; ``low, high, confidence``: interval of the IQM (of ``statistic``).
    - ``seconds``: median over episodes; ``gap``: mean over episodes that have one.
    - ``optimal``: share of episodes or solves with status ``optimal``.
    - ``n_rows, fails``: episodes, and those without the value or with a solution that its instance refused.
    - ``note``: what weakens the figures.

    Args:
        table: Rows as :func:`orl.evaluate` or :func:`orl.bench.load` write them.
        value: As in :func:`compare`.
        by: Columns that split the table; by default the environment, if the table has that column.
        statistic: ``iqm``, ``mean`` or ``optimality_gap``: what the interval is of.

    Raises:
        InputError: A column is missing; an infinite value. UnknownNameError: no such statistic.

    >>> import pandas
    >>> table = pandas.DataFrame({"subject": "a", "instance": "x", "seed": range(4), "return": [1.0, 2.0, 3.0, 6.0]})
    >>> summary(table)[["subject", "n_runs", "iqm", "mean"]].values.tolist()
    [['a', 4, 2.5, 3.0]]
    """
    import pandas

    if statistic not in STATISTICS:
        raise UnknownNameError("statistic", statistic, STATISTICS)
    keys = group_columns(table, by)
    found: list[dict[str, Any]] = []
    for labels, rows in groups(table, keys):
        group, chosen, _ = prepared(rows, value, True)
        for subject, part in group.groupby("subject", sort=False):
            scores, left_out = _scores_of_runs(part, group)
            notes = [f"Runs left out because they lack a value or an instance: {left_out}."] if left_out else []
            interval = Interval(np.nan, np.nan, confidence, 0, "", np.nan)
            if len(scores):
                interval = bootstrap_interval(
                    scores, STATISTICS[statistic], confidence=confidence, resamples=resamples, seed=seed
                )
            failed = part["value"].isna()
            if "checked" in part:
                failed |= part["checked"].eq(False).fillna(False).astype(bool)
            found.append(
                labels
                | {
                    "subject": subject,
                    "value": chosen,
                    "n_runs": len(scores),
                    "iqm": float(iqm(scores)) if len(scores) else np.nan,
                    "mean": float(scores.mean()) if len(scores) else np.nan,
                    "median": float(np.median(scores)) if len(scores) else np.nan,
                    "low": interval.low,
                    "high": interval.high,
                    "confidence": confidence,
                    "seconds": float(part["seconds"].median()),
                    "gap": float(part["gap"].mean()) if "gap" in part else np.nan,
                    "optimal": float((part["status"] == "optimal").mean()) if "status" in part else np.nan,
                    "n_rows": len(part),
                    "fails": int(failed.sum()),
                    "note": " ".join([*notes, *([interval.note] if interval.note else [])]),
                }
            )
    columns = {key: table[key].dtype for key in keys} | SUMMARY
    return pandas.DataFrame(found, columns=list(columns)).astype(columns)


def _scores_of_runs(part: pandas.DataFrame, group: pandas.DataFrame) -> tuple[Array, int]:
    """Scores of a subject's complete runs, and the number of the others."""
    instances = [name for name in ("environment", "instance") if name in group]
    if has_runs(part):
        run = "run_seed"
        wanted: Any = len(group[instances].drop_duplicates())
    else:
        run = "seed"
        wanted = group[["seed", *instances]].drop_duplicates().groupby("seed").size()
    values = part.groupby(run)["value"].agg(["mean", "size", "count"])
    covered = part[[run, *instances]].drop_duplicates().groupby(run).size()
    if not isinstance(wanted, int):
        wanted = wanted.reindex(values.index)
    whole = (values["size"] == values["count"]) & (covered == wanted)
    return values.loc[whole, "mean"].to_numpy(np.float64), int((~whole).sum())
