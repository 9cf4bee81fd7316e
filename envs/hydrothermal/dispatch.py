"""Checking and pricing a dispatch with nothing but its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orl.common.errors import InputError
from orl.common.problem import Check
from orl.envs.hydrothermal.builders import checked_columns
from orl.envs.hydrothermal.instance import Dispatch, Floats, HydrothermalInstance

TOLERANCE = 1e-6
"""Of the largest number in a constraint, or of 1 where all are smaller."""
_SHOWN = 12  # violations of one kind that are told


def stage_costs(instance: HydrothermalInstance, dispatch: Dispatch) -> Floats:
    """Costs float64[T, 3] of generation, of deficit and surplus, and of spillage; USD for each hour of a stage."""
    return np.stack(
        [
            dispatch.power @ instance.generator_costs,
            instance.deficit_cost * (dispatch.deficit.sum(1) + dispatch.surplus.sum(1)),
            dispatch.spilled @ instance.spill_costs,
        ],
        axis=1,
    )


def arrivals(instance: HydrothermalInstance, turbined: Floats, spilled: Floats) -> Floats:
    """Water float64[..., n], hm3, that reaches plants from upstream; turbined m3/s and spilled hm3 [..., n]."""
    reached: Floats = instance.water_factor * turbined @ instance.turbine_to + spilled @ instance.spill_to
    return reached


def check_dispatch(instance: HydrothermalInstance, dispatch: Dispatch) -> Check:
    """See :meth:`HydrothermalInstance.check`. The objective is None where the arrays do not fit the instance."""
    broken = tuple(_misfits(instance, dispatch))
    if broken:
        return Check(False, None, broken)
    violations = (
        *_columns(instance, dispatch),
        *_bounds(instance, dispatch),
        *_water(instance, dispatch),
        *_production(instance, dispatch),
        *_power(instance, dispatch),
        *(_angles(instance, dispatch) if instance.network == "dc" else ()),
    )
    return Check(not violations, float(stage_costs(instance, dispatch).sum()), violations)


# ---- kinds of constraints ------------------------------------------------------------------------------------------
def _misfits(instance: HydrothermalInstance, dispatch: Dispatch) -> Iterator[str]:
    """Arrays of the wrong shape, dtype, or with numbers that are not finite."""
    horizon, n = instance.horizon, instance.n_plants
    shapes = {
        "volumes": (horizon + 1, n),
        "turbined": (horizon, n),
        "spilled": (horizon, n),
        "power": (horizon, instance.n_generators),
        "deficit": (horizon, instance.n_buses),
        "surplus": (horizon, instance.n_buses),
        "flows": (horizon, instance.n_branches),
        "angles": (horizon, instance.n_buses),
    }
    for name, shape in shapes.items():
        array = np.asarray(getattr(dispatch, name))
        if array.shape != shape or array.dtype.kind not in "iuf":
            yield f"{name}: expected numbers {list(shape)}, got {array.dtype}{list(array.shape)}"
        elif not np.isfinite(array).all():
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            yield f"{name}{where}: {array[tuple(where)]} is not a finite number"
    columns = np.asarray(dispatch.columns)
    if columns.dtype.kind not in "iu":
        yield f"columns: expected integers, got {columns.dtype}"


def _columns(instance: HydrothermalInstance, dispatch: Dispatch) -> Iterator[str]:
    """Columns that cannot come, or that are not the scenario's."""
    try:
        columns = checked_columns(
            dispatch.columns, instance.horizon, instance.probabilities, instance.n_plants, instance.joint
        )
    except InputError as error:
        yield str(error)
        return
    if instance.columns is not None:
        for where in np.argwhere(columns != instance.columns)[:_SHOWN].tolist():
            found, own = columns[tuple(where)], instance.columns[tuple(where)]
            yield f"columns{where}: {found}, but column {own} comes in the scenario"


def _bounds(instance: HydrothermalInstance, dispatch: Dispatch) -> Iterator[str]:
    """Numbers outside their limits."""
    most_surplus = np.inf if instance.surplus else 0.0
    yield from _outside("volumes", dispatch.volumes, instance.min_volume, instance.max_volume)
    yield from _outside("turbined", dispatch.turbined, instance.min_outflow, instance.max_outflow)
    yield from _outside("spilled", dispatch.spilled, 0.0, np.inf)
    yield from _outside("power", dispatch.power, instance.min_power, instance.max_power)
    yield from _outside("deficit", dispatch.deficit, 0.0, np.inf)
    yield from _outside("surplus", dispatch.surplus, 0.0, most_surplus)
    if instance.network != "copper":
        yield from _outside("flows", dispatch.flows, -instance.max_flow, instance.max_flow)


def _outside(name: str, array: Floats, low: Floats | float, high: Floats | float) -> Iterator[str]:
    low, high = np.broadcast_to(low, array.shape), np.broadcast_to(high, array.shape)
    slack = TOLERANCE * np.maximum(1.0, np.abs(array))
    for where in np.argwhere((array < low - slack) | (array > high + slack))[:_SHOWN].tolist():
        place = tuple(where)
        yield f"{name}{where}: {array[place]:.9g} is not in {low[place]:.9g}..{high[place]:.9g}"


def _water(instance: HydrothermalInstance, dispatch: Dispatch) -> Iterator[str]:
    """Every hm3 is stored, turbined or spilled, and the dispatch starts where the instance does."""
    start = np.abs(dispatch.volumes[0] - instance.initial_volume)
    for i in np.flatnonzero(start > TOLERANCE * np.maximum(1.0, instance.initial_volume))[:_SHOWN].tolist():
        found, own = dispatch.volumes[0, i], instance.initial_volume[i]
        yield f"volumes[0, {i}]: starts with {found:.9g} hm3, the instance with {own:.9g}"
    columns = np.clip(dispatch.columns, 0, instance.n_columns - 1)  # bad columns have their own sentence
    if columns.shape != ((instance.horizon,) if instance.joint else (instance.horizon, instance.n_plants)):
        return
    factor = instance.water_factor
    terms = np.stack(
        [
            dispatch.volumes[1:],
            factor * dispatch.turbined,
            dispatch.spilled,
            -arrivals(instance, dispatch.turbined, dispatch.spilled),
            -dispatch.volumes[:-1],
            -factor * instance.path_inflows(columns),
        ]
    )
    for t, i, gap in _residuals(terms):
        yield f"stage {t}, plant {instance.plant_names[i]}: the water balance is off by {gap:.3g} hm3"


def _production(instance: HydrothermalInstance, dispatch: Dispatch) -> Iterator[str]:
    """Hydro power is the production factor times the turbined flow."""
    power = instance.base_mva * dispatch.power[:, instance.plant_generator]
    for t, i, gap in _residuals(np.stack([power, -instance.production_factor * dispatch.turbined])):
        yield f"stage {t}, plant {instance.plant_names[i]}: power and turbined flow differ by {gap:.3g} MW"


def _power(instance: HydrothermalInstance, dispatch: Dispatch) -> Iterator[str]:
    """What is generated, missing and thrown away meets the demand and the flows of every bus."""
    buses = np.arange(instance.n_buses)
    generated = dispatch.power @ (instance.generator_bus[:, None] == buses)
    rows = np.arange(instance.horizon) % len(instance.demand)
    terms = [generated, dispatch.deficit, -dispatch.surplus, -instance.demand[rows]]
    if instance.network == "copper":
        for t, _, gap in _residuals(np.stack([term.sum(1, keepdims=True) for term in terms])):
            yield f"stage {t}: the power balance is off by {gap:.3g} per unit"
        return
    terms.append(-dispatch.flows @ (instance.branch_from[:, None] == buses))
    terms.append(dispatch.flows @ (instance.branch_to[:, None] == buses))
    for t, b, gap in _residuals(np.stack(terms)):
        yield f"stage {t}, {instance.bus_names[b]}: the power balance is off by {gap:.3g} per unit"


def _angles(instance: HydrothermalInstance, dispatch: Dispatch) -> Iterator[str]:
    """Flows follow angles, angles keep their limits, the reference bus has angle 0."""
    angles = dispatch.angles
    for t in np.flatnonzero(np.abs(angles[:, instance.reference_bus]) > TOLERANCE)[:_SHOWN].tolist():
        yield f"stage {t}: the angle of the reference bus is {angles[t, instance.reference_bus]:.3g}, not 0"
    start, end = angles[:, instance.branch_from], angles[:, instance.branch_to]
    terms = np.stack([dispatch.flows, -instance.susceptance * start, instance.susceptance * end])
    for t, branch, gap in _residuals(terms):
        yield f"stage {t}, branch {branch}: flow and angles differ by {gap:.3g} per unit"
    apart = angles[:, instance.pair_from] - angles[:, instance.pair_to]
    yield from _outside("angle between the buses of pair", apart, instance.min_angle, instance.max_angle)


def _residuals(terms: Floats) -> Iterator[tuple[int, int, float]]:
    """Where the sum of terms [k, T, m] is not 0: stage, position, sum."""
    gap = terms.sum(0)
    for t, k in np.argwhere(np.abs(gap) > TOLERANCE * np.maximum(1.0, np.abs(terms).max(0)))[:_SHOWN].tolist():
        yield t, k, float(gap[t, k])
