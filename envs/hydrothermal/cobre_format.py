"""Case folders of cobre (cobre-rs/cobre, Apache-2.0; its package cobre-python 0.18), written and read.

Of the formats in which others exchange such problems, this one was chosen. MSPFormat and StochOptFormat (``.sof.json``,
SDDP.jl) state a linear programme for each stage: an instance could be written, but out of nameless rows and columns no
plant, cascade or network can be read again. A cobre case says what is a reservoir and what a line, as an instance
does, comes with published schemas, and is what the peer of our SDDP benchmark runs.

A case is a folder of JSON files, and of tables in Parquet files, which need the extra ``cobre`` (polars):

=========================================== ==========================================================================
``config.json``                             options of cobre's SDDP; written, not read
``stages.json``                             stages, each of one block of hours
``initial_conditions.json``                 volumes at the start
``penalties.json``                          costs of deficit, surplus, spilling, ... where a plant has none of its own
``system/buses.json``, ``lines.json``,      the system; limits in MW, m3/s and hm3, costs in USD per MWh, or per m3/s
``thermals.json``, ``hydros.json``          and hour
``system/hydro_production_models.json``     MW for each m3/s
``scenarios/inflow_seasonal_stats.parquet`` mean and deviation of every plant and stage
``scenarios/noise_openings.parquet``        noise of every stage, opening and plant: inflow = mean + deviation * noise
``scenarios/load_seasonal_stats.parquet``   demand of every stage and bus
=========================================== ==========================================================================

cobre counts costs in USD, instances in USD for each hour of a stage: cobre's figures are ours times ``stage_hours``.

**Written**: networks ``copper`` (all buses as one) and ``transport``. Rows of inflow and demand that repeat are written
out for every stage; a scenario becomes one opening a stage. cobre's limits are soft, with violations that cost more
than they can save; its costs must be above 0, so that 0 becomes 1e-7. Refused (InputError naming the field): ``dc``,
spilled water that goes elsewhere than turbined water, plants that draw apart, columns that are not equally likely,
``surplus=False``.

**Read**: networks with one bus are ``copper``, others ``transport``; limits are hard. Rows that repeat become a cycle.
Branches get susceptance 1, which only ``dc`` would use. Refused: stages of several blocks or of different length
(unless ``stage_hours`` is given), inflow models with memory, random demand, head effects, losses, evaporation, pumps,
contracts, several deficit segments, CVaR, and every other entry that is not read. Five features may be left out on
request (``leave_out``): discounting, a surplus that costs other than deficit, exchange costs, losses of lines, limits
of total outflow.

    >>> from orl.envs.hydrothermal.library import load
    >>> write(load("tri3"), folder)       # doctest: +SKIP
    >>> read(folder).network                        # doctest: +SKIP
    'copper'
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from orl.common.atomic import atomic_path, write_text
from orl.common.errors import InputError, MissingExtraError
from orl.common.json_files import read_json
from orl.envs.hydrothermal.cobre_export import case_tables
from orl.envs.hydrothermal.cobre_import import instance_of
from orl.envs.hydrothermal.formats import MAX_FILE_BYTES
from orl.envs.hydrothermal.instance import HydrothermalInstance

FOLDERS = ("", "system", "scenarios", "constraints")
_UNSIGNED = ("opening_index", "entity_index")


def write(
    instance: HydrothermalInstance,
    folder: str | os.PathLike[str],
    *,
    iterations: int = 100,
    forward_passes: int = 1,
    seed: int = 0,
) -> None:
    """Write an instance as a cobre case.

    Args:
        instance: The problem.
        folder: Made where it is missing; files that a case does not have are left alone.
        iterations, forward_passes, seed: Of cobre's SDDP, in ``config.json``.

    Raises:
        InputError: What cobre cannot express; nothing is written then.
        MissingExtraError: polars is not installed.
    """
    polars = _polars()
    tables = case_tables(instance, iterations=iterations, forward_passes=forward_passes, seed=seed)
    for path, data in tables.items():
        if path.endswith(".json"):
            write_text(Path(folder) / path, json.dumps(data, indent=1, allow_nan=False) + "\n")
        else:
            with atomic_path(Path(folder) / path) as temporary:
                polars.DataFrame(data, schema={name: _type(polars, name) for name in data}).write_parquet(temporary)


def read(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    stage_hours: float | None = None,
    leave_out: Collection[str] = (),
) -> HydrothermalInstance:
    """Read a cobre case.

    Args:
        folder: The case.
        name: Name of the instance; the folder's where left out.
        stage_hours: Hours of every stage, in place of the case's; needed where those differ from stage to stage.
        leave_out: Features not to model instead of refusing the case for them:
            ``annual_discount_rate``, ``excess_cost``, ``exchange_cost``, ``losses_percent``, ``max_outflow_m3s``.

    Raises:
        InputError: anything missing, wrong or not modelled; the message names file, field and value.
        MissingExtraError: polars is not installed.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError("not a folder", source=str(place), expected="a cobre case")
    tables: dict[str, Any] = {}
    for part in FOLDERS:
        for file in sorted((place / part).glob("*")):
            path = file.relative_to(place).as_posix()
            if file.suffix == ".json":
                tables[path] = read_json(file, largest=MAX_FILE_BYTES, expected="a file of a cobre case")
            elif file.suffix == ".parquet":
                tables[path] = _read_parquet(file)
    known = place.resolve().name if name is None else name
    return instance_of(tables, name=known, source=str(place), stage_hours=stage_hours, leave_out=leave_out)


def _read_parquet(file: Path) -> dict[str, list[Any]]:
    polars = _polars()
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError("too large", source=str(file), expected=f"at most {MAX_FILE_BYTES} bytes")
        columns: dict[str, list[Any]] = polars.read_parquet(file).to_dict(as_series=False)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise InputError("cannot be read", source=str(file), value=str(error), expected="a Parquet table") from error
    return columns


def _type(polars: Any, column: str) -> Any:
    if column in _UNSIGNED:
        return polars.UInt32
    return polars.Int32 if column.endswith("_id") else polars.Float64


def _polars() -> Any:
    try:
        import polars
    except ModuleNotFoundError as error:
        raise MissingExtraError("polars", "cobre", "Reading or writing cobre cases") from error
    return polars
