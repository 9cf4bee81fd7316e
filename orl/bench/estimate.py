"""How long a sweep will take: what earlier records say, limits, and short measurements."""

from __future__ import annotations

import inspect
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orl.bench.configuration import AlgorithmPart, Configuration, SolverPart
from orl.bench.plan import Keep, Plan, Task

if TYPE_CHECKING:
    import pandas

_LEARNING_STARTS = 100
_LEAST_ROLLOUT = 256
_WARM_UP = 0.001
"""Seconds of a training that is not measured."""


@dataclass(frozen=True)
class Estimate:
    """The runs of one subject on one environment.

    Attributes:
        environment, subject, kind: Labels and kind of the group.
        runs: Runs of the plan.
        done: Of these, runs with a record.
        seconds: Estimated wall seconds a run; None if nothing is known.
        basis: Where ``seconds`` comes from: ``records (n runs)``, ``time limit`` (an upper bound), ``budget``,
            ``measured 1.9 s``, ``no time limit``, or ``fails: ...`` for runs that would fail.
    """

    environment: str
    subject: str
    kind: str
    runs: int
    done: int
    seconds: float | None
    basis: str

    @property
    def total(self) -> float | None:
        """Estimated wall seconds of the runs still to do, one after the other; None if unknown."""
        return None if self.seconds is None else self.seconds * (self.runs - self.done)


def estimate(plan: Plan, *, probe_seconds: float = 2.0, records: pandas.DataFrame | None = None) -> list[Estimate]:
    """Estimate the time of a plan, one row for each subject on each environment.

    Algorithms are trained for at most about ``probe_seconds`` on the instance in the middle of their list and play one
    episode; rules play one episode on as many instances as that time allows; solvers are counted with their time
    limit. What an untrained policy's episode costs is not what a trained one's costs: the figures are a first guess,
    and a record of the group replaces them.

    Args:
        plan: What to estimate.
        probe_seconds: Wall seconds of a measurement.
        records: Rows with the columns ``run`` and ``run_seconds``, as :func:`orl.bench.load` or ``orl.bench.runs``
            give for the folder of the sweep; None if nothing has run.

    Returns:
        Rows in the order of the plan. A group whose measurement fails says so in ``basis``.
    """
    known = _known_seconds(records)
    rows = []
    order: dict[tuple[str, str], list[Task]] = {}
    for task in plan.tasks:
        order.setdefault((task.environment, task.subject), []).append(task)
    with tempfile.TemporaryDirectory(prefix="orl-estimate-") as folder:
        for number, ((environment, subject), tasks) in enumerate(order.items()):
            kind = tasks[0].configuration.subject.kind
            done = [known[name] for task in tasks if (name := task.configuration.hash) in known]
            if done:
                seconds, basis = sum(done) / len(done), f"records ({len(done)} runs)"
                rows.append(Estimate(environment, subject, kind, len(tasks), len(done), seconds, basis))
                continue
            guess, basis = _guess(tasks, probe_seconds, Path(folder) / str(number), plan.threads)
            rows.append(Estimate(environment, subject, kind, len(tasks), 0, guess, basis))
    return rows


def wall_seconds(rows: Sequence[Estimate], jobs: int) -> float:
    """Wall seconds of all rows with ``jobs`` runs at a time; rows without an estimate count nothing.

    >>> row = Estimate("a", "b", "rule", runs=3, done=1, seconds=10.0, basis="budget")
    >>> wall_seconds([row], 1), wall_seconds([row], 8)
    (20.0, 10.0)
    """
    left = [row for row in rows if row.seconds is not None and row.runs > row.done]
    longest = max((row.seconds or 0.0 for row in left), default=0.0)
    return max(sum(row.total or 0.0 for row in left) / jobs, longest)


def _known_seconds(records: pandas.DataFrame | None) -> dict[str, float]:
    if records is None or not len(records):
        return {}
    table = records
    if "state" in table:
        table = table[table["state"] == "done"]
    once = table.drop_duplicates("run").dropna(subset=["run_seconds"])
    return {str(run): float(seconds) for run, seconds in zip(once["run"], once["run_seconds"], strict=True)}


def _guess(tasks: Sequence[Task], probe_seconds: float, folder: Path, threads: int) -> tuple[float | None, str]:
    subject = tasks[0].configuration.subject
    if isinstance(subject, SolverPart):
        if subject.time_limit is None:
            return None, "no time limit"
        return subject.time_limit * tasks[0].configuration.evaluation.episodes, "time limit"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(subject, AlgorithmPart):
                with _threads(threads):
                    return _guess_training(tasks[len(tasks) // 2].configuration, subject, probe_seconds, folder)
            return _guess_rule(tasks, probe_seconds, folder)
    except Exception as error:  # noqa: BLE001 (whatever a run raises is what this row says of it)
        return None, " ".join(f"fails: {type(error).__name__}: {error}".split())


def _guess_rule(tasks: Sequence[Task], probe_seconds: float, folder: Path) -> tuple[float, str]:
    """The mean over an episode each on different instances, as many as the time allows."""
    from orl.bench.execution import execute

    by_instance = [next(group) for _, group in groupby(tasks, lambda task: task.configuration.environment)]
    begin = time.perf_counter()
    measured: list[float] = []
    for number, task in enumerate((by_instance[0], *by_instance)):  # the first one twice, as it may compile kernels
        if number == 1:
            begin, measured = time.perf_counter(), []
        one = task.configuration.model_copy(
            update={"evaluation": task.configuration.evaluation.model_copy(update={"episodes": 1})}
        )
        outcome = execute(replace(task, configuration=one, keep=_NOTHING), sweep="estimate", work=folder)
        measured.append(sum(row["seconds"] for row in outcome.record["rows"]))
        if number and time.perf_counter() - begin >= probe_seconds:
            break
    episodes = tasks[0].configuration.evaluation.episodes
    return sum(measured) / len(measured) * episodes, f"measured {time.perf_counter() - begin:.1f} s"


_NOTHING = Keep(checkpoint_every=None, model=False, picture=False, tensorboard=False)


def _guess_training(
    configuration: Configuration, subject: AlgorithmPart, probe_seconds: float, folder: Path
) -> tuple[float, str]:
    from orl.bench.instances import build_instance
    from orl.bench.learning import Training
    from orl.bench.playing import play, require_domain
    from orl.bench.resources import Meter

    environment, evaluation, budget = configuration.environment, configuration.evaluation, configuration.budget
    assert budget is not None
    # One instance is enough to time an episode of the evaluation.
    probe = configuration.model_copy(
        update={
            "environment": environment.model_copy(update={"instances": environment.instances[:1]}),
            "subject": subject.model_copy(update={"hyper": _quick_start(subject)}),
            "evaluation": evaluation.model_copy(update={"every": None}),
        }
    )
    instances = []
    if probe.environment.instances:
        domain = require_domain(probe, "instances")
        instances = [build_instance(source, domain.name) for source in probe.environment.instances]
    # Twice, and the first time for a moment only: what is compiled or imported once is no part of a run.
    for limit in (_WARM_UP, min(probe_seconds, budget.seconds or probe_seconds)):
        limited = probe.model_copy(update={"budget": budget.model_copy(update={"seconds": limit})})
        task, work, begin = Task(limited, "", "estimate", _NOTHING), folder / str(limit), time.perf_counter()
        with Training(task, instances, work=work, meter=Meter(), tensorboard=None, stop=lambda: False) as training:
            built = time.perf_counter() - begin
            training.learn()
            steps, trained = training.model.num_timesteps, training.watch.seconds
            rows = play(training.policy, training.evaluation_envs, limited, name="estimate", episodes=1)
    speed = steps / max(trained, 1e-9)
    limits = [limit for limit in (budget.seconds, None if budget.steps is None else budget.steps / speed) if limit]
    learning = min(limits)
    points = 0 if evaluation.every is None else int(learning * speed) // evaluation.every + 1
    episodes = (evaluation.episodes + points * evaluation.curve_episodes) * max(len(environment.instances), 1)
    seconds = built + learning + episodes * sum(row["seconds"] for row in rows) / len(rows)
    if budget.seconds is not None and learning == budget.seconds:
        return seconds, "budget"
    return seconds, f"measured {time.perf_counter() - begin:.1f} s"


def _quick_start(subject: AlgorithmPart) -> dict[str, Any]:
    """Hyper-parameters with which a short training does what a long one does: it updates, and soon.

    Replay buffers are learned from early on, and rollouts are short but no shorter than a batch: what an update costs
    a step of the environment hardly depends on the length of the rollout.
    """
    from orl import registry

    parameters = inspect.signature(registry.algorithm(subject.key)).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    hyper = dict(subject.hyper)
    starts = hyper.get("learning_starts", defaults.get("learning_starts"))
    if isinstance(starts, int) and starts > _LEARNING_STARTS:
        hyper["learning_starts"] = _LEARNING_STARTS
    steps = hyper.get("n_steps", defaults.get("n_steps"))
    batch = hyper.get("batch_size", defaults.get("batch_size"))
    if "n_epochs" in parameters and isinstance(steps, int) and isinstance(batch, int):
        least = max(_LEAST_ROLLOUT, batch)
        hyper["n_steps"] = max(min(steps, -(-least // subject.n_envs)), 2)
    return hyper


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Train with the threads that a run will have."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
