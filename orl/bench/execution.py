"""Execute one run: play a rule, call a solver, or train an algorithm; then evaluate it and make its record.

A run depends on its configuration alone: generators are seeded at its start, whatever the process did before. Two
executions give equal rows and learning curves, but for their columns of seconds.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from orl import registry
from orl.bench.configuration import Configuration, RulePart, SolverPart
from orl.bench.instances import build_instance
from orl.bench.interruption import Interrupted as Interrupted
from orl.bench.plan import Task
from orl.bench.playing import BestSolution, domain_of, evaluation_envs, play, require_domain
from orl.bench.random_streams import seed_streams
from orl.bench.record import SCHEMA, Outcome
from orl.bench.resources import Meter, Spent
from orl.bench.versions import git_state, machine, package_versions
from orl.common.errors import InputError
from orl.common.problem import Instance
from orl.targets import build_targets


def execute(
    task: Task,
    *,
    sweep: str,
    work: Path,
    tensorboard: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Execute a run and return its record and files; nothing but ``work`` and ``tensorboard`` is written.

    Rules play the environment; solvers are given the instances; algorithms are trained, from their last checkpoint if
    ``work`` holds one, and then play the environment. How seeds are used stands in :mod:`orl.bench.playing`.

    Args:
        task: What to run.
        sweep: Name of the sweep, for the record.
        work: Folder of the run's checkpoint; the caller removes it when the record is safe.
        tensorboard: Folder of TensorBoard logs; None for none.
        stop: Polled at the steps of a training and between evaluation episodes. Once it is true, a training saves a
            checkpoint where its next rollout begins, with or without ``checkpoint_every``.

    Raises:
        Interrupted: ``stop()`` turned true before the end.
        KeyboardInterrupt: Ctrl-C came during an evaluation.
        InputError, MissingExtraError: the configuration cannot be run; anything else that its code raises.
    """
    configuration = task.configuration
    meter = Meter()
    seed_streams(configuration.seed)
    instances: list[Instance] = []
    if configuration.environment.instances:
        domain = require_domain(configuration, "instances")
        instances = [build_instance(source, domain.name) for source in configuration.environment.instances]
    best = BestSolution() if task.keep.picture else None
    subject = configuration.subject
    learned: dict[str, Any] = {"steps": None, "resumed": 0, "exact": True}
    files: dict[str, bytes] = {}
    if isinstance(subject, RulePart):
        rows = _play_rule(task, subject, instances, stop, best)
    elif isinstance(subject, SolverPart):
        rows = _solve(task, subject, instances, stop, best)
    else:
        rows, learned, files = _train(task, instances, work, meter, tensorboard, stop, best)
    if best is not None:
        files |= _picture(configuration, best, work)
    spent = meter.read()
    record = _identity(task, sweep) | {
        "state": "done",
        **_spent(spent),
        **learned,
        "rows": rows,
        "files": sorted(files),
    }
    return Outcome(record, files)


def failure_record(task: Task, sweep: str, error: BaseException, seconds: float) -> dict[str, Any]:
    """The record of a run that raised ``error`` after ``seconds``: no rows, and the traceback.

    Its key ``error`` holds ``type``, ``message`` and ``traceback``, all text.
    """
    return _identity(task, sweep) | {
        "state": "failed",
        **_spent(Spent(seconds=seconds)),
        "cpu_seconds": None,
        "peak_memory_mb": None,
        "steps": None,
        "resumed": 0,
        "exact": True,
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        },
        "rows": [],
        "files": [],
    }


def _identity(task: Task, sweep: str) -> dict[str, Any]:
    """Keys of a record that say what was run, and where."""
    configuration = task.configuration
    return {
        "schema": SCHEMA,
        "run": configuration.hash,
        "sweep": sweep,
        "environment": task.environment,
        "subject": task.subject,
        "kind": configuration.subject.kind,
        "configuration": configuration.to_json(),
        "versions": package_versions(),
        "git": git_state(),
        "machine": machine(),
    }


def _spent(spent: Spent) -> dict[str, Any]:
    return {
        "started": spent.started,
        "seconds": spent.seconds,
        "cpu_seconds": spent.cpu_seconds,
        "peak_memory_mb": spent.peak_memory_mb,
    }


# ---- the three kinds of subjects -----------------------------------------------------------------------------------
def _play_rule(
    task: Task, subject: RulePart, instances: list[Instance], stop: Callable[[], bool], best: BestSolution | None
) -> list[dict[str, Any]]:
    domain = require_domain(task.configuration, "rules")
    build = partial(registry.rule, domain.name, subject.key, **build_targets(subject.options))
    envs = evaluation_envs(task.configuration, instances)
    try:
        return play(
            build, envs, task.configuration, name=task.subject, stop=stop, on_row=None if best is None else best.note
        )
    finally:
        for env in envs:
            env.close()


def _solve(
    task: Task, subject: SolverPart, instances: list[Instance], stop: Callable[[], bool], best: BestSolution | None
) -> list[dict[str, Any]]:
    domain = require_domain(task.configuration, "solvers")
    if not instances:
        raise InputError("a solver needs instances", field="instances", source=task.environment)
    try:
        solver = registry.solver(domain.name, subject.key, **build_targets(subject.options))
    except TypeError as error:
        raise InputError(str(error), source=subject.key, field="options", value=subject.options) from error
    return play(
        solver, instances, task.configuration, name=task.subject, stop=stop, on_row=None if best is None else best.note
    )


def _train(
    task: Task,
    instances: list[Instance],
    work: Path,
    meter: Meter,
    tensorboard: Path | None,
    stop: Callable[[], bool],
    best: BestSolution | None,
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, bytes]]:
    """Train and evaluate; rows, what the record says of the training, and files."""
    from orl.bench.learning import Training
    from orl.bench.random_streams import undisturbed

    with Training(task, instances, work=work, meter=meter, tensorboard=tensorboard, stop=stop) as training:
        training.learn()
        envs = evaluation_envs(task.configuration, instances)  # fresh ones: the learning curve leaves no trace
        try:
            with undisturbed(training.model):
                rows = play(
                    training.policy,
                    envs,
                    task.configuration,
                    name=task.subject,
                    stop=stop,
                    on_row=None if best is None else best.note,
                )
        except Interrupted:
            training.save_checkpoint()
            raise
        finally:
            for env in envs:
                env.close()
        learned = {
            "steps": int(training.model.num_timesteps),
            "resumed": training.resumed,
            "exact": training.exact,
        }
        return rows, learned, training.files()


def _picture(configuration: Configuration, best: BestSolution, work: Path) -> dict[str, bytes]:
    """The best solution as JSON and as a picture; nothing if there is none."""
    domain = domain_of(configuration.environment.id)
    if domain is None or best.solution is None:
        return {}
    work.mkdir(parents=True, exist_ok=True)
    path = work / "picture.svg"
    domain.draw(best.instance, best.solution, path)
    picture = path.read_bytes()
    path.unlink()
    solution = {
        "domain": domain.name,
        "instance": str(best.instance.name),
        "objective": best.objective,
        "solution": best.solution.to_json(),
    }
    run = configuration.hash
    return {f"solutions/{run}.json": (json.dumps(solution) + "\n").encode(), f"pictures/{run}.svg": picture}
