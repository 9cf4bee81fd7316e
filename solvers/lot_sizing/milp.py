"""The lot-sizing model as one sparse mixed-integer programme over a tree of demand, built by numpy and read by HiGHS.

A *tree* of demand covers every model of this room: a chain is a known demand path (perfect information, or a window of
expected demand), a root with many chains the two-stage sample average, more branchings the multistage tree. Node 0 is
now. Every node that has children takes a decision, which is the same whatever child follows: a policy cannot look
ahead. Period by period the programme says, for machine m, item i, a decision at node k and its child n:

    minimise  sum_k p_k sum f y  +  sum_n p_n sum (rho lost + h stock + beta backlog)
    inventory_n = inventory_k + sum_m (P x_k - L y_k) - demand_n + lost_n - discarded_n
    sum_i x_k[m, i] <= 1,    y_k >= x_k - x_before,  y_k <= x_k,  y_k <= 1 - x_before

``x`` (binary): the machine runs the item; ``y``: it changes over to it. ``y`` is held from above, too, since a change
that loses units could pay (they cost no holding later). Machines whose costs or losses depend on the item before get
one flow variable for each pair of items instead, from the set-up before to the set-up now.

The *exact* form adds a binary for each node and item where the stock could pass its limit: units are discarded only
when the stock is full; without it, getting rid of stock is free and saves holding cost. With backlog a second binary
loses demand only at the largest backlog. The *relaxed* form leaves both out: faster, its optimum a lower bound only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import highspy
import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse

from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance

LARGEST_DENOMINATOR = 10**6
FEASIBILITY = 1e-9


@dataclass(frozen=True, eq=False)
class DemandTree:
    """What demand may do from now on.

    Attributes:
        parent: int64[N], the node before, smaller than the node itself; -1 for node 0, which is now.
        demand: float64[N, I], units in the period that ends at the node (row 0 is not read).
        probability: float64[N], of reaching the node.
    """

    parent: Integers
    demand: Floats
    probability: Floats

    @property
    def decisions(self) -> Integers:
        """The nodes that have children, in increasing order: int64[K], the first is node 0."""
        return np.unique(self.parent[1:])


def chain(demand: npt.ArrayLike) -> DemandTree:
    """A path of demand, float64[T, I], as a tree.

    >>> chain([[1, 0], [2, 1]]).parent.tolist()
    [-1, 0, 1]
    """
    path = np.asarray(demand, np.float64)
    rows = np.concatenate([np.zeros((1, path.shape[1])), path])
    return DemandTree(np.arange(-1, len(path)), rows, np.ones(len(rows)))


@dataclass(frozen=True, eq=False)
class Programme:
    """Minimise ``cost @ v`` subject to ``row_lower <= matrix @ v <= row_upper``, ``lower <= v <= upper``.

    Attributes:
        cost: float64[V].
        lower: float64[V] and
        upper: float64[V].
        integer: bool[V].
        matrix: float64[R, V], by rows.
        row_lower: float64[R] and
        row_upper: float64[R].
        columns: Column of each variable by name, -1 where there is none: ``x`` int64[K, M, I], ``y`` int64[K, M, I],
            ``flow`` int64[K, M, I + 1, I], ``stock``, ``backlog``, ``lost``, ``discarded``, ``full`` and ``short``
            int64[N, I]; K decisions, N nodes.
        tree: The tree that it was built for.
    """

    cost: Floats
    lower: Floats
    upper: Floats
    integer: npt.NDArray[np.bool_]
    matrix: sparse.csr_array
    row_lower: Floats
    row_upper: Floats
    columns: dict[str, Integers]
    tree: DemandTree

    @property
    def n_columns(self) -> int:
        """V."""
        return len(self.cost)

    def actions(self, values: npt.ArrayLike) -> Integers:
        """What every decision of the tree does in a solution float64[V]: int64[K, M], 0 idle."""
        x = self.columns["x"]
        running = np.where(x >= 0, np.asarray(values, np.float64)[x], 0.0)
        return np.where(running.max(-1, initial=0.0) > 0.5, running.argmax(-1) + 1, 0)


def build(
    instance: LotSizingInstance,
    tree: DemandTree,
    inventory: npt.ArrayLike,
    setup: npt.ArrayLike,
    *,
    exact: bool = True,
) -> Programme:
    """The programme of an instance from a state on.

    Args:
        instance: The problem.
        tree: Demand; units may be fractions (expected demand).
        inventory: float64[I], the stock now.
        setup: int64[M], what the machines are set up for now, 0 idle.
        exact: Discard only above the limit (see above); False: a relaxation with fewer binaries.
    """
    return _Builder(instance, tree, np.asarray(inventory, np.float64), np.asarray(setup, np.int64)).build(exact)


def changes_alike(instance: LotSizingInstance, m: int) -> bool:
    """Whether changing machine ``m`` to an item costs and loses the same from every other set-up it can have."""
    items = np.flatnonzero(instance.production[m] > 0)
    before = np.union1d(np.concatenate([[0], items + 1]), [instance.initial_setup[m]])
    loss = np.minimum(instance.setup_loss[m], instance.production[m])
    for table in (instance.setup_costs[m], loss):
        for i in items:
            others = table[before[before != i + 1], i]
            if (others != others[0]).any():
                return False
    return True


class _Builder:
    """Collects columns and rows, each as blocks of arrays."""

    def __init__(self, instance: LotSizingInstance, tree: DemandTree, inventory: Floats, setup: Integers) -> None:
        self.instance, self.tree, self.inventory, self.setup = instance, tree, inventory, setup
        self.decisions = tree.decisions
        self.position = np.full(len(tree.parent), -1)
        self.position[self.decisions] = np.arange(len(self.decisions))
        self.made = instance.production > 0  # [M, I]
        loss = np.minimum(instance.setup_loss, instance.production[:, None, :])
        self.loss = np.where(self.made[:, None, :], loss, 0)  # [M, I + 1, I]
        self.by_pair = ~np.array([changes_alike(instance, m) for m in range(instance.n_machines)], bool)
        self.n_columns = self.n_rows = 0
        self.column_blocks: list[tuple[Any, ...]] = []
        self.entries: list[tuple[Any, Any, Any]] = []
        self.row_blocks: list[tuple[Any, Any]] = []
        self.columns: dict[str, Integers] = {}

    def build(self, exact: bool) -> Programme:
        self._add_decisions()
        self._add_changes()
        self._add_inventory(exact)
        cost, lower, upper, integer = (np.concatenate(c) for c in zip(*self.column_blocks, strict=True))
        rows, columns, values = (np.concatenate(c) for c in zip(*self.entries, strict=True))
        row_lower, row_upper = (np.concatenate(c) for c in zip(*self.row_blocks, strict=True))
        matrix = sparse.csr_array((values, (rows, columns)), shape=(self.n_rows, self.n_columns))
        return Programme(cost, lower, upper, integer, matrix, row_lower, row_upper, self.columns, self.tree)

    # ---- Columns and rows in blocks ----------------------------------------------------------------------------------
    def _column(self, name: str, where: Any, cost: Any, lower: Any, upper: Any, integer: Any = False) -> Integers:
        """New columns where ``where`` holds; the other arguments broadcast to its shape."""
        where = np.asarray(where, bool)
        columns = np.full(where.shape, -1)
        count = int(where.sum())
        columns[where] = self.n_columns + np.arange(count)
        self.n_columns += count
        parts = (np.broadcast_to(part, where.shape)[where] for part in (cost, lower, upper, integer))
        self.column_blocks.append(tuple(p.astype(t) for p, t in zip(parts, (float, float, float, bool), strict=True)))
        self.columns[name] = columns
        return columns

    def _rows(self, where: Any, lower: Any, upper: Any, *terms: tuple[Any, Any]) -> Integers:
        """New rows where ``where`` holds; a term is (columns, values) in that shape; columns -1 are left out."""
        where = np.asarray(where, bool)
        rows = np.full(where.shape, -1)
        count = int(where.sum())
        rows[where] = self.n_rows + np.arange(count)
        self.n_rows += count
        bounds = (np.broadcast_to(bound, where.shape)[where].astype(float) for bound in (lower, upper))
        self.row_blocks.append(tuple(bounds))
        for columns, values in terms:
            self._entries(rows, columns, values)
        return rows

    def _entries(self, rows: Any, columns: Any, values: Any) -> None:
        rows, columns, values = np.broadcast_arrays(rows, columns, values)
        kept = (rows >= 0) & (columns >= 0) & (values != 0)
        self.entries.append((rows[kept], columns[kept], values[kept].astype(float)))

    # ---- The model ---------------------------------------------------------------------------------------------------
    def _add_decisions(self) -> None:
        """``x`` with the costs of node 0, where the set-up before is known."""
        instance, n = self.instance, len(self.decisions)
        machine = np.arange(instance.n_machines)
        cost = np.zeros((n, *self.made.shape))
        cost[0] = instance.setup_costs[machine, self.setup]
        where = np.broadcast_to(self.made, cost.shape)
        x = self._column("x", where, cost, 0, 1, True)
        capacity = self._rows(np.broadcast_to(self.made.any(1), (n, len(machine))), -np.inf, 1)
        self._entries(capacity[..., None], x, 1)

    def _add_changes(self) -> None:
        instance, x = self.instance, self.columns["x"]
        n, n_machines, _ = x.shape
        before = self.position[self.tree.parent[self.decisions]]  # the decision before; node 0 has none
        later = np.arange(n) > 0
        chance = self.tree.probability[self.decisions][:, None, None]
        x_before = np.where(later[:, None, None], x[before], -1)

        costs, losses = instance.setup_costs[:, 0, :], self.loss[:, 0, :]  # from idle: for machines where all are alike
        alike = self.made & ~self.by_pair[:, None]
        wanted = later[:, None, None] & (alike & ((costs > 0) | (losses > 0)))
        y = self._column("y", wanted, chance * costs, 0, 1)
        self._rows(wanted, 0, np.inf, (y, 1), (x, -1), (x_before, 1))
        held = wanted & (losses > 0)
        self._rows(held, -np.inf, 0, (y, 1), (x, -1))
        self._rows(held, -np.inf, 1, (y, 1), (x_before, 1))

        usable = np.concatenate([np.ones((n_machines, 1), bool), self.made], axis=1)  # set-ups 0..I
        pairs = self.by_pair[:, None, None] & usable[:, :, None] & self.made[:, None, :]
        wanted = later[:, None, None, None] & pairs
        flow = self._column("flow", wanted, chance[..., None] * instance.setup_costs, 0, 1)
        arrive = self._rows(wanted.any(2), 0, 0, (x, -1))
        self._entries(arrive[:, :, None, :], flow, 1)
        leave = self._rows(wanted[:, :, 1:].any(3), -np.inf, 0, (x_before, -1))
        self._entries(leave[..., None], flow[:, :, 1:], 1)
        idle = self._rows(wanted[:, :, 0].any(2), -np.inf, 1)  # what leaves idle: 1 - sum of x before
        self._entries(idle[..., None], flow[:, :, 0], 1)
        self._entries(idle[..., None], x_before, 1)

    def _add_inventory(self, exact: bool) -> None:
        instance, tree = self.instance, self.tree
        least, most, most_lost, most_discarded = self._reach()
        chance = tree.probability[:, None]
        after = np.zeros(least.shape, bool)
        after[1:] = True
        x = self.columns["x"]
        decision = np.where(after[:, 0], self.position[tree.parent], 0)
        first = decision == 0
        stock = self._column("stock", after, chance * instance.holding_costs, np.maximum(least, 0), np.maximum(most, 0))
        owed = np.maximum(-least, 0)
        backlog = self._column("backlog", after & (owed > 0), chance * instance.backlog_costs, 0, owed)
        lost = self._column("lost", after & (most_lost > 0), chance * instance.lost_sales_costs, 0, most_lost)
        discarded = self._column("discarded", after & (most_discarded > 0), 0.0, 0, most_discarded)

        previous = np.where(first[:, None], -1, stock[tree.parent])
        owed_before = np.where(first[:, None], -1, backlog[tree.parent])
        constant = np.where(first[:, None], self.inventory, 0.0) - tree.demand
        balance = self._rows(
            after, constant, constant, (stock, 1), (backlog, -1), (previous, -1), (owed_before, 1), (lost, -1)
        )
        self._entries(balance, discarded, 1)
        rows = balance[:, None, :]  # [N, M, I]
        machine = np.arange(instance.n_machines)
        units = np.broadcast_to(instance.production.astype(float), (len(tree.parent), *self.made.shape)).copy()
        units[first] -= self.loss[machine, self.setup]
        self._entries(rows, x[decision], -units)
        self._entries(rows, self.columns["y"][decision], self.loss[:, 0, :])
        self._entries(rows[:, :, None, :], self.columns["flow"][decision], self.loss)
        if not exact:
            return
        limit = instance.max_inventory
        overflow = discarded >= 0
        full = self._column("full", overflow, 0.0, 0, 1, True)
        self._rows(overflow, -np.inf, 0, (discarded, 1), (full, -most_discarded))
        self._rows(overflow, least, np.inf, (stock, 1), (backlog, -1), (full, -(limit - least)))
        shortage = (lost >= 0) & (instance.max_backlog > 0)
        short = self._column("short", shortage, 0.0, 0, 1, True)
        self._rows(shortage, -np.inf, 0, (lost, 1), (short, -most_lost))
        self._rows(shortage, -np.inf, most, (stock, 1), (backlog, -1), (short, most + instance.max_backlog))

    def _reach(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Least and greatest inventory at every node, most lost and most discarded units: float64[N, I] each.

        Least: every machine idles; greatest: every machine makes the item. They hold on every real trajectory.
        """
        instance, tree = self.instance, self.tree
        low, high = -instance.max_backlog.astype(float), instance.max_inventory.astype(float)
        capacity = instance.production.sum(0)
        least, most = np.zeros_like(tree.demand), np.zeros_like(tree.demand)
        most_lost, most_discarded = np.zeros_like(tree.demand), np.zeros_like(tree.demand)
        least[0] = most[0] = self.inventory
        for n in range(1, len(tree.parent)):
            bottom, top = least[tree.parent[n]] - tree.demand[n], most[tree.parent[n]] + capacity - tree.demand[n]
            least[n], most[n] = np.clip(bottom, low, high), np.clip(top, low, high)
            most_lost[n], most_discarded[n] = np.maximum(low - bottom, 0), np.maximum(top - high, 0)
        return least, most, most_lost, most_discarded


# ---- HiGHS -----------------------------------------------------------------------------------------------------------
def load(programme: Programme, seed: int = 0, threads: int = 1) -> highspy.Highs:
    """A silent HiGHS that holds the programme."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("random_seed", seed % 2**31)
    highs.setOptionValue("threads", threads)
    for name in ("mip_feasibility_tolerance", "primal_feasibility_tolerance"):
        highs.setOptionValue(name, FEASIBILITY)  # big constants multiply it: at 1e-6 objectives are off by as much
    matrix = programme.matrix
    highs.passModel(
        programme.n_columns,
        matrix.shape[0],
        matrix.nnz,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        programme.cost,
        programme.lower,
        programme.upper,
        programme.row_lower,
        programme.row_upper,
        matrix.indptr.astype(np.int32),
        matrix.indices.astype(np.int32),
        matrix.data,
        programme.integer.astype(np.int32),
    )
    return highs


def cost_unit(*costs: npt.ArrayLike) -> Fraction | None:
    """The largest number of which all costs are multiples; None if there is none above 1e-6 (or no cost at all).

    >>> cost_unit([2.0, 0.5], [0.1])
    Fraction(1, 10)
    """
    values = np.unique(np.concatenate([np.asarray(c, np.float64).ravel() for c in costs]))
    unit = Fraction(0)
    for value in values[values != 0].tolist():
        exact = Fraction(value).limit_denominator(LARGEST_DENOMINATOR)
        if abs(float(exact) - value) > 4e-16 * abs(value):
            return None
        unit = Fraction(math.gcd(unit.numerator * exact.denominator, exact.numerator * unit.denominator)) / (
            unit.denominator * exact.denominator
        )
    return unit if unit >= Fraction(1, LARGEST_DENOMINATOR) else None
