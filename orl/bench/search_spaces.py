"""Search spaces of hyper-parameters: those of the SB3 and sb3-contrib algorithms, and spaces that users write as data.

A search space is a function ``(trial, setting) -> hyper-parameters``: it draws values from an Optuna trial and returns
keyword arguments of the algorithm as plain data (``{"object": "module:name"}`` stands for an imported object,
``{"target": "module:name", ...}`` for a call of it, see :func:`orl.targets.build_targets`). The registry names the
function of each algorithm (``Entry.search_space``), so that an algorithm's own package can hold its space.

Rules of the spaces here: every draw is valid whatever the other draws are; the same names are drawn in every trial, so
that Optuna can model them together; ranges hold the published default of the algorithm, and lie about it on a
logarithmic scale where only the order of magnitude matters. A discount near one is drawn as its distance to one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orl import registry
from orl.bench import yaml_lines
from orl.bench.yaml_lines import Document
from orl.common.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    import optuna

Hyper = dict[str, Any]
SearchSpace = Callable[["optuna.Trial", "Setting"], Hyper]

RANGE_KEYS = ("low", "high", "log", "step")
NETWORKS = {"64x64": [64, 64], "128x128": [128, 128], "256x256": [256, 256]}
LARGE_NETWORKS = {**NETWORKS, "400x300": [400, 300]}
ACTIVATIONS = {"tanh": "torch.nn:Tanh", "relu": "torch.nn:ReLU", "elu": "torch.nn:ELU"}
FEWEST_UPDATES = 4
"""Rollouts that a training must have room for; longer rollouts are not drawn."""


@dataclass(frozen=True)
class Setting:
    """What a space may depend on; the same for all trials of a study.

    Attributes:
        n_envs: Parallel copies of the environment.
        steps: Training steps of a trial, over all copies.
        n_actions: Components of a continuous action, 0 for other action spaces.
        policy: ``--policy`` as the user gave it, None for SB3's own networks.
    """

    n_envs: int = 1
    steps: int = 100_000
    n_actions: int = 0
    policy: str | None = None

    @property
    def own_policy(self) -> bool:
        """Whether the policy is not one of SB3's, so that nothing is known of its ``policy_kwargs``."""
        return self.policy is not None and (self.policy == "set" or ":" in self.policy)


def find_space(algorithm: str, given: str | Mapping[str, Any] | None = None) -> SearchSpace:
    """The search space that was given, as ``module:function`` or as data, or that of the registry.

    Raises:
        UnknownNameError: no such algorithm.
        InputError: the algorithm has none, or the given one is none.
    """
    if isinstance(given, Mapping):
        check_space(given)
        return lambda trial, setting: draw(trial, given)
    target = given if given is not None else registry.algorithm_entry(algorithm).search_space
    if target is None:
        known = [entry.key for entry in registry.algorithms() if entry.search_space is not None]
        expected = f"--space FILE, or one of {', '.join(known)}"
        raise InputError("has no search space", field="algorithm", value=algorithm, expected=expected)
    try:
        space: SearchSpace = registry.resolve(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError("cannot be imported", field="space", value=target, expected="module:function") from error
    return space


# ---- spaces written as data ----------------------------------------------------------------------------------------
def read_space(path: Path) -> dict[str, Any]:
    """A search space from a YAML file: a mapping of hyper-parameters to ranges, lists of choices, or fixed values.

    ::

        learning_rate: {low: 1e-5, high: 1e-2, log: true}
        n_steps: [32, 64, 128]
        n_epochs: {low: 1, high: 20}              # whole numbers, because both ends are
        policy_kwargs.net_arch: [[64, 64], [256, 256]]
        gae_lambda: 0.95

    Numbers are those of YAML 1.2, as in sweep files.

    Raises:
        InputError: it cannot be read, or is no such file; names the line.
    """
    document = yaml_lines.read(path, expected="a mapping of hyper-parameters")
    for error in document.errors:
        raise error
    data = document.data
    if not isinstance(data, dict):
        raise document.error((), "no search space", value=data, expected="a mapping of hyper-parameters")
    check_space(data, document)
    return data


def check_space(space: Mapping[str, Any], document: Document | None = None) -> None:
    """Raise InputError unless ``space`` is a search space as data (:func:`read_space`) with something to draw.

    Args:
        space: To check.
        document: The file it comes from, for messages.
    """
    source = None if document is None else document.source
    searched = 0
    for name, spec in space.items():
        line = None if document is None else document.line((name,))
        if isinstance(spec, list):
            if len({json.dumps(choice, sort_keys=True, default=str) for choice in spec}) != len(spec) or not spec:
                expected = "different choices"
                raise InputError("bad choices", source=source, line=line, field=name, value=spec, expected=expected)
            searched += 1
        elif _is_range(spec):
            problem, expected = _refusal(spec)
            if problem:
                raise InputError(problem, source=source, line=line, field=name, value=dict(spec), expected=expected)
            searched += 1
    if not searched:
        raise InputError("nothing to search", source=source, field="space", expected="a range or a list of choices")


def draw(trial: optuna.Trial, space: Mapping[str, Any]) -> Hyper:
    """Draw hyper-parameters from a space written as data; dotted names give nested mappings.

    >>> import optuna
    >>> trial = optuna.trial.FixedTrial({"lr": 0.1, "policy_kwargs.net_arch": "[64, 64]"})
    >>> draw(trial, {"lr": {"low": 0.1, "high": 1.0}, "policy_kwargs.net_arch": [[64, 64], [8]], "gamma": 1})
    {'lr': 0.1, 'policy_kwargs': {'net_arch': [64, 64]}, 'gamma': 1}
    """
    out: Hyper = {}
    for name, spec in space.items():
        *path, last = name.split(".")
        inner = out
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = _draw_one(trial, name, spec)
    return out


def _draw_one(trial: optuna.Trial, name: str, spec: Any) -> Any:
    if isinstance(spec, list):
        # Optuna stores numbers, texts and truth values; other choices go by their JSON.
        choices = {c if _is_plain(c) else json.dumps(c): c for c in spec}
        return choices[trial.suggest_categorical(name, list(choices))]
    if not _is_range(spec):
        return spec
    low, high, log, step = spec["low"], spec["high"], spec.get("log", False), spec.get("step")
    if isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
        return trial.suggest_int(name, low, high, log=log, step=step or 1)
    return trial.suggest_float(name, float(low), float(high), log=log, step=step)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _is_range(spec: Any) -> bool:
    return isinstance(spec, Mapping) and ("low" in spec or "high" in spec)


def _refusal(spec: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong with a range, and what was expected; empty if nothing is."""
    for key in spec:
        if key not in RANGE_KEYS:
            return f"unknown key {key!r} in a range", UnknownNameError("key", str(key), RANGE_KEYS).expected or ""
    low, high, step, log = (
        spec.get(key, default) for key, default in (("low", None), ("high", None), ("step", 1), ("log", False))
    )
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high, step))
    good = numbers and low <= high and step > 0 and isinstance(log, bool) and not (log and (low <= 0 or "step" in spec))
    return ("", "") if good else ("bad range", "low <= high, log (then low > 0) or step")


# ---- what the algorithms share -------------------------------------------------------------------------------------
def _learning_rate(trial: optuna.Trial, low: float = 1e-5, high: float = 1e-2) -> float:
    return trial.suggest_float("learning_rate", low, high, log=True)


def _one_minus(trial: optuna.Trial, name: str, low: float, high: float) -> float:
    return 1.0 - trial.suggest_float(f"one_minus_{name}", low, high, log=True)


def _gamma(trial: optuna.Trial) -> float:
    return _one_minus(trial, "gamma", 1e-4, 0.1)


def _max_grad_norm(trial: optuna.Trial) -> float:
    return trial.suggest_float("max_grad_norm", 0.3, 10.0, log=True)


def _networks(trial: optuna.Trial, setting: Setting, networks: Mapping[str, list[int]], **further: Any) -> Hyper:
    """``policy_kwargs`` with layers and activation; of a policy that is not SB3's nothing is searched."""
    if setting.own_policy:
        return {"policy_kwargs": further} if further else {}
    layers = networks[trial.suggest_categorical("net_arch", list(networks))]
    activation = ACTIVATIONS[trial.suggest_categorical("activation", list(ACTIVATIONS))]
    return {"policy_kwargs": {"net_arch": list(layers), "activation_fn": {"object": activation}, **further}}


def _rollout(trial: optuna.Trial, setting: Setting) -> tuple[int, int]:
    """Steps a copy, a power of two, and a batch size of at least 16 that divides the rollout."""
    most = max(setting.steps // (FEWEST_UPDATES * setting.n_envs), 32)
    sizes = [size for size in (32, 64, 128, 256, 512, 1024, 2048) if size <= most]
    n_steps = trial.suggest_categorical("n_steps", sizes)
    minibatches = trial.suggest_categorical("minibatches", [1, 2, 4, 8, 16])
    return n_steps, max(n_steps * setting.n_envs // minibatches, 16)


def _replay(trial: optuna.Trial, setting: Setting, batch_sizes: list[int]) -> Hyper:
    """Replay buffer, warm-up and the ratio of updates to steps of an off-policy algorithm."""
    buffers = [size for size in (10_000, 100_000, 1_000_000) if size <= setting.steps] or [10_000]
    starts = [start for start in (100, 1_000, 10_000) if start <= setting.steps // 10] or [max(setting.steps // 10, 1)]
    train_freq = trial.suggest_categorical("train_freq", [1, 4, 8, 16])
    steps_per_update = trial.suggest_categorical("steps_per_update", [1, 2, 4])
    return {
        "batch_size": trial.suggest_categorical("batch_size", batch_sizes),
        "buffer_size": trial.suggest_categorical("buffer_size", buffers),
        "learning_starts": trial.suggest_categorical("learning_starts", starts),
        "train_freq": train_freq,
        "gradient_steps": max(train_freq // steps_per_update, 1),
    }


def _noise(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Gaussian exploration noise of a deterministic policy."""
    std = trial.suggest_float("noise_std", 0.0, 0.5)
    n = setting.n_actions
    noise = {"target": "stable_baselines3.common.noise:NormalActionNoise", "mean": [0.0] * n, "sigma": [std] * n}
    return {"action_noise": noise}


# ---- on-policy -----------------------------------------------------------------------------------------------------
def ppo(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of PPO."""
    n_steps, batch_size = _rollout(trial, setting)
    return {
        "learning_rate": _learning_rate(trial),
        "n_steps": n_steps,
        "batch_size": batch_size,
        "n_epochs": trial.suggest_int("n_epochs", 1, 20, log=True),
        "gamma": _gamma(trial),
        "gae_lambda": _one_minus(trial, "gae_lambda", 1e-3, 0.2),
        "clip_range": trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3, 0.4]),
        "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        "vf_coef": trial.suggest_float("vf_coef", 0.1, 1.0),
        "max_grad_norm": _max_grad_norm(trial),
        **_networks(trial, setting, NETWORKS),
    }


def maskable_ppo(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of PPO with action masks: PPO's."""
    return ppo(trial, setting)


def recurrent_ppo(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of PPO with an LSTM."""
    hyper = ppo(trial, setting)
    if not setting.own_policy:
        hyper["policy_kwargs"] |= {
            "lstm_hidden_size": trial.suggest_categorical("lstm_hidden_size", [32, 64, 128, 256]),
            "enable_critic_lstm": trial.suggest_categorical("enable_critic_lstm", [False, True]),
        }
    return hyper


def a2c(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of A2C."""
    return {
        "learning_rate": _learning_rate(trial),
        "n_steps": trial.suggest_int("n_steps", 4, 128, log=True),
        "gamma": _gamma(trial),
        "gae_lambda": _one_minus(trial, "gae_lambda", 1e-3, 0.2),
        "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        "vf_coef": trial.suggest_float("vf_coef", 0.1, 1.0),
        "max_grad_norm": _max_grad_norm(trial),
        "use_rms_prop": trial.suggest_categorical("use_rms_prop", [True, False]),
        "normalize_advantage": trial.suggest_categorical("normalize_advantage", [False, True]),
        **_networks(trial, setting, NETWORKS),
    }


def trpo(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of TRPO; the learning rate is the critic's."""
    n_steps, batch_size = _rollout(trial, setting)
    return {
        "learning_rate": _learning_rate(trial),
        "n_steps": n_steps,
        "batch_size": batch_size,
        "n_critic_updates": trial.suggest_categorical("n_critic_updates", [5, 10, 20, 30]),
        "target_kl": trial.suggest_float("target_kl", 1e-3, 0.1, log=True),
        "cg_max_steps": trial.suggest_categorical("cg_max_steps", [5, 10, 15, 25]),
        "gamma": _gamma(trial),
        "gae_lambda": _one_minus(trial, "gae_lambda", 1e-3, 0.2),
        **_networks(trial, setting, NETWORKS),
    }


def ars(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of augmented random search; an update takes two episodes a direction."""
    n_delta = trial.suggest_categorical("n_delta", [4, 8, 16, 32])
    top_share = trial.suggest_categorical("top_share", [0.25, 0.5, 1.0])
    policy = {} if setting.own_policy or setting.policy == "LinearPolicy" else _networks(trial, setting, NETWORKS)
    return {
        "n_delta": n_delta,
        "n_top": int(n_delta * top_share),
        "learning_rate": _learning_rate(trial, 1e-3, 0.1),
        "delta_std": trial.suggest_float("delta_std", 0.01, 0.3, log=True),
        "zero_policy": trial.suggest_categorical("zero_policy", [True, False]),
        **policy,
    }


# ---- off-policy ----------------------------------------------------------------------------------------------------
def dqn(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of DQN."""
    return {
        "learning_rate": _learning_rate(trial),
        **_replay(trial, setting, [32, 64, 128, 256]),
        "gamma": _gamma(trial),
        "target_update_interval": trial.suggest_int("target_update_interval", 1, 10_000, log=True),
        "exploration_fraction": trial.suggest_float("exploration_fraction", 0.005, 0.5, log=True),
        "exploration_final_eps": trial.suggest_float("exploration_final_eps", 0.01, 0.2),
        **_networks(trial, setting, NETWORKS),
    }


def qr_dqn(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of quantile-regression DQN."""
    hyper = dqn(trial, setting)
    if not setting.own_policy:
        hyper["policy_kwargs"] |= {"n_quantiles": trial.suggest_int("n_quantiles", 5, 200, log=True)}
    return hyper


def _actor_critic(trial: optuna.Trial, setting: Setting) -> Hyper:
    return {
        "learning_rate": _learning_rate(trial),
        **_replay(trial, setting, [64, 128, 256, 512]),
        "gamma": _gamma(trial),
        **_networks(trial, setting, LARGE_NETWORKS),
    }


def _tau(trial: optuna.Trial) -> float:
    return trial.suggest_float("tau", 1e-3, 0.1, log=True)


def sac(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of SAC; the entropy coefficient is SAC's own to learn."""
    return _actor_critic(trial, setting) | {"tau": _tau(trial)}


def td3(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of TD3."""
    return ddpg(trial, setting) | {
        "policy_delay": trial.suggest_int("policy_delay", 1, 4),
        "target_policy_noise": trial.suggest_float("target_policy_noise", 0.05, 0.5),
    }


def ddpg(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of DDPG."""
    return _actor_critic(trial, setting) | {"tau": _tau(trial)} | _noise(trial, setting)


def tqc(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of TQC; fewer quantiles are dropped than there are."""
    hyper = sac(trial, setting) | {
        "top_quantiles_to_drop_per_net": trial.suggest_int("top_quantiles_to_drop_per_net", 0, 8)
    }
    if not setting.own_policy:
        hyper["policy_kwargs"] |= {"n_quantiles": trial.suggest_int("n_quantiles", 10, 50)}
    return hyper


def cross_q(trial: optuna.Trial, setting: Setting) -> Hyper:
    """Search space of CrossQ, which has no target networks."""
    return _actor_critic(trial, setting) | {"policy_delay": trial.suggest_int("policy_delay", 1, 4)}
