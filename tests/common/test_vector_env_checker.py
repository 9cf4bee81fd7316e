"""check_vector_env passes good envs and names the rule that a broken one breaks."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from orl.common.vector_env_checker import VectorEnvError, check_vector_env

MODES = list(AutoresetMode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("observation", ["box", "dict", "discrete"])
def test_a_good_native_batch_passes_in_every_mode(walk, mode, observation) -> None:
    env = walk.Batch(3, autoreset_mode=mode, observation=observation)
    check_vector_env(env, single=lambda: walk.Env(observation=observation), steps=60)


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_own_batch_passes(mode) -> None:
    env = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 3, autoreset_mode=mode)
    check_vector_env(env, single=lambda: gymnasium.make("CartPole-v1"), steps=80)


@pytest.mark.parametrize("full", [dict(infos="full"), dict(copy=False), dict(max_episode_steps=4)])
def test_options_of_a_good_batch_pass(walk, full) -> None:
    check_vector_env(walk.Batch(2, **full), steps=60)


def test_gymnasiums_cart_pole_batch_is_caught_sharing_one_generator() -> None:
    with pytest.raises(VectorEnvError, match="s means s \\+ i"):
        check_vector_env(gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point"), steps=30)


def break_nothing_about(name):
    """Subclass factories: each breaks one rule of the good batch."""

    def breaks(base):
        class Broken(base):
            def observe(self):
                obs = super().observe()
                if name == "dtype":
                    return obs.astype(np.float64)
                if name == "outside":
                    return obs + np.float32(100)
                return self.buffer if name == "aliased" else obs

            def step(self, actions):
                was_over = self.over.copy()
                obs, rewards, terminated, truncated, infos = super().step(actions)
                if name == "reward shape":
                    rewards = rewards[:, None]
                if name == "flags":
                    terminated = terminated.astype(np.int64)
                if name == "no final_obs":
                    infos.pop("final_obs", None)
                if name == "idle reward":
                    rewards[was_over] = 1.0
                if name == "unseeded":
                    rewards = rewards + np.random.default_rng().random(self.num_envs)
                return obs, rewards, terminated, truncated, infos

            def reset(self, *, seed=None, options=None):
                if name == "reset_mask" and options:
                    options = {}
                if name == "one seed" and seed is not None:
                    seed = [seed] * self.num_envs
                return super().reset(seed=seed, options=options)

            def action_masks(self):
                masks = super().action_masks()
                if name == "mask dtype":
                    return masks.astype(np.int8)
                return masks & (self.time[:, None] < 1) if name == "all False" else masks

            def get_state(self, i):
                state = super().get_state(i)
                return state[:4] + (np.uint64(1),) + state[5:] if name == "noise position" else state

            def set_state(self, i, state):
                obs = super().set_state(i, state)
                if name == "other copies":
                    self.cell[:] = self.cell[i]
                return obs

        return Broken

    return breaks


@pytest.mark.parametrize(
    "name, message",
    [
        ("dtype", "dtypes"),
        ("outside", "outside the space"),
        ("aliased", "overwrote"),
        ("reward shape", "rewards is"),
        ("flags", "terminated is int64"),
        ("no final_obs", "final observation"),
        ("unseeded", "same seed"),
        ("reset_mask", "masked reset"),
        ("one seed", "s \\+ i"),
        ("mask dtype", "action_masks"),
        ("all False", "all False"),
        ("noise position", "observation|repeat"),
        ("other copies", "another copy"),
    ],
)
def test_a_broken_rule_is_named(walk, name, message) -> None:
    broken = break_nothing_about(name)(walk.Batch)
    with pytest.raises(VectorEnvError, match=message):
        check_vector_env(broken(3), steps=80)


def test_a_reward_in_the_idle_step_is_named(walk) -> None:
    broken = break_nothing_about("idle reward")(walk.Batch)
    with pytest.raises(VectorEnvError, match="step after an episode end"):
        check_vector_env(broken(2, autoreset_mode=AutoresetMode.NEXT_STEP), steps=60)


def test_wrong_declarations_are_named(walk) -> None:
    env = walk.Batch(2)
    env.metadata = {}
    with pytest.raises(VectorEnvError, match="autoreset_mode"):
        check_vector_env(env)
    env = walk.Batch(2)
    env.action_space = env.single_action_space
    with pytest.raises(VectorEnvError, match="not the batch"):
        check_vector_env(env)


def test_a_single_env_that_differs_is_named(walk) -> None:
    class Other(walk.Env):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            return obs, reward + 1e-9, *rest

    with pytest.raises(VectorEnvError, match="single env differ at step 0"):
        check_vector_env(walk.Batch(2), single=Other, steps=20)


def test_it_warns_when_no_episode_ended(walk) -> None:
    with pytest.warns(UserWarning, match="no episode"):
        check_vector_env(walk.Batch(2), steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_vector_env(walk.Batch(2), steps=40)
