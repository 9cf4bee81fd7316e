"""YAML with lines: numbers of YAML 1.2, merge keys, one clear error for each mistake, and limits."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orl.bench.yaml_lines import DEEPEST, MOST_VALUES, parse, read
from orl.common.errors import InputError


def errors(text: str | bytes) -> list[str]:
    return [str(error) for error in parse(text, "f.yaml").errors]


def refusal(text: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        parse(text, "f.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e6", 1e6),
        ("!!float 20000", 20000.0),
        ("1_000_000", 1_000_000),
        ("-7", -7),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'3e-4'", "3e-4"),
        ("!!str 12", "12"),
    ],
)
def test_values_are_read_as_yaml_1_2_says(text: str, value: Any) -> None:
    read_value = parse(f"a: {text}", "f.yaml").data["a"]
    assert read_value == value
    assert type(read_value) is type(value)


def test_every_value_knows_its_line() -> None:
    document = parse("a:\n  - x: 1\n    y: [2,\n        3]\n  - z\nb: {c: 4}\n", "f.yaml")
    lines = {
        ("a",): 1,
        ("a", 0): 2,
        ("a", 0, "x"): 2,
        ("a", 0, "y"): 3,
        ("a", 0, "y", 1): 4,
        ("a", 1): 5,
        ("b", "c"): 6,
    }
    assert {path: document.line(path) for path in lines} == lines
    assert document.line(("a", 0, "missing", "deeper")) == 2  # the nearest one above


def test_merge_keys_take_what_is_not_stated_and_keep_the_lines_of_the_anchor() -> None:
    document = parse("base: &base\n  a: 1\n  b: 2\nused:\n  <<: *base\n  b: 3\n", "f.yaml")
    assert document.data["used"] == {"b": 3, "a": 1}
    assert (document.line(("used", "a")), document.line(("used", "b"))) == (2, 6)


def test_data_shared_by_an_alias_is_not_shared_in_memory() -> None:
    data = parse("a: &x [1]\nb: *x\n", "f.yaml").data
    data["a"].append(2)
    assert data["b"] == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml, line 3, a: duplicate key (expected each key once (first in line 1))"),
        ("a: 1\n---\nb: 2\n", "f.yaml, line 2: a second document (got '---', expected one document a file)"),
        ("a: 1\nb: .inf\n", "f.yaml, line 2: not a finite number (got '.inf', expected a number that JSON can hold)"),
        ("a: 1e400\n", "f.yaml, line 1: not a finite number (got '1e400', expected a number that JSON can hold)"),
        ("1: x\n", "f.yaml, line 1: a key that is no text (got 1, expected a text, in quotes if need be)"),
        ("a: !!int x\n", "f.yaml, line 1: does not fit its tag (got 'x', expected !!int)"),
        ("a: b\n<<: 3\n", "f.yaml, line 2, <<: cannot be merged (expected a mapping or a list of mappings)"),
    ],
)
def test_mistakes_are_named_with_their_line_and_reading_goes_on(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_tags_make_no_objects() -> None:
    document = parse("a: !!python/object/apply:os.system [ls]\nb: 2\n", "f.yaml")
    assert document.data == {"a": ["ls"], "b": 2}
    assert [error.line for error in document.errors] == [1]


def test_bytes_that_are_not_utf_8_are_named_with_their_line() -> None:
    document = parse(b"a: 1\nb: caf\xe9\nc: 2\n", "f.yaml")
    assert [str(error) for error in document.errors] == [
        "f.yaml, line 2: not UTF-8 (got b'\\xe9', expected text in UTF-8)"
    ]
    assert document.data["c"] == 2
    assert "line 1: not UTF-8" in refusal("a: 1\n".encode("utf-16"))


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert parse(b"\xef\xbb\xbfa: 1\n", "f.yaml").data == {"a": 1}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1, 2\nb: 3\n", "line 2: not YAML"),
        ("a:\n\t- 1\n", "line 2: not YAML"),
        ("a: *nowhere\n", "line 1: an alias without its anchor (got '*nowhere')"),
        ("a: &a [*a]\n", "line 1: an alias inside itself (got '*a')"),
        ("", "line 1: empty"),
        ("# nothing\n", "line 1: empty"),
        ("a: " + "[" * (DEEPEST + 5) + "]" * (DEEPEST + 5), "nested too deeply"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_broken_files_are_refused_in_one_line(text: str, part: str) -> None:
    assert part in refusal(text)


def test_aliases_of_aliases_do_not_eat_the_memory() -> None:
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 10)}]" for k in range(1, 10)]
    assert f"at most {MOST_VALUES} values" in refusal("\n".join(levels))


def test_files_that_are_missing_or_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none.yaml", expected="a sweep")
    (tmp_path / "large.yaml").write_text("a: 1\n" * 100)
    with pytest.raises(InputError, match="at most 99 bytes"):
        read(tmp_path / "large.yaml", expected="a sweep", largest=99)


KEYS = st.text(string.ascii_letters + " _-:#'é", max_size=8)
NUMBERS = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, PLAIN, max_size=5))
def test_json_is_read_as_json_and_dumped_yaml_as_what_was_dumped(data: dict[str, Any]) -> None:
    assert parse(json.dumps(data), "f.json").data == data
    document = parse(yaml.safe_dump(data, allow_unicode=True), "f.yaml")
    assert document.data == data
    assert not document.errors
