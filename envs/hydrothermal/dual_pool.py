"""Stage costs by table: optimal bases of the strict stage programme, found once and looked up in batches.

In the strict form the stages of one demand differ in the n right-hand sides r of their water rows only, so the cost is
one convex, piecewise linear function of r. An optimal basis k gives basic variables ``x = a_k + M_k r``, constant
duals ``y_k`` and the value ``o_k + y_k @ r``. The basis stays dual feasible for every r, so each value is a lower bound
on the cost everywhere, and the cost itself wherever x lies within its bounds. Hence

    cost(r) >= max_k o_k + y_k @ r,    with equality where the maximal basis passes the test on x.

A compiled loop finds the maximum and makes the test; queries that fail it are solved by
:class:`orl.envs.hydrothermal.stage_lp.StageLP`, and their bases join the pool. This is parametric programming (T. Gal,
"Postoptimal analyses, parametric programming, and related topics", 1995), done only where queries fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.pool_kernel import look_up
from orl.envs.hydrothermal.stage_lp import Basis, StageLP
from orl.envs.hydrothermal.stage_model import COST_SCALE, StageModel

TOLERANCE = 1e-7  # of bounds on basic variables, as in HiGHS
SAME_VALUE = 1e-7  # relative: a pool value that the programme confirms
DIGITS = 9  # decimals in which duals and values (in thousands) of bases with the same function agree
EVICTED = 0.25  # share of the bases that leave when the pool is full


@dataclass
class PoolCounts:
    """What a pool did so far.

    Attributes:
        queries: Right-hand sides asked for.
        solved: Programmes solved, i.e. queries that no basis of the pool answered.
        false_misses: Solved programmes whose value the pool had right already (its basis was another of the optimal).
        rejected: Bases that do not fit into the pool (a water row is basic in them).
        evicted: Bases that had to leave.
    """

    queries: int = 0
    solved: int = 0
    false_misses: int = 0
    rejected: int = 0
    evicted: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the queries that were looked up; 0 before the first."""
        return 1 - self.solved / self.queries if self.queries else 0.0


class DualPool:
    """Costs and duals of the strict stage programmes of an instance, for batches of right-hand sides.

    Args:
        instance: The problem; stages with equal demand share a table.
        size: Bases that a table may hold; the least recently used leave.
        certify: False: answer from the table alone, a lower bound of the cost, where there is any basis at all.
        form: ``release``: right-hand sides are the plants' power in MW, see :mod:`orl.envs.hydrothermal.stage_lp`.

    The answers depend on the queries before only where several duals are optimal, and there in a reproducible way.

    >>> from orl.envs.hydrothermal.library import load
    >>> pool = DualPool(load("tri3"))
    >>> rhs = np.random.default_rng(0).uniform(0, 80, (500, 3))
    >>> costs, duals = pool.costs_and_duals(rhs)
    >>> bool(np.allclose(costs, StageLP(load("tri3")).costs_and_duals(rhs)[0])), pool.counts.solved < 50
    (True, True)
    """

    def __init__(
        self,
        instance: HydrothermalInstance,
        *,
        size: int = 4096,
        certify: bool = True,
        form: Literal["strict", "release"] = "strict",
    ) -> None:
        if size < 1:
            raise InputError("a pool needs room", field="size", value=size, expected=">= 1")
        self.certify, self.counts = certify, PoolCounts()
        rows, first, table = np.unique(instance.demand, axis=0, return_index=True, return_inverse=True)
        self._table_of_row: Integers = table.reshape(-1)
        self._tables = [_Table(StageLP(instance, int(first[k]), form), size, self.counts) for k in range(len(rows))]

    @property
    def n_bases(self) -> int:
        """Bases held now."""
        return sum(table.n_bases for table in self._tables)

    @property
    def n_functions(self) -> int:
        """Distinct affine functions held now; several bases may share one."""
        return sum(table.n_functions for table in self._tables)

    @property
    def retries(self) -> int:
        """Programmes that HiGHS solved only at a second try."""
        return sum(table.lp.retries for table in self._tables)

    def costs_and_duals(self, rhs: npt.ArrayLike, stages: npt.ArrayLike = 0) -> tuple[Floats, Floats]:
        """Costs and their derivatives.

        Args:
            rhs: float64[..., n], hm3: volume before + K inflow - volume after.
            stages: int64[...], stage of each right-hand side (or one for all).

        Returns:
            Costs float64[...], USD for each hour of a stage, and duals float64[..., n], USD per hm3.

        Raises:
            StageError: A right-hand side that no dispatch meets.
        """
        queries = np.asarray(rhs, np.float64)
        batch = queries.reshape(-1, queries.shape[-1])
        self.counts.queries += len(batch)
        if len(self._tables) == 1:
            costs, duals = self._tables[0].answer(batch, self.certify)
        else:
            tables = self._table_of_row[np.asarray(stages, np.int64) % len(self._table_of_row)]
            tables = np.broadcast_to(tables, queries.shape[:-1]).ravel()
            costs, duals = np.empty(len(batch)), np.empty(batch.shape)
            for k in np.unique(tables).tolist():
                asked = np.flatnonzero(tables == k)
                costs[asked], duals[asked] = self._tables[k].answer(batch[asked], self.certify)
        return costs.reshape(queries.shape[:-1]), duals.reshape(queries.shape)

    def gap(self, rhs: npt.ArrayLike, stages: npt.ArrayLike = 0) -> float:
        """Largest relative gap between exact costs, solved now, and the table alone: what ``certify=False`` risks."""
        queries = np.asarray(rhs, np.float64)
        batch = queries.reshape(-1, queries.shape[-1])
        rows = np.broadcast_to(np.asarray(stages, np.int64), queries.shape[:-1]).ravel() % len(self._table_of_row)
        worst = 0.0
        for row, query in zip(rows.tolist(), batch, strict=True):
            table = self._tables[self._table_of_row[row]]
            exact = float(table.lp.costs_and_duals(query[None])[0][0])
            value = float(table.answer(query[None], False)[0][0])
            worst = max(worst, (exact - value) / max(abs(exact), 1.0))
        return worst


class _Table:
    """The bases of one programme, in arrays with room to grow; costs in thousands of dollars, as the programme counts.

    Basis k belongs to the affine function ``function[k]``. Of its basic variables it keeps those that move with r and
    have a limit; the arrays are those of :func:`orl.envs.hydrothermal.pool_kernel.look_up`.
    """

    def __init__(self, lp: StageLP, size: int, counts: PoolCounts) -> None:
        self.lp, self.size, self.counts = lp, size, counts
        self.clock = 0
        self._dense = lp.model.matrix.toarray()
        self._clear()

    def _clear(self) -> None:
        self.n_functions = self.n_bases = 0
        self.gradients, self.offsets = np.empty((self.lp.n, 64)), np.empty(64)
        self.first: Integers = np.empty(64, np.int64)
        self.function, self.following, self.used = np.empty((3, 64), np.int64)
        self.starts: Integers = np.zeros(65, np.int64)
        self.slopes, self.lower, self.upper = np.empty(64 * self.lp.n), np.empty(64), np.empty(64)
        self.known: dict[bytes, int] = {}  # functions by their rounded numbers

    def answer(self, queries: Floats, certify: bool) -> tuple[Floats, Floats]:
        """Costs float64[Q] in USD and duals float64[Q, n] in USD per hm3."""
        self.clock += 1
        costs, duals = np.empty(len(queries)), np.empty(queries.shape)
        certified = np.zeros(len(queries), bool)
        if self.n_functions:
            best = np.empty(len(queries), np.int64)
            look_up(
                np.ascontiguousarray(queries),
                self.n_functions,
                self.gradients,
                self.offsets,
                self.first,
                self.following,
                self.starts[: self.n_bases + 1],
                self.slopes,
                self.lower,
                self.upper,
                self.used,
                self.clock,
                certify,
                costs,
                best,
                certified,
            )
            duals[:] = self.gradients.T[best]
        else:
            costs[:] = -np.inf
        if certify or not self.n_functions:
            self._solve(queries, np.flatnonzero(~certified), costs, duals)
        return costs / COST_SCALE, duals / COST_SCALE

    def _solve(self, queries: Floats, open_: Integers, costs: Floats, duals: Floats) -> None:
        """Solve the first of the open queries; its basis may answer others; and so on."""
        while len(open_):
            q = open_[0]
            solution = self.lp.solve(queries[q])
            self.counts.solved += 1
            value = solution.cost * COST_SCALE
            self.counts.false_misses += bool(abs(value - costs[q]) <= SAME_VALUE * max(abs(value), COST_SCALE))
            costs[q], duals[q] = value, solution.duals * COST_SCALE
            open_ = open_[1:]
            k = self._add(solution.basis)
            if k is not None and len(open_):
                rows = slice(self.starts[k], self.starts[k + 1])
                slopes = self.slopes[rows.start * self.lp.n : rows.stop * self.lp.n].reshape(self.lp.n, -1)
                x = queries[open_] @ slopes
                fits = ((x >= self.lower[rows]) & (x <= self.upper[rows])).all(1)
                hit, f = open_[fits], self.function[k]
                duals[hit] = self.gradients[:, f]
                costs[hit] = queries[hit] @ self.gradients[:, f] + self.offsets[f]
                open_ = open_[~fits]

    def _add(self, basis: Basis) -> int | None:
        """The position of a new basis; None if it does not fit into the pool."""
        if (basis.rows[: self.lp.n] == 1).any():
            self.counts.rejected += 1
            return None
        slopes, constants, lower, upper, dual, offset = affine(self.lp.model, self._dense, basis, self.lp.n)
        numbers = np.round(np.append(dual, offset), DIGITS) + 0.0
        if self.n_bases >= self.size:
            self._evict()
        f = self.known.get(numbers.tobytes())
        if f is None:
            f = self.known[numbers.tobytes()] = self.n_functions
            if f == len(self.offsets):
                self.gradients = np.concatenate([self.gradients, np.empty_like(self.gradients)], axis=1)
                self.offsets, self.first = _twice(self.offsets), _twice(self.first)
            self.gradients[:, f], self.offsets[f], self.first[f] = dual, offset, -1
            self.n_functions += 1
        moving = (slopes != 0).any(1) & (np.isfinite(lower) | np.isfinite(upper))
        return self._append(
            slopes[moving].T.ravel(),
            (lower - constants - TOLERANCE)[moving],
            (upper - constants + TOLERANCE)[moving],
            f,
            self.clock,
        )

    def _append(self, slopes: Floats, lower: Floats, upper: Floats, f: int, used: int) -> int:
        """A new first basis of function ``f``; ``slopes`` float64[n * m] and limits float64[m] of its m rows."""
        k, n = self.n_bases, self.lp.n
        if k == len(self.used):
            self.function, self.following, self.used = map(_twice, (self.function, self.following, self.used))
            self.starts = np.append(self.starts, np.zeros_like(self.starts))
        begin = int(self.starts[k])
        end = begin + len(lower)
        while end > len(self.lower):
            self.slopes, self.lower, self.upper = _twice(self.slopes), _twice(self.lower), _twice(self.upper)
        self.slopes[begin * n : end * n], self.lower[begin:end], self.upper[begin:end] = slopes, lower, upper
        self.starts[k + 1], self.function[k], self.used[k] = end, f, used
        self.following[k], self.first[f] = self.first[f], k
        self.n_bases += 1
        return k

    def _evict(self) -> None:
        """Drop the bases that were not used for longest, and functions without any; the others keep their order."""
        keep = max(self.size - max(int(EVICTED * self.size), 1), 0)
        kept = np.sort(np.argsort(-self.used[: self.n_bases], kind="stable")[:keep])
        self.counts.evicted += self.n_bases - keep
        function, used, starts, n = self.function, self.used, self.starts, self.lp.n
        slopes, lower, upper, gradients, offsets = self.slopes, self.lower, self.upper, self.gradients, self.offsets
        names = {f: numbers for numbers, f in self.known.items()}
        self._clear()
        functions = np.unique(function[kept])
        while len(self.offsets) < len(functions):
            self.gradients = np.concatenate([self.gradients, np.empty_like(self.gradients)], axis=1)
            self.offsets, self.first = _twice(self.offsets), _twice(self.first)
        self.n_functions = len(functions)
        self.gradients[:, : len(functions)], self.offsets[: len(functions)] = (
            gradients[:, functions],
            offsets[functions],
        )
        self.first[: len(functions)] = -1
        self.known = {names[f]: place for place, f in enumerate(functions.tolist())}
        for k in kept.tolist():
            begin, end = int(starts[k]), int(starts[k + 1])
            f = int(np.searchsorted(functions, function[k]))
            self._append(slopes[begin * n : end * n], lower[begin:end], upper[begin:end], f, int(used[k]))


def _twice(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array with as much room again behind it."""
    return np.concatenate([array, np.empty_like(array)])


def affine(
    model: StageModel, matrix: Floats, basis: Basis, n: int
) -> tuple[Floats, Floats, Floats, Floats, Floats, float]:
    """A basis as functions of the right-hand side r float64[n] of the water rows; ``matrix`` is the model's, dense.

    Returns:
        Slopes float64[R, n] and constants float64[R] of the basic variables (columns, then rows by their activity),
        their lower and upper bounds float64[R], and the cost: slopes float64[n] and its constant, in the units of the
        model.
    """
    n_rows = len(matrix)
    basic, basic_rows = np.flatnonzero(basis.columns == 1), np.flatnonzero(basis.rows == 1)
    at_upper = basis.columns == 2
    value = np.where(at_upper, model.upper, np.where(basis.columns == 3, 0.0, model.lower))
    value[basic] = 0.0
    activity = np.where(basis.rows == 2, model.row_upper, model.row_lower)
    activity[basic_rows] = 0.0
    activity[:n] = 0.0
    slack = np.zeros((n_rows, len(basic_rows)))
    slack[basic_rows, np.arange(len(basic_rows))] = -1.0
    right = np.zeros((n_rows, n + 1))
    right[np.arange(n), np.arange(n)] = 1.0
    right[:, n] = activity - matrix @ value
    solved = np.linalg.solve(np.concatenate([matrix[:, basic], slack], axis=1), right)
    solved[np.abs(solved) < 1e-13] = 0.0
    costs = np.concatenate([model.costs[basic], np.zeros(len(basic_rows))])
    slopes: Floats = solved[:, :n]
    lower = np.concatenate([model.lower[basic], model.row_lower[basic_rows]])
    upper = np.concatenate([model.upper[basic], model.row_upper[basic_rows]])
    return slopes, solved[:, n], lower, upper, costs @ slopes, float(costs @ solved[:, n] + model.costs @ value)
