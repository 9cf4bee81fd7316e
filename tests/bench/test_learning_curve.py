"""The learning curve: where its points stand, and that drawing it changes nothing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
import torch

from orl.bench.execution import execute
from orl.bench.learning_curve import FILE
from orl.bench.plan import Keep, Task
from orl.bench.random_streams import read_streams, seed_streams, write_streams
from orl.bench.record import CURVE_FIELDS
from orl.bench.resources import Stopwatch

KEEP = Keep(picture=False)


def run(every: int | None, work: Path, *, deterministic: bool = True, name: str = "dqn") -> Any:
    evaluation = {"every": every, "deterministic": deterministic}
    return execute(
        small_runs.task(small_runs.learner(name), "CartPole-v1", steps=100, keep=KEEP, evaluation=evaluation),
        sweep="test",
        work=work,
    )


def test_points_stand_at_the_start_and_at_the_multiples(tmp_path: Path) -> None:
    outcome = run(30, tmp_path, name="ppo")
    points = small_runs.curve(outcome)
    assert [point["steps"] for point in points] == [0, 30, 60, 90, 120]
    assert all(len(point["returns"]) == 2 and point["objectives"] is None for point in points)
    text = (tmp_path / FILE).read_text()
    assert outcome.files[f"curves/{outcome.record['run']}.jsonl"].decode() == text
    assert text.startswith('{"' + '": 0, "'.join(CURVE_FIELDS[:1]))
    for line in text.splitlines():
        assert all(f'"{field}"' in line for field in CURVE_FIELDS)


def test_objectives_stand_beside_returns_where_there_are_any(tmp_path: Path) -> None:
    task = small_runs.task(
        small_runs.learner("maskable-ppo"), steps=32, instances=("ft06",), evaluation={"every": 32, "curve_episodes": 3}
    )
    point = small_runs.curve(execute(task, sweep="test", work=tmp_path))[-1]
    assert len(point["returns"]) == len(point["objectives"]) == 3
    assert all(value >= 55 for value in point["objectives"])


@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluating_leaves_no_trace_in_the_training(deterministic: bool, tmp_path: Path) -> None:
    outcomes = [run(every, tmp_path / str(every), deterministic=deterministic) for every in (None, 10)]
    assert small_runs.parameters(outcomes[0]) == small_runs.parameters(outcomes[1])
    assert small_runs.rows(outcomes[0]) == small_runs.rows(outcomes[1])
    assert not any(path.startswith("curves/") for path in outcomes[0].files)


def test_streams_go_on_where_they_were_read() -> None:
    def draw() -> list[float]:
        return [random.random(), np.random.random(), torch.rand(1).item()]  # noqa: NPY002

    seed_streams(5)
    states, first = read_streams(), draw()
    assert draw() != first
    write_streams(states)
    assert draw() == first
    seed_streams(5)
    assert draw() == first


def test_the_watch_stands_still_while_it_is_paused() -> None:
    watch = Stopwatch(10.0, 5.0)
    assert (watch.seconds, watch.cpu_seconds) == (10.0, 5.0)
    watch.start()
    with watch.paused():
        held = watch.seconds, watch.cpu_seconds
        sum(range(100_000))
        assert (watch.seconds, watch.cpu_seconds) == held
    watch.stop()
    assert watch.seconds > held[0] >= 10.0


def test_a_task_without_points_has_no_curve(tmp_path: Path) -> None:
    task: Task = small_runs.task(small_runs.learner("a2c"), "CartPole-v1", steps=16)
    assert execute(task, sweep="test", work=tmp_path).files == {}
    assert not (tmp_path / FILE).exists()
