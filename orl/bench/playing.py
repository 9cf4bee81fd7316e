"""The evaluation of a run: its environments, its seeds, and its rows as plain data.

Seeds. Episode e of an instance is reset with ``evaluation.seed + e``, whatever the subject and the seed of the run: all
meet the same randomness of the environment (common random numbers). What a subject draws itself (a policy that samples
its actions, a random rule, a solver) comes from other numbers for each seed of the run: with n episodes, run seed r
draws from ``evaluation.seed + r n + e`` if it is a policy, and a solver is given the seed ``r n + e``. So runs that
differ in their seed share no draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

from orl import registry
from orl.bench.configuration import AlgorithmPart, Configuration
from orl.bench.interruption import Interrupted
from orl.common.errors import InputError
from orl.common.evaluation import evaluate, make_env
from orl.common.problem import Instance
from orl.targets import build_targets, import_name

OnRow = Callable[[Any, Any, Any], None]


@dataclass
class BestSolution:
    """The checked solution of least objective among the rows of the first instance.

    Attributes:
        instance, solution, objective: None until there is one.
    """

    instance: Any = None
    solution: Any = None
    objective: float | None = None
    _first: str | None = None

    def note(self, row: Any, instance: Any, solution: Any) -> None:
        """Look at a row (``on_row`` of :func:`orl.evaluate`)."""
        self._first = self._first or row.instance
        if row.instance != self._first or not row.checked or row.objective is None:
            return
        if self.objective is None or row.objective < self.objective:
            self.instance, self.solution, self.objective = instance, solution, row.objective


def domain_of(env_id: str) -> registry.Domain | None:
    """The domain of an environment of ours, None for others."""
    for environment in registry.environments():
        if environment.id == env_id.removeprefix("orl:"):
            return registry.domain(environment.domain)
    return None


def require_domain(configuration: Configuration, what: str) -> registry.Domain:
    """The domain, which rules, solvers and instances need; raises InputError where there is none."""
    domain = domain_of(configuration.environment.id)
    if domain is None:
        env_id, known = configuration.environment.id, [environment.id for environment in registry.environments()]
        expected = f"an environment of a domain: {', '.join(known)}"
        raise InputError(f"{what} belong to a domain", field="environment", value=env_id, expected=expected)
    return domain


def wrap(env: gymnasium.Env[Any, Any], wrappers: Sequence[dict[str, Any]]) -> gymnasium.Env[Any, Any]:
    """Put wrappers around an env, the first one innermost: mappings with ``target`` and keyword arguments."""
    for wrapper in wrappers:
        arguments = build_targets({key: value for key, value in wrapper.items() if key != "target"})
        env = import_name(wrapper["target"], "wrappers")(env, **arguments)
    return env


def evaluation_envs(configuration: Configuration, instances: Sequence[Instance]) -> list[gymnasium.Env[Any, Any]]:
    """The environments of the evaluation, one for each instance; one for environments that take none.

    Algorithms see them through their wrappers and frames; rewards are never normalised. The caller closes them.
    """
    environment, subject = configuration.environment, configuration.subject
    envs = []
    for given in [{"instance": instance} for instance in instances] or [{}]:
        kwargs = build_targets({**environment.kwargs, **configuration.evaluation.kwargs}) | given
        env = make_env(environment.id, kwargs)
        if isinstance(subject, AlgorithmPart):
            env = wrap(env, subject.wrappers)
            if subject.frame_stack is not None:
                from orl.bench.frame_stack import FrameStack

                env = FrameStack(env, subject.frame_stack)
        envs.append(env)
    return envs


def play(
    subject: Any,
    problems: Sequence[Any],
    configuration: Configuration,
    *,
    name: str,
    episodes: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_row: OnRow | None = None,
) -> list[dict[str, Any]]:
    """Evaluate a policy on envs, or a solver on instances, as the configuration says; rows as plain data.

    Args:
        subject: What :func:`orl.evaluate` takes.
        problems: Envs or instances.
        configuration: Seeds and protocol.
        name: Label in the rows.
        episodes: Of each problem; None for those of the final evaluation.
        stop: Polled between rows.
        on_row: As in :func:`orl.evaluate`.

    Raises:
        Interrupted: ``stop()`` turned true before the last row.
        KeyboardInterrupt: Ctrl-C came.
    """
    evaluation, solves = configuration.evaluation, configuration.subject.kind == "solver"
    count = evaluation.episodes if episodes is None else episodes
    own_seed = configuration.seed * evaluation.episodes
    left = count * len(problems)

    def look(row: Any, instance: Any, solution: Any) -> None:
        nonlocal left
        left -= 1
        if on_row is not None:
            on_row(row, instance, solution)
        if left and stop():
            raise Interrupted

    table = evaluate(
        subject,
        list(problems),
        n_episodes=count,
        seed=own_seed if solves else evaluation.seed,
        sampling_seed=None if solves else evaluation.seed + own_seed,
        time_limit=getattr(configuration.subject, "time_limit", None),
        deterministic=evaluation.deterministic,
        best_of=evaluation.best_of,
        name=name,
        on_row=look,
    )
    rows = [{str(key): plain(value) for key, value in row.items()} for row in table.to_dict("records")]
    if any(row["interrupted"] for row in rows):
        raise KeyboardInterrupt
    return rows


def plain(value: Any) -> Any:
    """A cell of a table as JSON data: Python's own types, None for what is missing, not a number or infinite.

    >>> import numpy
    >>> plain(numpy.float64(2)), plain(float("nan")), plain(numpy.bool_(True))
    (2.0, None, True)
    """
    import pandas

    if value is None or value is pandas.NA:
        return None
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
