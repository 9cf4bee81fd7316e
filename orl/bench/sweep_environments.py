"""The environments of a sweep file: entries with grids expanded, ids, arguments and instances checked."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from orl import registry
from orl.bench.configuration import EnvironmentPart, GeneratedInstance, InstanceFile, InstanceSource, canonical_json
from orl.bench.sweep_file import MOST_RUNS, EnvironmentEntry, Generated, Problems
from orl.bench.target_checks import check_targets
from orl.bench.versions import env_spec, env_version
from orl.bench.yaml_lines import KeyPath
from orl.common.errors import DataUnavailableError, InputError, MissingExtraError, UnknownNameError

_GYMNASIUM_KWARGS = ("max_episode_steps", "disable_env_checker", "render_mode")
"""Keyword arguments that ``gymnasium.make`` takes for every environment."""


@dataclass(frozen=True)
class EnvironmentChoice:
    """An environment of a sweep, one choice of its grid.

    Attributes:
        label: Name in tables.
        name: Name of the entry, which stands for all choices of its grid.
        path: Where the entry stands.
        part: Its part of configurations, with all instances.
        known: What is known of the id.
    """

    label: str
    name: str
    path: KeyPath
    part: EnvironmentPart
    known: KnownEnvironment


@dataclass(frozen=True)
class KnownEnvironment:
    """An id that exists.

    Attributes:
        id: As configurations store it: without ``orl:``, with ``module:`` for ids that need another import.
        spec: Gymnasium's entry.
        creator: What makes the env.
        domain: Domain of its instances, or None.
        kwargs: Names of keyword arguments it takes; None if it takes any.
    """

    id: str
    spec: Any
    creator: Any
    domain: str | None
    kwargs: frozenset[str] | None = field(default=None)


def label(name: str, choice: Mapping[str, Any]) -> str:
    """A name with the values of a grid that make this choice.

    >>> label("ppo", {"gamma": 0.9, "net": {"target": "m:Net"}})
    'ppo[gamma=0.9,net=Net]'
    """
    return f"{name}[{','.join(f'{key}={_short(value)}' for key, value in choice.items())}]" if choice else name


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("target", value.get("object")), str):
        return str(value.get("target", value.get("object"))).rpartition(":")[2]
    return canonical_json(value)


def grid_choices(grid: dict[str, list[Any]] | None, stated: bool, path: KeyPath, problems: Problems) -> list[Any]:
    """All combinations of a grid, keys in alphabetical order; one empty choice without a grid."""
    if not stated:
        return [{}]
    if not grid:
        problems.add(path, "empty grid", expected="a mapping of keys to lists of values, or no grid")
        return []
    for key, values in grid.items():
        if not values:
            problems.add((*path, key), "empty grid", expected="a list of values")
        for index, value in enumerate(values):
            if canonical_json(value) in map(canonical_json, values[:index]):
                problems.add((*path, key, index), "duplicate value in a grid", value=value)
    if math.prod(len(values) for values in grid.values()) > MOST_RUNS:
        problems.add(path, "too large", expected=f"at most {MOST_RUNS} combinations")
    if problems.at(*path):
        return []
    keys = sorted(grid)
    return [dict(zip(keys, values, strict=True)) for values in product(*(grid[key] for key in keys))]


def environment_choices(
    entry: EnvironmentEntry, path: KeyPath, folder: Path, problems: Problems
) -> list[EnvironmentChoice]:
    """The environments of an entry; mistakes are noted, and what they spoil is left out.

    Args:
        entry: The entry.
        path: Where it stands.
        folder: Folder of the sweep file, in which instance files are looked for.
        problems: Takes the mistakes.
    """
    known = _known_environment(entry.id, (*path, "id"), problems)
    choices = grid_choices(entry.grid, entry.states("grid"), (*path, "grid"), problems)
    if known is None:
        return []
    for key in ("kwargs", "train"):
        values = getattr(entry, key) or {}
        check_kwargs(known, values, (*path, key), problems)
        check_targets(values, (*path, key), problems)
    check_kwargs(known, entry.grid or {}, (*path, "grid"), problems)
    name = entry.name or known.id.rpartition("/")[2].rpartition(":")[2]
    result = []
    for choice in choices:
        kwargs = {**entry.kwargs, **choice}
        where: KeyPath = (*path, "grid" if "instance" in choice else "kwargs", "instance")
        instances = _instances(entry, known, kwargs, path, where, folder, problems)
        part = EnvironmentPart(
            id=known.id,
            version=env_version(known.id),
            kwargs=kwargs,
            instances=instances,
            train_kwargs=entry.train or None,
        )
        result.append(EnvironmentChoice(label(name, choice), name, path, part, known))
    return result


# ---- ids and arguments ---------------------------------------------------------------------------------------------
def _known_environment(env_id: str, path: KeyPath, problems: Problems) -> KnownEnvironment | None:
    plain = env_id.removeprefix("orl:")
    entry = next((e for e in registry.environments() if e.id == plain), None)
    try:
        spec = env_spec(plain)
        entry_point: Any = spec.entry_point
        creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    except gymnasium.error.UnregisteredEnv:
        known = {*gymnasium.registry, *(e.id for e in registry.environments())}
        problems.take(path, UnknownNameError("environment", env_id, known))
        return None
    except (gymnasium.error.Error, ImportError, AttributeError) as error:
        shown: Exception = error
        if entry is not None and entry.extra is not None and isinstance(error, ModuleNotFoundError):
            shown = MissingExtraError(str(error.name), entry.extra, env_id)
        problems.add(path, f"cannot be used: {shown}", value=env_id)
        return None
    parameters = inspect.signature(creator).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    names = None if takes_any else frozenset(parameters) | frozenset(_GYMNASIUM_KWARGS)
    return KnownEnvironment(plain, spec, creator, None if entry is None else entry.domain, names)


def check_kwargs(known: KnownEnvironment, kwargs: Mapping[str, Any], path: KeyPath, problems: Problems) -> None:
    """Note keyword arguments that the environment does not take."""
    for key in kwargs:
        if known.kwargs is not None and key not in known.kwargs:
            expected = UnknownNameError("argument", key, known.kwargs - {"self"}).expected
            problems.add((*path, key), f"unknown argument of {known.id}", expected=expected)


# ---- instances -----------------------------------------------------------------------------------------------------
def _instances(
    entry: EnvironmentEntry,
    known: KnownEnvironment,
    kwargs: dict[str, Any],
    path: KeyPath,
    kwargs_path: KeyPath,
    folder: Path,
    problems: Problems,
) -> tuple[InstanceSource, ...]:
    """The instances of an environment; an instance named in ``kwargs``, or by default, moves from there to here."""
    listed = (*path, "instances")
    if known.domain is None:
        if entry.states("instances"):
            problems.add(listed, f"{known.id} takes no instances")
        return ()
    if entry.train and "instance" not in entry.train:
        expected = "the key instance, such as {target: module:Generator}: training does not see the instances"
        problems.add((*path, "train"), "names no instance", expected=expected)
    if not entry.states("instances"):
        name = kwargs.get("instance", known.spec.kwargs.get("instance"))
        if not isinstance(name, str):
            return ()  # instances come from the environment itself, from a generator for example
        kwargs.pop("instance", None)
        return _named(name, known.domain, kwargs_path, folder, problems)
    if "instance" in kwargs:
        problems.add(kwargs_path, "instance beside instances", expected="one of them, or the key train")
        kwargs.pop("instance")
    if not entry.instances:
        problems.add(listed, "empty", expected="a list of library names, files or generators")
    sources: dict[str, InstanceSource] = {}
    for index, item in enumerate(entry.instances or ()):
        where = (*listed, index)
        if isinstance(item, Generated):
            check_targets(item.generator, (*where, "generator"), problems)
            if "target" not in item.generator:
                problems.add((*where, "generator"), "the key 'target' is missing")
            found: tuple[InstanceSource, ...] = tuple(
                GeneratedInstance(generator=item.generator, seed=item.seed, index=k) for k in range(item.count)
            )
        else:
            found = _named(item, known.domain, where, folder, problems)
        for source in found:
            key = instance_key(source)
            if key in sources:
                problems.add(where, "duplicate instance", value=source if isinstance(source, str) else None)
                break
            sources[key] = source
    return tuple(sources.values())


def instance_key(source: InstanceSource) -> str:
    """One text for one source, by which sources can be compared and sorted."""
    return canonical_json(source if isinstance(source, str) else source.model_dump())


def _named(name: str, domain: str, path: KeyPath, folder: Path, problems: Problems) -> tuple[str | InstanceFile, ...]:
    if name in _library(domain):
        return (name,)
    file, mark, inner = name.rpartition("#") if "#" in name else (name, "", "")
    place = (folder / file).absolute()
    looks_like_path = any(sign in file for sign in "/\\.") or place.exists()
    try:
        if not looks_like_path:
            registry.domain(domain).load(name)  # an unknown name, or one whose data is not here: the domain says which
            return (name,)
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
        full = f"{place}{mark}{inner}"
        registry.domain(domain).load(full)
        return (InstanceFile(file=full, sha256=digest),)
    except OSError as error:
        problems.add(path, f"cannot be read: {error.strerror or error}", value=name, expected="an instance file")
    except InputError as error:
        where = f"not an instance: {error}" if looks_like_path else "unknown instance"
        problems.add(path, where, value=name, expected=None if looks_like_path else error.expected)
    except DataUnavailableError as error:
        problems.add(path, f"its data is not here: {error}", value=name)
    return ()


@cache
def _library(domain: str) -> frozenset[str]:
    return frozenset(registry.domain(domain).instances())
