"""Both faces of the lake: episodes, post-decision data, further draws."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import orl
from orl.common.errors import InputError
from orl.common.post_decision import (
    check_post_decision_env,
    exogenous_sampler,
    has_post_decision,
    post_decision_reader,
)
from orl.common.protocols import ExogenousSampler, PostDecision, PostDecisionModel
from orl.envs.frozen_lake.env import PostDecisionFrozenLakeEnv
from orl.envs.frozen_lake.instance import LakeInstance
from orl.envs.frozen_lake.library import load
from orl.envs.frozen_lake.transition import decide
from orl.envs.frozen_lake.vector import PostDecisionFrozenLakeVectorEnv
from orl.fast.lean_vec_env import LeanVecEnv

ID = "orl:orl/PostDecisionFrozenLake-v0"
LAKE = "lake-4x4"
RULES = ("spaces", "rewards", "decisions", "markov", "draws")


@pytest.mark.parametrize("kwargs", [{}, {"append_time": True, "time_limit": "terminal"}, {"reward": "sparse"}])
def test_the_post_decision_protocol_is_kept(kwargs) -> None:
    env = gymnasium.make(ID, instance=LAKE, **kwargs)
    assert isinstance(env.unwrapped, PostDecision)
    assert isinstance(env.unwrapped, PostDecisionModel)
    assert check_post_decision_env(env, 120) == RULES


def test_an_episode_ends_at_the_goal_in_a_hole_or_at_the_horizon() -> None:
    env, endings = PostDecisionFrozenLakeEnv(replace(load(LAKE), horizon=12)), set()
    env.action_space.seed(0)
    for seed in range(150):
        env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            obs, _, terminated, truncated, info = env.step(env.action_space.sample())
        letter = "".join(env.instance.tiles)[int(obs.argmax())]
        endings.add((letter if terminated else "horizon", bool(info["success"])))
        assert terminated == (letter in "HG")
        assert terminated or len(info["solution"].actions) == 12
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
    assert endings == {("H", False), ("G", True), ("horizon", False)}


def test_a_terminal_time_limit_terminates_and_the_time_is_observed() -> None:
    lake = LakeInstance("dry", ("SF", "HG"), np.full((4, 4), 0.25), slip_probability=0.0, horizon=4)
    env = PostDecisionFrozenLakeEnv(lake, append_time=True, time_limit="terminal")
    obs, _ = env.reset(seed=0)
    assert obs.tolist() == [1, 0, 0, 0, 0]
    for t in range(1, 5):
        obs, _, terminated, truncated, _ = env.step(0)
        assert obs[-1] == pytest.approx(t / 4)
        assert env.post_decision_observation[-1] == pytest.approx((t - 1) / 4)
        assert (terminated, truncated) == (t == 4, False)


def test_the_sparse_return_is_the_success() -> None:
    env = PostDecisionFrozenLakeEnv(LAKE, reward="sparse")
    assert env.instance.name == "lake-4x4/sparse"
    env.action_space.seed(0)
    returns = []
    for seed in range(30):
        env.reset(seed=seed)
        done, total = False, 0.0
        while not done:
            _, reward, terminated, truncated, info = env.step(env.action_space.sample())
            total, done = total + reward, terminated or truncated
        assert total == float(info["success"]) == -info["objective"]
        returns.append(total)
    assert set(returns) == {0.0, 1.0}


def test_the_same_seed_slips_alike_whatever_is_done_before() -> None:
    """Noise depends on key and step alone: two walks that meet slip by the same numbers."""
    one, two = (PostDecisionFrozenLakeEnv("lake-10x10-5") for _ in range(2))
    one.reset(seed=5)
    two.reset(seed=5)
    one.step(0)
    two.step(3)
    two.set_state(two.get_state()._replace(tile=one.get_state().tile))
    assert one.step(1)[0].argmax() == two.step(1)[0].argmax()


BATCHES = {
    "native": lambda n, **kw: VecMonitor(orl.make_vec(ID, n, instance=LAKE, **kw)),
    "dummy": lambda n, **kw: DummyVecEnv([lambda: gymnasium.make(ID, instance=LAKE, **kw)] * n),
    "lean": lambda n, **kw: LeanVecEnv([lambda: gymnasium.make(ID, instance=LAKE, **kw)] * n),
    "sync": lambda n, **kw: orl.make_vec(ID, n, instance=LAKE, vectorization_mode="sync", **kw),
}


@pytest.mark.parametrize("infos", ["lean", "full"])
@pytest.mark.parametrize("kind", BATCHES)
def test_the_last_step_of_an_episode_is_read_as_its_own(kind, infos) -> None:
    venv = BATCHES[kind](4, infos=infos)
    assert has_post_decision(venv)
    read, tables = post_decision_reader(venv), load(LAKE).tables
    venv.seed(0)
    obs, rng, ends = venv.reset(), np.random.default_rng(0), 0
    for _ in range(60):
        actions = rng.integers(0, 4, 4)
        following, rewards, dones, found = venv.step(actions)
        step = read(found)
        posts, deterministic = decide(tables, obs.argmax(1), actions)
        np.testing.assert_array_equal(step.post_observations, np.eye(16, dtype=np.float32)[posts])
        np.testing.assert_array_equal(step.reward_deterministic, deterministic)
        np.testing.assert_allclose(step.reward_deterministic + step.reward_stochastic, rewards, rtol=1e-6)
        for i, info in enumerate(found):
            assert ("post_decision_observation" in info) == (infos == "full")
            if infos == "full":
                np.testing.assert_array_equal(info["post_decision_observation"], step.post_observations[i])
                assert info["reward_deterministic"] == step.reward_deterministic[i]
                assert info["reward_stochastic"] == step.reward_stochastic[i]
        ends += int(dones.sum())
        obs = following
    assert ends > 5


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_gymnasiums_modes_leave_the_data_of_the_last_step_alone(mode) -> None:
    env = gymnasium.make_vec(ID, 4, instance=LAKE, infos="full", autoreset_mode=mode)
    rng, tables = np.random.default_rng(0), load(LAKE).tables
    obs, _ = env.reset(seed=0)
    over, ends, before = np.zeros(4, np.bool_), 0, None
    for _ in range(60):
        if mode is AutoresetMode.DISABLED and over.any():
            obs, _ = env.reset(options={"reset_mask": over})
            np.testing.assert_array_equal(env.unwrapped.post_decision_observation, before)
            over = np.zeros(4, np.bool_)
        actions = rng.integers(0, 4, 4)
        real = np.ones(4, np.bool_) if mode is AutoresetMode.SAME_STEP else ~over
        following, rewards, terminated, truncated, infos = env.step(actions)
        data = env.unwrapped
        posts, deterministic = decide(tables, obs.argmax(1), actions)
        expected = np.eye(16, dtype=np.float32)[posts]
        np.testing.assert_array_equal(data.post_decision_observation[real], expected[real])
        np.testing.assert_array_equal(data.reward_deterministic[real], deterministic[real])
        np.testing.assert_allclose((data.reward_deterministic + data.reward_stochastic)[real], rewards[real])
        if not real.all():
            np.testing.assert_array_equal(data.post_decision_observation[~real], before[~real])
        over = terminated | truncated
        if mode is AutoresetMode.SAME_STEP and over.any():
            np.testing.assert_array_equal(infos["_post_decision_observation"], ~over)
            np.testing.assert_array_equal(infos["final_info"]["_post_decision_observation"], over)
        else:
            np.testing.assert_array_equal(infos["_post_decision_observation"], real)
        before, obs, ends = data.post_decision_observation, following, ends + int(over.sum())
    assert ends > 5


def test_vec_normalize_applies_to_the_native_batch() -> None:
    venv = VecNormalize(orl.make_vec(ID, 4, instance=LAKE, seed=0), clip_reward=1e9, clip_obs=1e9)
    read, sampler = post_decision_reader(venv), exogenous_sampler(venv)
    venv.reset()
    for t in range(30):
        actions = np.full(4, t % 4)
        sampler.before_step(actions)
        _, rewards, _, infos = venv.step(actions)
        step = read(infos)
        np.testing.assert_allclose(step.reward_deterministic + step.reward_stochastic, rewards, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(step.post_observations, venv.normalize_obs(venv.post_decision_observation))
        raw, normalised = venv.venv.env.exogenous_samples(3), sampler.exogenous_samples(3)
        np.testing.assert_array_equal(normalised[0], venv.normalize_obs(raw[0]))
        np.testing.assert_allclose(normalised[1] * np.sqrt(venv.ret_rms.var + venv.epsilon), raw[1])
        np.testing.assert_array_equal(normalised[2], raw[2])


# ---- further draws --------------------------------------------------------------------------------------------------
def test_further_draws_are_the_distribution_of_the_step_and_change_nothing() -> None:
    """Many copies in one state: what happens to them, and what is drawn for one of them, by a chi-square test."""
    n = 4000
    env = PostDecisionFrozenLakeVectorEnv(n, LAKE, time_limit="terminal", append_time=True)
    assert isinstance(env, ExogenousSampler)
    env.reset(seed=0)
    envs_before = [env.get_state(i) for i in (0, 7)]
    post, deterministic, following, stochastic, over = env.simulate_decisions(np.tile([1, 2], (n, 1)), 2)
    assert post.shape == (n, 2, 17)
    assert following.shape == (n, 2, 2, 17)
    assert stochastic.shape == over.shape == (n, 2, 2)
    for before, i in zip(envs_before, (0, 7), strict=True):
        assert str(env.get_state(i)) == str(before)
    obs, rewards, terminated, _, infos = env.step(np.full(n, 1))
    np.testing.assert_array_equal(post[:, 0], env.post_decision_observation)
    np.testing.assert_array_equal(deterministic[:, 0], env.reward_deterministic)
    drawn, draws, ends = env.exogenous_samples(2)
    np.testing.assert_array_equal(drawn, following[:, 0])  # the same draws 1 and 2
    np.testing.assert_array_equal(draws, stochastic[:, 0])
    np.testing.assert_array_equal(ends, over[:, 0])
    happened = obs.copy()
    for i in np.flatnonzero(terminated):
        happened[i] = infos["final_obs"][i]
    probabilities = np.zeros(16)
    tables = env.batch.lake.tables
    np.add.at(probabilities, tables.neighbours[4], 0.5 * tables.directions[4])
    probabilities[4] += 0.5
    for tiles in (happened[:, :16].argmax(1), drawn[:, 0, :16].argmax(1), drawn[:, 1, :16].argmax(1)):
        counts, possible = np.bincount(tiles, minlength=16), probabilities > 0
        assert counts[~possible].sum() == 0
        expected = n * probabilities[possible]
        assert (((counts[possible] - expected) ** 2) / expected).sum() < 25  # four degrees of freedom
    stayed = happened[:, :16].argmax(1) == 4
    slipped_into_the_wall = tables.arrival[4]
    assert set((rewards - env.reward_deterministic)[stayed].round(12)) == {0.0, slipped_into_the_wall.round(12)}
    np.testing.assert_allclose(drawn[..., -1], 0.01)


def test_draws_belong_to_the_last_step_also_after_its_episode_ended() -> None:
    """From the tile beside the goal straight onto it: every draw ends there too."""
    lake = load(LAKE)
    env = PostDecisionFrozenLakeVectorEnv(2, lake)
    env.reset(seed=0)
    env.set_state(1, env.get_state(1)._replace(tile=14))
    obs, _, terminated, _, _ = env.step(np.array([0, 2]))
    assert terminated.tolist() == [False, True]
    assert obs[1].argmax() == 0
    drawn, rewards, over = env.exogenous_samples(5)
    assert (drawn[1].argmax(-1) == 15).all()
    assert over[1].all()
    assert (rewards[1] == 0.0).all()
    assert env.post_decision_observation[1].argmax() == 15


def test_common_noise_makes_the_same_slip_for_every_action_that_leads_to_one_tile() -> None:
    env = PostDecisionFrozenLakeVectorEnv(50, "lake-10x10-1")
    env.reset(seed=0)
    post, _, following, stochastic, _ = env.simulate_decisions(np.tile([0, 3], (50, 1)), 8)  # both into a wall
    np.testing.assert_array_equal(post[:, 0], post[:, 1])
    np.testing.assert_array_equal(following[:, 0], following[:, 1])
    np.testing.assert_array_equal(stochastic[:, 0], stochastic[:, 1])
    assert len(np.unique(following[:, 0].argmax(-1))) > 1


def test_further_draws_need_a_step_and_existing_actions() -> None:
    env = PostDecisionFrozenLakeVectorEnv(2, LAKE)
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.exogenous_samples(1)
    assert env.post_decision_observation is None
    with pytest.raises(InputError, match="actions"):
        env.simulate_decisions(np.zeros(2, np.int64))
    with pytest.raises(InputError, match="no such action"):
        env.simulate_decisions(np.full((2, 1), 4))


@pytest.mark.parametrize(
    "kwargs, field",
    [
        ({"reward": "dense"}, "reward"),
        ({"time_limit": "never"}, "time_limit"),
        ({"illegal": "ignore"}, "illegal"),
        ({"infos": "some"}, "infos"),
        ({"render_mode": "human"}, "render_mode"),
    ],
)
def test_unknown_choices_are_named(kwargs, field) -> None:
    for make in (PostDecisionFrozenLakeEnv, lambda **kw: PostDecisionFrozenLakeVectorEnv(2, **kw)):
        with pytest.raises(InputError, match=field):
            make(**kwargs)


def test_actions_that_do_not_exist_are_refused() -> None:
    env = PostDecisionFrozenLakeEnv(LAKE)
    env.reset(seed=0)
    for action in (4, -1, 0.5):
        with pytest.raises(InputError, match="action"):
            env.step(action)
    envs = PostDecisionFrozenLakeVectorEnv(2, LAKE)
    envs.reset(seed=0)
    for actions in (np.array([0, 4]), np.array([0]), np.array([0.0, 1.0])):
        with pytest.raises(InputError, match="action"):
            envs.step(actions)


def test_a_finished_snapshot_is_not_walked_on_from() -> None:
    envs = PostDecisionFrozenLakeVectorEnv(2, "lake-4x4")
    envs.reset(seed=0)
    goal = int(envs.batch.lake.tables.goal)
    envs.set_state(1, envs.get_state(1)._replace(tile=goal))
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"copies \[1\] are finished"):
        envs.step(np.array([1, 1]))
    envs.reset(options={"reset_mask": np.array([False, True])})
    envs.step(np.array([1, 1]))
