"""Named instances: the built-in case, the published cases and their presets."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from orl.common.data import data_path, is_available
from orl.common.errors import DataUnavailableError, InputError, UnknownNameError
from orl.envs.hydrothermal import library
from orl.envs.hydrothermal.reach import ReachableMap
from orl.envs.hydrothermal.stage_lp import StageLP

HERE = set(library.available())
needs_bolivia = pytest.mark.skipif(
    "bolivia" not in HERE, reason="needs ORL_DATA_DIR/hydrothermal or `orl data fetch hydrothermal`"
)
needs_case3 = pytest.mark.skipif(
    "case3" not in HERE, reason="needs ORL_DATA_DIR/hydrothermal or `orl data fetch hydrothermal`"
)


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    """No mirror and an empty cache."""
    monkeypatch.delenv("ORL_DATA_DIR", raising=False)
    monkeypatch.setenv("ORL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", sorted(HERE))
def test_every_available_name_loads_under_its_name(name):
    instance = library.load(name)
    assert instance.name == name
    assert instance.lower_bound() > 0


def test_built_in_cases_need_no_files(nothing_here):
    here = set(library.available())
    assert {"tri3", "tri3-t6", "tri3-t6/scenario-0", "cascade-6x5-s0"} <= here
    assert not [name for name in here if name.startswith(("bolivia", "case3"))]
    with pytest.raises(DataUnavailableError, match="orl data fetch hydrothermal"):
        library.load("bolivia-copper-t3/scenario-0")


def test_tri3_is_the_published_case():
    instance = library.load("tri3")
    assert (instance.horizon, instance.network, instance.stage_hours) == (4, "copper", 730)
    assert instance.water_factor == pytest.approx(2.628)
    np.testing.assert_allclose(instance.inflows[0, :, 1], [30, 10, 14])
    np.testing.assert_allclose(instance.inflows[2, :, 2], [18, 6, 9])
    np.testing.assert_allclose(instance.inflows[3, :, 0], [9.6, 3, 4.8])
    np.testing.assert_allclose(instance.probabilities, 1 / 3)
    np.testing.assert_allclose(instance.base_mva * instance.demand[:, 0], [90, 95, 105, 100])
    np.testing.assert_allclose(instance.generator_costs[3:] / instance.base_mva, [20, 60])
    np.testing.assert_allclose(instance.base_mva * instance.max_power[3:], [30, 40])
    assert instance.deficit_cost / instance.base_mva == 500
    # a full turbine fits its generator
    np.testing.assert_allclose(instance.most_outflow, [40, 60, 25])
    np.testing.assert_allclose(instance.least_outflow, 0)


def test_one_factor_leads_from_our_costs_to_those_of_whole_stages():
    """30 MW at 20 USD/MWh through a stage of 730 hours are 438 kUSD."""
    instance = library.load("tri3")
    hourly = instance.max_power[3] * instance.generator_costs[3]
    assert hourly * instance.stage_hours / 1000 == pytest.approx(438.0)
    assert 3582.992740 * instance.stage_hours / 1000 == pytest.approx(2615.584700, abs=1e-6)


def test_names_combine():
    instance = library.load("cascade-3x4-s9-transport-t7/scenario-2")
    assert instance.name == "cascade-3x4-s9-transport-t7/scenario-2"
    assert (instance.network, instance.horizon, instance.n_plants, instance.n_buses) == ("transport", 7, 3, 4)
    base = library.load("cascade-3x4-s9")
    assert (base.network, base.horizon) == ("dc", 24)
    np.testing.assert_array_equal(instance.columns, base.scenario(2).columns[:7])


@pytest.mark.parametrize(
    "name",
    ["", "tri", "tri3-copper", "bolivia-t", "bolivia-daily", "tri3/scenario-0/scenario-1", "tri3/scenario-x", "a.txt"],
)
def test_unknown_names_are_refused(name):
    with pytest.raises(UnknownNameError):
        library.load(name)


def test_the_nearest_names_are_offered():
    with pytest.raises(UnknownNameError, match="bolivia-seasonal"):
        library.load("bolivia-seasonel")


@pytest.mark.parametrize("name", ["tri3-t0", "tri3-t10001", "cascade-501x3-s0", "cascade-3x3-s99999999999999999999"])
def test_impossible_sizes_are_refused(name):
    with pytest.raises(InputError):
        library.load(name)


def test_data_files_are_pinned():
    assert len(library.DATA_FILES) == 11
    for file in library.DATA_FILES:
        assert file.url.startswith("https://raw.githubusercontent.com/")
        assert file.url.endswith(file.name)
        assert len(file.sha256) == 64
        if is_available("hydrothermal", file):
            path = data_path("hydrothermal", file.name, url=file.url, sha256=file.sha256)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


# ---- the published cases -------------------------------------------------------------------------------------------
@needs_bolivia
def test_bolivia_is_read_as_published():
    instance = library.load("bolivia")
    sizes = (instance.n_buses, instance.n_branches, len(instance.pair_from), instance.n_generators, instance.n_plants)
    assert sizes == (28, 31, 30, 34, 11)
    assert (instance.horizon, instance.stage_hours, instance.base_mva) == (96, 168, 100)
    assert instance.network == "dc"
    assert instance.water_factor == pytest.approx(0.6048)
    assert instance.deficit_cost == 6000
    assert instance.demand.sum() == pytest.approx(0.6 * 8.0422023810, abs=1e-10)
    assert instance.base_mva * instance.demand.sum() == pytest.approx(482.53, abs=0.01)
    thermal = np.setdiff1d(np.arange(34), instance.plant_generator)
    assert len(thermal) == 23
    assert instance.max_power[thermal].sum() == pytest.approx(5.0671)
    assert instance.max_power[instance.plant_generator].sum() == pytest.approx(4.2685, abs=1e-4)
    assert (instance.generator_costs[thermal].min(), instance.generator_costs[thermal].max()) == (1404, 4244)
    np.testing.assert_array_equal(instance.generator_costs[instance.plant_generator], 10)
    assert instance.susceptance[0] == pytest.approx(9.3631, abs=1e-4)
    assert [len(instance.demand), instance.bus_names[0], instance.reference_bus] == [1, "GCH-069", 0]


@needs_bolivia
def test_bolivias_plants_are_read_as_published():
    instance = library.load("bolivia")
    expected = "SIS COR KAN MIG ZON CHU ACH TAQ1 TAQ2 CHJ YUR"
    assert " ".join(instance.plant_names) == expected
    np.testing.assert_allclose(
        instance.max_volume, [0.1, 137.99, 0.042, 16.76, 10.35, 0.32, 9.72, 0.07, 0.04, 0.0, 2.93]
    )
    np.testing.assert_allclose(
        instance.max_outflow, [10.2926, 10.5531, 0.7854, 3.63, 8.74, 17.01, 1.25, 7, 11, 0.84, 3.24], rtol=1e-9
    )
    np.testing.assert_array_equal(instance.initial_volume, 0)  # 1e-316 in the file
    np.testing.assert_array_equal(instance.spill_costs, 0)
    assert np.argwhere(instance.turbine_to).tolist() == [[1, 0], [4, 5], [7, 8]]
    assert np.argwhere(instance.spill_to).tolist() == [[4, 5], [7, 8]]


@needs_bolivia
def test_bolivias_inflows_are_read_as_published():
    instance = library.load("bolivia")
    assert instance.inflows.shape == (48, 11, 15)
    assert instance.inflows.min() == pytest.approx(0.01164, abs=1e-5)
    assert instance.inflows.max() == pytest.approx(33.3091, abs=1e-4)
    means = [0.607, 7.340, 0.484, 2.612, 4.175, 6.419, 0.296, 4.684, 3.779, 0.959, 2.420]
    np.testing.assert_allclose(instance.mean_inflows.mean(0), means, atol=6e-4)
    assert instance.mean_inflows[0].sum() == pytest.approx(63.8, abs=0.05)
    np.testing.assert_allclose(instance.probabilities, 1 / 15)


@needs_bolivia
def test_presets_are_not_mixed_up():
    weekly, paper, seasonal = (library.load(f"bolivia{preset}") for preset in ("", "-paper2024", "-seasonal"))
    assert paper.water_factor == pytest.approx(0.0036)
    assert seasonal.water_factor == pytest.approx(0.6048)
    for instance, limit in ((paper, 15.0), (weekly, 2500.0)):
        came = instance.water_factor * instance.mean_inflows.sum() * 2  # in 96 stages
        assert 0.75 * limit < came < limit
    np.testing.assert_array_equal(paper.demand, weekly.demand)
    assert (paper.deficit_cost, seasonal.deficit_cost) == (6000, 1e5)
    assert seasonal.demand.shape == (48, 28)
    np.testing.assert_allclose(seasonal.demand[27], 1.05 * weekly.demand[0] / 0.6)
    np.testing.assert_allclose(seasonal.demand[3], 0.65 * weekly.demand[0] / 0.6)


@needs_bolivia
def test_emptying_all_reservoirs_costs_what_it_should():
    """Units of demand, water and cost at once: 30 paths of 96 weeks with every reservoir emptied in every stage."""
    instance = library.load("bolivia")
    columns = np.random.default_rng(20260706).integers(0, 15, size=(96, 30))
    reach, programme = ReachableMap(instance), StageLP(instance)
    volumes, costs = np.zeros((30, 11)), np.zeros(30)
    for t in range(96):
        inflows = instance.path_inflows(columns.T)[:, t]
        ends = reach(volumes, inflows, np.zeros((30, 11))).volumes
        rhs = volumes + instance.water_factor * inflows - ends
        costs += [programme.solve(row).cost for row in rhs]
        volumes = ends
    assert costs.mean() == pytest.approx(358_983, rel=1e-4)


@needs_case3
def test_case3_is_read_as_published():
    instance = library.load("case3")
    assert (instance.n_plants, instance.n_buses, instance.n_branches, instance.horizon) == (1, 3, 3, 12)
    assert instance.stage_hours == 1  # not in the file
    assert instance.deficit_cost == 1e5
    np.testing.assert_array_equal(instance.generator_costs, [2000, 10000, 0])
    np.testing.assert_allclose(instance.probabilities, [[0.3, 0.4, 0.3]] * 12)
    assert instance.inflows[5].tolist() == [[45, 30, 15]]
    assert library.load("case3deterministic").inflows[:, 0, 0].tolist() == [
        80,
        70,
        60,
        50,
        40,
        30,
        20,
        30,
        40,
        50,
        60,
        70,
    ]
