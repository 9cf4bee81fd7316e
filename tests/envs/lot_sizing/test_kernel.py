"""The compiled kernel equals the functions in numpy to the last bit, copy by copy."""

from __future__ import annotations

import numpy as np
import pytest
from lot_sizing_cases import DEMANDS, instance_of, random_actions

from orl.envs.lot_sizing import scenario, transition
from orl.envs.lot_sizing.bank import Bank
from orl.envs.lot_sizing.batch import LotSizingBatch, Settings
from orl.envs.lot_sizing.bounds import path_bound
from orl.envs.lot_sizing.distributions import binomial
from orl.envs.lot_sizing.observation import KINDS


def started(instance, n, seed=0, **settings):
    batch = LotSizingBatch(n, instance, Settings(illegal="remap", **settings))
    batch.reset(batch.everyone, [np.random.default_rng(seed + i) for i in range(n)])
    return batch


def step(batch, actions):
    batch.step(np.ascontiguousarray(actions), batch.everyone)


def row_in_numpy(instance, kind, inventory, setup, period):
    """A flat or raw observation with the time, [N, D]."""
    time = np.full((len(inventory), 1), period / instance.horizon)
    if kind == "raw":
        return np.concatenate([inventory, setup, time], axis=1).astype(np.float32)
    one_hot = setup[..., None] == np.arange(instance.n_items + 1)
    scaled = inventory / np.maximum(instance.max_inventory, 1)
    return np.concatenate([scaled, one_hot.reshape(len(setup), -1), time], axis=1).astype(np.float32)


@pytest.mark.parametrize("n", [1, 7, 64])
@pytest.mark.parametrize("incompatible", ["mask", "waste", "reference"])
@pytest.mark.parametrize("backlog", [False, True])
@pytest.mark.parametrize("demand", DEMANDS)
def test_an_episode_equals_the_functions_in_numpy(demand, backlog, incompatible, n):
    instance = instance_of(demand, backlog=backlog, sequence_dependent=backlog, seed=n)
    kind = "raw" if backlog else "flat"
    batch = started(instance, n, observation=kind, append_time=True, incompatible=incompatible, reward_scale=0.3)
    rng = np.random.default_rng(5)
    inventory, setup = scenario.initial_state(instance, batch.keys)
    np.testing.assert_array_equal(batch.inventory, inventory)
    np.testing.assert_array_equal(batch.setup, setup)
    np.testing.assert_array_equal(batch.observations, row_in_numpy(instance, kind, inventory, setup, 0))
    totals = np.zeros((n, 3))
    for t in range(instance.horizon):
        actions = random_actions(instance, n, rng)
        post, setup, setup_cost = transition.decide(instance, inventory, setup, actions, incompatible)
        came = instance.demand.draw(batch.keys, t)
        inventory, _, lost_cost, holding_cost = transition.realise(instance, post, came)
        step(batch, actions)
        np.testing.assert_array_equal(batch.post_inventory, post)
        np.testing.assert_array_equal(batch.post_setup, setup)
        np.testing.assert_array_equal(batch.post_observations, row_in_numpy(instance, kind, post, setup, t))
        np.testing.assert_array_equal(batch.inventory, inventory)
        np.testing.assert_array_equal(batch.setup, setup)
        np.testing.assert_array_equal(batch.observations, row_in_numpy(instance, kind, inventory, setup, t + 1))
        np.testing.assert_array_equal(batch.rewards[1], 0.0 - 0.3 * setup_cost)
        np.testing.assert_array_equal(batch.rewards[2], 0.0 - 0.3 * (lost_cost + holding_cost))
        np.testing.assert_array_equal(batch.rewards[0], batch.rewards[1] + batch.rewards[2])
        totals += np.stack([setup_cost, lost_cost, holding_cost], axis=1)
        assert (batch.over == (t + 1 == instance.horizon)).all()
    np.testing.assert_array_equal(batch.totals, totals)
    np.testing.assert_array_equal(batch.history[0], scenario.demand_path(instance, batch.keys))


@pytest.mark.parametrize("demand", DEMANDS)
def test_alternative_draws_equal_those_in_numpy(demand):
    instance = instance_of(demand, backlog=True)
    batch = started(instance, 5, observation="raw", append_time=True)
    rng = np.random.default_rng(1)
    for t in range(3):
        actions = random_actions(instance, 5, rng)
        step(batch, actions)
        rows, rewards, terminated = batch.exogenous_samples(4)
        came = instance.demand.draw(batch.keys[:, None], t, np.arange(1, 5))
        inventory, _, lost_cost, holding_cost = transition.realise(instance, batch.post_inventory[:, None], came)
        np.testing.assert_array_equal(rewards, 0.0 - (lost_cost + holding_cost))
        for k in range(4):
            expected = row_in_numpy(instance, "raw", inventory[:, k], batch.post_setup, t + 1)
            np.testing.assert_array_equal(rows[:, k], expected)
        assert not terminated.any()


@pytest.mark.parametrize("incompatible", ["mask", "waste", "reference"])
def test_candidate_decisions_equal_those_in_numpy_and_leave_the_batch_alone(incompatible):
    instance = instance_of("item-specific", sequence_dependent=True)
    batch = started(instance, 3, observation="raw", incompatible=incompatible)
    rng = np.random.default_rng(2)
    step(batch, random_actions(instance, 3, rng))
    before = [array.copy() for array in (*batch.copies, *batch.post, batch.observations, batch.rewards, batch.totals)]
    candidates = random_actions(instance, 15, rng).reshape(3, 5, -1)
    between, deterministic, following, stochastic, terminated = batch.simulate_decisions(candidates, 6)
    post, setup, cost = transition.decide(
        instance, batch.inventory[:, None], batch.setup[:, None], candidates, incompatible
    )
    came = instance.demand.draw(batch.keys[:, None], 1, np.arange(1, 7))
    inventory, _, lost_cost, holding_cost = transition.realise(instance, post[:, :, None], came[:, None])
    np.testing.assert_array_equal(between, np.concatenate([post, setup], axis=-1).astype(np.float32))
    np.testing.assert_array_equal(deterministic, 0.0 - cost)
    np.testing.assert_array_equal(following[..., :4], inventory.astype(np.float32))
    np.testing.assert_array_equal(following[..., 4:], np.repeat(setup[:, :, None], 6, axis=2).astype(np.float32))
    np.testing.assert_array_equal(stochastic, 0.0 - (lost_cost + holding_cost))
    assert terminated.shape == (3, 5, 6)
    after = (*batch.copies, *batch.post, batch.observations, batch.rewards, batch.totals)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_an_item_runs_on_one_machine_only_where_items_are_exclusive():
    instance = instance_of(n_machines=4, seed=3)
    batch = started(instance, 64, exclusive_items=True)
    actions = random_actions(instance, 64, np.random.default_rng(0))
    executed = actions.copy()
    machines = np.arange(4)
    executed[instance.production[machines, np.maximum(actions - 1, 0)] == 0] = 0
    for b in range(64):
        for m in machines:
            if executed[b, m] in executed[b, :m]:
                executed[b, m] = 0
    step(batch, actions)
    np.testing.assert_array_equal(batch.setup, executed)
    np.testing.assert_array_equal(batch.illegal, (executed != actions).any(1))
    assert 0 < batch.illegal.sum() < 64


@pytest.mark.parametrize("demand", DEMANDS)
@pytest.mark.parametrize("incompatible", ["mask", "reference"])
def test_the_bound_is_that_of_the_path(demand, incompatible):
    for seed in range(4):
        instance = instance_of(demand, backlog=seed % 2 == 1, horizon=(4, 9, 30, 60)[seed], seed=seed)
        batch = started(instance, 6, incompatible=incompatible)
        rng = np.random.default_rng(seed)
        for _ in range(instance.horizon):
            step(batch, random_actions(instance, 6, rng))
        columns = batch.terminal_columns(list(range(6)))
        plans = columns["solution"]
        expected = [
            float(path_bound(instance, plan.demand, plan.initial_inventory, plan.initial_setup, incompatible))
            for plan in plans
        ]
        np.testing.assert_allclose(columns["bound"], expected, rtol=1e-12, atol=1e-12)
        assert (columns["bound"] <= columns["objective"]).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_every_layout_shows_the_same_state(kind):
    instance = instance_of(seed=4)
    batch, flat = (started(instance, 8, observation=k) for k in (kind, "flat"))
    for t in range(4):
        actions = random_actions(instance, 8, np.random.default_rng(t))
        step(batch, actions)
        step(flat, actions)
    unit = np.maximum(instance.max_inventory, 1)
    for rows, flat_rows, state in (
        (batch.observations, flat.observations, (batch.inventory, batch.setup)),
        (batch.post_observations, flat.post_observations, (batch.post_inventory, batch.post_setup)),
    ):
        shown = batch.shaped(rows, state[1])
        if kind == "dict":
            np.testing.assert_array_equal(shown["inventory"], flat_rows[:, :4])
            np.testing.assert_array_equal(shown["setup"], flat_rows[:, 4:].reshape(8, 3, 5).argmax(-1))
        else:
            np.testing.assert_array_equal(shown[:, :4], state[0])
            np.testing.assert_allclose(shown[:, :4] / unit, flat_rows[:, :4], rtol=1e-6)
            assert shown.shape[1] == (7 if kind == "raw" else 4)


def test_a_bank_grows_for_wider_tables_and_keeps_its_other_rows():
    small = instance_of("deterministic", horizon=4)
    bank = Bank([small, small], "mask")
    tables = bank.tables
    assert not bank.put(1, instance_of("deterministic", horizon=4, seed=1))
    assert bank.tables is tables
    wide = instance_of("item-specific", horizon=12, seed=2)
    assert bank.put(0, wide)
    assert bank.longest == 12
    for row, instance in enumerate(bank.instances):
        alone = Bank([instance], "mask")
        for together, own in zip(bank.tables + bank.bound_tables, alone.tables + alone.bound_tables, strict=True):
            index = tuple(slice(0, size) for size in own.shape[1:])
            np.testing.assert_array_equal(together[(row, *index)], own[0])


def test_draws_of_a_wide_table_follow_the_table():
    """Chi-square of the first item's demand against its distribution, over keys."""
    instance = instance_of(n_items=2, n_machines=1)
    assert instance.demand.values.shape == binomial(2, 9, 0.4).values.shape
    batch = started(instance, 4000)
    step(batch, np.zeros((4000, 1), np.int64))
    values, probabilities = instance.demand.table(0)
    for i in range(2):
        seen = np.bincount(batch.history[0][:, 0, i], minlength=10)
        expected = 4000 * probabilities[i][values[i]]
        inside = expected > 5
        assert ((seen - expected)[inside] ** 2 / expected[inside]).sum() < 30.0  # 9 degrees of freedom, p < 0.001
