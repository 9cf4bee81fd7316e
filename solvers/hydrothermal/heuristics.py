"""Rules without a programme: shares of what can be reached."""

from __future__ import annotations

import numpy as np

from orl.common import counter_noise
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.reach import ReachableMap
from orl.solvers.hydrothermal.rules import Decide


def empty(instance: HydrothermalInstance) -> Decide:
    """Every reservoir goes as low as it may; what the turbines cannot take is spilled."""
    reach = ReachableMap(instance)

    def decide(stage: Integers, volumes: Floats, inflows: Floats) -> Floats:
        return reach(volumes, inflows, np.zeros_like(volumes)).volumes

    return decide


def full(instance: HydrothermalInstance) -> Decide:
    """Every reservoir keeps what it can hold, from the top plant down."""
    reach = ReachableMap(instance)

    def decide(stage: Integers, volumes: Floats, inflows: Floats) -> Floats:
        return reach(volumes, inflows, np.ones_like(volumes)).volumes

    return decide


def random(instance: HydrothermalInstance, *, seed: int | None = None) -> Decide:
    """Every reservoir ends anywhere between its limits, from the top plant down.

    Args:
        instance: The problem.
        seed: With a seed, decisions are a function of seed, stage, copy and plant. None: every call takes a new key
            from numpy's global generator, as SB3's policies draw from torch's; ``orl.evaluate`` seeds both.

    >>> from orl.envs.hydrothermal.library import load
    >>> instance = load("tri3")
    >>> decide, state = random(instance, seed=1), (np.zeros(1, np.int64), np.ones((1, 3)), np.ones((1, 3)))
    >>> bool((decide(*state) == decide(*state)).all())
    True
    """
    reach = ReachableMap(instance)

    def decide(stage: Integers, volumes: Floats, inflows: Floats) -> Floats:
        key = np.uint64(np.random.randint(2**31) if seed is None else seed % 2**64)  # noqa: NPY002
        place = np.arange(volumes.size).reshape(volumes.shape)
        shares = counter_noise.uniform(key, np.asarray(stage)[:, None], place, 0)
        return reach(volumes, inflows, shares).volumes

    return decide
