"""The set policy: equivariance, size transfer, padding, SB3 round trip."""

from __future__ import annotations

import copy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO

from orl.common.errors import InputError
from orl.policies.set_policy import SetPolicy, slot_shape

N_FEATURES = 9


def spaces_of(n_slots: int) -> tuple[spaces.Box, spaces.Discrete]:
    return spaces.Box(-np.inf, np.inf, (n_slots * N_FEATURES,), np.float32), spaces.Discrete(n_slots + 1)


def policy_of(n_slots: int, seed: int = 0) -> SetPolicy:
    """A policy whose parameters are all far from zero, so that no output is trivially constant."""
    torch.manual_seed(seed)
    policy = SetPolicy(*spaces_of(n_slots), lambda _: 1e-3, width=32)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy


def outputs(policy: SetPolicy, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits [B, S + 1] and values [B, 1] of slots [B, S, F]."""
    batch = torch.as_tensor(slots.reshape(len(slots), -1), dtype=torch.float32)
    with torch.no_grad():
        logits = policy.get_distribution(batch).distribution.logits
        return logits.numpy(), policy.predict_values(batch).numpy()


@pytest.mark.parametrize("n_slots", [2, 6, 20])
def test_permuting_slots_permutes_logits_and_keeps_noop_and_value(n_slots: int) -> None:
    rng = np.random.default_rng(n_slots)
    policy = policy_of(n_slots)
    slots = rng.normal(size=(16, n_slots, N_FEATURES)) * 5
    order = rng.permutation(n_slots)
    logits, values = outputs(policy, slots)
    permuted_logits, permuted_values = outputs(policy, slots[:, order])
    assert np.ptp(logits[:, :-1], axis=1).min() > 1e-3
    assert np.abs(permuted_logits[:, :-1] - logits[:, :-1][:, order]).max() < 1e-5
    assert np.abs(permuted_logits[:, -1] - logits[:, -1]).max() < 1e-5
    assert np.abs(permuted_values - values).max() < 1e-5


def test_weights_of_six_slots_run_on_twenty_and_absent_slots_change_nothing() -> None:
    rng = np.random.default_rng(1)
    small = policy_of(6)
    large = small.for_spaces(*spaces_of(20))
    slots = rng.normal(size=(8, 6, N_FEATURES)) * 3
    padded = np.zeros((8, 20, N_FEATURES))
    where = np.sort(rng.permutation(20)[:6])
    padded[:, where] = slots
    logits, values = outputs(small, slots)
    padded_logits, padded_values = outputs(large, padded)
    columns = np.append(where, 20)
    renormalised = padded_logits[:, columns] - padded_logits[:, columns[:1]]
    assert np.abs(renormalised - (logits - logits[:, :1])).max() < 1e-5
    assert np.abs(padded_values - values).max() < 1e-5
    assert np.abs(outputs(large, rng.normal(size=(1, 20, N_FEATURES)))[0]).max() > 0


def test_all_slots_absent_gives_finite_outputs_and_gradients() -> None:
    policy = policy_of(4)
    batch = torch.zeros(3, 4 * N_FEATURES)
    values, log_prob, entropy = policy.evaluate_actions(batch, torch.tensor([0, 1, 4]))
    (values.sum() + log_prob.sum() + entropy.sum()).backward()
    for parameter in policy.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_masked_actions_are_never_predicted() -> None:
    rng = np.random.default_rng(2)
    policy = policy_of(6)
    masks = rng.random((200, 7)) < 0.3
    masks[:, -1] |= ~masks.any(1)
    actions, _ = policy.predict(rng.normal(size=(200, 6 * N_FEATURES)).astype(np.float32), action_masks=masks)
    assert masks[np.arange(200), actions].all()


class FindTheLargest(gym.Env[np.ndarray, int]):
    """One step: reward 1 for choosing the slot whose first feature is largest."""

    def __init__(self, n_slots: int) -> None:
        self.observation_space, self.action_space = spaces_of(n_slots)
        self.n_slots = n_slots

    def action_masks(self) -> np.ndarray:
        return np.ones(self.n_slots + 1, bool)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.slots = self.np_random.normal(size=(self.n_slots, N_FEATURES)).astype(np.float32)
        return self.slots.ravel(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(action == self.slots[:, 0].argmax())
        return self.slots.ravel(), reward, True, False, {}


def test_learns_on_six_slots_transfers_to_twenty_and_survives_save_and_load(tmp_path: Path) -> None:
    model = MaskablePPO(
        SetPolicy, FindTheLargest(6), n_steps=512, batch_size=256, learning_rate=5e-3, seed=0, device="cpu"
    )
    model.learn(5120)
    model.save(tmp_path / "model.zip")
    policy = MaskablePPO.load(tmp_path / "model.zip", device="cpu").policy
    assert isinstance(policy, SetPolicy)
    large = policy.for_spaces(*spaces_of(20))
    slots = np.random.default_rng(3).normal(size=(300, 20, N_FEATURES)).astype(np.float32)
    chosen, _ = large.predict(slots.reshape(300, -1), deterministic=True, action_masks=np.ones((300, 21), bool))
    assert (chosen == slots[:, :, 0].argmax(1)).mean() > 0.8
    again, _ = model.policy.for_spaces(*spaces_of(20)).predict(slots.reshape(300, -1), deterministic=True)
    assert (chosen == again).all()


def test_for_spaces_leaves_the_original_unchanged() -> None:
    policy = policy_of(6)
    before = copy.deepcopy(policy.state_dict())
    generator = torch.random.get_rng_state()
    large = policy.for_spaces(*spaces_of(9))
    assert torch.equal(torch.random.get_rng_state(), generator)
    for parameter in large.parameters():
        parameter.data.add_(1.0)
    for name, value in policy.state_dict().items():
        assert torch.equal(value, before[name])


def test_spaces_that_are_no_slots_are_named_in_the_error() -> None:
    with pytest.raises(InputError, match="observation_space"):
        slot_shape(spaces.Box(-1, 1, (13,)), spaces.Discrete(7))
    with pytest.raises(InputError, match="observation_space"):
        slot_shape(spaces.Dict({"a": spaces.Box(-1, 1, (12,))}), spaces.Discrete(7))
    with pytest.raises(InputError, match="action_space"):
        slot_shape(spaces.Box(-1, 1, (12,)), spaces.MultiDiscrete([2, 3]))
    with pytest.raises(InputError, match="features"):
        policy_of(6).for_spaces(spaces.Box(-1, 1, (20,)), spaces.Discrete(11))
