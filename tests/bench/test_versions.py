"""Surroundings of a record: looked up once, and never a reason to fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import orl
from orl.bench import versions
from orl.common.errors import InputError, MissingExtraError, UnknownNameError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A work tree of git with one commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "a.py").write_text("1\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "a.py"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_an_environment_has_the_version_of_the_package_that_implements_it() -> None:
    assert versions.env_version("CartPole-v1") == f"gymnasium {gymnasium.__version__}"
    assert versions.env_version("orl/JobShop-v0") == f"orl {orl.__version__}"
    assert versions.env_version("orl:orl/JobShop-v0") == f"orl {orl.__version__}"
    with pytest.raises(gymnasium.error.Error):
        versions.env_version("NoSuchEnv-v0")


def test_a_module_of_ones_own_is_imported_and_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import gymnasium\ngymnasium.register('own/Cart-v3', 'own_envs_of_a_test:Cart')\n"
    (tmp_path / "own_envs_of_a_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert versions.env_version("own_envs_of_a_test:own/Cart-v3") == "own_envs_of_a_test unversioned"
    finally:
        gymnasium.registry.pop("own/Cart-v3", None)
        sys.modules.pop("own_envs_of_a_test", None)


def test_a_module_is_traced_to_a_distribution_of_another_name() -> None:
    assert versions._distribution("yaml").startswith("PyYAML ")


def test_package_versions_are_those_installed() -> None:
    found = versions.package_versions()
    assert found["gymnasium"] == gymnasium.__version__
    assert found["orl"] == orl.__version__
    found.clear()  # a caller's copy
    assert versions.package_versions()


def test_the_git_state_is_the_commit_and_whether_tracked_files_changed(tree: Path) -> None:
    state = versions.git_state(tree)
    assert state["commit"] is not None
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tree / "untracked.py").write_text("2\n")
    (tree / "a.py").write_text("3\n")
    assert versions.git_state(tree) == state  # asked once a process: thousands of runs do not ask again
    versions._git_state.cache_clear()
    assert versions.git_state(tree) == state | {"dirty": True}


def test_without_git_or_a_work_tree_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert versions.git_state(tmp_path) == {"commit": None, "dirty": None}
    versions._git_state.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert versions.git_state() == {"commit": None, "dirty": None}
    with pytest.raises(InputError, match="--strict-code"):
        versions.code_state()
    versions._git_state.cache_clear()


def test_an_installed_copy_inside_another_work_tree_has_no_commit(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tree / "site-packages" / "orl"
    copy.mkdir(parents=True)
    (copy / "__init__.py").write_text("")
    monkeypatch.setattr(versions, "_source_folder", lambda: copy)
    assert versions.git_state() == {"commit": None, "dirty": None}
    assert versions.git_state(copy)["commit"] is not None


def test_the_code_state_of_changed_files_tells_changes_apart(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "__init__.py").write_text("")
    subprocess.run(["git", "-C", str(tree), "add", "__init__.py"], check=True)
    monkeypatch.setattr(versions, "_source_folder", lambda: tree)
    states = set()
    for text in ("1\n", "2\n", "3\n"):
        (tree / "a.py").write_text(text)
        versions._git_state.cache_clear()
        states.add(versions.code_state())
    versions._git_state.cache_clear()
    assert len(states) == 3
    assert len({state.partition("+")[0] for state in states}) == 1


def test_the_machine_is_described() -> None:
    machine = versions.machine()
    assert machine["cores"] >= machine["usable_cores"] >= 1
    assert isinstance(machine["system"], str)


def test_extras_are_known_by_name_and_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"ray", "tune", "report"} <= set(versions.extras())
    with pytest.raises(UnknownNameError, match="did you mean 'ray'"):
        versions.require_extra("rey")
    needs = {"orl": ["numpy", 'a[fast]>=1; extra == "ray"'], "a": ["b", 'c; extra == "fast"', 'd; extra == "slow"']}
    monkeypatch.setattr(versions.importlib.metadata, "requires", needs.__getitem__)
    monkeypatch.setattr(versions, "extras", lambda: ("ray",))
    installed = {"a", "c"}

    def version(name: str) -> str:
        if name not in installed:
            raise versions.importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(versions.importlib.metadata, "version", version)
    versions.require_extra("ray")
    installed.remove("c")  # what `a[fast]` brings
    with pytest.raises(MissingExtraError, match="'c'.*orl\\[ray\\]"):
        versions.require_extra("ray")
