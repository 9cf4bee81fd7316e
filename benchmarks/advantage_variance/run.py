"""Bias and variance of PDPPO's advantage estimators beside exact critics, wrong critics, and common random numbers.

    python benchmarks/advantage_variance/run.py            # full run, resumable; writes results/ and the README tables
    python benchmarks/advantage_variance/run.py --quick    # within a minute

Nothing is learned: policies are fixed, their values exact.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

import common_numbers  # noqa: E402
import critics  # noqa: E402
import numpy as np  # noqa: E402
from critics import Critics, Error, noisy, scaled  # noqa: E402
from episodes import Numbers, Policy, simulate, softened_optimum, uniform  # noqa: E402
from quality import ESTIMATORS, qualities, true_advantages  # noqa: E402

from orl.envs.lot_sizing.distributions import same_mean_binomial  # noqa: E402
from orl.envs.lot_sizing.library import load  # noqa: E402

FOLDER = Path(__file__).resolve().parent
SAMPLES = FOLDER / "results" / "estimators.csv"
NUMBERS = FOLDER / "results" / "common_numbers.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

DISCOUNT = 1.0
TEMPERATURE = 0.5
ALL_DRAWS = (1, 2, 4, 8, 16, 32, math.inf)
FEW_DRAWS = (1, 16, math.inf)
SWEEP = ((0, 1), (2, 1), (4, 1), (4, 2), (4, 4))
"""Trials and scale of demands with mean 1.6 and rising variance."""
ERRORS = (
    "none",
    "V, V^x times 0.5",
    "V^x times 0.5",
    "noise 1 in V",
    "noise 1 in V^x",
    "noise 0.5 in both",
    "noise 1 in both",
    "noise 2 in both",
    "of a softer policy",
    "of the uniform policy",
)


class Problem(NamedTuple):
    """An instance, demand (trials and scale, or None for its own) and a policy."""

    instance: str
    demand: tuple[int, int] | None
    policy: str


class Size(NamedTuple):
    """How many batches of how many pairs of episodes, which numbers of draws, and which errors."""

    batches: int
    pairs: int
    draws: tuple[float, ...]
    errors: tuple[str, ...] = ("none",)


MAIN = tuple(
    Problem(instance, None, policy)
    for instance in ("ls-2x1-t20", "ls-4x2-t20")
    for policy in ("uniform", "softened optimum")
)
FULL = {p: Size(10, 2000, ALL_DRAWS, ERRORS) for p in MAIN} | {
    Problem("ls-4x2-t20", demand, policy): Size(10, 500, FEW_DRAWS)
    for policy in ("uniform", "softened optimum")
    for demand in SWEEP
}
QUICK = {p: Size(4, 1000, FEW_DRAWS, ERRORS[:3] + ERRORS[6:7]) for p in MAIN[:2]}


class Setting:
    """Everything exact about a problem: tables of the policy and of its critics."""

    def __init__(self, problem: Problem) -> None:
        instance = load(problem.instance)
        if problem.demand is not None:
            trials, scale = problem.demand
            demand = same_mean_binomial(instance.n_items, 1.6, trials, scale=scale, horizon=instance.horizon)
            instance = replace(instance, demand=demand)
        self.problem, self.numbers = problem, Numbers(instance)
        self.policy = self.make_policy(problem.policy)
        self.exact = critics.exact(self.numbers, self.policy, DISCOUNT)

    def make_policy(self, name: str) -> Policy:
        """A policy by name."""
        if name == "uniform":
            return uniform(self.numbers)
        return softened_optimum(self.numbers, DISCOUNT, {"softened optimum": 1.0, "softer": 2.0}[name] * TEMPERATURE)

    @property
    def expected_cost(self) -> float:
        """Of an episode of the policy."""
        values = self.exact["own"].values[0].reshape(self.numbers.space.array().shape)
        return -self.numbers.space.initial_mean(values)

    @property
    def demand_variance(self) -> float:
        """Of an item in a period, averaged over items and periods."""
        demand = self.numbers.space.instance.demand
        return float(((demand.values - demand.mean[..., None]) ** 2 * demand.probabilities).sum(-1).mean())

    def wrong(self, error: str, deviation: float) -> dict[str, Critics] | None:
        """Critics of all kinds with an error; ``deviation`` is the unit of noise. None: the error makes no sense."""
        if error == "none":
            return self.exact
        if error.startswith("of "):
            if self.problem.policy == "uniform":
                return None
            other = self.make_policy("softer" if "softer" in error else "uniform")
            return critics.exact(self.numbers, other, DISCOUNT)
        change = _errors(deviation)[error]
        return {kind: critics.wrong(self.numbers, c, change, DISCOUNT) for kind, c in self.exact.items()}


def _errors(unit: float) -> dict[str, Error]:
    return {
        "V, V^x times 0.5": scaled(0.5, 0.5),
        "V^x times 0.5": scaled(1.0, 0.5),
        "noise 1 in V": noisy(unit, 0.0),
        "noise 1 in V^x": noisy(0.0, unit),
        "noise 0.5 in both": noisy(0.5 * unit, 0.5 * unit),
        "noise 1 in both": noisy(unit, unit),
        "noise 2 in both": noisy(2.0 * unit, 2.0 * unit),
    }


# ---- measuring -------------------------------------------------------------------------------------------------------
def measure_problem(setting: Setting, size: Size) -> Iterator[dict[str, Any]]:
    """Rows of all errors, estimators and numbers of draws: means over batches, and standard errors of means."""
    finite = [int(k) for k in size.draws if not math.isinf(k)]
    batches = [
        simulate(setting.numbers, setting.policy, size.pairs, max(finite) - 1, seed) for seed in range(size.batches)
    ]
    true = [true_advantages(episodes, setting.exact["own"]) for episodes in batches]
    deviation = float(np.mean([t.std() for t in true]))
    head = {
        "instance": setting.problem.instance,
        "demand": _demand(setting.problem),
        "demand_variance": setting.demand_variance,
        "policy": setting.problem.policy,
        "expected_cost": setting.expected_cost,
        "advantage_deviation": deviation,
    }
    for error in size.errors:
        used = setting.wrong(error, deviation)
        if used is None:
            continue
        draws = size.draws if error == "none" else tuple(k for k in size.draws if k in FEW_DRAWS)
        for kind in critics.KINDS:
            group = [e for e in ESTIMATORS if e.kind == kind]
            found = [
                qualities(episodes, t, used[kind], group, draws, DISCOUNT)
                for episodes, t in zip(batches, true, strict=True)
            ]
            for name, n_draws in found[0]:
                columns = [asdict(f[name, n_draws]) for f in found]
                means = {key: float(np.mean([c[key] for c in columns])) for key in columns[0]}
                errors = {
                    f"{key}_se": float(np.std([c[key] for c in columns], ddof=1) / math.sqrt(size.batches))
                    for key in ("bias", "bias_squared", "mse")
                }
                row = {"error": error, "estimator": name, "draws": n_draws} | means | errors
                yield head | row | {"episodes": 2 * size.pairs * size.batches}


def measure_numbers(setting: Setting, copies: int) -> list[dict[str, Any]]:
    """Rows about common random numbers."""
    head = {"instance": setting.problem.instance, "policy": setting.problem.policy}
    own = setting.exact["own"]
    found = common_numbers.compare(setting.numbers, setting.policy, own, (1, 4, 16), DISCOUNT, copies, seed=0)
    return [head | row | {"copies": copies} for row in found]


def typed(row: dict[str, str]) -> dict[str, Any]:
    """A row of a file with its numbers as numbers."""
    text = ("instance", "demand", "policy", "error", "estimator")
    return {k: v if k in text else int(v) if k in ("episodes", "copies") else float(v) for k, v in row.items()}


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "numba")


# ---- tables ----------------------------------------------------------------------------------------------------------
Rows = Sequence[dict[str, Any]]


def _shown_draws(n: float) -> str:
    return "inf" if math.isinf(n) else f"{n:.0f}"


def exact_table(rows: Rows) -> str:
    """Exact critics: bias and correlation with one and with infinitely many draws, mean squared error for all."""
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for r in rows:
        if r["demand"] == "own" and r["error"] == "none":
            key = (r["instance"], r["policy"], r["estimator"])
            line = lines.setdefault(key, dict(zip(("instance", "policy", "estimator"), key, strict=True)))
            k = _shown_draws(r["draws"])
            if k in ("1", "inf"):
                line |= {f"bias K={k}": _clean(r["bias"]), f"corr K={k}": r["correlation"]}
            line[f"mse K={k}"] = _clean(r["mse"])
    found = list(lines.values())
    columns = [c for c in found[0] if not c.startswith("mse")] + [c for c in found[0] if c.startswith("mse")]
    return measure.table(found, columns)


def policy_table(rows: Rows) -> str:
    """What the policies cost, and how far the true advantages of their actions spread."""
    keys = ("instance", "demand_variance", "policy", "expected_cost", "advantage_deviation")
    lines = dict.fromkeys(tuple((k, r[k]) for k in keys) for r in rows if r["demand"] == "own")
    return measure.table([dict(line) for line in lines])


def sweep_table(rows: Rows) -> str:
    """Demand of the same mean and rising variance: mean squared error by estimator, and the bias of a maximum."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in rows:
        if r["demand"] != "own" and r["draws"] in (1, math.inf):
            key = (r["policy"], r["demand_variance"], _shown_draws(r["draws"]))
            line = lines.setdefault(key, dict(zip(("policy", "demand variance", "K"), key, strict=True)))
            line[r["estimator"]] = _clean(r["mse"])
            if r["estimator"] == "max_full":
                line["bias of max_full"] = _clean(r["bias"])
    names = ["policy", "demand variance", "K", *(e.name for e in ESTIMATORS), "bias of max_full"]
    return measure.table(list(lines.values()), names)


def error_table(rows: Rows, column: str, draws: Sequence[float]) -> str:
    """Wrong critics of the softened optimum: one figure for each estimator."""
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for r in rows:
        if r["demand"] == "own" and r["draws"] in draws and r["policy"] != "uniform":
            key = (r["instance"], r["error"], _shown_draws(r["draws"]))
            line = lines.setdefault(key, {"instance": key[0], "error": key[1], "K": key[2]})
            line[r["estimator"]] = _clean(r[column])
    head = ["instance", "error", *(["K"] if len(draws) > 1 else [])]
    return measure.table(list(lines.values()), [*head, *(e.name for e in ESTIMATORS)])


def numbers_table(rows: Rows) -> str:
    """Common random numbers."""
    return measure.table([{k: v for k, v in r.items() if k != "copies"} | {"draws": int(r["draws"])} for r in rows])


def _clean(value: float) -> float:
    """Rounding errors of exact zeros are zero."""
    return 0.0 if abs(value) < 1e-10 else value


# ---- runs ------------------------------------------------------------------------------------------------------------
def figures(rows: Rows, numbers: Rows) -> dict[str, Any]:
    """The figures of the RESULT line: the tiny instance with the uniform policy and exact critics."""
    tiny = {
        (r["estimator"], r["draws"]): r
        for r in rows
        if (r["instance"], r["demand"], r["policy"], r["error"]) == ("ls-2x1-t20", "own", "uniform", "none")
    }
    return {
        "mse_pre": tiny["pre (lx 1)", 1]["mse"],
        "mse_lx_0.5": tiny["lx 0.5", 1]["mse"],
        "mse_lx_0": _clean(tiny["lx 0", 1]["mse"]),
        "mse_pre_16_draws": tiny["pre (lx 1)", 16]["mse"],
        "mse_pre_infinite_draws": tiny["pre (lx 1)", math.inf]["mse"],
        "bias_max_full": tiny["max_full", 1]["bias"],
        "mse_max_full": tiny["max_full", 1]["mse"],
        "correlation_pre": tiny["pre (lx 1)", 1]["correlation"],
        "correlation_max_full": tiny["max_full", 1]["correlation"],
        "common_numbers_variance_ratio_least": min(r["ratio"] for r in numbers),
    }


def _demand(problem: Problem) -> str:
    return "own" if problem.demand is None else "x".join(map(str, problem.demand))


def full(fresh: bool) -> tuple[Rows, Rows]:
    """The run whose results are kept; goes on after the last problem that is there."""
    if fresh:
        for path in (SAMPLES, NUMBERS, ENVIRONMENT):
            path.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "numba")
    done = {(r["instance"], r["demand"], r["policy"]) for r in measure.read_rows(SAMPLES)}
    for problem, size in FULL.items():
        if (problem.instance, _demand(problem), problem.policy) in done:
            continue
        setting = Setting(problem)
        found = list(measure_problem(setting, size))
        others = measure_numbers(setting, copies=400) if problem in MAIN else []
        for path, new in ((NUMBERS, others), (SAMPLES, found)):  # a stop in between is a matter of milliseconds
            for row in new:
                measure.append_row(path, row)
        print(*problem, len(found), "rows", flush=True)
    rows, numbers = ([typed(r) for r in measure.read_rows(path)] for path in (SAMPLES, NUMBERS))
    note = measure.describe(measure.read_json(ENVIRONMENT))
    for name, text in tables(rows, numbers).items():
        measure.write_between_markers(README, name, text)
    measure.write_between_markers(README, "machine", note)
    return rows, numbers


def tables(rows: Rows, numbers: Rows) -> dict[str, str]:
    """All tables, by the name of their markers in the README."""
    found = {
        "policies": policy_table(rows),
        "exact": exact_table(rows),
        "wrong_mse": error_table(rows, "mse", (1, 16)),
        "wrong_correlation": error_table(rows, "correlation", (1, 16)),
        "wrong_bias": error_table(rows, "bias", (1,)),
        "wrong_bias_squared": error_table(rows, "bias_squared", (1,)),
        "numbers": numbers_table(numbers),
    }
    if any(r["demand"] != "own" for r in rows):
        found["sweep"] = sweep_table(rows)
    return found


def quick() -> tuple[Rows, Rows]:
    """The tiny instance alone."""
    rows: list[dict[str, Any]] = []
    numbers: list[dict[str, Any]] = []
    for problem, size in QUICK.items():
        setting = Setting(problem)
        rows += measure_problem(setting, size)
        numbers += measure_numbers(setting, copies=100)
    return rows, numbers


def main() -> None:
    """Measure, print the tables and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    rows, numbers = quick() if options.quick else full(options.fresh)
    for name, text in tables(rows, numbers).items():
        print(f"\n{name}\n{text}")
    print(measure.describe(environment()))
    measure.print_result(**figures(rows, numbers))


if __name__ == "__main__":
    main()
