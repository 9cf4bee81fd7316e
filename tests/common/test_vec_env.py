"""The bridge from Gymnasium's VectorEnv to SB3's VecEnv."""

from __future__ import annotations

import copy
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorObservationWrapper
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as maskable_evaluate_policy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from orl.common.batched_values import equal_trees, row
from orl.common.errors import IllegalActionError
from orl.common.illegal_actions import UnmaskedPolicyWarning
from orl.common.vec_env import GymVecEnv, make_vec

SAME, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


def cart_poles(n: int, mode: AutoresetMode = SAME) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: gymnasium.make("CartPole-v1", max_episode_steps=20)] * n, autoreset_mode=mode)


def rollout(venv, actions):
    obs = [venv.reset()]
    rest = []
    for action in actions:
        result = venv.step(action)
        obs.append(result[0])
        rest.append(result[1:])
    return obs, rest


@pytest.mark.parametrize("mode", [SAME, DISABLED])
def test_it_does_what_dummy_vec_env_does(mode) -> None:
    """Same observations, rewards, dones, terminal observations, truncation flags, across many episodes."""
    dummy = DummyVecEnv([lambda: gymnasium.make("CartPole-v1", max_episode_steps=20)] * 3)
    bridge = GymVecEnv(cart_poles(3, mode))
    assert dummy.seed(5) == bridge.seed(5)
    actions = np.random.default_rng(0).integers(0, 2, (150, 3))
    obs, rest = rollout(bridge, actions)
    expected_obs, expected_rest = rollout(dummy, actions)
    ends = truncations = 0
    for a, b in zip(obs, expected_obs, strict=True):
        assert equal_trees(a, b)
    for (rewards, dones, infos), (expected_rewards, expected_dones, expected_infos) in zip(
        rest, expected_rest, strict=True
    ):
        assert equal_trees(rewards, expected_rewards)
        assert equal_trees(dones, expected_dones)
        for i in np.flatnonzero(dones):
            ends += 1
            truncations += infos[i]["TimeLimit.truncated"]
            assert infos[i]["TimeLimit.truncated"] is bool(expected_infos[i]["TimeLimit.truncated"])
            assert equal_trees(infos[i]["terminal_observation"], expected_infos[i]["terminal_observation"])
    assert ends > 10
    assert 0 < truncations < ends


@pytest.mark.parametrize("observation", ["box", "dict", "discrete"])
@pytest.mark.parametrize("mode", [SAME, DISABLED])
def test_native_batches_equal_their_single_envs(walk, observation, mode) -> None:
    dummy = DummyVecEnv([lambda: walk.Env(observation=observation)] * 2)
    bridge = GymVecEnv(walk.Batch(2, observation=observation, autoreset_mode=mode))
    for venv in (dummy, bridge):
        venv.seed(1)
    a, b = dummy.reset(), bridge.reset()
    rng = np.random.default_rng(0)
    for _ in range(40):
        assert equal_trees(dict(a) if isinstance(a, dict) else a, b)
        masks = get_action_masks(bridge)
        assert equal_trees(get_action_masks(dummy), masks)
        actions = np.where(masks, rng.random(masks.shape), -1).argmax(1)
        a, rewards, dones, infos = dummy.step(actions)
        b, *rest = bridge.step(actions)
        assert equal_trees(rewards, rest[0])
        assert equal_trees(dones, rest[1])
        for i in np.flatnonzero(dones):
            assert infos[i]["objective"] == rest[2][i]["objective"]
            assert equal_trees(infos[i]["terminal_observation"], rest[2][i]["terminal_observation"])


def test_modes_that_sb3_cannot_use_are_refused_with_advice(walk) -> None:
    with pytest.raises(ValueError, match=r"NEXT_STEP.*SAME_STEP"):
        GymVecEnv(walk.Batch(2, autoreset_mode=AutoresetMode.NEXT_STEP))
    env = walk.Batch(2)
    env.metadata = {}
    with pytest.raises(ValueError, match="autoreset mode None"):
        GymVecEnv(env)


def test_a_disabled_batch_that_ignores_the_reset_mask_is_refused(walk) -> None:
    class Ignores(walk.Batch):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)

    bridge = GymVecEnv(Ignores(3, autoreset_mode=DISABLED))
    bridge.seed(0)
    bridge.reset()
    with pytest.raises(ValueError, match="reset_mask"):
        for _ in range(50):
            bridge.step(np.ones(3, np.int64))


def test_infos_are_separate_dicts_and_reset_infos_follow_the_episodes(walk) -> None:
    bridge = GymVecEnv(walk.Batch(3, infos="full"))
    bridge.seed(2)
    bridge.reset()
    assert bridge.reset_infos == [{"start": 2}] * 3
    done = np.zeros(3, bool)
    while not done.any():
        _, _, done, infos = bridge.step(np.array([0, 1, 2]) if done.sum() else np.ones(3, np.int64))
        assert len({id(info) for info in infos}) == 3
        for i in range(3):
            assert ("objective" in infos[i]) == done[i]
            assert ("clock" in infos[i]) != done[i]
    assert [info["start"] for info in bridge.reset_infos] == [2] * 3


def test_observations_are_never_overwritten_even_by_a_batch_without_copies(walk) -> None:
    for env in (walk.Batch(2, copy=False), walk.Batch(2, copy=False, autoreset_mode=DISABLED)):
        bridge = GymVecEnv(env)
        bridge.seed(0)
        first = bridge.reset()
        held = first.copy()
        for _ in range(20):
            obs, *_ = bridge.step(np.ones(2, np.int64))
            assert not np.shares_memory(obs, env.buffer)
        np.testing.assert_array_equal(first, held)


def test_seeds_and_options_serve_one_reset(walk) -> None:
    bridge = make_vec(walk.id, 3, seed=11)
    first = bridge.reset()
    assert not np.array_equal(first, bridge.reset())
    bridge.seed(11)
    bridge.set_options({"cell": 4})
    np.testing.assert_array_equal(bridge.reset()[:, 0], [4, 4, 4])
    assert bridge.last_options == {"cell": 4}
    bridge.seed(11)
    np.testing.assert_array_equal(bridge.reset(), first)
    bridge.seed(11)
    bridge.set_options([{"cell": 0}, {}, {"cell": 3}])
    obs = bridge.reset()
    np.testing.assert_array_equal(obs[:, 0], [0, 2, 3])
    np.testing.assert_array_equal(obs[:, 2], first[:, 2])


def test_attributes_come_from_the_batch(walk) -> None:
    bridge = VecMonitor(make_vec(walk.id, 3, seed=0, illegal="count"))
    bridge.reset()
    assert bridge.get_attr("cell") == [2, 2, 2]
    assert bridge.get_attr("illegal", indices=[0, 2]) == ["count", "count"]
    assert bridge.get_attr("observation_space", 1) == [bridge.observation_space]
    assert bridge.has_attr("action_masks")
    assert not bridge.has_attr("nonsense")
    bridge.set_attr("cell", 0, indices=1)
    assert bridge.get_attr("cell") == [2, 0, 2]
    bridge.set_attr("speed", 3.0)
    assert bridge.get_attr("speed") == [3.0] * 3
    with pytest.raises(ValueError, match="shared"):
        bridge.set_attr("speed", 1.0, indices=0)
    with pytest.raises(AttributeError, match="nonsense"):
        bridge.set_attr("nonsense", 1)
    with pytest.raises(AttributeError, match="nonsense"):
        bridge.env_method("nonsense")
    with pytest.raises(AttributeError, match="whole VecEnv"):
        bridge.env_method("reset", indices=0)


def test_methods_of_the_batch_and_of_one_copy(walk) -> None:
    bridge = make_vec(walk.id, 3, seed=0)
    bridge.reset()
    bridge.step(np.array([0, 1, 2]))
    masks = bridge.env_method("action_masks")
    assert [m.dtype == bool and m.shape == (3,) for m in masks] == [True] * 3
    assert len(bridge.env_method("action_masks", indices=[1])) == 1
    assert bridge.env_method("place_of") == [1, 2, 3]
    assert bridge.env_method("place_of", indices=2) == [3]
    assert bridge.get_attr("place_of")[2]() == 3
    assert bridge.action_masks().shape == (3, 3)


def test_snapshots_through_the_bridge(walk) -> None:
    bridge = VecNormalize(VecMonitor(make_vec(walk.id, 2, seed=3)), norm_obs=False, norm_reward=False)
    bridge.reset()
    bridge.step(np.array([0, 2]))
    state = bridge.env_method("get_state", indices=0)[0]
    future = [bridge.step(np.array([2, 1]))[:2] for _ in range(2)]
    obs = bridge.env_method("set_state", state, indices=1)[0]
    assert obs[0] == 1
    again = [bridge.step(np.array([1, 2]))[:2] for _ in range(2)]
    for (obs_a, reward_a), (obs_b, reward_b) in zip(future, again, strict=True):
        np.testing.assert_array_equal(obs_a[0], obs_b[1])
        assert reward_a[0] == reward_b[1]


def test_side_channels_are_read_through_wrappers_as_copies(walk) -> None:
    bridge = VecNormalize(VecMonitor(make_vec(walk.id, 2, seed=0, illegal="remap")))
    bridge.reset()
    for _ in range(3):
        bridge.step(np.array([0, 1]))
    channel = bridge.illegal_actions
    np.testing.assert_array_equal(channel, [1, 0])
    channel[:] = 9
    np.testing.assert_array_equal(bridge.illegal_actions, [1, 0])


def test_rendering_tiles_the_frames_of_the_copies(walk) -> None:
    bridge = make_vec(walk.id, 4, seed=0, render_mode="rgb_array")
    bridge.reset()
    assert bridge.render_mode == "rgb_array"
    assert len(bridge.get_images()) == 4
    assert bridge.render().shape == (16, 16, 3)


def test_sync_and_async_batches_answer_copy_by_copy(walk) -> None:
    for cls in (SyncVectorEnv, AsyncVectorEnv):
        env = cls([walk.Env] * 2, autoreset_mode=SAME)
        bridge = GymVecEnv(env)
        bridge.seed(0)
        bridge.reset()
        assert is_masking_supported(bridge)
        np.testing.assert_array_equal(get_action_masks(bridge), np.ones((2, 3), bool))
        assert bridge.get_attr("render_mode") == [None, None]
        assert bridge.env_method("action_masks", indices=1)[0].all()
        assert not bridge.has_attr("nonsense")
        bridge.step(np.array([0, 2]))
        bridge.close()


def test_single_envs_keep_their_wrappers_and_attributes() -> None:
    bridge = GymVecEnv(SyncVectorEnv([lambda: Monitor(gymnasium.make("CartPole-v1"))] * 2, autoreset_mode=SAME))
    assert bridge.env_is_wrapped(Monitor) == [True, True]
    assert bridge.get_attr("gravity") == [9.8, 9.8]
    bridge.set_attr("gravity", 5.0, indices=1)
    assert [env.unwrapped.gravity for env in bridge.envs] == [9.8, 5.0]
    with pytest.raises(AttributeError, match="nonsense"):
        bridge.set_attr("nonsense", 1)


def test_vector_wrappers_are_looked_through(walk) -> None:
    class Half(VectorObservationWrapper):
        def observations(self, obs):
            return (obs / 2).astype(np.float32)

    bridge = GymVecEnv(Half(walk.Batch(2, autoreset_mode=DISABLED)))
    bridge.seed(0)
    assert bridge.reset()[0, 0] == 1.0
    assert bridge.env_is_wrapped(Half) == [True, True]
    assert bridge.get_attr("cell") == [2, 2]


def test_make_vec_takes_the_native_batch_only_if_it_fits(walk) -> None:
    assert isinstance(make_vec(walk.id, 2).env, walk.Batch)
    assert isinstance(make_vec("CartPole-v1", 2).env, SyncVectorEnv)
    assert isinstance(make_vec(walk.id, 2, vectorization_mode="sync").env, SyncVectorEnv)
    assert make_vec(walk.id, 2).env.illegal == "raise"
    assert make_vec(walk.id, 2, max_episode_steps=3).env.max_episode_steps == 3
    with pytest.raises(ValueError, match="no keyword illegal"):
        make_vec("CartPole-v1", 2, illegal="remap")
    with pytest.raises(ValueError, match="NEXT_STEP"):
        make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    with pytest.raises(gymnasium.error.Error, match="Nowhere"):
        make_vec("Nowhere-v0")


@pytest.mark.parametrize("observation", ["box", "dict"])
def test_maskable_ppo_learns_and_makes_no_illegal_action(walk, observation) -> None:
    venv = VecMonitor(make_vec(walk.id, 4, illegal="raise", observation=observation))
    venv = VecNormalize(venv, norm_obs_keys=["place"] if observation == "dict" else None)
    policy = "MultiInputPolicy" if observation == "dict" else "MlpPolicy"
    model = MaskablePPO(policy, venv, n_steps=16, batch_size=16, n_epochs=1, seed=0)
    model.learn(128)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maskable_evaluate_policy(model, venv, n_eval_episodes=8)


def test_stock_algorithms_and_eval_callback_run_on_it(tmp_path) -> None:
    eval_env = VecMonitor(make_vec("CartPole-v1", 1, seed=1))
    callback = EvalCallback(eval_env, n_eval_episodes=2, eval_freq=20, log_path=str(tmp_path), verbose=0)
    PPO("MlpPolicy", VecMonitor(make_vec("CartPole-v1", 2)), n_steps=32, batch_size=32, seed=0).learn(64, callback)
    assert (tmp_path / "evaluations.npz").exists()
    model = DQN("MlpPolicy", VecMonitor(make_vec("CartPole-v1", 2)), learning_starts=10, buffer_size=200, seed=0)
    model.learn(60)
    assert len(model.ep_info_buffer) > 0


def test_the_plain_evaluator_on_a_masked_policy_warns(walk) -> None:
    model = MaskablePPO("MlpPolicy", make_vec(walk.id, 2), n_steps=8, batch_size=8, seed=0)
    counted = VecMonitor(make_vec(walk.id, 2, illegal="count", seed=0))
    with pytest.warns(UnmaskedPolicyWarning, match="never asked for the action masks"):
        evaluate_policy(model, counted, n_eval_episodes=30, deterministic=False)
    strict = VecMonitor(make_vec(walk.id, 2, illegal="raise", seed=0))
    with pytest.warns(UnmaskedPolicyWarning), pytest.raises(IllegalActionError):
        evaluate_policy(model, strict, n_eval_episodes=30, deterministic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maskable_evaluate_policy(model, counted, n_eval_episodes=30, deterministic=False)


def test_the_bridge_can_be_copied_with_its_batch(walk) -> None:
    bridge = make_vec(walk.id, 2, seed=0)
    bridge.reset()
    twin = copy.deepcopy(bridge)
    action = np.array([0, 2])
    for a, b in zip(bridge.step(action)[:3], twin.step(action)[:3], strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_of_every_observation_layout() -> None:
    batch = {"a": np.arange(6).reshape(3, 2), "b": (np.arange(3), np.ones((3, 1)))}
    one = row(batch, 2)
    np.testing.assert_array_equal(one["a"], [4, 5])
    assert one["b"][0] == 2
