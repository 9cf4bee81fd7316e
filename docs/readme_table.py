"""Fill the table of README.md from committed results of ``orl demo``, never by hand.

    python docs/readme_table.py          # README.md from docs/assets/demo.csv (`make docs` does this)
    python docs/readme_table.py demo     # first take figures and picture from this folder, which `orl demo` wrote

What is written stands between ``<!-- table:demo -->`` and ``<!-- /table:demo -->``. A result that its instance did not
accept, or a bound above an objective, ends the script with an error.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FIGURES, PICTURE = ROOT / "docs" / "assets" / "demo.csv", ROOT / "docs" / "assets" / "ta01.png"
BEGIN, END = "<!-- table:demo -->", "<!-- /table:demo -->"
COLUMNS = ("subject", "instance", "objective", "bound", "best_known", "seconds", "checked")
COLOURS = 64  # of the picture: enough for a Gantt chart, and a third of the size
Row = dict[str, str]


def read_figures(path: Path) -> list[Row]:
    """Rows of a results file of ``orl demo``, with the columns that are committed.

    Raises:
        SystemExit: a column is missing, a schedule was not accepted, or a bound lies above an objective.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = set(COLUMNS) - set(rows[0] if rows else ())
    if missing:
        raise SystemExit(f"{path}: no results of `orl demo` (missing: {', '.join(sorted(missing))})")
    for row in rows:
        if row["checked"] != "True":
            raise SystemExit(f"{path}: {row['subject']} on {row['instance']} was not accepted by the instance")
        if float(row["bound"]) > float(row["objective"]):
            raise SystemExit(f"{path}: {row['subject']} on {row['instance']}: bound above the objective")
    return [{column: row[column] for column in COLUMNS} for row in rows]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row a method, a column an instance with its objective, then mean gap and seconds.

    The mean gap is to the best known makespans, over the instances that the method answers.
    """
    instances = list(dict.fromkeys(row["instance"] for row in rows))
    best = {name: min(float(row["objective"]) for row in rows if row["instance"] == name) for name in instances}
    lines = [
        ["method", *instances, "mean gap to best known", "mean seconds"],
        [":--", *["--:"] * (len(instances) + 2)],
    ]
    for subject in dict.fromkeys(row["subject"] for row in rows):
        mine = {row["instance"]: row for row in rows if row["subject"] == subject}
        cells = []
        for name in instances:
            text = f"{float(mine[name]['objective']):.0f}" if name in mine else ""
            cells.append(f"**{text}**" if name in mine and float(mine[name]["objective"]) == best[name] else text)
        gaps = [float(row["objective"]) / float(row["best_known"]) - 1 for row in mine.values()]
        seconds = [float(row["seconds"]) for row in mine.values()]
        lines.append([subject, *cells, f"{100 * sum(gaps) / len(gaps):.1f} %", f"{sum(seconds) / len(seconds):.3f}"])
    for label, column in (("*best known*", "best_known"), ("*lower bound of this run*", "bound")):
        values = {row["instance"]: f"{float(row[column]):.0f}" for row in rows}
        lines.append([label, *[values[name] for name in instances], "", ""])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(text: str, block: str) -> str:
    """``text`` with ``block`` between the markers.

    >>> print(fill("a\\n<!-- table:demo -->old<!-- /table:demo -->\\nb", "new"))
    a
    <!-- table:demo -->
    <BLANKLINE>
    new
    <BLANKLINE>
    <!-- /table:demo -->
    b
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{README.name} has no {BEGIN} ... {END}")
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"


def block(figures: Path) -> str:
    """What stands between the markers: the table, or how to make it while no figures are committed."""
    if not figures.exists():
        return "*No figures are committed yet: run `make demo`, then `python docs/readme_table.py demo`.*"
    return table(read_figures(figures))


def take(folder: Path) -> None:
    """Copy the figures of a demo folder, and the picture of CP-SAT's schedule of ta01 with fewer colours."""
    from PIL import Image

    rows = read_figures(folder / "results.csv")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(text.getvalue(), encoding="utf-8")
    picture = folder / "ta01-cp-sat.png"
    if picture.exists():
        image = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        image.save(PICTURE, optimize=True)


def main() -> None:
    """Command line: see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder that `orl demo` wrote")
    folder = parser.parse_args().folder
    if folder is not None:
        take(folder)
    old = README.read_text(encoding="utf-8")
    new = fill(old, block(FIGURES))
    if new != old:
        README.write_text(new, encoding="utf-8")
        print(f"{README.name}: table renewed")


if __name__ == "__main__":
    main()
