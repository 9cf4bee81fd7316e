"""The picture: fixed sizes, all marks, whole files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hydrothermal_cases import one_bus_dispatch, part_of

from orl.common.errors import InputError
from orl.envs.hydrothermal import library, viewer


@pytest.fixture(scope="module")
def scenario():
    return library.load("cascade-6x5-s0-copper-t12/scenario-0")


@pytest.fixture(scope="module")
def dispatch(scenario):
    return one_bus_dispatch(scenario, np.random.default_rng(0).random((12, 6)))


def texts(figure):
    said = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        said += [t.get_text() for t in axes.texts]
        said += [t.get_text() for t in axes.get_legend().get_texts()] if axes.get_legend() else []
        said += [axes.get_ylabel(), axes.get_xlabel()]
    return " | ".join(said)


def test_partial_dispatches_have_the_size_of_complete_ones(scenario, dispatch):
    whole = viewer.rgb(scenario, dispatch)
    assert whole.dtype == np.uint8
    assert whole.shape[0] % 2 == whole.shape[1] % 2 == 0
    for stages in (0, 1, 7):
        part = viewer.rgb(scenario, part_of(dispatch, stages))
        assert part.shape == whole.shape
        assert (part != whole).any()


def test_the_picture_says_what_happened(scenario, dispatch):
    said = texts(viewer.picture(scenario, dispatch))
    cost = scenario.check(dispatch).objective
    for words in (scenario.name, f"cost {cost:,.1f}", "lower bound", "plant 6", "hm3", "spilled", "hydro", "demand"):
        assert words in said, words
    assert "price" not in said
    part = texts(viewer.picture(scenario, part_of(dispatch, 5)))
    assert "5 of 12 stages" in part
    assert "lower bound" not in part


def test_deficit_is_red_and_only_then(scenario, dispatch):
    red = np.array([0xCC, 0x33, 0x11])
    dark = replace(scenario, max_power=np.where(scenario.generator_costs > 0, 0.0, scenario.max_power))
    without_thermal_plants = one_bus_dispatch(dark, np.full((12, 6), 0.5))
    enough = replace(scenario, demand=0.4 * scenario.demand)
    assert (viewer.rgb(dark, without_thermal_plants) == red).all(-1).sum() > 500
    met = one_bus_dispatch(enough, np.full((12, 6), 0.5))
    assert not met.deficit.any()
    assert not (viewer.rgb(enough, met) == red).all(-1).any()


@pytest.mark.parametrize("shape", [(12,), (12, 5)])
def test_prices_have_a_panel(scenario, dispatch, shape):
    prices = np.random.default_rng(0).uniform(10, 60, shape)
    figure = viewer.picture(scenario, dispatch, prices)
    assert len(figure.axes) == 3
    assert "price, USD/MWh" in texts(figure)
    start = viewer.rgb(scenario, part_of(dispatch, 0), [])
    assert start.shape == viewer.rgb(scenario, dispatch, prices).shape


@pytest.mark.parametrize("prices", [np.zeros(11), np.zeros((12, 4)), np.full(12, np.nan), np.zeros((12, 5, 1))])
def test_prices_that_do_not_fit_are_refused(scenario, dispatch, prices):
    with pytest.raises(InputError, match="prices"):
        viewer.picture(scenario, dispatch, prices)


def test_arrays_that_do_not_fit_are_refused(scenario, dispatch):
    for name in ("volumes", "spilled", "power", "deficit"):
        with pytest.raises(InputError, match=name):
            viewer.picture(scenario, replace(dispatch, **{name: getattr(dispatch, name)[:-1]}))
    with pytest.raises(InputError):
        viewer.picture(scenario.with_horizon(3), dispatch)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_files_are_written_whole(scenario, dispatch, tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    path.write_text("old")
    viewer.save_picture(scenario, dispatch, path)
    assert path.stat().st_size > 5000
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with pytest.raises(InputError, match="suffix"):
        viewer.save_picture(scenario, dispatch, tmp_path / "picture.gif")


def test_no_global_state_of_matplotlib_is_touched(scenario, dispatch):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    viewer.rgb(scenario, dispatch)
    assert plt.get_fignums() == before


def test_names_are_drawn_as_they_are(scenario, dispatch):
    named = replace(scenario, name="$x_1$ <b>", plant_names=("$q$", "a very long name of a plant", "", "é", "_", "^"))
    said = texts(viewer.picture(named, dispatch))
    assert "$x_1$ <b>" in said
    assert "a very long…" in said
    assert viewer.rgb(named, dispatch).any()
