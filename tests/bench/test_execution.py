"""One run from its task to its record: rules, solvers, algorithms, failures."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
from stable_baselines3.common.vec_env import VecNormalize

from orl import registry
from orl.bench.configuration import RulePart, SolverPart
from orl.bench.execution import Interrupted, execute, failure_record
from orl.bench.plan import Keep, Task
from orl.bench.playing import evaluation_envs, plain
from orl.bench.record import SCHEMA, Folder, Outcome, write_outcome
from orl.bench.resources import Meter, Spent, peak_memory_mb
from orl.common.errors import InputError
from orl.common.evaluation import COLUMNS

RECORD_KEYS = {
    *("schema", "run", "sweep", "state", "environment", "subject", "kind", "configuration", "versions", "git"),
    *("machine", "started", "seconds", "cpu_seconds", "peak_memory_mb", "steps", "resumed", "exact", "rows", "files"),
}
SMALL = {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 3, "n_machines": 2}


def run(task: Task, work: Path, **more: Any) -> Outcome:
    return execute(task, sweep="test", work=work, **more)


# ---- records -------------------------------------------------------------------------------------------------------
def test_a_rule_gives_a_record_with_the_columns_of_evaluate(tmp_path: Path) -> None:
    task = small_runs.task(RulePart(key="mwkr"), instances=("ft06",))
    outcome = run(task, tmp_path)
    record = outcome.record
    assert set(record) == RECORD_KEYS
    assert (record["schema"], record["state"], record["kind"]) == (SCHEMA, "done", "rule")
    assert (record["steps"], record["resumed"], record["exact"], record["files"]) == (None, 0, True, [])
    assert record["configuration"] == task.configuration.to_json()
    assert [tuple(row) for row in record["rows"]] == [COLUMNS] * 2
    row = record["rows"][0]
    assert (row["subject"], row["instance"], row["seed"], row["objective"]) == ("mwkr", "ft06", 1_000_000, 61.0)
    assert (row["best_known"], row["checked"], row["violations"], row["illegal_actions"]) == (55.0, True, "", 0)
    assert record["peak_memory_mb"] > 10
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_what_json_cannot_say_is_null() -> None:
    assert [plain(value) for value in (np.nan, np.inf, -np.inf, None, np.int64(3), "a", True)] == [
        *[None] * 4,
        3,
        "a",
        True,
    ]


def test_the_best_solution_is_kept_with_its_picture(tmp_path: Path) -> None:
    sources: Any = ("ft06",)
    task = small_runs.task(RulePart(key="random"), instances=sources, keep=Keep(), evaluation={"episodes": 5})
    outcome = run(task, tmp_path / "work")
    name = task.configuration.hash
    assert set(outcome.files) == {f"pictures/{name}.svg", f"solutions/{name}.json"}
    assert outcome.record["files"] == sorted(outcome.files)
    saved = json.loads(outcome.files[f"solutions/{name}.json"])
    domain = registry.domain(saved["domain"])
    check = domain.load(saved["instance"]).check(domain.solution(saved["solution"]))
    objectives = [row["objective"] for row in outcome.record["rows"]]
    assert check.feasible
    assert check.objective == saved["objective"] == min(objectives) < max(objectives)
    assert b"<svg" in outcome.files[f"pictures/{name}.svg"]
    write_outcome(Folder(tmp_path), outcome)
    assert sorted(path.name for path in tmp_path.rglob(f"{name}*")) == [f"{name}.json"] * 2 + [f"{name}.svg"]


def test_a_failure_is_told_with_its_traceback() -> None:
    task = small_runs.task(RulePart(key="mwkr"), instances=("ft06",))
    try:
        raise ValueError("a reason")
    except ValueError as error:
        record = failure_record(task, "test", error, 1.5)
    assert set(record) == RECORD_KEYS | {"error"}
    assert (record["state"], record["run"], record["rows"]) == ("failed", task.configuration.hash, [])
    assert (record["error"]["type"], record["error"]["message"]) == ("ValueError", "a reason")
    assert "test_execution.py" in record["error"]["traceback"]
    assert record["seconds"] == 1.5


# ---- seeds ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ppo", "dqn", "sac"])
def test_two_executions_are_equal_whatever_ran_before(name: str, tmp_path: Path) -> None:
    env_id = "Pendulum-v1" if name == "sac" else "CartPole-v1"
    task = small_runs.task(
        small_runs.learner(name),
        env_id,
        steps=64,
        evaluation={"every": 32, "deterministic": False},
        keep=Keep(picture=False),
    )
    first = run(task, tmp_path / "a")
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    run(small_runs.task(small_runs.learner("a2c"), "CartPole-v1", steps=16, seed=5), tmp_path / "b")
    second = run(task, tmp_path / "c")
    assert small_runs.rows(first) == small_runs.rows(second)
    assert small_runs.curve(first) == small_runs.curve(second)
    assert small_runs.parameters(first) == small_runs.parameters(second)


def test_run_seeds_share_the_env_but_not_what_the_subject_draws(tmp_path: Path) -> None:
    def outcome(key: str, seed: int) -> Outcome:
        return run(small_runs.task(RulePart(key=key), kwargs={"instance": SMALL}, seed=seed), tmp_path)

    def column(key: str, seed: int, name: str) -> list[Any]:
        return [row[name] for row in outcome(key, seed).record["rows"]]

    assert column("spt", 0, "seed") == column("spt", 1, "seed") == [1_000_000, 1_000_001]
    # The env draws the instance of each episode: the same ones for all seeds and rules.
    assert column("spt", 0, "bound") == column("spt", 1, "bound") == column("random", 1, "bound")
    assert column("spt", 0, "objective") == column("spt", 1, "objective")


def test_random_rules_and_solvers_hang_on_the_run_seed(tmp_path: Path) -> None:
    def objectives(subject: Any, seed: int) -> list[float]:
        outcome = run(small_runs.task(subject, instances=("ft10",), seed=seed, evaluation={"episodes": 3}), tmp_path)
        return [row["objective"] for row in outcome.record["rows"]]

    for subject in (RulePart(key="random"), SolverPart(key="random")):
        drawn = objectives(subject, 0) + objectives(subject, 1)
        assert drawn[:3] == objectives(subject, 0)
        assert len(set(drawn)) >= 5, "equal draws would be equal objectives"


# ---- solvers -------------------------------------------------------------------------------------------------------
def test_a_solver_gets_its_options_and_limit(tmp_path: Path) -> None:
    subject = SolverPart(key="cp-sat", options={"num_workers": 1}, time_limit=20.0)
    row = run(small_runs.task(subject, instances=("ft06",), evaluation={"episodes": 1}), tmp_path).record["rows"][0]
    assert (row["status"], row["objective"], row["return"], row["seed"]) == ("optimal", 55.0, None, 0)
    with pytest.raises(InputError, match="nonsense"):
        run(small_runs.task(SolverPart(key="cp-sat", options={"nonsense": 1}), instances=("ft06",)), tmp_path)


def test_instances_rules_and_solvers_need_a_domain(tmp_path: Path) -> None:
    for task in (
        small_runs.task(RulePart(key="spt"), "CartPole-v1"),
        small_runs.task(SolverPart(key="cp-sat"), "CartPole-v1"),
        small_runs.task(small_runs.learner("ppo"), "CartPole-v1", steps=8, instances=("ft06",)),
    ):
        with pytest.raises(InputError, match="belong to a domain"):
            run(task, tmp_path)
    with pytest.raises(InputError, match="a solver needs instances"):
        run(small_runs.task(SolverPart(key="cp-sat")), tmp_path)


# ---- algorithms ----------------------------------------------------------------------------------------------------
def test_a_normalised_training_keeps_its_model_and_statistics(tmp_path: Path) -> None:
    task = small_runs.task(
        small_runs.learner("ppo", normalize={"norm_reward": True}), "CartPole-v1", steps=64, keep=Keep(picture=False)
    )
    outcome = run(task, tmp_path)
    name = task.configuration.hash
    assert set(outcome.files) == {f"models/{name}.zip", f"models/{name}.vecnormalize.pkl"}
    (tmp_path / "statistics.pkl").write_bytes(outcome.files[f"models/{name}.vecnormalize.pkl"])
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    statistics = VecNormalize.load(str(tmp_path / "statistics.pkl"), make_vec_env("CartPole-v1"))
    (tmp_path / "model.zip").write_bytes(outcome.files[f"models/{name}.zip"])
    model = PPO.load(tmp_path / "model.zip", env=statistics)
    from orl import evaluate

    again = evaluate(model, "CartPole-v1", n_episodes=2, seed=1_000_000)
    assert list(again["return"]) == [row["return"] for row in outcome.record["rows"]]
    assert outcome.record["steps"] == 64


def test_one_training_is_evaluated_on_instances_of_any_size(tmp_path: Path) -> None:
    subject = small_runs.learner("maskable-ppo", policy="set", hyper={"n_steps": 16, "batch_size": 16, "n_epochs": 1})
    instances: Any = ("ft06", {"generator": SMALL, "seed": 1, "index": 0})
    task = small_runs.task(
        subject,
        steps=32,
        instances=instances,
        kwargs={"observation": "compact"},
        train_kwargs={"instance": SMALL},
        evaluation={"episodes": 1, "every": 32, "curve_episodes": 1},
    )
    outcome = run(task, tmp_path)
    assert [row["instance"] for row in outcome.record["rows"]] == ["ft06", "uniform_job_shop_3x2#1.0"]
    assert all(row["checked"] and row["illegal_actions"] == 0 for row in outcome.record["rows"])
    bound = small_runs.task(
        small_runs.learner("maskable-ppo"), steps=32, instances=("ft06",), train_kwargs={"instance": SMALL}
    )
    with pytest.raises(InputError, match="other spaces"):
        run(bound, tmp_path / "bound")


def test_several_instances_need_something_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train_kwargs"):
        run(small_runs.task(small_runs.learner("maskable-ppo"), steps=8, instances=("ft06", "ft10")), tmp_path)


def test_the_evaluation_sees_frames_as_the_training_did() -> None:
    from orl.bench.learning import training_env

    subject = small_runs.learner(
        "ppo",
        frame_stack=3,
        n_envs=1,
        wrappers=({"target": "gymnasium.wrappers:RescaleObservation", "min_obs": -1.0, "max_obs": 1.0},),
    )
    task = small_runs.task(subject, "Pendulum-v1", steps=8)
    venv, spaces = training_env(task.configuration, subject, [])
    (env,) = evaluation_envs(task.configuration, [])
    assert env.observation_space == spaces[0]
    venv.seed(7)
    stacked, (single, _) = venv.reset(), env.reset(seed=7)
    for action in (0.5, -1.0, 2.0, 0.0, 1.0):
        assert np.array_equal(stacked[0], single)
        stacked = venv.step(np.array([[action]], np.float32))[0]
        single = env.step(np.array([action], np.float32))[0]


def test_seconds_end_a_training_and_drive_its_schedules(tmp_path: Path) -> None:
    # With nothing but a clock, exploration still falls: at the end it has to be the final rate.
    task = small_runs.task(small_runs.learner("dqn"), "CartPole-v1", seconds=0.3, keep=Keep(picture=False))
    outcome = run(task, tmp_path)
    from stable_baselines3 import DQN

    (tmp_path / "model.zip").write_bytes(outcome.files[f"models/{task.configuration.hash}.zip"])
    model = DQN.load(tmp_path / "model.zip")
    assert model.exploration_rate == model.exploration_final_eps
    assert outcome.record["steps"] == model.num_timesteps > 0


def test_seconds_end_algorithms_that_do_not_listen(tmp_path: Path) -> None:
    subject = small_runs.learner("ppo", key="ars", policy="LinearPolicy", hyper={"n_delta": 2}, n_envs=1)
    assert run(small_runs.task(subject, "CartPole-v1", seconds=0.05), tmp_path).record["steps"] > 0


def test_schedules_see_the_whole_budget(tmp_path: Path) -> None:
    hyper = small_runs.LEARNERS["dqn"]["hyper"] | {"exploration_fraction": 1.0, "exploration_final_eps": 0.0}
    task = small_runs.task(small_runs.learner("dqn", hyper=hyper), "CartPole-v1", steps=50, keep=Keep(picture=False))
    outcome = run(task, tmp_path)
    from stable_baselines3 import DQN

    (tmp_path / "model.zip").write_bytes(outcome.files[f"models/{task.configuration.hash}.zip"])
    assert DQN.load(tmp_path / "model.zip").exploration_rate == pytest.approx(0.0, abs=1e-9)


def test_plain_data_names_classes_and_tuples(tmp_path: Path) -> None:
    hyper = small_runs.LEARNERS["dqn"]["hyper"] | {
        "train_freq": [1, "episode"],
        "policy_kwargs": {"net_arch": [4], "activation_fn": {"object": "torch.nn:Tanh"}},
    }
    task = small_runs.task(small_runs.learner("dqn", hyper=hyper), "CartPole-v1", steps=40, keep=Keep(picture=False))
    assert any("q_net.0.weight" in name for name in small_runs.parameters(run(task, tmp_path))["saved"]["policy"])


def test_tensorboard_logs_are_written_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    task = small_runs.task(small_runs.learner("a2c", hyper={"n_steps": 4}), "CartPole-v1", steps=16)
    run(task, tmp_path / "work", tensorboard=tmp_path / "logs")
    assert list((tmp_path / "logs").rglob("events.out.tfevents.*"))


# ---- stopping ------------------------------------------------------------------------------------------------------
def test_a_rule_that_is_asked_to_stop_ends_between_episodes(tmp_path: Path) -> None:
    task = small_runs.task(RulePart(key="spt"), instances=("ft06",))
    with pytest.raises(Interrupted):
        run(task, tmp_path, stop=lambda: True)
    assert not issubclass(Interrupted, Exception)
    once = small_runs.task(RulePart(key="spt"), instances=("ft06",), evaluation={"episodes": 1})
    assert len(run(once, tmp_path, stop=lambda: True).record["rows"]) == 1


def test_ctrl_c_in_an_evaluation_gives_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orl.solvers.job_shop.dispatching import RulePolicy

    def predict(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RulePolicy, "predict", predict)
    with pytest.raises(KeyboardInterrupt):
        run(small_runs.task(RulePart(key="spt"), instances=("ft06",)), tmp_path)


def test_memory_is_that_of_the_run_and_time_adds_up() -> None:
    earlier = Spent("2026-01-01T00:00:00+00:00", 100.0, 50.0, 1e9)
    meter = Meter()
    before = peak_memory_mb()
    block = np.ones(8_000_000)
    assert peak_memory_mb() > before + 50
    del block
    meter.add(earlier)
    spent = meter.read()
    assert (spent.started, spent.peak_memory_mb) == (earlier.started, 1e9)
    assert spent.seconds > 100.0
    assert spent.cpu_seconds > 50.0
    assert Meter().read().started > earlier.started
