"""Greedy actions of the engine are those of SB3's own ``predict``."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO

from orl.fast.ppo import FastMaskablePPO, FastPPO
from orl.mdpo import MDPO

BOX = spaces.Box(-2.0, 2.0, (5,), np.float32)
OBSERVATIONS = {
    "box": BOX,
    "discrete": spaces.Discrete(4),
    "dict": spaces.Dict(a=BOX, b=spaces.MultiDiscrete([2, 3])),
}
ACTIONS = {
    "box": spaces.Box(-0.1, 0.1, (2, 2), np.float32),
    "discrete": spaces.Discrete(6),
    "multi": spaces.MultiDiscrete([3, 4, 2]),
}


class Random(gymnasium.Env):
    """Random observations; every other option of an action is legal."""

    def __init__(self, observation_space, action_space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(0)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}

    def action_masks(self) -> np.ndarray:
        width = 6 if isinstance(self.action_space, spaces.Discrete) else 9
        mask = np.arange(width) % 2 == 0
        mask[[2, 3, 8] if width == 9 else [1]] = True
        return mask


def batch(space, n: int):
    space.seed(1)
    samples = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.array([sample[key] for sample in samples]) for key in space}
    return np.array(samples)


def first(observations):
    return {k: v[0] for k, v in observations.items()} if isinstance(observations, dict) else observations[0]


def policy_name(space) -> str:
    return "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_fast_ppo_predicts_what_sb3_predicts(observations, actions) -> None:
    space = OBSERVATIONS[observations]
    model = FastPPO(policy_name(space), Random(space, ACTIONS[actions]), n_steps=8, batch_size=8, seed=0, device="cpu")
    many = batch(space, 50)
    for given in (many, first(many)):
        got, _ = model.predict(given, deterministic=True)
        expected, _ = PPO.predict(model, given, deterministic=True)
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    assert model._fast is not None


@pytest.mark.parametrize("algorithm", [FastMaskablePPO, MDPO])
@pytest.mark.parametrize("actions", ["discrete", "multi"])
def test_masked_predictions_are_those_of_the_policy(algorithm, actions) -> None:
    env = Random(BOX, ACTIONS[actions])
    model = algorithm("MlpPolicy", env, n_steps=8, seed=0, device="cpu")
    many = batch(BOX, 60)
    masks = np.stack([env.action_masks()] * 60)
    for given, mask in ((many, masks), (many[0], masks[0]), (many, None)):
        got, _ = model.predict(given, deterministic=True, action_masks=mask)
        expected, _ = model.policy.predict(given, deterministic=True, action_masks=mask)
        np.testing.assert_array_equal(got, expected)
        assert got.shape == expected.shape
    assert model._fast is not None


def test_predictions_follow_the_parameters() -> None:
    model = FastPPO("MlpPolicy", Random(BOX, ACTIONS["box"]), n_steps=8, batch_size=8, seed=0, device="cpu")
    other = FastPPO("MlpPolicy", Random(BOX, ACTIONS["box"]), n_steps=8, batch_size=8, seed=1, device="cpu")
    observations = batch(BOX, 3)
    before, _ = model.predict(observations, deterministic=True)
    model.set_parameters(other.get_parameters())
    after, _ = model.predict(observations, deterministic=True)
    np.testing.assert_allclose(after, other.predict(observations, deterministic=True)[0], rtol=1e-6)
    assert not np.allclose(before, after)


def test_bad_observations_meet_sb3s_errors() -> None:
    model = FastPPO("MlpPolicy", Random(BOX, ACTIONS["discrete"]), n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match="shape"):
        model.predict(np.zeros(7, np.float32), deterministic=True)
    with pytest.raises(ValueError, match="tuple"):
        model.predict((np.zeros(5, np.float32), {}), deterministic=True)  # type: ignore[arg-type]


def test_a_saved_model_leaves_the_engine_out(tmp_path) -> None:
    model = FastPPO("MlpPolicy", Random(BOX, ACTIONS["discrete"]), n_steps=8, batch_size=8, device="cpu")
    observations = batch(BOX, 4)
    expected, _ = model.predict(observations, deterministic=True)
    model.save(tmp_path / "model.zip")
    np.testing.assert_array_equal(
        FastPPO.load(tmp_path / "model.zip").predict(observations, deterministic=True)[0], expected
    )
    assert "_predicts_slowly" not in PPO.load(tmp_path / "model.zip").__dict__
