"""Snapshots in batches: native ones behind the bridge, and single envs that are wrapped each."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from snapshot_cases import CountingEnv, counting_snapshots, snapshots_of
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

import orl
from orl import registry
from orl.common.action_masks import random_legal_actions
from orl.common.batched_values import equal_trees, row
from orl.common.errors import InputError
from orl.snapshot_rl import SnapshotWrapper, VecSnapshotWrapper

BATCHED = [env.lazy_id for env in registry.environments() if env.vector_entry_point]
LAKE = "orl:orl/PostDecisionFrozenLake-v0"


def actions_of(venv, rng):
    if venv.has_attr("action_masks"):
        return random_legal_actions(venv.action_space, np.stack(venv.env_method("action_masks")), rng)
    venv.action_space.seed(int(rng.integers(2**31)))
    return np.stack([venv.action_space.sample() for _ in range(venv.num_envs)])


@pytest.mark.parametrize("id", BATCHED)
class TestNative:
    def test_copies_start_at_snapshots_and_play_as_the_single_env_would(self, id) -> None:
        snapshots = snapshots_of(id)
        venv = VecSnapshotWrapper(orl.make_vec(id, 3, seed=0), snapshots, truncate_step=4, seed=0)
        rng = np.random.default_rng(0)
        observations, singles, ends = venv.reset(), [None] * 3, 0
        counts = np.zeros(3, int)
        for _ in range(14):
            for i in range(3):
                if singles[i] is None:  # an episode has just begun
                    index = venv.reset_infos[i]["snapshot"]["index"]
                    assert equal_trees(row(observations, i), snapshots.observation(index))
                    singles[i] = gymnasium.make(id).unwrapped
                    singles[i].reset(seed=5)
                    singles[i].set_state(snapshots.states[index])
                    counts[i] = 0
            actions = actions_of(venv, rng)
            observations, rewards, dones, infos = venv.step(actions)
            counts += 1
            for i, single in enumerate(singles):
                obs, reward, terminated, truncated, _ = single.step(actions[i])
                assert rewards[i] == np.float32(reward)
                assert dones[i] == (terminated or truncated or counts[i] == 4)
                shown = infos[i]["terminal_observation"] if dones[i] else row(observations, i)
                assert equal_trees(shown, obs)
                if dones[i]:
                    assert infos[i]["TimeLimit.truncated"] == (not terminated)
                    assert infos[i]["snapshot_episode"]["l"] == counts[i]
                    singles[i] = None
                    ends += 1
        assert ends >= 9
        assert venv.start_counts.sum() == 3 + ends

    def test_the_phase_ends_with_a_truncated_step_and_plain_starts(self, id) -> None:
        venv = VecMonitor(VecSnapshotWrapper(orl.make_vec(id, 3, seed=0), snapshots_of(id), seed=0))
        rng = np.random.default_rng(0)
        venv.reset()
        venv.step(actions_of(venv, rng))
        venv.venv.set_snapshots(False)
        observations, _, dones, infos = venv.step(actions_of(venv, rng))
        assert dones.all()
        assert all("terminal_observation" in info and "episode" in info for info in infos)
        before = venv.venv.start_counts.sum()
        single = gymnasium.make(id).unwrapped
        for i in range(3):
            state = venv.env_method("get_state", indices=i)[0]
            single.reset(seed=9)
            assert equal_trees(single.set_state(state), row(observations, i))
        steps = 0
        while not dones[0] or steps == 0:
            _, _, dones, infos = venv.step(actions_of(venv, rng))
            steps += 1
        assert "snapshot_episode" not in infos[0]
        assert venv.venv.start_counts.sum() == before

    def test_disabled_it_changes_nothing(self, id) -> None:
        plain, wrapped = orl.make_vec(id, 2), VecSnapshotWrapper(orl.make_vec(id, 2), snapshots_of(id), enabled=False)
        plain.seed(3)
        wrapped.seed(3)
        assert equal_trees(dict_of(plain.reset()), dict_of(wrapped.reset()))
        rng = np.random.default_rng(0)
        for _ in range(40):
            actions = actions_of(plain, rng)
            one, two = plain.step(actions), wrapped.step(actions)
            assert equal_trees(dict_of(one[0]), dict_of(two[0]))
            assert equal_trees(one[1:3], two[1:3])


def dict_of(observations):
    return dict(observations) if isinstance(observations, dict) else observations


def test_a_share_of_the_starts_of_a_native_batch() -> None:
    venv = VecSnapshotWrapper(
        orl.make_vec(LAKE, 8, seed=0), snapshots_of(LAKE), p_snapshot=0.3, truncate_step=1, seed=0
    )
    venv.reset()
    starts = []
    first, _ = gymnasium.make(LAKE).reset()
    for _ in range(60):  # fewer than the horizon
        observations, _, dones, infos = venv.step(np.zeros(8, np.int64))
        for i in np.flatnonzero(dones).tolist():
            if "snapshot" not in venv.reset_infos[i]:
                np.testing.assert_array_equal(observations[i], first)
        starts += ["snapshot_episode" in infos[i] for i in np.flatnonzero(dones)]
        assert all("snapshot_episode" in infos[i] or not infos[i].get("TimeLimit.truncated") for i in range(8))
    assert 0 < sum(starts) < len(starts)


def test_a_seed_fixes_the_draws() -> None:
    def starts():
        venv = VecSnapshotWrapper(orl.make_vec(LAKE, 4), snapshots, truncate_step=2)
        venv.seed(11)
        venv.reset()
        for _ in range(10):
            venv.step(np.zeros(4, np.int64))
        return venv.start_counts

    snapshots = snapshots_of(LAKE)
    np.testing.assert_array_equal(starts(), starts())


class TestSingles:
    def test_the_phase_is_passed_on(self) -> None:
        def make():
            return Monitor(SnapshotWrapper(CountingEnv(), counting_snapshots(), seed=0))

        venv = VecNormalize(VecSnapshotWrapper(VecMonitor(DummyVecEnv([make] * 2)), enabled=False))
        venv.reset()
        assert venv.get_attr("start_counts")[0].sum() == 0
        venv.venv.set_snapshots(True)
        venv.reset()
        assert [counts.sum() for counts in venv.get_attr("start_counts")] == [1, 1]

    def test_worker_processes_read_the_file(self, tmp_path) -> None:
        counting_snapshots().save(tmp_path / "a.npz")
        venv = SubprocVecEnv([_Maker(str(tmp_path / "a.npz"), seed) for seed in range(2)], start_method="fork")
        try:
            venv = VecSnapshotWrapper(venv)
            venv.reset()
            venv.set_snapshots(False)
            _, _, dones, infos = venv.step(np.zeros(2, np.int64))
            assert dones.all()
            assert all(info["TimeLimit.truncated"] for info in infos)
        finally:
            venv.close()


class _Maker:
    def __init__(self, path: str, seed: int) -> None:
        self.path, self.seed = path, seed

    def __call__(self):
        return SnapshotWrapper(CountingEnv(), self.path, seed=self.seed)


class TestRefusals:
    def test_single_envs_without_a_wrapper(self) -> None:
        with pytest.raises(InputError, match=r"SnapshotWrapper\(gymnasium"):
            VecSnapshotWrapper(DummyVecEnv([CountingEnv]), counting_snapshots())
        with pytest.raises(InputError, match=r"SnapshotWrapper\(gymnasium"):
            VecSnapshotWrapper(orl.make_vec("CartPole-v1", 2), counting_snapshots())

    def test_wrappers_that_have_to_be_outside(self) -> None:
        snapshots = snapshots_of(LAKE)
        with pytest.raises(InputError, match=r"VecNormalize\(VecSnapshotWrapper"):
            VecSnapshotWrapper(VecNormalize(orl.make_vec(LAKE, 2)), snapshots)
        with pytest.raises(InputError, match=r"VecMonitor\(VecSnapshotWrapper"):
            VecSnapshotWrapper(VecMonitor(orl.make_vec(LAKE, 2)), snapshots)

    def test_a_set_missing_or_too_many(self) -> None:
        with pytest.raises(InputError, match="no snapshots"):
            VecSnapshotWrapper(orl.make_vec(LAKE, 2))
        with pytest.raises(InputError, match="another env"):
            VecSnapshotWrapper(orl.make_vec(LAKE, 2), counting_snapshots())
        single = DummyVecEnv([lambda: SnapshotWrapper(CountingEnv(), counting_snapshots())])
        with pytest.raises(InputError, match="each copy has its own"):
            VecSnapshotWrapper(single, counting_snapshots())
