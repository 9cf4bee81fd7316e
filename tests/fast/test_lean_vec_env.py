from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
from stable_baselines3.ppo import PPO
from toy_envs import BOX, DOUBLE_BOX, MIXED, ToyEnv

from orl.fast.lean_vec_env import LeanVecEnv


def play(env: Any, steps: int = 60) -> list[Any]:
    env.seed(3)
    env.set_options({"anything": 1})
    seen = [env.reset(), [dict(info) for info in env.reset_infos]]
    env.action_space.seed(0)
    for _ in range(steps):
        obs, rewards, dones, infos = env.step(np.array([env.action_space.sample() for _ in range(env.num_envs)]))
        for info in infos:
            info.get("episode", {}).pop("t", None)
        seen.append((obs, rewards, dones, infos, [dict(info) for info in env.reset_infos]))
    return seen


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("monitor", [False, True])
@pytest.mark.parametrize("space", [BOX, DOUBLE_BOX, MIXED, spaces.Discrete(4), spaces.Tuple([BOX, spaces.Discrete(2)])])
def test_every_step_equals_dummy_vec_env(space: spaces.Space, monitor: bool) -> None:
    fns = [lambda: ToyEnv(space)] * 3
    watched = [lambda: Monitor(ToyEnv(space))] * 3
    assert_same(play(LeanVecEnv(fns, monitor=monitor)), play(DummyVecEnv(watched if monitor else fns)))


def test_wrappers_give_the_same_on_top() -> None:
    fns = [lambda: ToyEnv()] * 2
    assert_same(play(VecNormalize(VecMonitor(LeanVecEnv(fns)))), play(VecNormalize(VecMonitor(DummyVecEnv(fns)))))


def test_observations_and_infos_of_earlier_steps_stay_as_they_were() -> None:
    class Recycling(ToyEnv):
        """Hands out the same observation array and info dict again and again."""

        obs, info = np.zeros(5, np.float32), {"elapsed": 0}

        def reset(self, **kwargs: Any) -> Any:
            self.obs[:] = super().reset(**kwargs)[0]
            return self.obs, self.info

        def step(self, action: Any) -> Any:
            obs, reward, terminated, truncated, info = super().step(action)
            self.obs[:] = obs
            self.info.update(info)
            return self.obs, reward, terminated, truncated, self.info

    env = LeanVecEnv([Recycling])
    env.seed(0)
    env.reset()
    kept = []
    for _ in range(40):
        obs, _, dones, infos = env.step(np.array([0]))
        kept.append((obs, infos[0], obs.copy(), {**infos[0]}))
        if dones[0]:
            assert not np.array_equal(infos[0]["terminal_observation"], obs[0])
    for obs, info, obs_then, info_then in kept:
        np.testing.assert_array_equal(obs, obs_then)
        assert info.keys() == info_then.keys()
        assert info["elapsed"] == info_then["elapsed"]


def test_attributes_methods_and_monitor_answer_as_of_the_copies() -> None:
    env = LeanVecEnv([lambda: ToyEnv()] * 2, monitor=True)
    assert env.env_is_wrapped(Monitor) == [True, True]
    assert env.env_is_wrapped(gymnasium.wrappers.TimeLimit) == [False, False]
    assert LeanVecEnv([lambda: ToyEnv()]).env_is_wrapped(Monitor) == [False]
    assert env.has_attr("action_masks")
    assert not LeanVecEnv([lambda: gymnasium.make("CartPole-v1")]).has_attr("action_masks")
    env.reset()
    np.testing.assert_array_equal(env.action_masks(), np.stack(env.env_method("action_masks")))


def test_evaluate_policy_reads_the_built_in_monitor_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    env = LeanVecEnv([lambda: ToyEnv()] * 2, monitor=True)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=16, device="cpu")
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=4, return_episode_rewards=True)
    assert len(returns) == 4
    assert max(lengths) <= 12
    assert not [w for w in recwarn if "Monitor" in str(w.message)]


def test_the_same_env_twice_is_refused() -> None:
    one = ToyEnv()
    with pytest.raises(ValueError, match="same instance"):
        LeanVecEnv([lambda: one, lambda: one])
