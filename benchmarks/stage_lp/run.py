"""The stage programme of the Bolivian system, solved in six ways, and the environment on top of the fastest.

python benchmarks/stage_lp/run.py            # full run, about 5 minutes on one thread, resumable
python benchmarks/stage_lp/run.py --quick    # within a minute
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

import numpy as np  # noqa: E402
import scipy.sparse as sparse  # noqa: E402
from scipy.optimize import linprog  # noqa: E402

from orl.envs.hydrothermal.dual_pool import DualPool  # noqa: E402
from orl.envs.hydrothermal.env import HydrothermalEnv  # noqa: E402
from orl.envs.hydrothermal.library import load  # noqa: E402
from orl.envs.hydrothermal.reach import ReachableMap  # noqa: E402
from orl.envs.hydrothermal.stage_lp import StageLP  # noqa: E402
from orl.envs.hydrothermal.stage_model import COST_SCALE  # noqa: E402
from orl.envs.hydrothermal.vector import HydrothermalVectorEnv  # noqa: E402
from orl.solvers.hydrothermal.pyomo_stage import build_model, solve_model, water_values  # noqa: E402

FOLDER = Path(__file__).resolve().parent
SAMPLES, ENVIRONMENT = FOLDER / "results" / "samples.csv", FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"
WEIGHTS = FOLDER.parent / "hydrothermal_bolivia" / "results" / "tsddr_lstm.zip"
PACKAGES = ("numpy", "numba", "highspy", "scipy", "pyomo")

INSTANCE = load("bolivia")
POOL, WARM, COLD, REBUILT = "pool", "highspy, warm", "highspy, cold start", "highspy, rebuilt"
PYOMO, SCIPY = "Pyomo, HiGHS", "scipy linprog"
ENV, SINGLE = "env, batch of 64", "env, single"
VISITED, RANDOM = "visited", "random"
COPIES, PATHS = 64, 16
ROUNDS, SECONDS = 7, 1.0

Sampler = Callable[[float], tuple[int, float, float]]
"""CPU-seconds to spend to work done, CPU-seconds and wall seconds."""


# ---- right-hand sides ------------------------------------------------------------------------------------------------
def played(n_paths: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions float32[T, N, n] of the trained policy on fresh paths; right-hand sides float64[N * T, n] it meets."""
    import orl

    model = orl.TSDDR.load(WEIGHTS, device="cpu")
    envs = HydrothermalVectorEnv(n_paths, INSTANCE, autoreset_mode="DISABLED")
    observation, _ = envs.reset(seed=seed)
    state, first, actions = None, np.ones(n_paths, bool), []
    for _ in range(INSTANCE.horizon):
        chosen, state = model.predict(observation, state=state, episode_start=first, deterministic=True)
        observation, _, _, _, infos = envs.step(chosen)
        actions.append(chosen)
        first[:] = False
    rhs = []
    for plan in infos["solution"]:
        inflows = INSTANCE.path_inflows(plan.columns)
        rhs.append(plan.volumes[:-1] + INSTANCE.water_factor * inflows - plan.volumes[1:])
    return np.stack(actions), np.concatenate(rhs)


def hit_rate_on_fresh_paths() -> float:
    """Share of right-hand sides on 16 fresh paths that a pool knows which has met 64 other ones."""
    pool = DualPool(INSTANCE)
    pool.costs_and_duals(played(64, 10_000)[1])
    solved = pool.counts.solved
    fresh = played(16, 20_000)[1]
    pool.costs_and_duals(fresh)
    return 1 - (pool.counts.solved - solved) / len(fresh)


def at_random(count: int) -> np.ndarray:
    """Right-hand sides float64[Q, n] of random volumes, inflows and reachable fractions."""
    rng = np.random.default_rng(1)
    volumes = rng.uniform(0, 1, (count, INSTANCE.n_plants)) * INSTANCE.max_volume
    rows, columns = rng.integers(len(INSTANCE.inflows), size=count), rng.integers(INSTANCE.n_columns, size=count)
    inflows = INSTANCE.inflows[rows, :, columns]
    after = ReachableMap(INSTANCE)(volumes, inflows, rng.uniform(0, 1, volumes.shape)).volumes
    return volumes + INSTANCE.water_factor * inflows - after


# ---- ways to solve ---------------------------------------------------------------------------------------------------
def solve_rebuilt(query: np.ndarray) -> tuple[float, np.ndarray]:
    """A programme made for one right-hand side."""
    solution = StageLP(INSTANCE).solve(query)
    return solution.cost, solution.duals


def by_scipy() -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """``linprog`` on the same arrays."""
    model = StageLP(INSTANCE).model
    equal = model.row_lower == model.row_upper
    limits = np.stack([model.lower, model.upper], axis=1)
    matrix = sparse.csr_array(model.matrix)
    unequal = sparse.vstack([matrix[~equal], -matrix[~equal]])
    above = np.concatenate([model.row_upper[~equal], -model.row_lower[~equal]])
    n = INSTANCE.n_plants

    def solve(query: np.ndarray) -> tuple[float, np.ndarray]:
        right = model.row_lower[equal].copy()
        right[:n] = query
        found = linprog(
            model.costs, A_ub=unequal, b_ub=above, A_eq=matrix[equal], b_eq=right, bounds=limits, method="highs"
        )
        return found.fun / COST_SCALE, found.eqlin.marginals[:n] / COST_SCALE

    return solve


def one_by_one(solve: Callable[[np.ndarray], tuple[float, np.ndarray]], queries: np.ndarray) -> Sampler:
    """Solve the queries in turn, over and over, until the time is over."""

    def run(seconds: float) -> tuple[int, float, float]:
        cpu, wall, done = time.process_time(), time.perf_counter(), 0
        while time.process_time() - cpu < seconds:
            solve(queries[done % len(queries)])
            done += 1
        return done, time.process_time() - cpu, time.perf_counter() - wall

    return run


def in_batches(pool: DualPool, queries: np.ndarray) -> Sampler:
    """All queries at once, costs and duals, over and over; the bases they need are there."""
    pool.costs_and_duals(queries)

    def run(seconds: float) -> tuple[int, float, float]:
        cpu, wall, done = time.process_time(), time.perf_counter(), 0
        while time.process_time() - cpu < seconds:
            pool.costs_and_duals(queries)
            done += len(queries)
        return done, time.process_time() - cpu, time.perf_counter() - wall

    return run


def ways(queries: np.ndarray) -> dict[str, Sampler]:
    """The contenders on the same right-hand sides, checked: equal costs, and duals that price equally."""
    warm, cold, model = StageLP(INSTANCE), StageLP(INSTANCE), build_model(INSTANCE, form="strict")

    def solve_warm(query: np.ndarray) -> tuple[float, np.ndarray]:
        _, duals = warm.run(query)
        return warm.cost, duals

    def solve_cold(query: np.ndarray) -> tuple[float, np.ndarray]:
        cold.restart()
        _, duals = cold.run(query)
        return cold.cost, duals

    def solve_pyomo(query: np.ndarray) -> tuple[float, np.ndarray]:
        return solve_model(model, query), water_values(model)

    solvers = {WARM: solve_warm, COLD: solve_cold, REBUILT: solve_rebuilt, PYOMO: solve_pyomo, SCIPY: by_scipy()}
    pool = DualPool(INSTANCE)
    check = queries[:: max(len(queries) // 20, 1)]
    costs, duals = pool.costs_and_duals(check)
    for name, solve in solvers.items():
        for query, cost, dual in zip(check, costs, duals, strict=True):
            theirs, slope = solve(query)
            # Several duals may be optimal: each must bound the cost at every other right-hand side.
            below = theirs + (check - query) @ slope <= costs * (1 + 1e-7) + 1e-4
            mine = cost + (check - query) @ dual <= costs * (1 + 1e-7) + 1e-4
            if abs(theirs - cost) > 1e-6 * max(abs(cost), 1.0) or not below.all() or not mine.all():
                raise SystemExit(f"{name}: {theirs} and {cost} for the right-hand side {query.tolist()}")
    return {POOL: in_batches(pool, queries)} | {name: one_by_one(solve, queries) for name, solve in solvers.items()}


def environments() -> dict[str, Sampler]:
    """The environment stepped with the actions of a trained policy, drawn beforehand, on the same paths again."""
    table, _ = played(COPIES, 0)
    seeds = np.arange(COPIES)

    def batch_run(seconds: float) -> tuple[int, float, float]:
        cpu, wall, done = time.process_time(), time.perf_counter(), 0
        while time.process_time() - cpu < seconds:
            envs.reset(seed=seeds.tolist())
            for chosen in table:
                envs.step(chosen)
            done += table.shape[0] * COPIES
        return done, time.process_time() - cpu, time.perf_counter() - wall

    def single_run(seconds: float) -> tuple[int, float, float]:
        cpu, wall, done = time.process_time(), time.perf_counter(), 0
        while time.process_time() - cpu < seconds:
            single.reset(seed=0)
            for chosen in table[:, 0]:
                single.step(chosen)
            done += len(table)
        return done, time.process_time() - cpu, time.perf_counter() - wall

    envs, single = HydrothermalVectorEnv(COPIES, INSTANCE, autoreset_mode="DISABLED"), HydrothermalEnv(INSTANCE)
    batch_run(0.0)  # fills the pools
    single_run(0.0)
    return {ENV: batch_run, SINGLE: single_run}


# ---- the run ---------------------------------------------------------------------------------------------------------
def cases(quick: bool) -> dict[str, Callable[[], dict[str, Sampler]]]:
    """What is measured, by kind of work."""
    return {
        VISITED: lambda: ways(played(4 if quick else PATHS, 1000)[1]),
        RANDOM: lambda: ways(at_random(256 if quick else 1024)),
        "stepping": environments,
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Median rate by CPU-seconds of each contender, and how many times that of warm highspy."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == case]
        rates: dict[str, list[float]] = {}
        for row in mine:
            rates.setdefault(row["contender"], []).append(float(row["work"]) / float(row["cpu_seconds"]))
        warm = measure.median(rates[WARM]) if WARM in rates else None
        for name, values in rates.items():
            middle = measure.median(values)
            ratio = None if warm is None else middle / warm
            lines.append(
                {
                    "work": f"{case} right-hand sides" if warm else case,
                    "way": name,
                    "a CPU-second": middle,
                    "spread": measure.spread(values),
                    "ratio to warm highspy": ratio,
                }
            )
    return lines


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the RESULT line."""
    found = {(line["work"], line["way"]): line for line in summary(rows)}
    out: dict[str, Any] = {}
    for case, key in ((VISITED, ""), (RANDOM, "_random")):
        line = found.get((f"{case} right-hand sides", POOL))
        out[f"pool_ratio_vs_warm_highspy{key}"] = line and line["ratio to warm highspy"]
    for way, key in ((ENV, "env_steps_per_s"), (SINGLE, "single_env_steps_per_s")):
        line = found.get(("stepping", way))
        out[key] = line and line["a CPU-second"]
    return out | {"pool_hit_rate_fresh_paths": hit_rate_on_fresh_paths()}


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions(*PACKAGES)


def main() -> None:
    """Measure in turn, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    if not options.quick:
        if options.fresh:
            SAMPLES.unlink(missing_ok=True)
            ENVIRONMENT.unlink(missing_ok=True)
        measure.same_machine(ENVIRONMENT, environment(), *PACKAGES)
    rounds, seconds = (3, 0.25) if options.quick else (ROUNDS, SECONDS)
    for case, make in cases(options.quick).items():
        contenders = make()
        done = 0 if options.quick else measure.complete_rounds(SAMPLES, contenders, case=case)
        if done >= rounds:
            continue
        runs = {name: (lambda run=run: run(seconds)) for name, run in contenders.items()}
        for repetition, name, (work, cpu, wall) in measure.interleaved(runs, rounds - done):
            row = {"case": case, "contender": name, "repetition": done + repetition}
            row |= {"work": work, "cpu_seconds": cpu, "wall_seconds": wall}
            rows.append(row)
            if not options.quick:
                measure.append_row(SAMPLES, row)
    if not options.quick:
        rows = list(measure.read_rows(SAMPLES))
    found = figures(rows)
    if not options.quick:
        known = f"Of right-hand sides on fresh paths the pool knows {100 * found['pool_hit_rate_fresh_paths']:.2f} %."
        note = measure.describe(measure.read_json(ENVIRONMENT))
        measure.write_between_markers(README, "table", f"{measure.table(summary(rows))}\n\n{known}\n\n{note}")
    print(measure.table(summary(rows)))
    print(measure.describe(environment()))
    measure.print_result(**found)


if __name__ == "__main__":
    main()
