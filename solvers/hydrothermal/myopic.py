"""The myopic rule: the cheapest dispatch of the stage, with no thought of the next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sparse

from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.stage_lp import new_highs, pass_model
from orl.envs.hydrothermal.stage_model import stage_model
from orl.envs.hydrothermal.water_balance import WaterBalance
from orl.solvers.hydrothermal.kept_basis import optimise, start_from
from orl.solvers.hydrothermal.rules import Decide

SLACK = 1e-9  # relative, of the least cost that the second programme may spend


def myopic(instance: HydrothermalInstance) -> Decide:
    """The rule. A second programme settles ties: of the cheapest dispatches, that which stores most energy.

    Without it the answer would be any vertex of the cheapest face; where hydro power is plentiful some throw the water
    away. The energy of a hm3 counts all turbines on its way down.

    >>> from orl.envs.hydrothermal.library import load
    >>> decide = myopic(load("tri3"))
    >>> state = np.array([0]), np.array([[100.0, 10.0, 40.0]]), np.array([[30.0, 10.0, 14.0]])
    >>> decide(*state).round(2).tolist()
    [[73.72, 10.0, 11.09]]
    """
    balance, programmes = WaterBalance(instance), dict[int, _StoringProgramme]()

    def decide(stage: Integers, volumes: Floats, inflows: Floats) -> Floats:
        after = np.empty_like(volumes)
        for b, t in enumerate(np.asarray(stage).tolist()):
            row = t % len(instance.demand)
            if row not in programmes:
                programmes[row] = _StoringProgramme(instance, row)
            water = volumes[b] + instance.water_factor * inflows[b]
            after[b] = balance.settle(water, *programmes[row].releases(water))
        return after

    return decide


class _StoringProgramme:
    """The storage form of a stage's programme with one row more, its cost."""

    def __init__(self, instance: HydrothermalInstance, stage: int) -> None:
        model = stage_model(instance, stage, "storage")
        self.columns = model.columns
        self.costs, self.energy = model.costs, np.zeros_like(model.costs)
        per_hm3 = energy_of_water(instance)
        self.energy[model.columns["volume"]] = -per_hm3 / max(float(per_hm3.max()), 1e-9)
        self.cost_row = len(model.row_lower)
        self.highs = new_highs()
        pass_model(
            self.highs,
            replace(
                model,
                matrix=sparse.csr_array(sparse.vstack([model.matrix, model.costs[None]], format="csr")),
                row_lower=np.append(model.row_lower, -np.inf),
                row_upper=np.append(model.row_upper, np.inf),
            ),
        )
        self.places = np.arange(len(model.costs), dtype=np.int32)
        self.name = f"stage {stage} of {instance.name}"
        self.basis = None
        self.releases(instance.initial_volume + instance.water_factor * instance.mean_inflows[0])
        self.basis = self.highs.getBasis()

    def releases(self, water: Floats) -> tuple[Floats, Floats]:
        """Turbined float64[n], m3/s, and spilled float64[n], hm3, for the water float64[n] at hand."""
        highs = self.highs
        highs.changeRowBounds(self.cost_row, -np.inf, np.inf)
        highs.changeColsCost(len(self.places), self.places, self.costs)
        for i, value in enumerate(water.tolist()):
            highs.changeRowBounds(i, value, value)
        start_from(highs, self.basis)
        optimise(highs, self.name)
        least = float(highs.getObjectiveValue())
        highs.changeRowBounds(self.cost_row, -np.inf, least + SLACK * max(abs(least), 1.0))
        highs.changeColsCost(len(self.places), self.places, self.energy)
        optimise(highs, self.name)
        values = np.array(highs.getSolution().col_value)
        return values[self.columns["turbined"]], values[self.columns["spilled"]]


def energy_of_water(instance: HydrothermalInstance) -> Floats:
    """MW for each m3/s float64[n] that is turbined at a plant and at all those below it.

    >>> from orl.envs.hydrothermal.library import load
    >>> energy_of_water(load("tri3")).tolist()
    [1.6, 0.6, 0.8]
    """
    energy = np.zeros(instance.n_plants)
    for i in instance.upstream_first[::-1].tolist():
        energy[i] = instance.production_factor[i] + energy[instance.turbine_to[i]].sum()
    return energy
