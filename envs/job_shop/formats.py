"""Instance files of the field: standard, Taillard, ``.fjs``, collections and JSON. Reading and writing.

========== ===========================================================================================================
standard   ``jobs machines``, then one line a job: ``machine duration`` pairs, machines from 0. A line that ends with
           ``-1 -1`` may hold any number of pairs (ragged jobs, as in Da Col and Teppan's instances).
taillard   ``jobs machines`` (or Taillard's line of six numbers under its title), then a durations matrix, then a
           machines matrix, machines from 1. The titles ``Times`` and ``Machines`` may stand before the matrices.
fjs        ``jobs machines [average]``, then one line a job: the number of operations, and for each operation the
           number of alternatives and that many ``machine duration`` pairs, machines from 1.
collection Several instances: ``name jobs machines``, then the lines of the standard format.
json       What :meth:`ShopInstance.to_json` gives, or job-shop-lib's ``machines_matrix`` and ``duration_matrix``.
========== ===========================================================================================================

Empty lines and lines that begin with ``#`` are skipped in the text formats. Whatever is wrong with a file, the answer
is one InputError that names file, line and field. Files are read line by line; sizes are capped before memory is used.

    >>> instance = parse(b"2 2\\n0 3 1 2\\n1 4 0 1\\n", name="tiny")
    >>> print(to_standard(instance), end="")
    2 2
    0 3 1 2
    1 4 0 1
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from orl.common.atomic import write_text
from orl.common.errors import InputError, UnknownNameError
from orl.envs.job_shop.builders import MAX_MACHINES, flexible_job_shop, flow_shop, job_shop, open_shop
from orl.envs.job_shop.instance import NO_DEADLINE, SCHEMA, ShopInstance
from orl.envs.job_shop.text_rows import (
    INTEGER,
    MAX_MODES,
    MAX_OPERATIONS,
    NUMBER,
    Lines,
    Rows,
    fjs_jobs,
    read_header,
    standard_rows,
    taillard_rows,
    text_of,
)

Format = Literal["standard", "taillard", "fjs", "collection", "json"]
Kind = Literal["job_shop", "flow_shop", "open_shop"]
FORMATS: tuple[Format, ...] = ("standard", "taillard", "fjs", "collection", "json")
MAX_FILE_BYTES = 32 * 2**20
MAX_JSON_BYTES = 8 * 2**20
MAX_INSTANCES = 10_000


# ---- reading -------------------------------------------------------------------------------------------------------
def read(
    path: str | os.PathLike[str],
    *,
    instance: str | None = None,
    format: Format | None = None,
    kind: Kind = "job_shop",
) -> ShopInstance:
    """Read an instance file.

    Args:
        path: The file. Its stem names the instance unless the file does.
        instance: Which instance of a file that holds several.
        format: The format; left out, it is detected (``.fjs`` and ``.json`` by suffix, others by their first lines).
        kind: What the rows of the standard and Taillard formats mean.

    Raises:
        InputError: anything wrong with the file, a missing file too.
        UnknownNameError: the file does not hold ``instance``.
    """
    source = os.fspath(path)
    with _open(path) as stream:
        return _parse(stream, Path(path).stem, source, Path(path).suffix.lower(), instance, format, kind)


def parse(
    data: bytes | str,
    *,
    name: str = "unnamed",
    source: str | None = None,
    instance: str | None = None,
    format: Format | None = None,
    kind: Kind = "job_shop",
) -> ShopInstance:
    """Like :func:`read`, from the content of a file; ``source`` stands for the file in messages."""
    content = data.encode() if isinstance(data, str) else data
    if len(content) > MAX_FILE_BYTES:
        raise InputError("too large", source=source, field="size", value=len(content), expected=f"<= {MAX_FILE_BYTES}")
    return _parse(io.BytesIO(content), name, source, "", instance, format, kind)


def instance_names(path: str | os.PathLike[str]) -> list[str]:
    """Names of the instances in a collection, or in a JSON file of job-shop-lib; the file's stem for other files.

    Raises:
        InputError: anything wrong with the file.
    """
    source = os.fspath(path)
    with _open(path) as stream:
        found = _detect(stream, source, Path(path).suffix.lower())
        if found == "json":
            data = _json_data(stream, source)
            return list(data) if _is_collection(data) else [str(data.get("name", Path(path).stem))]
        if found == "collection":
            return [name for name, _, _ in _collection(Lines(stream, source), None)]
    return [Path(path).stem]


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    source = os.fspath(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise InputError("no such file", source=source) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file", source=source)
    if status.st_size > MAX_FILE_BYTES:
        raise InputError(
            "too large", source=source, field="size", value=status.st_size, expected=f"at most {MAX_FILE_BYTES} bytes"
        )
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=source) from error


def _parse(
    stream: BinaryIO,
    name: str,
    source: str | None,
    suffix: str,
    instance: str | None,
    format: Format | None,
    kind: Kind,
) -> ShopInstance:
    if kind not in ("job_shop", "flow_shop", "open_shop"):
        raise InputError("unknown kind", field="kind", value=kind, expected="job_shop, flow_shop or open_shop")
    if format is not None and format not in FORMATS:
        raise InputError("unknown format", field="format", value=format, expected=f"one of {FORMATS}")
    found = format or _detect(stream, source, suffix)
    if found == "json":
        return _from_json(_json_data(stream, source), name, source, instance)
    lines = Lines(stream, source)
    if found == "collection":
        label, rows, n_machines = _one_of_collection(lines, instance)
        return _shop(kind, label, source, rows, n_machines)
    if instance is not None and instance != name:
        raise InputError("the file holds one instance", source=source, field="instance", value=instance, expected=name)
    n_jobs, n_machines = read_header(lines, {"standard": (2,), "taillard": (2, 6), "fjs": (2, 3)}[found])
    if found == "fjs":
        jobs = fjs_jobs(lines, n_jobs, n_machines)
        lines.end()
        return _built(source, lambda: flexible_job_shop(jobs, name=name, n_machines=n_machines))
    read_rows = standard_rows if found == "standard" else taillard_rows
    rows = read_rows(lines, n_jobs, n_machines)
    lines.end()
    return _shop(kind, name, source, rows, n_machines)


def _detect(stream: BinaryIO, source: str | None, suffix: str) -> Format:
    """The format of a file, by suffix, else by the first two lines with content. Leaves the stream at its beginning."""
    start = stream.read(1024).lstrip()
    stream.seek(0)
    if suffix == ".json" or start[:1] in (b"{", b"["):
        return "json"
    if suffix == ".fjs":
        return "fjs"
    lines = Lines(stream, source)
    first = lines.next()
    if first is None:
        raise InputError("the file is empty", source=source, expected="an instance")
    titled = lines.titled
    second = lines.next() or []
    stream.seek(0)
    if titled or len(first) == 6:
        return "taillard"
    if not NUMBER.fullmatch(first[0]) and len(first) == 3 and first[0][:1].isalpha():
        return "collection"
    if len(first) == 3:
        return "fjs"
    n_machines = int(first[1]) if len(first) == 2 and INTEGER.fullmatch(first[1]) else 0
    if lines.titled or (len(second) == n_machines and second[-2:] != [b"-1", b"-1"]):
        return "taillard"
    if len(second) != 2 * n_machines and _is_fjs_row(second):
        return "fjs"
    return "standard"


def _is_fjs_row(tokens: list[bytes]) -> bool:
    if not tokens or not all(INTEGER.fullmatch(token) for token in tokens):
        return False
    numbers, at = [int(token) for token in tokens], 1
    for _ in range(numbers[0]):
        if at >= len(numbers) or numbers[at] < 1:
            return False
        at += 1 + 2 * numbers[at]
    return at == len(numbers)


def _collection(lines: Lines, wanted: str | None) -> Iterator[tuple[str, int, int]]:
    """Name, jobs and machines of every instance up to ``wanted``, whose first job is then the next line."""
    count = 0
    while (tokens := lines.next()) is not None:
        if len(tokens) != 3:
            lines.fail("wrong count of words", "header", len(tokens), "name jobs machines")
        name = text_of(tokens[0])
        n_jobs = lines.integer(tokens[1], f"{name}, number of jobs", 1, MAX_OPERATIONS)
        n_machines = lines.integer(tokens[2], f"{name}, number of machines", 1, MAX_MACHINES)
        count += 1
        if count > MAX_INSTANCES:
            lines.fail("too many instances", "header", count, f"at most {MAX_INSTANCES}")
        yield name, n_jobs, n_machines
        if name == wanted:
            return
        for j in range(n_jobs):
            lines.row(f"{name}, job {j}")


def _one_of_collection(lines: Lines, wanted: str | None) -> tuple[str, tuple[Rows, Rows], int]:
    """Name, rows and machines of the instance ``wanted``, or of the only one."""
    known = []
    for name, n_jobs, n_machines in _collection(lines, wanted):
        known.append(name)
        if name == wanted:
            return name, standard_rows(lines, n_jobs, n_machines), n_machines
    if wanted is not None:
        raise UnknownNameError("instance", wanted, known)
    if not known:
        raise InputError("the file is empty", source=lines.source, expected="name jobs machines")
    if len(known) > 1:
        raise _several(lines.source, known)
    lines.rewind()
    return _one_of_collection(lines, known[0])


def _shop(kind: Kind, name: str, source: str | None, rows: tuple[Rows, Rows], n_machines: int) -> ShopInstance:
    machines, durations = rows
    if kind == "flow_shop":
        for j, row in enumerate(machines):
            if row != list(range(n_machines)):
                expected = f"the machines in the order 0..{n_machines - 1}"
                raise InputError("not a flow shop", source=source, field=f"job {j}", value=row[:20], expected=expected)
        return _built(source, lambda: flow_shop(durations, name=name))
    build = job_shop if kind == "job_shop" else open_shop
    return _built(source, lambda: build(machines, durations, name=name, n_machines=n_machines))


def _built(source: str | None, build: Callable[[], ShopInstance]) -> ShopInstance:
    """``build()``, its errors told of the file."""
    try:
        return build()
    except InputError as error:
        raise InputError(
            error.problem, source=source, field=error.field, value=error.value, expected=error.expected
        ) from error


# ---- JSON ----------------------------------------------------------------------------------------------------------
def _json_data(stream: BinaryIO, source: str | None) -> dict[str, Any]:
    content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise InputError("too large", source=source, field="size", expected=f"at most {MAX_JSON_BYTES} bytes of JSON")
    try:
        data = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError("not UTF-8 text", source=source, line=line, field=f"byte {error.start}") from error
    except json.JSONDecodeError as error:
        where = f"column {error.colno}"
        raise InputError(f"not JSON: {error.msg}", source=source, line=error.lineno, field=where) from error
    except RecursionError as error:
        raise InputError("not JSON of an instance: nested too deeply", source=source, line=1) from error
    except ValueError as error:
        raise InputError("not JSON: a number with too many digits", source=source, line=1) from error
    if not isinstance(data, dict):
        raise InputError("not an instance", source=source, line=1, value=type(data).__name__, expected="a JSON object")
    return data


def _is_collection(data: dict[str, Any]) -> bool:
    return (
        "schema" not in data
        and "duration_matrix" not in data
        and all(isinstance(v, dict) and "duration_matrix" in v for v in data.values())
        and bool(data)
    )


def _from_json(data: dict[str, Any], name: str, source: str | None, instance: str | None) -> ShopInstance:
    if "schema" in data:
        return ShopInstance.from_json(data, source)
    if _is_collection(data):
        if len(data) > MAX_INSTANCES:
            expected = f"at most {MAX_INSTANCES}"
            raise InputError("too many instances", source=source, field="name", value=len(data), expected=expected)
        if instance is None and len(data) > 1:
            raise _several(source, list(data))
        if instance is not None and instance not in data:
            raise UnknownNameError("instance", instance, data)
        name = next(iter(data)) if instance is None else instance
        data = data[name]
    elif "duration_matrix" not in data:
        raise InputError(
            "not a job-shop instance", source=source, field="schema", expected=f"{SCHEMA}, or a duration_matrix"
        )
    name = data["name"] if isinstance(data.get("name"), str) else name
    machines, durations = (_json_rows(data, key, source) for key in ("machines_matrix", "duration_matrix"))
    return _built(source, lambda: job_shop(machines, durations, name=name))


def _json_rows(data: dict[str, Any], key: str, source: str | None) -> Rows:
    rows = data.get(key)
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise InputError("not a matrix", source=source, field=key, value=type(rows).__name__, expected="lists of lists")
    for j, row in enumerate(rows):
        for k, value in enumerate(row):
            if type(value) is not int:
                found = value if isinstance(value, float | str | bool) else type(value).__name__
                field = f"{key}, job {j}, operation {k}"
                raise InputError("not an integer", source=source, field=field, value=found, expected="an integer")
    return rows


def _several(source: str | None, names: list[str]) -> InputError:
    expected = f"one of {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    return InputError("the file holds several instances", source=source, field="instance", expected=expected)


# ---- writing -------------------------------------------------------------------------------------------------------
def write(instance: ShopInstance, path: str | os.PathLike[str], *, format: Format | None = None) -> None:
    """Write an instance file, whole or not at all. ``format`` left out: by suffix ``.json``, ``.fjs``, else standard.

    Raises:
        InputError: the format cannot hold the instance (JSON holds all of them).
    """
    chosen = format or {".json": "json", ".fjs": "fjs"}.get(Path(path).suffix.lower(), "standard")
    writers: dict[str, Callable[[ShopInstance], str]] = {
        "standard": to_standard,
        "taillard": to_taillard,
        "fjs": to_fjs,
        "collection": lambda one: to_collection([one]),
        "json": lambda one: json.dumps(one.to_json()) + "\n",
    }
    if chosen not in writers:
        raise InputError("unknown format", field="format", value=format, expected=f"one of {FORMATS}")
    write_text(path, writers[chosen](instance))


def to_standard(instance: ShopInstance) -> str:
    """The instance in the standard format; jobs end with ``-1 -1`` where one has not as many operations as machines."""
    return f"{instance.n_jobs} {instance.n_declared_resources}\n" + _pair_lines(instance, "standard")


def to_collection(instances: list[ShopInstance]) -> str:
    """Several instances in one text; names must be single words and distinct."""
    names = [one.name for one in instances]
    for name in names:
        if (
            not re.fullmatch(r"[A-Za-z][!-~]{0,39}", name)
            or names.count(name) > 1
            or name.lower() in ("times", "machines")
        ):
            raise InputError("bad name", field="name", value=name, expected="a word of its own, a letter first")
    return "".join(
        f"{one.name} {one.n_jobs} {one.n_declared_resources}\n{_pair_lines(one, 'collection')}" for one in instances
    )


def _pair_lines(instance: ShopInstance, format: str) -> str:
    jobs = [[modes[0] for modes in job] for job in _shop_rows(instance, format, max_modes=1)]
    ragged = any(len(job) != instance.n_declared_resources for job in jobs)
    end = " -1 -1\n" if ragged else "\n"
    return "".join(" ".join(f"{machine} {duration}" for machine, duration in job) + end for job in jobs)


def to_taillard(instance: ShopInstance) -> str:
    """The instance in the Taillard format; every job must have as many operations as there are machines."""
    jobs = [[modes[0] for modes in job] for job in _shop_rows(instance, "taillard", max_modes=1)]
    n_machines = instance.n_declared_resources
    for j, job in enumerate(jobs):
        if len(job) != n_machines:
            raise _cannot_hold(instance, "taillard", f"job {j} with {len(job)} operations on {n_machines} machines")
    durations = "".join(" ".join(str(duration) for _, duration in job) + "\n" for job in jobs)
    machines = "".join(" ".join(str(machine + 1) for machine, _ in job) + "\n" for job in jobs)
    return f"{len(jobs)} {n_machines}\nTimes\n{durations}Machines\n{machines}"


def to_fjs(instance: ShopInstance) -> str:
    """The instance in the ``.fjs`` format."""
    jobs = _shop_rows(instance, "fjs", max_modes=MAX_MODES)
    if instance.kind == "open_shop":
        raise _cannot_hold(instance, "fjs", "an open shop")
    average = sum(len(modes) for job in jobs for modes in job) / instance.n_ops
    lines = [f"{len(jobs)} {instance.n_declared_resources} {average:.4g}"]
    for job in jobs:
        operations = [f"{len(modes)} " + " ".join(f"{m + 1} {d}" for m, d in modes) for modes in job]
        lines.append(f"{len(job)} " + " ".join(operations))
    return "\n".join(lines) + "\n"


def _cannot_hold(instance: ShopInstance, format: str, what: str) -> InputError:
    return InputError(f"the {format} format cannot hold {what}", source=instance.name, field="format", expected="json")


def _shop_rows(instance: ShopInstance, format: str, max_modes: int) -> list[list[list[tuple[int, int]]]]:
    """Per job and operation the ``(machine, duration)`` modes, or an InputError if that is not the whole instance."""
    n_groups = instance.n_resources - instance.n_declared_resources
    chains = n_groups == 0 and instance.n_lines == instance.n_jobs
    if not chains and instance.kind == "open_shop":
        plain = n_groups == instance.n_jobs and len(instance.pred_op) == 0
    else:
        plain = chains and len(instance.pred_op) == instance.n_ops - instance.n_jobs
    if not plain:
        raise _cannot_hold(instance, format, "precedences other than one chain a job")
    for what, bad in (
        ("operations with several modes", instance.max_modes > max_modes),
        ("cumulative resources", (instance.capacity > 1).any() or (instance.primary_resource < 0).any()),
        ("lags, releases or deadlines", instance.pred_lag.any() or instance.release.any()),
        ("lags, releases or deadlines", (instance.deadline != NO_DEADLINE).any()),
        (f"the objective {instance.objective}", instance.objective != "makespan"),
    ):
        if bad:
            raise _cannot_hold(instance, format, what)
    jobs: list[list[list[tuple[int, int]]]] = [[] for _ in range(instance.n_jobs)]
    pointer, machine, duration = (
        array.tolist() for array in (instance.mode_ptr, instance.primary_resource, instance.mode_duration)
    )
    for o, j in zip(instance.line_op.tolist(), instance.job[instance.line_op].tolist(), strict=True):
        jobs[j].append([(machine[q], duration[q]) for q in range(pointer[o], pointer[o + 1])])
    return jobs
