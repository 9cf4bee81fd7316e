"""Small random instances of every family the kernel must handle, used by several test files."""

from __future__ import annotations

import numpy as np

from orl.envs.job_shop import builders, generators
from orl.envs.job_shop.instance import ShopInstance
from orl.envs.job_shop.model import Mode, Model


def ragged(rng: np.random.Generator) -> ShopInstance:
    """Jobs of different length that may visit a machine again, with zero durations and releases."""
    n_machines = int(rng.integers(2, 5))
    lengths = rng.integers(1, 5, size=int(rng.integers(2, 5)))
    machines = [rng.integers(0, n_machines, k).tolist() for k in lengths]
    durations = [rng.integers(0, 7, k).tolist() for k in lengths]
    release = rng.integers(0, 6, len(lengths)).tolist()
    return builders.job_shop(machines, durations, n_machines=n_machines, release=release, name="ragged")


def identical_jobs(rng: np.random.Generator) -> ShopInstance:
    """A job shop in which some jobs are copies of others."""
    machines, durations = [], []
    for _ in range(2):
        order, times = rng.permutation(2).tolist(), rng.integers(0, 5, 2).tolist()
        for _ in range(int(rng.integers(1, 3))):
            machines.append(order)
            durations.append(times)
    return builders.job_shop(machines, durations, n_machines=2, name="identical_jobs")


def weighted(rng: np.random.Generator) -> ShopInstance:
    """A small job shop with due dates and weights."""
    n_jobs = 3
    machines = [rng.permutation(3).tolist() for _ in range(n_jobs)]
    durations = rng.integers(1, 9, (n_jobs, 3)).tolist()
    objective = "weighted_tardiness" if rng.random() < 0.5 else "total_flow"
    due, weight = rng.integers(5, 25, n_jobs).tolist(), rng.integers(1, 4, n_jobs).tolist()
    return builders.job_shop(machines, durations, due=due, weight=weight, objective=objective, name="weighted")


def mixed(rng: np.random.Generator) -> ShopInstance:
    """Everything at once: modes on several resources, lags, releases, chains, loose operations, an exclusive group."""
    m = Model("mixed")
    machines = [m.unary(f"M{r}") for r in range(3)]
    crew = m.cumulative("crew", 3)
    ops = []
    for i in range(int(rng.integers(4, 8))):
        modes = []
        for _ in range(int(rng.integers(1, 3))):
            uses = {machines[int(rng.integers(3))]: 1}
            if rng.random() < 0.5:
                uses[crew] = int(rng.integers(1, 4))
            modes.append(Mode(int(rng.integers(0, 6)), uses))
        ops.append(m.interval(f"o{i}", modes, release=int(rng.integers(0, 4)), job=i // 2))
    for i in range(len(ops) - 1):
        if rng.random() < 0.4:
            m.precedence(ops[i], ops[i + 1], lag=int(rng.integers(0, 3)))
    m.exclusive_group(1)
    return m.compile()


FAMILIES = {
    "job shop": generators.UniformJobShop((2, 5), (2, 5), 1, 20),
    "ragged": ragged,
    "identical jobs": identical_jobs,
    "weighted": weighted,
    "flow shop": generators.UniformFlowShop((2, 5), (2, 4), 0, 20),
    "open shop": generators.UniformOpenShop((2, 4), (2, 4), 0, 20),
    "flexible": generators.UniformFlexibleJobShop((2, 4), 3, (1, 4), (1, 3), 0, 12),
    "project": generators.UniformProject((3, 8), 2, (1, 4), (1, 2), 2, 0.3, 0, 9),
    "mixed": mixed,
}
