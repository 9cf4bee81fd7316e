"""Wagner-Whitin: hand cases, all plans, and the mixed-integer programme without its limits."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.lot_sizing import distributions
from orl.envs.lot_sizing.builders import lot_sizing
from orl.solvers.lot_sizing.milp import build, chain
from orl.solvers.lot_sizing.programme_search import search_with_highs
from orl.solvers.lot_sizing.wagner_whitin import wagner_whitin


def test_hand_cases():
    cost, lots = wagner_whitin([2, 3], 10, 1)  # one lot: 10 + 3 held; two lots: 20
    assert (cost, lots.tolist()) == (13.0, [5.0, 0.0])
    cost, lots = wagner_whitin([2, 3], 2, 1)
    assert (cost, lots.tolist()) == (4.0, [2.0, 3.0])
    assert wagner_whitin([0, 0, 5], [9, 2, 3], 0)[0] == 2.0
    assert wagner_whitin([0, 0], 5, 1)[0] == 0.0
    assert wagner_whitin([], 5, 1)[0] == 0.0


def price(demand, setup, holding, lots):
    stock = np.cumsum(lots - demand)
    assert (stock >= -1e-9).all()
    return setup[lots > 0].sum() + holding @ stock


def test_it_equals_all_choices_of_periods():
    rng = np.random.default_rng(0)
    for _ in range(30):
        demand = rng.integers(0, 5, 6).astype(float)
        setup, holding = rng.integers(0, 12, 6).astype(float), rng.integers(0, 3, 6).astype(float)
        best = np.inf
        for open_periods in product((False, True), repeat=6):
            starts = np.flatnonzero(open_periods)
            lots = np.zeros(6)
            first = starts[0] if len(starts) else 6
            if demand[:first].sum() > 0:
                continue
            for s, end in zip(starts, [*starts[1:], 6], strict=True):
                lots[s] = demand[s:end].sum()
            best = min(best, price(demand, setup, holding, lots))
        cost, lots = wagner_whitin(demand, setup, holding)
        assert cost == pytest.approx(best)
        assert price(demand, setup, holding, lots) == pytest.approx(cost)


def test_it_equals_the_programme_with_one_item_and_no_limits():
    """Lots of free size: a machine of unit production for each unit would be many; a change-over loss cannot be used.

    One machine makes all of the demand at once, storage is free to discard: so holding costs count what is left over.
    With production equal to the whole demand, a lot of the programme is all or nothing; the classical problem is met
    by machines that make the demand of s..t each, of which a period uses one.
    """
    rng = np.random.default_rng(1)
    for _ in range(10):
        n_periods = 5
        demand = rng.integers(1, 6, n_periods)
        setup, holding = float(rng.integers(1, 15)), float(rng.integers(1, 4))
        spans = sorted({int(demand[s:t].sum()) for s in range(n_periods) for t in range(s + 1, n_periods + 1)})
        instance = lot_sizing(
            horizon=n_periods,
            production=[[units] for units in spans],
            setup_costs=[[setup]] * len(spans),
            setup_loss=[[0]] * len(spans),
            holding_costs=holding,
            lost_sales_costs=1e6,
            max_inventory=int(demand.sum()),
            demand=distributions.deterministic(demand[:, None]),
            demand_path=demand[:, None],
        )
        programme = build(instance, chain(demand[:, None]), [0], [0] * len(spans))
        # a set-up is paid in every period with production: no carrying of set-ups
        x, y = programme.columns["x"], programme.columns["y"]
        programme.cost[x[1:]] = setup
        programme.cost[y[y >= 0]] = 0.0
        found = search_with_highs(programme)
        assert float(programme.cost @ found.values) == pytest.approx(wagner_whitin(demand, setup, holding)[0], abs=1e-6)


@pytest.mark.parametrize(
    "bad", [([1, -1], 1, 1), ([1, 2], [1, 2, 3], 1), ([1, 2], 1, -1), ([[1]], 1, 1), ([1.0], np.nan, 1)]
)
def test_bad_numbers_are_refused(bad):
    with pytest.raises(InputError):
        wagner_whitin(*bad)
