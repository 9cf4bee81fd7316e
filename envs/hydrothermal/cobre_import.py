"""The tables of a cobre case as an instance; see :mod:`orl.envs.hydrothermal.cobre_format` for what is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from orl.common.errors import InputError
from orl.common.numbers import MAX_TABLE, floats, integers
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.cobre_case import BUSES, HYDROS, INFLOW, LEAVABLE, LOAD, NOISE, STAGES, Case, by_id, objects
from orl.envs.hydrothermal.cobre_system import BASE_MVA, system_fields
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance, Integers
from orl.envs.hydrothermal.network_data import entry, required

_ROUNDING = 1e-9  # below 0 by which an inflow that was standardised may come back


def instance_of(
    tables: Mapping[str, Any],
    *,
    name: str,
    source: str | None = None,
    stage_hours: float | None = None,
    leave_out: Collection[str] = (),
) -> HydrothermalInstance:
    """The instance of a case, given as :func:`orl.envs.hydrothermal.cobre_export.case_tables` gives one.

    Args:
        tables: JSON data, or for ``.parquet`` a list for each column, by path inside the folder.
        name: Name of the instance.
        source: The folder, for messages.
        stage_hours: Hours of every stage, in place of the case's; needed where those differ from stage to stage.
        leave_out: Which of :data:`LEAVABLE` not to model instead of refusing the case for it.

    Raises:
        InputError: anything missing, wrong or not modelled; the message names file, field and value.

    >>> from orl.envs.hydrothermal.cobre_export import case_tables
    >>> from orl.envs.hydrothermal.library import load
    >>> again = instance_of(case_tables(load("tri3")), name="again")
    >>> again.network, again.plant_names, again.stage_hours
    ('copper', ('A', 'B', 'C'), 730.0)
    """
    for feature in leave_out:
        if feature not in LEAVABLE:
            raise InputError("cannot be left out", field="leave_out", value=feature, expected=" | ".join(LEAVABLE))
    case = Case(tables, source, frozenset(leave_out))
    case.require_known_files()
    n_stages, hours = _stages(case, stage_hours)
    buses = by_id(case.records(BUSES, "buses"), case.where(BUSES))
    hydros = by_id(case.records(HYDROS, "hydros"), case.where(HYDROS))
    if not hydros or not buses:
        path, field = (HYDROS, "hydros") if buses else (BUSES, "buses")
        raise InputError("empty", source=case.where(path), field=field, expected="at least one")
    demand = _demand(case, n_stages, buses)
    inflows = _inflows(case, n_stages, hydros)
    return hydrothermal(
        name=name,
        horizon=n_stages,
        network="copper" if len(buses) == 1 else "transport",
        stage_hours=hours,
        demand=_cycle(demand) / BASE_MVA,
        inflows=_cycle(inflows),
        **system_fields(case, hydros, buses, hours, n_stages),
        source=source if source is not None else name,
    )


# ---- time ------------------------------------------------------------------------------------------------------------
def _stages(case: Case, stage_hours: float | None) -> tuple[int, float]:
    """Number of stages and the hours of each."""
    source = case.where(STAGES)
    graph = required(case.data(STAGES), "policy_graph", source)
    if not isinstance(graph, dict):
        raise InputError("not an object", source=source, field="policy_graph", value=type(graph).__name__)
    if graph.get("type") != "finite_horizon":
        expected = "finite_horizon"
        raise InputError(
            "not modelled", source=source, field="policy_graph.type", value=graph.get("type"), expected=expected
        )
    rate = entry(graph, "annual_discount_rate", 0.0, source, "policy_graph")
    case.refuse("annual_discount_rate", rate, 0.0, "policy_graph.annual_discount_rate", STAGES)
    case.only(graph, ("type", "annual_discount_rate", "transitions"), "policy_graph", STAGES)
    for place, step in objects(graph.get("transitions") or [], source, "policy_graph.transitions"):
        if entry(step, "probability", None, source, place) != 1:
            raise InputError(
                "not modelled", source=source, field=f"{place}.probability", value=step["probability"], expected="1"
            )
    stages = case.records(STAGES, "stages")
    if not stages:
        raise InputError("no stages", source=source, field="stages", expected="at least one")
    hours: list[float] = []
    for t, (place, stage) in enumerate(stages):
        if entry(stage, "id", None, source, place) != t:
            raise InputError("not in order", source=source, field=f"{place}.id", value=stage["id"], expected=str(t))
        known = ("id", "start_date", "end_date", "season_id", "blocks", "num_openings", "risk_measure", "block_mode")
        case.only(stage, (*known, "sampling_method", "state_variables"), place, STAGES)
        risk = stage.get("risk_measure", "expectation")
        if risk != "expectation":
            raise InputError(
                "not modelled", source=source, field=f"{place}.risk_measure", value=risk, expected="expectation"
            )
        blocks = list(objects(required(stage, "blocks", source, place), source, f"{place}.blocks"))
        if len(blocks) != 1:
            raise InputError(
                "not modelled", source=source, field=f"{place}.blocks", value=len(blocks), expected="one block"
            )
        hours.append(entry(blocks[0][1], "hours", None, source, blocks[0][0], low=1e-3, high=1e5))
        if stage_hours is None and hours[t] != hours[0]:
            expected = f"{hours[0]:g}, as the first stage, or stage_hours=..."
            field = f"{blocks[0][0]}.hours"
            raise InputError(
                "stages of different length", source=source, field=field, value=hours[t], expected=expected
            )
    given = hours[0] if stage_hours is None else floats(stage_hours, "stage_hours", (), low=1e-3, high=1e5)
    return len(stages), float(given)


def _cycle(table: Floats) -> Floats:
    """The rows after which a table repeats itself."""
    rows = len(table)
    for period in range(1, rows):
        if np.array_equal(table[period], table[0]) and np.array_equal(table, table[np.arange(rows) % period]):
            return table[:period]
    return table


# ---- scenarios -------------------------------------------------------------------------------------------------------
def _demand(case: Case, n_stages: int, buses: Mapping[int, Any]) -> Floats:
    """Demand float64[T, B], MW; a bus without rows has none."""
    if LOAD not in case.tables:
        return np.zeros((n_stages, len(buses)))
    listed = set(_keys(case, LOAD, "bus_id").tolist())
    columns = {number: k for k, number in enumerate(number for number in buses if number in listed)}
    rows = {t: t for t in range(n_stages)}
    deviation = _grid(case, LOAD, {"stage_id": rows, "bus_id": columns}, "std_mw")
    if deviation.any():
        value = float(deviation.max())
        raise InputError(
            "random demand is not modelled", source=case.where(LOAD), field="std_mw", value=value, expected="0"
        )
    demand = np.zeros((n_stages, len(buses)))
    positions = [k for k, number in enumerate(buses) if number in listed]
    demand[:, positions] = _grid(case, LOAD, {"stage_id": rows, "bus_id": columns}, "mean_mw")
    return demand


def _inflows(case: Case, n_stages: int, hydros: Mapping[int, Any]) -> Floats:
    """Inflows float64[T, n, S], m3/s: mean + deviation * noise, the noise of each opening."""
    if INFLOW not in case.tables:
        raise InputError("missing file", source=case.source, field=INFLOW, expected="means of the inflows")
    rows = {t: t for t in range(n_stages)}
    plants = {number: i for i, number in enumerate(hydros)}
    mean = _grid(case, INFLOW, {"stage_id": rows, "hydro_id": plants}, "mean_m3s")
    deviation = _grid(case, INFLOW, {"stage_id": rows, "hydro_id": plants}, "std_m3s")
    if not deviation.any():
        inflows = mean[..., None]
    elif NOISE not in case.tables:
        expected = "the noise of the openings (cobre's own generator is not imitated)"
        raise InputError("missing file", source=case.source, field=NOISE, expected=expected)
    else:
        count = int(_keys(case, NOISE, "opening_index").max()) + 1
        if not 0 < count * n_stages * len(plants) <= MAX_TABLE:
            expected = f"at most {MAX_TABLE} numbers"
            raise InputError(
                "too large", source=case.where(NOISE), field="opening_index", value=count, expected=expected
            )
        entities = {i: i for i in range(len(plants))}
        keys = {"stage_id": rows, "entity_index": entities, "opening_index": {k: k for k in range(count)}}
        inflows = mean[..., None] + deviation[..., None] * _grid(case, NOISE, keys, "value")
    for t, i, k in np.argwhere(inflows < -_ROUNDING * (1 + np.abs(mean[..., None])))[:1].tolist():
        place = f"inflow of {list(hydros)[i]} in stage {t}, opening {k}"
        raise InputError(
            "negative inflow", source=case.source, field=place, value=float(inflows[t, i, k]), expected=">= 0"
        )
    return np.maximum(inflows, 0.0)


def _column(case: Case, path: str, name: str) -> Floats:
    data = case.data(path)
    return floats(required(data, name, case.where(path)), name, (None,), source=case.where(path))


def _keys(case: Case, path: str, name: str) -> Integers:
    """A column of ids or indices: int64[N]."""
    listed = required(case.data(path), name, case.where(path))
    return integers(listed, name, (None,), low=0, high=2**31 - 1, source=case.where(path))


def _grid(case: Case, path: str, keys: Mapping[str, Mapping[int, int]], value: str) -> Floats:
    """A column as an array: every combination of the keys' numbers exactly once."""
    source, values = case.where(path), _column(case, path, value)
    places = []
    for key, positions in keys.items():
        column = _keys(case, path, key)
        if len(column) != len(values):
            raise InputError(
                "columns of different length", source=source, field=key, value=len(column), expected=str(len(values))
            )
        unknown = ~np.isin(column, list(positions))
        if unknown.any():
            row, expected = int(unknown.argmax()), f"one of {len(positions)} known"
            number = int(column[row])
            raise InputError("refers to nothing", source=source, field=f"{key}[{row}]", value=number, expected=expected)
        places.append(np.array([positions[known] for known in column.tolist()]))
    shape = tuple(len(positions) for positions in keys.values())
    counts = np.zeros(shape, np.int64)
    np.add.at(counts, tuple(places), 1)
    for wrong in np.argwhere(counts != 1)[:1].tolist():
        found = ", ".join(f"{key} {list(keys[key])[k]}" for key, k in zip(keys, wrong, strict=True))
        problem = "missing row" if counts[tuple(wrong)] == 0 else "row given twice"
        raise InputError(problem, source=source, field=value, value=found, expected="each combination once")
    array = np.empty(shape)
    array[tuple(places)] = values
    return array
