"""When SDDP may stop: rules over the rows that it logs, one an iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

TWO_SIDED_95 = 1.959964


@dataclass(frozen=True)
class TrainingRow:
    """What SDDP knows after an iteration; costs in USD for each hour of a stage, summed over the stages, discounted.

    Attributes:
        iteration: From 1.
        seconds: Of training so far.
        lower_bound: On the optimal (risk-adjusted) expected cost.
        path_cost: Mean cost of the iteration's own forward passes. So few paths bound nothing.
        forward_mean: Mean cost of fresh simulated paths, an estimate of what the policy costs; NaN in iterations
            without simulation.
        forward_ci: Half the width of its 95 % confidence interval; NaN likewise.
        lps: Stage programmes solved so far.
        cuts: Cuts known.
        retries: Programmes that HiGHS solved only at a second try.
    """

    iteration: int
    seconds: float
    lower_bound: float
    path_cost: float
    forward_mean: float
    forward_ci: float
    lps: int
    cuts: int
    retries: int


class StoppingRule(Protocol):
    """Says after every iteration whether that was enough; ``simulates``: whether it needs fresh simulations."""

    simulates: bool

    def __call__(self, rows: Sequence[TrainingRow]) -> bool: ...


@dataclass(frozen=True)
class BoundStalls:
    """The lower bound rose by less than ``relative`` of itself over the last ``iterations``."""

    relative: float = 1e-4
    iterations: int = 10
    simulates: bool = False

    def __call__(self, rows: Sequence[TrainingRow]) -> bool:
        if len(rows) <= self.iterations:
            return False
        now, then = rows[-1].lower_bound, rows[-1 - self.iterations].lower_bound
        return now - then <= self.relative * abs(now)


@dataclass(frozen=True)
class StatisticalGap:
    """The bound reaches the one-sided confidence limit below the simulated mean: ``bound >= mean - z s / sqrt(N)``.

    A. Shapiro, European Journal of Operational Research 209 (2011) 63-72, section 3.3. Few simulations stop early, so
    simulate many.
    """

    z: float = 1.64
    simulates: bool = True

    def __call__(self, rows: Sequence[TrainingRow]) -> bool:
        row = rows[-1]
        return row.lower_bound >= row.forward_mean - self.z * row.forward_ci / TWO_SIDED_95  # False for NaN


@dataclass(frozen=True)
class RelativeGap:
    """The simulated mean lies at most ``relative`` above the lower bound."""

    relative: float = 1e-3
    simulates: bool = True

    def __call__(self, rows: Sequence[TrainingRow]) -> bool:
        row = rows[-1]
        if math.isnan(row.forward_mean):
            return False
        return row.forward_mean - row.lower_bound <= self.relative * max(abs(row.lower_bound), 1e-9)
