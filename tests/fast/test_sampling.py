import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableMultiCategoricalDistribution
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import CombinedExtractor
from toy_envs import DOUBLE_BOX, MIXED

import orl.fast.sampling as sampling
from orl.fast.distributions import Categoricals
from orl.fast.features import Features
from orl.fast.sampling import CategoricalsSampler, GaussianSampler


@pytest.mark.parametrize("rows, width", [(1, 3), (2, 8), (5, 4), (64, 2)])
def test_gaussian_draws_are_sb3_draws(rows: int, width: int) -> None:
    mean, log_std = torch.randn(rows, width), 0.2 * torch.randn(width)
    draw = GaussianSampler(log_std, rows)
    torch.manual_seed(5)
    expected = [DiagGaussianDistribution(width).actions_from_params(mean, log_std) for _ in range(3)]
    after = torch.get_rng_state()
    torch.manual_seed(5)
    drawn = [draw(mean.numpy()) for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), after)
    for ours, theirs in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("sizes", [[2], [30], [3, 2, 5]])
@pytest.mark.parametrize("rows", [1, 7])
def test_categorical_draws_are_sb3_draws(
    sizes: list[int], rows: int, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.setattr(sampling, "exponential_race_is_multinomial", lambda: False)
    logits = 2 * torch.randn(rows, sum(sizes))
    masks = np.random.default_rng(0).random((rows, sum(sizes))) < 0.6
    masks[:, np.cumsum(sizes) - 1] = True
    plain = MultiCategoricalDistribution(sizes) if len(sizes) > 1 else CategoricalDistribution(sizes[0])
    masked = MaskableMultiCategoricalDistribution(sizes)
    draw = CategoricalsSampler(Categoricals(sizes), rows)
    torch.manual_seed(5)
    expected = [plain.actions_from_params(logits).reshape(rows, -1) for _ in range(20)]
    masked.proba_distribution(logits).apply_masking(masks)
    expected += [masked.sample() for _ in range(20)]
    after = torch.get_rng_state()
    torch.manual_seed(5)
    drawn = [draw(logits.numpy(), None if k < 20 else masks) for k in range(40)]
    assert torch.equal(torch.get_rng_state(), after)
    for ours, theirs in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize(
    "space", [DOUBLE_BOX, spaces.Discrete(4), spaces.MultiDiscrete([2, 3, 4]), spaces.MultiBinary(3), MIXED]
)
def test_features_equal_sb3_preprocessing(space: spaces.Space) -> None:
    space.seed(0)
    samples = [space.sample() for _ in range(5)]
    if isinstance(space, spaces.Dict):
        batch = {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
        tensors = {key: torch.as_tensor(value) for key, value in batch.items()}
        expected = CombinedExtractor(space)(preprocess_obs(tensors, space))
    else:
        batch = np.stack(samples)
        expected = preprocess_obs(torch.as_tensor(batch), space)
        assert isinstance(expected, torch.Tensor)
        expected = expected.flatten(1)
    np.testing.assert_array_equal(Features(space)(batch), expected.numpy())


def test_an_integer_observation_outside_its_space_is_an_error() -> None:
    with pytest.raises(ValueError, match="outside"):
        Features(spaces.Discrete(3))(np.array([3]))
