"""The rows of the tables in :mod:`orl.registry`; they hold lazy import strings ``"module:attribute"``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

from orl.common.errors import MissingExtraError

if TYPE_CHECKING:
    from orl.common.data import DataFile


def resolve(target: str) -> Any:
    """The object behind ``"package.module:attribute"``; the attribute may be dotted (``"m:Class.method"``).

    >>> resolve("math:pi") > 3
    True
    """
    module, _, attribute = target.partition(":")
    return reduce(getattr, attribute.split("."), importlib.import_module(module))


@dataclass(frozen=True)
class Entry:
    """A named class or function.

    Attributes:
        key: kebab-case name, unique in its table (solvers and rules: unique in a domain).
        target: ``"module:attribute"``.
        summary: One line for listings.
        domain: Domain it belongs to; None for algorithms, which know no domain.
        extra: Extra of orl that brings its optional dependencies (``pip install 'orl[extra]'``), or None.
        kwargs: Keyword arguments that make this entry out of the target.
        reproducible: Solvers: without a time limit, the same seed gives the same solution.
        search_space: Algorithms: target of a function ``(trial, setting) -> hyper-parameters`` that draws what
            ``orl tune`` tries (see ``orl.bench.search_spaces``), or None.
    """

    key: str
    target: str
    summary: str
    domain: str | None = None
    extra: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    reproducible: bool = False
    search_space: str | None = None

    def load(self) -> Any:
        """Import the target. Raises MissingExtraError when a dependency of its extra is not installed."""
        try:
            return resolve(self.target)
        except ModuleNotFoundError as error:
            if self.extra is None or error.name is None or error.name.partition(".")[0] == "orl":
                raise
            raise MissingExtraError(error.name, self.extra, self.key) from error

    def make(self, *args: Any, **kwargs: Any) -> Any:
        """Call the target with this entry's keyword arguments, overridden by ``kwargs``."""
        return self.load()(*args, **{**self.kwargs, **kwargs})


@dataclass(frozen=True)
class Environment:
    """An environment id and how Gymnasium makes it, alone or as a native batch.

    Attributes:
        id: Gymnasium id.
        domain: Domain of its instances.
        entry_point, vector_entry_point: ``"module:attribute"`` of the Env and of the native VectorEnv (None: no batch).
        summary: One line for listings.
        kwargs: Default keyword arguments of both.
        extra: Extra of orl that it needs, or None.
    """

    id: str
    domain: str
    entry_point: str
    vector_entry_point: str | None
    summary: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    extra: str | None = None

    @property
    def lazy_id(self) -> str:
        """The id for ``gym.make`` in a process that has not imported orl (subprocess and Ray workers)."""
        return f"orl:{self.id}"


@dataclass(frozen=True)
class Domain:
    """What the command line and the benchmarks need to know of a domain; every ``str`` target is lazy.

    Attributes:
        name: Folder name under ``orl.envs`` and ``orl.solvers``.
        summary: One line for listings.
        load_instance: Target ``(name_or_path) -> Instance``.
        list_instances: Target ``() -> list[str]``, names that load without network.
        save_picture: Target ``(instance, solution, path) -> None``.
        read_solution: Target ``(json data, source=None) -> Solution``.
        environments: Ids that act on this domain's instances, the usual one first.
        example: Name of its smallest named instance (tests, documentation).
        data_files: Target of a ``tuple[DataFile, ...]`` that can be fetched (``orl.common.data``), or None.
    """

    name: str
    summary: str
    load_instance: str
    list_instances: str
    save_picture: str
    read_solution: str
    environments: tuple[str, ...]
    example: str
    data_files: str | None = None

    def load(self, name_or_path: Any) -> Any:
        """The instance of that library name or file."""
        return resolve(self.load_instance)(name_or_path)

    def instances(self) -> list[str]:
        """Names of the instances that load without network."""
        names: list[str] = resolve(self.list_instances)()
        return names

    def draw(self, instance: Any, solution: Any, path: Any) -> None:
        """Write a picture of a solution; the suffix of ``path`` names the format."""
        resolve(self.save_picture)(instance, solution, path)

    def files(self) -> tuple[DataFile, ...]:
        """The data files that this domain can fetch; none if it needs none."""
        return () if self.data_files is None else tuple(resolve(self.data_files))

    def solution(self, data: Any, source: str | None = None) -> Any:
        """The solution that ``Solution.to_json`` wrote."""
        return resolve(self.read_solution)(data, source)
