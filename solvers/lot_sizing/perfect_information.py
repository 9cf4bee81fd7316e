"""The best plan for a known demand path, with a proof of how good it is.

The optimum with perfect information is at most what any policy pays on the same path; its mean over paths bounds the
expected cost of every policy from below.

The exact search has four parts, each of which can end it: good plans from rules of thumb and the hint; relaxation of
the machines (:mod:`orl.solvers.lot_sizing.lagrangian`), which usually comes within a few per cent of the optimum from
both sides in a second or two; then, where what remains is small enough, flows through the states of the items
(:mod:`orl.solvers.lot_sizing.network`), else ruin and recreate; sequence-dependent changes go to the compact programme
(:mod:`orl.solvers.lot_sizing.milp`) at once.

    >>> from orl.envs.lot_sizing.library import load
    >>> result = PerfectInformation().solve(load("ls-2x1-t6/scenario-0"), time_limit=10)
    >>> result.status, result.bound == result.objective
    ('optimal', True)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from orl.common.errors import InputError
from orl.common.interruption import minding_ctrl_c
from orl.common.problem import Progress, SolveResult
from orl.envs.lot_sizing.instance import Floats, Integers, LotSizingInstance, LotSizingPlan
from orl.envs.lot_sizing.scenario import replay, require_demand_path
from orl.envs.lot_sizing.transition import decide, realise
from orl.solvers.lot_sizing import lagrangian
from orl.solvers.lot_sizing.fix_and_relax import fix_and_relax
from orl.solvers.lot_sizing.milp import Programme, build, chain, cost_unit
from orl.solvers.lot_sizing.network import build_network
from orl.solvers.lot_sizing.programme_search import Found, search_with_cp_sat, search_with_highs
from orl.solvers.lot_sizing.rules import make_rule

START_RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("idle", {}),
    ("static", {}),
    ("base-stock", {}),
    ("greedy", {"periods": 3}),
    ("greedy", {"periods": 5}),
    ("greedy", {"periods": 10}),
)
RELAXATION_STEPS = 3000
RELAXATION_SHARE = 0.5  # of the time limit, at most
RUIN_ROUNDS = 300
NETWORK_ARCS = 15_000  # up to so many HiGHS solves the linear programmes in seconds
NETWORK_ARCS_WITHOUT_LIMIT = 1_000_000
TOLERANCE = 1e-6


@dataclass(frozen=True)
class PerfectInformation:
    """Plans with the demand path in sight; `optimal` is proved up to a millionth of the cost.

    Args:
        exact: False: HiGHS on the relaxed compact programme (see :mod:`orl.solvers.lot_sizing.milp`): the bound is
            valid, the plan is what the relaxation's decisions really cost.
        formulation: ``network``, ``compact`` or ``auto`` (network where it fits).
        backend: ``highs``, or ``cp-sat`` on the same programme.
        relax_machines: Begin with the relaxation of the machines; False: the programme alone.
        fix_and_relax: Also begin with fix and relax (slow; the relaxation's plans are better where it is possible).
        threads: Threads of the backend.
    """

    exact: bool = True
    formulation: Literal["auto", "network", "compact"] = "auto"
    backend: Literal["highs", "cp-sat"] = "highs"
    relax_machines: bool = True
    fix_and_relax: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        choices = {"formulation": ("auto", "network", "compact"), "backend": ("highs", "cp-sat")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                expected = f"one of {', '.join(allowed)}"
                raise InputError(
                    "bad value", source="PerfectInformation", field=name, value=getattr(self, name), expected=expected
                )
        if type(self.threads) is not int or self.threads < 1:
            raise InputError(
                "bad value",
                source="PerfectInformation",
                field="threads",
                value=self.threads,
                expected="an integer >= 1",
            )
        if not self.exact and self.formulation == "network":
            raise InputError(
                "the network has no relaxed form", source="PerfectInformation", field="formulation", value="network"
            )

    @property
    def name(self) -> str:
        """Key of this solver."""
        return "perfect-information"

    def solve(
        self,
        instance: LotSizingInstance,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        hint: LotSizingPlan | None = None,
    ) -> SolveResult:
        """Minimise the cost of a scenario; Ctrl-C returns the best plan so far.

        HiGHS hears of Ctrl-C between its linear programmes, which may take seconds (and more on a large ``network``).

        Args:
            instance: An instance with a demand path (``instance.scenario(seed)``).
            time_limit: Wall seconds; None: until proved optimal.
            seed: Seed of the backend and of the orders in which items are planned.
            hint: A plan to start from; the result is never worse.

        Raises:
            InputError: No demand path, a hint for another path or start, a negative time limit, ``network`` where
                changes depend on the item before or the network is too large.
        """
        if time_limit is not None and not time_limit >= 0:
            raise InputError("bad time limit", field="time_limit", value=time_limit, expected="seconds >= 0 or None")
        require_demand_path(instance)
        with minding_ctrl_c() as pressed:
            search = _Search(instance, self, time_limit, seed, pressed)
            search.run(hint)
            return search.result()


@dataclass
class _Search:
    """The best plan and bound so far, and the parts of the search."""

    scenario: LotSizingInstance
    options: PerfectInformation
    time_limit: float | None
    seed: int
    pressed: Callable[[], bool]
    began: float = field(default_factory=time.perf_counter)
    actions: Integers | None = None
    objective: float = math.inf
    bound: float = -math.inf
    log: list[Progress] = field(default_factory=list)

    def run(self, hint: LotSizingPlan | None) -> None:
        options, scenario = self.options, self.scenario
        self.unit = cost_unit(
            scenario.setup_costs, scenario.lost_sales_costs, scenario.holding_costs, scenario.backlog_costs
        )
        if hint is not None:
            self._start_from(hint)
        for rule, arguments in START_RULES:
            self._offer(play(scenario, make_rule(rule, scenario, **arguments)))
        self._raise_bound(scenario.lower_bound())
        decomposes = lagrangian.fits(scenario)
        if options.formulation == "network" and not decomposes:
            raise InputError(
                "no network: changes depend on the item before, or the tables are too large (use formulation='auto')",
                source=scenario.name,
                field="formulation",
                value="network",
            )
        prices: Floats | None = None
        if options.exact and options.relax_machines and decomposes and not self._ended():
            prices = self._relax_machines()
        if options.fix_and_relax and not self._ended():
            self._offer(
                fix_and_relax(
                    self._compact(), time_limit=self._share(0.5), seed=self.seed, stop=self.pressed, window=8, step=4
                )
            )
        if self._ended():
            return
        programme = self._programme(prices, decomposes)
        if programme is None:
            assert prices is not None
            self._ruin_and_recreate(prices, 10**9)
        else:
            self._search(programme)

    def result(self) -> SolveResult:
        """What was found; there is always a plan, if only to idle."""
        seconds = time.perf_counter() - self.began
        assert self.actions is not None
        proved = self.objective - self.bound <= TOLERANCE * max(1.0, abs(self.objective))
        bound = self.objective if proved else self.bound
        status: Literal["optimal", "feasible"] = "optimal" if proved else "feasible"
        self.log.append(Progress(seconds, self.objective, bound))
        plan = plan_of(self.scenario, self.actions)
        return SolveResult(status, plan, self.objective, bound, seconds=seconds, log=tuple(self.log))

    # ---- Parts of the search -----------------------------------------------------------------------------------------
    def _relax_machines(self) -> Floats:
        """Bound, plans and prices from the relaxation; then a little ruin and recreate."""
        found = lagrangian.relax_machines(
            self.scenario,
            iterations=RELAXATION_STEPS,
            time_limit=self._share(RELAXATION_SHARE),
            seed=self.seed,
            stop=self.pressed,
        )
        self._offer(found.actions)
        self._raise_bound(found.bound)
        if not self._ended():
            self._ruin_and_recreate(found.prices, RUIN_ROUNDS, 0.2)
        return found.prices

    def _ruin_and_recreate(self, prices: Floats, rounds: int, share: float = 1.0) -> None:
        assert self.actions is not None
        actions, _ = lagrangian.ruin_and_recreate(
            self.scenario,
            self.actions,
            prices,
            rounds=rounds,
            time_limit=self._share(share),
            seed=self.seed,
            stop=self.pressed,
        )
        self._offer(actions)

    def _compact(self) -> Programme:
        scenario = self.scenario
        path = chain(require_demand_path(scenario))
        return build(scenario, path, scenario.initial_inventory, scenario.initial_setup, exact=self.options.exact)

    def _programme(self, prices: Floats | None, decomposes: bool) -> Programme | None:
        """What is left to search, None: too large for anything but ruin and recreate."""
        options = self.options
        if not options.exact or options.formulation == "compact" or not decomposes:
            return self._compact()
        slack = math.inf if prices is None else self.objective - self.bound + TOLERANCE
        largest = NETWORK_ARCS
        if self.time_limit is None or options.formulation == "network":
            largest = NETWORK_ARCS_WITHOUT_LIMIT
        network = build_network(self.scenario, prices=prices, slack=slack, largest=largest)
        if network is not None:
            return network
        if options.formulation == "network":
            raise InputError(
                "the network is too large",
                source=self.scenario.name,
                field="formulation",
                value="network",
                expected=f"at most {largest} arcs (use 'auto' or 'compact')",
            )
        return self._compact() if prices is None or self.time_limit is None else None

    def _search(self, programme: Programme) -> None:
        def record(values: Floats, bound: float) -> None:
            self._offer(programme.actions(values), bound)

        found: Found
        if self.options.backend == "cp-sat":
            found = search_with_cp_sat(
                programme,
                unit=self.unit,
                time_limit=self._share(1.0),
                seed=self.seed,
                threads=self.options.threads,
                start=self.actions,
                stop=self.pressed,
                on_solution=record,
            )
        else:
            found = search_with_highs(
                programme,
                time_limit=self._share(1.0),
                seed=self.seed,
                threads=self.options.threads,
                absolute_gap=TOLERANCE if self.unit is None else max(TOLERANCE, 0.99 * float(self.unit)),
                start=self.actions,
                stop=self.pressed,
                on_solution=record,
            )
        if found.values is not None:
            self._offer(programme.actions(found.values))
        self._raise_bound(found.bound)

    # ---- The best so far ---------------------------------------------------------------------------------------------
    def _start_from(self, hint: LotSizingPlan) -> None:
        check = self.scenario.check(hint)
        if not check.feasible:
            value = check.violations[0] if check.violations else None
            raise InputError(
                "the hint is not a plan for this path", source=self.scenario.name, field="hint", value=value
            )
        self._offer(np.asarray(hint.actions))

    def _offer(self, actions: Integers | None, bound: float | None = None) -> None:
        """Keep a plan if it is better; the bound is only for the log."""
        if actions is None:
            return
        cost = plan_cost(self.scenario, actions)
        if cost < self.objective:
            self.actions, self.objective = actions, cost
            known = self.bound if bound is None else max(self.bound, min(bound, cost))
            proved = known if math.isfinite(known) else None
            self.log.append(Progress(time.perf_counter() - self.began, cost, proved))

    def _raise_bound(self, bound: float) -> None:
        """A bound is rounded up to the next possible cost where all costs are multiples of a unit."""
        if self.unit is not None and math.isfinite(bound):
            bound = float(math.ceil((bound - TOLERANCE * max(1.0, abs(bound))) / float(self.unit)) * self.unit)
        if bound > self.bound:
            self.bound = min(bound, self.objective)
            self.log.append(Progress(time.perf_counter() - self.began, None, self.bound))

    def _ended(self) -> bool:
        proved = self.objective - self.bound <= TOLERANCE * max(1.0, abs(self.objective))
        return proved or self.pressed() or self._share(1.0) == 0.0

    def _share(self, share: float) -> float | None:
        """A share of the time that is left."""
        if self.time_limit is None:
            return None
        return max(0.0, share * (self.time_limit - (time.perf_counter() - self.began)))


def play(scenario: LotSizingInstance, rule: Callable[[Integers, Integers, Integers], Integers]) -> Integers:
    """What a rule does on a scenario: int64[T, M]."""
    inventory, setup = scenario.initial_inventory[None], scenario.initial_setup[None]
    actions = []
    for t, demand in enumerate(require_demand_path(scenario)):
        action = rule(inventory, setup, np.array([t]))
        post, setup, _ = decide(scenario, inventory, setup, action)
        inventory = realise(scenario, post, demand)[0]
        actions.append(setup[0])
    return np.array(actions)


def plan_of(scenario: LotSizingInstance, actions: Integers) -> LotSizingPlan:
    """The plan that takes these actions int64[T, M] on a scenario's path."""
    return LotSizingPlan(actions, require_demand_path(scenario), scenario.initial_inventory, scenario.initial_setup)


def plan_cost(scenario: LotSizingInstance, actions: Integers) -> float:
    """Total cost of actions int64[T, M] on a scenario's path."""
    return float(replay(scenario, plan_of(scenario, actions))[1].sum())
