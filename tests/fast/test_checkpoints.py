"""Saved models: SB3 and the fast classes read each other's and go on in the same way."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv
from toy_envs import BOX, MaskedToyEnv, ToyEnv

from orl.fast.ppo import FastMaskablePPO, FastPPO

SMALL = {"n_steps": 32, "batch_size": 16, "n_epochs": 3, "device": "cpu", "seed": 0}
PAIRS = [(PPO, FastPPO), (MaskablePPO, FastMaskablePPO)]


def make_env(algorithm: Any) -> DummyVecEnv:
    if issubclass(algorithm, MaskablePPO):
        return DummyVecEnv([lambda: MaskedToyEnv(BOX, spaces.Discrete(5))] * 2)
    return DummyVecEnv([lambda: ToyEnv(BOX, BOX)] * 2)


def go_on(algorithm: Any, path: Path) -> Any:
    model = algorithm.load(path, env=make_env(algorithm), device="cpu")
    model.set_random_seed(11)
    return model.learn(128, reset_num_timesteps=False)


def distance(a: Any, b: Any) -> float:
    first, second = a.get_parameters(), b.get_parameters()
    assert first["policy"].keys() == second["policy"].keys()
    gaps = [(first["policy"][k] - second["policy"][k]).abs().max().item() for k in first["policy"]]
    states = first["policy.optimizer"]["state"], second["policy.optimizer"]["state"]
    assert states[0].keys() == states[1].keys()
    for k, state in states[0].items():
        assert state.keys() == states[1][k].keys()
        gaps += [(state[name] - states[1][k][name]).abs().max().item() for name in state]
    return max(gaps)


@pytest.mark.parametrize("stock, fast", PAIRS)
@pytest.mark.parametrize("saved_by_fast", [False, True])
def test_both_load_a_checkpoint_and_continue_equal(stock: Any, fast: Any, saved_by_fast: bool, tmp_path: Path) -> None:
    writer = fast if saved_by_fast else stock
    saved = writer("MlpPolicy", make_env(writer), **SMALL).learn(128)
    path = tmp_path / "model.zip"
    saved.save(path)
    by_stock, by_fast = go_on(stock, path), go_on(fast, path)
    assert by_fast.engine_in_use == "fast"
    assert by_stock.num_timesteps == by_fast.num_timesteps == 256
    assert distance(by_stock, by_fast) < 1e-5
    obs = np.stack([BOX.sample() for _ in range(4)])
    np.testing.assert_allclose(
        by_stock.predict(obs, deterministic=True)[0], by_fast.predict(obs, deterministic=True)[0], atol=1e-5
    )


@pytest.mark.parametrize("fast", [FastPPO, FastMaskablePPO])
def test_saving_and_loading_in_the_middle_changes_nothing(fast: Any, tmp_path: Path) -> None:
    env = make_env(fast)
    whole = fast("MlpPolicy", env, **SMALL).learn(64)
    whole.save(tmp_path / "model.zip")
    before = {name: value.clone() for name, value in whole.policy.state_dict().items()}
    halves = fast.load(tmp_path / "model.zip", device="cpu")
    assert all(bool((value == before[name]).all()) for name, value in halves.policy.state_dict().items())
    halves.set_env(make_env(fast))
    for model in (whole, halves):
        model.set_random_seed(5)
        model._last_obs = None
        set_random_seed(5)
        model.learn(128, reset_num_timesteps=False)
    assert distance(whole, halves) == 0.0


@pytest.mark.slow  # a fresh process imports torch
def test_plain_sb3_loads_the_zips_where_orl_is_not_installed(tmp_path: Path) -> None:
    for fast in (FastPPO, FastMaskablePPO):
        fast("MlpPolicy", make_env(fast), **SMALL).learn(64).save(tmp_path / f"{fast.__name__}.zip")
    script = (
        "import sys; sys.modules['orl'] = None\n"
        "from stable_baselines3 import PPO\nfrom sb3_contrib import MaskablePPO\nimport torch\n"
        f"a = PPO.load({str(tmp_path / 'FastPPO.zip')!r})\n"
        f"b = MaskablePPO.load({str(tmp_path / 'FastMaskablePPO.zip')!r})\n"
        "for m in (a, b):\n"
        "    assert type(m.policy).__module__.startswith(('stable_baselines3', 'sb3_contrib'))\n"
        "    assert type(m.policy.optimizer) is torch.optim.Adam and len(m.policy.optimizer.state) > 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
