"""Scenarios: the start and the demand path that a seed stands for; replays and checks of plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.utils.seeding import np_random

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.common.problem import Check
from orl.envs.lot_sizing.instance import Floats, Incompatible, Init, Integers, LotSizingInstance, LotSizingPlan
from orl.envs.lot_sizing.transition import decide, realise

MAX_UNITS = 2**40  # far above every limit of an instance, far below an overflow
_SHOWN = 12  # violations of one kind that are told


def initial_state(instance: LotSizingInstance, key: Any, init: Init = "random") -> tuple[Integers, Integers]:
    """Inventory int64[..., I] and set-up int64[..., M] at the start of episodes with keys uint64[...].

    ``random``: stock of item i uniform on 0..max_inventory[i]-1 (0 if that is empty), each machine set up for a uniform
    one of the items that it can make (idle if there is none). Noise counters: t = 0, items 0..I-1 for the stock,
    I..I+M-1 for the machines. ``fixed``, and every scenario: the instance's own start.
    """
    key = np.asarray(key, np.uint64)[..., None]
    shape = key.shape[:-1]
    if init == "fixed" or instance.demand_path is not None:
        start = (instance.initial_inventory, instance.initial_setup)
        return tuple(np.broadcast_to(a, (*shape, len(a))).copy() for a in start)  # type: ignore[return-value]
    n_items, machines = instance.n_items, np.arange(instance.n_machines)
    stock = counter_noise.integers(np.maximum(instance.max_inventory, 1), key, 0, np.arange(n_items))
    counts = (instance.production > 0).sum(1)
    choice = counter_noise.integers(np.maximum(counts, 1), key, 0, n_items + machines)
    order = np.argsort(instance.production == 0, axis=1, kind="stable")  # the items that a machine can make come first
    setup = np.where(counts > 0, order[machines, choice] + 1, 0)
    return stock, setup


def demand_path(instance: LotSizingInstance, key: Any) -> Integers:
    """Demand int64[..., T, I] of whole episodes; a scenario's own path."""
    key = np.asarray(key, np.uint64)
    if instance.demand_path is not None:
        return np.broadcast_to(instance.demand_path, (*key.shape, *instance.demand_path.shape)).copy()
    return instance.demand.draw(key[..., None], np.arange(instance.horizon))


def draw_scenario(instance: LotSizingInstance, seed: int, init: Init = "random") -> LotSizingInstance:
    """The scenario of a seed: see :meth:`LotSizingInstance.scenario`; a scenario is its own for every seed."""
    if instance.demand_path is not None:
        return instance
    key = counter_noise.draw_key(np_random(seed)[0])
    inventory, setup = initial_state(instance, key, init)
    return replace(
        instance,
        name=f"{instance.name}/scenario-{seed}" + ("-fixed" if init == "fixed" else ""),
        initial_inventory=inventory,
        initial_setup=setup,
        demand_path=demand_path(instance, key),
    )


def require_demand_path(instance: LotSizingInstance) -> Integers:
    """The demand path int64[T, I] of a scenario. Raises InputError for an instance whose demand is random."""
    if instance.demand_path is None:
        raise InputError(
            "the demand is random",
            source=instance.name,
            field="demand_path",
            expected="a scenario: instance.scenario(seed), by name NAME/scenario-SEED",
        )
    return instance.demand_path


def replay(
    instance: LotSizingInstance, plan: LotSizingPlan, incompatible: Incompatible = "mask"
) -> tuple[Integers, Floats]:
    """Inventory int64[T + 1, I] and cost float64[T, 3] (set-up, lost sales, holding and backlog) of a plan."""
    inventory, setup = plan.initial_inventory, plan.initial_setup
    levels, costs = [inventory], []
    for action, demand in zip(plan.actions, plan.demand, strict=True):
        post, setup, setup_cost = decide(instance, inventory, setup, action, incompatible)
        inventory, _, lost_cost, holding_cost = realise(instance, post, demand)
        levels.append(inventory)
        costs.append([float(setup_cost), float(lost_cost), float(holding_cost)])
    return np.array(levels), np.array(costs)


def check_plan(instance: LotSizingInstance, plan: LotSizingPlan) -> Check:
    """See :meth:`LotSizingInstance.check`. The objective is the total cost; None where it cannot be computed."""
    horizon, n_items, n_machines = instance.horizon, instance.n_items, instance.n_machines
    shapes = {
        "actions": (horizon, n_machines),
        "demand": (horizon, n_items),
        "initial_inventory": (n_items,),
        "initial_setup": (n_machines,),
    }
    arrays = {name: np.asarray(getattr(plan, name)) for name in shapes}
    broken = tuple(
        f"{name}: expected integers {list(shape)}, got {arrays[name].dtype}{list(arrays[name].shape)}"
        for name, shape in shapes.items()
        if arrays[name].shape != shape or arrays[name].dtype.kind not in "iu"
    )
    if broken:
        return Check(False, None, broken)
    broken = tuple(
        f"{name}{list(map(int, where))}: {arrays[name][tuple(where)]} is not in {low}..{high}"
        for name, low, high in (
            ("actions", 0, n_items),
            ("initial_setup", 0, n_items),
            ("demand", 0, MAX_UNITS),
            ("initial_inventory", -MAX_UNITS, MAX_UNITS),
        )
        for where in np.argwhere((arrays[name] < low) | (arrays[name] > high))[:_SHOWN]
    )
    if broken:
        return Check(False, None, broken)
    actions, demand, inventory, setup = (array.astype(np.int64) for array in arrays.values())
    _, costs = replay(instance, LotSizingPlan(actions, demand, inventory, setup))
    violations = (
        *_unable(instance, actions),
        *_start(instance, inventory, setup),
        *_impossible_demand(instance, demand),
    )
    objective = float(costs.sum(0).sum())  # each kind of cost period by period, as the kernel adds
    return Check(not violations, objective, violations)


def _unable(instance: LotSizingInstance, actions: Integers) -> list[str]:
    """Machines told an item that they cannot make."""
    machine = np.arange(instance.n_machines)
    unable = (actions > 0) & (instance.production[machine, np.maximum(actions - 1, 0)] == 0)
    return [
        f"period {t}: machine {m + 1} cannot make item {actions[t, m]}"
        for t, m in np.argwhere(unable)[:_SHOWN].tolist()
    ]


def _start(instance: LotSizingInstance, inventory: Integers, setup: Integers) -> list[str]:
    """A start that is not the scenario's, or that breaks the limits of the stock."""
    if instance.demand_path is not None:
        pairs = (
            ("initial_inventory", inventory, instance.initial_inventory),
            ("initial_setup", setup, instance.initial_setup),
        )
        return [
            f"{name}[{k}] is {given[k]}, the scenario starts with {own[k]}"
            for name, given, own in pairs
            for k in np.flatnonzero(given != own)[:_SHOWN].tolist()
        ]
    outside = (inventory < -instance.max_backlog) | (inventory > instance.max_inventory)
    return [
        f"initial_inventory[{i}] is {inventory[i]}, outside {-instance.max_backlog[i]}..{instance.max_inventory[i]}"
        for i in np.flatnonzero(outside)[:_SHOWN].tolist()
    ]


def _impossible_demand(instance: LotSizingInstance, demand: Integers) -> list[str]:
    """Demand that is not the scenario's, or that has probability 0."""
    if instance.demand_path is not None:
        wrong = np.argwhere(demand != instance.demand_path)[:_SHOWN].tolist()
        return [
            f"period {t}: demand of item {i + 1} is {demand[t, i]}, the scenario has {instance.demand_path[t, i]}"
            for t, i in wrong
        ]
    sentences = []
    for t in range(instance.horizon):
        values, probabilities = instance.demand.table(t)
        possible = ((values == demand[t, :, None]) & (probabilities > 0)).any(-1)
        sentences += [
            f"period {t}: demand {demand[t, i]} of item {i + 1} has probability 0"
            for i in np.flatnonzero(~possible).tolist()
        ]
        if len(sentences) >= _SHOWN:
            break
    return sentences[:_SHOWN]
