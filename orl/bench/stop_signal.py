"""Ctrl-C (and SIGTERM) as a request that a sweep answers in order: stop at the next safe point, then end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Counts requests to stop: the first one asks, the second one insists.

    Args:
        raises: The second request raises KeyboardInterrupt, for code that runs in this very thread.
    """

    def __init__(self, *, raises: bool = False) -> None:
        self.count = 0
        self.raises = raises

    @property
    def requested(self) -> bool:
        return self.count > 0

    @property
    def insisted(self) -> bool:
        return self.count > 1

    def note(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.count += 1
        if self.raises and self.insisted:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Note the signals inside the block.

        A signal that the process ignores stays ignored. Outside the main thread, where Python runs no handlers, nothing
        is noted.

        >>> with StopSignal().listening() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        >>> stop.requested, stop.insisted
        (True, False)
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [number for number in SIGNALS if before[number] not in (signal.SIG_IGN, None)]
        for number in heard:
            signal.signal(number, self.note)
        try:
            yield self
        finally:
            for number in heard:
                signal.signal(number, before[number])
