"""The worker side of a side-by-side run: answers requests, one JSON object a line, on stdin and stdout.

Every environment, a peer's or ours, is wrapped in a few lines by its ``worker.py`` and driven by the same loop in its
own process, from its own virtual environment. Requests and their answers:

``{"op": "load", "machines": int[J][M], "durations": int[J][M], "seed": int}``
    ``machines`` and ``durations`` as the environment itself holds them, ``versions``, ``build``.
``{"op": "episode"}``
    One random episode: ``actions``, ``masks`` (legal actions before each action and after the last), ``starts`` and
    ``makespan``.
``{"op": "replay", "actions": [...]}``
    The same for given actions.
``{"op": "run", "seconds": float}``
    Random legal actions for that many CPU-seconds of the loop: ``steps``, ``env_cpu_seconds`` (CPU time inside reset,
    step and the reading of the legal actions), ``loop_cpu_seconds`` (with the random choice and the bookkeeping of this
    loop), ``wall_seconds``, ``peak_memory_mb``, ``makespans`` of the episodes completed. A run goes on with the episode
    where the last one stopped.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measure import peak_memory_mb

# Answers go to the standard output of now; whatever peers print, at their import too, goes to stderr. So a worker
# imports this module before its peer.
ANSWERS = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


class PeerEnvironment(Protocol):
    """What a worker wraps around an environment; ``legal`` is whatever :meth:`choose` understands."""

    build: str
    packages: tuple[str, ...]

    def load(self, machines: np.ndarray, durations: np.ndarray) -> None:
        """Make the environment for machines and durations int[J, M], machines counted from 0."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Machines and durations read back from the environment."""

    def reset(self) -> Any:
        """Start an episode; returns the legal actions."""

    def step(self, action: Any) -> tuple[Any, bool]:
        """Take an action; returns the legal actions and whether the episode has ended."""

    def choose(self, rng: np.random.Generator, legal: Any) -> Any:
        """A legal action, drawn uniformly."""

    def starts(self) -> np.ndarray:
        """Start times int[J, M] of the schedule just completed."""


class MaskedEnvironment:
    """The part of a wrapper that environments with a boolean mask share."""

    def choose(self, rng: np.random.Generator, legal: np.ndarray) -> int:
        return int(rng.choice(np.flatnonzero(legal)))


class SingleDriver:
    """Drives one environment that is reset by its caller."""

    def __init__(self, env: PeerEnvironment) -> None:
        self.env = env
        self.legal: Any = None

    def load(self, machines: np.ndarray, durations: np.ndarray, seed: int) -> None:
        self.machines, self.durations = machines, durations
        self.rng = np.random.default_rng(seed)
        self.env.load(machines, durations)
        self.legal = None

    def makespan(self) -> int:
        return int((self.env.starts() + self.durations).max())

    def episode(self, actions: list[Any] | None = None) -> dict[str, Any]:
        legal, done = self.env.reset(), False
        taken: list[Any] = []
        masks = [_plain(legal)]
        while not done:
            action = self.env.choose(self.rng, legal) if actions is None else actions[len(taken)]
            legal, done = self.env.step(action)
            taken.append(_plain(action))
            masks.append(_plain(legal))
        self.legal = None
        return {
            "actions": taken,
            "masks": masks,
            "starts": self.env.starts().tolist(),
            "makespan": self.makespan(),
        }

    def run(self, seconds: float) -> dict[str, Any]:
        env, rng, clock = self.env, self.rng, time.process_time
        steps, env_seconds, makespans = 0, 0.0, []
        wall_start, loop_start = time.perf_counter(), clock()
        if self.legal is None:
            before = clock()
            self.legal = env.reset()
            env_seconds += clock() - before
        legal = self.legal
        while clock() - loop_start < seconds:
            action = env.choose(rng, legal)
            before = clock()
            legal, done = env.step(action)
            env_seconds += clock() - before
            steps += 1
            if done:
                makespans.append(self.makespan())
                before = clock()
                legal = env.reset()
                env_seconds += clock() - before
        loop_seconds = clock() - loop_start
        self.legal = legal
        return sample(steps, env_seconds, loop_seconds, time.perf_counter() - wall_start, makespans)


def sample(
    steps: int, env_seconds: float, loop_seconds: float, wall_seconds: float, makespans: list[int]
) -> dict[str, Any]:
    """The answer to a run request; adds the peak memory of this process."""
    return {
        "steps": steps,
        "env_cpu_seconds": env_seconds,
        "loop_cpu_seconds": loop_seconds,
        "wall_seconds": wall_seconds,
        "peak_memory_mb": peak_memory_mb(),
        "makespans": makespans,
    }


def serve(driver: Any) -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("op")
        if operation == "load":
            machines, durations = (np.asarray(request[key], dtype=np.int64) for key in ("machines", "durations"))
            driver.load(machines, durations, request["seed"])
            machines, durations = driver.env.arrays()
            answer = {
                "machines": np.asarray(machines).tolist(),
                "durations": np.asarray(durations).tolist(),
                "build": driver.env.build,
                "versions": {"python": platform.python_version()}
                | {package: importlib.metadata.version(package) for package in driver.env.packages},
            }
        elif operation in ("episode", "replay"):
            answer = driver.episode(request.get("actions"))
        elif operation == "run":
            answer = driver.run(request["seconds"])
        else:
            raise ValueError(f"unknown request {operation!r}")
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.astype(int).tolist()
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else int(value)


def write_standard_file(path: str, machines: np.ndarray, durations: np.ndarray) -> None:
    """Write the standard text format (``jobs machines``, then ``machine duration`` pairs job by job)."""
    rows = np.stack([machines, durations], axis=-1).reshape(len(machines), -1)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{machines.shape[0]} {machines.shape[1]}\n")
        file.writelines(" ".join(map(str, row)) + "\n" for row in rows.tolist())
