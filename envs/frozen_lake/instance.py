"""A lake as immutable data, its solutions (a walk that happened, a policy), and the checker that prices both."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.json_files import read_json
from orl.common.problem import Bounds, Check
from orl.envs.frozen_lake.transition import (
    N_ACTIONS,
    STAY,
    Floats,
    Integers,
    LakeTables,
    Reward,
    decide,
    luckiest_return,
    make_tables,
    policy_value,
    realise,
)

SCHEMA = "orl.frozen_lake.instance/1"
WALK_SCHEMA = "orl.frozen_lake.walk/1"
POLICY_SCHEMA = "orl.frozen_lake.policy/1"
LARGEST_FILE = 64 * 2**20
LARGEST_MAP = 10**6


@dataclass(frozen=True, eq=False)
class LakeWalk:
    """What happened in an episode, from the start on.

    Attributes:
        actions: int64[K], 0 left, 1 down, 2 right, 3 up.
        outcomes: int64[K], the direction 0..3 of the slip after each move, 4 for none.
    """

    actions: Integers
    outcomes: Integers

    def to_json(self) -> dict[str, Any]:
        return {"schema": WALK_SCHEMA, "actions": self.actions.tolist(), "outcomes": self.outcomes.tolist()}


@dataclass(frozen=True, eq=False)
class LakePolicy:
    """A deterministic policy; its objective is an expectation.

    Attributes:
        actions: int64[T, S], the action on tile s at step t; int64[1, S] for a policy that does not look at the time.
    """

    actions: Integers

    def to_json(self) -> dict[str, Any]:
        return {"schema": POLICY_SCHEMA, "actions": self.actions.tolist()}


def solution_from_json(data: Any, source: str | None = None) -> LakeWalk | LakePolicy:
    """Read a walk or a policy that ``to_json`` wrote. Raises InputError on anything else."""
    schema = _schema(data)
    if schema not in (WALK_SCHEMA, POLICY_SCHEMA):
        expected = f"{WALK_SCHEMA} or {POLICY_SCHEMA}"
        raise InputError("not a solution of a lake", source=source, field="schema", value=schema, expected=expected)
    if schema == POLICY_SCHEMA:
        return LakePolicy(_array(data, "actions", np.int64, 2, source))
    return LakeWalk(_array(data, "actions", np.int64, 1, source), _array(data, "outcomes", np.int64, 1, source))


@dataclass(frozen=True, eq=False)
class LakeInstance:
    """A slippery grid of S tiles, on which a walker has ``horizon`` steps to go.

    A step is a move to a neighbouring tile (walls hold), then with ``slip_probability`` a slip by one tile in a
    direction drawn from the tile's own distribution. Every arrival counts, that of the move and that of the slip.
    ``shaped`` reward: 1 / (1 + Manhattan distance to the goal), less 1 / (rows + columns) in a hole; ``sparse``: 1 at
    the goal, 0 elsewhere. The episode ends at the goal, which nobody slips off, or when a step leaves the walker in a
    hole; a slip may leave the hole that the move led into.

    The objective is the return with the opposite sign.

    Attributes:
        name: Name of the instance.
        tiles: Rows of the map: S start, F frozen, H hole, G goal; one start and one goal.
        slip_directions: float64[S, 4], probability of each direction of a slip from the tile, rows add up to 1.
        slip_probability: Probability of a slip.
        horizon: T, the largest number of steps.
        reward: ``"shaped"`` or ``"sparse"``.
        known_bounds: Objective of the best policy, in expectation.

    Raises:
        InputError: A field is wrong; the message names it.
    """

    name: str
    tiles: tuple[str, ...]
    slip_directions: Floats
    slip_probability: float = 0.5
    horizon: int = 100
    reward: Reward = "shaped"
    known_bounds: Bounds | None = None

    def __post_init__(self) -> None:
        _validate(self)
        self.slip_directions.setflags(write=False)

    @property
    def n_rows(self) -> int:
        return len(self.tiles)

    @property
    def n_columns(self) -> int:
        return len(self.tiles[0])

    @property
    def n_tiles(self) -> int:
        """S."""
        return self.n_rows * self.n_columns

    @property
    def start(self) -> int:
        """Tile of the start, counted row by row."""
        return "".join(self.tiles).index("S")

    @cached_property
    def tables(self) -> LakeTables:
        """What a step reads."""
        return make_tables(self.tiles, self.slip_directions, self.slip_probability, self.reward)

    def with_reward(self, reward: Reward) -> LakeInstance:
        """The same lake under another reward (itself if it is the same one)."""
        if reward == self.reward:
            return self
        return replace(self, name=f"{self.name}/{reward}", reward=reward, known_bounds=None)

    def check(self, solution: LakeWalk | LakePolicy) -> Check:
        """Replay a walk, or compute the expectation of a policy; the objective is the negative (expected) return.

        A walk may stop anywhere (an episode that was cut), but has no step after its end, no more than ``horizon`` of
        them, and no slip that cannot happen.
        """
        if isinstance(solution, LakePolicy):
            return _check_policy(self, solution)
        return _check_walk(self, solution)

    def success(self, solution: LakeWalk | LakePolicy) -> float:
        """Probability that a policy reaches the goal; 1.0 or 0.0 for a walk. Raises InputError if ``check`` fails."""
        check = self.check(solution)
        if not check.feasible:
            raise InputError("not a solution of this lake", source=self.name, value="; ".join(check.violations))
        if isinstance(solution, LakePolicy):
            return float(policy_value(self.tables, solution.actions, self.horizon)[1][self.start])
        return float(self.replay(solution)[-1] == self.tables.goal)

    def replay(self, walk: LakeWalk) -> list[int]:
        """The tiles of a legal walk: the start, then for each step where its move and where its slip ended."""
        tiles = [self.start]
        for action, outcome in zip(walk.actions.tolist(), walk.outcomes.tolist(), strict=True):
            post, _ = decide(self.tables, tiles[-1], action)
            following, _ = realise(self.tables, post, outcome)
            tiles += [int(post), int(following)]
        return tiles

    @cached_property
    def _lower_bound(self) -> float:
        best = luckiest_return(self.tables, self.start, self.horizon)
        return -(best + 1e-9 * max(1.0, abs(best)))

    def lower_bound(self) -> float:
        """Negative return of the luckiest walk there is, rounded down: below every walk and every policy."""
        return self._lower_bound

    def best_known(self) -> Bounds | None:
        """Expected objective of the best policy, for lakes of the library. A lucky walk may be better."""
        return self.known_bounds

    def to_json(self) -> dict[str, Any]:
        """The instance as versioned JSON data; :meth:`from_json` reads it back."""
        return {
            "schema": SCHEMA,
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "tiles": list(self.tiles),
            "slip_directions": self.slip_directions.tolist(),
            "known_bounds": None if self.known_bounds is None else vars(self.known_bounds),
        }

    @classmethod
    def from_json(cls, data: Any, source: str | None = None) -> LakeInstance:
        """Read what ``to_json`` wrote. Raises InputError naming source, field and value otherwise."""
        schema = _schema(data)
        if schema != SCHEMA:
            raise InputError("not a lake", source=source, field="schema", value=schema, expected=SCHEMA)
        values = {f.name: data.get(f.name) for f in fields(cls)}
        if missing := [name for name, value in values.items() if value is None and name != "known_bounds"]:
            raise InputError("missing field", source=source, field=missing[0], expected="a value")
        tiles, known = values["tiles"], values["known_bounds"]
        if not isinstance(tiles, list) or not all(isinstance(row, str) for row in tiles):
            raise InputError("bad map", source=source, field="tiles", value=tiles, expected="a list of strings")
        values["tiles"] = tuple(tiles)
        values["slip_directions"] = _array(data, "slip_directions", np.float64, 2, source)
        try:
            values["known_bounds"] = None if known is None else Bounds(**known)
            return cls(**values)
        except TypeError as error:
            raise InputError("bad value", source=source, value=str(error), expected="what to_json wrote") from error
        except InputError as error:
            raise InputError(
                error.problem, source=source, field=error.field, value=error.value, expected=error.expected
            ) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LakeInstance:
        """Read a JSON file. Raises InputError."""
        path = Path(path)
        return cls.from_json(read_json(path, largest=LARGEST_FILE, expected=f"JSON with {SCHEMA}"), str(path))


def _schema(data: Any) -> Any:
    return data.get("schema") if isinstance(data, dict) else type(data).__name__


def _array(data: Any, name: str, dtype: type, n_axes: int, source: str | None) -> npt.NDArray[Any]:
    kinds = "iu" if dtype is np.int64 else "iuf"
    try:
        array = np.array(data[name])
    except (KeyError, ValueError) as error:
        raise InputError("missing or ragged", source=source, field=name, expected=f"{n_axes} axes") from error
    if array.ndim == n_axes and (array.size == 0 or array.dtype.kind in kinds):
        return array.astype(dtype)
    expected = f"{np.dtype(dtype).name} with {n_axes} axes"
    raise InputError("bad array", source=source, field=name, value=data[name], expected=expected)


def _validate(lake: LakeInstance) -> None:
    def refuse(field: str, value: Any, expected: str) -> InputError:
        return InputError("bad value", source=lake.name, field=field, value=value, expected=expected)

    rows = lake.tiles
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise refuse("tiles", rows, "rows of equal length, at least one letter")
    letters = "".join(rows)
    if set(letters) - set("SFHG") or letters.count("S") != 1 or letters.count("G") != 1:
        raise refuse("tiles", rows, "letters S, F, H and G with one S and one G")
    if len(letters) > LARGEST_MAP:
        raise refuse("tiles", len(letters), f"at most {LARGEST_MAP} tiles")
    chances = lake.slip_directions
    if not isinstance(chances, np.ndarray) or chances.dtype != np.float64 or chances.shape != (len(letters), N_ACTIONS):
        raise refuse("slip_directions", getattr(chances, "shape", chances), f"float64[{len(letters)}, {N_ACTIONS}]")
    if not (np.isfinite(chances).all() and (chances >= 0).all() and np.allclose(chances.sum(1), 1.0, atol=1e-9)):
        raise refuse("slip_directions", float(chances.min()), "probabilities that add up to 1 in every row")
    if not isinstance(lake.slip_probability, int | float) or not 0.0 <= lake.slip_probability <= 1.0:
        raise refuse("slip_probability", lake.slip_probability, "0..1")
    if type(lake.horizon) is not int or lake.horizon < 1:
        raise refuse("horizon", lake.horizon, "an int >= 1")
    if lake.reward not in get_args(Reward):
        raise refuse("reward", lake.reward, " or ".join(get_args(Reward)))


# ---- checking -------------------------------------------------------------------------------------------------------
def _check_policy(lake: LakeInstance, policy: LakePolicy) -> Check:
    actions = policy.actions
    if actions.ndim != 2 or actions.shape[1] != lake.n_tiles or actions.shape[0] not in (1, lake.horizon):
        expected = f"[1, {lake.n_tiles}] or [{lake.horizon}, {lake.n_tiles}]"
        return Check(False, None, (f"the policy has shape {list(actions.shape)} instead of {expected}",))
    if actions.size and not ((actions >= 0) & (actions < N_ACTIONS)).all():
        return Check(False, None, (f"the policy has actions outside 0..{N_ACTIONS - 1}",))
    value, _ = policy_value(lake.tables, actions, lake.horizon)
    return Check(True, -float(value[lake.start]))


def _check_walk(lake: LakeInstance, walk: LakeWalk) -> Check:
    tables, problems = lake.tables, []
    if walk.actions.ndim != 1 or walk.actions.shape != walk.outcomes.shape:
        shapes = f"{list(walk.actions.shape)} and {list(walk.outcomes.shape)}"
        return Check(False, None, (f"actions and outcomes have shapes {shapes}",))
    if len(walk.actions) > lake.horizon:
        problems.append(f"{len(walk.actions)} steps, but the horizon is {lake.horizon}")
    tile, total = lake.start, 0.0
    for t, (action, outcome) in enumerate(zip(walk.actions.tolist(), walk.outcomes.tolist(), strict=True)):
        if not 0 <= action < N_ACTIONS or not 0 <= outcome <= STAY:
            return Check(False, None, (*problems, f"step {t}: action {action} with outcome {outcome} does not exist"))
        if tables.ends[tile]:
            return Check(False, None, (*problems, f"step {t}: the walk ended on tile {tile} before"))
        post, deterministic = decide(tables, tile, action)
        if not tables.possible[post, outcome]:
            problems.append(f"step {t}: outcome {outcome} on tile {post} cannot happen")
        tile, stochastic = realise(tables, post, outcome)
        total += float(deterministic + stochastic)
    return Check(not problems, -total, tuple(problems[:24]))
