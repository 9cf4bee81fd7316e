"""The authors' protocol: its store of old rollouts, its ratios, its frozen layers, and that its variants differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from inventory_toy import TwoShelves
from post_decision_envs import Shelf
from stable_baselines3.common.vec_env import DummyVecEnv

from orl.common.errors import InputError
from orl.pdppo import ReferencePDPPO, reference_config

SHORT = {"n_steps": 18, "n_epochs": 3, "device": "cpu", "seed": 0}


def make(name: str = "final", algorithm: str = "pdppo", **options: Any) -> ReferencePDPPO:
    env = DummyVecEnv([lambda: TwoShelves(ends=0.0)])
    return ReferencePDPPO("MlpPolicy", env, **{**reference_config(name, algorithm), **SHORT, **options})


def learned(**options: Any) -> torch.Tensor:
    model = make(**options).learn(18 * 4)
    heads = (*model.policy.action_net.parameters(), *model.policy.value_net.parameters())
    return torch.cat([p.detach().flatten() for p in heads])


def test_returns_are_monte_carlo_sums_to_the_time_limit_or_the_end_of_the_rollout() -> None:
    model = make(n_steps=20).learn(20)
    block, record = model._blocks[0], model._record
    running = np.zeros(2)
    both = np.stack([record.stochastic[:, 0], record.deterministic[:, 0]], 1)
    expected = np.zeros((20, 2))
    for t in reversed(range(20)):
        running = both[t] + 0.9 * running * (t % 9 != 8)
        expected[t] = running
    np.testing.assert_allclose(block.returns, expected[:, 0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(block.post_returns, expected[:, 1], rtol=1e-5, atol=1e-5)


def test_five_old_rollouts_are_kept_beside_the_new_one_as_they_were() -> None:
    class Sizes(ReferencePDPPO):
        sizes: list[float] = []

        def train(self) -> None:
            before = list(self._blocks)
            super().train()
            self.sizes.append(self.logger.name_to_value["train/kept_transitions"])
            assert all(block is old for block, old in zip(self._blocks, before[len(before) == 5 :], strict=False))

    env = DummyVecEnv([lambda: TwoShelves(ends=0.0)])
    model = Sizes("MlpPolicy", env, **{**reference_config("final"), **SHORT}).learn(18 * 8)
    assert [size / 18 for size in model.sizes] == [1, 2, 3, 4, 5, 6, 6, 6]
    assert len(model._blocks) == 5


def test_the_lake_baseline_keeps_its_first_rollout() -> None:
    model = make("lake", "ppo").learn(18)
    first = model._blocks[0]
    model.learn(18 * 7, reset_num_timesteps=False)
    assert len(model._blocks) == 1
    assert model._blocks[0] is first


def test_hidden_layers_of_the_actor_stay_frozen_unless_trained() -> None:
    for trained in (False, True):
        model = make(train_trunk=trained)
        trunk = model.policy.mlp_extractor.policy_net[0].weight
        head, before = model.policy.action_net.weight.detach().clone(), trunk.detach().clone()
        model.learn(36)
        assert torch.equal(trunk, before) is not trained
        assert not torch.equal(model.policy.action_net.weight, head)


def test_the_actor_is_drawn_with_the_gain_of_its_algorithm_and_critics_alike() -> None:
    bound = lambda model: model.policy.action_net.weight.detach().abs().max().item()  # noqa: E731
    relu, tanh = bound(make()), bound(make(algorithm="ppo"))
    assert relu <= np.sqrt(2) * np.sqrt(3 / 128)
    assert tanh <= 5 / 3 * np.sqrt(3 / 128)
    assert tanh / relu == pytest.approx(5 / 3 / np.sqrt(2), rel=1e-4)  # the same draws, scaled
    assert bound(make(algorithm="ppo", actor_init="relu")) == relu
    critic = make().policy.value_net
    assert not critic.bias.any()
    assert critic.weight.abs().max() <= np.sqrt(6 / 129)


def test_ratios_of_machines_differ_from_that_of_the_action() -> None:
    assert not torch.equal(learned(), learned(per_dimension_ratio=False))


def test_every_variant_is_another_algorithm() -> None:
    variants = [
        {},
        {"rule": "ppo"},
        {"rule": "positive"},
        {"rule": "early_min"},
        {"n_critics": 1},
        {"normalize_advantage": True},
        {"normalize_returns": True},
        {"train_trunk": True},
        {"actor_init": "tanh"},
        {"kept_rollouts": 1},
        {"weight_decay": 0.1},
        {"max_grad_norm": 0.01, "weight_decay": 0.1},
    ]
    results = [learned(**options) for options in variants]
    for i, one in enumerate(results):
        assert torch.isfinite(one).all()
        for other in results[:i]:
            assert not torch.equal(one, other)


def test_positive_advantages_are_those_of_ppo_without_the_negative_ones() -> None:
    positive, plain = make(rule="positive").learn(18), make(rule="ppo").learn(18)
    assert torch.equal(positive._blocks[0].advantages, plain._blocks[0].advantages.clamp(min=0))


def test_discrete_post_decision_states_and_one_component() -> None:
    model = ReferencePDPPO("MlpPolicy", DummyVecEnv([Shelf]), **{**reference_config("lake"), **SHORT}).learn(36)
    assert model._blocks[0].old_log_probs.shape == (18, 1)


def test_saved_models_go_on(tmp_path: Any) -> None:
    model = make().learn(36)
    model.save(tmp_path / "model")
    again = ReferencePDPPO.load(tmp_path / "model", env=DummyVecEnv([lambda: TwoShelves(ends=0.0)]), device="cpu")
    assert len(again._blocks) == 2
    again.learn(18, reset_num_timesteps=False)
    assert again.num_timesteps == 54


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(InputError, match="experiment"):
        reference_config("middle")
    with pytest.raises(InputError, match="algorithm"):
        reference_config("final", "a2c")
    with pytest.raises(InputError, match="needs post-decision data"):
        ReferencePDPPO("MlpPolicy", "CartPole-v1", **SHORT)
    ReferencePDPPO("MlpPolicy", "CartPole-v1", **{**reference_config("final", "ppo"), **SHORT}).learn(18)
    with pytest.raises(InputError, match="rule"):
        make(rule="max")
