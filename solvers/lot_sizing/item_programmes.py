"""One item alone on its machines under random demand: exact dynamic programmes for the relaxation of the machines.

State: stock of the item and the set of machines that are set up for it. A period asks the machines one after the other
whether they run the item, so a period costs (machines x states) steps and never enumerates pairs of sets; then demand
comes. Stock above ``max_inventory`` plus the largest demand is cut, which changes nothing: what remains after demand is
cut at ``max_inventory`` anyway.

The set of machines is exact as long as there are few machines (``EXACT_MACHINES``). Beyond that only sets of at most r
machines are told apart. An item that runs on more than r machines in a period enters the state ALL, in which every
machine counts as set up *and* may, for nothing, make as much or as little as after any change-over. ALL allows whatever
the true state allows at no higher cost (set-up costs are not negative), and from it the item goes on to the true set as
soon as it runs on at most r machines. So values are at most the exact ones: a relaxation, and a mild one, because more
than r machines at once have to be paid for first.

Change-overs that depend on the item before are relaxed in the same way: a change-over may choose among the pairs (units
made, cost) that any item before would give, of equal units the cheapest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.kernel_cache import drop_stale_kernels
from orl.envs.lot_sizing.instance import Floats, Init, Integers, LotSizingInstance

drop_stale_kernels()

EXACT_MACHINES = 5  # with so many machines of an item all sets are told apart,
PAIRS_MACHINES = 16  # with so many all sets of two; 25 items on 10 machines lose a hundredth of a percent by that
LARGEST_TABLE = 2**29  # choices of one item: bytes
NEGLIGIBLE = 1e-12  # probability that the forward pass may drop from a state; only machine use reads it
ALL = -1
_UNSET, _SET, _FREE = 0, 1, 2  # what a machine is for the item: to be changed over, set up, in the state ALL


@dataclass(frozen=True, eq=False)
class MachineSets:
    """Sets of machines before, within and after a period's decisions.

    Stage m of 0..k is reached when machines 0..m-1 have decided: they count as they are now, the others as they were.

    Attributes:
        sets: Set number s at the beginning (stage 0) and end (stage k) of a period as a bit mask, or ALL.
        counts: int64[k + 1], states of each stage.
        idle: int64[k, S], state of stage m + 1 when machine m idles, and
        run: int64[k, S], when it runs.
        status: int64[k, S], what machine m is in a state of stage m (0 to be changed over, 1 set up, 2 free).
    """

    sets: tuple[int, ...]
    counts: Integers
    idle: Integers
    run: Integers
    status: Integers

    def number(self, mask: int) -> int:
        """State of a set of machines."""
        return self.sets.index(mask) if mask in self.sets else self.sets.index(ALL)


@cache
def machine_sets(n_machines: int, most: int) -> MachineSets:
    """The sets of at most ``most`` of ``n_machines`` machines, and ALL where there are larger ones.

    >>> machine_sets(2, 2).sets
    (0, 1, 2, 3)
    >>> machine_sets(3, 1).sets
    (0, 1, 2, 4, -1)
    """
    masks = [b for b in range(1 << n_machines) if b.bit_count() <= most] + [ALL] * (n_machines > most)
    stages: list[dict[tuple[int, int], int]] = [{(0, b): s for s, b in enumerate(masks)}]
    moves: list[tuple[list[int], list[int], list[int]]] = []
    for m in range(n_machines):
        bit, last = 1 << m, m + 1 == n_machines
        following: dict[tuple[int, int], int] = {(b, 0): s for s, b in enumerate(masks)} if last else {}
        idle, run, status = [], [], []
        for now, before in stages[-1]:
            rest = (0 if last else ALL) if before == ALL else before & ~bit
            more = ALL if now == ALL or (now | bit).bit_count() > most else now | bit
            idle.append(following.setdefault((now, rest), len(following)))
            run.append(following.setdefault((more, rest), len(following)))
            status.append(_FREE if before == ALL else _SET if before & bit else _UNSET)
        stages.append(following)
        moves.append((idle, run, status))
    counts = np.array([len(stage) for stage in stages])
    tables = np.zeros((3, n_machines, counts.max()), np.int64)
    for m, lists in enumerate(moves):
        tables[:, m, : counts[m]] = lists
    return MachineSets(tuple(masks), counts, *tables)


class ItemProgramme:
    """The dynamic programme of one item, ready for any prices of the machines.

    Args:
        instance: The problem; a demand path is ignored.
        i: The item, from 0.
        most: Largest number of machines whose sets are told apart; None: all, 2 or 1, by how many there are.

    Raises:
        InputError: The tables would be too large.
    """

    def __init__(self, instance: LotSizingInstance, i: int, most: int | None = None) -> None:
        self.index, self.horizon = i, instance.horizon
        self.machines = np.flatnonzero(instance.production[:, i] > 0)
        k = len(self.machines)
        self.sets = machine_sets(k, _most_told_apart(k) if most is None else min(most, k))
        self.low, self.high = -int(instance.max_backlog[i]), int(instance.max_inventory[i])
        self.demand: Integers = instance.demand.values[:, i].copy()
        self.probabilities: Floats = instance.demand.probabilities[:, i].copy()
        largest = int(self.demand[self.probabilities > 0].max())
        reach = max(self.high, int(instance.initial_inventory[i])) + int(instance.production[:, i].sum())
        self.levels = min(self.high + largest, reach) - self.low + 1
        size = self.horizon * k * int(self.sets.counts.max()) * self.levels
        if size > LARGEST_TABLE:
            raise InputError(
                "the dynamic programme of an item is too large",
                source=instance.name,
                field=f"horizon, production and max_inventory of item {i + 1}",
                value=f"{size / 2**20:.0f} MiB",
                expected=f"at most {LARGEST_TABLE >> 20} MiB",
            )
        self.options = _options(instance, i, self.machines)
        self.stage = np.stack([self._stage_cost(instance, row) for row in range(len(self.demand))])

    def _stage_cost(self, instance: LotSizingInstance, row: int) -> Floats:
        """Expected cost float64[levels] of a period from its stock after production."""
        left = np.arange(self.levels)[:, None] + self.low - self.demand[row]
        stock = np.clip(left, self.low, self.high)
        cost = (
            instance.lost_sales_costs[self.index] * np.maximum(self.low - left, 0)
            + instance.holding_costs[self.index] * np.maximum(stock, 0)
            + instance.backlog_costs[self.index] * np.maximum(-stock, 0)
        )
        expected: Floats = cost @ self.probabilities[row]
        return expected

    def start(self, instance: LotSizingInstance, init: Init) -> Floats:
        """Distribution float64[S, levels] of set-ups and stock at the start of an episode.

        The random start is the environment's: stock uniform on 0..max_inventory-1 and, independently, every machine
        uniform over what it can make.
        """
        mass = np.zeros((len(self.sets.sets), self.levels))
        if init == "fixed":
            ready = instance.initial_setup[self.machines] == self.index + 1
            mask = int((ready << np.arange(len(self.machines))).sum())
            stock_level = min(int(instance.initial_inventory[self.index]) - self.low, self.levels - 1)
            mass[self.sets.number(mask), stock_level] = 1.0
            return mass
        chance = 1.0 / (instance.production[self.machines] > 0).sum(1)
        stock = slice(-self.low, -self.low + max(self.high, 1))
        others = 1.0
        for s, mask in enumerate(self.sets.sets):  # ALL is the last one, if it is there
            ready = (mask >> np.arange(len(self.machines)) & 1).astype(np.bool_)
            weight = others if mask == ALL else float(np.where(ready, chance, 1.0 - chance).prod())
            others -= weight
            mass[s, stock] = max(weight, 0.0) / max(self.high, 1)
        return mass

    def solve(self, prices: Floats, start: Floats) -> tuple[float, Floats]:
        """Least expected cost from a start with prices float64[T, M], and the expected use of machines float64[T, M].

        The use is that of an optimal policy, up to probabilities of ``NEGLIGIBLE``; it is a supergradient of the cost
        as a function of the prices.
        """
        sets = self.sets
        choice = np.empty((self.horizon, len(self.machines), int(sets.counts.max()), self.levels), np.uint8)
        value = self._backward(prices, choice, np.empty((0, 0, 0), np.float32))
        mine = _use(
            choice, sets.counts, sets.idle, sets.run, sets.status, self.options[0],
            self.demand, self.probabilities, self.high - self.low, start, NEGLIGIBLE,
        )  # fmt: skip
        use = np.zeros((self.horizon, prices.shape[1]))
        use[:, self.machines] = mine
        return float((start * value).sum()), use

    def values(self, prices: Floats) -> tuple[Floats, npt.NDArray[np.float32]]:
        """Cost from every state at the start, float64[S, levels], and after every period's decision, float32[T, S,
        levels]: with the costs of that period's demand, without the prices of that period."""
        post = np.empty((self.horizon, len(self.sets.sets), self.levels), np.float32)
        return self._backward(prices, np.empty((0, 0, 0, 0), np.uint8), post), post

    def _backward(self, prices: Floats, choice: npt.NDArray[np.uint8], post: npt.NDArray[np.float32]) -> Floats:
        value: Floats = _solve(
            np.ascontiguousarray(prices[:, self.machines]), self.sets.counts, self.sets.idle, self.sets.run,
            self.sets.status, *self.options, self.stage, self.demand, self.probabilities, self.high - self.low,
            choice, post,
        )  # fmt: skip
        return value


def item_programmes(instance: LotSizingInstance, most: int | None = None) -> list[ItemProgramme]:
    """The dynamic programmes of all items."""
    return [ItemProgramme(instance, i, most) for i in range(instance.n_items)]


def _most_told_apart(n_machines: int) -> int:
    """Largest number of machines of a set: all where there are few, else 2, with very many 1."""
    return n_machines if n_machines <= EXACT_MACHINES else 2 if n_machines <= PAIRS_MACHINES else 1


def _options(instance: LotSizingInstance, i: int, machines: Integers) -> tuple[Integers, Floats, Integers]:
    """Units int64[k, 3, O] and cost float64[k, 3, O] of the ways to run a machine by its status; how many int64[k, 3].

    Status 0: change-overs from idle and from everything else that the machine may be set up for; 1: going on; 2: any of
    them for nothing. Of equal units the cheapest is kept, of equal costs and units one.
    """
    found = [list(_change_overs(instance, i, m)) for m in machines.tolist()]
    made = np.zeros((len(machines), 3, 1 + max(map(len, found), default=0)), np.int64)
    cost, count = np.zeros(made.shape), np.ones((len(machines), 3), np.int64)
    for place, (m, changes) in enumerate(zip(machines.tolist(), found, strict=True)):
        going = int(instance.production[m, i])
        changed = {units: min(c for u, c in changes if u == units) for units, _ in changes}
        ways: list[dict[int, float]] = [changed, {going: 0.0}, {going: 0.0, **dict.fromkeys(changed, 0.0)}]
        for status, way in enumerate(ways):
            count[place, status] = len(way)
            made[place, status, : len(way)] = list(way)
            cost[place, status, : len(way)] = list(way.values())
    return made, cost, count


def _change_overs(instance: LotSizingInstance, i: int, m: int) -> Iterator[tuple[int, float]]:
    before = {0, int(instance.initial_setup[m]), *(np.flatnonzero(instance.production[m] > 0) + 1).tolist()} - {i + 1}
    for j in sorted(before):
        units = max(int(instance.production[m, i] - instance.setup_loss[m, j, i]), 0)
        yield units, float(instance.setup_costs[m, j, i])


# ---- kernels ---------------------------------------------------------------------------------------------------------
@numba.njit(cache=True, nogil=True)
def _solve(  # type: ignore[no-untyped-def]
    price, counts, idle, run, status, made, cost, n_options, stage, demand, probabilities, height, choice, post
):
    """Cost float64[S, levels] of the states at the start. ``choice`` [T, k, S, levels] (unless empty) is filled with 0
    idle or 1 + option; ``post`` [T, S, levels] (unless empty) with values after the decision. ``height``: levels of
    stock after demand, less one. Rows of a table are runs over stock, so inner loops are shifted copies."""
    n_periods, n_machines = price.shape
    n_levels = stage.shape[1]
    last = n_levels - 1
    table = np.zeros((counts.max(), n_levels))
    other = np.zeros_like(table)
    for t in range(n_periods - 1, -1, -1):
        row = t if len(demand) > 1 else 0
        for s in range(counts[n_machines]):
            into, ahead = other[s], table[s]
            for q in range(n_levels):
                into[q] = stage[row, q]
            for n in range(demand.shape[1]):
                d, p = demand[row, n], probabilities[row, n]
                if p > 0.0:
                    first, end = min(d, n_levels), min(d + height + 1, n_levels)
                    lowest, highest = p * ahead[0], p * ahead[height]
                    for q in range(first):
                        into[q] += lowest
                    for q in range(first, end):
                        into[q] += p * ahead[q - d]
                    for q in range(end, n_levels):
                        into[q] += highest
            if len(post):
                for q in range(n_levels):
                    post[t, s, q] = into[q]
        table, other = other, table
        for m in range(n_machines - 1, -1, -1):
            for s in range(counts[m]):
                into, resting, running = other[s], table[idle[m, s]], table[run[m, s]]
                kind = status[m, s]
                for q in range(n_levels):
                    into[q] = resting[q]
                if len(choice):
                    for q in range(n_levels):
                        choice[t, m, s, q] = 0
                for n in range(n_options[m, kind]):
                    up, extra = made[m, kind, n], price[t, m] + cost[m, kind, n]
                    inside = max(n_levels - up, 0)
                    top = extra + running[last]
                    if len(choice):
                        chosen = choice[t, m, s]
                        for q in range(inside):
                            ran = extra + running[q + up]
                            better = ran < into[q]
                            into[q] = ran if better else into[q]
                            chosen[q] = n + 1 if better else chosen[q]
                        for q in range(inside, n_levels):
                            better = top < into[q]
                            into[q] = top if better else into[q]
                            chosen[q] = n + 1 if better else chosen[q]
                    else:
                        for q in range(inside):
                            ran = extra + running[q + up]
                            into[q] = ran if ran < into[q] else into[q]
                        for q in range(inside, n_levels):
                            into[q] = top if top < into[q] else into[q]
            table, other = other, table
    return table[: counts[0]].copy()


@numba.njit(cache=True, nogil=True)
def _use(  # type: ignore[no-untyped-def]
    choice, counts, idle, run, status, made, demand, probabilities, height, start, negligible
):
    """Expected use float64[T, k] of the machines, forward from the distribution ``start`` float64[S, levels]."""
    n_periods, n_machines, n_states, n_levels = choice.shape
    use = np.zeros((n_periods, n_machines))
    mass, other = np.zeros((n_states, n_levels)), np.zeros((n_states, n_levels))
    here, there = np.zeros(n_states, np.bool_), np.zeros(n_states, np.bool_)  # rows with mass
    for s in range(len(start)):
        here[s] = start[s].max() > 0.0
        mass[s] = start[s]
    for t in range(n_periods):
        row = t if len(demand) > 1 else 0
        for m in range(n_machines):
            total = 0.0
            for s in range(counts[m]):
                if here[s]:
                    kind, resting, running = status[m, s], idle[m, s], run[m, s]
                    for q in range(n_levels):
                        weight = mass[s, q]
                        mass[s, q] = 0.0
                        if weight > negligible:
                            taken = choice[t, m, s, q]
                            if taken == 0:
                                other[resting, q] += weight
                                there[resting] = True
                            else:
                                up = made[m, kind, taken - 1]
                                other[running, min(q + up, n_levels - 1)] += weight
                                there[running] = True
                                total += weight
                    here[s] = False
            use[t, m] = total
            mass, other = other, mass
            here, there = there, here
        for s in range(counts[n_machines]):
            if here[s]:
                for q in range(n_levels):
                    weight = mass[s, q]
                    mass[s, q] = 0.0
                    if weight > negligible:
                        for n in range(demand.shape[1]):
                            p = probabilities[row, n]
                            if p > 0.0:
                                other[s, min(max(q - demand[row, n], 0), height)] += p * weight
                here[s] = False
                there[s] = True
        mass, other = other, mass
        here, there = there, here
    return use
