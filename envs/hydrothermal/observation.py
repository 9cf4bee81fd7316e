"""What is seen of a state: formulas in float64 over arrays, shared by the environment and by its target model.

An observation ``flat`` of n plants is [2 n + 3]: volumes by their largest, standardised inflows of the stage, sine and
cosine of the season, share of the horizon that is over. ``raw`` is [2 n + 1]: volumes in hm3, inflows in m3/s, stage.
After the last stage there is no inflow: its features are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from gymnasium import spaces

from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers

ObservationKind = Literal["flat", "raw"]
LEAST_UNIT = 1e-3  # hm3; reservoirs that hold less, or nothing, are not divided by


@dataclass(frozen=True, eq=False)
class Scales:
    """The numbers of an instance that features are made with.

    Attributes:
        volume_unit: float64[n], hm3, the largest volumes, at least ``LEAST_UNIT``.
        inflow_mean, inflow_std: float64[n], m3/s, over all rows and columns, weighted by probability; where inflow
            never changes the second is 1.
        season: float64[R, 2], sine and cosine of 2 pi r / R for the R rows of inflow.
        horizon: T.
    """

    volume_unit: Floats
    inflow_mean: Floats
    inflow_std: Floats
    season: Floats
    horizon: int


def scales(instance: HydrothermalInstance) -> Scales:
    """The scales of an instance; a scenario of it has the same.

    >>> from orl.envs.hydrothermal.library import load
    >>> scales(load("tri3")).inflow_mean.round(2).tolist()
    [20.67, 6.98, 9.82]
    """
    n_rows = len(instance.inflows)
    weights = instance.probabilities[:, None, :] / n_rows
    mean = (instance.inflows * weights).sum((0, 2))
    spread = np.sqrt(((instance.inflows - mean[:, None]) ** 2 * weights).sum((0, 2)))
    still = spread <= 1e-12 * np.maximum(np.abs(mean), 1.0)
    angle = 2 * np.pi * np.arange(n_rows) / n_rows
    return Scales(
        np.maximum(instance.max_volume, LEAST_UNIT),
        mean,
        np.where(still, 1.0, spread),
        np.stack([np.sin(angle), np.cos(angle)], axis=1),
        instance.horizon,
    )


def state_at(instance: HydrothermalInstance) -> slice:
    """Where volumes stand in an observation, of either kind."""
    return slice(0, instance.n_plants)


def features(instance: HydrothermalInstance, inflows: Floats, stages: Integers, given: Scales | None = None) -> Floats:
    """Observations ``flat`` before rounding to float32, with 0 where the volumes stand.

    Args:
        instance: The problem, or a scenario of it.
        inflows: float64[..., n], m3/s, of the stages.
        stages: int64[...] (anything that broadcasts to it), from 0; T is the end, whatever the inflow there.
        given: The scales of the instance where they are at hand.

    Returns:
        float64[..., 2 n + 3].

    >>> from orl.envs.hydrothermal.library import load
    >>> tri3 = load("tri3")
    >>> features(tri3, tri3.inflow(1, 2), np.array(1)).round(2).tolist()
    [0.0, 0.0, 0.0, 1.18, 1.39, 1.09, 1.0, 0.0, 0.25]
    """
    known = scales(instance) if given is None else given
    n = inflows.shape[-1]
    stages = np.broadcast_to(stages, inflows.shape[:-1])
    rows = np.zeros((*inflows.shape[:-1], 2 * n + 3))
    standard = (inflows - known.inflow_mean) / known.inflow_std
    rows[..., n : 2 * n] = np.where((stages < known.horizon)[..., None], standard, 0.0)
    rows[..., 2 * n : 2 * n + 2] = known.season[stages % len(known.season)]
    rows[..., 2 * n + 2] = stages / known.horizon
    return rows


def observations(
    kind: ObservationKind,
    instance: HydrothermalInstance,
    volumes: Floats,
    inflows: Floats,
    stages: Integers,
    given: Scales | None = None,
) -> Floats:
    """Observations of either kind before rounding to float32.

    Args:
        kind: ``flat`` or ``raw``.
        instance: The problem.
        volumes: float64[..., n], hm3.
        inflows: float64[..., n], m3/s; 0 at the end.
        stages: int64[...].
        given: The scales of the instance where they are at hand.

    Returns:
        float64[..., 2 n + 3] or float64[..., 2 n + 1].
    """
    n = volumes.shape[-1]
    if kind == "raw":
        stage = np.broadcast_to(stages, volumes.shape[:-1])[..., None]
        return np.concatenate([volumes, inflows, stage], axis=-1)
    known = scales(instance) if given is None else given
    rows = features(instance, inflows, stages, known)
    rows[..., :n] = volumes / known.volume_unit
    return rows


def make_space(kind: ObservationKind, instance: HydrothermalInstance) -> spaces.Box:
    """The space of observations: Box float32, limits those of volumes and of all inflows, and 0 for none."""
    n, horizon = instance.n_plants, instance.horizon
    known = scales(instance)
    volumes = np.maximum(instance.max_volume, instance.initial_volume)
    least, most = instance.inflows.min((0, 2)), instance.inflows.max((0, 2))
    if kind == "raw":
        low = np.concatenate([np.zeros(n), np.minimum(least, 0.0), [0.0]])
        high = np.concatenate([volumes, np.maximum(most, 0.0), [float(horizon)]])
    else:
        lowest, highest = ((inflow - known.inflow_mean) / known.inflow_std for inflow in (least, most))
        low = np.concatenate([np.zeros(n), np.minimum(lowest, 0.0), [-1.0, -1.0, 0.0]])
        high = np.concatenate([volumes / known.volume_unit, np.maximum(highest, 0.0), [1.0, 1.0, 1.0]])
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
