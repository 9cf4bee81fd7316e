"""The contracts of one idea: instances are data, they check their solutions, and solvers report valid bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


def relative_gap(value: float, reference: float) -> float:
    """Relative distance of a minimised ``value`` above a ``reference``: ``(value - reference) / |reference|``.

    Zero when equal; infinite when the reference is 0 and the value is not.

    >>> relative_gap(110.0, 100.0)
    0.1
    """
    if value == reference:
        return 0.0
    return (value - reference) / abs(reference) if reference != 0 else math.copysign(math.inf, value - reference)


@dataclass(frozen=True)
class Check:
    """Verdict of an instance on a solution.

    Attributes:
        feasible: True when no constraint is violated.
        objective: Recomputed objective (minimised), None when it cannot be computed.
        violations: One sentence a violated constraint, at most a few dozen.
    """

    feasible: bool
    objective: float | None
    violations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bounds:
    """Best known objective bounds of a public instance, with their source and date."""

    lower: float
    upper: float
    source: str
    date: str


@runtime_checkable
class Solution(Protocol):
    """Whatever answers an instance: plain data that can be written as JSON."""

    def to_json(self) -> dict[str, Any]: ...


@runtime_checkable
class Instance(Protocol):
    """A problem as immutable data. Objectives are minimised."""

    @property
    def name(self) -> str: ...

    def check(self, solution: Any) -> Check:
        """Check every constraint and recompute the objective, independently of envs and solvers."""
        ...

    def lower_bound(self) -> float:
        """A cheap valid lower bound on the objective."""
        ...

    def best_known(self) -> Bounds | None:
        """Best known bounds, None for instances that are not public benchmarks."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Progress:
    """One point of an anytime curve: elapsed wall seconds, incumbent objective, valid bound (None: no news)."""

    seconds: float
    objective: float | None
    bound: float | None = None


@dataclass(frozen=True)
class SolveResult:
    """What a solver returns.

    Attributes:
        status: ``optimal`` (proved), ``feasible``, ``infeasible`` (proved) or ``unknown`` (nothing found).
        solution: The best solution found, or None.
        objective: Its objective (minimised), or None.
        bound: A valid lower bound, or None if the method proves none.
        gap: ``relative_gap(objective, bound)``; None if either is missing. Computed when left out.
        seconds: Wall time of the solve.
        log: Anytime curve, oldest point first.
    """

    status: Status
    solution: Any = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    seconds: float = 0.0
    log: tuple[Progress, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.status not in ("optimal", "feasible", "infeasible", "unknown"):
            raise ValueError(f"status must be optimal, feasible, infeasible or unknown, got {self.status!r}")
        if (self.solution is None) != (self.objective is None):
            raise ValueError("solution and objective must be given together")
        if self.status in ("optimal", "feasible") and self.solution is None:
            raise ValueError(f"status {self.status} needs a solution")
        if self.gap is None and self.objective is not None and self.bound is not None:
            object.__setattr__(self, "gap", relative_gap(self.objective, self.bound))


@runtime_checkable
class Solver(Protocol):
    """A method that answers an instance directly.

    ``solve`` ends within about ``time_limit`` wall seconds, is reproducible for a seed where the method allows it,
    and on KeyboardInterrupt returns the best solution so far instead of raising.
    """

    @property
    def name(self) -> str: ...

    def solve(
        self, instance: Any, *, time_limit: float | None = None, seed: int = 0, hint: Any | None = None
    ) -> SolveResult: ...
