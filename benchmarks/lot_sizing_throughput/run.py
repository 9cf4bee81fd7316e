"""Steps a second of the lot-sizing environments beside the authors' SimplePlant, and of PPO on them, in turn.

    python benchmarks/lot_sizing_throughput/run.py            # full run, resumable; writes results/ and README tables
    python benchmarks/lot_sizing_throughput/run.py --quick    # within a minute once the peer is installed

One thread each. Rates are by CPU-seconds of the loop: actions are drawn beforehand, episodes are reset at their end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure
from peers import client

measure.limit_threads(1)

import numpy as np  # noqa: E402

from orl.common.action_masks import random_legal_actions  # noqa: E402
from orl.envs.lot_sizing import library  # noqa: E402
from orl.envs.lot_sizing.env import LotSizingEnv  # noqa: E402
from orl.envs.lot_sizing.instance import LotSizingInstance  # noqa: E402
from orl.envs.lot_sizing.vector import LotSizingVectorEnv  # noqa: E402

FOLDER = Path(__file__).resolve().parent
SAMPLES = FOLDER / "results" / "samples.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

PEER = "discrete_lot_sizing"
INSTANCES = ("ls-15x5-s0", "ls-4x2")
COPIES = (64, 1024)
DRAWS = 15
STEPPING, DRAWING, LEARNING = "stepping", "drawing", "learning"
AUTHORS, SINGLE, BATCH, PLAIN, DRAWN = "SimplePlant", "orl, single", "orl, batch", "step", f"step and {DRAWS} draws"
SB3, FAST = "SB3 PPO, DummyVecEnv", "FastPPO, native batch"
ACTIONS_AHEAD = 16
ROUNDS, SECONDS = 7, 1.0


# ---- the same instance and the same transitions ----------------------------------------------------------------------
def settings_of(instance: LotSizingInstance) -> dict[str, Any]:
    """The instance in the authors' format (binomial demand, change-overs that do not depend on the item before)."""
    values, probabilities = instance.demand.table(0)
    n = int(values.max())
    p = float((values[0] * probabilities[0]).sum()) / n
    return {
        "time_horizon": instance.horizon,
        "n_items": instance.n_items,
        "n_machines": instance.n_machines,
        "initial_setup": instance.initial_setup.tolist(),
        "machine_production": instance.production.tolist(),
        "max_inventory_level": instance.max_inventory.tolist(),
        "initial_inventory": instance.initial_inventory.tolist(),
        "holding_costs": instance.holding_costs.tolist(),
        "lost_sales_costs": instance.lost_sales_costs.tolist(),
        "setup_costs": instance.setup_costs[:, 0].tolist(),
        "setup_loss": instance.setup_loss[:, 0].tolist(),
        "demand_distribution": {"name": "binomial", "n": n, "p": p},
    }


def check_equal_work(name: str, worker: client.Worker) -> None:
    """A random episode, illegal actions included, has the same stock and costs period by period in both."""
    instance = library.load(name)
    scenario = instance.scenario(1)
    env = LotSizingEnv(scenario, incompatible="reference", observation="raw")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, instance.n_items + 1, (instance.horizon, instance.n_machines))
    theirs = worker.call(
        "replay",
        inventory=scenario.initial_inventory.tolist(),
        setup=scenario.initial_setup.tolist(),
        demand=scenario.demand_path.tolist(),
        actions=actions.tolist(),
    )
    for t, action in enumerate(actions):
        observation = env.step(action)[0]
        setup_cost, *other = theirs["costs"][t]
        same_stock = observation[: instance.n_items].astype(int).tolist() == theirs["inventory"][t]
        costs = (setup_cost + env.reward_deterministic, sum(other) + env.reward_stochastic)
        if not same_stock or max(map(abs, costs)) > 1e-9:
            raise SystemExit(f"{name}: period {t} differs: {theirs['inventory'][t]}, {observation}, {costs}")
    print(f"{name}: equal work checked: stock and costs of {len(actions)} periods", flush=True)


# ---- samples ---------------------------------------------------------------------------------------------------------
def sample(steps: int, start: tuple[float, float]) -> dict[str, Any]:
    """Steps since ``start`` (CPU and wall clock)."""
    return {
        "steps": steps,
        "cpu_seconds": time.process_time() - start[0],
        "wall_seconds": time.perf_counter() - start[1],
    }


def clocks() -> tuple[float, float]:
    """CPU and wall clock now."""
    return time.process_time(), time.perf_counter()


def actions_ahead(space: Any, masks: Any) -> Any:
    """Legal actions [K, N, M] drawn beforehand."""
    rng = np.random.default_rng(0)
    return np.stack([random_legal_actions(space, masks, rng) for _ in range(ACTIONS_AHEAD)])


def step_batch(name: str, copies: int, draws: int = 0) -> Callable[[float], dict[str, Any]]:
    """Step a batch for some CPU-seconds, with ``draws`` further draws of the demand of every step."""
    env = LotSizingVectorEnv(copies, name)
    env.reset(seed=0)
    actions = actions_ahead(env.single_action_space, env.action_masks())

    def run(seconds: float) -> dict[str, Any]:
        steps, start = 0, clocks()
        while time.process_time() - start[0] < seconds:
            for chosen in actions:
                env.step(chosen)
                if draws:
                    env.exogenous_samples(draws)
            steps += copies * len(actions)
        return sample(steps, start)

    return run


def step_single(name: str) -> Callable[[float], dict[str, Any]]:
    """Step a single env for some CPU-seconds."""
    env = LotSizingEnv(name)
    env.reset(seed=0)
    actions = actions_ahead(env.action_space, env.action_masks()[None])[:, 0]

    def run(seconds: float) -> dict[str, Any]:
        steps, start = 0, clocks()
        while time.process_time() - start[0] < seconds:
            for action in actions:
                if env.step(action)[3]:
                    env.reset()
            steps += len(actions)
        return sample(steps, start)

    return run


def step_peer(worker: client.Worker, name: str, copies: int) -> Callable[[float], dict[str, Any]]:
    """Step the authors' env, ``copies`` of them in turn."""
    worker.call("load", settings=settings_of(library.load(name)), copies=copies)
    env = LotSizingVectorEnv(copies, name)
    actions = actions_ahead(env.single_action_space, env.action_masks()).tolist()

    def run(seconds: float) -> dict[str, Any]:
        answer = worker.call("run", seconds=seconds, actions=actions)
        return {key: answer[key] for key in ("steps", "cpu_seconds", "wall_seconds")}

    return run


def learn(name: str, instance: str) -> Callable[[float], dict[str, Any]]:
    """Learn for one rollout of 16 x 128 steps and its update; every action is legal in both (``waste``)."""
    import stable_baselines3 as sb3
    from stable_baselines3.common.vec_env import DummyVecEnv

    import orl
    from orl.fast.ppo import FastPPO

    options = {"instance": instance, "incompatible": "waste", "reward_scale": 0.1}
    model: Any
    if name == SB3:
        envs = DummyVecEnv([lambda: LotSizingEnv(**options) for _ in range(16)])
        model = sb3.PPO("MlpPolicy", envs, n_steps=128, seed=0, device="cpu")
    else:
        batch = orl.make_vec("orl:orl/LotSizing-v0", 16, **options)
        model = FastPPO("MlpPolicy", batch, n_steps=128, seed=0, device="cpu", engine="fast")

    model.learn(2048)  # now, since making the next model seeds the random numbers of the process again

    def run(seconds: float) -> dict[str, Any]:
        start, before = clocks(), model.num_timesteps
        model.learn(2048, reset_num_timesteps=False)
        return sample(model.num_timesteps - before, start)

    run.model = model  # type: ignore[attr-defined]
    return run


def check_equal_learning(contenders: dict[str, Any]) -> None:
    """After the same first rollout and update both have the same parameters."""
    one, other = (run.model.policy.state_dict() for run in contenders.values())
    largest = max(float((one[key] - other[key]).abs().max()) for key in one)
    if largest > 1e-5:
        raise SystemExit(f"SB3 and FastPPO learned different parameters: largest difference {largest:.2g}")
    print(f"learning: equal work checked: parameters after 2,048 steps differ by {largest:.1g} at most", flush=True)


# ---- the run ---------------------------------------------------------------------------------------------------------
def contenders_of(kind: str, name: str, copies: int, worker: client.Worker) -> dict[str, Any]:
    """What takes turns in a case; made when the case begins."""
    if kind == LEARNING:
        return {label: learn(label, name) for label in (SB3, FAST)}
    if kind == DRAWING:
        return {PLAIN: step_batch(name, copies), DRAWN: step_batch(name, copies, DRAWS)}
    ours = {SINGLE: step_single(name)} if copies == 1 else {BATCH: step_batch(name, copies)}
    return ({AUTHORS: step_peer(worker, name, copies)} if copies <= 64 else {}) | ours


def measure_case(
    case: tuple[str, str, int], worker: client.Worker, repetitions: int, seconds: float, done: int, on_sample: Any
) -> None:
    """Measure the rounds of a case that are missing, after a warm-up."""
    kind, name, copies = case
    contenders = contenders_of(kind, name, copies, worker)
    if AUTHORS in contenders and copies == 1:
        check_equal_work(name, worker)
    if kind == LEARNING:
        check_equal_learning(contenders)
    else:
        for run in contenders.values():
            run(0.2 * seconds)
    turns = {label: (lambda run=run: run(seconds)) for label, run in contenders.items()}
    for repetition, label, row in measure.interleaved(turns, repetitions - done):
        where = {"case": kind, "instance": name, "copies": copies, "repetition": done + repetition, "contender": label}
        on_sample({**where, **row, "date": measure.today()})


def names_of(kind: str, copies: int) -> tuple[str, ...]:
    """The contenders of a case by name."""
    if kind == STEPPING:
        return (*((AUTHORS,) if copies <= 64 else ()), SINGLE if copies == 1 else BATCH)
    return (PLAIN, DRAWN) if kind == DRAWING else (SB3, FAST)


PLAN = (
    *((STEPPING, name, copies) for name in INSTANCES for copies in (1, *COPIES)),
    *((DRAWING, name, 1024) for name in INSTANCES),
    (LEARNING, "ls-4x2", 16),
)


def summary(rows: list[dict[str, str]]) -> dict[str, list[dict[str, Any]]]:
    """For each kind of case one row a contender: medians over the rounds, and ratios."""
    out: dict[str, list[dict[str, Any]]] = {}
    for kind, name, copies in PLAN:
        case = [row for row in rows if (row["case"], row["instance"], row["copies"]) == (kind, name, str(copies))]
        rates = {
            label: [float(r["steps"]) / float(r["cpu_seconds"]) for r in case if r["contender"] == label]
            for label in names_of(kind, copies)
        }
        first = measure.median(next(iter(rates.values()))) if case else float("nan")
        for label, values in rates.items():
            if values:
                rate = measure.median(values)
                row = {"instance": name, "copies": copies, "contender": label, "steps/CPU-s": rate}
                ratio = None if label == next(iter(rates)) else rate / first
                out.setdefault(kind, []).append(row | {"spread": measure.spread(values), "times the first": ratio})
    return out


def figures(tables: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """The figures of the RESULT line."""
    found = {
        (kind, row["instance"], row["copies"], row["contender"]): row["steps/CPU-s"]
        for kind, rows in tables.items()
        for row in rows
    }
    large, small = INSTANCES
    out = {
        "ratio_vs_authors_env": found[STEPPING, large, 64, BATCH] / found[STEPPING, large, 64, AUTHORS],
        "ratio_vs_authors_env_4x2": found[STEPPING, small, 64, BATCH] / found[STEPPING, small, 64, AUTHORS],
        "single_ratio_vs_authors_env": found[STEPPING, large, 1, SINGLE] / found[STEPPING, large, 1, AUTHORS],
        "single_ratio_vs_authors_env_4x2": found[STEPPING, small, 1, SINGLE] / found[STEPPING, small, 1, AUTHORS],
        "steps_per_s_1024_15x5": found[STEPPING, large, 1024, BATCH],
        "steps_per_s_1024_4x2": found[STEPPING, small, 1024, BATCH],
        "time_of_15_draws_over_step_15x5": found[DRAWING, large, 1024, PLAIN] / found[DRAWING, large, 1024, DRAWN],
        "time_of_15_draws_over_step_4x2": found[DRAWING, small, 1024, PLAIN] / found[DRAWING, small, 1024, DRAWN],
        "ratio_vs_sb3_ppo_dummy": found[LEARNING, "ls-4x2", 16, FAST] / found[LEARNING, "ls-4x2", 16, SB3],
    }
    return out | {"peak_memory_mb": measure.peak_memory_mb()}


def shown(tables: dict[str, list[dict[str, Any]]]) -> str:
    """The tables that are printed and stand in the README."""
    titles = {
        STEPPING: "Stepping",
        DRAWING: f"A step, and a step with {DRAWS} further draws of its demand",
        LEARNING: "PPO: rollouts of 16 x 128 steps and updates",
    }
    return "\n\n".join(f"**{titles[kind]}**\n\n{measure.table(rows)}" for kind, rows in tables.items())


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    packages = ("numpy", "numba", "gymnasium", "torch", "stable-baselines3")
    return {"date": measure.today()} | measure.machine() | measure.versions(*packages)


def quick(worker: client.Worker) -> dict[str, list[dict[str, Any]]]:
    """Short samples that are printed and not kept."""
    samples: list[dict[str, str]] = []
    for kind, name, copies in PLAN:
        rounds = 1 if kind == LEARNING else 3
        collect = lambda row: samples.append({key: str(value) for key, value in row.items()})  # noqa: E731
        measure_case((kind, name, copies), worker, rounds, 0.3, 0, collect)
    return summary(samples)


def full(worker: client.Worker, fresh: bool) -> dict[str, list[dict[str, Any]]]:
    """The run whose samples are kept; goes on after the last complete round of each case."""
    if fresh:
        SAMPLES.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "numba")
    for kind, name, copies in PLAN:
        done = measure.complete_rounds(SAMPLES, names_of(kind, copies), case=kind, instance=name, copies=str(copies))
        if done < ROUNDS:
            measure_case(
                (kind, name, copies), worker, ROUNDS, SECONDS, done, lambda row: measure.append_row(SAMPLES, row)
            )
    tables = summary(measure.read_rows(SAMPLES))
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", shown(tables) + "\n\n" + note)
    return tables


def main() -> None:
    """Measure, print the tables and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    try:
        client.ensure_installed(PEER)
    except client.PeerMissing as error:
        raise SystemExit(f"ERROR: {error}") from None
    worker = client.peer(PEER)
    try:
        tables = quick(worker) if options.quick else full(worker, options.fresh)
    finally:
        worker.close()
    print(shown(tables))
    print(measure.describe(environment()))
    measure.print_result(**figures(tables))


if __name__ == "__main__":
    main()
