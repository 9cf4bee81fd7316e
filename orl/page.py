"""One self-contained HTML page: paragraphs, a table and pictures; no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c1f23; --paper: #fcfcfa; --rule: #d5d7d9; --band: #f1f2f0; --accent: #2c5f8a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e5e6; --paper: #17191c; --rule: #3b3f44; --band: #202327; --accent: #8fbce0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; color: var(--accent); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .3rem .65rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid var(--rule); }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr.group td { border-top: 1px solid var(--rule); }
tr.strong td { background: var(--band); font-weight: 600; }
figure { margin: 0 0 1.8rem; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--rule); border-radius: 4px; }
figcaption { font-size: .92rem; margin-bottom: .35rem; }
footer { margin-top: 3rem; font-size: .85rem; opacity: .75; }
"""
MEDIA = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Row:
    """A row of the table: cells of text; ``group`` starts a new block, ``strong`` marks the row."""

    cells: Sequence[str]
    group: bool = False
    strong: bool = False


def page(
    title: str,
    paragraphs: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[Row],
    pictures: Sequence[tuple[str, Path]],
    footer: str = "",
) -> str:
    """The page as text; every argument is plain text and escaped, pictures (PNG or SVG files) are inlined.

    >>> text = page("A < B", ["one"], ["x"], [Row(["1"], strong=True)], [])
    >>> "<h1>A &lt; B</h1>" in text and '<tr class="strong"><td>1</td></tr>' in text
    True
    """
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(text)}</p>" for text in paragraphs),
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>',
        *(_row(row) for row in rows),
        "</tbody></table></div>",
        "<h2>Pictures</h2>" if pictures else "",
        *(_figure(caption, path) for caption, path in pictures),
        f"<footer>{escape(footer)}</footer></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _row(row: Row) -> str:
    names = " ".join(name for name, on in (("group", row.group), ("strong", row.strong)) if on)
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
    return f'<tr class="{names}">{cells}</tr>' if names else f"<tr>{cells}</tr>"


def _figure(caption: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:{MEDIA[path.suffix]};base64,{data}"
    return f'<figure><figcaption>{escape(caption)}</figcaption><img alt="{escape(caption)}" src="{source}"></figure>'
