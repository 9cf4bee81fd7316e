"""Policies of fractions: their memory, their ends, their arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from orl.common.errors import InputError
from orl.tsddr import LinearTarget, LSTMTarget, MLPTarget, TargetPolicy
from orl.tsddr.schedules import CosineDecay, annealed

BOX, ACTIONS = spaces.Box(-9.0, 9.0, (5,), np.float32), spaces.Box(-1.0, 1.0, (2,), np.float32)


def make(kind, **options):
    torch.manual_seed(1)
    policy = kind(BOX, ACTIONS, lambda _: 1e-3, state_at=slice(0, 2), **options)
    if kind is LinearTarget:  # begins at zero otherwise
        for parameter in policy.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return policy


def observations(*shape) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*shape, 5)).astype(np.float32)


def test_the_lstm_remembers_and_forgets_where_episodes_begin() -> None:
    policy, seen = make(LSTMTarget), observations(3)
    first, state = policy.predict(seen)
    assert state is not None
    assert [part.shape for part in state] == [(1, 3, 64)] * 2
    second, _ = policy.predict(seen, state, np.zeros(3, bool))
    assert np.all(first != second)
    mixed, _ = policy.predict(seen, state, np.array([True, False, True]))
    np.testing.assert_array_equal(mixed[[0, 2]], first[[0, 2]])
    np.testing.assert_array_equal(mixed[1], second[1])
    kept, _ = policy.predict(seen, state)
    np.testing.assert_array_equal(kept, second)


def test_step_by_step_equals_all_stages_at_once() -> None:
    policy, seen = make(LSTMTarget), observations(6, 4)
    encoded, _ = policy.encode(torch.as_tensor(seen[..., 2:]).double())
    state = None
    for t in range(6):
        actions, state = policy.predict(seen[t], state, np.full(4, t == 0))
        at_once = policy.decide(encoded[t], torch.as_tensor(seen[t, :, :2]).double())
        np.testing.assert_allclose(actions, (2 * at_once - 1).detach().numpy(), atol=1e-7)


def test_single_and_batched_predictions_agree() -> None:
    for kind in (LSTMTarget, MLPTarget, LinearTarget):
        policy, seen = make(kind), observations(4)
        batch, state = policy.predict(seen)
        again, state = policy.predict(seen, state)
        for i in range(4):
            one, memory = policy.predict(seen[i])
            two, _ = policy.predict(seen[i], memory, np.array([False]))
            assert one.shape == (2,)
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, batch[i], atol=1e-7)
            np.testing.assert_allclose(two, again[i], atol=1e-7)


@pytest.mark.parametrize(
    "squash, expected", [("stretch", [0.0, (0.5 - 0.03) / 0.94, 0.999]), ("clip", [0.0, 0.5, 1.0])]
)
def test_fractions_reach_both_ends(squash, expected) -> None:
    policy = make(LinearTarget, squash=squash)
    for parameter in policy.parameters():
        parameter.data.zero_()
    found = []
    for height in (-20.0, 0.0, 20.0):
        policy.from_context.bias.data.fill_(height)
        found.append(float(policy(torch.zeros(1, 5, dtype=torch.float64))[0][0, 0].detach()))
    np.testing.assert_allclose(found, expected)


def test_a_linear_rule_is_linear_and_begins_in_the_middle() -> None:
    policy = LinearTarget(BOX, ACTIONS, lambda _: 1e-3, state_at=slice(0, 2))
    np.testing.assert_array_equal(policy.predict(observations(3))[0], np.zeros((3, 2)))
    assert len(policy.head) == 0
    assert sum(p.numel() for p in policy.parameters()) == 2 * 5 + 2


@pytest.mark.parametrize(
    "options, field",
    [
        ({"dtype": "float16"}, "dtype"),
        ({"squash": "tanh"}, "squash"),
        ({"stretch": (0.03, 0.0, 0.1)}, "stretch"),
        ({"stretch": (0.03, 0.94)}, "stretch"),
        ({"lstm_hidden": -1}, "lstm_hidden"),
        ({"net_arch": [8, 0]}, "net_arch"),
    ],
)
def test_bad_arguments_are_named(options, field) -> None:
    with pytest.raises(InputError, match=field):
        make(LSTMTarget, **options)


def test_a_policy_saves_and_loads_by_itself(tmp_path) -> None:
    policy = make(LSTMTarget, net_arch=[7], lstm_hidden=5, stretch=(0.1, 0.8, 0.0))
    policy.save(tmp_path / "policy.zip")
    again = TargetPolicy.load(tmp_path / "policy.zip")
    np.testing.assert_array_equal(policy.predict(observations(3))[0], again.predict(observations(3))[0])


def test_the_schedules() -> None:
    rate = CosineDecay(3e-3, 0.02)
    falling = [rate(1.0 - k / 10) for k in range(11)]
    assert falling[0] == pytest.approx(3e-3)
    assert falling[-1] == pytest.approx(6e-5)
    assert falling == sorted(falling, reverse=True)
    assert rate(-0.5) == rate(0.0)
    assert CosineDecay(0.1, 1.0)(0.3) == pytest.approx(0.1)
    parts = [annealed(1 - (k + 0.5) / 24) for k in range(24)]
    assert parts == [0.1] * 2 + [1.0] * 2 + [10.0] * 4 + [30.0] * 16
