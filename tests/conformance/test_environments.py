"""Every registered environment, alone and as a native batch, keeps the contracts of the house."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as maskable_evaluate_policy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor, VecNormalize

import orl
from orl import registry
from orl.common.action_masks import mask_width, random_legal_actions, split_masks
from orl.common.batched_values import equal_trees, row
from orl.common.errors import IllegalActionError, InputError
from orl.common.illegal_actions import MaskWatch, UnmaskedPolicyWarning
from orl.common.post_decision import check_post_decision_env
from orl.common.vector_env_checker import check_vector_env

IDS = [env.lazy_id for env in registry.environments()]
BATCHED = [env.lazy_id for env in registry.environments() if env.vector_entry_point]
MODES = list(AutoresetMode)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def make_batch(id: str, n: int, **kwargs):
    return gymnasium.make_vec(id, n, vectorization_mode="vector_entry_point", **kwargs)


def has_masks(env) -> bool:
    return env.has_wrapper_attr("action_masks")


def action_at(space: spaces.Space, place: int):
    """The action that takes the option at one place of a mask; the other dimensions take their first option."""
    if isinstance(space, spaces.Discrete):
        return place
    flags = np.zeros(mask_width(space), np.bool_)
    flags[place] = True
    return np.array([part.argmax() for part in split_masks(space, flags)])


def random_action(env, rng):
    """A legal action of a single env."""
    if has_masks(env):
        return random_legal_actions(env.action_space, env.get_wrapper_attr("action_masks")()[None], rng)[0]
    env.action_space.seed(int(rng.integers(2**31)))
    return env.action_space.sample()


def random_actions(venv, rng):
    """Legal actions of all copies behind the bridge."""
    if is_masking_supported(venv):
        return random_legal_actions(venv.action_space, get_action_masks(venv), rng)
    venv.action_space.seed(int(rng.integers(2**31)))
    return np.stack([venv.action_space.sample() for _ in range(venv.num_envs)])


def play(env, seed: int, limit: int = 2000):
    """A random legal episode: observations, rewards, last info."""
    rng = np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    trace, rewards = [obs], []
    for _ in range(limit):
        obs, reward, terminated, truncated, info = env.step(random_action(env, rng))
        trace.append(obs)
        rewards.append(reward)
        if terminated or truncated:
            return trace, rewards, info
    raise AssertionError(f"no episode end within {limit} steps")


@pytest.mark.parametrize("id", IDS)
class TestSingle:
    def test_gymnasiums_checker_accepts_it(self, id) -> None:
        gymnasium_check_env(gymnasium.make(id, illegal="remap").unwrapped, skip_render_check=True)

    def test_sb3s_checker_accepts_it(self, id) -> None:
        sb3_check_env(gymnasium.make(id, illegal="remap"), warn=False, skip_render_check=True)

    def test_the_same_seed_gives_the_same_episode(self, id) -> None:
        first, second = (play(gymnasium.make(id), 3) for _ in range(2))
        assert equal_trees(tuple(first[0]), tuple(second[0]))
        assert first[1] == second[1]

    def test_the_terminal_info_holds_a_solution_that_the_instance_accepts(self, id) -> None:
        env = gymnasium.make(id)
        _, _, info = play(env, 1)
        check = env.get_wrapper_attr("instance").check(info["solution"])
        assert check.feasible, check.violations
        assert check.objective == pytest.approx(info["objective"], rel=1e-9)  # programmes are solved to a tolerance
        assert info["bound"] <= info["objective"]

    def test_masks_are_never_all_false_and_illegal_actions_follow_the_keyword(self, id) -> None:
        env = gymnasium.make(id)
        env.reset(seed=0)
        if not has_masks(env):
            pytest.skip("no action masks")
        mask = env.get_wrapper_attr("action_masks")()
        assert mask.dtype == np.bool_
        assert mask.shape == (mask_width(env.action_space),)
        play(env, 0)
        assert env.get_wrapper_attr("action_masks")().any()
        answered = set()
        for illegal in ("raise", "remap", "count"):
            env = gymnasium.make(id, illegal=illegal)
            rng = np.random.default_rng(0)
            env.reset(seed=0)
            for _ in range(300):
                mask = env.get_wrapper_attr("action_masks")()
                if not mask.all():
                    wrong = action_at(env.action_space, int(np.flatnonzero(~mask)[0]))
                    if illegal == "raise":
                        with pytest.raises(IllegalActionError):
                            env.step(wrong)
                    else:
                        env.step(wrong)
                        if illegal == "count":
                            assert env.get_wrapper_attr("illegal_actions") == 1
                    answered.add(illegal)
                    break
                action = random_legal_actions(env.action_space, mask[None], rng)[0]
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()
        assert answered in ({"raise", "remap", "count"}, set())

    def test_numbers_outside_a_box_follow_the_keyword(self, id) -> None:
        space = gymnasium.make(id).action_space
        if not isinstance(space, spaces.Box):
            pytest.skip("no box of actions")
        for wrong in (space.high + 1, space.low - 1, np.full(space.shape, np.nan, space.dtype)):
            for illegal in ("raise", "remap", "count"):
                env = gymnasium.make(id, illegal=illegal)
                obs, _ = env.reset(seed=0)
                if illegal == "raise":
                    state = env.unwrapped.get_state()
                    with pytest.raises(IllegalActionError):
                        env.step(wrong)
                    assert equal_trees(env.unwrapped.set_state(state), obs)
                else:
                    expected = gymnasium.make(id)
                    expected.reset(seed=0)
                    clipped = np.clip(np.nan_to_num(wrong, nan=0.0), space.low, space.high)
                    assert equal_trees(env.step(wrong)[0], expected.step(clipped)[0])
                    assert env.get_wrapper_attr("illegal_actions") == 1

    def test_a_reset_option_that_it_does_not_read_is_named(self, id) -> None:
        env = gymnasium.make(id)
        with pytest.raises(InputError, match="reset option.*'no_such_option'"):
            env.reset(options={"no_such_option": 1})
        env.reset(options={})

    def test_a_state_can_be_restored(self, id) -> None:
        env = gymnasium.make(id).unwrapped
        obs, _ = env.reset(seed=0)
        rng = np.random.default_rng(0)
        for _ in range(3):
            obs, *_ = env.step(random_action(env, rng))
        state = env.get_state()
        actions, results = [], []
        for _ in range(4):
            actions.append(random_action(env, rng))
            results.append(env.step(actions[-1])[:4])
            if results[-1][2] or results[-1][3]:
                break
        assert equal_trees(env.set_state(state), obs)
        for action, expected in zip(actions, results, strict=True):
            got = env.step(action)[:4]
            assert equal_trees(got[0], expected[0])
            assert got[1:] == expected[1:]


@pytest.mark.parametrize("id", [id for id in IDS if hasattr(gymnasium.make(id).unwrapped, "post_decision_space")])
def test_post_decision_data_are_what_they_say(id) -> None:
    rules = check_post_decision_env(gymnasium.make(id), n_steps=120)
    assert {"spaces", "rewards", "decisions", "draws"} <= set(rules)


def test_every_id_works_in_a_fresh_process_that_never_imports_orl() -> None:
    script = (
        "import sys, gymnasium\n"
        "for id in sys.argv[1:]:\n"
        "    env = gymnasium.make(id); env.reset(seed=0); print(env.spec.id)\n"
    )
    command = [sys.executable, "-c", script, *IDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert [f"orl:{line}" for line in done.stdout.split()] == IDS


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_prefixed_ids_work_in_sb3s_workers(start_method) -> None:
    """The workers inherit no registration; the factory imports nothing of orl."""
    venv = SubprocVecEnv([_Maker(IDS[0])], start_method=start_method)
    try:
        venv.seed(4)
        obs = venv.reset()
        expected, _ = gymnasium.make(IDS[0]).reset(seed=4)
        assert equal_trees(row(dict(obs) if isinstance(obs, dict) else obs, 0), expected)
    finally:
        venv.close()


class _Maker:
    def __init__(self, id: str) -> None:
        self.id = id

    def __call__(self):
        return gymnasium.make(self.id)


@pytest.mark.parametrize("id", BATCHED)
class TestBatch:
    @pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
    def test_it_conforms_and_equals_its_single_envs(self, id, mode) -> None:
        env = make_batch(id, 3, autoreset_mode=mode)
        steps = 2 * len(play(gymnasium.make(id), 0)[1]) + 10
        check_vector_env(env, single=lambda: gymnasium.make(id), steps=steps)

    def test_the_default_modes_are_those_of_the_house(self, id) -> None:
        assert make_batch(id, 2).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        env = make_batch(id, 2, autoreset_mode=AutoresetMode.DISABLED)
        assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
        assert make_batch(id, 2).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP

    def test_a_reset_option_that_it_does_not_read_is_named(self, id) -> None:
        with pytest.raises(InputError, match="reset option.*'no_such_option'"):
            make_batch(id, 2).reset(options={"reset_mask": np.ones(2, np.bool_), "no_such_option": 1})

    def test_a_cut_episode_is_truncated_and_says_so_through_the_bridge(self, id) -> None:
        venv = orl.make_vec(id, 2, seed=1, max_episode_steps=3)  # a seed under which no episode ends by itself
        venv.reset()
        rng = np.random.default_rng(0)
        for step in range(3):
            _, _, dones, infos = venv.step(random_actions(venv, rng))
            assert dones.all() == (step == 2)
        assert all(info["TimeLimit.truncated"] and "terminal_observation" in info for info in infos)

    def test_the_bridge_gives_masks_snapshots_and_side_channels_through_wrappers(self, id) -> None:
        venv = VecMonitor(orl.make_vec(id, 3, seed=0, illegal="count"))
        obs, masked = venv.reset(), not isinstance(venv.action_space, spaces.Box)
        assert is_masking_supported(venv) == masked
        masks = get_action_masks(venv) if masked else None
        state = venv.env_method("get_state", indices=2)[0]
        venv.step(random_actions(venv, np.random.default_rng(0)))
        restored = venv.env_method("set_state", state, indices=0)[0]
        assert equal_trees(restored, row(obs, 2))
        if masks is not None:
            assert masks.shape == (3, mask_width(venv.action_space))
            np.testing.assert_array_equal(get_action_masks(venv)[0], masks[2])
        assert venv.illegal_actions.shape == (3,)
        assert venv.illegal_actions.sum() == 0
        assert not venv.has_attr("no_such_attribute")
        with pytest.raises(AttributeError):
            venv.env_method("no_such_method")

    def test_the_bridge_equals_the_single_envs(self, id) -> None:
        venv = orl.make_vec(id, 2, seed=7)
        obs = venv.reset()
        for i in range(2):
            alone, _ = gymnasium.make(id).reset(seed=7 + i)
            assert equal_trees(row(obs, i), alone)

    def test_an_unread_mask_with_illegal_actions_warns_once(self, id) -> None:
        env = make_batch(id, 2, illegal="count")
        env.reset(seed=0)
        env.action_space.seed(0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            illegal = 0
            for _ in range(200):
                env.step(env.action_space.sample())
                illegal += env.illegal_actions.sum()
        told = [w for w in caught if "action_masks" in str(w.message) or "action masks" in str(w.message)]
        assert len(told) == (illegal > 0)


def test_stock_evaluators_on_a_masked_policy() -> None:
    """The plain one warns; the maskable one and ours make no illegal action in 100 episodes."""
    id = BATCHED[0]
    venv = VecMonitor(orl.make_vec(id, 20, seed=0))
    policy = "MultiInputPolicy" if isinstance(venv.observation_space, spaces.Dict) else "MlpPolicy"
    model = MaskablePPO(policy, venv, n_steps=4, batch_size=40, seed=0, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnmaskedPolicyWarning)
        maskable_evaluate_policy(model, venv, n_eval_episodes=100, deterministic=False)
        table = orl.evaluate(model, id, n_episodes=100, deterministic=False)
    assert len(table) == 100
    assert table["illegal_actions"].eq(0).all()
    assert table["checked"].all()
    counting = VecMonitor(orl.make_vec(id, 4, seed=0, illegal="count"))
    with pytest.warns(UserWarning, match="action masks|action_masks"):
        evaluate_policy(model, counting, n_eval_episodes=4, deterministic=False)
    single = gymnasium.make(id, illegal="count")
    with pytest.warns(UserWarning, match="action masks|action_masks"):
        evaluate_policy(model, single, n_eval_episodes=1, deterministic=False, warn=False)


def test_vec_normalize_takes_the_boxes_of_the_job_shop() -> None:
    venv = orl.make_vec("orl:orl/JobShop-v0", 2, seed=0)
    with pytest.raises(ValueError, match="next_machine"):
        VecNormalize(venv)
    raw = venv.reset()
    window = VecNormalize(orl.make_vec("orl:orl/JobShop-v0", 2, seed=0), norm_obs_keys=["interval_rep"])
    compact = VecNormalize(orl.make_vec("orl:orl/JobShop-v0", 2, seed=0, observation="compact"))
    obs = window.reset()
    for key, value in raw.items():
        assert np.array_equal(obs[key], value) == (key != "interval_rep"), key
    for env in (window, compact):
        model = MaskablePPO(
            "MultiInputPolicy" if env is window else "MlpPolicy", env, n_steps=16, batch_size=32, seed=0, device="cpu"
        )
        model.learn(32)
        table = orl.evaluate(
            model, "orl:orl/JobShop-v0", env_kwargs={} if env is window else {"observation": "compact"}
        )
        assert table["checked"].all()


def test_a_time_limit_counts_outside_the_state_and_the_batch_inside() -> None:
    env = gymnasium.make("orl:orl/JobShop-v0", max_episode_steps=3)
    env.reset(seed=0)
    batch = make_batch("orl:orl/JobShop-v0", 1, max_episode_steps=3)
    batch.reset(seed=0)
    start, starts = env.unwrapped.get_state(), batch.get_state(0)
    cut = []
    for _ in range(3):
        env.unwrapped.set_state(start)
        batch.set_state(0, starts)
        action = int(np.flatnonzero(env.unwrapped.action_masks())[0])
        cut.append((env.step(action)[3], bool(batch.step(np.array([action]))[3][0])))
    assert cut == [(False, False), (False, False), (True, False)]


def test_the_watch_of_masked_envs_warns_once_and_only_when_masks_are_unread() -> None:
    watch = MaskWatch()
    watch.check(0)
    watch.seen = True
    watch.check(5)
    watch.reset()
    with pytest.warns(UserWarning, match="action masks"):
        watch.check(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watch.check(1)
