"""sbx 0.28.0 (Stable-Baselines3 in JAX): PPO, SAC and TD3 with their defaults or named layers, on one core."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from learners import Requests, use_one_core

# isort: split
# XLA's own pools heed none of the usual variables.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["JAX_PLATFORMS"] = "cpu"
use_one_core()

import gymnasium  # noqa: E402
import sbx  # noqa: E402
import torch  # noqa: E402


def main() -> None:
    requests = Requests("sbx-rl", "jax", "jaxlib", "gymnasium", "mujoco", "numpy")
    torch.set_num_threads(1)
    request = requests.load()
    rollout = {} if request["n_steps"] is None else {"n_steps": request["n_steps"]}
    layers = {} if request["net_arch"] is None else {"policy_kwargs": {"net_arch": request["net_arch"]}}
    learner = getattr(sbx, request["algorithm"])
    model = learner("MlpPolicy", gymnasium.make(request["env_id"]), seed=0, **rollout, **layers)
    while True:
        steps = requests.steps()
        before = model.num_timesteps
        model.learn(steps, reset_num_timesteps=False)
        requests.done(model.num_timesteps - before)


if __name__ == "__main__":
    main()
