"""The states of a small lot-sizing problem as arrays: stock levels by item, times set-ups of all machines.

A set-up of all machines is also what they may do in a period, so one list numbers both: ``setups`` int64[S, M], all
idle first, the last machine counting fastest. A function of the state is an array [S, n_1, ..., n_I] whose axis i runs
over the stock levels of item i, from ``-max_backlog[i]`` to ``max_inventory[i]``. After action a the post-decision
stock of item i lies on ``post_sizes[a, i]`` levels from ``post_lowest[a, i]``; levels that no decision reaches have no
place in memory.

    >>> from orl.envs.lot_sizing.demand import independent
    >>> from orl.envs.lot_sizing.instance import LotSizingInstance
    >>> import numpy as np
    >>> one_item = LotSizingInstance(
    ...     "one item", 3, np.array([[3]]), np.array([[[1.0], [0.0]]]), np.array([[[1], [0]]]), np.array([0.1]),
    ...     np.array([2.0]), np.array([5]), np.array([0]), np.array([0]), independent([([0, 1], [0.5, 0.5])]),
    ...     np.array([0.0]), np.array([0]))
    >>> space = StateSpace(one_item)
    >>> space.n_states, space.setups.tolist(), space.post_sizes.tolist()
    (12, [[0], [1]], [[6], [9]])
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Incompatible, Integers, LotSizingInstance
from orl.envs.lot_sizing.transition import decide

Move = tuple[float, tuple[slice, ...], Integers]
"""Cost of an action, the slice of its post-decision array that the current stocks reach, and from which set-ups."""


class StateSpace:
    """All states and decisions of an instance, numbered.

    Args:
        instance: The problem; its ``demand_path``, if any, is not read.
        incompatible: What a machine does when it is told an item that it cannot make; with ``mask`` such actions are
            no actions of their own (they are idling), otherwise every machine may be told every item.
        memory_limit: Largest number of bytes that ``copies`` arrays over the states, and the post-decision arrays of
            one period, may take.
        copies: How many float64 arrays over all states the caller is going to keep.

    Attributes:
        lowest: int64[I], the least stock (0, or minus the largest backlog).
        sizes: Number of stock levels of each item.
        setups: int64[S, M], see above.
        moves: For each action a, the different ways to come to it (:data:`Move`).

    Raises:
        InputError: The state space is too large.
    """

    def __init__(
        self,
        instance: LotSizingInstance,
        incompatible: Incompatible = "mask",
        memory_limit: int = 2**31,
        copies: float = 2.0,
    ) -> None:
        self.instance, self.incompatible = instance, incompatible
        self.lowest: Integers = -np.asarray(instance.max_backlog, np.int64)
        self.sizes = tuple(int(n) for n in instance.max_inventory + instance.max_backlog + 1)
        able = instance.production > 0 if incompatible == "mask" else np.ones_like(instance.production, np.bool_)
        self._options = [np.flatnonzero(np.append(True, row)) for row in able]
        self.n_setups = math.prod(map(len, self._options))
        self.n_states = self.n_setups * math.prod(self.sizes)
        largest = instance.production.max(0, initial=0) * instance.n_machines
        post_states = self.n_setups * math.prod(n + int(more) for n, more in zip(self.sizes, largest, strict=True))
        pairs = self.n_setups**2 * (instance.n_items + instance.n_machines)
        self._refuse_if_too_large(
            8.0 * (copies * self.n_states + min(post_states, 8 * self.n_states) + pairs), memory_limit
        )

        grid = np.meshgrid(*self._options, indexing="ij")
        self.setups: Integers = np.stack([g.ravel() for g in grid], -1).astype(np.int64)
        self._place = np.full((instance.n_machines, instance.n_items + 1), -1)
        stride = self.n_setups
        for m, items in enumerate(self._options):
            stride //= len(items)
            self._place[m, items] = np.arange(len(items)) * stride
        self._tabulate_moves()

    def _refuse_if_too_large(self, needed: float, limit: int) -> None:
        if needed > limit:
            raise InputError(
                "the state space is too large for exact dynamic programming",
                source=self.instance.name,
                field="memory_limit",
                value=f"{self.n_states:.3g} states, {needed:.3g} bytes",
                expected=f"at most {limit:.3g} bytes",
            )

    def _tabulate_moves(self) -> None:
        n, (n_machines, n_items) = self.n_setups, self.instance.production.shape
        before = np.broadcast_to(self.setups[:, None], (n, n, n_machines))
        actions = np.broadcast_to(self.setups[None], (n, n, n_machines))
        nothing = np.zeros((n, n, n_items), np.int64)
        made, after, cost = decide(self.instance, nothing, before, actions, self.incompatible)
        if not np.array_equal(after, actions):
            raise InputError("an action leads to another set-up", source=self.instance.name, field="incompatible")
        least = np.minimum(made.min(0), 0)
        self.post_lowest: Integers = self.lowest + least
        self.post_sizes: Integers = np.array(self.sizes) + np.maximum(made.max(0), 0) - least
        self.moves: list[list[Move]] = []
        for a in range(n):
            rows = np.concatenate([cost[:, a, None], made[:, a]], axis=1)
            ways, member = np.unique(rows, axis=0, return_inverse=True)
            begin = ways[:, 1:].astype(np.int64) - least[a]
            reached = [tuple(slice(int(b), int(b) + k) for b, k in zip(row, self.sizes, strict=True)) for row in begin]
            self.moves.append(
                [(float(way[0]), reached[w], np.flatnonzero(member.ravel() == w)) for w, way in enumerate(ways)]
            )

    # ---- numbers of states ---------------------------------------------------------------------------------------
    def setup_index(self, setup: npt.ArrayLike) -> Integers:
        """Number int64[...] of set-ups (or actions) int64[..., M].

        Raises:
            InputError: A machine has an item that it cannot make.
        """
        setup = np.asarray(setup, np.int64)
        places = self._place[np.arange(self.instance.n_machines), setup]
        if places.size and places.min() < 0:
            bad = setup[(places < 0).any(-1)][0]
            raise InputError(
                "a machine is set up for an item that it cannot make",
                source=self.instance.name,
                field="setup",
                value=bad.tolist(),
            )
        return np.asarray(places.sum(-1), np.int64)

    def index(self, inventory: npt.ArrayLike, setup: npt.ArrayLike) -> tuple[Integers, ...]:
        """Where states stand in an array over the states: inventory int64[..., I], set-up int64[..., M].

        Raises:
            InputError: A stock outside its levels, or a set-up that a machine cannot have.
        """
        level = np.asarray(inventory, np.int64) - self.lowest
        if level.size and ((level < 0) | (level >= np.array(self.sizes))).any():
            raise InputError(
                "stock outside its levels",
                source=self.instance.name,
                field="inventory",
                value=(level + self.lowest)[((level < 0) | (level >= np.array(self.sizes))).any(-1)][0].tolist(),
                expected=f"{self.lowest.tolist()} to {self.instance.max_inventory.tolist()}",
            )
        return (self.setup_index(setup), *np.moveaxis(level, -1, 0))

    def states(self) -> tuple[Integers, Integers]:
        """Inventory int64[S * n_1 * ... * n_I, I] and set-up int64[..., M] of all states, in memory order."""
        levels = [np.arange(k) + low for k, low in zip(self.sizes, self.lowest, strict=True)]
        stock = np.stack([g.ravel() for g in np.meshgrid(*levels, indexing="ij")], -1)
        return np.tile(stock, (self.n_setups, 1)), np.repeat(self.setups, len(stock), axis=0)

    def array(self, dtype: Any = np.float64, fill: float = 0.0) -> npt.NDArray[Any]:
        """A new array over the states."""
        return np.full((self.n_setups, *self.sizes), fill, dtype)

    def initial_mean(self, values: Floats) -> float:
        """Mean of a function of the state over the random start: stock uniform on 0..max_inventory-1, machines ready.

        The distribution is that of :func:`orl.envs.lot_sizing.scenario.initial_state` with ``init="random"``.
        """
        ready = np.ones(self.n_setups, np.bool_)
        for m, row in enumerate(self.instance.production):
            items = np.flatnonzero(row > 0) + 1
            ready &= np.isin(self.setups[:, m], items if len(items) else [0])
        chosen = values[ready].mean(0)
        for k, low, top in zip(self.sizes, self.lowest, self.instance.max_inventory, strict=True):
            chosen = chosen[-low : min(k, max(int(top), 1) - low)].mean(0)
        return float(chosen)
