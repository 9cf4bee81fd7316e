"""FastTD3 against TD3 from the same seeds."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from off_policy_pairs import TOLERANCE, assert_same_logs, copies, distance, learn_both, small
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from toy_envs import BOX, DOUBLE_BOX, MIXED, ToyEnv

from orl.common.errors import InputError
from orl.fast.td3 import FastTD3
from orl.fast.td3_step import Td3Engine

UNEVEN = spaces.Box(np.array([-3.0, 0.5], np.float32), np.array([1.0, 2.5], np.float32))
Case = tuple[str, int, Callable[[], gymnasium.Env], dict[str, Any]]


def normal() -> NormalActionNoise:
    return NormalActionNoise(np.zeros(5), np.full(5, 0.2))


def walk() -> OrnsteinUhlenbeckActionNoise:
    return OrnsteinUhlenbeckActionNoise(np.zeros(5), np.full(5, 0.2))


CASES: dict[str, Case] = {
    "plain": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {}),
    "noise": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"action_noise": normal}),
    "correlated noise, several envs": ("MlpPolicy", 3, lambda: ToyEnv(DOUBLE_BOX, BOX), {"action_noise": walk}),
    "actions of two axes and doubles": ("MlpPolicy", 2, lambda: ToyEnv(BOX, DOUBLE_BOX), {}),
    "uneven bounds": ("MlpPolicy", 1, lambda: ToyEnv(BOX, UNEVEN), {}),
    "actor in every step": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"policy_delay": 1, "tau": 0.05}),
    "actor in every third step": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"policy_delay": 3, "train_freq": 4, "gradient_steps": 4},
    ),
    "other target noise": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"target_policy_noise": 0.6, "target_noise_clip": 0.3, "gamma": 0.9},
    ),
    "updates by episode": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"train_freq": (1, "episode"), "gradient_steps": -1},
    ),
    "full buffer": ("MlpPolicy", 2, lambda: ToyEnv(BOX, BOX), {"buffer_size": 40}),
    "n-step returns": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"n_steps": 3}),
    "dict observation": ("MultiInputPolicy", 2, lambda: ToyEnv(MIXED, BOX), {"action_noise": normal}),
    "tanh, unequal nets": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [16, 8, 4]}, "activation_fn": torch.nn.Tanh}},
    ),
    "linear networks": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"policy_kwargs": {"net_arch": []}}),
    "wide networks": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"policy_kwargs": {"net_arch": [128, 128]}, "batch_size": 64, "total_timesteps": 50},
    ),
    "one critic, shared extractor": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"policy_kwargs": {"net_arch": [16], "n_critics": 1, "share_features_extractor": True}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fast_td3_learns_what_td3_learns(case: str) -> None:
    policy, n, env, arguments = CASES[case]
    make_noise = arguments.get("action_noise")
    models = [
        lambda *a, kind=kind, **k: kind(*a, **{**k, **({"action_noise": make_noise()} if make_noise else {})})
        for kind in (TD3, FastTD3)
    ]
    learn_both(models[0], models[1], policy, copies(n, env), **arguments)


def test_equal_on_top_of_vec_normalize() -> None:
    def make_env(vec_env: type[DummyVecEnv]) -> VecEnv:
        return VecNormalize(VecMonitor(vec_env([lambda: ToyEnv(DOUBLE_BOX, BOX)] * 2)))

    learn_both(TD3, FastTD3, "MlpPolicy", make_env)


def test_equal_on_a_gymnasium_env_given_by_id() -> None:
    models = []
    for algorithm, extra in ((TD3, {}), (FastTD3, {"engine": "fast"})):
        model = algorithm("MlpPolicy", "Pendulum-v1", **small(buffer_size=400, **extra))
        models.append(model.learn(120))
    assert distance(*models) < 10 * TOLERANCE  # the pendulum swings, so rounding grows
    assert_same_logs(*models)


def test_fifty_gradient_steps_on_one_buffer_are_equal() -> None:
    arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [64, 64]}, "learning_starts": 1000}
    models = []
    for algorithm in (TD3, FastTD3):
        model = algorithm("MlpPolicy", ToyEnv(BOX, BOX), **small(**arguments)).learn(150)
        model.set_random_seed(3)
        model.train(gradient_steps=50, batch_size=64)
        models.append(model)
    assert models[1].engine_in_use == "fast"
    assert distance(*models) < TOLERANCE


def test_the_actors_gradient_equals_autograd_and_finite_differences() -> None:
    model = TD3("MlpPolicy", ToyEnv(BOX, BOX), **small(policy_kwargs={"net_arch": [8]})).learn(60)
    engine, policy = Td3Engine(model), model.policy
    batch = engine.transitions.draw(model.replay_buffer, 24, 0.9)
    states = batch.states.clone()
    loss = engine.actor_gradient(batch)
    ours = engine.flat.grad.clone()

    def oracle(kind: torch.dtype) -> torch.Tensor:
        rows = states.to(kind)
        return -policy.critic.q_networks[0](torch.cat([rows, policy.actor.mu(rows)], 1)).mean()

    expected = oracle(torch.float32)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    gathered = torch.cat([part.reshape(-1) for part in torch.autograd.grad(expected, engine.flat.parameters)])
    torch.testing.assert_close(ours, gathered, rtol=1e-4, atol=1e-7)
    policy.double()
    position = 0
    with torch.no_grad():
        for parameter in engine.flat.parameters:
            entries = parameter.data.view(-1)
            for i in range(0, entries.numel(), 5):
                value, ends = entries[i].item(), []
                for sign in (1.0, -1.0):
                    entries[i] = value + sign * 1e-6
                    ends.append(oracle(torch.float64).item())
                entries[i] = value
                assert ours[position + i].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-6)
            position += entries.numel()


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"policy_kwargs": {"optimizer_class": torch.optim.RMSprop}}, "RMSprop"),
        ({"policy_kwargs": {"activation_fn": torch.nn.SiLU}}, "SiLU"),
    ],
)
def test_engine_fast_refuses_what_it_cannot_do(arguments: dict[str, Any], reason: str) -> None:
    model = FastTD3("MlpPolicy", ToyEnv(BOX, BOX), engine="fast", **small(**arguments))
    with pytest.raises(InputError, match=reason):
        model.learn(32)
