"""What FastSAC and FastTD3 share: callbacks, files, copies, the fallback, and an engine that notices changes."""

import copy
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from off_policy_pairs import TOLERANCE, copies, distance, learn_both, small
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from toy_envs import BOX, ToyEnv

from orl.common.errors import InputError
from orl.fast.sac import FastSAC
from orl.fast.td3 import FastTD3

PAIRS: list[tuple[Any, Any]] = [(SAC, FastSAC), (TD3, FastTD3)]


def make_env(n: int = 2) -> VecEnv:
    return DummyVecEnv([lambda: ToyEnv(BOX, BOX)] * n)


class Watch(BaseCallback):
    """Notes the names and the actions of every step, and how often a rollout starts and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.actions: list[Any] = []
        self.rollouts = [0, 0]

    def _on_rollout_start(self) -> None:
        self.rollouts[0] += 1

    def _on_step(self) -> bool:
        self.names |= set(self.locals)
        self.actions.append((self.locals["actions"], self.locals["buffer_actions"], self.locals["dones"]))
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts[1] += 1


@pytest.mark.parametrize("stock, fast", PAIRS)
def test_callbacks_see_what_sb3_shows_them(stock: Any, fast: Any) -> None:
    seen = []
    for algorithm in (stock, fast):
        watch = Watch()
        algorithm("MlpPolicy", make_env(), **small()).learn(80, callback=watch)
        seen.append(watch)
    a, b = seen
    assert a.names == b.names
    assert a.rollouts == b.rollouts
    assert len(a.actions) == len(b.actions)
    for ours, theirs in zip(b.actions, a.actions, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("stock, fast", PAIRS)
def test_a_callback_stops_training_in_the_same_step(stock: Any, fast: Any) -> None:
    models = [
        algorithm("MlpPolicy", make_env(), **small()).learn(400, callback=StopTrainingOnMaxEpisodes(9))
        for algorithm in (stock, fast)
    ]
    assert models[0].num_timesteps == models[1].num_timesteps < 400


@pytest.mark.parametrize("stock, fast", PAIRS)
@pytest.mark.parametrize("saved_by_fast", [False, True])
def test_both_load_a_checkpoint_and_continue_equal(stock: Any, fast: Any, saved_by_fast: bool, tmp_path: Path) -> None:
    saved = (fast if saved_by_fast else stock)("MlpPolicy", make_env(), **small()).learn(60)
    saved.save(tmp_path / "model.zip")
    saved.save_replay_buffer(tmp_path / "buffer.pkl")
    models = []
    for algorithm in (stock, fast):
        model = algorithm.load(tmp_path / "model.zip", env=make_env(), device="cpu")
        model.load_replay_buffer(tmp_path / "buffer.pkl")
        model.set_random_seed(11)
        models.append(model.learn(60, reset_num_timesteps=False))
    assert models[1].engine_in_use == "fast"
    assert models[0].num_timesteps == models[1].num_timesteps == 120
    assert distance(*models) < TOLERANCE
    obs = np.stack([BOX.sample() for _ in range(4)])
    ours, theirs = (model.predict(obs, deterministic=True)[0] for model in models)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("fast", [FastSAC, FastTD3])
def test_saving_and_loading_in_the_middle_changes_nothing(fast: Any, tmp_path: Path) -> None:
    whole = fast("MlpPolicy", make_env(), **small()).learn(60)
    whole.save(tmp_path / "model.zip")
    whole.save_replay_buffer(tmp_path / "buffer.pkl")
    halves = fast.load(tmp_path / "model.zip", device="cpu")
    halves.load_replay_buffer(tmp_path / "buffer.pkl")
    assert distance(whole, halves) == 0.0
    for model in (whole, halves):
        model.set_env(make_env())
        model.set_random_seed(5)
        model._last_obs = None
        model.learn(60, reset_num_timesteps=False)
    assert halves.engine_in_use == "fast"
    assert distance(whole, halves) == 0.0


@pytest.mark.slow  # a fresh process imports torch
def test_plain_sb3_loads_the_zips_where_orl_is_not_installed(tmp_path: Path) -> None:
    for fast in (FastSAC, FastTD3):
        fast("MlpPolicy", make_env(), **small()).learn(60).save(tmp_path / f"{fast.__name__}.zip")
    script = (
        "import sys; sys.modules['orl'] = None\nfrom stable_baselines3 import SAC, TD3\nimport torch\n"
        f"for m in (SAC.load({str(tmp_path / 'FastSAC.zip')!r}), TD3.load({str(tmp_path / 'FastTD3.zip')!r})):\n"
        "    assert type(m.policy).__module__.startswith('stable_baselines3')\n"
        "    for part in (m.policy.actor, m.policy.critic):\n"
        "        assert type(part.optimizer) is torch.optim.Adam and len(part.optimizer.state) > 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fast", [FastSAC, FastTD3])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_model_learn_on_their_own(fast: Any, duplicate: Callable[[Any], Any]) -> None:
    model = fast("MlpPolicy", make_env(), engine="fast", **small()).learn(60)
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    training_env, model.env = model.env, None
    twin = duplicate(model)
    twin.set_env(make_env())
    twin.learn(60)
    assert all(torch.equal(before[key], value) for key, value in model.policy.state_dict().items())
    after = {key: value.clone() for key, value in twin.policy.state_dict().items()}
    model.env = training_env
    model.learn(60)
    assert all(torch.equal(after[key], value) for key, value in twin.policy.state_dict().items())
    assert any(not torch.equal(before[key], value) for key, value in model.policy.state_dict().items())


@pytest.mark.parametrize("stock, fast", PAIRS)
def test_the_engine_notices_changes_between_gradient_steps(stock: Any, fast: Any) -> None:
    arguments = {"learning_starts": 1000}
    models = []
    for algorithm in (stock, fast):
        model = algorithm("MlpPolicy", make_env(), **small(**arguments)).learn(60)
        model.set_random_seed(3)
        model.train(2, 16)
        parameters = copy.deepcopy(model.get_parameters())
        model.train(2, 16)
        model.set_parameters(parameters)  # other numbers in the optimisers
        model.train(2, 16)
        model.policy.load_state_dict(copy.deepcopy(model.policy.state_dict()), assign=True)  # other memory
        model.actor.optimizer.param_groups[0]["params"] = list(model.actor.parameters())
        model.critic.optimizer.param_groups[0]["params"] = list(model.critic.parameters())
        for optimizer in (model.actor.optimizer, model.critic.optimizer):
            optimizer.state.clear()
        model.train(2, 16)
        if algorithm is fast:
            assert model.engine_in_use == "fast"
            model.engine = "torch"
        model.train(3, 16)  # SB3's own steps in between
        if algorithm is fast:
            model.engine = "fast"
        model.actor.optimizer.zero_grad()  # drops the gradients
        model.train(2, 16)
        models.append(model)
    assert distance(*models) < TOLERANCE


class OwnSACPolicy(SACPolicy):
    pass


class OwnTD3Policy(TD3Policy):
    pass


@pytest.mark.parametrize("fast, policy", [(FastSAC, OwnSACPolicy), (FastTD3, OwnTD3Policy)])
def test_a_policy_of_the_users_own_is_left_to_sb3(fast: Any, policy: Any) -> None:
    model = fast(policy, make_env(), **small()).learn(40)
    assert model.engine_in_use == "torch"
    with pytest.raises(InputError, match=policy.__name__):
        fast(policy, make_env(), engine="fast", **small()).learn(40)


@pytest.mark.parametrize("stock, fast", PAIRS)
def test_the_fallback_gives_sb3_results_and_says_why_once(
    stock: Any, fast: Any, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = {"policy_kwargs": {"net_arch": [8], "activation_fn": torch.nn.ELU}}
    expected = stock("MlpPolicy", make_env(), **small(**arguments)).learn(60)
    with caplog.at_level(logging.INFO, logger=fast.__module__):
        model = fast("MlpPolicy", make_env(), **small(**arguments)).learn(60)
    assert model.engine_in_use == "torch"
    assert distance(expected, model) == 0.0
    assert len([r for r in caplog.records if "ELU" in r.getMessage()]) == 1


@pytest.mark.parametrize("stock, fast", PAIRS)
def test_engine_torch_is_sb3s_own_code(stock: Any, fast: Any) -> None:
    model = fast("MlpPolicy", make_env(), engine="torch", **small()).learn(60)
    assert model.engine_in_use == "torch"
    assert distance(stock("MlpPolicy", make_env(), **small()).learn(60), model) == 0.0


class CountingBuffer(ReplayBuffer):
    """Counts what is added and sampled."""

    added = sampled = 0

    def add(self, *args: Any, **kwargs: Any) -> None:
        self.added += 1
        super().add(*args, **kwargs)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        self.sampled += 1
        return super().sample(*args, **kwargs)


@pytest.mark.parametrize("stock, fast", PAIRS)
def test_a_replay_buffer_of_the_users_own_is_asked(stock: Any, fast: Any) -> None:
    _, model = learn_both(
        stock, fast, "MlpPolicy", copies(1, lambda: ToyEnv(BOX, BOX)), replay_buffer_class=CountingBuffer
    )
    assert (model.replay_buffer.added, model.replay_buffer.sampled) == (80, 60)


@pytest.mark.parametrize("fast", [FastSAC, FastTD3])
def test_an_unknown_engine_is_refused(fast: Any) -> None:
    with pytest.raises(InputError, match="engine"):
        fast("MlpPolicy", make_env(), engine="quick", **small())
