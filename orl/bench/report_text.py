"""The report in Markdown: verdicts, the summary of each environment, its instances, failures."""

from __future__ import annotations

from orl.bench.report_data import Sweep
from orl.bench.report_page import facts, verdicts_of
from orl.bench.report_sections import instance_table, overall_table, summary_table
from orl.bench.report_summaries import compare, grouped, notes_of, overall
from orl.bench.report_tables import markdown, plain


def text(sweep: Sweep) -> str:
    """The report of a sweep as Markdown."""
    places = {subject: place for place, subject in enumerate(sweep.subjects)}
    comparisons, together = [compare(arena) for arena in sweep.arenas], overall(sweep)
    parts = [f"# {plain(sweep.name)}", facts(sweep)]
    if not sweep.arenas:
        parts.append("No run has finished yet, so there is nothing to compare.")
    for verdict in verdicts_of(sweep, comparisons, together):
        notes = " ".join(grouped(verdict.notes))
        parts.append(f"**{plain(verdict.environment)}.** {plain(verdict.text)} {plain(notes)}".rstrip())
    if together is not None:
        parts += ["## All environments", markdown(overall_table(together, places))]
    for arena, comparison in zip(sweep.arenas, comparisons, strict=True):
        parts += [f"## {plain(arena.label)}", markdown(summary_table(arena, comparison, places))]
        parts += [plain(note) for note in grouped(notes_of(comparison))]
        if arena.has_instances:
            parts += ["### Instances", markdown(instance_table(arena))]
    if sweep.failures:
        parts.append("## Failures")
        parts.append(
            "\n".join(
                f"- `{f.run}` {plain(f.environment)}, {plain(f.subject)}: {plain(f.error)}" for f in sweep.failures
            )
        )
    return "\n\n".join(parts) + "\n"
