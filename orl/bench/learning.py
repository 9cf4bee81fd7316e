"""The training of one run: environments, model, budget, learning curve, checkpoints."""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import gymnasium
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

from orl.bench.checkpoint import Checkpoints, Notes, restore, save
from orl.bench.configuration import AlgorithmPart, BudgetPart, Configuration
from orl.bench.learning_curve import LearningCurve
from orl.bench.plan import Task
from orl.bench.playing import evaluation_envs, play, wrap
from orl.bench.resources import Meter, Stopwatch
from orl.bench.versions import package_versions
from orl.common.errors import InputError, MissingExtraError
from orl.common.problem import Instance
from orl.targets import build_targets
from orl.training import TrainingRun, build_model, make_training_env

NO_LIMIT = 2**60
"""Steps of a training that only the clock ends."""
INEXACT_SEED = 1_000_003
"""Environments that have to be reset in the middle of a training start from ``seed + INEXACT_SEED * steps``."""


class Training:
    """A learning algorithm in its environments, from its last checkpoint if the work folder holds one.

    Use it as a context manager: it closes its environments.

    Args:
        task: What to train.
        instances: Instances of the configuration, built.
        work: Folder of checkpoint and growing learning curve.
        meter: What the run uses.
        tensorboard: Folder of TensorBoard logs, or None.
        stop: Polled at every step; once true, :meth:`learn` saves a checkpoint and raises Interrupted.

    Raises:
        InputError: an argument that environment or algorithm refuse; a damaged checkpoint.
        MissingExtraError: TensorBoard logs are wanted, and it is not installed.
    """

    def __init__(
        self,
        task: Task,
        instances: Sequence[Instance],
        *,
        work: Path,
        meter: Meter,
        tensorboard: Path | None,
        stop: Callable[[], bool],
    ) -> None:
        self.task, self.configuration, self.work, self.meter, self.stop = task, task.configuration, work, meter, stop
        assert isinstance(self.configuration.subject, AlgorithmPart)
        work.mkdir(parents=True, exist_ok=True)
        self.evaluation_envs = evaluation_envs(self.configuration, instances)
        self.venv, self.spaces = training_env(self.configuration, self.configuration.subject, instances)
        self.model = build_model(_training_run(self.configuration, self.configuration.subject), self.venv)
        if tensorboard is not None:
            _require_tensorboard()
            self.model.tensorboard_log = str(tensorboard)
        self.restored = restored = restore(self.model, work)
        self.versions = package_versions()
        self.resumed, self.exact, self.finished = 0, True, False
        self.watch, text = Stopwatch(), ""
        if restored is not None:
            notes = restored.notes
            self.resumed, self.finished = notes.resumed + 1, notes.finished
            intact = notes.finished or restored.exact
            self.exact = notes.exact and intact and notes.versions == self.versions
            self.watch, text = Stopwatch(notes.seconds, notes.cpu_seconds), notes.curve
            meter.add(notes.spent)
            if not intact:
                self.venv.seed((self.configuration.seed + INEXACT_SEED * notes.steps) % 2**31)
        every = None if self.finished else self.configuration.evaluation.every
        self.curve = LearningCurve(self._point, every=every, folder=work, watch=self.watch, text=text)

    def learn(self) -> None:
        """Train until the budget is spent; with checkpoints, leave one of the finished training behind.

        Raises:
            Interrupted: asked to stop; a checkpoint is saved.
        """
        if self.finished and self.restored is not None:
            self.restored.at_rollout_start()
        elif not self.finished:
            self._learn()
            self.finished, self.restored = True, None
            if self.task.keep.checkpoint_every is not None:
                self.save_checkpoint()

    def _learn(self) -> None:
        budget = self.configuration.budget or BudgetPart()
        total = NO_LIMIT if budget.steps is None else budget.steps
        left = total - self.model.num_timesteps
        in_time = budget.seconds is None or self.watch.seconds < budget.seconds
        if left <= 0 or not in_time:
            return
        checkpoints = Checkpoints(
            self.save_checkpoint,
            every=self.task.keep.checkpoint_every,
            stop=self.stop,
            restored=self.restored,
            pause=self.watch.paused,
        )
        callbacks: list[BaseCallback] = [self.curve, checkpoints, Clock(self.watch, budget.seconds)]
        if budget.steps is None and budget.seconds is not None:
            _follow_clock(self.model, self.watch, budget.seconds)
        self.watch.start()
        try:
            self.model.learn(left, callback=CallbackList(callbacks), reset_num_timesteps=self.restored is None)
        except TimeIsOver:
            pass
        finally:
            self.watch.stop()
            self.model.__dict__.pop("_update_current_progress_remaining", None)

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the training as it is."""
        notes = Notes(
            steps=self.model.num_timesteps,
            seconds=self.watch.seconds,
            cpu_seconds=self.watch.cpu_seconds,
            curve=self.curve.text,
            spent=self.meter.read(),
            resumed=self.resumed,
            exact=self.exact,
            finished=self.finished,
            versions=self.versions,
        )
        save(self.model, notes, self.work)

    @property
    def policy(self) -> Callable[[gymnasium.Env[Any, Any]], Any]:
        """Builds the policy that plays an env; a policy with ``for_spaces`` fits itself to other sizes."""
        return partial(policy_for, self.model, self.spaces)

    def _point(self, model: BaseAlgorithm) -> list[dict[str, Any]]:
        return play(
            self.policy,
            self.evaluation_envs,
            self.configuration,
            name=self.task.subject,
            episodes=self.configuration.evaluation.curve_episodes,
        )

    def files(self) -> dict[str, bytes]:
        """Learning curve and, where they are kept, model and statistics of the normalisation, by relative path."""
        run = self.configuration.hash
        files: dict[str, bytes] = {}
        if self.configuration.evaluation.every is not None:
            files[f"curves/{run}.jsonl"] = self.curve.text.encode()
        if self.task.keep.model:
            stream = io.BytesIO()
            self.model.save(stream)
            files[f"models/{run}.zip"] = stream.getvalue()
            statistics = self.model.get_vec_normalize_env()
            if statistics is not None:
                files[f"models/{run}.vecnormalize.pkl"] = pickle.dumps(statistics)
        return files

    def close(self) -> None:
        """Close all environments."""
        self.venv.close()
        for env in self.evaluation_envs:
            env.close()

    def __enter__(self) -> Training:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class TimeIsOver(Exception):
    """Ends algorithms that do not listen when a callback says that training shall end."""


class Clock(BaseCallback):
    """Ends a training when its seconds are over.

    Args:
        watch: Clock of the training.
        seconds: Budget, None for none.

    Raises:
        TimeIsOver: the algorithm went on although it was told to end.
    """

    def __init__(self, watch: Stopwatch, seconds: float | None) -> None:
        super().__init__()
        self.watch, self.seconds, self.told = watch, seconds, False

    def _on_step(self) -> bool:
        if self.told:
            raise TimeIsOver
        self.told = self.seconds is not None and self.watch.seconds >= self.seconds
        return not self.told


def training_env(
    configuration: Configuration, subject: AlgorithmPart, instances: Sequence[Instance]
) -> tuple[VecEnv, tuple[Any, Any]]:
    """The training environments, and their observation and action space before normalisation.

    ``train_kwargs`` override the env's; without them the training is on the instance of the run. Wrappers go around
    SB3's Monitor of each copy; then come VecFrameStack and VecNormalize.

    Raises:
        InputError: a keyword argument that the env does not take; several instances and no ``train_kwargs``.
    """
    environment = configuration.environment
    kwargs = dict(environment.kwargs)
    if environment.train_kwargs is not None:
        kwargs |= environment.train_kwargs
    elif len(instances) > 1:
        expected = "one instance, or train_kwargs that say what to train on"
        raise InputError("several instances", field="instances", value=len(instances), expected=expected)
    elif instances:
        kwargs["instance"] = instances[0]
    venv: VecEnv
    if subject.wrappers:
        venv = make_vec_env(
            environment.id,
            subject.n_envs,
            seed=configuration.seed,
            env_kwargs=build_targets(kwargs),
            wrapper_class=partial(wrap, wrappers=subject.wrappers),
        )
    else:
        venv = make_training_env(environment.id, subject.n_envs, kwargs, configuration.seed)
    if subject.frame_stack is not None:
        venv = VecFrameStack(venv, subject.frame_stack)
    spaces = (venv.observation_space, venv.action_space)
    if subject.normalize is not None:
        venv = VecNormalize(venv, **build_targets(subject.normalize))
    return venv, spaces


def policy_for(model: BaseAlgorithm, spaces: tuple[Any, Any], env: gymnasium.Env[Any, Any]) -> Any:
    """What plays ``env``: the model, or its policy fitted to the sizes of ``env`` by ``for_spaces``.

    Args:
        model: The trained model.
        spaces: Observation and action space of its training environments, before normalisation.
        env: Where to play.

    Raises:
        InputError: the env has other spaces, and the policy, or the statistics of VecNormalize, are bound to theirs.
    """
    if (env.observation_space, env.action_space) == spaces:
        return model
    policy: Any = model.policy
    if hasattr(policy, "for_spaces") and model.get_vec_normalize_env() is None:
        return policy.for_spaces(env.observation_space, env.action_space)
    raise InputError(
        "the env of the evaluation has other spaces than that of the training",
        field="observation_space",
        value=env.observation_space,
        expected=f"{spaces[0]}, or a policy of any size (policy: set) without normalize",
    )


def _training_run(configuration: Configuration, subject: AlgorithmPart) -> TrainingRun:
    """What :func:`orl.training.build_model` has to know."""
    environment, hyper = configuration.environment, dict(subject.hyper)
    if isinstance(hyper.get("train_freq"), list):
        hyper["train_freq"] = tuple(hyper["train_freq"])  # plain data has no tuples, and SB3 takes no list here
    return TrainingRun(
        subject.key,
        environment.id,
        n_envs=subject.n_envs,
        env_kwargs={**environment.kwargs, **(environment.train_kwargs or {})},
        hyper=hyper,
        policy=subject.policy,
        seed=configuration.seed,
    )


def _follow_clock(model: BaseAlgorithm, watch: Stopwatch, seconds: float) -> None:
    """Let schedules (learning rate, exploration) run with the clock where it alone ends the training."""

    def update(self: BaseAlgorithm, num_timesteps: int, total_timesteps: int) -> None:
        self._current_progress_remaining = max(1.0 - watch.seconds / seconds, 0.0)

    model._update_current_progress_remaining = types.MethodType(update, model)  # type: ignore[method-assign]


def _require_tensorboard() -> None:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("tensorboard", "report", "writing TensorBoard logs") from error
