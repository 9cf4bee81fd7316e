"""Which instances are the same problem: scenarios of one, for instance, whatever their names."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from orl.envs.hydrothermal.instance import HydrothermalInstance

_NEVER = ("name", "columns")


def problem_key(instance: HydrothermalInstance, *, initial_volume: bool = True) -> bytes:
    """A digest of all data that a rule may know of an instance: not its name, nor the columns of a scenario.

    Args:
        instance: The instance.
        initial_volume: Whether the volumes at the start count.

    >>> from orl.envs.hydrothermal.library import load
    >>> tri3 = load("tri3")
    >>> problem_key(tri3) == problem_key(tri3.scenario(3)), problem_key(tri3) == problem_key(load("tri3-t6"))
    (True, False)
    """
    digest = hashlib.blake2b(digest_size=16)
    for f in fields(instance):
        if f.name in _NEVER or (f.name == "initial_volume" and not initial_volume):
            continue
        array = np.asarray(getattr(instance, f.name))
        digest.update(f"{f.name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()


def same_data(one: HydrothermalInstance, other: HydrothermalInstance) -> bool:
    """Whether two instances share all data that :func:`problem_key` reads, as scenarios of one do: a quick test."""
    return one is other or all(
        getattr(one, f.name) is getattr(other, f.name) for f in fields(one) if f.name not in _NEVER
    )
