"""Off-policy MDPO: identity with SAC, the old policy, Tsallis densities, persistence."""

from __future__ import annotations

import copy
import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from torch.distributions import Normal

import orl
from orl.mdpo import OffPolicyMDPO
from orl.mdpo.mirror_descent import generalised_log, soft_mirror_step

SHORT: dict[str, Any] = {
    "learning_starts": 20,
    "batch_size": 32,
    "buffer_size": 500,
    "policy_kwargs": {"net_arch": [32, 32]},
    "seed": 3,
    "device": "cpu",
}
MODES = ("v", "q")


class Turning(gymnasium.Env):
    """Two-dimensional actions turn and stretch a point; episodes are cut after 9 steps."""

    observation_space, action_space = spaces.Box(-2, 2, (3,), np.float32), spaces.Box(-2, 2, (2,), np.float32)

    def _observe(self):
        return np.array([np.sin(self.angle), np.cos(self.angle), self.size], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.angle, self.size, self.steps = 0.4, 1.0, 0
        return self._observe(), {}

    def step(self, action):
        self.angle, self.size = self.angle + 0.2 * float(action[0]), float(np.clip(self.size + 0.1 * action[1], 0, 2))
        self.steps += 1
        return self._observe(), self.size * float(np.cos(self.angle)), False, self.steps == 9, {}


def make(**options: Any) -> OffPolicyMDPO:
    return OffPolicyMDPO("MlpPolicy", options.pop("env", None) or Turning(), **{**SHORT, **options})


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# ---- identity with SAC ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize("options", [{}, {"use_sde": True}, {"n_steps": 3}, {"train_freq": 4, "gradient_steps": 3}])
def test_with_c_at_the_temperature_it_is_sac_with_that_temperature(options: dict[str, Any], engine: str) -> None:
    sac = SAC("MlpPolicy", Turning(), ent_coef=0.2, **{**SHORT, **options}).learn(70)
    as_sac = {"bregman_coef": 0.2, "ent_coef": 0.2, "critic_mode": "q", "actor_q": "min", "reg_coef": 0.0}
    ours = make(**as_sac, **options, engine=engine).learn(70)
    assert ours._n_updates == sac._n_updates >= 36
    for name in ("actor", "critic", "critic_target"):
        one, other = weights(getattr(sac, name)), weights(getattr(ours, name))
        torch.testing.assert_close(other, one, rtol=0, atol=1e-5)
    for key in ("train/actor_loss", "train/critic_loss"):
        assert ours.logger.name_to_value[key] == pytest.approx(sac.logger.name_to_value[key], rel=1e-4)


@pytest.mark.parametrize("change", [{"bregman_coef": 1.0}, {"actor_q": "q1"}, {"reg_coef": 0.1}, {"tsallis_q": 1.4}])
def test_every_further_term_makes_it_another_algorithm(change: dict[str, Any]) -> None:
    base = {"bregman_coef": 0.2, "ent_coef": 0.2, "critic_mode": "q", "actor_q": "min", "reg_coef": 0.0}
    # The old policy must differ from the actor for c to matter.
    one, other = (make(**(base | options), old_policy_interval=7).learn(40) for options in ({}, change))
    assert (weights(one.actor) - weights(other.actor)).abs().max() > 1e-4


# ---- the old policy ------------------------------------------------------------------------------------------------
class Watch(BaseCallback):
    """At every step: weights of the old policy and of the actor."""

    def __init__(self) -> None:
        super().__init__()
        self.old: list[torch.Tensor] = []
        self.actor: list[torch.Tensor] = []

    def _on_step(self) -> bool:
        model: Any = self.model
        self.old.append(weights(model.old_actor))
        self.actor.append(weights(model.actor))
        return True


@pytest.mark.parametrize("mode", MODES)
def test_old_policy_is_the_actor_at_each_refresh_and_constant_in_between(mode: str) -> None:
    watch = Watch()
    model = make(old_policy_interval=30, critic_mode=mode).learn(100, callback=watch)
    assert model.n_old_policies == 100 // 30 + 1
    assert model.old_policy_step == 90
    assert model.logger.name_to_value["train/old_policy_age"] == 10
    # The callback of step n + 1 sees what step n left behind.
    for start, stop in ((1, 29), (31, 59), (61, 89)):
        assert all(torch.equal(weight, watch.old[start]) for weight in watch.old[start:stop])
    for refresh in (60, 90):
        assert torch.equal(watch.old[refresh], watch.actor[refresh - 1])
        assert not torch.equal(watch.old[refresh], watch.old[refresh - 2])
        assert not torch.equal(watch.old[refresh], watch.actor[refresh])


def test_several_envs_refresh_when_the_count_passes_a_multiple() -> None:
    model = make(env=make_vec_env(Turning, 4), old_policy_interval=30).learn(100)
    assert model.n_old_policies == 4
    assert model.old_policy_step == 92


def test_no_gradient_reaches_the_old_policy_but_flows_through_the_action_into_its_density() -> None:
    model = make(engine="torch").learn(60)
    sampled = model._sample(torch.zeros(8, 3))
    sampled.old_log_probs.sum().backward()
    assert all(p.grad is None for p in model.old_actor.parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.actor.parameters())


def test_densities_are_taken_before_squashing() -> None:
    """With actions that round to 1 the density must still be that of the unsquashed Gaussian."""
    model = make(seed=1)
    with torch.no_grad():
        model.actor.mu.bias.fill_(12.0)
        model.actor.log_std.bias.fill_(0.0)
        model.old_actor.load_state_dict(model.actor.state_dict())
        model.old_actor.mu.bias.fill_(11.0)
        torch.manual_seed(0)
        sampled = model._sample(torch.zeros(64, 3))
        assert float(sampled.actions.min()) > 0.9999
        old_mean, old_log_std, _ = model.old_actor.get_action_dist_params(torch.zeros(64, 3))
        torch.manual_seed(0)
        unsquashed = Normal(sampled.mean, sampled.log_std.exp()).rsample()
    expected = Normal(old_mean, old_log_std.exp()).log_prob(unsquashed) - Normal(
        sampled.mean, sampled.log_std.exp()
    ).log_prob(unsquashed)
    torch.testing.assert_close(sampled.old_log_probs - sampled.log_probs, expected, rtol=1e-4, atol=1e-4)


# ---- Tsallis -------------------------------------------------------------------------------------------------------
def test_tsallis_logarithms_sum_over_components_or_take_the_joint_density() -> None:
    log_probs = torch.tensor([[0.1, -0.7], [1.2, 0.4]])
    factorised, joint = make(tsallis_q=2.0), make(tsallis_q=2.0, tsallis_mode="joint")
    torch.testing.assert_close(factorised._ln(log_probs), (log_probs.exp() - 1).sum(1, keepdim=True))
    torch.testing.assert_close(joint._ln(log_probs), log_probs.sum(1, keepdim=True).exp() - 1)
    torch.testing.assert_close(make(tsallis_q=1.0)._ln(log_probs), log_probs.sum(1, keepdim=True))


def test_tsallis_loss_at_two_is_the_hand_formula_and_approaches_kl_near_one() -> None:
    new, old, q_values = torch.tensor([0.3]), torch.tensor([-0.4]), torch.tensor([0.9])

    def loss(q: float) -> float:
        logs = generalised_log(new, q), generalised_log(old, q)
        return float(soft_mirror_step(*logs, q_values, bregman_coef=1.5, ent_coef=0.2, q=q))

    by_hand = 1.5 * (np.exp(0.3) - 1) - 2 * 1.3 * (np.exp(-0.4) - 1) - 0.9
    assert loss(2.0) == pytest.approx(by_hand, rel=1e-5)
    assert loss(1 + 1e-4) == pytest.approx(loss(1.0), abs=1e-3)
    near, exact = (make(tsallis_q=q).learn(60) for q in (1 + 1e-4, 1.0))
    torch.testing.assert_close(weights(near.actor), weights(exact.actor), rtol=0, atol=1e-3)


# ---- the critics with state values ---------------------------------------------------------------------------------
def test_one_step_with_state_values_fits_the_stated_targets() -> None:
    """The losses of the first gradient step, computed here from copies of the networks."""
    model = make(ent_coef=0.3, learning_starts=40).learn(40)
    networks = copy.deepcopy({n: getattr(model, n) for n in ("critic", "value_net", "value_net_target")})
    data = model.replay_buffer.sample(16)
    sampled = model._sample(data.observations)
    losses = model._step_with_state_values(data, sampled)

    with torch.no_grad():
        both = torch.cat(networks["critic"](data.observations, sampled.actions), 1)
        log_prob = sampled.log_probs.sum(1, keepdim=True)
        old_log_prob = sampled.old_log_probs.sum(1, keepdim=True)
        actor = (1.0 * log_prob - 0.7 * old_log_prob - both[:, :1]).mean()
        actor = actor + 1e-3 * ((sampled.mean**2).mean() + (sampled.log_std**2).mean())
        value_target = both.min(1, keepdim=True).values - 0.3 * log_prob
        target = data.rewards + 0.99 * (1 - data.dones) * networks["value_net_target"](data.next_observations)
        stored = networks["critic"](data.observations, data.actions)
        critic = 0.5 * sum(((q - target) ** 2).mean() for q in stored)
        value = 0.5 * ((networks["value_net"](data.observations) - value_target) ** 2).mean()
    for name, expected in (("actor_loss", actor), ("critic_loss", critic), ("value_loss", value)):
        assert losses[name].item() == pytest.approx(float(expected), rel=1e-5)
    assert not torch.equal(weights(networks["value_net"]), weights(model.value_net))

    before, source = weights(model.value_net_target), weights(model.value_net)
    model._update_targets()
    torch.testing.assert_close(weights(model.value_net_target), before + model.tau * (source - before))


# ---- what SB3 users do ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode, engine", [("v", "fast"), ("q", "fast"), ("v", "torch")])
def test_a_run_saved_half_way_goes_on_as_if_it_had_not_stopped(mode: str, engine: str) -> None:
    model = make(critic_mode=mode, old_policy_interval=40, engine=engine).learn(60)
    file, replay = io.BytesIO(), io.BytesIO()
    model.save(file)
    model.save_replay_buffer(replay)
    file.seek(0)
    replay.seek(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    env = copy.deepcopy(model.get_env())
    model.learn(60, reset_num_timesteps=False)

    again = OffPolicyMDPO.load(file, env=env, device="cpu", force_reset=False)
    again.load_replay_buffer(replay)
    torch.set_rng_state(state)
    np.random.set_state(numpy_state)  # noqa: NPY002
    again.learn(60, reset_num_timesteps=False)
    names = ["actor", "old_actor", "critic", *(["value_net", "value_net_target"] if mode == "v" else ["critic_target"])]
    for name in names:
        assert torch.equal(weights(getattr(model, name)), weights(getattr(again, name))), name
    assert (again.old_policy_step, again.n_old_policies) == (model.old_policy_step, model.n_old_policies) == (120, 4)


@pytest.mark.parametrize("options", [{"tsallis_q": 1.4}, {"tsallis_q": 2.0, "critic_mode": "q"}, {"use_sde": True}])
def test_variants_learn_and_log(options: dict[str, Any]) -> None:
    model = make(**options)
    before = weights(model.actor)
    model.learn(60)
    assert torch.isfinite(weights(model.policy)).all()
    assert not torch.equal(weights(model.actor), before)
    expected = {"actor_loss", "critic_loss", "kl_old", "bregman_coef", "ent_coef", "old_policy_age", "n_updates"}
    expected |= {"value_loss"} if model.critic_mode == "v" else set()
    assert {f"train/{name}" for name in expected} <= set(model.logger.name_to_value)


def test_deterministic_rollouts_act_with_the_mean_after_the_warm_up() -> None:
    class Actions(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.gaps: list[float] = []
            self.last: Any = None

        def _on_step(self) -> bool:
            action, _ = self.model.predict(self.model._last_obs, deterministic=True)
            self.gaps.append(float(np.abs(self.locals["actions"] - action).max()))
            return True

    for deterministic in (True, False):
        actions = Actions()
        make(deterministic_rollouts=deterministic).learn(60, callback=actions)
        assert max(actions.gaps[:20]) > 0.1
        assert (max(actions.gaps[20:]) < 1e-5) == deterministic


def test_bad_arguments_are_named() -> None:
    for options in (
        {"ent_coef": "auto"},
        {"bregman_coef": 0.0},
        {"tsallis_q": 3.0},
        {"tsallis_mode": "sum"},
        {"critic_mode": "Q"},
        {"actor_q": "q2"},
        {"old_policy_interval": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(**options)


def test_orl_names_the_algorithm_lazily() -> None:
    assert orl.OffPolicyMDPO is OffPolicyMDPO
