"""Compile the numba kernels of every registered environment and solver, and of our learning algorithms, before parallel
tests start (`make warm`).

Kernels are cached on disk; two test workers that start together would compile the same ones twice. Nothing is checked
here: the tests do that.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

import orl
from orl import registry
from orl.common.action_masks import random_legal_actions

# Algorithms of ours and the envs whose actions they take, one for each kind.
BOX, DISCRETE, MASKED = "Pendulum-v1", "CartPole-v1", "orl/JobShop-v0"
POST_DECISION = "orl/LotSizing-v0"
ON_POLICY, OFF_POLICY = {"n_steps": 8}, {"learning_starts": 4, "buffer_size": 100, "batch_size": 4}
LEARNERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("fast-ppo", BOX, {**ON_POLICY, "batch_size": 8}),
    ("fast-ppo", DISCRETE, {**ON_POLICY, "batch_size": 8}),
    ("fast-maskable-ppo", MASKED, {**ON_POLICY, "batch_size": 8}),
    ("fast-sac", BOX, OFF_POLICY),
    ("fast-td3", BOX, OFF_POLICY),
    ("mdpo", BOX, {**ON_POLICY, "vf_batch_size": 8}),
    ("mdpo", DISCRETE, {**ON_POLICY, "vf_batch_size": 8}),
    ("mdpo", MASKED, {**ON_POLICY, "vf_batch_size": 8}),
    ("off-policy-mdpo", BOX, OFF_POLICY),
    ("pdppo", POST_DECISION, {**ON_POLICY, "batch_size": 8, "stochastic_lambda": 0.5, "n_exogenous_samples": 2}),
    ("pdppo", POST_DECISION, {**ON_POLICY, "batch_size": 8, "advantage": "paper_max"}),
)


def step_a_little(env: Any, *, batched: bool, steps: int = 3) -> None:
    env.reset(seed=0)
    for _ in range(steps):
        if hasattr(env.unwrapped, "action_masks"):
            space = env.single_action_space if batched else env.action_space
            masks = np.atleast_2d(env.unwrapped.action_masks())
            actions = random_legal_actions(space, masks, np.random.default_rng(0))
            env.step(actions if batched else actions[0])
        else:
            env.step(env.action_space.sample())
    if batched and hasattr(env.unwrapped, "exogenous_samples"):
        env.unwrapped.exogenous_samples(1)
        env.unwrapped.simulate_decisions(np.expand_dims(env.action_space.sample(), 1), 1)
    env.close()


def learn_a_little(key: str, env_id: str, arguments: dict[str, Any]) -> None:
    """Learn through a rollout and an update, with hidden layers of both activations the engine knows."""
    import torch

    options = {"observation": "compact"} if env_id == MASKED else {}
    for activation in (torch.nn.Tanh, torch.nn.ReLU):
        env = orl.make_vec(env_id, 2, **options)
        network = {"net_arch": [8], "activation_fn": activation}
        registry.algorithm(key)("MlpPolicy", env, seed=0, device="cpu", policy_kwargs=network, **arguments).learn(24)
        env.close()


def operate_a_cascade() -> None:
    """The kernels of the reachable map that neither environment calls at its defaults."""
    from orl.envs.hydrothermal.library import load
    from orl.envs.hydrothermal.reach import ReachableMap

    reach, some = ReachableMap(load("tri3")), np.ones((2, 3))
    reach.gradient(some, some, some / 2, some)
    reach.operate(some, some, some)


def main() -> None:
    operate_a_cascade()
    for environment in registry.environments():
        step_a_little(gymnasium.make(environment.lazy_id), batched=False)
        if environment.vector_entry_point is not None:
            step_a_little(gymnasium.make_vec(environment.lazy_id, num_envs=2), batched=True)
    for domain in registry.domains():
        instance = domain.load(domain.example)
        for entry in registry.solvers(domain.name):
            entry.make().solve(instance, time_limit=0.2, seed=0)
    for key, env_id, arguments in LEARNERS:
        learn_a_little(key, env_id, arguments)


if __name__ == "__main__":
    main()
