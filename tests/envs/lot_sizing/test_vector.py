"""The native batch: equal to its single envs, automatic resets, side channels, further draws of demand."""

from __future__ import annotations

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from lot_sizing_cases import DEMANDS, instance_of
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

import orl
from orl.common.action_masks import random_legal_actions
from orl.common.batched_values import equal_trees, row
from orl.common.errors import IllegalActionError, InputError
from orl.common.post_decision import exogenous_sampler, post_decision_reader
from orl.common.protocols import CloneableBatch, ExogenousSampler, PostDecision
from orl.common.vector_env_checker import check_vector_env
from orl.envs.lot_sizing.env import LotSizingEnv
from orl.envs.lot_sizing.vector import LotSizingVectorEnv


def legal(env, rng):
    return random_legal_actions(env.single_action_space, env.action_masks(), rng)


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
@pytest.mark.parametrize(
    "options",
    [
        {"instance": instance_of("correlated", backlog=True, horizon=7)},
        {"instance": "ls-2x1/scenario-5", "observation": "raw", "append_time": True},
        {"instance": instance_of("seasonal"), "observation": "dict", "append_time": True, "time_limit": "terminal"},
        {"instance": instance_of(), "incompatible": "reference", "infos": "full", "reward_scale": 0.1},
        {"instance": instance_of(), "copy": False, "init": "fixed"},
    ],
    ids=["correlated", "scenario", "seasonal-dict", "reference-full", "buffers"],
)
def test_it_conforms_and_equals_its_single_envs(options, mode):
    env = LotSizingVectorEnv(3, autoreset_mode=mode, **options)
    alone = {key: value for key, value in options.items() if key != "copy"}
    check_vector_env(env, single=lambda: LotSizingEnv(**alone), steps=40)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_copies_are_the_single_envs_of_the_next_seeds(n):
    instance = instance_of("item-specific", backlog=True, horizon=6)
    env = LotSizingVectorEnv(n, instance)
    singles = [LotSizingEnv(instance) for _ in range(n)]
    obs, _ = env.reset(seed=20)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=20 + i)[0], obs[i])
    rng = np.random.default_rng(0)
    for _ in range(14):
        actions = legal(env, rng)
        obs, rewards, _, truncated, infos = env.step(actions)
        for i, single in enumerate(singles):
            mine, reward, _, over, info = single.step(actions[i])
            assert reward == rewards[i]
            assert over == truncated[i]
            np.testing.assert_array_equal(single.post_decision_observation, env.post_decision_observation[i])
            if over:
                assert infos["final_info"]["objective"][i] == info["objective"]
                assert infos["final_info"]["bound"][i] == info["bound"]
                mine, _ = single.reset()
            np.testing.assert_array_equal(mine, obs[i])


def test_illegal_actions_idle_and_are_counted_or_raise():
    instance = instance_of()
    machine, item = np.argwhere(instance.production == 0)[0]
    actions = np.zeros((2, 3), int)
    actions[1, machine] = item + 1
    env = LotSizingVectorEnv(2, instance)
    env.reset(seed=0)
    env.action_masks()
    env.step(actions)
    assert env.illegal_actions.tolist() == [0, 1]
    assert not env.batch.setup.any()
    strict = LotSizingVectorEnv(2, instance, illegal="raise")
    strict.reset(seed=0)
    with pytest.raises(IllegalActionError, match="copy 1"):
        strict.step(actions)
    with pytest.raises(IllegalActionError):
        strict.simulate_decisions(actions[:, None])
    assert not strict.batch.period.any()


def test_terminal_infos_are_columns_of_the_ended_copies():
    instances = [instance_of(horizon=3), instance_of(horizon=5, seed=1)]
    env = LotSizingVectorEnv(8, instances)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    ended = np.zeros(8, bool)
    for t in range(1, 6):
        before = env.instances
        _, _, terminated, truncated, infos = env.step(legal(env, rng))
        assert not terminated.any()
        np.testing.assert_array_equal(truncated & ~ended, [i.horizon == t for i in before] & ~ended)
        if not truncated.any():
            assert infos == {}
            continue
        final = infos["final_info"]
        np.testing.assert_array_equal(infos["_final_info"], truncated)
        for b in np.flatnonzero(truncated):
            check = before[b].check(final["solution"][b])
            assert check.feasible
            assert check.objective == final["objective"][b] >= final["bound"][b] >= 0.0
            assert infos["final_obs"][b].shape == env.single_observation_space.shape
        ended |= truncated
    assert ended.all()


def test_a_cut_episode_has_no_objective():
    env = LotSizingVectorEnv(2, instance_of(horizon=6), max_episode_steps=4)
    env.reset(seed=0)
    for _ in range(4):
        _, _, terminated, truncated, infos = env.step(np.zeros((2, 3), int))
    assert truncated.all()
    assert not terminated.any()
    final = infos["final_info"]
    assert np.isinf(final["objective"]).all()
    assert (final["bound"] == 0.0).all()
    assert len(final["solution"][0].actions) == 4


def test_reset_options_may_differ_between_copies():
    env = LotSizingVectorEnv(2, "ls-2x1")
    env.reset(seed=0, options={"inventory": np.array([[1, 2], [3, 4]]), "setup": np.array([0])})
    np.testing.assert_array_equal(env.batch.inventory, [[1, 2], [3, 4]])
    assert not env.batch.setup.any()
    path = np.array([[1, 0], [0, 1], [1, 1]])
    mask = np.array([False, True])
    env.reset(options={"demand_path": path, "inventory": np.array([5, 5]), "reset_mask": mask})
    np.testing.assert_array_equal(env.batch.inventory, [[1, 2], [5, 5]])
    for _ in range(3):
        *_, infos = env.step(np.zeros((2, 1), int))
    np.testing.assert_array_equal(infos["final_info"]["solution"][1].demand, path)
    assert not env.batch.scripted.any()
    with pytest.raises(InputError, match="inventory"):
        env.reset(options={"inventory": np.zeros((3, 2), int)})


# ---- side channels -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_the_side_channels_of_a_last_step_are_its_own(mode):
    instance = instance_of(horizon=2)
    env = LotSizingVectorEnv(3, instance, autoreset_mode=mode, observation="raw")
    assert isinstance(env, PostDecision)
    assert isinstance(env, CloneableBatch)
    env.reset(seed=0)
    assert env.post_decision_observation is None
    rng = np.random.default_rng(0)
    env.step(legal(env, rng))
    level, setup = env.batch.inventory.copy(), env.batch.setup.copy()
    actions = legal(env, rng)
    from orl.envs.lot_sizing.transition import decide

    post, new_setup, cost = decide(instance, level, setup, actions)
    _, rewards, _, truncated, _ = env.step(actions)
    assert truncated.all()
    expected = np.concatenate([post, new_setup], axis=1)
    np.testing.assert_array_equal(env.post_decision_observation, expected)
    np.testing.assert_array_equal(env.reward_deterministic, -cost)
    np.testing.assert_array_equal(env.reward_deterministic + env.reward_stochastic, rewards)
    held = env.post_decision_observation
    if mode is AutoresetMode.NEXT_STEP:
        _, rewards, *_ = env.step(actions)
        np.testing.assert_array_equal(env.post_decision_observation, expected)
        assert not rewards.any()
        assert not env.reward_stochastic.any()
    env.reset(seed=1)
    np.testing.assert_array_equal(env.post_decision_observation, expected)
    env.step(legal(env, rng))
    np.testing.assert_array_equal(held, expected)


def test_full_infos_hold_the_side_channels_of_ended_copies_in_their_final_infos():
    env = LotSizingVectorEnv(2, [instance_of(horizon=2), instance_of(horizon=3, seed=1)], infos="full")
    for seed in range(50):
        env.reset(seed=seed)
        if [i.horizon for i in env.instances] == [2, 3]:
            break
    env.step(np.zeros((2, 3), int))
    *_, infos = env.step(np.zeros((2, 3), int))
    assert infos["_post_decision_observation"].tolist() == [False, True]
    final = infos["final_info"]
    assert final["_post_decision_observation"].tolist() == [True, False]
    np.testing.assert_array_equal(final["post_decision_observation"][0], env.post_decision_observation[0])
    assert final["reward_stochastic"][0] == env.reward_stochastic[0]


def test_the_bridge_and_single_envs_tell_the_same():
    venv = VecMonitor(orl.make_vec("orl:orl/LotSizing-v0", 3, seed=4, instance="ls-2x1"))
    singles = DummyVecEnv([lambda: LotSizingEnv("ls-2x1", infos="full") for _ in range(3)])
    singles.seed(4)
    np.testing.assert_array_equal(venv.reset(), singles.reset())
    read, read_singles = post_decision_reader(venv), post_decision_reader(singles)
    for _ in range(7):
        actions = np.ones((3, 1), int)
        obs, rewards, dones, infos = venv.step(actions)
        others = singles.step(actions)
        np.testing.assert_array_equal(obs, others[0])
        np.testing.assert_array_equal(rewards, others[1])
        np.testing.assert_array_equal(dones, others[2])
        assert equal_trees(tuple(read(infos)), tuple(read_singles(others[3])))
        for i in np.flatnonzero(dones):
            np.testing.assert_array_equal(infos[i]["terminal_observation"], others[3][i]["terminal_observation"])
            assert infos[i]["objective"] == others[3][i]["objective"]
    assert venv.get_attr("post_decision_space")[0] == singles.get_attr("post_decision_space")[0]


# ---- further draws -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("demand", ["binomial", "correlated", "seasonal"])
def test_draws_are_common_to_all_actions_and_none_is_what_happens(demand):
    """Stock large enough that demand can be read off the next observation."""
    instance = instance_of(demand)
    env = LotSizingVectorEnv(4, instance, observation="raw", incompatible="waste")
    assert isinstance(env, ExogenousSampler)
    env.reset(seed=0)
    state = [env.get_state(i) for i in range(4)]
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(3):
        for i in range(4):
            env.set_state(i, state[i])
        env.step(rng.integers(0, 5, (4, 3)))
        rows, _, _ = env.exogenous_samples(5)
        post = env.batch.post_inventory
        came = instance.demand.draw(env.batch.post_keys[:, None], 0, np.arange(6))
        np.testing.assert_array_equal(env.batch.history[0][:, 0], came[:, 0])
        left = np.clip(post[:, None] - came[:, 1:], 0, instance.max_inventory)
        np.testing.assert_array_equal(rows[..., :4], left)
        seen.append(came)
    assert all(np.array_equal(seen[0], other) for other in seen)
    assert not np.array_equal(seen[0][:, 0], seen[0][:, 1])


def test_simulated_decisions_are_what_the_same_step_would_have_drawn():
    env = LotSizingVectorEnv(5, instance_of("correlated", backlog=True), append_time=True)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    env.step(legal(env, rng))
    candidates = np.stack([legal(env, rng) for _ in range(6)], axis=1)
    between, deterministic, following, stochastic, terminated = env.simulate_decisions(candidates, 7)
    states = [env.get_state(i) for i in range(5)]
    for a in range(6):
        for i in range(5):
            env.set_state(i, states[i])
        env.step(candidates[:, a])
        np.testing.assert_array_equal(env.post_decision_observation, between[:, a])
        np.testing.assert_array_equal(env.reward_deterministic, deterministic[:, a])
        rows, rewards, ends = env.exogenous_samples(7)
        np.testing.assert_array_equal(rows, following[:, a])
        np.testing.assert_array_equal(rewards, stochastic[:, a])
        np.testing.assert_array_equal(ends, terminated[:, a])


def test_draws_follow_the_demand_table():
    instance = instance_of(n_items=2, n_machines=1)
    env = LotSizingVectorEnv(50, instance, observation="raw")
    start = np.minimum(instance.max_inventory, 20)
    assert (start > 9).all()  # demand is at most 9, so that none is lost
    env.reset(seed=0, options={"inventory": start})
    env.step(np.zeros((50, 1), int))
    rows, _, _ = env.exogenous_samples(200)
    values, probabilities = instance.demand.table(0)
    for i in range(2):
        came = (start[i] - rows[..., i]).astype(int)
        expected = came.size * probabilities[i][values[i]]
        seen = np.bincount(came.ravel(), minlength=10)
        inside = expected > 5
        assert ((seen - expected)[inside] ** 2 / expected[inside]).sum() < 30.0  # 9 degrees of freedom, p < 0.001


@pytest.mark.parametrize("time_limit", ["truncate", "terminal"])
def test_draws_of_a_last_step_come_before_the_reset(time_limit):
    """Also where every episode has an instance of its own."""

    def generator(rng):
        return instance_of(horizon=2, seed=int(rng.integers(1000)))

    env = LotSizingVectorEnv(4, generator, time_limit=time_limit, observation="raw", append_time=True)
    env.reset(seed=0)
    env.step(np.zeros((4, 3), int))
    played = env.instances
    env.step(np.zeros((4, 3), int))
    keys, post = env.batch.post_keys.copy(), env.batch.post_inventory.copy()
    for again in range(3):
        rows, _, terminated = env.exogenous_samples(3)
        assert terminated.all() == (time_limit == "terminal")
        assert (rows[..., -1] == 1.0).all()
        for b, instance in enumerate(played):
            came = instance.demand.draw(keys[b], 1, np.arange(1, 4))
            left = np.clip(post[b] - came, 0, instance.max_inventory)
            np.testing.assert_array_equal(rows[b, :, :4], left)
        env.reset(seed=10 + again)
        env.set_state(0, env.get_state(1))


def test_a_scenario_draws_alternatives_from_the_distribution():
    scenario = instance_of().scenario(3)
    env = LotSizingVectorEnv(2, scenario)
    env.reset(seed=0)
    env.step(np.zeros((2, 3), int))
    np.testing.assert_array_equal(env.batch.history[0][:, 0], [scenario.demand_path[0]] * 2)
    _, rewards, _ = env.exogenous_samples(32)
    assert len(np.unique(rewards[0])) > 4
    assert not np.array_equal(rewards[0], rewards[1])


@pytest.mark.parametrize("demand", DEMANDS)
def test_the_sampler_works_through_the_bridge(demand):
    venv = orl.make_vec("orl:orl/LotSizing-v0", 2, seed=0, instance=instance_of(demand), observation="dict")
    venv.reset()
    draws = exogenous_sampler(venv)
    actions = np.zeros((2, 3), int)
    draws.before_step(actions)
    venv.step(actions)
    observations, rewards, terminated = draws.exogenous_samples(0)
    assert rewards.shape == terminated.shape == (2, 0)
    observations, rewards, _ = draws.exogenous_samples(3)
    assert observations["inventory"].shape == (2, 3, 4)
    assert observations["setup"].shape == (2, 3, 3)
    assert all(venv.observation_space.contains(row(row(observations, b), k)) for b in range(2) for k in range(3))


def test_bad_requests_for_draws_are_refused():
    env = LotSizingVectorEnv(2, "ls-4x2")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.simulate_decisions(np.zeros((2, 1, 2), int))
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.exogenous_samples(1)
    with pytest.raises(InputError, match="actions"):
        env.simulate_decisions(np.zeros((2, 2), int))
    env.step(np.zeros((2, 2), int))
    for bad in (-1, 1.5, True):
        with pytest.raises(InputError, match="n_samples"):
            env.exogenous_samples(bad)


# ---- snapshots and misuse ------------------------------------------------------------------------------------------
def test_copies_and_pickles_of_a_batch_are_independent():
    env = LotSizingVectorEnv(3, instance_of(horizon=4), copy=False)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    env.step(legal(env, rng))
    clones = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    plays = [legal(env, rng) for _ in range(6)]
    expected = [[copy.deepcopy(part) for part in env.step(actions)[:4]] for actions in plays]
    for clone in clones:
        for actions, want in zip(plays, expected, strict=True):
            assert equal_trees(tuple(clone.step(actions)[:4]), tuple(want))


def test_buffers_are_read_only():
    env = LotSizingVectorEnv(2, "ls-4x2", copy=False)
    obs, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="read-only"):
        obs[0] = 0.0
    assert np.shares_memory(obs, env.step(np.zeros((2, 2), int))[0])


def test_a_finished_snapshot_must_be_reset_before_a_step():
    single = LotSizingEnv("ls-2x1")
    single.reset(seed=0)
    for _ in range(3):
        single.step(np.array([0]))
    env = LotSizingVectorEnv(2, single.instance)
    env.reset(seed=0)
    env.set_state(1, single.get_state())
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"\[1\]"):
        env.step(np.zeros((2, 1), int))
    env.reset(options={"reset_mask": np.array([False, True])})
    env.step(np.zeros((2, 1), int))


def test_misuse_is_named():
    with pytest.raises(InputError, match="num_envs"):
        LotSizingVectorEnv(0)
    with pytest.raises(InputError, match="max_episode_steps"):
        LotSizingVectorEnv(2, max_episode_steps=0)
    with pytest.raises(InputError, match="autoreset_mode"):
        LotSizingVectorEnv(2, autoreset_mode="never")
    env = LotSizingVectorEnv(2, "ls-4x2")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 2), int))
    env.reset(seed=0)
    for actions in (np.zeros(2, int), np.zeros((2, 2)), np.zeros((3, 2), int)):
        with pytest.raises(InputError, match="actions"):
            env.step(actions)
    with pytest.raises(InputError, match="reset_mask"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(InputError, match="seed"):
        env.reset(seed=[1, 2, 3])
