"""MDPO beside PPO and TRPO, off-policy MDPO beside SAC, as three sweeps. See README.md for the question.

    python benchmarks/mdpo_mujoco/run.py            # full run, resumable; writes results/ and the README table
    python benchmarks/mdpo_mujoco/run.py --table    # no run: the table of the runs that are there
    python benchmarks/mdpo_mujoco/run.py --quick    # within a minute
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import measure

measure.limit_threads(1)

from orl import bench

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
FOLDER = HERE.parents[1] / "runs" / "mdpo_mujoco"
SWEEPS = ("on_policy", "off_policy_pendulum", "off_policy_hopper")


def train(jobs: int) -> None:
    """Do the runs that have no record yet, the first seed of all sweeps before the second of any."""
    plans = {name: bench.read_sweep(HERE / f"{name}.yaml") for name in SWEEPS}
    seeds = sorted({task.configuration.seed for plan in plans.values() for task in plan.tasks})
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # MuJoCo writes its log into the working folder
        for seed in seeds:
            for name, plan in plans.items():
                runs = [task.configuration.hash for task in plan.tasks if task.configuration.seed == seed]
                if runs:
                    summary = bench.run_sweep(plan, FOLDER / name, jobs=jobs, only=runs, retry_failed=True)
                    print(f"seed {seed}, {name}: {summary}", flush=True)
                    if summary.interrupted:
                        raise SystemExit("stopped; start again to go on")


if __name__ == "__main__":
    train(1)
