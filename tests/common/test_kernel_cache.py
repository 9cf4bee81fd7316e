"""Cached kernels that are older than a source file are dropped, newer ones kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orl.common import kernel_cache


def test_only_stale_kernels_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "__pycache__").mkdir(parents=True)
    source = package / "kernel.py"
    stale, fresh = package / "__pycache__" / "a.nbi", package / "__pycache__" / "b.nbc"
    for path, time in ((stale, 100), (source, 200), (fresh, 300)):
        path.write_text("")
        os.utime(path, (time, time))

    class Spec:
        submodule_search_locations = (str(package),)

    monkeypatch.setattr(kernel_cache.importlib.util, "find_spec", lambda name: Spec() if name == "orl" else None)
    assert kernel_cache.drop_stale_kernels.__wrapped__() == 1
    assert not stale.exists()
    assert fresh.exists()
