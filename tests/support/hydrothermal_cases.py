"""Hydrothermal test cases: a small valid case folder, dispatches by hand, random paths of states."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np

from orl.envs.hydrothermal.instance import Dispatch
from orl.envs.hydrothermal.reach import ReachableMap

_SYSTEM = {
    "name": "small",
    "per_unit": True,
    "baseMVA": 100,
    "cost_deficit": 500,
    "bus": {
        "1": {"bus_i": 1, "bus_type": 3, "name": "north  "},
        "2": {"bus_i": 2, "bus_type": 2},
        "10": {"bus_i": 10, "bus_type": 1},
    },
    "gen": {
        "1": {"index": 1, "gen_bus": 1, "pmin": 0, "pmax": 0.5, "cost": [2000, 7], "ncost": 2, "model": 2},
        "2": {"index": 2, "gen_bus": 2, "pmin": 0.1, "pmax": 0.4, "cost": [0, 6000, 0], "ncost": 3, "gen_status": 1},
        "3": {"index": 3, "gen_bus": 10, "pmin": 0, "pmax": 0.3, "cost": [], "ncost": 0},
        "4": {"index": 4, "gen_bus": 10, "pmin": 0, "pmax": 0.3},
        "5": {"index": 5, "gen_bus": 2, "pmin": 0, "pmax": 9, "cost": [1, 0], "ncost": 2, "gen_status": 0},
        "12": {"index": 12, "gen_bus": 2, "pmin": 0, "pmax": 0.2, "cost": [10, 0], "ncost": 2},
    },
    "branch": {
        "1": {"f_bus": 1, "t_bus": 2, "br_r": 0.0033, "br_x": 0.1067, "rate_a": 0.7, "angmin": -1.0, "angmax": 1.0},
        "2": {"f_bus": 2, "t_bus": 10, "br_r": 0.01, "br_x": 0.2, "angmin": -0.5, "angmax": 0.6},
        "3": {"f_bus": 10, "t_bus": 2, "br_r": 0.02, "br_x": 0.2, "rate_a": 0, "angmin": -0.4, "angmax": 0.9, "tap": 1},
        "4": {"f_bus": 1, "t_bus": 10, "br_r": 0.0, "br_x": 0.4, "rate_a": 0.2, "br_status": 0},
    },
    "load": {
        "1": {"load_bus": 1, "pd": 0.3, "status": 1},
        "2": {"load_bus": 1, "pd": 0.2},
        "3": {"load_bus": 10, "pd": 0.4, "status": 1},
        "4": {"load_bus": 2, "pd": 5.0, "status": 0},
    },
    "shunt": {},
    "storage": {},
    "dcline": {},
    "switch": {},
}
_HYDRO = {
    "stage_hours": 730,
    "Hydrogenerators": [
        {
            "index": 7,
            "index_grid": 3,
            "name": "top ",
            "min_volume": 0,
            "max_volume": 50,
            "initial_volume": 9.2e-316,
            "min_turn": 0,
            "max_turn": 30,
            "production_factor": 0.9,
            "spill_cost": 6.1e-316,
            "downstream_turn": [3],
            "downstream_spill": [3],
        },
        {
            "index": 3,
            "index_grid": 12,
            "max_volume": 0,
            "initial_volume": 0,
            "max_turn": 40,
            "production_factor": 0.5,
            "spill_cost": 2.5,
            "downstream_turn": [40],
        },
        {"index": 40, "index_grid": 4, "max_volume": 12, "initial_volume": 4, "max_turn": 9, "production_factor": 1.1},
    ],
}
INFLOWS = "10,20,1,2,0.5,0.25\n5,8,0.5,1,0,1e-1\n"
PROBABILITIES = "0.25,0.75\n0.5,0.5\n"


def small_case():
    """System, hydro plants, inflows and probabilities of a case with every peculiarity that is allowed."""
    return copy.deepcopy(_SYSTEM), copy.deepcopy(_HYDRO), INFLOWS, PROBABILITIES


def write_case(folder, case=None):
    """Write the files of a case; a part None is left out."""
    system, hydro, inflows, probabilities = small_case() if case is None else case
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "PowerModels.json": None if system is None else json.dumps(system),
        "hydro.json": None if hydro is None else json.dumps(hydro),
        "inflows.csv": inflows,
        "scenarioprobability.csv": probabilities,
    }
    for name, text in parts.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def one_bus_dispatch(instance, fractions):
    """A feasible dispatch of a copper-plate scenario: volumes at ``fractions`` [T, n], cheapest plants first."""
    assert instance.network == "copper"
    reach = ReachableMap(instance)
    inflows = instance.path_inflows(instance.columns)
    volumes, turbined, spilled = [instance.initial_volume], [], []
    for t in range(instance.horizon):
        step = reach(volumes[-1][None], inflows[t][None], fractions[t][None])
        q, s = reach.releases(step.release)
        volumes.append(step.volumes[0])
        turbined.append(q[0])
        spilled.append(s[0])
    turbined = np.array(turbined)
    power = np.tile(instance.min_power, (instance.horizon, 1))
    power[:, instance.plant_generator] = turbined * instance.production_factor / instance.base_mva
    thermal = np.setdiff1d(np.arange(instance.n_generators), instance.plant_generator)
    deficit = np.zeros((instance.horizon, instance.n_buses))
    surplus = deficit.copy()
    for t in range(instance.horizon):
        missing = instance.stage_demand(t).sum() - power[t].sum()
        for g in thermal[np.argsort(instance.generator_costs[thermal], kind="stable")]:
            more = np.clip(missing, 0, instance.max_power[g] - power[t, g])
            power[t, g] += more
            missing -= more
        deficit[t, 0], surplus[t, -1] = max(missing, 0), max(-missing, 0)
    return Dispatch(
        instance.columns,
        np.array(volumes),
        turbined,
        np.array(spilled),
        power,
        deficit,
        surplus,
        np.zeros((instance.horizon, instance.n_branches)),
        np.zeros((instance.horizon, instance.n_buses)),
    )


def part_of(dispatch, stages):
    """The first stages of a dispatch."""
    names = ("columns", "turbined", "spilled", "power", "deficit", "surplus", "flows", "angles")
    cut = {name: getattr(dispatch, name)[:stages] for name in names}
    return replace(dispatch, volumes=dispatch.volumes[: stages + 1], **cut)
