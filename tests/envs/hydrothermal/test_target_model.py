"""The target model: exact gradients of whole episodes, feasible targets, the environment's own noise and features."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.seeding import np_random
from hydrothermal_toys import from_files, random_case, tri3

from orl.common.counter_noise import draw_key
from orl.common.errors import InputError
from orl.common.protocols import SoftTargetModel
from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.env import HydrothermalEnv
from orl.envs.hydrothermal.generators import cascade
from orl.envs.hydrothermal.observation import observations
from orl.envs.hydrothermal.stage_lp import StageError, StageLP
from orl.envs.hydrothermal.target_model import HydrothermalTargets

KEYS = np.arange(7, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def run(model, noise, choose):
    """States float64[T + 1, B, n] when ``choose(stage, state)`` gives the fractions."""
    states = [np.tile(model.initial_state, (noise.shape[1], 1))]
    for t in range(len(noise)):
        states.append(model.reach(states[-1], noise[t], choose(t, states[-1])))
    return np.array(states)


def random_states(model, noise, seed=0):
    """A path on which some reservoirs are full and some are empty."""
    rng = np.random.default_rng(seed)
    shape = (noise.shape[1], len(model.initial_state))
    return run(model, noise, lambda t, state: np.clip(rng.uniform(-0.2, 1.2, shape), 0, 1))


# ---- Feasibility and conservation ----------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["reach", "target"])
@pytest.mark.parametrize("name", ["tri3", "cascade-6x5-s0", "cascade-9x3-s2"])
def test_ten_thousand_random_decisions_can_be_operated(name, mode):
    instance = library.load(name)
    model = HydrothermalTargets(instance, mode)
    n_paths = -(-10_000 // instance.horizon)
    noise = model.draw(np.arange(n_paths, dtype=np.uint64))
    states = random_states(model, noise)
    costs, _, _ = model.costs_and_gradients(states[:-1], noise, states[1:])
    assert costs.size >= 10_000
    assert (costs >= 0).all()
    assert (states >= instance.min_volume).all()
    assert (states <= instance.max_volume).all()


def test_no_power_is_thrown_away_in_bolivia():
    instance = from_files("bolivia").with_horizon(48)
    model, lp = HydrothermalTargets(instance), StageLP(instance)
    noise = model.draw(KEYS[:2])
    states = random_states(model, noise)
    for r in (states[:-1] + instance.water_factor * noise - states[1:]).reshape(-1, 11):
        assert lp.solve(r).primal["surplus"].sum() < 1e-9


def test_a_next_state_out_of_reach_is_refused():
    model = HydrothermalTargets(tri3())
    noise = model.draw(KEYS)
    before = np.tile(model.initial_state, (4, 7, 1))
    with pytest.raises(StageError, match="no optimum"):
        model.costs_and_gradients(before, noise, before + 1e3)


def test_targets_move_to_what_is_nearest():
    instance = tri3()
    model = HydrothermalTargets(instance, "target")
    state, noise = np.zeros((2, 3)), np.array([[10.0, 0.0, 1.0], [100.0, 100.0, 100.0]])
    reached = model.reach(state, noise, np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.25]]))
    # the first has 26.28, 0 and 2.628 hm3 where 100, 10 and 40 are wished for; the second has plenty
    np.testing.assert_allclose(reached, [[26.28, 0.0, 2.628], [100.0, 10.0, 20.0]])
    assert not model.reachable


# ---- Gradients -----------------------------------------------------------------------------------------------------
def test_costs_and_duals_are_those_of_the_programme():
    instance = tri3(horizon=6)
    model = HydrothermalTargets(instance)
    noise = model.draw(KEYS)
    states = random_states(model, noise)
    costs, by_before, by_after = model.costs_and_gradients(states[:-1], noise, states[1:])
    assert costs.shape == (6, 7)
    np.testing.assert_array_equal(by_after, -by_before)
    assert (by_before <= 0).all()
    for t in range(6):
        r = states[t] + instance.water_factor * noise[t] - states[t + 1]
        np.testing.assert_allclose(costs[t], StageLP(instance, t).costs_and_duals(r)[0], rtol=1e-9, atol=1e-6)


class LinearPolicy:
    """y = sigmoid(A observation) and the gradient of an episode's cost by A, written out by hand."""

    def __init__(self, model, noise, seed):
        self.model, self.noise = model, noise
        self.features = model.features(noise)
        shape = (len(model.initial_state), self.features.shape[-1])
        self.matrix = np.random.default_rng(seed).normal(scale=0.5, size=shape)

    def observe(self, t, state):
        observation = self.features[t].copy()
        observation[:, self.model.state_at] = state / self.model.state_unit
        return observation

    def states(self, matrix):
        return run(self.model, self.noise, lambda t, state: 1 / (1 + np.exp(-self.observe(t, state) @ matrix.T)))

    def cost(self, matrix):
        states = self.states(matrix)
        return self.model.costs_and_gradients(states[:-1], self.noise, states[1:])[0].sum()

    def gradient(self, *, limits_move=True):
        model, states = self.model, self.states(self.matrix)
        _, by_before, by_after = model.costs_and_gradients(states[:-1], self.noise, states[1:])
        total, by_state = np.zeros(self.matrix.shape), np.zeros(states[0].shape)
        for t in reversed(range(model.n_stages)):
            seen = self.observe(t, states[t])
            y = 1 / (1 + np.exp(-seen @ self.matrix.T))
            through, by_y = model.reach_gradient(states[t], self.noise[t], y, by_after[t] + by_state)
            by_z = by_y * y * (1 - y)
            total += by_z.T @ seen
            by_state = by_before[t] + (through if limits_move else 0.0)
            by_state = by_state + (by_z @ self.matrix)[:, model.state_at] / model.state_unit
        return total


def differences(policy, step, count=20):
    """Central differences of the cost in random directions, where those to either side agree, and which ones do."""
    rng = np.random.default_rng(1)
    here = policy.cost(policy.matrix)
    for _ in range(count):
        direction = rng.normal(size=policy.matrix.shape)
        left = (here - policy.cost(policy.matrix - step * direction)) / step
        right = (policy.cost(policy.matrix + step * direction) - here) / step
        yield direction, left, right


@pytest.mark.parametrize("mode", ["reach", "target"])
@pytest.mark.parametrize("name", ["tri3", "cascade-6x5-s0-t6"])
def test_the_gradient_of_an_episode_is_exact(name, mode):
    model = HydrothermalTargets(library.load(name), mode)
    policy = LinearPolicy(model, model.draw(KEYS[:3]), 5)
    exact, detached = policy.gradient(), policy.gradient(limits_move=False)
    checked = broken = 0
    for direction, left, right in differences(policy, 1e-5):
        slope = float((exact * direction).sum())
        scale = np.linalg.norm(exact)
        if abs(left - right) > 1e-4 * scale:  # a kink lies in between
            continue
        assert (left + right) / 2 == pytest.approx(slope, rel=1e-6, abs=1e-6 * scale)
        checked += 1
        broken += abs(float((detached * direction).sum()) - slope) > 1e-3 * scale
    assert checked >= 10
    assert broken > checked / 2  # limits that are taken for constants give another gradient


# ---- Noise and features --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("joint", [True, False])
def test_noise_is_what_an_episode_with_the_key_meets(joint):
    instance = random_case(0, horizon=5)
    instance = replace(instance, joint=joint)
    model = HydrothermalTargets(instance)
    seeds = [0, 5, 9]
    noise = model.draw(np.array([draw_key(np_random(seed)[0]) for seed in seeds]))
    assert noise.shape == (5, 3, 4)
    scenarios = [instance.scenario(seed) for seed in seeds]
    for b, scenario in enumerate(scenarios):
        np.testing.assert_array_equal(noise[:, b], scenario.path_inflows(scenario.columns))
        np.testing.assert_array_equal(HydrothermalTargets(scenario).draw(KEYS[:2])[:, 1], noise[:, b])
    columns = np.stack([scenario.columns for scenario in scenarios], axis=1)
    np.testing.assert_array_equal(model.noise_of(columns), noise)


def test_bad_columns_are_refused():
    model = HydrothermalTargets(tri3())
    assert model.noise_of(np.zeros((4, 0), int)).shape == (4, 0, 3)
    for columns, problem in (
        (np.zeros((4, 2, 3), int), "bad columns"),
        (np.zeros((3, 2), int), "bad columns"),
        (np.zeros((4, 2)), "bad columns"),
        (np.full((4, 2), 3), "no such inflow column"),
        (np.full((4, 2), -1), "no such inflow column"),
    ):
        with pytest.raises(InputError, match=problem):
            model.noise_of(columns)


def test_features_are_observations_without_the_state():
    instance = cascade(4, 2, 1).with_horizon(30)  # longer than the cycle of inflows
    model = HydrothermalTargets(instance)
    noise = model.draw(KEYS[:2])
    features = model.features(noise)
    assert features.shape == (30, 2, 11)
    assert not features[..., model.state_at].any()
    volumes = np.random.default_rng(0).uniform(0, instance.max_volume, noise.shape)
    features[..., model.state_at] = volumes / model.state_unit
    for t in (0, 11, 12, 29):
        for b in range(2):
            seen = observations("flat", instance, volumes[t, b][None], noise[t, b][None], np.array([t]))
            np.testing.assert_array_equal(features[t, b], seen[0])
    assert (model.state_unit > 0).all()


@pytest.mark.parametrize("mode", ["reach", "target"])
@pytest.mark.parametrize("name", ["tri3", "cascade-6x5-s0"])
def test_an_episode_of_the_model_is_an_episode_of_the_environment(name, mode):
    env = HydrothermalEnv(name, action_mode=mode)
    model = env.target_model()
    seeds = [3, 8]
    noise = model.draw(np.array([draw_key(np_random(seed)[0]) for seed in seeds]))
    fractions = np.random.default_rng(0).random(noise.shape)
    states = run(model, noise, lambda t, state: fractions[t])
    costs, _, _ = model.costs_and_gradients(states[:-1], noise, states[1:])
    expected = model.features(noise)
    expected[..., model.state_at] = states[:-1] / model.state_unit
    for b, seed in enumerate(seeds):
        observation, info = env.reset(seed=seed)
        for t in range(model.n_stages):
            np.testing.assert_array_equal(observation, expected[t, b].astype(np.float32))
            observation, _, terminated, _, info = env.step(2 * fractions[t, b] - 1)
        assert terminated
        assert info["objective"] == pytest.approx(costs[:, b].sum(), rel=1e-9)


# ---- The object ----------------------------------------------------------------------------------------------------
def test_it_is_a_soft_target_model():
    model = HydrothermalTargets(tri3())
    assert isinstance(model, SoftTargetModel)
    assert model.n_stages == 4
    np.testing.assert_array_equal(model.target_upper, [200, 20, 80])
    assert repr(model) == "HydrothermalTargets('case', 'reach')"
    with pytest.raises(InputError, match="action_mode"):
        HydrothermalTargets(tri3(), "turbine")
    with pytest.raises(InputError, match="a pool needs room"):
        HydrothermalTargets(tri3(), pool_size=0)


def test_models_answer_alike_and_travel_between_processes():
    instance = random_case(3, "dc", horizon=6)
    first, second = HydrothermalTargets(instance), HydrothermalTargets(instance)
    noise = first.draw(KEYS)
    states = random_states(first, noise)
    for _ in range(2):
        answers = [model.costs_and_gradients(states[:-1], noise, states[1:]) for model in (first, second)]
        for one, two in zip(*answers, strict=True):
            np.testing.assert_array_equal(one, two)
    assert 0 < first.pool.counts.solved < states.size
    first.soft_costs_and_gradients(noise, states[1:], first.penalty)
    again = pickle.loads(pickle.dumps(first))
    assert again.pool.n_bases == first.pool.n_bases
    for one, two in zip(again.costs_and_gradients(states[:-1], noise, states[1:]), answers[0], strict=True):
        np.testing.assert_array_equal(one, two)
    costs = again.soft_costs_and_gradients(noise, states[1:], again.penalty)[0]
    np.testing.assert_allclose(costs, answers[0][0].sum(0), rtol=1e-9)
