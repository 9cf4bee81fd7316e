"""What native vector envs share about the beginnings and ends of episodes: modes, masks, seeds, terminal infos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.utils.seeding import np_random
from gymnasium.vector import AutoresetMode

from orl.common.errors import InputError
from orl.common.reset_options import refuse_unknown_options

Flags = npt.NDArray[np.bool_]


def autoreset_mode_of(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode itself, or by value or name.

    Raises:
        InputError: No such mode.

    >>> autoreset_mode_of("DISABLED") is AutoresetMode.DISABLED
    True
    """
    if isinstance(mode, str) and mode in AutoresetMode.__members__:
        return AutoresetMode[mode]
    try:
        return AutoresetMode(mode)
    except ValueError:
        expected = ", ".join(AutoresetMode.__members__)
        raise InputError("unknown mode", field="autoreset_mode", value=mode, expected=expected) from None


def require_sizes(num_envs: int, max_episode_steps: int | None) -> None:
    """Raise InputError unless there is a copy, and the limit is None or a positive int."""
    if num_envs < 1:
        raise InputError("no copies", field="num_envs", value=num_envs, expected=">= 1")
    if max_episode_steps is not None and (type(max_episode_steps) is not int or max_episode_steps < 1):
        raise InputError("bad limit", field="max_episode_steps", value=max_episode_steps, expected="an int >= 1")


def copies_to_reset(options: dict[str, Any] | None, num_envs: int, started: bool, known: Sequence[str] = ()) -> Flags:
    """``options["reset_mask"]`` of a ``reset``, bool[N]; all copies without one.

    Args:
        started: Whether the copies have been reset before.
        known: Other options that the env reads.

    Raises:
        InputError: A mask of another shape or dtype, an empty one, or an option that the env does not read.
        ResetNeeded: The first reset leaves copies out.
    """
    refuse_unknown_options(options, "reset_mask", *known)
    if options is None or "reset_mask" not in options:
        return np.ones(num_envs, np.bool_)
    which: Flags = options["reset_mask"]
    if not isinstance(which, np.ndarray) or which.dtype != np.bool_ or which.shape != (num_envs,):
        raise InputError("bad reset mask", field="reset_mask", value=which, expected=f"bool[{num_envs}]")
    if not which.any():
        raise InputError("empty reset mask", field="reset_mask", value=which, expected="at least one True")
    if not started and not which.all():
        raise ResetNeeded("the first reset() must reset every copy")
    return which


def seeded(
    generators: list[np.random.Generator], seed: int | Sequence[int | None] | None, which: Flags
) -> list[np.random.Generator]:
    """The generators of N copies after ``reset(seed=seed)`` of those marked by ``which`` bool[N].

    An integer s means s + i for copy i; where there is no seed, a generator goes on.

    Args:
        generators: Those so far; empty before the first reset.

    Raises:
        InputError: Another number of seeds.

    >>> [generator.integers(10) for generator in seeded([], 7, np.ones(2, np.bool_))]
    [np.int64(9), np.int64(7)]
    """
    num_envs = len(which)
    if seed is None:
        seeds: Sequence[int | None] = [None] * num_envs
    elif isinstance(seed, (int, np.integer)):
        seeds = [int(seed) + i for i in range(num_envs)]
    else:
        seeds = seed
    if len(seeds) != num_envs:
        raise InputError("wrong number of seeds", field="seed", value=len(seeds), expected=str(num_envs))
    current = list(generators) or [np_random()[0] for _ in range(num_envs)]
    for b in np.flatnonzero(which).tolist():
        if seeds[b] is not None:
            current[b] = np_random(seeds[b])[0]
    return current


def refuse_finished(over: Flags) -> NoReturn:
    """Raise ResetNeeded that names the finished copies, when a ``step`` comes and no automatic reset."""
    raise ResetNeeded(
        f"copies {np.flatnonzero(over).tolist()} are finished: call reset(options={{'reset_mask': finished}}) first"
    )


def info_columns(columns: Mapping[str, Any], dtypes: Mapping[str, type], where: Flags) -> dict[str, Any]:
    """Infos of the marked copies as Gymnasium's arrays [N], each with its mask ``_key``.

    Args:
        columns: For every key one value a marked copy.
        dtypes: Of the arrays, by key.
        where: bool[N].

    >>> info_columns({"objective": [2.5]}, {"objective": float}, np.array([False, True]))["objective"].tolist()
    [0.0, 2.5]
    """
    infos: dict[str, Any] = {}
    for key, dtype in dtypes.items():
        if dtype is object:
            array = np.empty(len(where), object)
            for b, value in zip(np.flatnonzero(where).tolist(), columns[key], strict=True):
                array[b] = value
        else:
            array = np.zeros(len(where), dtype)
            array[where] = columns[key]
        infos[key], infos["_" + key] = array, where
    return infos


def final_infos(
    infos: Mapping[str, Any], terminal: Mapping[str, Any], observations: Iterable[Any], over: Flags
) -> dict[str, Any]:
    """Infos of a SAME_STEP step in which some copies ended, as Gymnasium's vector envs give them.

    Args:
        infos: What the step reported, with masks. Of the copies that ended it moves to ``final_info``.
        terminal: End-of-episode keys, with masks; they rule where both have a key.
        observations: The last observation of each copy that ended, in order.
        over: bool[N], the copies that ended.

    >>> step, end = {"a": np.array([1, 2]), "_a": np.array([True, True])}, {"b": np.array([0, 9])}
    >>> found = final_infos(step, end, ["last"], np.array([False, True]))
    >>> found["_a"].tolist(), found["final_obs"].tolist(), sorted(found["final_info"])
    ([True, False], [None, 'last'], ['_a', 'a', 'b'])
    """
    final_obs = np.full(len(over), None, object)
    for b, observation in zip(np.flatnonzero(over).tolist(), observations, strict=True):
        final_obs[b] = observation
    moved = {key: over.copy() if key.startswith("_") else value for key, value in infos.items()}
    running = {key: value & ~over if key.startswith("_") else value for key, value in infos.items()}
    final = {"final_obs": final_obs, "_final_obs": over, "final_info": moved | dict(terminal), "_final_info": over}
    return running | final
