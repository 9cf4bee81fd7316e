"""The single environment: order of events, spaces, options, scenarios, post-decision data, snapshots."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from lot_sizing_cases import instance_of
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from orl.common.action_masks import random_legal_actions
from orl.common.batched_values import equal_trees
from orl.common.errors import IllegalActionError, InputError
from orl.common.post_decision import check_post_decision_env
from orl.common.protocols import Cloneable, ExogenousSampler, PostDecision, PostDecisionModel
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.distributions import deterministic
from orl.envs.lot_sizing.env import LotSizingEnv
from orl.envs.lot_sizing.instance import LotSizingInstance

pytestmark = pytest.mark.filterwarnings("ignore::orl.common.illegal_actions.UnmaskedPolicyWarning")

LAYOUTS = [
    {},
    {"append_time": True},
    {"observation": "raw", "append_time": True},
    {"observation": "inventory"},
    {"observation": "dict"},
    {"observation": "dict", "append_time": True},
]


def one_item(**changes) -> LotSizingInstance:
    """One item with 40 units a period, at most 100 in stock, demand 8."""
    fields = {
        "horizon": 3,
        "production": [[40]],
        "setup_costs": [[7.0]],
        "setup_loss": [[3]],
        "holding_costs": 0.5,
        "lost_sales_costs": 2.0,
        "max_inventory": 100,
        "demand": deterministic([8]),
    }
    return lot_sizing(**{**fields, **changes})


def play(env, actions, **options):
    """Rewards of an episode with given actions, from given options."""
    env.reset(seed=0, options=options)
    return [env.step(np.array(action))[1] for action in actions]


def random_episode(env, seed=0):
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    while True:
        action = random_legal_actions(env.action_space, env.action_masks()[None], rng)[0]
        *_, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return info


# ---- the order of events -------------------------------------------------------------------------------------------
def test_the_cap_applies_after_demand():
    env = LotSizingEnv(one_item(), observation="raw")
    env.reset(options={"inventory": np.array([100]), "setup": np.array([1])})
    obs, reward, *_ = env.step(np.array([1]))
    assert env.post_decision_observation.tolist() == [140.0, 1.0]
    assert obs.tolist() == [100.0, 1.0]
    assert reward == -50.0


def test_the_loss_of_a_change_over_comes_once_and_idling_forgets_it():
    env = LotSizingEnv(one_item(holding_costs=0.0))
    inventory, setup = np.array([50]), np.array([0])
    assert play(env, [[1], [1], [1]], inventory=inventory, setup=setup) == [-7.0, 0.0, 0.0]
    assert play(env, [[1], [0], [1]], inventory=inventory, setup=setup) == [-7.0, 0.0, -7.0]
    assert play(env, [[1], [1], [1]], inventory=inventory, setup=np.array([1])) == [0.0, 0.0, 0.0]
    env.reset(options={"inventory": inventory, "setup": setup})
    env.step(np.array([1]))
    assert env.current_state()[0].tolist() == [50 + 40 - 3 - 8]


def test_missing_stock_is_lost_or_owed():
    start = {"inventory": np.array([2]), "setup": np.array([0])}
    assert play(LotSizingEnv(one_item()), [[0]], **start) == [-12.0]
    env = LotSizingEnv(one_item(max_backlog=5, backlog_costs=0.25))
    assert play(env, [[0]], **start) == [-(1 * 2.0 + 5 * 0.25)]
    assert env.current_state()[0].tolist() == [-5]
    assert env.observation_space.contains(env.observe(env.current_state()))


@pytest.mark.parametrize("incompatible", ["mask", "waste", "reference"])
@pytest.mark.parametrize("backlog", [False, True])
def test_units_are_conserved(incompatible, backlog):
    instance = instance_of(backlog=backlog, horizon=40)
    env = LotSizingEnv(instance, incompatible=incompatible, illegal="remap", infos="full", observation="raw")
    env.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(40):
        *_, info = env.step(rng.integers(0, 5, 3))
        made, after = info["post_decision_observation"][:4].astype(int), env.current_state()[0]
        left = made - info["demand"]
        lost = np.maximum(-instance.max_backlog - left, 0)
        discarded = np.maximum(left - instance.max_inventory, 0)
        np.testing.assert_array_equal(after, made - info["demand"] + lost - discarded)
        assert not (lost * np.maximum(after, 0)).any()


def test_what_an_incompatible_item_does():
    instance = one_item(production=[[40], [0]], setup_costs=[[7.0], [5.0]], setup_loss=[[3], [4]], holding_costs=0.0)
    start = {"inventory": np.array([50]), "setup": np.array([0, 0])}
    with pytest.raises(IllegalActionError, match=r"action \[0, 1\] of copy 0.*\[\[0, 1\], \[0\]\]"):
        play(LotSizingEnv(instance), [[0, 1]], **start)
    for incompatible, reward, stock, setup in (
        ("mask", 0.0, 50, 0),
        ("waste", -5.0, 50, 1),
        ("reference", -5.0, 46, 1),
    ):
        env = LotSizingEnv(instance, incompatible=incompatible, illegal="remap", observation="raw")
        assert play(env, [[0, 1]], **start) == [reward]
        assert env.post_decision_observation.tolist() == [stock, 0, setup]
        assert env.post_decision_space.contains(env.post_decision_observation)
        assert env.action_masks().tolist() == [True, True, True, incompatible != "mask"]
        assert env.illegal_actions == (incompatible == "mask")


def test_exclusive_items_refuse_a_second_machine():
    env = LotSizingEnv(
        one_item(production=[[40], [30]], setup_costs=[[7.0]] * 2, setup_loss=[[3]] * 2), exclusive_items=True
    )
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(IllegalActionError, match="each item on one machine"):
        env.step(np.array([1, 1]))
    assert env.get_state().period == before.period
    env.step(np.array([0, 1]))


# ---- spaces and options --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_checkers_accept_every_layout(options):
    for instance in ("ls-4x2", instance_of("correlated", backlog=True)):
        gymnasium_check_env(LotSizingEnv(instance, illegal="remap", **options), skip_render_check=True)
        sb3_check_env(LotSizingEnv(instance, illegal="remap", **options), warn=False, skip_render_check=True)


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("incompatible", ["mask", "waste", "reference"])
def test_observations_stay_in_their_spaces(options, incompatible):
    rng = np.random.default_rng(0)
    for backlog in (False, True):
        instance = instance_of("item-specific", backlog=backlog, horizon=50)
        env = LotSizingEnv(instance, incompatible=incompatible, illegal="remap", **options)
        obs, _ = env.reset(seed=0)
        for _ in range(300):
            assert env.observation_space.contains(obs)
            obs, _, terminated, truncated, _ = env.step(rng.integers(0, 5, 3))
            assert env.post_decision_space.contains(env.post_decision_observation)
            if terminated or truncated:
                assert env.observation_space.contains(obs)
                obs, _ = env.reset()


def test_post_decision_stock_has_room_above_the_cap():
    env = LotSizingEnv("ls-4x2")
    np.testing.assert_allclose(env.post_decision_space.high[:4], (10 + env.instance.production.sum(0)) / 10)
    assert (env.observation_space.high[:4] == 1.0).all()
    assert env.action_masks().dtype == np.bool_


def test_the_time_limit_truncates_or_terminates():
    for time_limit, ends in (("truncate", (False, True)), ("terminal", (True, False))):
        env = LotSizingEnv(one_item(), time_limit=time_limit)
        env.reset(seed=0)
        flags = [env.step(np.array([1]))[2:4] for _ in range(3)]
        assert flags == [(False, False), (False, False), ends]
        assert env.is_terminal(env.current_state()) == (time_limit == "terminal")
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(np.array([1]))


def test_the_terminal_info_prices_the_episode():
    env = LotSizingEnv("ls-4x2", reward_scale=0.1)
    info = random_episode(env, 3)
    scenario = env.instance.scenario(3)
    check = scenario.check(info["solution"])
    assert check.feasible, check.violations
    assert check.objective == info["objective"]
    assert info["bound"] == pytest.approx(scenario.lower_bound(), rel=1e-12)
    total = info["setup_cost"] + info["lost_sales_cost"] + info["holding_cost"]
    assert info["objective"] == total
    assert info["illegal_actions"] == 0
    assert info["solution"].actions.dtype == info["solution"].demand.dtype == np.int64


def test_rewards_are_scaled_and_objectives_are_not():
    actions = [[1], [0], [1]]
    plain, tenth = LotSizingEnv(one_item()), LotSizingEnv(one_item(), reward_scale=0.1)
    np.testing.assert_allclose(play(tenth, actions), 0.1 * np.array(play(plain, actions)), rtol=1e-15)
    assert plain.batch.terminal_columns([0])["objective"] == tenth.batch.terminal_columns([0])["objective"]


def test_bad_options_and_actions_are_refused():
    for options in (
        {"observation": "pixels"},
        {"init": "empty"},
        {"incompatible": "ignore"},
        {"time_limit": "none"},
        {"reward_scale": 0.0},
        {"illegal": "ignore"},
        {"instance": 3},
        {"instance": []},
        {"instance": ["ls-4x2", "ls-2x1"]},
        {"render_mode": "human"},
    ):
        with pytest.raises(InputError, match=next(iter(options))):
            LotSizingEnv(**options)
    env = LotSizingEnv("ls-4x2")
    env.reset(seed=0)
    for action in (1, [1], [0.5, 1.0], [[1, 2]]):
        with pytest.raises(InputError, match="action"):
            env.step(action)
    for action in ([-1, 0], [0, 5], [1, 10**15]):
        with pytest.raises(IllegalActionError):
            env.step(np.array(action))
    for option, value in (
        ("inventory", np.array([11, 0, 0, 0])),
        ("inventory", np.array([0.0, 0, 0, 0])),
        ("setup", np.array([5, 0])),
        ("setup", np.array([0, 0, 0])),
        ("demand_path", np.zeros((99, 4), int)),
        ("demand_path", -np.ones((100, 4), int)),
    ):
        with pytest.raises(InputError, match=option):
            env.reset(options={option: value})


# ---- instances and scenarios ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("init", ["random", "fixed"])
def test_a_seed_meets_its_scenario(init):
    env = LotSizingEnv("ls-4x2", init=init)
    scenario = env.instance.scenario(11, init)
    info = random_episode(env, 11)
    plan = info["solution"]
    np.testing.assert_array_equal(plan.demand, scenario.demand_path)
    np.testing.assert_array_equal(plan.initial_inventory, scenario.initial_inventory)
    np.testing.assert_array_equal(plan.initial_setup, scenario.initial_setup)
    replayed = LotSizingEnv(scenario)
    assert replayed.reset(seed=99)[0].tolist() == env.reset(seed=11)[0].tolist()
    for action in plan.actions:
        *_, again = replayed.step(action)
    assert again["objective"] == info["objective"]


def test_demand_does_not_depend_on_actions_and_instances_are_not_changed():
    instance = instance_of(horizon=30)
    before = instance.to_json()
    one, two = LotSizingEnv(instance, illegal="remap"), LotSizingEnv(instance, illegal="remap")
    one.reset(seed=4)
    two.reset(seed=4)
    rng = np.random.default_rng(0)
    for _ in range(30):
        *_, first = one.step(np.zeros(3, int))
        *_, second = two.step(rng.integers(0, 5, 3))
    np.testing.assert_array_equal(first["solution"].demand, second["solution"].demand)
    assert first["objective"] != second["objective"]
    one.reset(seed=5)
    assert two.batch.over[0]
    assert instance.to_json() == before


def test_a_prescribed_demand_happens_and_alternatives_are_drawn():
    env = LotSizingEnv("ls-4x2")
    path = np.arange(400).reshape(100, 4) % 3
    env.reset(seed=0, options={"demand_path": path})
    for _ in range(100):
        *_, info = env.step(np.array([1, 2]))
    np.testing.assert_array_equal(info["solution"].demand, path)
    drawn = env.exogenous_samples(64)
    assert len(np.unique(drawn[1])) > 1
    env.reset(seed=0)
    for _ in range(100):
        *_, info = env.step(np.array([1, 2]))
    np.testing.assert_array_equal(info["solution"].demand, env.instance.scenario(0).demand_path)


def test_episodes_draw_from_a_list_of_instances_with_other_horizons():
    short, long = instance_of(horizon=3), replace(instance_of(horizon=7, seed=1), name="long")
    env = LotSizingEnv(
        [short, lambda rng: instance_of(horizon=int(rng.integers(8, 12)), seed=2), long], illegal="remap"
    )
    lengths = set()
    for seed in range(20):
        info = random_episode(env, seed)
        assert len(info["solution"].actions) == env.instance.horizon
        check = env.instance.check(info["solution"])
        assert check.feasible
        assert check.objective == info["objective"]
        lengths.add(env.instance.horizon)
    assert {3, 7} < lengths
    assert np.isinf(env.observation_space.high[:4]).all()


def test_a_generator_must_keep_the_sizes():
    env = LotSizingEnv(lambda rng: instance_of(n_items=3 if rng.random() < 0.5 else 4), illegal="remap")
    with pytest.raises(InputError, match="equal sizes"):
        for seed in range(50):
            env.reset(seed=seed)


# ---- the decision and demand ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"observation": "dict", "time_limit": "terminal", "reward_scale": 0.1},
        {"incompatible": "reference", "append_time": True},
        {"exclusive_items": True, "illegal": "remap"},
    ],
    ids=str,
)
def test_it_keeps_the_post_decision_protocol(options):
    for instance in ("ls-2x1-t6", instance_of("correlated", backlog=True, sequence_dependent=True)):
        env = LotSizingEnv(instance, **options)
        assert isinstance(env, PostDecision)
        assert isinstance(env, PostDecisionModel)
        assert isinstance(env, ExogenousSampler)
        assert isinstance(env, Cloneable)
        rules = check_post_decision_env(env, n_steps=40)
        assert {"spaces", "rewards", "decisions", "draws"} <= set(rules)


def test_non_stationary_demand_keeps_the_protocol_where_time_is_observed():
    env = LotSizingEnv(instance_of("seasonal"), append_time=True)
    assert "draws" in check_post_decision_env(env, n_steps=40)


def test_post_decision_data_are_absent_before_a_step_and_survive_a_reset():
    env = LotSizingEnv("ls-4x2", infos="full")
    env.reset(seed=0)
    assert env.post_decision_observation is None
    assert env.reward_deterministic is None
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.exogenous_samples(2)
    _, reward, _, _, info = env.step(np.array([1, 2]))
    assert env.reward_deterministic + env.reward_stochastic == reward
    np.testing.assert_array_equal(info["post_decision_observation"], env.post_decision_observation)
    assert info["reward_deterministic"] == env.reward_deterministic
    assert info["reward_stochastic"] == env.reward_stochastic
    held, samples = env.post_decision_observation, env.exogenous_samples(3)
    env.reset()
    np.testing.assert_array_equal(held, env.post_decision_observation)
    assert equal_trees(samples, env.exogenous_samples(3))


# ---- snapshots -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("instance", ["ls-4x2", "ls-4x2/scenario-3"])
def test_a_snapshot_goes_on_as_before_also_in_another_env_and_after_pickling(instance):
    env, other = LotSizingEnv(instance), LotSizingEnv(instance)
    env.reset(seed=0)
    for _ in range(40):
        env.step(np.array([1, 2]))
    state = pickle.loads(pickle.dumps(env.get_state()))
    shown = env.batch.observations[0].copy()
    expected = [env.step(np.array([3, 0])) for _ in range(60)]
    for again in (env, other):
        np.testing.assert_array_equal(again.set_state(state), shown)
        results = [again.step(np.array([3, 0])) for _ in range(60)]
        assert [r[1:4] for r in results] == [e[1:4] for e in expected]
        assert results[-1][4]["objective"] == expected[-1][4]["objective"]
        assert equal_trees(results[-1][4]["solution"].demand, expected[-1][4]["solution"].demand)
    with pytest.raises(InputError, match="another instance"):
        LotSizingEnv("ls-4x2-t20").set_state(state)


def test_copies_and_pickles_of_an_env_are_independent():
    env = LotSizingEnv("ls-4x2")
    env.reset(seed=0)
    env.step(np.array([1, 2]))
    clones = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = [env.step(np.array([3, 3])) for _ in range(99)]
    for clone in clones:
        results = [clone.step(np.array([3, 3])) for _ in range(99)]
        for result, want in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result[0], want[0])
            assert result[1:4] == want[1:4]


def test_a_picture_of_the_episode_so_far():
    env = LotSizingEnv("ls-2x1-t6", render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([1]))
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.shape[2] == 3
