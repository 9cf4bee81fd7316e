"""Risk measures: how the costs of a stage's openings become one number, as weights that replace probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats


class RiskMeasure(Protocol):
    """A coherent measure: the largest of many expectations; ``weights`` gives the one that is largest now."""

    def weights(self, costs: Floats, probabilities: Floats) -> Floats:
        """Weights float64[O] that sum to 1, of costs float64[O] and their probabilities float64[O]."""
        ...


@dataclass(frozen=True)
class Expectation:
    """The mean: weights are probabilities."""

    def weights(self, costs: Floats, probabilities: Floats) -> Floats:
        return probabilities


@dataclass(frozen=True)
class MeanCVaR:
    """``(1 - weight) * mean + weight * CVaR``, where CVaR is the mean of the dearest ``tail`` of all cases.

    R. T. Rockafellar, S. Uryasev, Journal of Banking & Finance 26 (2002) 1443-1471; in SDDP: A. Shapiro, European
    Journal of Operational Research 209 (2011) 63-72.

    >>> MeanCVaR(weight=0.5, tail=0.25).weights(np.array([1.0, 3.0]), np.array([0.5, 0.5])).tolist()
    [0.25, 0.75]
    """

    weight: float = 0.5
    tail: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InputError("bad weight of CVaR", field="weight", value=self.weight, expected="0..1")
        if not 0 < self.tail <= 1:
            raise InputError("bad tail of CVaR", field="tail", value=self.tail, expected="above 0, at most 1")

    def weights(self, costs: Floats, probabilities: Floats) -> Floats:
        dearest = np.argsort(-costs, kind="stable")
        taken = np.minimum(np.cumsum(probabilities[dearest]), self.tail)
        in_tail = np.empty_like(probabilities)
        in_tail[dearest] = np.diff(taken, prepend=0.0) / taken[-1]
        mixed: Floats = (1 - self.weight) * probabilities + self.weight * in_tail
        return mixed
