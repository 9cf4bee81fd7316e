"""Hyper-parameter files of rl-zoo3: read as they are, nothing run, nothing dropped in silence."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orl.bench import yaml_lines
from orl.bench.zoo_files import expression, plain_hyper, read_zoo_file, wrappers
from orl.common.errors import InputError

LINEAR = {"target": "stable_baselines3.common.utils:LinearSchedule", "end": 0.0, "end_fraction": 1.0}


def entry(folder: Path, text: str, env_id: str = "Env-v0", **kwargs: Any) -> dict[str, Any]:
    file = folder / "zoo.yml"
    file.write_text(text)
    return read_zoo_file(file, env_id, **kwargs)


def refusal(folder: Path, text: str, env_id: str = "Env-v0") -> str:
    with pytest.raises(InputError) as caught:
        entry(folder, text, env_id, n_actions=1)
    return str(caught.value).replace(f"{folder}/", "")


def shipped_files() -> list[Path]:
    spec = importlib.util.find_spec("rl_zoo3")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    return sorted(file for place in places for file in (Path(place) / "hyperparams").glob("*.yml"))


# ---- the files that rl-zoo3 ships ----------------------------------------------------------------------------------
@pytest.mark.skipif(not shipped_files(), reason="rl_zoo3 is not installed")
@pytest.mark.parametrize("file", shipped_files(), ids=lambda file: file.stem)
def test_every_entry_that_rl_zoo3_ships_is_read(file: Path) -> None:
    document = yaml_lines.read(file, expected="hyper-parameters")
    assert not document.errors
    for env_id, values in document.data.items():
        if "model_class" in values:  # her.yml: of before Stable-Baselines3 1.1, and unused since
            with pytest.raises(InputError, match="HER as it was before"):
                read_zoo_file(file, env_id, n_actions=2)
            continue
        fields = read_zoo_file(file, env_id, n_actions=2)
        json.dumps(fields, allow_nan=False)
        moved = {
            "n_timesteps",
            "policy",
            "n_envs",
            "normalize",
            "frame_stack",
            "env_wrapper",
            "noise_type",
            "noise_std",
        }
        expected = {key for key in values if key not in moved} | ({"action_noise"} if "noise_type" in values else set())
        assert set(fields["hyper"]) == expected
        assert fields["budget"]["steps"] == int(values["n_timesteps"])
        assert fields["policy"] == values["policy"]
        assert len(fields.get("wrappers", [])) == len(
            [values["env_wrapper"]] if isinstance(values.get("env_wrapper"), str) else values.get("env_wrapper", [])
        )


@pytest.mark.skipif(not shipped_files(), reason="rl_zoo3 is not installed")
def test_expressions_are_what_rl_zoo3_makes_of_them() -> None:
    """Against Python's own eval with the names that rl-zoo3 gives it, on every expression that it ships."""
    from stable_baselines3 import HerReplayBuffer
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
    from torch import nn

    from orl.targets import build_targets

    names = {"nn": nn, "HerReplayBuffer": HerReplayBuffer, "RMSpropTFLike": RMSpropTFLike}
    seen = set()
    for file in shipped_files():
        for values in yaml_lines.read(file, expected="hyper-parameters").data.values():
            for key in ("policy_kwargs", "normalize", "replay_buffer_class", "replay_buffer_kwargs"):
                if isinstance(values.get(key), str):
                    seen.add(values[key])
    assert len(seen) > 30
    for text in seen:
        assert build_targets(expression(text, "policy_kwargs")) == eval(text.strip(), names)  # noqa: S307


@pytest.mark.slow
@pytest.mark.skipif(not shipped_files(), reason="rl_zoo3 is not installed")
@pytest.mark.parametrize(
    ("name", "key", "env_id"),
    [
        ("ppo", "ppo", "MountainCarContinuous-v0"),
        ("a2c", "a2c", "Pendulum-v1"),
        ("td3", "td3", "Pendulum-v1"),
        ("ddpg", "ddpg", "Pendulum-v1"),
        ("dqn", "dqn", "CartPole-v1"),
        ("qrdqn", "qr-dqn", "Acrobot-v1"),
        ("ppo_lstm", "recurrent-ppo", "Acrobot-v1"),
        ("ars", "ars", "CartPole-v1"),
        ("tqc", "tqc", "Pendulum-v1"),
    ],
)
def test_what_is_read_builds_the_algorithm(tmp_path: Path, name: str, key: str, env_id: str) -> None:
    from orl.bench.description import read_sweep
    from orl.bench.execution import execute

    file = next(file for file in shipped_files() if file.stem == name)
    short = ", hyper: {n_steps: 16}" if key == "recurrent-ppo" else ""  # 16 environments of 256 steps take a minute
    text = (
        f"environments: [{env_id}]\nalgorithms: [{{algorithm: {key}, zoo: '{file}'{short}}}]\nbudget: {{steps: 200}}\n"
    )
    (tmp_path / "s.yaml").write_text(text + "evaluation: {episodes: 1}\n")
    [task] = read_sweep(tmp_path / "s.yaml").tasks
    assert execute(task, sweep="s", work=tmp_path / "work").record["steps"] >= 200


# ---- entries of our own --------------------------------------------------------------------------------------------
def test_an_entry_becomes_plain_data(tmp_path: Path) -> None:
    text = """
Env-v0:
  n_timesteps: !!float 2e5
  policy: 'package.module.Policy'
  n_envs: 8
  normalize: "dict(norm_obs=True, norm_reward=False)"
  frame_stack: 4
  env_wrapper:
    - package.wrappers.First
    - package.wrappers.Second:
        horizon: 2
  learning_rate: lin_3e-4
  clip_range: lin_0.1
  gamma: 0.98
  train_freq: [1, "episode"]
  policy_kwargs: "dict(log_std_init=-2, net_arch=dict(pi=[256, 2**6], vf=[]), activation_fn=nn.ReLU)"
  replay_buffer_class: HerReplayBuffer
  replay_buffer_kwargs: "dict(goal_selection_strategy='future', n_sampled_goal=4)"
"""
    assert entry(tmp_path, text) == {
        "budget": {"steps": 200_000},
        "policy": "package.module:Policy",
        "n_envs": 8,
        "normalize": {"norm_obs": True, "norm_reward": False},
        "frame_stack": 4,
        "wrappers": [{"target": "package.wrappers:First"}, {"target": "package.wrappers:Second", "horizon": 2}],
        "hyper": {
            "learning_rate": LINEAR | {"start": 3e-4},
            "clip_range": LINEAR | {"start": 0.1},
            "gamma": 0.98,
            "train_freq": {
                "target": "stable_baselines3.common.type_aliases:TrainFreq",
                "frequency": 1,
                "unit": {"target": "stable_baselines3.common.type_aliases:TrainFrequencyUnit", "value": "episode"},
            },
            "policy_kwargs": {
                "log_std_init": -2,
                "net_arch": {"pi": [256, 64], "vf": []},
                "activation_fn": {"object": "torch.nn:ReLU"},
            },
            "replay_buffer_class": {"object": "stable_baselines3:HerReplayBuffer"},
            "replay_buffer_kwargs": {"goal_selection_strategy": "future", "n_sampled_goal": 4},
        },
    }


def test_schedules_noise_and_frequencies_build_what_sb3_takes(tmp_path: Path) -> None:
    from stable_baselines3 import TD3

    from orl.targets import build_targets

    for kind, name in (("normal", "NormalActionNoise"), ("ornstein-uhlenbeck", "OrnsteinUhlenbeckActionNoise")):
        text = f"default: {{noise_type: {kind}, noise_std: 0.5, train_freq: [2, step], learning_rate: lin_1e-2}}"
        hyper = build_targets(entry(tmp_path, text, "Pendulum-v1")["hyper"])
        model = TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, **hyper)
        assert type(model.action_noise).__name__ == name
        assert model.action_noise is not None
        assert model.action_noise().shape == (1,)
        assert model.train_freq.frequency == 2  # type: ignore[union-attr]
        assert [model.lr_schedule(progress) for progress in (1.0, 0.5, 0.0)] == pytest.approx([0.01, 0.005, 0.0])


def test_noise_is_sized_by_the_actions_of_the_environment(tmp_path: Path) -> None:
    text = "default: {noise_type: normal, noise_std: 0.1}"
    noise = entry(tmp_path, text, "MountainCarContinuous-v0")["hyper"]["action_noise"]
    assert noise["mean"] == {"target": "numpy:zeros", "shape": 1}
    assert "noise needs actions that are vectors" in str(_error(lambda: entry(tmp_path, text, "CartPole-v1")))
    assert "cannot be made" in str(_error(lambda: entry(tmp_path, text, "NoSuchEnv-v0")))


def _error(call: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("env_id", "steps"),
    [("Env-v0", 1), ("orl:Env-v0", 1), ("ALE/Pong-v5", 2), ("PongNoFrameskip-v4", 2), ("Other-v0", 3)],
)
def test_missing_ids_take_the_entry_atari_or_default(tmp_path: Path, env_id: str, steps: int) -> None:
    text = "Env-v0: {n_timesteps: 1}\natari: {n_timesteps: 2}\ndefault: {n_timesteps: 3}\n"
    assert entry(tmp_path, text, env_id)["budget"]["steps"] == steps


def test_anchors_and_merges_are_followed(tmp_path: Path) -> None:
    text = "A-v0: &defaults\n  n_timesteps: 5\n  gamma: 0.9\nEnv-v0:\n  <<: *defaults\n  gamma: 0.8\n"
    assert entry(tmp_path, text) == {"budget": {"steps": 5}, "hyper": {"gamma": 0.8}}


@pytest.mark.parametrize(
    ("value", "normalize"),
    [
        ("true", {}),
        ("false", None),
        ("{norm_obs: true}", {"norm_obs": True}),
        ("\"{'norm_obs': True}\"", {"norm_obs": True}),
    ],
)
def test_all_spellings_of_normalize_are_understood(tmp_path: Path, value: str, normalize: Any) -> None:
    assert entry(tmp_path, f"Env-v0: {{normalize: {value}}}")["normalize"] == normalize


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("callback: a.b.C", "zoo.yml, line 3, Env-v0.callback: cannot be used: rl-zoo3's own callbacks"),
        ("vec_env_wrapper: a.b.C", "zoo.yml, line 3, Env-v0.vec_env_wrapper: cannot be used"),
        ("monitor_kwargs: dict(info_keywords=('a',))", "zoo.yml, line 3, Env-v0.monitor_kwargs: cannot be used"),
        ("model_class: sac", "zoo.yml, line 3, Env-v0.model_class: cannot be used: HER as it was"),
        (
            "learning_rate: exp_1e-3",
            "zoo.yml, line 3, Env-v0.learning_rate: unknown schedule (got 'exp_1e-3', expected",
        ),
        ("learning_rate: lin_x", "line 3, Env-v0.learning_rate: unknown schedule"),
        ("train_freq: [1, hour]", "line 3, Env-v0.train_freq: wrong type"),
        ("noise_type: pink", "line 3, Env-v0.noise_type: unknown noise (got 'pink'"),
        ("noise_type: normal", "line 3, Env-v0.noise_type: the key 'noise_std' is missing"),
        ("noise_type: normal\n  noise_std: x", "line 4, Env-v0.noise_std: wrong type (got 'x', expected a number)"),
        ("n_envs: many", "line 3, Env-v0.n_envs: wrong type (got 'many', expected a whole number >= 1)"),
        ("n_timesteps: 0", "line 3, Env-v0.n_timesteps: wrong type"),
        ("normalize: dict(norm_obs=True", "line 3, Env-v0.normalize: not a Python expression"),
        ("env_wrapper: [{a.B: {}, c.D: {}}]", "line 3, Env-v0.env_wrapper: not a wrapper"),
        ("env_wrapper: Monitor", "line 3, Env-v0.env_wrapper: not a wrapper"),
        (
            "policy_kwargs: dict(activation_fn=os.system)",
            "line 3, Env-v0.policy_kwargs: not understood: unknown module os",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line_with_file_line_and_key(tmp_path: Path, line: str, message: str) -> None:
    text = refusal(tmp_path, f"# hyper-parameters\nEnv-v0:\n  {line}\n")
    assert message in text
    assert "\n" not in text


def test_files_and_entries_that_are_not_there_are_named(tmp_path: Path) -> None:
    assert "no entry for this environment (got 'Env-v1'" in refusal(tmp_path, "Env-v0: {}\n", "Env-v1")
    assert "did you mean 'Env-v0'" in refusal(tmp_path, "Env-v0: {}\n", "Env-v1")
    assert "line 1: not a hyper-parameter file" in refusal(tmp_path, "- 1\n")
    assert "Env-v0: wrong type" in refusal(tmp_path, "Env-v0: 3\n")
    with pytest.raises(InputError, match="No such file"):
        read_zoo_file(tmp_path / "none.yml", "Env-v0")


# ---- expressions run nothing ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "nn.ReLU()",
        "dict(a=open('x'))",
        "dict(**{'a': 1})",
        "[x for x in (1,)]",
        "lambda: 1",
        "9**9**9",
        "10**60 * 10**60 * 10**60 * 10**60 * 10**60 * 10**60",
        "[0] * 10**9",
        "'a' * 10**9",
        "1 / 0",
        "unknown",
        "-True",
        "(" * 500 + ")" * 500,
        "1" * 20_000,
        "f'{1}'",
        "{1: 2}",
    ],
)
def test_expressions_beyond_plain_data_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        expression(text, "policy_kwargs")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(PLAIN)
def test_literals_are_read_as_python_reads_them(value: Any) -> None:
    assert expression(repr(value), "policy_kwargs") == value


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        json.dumps(expression(text, "policy_kwargs"), allow_nan=False)
    except InputError as error:
        assert error.field == "policy_kwargs"  # noqa: PT017


def test_arithmetic_is_pythons() -> None:
    assert expression("[2 + 3 * 4, 7 // 2, 1 / 4, -3 - 1, 2**0.5]", "x") == [14, 3, 0.25, -4, 2**0.5]


def test_stated_hyper_parameters_may_use_the_same_notations() -> None:
    plain = plain_hyper({"clip_range": "lin_.2", "ent_coef": "auto", "policy_kwargs": {"net_arch": [1]}, "gamma": 1})
    assert plain == {
        "clip_range": LINEAR | {"start": 0.2},
        "ent_coef": "auto",
        "policy_kwargs": {"net_arch": [1]},
        "gamma": 1,
    }
    assert wrappers({"target": "a:B", "c": 1}) == [{"target": "a:B", "c": 1}]
