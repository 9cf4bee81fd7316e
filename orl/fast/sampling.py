"""Draws from action distributions that consume torch's random numbers exactly as SB3's distributions do.

Given the same parameters and the same state of torch's generator, the draws are those of
``DiagGaussianDistribution.sample`` and of (masked) ``CategoricalDistribution.sample`` and
``MultiCategoricalDistribution.sample``, and the generator is left in the same state.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orl.fast.distributions import Categoricals, Masks

Floats = npt.NDArray[np.float32]


class GaussianSampler:
    """Draws ``mean + std * noise`` for a fixed number of rows.

    Args:
        log_std: Logarithm of the deviations, a torch tensor float32[P]; read when the sampler is made.
        rows: Number of rows of every draw.
    """

    def __init__(self, log_std: torch.Tensor, rows: int) -> None:
        self._std = log_std.detach().exp().numpy()
        self._noise = torch.empty(rows, len(self._std))
        self._noise_array = self._noise.numpy()

    def __call__(self, mean: Floats, masks: None = None) -> Floats:
        """A new array float32[rows, P]."""
        self._noise.normal_()
        actions = self._noise_array * self._std
        actions += mean
        return actions


class CategoricalsSampler:
    """Draws one choice a factor.

    Args:
        family: The factors.
        rows: Number of rows of every draw.
    """

    def __init__(self, family: Categoricals, rows: int) -> None:
        self._family, self._rows = family, rows
        self._direct = exponential_race_is_multinomial()
        self._noise = [torch.empty(rows, size) for size in family.sizes]
        self._noise_arrays = [noise.numpy() for noise in self._noise]
        stops = np.cumsum(family.sizes).tolist()
        self._columns = [slice(stop - size, stop) for size, stop in zip(family.sizes, stops, strict=True)]

    def __call__(self, logits: Floats, masks: Masks | None = None) -> npt.NDArray[np.int64]:
        """A new array int64[rows, K]."""
        _, probs = self._family.probabilities(logits, masks)
        actions = np.empty((self._rows, len(self._columns)), np.int64)
        for k, columns in enumerate(self._columns):
            if self._direct:
                self._noise[k].exponential_()
                np.divide(probs[:, columns], self._noise_arrays[k], out=self._noise_arrays[k])
                self._noise_arrays[k].argmax(axis=1, out=actions[:, k])
            else:
                actions[:, k] = torch.multinomial(torch.from_numpy(probs[:, columns]), 1, True)[:, 0].numpy()
        return actions


@cache
def exponential_race_is_multinomial() -> bool:
    """Whether this version of torch draws one category as the largest ``p / e`` with exponential ``e``.

    It is what torch 2 does on the CPU, checked once a process on its private copy of the random state; where it does
    not hold, ``torch.multinomial`` itself draws.
    """
    with torch.random.fork_rng(devices=[]):
        for rows, size in ((1, 2), (1, 5), (3, 4), (64, 3), (2, 40)):
            torch.manual_seed(rows * size)
            probs = torch.softmax(torch.randn(rows, size), -1)
            state = torch.get_rng_state()
            expected = torch.multinomial(probs, 1, True)[:, 0]
            after = torch.get_rng_state()
            torch.set_rng_state(state)
            drawn = (probs / torch.empty(rows, size).exponential_()).argmax(-1)
            if not torch.equal(drawn, expected) or not torch.equal(torch.get_rng_state(), after):
                return False
    return True


def sampler(family: Any, policy: Any, rows: int) -> GaussianSampler | CategoricalsSampler:
    """The sampler that belongs to an eligible policy's family."""
    if isinstance(family, Categoricals):
        return CategoricalsSampler(family, rows)
    return GaussianSampler(policy.log_std, rows)
