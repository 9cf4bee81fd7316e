"""YAML in which every value knows its line: what sweep files and hyper-parameter files are read with.

Numbers and truth values are read as YAML 1.2 says, so that ``3e-4`` is a number and ``no`` a text; underscores between
digits are allowed (``1_000_000``). Merge keys (``<<: *defaults``) of YAML 1.1 work, because hyper-parameter files use
them. Files may come from anywhere: their size, depth and what their aliases expand to are limited, and no tag makes an
object.

>>> document = parse("budget:\\n  steps: 1e5  # a comment\\n", "sweep.yaml")
>>> document.data, document.line(("budget", "steps"))
({'budget': {'steps': 100000.0}}, 2)
>>> print(document.error(("budget", "steps"), "too many", expected="at most 10"))
sweep.yaml, line 2, budget.steps: too many (expected at most 10)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from orl.common.errors import InputError

LARGEST = 2**20
"""Bytes of a file that is read."""
MOST_VALUES = 200_000
"""Values of a document after its aliases are expanded."""
DEEPEST = 50
"""Levels of nesting."""

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead from the root of a document to a value."""

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE, _FALSE = re.compile(r"(?:true|True|TRUE)\Z"), re.compile(r"(?:false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*\Z")
_OTHER_BASE = re.compile(r"(?:0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


@dataclass(frozen=True)
class Scalar:
    """A text, number, truth value or null, and its line."""

    value: Any
    line: int


@dataclass(frozen=True)
class Sequence:
    """A list and the line where it starts."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True)
class Mapping:
    """A mapping and the line where it starts; each entry is the line of its key and its value."""

    entries: dict[str, tuple[int, Node]]
    line: int


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True)
class Document:
    """A YAML file.

    Attributes:
        source: Its name, for messages.
        text: Its text; bytes that are not UTF-8 are replaced.
        root: Values with their lines.
        data: Plain values: dicts with text keys, lists, texts, numbers, truth values, None.
        errors: What is wrong with it as YAML although it could be read on.
    """

    source: str
    text: str
    root: Node
    data: Any
    errors: tuple[InputError, ...] = ()

    def line(self, path: KeyPath) -> int:
        """Line of the key or list item at ``path``, or of the nearest one above that exists."""
        node, line = self.root, self.root.line
        for step in path:
            if isinstance(node, Mapping) and step in node.entries:
                line, node = node.entries[str(step)]
            elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
                line = node.line
            else:
                break
        return line

    def error(self, path: KeyPath, problem: str, *, value: object = None, expected: str | None = None) -> InputError:
        """An error that names this file, the line and the path."""
        field = dotted(path) or None
        return InputError(
            problem, source=self.source, line=self.line(path), field=field, value=value, expected=expected
        )


def dotted(path: KeyPath) -> str:
    """A path as it is written in messages.

    >>> dotted(("algorithms", 0, "hyper", "gamma"))
    'algorithms[0].hyper.gamma'
    """
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read(path: Path, *, expected: str, largest: int = LARGEST) -> Document:
    """The YAML document in a file.

    Args:
        path: File to read.
        expected: What the file should hold, for messages.
        largest: Size cap in bytes.

    Raises:
        InputError: not readable, too large, or broken so that nothing can be read on.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
        raise InputError(problem, source=str(path), expected=expected) from error
    if len(content) > largest:
        raise InputError("too large", source=str(path), expected=f"at most {largest} bytes")
    return parse(content, str(path))


def parse(content: str | bytes, source: str) -> Document:
    """The YAML document in a text or its UTF-8 bytes.

    Bytes that are not UTF-8, control characters, duplicate keys, keys that are no texts, numbers without a finite
    value, unknown tags and further documents are listed in :attr:`Document.errors`, and reading goes on without them.

    Raises:
        InputError: the syntax is broken, or a limit of this module is exceeded.
    """
    text, errors = _decoded(content, source)
    builder = _Builder(text, source, errors)
    root = builder.document()
    return Document(source, text, root, _Plain(source).data(root), tuple(builder.errors))


def _decoded(content: str | bytes, source: str) -> tuple[str, list[InputError]]:
    errors: list[InputError] = []
    text = content if isinstance(content, str) else ""
    if isinstance(content, bytes):
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            value = content[error.start : error.start + 1]
            errors.append(InputError("not UTF-8", source=source, line=line, value=value, expected="text in UTF-8"))
            if b"\0" in content:  # UTF-16, or no text at all: nothing to read on
                raise errors[0] from error
            text = content.decode("utf-8-sig", errors="replace")
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        errors.append(InputError("control character", source=source, line=line, value=found.group()))
        text = yaml.reader.Reader.NON_PRINTABLE.sub("\ufffd", text)
    return text, errors


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Builder:
    """Nodes out of the events of a YAML text."""

    def __init__(self, text: str, source: str, errors: list[InputError]) -> None:
        self.source, self.errors = source, errors
        self.events = self._events(text)
        self.anchors: dict[str, Node | None] = {}

    def _events(self, text: str) -> Iterator[Any]:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            yield from yaml.parse(text, Loader=loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = " ".join(str(part) for part in (error.problem, error.context) if part)
            line = None if mark is None else mark.line + 1
            raise InputError(f"not YAML: {problem}", source=self.source, line=line) from error

    def _add(self, problem: str, line: int, *, field: str | None = None, value: object = None, expected: str) -> None:
        error = InputError(problem, source=self.source, line=line, field=field, value=value, expected=expected)
        self.errors.append(error)

    def document(self) -> Node:
        root: Node | None = None
        for event in self.events:
            if not isinstance(event, events.DocumentStartEvent):
                continue
            if root is None:
                root = self._node(next(self.events), 0)
            else:
                line = _line(event)
                self._add("a second document", line, value="---", expected="one document a file")
                break
        if root is None:
            raise InputError("empty", source=self.source, line=1, expected="a mapping")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = _line(event)
        if depth > DEEPEST:
            raise InputError("nested too deeply", source=self.source, line=line, expected=f"at most {DEEPEST} levels")
        if isinstance(event, events.AliasEvent):
            node = self.anchors.get(str(event.anchor))
            if node is None:
                problem = "an alias inside itself" if event.anchor in self.anchors else "an alias without its anchor"
                raise InputError(problem, source=self.source, line=line, value=f"*{event.anchor}")
            return node
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, events.ScalarEvent):
            node = Scalar(self._scalar(event, line), line)
        elif isinstance(event, events.SequenceStartEvent):
            self._check_tag(event.tag, "seq", line)
            node = self._sequence(line, depth)
        else:
            self._check_tag(event.tag, "map", line)
            node = self._mapping(line, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _check_tag(self, tag: str | None, kind: str, line: int) -> None:
        if tag not in (None, "!", _TAG + kind):
            self._add("unknown tag", line, value=tag, expected="plain data")

    def _sequence(self, line: int, depth: int) -> Sequence:
        items = []
        while not isinstance(event := next(self.events), events.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return Sequence(tuple(items), line)

    def _mapping(self, line: int, depth: int) -> Mapping:
        entries: dict[str, tuple[int, Node]] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self.events), events.MappingEndEvent):
            key_line = _line(event)
            is_merge = isinstance(event, events.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = self._node(event, depth + 1)
            value = self._node(next(self.events), depth + 1)
            if is_merge:
                merged.append(value)
            elif not isinstance(key, Scalar) or not isinstance(key.value, str):
                shown = key.value if isinstance(key, Scalar) else None
                self._add("a key that is no text", key_line, value=shown, expected="a text, in quotes if need be")
            elif key.value in entries:
                expected = f"each key once (first in line {entries[key.value][0]})"
                self._add("duplicate key", key_line, field=key.value, expected=expected)
            else:
                entries[key.value] = (key_line, value)
        for node in merged:
            self._merge(entries, node)
        return Mapping(entries, line)

    def _merge(self, entries: dict[str, tuple[int, Node]], node: Node) -> None:
        for part in node.items if isinstance(node, Sequence) else (node,):
            if isinstance(part, Mapping):
                for key, entry in part.entries.items():
                    entries.setdefault(key, entry)
            else:
                self._add("cannot be merged", part.line, field="<<", expected="a mapping or a list of mappings")

    def _scalar(self, event: Any, line: int) -> Any:
        text, tag = event.value, event.tag
        if tag in ("!", _TAG + "str") or (tag is None and not event.implicit[0]):
            return text
        kinds = {
            _TAG + "float": (int, float),
            _TAG + "int": (int,),
            _TAG + "bool": (bool,),
            _TAG + "null": (type(None),),
        }
        if tag is not None and tag not in kinds:
            self._add("unknown tag", line, value=tag, expected="plain data")
            return None
        try:
            value = plain_scalar(text)
        except ValueError:
            self._add("not a finite number", line, value=text, expected="a number that JSON can hold")
            return None
        if tag is not None:
            if not isinstance(value, kinds[tag]) or (isinstance(value, bool) and tag != _TAG + "bool"):
                self._add("does not fit its tag", line, value=text, expected=f"!!{tag.removeprefix(_TAG)}")
                return None
            return float(text) if tag == _TAG + "float" else value
        return value


def plain_scalar(text: str) -> Any:
    """What an unquoted text means in YAML 1.2's core schema.

    >>> [plain_scalar(text) for text in ("3e-4", "1_000", "0x1f", "True", "~", "no", "1.0.0")]
    [0.0003, 1000, 31, True, None, 'no', '1.0.0']

    Raises:
        ValueError: infinite, not a number, or an integer of more digits than Python reads.
    """
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return text[0] in "tT"
    if _INTEGER.match(text):
        return int(text)
    if _OTHER_BASE.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(text)
        return value
    if _NOT_FINITE.match(text):
        raise ValueError(text)
    return text


class _Plain:
    """Plain data out of nodes, aliases expanded, with a limit on what they expand to."""

    def __init__(self, source: str) -> None:
        self.source, self.left = source, MOST_VALUES

    def data(self, node: Node) -> Any:
        self.left -= 1
        if self.left < 0:
            expected = f"at most {MOST_VALUES} values, aliases expanded"
            raise InputError("too many values", source=self.source, line=node.line, expected=expected)
        if isinstance(node, Scalar):
            return node.value
        if isinstance(node, Sequence):
            return [self.data(item) for item in node.items]
        return {key: self.data(value) for key, (_, value) in node.entries.items()}
