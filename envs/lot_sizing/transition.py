"""One period in numpy, with any leading axes: the decision, then demand. The compiled kernel is tested against this.

Every array has the same leading shape B (``()`` for one copy); money is float64, units are int64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Incompatible, Integers, LotSizingInstance


def decide(
    instance: LotSizingInstance,
    inventory: Integers,
    setup: Integers,
    actions: Integers,
    incompatible: Incompatible = "mask",
) -> tuple[Integers, Integers, Floats]:
    """The deterministic half of a period.

    Args:
        instance: The problem.
        inventory: int64[B, I] (negative: backlog).
        setup: int64[B, M], 0 idle.
        actions: int64[B, M], 0 idle, i runs item i.
        incompatible: What happens when a machine is told an item that it cannot make: ``mask``: it idles; ``waste``:
            it pays the change-over and makes nothing; ``reference``: as the authors' code, the loss of a change-over
            is taken from the stock (also where the loss exceeds the production).

    Returns:
        Post-decision inventory int64[B, I] (not capped), new set-up int64[B, M], set-up cost float64[B].
    """
    inventory, setup, actions = (np.asarray(a, np.int64) for a in (inventory, setup, actions))
    if actions.size and (actions.min() < 0 or actions.max() > instance.n_items):
        raise InputError("no such item", field="actions", value=actions.tolist(), expected=f"0..{instance.n_items}")
    machine = np.arange(instance.n_machines)
    item = np.maximum(actions - 1, 0)
    production = instance.production[machine, item]
    if incompatible == "mask":
        actions = np.where(production > 0, actions, 0)
    running = actions > 0
    loss = instance.setup_loss[machine, setup, item]
    made = production - loss if incompatible == "reference" else np.maximum(production - loss, 0)
    cost = np.where(running, instance.setup_costs[machine, setup, item], 0.0)
    post = inventory.copy()
    total = np.zeros(cost.shape[:-1])
    for m in range(instance.n_machines):  # machine by machine, as the compiled kernel adds
        amount = np.where(running[..., m], made[..., m], 0)
        post = post + amount[..., None] * (np.arange(instance.n_items) == item[..., m, None])
        total = total + cost[..., m]
    return post, actions, total


def realise(
    instance: LotSizingInstance, post_inventory: Integers, demand: Integers
) -> tuple[Integers, Integers, Floats, Floats]:
    """The random half of a period, given its demand.

    Returns:
        Inventory int64[B, I] at the end of the period, lost units int64[B, I], lost-sales cost float64[B], holding
        (and backlog) cost float64[B].
    """
    left = np.asarray(post_inventory, np.int64) - np.asarray(demand, np.int64)
    lost = np.maximum(-left - instance.max_backlog, 0)
    inventory = np.clip(left, -instance.max_backlog, instance.max_inventory)
    lost_cost: npt.NDArray[np.float64] = np.zeros(inventory.shape[:-1])
    holding_cost: npt.NDArray[np.float64] = np.zeros(inventory.shape[:-1])
    for i in range(instance.n_items):  # item by item, as the compiled kernel adds
        stock = inventory[..., i]
        lost_cost = lost_cost + instance.lost_sales_costs[i] * lost[..., i]
        holding_cost = holding_cost + (
            instance.holding_costs[i] * np.maximum(stock, 0) + instance.backlog_costs[i] * np.maximum(-stock, 0)
        )
    return inventory, lost, lost_cost, holding_cost
