"""Benchmark sweeps: one file in, one table and one page out.

``orl.bench.load(folder)`` reads the records of a sweep into one DataFrame. The names below are loaded when first used,
so that a worker imports only what it runs.

>>> from orl import bench
>>> "load" in dir(bench)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orl.registry import resolve

if TYPE_CHECKING:
    from orl.bench.comparison import compare as compare
    from orl.bench.comparison import compare_policies as compare_policies
    from orl.bench.description import read_sweep as read_sweep
    from orl.bench.report import write_report as write_report
    from orl.bench.runner import run_sweep as run_sweep
    from orl.bench.store import curve as curve
    from orl.bench.store import load as load
    from orl.bench.store import read_record as read_record
    from orl.bench.store import runs as runs
    from orl.bench.summaries import summary as summary
    from orl.bench.tuning import Tuning as Tuning
    from orl.bench.tuning import tune as tune

_LAZY = {
    "Tuning": "orl.bench.tuning:Tuning",
    "compare": "orl.bench.comparison:compare",
    "compare_policies": "orl.bench.comparison:compare_policies",
    "curve": "orl.bench.store:curve",
    "load": "orl.bench.store:load",
    "read_sweep": "orl.bench.description:read_sweep",
    "read_record": "orl.bench.store:read_record",
    "run_sweep": "orl.bench.runner:run_sweep",
    "runs": "orl.bench.store:runs",
    "summary": "orl.bench.summaries:summary",
    "tune": "orl.bench.tuning:tune",
    "write_report": "orl.bench.report:write_report",
}
__all__ = [
    "Tuning",
    "compare",
    "compare_policies",
    "curve",
    "load",
    "read_record",
    "read_sweep",
    "run_sweep",
    "runs",
    "summary",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return resolve(_LAZY[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
