"""Named lakes.

================= =====================================================================================================
names             what
================= =====================================================================================================
lake-4x4          the 4x4 map of Gymnasium's FrozenLake
lake-8x8          its 8x8 map
lake-10x10-1 to 6 maps of Gymnasium's ``generate_random_map(size=10, seed=k)``
================= =====================================================================================================

All have slips with probability 0.5 in directions drawn with seed 42, a horizon of 100 steps and the shaped reward. The
best known objective is that of the best policy in expectation, by dynamic programming
(:mod:`orl.solvers.frozen_lake.dynamic_programming`).

>>> round(load("lake-10x10-1").best_known().upper, 2)
-43.83
"""

from __future__ import annotations

import os
from dataclasses import replace

from orl.common.errors import UnknownNameError
from orl.common.problem import Bounds
from orl.envs.frozen_lake.generators import slip_table
from orl.envs.frozen_lake.instance import LakeInstance

_OPTIMA = {
    "lake-4x4": -35.217792510902,
    "lake-8x8": -35.641445727986,
    "lake-10x10-1": -43.831037128331,
    "lake-10x10-2": -34.889394070793,
    "lake-10x10-3": -21.391381648601,
    "lake-10x10-4": -13.779237185269,
    "lake-10x10-5": -29.128088081724,
    "lake-10x10-6": -12.101981667176,
}
_DATE = "2026-11-22"


def load(name_or_path: str | os.PathLike[str]) -> LakeInstance:
    """The lake of a library name, or of a JSON file.

    Raises:
        UnknownNameError: no such name; the message offers the nearest ones.
        InputError: something is wrong with the file.
    """
    text = os.fspath(name_or_path)
    if text in _OPTIMA and isinstance(name_or_path, str):
        return _library_lake(text)
    looks_like_path = not isinstance(name_or_path, str) or os.sep in text or "/" in text or "." in text
    if looks_like_path or os.path.exists(text):
        return LakeInstance.read(text)
    raise UnknownNameError("instance", text, names())


def names() -> list[str]:
    """All names that :func:`load` knows; none needs a file."""
    return list(_OPTIMA)


def _library_lake(name: str) -> LakeInstance:
    from gymnasium.envs.toy_text.frozen_lake import MAPS, generate_random_map

    size = name.removeprefix("lake-")
    tiles = MAPS[size] if size in MAPS else generate_random_map(size=10, seed=int(name.rpartition("-")[2]))
    lake = LakeInstance(name, tuple(tiles), slip_table(len(tiles) ** 2))
    best = _OPTIMA[name]
    return replace(lake, known_bounds=Bounds(best, best, "dynamic programming, expectation", _DATE))
