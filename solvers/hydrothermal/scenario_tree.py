"""All stages of a tree of inflows as one linear programme: exact, and as large as the tree.

Every node of the tree is a stage with its inflow revealed; its block is the storage form of
:func:`orl.envs.hydrothermal.stage_model.stage_model`, and the volumes of its parent stand in its water rows. A node's
costs weigh as much as its probability. A path of inflows is a tree with one node a stage (perfect foresight).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.stage_lp import new_highs, pass_model, run_again
from orl.envs.hydrothermal.stage_model import COST_SCALE, StageModel, openings, stage_model

LARGEST_PROGRAMME = 2_000_000  # columns
DUAL_TOLERANCE = 1e-9
OPTIMAL = highspy.HighsModelStatus.kOptimal


@dataclass(frozen=True, eq=False)
class InflowTree:
    """What may flow in from stage ``first`` on, stage after stage.

    Attributes:
        first: Stage of the roots; there may be several, since the inflow of a stage is known before it is dispatched.
        parent: int64[N], -1 for roots; nodes of a stage follow those of the stage before.
        stage: int64[N].
        inflow: float64[N, n], m3/s.
        probability: float64[N]; those of a stage sum to 1.
    """

    first: int
    parent: Integers
    stage: Integers
    inflow: Floats
    probability: Floats


def inflow_tree(instance: HydrothermalInstance, first: int = 0, *, largest: int | None = None) -> InflowTree:
    """Every history of inflows from stage ``first`` to the end.

    Raises:
        InputError: More nodes than ``largest``; the message tells how many there are.
    """
    stages = range(first, instance.horizon)
    if not 0 <= first < instance.horizon:
        raise InputError("no such stage", field="first", value=first, expected=f"0..{instance.horizon - 1}")
    tables = [openings(instance, stage) for stage in stages]
    counts = np.cumprod([float(len(chance)) for _, chance in tables])
    if largest is not None and counts.sum() > largest:
        raise InputError(
            "the tree of inflows is too large for one linear programme",
            source=instance.name,
            field="horizon",
            value=f"{counts.sum():.3g} nodes",
            expected=f"at most {largest} nodes (fewer stages or columns, or SDDP)",
        )
    parent, chance, offset = np.array([-1]), np.ones(1), 0
    parents, inflows, chances = [], [], []
    for inflow, probability in tables:
        n_openings = len(probability)
        parents.append(np.repeat(parent, n_openings))
        inflows.append(np.tile(inflow, (len(parent), 1)))
        chance = np.outer(chance, probability).ravel()
        chances.append(chance)
        parent = offset + np.arange(len(chance))
        offset += len(chance)
    stage = np.repeat(np.array(stages), [len(chance) for chance in chances])
    return InflowTree(first, np.concatenate(parents), stage, np.concatenate(inflows), np.concatenate(chances))


def path_tree(inflows: npt.ArrayLike) -> InflowTree:
    """The tree of one path of inflows float64[T, n]."""
    path = np.asarray(inflows, np.float64)
    return InflowTree(0, np.arange(-1, len(path) - 1), np.arange(len(path)), path, np.ones(len(path)))


@dataclass(frozen=True, eq=False)
class TreeSolution:
    """The optimum over a tree.

    Attributes:
        cost: Expected cost in USD for each hour of a stage, summed over the stages.
        values: float64[N, V], the variables of every node, ordered as in the stage model.
    """

    cost: float
    values: Floats


class TreeProgramme:
    """The linear programme of a tree of inflows, kept in HiGHS, so that another start or other inflows start warm.

    Args:
        instance: The problem.
        tree: Its inflows from a stage on.
        volume: float64[n], volumes before the first stage; those of the instance unless given.
        stop: Asked often while HiGHS works; True ends the solve.

    Raises:
        InputError: More than two million columns.
    """

    def __init__(
        self,
        instance: HydrothermalInstance,
        tree: InflowTree,
        volume: npt.ArrayLike | None = None,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.instance, self.tree = instance, tree
        self.block = stage_model(instance, tree.first, "storage")
        n_nodes, (self.n_rows, self.n_block) = len(tree.parent), self.block.matrix.shape
        if n_nodes * self.n_block > LARGEST_PROGRAMME:
            raise InputError(
                "too many columns for one linear programme",
                source=instance.name,
                value=n_nodes * self.n_block,
                expected=f"at most {LARGEST_PROGRAMME} (fewer stages or inflow columns, or SDDP)",
            )
        # Costs are weighed by small probabilities; HiGHS judges duals absolutely, so they are blown up again.
        self.scale = 1 / float(np.sqrt(tree.probability.min()))
        self.highs = new_highs()
        # The default of 1e-7 would leave 7e-6 of the cost of ten thousand nodes on the table.
        self.highs.setOptionValue("dual_feasibility_tolerance", DUAL_TOLERANCE)
        pass_model(self.highs, self._model())
        if stop is not None:
            self.highs.cbSimplexInterrupt += lambda event: event.interrupt() if stop() else None
        self.set_water(tree.inflow, instance.initial_volume if volume is None else volume)

    def set_water(self, inflow: npt.ArrayLike, volume: npt.ArrayLike) -> None:
        """Other inflows float64[N, n] of the nodes, in m3/s, and volumes float64[n] before the first stage."""
        rhs = np.asarray(inflow, np.float64) * self.instance.water_factor
        rhs = rhs + np.where((self.tree.parent < 0)[:, None], np.asarray(volume, np.float64), 0.0)
        for node, water in enumerate(rhs.tolist()):
            for i, value in enumerate(water):
                self.highs.changeRowBounds(node * self.n_rows + i, value, value)

    def solve(self, *, time_limit: float | None = None) -> TreeSolution | None:
        """The optimum; None after ``time_limit`` seconds without one, or when ``stop`` said yes.

        Raises:
            StageError: There is no optimum.
        """
        highs = self.highs
        highs.setOptionValue("time_limit", highspy.kHighsInf if time_limit is None else highs.getRunTime() + time_limit)
        highs.run()
        state = highs.getModelStatus()
        if state in (highspy.HighsModelStatus.kTimeLimit, highspy.HighsModelStatus.kInterrupt):
            return None
        if state != OPTIMAL:
            run_again(highs, f"{self.instance.name} over {len(self.tree.parent)} nodes")
        cost = float(highs.getObjectiveValue()) / (COST_SCALE * self.scale)
        values = np.array(highs.getSolution().col_value).reshape(-1, self.n_block)
        return TreeSolution(cost, values)

    def _model(self) -> StageModel:
        instance, tree, block = self.instance, self.tree, self.block
        n_nodes, volume = len(tree.parent), self.block.columns["volume"]
        child = np.flatnonzero(tree.parent >= 0)
        plant = np.arange(instance.n_plants)
        rows = child[:, None] * self.n_rows + plant
        columns = tree.parent[child][:, None] * self.n_block + volume.start + plant
        shape = (n_nodes * self.n_rows, n_nodes * self.n_block)
        links = sparse.csr_array((np.full(rows.size, -1.0), (rows.ravel(), columns.ravel())), shape=shape)
        matrix = sparse.csr_array(sparse.kron(sparse.eye_array(n_nodes), block.matrix, format="csr") + links)
        stages = {int(stage): stage_model(instance, int(stage), "storage") for stage in np.unique(tree.stage)}
        lower = np.concatenate([stages[stage].row_lower for stage in tree.stage.tolist()])
        upper = np.concatenate([stages[stage].row_upper for stage in tree.stage.tolist()])
        costs = (np.multiply.outer(tree.probability * self.scale, block.costs)).ravel()
        least, most = np.tile(block.lower, n_nodes), np.tile(block.upper, n_nodes)
        return StageModel(costs, least, most, matrix, lower, upper, {}, {})

    def __reduce__(self) -> Any:
        raise TypeError("a programme inside HiGHS belongs to one process; build it again from its instance and tree")


def tree_cost(instance: HydrothermalInstance, stage: int = 0, volume: npt.ArrayLike | None = None) -> float:
    """Least expected cost in USD from the start of a stage on, over all histories of inflow: exact.

    Args:
        instance: The problem.
        stage: Stage from 0, its inflow not yet known.
        volume: float64[n], hm3 before the stage; those of the instance unless given.

    Raises:
        InputError: The tree is too large.

    >>> from orl.envs.hydrothermal.library import load
    >>> instance = load("tri3").with_horizon(3)
    >>> tree_cost(instance, 2, [0, 0, 0]) > tree_cost(instance, 2, [200, 20, 80])
    True
    """
    n_block = len(stage_model(instance, stage, "storage").costs)
    tree = inflow_tree(instance, stage, largest=LARGEST_PROGRAMME // n_block)
    solution = TreeProgramme(instance, tree, volume).solve()
    assert solution is not None  # there was no time limit
    return solution.cost
