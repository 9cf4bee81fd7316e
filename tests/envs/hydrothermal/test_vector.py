"""The native batch: equal to its single envs, automatic resets, options of copies, infos of those that ended."""

from __future__ import annotations

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hydrothermal_toys import from_files, random_case, tri3
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor

import orl
from orl.common.errors import IllegalActionError, InputError
from orl.common.protocols import CloneableBatch
from orl.common.vector_env_checker import check_vector_env
from orl.envs.hydrothermal.env import HydrothermalEnv
from orl.envs.hydrothermal.vector import HydrothermalVectorEnv


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
@pytest.mark.parametrize(
    "options",
    [
        {"instance": random_case(1, "dc", horizon=4)},
        {"instance": tri3(horizon=5).scenario(3), "observation": "raw", "reward_scale": 1.0},
        {"instance": random_case(2, "transport"), "action_mode": "turbine", "evaluator": "highs"},
        {"instance": tri3(joint=False), "action_mode": "target", "infos": "full"},
        {"instance": tri3(), "copy": False},
    ],
    ids=["dc", "scenario-raw", "turbine-highs", "own-columns-full", "buffers"],
)
def test_it_conforms_and_equals_its_single_envs(options, mode):
    env = HydrothermalVectorEnv(3, autoreset_mode=mode, **options)
    alone = {key: value for key, value in options.items() if key != "copy"}
    check_vector_env(env, single=lambda: HydrothermalEnv(**alone), steps=25)
    assert isinstance(env, CloneableBatch)


@pytest.mark.parametrize("n", [1, 40])
def test_copies_are_the_single_envs_of_the_next_seeds(n):
    instance = random_case(7, "dc", horizon=5)
    env = HydrothermalVectorEnv(n, instance)
    singles = [HydrothermalEnv(instance) for _ in range(n)]
    obs, _ = env.reset(seed=20)
    for i, single in enumerate(singles):
        np.testing.assert_array_equal(single.reset(seed=20 + i)[0], obs[i])
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.uniform(-1, 1, (n, 4))
        obs, rewards, terminated, _, infos = env.step(actions)
        for i, single in enumerate(singles):
            mine, reward, over, _, info = single.step(actions[i])
            assert reward == rewards[i]
            assert over == terminated[i]
            if over:
                final = infos["final_info"]
                assert {k: v for k, v in info.items() if k != "solution"} == {
                    k: final[k][i] for k in info if k != "solution"
                }
                assert info["solution"].to_json() == final["solution"][i].to_json()
                np.testing.assert_array_equal(infos["final_obs"][i], mine)
                mine, _ = single.reset()
            np.testing.assert_array_equal(mine, obs[i])


def test_illegal_actions_are_clipped_and_counted_or_raise():
    wrong = np.zeros((3, 3))
    wrong[1, 2] = 7.0
    env = HydrothermalVectorEnv(3, "tri3")
    env.reset(seed=0)
    env.step(wrong)
    env.step(wrong)
    assert env.illegal_actions.tolist() == [0, 2, 0]
    strict = HydrothermalVectorEnv(3, "tri3", illegal="raise")
    strict.reset(seed=0)
    with pytest.raises(IllegalActionError, match="copy 1"):
        strict.step(wrong)
    assert strict.batch.stage.tolist() == [0, 0, 0]
    for bad in (np.zeros((2, 3)), np.zeros(9), np.zeros((3, 3), complex)):
        with pytest.raises(InputError, match="actions"):
            env.step(bad)


def test_a_copy_that_restarts_in_next_step_mode_ignores_its_action_and_waits_for_legal_ones():
    env = HydrothermalVectorEnv(2, tri3(), autoreset_mode="NEXT_STEP", illegal="raise")
    env.reset(seed=0)
    env.step(np.zeros((2, 3)))
    env.reset(seed=5, options={"reset_mask": np.array([False, True])})
    for _ in range(3):
        env.step(np.zeros((2, 3)))
    wrong = np.zeros((2, 3))
    wrong[1] = 9.0
    with pytest.raises(IllegalActionError, match="copy 1"):
        env.step(wrong)
    assert env.batch.stage.tolist() == [4, 3]
    _, rewards, terminated, _, _ = env.step(wrong[::-1])
    assert rewards[0] == 0
    assert terminated.tolist() == [False, True]
    assert env.batch.stage.tolist() == [0, 4]


def test_reset_options_may_differ_between_copies_and_reach_only_the_marked():
    env = HydrothermalVectorEnv(2, "tri3", observation="raw")
    columns = np.array([[0, 1, 2, 0], [2, 2, 1, 1]])
    volumes = np.array([[0.0, 1.0, 2.0], [30.0, 20.0, 10.0]])
    env.reset(options={"columns": columns, "volumes": volumes})
    np.testing.assert_array_equal(env.batch.columns, columns)
    np.testing.assert_array_equal(env.batch.volumes, volumes)
    env.step(np.zeros((2, 3)))
    marked = np.array([False, True])
    env.reset(options={"columns": [1, 1, 1, 1], "volumes": [5.0, 5.0, 5.0], "reset_mask": marked})
    assert env.batch.stage.tolist() == [1, 0]
    np.testing.assert_array_equal(env.batch.columns, [columns[0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(env.batch.history[:, 0], [volumes[0], [5, 5, 5]])
    with pytest.raises(InputError, match="number of rows"):
        env.reset(options={"columns": np.zeros((3, 4), int)})
    own = HydrothermalVectorEnv(2, tri3(joint=False))
    table = np.arange(12).reshape(4, 3) % 3
    own.reset(options={"columns": table})
    np.testing.assert_array_equal(own.batch.columns, [table, table])
    own.reset(options={"columns": np.stack([table, 2 - table])})
    np.testing.assert_array_equal(own.batch.columns[1], 2 - table)


def test_terminal_infos_are_columns_of_the_ended_copies():
    env = HydrothermalVectorEnv(2, "tri3", autoreset_mode="DISABLED")
    env.reset(seed=0)
    env.step(np.zeros((2, 3)))
    env.reset(seed=9, options={"reset_mask": np.array([True, False])})
    for _ in range(3):
        _, _, terminated, truncated, infos = env.step(np.zeros((2, 3)))
    assert terminated.tolist() == [False, True]
    assert not truncated.any()
    assert infos["_objective"].tolist() == [False, True]
    assert infos["objective"].dtype == np.float64
    check = env.instance.scenario(1).check(infos["solution"][1])
    assert check.feasible
    assert check.objective == pytest.approx(infos["objective"][1], rel=1e-9)
    assert infos["bound"][1] <= infos["objective"][1]
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"\[1\]"):
        env.step(np.zeros((2, 3)))


def test_a_cut_episode_has_no_objective():
    env = HydrothermalVectorEnv(2, "tri3", max_episode_steps=2)
    env.reset(seed=0)
    env.step(np.zeros((2, 3)))
    _, _, terminated, truncated, infos = env.step(np.zeros((2, 3)))
    assert truncated.all()
    assert not terminated.any()
    final = infos["final_info"]
    assert np.isinf(final["objective"]).all()
    assert (final["bound"] == 0).all()
    assert final["solution"][0].n_stages == 2
    exact = HydrothermalVectorEnv(1, "tri3", max_episode_steps=4)
    exact.reset(seed=0)
    for _ in range(4):
        _, _, terminated, truncated, _ = exact.step(np.zeros((1, 3)))
    assert (terminated[0], truncated[0]) == (True, False)


@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
def test_full_infos_of_last_steps_are_found_where_the_mode_puts_them(mode):
    env = HydrothermalVectorEnv(2, random_case(1, horizon=2), infos="full", autoreset_mode=mode, action_mode="target")
    single = HydrothermalEnv(random_case(1, horizon=2), infos="full", action_mode="target")
    env.reset(seed=3)
    single.reset(seed=4)
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 2, 4))
    for t in range(2):
        infos = env.step(actions[t])[-1]
        expected = single.step(actions[t, 1])[-1]
        if t == 0:
            assert infos["_cost"].all()
            assert "objective" not in infos
        elif mode == "SAME_STEP":
            assert not infos["_cost"].any()
            infos = infos["final_info"]
        for key, value in expected.items():
            if key not in ("solution", "lp_source"):  # copies share a table: one may answer for another
                np.testing.assert_array_equal(infos[key][1], value, err_msg=key)


def test_the_bridge_and_single_envs_tell_the_same():
    venv = VecMonitor(orl.make_vec("orl:orl/Hydrothermal-v0", 2, seed=5))
    dummy = VecMonitor(DummyVecEnv([lambda: gymnasium.make("orl:orl/Hydrothermal-v0")] * 2))
    dummy.seed(5)
    np.testing.assert_array_equal(venv.reset(), dummy.reset())
    for _ in range(4):
        results = [env.step(np.full((2, 3), 0.25, np.float32)) for env in (venv, dummy)]
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-6)  # DummyVecEnv keeps float32
    for native, plain in zip(results[0][3], results[1][3], strict=True):
        assert native["objective"] == plain["objective"]
        assert native["episode"]["l"] == plain["episode"]["l"] == 4
        np.testing.assert_array_equal(native["terminal_observation"], plain["terminal_observation"])
    model = venv.env_method("target_model", indices=0)[0]
    assert model.n_stages == 4


@pytest.mark.slow
def test_it_works_in_worker_processes():
    venv = SubprocVecEnv([_make, _make], start_method="forkserver")
    try:
        venv.seed(2)
        obs = venv.reset()
        native = orl.make_vec("orl:orl/Hydrothermal-v0", 2, seed=2)
        np.testing.assert_array_equal(obs, native.reset())
        for _ in range(5):
            actions = np.full((2, 3), -0.5, np.float32)
            np.testing.assert_allclose(venv.step(actions)[1], native.step(actions)[1], rtol=1e-6)
    finally:
        venv.close()


def _make():
    return gymnasium.make("orl:orl/Hydrothermal-v0")


def test_copies_and_pickles_of_a_batch_are_independent_and_equal():
    env = HydrothermalVectorEnv(3, random_case(2, horizon=4))
    env.reset(seed=0)
    env.step(np.zeros((3, 4)))
    others = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = [env.step(np.full((3, 4), 0.3))[:4] for _ in range(6)]
    for other in others:
        for theirs in expected:
            for mine, their in zip(other.step(np.full((3, 4), 0.3))[:4], theirs, strict=True):
                np.testing.assert_array_equal(mine, their)


def test_snapshots_move_between_copies_and_a_finished_one_must_be_reset():
    env = HydrothermalVectorEnv(2, "tri3", autoreset_mode="DISABLED")
    env.reset(seed=0)
    for _ in range(4):
        obs = env.step(np.array([[0.5] * 3, [-0.5] * 3]))[0]
    state = env.get_state(0)
    env.reset(seed=9)
    np.testing.assert_array_equal(env.set_state(1, state), obs[0])
    np.testing.assert_array_equal(env.plan(1).volumes, state.volumes)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 3)))


def test_buffers_are_read_only():
    env = HydrothermalVectorEnv(2, "tri3", copy=False)
    obs, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match="read-only"):
        obs[0] = 0


def test_pictures_of_all_copies():
    env = HydrothermalVectorEnv(2, "tri3", render_mode="rgb_array")
    env.reset(seed=0)
    pictures = env.render()
    assert len(pictures) == 2
    assert pictures[0].dtype == np.uint8
    with pytest.warns(UserWarning, match="render mode"):
        assert HydrothermalVectorEnv(2, "tri3").render() is None


def test_misuse_is_named():
    with pytest.raises(gymnasium.error.ResetNeeded):
        HydrothermalVectorEnv(2, "tri3").step(np.zeros((2, 3)))
    for options, field in (
        ({"num_envs": 0}, "num_envs"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"autoreset_mode": "LATER"}, "autoreset_mode"),
        ({"render_mode": "human"}, "render_mode"),
    ):
        with pytest.raises(InputError) as caught:
            HydrothermalVectorEnv(**options)
        assert caught.value.field == field


@pytest.mark.slow
def test_rules_find_what_they_read_on_bolivia():
    env = HydrothermalVectorEnv(4, from_files("bolivia", "copper"))
    obs, _ = env.reset(seed=0)
    batch = env.batch
    assert batch.instance(0) is env.instance
    assert (batch.volumes.shape, batch.inflows.shape, batch.stage.shape) == ((4, 11), (4, 11), (4,))
    assert batch.settings.action_mode == "reach"
    assert obs.shape == (4, 25)
