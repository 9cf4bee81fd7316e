"""The worker side for learning algorithms: requests and answers as in ``serve.py``, one JSON object a line.

``{"op": "load", "algorithm": str, "env_id": str, "n_steps": int or null, "net_arch": list of int or null}``
    ``versions`` of the packages that matter. ``n_steps`` is the length of a rollout, null for off-policy algorithms;
    ``net_arch`` the widths of the hidden layers, null for the learner's default.
``{"op": "run", "steps": int}``
    Learn for that many steps of the environment, or up to the end of the iteration: ``steps``, ``cpu_seconds`` (of the
    whole process, all its threads), ``wall_seconds``, ``peak_memory_mb``. The first run bears what is compiled once.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from typing import Any

from serve import ANSWERS, peak_memory_mb


class Requests:
    """The requests of the caller, in the order of the protocol above; the process ends when there are no more.

    Args:
        packages: Distributions whose versions are told.
    """

    def __init__(self, *packages: str) -> None:
        self.versions = {"python": platform.python_version()}
        self.versions |= {package: importlib.metadata.version(package) for package in packages}
        self._folder = tempfile.TemporaryDirectory()  # MuJoCo writes its log where it is started
        os.chdir(self._folder.name)
        self._start = (0.0, 0.0)

    def _next(self, op: str) -> dict[str, Any]:
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        request: dict[str, Any] = json.loads(line)
        if request.pop("op") != op:
            raise ValueError(f"expected a request {op!r}, got {line.strip()}")
        return request

    def _answer(self, **fields: Any) -> None:
        ANSWERS.write(json.dumps(fields) + "\n")
        ANSWERS.flush()

    def load(self) -> dict[str, Any]:
        """What is to be learned."""
        request = self._next("load")
        self._answer(versions=self.versions)
        return request

    def steps(self) -> int:
        """Wait for the next run; its clocks start now."""
        steps = int(self._next("run")["steps"])
        self._start = (time.process_time(), time.perf_counter())
        return steps

    def done(self, steps: int) -> None:
        """Tell how long the run of that many steps took."""
        cpu, wall = time.process_time() - self._start[0], time.perf_counter() - self._start[1]
        self._answer(steps=steps, cpu_seconds=cpu, wall_seconds=wall, peak_memory_mb=peak_memory_mb())


def use_one_core() -> None:
    """Bind the process to one core, for libraries whose thread pools heed no variable; a no-op where it cannot be."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
