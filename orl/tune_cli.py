"""``orl tune``: search hyper-parameters (:mod:`orl.bench.tuning`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orl.terminal import INTERRUPTED, key_values, require_writable


def tune_command(
    algorithm: Annotated[str, typer.Argument(help="Algorithm key (`orl list algorithms`).")],
    env_id: Annotated[str, typer.Argument(help="Gymnasium id, orl/JobShop-v0 for instance.")],
    trials: Annotated[int, typer.Option(help="Finished trials that the study shall have, over all workers.")] = 50,
    storage: Annotated[str | None, typer.Option(help="Database, sqlite:///FILE.db [OUT/study.db].")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study [ALGORITHM on ENV].")] = None,
    steps: Annotated[int, typer.Option(help="Training steps of a trial, over all copies.")] = 100_000,
    n_envs: Annotated[int, typer.Option(help="Parallel copies.")] = 1,
    jobs: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the search and of the first training.")] = 0,
    seeds: Annotated[int, typer.Option(help="Trainings a trial, of which the mean counts.")] = 1,
    evaluations: Annotated[int, typer.Option(help="Evaluations a training; poor trials end at one.")] = 5,
    episodes: Annotated[int, typer.Option(help="Episodes an evaluation.")] = 10,
    hyper: Annotated[list[str] | None, typer.Option(help="Fixed algorithm argument key=value, or JSON/YAML.")] = None,
    start: Annotated[list[str] | None, typer.Option(help="First trial's value name=value, or JSON/YAML.")] = None,
    env_kwargs: Annotated[list[str] | None, typer.Option(help="Env argument key=value, or JSON/YAML.")] = None,
    eval_kwargs: Annotated[list[str] | None, typer.Option(help="Overrides of --env-kwargs in evaluations.")] = None,
    policy: Annotated[str | None, typer.Option(help="SB3 policy name, `set` or module:Class.")] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Train under VecNormalize.")] = False,
    space: Annotated[Path | None, typer.Option(help="Search space (YAML) instead of the algorithm's own.")] = None,
    pruner: Annotated[str, typer.Option(help="median, halving or none.")] = "median",
    n_startup: Annotated[int, typer.Option(help="Random trials first; none is pruned before.")] = 5,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no trial is begun.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results [runs/tune-ALGORITHM-ENV].")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the history of the search as a page (html).")] = None,
    device: Annotated[str, typer.Option(help="torch device.")] = "cpu",
) -> None:
    """Search the hyper-parameters of an algorithm on an environment; writes best.yaml and trials.csv.

    Start the command again, on one or several machines, and it goes on with the study in the database. Any worker may
    be killed: its trial is tried again. Ctrl-C keeps what is finished; exit code 130.

    best.yaml is read by rl-zoo3 (--conf-file) and by sweep files (zoo:). Its value is a maximum over trials, so it is
    too good: report an evaluation with other seeds, which `orl sweep` and `orl evaluate` have by default.
    """
    from orl.bench.search_spaces import read_space
    from orl.bench.tuning import Tuning, tune

    name = env_id.removeprefix("orl:").replace("/", "-")
    folder = out or Path("runs") / f"tune-{algorithm}-{name}"
    require_writable(folder, "--out", folder=True)
    require_writable(plot, "--plot")
    tuning = Tuning(
        algorithm=algorithm,
        env_id=env_id,
        steps=steps,
        n_envs=n_envs,
        env_kwargs=key_values(env_kwargs, "--env-kwargs"),
        eval_kwargs=key_values(eval_kwargs, "--eval-kwargs"),
        policy=policy,
        hyper=key_values(hyper, "--hyper"),
        normalize={} if normalize else None,
        space=None if space is None else read_space(space),
        seed=seed,
        seeds=seeds,
        evaluations=evaluations,
        episodes=episodes,
        pruner=pruner,
        n_startup=n_startup,
        device=device,
    )
    result = tune(
        tuning,
        folder,
        trials=trials,
        storage=storage,
        study=study,
        start=key_values(start, "--start") or None,
        jobs=jobs,
        timeout=timeout,
        plot=plot,
        console=Console(stderr=True),
    )
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=True)
    console.print(f"{result.finished} trials, {result.pruned} of them pruned; {result.failed} not finished")
    if result.best_trial is not None:
        console.print(f"best: trial {result.best_trial}, mean evaluation return {result.best_value:.6g}")
    for path in result.files:
        console.print(f"written: {path}")
    if result.interrupted:
        console.print("ended by Ctrl-C; the same command goes on")
        raise typer.Exit(INTERRUPTED)
    if result.best_trial is None:
        console.print("no trial was trained to its end")
        raise typer.Exit(1)
