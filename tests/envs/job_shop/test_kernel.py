"""The compiled kernel equals its numpy oracle, and both satisfy the invariants of the MDP."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from job_shop_families import FAMILIES

from orl.envs.job_shop import builders, generators
from orl.envs.job_shop.arena import END, LOWER_BOUND, MODE, NEXT_EVENT, NOW, START
from orl.envs.job_shop.batch import REWARDS, Settings, ShopBatch
from orl.envs.job_shop.instance import ShopInstance
from orl.envs.job_shop.model import Mode, Model
from orl.envs.job_shop.oracle import ShopOracle


def play(batch: ShopBatch, action: int) -> float:
    batch.step(np.array([action]), batch.everyone)
    return float(batch.reward[0])


def root(instance: ShopInstance, **settings: object) -> ShopBatch:
    batch = ShopBatch(1, instance, Settings(**settings))
    batch.reset(batch.everyone)
    return batch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("symmetry_breaking", [False, True])
@pytest.mark.parametrize("propagation", [0, 1])
def test_kernel_equals_oracle_bitwise(family: str, symmetry_breaking: bool, propagation: int) -> None:
    rng = np.random.default_rng(7)
    for episode in range(6):
        instance = FAMILIES[family](rng)
        for reward in REWARDS:
            options = dict(
                symmetry_breaking=symmetry_breaking, propagation=propagation, reward=reward, noop=episode % 3 > 0
            )
            batch, oracle = root(instance, **options), ShopOracle(instance, **options)
            while True:
                a = batch.arena
                assert a.clock[0, NOW] == oracle.now
                assert a.clock[0, NEXT_EVENT] == oracle.next_event
                assert a.clock[0, LOWER_BOUND] == oracle.lower_bound
                np.testing.assert_array_equal(a.mask[0], oracle.mask)
                np.testing.assert_array_equal(a.operations(0, START), oracle.start)
                np.testing.assert_array_equal(a.operations(0, END), oracle.end)
                assert batch.terminated[0] == oracle.terminated
                if oracle.terminated:
                    break
                np.testing.assert_array_equal(a.view("slot_start", 0, a.n_slots), oracle.slot_start)
                action = int(rng.choice(np.flatnonzero(oracle.mask)))
                assert play(batch, action) == oracle.step(action)


@pytest.mark.parametrize("family", FAMILIES)
def test_invariants_of_random_episodes(family: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        instance = FAMILIES[family](rng)
        batch = root(instance)
        a = batch.arena
        total, waits, steps = 0.0, 0, 0
        start, now, bound = a.operations(0, START).copy(), 0, a.clock[0, LOWER_BOUND]
        assert bound == instance.lower_bound()
        while not batch.terminated[0]:
            assert a.mask[0, :-1].any()
            fixed = a.operations(0, MODE) >= 0
            before = start.copy()
            action = int(rng.choice(np.flatnonzero(a.mask[0])))
            total += play(batch, action)
            start = a.operations(0, START).copy()
            assert (start >= before).all()
            assert (start == before)[fixed].all()
            assert a.clock[0, NOW] >= now
            assert a.clock[0, LOWER_BOUND] >= bound
            now, bound = a.clock[0, NOW], a.clock[0, LOWER_BOUND]
            waits = waits + 1 if action == a.n_slots else 0
            assert waits <= max(1, a.n_slots - 1)
            steps += 1
        assert a.mask[0].tolist() == [False] * a.n_slots + [True]
        info = batch.terminal_info(0)
        check = instance.check(info["solution"])
        assert check.feasible, check.violations
        assert check.objective == info["objective"] >= instance.lower_bound()
        scale = max(1, instance.lower_bound())
        assert total == pytest.approx((instance.lower_bound() - check.objective) / scale, abs=1e-9)
        if instance.objective == "makespan":
            assert now == info["makespan"]
        assert steps <= instance.n_ops * a.n_slots


def test_idle_reward_telescopes_to_machine_time() -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        instance = generators.UniformJobShop(4, 3)(rng)
        batch = root(instance, reward="idle")
        total = 0.0
        while not batch.terminated[0]:
            total += play(batch, int(rng.choice(np.flatnonzero(batch.arena.mask[0]))))
        work = int(instance.mode_duration.sum())
        idle = instance.n_resources * batch.terminal_info(0)["makespan"] - work
        assert total * int(instance.mode_duration.max()) == pytest.approx(work - idle, abs=1e-6)


def test_two_by_two_by_hand() -> None:
    instance = builders.job_shop([[0, 1], [1, 0]], [[3, 2], [4, 1]])
    assert (instance.makespan_bound, instance.job_bound) == (6, 5)
    batch = root(instance)
    clock, mask = batch.arena.clock[0], batch.arena.mask[0]
    assert mask.tolist() == [True, True, False]
    play(batch, 0)
    assert (clock[NOW], clock[NEXT_EVENT]) == (0, 3)
    assert mask.tolist() == [False, True, True]
    play(batch, 1)
    assert clock[NOW] == 4
    assert mask.tolist() == [True, True, False]
    play(batch, 0)
    play(batch, 1)
    assert batch.terminated[0]
    assert batch.terminal_info(0)["makespan"] == 6


def test_random_policy_on_ta01_has_the_known_mean() -> None:
    """Three independent implementations agree on 1839 +- 3 (specification, section 8)."""
    instance = generators.taillard_job_shop(15, 15, 840612802, 398197754)
    batch = ShopBatch(128, instance, Settings(observation="compact", illegal="count"))
    batch.reset(batch.everyone)
    rng = np.random.default_rng(0)
    active = batch.everyone.copy()
    while active.any():
        scores = np.where(batch.arena.mask, rng.random(batch.arena.mask.shape), -1)
        batch.step(scores.argmax(1), active)
        active &= ~batch.terminated
    makespans = [batch.terminal_info(b)["makespan"] for b in range(128)]
    assert np.mean(makespans) == pytest.approx(1839, abs=4 * np.std(makespans) / np.sqrt(128))


def test_capacity_one_equals_machine_and_one_mode_equals_job_shop() -> None:
    rng = np.random.default_rng(11)
    plain = generators.UniformJobShop(3, 3, 0, 9)(rng)
    machine = plain.use_resource.reshape(3, 3).tolist()
    duration = plain.mode_duration.reshape(3, 3).tolist()
    flexible = builders.flexible_job_shop(
        [[[(m, d)] for m, d in zip(*row, strict=True)] for row in zip(machine, duration, strict=True)]
    )
    model = Model("cumulative")
    crews = [model.cumulative(f"c{r}", 1) for r in range(3)]
    for j in range(3):
        ops = [model.interval(f"{j}.{k}", [Mode(duration[j][k], {crews[machine[j][k]]: 1})], job=j) for k in range(3)]
        for a, b in itertools.pairwise(ops):
            model.precedence(a, b)
    batches = [root(x) for x in (plain, flexible, model.compile())]
    while not batches[0].terminated[0]:
        masks = [b.arena.mask[0].tolist() for b in batches]
        assert masks[0] == masks[1] == masks[2]
        action = int(rng.choice(np.flatnonzero(masks[0])))
        assert len({play(b, action) for b in batches}) == 1


def test_one_machine_open_shop_is_its_total_work() -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        durations = rng.integers(1, 9, (4, 1)).tolist()
        batch = root(builders.open_shop([[0]] * 4, durations))
        while not batch.terminated[0]:
            play(batch, int(rng.choice(np.flatnonzero(batch.arena.mask[0]))))
        assert batch.terminal_info(0)["makespan"] == np.sum(durations)


def test_missed_deadline_ends_the_episode_as_a_dead_end() -> None:
    model = Model("deadline")
    machine = model.unary("m")
    model.interval("long", [Mode(5, {machine: 1})], job=0)
    model.interval("urgent", [Mode(2, {machine: 1})], deadline=3, job=1)
    instance = model.compile()
    batch = root(instance)
    reward = play(batch, 0)
    assert batch.terminated[0]
    assert reward < 0
    info = batch.terminal_info(0)
    assert info["pruned"]
    assert not instance.check(info["solution"]).feasible
    batch.reset(batch.everyone)
    play(batch, 1)
    play(batch, 0)
    assert batch.terminal_info(0)["makespan"] == 7
    assert not batch.terminal_info(0)["pruned"]
