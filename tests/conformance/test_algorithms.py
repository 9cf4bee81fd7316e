"""Every registered algorithm is an SB3 algorithm: it learns, saves, loads and predicts."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from inventory_toy import TwoShelves
from stable_baselines3.common.base_class import BaseAlgorithm
from tank_toy import TankEnv

from orl import registry

ENTRIES = [pytest.param(e, id=e.key) for e in registry.algorithms()]
SHORT = {
    "ppo": {"n_steps": 32, "batch_size": 32},
    "maskable-ppo": {"n_steps": 32, "batch_size": 32},
    "recurrent-ppo": {"n_steps": 16, "batch_size": 16, "policy_kwargs": {"lstm_hidden_size": 8}},
    "trpo": {"n_steps": 32, "batch_size": 32},
    "ars": {"n_delta": 2},
    "fast-ppo": {"n_steps": 32, "batch_size": 32, "engine": "fast"},
    "fast-maskable-ppo": {"n_steps": 32, "batch_size": 32, "engine": "fast"},
    "fast-sac": {"engine": "fast"},
    "fast-td3": {"engine": "fast"},
    "mdpo": {"n_steps": 32, "vf_batch_size": 32},
    "pdppo": {"n_steps": 32, "batch_size": 32, "n_exogenous_samples": 2},
    "reference-pdppo": {"n_steps": 32, "n_epochs": 2},
    "tsddr": {"batch_size": 4, "n_eval_episodes": 3},
}
CONTINUOUS = {"sac", "td3", "ddpg", "tqc", "cross-q", "fast-sac", "fast-td3", "off-policy-mdpo"}
OFF_POLICY = {"dqn", "qr-dqn", *CONTINUOUS}
POLICIES = {"recurrent-ppo": "MlpLstmPolicy"}


class MaskedCorridor(gymnasium.Env):
    """Walk right to the end of five cells; walls are masked."""

    observation_space = spaces.Box(0, 4, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = 2
        return np.array([self.cell], np.float32), {}

    def step(self, action):
        self.cell += 2 * int(action) - 1
        return np.array([self.cell], np.float32), -1.0, self.cell == 4, False, {}

    def action_masks(self):
        return np.array([self.cell > 0, True])


def suitable_env(key: str) -> gymnasium.Env:
    if "pdppo" in key:
        return TwoShelves()
    if key == "tsddr":
        return TankEnv()
    if "maskable" in key:
        return gymnasium.wrappers.TimeLimit(MaskedCorridor(), 20)
    return gymnasium.make("Pendulum-v1" if key in CONTINUOUS else "CartPole-v1", max_episode_steps=20)


@pytest.mark.parametrize("entry", ENTRIES)
def test_it_learns_saves_loads_and_predicts(entry, tmp_path) -> None:
    algorithm, env = entry.load(), suitable_env(entry.key)
    options = SHORT.get(entry.key, {})
    if entry.key in OFF_POLICY:
        options = {"learning_starts": 8, "batch_size": 8, "buffer_size": 200, **options}
    model = algorithm(POLICIES.get(entry.key, "MlpPolicy"), env, seed=0, device="cpu", **options)
    assert isinstance(model, BaseAlgorithm)
    model.learn(48)
    assert model.num_timesteps >= 48
    model.save(tmp_path / "model")
    again = algorithm.load(tmp_path / "model", device="cpu")
    observation, _ = env.reset(seed=1)
    action, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(action, again.predict(observation, deterministic=True)[0])
    assert env.action_space.contains(action if action.shape else int(action))
