"""One warning for one trap: a policy acts on a masked env without ever asking for the masks."""

from __future__ import annotations

import warnings

ADVICE = (
    "the policy made illegal actions and never asked for the action masks, so its result says little. Evaluate masked "
    "policies with orl.evaluate, sb3_contrib.common.maskable.evaluation.evaluate_policy or sb3_contrib's "
    "MaskableEvalCallback; the plain evaluate_policy and EvalCallback of stable-baselines3 pass no masks. Train with "
    "MaskablePPO or another algorithm that takes action masks."
)


class UnmaskedPolicyWarning(UserWarning):
    """Illegal actions were made by a policy that never asked for the action masks."""


class MaskWatch:
    """Remembers whether the masks were read since the last reset, and warns once about silent illegal actions.

    Every masked env keeps one: ``seen = True`` in ``action_masks()``, ``reset()`` in ``reset``, ``check(n)`` in
    ``step``.

    >>> watch = MaskWatch()
    >>> watch.seen = True
    >>> watch.check(3)
    """

    def __init__(self) -> None:
        self.seen = False
        self._warned = False

    def reset(self) -> None:
        """A new episode: the masks have not been read yet."""
        self.seen = False

    def check(self, illegal_actions: int, stacklevel: int = 2) -> None:
        """Warn (UnmaskedPolicyWarning, once in the life of the env) if there are illegal actions and no reader."""
        if illegal_actions and not self.seen and not self._warned:
            self._warned = True
            warnings.warn(ADVICE, UnmaskedPolicyWarning, stacklevel=stacklevel + 1)
