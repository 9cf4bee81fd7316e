"""Named hydrothermal instances.

======================= ======================================================= =====================================
names                   what                                                    where the numbers come from
======================= ======================================================= =====================================
tri3                    3 plants in cascade, 2 thermal plants, one bus, T = 4   in this package
cascade-NxB-sSEED       N plants and B buses at random, T = 24 months           made from the seed
bolivia                 11 plants, 23 thermal plants, 28 buses, T = 96 weeks    data files: ``ORL_DATA_DIR`` or
bolivia-paper2024       the same with K = 0.0036, as in the TS-DDR paper        ``orl data fetch hydrothermal``
bolivia-seasonal        the same with seasonal demand and dear deficit
case3,                  1 plant, 2 thermal plants, 3 buses, T = 12
case3deterministic
NAME-copper,            another network than ``dc`` (``tri3`` has one bus)
NAME-transport
NAME-tT                 the same problem over T stages, ``bolivia-copper-t12``
NAME/scenario-SEED      what ``reset(seed=SEED)`` meets: inflow columns fixed
======================= ======================================================= =====================================

Costs are USD for each hour of a stage, summed over the stages, as in HydroPowerModels.jl; times ``stage_hours / 1000``
they are thousands of USD. That one factor leads from ours to figures that count whole stages: the exact optimum of
``tri3`` (T = 4) is 3582.992740 here, and 3582.992740 * 730 / 1000 = 2615.584700 kUSD.

``bolivia`` follows today's convention: weekly stages (168 hours, K = 0.6048 hm3 for each m3/s) and 0.6 of the loads
of the file. ``bolivia-paper2024`` has K = 0.0036, which the paper's code used by mistake: no large reservoir can fill,
so its results are about another problem. Paper-era code also drew a column for each plant: ``replace(instance,
joint=False)``. ``bolivia-seasonal`` has loads pd * (0.85 + 0.20 cos(2 pi (t - 28) / 48)), t = 1..48, and deficit at
1e5 USD for each per unit and hour.

Data: ``bolivia`` from LearningToOptimize/DecisionRules.jl, MIT licence, copyright (c) 2024 Andrew Rosemberg; ``case3``
and ``case3deterministic`` from LAMPSPUC/HydroPowerModels.jl, MIT licence, copyright (c) 2019 Andrew David Werner
Rosemberg.

    >>> instance = load("tri3")
    >>> instance.plant_names, instance.horizon, round(instance.water_factor, 3)
    (('A', 'B', 'C'), 4, 2.628)
    >>> load("tri3-t6/scenario-0").columns.shape
    (6,)
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from orl.common.data import DataFile, data_path, is_available
from orl.common.data import fetch as fetch_files
from orl.common.errors import UnknownNameError
from orl.envs.hydrothermal import formats
from orl.envs.hydrothermal.builders import hydrothermal
from orl.envs.hydrothermal.generators import cascade
from orl.envs.hydrothermal.instance import HydrothermalInstance

DOMAIN = "hydrothermal"
_BOLIVIA = (
    "https://raw.githubusercontent.com/LearningToOptimize/DecisionRules.jl"
    "/5863bc139953717ddf83774fb7c949b9c820ba6d/examples/HydroPowerModels"
)
_CASE3 = (
    "https://raw.githubusercontent.com/LAMPSPUC/HydroPowerModels.jl/2d6781807dff49799110002591a218fa069f05a0/testcases"
)
_DIGESTS = {
    "bolivia/PowerModels.json": "1ff598447957f9fc17ca570415bf5b9b5b14e1292ea3bd3163db0ad79911a782",
    "bolivia/hydro.json": "b25ce1c7bafcfaf907091dcd1007949c79a79974c9a33020b2587400d756b29a",
    "bolivia/inflows.csv": "5afb275dff3fc879e3e93b6510b81295834faad0bcd2bd1fc070a8e3e6653c77",
    "case3/PowerModels.json": "48eb20df6a10707c3777e4aa9522afddb9525897802f27fe55cc727ef452dc7a",
    "case3/hydro.json": "c0072a3a510c6c3b54dbeb3f5c0f56682ca16de812d49f5f937033f1a4989f96",
    "case3/inflows.csv": "ee2b63d0dfb9e56707d4f431eeb9a29ff733c53fdc8df97a4b70856b8885516f",
    "case3/scenarioprobability.csv": "ddc05488569b5616944a75afa463bb49cf238f2fe0cdbe62920cc9b3e0444ae2",
    "case3deterministic/PowerModels.json": "48eb20df6a10707c3777e4aa9522afddb9525897802f27fe55cc727ef452dc7a",
    "case3deterministic/hydro.json": "c0072a3a510c6c3b54dbeb3f5c0f56682ca16de812d49f5f937033f1a4989f96",
    "case3deterministic/inflows.csv": "35159bdcf6c4cd92de8f67ea0511e5a82a85abe11c8bc3df409c364410623104",
    "case3deterministic/scenarioprobability.csv": "8861e2cda57344ae9b6414195f33ddad1b88087761f13fecf68b1b6cf339eefa",
}
DATA_FILES: tuple[DataFile, ...] = tuple(
    DataFile(name, f"{_BOLIVIA if name.startswith('bolivia') else _CASE3}/{name}", digest, f"{name} (MIT)")
    for name, digest in _DIGESTS.items()
)
"""What ``orl data fetch hydrothermal`` downloads: pinned commits on GitHub, with checksums."""
_SEASON = [0.85 + 0.20 * math.cos(2 * math.pi * (t - 28) / 48) for t in range(1, 49)]
_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "bolivia": ("bolivia", {"horizon": 96, "demand_scale": 0.6}),
    "bolivia-paper2024": ("bolivia", {"horizon": 96, "demand_scale": 0.6, "stage_hours": 1.0}),
    "bolivia-seasonal": ("bolivia", {"horizon": 96, "demand_scale": _SEASON, "deficit_cost": 1000.0}),
    "case3": ("case3", {}),
    "case3deterministic": ("case3deterministic", {}),
}
"""Names of cases from files: the folder, and how it is read."""
_SCENARIO = re.compile(r"(.+)/scenario-([0-9]{1,19})")
_HORIZON = re.compile(r"(.+)-t([0-9]{1,9})")
_NETWORK = re.compile(r"(.+)-(copper|transport)")
_CASCADE = re.compile(r"cascade-([1-9][0-9]{0,2})x([1-9][0-9]{0,3})-s(0|[1-9][0-9]{0,18})")


def load(name_or_path: str | os.PathLike[str]) -> HydrothermalInstance:
    """The instance of a library name, of a HydroPowerModels case folder, or of a JSON file.

    Raises:
        UnknownNameError: no such name; the message offers the nearest ones.
        DataUnavailableError: the name is known, its data files are not here; the message says how to get them.
        InputError: something is wrong with the files, or with the horizon of the name.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str):
        found = _named(text)
        if found is not None:
            return found
    looks_like_path = not isinstance(name_or_path, str) or os.sep in text or text.endswith(".json")
    if (looks_like_path and not text.startswith(_ROOTS)) or os.path.exists(text):
        return formats.read(text)
    raise UnknownNameError("instance", text, names())


def names() -> list[str]:
    """The names that :func:`load` knows; of horizons and scenarios only examples."""
    networks = [f"{name}-{network}" for name in _PRESETS for network in ("copper", "transport")]
    examples = ["cascade-6x5-s0", "tri3-t6", "tri3-t6/scenario-0", "bolivia-copper-t12/scenario-0"]
    return ["tri3", *_PRESETS, *networks, *examples]


def available() -> list[str]:
    """The names of :func:`names` that :func:`load` can load now, without a network."""
    return [name for name in names() if _is_here(name)]


def fetch() -> list[Path]:
    """Make sure that the data files of the cases are on this machine, downloading what is missing."""
    return fetch_files(DOMAIN, DATA_FILES)


# ---- where a name leads --------------------------------------------------------------------------------------------
_ROOTS = ("tri3", "bolivia", "case3", "cascade-")


def _named(name: str) -> HydrothermalInstance | None:
    """The instance of a name, with its network, horizon and scenario; None if it is no name of the library."""
    if match := _SCENARIO.fullmatch(name):
        base = _named(match[1])
        return None if base is None or base.columns is not None else base.scenario(int(match[2]))
    if (match := _HORIZON.fullmatch(name)) and (base := _base(match[1])) is not None:
        return base.with_horizon(int(match[2]))
    return _base(name)


def _base(name: str) -> HydrothermalInstance | None:
    """The instance of a name without horizon and scenario."""
    if name == "tri3":
        return _tri3()
    match = _NETWORK.fullmatch(name)
    preset, network = (match[1], match[2]) if match else (name, "dc")
    if made := _CASCADE.fullmatch(preset):
        plants, buses, seed = (int(part) for part in made.groups())
        return replace(cascade(plants, buses, seed, network=network), name=name)
    if preset not in _PRESETS:
        return None
    folder, options = _PRESETS[preset]
    return formats.read_case(_folder(folder), name=name, network=network, **options)


def _folder(case: str) -> Path:
    """The folder of a case, whose files are all here."""
    folders = [data_path(DOMAIN, file.name, url=file.url, sha256=file.sha256).parent for file in _files(case)]
    return folders[0]


def _files(case: str) -> list[DataFile]:
    return [file for file in DATA_FILES if file.name.split("/")[0] == case]


def _is_here(name: str) -> bool:
    case = next((case for case in ("bolivia", "case3deterministic", "case3") if name.startswith(case)), None)
    return case is None or all(is_available(DOMAIN, file) for file in _files(case))


def _tri3() -> HydrothermalInstance:
    """Plants A and C on their own, A above B; thermal plants of 30 MW at 20 and 40 MW at 60 USD/MWh, deficit at 500.

    Stages of 730 hours, so K = 2.628 hm3 for each m3/s. Inflows of a stage are its base row times 0.6, 1.0 or 1.5, all
    plants alike, with probability 1/3 each; demand and inflows repeat after 4 stages, from stage 0 on.
    """
    base = [(30.0, 10.0, 14.0), (22.0, 8.0, 10.0), (12.0, 4.0, 6.0), (16.0, 5.0, 8.0)]
    return hydrothermal(
        name="tri3",
        horizon=4,
        network="copper",
        stage_hours=730.0,
        base_mva=100.0,
        plant_names=("A", "B", "C"),
        plant_generator=[0, 1, 2],
        production_factor=[1.0, 0.6, 0.8],
        max_volume=[200.0, 20.0, 80.0],
        initial_volume=[100.0, 10.0, 40.0],
        max_outflow=[40.0, 60.0, 25.0],
        turbine_to=[1, -1, -1],
        spill_to=[1, -1, -1],
        max_power=[0.40, 0.36, 0.20, 0.30, 0.40],
        generator_costs=[0.0, 0.0, 0.0, 2000.0, 6000.0],  # USD per 100 MW and hour
        deficit_cost=50000.0,
        demand=[[0.90], [0.95], [1.05], [1.00]],
        inflows=[[[share * mean for share in (0.6, 1.0, 1.5)] for mean in row] for row in base],
        bus_names=("system",),
    )
