"""Random hydrothermal instances; the same seed gives the same instance under every numpy.

>>> instance = cascade(6, 5, seed=0)
>>> instance.name, instance.n_plants, instance.n_buses, instance.horizon, instance.n_columns
('cascade-6x5-s0', 6, 5, 24, 10)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.common.numbers import integers
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.instance import HM3_PER_HOUR, Floats, HydrothermalInstance, Integers

MAX_PLANTS, MAX_BUSES, MAX_COLUMNS = 500, 2000, 1000
_HOURS, _BASE, _SEASON = 730.0, 100.0, 12
_KINDS = ("all", "turbined", "spilled", "diverted", "leaves")


@dataclass(frozen=True)
class _Draws:
    """Tables of random numbers; every table has its own number, so that a table does not move the others."""

    seed: int

    def uniform(self, table: int, count: int, low: float = 0.0, high: float = 1.0, draw: int = 0) -> Floats:
        noise: Floats = counter_noise.uniform(np.uint64(self.seed), table, np.arange(count), draw)
        return low + (high - low) * noise

    def normal(self, table: int, shape: tuple[int, ...], draw: int = 0) -> Floats:
        cells = np.arange(int(np.prod(shape))).reshape(shape)
        noise: Floats = counter_noise.normal(np.uint64(self.seed), table, cells, draw)
        return noise

    def below(self, table: int, highs: Integers, draw: int = 0) -> Integers:
        """One whole number in 0..high-1 for each entry of ``highs``."""
        noise: Integers = counter_noise.integers(highs, np.uint64(self.seed), table, np.arange(len(highs)), draw)
        return noise


(
    _TREE,
    _LINK,
    _FACTOR,
    _FLOW,
    _INFLOW,
    _STORAGE,
    _START,
    _TURBINE,
    _PLANT_BUS,
    _THERMAL,
    _COST,
    _LOAD,
    _LINE,
    _MESH,
) = range(14)


def cascade(
    n_plants: int,
    n_buses: int,
    seed: int,
    *,
    horizon: int = 24,
    network: str = "dc",
    n_columns: int = 10,
    correlation: float = 0.6,
    spread: float = 0.4,
) -> HydrothermalInstance:
    """Plants in random cascades, thermal plants and a meshed network, with seasonal inflows; stages are months.

    A plant's water goes to a plant below it with probability 0.75: all of it, only turbined or only spilled water, or
    the spilled water past that plant to the next one. Reservoirs hold up to eight months of mean inflow; some are small
    or have no storage. The cycle has 12 rows. A column of a row multiplies each plant's seasonal mean by a lognormal
    number; numbers of plants in one column are correlated. Mean hydro power is half of the demand, thermal plants cover
    two thirds of it at 15 to 90 USD/MWh, deficit costs 500 USD/MWh. The network is a random tree with half as many
    branches again, and lines bind at times. Numbers are rounded, so that they do not hang on the last bit of ``exp``.

    Args:
        n_plants: n, 1..500.
        n_buses: B, 1..2000.
        seed: Any number of 64 bits.
        horizon: T.
        network: ``copper``, ``transport`` or ``dc``.
        n_columns: S, 1..1000, each with the same probability.
        correlation: Of the logarithms of two plants' inflows in one column, 0..1.
        spread: Standard deviation of the logarithm of an inflow, 0..2.

    Raises:
        InputError: an argument is out of range.

    >>> cascade(3, 2, seed=1).same_as(cascade(3, 2, seed=1))
    True
    """
    n = int(integers(n_plants, "n_plants", (), low=1, high=MAX_PLANTS))
    buses = int(integers(n_buses, "n_buses", (), low=1, high=MAX_BUSES))
    columns = int(integers(n_columns, "n_columns", (), low=1, high=MAX_COLUMNS))
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise InputError("bad seed", field="seed", value=seed, expected="0..2**64-1")
    for field, value, high in (("correlation", correlation, 1.0), ("spread", spread, 2.0)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
            raise InputError("out of range", field=field, value=value, expected=f"0..{high:g}")
    draws = _Draws(int(seed))
    turbine_to, spill_to = _links(draws, n)
    local = np.round(8.0 * np.exp(0.8 * draws.normal(_FLOW, (n,))), 2) + 0.5
    passing = _passing(local, turbine_to, spill_to)
    factor = np.round(draws.uniform(_FACTOR, n, 0.3, 4.0), 3)
    most_outflow = np.round(passing * draws.uniform(_TURBINE, n, 1.1, 2.2), 2)
    mean_power = float((factor * np.minimum(passing, most_outflow)).sum())  # MW
    max_power, costs = _thermals(draws, max(1, (n + 2) // 2), 4 / 3 * mean_power)
    demand = _demand(draws, buses, 2 * mean_power)
    hydro_power = np.ceil(factor * most_outflow * 100) / 100 / _BASE
    max_volume, initial_volume = _reservoirs(draws, passing * HM3_PER_HOUR * _HOURS)
    generator_bus = np.concatenate(
        [
            draws.below(_PLANT_BUS, np.full(n, buses)),
            draws.below(_PLANT_BUS, np.full(len(costs), buses), draw=1),
        ]
    )
    return hydrothermal(
        name=f"cascade-{n}x{buses}-s{seed}",
        horizon=horizon,
        network=network,
        stage_hours=_HOURS,
        base_mva=_BASE,
        plant_generator=np.arange(n),
        production_factor=factor,
        max_volume=max_volume,
        initial_volume=initial_volume,
        max_outflow=most_outflow,
        turbine_to=turbine_to,
        spill_to=spill_to,
        generator_bus=generator_bus,
        max_power=np.concatenate([hydro_power, max_power]),
        generator_costs=np.concatenate([np.zeros(n), costs]),
        demand=demand,
        deficit_cost=500 * _BASE,
        inflows=_inflows(draws, local, columns, correlation, spread),
        **_network(draws, buses, 2 * mean_power / _BASE),
    )


# ---- parts ---------------------------------------------------------------------------------------------------------
def _links(draws: _Draws, n: int) -> tuple[Integers, Integers]:
    """Receivers of turbined and of spilled water; plants are numbered from the sea upwards."""
    below = draws.below(_TREE, np.maximum(np.arange(n), 1))
    shares = np.cumsum([0.35, 0.2, 0.08, 0.12])
    kinds = np.searchsorted(shares, draws.uniform(_LINK, n), side="right")
    turbine_to, spill_to = np.full(n, -1), np.full(n, -1)
    for i in range(1, n):
        kind = _KINDS[kinds[i]]
        if kind in ("all", "turbined", "diverted"):
            turbine_to[i] = below[i]
        if kind in ("all", "spilled"):
            spill_to[i] = below[i]
        if kind == "diverted":
            spill_to[i] = max(int(turbine_to[below[i]]), int(spill_to[below[i]]))
    return turbine_to, spill_to


def _passing(local: Floats, turbine_to: Integers, spill_to: Integers) -> Floats:
    """Mean flow float64[n] through each plant if the turbines upstream take all water, m3/s."""
    passing = local.copy()
    for u in range(len(local) - 1, 0, -1):  # receivers have smaller numbers
        to = turbine_to[u] if turbine_to[u] >= 0 else spill_to[u]
        if to >= 0:
            passing[to] += passing[u]
    return passing


def _reservoirs(draws: _Draws, monthly: Floats) -> tuple[Floats, Floats]:
    """Largest and first volumes, hm3; ``monthly`` is the mean water of a month."""
    n = len(monthly)
    kind = draws.uniform(_STORAGE, n)
    months = np.where(kind < 0.1, 0.0, np.where(kind < 0.35, 0.1, draws.uniform(_STORAGE, n, 0.5, 8.0, draw=1)))
    most = np.round(months * monthly, 2)
    return most, np.round(most * draws.uniform(_START, n, 0.2, 0.9), 2)


def _thermals(draws: _Draws, count: int, total: float) -> tuple[Floats, Floats]:
    """Capacities, per unit, of together ``total`` MW, and costs, USD for each per unit and hour."""
    weights = draws.uniform(_THERMAL, count, 0.4, 1.0)
    power = np.round(total * weights / weights.sum() / _BASE, 4)
    return power, np.round(draws.uniform(_COST, count, 15.0, 90.0), 2) * _BASE


def _demand(draws: _Draws, buses: int, total: float) -> Floats:
    """Demand float64[12, B], per unit, of ``total`` MW on average; a third of the buses has none."""
    weights = draws.uniform(_LOAD, buses, 0.2, 1.0) * (draws.uniform(_LOAD, buses, draw=1) > 1 / 3)
    weights[0] += not weights.any()
    season = 1.0 + 0.1 * np.cos(2 * np.pi * (np.arange(_SEASON) - 6) / _SEASON)
    return np.round(season[:, None] * (total / _BASE * weights / weights.sum()), 4)


def _inflows(draws: _Draws, local: Floats, columns: int, correlation: float, spread: float) -> Floats:
    """Inflows float64[12, n, S], m3/s."""
    n = len(local)
    phase = draws.uniform(_INFLOW, n, -1.0, 1.0, draw=2)  # months by which a plant's season is off
    months = np.arange(_SEASON)[:, None]
    season = 1.0 + 0.5 * np.cos(2 * np.pi * (months - 1 - phase) / _SEASON)
    common = draws.normal(_INFLOW, (_SEASON, 1, columns))
    own = draws.normal(_INFLOW, (_SEASON, n, columns), draw=1)
    noise = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    return np.round((local * season)[:, :, None] * np.exp(spread * noise - spread**2 / 2), 4)


def _network(draws: _Draws, buses: int, total: float) -> dict[str, Any]:
    """A tree and further branches, with limits that bind at times; ``total`` is the mean demand, per unit."""
    extra = buses // 2 if buses > 2 else 0
    start = np.arange(1, buses + extra)
    end = np.empty(len(start), np.int64)
    end[: buses - 1] = draws.below(_TREE, start[: buses - 1], draw=1)
    start[buses - 1 :] = draws.below(_MESH, np.full(extra, buses))
    end[buses - 1 :] = (start[buses - 1 :] + 1 + draws.below(_MESH, np.full(extra, max(buses - 1, 1)), draw=1)) % buses
    x = np.round(draws.uniform(_LINE, len(start), 0.03, 0.3), 4)
    r = np.round(x * draws.uniform(_LINE, len(start), 0.05, 0.3, draw=1), 4)
    pairs = list(dict.fromkeys((min(pair), max(pair)) for pair in zip(start.tolist(), end.tolist(), strict=True)))
    return {
        "bus_names": [f"bus {b + 1}" for b in range(buses)],
        "branch_from": start,
        "branch_to": end,
        "susceptance": np.round(x / (r * r + x * x), 6),
        "max_flow": np.round(
            min(1.0, 2 / np.sqrt(buses)) * total * draws.uniform(_LINE, len(start), 0.15, 0.5, draw=2), 4
        ),
        "pair_from": [low for low, _ in pairs],
        "pair_to": [high for _, high in pairs],
        "min_angle": np.full(len(pairs), -1.0472),
        "max_angle": np.full(len(pairs), 1.0472),
    }
