"""FastSAC against SAC from the same seeds."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from off_policy_pairs import TOLERANCE, assert_same_logs, copies, distance, learn_both, small
from stable_baselines3 import SAC
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from toy_envs import BOX, DOUBLE_BOX, MIXED, ToyEnv

from orl.common.errors import InputError
from orl.fast.sac import FastSAC
from orl.fast.sac_step import SacEngine

UNEVEN = spaces.Box(np.array([-3.0, 0.5], np.float32), np.array([1.0, 2.5], np.float32))
NOISE = NormalActionNoise(np.zeros(5), np.full(5, 0.3))
Case = tuple[str, int, Callable[[], gymnasium.Env], dict[str, Any]]

CASES: dict[str, Case] = {
    "automatic temperature": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {}),
    "automatic temperature from 0.1": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"ent_coef": "auto_0.1"}),
    "fixed temperature": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"ent_coef": 0.2}),
    "several envs, doubles": ("MlpPolicy", 3, lambda: ToyEnv(DOUBLE_BOX, BOX), {"gradient_steps": 2}),
    "actions of two axes and doubles": ("MlpPolicy", 2, lambda: ToyEnv(BOX, DOUBLE_BOX), {}),
    "uneven bounds, noise": ("MlpPolicy", 1, lambda: ToyEnv(BOX, UNEVEN), {}),
    "action noise, several envs": ("MlpPolicy", 2, lambda: ToyEnv(BOX, BOX), {"action_noise": NOISE}),
    "rare updates": (
        "MlpPolicy",
        2,
        lambda: ToyEnv(BOX, BOX),
        {"train_freq": 4, "gradient_steps": 5, "target_update_interval": 2, "tau": 0.1},
    ),
    "as many updates as steps": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"train_freq": 3, "gradient_steps": -1}),
    "updates by episode": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"train_freq": (1, "episode")}),
    "schedule, other target entropy": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"learning_rate": lambda p: 1e-3 * p, "target_entropy": -1.5, "gamma": 0.9},
    ),
    "full buffer": ("MlpPolicy", 2, lambda: ToyEnv(BOX, BOX), {"buffer_size": 40}),
    "buffer that saves memory": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
            "buffer_size": 50,
        },
    ),
    "n-step returns": ("MlpPolicy", 2, lambda: ToyEnv(BOX, BOX), {"n_steps": 3, "ent_coef": 0.1}),
    "dict observation": ("MultiInputPolicy", 2, lambda: ToyEnv(MIXED, BOX), {}),
    "discrete observation": ("MlpPolicy", 2, lambda: ToyEnv(spaces.Discrete(5), BOX), {}),
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
    "one critic": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"policy_kwargs": {"net_arch": [16], "n_critics": 1}}),
    "three critics, shared extractor": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"policy_kwargs": {"net_arch": [16], "n_critics": 3, "share_features_extractor": True}},
    ),
    "optimiser options": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"policy_kwargs": {"net_arch": [16], "optimizer_kwargs": {"weight_decay": 0.01, "eps": 1e-5}}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fast_sac_learns_what_sac_learns(case: str) -> None:
    policy, n, env, arguments = CASES[case]
    learn_both(SAC, FastSAC, policy, copies(n, env), **arguments)


@pytest.mark.parametrize("ent_coef", ["auto", 0.1])
def test_equal_on_top_of_vec_normalize(ent_coef: Any) -> None:
    def make_env(vec_env: type[DummyVecEnv]) -> VecEnv:
        return VecNormalize(VecMonitor(vec_env([lambda: ToyEnv(DOUBLE_BOX, BOX)] * 2)))

    learn_both(SAC, FastSAC, "MlpPolicy", make_env, ent_coef=ent_coef)


def test_equal_on_a_gymnasium_env_given_by_id() -> None:
    models = []
    for algorithm, extra in ((SAC, {}), (FastSAC, {"engine": "fast"})):
        model = algorithm("MlpPolicy", "Pendulum-v1", **small(buffer_size=400, **extra))
        models.append(model.learn(120))
    assert distance(*models) < 10 * TOLERANCE  # the pendulum swings, so rounding grows
    assert_same_logs(*models)


@pytest.mark.parametrize("ent_coef", ["auto", 0.2])
def test_fifty_gradient_steps_on_one_buffer_are_equal(ent_coef: Any) -> None:
    arguments: dict[str, Any] = {"ent_coef": ent_coef, "policy_kwargs": {"net_arch": [64, 64]}, "learning_starts": 1000}
    models = []
    for algorithm in (SAC, FastSAC):
        model = algorithm("MlpPolicy", ToyEnv(BOX, BOX), **small(**arguments)).learn(150)
        model.set_random_seed(3)
        model.train(gradient_steps=50, batch_size=64)
        models.append(model)
    assert models[1].engine_in_use == "fast"
    assert distance(*models) < TOLERANCE


def test_the_gradients_of_both_losses_equal_autograd_and_finite_differences() -> None:
    model = SAC("MlpPolicy", ToyEnv(BOX, BOX), **small(policy_kwargs={"net_arch": [8]})).learn(60)
    engine = SacEngine(model)
    actor, critics, policy = engine.actor, engine.critics, model.policy
    batch = engine.transitions.draw(model.replay_buffer, 24, 0.9)
    states, actions, targets = batch.states.clone(), torch.from_numpy(batch.actions.copy()), batch.rewards.copy()
    alpha = np.float32(0.3)

    critics.fit_gradient(batch.now, targets, 0.5)
    torch.manual_seed(5)
    sample = actor.sample(batch.states, keep=True)
    noise = torch.from_numpy(actor._noise[24].numpy().copy())
    batch.actions[...] = sample.actions
    values, d_actions = critics.smallest(batch.now, batch.action_columns)
    actor.backward(sample, np.full(24, alpha / 24, np.float32), d_actions)
    ours = {"critic": critics.flat.grad.clone(), "actor": actor.flat.grad.clone()}
    assert (alpha * sample.log_prob - values).shape == (24,)

    def critic_loss(kind: torch.dtype) -> torch.Tensor:
        x = torch.cat([states, actions], 1).to(kind)
        wanted = torch.from_numpy(targets).to(kind)
        return 0.5 * sum(((net(x)[:, 0] - wanted) ** 2).mean() for net in policy.critic.q_networks)  # type: ignore[return-value]

    def actor_loss(kind: torch.dtype) -> torch.Tensor:
        latent = policy.actor.latent_pi(states.to(kind))
        mean, log_std = policy.actor.mu(latent), policy.actor.log_std(latent).clamp(-20, 2)  # type: ignore[operator]
        gaussian = torch.distributions.Normal(mean, log_std.exp())
        unsquashed = mean + log_std.exp() * noise.to(kind)
        squashed = torch.tanh(unsquashed)
        log_prob = (gaussian.log_prob(unsquashed) - torch.log(1 - squashed**2 + 1e-6)).sum(1)
        x = torch.cat([states.to(kind), squashed], 1)
        q_values = torch.cat([net(x) for net in policy.critic.q_networks], 1).min(1).values
        return (float(alpha) * log_prob - q_values).mean()

    for name, flat, loss in (("critic", critics.flat, critic_loss), ("actor", actor.flat, actor_loss)):
        expected = torch.autograd.grad(loss(torch.float32), flat.parameters)
        gathered = torch.cat([part.reshape(-1) for part in expected])
        torch.testing.assert_close(ours[name], gathered, rtol=1e-4, atol=1e-6)
    parameters = {"critic": critics.flat.parameters, "actor": actor.flat.parameters}
    policy.double()
    with torch.no_grad():
        for name, loss in (("critic", critic_loss), ("actor", actor_loss)):
            position = 0
            for parameter in parameters[name]:
                entries = parameter.data.view(-1)
                for i in range(0, entries.numel(), 7):
                    value, ends = entries[i].item(), []
                    for sign in (1.0, -1.0):
                        entries[i] = value + sign * 1e-6
                        ends.append(loss(torch.float64).item())
                    entries[i] = value
                    difference = (ends[0] - ends[1]) / 2e-6
                    assert ours[name][position + i].item() == pytest.approx(difference, rel=1e-3, abs=2e-5)
                position += entries.numel()


@pytest.mark.parametrize("algorithm", [SAC, FastSAC])
def test_parameters_that_are_not_finite_are_an_error(algorithm: Any) -> None:
    model = algorithm("MlpPolicy", ToyEnv(BOX, BOX), **small(learning_starts=1000)).learn(40)
    with torch.no_grad():
        model.actor.mu.bias.fill_(float("nan"))
    with pytest.raises(ValueError):
        model.train(1, 16)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"use_sde": True}, "gSDE"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.AdamW}}, "AdamW"),
        ({"policy_kwargs": {"activation_fn": torch.nn.ELU}}, "ELU"),
    ],
)
def test_engine_fast_refuses_what_it_cannot_do(arguments: dict[str, Any], reason: str) -> None:
    model = FastSAC("MlpPolicy", ToyEnv(BOX, BOX), engine="fast", **small(**arguments))
    with pytest.raises(InputError, match=reason):
        model.learn(32)
