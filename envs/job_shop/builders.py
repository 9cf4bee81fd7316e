"""Shops and projects from plain matrices, compiled to a :class:`~orl.envs.job_shop.instance.ShopInstance`.

The four shops go straight to arrays, vectorised, because random generators build one at every reset; a test holds the
result equal, field by field, to :meth:`orl.envs.job_shop.model.Model.compile`. Machines are numbered from 0 and have
capacity 1. Operations are numbered job by job and named ``J<job>.<position>``, machines ``M<machine>``.

    >>> instance = job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]], name="tiny")
    >>> instance.n_ops, instance.n_lines, instance.makespan_bound, instance.op_names[1]
    (4, 2, 6, 'J0.1')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.job_shop.instance import NO_DEADLINE, OBJECTIVES, IntArray, Objective, ShopInstance
from orl.envs.job_shop.model import MAX_HORIZON, Mode, Model

MAX_MACHINES = 100_000

IntRows = Sequence[Sequence[int]] | npt.NDArray[np.integer]
IntRow = Sequence[int] | npt.NDArray[np.integer]


def job_shop(
    machines: IntRows,
    durations: IntRows,
    *,
    name: str = "job_shop",
    n_machines: int | None = None,
    release: IntRow | None = None,
    due: IntRow | None = None,
    weight: IntRow | None = None,
    objective: Objective = "makespan",
) -> ShopInstance:
    """Every job is a chain of operations, each on one machine.

    Args:
        machines: ``[J][K_j]`` machine of operation k of job j. Rows may differ in length (ragged) and a machine may
            come back (re-entrant).
        durations: ``[J][K_j]`` integer durations >= 0, same row lengths.
        name: Name of the instance.
        n_machines: Number of machines; left out, the largest machine number plus one.
        release: ``[J]`` earliest start of the jobs (default 0).
        due: ``[J]`` due dates (default 0), used by ``weighted_tardiness``.
        weight: ``[J]`` weights >= 0 (default 1), used by ``weighted_tardiness``.
        objective: ``makespan``, ``total_flow`` or ``weighted_tardiness``.

    Raises:
        InputError: different row lengths, a job without operations, a number that is not an integer in its range.
    """
    return _fixed_machines("job_shop", machines, durations, n_machines, _Jobs(name, release, due, weight, objective))


def flow_shop(
    durations: IntRows,
    *,
    name: str = "flow_shop",
    release: IntRow | None = None,
    due: IntRow | None = None,
    weight: IntRow | None = None,
    objective: Objective = "makespan",
) -> ShopInstance:
    """Every job visits the machines 0, 1, ... in this order; ``durations`` is ``[J][M]``. See :func:`job_shop`.

    Jobs may overtake each other between machines (not a permutation flow shop).

    >>> flow_shop([[2, 3], [4, 1]]).makespan_bound
    7
    """
    machines = [range(len(row)) for row in durations]
    options = _Jobs(name, release, due, weight, objective)
    return _fixed_machines("flow_shop", machines, durations, None, options)


def open_shop(
    machines: IntRows,
    durations: IntRows,
    *,
    name: str = "open_shop",
    n_machines: int | None = None,
    release: IntRow | None = None,
    due: IntRow | None = None,
    weight: IntRow | None = None,
    objective: Objective = "makespan",
) -> ShopInstance:
    """Operations of a job in any order, one at a time. Arguments as for :func:`job_shop`.

    >>> open_shop([[0, 1]], [[3, 4]]).makespan_bound
    7
    """
    return _fixed_machines("open_shop", machines, durations, n_machines, _Jobs(name, release, due, weight, objective))


def flexible_job_shop(
    jobs: Sequence[Sequence[Sequence[tuple[int, int]]]],
    *,
    name: str = "flexible_job_shop",
    n_machines: int | None = None,
    release: IntRow | None = None,
    due: IntRow | None = None,
    weight: IntRow | None = None,
    objective: Objective = "makespan",
) -> ShopInstance:
    """Chains of operations that choose their machine: ``jobs[j][k]`` lists the ``(machine, duration)`` modes.

    >>> flexible_job_shop([[[(0, 5), (1, 3)], [(1, 2)]]]).makespan_bound
    5
    """
    source = f"flexible_job_shop {name!r}"
    lengths = np.array([len(job) for job in jobs], np.int64)
    counts = np.array([len(modes) for job in jobs for modes in job], np.int64)
    _check_lengths(lengths, source)
    pairs = [pair for job in jobs for modes in job for pair in modes]
    for k, pair in enumerate(pairs):
        if len(pair) != 2:
            where = _where(int(np.searchsorted(np.cumsum(counts), k, side="right")), lengths)
            expected = "a pair (machine, duration)"
            raise InputError("bad mode", source=source, field=where, value=pair, expected=expected)
    return flexible_job_shop_arrays(
        lengths,
        counts,
        [pair[0] for pair in pairs],
        [pair[1] for pair in pairs],
        name=name,
        n_machines=n_machines,
        release=release,
        due=due,
        weight=weight,
        objective=objective,
    )


def flexible_job_shop_arrays(
    job_lengths: IntRow,
    mode_counts: IntRow,
    machines: IntRow,
    durations: IntRow,
    *,
    name: str = "flexible_job_shop",
    n_machines: int | None = None,
    release: IntRow | None = None,
    due: IntRow | None = None,
    weight: IntRow | None = None,
    objective: Objective = "makespan",
) -> ShopInstance:
    """:func:`flexible_job_shop` from flat arrays, without a Python loop over modes.

    ``job_lengths`` is ``[J]`` operations a job, ``mode_counts`` ``[N]`` modes an operation, ``machines`` and
    ``durations`` ``[Q]`` one entry a mode.

    >>> flexible_job_shop_arrays([2], [2, 1], [0, 1, 1], [5, 3, 2]).makespan_bound
    5
    """
    source = f"flexible_job_shop {name!r}"
    lengths, counts = np.asarray(job_lengths, np.int64), np.asarray(mode_counts, np.int64)
    _check_lengths(lengths, source)
    totals = (int(lengths.sum()), int(counts.sum()), int(counts.sum()))
    if (len(counts), len(machines), len(durations)) != totals or lengths.min() < 0 or counts.min() < 0:
        found = (len(counts), len(machines), len(durations))
        raise InputError("wrong array lengths", source=source, field="mode_counts", value=found, expected=f"{totals}")
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise InputError("an operation without a mode", source=source, field=_where(int(empty[0]), lengths))
    owner = np.repeat(np.arange(len(counts)), counts)
    machine = _integers(machines, "machine", source, owner, lengths, MAX_HORIZON)
    duration = _integers(durations, "duration", source, owner, lengths, MAX_HORIZON)
    options = _Jobs(name, release, due, weight, objective)
    return _assemble("flexible_job_shop", lengths, counts, machine, duration, n_machines, options)


def rcpsp(
    durations: IntRow,
    demands: IntRows,
    capacities: IntRow,
    precedences: Sequence[tuple[int, int]],
    *,
    name: str = "rcpsp",
) -> ShopInstance:
    """A resource-constrained project: activities with demands on cumulative resources, and precedences.

    Args:
        durations: ``[N]`` integer durations >= 0.
        demands: ``[N][R]`` units that an activity takes of every resource while it runs.
        capacities: ``[R]`` units available.
        precedences: pairs ``(before, after)`` of activities.
        name: Name of the instance.

    Raises:
        InputError: what :meth:`Model.compile` rejects, or rows of different length.

    >>> rcpsp([3, 2, 2], [[2], [1], [1]], [2], [(0, 1)]).makespan_bound
    5
    """
    model = Model(name)
    if len(demands) != len(durations):
        raise InputError("wrong number of rows", source=f"model {name!r}", field="demands", value=len(demands))
    resources = [model.cumulative(f"R{r}", capacity) for r, capacity in enumerate(capacities)]
    for o, (duration, row) in enumerate(zip(durations, demands, strict=True)):
        if len(row) != len(resources):
            raise InputError(
                "wrong row length",
                source=f"model {name!r}",
                field=f"demands of A{o}",
                value=len(row),
                expected=f"{len(resources)} numbers",
            )
        model.interval(f"A{o}", [Mode(duration, dict(zip(resources, row, strict=True)))])
    for before, after in precedences:
        model.precedence(before, after)
    return model.compile()


# ---- from rows to arrays -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Jobs:
    """What all shops take besides machines and durations."""

    name: str
    release: IntRow | None
    due: IntRow | None
    weight: IntRow | None
    objective: Objective


def _fixed_machines(
    kind: str, machines: IntRows, durations: IntRows, n_machines: int | None, jobs: _Jobs
) -> ShopInstance:
    source = f"{kind} {jobs.name!r}"
    lengths = np.array([len(row) for row in machines], np.int64)
    _check_lengths(lengths, source)
    others = [len(row) for row in durations]
    if len(others) != len(lengths):
        raise InputError(
            "wrong number of rows", source=source, field="durations", value=len(others), expected=f"{len(lengths)} jobs"
        )
    for j in np.flatnonzero(lengths != others):
        expected = f"{lengths[j]} numbers, as many as machines"
        raise InputError("wrong row length", source=source, field=f"job {j}", value=others[j], expected=expected)
    owner = np.arange(int(lengths.sum()))
    machine = _integers(_flat(machines), "machine", source, owner, lengths, MAX_HORIZON)
    duration = _integers(_flat(durations), "duration", source, owner, lengths, MAX_HORIZON)
    return _assemble(kind, lengths, np.ones(len(owner), np.int64), machine, duration, n_machines, jobs)


def _flat(rows: IntRows) -> IntRow:
    return rows.ravel() if isinstance(rows, np.ndarray) else [value for row in rows for value in row]


def _check_lengths(lengths: npt.NDArray[np.int64], source: str) -> None:
    if len(lengths) == 0:
        raise InputError("no jobs", source=source, field="jobs", expected="at least one")
    if not lengths.all():
        j = int(np.flatnonzero(lengths == 0)[0])
        raise InputError("a job without operations", source=source, field=f"job {j}", expected="at least one")


def _where(operation: int, lengths: npt.NDArray[np.int64]) -> str:
    j = int(np.searchsorted(np.cumsum(lengths), operation, side="right"))
    return f"job {j}, operation {operation - int(lengths[:j].sum())}"


def _integers(
    values: IntRow, what: str, source: str, owner: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], high: int
) -> IntArray:
    """``values`` as int32 in 0..high; the error names job and operation (``owner``) of the first bad one."""
    try:
        array = np.asarray(values)
    except ValueError:  # nested rows of different length
        array = np.zeros(0)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        k = next(k for k, value in enumerate(values) if not _is_index(value))
        where, found = f"{_where(int(owner[k]), lengths)}, {what}", values[k]
        raise InputError(f"{what} is not an integer", source=source, field=where, value=found, expected=f"0..{high}")
    bad = np.flatnonzero((array < 0) | (array > high))
    if len(bad):
        where = f"{_where(int(owner[bad[0]]), lengths)}, {what}"
        value = int(array[bad[0]])
        problem = f"negative {what}" if value < 0 else f"{what} out of range"
        raise InputError(problem, source=source, field=where, value=value, expected=f"0..{high}")
    return array.astype(np.int32)


def _is_index(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(-(2**63) <= value < 2**63)


def _per_job(values: IntRow | None, default: int, low: int, n_jobs: int, field: str, source: str) -> IntArray:
    if values is None:
        return np.full(n_jobs, default, np.int32)
    array = np.asarray(values)
    if array.shape != (n_jobs,) or array.dtype.kind not in "iu":
        found = f"{array.dtype}{list(array.shape)}"
        raise InputError("wrong shape or type", source=source, field=field, value=found, expected=f"{n_jobs} integers")
    bad = np.flatnonzero((array < low) | (array > MAX_HORIZON))
    if len(bad):
        where, value = f"{field} of job {bad[0]}", int(array[bad[0]])
        raise InputError("out of range", source=source, field=where, value=value, expected=f"{low}..{MAX_HORIZON}")
    return array.astype(np.int32)


def _assemble(
    kind: str,
    lengths: npt.NDArray[np.int64],
    mode_counts: npt.NDArray[np.int64],
    machine: IntArray,
    duration: IntArray,
    n_machines: int | None,
    jobs: _Jobs,
) -> ShopInstance:
    """All arrays of a shop: chains of operations (or exclusive jobs in an open shop), one machine a mode."""
    source = f"{kind} {jobs.name!r}"
    n_jobs, n_ops, n_modes = len(lengths), len(mode_counts), len(machine)
    highest = int(machine.max())
    n_machines = highest + 1 if n_machines is None else n_machines
    if highest >= n_machines:
        owner = np.repeat(np.arange(n_ops), mode_counts)
        k = int(np.argmax(machine >= n_machines))
        where = f"{_where(int(owner[k]), lengths)}, machine"
        found, expected = int(machine[k]), f"0..{n_machines - 1}"
        raise InputError("machine out of range", source=source, field=where, value=found, expected=expected)
    if n_machines > MAX_MACHINES:
        raise InputError(
            "too many machines", source=source, field="machines", value=n_machines, expected=f"at most {MAX_MACHINES}"
        )
    if jobs.objective not in OBJECTIVES:
        raise InputError(
            "unknown objective", source=source, field="objective", value=jobs.objective, expected=f"one of {OBJECTIVES}"
        )
    release = _per_job(jobs.release, 0, 0, n_jobs, "release", source)
    mode_ptr = _pointer(mode_counts)
    shortest = np.minimum.reduceat(duration, mode_ptr[:-1])
    longest = np.maximum.reduceat(duration, mode_ptr[:-1])
    horizon = int(longest.sum(dtype=np.int64)) + int(release.max())
    if horizon > MAX_HORIZON:
        expected = f"a sum of at most {MAX_HORIZON}"
        raise InputError("the horizon is too long", source=source, field="durations", value=horizon, expected=expected)
    job = np.repeat(np.arange(n_jobs, dtype=np.int32), lengths)
    job_ptr = _pointer(lengths)
    capacity, resource_names = np.ones(n_machines, np.int32), [f"M{m}" for m in range(n_machines)]
    if kind == "open_shop":
        linked_after = linked_before = np.zeros(n_ops, bool)
        tail = np.zeros(n_ops, np.int32)
        line_ptr = np.arange(n_ops + 1, dtype=np.int32)
        use_ptr = np.arange(0, 2 * n_modes + 1, 2, dtype=np.int32)
        use_resource = np.stack([machine, n_machines + job], axis=1).ravel()
        capacity = np.ones(n_machines + n_jobs, np.int32)
        resource_names += [f"job {j}" for j in range(n_jobs)]
    else:
        linked_after, linked_before = np.ones(n_ops, bool), np.ones(n_ops, bool)
        linked_after[job_ptr[:-1]] = False
        linked_before[job_ptr[1:] - 1] = False
        done = np.cumsum(shortest, dtype=np.int32)
        tail = done[job_ptr[1:] - 1][job] - done
        line_ptr = job_ptr
        use_ptr = np.arange(n_modes + 1, dtype=np.int32)
        use_resource = machine
    pred_op = (np.flatnonzero(linked_after) - 1).astype(np.int32)
    succ_op = (np.flatnonzero(linked_before) + 1).astype(np.int32)
    return ShopInstance(
        name=jobs.name,
        kind=kind,
        mode_ptr=mode_ptr,
        mode_duration=duration,
        use_ptr=use_ptr,
        use_resource=use_resource,
        use_demand=np.ones(len(use_resource), np.int32),
        pred_ptr=_pointer(linked_after),
        pred_op=pred_op,
        pred_lag=np.zeros(len(pred_op), np.int32),
        succ_ptr=_pointer(linked_before),
        succ_op=succ_op,
        succ_lag=np.zeros(len(succ_op), np.int32),
        job=job,
        capacity=capacity,
        n_declared_resources=n_machines,
        release=release[job],
        deadline=np.full(n_ops, NO_DEADLINE, np.int32),
        tail=tail,
        line_ptr=line_ptr,
        line_op=np.arange(n_ops, dtype=np.int32),
        objective=jobs.objective,
        due=_per_job(jobs.due, 0, -MAX_HORIZON, n_jobs, "due", source),
        weight=_per_job(jobs.weight, 1, 0, n_jobs, "weight", source),
        op_names=tuple([f"J{j}.{k}" for j, length in enumerate(lengths.tolist()) for k in range(length)]),
        resource_names=tuple(resource_names),
    )


def _pointer(counts: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> IntArray:
    pointer = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=pointer[1:])
    return pointer
