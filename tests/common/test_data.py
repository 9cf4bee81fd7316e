"""Where data files come from: mirror, cache, download with a checksum, and a clear error otherwise."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading

import pytest

from orl.common import data
from orl.common.errors import DataUnavailableError, InputError

CONTENT = b"6 6\n2 1\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("ORL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ORL_DATA_DIR", raising=False)
    return tmp_path


@pytest.fixture
def server(tmp_path):
    """A web server on this machine that holds ``a.txt``; yields its address and the requests it saw."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.txt").write_bytes(CONTENT)
    seen: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            seen.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", seen
        httpd.shutdown()


@pytest.mark.parametrize("folder", ["job_shop", "jobshop"])
def test_the_mirror_comes_first(places, monkeypatch, folder) -> None:
    (places / "mirror" / folder / "sub").mkdir(parents=True)
    file = places / "mirror" / folder / "sub" / "a.txt"
    file.write_bytes(CONTENT)
    monkeypatch.setenv("ORL_DATA_DIR", str(places / "mirror"))
    assert data.data_path("job_shop", "sub/a.txt") == file
    assert data.data_path("job_shop", "sub/a.txt", url="http://x.invalid/a", sha256=DIGEST, download=True) == file


def test_a_download_is_checked_and_kept(places, server) -> None:
    address, seen = server
    file = data.DataFile("sub/a.txt", f"{address}/a.txt", DIGEST)
    assert not data.is_available("job_shop", file)
    (path,) = data.fetch("job_shop", [file])
    assert path == places / "cache" / "job_shop" / "sub" / "a.txt"
    assert path.read_bytes() == CONTENT
    assert data.is_available("job_shop", file)
    assert data.fetch("job_shop", [file]) == [path]
    assert len(seen) == 1
    path.write_bytes(b"damaged")
    assert not data.is_available("job_shop", file)
    assert data.fetch("job_shop", [file])[0].read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing_behind(places, server) -> None:
    address, _ = server
    with pytest.raises(DataUnavailableError, match="did not give the file expected"):
        data.data_path("job_shop", "a.txt", url=f"{address}/a.txt", sha256="0" * 64, download=True)
    assert not [path for path in (places / "cache").rglob("*") if path.is_file()]


def test_nothing_is_downloaded_unless_asked_for(server) -> None:
    address, seen = server
    with pytest.raises(DataUnavailableError, match="orl data fetch job_shop.*ORL_DATA_DIR"):
        data.data_path("job_shop", "a.txt", url=f"{address}/a.txt", sha256=DIGEST)
    assert seen == []


def test_being_offline_is_explained(server) -> None:
    address, _ = server
    with pytest.raises(DataUnavailableError, match="could not be downloaded.*ORL_DATA_DIR"):
        data.data_path("job_shop", "a.txt", url="http://127.0.0.1:9/a.txt", sha256=DIGEST, download=True)
    with pytest.raises(DataUnavailableError, match="could not be downloaded"):
        data.data_path("job_shop", "b.txt", url=f"{address}/missing.txt", sha256=DIGEST, download=True)


def test_bad_arguments_are_refused(places, monkeypatch) -> None:
    for domain, name in (("job_shop", "../secret"), ("job_shop", "/etc/passwd"), ("..", "a"), ("job_shop", "")):
        with pytest.raises(InputError, match="relative path"):
            data.data_path(domain, name)
    with pytest.raises(InputError, match="checksum"):
        data.data_path("job_shop", "a.txt", url="http://x.invalid/a.txt")
    monkeypatch.setenv("ORL_DATA_DIR", str(places / "nowhere"))
    with pytest.raises(InputError, match="ORL_DATA_DIR"):
        data.data_path("job_shop", "a.txt")
