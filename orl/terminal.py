"""What the commands of the terminal share: options read, places to write to tried, figures shown."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from orl.bench.yaml_lines import parse
from orl.common.errors import InputError

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""


def console(stderr: bool = False) -> Console:
    """A console that does not cut table cells when its output is a file or a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 160)


def key_values(items: list[str] | None, option: str) -> dict[str, Any]:
    """Keyword arguments from the command line: ``a=1``, ``a.b=2`` (nested) or a whole JSON or YAML mapping.

    Values are YAML 1.2: ``1`` and ``3e-4`` are numbers, ``true`` a truth value, ``[1, 2]`` a list, anything else text.

    >>> key_values(["n=3", "net.rate=3e-4", '{"flag": true}'], "--hyper")
    {'n': 3, 'net': {'rate': 0.0003}, 'flag': True}

    Raises:
        InputError: neither of these forms.
    """
    out: dict[str, Any] = {}
    for item in items or []:
        expected = "key=value or a JSON/YAML mapping"
        key, equals, text = item.partition("=")
        is_pair = bool(equals) and key.strip().replace(".", "").replace("_", "").isalnum()
        try:
            document = parse((text if is_pair else item).strip() or "null", option)
        except InputError as error:
            raise InputError("cannot be read", field=option, value=item, expected=expected) from error
        if document.errors:
            raise InputError(document.errors[0].problem, field=option, value=item, expected=expected)
        value = document.data
        if is_pair:
            *path, last = key.strip().split(".")
            inner = out
            for name in path:
                inner = inner.setdefault(name, {})
                if not isinstance(inner, dict):
                    raise InputError("set twice", field=option, value=item, expected=f"{name!r} once")
            inner[last] = value
        elif isinstance(value, dict):
            out |= value
        else:
            raise InputError("cannot be read", field=option, value=item, expected=expected)
    return out


def require_writable(path: Path | None, option: str, *, folder: bool = False) -> None:
    """Raise InputError unless ``path`` can be written as a file, or as a ``folder``: before the work, not after it.

    Leaves nothing behind: folders that are missing are not made, the nearest one that exists is tried.
    """
    if path is None:
        return
    target = path.absolute()
    try:
        if target.is_dir() and not folder:
            raise InputError("is a folder", field=option, value=str(path), expected="a file")
        parent = target if folder else target.parent
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
        with tempfile.TemporaryDirectory(prefix=".orl.", dir=parent):
            pass
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise InputError(reason, field=option, value=str(path), expected="a place to write to") from error


def number(value: float | None, digits: int = 1) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:,.{digits}f}" if value % 1 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f} %"
