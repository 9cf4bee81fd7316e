"""Masks in SB3's layout over the maskable action spaces."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from orl.common.action_masks import is_legal, mask_width, random_legal_actions, split_masks


@pytest.mark.parametrize(
    "space, width",
    [(spaces.Discrete(4), 4), (spaces.Discrete(4, start=2), 4), (spaces.MultiDiscrete([2, 3]), 5)],
)
def test_random_actions_are_legal_and_reach_every_legal_one(space, width) -> None:
    assert mask_width(space) == width
    rng = np.random.default_rng(0)
    masks = rng.random((2000, width)) < 0.5
    for part in split_masks(space, masks):
        part[~part.any(1), 0] = True
    actions = random_legal_actions(space, masks, rng)
    assert actions.dtype == np.int64
    assert all(is_legal(space, mask, action) for mask, action in zip(masks, actions, strict=True))
    assert all(space.contains(action) for action in actions)
    free = random_legal_actions(space, np.ones((500, width), bool), rng)
    assert len(np.unique(free.reshape(500, -1), axis=0)) == (4 if width == 4 else 6)


def test_illegal_and_outside_actions_are_told() -> None:
    mask = np.array([True, False, True])
    assert not is_legal(spaces.Discrete(3), mask, 1)
    assert not is_legal(spaces.Discrete(3), mask, 3)
    assert not is_legal(spaces.Discrete(3, start=1), mask, 2)
    assert is_legal(spaces.MultiBinary(2), np.array([True, False, False, True]), np.array([0, 1]))
    assert not is_legal(spaces.MultiBinary(2), np.array([True, False, False, True]), np.array([1, 1]))
    with pytest.raises(ValueError, match="Discrete"):
        mask_width(spaces.Box(0, 1))
