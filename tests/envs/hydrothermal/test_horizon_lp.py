"""Following targets over a horizon: what can be met is met at the cost of the single stages; duals are derivatives."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_toys import TRI3_WAIT_AND_SEE_4, from_files, random_case, tri3

from orl.common.errors import InputError
from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.generators import cascade
from orl.envs.hydrothermal.horizon_lp import HorizonLP, TargetFollowing, water_value_limit
from orl.envs.hydrothermal.stage_lp import StageError
from orl.envs.hydrothermal.target_model import HydrothermalTargets

CASES = [tri3(horizon=9), random_case(1, "transport", horizon=5), random_case(2, "dc", horizon=5), cascade(6, 5, 0)]


def followed_path(instance, seed=0, n_paths=3):
    """A model, inflows [T, B, n], reachable targets [T, B, n] off their limits, strict costs [B] and gradients."""
    model = HydrothermalTargets(instance)
    noise = model.draw(np.arange(n_paths, dtype=np.uint64))
    rng = np.random.default_rng(seed)
    states = [np.tile(model.initial_state, (n_paths, 1))]
    for t in range(model.n_stages):
        states.append(model.reach(states[-1], noise[t], rng.uniform(0.05, 0.95, states[0].shape)))
    states = np.array(states)
    costs, by_before, by_after = model.costs_and_gradients(states[:-1], noise, states[1:])
    gradient = by_after
    gradient[:-1] += by_before[1:]
    return model, noise, states[1:], costs.sum(0), gradient


@pytest.mark.parametrize("window", [None, 3, 1])
@pytest.mark.parametrize("instance", CASES, ids=lambda case: case.name)
def test_targets_within_reach_cost_what_the_stages_cost(instance, window):
    model, noise, targets, expected, gradient = followed_path(instance)
    costs, penalties, found = model.soft_costs_and_gradients(noise, targets, model.penalty, window)
    np.testing.assert_allclose(costs, expected, rtol=1e-9, atol=1e-6)
    assert np.abs(penalties).max() <= 1e-6 * expected.max()
    free = np.broadcast_to((instance.max_volume > 0) & (targets > 0) & (targets < instance.max_volume), targets.shape)
    np.testing.assert_allclose(found[free], gradient[free], rtol=1e-6, atol=1e-6)
    assert free.mean() > 0.5


def test_bolivias_targets_cost_what_the_stages_cost():
    model, noise, targets, expected, _ = followed_path(from_files("bolivia").with_horizon(24))
    costs, penalties, _ = model.soft_costs_and_gradients(noise, targets, model.penalty)
    np.testing.assert_allclose(costs, expected, rtol=1e-9)
    assert np.abs(penalties).max() < 1e-3


def test_targets_out_of_reach_are_paid_for_and_have_exact_gradients():
    instance = tri3(horizon=5)
    model = HydrothermalTargets(instance, "target")
    noise = model.draw(np.arange(4, dtype=np.uint64))
    rng = np.random.default_rng(2)
    targets = rng.uniform(0, instance.max_volume, noise.shape)
    following, penalty = TargetFollowing(instance), model.penalty
    checked = 0
    for b in range(4):
        cost, paid, gradient = following(noise[:, b], targets[:, b], penalty)
        assert paid > 0
        for _ in range(15):
            direction = rng.normal(size=gradient.shape)
            right, left = (
                sum(following(noise[:, b], targets[:, b] + h * direction, penalty)[:2]) for h in (1e-4, -1e-4)
            )
            forward, backward = (right - cost - paid) / 1e-4, (cost + paid - left) / 1e-4
            if abs(forward - backward) > 1e-4 * abs(forward):
                continue
            assert (forward + backward) / 2 == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
            checked += 1
    assert checked > 40


def test_without_a_penalty_targets_mean_nothing():
    instance = tri3()
    columns = np.array(np.meshgrid(*[range(3)] * 4)).reshape(4, -1)
    model = HydrothermalTargets(instance)
    noise = model.noise_of(columns)
    costs, penalties, gradients = model.soft_costs_and_gradients(noise, np.full(noise.shape, 7.0), 0.0)
    assert costs.mean() == pytest.approx(TRI3_WAIT_AND_SEE_4, rel=1e-9)
    assert not penalties.any()
    np.testing.assert_allclose(gradients, 0, atol=1e-9)
    dear, _, _ = model.soft_costs_and_gradients(noise, np.full(noise.shape, 7.0), model.penalty)
    assert (dear > costs - 1e-6).all()
    assert dear.mean() > costs.mean() + 1
    cheap = model.soft_costs_and_gradients(noise, np.full(noise.shape, 7.0), 0.0)[0]  # no trace of the price before
    np.testing.assert_allclose(cheap, costs, rtol=1e-9, atol=1e-6)


def test_what_is_missed_in_a_window_hands_no_gradient_back():
    instance = tri3(horizon=2)
    inflows = instance.path_inflows(np.array([0, 0]))
    following, penalty = TargetFollowing(instance), 2 * water_value_limit(instance)
    met, missed = np.full((2, 3), 5.0), np.array([[200.0, 5.0, 5.0], [200.0, 5.0, 5.0]])
    single = HorizonLP(instance, 1)
    for targets, wanted in ((met, [True, True, True]), (missed, [False, True, True])):
        first = single.solve(0, instance.initial_volume, inflows[:1], targets[:1], penalty)
        second = single.solve(1, first.volumes[0], inflows[1:], targets[1:], penalty)
        assert (np.abs(first.volumes[0] - targets[0]) < 1e-6).tolist() == wanted
        gradient = following(inflows, targets, penalty, 1)[2]
        np.testing.assert_allclose(gradient[0], first.by_targets[0] + np.where(wanted, second.by_start, 0.0))
        np.testing.assert_allclose(gradient[1], second.by_targets[0])
        assert (second.by_start[np.invert(wanted)] < -1).all()


def test_no_water_is_worth_more_than_its_limit():
    for instance in (*CASES, cascade(12, 1, 3), cascade(20, 4, 4), random_case(5, "dc", horizon=20)):
        model = HydrothermalTargets(instance)
        noise = model.draw(np.arange(10, dtype=np.uint64))
        rng, state = np.random.default_rng(0), np.tile(model.initial_state, (10, 1))
        for t in range(model.n_stages):
            after = model.reach(state, noise[t], rng.uniform(0.01, 0.99, state.shape))
            rhs = state + instance.water_factor * noise[t] - after
            assert np.abs(model.pool.costs_and_duals(rhs, t)[1]).max() <= model.penalty / 2 + 1e-6
            state = after


def test_the_limit_is_the_energy_of_the_best_way_down_at_the_price_of_deficit():
    assert water_value_limit(tri3()) == pytest.approx(1.6 / 2.628 * 500 * 0.73)
    assert HydrothermalTargets(tri3()).penalty == pytest.approx(2 * 1.6 / 2.628 * 365)
    dear = tri3(spill_costs=np.array([100.0, 900.0, 0.0]))
    assert water_value_limit(dear) == pytest.approx(1000.0)
    # the limit is not too wide: with nearly no water an hm3 more at the top saves exactly that
    _, duals = HydrothermalTargets(tri3()).pool.costs_and_duals(np.full(3, 1.0))
    assert -duals[0] == pytest.approx(water_value_limit(tri3()), rel=1e-9)


def test_the_limit_in_bolivia():
    """Of the way from ZON to CHU, which is worth more than the one from COR to SIS, (5.117 + 6.9953) * 60 / K."""
    instance = from_files("bolivia")
    assert water_value_limit(instance) == pytest.approx(14.46 / 0.6048 * 60, rel=1e-4)
    assert water_value_limit(replace(instance, stage_hours=1.0)) == pytest.approx(14.46 / 0.0036 * 60, rel=1e-4)


def test_a_pickled_programme_starts_cold_and_impossible_water_is_named():
    instance = random_case(1, "dc", horizon=3)
    path = instance.path_inflows(np.zeros(3, int))
    targets = np.full((3, 4), 1.0)
    programme = HorizonLP(instance, 3)
    first = programme.solve(0, instance.initial_volume, path, targets, 1e4)
    again = pickle.loads(pickle.dumps(programme)).solve(0, instance.initial_volume, path, targets, 1e4)
    assert again.cost == pytest.approx(first.cost, rel=1e-9)
    later = programme.solve(2, instance.initial_volume, path, targets, 1e4)  # the demand of stages 2, 3, 4
    assert later.cost != pytest.approx(first.cost)
    fresh = HorizonLP(instance, 3).solve(2, instance.initial_volume, path, targets, 1e4)
    assert fresh.cost == pytest.approx(later.cost, rel=1e-9)
    back = programme.solve(0, instance.initial_volume, path, targets, 1e4)
    assert back.cost == pytest.approx(first.cost, rel=1e-9)
    with pytest.raises(StageError, match="3 stages of case from stage 0 on: no optimum"):
        programme.solve(0, instance.initial_volume, path - 99.0, targets, 1e4)


def test_bad_requests_are_refused():
    model = HydrothermalTargets(library.load("tri3"))
    noise = model.draw(np.zeros(1, np.uint64))
    for penalty in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="penalty"):
            model.soft_costs_and_gradients(noise, noise, penalty)
    with pytest.raises(InputError, match="window"):
        model.soft_costs_and_gradients(noise, noise, 1.0, 0)
