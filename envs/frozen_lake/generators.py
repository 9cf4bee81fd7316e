"""Random lakes: maps with a way to the goal, and slip directions drawn tile by tile."""

from __future__ import annotations

import numpy as np

from orl.common.errors import InputError
from orl.envs.frozen_lake.instance import LakeInstance
from orl.envs.frozen_lake.transition import MOVES, Floats, Reward

SLIP_SEED = 42
_ATTEMPTS = 10_000


def slip_table(n_tiles: int, seed: int = SLIP_SEED) -> Floats:
    """Slip directions float64[n_tiles, 4]: one draw of Dirichlet(1, 1, 1, 1) a tile, row by row of the map.

    A legacy generator of its own, because the published lakes draw theirs with it (seed 42).

    >>> slip_table(100)[0].round(3).tolist()
    [0.082, 0.527, 0.231, 0.16]
    """
    return np.random.RandomState(seed).dirichlet([1.0] * len(MOVES), size=n_tiles)


def has_way(tiles: tuple[str, ...]) -> bool:
    """Whether moves alone lead from the start to the goal around the holes.

    >>> has_way(("SH", "HG")), has_way(("SF", "HG"))
    (False, True)
    """
    rows, columns = len(tiles), len(tiles[0])
    start = "".join(tiles).index("S")
    open_, seen = [divmod(start, columns)], {divmod(start, columns)}
    while open_:
        row, column = open_.pop()
        if tiles[row][column] == "G":
            return True
        for down, right in MOVES:
            r, c = row + down, column + right
            if 0 <= r < rows and 0 <= c < columns and (r, c) not in seen and tiles[r][c] != "H":
                seen.add((r, c))
                open_.append((r, c))
    return False


def random_lake(
    size: int = 10,
    seed: int = 0,
    *,
    frozen: float = 0.8,
    slip_seed: int = SLIP_SEED,
    slip_probability: float = 0.5,
    horizon: int = 100,
    reward: Reward = "shaped",
    name: str | None = None,
) -> LakeInstance:
    """A square lake: start top left, goal bottom right, other tiles frozen with probability ``frozen``, else holes.

    Maps are drawn until one has a way to the goal.

    Args:
        size: Rows and columns, >= 2.
        seed: Seed of the map.
        slip_seed: Seed of the slip directions (:func:`slip_table`).

    Raises:
        InputError: A bad size or share, or no map with a way in ten thousand draws.

    >>> random_lake(4, seed=1).tiles[0][0]
    'S'
    """
    if size < 2:
        raise InputError("too small", field="size", value=size, expected=">= 2")
    if not 0.0 < frozen <= 1.0:
        raise InputError("not a share", field="frozen", value=frozen, expected="above 0, at most 1")
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        letters = np.where(rng.random((size, size)) < frozen, "F", "H")
        letters[0, 0], letters[-1, -1] = "S", "G"
        tiles = tuple("".join(row) for row in letters)
        if has_way(tiles):
            return LakeInstance(
                name=name or f"random-lake-{size}x{size}-{seed}",
                tiles=tiles,
                slip_directions=slip_table(size * size, slip_seed),
                slip_probability=slip_probability,
                horizon=horizon,
                reward=reward,
            )
    raise InputError("no map with a way to the goal", field="frozen", value=frozen, expected="a larger share")
