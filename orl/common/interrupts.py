"""Noting Ctrl-C without swallowing it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class CtrlC:
    """Whether Ctrl-C has been pressed."""

    pressed: bool = False


@contextmanager
def noting_ctrl_c() -> Iterator[CtrlC]:
    """Remember Ctrl-C for a loop over solvers: each answers it with its best so far, as if nothing had happened.

    The handler of SIGINT that was there before is called as well. Outside the main thread, where Python runs no
    handlers, nothing is noted.

    >>> before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may ignore it
    >>> with noting_ctrl_c() as ctrl_c:
    ...     try:
    ...         signal.raise_signal(signal.SIGINT)
    ...     except KeyboardInterrupt:
    ...         pass  # what a Solver does
    >>> ctrl_c.pressed
    True
    >>> _ = signal.signal(signal.SIGINT, before)
    """
    noted, before = CtrlC(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.pressed = True
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
