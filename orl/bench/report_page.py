"""The report as one self-contained HTML page: its text and tables are plain HTML, a script draws figures and runs.

Nothing is loaded from elsewhere. Text of records reaches the page escaped: in HTML by :func:`html.escape`, in the data
of the script as JSON without angle brackets, which the script writes as text only.
"""

from __future__ import annotations

import base64
import importlib.resources
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from orl.bench import store
from orl.bench.report_data import Arena, Failure, Sweep, traceback_of
from orl.bench.report_figures import Figure, curve_figure, profile_figure, standing_figure
from orl.bench.report_sections import (
    difference_table,
    improvement_table,
    instance_table,
    overall_table,
    summary_table,
)
from orl.bench.report_summaries import (
    Comparison,
    Note,
    Verdict,
    compare,
    grouped,
    notes_of,
    overall,
    remarks_on,
    verdict,
)
from orl.bench.report_tables import Table, decimals_of, figure, html
from orl.common.errors import MissingExtraError
from orl.page import MEDIA, STYLE

MOST_PICTURES = 12
"""Pictures shown of an environment."""
LARGEST_PICTURE = 2_000_000
"""Bytes of a picture that is shown; larger ones are named."""
SHARED = ("versions", "git", "machine")


@dataclass
class _Page:
    """Parts of the page as they are written, and the figures that its script draws."""

    sweep: Sweep
    parts: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    @property
    def places(self) -> dict[str, int]:
        return {subject: place for place, subject in enumerate(self.sweep.subjects)}

    def add(self, *parts: str) -> None:
        self.parts.extend(part for part in parts if part)

    def heading(self, title: str, level: int = 3, name: str = "") -> None:
        place = f' id="{name}"' if name else ""
        self.add(f"<h{level}{place}>{escape(title)}</h{level}>")

    def table(self, title: str, table: Table | None, level: int = 3) -> None:
        if table is not None:
            self.heading(title, level)
            self.add(html(table, title))

    def plot(self, caption: str, data: Figure, rows: int | None = None) -> None:
        place = len(self.figures)
        self.figures.append(data)
        short = f' short" style="--rows:{rows}' if rows else ""
        label = f'role="img" aria-label="{escape(caption)}"'
        self.add(
            f'<figure><div class="plot{short}" data-figure="{place}" {label}></div>'
            f'<figcaption class="facts">{escape(caption)}</figcaption></figure>'
        )

    def notes(self, notes: Iterable[Note]) -> None:
        listed = grouped(notes)
        if listed:
            self.add(f'<p class="note">{"<br>".join(escape(note) for note in listed)}</p>')


def page(sweep: Sweep) -> str:
    """The page of a sweep.

    Raises:
        MissingExtraError: plotly is not installed.
        InputError: a record or curve cannot be read.
    """
    script = plotly_script()
    made = _Page(sweep)
    comparisons = [compare(arena) for arena in sweep.arenas]
    together = overall(sweep)
    _headline(made, comparisons, together)
    if together is not None:
        _overall(made, together)
    for place, (arena, comparison) in enumerate(zip(sweep.arenas, comparisons, strict=True)):
        _environment(made, arena, comparison, place)
    _failures(made)
    made.heading("Runs", 2, "runs-section")
    made.add(
        "<p>Each run opens with its command, its whole configuration, and where and how it was run. The command does "
        "the run again; it wants the folder of the sweep.</p>",
        '<div id="runs"></div><noscript><p class="note">Figures and the list of runs need JavaScript; '
        "the records themselves are the JSON files of the sweep's folder.</p></noscript>",
    )
    return _document(made, script)


def plotly_script() -> str:
    """The source of plotly.js.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "report", "an HTML report") from error
    return str(get_plotlyjs())


def _document(made: _Page, plotly: str) -> str:
    files = importlib.resources.files("orl.bench")
    style, script = ((files / f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    data = {"figures": made.figures, **_run_data(made.sweep)}
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(made.sweep.name)}</title>",
            f"<style>{STYLE}{style}</style></head><body>",
            *made.parts,
            f"<footer>{escape(_footer(made.sweep))}</footer>",
            f'<script id="report-data" type="application/json">{script_json(data)}</script>',
            f"<script>{plotly}</script>",
            f"<script>{script}</script>",
            "</body></html>\n",
        ]
    )


def script_json(data: Any) -> str:
    r"""JSON that cannot end a script element or open a comment in it.

    >>> script_json({"label": "</script><!--"})
    '{"label":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _footer(sweep: Sweep) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sweep.versions.items() if version)
    return (
        f"Written by orl sweep report. Sweep started with {versions}." if versions else "Written by orl sweep report."
    )


# ---- sections --------------------------------------------------------------------------------------------------------
def _headline(made: _Page, comparisons: Sequence[Comparison], together: Comparison | None) -> None:
    sweep = made.sweep
    made.add(f"<h1>{escape(sweep.name)}</h1>", f'<p class="facts">{escape(facts(sweep))}</p>')
    links = [("all", "All environments")] if together is not None else []
    links += [(f"environment-{i}", arena.label) for i, arena in enumerate(sweep.arenas)]
    links += [("failures", "Failures")] if sweep.failures else []
    links += [("runs-section", "Runs")]
    items = "".join(f'<li><a href="#{target}">{escape(text)}</a></li>' for target, text in links)
    made.add(f'<nav aria-label="Sections"><ul>{items}</ul></nav>')
    if not sweep.arenas:
        made.add('<p class="note">No run has finished yet, so there is nothing to compare.</p>')
        return
    verdicts = verdicts_of(sweep, comparisons, together)
    made.add(f'<ul class="verdicts">{"".join(map(_verdict, verdicts))}</ul>')


def verdicts_of(sweep: Sweep, comparisons: Sequence[Comparison], together: Comparison | None) -> list[Verdict]:
    """The verdict of each environment, and before them that of all together where they have scales."""
    verdicts = [
        verdict(arena.label, comparison, remarks_on(arena))
        for arena, comparison in zip(sweep.arenas, comparisons, strict=True)
    ]
    return ([] if together is None else [verdict("All environments with a scale", together)]) + verdicts


def _verdict(found: Verdict) -> str:
    note = f'<span class="note">{escape(" ".join(grouped(found.notes)))}</span>' if found.notes else ""
    state = "" if found.certain else ' class="open"'
    return f"<li{state}><b>{escape(found.environment)}.</b> {escape(found.text)}{note}</li>"


def facts(sweep: Sweep) -> str:
    """One line: how many runs of how many are done, how long they took."""
    done = int((sweep.runs["state"] == "done").sum())
    failed, left = len(sweep.failures), sweep.planned - len(sweep.runs)
    parts = [f"{done} of {sweep.planned} runs finished"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{left} still to do"] if left else []
    hours = float(sweep.runs["run_seconds"].sum()) / 3600
    parts += [f"{hours:.1f} hours of runs" if hours >= 1 else f"{60 * hours:.1f} minutes of runs"]
    return f"{', '.join(parts)}."


def _overall(made: _Page, together: Comparison) -> None:
    made.heading("All environments", 2, "all")
    caption = "Interquartile mean of the normalised score, with 95 % interval."
    made.plot(caption, standing_figure(together, made.places), rows=len(together.standings))
    made.table("Summary", overall_table(together, made.places))
    made.notes(notes_of(together))
    made.heading("Performance profile")
    made.plot(
        "Share of runs with at least a normalised score, averaged over environments, with pointwise 95 % bands.",
        profile_figure(together, made.places),
    )
    made.table("Probability of improvement", improvement_table(together, made.places))


def _environment(made: _Page, arena: Arena, comparison: Comparison, place: int) -> None:
    made.heading(arena.label, 2, f"environment-{place}")
    standings = comparison.standings
    if standings:
        made.plot(
            f"Interquartile mean of {comparison.measure.name} with 95 % interval, the best on top.",
            standing_figure(comparison, made.places),
            rows=len(standings),
        )
    made.table("Summary", summary_table(arena, comparison, made.places))
    made.notes(notes_of(comparison))
    learning = curve_figure(made.sweep, arena, made.places)
    if learning is not None:
        made.heading("Learning curves")
        caption = "Interquartile mean over runs with pointwise 95 % bands; a click on the legend hides a subject."
        made.plot(caption, learning[0])
        made.notes(note for note in learning[1] if note not in notes_of(comparison))
    if comparison.ranked:
        made.heading("Performance profile")
        caption = "Share of runs that are at least this good, averaged over instances, with pointwise 95 % bands."
        made.plot(caption, profile_figure(comparison, made.places))
    made.table("Probability of improvement", improvement_table(comparison, made.places))
    made.table("Paired differences", difference_table(arena, comparison, made.places))
    if arena.has_instances:
        made.table("Instances", instance_table(arena))
    _pictures(made, arena)


def _failures(made: _Page) -> None:
    failures = made.sweep.failures
    if not failures:
        return
    made.heading("Failures", 2, "failures")
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        groups.setdefault(failure.error, []).append(failure)
    for error, members in groups.items():
        links = ", ".join(
            f'<a href="#run-{escape(f.run)}">{escape(f.environment)}, {escape(f.subject)}</a>' for f in members[:50]
        )
        more = f" and {len(members) - 50} more" if len(members) > 50 else ""
        count = "1 run" if len(members) == 1 else f"{len(members)} runs"
        made.add(
            f'<details class="print-open"><summary>{count}: <code>{escape(error or "no message")}</code></summary>'
            f'<p class="facts">{links}{more}</p><pre>{escape(members[0].traceback)}</pre></details>'
        )


# ---- pictures --------------------------------------------------------------------------------------------------------
def _pictures(made: _Page, arena: Arena) -> None:
    shown: list[str] = []
    rest = 0
    for caption, run, path in best_pictures(made.sweep, arena):
        if len(shown) == MOST_PICTURES or path.stat().st_size > LARGEST_PICTURE:
            rest += 1
            continue
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        source = f"data:{MEDIA[path.suffix]};base64,{data}"
        shown.append(
            f'<figure><figcaption>{escape(caption)} <a href="#run-{escape(run)}">run</a></figcaption>'
            f'<img alt="{escape(caption)}" src="{source}"></figure>'
        )
    if shown:
        made.heading("Best solutions")
        made.add(f'<div class="gallery">{"".join(shown)}</div>')
    if rest:
        made.notes([("", f"{rest} more pictures lie in the folder pictures of the sweep.")])


def best_pictures(sweep: Sweep, arena: Arena) -> list[tuple[str, str, Path]]:
    """Caption, run and picture of the best solution of each instance that has one.

    The picture of a run is that of its best checked solution of the first instance that it plays.
    """
    folder = sweep.folder / "pictures"
    paths = {path.stem: path for path in folder.iterdir() if path.suffix in MEDIA} if folder.is_dir() else {}
    rows = arena.rows[arena.rows["run"].isin(paths)]
    rows = rows[rows["instance"] == rows.groupby("run")["instance"].transform("first")]
    rows = rows[rows["objective"].notna() & rows["checked"].fillna(False).astype(bool)]
    best = rows.sort_values("objective", kind="stable").drop_duplicates("instance").sort_index()
    decimals = decimals_of(best["objective"])
    return [
        (f"{row['instance']}: {row['subject']}, {figure(row['objective'], decimals)}", row["run"], paths[row["run"]])
        for row in best.to_dict("records")
    ]


# ---- runs ------------------------------------------------------------------------------------------------------------
def _run_data(sweep: Sweep) -> dict[str, Any]:
    """Every run with its configuration; parts that runs have in common are written once and named by their place."""
    shared: list[Any] = []
    places: dict[str, int] = {}

    def place_of(value: Any) -> int:
        key = json.dumps(value, sort_keys=True)
        if key not in places:
            places[key] = len(shared)
            shared.append(value)
        return places[key]

    measures = {arena.label: arena.measure for arena in sweep.arenas}
    results: dict[str, float] = {}
    for arena in sweep.arenas:
        results.update({str(run): float(v) for run, v in arena.rows.groupby("run")["judged"].mean().items()})
    listed = []
    for row in sweep.runs.to_dict("records"):
        data = store.read_record(sweep.folder, row["run"])
        configuration = data["configuration"]
        result = _number(results.get(row["run"]))
        percent = result is not None and measures[row["environment"]].percent
        text = figure(result, decimals_of([result], percent=percent), percent=percent)
        listed.append(
            {
                "run": row["run"],
                "environment": row["environment"],
                "subject": row["subject"],
                "instance": ", ".join(map(_instance_name, configuration["environment"].get("instances") or ())),
                "seed": row["run_seed"],
                "state": row["state"],
                "result": result,
                "result_text": text,
                "steps": _number(data.get("steps")),
                "seconds": _number(data.get("seconds")),
                "cpu_seconds": _number(data.get("cpu_seconds")),
                "memory": _number(data.get("peak_memory_mb")),
                "resumed": data.get("resumed"),
                "exact": data.get("exact"),
                "started": data.get("started"),
                "files": list(data.get("files") or ()),
                "error": traceback_of(data),
                "command": command(sweep, row["run"], row["state"], configuration.get("commit")),
                "configuration": {key: place_of(value) for key, value in configuration.items()},
                **{name: place_of(data.get(name)) for name in SHARED},
            }
        )
    return {"runs": listed, "shared": shared}


def command(sweep: Sweep, run: str, state: str, commit: str | None) -> str:
    """What does a run again: a finished one in a folder of its own, a failed one where it failed; empty without a file.

    >>> from types import SimpleNamespace
    >>> command(SimpleNamespace(file=True, folder="my runs"), "0123abcd", "done", None)
    "orl sweep run 'my runs/sweep.yaml' --out again --only 0123abcd"
    """
    if not sweep.file:
        return ""
    out = f"{shlex.quote(str(sweep.folder))} --retry-failed" if state == "failed" else "again"
    strict = " --strict-code" if commit else ""
    return f"orl sweep run {shlex.quote(f'{sweep.folder}/sweep.yaml')} --out {out} --only {run}{strict}"


def _instance_name(source: Any) -> str:
    if isinstance(source, dict):
        if "file" in source:
            return str(source["file"]).rsplit("/", 1)[-1]
        return f"generated, seed {source.get('seed')}, index {source.get('index')}"
    return str(source)


def _number(value: Any) -> float | None:
    """A finite number, or None; whole numbers stay whole."""
    if value is None or value != value or abs(value) == float("inf"):
        return None
    return value if isinstance(value, int) else float(f"{float(value):.8g}")
