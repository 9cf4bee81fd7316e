"""What must come out in order: knowing the future, the relaxation, the best policy, every other policy."""

from __future__ import annotations

import numpy as np
import pytest

from orl.envs.lot_sizing.library import load
from orl.solvers.lot_sizing.dynamic_programming import dynamic_programming, expected_cost
from orl.solvers.lot_sizing.expected_bound import expected_cost_bound
from orl.solvers.lot_sizing.perfect_information import PerfectInformation
from orl.solvers.lot_sizing.rules import make_rule
from orl.solvers.lot_sizing.simulation import simulate

SEEDS = range(15)


@pytest.fixture(scope="module")
def instance():
    return load("ls-4x2-t10")


def test_the_future_is_worth_something_and_the_best_policy_is_the_best(instance) -> None:
    knowing = []
    for seed in SEEDS:
        result = PerfectInformation().solve(instance.scenario(seed), time_limit=20)
        assert result.bound is not None
        knowing.append(result.bound)
    optimum = expected_cost(instance)
    played = simulate(instance, dynamic_programming(instance), SEEDS)
    assert (np.array(knowing) <= played + 1e-6).all()  # path by path: nobody beats the one who knows this path

    best_error = 3 * played.std() / np.sqrt(len(SEEDS))
    assert np.mean(knowing) < optimum
    assert abs(played.mean() - optimum) < best_error
    assert expected_cost_bound(instance).value <= optimum + 1e-6
    for key in ("static", "greedy", "base-stock", "price-directed", "random", "idle"):
        cost = simulate(instance, make_rule(key, instance), SEEDS)
        assert cost.mean() + 3 * (cost - played).std() / np.sqrt(len(SEEDS)) > played.mean()
        assert (np.array(knowing) <= cost + 1e-6).all()
