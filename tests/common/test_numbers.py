"""Numbers from anywhere become arrays, or one error that names the place."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from orl.common.errors import InputError
from orl.common.numbers import floats, integers, numbers

SIZES = arrays.array_shapes(min_dims=0, max_dims=3, max_side=4)


@given(SIZES.flatmap(lambda shape: arrays.arrays(np.int64, shape, elements=st.integers(-50, 50))))
def test_lists_and_arrays_mean_the_same(array: np.ndarray) -> None:
    from_lists = numbers(array.tolist(), "table", array.shape, integer=True, low=-50, high=50)
    from_array = numbers(array, "table", None, integer=True, low=-50, high=50)
    np.testing.assert_array_equal(from_lists, array)
    np.testing.assert_array_equal(from_array, array)
    assert from_lists.dtype == from_array.dtype == np.int64
    assert not np.shares_memory(from_array, array)


@pytest.mark.parametrize(
    ("value", "shape", "place", "reason"),
    [
        ([[1, 2], [3, math.nan]], (2, 2), "table[1][1]", "bad number"),
        ([[1, 2], [3]], (2, 2), "table[1]", "wrong shape"),
        ([1, True], (2,), "table[1]", "not a number"),
        ([1, "2"], (2,), "table[1]", "not a number"),
        ([1, None], (2,), "table[1]", "not a number"),
        ([1, 10**400], (2,), "table[1]", "bad number"),
        ([1, 2, 3], (2,), "table", "wrong shape"),
        ([[[[1]]]], None, "table", "too large"),
        (np.array(["a"]), (1,), "table", "not numbers"),
        ([], (None,), "table", "wrong shape"),
    ],
)
def test_what_is_wrong_is_named(value, shape, place, reason) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        floats(value, "table", shape, source="case.json")
    assert f"case.json, {place}:" in str(caught.value)


def test_whole_numbers_may_be_written_as_floats_and_nothing_else() -> None:
    assert integers(6.0, "size", (), low=0, high=9)[()] == 6
    with pytest.raises(InputError, match=r"a whole number in 0\.\.9"):
        integers(6.5, "size", (), low=0, high=9)


def test_none_stands_for_an_infinity_where_it_may() -> None:
    assert floats([1.0, None], "limit", (2,), low=0, none=math.inf).tolist() == [1.0, math.inf]
    with pytest.raises(InputError, match="bad number"):
        floats([1.0, -math.inf], "limit", (2,), low=0, none=math.inf)


def test_an_empty_list_is_an_empty_table_of_the_wanted_width() -> None:
    assert floats([], "rows", (0, 3)).shape == (0, 3)
