"""Make the peers' virtual environments: ``python benchmarks/peers/setup.py [PEER ...]`` (all peers by default).

A peer is a folder here with a ``worker.py`` and a pinned ``requirements.txt`` for Python 3.11, or for the version that
``python-version.txt`` names (looked for on the PATH and among pyenv's). One that must be
compiled from its source package has ``build-requirements.txt`` (installed first) and ``source-requirements.txt`` (built
without isolation and without dependencies) too. ``unresolved-requirements.txt`` names packages that are installed last,
as they are, where their own pins are older than Python 3.11. ``repository.txt`` (``URL COMMIT``) names a git
repository that is no package: its files at that commit come into the environment's folder ``source``. An environment
whose pins have not changed is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
STEPS = (
    ("build-requirements.txt", ()),
    ("source-requirements.txt", ("--no-deps", "--no-build-isolation", "--no-binary", ":all:")),
    ("requirements.txt", ()),
    ("unresolved-requirements.txt", ("--no-deps", "--ignore-requires-python")),
)
REPOSITORY = "repository.txt"
VERSION = "python-version.txt"


def names() -> list[str]:
    """Every peer that has a worker here."""
    return sorted(worker.parent.name for worker in FOLDER.glob("*/worker.py"))


def python(peer: str) -> Path:
    """The interpreter of a peer's virtual environment."""
    return FOLDER / ".venvs" / peer / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def source(peer: str) -> Path:
    """The files of a peer that is a git repository."""
    return FOLDER / ".venvs" / peer / "source"


def _pins(peer: str) -> str:
    files = [FOLDER / peer / name for name in (*(name for name, _ in STEPS), REPOSITORY, VERSION)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.exists())).hexdigest()


def is_installed(peer: str) -> bool:
    """Whether the environment is there and was made from the present pins."""
    marker = FOLDER / ".venvs" / peer / ".installed"
    return python(peer).exists() and marker.exists() and marker.read_text() == _pins(peer)


def install(peer: str) -> None:
    """Make a peer's environment; raises RuntimeError with the last lines of pip when that fails."""
    if peer not in names():
        raise RuntimeError(f"no peer named {peer!r}; there are {', '.join(names())}")
    interpreter = _interpreter(peer)
    folder = FOLDER / ".venvs" / peer
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run([interpreter, "-m", "venv", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{interpreter} could not make an environment:\n{(done.stdout + done.stderr).strip()}")
    for name, options in STEPS:
        requirements = FOLDER / peer / name
        if requirements.exists():
            command = [str(python(peer)), "-m", "pip", "install", "--disable-pip-version-check", *options]
            done = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
                raise RuntimeError(f"pip could not install {peer}/{name}:\n{last}")
    if (FOLDER / peer / REPOSITORY).exists():
        _check_out(peer)
    (folder / ".installed").write_text(_pins(peer))


def _interpreter(peer: str) -> str:
    """A Python of the peer's version; raises RuntimeError when there is none."""
    named = FOLDER / peer / VERSION
    wanted = named.read_text().strip() if named.exists() else "3.11"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = [sys.executable, shutil.which(f"python{wanted}"), *sorted(map(str, pyenv.glob(f"{wanted}.*/bin/python")))]
    for candidate in filter(None, known):
        command = [candidate, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0 and found.stdout.strip() == wanted:
            return candidate
    raise RuntimeError(f"the pins of {peer} are for Python {wanted}, which is not on the PATH nor among pyenv's")


def _check_out(peer: str) -> None:
    """Bring a peer's repository at its commit; raises RuntimeError with what git says."""
    url, commit = (FOLDER / peer / REPOSITORY).read_text().split()
    where = str(source(peer))
    for command in (
        ["init", "--quiet", where],
        ["-C", where, "fetch", "--quiet", "--depth", "1", url, commit],
        ["-C", where, "checkout", "--quiet", commit],
    ):
        done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"git could not bring {url}:\n{done.stderr.strip()}")


def main(arguments: list[str]) -> int:
    if any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    failed = []
    for peer in arguments or names():
        if is_installed(peer):
            print(f"{peer}: there already")
            continue
        print(f"{peer}: installing ...", flush=True)
        try:
            install(peer)
        except RuntimeError as error:
            print(f"{peer}: FAILED: {error}", file=sys.stderr)
            failed.append(peer)
        else:
            print(f"{peer}: installed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
