"""Search spaces of the MDPO algorithms for hyper-parameter tuning.

A space is a function ``(trial, setting) -> keyword arguments`` that the registry names: ``trial`` is an Optuna trial,
``setting`` tells ``steps`` and ``n_envs`` of the training and whether the user chose an ``own_policy``. Every draw is
valid whatever the others are, and the same names are drawn in every trial.
"""

from __future__ import annotations

from typing import Any

LAYERS = {"64x64": [64, 64], "128x128": [128, 128], "256x256": [256, 256]}
ACTIVATIONS = {"tanh": "torch.nn:Tanh", "relu": "torch.nn:ReLU"}
FEWEST_UPDATES = 4
"""Rollouts that a training must have room for."""


def mdpo(trial: Any, setting: Any) -> dict[str, Any]:
    """Search space of on-policy MDPO."""
    most = max(setting.steps // (FEWEST_UPDATES * setting.n_envs), 32)
    rollouts = [size for size in (32, 64, 128, 256, 512, 1024, 2048) if size <= most]
    n_steps = trial.suggest_categorical("n_steps", rollouts)
    minibatches = trial.suggest_categorical("vf_minibatches", [1, 4, 16])
    hyper = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "n_steps": n_steps,
        "n_policy_steps": trial.suggest_int("n_policy_steps", 2, 100, log=True),
        "step_size": trial.suggest_categorical("step_size", ["linear", 0.03, 0.1, 0.3, 1.0]),
        "vf_learning_rate": trial.suggest_float("vf_learning_rate", 1e-4, 1e-2, log=True),
        "vf_epochs": trial.suggest_int("vf_epochs", 1, 20, log=True),
        "vf_batch_size": n_steps * setting.n_envs // minibatches,
        "clip_range_vf": trial.suggest_categorical("clip_range_vf", [None, 0.2, 10.0]),
        "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        "gamma": 1.0 - trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True),
        "gae_lambda": 1.0 - trial.suggest_float("one_minus_gae_lambda", 1e-3, 0.2, log=True),
        "tsallis_q": trial.suggest_categorical("tsallis_q", [1.0, 1.4, 2.0]),
    }
    return hyper | _networks(trial, setting)


def off_policy_mdpo(trial: Any, setting: Any) -> dict[str, Any]:
    """Search space of off-policy MDPO."""
    starts = [start for start in (100, 1_000, 10_000) if start <= setting.steps // 10] or [max(setting.steps // 10, 1)]
    train_freq = trial.suggest_categorical("train_freq", [1, 4, 8, 16])
    steps_per_update = trial.suggest_categorical("steps_per_update", [1, 2, 4])
    hyper = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128, 256, 512]),
        "buffer_size": min(setting.steps, 1_000_000),
        "learning_starts": trial.suggest_categorical("learning_starts", starts),
        "train_freq": train_freq,
        "gradient_steps": max(train_freq // steps_per_update, 1),
        "gamma": 1.0 - trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True),
        "tau": trial.suggest_float("tau", 1e-3, 0.1, log=True),
        "ent_coef": trial.suggest_float("ent_coef", 1e-3, 1.0, log=True),
        "bregman_coef": trial.suggest_float("bregman_coef", 0.03, 3.0, log=True),
        "tsallis_q": trial.suggest_categorical("tsallis_q", [1.0, 1.4, 2.0]),
        "old_policy_interval": trial.suggest_categorical("old_policy_interval", [100, 300, 1000, 3000]),
        "critic_mode": trial.suggest_categorical("critic_mode", ["v", "q"]),
        "actor_q": trial.suggest_categorical("actor_q", ["q1", "min"]),
    }
    return hyper | _networks(trial, setting)


def _networks(trial: Any, setting: Any) -> dict[str, Any]:
    if setting.own_policy:
        return {}
    layers = LAYERS[trial.suggest_categorical("net_arch", list(LAYERS))]
    activation = ACTIVATIONS[trial.suggest_categorical("activation", list(ACTIVATIONS))]
    return {"policy_kwargs": {"net_arch": list(layers), "activation_fn": {"object": activation}}}
