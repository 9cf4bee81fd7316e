"""Tabu search on the disjunctive graph: the anytime solver for classical job shops.

>>> from orl.envs.job_shop.builders import job_shop
>>> TabuSearch().solve(job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]]), time_limit=1).objective
6.0
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.problem import Progress, SolveResult, Status
from orl.envs.job_shop.builders import job_shop
from orl.envs.job_shop.instance import NO_DEADLINE, Schedule, ShopInstance
from orl.solvers.job_shop import tabu_kernel

Neighbourhood = Literal["n5", "n7"]
DEFAULT_SECONDS = 10.0
CHUNK_SECONDS = 0.01
# Zhang et al. take 10 + n/m to 1.4 times that; shorter tenures were 0.1 % better on random instances after 1 and 4 s.
SHORTEST_TENURE = 7
LONGEST_TENURE_FACTOR = 1.5
MAX_TABU_BYTES = 2**30


@dataclass(frozen=True)
class TabuSearch:
    """Tabu search with the neighbourhood N7 (Zhang, Li, Guan and Rao, C&OR 34, 2007) from an LRPT schedule.

    One core, anytime, makespan only. Covers job shops and flow shops whose jobs are chains of operations on one machine
    each: ragged, re-entrant, with durations of 0, releases and time lags. Memory is 8 bytes x operations x operations
    on the busiest machine, at most 1 GiB (11,000 jobs on one machine, 2,500 jobs x 20 machines, are about the largest).

    Args:
        neighbourhood: ``n7`` or, for teaching, ``n5`` (only swaps of neighbours at the ends of critical blocks, Nowicki
            and Smutnicki 1996), which gets stuck on large instances.
        iterations: Stop after this many moves; when they end before the time limit, the result depends on the seed
            alone. None: no limit.
        target: Stop at this makespan. The lower bound LB_0 always stops the search.
        cpu_time: Measure the time limit and the curve in CPU seconds of the process instead of wall seconds.
    """

    neighbourhood: Neighbourhood = "n7"
    iterations: int | None = None
    target: int | None = None
    cpu_time: bool = False

    def __post_init__(self) -> None:
        if self.neighbourhood not in ("n5", "n7"):
            raise _bad_value("neighbourhood", self.neighbourhood, "'n5' or 'n7'")
        if self.iterations is not None and (type(self.iterations) is not int or self.iterations < 0):
            raise _bad_value("iterations", self.iterations, "an integer >= 0 or None")
        if self.target is not None and type(self.target) is not int:
            raise _bad_value("target", self.target, "an integer or None")
        if type(self.cpu_time) is not bool:
            raise _bad_value("cpu_time", self.cpu_time, "True or False")

    @property
    def name(self) -> str:
        """Key of this solver."""
        return "tabu-search"

    def solve(
        self, instance: ShopInstance, *, time_limit: float | None = None, seed: int = 0, hint: Schedule | None = None
    ) -> SolveResult:
        """Search for a short schedule; Ctrl-C returns the best so far.

        The first call on a machine compiles the kernel (several seconds, kept on disk), which no time limit covers.

        Args:
            instance: A classical job shop (see :func:`is_classical`).
            time_limit: Seconds; None: 10, or unlimited when ``iterations`` is given.
            seed: Seed of ties and tenures, any integer (negative ones count modulo 2**64).
            hint: A feasible schedule to start from instead of LRPT; the result is never worse.

        Returns:
            ``optimal`` when the makespan reaches LB_0, else ``feasible``; ``bound`` is LB_0; ``log`` is the curve of
            (seconds, makespan).

        Raises:
            InputError: an instance that this method does not cover, an infeasible hint, a negative time limit.
        """
        return self.run(instance, time_limit=time_limit, seed=seed, hint=hint).result

    def run(
        self, instance: ShopInstance, *, time_limit: float | None = None, seed: int = 0, hint: Schedule | None = None
    ) -> TabuRun:
        """:meth:`solve`, with the number of moves and whether Ctrl-C ended it."""
        if time_limit is not None and not time_limit >= 0:
            raise InputError("bad time limit", field="time_limit", value=time_limit, expected="seconds >= 0 or None")
        if time_limit is None and self.iterations is None:
            time_limit = DEFAULT_SECONDS
        clock = time.process_time if self.cpu_time else time.perf_counter
        compile_kernel()
        started, started_wall = clock(), time.perf_counter()
        graph = _Graph(instance)
        search = _Search(graph, graph.order_of(hint), self.neighbourhood, seed)
        bound = instance.makespan_bound
        target = max(bound, self.target or 0)
        log = [Progress(clock() - started, float(search.best))]
        interrupted = False
        chunk = 100
        try:
            while search.best > target and not search.exhausted:
                now = clock() - started
                if time_limit is not None and now >= time_limit:
                    break
                if self.iterations is not None:
                    chunk = min(chunk, self.iterations - search.iteration)
                    if chunk <= 0:
                        break
                before = search.best
                search.advance(chunk, target)
                spent = clock() - started - now
                if search.best < before:
                    log.append(Progress(now + spent, float(search.best)))
                chunk = int(chunk * min(4.0, max(0.25, CHUNK_SECONDS / max(spent, 1e-9)))) + 1
        except KeyboardInterrupt:
            interrupted = True
        schedule = graph.schedule(search.best_order)
        makespan = instance.objective_value(schedule.start + instance.mode_duration)
        status: Status = "optimal" if makespan == bound else "feasible"
        seconds = time.perf_counter() - started_wall
        result = SolveResult(status, schedule, float(makespan), float(bound), seconds=seconds, log=tuple(log))
        return TabuRun(result, search.iteration, interrupted)


@dataclass(frozen=True)
class TabuRun:
    """A result with the number of moves made and whether Ctrl-C ended the search."""

    result: SolveResult
    moves: int
    interrupted: bool


def _bad_value(field: str, value: object, expected: str) -> InputError:
    return InputError("bad value", source="TabuSearch", field=field, value=value, expected=expected)


def is_classical(instance: ShopInstance) -> bool:
    """True when tabu search covers the instance.

    That is: makespan, chains of operations, at most one machine of capacity 1 an operation, and a tabu list (8 bytes x
    operations x operations on the busiest machine) of at most 1 GiB.
    """
    return _obstacle(instance) is None


def _obstacle(instance: ShopInstance) -> tuple[str, object, str] | None:
    """Why the instance is not covered: field, value, expected; None when it is."""
    if instance.objective != "makespan":
        return "objective", instance.objective, "makespan"
    if instance.max_modes > 1:
        return (
            "modes",
            f"up to {instance.max_modes} an operation",
            "one mode an operation (use cp-sat for flexible shops)",
        )
    if (instance.deadline < NO_DEADLINE).any():
        return "deadline", int(instance.deadline.min()), "no deadlines (use cp-sat)"
    if instance.capacity[instance.use_resource].max(initial=1) > 1:
        return "capacity", int(instance.capacity.max()), "machines of capacity 1 (use cp-sat for cumulative resources)"
    if np.diff(instance.use_ptr).max() > 1:
        return "uses", instance.kind, "at most one machine an operation (use cp-sat for open shops)"
    in_chain = np.diff(instance.pred_ptr).max() <= 1 and np.diff(instance.succ_ptr).max() <= 1
    if not in_chain:
        return "precedence", instance.kind, "chains of operations (use cp-sat for general precedences)"
    successor = np.repeat(np.arange(instance.n_ops), np.diff(instance.pred_ptr))
    p = instance.pred_op
    early = instance.earliest_start[p] + instance.min_duration[p] + instance.pred_lag < instance.release[successor]
    if early.any():
        o = successor[np.flatnonzero(early)[0]]
        return "release", int(instance.release[o]), "releases that matter on first operations only (use cp-sat)"
    busiest = int(np.bincount(instance.use_resource).max(initial=1))
    n_bytes = 8 * _n_nodes(instance) * busiest
    if n_bytes > MAX_TABU_BYTES:
        size = f"{instance.n_ops} x {busiest}, a tabu list of {n_bytes / 2**30:.1f} GiB"
        return "operations x operations on the busiest machine", size, "at most 1 GiB (use cp-sat)"
    return None


def _n_nodes(instance: ShopInstance) -> int:
    """Nodes of the graph of a classical instance: operations, releases, lags and the sentinels around the chains."""
    first = np.diff(instance.pred_ptr) == 0
    delays = np.count_nonzero(instance.release[first] > 0) + np.count_nonzero(instance.pred_lag > 0)
    return instance.n_ops + int(delays) + int(np.count_nonzero(first)) + 1


@functools.cache
def compile_kernel() -> None:
    """Compile the kernel, or load it from numba's cache, so that no clock of a solver has to run meanwhile."""
    graph = _Graph(job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]]))
    _Search(graph, graph.order_of(None), "n7", 0).advance(1, 0)


class _Graph:
    """The nodes of an instance as the kernel numbers them: chains of nodes with a sentinel before, between and behind.

    A release or a lag becomes a node without a machine, in front of its operation.
    """

    def __init__(self, instance: ShopInstance) -> None:
        obstacle = _obstacle(instance)
        if obstacle is not None:
            field, value, expected = obstacle
            problem = "tabu search covers classical job shops only"
            raise InputError(problem, source=instance.name, field=field, value=value, expected=expected)
        self.instance = instance
        length, machine, op = [0], [-1], [-1]
        first, last = [], []
        for head in np.flatnonzero(np.diff(instance.pred_ptr) == 0):
            first.append(len(length))
            o, delay = int(head), int(instance.release[head])
            while True:
                if delay > 0:
                    length.append(delay)
                    machine.append(-1)
                    op.append(-1)
                q = instance.mode_ptr[o]
                has_machine = instance.use_ptr[q] < instance.use_ptr[q + 1]
                length.append(int(instance.mode_duration[q]))
                machine.append(int(instance.use_resource[instance.use_ptr[q]]) if has_machine else -1)
                op.append(o)
                if instance.succ_ptr[o] == instance.succ_ptr[o + 1]:
                    break
                delay = int(instance.succ_lag[instance.succ_ptr[o]])
                o = int(instance.succ_op[instance.succ_ptr[o]])
            last.append(len(length) - 1)
            length.append(0)
            machine.append(-1)
            op.append(-1)
        self.length = np.array(length, np.int32)
        self.machine = np.array(machine, np.int32)
        self.op = np.array(op, np.int64)
        self.first, self.last = np.array(first, np.int64), np.array(last, np.int64)
        self.slot = np.zeros(len(length), np.int32)
        count = np.zeros(instance.n_resources, np.int64)
        for v, m in enumerate(machine):
            if m >= 0:
                self.slot[v] = count[m]
                count[m] += 1
        self.width = int(count.max(initial=1))

    def order_of(self, hint: Schedule | None) -> npt.NDArray[np.uint32]:
        """All nodes in a topological order: that of a feasible hint by start, else of the LRPT schedule."""
        if hint is None:
            order: npt.NDArray[np.uint32] = tabu_kernel.lrpt_order(
                self.first, self.last, self.length, self.machine, self.instance.n_resources
            )
            return order
        check = self.instance.check(hint)
        if not check.feasible:
            value = check.violations[0]
            raise InputError("the hint is not feasible", source=self.instance.name, field="hint", value=value)
        rank = np.empty(self.instance.n_ops, np.int64)
        rank[self.instance.topological_order] = np.arange(self.instance.n_ops)
        start = np.asarray(hint.start).astype(np.int64)
        node = np.zeros(self.instance.n_ops, np.int64)
        node[self.op[self.op >= 0]] = np.flatnonzero(self.op >= 0)
        by_start = node[np.lexsort((rank, start + self.instance.mode_duration, start))]
        is_delay = (self.op < 0) & (self.length > 0)
        nodes = [v for u in by_start.tolist() for v in ((u - 1, u) if is_delay[u - 1] else (u,))]
        return np.array(nodes, np.uint32)

    def schedule(self, order: npt.NDArray[np.uint32]) -> Schedule:
        """The semi-active schedule of the machine orders that a topological order implies."""
        search = _Search(self, order, "n7", 0)
        start = np.zeros(self.instance.n_ops, np.int32)
        real = self.op >= 0
        start[self.op[real]] = (search.head_end - self.length)[real]
        return Schedule(start, np.zeros(self.instance.n_ops, np.int32))


class _Search:
    """The arrays of one search; :meth:`advance` makes moves."""

    def __init__(self, graph: _Graph, order: npt.NDArray[np.uint32], neighbourhood: Neighbourhood, seed: int) -> None:
        n_nodes = len(graph.length)
        n_jobs, n_machines = len(graph.first), max(1, len(np.unique(graph.machine[graph.machine >= 0])))
        self.graph, self.order, self.uses_n7 = graph, order.copy(), neighbourhood == "n7"
        self.position = np.full(n_nodes, -1, np.int32)
        self.machine_before, self.machine_after = np.zeros(n_nodes, np.uint32), np.zeros(n_nodes, np.uint32)
        self.head_end, self.tail = np.zeros(n_nodes, np.int32), np.zeros(n_nodes, np.int32)
        tabu_kernel.link(
            self.order,
            graph.machine,
            graph.instance.n_resources,
            self.position,
            self.machine_before,
            self.machine_after,
        )
        tabu_kernel.longest_heads(self.order, 0, graph.length, self.machine_before, self.head_end)
        tabu_kernel.longest_tails(self.order, len(order) - 1, graph.length, self.machine_after, self.tail)
        self.forbidden = np.zeros((n_nodes, graph.width), np.int64)
        self.mark = np.zeros(n_nodes, np.int64)
        self.path, self.buffer = np.zeros(n_nodes, np.uint32), np.zeros(n_nodes, np.uint32)
        self.moves = np.zeros((4 * n_nodes, 3), np.int64)
        self.scratch, self.block_first = np.zeros(n_nodes, np.int64), np.zeros(n_nodes + 1, np.int64)
        self.best_order = self.order.copy()
        entropy = seed if seed >= 0 else int(seed) % 2**64  # numpy takes no negative ones
        self.random_state = np.random.SeedSequence(entropy).generate_state(1, np.uint64) | np.uint64(1)
        self.counters = np.zeros(tabu_kernel.N_COUNTERS, np.int64)
        self.counters[[tabu_kernel.MAKESPAN, tabu_kernel.BEST]] = self.head_end.max()
        base = SHORTEST_TENURE + n_jobs / n_machines
        self.tenure = int(base), int(LONGEST_TENURE_FACTOR * base)

    @property
    def best(self) -> int:
        """Shortest makespan so far."""
        return int(self.counters[tabu_kernel.BEST])

    @property
    def iteration(self) -> int:
        """Moves made so far."""
        return int(self.counters[tabu_kernel.ITERATION])

    @property
    def exhausted(self) -> bool:
        """True when the current schedule has no neighbour."""
        return bool(self.counters[tabu_kernel.EXHAUSTED])

    def advance(self, iterations: int, target: int) -> None:
        """Make up to ``iterations`` moves."""
        tabu_kernel.search(
            iterations,
            target,
            self.uses_n7,
            *self.tenure,
            self.graph.last,
            self.graph.length,
            self.graph.slot,
            self.order,
            self.position,
            self.machine_before,
            self.machine_after,
            self.head_end,
            self.tail,
            self.forbidden,
            self.mark,
            self.path,
            self.block_first,
            self.moves,
            self.scratch,
            self.buffer,
            self.best_order,
            self.random_state,
            self.counters,
        )
