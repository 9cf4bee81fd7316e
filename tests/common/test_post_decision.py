"""Post-decision data reach an algorithm unharmed, from every kind of batch and through its wrappers."""

from __future__ import annotations

import gymnasium
import numpy as np
import post_decision_envs
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RescaleObservation, TimeLimit, TransformReward
from post_decision_envs import AttributesOnly, InfosOnly, Shelf
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from orl.common.errors import InputError
from orl.common.post_decision import (
    KEYS,
    FunctionalPostDecision,
    PostDecisionError,
    check_post_decision_env,
    exogenous_sampler,
    has_post_decision,
    post_decision_reader,
)
from orl.common.protocols import PostDecision, PostDecisionModel
from orl.common.vec_env import GymVecEnv
from orl.fast.lean_vec_env import LeanVecEnv

N = 3


def bridge(make, n=N) -> GymVecEnv:
    return GymVecEnv(SyncVectorEnv([make] * n, autoreset_mode=AutoresetMode.SAME_STEP))


BATCHES = {
    "dummy": lambda: DummyVecEnv([Shelf] * N),
    "dummy, wrapped": lambda: VecCheckNan(DummyVecEnv([lambda: Monitor(TimeLimit(Shelf(), 5))] * N)),
    "lean": lambda: LeanVecEnv([Shelf] * N),
    "bridge": lambda: bridge(Shelf),
    "workers": lambda: SubprocVecEnv([Shelf] * 2, start_method="forkserver"),
    "infos": lambda: DummyVecEnv([InfosOnly] * N),
}


def play(venv, steps=40):
    """Random steps: (observations before, actions, result of the step)."""
    venv.seed(0)
    rng = np.random.default_rng(0)
    obs = venv.reset()
    for _ in range(steps):
        actions = rng.integers(4, size=venv.num_envs)
        result = venv.step(actions)
        yield obs, actions, result
        obs = result[0]


@pytest.mark.parametrize("kind", BATCHES)
def test_every_step_is_read_as_its_own_the_last_of_an_episode_too(kind) -> None:
    """Of a shelf the observation before and the action tell what to find; ends are among the steps."""
    venv = BATCHES[kind]()
    read, ends, cuts = post_decision_reader(venv), 0, 0
    for obs, actions, (_, rewards, dones, infos) in play(venv):
        step = read(infos)
        assert step.post_observations.dtype == np.float32
        np.testing.assert_array_equal(step.post_observations[:, 0], obs[:, 0] + actions)
        np.testing.assert_array_equal(step.reward_deterministic, -0.5 * actions)
        np.testing.assert_allclose(step.reward_deterministic + step.reward_stochastic, rewards, rtol=0, atol=1e-6)
        assert has_post_decision(venv, infos)
        ends += dones.sum()
        cuts += sum(info.get("TimeLimit.truncated", False) for info in infos)
    assert ends > cuts > 0
    venv.close()


def test_gymnasiums_own_batch_is_read_and_a_next_step_reset_leaves_the_data_alone() -> None:
    env = SyncVectorEnv([Shelf] * N, autoreset_mode=AutoresetMode.NEXT_STEP)
    read, rng = post_decision_reader(env), np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    over, before, resets = np.zeros(N, np.bool_), None, 0
    for _ in range(40):
        actions = rng.integers(4, size=N)
        nxt, _, terminated, truncated, infos = env.step(actions)
        step = read(infos)
        real = ~over
        np.testing.assert_array_equal(step.post_observations[real, 0], obs[real, 0] + actions[real])
        if over.any():
            resets += 1
            np.testing.assert_array_equal(step.post_observations[over], before.post_observations[over])
        obs, over, before = nxt, terminated | truncated, step
    assert resets > 0


def test_infos_of_gymnasiums_batch_are_read_where_all_copies_have_them() -> None:
    makes = [lambda horizon=horizon: InfosOnly(horizon) for horizon in (3, 7, 7)]
    env = SyncVectorEnv(makes, autoreset_mode=AutoresetMode.NEXT_STEP)
    read = post_decision_reader(env)
    obs, _ = env.reset(seed=0)
    for _ in range(20):
        actions = np.arange(N)
        *_, infos = step = env.step(actions)
        if not np.all(infos["_reward_stochastic"]):
            with pytest.raises(InputError, match="no post-decision data"):
                read(infos)
            return
        np.testing.assert_array_equal(read(infos).post_observations[:, 0], obs[:, 0] + actions)
        obs = step[0]
    raise AssertionError("no episode ended")


def test_what_is_read_does_not_change_later() -> None:
    venv = bridge(Shelf)
    read, kept = post_decision_reader(venv), []
    for _, _, (*_, infos) in play(venv, 10):
        step = read(infos)
        kept.append((step, [np.array(part) for part in step]))
    for step, copies in kept:
        for part, copy in zip(step, copies, strict=True):
            np.testing.assert_array_equal(part, copy)


def test_dict_observations_stay_dicts() -> None:
    venv = VecNormalize(DummyVecEnv([lambda: Shelf(dict_observation=True)] * N), norm_obs_keys=["stock"])
    read = post_decision_reader(venv)
    for _, actions, (*_, infos) in play(venv, 10):
        raw = venv.venv.get_attr("post_decision_observation")
        step = read(infos)
        mean, var = venv.obs_rms["stock"].mean, venv.obs_rms["stock"].var
        stock = np.stack([post["stock"] for post in raw])
        expected = (stock - mean) / np.sqrt(var + venv.epsilon)
        np.testing.assert_allclose(step.post_observations["stock"], expected, rtol=1e-6)
        np.testing.assert_array_equal(step.post_observations["empty"], np.stack([post["empty"] for post in raw]))
        assert actions.shape == (N,)


@pytest.mark.parametrize("training", [True, False])
def test_vec_normalize_treats_observation_and_reward_as_its_own(training) -> None:
    """The shares add up to the normalised reward; the statistics know nothing of what is read."""
    venv = VecNormalize(VecMonitor(DummyVecEnv([Shelf] * N)), clip_reward=1e9, clip_obs=1e9)
    blind = VecNormalize(VecMonitor(DummyVecEnv([Shelf] * N)), clip_reward=1e9, clip_obs=1e9)
    for _ in play(venv, 20):
        pass
    for _ in play(blind, 20):
        pass
    venv.training = blind.training = training
    read = post_decision_reader(venv)
    for (_, actions, (_, rewards, _, infos)), _ in zip(play(venv), play(blind), strict=True):
        step = read(infos)
        np.testing.assert_allclose(step.reward_deterministic + step.reward_stochastic, rewards, rtol=1e-6, atol=1e-7)
        scale = np.sqrt(venv.ret_rms.var + venv.epsilon)
        np.testing.assert_allclose(step.reward_deterministic * scale, -0.5 * actions, rtol=1e-12)
        raw = np.stack(venv.get_attr("post_decision_observation"))
        np.testing.assert_array_equal(step.post_observations, venv.normalize_obs(raw))
        assert step.post_observations.dtype == np.float32
    np.testing.assert_array_equal(venv.obs_rms.mean, blind.obs_rms.mean)
    np.testing.assert_array_equal(venv.obs_rms.var, blind.obs_rms.var)
    assert venv.ret_rms.var == blind.ret_rms.var


def test_a_wrapper_above_vec_normalize_does_not_normalise_again() -> None:
    inner = VecNormalize(DummyVecEnv([Shelf] * N))
    venv = VecMonitor(inner)
    read = post_decision_reader(venv)
    for *_, (*_, infos) in play(venv, 5):
        raw = np.stack(inner.get_attr("post_decision_observation"))
        np.testing.assert_array_equal(read(infos).post_observations, inner.normalize_obs(raw))


def test_vec_normalize_can_leave_observations_or_rewards_as_they_are() -> None:
    venv = VecNormalize(DummyVecEnv([Shelf] * N), norm_obs=False, norm_reward=False)
    read = post_decision_reader(venv)
    for obs, actions, (*_, infos) in play(venv, 5):
        step = read(infos)
        np.testing.assert_array_equal(step.post_observations[:, 0], obs[:, 0] + actions)
        np.testing.assert_array_equal(step.reward_deterministic, -0.5 * actions)


@pytest.mark.parametrize(
    "venv",
    [
        pytest.param(lambda: VecFrameStack(DummyVecEnv([Shelf]), 2), id="frames"),
        pytest.param(lambda: DummyVecEnv([lambda: TransformReward(Shelf(), lambda r: 2 * r)]), id="reward"),
        pytest.param(
            lambda: DummyVecEnv([lambda: RescaleObservation(Shelf(), np.float32(0), np.float32(1))]), id="observation"
        ),
        pytest.param(lambda: bridge(lambda: TransformReward(Shelf(), lambda r: 2 * r)), id="bridge"),
    ],
)
def test_wrappers_that_would_part_steps_from_their_data_are_refused(venv) -> None:
    with pytest.raises(InputError, match="changes"):
        post_decision_reader(venv())


def test_an_env_without_the_data_is_told_how_to_get_them() -> None:
    venv = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])
    assert not has_post_decision(venv)
    venv.reset()
    *_, infos = venv.step(np.array([0]))
    assert not has_post_decision(venv, infos)
    with pytest.raises(InputError, match="FunctionalPostDecision"):
        post_decision_reader(venv)(infos)
    assert exogenous_sampler(venv) is None


def test_reading_before_the_first_step_is_an_error() -> None:
    venv = DummyVecEnv([Shelf])
    venv.reset()
    with pytest.raises(InputError, match="no post-decision data yet"):
        post_decision_reader(venv)([{}])


# ---- further draws --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("normalised", [False, True])
def test_single_envs_draw_through_their_pure_functions(normalised) -> None:
    venv = DummyVecEnv([lambda: Shelf(horizon=2)] * N)
    if normalised:
        venv = VecNormalize(venv, clip_reward=1e9, clip_obs=1e9)
        for _ in play(venv, 20):
            pass
        venv.training = False
    sampler, read = exogenous_sampler(venv), post_decision_reader(venv)
    assert sampler is not None
    venv.seed(0)
    obs = venv.reset()
    raw = venv.get_original_obs() if normalised else obs
    rng, seen, ended = np.random.default_rng(1), set(), 0
    for _ in range(20):
        candidates = np.tile(np.arange(4), (N, 1))
        post, deterministic, following, stochastic, over = sampler.simulate_decisions(candidates, 5)
        scale = np.sqrt(venv.ret_rms.var + venv.epsilon) if normalised else 1.0
        expected = np.stack([raw[:, :1] + candidates, np.full((N, 4), 2.0)], -1).astype(np.float32)
        np.testing.assert_allclose(post, venv.normalize_obs(expected) if normalised else expected, rtol=1e-6)
        np.testing.assert_allclose(deterministic * scale, -0.5 * candidates, atol=1e-12)
        assert following.shape == (N, 4, 5, 2)
        assert stochastic.shape == over.shape == (N, 4, 5)
        # Common random numbers: with two or three more units all demand is met, and it is the same demand.
        sold = (stochastic * scale).round(9)
        np.testing.assert_array_equal(sold[:, 2], sold[:, 3])
        stock = (venv.unnormalize_obs(following) if normalised else following)[..., 0]
        np.testing.assert_array_equal(over, stock < -0.5)

        actions = rng.integers(4, size=N)
        sampler.before_step(actions)
        obs, _, dones, infos = venv.step(actions)
        drawn, rewards, terminated = sampler.exogenous_samples(6)
        assert drawn.shape == (N, 6, 2)
        stock = raw[:, 0] + actions
        left = (venv.unnormalize_obs(drawn) if normalised else drawn)[..., 0].round(4)
        happy = ~terminated
        # Also where the episode has just ended and the copy shows the next one:
        np.testing.assert_allclose(np.minimum(stock[:, None] - rewards * scale, 5)[happy], left[happy], atol=1e-4)
        seen |= set((rewards * scale).round(9).ravel().tolist())
        ended += dones.sum()
        np.testing.assert_allclose(read(infos).reward_deterministic * scale, -0.5 * actions, atol=1e-12)
        raw = venv.get_original_obs() if normalised else obs
    assert ended > 0
    assert seen == {0.0, 1.0, 2.0}


def test_single_envs_draw_anew_in_every_step_and_alike_under_one_seed() -> None:
    def drawn(seed: int) -> list[list[float]]:
        venv = DummyVecEnv([Shelf])
        venv.seed(3)
        venv.reset()
        sampler, rewards = exogenous_sampler(venv, seed), []
        for _ in range(4):
            sampler.before_step(np.array([3]))  # enough to sell, so that what is sold is the demand
            venv.step(np.array([3]))
            rewards.append(sampler.exogenous_samples(12)[1][0].tolist())
        return rewards

    first = drawn(0)
    assert len({tuple(row) for row in first}) == 4
    assert drawn(0) == first
    assert drawn(1) != first


def test_drawing_needs_the_decision_and_an_answer_to_what_ends_an_episode() -> None:
    sampler = exogenous_sampler(DummyVecEnv([Shelf]))
    with pytest.raises(InputError, match="before_step"):
        sampler.exogenous_samples(1)

    with pytest.raises(InputError, match="is_terminal"):
        exogenous_sampler(DummyVecEnv([post_decision_envs.Endless]))
    assert exogenous_sampler(DummyVecEnv([AttributesOnly])) is None


# ---- anyone's env ---------------------------------------------------------------------------------------------------
def push(observation, action):
    """A post-decision state of the pendulum: the torque is known, and so is what it costs."""
    post = observation.copy()
    post[2] = np.clip(post[2] + 0.15 * float(action[0]), -8.0, 8.0)
    return post, -0.001 * float(action[0]) ** 2


def test_a_pure_function_makes_any_env_a_post_decision_env() -> None:
    env = FunctionalPostDecision(gymnasium.make("Pendulum-v1", max_episode_steps=5), push, infos="full")
    assert isinstance(env, PostDecision)
    assert env.post_decision_observation is None
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        action = env.action_space.sample()
        post, deterministic = push(obs, action)
        obs, reward, _, truncated, info = env.step(action)
        np.testing.assert_array_equal(env.post_decision_observation, post)
        assert env.reward_deterministic == deterministic
        assert env.reward_deterministic + env.reward_stochastic == pytest.approx(float(reward))
        for key in KEYS:
            np.testing.assert_array_equal(info[key], getattr(env, key))
    assert truncated
    env.reset()
    np.testing.assert_array_equal(env.post_decision_observation, post)
    assert check_post_decision_env(env) == ("spaces", "rewards")


def test_a_wrapped_env_is_read_in_a_batch_and_made_again_from_its_spec() -> None:
    make = lambda: FunctionalPostDecision(gymnasium.make("Pendulum-v1", max_episode_steps=5), push)  # noqa: E731
    venv = VecNormalize(DummyVecEnv([make] * 2))
    read = post_decision_reader(venv)
    venv.reset()
    *_, infos = venv.step(np.array([[0.5], [-1.0]], np.float32))
    step = read(infos)
    assert step.post_observations.shape == (2, 3)
    scale = np.sqrt(venv.ret_rms.var + venv.epsilon)
    np.testing.assert_allclose(step.reward_deterministic * scale, [-0.00025, -0.001])
    again = gymnasium.make(make().spec)
    assert again.get_wrapper_attr("post_fn") is push


def test_the_wrapper_casts_to_its_space_and_refuses_an_unknown_choice() -> None:
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    env = FunctionalPostDecision(gymnasium.make("CartPole-v1"), lambda obs, action: ([1.0], 0.0), space)
    env.reset(seed=0)
    env.step(0)
    assert env.post_decision_observation.dtype == np.float32
    with pytest.raises(InputError, match="infos"):
        FunctionalPostDecision(gymnasium.make("CartPole-v1"), push, infos="some")


# ---- the checker ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
def test_the_checker_accepts_an_env_that_keeps_the_rules(seed) -> None:
    every = ("spaces", "rewards", "decisions", "markov", "draws")
    assert isinstance(Shelf(), PostDecisionModel)
    assert check_post_decision_env(Shelf(), seed=seed) == every
    assert check_post_decision_env(TimeLimit(Shelf(dict_observation=True), 4), seed=seed) == every
    assert check_post_decision_env(AttributesOnly(), seed=seed) == ("spaces", "rewards")


@pytest.mark.parametrize(
    "name, message",
    [
        ("OutsideItsSpace", "lies outside"),
        ("OtherLayout", "another layout"),
        ("SharesThatDoNotAddUp", "its shares"),
        ("OneBufferForAll", "overwrote"),
        ("ResetClears", "a reset changed"),
        ("RandomDecision", "two answers"),
        ("ForgetsTheOrder", "their futures differ"),
        ("OtherDraws", "disagree about"),
        ("MutatesTheState", "changed the state"),
        ("Endless", "no is_terminal"),
        ("InfosOnly", "no attribute post_decision_space"),
    ],
)
def test_the_checker_names_the_rule_that_is_broken(name, message) -> None:
    with pytest.raises(PostDecisionError, match=message):
        check_post_decision_env(getattr(post_decision_envs, name)())
