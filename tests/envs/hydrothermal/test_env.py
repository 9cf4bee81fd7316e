"""The single env: order of events, what is seen, three meanings of an action, costs, seeds, snapshots."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from hydrothermal_toys import from_files, random_case, tri3
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from orl.common.errors import IllegalActionError, InputError, UnknownNameError
from orl.common.protocols import TargetModel
from orl.envs.hydrothermal import observation
from orl.envs.hydrothermal.env import HydrothermalEnv
from orl.envs.hydrothermal.instance import NETWORKS
from orl.envs.hydrothermal.stage_lp import StageLP
from orl.envs.hydrothermal.vector import HydrothermalVectorEnv

MODES = ("reach", "target", "turbine")


def play(env, seed=0, policy=None, **reset):
    """An episode: observations, rewards, infos; actions are random unless told."""
    rng, n = np.random.default_rng(seed), env.instance.n_plants
    obs, _ = env.reset(seed=seed, **reset)
    seen, rewards, infos, over = [obs], [], [], False
    while not over:
        action = rng.uniform(-1, 1, n) if policy is None else policy(obs)
        obs, reward, over, truncated, info = env.step(action)
        assert not truncated
        seen.append(obs)
        rewards.append(reward)
        infos.append(info)
    return seen, rewards, infos


# ---- the order of events -------------------------------------------------------------------------------------------
def test_a_stage_uses_the_inflow_that_was_seen_and_leaves_the_volumes_that_were_named():
    env = HydrothermalEnv("tri3", observation="raw")
    obs, _ = env.reset(options={"columns": [2, 0, 1, 1]})
    np.testing.assert_allclose(obs, [100, 10, 40, 45, 15, 21, 0])
    kept, _, _, _, _ = env.step(np.ones(3))
    full = [200, 20, 80]  # as much as the reservoirs hold and the water allows
    reachable = np.minimum(full, np.array([100, 10, 40]) + 2.628 * np.array([45, 15, 21]))
    np.testing.assert_allclose(kept, [*reachable, 22 * 0.6, 8 * 0.6, 10 * 0.6, 1], rtol=1e-6)
    before, inflow = env.batch.volumes[0].copy(), env.batch.inflows[0].copy()
    obs, reward, over, _, _ = env.step(np.array([0.2, -0.4, 0.9]))
    water = before + env.instance.water_factor * inflow - env.batch.volumes[0]
    assert -reward / 1e-4 == pytest.approx(StageLP(env.instance, 1).solve(water).cost, rel=1e-9, abs=1e-6)
    env.step(-np.ones(3))
    obs, _, over, _, _ = env.step(-np.ones(3))
    assert over
    np.testing.assert_array_equal(obs, [0, 0, 0, 0, 0, 0, 4])
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(3))


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        HydrothermalEnv("tri3").step(np.zeros(3))


def test_the_flat_observation_by_hand():
    instance = replace(tri3(horizon=6), max_volume=np.array([200.0, 20.0, 0.0]), initial_volume=np.array([50.0, 10, 0]))
    env = HydrothermalEnv(instance)
    obs, _ = env.reset(options={"columns": [0, 1, 2, 0, 1, 2]})
    table = instance.inflows.transpose(1, 0, 2).reshape(3, -1)
    mean, std = table.mean(1), table.std(1)
    for t in range(7):
        season = 2 * np.pi * t / 4
        standard = (instance.inflow(t, [0, 1, 2, 0, 1, 2][t]) - mean) / std if t < 6 else np.zeros(3)
        np.testing.assert_allclose(obs[:3], env.batch.volumes[0] / [200, 20, 1e-3], rtol=1e-6)
        np.testing.assert_allclose(obs[3:], [*standard, np.sin(season), np.cos(season), t / 6], atol=1e-6)
        assert env.observation_space.contains(obs)
        if t < 6:
            obs = env.step(np.array([0.5, -0.5, 1.0]))[0]


def test_scales_weigh_columns_by_probability_and_a_still_inflow_is_not_divided_by_zero():
    instance = tri3()
    table = np.array(instance.inflows)
    table[:, 2] = 7.0
    probabilities = np.tile([0.5, 0.25, 0.25], (4, 1))
    known = observation.scales(replace(instance, inflows=table, probabilities=probabilities))
    expected = (table * [0.5, 0.25, 0.25]).sum(-1).mean(-2)
    np.testing.assert_allclose(known.inflow_mean, expected[:3] if expected.ndim == 1 else expected.mean(0))
    spread = ((table - known.inflow_mean[:, None]) ** 2 * [0.5, 0.25, 0.25]).sum(-1).mean(0)
    np.testing.assert_allclose(known.inflow_std, [*np.sqrt(spread[:2]), 1.0])
    one_row = observation.scales(replace(instance, inflows=table[:1], probabilities=probabilities[:1]))
    np.testing.assert_array_equal(one_row.season, [[0.0, 1.0]])


@pytest.mark.parametrize("kind", ["flat", "raw"])
@pytest.mark.parametrize("joint", [True, False])
def test_observations_stay_in_their_space_and_checkers_accept_every_mode(kind, joint):
    for mode in MODES:
        env = HydrothermalEnv(random_case(3), observation=kind, action_mode=mode)
        gymnasium_check_env(env, skip_render_check=True)
        sb3_check_env(env, warn=False, skip_render_check=True)
        env = HydrothermalEnv(random_case(3, horizon=9).with_horizon(5), observation=kind, action_mode=mode)
        for seed in range(5):
            for obs in play(env, seed)[0]:
                assert env.observation_space.contains(obs)


# ---- what an action means ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mode", MODES)
def test_any_actions_keep_the_water_and_give_a_solution_that_the_instance_accepts(network, mode):
    for seed in range(3):
        instance = random_case(seed, network, horizon=4)
        env = HydrothermalEnv(instance, action_mode=mode)
        corners = np.random.default_rng(seed)
        _, rewards, infos = play(env, seed, lambda _, rng=corners: rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], 4))
        info = infos[-1]
        check = instance.scenario(seed).check(info["solution"])
        assert check.feasible, check.violations
        assert info["objective"] == pytest.approx(check.objective, rel=1e-8, abs=1e-5)
        assert info["objective"] == pytest.approx(-sum(rewards) / 1e-4, rel=1e-12)
        assert info["bound"] == pytest.approx(min(instance.scenario(seed).lower_bound(), info["objective"]))
        assert info["target_violation"] == 0 or mode == "target"
        dispatch = info["solution"].dispatch(instance)
        leaves_t, leaves_s = ~instance.turbine_to.any(1), ~instance.spill_to.any(1)
        gone = instance.water_factor * dispatch.turbined[:, leaves_t].sum() + dispatch.spilled[:, leaves_s].sum()
        came = instance.water_factor * instance.path_inflows(dispatch.columns).sum()
        assert dispatch.volumes[0].sum() + came - gone == pytest.approx(dispatch.volumes[-1].sum(), abs=1e-6)


def test_targets_that_can_be_reached_are_met_and_others_are_missed_by_their_distance():
    env = HydrothermalEnv("tri3", action_mode="target")
    env.reset(options={"columns": [1, 1, 1, 1]})
    info = {}
    for action, targets in (([0.2, 0.0, -0.5], [120, 10, 20]), ([1, 1, 1], [200, 20, 80])):
        before = env.batch.volumes[0] + 2.628 * env.batch.inflows[0]
        env.step(np.array(action))
        after = env.batch.volumes[0]
        upper = np.minimum(targets, [before[0], np.inf, before[2]])
        np.testing.assert_allclose(after, upper, rtol=1e-12)
        missed = np.abs(targets - after).sum()
    assert missed > 0
    env.step(-np.ones(3))
    info = env.step(-np.ones(3))[-1]
    assert info["target_violation"] == pytest.approx(missed)


def test_turbined_water_is_what_was_asked_for_until_water_runs_short_or_over():
    env = HydrothermalEnv("tri3", action_mode="turbine")
    env.reset(options={"columns": [0, 0, 0, 0], "volumes": [0.0, 20.0, 80.0]})
    env.step(np.array([1.0, -0.5, 0.0]))  # asks for 40, 15 and 12.5 m3/s
    plan = env.plan()
    inflow = 0.6 * np.array([30, 10, 14])
    np.testing.assert_allclose(plan.turbined[0], [inflow[0], 15.0, 12.5])  # A has no more than its inflow
    np.testing.assert_allclose(plan.spilled[0, 1], 2.628 * (inflow[0] + inflow[1] - 15.0))  # B was full
    np.testing.assert_allclose(plan.volumes[1], [0.0, 20.0, 80.0 - 2.628 * (12.5 - inflow[2])])
    np.testing.assert_allclose(plan.volumes[1], env.batch.volumes[0])
    power = plan.turbined[0] @ np.array([1.0, 0.6, 0.8])
    left = 90 - power
    cost = 2000 * min(left, 30) / 100 + 6000 * np.clip(left - 30, 0, 40) / 100 + 50000 * max(left - 70, 0) / 100
    assert env.batch.costs[0] == pytest.approx(cost, abs=1e-6)


def test_spillage_has_its_price_in_every_mode():
    instance = replace(tri3(), spill_costs=np.array([3.0, 5.0, 7.0]), max_outflow=np.array([4.0, 6.0, 2.0]))
    for mode in MODES:
        env = HydrothermalEnv(instance, action_mode=mode)
        _, _, infos = play(env, policy=lambda _: np.full(3, -1.0))
        solution = infos[-1]["solution"].dispatch(instance)
        assert solution.spilled.sum() > 0
        check = instance.check(infos[-1]["solution"])
        assert check.objective == pytest.approx(infos[-1]["objective"], rel=1e-9)


def test_actions_of_64_bits_are_not_rounded():
    env = HydrothermalEnv("tri3")
    wish = np.array([0.1, 1 / 3, -2 / 7])
    after = []
    for action in (wish, wish.astype(np.float32)):
        env.reset(seed=0)
        env.step(action)
        after.append(env.batch.volumes[0].copy())
    before, inflow = env.instance.initial_volume[None], env.batch.paths[:, 0]
    np.testing.assert_array_equal(after[0], env.batch.reach(before, inflow, (wish[None] + 1) / 2).volumes[0])
    assert (after[0] != after[1]).all()


def test_numbers_outside_are_clipped_and_counted():
    inside = HydrothermalEnv("tri3")
    inside.reset(seed=0)
    inside.step(np.array([1.0, 0.0, -1.0]))
    for illegal in ("remap", "count"):
        env = HydrothermalEnv("tri3", illegal=illegal)
        env.reset(seed=0)
        env.step(np.array([np.inf, np.nan, -1.5]))
        np.testing.assert_array_equal(env.batch.volumes, inside.batch.volumes)
        env.step(np.array([1.0 + 5e-7, 0.0, 0.0]))  # rounding
        env.step(np.zeros(3))
        assert env.illegal_actions == 1
        assert env.step(np.zeros(3))[-1]["illegal_actions"] == 1
        env.reset()
        assert env.illegal_actions == 0
    state = inside.get_state()
    for bad in ([1.1, 0, 0], [0, np.nan, 0], [0, 0, -np.inf]):
        with pytest.raises(IllegalActionError, match="copy 0"):
            inside.step(np.array(bad))
    assert inside.get_state().stage == state.stage == 1
    for wrong in (np.zeros(2), np.zeros((1, 3)), "left", [True, False, True], None):
        with pytest.raises(InputError, match="actions"):
            inside.step(wrong)


# ---- costs ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
def test_both_evaluators_price_alike(mode):
    for instance in (random_case(5, "dc", horizon=3), random_case(6, "transport"), tri3(horizon=9)):
        played = [play(HydrothermalEnv(instance, action_mode=mode, evaluator=kind), 4)[1] for kind in ("pool", "highs")]
        np.testing.assert_allclose(played[0], played[1], rtol=1e-9, atol=1e-9)


def test_full_infos_tell_what_the_network_did():
    for mode in MODES:
        instance = random_case(1, "dc", horizon=3)
        env = HydrothermalEnv(instance, action_mode=mode, infos="full")
        _, rewards, infos = play(env, 2)
        lean = play(HydrothermalEnv(instance, action_mode=mode), 2)[1]
        assert rewards == lean
        dispatch = infos[-1]["solution"].dispatch(instance)
        for t, info in enumerate(infos):
            np.testing.assert_array_equal(info["volumes"], dispatch.volumes[t + 1])
            np.testing.assert_array_equal(info["inflow"], instance.inflow(t, info["column"]))
            assert info["column"] == dispatch.columns[t]
            assert info["cost"] == pytest.approx(-rewards[t] / 1e-4)
            surplus = info["hydro_mw"] + info["thermal_mw"] + info["deficit_mw"] - 100 * instance.stage_demand(t).sum()
            assert surplus >= -1e-6
            total = info["thermal_cost"] + info["deficit_cost"] + instance.deficit_cost * surplus / 100
            assert total == pytest.approx(info["cost"], rel=1e-6, abs=1e-4)
            assert info["spill_hm3"] == pytest.approx(dispatch.spilled[t].sum(), abs=1e-6) or mode != "turbine"
            assert info["water_value"].shape == (4,)
            assert info["bus_price"].shape == (5,)
            assert info["lp_source"] in ("pool", "simplex")
        assert infos[0]["lp_source"] == "simplex"
        again = play(env, 2)[2]
        assert [info["lp_source"] for info in again] == ["pool"] * 3


def test_prices_in_full_infos_are_derivatives():
    """A little more water, and a little more demand, at a stage that is no kink."""
    instance = random_case(0, "dc", horizon=1)
    env = HydrothermalEnv(instance, infos="full")
    info = play(env, 8)[2][-1]
    water = instance.initial_volume + instance.water_factor * info["inflow"] - info["volumes"]
    step = 1e-4
    for i in range(4):
        costs = [StageLP(instance).solve(water + sign * step * np.eye(4)[i]).cost for sign in (-1, 1)]
        assert info["water_value"][i] == pytest.approx((costs[0] - costs[1]) / (2 * step), rel=1e-5, abs=1e-5)
    for bus in range(5):
        costs = []
        for sign in (-1, 1):
            demand = np.array(instance.demand)
            demand[0, bus] += sign * step
            costs.append(StageLP(replace(instance, demand=demand)).solve(water).cost)
        assert info["bus_price"][bus] == pytest.approx((costs[1] - costs[0]) / (2 * step * 100), rel=1e-5, abs=1e-5)


def test_water_values_of_turbined_water_are_what_its_power_saves():
    env = HydrothermalEnv("tri3", action_mode="turbine", infos="full")
    env.reset(options={"columns": [1, 1, 1, 1]})
    info = env.step(np.array([0.0, 0.0, -1.0]))[-1]  # 20 MW and 18 MW of 90: the plant at 60 USD/MWh runs
    np.testing.assert_allclose(info["bus_price"], [60.0])
    np.testing.assert_allclose(info["water_value"], 60.0 * np.array([1.0, 0.6, 0.8]) / 2.628)


def test_rewards_are_scaled_and_objectives_are_not():
    plain, scaled = (play(HydrothermalEnv("tri3", reward_scale=scale), 1) for scale in (1e-4, 2.0))
    np.testing.assert_allclose(np.array(scaled[1]), np.array(plain[1]) * 2e4)
    assert scaled[2][-1]["objective"] == plain[2][-1]["objective"]


# ---- seeds and options ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("joint", [True, False])
def test_a_seed_meets_its_scenario_whatever_is_done(joint):
    instance = random_case(2, horizon=6)
    instance = replace(instance, joint=joint)
    env = HydrothermalEnv(instance)
    for seed in (0, 7):
        expected = instance.scenario(seed)
        for policy in (None, lambda _: np.ones(4)):
            info = play(env, seed, policy)[2][-1]
            np.testing.assert_array_equal(info["solution"].columns, expected.columns)
            assert expected.check(info["solution"]).feasible
        replayed = play(HydrothermalEnv(expected), 99)[2][-1]
        np.testing.assert_array_equal(replayed["solution"].columns, expected.columns)
    env.reset(seed=1)
    further = play(env, None, lambda _: np.ones(4))[2][-1]["solution"].columns  # drawn by the generator as it stands
    assert further.shape == ((6,) if joint else (6, 4))


def test_prescribed_columns_and_volumes_happen():
    env = HydrothermalEnv("tri3")
    volumes = np.array([0.0, 20.0, 5.5])
    info = play(env, 3, options={"columns": [0, 2, 2, 1], "volumes": volumes})[2][-1]
    np.testing.assert_array_equal(info["solution"].columns, [0, 2, 2, 1])
    np.testing.assert_array_equal(info["solution"].volumes[0], volumes)
    other = replace(env.instance, initial_volume=volumes.copy()).scenario_of([0, 2, 2, 1])
    check = other.check(info["solution"])
    assert check.feasible
    assert check.objective == pytest.approx(info["objective"], rel=1e-9)
    assert info["bound"] == pytest.approx(other.lower_bound(), rel=1e-12)
    np.testing.assert_array_equal(play(env, 3)[2][-1]["solution"].volumes[0], env.instance.initial_volume)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"columns": [0, 1, 2]}, "columns"),
        ({"columns": [0, 1, 2, 3]}, "columns"),
        ({"columns": [0, 1, 2, 0.5]}, "columns"),
        ({"columns": [[0, 1, 2, 0], [0, 1, 2, 0]]}, "columns"),
        ({"columns": [[0, 1], [2]]}, "columns"),
        ({"volumes": [[0.0, 0.0, 0.0], [0.0]]}, "volumes"),
        ({"volumes": [0.0, 0.0]}, "volumes"),
        ({"volumes": [0.0, 20.1, 0.0]}, "volumes of B"),
        ({"volumes": [-0.1, 2.0, 0.0]}, "volumes of A"),
        ({"volumes": [np.nan, 2.0, 0.0]}, "volumes"),
    ],
)
def test_bad_options_are_named(options, field):
    env = HydrothermalEnv("tri3")
    with pytest.raises(InputError) as caught:
        env.reset(seed=0, options=options)
    assert caught.value.field.startswith(field)


def test_a_scenario_keeps_its_columns():
    env = HydrothermalEnv(tri3().scenario_of([0, 1, 2, 0]))
    env.reset(options={"columns": [0, 1, 2, 0]})
    with pytest.raises(InputError, match="than its own"):
        env.reset(options={"columns": [0, 1, 2, 1]})


def test_network_and_horizon_can_be_chosen():
    env = HydrothermalEnv("cascade-3x4-s0", network="transport", horizon=5)
    assert env.instance.network == "transport"
    assert env.instance.name == "cascade-3x4-s0-transport-t5"
    assert len(play(env)[1]) == 5
    costs = [
        play(HydrothermalEnv("cascade-3x4-s0", network=network, horizon=5), 2)[2][-1]["objective"]
        for network in NETWORKS
    ]
    assert costs[0] <= costs[1] + 1e-5 <= costs[2] + 2e-5
    assert HydrothermalEnv("tri3", horizon=9).instance.horizon == 9
    assert HydrothermalEnv("tri3", network="copper").instance.name == "tri3"


def test_bad_arguments_are_named():
    for options in (
        {"action_mode": "volume"},
        {"observation": "dict"},
        {"evaluator": "pyomo"},
        {"illegal": "ignore"},
        {"infos": "some"},
        {"reward_scale": 0},
        {"reward_scale": True},
        {"network": "ac"},
        {"horizon": 0},
        {"render_mode": "human"},
        {"instance": 3},
    ):
        with pytest.raises(InputError) as caught:
            HydrothermalEnv(**options)
        assert caught.value.field == next(iter(options))
    with pytest.raises(UnknownNameError):
        HydrothermalEnv("tri4")
    for evaluator in ("pool", "highs"):
        with pytest.raises(InputError, match="surplus"):
            HydrothermalEnv(tri3(surplus=False), action_mode="turbine", evaluator=evaluator)
    play(HydrothermalEnv(tri3(surplus=False)))


# ---- snapshots, copies, pictures -------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", MODES)
def test_a_snapshot_goes_on_as_before_also_in_another_env_and_after_pickling(mode):
    env, other = (HydrothermalEnv(random_case(1, horizon=6), action_mode=mode) for _ in range(2))
    rng = np.random.default_rng(0)
    env.reset(seed=5)
    for _ in range(2):
        obs = env.step(rng.uniform(-1, 1, 4))[0]
    state = pickle.loads(pickle.dumps(env.get_state()))
    actions = rng.uniform(-1, 1, (4, 4))
    expected = [env.step(action) for action in actions]
    for again in (env, other):
        np.testing.assert_array_equal(again.set_state(state), obs)
        got = [again.step(action) for action in actions]
        for mine, theirs in zip(got, expected, strict=True):
            np.testing.assert_array_equal(mine[0], theirs[0])
            assert mine[1:4] == theirs[1:4]
        assert got[-1][-1]["objective"] == expected[-1][-1]["objective"]
        assert got[-1][-1]["solution"].to_json() == expected[-1][-1]["solution"].to_json()


def test_snapshots_of_other_problems_are_refused():
    env = HydrothermalEnv("tri3")
    env.reset(seed=0)
    for other in (HydrothermalEnv("tri3", horizon=5), HydrothermalEnv("tri3", action_mode="turbine")):
        with pytest.raises(InputError, match="snapshot"):
            other.set_state(env.get_state())


def test_a_scenario_refuses_snapshots_of_other_inflows():
    instance = tri3()
    env, scenario = HydrothermalEnv(instance), HydrothermalEnv(instance.scenario_of([0, 1, 2, 0]))
    for columns, refused in (([0, 1, 2, 0], False), ([0, 1, 2, 1], True)):
        env.reset(seed=0, options={"columns": columns})
        env.step(np.zeros(3))
        if refused:
            with pytest.raises(InputError, match="other inflows"):
                scenario.set_state(env.get_state())
        else:
            scenario.set_state(env.get_state())
    assert scenario.batch.columns[0].tolist() == [0, 1, 2, 0]


def test_counts_of_an_episode_are_in_its_snapshot_and_not_in_the_next_episode():
    env = HydrothermalEnv(tri3(), action_mode="target", illegal="count")
    infos = []
    for _ in range(2):
        env.reset(seed=0)
        env.step(np.full(3, 2.0))
        state = env.get_state()
        env.step(np.full(3, 2.0))
        env.set_state(state)
        assert env.illegal_actions == 1
        infos.append([env.step(np.ones(3)) for _ in range(3)][-1][-1])
    assert infos[0]["target_violation"] > 1
    for key in ("target_violation", "illegal_actions", "objective"):
        assert infos[0][key] == infos[1][key]
    assert infos[0]["illegal_actions"] == 1


def test_copies_and_pickles_of_an_env_are_independent_and_equal():
    env = HydrothermalEnv(random_case(1, horizon=6), infos="full")
    env.reset(seed=0)
    env.step(np.zeros(4))
    others = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = [env.step(np.full(4, 0.3))[:4] for _ in range(3)]
    for other in others:
        for theirs in expected:
            mine = other.step(np.full(4, 0.3))[:4]
            np.testing.assert_array_equal(mine[0], theirs[0])
            assert mine[1:] == theirs[1:]


def test_a_picture_of_the_episode_so_far():
    for mode in ("reach", "turbine"):
        env = HydrothermalEnv("tri3", render_mode="rgb_array", action_mode=mode)
        env.reset(seed=0)
        first = env.render()
        env.step(np.zeros(3))
        second = env.render()
        assert first.shape == second.shape
        assert first.dtype == np.uint8
        assert (first != second).any()
    with pytest.warns(UserWarning, match="render mode"):
        assert HydrothermalEnv("tri3").render() is None


# ---- the target model ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["reach", "target"])
def test_the_target_model_sees_and_does_what_the_env_does(mode):
    """Bit for bit: noise of the key, features after rounding, next states, and costs but for their rounding."""
    env = HydrothermalEnv(random_case(3, horizon=5), action_mode=mode)
    model = env.target_model()
    assert isinstance(model, TargetModel)
    assert model.reachable == (mode == "reach")
    obs, _ = env.reset(seed=4)
    noise = model.draw(env.batch.keys)
    rows = model.features(noise)
    rng = np.random.default_rng(0)
    state = model.initial_state[None]
    for t in range(5):
        np.testing.assert_array_equal(env.batch.inflows, noise[t])
        expected = rows[t, 0].copy()
        expected[model.state_at] = state[0] / model.state_unit
        np.testing.assert_array_equal(obs, expected.astype(np.float32))
        action = rng.uniform(-1, 1, 4)
        obs = env.step(action)[0]
        after = model.reach(state, noise[t], (action[None] + 1) / 2)
        np.testing.assert_array_equal(after, env.batch.volumes)
        # A model is asked for all stages at once; the others here change nothing.
        paths = [np.repeat(array[None], 5, axis=0) for array in (state, noise[t], after)]
        cost = model.costs_and_gradients(*paths)[0][t, 0]
        assert env.batch.costs[0] == pytest.approx(cost, rel=1e-9, abs=1e-6)
        state = after


def test_the_target_model_of_other_actions_or_observations_is_refused():
    for env, field in (
        (HydrothermalEnv("tri3", action_mode="turbine"), "action_mode"),
        (HydrothermalEnv("tri3", observation="raw"), "observation"),
    ):
        with pytest.raises(InputError) as caught:
            env.target_model()
        assert caught.value.field == field


# ---- Bolivia ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_emptying_reservoirs_in_bolivia_costs_what_it_costs():
    """The panel and the value of the specification, made with another programme."""
    bolivia = from_files("bolivia")
    panel = np.random.default_rng(20260706).integers(0, 15, size=(96, 30))
    env = HydrothermalVectorEnv(30, bolivia)
    env.reset(options={"columns": panel.T})
    for _ in range(96):
        infos = env.step(-np.ones((30, 11)))[-1]
    assert infos["final_info"]["objective"].mean() == pytest.approx(358_983, rel=1e-4)
    assert env.batch.evaluator.pool.counts.hit_rate > 0.9
