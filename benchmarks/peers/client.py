"""The caller's side of a side-by-side run: start a worker process, ask it, close it (protocol: ``serve.py``).

Import it as ``peers.client`` with the folder ``benchmarks`` on ``sys.path``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from peers import setup

FOLDER = Path(__file__).resolve().parent


class PeerMissing(RuntimeError):
    """A peer's virtual environment is not there and could not be made."""


class Worker:
    """A worker process; ``call`` sends one request and waits for its answer."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, encoding="utf-8"
        )

    def send(self, op: str, **fields: Any) -> None:
        """Send a request without waiting for its answer (see ``receive``)."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def receive(self) -> dict[str, Any]:
        """The answer to the last request; raises RuntimeError with the worker's last lines when it has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.send(op, **fields)
        return self.receive()

    def _death(self) -> RuntimeError:
        status = self._process.wait()
        self._errors.seek(0)
        last = "".join(self._errors.readlines()[-15:])
        return RuntimeError(f"worker {self.name} ended with status {status}:\n{last}")

    def close(self) -> None:
        """End the worker: its stdin is closed, and it is terminated when it does not leave within five seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ensure_installed(*peers: str) -> None:
    """Make the environments that are missing; raises PeerMissing with the reason when one cannot be made."""
    for peer in peers:
        if not setup.is_installed(peer):
            print(f"peer {peer} is not installed yet: installing it once, this can take minutes ...", flush=True)
            try:
                setup.install(peer)
            except RuntimeError as error:
                raise PeerMissing(f"peer {peer} cannot be installed, nothing was measured: {error}") from error


def peer(name: str) -> Worker:
    """Start a peer's worker from its own virtual environment; raises PeerMissing when it is not installed."""
    if not setup.is_installed(name):
        raise PeerMissing(f"peer {name} is not installed: python benchmarks/peers/setup.py {name}")
    return Worker(name, [str(setup.python(name)), str(FOLDER / name / "worker.py")])


def ours(name: str, script: Path, *arguments: str) -> Worker:
    """Start one of our own workers with this interpreter."""
    return Worker(name, [sys.executable, str(script), *arguments])
