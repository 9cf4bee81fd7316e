"""Tuning: better than a bad start, resumable after any death, shared by workers, and files that others read."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import echo_env  # registers Echo-v0
import pytest

pytest.importorskip("optuna")

from optuna.trial import TrialState

from orl.bench import tuning_study, tuning_trial
from orl.bench.tuning import Tuning, check_tuning, tune
from orl.bench.tuning_study import MOST_RETRIES, counts, is_dead, open_study, quiet, recover, this_worker
from orl.bench.zoo_files import read_zoo_file
from orl.common.errors import InputError, UnknownNameError

SUPPORT = str(Path(echo_env.__file__).parent)
SPACE = {"learning_rate": {"low": 1e-7, "high": 1e-1, "log": True}}
QUICK = Tuning(
    "ppo",
    "Echo-v0",
    steps=1024,
    n_envs=4,
    seed=1,
    episodes=5,
    evaluations=2,
    n_startup=2,
    hyper={"n_steps": 32, "batch_size": 128, "n_epochs": 8, "policy_kwargs": {"net_arch": [16]}},
    space=SPACE,
)
TINY = replace(QUICK, steps=128, episodes=1)
WORKER = """
import json, sys
from pathlib import Path
import echo_env
from orl.bench.tuning import Tuning, tune
tuning, out, trials, storage = json.loads(sys.stdin.read())
tune(Tuning(**tuning), Path(out), trials=trials, storage=storage)
"""


def study_of(storage: str, tuning: Tuning = QUICK):
    with quiet():
        return open_study(storage, f"{tuning.algorithm} on {tuning.env_id}")


def start_worker(tuning: Tuning, out: Path, trials: int, storage: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": SUPPORT, "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, text=True, env=environment)
    assert worker.stdin is not None
    worker.stdin.write(json.dumps([tuning.to_json(), str(out), trials, storage]))
    worker.stdin.close()
    return worker


def wait_until(condition, process: subprocess.Popen, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the worker ended too early"
        assert time.monotonic() < end, "the worker is too slow"
        time.sleep(0.02)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open() as stream:
        return list(csv.DictReader(stream))


# ---- Shows ---------------------------------------------------------------------------------------------------------
def test_it_improves_a_deliberately_bad_start(tmp_path: Path) -> None:
    result = tune(QUICK, tmp_path, trials=5, start={"learning_rate": "1e-7"})
    rows = rows_of(tmp_path)
    assert result.finished == len(rows) == 5
    assert float(rows[0]["learning_rate"]) == 1e-7
    assert float(rows[0]["value"]) < 5  # of 10; a learner that learns nothing
    assert result.best_value is not None
    assert result.best_value > float(rows[0]["value"]) + 4
    assert result.best_hyper["learning_rate"] > 1e-5
    assert result.best_hyper["policy_kwargs"] == {"net_arch": [16]}


def test_a_killed_study_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    slow = replace(QUICK, steps=1536, evaluations=4, episodes=2, pruner="none")
    worker, study = start_worker(slow, tmp_path, 4, storage), study_of(storage)

    def second_trial_runs() -> bool:
        running = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        return any(t.number >= 1 and "worker" in t.user_attrs and t.params for t in running)

    wait_until(second_trial_runs, worker)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    before = study.get_trials()
    [stale] = [trial for trial in before if trial.state == TrialState.RUNNING]
    done = {t.number: t.value for t in before if t.state in (TrialState.COMPLETE, TrialState.PRUNED)}
    assert len(done) >= 1

    result = tune(slow, tmp_path, trials=4, storage=storage)
    after = {trial.number: trial for trial in study.get_trials()}
    assert result.finished == 4
    assert {number: after[number].value for number in done} == done
    assert after[stale.number].state == TrialState.FAIL
    [again] = [trial for trial in after.values() if trial.user_attrs.get("retry_of") == stale.number]
    assert again.params == stale.params
    assert again.state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert counts(study)["running"] == 0
    assert result.failed == 1
    assert len({json.dumps(t.params) for t in after.values() if t.number != stale.number}) == 4  # no draw twice


def test_two_workers_share_one_study(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    short = replace(QUICK, steps=512)
    worker, study = start_worker(short, tmp_path / "a", 6, storage), study_of(storage)
    wait_until(lambda: counts(study)["running"] > 0, worker)
    result = tune(short, tmp_path / "b", trials=6, storage=storage)
    assert worker.wait(timeout=120) == 0
    trials = study.get_trials()
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) == result.finished == 6
    workers = {t.user_attrs["worker"]["pid"] for t in finished}
    assert {worker.pid} <= workers <= {worker.pid, os.getpid()}  # on a busy machine we may come too late for a trial
    assert [t.number for t in trials] == list(range(len(trials)))
    assert len({t.params["learning_rate"] for t in finished}) == 6
    assert (tmp_path / "a" / "best.yaml").read_text() == (tmp_path / "b" / "best.yaml").read_text()


@pytest.mark.slow
def test_jobs_go_on_without_a_killed_worker_and_end_with_a_killed_parent(tmp_path: Path) -> None:
    import psutil

    options = "--steps 2048 --n-envs 4 --episodes 2 --evaluations 2 --jobs 2 --hyper policy_kwargs.net_arch=[16]"
    command = f"-m orl.cli tune a2c CartPole-v1 --trials 8 {options} --out {tmp_path}".split()
    storage = f"sqlite:///{tmp_path / 'study.db'}"

    def pids(study) -> set[int]:
        return {t.user_attrs["worker"]["pid"] for t in study.get_trials(deepcopy=False) if "worker" in t.user_attrs}

    parent = subprocess.Popen([sys.executable, *command])
    wait_until((tmp_path / "study.db").exists, parent)
    time.sleep(1)
    study = study_of(storage, Tuning("a2c", "CartPole-v1"))
    wait_until(lambda: len(pids(study)) == 2, parent)
    workers = psutil.Process(parent.pid).children()
    assert {worker.pid for worker in workers} == pids(study)
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []

    parent = subprocess.Popen([sys.executable, *command])
    wait_until(lambda: len(pids(study)) == 4, parent)
    psutil.Process(parent.pid).children()[0].kill()
    assert parent.wait(timeout=180) == 0
    now = counts(study)
    assert now["finished"] == 8
    assert now["running"] == 0


# ---- resuming ------------------------------------------------------------------------------------------------------
def test_a_study_in_two_parts_is_the_study_in_one(tmp_path: Path) -> None:
    tune(TINY, tmp_path / "a", trials=2)
    tune(TINY, tmp_path / "a", trials=4)
    tune(TINY, tmp_path / "b", trials=4)
    keys = ("trial", "state", "value", "learning_rate")
    a, b = ([[row[key] for key in keys] for row in rows_of(tmp_path / name)] for name in "ab")
    assert a == b
    assert len(a) == 4


def test_finished_trials_are_not_repeated_and_a_start_is_for_new_studies(tmp_path: Path) -> None:
    first = tune(TINY, tmp_path, trials=2)
    again = tune(TINY, tmp_path, trials=2, start={"learning_rate": 1e-3})
    assert (first.finished, first.best_value) == (again.finished, again.best_value)
    assert len(rows_of(tmp_path)) == 2


def test_a_study_keeps_to_what_it_tunes(tmp_path: Path) -> None:
    tune(TINY, tmp_path, trials=1)
    with pytest.raises(InputError, match=r"steps: a study of something else \(got 256, expected 128"):
        tune(replace(TINY, steps=256), tmp_path, trials=2)
    assert tune(replace(TINY, steps=256), tmp_path, trials=1, study="longer").finished == 1


def test_ctrl_c_keeps_what_is_finished_and_tries_the_rest_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = tuning_trial.Evaluations._on_step

    def press_ctrl_c(self) -> bool:
        if self.trial.number == 2 and self.num_timesteps > 64:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(tuning_trial.Evaluations, "_on_step", press_ctrl_c)
    first = tune(TINY, tmp_path, trials=4)
    assert first.interrupted
    assert first.finished == 2
    assert (tmp_path / "best.yaml").exists()
    monkeypatch.undo()
    second = tune(TINY, tmp_path, trials=4)
    rows = rows_of(tmp_path)
    assert not second.interrupted
    assert second.finished == 4
    assert rows[2]["state"] == "fail"
    assert rows[3]["retry_of"] == "2"
    assert rows[3]["learning_rate"] == rows[2]["learning_rate"]


def test_dead_workers_are_told_from_living_and_unknown_ones(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    worker = this_worker() | {"pid": gone.pid, "born": 1}
    gone.wait()
    assert is_dead(worker)
    assert is_dead(this_worker() | {"born": 1})  # the number of a process that is no more, given to another one
    assert not is_dead(worker | {"machine": "another"})
    assert not is_dead(this_worker())


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_parameters_that_kill_every_worker_are_given_up(tmp_path: Path) -> None:
    with quiet():
        study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "deadly")
        study.enqueue_trial({"x": 0.5})
        for _ in range(MOST_RETRIES + 1):
            trial = study.ask()
            assert trial.suggest_float("x", 0, 1) == 0.5
            trial.set_user_attr("worker", this_worker() | {"born": 1})
            recover(study)
            recover(study)  # another worker, later: nothing is queued twice
        states = [trial.state for trial in study.get_trials()]
        assert states == [TrialState.FAIL] * (MOST_RETRIES + 1)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_trials_of_workers_elsewhere_fail_when_their_heartbeat_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_study, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(tuning_study, "GRACE_SECONDS", 1)
    with quiet():
        study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "elsewhere")
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("worker", this_worker() | {"machine": "another"})
        study._storage._backend.record_heartbeat(trial._trial_id)
        recover(study)
        assert study.trials[0].state == TrialState.RUNNING
        time.sleep(2.5)
        recover(study)
        assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_no_more_trials_are_finished_than_asked_for(tmp_path: Path) -> None:
    with quiet():
        study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "race")
        first, second = study.ask(), study.ask()  # two workers saw one trial missing
        with pytest.raises(tuning_trial.Surplus):
            tuning_trial.objective(second, TINY, 1)
        assert tuning_trial.objective(first, TINY, 1) >= 0


# ---- trials --------------------------------------------------------------------------------------------------------
def test_poor_trials_end_at_an_evaluation(tmp_path: Path) -> None:
    tuning = replace(QUICK, space={"learning_rate": [0.01, 1e-7]}, evaluations=4, n_startup=1)
    with quiet():
        names, _ = check_tuning(tuning)
        study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "ppo on Echo-v0")
        for rate in (0.01, 0.01, 1e-7):
            study.enqueue_trial({"learning_rate": rate})
    assert list(names) == ["learning_rate"]
    result = tune(tuning, tmp_path, trials=3)
    rows = rows_of(tmp_path)
    assert [row["state"] for row in rows] == ["complete", "complete", "pruned"]
    assert int(rows[2]["evaluations"]) < 4
    assert result.pruned == 1
    assert tune(replace(tuning, pruner="none"), tmp_path, trials=1, study="all").pruned == 0


def test_the_value_is_the_mean_over_seeds(tmp_path: Path) -> None:
    fixed = replace(TINY, space={"learning_rate": [0.003, 0.0031]}, pruner="none")
    values = [
        tune(replace(fixed, seed=s), tmp_path / str(s), trials=1, start={"learning_rate": 0.003}).best_value
        for s in (1, 2)
    ]
    both = tune(replace(fixed, seeds=2), tmp_path / "both", trials=1, start={"learning_rate": 0.003})
    assert both.best_value == pytest.approx(sum(values) / 2)


def test_evaluations_leave_the_training_as_it_is(tmp_path: Path) -> None:
    start = {"learning_rate": 0.003}
    few = tune(replace(TINY, evaluations=1), tmp_path / "few", trials=1, start=start)
    many = tune(replace(TINY, evaluations=8), tmp_path / "many", trials=1, start=start)
    assert few.best_value == many.best_value


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_trainings_that_diverge_count_as_the_worst(tmp_path: Path) -> None:
    result = tune(replace(TINY, env_kwargs={"reward": 1e39}), tmp_path, trials=1)  # infinite in float32
    assert (result.finished, result.best_trial) == (1, None)
    assert "nan" in rows_of(tmp_path)[0]["error"]
    assert not (tmp_path / "best.yaml").exists()


def test_normalisation_and_own_spaces_are_tuned(tmp_path: Path) -> None:
    tuning = Tuning(
        "maskable-ppo",
        "orl/JobShop-v0",
        steps=64,
        n_envs=2,
        env_kwargs={"instance": "ft06", "observation": "compact"},
        normalize={"norm_reward": False},
        evaluations=1,
        episodes=1,
    )
    result = tune(tuning, tmp_path, trials=1)
    assert result.best_value is not None
    assert -5 < result.best_value <= 0
    entry = read_zoo_file(tmp_path / "best.yaml", "orl/JobShop-v0")
    assert entry["hyper"] == result.best_hyper
    assert entry["normalize"] == {"norm_reward": False}
    assert entry["env_kwargs"] == {"instance": "ft06", "observation": "compact"}
    assert (entry["budget"], entry["n_envs"], entry["policy"]) == ({"steps": 64}, 2, "MlpPolicy")


def test_recurrent_policies_and_noise_reach_the_yaml(tmp_path: Path) -> None:
    quick = {"evaluations": 1, "episodes": 1, "steps": 32, "env_kwargs": {"max_episode_steps": 10}}
    tune(Tuning("recurrent-ppo", "CartPole-v1", **quick), tmp_path / "a", trials=1)
    assert read_zoo_file(tmp_path / "a" / "best.yaml", "CartPole-v1")["policy"] == "MlpLstmPolicy"
    result = tune(Tuning("td3", "Pendulum-v1", **quick), tmp_path / "b", trials=1)
    hyper = read_zoo_file(tmp_path / "b" / "best.yaml", "Pendulum-v1", n_actions=1)["hyper"]
    assert hyper["action_noise"]["sigma"]["fill_value"] == result.best_hyper["action_noise"]["sigma"][0]


# ---- bad input -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change, text",
    [
        ({"algorithm": "ppoo"}, "did you mean 'ppo'"),
        ({"env_id": "Ecko-v0"}, "did you mean 'Echo-v0'"),
        ({"hyper": {"n_step": 3}}, "hyper-parameter: unknown name"),
        ({"algorithm": "sac", "hyper": {}}, "only supports"),
        ({"space": {"gamma": 0.9}}, "nothing to search"),
        ({"space": "nowhere:space"}, "cannot be imported"),
        ({"env_id": "orl/JobShop-v0"}, "takes no action masks"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, change: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        tune(replace(QUICK, **change), tmp_path, trials=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start, text", [({"lr": 1}, "one of learning_rate"), ({"learning_rate": 3}, "1e-07 to 0.1")])
def test_a_start_outside_the_space_is_refused(tmp_path: Path, start: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        tune(QUICK, tmp_path, trials=1, start=start)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", ["study.db", "sqlite://", "sqlite:////proc/nowhere.db", "nosuchdb://host/name"])
def test_databases_that_cannot_keep_a_study_are_refused(tmp_path: Path, storage: str) -> None:
    with pytest.raises(InputError, match="storage"):
        tune(TINY, tmp_path, trials=1, storage=storage)


@pytest.mark.parametrize("name", ["steps", "n_envs", "seeds", "evaluations", "episodes"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        replace(QUICK, **{name: 0})
    with pytest.raises(UnknownNameError, match="median"):
        replace(QUICK, pruner="medium")


def test_without_optuna_the_extra_is_named() -> None:
    code = "import sys; sys.modules['optuna'] = None; from orl.cli import main; main()"
    command = [sys.executable, "-c", code, "tune", "ppo", "CartPole-v1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "orl[tune]" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
