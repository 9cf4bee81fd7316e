"""Tables of a report: built once as plain cells, written as HTML or as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says; empty for a figure that does not exist.
        value: What it sorts by; None sorts last. Cells of text columns sort by their text.
        small: A second figure, written smaller after the first.
        mark: A word in a box at the end.
        best: Whether it is the best of its row or column, written in bold.
        share: 0 to 100: how strongly the cell is tinted; None for no tint.
        colour: Colour of a dot before the text, as in the figures.
    """

    text: str
    value: float | None = None
    small: str = ""
    mark: str = ""
    best: bool = False
    share: float | None = None
    colour: str | None = None


@dataclass(frozen=True)
class Column:
    """Head of a column; ``text`` columns are aligned to the left, the others hold figures."""

    title: str
    text: bool = False
    small: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, rows of as many cells, and a caption; the first cell of a row names it."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


def figure(value: float | None, decimals: int, *, percent: bool = False) -> str:
    """A number with fixed decimals; empty for None and NaN.

    >>> figure(1234.5678, 1), figure(0.1234, 1, percent=True), figure(float("nan"), 2)
    ('1234.6', '12.3 %', '')
    """
    if value is None or not math.isfinite(value):
        return ""
    text = f"{100 * value if percent else value:.{decimals}f}"
    text = text if any(digit in text for digit in "123456789") else text.removeprefix("-")
    return f"{text} %" if percent else text


def decimals_of(values: Iterable[float | None], *, percent: bool = False, digits: int = 4) -> int:
    """Decimals that show the largest of ``values`` with ``digits`` digits; 0 if all of them are whole.

    >>> decimals_of([1231.0, 5.0]), decimals_of([487.31, 3.2]), decimals_of([0.052, 0.4])
    (0, 1, 4)
    >>> decimals_of([0.312], percent=True)
    2
    """
    known = [abs(100 * v if percent else v) for v in values if v is not None and math.isfinite(v)]
    largest = max(known, default=0.0)
    if largest == 0 or all(value == round(value) for value in known):
        return 0
    return min(max(digits - 1 - math.floor(math.log10(largest)), 0), 6)


def duration(seconds: float | None) -> str:
    """Seconds in a unit that reads well.

    >>> duration(0.0123), duration(41), duration(5400), duration(1e5), duration(None)
    ('0.012 s', '41 s', '90 min', '27.8 h', '')
    """
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 600:
        return f"{seconds:.3f} s" if seconds < 0.1 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.1f} h"


def html(table: Table, label: str, *, heat: str = "var(--accent)") -> str:
    """The table in a box that scrolls, sortable by its headers; every text is escaped.

    >>> text = html(Table([Column("a<b", text=True)], [[Cell("<script>")]]), "A table")
    >>> "a&lt;b" in text and "&lt;script&gt;" in text and "<script>" not in text
    True
    """
    head = "".join(
        f'<th scope="col"{_class("text" if column.text else "")}>{escape(column.title)}'
        f"{f' <small>{escape(column.small)}</small>' if column.small else ''}</th>"
        for column in table.columns
    )
    body = "\n".join(
        "<tr>" + "".join(_html_cell(cell, table.columns[i], i == 0) for i, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    caption = f'\n<p class="facts">{escape(table.caption)}</p>' if table.caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}" style="--heat:{escape(heat)}">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>{caption}'
    )


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _html_cell(cell: Cell, column: Column, first: bool) -> str:
    names = [name for name, on in (("text", column.text), ("best", cell.best), ("heat", cell.share is not None)) if on]
    value = "" if column.text else f' data-value="{"" if cell.value is None else repr(float(cell.value))}"'
    share = "" if cell.share is None else f' style="--share:{cell.share:.0f}"'
    dot = f'<span class="key" style="background:{escape(cell.colour)}"></span>' if cell.colour else ""
    small = f" <small>{escape(cell.small)}</small>" if cell.small else ""
    mark = f' <span class="mark">{escape(cell.mark)}</span>' if cell.mark else ""
    tag = 'th scope="row"' if first else "td"
    return f"<{tag}{_class(' '.join(names))}{value}{share}>{dot}{escape(cell.text)}{small}{mark}</{tag[:2]}>"


def markdown(table: Table) -> str:
    r"""The table in Markdown, columns padded to equal width; pipes, stars and angle brackets of texts are escaped.

    >>> print(markdown(Table([Column("a|b", text=True), Column("n")], [[Cell("x"), Cell("1", 1, best=True)]])))
    | a\|b |     n |
    | :--- | ----: |
    | x    | **1** |
    """
    lines = [[plain(f"{column.title} {column.small}".strip()) for column in table.columns]]
    lines += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    widths = [max(4, *(len(line[i]) for line in lines)) for i in range(len(table.columns))]
    align: list[Callable[[str, int], str]] = [str.ljust if column.text else str.rjust for column in table.columns]
    rule = [
        ":" + "-" * (width - 1) if column.text else "-" * (width - 1) + ":"
        for column, width in zip(table.columns, widths, strict=True)
    ]
    padded = [[align[i](text, widths[i]) for i, text in enumerate(line)] for line in lines]
    written = [padded[0], rule, *padded[1:]]
    text = "\n".join("| " + " | ".join(line) + " |" for line in written)
    return text + (f"\n\n{plain(table.caption)}" if table.caption else "")


def _markdown_cell(cell: Cell) -> str:
    text = plain(cell.text)
    text = f"**{text}**" if cell.best and text else text
    return " ".join(part for part in (text, plain(cell.small), f"({plain(cell.mark)})" if cell.mark else "") if part)


def plain(text: str) -> str:
    """Text that Markdown leaves alone."""
    for sign in "\\`*_|[]":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.replace("<", "&lt;").replace(">", "&gt;").split())
