"""Estimates: records before limits before measurements, and a row also for what would fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest

from orl.bench import estimate as module
from orl.bench.configuration import AlgorithmPart
from orl.bench.description import read_sweep
from orl.bench.estimate import Estimate, estimate, wall_seconds
from orl.bench.plan import Plan, Task

SWEEP = """
environments:
  - CartPole-v1
  - {id: orl/JobShop-v0, instances: [ft06, ft10]}
algorithms:
  - {algorithm: ppo, environments: [CartPole-v1], n_envs: 2}
  - {algorithm: sac, environments: [CartPole-v1]}
  - {algorithm: a2c, environments: [CartPole-v1], budget: {seconds: 7}}
rules: [spt]
solvers: [{solver: cp-sat, time_limit: 3}, milp]
seeds: 2
budget: {steps: 40000}
evaluation: {episodes: 2, every: 20000, curve_episodes: 1}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP)
    return read_sweep(file)


def test_each_kind_of_subject_is_estimated_by_what_bounds_it(plan: Plan) -> None:
    rows = {row.subject: row for row in estimate(plan, probe_seconds=0.4)}
    assert [(row.subject, row.runs, row.done) for row in rows.values()] == [
        ("ppo", 2, 0),
        ("sac", 2, 0),
        ("a2c", 2, 0),
        ("spt", 4, 0),
        ("cp-sat", 4, 0),
        ("milp", 4, 0),
    ]
    assert (rows["cp-sat"].seconds, rows["cp-sat"].basis, rows["cp-sat"].total) == (6.0, "time limit", 24.0)
    assert (rows["milp"].seconds, rows["milp"].basis, rows["milp"].total) == (None, "no time limit", None)
    assert rows["a2c"].basis == "budget"
    assert rows["a2c"].seconds is not None
    assert rows["a2c"].seconds > 7
    for subject in ("ppo", "spt"):
        assert rows[subject].basis.startswith("measured ")
        assert (rows[subject].seconds or 0) > 0
    assert rows["sac"].seconds is None  # SAC knows no discrete actions: one learns it before the sweep
    assert rows["sac"].basis.startswith("fails: InputError: sac, arguments: ")


def test_a_training_is_scaled_from_the_steps_of_its_measurement_to_its_budget(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a training of 1,000 steps in 50 s and episodes of 3 s, so that the figure does not hang on the machine."""
    import orl.bench.learning

    probes = []

    class Training:
        model, watch = SimpleNamespace(num_timesteps=1000), SimpleNamespace(seconds=50.0)
        policy, evaluation_envs = None, ()

        def __init__(self, task: Task, instances: object, **_: object) -> None:
            probes.append(task.configuration)

        def learn(self) -> None:
            pass

        def __enter__(self) -> Training:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(orl.bench.learning, "Training", Training)
    monkeypatch.setattr("orl.bench.playing.play", lambda *_, **__: [{"seconds": 3.0}])
    tasks = tuple(task for task in plan.tasks if task.subject in ("ppo", "a2c"))
    ppo, a2c = estimate(Plan("p", tasks), probe_seconds=2.0)
    evaluation = (2 + 3) * 3.0  # two episodes at the end, one each at 0, 20,000 and 40,000 steps
    assert ppo.seconds == pytest.approx(50 * 40 + evaluation, abs=1.0)  # and the time to build it all
    assert a2c.seconds == pytest.approx(7 + (2 + 1) * 3.0, abs=1.0)  # 140 steps: one point of the curve
    assert [probe.budget.seconds for probe in probes if probe.budget] == [0.001, 2.0, 0.001, 2.0]  # a warm-up each
    assert isinstance(probes[0].subject, AlgorithmPart)
    assert probes[0].subject.hyper == {"n_steps": 128}  # the default of 2048 might not end in the time of the probe


def test_records_replace_measurements_and_count_as_done(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_guess", lambda *_: (None, "must not be asked"))
    names = {task.subject: task.configuration.hash for task in plan.tasks}
    records = pandas.DataFrame(
        {"run": [names["ppo"], names["ppo"], names["milp"], "other"], "run_seconds": [5.0, 5.0, 8.0, 99.0]}
    )
    rows = {row.subject: row for row in estimate(plan, records=records)}
    assert (rows["ppo"].seconds, rows["ppo"].basis, rows["ppo"].done) == (5.0, "records (1 runs)", 1)
    assert rows["ppo"].total == 5.0  # one of two runs is left
    assert (rows["milp"].seconds, rows["milp"].total) == (8.0, 24.0)
    assert rows["sac"].basis == "must not be asked"
    failed = records.assign(state="failed")
    assert all(row.done == 0 for row in estimate(plan, records=failed))


def test_wall_time_is_shared_by_jobs_but_no_shorter_than_the_longest_run() -> None:
    rows = [
        Estimate("e", "a", "algorithm", 4, 0, 10.0, "budget"),
        Estimate("e", "b", "solver", 2, 2, 100.0, "records (2 runs)"),
        Estimate("e", "c", "solver", 2, 0, None, "no time limit"),
    ]
    assert [wall_seconds(rows, jobs) for jobs in (1, 2, 100)] == [40.0, 20.0, 10.0]
    assert wall_seconds([], 2) == 0.0
