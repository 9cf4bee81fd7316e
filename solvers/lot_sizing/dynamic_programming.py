"""Exact dynamic programming for small instances: optimal values and policies, and exact values of any policy.

A period is split at the post-decision state s^x, stock after production and the new set-up (Powell 2011, chapter 4):

    V^x_t(s^x) = E[ r^w + discount V_{t+1}(s') ],    V_t(s) = max_a [ r^d(s, a) + V^x_t(s^x) ],    V_T = 0,

with rewards r^d = -set-up cost and r^w = -(lost sales, holding and backlog). The expectation goes item by item, the
maximum over slices of the post-decision array, so a period costs time proportional to states x actions and never
enumerates the joint demand of independent items. Four items of 11 levels on two machines over 100 periods take a few
seconds. Values are rewards (negative costs), as critics learn them; :func:`expected_cost` is a cost.

    >>> from orl.envs.lot_sizing.library import load
    >>> exact = optimal_values(load("ls-2x1-t100"), keep="all")
    >>> exact.value([0, 0], [0]).round(4).item()
    -66.2073
    >>> exact.decide([[0, 0]], [[1]], [0]).tolist()
    [[1]]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import Floats, Incompatible, Init, Integers, LotSizingInstance
from orl.solvers.lot_sizing.demand_expectation import DemandExpectation, demand_expectation
from orl.solvers.lot_sizing.rules import Decide
from orl.solvers.lot_sizing.state_space import StateSpace

Keep = Literal["start", "policy", "values", "all"]
Policy = Callable[[Integers, Integers, Integers], npt.NDArray[Any]]
"""Inventory int64[B, I], set-up int64[B, M], period int64[B] to actions int64[B, M], or to probabilities float64[B, S]
of the actions ``StateSpace.setups``."""
TIE = 1e-9
"""An action replaces an earlier one only if it is better by more: ties go to the first, idle machines first."""


class ExactValues:
    """Exact values of the optimal or of a given policy.

    Attributes:
        space: The states and actions (:class:`orl.solvers.lot_sizing.state_space.StateSpace`).
        values: float64[S, n_1, ..., n_I] by period: V_0 to V_T with ``keep`` "values" or "all", else V_0 alone; one
            array when the horizon is infinite.
        policy: Number of the action in every state by period, or None unless ``keep`` is "policy" or "all".
        discount: Weight of the next period.
        infinite: Whether values belong to the discounted problem without an end.
    """

    def __init__(
        self,
        space: StateSpace,
        values: list[Floats],
        policy: list[npt.NDArray[Any]] | None,
        discount: float,
        infinite: bool,
    ) -> None:
        self.space, self.values, self.policy = space, values, policy
        self.discount, self.infinite = discount, infinite
        self._expectations = _Expectations(space)
        self._post: dict[tuple[int, int], Floats] = {}

    def value(self, inventory: npt.ArrayLike, setup: npt.ArrayLike, period: int = 0) -> Floats:
        """V_period float64[...] of states: inventory int64[..., I], set-up int64[..., M].

        Raises:
            InputError: A state outside the space, or a period whose values were not kept.
        """
        return self._of_period(period)[self.space.index(inventory, setup)]

    def post_decision_value(self, post_inventory: npt.ArrayLike, setup: npt.ArrayLike, period: int = 0) -> Floats:
        """V^x_period float64[...] of post-decision states: stock after production int64[..., I], new set-up.

        Raises:
            InputError: A post-decision state that no decision leads to, or a period whose values were not kept.
        """
        post = np.asarray(post_inventory, np.int64)
        action = self.space.setup_index(setup)
        post, action = post.reshape(-1, post.shape[-1]), np.asarray(action)
        found = np.empty(action.size)
        for a in np.unique(action):
            here = action.ravel() == a
            level = post[here] - self.space.post_lowest[a]
            if ((level < 0) | (level >= self.space.post_sizes[a])).any():
                raise InputError(
                    "no decision leads to this stock", source=self.space.instance.name, field="post_inventory"
                )
            found[here] = self.post_values(int(a), period)[tuple(level.T)]
        return found.reshape(action.shape)

    def post_values(self, a: int, period: int = 0) -> Floats:
        """V^x_period after action number ``a``: float64[post_sizes[a]], the first level of item i is
        ``space.post_lowest[a, i]``."""
        key = (0 if self.infinite else period, a)
        if key not in self._post:
            if len(self._post) >= 8 * self.space.n_setups:
                self._post.clear()
            following = self.values[0] if self.infinite else self._of_period(period + 1)
            table = self._expectations(period)
            self._post[key] = table.post_values(a, following[a], self.discount)
        return self._post[key]

    def decide(self, inventory: npt.ArrayLike, setup: npt.ArrayLike, period: npt.ArrayLike) -> Integers:
        """Optimal actions int64[B, M] (the rule contract); beyond the horizon the last period's.

        Raises:
            InputError: The policy was not kept, or a state is outside the space.
        """
        if self.policy is None:
            raise InputError("the policy was not kept", field="keep", expected="'policy' or 'all'")
        where = self.space.index(inventory, setup)
        row = np.broadcast_to(np.minimum(np.asarray(period, np.int64), len(self.policy) - 1), where[0].shape)
        actions = np.empty(where[0].shape, np.int64)
        for t in np.unique(row):
            here = row == t
            actions[here] = self.policy[t][tuple(w[here] for w in where)]
        return self.space.setups[actions]

    def expected_cost(self, init: Init = "random") -> float:
        """Expected cost from the start of an episode; a scenario starts where it says."""
        instance = self.space.instance
        if init == "fixed" or instance.demand_path is not None:
            return -float(self.value(instance.initial_inventory, instance.initial_setup))
        return -self.space.initial_mean(self.values[0])

    def _of_period(self, period: int) -> Floats:
        if self.infinite:
            return self.values[0]
        if not 0 <= period < len(self.values):
            raise InputError(
                "values of this period were not kept",
                field="period",
                value=period,
                expected="period 0, or keep='values' or 'all'",
            )
        return self.values[period]


def optimal_values(
    instance: LotSizingInstance,
    *,
    discount: float = 1.0,
    infinite: bool = False,
    incompatible: Incompatible = "mask",
    keep: Keep = "policy",
    tolerance: float = 1e-9,
    memory_limit: int = 2**31,
) -> ExactValues:
    """Optimal values and policy by backward induction.

    Args:
        instance: The problem; of a scenario only its distribution is used, never its path.
        discount: Weight of the next period, 0 < discount <= 1.
        infinite: Leave out the horizon: the stationary problem with discount < 1, by value iteration with MacQueen's
            bounds until they differ by less than ``tolerance``.
        incompatible: As in the environment.
        keep: "start": V_0; "policy": also the actions of all periods; "values": V of all periods; "all": both.
        memory_limit: Bytes; a larger problem is refused before it is begun.

    Raises:
        InputError: The state space is too large, too many joint demands of correlated items, a bad discount, or an
            infinite horizon with demand that depends on the period.
    """
    space = _space(instance, discount, infinite, incompatible, keep, memory_limit)
    kind = np.int8 if space.n_setups <= 127 else np.int16 if space.n_setups <= 32767 else np.int32
    policies: list[npt.NDArray[Any]] = []

    def backup(period: int, table: DemandExpectation, following: Floats) -> Floats:
        values = space.array(fill=-np.inf)
        wanted = keep in ("policy", "all")
        policy = space.array(kind, 0) if wanted else None
        for a, moves in enumerate(space.moves):
            post = table.post_values(a, following[a], discount)
            for cost, reached, setups in moves:
                candidate = post[reached] - cost
                for j in setups:
                    if policy is not None:
                        policy[j][candidate > values[j] + TIE] = a
                    np.maximum(values[j], candidate, out=values[j])
        if policy is not None:
            if infinite:
                policies.clear()
            policies.append(policy)
        return values

    values = _iterate(space, backup, discount, infinite, keep, tolerance)
    return ExactValues(space, values, policies[::-1] or None, discount, infinite)


def evaluate_policy(
    instance: LotSizingInstance,
    policy: Policy,
    *,
    discount: float = 1.0,
    infinite: bool = False,
    stationary: bool = False,
    incompatible: Incompatible = "mask",
    keep: Keep = "start",
    tolerance: float = 1e-9,
    memory_limit: int = 2**31,
) -> ExactValues:
    """Exact values of any policy: what perfect critics would say.

    Args:
        policy: Called with all states of a period (:data:`Policy`); returns actions or probabilities of actions.
        stationary: The policy does not depend on the period: call it once.
        keep: "values" (or "all") for V and V^x of all periods; a policy is never stored.

    Other arguments and errors are those of :func:`optimal_values`; also InputError for probabilities that do not sum
    to 1.

    >>> from orl.envs.lot_sizing.library import load
    >>> idle = lambda inventory, setup, period: np.zeros_like(setup)
    >>> evaluate_policy(load("ls-2x1-t100"), idle).value([0, 0], [0]).item()
    -200.0
    """
    space = _space(instance, discount, infinite, incompatible, keep, memory_limit)
    inventory, setup = space.states()
    known: list[npt.NDArray[Any]] = []

    def backup(period: int, table: DemandExpectation, following: Floats) -> Floats:
        if not known or not (stationary or infinite):
            known[:] = [_choices(space, policy(inventory, setup, np.full(len(setup), period)))]
        (choice,) = known
        values = space.array()
        for a, moves in enumerate(space.moves):
            post = table.post_values(a, following[a], discount)
            for cost, reached, setups in moves:
                candidate = post[reached] - cost
                for j in setups:
                    if choice.dtype.kind == "f":
                        values[j] += choice[j, ..., a] * candidate
                    else:
                        taken = choice[j] == a
                        values[j][taken] = candidate[taken]
        return values

    return ExactValues(space, _iterate(space, backup, discount, infinite, keep, tolerance), None, discount, infinite)


def expected_cost(instance: LotSizingInstance, init: Init = "random", **options: Any) -> float:
    """The least expected cost of any policy: the exact optimum, a lower bound on what every policy costs on average.

    >>> from orl.envs.lot_sizing.library import load
    >>> round(expected_cost(load("ls-2x1-t100")), 4)
    63.8489
    """
    return optimal_values(instance, keep="start", **options).expected_cost(init)


def dynamic_programming(
    instance: LotSizingInstance,
    *,
    discount: float = 1.0,
    infinite: bool = False,
    incompatible: Incompatible = "mask",
    memory_limit: int = 2**31,
) -> Decide:
    """The optimal policy as a rule; arguments as in :func:`optimal_values`."""
    exact = optimal_values(
        instance, discount=discount, infinite=infinite, incompatible=incompatible, memory_limit=memory_limit
    )
    return exact.decide


# ---- the recursion -------------------------------------------------------------------------------------------------
Backup = Callable[[int, DemandExpectation, Floats], Floats]


class _Expectations:
    """Tables of demand by period, made when asked for; stationary demand has one."""

    def __init__(self, space: StateSpace) -> None:
        self._space, self._made = space, dict[int, DemandExpectation]()

    def __call__(self, period: int) -> DemandExpectation:
        row = 0 if self._space.instance.demand.stationary else period
        if row not in self._made:
            self._made[row] = demand_expectation(self._space, row)
        return self._made[row]


def _space(
    instance: LotSizingInstance,
    discount: float,
    infinite: bool,
    incompatible: Incompatible,
    keep: Keep,
    memory_limit: int,
) -> StateSpace:
    if keep not in ("start", "policy", "values", "all"):
        raise InputError("unknown", field="keep", value=keep, expected="start, policy, values or all")
    if not 0.0 < discount <= 1.0 or (infinite and discount == 1.0):
        raise InputError(
            "bad discount", field="discount", value=discount, expected="in (0, 1), 1 only with a finite horizon"
        )
    if infinite and not instance.demand.stationary:
        raise InputError(
            "demand depends on the period", source=instance.name, field="infinite", value=True, expected="False"
        )
    periods = 1 if infinite else instance.horizon
    copies = 4.0 + (periods if keep in ("values", "all") else 0) + (periods / 4 if keep in ("policy", "all") else 0)
    return StateSpace(instance, incompatible, memory_limit, copies)


def _iterate(
    space: StateSpace, backup: Backup, discount: float, infinite: bool, keep: Keep, tolerance: float
) -> list[Floats]:
    """Values by period, first period first: backward over the horizon, or until the bounds of MacQueen (1966) meet."""
    expectation = _Expectations(space)
    if not infinite:
        kept = [space.array()]
        for t in reversed(range(space.instance.horizon)):
            values = backup(t, expectation(t), kept[-1])
            kept = [*kept, values] if keep in ("values", "all") else [values]
        return kept[::-1]
    values = space.array()
    while True:
        better = backup(0, expectation(0), values)
        change = better - values
        low, high = (discount / (1.0 - discount) * float(c) for c in (change.min(), change.max()))
        if high - low < tolerance:
            return [better + (low + high) / 2.0]
        values = better


def _choices(space: StateSpace, chosen: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Actions as numbers int64[S, n_1, ..., n_I], or probabilities float64[S, n_1, ..., n_I, S]."""
    chosen = np.asarray(chosen)
    instance = space.instance
    if chosen.dtype.kind in "iu" and chosen.shape == (space.n_states, instance.n_machines):
        if space.incompatible == "mask":  # as the environment reads them
            able = instance.production[np.arange(instance.n_machines), np.maximum(chosen - 1, 0)] > 0
            chosen = np.where(able, chosen, 0)
        return space.setup_index(chosen).reshape(space.n_setups, *space.sizes)
    if chosen.dtype.kind == "f" and chosen.shape == (space.n_states, space.n_setups):
        if chosen.min() < 0 or np.abs(chosen.sum(-1) - 1.0).max() > 1e-6:
            raise InputError("probabilities of a policy do not sum to 1", field="policy")
        return chosen.reshape(space.n_setups, *space.sizes, space.n_setups)
    raise InputError(
        "a policy answers with actions or probabilities",
        field="policy",
        value=(chosen.dtype.name, chosen.shape),
        expected=f"int64 {(space.n_states, instance.n_machines)} or float64 {(space.n_states, space.n_setups)}",
    )
