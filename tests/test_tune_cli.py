"""``orl tune`` on the command line: files, words and exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")

from orl import cli

QUICK = [
    *("orl", "tune", "a2c", "CartPole-v1", "--steps", "64", "--evaluations", "2", "--episodes", "1", "--trials", "2"),
    *("--env-kwargs", "max_episode_steps=20", "--hyper", "policy_kwargs.net_arch=[8]"),
]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [*QUICK, *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_it_writes_the_best_parameters_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text("learning_rate: {low: 1e-5, high: 1e-2, log: true}\nn_steps: [4, 8]\n")
    options = ("--space", "space.yaml", "--start", "learning_rate=1e-3", "--start", "n_steps=8", "--normalize")
    assert run(monkeypatch, *options, "--storage", "sqlite:///db/all.db", "--plot", "history.html") == 0
    out = tmp_path / "runs" / "tune-a2c-CartPole-v1"
    entry = yaml.safe_load((out / "best.yaml").read_text())["CartPole-v1"]
    assert entry["n_timesteps"] == 64
    assert entry["normalize"] is True
    assert entry["env_kwargs"] == {"max_episode_steps": 20}
    assert set(entry) > {"learning_rate", "n_steps", "policy", "policy_kwargs"}
    assert "2 trials" in capsys.readouterr().out
    assert "plotly" in (tmp_path / "history.html").read_text()
    assert (out / "trials.csv").read_text().splitlines()[1].endswith("0.001,8")
    assert run(monkeypatch, *options, "--storage", "sqlite:///db/all.db", "--trials", "3") == 0
    assert "3 trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--pruner", "medium"], "did you mean 'median'"),
        (["--trials", "0"], "trials: too small"),
        (["--space", "missing.yaml"], "missing.yaml"),
        (["--start", "gama=1"], "not in the search space"),
        (["--out", "/proc/nowhere"], "--out"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
