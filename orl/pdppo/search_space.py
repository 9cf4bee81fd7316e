"""Search space of PDPPO for hyper-parameter tuning.

A space is a function ``(trial, setting) -> keyword arguments`` that the registry names: ``trial`` is an Optuna trial,
``setting`` tells ``steps`` and ``n_envs`` of the training and whether the user chose an ``own_policy``. Every draw is
valid whatever the others are, and the same names are drawn in every trial. ``n_exogenous_samples`` is not drawn: it
sets how often the environment's model is asked, which is the user's to choose.
"""

from __future__ import annotations

from typing import Any

LAYERS = {"64x64": [64, 64], "128x128": [128, 128], "256x256": [256, 256]}
ACTIVATIONS = {"tanh": "torch.nn:Tanh", "relu": "torch.nn:ReLU"}
FEWEST_UPDATES = 4
"""Rollouts that a training must have room for."""


def pdppo(trial: Any, setting: Any) -> dict[str, Any]:
    """Search space of PDPPO on an environment with post-decision data."""
    most = max(setting.steps // (FEWEST_UPDATES * setting.n_envs), 32)
    n_steps = trial.suggest_categorical("n_steps", [n for n in (32, 64, 128, 256, 512, 1024, 2048) if n <= most])
    minibatches = trial.suggest_categorical("minibatches", [2, 4, 8, 16])
    hyper = {
        "advantage": trial.suggest_categorical("advantage", ["interleaved", "max_full"]),
        "stochastic_lambda": trial.suggest_float("stochastic_lambda", 0.5, 1.0),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "post_learning_rate": trial.suggest_float("post_learning_rate", 1e-4, 1e-2, log=True),
        "n_steps": n_steps,
        "batch_size": n_steps * setting.n_envs // minibatches,
        "n_epochs": trial.suggest_int("n_epochs", 1, 20, log=True),
        "gamma": 1.0 - trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True),
        "gae_lambda": 1.0 - trial.suggest_float("one_minus_gae_lambda", 1e-3, 0.2, log=True),
        "clip_range": trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3, 0.4]),
        "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        "vf_coef": trial.suggest_float("vf_coef", 0.2, 1.0),
        "max_grad_norm": trial.suggest_float("max_grad_norm", 0.3, 10.0, log=True),
    }
    if setting.own_policy:
        return hyper
    layers = LAYERS[trial.suggest_categorical("net_arch", list(LAYERS))]
    activation = ACTIVATIONS[trial.suggest_categorical("activation", list(ACTIVATIONS))]
    return {**hyper, "policy_kwargs": {"net_arch": list(layers), "activation_fn": {"object": activation}}}
