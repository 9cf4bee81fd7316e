"""The files of a cobre case while they are read: what must be there, what is refused, objects and their ids."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orl.common.errors import InputError
from orl.common.numbers import integers
from orl.envs.hydrothermal.cobre_export import TINY
from orl.envs.hydrothermal.network_data import required

LEAVABLE = ("annual_discount_rate", "excess_cost", "exchange_cost", "losses_percent", "max_outflow_m3s")
"""What a caller may leave out of a case: the instance is then another problem than the case."""
CONFIG, STAGES, START, PENALTIES = "config.json", "stages.json", "initial_conditions.json", "penalties.json"
BUSES, LINES, THERMALS, HYDROS = (f"system/{kind}.json" for kind in ("buses", "lines", "thermals", "hydros"))
PRODUCTION = "system/hydro_production_models.json"
INFLOW, LOAD, NOISE = (
    f"scenarios/{n}.parquet" for n in ("inflow_seasonal_stats", "load_seasonal_stats", "noise_openings")
)
REQUIRED = (CONFIG, STAGES, START, PENALTIES, BUSES, LINES, THERMALS, HYDROS, PRODUCTION)
_EMPTY: tuple[Any, ...] = (None, 0, False, [], {}, "")


@dataclass(frozen=True)
class Case:
    """The files of a case, their folder for messages, and what is left out of it."""

    tables: Mapping[str, Any]
    source: str | None
    leave_out: frozenset[str]

    def where(self, path: str) -> str:
        return path if self.source is None else os.path.join(self.source, path)

    def data(self, path: str) -> dict[str, Any]:
        """A JSON file."""
        data = self.tables.get(path)
        if not isinstance(data, dict):
            raise InputError("not an object", source=self.where(path), value=type(data).__name__)
        return data

    def records(self, path: str, key: str) -> list[tuple[str, dict[str, Any]]]:
        """The objects of a list, each with its place."""
        return list(objects(required(self.data(path), key, self.where(path)), self.where(path), key))

    def require_known_files(self) -> None:
        """All that is needed is there, and nothing that changes the problem and is not read."""
        for path in REQUIRED:
            if path not in self.tables:
                raise InputError("missing file", source=self.source, field=path, expected="a cobre case folder")
        for path in sorted(set(self.tables) - {*REQUIRED, INFLOW, LOAD, NOISE}):
            data = self.tables[path]
            listed = [value for key, value in data.items() if key != "$schema"] if isinstance(data, dict) else [data]
            if any(value not in _EMPTY for value in listed):
                raise InputError(
                    "not modelled", source=self.source, field=path, expected="no such file, or an empty one"
                )

    def refuse(self, feature: str, found: float, neutral: float, place: str, path: str) -> None:
        """Refuse a number that our instances cannot express, unless it was to be left out."""
        if abs(found - neutral) > TINY and feature not in self.leave_out:
            expected = f"{neutral:g}" + (f", or leave_out=[{feature!r}]" if feature in LEAVABLE else "")
            raise InputError("not modelled", source=self.where(path), field=place, value=found, expected=expected)

    def only(self, data: Mapping[str, Any], known: Collection[str], place: str, path: str) -> None:
        """Refuse whatever an object says beyond the keys that are read."""
        for key in sorted(set(data) - set(known)):
            if data[key] not in _EMPTY:
                field = f"{place}.{key}" if place else key
                raise InputError("not modelled", source=self.where(path), field=field, value=data[key], expected="null")


def objects(listed: Any, source: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(listed, list):
        raise InputError("not a list", source=source, field=place, value=type(listed).__name__)
    for k, item in enumerate(listed):
        if not isinstance(item, dict):
            raise InputError("not an object", source=source, field=f"{place}[{k}]", value=type(item).__name__)
        yield f"{place}[{k}]", item


def part(item: dict[str, Any], key: str, source: str, place: str) -> dict[str, Any]:
    part = required(item, key, source, place)
    if not isinstance(part, dict):
        raise InputError("not an object", source=source, field=f"{place}.{key}", value=type(part).__name__)
    return part


def by_id(records: list[tuple[str, dict[str, Any]]], source: str) -> dict[int, tuple[str, dict[str, Any]]]:
    """Objects with their places, in the order of their ids, as cobre counts them."""
    found: dict[int, tuple[str, dict[str, Any]]] = {}
    for place, item in records:
        number = int(
            integers(required(item, "id", source, place), f"{place}.id", (), low=0, high=2**31 - 1, source=source)
        )
        if number in found:
            raise InputError("given twice", source=source, field=f"{place}.id", value=number)
        required(item, "name", source, place)
        found[number] = (place, item)
    return dict(sorted(found.items()))


def position_of(item: dict[str, Any], key: str, known: Mapping[int, Any], source: str, place: str) -> int:
    """Position of what an object refers to by its id."""
    number = required(item, key, source, place)
    if isinstance(number, bool) or not isinstance(number, int) or number not in known:
        raise InputError(
            "refers to nothing", source=source, field=f"{place}.{key}", value=number, expected="a known id"
        )
    return list(known).index(number)
