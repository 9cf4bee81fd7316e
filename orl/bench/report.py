"""The report of a sweep: a page (HTML), its tables (Markdown) or its rows (CSV), written from the records alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from orl.common.atomic import atomic_path, write_text
from orl.common.errors import InputError

Format = Literal["html", "md", "csv"]
FORMATS: tuple[Format, ...] = ("html", "md", "csv")


def write_report(folder: str | os.PathLike[str], out: str | os.PathLike[str], *, format: Format = "html") -> None:
    """Write the report of the sweep in ``folder`` to ``out``, whole or not at all.

    A sweep without any finished run has a report too; it says so and lists the failures.

    Args:
        folder: Folder of a sweep (``orl sweep run --out``), finished or under way.
        out: File to write.
        format: ``html``: one self-contained page with verdicts, figures, tables, pictures, failures and every run;
            ``md``: verdicts and tables; ``csv``: the rows of :func:`orl.bench.load`.

    Raises:
        InputError: no sweep in ``folder``, a file of it that cannot be read, or an unknown format.
        MissingExtraError: plotly is not installed (``html`` only).
        OSError: ``out`` cannot be written.
    """
    source, target = Path(folder), Path(out)
    if format not in FORMATS:
        raise InputError("unknown format", field="format", value=format, expected="html, md or csv")
    if format == "csv":
        from orl.bench.store import load

        table = load(source)
        with atomic_path(target) as temporary:
            table.to_csv(temporary, index=False)
        return
    from orl.bench.report_data import read

    if format == "md":
        from orl.bench.report_text import text

        write_text(target, text(read(source)))
        return
    from orl.bench.report_page import page, plotly_script

    plotly_script()  # before anything is read: without plotly there is no page
    write_text(target, page(read(source)))
