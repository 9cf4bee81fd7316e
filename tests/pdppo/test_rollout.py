"""What is noted of a rollout: every step in its row, further draws with the values that they lead to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orl.common.post_decision import ExogenousDraws
from orl.pdppo import rollout
from orl.pdppo.rollout import PostDecisionRecord

STEPS, COPIES, FURTHER, GAMMA = 5, 3, 2, 0.5


class NumberedDraws(ExogenousDraws):
    """Draw k of copy i after step t has the reward 100 t + 10 i + k and leads to the observation [t, i, k].

    Draw 1 of copy 2 terminates.
    """

    def __init__(self) -> None:
        self.step = -1

    def before_step(self, actions: Any) -> None:
        self.step += 1

    def exogenous_samples(self, n_samples: int) -> Any:
        copies, draws = np.meshgrid(np.arange(COPIES), np.arange(1, n_samples + 1), indexing="ij")
        observations = np.stack([np.full_like(copies, self.step), copies, draws], -1).astype(np.float32)
        return observations, 100.0 * self.step + 10.0 * copies + draws, (copies == 2) & (draws == 1)

    def simulate_decisions(self, actions: Any, n_samples: int = 0) -> Any:
        raise AssertionError("a rollout has made its decisions")


def values(observations: np.ndarray) -> np.ndarray:
    return (observations @ np.array([1000.0, 100.0, 10.0])).astype(np.float32)


@pytest.mark.parametrize("rows_at_once", [1, 13, 4096])
def test_further_draws_are_summed_with_the_value_of_where_they_lead_unless_they_terminate(
    rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "ROWS_AT_ONCE", rows_at_once)
    record = PostDecisionRecord(STEPS, COPIES, None, NumberedDraws(), 1 + FURTHER)
    record.begin(GAMMA, values)
    for _ in range(STEPS):
        record.before(np.zeros(COPIES))
        record.after(np.zeros(COPIES), np.zeros(COPIES, np.bool_), [{}] * COPIES)
    for t in range(STEPS):
        for i in range(COPIES):
            expected = 0.0
            for k in range(1, FURTHER + 1):
                alive = not (i == 2 and k == 1)
                expected += 100.0 * t + 10.0 * i + k + GAMMA * alive * (1000.0 * t + 100.0 * i + 10.0 * k)
            assert record.other_draws[t, i] == pytest.approx(expected), (t, i)
