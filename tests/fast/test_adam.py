import copy
from typing import Any

import pytest
import torch

from orl.fast.adam import FlatAdam, adam_ineligible
from orl.fast.flat_parameters import FlatParameters


def make_net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(7, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))


def make_pair(**options: Any) -> tuple[FlatAdam, torch.nn.Module, torch.optim.Adam]:
    net, reference = make_net(), make_net()
    flat = FlatParameters(net.parameters())
    fast = FlatAdam(flat, torch.optim.Adam(net.parameters(), **options))
    return fast, reference, torch.optim.Adam(reference.parameters(), **options)


def give_same_gradients(fast: FlatAdam, reference: torch.nn.Module, scale: float = 1.0) -> None:
    for p, q in zip(fast.flat.parameters, reference.parameters(), strict=True):
        q.grad = torch.randn_like(q) * scale
        assert p.grad is not None
        p.grad.copy_(q.grad)


def distance(fast: FlatAdam, reference: torch.nn.Module) -> float:
    pairs = zip(fast.flat.parameters, reference.parameters(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs)


@pytest.mark.parametrize(
    "options",
    [{"lr": 3e-4, "eps": 1e-5}, {"lr": 1e-2, "betas": (0.5, 0.9)}, {"lr": 1e-3, "weight_decay": 0.1}],
)
def test_steps_equal_torch_adam_to_rounding(options: dict[str, Any]) -> None:
    fast, reference, optimizer = make_pair(**options)
    for _ in range(100):
        give_same_gradients(fast, reference)
        fast.step()
        optimizer.step()
    assert distance(fast, reference) < 2e-7


def test_the_learning_rate_is_read_at_every_step() -> None:
    fast, reference, optimizer = make_pair(lr=1e-3)
    for rate in (1e-3, 1e-1, 0.0):
        fast.optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] = rate
        give_same_gradients(fast, reference)
        fast.step()
        optimizer.step()
    assert distance(fast, reference) < 2e-7


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_equals_clip_grad_norm(max_norm: float) -> None:
    fast, reference, _ = make_pair(lr=1e-3)
    give_same_gradients(fast, reference)
    expected = torch.nn.utils.clip_grad_norm_(reference.parameters(), max_norm).item()
    assert fast.clip(max_norm) == pytest.approx(expected, rel=1e-6)
    for p, q in zip(fast.flat.parameters, reference.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-7)


def test_a_gradient_that_is_not_finite_spreads_as_in_torch() -> None:
    fast, _, _ = make_pair(lr=1e-3)
    fast.flat.grad.fill_(1.0)
    fast.flat.grad[0] = float("nan")
    fast.clip(0.5)
    assert fast.flat.grad.isnan().all()


def test_torch_adam_goes_on_from_our_state_and_we_from_its() -> None:
    fast, reference, optimizer = make_pair(lr=1e-3)
    for _ in range(5):
        give_same_gradients(fast, reference)
        fast.step()
        optimizer.step()

    ours_to_torch = make_net()
    ours_to_torch.load_state_dict(
        {k: p.detach().clone() for k, p in zip(ours_to_torch.state_dict(), fast.flat.parameters, strict=True)}
    )
    torch_adam = torch.optim.Adam(ours_to_torch.parameters(), lr=1e-3)
    torch_adam.load_state_dict(copy.deepcopy(fast.optimizer.state_dict()))

    torch_to_ours = make_net()
    torch_to_ours.load_state_dict(reference.state_dict())
    loaded = torch.optim.Adam(torch_to_ours.parameters(), lr=1e-3)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again = FlatAdam(FlatParameters(torch_to_ours.parameters()), loaded)
    assert again.steps == 5

    give_same_gradients(fast, reference)
    for p, q in zip(again.flat.parameters, reference.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        p.grad.copy_(q.grad)
    for p, q in zip(ours_to_torch.parameters(), reference.parameters(), strict=True):
        p.grad = q.grad
    fast.step()
    optimizer.step()
    torch_adam.step()
    again.step()
    assert distance(fast, reference) < 1e-7
    assert distance(fast, ours_to_torch) < 1e-7
    assert distance(again, reference) < 1e-7


def test_a_step_of_torch_between_ours_and_loaded_states_are_noticed() -> None:
    fast, reference, optimizer = make_pair(lr=1e-3)
    give_same_gradients(fast, reference)
    fast.step()
    assert fast.intact
    fast.optimizer.step()
    optimizer.step()
    optimizer.step()
    assert not fast.intact
    again = FlatAdam(fast.flat, fast.optimizer)
    assert again.steps == 2
    assert distance(again, reference) < 1e-7
    again.optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert not again.intact


def test_other_optimisers_are_refused_with_a_reason() -> None:
    net = make_net()
    parameters = list(net.parameters())
    adam = torch.optim.Adam
    assert adam_ineligible(adam(parameters), parameters) is None
    assert "AdamW" in str(adam_ineligible(torch.optim.AdamW(parameters), parameters))
    assert "amsgrad" in str(adam_ineligible(adam(parameters, amsgrad=True), parameters))
    assert "exactly" in str(adam_ineligible(adam(parameters[:-1]), parameters))
    assert "groups" in str(adam_ineligible(adam([{"params": [p]} for p in parameters]), parameters))
    with pytest.raises(ValueError, match="amsgrad"):
        FlatAdam(FlatParameters(parameters), adam(parameters, amsgrad=True))
