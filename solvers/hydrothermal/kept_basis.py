"""Solves that start from a kept basis: nearly as quick as warm ones, and they do not hang on what came before."""

from __future__ import annotations

from typing import Any

import highspy

from orl.envs.hydrothermal.stage_lp import run_again


def start_from(highs: Any, basis: Any) -> None:
    """Forget all earlier solves but the basis; None: forget everything."""
    highs.clearSolver()
    if basis is not None:
        highs.setBasis(basis)


def optimise(highs: Any, problem: str) -> int:
    """Solve what HiGHS holds; returns the further tries that it took.

    Where a programme has several optima, the one that comes after :func:`start_from` depends on the basis alone.

    Raises:
        StageError: No optimum; the message names ``problem``.

    >>> from orl.envs.hydrothermal.library import load
    >>> from orl.envs.hydrothermal.stage_lp import StageLP
    >>> highs = StageLP(load("tri3"), form="storage").highs
    >>> start_from(highs, None)
    >>> optimise(highs, "tri3")
    0
    """
    highs.run()
    return 0 if highs.getModelStatus() == highspy.HighsModelStatus.kOptimal else run_again(highs, problem)
