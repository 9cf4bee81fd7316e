"""The rows of the text formats, read line by line with caps on every size (see :mod:`orl.envs.job_shop.formats`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from orl.common.errors import InputError
from orl.envs.job_shop.builders import MAX_MACHINES
from orl.envs.job_shop.model import MAX_HORIZON

MAX_LINE_BYTES = 2**20
MAX_LINES = 1_000_000
MAX_OPERATIONS = 200_000
MAX_MODES = 1_000_000
INTEGER = re.compile(rb"[+-]?[0-9]{1,10}")
NUMBER = re.compile(rb"[0-9]{1,10}(\.[0-9]*)?")
TITLES = (b"nb of jobs", b"times", b"machines")
Rows = list[list[int]]


class Lines:
    """The lines with content of a text file, split at blanks, in bounded memory. ``number`` counts from 1."""

    def __init__(self, stream: BinaryIO, source: str | None) -> None:
        self.stream, self.source, self.number = stream, source, 0
        self.titled = False

    def next(self) -> list[bytes] | None:
        """The tokens of the next line with content; None at the end. Skips titles of Taillard's files."""
        while line := self.stream.readline(MAX_LINE_BYTES + 1):
            self.number += 1
            if len(line) > MAX_LINE_BYTES:
                expected = f"at most {MAX_LINE_BYTES} bytes"
                raise InputError("line too long", source=self.source, line=self.number, expected=expected)
            if self.number > MAX_LINES:
                raise InputError(
                    "too many lines", source=self.source, line=self.number, expected=f"at most {MAX_LINES}"
                )
            text = line.strip()
            if not text or text.startswith(b"#"):
                continue
            if text.lower() in TITLES or text.lower().startswith(TITLES[0]):
                self.titled = True
                continue
            return text.split()
        return None

    def rewind(self) -> None:
        """Back to the first line."""
        self.stream.seek(0)
        self.number, self.titled = 0, False

    def row(self, field: str) -> list[bytes]:
        """The next line with content, which the file must have."""
        tokens = self.next()
        if tokens is None:
            raise InputError("the file ends early", source=self.source, line=max(1, self.number), field=field)
        return tokens

    def end(self) -> None:
        """Check that nothing follows."""
        tokens = self.next()
        if tokens is not None:
            self.fail("unexpected text after the last job", "end of file", text_of(tokens[0]), "nothing")

    def integer(self, token: bytes, field: str, low: int, high: int) -> int:
        """``token`` as an integer in low..high."""
        if not INTEGER.fullmatch(token):
            self.fail("not an integer", field, text_of(token), f"an integer in {low}..{high}")
        value = int(token)
        if not low <= value <= high:
            self.fail("negative number" if value < 0 else "out of range", field, value, f"{low}..{high}")
        return value

    def fail(self, problem: str, field: str, value: object, expected: str) -> NoReturn:
        raise InputError(problem, source=self.source, line=self.number, field=field, value=value, expected=expected)


def text_of(token: bytes) -> str:
    return token[:40].decode("ascii", "backslashreplace") + ("..." if len(token) > 40 else "")


def read_header(lines: Lines, lengths: tuple[int, ...]) -> tuple[int, int]:
    tokens = lines.next()
    if tokens is None:
        raise InputError("the file is empty", source=lines.source, line=1, field="header", expected="jobs machines")
    if len(tokens) not in lengths:
        for token in tokens[: max(lengths)]:
            if not NUMBER.fullmatch(token):
                lines.fail("not an integer", "header", text_of(token), "the numbers of jobs and machines")
        expected = " or ".join(map(str, lengths)) + " numbers: jobs machines"
        lines.fail("wrong count of numbers", "header", len(tokens), expected)
    n_jobs = lines.integer(tokens[0], "number of jobs", 1, MAX_OPERATIONS)
    n_machines = lines.integer(tokens[1], "number of machines", 1, MAX_MACHINES)
    for token in tokens[2:]:
        if not NUMBER.fullmatch(token):
            lines.fail("not a number", "header", text_of(token), "a number")
    return n_jobs, n_machines


def standard_rows(lines: Lines, n_jobs: int, n_machines: int) -> tuple[Rows, Rows]:
    """Machines and durations of ``n_jobs`` lines of ``machine duration`` pairs."""
    machines: Rows = []
    durations: Rows = []
    n_operations = 0
    for j in range(n_jobs):
        tokens = lines.row(f"job {j}")
        if tokens[-2:] == [b"-1", b"-1"]:
            tokens = tokens[:-2]
            if not tokens or len(tokens) % 2:
                lines.fail("wrong count of numbers", f"job {j}", len(tokens), "machine duration pairs before -1 -1")
        elif len(tokens) != 2 * n_machines:
            if len(tokens) < 2 * n_machines:
                for k, token in enumerate(tokens):
                    if not INTEGER.fullmatch(token):
                        lines.fail("not an integer", _pair_field(j, k), text_of(token), "an integer")
            expected = f"{2 * n_machines}: a machine and a duration for each of {n_machines} operations"
            lines.fail("wrong count of numbers", f"job {j}", len(tokens), expected)
        n_operations += len(tokens) // 2
        if n_operations > MAX_OPERATIONS:
            lines.fail("too many operations", f"job {j}", n_operations, f"at most {MAX_OPERATIONS}")
        limits = (n_machines - 1, MAX_HORIZON)
        numbers = [lines.integer(token, _pair_field(j, k), 0, limits[k % 2]) for k, token in enumerate(tokens)]
        machines.append(numbers[::2])
        durations.append(numbers[1::2])
    return machines, durations


def _pair_field(job: int, k: int) -> str:
    return f"job {job}, operation {k // 2}, {('machine', 'duration')[k % 2]}"


def taillard_rows(lines: Lines, n_jobs: int, n_machines: int) -> tuple[Rows, Rows]:
    """Machines (from 0) and durations of a durations matrix and a machines matrix (from 1)."""
    if n_jobs * n_machines > MAX_OPERATIONS:
        lines.fail("too many operations", "header", n_jobs * n_machines, f"at most {MAX_OPERATIONS}")
    matrices = []
    for what, low, high in (("duration", 0, MAX_HORIZON), ("machine", 1, n_machines)):
        matrix = []
        for j in range(n_jobs):
            tokens = lines.row(f"job {j}, {what}s")
            if len(tokens) != n_machines:
                lines.fail("wrong count of numbers", f"job {j}, {what}s", len(tokens), f"{n_machines}")
            row = [lines.integer(t, f"job {j}, operation {k}, {what}", low, high) for k, t in enumerate(tokens)]
            matrix.append([value - low for value in row])
        matrices.append(matrix)
    return matrices[1], matrices[0]


def fjs_jobs(lines: Lines, n_jobs: int, n_machines: int) -> list[list[list[tuple[int, int]]]]:
    """The ``(machine from 0, duration)`` modes of the operations of the jobs."""
    jobs = []
    n_modes = 0
    for j in range(n_jobs):
        tokens = lines.row(f"job {j}")
        if tokens[-2:] == [b"-1", b"-1"]:
            tokens = tokens[:-2]
        rest = iter(tokens)

        def number(field: str, low: int, high: int, rest: Iterator[bytes] = rest) -> int:
            token = next(rest, None)
            if token is None:
                lines.fail("the line ends early", field, None, f"an integer in {low}..{high}")
            return lines.integer(token, field, low, high)

        job = []
        for k in range(number(f"job {j}, number of operations", 1, MAX_OPERATIONS)):
            field = f"job {j}, operation {k}, "
            modes = []
            for _ in range(number(field + "number of alternatives", 1, MAX_MODES)):
                machine = number(field + "machine", 1, n_machines)
                modes.append((machine - 1, number(field + "duration", 0, MAX_HORIZON)))
            n_modes += len(modes)
            job.append(modes)
        left = sum(1 for _ in rest)
        if left:
            lines.fail("too many numbers", f"job {j}", left, "none after the last operation")
        if n_modes > MAX_MODES:
            lines.fail("too many modes", f"job {j}", n_modes, f"at most {MAX_MODES}")
        jobs.append(job)
    return jobs
