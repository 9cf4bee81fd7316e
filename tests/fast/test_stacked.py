from itertools import pairwise

import pytest
import torch

from orl.fast.flat_parameters import FlatParameters
from orl.fast.mlp import Activation
from orl.fast.stacked import StackedMlp, stacked_order


def make_members(k: int, widths: list[int]) -> list[list[torch.nn.Linear]]:
    torch.manual_seed(2)
    return [[torch.nn.Linear(a, b) for a, b in pairwise(widths)] for _ in range(k)]


def run_member(layers: list[torch.nn.Linear], activation: Activation, x: torch.Tensor) -> torch.Tensor:
    for layer in layers[:-1]:
        x = getattr(torch, activation)(layer(x))
    return layers[-1](x)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("k, widths, own_rows", [(2, [5, 8, 7, 1], False), (3, [4, 6, 2], True), (2, [4, 1], False)])
def test_outputs_and_gradients_equal_autograd(
    k: int, widths: list[int], own_rows: bool, activation: Activation
) -> None:
    members = make_members(k, widths)
    other = torch.nn.Parameter(torch.randn(3))
    flat = FlatParameters([other, *stacked_order(members)])
    stack = StackedMlp(members, activation, flat)
    x = torch.randn(*([k] if own_rows else []), 10, widths[0], requires_grad=True)
    direction = torch.randn(k, 10, widths[-1])
    expected = torch.stack([run_member(m, activation, x[i] if own_rows else x) for i, m in enumerate(members)])
    (expected * direction).sum().backward()
    oracle = flat.grad.clone()
    flat.grad.zero_()
    torch.testing.assert_close(stack.predict(x.detach()), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(stack.forward(x.detach()), expected.detach(), rtol=1e-5, atol=1e-6)
    x_grad = stack.backward(direction, inputs=True)
    assert x_grad is not None
    torch.testing.assert_close(flat.grad, oracle, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(x_grad if own_rows else x_grad.sum(0), x.grad, rtol=1e-5, atol=2e-6)
    flat.grad.zero_()
    stack.backward(direction, parameters=False, inputs=True)
    assert not flat.grad.any()


def test_wrong_order_and_unequal_members_are_refused() -> None:
    members = make_members(2, [5, 4, 1])
    plain = FlatParameters(p for m in members for layer in m for p in layer.parameters())
    with pytest.raises(ValueError, match="stacked_order"):
        StackedMlp(members, "relu", plain)
    with pytest.raises(ValueError, match="equal layers"):
        StackedMlp([*members, *make_members(1, [5, 3, 1])], "relu", plain)
