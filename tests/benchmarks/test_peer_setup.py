"""Environments of peers are made by the Python that their pins are for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def setup(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("peers.setup")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "worker.py").write_text("")
    return module


def test_the_version_of_a_peer_decides(setup):
    version = setup.FOLDER / "mine" / "python-version.txt"
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    version.write_text(here + "\n")
    assert setup._interpreter("mine") == sys.executable
    with_this = setup._pins("mine")
    version.write_text("9.9\n")
    assert setup._pins("mine") != with_this
    with pytest.raises(RuntimeError, match=r"mine are for Python 9\.9"):
        setup.install("mine")
    assert not setup.is_installed("mine")
