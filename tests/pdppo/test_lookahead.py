"""Looking one decision ahead: which actions are scored, and with what."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from inventory_toy import TwoShelves
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy_envs import ToyEnv

from orl.common.errors import InputError
from orl.pdppo import PDPPO, LookaheadPolicy
from orl.pdppo.lookahead import legal_actions

SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "device": "cpu", "seed": 0}


def shelves(n: int = 3, **options: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: TwoShelves(**options)] * n)


def test_all_legal_actions_are_listed_once() -> None:
    space = spaces.MultiDiscrete([3, 2])
    mask = np.array([True, False, True, True, True])
    assert legal_actions(space, mask, 4).tolist() == [[0, 0], [0, 1], [2, 0], [2, 1]]
    assert legal_actions(space, mask, 3) is None
    assert legal_actions(spaces.Discrete(3, start=5), np.array([True, False, True]), 9).tolist() == [5, 7]
    assert legal_actions(spaces.MultiBinary(2), np.array([True, True, False, True]), 9).tolist() == [[0, 1], [1, 1]]


def test_the_action_of_the_largest_decision_and_post_value_is_chosen() -> None:
    env = shelves(masks=True)
    model = PDPPO("MlpPolicy", env, **SMALL).learn(96)
    env.seed(4)
    observations = env.reset()
    chosen, _ = LookaheadPolicy(model, env).predict(observations)
    for i, copy in enumerate(env.envs):
        best, value = None, -np.inf
        for action in legal_actions(env.action_space, copy.action_masks(), 100):
            post, reward = copy.post_decision(copy.current_state(), action)
            score = reward + model.predict_post_values(copy.observe_post_decision(post)[None])[0]
            if score > value:
                best, value = action, score
        np.testing.assert_array_equal(chosen[i], best)
    np.testing.assert_array_equal(model.predict_lookahead(env), chosen)


def test_with_draws_v_of_the_next_states_counts_and_ends_count_nothing() -> None:
    env = shelves(1, demand=1, ends=0.0, truncates=False, horizon=1)
    model = PPO("MlpPolicy", env, **SMALL)
    env.seed(1)
    env.reset()
    policy = LookaheadPolicy(model, env, n_samples=3)
    candidates = policy.candidates(None)
    assert candidates.shape == (1, 9, 2)
    copy = env.envs[0]
    expected = []
    for action in candidates[0]:
        post, reward = copy.post_decision(copy.current_state(), action)
        expected.append(reward + copy.sample_exogenous(post, np.random.default_rng(0))[1])  # the episode ends here
    np.testing.assert_allclose(policy.scores(candidates)[0], expected, atol=1e-6)
    longer = shelves(1, demand=1, ends=0.0)
    longer.seed(1)
    observation = longer.reset()
    copy = longer.envs[0]
    post, reward = copy.post_decision(copy.current_state(), [0, 0])
    following, noise = copy.sample_exogenous(post, np.random.default_rng(0))
    tensor = model.policy.obs_to_tensor(copy.observe(following)[None])[0]
    value = model.policy.predict_values(tensor).item()
    scores = LookaheadPolicy(model, longer, n_samples=2).scores(np.zeros((1, 1, 2), np.int64))
    assert scores[0, 0] == pytest.approx(reward + noise + model.gamma * value, abs=1e-5)
    assert observation.shape == (1, 3)


def test_with_too_many_actions_those_of_the_policy_are_scored() -> None:
    env = shelves(masks=True)
    model = PDPPO("MlpPolicy", env, **SMALL).learn(96)
    env.seed(2)
    observations = env.reset()
    masks = np.stack(env.env_method("action_masks"))
    policy = LookaheadPolicy(model, env, max_actions=3)
    candidates = policy.candidates(observations)
    assert candidates.shape == (3, 3, 2)
    np.testing.assert_array_equal(
        candidates[:, 0], model.predict(observations, deterministic=True, action_masks=masks)[0]
    )
    for row, mask in zip(candidates, masks, strict=True):
        assert all(mask.reshape(2, 3)[np.arange(2), action].all() for action in row)
    with pytest.raises(InputError, match="need the observations"):
        policy.predict(None)


def test_a_single_env_and_masks_that_are_given() -> None:
    model = PDPPO("MlpPolicy", shelves(masks=True), **SMALL).learn(96)
    env = TwoShelves(masks=True)
    observation, _ = env.reset(seed=0)
    policy = LookaheadPolicy(model, env)
    action, state = policy.predict(observation)
    assert env.action_space.contains(action)
    assert state is None
    only = np.array([False, False, True, False, True, False])
    assert policy.predict(observation, action_masks=only)[0].tolist() == [2, 1]


def test_vec_normalize_applies_to_what_is_looked_at() -> None:
    env = VecNormalize(shelves(), gamma=0.99)
    model = PDPPO("MlpPolicy", env, **SMALL).learn(192)
    env.training = False
    env.seed(6)
    env.reset()
    inside = LookaheadPolicy(model, env, n_samples=0)
    candidates = inside.candidates(None)
    bare = LookaheadPolicy(model, env.venv)  # the statistics of the model's own envs
    np.testing.assert_allclose(inside.scores(candidates), bare.scores(candidates), atol=1e-5)
    again = PDPPO("MlpPolicy", shelves(), **SMALL)
    again.set_parameters(model.get_parameters())
    raw = LookaheadPolicy(again, env.venv).scores(candidates)
    assert np.abs(raw - bare.scores(candidates)).max() > 1e-3


def test_models_of_sb3_contrib_and_dict_observations() -> None:
    env = shelves(masks=True, dict_observation=True)
    model = MaskablePPO("MultiInputPolicy", env, **SMALL)
    observations = env.reset()
    actions, _ = LookaheadPolicy(model, env, n_samples=2).predict(observations)
    assert actions.shape == (3, 2)


def test_what_cannot_look_ahead_says_so() -> None:
    env = shelves()
    for options in ({"advantage": "pre"}, {"advantage": "paper_max"}, {"n_critics": 1}):
        with pytest.raises(InputError, match="no critic of what follows"):
            LookaheadPolicy(PDPPO("MlpPolicy", env, **SMALL, **options), env)
    with pytest.raises(InputError, match="no critic of what follows"):
        LookaheadPolicy(PPO("MlpPolicy", env, **SMALL), env)
    with pytest.raises(InputError, match="no post-decision critic"):
        PDPPO("MlpPolicy", env, advantage="pre", **SMALL).predict_post_values(env.reset())
    toy = DummyVecEnv([ToyEnv])
    with pytest.raises(InputError, match="what a decision would lead to"):
        LookaheadPolicy(PPO("MlpPolicy", toy, **SMALL), toy, n_samples=1)
    plant = gymnasium.make("orl:orl/LotSizing-v0")
    scaled = gymnasium.wrappers.RescaleObservation(plant, np.float32(0), np.float32(2))
    with pytest.raises(InputError, match="RescaleObservation"):  # decisions would be seen on another scale
        LookaheadPolicy(PPO("MlpPolicy", scaled, **SMALL), scaled, n_samples=1)
    with pytest.raises(InputError, match="n_samples"):
        LookaheadPolicy(PPO("MlpPolicy", env, **SMALL), env, n_samples=-1)
