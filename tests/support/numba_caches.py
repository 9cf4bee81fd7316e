"""Numba's disk caches do not notice a change in another file whose compiled functions were inlined."""

from __future__ import annotations

from pathlib import Path

ROOTS = [Path(__file__).parents[2] / name for name in ("orl", "envs", "solvers")]


def drop_stale_caches() -> None:
    """Delete cached kernels that are older than the newest source file."""
    newest = max(path.stat().st_mtime for root in ROOTS for path in root.rglob("*.py"))
    for root in ROOTS:
        for path in root.rglob("*.nb[ic]"):
            if path.stat().st_mtime < newest:
                path.unlink(missing_ok=True)
