from itertools import pairwise
from typing import Any

import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from toy_envs import BOX, MIXED

from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import Activation, Mlp, policy_ineligible

FUNCTIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def make_net(widths: list[int], activation: Activation) -> tuple[torch.nn.Sequential, Mlp, FlatParameters]:
    torch.manual_seed(1)
    linears = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    modules: list[torch.nn.Module] = []
    for linear in linears:
        modules += [linear, FUNCTIONS[activation]()]
    net = torch.nn.Sequential(*modules[:-1])
    flat = FlatParameters(net.parameters())
    return net, Mlp(linears, activation), flat


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("widths", [[5, 2], [5, 8, 3], [5, 8, 6, 1]])
def test_forward_and_gradients_equal_autograd(widths: list[int], activation: Activation) -> None:
    net, mlp, flat = make_net(widths, activation)
    x, direction = torch.randn(9, 5, requires_grad=True), torch.randn(9, widths[-1])
    expected = net(x)
    (expected * direction).sum().backward()
    oracle, x_oracle = flat.grad.clone(), x.grad
    flat.grad.fill_(7.0)
    out = mlp.forward(x.detach())
    torch.testing.assert_close(out, expected.detach(), rtol=1e-6, atol=1e-6)
    x_grad = mlp.backward(direction, inputs=True)
    torch.testing.assert_close(flat.grad, oracle, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(x_grad, x_oracle, rtol=1e-5, atol=2e-6)


def test_gradients_equal_finite_differences() -> None:
    _, mlp, flat = make_net([4, 6, 2], "tanh")
    x, direction = torch.randn(5, 4), torch.randn(5, 2)
    mlp.forward(x)
    mlp.backward(direction)
    gradient = flat.grad.clone()
    step = 1e-2
    for i in range(0, flat.data.numel(), 3):
        value = flat.data[i].item()
        ends = []
        for sign in (1, -1):
            flat.data[i] = value + sign * step
            ends.append((mlp.predict(x).double() * direction.double()).sum().item())
        flat.data[i] = value
        assert gradient[i].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-3)


@pytest.mark.parametrize("rows", [1, 3, 32, 33, 100])
def test_prediction_for_few_and_many_rows_equals_the_module(rows: int) -> None:
    net, mlp, _ = make_net([5, 16, 16, 3], "tanh")
    x = torch.randn(rows, 5)
    expected = net(x).detach()
    torch.testing.assert_close(mlp.predict(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.from_numpy(mlp.predict_few(x.numpy())), expected, rtol=1e-6, atol=1e-6)


def test_slots_keep_two_forward_passes_apart() -> None:
    net, mlp, flat = make_net([5, 8, 2], "relu")
    x, y, direction = torch.randn(4, 5), torch.randn(4, 5), torch.randn(4, 2)
    mlp.forward(x, slot=0)
    mlp.forward(y, slot=1)
    mlp.backward(direction, slot=0)
    ours = flat.grad.clone()
    flat.grad.zero_()
    (net(x) * direction).sum().backward()
    torch.testing.assert_close(ours, flat.grad, rtol=1e-5, atol=1e-6)


def test_parameter_gradients_can_be_left_out() -> None:
    _, mlp, flat = make_net([5, 8, 2], "relu")
    flat.grad.fill_(7.0)
    mlp.forward(torch.randn(4, 5))
    assert mlp.backward(torch.randn(4, 2), parameters=False, inputs=True) is not None
    assert bool((flat.grad == 7.0).all())


def make_policy(kind: Any = ActorCriticPolicy, observation: Any = BOX, action: Any = None, **kwargs: Any) -> Any:
    return kind(observation, spaces.Discrete(3) if action is None else action, lambda _: 1e-3, **kwargs)


class OwnPolicy(ActorCriticPolicy):
    pass


class OwnExtractor(FlattenExtractor):
    pass


IMAGE = spaces.Box(0, 255, (3, 36, 36), dtype="uint8")
CASES: list[tuple[str, dict[str, Any]]] = [
    ("OwnPolicy", {"kind": OwnPolicy}),
    ("CnnPolicy", {"kind": ActorCriticCnnPolicy, "observation": IMAGE}),
    ("image", {"observation": IMAGE}),
    ("image", {"kind": MultiInputActorCriticPolicy, "observation": spaces.Dict({"a": BOX, "b": IMAGE})}),
    ("gSDE", {"action": BOX, "use_sde": True}),
    ("OwnExtractor", {"features_extractor_class": OwnExtractor}),
    ("ELU", {"activation_fn": torch.nn.ELU}),
    ("Bernoulli", {"action": spaces.MultiBinary(3)}),
]


@pytest.mark.parametrize("reason, arguments", CASES)
def test_ineligible_policies_have_a_reason(reason: str, arguments: dict[str, Any]) -> None:
    assert reason in str(policy_ineligible(make_policy(**arguments)))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"action": BOX, "activation_fn": torch.nn.ReLU},
        {"action": spaces.MultiDiscrete([2, 4]), "net_arch": []},
        {"net_arch": {"pi": [8], "vf": [8, 8, 8]}, "share_features_extractor": False},
        {"kind": MultiInputActorCriticPolicy, "observation": MIXED},
        {"kind": MaskableActorCriticPolicy, "action": spaces.MultiBinary(3)},
    ],
)
def test_plain_mlp_policies_are_eligible(arguments: dict[str, Any]) -> None:
    assert policy_ineligible(make_policy(**arguments)) is None


def test_hooks_frozen_parameters_other_dtypes_and_added_layers_are_ineligible() -> None:
    policy = make_policy()
    handle = policy.value_net.register_forward_hook(lambda *_: None)
    assert "hook" in str(policy_ineligible(policy))
    handle.remove()
    assert policy_ineligible(policy) is None
    policy.value_net.bias.requires_grad_(False)
    assert "frozen" in str(policy_ineligible(policy))
    assert "float64" in str(policy_ineligible(make_policy().double()))
    policy = make_policy()
    policy.extra = torch.nn.Linear(2, 2)
    assert "beside" in str(policy_ineligible(policy))
    policy = make_policy()
    policy.mlp_extractor.policy_net.append(torch.nn.LayerNorm(64))
    assert "linear layers" in str(policy_ineligible(policy))
