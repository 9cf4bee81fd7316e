"""Short learning runs of MDPO beside PPO, and of off-policy MDPO beside SAC: returns reached after few steps.

    python benchmarks/mdpo_learning/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/mdpo_learning/run.py --quick    # within a minute

On-policy: both learners get the same VecNormalize (observations and rewards) and rollouts of 2,048 steps. Off-policy:
both get 64 x 64 networks, batches of 128, 1,000 steps of warm-up and the fixed temperature 0.2.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

FOLDER = Path(__file__).resolve().parent
RUNS = FOLDER / "results" / "runs.csv"
CURVES = FOLDER / "results" / "curves.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

OFF_POLICY: Mapping[str, Any] = {
    "batch_size": 128,
    "learning_starts": 1_000,
    "buffer_size": 50_000,
    "policy_kwargs": {"net_arch": [64, 64]},
}
LEARNERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "PPO": ("stable_baselines3:PPO", {"n_steps": 2048}),
    "MDPO": ("orl.mdpo:MDPO", {"n_steps": 2048}),
    "MDPO, m = 1": ("orl.mdpo:MDPO", {"n_steps": 2048, "n_policy_steps": 1}),
    "SAC": ("stable_baselines3:SAC", {"ent_coef": 0.2, **OFF_POLICY}),
    "OffPolicyMDPO, q = 1": ("orl.mdpo:OffPolicyMDPO", OFF_POLICY),
    "OffPolicyMDPO, q = 1.4": ("orl.mdpo:OffPolicyMDPO", {"tsallis_q": 1.4, **OFF_POLICY}),
    "OffPolicyMDPO, q = 2": ("orl.mdpo:OffPolicyMDPO", {"tsallis_q": 2.0, **OFF_POLICY}),
}
PEERS = ("PPO", "SAC")
LAST_EPISODES = 20
POINTS = 10
"""Points of a learning curve."""


@dataclass(frozen=True)
class Case:
    """Learners that meet on one environment; ``seeds`` are 0, 1, ..."""

    env: str
    steps: int
    learners: tuple[str, ...]
    seeds: int = 3
    normalise: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.env}, {self.steps:,} steps"


ON, OFF = ("PPO", "MDPO"), ("SAC", "OffPolicyMDPO, q = 1", "OffPolicyMDPO, q = 1.4", "OffPolicyMDPO, q = 2")
FULL = (
    Case("CartPole-v1", 50_000, ON, normalise=True),
    Case("Pendulum-v1", 10_000, OFF),
    Case("Hopper-v5", 100_000, (*ON, "MDPO, m = 1"), normalise=True),
    Case("InvertedPendulum-v5", 60_000, ON, normalise=True),
)
QUICK = (
    Case("CartPole-v1", 6_144, ON, seeds=1, normalise=True),
    Case("Pendulum-v1", 1_500, ("SAC", "OffPolicyMDPO, q = 1"), seeds=1),
)


def learn(case: Case, learner: str, seed: int, on_point: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Train once and evaluate; ``on_point`` gets the points of the learning curve."""
    import gymnasium
    import numpy as np
    import torch
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from orl.registry import resolve

    torch.set_num_threads(1)
    target, arguments = LEARNERS[learner]

    def make() -> Any:
        return DummyVecEnv([lambda: Monitor(gymnasium.make(case.env))])

    env, test_env = make(), make()
    if case.normalise:
        env = VecNormalize(env, gamma=0.99)
        test_env = VecNormalize(test_env, training=False, norm_reward=False)
    model = resolve(target)("MlpPolicy", env, seed=seed, device="cpu", **{**arguments, **case.overrides})
    returns: deque[float] = deque(maxlen=LAST_EPISODES)
    every = case.steps // POINTS
    key = {"case": case.name, "contender": learner, "repetition": seed}

    def watch(local: dict[str, Any], _: dict[str, Any]) -> bool:
        returns.extend(info["episode"]["r"] for info in local["infos"] if "episode" in info)
        steps = local["self"].num_timesteps
        if steps % every == 0 and returns:
            on_point(key | {"steps": steps, "return_last_20": float(np.mean(returns))})
        return True

    start, wall = time.process_time(), time.perf_counter()
    model.learn(case.steps, callback=watch)
    cpu, seconds = time.process_time() - start, time.perf_counter() - wall
    if case.normalise:
        test_env.obs_rms = env.obs_rms
    test_env.seed(10_000 + seed)
    evaluated, deviation = evaluate_policy(model, test_env, n_eval_episodes=10, deterministic=True)
    return key | {
        "steps": model.num_timesteps,
        "return_last_20": float(np.mean(returns)),
        "evaluation_return": float(evaluated),
        "evaluation_deviation": float(deviation),
        "cpu_seconds": cpu,
        "wall_seconds": seconds,
        "date": measure.today(),
    }


def summary(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One row for each case and learner: mean and range over the seeds."""
    out = []
    for case, learner in dict.fromkeys((row["case"], row["contender"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["contender"]) == (case, learner)]
        last, test = ([float(row[name]) for row in mine] for name in ("return_last_20", "evaluation_return"))
        out.append(
            {
                "case": case,
                "learner": learner,
                "seeds": len(mine),
                "training return": _mean(last),
                "lowest": min(last),
                "highest": max(last),
                "evaluation return": _mean(test),
                "CPU-s": measure.median(float(row["cpu_seconds"]) for row in mine),
            }
        )
    return out


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean training return of each case and learner."""
    return {
        f"{row['case'].partition('-')[0].lower()}_{_key(row['learner'])}_return": row["training return"] for row in rows
    }


def _key(learner: str) -> str:
    return learner.lower().replace(", ", "_").replace(" = ", "").replace(".", "_")


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    packages = ("numpy", "gymnasium", "mujoco", "stable-baselines3", "torch")
    return {"date": measure.today()} | measure.machine() | measure.versions(*packages)


def quick() -> list[dict[str, str]]:
    """One short run a learner, printed and not kept."""
    rows = [
        learn(case, learner, seed, lambda _: None)
        for case in QUICK
        for seed in range(case.seeds)
        for learner in case.learners
    ]
    return [{key: str(value) for key, value in row.items()} for row in rows]


def full(fresh: bool) -> list[dict[str, str]]:
    """Every run whose row is not there yet, seed by seed; a run that was stopped starts anew."""
    if fresh:
        for path in (RUNS, CURVES, ENVIRONMENT):
            path.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "torch", "stable-baselines3")
    for case in FULL:
        for seed in range(case.seeds):
            for learner in case.learners:
                run = {"case": case.name, "contender": learner, "repetition": str(seed)}
                if any(run.items() <= row.items() for row in measure.read_rows(RUNS)):
                    continue
                print(f"{case.name}, {learner}, seed {seed}", flush=True)
                points: list[dict[str, Any]] = []
                row = learn(case, learner, seed, points.append)
                for point in points:
                    measure.append_row(CURVES, point)
                measure.append_row(RUNS, row)
                write_table()
    write_table()
    return measure.read_rows(RUNS)


def write_table() -> None:
    """Put what has been run so far into the README; ``seeds`` shows what is still to come."""
    table = measure.table(summary(measure.read_rows(RUNS)))
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", f"{table}\n\n{note}")


def main() -> None:
    """Learn, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    measure.limit_threads(1)
    warnings.filterwarnings("ignore", message=".*is_vector_env.*")
    rows = summary(quick() if options.quick else full(options.fresh))
    print(measure.table(rows))
    print(measure.describe(environment()))
    measure.print_result(**figures(rows))


if __name__ == "__main__":
    main()
