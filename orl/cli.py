"""The ``orl`` command.

Exit codes: 0 done; 1 no answer, or one that fails its check; 2 bad input or a file that cannot be read or written, said
in one line; 130 ended by Ctrl-C. A search that Ctrl-C ends has done its work, only earlier: ``orl solve`` then checks
and writes its best solution and ends with 0. Files are written whole or not at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from orl.common.atomic import atomic_path
from orl.common.errors import DataUnavailableError, IllegalActionError, InputError, MissingExtraError
from orl.solve_cli import make_solver, solve_command
from orl.sweep_cli import sweep_app
from orl.terminal import INTERRUPTED, console, key_values, number, percent, require_writable
from orl.tune_cli import tune_command

app = typer.Typer(
    help="Operations research and reinforcement learning in one table: same instance, objective, bound and clock.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Public benchmark data: what is there, and fetching it.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(sweep_app, name="sweep")


class Kind(StrEnum):
    """What ``orl list`` can list."""

    envs = "envs"
    algorithms = "algorithms"
    solvers = "solvers"
    instances = "instances"


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        import orl

        typer.echo(f"orl {orl.__version__}")
        raise typer.Exit
    del debug  # read by main, which has to know it before anything runs


# ---- list ----------------------------------------------------------------------------------------------------------
@app.command("list")
def list_command(
    kind: Annotated[Kind | None, typer.Argument(help="Only these; everything when left out.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only this domain, job_shop for instance.")] = None,
) -> None:
    """List environments, algorithms, solvers and instances."""
    from orl import registry

    terminal = console()
    if domain is not None:
        registry.domain(domain)
    if kind in (None, Kind.envs):
        rows = [(e.id, e.domain, e.summary) for e in registry.environments(domain)]
        terminal.print(_table("Environments", ("id", "domain", "what"), rows))
    if kind in (None, Kind.algorithms):
        entries = registry.algorithms() if domain is None or kind else ()
        if entries:
            terminal.print(_table("Algorithms", ("key", "what"), [(e.key, e.summary) for e in entries]))
    if kind in (None, Kind.solvers):
        solver_rows = [(e.key, e.domain or "", e.summary) for e in registry.solvers(domain)]
        terminal.print(_table("Solvers", ("key", "domain", "what"), solver_rows))
    if kind in (None, Kind.instances):
        chosen = registry.domains() if domain is None else (registry.domain(domain),)
        for each in chosen:
            names = each.instances()
            terminal.print(f"[bold]Instances of {each.name}[/] ({len(names)} that load without network)")
            terminal.print(", ".join(names) if kind else _families(names), highlight=False, soft_wrap=True)


def _families(names: list[str]) -> str:
    """Names in a line, runs of a family shortened: ``ta01..ta80``."""
    runs: list[list[str]] = []
    for name in names:
        stem = name.rstrip("0123456789")
        if runs and runs[-1][0].rstrip("0123456789") == stem:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}..{run[-1]} ({len(run)})" for run in runs)


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


# ---- train ---------------------------------------------------------------------------------------------------------
@app.command()
def train(
    algorithm: Annotated[str, typer.Argument(help="Algorithm key (`orl list algorithms`).")],
    env_id: Annotated[str, typer.Argument(help="Gymnasium id, orl/JobShop-v0 for instance.")],
    steps: Annotated[int, typer.Option(help="Steps over all copies; --resume counts those done.")] = 100_000,
    n_envs: Annotated[int, typer.Option(help="Parallel copies.")] = 8,
    env_kwargs: Annotated[list[str] | None, typer.Option(help="Env argument key=value, or JSON/YAML.")] = None,
    hyper: Annotated[list[str] | None, typer.Option(help="Algorithm argument key=value, or JSON/YAML.")] = None,
    policy: Annotated[str | None, typer.Option(help="SB3 policy name, `set` or module:Class.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run [runs/ALGORITHM-ENV-SEED].")] = None,
    eval_every: Annotated[int, typer.Option(help="Evaluate every so many steps; 0: never.")] = 0,
    eval_episodes: Annotated[int, typer.Option(help="Episodes an evaluation.")] = 20,
    device: Annotated[str, typer.Option(help="torch device.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch; small networks learn fastest with one.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the model in the folder of the run.")] = False,
) -> None:
    """Train an algorithm on an environment; saves model.zip and config.json.

    An object as argument is a mapping with a target, for instance random instances: --env-kwargs
    '{"instance": {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 6, "n_machines": 6}}'.

    Ctrl-C saves what has been learned so far; exit code 130. Targets in the config.json of a run are code,
    which runs when the run is resumed or evaluated: load only runs you trust.
    """
    import torch

    from orl.training import TrainingRun
    from orl.training import train as run_training

    torch.set_num_threads(threads)
    run = TrainingRun(
        algorithm=algorithm,
        env_id=env_id,
        steps=steps,
        n_envs=n_envs,
        env_kwargs=key_values(env_kwargs, "--env-kwargs"),
        hyper=key_values(hyper, "--hyper"),
        policy=policy,
        seed=seed,
        device=device,
        eval_every=eval_every,
        eval_episodes=eval_episodes,
    )
    name = env_id.removeprefix("orl:").replace("/", "-")
    folder = out or Path("runs") / f"{algorithm}-{name}-{seed}"
    require_writable(folder, "--out", folder=True)
    result = run_training(run, folder, resume=resume, console=console(stderr=True))
    terminal = console()
    terminal.print(f"{result.steps:,} steps, {result.seconds:.1f} s")
    for path in result.files:
        terminal.print(f"written: {path}", highlight=False, soft_wrap=True)
    if result.interrupted:
        terminal.print("ended by Ctrl-C; go on with --resume")
        raise typer.Exit(INTERRUPTED)


# ---- solve ---------------------------------------------------------------------------------------------------------
app.command("solve")(solve_command)


# ---- tune ----------------------------------------------------------------------------------------------------------
app.command("tune")(tune_command)


# ---- evaluate ------------------------------------------------------------------------------------------------------
@app.command()
def evaluate(
    subject: Annotated[
        str, typer.Argument(help="Model (zip or folder of a run), or keys of solvers and rules: cp-sat,lrpt.")
    ],
    target: Annotated[str, typer.Argument(help="Env id, or domain: job_shop.")],
    instances: Annotated[str | None, typer.Option(help="Names or files, separated by commas.")] = None,
    episodes: Annotated[int, typer.Option(help="Episodes (or solves) of each instance.")] = 1,
    best_of: Annotated[int, typer.Option(help="Attempts a row, of which the best counts.")] = 1,
    time_limit: Annotated[float | None, typer.Option(help="Seconds a row.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first episode.")] = 0,
    env_kwargs: Annotated[list[str] | None, typer.Option(help="Env argument key=value, or JSON/YAML.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Solver argument key=value.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="Of a model that has no config.json beside it.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
) -> None:
    """Run a trained model, rules or solvers on instances; one checked row an episode.

    On an env a rule plays episodes as a policy; on a domain it answers instances as a solver, as other methods always
    do.

    A trained model runs code of its own: load only runs you trust. Ctrl-C ends the row at hand, whose column
    `interrupted` says so, and the evaluation: the table is written as far as it goes; exit code 130.
    """
    import pandas

    import orl
    from orl import registry

    require_writable(csv, "--csv")
    is_model = Path(subject).exists()
    environment = next((e for e in registry.environments() if e.id == target.removeprefix("orl:")), None)
    room_name = environment.domain if environment is not None else target
    is_domain = any(each.name == room_name.replace("-", "_") for each in registry.domains())
    room = registry.domain(room_name) if is_domain or not is_model else None  # unknown names end here
    names = [name.strip() for name in instances.split(",")] if instances else []
    if names and room is None:
        raise InputError("instances of an env without a domain", field="--instances", value=instances)
    problems = [room.load(name) for name in names] if room is not None else []
    common: dict[str, Any] = {"n_episodes": episodes, "best_of": best_of, "seed": seed, "time_limit": time_limit}
    common["progress"] = sys.stderr.isatty()
    if is_model:
        from orl.training import find_spec, load_policy

        learned = load_policy(Path(subject), algorithm)
        env_id = target if environment is not None or room is None else learned.env_id
        if env_id is None:
            raise InputError("no env", field="target", value=target, expected="an env id: the model names none")
        find_spec(env_id)
        kwargs = learned.env_kwargs | key_values(env_kwargs, "--env-kwargs")
        if problems:
            kwargs.pop("instance", None)
        table = orl.evaluate(
            learned.on,
            problems or env_id,
            env_id=env_id if problems else None,
            env_kwargs=kwargs,
            name=Path(subject).stem,
            **common,
        )
    else:
        assert room is not None
        keys = [key.strip() for key in subject.split(",")]
        calls = [_method_call(room, environment, key, problems, option, env_kwargs) for key in keys]
        tables = []
        for call in calls:
            tables.append(orl.evaluate(**call, **common))
            if tables[-1]["interrupted"].any():
                break
        table = pandas.concat(tables, ignore_index=True)
    terminal = console()
    terminal.print(_evaluation_table(table))
    if csv is not None:
        with atomic_path(csv) as temporary:
            table.to_csv(temporary, index=False)
        terminal.print(f"written: {csv}", highlight=False, soft_wrap=True)
    if table["interrupted"].any():
        terminal.print("ended by Ctrl-C in the last row")
    if (table["checked"] == False).any():  # noqa: E712 (None means that there was nothing to check)
        raise typer.Exit(1)
    if table["interrupted"].any():
        raise typer.Exit(INTERRUPTED)


def _method_call(
    room: Any, environment: Any, key: str, problems: list[Any], options: list[str] | None, env_kwargs: list[str] | None
) -> dict[str, Any]:
    """Arguments of ``orl.evaluate`` for the method of a key: a rule where there is an env to play, else a solver."""
    from orl import registry

    if environment is None or key not in {entry.key for entry in registry.rules(room.name)}:
        return {"subject": make_solver(room.name, key, options), "problems": problems or [room.load(room.example)]}
    given = key_values(options, "--option")

    def rule(env: Any) -> Any:
        try:
            return registry.rule(room.name, key, env, **given)
        except TypeError as error:
            raise InputError(str(error), source=key, field="--option", value=options) from error

    return {
        "subject": rule,
        "problems": problems or environment.lazy_id,
        "env_id": environment.lazy_id if problems else None,
        "env_kwargs": key_values(env_kwargs, "--env-kwargs"),
        "name": key,
    }


def _evaluation_table(table: Any) -> Table:
    columns = ("subject", "instance", "objective", "bound", "gap", "best known", "gap to it", "return", "seconds")
    out = Table(title=f"{len(table)} rows", title_justify="left")
    for k, column in enumerate((*columns, "checked")):
        out.add_column(column, justify="left" if k < 2 else "right", overflow="fold")
    for row in table.to_dict("records"):
        out.add_row(
            row["subject"],
            row["instance"],
            number(row["objective"]),
            number(row["bound"]),
            percent(row["gap"]),
            number(row["best_known"]),
            percent(row["gap_to_best_known"]),
            number(row["return"], 3),
            f"{row['seconds']:.3f}",
            {True: "yes", False: "NO: " + row["violations"]}.get(row["checked"], "-"),
        )
    return out


# ---- data ----------------------------------------------------------------------------------------------------------
@data_app.command("list")
def data_list(domain: Annotated[str | None, typer.Argument(help="Only this domain.")] = None) -> None:
    """List data files, and which of them are on this machine."""
    from orl import registry
    from orl.common.data import is_available

    rooms = registry.domains() if domain is None else (registry.domain(domain),)
    rows = [
        (room.name, file.name, "yes" if is_available(room.name, file) else "no", file.summary)
        for room in rooms
        for file in room.files()
    ]
    console().print(_table("Data files", ("domain", "file", "here", "what"), rows))


@data_app.command("fetch")
def data_fetch(domain: Annotated[str | None, typer.Argument(help="Only this domain.")] = None) -> None:
    """Download the data files that are missing, each checked against its SHA-256."""
    from orl import registry
    from orl.common.data import fetch

    terminal = console()
    for room in registry.domains() if domain is None else (registry.domain(domain),):
        for path in fetch(room.name, room.files()):
            terminal.print(f"{room.name}: {path}", highlight=False, soft_wrap=True)


# ---- demo ----------------------------------------------------------------------------------------------------------
@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for table, pictures and page.")] = Path("demo"),
    train_seconds: Annotated[float, typer.Option(help="Seconds of training.")] = 120.0,
    quick: Annotated[bool, typer.Option("--quick", help="A few seconds, two small instances.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Rules, tabu search, CP-SAT and a policy trained on the spot, side by side on benchmark instances.

    Ctrl-C ends the training early, and later the comparison: the page then shows the rows so far; exit code 130.
    """
    from orl.demo import run_demo

    require_writable(out, "--out", folder=True)
    table = run_demo(out, train_seconds=train_seconds, quick=quick, seed=seed, console=console())
    if table["interrupted"].any():
        raise typer.Exit(INTERRUPTED)


def main() -> None:
    """Console entry: runs the command and turns errors of input and files into one red line and exit code 2."""
    try:
        app()
    except (InputError, IllegalActionError, DataUnavailableError, MissingExtraError, OSError) as error:
        if "--debug" in sys.argv or os.environ.get("ORL_DEBUG"):
            raise
        for each in getattr(error, "errors", None) or [error]:
            text = " ".join(str(each).split())
            console(stderr=True).print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
