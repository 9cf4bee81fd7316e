"""What ``orl train`` runs: any registered algorithm on any Gymnasium id, with progress, saving and resuming.

A run lives in one folder: ``model.zip`` (SB3's format), ``config.json`` (everything needed to repeat the run) and, with
evaluation, ``best_model.zip`` and ``evaluations.npz``. Ctrl-C saves what is there.

Both files can name code that is then run, ``config.json`` by its targets: load only runs you trust.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import inspect
import json
import math
import pickle
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

import orl
from orl import registry
from orl.common.atomic import atomic_path, write_json
from orl.common.errors import InputError, UnknownNameError
from orl.common.json_files import read_json
from orl.targets import build_targets, import_name

SCHEMA = "orl.training/1"
LARGEST_CONFIG = 2**20
"""Bytes of a config.json that is read."""
PACKAGES = ("numpy", "gymnasium", "stable-baselines3", "sb3-contrib", "torch")


NOT_A_MODEL = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)
"""What SB3's ``load`` raises on files that are not models, or models of another algorithm."""


@dataclass(frozen=True)
class TrainingRun:
    """What to train.

    Attributes:
        algorithm: Registry key, ``maskable-ppo`` for instance.
        env_id: Gymnasium id.
        steps: Environment steps over all copies; a resumed run counts those already done.
        n_envs: Parallel copies.
        env_kwargs: Keyword arguments of the env, plain JSON data; a mapping with a ``target`` key is an object to build
            (:func:`build_targets`).
        hyper: Keyword arguments of the algorithm.
        policy: SB3's policy name, ``set``, an import string ``module:Class``, or None (by the observation space).
        seed: Seed of the algorithm and of the copies.
        device: torch device.
        eval_every: Steps between evaluations, 0 for none.
        eval_episodes: Episodes an evaluation.
    """

    algorithm: str
    env_id: str
    steps: int = 100_000
    n_envs: int = 8
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hyper: Mapping[str, Any] = field(default_factory=dict)
    policy: str | None = None
    seed: int = 0
    device: str = "cpu"
    eval_every: int = 0
    eval_episodes: int = 20

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("n_envs", 1), ("eval_every", 0), ("eval_episodes", 1)):
            if getattr(self, name) < least:
                raise InputError("too small", field=name, value=getattr(self, name), expected=f">= {least}")


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind: the model, steps done, wall seconds, whether Ctrl-C ended it, files written."""

    model: BaseAlgorithm
    steps: int
    seconds: float
    interrupted: bool
    files: tuple[Path, ...] = ()


def make_training_env(env_id: str, n_envs: int, env_kwargs: Mapping[str, Any], seed: int | None) -> VecEnv:
    """SB3 VecEnv with episode statistics: our native batch where the id has one, SB3's DummyVecEnv otherwise.

    Raises:
        UnknownNameError: no such id, with the nearest matches.
        InputError: a keyword argument that the env does not take.
    """
    spec = find_spec(env_id)
    kwargs: dict[str, Any] = build_targets(env_kwargs)
    try:
        if spec.namespace == "orl" and spec.vector_entry_point is not None:
            venv = VecMonitor(orl.make_vec(env_id, n_envs, **kwargs))
            venv.seed(seed)
            return venv
        return make_vec_env(env_id, n_envs, seed=seed, env_kwargs=kwargs)
    except TypeError as error:
        raise InputError(str(error), source=env_id, field="env_kwargs", value=kwargs) from error


def find_spec(env_id: str) -> Any:
    """Gymnasium's spec of an id, after the import of ``module`` for ``module:id``.

    Raises:
        UnknownNameError: no such id, with the nearest matches.
        InputError: the module cannot be imported.
    """
    module, _, plain = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gym.spec(plain)
    except ImportError as error:
        raise InputError("cannot be imported", field="environment", value=env_id, expected="module:id") from error
    except gym.error.Error as error:
        raise UnknownNameError("environment", env_id, gym.registry) from error


def default_policy(observation_space: spaces.Space[Any], algorithm: Any = None) -> str:
    """SB3's policy name for an observation space, or the algorithm's own form of it (``MlpLstmPolicy``).

    >>> default_policy(spaces.Box(-1, 1, (3,)))
    'MlpPolicy'

    Raises:
        InputError: the algorithm has no policy for such observations.
    """
    if isinstance(observation_space, spaces.Dict):
        usual = "MultiInputPolicy"
    else:
        usual = "CnnPolicy" if is_image_space(observation_space) else "MlpPolicy"
    if algorithm is None:
        return usual
    names = algorithm.policy_aliases
    for name in (usual, usual.replace("Policy", "LstmPolicy")):
        if name in names:
            return name
    raise InputError(f"{algorithm.__name__} has no {usual}", field="policy", expected=f"one of {', '.join(names)}")


def resolve_policy(name: str | None, observation_space: spaces.Space[Any], algorithm: Any = None) -> Any:
    """A policy class or SB3's policy name from what ``--policy`` says; None is the algorithm's default."""
    if name is None:
        return default_policy(observation_space, algorithm)
    if name == "set":
        name = "orl.policies.set_policy:SetPolicy"
    if ":" not in name:
        return name
    return import_name(name, "policy")


class ProgressBar(BaseCallback):
    """A rich progress bar over steps or, with ``seconds``, over wall time; ends training when the time is over.

    Args:
        total_steps: Steps to come.
        seconds: Wall-clock budget, None for no limit.
        console: Where to draw.
        label: Text before the bar.
    """

    def __init__(
        self, total_steps: int, seconds: float | None = None, console: Console | None = None, label: str = "training"
    ) -> None:
        super().__init__()
        self.total_steps, self.seconds, self.label = total_steps, seconds, label
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
            console=console,
        )
        self.task: TaskID | None = None

    def _on_training_start(self) -> None:
        self.first_step, self.begin, self.drawn = self.model.num_timesteps, time.perf_counter(), 0.0
        self.bar.start()
        self.task = self.bar.add_task(self.label, total=1.0, news="")

    def _on_step(self) -> bool:
        elapsed = time.perf_counter() - self.begin
        done = self.model.num_timesteps - self.first_step
        if elapsed - self.drawn > 0.2:
            self.drawn = elapsed
            share = done / self.total_steps if self.seconds is None else elapsed / self.seconds
            returns = [episode["r"] for episode in self.model.ep_info_buffer or ()]
            news = f"{done:,} steps, {done / elapsed:,.0f}/s"
            if returns:
                news += f", mean return {np.mean(returns):.3f}"
            assert self.task is not None
            self.bar.update(self.task, completed=min(share, 1.0), news=news)
        return self.seconds is None or elapsed < self.seconds

    def close(self) -> None:
        """Take the bar off the screen; safe to call twice."""
        self.bar.stop()


def build_model(run: TrainingRun, env: VecEnv) -> BaseAlgorithm:
    """The algorithm on ``env``, untrained.

    Raises:
        UnknownNameError: no such algorithm or hyper-parameter.
        InputError: the algorithm refuses a value, or takes no action masks where the env raises on illegal actions.
    """
    algorithm = registry.algorithm(run.algorithm)
    require_masks_taken(run, algorithm, env)
    accepted = [name for name in inspect.signature(algorithm).parameters if name not in ("self", "policy", "env")]
    for name in run.hyper:
        if name not in accepted:
            raise UnknownNameError("hyper-parameter", name, accepted)
    arguments = {"seed": run.seed, "device": run.device} | build_targets(run.hyper)
    try:
        return algorithm(resolve_policy(run.policy, env.observation_space, algorithm), env, **arguments)
    except (ValueError, TypeError, AssertionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(error).strip() or "refused", source=run.algorithm, field="arguments") from error


def require_masks_taken(run: TrainingRun, algorithm: Any, env: VecEnv) -> None:
    """Raise InputError if ``algorithm`` takes no masks and ``env`` (of ours) has some and raises on illegal actions."""
    spec = find_spec(run.env_id)
    illegal = {**spec.kwargs, **run.env_kwargs}.get("illegal", "raise")
    takes_masks = "action_masks" in inspect.signature(algorithm.predict).parameters
    if spec.namespace == "orl" and illegal == "raise" and env.has_attr("action_masks") and not takes_masks:
        raise InputError(
            f"{run.env_id} raises on illegal actions, and this algorithm takes no action masks",
            field="algorithm",
            value=run.algorithm,
            expected="maskable-ppo, or --env-kwargs illegal=count to replace illegal actions",
        )


def train(
    run: TrainingRun,
    out: Path,
    *,
    resume: bool = False,
    seconds: float | None = None,
    console: Console | None = None,
) -> TrainingResult:
    """Train, show a progress bar, save ``model.zip`` and ``config.json`` under ``out`` (also after Ctrl-C).

    Args:
        run: What to train.
        out: Folder of the run.
        resume: Go on from ``out/model.zip``; the algorithm, env and its arguments must be those of the saved run.
        seconds: Wall-clock budget; training ends at the steps or the seconds, whichever comes first.
        console: Where to draw the bar.

    Raises:
        InputError: ``out`` holds a model and ``resume`` is False, or ``resume`` finds none or another run.
    """
    model_file, config_file = out / "model.zip", out / "config.json"
    if resume:
        check_same_run(run, out)
    elif model_file.exists():
        raise InputError("holds a model already", field="out", value=str(out), expected="--resume or another folder")
    env = make_training_env(run.env_id, run.n_envs, run.env_kwargs, run.seed)
    interrupted, begin = False, time.perf_counter()
    bar = None
    try:
        if resume:
            model = load_model(run.algorithm, model_file, env=env, device=run.device)
        else:
            model = build_model(run, env)
        steps = max(run.steps - model.num_timesteps, 0)
        bar = ProgressBar(steps, seconds, console, f"{run.algorithm} on {run.env_id}")
        callbacks: list[BaseCallback] = [bar]
        if run.eval_every:
            callbacks.append(_evaluation(run, model, out))
        try:
            if steps:
                model.learn(steps, callback=CallbackList(callbacks), reset_num_timesteps=not resume)
        except KeyboardInterrupt:
            interrupted = True
        bar.close()
        with atomic_path(model_file) as temporary:
            model.save(temporary)
        write_json(config_file, _config(run, model.num_timesteps, interrupted))
    finally:
        if bar is not None:
            bar.close()
        env.close()
    best = out / "best_model.zip"
    files = (model_file, config_file) + ((best,) if best.exists() else ())
    return TrainingResult(model, model.num_timesteps, time.perf_counter() - begin, interrupted, files)


def check_same_run(run: TrainingRun, out: Path) -> None:
    """Raise InputError unless ``out`` holds a model of the same algorithm, env and arguments as ``run``."""
    config_file = out / "config.json"
    if not (out / "model.zip").exists() or not config_file.exists():
        raise InputError(
            "nothing to resume", field="out", value=str(out), expected="a folder with model.zip, config.json"
        )
    saved = read_config(config_file)
    asked = json.loads(json.dumps(asdict(run)))
    for name in ("algorithm", "env_id", "env_kwargs", "policy", "hyper"):
        if saved.get(name) != asked[name]:
            raise InputError(
                "another run", source=str(config_file), field=name, value=asked[name], expected=repr(saved.get(name))
            )


def read_config(path: Path) -> dict[str, Any]:
    """Read a ``config.json`` that :func:`train` wrote.

    Raises:
        InputError: not JSON, too large, or not ours.
    """
    data = read_json(path, largest=LARGEST_CONFIG, expected="the config.json of a training run")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InputError("not the configuration of a training run", source=str(path), field="schema", expected=SCHEMA)
    for name, kind, expected in (
        ("algorithm", str, "a text"),
        ("env_id", str, "a text"),
        ("env_kwargs", dict, "a mapping"),
    ):
        if name in data and not isinstance(data[name], kind):
            raise InputError("wrong type", source=str(path), field=name, value=data[name], expected=expected)
    return data


def load_model(key: str, file: Path, **kwargs: Any) -> BaseAlgorithm:
    """SB3's ``load`` of the algorithm of that registry key.

    Raises:
        UnknownNameError: no such algorithm.
        InputError: the file is not a model of it.
    """
    kind = registry.algorithm(key)
    try:
        model: BaseAlgorithm = kind.load(file, **kwargs)
    except NOT_A_MODEL as error:
        raise InputError(f"not a model of {key}", source=str(file), value=str(error)) from error
    return model


@dataclass(frozen=True)
class LearnedPolicy:
    """A saved model and the env that it was trained in (None and empty when its config.json is missing)."""

    model: BaseAlgorithm
    env_id: str | None
    env_kwargs: dict[str, Any]

    def on(self, env: gym.Env[Any, Any]) -> Any:
        """The policy that plays ``env``; a policy with ``for_spaces`` fits itself to other sizes.

        Raises:
            InputError: the env has other spaces than the model, whose policy is bound to its own.
        """
        policy: Any = self.model.policy
        if env.observation_space == policy.observation_space and env.action_space == policy.action_space:
            return self.model
        if hasattr(policy, "for_spaces"):
            return policy.for_spaces(env.observation_space, env.action_space)
        raise InputError(
            "the env has other spaces than the model",
            field="observation_space",
            value=env.observation_space,
            expected=f"{policy.observation_space}, or a policy of any size (train with --policy set)",
        )


def load_policy(path: Path, algorithm: str | None = None) -> LearnedPolicy:
    """Load ``model.zip`` (or the folder of a run that holds one). Load only runs you trust: both files can run code.

    Args:
        path: File or folder; ``config.json`` beside the file says algorithm and env.
        algorithm: Registry key, for a model without ``config.json``.

    Raises:
        InputError: no model there, or nothing says which algorithm it is of.
    """
    file = path / "model.zip" if path.is_dir() else path
    if not file.is_file():
        raise InputError("no model", source=str(path), expected="model.zip")
    config_file = file.parent / "config.json"
    config = read_config(config_file) if config_file.exists() else {}
    key = algorithm or config.get("algorithm")
    if key is None:
        raise InputError("no config.json beside the model", source=str(path), field="--algorithm", expected="its key")
    model = load_model(key, file, device="cpu")
    return LearnedPolicy(model, config.get("env_id"), build_targets(config.get("env_kwargs", {})))


def _evaluation(run: TrainingRun, model: BaseAlgorithm, out: Path) -> BaseCallback:
    """SB3's EvalCallback, the maskable one for algorithms that use masks on an env that has some."""
    env = make_training_env(run.env_id, min(run.n_envs, run.eval_episodes), run.env_kwargs, run.seed + 10_000)
    kind: Any = EvalCallback
    if "action_masks" in inspect.signature(model.predict).parameters and env.has_attr("action_masks"):
        from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback

        kind = MaskableEvalCallback
    return kind(
        env,
        n_eval_episodes=run.eval_episodes,
        eval_freq=max(math.ceil(run.eval_every / run.n_envs), 1),
        best_model_save_path=str(out),
        log_path=str(out),
        verbose=0,
    )


def _config(run: TrainingRun, steps_done: int, interrupted: bool) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return asdict(run) | {
        "schema": SCHEMA,
        "steps_done": steps_done,
        "interrupted": interrupted,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"orl": orl.__version__} | versions,
    }
