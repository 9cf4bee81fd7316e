"""The figures of the study of snapshots: areas, ratios, and the table that is made of finished runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

STUDY = Path(__file__).resolve().parents[2] / "benchmarks" / "s3rl"
MODULES = ("measure", "cases", "students", "teachers", "tables", "run")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(STUDY.parent))
    monkeypatch.syspath_prepend(str(STUDY))
    known = {name: sys.modules.pop(name, None) for name in MODULES}
    yield importlib.import_module("tables")
    for name, module in known.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def test_area_is_the_mean_height(tables: ModuleType) -> None:
    assert tables.area([0, 10, 30], [0.0, 4.0, 4.0], 20) == pytest.approx((0.5 * 4 * 10 + 4 * 10) / 20)
    assert tables.area([0, 10], [2.0, 6.0], 20) == pytest.approx((4 * 10 + 6 * 10) / 20)
    assert tables.area([0, 10], [2.0, 6.0], 20, late=10) == pytest.approx((2 * 10 + 4 * 10) / 20)


def test_the_interval_is_all_ratios_that_a_t_test_accepts(tables: ModuleType) -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.normal(10, 1, 5)
    y = 1.3 * x + rng.normal(0, 1, 5)
    ratio = tables.paired_ratio(y, x)
    assert ratio.low < ratio.value < ratio.high
    for bound in (ratio.low, ratio.high):
        assert stats.ttest_1samp(y - bound * x, 0.0).pvalue == pytest.approx(0.05)


def test_the_interval_covers(tables: ModuleType) -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        x = rng.normal(5, 1, 3)
        ratio = tables.paired_ratio(2 * x + rng.normal(0, 1, 3), x)
        inside += ratio.low is None or ratio.low <= 2.0 <= ratio.high
    assert 0.92 < inside / 400 < 0.98


def test_no_bound_where_the_base_may_be_zero_or_one_pair_is_there(tables: ModuleType) -> None:
    assert tables.paired_ratio([1.0, 2.0], [-1.0, 1.5])[1:] == (None, None)
    assert tables.paired_ratio([1.0], [2.0]) == (0.5, None, None)


def test_runs_are_compared_seed_by_seed_and_costs_the_other_way(tables: ModuleType) -> None:
    def row(case: str, variant: str, seed: int, scores: str) -> dict[str, str]:
        return {"case": case, "variant": variant, "seed": str(seed), "steps": f"0 {steps}", "scores": scores}

    name = "MaskablePPO, ft10"
    steps = tables.CASES[name].steps
    rows = [row(name, "base", 0, "3000 1000"), row(name, "base", 1, "3000 1200"), row(name, "S3RL", 0, "2000 1000")]
    (found,) = tables.comparisons(rows, {"ft10": 0})
    assert (found["seeds"], found["seeds ahead"], found["low"]) == ("1 of 5", "1 of 1", None)
    assert found["ratio"] == pytest.approx(0.75) == found["ratio, charged"]
    (found,) = tables.comparisons([*rows, row(name, "S3RL", 1, "2000 1000")], {})
    assert (found["ranges"], found["ratio, charged"]) == ("apart, ahead", None)
    text = tables.describe(rows, [found], [])
    assert text.startswith("**Partial:** 3 of")
