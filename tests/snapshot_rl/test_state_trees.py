"""Trees of values go through arrays and come back bit for bit; nothing else passes."""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from typing import NamedTuple

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from orl.common.errors import InputError
from orl.common.problem import Bounds
from orl.snapshot_rl.state_trees import pack, same_bits, unpack

ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int8, np.uint64, np.bool_, np.complex128, "U3"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**140), 2**140)
    | st.floats(allow_nan=True)
    | st.text(max_size=5)
    | ARRAYS
    | ARRAYS.filter(lambda a: a.size > 0).map(lambda a: a.ravel()[0])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def through_a_file(trees):
    file = io.BytesIO()
    np.savez_compressed(file, **pack(trees))
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return unpack({name: arrays[name] for name in arrays.files})


def types(tree):
    if isinstance(tree, dict):
        return [(key, types(value)) for key, value in tree.items()]
    if isinstance(tree, list | tuple):
        return type(tree), [types(item) for item in tree]
    return type(tree), getattr(tree, "dtype", None), getattr(tree, "shape", None)


def bits(tree):
    """The tree with exact texts in place of its leaves."""
    if isinstance(tree, dict):
        return {key: bits(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [bits(item) for item in tree]
    if isinstance(tree, float) and not isinstance(tree, np.generic):
        return struct.pack("d", tree)
    return tree.tobytes() if isinstance(tree, np.ndarray | np.generic) else repr(tree)


@settings(max_examples=60, deadline=None)
@given(st.lists(TREES, max_size=4))
def test_trees_come_back_bit_for_bit(trees) -> None:
    back = through_a_file(trees)
    assert types(back) == types(trees)
    assert bits(back) == bits(trees)


def test_same_bits_tells_values_types_and_signs_apart() -> None:
    assert same_bits({"x": float("nan")}, {"x": float("nan")})
    for a, b in ((0.0, -0.0), (1, 1.0), (True, 1), ((1,), [1]), (np.float32(1), np.float64(1)), ("a", "b")):
        assert not same_bits(a, b)


def test_generators_keep_their_place() -> None:
    for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox):
        rng = np.random.Generator(kind(3))
        rng.random(5)
        [back] = through_a_file([{"rng": rng}])
        assert back["rng"].random() == rng.random()


def test_instances_are_stored_once() -> None:
    from orl.envs.job_shop.library import load

    one, equal = load("ft06"), load("ft06")
    packed = pack([{"instance": one}, {"instance": one}, {"instance": equal}])
    assert len(json.loads(bytes(packed["head"]))["objects"]) == 1
    first, second, third = unpack(packed)
    assert first["instance"] is second["instance"] is third["instance"]
    assert first["instance"].same_as(one)


def test_frozen_dataclasses_of_the_house_are_rebuilt_by_name() -> None:
    bounds = Bounds(1.0, 2.0, "a table", "2026-01-01")
    [back] = through_a_file([{"bounds": bounds}])
    assert back == {"bounds": bounds}


class Foreign(NamedTuple):
    x: int


@pytest.mark.parametrize(
    "tree, where, kind",
    [
        ({"a": [1, Fraction(1, 2)]}, r"state 1\['a'\]\[1\]", "fractions.Fraction"),
        ((Foreign(1),), r"state 1\[0\]", "Foreign"),
        ({"a": np.array([None])}, r"state 1\['a'\]", "ndarray of object"),
        ({(1, 2): 3}, "a key of state 1", "tuple"),
        ({"a": {1, 2}}, r"state 1\['a'\]", "set"),
    ],
)
def test_anything_else_is_refused_with_its_type_and_place(tree, where, kind) -> None:
    with pytest.raises(InputError, match=rf"{where}.*type: cannot be stored in a file \(got '[^']*{kind}"):
        pack([0, tree])


@pytest.mark.parametrize("name", ["os:system", "orl.common.atomic:os.remove", "orl.registry:resolve", "orl:nothing"])
def test_a_file_can_name_no_other_code(name) -> None:
    packed = pack([0])
    head = json.loads(bytes(packed["head"]))
    for node in ({"named": [name, []]}, {"dataclass": [name, []]}):
        head["skeletons"] = [node]
        with pytest.raises(InputError):
            unpack(packed | {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)})
    head |= {"skeletons": ["int"], "objects": [[name, {}]]}
    with pytest.raises(InputError):
        unpack(packed | {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)})


def test_damaged_arrays_are_an_error_of_input() -> None:
    packed = pack([{"x": np.arange(3)}, 5])
    for broken in (
        {k: v for k, v in packed.items() if k != "sizes"},
        packed | {"integers": np.zeros(0, np.int64)},
        packed | {"pool_0": np.zeros(1, np.int64)},
        packed | {"head": np.frombuffer(b"{}", np.uint8)},
    ):
        with pytest.raises(InputError):
            unpack(broken, "a.npz")
