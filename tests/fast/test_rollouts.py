from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecMonitor
from toy_envs import BOX, MaskedToyEnv, ToyEnv

import orl
from orl.fast.lean_vec_env import LeanVecEnv
from orl.fast.ppo import FastMaskablePPO, FastPPO
from orl.fast.rollouts import mask_reader, returns_and_advantages

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "device": "cpu", "seed": 0}


def test_advantages_equal_sb3_bit_for_bit() -> None:
    random = np.random.default_rng(0)
    ours, theirs = (RolloutBuffer(50, BOX, BOX, "cpu", 0.93, 0.97, n_envs=4) for _ in range(2))
    for name in ("rewards", "values"):
        getattr(ours, name)[:] = getattr(theirs, name)[:] = random.normal(size=(50, 4))
    ours.episode_starts[:] = theirs.episode_starts[:] = random.random((50, 4)) < 0.1
    last, dones = random.normal(size=4).astype(np.float32), np.array([True, False, False, True])
    returns_and_advantages(ours, last, dones)
    theirs.compute_returns_and_advantage(torch.from_numpy(last), dones)
    np.testing.assert_array_equal(ours.advantages, theirs.advantages)
    np.testing.assert_array_equal(ours.returns, theirs.returns)


class Recorder(BaseCallback):
    """Keeps what a callback sees at every step, and ends training at a given one."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []
        self.stop_at = stop_at
        self.values: list[Any] = []

    def _on_step(self) -> bool:
        names = ("actions", "clipped_actions", "rewards", "dones", "new_obs", "n_steps")
        self.seen.append(tuple(np.array(self.locals[name]) for name in names))
        self.values.append(self.locals["values"])
        assert self.locals["infos"][0] is not None
        assert self.locals["rollout_buffer"] is self.model.rollout_buffer
        assert self.num_timesteps == self.model.num_timesteps
        return self.n_calls != self.stop_at


@pytest.mark.parametrize("action", [BOX, spaces.Discrete(3), spaces.MultiDiscrete([2, 3])])
@pytest.mark.parametrize("stop_at", [None, 20])
def test_callbacks_see_at_every_step_what_they_see_in_sb3(action: spaces.Space, stop_at: int | None) -> None:
    recorders, models = [], []
    for algorithm in (PPO, FastPPO):
        recorders.append(Recorder(stop_at))
        env = VecMonitor(DummyVecEnv([lambda: ToyEnv(BOX, action)] * 2))
        models.append(algorithm("MlpPolicy", env, **SMALL).learn(96, callback=recorders[-1]))
    stock, fast = recorders
    assert len(stock.seen) == len(fast.seen) == (stop_at or 48)
    assert models[0].num_timesteps == models[1].num_timesteps
    for ours, theirs in zip(fast.seen, stock.seen, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            assert x.dtype == y.dtype
            assert x.shape == y.shape
            np.testing.assert_allclose(x, y, atol=1e-5)
    if stop_at is None:
        for ours, theirs in zip(fast.values, stock.values, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_without_callbacks_the_counters_of_the_callback_still_run() -> None:
    model = FastPPO("MlpPolicy", ToyEnv(), **SMALL)
    _, callback = model._setup_learn(16, None)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)
    assert callback.n_calls == 16
    assert callback.num_timesteps == model.num_timesteps == 16


def test_sb3_callbacks_and_functions_as_callbacks_work(tmp_path: Any) -> None:
    calls = []
    model = FastPPO("MlpPolicy", ToyEnv(BOX, BOX), engine="fast", **SMALL)
    checkpoint = CheckpointCallback(save_freq=20, save_path=str(tmp_path), name_prefix="m")
    evaluation = EvalCallback(LeanVecEnv([lambda: ToyEnv(BOX, BOX)], monitor=True), eval_freq=16, verbose=0)
    model.learn(48, callback=[checkpoint, evaluation])
    model.learn(16, callback=lambda local, _: calls.append(local["rewards"]) or True)
    assert len(list(tmp_path.glob("m_*.zip"))) == 2
    assert np.isfinite(evaluation.last_mean_reward)
    assert len(calls) == 16


class Truncating(ToyEnv):
    """Truncated after three steps, never terminated."""

    def step(self, action: Any) -> Any:
        obs, _, _, _, info = super().step(action)
        return obs, 1.0, False, self._elapsed >= 3, info


def test_a_time_out_is_bootstrapped_with_the_value_of_its_last_observation() -> None:
    model = FastPPO("MlpPolicy", LeanVecEnv([Truncating] * 2), gamma=0.9, engine="fast", **SMALL)
    ends: list[np.ndarray] = []

    def watch(local: dict[str, Any], _: Any) -> bool:
        ends.extend(info["terminal_observation"] for info in local["infos"] if "terminal_observation" in info)
        return True

    _, callback = model._setup_learn(32, watch)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)
    with torch.no_grad():
        values = model.policy.predict_values(torch.as_tensor(np.stack(ends))).numpy().ravel()
    rewards = model.rollout_buffer.rewards
    np.testing.assert_allclose(rewards[rewards != 1.0], 1.0 + 0.9 * values, atol=1e-5)
    assert len(values) == 10


def test_stored_values_and_log_probabilities_are_those_of_the_policy() -> None:
    env = LeanVecEnv([lambda: MaskedToyEnv(BOX, spaces.MultiDiscrete([3, 2]))] * 3)
    model = FastMaskablePPO("MlpPolicy", env, engine="fast", **SMALL)
    _, callback = model._setup_learn(48)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)
    for sample in model.rollout_buffer.get(7):
        values, log_prob, _ = model.policy.evaluate_actions(sample.observations, sample.actions, sample.action_masks)
        torch.testing.assert_close(values.flatten(), sample.old_values, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_prob, sample.old_log_prob, rtol=1e-5, atol=1e-5)


class Blinkered(VecEnvWrapper):
    """Changes the masks on their way."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        found = super().env_method(method_name, *args, **kwargs)
        return [np.ones_like(mask) for mask in found] if method_name == "action_masks" else found


def test_masks_are_read_in_one_call_from_batches_and_through_wrappers_that_change_them() -> None:
    native = VecMonitor(orl.make_vec("orl/JobShop-v0", 3))
    native.reset()
    read = mask_reader(native)
    assert read == native.venv.action_masks or getattr(read, "__self__", None) is native.venv.env
    np.testing.assert_array_equal(read(), np.stack(native.env_method("action_masks")))
    lean = VecMonitor(LeanVecEnv([MaskedToyEnv] * 3))
    lean.reset()
    np.testing.assert_array_equal(mask_reader(lean)(), np.stack(lean.env_method("action_masks")))
    changed = Blinkered(LeanVecEnv([MaskedToyEnv] * 3))
    changed.reset()
    assert mask_reader(changed)().all()
    foreign = DummyVecEnv([MaskedToyEnv] * 3)
    foreign.reset()
    np.testing.assert_array_equal(mask_reader(foreign)(), np.stack(foreign.env_method("action_masks")))


@pytest.mark.parametrize("observation", ["compact", "window"])
def test_maskable_ppo_learns_the_same_on_the_native_job_shop_batch(observation: str) -> None:
    policy = "MultiInputPolicy" if observation == "window" else "MlpPolicy"
    models = []
    for algorithm in (MaskablePPO, FastMaskablePPO):
        env = VecMonitor(orl.make_vec("orl/JobShop-v0", 4, observation=observation))
        models.append(algorithm(policy, env, **SMALL).learn(192))
    stock, fast = (model.policy.state_dict() for model in models)
    assert models[1].engine_in_use == "fast"
    assert max((stock[key] - fast[key]).abs().max().item() for key in stock) < 1e-5


def test_ppo_learns_the_same_on_a_native_gymnasium_batch() -> None:
    models = []
    for algorithm in (PPO, FastPPO):
        env = VecMonitor(orl.make_vec("CartPole-v1", 8))
        models.append(algorithm("MlpPolicy", env, **SMALL).learn(256))
    stock, fast = (model.policy.state_dict() for model in models)
    assert max((stock[key] - fast[key]).abs().max().item() for key in stock) < 1e-5


def test_a_gym_env_is_wrapped_in_a_monitor_and_a_lean_vec_env() -> None:
    model = FastPPO("MlpPolicy", gymnasium.make("CartPole-v1"), **SMALL)
    assert type(model.env) is LeanVecEnv
    model.learn(64)
    assert model.ep_info_buffer
