"""Off-policy MDPO on flat buffers against the same on autograd, from the same seeds."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from off_policy_pairs import TOLERANCE, copies, distance, learn_both, small
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from toy_envs import BOX, DOUBLE_BOX, MIXED, ToyEnv

from orl.common.errors import InputError
from orl.mdpo import OffPolicyMDPO

STOCK = partial(OffPolicyMDPO, engine="torch")
# The old policy is renewed several times, and differs from the actor most of the time.
SHORT: dict[str, Any] = {"old_policy_interval": 17}
V: dict[str, Any] = {"critic_mode": "v"}
Q: dict[str, Any] = {"critic_mode": "q"}
NOISE = NormalActionNoise(np.zeros(5), np.full(5, 0.3))
Case = tuple[str, int, Callable[[], gymnasium.Env], dict[str, Any]]

CASES: dict[str, Case] = {
    "the paper's": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V),
    "state values, smallest critic": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V | {"actor_q": "min"}),
    "target critics, first critic": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), Q),
    "target critics, smallest critic": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), Q | {"actor_q": "min"}),
    "no regulariser, other coefficients": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        V | {"reg_coef": 0.0, "bregman_coef": 0.4, "ent_coef": 0.05},
    ),
    "strong regulariser": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V | {"reg_coef": 0.5}),
    "hard problem": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V | {"ent_coef": 0.0}),
    "q = 1.4": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V | {"tsallis_q": 1.4}),
    "q = 2, target critics": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), Q | {"tsallis_q": 2.0}),
    "q = 1.4, joint density": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        V | {"tsallis_q": 1.4, "tsallis_mode": "joint"},
    ),
    "several envs, doubles, rare targets": (
        "MlpPolicy",
        3,
        lambda: ToyEnv(DOUBLE_BOX, BOX),
        V | {"gradient_steps": 3, "target_update_interval": 2, "tau": 0.1},
    ),
    "n-step returns": ("MlpPolicy", 2, lambda: ToyEnv(BOX, BOX), V | {"n_steps": 3}),
    "dict observation": ("MultiInputPolicy", 2, lambda: ToyEnv(MIXED, BOX), V),
    "tanh, unequal networks, three critics": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        V | {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [16, 8]}, "activation_fn": torch.nn.Tanh, "n_critics": 3}},
    ),
    "linear networks": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V | {"policy_kwargs": {"net_arch": []}}),
    "mean actions": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V | {"deterministic_rollouts": True}),
    "mean actions with noise": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        Q | {"deterministic_rollouts": True, "action_noise": NOISE},
    ),
    "schedule": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), V | {"learning_rate": lambda p: 1e-3 * p, "gamma": 0.9}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_fast_engine_learns_what_autograd_learns(case: str) -> None:
    policy, n, env, arguments = CASES[case]
    stock, fast = learn_both(STOCK, OffPolicyMDPO, policy, copies(n, env), total_timesteps=80, **SHORT, **arguments)
    assert (stock.engine_in_use, fast.engine_in_use) == ("torch", "fast")
    assert stock.n_old_policies == fast.n_old_policies >= 4


def test_equal_on_top_of_vec_normalize() -> None:
    def make_env(vec_env: type[DummyVecEnv]) -> VecEnv:
        return VecNormalize(VecMonitor(vec_env([lambda: ToyEnv(DOUBLE_BOX, BOX)] * 2)))

    learn_both(STOCK, OffPolicyMDPO, "MlpPolicy", make_env, total_timesteps=80, **SHORT)


@pytest.mark.parametrize("arguments", [V, Q | {"tsallis_q": 1.4}])
def test_fifty_gradient_steps_on_one_buffer_are_equal(arguments: dict[str, Any]) -> None:
    options = small(**arguments, policy_kwargs={"net_arch": [64, 64]}, learning_starts=1000)
    models = []
    for engine in ("torch", "fast"):
        model = OffPolicyMDPO("MlpPolicy", ToyEnv(BOX, BOX), **options, engine=engine).learn(150)
        with torch.no_grad():
            for parameter in model.old_actor.parameters():
                parameter.mul_(0.9)  # an old policy that is not the actor
        model.set_random_seed(3)
        model.train(gradient_steps=50, batch_size=64)
        models.append(model)
    assert distance(*models) < TOLERANCE


@pytest.mark.parametrize("first, second", [("torch", "fast"), ("fast", "torch")])
def test_a_model_saved_by_one_engine_goes_on_with_the_other(first: str, second: str) -> None:
    model = OffPolicyMDPO("MlpPolicy", ToyEnv(BOX, BOX), **small(**SHORT, engine=first)).learn(60)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    again = OffPolicyMDPO.load(file, device="cpu", custom_objects={"engine": second})
    again.replay_buffer = model.replay_buffer
    again.set_logger(model.logger)
    for one in (model, again):
        one.set_random_seed(5)
        one.train(gradient_steps=20, batch_size=16)
    assert (model.engine_in_use, again.engine_in_use) == (first, second)
    assert distance(model, again) < TOLERANCE


def test_no_gradient_is_kept_for_the_old_policy() -> None:
    model = OffPolicyMDPO("MlpPolicy", ToyEnv(BOX, BOX), **small(**SHORT, engine="fast")).learn(40)
    assert all(parameter.grad is None for parameter in model.old_actor.parameters())


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"use_sde": True}, "gSDE"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.AdamW}}, "AdamW"),
        ({"policy_kwargs": {"activation_fn": torch.nn.ELU}}, "ELU"),
    ],
)
def test_what_the_fast_engine_cannot_do_runs_on_autograd_and_says_why(arguments: dict[str, Any], reason: str) -> None:
    model = OffPolicyMDPO("MlpPolicy", ToyEnv(BOX, BOX), **small(**arguments)).learn(40)
    assert model.engine_in_use == "torch"
    assert reason in (model.engine_ineligible() or "")
    with pytest.raises(InputError, match=reason):
        OffPolicyMDPO("MlpPolicy", ToyEnv(BOX, BOX), engine="fast", **small(**arguments)).learn(40)


def test_a_hook_on_the_state_values_is_respected() -> None:
    model = OffPolicyMDPO("MlpPolicy", ToyEnv(BOX, BOX), **small())
    assert model.engine_ineligible() is None
    model.value_net.network.register_forward_hook(lambda *_: None)
    assert "hook" in (model.engine_ineligible() or "")
