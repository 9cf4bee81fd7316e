"""Compile the numba kernels of every registered environment and solver before parallel tests start (`make warm`).

Kernels are cached on disk; two test workers that start together would compile the same ones twice. Nothing is checked
here: the tests do that.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from orl import registry


def step_a_little(env: Any, *, batched: bool, steps: int = 3) -> None:
    env.reset(seed=0)
    for _ in range(steps):
        if hasattr(env.unwrapped, "action_masks"):
            action = np.argmax(env.unwrapped.action_masks(), axis=-1)
            env.step(action if batched else int(action))
        else:
            env.step(env.action_space.sample())
    env.close()


def main() -> None:
    for environment in registry.environments():
        step_a_little(gymnasium.make(environment.lazy_id), batched=False)
        if environment.vector_entry_point is not None:
            step_a_little(gymnasium.make_vec(environment.lazy_id, num_envs=2), batched=True)
    for domain in registry.domains():
        instance = domain.load(domain.example)
        for entry in registry.solvers(domain.name):
            entry.make().solve(instance, time_limit=0.2, seed=0)


if __name__ == "__main__":
    main()
