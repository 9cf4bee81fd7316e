"""The learning curve: evaluations during a training that leave no trace in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from orl.bench.random_streams import undisturbed
from orl.bench.resources import Stopwatch
from orl.common.atomic import write_text

FILE = "curve.jsonl"
Episodes = list[dict[str, Any]]
"""Rows of an evaluation with the columns of :func:`orl.evaluate`."""


class LearningCurve(BaseCallback):
    """Evaluates before the first step and at the first step at or after each multiple of ``every``.

    Every evaluation is one line of ``curve.jsonl`` with the CURVE_FIELDS of :mod:`orl.bench.record`, written at once.
    The clock of the training stands still meanwhile, and the random generators are put back.

    Args:
        evaluate: Plays the evaluation episodes with the model as it is.
        every: Steps between evaluations; None for no curve.
        folder: The run's work folder.
        watch: Clock of the training.
        text: Lines up to the checkpoint from which the training goes on; later lines in the file are dropped.
    """

    def __init__(
        self,
        evaluate: Callable[[BaseAlgorithm], Episodes],
        *,
        every: int | None,
        folder: Path,
        watch: Stopwatch,
        text: str = "",
    ) -> None:
        super().__init__()
        self.evaluate, self.every, self.watch = evaluate, every, watch
        self.file = folder / FILE
        self.text = text
        lines = text.splitlines()
        self.last = json.loads(lines[-1])["steps"] if lines else None
        if every is not None:
            write_text(self.file, text)

    def _on_training_start(self) -> None:
        if self.every is not None and self.last is None:
            self._add_point()

    def _on_step(self) -> bool:
        if self.every is not None and self.model.num_timesteps // self.every > (self.last or 0) // self.every:
            self._add_point()
        return True

    def _add_point(self) -> None:
        with self.watch.paused():
            with undisturbed(self.model):
                episodes = self.evaluate(self.model)
            self.last = self.model.num_timesteps
            line = curve_line(self.last, self.watch, episodes)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line)
            self.text += line


def curve_line(steps: int, watch: Stopwatch, episodes: Episodes) -> str:
    """One line of a learning curve, its end included.

    >>> curve_line(64, Stopwatch(1.5, 1.25), [{"return": 3.0, "objective": None}])
    '{"steps": 64, "seconds": 1.5, "cpu_seconds": 1.25, "returns": [3.0], "objectives": null}\\n'
    """
    objectives = [row["objective"] for row in episodes]
    point = {
        "steps": steps,
        "seconds": round(watch.seconds, 6),
        "cpu_seconds": round(watch.cpu_seconds, 6),
        "returns": [row["return"] for row in episodes],
        "objectives": None if all(value is None for value in objectives) else objectives,
    }
    return json.dumps(point, allow_nan=False) + "\n"
