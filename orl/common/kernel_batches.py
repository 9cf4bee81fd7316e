"""The kernel batches behind an env: where policies that need more than the observation read the state."""

from __future__ import annotations

from typing import Any

from orl.common.errors import InputError


def kernel_batches(env: Any, expected: str) -> tuple[list[Any], bool]:
    """The attributes ``batch`` of the native envs behind an env, and whether the env is a single one.

    A native env, wrapped or not, has one batch; SB3's DummyVecEnv, LeanVecEnv and Gymnasium's SyncVectorEnv have one a
    copy.

    Args:
        env: Single env, Gymnasium VectorEnv or SB3 VecEnv, with any wrappers.
        expected: Which envs will do, for the message.

    Raises:
        InputError: No layer has a batch.

    >>> import gymnasium
    >>> batches, single = kernel_batches(gymnasium.make("orl:orl/LotSizing-v0"), "a lot-sizing env")
    >>> len(batches), batches[0].inventory.shape, single
    (1, (1, 4), True)
    """
    layer = env
    while True:
        if hasattr(layer, "batch"):
            return [layer.batch], not hasattr(layer, "num_envs")
        if hasattr(layer, "envs"):
            return [batch for single in layer.envs for batch in kernel_batches(single, expected)[0]], False
        layer = getattr(layer, "venv", None) or getattr(layer, "env", None)
        if layer is None:
            raise InputError("not an environment of this domain", field="env", value=env, expected=expected)
