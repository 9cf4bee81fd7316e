"""SDDP, TS-DDR, reinforcement learning and rules on the Bolivian system, on one paired panel of inflow paths.

python benchmarks/hydrothermal_bolivia/run.py            # full run, about an hour on one core, resumable
python benchmarks/hydrothermal_bolivia/run.py --table    # trains nothing: the table and picture of what is there
python benchmarks/hydrothermal_bolivia/run.py --quick    # plays the committed TS-DDR policy on the panel again
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from stable_baselines3.common.base_class import BaseAlgorithm  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.logger import configure  # noqa: E402

import orl  # noqa: E402
from orl.envs.hydrothermal.library import load  # noqa: E402
from orl.envs.hydrothermal.vector import HydrothermalVectorEnv  # noqa: E402
from orl.solvers.hydrothermal.deterministic_equivalent import wait_and_see  # noqa: E402
from orl.solvers.hydrothermal.rules import make_rule  # noqa: E402
from orl.solvers.hydrothermal.sddp import SDDP  # noqa: E402
from orl.solvers.hydrothermal.simulation import simulate  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
RUNS, COSTS, ENVIRONMENT = RESULTS / "runs.csv", RESULTS / "costs.csv", RESULTS / "environment.json"
SDDP_LOG, CURVES = RESULTS / "sddp_log.csv", RESULTS / "tsddr_curves.csv"
WEIGHTS = RESULTS / "tsddr_lstm.zip"
PACKAGES = ("numpy", "highspy", "numba", "torch", "stable-baselines3", "gymnasium")

INSTANCE = load("bolivia")
STAGES, PATHS = INSTANCE.horizon, 30
PANEL = np.random.default_rng(20260706).integers(0, INSTANCE.n_columns, size=(STAGES, PATHS))
SEEDS = (0, 1, 2)
UPDATES, BATCH = 1000, 16
STEPS = UPDATES * BATCH * STAGES
TEN_MINUTES = 600.0
SDDP_ITERATIONS = 100
ENV_ID = "orl:orl/Hydrothermal-v0"
PPO = {
    "n_steps": 96,
    "batch_size": 256,
    "n_epochs": 10,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "learning_rate": 1e-3,
    "policy_kwargs": {"net_arch": [64, 64], "log_std_init": -1.5},
}
PPO_COPIES, SAC_COPIES = 32, 8
SAC = {"gamma": 0.98, "learning_rate": 3e-4, "batch_size": 256, "policy_kwargs": {"net_arch": [64, 64]}}


@dataclass(frozen=True)
class Played:
    """A method on the panel: costs float64[PATHS] in USD for each hour of a stage, and what it took to get it."""

    costs: np.ndarray
    train_cpu_seconds: float = 0.0
    train_seconds: float = 0.0
    train_steps: int = 0
    decision_ms: float | None = None


# ---- methods ---------------------------------------------------------------------------------------------------------
def play_sddp(seed: int) -> Played:
    """Train cuts, keep the log, play them."""
    sddp = SDDP(INSTANCE, seed=seed)
    cpu, wall = clocks()
    sddp.train(iterations=SDDP_ITERATIONS, time_limit=TEN_MINUTES, progress=True)
    spent = time.process_time() - cpu, time.perf_counter() - wall
    sddp.save_log(SDDP_LOG)
    began = time.perf_counter()
    costs, _ = sddp.simulate(PANEL)
    ms = 1000 * (time.perf_counter() - began) / costs.size
    return Played(costs.sum(1), *spent, sddp.lps, ms)


def play_rule(key: str, **options: Any) -> Callable[[int], Played]:
    """A rule, with the time of a decision for one path."""

    def play(seed: int) -> Played:
        decide = make_rule(key, INSTANCE, **options)
        costs, volumes = simulate(INSTANCE, decide, PANEL)
        inflows = INSTANCE.path_inflows(PANEL[:, 0])
        began = time.perf_counter()
        for t in range(STAGES):
            decide(np.array([t]), volumes[:1, t], inflows[None, t])
        return Played(costs.sum(1), decision_ms=1000 * (time.perf_counter() - began) / STAGES)

    return play


def play_tsddr(policy: str) -> Callable[[int], Played]:
    """TS-DDR with one kind of policy; the LSTM of the first seed is kept for ``--quick``."""

    def play(seed: int) -> Played:
        env = orl.make_vec(ENV_ID, 1, instance=INSTANCE)
        model = orl.TSDDR(policy, env, batch_size=BATCH, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            model.set_logger(configure(folder, ["csv"]))
            cpu, wall = clocks()
            model.learn(STEPS, log_interval=5)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            keep_curve(Path(folder) / "progress.csv", policy, seed)
        if policy == "LSTMTarget" and seed == SEEDS[0]:
            model.save(WEIGHTS)
        costs, ms = play_model(model)
        return Played(costs, *spent, model.num_timesteps, ms)

    return play


def keep_curve(log: Path, policy: str, seed: int) -> None:
    """Evaluations of a training (its own panel, not ours) by the seconds spent."""
    with log.open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get("eval/cost"):
                figures = {"seconds": float(row["time/time_elapsed"]), "cost": float(row["eval/cost"])}
                measure.append_row(CURVES, {"policy": policy, "seed": seed, **figures})


class Deadline(BaseCallback):
    """Ends a training after so many CPU-seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def _on_training_start(self) -> None:
        self.began = time.process_time()

    def _on_step(self) -> bool:
        return time.process_time() - self.began < self.seconds


def play_ppo(equal: str | float) -> Callable[[int], Played]:
    """FastPPO on the native batch, with the steps or the seconds of TS-DDR's LSTM of the same seed."""

    def play(seed: int) -> Played:
        env = orl.make_vec(ENV_ID, PPO_COPIES, seed=seed, instance=INSTANCE)
        return learn(orl.FastPPO("MlpPolicy", env, seed=seed, device="cpu", **PPO), equal, seed)

    return play


def play_sac(equal: str | float) -> Callable[[int], Played]:
    """FastSAC on the native batch."""

    def play(seed: int) -> Played:
        env = orl.make_vec(ENV_ID, SAC_COPIES, seed=seed, instance=INSTANCE)
        options = {"train_freq": 1, "gradient_steps": 1, "learning_starts": 960, **SAC}
        return learn(orl.FastSAC("MlpPolicy", env, seed=seed, device="cpu", **options), equal, seed)

    return play


def learn(model: BaseAlgorithm, equal: str | float, seed: int) -> Played:
    """Train until the steps, or the CPU-seconds, of TS-DDR (or as many as given) are over; then play greedily."""
    cpu, wall = clocks()
    if equal == "steps":
        model.learn(STEPS)
    else:
        if equal == "seconds":
            [row] = [r for r in measure.read_rows(RUNS) if (r["method"], r["seed"]) == (TSDDR, str(seed))]
            equal = row["train_cpu_seconds"]
        model.learn(10**9, callback=Deadline(float(equal)))
    spent = time.process_time() - cpu, time.perf_counter() - wall
    costs, ms = play_model(model)
    return Played(costs, *spent, model.num_timesteps, ms)


def clocks() -> tuple[float, float]:
    """CPU and wall clock now."""
    return time.process_time(), time.perf_counter()


def play_model(model: Any) -> tuple[np.ndarray, float]:
    """Costs float64[PATHS] of a model's greedy actions in the environment, and milliseconds of a single decision."""
    envs = HydrothermalVectorEnv(PATHS, INSTANCE, autoreset_mode="DISABLED")
    observation, _ = envs.reset(seed=0, options={"columns": PANEL.T})
    state, first = None, np.ones(PATHS, bool)
    for _ in range(STAGES):
        actions, state = model.predict(observation, state=state, episode_start=first, deterministic=True)
        observation, _, _, _, infos = envs.step(actions)
        first[:] = False
    state, alone = None, np.ones(1, bool)
    began = time.perf_counter()
    for _ in range(STAGES):
        _, state = model.predict(observation[0], state=state, episode_start=alone, deterministic=True)
        alone[:] = False
    return infos["objective"], 1000 * (time.perf_counter() - began) / STAGES


KNOWING, TSDDR = "wait-and-see (knows the path)", "TS-DDR, LSTM"
METHODS: dict[str, tuple[Callable[[int], Played], tuple[int, ...]]] = {
    KNOWING: (lambda seed: Played(wait_and_see(INSTANCE, PANEL)), (0,)),
    "SDDP": (play_sddp, (0,)),
    TSDDR: (play_tsddr("LSTMTarget"), SEEDS),
    "TS-DDR, MLP": (play_tsddr("MLPTarget"), SEEDS),
    "linear decision rule": (play_tsddr("LinearTarget"), SEEDS),
    "rolling horizon, 12 stages": (play_rule("rolling-horizon", window=12), (0,)),
    "rolling horizon, 24 stages": (play_rule("rolling-horizon", window=24), (0,)),
    "myopic": (play_rule("myopic"), (0,)),
    "PPO, equal steps": (play_ppo("steps"), SEEDS),
    "PPO, equal seconds": (play_ppo("seconds"), SEEDS),
    "SAC, equal seconds": (play_sac("seconds"), SEEDS),
    "SAC, equal steps": (play_sac("steps"), SEEDS[:1]),
    "PPO, ten minutes": (play_ppo(TEN_MINUTES), SEEDS[:1]),
    "empty": (play_rule("empty"), (0,)),
    "full": (play_rule("full"), (0,)),
    "random": (play_rule("random"), (0,)),
}


def jobs() -> Iterator[tuple[str, int]]:
    """Methods and seeds without a row yet; first all methods with the first seed."""
    done = {(row["method"], int(row["seed"])) for row in measure.read_rows(RUNS)}
    pairs = [(method, seed) for seed in SEEDS for method, (_, seeds) in METHODS.items() if seed in seeds]
    yield from (pair for pair in pairs if pair not in done)


def measure_job(method: str, seed: int) -> None:
    """Play a method and write its rows; those of the paths come first, and count only with the other."""
    torch.set_num_threads(1)
    load_before = measure.machine()["load"]
    played = METHODS[method][0](seed)
    kept = [row for row in measure.read_rows(COSTS) if (row["method"], row["seed"]) != (method, str(seed))]
    COSTS.unlink(missing_ok=True)
    for row in kept:
        measure.append_row(COSTS, row)
    for path, cost in enumerate(played.costs.tolist()):
        measure.append_row(COSTS, {"method": method, "seed": seed, "path": path, "cost": f"{cost:.4f}"})
    figures = {"mean": f"{played.costs.mean():.4f}", "train_cpu_seconds": played.train_cpu_seconds}
    figures |= {"train_seconds": played.train_seconds}
    more = {"train_steps": played.train_steps, "decision_ms": played.decision_ms, "load": load_before}
    measure.append_row(RUNS, {"method": method, "seed": seed, **figures, **more})


# ---- tables ----------------------------------------------------------------------------------------------------------
def costs_of() -> dict[str, np.ndarray]:
    """Costs float64[seeds, PATHS] of every method with a row."""
    found: dict[str, dict[int, list[float]]] = {}
    counted = {(row["method"], row["seed"]) for row in measure.read_rows(RUNS)}
    for row in measure.read_rows(COSTS):
        if (row["method"], row["seed"]) in counted:
            found.setdefault(row["method"], {}).setdefault(int(row["seed"]), []).append(float(row["cost"]))
    return {name: np.array([found[name][s] for s in sorted(found[name])]) for name in METHODS if name in found}


def sddp_bound() -> float | None:
    """The last lower bound of the committed log."""
    rows = measure.read_rows(SDDP_LOG)
    return float(rows[-1]["lower_bound"]) if rows else None


def summary() -> list[dict[str, Any]]:
    """One line a method, cheapest first: mean and deviation over paths, paired difference to SDDP, wins, time."""
    costs, runs, bound = costs_of(), measure.read_rows(RUNS), sddp_bound()
    sddp = costs["SDDP"][0] if "SDDP" in costs else None
    lines = []
    for method, table in sorted(costs.items(), key=lambda item: item[1].mean()):
        mine = [row for row in runs if row["method"] == method]
        paths = table.mean(0)
        line: dict[str, Any] = {"method": method, "seeds": len(table), "mean cost": paths.mean()}
        line |= {"std over paths": paths.std(ddof=1)}
        line |= {"std over seeds": float(table.mean(1).std(ddof=1)) if len(table) > 1 else None}
        if bound is not None:
            line["above bound %"] = 100 * (paths.mean() / bound - 1)
        if sddp is not None:
            difference = paths - sddp
            other = method != "SDDP"
            line["on SDDP"] = difference.mean() if other else None
            line["± se"] = difference.std(ddof=1) / np.sqrt(PATHS) if other else None
            line["cheaper on"] = f"{(difference < 0).sum()}/{PATHS}" if other else ""
        for key, clock in (("training CPU-s", "train_cpu_seconds"), ("training s", "train_seconds")):
            seconds = [float(row[clock]) for row in mine]
            line[key] = float(np.median(seconds)) if any(seconds) else None
        line["steps"] = int(float(mine[0]["train_steps"])) or None
        spent = [float(row["decision_ms"]) for row in mine if row["decision_ms"]]
        line["decision ms"] = float(np.median(spent)) if spent else None
        lines.append(line)
    return lines


def figures() -> dict[str, Any]:
    """The figures of the RESULT line."""
    means = {name: table.mean() for name, table in costs_of().items()}
    out: dict[str, Any] = {"sddp_bound": sddp_bound(), "sddp_mean": means.get("SDDP"), "tsddr_mean": means.get(TSDDR)}
    if "SDDP" in means and TSDDR in means:
        out["tsddr_over_sddp"] = means[TSDDR] / means["SDDP"]
        for key in (name for name in METHODS if name.startswith(("PPO", "SAC"))):
            if key in means:
                out[f"tsddr_over_{key.lower().replace(', ', '_').replace(' ', '_')}"] = means[TSDDR] / means[key]
    return out


def draw(path: Path) -> None:
    """How fast bounds and costs settle; paired differences to SDDP on the panel."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    rows = measure.read_rows(SDDP_LOG)
    _settling(left, [(float(r["seconds"]), float(r["lower_bound"])) for r in rows], "SDDP, lower bound", "C0")
    curves = measure.read_rows(CURVES)
    for k, policy in enumerate(dict.fromkeys(r["policy"] for r in curves)):
        for seed in sorted({r["seed"] for r in curves if r["policy"] == policy}):
            mine = [r for r in curves if (r["policy"], r["seed"]) == (policy, seed)]
            points = [(float(r["seconds"]), float(r["cost"])) for r in mine]
            _settling(left, points, f"{policy}, cost of its evaluations" if seed == "0" else None, f"C{k + 1}")
    left.set(xlabel="seconds of training, one core", ylabel="away from its last value, %", xscale="log", yscale="log")
    left.legend()
    costs = costs_of()
    names = [line["method"] for line in summary() if line["method"] not in ("SDDP", "empty", "full", "random")]
    relative = [100 * (costs[name].mean(0) / costs["SDDP"][0] - 1) for name in names]
    right.boxplot(relative, orientation="horizontal", tick_labels=names)
    right.axvline(0, color="grey", linewidth=0.8)
    right.set(xlabel="cost above SDDP on the same path, %", xscale="symlog")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _settling(axes: Any, points: list[tuple[float, float]], label: str | None, color: str) -> None:
    last = points[-1][1]
    seconds, values = [second for second, _ in points[:-1]], [value for _, value in points[:-1]]
    axes.plot(seconds, [100 * abs(value / last - 1) for value in values], label=label, color=color, linewidth=1)


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions(*PACKAGES)


def main() -> None:
    """Play what is missing, print the table and, last, the RESULT line."""
    parser = measure.argument_parser(__doc__)
    parser.add_argument("--table", action="store_true", help="train nothing: the table of what is there")
    options = parser.parse_args()
    if options.quick:
        model = orl.TSDDR.load(WEIGHTS, env=orl.make_vec(ENV_ID, 1, instance=INSTANCE), device="cpu")
        costs, ms = play_model(model)
        print(f"the committed LSTM on the panel: mean {costs.mean():.2f}, {ms:.3f} ms a decision")
        committed = costs_of()[TSDDR][0]
        if not np.allclose(costs, committed, rtol=1e-4):
            raise SystemExit(f"the committed result has mean {committed.mean():.2f}")
    elif not options.table:
        if options.fresh:
            for path in (RUNS, COSTS, ENVIRONMENT, SDDP_LOG, CURVES):
                path.unlink(missing_ok=True)
        measure.same_machine(ENVIRONMENT, environment(), "highspy", "torch")
        for method, seed in list(jobs()):
            print(method, seed, flush=True)
            measure_job(method, seed)
    lines = summary()
    if not options.quick:
        draw(RESULTS / "panel.png")
        note = measure.describe(measure.read_json(ENVIRONMENT))
        measure.write_between_markers(HERE / "README.md", "table", f"{measure.table(lines)}\n\n{note}")
    print(measure.table(lines))
    print(measure.describe(environment()))
    measure.print_result(**figures())


if __name__ == "__main__":
    main()
