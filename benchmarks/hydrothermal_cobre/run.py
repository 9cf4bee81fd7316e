"""SDDP side by side with cobre-python on the same inflows: bounds, the exact optimum, and processor time.

python benchmarks/hydrothermal_cobre/run.py            # full run, about five minutes, resumable; writes the table
python benchmarks/hydrothermal_cobre/run.py --quick    # two rounds of the small cases, within a minute
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

import numpy as np  # noqa: E402
from peers import client  # noqa: E402

from orl.envs.hydrothermal.builders import hydrothermal  # noqa: E402
from orl.envs.hydrothermal.cobre_export import case_tables  # noqa: E402
from orl.envs.hydrothermal.generators import cascade  # noqa: E402
from orl.envs.hydrothermal.instance import HydrothermalInstance  # noqa: E402
from orl.envs.hydrothermal.library import load  # noqa: E402
from orl.solvers.hydrothermal.scenario_tree import tree_cost  # noqa: E402
from orl.solvers.hydrothermal.sddp import SDDP  # noqa: E402

FOLDER = Path(__file__).resolve().parent
RUNS, ENVIRONMENT = FOLDER / "results" / "runs.csv", FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

ITERATIONS = {"1dtoy": 128, "tri3": 128, "cascade-8x5": 60}
LONG = 800  # iterations after which the bounds of the small cases no longer move
REPETITIONS = 5
AGREE = 1e-6  # relative; cobre's costs of 1e-7 in place of 0 are part of it
OURS, THEIRS, SELECTING = "orl", "cobre", "cobre, level-1"


def one_dimensional_toy() -> HydrothermalInstance:
    """The data of cobre's example 1dtoy, its inflows drawn anew; months of 720 hours, no discounting."""
    rng = np.random.default_rng(20260401)
    inflows = np.maximum(40 + 10 * rng.standard_normal((4, 1, 10)), 0)
    hours = 720.0
    return hydrothermal(
        name="1dtoy",
        horizon=4,
        network="copper",
        stage_hours=hours,
        production_factor=[1.0],
        max_volume=[1000.0],
        initial_volume=[83.222],
        max_outflow=[50.0],
        spill_costs=[0.01 / (0.0036 * hours)],
        inflows=inflows,
        max_power=[0.50, 0.15, 0.15],
        generator_costs=[5.0, 500.0, 1000.0],
        plant_generator=[0],
        demand=[[0.75]],
        deficit_cost=100_000.0,
    )


def instance_of(case: str) -> HydrothermalInstance:
    """An instance that both sides can express."""
    if case == "1dtoy":
        return one_dimensional_toy()
    if case == "tri3":
        return load("tri3")
    instance = cascade(8, 5, 3, horizon=12, network="transport")
    return replace(instance, name=case, spill_to=instance.turbine_to)


@cache
def exact(case: str) -> tuple[float, float]:
    """Optimum over the tree of inflows in USD (NaN where it is too large), and the seconds that it took."""
    if case.startswith("cascade"):
        return float("nan"), float("nan")
    instance, began = instance_of(case), time.process_time()
    return tree_cost(instance) * instance.stage_hours, time.process_time() - began


def ours(case: str, iterations: int, seed: int) -> dict[str, Any]:
    """Bound in USD and seconds of our SDDP; the first iteration, which builds the programmes, is not timed."""
    instance = instance_of(case)
    sddp = SDDP(instance, seed=seed)
    sddp.train(iterations=1)
    cpu, wall = time.process_time(), time.perf_counter()
    sddp.train(iterations=iterations - 1)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    bounds = [row.lower_bound * instance.stage_hours for row in sddp.rows]
    return {"bounds": bounds, "cpu_seconds": cpu, "wall_seconds": wall}


def theirs(worker: client.Worker, case: str, iterations: int, seed: int, selecting: bool = False) -> dict[str, Any]:
    """The same of cobre."""
    tables = case_tables(instance_of(case), iterations=iterations, seed=seed)
    answer = worker.call("load", tables=tables)
    if not answer["valid"]:
        raise SystemExit(f"cobre refuses {case}: {answer['errors']}")
    config = tables["config.json"]
    if selecting:
        config["training"]["cut_selection"] = {"selection": {"method": "level1", "check_frequency": 20}}
    return worker.call("train", config=config)


def row_of(case: str, contender: str, repetition: int, iterations: int, sample: dict[str, Any]) -> dict[str, Any]:
    """A line of the results; a bound above the exact optimum ends the benchmark."""
    instance, (optimum, _) = instance_of(case), exact(case)
    bounds = sample["bounds"]
    if len(bounds) != iterations or any(later < bound * (1 - 1e-9) for bound, later in pairwise(bounds)):
        raise SystemExit(f"{case}, {contender}: {len(bounds)} bounds, not {iterations} that rise")
    if bounds[-1] > optimum * (1 + AGREE):
        raise SystemExit(f"{case}, {contender}: the bound {bounds[-1]} exceeds the optimum {optimum}")
    lps = (iterations - 1) * instance.horizon * (1 + instance.n_columns)
    return {
        "case": case,
        "contender": contender,
        "repetition": repetition,
        "iterations": iterations,
        "bound_usd": f"{bounds[-1]:.10g}",
        "optimum_usd": "" if np.isnan(optimum) else f"{optimum:.10g}",
        "cpu_seconds": sample["cpu_seconds"],
        "wall_seconds": sample["wall_seconds"],
        "lps_per_cpu_second": lps / sample["cpu_seconds"],
    }


def measure_case(
    worker: client.Worker, case: str, iterations: int, repetitions: int, first: int = 0
) -> list[dict[str, Any]]:
    """Rounds of all contenders; round r has seed r."""
    rows = []
    for repetition in range(first, repetitions):
        contenders = {
            OURS: lambda: ours(case, iterations, repetition),  # noqa: B023
            THEIRS: lambda: theirs(worker, case, iterations, repetition),  # noqa: B023
            SELECTING: lambda: theirs(worker, case, iterations, repetition, selecting=True),  # noqa: B023
        }
        if iterations == LONG:
            del contenders[SELECTING]
        names = list(contenders) if repetition % 2 == 0 else [*reversed(contenders)]
        for contender in names:
            rows.append(row_of(case, contender, repetition, iterations, contenders[contender]()))
            print(*rows[-1].values(), flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a case, number of iterations and contender: medians over the rounds, and ratios of processor time."""
    lines = []
    for case, iterations in dict.fromkeys((row["case"], int(row["iterations"])) for row in rows):
        here = [row for row in rows if (row["case"], int(row["iterations"])) == (case, iterations)]
        best = max(float(row["bound_usd"]) for row in here)
        for contender in (OURS, THEIRS, SELECTING):
            mine = [row for row in here if row["contender"] == contender]
            if not mine:
                continue
            optimum = float(mine[0]["optimum_usd"] or best)
            bound = measure.median(float(row["bound_usd"]) for row in mine)
            lines.append(
                {
                    "case": case,
                    "iterations": iterations,
                    "contender": contender,
                    "rounds": len(mine),
                    "bound_kusd": f"{bound / 1000:.4f}",
                    "optimum_kusd": f"{float(mine[0]['optimum_usd']) / 1000:.4f}" if mine[0]["optimum_usd"] else "",
                    "gap": f"{(optimum - bound) / optimum:.1e}",
                    "cpu_seconds": measure.median(float(row["cpu_seconds"]) for row in mine),
                    "lps_per_cpu_second": measure.median(float(row["lps_per_cpu_second"]) for row in mine),
                    "ratio_vs_cobre": _ratio(here, contender),
                }
            )
    return lines


def _ratio(rows: list[dict[str, Any]], contender: str) -> float:
    """Processor time of cobre's defaults over a contender's, median over rounds; above 1: the contender is faster."""
    seconds = {(row["contender"], row["repetition"]): float(row["cpu_seconds"]) for row in rows}
    return measure.median(seconds[THEIRS, r] / value for (name, r), value in seconds.items() if name == contender)


def figures(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the RESULT line; without a case's name they are those of the example of cobre."""
    out: dict[str, Any] = {}
    for line in lines:
        name = line["case"].replace("-", "_") + ("_long" if line["iterations"] == LONG else "")
        key = "" if name == "1dtoy" else f"_{name}"
        if line["contender"] == OURS:
            out[f"ratio_vs_cobre{key}"] = line["ratio_vs_cobre"]
            if line["optimum_kusd"]:
                out[f"optimum_kusd{key}"] = float(line["optimum_kusd"])
        if line["contender"] != SELECTING:
            out[f"gap_{line['contender']}{key}"] = float(line["gap"])
    return out


def require_equal_bounds(lines: list[dict[str, Any]]) -> None:
    """After many iterations both bounds are the exact optimum."""
    for line in lines:
        if line["iterations"] == LONG and abs(float(line["gap"])) > AGREE:
            raise SystemExit(f"{line['case']}, {line['contender']}: gap {line['gap']} after {LONG} iterations")


def environment(worker: client.Worker) -> dict[str, Any]:
    """Machine and versions of this run."""
    versions = worker.call("load", tables=case_tables(load("tri3")))["versions"]
    theirs = {f"cobre's {key}" if key == "python" else key: value for key, value in versions.items()}
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "highspy") | theirs


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    client.ensure_installed("cobre")
    with client.peer("cobre") as worker:
        if options.quick:
            jobs = [("1dtoy", 128, 2), ("tri3", 128, 2), ("1dtoy", LONG, 1)]
            rows = [row for job in jobs for row in measure_case(worker, *job)]
        else:
            if options.fresh:
                RUNS.unlink(missing_ok=True)
                ENVIRONMENT.unlink(missing_ok=True)
            measure.same_machine(ENVIRONMENT, environment(worker), "highspy", "cobre-python")
            jobs = [(case, iterations, REPETITIONS) for case, iterations in ITERATIONS.items()]
            jobs += [(case, LONG, 1) for case in ("1dtoy", "tri3")]
            for case, iterations, repetitions in jobs:
                where = {"case": case, "iterations": str(iterations)}
                contenders = (OURS, THEIRS) if iterations == LONG else (OURS, THEIRS, SELECTING)
                done = measure.complete_rounds(RUNS, contenders, **where)
                for row in measure_case(worker, case, iterations, repetitions, done):
                    measure.append_row(RUNS, row)
            rows = measure.read_rows(RUNS)
        lines = summary(rows)
        require_equal_bounds(lines)
        now = environment(worker)
    print(measure.table(lines))
    print(measure.describe(now))
    for case in ("1dtoy", "tri3"):
        print(f"exact tree of {case}: {exact(case)[1]:.2f} s")
    if not options.quick:
        note = measure.describe(measure.read_json(ENVIRONMENT))
        measure.write_between_markers(README, "table", f"{measure.table(lines)}\n\n{note}")
    measure.print_result(**figures(lines))


if __name__ == "__main__":
    main()
