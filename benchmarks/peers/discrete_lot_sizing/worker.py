"""SimplePlant of discrete_lot_sizing_rl_agents, one JSON request a line.

``{"op": "load", "settings": {...}, "copies": int}``
    ``settings`` in the authors' format; ``versions``, ``build``.
``{"op": "replay", "inventory": int[I], "setup": int[M], "demand": int[T][I], "actions": int[T][M]}``
    ``inventory`` int[T][I] after each period and ``costs`` float[T][3] (set-up, lost sales, holding).
``{"op": "run", "seconds": float, "actions": int[K][N][M]}``
    Step the N copies in turn with these actions, over and over, for that many CPU-seconds, resetting at the end of
    episodes: ``steps``, ``cpu_seconds``, ``wall_seconds``, ``peak_memory_mb``.
"""

import importlib.metadata
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from serve import ANSWERS, peak_memory_mb
from setup import source

sys.path.insert(0, str(source("discrete_lot_sizing")))

# isort: split
import numpy as np
from envs.simplePlant import SimplePlant  # noqa: TID251  (the peer's own package of that name)
from scenarioManager import StochasticDemandModel


def load(settings: dict[str, Any], copies: int) -> list[Any]:
    """The copies, each with lists of its own: SimplePlant writes into those that it is given."""
    plants = [json.loads(json.dumps(settings)) for _ in range(copies)]
    return [SimplePlant(own, StochasticDemandModel(own)) for own in plants]


def replay(plant: Any, inventory: Any, setup: Any, demand: Any, actions: Any) -> dict[str, Any]:
    plant.reset()
    plant.inventory_level, plant.machine_setup = list(inventory), list(setup)
    plant.scenario_demand = np.array([*demand, demand[-1]]).T
    plant.demand = plant.scenario_demand[:, 0]
    levels, costs = [], []
    for action in actions:
        _, _, _, info = plant.step(action)
        levels.append([int(level) for level in plant.inventory_level])
        costs.append([float(info[key]) for key in ("setup_costs", "lost_sales", "holding_costs")])
    return {"inventory": levels, "costs": costs}


def run(plants: list[Any], seconds: float, actions: list[Any]) -> dict[str, Any]:
    for plant in plants:
        plant.reset()
    steps, clock = 0, time.process_time
    wall, start = time.perf_counter(), clock()
    while clock() - start < seconds:
        for chosen in actions:
            for plant, action in zip(plants, chosen, strict=True):
                if plant.step(action)[2]:
                    plant.reset()
            steps += len(plants)
    return {
        "steps": steps,
        "cpu_seconds": clock() - start,
        "wall_seconds": time.perf_counter() - wall,
        "peak_memory_mb": peak_memory_mb(),
    }


def main() -> None:
    plants: list[Any] = []
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        if op == "load":
            np.random.seed(0)  # noqa: NPY002  (the peer draws from numpy's global state)
            plants = load(**request)
            packages = ("gym", "numpy")
            versions = {package: importlib.metadata.version(package) for package in packages}
            answer = {"build": "plain Python", "versions": {"python": platform.python_version()} | versions}
        elif op == "replay":
            answer = replay(plants[0], **request)
        elif op == "run":
            answer = run(plants, **request)
        else:
            raise ValueError(f"unknown request {op!r}")
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


if __name__ == "__main__":
    main()
