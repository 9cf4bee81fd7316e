"""Scripts that users of SB3 have: only the import changes."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.vec_env import VecNormalize

import orl
from orl.fast.lean_vec_env import LeanVecEnv

# Stable-Baselines3's README, without the window.
SCRIPT = """
import gymnasium

from orl import FastPPO as PPO

env = gymnasium.make("CartPole-v1")

model = PPO("MlpPolicy", env, verbose=1)
model.learn(total_timesteps=10_000)

vec_env = model.get_env()
obs = vec_env.reset()
returned = 0.0
for i in range(1000):
    action, _states = model.predict(obs, deterministic=True)
    obs, rewards, dones, info = vec_env.step(action)
    returned += rewards[0]
"""


def test_the_example_of_sb3s_readme_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(SCRIPT, names)
    model = names["model"]
    assert isinstance(model, orl.FastPPO)
    assert model.engine_in_use == "fast"
    assert model.num_timesteps == 10_240  # whole rollouts of 2,048 steps
    assert names["dones"].shape == (1,)  # type: ignore[attr-defined]
    assert max(episode["r"] for episode in model.ep_info_buffer) > 50  # a random policy has about 22
    printed = capsys.readouterr().out
    assert "Wrapping the env in a LeanVecEnv" in printed
    assert "ep_rew_mean" in printed


def test_the_one_liner_of_sb3s_readme_runs() -> None:
    model = orl.FastPPO("MlpPolicy", "CartPole-v1", n_steps=64).learn(128)
    assert model.engine_in_use == "fast"


ALGORITHMS = {
    "FastPPO": ("CartPole-v1", {"n_steps": 64, "batch_size": 32}),
    "FastSAC": ("Pendulum-v1", {"learning_starts": 16, "batch_size": 8, "buffer_size": 300}),
    "FastTD3": ("Pendulum-v1", {"learning_starts": 16, "batch_size": 8, "buffer_size": 300}),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_callbacks_vec_normalize_tensorboard_and_progress_bar_work_together(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    env_id, arguments = ALGORITHMS[name]

    def make(training: bool) -> VecNormalize:
        envs = [lambda: gymnasium.make(env_id, max_episode_steps=20)] * 2
        return VecNormalize(LeanVecEnv(envs, monitor=True), training=training)

    callbacks = [
        EvalCallback(make(False), eval_freq=32, n_eval_episodes=1, log_path=str(tmp_path / "eval"), verbose=0),
        CheckpointCallback(32, str(tmp_path / "checkpoints"), save_vecnormalize=True),
    ]
    options = {"engine": "fast", "seed": 0, "device": "cpu", "tensorboard_log": str(tmp_path / "logs"), **arguments}
    model = getattr(orl, name)("MlpPolicy", make(True), **options)
    model.learn(256, callback=callbacks, progress_bar=True)
    assert model.engine_in_use == "fast"
    assert (tmp_path / "eval" / "evaluations.npz").exists()
    assert len(list((tmp_path / "checkpoints").glob("rl_model_*_steps.zip"))) == 4
    assert len(list((tmp_path / "checkpoints").glob("*vecnormalize*.pkl"))) == 4
    (events,) = (tmp_path / "logs").glob("*/events.out.tfevents.*")
    logged = EventAccumulator(str(events)).Reload().Tags()["scalars"]
    assert {"eval/mean_reward", "rollout/ep_rew_mean"} <= set(logged)
    assert any(tag.startswith("train/") for tag in logged)
