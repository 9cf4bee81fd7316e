"""Run once before the tests: no stale kernel may be loaded, and Ctrl-C must mean what it means in a terminal."""

from __future__ import annotations

import signal

from orl.common.kernel_cache import drop_stale_kernels

drop_stale_kernels()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: tests of Ctrl-C send it for real
    signal.signal(signal.SIGINT, signal.default_int_handler)
