"""The global random generators of a process: Python's, numpy's and torch's; seeded, read and written together.

Torch is asked only if something has imported it: runs without networks do without.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def seed_streams(seed: int) -> None:
    """Seed all of them, so that what ran in this process before does not matter.

    >>> seed_streams(3)
    >>> before = random.random()
    >>> seed_streams(3)
    >>> random.random() == before
    True
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def read_streams() -> dict[str, Any]:
    """Their states; plain data and tensors that can be pickled."""
    states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.random.get_rng_state()
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def write_streams(states: dict[str, Any]) -> None:
    """Go on where :func:`read_streams` was called."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    if "torch" in states:
        import torch

        torch.random.set_rng_state(states["torch"])
        if "cuda" in states:
            torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Whatever the block draws, a training goes on afterwards as if it had not: global generators and the model's
    action space, from which epsilon-greedy policies draw.

    Args:
        model: An SB3 algorithm.
    """
    states, own = read_streams(), model.action_space.np_random.bit_generator.state
    try:
        yield
    finally:
        write_streams(states)
        model.action_space.np_random.bit_generator.state = own
