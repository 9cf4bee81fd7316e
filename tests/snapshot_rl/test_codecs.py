"""States are restored to the last bit, in the same env and in another; what cannot be is refused with the reason."""

from __future__ import annotations

import copy
import pickle
import random
import threading
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation, TimeLimit
from snapshot_cases import MUJOCO, CountingEnv, ForgetfulEnv, LiveEnv, PlainEnv
from stable_baselines3.common.monitor import Monitor

from orl import registry
from orl.common.errors import InputError
from orl.snapshot_rl import MethodCodec, MujocoCodec, PickleCodec, SnapshotError, check_snapshot_env, codec_of
from orl.snapshot_rl.codecs import refuse_stateful_layers

ALL = ("independence", "round trip", "other instance", "storage")
IDS = [env.lazy_id for env in registry.environments()]


@pytest.mark.parametrize("id", MUJOCO)
def test_mujoco_is_restored_to_the_last_bit(id) -> None:
    pytest.importorskip("mujoco")
    assert check_snapshot_env(gymnasium.make(id), n_trials=3) == ALL


@pytest.mark.parametrize("id", IDS)
def test_every_env_of_the_house_is_restored_to_the_last_bit(id) -> None:
    env = gymnasium.make(id)
    assert isinstance(codec_of(env), MethodCodec)
    assert check_snapshot_env(env, n_trials=4) == ALL


@pytest.mark.parametrize("id", ["Ant-v5", "Humanoid-v5"])
def test_the_integration_state_alone_is_not_enough(id) -> None:
    pytest.importorskip("mujoco")
    with pytest.raises(SnapshotError, match="differs 1 step after the state"):
        check_snapshot_env(gymnasium.make(id), codec=MujocoCodec(arrays=()))


def test_mujoco_restores_into_the_memory_of_the_env_at_hand() -> None:
    pytest.importorskip("mujoco")
    env = gymnasium.make("Hopper-v5")
    env.reset(seed=0)
    codec = codec_of(env)
    assert isinstance(codec, MujocoCodec)
    state = codec.get_state(env)
    action = np.full(3, 0.3, np.float32)
    expected = env.step(action)
    for codec_again, target in ((codec, copy.deepcopy(env)), (pickle.loads(pickle.dumps(codec)), env)):
        codec_again.set_state(target, state)
        np.testing.assert_array_equal(target.step(action)[0], expected[0])


def test_mujoco_refuses_a_state_of_another_model() -> None:
    pytest.importorskip("mujoco")
    hopper, ant = gymnasium.make("Hopper-v5"), gymnasium.make("Ant-v5")
    hopper.reset(seed=0)
    ant.reset(seed=0)
    with pytest.raises(InputError, match="another model"):
        MujocoCodec().set_state(ant, MujocoCodec().get_state(hopper))


def test_mujoco_keeps_the_attributes_that_are_named() -> None:
    pytest.importorskip("mujoco")

    env = gymnasium.make("InvertedPendulum-v5")
    base = env.unwrapped
    plain = type(base).step

    def reset_model(self=base):
        self.goal = float(self.np_random.random())
        return type(base).reset_model(self)

    def step(action, self=base):
        observation, _, *rest = plain(self, action)
        return observation, self.goal, *rest

    base.reset_model, base.step = reset_model, step
    with pytest.raises(SnapshotError, match="attributes"):
        check_snapshot_env(lambda: env, codec=MujocoCodec())
    assert check_snapshot_env(lambda: env, codec=MujocoCodec(attributes=["goal"])) == ALL


class TestCopies:
    def test_an_env_that_can_only_be_copied_works_with_a_warning(self) -> None:
        env = PlainEnv()
        env.reset(seed=0)
        with pytest.warns(UserWarning, match=r"no get_state\(\) and set_state\(state\).*check_snapshot_env"):
            assert isinstance(codec_of(env), PickleCodec)
        with pytest.warns(UserWarning, match="deep copies"):
            # bound methods and references to the env itself cannot be stored in a file
            assert check_snapshot_env(PlainEnv) == ALL[:3]

    @pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
    def test_gymnasiums_envs_can_be_copied_and_stored(self, id) -> None:
        with pytest.warns(UserWarning, match="deep copies"):
            assert check_snapshot_env(gymnasium.make(id)) == ALL

    def test_references_to_the_env_are_followed_to_the_one_that_is_restored(self) -> None:
        one, two = PlainEnv(), PlainEnv()
        one.reset(seed=0)
        two.reset(seed=1)
        codec = PickleCodec()
        codec.set_state(two, codec.get_state(one))
        assert two.itself is two
        assert two.callbacks["noise"].__self__ is two
        np.testing.assert_array_equal(two.position, one.position)
        del one.callbacks
        codec.set_state(two, pickle.loads(pickle.dumps(codec.get_state(one))))
        assert two.itself is two

    @pytest.mark.parametrize("stream", ["random", "numpy"])
    def test_a_hidden_global_stream_is_refused_with_the_reason(self, stream) -> None:
        before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        with warnings.catch_warnings(), pytest.raises(SnapshotError, match=r"global streams.*self\.np_random"):
            warnings.simplefilter("ignore")
            check_snapshot_env(lambda: PlainEnv(stream))
        assert random.getstate() == before[0]
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002

    def test_what_cannot_be_copied_is_named(self) -> None:
        env = PlainEnv()
        env.reset(seed=0)
        env.lock = threading.Lock()
        with pytest.raises(InputError, match="lock: cannot be copied"):
            codec_of(env)
        PickleCodec(skip=["lock"]).get_state(env)

    def test_attributes_that_came_later_go_again(self) -> None:
        env = PlainEnv()
        env.reset(seed=0)
        codec = PickleCodec()
        state = codec.get_state(env)
        env.later = 1
        codec.set_state(env, state)
        assert not hasattr(env, "later")


class TestReasons:
    def test_an_env_that_gives_its_whole_state_is_accepted(self) -> None:
        assert check_snapshot_env(CountingEnv) == ALL
        assert check_snapshot_env(lambda: TimeLimit(CountingEnv(), 20)) == ALL

    def test_a_state_without_the_stream_is_refused(self) -> None:
        with pytest.raises(SnapshotError, match=r"leaves out the stream of np_random.*bit_generator\.state"):
            check_snapshot_env(ForgetfulEnv)

    def test_a_state_with_live_arrays_is_refused(self) -> None:
        with pytest.raises(SnapshotError, match="live arrays"):
            check_snapshot_env(LiveEnv)

    def test_a_state_that_misses_something_else_is_refused(self) -> None:
        class Hidden(CountingEnv):
            def step(self, action):
                self.hidden = getattr(self, "hidden", 0) + 1
                observation, reward, *rest = super().step(action)
                return observation, reward + self.hidden, *rest

        with pytest.raises(SnapshotError, match=r"reward differs 1 step after the state.*get_state\(\)"):
            check_snapshot_env(Hidden)

    @pytest.mark.parametrize("wrap", [Monitor, lambda env: FrameStackObservation(env, 2)])
    def test_wrappers_with_a_state_of_their_own_have_to_be_outside(self, wrap) -> None:
        with pytest.raises(InputError, match="outside SnapshotWrapper"):
            refuse_stateful_layers(wrap(CountingEnv()))
