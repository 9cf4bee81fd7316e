"""Stochastic dual dynamic programming: the expected cost of the future, stage by stage, from below by cuts.

M. V. F. Pereira, L. M. V. G. Pinto, "Multi-stage stochastic optimization applied to energy planning", Mathematical
Programming 52 (1991) 359-375. An iteration simulates a few inflow paths with the cuts known so far (forward), and then,
from the last stage to the second, solves every opening of a stage at the volumes that were met; its values and water
duals make a cut for the stage before (backward):

    future_t(v) >= sum_j w_j (Q_j + dual_j @ (v - volume)),    w_j: probabilities, or weights of a risk measure

The first stage's inflow is random, too: the lower bound is the weighted cost of its openings.

Order of events in a stage: the inflow is revealed, then the stage is dispatched.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from orl.common.atomic import atomic_path
from orl.common.errors import InputError
from orl.common.interruption import minding_ctrl_c
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.scenario import column_of
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.envs.hydrothermal.stage_model import COST_SCALE, least_stage_cost, openings
from orl.envs.hydrothermal.water_balance import WaterBalance
from orl.solvers.hydrothermal.cut_files import Progress, read_cuts, write_cuts
from orl.solvers.hydrothermal.cuts import CutPool
from orl.solvers.hydrothermal.deterministic_equivalent import paths_of
from orl.solvers.hydrothermal.risk import Expectation, RiskMeasure
from orl.solvers.hydrothermal.stopping import TWO_SIDED_95, StoppingRule, TrainingRow

NEGLIGIBLE = 1e-6  # discounted weight at which simulations of a cyclic horizon end
TRAINING, SIMULATION = 0, 1  # streams of random numbers


@dataclass(eq=False)
class _Stage:
    """A stage: its programme, its openings in the order in which they are solved, its cuts (None: no future)."""

    lp: StageLP
    water: Floats  # [O, n], hm3
    probabilities: Floats
    cuts: CutPool | None


class SDDP:
    """A policy made of cuts, and a lower bound on the cost of every policy.

    Args:
        instance: The problem; a scenario has one path, and the cuts find its optimum.
        forward_passes: Paths simulated an iteration.
        multicut: A future cost for each opening of the next stage, instead of one for their mean: fewer iterations,
            larger programmes.
        clean_every: Iterations between two selections of cuts; 0: never. No optimum changes by it.
        risk: How costs of openings become one number.
        discount: What a cost of the next stage counts now, above 0, at most 1.
        cyclic: After the last stage comes the first, for ever; needs ``discount < 1``, and a horizon in which inflows
            and demand repeat as a whole.
        seed: The paths of iteration k depend on ``(seed, k)`` alone. Equal calls in equal order give equal cuts; in
            another order, other ones of several optima may be found.

    Attributes:
        rows: What was logged, a :class:`TrainingRow` for each iteration.
        iterations: Iterations done; those before a :meth:`load` count.
        lps: Stage programmes solved.

    Raises:
        InputError: Options out of range, or too many openings (plants that draw apart).

    >>> from orl.envs.hydrothermal.library import load
    >>> sddp = SDDP(load("tri3-t2"))
    >>> sddp.train(iterations=30)
    'iterations'
    >>> from orl.solvers.hydrothermal.scenario_tree import tree_cost
    >>> bool(np.isclose(sddp.lower_bound, tree_cost(load("tri3-t2"))))
    True
    """

    def __init__(
        self,
        instance: HydrothermalInstance,
        *,
        forward_passes: int = 1,
        multicut: bool = False,
        clean_every: int = 20,
        risk: RiskMeasure | None = None,
        discount: float = 1.0,
        cyclic: bool = False,
        seed: int = 0,
    ) -> None:
        self.instance, self.forward_passes, self.multicut = instance, forward_passes, multicut
        self.clean_every, self.discount, self.cyclic, self.seed = clean_every, discount, cyclic, seed
        self.risk: RiskMeasure = Expectation() if risk is None else risk
        self._check_options()
        self.rows: list[TrainingRow] = []
        self.iterations = self.lps = 0
        self.lower_bound = -math.inf
        self._seconds = 0.0
        self._balance = WaterBalance(instance)
        self._stages = self._build()

    # ---- Training ----------------------------------------------------------------------------------------------------
    def train(
        self,
        *,
        iterations: int | None = None,
        time_limit: float | None = None,
        stopping: Sequence[StoppingRule] = (),
        simulate_every: int | None = None,
        simulations: int = 100,
        progress: bool = False,
    ) -> str:
        """Iterate until the first of the limits and rules says stop; call again to go on.

        Ctrl-C ends it, too: the cuts found so far stay, and the caller's own handler hears of it afterwards.

        Args:
            iterations: At most so many more.
            time_limit: Seconds; the iteration in which it passes is cut short.
            stopping: Rules of :mod:`orl.solvers.hydrothermal.stopping`.
            simulate_every: Iterations between two estimates of the policy's cost from fresh paths; None: 10 if a rule
                needs them, else never.
            simulations: Paths of an estimate, at least 30.
            progress: Show a progress bar.

        Returns:
            What ended it: ``iterations``, ``time limit``, the name of a rule, or ``interrupted``.
        """
        if iterations is None and time_limit is None and not stopping:
            raise InputError("training would never end", expected="iterations, time_limit or stopping")
        needs_simulations = [rule for rule in stopping if rule.simulates]
        if needs_simulations and not isinstance(self.risk, Expectation):
            raise InputError(
                "simulated means say nothing about a bound on risk", field="stopping", value=needs_simulations[0]
            )
        if simulations < 30:
            raise InputError("too few paths", field="simulations", value=simulations, expected=">= 30")
        every = (10 if needs_simulations else 0) if simulate_every is None else simulate_every
        began, last = time.perf_counter(), None if iterations is None else self.iterations + iterations
        before = self._seconds
        with minding_ctrl_c() as pressed, tqdm(total=iterations, disable=not progress, desc="SDDP") as bar:

            def out_of_time() -> bool:
                return time_limit is not None and time.perf_counter() - began >= time_limit

            while True:
                if last is not None and self.iterations >= last:
                    return "iterations"
                if out_of_time():
                    return "time limit"
                path_cost = self._iterate(lambda: pressed() or out_of_time())
                if pressed():
                    return "interrupted"
                mean = interval = math.nan
                if every and self.iterations % every == 0 and not out_of_time():
                    mean, interval = self.estimate(simulations, key=self.iterations)
                self._seconds = before + time.perf_counter() - began
                figures = self.lower_bound, path_cost, mean, interval
                row = TrainingRow(self.iterations, self._seconds, *figures, self.lps, self.n_cuts, self.retries)
                self.rows.append(row)
                bar.update()
                bar.set_postfix(bound=f"{row.lower_bound:.6g}", cuts=row.cuts)
                for rule in stopping:
                    if rule(self.rows):
                        return type(rule).__name__
                if pressed():
                    return "interrupted"

    def _iterate(self, over: Callable[[], bool]) -> float:
        """One iteration; mean discounted cost of its forward passes. Ends early, cuts in place, once ``over()``."""
        self.iterations += 1
        rng = np.random.default_rng((self.seed, self.iterations, TRAINING))
        inflows = self._draw(rng, self.forward_passes, self._pass_length(rng))
        costs, volumes = self._forward(inflows)
        self._backward(volumes, over)
        if self.clean_every and self.iterations % self.clean_every == 0:
            for stage in self._stages:
                if stage.cuts is not None:
                    stage.cuts.select()
        self.lower_bound = self.bound()
        return float((costs @ self._discounts(costs.shape[1])).mean())

    def _forward(self, inflows: Floats) -> tuple[Floats, Floats]:
        """Play the policy on inflows float64[N, L, n]: stage costs float64[N, L], volumes float64[N, L + 1, n]."""
        n_paths, length, _ = inflows.shape
        costs, volumes = np.empty((n_paths, length)), np.empty((n_paths, length + 1, self.instance.n_plants))
        volumes[:, 0] = self.instance.initial_volume
        for t in range(length):
            for j in range(n_paths):
                water = volumes[j, t] + self.instance.water_factor * inflows[j, t]
                costs[j, t], volumes[j, t + 1] = self._dispatch(t, water)
        return costs, volumes

    def _dispatch(self, t: int, water: Floats) -> tuple[float, Floats]:
        """Cost of the stage alone and volumes float64[n] after it, for the water float64[n] at hand."""
        stage = self._stages[t % len(self._stages)]
        values, _ = self._solve(stage, water)
        model = stage.lp.model
        cost = float(model.costs @ values[: len(model.costs)]) / COST_SCALE
        turbined, spilled = values[model.columns["turbined"]], values[model.columns["spilled"]]
        return cost, self._balance.settle(water, turbined, spilled)

    def _backward(self, volumes: Floats, over: Callable[[], bool]) -> None:
        last = volumes.shape[1] - 1 if self.cyclic else volumes.shape[1] - 2
        for t in range(last, 0, -1):
            stage, before = self._stages[t % len(self._stages)], self._stages[(t - 1) % len(self._stages)]
            for volume in np.unique(volumes[:, t], axis=0):
                if over():
                    return
                assert before.cuts is not None
                self._add_cut(before.cuts, stage, volume)

    def _add_cut(self, cuts: CutPool, stage: _Stage, volume: Floats) -> None:
        """Solve all openings of a stage at volumes float64[n] and tell the stage before."""
        costs, duals = self._openings(stage, volume)
        cuts.points.append(volume)
        if self.multicut:
            for kind, (cost, dual) in enumerate(zip(costs.tolist(), duals, strict=True)):
                cuts.add(cost - float(dual @ volume), dual, kind)
        else:
            weights = self.risk.weights(costs, stage.probabilities)
            slope = weights @ duals
            cuts.add(float(weights @ costs - slope @ volume), slope)

    def _openings(self, stage: _Stage, volume: Floats) -> tuple[Floats, Floats]:
        """Costs float64[O], the future included, and duals float64[O, n] of a stage's openings."""
        costs, duals = np.empty(len(stage.water)), np.empty(stage.water.shape)
        for j, water in enumerate(stage.water + volume):
            _, duals[j] = self._solve(stage, water)
            costs[j] = stage.lp.cost
        return costs, duals

    def _solve(self, stage: _Stage, water: Floats) -> tuple[Floats, Floats]:
        """Values and duals of a stage with all its cuts; idle ones join when they matter."""
        lp, model = stage.lp, stage.lp.model
        while True:
            values, duals = lp.run(water)
            self.lps += 1
            if stage.cuts is None:
                return values, duals
            if not stage.cuts.wake(values[model.columns["volume"]], values[len(model.costs) :] / COST_SCALE):
                return values, duals

    @contextmanager
    def _unchanged(self, stages: Sequence[_Stage]) -> Iterator[None]:
        """What happens inside depends on the cuts alone, not on earlier solves, and leaves the programmes alone."""
        counts = [0 if stage.cuts is None else len(stage.cuts.active) for stage in stages]
        for stage in stages:
            stage.lp.restart()
        try:
            yield
        finally:
            for stage, count in zip(stages, counts, strict=True):
                if stage.cuts is not None:
                    stage.cuts.sleep(count)

    # ---- What it knows -----------------------------------------------------------------------------------------------
    @property
    def n_cuts(self) -> int:
        """Cuts known, active or not."""
        return sum(stage.cuts.count for stage in self._stages if stage.cuts is not None)

    @property
    def n_active_cuts(self) -> int:
        """Cuts that are rows of the stage programmes now."""
        return sum(len(stage.cuts.active) for stage in self._stages if stage.cuts is not None)

    @property
    def retries(self) -> int:
        """Programmes that HiGHS solved only at a second try."""
        return sum(stage.lp.retries for stage in self._stages)

    def cuts(self, stage: int) -> CutPool | None:
        """The cuts on the volumes at the end of a stage; None after the last one."""
        return self._stage(stage).cuts

    def bound(self) -> float:
        """The lower bound of the cuts known now, solved anew: USD."""
        first = self._stages[0]
        costs, _ = self._openings(first, self.instance.initial_volume)
        return float(self.risk.weights(costs, first.probabilities) @ costs)

    def future_cost(self, stage: int, volume: npt.ArrayLike) -> Floats:
        """What the cuts say about the cost from the stage after ``stage`` on, at least: USD.

        Args:
            stage: From 0.
            volume: float64[..., n], hm3 at the end of ``stage``.

        Returns:
            float64[...]; 0 after the last stage.
        """
        volumes, data = np.asarray(volume, np.float64), self._stage(stage)
        if data.cuts is None:
            return np.zeros(volumes.shape[:-1])
        values = np.maximum(data.cuts.values(volumes), data.lp.future_bound)
        return np.asarray(values @ self._kind_weights(stage), np.float64)

    def water_value(self, stage: int, volume: npt.ArrayLike) -> Floats:
        """What one more hm3 in each reservoir at the end of a stage saves later: float64[n], USD per hm3.

        It is at least 0 where spilling is free.

        Args:
            stage: From 0; water left after the last stage is worth nothing.
            volume: float64[n], hm3 at the end of ``stage``.
        """
        volumes, data = np.asarray(volume, np.float64), self._stage(stage)
        value = np.zeros(self.instance.n_plants)
        if data.cuts is not None:
            heights = data.cuts.values(volumes)
            for kind, (cut, weight) in enumerate(
                zip(data.cuts.highest(volumes).tolist(), self._kind_weights(stage).tolist(), strict=True)
            ):
                if cut >= 0 and heights[kind] > data.lp.future_bound:
                    value -= weight * data.cuts.slopes[cut]
        return value + 0.0

    def decide(self, stage: int, volume: npt.ArrayLike, inflow: npt.ArrayLike) -> Floats:
        """Volumes float64[n], hm3, at the end of a stage; the same cuts and arguments give the same answer.

        Args:
            stage: From 0.
            volume: float64[n], hm3 at its start.
            inflow: float64[n], m3/s.
        """
        water = np.asarray(volume, np.float64) + self.instance.water_factor * np.asarray(inflow, np.float64)
        with self._unchanged([self._stage(stage)]):
            return self._dispatch(stage, water)[1]

    def simulate(self, columns: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Play the policy; the same cuts and columns give the same answer.

        Args:
            columns: int64[T, N], a path in each column of the array (int64[T, N, n] if not joint); a cyclic horizon
                takes paths of any length.

        Returns:
            Stage costs float64[N, T] in USD, not discounted, and volumes float64[N, T + 1, n] in hm3.
        """
        paths = paths_of(self.instance, columns)
        if not self.cyclic and paths.shape[1] != self.instance.horizon:
            raise InputError(
                "bad paths", field="columns", value=paths.shape[1], expected=f"{self.instance.horizon} rows"
            )
        with self._unchanged(self._stages):
            return self._forward(self.instance.path_inflows(paths))

    def estimate(self, simulations: int = 100, *, key: int = 0) -> tuple[float, float]:
        """Mean discounted cost of the policy over fresh paths, and half the width of its 95 % confidence interval.

        Args:
            simulations: Paths, at least 2.
            key: Other keys draw other paths; none are those of the training.
        """
        rng = np.random.default_rng((self.seed, key, SIMULATION))
        length = self.instance.horizon
        if self.cyclic:
            length *= math.ceil(math.log(NEGLIGIBLE) / math.log(self.discount) / length)
        with self._unchanged(self._stages):
            costs, _ = self._forward(self._draw(rng, simulations, length))
        totals = costs @ self._discounts(length)
        return float(totals.mean()), TWO_SIDED_95 * float(totals.std(ddof=1)) / math.sqrt(simulations)

    # ---- Files -------------------------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cuts as versioned JSON, whole or not at all."""
        write_cuts(path, self._progress(), [stage.cuts for stage in self._stages])

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over the cuts of a file that :meth:`save` wrote for the same problem; its initial volumes may differ.

        Training goes on with the iteration after the last one; :attr:`rows` start afresh.

        Raises:
            InputError: Not such a file, another problem or other options, or this policy has cuts already.
        """
        if self.n_cuts:
            raise InputError("this policy has cuts already", source=os.fspath(path), expected="a new SDDP")
        fresh = self._build()
        found = read_cuts(path, self._progress(), [stage.cuts for stage in fresh])
        self._stages = fresh
        self.iterations, self.lps, self._seconds = found.iterations, found.lps, found.seconds
        self.lower_bound = self.bound()

    def save_log(self, path: str | os.PathLike[str]) -> None:
        """Write :attr:`rows` as CSV, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([f.name for f in fields(TrainingRow)])
            writer.writerows([*asdict(row).values()] for row in self.rows)

    # ---- Set-up ------------------------------------------------------------------------------------------------------
    def _check_options(self) -> None:
        def refuse(field: str, value: object, expected: str, problem: str = "bad option") -> None:
            raise InputError(problem, source="SDDP", field=field, value=value, expected=expected)

        instance = self.instance
        if self.forward_passes < 1:
            refuse("forward_passes", self.forward_passes, ">= 1")
        if self.clean_every < 0:
            refuse("clean_every", self.clean_every, ">= 0")
        if not 0 < self.discount <= 1:
            refuse("discount", self.discount, "above 0, at most 1")
        if self.multicut and not isinstance(self.risk, Expectation):
            refuse("multicut", True, "False with a risk measure, whose weights differ from solve to solve")
        if self.cyclic:
            if self.discount == 1:
                refuse("discount", self.discount, "below 1 for a cyclic horizon")
            for name in ("inflows", "probabilities", "demand"):
                period = len(getattr(instance, name))
                if instance.horizon % period:
                    refuse("horizon", instance.horizon, f"a multiple of the {period} rows of {name}")
            if instance.columns is not None:
                refuse("cyclic", True, "False for a scenario, which ends")

    def _build(self) -> list[_Stage]:
        instance, n_stages = self.instance, self.instance.horizon
        tables = [openings(instance, t) for t in range(n_stages)]
        least = least_stage_cost(instance)
        stages = []
        for t, (inflow, probabilities) in enumerate(tables):
            order = _tour(inflow)
            ahead = math.inf if self.cyclic else n_stages - 1 - t
            if ahead:
                powers = (1 - self.discount**ahead) / (1 - self.discount) if self.discount < 1 else ahead
                kinds = self._next_probabilities(tables, t) if self.multicut else np.ones(1)
                lp = StageLP(
                    instance, t, "future", future_weights=self.discount * kinds, future_bound=least * float(powers)
                )
                cuts = CutPool(lp, len(kinds))
            else:
                lp, cuts = StageLP(instance, t, "storage"), None
            stages.append(_Stage(lp, instance.water_factor * inflow[order], probabilities[order], cuts))
        return stages

    def _next_probabilities(self, tables: list[tuple[Floats, Floats]], t: int) -> Floats:
        """Probabilities of the openings of the next stage, in the order in which that stage solves them."""
        inflow, probabilities = tables[(t + 1) % len(tables)]
        return probabilities[_tour(inflow)]

    def _stage(self, stage: int) -> _Stage:
        if stage < 0 or (not self.cyclic and stage >= len(self._stages)):
            raise InputError("no such stage", field="stage", value=stage, expected=f"0..{len(self._stages) - 1}")
        return self._stages[stage % len(self._stages)]

    def _kind_weights(self, stage: int) -> Floats:
        return self._stage(stage).lp.future_weights / self.discount

    def _draw(self, rng: np.random.Generator, n_paths: int, length: int) -> Floats:
        """Inflows float64[N, L, n] of paths drawn at random; a scenario's own path where there is one."""
        instance = self.instance
        if instance.columns is not None:
            path = instance.path_inflows(instance.columns)
            return np.broadcast_to(path, (n_paths, *path.shape))
        rows: Integers = np.arange(length) % len(instance.inflows)
        noise = rng.random((n_paths, length, 1 if instance.joint else instance.n_plants))
        columns = column_of(instance, rows, noise)
        return instance.path_inflows(columns[..., 0] if instance.joint else columns)

    def _pass_length(self, rng: np.random.Generator) -> int:
        """Stages of a forward pass: the horizon; for a cyclic one a geometric number, as if discount were survival."""
        horizon = self.instance.horizon
        return max(horizon, int(rng.geometric(1 - self.discount))) if self.cyclic else horizon

    def _discounts(self, length: int) -> Floats:
        return self.discount ** np.arange(length, dtype=np.float64)

    def _progress(self) -> Progress:
        risk = {"name": type(self.risk).__name__, **getattr(self.risk, "__dict__", {})}
        options = {"multicut": self.multicut, "discount": self.discount, "cyclic": self.cyclic, "risk": risk}
        return Progress(self.instance, options, self.iterations, self.lps, self._seconds)


def _tour(inflow: Floats) -> Integers:
    """An order of openings float64[O, n] in which neighbours are alike, so that warm starts are short."""
    left, order = list(range(1, len(inflow))), [0]
    while left:
        distance = np.abs(inflow[left] - inflow[order[-1]]).sum(1)
        order.append(left.pop(int(distance.argmin())))
    return np.array(order)
