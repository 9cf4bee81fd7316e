"""Checkpoints: a training that goes on from one ends like a training that was never stopped, to the last bit."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import small_runs
import torch
from gymnasium.utils import EzPickle

from orl.bench import checkpoint
from orl.bench.configuration import AlgorithmPart, GeneratedInstance
from orl.bench.execution import Interrupted, execute
from orl.bench.learning_curve import LearningCurve
from orl.bench.plan import Keep, Task
from orl.bench.record import Outcome
from orl.common.errors import InputError

NOISE = {"target": "stable_baselines3.common.noise:OrnsteinUhlenbeckActionNoise"}
SMALL_SHOP = {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 3, "n_machines": 3}
KEEP = Keep(checkpoint_every=30, picture=False)


class Killed(BaseException):
    """Stands for kill -9: nothing in the run handles it."""


def scramble() -> None:
    """Leave every global generator somewhere else."""
    random.seed(99)
    np.random.seed(98)  # noqa: NPY002
    torch.manual_seed(97)


def kill_at(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = LearningCurve._on_step

    def step(self: LearningCurve) -> bool:
        if self.model.num_timesteps >= steps:
            raise Killed
        return original(self)

    monkeypatch.setattr(LearningCurve, "_on_step", step)


def uninterrupted_and_resumed(task: Task, tmp_path: Path, at: int) -> tuple[Outcome, Outcome]:
    """The outcome of a run, and that of the same run killed at step ``at`` and started again."""
    whole = execute(task, sweep="test", work=tmp_path / "whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill_at(at, monkeypatch)
        with pytest.raises(Killed):
            execute(task, sweep="test", work=tmp_path / "killed")
    scramble()
    resumed = execute(task, sweep="test", work=tmp_path / "killed")
    assert (whole.record["resumed"], resumed.record["resumed"]) == (0, 1)
    return whole, resumed


def require_equal(whole: Outcome, resumed: Outcome) -> None:
    assert small_runs.parameters(whole) == small_runs.parameters(resumed)
    assert small_runs.curve(whole) == small_runs.curve(resumed)
    assert small_runs.rows(whole) == small_runs.rows(resumed)
    assert whole.record["steps"] == resumed.record["steps"]


def learning(name: str, env_id: str, *, keep: Keep = KEEP, steps: int = 160, **changes: Any) -> Task:
    environment = {key: changes.pop(key) for key in ("instances", "kwargs", "train_kwargs") if key in changes}
    return small_runs.task(
        small_runs.learner(name, **changes), env_id, steps=steps, keep=keep, evaluation={"every": 20}, **environment
    )


CASES = {
    "ppo": learning("ppo", "CartPole-v1"),
    "ppo normalised": learning("ppo", "CartPole-v1", normalize={"gamma": 0.9}),
    "ppo with frames and wrappers": learning(
        "ppo",
        "CartPole-v1",
        frame_stack=3,
        normalize={},
        wrappers=({"target": "gymnasium.wrappers:TimeAwareObservation"},),
    ),
    "ppo with gSDE": learning("ppo", "Pendulum-v1", hyper=small_runs.LEARNERS["ppo"]["hyper"] | {"use_sde": True}),
    "a2c normalised": learning("a2c", "CartPole-v1", normalize={}),
    "dqn": learning("dqn", "CartPole-v1"),
    "sac": learning("sac", "Pendulum-v1"),
    "sac normalised": learning("sac", "Pendulum-v1", normalize={}, n_envs=2),
    "td3 with correlated noise": learning(
        "sac",
        "Pendulum-v1",
        key="td3",
        n_envs=2,
        hyper=small_runs.LEARNERS["sac"]["hyper"]
        | {
            "action_noise": NOISE
            | {"mean": {"target": "numpy:zeros", "shape": 1}, "sigma": {"target": "numpy:ones", "shape": 1}}
        },
    ),
    "recurrent ppo": learning(
        "ppo",
        "CartPole-v1",
        key="recurrent-ppo",
        policy="MlpLstmPolicy",
        hyper=small_runs.LEARNERS["ppo"]["hyper"] | {"policy_kwargs": {"lstm_hidden_size": 4, "net_arch": [4]}},
    ),
    "maskable ppo on a native batch": learning("maskable-ppo", "orl/JobShop-v0", instances=("ft06",)),
    "maskable ppo on drawn instances": learning(
        "maskable-ppo",
        "orl/JobShop-v0",
        instances=(GeneratedInstance(generator=SMALL_SHOP, seed=0, index=0),),
        train_kwargs={"instance": SMALL_SHOP},
        normalize={"norm_obs": False},
    ),
}


LONGER = ("ppo", "sac", "maskable ppo on a native batch")
"""Cases that others cover in part."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in LONGER else []) for n in CASES])
def test_a_killed_training_ends_like_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    whole, resumed = uninterrupted_and_resumed(CASES[name], tmp_path, at=117)
    require_equal(whole, resumed)
    assert resumed.record["exact"] is True
    assert len(small_runs.curve(whole)) >= 6


def test_asked_to_stop_it_saves_and_goes_on_any_number_of_times(tmp_path: Path) -> None:
    task = learning("dqn", "CartPole-v1", keep=Keep(picture=False))
    whole = execute(task, sweep="test", work=tmp_path / "whole")
    assert not (tmp_path / "whole" / checkpoint.FILE).exists()
    times = 0
    while True:
        try:
            resumed = execute(task, sweep="test", work=tmp_path / "stopped", stop=polled(60))
            break
        except Interrupted:
            times += 1
            scramble()
    require_equal(whole, resumed)
    assert resumed.record["resumed"] == times >= 2


def polled(times: int) -> Callable[[], bool]:
    """A stop() that turns true when it has been polled so often."""
    left = times

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    return stop


def test_a_finished_training_is_evaluated_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stable_baselines3 import A2C

    task = learning("a2c", "CartPole-v1")
    asked = False

    def stop() -> bool:
        return asked

    with monkeypatch.context() as patch:
        original = A2C.learn

        def learn(self: A2C, *args: Any, **kwargs: Any) -> A2C:
            nonlocal asked
            result = original(self, *args, **kwargs)
            asked = True
            return result

        patch.setattr(A2C, "learn", learn)
        with pytest.raises(Interrupted):
            execute(task, sweep="test", work=tmp_path / "stopped", stop=stop)
    with monkeypatch.context() as patch:
        patch.setattr(A2C, "learn", lambda *args, **kwargs: pytest.fail("trained again"))
        resumed = execute(task, sweep="test", work=tmp_path / "stopped")
    require_equal(execute(task, sweep="test", work=tmp_path / "whole"), resumed)


class Pipe(gymnasium.Env[Any, Any]):
    """An environment that cannot be pickled: its state is a generator's."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = iter(self.np_random.random(2) for _ in range(10))
        return next(self.left).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        values = next(self.left, None)
        over = values is None
        return np.zeros(2, np.float32) if over else values.astype(np.float32), 1.0, over, False, {}


class Forgetful(Pipe):
    """Holds a part that pickles only the arguments of its constructor."""

    def __init__(self) -> None:
        self.part = EzPickle()


@pytest.fixture
def odd_envs() -> Any:
    gymnasium.register("Pipe-v0", entry_point=Pipe)
    gymnasium.register("Forgetful-v0", entry_point=Forgetful)
    gymnasium.register("Short-v0", entry_point=gymnasium.spec("CartPole-v1").entry_point, max_episode_steps=10)
    yield
    for name in ("Pipe-v0", "Forgetful-v0", "Short-v0"):
        del gymnasium.registry[name]


@pytest.mark.usefixtures("odd_envs")
@pytest.mark.parametrize("env_id", ["Pipe-v0", "Forgetful-v0"])
def test_an_env_that_cannot_be_saved_is_reset_and_the_record_says_so(env_id: str, tmp_path: Path) -> None:
    whole, resumed = uninterrupted_and_resumed(learning("ppo", env_id, normalize={}), tmp_path, at=117)
    assert (whole.record["exact"], resumed.record["exact"]) == (True, False)
    assert whole.record["steps"] == resumed.record["steps"]
    assert [point["steps"] for point in small_runs.curve(whole)] == [
        point["steps"] for point in small_runs.curve(resumed)
    ]


@pytest.mark.usefixtures("odd_envs")
def test_an_algorithm_of_another_kind_goes_on_but_not_exactly(tmp_path: Path) -> None:
    task = learning(
        "ppo",
        "Short-v0",
        key="ars",
        policy="LinearPolicy",
        hyper={"n_delta": 2},
        n_envs=1,
    )
    whole, resumed = uninterrupted_and_resumed(task, tmp_path, at=117)
    assert (whole.record["exact"], resumed.record["exact"]) == (True, False)


def test_mujoco_goes_on_exactly(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    whole, resumed = uninterrupted_and_resumed(learning("ppo", "Hopper-v5", normalize={}), tmp_path, at=117)
    require_equal(whole, resumed)
    assert resumed.record["exact"] is True


def test_a_write_that_was_cut_short_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = learning("a2c", "CartPole-v1")
    with monkeypatch.context() as patch:
        kill_at(117, patch)
        with pytest.raises(Killed):
            execute(task, sweep="test", work=tmp_path)
    before = (tmp_path / checkpoint.FILE).read_bytes()
    with monkeypatch.context() as patch:
        original = checkpoint._dump
        dumps = 0

        def full(file: Any, *args: Any) -> None:
            nonlocal dumps
            original(file, *args)
            dumps += 1
            if dumps == 2:
                raise OSError(28, "No space left on device")

        patch.setattr(checkpoint, "_dump", full)
        with pytest.raises(OSError, match="No space"):
            execute(task, sweep="test", work=tmp_path)
    assert (tmp_path / checkpoint.FILE).read_bytes() == before
    leftover = tmp_path / f".{checkpoint.FILE}.killed"
    leftover.mkdir()
    (leftover / checkpoint.FILE).write_bytes(b"half")
    resumed = execute(task, sweep="test", work=tmp_path)
    assert not leftover.exists()
    require_equal(execute(task, sweep="test", work=tmp_path / "whole"), resumed)


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps({}) + pickle.dumps({"schema": "another/1"})])
def test_a_damaged_checkpoint_is_an_error_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / checkpoint.FILE).write_bytes(content)
    with pytest.raises(InputError, match=checkpoint.FILE):
        execute(learning("a2c", "CartPole-v1"), sweep="test", work=tmp_path)


def test_views_of_an_array_stay_views(tmp_path: Path) -> None:
    whole = np.arange(12).reshape(3, 4)
    state = {"whole": whole, "part": whole[1:, ::2], "read": whole[0]}
    state["read"].flags.writeable = False
    with (tmp_path / "a").open("wb") as file:
        checkpoint._dump(file, [], state)
    with (tmp_path / "a").open("rb") as file:
        loaded = checkpoint._Unpickler(file, []).load()
    loaded["whole"][1, 2] = 100
    assert loaded["part"].tolist() == [[4, 100], [8, 10]]
    assert not loaded["read"].flags.writeable


def test_only_the_filled_part_of_a_replay_buffer_is_saved(tmp_path: Path) -> None:
    subject = small_runs.learner("sac", hyper=small_runs.LEARNERS["sac"]["hyper"] | {"buffer_size": 100_000})
    assert isinstance(subject, AlgorithmPart)
    task = small_runs.task(subject, "Pendulum-v1", steps=40, keep=Keep(checkpoint_every=20, model=False))
    execute(task, sweep="test", work=tmp_path)
    assert (tmp_path / checkpoint.FILE).stat().st_size < 2**20


IN_A_PROCESS = """
import pickle, sys
from pathlib import Path
from orl.bench import checkpoint, learning
from orl.bench.execution import execute

task, work, out, die = pickle.loads(Path(sys.argv[1]).read_bytes())
if die:
    import os, signal
    saved = 0
    original = learning.save
    def save(*args):
        global saved
        original(*args)
        saved += 1
        if saved == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    learning.save = save
outcome = execute(task, sweep="test", work=work)
Path(out).write_bytes(pickle.dumps(outcome))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sac normalised", "maskable ppo on drawn instances"])
def test_a_process_that_was_killed_is_continued_by_another_one(name: str, tmp_path: Path) -> None:
    task = CASES[name]
    for work, die, code in (("whole", False, 0), ("killed", True, -9), ("killed", False, 0)):
        out = tmp_path / f"{work}.outcome"
        (tmp_path / "call").write_bytes(pickle.dumps((task, tmp_path / work, out, die)))
        done = subprocess.run([sys.executable, "-c", IN_A_PROCESS, str(tmp_path / "call")], check=False)
        assert done.returncode == code
    whole, resumed = (pickle.loads((tmp_path / f"{work}.outcome").read_bytes()) for work in ("whole", "killed"))
    require_equal(whole, resumed)
    assert (resumed.record["resumed"], resumed.record["exact"]) == (1, True)
