"""Instances from seeds: the published benchmark generators, and random training instances.

Published: Taillard, "Benchmarks for basic scheduling problems", EJOR 64 (1993), and Demirkol, Mehta and Uzsoy,
"Benchmarks for shop scheduling problems", EJOR 109 (1998). Both draw from the minimal-standard Lehmer generator
``x <- 16807 x mod (2**31 - 1)``.

Training: frozen dataclasses called with a :class:`numpy.random.Generator`. Every size is an integer or a pair
``(low, high)``, inclusive, drawn anew at each call; ``largest`` is an instance with the maximum sizes, for padding.

    >>> import numpy as np
    >>> generate = UniformJobShop(n_jobs=(3, 5), n_machines=4)
    >>> generate(np.random.default_rng(0)).name, generate.largest.n_lines, generate.largest.n_ops
    ('uniform_job_shop_5x4', 5, 20)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.job_shop.builders import flexible_job_shop, flexible_job_shop_arrays, flow_shop, job_shop, open_shop
from orl.envs.job_shop.instance import ShopInstance
from orl.envs.job_shop.model import MAX_HORIZON, Mode, Model

LEHMER_MODULUS = 2**31 - 1
Size = int | tuple[int, int]
Matrix = npt.NDArray[np.int32]


# ---- published generators ------------------------------------------------------------------------------------------
def lehmer(seed: int) -> Iterator[int]:
    """The stream ``x <- 16807 x mod (2**31 - 1)`` after ``seed``, which must be in 1..2**31 - 2.

    >>> stream = lehmer(1)
    >>> next(stream), next(stream)
    (16807, 282475249)
    """
    if not 1 <= seed < LEHMER_MODULUS:
        raise InputError("bad seed", field="seed", value=seed, expected=f"1..{LEHMER_MODULUS - 1}")

    def stream(x: int) -> Iterator[int]:
        while True:
            x = 16807 * x % LEHMER_MODULUS
            yield x

    return stream(seed)


def _uniform(stream: Iterator[int], low: int, high: int) -> int:
    """Taillard's U(low, high): ``low + floor(x / (2**31 - 1) * (high - low + 1))`` in double precision."""
    return low + int(next(stream) / LEHMER_MODULUS * (high - low + 1))


def taillard_matrices(n_jobs: int, n_machines: int, time_seed: int, machine_seed: int) -> tuple[Matrix, Matrix]:
    """Machines and durations, both int32 ``[n_jobs, n_machines]``, of Taillard's job and open shops."""
    times, swaps = lehmer(time_seed), lehmer(machine_seed)
    durations = [[_uniform(times, 1, 99) for _ in range(n_machines)] for _ in range(n_jobs)]
    machines = []
    for _ in range(n_jobs):
        order = list(range(n_machines))
        for k in range(n_machines):
            other = _uniform(swaps, k, n_machines - 1)
            order[k], order[other] = order[other], order[k]
        machines.append(order)
    return np.array(machines, np.int32), np.array(durations, np.int32)


def taillard_job_shop(
    n_jobs: int, n_machines: int, time_seed: int, machine_seed: int, *, name: str = "taillard_job_shop"
) -> ShopInstance:
    """A job shop of Taillard (1993), durations U(1, 99).

    >>> taillard_job_shop(15, 15, 840612802, 398197754, name="ta01").makespan_bound
    1005
    """
    return job_shop(*taillard_matrices(n_jobs, n_machines, time_seed, machine_seed), name=name, n_machines=n_machines)


def taillard_open_shop(
    n_jobs: int, n_machines: int, time_seed: int, machine_seed: int, *, name: str = "taillard_open_shop"
) -> ShopInstance:
    """An open shop of Taillard (1993): the matrices of a job shop, the order of a job's operations left free."""
    return open_shop(*taillard_matrices(n_jobs, n_machines, time_seed, machine_seed), name=name, n_machines=n_machines)


def taillard_flow_shop(
    n_jobs: int, n_machines: int, time_seed: int, *, name: str = "taillard_flow_shop"
) -> ShopInstance:
    """A flow shop of Taillard (1993): durations U(1, 99), drawn machine by machine.

    >>> taillard_flow_shop(20, 5, 873654221).mode_duration[::5][:6].tolist()
    [54, 83, 15, 71, 77, 36]
    """
    times = lehmer(time_seed)
    durations = [[_uniform(times, 1, 99) for _ in range(n_jobs)] for _ in range(n_machines)]
    return flow_shop(np.array(durations, np.int32).T, name=name)


def demirkol_job_shop(
    n_jobs: int, n_machines: int, seed: int, *, two_sets: bool = False, name: str = "demirkol_job_shop"
) -> ShopInstance:
    """A job shop of Demirkol, Mehta and Uzsoy (1998), durations U(1, 200).

    Per job, one draw a machine gives the routing (machines by increasing draw), then one draw an operation gives the
    durations. With ``two_sets`` (dmu41-80) the first half of the machines is visited before the other. The published
    files come out only when a draw is rounded to single precision and then multiplied in double precision.

    >>> demirkol_job_shop(20, 15, 155125852, name="dmu01").n_ops
    300
    """
    stream = lehmer(seed)
    half = n_machines // 2 if two_sets else 0
    machines, durations = [], []
    for _ in range(n_jobs):
        draws = np.array([next(stream) / 2**31 for _ in range(n_machines)]).astype(np.float32)
        order = [np.argsort(draws[:half], kind="stable"), half + np.argsort(draws[half:], kind="stable")]
        machines.append(np.concatenate(order))
        draws = np.array([next(stream) / 2**31 for _ in range(n_machines)]).astype(np.float32)
        durations.append(np.floor(1.0 + 200.0 * draws.astype(np.float64)).astype(np.int32))
    return job_shop(np.array(machines, np.int32), np.array(durations), name=name, n_machines=n_machines)


def lehmer_flexible_job_shop(
    n_jobs: int, n_machines: int, n_operations: int, seed: int, *, name: str = "lehmer_flexible_job_shop"
) -> ShopInstance:
    """A flexible job shop of this project, from one Lehmer seed, so that it is the same under every numpy.

    Per operation, in this order: the number of alternatives U(1, 3); the machines, as a partial shuffle of
    ``0..n_machines - 1``; and a duration U(1, 20) for each, machines increasing.

    >>> lehmer_flexible_job_shop(2, 2, 3, seed=1).n_ops
    6
    """
    stream = lehmer(seed)
    jobs = []
    for _ in range(n_jobs):
        job = []
        for _ in range(n_operations):
            n_modes = min(_uniform(stream, 1, 3), n_machines)
            order = list(range(n_machines))
            for k in range(n_modes):
                other = _uniform(stream, k, n_machines - 1)
                order[k], order[other] = order[other], order[k]
            job.append([(machine, _uniform(stream, 1, 20)) for machine in sorted(order[:n_modes])])
        jobs.append(job)
    return flexible_job_shop(jobs, name=name, n_machines=n_machines)


# ---- random training instances -------------------------------------------------------------------------------------
def _draw(size: Size, rng: np.random.Generator) -> int:
    return size if isinstance(size, int) else int(rng.integers(size[0], size[1] + 1))


def _draws(size: Size, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    low, high = (size, size) if isinstance(size, int) else size
    return rng.integers(low, high + 1, count)


def _high(size: Size) -> int:
    return size if isinstance(size, int) else size[1]


def _check_sizes(generator: object, **lowest: int) -> None:
    """Raise InputError unless every named field is an integer, or an ordered pair, not below its lowest value."""
    source = type(generator).__name__
    for name, low in lowest.items():
        value = getattr(generator, name)
        pair = (value, value) if isinstance(value, int) else value
        integers = isinstance(pair, tuple) and len(pair) == 2 and all(type(v) is int for v in pair)
        if not integers or not low <= pair[0] <= pair[1] <= MAX_HORIZON:
            expected = f"an integer >= {low} or a pair (low, high) of them"
            raise InputError("bad size", source=source, field=name, value=value, expected=expected)
    if {"low", "high"} <= {f.name for f in fields(generator)}:  # type: ignore[arg-type]
        low, high = generator.low, generator.high  # type: ignore[attr-defined]
        if type(low) is not int or type(high) is not int or not 0 <= low <= high <= MAX_HORIZON:
            raise InputError(
                "bad durations", source=source, field="low, high", value=(low, high), expected="0 <= low <= high"
            )


@dataclass(frozen=True)
class UniformJobShop:
    """Job shops: machine order a random permutation a job, durations uniform in ``low..high`` (inclusive)."""

    n_jobs: Size = 6
    n_machines: Size = 6
    low: int = 1
    high: int = 99

    def __post_init__(self) -> None:
        _check_sizes(self, n_jobs=1, n_machines=1)

    def __call__(self, rng: np.random.Generator) -> ShopInstance:
        """A random instance drawn from ``rng``."""
        machines, durations = _matrices(self.n_jobs, self.n_machines, self.low, self.high, rng)
        name = f"uniform_job_shop_{'x'.join(map(str, durations.shape))}"
        return job_shop(machines, durations, name=name, n_machines=durations.shape[1])

    @property
    def largest(self) -> ShopInstance:
        """An instance with the most jobs, machines and the longest durations."""
        shape = (_high(self.n_jobs), _high(self.n_machines))
        return job_shop(_identity(*shape), np.full(shape, self.high), name="largest_job_shop")


@dataclass(frozen=True)
class UniformFlowShop:
    """Flow shops with durations uniform in ``low..high`` (inclusive)."""

    n_jobs: Size = 6
    n_machines: Size = 6
    low: int = 1
    high: int = 99

    def __post_init__(self) -> None:
        _check_sizes(self, n_jobs=1, n_machines=1)

    def __call__(self, rng: np.random.Generator) -> ShopInstance:
        """A random instance drawn from ``rng``."""
        shape = (_draw(self.n_jobs, rng), _draw(self.n_machines, rng))
        durations = rng.integers(self.low, self.high + 1, shape)
        return flow_shop(durations, name=f"uniform_flow_shop_{shape[0]}x{shape[1]}")

    @property
    def largest(self) -> ShopInstance:
        """An instance with the most jobs, machines and the longest durations."""
        return flow_shop(np.full((_high(self.n_jobs), _high(self.n_machines)), self.high), name="largest_flow_shop")


@dataclass(frozen=True)
class UniformOpenShop:
    """Open shops: one operation a job and machine, durations uniform in ``low..high`` (inclusive)."""

    n_jobs: Size = 4
    n_machines: Size = 4
    low: int = 1
    high: int = 99

    def __post_init__(self) -> None:
        _check_sizes(self, n_jobs=1, n_machines=1)

    def __call__(self, rng: np.random.Generator) -> ShopInstance:
        """A random instance drawn from ``rng``."""
        machines, durations = _matrices(self.n_jobs, self.n_machines, self.low, self.high, rng)
        name = f"uniform_open_shop_{'x'.join(map(str, durations.shape))}"
        return open_shop(machines, durations, name=name, n_machines=durations.shape[1])

    @property
    def largest(self) -> ShopInstance:
        """An instance with the most jobs, machines and the longest durations."""
        shape = (_high(self.n_jobs), _high(self.n_machines))
        return open_shop(_identity(*shape), np.full(shape, self.high), name="largest_open_shop")


@dataclass(frozen=True)
class UniformFlexibleJobShop:
    """Flexible job shops: every operation runs on one of a few distinct machines, with a duration of its own on each.

    ``n_operations`` is drawn for every job and ``n_alternatives`` for every operation (never above the machines).
    """

    n_jobs: Size = 6
    n_machines: Size = 6
    n_operations: Size = (4, 6)
    n_alternatives: Size = (1, 3)
    low: int = 1
    high: int = 20

    def __post_init__(self) -> None:
        _check_sizes(self, n_jobs=1, n_machines=1, n_operations=1, n_alternatives=1)

    def __call__(self, rng: np.random.Generator) -> ShopInstance:
        """A random instance drawn from ``rng``."""
        n_jobs, n_machines = _draw(self.n_jobs, rng), _draw(self.n_machines, rng)
        lengths = _draws(self.n_operations, rng, n_jobs)
        counts = np.minimum(_draws(self.n_alternatives, rng, int(lengths.sum())), n_machines)
        rank = np.argsort(np.argsort(rng.random((len(counts), n_machines)), axis=1), axis=1)
        machines = np.nonzero(rank < counts[:, None])[1]
        durations = rng.integers(self.low, self.high + 1, len(machines))
        name = f"uniform_flexible_job_shop_{n_jobs}x{n_machines}"
        return flexible_job_shop_arrays(lengths, counts, machines, durations, name=name, n_machines=n_machines)

    @property
    def largest(self) -> ShopInstance:
        """An instance with the most jobs, operations, alternatives and machines and the longest durations."""
        n_machines = _high(self.n_machines)
        modes = [(m, self.high) for m in range(min(_high(self.n_alternatives), n_machines))]
        jobs = [[modes] * _high(self.n_operations)] * _high(self.n_jobs)
        return flexible_job_shop(jobs, name="largest_flexible_job_shop", n_machines=n_machines)


@dataclass(frozen=True)
class UniformProject:
    """Projects: activities with one or more modes on cumulative resources, and an acyclic precedence graph.

    Attributes:
        n_activities: Number of activities.
        n_resources: Number of resources.
        capacity: Units of a resource.
        n_modes: Modes of an activity.
        max_lag: Lags of the arcs are uniform in ``0..max_lag``.
        density: Probability of an arc from an activity to a later one.
        low, high: Durations are uniform in ``low..high`` (inclusive).
    """

    n_activities: Size = 8
    n_resources: Size = 2
    capacity: Size = (1, 4)
    n_modes: Size = 1
    max_lag: int = 0
    density: float = 0.2
    low: int = 1
    high: int = 10

    def __post_init__(self) -> None:
        _check_sizes(self, n_activities=1, n_resources=1, capacity=1, n_modes=1, max_lag=0)
        if not isinstance(self.max_lag, int) or not 0.0 <= self.density <= 1.0:
            value = (self.max_lag, self.density)
            raise InputError("bad arcs", source="UniformProject", field="max_lag, density", value=value)

    def __call__(self, rng: np.random.Generator) -> ShopInstance:
        """A random instance drawn from ``rng``."""
        n, n_resources = _draw(self.n_activities, rng), _draw(self.n_resources, rng)
        model = Model(f"uniform_project_{n}x{n_resources}")
        capacity = [_draw(self.capacity, rng) for _ in range(n_resources)]
        handles = [model.cumulative(f"R{r}", units) for r, units in enumerate(capacity)]
        for o in range(n):
            modes = []
            for _ in range(_draw(self.n_modes, rng)):
                demand = [int(rng.integers(0, units + 1)) for units in capacity]
                modes.append(Mode(int(rng.integers(self.low, self.high + 1)), dict(zip(handles, demand, strict=True))))
            model.interval(f"A{o}", modes)
        arcs = np.argwhere(np.triu(rng.random((n, n)) < self.density, 1))
        for before, after in arcs.tolist():
            model.precedence(before, after, int(rng.integers(0, self.max_lag + 1)))
        return model.compile()

    @property
    def largest(self) -> ShopInstance:
        """An instance with the most activities, resources, modes and arcs and the longest durations."""
        n = _high(self.n_activities)
        model = Model("largest_project")
        handles = [model.cumulative(f"R{r}", _high(self.capacity)) for r in range(_high(self.n_resources))]
        mode = Mode(self.high, dict.fromkeys(handles, _high(self.capacity)))
        for o in range(n):
            model.interval(f"A{o}", [mode] * _high(self.n_modes))
        for before in range(n if self.density > 0 else 0):
            for after in range(before + 1, n):
                model.precedence(before, after, self.max_lag)
        return model.compile()


def _matrices(n_jobs: Size, n_machines: Size, low: int, high: int, rng: np.random.Generator) -> tuple[Matrix, Matrix]:
    shape = (_draw(n_jobs, rng), _draw(n_machines, rng))
    machines = rng.permuted(_identity(*shape), axis=1)
    return machines, rng.integers(low, high + 1, shape).astype(np.int32)


def _identity(n_jobs: int, n_machines: int) -> Matrix:
    return np.tile(np.arange(n_machines, dtype=np.int32), (n_jobs, 1))
