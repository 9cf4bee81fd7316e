"""Search spaces: every draw builds a model; spaces as data; algorithms without one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from orl import registry
from orl.bench.search_spaces import Setting, check_space, draw, find_space, read_space
from orl.common.errors import InputError, UnknownNameError
from orl.training import TrainingRun, build_model

optuna = pytest.importorskip("optuna")

WITH_SPACE = [entry.key for entry in registry.algorithms() if entry.search_space is not None]
POLICIES = {"recurrent-ppo": "MlpLstmPolicy"}


@pytest.fixture(autouse=True)
def _quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def random_trials(n: int):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask() for _ in range(n)]


def suitable_env(key: str) -> str:
    """The first of two env ids whose actions the algorithm takes; one with a target model where it needs one."""
    if key == "tsddr":
        return "orl:orl/Hydrothermal-v0"
    env = make_vec_env("CartPole-v1")
    try:
        build_model(TrainingRun(key, "CartPole-v1", policy=POLICIES.get(key)), env)
    except InputError:
        return "Pendulum-v1"
    return "CartPole-v1"


def test_the_algorithms_of_sb3_and_contrib_have_a_space() -> None:
    assert {"ppo", "a2c", "dqn", "sac", "td3", "ddpg", "trpo", "ars", "tqc", "cross-q", "qr-dqn"} <= set(WITH_SPACE)
    assert {"maskable-ppo", "recurrent-ppo"} <= set(WITH_SPACE)


@pytest.mark.parametrize("key", WITH_SPACE)
def test_every_draw_builds_a_model_and_names_the_same_parameters(key: str) -> None:
    env_id, space, names = suitable_env(key), find_space(key), set()
    env = make_vec_env(env_id, 2)
    n_actions = 1 if env_id == "Pendulum-v1" else 0
    for trial in random_trials(50):
        hyper = space(trial, Setting(n_envs=2, steps=20_000, n_actions=n_actions))
        assert json.loads(json.dumps(hyper)) == hyper
        model = build_model(TrainingRun(key, env_id, n_envs=2, hyper=hyper, policy=POLICIES.get(key)), env)
        if "n_steps" in hyper and "batch_size" in hyper:
            assert hyper["n_steps"] * 2 % hyper["batch_size"] == 0
            assert hyper["n_steps"] * 2 <= 20_000 / 4
        assert 0.5 < hyper.get("gamma", 0.99) < 1
        assert model.num_timesteps == 0
        names.add(frozenset(trial.params))
    env.close()
    assert len(names) == 1  # conditional names would hide parameters from the sampler


@pytest.mark.parametrize("key", ["ppo", "dqn", "td3"])
@pytest.mark.parametrize("n_envs, steps", [(1, 50), (3, 5_000), (8, 1_000_000)])
def test_spaces_fit_short_and_long_trainings(key: str, n_envs: int, steps: int) -> None:
    for trial in random_trials(20):
        hyper = find_space(key)(trial, Setting(n_envs=n_envs, steps=steps, n_actions=3))
        assert hyper.get("batch_size", 16) >= 16
        assert key != "ppo" or hyper["n_steps"] * n_envs % hyper["batch_size"] == 0
        assert hyper.get("learning_starts", 0) <= steps
        if key == "td3":
            assert len(hyper["action_noise"]["sigma"]) == 3


def test_nothing_is_searched_in_policies_that_are_not_sb3s() -> None:
    [trial] = random_trials(1)
    assert "policy_kwargs" not in find_space("maskable-ppo")(trial, Setting(policy="set"))
    assert "net_arch" not in trial.params


def test_space_files_hold_ranges_choices_and_fixed_values(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "learning_rate: {low: 1e-5, high: 1e-2, log: true}\n"
        "n_epochs: {low: 2, high: 8, step: 2}\n"
        "n_steps: [32, 64]\n"
        "ent_coef: [1e-3, 0]\n"
        "policy_kwargs.net_arch: [[16], [32, 32]]\n"
        "policy_kwargs.activation_fn: {object: 'torch.nn:Tanh'}\n"
        "gamma: 1.0\n"
    )
    space = find_space("ppo", read_space(path))
    drawn = [space(trial, Setting()) for trial in random_trials(40)]
    rates = [d["learning_rate"] for d in drawn]
    assert 1e-5 <= min(rates) < 1e-4 < 1e-3 < max(rates) <= 1e-2
    assert {d["n_epochs"] for d in drawn} == {2, 4, 6, 8}
    assert {d["n_steps"] for d in drawn} == {32, 64}
    assert {d["ent_coef"] for d in drawn} == {0.001, 0}
    assert {str(d["policy_kwargs"]["net_arch"]) for d in drawn} == {"[16]", "[32, 32]"}
    assert all(d["gamma"] == 1.0 and d["policy_kwargs"]["activation_fn"]["object"] == "torch.nn:Tanh" for d in drawn)


@pytest.mark.parametrize(
    "text, names",
    [
        ("[1, 2]", ["mapping"]),
        ("a: {low: 1\n", ["line 2", "YAML"]),
        ("learning_rate: {low: 2, high: 1}", ["learning_rate", "low <= high"]),
        ("learning_rate: {low: 0, high: 1, log: true}", ["learning_rate", "low > 0"]),
        ("learning_rate: {low: small, high: 1}", ["learning_rate"]),
        ("learning_rate: {low: 1}", ["learning_rate"]),
        ("gamma: [0.9, 1]\nlearning_rate: {low: 1, high: 2, scale: log}", ["line 2, learning_rate", "scale"]),
        ("learning_rate: {low: 1, high: '2'}", ["line 1, learning_rate", "bad range"]),
        ("n_steps: []", ["n_steps", "choices"]),
        ("n_steps: [32, 32]", ["n_steps", "different"]),
        ("gamma: 0.9", ["nothing to search"]),
    ],
)
def test_bad_space_files_are_refused_with_the_name(tmp_path: Path, text: str, names: list[str]) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_space(path)
    assert all(name in str(caught.value) for name in names)


def test_algorithms_without_a_space_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = registry.Entry("bare", "stable_baselines3:PPO", "none")
    monkeypatch.setattr(registry, "_ALGORITHMS", (*registry._ALGORITHMS, bare))
    with pytest.raises(InputError, match="bare.*--space FILE"):
        find_space("bare")
    with pytest.raises(UnknownNameError, match="did you mean 'ppo'"):
        find_space("ppoo")
    with pytest.raises(InputError, match="module:function"):
        find_space("ppo", "orl.bench.search_spaces:nothing")


def test_ranges_of_whole_numbers_and_of_others() -> None:
    space = {"a": {"low": 1, "high": 3}, "b": {"low": 1, "high": 3.0}, "c": [None, True, "x"]}
    check_space(space)
    drawn = [draw(trial, space) for trial in random_trials(30)]
    assert {d["a"] for d in drawn} == {1, 2, 3}
    assert all(isinstance(d["b"], float) for d in drawn)
    assert len(np.unique([d["b"] for d in drawn])) == 30
    assert {d["c"] for d in drawn} == {None, True, "x"}
