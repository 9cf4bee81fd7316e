"""Targets for sweeps under test: each is called while a run is executed, misbehaves, and returns ``value``.

Put into the keyword arguments of an environment: ``{"window": {"target": "sweep_faults:waiting", ...}}``.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any


def waiting(value: Any, seconds: float, marker: str | None = None) -> Any:
    """A run that takes its time; with ``marker``, it leaves that file when it begins."""
    if marker is not None:
        Path(marker).touch()
    time.sleep(seconds)
    return value


def raising(value: Any, unless: str | None = None) -> Any:
    """A run that fails, as long as there is no file ``unless``."""
    if unless is None or not Path(unless).exists():
        raise RuntimeError("the shop is closed")
    return value


def leaving(value: Any) -> Any:
    """A run that calls ``sys.exit``."""
    raise SystemExit(3)


def killing(value: Any, marker: str | None = None, number: int = signal.SIGKILL) -> Any:
    """A run whose process dies; with ``marker``, only once: it leaves that file."""
    if marker is None or not Path(marker).exists():
        if marker is not None:
            Path(marker).touch()
        print("these are my last words", flush=True)
        os.kill(os.getpid(), number)
    return value


def pressing_ctrl_c(value: Any, times: int = 1) -> Any:
    """A run during which Ctrl-C is pressed."""
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)
    return value


def with_full_disk(value: Any, folders: list[str]) -> Any:
    """A run that finds the disk full when its files are put into these folders; afterwards there is room again."""
    replace, full = os.replace, set(folders)

    def refuse(source: Any, target: Any) -> None:
        name = Path(target).parent.name
        if name not in full:
            return replace(source, target)
        full.discard(name)
        if not full:
            os.replace = replace
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.replace = refuse
    return value


def noting_environment(value: Any, path: str, names: list[str]) -> Any:
    """A run that writes down its process id and some environment variables."""
    Path(path).write_text("\n".join([str(os.getpid()), *(os.environ.get(name, "") for name in names)]))
    return value
