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
    """Delete orl's cached kernels if a source in a folder that holds cached kernels is newer; returns their number.

    Runs once a process and takes about a millisecond. Files that cannot be deleted are left (a read-only install is not
    edited in place).
    """
    spec = importlib.util.find_spec
    packages = [found for name in ("orl", "orl.envs", "orl.solvers") if (found := spec(name)) is not None]
    roots = [Path(place) for package in packages for place in package.submodule_search_locations or ()]
    kernels = [path for root in roots for path in root.rglob("*.nb[ic]")]
    sources = [path for folder in {kernel.parent.parent for kernel in kernels} for path in folder.glob("*.py")]
    newest = max((path.stat().st_mtime for path in sources), default=0.0)
    dropped = 0
    for kernel in kernels:
        try:
            if kernel.stat().st_mtime < newest:
                kernel.unlink()
                dropped += 1
        except (FileNotFoundError, PermissionError):
            continue
    return dropped
