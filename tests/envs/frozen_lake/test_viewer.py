"""Pictures of lakes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.frozen_lake.instance import LakePolicy, LakeWalk
from orl.envs.frozen_lake.library import load
from orl.envs.frozen_lake.viewer import lake_rgb, save_picture

WALK = LakeWalk(np.array([2, 1]), np.array([4, 4]))
POLICY = LakePolicy(np.full((1, 16), 2))


def test_a_walk_and_a_policy_are_drawn_on_the_map() -> None:
    lake = load("lake-4x4")
    empty, walk, policy = (lake_rgb(lake, solution) for solution in (None, WALK, POLICY))
    assert empty.dtype == np.uint8
    assert empty.shape == walk.shape == policy.shape
    assert all(side % 2 == 0 for side in empty.shape[:2])
    assert (empty != walk).any()
    assert (empty != policy).any()
    # Colours of the first row's tiles, off their centres: start, frozen, frozen, frozen; of the second: a hole at 1.
    side = empty.shape[0] // 4
    assert empty[5, 5].tolist() == [0xEE, 0xDD, 0x88]
    assert empty[side + 5, side + 5].tolist() == [0x33, 0x55, 0x77]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_pictures_are_written(tmp_path, suffix) -> None:
    path = tmp_path / f"lake{suffix}"
    save_picture(load("lake-4x4"), WALK, path)
    assert path.stat().st_size > 500


def test_other_suffixes_and_other_solutions_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="png"):
        save_picture(load("lake-4x4"), WALK, tmp_path / "lake.bmp")
    with pytest.raises(InputError, match="not a solution"):
        save_picture(load("lake-8x8"), POLICY, tmp_path / "lake.png")
    assert not list(tmp_path.iterdir())


def test_envs_render_the_walk_so_far() -> None:
    env = gymnasium.make("orl:orl/PostDecisionFrozenLake-v0", instance="lake-4x4", render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(1)
    assert (env.render() != before).any()
    envs = gymnasium.make_vec("orl:orl/PostDecisionFrozenLake-v0", 2, instance="lake-4x4", render_mode="rgb_array")
    envs.reset(seed=0)
    np.testing.assert_array_equal(envs.render()[0], before)
