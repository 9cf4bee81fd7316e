"""Times restoring Hopper-v5 to a snapshot beside ``copy.deepcopy(env)``, and weighs a thousand snapshots.

    python benchmarks/snapshot_cost/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/snapshot_cost/run.py --quick    # within a minute

All are timed in turn in one process, wall time of single calls. ``copy.deepcopy`` of a Gymnasium MuJoCo env makes a new
env and forgets the state, so deep copies of its attributes, which keep it, are timed too; before, these and a snapshot
must lead to the same next 25 steps, bit for bit.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

FOLDER = Path(__file__).resolve().parent
SAMPLES = FOLDER / "results" / "samples.csv"
ENVIRONMENT = FOLDER / "results" / "environment.json"
README = FOLDER / "README.md"

ENV_ID = "Hopper-v5"
RECORDS = 1000
RESTORE, RESET, SAVE, ATTRIBUTES, DEEPCOPY = "restore", "wrapper_reset", "take", "attributes", "deepcopy"
TITLES = {
    RESTORE: "restore a snapshot (codec)",
    RESET: "SnapshotWrapper.reset",
    SAVE: "take a snapshot (codec)",
    ATTRIBUTES: "restore by deep copies of the attributes",
    DEEPCOPY: "copy.deepcopy(env)",
}
CALLS = {RESTORE: 400, RESET: 400, SAVE: 400, ATTRIBUTES: 10, DEEPCOPY: 10}
ROUNDS_FULL, ROUNDS_QUICK = 15, 5


def random_snapshots() -> Any:
    """A thousand snapshots of a random walk."""
    import gymnasium
    import numpy as np

    from orl.snapshot_rl import SnapshotSet, codec_of

    env = gymnasium.make(ENV_ID)
    env.action_space.seed(0)
    codec, observation, states, observations, elapsed = codec_of(env), env.reset(seed=0)[0], [], [], []
    steps = 0
    while len(states) < RECORDS:
        states.append(codec.get_state(env))
        observations.append(observation)
        elapsed.append(steps)
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        steps += 1
        if terminated or truncated:
            observation, steps = env.reset()[0], 0
    return SnapshotSet.of(states, np.array(observations), values=np.array(elapsed, float), elapsed=elapsed).classify(6)


def check_equal_work() -> None:
    """Snapshots and deep copies of the attributes lead to the same steps, to the last bit; tell if deepcopy does."""
    import gymnasium
    import numpy as np

    from orl.snapshot_rl import PickleCodec, codec_of

    env, restored, copied = (gymnasium.make(ENV_ID) for _ in range(3))
    for seed, one in enumerate((env, restored, copied)):
        one.reset(seed=seed)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-0.3, 0.3, (40, 3)).astype(np.float32)
    for action in actions[:15]:
        env.step(action)
    for codec, one in ((codec_of(env), restored), (PickleCodec(), copied)):
        codec.set_state(one, codec.get_state(env))
    deep, kept = copy.deepcopy(env), True
    for action in actions[15:]:
        expected, *results = [one.step(action) for one in (env, restored, copied, deep)]
        same = [np.array_equal(r[0], expected[0]) and r[1:4] == expected[1:4] for r in results]
        if not (same[0] and same[1]):
            raise SystemExit("snapshots and deep copies of the attributes differ: not the same work")
        kept = kept and same[2]
    print(f"equal work checked over 25 steps; copy.deepcopy(env) {'keeps' if kept else 'loses'} the state", flush=True)


def set_megabytes(snapshots: Any) -> float:
    """Size of the file of a thousand records."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.npz"
        snapshots.save(path)
        return path.stat().st_size / 1e6


def runners(snapshots: Any) -> dict[str, Callable[[], dict[str, float]]]:
    """For each contender: some calls, and the median of their wall times in microseconds."""
    import gymnasium

    from orl.snapshot_rl import PickleCodec, SnapshotWrapper, codec_of

    env, copied = gymnasium.make(ENV_ID), gymnasium.make(ENV_ID)
    env.reset(seed=0)
    copied.reset(seed=0)
    codec, copies = codec_of(env), PickleCodec()
    attributes = copies.get_state(copied)
    wrapper = SnapshotWrapper(gymnasium.make(ENV_ID), snapshots, seed=0)
    wrapper.reset()
    states = snapshots.states
    calls: dict[str, Callable[[int], Any]] = {
        RESTORE: lambda i: codec.set_state(env, states[i % len(states)]),
        RESET: lambda i: wrapper.reset(),
        SAVE: lambda i: codec.get_state(env),
        ATTRIBUTES: lambda i: copies.set_state(copied, attributes),
        DEEPCOPY: lambda i: copy.deepcopy(env),
    }

    def runner(name: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            seconds = []
            for i in range(CALLS[name]):
                start = time.perf_counter()
                calls[name](i)
                seconds.append(time.perf_counter() - start)
            return {"calls": CALLS[name], "microseconds": 1e6 * measure.median(seconds)}

        run()
        return run

    return {name: runner(name) for name in TITLES}


def measure_rounds(rounds: int, on_sample: Callable[[dict[str, Any]], object], done: int = 0) -> float:
    """Measure the rounds that are left; returns the size of the set in megabytes."""
    snapshots = random_snapshots()
    for repetition, name, sample in measure.interleaved(runners(snapshots), rounds - done):
        row = {"repetition": done + repetition, "contender": name} | sample
        on_sample(row | {"peak_memory_mb": measure.peak_memory_mb(), "date": measure.today()})
    return set_megabytes(snapshots)


def summary(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One row for each contender: the median over rounds of the medians of a round."""
    times = {name: [float(r["microseconds"]) for r in rows if r["contender"] == name] for name in TITLES}
    slow = measure.median(times[DEEPCOPY])
    return [
        {
            "what": title,
            "microseconds": measure.median(times[name]),
            "spread": measure.spread(times[name]),
            "times as fast as deepcopy": slow / measure.median(times[name]),
        }
        for name, title in TITLES.items()
    ]


def environment() -> dict[str, Any]:
    """Machine and versions of this run."""
    return {"date": measure.today()} | measure.machine() | measure.versions("numpy", "gymnasium", "mujoco")


def figures(table: list[dict[str, Any]], megabytes: float) -> dict[str, float]:
    """The figures of the RESULT line."""
    row = {line["what"]: line for line in table}
    return {
        "restore_us": row[TITLES[RESTORE]]["microseconds"],
        "ratio_vs_deepcopy": row[TITLES[RESTORE]]["times as fast as deepcopy"],
        "ratio_vs_attribute_copies": row[TITLES[ATTRIBUTES]]["microseconds"] / row[TITLES[RESTORE]]["microseconds"],
        "wrapper_reset_us": row[TITLES[RESET]]["microseconds"],
        "take_us": row[TITLES[SAVE]]["microseconds"],
        "set_mb": megabytes,
        "peak_memory_mb": measure.peak_memory_mb(),
    }


def quick() -> tuple[list[dict[str, Any]], float]:
    """Short samples that are printed and not kept."""
    samples: list[dict[str, str]] = []
    megabytes = measure_rounds(ROUNDS_QUICK, lambda row: samples.append({key: str(v) for key, v in row.items()}))
    return summary(samples), megabytes


def full(fresh: bool) -> tuple[list[dict[str, Any]], float]:
    """The run whose samples are kept; goes on after the last complete round."""
    if fresh:
        SAMPLES.unlink(missing_ok=True)
        ENVIRONMENT.unlink(missing_ok=True)
    measure.same_machine(ENVIRONMENT, environment(), "numpy", "gymnasium", "mujoco")
    done = measure.complete_rounds(SAMPLES, TITLES)
    megabytes = measure_rounds(ROUNDS_FULL, lambda row: measure.append_row(SAMPLES, row), min(done, ROUNDS_FULL))
    rows = summary(measure.read_rows(SAMPLES))
    size = f"The file of {RECORDS:,} snapshots has {megabytes:.2f} MB."
    note = measure.describe(measure.read_json(ENVIRONMENT))
    measure.write_between_markers(README, "table", f"{measure.table(rows)}\n\n{size}\n\n{note}")
    return rows, megabytes


def main() -> None:
    """Measure, print the table and, last, the RESULT line."""
    options = measure.argument_parser(__doc__).parse_args()
    measure.limit_threads(1)
    check_equal_work()
    rows, megabytes = quick() if options.quick else full(options.fresh)
    print(measure.table(rows))
    print(f"set of {RECORDS} snapshots: {megabytes:.3f} MB")
    print(measure.describe(environment()))
    measure.print_result(**figures(rows, megabytes))


if __name__ == "__main__":
    main()
