"""Behaviour of the single and the batched environment beyond what the conformance suite asks of every env."""

from __future__ import annotations

import copy
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from job_shop_families import FAMILIES

from orl.common.errors import IllegalActionError, InputError, UnknownNameError
from orl.common.illegal_actions import UnmaskedPolicyWarning
from orl.envs.job_shop import builders, generators
from orl.envs.job_shop.env import JobShopEnv
from orl.envs.job_shop.instance import ShopInstance
from orl.envs.job_shop.model import Mode, Model
from orl.envs.job_shop.vector import JobShopVectorEnv

OBSERVATIONS = ("window", "compact", "graph")


def random_action(env: JobShopEnv, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(env.action_masks())))


def flat(observation: object) -> np.ndarray:
    values = observation.values() if isinstance(observation, dict) else [observation]
    return np.concatenate([np.ravel(value).astype(float) for value in values])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_observations_stay_in_their_space_and_batches_equal_singles(family: str, observation: str) -> None:
    kwargs = dict(observation=observation, observe_mask=True)
    if family in ("ragged", "identical jobs", "mixed", "weighted"):  # plain callables: tell the largest size
        kwargs["pad_to"] = builders.flexible_job_shop([[[(m % 4, 9)] * 2 for m in range(8)]] * 8)
    envs = JobShopVectorEnv(3, FAMILIES[family], **kwargs)
    singles = [JobShopEnv(FAMILIES[family], illegal="count", **kwargs) for _ in range(3)]
    batch, _ = envs.reset(seed=4)
    alone = [env.reset(seed=4 + i)[0] for i, env in enumerate(singles)]
    rng = np.random.default_rng(0)
    for _ in range(60):
        masks = envs.action_masks()
        for i, env in enumerate(singles):
            assert env.observation_space.contains(alone[i])
            np.testing.assert_array_equal(env.action_masks(), masks[i])
            for key in alone[i]:
                np.testing.assert_array_equal(alone[i][key], batch[key][i], strict=True)
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        batch, rewards, terminated, _, infos = envs.step(actions)
        for i, env in enumerate(singles):
            alone[i], reward, done, _, info = env.step(actions[i])
            assert (reward, done) == (rewards[i], terminated[i])
            if done:
                for key in alone[i]:
                    np.testing.assert_array_equal(alone[i][key], infos["final_obs"][i][key])
                assert infos["final_info"]["objective"][i] == info["objective"]
                alone[i], _ = env.reset()


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_state_round_trip_is_exact(observation: str) -> None:
    pad_to = FAMILIES["project"].largest
    env = JobShopEnv(FAMILIES["mixed"], observation=observation, pad_to=pad_to, observe_mask=True)
    rng = np.random.default_rng(1)
    env.reset(seed=3)
    for _ in range(4):
        env.step(random_action(env, rng))
    state = pickle.loads(pickle.dumps(env.get_state()))
    trail = []
    done = False
    while not done:
        action = random_action(env, rng)
        observation_, reward, done, _, _ = env.step(action)
        trail.append((action, flat(observation_), reward, done))
    for other in (env, copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        other.set_state(state)
        for action, expected, reward, ended in trail:
            result = other.step(action)
            np.testing.assert_array_equal(flat(result[0]), expected)
            assert result[1:3] == (reward, ended)


def test_snapshot_moves_between_single_and_batch() -> None:
    env, envs = JobShopEnv("ft06"), JobShopVectorEnv(2, "ft06")
    env.reset(seed=0)
    envs.reset(seed=1)
    env.step(0)
    expected = env.set_state(env.get_state())
    observation = envs.set_state(1, env.get_state())
    np.testing.assert_array_equal(flat(observation), flat(expected))
    np.testing.assert_array_equal(envs.action_masks()[1], env.action_masks())
    with pytest.raises(InputError, match="another instance"):
        JobShopEnv(generators.UniformJobShop(6, 6)(np.random.default_rng(0))).set_state(env.get_state())


def test_padding_leaves_real_rows_unchanged() -> None:
    rng = np.random.default_rng(0)
    small = generators.UniformJobShop(3, 4)(rng)
    for observation in ("window", "compact"):
        plain = JobShopEnv(small, observation=observation)
        padded = JobShopEnv(small, observation=observation, pad_to=generators.UniformJobShop(6, 7)(rng))
        first, _ = plain.reset(seed=0)
        second, _ = padded.reset(seed=0)
        done = False
        while not done:
            mask = plain.action_masks()
            wide = padded.action_masks()
            np.testing.assert_array_equal(wide[:3], mask[:3])
            assert not wide[3:-1].any()
            assert wide[-1] == mask[-1]
            if observation == "window":
                for key in ("interval_rep", "index_interval", "start_end_tokens", "attention_interval_mask"):
                    np.testing.assert_array_equal(second[key][:3], first[key])
                assert (second["attention_interval_mask"][3:] == 1).all()
            else:
                np.testing.assert_array_equal(second.reshape(6, 9)[:3], first.reshape(3, 9))
                assert not second.reshape(6, 9)[3:].any()
            action = random_action(plain, rng)
            first, reward, done, _, _ = plain.step(action)
            second, other, ended, _, _ = padded.step(6 if action == 3 else action)
            assert (reward, done) == (other, ended)


def test_relabelled_machines_change_nothing_but_their_names() -> None:
    rng = np.random.default_rng(0)
    machines = [rng.permutation(4).tolist() for _ in range(4)]
    durations = rng.integers(1, 9, (4, 4)).tolist()
    relabelled = [[(m + 1) % 4 for m in row] for row in machines]
    one, two = (JobShopEnv(builders.job_shop(rows, durations)) for rows in (machines, relabelled))
    first, second = one.reset()[0], two.reset()[0]
    done = False
    while not done:
        for key in set(first) - {"next_machine"}:
            np.testing.assert_array_equal(first[key], second[key])
        action = random_action(one, rng)
        first, reward, done, _, _ = one.step(action)
        second, other, _, _, _ = two.step(action)
        assert reward == other


def test_window_of_the_hand_case() -> None:
    env = JobShopEnv(builders.job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]]), window=3, observe_resource_mask=True)
    obs, _ = env.reset()
    mean = 2.5
    np.testing.assert_allclose(obs["interval_rep"][0], [[0, 0, 0, 0], [0, 0, 3 / mean, 1], [0, 3 / mean, 2 / mean, 0]])
    np.testing.assert_array_equal(obs["start_end_tokens"], [[1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(obs["index_interval"], [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(obs["next_machine"], [0, 1])
    np.testing.assert_array_equal(obs["job_resource_mask"], [[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    env.step(0)
    obs, *_ = env.step(1)  # now = 4: both jobs wait for their second operation
    np.testing.assert_allclose(obs["interval_rep"][0], [[1, -4 / mean, 3 / mean, 0], [0, 0, 2 / mean, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(obs["start_end_tokens"], [[0, 0, 2], [0, 0, 2]])
    np.testing.assert_array_equal(obs["attention_interval_mask"], [[0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(obs["index_interval"], [[0, 1, 0], [0, 1, 0]])


def test_reference_normalisation_mixes_the_features_of_slot_one() -> None:
    instance = generators.UniformJobShop(3, 3)(np.random.default_rng(0))
    raw = JobShopEnv(instance).reset()[0]["interval_rep"]
    absolute = raw.copy()
    absolute[:, :, 1:3] *= instance.min_duration.mean()  # now = 0 at the root
    got = JobShopEnv(instance, normalization="reference").reset()[0]["interval_rep"]
    slot = absolute[:, 1]
    np.testing.assert_allclose(got[:, :, 1], (absolute[:, :, 1] - slot.mean()) / slot.std(), rtol=1e-5)
    std = instance.min_duration.std()
    np.testing.assert_allclose(got[:, :, 2], (absolute[:, :, 2] - instance.min_duration.mean()) / std, rtol=1e-5)
    np.testing.assert_array_equal(got[:, :, [0, 3]], raw[:, :, [0, 3]])


def test_illegal_actions_follow_the_keyword() -> None:
    instance = builders.job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]])
    strict = JobShopEnv(instance)
    strict.reset()
    before = flat(strict.set_state(strict.get_state()))
    for action in (2, -1, 99):
        with pytest.raises(IllegalActionError, match=r"legal: \[0, 1\]"):
            strict.step(action)
    np.testing.assert_array_equal(flat(strict.set_state(strict.get_state())), before)
    counting = JobShopEnv(instance, illegal="count")
    counting.reset()
    counting.action_masks()
    counting.step(2)
    assert counting.illegal_actions == 1
    assert counting.schedule().start.tolist() == [0, -1, -1, -1]
    envs = JobShopVectorEnv(2, instance, illegal="raise")
    envs.reset()
    with pytest.raises(IllegalActionError, match="copy 1"):
        envs.step(np.array([0, 2]))
    assert envs.schedule(0).start.tolist() == [-1] * 4


@pytest.mark.parametrize("actions", [np.zeros(8, int), np.zeros(2, int), np.zeros((4, 1), int), [1.9] * 4, 0])
def test_bad_action_arrays_are_refused_before_anything_is_stepped(actions: object) -> None:
    envs = JobShopVectorEnv(4, "ft06")
    envs.reset(seed=0)
    with pytest.raises(InputError, match=r"int64\[4\]"):
        envs.step(actions)
    assert [envs.get_state(i).elapsed for i in range(4)] == [0] * 4
    env = JobShopEnv("ft06")
    env.reset(seed=0)
    with pytest.raises(InputError, match="integer"):
        env.step(0.9)


def test_a_refused_action_leaves_finished_copies_waiting_for_their_reset() -> None:
    envs = JobShopVectorEnv(2, ["ft06"], autoreset_mode="NEXT_STEP", illegal="raise")
    envs.reset(seed=0)
    state = envs.get_state(0)
    while not envs.batch.terminated[0]:
        actions = envs.action_masks().argmax(1)
        if envs.batch.arena.mask[0].sum() and envs.get_state(1).elapsed == 3:
            envs.set_state(1, state)
            actions = envs.action_masks().argmax(1)
        envs.step(actions)
    elapsed = [envs.get_state(i).elapsed for i in range(2)]
    with pytest.raises(IllegalActionError):
        envs.step(np.array([0, 99]))
    assert [envs.get_state(i).elapsed for i in range(2)] == elapsed
    envs.step(envs.action_masks().argmax(1))
    assert envs.get_state(0).elapsed == 0


def test_a_refused_snapshot_changes_nothing() -> None:
    env = JobShopEnv(generators.UniformJobShop(4, 3))
    env.reset(seed=0)
    before = env.instance
    other = JobShopEnv(generators.UniformJobShop(5, 3))
    other.reset(seed=0)
    with pytest.raises(InputError, match="slots"):
        env.set_state(other.get_state())
    assert env.instance is before


def test_instances_are_immutable_and_masks_never_empty() -> None:
    env = JobShopEnv("ft06")
    assert env.action_masks().any()
    with pytest.raises(ValueError, match="read-only"):
        env.instance.mode_duration[0] = 99


def test_huge_capacities_are_refused_before_memory_is_taken() -> None:
    model = Model("huge")
    crew = model.cumulative("crew", 10**9)
    for i in range(2):
        model.interval(f"o{i}", [Mode(1, {crew: 5 * 10**8})], job=i)
    with pytest.raises(InputError, match="capacity"):
        JobShopEnv(model.compile())


def test_a_policy_that_never_reads_the_mask_is_warned_about_once() -> None:
    env = JobShopEnv("ft06", illegal="remap")
    env.reset(seed=0)
    with pytest.warns(UnmaskedPolicyWarning, match="action masks"):
        env.step(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(6)


def test_autoreset_modes_and_reset_mask() -> None:
    instance = builders.job_shop([[0]], [[3]])
    for mode in AutoresetMode:
        envs = JobShopVectorEnv(2, instance, autoreset_mode=mode)
        assert envs.metadata["autoreset_mode"] == mode
        envs.reset(seed=0)
        _, _, terminated, _, infos = envs.step(np.array([0, 0]))
        assert terminated.all()
        if mode == AutoresetMode.SAME_STEP:
            assert infos["final_info"]["makespan"].tolist() == [3, 3]
            assert envs.action_masks()[:, 0].all()
        elif mode == AutoresetMode.NEXT_STEP:
            assert infos["makespan"].tolist() == [3, 3]
            _, reward, terminated, _, _ = envs.step(np.array([0, 0]))
            assert not terminated.any()
            assert not reward.any()
            assert envs.action_masks()[:, 0].all()
        else:
            with pytest.raises(gymnasium.error.ResetNeeded, match="reset_mask"):
                envs.step(np.array([0, 0]))
            envs.reset(options={"reset_mask": np.array([True, False])})
            assert envs.action_masks()[:, 0].tolist() == [True, False]
    with pytest.raises(InputError, match="reset_mask"):
        envs.reset(options={"reset_mask": [True, False]})


def test_truncation_by_max_episode_steps() -> None:
    envs = JobShopVectorEnv(2, "ft06", max_episode_steps=5)
    envs.reset(seed=0)
    for step in range(5):
        _, _, terminated, truncated, infos = envs.step(envs.action_masks().argmax(1))
        assert truncated.all() == (step == 4)
    assert not terminated.any()
    assert infos["_final_obs"].all()
    assert np.isinf(infos["final_info"]["objective"]).all()
    assert (infos["final_info"]["solution"][0].start >= 0).sum() > 0
    assert (envs.schedule(0).start == -1).all()


def test_copy_false_hands_out_read_only_buffers() -> None:
    envs = JobShopVectorEnv(2, "ft06", copy=False)
    first, _ = envs.reset(seed=0)
    second, *_ = envs.step(envs.action_masks().argmax(1))
    assert np.shares_memory(first["interval_rep"], second["interval_rep"])
    with pytest.raises(ValueError, match="read-only"):
        first["interval_rep"][:] = 0
    safe = JobShopVectorEnv(2, "ft06")
    first, _ = safe.reset(seed=0)
    second, *_ = safe.step(safe.action_masks().argmax(1))
    assert not np.shares_memory(first["interval_rep"], second["interval_rep"])


def test_episodes_draw_instances_reproducibly() -> None:
    source = [generators.UniformJobShop((3, 6), (2, 5)), "ft06", generators.UniformOpenShop(3, 3)]
    one, two = JobShopEnv(source), JobShopEnv(source)
    names = []
    for env in (one, two):
        env.reset(seed=11)
        drawn = [env.instance.to_json()]
        for _ in range(8):
            env.reset()
            drawn.append(env.instance.to_json())
        names.append(drawn)
    assert names[0] == names[1]
    assert len({instance["name"] for instance in names[0]}) > 1


def test_bad_arguments_are_named() -> None:
    with pytest.raises(UnknownNameError, match="ta01"):
        JobShopEnv("ta1")
    with pytest.raises(InputError, match="observation"):
        JobShopEnv("ft06", observation="pixels")
    with pytest.raises(InputError, match="upper_bound"):
        JobShopEnv("ft06", propagation=2)
    with pytest.raises(InputError, match="instance"):
        JobShopEnv(3.5)
    for wrong in (
        dict(window="5"),
        dict(upper_bound="x", propagation=2),
        dict(pad_to="ta01"),
        dict(render_mode="human"),
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            JobShopEnv("ft06", **wrong)
    for wrong in (dict(max_episode_steps=0), dict(autoreset_mode="sometimes")):
        with pytest.raises(InputError, match=next(iter(wrong))):
            JobShopVectorEnv(2, "ft06", **wrong)

    def growing(rng: np.random.Generator) -> ShopInstance:
        growing.n += 1
        return generators.UniformJobShop(growing.n, 2)(rng)

    growing.n = 2
    env = JobShopEnv(growing)
    with pytest.raises(InputError, match="pad_to"):
        for _ in range(3):
            env.reset()
    with pytest.raises(gymnasium.error.ResetNeeded):
        JobShopEnv("ft06").step(0)
    flow = builders.job_shop([[0]], [[3]], objective="total_flow")
    with pytest.raises(InputError, match="propagation"):
        JobShopEnv(flow, propagation=2, upper_bound=9)
    with pytest.raises(InputError, match="better than the upper bound"):
        JobShopEnv("ft06", propagation=2, upper_bound=40).reset()


def test_terminal_info_holds_a_checked_solution_and_the_gap() -> None:
    env = JobShopEnv("ft06", infos="full")
    _, info = env.reset(seed=0)
    assert info["now"] == 0
    done, rng = False, np.random.default_rng(0)
    while not done:
        _, _, done, truncated, info = env.step(random_action(env, rng))
        assert not truncated
    check = env.instance.check(info["solution"])
    assert check.feasible
    assert check.objective == info["makespan"] == info["objective"]
    assert info["gap"] == pytest.approx((info["makespan"] - 55) / 55)
    assert info["bound"] <= 55
    assert env.action_masks().tolist() == [False] * 6 + [True]


def test_render_draws_the_schedule_so_far() -> None:
    env = gymnasium.make("orl:orl/JobShop-v0", render_mode="rgb_array")
    env.reset(seed=0)
    empty = env.render()
    env.step(int(env.unwrapped.action_masks().argmax()))
    frame = env.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape == empty.shape
    assert (frame != empty).any()
