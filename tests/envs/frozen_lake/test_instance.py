"""Lakes as data: what they refuse, how they price walks and policies, and their files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from orl.common.errors import InputError, UnknownNameError
from orl.common.problem import Instance, Solution
from orl.envs.frozen_lake import generators
from orl.envs.frozen_lake.generators import has_way, random_lake, slip_table
from orl.envs.frozen_lake.instance import LakeInstance, LakePolicy, LakeWalk, solution_from_json
from orl.envs.frozen_lake.library import load, names

LEFT, DOWN, RIGHT, UP, STAY = range(5)
SMALL = LakeInstance("small", ("SF", "HG"), np.array([[0.0, 0.3, 0.3, 0.4]] * 4), horizon=3)


def walk(*steps) -> LakeWalk:
    actions, outcomes = zip(*steps, strict=True)
    return LakeWalk(np.array(actions), np.array(outcomes))


def test_a_walk_is_priced_by_its_arrivals() -> None:
    to_the_goal = walk((RIGHT, UP), (DOWN, STAY))
    check = SMALL.check(to_the_goal)
    assert check.feasible
    assert check.objective == pytest.approx(-(1 / 2 + 1 / 2 + 1))
    assert SMALL.success(to_the_goal) == 1.0
    assert SMALL.replay(to_the_goal) == [0, 1, 1, 3, 3]
    through_the_hole = walk((DOWN, UP))
    assert SMALL.check(through_the_hole).objective == pytest.approx(-(1 / 2 - 1 / 4 + 1 / 3))
    assert SMALL.success(through_the_hole) == 0.0


@pytest.mark.parametrize(
    "steps, message",
    [
        ([(RIGHT, STAY)] * 4, "the horizon is 3"),
        ([(DOWN, STAY), (RIGHT, STAY)], "ended on tile 2 before"),
        ([(RIGHT, LEFT)], "cannot happen"),
        ([(4, STAY)], "does not exist"),
        ([(RIGHT, 5)], "does not exist"),
        ([(-1, STAY)], "does not exist"),
    ],
)
def test_an_impossible_walk_is_refused_with_its_reason(steps, message) -> None:
    check = SMALL.check(walk(*steps))
    assert not check.feasible
    assert message in check.violations[0]
    with pytest.raises(InputError, match=message):
        SMALL.success(walk(*steps))


def test_walks_and_policies_of_other_shapes_are_refused() -> None:
    assert not SMALL.check(LakeWalk(np.zeros(2, np.int64), np.zeros(3, np.int64))).feasible
    assert not SMALL.check(LakePolicy(np.zeros((2, 4), np.int64))).feasible
    assert not SMALL.check(LakePolicy(np.zeros((3, 5), np.int64))).feasible
    assert not SMALL.check(LakePolicy(np.full((3, 4), 4))).feasible


def test_a_policy_is_priced_by_the_mean_of_its_episodes() -> None:
    lake, rng = load("lake-4x4"), np.random.default_rng(0)
    policy = LakePolicy(rng.integers(0, 4, (1, 16)))
    stretched = LakePolicy(np.repeat(policy.actions, lake.horizon, 0))
    assert lake.check(policy).objective == lake.check(stretched).objective
    from orl.envs.frozen_lake.vector import PostDecisionFrozenLakeVectorEnv

    envs = PostDecisionFrozenLakeVectorEnv(4000, lake, autoreset_mode="NEXT_STEP")
    obs, _ = envs.reset(seed=0)
    objectives, successes = np.full(4000, np.nan), np.zeros(4000)
    while np.isnan(objectives).any():
        obs, _, terminated, truncated, infos = envs.step(policy.actions[0, obs.argmax(1)])
        for b in np.flatnonzero((terminated | truncated) & np.isnan(objectives)):
            objectives[b], successes[b] = infos["objective"][b], infos["success"][b]
    error = objectives.std() / np.sqrt(4000)
    assert abs(objectives.mean() - lake.check(policy).objective) < 4 * error
    assert abs(successes.mean() - lake.success(policy)) < 4 * 0.5 / np.sqrt(4000)


def test_the_bound_is_below_walks_and_policies() -> None:
    lake = load("lake-4x4")
    assert isinstance(lake, Instance)
    assert lake.lower_bound() <= lake.best_known().lower
    luckiest = SMALL.check(walk((RIGHT, RIGHT), (RIGHT, RIGHT), (RIGHT, DOWN)))
    assert luckiest.feasible
    assert SMALL.lower_bound() == pytest.approx(luckiest.objective)
    assert SMALL.lower_bound() <= luckiest.objective


@pytest.mark.parametrize(
    "field, value",
    [
        ("tiles", ()),
        ("tiles", ("SF", "H")),
        ("tiles", ("SX", "HG")),
        ("tiles", ("SS", "HG")),
        ("tiles", ("SF", "HF")),
        ("slip_directions", np.ones((4, 4))),
        ("slip_directions", np.full((4, 4), np.nan)),
        ("slip_directions", np.full((3, 4), 0.25)),
        ("slip_directions", np.array([[-0.5, 0.5, 0.5, 0.5]] * 4)),
        ("slip_probability", 1.5),
        ("slip_probability", "half"),
        ("horizon", 0),
        ("horizon", 2.0),
        ("reward", "dense"),
    ],
)
def test_bad_fields_are_named(field, value) -> None:
    with pytest.raises(InputError, match=field):
        replace(SMALL, **{field: value})


def test_an_instance_cannot_be_written() -> None:
    with pytest.raises(ValueError):
        load("lake-4x4").slip_directions[0, 0] = 1.0


def test_json_gives_the_same_lake_and_the_same_solutions(tmp_path) -> None:
    lake = load("lake-10x10-2")
    file = tmp_path / "lake.json"
    file.write_text(json.dumps(lake.to_json()))
    again = load(file)
    assert again.to_json() == lake.to_json()
    policy = LakePolicy(np.random.default_rng(0).integers(0, 4, (1, 100)))
    for solution in (policy, walk((RIGHT, STAY), (DOWN, STAY))):
        assert isinstance(solution, Solution)
        data = json.loads(json.dumps(solution.to_json()))
        assert again.check(solution_from_json(data)) == lake.check(solution)


@pytest.mark.parametrize(
    "change, field",
    [
        ({"schema": "other"}, "schema"),
        ({"tiles": None}, "tiles"),
        ({"tiles": "SFHG"}, "tiles"),
        ({"slip_directions": [[1.0], [0.5, 0.5]]}, "slip_directions"),
        ({"slip_directions": "many"}, "slip_directions"),
        ({"horizon": "long"}, "horizon"),
        ({"known_bounds": {"lower": 1}}, "what to_json wrote"),
    ],
)
def test_a_broken_file_is_named_with_its_field(tmp_path, change, field) -> None:
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(SMALL.to_json() | change))
    with pytest.raises(InputError, match=field) as caught:
        load(file)
    assert "broken.json" in str(caught.value)


def test_a_broken_solution_is_refused() -> None:
    for data in ({}, [], {"schema": "orl.frozen_lake.walk/1"}, {"schema": "orl.frozen_lake.policy/1", "actions": [1]}):
        with pytest.raises(InputError):
            solution_from_json(data, "somewhere")


# ---- library and generators -----------------------------------------------------------------------------------------
def test_every_name_loads_and_an_unknown_one_gets_advice() -> None:
    for name in names():
        lake = load(name)
        assert lake.name == name
        assert lake.horizon == 100
        assert has_way(lake.tiles)
        assert lake.best_known() is not None
    with pytest.raises(UnknownNameError, match="lake-4x4"):
        load("lake-4x5")


def test_the_published_slip_directions_are_drawn_again() -> None:
    """Legacy seed 42, one Dirichlet draw a tile: also for smaller lakes the same first rows."""
    table = slip_table(100)
    np.testing.assert_allclose(table[0], [0.082197, 0.527252, 0.230641, 0.159911], atol=5e-7)
    np.testing.assert_array_equal(slip_table(16), table[:16])
    assert load("lake-10x10-1").tiles[0] == "SHFHFFHFFF"


def test_random_lakes_have_a_way_and_repeat_under_their_seed(monkeypatch) -> None:
    lakes = [random_lake(6, seed, frozen=0.6) for seed in range(20)]
    assert all(has_way(lake.tiles) for lake in lakes)
    assert len({lake.tiles for lake in lakes}) == 20
    assert random_lake(6, 3, frozen=0.6).to_json() == lakes[3].to_json()
    with pytest.raises(InputError, match="size"):
        random_lake(1)
    with pytest.raises(InputError, match="frozen"):
        random_lake(4, frozen=0.0)
    monkeypatch.setattr(generators, "_ATTEMPTS", 10)
    with pytest.raises(InputError, match="no map with a way"):
        random_lake(40, frozen=0.05)


def test_a_way_goes_around_holes_not_through_them() -> None:
    assert has_way(("SFF", "HHF", "GFF"))
    assert not has_way(("SFF", "HHH", "GFF"))
