"""Instances of a run: by library name, from a file that has not changed, or drawn from a seeded generator."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from orl import registry
from orl.bench.configuration import GeneratedInstance, InstanceFile, InstanceSource
from orl.common.errors import InputError
from orl.common.problem import Instance
from orl.targets import build_targets


def build_instance(source: InstanceSource, domain: str) -> Instance:
    """The instance that a configuration means.

    A generated instance is called after its place in the sequence: the generator's own name, the seed and the index,
    ``uniform_job_shop_6x6#7.0`` for instance, so that two of one table are never confused.

    Args:
        source: Library name, file with its digest, or generator with seed and index.
        domain: Name of the domain, ``job_shop`` for instance.

    Raises:
        InputError: the file is missing, is not the one the configuration was made with, or cannot be read; the
            generator cannot be built or gives something else than an instance. UnknownNameError: no such name.

    >>> build_instance("ft06", "job_shop").name
    'ft06'
    """
    room = registry.domain(domain)
    if isinstance(source, InstanceFile):
        require_digest(source)
        built = room.load(Path(source.file))
    elif isinstance(source, GeneratedInstance):
        built = _generate(source)
    else:
        built = room.load(source)
    instance: Instance = built
    return instance


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal digits.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", source=str(path), field="file") from error


def require_digest(source: InstanceFile) -> None:
    """Raise InputError unless the file is the one that the configuration was made with."""
    found = file_digest(source.file)
    if found != source.sha256:
        raise InputError(
            "the file has changed since the runs were planned: its runs would not be the ones they are named after",
            source=source.file,
            field="sha256",
            value=found,
            expected=source.sha256,
        )


def _generate(source: GeneratedInstance) -> Any:
    """Instance ``index`` of the sequence, under a name of its own."""
    generator = build_targets(source.generator)
    target = source.generator.get("target")
    if not callable(generator):
        raise InputError("not a generator", field="generator", value=target, expected="a callable(rng) -> instance")
    instance = generator(np.random.default_rng([source.seed, source.index]))
    if not (dataclasses.is_dataclass(instance) and not isinstance(instance, type) and isinstance(instance, Instance)):
        raise InputError(
            "gives something else than an instance",
            source=str(target),
            field="generator",
            value=instance,
            expected="a dataclass with a name, check(), lower_bound(), best_known() and to_json()",
        )
    return dataclasses.replace(instance, name=f"{instance.name}#{source.seed}.{source.index}")
