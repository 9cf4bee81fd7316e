"""A worker process of ``orl tune --jobs``: reads its study from the first line of its input, works, ends.

It stops in order, its trial queued again, when its input closes: its parent asks it to, or has died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time


def main() -> int:
    """Exit code: 0 the study has its trials, 2 bad input (one line on stderr), 130 stopped."""
    # Set before torch is imported: the workers share the cores.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    message = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_when_input_closes, daemon=True, name="input-watch").start()
    try:
        from orl.bench.tuning import Tuning, study_of, work
        from orl.bench.tuning_study import quiet
        from orl.common.errors import InputError

        end = None if message["seconds"] is None else time.monotonic() + message["seconds"]
        try:
            with quiet():
                tuning = Tuning(**message["tuning"])
                work(tuning, study_of(tuning, message["storage"], message["study"]), message["trials"], end=end)
        except InputError as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _stop_when_input_closes() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
