"""rl-zoo3 with the algorithms of orl's registry: ``python -m orl.bench.zoo_bridge`` is its ``train`` with more names.

The environments need no bridge: ``python -m rl_zoo3.train --gym-packages orl --env orl/JobShop-v0`` makes them. The
algorithms do, since rl-zoo3 fixes the choices of ``--algo`` before it imports those packages. Either run this module,
whose options are those of ``python -m rl_zoo3.train``, or let a module ``custom_envs``, which rl-zoo3 imports by itself
if it finds one on the path, call :func:`register_algorithms`.

rl-zoo3 looks for ``hyperparams/ALGO.yml`` of its own; for algorithms that it does not know, name a file with
``--conf-file``, or this module, whose :data:`hyperparams` hold the algorithms' own defaults.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.callbacks import EvalCallback

from orl import registry
from orl.common.errors import MissingExtraError

hyperparams = {"default": {"policy": "MlpPolicy", "n_timesteps": 100_000}}
"""What ``--conf-file orl.bench.zoo_bridge`` gives every environment."""


def register_algorithms() -> list[str]:
    """Add the algorithms of the registry that rl-zoo3 does not have to its ALGOS; the keys added, in order.

    rl-zoo3's own algorithms stay under its names (``qrdqn``, ``crossq``, ``ppo_lstm``). Algorithms whose extra is not
    installed are left out. Evaluations during training give the masks to algorithms that take them.

    Raises:
        MissingExtraError: rl-zoo3 is not installed.
    """
    try:
        manager: Any = importlib.import_module("rl_zoo3.exp_manager")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rl_zoo3":
            raise
        raise MissingExtraError("rl_zoo3", "zoo", "the bridge to rl-zoo3") from error
    algos: dict[str, Any] = manager.ALGOS  # one dictionary in all of rl-zoo3's modules
    added = []
    for entry in registry.algorithms():
        try:
            algorithm = entry.load()
        except MissingExtraError:
            continue
        if entry.key not in algos and algorithm not in algos.values():
            algos[entry.key] = algorithm
            added.append(entry.key)
    manager.EvalCallback = MaskAwareEvalCallback
    return added


class MaskAwareEvalCallback(MaskableEvalCallback):
    """Evaluation that gives an env's masks to models whose ``predict`` takes them, and is SB3's for all others."""

    def _init_callback(self) -> None:
        takes_masks = "action_masks" in inspect.signature(self.model.predict).parameters
        self.use_masking = takes_masks and is_masking_supported(self.eval_env)
        super()._init_callback()

    def _on_step(self) -> bool:
        evaluation: Any = MaskableEvalCallback if self.use_masking else EvalCallback
        return bool(evaluation._on_step(self))


def main() -> None:
    """rl-zoo3's ``train`` with orl's environments and algorithms."""
    registry.register_envs()
    register_algorithms()
    from rl_zoo3.train import train

    train()


if __name__ == "__main__":
    main()
