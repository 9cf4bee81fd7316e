"""Reading tables of :func:`orl.evaluate` and :func:`orl.bench.load`: scenarios, groups, the value that is compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from orl.bench.statistics import bound_score
from orl.common.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    import pandas

MAXIMISED = ("return", "score")
MINIMISED = (
    "objective",
    "gap",
    "gap_to_best_known",
    "seconds",
    "cpu_seconds",
    "run_seconds",
    "run_cpu_seconds",
    "peak_memory_mb",
    "illegal_actions",
)
SCENARIO = ("environment", "instance", "seed")
"""Columns that make a scenario, where a table has them."""


def prepared(table: pandas.DataFrame, value: str | None, maximise: bool | None) -> tuple[pandas.DataFrame, str, bool]:
    """Uninterrupted rows with the columns ``value``, ``bound`` and ``seconds``; name and sense of the value."""
    for column in ("subject", "seed"):
        if column not in table:
            raise InputError("column missing", source="table", field=column, expected="a table of evaluate or load")
    if value is None:
        value = "objective" if "objective" in table and table["objective"].notna().any() else "return"
    needed = ("bound", "objective") if value == "score" else (value,)
    for column in needed:
        if column not in table:
            raise UnknownNameError("value", column, [*map(str, table.columns), "score"])
    if maximise is None:
        if value not in (*MAXIMISED, *MINIMISED):
            raise InputError("say whether higher is better", field="maximise", value=value, expected="True or False")
        maximise = value in MAXIMISED
    rows = table[~table["interrupted"].astype(bool)] if "interrupted" in table else table
    try:
        numbers = {column: rows[column].astype("float64") for column in needed}
    except (TypeError, ValueError) as error:
        raise InputError("not numbers", source="table", field=value, value=str(error)) from error
    rows = rows.assign(
        value=bound_score(numbers["objective"], numbers["bound"]) if value == "score" else numbers[value]
    )
    for column in ("bound", "seconds"):
        if column not in rows:
            rows = rows.assign(**{column: np.nan})
    if np.isinf(rows["value"]).any():
        expected = "finite values (a gap above the bound 0 is infinite: take the objective)"
        raise InputError("infinite value", source="table", field=value, expected=expected)
    return rows, value, maximise


def scenario_columns(rows: pandas.DataFrame) -> list[str]:
    return [name for name in SCENARIO if name in rows]


def group_columns(table: pandas.DataFrame, by: str | Sequence[str] | None) -> list[str]:
    if by is None:
        return ["environment"] if "environment" in table else []
    keys = [by] if isinstance(by, str) else list(by)
    for key in keys:
        if key not in table:
            raise UnknownNameError("by", key, map(str, table.columns))
    return keys


def groups(rows: pandas.DataFrame, keys: list[str]) -> list[tuple[dict[str, Any], pandas.DataFrame]]:
    if not keys:
        return [({}, rows)]
    return [(dict(zip(keys, labels, strict=True)), part) for labels, part in rows.groupby(keys, sort=False)]


def has_runs(rows: pandas.DataFrame) -> bool:
    return "run_seed" in rows and bool(rows["run_seed"].notna().all())
