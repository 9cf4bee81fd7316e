"""The algorithms, rules and solvers of a sweep file: grids expanded, and what each is on an environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orl import registry
from orl.bench.configuration import AlgorithmPart, BudgetPart, EvaluationPart, RulePart, SolverPart
from orl.bench.sweep_environments import EnvironmentChoice, grid_choices, label
from orl.bench.sweep_file import AlgorithmEntry, Budget, Problems, RuleEntry, SolverEntry, SweepFile, seed_list
from orl.bench.target_checks import check_targets, imported, refused_arguments
from orl.bench.yaml_lines import KeyPath
from orl.bench.zoo_files import ZooEntry, action_size, plain_hyper, read_zoo_entry, wrappers
from orl.common.errors import InputError, MissingExtraError, UnknownNameError

_OF_THE_SWEEP = ("seed", "tensorboard_log", "_init_setup_model")
"""Arguments of algorithms that a sweep gives itself."""


@dataclass(frozen=True)
class SubjectOnEnvironment:
    """What a subject is on one environment."""

    part: AlgorithmPart | RulePart | SolverPart
    budget: BudgetPart | None
    evaluation: EvaluationPart


@dataclass(frozen=True)
class SubjectChoice:
    """An algorithm, rule or solver of a sweep, one choice of its grid.

    Attributes:
        label: Name in tables.
        path: Where its entry stands.
        seeds: Seeds of its runs.
        on: What it is on the environments that it runs on, by their labels.
    """

    label: str
    path: KeyPath
    seeds: Sequence[int]
    on: dict[str, SubjectOnEnvironment]


Entry = AlgorithmEntry | RuleEntry | SolverEntry


@dataclass(frozen=True)
class Surroundings:
    """What the subjects of a file share: the file, its folder, its environments, and who takes mistakes."""

    file: SweepFile
    folder: Path
    environments: Sequence[EnvironmentChoice]
    problems: Problems


def algorithm_choices(entry: AlgorithmEntry, path: KeyPath, around: Surroundings) -> list[SubjectChoice]:
    """The algorithms of an entry; mistakes are noted, and what they spoil is left out."""
    problems, known = around.problems, _known_algorithm(entry.algorithm, (*path, "algorithm"), around.problems)
    choices = grid_choices(entry.grid, entry.states("grid"), (*path, "grid"), problems)
    environments, seeds = _environments(entry, path, around), _seeds(entry, path, around)
    if known is None:
        return []
    stated = _plain(entry.hyper, (*path, "hyper"), problems)
    _check_hyper(stated, known, (*path, "hyper"), problems)
    for key, values in (entry.grid or {}).items():
        for value in values:
            _check_hyper(_plain({key: value}, (*path, "grid"), problems), known, (*path, "grid"), problems)
    _check_policy(entry, known, path, problems)
    listed = _wrappers(entry, (*path, "wrappers"), problems)
    check_targets(entry.policy_kwargs, (*path, "policy_kwargs"), problems)
    _check_normalize(entry, path, problems)
    budget = _budget(entry.budget, (*path, "budget"), problems) or _budget(around.file.budget, ("budget",), problems)
    zoos = {environment.label: _zoo(entry, known, path, environment, around) for environment in environments}
    for environment in environments:
        _check_masks(entry, known, path, environment, problems)
    result = []
    for choice in choices:
        hyper = stated | ({} if problems.at(*path, "grid") else plain_hyper(choice))
        on = {}
        for environment in environments:
            zoo = zoos[environment.label]
            part, own = _algorithm_part(entry, known, hyper, listed, {} if zoo is None else zoo.fields)
            spent = budget or own
            if spent is None and not problems.at("budget") and not problems.at(*path):
                problems.add(path, "no budget", expected="the key budget here or for the whole sweep")
            if spent is not None:
                on[environment.label] = SubjectOnEnvironment(part, spent, _evaluation(around.file, "algorithm"))
        result.append(SubjectChoice(label(entry.name or entry.algorithm, choice), path, seeds, on))
    return result


def rule_choices(entry: RuleEntry, path: KeyPath, around: Surroundings) -> list[SubjectChoice]:
    """The rules of an entry."""
    evaluation = _evaluation(around.file, "rule", entry.best_of)

    def on(options: dict[str, Any], environment: EnvironmentChoice) -> SubjectOnEnvironment:
        return SubjectOnEnvironment(RulePart(key=entry.rule, options=options), None, evaluation)

    return _domain_choices(entry, entry.rule, "rule", path, around, on)


def solver_choices(entry: SolverEntry, path: KeyPath, around: Surroundings) -> list[SubjectChoice]:
    """The solvers of an entry."""
    evaluation = _evaluation(around.file, "solver")

    def on(options: dict[str, Any], environment: EnvironmentChoice) -> SubjectOnEnvironment:
        part = SolverPart(key=entry.solver, options=options, time_limit=entry.time_limit)
        return SubjectOnEnvironment(part, None, evaluation)

    return _domain_choices(entry, entry.solver, "solver", path, around, on)


# ---- what all entries have -----------------------------------------------------------------------------------------
def _environments(entry: Entry, path: KeyPath, around: Surroundings) -> list[EnvironmentChoice]:
    """The environments that an entry names, by their names or labels; all if it names none."""
    if not entry.states("environments"):
        return list(around.environments)
    if not entry.environments:
        around.problems.add((*path, "environments"), "empty", expected="names of environments, or no such key")
    known = {name for environment in around.environments for name in (environment.name, environment.label)}
    for index, name in enumerate(entry.environments or ()):
        if name not in known and not around.problems.at("environments"):
            expected = UnknownNameError("environment", name, known).expected
            where = (*path, "environments", index)
            around.problems.add(where, "no environment of this sweep", value=name, expected=expected)
    return [e for e in around.environments if {e.name, e.label} & set(entry.environments or ())]


def _seeds(entry: Entry, path: KeyPath, around: Surroundings) -> Sequence[int]:
    if entry.seeds is None:
        return checked_seeds(around.file.seeds, ("seeds",), around.problems)
    return checked_seeds(entry.seeds, (*path, "seeds"), around.problems)


def checked_seeds(seeds: Any, path: KeyPath, problems: Problems) -> Sequence[int]:
    """The seeds that a count, list or range stands for; an empty list and repeated seeds are noted, once."""
    result = seed_list(seeds)
    if not result and not problems.at(*path):
        problems.add(path, "empty", expected="a count, a list of seeds, or {first, count}")
    if isinstance(result, list) and not problems.at(*path):
        for index, seed in enumerate(result):
            if seed in result[:index]:
                problems.add((*path, index), "duplicate seed", value=seed)
    return result


def _evaluation(file: SweepFile, kind: str, best_of: int | None = None) -> EvaluationPart:
    """The evaluation of a run, without what cannot change its result: that must not change its hash either."""
    given = file.evaluation
    default = EvaluationPart()
    learns, plays = kind == "algorithm", kind != "solver"
    return EvaluationPart(
        every=given.every if learns else None,
        episodes=given.episodes,
        curve_episodes=given.curve_episodes if learns and given.every else default.curve_episodes,
        seed=given.seed,
        deterministic=given.deterministic if plays else default.deterministic,
        best_of=best_of or given.best_of,
        kwargs=given.kwargs if plays else {},
    )


def _budget(budget: Budget | None, path: KeyPath, problems: Problems) -> BudgetPart | None:
    if budget is None:
        return None
    if budget.steps is None and budget.seconds is None:
        if not problems.at(*path):
            problems.add(path, "empty", expected="steps, seconds, or both")
        return None
    return BudgetPart(steps=budget.steps, seconds=budget.seconds)


# ---- algorithms ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Algorithm:
    """What the checks have to know of an algorithm: the arguments that a sweep may give, with their defaults."""

    key: str
    arguments: dict[str, Any]
    policies: tuple[str, ...]
    takes_masks: bool


def _known_algorithm(key: str, path: KeyPath, problems: Problems) -> _Algorithm | None:
    try:
        return _algorithm(key)
    except UnknownNameError as error:
        problems.add(path, "unknown algorithm", value=key, expected=error.expected)
    except MissingExtraError as missing:
        problems.add(path, str(missing), value=key)
    return None


@cache
def _algorithm(key: str) -> _Algorithm:
    algorithm = registry.algorithm(key)
    given = ("self", "policy", "env", *_OF_THE_SWEEP)
    parameters = inspect.signature(algorithm).parameters.values()
    arguments = {parameter.name: parameter.default for parameter in parameters if parameter.name not in given}
    masks = "action_masks" in inspect.signature(algorithm.predict).parameters
    return _Algorithm(key, arguments, tuple(algorithm.policy_aliases), masks)


def _check_hyper(hyper: dict[str, Any], known: _Algorithm, path: KeyPath, problems: Problems) -> None:
    """Note names that the algorithm does not take, texts where it takes numbers, and targets that cannot be called."""
    for key, value in hyper.items():
        where = (*path, key)
        if problems.at(*where):
            continue
        if key in _OF_THE_SWEEP:
            problems.add(where, "given by the sweep itself", expected="the key seeds or tensorboard of the sweep")
        elif key not in known.arguments:
            expected = UnknownNameError("hyper-parameter", key, known.arguments).expected
            problems.add(where, f"unknown hyper-parameter of {known.key}", expected=expected)
        elif _is_number(known.arguments[key]) and isinstance(value, str):
            problems.add(where, "wrong type", value=value, expected="a number")
        else:
            check_targets(value, where, problems)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_policy(entry: AlgorithmEntry, known: _Algorithm, path: KeyPath, problems: Problems) -> None:
    name = entry.policy
    if name is None or name == "set" or name in known.policies:
        return
    if ":" in name:
        imported(name, (*path, "policy"), problems)
    else:
        names = (*known.policies, "set")
        expected = f"module:Class, or {UnknownNameError('policy', name, names).expected}"
        problems.add((*path, "policy"), f"unknown policy of {known.key}", value=name, expected=expected)


def _check_normalize(entry: AlgorithmEntry, path: KeyPath, problems: Problems) -> None:
    if entry.normalize:
        from stable_baselines3.common.vec_env import VecNormalize

        refusal = refused_arguments(VecNormalize, None, **entry.normalize)
        if refusal is not None:
            problems.add((*path, "normalize"), refusal, value=entry.normalize)


def _plain(hyper: dict[str, Any], path: KeyPath, problems: Problems) -> dict[str, Any]:
    try:
        return plain_hyper(hyper)
    except InputError as error:
        problems.take((*path, str(error.field)), error)
        return {}


def _wrappers(entry: AlgorithmEntry, path: KeyPath, problems: Problems) -> list[dict[str, Any]]:
    listed = []
    for index, item in enumerate(entry.wrappers):
        try:
            listed += wrappers([item])
        except InputError as error:
            problems.take((*path, index), error)
        else:
            check_targets(listed[-1], (*path, index), problems, given=1)
    return listed


def _check_masks(
    entry: AlgorithmEntry, known: _Algorithm, path: KeyPath, environment: EnvironmentChoice, problems: Problems
) -> None:
    """Note an algorithm without masks on an env that raises on illegal actions, which training refuses."""
    spec, part = environment.known.spec, environment.part
    illegal = {**spec.kwargs, **part.kwargs, **(part.train_kwargs or {})}.get("illegal", "raise")
    masked = spec.namespace == "orl" and hasattr(environment.known.creator, "action_masks")
    if masked and illegal == "raise" and not known.takes_masks:
        problem = f"{part.id} raises on illegal actions, and this algorithm takes no action masks"
        expected = "maskable-ppo, or {illegal: count} in the kwargs of the environment"
        problems.add((*path, "algorithm"), problem, value=entry.algorithm, expected=expected)


def _zoo(
    entry: AlgorithmEntry, known: _Algorithm, path: KeyPath, environment: EnvironmentChoice, around: Surroundings
) -> ZooEntry | None:
    """The entry of an environment in the hyper-parameter file that an algorithm names."""
    if entry.zoo is None:
        return None
    part, problems = environment.part, around.problems
    try:
        zoo = read_zoo_entry(around.folder / entry.zoo, part.id, lambda: action_size(part.id, part.kwargs))
        for key in zoo.fields["hyper"]:
            if key not in known.arguments:
                expected = UnknownNameError("hyper-parameter", key, known.arguments).expected
                raise zoo.error(key, f"unknown hyper-parameter of {known.key}", expected=expected)
        for key, value in zoo.fields.get("env_kwargs", {}).items():
            if part.kwargs.get(key) != value:
                expected = f"{{{key}: {value!r}}} in the kwargs of the environment, for all subjects"
                raise zoo.error("env_kwargs", "another environment than in the sweep", expected=expected)
    except InputError as error:
        if error.line is None:  # the file itself: name the line that names it
            problems.add((*path, "zoo"), error.problem, value=entry.zoo, expected=error.expected)
        else:
            problems.note((*path, "zoo"), error)
        return None
    check_targets(zoo.fields.get("wrappers", []), (*path, "zoo"), problems, given=1)
    check_targets(zoo.fields["hyper"], (*path, "zoo"), problems)
    return zoo


def _algorithm_part(
    entry: AlgorithmEntry, known: _Algorithm, hyper: dict[str, Any], listed: list[dict[str, Any]], zoo: dict[str, Any]
) -> tuple[AlgorithmPart, BudgetPart | None]:
    """The algorithm with what the file states over what its hyper-parameter file says, and the latter's budget."""
    together = {
        key: _whole(value, known.arguments.get(key)) for key, value in {**zoo.get("hyper", {}), **hyper}.items()
    }
    if entry.policy_kwargs:
        together["policy_kwargs"] = {**(together.get("policy_kwargs") or {}), **entry.policy_kwargs}
    normalize = entry.normalize if entry.states("normalize") else zoo.get("normalize")
    if normalize is not None and "gamma" in together:
        normalize = {"gamma": together["gamma"], **normalize}  # returns are scaled with the discount they are made of
    part = AlgorithmPart(
        key=entry.algorithm,
        policy=entry.policy or zoo.get("policy"),
        hyper=together,
        n_envs=entry.n_envs or zoo.get("n_envs", 1),
        normalize=normalize,
        frame_stack=entry.frame_stack if entry.states("frame_stack") else zoo.get("frame_stack"),
        wrappers=tuple(listed if entry.states("wrappers") else zoo.get("wrappers", ())),
    )
    return part, BudgetPart(**zoo["budget"]) if "budget" in zoo else None


def _whole(value: Any, default: Any) -> Any:
    """1e6, a float in YAML, as a whole number where the algorithm's default is one."""
    whole = isinstance(default, int) and not isinstance(default, bool)
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


# ---- rules and solvers ---------------------------------------------------------------------------------------------
def _domain_choices(
    entry: RuleEntry | SolverEntry,
    key: str,
    kind: str,
    path: KeyPath,
    around: Surroundings,
    on: Callable[[dict[str, Any], EnvironmentChoice], SubjectOnEnvironment],
) -> list[SubjectChoice]:
    """The choices of a rule or solver, on the environments of the domains that know it."""
    problems = around.problems
    choices = grid_choices(entry.grid, entry.states("grid"), (*path, "grid"), problems)
    candidates, seeds = _environments(entry, path, around), _seeds(entry, path, around)
    environments = []
    known: set[str] = set()
    for environment in candidates:
        rows = {row.key: row for row in _rows(kind, environment.known.domain)}
        known |= set(rows)
        if key in rows:
            if _takes_options(rows[key], entry, kind, path, problems) and _has_instances(
                key, kind, path, environment, problems
            ):
                environments.append(environment)
        elif entry.environments:
            problem = f"{environment.part.id} knows no such {kind}"
            problems.add((*path, kind), problem, value=key, expected=UnknownNameError(kind, key, rows).expected)
    if candidates and key not in known and not problems.at(*path):
        expected = UnknownNameError(kind, key, known).expected if known else f"an environment whose domain has {kind}s"
        problems.add((*path, kind), f"unknown {kind}", value=key, expected=expected)
    return [
        SubjectChoice(
            label(entry.name or key, choice),
            path,
            seeds,
            {environment.label: on({**entry.options, **choice}, environment) for environment in environments},
        )
        for choice in choices
    ]


def _rows(kind: str, domain: str | None) -> tuple[registry.Entry, ...]:
    if domain is None:
        return ()
    return registry.rules(domain) if kind == "rule" else registry.solvers(domain)


def _takes_options(
    row: registry.Entry, entry: RuleEntry | SolverEntry, kind: str, path: KeyPath, problems: Problems
) -> bool:
    try:
        target = row.load()
    except MissingExtraError as missing:
        problems.add((*path, kind), str(missing), value=row.key)
        return False
    given = dict(row.kwargs) | ({"env": None} if kind == "rule" else {})
    for place, names in (("options", entry.options), ("grid", entry.grid or {})):
        check_targets(names, (*path, place), problems)
        for name in names:
            refusal = refused_arguments(target, **(given | {name: None}))
            if refusal is not None and not problems.at(*path, place, name):
                problems.add((*path, place, name), f"unknown option of {row.key}: {refusal}")
    return True


def _has_instances(key: str, kind: str, path: KeyPath, environment: EnvironmentChoice, problems: Problems) -> bool:
    if kind == "rule" or environment.part.instances or problems.at(*environment.path):
        return True
    problem = f"a solver needs instances, and {environment.label} has none"
    problems.add((*path, kind), problem, value=key, expected="the key instances in the environment")
    return False
