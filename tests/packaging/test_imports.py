"""What `import orl` costs, which libraries stand each other, and which solver may import which domain."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import orl

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "numba", "llvmlite", "pandas", "matplotlib", "stable_baselines3", "sb3_contrib", "ortools", "highspy"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=120)


def test_importing_orl_loads_no_heavy_library() -> None:
    loaded = run("-c", "import sys, orl; print(*sys.modules)").stdout.split()
    assert "orl" in loaded
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in loaded)


def test_importtime_shows_neither_torch_nor_numba() -> None:
    report = run("-X", "importtime", "-c", "import orl").stderr
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in report.splitlines()}
    assert "orl" in names
    assert HEAVY.isdisjoint(names)


def test_registering_an_environment_loads_nothing_of_it() -> None:
    script = (
        "import sys, gymnasium, orl; assert gymnasium.spec('orl/JobShop-v0').vector_entry_point; print(*sys.modules)"
    )
    loaded = run("-c", script).stdout.split()
    assert HEAVY.isdisjoint(name.partition(".")[0] for name in loaded)
    assert not any(name.startswith(("orl.envs.", "orl.solvers.")) for name in loaded)


def test_lazy_attributes_are_listed_and_resolve() -> None:
    assert set(orl.__all__) <= set(dir(orl))
    for name in orl.__all__:
        assert callable(getattr(orl, name))


def test_unknown_attribute_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = orl.no_such_thing


@pytest.mark.parametrize("order", [("highspy", "ortools"), ("ortools", "highspy")], ids=" before ".join)
def test_highspy_and_ortools_live_in_one_process(order: tuple[str, str]) -> None:
    """Both ship a libhighs; with highspy 1.13 or later the second import fails (hence the pin in setup.cfg)."""
    load = {
        "highspy": "import highspy",
        "ortools": "from ortools.sat.python import cp_model; from ortools.linear_solver import pywraplp",
    }
    script = "\n".join(
        [
            *(load[name] for name in order),
            "highs = highspy.Highs(); highs.silent()",
            "x = highs.addVariable(lb=2.0, obj=1.0); highs.minimize(x)",
            "assert highs.getInfo().objective_function_value == 2.0",
            "model = cp_model.CpModel(); y = model.new_int_var(3, 9, 'y'); model.minimize(y)",
            "solver = cp_model.CpSolver(); solver.parameters.num_workers = 1",
            "assert solver.solve(model) == cp_model.OPTIMAL and solver.value(y) == 3",
            "print('both')",
        ]
    )
    assert run("-c", script).stdout.split()[-1] == "both"


def imported_modules(module: Path) -> set[str]:
    tree = ast.parse(module.read_text(), str(module))
    direct = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    absolute = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return direct | {f"{node.module}.{alias.name}" for node in absolute for alias in node.names}


def test_a_solver_imports_only_its_own_domain() -> None:
    """import-linter (in `make check`) holds the other arrows; this one compares two folder names."""
    seen, strangers = 0, []
    for module in (ROOT / "solvers").glob("*/**/*.py"):
        own = module.relative_to(ROOT / "solvers").parts[0]
        for name in imported_modules(module):
            if name.startswith("orl.envs."):
                seen += 1
                if name.split(".")[2] != own:
                    strangers.append(f"{module.relative_to(ROOT)} imports {name}")
    assert strangers == []
    assert seen > 0
