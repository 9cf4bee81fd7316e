"""A lot-sizing problem as immutable data, its solutions (plans for one demand path), and the independent checker."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orl.common.problem import Bounds, Check
from orl.envs.lot_sizing.demand import Demand

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Incompatible = Literal["mask", "waste", "reference"]
Init = Literal["random", "fixed"]
SCHEMA = "orl.lot_sizing.instance/1"
PLAN_SCHEMA = "orl.lot_sizing.plan/1"


@dataclass(frozen=True, eq=False)
class LotSizingPlan:
    """A solution for one demand path: what every machine does in every period.

    Attributes:
        actions: int64[T, M], 0 idle, i in 1..I runs item i.
        demand: int64[T, I], the demand path that the plan was made for or met.
        initial_inventory: int64[I].
        initial_setup: int64[M], 0 idle.
    """

    actions: Integers
    demand: Integers
    initial_inventory: Integers
    initial_setup: Integers

    def to_json(self) -> dict[str, Any]:
        """The plan as versioned JSON data; :meth:`from_json` reads it back."""
        return {"schema": PLAN_SCHEMA, **{f.name: getattr(self, f.name).tolist() for f in fields(self)}}

    @classmethod
    def from_json(cls, data: Any, source: str | None = None) -> LotSizingPlan:
        """Read what ``to_json`` wrote. Raises InputError naming source, field and value otherwise."""
        from orl.envs.lot_sizing.formats import plan_from_json

        return plan_from_json(data, source)


@dataclass(frozen=True, eq=False)
class LotSizingInstance:
    """I items on M parallel machines over T periods, with random demand; lost sales or limited backlog.

    In period t every machine is given an item or idles; changing to an item costs ``setup_costs`` and ``setup_loss``
    units of that period's production. Then demand comes; stock above ``max_inventory`` is discarded, demand below
    ``-max_backlog`` is lost. Keeping an item running costs nothing; an idle machine forgets its set-up.

    Attributes:
        name: Name of the instance.
        horizon: T.
        production: int64[M, I], units a period; 0: the machine cannot make the item.
        setup_costs: float64[M, I + 1, I]: ``[m, j, i - 1]`` is paid when m changes from j (0 idle) to item i; 0 where
            j == i.
        setup_loss: int64[M, I + 1, I], units lost in that period, likewise.
        holding_costs: float64[I], per unit in stock at the end of a period.
        lost_sales_costs: float64[I], per unit of lost demand.
        max_inventory: int64[I], the largest stock at the end of a period.
        initial_inventory: int64[I] and
        initial_setup: int64[M], used with ``init="fixed"``.
        demand: Distribution of demand (:class:`orl.envs.lot_sizing.demand.Demand`).
        backlog_costs: float64[I], per unit of backlog at the end of a period.
        max_backlog: int64[I], 0: lost sales.
        demand_path: int64[T, I], or None. With a path the instance is a scenario: that demand comes, and
            ``initial_inventory`` and ``initial_setup`` are where it starts; ``demand`` is what policies may know.
    """

    name: str
    horizon: int
    production: Integers
    setup_costs: Floats
    setup_loss: Integers
    holding_costs: Floats
    lost_sales_costs: Floats
    max_inventory: Integers
    initial_inventory: Integers
    initial_setup: Integers
    demand: Demand
    backlog_costs: Floats
    max_backlog: Integers
    demand_path: Integers | None = None

    def __post_init__(self) -> None:
        """An instance is immutable data: its arrays refuse to be written."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def n_items(self) -> int:
        """I."""
        return int(self.production.shape[1])

    @property
    def n_machines(self) -> int:
        """M."""
        return int(self.production.shape[0])

    @property
    def sequence_dependent(self) -> bool:
        """Whether a change-over depends on the item before it."""
        other = np.arange(self.n_items + 1)[:, None] != np.arange(1, self.n_items + 1)  # [I + 1, I]
        return any(bool((table != table[:, :1] * other).any()) for table in (self.setup_costs, self.setup_loss))

    def same_as(self, other: LotSizingInstance) -> bool:
        """Equal data, names included."""
        return self is other or self.to_json() == other.to_json()

    def with_horizon(self, horizon: int) -> LotSizingInstance:
        """The same problem over T = ``horizon`` periods, named ``NAME-tT``; period tables and paths are cut.

        Raises:
            InputError: ``horizon`` is below 1, or above what a non-stationary demand or a path covers.
        """
        from orl.envs.lot_sizing.builders import change_horizon

        return change_horizon(self, horizon)

    def scenario(self, seed: int, init: Init = "random") -> LotSizingInstance:
        """What ``LotSizingEnv(self, init=init).reset(seed=seed)`` is going to meet: start and demand path fixed."""
        from orl.envs.lot_sizing.scenario import draw_scenario

        return draw_scenario(self, seed, init)

    def check(self, plan: LotSizingPlan) -> Check:
        """Replay a plan: legal actions, possible demand (the instance's own path if it has one), total cost."""
        from orl.envs.lot_sizing.scenario import check_plan

        return check_plan(self, plan)

    def lower_bound(self) -> float:
        """A cheap valid lower bound: on the cost of every plan for a scenario's path, else on expected costs.

        With a path it is :func:`orl.envs.lot_sizing.bounds.path_bound`, without one
        :func:`orl.envs.lot_sizing.bounds.expected_bound`, which holds for every policy and both kinds of start. The
        ideas of the proofs stand there.
        """
        from orl.envs.lot_sizing import bounds

        if self.demand_path is None:
            return bounds.expected_bound(self)
        return float(bounds.path_bound(self, self.demand_path, self.initial_inventory, self.initial_setup))

    def best_known(self) -> Bounds | None:
        """None: no public bounds are known for these instances."""
        return None

    def to_json(self) -> dict[str, Any]:
        """The instance as versioned JSON data; :meth:`from_json` reads it back, to the last bit.

        Set-up tables are written as [M][I] where change-overs do not depend on the item before.
        """
        from orl.envs.lot_sizing.formats import instance_to_json

        return instance_to_json(self)

    @classmethod
    def from_json(cls, data: Any, source: str | None = None) -> LotSizingInstance:
        """Read what ``to_json`` wrote. Raises InputError naming source, field and value otherwise."""
        from orl.envs.lot_sizing.formats import instance_from_json

        return instance_from_json(data, source)
