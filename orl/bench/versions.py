"""What a record says of its surroundings: package versions, git commit, machine. Each is looked up once a process."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import orl
from orl.common.errors import InputError, MissingExtraError, UnknownNameError

PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "gymnasium",
    "stable-baselines3",
    "sb3-contrib",
    "torch",
    "numba",
    "ortools",
    "highspy",
    "pyomo",
    "optuna",
    "ray",
)
"""Packages whose versions a record holds, where they are installed."""


@cache
def env_version(env_id: str) -> str:
    """Distribution and version of the package that implements an environment.

    Args:
        env_id: Gymnasium id, with ``module:`` in front where a module has to be imported first.

    Returns:
        Such as ``gymnasium 1.4.0``; a module that no installed package owns is ``name unversioned``.

    Raises:
        gymnasium.error.Error: no such id. ImportError: its module cannot be imported.

    >>> env_version("orl/JobShop-v0") == f"orl {orl.__version__}"
    True
    """
    entry_point = env_spec(env_id).entry_point
    module = entry_point if isinstance(entry_point, str) else entry_point.__module__
    package = str(module).partition(":")[0].partition(".")[0]
    return f"{package} {orl.__version__}" if package == "orl" else _distribution(package)


def env_spec(env_id: str) -> Any:
    """Gymnasium's entry of an id; ``module:id`` imports the module, which registers it.

    Raises:
        gymnasium.error.Error: no such id. ImportError: the module cannot be imported.
    """
    import gymnasium

    module, _, plain = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gymnasium.spec(plain)


@cache
def _distribution(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        # Reading which package owns which module takes a third of a second, so it is the second try.
        owners = importlib.metadata.packages_distributions().get(package)
    if not owners:
        return f"{package} unversioned"
    owner = sorted(owners)[0]
    return f"{owner} {importlib.metadata.version(owner)}"


def package_versions() -> dict[str, str]:
    """Versions of Python, orl and the installed ones of :data:`PACKAGES`."""
    return dict(_package_versions())


@cache
def _package_versions() -> tuple[tuple[str, str], ...]:
    versions = {"python": platform.python_version(), "orl": orl.__version__}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(versions.items())


def git_state(root: Path | None = None) -> dict[str, Any]:
    """Commit of a work tree, and whether tracked files were changed since.

    Args:
        root: Folder in the work tree; by default the one orl is imported from, which counts only if git tracks it.

    Returns:
        ``{"commit": str | None, "dirty": bool | None}``; None without git, outside a work tree, and for an installed
        copy of orl. Looked up once a process and folder: a long sweep does not ask git at every run.
    """
    commit, dirty = _git_state(_source_folder() if root is None else root.resolve(), root is None)
    return {"commit": commit, "dirty": dirty}


@cache
def _git_state(root: Path, only_if_tracked: bool) -> tuple[str | None, bool | None]:
    if only_if_tracked and not _git(root, "ls-files", "--", "__init__.py"):
        return None, None
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None, None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit.decode().strip(), None if changes is None else bool(changes.strip())


def code_state() -> str:
    """What ``--strict-code`` puts into the hash of a run: the commit and, after changes, a digest of them.

    Raises:
        InputError: orl was not imported from a work tree of git, or git is missing.
    """
    state = git_state()
    changes = _git(_source_folder(), "diff", "--no-ext-diff", "--binary", "HEAD") if state["dirty"] else b""
    if state["commit"] is None or changes is None:
        expected = "orl imported from a git work tree, or a sweep without --strict-code"
        raise InputError("the code has no commit", field="--strict-code", expected=expected)
    return str(state["commit"]) + (f"+{hashlib.sha256(changes).hexdigest()[:12]}" if changes else "")


def _source_folder() -> Path:
    return Path(orl.__file__).resolve().parent


def _git(root: Path, *arguments: str) -> bytes | None:
    """Output of a git command that only reads; None when it fails or there is no git."""
    program = shutil.which("git")
    if program is None:
        return None
    command = [program, "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """The machine: host name, system, processor, cores (of the machine, and usable by this process), memory in MB."""
    return dict(_machine())


@cache
def _machine() -> tuple[tuple[str, Any], ...]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        ("host", platform.node()),
        ("system", platform.platform()),
        ("processor", _processor()),
        ("cores", os.cpu_count()),
        ("usable_cores", usable),
        ("memory_mb", _memory_mb()),
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux: the platform module knows less, but something
    return platform.processor() or platform.machine()


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def extras() -> tuple[str, ...]:
    """Extras of orl that can be installed, as its metadata lists them."""
    return tuple(importlib.metadata.metadata("orl").get_all("Provides-Extra") or ())


def require_extra(name: str) -> None:
    """Check that everything an extra of orl brings is installed.

    Raises:
        UnknownNameError: orl has no such extra.
        MissingExtraError: a package of it is missing.
    """
    if name not in extras():
        raise UnknownNameError("extra", name, extras())
    package = _missing("orl", name, frozenset())
    if package is not None:
        raise MissingExtraError(package, name, "this sweep")


def _missing(distribution: str, extra: str, seen: frozenset[tuple[str, str]]) -> str | None:
    """The first package of an extra that is not installed, following extras of its packages."""
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires(distribution) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue  # needed anyway, or by another extra
        try:
            importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return requirement.name
        for further in sorted(requirement.extras):
            step = (requirement.name, further)
            package = None if step in seen else _missing(*step, seen | {step})
            if package is not None:
                return package
    return None
