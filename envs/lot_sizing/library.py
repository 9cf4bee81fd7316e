"""Named lot-sizing instances.

================== ========================================================= ====================================
names              what                                                      where the numbers come from
================== ========================================================= ====================================
ls-2x1             2 items, 1 machine, T = 3 (the authors' ``2items_VI``)    in this package
ls-4x2, ls-6x3     4 items on 2, 6 items on 3 machines, T = 100              in this package
ls-IxM-sSEED       the recipe of the PDPPO paper for any sizes and seeds,    made from the seed
                   for instance ``ls-15x5-s0``, T = 100
ls-mit-10x5,       the authors' larger instances, T = 100                    data file: ``ORL_DATA_DIR`` or
ls-mit-15x5,                                                                 ``orl data fetch lot_sizing``
ls-mit-15x5-i100,
ls-mit-20x10,
ls-mit-25x10
NAME-tT            the same problem over T periods, ``ls-4x2-t20``
NAME/scenario-SEED what ``reset(seed=SEED)`` meets: start and demand path
NAME/scenario-     the same demand path from the instance's own start
SEED-fixed
================== ========================================================= ====================================

The figures of the authors' instances are from github.com/leokan92/discrete_lot_sizing_rl_agents, MIT licence,
copyright (c) 2023 Leonardo.

    >>> instance = load("ls-4x2")
    >>> instance.n_items, instance.n_machines, instance.horizon
    (4, 2, 100)
    >>> load("ls-2x1-t6/scenario-0").demand_path.shape
    (6, 2)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orl.common.data import DataFile, data_path, is_available
from orl.common.data import fetch as fetch_files
from orl.common.errors import UnknownNameError
from orl.envs.lot_sizing import formats
from orl.envs.lot_sizing.builders import lot_sizing
from orl.envs.lot_sizing.distributions import binomial, pmf
from orl.envs.lot_sizing.generators import paper_recipe
from orl.envs.lot_sizing.instance import LotSizingInstance

DOMAIN = "lot_sizing"
_AUTHORS = (
    "https://raw.githubusercontent.com/leokan92/discrete_lot_sizing_rl_agents"
    "/3647da5ba5407c0884b5f08ad79865ac41385cdf/cfg_env"
)
_MIT_FILES = {
    "ls-mit-10x5": ("10items_5machines", "e3baa5bf0b6a8fed8ebec70ab30cb61e8d056612fca2598237df61ada5967505"),
    "ls-mit-15x5": ("15items_5machines_t100", "098d8c826ddd4708d15f88b119e0160b35196b0358494e74f8468d4f1e216aa8"),
    "ls-mit-15x5-i100": ("15items_5machines_i100", "1a5f98b05dd07785f01720c30124aea56de2e5ac0ecbffb48d778dee41a13291"),
    "ls-mit-20x10": ("20items_10machines", "f5248348ea3a3448ee2b43bc56a583d44d976a7f430dafc16fc8c6c440f97f4e"),
    "ls-mit-25x10": ("25items_10machines", "1b98377f2f45cd9d010dee35609341cea7ef9de744431f69758718c4b54b4d6f"),
}
DATA_FILES: tuple[DataFile, ...] = tuple(
    DataFile(f"setting_{stem}.json", f"{_AUTHORS}/setting_{stem}.json", digest, f"{name} (MIT)")
    for name, (stem, digest) in _MIT_FILES.items()
)
"""What ``orl data fetch lot_sizing`` downloads: a pinned commit on GitHub, with checksums."""
_FILE = dict(zip(_MIT_FILES, DATA_FILES, strict=True))
_RECIPES = ("ls-15x5-s0", "ls-20x10-s0", "ls-25x10-s0", "ls-25x15-s0", "ls-30x10-s0", "ls-30x15-s0")
_SCENARIO = re.compile(r"(.+)/scenario-([0-9]{1,19})(-fixed)?")
_HORIZON = re.compile(r"(.+)-t([0-9]{1,9})")
_RECIPE = re.compile(r"ls-([1-9][0-9]{0,3})x([1-9][0-9]{0,3})-s(0|[1-9][0-9]{0,18})")


def load(name_or_path: str | os.PathLike[str]) -> LotSizingInstance:
    """The instance of a library name, or of a JSON file (:mod:`orl.envs.lot_sizing.formats`).

    Raises:
        UnknownNameError: no such name; the message offers the nearest ones.
        DataUnavailableError: the name is known, its data file is not here; the message says how to get it.
        InputError: something is wrong with the file, or with the sizes or the horizon of the name.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, str):
        found = _named(text)
        if found is not None:
            return found
    looks_like_path = not isinstance(name_or_path, str) or os.sep in text or text.endswith(".json")
    if (looks_like_path and not text.startswith("ls-")) or os.path.exists(text):
        return formats.read(text)
    raise UnknownNameError("instance", text, names())


def names() -> list[str]:
    """The names that :func:`load` knows; of recipes, horizons and scenarios only examples."""
    return [*_SMALL, *_RECIPES, *_MIT_FILES, "ls-2x1-t6", "ls-4x2-t20", "ls-2x1-t6/scenario-0", "ls-4x2/scenario-0"]


def available() -> list[str]:
    """The names of :func:`names` that :func:`load` can load now, without a network."""
    return [name for name in names() if name not in _FILE or is_available(DOMAIN, _FILE[name])]


def fetch() -> list[Path]:
    """Make sure that the data files of the larger instances are on this machine, downloading what is missing."""
    return fetch_files(DOMAIN, DATA_FILES)


# ---- where a name leads --------------------------------------------------------------------------------------------
def _named(name: str) -> LotSizingInstance | None:
    """The instance of a name, with its horizon and scenario; None if it is no name of the library."""
    if match := _SCENARIO.fullmatch(name):
        base = _named(match[1])
        if base is None or base.demand_path is not None:
            return None
        return base.scenario(int(match[2]), "fixed" if match[3] else "random")
    if (base := _base(name)) is not None:
        return base
    if (match := _HORIZON.fullmatch(name)) and (base := _base(match[1])) is not None:
        return base.with_horizon(int(match[2]))
    return None


def _base(name: str) -> LotSizingInstance | None:
    """The instance of a name without additions."""
    if name in _SMALL:
        return _SMALL[name]()
    if name in _FILE:
        file = _FILE[name]
        path = data_path(DOMAIN, file.name, url=file.url, sha256=file.sha256)
        return replace(formats.read(path), name=name)
    if match := _RECIPE.fullmatch(name):
        items, machines, seed = (int(part) for part in match.groups())
        return paper_recipe(items, machines, seed)
    return None


def _two_items() -> LotSizingInstance:
    return lot_sizing(
        name="ls-2x1",
        horizon=3,
        production=[[3, 3]],
        setup_costs=1.0,
        setup_loss=1,
        holding_costs=0.1,
        lost_sales_costs=2.0,
        max_inventory=5,
        demand=pmf(2, [0, 1], [0.5, 0.5]),
    )


def _four_items() -> LotSizingInstance:
    return lot_sizing(
        name="ls-4x2",
        horizon=100,
        production=[[3, 1, 3, 3], [0, 3, 2, 0]],
        setup_costs=2.0,
        setup_loss=1,
        holding_costs=0.1,
        lost_sales_costs=[3, 2, 2, 1],
        max_inventory=10,
        demand=binomial(4, 4, 0.4),
        initial_setup=[4, 0],
    )


def _six_items() -> LotSizingInstance:
    return lot_sizing(
        name="ls-6x3",
        horizon=100,
        production=[[2, 1, 4, 0, 0, 3], [2, 3, 2, 0, 1, 0], [3, 0, 2, 3, 3, 4]],
        setup_costs=1.0,
        setup_loss=1,
        holding_costs=0.1,
        lost_sales_costs=2.0,
        max_inventory=10,
        demand=binomial(6, 4, 0.4),
    )


_SMALL: dict[str, Callable[[], LotSizingInstance]] = {"ls-2x1": _two_items, "ls-4x2": _four_items, "ls-6x3": _six_items}
