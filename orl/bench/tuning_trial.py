"""One trial of ``orl tune``: what is tuned, and what a choice of hyper-parameters is worth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from gymnasium import spaces
from optuna.trial import TrialState
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from orl import registry
from orl.bench.search_spaces import Setting, find_space
from orl.bench.tuning_study import FINISHED, retry, this_worker
from orl.common.errors import InputError, UnknownNameError
from orl.common.evaluation import evaluate
from orl.targets import build_targets
from orl.training import TrainingRun, build_model, default_policy, make_training_env

EVALUATION_SEED = 2_000_000
"""First seed of tuning evaluations: neither those of training nor those that sweeps report (1,000,000)."""
PRUNERS = ("median", "halving", "none")


@dataclass(frozen=True)
class Tuning:
    """What is tuned and how a trial is valued; the same for all trials of a study.

    Attributes:
        algorithm: Registry key.
        env_id: Gymnasium id.
        steps: Training steps of a trial, over all copies.
        n_envs: Parallel copies in training.
        env_kwargs: Keyword arguments of the env, plain data with targets.
        eval_kwargs: Overrides of ``env_kwargs`` in evaluations.
        policy: SB3's policy name, ``set``, ``module:Class``, or None (by the observation space).
        hyper: Fixed hyper-parameters; they override what the search space draws.
        normalize: Keyword arguments of VecNormalize, or None for no normalisation.
        space: Search space as data (:func:`orl.bench.search_spaces.read_space`), ``module:function``, or None for the
            algorithm's own.
        seed: Seed of the sampler and of the first training.
        seeds: Trainings a trial, with seeds ``seed, seed + 1, ...``; its value is their mean.
        evaluations: Evaluations a training, the last one at its end.
        episodes: Episodes an evaluation.
        evaluation_seed: Seed of the first episode of every evaluation.
        pruner: ``median`` (worse than the median of earlier trials at the same step), ``halving`` (asynchronous
            successive halving) or ``none``.
        n_startup: Trials drawn at random before the sampler models the space, and finished before any is pruned.
        device: torch device.
    """

    algorithm: str
    env_id: str
    steps: int = 100_000
    n_envs: int = 1
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    eval_kwargs: Mapping[str, Any] = field(default_factory=dict)
    policy: str | None = None
    hyper: Mapping[str, Any] = field(default_factory=dict)
    normalize: Mapping[str, Any] | None = None
    space: str | Mapping[str, Any] | None = None
    seed: int = 0
    seeds: int = 1
    evaluations: int = 5
    episodes: int = 10
    evaluation_seed: int = EVALUATION_SEED
    pruner: str = "median"
    n_startup: int = 5
    device: str = "cpu"

    def __post_init__(self) -> None:
        least = {"steps": 1, "n_envs": 1, "seed": 0, "seeds": 1, "evaluations": 1, "episodes": 1, "n_startup": 1}
        for name, low in {**least, "evaluation_seed": 0}.items():
            if getattr(self, name) < low:
                raise InputError("too small", field=name, value=getattr(self, name), expected=f">= {low}")
        if self.pruner not in PRUNERS:
            raise UnknownNameError("pruner", self.pruner, PRUNERS)

    def to_json(self) -> dict[str, Any]:
        """Plain data.

        Raises:
            InputError: a value that JSON does not know.
        """
        try:
            data: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"not plain data: {error}", field="tuning") from error
        return data


class Surplus(Exception):
    """Two workers began what one trial was missing; the later one steps back."""


def objective(
    trial: optuna.Trial, tuning: Tuning, trials: int, on_progress: Callable[[float], None] = lambda share: None
) -> float:
    """Mean return of the final evaluations of a trial.

    Raises:
        optuna.TrialPruned: a poor trial, or one whose training diverged (its attribute ``error`` says so).
        Surplus: the study has its trials already.
    """
    trial.set_user_attr("worker", this_worker())
    others = [other for other in trial.study.get_trials(deepcopy=False) if other.number != trial.number]
    before = [o for o in others if o.state == TrialState.RUNNING and o.number < trial.number]
    if len(before) + sum(other.state in FINISHED for other in others) >= trials:
        raise Surplus
    try:
        values = [train_once(trial, tuning, k, on_progress) for k in range(tuning.seeds)]
    except KeyboardInterrupt:
        retry(trial.study, trial.study.get_trials(deepcopy=False)[trial.number])
        raise
    return sum(values) / len(values)


def train_once(trial: optuna.Trial, tuning: Tuning, k: int, on_progress: Callable[[float], None]) -> float:
    """Train with the trial's hyper-parameters and seed number ``k``; the mean return of the final evaluation."""
    seed = tuning.seed + k
    env = make_env(tuning, seed)
    try:
        hyper = draw_hyper(trial, tuning, env)
        trial.set_user_attr("hyper", hyper)
        model = build_model(run_of(tuning, env, hyper, seed), env)
        callback = Evaluations(trial, tuning, k, on_progress)
        try:
            model.learn(tuning.steps, callback=callback)
            return callback.evaluate(tuning.evaluations)
        except (ValueError, FloatingPointError) as error:
            # torch.distributions refuses the NaN that a network with exploding weights gives.
            if isinstance(error, InputError) or "nan" not in str(error).lower():
                raise
            raise diverged(trial, error) from error
    finally:
        env.close()


class Evaluations(BaseCallback):
    """Evaluates at equal distances, reports to the trial, and ends it by an exception when it is pruned.

    Args:
        trial: The trial.
        tuning: What is tuned.
        k: Number of the training in the trial.
        on_progress: Called with the share of the trial that is done.
    """

    def __init__(self, trial: optuna.Trial, tuning: Tuning, k: int, on_progress: Callable[[float], None]) -> None:
        super().__init__()
        self.trial, self.tuning, self.number, self.on_progress = trial, tuning, k, on_progress
        self.done = 0

    def _on_step(self) -> bool:
        tuning, steps = self.tuning, min(self.num_timesteps, self.tuning.steps)
        self.on_progress((self.number + steps / tuning.steps) / tuning.seeds)
        due = steps * tuning.evaluations // tuning.steps
        if self.done < due < tuning.evaluations:  # the last one follows the training
            self.evaluate(due)
        return True

    def evaluate(self, point: int) -> float:
        """Mean return now; reported as evaluation number ``point`` of this training.

        Raises:
            optuna.TrialPruned: no better than half of the earlier trials, or not a number.
        """
        value = mean_return(self.model, self.tuning)
        if not math.isfinite(value):
            raise diverged(self.trial, ValueError(f"mean return {value}"))
        self.trial.report(value, self.number * self.tuning.evaluations + point)
        self.done = point
        last = point == self.tuning.evaluations and self.number == self.tuning.seeds - 1
        if not last and self.trial.should_prune():
            raise optuna.TrialPruned
        return value


def diverged(trial: optuna.Trial, error: Exception) -> optuna.TrialPruned:
    """A trial without a value: it counts as finished, as the worst."""
    text = " ".join(str(error).split())
    trial.set_user_attr("error", text)
    return optuna.TrialPruned(text)


def mean_return(model: BaseAlgorithm, tuning: Tuning) -> float:
    """Mean return of the evaluation episodes, whose seeds are the same for every trial.

    Raises:
        KeyboardInterrupt: Ctrl-C during the evaluation.
    """
    table = evaluate(
        model,
        tuning.env_id,
        n_episodes=tuning.episodes,
        seed=tuning.evaluation_seed,
        env_kwargs=build_targets({**tuning.env_kwargs, **tuning.eval_kwargs}),
    )
    if table["interrupted"].any():
        raise KeyboardInterrupt
    return float(table["return"].mean())


def make_env(tuning: Tuning, seed: int) -> VecEnv:
    """The training env."""
    env = make_training_env(tuning.env_id, tuning.n_envs, tuning.env_kwargs, seed)
    return env if tuning.normalize is None else VecNormalize(env, **tuning.normalize)


def run_of(tuning: Tuning, env: VecEnv, hyper: dict[str, Any], seed: int) -> TrainingRun:
    """The training run that these hyper-parameters make."""
    if isinstance(env, VecNormalize) and "gamma" not in (tuning.normalize or {}):
        env.gamma = hyper.get("gamma", env.gamma)
    return TrainingRun(
        algorithm=tuning.algorithm,
        env_id=tuning.env_id,
        steps=tuning.steps,
        n_envs=tuning.n_envs,
        env_kwargs=tuning.env_kwargs,
        hyper=hyper,
        policy=tuning.policy or default_policy(env.observation_space, registry.algorithm(tuning.algorithm)),
        seed=seed,
        device=tuning.device,
    )


def draw_hyper(trial: optuna.Trial, tuning: Tuning, env: VecEnv) -> dict[str, Any]:
    """Hyper-parameters of a trial: the search space's, overridden by the fixed ones."""
    action_space = env.action_space
    n_actions = int(action_space.shape[0]) if isinstance(action_space, spaces.Box) else 0
    space = find_space(tuning.algorithm, tuning.space)
    hyper = space(trial, Setting(tuning.n_envs, tuning.steps, n_actions, tuning.policy))
    return merge(hyper, tuning.hyper)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``, mapping by mapping.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4})
    {'a': {'b': 3, 'c': 2}, 'd': 4}
    """
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if both else value
    return out
