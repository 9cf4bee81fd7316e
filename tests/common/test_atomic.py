"""Files are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from orl.common.atomic import atomic_path, write_json, write_text


def test_an_interrupted_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    write_text(target, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_parents_are_made_and_the_suffix_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "picture.png"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"


def test_json_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "bad.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []
