"""What a run raises when it was asked to stop."""

from __future__ import annotations


class Interrupted(BaseException):
    """The run was asked to stop before its end; a training has saved a checkpoint from which it will go on.

    Like KeyboardInterrupt this is no error of the run: ``except Exception`` in an algorithm, an environment or a worker
    lets it pass, so that it is never recorded as a failure.
    """
