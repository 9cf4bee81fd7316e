"""Keeps numba's disk cache honest: a cached kernel must not be older than any source it may have inlined.

Numba notices a change in the file of a function, not in the files of the functions it calls. After an edit or a
``git pull`` a cached kernel could therefore hold an old copy of another one. Modules with cached kernels call
:func:`drop_stale_kernels` before their first ``njit``.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path


@cache
def drop_stale_kernels() -> int:
    """Delete orl's cached kernels that are older than its newest source file; returns their number.

    Runs once a process and takes about a millisecond. Files that cannot be deleted are left (a read-only install is not
    edited in place).
    """
    folders = []
    for name in ("orl", "orl.envs", "orl.solvers"):
        spec = importlib.util.find_spec(name)
        folders += [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    if not sources:
        return 0
    newest = max(path.stat().st_mtime for path in sources)
    dropped = 0
    for path in (path for folder in folders for path in folder.rglob("*.nb[ic]")):
        try:
            if path.stat().st_mtime < newest:
                path.unlink()
                dropped += 1
        except (FileNotFoundError, PermissionError):
            continue
    return dropped
