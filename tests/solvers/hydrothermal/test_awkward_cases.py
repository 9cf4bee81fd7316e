"""What a case may hold and a solver may do, from the file to SDDP: empty costs, no storage, a doubtful verdict."""

from __future__ import annotations

import csv

import highspy
import numpy as np
import pytest
from hydrothermal_cases import small_case
from hydrothermal_toys import tri3

from orl.envs.hydrothermal import formats
from orl.envs.hydrothermal.stage_lp import StageError
from orl.solvers.hydrothermal.scenario_tree import tree_cost
from orl.solvers.hydrothermal.sddp import SDDP


def test_empty_costs_and_plants_without_storage_are_operated():
    """Hydro generators with an empty or no cost list are free; water of a plant without storage runs through."""
    instance = formats.parse_case(*small_case(), name="small", horizon=3)
    assert instance.max_volume[1] == 0
    assert instance.generator_costs[instance.plant_generator].tolist() == [0, 10, 0]
    sddp = SDDP(instance)
    sddp.train(iterations=30)
    assert np.isfinite(sddp.lower_bound)
    assert sddp.lower_bound == pytest.approx(tree_cost(instance), rel=1e-7)
    costs, volumes = sddp.simulate(np.zeros((3, 4), int))
    assert (costs > 0).all()
    assert not volumes[:, :, 1].any()


class Doubting:
    """A HiGHS whose verdict is ``kUnknown`` so many times at every solve from a warm start."""

    def __init__(self, real, doubts):
        self.real, self.doubts, self.left = real, doubts, 0

    def __getattr__(self, name):
        return getattr(self.real, name)

    def changeRowBounds(self, row, low, high):
        self.left = self.doubts
        self.real.changeRowBounds(row, low, high)

    def getModelStatus(self):
        self.left -= 1
        return highspy.HighsModelStatus.kUnknown if self.left >= 0 else self.real.getModelStatus()


def doubting_sddp(monkeypatch, doubts):
    sddp = SDDP(tri3())
    lp = sddp._stages[2].lp
    monkeypatch.setattr(lp, "_highs", Doubting(lp.highs, doubts))
    return sddp


def test_doubtful_verdicts_are_counted_in_the_log(tmp_path, monkeypatch):
    sddp, plain = doubting_sddp(monkeypatch, 1), SDDP(tri3())
    for policy in (sddp, plain):
        policy.train(iterations=5)
    solves = sddp._stages[2].lp.solves
    assert sddp.rows[-1].retries == sddp.retries == solves >= 20
    assert plain.retries == 0
    assert sddp.lower_bound <= tree_cost(tri3()) * (1 + 1e-9)
    sddp.save_log(tmp_path / "log.csv")
    with (tmp_path / "log.csv").open() as file:
        logged = [int(row["retries"]) for row in csv.DictReader(file)]
    assert logged[-1] == solves
    assert logged == sorted(logged)


def test_a_verdict_that_stays_doubtful_ends_the_training(monkeypatch):
    with pytest.raises(StageError, match=r"stage 2 .* no optimum, HiGHS says kUnknown"):
        doubting_sddp(monkeypatch, 3).train(iterations=1)
