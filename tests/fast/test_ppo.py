"""FastPPO and FastMaskablePPO against the classes they stand in for, from the same seeds."""

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from toy_envs import BOX, DOUBLE_BOX, MIXED, MaskedToyEnv, ToyEnv

from orl.common.errors import InputError
from orl.fast.lean_vec_env import LeanVecEnv
from orl.fast.ppo import FastMaskablePPO, FastPPO
from orl.fast.ppo_step import ActorCriticEngine, Batch, Coefficients

TOLERANCE = 1e-5
SMALL = {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "device": "cpu", "seed": 0}


def distance(a: Any, b: Any) -> float:
    first, second = a.policy.state_dict(), b.policy.state_dict()
    assert first.keys() == second.keys()
    return max((first[key] - second[key]).abs().max().item() for key in first)


def assert_same_logs(stock: Any, fast: Any) -> None:
    first, second = stock.logger.name_to_value, fast.logger.name_to_value
    assert first.keys() == second.keys()
    for key, value in first.items():
        if not key.startswith("time/"):
            assert second[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def assert_same_rollout(stock: Any, fast: Any) -> None:
    for name in ("actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns"):
        ours, theirs = getattr(fast.rollout_buffer, name), getattr(stock.rollout_buffer, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    theirs = stock.rollout_buffer.observations
    if isinstance(theirs, dict):
        for key, part in theirs.items():
            np.testing.assert_array_equal(fast.rollout_buffer.observations[key], part)
    else:
        np.testing.assert_array_equal(fast.rollout_buffer.observations, theirs)


def learn_both(
    stock: Any, fast: Any, policy: str, make_env: Callable[[type[DummyVecEnv]], VecEnv], **arguments: Any
) -> tuple[Any, Any]:
    steps = arguments.pop("total_timesteps", None)
    learn = {key: arguments.pop(key) for key in ("use_masking",) if key in arguments}
    models = []
    for algorithm, vec_env, extra in ((stock, DummyVecEnv, {}), (fast, LeanVecEnv, {"engine": "fast"})):
        env = make_env(vec_env)
        model = algorithm(policy, env, **{**SMALL, **arguments, **extra})
        model.learn(steps or 3 * 32 * env.num_envs, **learn)
        models.append(model)
    a, b = models
    assert a.num_timesteps == b.num_timesteps
    assert a._n_updates == b._n_updates
    assert distance(a, b) < TOLERANCE
    assert_same_rollout(a, b)
    assert_same_logs(a, b)
    ours, theirs = ([(e["r"], e["l"]) for e in model.ep_info_buffer] for model in (b, a))
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-5)
    np.testing.assert_array_equal(a._last_episode_starts, b._last_episode_starts)
    return a, b


def copies(n: int, env: Callable[[], gymnasium.Env]) -> Callable[[type[DummyVecEnv]], VecEnv]:
    return lambda vec_env: VecMonitor(vec_env([env] * n))


PPO_CASES: dict[str, tuple[str, int, Callable[[], gymnasium.Env], dict[str, Any]]] = {
    "box": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {}),
    "box, several envs": ("MlpPolicy", 3, lambda: ToyEnv(DOUBLE_BOX, BOX), {"batch_size": 20}),
    "box of two axes and doubles": ("MlpPolicy", 2, lambda: ToyEnv(BOX, DOUBLE_BOX), {}),
    "discrete": ("MlpPolicy", 1, lambda: ToyEnv(), {}),
    "discrete, several envs": ("MlpPolicy", 17, lambda: ToyEnv(), {"n_steps": 8}),
    "multi-discrete": ("MlpPolicy", 2, lambda: ToyEnv(BOX, spaces.MultiDiscrete([3, 2, 4])), {"ent_coef": 0.01}),
    "discrete observation": ("MlpPolicy", 2, lambda: ToyEnv(spaces.Discrete(5)), {}),
    "dict observation": ("MultiInputPolicy", 2, lambda: ToyEnv(MIXED, BOX), {}),
    "target KL": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"target_kl": 1e-3, "learning_rate": 3e-3}),
    "clipped values": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"clip_range_vf": 0.02, "learning_rate": 2e-3}),
    "entropy": ("MlpPolicy", 1, lambda: ToyEnv(BOX, BOX), {"ent_coef": 0.05}),
    "raw advantages": ("MlpPolicy", 1, lambda: ToyEnv(), {"normalize_advantage": False, "max_grad_norm": 0.05}),
    "schedules": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(),
        {"learning_rate": lambda p: 1e-3 * p, "clip_range": lambda p: 0.1 + p / 10},
    ),
    "last minibatch of one": ("MlpPolicy", 1, lambda: ToyEnv(), {"batch_size": 31}),
    "relu, unequal nets": (
        "MlpPolicy",
        1,
        lambda: ToyEnv(BOX, BOX),
        {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [16, 8, 4]}, "activation_fn": torch.nn.ReLU}},
    ),
    "linear policy": ("MlpPolicy", 1, lambda: ToyEnv(), {"policy_kwargs": {"net_arch": []}}),
}


@pytest.mark.parametrize("case", PPO_CASES)
def test_fast_ppo_learns_what_ppo_learns(case: str) -> None:
    policy, n, env, arguments = PPO_CASES[case]
    learn_both(PPO, FastPPO, policy, copies(n, env), **arguments)


def test_target_kl_really_stops_early_in_that_case() -> None:
    policy, n, env, arguments = PPO_CASES["target KL"]
    stopped, _ = learn_both(PPO, FastPPO, policy, copies(n, env), **arguments)
    assert stopped._n_updates < 3 * SMALL["n_epochs"]


MASKED_CASES: dict[str, tuple[str, int, Callable[[], gymnasium.Env], dict[str, Any]]] = {
    "discrete": ("MlpPolicy", 1, lambda: MaskedToyEnv(BOX, spaces.Discrete(6)), {"ent_coef": 0.01}),
    "several envs": ("MlpPolicy", 3, lambda: MaskedToyEnv(BOX, spaces.Discrete(6)), {}),
    "multi-discrete": ("MlpPolicy", 2, lambda: MaskedToyEnv(BOX, spaces.MultiDiscrete([3, 4])), {"ent_coef": 0.01}),
    "multi-binary": ("MlpPolicy", 1, lambda: MaskedToyEnv(BOX, spaces.MultiBinary(3)), {}),
    "dict observation": ("MultiInputPolicy", 2, lambda: MaskedToyEnv(MIXED, spaces.Discrete(5)), {}),
    "masks not used": ("MlpPolicy", 1, lambda: ToyEnv(), {"use_masking": False}),
    "whole batch": ("MlpPolicy", 2, lambda: MaskedToyEnv(BOX, spaces.Discrete(6)), {"batch_size": None}),
    "clipped values": ("MlpPolicy", 1, lambda: MaskedToyEnv(), {"clip_range_vf": 0.02, "target_kl": 0.01}),
}


@pytest.mark.parametrize("case", MASKED_CASES)
def test_fast_maskable_ppo_learns_what_maskable_ppo_learns(case: str) -> None:
    policy, n, env, arguments = MASKED_CASES[case]
    learn_both(MaskablePPO, FastMaskablePPO, policy, copies(n, env), **arguments)


def test_equal_on_top_of_vec_normalize() -> None:
    def make_env(vec_env: type[DummyVecEnv]) -> VecEnv:
        return VecNormalize(VecMonitor(vec_env([lambda: ToyEnv(DOUBLE_BOX, BOX)] * 2)))

    learn_both(PPO, FastPPO, "MlpPolicy", make_env)


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_equal_on_gymnasium_envs_given_by_id(env_id: str) -> None:
    models = []
    for algorithm, extra in ((PPO, {}), (FastPPO, {"engine": "fast"})):
        model = algorithm("MlpPolicy", env_id, **{**SMALL, "n_steps": 256, "batch_size": 64, **extra})
        models.append(model.learn(512))
    assert distance(*models) < TOLERANCE
    assert_same_logs(*models)


def test_three_calls_of_train_on_one_buffer_are_equal() -> None:
    env = copies(2, lambda: ToyEnv(BOX, BOX))
    fast = FastPPO("MlpPolicy", env(DummyVecEnv), engine="fast", **SMALL)
    stock = PPO("MlpPolicy", env(DummyVecEnv), **SMALL)
    stock.learn(64)
    fast.learn(64)
    fast.set_parameters(copy.deepcopy(stock.get_parameters()))
    for name in ("observations", "actions", "values", "log_probs", "advantages", "returns"):
        setattr(fast.rollout_buffer, name, getattr(stock.rollout_buffer, name).copy())
    for model in (stock, fast):
        np.random.seed(7)  # noqa: NPY002 - the stream that SB3's buffers draw from
        for _ in range(3):
            model.train()
    assert distance(stock, fast) < TOLERANCE


def test_the_gradient_of_the_whole_loss_equals_autograd_and_finite_differences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = PPO("MlpPolicy", ToyEnv(BOX, BOX), policy_kwargs={"net_arch": [8]}, **SMALL)
    policy = model.policy
    random = np.random.default_rng(0)
    rows = 24
    draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    batch = Batch(draw(rows, 5), draw(rows, 5), draw(rows), draw(rows) - 7, draw(rows), draw(rows))
    chosen = random.permutation(rows)
    c = Coefficients(0.5, 0.7, True, 0.1, 0.3, 0.5)

    engine = ActorCriticEngine(policy)
    loss = engine.losses(batch, chosen, c)[3]
    engine.backward(batch, chosen)
    ours = engine.flat.grad.clone()

    def oracle() -> torch.Tensor:
        kind = policy.log_std.dtype
        pick = lambda array: torch.from_numpy(array[chosen]).to(kind)  # noqa: E731
        values, log_prob, entropy = policy.evaluate_actions(pick(batch.features), pick(batch.actions))
        advantages = pick(batch.advantages)
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        ratio = (log_prob - pick(batch.old_log_probs)).exp()
        surrogate = -torch.min(advantages * ratio, advantages * ratio.clamp(0.5, 1.5)).mean()
        old = pick(batch.old_values)
        clipped = old + (values.flatten() - old).clamp(-0.7, 0.7)
        assert entropy is not None
        return surrogate - 0.1 * entropy.mean() + 0.3 * torch.nn.functional.mse_loss(pick(batch.returns), clipped)

    engine.flat.grad.zero_()
    expected = oracle()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(ours, engine.flat.grad, rtol=1e-4, atol=1e-6)

    policy.double()
    monkeypatch.setattr(policy, "extract_features", lambda obs: obs)  # SB3's preprocessing makes float32
    position = 0
    with torch.no_grad():
        for parameter in policy.parameters():
            entries = parameter.data.view(-1)
            for i in range(0, entries.numel(), 5):
                value = entries[i].item()
                ends = []
                for sign in (1.0, -1.0):
                    entries[i] = value + sign * 1e-6
                    ends.append(oracle().item())
                entries[i] = value
                assert ours[position + i].item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-5)
            position += entries.numel()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_model_learn_on_their_own(duplicate: Callable[[Any], Any]) -> None:
    policy, n, env, arguments = PPO_CASES["box"]
    _, fast = learn_both(PPO, FastPPO, policy, copies(n, env), **arguments)
    before = {key: value.clone() for key, value in fast.policy.state_dict().items()}
    training_env, fast.env = fast.env, None
    twin = duplicate(fast)
    twin.set_env(copies(n, env)(DummyVecEnv))
    twin.learn(64)
    assert twin.engine_in_use == "fast"
    assert all(torch.equal(before[key], value) for key, value in fast.policy.state_dict().items())
    after = {key: value.clone() for key, value in twin.policy.state_dict().items()}
    fast.env = training_env
    fast.learn(64)
    assert not torch.equal(fast.policy.log_std, before["log_std"])
    assert all(torch.equal(after[key], value) for key, value in twin.policy.state_dict().items())


def test_the_fallback_gives_sb3_results_and_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    arguments = {**SMALL, "policy_kwargs": {"activation_fn": torch.nn.ELU}}
    stock = PPO("MlpPolicy", ToyEnv(BOX, BOX), **arguments)
    stock.learn(64)
    with caplog.at_level(logging.INFO, logger="orl.fast.ppo"):
        model = FastPPO("MlpPolicy", ToyEnv(BOX, BOX), **arguments)
        model.learn(64)
    assert model.engine_in_use == "torch"
    assert distance(stock, model) == 0.0
    assert len([r for r in caplog.records if "ELU" in r.getMessage()]) == 1


def test_engine_torch_is_sb3s_own_code() -> None:
    model = FastPPO("MlpPolicy", ToyEnv(), engine="torch", **SMALL).learn(64)
    stock = PPO("MlpPolicy", ToyEnv(), **SMALL).learn(64)
    assert model.engine_in_use == "torch"
    assert distance(stock, model) == 0.0


class OwnBuffer(RolloutBuffer):
    pass


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"use_sde": True}, "gSDE"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.AdamW}}, "AdamW"),
        ({"rollout_buffer_class": OwnBuffer}, "OwnBuffer"),
    ],
)
def test_engine_fast_refuses_what_it_cannot_do(arguments: dict[str, Any], reason: str) -> None:
    model = FastPPO("MlpPolicy", ToyEnv(BOX, BOX), engine="fast", **{**SMALL, **arguments})
    with pytest.raises(InputError, match=reason):
        model.learn(32)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(InputError, match="engine"):
        FastPPO("MlpPolicy", ToyEnv(), engine="quick", **SMALL)  # type: ignore[arg-type]


def test_masks_from_an_env_without_them_are_an_error() -> None:
    model = FastMaskablePPO("MlpPolicy", "CartPole-v1", engine="fast", **SMALL)
    with pytest.raises(ValueError, match="does not support action masking"):
        model.learn(32)


def test_parameters_that_are_not_finite_are_an_error() -> None:
    model = FastPPO("MlpPolicy", ToyEnv(BOX, BOX), engine="fast", **SMALL)
    with torch.no_grad():
        model.policy.value_net.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        model.learn(32)
