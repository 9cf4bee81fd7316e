"""A lower bound on the expected cost of every policy where exact dynamic programming is out of reach.

Weakly coupled dynamic programmes (Hawkins 2003; Adelman and Mersereau, Operations Research 56, 2008): the items meet
only where they want the same machine in the same period. Give up the rule "a machine makes one item at a time" and ask
``price[t, m] >= 0`` for each use of machine m in period t. The problem falls apart into one dynamic programme for each
item (:mod:`orl.solvers.lot_sizing.item_programmes`), and

    bound = sum_i value_i(price) - sum price.

Why it holds. A policy that obeys the rule uses every machine at most once a period, so its expected cost with prices
paid and ``sum price`` given back is at most its expected cost; dropping the rule only adds policies. Without it the
cost is a sum over items, each driven by its own decisions and its own demand. Prices are fixed numbers, and demand of a
period is independent of everything before it, so knowing the other items does not help an item, and its least cost is
that of its own dynamic programme under its own distribution; correlation between the items of a period therefore
changes nothing, nor does correlation in the start: the value of the relaxed problem is a sum over items in every state,
and expectations of sums need the distributions of the terms alone.

The bound is concave in the prices; what the items' best policies are expected to use, less one, is a supergradient
(exactly propagated distributions, no sampling). Expectations make it almost smooth, so a quasi-Newton method with
limits (L-BFGS-B) climbs much faster than subgradient steps. The bound holds at every step and may be interrupted at any
time. It is about environments in which a machine that cannot make an item idles (``incompatible="mask"``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from orl.common.errors import InputError
from orl.common.interruption import minding_ctrl_c
from orl.envs.lot_sizing.instance import Floats, Init, LotSizingInstance
from orl.solvers.lot_sizing.item_programmes import item_programmes

CONSTANT_SHARE = 0.2  # share of the iterations that looks for constant prices before they vary by period
Prices = Literal["constant", "by_period"]


@dataclass(frozen=True, eq=False)
class Bound:
    """Result of :func:`expected_cost_bound`.

    Attributes:
        value: No policy has a smaller expected cost.
        prices: float64[T, M] that prove it: what a period of a machine is worth.
        iterations: Price vectors tried.
        seconds: Wall time.
        history: float64[iterations], the best bound after each.
    """

    value: float
    prices: Floats
    iterations: int
    seconds: float
    history: Floats


def expected_cost_bound(
    instance: LotSizingInstance,
    init: Init = "random",
    *,
    time_limit: float | None = None,
    iterations: int = 100,
    prices: Prices = "by_period",
    first_prices: Floats | None = None,
) -> Bound:
    """A lower bound on the expected cost of every non-anticipative policy over the horizon.

    Args:
        instance: The problem; of a scenario only its distribution of demand and its start are used, never its path.
        init: How episodes start; a scenario starts where it says.
        time_limit: Wall seconds, None: none. At least one price vector is tried; Ctrl-C ends the search, too.
        iterations: At most so many price vectors are tried.
        prices: One price for each machine, or one for each machine and period.
        first_prices: float64[T, M] >= 0 to begin with; by default none are asked.

    Raises:
        InputError: Bad prices or numbers, or a dynamic programme that is too large.

    >>> from orl.envs.lot_sizing.library import load
    >>> bound = expected_cost_bound(load("ls-2x1-t20"))
    >>> from orl.solvers.lot_sizing.dynamic_programming import expected_cost
    >>> bool(0.8 < bound.value / expected_cost(load("ls-2x1-t20")) <= 1.0)
    True
    """
    began = time.perf_counter()
    shape = (instance.horizon, instance.n_machines)
    first = np.zeros(shape) if first_prices is None else np.asarray(first_prices, np.float64)
    if prices not in ("constant", "by_period"):
        raise InputError("unknown", field="prices", value=prices, expected="constant or by_period")
    if iterations < 1:
        raise InputError("out of range", field="iterations", value=iterations, expected="at least 1")
    if first.shape != shape or not np.isfinite(first).all() or (first < 0).any():
        raise InputError("bad prices", field="first_prices", value=first.shape, expected=f"float64 {shape}, >= 0")
    if instance.demand_path is not None:
        init, instance = "fixed", replace(instance, demand_path=None)
    items = item_programmes(instance)
    starts = [item.start(instance, init) for item in items]

    def evaluate(price: Floats) -> tuple[float, Floats]:
        total, excess = -float(price.sum()), np.full(shape, -1.0)
        for item, start in zip(items, starts, strict=True):
            value, use = item.solve(price, start)
            total += value
            excess += use
        return total, excess

    with minding_ctrl_c() as pressed:

        def stop() -> bool:
            return pressed() or (time_limit is not None and time.perf_counter() - began > time_limit)

        search = _Search(evaluate, stop)
        if prices == "constant" or first_prices is None:
            search.climb(first.mean(0)[None], shape, iterations if prices == "constant" else _first_part(iterations))
        if prices == "by_period":
            search.climb(first if first_prices is not None else search.prices, shape, iterations)
    seconds = time.perf_counter() - began
    return Bound(search.value, search.prices, len(search.history), seconds, np.array(search.history))


def _first_part(iterations: int) -> int:
    return max(1, round(CONSTANT_SHARE * iterations))


class _Ended(Exception):
    """Leaves the quasi-Newton method from within."""


class _Search:
    """The best prices met so far."""

    def __init__(self, evaluate: Callable[[Floats], tuple[float, Floats]], stop: Callable[[], bool]) -> None:
        self._evaluate, self._stop = evaluate, stop
        self.value, self.prices, self.history = -np.inf, np.empty((0, 0)), list[float]()

    def climb(self, first: Floats, shape: tuple[int, int], until: int) -> None:
        """Climb from prices float64[T or 1, M], until so many iterations have been made in all."""
        scale = float(shape[0]) / len(first)

        def objective(flat: Floats) -> tuple[float, Floats]:
            if self.history and (len(self.history) >= until or self._stop()):
                raise _Ended
            price = np.broadcast_to(np.maximum(flat, 0.0).reshape(first.shape), shape)
            value, excess = self._evaluate(price)
            if value > self.value:
                self.value, self.prices = value, price.copy()
            self.history.append(self.value)
            gradient = excess if len(first) == shape[0] else excess.sum(0, keepdims=True)
            return -value / scale, -gradient.ravel() / scale

        options = {"maxiter": 10 * until, "maxfun": 10 * until, "ftol": 1e-10, "gtol": 1e-9}
        limits = [(0.0, None)] * first.size
        with suppress(_Ended):
            minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", bounds=limits, options=options)
