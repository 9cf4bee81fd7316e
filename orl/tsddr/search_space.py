"""Search space of TSDDR for hyper-parameter tuning.

A space is a function ``(trial, setting) -> keyword arguments`` that the registry names: ``trial`` is an Optuna trial,
``setting`` tells the ``steps`` of the training and whether the user chose an ``own_policy``. Every draw is valid
whatever the others are, and the same names are drawn in every trial.
"""

from __future__ import annotations

from typing import Any

LAYERS = {"32": [32], "64": [64], "64x64": [64, 64], "128x128": [128, 128]}


def tsddr(trial: Any, setting: Any) -> dict[str, Any]:
    """Search space of TSDDR on an environment with a target model."""
    hyper: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
        "final_lr_share": trial.suggest_categorical("final_lr_share", [0.02, 0.1, 1.0]),
        "batch_size": trial.suggest_categorical("batch_size", [4, 8, 16, 32, 64]),
        "max_grad_norm": trial.suggest_categorical("max_grad_norm", [None, 1.0, 10.0]),
    }
    if setting.own_policy:
        return hyper
    layers = LAYERS[trial.suggest_categorical("net_arch", list(LAYERS))]
    return {**hyper, "policy_kwargs": {"net_arch": list(layers)}}
