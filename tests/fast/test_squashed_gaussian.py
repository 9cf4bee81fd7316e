import numpy as np
import pytest
import torch
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution

from orl.fast.squashed_gaussian import SquashedGaussian


def draw(rows: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    parameters = torch.randn(rows, 2 * width)
    parameters[0, width] = 2.5  # beyond the limits of log_std
    parameters[1, width] = -21.0
    return parameters, torch.randn(rows, width)


def test_actions_log_probabilities_and_gradients_equal_sb3s_distribution() -> None:
    parameters, noise = draw(40, 3)
    parameters[2, 0] = 9.0  # saturated
    family = SquashedGaussian(3)
    sample = family.evaluate(parameters.numpy(), noise.numpy())

    leaf = parameters.clone().requires_grad_()
    mean, log_std = leaf[:, :3], leaf[:, 3:].clamp(-20, 2)
    distribution = SquashedDiagGaussianDistribution(3).proba_distribution(mean, log_std)
    unsquashed = mean + log_std.exp() * noise
    actions = torch.tanh(unsquashed)
    log_prob = distribution.log_prob(actions, unsquashed)
    np.testing.assert_allclose(sample.actions, actions.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(family.act(parameters.numpy(), noise.numpy()), sample.actions, atol=1e-6)
    usual = np.arange(40) != 1  # a deviation of e^-20 is lost beside its mean, in SB3's log-probability too
    np.testing.assert_allclose(sample.log_prob[usual], log_prob.detach().numpy()[usual], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sample.component_log_prob.sum(1), sample.log_prob, rtol=1e-5)

    d_log_prob, d_actions = torch.randn(40), torch.randn(40, 3)
    ((log_prob * d_log_prob).sum() + (actions * d_actions).sum()).backward()
    assert leaf.grad is not None
    ours = family.gradient(sample, d_log_prob.numpy(), d_actions.numpy())
    np.testing.assert_allclose(ours[usual], leaf.grad.numpy()[usual], rtol=2e-3, atol=1e-4)
    assert ours[0, 3] == ours[1, 3] == 0.0


def test_the_gradient_equals_finite_differences() -> None:
    parameters, noise = draw(6, 2)
    family = SquashedGaussian(2)
    d_log_prob = np.linspace(-1, 1, 6).astype(np.float32)
    d_actions = np.linspace(-1, 2, 12).astype(np.float32).reshape(6, 2)
    ours = family.gradient(family.evaluate(parameters.numpy(), noise.numpy()), d_log_prob, d_actions)

    def value(rows: np.ndarray) -> float:
        mean, log_std = rows[:, :2], np.clip(rows[:, 2:], -20, 2)
        unsquashed = mean + np.exp(log_std) * noise.numpy()
        actions = np.tanh(unsquashed)
        log_prob = -0.5 * noise.numpy() ** 2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - actions**2 + 1e-6)
        return float((log_prob.sum(1) * d_log_prob).sum() + (actions * d_actions).sum())

    exact = parameters.numpy().astype(np.float64)
    for i in range(6):
        for j in range(4):
            moved = [exact.copy(), exact.copy()]
            moved[0][i, j] += 1e-6
            moved[1][i, j] -= 1e-6
            difference = (value(moved[0]) - value(moved[1])) / 2e-6
            assert ours[i, j] == pytest.approx(difference, rel=2e-3, abs=1e-4), (i, j)
