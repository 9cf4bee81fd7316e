"""The step on the lake: by hand, in numpy, in the kernel, and in expectation."""

from __future__ import annotations

import numpy as np
import pytest

from orl.common import counter_noise
from orl.envs.frozen_lake import kernel
from orl.envs.frozen_lake.generators import slip_table
from orl.envs.frozen_lake.instance import LakeInstance
from orl.envs.frozen_lake.library import load
from orl.envs.frozen_lake.transition import (
    STAY,
    decide,
    expected_reward,
    expected_value,
    luckiest_return,
    outcome,
    policy_value,
    realise,
)

LEFT, DOWN, RIGHT, UP = range(4)
# S F     tiles 0 1
# H G           2 3
SMALL = LakeInstance("small", ("SF", "HG"), np.array([[0.1, 0.2, 0.3, 0.4]] * 4), slip_probability=0.5, horizon=4)


def test_a_move_stops_at_the_wall_and_earns_its_nearness_to_the_goal() -> None:
    posts, rewards = decide(SMALL.tables, np.array([0, 0, 0, 0, 1]), np.array([LEFT, DOWN, RIGHT, UP, DOWN]))
    assert posts.tolist() == [0, 2, 1, 0, 3]
    assert rewards.tolist() == [1 / 3, 1 / 2, 1 / 2, 1 / 3, 1.0]


def test_a_slip_earns_its_arrival_and_a_hole_costs() -> None:
    hole = -1 / 4
    posts, outcomes = np.array([1, 1, 2, 2, 2, 1, 3]), np.array([STAY, LEFT, STAY, UP, LEFT, RIGHT, LEFT])
    following, rewards = realise(SMALL.tables, posts, outcomes)
    assert following.tolist() == [1, 0, 2, 0, 2, 1, 3]  # the wall holds a slip; nobody slips off the goal
    expected = [0.0, 1 / 3, hole, hole + 1 / 3, hole + 1 / 2 + hole, 1 / 2, 0.0]
    np.testing.assert_allclose(rewards, expected)


def test_sparse_rewards_come_at_the_goal_alone() -> None:
    tables = SMALL.with_reward("sparse").tables
    assert decide(tables, 1, DOWN) == (3, 1.0)
    assert decide(tables, 0, RIGHT) == (1, 0.0)
    assert realise(tables, 1, DOWN) == (3, 1.0)
    assert realise(tables, 3, STAY) == (3, 0.0)
    assert realise(tables, 2, STAY) == (2, 0.0)


def test_outcomes_follow_their_probabilities() -> None:
    tables = SMALL.tables
    assert outcome(tables, 0, np.array([0.0, 0.049, 0.06, 0.149, 0.2, 0.31, 0.499, 0.5, 0.999])).tolist() == [
        *[LEFT] * 2,
        *[DOWN] * 2,
        RIGHT,
        UP,
        UP,
        STAY,
        STAY,
    ]


@pytest.mark.parametrize("directions", [[0.0, 1.0, 0.0, 0.0], [0.1, 0.2, 0.7, 0.0], [1 / 3, 1 / 3, 1 / 3, 0.0]])
@pytest.mark.parametrize("slip", [0.0, 0.3, 1.0])
def test_what_cannot_happen_never_does(directions, slip) -> None:
    tables = LakeInstance("x", ("SF", "HG"), np.array([directions] * 4), slip_probability=slip).tables
    numbers = np.concatenate([np.linspace(0.0, 1.0, 1000, endpoint=False), [np.nextafter(slip, 0.0), 1 - 2**-53]])
    numbers = numbers[(numbers >= 0) & (numbers < 1)]
    drawn = set(outcome(tables, 0, numbers).tolist())
    assert drawn == set(np.flatnonzero(tables.possible[0]).tolist())


def test_expectations_are_the_means_of_all_outcomes() -> None:
    lake = load("lake-10x10-3")
    tables, value = lake.tables, np.random.default_rng(0).normal(size=100)
    probabilities = np.column_stack([0.5 * tables.directions, np.full(100, 0.5)])
    following, rewards = realise(tables, np.arange(100)[:, None], np.arange(5))
    np.testing.assert_allclose(expected_reward(tables), (probabilities * rewards).sum(1), atol=1e-14)
    np.testing.assert_allclose(expected_value(tables, value), (probabilities * value[following]).sum(1), atol=1e-14)


def test_the_kernel_equals_numpy_bit_for_bit() -> None:
    tables, n, rng = load("lake-8x8").tables, 500, np.random.default_rng(0)
    slips = tables.neighbours, tables.surprise, tables.arrival, tables.thresholds, tables.goal
    keys = rng.integers(0, 2**64, n, dtype=np.uint64)
    tile, period = rng.integers(0, 64, n), rng.integers(0, 100, n)
    actions, active = rng.integers(0, 4, n), rng.random(n) < 0.8
    before = tile.copy(), period.copy()
    post, seen = np.full(n, -1), np.full(n, -1)
    deterministic, stochastic = np.full(n, np.nan), np.full(n, np.nan)
    kernel.step_batch(
        active, actions, keys, tables.neighbours, tables.decided, *slips[1:],
        tile, period, post, seen, deterministic, stochastic,
    )  # fmt: skip
    expected, reward = decide(tables, before[0], actions)
    drawn = outcome(tables, expected, counter_noise.uniform(keys, before[1]))
    following, rest = realise(tables, expected, drawn)
    for got, wanted, kept in (
        (post, expected, -1),
        (seen, drawn, -1),
        (deterministic, reward, np.nan),
        (stochastic, rest, np.nan),
        (tile, following, before[0]),
        (period, before[1] + 1, before[1]),
    ):
        np.testing.assert_array_equal(got, np.where(active, wanted, kept))

    further, rewards = np.empty((n, 2, 3), np.int64), np.empty((n, 2, 3))
    posts = rng.integers(0, 64, (n, 2))
    kernel.draw_batch(posts, keys, period, *slips, further, rewards)
    numbers = counter_noise.uniform(keys[:, None, None], period[:, None, None], 0, np.arange(1, 4))
    drawn = outcome(tables, posts[..., None], np.broadcast_to(numbers, (n, 2, 3)))
    following, rest = realise(tables, posts[..., None], drawn)
    np.testing.assert_array_equal(further, following)
    np.testing.assert_array_equal(rewards, rest)


def test_the_value_of_a_policy_is_what_it_earns_on_average() -> None:
    """By hand on the small lake: always right, then down from tile 1, with two steps to go."""
    actions = np.array([[RIGHT, DOWN, LEFT, LEFT]])
    value, success = policy_value(SMALL.tables, actions, 2)
    assert success[1] == 1.0  # down from tile 1 is the goal
    # From 0: to tile 1, earning 1/2; stays there (0.5) or slips: left 0.05 to 0, down 0.1 to the goal, right 0.15 and
    # up 0.2 into the wall. Then tile 1 earns 1, and tile 0 as in a last step.
    last = 1 / 2 + 0.05 * 1 / 3 + 0.1 * 1 + 0.35 * 1 / 2
    assert value[0] == pytest.approx(last + 0.05 * last + 0.1 * 0 + 0.85 * 1)
    assert success[0] == pytest.approx(0.05 * 0.1 + 0.1 + 0.85)
    assert value[2] == value[3] == success[2] == 0.0
    assert success[3] == 1.0


def test_no_walk_is_luckier_than_the_luckiest() -> None:
    """All walks of three steps on the small lake."""
    best, tables = -np.inf, SMALL.tables

    def extend(tile: int, steps: int, total: float) -> None:
        nonlocal best
        best = max(best, total)
        if steps == 0 or tables.ends[tile]:
            return
        for action in range(4):
            post, reward = decide(tables, tile, action)
            for what in range(5):
                following, rest = realise(tables, post, what)
                extend(int(following), steps - 1, total + float(reward + rest))

    extend(0, 3, 0.0)
    assert luckiest_return(tables, 0, 3) == pytest.approx(best)


def test_a_lake_that_never_slips_is_as_lucky_as_its_moves() -> None:
    lake = LakeInstance("dry", ("SF", "HG"), slip_table(4), slip_probability=0.0, horizon=5)
    # Four steps to the right (one into the wall at a time), each 1/2, and the goal at last.
    assert luckiest_return(lake.tables, 0, 5) == pytest.approx(4 * 0.5 + 1.0)
