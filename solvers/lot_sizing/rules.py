"""The rules of lot-sizing by name. A rule is a policy that knows the distribution of demand, never its path.

``make_rule`` gives a function from the states of B copies to their actions; the same function plays an environment
(:class:`orl.solvers.lot_sizing.policies.RulePolicy`), a scenario (:class:`orl.solvers.lot_sizing.policies.RuleSolver`)
and whole batches of episodes (:func:`orl.solvers.lot_sizing.simulation.simulate`).

===================  ==========================================================================================
rule                 what it does
===================  ==========================================================================================
idle                 nothing, ever
random               any item that the machine can make, or nothing, with equal chances
static               one item a machine for ever: the assignment of greatest covered shortage cost
greedy               machine by machine, the item with the greatest saving over the next periods
base-stock           (s, S) for every item, machines given to the items that miss most
tuned-greedy         greedy with the look-ahead that costs least in simulation
tuned-base-stock     base-stock with the safety and batch sizes that cost least in simulation
price-directed       values of single items at prices of the machines, machines assigned exactly
dynamic-programming  the optimal policy (small instances)
rolling-horizon      a mixed-integer program over the next periods with expected demand
sample-average       two-stage stochastic program over sampled demand
scenario-tree        multistage stochastic program over a tree of demand
===================  ==========================================================================================
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orl.common.errors import UnknownNameError
from orl.envs.lot_sizing.instance import Integers, LotSizingInstance

Decide = Callable[[Integers, Integers, Integers], Integers]
"""Inventory int64[B, I], set-up int64[B, M] and period int64[B] to actions int64[B, M]."""
Factory = Callable[..., Decide]
"""``make(instance, **options)``."""

_HEURISTICS = "orl.solvers.lot_sizing.heuristics"
RULES: dict[str, str] = {
    "idle": f"{_HEURISTICS}:idle",
    "random": f"{_HEURISTICS}:random",
    "static": f"{_HEURISTICS}:static",
    "greedy": f"{_HEURISTICS}:greedy",
    "base-stock": f"{_HEURISTICS}:base_stock",
    "tuned-greedy": "orl.solvers.lot_sizing.tuning:tuned_greedy",
    "tuned-base-stock": "orl.solvers.lot_sizing.tuning:tuned_base_stock",
    "price-directed": "orl.solvers.lot_sizing.price_directed:price_directed",
    "dynamic-programming": "orl.solvers.lot_sizing.dynamic_programming:dynamic_programming",
    "rolling-horizon": "orl.solvers.lot_sizing.rolling_horizon:rolling_horizon",
    "sample-average": "orl.solvers.lot_sizing.sample_average:sample_average",
    "scenario-tree": "orl.solvers.lot_sizing.scenario_tree:scenario_tree",
}
"""Import string of every rule's factory."""


def rule_factory(key: str) -> Factory:
    """The factory of a rule. Raises UnknownNameError."""
    if key not in RULES:
        raise UnknownNameError("rule", key, RULES)
    module, _, attribute = RULES[key].partition(":")
    factory: Factory = getattr(importlib.import_module(module), attribute)
    return factory


def make_rule(key: str, instance: LotSizingInstance, **options: Any) -> Decide:
    """A rule for an instance. It is not given the demand path of a scenario, so it cannot look ahead.

    >>> from orl.envs.lot_sizing.library import load
    >>> import numpy as np
    >>> make_rule("static", load("ls-2x1"))(np.array([[0, 0]]), np.array([[0]]), np.array([0])).tolist()
    [[1]]
    """
    return rule_factory(key)(replace(instance, demand_path=None), **options)
