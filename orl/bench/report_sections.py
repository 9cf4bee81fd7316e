"""The tables of a report: summary, probability of improvement, paired differences, results by instance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orl.bench.report_data import TOLERANCE, Arena, Measure
from orl.bench.report_summaries import Comparison, differences
from orl.bench.report_tables import Cell, Column, Table, decimals_of, duration, figure
from orl.bench.statistics import Interval

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#888888")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, without black and yellow, one of which would
vanish on a light or a dark page; grey comes last. Beyond seven subjects, colours return with other dashes."""


def colour_of(place: int) -> str:
    """Colour of the subject at a place of the plan."""
    return PALETTE[place % len(PALETTE)]


def summary_table(arena: Arena, comparison: Comparison, places: dict[str, int]) -> Table:
    """Aggregates of each subject with their intervals, its runs and its time."""
    measure = comparison.measure
    ends = [e for s in comparison.standings.values() for i in (s.iqm, s.mean) for e in (i.estimate, i.low, i.high)]
    decimals = decimals_of(ends, percent=measure.percent, digits=3 if measure.percent else 4)
    normalised = "normalised" if arena.scale is not None else None
    columns = [
        Column("subject", text=True),
        Column("IQM", small="95 % interval"),
        Column("mean", small="95 % interval"),
        Column("median", small="95 % interval"),
        *([Column("IQM", small=normalised)] if normalised else []),
        Column("runs"),
        Column("episodes", small="valid" if measure.solves else ""),
        Column("time a run"),
        Column("time an episode"),
    ]
    rows = []
    for subject in (*comparison.standings, *(s for s in arena.planned if s not in comparison.standings)):
        mine = arena.rows[arena.rows["subject"] == subject]
        standing = comparison.standings.get(subject)
        intervals = (None, None, None) if standing is None else (standing.iqm, standing.mean, standing.median)
        best = subject == comparison.leader
        cells = [interval_cell(interval, measure, decimals, best=best) for interval in intervals]
        if normalised and arena.scale is not None:
            low, width = arena.scale.low, arena.scale.high - arena.scale.low
            score = None if standing is None else (standing.iqm.estimate - low) / width
            cells.append(Cell(figure(score, 3), score))
        done, planned = arena.done.get(subject, 0), arena.planned[subject]
        valid = len(mine) - arena.invalid.get(subject, 0)
        run_time = float(mine.drop_duplicates("run")["run_seconds"].mean()) if len(mine) else None
        time = float(mine["seconds"].mean()) if len(mine) else None
        rows.append(
            [
                Cell(subject, colour=colour_of(places[subject])),
                *cells,
                Cell(str(done) if done == planned else f"{done} of {planned}", done),
                Cell(str(valid) if valid == len(mine) else f"{valid} of {len(mine)}", valid),
                Cell(duration(run_time), run_time),
                Cell(duration(time), time),
            ]
        )
    return Table(columns, rows, _summary_caption(arena, measure))


def _summary_caption(arena: Arena, measure: Measure) -> str:
    several = len(arena.instances) > 1
    pooled = "all runs and instances" if several else "all runs"
    middle = "median over instances of the mean over runs" if several else "median over runs"
    score = "The score of a run on an instance" if several else "The score of a run"
    return (
        f"{measure.meaning} {score} is the mean of its episodes. IQM: interquartile mean, the mean of the middle half "
        f"of {pooled}. Median: {middle}. Intervals: 95 %, runs resampled within each instance, widened for few runs; "
        "no interval where there is one run only."
    )


def interval_cell(interval: Interval | None, measure: Measure, decimals: int, *, best: bool = False) -> Cell:
    """An estimate with its interval beside it."""
    if interval is None or np.isnan(interval.estimate):
        return Cell("")
    text = figure(interval.estimate, decimals, percent=measure.percent)
    small = "" if np.isnan(interval.low) else f"[{_range(interval.low, interval.high, decimals, measure.percent)}]"
    return Cell(text, interval.estimate, small=small, best=best)


def _range(low: float, high: float, decimals: int, percent: bool) -> str:
    return ", ".join(figure(end, decimals, percent=percent).removesuffix(" %") for end in (low, high))


def overall_table(comparison: Comparison, places: dict[str, int]) -> Table:
    """Aggregates over all environments that have a scale."""
    columns = [Column("subject", text=True)]
    columns += [Column(name, small="95 % interval") for name in ("IQM", "mean", "median", "optimality gap")]
    rows = []
    for subject, standing in comparison.standings.items():
        intervals = (standing.iqm, standing.mean, standing.median, standing.optimality_gap)
        cells = [interval_cell(i, comparison.measure, 3, best=subject == comparison.leader) for i in intervals]
        rows.append([Cell(subject, colour=colour_of(places[subject])), *cells])
    return Table(
        columns,
        rows,
        f"{comparison.measure.meaning[:-1]}, save for the optimality gap: how far scores stay below 1 on average.",
    )


def improvement_table(comparison: Comparison, places: dict[str, int]) -> Table | None:
    """Probability that a run of the row's subject beats one of the column's; None with fewer than two subjects."""
    order = [subject for subject in comparison.standings if subject in comparison.ranked]
    if len(order) < 2:
        return None
    rows = []
    for one in order:
        cells = [Cell(one, colour=colour_of(places[one]))]
        for other in order:
            chance = comparison.improvement.get((one, other))
            if chance is None:
                cells.append(Cell("·"))
                continue
            small = "" if np.isnan(chance.low) else f"[{chance.low:.2f}, {chance.high:.2f}]"
            sure = comparison.decided(one, other)
            share = max(0.0, chance.estimate - 0.5) * 70
            cells.append(Cell(f"{chance.estimate:.2f}", chance.estimate, small=small, best=sure, share=share))
        rows.append(cells)
    columns = [Column("P(row beats column)", text=True), *(Column(subject) for subject in order)]
    return Table(
        columns,
        rows,
        "Probability that a run of the subject of the row beats a run of the subject of the column on the same "
        "instance, ties counted half, with its 95 % interval; bold where the interval lies above one half (where "
        "it has no width, where a permutation test at 5 % agrees). Each interval stands alone: of many, some miss.",
    )


def difference_table(arena: Arena, comparison: Comparison, places: dict[str, int]) -> Table | None:
    """The leader and each other subject on shared scenarios; None where there is nothing to pair."""
    leader, measure = comparison.leader, comparison.measure
    found = None if leader is None else differences(arena, leader)
    if found is None:
        return None
    lines = found.to_dict("records")
    ends = [line[name] for line in lines for name in ("difference", "low", "high")]
    decimals = decimals_of(ends, percent=measure.percent, digits=3)
    rows = []
    for line in sorted(lines, key=lambda line: abs(line["difference"])):
        p_value = float(line["p_value"])
        gap = Interval(line["low"], line["high"], 0.95, int(line["n"]), "", line["difference"])
        units = "runs" if line["unit"] == "run" else "scenarios"
        rows.append(
            [
                Cell(str(line["baseline"]), colour=colour_of(places[str(line["baseline"])])),
                interval_cell(gap, measure, decimals, best=bool(line["low"] > 0 or line["high"] < 0)),
                Cell(f"{100 * line['win_rate']:.0f} %", line["win_rate"]),
                Cell("" if np.isnan(p_value) else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}", p_value),
                Cell(str(line["n"]), line["n"], small=units),
                Cell(str(line["n_pairs"]), line["n_pairs"]),
            ]
        )
    sense = "positive" if measure.maximise else "negative"
    return Table(
        [
            Column(f"{leader} against", text=True),
            Column("mean difference", small="95 % interval"),
            Column("pairs won"),
            Column("p", small="Wilcoxon"),
            Column("n"),
            Column("pairs"),
        ],
        rows,
        f"{measure.name.capitalize()} of {leader} minus that of the subject of the row, where both met the same "
        f"instance and evaluation seed ({sense}: {leader} is better; bold where the "
        "interval leaves out 0). With trained subjects the unit n is a run, the mean of its pairs; otherwise a "
        "scenario, the mean over runs. p values are not corrected for the number of comparisons.",
    )


# ---- by instance -----------------------------------------------------------------------------------------------------
def instance_table(arena: Arena, subjects: Sequence[str] | None = None) -> Table:
    """Mean objective (or return) of each subject on each instance, its gap to the bound, the best in bold."""
    solves = arena.measure.solves
    order = [subject for subject in (subjects or arena.subjects) if subject in arena.subjects]
    column = "objective" if solves else "return"
    rows = arena.rows
    means = rows.groupby(["instance", "subject"])[column].mean().to_dict()
    lost = rows[rows[column].isna()].groupby(["instance", "subject"]).size().to_dict()
    proved = (rows["status"] == "optimal").groupby([rows["instance"], rows["subject"]]).all().to_dict()
    by_instance = rows.groupby("instance")
    known, lowest = by_instance["best_known"].min(), by_instance["pooled_bound"].max()
    single = by_instance["pooled_bound"].nunique() == 1
    gaps = rows.assign(
        own=(rows["objective"] - rows["pooled_bound"]) / rows["pooled_bound"].abs().where(lambda b: b > 0)
    )
    gap_of = gaps.groupby(["instance", "subject"])["own"].mean().to_dict()
    decimals = decimals_of([*means.values(), *known, *lowest])
    with_known, with_bound = bool(known.notna().any()), bool(lowest.notna().any()) and solves
    table = []
    for instance in arena.instances:
        here = {s: means[instance, s] for s in order if not np.isnan(means.get((instance, s), np.nan))}
        whole = {s: value for s, value in here.items() if (instance, s) not in lost}
        best = (min if solves else max)(whole.values(), default=None)
        bound = float(lowest[instance]) if with_bound and single[instance] else None
        cells = [Cell(instance)]
        if with_known:
            cells.append(Cell(figure(known[instance], decimals), _finite(known[instance])))
        if with_bound:
            text = figure(bound, decimals) if single[instance] else "varies"
            cells.append(Cell(text, bound))
        for subject in order:
            value = here.get(subject)
            gap = gap_of.get((instance, subject)) if with_bound else None
            missing = lost.get((instance, subject), 0)
            optimal = solves and proved.get((instance, subject), False)
            reached = (
                not optimal and bound is not None and value is not None and value <= bound + TOLERANCE * abs(bound)
            )
            mark = "proved optimal" if optimal else "optimal" if reached else ""
            cells.append(
                Cell(
                    "none valid" if value is None and missing else figure(value, decimals),
                    value,
                    small=figure(gap, 1, percent=True),
                    mark=f"{missing} invalid" if missing and value is not None else mark,
                    best=best is not None
                    and subject in whole
                    and bool(np.isclose(whole[subject], best, rtol=TOLERANCE)),
                )
            )
        table.append(cells)
    columns = [Column("instance", text=True)]
    columns += [Column("best known")] if with_known else []
    columns += [Column("bound")] if with_bound else []
    columns += [Column(subject, small="gap" if with_bound else "") for subject in order]
    return Table(columns, table, _instance_caption(solves, with_bound))


def _instance_caption(solves: bool, with_bound: bool) -> str:
    if not solves:
        return "Mean return over runs and episodes; the best of a row in bold."
    text = "Mean objective over runs and episodes, each solution checked by its instance; the best of a row in bold. "
    if with_bound:
        text += "Bound: the largest lower bound that any run reported; gap: how far the mean objective lies above it. "
        text += (
            "Proved optimal: the subject's own proof, in every run; optimal: it reaches the bound that others proved."
        )
    return text


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
