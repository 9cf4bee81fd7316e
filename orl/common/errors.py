"""The exception classes of orl. Each message names the source, the field, the value and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input data: a file, a field of a model, a keyword argument.

    Args:
        problem: What is wrong, in a few words.
        source: File name or object the input came from.
        line: One-based line number in ``source``.
        field: Name of the offending field.
        value: The offending value (shortened in the message).
        expected: What would have been accepted.

    >>> str(InputError("negative duration", source="a.txt", line=3, field="duration", value=-1, expected=">= 0"))
    'a.txt, line 3, duration: negative duration (got -1, expected >= 0)'
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str | None = None,
        line: int | None = None,
        field: str | None = None,
        value: object = None,
        expected: str | None = None,
    ) -> None:
        self.problem, self.source, self.line = problem, source, line
        self.field, self.value, self.expected = field, value, expected
        where = [part for part in (source, None if line is None else f"line {line}", field) if part]
        details = []
        if value is not None:
            text = repr(value)
            details.append(f"got {text if len(text) <= 60 else text[:57] + '...'}")
        if expected is not None:
            details.append(f"expected {expected}")
        message = ", ".join(where) + (": " if where else "") + problem
        super().__init__(message + (f" ({', '.join(details)})" if details else ""))


class UnknownNameError(InputError):
    """A name that no registry knows; the message offers the nearest matches.

    >>> str(UnknownNameError("instance", "ta1", ["ta01", "ta02", "ft06"]))
    "instance: unknown name (got 'ta1', expected one of 3 known names; did you mean 'ta01', 'ta02'?)"
    """

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        known = sorted(choices)
        matches = _nearest(name, known)
        expected = f"one of {len(known)} known names" if len(known) > 8 or matches else f"one of {known}"
        if matches:
            expected += f"; did you mean {', '.join(map(repr, matches))}?"
        self.matches = matches
        super().__init__("unknown name", field=kind, value=name, expected=expected)


def _nearest(name: str, known: list[str]) -> list[str]:
    """The three names most like ``name``, in any case; of equally like ones, the first in alphabetical order."""
    matcher = difflib.SequenceMatcher(b=name.casefold())
    scored = []
    for choice in known:
        matcher.set_seq1(choice.casefold())
        if matcher.real_quick_ratio() >= 0.5 and matcher.ratio() >= 0.5:
            scored.append((-matcher.ratio(), choice))
    return [choice for _, choice in sorted(scored)[:3]]


class IllegalActionError(ValueError):
    """An action that the current mask forbids, under ``illegal="raise"``."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{purpose} needs the package {package!r}: install it with `pip install 'orl[{extra}]'`")


class DataUnavailableError(RuntimeError):
    """Data that is neither in ``ORL_DATA_DIR``, nor in the cache, and cannot be downloaded now."""
