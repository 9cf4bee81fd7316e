"""``fresh_noise``: the same past, another future."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from snapshot_cases import CountingEnv, PlainEnv, RandomTeacher, counting_snapshots, random_action, snapshots_of
from stable_baselines3.common.vec_env import DummyVecEnv

import orl
from orl import registry
from orl.common.batched_values import equal_trees, row
from orl.common.errors import InputError
from orl.common.protocols import Redrawable
from orl.snapshot_rl import PickleCodec, SnapshotWrapper, VecSnapshotWrapper, collect_snapshots

REDRAWN = [
    env.lazy_id for env in registry.environments() if isinstance(gymnasium.make(env.lazy_id).unwrapped, Redrawable)
]
LOTS, LAKE, RIVERS = "orl:orl/LotSizing-v0", "orl:orl/PostDecisionFrozenLake-v0", "orl:orl/Hydrothermal-v0"


def in_the_middle(id: str, **kwargs):
    """An env after one step, and its observation."""
    env = gymnasium.make(id, **kwargs)
    env.reset(seed=0)
    observation, *_ = env.step(random_action(env, np.random.default_rng(0)))
    return env.unwrapped, observation


def future(env, state, steps: int = 12) -> tuple:
    """Observations and rewards with fixed legal actions from a state."""
    env.set_state(state)
    rng, seen = np.random.default_rng(5), []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(random_action(env, rng))
        seen.append((observation, reward))
        if terminated or truncated:
            break
    return tuple(seen)


def test_every_env_with_noise_after_its_start_can_redraw_it() -> None:
    assert {LOTS, LAKE, RIVERS} <= set(REDRAWN)
    assert not any("Shop" in id for id in REDRAWN)


@pytest.mark.parametrize("id", REDRAWN)
class TestEnvs:
    def test_past_and_observation_stay(self, id) -> None:
        env, observation = in_the_middle(id)
        state = env.get_state()
        other = env.redrawn(state, np.random.default_rng(1))
        assert equal_trees(env.set_state(other), observation)
        assert equal_trees(env.set_state(state), observation)
        assert other.key != state.key

    def test_the_state_is_left_as_it_is_and_the_generator_decides(self, id) -> None:
        env, _ = in_the_middle(id)
        state = env.get_state()
        before = future(env, state)
        one, two = (future(env, env.redrawn(state, np.random.default_rng(1))) for _ in range(2))
        assert equal_trees(one, two)
        assert equal_trees(future(env, state), before)

    def test_futures_differ(self, id) -> None:
        env, _ = in_the_middle(id)
        state, rng = env.get_state(), np.random.default_rng(2)
        before = future(env, state)
        assert any(not equal_trees(future(env, env.redrawn(state, rng)), before) for _ in range(20))

    def test_a_batch_redraws_as_a_single_env(self, id) -> None:
        env, _ = in_the_middle(id)
        state = env.get_state()
        batch = gymnasium.make_vec(id, 2, vectorization_mode="vector_entry_point")
        one, two = (venv.redrawn(state, np.random.default_rng(3)) for venv in (env, batch.unwrapped))
        assert equal_trees(future(env, one), future(env, two))


def test_futures_have_the_demand_of_the_instance() -> None:
    env, _ = in_the_middle(LOTS, instance="ls-4x2")
    state, rng = env.get_state(), np.random.default_rng(0)
    means = []
    for _ in range(400):
        env.set_state(env.redrawn(state, rng))
        env.step(np.zeros(2, np.int64))
        means.append(env.get_state().demand[-1])
    drawn = np.array(means)
    reference = np.array([first_demand(seed) for seed in range(400)])
    error = np.sqrt(drawn.var(0) / 400 + reference.var(0) / 400)
    assert (np.abs(drawn.mean(0) - reference.mean(0)) < 4.5 * error + 1e-9).all()


def first_demand(seed: int):
    """Demand of the first period of an episode; every period of the instance has the same distribution."""
    env = gymnasium.make(LOTS, instance="ls-4x2").unwrapped
    env.reset(seed=seed)
    env.step(np.zeros(2, np.int64))
    return env.get_state().demand[-1]


def test_what_is_prescribed_stays() -> None:
    env = gymnasium.make(LOTS, instance="ls-4x2").unwrapped
    path = np.ones((env.batch.instance(0).horizon, env.batch.n_items), np.int64)
    env.reset(options={"demand_path": path})
    state = env.get_state()
    assert equal_trees(future(env, env.redrawn(state, np.random.default_rng(0))), future(env, state))
    rivers = gymnasium.make(RIVERS, instance="tri3").unwrapped
    rivers.reset(options={"columns": [0, 0, 0, 0]})
    state = rivers.get_state()
    assert (rivers.redrawn(state, np.random.default_rng(1)).columns == 0).all()
    rivers.reset(seed=0)
    rivers.set_state(state)
    assert rivers.get_state().scripted
    assert not in_the_middle(RIVERS)[0].get_state().scripted
    rivers, _ = in_the_middle(RIVERS, instance="tri3/scenario-4")
    state = rivers.get_state()
    assert (rivers.redrawn(state, np.random.default_rng(0)).columns == state.columns).all()


class TestWrappers:
    def test_starts_at_one_snapshot_have_the_same_observation_and_different_futures(self) -> None:
        snapshots = snapshots_of(LOTS, instance="ls-4x2")
        make = lambda **options: SnapshotWrapper(  # noqa: E731
            gymnasium.make(LOTS, instance="ls-4x2"), snapshots, seed=0, truncate_step=None, **options
        )

        def stock_after(env) -> np.ndarray:
            observation, _ = env.reset(options={"snapshot": 4})
            assert equal_trees(observation, snapshots.observation(4))
            for _ in range(3):
                env.step(np.zeros(2, np.int64))
            return env.unwrapped.get_state().demand[-3:]

        fresh, exact = make(fresh_noise=True), make()
        assert len({stock_after(fresh).tobytes() for _ in range(8)}) > 1
        assert len({stock_after(exact).tobytes() for _ in range(8)}) == 1
        again = make(fresh_noise=True)
        fresh.reset(seed=3)
        again.reset(seed=3)
        assert [stock_after(fresh).tobytes() for _ in range(4)] == [stock_after(again).tobytes() for _ in range(4)]

    def test_a_native_batch(self) -> None:
        snapshots = snapshots_of(LOTS, instance="ls-4x2", n_episodes=1, interval=50)

        def demands(**options) -> int:
            venv = VecSnapshotWrapper(orl.make_vec(LOTS, 20, seed=0, instance="ls-4x2"), snapshots, seed=0, **options)
            observations, starts = venv.reset(), [info["snapshot"]["index"] for info in venv.reset_infos]
            for i, index in enumerate(starts):
                assert equal_trees(row(observations, i), snapshots.observation(index))
            venv.step(np.zeros((20, 2), np.int64))
            seen = [state.demand[-1].tobytes() for state in venv.env_method("get_state")]
            return len({demand for demand, index in zip(seen, starts, strict=True) if index == 0})

        assert demands(fresh_noise=True) > 1
        assert demands() == 1

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_a_copied_env_gets_another_stream(self) -> None:
        env = PlainEnv()
        snapshots = collect_snapshots(RandomTeacher(env), env, n_episodes=1, interval=2, seed=0)
        exact, fresh = (SnapshotWrapper(PlainEnv(), snapshots, seed=0, fresh_noise=on) for on in (False, True))

        def reward(env) -> float:
            env.reset(options={"snapshot": 0})
            return env.step(np.zeros(1, np.float32))[1]

        assert len({reward(exact) for _ in range(5)}) == 1
        assert len({reward(fresh) for _ in range(5)}) == 5

    @pytest.mark.parametrize("id", REDRAWN)
    def test_batches_of_every_kind(self, id) -> None:
        snapshots = snapshots_of(id, n_episodes=1, interval=1000)
        venv = VecSnapshotWrapper(orl.make_vec(id, 8, seed=0), snapshots, seed=0, fresh_noise=True, truncate_step=None)
        observations = venv.reset()
        for i, info in enumerate(venv.reset_infos):
            assert equal_trees(row(observations, i), snapshots.observation(info["snapshot"]["index"]))
        assert len({int(state.key) for state in venv.env_method("get_state")}) == 8

    def test_a_layer_that_owns_the_state_has_to_redraw_it(self) -> None:
        class Counted(gymnasium.Wrapper):
            def get_state(self):
                return {"inner": self.env.unwrapped.get_state()}

            def set_state(self, state):
                return self.env.unwrapped.set_state(state["inner"])

        env = Counted(gymnasium.make(LAKE))
        snapshots = collect_snapshots(RandomTeacher(env), env, n_episodes=1, interval=1, seed=0)
        SnapshotWrapper(env, snapshots)
        with pytest.raises(InputError, match="Counted, fresh_noise"):
            SnapshotWrapper(env, snapshots, fresh_noise=True)

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_copies_of_an_env_that_knows_its_noise_are_refused(self) -> None:
        env = gymnasium.make(LAKE)
        snapshots = collect_snapshots(RandomTeacher(env), env, n_episodes=1, interval=1, seed=0, codec=PickleCodec())
        with pytest.raises(InputError, match="PickleCodec, fresh_noise.*codec=None"):
            SnapshotWrapper(env, snapshots, fresh_noise=True, codec=PickleCodec())

    def test_a_batch_of_wrapped_copies_does_not_take_it(self) -> None:
        snapshots = snapshots_of(LAKE)
        copies = [lambda: SnapshotWrapper(gymnasium.make(LAKE), snapshots, fresh_noise=True)] * 2
        VecSnapshotWrapper(DummyVecEnv(copies))
        with pytest.raises(InputError, match="fresh_noise: each copy"):
            VecSnapshotWrapper(DummyVecEnv(copies), fresh_noise=True)

    def test_states_that_hold_their_noise_need_the_method(self) -> None:
        with pytest.raises(InputError, match=r"CountingEnv, fresh_noise.*redrawn\(state, rng\)"):
            SnapshotWrapper(CountingEnv(), counting_snapshots(), fresh_noise=True)
        shop = "orl:orl/JobShop-v0"
        with pytest.raises(InputError, match="JobShopVectorEnv, fresh_noise"):
            VecSnapshotWrapper(orl.make_vec(shop, 2), snapshots_of(shop), fresh_noise=True)
