"""Run once before the tests: no kernel compiled from older sources may be loaded."""

from __future__ import annotations

from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()
