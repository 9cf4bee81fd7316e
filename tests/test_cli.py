"""The ``orl`` command: what it prints, what it writes, how it fails and how it is interrupted."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orl import cli, registry, solve_cli
from orl.cli import app
from orl.common.errors import IllegalActionError, InputError
from orl.envs.job_shop.instance import Schedule
from orl.envs.job_shop.library import load
from orl.terminal import key_values, require_writable

runner = CliRunner()


def run(*arguments: str, code: int = 0) -> str:
    """Output of a command that must end with ``code``."""
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of error of a command that must end with code 2."""
    monkeypatch.setattr(sys, "argv", ["orl", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err + captured.out
    return lines[0]


# ---- help and lists ------------------------------------------------------------------------------------------------
def test_help_and_version_import_neither_torch_nor_numba() -> None:
    program = (
        "import sys; sys.argv = ['orl', sys.argv[1]]\n"
        "from orl.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'numba', 'stable_baselines3', 'ortools', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for option, words in (("--help", "solve"), ("--version", "orl ")):
        done = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


def test_list_names_every_kind() -> None:
    text = run("list")
    for word in ("orl/JobShop-v0", "maskable-ppo", "cp-sat", "lrpt", "ta01..ta80"):
        assert word in text
    assert "cp-sat" not in run("list", "envs")
    assert " ta37," in run("list", "instances", "--domain", "job_shop")


def test_data_list_says_what_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ORL_DATA_DIR", raising=False)
    monkeypatch.setenv("ORL_CACHE_DIR", str(tmp_path))
    rows = [line for line in run("data", "list", "job_shop").splitlines() if "benchmark_instances.json" in line]
    assert len(rows) == 1
    assert " no " in rows[0]


# ---- solve ---------------------------------------------------------------------------------------------------------
def test_solve_writes_a_solution_that_its_instance_accepts_and_a_picture(tmp_path: Path) -> None:
    saved, picture = tmp_path / "deep" / "out.json", tmp_path / "out.png"
    text = run(
        *("solve", "job_shop", "--instance", "ft06", "--solver", "cp-sat", "--time-limit", "20"),
        *("--save", str(saved), "--plot", str(picture)),
    )
    data = json.loads(saved.read_text())
    check = load("ft06").check(Schedule.from_json(data["solution"]))
    assert check.feasible
    assert check.objective == data["objective"] == data["bound"] == 55
    assert data["status"] == "optimal"
    assert all(word in text for word in ("55", "optimal", "best known", "checked", "yes", str(saved)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    hinted = run(
        *("solve", "job_shop", "--instance", "ft06", "--solver", "tabu-search", "--time-limit", "0"),
        *("--hint", str(saved)),
    )
    assert " 55 " in hinted


def test_solve_reads_an_instance_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "two.txt"
    file.write_text("2 2\n0 3 1 2\n1 4 0 1\n")
    assert " 6 " in run("solve", "job_shop", "--instance", str(file), "--time-limit", "5")


def test_ctrl_c_ends_the_search_and_keeps_the_best_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("solve", "job_shop", "--instance", "ft06", "--solver", "tabu-search", "--time-limit", "0.1")  # compiles
    saved = tmp_path / "out.json"

    @contextmanager
    def pressed_after_a_second(label: str, time_limit: float | None) -> Iterator[None]:
        timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        yield
        timer.join()

    monkeypatch.setattr(solve_cli, "_live", pressed_after_a_second)
    text = run(
        *("solve", "job_shop", "--instance", "ta41", "--solver", "tabu-search", "--time-limit", "300"),
        *("--save", str(saved)),
    )
    data = json.loads(saved.read_text())
    assert data["seconds"] < 200
    assert load("ta41").check(Schedule.from_json(data["solution"])).objective == data["objective"]
    assert str(saved) in text
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize("solver", ["tabu-search", "cp-sat"])
def test_ctrl_c_ends_an_evaluation_with_its_rows_so_far(
    solver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(registry.solver("job_shop", solver))
    original = kind.solve

    def solve(self: Any, instance: Any, **kwargs: Any) -> Any:
        pressing = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
        if instance.name == "ta41":
            pressing.start()
        else:
            kwargs["time_limit"] = 0.1
        result = original(self, instance, **kwargs)
        if instance.name == "ta41":
            pressing.join()
        return result

    monkeypatch.setattr(kind, "solve", solve)
    table = tmp_path / "out.csv"
    text = run(
        *("evaluate", f"{solver},spt", "job_shop", "--instances", "ft06,ta41,ta42", "--time-limit", "200"),
        *("--csv", str(table)),
        code=130,
    )
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["instance"], row["interrupted"]) for row in rows] == [("ft06", "False"), ("ta41", "True")]
    assert 0 < float(rows[1]["seconds"]) < 150
    assert rows[1]["checked"] == "True"
    assert "ended by Ctrl-C" in text


def test_a_picture_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orl.registry import Domain

    def half(self: Domain, instance: object, solution: object, path: Path) -> None:
        path.write_bytes(b"half a picture")
        raise InputError("no ink", field="picture")

    monkeypatch.setattr(Domain, "draw", half)
    result = runner.invoke(
        app,
        ["solve", "job_shop", "--instance", "ft06", "--solver", "tabu-search", "--time-limit", "0.1", "--plot"]
        + [str(tmp_path / "out.png")],
    )
    assert isinstance(result.exception, InputError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("solve", "job_shp", "--instance", "ft06"), "did you mean 'job_shop'"),
        (("solve", "job_shop", "--instance", "ta1"), "'ta01'"),
        (("solve", "job_shop", "--instance", "ft06", "--solver", "cpsat"), "did you mean 'cp-sat'"),
        (("solve", "job_shop", "--instance", "nowhere/none.txt"), "none.txt"),
        (("solve", "job_shop", "--instance", "ft06", "--save", "out.txt"), "out.txt"),
        (("solve", "job_shop", "--instance", "ft06", "--time-limit", "-1"), "--time-limit"),
        (("solve", "job_shop", "--instance", "ft06", "-o", "colour=1"), "colour"),
        (("solve", "job_shop", "--instance", "ft06", "-o", "nothing"), "--option"),
        (("solve", "job_shop", "--instance", "ft06", "--hint", "none.json"), "none.json"),
        (("train", "ppoo", "CartPole-v1"), "did you mean 'ppo'"),
        (("train", "ppo", "CartPol-v1"), "did you mean 'CartPole-v1'"),
        (("train", "ppo", "CartPole-v1", "--steps", "0"), "steps"),
        (("train", "ppo", "orl/JobShop-v0"), "maskable-ppo"),
        (("train", "ppo", "CartPole-v1", "--hyper", "[" * 20_000), "--hyper"),
        (("evaluate", "cpsat", "job_shop"), "did you mean 'cp-sat'"),
        (("evaluate", "cp-sat", "CartPole-v1"), "job_shop"),
        (("solve", "lot_sizing", "--instance", "ls-4x2"), "NAME/scenario-SEED"),
        (("solve", "lot_sizing", "--instance", "ls-4x2", "--solver", "greedy"), "NAME/scenario-SEED"),
        (("evaluate", "greedy", "orl/LotSizing-v0", "-o", "period=3"), "did you mean 'periods'"),
        (("evaluate", "spt", "orl/JobShop-v0", "-o", "colour=1"), "colour"),
        (("list", "--domain", "job_shp"), "did you mean 'job_shop'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in fail(monkeypatch, capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("solve", "job_shop", "--instance", "ft06", "--save"), "--save"),
        (("solve", "job_shop", "--instance", "ft06", "--plot"), "--plot"),
        (("evaluate", "spt", "job_shop", "--instances", "ft06", "--csv"), "--csv"),
        (("train", "ppo", "CartPole-v1", "--steps", "64", "--out"), "--out"),
        (("demo", "--quick", "--out"), "--out"),
    ],
)
@pytest.mark.parametrize("place", ["below a file", "in /proc", "a folder"])
def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    arguments: tuple[str, ...],
    option: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("worked before the check")

    for target in ("orl.training.train", "orl.demo.run_demo", "orl.common.evaluation.evaluate"):
        monkeypatch.setattr(target, work)
    monkeypatch.setattr(type(registry.solver("job_shop", "cp-sat")), "solve", work)
    name = "x.json" if option == "--save" else "x.png"
    if place == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "deep" / name
    elif place == "in /proc":
        if not Path("/proc/self").exists():
            pytest.skip("needs /proc")
        path = Path("/proc") / name
    else:
        path = tmp_path / name
        if option == "--out":
            pytest.skip("is to be a folder")
        path.mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert option in fail(monkeypatch, capsys, *arguments, str(path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    require_writable(tmp_path / "deep" / "deeper" / "out.json", "--save")
    require_writable(tmp_path / "run", "--out", folder=True)
    require_writable(tmp_path, "--out", folder=True)
    require_writable(None, "--save")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "x.png"), IllegalActionError("slot 3\nnow")]
)
def test_errors_of_files_and_illegal_actions_are_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_families", broken)
    assert " ".join(str(error).split()) in fail(monkeypatch, capsys, "list")


@pytest.mark.parametrize(
    ("text", "words"), [("[" * 200_000, "recursion"), ("{", "cannot be read"), (" " * 100, "too large")]
)
def test_a_hint_of_any_size_or_depth_is_answered_in_one_line(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if words == "too large":
        monkeypatch.setattr(solve_cli, "LARGEST_SOLUTION", 50)
    (tmp_path / "hint.json").write_text(text)
    hint = str(tmp_path / "hint.json")
    assert words in fail(monkeypatch, capsys, "solve", "job_shop", "--instance", "ft06", "--hint", hint)


def test_missing_data_is_one_line_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("ORL_DATA_DIR", raising=False)
    monkeypatch.setenv("ORL_CACHE_DIR", str(tmp_path))
    assert "orl data fetch job_shop" in fail(monkeypatch, capsys, "solve", "job_shop", "--instance", "la01")


def test_debug_shows_the_error_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["orl", "--debug", "solve", "job_shp", "--instance", "ft06"])
    with pytest.raises(InputError):
        cli.main()


# ---- train and evaluate --------------------------------------------------------------------------------------------
def test_train_then_evaluate_on_other_sizes(tmp_path: Path) -> None:
    shops = {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 3, "n_machines": 3}
    run(
        *("train", "maskable-ppo", "orl/JobShop-v0", "--steps", "128", "--n-envs", "4", "--policy", "set"),
        *("--env-kwargs", "observation=compact", "--env-kwargs", json.dumps({"instance": shops})),
        *("--hyper", "n_steps=32", "--hyper", "batch_size=64", "--out", str(tmp_path / "run")),
    )
    table = tmp_path / "out.csv"
    text = run(
        *("evaluate", str(tmp_path / "run"), "orl/JobShop-v0", "--instances", "ft06,ta01", "--best-of", "2"),
        *("--csv", str(table)),
    )
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["instance"] for row in rows] == ["ft06", "ta01"]
    assert all(row["checked"] == "True" for row in rows)
    assert "2 rows" in text


def test_evaluate_solvers_side_by_side(tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    run(
        *("evaluate", "cp-sat,tabu-search", "job_shop", "--instances", "ft06", "--time-limit", "1"),
        *("--episodes", "2", "--csv", str(table)),
    )
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["subject"] for row in rows] == ["cp-sat", "cp-sat", "tabu-search", "tabu-search"]
    assert {float(row["objective"]) for row in rows} == {55.0}


def test_evaluate_rules_on_an_env_with_random_demand(tmp_path: Path) -> None:
    table = tmp_path / "out.csv"
    run(
        *("evaluate", "greedy,idle", "orl/LotSizing-v0", "--instances", "ls-4x2-t4", "--episodes", "3"),
        *("--env-kwargs", "reward_scale=0.5", "--csv", str(table)),
    )
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["subject"] for row in rows] == ["greedy"] * 3 + ["idle"] * 3
    assert len({row["objective"] for row in rows}) > 3
    assert all(float(row["return"]) == pytest.approx(-0.5 * float(row["objective"])) for row in rows)


# ---- arguments -----------------------------------------------------------------------------------------------------
def test_key_values_are_yaml_and_nest() -> None:
    assert key_values(["a=1", "b.c=[1, x]", "d=", "{e: {f: true}}", "url=a=b"], "--hyper") == {
        "a": 1,
        "b": {"c": [1, "x"]},
        "d": None,
        "e": {"f": True},
        "url": "a=b",
    }
    for bad in ("nothing", "a: [", "=1", "[1, 2]"):
        with pytest.raises(InputError, match="--hyper"):
            key_values([bad], "--hyper")
    with pytest.raises(InputError, match="once"):
        key_values(["a=1", "a.b=2"], "--hyper")
