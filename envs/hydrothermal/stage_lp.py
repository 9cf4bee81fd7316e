"""The stage programme on a HiGHS that stays alive: only right-hand sides change, so the simplex starts warm.

:func:`orl.envs.hydrothermal.stage_model.stage_model` states the programme. Four forms:

* ``strict``: volumes are data; the right-hand side of the water rows is ``volume before + K inflow - volume after``;
* ``storage``: volumes after the stage are variables; the right-hand side is ``volume before + K inflow``;
* ``future``: storage, and the cost of the future from below by cuts on the volumes after the stage;
* ``release``: the water turbined is data; the right-hand side, of the production rows, is the plants' power in MW.

The duals of the water rows are the derivatives of the cost by their right-hand side: what one more hm3 of water in a
reservoir is worth; at most 0 where spilling is free. In the release form read "production" for "water" in all that
follows: duals are USD per MW, for each hour of the stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import highspy
import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance
from orl.envs.hydrothermal.stage_model import COST_SCALE, StageModel, stage_model

Form = Literal["strict", "storage", "future", "release"]
FORMS: tuple[Form, ...] = get_args(Form)


class StageError(RuntimeError):
    """A stage programme without an optimum, even from a cold start and without presolve; the message holds its data."""


@dataclass(frozen=True, eq=False)
class Basis:
    """An optimal basis: int8[V] and int8[R], the codes of HiGHS (0 at lower bound, 1 basic, 2 at upper bound, 3 free).

    Rows count the same way, by their activity.
    """

    columns: npt.NDArray[np.int8]
    rows: npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class StageSolution:
    """An optimal dispatch of a stage.

    Attributes:
        cost: USD for each hour of the stage, the (discounted) future included in the future form.
        duals: float64[n], USD per hm3: derivative of the cost by the right-hand side of the water rows.
        primal: Values by name: ``power`` [G], ``deficit``, ``surplus``, ``angle`` [B], ``turbined``, ``spilled`` [n],
            ``flow`` [L], empty where the network has none (one bus on a copper plate); ``volume`` [n] in the storage
            and future forms; ``future`` [A] in USD in the future form.
        basis: The optimal basis.
    """

    cost: float
    duals: Floats
    primal: dict[str, Floats]
    basis: Basis


class StageLP:
    """One stage of an instance.

    Args:
        instance: The problem.
        stage: Stage from 0, for its demand.
        form: See above.
        future_weights: float64[A], in the future form: what the future costs of A kinds weigh in the objective
            (one kind of weight 1 unless told otherwise; the probabilities of the openings in a multicut method).
        future_bound: USD below which no future cost lies.

    Attributes:
        retries: Solves that did not end optimal at first and did after a cold start or without presolve.
        solves: Solves so far.

    A copy, or a pickled one in another process, starts cold and keeps the cuts.

    >>> from orl.envs.hydrothermal.library import load
    >>> lp = StageLP(load("tri3"))
    >>> dry, wet = lp.solve([0.0, 0.0, 0.0]), lp.solve([50.0, 50.0, 50.0])
    >>> bool(dry.cost > wet.cost and (dry.duals <= 0).all())
    True
    """

    def __init__(
        self,
        instance: HydrothermalInstance,
        stage: int = 0,
        form: Form = "strict",
        *,
        future_weights: npt.ArrayLike = (1.0,),
        future_bound: float = 0.0,
    ) -> None:
        if form not in FORMS:
            raise InputError("unknown form", field="form", value=form, expected=f"one of {FORMS}")
        self.name, self.stage, self.form, self.n = instance.name, stage, form, instance.n_plants
        self.model = stage_model(instance, stage, "storage" if form == "future" else form)
        self.future_weights = np.asarray(future_weights, np.float64) if form == "future" else np.zeros(0)
        self.future_bound = future_bound
        self.retries = self.solves = 0
        self._cut_slopes = np.zeros((0, self.n))
        self._cut_intercepts = np.zeros(0)
        self._cut_kinds = np.zeros(0, np.int64)
        self._highs: Any = None

    # ---- Solving -----------------------------------------------------------------------------------------------------
    def solve(self, rhs: npt.ArrayLike) -> StageSolution:
        """The optimum for a right-hand side float64[n] of the water rows, in hm3.

        Raises:
            StageError: No optimum, e.g. a volume that this much water cannot reach.
        """
        values, duals = self.run(rhs)
        found = self.highs.getBasis()
        basis = Basis(_codes(found.col_status), _codes(found.row_status))
        primal = {name: values[place] for name, place in self.model.columns.items()}
        if self.form == "future":
            primal["future"] = values[len(self.model.costs) :] / COST_SCALE
        return StageSolution(self.cost, duals, primal, basis)

    def run(self, rhs: npt.ArrayLike) -> tuple[Floats, Floats]:
        """The part of :meth:`solve` that loops need: values float64[V + A] and duals float64[n]; cost in ``cost``."""
        highs = self.highs
        water = np.asarray(rhs, np.float64)
        for i, value in enumerate(water.tolist()):
            highs.changeRowBounds(i, value, value)
        highs.run()
        self.solves += 1
        if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            self.retries += run_again(highs, f"stage {self.stage} of {self.name}, right-hand side {water}")
        solution = highs.getSolution()
        return np.array(solution.col_value), np.array(solution.row_dual[: self.n]) / COST_SCALE

    @property
    def cost(self) -> float:
        """Cost of the last solve, USD."""
        return float(self.highs.getObjectiveValue()) / COST_SCALE

    def costs_and_duals(self, rhs: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Costs float64[Q] and duals float64[Q, n] of right-hand sides float64[Q, n], solved one after the other."""
        queries = np.asarray(rhs, np.float64)
        costs, duals = np.empty(len(queries)), np.empty((len(queries), self.n))
        for q, query in enumerate(queries):
            duals[q] = self.run(query)[1]
            costs[q] = self.cost
        return costs, duals

    def restart(self) -> None:
        """Forget the last basis: where several optima exist, the next solve no longer depends on those before."""
        if self._highs is not None:
            self._highs.clearSolver()

    # ---- Cuts --------------------------------------------------------------------------------------------------------
    @property
    def n_cuts(self) -> int:
        """Cuts in the programme."""
        return len(self._cut_intercepts)

    def add_cuts(self, intercepts: npt.ArrayLike, slopes: npt.ArrayLike, kinds: npt.ArrayLike = 0) -> None:
        """Say that ``future cost >= intercept + slope @ volume``; the basis is kept.

        Args:
            intercepts: float64[C], USD.
            slopes: float64[C, n], USD per hm3.
            kinds: int64[C], which future cost.
        """
        if self.form != "future":
            raise InputError("cuts need a future", field="form", value=self.form, expected="future")
        intercepts, slopes = np.atleast_1d(np.asarray(intercepts, np.float64)), np.atleast_2d(slopes)
        kinds = np.broadcast_to(np.asarray(kinds, np.int64), intercepts.shape)
        self._cut_intercepts = np.concatenate([self._cut_intercepts, intercepts])
        self._cut_slopes = np.concatenate([self._cut_slopes, slopes])
        self._cut_kinds = np.concatenate([self._cut_kinds, kinds])
        if self._highs is not None:
            self._pass_cuts(self._highs, intercepts, slopes, kinds)

    def remove_cuts(self, positions: npt.ArrayLike) -> None:
        """Drop cuts int64[C] by their position in the order in which they were added, those dropped left out."""
        gone = np.unique(np.asarray(positions, np.int64))
        if not len(gone):
            return
        kept = np.setdiff1d(np.arange(self.n_cuts), gone)
        self._cut_intercepts, self._cut_slopes = self._cut_intercepts[kept], self._cut_slopes[kept]
        self._cut_kinds = self._cut_kinds[kept]
        if self._highs is not None:
            first = len(self.model.row_lower)
            self._highs.deleteRows(len(gone), (gone + first).astype(np.int32))

    # ---- HiGHS -------------------------------------------------------------------------------------------------------
    @property
    def highs(self) -> Any:
        """The HiGHS object, built when it is first needed; it belongs to one process and one thread."""
        if self._highs is None:
            self._highs = self._build()
        return self._highs

    def _build(self) -> highspy.Highs:
        highs = new_highs()
        model, n_futures = self.model, len(self.future_weights)
        pass_model(highs, model)
        for weight in self.future_weights:
            highs.addCol(weight, self.future_bound * COST_SCALE, highspy.kHighsInf, 0, [], [])
        if n_futures and self.n_cuts:
            self._pass_cuts(highs, self._cut_intercepts, self._cut_slopes, self._cut_kinds)
        return highs

    def _pass_cuts(self, highs: highspy.Highs, intercepts: Floats, slopes: Floats, kinds: npt.NDArray[Any]) -> None:
        count, width = len(intercepts), self.n + 1
        volume = self.model.columns["volume"]
        index = np.empty((count, width), np.int32)
        index[:, :-1] = np.arange(volume.start, volume.stop)
        index[:, -1] = len(self.model.costs) + kinds
        value = np.concatenate([-slopes * COST_SCALE, np.ones((count, 1))], axis=1)
        starts = np.arange(0, count * width, width, dtype=np.int32)
        upper = np.full(count, highspy.kHighsInf)
        highs.addRows(count, intercepts * COST_SCALE, upper, count * width, starts, index.ravel(), value.ravel())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_highs": None}


def new_highs() -> highspy.Highs:
    """A silent HiGHS on one thread."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    return highs


def pass_model(highs: highspy.Highs, model: StageModel) -> None:
    """Give a programme to HiGHS."""
    matrix = model.matrix
    highs.passModel(
        matrix.shape[1],
        matrix.shape[0],
        matrix.nnz,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        model.costs,
        model.lower,
        model.upper,
        model.row_lower,
        model.row_upper,
        matrix.indptr.astype(np.int32),
        matrix.indices.astype(np.int32),
        matrix.data,
        np.zeros(matrix.shape[1], np.int32),
    )


def run_again(highs: Any, problem: str) -> int:
    """Solve once more what a warm start did not: cold, then cold without presolve; returns the tries it took.

    Raises:
        StageError: No optimum either way; the message names ``problem`` and the verdict.
    """
    tries = 0
    for presolve in ("choose", "off"):
        highs.clearSolver()
        highs.setOptionValue("presolve", presolve)
        highs.run()
        tries += 1
        verdict = highs.getModelStatus()
        if verdict == highspy.HighsModelStatus.kOptimal:
            break
    highs.setOptionValue("presolve", "choose")
    if verdict != highspy.HighsModelStatus.kOptimal:
        raise StageError(f"{problem}: no optimum, HiGHS says {getattr(verdict, 'name', verdict)}")
    return tries


def _codes(statuses: Any) -> npt.NDArray[np.int8]:
    return np.fromiter(map(int, statuses), np.int8, len(statuses))
