import copy
import io
import pickle

import pytest
import torch

from orl.fast.flat_parameters import FlatParameters


def make_net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


@pytest.fixture
def net() -> torch.nn.Sequential:
    return make_net()


def same_values(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_laying_out_keeps_the_values_and_the_parameter_objects(net: torch.nn.Sequential) -> None:
    before = [id(p) for p in net.parameters()]
    flat = FlatParameters(net.parameters())
    assert [id(p) for p in net.parameters()] == before
    assert same_values(net, make_net())
    assert flat.data.numel() == 3 * 4 + 4 + 4 * 2 + 2


def test_writing_to_the_buffer_changes_the_module_and_autograd_fills_the_gradient_buffer(
    net: torch.nn.Sequential,
) -> None:
    flat = FlatParameters(net.parameters())
    flat.data.zero_()
    assert all(not p.any() for p in net.parameters())
    net(torch.ones(5, 3)).sum().backward()
    assert torch.equal(flat.grad[-2:], torch.tensor([5.0, 5.0]))


def test_state_dict_load_and_torch_save_work_as_before(net: torch.nn.Sequential) -> None:
    flat = FlatParameters(net.parameters())
    flat.data.mul_(2.0)
    stored = io.BytesIO()
    torch.save(net.state_dict(), stored)
    stored.seek(0)
    other = make_net()
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert same_values(other, net)
    net.load_state_dict(make_net().state_dict())
    assert flat.intact
    assert torch.equal(flat.data, torch.cat([p.detach().ravel() for p in make_net().parameters()]))


def replace_by_assignment(net: torch.nn.Sequential) -> None:
    for p in net.parameters():
        p.data = p.data.clone() + 1.0


def to_double_and_back(net: torch.nn.Sequential) -> None:
    net.to(torch.float64).to(torch.float32)


def share_memory(net: torch.nn.Sequential) -> None:
    net.share_memory()


@pytest.mark.parametrize("replace", [replace_by_assignment, to_double_and_back, share_memory])
def test_replaced_memory_is_noticed_and_laid_out_again(net: torch.nn.Sequential, replace) -> None:
    flat = FlatParameters(net.parameters())
    assert flat.refresh() is False
    replace(net)
    expected = [p.detach().clone() for p in net.parameters()]
    assert not flat.intact
    assert flat.refresh() is True
    assert flat.intact
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), expected, strict=True))
    flat.data.zero_()
    assert all(not p.any() for p in net.parameters())


def test_gradients_that_were_set_to_none_are_attached_again(net: torch.nn.Sequential) -> None:
    flat = FlatParameters(net.parameters())
    net.zero_grad(set_to_none=True)
    assert flat.refresh() is False
    flat.grad.fill_(3.0)
    assert all(p.grad is not None and bool((p.grad == 3.0).all()) for p in net.parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent_and_can_be_laid_out_themselves(net: torch.nn.Sequential, duplicate) -> None:
    flat = FlatParameters(net.parameters())
    twin = duplicate(net)
    FlatParameters(twin.parameters()).data.zero_()
    assert same_values(net, make_net())
    assert flat.intact


def test_to_the_same_device_changes_nothing(net: torch.nn.Sequential) -> None:
    flat = FlatParameters(net.parameters())
    net.to("cpu").float()
    assert flat.intact


def test_refuses_nothing_doubles_and_mixed_kinds(net: torch.nn.Sequential) -> None:
    parameters = list(net.parameters())
    with pytest.raises(ValueError, match="no parameters"):
        FlatParameters([])
    with pytest.raises(ValueError, match="twice"):
        FlatParameters([parameters[0], parameters[0]])
    with pytest.raises(ValueError, match="one dtype"):
        FlatParameters([parameters[0], torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))])
