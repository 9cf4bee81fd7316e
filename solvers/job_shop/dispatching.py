"""Dispatching rules: priorities over the slots that can start now, played on the kernel of the environment.

A schedule is generated in time order without waiting (non-delay): at each decision the legal slot of least priority
starts; ties go to the lowest line, within a line to the shorter mode. ``generation="active"`` uses the
Giffler-Thompson procedure instead. With p the duration of the slot, R the remaining work of the job including its next
operation, n its remaining operations and C the work of the job up to and including the next operation:

===========  ==========================================  ===========================================
rule         priority (minimised)                        name
===========  ==========================================  ===========================================
spt, lpt     p, -p                                       shortest, longest processing time
mwkr, lwkr   -R, R                                       most, least work remaining
mopnr, sps   -n, n                                       most, fewest operations remaining
lrpt, srpt   -(R - p), R - p                             longest, shortest work after the next operation
fifo         end of the job's last started operation     first in, first out
fdd-mwkr     C / max(1, R)                               flow due date per work remaining
edd          due date                                    earliest due date
cr           (due - now) / max(1, R)                     critical ratio
atc          -w / p exp(-max(0, due - now - R) / (2 P))  apparent tardiness cost, P the mean duration
random       uniform                                     random legal dispatch
===========  ==========================================  ===========================================

Sources: Sels, Gheysen, Vanhoucke (2012) for the rules; Giffler and Thompson (1960) for active schedules.

    >>> from orl.envs.job_shop.builders import job_shop
    >>> DispatchingRule("spt").solve(job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]])).objective
    6.0
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from orl.common.counter_noise_numba import uniform
from orl.common.errors import InputError, UnknownNameError
from orl.common.kernel_batches import kernel_batches
from orl.common.problem import Progress, SolveResult, Status
from orl.envs.job_shop import kernel
from orl.envs.job_shop.arena import (
    DEAD,
    END,
    MEAN_DURATION,
    MODE,
    N_FIXED,
    N_JOBS,
    N_LINES,
    NOW,
    OP,
    PREDS_LEFT,
    START,
    Arena,
    Flags,
    Floats,
    Ints,
    Layout,
    Longs,
)
from orl.envs.job_shop.instance import Schedule, ShopInstance

RULES = (
    "spt",
    "lpt",
    "mwkr",
    "lwkr",
    "mopnr",
    "sps",
    "lrpt",
    "srpt",
    "fifo",
    "fdd-mwkr",
    "random",
    "edd",
    "cr",
    "atc",
)
(SPT, LPT, MWKR, LWKR, MOPNR, SPS, LRPT, SRPT, FIFO, FDD_MWKR, RANDOM, EDD, CR, ATC) = range(len(RULES))
SKIP = 0.25
"""Randomised rules pass over the best remaining slot with this probability."""


@njit(cache=True)
def slot_priorities(
    rule: int,
    L: Layout,
    p: Ints,
    longs: Longs,
    floats: Floats,
    s: Ints,
    clock: Longs,
    mask: Flags,
    max_modes: int,
    key: int,
    priority: Floats,
) -> None:
    """Priority of every legal slot, infinite elsewhere (float64[S], written). ``key`` seeds the random rule."""
    n_jobs = longs[N_JOBS]
    work = np.zeros(n_jobs, np.int64)
    left = np.zeros(n_jobs, np.int64)
    done = np.zeros(n_jobs, np.int64)
    last_end = np.zeros(n_jobs, np.int64)
    for line in range(longs[N_LINES]):
        first = p[L.line_ptr + line]
        j = p[L.job + p[L.line_op + first]]
        position = s[L.position + line]
        work[j] += s[L.work + line]
        left[j] += p[L.line_ptr + line + 1] - first - position
        done[j] += p[L.root_work + line] - s[L.work + line]
        if position > 0:
            last_end[j] = max(last_end[j], s[L.ops + OP * p[L.line_op + first + position - 1] + END])
    for line in range(longs[N_LINES]):
        at = p[L.line_ptr + line] + s[L.position + line]
        for m in range(max_modes):
            priority[line * max_modes + m] = np.inf
        if at == p[L.line_ptr + line + 1]:
            continue
        o = p[L.line_op + at]
        j = p[L.job + o]
        shortest = p[L.min_duration + o]
        for m in range(p[L.mode_ptr + o + 1] - p[L.mode_ptr + o]):
            slot = line * max_modes + m
            if not mask[slot]:
                continue
            duration = p[L.mode_duration + p[L.mode_ptr + o] + m]
            value = 0.0
            if rule == SPT:
                value = duration
            elif rule == LPT:
                value = -duration
            elif rule == MWKR:
                value = -work[j]
            elif rule == LWKR:
                value = work[j]
            elif rule == MOPNR:
                value = -left[j]
            elif rule == SPS:
                value = left[j]
            elif rule == LRPT:
                value = -(work[j] - shortest)
            elif rule == SRPT:
                value = work[j] - shortest
            elif rule == FIFO:
                value = last_end[j]
            elif rule == FDD_MWKR:
                value = (done[j] + shortest) / max(1, work[j])
            elif rule == RANDOM:
                value = uniform(key, clock[N_FIXED], slot, 1)
            elif rule == EDD:
                value = p[L.due + j]
            elif rule == CR:
                value = (p[L.due + j] - clock[NOW]) / max(1, work[j])
            elif rule == ATC:
                slack = max(0, p[L.due + j] - clock[NOW] - work[j])
                value = -p[L.weight + j] / max(1, duration) * np.exp(-slack / (2.0 * floats[MEAN_DURATION]))
            priority[slot] = value


@njit(cache=True)
def choose_slot(
    L: Layout, p: Ints, longs: Longs, s: Ints, clock: Longs, max_modes: int, priority: Floats, skip: float, key: int
) -> int:
    """The slot of least priority, or the no-op when none is legal.

    Ties: lowest line, then shorter mode. With ``skip`` > 0 the best remaining slot is passed over with that
    probability, again and again (rank-biased random sampling); the worst slot is never passed over.
    """
    draw = 0
    while True:
        best, second = -1, False
        for line in range(longs[N_LINES]):
            at = p[L.line_ptr + line] + s[L.position + line]
            for m in range(max_modes):
                slot = line * max_modes + m
                if priority[slot] == np.inf:
                    continue
                if best < 0:
                    best = slot
                    continue
                second = True
                better = priority[slot] < priority[best]
                if priority[slot] == priority[best] and best // max_modes == line:
                    first_mode = L.mode_duration + p[L.mode_ptr + p[L.line_op + at]]
                    better = p[first_mode + m] < p[first_mode + best % max_modes]
                if better:
                    best = slot
        if best < 0:
            return L.n_slots
        if not second or skip <= 0.0 or uniform(key, clock[N_FIXED], draw, 0) >= skip:
            return best
        priority[best] = np.inf
        draw += 1


@njit(cache=True)
def play_rule(
    rule: int,
    active: bool,
    L: Layout,
    p: Ints,
    longs: Longs,
    floats: Floats,
    s: Ints,
    clock: Longs,
    mask: Flags,
    c: kernel.Config,
    skip: float,
    key: int,
) -> None:
    """One complete episode of the rule from the root of the instance, non-delay or ``active``."""
    priority = np.empty(L.n_slots, np.float64)
    kernel.reset_one(L, p, longs, s, clock, mask, c)
    while not kernel.finished(longs, clock):
        if active:
            _mask_conflict_set(L, p, longs, s, mask)
        slot_priorities(rule, L, p, longs, floats, s, clock, mask, c.max_modes, key, priority)
        action = choose_slot(L, p, longs, s, clock, c.max_modes, priority, skip, key)
        if active:
            clock[NOW] = s[L.ops + OP * s[L.next_op + action] + START]
        kernel.step_one(L, p, longs, floats, s, clock, mask, c, action)


@njit(cache=True)
def _mask_conflict_set(L: Layout, p: Ints, longs: Longs, s: Ints, mask: Flags) -> None:
    """Giffler-Thompson: mark the operations that could delay the earliest possible completion.

    The operation that could finish first names the machine; marked are the operations waiting for that machine that
    could start before then. Single-mode operations on machines only.
    """
    earliest, machine = np.int64(2**40), -1
    for line in range(longs[N_LINES]):
        o = s[L.next_op + line]
        if o >= 0 and s[L.ops + OP * o + PREDS_LEFT] == 0 and s[L.ops + OP * o + END] < earliest:
            earliest = s[L.ops + OP * o + END]
            machine = p[L.primary + p[L.mode_ptr + o]]
    for line in range(longs[N_LINES]):
        o = s[L.next_op + line]
        mask[line] = False
        if o >= 0 and s[L.ops + OP * o + PREDS_LEFT] == 0 and p[L.primary + p[L.mode_ptr + o]] == machine:
            mask[line] = s[L.ops + OP * o + START] < earliest or s[L.ops + OP * o + END] == earliest


@dataclass(frozen=True)
class DispatchingRule:
    """A rule as a solver, deterministic or best of several randomised runs.

    Args:
        rule: One of ``RULES``.
        samples: Runs; the first is deterministic, the others pass over the best slot with probability ``SKIP``.
        generation: ``"non-delay"`` (any instance) or ``"active"`` (single-mode operations on one machine each).

    The bound reported is the instance's own lower bound. Rules need no hint and ignore it.
    """

    rule: str = "spt"
    samples: int = 1
    generation: str = "non-delay"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UnknownNameError("rule", self.rule, RULES)
        if self.samples < 1:
            raise InputError("bad number of samples", field="samples", value=self.samples, expected=">= 1")
        if self.generation not in ("non-delay", "active"):
            raise InputError(
                "unknown generation", field="generation", value=self.generation, expected="non-delay or active"
            )

    @property
    def name(self) -> str:
        """Key of the rule, with ``-best-of-n`` for several samples."""
        base = self.rule if self.generation == "non-delay" else f"{self.rule}-active"
        return base if self.samples == 1 else f"{base}-best-of-{self.samples}"

    def solve(
        self,
        instance: ShopInstance,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        hint: Schedule | None = None,
    ) -> SolveResult:
        """Play the rule; stops between samples at the time limit. ``feasible`` unless the bound is met."""
        require_due_dates(self.rule, instance)
        active = self.generation == "active"
        if active:
            _require_machines(instance)
        begin = time.perf_counter()
        arena = Arena([instance], 1, instance.n_lines, instance.max_modes)
        config = kernel.Config(1, 0, 0, kernel.REWARD_MAKESPAN, instance.max_modes, 0)
        a, index = arena, RULES.index(self.rule)
        data = (a.layout, a.ints[0], a.longs[0], a.floats[0], a.state[0], a.clock[0], a.mask[0], config)
        bound = float(instance.lower_bound())
        best: Schedule | None = None
        value = np.inf
        log: list[Progress] = []
        try:
            for sample in range(self.samples):
                key = (seed % 2**31 << 20) + sample
                play_rule(index, active, *data, 0.0 if sample == 0 else SKIP, key)
                if a.clock[0, DEAD] == 0:
                    objective = float(instance.objective_value(a.operations(0, END)))
                    if objective < value:
                        value = objective
                        best = Schedule(a.operations(0, START).copy(), a.operations(0, MODE).copy())
                        log.append(Progress(time.perf_counter() - begin, objective, bound))
                if value <= bound or (time_limit is not None and time.perf_counter() - begin > time_limit):
                    break
        except KeyboardInterrupt:
            pass
        seconds = time.perf_counter() - begin
        if best is None:
            return SolveResult("unknown", bound=bound, seconds=seconds)
        status: Status = "optimal" if value <= bound else "feasible"
        return SolveResult(status, best, value, bound, seconds=seconds, log=tuple(log))


class RulePolicy:
    """A rule with SB3's ``predict``, reading the kernel state of the env it is built on.

    Args:
        rule: One of ``RULES``.
        env: ``JobShopEnv`` (also wrapped), ``JobShopVectorEnv``, or an SB3 VecEnv over them.

    The random rule, and ``predict(deterministic=False)`` of every rule, draw from numpy's global generator as SB3's
    policies draw from torch's; ``orl.evaluate`` seeds both for each row.

    >>> import gymnasium
    >>> env = gymnasium.make("orl:orl/JobShop-v0", instance="ft06")
    >>> policy = RulePolicy("mwkr", env)
    >>> obs, info = env.reset(seed=0)
    >>> done = False
    >>> while not done:
    ...     action, _ = policy.predict(obs)
    ...     obs, reward, done, _, info = env.step(action)
    >>> info["makespan"]
    61.0
    """

    def __init__(self, rule: str, env: Any) -> None:
        if rule not in RULES:
            raise UnknownNameError("rule", rule, RULES)
        self.rule, self.env = rule, env
        self._index = RULES.index(rule)
        self._batches, self._single = kernel_batches(env, expected="JobShopEnv or JobShopVectorEnv")

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Actions of all copies, int64[N] (a scalar array for a single env); the observation is not needed."""
        actions = []
        random = not deterministic or self._index == RANDOM
        key = int(np.random.randint(2**31)) << 20 if random else 0  # noqa: NPY002
        for batch in self._batches:
            a = batch.arena
            priority = np.empty(a.n_slots)
            for b in range(a.n_copies):
                require_due_dates(self.rule, batch.instance(b))
                k, modes = a.row[b], batch.config.max_modes
                slot_priorities(
                    self._index,
                    a.layout,
                    a.ints[k],
                    a.longs[k],
                    a.floats[k],
                    a.state[b],
                    a.clock[b],
                    a.mask[b],
                    modes,
                    key,
                    priority,
                )
                key += 1
                skip = 0.0 if deterministic else SKIP
                actions.append(
                    choose_slot(a.layout, a.ints[k], a.longs[k], a.state[b], a.clock[b], modes, priority, skip, key)
                )
        return np.array(actions[0] if self._single else actions, np.int64), state


def require_due_dates(rule: str, instance: ShopInstance) -> None:
    """Raise InputError when a due-date rule meets an instance without due dates."""
    if rule in ("edd", "cr", "atc") and not instance.due.any():
        raise InputError("the instance has no due dates", source=instance.name, field="rule", value=rule)


def _require_machines(instance: ShopInstance) -> None:
    uses = np.diff(instance.use_ptr)
    if instance.max_modes > 1 or (uses != 1).any() or (instance.capacity > 1).any():
        raise InputError(
            "active schedules are generated for single-mode operations on one machine each",
            source=instance.name,
            field="generation",
            value="active",
            expected="non-delay",
        )
