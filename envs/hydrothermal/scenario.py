"""Scenarios: the inflow columns that a seed stands for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.envs.hydrothermal.builders import checked_columns, whole_horizon
from orl.envs.hydrothermal.instance import HydrothermalInstance, Integers


def draw_columns(instance: HydrothermalInstance, key: Any, draw: int = 0) -> Integers:
    """See :meth:`HydrothermalInstance.draw_columns`."""
    key = np.asarray(key, np.uint64)
    if instance.columns is not None and draw == 0:
        return np.broadcast_to(instance.columns, (*key.shape, *instance.columns.shape)).copy()
    stages = np.arange(instance.horizon)
    rows = stages % len(instance.inflows)
    if instance.joint:
        noise = counter_noise.uniform(key[..., None], stages, 0, draw)[..., None]
        return column_of(instance, rows, noise)[..., 0]
    noise = counter_noise.uniform(key[..., None, None], stages[:, None], np.arange(instance.n_plants), draw)
    return column_of(instance, rows, noise)


def column_of(instance: HydrothermalInstance, rows: Integers, noise: Any) -> Integers:
    """Columns int64[..., T, m] of uniform numbers [..., T, m] by the distributions of the inflow rows int64[T].

    It is the first column whose distribution function exceeds the number; columns of probability 0 never come.
    """
    probabilities = instance.probabilities[rows]  # [T, S]
    thresholds = np.cumsum(probabilities, axis=-1)
    last = probabilities.shape[-1] - 1 - (probabilities[:, ::-1] > 0).argmax(-1)
    found = np.empty(np.shape(noise), np.int64)
    for t in range(len(rows)):  # a stage at a time: [..., T, m, S] may not fit
        found[..., t, :] = np.minimum(np.searchsorted(thresholds[t], noise[..., t, :], side="right"), last[t])
    return found


def scenario_of(instance: HydrothermalInstance, columns: Any, name: str | None = None) -> HydrothermalInstance:
    """See :meth:`HydrothermalInstance.scenario_of`."""
    given = checked_columns(
        columns, instance.horizon, instance.probabilities, instance.n_plants, instance.joint, instance.name
    )
    return replace(instance, name=instance.name if name is None else name, columns=given)


def draw_scenario(instance: HydrothermalInstance, seed: int) -> HydrothermalInstance:
    """See :meth:`HydrothermalInstance.scenario`."""
    if instance.columns is not None:
        return instance
    key = counter_noise.draw_key(np_random(seed)[0])
    return replace(instance, name=f"{instance.name}/scenario-{seed}", columns=draw_columns(instance, key))


def change_horizon(instance: HydrothermalInstance, horizon: int) -> HydrothermalInstance:
    """See :meth:`HydrothermalInstance.with_horizon`."""
    stages = whole_horizon(horizon, instance.name)
    columns = instance.columns
    if columns is not None and stages > len(columns):
        raise InputError(
            "the scenario ends before",
            source=instance.name,
            field="horizon",
            value=stages,
            expected=f"1..{len(columns)}",
        )
    return replace(
        instance,
        name=f"{re.sub(r'-t[0-9]+$', '', instance.name)}-t{stages}",
        horizon=stages,
        columns=None if columns is None else columns[:stages].copy(),
    )
