"""Optuna studies that several processes share and that survive the death of any of them.

A study lives in a database behind a SQLAlchemy URL. SQLite in a local file is enough for the processes of one machine:
every transaction takes the write lock at its start, so that two workers never take the same trial (Optuna reads and
then writes, and SQLite has no row locks), and waits for it up to :data:`LOCK_SECONDS`. For several machines use a
database server: SQLite's locks do not hold on network file systems.

A worker that dies leaves a trial in the state RUNNING. It is found by any other worker, or by the next start: at once
if its process was on this machine, else when its heartbeat has been missing for :data:`GRACE_SECONDS`. It then counts
as failed, and its parameters are queued again, at most :data:`MOST_RETRIES` times.
"""

from __future__ import annotations

import datetime
import os
import platform
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orl.common.errors import InputError

LOCK_SECONDS = 60.0
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60
MOST_RETRIES = 2
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTS = 20
"""Attempts to make the tables of a new database, which another worker may be making at the same time."""


class SamplerByTrial(BaseSampler):
    """Optuna's TPE sampler whose random numbers depend on the seed and the number of the trial alone.

    A worker that is started again thus does not draw what the one before it drew, and workers need no seeds of their
    own; a study of one worker is the same whether or not it was stopped between two trials.

    Args:
        seed: Seed of the study.
        n_startup: Trials that are drawn at random before the model of the sampler is used.
    """

    def __init__(self, seed: int, n_startup: int) -> None:
        self.seed, self.n_startup = seed, n_startup
        self.inner = TPESampler(n_startup_trials=n_startup, seed=0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        state = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
        self.inner = TPESampler(n_startup_trials=self.n_startup, seed=int(state[0]))
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's log lines and its warnings about experimental parts, whose reports stand in the study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_study(
    storage: str, name: str, *, sampler: BaseSampler | None = None, pruner: optuna.pruners.BasePruner | None = None
) -> Study:
    """The study of that name, made if it is not there; its value is maximised.

    Args:
        storage: ``sqlite:///relative/file.db``, ``sqlite:////absolute/file.db`` or another SQLAlchemy URL.
        name: Name of the study.
        sampler, pruner: Optuna's when left out.

    Raises:
        InputError: no URL, or a database that cannot be opened.
    """
    database = _open_storage(storage)
    return optuna.create_study(
        storage=database, study_name=name, direction="maximize", load_if_exists=True, sampler=sampler, pruner=pruner
    )


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    expected = "sqlite:///FILE.db, or the SQLAlchemy URL of another database"
    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError("no database URL", field="storage", value=url, expected=expected) from error
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        if parsed.database in (None, "", ":memory:"):
            raise InputError("is not kept", field="storage", value=url, expected=expected)
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    options = {"connect_args": {"timeout": LOCK_SECONDS}} if is_sqlite else {}
    for attempt in range(STARTS):
        try:
            storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=retry,
            )
            break
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            made_by_another = "already exists" in str(error) or "UNIQUE constraint" in str(error)
            if not made_by_another or attempt == STARTS - 1:
                reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
                raise InputError(
                    f"cannot be opened: {reason}", field="storage", value=url, expected=expected
                ) from error
            time.sleep(0.1)
    if is_sqlite:
        _lock_at_begin(storage.engine)
    return storage


def _lock_at_begin(engine: sqlalchemy.Engine) -> None:
    """Every transaction takes SQLite's write lock at its start, not at its first write (SQLAlchemy's own recipe)."""

    @sqlalchemy.event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections from before the listeners


# ---- who is alive --------------------------------------------------------------------------------------------------
def this_worker() -> dict[str, Any]:
    """This process, so that others on the same machine can see whether it still lives.

    >>> is_dead(this_worker())
    False
    """
    return {"machine": _machine(), "pid": os.getpid(), "born": _born(os.getpid())}


def is_dead(worker: dict[str, Any]) -> bool:
    """Whether a worker is known to be dead: a process of this machine that is no more."""
    return bool(worker["machine"] == _machine()) and _born(worker["pid"]) != worker["born"]


def _machine() -> str:
    """Names the set of process ids: host, boot and namespace."""
    parts = [platform.node()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        if path.is_symlink():
            parts.append(str(path.readlink()))
        elif path.exists():
            parts.append(path.read_text().strip())
    return " ".join(parts)


def _born(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if it does not live (a zombie does not)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(fields[18])


def recover(study: Study) -> None:
    """Fail the trials whose workers died, and queue their parameters again."""
    now = datetime.datetime.now()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        began = trial.datetime_start or now
        # A worker that died before it could say who it was has left no heartbeat either.
        dead = is_dead(worker) if worker else (now - began).total_seconds() > GRACE_SECONDS
        if dead:
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):
                continue  # another worker was first
            retry(study, trial)
    optuna.storages.fail_stale_trials(study)


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queue the parameters of a trial that its worker did not finish."""
    retries = int(trial.user_attrs.get("retries", 0)) + 1
    if retries <= MOST_RETRIES:
        parameters = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        study.enqueue_trial(parameters, user_attrs={"retry_of": trial.number, "retries": retries})


def counts(study: Study) -> dict[str, int]:
    """Trials by state: finished (complete and pruned), pruned, failed, running."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {
        "finished": sum(state in FINISHED for state in states),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "running": states.count(TrialState.RUNNING),
    }
