"""A plan: the runs of a sweep with their labels, and what to keep of them; what a sweep file expands to."""

from __future__ import annotations

from dataclasses import dataclass, field

from orl.bench.configuration import Configuration


@dataclass(frozen=True)
class Keep:
    """What a run writes beside its record; none of it changes the result.

    Attributes:
        checkpoint_every: Training steps between checkpoints from which a killed run goes on; None for none.
        model: Whether the trained model is kept.
        picture: Whether a picture of the best checked solution is kept.
        tensorboard: Whether trainings write TensorBoard logs.
    """

    checkpoint_every: int | None = None
    model: bool = True
    picture: bool = True
    tensorboard: bool = False


@dataclass(frozen=True)
class Task:
    """One run of a plan.

    Attributes:
        configuration: What to run; ``configuration.hash`` names the record.
        environment: Label of the environment in tables, unique in a sweep file.
        subject: Label of the algorithm, rule or solver in tables, unique in a sweep file.
        keep: What to write beside the record.
    """

    configuration: Configuration
    environment: str
    subject: str
    keep: Keep = field(default_factory=Keep)


@dataclass(frozen=True)
class Scale:
    """Two figures that make scores of one environment comparable: ``(return - low) / (high - low)``.

    Attributes:
        low: Return that counts 0, a random policy's for instance.
        high: Return that counts 1.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """A sweep, expanded.

    Attributes:
        name: Name of the sweep.
        tasks: Its runs in the order of the file; hashes are unique.
        source: Name of the file.
        text: The file as it was.
        scales: Scales of environments, by label.
        threads: Threads a run.
    """

    name: str
    tasks: tuple[Task, ...]
    source: str | None = None
    text: str | None = None
    scales: dict[str, Scale] = field(default_factory=dict)
    threads: int = 1
