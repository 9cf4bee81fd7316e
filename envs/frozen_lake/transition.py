"""One step on the lake as functions of arrays: the move, then the slip; and both in expectation.

This is the numpy oracle of :mod:`orl.envs.frozen_lake.kernel`. All functions take tiles of any common shape.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Reward = Literal["shaped", "sparse"]
MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))
"""Rows and columns of the actions 0 left, 1 down, 2 right, 3 up; slips take the same directions."""
N_ACTIONS = len(MOVES)
STAY = N_ACTIONS
"""Outcome 4: no slip. Outcomes 0..3: a slip in that direction."""


class LakeTables(NamedTuple):
    """What a step reads, for S tiles counted row by row.

    Attributes:
        neighbours: int64[S, 4], where a move ends; walls hold.
        decided: float64[S], deterministic share of the reward of a move to that tile.
        surprise: float64[S], the rest of the reward of arriving there by a move (a hole's penalty).
        arrival: float64[S], reward of arriving there by a slip.
        ends: bool[S], holes and the goal.
        thresholds: float64[S, 4], cumulated slip probabilities: a uniform number below the first that it does not
            reach slips that way; one that reaches all stays.
        directions: float64[S, 4], probabilities of the direction of a slip.
        slip: Probability of a slip.
        goal: Tile of the goal.
    """

    neighbours: Integers
    decided: Floats
    surprise: Floats
    arrival: Floats
    ends: Flags
    thresholds: Floats
    directions: Floats
    slip: float
    goal: int

    @property
    def possible(self) -> Flags:
        """bool[S, 5], outcomes that can happen after a move to the tile."""
        stays = np.full((len(self.ends), 1), self.slip < 1.0)
        return np.concatenate([self.slip * self.directions > 0.0, stays], axis=1)


def make_tables(tiles: tuple[str, ...], slip_directions: Floats, slip_probability: float, reward: Reward) -> LakeTables:
    """The tables of a map of letters S, F, H, G."""
    letters = np.array([list(row) for row in tiles])
    n_rows, n_columns = letters.shape
    row, column = np.divmod(np.arange(letters.size), n_columns)
    moves = np.array(MOVES)
    neighbours = np.clip(row[:, None] + moves[:, 0], 0, n_rows - 1) * n_columns
    neighbours += np.clip(column[:, None] + moves[:, 1], 0, n_columns - 1)
    hole, goal = (letters == "H").ravel(), int(np.flatnonzero(letters.ravel() == "G")[0])
    at_goal = np.arange(letters.size) == goal
    if reward == "sparse":
        decided = at_goal.astype(np.float64)
        surprise = np.zeros(letters.size)
    else:
        distance = np.abs(row - row[goal]) + np.abs(column - column[goal])
        decided = 1.0 / (1.0 + distance)
        surprise = np.where(hole, -1.0 / (n_rows + n_columns), 0.0)
    thresholds = slip_probability * np.cumsum(slip_directions, axis=1)
    last = N_ACTIONS - 1 - np.argmax(slip_directions[:, ::-1] > 0.0, axis=1)  # rounding must not pass it by
    thresholds[np.arange(N_ACTIONS) >= last[:, None]] = slip_probability
    ends, arrival = hole | at_goal, decided + surprise
    return LakeTables(
        neighbours, decided, surprise, arrival, ends, thresholds, slip_directions, float(slip_probability), goal
    )


def decide(tables: LakeTables, tile: Any, action: Any) -> tuple[Any, Any]:
    """The tile that a move leads to (the post-decision state), and the deterministic share of the reward."""
    post = tables.neighbours[tile, action]
    return post, tables.decided[post]


def outcome(tables: LakeTables, post: Any, uniform: Any) -> Any:
    """What the lake does there: slip direction 0..3 or ``STAY``, for numbers uniform on [0, 1)."""
    return (np.asarray(uniform)[..., None] >= tables.thresholds[post]).sum(-1)


def realise(tables: LakeTables, post: Any, outcome: Any) -> tuple[Any, Any]:
    """The next tile and the stochastic share of the reward. Nobody slips off the goal."""
    slips = (np.asarray(outcome) != STAY) & (post != tables.goal)
    beside = tables.neighbours[post, np.where(slips, outcome, 0)]
    following = np.where(slips, beside, post)
    return following, np.where(slips, tables.surprise[post] + tables.arrival[following], tables.surprise[post])


# ---- expectations ---------------------------------------------------------------------------------------------------
def expected_reward(tables: LakeTables) -> Floats:
    """Mean stochastic share of the reward after a move to each tile, float64[S]."""
    slipping = tables.slip * (tables.directions * tables.arrival[tables.neighbours]).sum(1)
    return np.where(np.arange(len(slipping)) == tables.goal, 0.0, slipping) + tables.surprise


def expected_value(tables: LakeTables, value: Floats) -> Floats:
    """Mean of ``value`` float64[S] at the next tile after a move to each tile, float64[S]."""
    slipping = tables.slip * (tables.directions * value[tables.neighbours]).sum(1)
    mean = (1.0 - tables.slip) * value + slipping
    return np.where(np.arange(len(value)) == tables.goal, value, mean)


def policy_value(tables: LakeTables, actions: Integers, horizon: int) -> tuple[Floats, Floats]:
    """Expected return and probability of the goal from every tile with ``horizon`` steps to go, float64[S] each.

    Args:
        actions: int64[horizon, S], the action on every tile at every step; or int64[1, S], always the same.
    """
    tile, running = np.arange(len(tables.ends)), ~tables.ends
    mean = expected_reward(tables)
    value, success = np.zeros(len(tile)), (tile == tables.goal).astype(np.float64)
    for t in reversed(range(horizon)):
        post, reward = decide(tables, tile, actions[t if len(actions) > 1 else 0])
        value = np.where(running, reward + (mean + expected_value(tables, value))[post], value)
        success = np.where(running, expected_value(tables, success)[post], success)
    return value, success


def luckiest_return(tables: LakeTables, start: int, horizon: int) -> float:
    """The largest return that any actions and any possible outcomes give: no policy and no episode beats it."""
    tile = np.arange(len(tables.ends))
    following, rewards = realise(tables, tile[:, None], np.arange(N_ACTIONS + 1))
    possible = tables.possible
    value = np.zeros(len(tile))
    for _ in range(horizon):
        after = np.where(possible, rewards + value[following], -np.inf).max(1)
        value = np.where(tables.ends, 0.0, (tables.decided + after)[tables.neighbours].max(1))
    return float(value[start])
