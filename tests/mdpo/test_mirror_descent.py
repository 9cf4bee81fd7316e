"""The closed forms: divergences, mirror steps, losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from torch.distributions import Categorical, Normal, kl_divergence

from orl.mdpo.mirror_descent import (
    Categoricals,
    Gaussian,
    bregman_divergence,
    clipped_value_loss,
    detached,
    factors,
    generalised_log,
    mirror_step_loss,
    soft_mirror_step,
)


def gaussian(mean: float, std: float) -> Gaussian:
    return Gaussian(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[std]], dtype=torch.float64).log())


def categorical(*probabilities: float) -> Categoricals:
    return Categoricals((torch.tensor([probabilities], dtype=torch.float64).log(),))


# ---- divergences ---------------------------------------------------------------------------------------------------
def test_gaussian_divergence_is_kl_of_new_from_old_and_not_the_reverse() -> None:
    old, new = gaussian(0.0, 1.0), gaussian(1.0, 2.0)
    assert float(bregman_divergence(new, old)) == pytest.approx(-np.log(2) + 5 / 2 - 0.5)
    assert float(bregman_divergence(new, old)) == pytest.approx(1.306853, abs=1e-6)
    assert float(bregman_divergence(old, new)) == pytest.approx(0.443147, abs=1e-6)
    expected = kl_divergence(Normal(1.0, 2.0), Normal(0.0, 1.0))
    assert float(bregman_divergence(new, old)) == pytest.approx(float(expected))


def test_divergences_of_sb3_distributions_agree_with_torch() -> None:
    torch.manual_seed(0)
    one, two = torch.randn(2, 5, 6)
    cases = [
        (CategoricalDistribution(6), lambda d, x: d.proba_distribution(x)),
        (MultiCategoricalDistribution([2, 4]), lambda d, x: d.proba_distribution(x)),
        (BernoulliDistribution(6), lambda d, x: d.proba_distribution(x)),
        (DiagGaussianDistribution(6), lambda d, x: d.proba_distribution(x, x[0])),
    ]
    for distribution, set_to in cases:
        parts = []
        for parameters in (one, two):
            inner = set_to(distribution, parameters).distribution
            parts.append((factors(distribution), inner if isinstance(inner, list) else [inner]))
        (new, new_torch), (old, old_torch) = parts
        pairs = zip(new_torch, old_torch, strict=True)
        expected = sum(kl_divergence(a, b).reshape(5, -1).sum(1) for a, b in pairs)
        torch.testing.assert_close(bregman_divergence(new, old), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("q", [1.0, 1.2, 1.4, 2.0])
def test_divergences_match_their_definition_by_quadrature_and_by_sums(q: float) -> None:
    def log_q(x):
        return np.log(x) if q == 1 else (x ** (q - 1) - 1) / (q - 1)

    def density(x, mean, std):
        return np.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * np.sqrt(2 * np.pi))

    def integrand(x):
        new, old = density(x, 0.3, 0.7), density(x, -0.2, 1.1)
        return new * (log_q(new) - q * log_q(old)) + (q - 1) * old * log_q(old)

    by_quadrature, _ = integrate.quad(integrand, -9, 9)
    assert float(bregman_divergence(gaussian(0.3, 0.7), gaussian(-0.2, 1.1), q)) == pytest.approx(by_quadrature)

    new, old = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    by_sum = (new * (log_q(new) - q * log_q(old)) + (q - 1) * old * log_q(old)).sum()
    assert float(bregman_divergence(categorical(*new), categorical(*old), q)) == pytest.approx(by_sum)
    if q == 2:
        assert by_sum == pytest.approx(((new - old) ** 2).sum())


@pytest.mark.parametrize("q", [1.0, 1.4, 2.0])
def test_divergence_is_zero_at_the_old_policy_and_positive_elsewhere(q: float) -> None:
    for same, other in ((gaussian(0.3, 0.7), gaussian(0.5, 0.6)), (categorical(0.2, 0.8), categorical(0.3, 0.7))):
        assert float(bregman_divergence(same, same, q)) == pytest.approx(0.0, abs=1e-12)
        assert float(bregman_divergence(other, same, q)) > 1e-4


def test_tsallis_forms_approach_the_kl_divergence_in_single_precision() -> None:
    torch.manual_seed(1)
    normal = [Gaussian(torch.randn(64, 3), 0.3 * torch.randn(64, 3)) for _ in range(2)]
    discrete = [Categoricals((torch.randn(64, 4).log_softmax(-1),)) for _ in range(2)]
    for new, old in (normal, discrete):
        near, kl = bregman_divergence(new, old, 1 + 1e-4), bregman_divergence(new, old)
        torch.testing.assert_close(near, kl, rtol=2e-3, atol=1e-3)


def test_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(2)
    old = Gaussian(torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64) / 3)
    old_logits = torch.randn(4, 3, dtype=torch.float64).log_softmax(-1)
    advantages, taken = torch.randn(4, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    for q in (1.0, 1.4, 2.0):

        def gaussian_loss(mean, log_std, q=q):
            return bregman_divergence(Gaussian(mean, log_std), old, q).sum()

        def discrete_loss(logits, q=q):
            new = logits.log_softmax(-1)
            divergence = bregman_divergence(Categoricals((new,)), Categoricals((old_logits,)), q)
            chosen, old_chosen = (x.gather(1, taken[:, None])[:, 0] for x in (new, old_logits))
            return mirror_step_loss(chosen, old_chosen, advantages, divergence, 0.3)

        arguments = [torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        assert torch.autograd.gradcheck(gaussian_loss, arguments)
        assert torch.autograd.gradcheck(discrete_loss, torch.randn(4, 3, dtype=torch.float64, requires_grad=True))


def test_masked_options_add_nothing_and_get_no_gradient() -> None:
    logits = torch.tensor([[0.2, -1e8, 0.4]], requires_grad=True)
    old = Categoricals((torch.tensor([[0.5, -1e8, 0.1]]).log_softmax(-1),))
    reduced = Categoricals((torch.tensor([[0.5, 0.1]]).log_softmax(-1),))
    for q in (1.0, 1.4):
        full = bregman_divergence(Categoricals((logits.log_softmax(-1),)), old, q)
        small = bregman_divergence(Categoricals((logits[:, [0, 2]].log_softmax(-1),)), reduced, q)
        torch.testing.assert_close(full, small)
        (grad,) = torch.autograd.grad(full.sum(), logits)
        assert torch.isfinite(grad).all()
        assert float(grad[0, 1]) == 0.0


# ---- mirror steps --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("q", "expected"),
    [(1.0, (0.665241, 0.244728, 0.090031)), (1.4, (0.697, 0.256, 0.047)), (2.0, (0.75, 0.25, 0.0))],
)
def test_three_arms_converge_to_the_exact_mirror_step(q: float, expected: tuple[float, ...]) -> None:
    """Uniform old policy, advantages (1, 0, -1), t = 1: softmax, its q = 1.4 relative, projection on the simplex."""
    advantages, arms = torch.tensor([1.0, 0.0, -1.0]), torch.arange(3)
    old = torch.zeros(3, 3).log_softmax(-1)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(600):
        log_probs = logits.log_softmax(-1)
        divergence = bregman_divergence(Categoricals((log_probs.expand(3, 3),)), Categoricals((old,)), q)
        loss = mirror_step_loss(log_probs[arms], old[0], advantages, divergence, 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(logits.softmax(-1).detach(), expected, atol=1e-3 if q != 2 else 2e-3)


@pytest.mark.parametrize("t", [0.1, 1.0])
@pytest.mark.parametrize("q", [1.0, 1.4])
def test_first_step_is_the_plain_policy_gradient(t: float, q: float) -> None:
    torch.manual_seed(3)
    mean, log_std = torch.randn(32, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
    actions, advantages = torch.randn(32, 2), torch.randn(32)

    def log_prob():
        return Normal(mean, log_std.exp()).log_prob(actions).sum(1)

    new = Gaussian(mean, log_std)
    divergence = bregman_divergence(new, detached(new), q)
    mirror = torch.autograd.grad(
        mirror_step_loss(log_prob(), log_prob().detach(), advantages, divergence, t), (mean, log_std)
    )
    plain = torch.autograd.grad(-(advantages * log_prob()).mean(), (mean, log_std))
    for one, other in zip(mirror, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_soft_step_of_a_gaussian_bandit_has_the_derived_fixed_point() -> None:
    """Q = -(a - 1)^2 / (2 * 0.7^2), old policy N(0.3, 0.5^2), c = 2, lambda = 0.2."""
    c, temperature, peak, width = 2.0, 0.2, 1.0, 0.7
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    noise, weight = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    mean = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    log_std = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([mean, log_std], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        actions = mean + log_std.exp() * noise
        ln_new = Normal(mean, log_std.exp()).log_prob(actions)
        ln_old = Normal(torch.tensor(0.3), torch.tensor(0.5)).log_prob(actions)
        q_values = -((actions - peak) ** 2) / (2 * width**2)
        loss = (weight * soft_mirror_step(ln_new, ln_old, q_values, c, temperature, 1.0)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(mean.detach()) == pytest.approx(0.454594, abs=1e-5)
    assert float(log_std.detach().exp()) == pytest.approx(0.465222, abs=1e-5)


def test_soft_step_drops_the_old_policy_when_c_is_the_temperature() -> None:
    ln_new, q_values = torch.tensor([0.3]), torch.tensor([1.5])
    for ln_old in (torch.tensor([-4.0]), torch.tensor([9.0])):
        assert float(soft_mirror_step(ln_new, ln_old, q_values, 0.2, 0.2, 1.0)) == pytest.approx(0.2 * 0.3 - 1.5)


def test_generalised_log_at_two_and_near_one() -> None:
    p = torch.tensor([0.1, 0.5, 2.0])
    torch.testing.assert_close(generalised_log(p.log(), 2.0), p - 1)
    torch.testing.assert_close(generalised_log(p.log(), 1.0 + 1e-4), p.log(), rtol=1e-3, atol=1e-3)


# ---- value loss ----------------------------------------------------------------------------------------------------
def test_clipped_value_loss_takes_the_larger_error_of_each_sample() -> None:
    values, old_values, returns = torch.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, 1.0]]).unbind(0)
    # errors without clipping: 1, 1; held at +-0.2 of the old value 0: (0.2 - 2)^2 = 3.24 and (0 - 1)^2 = 1
    assert float(clipped_value_loss(values, old_values, returns, 0.2)) == pytest.approx((3.24 + 1.0) / 2)
    assert float(clipped_value_loss(values, old_values, returns, None)) == pytest.approx(1.0)


def test_clipped_value_loss_is_at_least_both_means_and_ignores_the_order_of_samples() -> None:
    torch.manual_seed(4)
    values, old_values, returns = torch.randn(3, 200)
    loss = clipped_value_loss(values, old_values, returns, 0.2)
    held = old_values + (values - old_values).clamp(-0.2, 0.2)
    assert float(loss) > max(float((values - returns).square().mean()), float((held - returns).square().mean()))
    order = torch.randperm(200)
    torch.testing.assert_close(clipped_value_loss(values[order], old_values[order], returns[order], 0.2), loss)


def test_other_distributions_are_refused() -> None:
    with pytest.raises(TypeError, match="Categorical"):
        factors(Categorical(logits=torch.zeros(3)))
    with pytest.raises(TypeError, match="Gaussian"):
        bregman_divergence(gaussian(0, 1), categorical(0.5, 0.5))
