"""Wagner and Whitin: lot sizes of one item without capacity, by dynamic programming (Management Science 5, 1958).

Demand is known, nothing may be lost, production of any size costs a set-up, stock at the end of a period costs holding.
An optimal plan produces only with empty stock, for whole periods ahead, so the cheapest cost of the first t periods is

    best[t] = min over s <= t of  best[s - 1] + setup[s] + cost of holding the demand of s..t made in s.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError


def wagner_whitin(
    demand: npt.ArrayLike, setup_cost: npt.ArrayLike, holding_cost: npt.ArrayLike
) -> tuple[float, npt.NDArray[np.float64]]:
    """Least cost and the lot of every period, in O(T^2) steps.

    Args:
        demand: float64[T], units >= 0.
        setup_cost: float64[T] or one number >= 0, paid in every period with production.
        holding_cost: float64[T] or one number >= 0, a unit in stock at the end of a period.

    Returns:
        The cost, and lots float64[T] (0: no production).

    Raises:
        InputError: Wrong shapes, negative or not finite numbers.

    >>> cost, lots = wagner_whitin([20, 50, 10, 50, 50, 10, 20, 40, 20, 30], 100, 1)
    >>> cost, lots.tolist()
    (580.0, [80.0, 0.0, 0.0, 130.0, 0.0, 0.0, 0.0, 90.0, 0.0, 0.0])
    """
    units = np.asarray(demand, np.float64)
    if units.ndim != 1 or not (np.isfinite(units).all() and (units >= 0).all()):
        raise InputError(
            "bad demand", field="demand", value=units.tolist(), expected="finite numbers >= 0, one a period"
        )
    n_periods = len(units)
    fixed, holding = (
        _per_period(costs, n_periods, name)
        for costs, name in ((setup_cost, "setup_cost"), (holding_cost, "holding_cost"))
    )
    best = np.concatenate([[0.0], np.full(n_periods, np.inf)])  # of the first t periods
    made_in = np.zeros(n_periods + 1, np.int64)  # period of the last lot; 0: the last period makes and needs nothing
    for t in range(1, n_periods + 1):
        if units[t - 1] == 0.0 and best[t - 1] < best[t]:
            best[t], made_in[t] = best[t - 1], 0  # nothing to cover
        carried = 0.0  # holding cost of the demand of s..t made in s
        total = 0.0
        for s in range(t, 0, -1):
            total += units[s - 1]
            cost = best[s - 1] + fixed[s - 1] + carried
            if cost < best[t]:
                best[t], made_in[t] = cost, s
            if s > 1:
                carried += holding[s - 2] * total
    lots = np.zeros(n_periods)
    t = n_periods
    while t > 0:
        if made_in[t] == 0:
            t -= 1
            continue
        s = int(made_in[t])
        lots[s - 1] = units[s - 1 : t].sum()
        t = s - 1
    return float(best[-1]), lots


def _per_period(costs: npt.ArrayLike, n_periods: int, name: str) -> npt.NDArray[np.float64]:
    values = np.asarray(costs, np.float64)
    if values.shape not in ((), (n_periods,)) or not (np.isfinite(values).all() and (values >= 0).all()):
        expected = f"one finite number >= 0, or {n_periods} of them"
        raise InputError("bad costs", field=name, value=values.tolist(), expected=expected)
    return np.broadcast_to(values, (n_periods,))
