"""The CP-SAT model of a shop or project, and what a dispatched prefix fixes in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from orl.common.errors import InputError
from orl.envs.job_shop.instance import NO_DEADLINE, IntArray, Schedule, ShopInstance


@dataclass(frozen=True)
class Prefix:
    """What is already dispatched: ``release`` is the earliest start of every operation, fixed ones have ``start``."""

    start: npt.NDArray[np.int64]
    mode: npt.NDArray[np.int64]
    fixed: npt.NDArray[np.bool_]
    release: IntArray

    @classmethod
    def of(
        cls,
        instance: ShopInstance,
        start: IntArray,
        mode: IntArray,
        fixed: npt.NDArray[np.bool_],
        floors: IntArray | int,
    ) -> Prefix:
        if not isinstance(floors, np.ndarray):
            floors = np.full(instance.n_ops, floors, np.int32)
        kept = _array(instance, "fixed", fixed, "b")
        starts = np.where(kept, _array(instance, "start", start, "iu"), 0).astype(np.int64)
        modes = np.where(kept, _array(instance, "mode", mode, "iu"), 0).astype(np.int64)
        bad = np.flatnonzero((modes < 0) | (modes >= np.diff(instance.mode_ptr)) | (starts < 0))
        if len(bad):
            where, value = f"operation {instance.op_names[bad[0]]!r}", (int(starts[bad[0]]), int(modes[bad[0]]))
            raise InputError("bad start or mode", source=instance.name, field=where, value=value)
        earliest = np.where(kept, starts, _array(instance, "floors", floors, "iu"))
        return cls(starts, modes, kept, np.maximum(instance.release, earliest).astype(np.int32))

    def keeps(self, schedule: Schedule) -> bool:
        """True when ``schedule`` agrees with the fixed operations."""
        same = (schedule.start == self.start) & (schedule.mode == self.mode)
        return bool(same[self.fixed].all())


def _array(instance: ShopInstance, label: str, array: npt.ArrayLike, kinds: str) -> npt.NDArray[Any]:
    """``array`` if it has one entry an operation and a dtype of ``kinds``; else InputError."""
    array = np.asarray(array)
    if array.shape != (instance.n_ops,) or array.dtype.kind not in kinds:
        found = f"{array.dtype}{list(array.shape)}"
        expected = f"{instance.n_ops} {'booleans' if kinds == 'b' else 'integers'}"
        raise InputError("wrong array", source=instance.name, field=label, value=found, expected=expected)
    return array


class ShopModel:
    """The CP-SAT model of an instance.

    Each operation has a start in ``[release, horizon - duration - tail]``; with several modes, one optional interval a
    mode and exactly one present. Capacity 1 becomes no-overlap, more becomes cumulative, precedences are linear. The
    objective is at least the cheap lower bound. Longest paths to the end (``start + duration + tail <= makespan``)
    follow from the precedences by propagation, so only operations without a successor bound the makespan. With a
    prefix, ``instance`` has later releases than the instance that prices the schedule, ``priced``.
    """

    def __init__(
        self,
        instance: ShopInstance,
        priced: ShopInstance,
        prefix: Prefix | None,
        hint: Schedule | None,
        feasible: bool,
    ) -> None:
        self.instance, self.priced = instance, priced
        self.model = cp_model.CpModel()
        self.horizon = instance.horizon
        if feasible and hint is not None and instance.objective == "makespan":
            self.horizon = min(self.horizon, instance.objective_value(ends_of(instance, hint)))
        self.constant = 0
        self._add_operations(prefix)
        self._add_precedences()
        self._add_resources()
        self._add_objective()
        if hint is not None:
            self._add_hint(hint)

    def schedule(self, solver: cp_model.CpSolver) -> Schedule:
        """The schedule of the solver's best solution."""
        start = np.array([solver.value(s) for s in self.start], np.int32)
        mode = np.zeros(len(start), np.int32)
        for o, literals in self.chosen.items():
            mode[o] = next(q for q, literal in enumerate(literals) if solver.boolean_value(literal))
        return Schedule(start, mode)

    def _add_operations(self, prefix: Prefix | None) -> None:
        instance, model = self.instance, self.model
        self.start: list[cp_model.IntVar] = []
        self.end: list[cp_model.LinearExprT] = []
        self.chosen: dict[int, list[cp_model.IntVar]] = {}
        self.interval: list[cp_model.IntervalVar] = []  # one a mode
        for o in range(instance.n_ops):
            name = instance.op_names[o]
            modes = range(instance.mode_ptr[o], instance.mode_ptr[o + 1])
            durations = [int(instance.mode_duration[q]) for q in modes]
            low, high = int(instance.release[o]), self.horizon - min(durations)
            if prefix is not None and prefix.fixed[o]:
                low = high = int(prefix.start[o])
            elif instance.objective == "makespan":
                high -= int(instance.tail[o])
            start = model.new_int_var(low, max(low, high), name)
            if high < low or (prefix is not None and prefix.fixed[o] and low < instance.release[o]):
                model.add_bool_or([])  # no room: the model is infeasible
            self.start.append(start)
            if len(durations) == 1:
                self.interval.append(model.new_fixed_size_interval_var(start, durations[0], name))
                self.end.append(start + durations[0])
            else:
                literals = [model.new_bool_var(f"{name} mode {k}") for k in range(len(durations))]
                model.add_exactly_one(literals)
                for literal, d in zip(literals, durations, strict=True):
                    self.interval.append(model.new_optional_fixed_size_interval_var(start, d, literal, name))
                self.end.append(start + cp_model.LinearExpr.weighted_sum(literals, durations))
                self.chosen[o] = literals
                if prefix is not None and prefix.fixed[o]:
                    model.add(literals[int(prefix.mode[o])] == 1)
            if instance.deadline[o] < NO_DEADLINE:
                model.add(self.end[o] <= int(instance.deadline[o]))

    def _add_precedences(self) -> None:
        instance = self.instance
        for o in range(instance.n_ops):
            for e in range(instance.pred_ptr[o], instance.pred_ptr[o + 1]):
                self.model.add(self.start[o] >= self.end[instance.pred_op[e]] + int(instance.pred_lag[e]))

    def _add_resources(self) -> None:
        instance = self.instance
        owner = np.repeat(np.arange(instance.n_ops), np.diff(instance.mode_ptr))
        users: list[list[tuple[int, int]]] = [[] for _ in range(instance.n_resources)]
        for q in range(len(owner)):
            for u in range(instance.use_ptr[q], instance.use_ptr[q + 1]):
                users[instance.use_resource[u]].append((q, int(instance.use_demand[u])))
        for r, pairs in enumerate(users):
            capacity = int(instance.capacity[r])
            if capacity == 1:
                if len({int(owner[q]) for q, _ in pairs}) > 1:
                    self.model.add_no_overlap([self.interval[q] for q, _ in pairs])
            elif pairs:
                intervals, demands = [self.interval[q] for q, _ in pairs], [d for _, d in pairs]
                self.model.add_cumulative(intervals, demands, capacity)
                for q, demand in pairs:
                    if instance.mode_duration[q] == 0:
                        others = [(k, d) for k, d in pairs if owner[k] != owner[q] and instance.mode_duration[k] > 0]
                        self._keep_instant_outside(q, demand, capacity, others, owner)

    def _keep_instant_outside(
        self, q: int, demand: int, capacity: int, others: list[tuple[int, int]], owner: npt.NDArray[np.int64]
    ) -> None:
        """A mode of duration 0 takes its units at its start, which CP-SAT's cumulative ignores."""
        literals: list[cp_model.IntVar] = []
        weights: list[int] = []
        here = self.start[owner[q]]
        for k, units in others:
            there = self.start[owner[k]]
            before, after, inside = (
                self.model.new_bool_var(f"{label} {q} {k}") for label in ("before", "after", "inside")
            )
            self.model.add(here <= there).only_enforce_if(before)
            self.model.add(here >= there + int(self.instance.mode_duration[k])).only_enforce_if(after)
            choices: list[cp_model.LiteralT] = [before, after, inside]
            for mode in (q, k):
                literal = self._presence(mode, int(owner[mode]))
                if literal is not None:
                    choices.append(~literal)
            self.model.add_bool_or(choices)
            literals.append(inside)
            weights.append(units)
        if literals:
            self.model.add(cp_model.LinearExpr.weighted_sum(literals, weights) + demand <= capacity)

    def _presence(self, q: int, o: int) -> cp_model.IntVar | None:
        return self.chosen[o][q - int(self.instance.mode_ptr[o])] if o in self.chosen else None

    def _add_objective(self) -> None:
        instance, model = self.instance, self.model
        last = [o for o in range(instance.n_ops) if instance.succ_ptr[o] == instance.succ_ptr[o + 1]]
        low = instance.makespan_bound
        if instance.objective != "makespan":
            low = self.priced.objective_value(instance.earliest_start + instance.min_duration)
        self.lower_bound = low
        self.completion: list[cp_model.IntVar] = []
        self.tardiness: dict[int, cp_model.IntVar] = {}
        if instance.objective == "makespan":
            self.makespan = model.new_int_var(min(low, self.horizon), self.horizon, "makespan")
            for o in last:
                model.add(self.makespan >= self.end[o])
            model.minimize(self.makespan)
            return
        ops_of: list[list[int]] = [[] for _ in range(instance.n_jobs)]
        for o in range(instance.n_ops):
            within = instance.succ_op[instance.succ_ptr[o] : instance.succ_ptr[o + 1]]
            if not (instance.job[within] == instance.job[o]).any():
                ops_of[instance.job[o]].append(o)
        for j, ops in enumerate(ops_of):
            completion = model.new_int_var(0, self.horizon, f"completion of job {j}")
            for o in ops:
                model.add(completion >= self.end[o])
            self.completion.append(completion)
        if instance.objective == "total_flow":
            release = np.full(instance.n_jobs, np.iinfo(np.int64).max)
            np.minimum.at(release, instance.job, self.priced.release.astype(np.int64))
            self.constant = -int(release.sum())
            expression = cp_model.LinearExpr.sum(self.completion)
        else:
            for j in range(instance.n_jobs):
                if instance.weight[j] > 0:
                    latest = max(0, self.horizon - int(instance.due[j]))
                    tardiness = model.new_int_var(0, latest, f"tardiness of job {j}")
                    model.add(tardiness >= self.completion[j] - int(instance.due[j]))
                    self.tardiness[j] = tardiness
            weights = [int(instance.weight[j]) for j in self.tardiness]
            expression = cp_model.LinearExpr.weighted_sum(list(self.tardiness.values()), weights)
        model.add(expression >= low - self.constant)
        model.minimize(expression)

    def _add_hint(self, hint: Schedule) -> None:
        instance, model = self.instance, self.model
        for o, start in enumerate(self.start):
            model.add_hint(start, int(hint.start[o]))
        for o, literals in self.chosen.items():
            for k, literal in enumerate(literals):
                model.add_hint(literal, k == int(hint.mode[o]))
        ends = ends_of(instance, hint)
        if instance.objective == "makespan":
            model.add_hint(self.makespan, int(ends.max()))
            return
        done = np.zeros(instance.n_jobs, np.int64)
        np.maximum.at(done, instance.job, ends)
        for j, completion in enumerate(self.completion):
            model.add_hint(completion, int(done[j]))
        for j, tardiness in self.tardiness.items():
            model.add_hint(tardiness, max(0, int(done[j] - instance.due[j])))


def ends_of(instance: ShopInstance, schedule: Schedule) -> npt.NDArray[np.int64]:
    return schedule.start.astype(np.int64) + instance.mode_duration[instance.mode_ptr[:-1] + schedule.mode]
