"""Schedules of a training: functions of the remaining progress, which falls from 1 to 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

PenaltySchedule = Callable[[float], float]
"""The factor of the penalty at a remaining progress."""


@dataclass(frozen=True)
class CosineDecay:
    """A rate that falls along half a cosine wave from ``initial`` to ``initial * final_share``.

    >>> rate = CosineDecay(0.1, final_share=0.02)
    >>> round(rate(1.0), 6), round(rate(0.5), 6), round(rate(0.0), 6)
    (0.1, 0.051, 0.002)
    """

    initial: float
    final_share: float

    def __call__(self, progress_remaining: float) -> float:
        progress = min(max(progress_remaining, 0.0), 1.0)
        height = 0.5 * (1.0 - math.cos(math.pi * progress))
        return self.initial * (self.final_share + (1.0 - self.final_share) * height)


def annealed(progress_remaining: float) -> float:
    """The factor of a penalty that grows in four steps: 0.1, 1, 10 and 30, after 2, 4 and 8 of 24 parts.

    Targets may be missed cheaply at first, so that programmes over many stages show where they should lie; then the
    policy is made to name targets that can be met. The steps are those of the authors' package DecisionRules.jl.

    >>> [annealed(1 - part / 24) for part in (0, 2.5, 5, 20)]
    [0.1, 1.0, 10.0, 30.0]
    """
    done = 24.0 * (1.0 - progress_remaining)
    if done < 2.0:
        return 0.1
    if done < 4.0:
        return 1.0
    return 10.0 if done < 8.0 else 30.0
