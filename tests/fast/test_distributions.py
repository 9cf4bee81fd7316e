import numpy as np
import pytest
import torch
from sb3_contrib.common.maskable.distributions import MaskableMultiCategoricalDistribution
from stable_baselines3.common.distributions import DiagGaussianDistribution
from torch.distributions import kl_divergence

from orl.fast.distributions import Categoricals, DiagGaussian

ROWS = 6
SIZES = [[4], [2, 3], [2, 2, 2]]


def draw_masks(sizes: list[int]) -> np.ndarray:
    random = np.random.default_rng(3)
    masks = random.random((ROWS, sum(sizes))) < 0.5
    masks[:, np.cumsum(sizes) - 1] = True
    return masks


def draw_legal_actions(sizes: list[int], masks: np.ndarray | None) -> np.ndarray:
    random = np.random.default_rng(4)
    actions, first = [], 0
    for size in sizes:
        legal = [
            np.arange(size) if masks is None else np.flatnonzero(row[first : first + size])
            for row in (masks if masks is not None else np.zeros((ROWS, sum(sizes))))
        ]
        actions.append([random.choice(choices) for choices in legal])
        first += size
    return np.array(actions, np.float32).T.copy()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_categoricals_equal_the_maskable_distribution_and_autograd(sizes: list[int], masked: bool) -> None:
    torch.manual_seed(0)
    masks = draw_masks(sizes) if masked else None
    actions = draw_legal_actions(sizes, masks)
    logits = (3 * torch.randn(ROWS, sum(sizes))).requires_grad_()
    old_logits = 3 * torch.randn(ROWS, sum(sizes))
    new = MaskableMultiCategoricalDistribution(sizes).proba_distribution(logits)
    old = MaskableMultiCategoricalDistribution(sizes).proba_distribution(old_logits)
    new.apply_masking(masks)
    old.apply_masking(masks)
    log_prob, entropy = new.log_prob(torch.from_numpy(actions)), new.entropy()
    divergence = sum(
        torch.where(n.probs > 0, n.probs * (n.logits - o.logits), 0.0).sum(-1)
        for n, o in zip(new.distributions, old.distributions, strict=True)
    )
    c = torch.randn(3, ROWS)
    (c[0] * log_prob + c[1] * entropy + c[2] * divergence).sum().backward()

    family = Categoricals(sizes)
    old_log_probs = Categoricals(sizes).probabilities(old_logits.numpy(), masks)[0]
    ours_log_prob, ours_entropy = family.evaluate(logits.detach().numpy(), actions, masks)
    np.testing.assert_allclose(ours_log_prob, log_prob.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours_entropy, entropy.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(family.divergence(old_log_probs), divergence.detach(), rtol=1e-5, atol=1e-6)
    assert logits.grad is not None
    np.testing.assert_allclose(family.gradient(*c.numpy()), logits.grad, rtol=1e-5, atol=2e-6)


def test_a_row_without_a_legal_action_is_uniform_and_gives_no_gradient() -> None:
    logits = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    masks = np.zeros((1, 4), np.bool_)
    family = Categoricals([4])
    log_prob, entropy = family.evaluate(logits, np.zeros((1, 1), np.float32), masks)
    reference = MaskableMultiCategoricalDistribution([4]).proba_distribution(torch.from_numpy(logits))
    reference.apply_masking(masks)
    np.testing.assert_allclose(family.probabilities(logits, masks)[1], reference.distributions[0].probs, rtol=1e-6)
    assert log_prob[0] == pytest.approx(-np.log(4))  # sb3-contrib: 0, since 1e8 + log(4) is rounded in float32
    assert entropy[0] == 0.0 == reference.entropy().item()
    one = np.ones(1, np.float32)
    assert not family.gradient(one, one).any()


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [-1e8, 3e7, 3e7]], np.float32)
    family = Categoricals([3])
    log_prob, entropy = family.evaluate(logits, np.array([[0.0], [1.0]], np.float32))
    np.testing.assert_allclose(log_prob, [0.0, -np.log(2)], atol=1e-6)
    np.testing.assert_allclose(entropy, [0.0, np.log(2)], atol=1e-6)
    one = np.ones(2, np.float32)
    assert np.isfinite(family.gradient(one, one)).all()


def test_gaussian_equals_sb3_torch_and_autograd() -> None:
    torch.manual_seed(0)
    width = 3
    mean = torch.randn(ROWS, width, requires_grad=True)
    log_std = (0.3 * torch.randn(width)).requires_grad_()
    old_mean, old_log_std = torch.randn(ROWS, width), 0.3 * torch.randn(width)
    actions = torch.randn(ROWS, width)
    new = DiagGaussianDistribution(width).proba_distribution(mean, log_std)
    old = DiagGaussianDistribution(width).proba_distribution(old_mean, old_log_std)
    log_prob, entropy = new.log_prob(actions), new.entropy()
    assert entropy is not None
    divergence = kl_divergence(new.distribution, old.distribution).sum(-1)
    c = torch.randn(3, ROWS)
    (c[0] * log_prob + c[1] * entropy + c[2] * divergence).sum().backward()

    log_std_grad = np.full(width, 9.0, np.float32)
    family = DiagGaussian(log_std.detach().numpy(), log_std_grad)
    ours_log_prob, ours_entropy = family.evaluate(mean.detach().numpy(), actions.numpy())
    np.testing.assert_allclose(ours_log_prob, log_prob.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours_entropy, entropy.detach(), rtol=1e-5, atol=1e-6)
    ours_divergence = family.divergence(old_mean.numpy(), old_log_std.numpy())
    np.testing.assert_allclose(ours_divergence, divergence.detach(), rtol=1e-5, atol=1e-6)
    assert mean.grad is not None
    assert log_std.grad is not None
    np.testing.assert_allclose(family.gradient(*c.numpy()), mean.grad, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(log_std_grad, log_std.grad, rtol=1e-5, atol=5e-6)


def test_gaussian_divergence_is_that_of_new_from_old() -> None:
    family = DiagGaussian(np.log(np.array([2.0], np.float32)), np.zeros(1, np.float32))
    family.evaluate(np.array([[1.0]], np.float32), np.zeros((1, 1), np.float32))
    divergence = family.divergence(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    assert divergence[0] == pytest.approx(1.306853, abs=1e-6)
