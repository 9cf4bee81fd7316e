"""``orl tune``: search the hyper-parameters of an algorithm on an environment with Optuna.

A trial trains once (or with several seeds) and is worth the mean return of its final evaluation, in an environment and
with seeds of its own. Intermediate evaluations are reported, so that poor trials end early. Any number of processes may
work on one study, at any time and from anywhere that reaches its database; each may be killed (see
:mod:`orl.bench.tuning_study`).
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from orl.common.errors import InputError, MissingExtraError

try:
    import optuna
except ModuleNotFoundError as error:
    raise MissingExtraError("optuna", "tune", "orl tune") from error
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orl.bench.tuning_study import SamplerByTrial, counts, open_study, quiet, recover
from orl.bench.tuning_trial import Surplus, Tuning, draw_hyper, make_env, objective, run_of
from orl.bench.zoo_export import write_zoo_file
from orl.common.atomic import atomic_path
from orl.training import build_model

__all__ = ["TuneResult", "Tuning", "tune"]

POLL_SECONDS = 0.5
BAD_INPUT, STOPPED = 2, 130
"""Exit codes of a worker process."""


@dataclass(frozen=True)
class TuneResult:
    """A study as it stands when :func:`tune` ends.

    Attributes:
        study: Name of the study.
        finished, pruned, failed: Trials over all workers; pruned ones are finished, failed ones are not.
        best_trial: Number of the best trial, None when no trial was trained to its end.
        best_value: Its mean evaluation return.
        best_hyper: Its hyper-parameters, plain data.
        interrupted: Whether Ctrl-C ended this call.
        files: Files written.
    """

    study: str
    finished: int
    pruned: int
    failed: int
    best_trial: int | None
    best_value: float | None
    best_hyper: dict[str, Any]
    interrupted: bool
    files: tuple[Path, ...]


def tune(
    tuning: Tuning,
    out: Path,
    *,
    trials: int,
    storage: str | None = None,
    study: str | None = None,
    start: Mapping[str, Any] | None = None,
    jobs: int = 1,
    timeout: float | None = None,
    plot: Path | None = None,
    console: Console | None = None,
) -> TuneResult:
    """Work on a study until it has ``trials`` finished ones; write ``best.yaml`` and ``trials.csv`` under ``out``.

    Called again, it goes on where the study stands. Trials of other workers count, and their last ones are waited for.
    Ctrl-C ends in order: what is finished is kept, what is in flight is queued for the next call.

    Args:
        tuning: What to tune; a study keeps to it.
        out: Folder of the result files.
        trials: Finished trials (pruned ones included) that the study shall have.
        storage: SQLAlchemy URL of the database; ``out/study.db`` when left out.
        study: Name of the study; algorithm and env when left out.
        start: Values of the search space that the first trial of a new study takes.
        jobs: Worker processes; with 1, this process works itself.
        timeout: Wall seconds after which no trial is begun.
        plot: File for a picture of the optimisation history (html).
        console: Where to draw the progress bar.

    Raises:
        InputError: bad input, or a study of something else.
        MissingExtraError: optuna (or plotly, for ``plot``) is not installed.
    """
    for name, value in (("trials", trials), ("jobs", jobs)):
        if value < 1:
            raise InputError("too small", field=name, value=value, expected=">= 1")
    if plot is not None:
        require_plotly()
    storage = storage or f"sqlite:///{(out / 'study.db').absolute()}"
    name = study or f"{tuning.algorithm} on {tuning.env_id}"
    interrupted = False
    with quiet():
        names, policy = check_tuning(tuning)
        first = check_start(start or {}, names)
        opened = study_of(tuning, storage, name)
        keep_to(opened, tuning)
        if first and not opened.get_trials(deepcopy=False):
            opened.enqueue_trial(first, skip_if_exists=True)
        end = None if timeout is None else time.monotonic() + timeout
        with bar_of(opened, trials, console) as progress:
            try:
                if jobs == 1:
                    work(tuning, opened, trials, end=end, on_progress=progress)
                else:
                    work_in_processes(tuning, opened, storage, trials, jobs, end, progress)
            except KeyboardInterrupt:
                interrupted = True
        return write_result(tuning, opened, policy, out, plot, interrupted)


# ---- the study -----------------------------------------------------------------------------------------------------
def check_tuning(tuning: Tuning) -> tuple[dict[str, BaseDistribution], str]:
    """What the search space draws, and the policy, found by drawing once and building a model with it.

    Raises:
        InputError: unknown names, or values that env, algorithm or space refuse.
    """
    env = make_env(tuning, tuning.seed)
    try:
        trial = optuna.create_study(sampler=SamplerByTrial(tuning.seed, 1)).ask()
        run = run_of(tuning, env, draw_hyper(trial, tuning, env), tuning.seed)
        build_model(run, env)
        assert run.policy is not None
        return dict(trial.distributions), run.policy
    finally:
        env.close()


def keep_to(study: Study, tuning: Tuning) -> None:
    """Note what the study tunes, or raise InputError if that is something else: its values could not be compared."""
    asked, known = tuning.to_json(), study.user_attrs.get("tuning")
    if known is None:
        study.set_user_attr("tuning", asked)
        return
    for name, value in asked.items():
        if known.get(name) != value:
            expected = f"{known.get(name)!r} as in the study, or another --study"
            raise InputError(
                "a study of something else", source=study.study_name, field=name, value=value, expected=expected
            )


def check_start(start: Mapping[str, Any], names: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """Values of the search space, with the types that it draws.

    Raises:
        InputError: a name that the space does not draw, or a value outside of its range.
    """
    values = {}
    for name, value in start.items():
        distribution = names.get(name)
        if distribution is None:
            expected = f"one of {', '.join(names)}"
            raise InputError("not in the search space", field="start", value=name, expected=expected)
        try:
            if isinstance(distribution, FloatDistribution):
                value = float(value)
            inside = distribution._contains(distribution.to_internal_repr(value))
        except (TypeError, ValueError):
            inside = False
        if not inside:
            expected = describe(distribution)
            raise InputError("outside the search space", field=f"start {name}", value=value, expected=expected)
        values[name] = value
    return values


def describe(distribution: BaseDistribution) -> str:
    """A range in words.

    >>> describe(FloatDistribution(1e-5, 0.1, log=True))
    '1e-05 to 0.1'
    """
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return f"{distribution.low:g} to {distribution.high:g}"
    assert isinstance(distribution, CategoricalDistribution)
    return f"one of {', '.join(map(str, distribution.choices))}"


def study_of(tuning: Tuning, storage: str, name: str) -> Study:
    """The study with the sampler and the pruner that ``tuning`` asks for."""
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if tuning.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_startup_trials=tuning.n_startup)
    elif tuning.pruner == "halving":
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return open_study(storage, name, sampler=SamplerByTrial(tuning.seed, tuning.n_startup), pruner=pruner)


# ---- workers -------------------------------------------------------------------------------------------------------
def work(
    tuning: Tuning,
    study: Study,
    trials: int,
    *,
    end: float | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Run trials until the study has ``trials`` finished ones; wait for those of others, and take over from the dead.

    Args:
        tuning, study: What is tuned, and where.
        trials: Finished trials it shall have.
        end: Time on ``time.monotonic`` after which no trial is begun.
        on_progress: Called with the share of the trial at hand that is done.
    """
    while end is None or time.monotonic() < end:
        recover(study)
        now = counts(study)
        if now["finished"] >= trials:
            return
        if now["finished"] + now["running"] >= trials:
            on_progress(0.0)
            time.sleep(POLL_SECONDS)
            continue
        # A process that slept long is taken for dead, and its trial over by another: then it goes on with a new one.
        with suppress(UpdateFinishedTrialError):
            study.optimize(lambda trial: objective(trial, tuning, trials, on_progress), n_trials=1, catch=(Surplus,))


def work_in_processes(
    tuning: Tuning,
    study: Study,
    storage: str,
    trials: int,
    jobs: int,
    end: float | None,
    progress: Callable[[float], None],
) -> None:
    """Let ``jobs`` processes run :func:`work`; they stop in order when this process closes their input or dies.

    Raises:
        InputError: what a worker raised.
        RuntimeError: a worker died of something else.
    """
    message = {
        "tuning": tuning.to_json(),
        "storage": storage,
        "study": study.study_name,
        "trials": trials,
        "seconds": None if end is None else end - time.monotonic(),
    }
    line = json.dumps(message) + "\n"
    workers: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryFile("w+") as output:
        try:
            for _ in range(jobs):
                workers.append(start_worker(line, output))
            while any(worker.poll() is None for worker in workers) and not any(map(broken, workers)):
                progress(0.0)
                time.sleep(POLL_SECONDS)
        finally:
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.close()
            for worker in workers:
                worker.wait()
        output.seek(0)
        said = output.read()
    if any(worker.returncode == BAD_INPUT for worker in workers):
        raise InputError(said.strip().rpartition("\n")[2], source="worker")
    # A worker that was killed is no matter as long as another one has done its work.
    if any(map(broken, workers)) or all(worker.returncode < 0 for worker in workers):
        codes = ", ".join(str(worker.returncode) for worker in workers)
        raise RuntimeError(f"the workers of the study ended with exit codes {codes}:\n{said}")


def start_worker(line: str, output: IO[str]) -> subprocess.Popen[str]:
    """A worker process that has been told its work; Ctrl-C in the terminal does not reach its session."""
    command = [sys.executable, "-m", "orl.bench.tuning_worker"]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=output, text=True, start_new_session=True
    )
    assert worker.stdin is not None
    worker.stdin.write(line)
    worker.stdin.flush()
    return worker


def broken(worker: subprocess.Popen[str]) -> bool:
    """Whether a worker ended with an error of its own; one that was killed or asked to stop did not."""
    return worker.poll() is not None and worker.returncode > 0 and worker.returncode != STOPPED


@contextmanager
def bar_of(study: Study, trials: int, console: Console | None) -> Iterator[Callable[[float], None]]:
    """A progress bar over the finished trials of all workers, as a function that draws it anew."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[news]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=console is None) as bar:
        task = bar.add_task(study.study_name, total=trials, news="")
        drawn = 0.0

        def update(share: float) -> None:
            nonlocal drawn
            if console is None or time.monotonic() - drawn < POLL_SECONDS:
                return
            now = counts(study)
            best = best_trial(study)
            news = f"{now['finished']}/{trials} trials, {now['pruned']} pruned"
            if best is not None:
                news += f", best {best.value:.4g}"
            bar.update(task, completed=min(now["finished"] + share, trials), news=news)
            drawn = time.monotonic()

        update(0.0)
        yield update
        drawn = 0.0
        update(0.0)


# ---- results -------------------------------------------------------------------------------------------------------
def best_trial(study: Study) -> FrozenTrial | None:
    """The best trial that was trained to its end; of equals, the first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def write_result(
    tuning: Tuning, study: Study, policy: str, out: Path, plot: Path | None, interrupted: bool
) -> TuneResult:
    """Write the files of a study as it stands."""
    best, now = best_trial(study), counts(study)
    files = [out / "trials.csv"]
    write_trials(study, files[0])
    if best is not None:
        files.append(out / "best.yaml")
        write_zoo_file(
            files[-1],
            tuning.env_id.removeprefix("orl:"),
            {
                "n_timesteps": tuning.steps,
                "n_envs": tuning.n_envs,
                "policy": policy,
                "normalize": None if tuning.normalize is None else dict(tuning.normalize),
                "env_kwargs": dict(tuning.env_kwargs),
                **best.user_attrs["hyper"],
            },
            heading=(
                f"{tuning.algorithm}: trial {best.number} of {now['finished']}, "
                f"mean evaluation return {best.value:.6g} over {tuning.episodes} episodes, {tuning.seeds} seed(s)"
            ),
        )
        if plot is not None:
            files.append(plot)
            write_plot(study, plot)
    return TuneResult(
        study=study.study_name,
        finished=now["finished"],
        pruned=now["pruned"],
        failed=now["failed"],
        best_trial=None if best is None else best.number,
        best_value=None if best is None else best.value,
        best_hyper={} if best is None else best.user_attrs["hyper"],
        interrupted=interrupted,
        files=tuple(files),
    )


def write_trials(study: Study, path: Path) -> None:
    """One line a trial: number, state, value, seconds, steps reported, worker, retries, error, what was drawn."""
    found = study.get_trials(deepcopy=False)
    names = sorted({name for trial in found for name in trial.params})
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["trial", "state", "value", "seconds", "evaluations", "pid", "retry_of", "error", *names])
        for trial in found:
            notes, seconds = trial.user_attrs, trial.duration
            value = trial.value if trial.state == TrialState.COMPLETE else None
            table.writerow(
                [
                    trial.number,
                    trial.state.name.lower(),
                    value,
                    None if seconds is None else f"{seconds.total_seconds():.3f}",
                    len(trial.intermediate_values),
                    notes.get("worker", {}).get("pid"),
                    notes.get("retry_of"),
                    notes.get("error"),
                    *(trial.params.get(name) for name in names),
                ]
            )


def require_plotly() -> None:
    """Raise MissingExtraError unless plotly is installed."""
    try:
        import plotly  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("plotly", "report", "a picture of the optimisation history") from error


def write_plot(study: Study, path: Path) -> None:
    """The optimisation history as one self-contained html page."""
    figure = optuna.visualization.plot_optimization_history(study)
    with atomic_path(path) as temporary:
        figure.write_html(temporary, include_plotlyjs=True)
