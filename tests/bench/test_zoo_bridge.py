"""rl-zoo3: our environments and algorithms train under it, and it reads what ``orl tune`` writes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("rl_zoo3")

import numpy as np
import yaml
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from orl.bench import zoo_bridge
from orl.bench.tuning import Tuning, tune
from orl.bench.zoo_export import write_zoo_file, zoo_entry
from orl.bench.zoo_files import read_zoo_file

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "rl_zoo3.md"
COMMANDS = [
    shlex.split(text.replace("\\\n", " "))
    for text in re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
]
PLAIN, BRIDGED, TUNED, GENERATED = COMMANDS
SHORT = {"--n-timesteps": "128", "--eval-freq": "64"}


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch):
    """rl-zoo3 as it was, after the test."""
    import rl_zoo3.exp_manager as manager

    monkeypatch.setattr(manager, "EvalCallback", manager.EvalCallback)
    before = dict(manager.ALGOS)
    yield
    manager.ALGOS.clear()
    manager.ALGOS.update(before)


def train_as_in(command: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Run a command of the guide in this process, with fewer steps."""
    assert command[:2] == ["python", "-m"]
    arguments = [SHORT.get(before, word) for before, word in pairwise(command[2:])]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [command[2], *arguments, "--device", "cpu", "--seed", "1", *more])
    if command[2] == "orl.bench.zoo_bridge":
        zoo_bridge.main()
    else:
        from rl_zoo3.train import train

        assert command[2] == "rl_zoo3.train"
        train()


@pytest.mark.filterwarnings("ignore:the policy made illegal actions")
def test_the_command_of_the_guide_trains_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_as_in(PLAIN, tmp_path, monkeypatch, "--hyperparams", "n_steps:64", "batch_size:64")
    run = tmp_path / "logs" / "ppo" / "orl-JobShop-v0_1"
    model = PPO.load(run / "orl-JobShop-v0.zip", device="cpu")
    assert model.num_timesteps == 128
    assert model.observation_space.shape == (54,)  # the compact observation of ft06
    evaluations = np.load(run / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [64, 128]
    assert -5 < evaluations["results"].mean() < 0


def test_our_algorithms_train_there_with_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The env raises on illegal actions, in the evaluations too.
    train_as_in(BRIDGED, tmp_path, monkeypatch, "--hyperparams", "n_steps:64", "batch_size:64")
    run = tmp_path / "logs" / "maskable-ppo" / "orl-JobShop-v0_1"
    assert MaskablePPO.load(run / "orl-JobShop-v0.zip", device="cpu").num_timesteps == 128
    assert np.load(run / "evaluations.npz")["timesteps"].tolist() == [64, 128]


def test_registering_adds_what_is_missing_and_only_that() -> None:
    from rl_zoo3.utils import ALGOS

    before = dict(ALGOS)
    added = zoo_bridge.register_algorithms()
    assert "maskable-ppo" in added
    assert not {"ppo", "qr-dqn", "cross-q", "recurrent-ppo"} & set(added)  # there under rl-zoo3's names
    assert {key: ALGOS[key] for key in before} == before
    assert set(ALGOS) == set(before) | set(added)
    assert zoo_bridge.register_algorithms() == []


def test_rl_zoo3_trains_with_what_tuning_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = Tuning("ppo", "CartPole-v1", steps=64, n_envs=2, episodes=1, evaluations=1)
    result = tune(tuning, tmp_path, trials=1)
    train_as_in(TUNED, tmp_path, monkeypatch)
    model = PPO.load(tmp_path / "logs" / "ppo" / "CartPole-v1_1" / "CartPole-v1.zip", device="cpu")
    assert model.n_steps == result.best_hyper["n_steps"]
    assert model.gamma == result.best_hyper["gamma"]
    assert model.policy_kwargs["net_arch"] == result.best_hyper["policy_kwargs"]["net_arch"]
    assert model.policy_kwargs["activation_fn"].__name__.lower() in ("tanh", "relu", "elu")
    assert model.n_envs == 2


@pytest.mark.parametrize(
    "entry",
    [
        {"n_timesteps": 1000, "n_envs": 4, "policy": "orl.policies.set_policy:SetPolicy", "learning_rate": 3e-5},
        {"normalize": {"gamma": 0.9}, "env_kwargs": {"instance": "ft06"}, "batch_size": 64},
        {"policy_kwargs": {"net_arch": {"pi": [64], "vf": [64]}, "activation_fn": {"object": "torch.nn:ELU"}}},
        {"policy_kwargs": {"width": 16}, "gamma": 1.0},
        {"env_kwargs": {"instance": {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 3}}},
    ],
)
def test_entries_come_back_as_they_were(tmp_path: Path, entry: dict) -> None:
    path = tmp_path / "best.yaml"
    write_zoo_file(path, "orl/JobShop-v0", entry, heading="two\nlines")
    assert path.read_text().startswith("# two lines\n")
    fields = read_zoo_file(path, "orl/JobShop-v0")
    flat = {"n_timesteps": fields.get("budget", {}).get("steps"), **fields["hyper"]}
    flat |= {key: fields.get(key) for key in ("n_envs", "policy", "normalize", "env_kwargs")}
    assert {key: value for key, value in flat.items() if value is not None} == entry


def test_numbers_are_numbers_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    write_zoo_file(path, "X-v0", {"learning_rate": 1e-5, "normalize": {}})
    assert yaml.safe_load(path.read_text()) == {"X-v0": {"learning_rate": 1e-5, "normalize": True}}


def test_noise_is_spelt_as_rl_zoo3_does() -> None:
    noise = {"target": "stable_baselines3.common.noise:NormalActionNoise", "mean": [0.0, 0.0], "sigma": [0.1, 0.1]}
    assert zoo_entry({"action_noise": noise}) == {"noise_type": "normal", "noise_std": 0.1}
    uneven = noise | {"sigma": [0.1, 0.2]}
    assert zoo_entry({"action_noise": uneven}) == {"action_noise": uneven}


@pytest.mark.slow
@pytest.mark.parametrize("hook", [False, True])
def test_commands_run_as_processes(tmp_path: Path, hook: bool) -> None:
    short = [SHORT.get(before, word) for before, word in pairwise(BRIDGED[2:])]
    module = "rl_zoo3.train" if hook else "orl.bench.zoo_bridge"
    more = ["--gym-packages", "orl"] if hook else []
    if hook:
        lines = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        (tmp_path / "custom_envs.py").write_text(lines[0])
    command = [sys.executable, "-m", module, *short, "--hyperparams", "n_steps:64", "batch_size:64", *more]
    subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert (tmp_path / "logs" / "maskable-ppo" / "orl-JobShop-v0_1" / "orl-JobShop-v0.zip").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the policy made illegal actions")
def test_generated_instances_are_given_as_expressions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_as_in(GENERATED, tmp_path, monkeypatch, "--hyperparams", "n_steps:64", "batch_size:64")
    model = PPO.load(tmp_path / "logs" / "ppo" / "orl-JobShop-v0_1" / "orl-JobShop-v0.zip", device="cpu")
    assert model.action_space.n == 5
