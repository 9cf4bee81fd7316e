"""The phase ends at its step, for every copy, however the training is cut into pieces."""

from __future__ import annotations

import numpy as np
import pytest
from snapshot_cases import CountingEnv, counting_snapshots, snapshots_of
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import orl
from orl.common.errors import InputError
from orl.snapshot_rl import SnapshotSchedule, SnapshotWrapper, VecSnapshotWrapper

LAKE = "orl:orl/PostDecisionFrozenLake-v0"
SNAPSHOTS = counting_snapshots()


class Watch(BaseCallback):
    """Notes after each step which copies are in an episode that began at a snapshot, and starts so far."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, list[bool], int]] = []

    def _on_training_start(self) -> None:
        self._note()

    def _on_step(self) -> bool:
        self._note()
        return True

    def _note(self) -> None:
        wrappers = [env.env for env in self.training_env.unwrapped.envs]
        inside = [wrapper._start is not None for wrapper in wrappers]
        self.seen.append((self.num_timesteps, inside, sum(int(w.start_counts.sum()) for w in wrappers)))


def make_env(n: int = 4):
    def make(seed):
        return lambda: Monitor(SnapshotWrapper(CountingEnv(50), SNAPSHOTS, truncate_step=13, seed=seed))

    return DummyVecEnv([make(seed) for seed in range(n)])


def make_model(venv) -> PPO:
    return PPO("MlpPolicy", venv, n_steps=25, batch_size=100, n_epochs=1, seed=0, device="cpu")


def require_switch(watch: Watch, limit: int) -> None:
    """No start from a snapshot at or after the limit, and no copy inside an episode that began at one."""
    inside_before = [inside for steps, inside, _ in watch.seen if steps < limit]
    after = [(inside, count) for steps, inside, count in watch.seen if steps >= limit]
    assert all(all(inside) for inside in inside_before)
    assert after
    assert not any(any(inside) for inside, _ in after)
    assert len({count for _, count in after}) == 1


@pytest.mark.parametrize("limit", [1000, 998, 3])
def test_every_copy_leaves_the_phase_at_its_step(limit) -> None:
    watch, schedule = Watch(), SnapshotSchedule(limit)
    make_model(make_env()).learn(1200, callback=[schedule, watch])
    require_switch(watch, limit + (-limit) % 4)


def test_a_training_in_pieces_switches_at_the_same_step(tmp_path) -> None:
    model = make_model(make_env())
    watch = Watch()
    model.learn(500, callback=[SnapshotSchedule(1000), watch])
    assert all(all(inside) for _, inside, _ in watch.seen)
    model.save(tmp_path / "model.zip")
    again = PPO.load(tmp_path / "model.zip", env=make_env(), device="cpu")
    watch = Watch()
    again.learn(700, callback=[SnapshotSchedule(1000), watch], reset_num_timesteps=False)
    require_switch(watch, 1000)
    # A new env after the phase has begun at snapshots when the callback comes: it begins anew.
    later = PPO.load(tmp_path / "model.zip", env=make_env(), device="cpu")
    later.num_timesteps = 1200
    watch = Watch()
    later.learn(100, callback=[SnapshotSchedule(1000), watch], reset_num_timesteps=False)
    assert not any(any(inside) for _, inside, _ in watch.seen)


def test_an_env_that_was_off_is_switched_on_before_the_first_step() -> None:
    venv = VecNormalize(make_env())
    venv.env_method("set_snapshots", False)
    watch = Watch()
    make_model(venv).learn(100, callback=[SnapshotSchedule(fraction=0.5), watch])
    assert all(all(inside) for steps, inside, _ in watch.seen if steps < 52)
    assert not any(any(inside) for steps, inside, _ in watch.seen if steps >= 52)


def test_the_evaluation_env_never_sees_a_snapshot() -> None:
    class Plain(CountingEnv):
        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            assert observation[0] == 0
            evaluated.append(1)
            return observation, info

    evaluated: list[int] = []
    evaluation = EvalCallback(Monitor(Plain(9)), eval_freq=50, n_eval_episodes=2, verbose=0)
    make_model(make_env()).learn(400, callback=[SnapshotSchedule(200), evaluation])
    assert evaluated


def test_off_policy_training_switches_too_and_logs_the_phase() -> None:
    model = DQN("MlpPolicy", make_env(1), learning_starts=50, buffer_size=500, seed=0, device="cpu")
    watch, schedule = Watch(), SnapshotSchedule(100)
    recorded: dict[str, float] = {}

    class Keep(BaseCallback):
        def _on_step(self) -> bool:
            recorded.update(self.logger.name_to_value)
            return True

    model.learn(200, callback=[schedule, watch, Keep()])
    require_switch(watch, 100)
    assert recorded["snapshot/phase"] == 0
    assert recorded["snapshot/episodes"] == 8  # seven of 13 steps, and the one that the end of the phase cut
    assert recorded["snapshot/ep_len_mean"] == pytest.approx(100 / 8)
    assert np.isfinite(recorded["snapshot/ep_rew_mean"])


def test_native_batches_switch_too(capsys) -> None:
    venv = VecSnapshotWrapper(orl.make_vec(LAKE, 4), snapshots_of(LAKE), seed=0)
    model = PPO("MlpPolicy", venv, n_steps=25, batch_size=100, n_epochs=1, seed=0, device="cpu")
    model.learn(200, callback=SnapshotSchedule(100, verbose=1))
    assert (venv._start < 0).all()
    assert not venv.enabled
    assert "ends at step 100" in capsys.readouterr().out


def test_an_env_without_snapshots_is_refused() -> None:
    with pytest.raises(InputError, match="starts from no snapshots"):
        make_model(DummyVecEnv([lambda: CountingEnv(50)])).learn(100, callback=SnapshotSchedule(50))


@pytest.mark.parametrize(
    "options", [{}, {"snapshot_steps": 5, "fraction": 0.1}, {"snapshot_steps": -1}, {"fraction": 2}]
)
def test_one_length_is_needed(options) -> None:
    with pytest.raises(InputError, match="length"):
        SnapshotSchedule(**options)
