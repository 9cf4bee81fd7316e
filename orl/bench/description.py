"""Sweep files: from YAML to the runs of a plan.

A sweep file says what is run; ``orl sweep check`` prints what it expands to. In full::

    schema: orl.sweep/1                      # optional
    name: job-shop                           # the file's name by default
    requires: [report]                       # extras of orl that must be installed
    environments:
      - CartPole-v1                          # any Gymnasium id; `module:id` imports the module first
      - id: orl/JobShop-v0
        name: small shops                    # label in tables; by default the id without its namespace
        kwargs: {reward: lower_bound}
        instances:                           # library names, files beside this one, generators
          - ft06
          - generator: {target: "orl.envs.job_shop.generators:UniformJobShop", n_jobs: 6, n_machines: 6}
            count: 10
            seed: 5
        train:                               # overrides kwargs in training: one training for all instances;
          instance:                          # without it, one training for each instance
            {target: "orl.envs.job_shop.generators:UniformJobShop", n_jobs: 6, n_machines: 6}
        grid: {noop: [true, false]}          # every combination; labels become `small shops[noop=true]`
    algorithms:
      - algorithm: ppo
        environments: [CartPole-v1]          # all by default
        zoo: ppo.yml                         # an rl-zoo3 file: the entry of the environment; keys here win
      - algorithm: maskable-ppo
        environments: [small shops]
        name: set policy                     # label in tables; by default the key
        policy: set
        hyper: {learning_rate: lin_3e-4}     # arguments of the algorithm; lin_x falls from x to 0
        policy_kwargs: {activation_fn: {object: "torch.nn:ReLU"}}
        n_envs: 8
        normalize: {norm_reward: false}      # arguments of VecNormalize, or true
        frame_stack: 4
        wrappers: [gymnasium.wrappers.FlattenObservation]
        grid: {gamma: [0.99, 1]}             # over hyper
        seeds: [0, 1]
        budget: {seconds: 60}                # instead of the sweep's
    rules: [spt, {rule: random, best_of: 20}]          # `spt` is short for {rule: spt}, and so in the other lists
    solvers: [{solver: cp-sat, time_limit: 10, options: {num_workers: 1}}]
    seeds: 10                                # a count, a list, or {first: 100, count: 10}
    budget: {steps: 1e5, seconds: 600}       # whichever ends first; without it, n_timesteps of the rl-zoo3 file
    evaluation: {every: 1e4, episodes: 10, curve_episodes: 5, seed: 1000000, deterministic: true, best_of: 1}
    checkpoints: {every: 5e4, model: true}
    scores: {CartPole-v1: {low: 20, high: 500}}
    tensorboard: false
    threads: 1
    pictures: true

A mapping with a ``target`` is what that import returns when called with the other keys, one with the single key
``object`` is the import itself: a sweep file names code that is then run. Read only sweeps you trust.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orl
from orl.bench import yaml_lines
from orl.bench.configuration import Configuration, EnvironmentPart
from orl.bench.plan import Keep, Plan, Scale, Task
from orl.bench.sweep_environments import EnvironmentChoice, check_kwargs, environment_choices, instance_key
from orl.bench.sweep_file import (
    MOST_RUNS,
    AlgorithmEntry,
    EnvironmentEntry,
    Problems,
    RuleEntry,
    SolverEntry,
    SweepFile,
    SweepFileError,
    checked,
)
from orl.bench.sweep_subjects import (
    SubjectChoice,
    SubjectOnEnvironment,
    Surroundings,
    algorithm_choices,
    checked_seeds,
    rule_choices,
    solver_choices,
)
from orl.bench.versions import code_state, require_extra
from orl.bench.yaml_lines import Document
from orl.common.errors import InputError, MissingExtraError, UnknownNameError


def read_sweep(path: str | Path, *, strict_code: bool = False) -> Plan:
    """The plan of a sweep file.

    Args:
        path: The file. Instance files and rl-zoo3 files that it names are looked for beside it.
        strict_code: Put the git commit of orl into every configuration, so that runs of other code are other runs.

    Returns:
        The runs: environments in the order of the file, in each the algorithms, rules and solvers, instances and seeds.

    Raises:
        SweepFileError: the mistakes of the file, one line each, with their lines and keys (``errors``).
        InputError: ``strict_code`` without a commit.
    """
    path = Path(path)
    try:
        document = yaml_lines.read(path, expected="a sweep file")
    except InputError as error:
        raise SweepFileError([error]) from error
    return _plan(document, path, code_state() if strict_code else None)


def _plan(document: Document, path: Path, commit: str | None) -> Plan:
    problems = Problems(document)
    file = checked(SweepFile, document.data, (), problems)
    if file is None:
        problems.finish()
        raise AssertionError("a file that is no mapping has a problem")
    _check_extras(file, problems)
    environments = list(_environments(file, path.parent, problems))
    for environment in environments:
        check_kwargs(environment.known, file.evaluation.kwargs, ("evaluation", "kwargs"), problems)
    subjects = list(_subjects(file, Surroundings(file, path.parent, environments, problems)))
    _check_sections(file, environments, problems)
    scales = _scales(file, environments, problems)
    problems.finish()
    tasks = _tasks(file, environments, subjects, commit, problems)
    _check_hashes(tasks, subjects, problems)
    problems.finish()
    name = file.name or path.stem
    return Plan(name=name, tasks=tasks, source=path.name, text=document.text, scales=scales, threads=file.threads)


# ---- sections ------------------------------------------------------------------------------------------------------
def _check_extras(file: SweepFile, problems: Problems) -> None:
    for index, extra in enumerate(file.requires):
        try:
            require_extra(extra)
        except UnknownNameError as error:
            problems.add(("requires", index), "unknown extra", value=extra, expected=error.expected)
        except MissingExtraError as missing:
            problems.add(("requires", index), str(missing))


def _environments(file: SweepFile, folder: Path, problems: Problems) -> Iterator[EnvironmentChoice]:
    seen: dict[str, int] = {}
    for index, data in enumerate(file.environments):
        path = ("environments", index)
        entry = checked(EnvironmentEntry, data, path, problems)
        if entry is not None:
            for choice in environment_choices(entry, path, folder, problems):
                if _is_new(choice.label, path, seen, problems):
                    yield choice


def _subjects(file: SweepFile, around: Surroundings) -> Iterator[SubjectChoice]:
    seen: dict[str, int] = {}
    sections: tuple[tuple[str, type[Any], Callable[..., list[SubjectChoice]]], ...] = (
        ("algorithms", AlgorithmEntry, algorithm_choices),
        ("rules", RuleEntry, rule_choices),
        ("solvers", SolverEntry, solver_choices),
    )
    for section, model, expand in sections:
        for index, data in enumerate(getattr(file, section)):
            path = (section, index)
            entry = checked(model, data, path, around.problems)
            if entry is not None:
                for choice in expand(entry, path, around):
                    if _is_new(choice.label, path, seen, around.problems):
                        yield choice


def _is_new(label: str, path: tuple[str, int], seen: dict[str, int], problems: Problems) -> bool:
    """Whether a label is the first of its kind; the second one is noted."""
    line = problems.document.line(path)
    if label not in seen:
        seen[label] = line
        return True
    if not problems.at(*path):  # once for all choices of a grid
        expected = f"a key name that tells it from the one in line {seen[label]}"
        problems.add(path, "duplicate name", value=label, expected=expected)
    return False


def _check_sections(file: SweepFile, environments: Sequence[EnvironmentChoice], problems: Problems) -> None:
    if not file.environments and not problems.at("environments"):
        problems.add(("environments",), "no environments", expected="at least one")
    if not (file.algorithms or file.rules or file.solvers):
        if not any(problems.at(section) for section in ("algorithms", "rules", "solvers")):
            problems.add((), "nothing to run", expected="algorithms, rules or solvers")
    checked_seeds(file.seeds, ("seeds",), problems)
    if file.budget is not None and file.budget.steps is None and file.budget.seconds is None:
        if not problems.at("budget"):
            problems.add(("budget",), "empty", expected="steps, seconds, or both")


def _scales(file: SweepFile, environments: Sequence[EnvironmentChoice], problems: Problems) -> dict[str, Scale]:
    scales = {}
    known = {name for environment in environments for name in (environment.name, environment.label)}
    for name, score in file.scores.items():
        if name not in known and not problems.at("environments"):
            expected = UnknownNameError("environment", name, known).expected
            problems.add(("scores", name), "no environment of this sweep", expected=expected)
        if score.low >= score.high:
            problems.add(("scores", name), "no scale", value=score.low, expected=f"low below high ({score.high:g})")
        for environment in environments:
            if name in (environment.name, environment.label):
                scales[environment.label] = Scale(score.low, score.high)
    return scales


# ---- runs ----------------------------------------------------------------------------------------------------------
def _tasks(
    file: SweepFile,
    environments: Sequence[EnvironmentChoice],
    subjects: Sequence[SubjectChoice],
    commit: str | None,
    problems: Problems,
) -> tuple[Task, ...]:
    pairs = [(e, s, s.on[e.label]) for e in environments for s in subjects if e.label in s.on]
    parts = [_environment_parts(e.part, on) for e, _, on in pairs]
    number = sum(len(runs) * len(s.seeds) for runs, (_, s, _) in zip(parts, pairs, strict=True))
    if number > MOST_RUNS:
        problems.add(("seeds",), "too many runs", value=number, expected=f"at most {MOST_RUNS}")
        problems.finish()
    return tuple(
        Task(_configuration(part, on, seed, commit), environment.label, subject.label, _keep(file, on))
        for runs, (environment, subject, on) in zip(parts, pairs, strict=True)
        for part in runs
        for seed in subject.seeds
    )


def _configuration(part: EnvironmentPart, on: SubjectOnEnvironment, seed: int, commit: str | None) -> Configuration:
    return Configuration(
        environment=part,
        subject=on.part,
        seed=seed,
        budget=on.budget,
        evaluation=on.evaluation,
        orl=orl.__version__,
        commit=commit,
    )


def _environment_parts(part: EnvironmentPart, on: SubjectOnEnvironment) -> list[EnvironmentPart]:
    """One run over all instances for trainings with ``train_kwargs``, else one an instance, or one without any.

    Rules and solvers do not train: what training does to the environment is no part of their runs.
    """
    if on.part.kind == "algorithm" and part.train_kwargs is not None:
        in_one_order = tuple(sorted(part.instances, key=instance_key))  # however the file lists them
        return [part.model_copy(update={"instances": in_one_order})]
    plain = part.model_copy(update={"train_kwargs": None})
    if not part.instances:
        return [plain]
    return [plain.model_copy(update={"instances": (instance,)}) for instance in part.instances]


def _keep(file: SweepFile, on: SubjectOnEnvironment) -> Keep:
    if on.part.kind != "algorithm":
        return Keep(checkpoint_every=None, model=False, picture=file.pictures, tensorboard=False)
    return Keep(file.checkpoints.every, file.checkpoints.model, file.pictures, file.tensorboard)


def _check_hashes(tasks: Sequence[Task], subjects: Sequence[SubjectChoice], problems: Problems) -> None:
    """Note the subjects and environments that are the same under two labels."""
    paths = {subject.label: subject.path for subject in subjects}
    seen: dict[str, Task] = {}
    noted: set[tuple[str, ...]] = set()
    for task in tasks:
        first = seen.setdefault(task.configuration.hash, task)
        pair = (first.environment, first.subject, task.environment, task.subject)
        if first is task or pair in noted:
            continue
        noted.add(pair)
        line = problems.document.line(paths[first.subject])
        problem = f"the same run as {first.subject} on {first.environment} (line {line})"
        problems.add(paths[task.subject], problem, value=f"{task.subject} on {task.environment}")
