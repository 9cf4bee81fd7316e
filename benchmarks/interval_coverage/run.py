"""How often 95 % bootstrap intervals hold the true value, by number of runs, scores and method.

    python benchmarks/interval_coverage/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/interval_coverage/run.py --quick    # within a minute

Scores ``[runs, tasks]`` are drawn from known distributions, ``orl.bench.statistics`` gives an interval, and the true
value of the statistic, computed from quantiles of the distribution, lies in it or not. A coverage of 0.95 from 2,000
repetitions has a standard error of 0.005.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

FOLDER = Path(__file__).resolve().parent
SAMPLES = FOLDER / "results" / "coverage.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

DISTRIBUTIONS = ("normal", "lognormal", "bimodal")
TASKS = (1, 8)
METHODS = ("percentile", "bca", "t", "widened")
CONFIDENCE = 0.95
LOWEST, HIGHEST = 0.92, 0.98  # what 10 runs and more have to reach
BATCH = 50  # repetitions that share their resamples


class Case(NamedTuple):
    """What is measured: a statistic of scores from a distribution."""

    statistic: str
    distribution: str
    tasks: int
    runs: int


FULL = tuple(
    Case(statistic, distribution, tasks, runs)
    for statistic, numbers in (("iqm", (2, 3, 5, 7, 10, 20, 50)), ("mean", (3, 5, 10, 20)), ("median", (3, 5, 10, 20)))
    for distribution in DISTRIBUTIONS
    for tasks in TASKS
    for runs in numbers
    if not (statistic == "median" and tasks == 1)  # the same as the mean
)
QUICK = tuple(
    Case("iqm", distribution, tasks, runs) for distribution in DISTRIBUTIONS for tasks in TASKS for runs in (5, 10)
)


def quantiles(distribution: str, points: int = 200_000) -> npt.NDArray[np.float64]:
    """Values at evenly spaced levels: a sample without chance."""
    from scipy import special

    def normal(n: int) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = special.ndtri((np.arange(n) + 0.5) / n)
        return values

    if distribution == "bimodal":
        failed = round(0.3 * points)
        return np.concatenate([0.1 * normal(failed), 1 + 0.1 * normal(points - failed)])
    return normal(points) if distribution == "normal" else np.exp(0.75 * normal(points))


def draw(distribution: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Scores of one task: normal; lognormal (skewed to the right); bimodal (3 of 10 runs fail)."""
    noise = rng.normal(size=shape)
    if distribution == "bimodal":
        return np.where(rng.random(shape) < 0.3, 0.0, 1.0) + 0.1 * noise
    return noise if distribution == "normal" else np.exp(0.75 * noise)


def place_and_scale(tasks: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Tasks differ: the hardest is 1.5 below the easiest and varies a third as much."""
    return (np.zeros(1), np.ones(1)) if tasks == 1 else (np.linspace(0, 1.5, tasks), np.linspace(0.5, 1.5, tasks))


def measure_case(case: Case, repetitions: int, resamples: int, seed: int = 0) -> dict[str, Any]:
    """Coverage of each method, and the width of the widened interval beside the percentile interval's."""
    from orl.bench.statistics import STATISTICS, bootstrap_band

    statistic = STATISTICS[case.statistic]
    place, scale = place_and_scale(case.tasks)
    truth = float(statistic(place + scale * quantiles(case.distribution)[:, None]))
    rng = np.random.default_rng([seed, *case.distribution.encode(), case.tasks, case.runs])
    held = dict.fromkeys(METHODS, 0)
    width = dict.fromkeys(METHODS, 0.0)
    for batch in range(repetitions // BATCH):
        scores = place + scale * draw(case.distribution, (BATCH, case.runs, case.tasks), rng)
        for method in METHODS:
            band = bootstrap_band(
                scores, statistic, confidence=CONFIDENCE, resamples=resamples, seed=batch, method=method
            )
            held[method] += int(((band.low <= truth) & (truth <= band.high)).sum())
            width[method] += float((band.high - band.low).sum())
    return (
        case._asdict()
        | {method: held[method] / repetitions for method in METHODS}
        | {"width_ratio": width["widened"] / width["percentile"], "repetitions": repetitions, "resamples": resamples}
    )


def milliseconds() -> float:
    """Time of an interval of the IQM of 10 runs on 20 tasks with 2,000 resamples."""
    from orl.bench.statistics import bootstrap_interval, iqm

    scores = np.random.default_rng(0).random((10, 20))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        bootstrap_interval(scores, iqm)
        seconds.append(time.perf_counter() - start)
    return 1000 * measure.median(seconds)


def table(rows: list[dict[str, Any]]) -> str:
    """The coverage table in Markdown."""
    columns = ["statistic", "distribution", "tasks", "runs", *METHODS, "width_ratio"]
    return measure.table([{c: row[c] for c in columns} for row in rows])


def typed(row: dict[str, str]) -> dict[str, Any]:
    """A row of the file with its numbers as numbers."""
    text = ("statistic", "distribution", "date")
    whole = ("tasks", "runs", "repetitions", "resamples")
    return {k: v if k in text else int(v) if k in whole else float(v) for k, v in row.items()}


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the RESULT line: the widened interval of the IQM."""
    iqm = [row for row in rows if row["statistic"] == "iqm"]
    enough = [row["widened"] for row in iqm if row["runs"] >= 10]
    five = [row for row in iqm if row["runs"] == 5]
    return {
        "coverage_low_10_runs": min(enough),
        "coverage_high_10_runs": max(enough),
        "coverage_low_5_runs": min(row["widened"] for row in five),
        "percentile_coverage_5_runs": sum(row["percentile"] for row in five) / len(five),
        "within_aim": all(LOWEST <= value <= HIGHEST for value in enough),
        "ms_per_interval": milliseconds(),
    }


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "scipy")


def full(fresh: bool) -> list[dict[str, Any]]:
    """The run whose results are kept; goes on after the last case that is there."""
    if fresh:
        SAMPLES.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "scipy")
    done = {(r["statistic"], r["distribution"], int(r["tasks"]), int(r["runs"])) for r in measure.read_rows(SAMPLES)}
    for case in FULL:
        if tuple(case) not in done:
            row = measure_case(case, repetitions=2000, resamples=1000)
            measure.append_row(SAMPLES, row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    rows = [typed(row) for row in measure.read_rows(SAMPLES)]
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", table(rows) + "\n\n" + note)
    return rows


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    if options.quick:
        rows = [measure_case(case, repetitions=400, resamples=400) for case in QUICK]
    else:
        rows = full(options.fresh)
    print(table(rows))
    print(measure.describe(environment()))
    measure.print_result(**figures(rows))


if __name__ == "__main__":
    main()
