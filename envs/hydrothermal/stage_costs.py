"""What stages cost, by table or by programmes solved one after the other: the evaluator of the environments."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from orl.envs.hydrothermal.dual_pool import DualPool
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.stage_lp import StageLP


class StageCosts:
    """Costs of stages whose water is decided.

    Args:
        instance: The problem.
        evaluator: ``pool`` (:class:`orl.envs.hydrothermal.dual_pool.DualPool`) or ``highs``, a solve for every stage.
        releases: Right-hand sides are the plants' power in MW (form ``release``), not water (form ``strict``).

    Raises:
        InputError: ``releases`` for an instance without ``surplus``.

    A copy, or a pickled one, starts with an empty table.

    >>> from orl.envs.hydrothermal.library import load
    >>> rhs = np.random.default_rng(0).uniform(0, 80, (20, 3))
    >>> both = [StageCosts(load("tri3"), kind, False).costs(rhs, np.zeros(20, np.int64)) for kind in ("pool", "highs")]
    >>> bool(np.allclose(*both, rtol=1e-9))
    True
    """

    def __init__(self, instance: HydrothermalInstance, evaluator: Literal["pool", "highs"], releases: bool) -> None:
        self.instance, self.evaluator = instance, evaluator
        self.form: Literal["strict", "release"] = "release" if releases else "strict"
        self.pool: DualPool | None = DualPool(instance, form=self.form) if evaluator == "pool" else None
        self._programmes: dict[int, StageLP] = {}
        if evaluator != "pool":
            self.programme(0)

    def programme(self, stage: int) -> StageLP:
        """The programme of a stage; stages that share a row of demand share it."""
        row = stage % len(self.instance.demand)
        if row not in self._programmes:
            self._programmes[row] = StageLP(self.instance, row, self.form)
        return self._programmes[row]

    def costs(self, rhs: Floats, stages: Integers) -> Floats:
        """Costs float64[A], USD for each hour of a stage, without the cost of spillage in the form ``release``.

        Args:
            rhs: float64[A, n], of the first n rows of the programmes.
            stages: int64[A].

        Raises:
            StageError: A right-hand side that no dispatch meets.
        """
        if self.pool is not None:
            return self.pool.costs_and_duals(rhs, stages)[0]
        costs = np.empty(len(rhs))
        for k, stage in enumerate(stages.tolist()):
            programme = self.programme(stage)
            programme.run(rhs[k])
            costs[k] = programme.cost
        return costs

    def costs_and_sources(self, rhs: Floats, stages: Integers) -> tuple[Floats, list[str]]:
        """The costs of :meth:`costs`, one after the other, and where each came from: ``pool`` or ``simplex``."""
        costs, sources = np.empty(len(rhs)), []
        for k in range(len(rhs)):
            solved = None if self.pool is None else self.pool.counts.solved
            costs[k] = self.costs(rhs[k : k + 1], stages[k : k + 1])[0]
            sources.append("pool" if self.pool is not None and self.pool.counts.solved == solved else "simplex")
        return costs, sources

    def __reduce__(self) -> tuple[Any, ...]:
        return StageCosts, (self.instance, self.evaluator, self.form == "release")
