"""Steps a second of the job-shop environments beside four peers, one thread each, in turn.

    python benchmarks/job_shop_throughput/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/job_shop_throughput/run.py --quick    # within a minute once the peers are installed

Every contender runs in its own process and virtual environment through the same loop (``benchmarks/peers/serve.py``):
random legal actions, reset at the end of an episode. The rate is transitions by CPU-seconds inside reset, step and the
reading of the legal actions, for all contenders alike; the rate of the whole loop, random choice included, is beside.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orl.envs.job_shop import library
from orl.envs.job_shop.instance import Schedule, ShopInstance

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure
from ours import instance_arrays
from peers import client

FOLDER = Path(__file__).resolve().parent
COPIES = 64
PEERS = ("job_shop_cp_env", "jssenv", "job_shop_lib", "graph_jsp_env")
BATCH, SINGLE = f"orl_batch_{COPIES}", "orl_single"
ORDER = ("job_shop_cp_env", BATCH, "jssenv", SINGLE, "job_shop_lib", "graph_jsp_env")
TITLES = {
    "job_shop_cp_env": "job-shop-cp-env 1.0.0 (compiled)",
    "jssenv": "jssenv 1.1.0",
    "job_shop_lib": "job-shop-lib 1.7.2 SingleJobShopGraphEnv",
    "graph_jsp_env": "graph-jsp-env 1.1.1",
    BATCH: f"orl, {COPIES} copies",
    SINGLE: "orl, single",
}
SAME_MDP = ("job_shop_cp_env", BATCH, SINGLE)
MEAN_RANDOM_MAKESPAN_TA01 = 1839.0  # of the MDP that job-shop-cp-env and orl share; measured over thousands of episodes
RANDOM_MAKESPAN_DEVIATION_TA01 = 125.0  # standard deviation between episodes

SAMPLES = FOLDER / "results" / "samples.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"


class Plan(NamedTuple):
    """How one instance is measured; ``check_episodes``: compare whole episodes first, not only the arrays."""

    instance: str
    contenders: tuple[str, ...]
    repetitions: int
    seconds: float
    warm_up: float
    check_episodes: bool


FULL = (
    Plan("ta01", ORDER, 7, 5.0, 2.0, True),
    Plan("ta41", ORDER, 7, 5.0, 2.0, True),
    Plan("ta71", ORDER, 7, 5.0, 2.0, False),
)
QUICK = (
    Plan("ta01", ORDER, 5, 0.5, 0.2, True),
    Plan("ta41", ORDER[:4], 2, 0.3, 0.1, False),
    Plan("ta71", ORDER[:4], 2, 0.3, 0.1, False),
)


def start(name: str) -> client.Worker:
    """A worker process of a contender."""
    if name == BATCH:
        return client.ours(name, FOLDER / "ours.py", "batch", str(COPIES))
    if name == SINGLE:
        return client.ours(name, FOLDER / "ours.py", "single")
    return client.peer(name)


def check_equal_work(instance: ShopInstance, workers: dict[str, client.Worker]) -> None:
    """Every contender's own schedule passes our checker, and the shared MDP gives the same masks action by action."""
    episodes = {name: worker.call("episode") for name, worker in workers.items()}
    for name, episode in episodes.items():
        start_times = np.asarray(episode["starts"], np.int32).ravel()
        check = instance.check(Schedule(start_times, np.zeros(instance.n_ops, np.int32)))
        if not check.feasible or check.objective != episode["makespan"]:
            raise SystemExit(f"{name}: its schedule is not one of {instance.name}: {check}")
    reference = episodes[SINGLE]
    for name in SAME_MDP:
        replayed = workers[name].call("replay", actions=reference["actions"])
        if replayed["makespan"] != reference["makespan"] or replayed["starts"] != reference["starts"]:
            raise SystemExit(f"{name}: the same actions give another schedule of {instance.name}")
        n = len(reference["actions"])  # terminal masks differ by design: ours marks the no-op
        if replayed["masks"][:n] != reference["masks"][:n]:
            raise SystemExit(f"{name}: the same actions meet other masks on {instance.name}")
    print(
        f"{instance.name}: equal work checked: instance arrays and schedules of all, "
        f"masks of {', '.join(SAME_MDP)} over {len(reference['actions'])} actions"
    )


def measure_instance(plan: Plan, on_sample: Any, rounds_done: int = 0) -> dict[str, Any]:
    """Measure one instance, calling ``on_sample(row)`` for every sample; returns their builds and versions."""
    instance = library.load(plan.instance)
    machines, durations = (array.tolist() for array in instance_arrays(instance))
    workers: dict[str, client.Worker] = {}
    try:
        for name in plan.contenders:
            workers[name] = start(name)
            workers[name].send("load", machines=machines, durations=durations, seed=rounds_done)
        loaded = {name: worker.receive() for name, worker in workers.items()}
        for name, answer in loaded.items():
            if answer["machines"] != machines or answer["durations"] != durations:
                raise SystemExit(f"{name} holds another instance than {plan.instance}")
        if plan.check_episodes:
            check_equal_work(instance, workers)
        for worker in workers.values():
            worker.call("run", seconds=plan.warm_up)
        contenders = {
            name: (lambda worker=worker: worker.call("run", seconds=plan.seconds)) for name, worker in workers.items()
        }
        for repetition, name, sample in measure.interleaved(contenders, plan.repetitions - rounds_done):
            makespans = sample["makespans"]
            on_sample(
                {
                    "instance": plan.instance,
                    "repetition": rounds_done + repetition,
                    "contender": name,
                    "steps": sample["steps"],
                    "env_cpu_seconds": sample["env_cpu_seconds"],
                    "loop_cpu_seconds": sample["loop_cpu_seconds"],
                    "wall_seconds": sample["wall_seconds"],
                    "peak_memory_mb": sample["peak_memory_mb"],
                    "episodes": len(makespans),
                    "mean_makespan": float(np.mean(makespans)) if makespans else float("nan"),
                    "date": measure.today(),
                }
            )
    finally:
        for worker in workers.values():
            worker.close()
    return {name: ", ".join([a["build"], *map(" ".join, a["versions"].items())]) for name, a in loaded.items()}


def summary(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One row for each instance and contender: medians over the repetitions, and ours over theirs."""
    out: list[dict[str, Any]] = []
    for instance in dict.fromkeys(row["instance"] for row in rows):
        mine = {
            name: [row for row in rows if row["instance"] == instance and row["contender"] == name] for name in ORDER
        }
        rates = {name: [float(r["steps"]) / float(r["env_cpu_seconds"]) for r in mine[name]] for name in ORDER}
        rate = {name: measure.median(rates[name]) for name in ORDER}
        for name in ORDER:
            samples = mine[name]
            if not samples:
                continue
            episodes = sum(int(r["episodes"]) for r in samples)
            total = sum(int(r["episodes"]) * float(r["mean_makespan"]) for r in samples if int(r["episodes"]))
            out.append(
                {
                    "instance": instance,
                    "environment": TITLES[name],
                    "contender": name,
                    "steps/CPU-s": rate[name],
                    "spread": measure.spread(rates[name]),
                    "whole loop": measure.median(float(r["steps"]) / float(r["loop_cpu_seconds"]) for r in samples),
                    f"orl x{COPIES} is": None if name in SAME_MDP[1:] else rate[BATCH] / rate[name],
                    "orl single is": None if name in SAME_MDP[1:] else rate[SINGLE] / rate[name],
                    "memory MiB": max(float(r["peak_memory_mb"]) for r in samples),
                    "episodes": episodes,
                    "mean makespan": total / episodes if episodes else None,
                }
            )
    return out


def check_random_makespan(rows: list[dict[str, Any]]) -> None:
    """On ta01 the random policy must give everybody of the shared MDP the same mean makespan.

    Within 5 %, and three standard errors where a slow environment completed few episodes.
    """
    for row in rows:
        if row["instance"] == "ta01" and row["contender"] in SAME_MDP and row["episodes"]:
            allowed = 0.05 * MEAN_RANDOM_MAKESPAN_TA01 + 3 * RANDOM_MAKESPAN_DEVIATION_TA01 / row["episodes"] ** 0.5
            if abs(row["mean makespan"] - MEAN_RANDOM_MAKESPAN_TA01) > allowed:
                raise SystemExit(
                    f"{row['contender']}: random makespan {row['mean makespan']:.0f} over {row['episodes']} episodes "
                    f"on ta01, expected {MEAN_RANDOM_MAKESPAN_TA01:.0f} within {allowed:.0f}: not the same work"
                )


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of the RESULT line, all for ta01."""
    by_name = {row["contender"]: row for row in rows if row["instance"] == "ta01"}
    rate = {name: row["steps/CPU-s"] for name, row in by_name.items()}
    loop = {name: row["whole loop"] for name, row in by_name.items()}
    return {
        **{f"ratio_vs_{peer}": rate[BATCH] / rate[peer] for peer in PEERS},
        **{f"single_ratio_vs_{peer}": rate[SINGLE] / rate[peer] for peer in PEERS},
        "whole_loop_ratio_vs_job_shop_cp_env": loop[BATCH] / loop["job_shop_cp_env"],
        "whole_loop_ratio_vs_jssenv": loop[BATCH] / loop["jssenv"],
        "steps_per_s_ta01": rate[BATCH],
        "single_steps_per_s_ta01": rate[SINGLE],
        "peak_memory_mb": by_name[BATCH]["memory MiB"],
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """The table that is printed and stands in the README."""
    return measure.table(rows, [column for column in (rows[0] if rows else {}) if column != "contender"])


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "numba", "gymnasium")


def quick() -> list[dict[str, Any]]:
    """Short samples that are printed and not kept."""
    samples: list[dict[str, str]] = []
    for plan in QUICK:
        measure_instance(plan, lambda row: samples.append({key: str(value) for key, value in row.items()}))
    return summary(samples)


def full(fresh: bool) -> list[dict[str, Any]]:
    """The run whose samples are kept; goes on after the last complete round of each instance."""
    if fresh:
        SAMPLES.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "numba")
    for plan in FULL:
        complete = measure.complete_rounds(SAMPLES, plan.contenders, instance=plan.instance)
        if complete < plan.repetitions:
            print(f"{plan.instance}: {plan.repetitions - complete} of {plan.repetitions} rounds to go", flush=True)
            builds = measure_instance(plan, lambda row: measure.append_row(SAMPLES, row), complete)
            measure.write_json(ENVIRONMENT, measure.read_json(ENVIRONMENT) | builds)
    rows = summary(measure.read_rows(SAMPLES))
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", shown(rows) + "\n\n" + note)
    return rows


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    measure.limit_threads(1)
    try:
        client.ensure_installed(*PEERS)
    except client.PeerMissing as error:
        raise SystemExit(f"ERROR: {error}") from None
    rows = quick() if options.quick else full(options.fresh)
    print(shown(rows))
    print(measure.describe(environment()))
    check_random_makespan(rows)
    measure.print_result(**figures(rows))


if __name__ == "__main__":
    main()
