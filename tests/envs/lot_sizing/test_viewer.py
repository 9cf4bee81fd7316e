"""The picture: fixed sizes, all marks, whole files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orl.common.errors import InputError
from orl.envs.lot_sizing import library, viewer
from orl.envs.lot_sizing.generators import tiny
from orl.envs.lot_sizing.instance import LotSizingPlan


def plan_for(scenario, actions):
    return LotSizingPlan(actions, scenario.demand_path, scenario.initial_inventory, scenario.initial_setup)


@pytest.fixture
def scenario():
    return library.load("ls-4x2-t20/scenario-0")


@pytest.fixture
def plan(scenario):
    return plan_for(scenario, np.tile([[1, 2], [1, 2], [3, 3], [4, 3]], (5, 1)))


def texts(figure):
    return " | ".join([t.get_text() for t in figure.texts] + [t.get_text() for a in figure.axes for t in a.texts])


def test_partial_plans_have_the_size_of_complete_ones(scenario, plan):
    whole = viewer.rgb(scenario, plan)
    assert whole.dtype == np.uint8
    assert whole.shape[0] % 2 == whole.shape[1] % 2 == 0
    for t in (0, 1, 7):
        part = viewer.rgb(scenario, replace(plan, actions=plan.actions[:t], demand=plan.demand[:t]))
        assert part.shape == whole.shape
        assert (part != whole).any()


def test_the_picture_says_what_happened(scenario, plan):
    said = texts(viewer.picture(scenario, plan))
    cost = scenario.check(plan).objective
    for words in (scenario.name, f"cost {cost:,.2f}", "lower bound", "item 4", "machine 2", "lost "):
        assert words in said, words
    part = texts(viewer.picture(scenario, replace(plan, actions=plan.actions[:5], demand=plan.demand[:5])))
    assert "5 of 20 periods" in part
    assert "lower bound" not in part


def test_lost_sales_are_red_and_only_then(scenario, plan):
    red = np.array([0xCC, 0x33, 0x11])
    idle = plan_for(scenario, np.zeros((20, 2), np.int64))
    sold_nothing = plan_for(replace(scenario, demand_path=scenario.demand_path * 0), plan.actions)
    assert (viewer.rgb(scenario, idle) == red).all(-1).sum() > 500
    assert not (viewer.rgb(scenario, sold_nothing) == red).all(-1).any()


def test_backlog_and_odd_instances_can_be_drawn():
    for seed in range(4):
        scenario = tiny(seed, n_items=3, n_machines=2, horizon=1 + 4 * seed, backlog=True).scenario(0)
        actions = np.tile([1, 3], (scenario.horizon, 1))
        assert viewer.rgb(scenario, plan_for(scenario, actions)).std() > 0
    many = library.load("ls-70x45-s0-t3").scenario(0)
    assert viewer.rgb(many, plan_for(many, np.zeros((3, 45), np.int64))).shape[0] < 4000


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_pictures_are_saved_by_suffix(scenario, plan, suffix, start, tmp_path):
    path = tmp_path / "new" / f"plan{suffix}"
    viewer.save_picture(scenario, plan, path)
    assert path.read_bytes().startswith(start)
    viewer.save_picture(scenario, plan, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_suffixes_and_plans_are_refused(scenario, plan, tmp_path):
    with pytest.raises(InputError, match="suffix"):
        viewer.save_picture(scenario, plan, tmp_path / "plan.gif")
    with pytest.raises(InputError, match="actions"):
        viewer.rgb(scenario, replace(plan, actions=plan.actions[:, :1]))
    with pytest.raises(InputError, match="demand"):
        viewer.rgb(scenario, replace(plan, demand=plan.demand[:3]))


def test_drawing_leaves_matplotlib_as_it_was(scenario, plan):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    viewer.rgb(scenario, plan)
    assert dict(mpl.rcParams) == before
