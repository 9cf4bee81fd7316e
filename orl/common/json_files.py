"""Reading JSON that may come from anywhere: size capped, every failure one InputError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orl.common.errors import InputError


def read_json(path: Path, *, largest: int, expected: str) -> Any:
    """The JSON data in ``path``.

    Args:
        path: File to read.
        largest: Size cap in bytes, checked before anything is parsed.
        expected: What the file should hold, for the message.

    Raises:
        InputError: not readable, larger than ``largest``, or no JSON.
    """
    try:
        with path.open("rb") as file:
            text = file.read(largest + 1)
        if len(text) <= largest:
            return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("cannot be read", source=str(path), value=str(error), expected=expected) from error
    raise InputError("too large", source=str(path), expected=f"at most {largest} bytes")
