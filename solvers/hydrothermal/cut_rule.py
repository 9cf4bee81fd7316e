"""The cuts of SDDP as a rule."""

from __future__ import annotations

import os

import numpy as np

from orl.common.errors import InputError
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.solvers.hydrothermal.problem_key import problem_key
from orl.solvers.hydrothermal.risk import RiskMeasure
from orl.solvers.hydrothermal.rules import Decide
from orl.solvers.hydrothermal.sddp import SDDP

ITERATIONS = 60


def cut_rule(
    instance: HydrothermalInstance,
    *,
    cuts: SDDP | str | os.PathLike[str] | None = None,
    iterations: int | None = None,
    time_limit: float | None = None,
    forward_passes: int = 1,
    multicut: bool = False,
    clean_every: int = 20,
    risk: RiskMeasure | None = None,
    discount: float = 1.0,
    cyclic: bool = False,
    seed: int = 0,
) -> Decide:
    """The rule: in every stage the dispatch of least cost, that of the future by cuts included.

    Args:
        instance: The problem.
        cuts: A policy trained on this problem, or a file that its ``save`` wrote for the same options.
        iterations: Of training now, before the first decision; None: 60 without ``cuts``, none with them.
        time_limit: Seconds of training at most.
        forward_passes, multicut, clean_every, risk, discount, cyclic, seed: As for
            :class:`orl.solvers.hydrothermal.sddp.SDDP`; not used where ``cuts`` is one.

    Raises:
        InputError: ``cuts`` of another problem.
        KeyboardInterrupt: Ctrl-C during the training: a rule with half its cuts would pass for a whole one.

    >>> from orl.envs.hydrothermal.library import load
    >>> decide = cut_rule(load("tri3"), iterations=20)
    >>> decide(np.array([0]), np.array([[100.0, 10.0, 40.0]]), np.array([[30.0, 10.0, 14.0]])).shape
    (1, 3)
    """
    if isinstance(cuts, SDDP):
        sddp = cuts
        require_same_problem(sddp, instance)
    else:
        sddp = SDDP(
            instance,
            forward_passes=forward_passes,
            multicut=multicut,
            clean_every=clean_every,
            risk=risk,
            discount=discount,
            cyclic=cyclic,
            seed=seed,
        )
        if cuts is not None:
            sddp.load(cuts)
    wanted = iterations if iterations is not None else (ITERATIONS if cuts is None else 0)
    if wanted and sddp.train(iterations=wanted, time_limit=time_limit) == "interrupted":
        raise KeyboardInterrupt

    def decide(stage: Integers, volumes: Floats, inflows: Floats) -> Floats:
        answers = [sddp.decide(t, v, w) for t, v, w in zip(np.asarray(stage).tolist(), volumes, inflows, strict=True)]
        return np.array(answers).reshape(volumes.shape)

    return decide


def require_same_problem(sddp: SDDP, instance: HydrothermalInstance) -> None:
    """Refuse cuts that say nothing about an instance; initial volumes may differ.

    Raises:
        InputError: Another problem.
    """
    if problem_key(sddp.instance, initial_volume=False) != problem_key(instance, initial_volume=False):
        raise InputError(
            "cuts of another problem", field="cuts", value=sddp.instance.name, expected=f"the data of {instance.name}"
        )
