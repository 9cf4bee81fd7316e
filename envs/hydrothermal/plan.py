"""Solutions that say what becomes of the water and leave the network to the programmes of the stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from orl.common.errors import InputError
from orl.common.numbers import floats, integers
from orl.common.problem import Check
from orl.envs.hydrothermal.builders import checked_columns
from orl.envs.hydrothermal.dispatch import check_dispatch
from orl.envs.hydrothermal.instance import DISPATCH_SCHEMA, Dispatch, Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.stage_lp import StageError, StageLP
from orl.envs.hydrothermal.stage_model import StageModel, stage_model

PLAN_SCHEMA = "orl.hydrothermal.plan/1"


@dataclass(frozen=True, eq=False)
class ReservoirPlan:
    """A solution for one inflow path: the volumes at the end of every stage, perhaps the releases that lead to them.

    What generators and branches do follows from it stage by stage at least cost: :meth:`dispatch`. A plan of t < T
    stages is what an episode has done so far.

    Attributes:
        columns: int64[t], the inflow columns met; int64[t, n] where every plant has its own.
        volumes: float64[t + 1, n], hm3; row 0 is the start.
        turbined: float64[t, n], m3/s, and
        spilled: float64[t, n], hm3; both or, where the stage's programme is to choose them, neither (None).

    >>> from orl.envs.hydrothermal.library import load
    >>> tri3 = load("tri3").scenario_of([0, 1, 2, 0])
    >>> plan = ReservoirPlan(tri3.columns, np.tile(tri3.initial_volume, (5, 1)))
    >>> tri3.check(plan).feasible
    True
    """

    columns: Integers
    volumes: Floats
    turbined: Floats | None = None
    spilled: Floats | None = None

    @property
    def n_stages(self) -> int:
        """t, stages planned."""
        return len(self.columns)

    def to_json(self) -> dict[str, Any]:
        """The plan as versioned JSON data; :meth:`from_json` reads it back, to the last bit."""
        releases = {"turbined": self.turbined, "spilled": self.spilled}
        return {
            "schema": PLAN_SCHEMA,
            "columns": np.asarray(self.columns).tolist(),
            "volumes": np.asarray(self.volumes).tolist(),
            **{name: None if value is None else np.asarray(value).tolist() for name, value in releases.items()},
        }

    @classmethod
    def from_json(cls, data: Any, source: str | None = None) -> ReservoirPlan:
        """Read what ``to_json`` wrote. Raises InputError naming source, field and value otherwise."""
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        if not isinstance(data, dict) or found != PLAN_SCHEMA:
            raise InputError("not a plan", source=source, field="schema", value=found, expected=PLAN_SCHEMA)
        for name in ("columns", "volumes"):
            if name not in data:
                raise InputError("missing key", source=source, field=name)
        given = data["columns"]
        own = isinstance(given, list) and bool(given) and isinstance(given[0], list)
        columns = integers(given, "columns", (None, None) if own else (None,), low=0, high=2**31, source=source)
        volumes = floats(data["volumes"], "volumes", (len(columns) + 1, None), source=source)
        shape = (len(columns), volumes.shape[1])
        releases = [
            None if data.get(name) is None else floats(data[name], name, shape, source=source)
            for name in ("turbined", "spilled")
        ]
        if (releases[0] is None) != (releases[1] is None):
            raise InputError("one is given without the other", source=source, field="turbined, spilled")
        return cls(columns, volumes, *releases)

    def dispatch(self, instance: HydrothermalInstance) -> Dispatch:
        """The dispatch of least cost in every stage, given the plan; of its t stages.

        Raises:
            InputError: The plan's arrays do not fit the instance, or there are no such columns.
            StageError: No dispatch of a stage meets the plan; the message begins with the stage.
        """
        for misfit in _misfits(instance, self):
            raise InputError(misfit, source=instance.name, field="plan")
        columns = checked_columns(
            self.columns, self.n_stages, instance.probabilities, instance.n_plants, instance.joint, instance.name
        )
        if self.turbined is None:
            rhs = self.volumes[:-1] + instance.water_factor * instance.path_inflows(columns) - self.volumes[1:]
        else:
            rhs = instance.production_factor * self.turbined
        form: Literal["strict", "release"] = "strict" if self.turbined is None else "release"
        programmes: dict[int, StageLP] = {}
        model = stage_model(instance, 0, form)
        values = np.empty((self.n_stages, len(model.costs)))
        for stage in range(self.n_stages):
            row = stage % len(instance.demand)
            if row not in programmes:
                programmes[row] = StageLP(instance, row, form)
            try:
                values[stage] = programmes[row].run(rhs[stage])[0]
            except StageError as error:
                raise StageError(f"stage {stage}: no dispatch meets the plan ({error})") from error
        return dispatch_of(instance, columns, self.volumes, model, values, self.turbined, self.spilled)


def check_plan(instance: HydrothermalInstance, plan: ReservoirPlan) -> Check:
    """The check of the plan's dispatch; where there is none, the plan is infeasible and has no objective."""
    broken = tuple(_misfits(instance, plan))
    if not broken and plan.n_stages != instance.horizon:
        broken = (f"the plan has {plan.n_stages} stages, the instance {instance.horizon}",)
    if broken:
        return Check(False, None, broken)
    try:
        dispatch = plan.dispatch(instance)
    except (InputError, StageError) as error:
        return Check(False, None, (str(error),))
    return check_dispatch(instance, dispatch)


def read_solution(data: Any, source: str | None = None) -> Dispatch | ReservoirPlan:
    """The solution that ``to_json`` of either kind wrote. Raises InputError naming source, field and value."""
    schema = data.get("schema") if isinstance(data, dict) else None
    return (Dispatch if schema == DISPATCH_SCHEMA else ReservoirPlan).from_json(data, source)


def completed(instance: HydrothermalInstance, solution: Dispatch | ReservoirPlan) -> Dispatch:
    """A dispatch as it is, a plan with its :meth:`ReservoirPlan.dispatch`."""
    return solution.dispatch(instance) if isinstance(solution, ReservoirPlan) else solution


def dispatch_of(
    instance: HydrothermalInstance,
    columns: Integers,
    volumes: Floats,
    model: StageModel,
    values: Floats,
    turbined: Floats | None = None,
    spilled: Floats | None = None,
) -> Dispatch:
    """A dispatch from the variables float64[t, V] of the programmes of t stages.

    Every variable is put back within its bounds, from which HiGHS may stray by 1e-7. What a copper plate lacks is
    booked at the reference bus.

    Args:
        instance: The problem.
        columns: int64[t] or int64[t, n], of the inflows met.
        volumes: float64[t + 1, n], hm3.
        model: The programme of any of the stages.
        values: float64[t, V].
        turbined: float64[t, n], m3/s, and
        spilled: float64[t, n], hm3, where the programme has no such variables.
    """
    n_stages = len(columns)
    values = np.clip(values, model.lower, model.upper) + 0.0

    def of_kind(name: str) -> Floats:
        kind: Floats = values[:, model.columns[name]]
        return kind

    def at_buses(name: str) -> Floats:
        found, buses = of_kind(name), np.zeros((n_stages, instance.n_buses))
        if found.shape[1] == instance.n_buses:
            buses[:] = found
        elif found.shape[1]:
            buses[:, instance.reference_bus] = found[:, 0]
        return buses

    flows = of_kind("flow")
    return Dispatch(
        columns=columns,
        volumes=volumes,
        turbined=of_kind("turbined") if turbined is None else turbined,
        spilled=of_kind("spilled") if spilled is None else spilled,
        power=of_kind("power"),
        deficit=at_buses("deficit"),
        surplus=at_buses("surplus"),
        flows=flows if flows.shape[1] else np.zeros((n_stages, instance.n_branches)),
        angles=at_buses("angle"),
    )


def _misfits(instance: HydrothermalInstance, plan: ReservoirPlan) -> Iterator[str]:
    """Arrays of the wrong shape or dtype, or with numbers that are not finite."""
    columns = np.asarray(plan.columns)
    lead = (len(columns),) if columns.ndim else ()
    own = () if instance.joint else (instance.n_plants,)
    if columns.ndim == 0 or columns.shape != (*lead, *own) or columns.dtype.kind not in "iu":
        yield f"columns: expected integers {['t', *own]}, got {columns.dtype}{list(columns.shape)}".replace("'", "")
        return
    if len(columns) > instance.horizon:
        yield f"columns: {len(columns)} stages, the instance has {instance.horizon}"
        return
    if (plan.turbined is None) != (plan.spilled is None):
        yield "turbined, spilled: one is given without the other"
        return
    for name, rows in (("volumes", len(columns) + 1), ("turbined", len(columns)), ("spilled", len(columns))):
        if getattr(plan, name) is None and name != "volumes":
            continue
        array = np.asarray(getattr(plan, name))
        if array.shape != (rows, instance.n_plants) or array.dtype.kind not in "iuf":
            yield f"{name}: expected numbers {[rows, instance.n_plants]}, got {array.dtype}{list(array.shape)}"
        elif not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            yield f"{name}{where}: {array[tuple(where)]} is not a finite number"
