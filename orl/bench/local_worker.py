"""A worker process of the local engine: takes runs from its parent, executes them, writes their records itself.

Its parent talks to it over one socket: first an :class:`Assignment`, then ``(run, task)`` pairs. It answers ``READY``
once it can work, then one :class:`~orl.bench.one_run.RunReport` a run. It ends when the socket closes.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType

from orl.bench.one_run import Place, execute_and_write

READY = "ready"
PR_SET_PDEATHSIG = 1
WATCH_SECONDS = 0.5
"""Time between two looks at the parent, where the system cannot end a worker with its parent."""


@dataclass(frozen=True)
class Assignment:
    """What a worker is told first: its parent's process id and where runs put their files."""

    parent: int
    place: Place


def end_with_parent(parent: int) -> None:
    """See to it that this process ends when process ``parent`` does, killed or not.

    Linux sends the signal itself. Elsewhere, and if the parent was gone before that was asked for, a thread looks.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def main(descriptor: int) -> None:
    """Work until the socket with this file descriptor closes.

    SIGTERM asks the run in progress to save a checkpoint and end; SIGINT (Ctrl-C reaches the whole terminal) is left to
    the parent. What runs print is kept, run by run, for the case that the worker dies.
    """
    asked_to_stop = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, note)
    faulthandler.enable()
    os.set_inheritable(descriptor, False)
    with Connection(descriptor) as connection:
        assignment: Assignment = connection.recv()
        end_with_parent(assignment.parent)
        import orl.bench.execution  # noqa: F401 (what cannot be imported shall fail here, not in every run)

        connection.send(READY)
        while True:
            try:
                run, task = connection.recv()
            except EOFError:
                return
            os.ftruncate(sys.stderr.fileno(), 0)
            os.lseek(sys.stderr.fileno(), 0, os.SEEK_SET)
            connection.send(execute_and_write(run, task, assignment.place, lambda: asked_to_stop))
