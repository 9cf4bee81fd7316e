"""SB3's off-policy algorithms and the fast classes side by side, from the same seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from orl.fast.lean_vec_env import LeanVecEnv

TOLERANCE = 1e-5
SMALL: Mapping[str, Any] = {
    "device": "cpu",
    "seed": 0,
    "batch_size": 16,
    "buffer_size": 200,
    "learning_starts": 20,
    "learning_rate": 1e-3,
    "policy_kwargs": {"net_arch": [16, 16]},
}


def small(**arguments: Any) -> dict[str, Any]:
    """Arguments of a small model; a copy, for SB3 writes into ``policy_kwargs``."""
    return copy.deepcopy({**SMALL, **arguments})


def copies(n: int, env: Callable[[], gymnasium.Env]) -> Callable[[type[DummyVecEnv]], VecEnv]:
    return lambda vec_env: VecMonitor(vec_env([env] * n))


def distance(a: Any, b: Any) -> float:
    """Largest difference in any parameter, target, optimiser moment or temperature, relative where numbers exceed 1."""
    first, second = a.get_parameters(), b.get_parameters()
    assert first.keys() == second.keys()
    gaps = [0.0]
    for name, part in first.items():
        if not name.endswith("optimizer"):
            assert part.keys() == second[name].keys()
            gaps += [_gap(part[key], second[name][key]) for key in part]
            continue
        ours, theirs = part["state"], second[name]["state"]
        assert ours.keys() == theirs.keys()
        for k, state in ours.items():
            assert state.keys() == theirs[k].keys()
            gaps += [_gap(state[key], theirs[k][key]) for key in state]
    if getattr(a, "log_ent_coef", None) is not None:
        gaps.append(_gap(a.log_ent_coef, b.log_ent_coef))
    return max(gaps)


def _gap(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max() / max(1.0, float(first.abs().max())))


def assert_same_logs(stock: Any, fast: Any) -> None:
    first, second = stock.logger.name_to_value, fast.logger.name_to_value
    assert first.keys() == second.keys()
    for key, value in first.items():
        if not key.startswith("time/"):
            assert second[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def assert_same_transitions(stock: Any, fast: Any) -> None:
    ours, theirs = fast.replay_buffer, stock.replay_buffer
    assert (ours.pos, ours.full) == (theirs.pos, theirs.full)
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        if not hasattr(theirs, name):
            continue
        expected, found = getattr(theirs, name), getattr(ours, name)
        parts = expected if isinstance(expected, dict) else {"": expected}
        for key, part in parts.items():
            other = found[key] if key else found
            assert other.dtype == part.dtype
            np.testing.assert_allclose(other, part, rtol=1e-4, atol=1e-5, err_msg=name)


def learn_both(
    stock: Any, fast: Any, policy: str, make_env: Callable[[type[DummyVecEnv]], VecEnv], **arguments: Any
) -> tuple[Any, Any]:
    steps = arguments.pop("total_timesteps", 80)
    models = []
    for algorithm, vec_env, extra in ((stock, DummyVecEnv, {}), (fast, LeanVecEnv, {"engine": "fast"})):
        model = algorithm(policy, make_env(vec_env), **small(**arguments, **extra))
        model.learn(steps)
        models.append(model)
    a, b = models
    assert a.num_timesteps == b.num_timesteps
    assert a._n_updates == b._n_updates > 0
    assert a._episode_num == b._episode_num
    assert distance(a, b) < TOLERANCE
    assert_same_transitions(a, b)
    assert_same_logs(a, b)
    ours, theirs = ([(e["r"], e["l"]) for e in model.ep_info_buffer] for model in (b, a))
    np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=1e-4)
    return a, b
