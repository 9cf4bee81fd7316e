"""One warning for the silent mistake of masked envs: a learner or evaluator that never asks for the mask."""

from __future__ import annotations

import warnings

ADVICE = (
    "illegal actions are being replaced by the lowest legal one, and action_masks() has not been asked for in this "
    "episode: the policy does not see the mask. Evaluate with sb3_contrib.common.maskable.evaluation.evaluate_policy, "
    "MaskableEvalCallback or orl.evaluate, and train with MaskablePPO or another algorithm that takes action masks."
)


class MaskWatch:
    """Remembers whether the mask was read since the last reset and warns once about silent illegal actions."""

    def __init__(self) -> None:
        self.seen = False
        self._warned = False

    def reset(self) -> None:
        """A new episode: the mask has not been read yet."""
        self.seen = False

    def check(self, illegal_actions: int) -> None:
        """Warn once if actions were replaced while nobody read the mask."""
        if illegal_actions and not self.seen and not self._warned:
            self._warned = True
            warnings.warn(ADVICE, UserWarning, stacklevel=3)
