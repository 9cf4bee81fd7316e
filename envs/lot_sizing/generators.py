"""Random lot-sizing instances from recipes; the same seed gives the same instance under every numpy.

>>> instance = paper_recipe(15, 5, seed=0)
>>> instance.name, instance.n_items, instance.n_machines, instance.horizon
('ls-15x5-s0', 15, 5, 100)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.envs.lot_sizing.builders import MAX_HORIZON, MAX_ITEMS, MAX_MACHINES, lot_sizing, whole_number
from orl.envs.lot_sizing.distributions import binomial, deterministic, item_specific, pmf
from orl.envs.lot_sizing.instance import LotSizingInstance

Table = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Draws:
    """Tables of random integers; every table has its own number, so that a table does not move the others."""

    seed: int

    def integers(self, table: int, shape: tuple[int, ...], low: int, high: int, draw: int = 0) -> Table:
        """Uniform on low..high."""
        cells = np.arange(int(np.prod(shape))).reshape(shape)
        drawn: Table = low + counter_noise.integers(high - low + 1, np.uint64(self.seed), table, cells, draw)
        return drawn

    def low_biased(
        self, table: int, shape: tuple[int, ...], low: int, high: int, share: float, attempt: int = 0
    ) -> Table:
        """``low`` with probability ``share``, else uniform on low + 1..high."""
        cells = np.arange(int(np.prod(shape))).reshape(shape)
        noise = counter_noise.uniform(np.uint64(self.seed), table, cells, 2 * attempt)
        return np.where(noise < share, low, self.integers(table, shape, low + 1, high, 2 * attempt + 1))


_PRODUCTION, _INVENTORY, _LOST, _SETUP_COST, _SETUP_LOSS, _SETUP, _HOLDING, _CAP, _DEMAND, _BACKLOG = range(10)


def paper_recipe(n_items: int, n_machines: int, seed: int) -> LotSizingInstance:
    """An instance of the recipe behind the PDPPO paper's ``t100_i100`` family, named ``ls-IxM-sSEED``.

    Production 0 with probability 0.4, else 1..40 (columns without a producer are drawn again); storage 100; first
    stock 0 with probability 0.05, else 1..50; holding cost 0.01; lost-sales cost 0.1 or 1.1; demand Binomial(20, 0.4);
    change-over cost 15 with probability 0.2, else 16..30; loss 1 with probability 0.7, else 2..3; first set-up idle
    with probability 0.4, else an item (idle if the machine cannot make it); T = 100. The authors' own draws are not
    repeated: their script uses two generators without seeds.

    >>> paper_recipe(15, 5, 0).production.max(0).min() > 0
    np.True_
    """
    draws, items, machines = _sizes(n_items, n_machines, seed)
    shape = (machines, items)
    production = _makeable(lambda k: draws.low_biased(_PRODUCTION, shape, 0, 40, 0.4, k))
    return lot_sizing(
        name=f"ls-{items}x{machines}-s{seed}",
        horizon=100,
        production=production,
        setup_costs=draws.low_biased(_SETUP_COST, shape, 15, 30, 0.2),
        setup_loss=draws.low_biased(_SETUP_LOSS, shape, 1, 3, 0.7),
        holding_costs=0.01,
        lost_sales_costs=np.array([0.1, 1.1])[draws.integers(_LOST, (items,), 0, 1)],
        max_inventory=100,
        demand=binomial(items, 20, 0.4),
        initial_inventory=draws.low_biased(_INVENTORY, (items,), 0, 50, 0.05),
        initial_setup=_first_setup(draws, production),
    )


def short_recipe(n_items: int, n_machines: int, seed: int) -> LotSizingInstance:
    """An instance of the authors' ``t5`` family: five periods, small numbers.

    Production 0 with probability 0.2, else 1..4; storage 10; no first stock; holding cost 0.1; lost-sales cost 1..3;
    demand Binomial(4, 0.4); change-over cost 1 or 2, loss 1; first set-ups as in :func:`paper_recipe`.
    """
    draws, items, machines = _sizes(n_items, n_machines, seed)
    shape = (machines, items)
    production = _makeable(lambda k: draws.low_biased(_PRODUCTION, shape, 0, 4, 0.2, k))
    return lot_sizing(
        name=f"short-{items}x{machines}-s{seed}",
        horizon=5,
        production=production,
        setup_costs=draws.integers(_SETUP_COST, shape, 1, 2),
        setup_loss=1,
        holding_costs=0.1,
        lost_sales_costs=draws.integers(_LOST, (items,), 1, 3),
        max_inventory=10,
        demand=binomial(items, 4, 0.4),
        initial_setup=_first_setup(draws, production),
    )


def tiny(
    seed: int,
    *,
    n_items: int = 2,
    n_machines: int = 1,
    horizon: int = 4,
    setup_costs: bool = True,
    sequence_dependent: bool = False,
    backlog: bool = False,
) -> LotSizingInstance:
    """A random instance small enough to try every plan, with every constraint in reach of binding.

    Production 0..4 (every item has a producer), loss 0..2 (some exceed the production), storage 1..5, first stock up to
    it, demand on 0..3 with random probabilities in sixteenths, costs in eighths, so that sums are exact.

    Args:
        seed: Any number of 64 bits.
        n_items: I.
        n_machines: M.
        horizon: T.
        setup_costs: Whether change-overs cost money, too.
        sequence_dependent: Whether costs and losses depend on the item before.
        backlog: Whether up to 0..3 units of an item may be delivered late.
    """
    draws, items, machines = _sizes(n_items, n_machines, seed)
    shape = (machines, items)
    table = (machines, items + 1, items) if sequence_dependent else shape
    changed = np.arange(items + 1)[:, None] != np.arange(1, items + 1) if sequence_dependent else True
    production = _makeable(lambda k: draws.low_biased(_PRODUCTION, shape, 0, 4, 0.2, k))
    storage = draws.integers(_CAP, (items,), 1, 5)
    weights = draws.integers(_DEMAND, (items, 3), 0, 5)
    rows = np.concatenate([weights, 16 - weights.sum(1, keepdims=True)], axis=1) / 16
    return lot_sizing(
        name=f"tiny-{items}x{machines}-t{horizon}-s{seed}",
        horizon=horizon,
        production=production,
        setup_costs=changed * draws.integers(_SETUP_COST, table, 0, 24) / 8 if setup_costs else 0.0,
        setup_loss=changed * draws.integers(_SETUP_LOSS, table, 0, 2),
        holding_costs=draws.integers(_HOLDING, (items,), 0, 4) / 8,
        lost_sales_costs=draws.integers(_LOST, (items,), 2, 24) / 8,
        max_inventory=storage,
        demand=item_specific([pmf(1, [0, 1, 2, 3], row) for row in rows]),
        initial_inventory=draws.integers(_INVENTORY, (items,), 0, 1000) % (storage + 1),
        initial_setup=_first_setup(draws, production),
        backlog_costs=draws.integers(_HOLDING, (items,), 1, 8, draw=1) / 8 if backlog else 0.0,
        max_backlog=draws.integers(_BACKLOG, (items,), 0, 3) if backlog else 0,
    )


def trigeiro(
    n_items: int, horizon: int, seed: int, *, utilisation: float = 0.85, setup_share: float = 0.1
) -> LotSizingInstance:
    """A deterministic one-machine scenario in the style of Trigeiro, Thomas and McClain (1989).

    Demand is uniform around an item's mean of 75..125 units, with a tenth of the periods of each item without any;
    holding cost 1..5 for each unit, a change-over costs 200..1000 (their ranges). Discrete lot-sizing runs one item a
    period: a period makes enough of any item that demand uses ``utilisation`` of the production of all periods, and a
    change-over loses ``setup_share`` of a period. Storage is ample, lost units cost 50 holding costs of the dearest
    item.

    >>> trigeiro(4, 12, seed=0).demand_path.shape
    (12, 4)
    """
    draws, items, _ = _sizes(n_items, 1, seed)
    periods = whole_number(horizon, "horizon", 1, MAX_HORIZON)
    for field, value, high in (("utilisation", utilisation, 10.0), ("setup_share", setup_share, 1.0)):
        if not 0 < value <= high:
            raise InputError("out of range", field=field, value=value, expected=f"above 0, at most {high:g}")
    mean = draws.integers(_DEMAND, (items,), 75, 125)
    spread = draws.integers(_DEMAND, (periods, items), -25, 25, draw=1)
    sold = draws.integers(_DEMAND, (periods, items), 1, 10, draw=2) > 1
    path = np.where(sold, mean + spread, 0)
    rate = max(1, int(np.ceil(path.sum() / (utilisation * periods))))
    holding = draws.integers(_HOLDING, (items,), 1, 5)
    return lot_sizing(
        name=f"trigeiro-{items}x{periods}-s{seed}",
        horizon=periods,
        production=np.full((1, items), rate),
        setup_costs=draws.integers(_SETUP_COST, (1, items), 200, 1000),
        setup_loss=int(setup_share * rate),
        holding_costs=holding,
        lost_sales_costs=50 * holding.max(),
        max_inventory=np.maximum(path.sum(0), 1),
        demand=deterministic(path),
        demand_path=path,
    )


# ---- parts of recipes ----------------------------------------------------------------------------------------------
def _sizes(n_items: int, n_machines: int, seed: int) -> tuple[_Draws, int, int]:
    items = whole_number(n_items, "n_items", 1, MAX_ITEMS)
    machines = whole_number(n_machines, "n_machines", 1, MAX_MACHINES)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise InputError("bad seed", field="seed", value=seed, expected="0..2**64-1")
    return _Draws(int(seed)), items, machines


def _makeable(draw: Callable[[int], Table]) -> Table:
    """A production table in which every item has a producer: columns without one are drawn again."""
    table, attempt = draw(0), 0
    while not (made := (table > 0).any(0)).all():
        attempt += 1
        table = np.where(made, table, draw(attempt))
    return table


def _first_setup(draws: _Draws, production: Table) -> Any:
    """Idle with probability 0.4, else an item, or idle where the machine cannot make it."""
    machines, items = production.shape
    setup = draws.low_biased(_SETUP, (machines,), 0, items, 0.4)
    able = production[np.arange(machines), np.maximum(setup - 1, 0)] > 0
    return np.where(able, setup, 0)
