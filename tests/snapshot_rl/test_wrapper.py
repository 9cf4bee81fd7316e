"""Episodes from snapshots: where they start, when they are cut, and that nothing else changes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import RecordConstructorArgs
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.wrappers import TimeLimit
from snapshot_cases import CountingEnv, PlainEnv, RandomTeacher, counting_snapshots, random_action, snapshots_of
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from orl import registry
from orl.common.batched_values import equal_trees
from orl.common.errors import InputError
from orl.common.post_decision import post_decision_reader
from orl.snapshot_rl import SnapshotWrapper, collect_snapshots

IDS = [env.lazy_id for env in registry.environments()]


def rollout(env, steps: int, seed: int = 3):
    """Observations, rewards, ends and the env's stream at the end, with fixed actions."""
    rng = np.random.default_rng(seed)
    trace = [env.reset(seed=seed)]
    for _ in range(steps):
        trace.append(env.step(random_action(env, rng)))
        if trace[-1][2] or trace[-1][3]:
            trace.append(env.reset())
    return trace, env.unwrapped.np_random.bit_generator.state


class WithoutSolution(gymnasium.Wrapper, RecordConstructorArgs):
    """Solutions in infos equal themselves only, which Gymnasium's checker does not like."""

    def __init__(self, env):
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)

    def step(self, action):
        *rest, info = self.env.step(action)
        info.pop("solution", None)
        return *rest, info


class TestStart:
    @pytest.mark.parametrize("id", [*IDS, "Hopper-v5"])
    def test_the_episode_goes_on_from_the_stored_observation(self, id) -> None:
        if id == "Hopper-v5":
            pytest.importorskip("mujoco")
        snapshots = snapshots_of(id)
        env = SnapshotWrapper(gymnasium.make(id), snapshots, seed=0)
        for _ in range(5):
            observation, info = env.reset()
            index = info["snapshot"]["index"]
            assert equal_trees(observation, snapshots.observation(index))
            assert env.observation_space.contains(observation)
            assert info["snapshot"]["elapsed"] == snapshots.elapsed[index]
            again = gymnasium.make(id)
            again.reset(seed=99)
            env.codec.set_state(again, snapshots.states[index])
            rng, other = np.random.default_rng(1), np.random.default_rng(1)
            for _ in range(4):
                one, two = env.step(random_action(env, rng)), again.step(random_action(again, other))
                assert equal_trees(one[0], two[0])
                assert one[1:3] == two[1:3]
                if one[2] or one[3]:
                    break
        assert env.start_counts.sum() == 5

    @pytest.mark.filterwarnings("ignore::UserWarning")
    @pytest.mark.parametrize("id", IDS)
    def test_checkers_accept_the_wrapped_env(self, id) -> None:
        def make():
            return SnapshotWrapper(WithoutSolution(gymnasium.make(id, illegal="remap").unwrapped), snapshots, seed=0)

        snapshots = snapshots_of(id)
        sb3_check_env(make(), warn=False, skip_render_check=True)
        gymnasium_check_env(make(), skip_render_check=True)

    def test_clusters_are_drawn_alike_and_by_the_seed(self) -> None:
        snapshots = counting_snapshots(30).classify(3, "elapsed")
        counts = []
        for _ in range(2):
            env = SnapshotWrapper(CountingEnv(), snapshots, seed=5)
            for _ in range(300):
                env.reset()
            counts.append(env.start_counts)
        np.testing.assert_array_equal(*counts)
        drawn = [counts[0][snapshots.clusters == c].sum() / 300 for c in range(3)]
        np.testing.assert_allclose(drawn, 1 / 3, atol=3 * np.sqrt(2 / 9 / 300))

    def test_a_seed_of_reset_fixes_the_draws_too(self) -> None:
        env = SnapshotWrapper(CountingEnv(), counting_snapshots())
        one = [env.reset(seed=4)[1]["snapshot"]["index"], *(env.reset()[1]["snapshot"]["index"] for _ in range(5))]
        two = [env.reset(seed=4)[1]["snapshot"]["index"], *(env.reset()[1]["snapshot"]["index"] for _ in range(5))]
        assert one == two

    def test_options_choose_the_start(self) -> None:
        env = SnapshotWrapper(CountingEnv(), counting_snapshots(), seed=0)
        assert env.reset(options={"snapshot": 17})[0][0] == 17
        assert env.reset(options={"snapshot": None})[0][0] == 0
        assert "snapshot" not in env.reset(options={"something": "of the env"})[1]
        with pytest.raises(InputError, match="no such snapshot"):
            env.reset(options={"snapshot": 30})

    def test_a_share_of_the_resets(self) -> None:
        env = SnapshotWrapper(CountingEnv(), counting_snapshots(), p_snapshot=0.25, seed=0)
        share = np.mean(["snapshot" in env.reset()[1] for _ in range(800)])
        assert abs(share - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 800)

    def test_post_decision_data_and_masks_are_passed_on(self) -> None:
        id = "orl:orl/LotSizing-v0"
        snapshots = snapshots_of(id)
        venv = DummyVecEnv([lambda: Monitor(SnapshotWrapper(gymnasium.make(id), snapshots, seed=0))])
        venv.reset()
        mask = venv.env_method("action_masks")[0]
        assert mask.any()
        read = post_decision_reader(venv)
        _, rewards, _, infos = venv.step([random_action(venv.envs[0], np.random.default_rng(0))])
        step = read(infos)
        np.testing.assert_allclose(step.reward_deterministic + step.reward_stochastic, rewards, rtol=1e-6)


class TestEnd:
    def test_it_is_truncated_after_exactly_so_many_steps(self) -> None:
        env = SnapshotWrapper(CountingEnv(), counting_snapshots(), truncate_step=7, seed=0)
        for index in (0, 29):
            env.reset(options={"snapshot": index})
            flags = [env.step(1)[2:4] for _ in range(7)]
            assert flags == [(False, False)] * 6 + [(False, True)]

    def test_unless_it_terminates_before_or_then(self) -> None:
        snapshots = counting_snapshots(30)
        env = SnapshotWrapper(CountingEnv(ends_after=30), snapshots, truncate_step=7, seed=0)
        for index, expected in ((27, 3), (23, 7)):
            env.reset(options={"snapshot": index})
            flags = [env.step(1)[2:4] for _ in range(expected)]
            assert flags == [(False, False)] * (expected - 1) + [(True, False)]

    def test_a_late_snapshot_has_as_many_steps_as_any_other(self) -> None:
        id = "Hopper-v5"
        pytest.importorskip("mujoco")
        env = gymnasium.make(id, terminate_when_unhealthy=False)
        snapshots = collect_snapshots(RandomTeacher(env), env, n_episodes=1, interval=5)
        late = int(np.flatnonzero(snapshots.elapsed >= 995)[0])
        student = SnapshotWrapper(gymnasium.make(id, terminate_when_unhealthy=False), snapshots, truncate_step=100)
        student.reset(options={"snapshot": None})
        for _ in range(950):
            student.step(np.zeros(3, np.float32))
        student.reset(options={"snapshot": late})
        flags = [student.step(np.zeros(3, np.float32))[3] for _ in range(100)]
        assert flags == [False] * 99 + [True]

    @pytest.mark.parametrize("truncate, expected", [(None, 12), (50, 12), (5, 5)])
    def test_the_envs_own_limit_counts_from_the_snapshot(self, truncate, expected) -> None:
        env = SnapshotWrapper(TimeLimit(CountingEnv(), 12), counting_snapshots(), truncate_step=truncate, seed=0)
        env.reset(options={"snapshot": 20})
        assert [env.step(0)[3] for _ in range(expected)] == [False] * (expected - 1) + [True]
        env.reset(options={"snapshot": None})
        assert [env.step(0)[3] for _ in range(12)] == [False] * 11 + [True]

    def test_sb3_bootstraps_where_it_was_cut(self) -> None:
        def make():
            return Monitor(SnapshotWrapper(CountingEnv(), counting_snapshots(), truncate_step=4, seed=0))

        venv = DummyVecEnv([make])
        buffer = ReplayBuffer(10, venv.observation_space, venv.action_space, "cpu", handle_timeout_termination=True)
        observation = venv.reset()
        for t in range(4):
            following, rewards, dones, infos = venv.step(np.array([1]))
            assert dones[0] == (t == 3)
            buffer.add(observation, following, np.array([1]), rewards, dones, infos)
            observation = following
        assert infos[0]["TimeLimit.truncated"]
        assert infos[0]["terminal_observation"][0] == infos[0]["snapshot_episode"]["index"] + 4
        assert (buffer.dones * (1 - buffer.timeouts)).sum() == 0
        assert infos[0]["episode"]["l"] == infos[0]["snapshot_episode"]["l"] == 4
        assert infos[0]["episode"]["r"] == pytest.approx(infos[0]["snapshot_episode"]["r"], abs=1e-5)

    def test_the_end_of_the_phase_truncates_the_next_step_and_resets_plainly(self) -> None:
        env = SnapshotWrapper(CountingEnv(), counting_snapshots(), seed=0)
        env.reset(options={"snapshot": 9})
        env.step(0)
        env.set_snapshots(False)
        assert env.step(0)[2:4] == (False, True)
        observation, info = env.reset()
        assert observation[0] == 0
        assert "snapshot" not in info
        assert not any(env.step(0)[3] for _ in range(200))

    def test_an_ordinary_episode_is_not_cut_by_the_phase(self) -> None:
        env = SnapshotWrapper(CountingEnv(), counting_snapshots(), seed=0)
        env.reset(options={"snapshot": None})
        env.set_snapshots(False)
        assert env.step(0)[2:4] == (False, False)


class TestNothingElse:
    @pytest.mark.parametrize("id", [*IDS, "Hopper-v5"])
    def test_disabled_it_changes_nothing(self, id) -> None:
        if id == "Hopper-v5":
            pytest.importorskip("mujoco")
        env = SnapshotWrapper(gymnasium.make(id), snapshots_of(id), enabled=False)
        wrapped, plain = rollout(env, 60), rollout(gymnasium.make(id), 60)
        assert wrapped[1] == plain[1]
        for one, two in zip(wrapped[0], plain[0], strict=True):
            assert equal_trees(one[0], two[0])
            assert one[1:4] == two[1:4] if len(one) == 5 else True

    def test_ordinary_resets_go_on_in_the_envs_own_stream(self) -> None:
        plain = CountingEnv()
        env = SnapshotWrapper(CountingEnv(), counting_snapshots(), seed=0)
        env.reset(seed=1)
        env.step(0)  # draws from the stream that came with the snapshot
        plain.reset(seed=1)
        for options in ({"snapshot": None}, {"snapshot": 3}, {"snapshot": 8}, {"snapshot": None}):
            observation, _ = env.reset(options=options)
            if options["snapshot"] is None:
                expected, _ = plain.reset()
                np.testing.assert_array_equal(observation, expected)
            else:
                env.step(0)
            if options["snapshot"] is None:
                np.testing.assert_array_equal(env.step(2)[1], plain.step(2)[1])

    def test_snapshots_are_not_changed_by_being_played(self) -> None:
        env = PlainEnv()
        with pytest.warns(UserWarning, match="deep copies"):
            snapshots = collect_snapshots(RandomTeacher(env), TimeLimit(env, 20), n_episodes=1)
        with pytest.warns(UserWarning, match="deep copies"):
            student = SnapshotWrapper(PlainEnv(), snapshots, seed=0)
        traces = []
        for _ in range(2):
            student.reset(options={"snapshot": 1})
            traces.append([student.step(np.array([0.5], np.float32))[:2] for _ in range(5)])
        assert equal_trees(tuple(traces[0]), tuple(traces[1]))


class TestRefusals:
    @pytest.mark.parametrize("name, value", [("truncate_step", 0), ("truncate_step", 2.5), ("p_snapshot", 1.5)])
    def test_values_outside_their_range(self, name, value) -> None:
        with pytest.raises(InputError, match=name):
            SnapshotWrapper(CountingEnv(), counting_snapshots(), **{name: value})

    def test_snapshots_of_another_env(self) -> None:
        with pytest.raises(InputError, match="another env"):
            SnapshotWrapper(PlainEnv(), counting_snapshots())

    def test_no_snapshots(self) -> None:
        with pytest.raises(InputError, match="no snapshots"):
            SnapshotWrapper(CountingEnv(), counting_snapshots().subset([]))

    def test_a_monitor_inside(self) -> None:
        with pytest.raises(InputError, match="Monitor"):
            SnapshotWrapper(Monitor(CountingEnv()), counting_snapshots())
