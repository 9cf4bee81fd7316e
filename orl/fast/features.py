"""Observations as rows of float32, as SB3's ``preprocess_obs`` and its flattening extractors make them.

Box and MultiBinary parts are flattened, integer parts become one-hot codes, the parts of a Dict follow each other in
the order of the policy's extractor.

>>> import numpy as np
>>> from gymnasium import spaces
>>> Features(spaces.MultiDiscrete([2, 3]))(np.array([[1, 0]]))
array([[0., 1., 1., 0., 0.]], dtype=float32)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Floats = npt.NDArray[np.float32]


class _Part:
    """One part of an observation: where its numbers stand in a row."""

    def __init__(self, key: str | None, space: spaces.Space[Any], start: int) -> None:
        self.key, self.start, self.shape = key, start, space.shape or ()
        self.categories: npt.NDArray[np.int64] | None = None
        if isinstance(space, spaces.Discrete):
            self.categories = np.array([int(space.n)])
        elif isinstance(space, spaces.MultiDiscrete):
            self.categories = np.asarray(space.nvec, np.int64).ravel()
        self.width = int(np.prod(self.shape)) if self.categories is None else int(self.categories.sum())

    def write(self, observations: Any, out: Floats) -> None:
        rows = len(out)
        values = np.asarray(observations if self.key is None else observations[self.key])
        columns = out[:, self.start : self.start + self.width]
        if self.categories is None:
            columns[...] = values.reshape(rows, self.width)
            return
        codes = values.reshape(rows, len(self.categories)).astype(np.int64)
        if (codes < 0).any() or (codes >= self.categories).any():
            raise ValueError(f"an integer observation lies outside 0..{self.categories.tolist()} (exclusive)")
        columns[...] = 0.0
        offsets = np.cumsum(self.categories) - self.categories
        np.put_along_axis(columns, codes + offsets, np.float32(1.0), axis=1)


class Features:
    """Turns batches of observations of a space into float32[B, width].

    Args:
        space: Box, Discrete, MultiDiscrete, MultiBinary, or a flat Dict of those.
        keys: Order of the parts of a Dict; None: that of the space.
    """

    def __init__(self, space: spaces.Space[Any], keys: list[str] | None = None) -> None:
        named: list[tuple[str | None, spaces.Space[Any]]] = [(None, space)]
        if isinstance(space, spaces.Dict):
            named = [(key, space[key]) for key in (keys or space.spaces)]
        self._parts: list[_Part] = []
        self.width = 0
        for key, part in named:
            self._parts.append(_Part(key, part, self.width))
            self.width += self._parts[-1].width

    def __call__(self, observations: Any, out: Floats | None = None) -> Floats:
        """Features of B observations (an array, or a dict of arrays, with leading axis B), written to ``out``.

        Args:
            observations: Batch of observations.
            out: float32[B, width], made where None.
        """
        if out is None:
            first = self._parts[0].key
            out = np.empty((len(observations if first is None else observations[first]), self.width), np.float32)
        for part in self._parts:
            part.write(observations, out)
        return out
