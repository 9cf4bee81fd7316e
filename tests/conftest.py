"""Run once before the tests: no kernel compiled from older sources may be loaded."""

from __future__ import annotations

import os

from numba_caches import drop_stale_caches

if "PYTEST_XDIST_WORKER" not in os.environ:
    drop_stale_caches()
