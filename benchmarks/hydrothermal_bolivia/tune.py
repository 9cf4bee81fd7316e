"""Settings of PPO and SAC for the panel study, tried on other paths than the panel's.

python benchmarks/hydrothermal_bolivia/tune.py    # adds rows to results/tuning.csv for the settings that have none
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import run
from run import ENV_ID, INSTANCE, PPO, PPO_COPIES, RESULTS, SAC, SAC_COPIES, STAGES, measure

import orl
from orl.envs.hydrothermal.vector import HydrothermalVectorEnv

REWARD_SCALE = 1e-4  # of the environment, unless a trial says otherwise
TUNING = RESULTS / "tuning.csv"
PATHS, FIRST_SEED = 30, 50_000
STEPS_TRIED = {"ppo": 300_000, "sac": 30_000}
NETS = {"net_arch": [64, 64]}
TRIALS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ppo", {}),  # those of run.py when the trials began: learning rate 3e-4, batches of 768, log_std_init 0
    ("ppo", {"learning_rate": 1e-3}),
    ("ppo", {"policy_kwargs": {**NETS, "log_std_init": -1.0}}),
    ("ppo", {"learning_rate": 1e-3, "policy_kwargs": {**NETS, "log_std_init": -1.0}}),
    ("ppo", {"learning_rate": 1e-3, "gae_lambda": 0.9, "policy_kwargs": {**NETS, "log_std_init": -1.0}}),
    ("ppo", {"learning_rate": 1e-3, "policy_kwargs": {**NETS, "log_std_init": -2.0}}),
    ("ppo", {"learning_rate": 2e-3, "policy_kwargs": {**NETS, "log_std_init": -1.5}}),
    ("ppo", {"learning_rate": 1e-3, "batch_size": 256, "policy_kwargs": {**NETS, "log_std_init": -1.5}}),
    ("ppo", {"learning_rate": 1e-3, "reward_scale": 1e-5, "policy_kwargs": {**NETS, "log_std_init": -1.5}}),
    ("ppo", {"learning_rate": 1e-3, "gamma": 0.98, "policy_kwargs": {**NETS, "log_std_init": -1.5}}),
    ("sac", {}),
    ("sac", {"learning_rate": 1e-3}),
    ("sac", {"gamma": 0.98}),
    ("sac", {"gamma": 0.98, "reward_scale": 1e-3}),
    ("sac", {"gamma": 0.98, "reward_scale": 1e-3, "ent_coef": 0.01}),
)


def cost_of(model: Any) -> float:
    """Mean cost of greedy actions on paths that belong to no panel."""
    envs = HydrothermalVectorEnv(PATHS, INSTANCE, autoreset_mode="DISABLED")
    observation, _ = envs.reset(seed=FIRST_SEED)
    for _ in range(STAGES):
        observation, _, _, _, infos = envs.step(model.predict(observation, deterministic=True)[0])
    return float(np.mean(infos["objective"]))


def main() -> None:
    """Train each setting for some steps and keep what it costs."""
    done = {(row["algorithm"], row["changes"]) for row in measure.read_rows(TUNING)}
    for algorithm, changes in TRIALS:
        if (algorithm, str(changes)) in done:
            continue
        copies = PPO_COPIES if algorithm == "ppo" else SAC_COPIES
        hyper = dict(changes)
        env = orl.make_vec(
            ENV_ID, copies, seed=7, instance=INSTANCE, reward_scale=hyper.pop("reward_scale", REWARD_SCALE)
        )
        if algorithm == "ppo":
            model: Any = orl.FastPPO("MlpPolicy", env, seed=7, device="cpu", **{**PPO, **hyper})
        else:
            options = {"train_freq": 1, "gradient_steps": 1, "learning_starts": 960, **SAC, **hyper}
            model = orl.FastSAC("MlpPolicy", env, seed=7, device="cpu", **options)
        began = time.process_time()
        model.learn(STEPS_TRIED[algorithm])
        row = {"algorithm": algorithm, "changes": str(changes), "cpu_seconds": time.process_time() - began}
        row |= {"steps": model.num_timesteps, "cost": f"{cost_of(model):.1f}"}
        measure.append_row(TUNING, row)
        print(row, flush=True)


if __name__ == "__main__":
    run.torch.set_num_threads(1)
    main()
