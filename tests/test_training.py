"""Training runs: saving, resuming, interruption, and errors in one line."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from orl import training
from orl.common.errors import InputError, UnknownNameError
from orl.training import TrainingRun, build_targets, load_policy, resolve_policy, train

CARTPOLE = {"algorithm": "ppo", "env_id": "CartPole-v1", "n_envs": 2, "hyper": {"n_steps": 64, "batch_size": 64}}
SMALL_SHOPS = {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 3, "n_machines": 3}


def test_a_run_leaves_a_model_and_what_is_needed_to_repeat_it(tmp_path: Path) -> None:
    run = TrainingRun(**CARTPOLE, steps=256, seed=7)
    first = train(run, tmp_path / "a")
    second = train(run, tmp_path / "b")
    saved = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (saved["algorithm"], saved["env_id"], saved["seed"], saved["steps_done"]) == ("ppo", "CartPole-v1", 7, 256)
    assert not first.interrupted
    for a, b in zip(first.model.policy.parameters(), second.model.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resuming_goes_on_from_the_saved_steps_and_only_with_the_same_run(tmp_path: Path) -> None:
    train(TrainingRun(**CARTPOLE, steps=256), tmp_path)
    with pytest.raises(InputError, match="--resume"):
        train(TrainingRun(**CARTPOLE, steps=512), tmp_path)
    result = train(TrainingRun(**CARTPOLE, steps=512), tmp_path, resume=True)
    assert result.steps == 512
    other = CARTPOLE | {"hyper": {"n_steps": 32, "batch_size": 64}}
    with pytest.raises(InputError, match="hyper"):
        train(TrainingRun(**other, steps=512), tmp_path, resume=True)
    with pytest.raises(InputError, match="nothing to resume"):
        train(TrainingRun(**CARTPOLE), tmp_path / "empty", resume=True)


def test_ctrl_c_saves_what_has_been_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = training.ProgressBar._on_step

    def press_ctrl_c(self: training.ProgressBar) -> bool:
        if self.model.num_timesteps >= 200:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(training.ProgressBar, "_on_step", press_ctrl_c)
    result = train(TrainingRun(**CARTPOLE, steps=100_000), tmp_path)
    assert result.interrupted
    assert json.loads((tmp_path / "config.json").read_text())["interrupted"] is True
    action, _ = load_policy(tmp_path).model.predict(np.zeros(4, np.float32), deterministic=True)
    assert action in (0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.zip"]


def test_masked_training_on_our_batch_with_evaluation_transfers_to_another_size(tmp_path: Path) -> None:
    run = TrainingRun(
        "maskable-ppo",
        "orl/JobShop-v0",
        steps=256,
        n_envs=4,
        env_kwargs={"observation": "compact", "instance": SMALL_SHOPS},
        hyper={"n_steps": 32, "batch_size": 64, "policy_kwargs": {"width": 16}},
        policy="set",
        eval_every=128,
        eval_episodes=4,
    )
    result = train(run, tmp_path)
    assert {path.name for path in result.files} == {"model.zip", "config.json", "best_model.zip"}
    learned = load_policy(tmp_path)
    import orl
    from orl.envs.job_shop.library import load

    kwargs = {key: value for key, value in learned.env_kwargs.items() if key != "instance"}
    table = orl.evaluate(learned.on, [load("ft06")], env_id=learned.env_id, env_kwargs=kwargs)
    assert table["checked"].all()
    with pytest.raises(InputError, match="spaces"):
        train(TrainingRun(**CARTPOLE, steps=64), tmp_path / "cart")
        orl.evaluate(load_policy(tmp_path / "cart").on, [load("ft06")], env_id="orl/JobShop-v0")


def test_seconds_end_training(tmp_path: Path) -> None:
    result = train(TrainingRun(**CARTPOLE, steps=10**9), tmp_path, seconds=0.5)
    assert 0 < result.steps < 10**9
    assert not result.interrupted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "ppoo"}, "did you mean 'ppo'"),
        ({"env_id": "CartPol-v1"}, "did you mean 'CartPole-v1'"),
        ({"hyper": {"n_step": 1}}, "did you mean 'n_steps'"),
        ({"hyper": {"batch_size": 1}}, "batch_size"),
        ({"env_kwargs": {"colour": 1}}, "colour"),
        ({"policy": "orl.policies.set_policy:Nothing"}, "policy"),
        ({"algorithm": "sac"}, "action spaces"),
        ({"env_id": "orl/JobShop-v0", "env_kwargs": {"instance": "ft66"}}, "ft06"),
        ({"env_id": "orl/JobShop-v0"}, "maskable-ppo, or --env-kwargs illegal=count"),
        ({"env_id": "orl:orl/JobShop-v0", "env_kwargs": {"illegal": "raise"}}, "maskable-ppo"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(TrainingRun(**(CARTPOLE | {"hyper": {}} | change), steps=64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="steps"):
        TrainingRun("ppo", "CartPole-v1", steps=0)


def test_targets_are_built_inside_lists_and_mappings() -> None:
    built = build_targets({"a": [{"target": "fractions:Fraction", "numerator": 3}], "b": 1})
    assert built == {"a": [3], "b": 1}
    with pytest.raises(InputError, match="cannot be imported"):
        build_targets({"target": "fractions:Nothing"})
    with pytest.raises(InputError, match="denominators"):
        build_targets({"target": "fractions:Fraction", "denominators": 3})


def test_an_object_is_the_imported_thing_itself() -> None:
    assert build_targets({"activation_fn": {"object": "torch.nn:ReLU"}}) == {"activation_fn": torch.nn.ReLU}
    assert build_targets({"target": "builtins:dict", "object": "a:b"}) == {"object": "a:b"}
    with pytest.raises(InputError, match=r"object: cannot be imported \(got 'torch.nn:ReLu'"):
        build_targets([{"object": "torch.nn:ReLu"}])


def test_the_policy_follows_the_observation_space() -> None:
    assert resolve_policy(None, spaces.Box(-1, 1, (3,))) == "MlpPolicy"
    assert resolve_policy(None, spaces.Dict({"a": spaces.Box(-1, 1, (3,))})) == "MultiInputPolicy"
    assert resolve_policy(None, spaces.Box(0, 255, (3, 64, 64), np.uint8)) == "CnnPolicy"
    assert resolve_policy("set", spaces.Box(-1, 1, (3,))).__name__ == "SetPolicy"


@pytest.mark.filterwarnings("ignore::orl.common.illegal_actions.UnmaskedPolicyWarning")
def test_an_algorithm_without_masks_trains_where_illegal_actions_are_replaced(tmp_path: Path) -> None:
    kwargs = {"illegal": "count", "observation": "compact"}
    run = TrainingRun("ppo", "orl/JobShop-v0", steps=64, n_envs=2, env_kwargs=kwargs, hyper=CARTPOLE["hyper"])
    assert train(run, tmp_path).steps >= 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 200_000, "recursion"),
        (" " * (training.LARGEST_CONFIG + 1), "too large"),
        ("{", "cannot be read"),
        ('{"schema": "orl.training/1", "algorithm": 5}', "algorithm: wrong type"),
        ('{"schema": "orl.training/1", "algorithm": "ppo", "env_id": ["x"]}', "env_id: wrong type"),
        ('{"schema": "orl.training/1", "algorithm": "ppo", "env_kwargs": 1}', "env_kwargs: wrong type"),
    ],
)
def test_a_bad_configuration_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "model.zip").write_bytes(b"")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_policy(tmp_path)
    assert "config.json" in str(caught.value)


def test_a_zip_that_is_no_model_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing to load")
    with pytest.raises(InputError, match="not a model of ppo"):
        load_policy(tmp_path, "ppo")
    run = TrainingRun(**CARTPOLE, steps=64)
    (tmp_path / "config.json").write_text(json.dumps({"schema": training.SCHEMA} | asdict(run)))
    with pytest.raises(InputError, match="not a model of ppo"):
        train(run, tmp_path, resume=True)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "model.zip"
    bad.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="algorithm"):
        load_policy(bad)
    with pytest.raises(InputError, match="model.zip"):
        load_policy(bad, "ppo")
    with pytest.raises(UnknownNameError):
        load_policy(bad, "ppoo")
