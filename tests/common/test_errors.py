"""Error messages: nearest names."""

from __future__ import annotations

import pytest

from orl.common.errors import UnknownNameError

KNOWN = ["ft06", "la01", "la11", "mk01", "ta01", "ta11", "abz5", "CartPole-v1"]


@pytest.mark.parametrize(
    ("name", "nearest"), [("TA01", "ta01"), ("La11", "la11"), ("ABZ-5", "abz5"), ("cartpole-v1", "CartPole-v1")]
)
def test_the_nearest_name_is_found_in_any_case(name: str, nearest: str) -> None:
    error = UnknownNameError("instance", name, KNOWN)
    assert error.matches[0] == nearest
    assert f"did you mean {nearest!r}" in str(error)


def test_names_that_are_nothing_like_it_are_not_offered() -> None:
    error = UnknownNameError("instance", "zzzzzz", KNOWN)
    assert error.matches == []
    assert "did you mean" not in str(error)
