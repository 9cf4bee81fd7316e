"""Public data files: an offline mirror, a cache, and a download with a checksum.

A file of a domain is looked for in this order:

1. the mirror: ``$ORL_DATA_DIR/<domain>/<filename>`` (the folder may be written without the underscore, ``jobshop``);
2. the cache: ``$ORL_CACHE_DIR/<domain>/<filename>``, by default the user's cache folder, checked against its SHA-256;
3. with ``download=True``: its address, fetched once into the cache and checked.

Nothing is downloaded unless asked for (``orl data fetch <domain>``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orl.common.errors import DataUnavailableError, InputError


@dataclass(frozen=True)
class DataFile:
    """A file that a domain can fetch.

    Attributes:
        name: File name, with folders if it has any (``fjsp/mk01.fjs``).
        url: Where it is downloaded from, at a pinned version.
        sha256: Hexadecimal SHA-256 of its content.
        summary: One line for listings (what it is, licence).
    """

    name: str
    url: str
    sha256: str
    summary: str = ""


def mirror() -> Path | None:
    """The offline mirror ``$ORL_DATA_DIR``, or None if it is not set.

    Raises:
        InputError: It is set but is not a folder.
    """
    value = os.environ.get("ORL_DATA_DIR")
    if not value:
        return None
    if not Path(value).is_dir():
        raise InputError("no such folder", source="environment", field="ORL_DATA_DIR", value=value)
    return Path(value)


def cache_folder() -> Path:
    """Where downloads are kept: ``$ORL_CACHE_DIR`` or the user's cache folder for orl."""
    value = os.environ.get("ORL_CACHE_DIR")
    if value:
        return Path(value)
    import pooch

    return Path(pooch.os_cache("orl"))


def data_path(
    domain: str, filename: str, *, url: str | None = None, sha256: str | None = None, download: bool = False
) -> Path:
    """Path of a data file that is on this machine when the call returns.

    Args:
        domain: Name of the domain (``job_shop``), which is the folder's name.
        filename: File name, with folders if it has any.
        url: Where it can be downloaded from.
        sha256: Hexadecimal SHA-256 that a cached or downloaded copy must have (needed with ``url``).
        download: Whether to download a file that is not here.

    Raises:
        DataUnavailableError: The file is not here and may not or cannot be downloaded; the message says how to get it.
        InputError: ``domain`` or ``filename`` leads out of its folder.
    """
    for field, value in (("domain", domain), ("filename", filename)):
        if Path(value).is_absolute() or ".." in Path(value).parts or not value:
            raise InputError("not a plain relative path", field=field, value=value)
    if url is not None and sha256 is None:
        raise InputError("a download without a checksum", field="sha256", value=url, expected="the SHA-256 of the file")
    found = _in_mirror(domain, filename)
    if found is not None:
        return found
    cached = cache_folder() / domain / filename
    if cached.is_file() and (sha256 is None or _sha256(cached) == sha256.lower()):
        return cached
    if not download or url is None or sha256 is None:
        raise DataUnavailableError(f"{filename} is not on this machine. {_advice(domain, filename, url)}")
    return _download(domain, filename, url, sha256)


def fetch(domain: str, files: Iterable[DataFile]) -> list[Path]:
    """Make sure that these files are on this machine, downloading what is missing; returns their paths."""
    return [data_path(domain, file.name, url=file.url, sha256=file.sha256, download=True) for file in files]


def is_available(domain: str, file: DataFile) -> bool:
    """Whether the file is here, in the mirror or in the cache."""
    try:
        data_path(domain, file.name, url=file.url, sha256=file.sha256)
    except DataUnavailableError:
        return False
    return True


def _in_mirror(domain: str, filename: str) -> Path | None:
    root = mirror()
    if root is None:
        return None
    candidates = (root / folder / filename for folder in (domain, domain.replace("_", "")))
    return next((path for path in candidates if path.is_file()), None)


def _advice(domain: str, filename: str, url: str | None) -> str:
    where = mirror()
    ways = [f"run `orl data fetch {domain}` once with network access"] if url else []
    if where is None:
        ways.append(f"set ORL_DATA_DIR to a folder that holds {domain}/{filename}")
    else:
        ways.append(f"put it into {where / domain} (ORL_DATA_DIR is set, and the file is not there)")
    if url:
        ways.append(f"download {url} yourself to {cache_folder() / domain / filename}")
    return "Either " + ", or ".join(ways) + "."


def _download(domain: str, filename: str, url: str, sha256: str) -> Path:
    import pooch
    import requests

    folder = cache_folder() / domain
    target = folder / filename
    try:
        path = pooch.retrieve(
            url, known_hash=f"sha256:{sha256}", fname=target.name, path=target.parent, progressbar=False
        )
    except requests.exceptions.RequestException as error:
        raise DataUnavailableError(
            f"{filename} could not be downloaded from {url} ({error}). {_advice(domain, filename, url)}"
        ) from error
    except (ValueError, OSError) as error:
        raise DataUnavailableError(
            f"{url} did not give the file expected, or it could not be stored ({error}). "
            f"{_advice(domain, filename, url)}"
        ) from error
    return Path(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
