"""Write instances/: the 4x2 instance with demand of mean 1.6 and other variances. Run once; the files are committed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from orl.envs.lot_sizing import formats
from orl.envs.lot_sizing.distributions import same_mean_binomial
from orl.envs.lot_sizing.library import load

FOLDER = Path(__file__).resolve().parent / "instances"
MEAN = 1.6
DEMANDS = {0.00: (0, 1), 0.32: (2, 1), 0.96: (4, 1), 2.56: (4, 2), 5.76: (4, 4)}
"""Variance: trials and scale of ``same_mean_binomial``."""


def main() -> None:
    """Write one file a variance."""
    FOLDER.mkdir(exist_ok=True)
    base = load("ls-4x2")
    for variance, (trials, scale) in DEMANDS.items():
        demand = same_mean_binomial(base.n_items, MEAN, trials, scale=scale, horizon=base.horizon)
        name = f"4x2-variance-{variance:.2f}"
        formats.write(replace(base, name=name, demand=demand), FOLDER / f"{name}.json")


if __name__ == "__main__":
    main()
