"""Cached kernels that are older than a source file are dropped, newer ones kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orl.common import kernel_cache


def test_only_stale_kernels_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, other = tmp_path / "package", tmp_path / "other"
    for folder in (package, other):
        (folder / "__pycache__").mkdir(parents=True)
    source, unrelated = package / "kernel.py", tmp_path / "cli.py"
    stale, fresh = package / "__pycache__" / "a.nbi", other / "__pycache__" / "b.nbc"
    for path, time in ((stale, 100), (source, 200), (fresh, 300), (unrelated, 400)):
        path.write_text("")
        os.utime(path, (time, time))

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(kernel_cache.importlib.util, "find_spec", lambda name: Spec() if name == "orl" else None)
    assert kernel_cache.drop_stale_kernels.__wrapped__() == 1
    assert not stale.exists()
    assert fresh.exists()
