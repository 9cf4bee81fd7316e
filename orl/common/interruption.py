"""Ctrl-C during a solve: the solver ends with its best solution, then the caller's own handler hears of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def minding_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed inside; KeyboardInterrupt goes no further than the end.

    Nothing is done, and the function always says no, outside the main thread, where Python runs no signal handlers, and
    where the program ignores Ctrl-C, as one does that a shell has started in the background.

    >>> with minding_ctrl_c() as pressed:
    ...     pressed()
    False
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield lambda: False
        return
    frames: list[Any] = []
    signal.signal(signal.SIGINT, lambda number, frame: frames.append(frame))
    try:
        yield lambda: bool(frames)
    finally:
        signal.signal(signal.SIGINT, handler)
    if frames:
        with suppress(KeyboardInterrupt):
            handler(signal.SIGINT, frames[0])
