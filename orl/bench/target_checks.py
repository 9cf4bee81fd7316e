"""Checking the targets of plain data before anything is run: can they be imported, do they take their arguments?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from orl.bench.sweep_file import Problems
from orl.bench.yaml_lines import KeyPath
from orl.common.errors import InputError
from orl.targets import import_name


def check_targets(value: Any, path: KeyPath, problems: Problems, given: int = 0) -> None:
    """Note the mistakes of all mappings with a ``target`` or an ``object`` in ``value``.

    Args:
        value: Plain data.
        path: Where it stands.
        problems: Takes the mistakes.
        given: Positional arguments that the outermost target is given besides its keyword arguments: 1 for wrappers.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            check_targets(item, (*path, index), problems)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_targets(item, (*path, key), problems)
        if "target" in value:
            _check_target(value, path, problems, given)
        elif set(value) == {"object"}:
            imported(value["object"], (*path, "object"), problems)


def _check_target(value: Mapping[str, Any], path: KeyPath, problems: Problems, given: int) -> None:
    target = imported(value["target"], (*path, "target"), problems)
    if target is None:
        return
    refusal = refused_arguments(target, *[None] * given, **{key: None for key in value if key != "target"})
    if refusal is not None:
        problems.add((*path, "target"), refusal, value=value["target"])


def refused_arguments(target: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """Why ``target`` does not take these arguments, by its signature; None if it does, or has no signature to look at.

    >>> refused_arguments(sorted, [], revers=True)
    "got an unexpected keyword argument 'revers'"
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None  # written in C without a signature: calling it is the only test
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def imported(name: Any, path: KeyPath, problems: Problems) -> Any:
    """What an import string names; None, and its mistake noted, if it cannot be imported."""
    if not isinstance(name, str) or ":" not in name:
        problems.add(path, "not an import string", value=name, expected="module:attribute")
        return None
    found, refusal = _import(name)
    if refusal is not None:
        problems.add(path, "cannot be imported", value=name, expected=f"module:attribute ({refusal})")
    return found


@cache
def _import(name: str) -> tuple[Any, str | None]:
    try:
        return import_name(name, "target"), None
    except (InputError, SyntaxError) as error:
        return None, " ".join(str(error.__cause__ or error).split())
