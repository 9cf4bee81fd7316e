"""The shop-scheduling MDP stated in plain numpy and Python: the oracle the compiled kernel is tested against.

Nothing is kept incrementally: after every action all earliest starts are computed anew from the decisions so far.
Slow on purpose; use the env for anything but tests and reading.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orl.envs.job_shop.instance import NO_DEADLINE, Schedule, ShopInstance

INF = 2**30


class ShopOracle:
    """One copy of the MDP (propagation levels 0 and 1).

    Args:
        instance: The problem.
        noop, symmetry_breaking, propagation, reward: As in :class:`orl.envs.job_shop.env.JobShopEnv`.
        max_modes: Slots a line.

    Attributes after every step: ``now``, ``next_event``, ``mask`` bool[S + 1], ``slot_start`` int[S] (-1: none),
    ``start`` and ``end`` int[N] (fixed or earliest), ``lower_bound``, ``terminated``.
    """

    def __init__(
        self,
        instance: ShopInstance,
        *,
        noop: bool = True,
        symmetry_breaking: bool = False,
        propagation: int = 0,
        reward: str = "lower_bound",
        max_modes: int | None = None,
    ) -> None:
        self.x = instance
        self.noop, self.symmetry_breaking = noop, symmetry_breaking
        self.propagation, self.reward_kind = propagation, reward
        self.max_modes = max_modes or instance.max_modes
        self.reset()

    def reset(self) -> None:
        """Nothing started, nothing posted."""
        n = self.x.n_ops
        self.fixed_start = np.full(n, -1)
        self.fixed_mode = np.full(n, -1)
        self.floor = np.zeros(n, int)
        self.now = 0
        self.lower_bound = int(self.x.lower_bound())
        self.last_resource = -1
        self.dead = False
        self._observe_state()

    def step(self, action: int) -> float:
        """Apply a legal action and return the reward."""
        if not self.mask[action]:
            raise ValueError(f"illegal action {action}")
        bound, before, duration = self.lower_bound, self.now, 0
        if action == len(self.mask) - 1:
            for waiting in self._available():
                if self.start[waiting] < self.next_event:
                    self.floor[waiting] = self.next_event
            self.last_resource = -1
        else:
            line, m = divmod(action, self.max_modes)
            o = self._next_op(line)
            assert o is not None
            self.fixed_start[o], self.fixed_mode[o] = self.now, m
            q = self.x.mode_ptr[o] + m
            duration = int(self.x.mode_duration[q])
            declared = [r for r, _ in self._uses(q) if r < self.x.n_declared_resources]
            resource = declared[0] if len(declared) == 1 else -1
            self.last_resource = -1 if duration == 0 else max(self.last_resource, resource)
        self._observe_state()
        if self.reward_kind == "idle":
            return (duration - self._idle(before)) / max(1, int(self.x.mode_duration.max()))
        value = max(self.lower_bound, self._worst()) if self.dead else self.lower_bound
        scale = max(1, int(self.x.lower_bound()))
        if self.reward_kind == "lower_bound":
            return (bound - value) / scale
        return -value / scale if self.terminated else 0.0

    def schedule(self) -> Schedule:
        """The schedule so far (start -1: not started)."""
        return Schedule(self.fixed_start.astype(np.int32), np.maximum(self.fixed_mode, 0).astype(np.int32))

    # ---- everything below is recomputed from fixed_start, fixed_mode and floor -----------------------------------
    def _observe_state(self) -> None:
        x = self.x
        self.start, self.end = self._earliest()
        self.dead = self.dead or bool(((x.deadline < NO_DEADLINE) & (self.end > x.deadline)).any())
        self.lower_bound = max(self.lower_bound, self._bound())
        self.terminated = bool((self.fixed_mode >= 0).all()) or self.dead
        n_slots = x.n_lines * self.max_modes
        self.mask = np.zeros(n_slots + 1, bool)
        self.slot_start = np.full(n_slots, -1)
        if self.terminated:
            fixed = self.fixed_mode >= 0
            self.now = max(self.now, int(self.end[fixed].max(initial=0)))
            self.next_event, self.mask[-1] = INF, True
            return
        times = set()
        available = self._available()
        for line in range(x.n_lines):
            o = self._next_op(line)
            if o is None:
                continue
            for m in range(x.mode_ptr[o + 1] - x.mode_ptr[o]):
                start = self._start_in_mode(o, x.mode_ptr[o] + m)
                self.slot_start[line * self.max_modes + m] = start
                if o in available:
                    times.add(start)
        before = self.now
        self.now, self.next_event = (*sorted(times), INF)[:2]
        if self.now > before:
            self.last_resource = -1
        self._mark(available, self.symmetry_breaking)
        self.mask[-1] = self.noop and self.next_event < INF
        if not self.mask.any():
            self._mark(available, False)

    def _mark(self, available: set[int], symmetry_breaking: bool) -> None:
        for line in range(self.x.n_lines):
            o = self._next_op(line)
            if o is None or o not in available:
                continue
            for m in range(self.x.mode_ptr[o + 1] - self.x.mode_ptr[o]):
                slot = line * self.max_modes + m
                hidden = symmetry_breaking and self._symmetric(line, o, m)
                self.mask[slot] = self.slot_start[slot] == self.now and not hidden

    def _symmetric(self, line: int, o: int, m: int) -> bool:
        declared = [r for r, _ in self._uses(self.x.mode_ptr[o] + m) if r < self.x.n_declared_resources]
        if len(declared) == 1 and declared[0] < self.last_resource:
            return True
        progress = self._progress(line)
        return any(
            self._identical(other, line)
            and self._progress(other) == progress
            and self.slot_start[other * self.max_modes + m] == self.now
            for other in range(line)
        )

    def _identical(self, a: int, b: int) -> bool:
        return self._signature(a) is not None and self._signature(a) == self._signature(b)

    def _signature(self, line: int) -> list[object] | None:
        """What makes two lines interchangeable; None when arcs or a shared job tie the line to others."""
        x = self.x
        ops = self._line_ops(line)
        job = x.job[ops[0]]
        if x.objective != "makespan" and (x.job == job).sum() > len(ops):
            return None
        out: list[object] = [] if x.objective == "makespan" else [int(x.due[job]), int(x.weight[job])]
        for o in ops:
            modes = range(x.mode_ptr[o], x.mode_ptr[o + 1])
            after = [(int(x.succ_op[e]), int(x.succ_lag[e])) for e in range(x.succ_ptr[o], x.succ_ptr[o + 1])]
            before = x.pred_op[x.pred_ptr[o] : x.pred_ptr[o + 1]]
            if any(p not in ops for p in before) or any(s not in ops for s, _ in after):
                return None
            uses = [(int(x.mode_duration[q]), self._uses(q)) for q in modes]
            out.append((int(x.release[o]), int(x.deadline[o]), uses, [lag for _, lag in after]))
        return out

    def _earliest(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        x = self.x
        self.ready = x.release.astype(np.int64)
        start, end = np.zeros(x.n_ops, np.int64), np.zeros(x.n_ops, np.int64)
        for o in x.topological_order:
            for e in range(x.pred_ptr[o], x.pred_ptr[o + 1]):
                self.ready[o] = max(self.ready[o], end[x.pred_op[e]] + x.pred_lag[e])
            modes = range(x.mode_ptr[o], x.mode_ptr[o + 1])
            if self.fixed_mode[o] >= 0:
                start[o] = self.fixed_start[o]
                end[o] = start[o] + x.mode_duration[modes[self.fixed_mode[o]]]
            else:
                starts = [self._start_in_mode(o, q) for q in modes]
                start[o] = min(starts)
                end[o] = min(t + int(x.mode_duration[q]) for t, q in zip(starts, modes, strict=True))
        return start, end

    def _start_in_mode(self, o: int, q: int) -> int:
        """Earliest time from which every resource of mode q has room: tried at the ends of running operations."""
        earliest = int(max(self.ready[o], self.floor[o]))
        for r, demand in self._uses(q):
            running = self._running(r)
            times = [earliest, *(end for end, _ in running if end > earliest)]
            earliest = min(
                t for t in times if sum(d for end, d in running if end > t) + demand <= int(self.x.capacity[r])
            )
        return earliest

    def _running(self, r: int) -> list[tuple[int, int]]:
        """(end, demand) of the operations started on r."""
        out = []
        for o in np.flatnonzero(self.fixed_mode >= 0):
            q = self.x.mode_ptr[o] + self.fixed_mode[o]
            out += [(int(self.fixed_start[o] + self.x.mode_duration[q]), d) for used, d in self._uses(q) if used == r]
        return out

    def _uses(self, q: int) -> list[tuple[int, int]]:
        uses = range(self.x.use_ptr[q], self.x.use_ptr[q + 1])
        return [(int(self.x.use_resource[u]), int(self.x.use_demand[u])) for u in uses]

    def _line_ops(self, line: int) -> list[int]:
        return [int(o) for o in self.x.line_op[self.x.line_ptr[line] : self.x.line_ptr[line + 1]]]

    def _progress(self, line: int) -> int:
        return sum(self.fixed_mode[o] >= 0 for o in self._line_ops(line))

    def _next_op(self, line: int) -> int | None:
        return next((o for o in self._line_ops(line) if self.fixed_mode[o] < 0), None)

    def _available(self) -> set[int]:
        """Next operations of lines all of whose predecessors have been started."""
        next_ops = (self._next_op(line) for line in range(self.x.n_lines))
        x = self.x
        return {
            o
            for o in next_ops
            if o is not None and all(self.fixed_mode[p] >= 0 for p in x.pred_op[x.pred_ptr[o] : x.pred_ptr[o + 1]])
        }

    def _bound(self) -> int:
        if self.x.objective != "makespan":
            return self.x.objective_value(self.end)
        bound = int(self.end.max())
        if self.propagation >= 1:
            resource, op, energy = self.x.mandatory_work()
            for r in range(self.x.n_resources):
                chosen = (resource == r) & (self.fixed_mode[op] < 0)
                if chosen.any():
                    work = -(-int(energy[chosen].sum()) // int(self._units(r)))
                    ops = op[chosen]
                    bound = max(bound, int(self.start[ops].min()) + work + int(self.x.tail[ops].min()))
        return bound

    def _units(self, r: int) -> int:
        return max(1, min(int(self.x.capacity[r]), int(self.x.use_demand[self.x.use_resource == r].sum())))

    def _worst(self) -> int:
        """Value of a missed deadline: worse than any schedule."""
        return self.x.objective_value(np.full(self.x.n_ops, self.x.horizon)) + max(1, int(self.x.lower_bound()))

    def _idle(self, before: int) -> int:
        idle = 0
        for r in range(self.x.n_declared_resources):
            if self._units(r) == 1:
                free = max((end for end, _ in self._running(r)), default=0)
                idle += max(0, self.now - max(before, free))
        return idle
