"""Instances as files: HydroPowerModels case folders, and the versioned JSON of this package.

A case folder holds what HydroPowerModels.jl reads:

=========================== ==========================================================================================
``PowerModels.json``        ``bus`` (``bus_i``, ``bus_type`` 3: reference), ``gen`` (``gen_bus``, ``pmin``, ``pmax``,
                            ``cost``, ``gen_status``), ``branch`` (``f_bus``, ``t_bus``, ``br_r``, ``br_x``,
                            ``rate_a``, ``angmin``, ``angmax``, ``br_status``), ``load`` (``load_bus``, ``pd``,
                            ``status``): objects by number, per unit; ``baseMVA``; ``cost_deficit`` in USD/MW
``hydro.json``              ``Hydrogenerators``: ``index``, ``index_grid`` (the generator), ``min_volume``,
                            ``max_volume``, ``initial_volume`` (hm3), ``min_turn``, ``max_turn`` (m3/s),
                            ``production_factor`` (MW per m3/s), ``spill_cost``, ``downstream_turn``,
                            ``downstream_spill`` (``index`` of plants); ``stage_hours`` (1 where it is missing)
``inflows.csv``             no header; a row for each stage of the cycle; the columns of the first plant, then those of
                            the second, ... (m3/s)
``scenarioprobability.csv`` optional: a row for each stage, a column for each inflow column of a plant
=========================== ==========================================================================================

How it is read: susceptance is ``x / (r^2 + x^2)``; a cost is the linear coefficient of ``cost``, 0 for an empty list,
constant terms are left out; ``rate_a`` missing or 0 is no limit; angle limits of parallel branches are joined; what is
out of service is left out; several loads may share a bus; tap ratios do not count, as in PowerModels' linear flow.
Initial volumes and spill costs below 5e-8 count as 0 (published files hold numbers like 1e-316). Least volumes and
least turbined outflows are limits that must hold; HydroPowerModels lets them be violated at
``minimal_..._violation_cost``. ``final_volume`` is not used. Shunts, storage, dc lines, switches and phase shifters are
refused, as are quadratic or piecewise linear costs.

Whatever is wrong with a file, the answer is one InputError that names file, field and value.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from orl.common.atomic import write_text
from orl.common.errors import InputError
from orl.common.json_files import read_json
from orl.common.numbers import MAX_TABLE, floats, integers
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.case_writer import case_parts
from orl.envs.hydrothermal.instance import Floats, HydrothermalInstance
from orl.envs.hydrothermal.json_format import instance_from_json, instance_to_json
from orl.envs.hydrothermal.network_data import PowerSystem, entry, power_system, required

MAX_FILE_BYTES = 64 * 2**20
SYSTEM, HYDRO, INFLOWS, PROBABILITIES = "PowerModels.json", "hydro.json", "inflows.csv", "scenarioprobability.csv"
_GARBAGE = 5e-8  # initial volumes and spill costs below are meant to be 0
_ROUNDING = 1e-6  # of probabilities written with few digits


def read(path: str | os.PathLike[str], **options: Any) -> HydrothermalInstance:
    """Read a case folder (``options`` as in :func:`read_case`) or a JSON file of this package.

    Raises:
        InputError: anything wrong with the files, missing ones too.
    """
    place = Path(path)
    if place.is_dir():
        return read_case(place, **options)
    if options:
        raise InputError("options are for case folders", source=str(place), value=sorted(options))
    if place.exists() and not place.is_file():
        raise InputError("neither a file nor a folder", source=str(place))
    expected = "a hydrothermal instance"
    return instance_from_json(read_json(place, largest=MAX_FILE_BYTES, expected=expected), str(place))


def write(instance: HydrothermalInstance, path: str | os.PathLike[str]) -> None:
    """Write an instance in the versioned JSON of this package."""
    write_text(path, json.dumps(instance_to_json(instance), allow_nan=False) + "\n")


def read_case(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    network: str = "dc",
    horizon: int | None = None,
    stage_hours: float | None = None,
    demand_scale: Any = 1.0,
    deficit_cost: float | None = None,
) -> HydrothermalInstance:
    """Read a HydroPowerModels case folder.

    Args:
        folder: The folder.
        name: Name of the instance; the folder's where left out.
        network: ``copper``, ``transport`` or ``dc``.
        horizon: T; the rows of ``inflows.csv`` where left out.
        stage_hours: In place of the file's.
        demand_scale: Factor of all loads, or [P], one for each stage of a cycle.
        deficit_cost: USD per MW and hour, in place of the file's.

    Raises:
        InputError: anything wrong with the files; the message names file, field and value.
    """
    place = Path(folder)
    files = {part: place / part for part in (SYSTEM, HYDRO, INFLOWS, PROBABILITIES)}
    for part in (SYSTEM, HYDRO, INFLOWS):
        if not files[part].is_file():
            raise InputError("missing file", source=str(place), field=part, expected="a HydroPowerModels case folder")
    network_data = read_json(files[SYSTEM], largest=MAX_FILE_BYTES, expected="a PowerModels network")
    hydro = read_json(files[HYDRO], largest=MAX_FILE_BYTES, expected="hydro plants")
    inflow_text = _read_text(files[INFLOWS])
    probability_text = _read_text(files[PROBABILITIES]) if files[PROBABILITIES].exists() else None
    return parse_case(
        network_data,
        hydro,
        inflow_text,
        probability_text,
        name=place.resolve().name if name is None else name,
        network=network,
        horizon=horizon,
        stage_hours=stage_hours,
        demand_scale=demand_scale,
        deficit_cost=deficit_cost,
        source=str(place),
    )


def parse_case(
    network_data: Any,
    hydro: Any,
    inflows: str,
    probabilities: str | None = None,
    *,
    name: str = "unnamed",
    network: str = "dc",
    horizon: int | None = None,
    stage_hours: float | None = None,
    demand_scale: Any = 1.0,
    deficit_cost: float | None = None,
    source: str | None = None,
) -> HydrothermalInstance:
    """Like :func:`read_case`, from the JSON data of its first two files and the text of the others."""

    def where(part: str) -> str:
        return part if source is None else os.path.join(source, part)

    system = power_system(network_data, where(SYSTEM))
    plants = _plants(hydro, system, where(HYDRO))
    n = len(plants["plant_names"])
    rows, n_columns = _inflow_shape(table := csv_table(inflows, where(INFLOWS)), n, where(INFLOWS))
    if (table < 0).any():
        row, column = np.argwhere(table < 0)[0].tolist()
        raise InputError(
            "negative inflow",
            source=where(INFLOWS),
            line=row + 1,
            field=f"column {column + 1}",
            value=float(table[row, column]),
        )
    chances = None
    if probabilities is not None:
        chances = _probabilities(probabilities, rows, n_columns, where(PROBABILITIES))
    scale = np.atleast_1d(_scale(demand_scale))
    if deficit_cost is None:
        deficit = required(network_data, "cost_deficit", where(SYSTEM))
        deficit_cost = float(floats(deficit, "cost_deficit", (), low=0, high=1e8, source=where(SYSTEM)))
    hours = hydro.get("stage_hours", 1) if stage_hours is None else stage_hours
    return hydrothermal(
        name=name,
        horizon=rows if horizon is None else horizon,
        network=network,
        stage_hours=float(floats(hours, "stage_hours", (), low=1e-3, high=1e5, source=where(HYDRO))),
        demand=scale[:, None] * system.demand,
        deficit_cost=deficit_cost * system.base_mva,
        inflows=table.reshape(rows, n, n_columns),
        probabilities=chances,
        **plants,
        **system.fields(),
        source=source if source is not None else name,
    )


def write_case(
    instance: HydrothermalInstance, folder: str | os.PathLike[str], *, demand_stage: int | None = None
) -> None:
    """Write an instance as a HydroPowerModels case folder, which :func:`read_case` reads back.

    What the folder does not hold must be said again when it is read: ``network``, and ``horizon`` unless it is the
    number of inflow rows. See :mod:`orl.envs.hydrothermal.case_writer`.

    Args:
        instance: The problem.
        folder: Made where it is missing.
        demand_stage: A case has one demand for all stages: that of this stage (from 0), if stages differ.

    Raises:
        InputError: what a case cannot express; the message names the field, and nothing is written.
    """
    system, hydro, inflows, probabilities = case_parts(instance, demand_stage)
    place = Path(folder)
    texts = {SYSTEM: json.dumps(system, indent=1, allow_nan=False), HYDRO: json.dumps(hydro, indent=1, allow_nan=False)}
    for part, text in texts.items():
        write_text(place / part, text + "\n")
    write_text(place / INFLOWS, inflows)
    if probabilities is None:
        (place / PROBABILITIES).unlink(missing_ok=True)
    else:
        write_text(place / PROBABILITIES, probabilities)


def csv_table(text: str, source: str | None = None) -> Floats:
    """A table of numbers separated by commas, without a header; empty lines at the end do not count.

    Raises:
        InputError: no numbers, a cell that is no finite number, lines of different lengths; with line and column.

    >>> csv_table("1,2\\n3,4")
    array([[1., 2.],
           [3., 4.]])
    """
    lines = text.removeprefix("\ufeff").rstrip().splitlines()
    if not lines:
        raise InputError("empty", source=source, expected="numbers separated by commas")
    width = lines[0].count(",") + 1
    if width * len(lines) > MAX_TABLE:
        raise InputError("too large", source=source, value=width * len(lines), expected=f"<= {MAX_TABLE} numbers")
    table = np.empty((len(lines), width))
    for r, line in enumerate(lines):
        cells = line.split(",")
        if len(cells) != width:
            raise InputError(
                "wrong number of columns",
                source=source,
                line=r + 1,
                value=len(cells),
                expected=f"{width}, as in line 1",
            )
        for c, cell in enumerate(cells):
            table[r, c] = _number(cell, source, r, c)
    return table


# ---- the parts of a case -------------------------------------------------------------------------------------------
def _number(cell: str, source: str | None, row: int, column: int) -> float:
    try:
        value = float(cell) if "_" not in cell else np.nan
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(
            "not a number",
            source=source,
            line=row + 1,
            field=f"column {column + 1}",
            value=cell.strip(),
            expected="a finite number",
        )
    return value


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        expected = "a table of numbers"
        raise InputError("cannot be read", source=str(path), value=str(error), expected=expected) from error
    if len(content) > MAX_FILE_BYTES:
        raise InputError("too large", source=str(path), expected=f"at most {MAX_FILE_BYTES} bytes")
    return text


def _scale(demand_scale: Any) -> Floats:
    one = isinstance(demand_scale, int | float | np.number) and not isinstance(demand_scale, bool)
    return floats(demand_scale, "demand_scale", () if one else (None,), low=0, high=1e6)


def _inflow_shape(table: Floats, n: int, source: str) -> tuple[int, int]:
    """Rows and columns of a plant."""
    rows, width = table.shape
    if width % n:
        raise InputError(
            "the columns do not divide among the plants",
            source=source,
            field="columns",
            value=width,
            expected=f"a multiple of {n} plants",
        )
    return rows, width // n


def _probabilities(text: str, rows: int, n_columns: int, source: str) -> Floats:
    table = csv_table(text, source)
    if table.shape != (rows, n_columns):
        expected = f"[{rows}, {n_columns}], as {INFLOWS} has"
        raise InputError("wrong shape", source=source, value=list(table.shape), expected=expected)
    if (table < 0).any():
        row, column = np.argwhere(table < 0)[0].tolist()
        value = float(table[row, column])
        raise InputError("negative", source=source, line=row + 1, field=f"column {column + 1}", value=value)
    sums = table.sum(1)
    for row in np.flatnonzero(~(np.abs(sums - 1.0) <= _ROUNDING))[:1].tolist():
        raise InputError("does not sum to 1", source=source, line=row + 1, value=float(sums[row]), expected="1")
    return table / sums[:, None]


def _plants(hydro: Any, system: PowerSystem, source: str) -> dict[str, Any]:
    """Fields of the plants, in the order of the file."""
    if not isinstance(hydro, dict):
        raise InputError("not an object", source=source, value=type(hydro).__name__, expected="Hydrogenerators")
    listed = required(hydro, "Hydrogenerators", source)
    if not isinstance(listed, list) or not listed:
        found = "an empty list" if isinstance(listed, list) else type(listed).__name__
        raise InputError("no plants", source=source, field="Hydrogenerators", value=found, expected="a list of plants")
    position: dict[int, int] = {}
    for i, plant in enumerate(listed):
        field = f"Hydrogenerators[{i}]"
        if not isinstance(plant, dict):
            raise InputError("not an object", source=source, field=field, value=type(plant).__name__)
        index = int(
            integers(required(plant, "index", source, field), f"{field}.index", (), low=0, high=10**9, source=source)
        )
        if index in position:
            raise InputError("two plants with one index", source=source, field=f"{field}.index", value=index)
        position[index] = i

    fields: dict[str, Any] = {name: [] for name in _PLANT_FIELDS}
    fields |= {"plant_names": [], "plant_generator": [], "turbine_to": [], "spill_to": []}
    for i, plant in enumerate(listed):
        field = f"Hydrogenerators[{i}]"
        for name, (key, default, smallest) in _PLANT_FIELDS.items():
            value = entry(plant, key, default, source, field, low=0)
            fields[name].append(value if value > smallest else 0.0)
        fields["plant_names"].append(str(plant.get("name", f"plant {i + 1}")).strip()[:100])
        grid = entry(plant, "index_grid", None, source, field, low=0, high=1e9)
        if grid not in system.generators:
            raise InputError(
                "no such generator in service", source=source, field=f"{field}.index_grid", value=plant["index_grid"]
            )
        fields["plant_generator"].append(system.generators[int(grid)])
        for name, key in (("turbine_to", "downstream_turn"), ("spill_to", "downstream_spill")):
            fields[name].append(_receiver(plant, key, position, source, field))
        _require_plant_order(fields, source, field)
    twice = {g for g in fields["plant_generator"] if fields["plant_generator"].count(g) > 1}
    for i, generator in enumerate(fields["plant_generator"]):
        if generator in twice:
            place, value = f"Hydrogenerators[{i}].index_grid", listed[i]["index_grid"]
            raise InputError("two plants with one generator", source=source, field=place, value=value)
    return fields


_PLANT_FIELDS: dict[str, tuple[str, float | None, float]] = {
    "production_factor": ("production_factor", None, 0.0),
    "min_volume": ("min_volume", 0.0, 0.0),
    "max_volume": ("max_volume", None, 0.0),
    "initial_volume": ("initial_volume", None, _GARBAGE),
    "min_outflow": ("min_turn", 0.0, 0.0),
    "max_outflow": ("max_turn", None, 0.0),
    "spill_costs": ("spill_cost", 0.0, _GARBAGE),
}
"""Key in the file, its value where it is missing (None: it must be there), and below what it counts as 0."""


def _require_plant_order(fields: dict[str, Any], source: str, field: str) -> None:
    """The limits of the plant read last, in the words of the file."""
    for low, high in (
        ("min_volume", "max_volume"),
        ("initial_volume", "max_volume"),
        ("min_volume", "initial_volume"),
        ("min_outflow", "max_outflow"),
    ):
        if fields[low][-1] > fields[high][-1]:
            low_key, high_key = _PLANT_FIELDS[low][0], _PLANT_FIELDS[high][0]
            raise InputError(
                f"{low_key} is above {high_key}",
                source=source,
                field=f"{field}.{low_key}",
                value=fields[low][-1],
                expected=f"at most {fields[high][-1]:g}",
            )


def _receiver(plant: dict[str, Any], key: str, position: dict[int, int], source: str, field: str) -> int:
    """Position of the plant downstream, -1 for none."""
    listed = plant.get(key, [])
    place = f"{field}.{key}"
    if not isinstance(listed, list):
        raise InputError("not a list", source=source, field=place, value=listed, expected="index values of plants")
    if not listed:
        return -1
    if len(listed) > 1:
        expected = "at most one plant, or the same water would arrive more than once"
        raise InputError("several plants downstream", source=source, field=place, value=listed, expected=expected)
    index = int(integers(listed[0], f"{place}[0]", (), low=0, high=10**9, source=source))
    if index not in position:
        raise InputError("no such plant", source=source, field=f"{place}[0]", value=index, expected="a plant's index")
    return position[index]
