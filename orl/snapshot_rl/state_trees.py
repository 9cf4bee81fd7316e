"""States as arrays and text: trees of Python values that go into a file, and come back bit for bit, without pickle.

A tree is made of

- numpy arrays and numpy scalars (no objects inside), Python numbers, strings, Booleans, None;
- tuples, lists and dicts (keys: strings or integers), named tuples and frozen dataclasses of orl;
- numpy Generators, of which the position in the stream is kept;
- instances of orl, which write themselves with ``to_json``; each is stored once, however many states refer to it.

:func:`pack` walks the trees and puts every leaf at the end of the stream of its kind; what is left is a skeleton, and
trees that differ in their leaves only share it. :func:`unpack` walks the skeletons and takes the leaves back in the
same order. Classes are found again by name, and only under ``orl.``: a file can name no other code.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError

SCHEMA = "orl.state_trees/1"
KEEPS = (
    "arrays, numbers, strings, None, tuples, lists, dicts with keys of strings or integers, numpy Generators, frozen "
    "dataclasses, named tuples and instances of orl"
)
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_ARRAY_KINDS = "biufcSU"
_DAMAGED = (LookupError, AttributeError, ImportError, StopIteration, RuntimeError)
_INT64 = range(-(2**63), 2**63)
Arrays = dict[str, npt.NDArray[Any]]


def pack(trees: Sequence[Any], name: str = "state") -> Arrays:
    """Trees as a few arrays without objects: those of a ``.npz`` file.

    Args:
        trees: See the module.
        name: What an error calls a tree.

    Raises:
        InputError: Something in a tree that is none of these; the message names its type and where it stands.

    >>> packed = pack([{"level": np.arange(3), "open": True}, {"level": np.arange(2), "open": False}])
    >>> unpack(packed)[1]
    {'level': array([0, 1]), 'open': False}
    """
    return _Packer(name).pack(trees)


def unpack(arrays: Mapping[str, npt.NDArray[Any]], source: str | None = None) -> list[Any]:
    """The trees that :func:`pack` was given; their arrays are views of those in ``arrays`` where they can be.

    Raises:
        InputError: Not what :func:`pack` wrote.
    """
    try:
        return _Unpacker(arrays, source).unpack()
    except (*_DAMAGED, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("cannot be read", source=source, value=str(error), expected=SCHEMA) from error


def same_bits(a: Any, b: Any) -> bool:
    """Whether two trees are the same to the last bit, types and dtypes included.

    >>> same_bits((0.0, [1]), (-0.0, [1])), same_bits({"x": np.zeros(2)}, {"x": np.zeros(2)})
    (False, True)
    """
    x, y = pack([a]), pack([b])
    return x.keys() == y.keys() and all(x[key].tobytes() == y[key].tobytes() for key in x)


class _Packer:
    def __init__(self, name: str) -> None:
        self.name = name
        self.skeletons: dict[str, int] = {}
        self.integers: list[int] = []
        self.floats: list[float] = []
        self.texts: list[Any] = []  # strings, and integers beyond 64 bits
        self.sizes: list[int] = []
        self.parts: dict[str, list[npt.NDArray[Any]]] = {}
        self.objects: list[tuple[str, Any]] = []
        self._places: dict[int, int] = {}
        self._texts_of_objects: dict[str, int] = {}
        self._held: list[Any] = []  # so that no id is used twice

    def pack(self, trees: Sequence[Any]) -> Arrays:
        kinds = np.empty(len(trees), np.int64)
        for i, tree in enumerate(trees):
            skeleton = json.dumps(self._node(tree, f"{self.name} {i}"), separators=(",", ":"))
            kinds[i] = self.skeletons.setdefault(skeleton, len(self.skeletons))
        head = {
            "schema": SCHEMA,
            "skeletons": [json.loads(text) for text in self.skeletons],
            "texts": self.texts,
            "objects": self.objects,
            "dtypes": list(self.parts),
        }
        pools = {f"pool_{i}": np.concatenate(parts) for i, parts in enumerate(self.parts.values())}
        return pools | {
            "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
            "kinds": kinds,
            "integers": np.array(self.integers, np.int64),
            "floats": np.array(self.floats, np.float64),
            "sizes": np.array(self.sizes, np.int64),
        }

    def _node(self, value: Any, path: str) -> Any:
        """The skeleton of a value; its leaves go into the streams."""
        kind = type(value)
        if value is None:
            return None
        if kind is bool:
            return "true" if value else "false"
        if kind is int:
            if value in _INT64:
                self.integers.append(value)
                return "int"
            self.texts.append(value)
            return "long"
        if kind is float:
            self.floats.append(value)
            return "float"
        if kind is str:
            self.texts.append(value)
            return "str"
        if kind is np.ndarray or isinstance(value, np.generic):
            return self._array(value, path)
        if kind is tuple or kind is list:
            return {kind.__name__: [self._node(item, f"{path}[{i}]") for i, item in enumerate(value)]}
        if kind is dict:
            return {
                "dict": [[self._key(key, path), self._node(item, f"{path}[{key!r}]")] for key, item in value.items()]
            }
        if kind is np.random.Generator and type(value.bit_generator).__name__ in BIT_GENERATORS:
            return {"generator": self._node(value.bit_generator.state, f"{path}.bit_generator.state")}
        if _is_ours(kind):
            return self._ours(value, path)
        raise self._refused(value, path)

    def _key(self, key: Any, path: str) -> Any:
        if type(key) not in (str, int):
            raise self._refused(key, f"a key of {path}")
        return key

    def _array(self, value: Any, path: str) -> str:
        array = np.asarray(value)
        if array.dtype.kind not in _ARRAY_KINDS:
            raise self._refused(value, path, f"{type(value).__name__} of {array.dtype}")
        self.parts.setdefault(array.dtype.str, []).append(array.ravel())
        if isinstance(value, np.generic):
            return f"scalar {array.dtype.str}"
        self.sizes.extend(array.shape)
        return f"array {array.dtype.str} {array.ndim}"

    def _ours(self, value: Any, path: str) -> Any:
        kind = type(value)
        name = f"{kind.__module__}:{kind.__qualname__}"
        if hasattr(kind, "to_json") and hasattr(kind, "from_json"):
            self.integers.append(self._place(name, value))
            return "object"
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            items = [self._node(getattr(value, field), f"{path}.{field}") for field in kind._fields]
            return {"named": [name, items]}
        if is_dataclass(kind) and kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            parts = [[f.name, self._node(getattr(value, f.name), f"{path}.{f.name}")] for f in fields(kind) if f.init]
            return {"dataclass": [name, parts]}
        raise self._refused(value, path)

    def _place(self, name: str, value: Any) -> int:
        """Where an instance stands among the objects; equal ones stand there once."""
        place = self._places.get(id(value))
        if place is None:
            data = value.to_json()
            text = json.dumps([name, data])
            place = self._texts_of_objects.setdefault(text, len(self.objects))
            if place == len(self.objects):
                self.objects.append((name, data))
            self._places[id(value)] = place
            self._held.append(value)
        return place

    def _refused(self, value: Any, path: str, kind: str | None = None) -> InputError:
        kind = kind or f"{type(value).__module__}.{type(value).__qualname__}"
        return InputError("cannot be stored in a file", source=path, field="type", value=kind, expected=KEEPS)


class _Unpacker:
    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], source: str | None) -> None:
        head = json.loads(bytes(arrays["head"]))
        if not isinstance(head, dict) or head.get("schema") != SCHEMA:
            raise InputError("not a set of states", source=source, field="schema", expected=SCHEMA)
        self.source = source
        self.skeletons, self.kinds = head["skeletons"], arrays["kinds"]
        self.integers = iter(arrays["integers"].tolist())
        self.floats = iter(arrays["floats"].tolist())
        self.texts = iter(head["texts"])
        self.sizes = iter(arrays["sizes"].tolist())
        self.pools = {dtype: arrays[f"pool_{i}"] for i, dtype in enumerate(head["dtypes"])}
        self.used = dict.fromkeys(self.pools, 0)
        self.objects = [_class(name, source).from_json(data) for name, data in head["objects"]]

    def unpack(self) -> list[Any]:
        return [self._value(self.skeletons[kind]) for kind in self.kinds.tolist()]

    def _value(self, node: Any) -> Any:
        if node is None:
            return None
        if isinstance(node, str):
            return self._leaf(node)
        [(kind, content)] = node.items()
        if kind == "list":
            return [self._value(item) for item in content]
        if kind == "tuple":
            return tuple(self._value(item) for item in content)
        if kind == "dict":
            return {key: self._value(item) for key, item in content}
        if kind == "generator":
            return self._generator(content)
        name, parts = content
        cls = _class(name, self.source)
        if kind == "named":
            return cls(*(self._value(item) for item in parts))
        return cls(**{field: self._value(item) for field, item in parts})

    def _leaf(self, node: str) -> Any:
        if node in ("true", "false"):
            return node == "true"
        if node == "int":
            return next(self.integers)
        if node == "float":
            return next(self.floats)
        if node in ("str", "long"):
            return next(self.texts)
        if node == "object":
            return self.objects[next(self.integers)]
        kind, dtype, *rest = node.split(" ")
        shape = tuple(next(self.sizes) for _ in range(int(rest[0]))) if rest else ()
        size, start = int(np.prod(shape, dtype=np.int64)), self.used[dtype]
        self.used[dtype] = start + size
        flat = self.pools[dtype][start : start + size]
        return flat[0] if kind == "scalar" else flat.reshape(shape)

    def _generator(self, node: Any) -> np.random.Generator:
        state = self._value(node)
        if state["bit_generator"] not in BIT_GENERATORS:
            raise InputError("unknown generator", source=self.source, value=state["bit_generator"])
        bits = getattr(np.random, state["bit_generator"])()
        bits.state = state
        return np.random.Generator(bits)


def _is_ours(kind: type[Any]) -> bool:
    return kind.__module__.partition(".")[0] == "orl" and "<" not in kind.__qualname__


def _class(name: str, source: str | None) -> Any:
    """The class of that name, if it is one of ours that a state may hold."""
    module, _, attribute = name.partition(":")
    if module.partition(".")[0] != "orl":
        raise InputError("not a class of orl", source=source, field="class", value=name, expected="a name under orl.")
    found = reduce(getattr, attribute.split("."), importlib.import_module(module))
    if not (isinstance(found, type) and found.__module__ == module):
        raise InputError("not a class of orl", source=source, field="class", value=name, expected="a name under orl.")
    if not (hasattr(found, "from_json") or hasattr(found, "_fields") or is_dataclass(found)):
        raise InputError("no class of states", source=source, field="class", value=name, expected=KEEPS)
    return found
