"""Steps a second of ta01 through SB3's VecEnv interface: ``orl.make_vec`` beside ``DummyVecEnv`` of the same env.

    python benchmarks/vec_bridge/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/vec_bridge/run.py --quick    # within a minute

Environments alone: 64 copies under VecMonitor, random legal actions; each step asks for the masks as sb3-contrib does
(``np.stack(vec.env_method("action_masks"))``). With the learner: stock MaskablePPO on one thread, default settings but
for the rollout length. CPU-seconds, in turn.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

FOLDER = Path(__file__).resolve().parent
SAMPLES = FOLDER / "results" / "samples.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

ENV_ID = "orl:orl/JobShop-v0"
COPIES = 64
ROLLOUT = 32  # steps of each copy between two updates
BRIDGE, DUMMY = "orl_make_vec", "dummy_vec_env"
TITLES = {BRIDGE: "orl.make_vec", DUMMY: "DummyVecEnv"}


class Case(NamedTuple):
    """What is measured: the environments alone (``policy`` empty) or stock MaskablePPO with that policy."""

    name: str
    observation: str
    policy: str
    repetitions: int
    amount: float  # CPU-seconds of the loop, or rollouts of the learner


FULL = (
    Case("environment, window", "window", "", 9, 5.0),
    Case("environment, compact", "compact", "", 9, 5.0),
    Case("MaskablePPO MlpPolicy, compact", "compact", "MlpPolicy", 5, 8),
    Case("MaskablePPO MultiInputPolicy, window", "window", "MultiInputPolicy", 5, 4),
)
QUICK = (
    Case("environment, window", "window", "", 5, 1.0),
    Case("environment, compact", "compact", "", 5, 0.5),
    Case("MaskablePPO MlpPolicy, compact", "compact", "MlpPolicy", 3, 2),
)


def make(name: str, observation: str) -> Any:
    """64 copies of ta01 as a monitored SB3 VecEnv, seeded alike."""
    import gymnasium
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    import orl

    options = {"instance": "ta01", "observation": observation}
    if name == BRIDGE:
        vec: Any = orl.make_vec(ENV_ID, COPIES, **options)
    else:
        # Without Gymnasium's own checker, which would slow every single env down.
        vec = DummyVecEnv([lambda: gymnasium.make(ENV_ID, disable_env_checker=True, **options)] * COPIES)
    vec.seed(0)
    return VecMonitor(vec)


def random_legal(rng: np.random.Generator, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """A legal action for every copy, drawn uniformly: the largest of independent uniform numbers."""
    return np.where(masks, rng.random(masks.shape, np.float32), np.float32(-1)).argmax(1)


def masks_of(vec: Any) -> npt.NDArray[np.bool_]:
    """The masks as sb3-contrib's ``get_action_masks`` asks for them."""
    return np.stack(vec.env_method("action_masks"))


def check_equal_work(observation: str, steps: int = 450) -> None:
    """The same actions give both VecEnvs the same observations, rewards, ends, masks and monitored episodes."""
    vecs = [make(name, observation) for name in TITLES]
    rng = np.random.default_rng(0)
    first = [vec.reset() for vec in vecs]
    _require_same(*first, 0)
    episodes = 0
    for step in range(1, steps + 1):
        masks = [masks_of(vec) for vec in vecs]
        _require_same(*masks, step)
        actions = random_legal(rng, masks[0])
        (obs, rewards, dones, infos), (other_obs, other_rewards, other_dones, other_infos) = (
            vec.step(actions) for vec in vecs
        )
        _require_same(obs, other_obs, step)
        _require_same(rewards, other_rewards, step)
        _require_same(dones, other_dones, step)
        for i in np.flatnonzero(dones):
            one, other = infos[i], other_infos[i]
            _require_same(one["terminal_observation"], other["terminal_observation"], step)
            same_episode = all(one["episode"][key] == other["episode"][key] for key in ("r", "l"))
            if not same_episode or one["makespan"] != other["makespan"]:
                raise SystemExit(f"other episode at step {step}, copy {i}: not the same work")
            episodes += 1
    for vec in vecs:
        vec.close()
    print(f"{observation}: equal work checked over {steps} steps of {COPIES} copies ({episodes} episodes)", flush=True)


def _require_same(one: Any, other: Any, step: int) -> None:
    if isinstance(one, dict):
        same = one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
    else:
        same = np.array_equal(one, other)
    if not same:
        raise SystemExit(f"orl.make_vec and DummyVecEnv differ at step {step}: not the same work")


def environment_runner(name: str, case: Case) -> Callable[[], dict[str, float]]:
    """Runs the loop for ``case.amount`` CPU-seconds; the clock stands still while actions are drawn."""
    vec, rng, clock = make(name, case.observation), np.random.default_rng(0), time.process_time
    vec.reset()

    def run() -> dict[str, float]:
        steps, seconds = 0, 0.0
        wall_start, loop_start = time.perf_counter(), clock()
        while clock() - loop_start < case.amount:
            before = clock()
            masks = masks_of(vec)
            seconds += clock() - before
            actions = random_legal(rng, masks)
            before = clock()
            vec.step(actions)
            seconds += clock() - before
            steps += COPIES
        return {"steps": steps, "cpu_seconds": seconds, "wall_seconds": time.perf_counter() - wall_start}

    for _ in range(20):
        vec.step(random_legal(rng, masks_of(vec)))
    return run


def learner_runner(name: str, case: Case) -> Callable[[], dict[str, float]]:
    """Learns for ``case.amount`` rollouts with stock MaskablePPO, updates included."""
    import torch
    from sb3_contrib import MaskablePPO

    torch.set_num_threads(1)
    model = MaskablePPO(case.policy, make(name, case.observation), n_steps=ROLLOUT, seed=0, device="cpu")
    steps = int(case.amount) * ROLLOUT * COPIES
    model.learn(ROLLOUT * COPIES)

    def run() -> dict[str, float]:
        wall_start, start = time.perf_counter(), time.process_time()
        model.learn(steps, reset_num_timesteps=False)
        return {
            "steps": steps,
            "cpu_seconds": time.process_time() - start,
            "wall_seconds": time.perf_counter() - wall_start,
        }

    return run


def measure_case(case: Case, on_sample: Callable[[dict[str, Any]], object], rounds_done: int = 0) -> None:
    """Measure one case, calling ``on_sample(row)`` for every sample."""
    runner = learner_runner if case.policy else environment_runner
    contenders = {name: runner(name, case) for name in (DUMMY, BRIDGE)}
    for repetition, name, sample in measure.interleaved(contenders, case.repetitions - rounds_done):
        on_sample(
            {"case": case.name, "repetition": rounds_done + repetition, "contender": name}
            | sample
            | {"peak_memory_mb": measure.peak_memory_mb(), "date": measure.today()}
        )


def summary(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One row for each case and contender: median rates and their ratio."""
    out: list[dict[str, Any]] = []
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = {name: [row for row in rows if row["case"] == case and row["contender"] == name] for name in TITLES}
        rates = {name: [float(r["steps"]) / float(r["cpu_seconds"]) for r in mine[name]] for name in TITLES}
        for name, title in TITLES.items():
            out.append(
                {
                    "case": case,
                    "VecEnv": title,
                    "steps/CPU-s": measure.median(rates[name]),
                    "spread": measure.spread(rates[name]),
                    "steps/s wall": measure.median(float(r["steps"]) / float(r["wall_seconds"]) for r in mine[name]),
                    "ratio": measure.median(rates[BRIDGE]) / measure.median(rates[DUMMY]) if name == BRIDGE else None,
                }
            )
    return out


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of the RESULT line."""
    ratio = {row["case"]: row["ratio"] for row in rows if row["ratio"] is not None}
    rate = {row["case"]: row["steps/CPU-s"] for row in rows if row["VecEnv"] == TITLES[BRIDGE]}
    out = {
        "ratio_vs_dummy_vec_env": ratio["environment, window"],
        "compact_ratio_vs_dummy_vec_env": ratio["environment, compact"],
        "end_to_end_ratio_vs_dummy_vec_env": ratio["MaskablePPO MlpPolicy, compact"],
        "steps_per_s_ta01": rate["environment, window"],
        "end_to_end_steps_per_s_ta01": rate["MaskablePPO MlpPolicy, compact"],
        "peak_memory_mb": measure.peak_memory_mb(),
    }
    return out


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    packages = ("numpy", "numba", "gymnasium", "stable-baselines3", "sb3-contrib", "torch")
    return {"date": measure.today()} | measure.machine() | measure.versions(*packages)


def quick() -> list[dict[str, Any]]:
    """Short samples that are printed and not kept."""
    samples: list[dict[str, str]] = []
    for case in QUICK:
        measure_case(case, lambda row: samples.append({key: str(value) for key, value in row.items()}))
    return summary(samples)


def full(fresh: bool) -> list[dict[str, Any]]:
    """The run whose samples are kept; goes on after the last complete round of each case."""
    if fresh:
        SAMPLES.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "numba", "torch", "stable-baselines3")
    for case in FULL:
        complete = measure.complete_rounds(SAMPLES, TITLES, case=case.name)
        if complete < case.repetitions:
            print(f"{case.name}: {case.repetitions - complete} of {case.repetitions} rounds to go", flush=True)
            measure_case(case, lambda row: measure.append_row(SAMPLES, row), complete)
    rows = summary(measure.read_rows(SAMPLES))
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", measure.table(rows) + "\n\n" + note)
    return rows


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    measure.limit_threads(1)
    warnings.filterwarnings("ignore", message=".*is_vector_env.*")
    for observation in ("window", "compact"):
        check_equal_work(observation)
    rows = quick() if options.quick else full(options.fresh)
    print(measure.table(rows))
    print(measure.describe(environment()))
    measure.print_result(**figures(rows))


if __name__ == "__main__":
    main()
