"""What one run is: environment, subject, seed, budget and evaluation, as plain data with a content address.

A sweep file is expanded into :class:`Configuration` objects; a worker executes one and writes one record. Everything
that can change the result is in here and nothing else is (labels, checkpoints, pictures and log folders are not). So
the hash of a configuration names its record: equal configurations are one run, however the sweep file is ordered.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HASH_LENGTH = 20
"""Hexadecimal digits of a run's name: 80 bits, no collision to be expected below 10^10 runs."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InstanceFile(_Part):
    """An instance read from a file; the digest makes a changed file another run.

    Attributes:
        file: Absolute path; only its last part enters the hash.
        sha256: Digest of its content.
    """

    file: str
    sha256: str


class GeneratedInstance(_Part):
    """Instance ``index`` of a seeded sequence: ``generator(numpy.random.default_rng([seed, index]))``.

    Attributes:
        generator: Mapping with a ``target`` (``module:attribute``) and its keyword arguments
            (:func:`orl.training.build_targets`).
        seed: Seed of the sequence.
        index: Place in the sequence.
    """

    generator: dict[str, Any]
    seed: int
    index: int


InstanceSource = str | InstanceFile | GeneratedInstance
"""A library name, a file, or a generated instance."""


class EnvironmentPart(_Part):
    """The environment and the instances on which subjects are evaluated.

    Attributes:
        id: Gymnasium id without the prefix ``orl:``.
        version: Distribution and version of the package that implements it, such as ``gymnasium 1.4.0``.
        kwargs: Keyword arguments of the env, plain data with targets.
        instances: Instances of the evaluation; empty for environments that take none.
        train_kwargs: Overrides of ``kwargs`` in training only. Without it, algorithms train on ``instances``, which
            then holds exactly one.
    """

    id: str
    version: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    instances: tuple[InstanceSource, ...] = ()
    train_kwargs: dict[str, Any] | None = None


class AlgorithmPart(_Part):
    """A learning algorithm.

    Attributes:
        key: Registry key.
        policy: SB3's policy name, ``set``, ``module:Class``, or None (by the observation space).
        hyper: Keyword arguments of the algorithm, plain data with targets; ``policy_kwargs`` among them.
        n_envs: Parallel copies in training.
        normalize: Keyword arguments of VecNormalize, or None for no normalisation.
        frame_stack: Frames of VecFrameStack, or None.
        wrappers: Gymnasium wrappers around each copy, innermost first: mappings with ``target`` and keyword arguments.
    """

    kind: Literal["algorithm"] = "algorithm"
    key: str
    policy: str | None = None
    hyper: dict[str, Any] = Field(default_factory=dict)
    n_envs: int = 1
    normalize: dict[str, Any] | None = None
    frame_stack: int | None = None
    wrappers: tuple[dict[str, Any], ...] = ()


class RulePart(_Part):
    """A rule of the environment's domain, played in the environment.

    Attributes:
        key: Registry key.
        options: Keyword arguments of the rule.
    """

    kind: Literal["rule"] = "rule"
    key: str
    options: dict[str, Any] = Field(default_factory=dict)


class SolverPart(_Part):
    """A solver of the environment's domain, given the instance.

    Attributes:
        key: Registry key.
        options: Keyword arguments of the solver.
        time_limit: Wall seconds a solve, None for the solver's own.
    """

    kind: Literal["solver"] = "solver"
    key: str
    options: dict[str, Any] = Field(default_factory=dict)
    time_limit: float | None = None


SubjectPart = Annotated[AlgorithmPart | RulePart | SolverPart, Field(discriminator="kind")]


class BudgetPart(_Part):
    """What a training may use: environment steps over all copies, wall seconds, or whichever ends first."""

    steps: int | None = None
    seconds: float | None = None


class EvaluationPart(_Part):
    """How subjects are evaluated, in an environment of their own.

    Attributes:
        every: Training steps between points of the learning curve; None for the end only.
        episodes: Episodes (or solves) of each instance in the final evaluation.
        curve_episodes: Episodes of each instance at a point of the curve.
        seed: Seed of the first episode of the evaluation; the same for every subject (common random numbers).
        deterministic: Whether policies act greedily.
        best_of: Attempts an episode, of which the best counts.
        kwargs: Overrides of the env's keyword arguments in evaluation only.
    """

    every: int | None = None
    episodes: int = 10
    curve_episodes: int = 5
    seed: int = 1_000_000
    deterministic: bool = True
    best_of: int = 1
    kwargs: dict[str, Any] = Field(default_factory=dict)


class Configuration(_Part):
    """Everything that decides the result of one run.

    Attributes:
        environment, subject, evaluation: See there.
        seed: Seed of the run: of the algorithm and its training copies, or of the solver and the rule.
        budget: Of the training; None for rules and solvers.
        orl: ``orl.__version__``.
        commit: Git commit with ``--strict-code``, else None.
    """

    environment: EnvironmentPart
    subject: SubjectPart
    seed: int
    budget: BudgetPart | None = None
    evaluation: EvaluationPart = Field(default_factory=EvaluationPart)
    orl: str
    commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, every default written out."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """Name of the run: the first hexadecimal digits of the SHA-256 of its canonical JSON.

        >>> part = EnvironmentPart(id="CartPole-v1", version="gymnasium 1.4.0", kwargs={"b": 1, "a": 2.0})
        >>> same = EnvironmentPart(id="CartPole-v1", version="gymnasium 1.4.0", kwargs={"a": 2, "b": 1})
        >>> rule = RulePart(key="spt")
        >>> Configuration(environment=part, subject=rule, seed=0, orl="1").hash == Configuration(
        ...     environment=same, subject=rule, seed=0, orl="1").hash
        True
        """
        data = self.to_json()
        for instance in data["environment"]["instances"]:
            if isinstance(instance, dict) and "sha256" in instance:  # its content counts, not the folder it lies in
                instance["file"] = Path(instance["file"]).name
        text = canonical_json(data)
        return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, and one spelling for a number: 1.0 is written as 1.

    >>> canonical_json({"b": 1.0, "a": [True, None, 1e-3]})
    '{"a":[true,null,0.001],"b":1}'

    Raises:
        ValueError: not a number or infinite; TypeError: not plain data.
    """
    return json.dumps(_one_spelling(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _one_spelling(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {str(key): _one_spelling(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_one_spelling(item) for item in value]
    return value
