"""Random cascades: the same everywhere, seasonal, correlated in space, and never impossible."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_cases import one_bus_dispatch

from orl.common.errors import InputError
from orl.envs.hydrothermal.generators import cascade
from orl.envs.hydrothermal.reach import require_acyclic


def test_a_seed_gives_the_same_instance_everywhere():
    """The digest is over the rounded numbers, so that another numpy or machine gives the same."""
    instance = cascade(5, 4, 7)
    assert instance.same_as(cascade(5, 4, 7))
    assert not instance.same_as(cascade(5, 4, 8))
    said = json.dumps([instance.inflows.tolist(), instance.demand.tolist(), instance.max_volume.tolist()])
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == "421d07c33a006a82"


@pytest.mark.parametrize("seed", range(12))
def test_instances_are_sound(seed):
    instance = cascade(3 + 2 * seed, 1 + seed, seed, horizon=6, n_columns=3)
    require_acyclic(instance)
    assert (instance.inflows > 0).all()
    assert (instance.turbine_to.sum(1) <= 1).all()
    reached = {instance.reference_bus}  # every bus hangs together with the reference bus
    for _ in range(instance.n_buses):
        joined = np.isin(instance.branch_from, list(reached)) | np.isin(instance.branch_to, list(reached))
        reached |= set(instance.branch_from[joined].tolist()) | set(instance.branch_to[joined].tolist())
    assert len(reached) == instance.n_buses
    assert (instance.max_flow > 0).all()
    copper = replace(instance, network="copper").scenario(seed)
    dispatch = one_bus_dispatch(copper, np.full((6, instance.n_plants), 0.5))
    assert copper.check(dispatch).feasible


def test_water_covers_part_of_the_demand_and_thermal_plants_not_all_of_it():
    for seed in range(5):
        instance = cascade(10, 6, seed)
        thermal = np.setdiff1d(np.arange(instance.n_generators), instance.plant_generator)
        demand = instance.demand.sum(1).mean()
        assert 0.6 < instance.max_power[thermal].sum() / demand < 0.7
        assert instance.lower_bound() / instance.horizon > 0


def test_inflows_have_seasons_and_columns_go_together():
    instance = cascade(4, 1, 3, n_columns=400)
    yearly = instance.mean_inflows
    assert (yearly.max(0) / yearly.min(0) > 2).all()
    logs = np.log(instance.inflows)
    logs = (logs - logs.mean(2, keepdims=True)) / logs.std(2, keepdims=True)
    together = np.einsum("rik,rjk->ij", logs, logs) / logs[:, 0].size
    apart = together[~np.eye(4, dtype=bool)]
    np.testing.assert_allclose(apart, 0.6, atol=0.06)
    alone = cascade(4, 1, 3, n_columns=400, correlation=0.0)
    logs = np.log(alone.inflows[0])
    np.testing.assert_allclose(np.corrcoef(logs)[~np.eye(4, dtype=bool)], 0.0, atol=0.2)
    calm = cascade(4, 1, 3, spread=0.0)
    np.testing.assert_allclose(calm.inflows, calm.inflows[:, :, :1].repeat(10, 2))


def test_reservoirs_are_of_all_sizes():
    instance = cascade(60, 1, 0)
    months = instance.max_volume / (instance.water_factor * instance.mean_inflows.mean(0))
    assert (instance.max_volume == 0).any()
    assert (months > 3).any()
    assert (instance.initial_volume <= instance.max_volume).all()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0, 1, 0), {}),
        ((501, 1, 0), {}),
        ((3, 0, 0), {}),
        ((3, 1, -1), {}),
        ((3, 1, True), {}),
        ((3, 1, 0), {"n_columns": 0}),
        ((3, 1, 0), {"horizon": 0}),
        ((3, 1, 0), {"correlation": 1.5}),
        ((3, 1, 0), {"spread": float("nan")}),
        ((2.5, 1, 0), {}),
    ],
)
def test_bad_arguments_are_refused(arguments, options):
    with pytest.raises(InputError):
        cascade(*arguments, **options)


def test_large_systems_are_made():
    instance = cascade(150, 300, 1)
    assert (instance.n_plants, instance.n_buses) == (150, 300)
    assert instance.n_branches == 299 + 150
