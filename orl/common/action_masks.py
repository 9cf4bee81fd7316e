"""Action masks in SB3's layout: one Boolean an option, dimensions of a MultiDiscrete action side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces


def mask_width(space: spaces.Space[Any]) -> int:
    """Entries A of a mask: n of a Discrete space, the sum over a MultiDiscrete one, 2 an entry of a MultiBinary one.

    >>> mask_width(spaces.MultiDiscrete([2, 3]))
    5
    """
    return int(sum(option_counts(space)))


def option_counts(space: spaces.Space[Any]) -> list[int]:
    """Number of options of each dimension of the action.

    Raises:
        ValueError: The space cannot be masked.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    raise ValueError(f"action masks need a Discrete, MultiDiscrete or MultiBinary action space, got {space}")


def split_masks(space: spaces.Space[Any], masks: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Masks ``bool[..., A]`` as one array ``bool[..., n_d]`` for each dimension d of the action."""
    return np.split(masks, np.cumsum(option_counts(space))[:-1], axis=-1)


def random_legal_actions(
    space: spaces.Space[Any], masks: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Uniform legal actions of the single ``space`` under ``masks`` bool[N, A]: int64[N] (Discrete) or int64[N, D].

    >>> masks = np.array([[False, True], [True, False]])
    >>> random_legal_actions(spaces.Discrete(2), masks, np.random.default_rng(0)).tolist()
    [1, 0]
    """
    parts = split_masks(space, masks)
    chosen = [np.where(part, rng.random(part.shape), -1.0).argmax(-1) for part in parts]
    if isinstance(space, spaces.Discrete):
        return np.asarray(chosen[0] + int(space.start), np.int64)
    return np.stack(chosen, axis=-1).astype(np.int64)


def is_legal(space: spaces.Space[Any], mask: npt.NDArray[np.bool_], action: Any) -> bool:
    """Whether one ``action`` is allowed by its ``mask`` bool[A].

    >>> is_legal(spaces.Discrete(3), np.array([True, False, True]), 1)
    False
    """
    parts = split_masks(space, mask)
    chosen = np.asarray(action).ravel() - (int(space.start) if isinstance(space, spaces.Discrete) else 0)
    return all(0 <= a < len(part) and bool(part[a]) for part, a in zip(parts, chosen, strict=True))
