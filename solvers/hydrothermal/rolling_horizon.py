"""Rolling horizon (model-predictive control): plan a window of stages, take the first decision, look again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.stage_model import COST_SCALE
from orl.envs.hydrothermal.water_balance import WaterBalance
from orl.solvers.hydrothermal.cut_rule import require_same_problem
from orl.solvers.hydrothermal.cuts import CutPool
from orl.solvers.hydrothermal.kept_basis import optimise, start_from
from orl.solvers.hydrothermal.myopic import energy_of_water
from orl.solvers.hydrothermal.rules import Decide
from orl.solvers.hydrothermal.scenario_tree import InflowTree, TreeProgramme
from orl.solvers.hydrothermal.sddp import SDDP

TIE = 1e-5
"""What storing water in the first stage is worth, of the most that it may ever save."""


def rolling_horizon(
    instance: HydrothermalInstance,
    *,
    window: int = 24,
    scenarios: int | None = None,
    terminal: SDDP | str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Decide:
    """The rule: one linear programme over the window, the inflow of its first stage known.

    With expected inflows it plans as if nothing were uncertain: it underrates the water that a dry season will need.
    With ``scenarios`` the programme branches once, after the first stage, into sampled paths, each with foresight of
    its own. Water left at the end of the window is worth nothing, so a window shorter than a season wastes it, unless
    ``terminal`` prices it. Without such prices, of plans that cost the same, one that stores water in the first stage
    is taken; there are many. Programmes stay in HiGHS, and every solve starts from the same basis: decisions are a
    function of stage, volumes and inflow.

    Args:
        instance: The problem.
        window: Stages planned, the present one included; fewer at the end of the horizon.
        scenarios: Paths in the fan, drawn anew for every stage by ``seed``; None: the expected inflow.
        terminal: Cuts that price the volumes at the end of the window: an SDDP policy of the problem, or a file that
            its ``save`` wrote with the usual options.
        seed: Of the fan.

    Raises:
        InputError: Options out of range; cuts of another problem.

    >>> from orl.envs.hydrothermal.library import load
    >>> decide = rolling_horizon(load("tri3"), window=3)
    >>> decide(np.array([0]), np.array([[100.0, 10.0, 40.0]]), np.array([[30.0, 10.0, 14.0]])).shape
    (1, 3)
    """
    if type(window) is not int or window < 1:
        raise InputError("bad window", field="window", value=window, expected="an integer >= 1")
    if scenarios is not None and (type(scenarios) is not int or scenarios < 1):
        raise InputError("bad fan", field="scenarios", value=scenarios, expected="an integer >= 1, or None")
    planner = _Planner(instance, window, scenarios, seed, _futures(instance, terminal))

    def decide(stage: Integers, volumes: Floats, inflows: Floats) -> Floats:
        rows = zip(np.asarray(stage).tolist(), volumes, inflows, strict=True)
        return np.array([planner.decide(t, volume, inflow) for t, volume, inflow in rows]).reshape(volumes.shape)

    return decide


class _Planner:
    """Windows of all lengths, and for every stage the basis from which its window is solved.

    That basis is the optimal one where all inflows have been their mean so far, so it is near those of the states that
    the rule meets, and does not hang on them.
    """

    def __init__(
        self,
        instance: HydrothermalInstance,
        window: int,
        n_paths: int | None,
        seed: int,
        futures: list[_Future] | None,
    ) -> None:
        self.instance, self.longest, self.n_paths, self.seed = instance, window, n_paths, seed
        self.futures, self.balance = futures, WaterBalance(instance)
        self.windows: dict[int, _Window] = {}
        self.bases: list[Any] = []
        self.expected = instance.initial_volume

    def decide(self, stage: int, volume: Floats, inflow: Floats) -> Floats:
        """Volumes float64[n], hm3, after a stage."""
        while len(self.bases) <= stage:
            t = len(self.bases)
            mean = self.instance.mean_inflows[t % len(self.instance.mean_inflows)]
            self.expected = self._first_decision(t, self.expected, mean, None)
            self.bases.append(self._window(t).highs.getBasis())
        return self._first_decision(stage, volume, inflow, self.bases[stage])

    def _first_decision(self, stage: int, volume: Floats, inflow: Floats, basis: Any) -> Floats:
        turbined, spilled = self._window(stage).releases(stage, volume, inflow, basis)
        return self.balance.settle(volume + self.instance.water_factor * inflow, turbined, spilled)

    def _window(self, stage: int) -> _Window:
        length = min(self.longest, self.instance.horizon - stage)
        if length not in self.windows:
            self.windows[length] = _Window(self.instance, stage, length, self.n_paths, self.seed, self.futures)
        return self.windows[length]


class _Window:
    """The programme over windows of one length, wherever they begin: demand, inflows and cuts change in place."""

    def __init__(
        self,
        instance: HydrothermalInstance,
        stage: int,
        length: int,
        n_paths: int | None,
        seed: int,
        futures: list[_Future] | None,
    ) -> None:
        self.instance, self.length, self.n_paths, self.seed, self.futures = instance, length, n_paths, seed, futures
        self.tree = fan(instance, stage, length, n_paths, seed)
        self.programme = TreeProgramme(instance, self.tree)
        self.highs: Any = self.programme.highs
        self.leaves = np.flatnonzero(self.tree.stage == stage + length - 1).tolist()
        self.name = f"window of {length} stages of {instance.name}"
        self.stage, self.demand_of = -1, stage
        self.n_rows = self.highs.getNumRow()
        if futures is None:
            self._favour_storing()
        else:
            self._add_futures(futures[stage + length - 1])
            optimise(self.highs, self.name)  # HiGHS scales columns at the first solve: never with cuts, so always alike

    def _favour_storing(self) -> None:
        instance, columns = self.instance, self.programme.block.columns["volume"]
        worth = TIE * instance.deficit_cost * energy_of_water(instance) / (instance.water_factor * instance.base_mva)
        for column, price in zip(range(columns.start, columns.stop), worth.tolist(), strict=True):
            self.highs.changeColCost(column, -price * COST_SCALE * self.programme.scale)

    def releases(self, stage: int, volume: Floats, inflow: Floats, basis: Any) -> tuple[Floats, Floats]:
        """Turbined float64[n], m3/s, and spilled float64[n], hm3, of the first stage of the window."""
        if stage != self.stage:
            self._move(stage)
        self.tree.inflow[0] = inflow
        self.programme.set_water(self.tree.inflow, volume)
        start_from(self.highs, basis)
        optimise(self.highs, f"{self.name}, from stage {stage}")
        first = np.array(self.highs.getSolution().col_value[: self.programme.n_block])
        columns = self.programme.block.columns
        return first[columns["turbined"]], first[columns["spilled"]]

    def _move(self, stage: int) -> None:
        """Let the window begin with ``stage``."""
        self.stage, self.tree = stage, fan(self.instance, stage, self.length, self.n_paths, self.seed)
        if (stage - self.demand_of) % len(self.instance.demand):
            self._set_demand(stage)
        if self.futures is not None:
            if extra := self.highs.getNumRow() - self.n_rows:
                self.highs.deleteRows(extra, np.arange(self.n_rows, self.n_rows + extra, dtype=np.int32))
            self._add_cuts(self.futures[stage + self.length - 1])

    def _set_demand(self, stage: int) -> None:
        place = self.programme.block.rows["balance"]
        for node, own in enumerate(self.tree.stage.tolist()):
            demand = self.instance.stage_demand(own)
            rows = [demand.sum()] if place.stop - place.start < len(demand) else demand.tolist()
            for row, value in enumerate(rows, node * self.programme.n_rows + place.start):
                self.highs.changeRowBounds(row, value, value)
        self.demand_of = stage

    def _add_futures(self, future: _Future) -> None:
        """Columns for the cost after the window: one for each leaf and each kind of cuts."""
        for leaf in self.leaves:
            weight = float(self.tree.probability[leaf]) * self.programme.scale
            for share in future.weights.tolist():
                self.highs.addCol(weight * share, future.least * COST_SCALE, highspy.kHighsInf, 0, [], [])

    def _add_cuts(self, future: _Future) -> None:
        count, width = len(future.intercepts), self.instance.n_plants + 1
        if not count:
            return
        volume, n_own = self.programme.block.columns["volume"], len(self.tree.parent) * self.programme.n_block
        value = np.concatenate([-future.slopes * COST_SCALE, np.ones((count, 1))], axis=1).ravel()
        lower, upper = future.intercepts * COST_SCALE, np.full(count, highspy.kHighsInf)
        starts = np.arange(0, count * width, width, dtype=np.int32)
        for k, leaf in enumerate(self.leaves):
            index = np.empty((count, width), np.int32)
            index[:, :-1] = leaf * self.programme.n_block + np.arange(volume.start, volume.stop)
            index[:, -1] = n_own + k * len(future.weights) + future.kinds
            self.highs.addRows(count, lower, upper, count * width, starts, index.ravel(), value)


@dataclass(frozen=True, eq=False)
class _Future:
    """Cuts on the volumes at the end of a stage: intercepts float64[C], slopes float64[C, n], kinds int64[C].

    Kind a weighs ``weights[a]`` and lies nowhere below ``least``.
    """

    intercepts: Floats
    slopes: Floats
    kinds: Integers
    weights: Floats
    least: float


def fan(instance: HydrothermalInstance, first: int, length: int, n_paths: int | None, seed: int) -> InflowTree:
    """A root at stage ``first`` with mean inflow, and from there paths of equal probability over ``length`` stages.

    Args:
        instance: The problem.
        first: Stage from 0.
        length: Stages, that of the root included.
        n_paths: Sampled paths, the same for equal ``seed`` and ``first``; None: one, of mean inflows.
        seed: Of the sample.

    >>> from orl.envs.hydrothermal.library import load
    >>> tree = fan(load("tri3"), 1, 3, 2, seed=0)
    >>> tree.parent.tolist(), tree.stage.tolist(), tree.probability.tolist()
    ([-1, 0, 0, 1, 2], [1, 2, 2, 3, 3], [1.0, 0.5, 0.5, 0.5, 0.5])
    """
    stages = np.arange(first, first + length)
    means = instance.mean_inflows[stages % len(instance.mean_inflows)]
    width = 1 if n_paths is None else n_paths
    paths = np.broadcast_to(means, (width, *means.shape))
    if n_paths is not None:
        keys = np.random.default_rng((seed, first)).integers(0, 2**64, n_paths, dtype=np.uint64)
        paths = instance.path_inflows(instance.draw_columns(keys))[:, first : first + length]
    inflow = np.concatenate([means[:1], paths[:, 1:].swapaxes(0, 1).reshape(-1, instance.n_plants)])
    nodes = np.arange(len(inflow))
    parent = np.where(nodes <= width, 0, nodes - width)
    parent[0] = -1
    chance = np.where(nodes == 0, 1.0, 1 / width)
    return InflowTree(first, parent, np.repeat(stages, [1, *[width] * (length - 1)]), inflow, chance)


def _futures(instance: HydrothermalInstance, terminal: SDDP | str | os.PathLike[str] | None) -> list[_Future] | None:
    """The cuts of all stages as they are now; after the last stage there are none."""
    if terminal is None:
        return None
    if isinstance(terminal, SDDP):
        policy = terminal
        require_same_problem(policy, instance)
    else:
        policy = SDDP(instance)
        policy.load(terminal)
    if policy.discount != 1:
        expected = "1: the window is not discounted"
        raise InputError("discounted cuts", field="terminal", value=policy.discount, expected=expected)
    nothing, n = np.zeros(0), instance.n_plants
    last = _Future(nothing, np.zeros((0, n)), np.zeros(0, np.int64), nothing, 0.0)
    return [last if (cuts := policy.cuts(t)) is None else _future(cuts) for t in range(instance.horizon)]


def _future(cuts: CutPool) -> _Future:
    return _Future(cuts.intercepts, cuts.slopes, cuts.kinds, cuts.lp.future_weights, cuts.lp.future_bound)
