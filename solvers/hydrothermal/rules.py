"""The rules of hydrothermal dispatch by name. A rule knows the distribution of inflows, never those to come.

``make_rule`` gives a function from the states of B copies, their inflows of the stage included, to the volumes that it
wants at the end of the stage; the same function plays an environment
(:class:`orl.solvers.hydrothermal.policies.RulePolicy`), a scenario
(:class:`orl.solvers.hydrothermal.policies.RuleSolver`) and whole panels of paths
(:func:`orl.solvers.hydrothermal.simulation.simulate`). All three move volumes that cannot be reached to the nearest
ones that can, from the top plant down, and then cost the same.

===============  ====================================================================================================
rule             what it does
===============  ====================================================================================================
empty            lets go of all water at once
full             keeps all water that there is room for
random           any volumes within reach, with equal chances
myopic           least cost of the stage; of equal ones that which stores most
rolling-horizon  a linear programme over the next stages with expected inflow, or a fan of sampled inflows
sddp             cuts of stochastic dual dynamic programming, trained when the rule is made or read from a file
===============  ====================================================================================================
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orl.common.errors import UnknownNameError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers

Decide = Callable[[Integers, Floats, Floats], Floats]
"""Stage int64[B], volumes float64[B, n] (hm3) before it and inflows float64[B, n] (m3/s) to volumes float64[B, n]."""
Factory = Callable[..., Decide]
"""``make(instance, **options)``."""

_HEURISTICS = "orl.solvers.hydrothermal.heuristics"
RULES: dict[str, str] = {
    "empty": f"{_HEURISTICS}:empty",
    "full": f"{_HEURISTICS}:full",
    "random": f"{_HEURISTICS}:random",
    "myopic": "orl.solvers.hydrothermal.myopic:myopic",
    "rolling-horizon": "orl.solvers.hydrothermal.rolling_horizon:rolling_horizon",
    "sddp": "orl.solvers.hydrothermal.cut_rule:cut_rule",
}
"""Import string of every rule's factory."""


def rule_factory(key: str) -> Factory:
    """The factory of a rule. Raises UnknownNameError."""
    if key not in RULES:
        raise UnknownNameError("rule", key, RULES)
    module, _, attribute = RULES[key].partition(":")
    factory: Factory = getattr(importlib.import_module(module), attribute)
    return factory


def make_rule(key: str, instance: HydrothermalInstance, **options: Any) -> Decide:
    """A rule for an instance. It is not given the columns of a scenario, so it cannot look ahead.

    >>> import numpy as np
    >>> from orl.envs.hydrothermal.library import load
    >>> full = make_rule("full", load("tri3"))
    >>> full(np.array([0]), np.array([[100.0, 10.0, 40.0]]), np.array([[30.0, 10.0, 14.0]])).round(2).tolist()
    [[178.84, 20.0, 76.79]]
    """
    return rule_factory(key)(replace(instance, columns=None), **options)
