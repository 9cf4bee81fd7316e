"""PDPPO: plain PPO bit for bit, two engines, several draws, masks, wrappers, persistence, errors."""

from __future__ import annotations

import copy
import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from inventory_toy import TwoShelves
from post_decision_envs import Shelf
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize
from toy_envs import BOX, ToyEnv

from orl.common.errors import InputError
from orl.common.post_decision import FunctionalPostDecision
from orl.fast.lean_vec_env import LeanVecEnv
from orl.pdppo import PDPPO

SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "device": "cpu", "seed": 0}
MODES = ("interleaved", "max_full", "paper_max", "early_min")


def shelves(n: int = 2, vec_env: type[DummyVecEnv] = DummyVecEnv, **options: Any) -> DummyVecEnv:
    return vec_env([lambda: TwoShelves(**options)] * n)


def state(model: Any) -> torch.Tensor:
    """All parameters of the model."""
    parts = [model.policy, *([model.post_critic] if getattr(model, "post_critic", None) else [])]
    return torch.cat([p.detach().flatten() for part in parts for p in part.parameters()])


def policy_state(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.policy.parameters()])


# ---- plain PPO -----------------------------------------------------------------------------------------------------
PLAIN = {
    "one env": {},
    "entropy, clipped values": {"ent_coef": 0.01, "clip_range_vf": 0.1},
    "early stop": {"target_kl": 1e-3, "learning_rate": 3e-3},
    "schedules": {"learning_rate": lambda p: 1e-3 * p, "clip_range": lambda p: 0.1 + p / 10},
}


@pytest.mark.parametrize("case", PLAIN)
def test_pre_is_sb3s_ppo_to_the_last_bit(case: str) -> None:
    ours = PDPPO("MlpPolicy", "CartPole-v1", advantage="pre", engine="torch", **SMALL, **PLAIN[case]).learn(256)
    theirs = PPO("MlpPolicy", "CartPole-v1", **SMALL, **PLAIN[case]).learn(256)
    assert torch.equal(policy_state(ours), policy_state(theirs))
    assert ours.logger.name_to_value.keys() == theirs.logger.name_to_value.keys()
    fast = PDPPO("MlpPolicy", "CartPole-v1", advantage="pre", engine="fast", **SMALL, **PLAIN[case]).learn(256)
    assert (policy_state(fast) - policy_state(theirs)).abs().max() < 1e-5


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("options", [{"advantage": "pre"}, {"advantage": "interleaved", "post_vf_coef": 0.0}, {}])
def test_on_multi_discrete_actions_policy_and_value_weights_equal_those_of_ppo(masks: bool, options: Any) -> None:
    algorithm: Any = MaskablePPO if masks else PPO
    theirs = algorithm("MlpPolicy", shelves(3, masks=masks), **SMALL).learn(200)
    ours = PDPPO("MlpPolicy", shelves(3, masks=masks), engine="torch", **SMALL, **options).learn(200)
    assert ours.use_masking is masks
    assert torch.equal(policy_state(ours), policy_state(theirs))


def test_a_post_critic_without_weight_does_not_move() -> None:
    model = PDPPO("MlpPolicy", shelves(), post_vf_coef=0.0, **SMALL)
    before = copy.deepcopy(model.post_critic.state_dict())
    model.learn(128)
    assert all(torch.equal(value, before[name]) for name, value in model.post_critic.state_dict().items())


def test_the_run_of_another_mode_starts_like_that_of_ppo() -> None:
    class FirstActions(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.actions: list[Any] = []

        def _on_step(self) -> bool:
            self.actions.append(self.locals["actions"].copy())
            return len(self.actions) < 32

    seen = []
    for algorithm, options in ((PPO, {}), (PDPPO, {"advantage": "paper_max", "n_exogenous_samples": 3})):
        callback = FirstActions()
        algorithm("MlpPolicy", shelves(), **SMALL, **options).learn(64, callback=callback)
        seen.append(np.array(callback.actions))
    np.testing.assert_array_equal(seen[0], seen[1])


# ---- two engines ---------------------------------------------------------------------------------------------------
ENGINE_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "one env": ({"n": 1}, {}),
    "masks": ({"n": 3, "masks": True}, {"ent_coef": 0.01}),
    "dict": ({"dict_observation": True}, {}),
    "masked dict, episodes that terminate": ({"dict_observation": True, "masks": True, "truncates": False}, {}),
    "early stop": ({}, {"target_kl": 5e-4, "learning_rate": 3e-3}),
    "clipped values": ({}, {"clip_range_vf": 0.05, "learning_rate": 2e-3}),
    "another critic": (
        {},
        {
            "policy_kwargs": {"net_arch": {"pi": [8], "vf": [16, 8], "vfx": [24]}, "activation_fn": torch.nn.ReLU},
            "post_learning_rate": 2e-3,
            "post_vf_coef": 2.0,
            "max_grad_norm": 0.1,
        },
    ),
    "no hidden layer": ({}, {"policy_kwargs": {"net_arch": []}}),
}


def learn_both(env_options: dict[str, Any], **options: Any) -> tuple[PDPPO, PDPPO]:
    policy = "MultiInputPolicy" if env_options.get("dict_observation") else "MlpPolicy"
    models = []
    for engine, vec_env in (("torch", DummyVecEnv), ("fast", LeanVecEnv)):
        env = VecMonitor(shelves(vec_env=vec_env, **env_options))
        model = PDPPO(policy, env, engine=engine, **{**SMALL, **options})
        models.append(model.learn(4 * 32 * env.num_envs))
    a, b = models
    assert (a.engine_in_use, b.engine_in_use) == ("torch", "fast")
    assert a._n_updates == b._n_updates
    assert (state(a) - state(b)).abs().max() < 1e-5
    assert a.logger.name_to_value.keys() == b.logger.name_to_value.keys()
    for key, value in a.logger.name_to_value.items():
        if not key.startswith("time/"):
            assert b.logger.name_to_value[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    for name in ("deterministic", "stochastic", "rewards", "post_values", "post_returns", "other_draws"):
        ours, theirs = getattr(b._record, name), getattr(a._record, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    for name in ("advantages", "returns"):
        ours, theirs = getattr(b.rollout_buffer, name), getattr(a.rollout_buffer, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)
    return a, b


@pytest.mark.parametrize("case", ENGINE_CASES)
def test_both_engines_learn_the_same(case: str) -> None:
    env_options, options = ENGINE_CASES[case]
    learn_both(env_options, stochastic_lambda=0.5, **options)


@pytest.mark.parametrize("n_critics", [1, 2])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("mode", MODES)
def test_both_engines_learn_the_same_in_every_mode(mode: str, samples: int, n_critics: int) -> None:
    model, _ = learn_both(
        {"masks": True}, advantage=mode, n_exogenous_samples=samples, n_critics=n_critics, gae_lambda_post=0.7
    )
    assert (model._record.other_draws != 0).any() == (samples > 1)
    assert (model.post_critic is None) == (n_critics == 1)


def test_the_early_stop_of_that_case_really_comes() -> None:
    env_options, options = ENGINE_CASES["early stop"]
    model, _ = learn_both(env_options, stochastic_lambda=0.5, **options)
    assert model._n_updates < 4 * SMALL["n_epochs"]


def test_the_two_optimisers_do_not_touch_each_others_parameters() -> None:
    frozen = PDPPO("MlpPolicy", shelves(), post_learning_rate=0.0, **SMALL)
    before = copy.deepcopy(frozen.post_critic.state_dict())
    frozen.learn(64)
    assert all(torch.equal(value, before[name]) for name, value in frozen.post_critic.state_dict().items())
    alone = PDPPO("MlpPolicy", shelves(), learning_rate=0.0, post_learning_rate=1e-3, **SMALL)
    weights, post = policy_state(alone).clone(), copy.deepcopy(alone.post_critic.state_dict())
    alone.learn(64)
    assert torch.equal(policy_state(alone), weights)
    assert not torch.equal(alone.post_critic.net[0].weight, post["net.0.weight"])


def test_other_policies_run_on_autograd() -> None:
    model = PDPPO("MlpPolicy", shelves(), policy_kwargs={"activation_fn": torch.nn.ELU}, **SMALL).learn(64)
    assert model.engine_in_use == "torch"
    with pytest.raises(InputError, match="fast engine cannot run"):
        PDPPO("MlpPolicy", shelves(), engine="fast", policy_kwargs={"activation_fn": torch.nn.ELU}, **SMALL).learn(64)


# ---- what the rollout holds ----------------------------------------------------------------------------------------
class Counter(gymnasium.Env[Any, Any]):
    """Every number tells its step and its copy; episodes of 5 steps."""

    observation_space = post_decision_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, copy_number: int) -> None:
        self.mark, self.t = copy_number, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.array([self.t * 1000 + self.mark], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        code = self.t * 1000 + self.mark
        self.post_decision_observation = np.array([code + 0.5], np.float32)
        self.reward_deterministic, self.reward_stochastic = float(code), float(-2 * code)
        self.t += 1
        return np.array([self.t * 1000 + self.mark], np.float32), float(-code), self.t % 5 == 0, False, {}


def test_all_columns_of_the_flattened_rollout_agree_row_by_row() -> None:
    """Codes t * 1000 + copy in every array, after SB3's flattening and a shuffle."""

    class Stop(PDPPO):
        def train(self) -> None:
            pass

    env = DummyVecEnv([lambda i=i: Counter(i) for i in range(3)])
    model = Stop("MlpPolicy", env, **{**SMALL, "n_steps": 16}).learn(48)
    buffer, record = model.rollout_buffer, model._record
    record.post_values[...], record.post_returns[...] = record.deterministic + 1, record.deterministic + 2
    data = next(buffer.get())  # all rows, shuffled by SB3
    codes = buffer.observations[:, 0]
    assert not np.array_equal(np.sort(codes), codes)
    np.testing.assert_array_equal(codes, record.flat(record.deterministic))
    np.testing.assert_array_equal(codes + 0.5, record.flat(record.post_observations)[:, 0])
    np.testing.assert_array_equal(-2 * codes, record.flat(record.stochastic))
    np.testing.assert_array_equal(-codes, record.flat(record.rewards))
    np.testing.assert_array_equal(codes + 1, record.flat(record.post_values))
    np.testing.assert_array_equal(codes + 2, record.flat(record.post_returns))
    assert sorted(data.observations[:, 0].tolist()) == sorted(codes.tolist())


@pytest.mark.parametrize("engine", ["torch", "fast"])
def test_the_value_of_a_time_limit_goes_to_the_stochastic_share(engine: Any) -> None:
    class Note(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            model: Any = self.model
            record, buffer = model._record, model.rollout_buffer
            bonus = buffer.rewards - record.rewards
            assert record.truncated.any()
            assert (record.truncated == (np.abs(bonus) > 1e-7)).all()
            # With lambda = 1 a return is the deterministic reward and the post return, bootstrap included.
            np.testing.assert_allclose(buffer.returns, record.deterministic + record.post_returns, rtol=1e-5, atol=1e-5)

    env = shelves(ends=0.0)
    PDPPO("MlpPolicy", env, gae_lambda=1.0, engine=engine, **SMALL).learn(128, callback=Note())


def test_callbacks_see_the_finished_buffer_and_may_stop_the_run() -> None:
    class Watch(BaseCallback):
        ends = 0

        def _on_step(self) -> bool:
            return self.num_timesteps < 150

        def _on_rollout_end(self) -> None:
            self.ends += 1
            assert self.model._record.post_returns.any()

    watch = Watch()
    model = PDPPO("MlpPolicy", shelves(), **SMALL).learn(512, callback=watch)
    assert (watch.ends, model.num_timesteps) == (2, 150)


def test_the_rollout_is_logged() -> None:
    class Logs(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.keys: set[str] = set()

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.keys |= set(self.logger.name_to_value)

    logs = Logs()
    model = PDPPO("MlpPolicy", shelves(), advantage="max_full", **SMALL).learn(256, callback=logs)
    assert {"rollout/adv_corr", "rollout/adv_post_share", "train/post_value_loss"} <= logs.keys
    assert "train/post_explained_variance" in model.logger.name_to_value


def test_several_draws_are_those_of_the_environment() -> None:
    """With a constant demand and no chance ends every draw is the one that happens."""
    models = [
        PDPPO("MlpPolicy", shelves(demand=1, ends=0.0), n_exogenous_samples=k, engine="torch", **SMALL).learn(128)
        for k in (1, 3)
    ]
    assert (state(models[0]) - state(models[1])).abs().max() < 1e-6
    noisy = PDPPO("MlpPolicy", shelves(), n_exogenous_samples=3, engine="torch", **SMALL).learn(128)
    plain = PDPPO("MlpPolicy", shelves(), engine="torch", **SMALL).learn(128)
    assert (state(noisy) - state(plain)).abs().max() > 1e-4


# ---- critics that learn --------------------------------------------------------------------------------------------
def test_without_noise_the_post_critic_explains_its_target() -> None:
    """Constant demand, lambda = 1: R^x_t = r^w_t + gamma R_{t+1}, and little of it is left to the policy's chance."""
    env = shelves(8, demand=1, ends=0.0, horizon=4, truncates=False)
    options = {**SMALL, "n_steps": 64, "batch_size": 64, "n_epochs": 15, "gae_lambda": 1.0, "gamma": 0.3}
    model = PDPPO("MlpPolicy", env, learning_rate=0.0, post_learning_rate=3e-3, **options).learn(64 * 8 * 12)
    assert model.logger.name_to_value["train/post_explained_variance"] > 0.85
    record = model._record
    returns = model.rollout_buffer.returns.reshape(8, 64).T  # flattened copy after copy by the update
    following = np.where(np.arange(1, 64)[:, None] % 4 == 0, 0.0, returns[1:])  # all copies end every fourth step
    np.testing.assert_allclose(record.post_returns[:-1], record.stochastic[:-1] + 0.3 * following, atol=1e-5)


# ---- wrappers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ["torch", "fast"])
def test_on_top_of_vec_normalize(engine: Any) -> None:
    env = VecNormalize(VecMonitor(shelves()), gamma=0.99, clip_reward=np.inf)
    model = PDPPO("MlpPolicy", env, n_exogenous_samples=2, engine=engine, **SMALL)
    model.learn(256)
    record = model._record
    np.testing.assert_allclose(record.deterministic + record.stochastic, record.rewards, rtol=1e-4, atol=1e-5)
    assert env.obs_rms.count == pytest.approx(256 + 2, abs=0.1)  # steps and the first reset


def test_any_env_becomes_one_by_a_function() -> None:
    env = FunctionalPostDecision(ToyEnv(BOX, BOX), lambda observation, action: (observation, -1.0))
    model = PDPPO("MlpPolicy", env, stochastic_lambda=0.5, **SMALL).learn(64)
    assert model.engine_in_use == "fast"
    assert (model._record.deterministic == -1.0).all()


def test_discrete_actions_and_several_draws() -> None:
    env: VecEnv = DummyVecEnv([Shelf, Shelf])
    model = PDPPO("MlpPolicy", env, n_exogenous_samples=4, **SMALL).learn(128)
    assert bool(torch.isfinite(state(model)).all())


# ---- persistence ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options", [{"advantage": "interleaved", "stochastic_lambda": 0.4}, {"advantage": "early_min"}]
)
@pytest.mark.parametrize("engine", ["torch", "fast"])
def test_saving_and_loading_in_the_middle_changes_nothing(engine: Any, options: Any, tmp_path: Any) -> None:
    whole = PDPPO("MlpPolicy", shelves(masks=True), engine=engine, **options, **SMALL).learn(128)
    whole.save(tmp_path / "model")
    again = PDPPO.load(tmp_path / "model", device="cpu")
    assert tuple(again.return_statistics) == whole.return_statistics
    assert torch.equal(state(again), state(whole))
    again.set_env(shelves(masks=True))
    for model in (whole, again):
        model.env.seed(3)
        model.set_random_seed(5)
        model._last_obs = None
        set_random_seed(5)
        model.learn(128, reset_num_timesteps=False)
    assert torch.equal(state(again), state(whole))
    first, second = (m.post_critic.optimizer.state_dict()["state"] for m in (whole, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k][name], second[k][name]) for k in first for name in first[k])


def test_a_loaded_model_predicts_without_post_decision_data() -> None:
    model = PDPPO("MlpPolicy", shelves(masks=True), **SMALL).learn(64)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    again = PDPPO.load(file, device="cpu")
    observation, mask = np.zeros(3, np.float32), np.array([False, False, True, True, False, False])
    action, _ = again.predict(observation, action_masks=mask)
    assert action.tolist() == [2, 0]
    np.testing.assert_array_equal(
        again.predict(observation, deterministic=True)[0], model.predict(observation, deterministic=True)[0]
    )


def test_a_pre_model_is_read_by_plain_sb3(tmp_path: Any) -> None:
    model = PDPPO("MlpPolicy", "CartPole-v1", advantage="pre", **SMALL).learn(64)
    model.save(tmp_path / "model")
    assert torch.equal(policy_state(PPO.load(tmp_path / "model", device="cpu")), policy_state(model))


def test_a_copy_goes_on_without_the_engine_of_the_original() -> None:
    model = PDPPO("MlpPolicy", shelves(), **SMALL).learn(64)
    other = copy.deepcopy(model)
    assert "_record" not in other.__dict__
    other.learn(64)
    assert not torch.equal(state(other), state(model))


# ---- errors --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options, field",
    [
        ({"advantage": "post"}, "advantage"),
        ({"stochastic_lambda": 1.5}, "stochastic_lambda"),
        ({"n_critics": 3}, "n_critics"),
        ({"n_exogenous_samples": 0}, "n_exogenous_samples"),
        ({"advantage": "pre", "n_exogenous_samples": 2}, "n_exogenous_samples"),
        ({"engine": "numpy"}, "engine"),
    ],
)
def test_bad_arguments_are_named(options: Any, field: str) -> None:
    with pytest.raises(InputError, match=field):
        PDPPO("MlpPolicy", shelves(), **SMALL, **options)


@pytest.mark.parametrize("mode", MODES)
def test_an_env_without_post_decision_data_is_refused_when_learning_starts(mode: Any) -> None:
    model = PDPPO("MlpPolicy", "CartPole-v1", advantage=mode, **SMALL)
    with pytest.raises(InputError, match="advantage='pre' does without"):
        model.learn(64)
    assert model.num_timesteps == 0


def test_an_env_that_cannot_draw_again_is_refused_for_several_draws() -> None:
    env = FunctionalPostDecision(ToyEnv(BOX, BOX), lambda observation, action: (observation, -1.0))
    with pytest.raises(InputError, match="cannot draw its noise again"):
        PDPPO("MlpPolicy", env, n_exogenous_samples=2, **SMALL).learn(64)


def test_one_critic_needs_one_layout() -> None:
    space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    env = FunctionalPostDecision(ToyEnv(BOX, BOX), lambda observation, action: (observation[:2], 0.0), space)
    PDPPO("MlpPolicy", env, **SMALL).learn(64)
    with pytest.raises(InputError, match="reads these post-decision observations"):
        PDPPO("MlpPolicy", env, n_critics=1, **SMALL).learn(64)


def test_masks_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="offers no action_masks"):
        PDPPO("MlpPolicy", shelves(), use_masking=True, **SMALL)
    with pytest.raises(ValueError, match="takes no action masks"):
        PDPPO("MlpPolicy", shelves(), **SMALL).predict(np.zeros(3), action_masks=np.ones(6, bool))


def test_masks_can_be_left_alone() -> None:
    """The env raises on the illegal orders that come then."""
    env = shelves(masks=True)
    model = PDPPO("MlpPolicy", env, use_masking=False, **SMALL)
    with pytest.raises(AssertionError, match="illegal action"):
        model.learn(640)
