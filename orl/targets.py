"""Objects in plain data: what a JSON or YAML file names by import strings, built when it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from orl.common.errors import InputError


def build_targets(value: Any) -> Any:
    """Replace mappings that name code by the objects they stand for, so that objects fit into JSON or YAML.

    A mapping with a ``target`` key is what that target returns when it is called with the other keys; a mapping with
    the single key ``object`` is the imported object itself, a class for instance. Both are import strings
    ``module:attribute``.

    A target is any callable that can be imported, and it is called: what comes from a file of others is their code.
    Load only runs you trust.

    >>> build_targets({"step": {"target": "fractions:Fraction", "numerator": 1, "denominator": 2}})
    {'step': Fraction(1, 2)}
    >>> build_targets({"kind": {"object": "fractions:Fraction"}})
    {'kind': <class 'fractions.Fraction'>}

    Raises:
        InputError: the target cannot be imported or refuses the other keys as keyword arguments.
    """
    if isinstance(value, Mapping):
        if set(value) == {"object"} and isinstance(value["object"], str):
            return import_name(value["object"], "object")
        built = {key: build_targets(item) for key, item in value.items()}
        if "target" not in built:
            return built
        target = import_name(built.pop("target"), "target")
        try:
            return target(**built)
        except TypeError as error:
            raise InputError(str(error), field="target", value=value["target"]) from error
    return [build_targets(item) for item in value] if isinstance(value, list) else value


def import_name(name: str, what: str) -> Any:
    """The object of an import string ``module:attribute``; raises InputError naming ``what`` if there is none."""
    module, _, attribute = str(name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError("cannot be imported", field=what, value=name, expected="module:attribute") from error
