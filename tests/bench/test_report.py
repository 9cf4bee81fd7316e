"""The report of a sweep: verdicts, tables, Markdown, CSV, escaping, and what it says of little or of nothing."""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sweep_folder import ERROR, LEARNERS, learning_tasks, shop_tasks, write_sweep

from orl.bench.plan import Scale, Task
from orl.bench.report import write_report
from orl.bench.report_data import BEST_KNOWN, OBJECTIVE, RETURN, read
from orl.bench.report_sections import instance_table
from orl.bench.report_summaries import Comparison, compare, differences, overall, verdict
from orl.bench.store import load
from orl.common.errors import InputError, MissingExtraError

SCALES = {"cart pole": Scale(20.0, 500.0), "lander": Scale(-180.0, 260.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder, scales=SCALES)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return written(folder, "html")


def written(folder: Path, format: Any) -> str:
    target = folder / f"report.{format}"
    write_report(folder, target, format=format)
    return target.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="report-data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


# ---- the page --------------------------------------------------------------------------------------------------------
def test_the_page_is_whole_and_loads_nothing(page: str) -> None:
    own = page[: page.index("plotly.js v")]
    assert page.count("* plotly.js v") == 1
    assert not re.search(r'(?:src|href)="(?!data:|#)', own)
    assert "url(" not in own
    assert "@import" not in own
    assert len(page) < 8_000_000


def test_every_run_stands_on_the_page_with_its_command_and_whole_configuration(page: str, folder: Path) -> None:
    data = data_of(page)
    plan = json.loads((folder / "sweep.json").read_text())["tasks"]
    assert {run["run"] for run in data["runs"]} == set(plan)
    for run in data["runs"]:
        state = "failed" if run["state"] == "failed" else "records"
        record = json.loads((folder / state / f"{run['run']}.json").read_text())
        told = {key: data["shared"][place] for key, place in run["configuration"].items()}
        assert told == record["configuration"]
        assert data["shared"][run["git"]] == record["git"]
        assert f"--only {run['run']}" in run["command"]
        assert f"{folder}/sweep.yaml" in run["command"]
        assert ("--retry-failed" in run["command"]) == (run["state"] == "failed")


def test_parts_that_runs_have_in_common_are_written_once(page: str) -> None:
    data = data_of(page)
    texts = [json.dumps(part, sort_keys=True) for part in data["shared"]]
    assert len(texts) == len(set(texts))
    assert len(data["shared"]) < len(data["runs"])


def test_failures_keep_their_traceback(page: str) -> None:
    assert html.escape(ERROR["message"]) in page
    assert html.escape(ERROR["traceback"].strip()) in page


def test_pictures_are_those_of_the_best_solution_of_each_instance(page: str) -> None:
    pictures = re.findall(r'<img alt="([^"]*)" src="data:image/svg\+xml;base64,([^"]*)"', page)
    assert [alt for alt, _ in pictures] == [
        f"{i}: CP-SAT, 60 s, {o}" for i, o in (("ta01", 1231), ("ta11", 1357), ("ta21", 1642))
    ]
    assert all(base64.b64decode(data).startswith(b"<svg") for _, data in pictures)


def test_curves_have_a_band_and_go_to_the_last_step(page: str) -> None:
    figures = data_of(page)["figures"]
    curves = [figure for figure in figures if figure["layout"]["xaxis"]["title"]["text"] == "training steps"]
    assert len(curves) == 2
    named = [trace for trace in curves[0]["data"] if "name" in trace]
    assert [trace["name"] for trace in named] == list(LEARNERS)
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in named}) == len(named)
    assert named[0]["x"][-1] == 12 * (100_000 // 12)
    low, high, middle = curves[0]["data"][:3]
    assert all(a <= b <= c for a, b, c in zip(low["y"], middle["y"], high["y"], strict=True))


# ---- hostile and odd text --------------------------------------------------------------------------------------------
HOSTILE = '</script><script>window.stolen = 1</script><img src=x onerror="window.stolen = 1">|*`$&\''


def hostile_tasks() -> list[Task]:
    named = [Task(task.configuration, HOSTILE, task.subject) for task in shop_tasks()]
    return [*named, *(Task(t.configuration, t.environment, HOSTILE) for t in learning_tasks(2, {"PPO": ("ppo", 0.9)}))]


def test_labels_cannot_bring_elements_or_scripts_into_the_page(tmp_path: Path) -> None:
    write_sweep(tmp_path, hostile_tasks(), name=HOSTILE, failed=(0, 16))
    page = written(tmp_path, "html")
    plain = page.split("<script>")
    assert len(plain) == 3  # plotly and ours
    assert "<img src=x" not in page
    assert html.escape(HOSTILE) in page
    data = data_of(page)
    assert {run["environment"] for run in data["runs"]} >= {HOSTILE}
    names = [trace["name"] for figure in data["figures"] for trace in figure["data"] if "name" in trace]
    assert any("&lt;" in name for name in names)
    assert not any("<" in name for name in names)


def test_markdown_tables_keep_their_columns_with_hostile_labels(tmp_path: Path) -> None:
    write_sweep(tmp_path, hostile_tasks(), name=HOSTILE)
    text = written(tmp_path, "md")
    assert "<script" not in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert blocks
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block}) == 1


# ---- Markdown and CSV ------------------------------------------------------------------------------------------------
def test_markdown_holds_verdicts_summaries_instances_and_failures(folder: Path) -> None:
    text = written(folder, "md")
    for heading in ("# small example", "## cart pole", "## lander", "## job shop", "### Instances", "## Failures"):
        assert f"\n{heading}\n" in f"\n{text}"
    assert "44 of 45 runs finished, 1 failed" in text
    assert re.search(r"\| ta01 +\| +1231 \| +1231 \|.*\*\*1231\*\* 0\.0 % \(proved optimal\)", text)
    assert "4 of 5" in text
    assert "5 runs a task, fewer than 10" in text
    assert f"{ERROR['type']}: {ERROR['message']}" in text


def test_csv_holds_the_rows_of_load(folder: Path) -> None:
    write_report(folder, folder / "report.csv", format="csv")
    table = pandas.read_csv(folder / "report.csv")
    ours = load(folder)
    assert list(table.columns) == list(ours.columns)
    assert len(table) == len(ours)
    assert table["return"].to_numpy() == pytest.approx(ours["return"].to_numpy(), nan_ok=True)
    assert table["run"].tolist() == ours["run"].tolist()


# ---- scores and verdicts ---------------------------------------------------------------------------------------------
def test_scores_are_gaps_where_instances_are_solved_and_returns_elsewhere(folder: Path) -> None:
    cart_pole, lander, shop = read(folder).arenas
    assert (cart_pole.measure, lander.measure, shop.measure) == (RETURN, RETURN, BEST_KNOWN)
    assert cart_pole.scores["PPO"].shape == (5, 1)
    assert cart_pole.scores["A2C"].shape == (4, 1)
    assert shop.scores["random rule"].shape == (3, 3)
    assert shop.scores["CP-SAT, 60 s"] == pytest.approx(np.zeros((1, 3)))


def test_the_bound_is_shared_by_all_subjects_of_an_instance(folder: Path) -> None:
    shop = read(folder).arenas[2]
    bounds = shop.rows.groupby("instance")["pooled_bound"].agg(["min", "max"])
    assert bounds["min"].tolist() == bounds["max"].tolist() == [1231.0, 1323.0, 1642.0]


def test_bounds_that_belong_to_single_episodes_are_not_shared(folder: Path, tmp_path: Path) -> None:
    tasks = shop_tasks()
    write_sweep(tmp_path, tasks, failed=())
    for place, path in enumerate(sorted((tmp_path / "records").glob("*.json"))):
        record = json.loads(path.read_text())
        if record["kind"] == "rule":
            record["rows"][0]["bound"] = 900.0 + place
            path.write_text(json.dumps(record))
    shop = read(tmp_path).arenas[0]
    assert shop.rows["pooled_bound"].tolist() == shop.rows["bound"].tolist()
    assert "varies" in {cell.text for row in instance_table(shop).rows for cell in row}


def test_normalised_scores_of_all_environments_are_summed_up_together(folder: Path) -> None:
    together = overall(read(folder))
    assert together is not None
    assert next(iter(together.standings)) == "PPO"
    gap = together.standings["PPO"].optimality_gap
    assert gap is not None
    assert gap.low <= gap.estimate <= gap.high
    assert gap.estimate == pytest.approx(1 - together.standings["PPO"].mean.estimate, abs=0.02)


def comparison_of(*columns: list[float]) -> Comparison:
    scores = {name: np.array(values)[:, None] for name, values in zip("abcdef", columns, strict=False)}
    return Comparison(scores, tuple(scores), RETURN)


def test_a_verdict_is_certain_when_every_run_is_better() -> None:
    found = verdict("x", comparison_of([5.0, 6.0, 7.0, 8.0, 9.0], [1.0, 2.0, 3.0, 4.0, 4.5]))
    assert found.certain
    assert found.text.startswith("a is best")
    assert "each of its runs beats each run of b" in found.text
    assert any("fewer than 10" in text for _, text in found.notes)


def test_two_runs_against_two_prove_nothing() -> None:
    found = verdict("x", comparison_of([5.0, 6.0], [1.0, 2.0]))
    assert not found.certain
    assert found.text.startswith("Undecided: a")


def test_a_verdict_names_those_that_cannot_be_told_apart_and_those_that_are_behind() -> None:
    one, other, far = [5.0, 6.0, 7.0, 8.0, 9.0], [5.5, 6.5, 6.9, 7.2, 8.0], [0.1, 0.2, 0.3, 0.4, 0.5]
    found = verdict("x", comparison_of(one, other, far))
    assert not found.certain
    assert "do not tell it from b;" in found.text
    assert "It is ahead of c." in found.text


def test_one_run_a_task_gives_no_certainty(folder: Path) -> None:
    shop = read(folder).arenas[2]
    found = verdict(shop.label, compare(shop))
    assert not found.certain
    assert "on 3 of 3 instances" in found.text
    assert any("not measured" in text for _, text in found.notes)


def test_subjects_with_invalid_solutions_are_not_ranked(tmp_path: Path) -> None:
    write_sweep(tmp_path, shop_tasks(), failed=())
    for path in (tmp_path / "records").glob("*.json"):
        record = json.loads(path.read_text())
        if record["kind"] == "solver" and record["rows"][0]["instance"] == "ta11":
            record["rows"][0] |= {"objective": None, "gap": None, "gap_to_best_known": None, "checked": False}
            path.write_text(json.dumps(record))
    shop = read(tmp_path).arenas[0]
    assert "CP-SAT, 60 s" not in shop.ranked
    assert compare(shop).leader == "shortest processing time"
    text = written(tmp_path, "md")
    assert "CP-SAT, 60 s: 1 episodes without a valid solution, therefore not ranked." in text
    assert "none valid" in text
    assert "2 of 3" in text


def test_subjects_without_common_seeds_are_paired_by_instance(folder: Path) -> None:
    sweep = read(folder)
    found = differences(sweep.arenas[2], "CP-SAT, 60 s")
    assert found is not None
    assert found["baseline"].tolist() == ["shortest processing time", "random rule"]
    assert found["n"].tolist() == [3, 3]
    assert found["n_pairs"].tolist() == [3, 9]  # every run of the random rule beside the solver's only one
    assert (found["difference"] < 0).all()
    trained = differences(sweep.arenas[0], "PPO")
    assert trained is not None
    assert trained.set_index("baseline")["n_pairs"].to_dict() == {"A2C": 16, "DQN": 20}


def test_a_single_instance_is_judged_by_its_objective(tmp_path: Path) -> None:
    write_sweep(tmp_path, [t for t in shop_tasks() if t.configuration.environment.instances == ("ta01",)], failed=())
    arena = read(tmp_path).arenas[0]
    assert arena.measure == OBJECTIVE
    assert written(tmp_path, "html").count('class="sortable"') == 4


# ---- little, nothing, or the wrong thing -----------------------------------------------------------------------------
def test_a_sweep_without_a_finished_run_says_so(tmp_path: Path) -> None:
    tasks = learning_tasks(1)
    write_sweep(tmp_path, tasks, failed=tuple(range(len(tasks))))
    for format in ("html", "md"):
        text = written(tmp_path, format)
        assert "No run has finished yet" in text
        assert f"0 of {len(tasks)} runs finished, {len(tasks)} failed" in text
        assert ERROR["message"] in text
    assert len(written(tmp_path, "csv").splitlines()) == 1


def test_a_sweep_of_single_runs_has_a_page(tmp_path: Path) -> None:
    write_sweep(tmp_path, learning_tasks(1), failed=())
    page = written(tmp_path, "html")
    assert "One run a task" in page


def test_a_folder_that_is_no_sweep_and_an_unknown_format_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no sweep here"):
        write_report(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="html, md or csv"):
        write_report(folder, tmp_path / "report.pdf", format="pdf")  # type: ignore[arg-type]


def test_without_plotly_the_message_names_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingExtraError, match=r"orl\[report\]"):
        write_report(folder, tmp_path / "report.html")
    write_report(folder, tmp_path / "report.md", format="md")
