"""The form of a sweep file, as pydantic models, and their errors with lines.

A list entry is checked by itself and a broken part of it is set aside, so that one reading finds all mistakes. What
needs a look at registries, environments or other parts of the file is checked in :mod:`orl.bench.description`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from orl.bench.yaml_lines import Document, KeyPath
from orl.common.errors import InputError, UnknownNameError

SCHEMA = "orl.sweep/1"
MOST_RUNS = 100_000
"""Runs of a sweep, values of a grid, seeds and instances of an entry."""
LARGEST_SEED = 2**32 - 1
"""What numpy's and SB3's global generators take."""

M = TypeVar("M", bound="_Part")


def _whole(value: Any) -> Any:
    """1e6 is a float in YAML; as a number of steps it is meant as the integer it equals."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _mapping_or_none(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1)]
SmallCount = Annotated[Whole, Field(ge=1, le=MOST_RUNS)]
Seed = Annotated[Whole, Field(ge=0, le=LARGEST_SEED)]
Positive = Annotated[float, Field(gt=0)]
Label = Annotated[str, Field(min_length=1)]
Kwargs = dict[str, Any]
Grid = dict[str, list[Any]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)
    shorthand: ClassVar[str | None] = None
    """The key whose value a bare text is."""

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, data: Any) -> Any:
        return {cls.shorthand: data} if cls.shorthand is not None and isinstance(data, str) else data

    def states(self, key: str) -> bool:
        """Whether the file says something about ``key``."""
        return key in self.model_fields_set


class SeedRange(_Part):
    """``count`` seeds from ``first`` on."""

    first: Seed = 0
    count: SmallCount


def _kind_of_seeds(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    return {int: "<count>", float: "<count>", list: "<list>", dict: "<range>"}.get(type(value))


Seeds = Annotated[
    Annotated[SmallCount, Tag("<count>")] | Annotated[list[Seed], Tag("<list>")] | Annotated[SeedRange, Tag("<range>")],
    Discriminator(
        _kind_of_seeds,
        custom_error_type="seeds",
        custom_error_message="wrong type; expected a count, a list of seeds, or {first, count}",
    ),
]


def seed_list(seeds: int | list[int] | SeedRange) -> Sequence[int]:
    """The seeds that a count, a list or a range stands for.

    >>> list(seed_list(3)), seed_list([7, 5]), list(seed_list(SeedRange(first=10, count=2)))
    ([0, 1, 2], [7, 5], [10, 11])
    """
    if isinstance(seeds, SeedRange):
        return range(seeds.first, seeds.first + seeds.count)
    return range(seeds) if isinstance(seeds, int) else seeds


class Generated(_Part):
    """``count`` instances of a generator."""

    generator: Kwargs
    count: SmallCount = 1
    seed: Seed = 0


InstanceItem = Annotated[
    Annotated[Label, Tag("<name>")] | Annotated[Generated, Tag("<generated>")],
    Discriminator(
        lambda value: {str: "<name>", dict: "<generated>"}.get(type(value)),
        custom_error_type="instance",
        custom_error_message="wrong type; expected a library name, a file, or {generator, count, seed}",
    ),
]


class Budget(_Part):
    steps: Count | None = None
    seconds: Positive | None = None


class EnvironmentEntry(_Part):
    shorthand = "id"

    id: Label
    name: Label | None = None
    kwargs: Kwargs = Field(default_factory=dict)
    instances: list[InstanceItem] | None = None
    train: Kwargs | None = None
    grid: Grid | None = None


class AlgorithmEntry(_Part):
    shorthand = "algorithm"

    algorithm: Label
    name: Label | None = None
    policy: Label | None = None
    hyper: Kwargs = Field(default_factory=dict)
    policy_kwargs: Kwargs = Field(default_factory=dict)
    n_envs: Count | None = None
    normalize: Annotated[Kwargs | None, BeforeValidator(_mapping_or_none)] = None
    frame_stack: Count | None = None
    wrappers: list[Any] = Field(default_factory=list)
    zoo: Label | None = None
    grid: Grid | None = None
    environments: list[Label] | None = None
    seeds: Seeds | None = None
    budget: Budget | None = None


class RuleEntry(_Part):
    shorthand = "rule"

    rule: Label
    name: Label | None = None
    options: Kwargs = Field(default_factory=dict)
    grid: Grid | None = None
    environments: list[Label] | None = None
    seeds: Seeds | None = None
    best_of: Count | None = None


class SolverEntry(_Part):
    shorthand = "solver"

    solver: Label
    name: Label | None = None
    time_limit: Positive | None = None
    options: Kwargs = Field(default_factory=dict)
    grid: Grid | None = None
    environments: list[Label] | None = None
    seeds: Seeds | None = None


class Evaluation(_Part):
    every: Count | None = None
    episodes: Count = 10
    curve_episodes: Count = 5
    seed: Seed = 1_000_000
    deterministic: bool = True
    best_of: Count = 1
    kwargs: Kwargs = Field(default_factory=dict)


class Checkpoints(_Part):
    every: Count | None = None
    model: bool = True


class Score(_Part):
    low: float
    high: float


class SweepFile(_Part):
    """The top of a sweep file; its list entries are checked one by one."""

    schema_: Literal["orl.sweep/1"] = Field(default="orl.sweep/1", alias="schema")
    name: Label | None = None
    requires: list[Label] = Field(default_factory=list)
    environments: list[Any] = Field(default_factory=list)
    algorithms: list[Any] = Field(default_factory=list)
    rules: list[Any] = Field(default_factory=list)
    solvers: list[Any] = Field(default_factory=list)
    seeds: Seeds = 1
    budget: Budget | None = None
    evaluation: Evaluation = Field(default_factory=Evaluation)
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    scores: dict[str, Score] = Field(default_factory=dict)
    tensorboard: bool = False
    threads: Count = 1
    pictures: bool = True


_NESTED: dict[str, type[_Part]] = {
    "budget": Budget,
    "evaluation": Evaluation,
    "checkpoints": Checkpoints,
    "scores": Score,
    "seeds": SeedRange,
    "instances": Generated,
}


# ---- errors --------------------------------------------------------------------------------------------------------
class SweepFileError(InputError):
    """The mistakes of a sweep file, one line each.

    Attributes:
        errors: One error each, in the order of their lines; ``line``, ``field``, ... of this error are the first's.
    """

    def __init__(self, errors: Sequence[InputError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: error.line or 0))
        first = self.errors[0]
        super().__init__(
            first.problem,
            source=first.source,
            line=first.line,
            field=first.field,
            value=first.value,
            expected=first.expected,
        )
        self.args = ("\n".join(" ".join(str(error).split()) for error in self.errors),)


class Problems:
    """Collects the mistakes of a document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.errors: list[InputError] = list(document.errors)
        self._paths: list[KeyPath] = []
        # What a line that is not even YAML means is anybody's guess: one error for it is enough.
        self._spoilt = {error.line for error in document.errors if error.field is None and error.value != "---"}

    def add(self, path: KeyPath, problem: str, *, value: object = None, expected: str | None = None) -> None:
        """Note a mistake at ``path``."""
        error = self.document.error(path, problem, value=value, expected=expected)
        self._paths.append(path)
        if error.line not in self._spoilt:
            self.errors.append(error)

    def take(self, path: KeyPath, error: InputError) -> None:
        """Note an error that somebody else raised about the value at ``path``."""
        self.add(path, error.problem, value=error.value, expected=error.expected)

    def note(self, path: KeyPath, error: InputError) -> None:
        """Note an error of another file that the value at ``path`` names; it stays as it is."""
        if str(error) not in map(str, self.errors):
            self.errors.append(error)
        self._paths.append(path)

    def at(self, *path: str | int) -> bool:
        """Whether a mistake was noted at ``path`` or below."""
        return any(noted[: len(path)] == path for noted in self._paths)

    def finish(self) -> None:
        """Raise SweepFileError if there was a mistake."""
        if self.errors:
            raise SweepFileError(self.errors)


def checked(model: type[M], data: Any, path: KeyPath, problems: Problems) -> M | None:
    """``data`` as a model; its mistakes are noted and the keys they are in are set aside.

    Returns:
        None if the mistakes leave nothing to look at: a required key is missing or wrong, or it is no mapping.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
    if isinstance(data, str):
        data = {model.shorthand: data}
    misspelt = {key for detail in found if detail["type"] == "extra_forbidden" for key in _meant(model, detail["loc"])}
    for detail in found:
        if detail["type"] != "missing" or detail["loc"] not in misspelt:
            _note(model, detail, path, problems)
    if not isinstance(data, dict):
        return None
    wrong = {str(detail["loc"][0]) for detail in found if detail["loc"]}
    if any(name in wrong for name, field in model.model_fields.items() if field.is_required()):
        return None
    return model.model_validate({key: value for key, value in data.items() if key not in wrong})


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_too_short": "a text that is not empty",
}
_LIMITS = {"greater_than_equal": ("ge", ">="), "greater_than": ("gt", ">"), "less_than_equal": ("le", "<=")}


def _unknown_key(model: type[_Part], place: Any) -> UnknownNameError:
    inner = next((_NESTED[step] for step in reversed(place[:-1]) if step in _NESTED), model)
    known = [field.alias or name for name, field in inner.model_fields.items()]
    return UnknownNameError("key", str(place[-1]), known)


def _meant(model: type[_Part], place: Any) -> list[Any]:
    """Places of the keys that an unknown key may be a misspelling of: those are not missing."""
    return [(*place[:-1], key) for key in _unknown_key(model, place).matches]


def _note(model: type[_Part], detail: Any, path: KeyPath, problems: Problems) -> None:
    inside = tuple(step for step in detail["loc"] if not str(step).startswith("<"))
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    where = (*path, *inside)
    if kind == "extra_forbidden":
        problems.add(where, "unknown key", expected=_unknown_key(model, inside).expected)
    elif kind == "missing":
        problems.add(where[:-1], f"the key {inside[-1]!r} is missing")
    elif kind in _LIMITS:
        limit, sign = _LIMITS[kind]
        problem = "too large" if sign == "<=" else "too small"
        problems.add(where, problem, value=value, expected=f"{sign} {context[limit]}")
    elif kind in _EXPECTED:
        problem = "empty" if value is None or value == "" else "wrong type"
        problems.add(where, problem, value=value, expected=_EXPECTED[kind])
    elif kind == "literal_error":
        problems.add(where, "unknown value", value=value, expected=context["expected"])
    else:
        problem, _, expected = detail["msg"].partition("; expected ")
        problems.add(where, problem, value=value, expected=expected or None)
