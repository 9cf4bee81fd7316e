"""What the README and the guides say can be run, and the README's table is the one its figures give."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from orl import cli

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    (page.name, line.strip().partition("  #")[0])
    for page in PAGES
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("    orl ")
]
FIGURES = """\
subject,instance,objective,bound,best_known,seconds,checked
rule spt,ft06,88.0,55.0,55.0,0.001,True
CP-SAT,ft06,55.0,55.0,55.0,0.1,True
CP-SAT,tai4_4_01,193.0,193.0,193.0,0.3,True
"""


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def readme_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "docs" / "readme_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_plays_a_masked_episode(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(python_blocks(README)[0], str(README), "exec"), {})
    makespan, bound, feasible = capsys.readouterr().out.split()
    assert feasible == "True"
    assert float(makespan) >= 1231
    assert float(bound) == 1005


def test_readme_trains_with_sb3_and_prints_a_checked_row(capsys: pytest.CaptureFixture[str]) -> None:
    code, count = re.subn(r"learn\(20_000\)", "learn(4_096)", python_blocks(README)[1])
    assert count == 1
    exec(compile(code, str(README), "exec"), {})
    row = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:] if len(line.split()) > 1)
    assert row["instance"] == "ta01"
    assert row["checked"] == "True"
    assert 1231 <= float(row["objective"]) < 1800


def test_readme_compares_policies_with_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    code, count = re.subn(r"learn\(20_000\)", "learn(6_400)", python_blocks(README)[3])
    assert count == 2
    exec(compile(code, str(README), "exec"), {})
    bound, *table = capsys.readouterr().out.splitlines()
    assert float(bound.split()[5]) == pytest.approx(3582.99, abs=0.05)
    rows = {line.split()[1]: line.split()[2:] for line in table[1:]}
    assert set(rows) == {"TS-DDR", "PPO"}
    assert all(float(difference) > 0 for _, _, difference, *_ in rows.values())
    assert float(rows["TS-DDR"][2]) < float(rows["PPO"][2])


def test_pages_show_commands() -> None:
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("page, line", COMMANDS, ids=[f"{page}: {line[:60]}" for page, line in COMMANDS])
def test_documented_commands_parse(page: str, line: str) -> None:
    _, *arguments = shlex.split(line)
    command = typer.main.get_command(cli.app)
    context = command.make_context("orl", arguments, resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, arguments, parent=context)


def test_readme_table_is_what_the_committed_figures_give(readme_table: ModuleType) -> None:
    text = README.read_text(encoding="utf-8")
    assert readme_table.fill(text, readme_table.block(readme_table.FIGURES)) == text


def test_table_has_a_row_a_method_and_marks_the_best(readme_table: ModuleType, tmp_path: Path) -> None:
    figures = tmp_path / "results.csv"
    figures.write_text(FIGURES)
    lines = readme_table.block(figures).splitlines()
    assert lines[0] == "| method | ft06 | tai4_4_01 | mean gap to best known | mean seconds |"
    assert lines[2] == "| rule spt | 88 |  | 60.0 % | 0.001 |"
    assert lines[3] == "| CP-SAT | **55** | **193** | 0.0 % | 0.200 |"
    assert lines[4:] == ["| *best known* | 55 | 193 |  |  |", "| *lower bound of this run* | 55 | 193 |  |  |"]


@pytest.mark.parametrize(
    "before, after, problem",
    [
        ("0.001,True", "0.001,False", "not accepted"),
        ("88.0,55.0", "88.0,89.0", "bound above"),
        ("checked", "verdict", "missing: checked"),
    ],
)
def test_figures_that_do_not_hold_are_refused(
    readme_table: ModuleType, tmp_path: Path, before: str, after: str, problem: str
) -> None:
    figures = tmp_path / "results.csv"
    figures.write_text(FIGURES.replace(before, after))
    with pytest.raises(SystemExit, match=problem):
        readme_table.read_figures(figures)


def test_links_between_pages_lead_somewhere() -> None:
    missing = []
    for page in [README, ROOT / "CONTRIBUTING.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")
    assert missing == []
