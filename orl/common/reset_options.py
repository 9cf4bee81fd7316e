"""What ``reset(options=...)`` may hold: a name that an env does not read is an error, not silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orl.common.errors import InputError, UnknownNameError


def refuse_unknown_options(options: Mapping[str, Any] | None, *known: str) -> None:
    """Raise unless every key of ``options`` is one of ``known``.

    Raises:
        UnknownNameError: A key that is none of them; the message offers the nearest.
        InputError: A key, where none is known.

    >>> refuse_unknown_options({"setup": 1}, "inventory", "setup")
    >>> refuse_unknown_options({"volume": 1.0}, "columns", "volumes")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    orl.common.errors.UnknownNameError: reset option: unknown name (got 'volume', ...did you mean 'volumes', ...)
    """
    for name in options or {}:
        if not known:
            raise InputError("unknown name", field="reset option", value=name, expected="none")
        if name not in known:
            raise UnknownNameError("reset option", name, known)
