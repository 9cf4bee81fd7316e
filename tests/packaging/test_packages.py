"""The package list of setup.cfg follows the folders, and the wheel holds orl and nothing beside it."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"orl": "orl", "orl.envs": "envs", "orl.solvers": "solvers"}


def packages_on_disk() -> set[str]:
    found = set()
    for package, folder in ROOMS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that no build folder of the checkout takes part."""
    source = tmp_path_factory.mktemp("source")
    for folder in ROOMS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--no-index", "-w", target, source], check=True, cwd=target)
    return zipfile.ZipFile(next(target.glob("orl-*.whl")))


def test_setup_cfg_lists_every_package() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_on_disk()


def test_every_folder_with_modules_is_a_package() -> None:
    loose = [
        module
        for folder in ROOMS.values()
        for module in (ROOT / folder).rglob("*.py")
        if not (module.parent / "__init__.py").exists()
    ]
    assert loose == []


def test_wheel_holds_every_module_and_data_file(source: Path, wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    missing = []
    for package, folder in ROOMS.items():
        for file in (source / folder).rglob("*"):
            if file.is_file() and file.suffix in {".py", ".typed", ".csv", ".txt", ".json"}:
                name = "/".join([*package.split("."), *file.relative_to(source / folder).parts])
                missing += [] if name in inside else [name]
    assert missing == []
    assert "orl/envs/job_shop/instance.py" in inside
    assert "orl/py.typed" in inside


def test_wheel_puts_only_orl_into_site_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"orl"}


def test_wheel_names_the_orl_command(wheel: zipfile.ZipFile) -> None:
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "orl = orl.cli:main" in wheel.read(entry_points).decode()


def test_the_unpacked_wheel_steps_an_env_outside_the_repository(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    script = (
        "import gymnasium\n"
        "env = gymnasium.make('orl:orl/JobShop-v0')\n"
        "observation, _ = env.reset(seed=0)\n"
        "observation, reward, terminated, truncated, _ = env.step(0)\n"
        "assert env.observation_space.contains(observation) and not terminated\n"
        "import orl, orl.envs.job_shop.instance, orl.solvers.job_shop\n"
        "print(orl.__file__, orl.envs.job_shop.instance.__file__, orl.solvers.job_shop.__file__, sep='\\n')\n"
    )
    # -P keeps the working directory out; PYTHONPATH stands before the editable install of the checkout.
    result = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(line).is_relative_to(tmp_path / "site") for line in result.stdout.split())


@pytest.mark.parametrize("inside", [True, False], ids=["repository root", "elsewhere"])
def test_the_checkout_imports_from_any_working_directory(inside: bool, tmp_path: Path) -> None:
    script = "import orl.envs.job_shop.instance as a, orl.solvers.job_shop as b; print(a.__name__, b.__name__)"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT if inside else tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["orl.envs.job_shop.instance", "orl.solvers.job_shop"]
