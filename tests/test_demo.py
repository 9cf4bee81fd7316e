"""The demo: every row checked, honest bounds, a page that needs nothing else."""

from __future__ import annotations

import base64
import re
import signal
from pathlib import Path
from typing import Any

import pandas
import pytest
from rich.console import Console

from orl import demo, registry
from orl.common.problem import SolveResult
from orl.envs.job_shop.instance import ShopInstance
from orl.page import Row, page
from orl.policies.set_policy import SetPolicy


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[pandas.DataFrame, Path, str]:
    out = tmp_path_factory.mktemp("demo")
    console = Console(width=160, record=True, file=(out / "screen.txt").open("w"))
    table = demo.run_demo(out, train_seconds=2, quick=True, console=console)
    return table, out, console.export_text()


def test_every_method_answers_every_instance_and_every_schedule_is_checked(
    ran: tuple[pandas.DataFrame, Path, str],
) -> None:
    table, out, _ = ran
    assert set(table["instance"]) == set(demo.QUICK_INSTANCES)
    assert table["checked"].all()
    subjects = set(table["subject"])
    for words in (*(f"rule {rule}" for rule in demo.RULES), "rule lrpt, best of 32", "CP-SAT"):
        assert words in subjects
    assert {"learned policy, greedy", "learned policy, best of 32"} <= subjects
    assert set(table.loc[table["subject"] == "tabu search", "instance"]) == {"ft06"}
    written = pandas.read_csv(out / "results.csv")
    empty = ["violations", "return"]
    pandas.testing.assert_frame_equal(written.drop(columns=empty), table.drop(columns=empty), check_dtype=False)


def test_bounds_are_valid_and_one_an_instance(ran: tuple[pandas.DataFrame, Path, str]) -> None:
    table, _, _ = ran
    assert (table["bound"] <= table["objective"]).all()
    assert (table["bound"] <= table["best_known"]).all()
    assert (table["objective"] >= table["best_known"]).all()
    assert (table.groupby("instance")["bound"].nunique() == 1).all()
    cp_sat = table[table["subject"] == "CP-SAT"].set_index("instance")["objective"]
    assert cp_sat.to_dict() == {"ft06": 55, "tai4_4_01": 193}


def test_best_of_32_is_never_worse_than_greedy(ran: tuple[pandas.DataFrame, Path, str]) -> None:
    objective = ran[0].pivot(index="instance", columns="subject", values="objective")
    assert (objective["learned policy, best of 32"] <= objective["learned policy, greedy"]).all()


def test_the_page_holds_table_and_pictures_and_loads_nothing(ran: tuple[pandas.DataFrame, Path, str]) -> None:
    table, out, screen = ran
    text = (out / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) == 2 * len(demo.QUICK_INSTANCES)
    for source in sources:
        head, data = source.split(",", 1)
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert "http" not in text
    assert "<script" not in text
    assert text.count("<tr") == len(table) + 1
    assert "prefers-color-scheme: dark" in text
    for file in ("index.html", "results.csv"):
        assert str(out / file) in screen
    assert len(list(out.glob("*.png"))) == len(sources)


def test_the_page_says_how_long_the_policy_was_trained(ran: tuple[pandas.DataFrame, Path, str]) -> None:
    assert re.search(r"trained by MaskablePPO for [234] seconds", (ran[1] / "index.html").read_text())


def test_ctrl_c_in_training_shortens_the_time_that_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    original = demo.ProgressBar._on_step

    def press_ctrl_c(self: demo.ProgressBar) -> bool:
        if self.model.num_timesteps >= 2 * demo.N_ENVS:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(demo.ProgressBar, "_on_step", press_ctrl_c)
    planned = 1000.0
    policy, elapsed = demo.train_policy(planned, console=Console(quiet=True))
    assert isinstance(policy, SetPolicy)
    assert planned > elapsed > 0  # the time trained, not the time planned


class Pressing:
    """A solver during whose second call Ctrl-C comes (the first one compiles); keeps its best, as all solvers do."""

    def __init__(self, press: int) -> None:
        self.press, self.calls = press, 0

    def solve(self, instance: ShopInstance, **_: Any) -> SolveResult:
        self.calls += 1
        try:
            if self.calls == self.press:
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        return registry.solver("job_shop", "spt").solve(instance)


def test_ctrl_c_ends_the_comparison_and_marks_the_row() -> None:
    instances = [registry.domain("job_shop").load(name) for name in ("ft06", "tai4_4_01")]
    last = Pressing(press=0)
    subjects = [demo.Recorder(Pressing(press=2), "first"), demo.Recorder(last, "last")]
    table = demo.compare(subjects, instances, 0, Console(quiet=True))
    assert list(table["subject"]) == ["first"]
    assert table["interrupted"].all()
    assert last.calls == 1
    assert "No instance has been answered" in demo.learned_in_words(table)
    with pytest.raises(KeyboardInterrupt):
        demo.compare([demo.Recorder(Pressing(press=1), "first")], instances, 0, Console(quiet=True))


def test_a_loss_is_said_as_a_loss() -> None:
    values = {
        f"learned policy, best of {demo.SAMPLES}": 120.0,
        f"rule lrpt, best of {demo.SAMPLES}": 110.0,
        "CP-SAT": 100.0,
    }
    table = pandas.DataFrame([{"instance": "x", "subject": name, "objective": value} for name, value in values.items()])
    words = demo.learned_in_words(table)
    assert "on 0 of 1 instances" in words
    assert "20.0 % behind CP-SAT" in words


def test_rows_without_a_valid_solution_are_said_so() -> None:
    good = {"instance": "x", "subject": "a", "objective": 12.0, "bound": 10.0, "best_known": 10.0}
    good |= {"gap_to_best_known": 0.2, "seconds": 0.5, "checked": True, "violations": ""}
    bad = good | {
        "subject": "b",
        "objective": None,
        "gap_to_best_known": None,
        "checked": False,
        "violations": "M1 carries 2",
    }
    cut = bad | {"bound": None, "checked": pandas.NA}
    rows = demo.text_rows(pandas.DataFrame([good, bad, cut]))
    assert list(rows[2].cells) == ["x", "b", "-", "-", "10", "-", "0.500", "-"]
    assert list(rows[0].cells) == ["x", "a", "12", "10", "10", "20.0 %", "0.500", "yes"]
    assert list(rows[1].cells) == ["x", "b", "-", "10", "10", "-", "0.500", "NO: M1 carries 2"]
    assert (rows[0].strong, rows[1].strong) == (True, False)
    assert (rows[0].group, rows[1].group) == (True, False)


def test_page_escapes_its_text(tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    picture.write_text("<svg/>")
    text = page("<b>", ['"x" & y'], ["<c>"], [Row(["<d>"])], [('"quoted"', picture)], "<f>")
    for raw in ("<b>", "<c>", "<d>", "<f>"):
        assert raw not in text
    assert 'alt="&quot;quoted&quot;" src="data:image/svg+xml;base64,' in text
