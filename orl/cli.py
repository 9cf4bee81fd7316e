"""The ``orl`` command.

Exit codes: 0 done; 1 no answer, or one that fails its check; 2 bad input or a file that cannot be read or written, said
in one line; 130 ended by Ctrl-C. A search that Ctrl-C ends has done its work, only earlier: ``orl solve`` then checks
and writes its best solution and ends with 0. Files are written whole or not at all.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

from orl.bench.yaml_lines import parse
from orl.common.atomic import atomic_path, write_json
from orl.common.errors import DataUnavailableError, IllegalActionError, InputError, MissingExtraError
from orl.common.json_files import read_json
from orl.sweep_cli import sweep_app
from orl.tune_cli import tune_command

INTERRUPTED = 130
LARGEST_SOLUTION = 2**26
"""Bytes of a file that ``--hint`` reads."""
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


def _console(stderr: bool = False) -> Console:
    """A console that does not cut table cells when its output is a file or a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 160)


def key_values(items: list[str] | None, option: str) -> dict[str, Any]:
    """Keyword arguments from the command line: ``a=1``, ``a.b=2`` (nested) or a whole JSON or YAML mapping.

    Values are YAML 1.2: ``1`` and ``3e-4`` are numbers, ``true`` a truth value, ``[1, 2]`` a list, anything else text.

    >>> key_values(["n=3", "net.rate=3e-4", '{"flag": true}'], "--hyper")
    {'n': 3, 'net': {'rate': 0.0003}, 'flag': True}

    Raises:
        InputError: neither of these forms.
    """
    out: dict[str, Any] = {}
    for item in items or []:
        expected = "key=value or a JSON/YAML mapping"
        key, equals, text = item.partition("=")
        is_pair = bool(equals) and key.strip().replace(".", "").replace("_", "").isalnum()
        try:
            document = parse((text if is_pair else item).strip() or "null", option)
        except InputError as error:
            raise InputError("cannot be read", field=option, value=item, expected=expected) from error
        if document.errors:
            raise InputError(document.errors[0].problem, field=option, value=item, expected=expected)
        value = document.data
        if is_pair:
            *path, last = key.strip().split(".")
            inner = out
            for name in path:
                inner = inner.setdefault(name, {})
                if not isinstance(inner, dict):
                    raise InputError("set twice", field=option, value=item, expected=f"{name!r} once")
            inner[last] = value
        elif isinstance(value, dict):
            out |= value
        else:
            raise InputError("cannot be read", field=option, value=item, expected=expected)
    return out


def _number(value: float | None, digits: int = 1) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:,.{digits}f}" if value % 1 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f} %"


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

    console = _console()
    if domain is not None:
        registry.domain(domain)
    if kind in (None, Kind.envs):
        rows = [(e.id, e.domain, e.summary) for e in registry.environments(domain)]
        console.print(_table("Environments", ("id", "domain", "what"), rows))
    if kind in (None, Kind.algorithms):
        entries = registry.algorithms() if domain is None or kind else ()
        if entries:
            console.print(_table("Algorithms", ("key", "what"), [(e.key, e.summary) for e in entries]))
    if kind in (None, Kind.solvers):
        solver_rows = [(e.key, e.domain or "", e.summary) for e in registry.solvers(domain)]
        console.print(_table("Solvers", ("key", "domain", "what"), solver_rows))
    if kind in (None, Kind.instances):
        chosen = registry.domains() if domain is None else (registry.domain(domain),)
        for each in chosen:
            names = each.instances()
            console.print(f"[bold]Instances of {each.name}[/] ({len(names)} that load without network)")
            console.print(", ".join(names) if kind else _families(names), highlight=False, soft_wrap=True)


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


# ---- solve ---------------------------------------------------------------------------------------------------------
@app.command()
def solve(
    domain: Annotated[str, typer.Argument(help="Domain, job_shop for instance.")],
    instance: Annotated[str, typer.Option(help="Library name or file.")],
    solver: Annotated[
        str | None, typer.Option(help="Solver key (`orl list solvers`); by default the first of the domain.")
    ] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds; the solver's own default when left out.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="Solver argument key=value.")] = None,
    hint: Annotated[Path | None, typer.Option(help="Solution (JSON) to start from.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the solution and its figures as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (png, svg, pdf, html).")] = None,
) -> None:
    """Solve one instance and check the solution.

    Ctrl-C ends the search and keeps the best solution so far: it is checked, printed and written as usual.
    """
    from orl import registry

    room = registry.domain(domain)
    for path, expected in ((save, (".json",)), (plot, (".png", ".svg", ".pdf", ".html"))):
        if path is not None and path.suffix not in expected:
            raise InputError("unknown format", field="file", value=str(path), expected=f"one of {', '.join(expected)}")
    require_writable(save, "--save")
    require_writable(plot, "--plot")
    if time_limit is not None and not time_limit >= 0:
        raise InputError("bad limit", field="--time-limit", value=time_limit, expected="seconds >= 0")
    solver = solver or registry.solvers(room.name)[0].key
    problem = room.load(instance)
    start = None if hint is None else read_solution(room, hint)
    method = _make_solver(room.name, solver, option)
    with _live(f"{solver} on {problem.name}", time_limit):
        result = method.solve(problem, time_limit=time_limit, seed=seed, hint=start)
    check = None if result.solution is None else problem.check(result.solution)
    known = problem.best_known()
    console = _console()
    console.print(_result_table(problem, solver, result, check, known))
    if save is not None:
        write_json(save, _result_json(room.name, problem, solver, seed, result, check), indent=None)
        console.print(f"written: {save}", highlight=False, soft_wrap=True)
    if plot is not None and result.solution is not None:
        with atomic_path(plot) as temporary:
            room.draw(problem, result.solution, temporary)
        console.print(f"written: {plot}", highlight=False, soft_wrap=True)
    for violation in check.violations if check else ():
        console.print(f"[red]violated[/]: {violation}")
    if check is None or not check.feasible:
        raise typer.Exit(0 if result.status == "infeasible" else 1)


def read_solution(room: Any, path: Path) -> Any:
    """A solution from what ``orl solve --save`` or ``Solution.to_json`` wrote.

    Raises:
        InputError: not a readable JSON file, or no solution of this domain in it.
    """
    data = read_json(path, largest=LARGEST_SOLUTION, expected="a solution as JSON")
    if isinstance(data, dict) and "solution" in data:
        data = data["solution"]
    return room.solution(data, str(path))


def require_writable(path: Path | None, option: str, *, folder: bool = False) -> None:
    """Raise InputError unless ``path`` can be written as a file, or as a ``folder``: before the work, not after it.

    Leaves nothing behind: folders that are missing are not made, the nearest one that exists is tried.
    """
    if path is None:
        return
    target = path.absolute()
    try:
        if target.is_dir() and not folder:
            raise InputError("is a folder", field=option, value=str(path), expected="a file")
        parent = target if folder else target.parent
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
        with tempfile.TemporaryDirectory(prefix=".orl.", dir=parent):
            pass
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise InputError(reason, field=option, value=str(path), expected="a place to write to") from error


def _make_solver(domain: str, key: str, options: list[str] | None = None) -> Any:
    from orl import registry

    try:
        return registry.solver(domain, key, **key_values(options, "--option"))
    except TypeError as error:
        raise InputError(str(error), source=key, field="--option", value=options) from error


class ClockBar(BarColumn):
    """A bar of elapsed time over the task's total, which moves while the work runs in foreign code."""

    def render(self, task: Task) -> ProgressBar:
        elapsed = task.elapsed or 0.0
        return ProgressBar(total=task.total, completed=min(elapsed, task.total or elapsed), width=40)


def _live(label: str, time_limit: float | None) -> Progress:
    """A bar over the time limit, or a spinner without one, on stderr while the block runs."""
    progress = Progress(
        TextColumn("{task.description}"),
        ClockBar() if time_limit else SpinnerColumn(),
        TimeElapsedColumn(),
        console=_console(stderr=True),
        transient=True,
    )
    progress.add_task(label, total=time_limit)
    return progress


def _result_table(problem: Any, solver: str, result: Any, check: Any, known: Any) -> Table:
    from orl.common.problem import relative_gap

    table = Table(title=f"{problem.name}: {solver}", title_justify="left", title_style="bold", show_header=False)
    best = None if known is None else known.upper
    to_best = None if best is None or result.objective is None else relative_gap(result.objective, best)
    rows = {
        "status": result.status,
        "objective": _number(result.objective),
        "bound": _number(result.bound),
        "gap to bound": _percent(result.gap),
        "best known": "-" if known is None else f"{_number(best)} ({known.source}, {known.date})",
        "gap to best known": _percent(to_best),
        "seconds": f"{result.seconds:.2f}",
        "incumbents": _curve(result.log),
        "checked": "-" if check is None else ("yes" if check.feasible else f"NO, {len(check.violations)} violations"),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _curve(log: tuple[Any, ...], most: int = 6) -> str:
    """The last incumbents of an anytime curve with their seconds."""
    points: list[Any] = []
    for point in log:
        if point.objective is not None and (not points or point.objective < points[-1].objective):
            points.append(point)
    shown = [f"{_number(point.objective)} ({point.seconds:.1f} s)" for point in points[-most:]]
    return " > ".join((["..."] if len(points) > most else []) + shown) or "-"


def _result_json(domain: str, problem: Any, solver: str, seed: int, result: Any, check: Any) -> dict[str, Any]:
    return {
        "schema": "orl.solve/1",
        "domain": domain,
        "instance": problem.name,
        "solver": solver,
        "seed": seed,
        "status": result.status,
        "objective": result.objective,
        "bound": result.bound,
        "gap": result.gap if result.gap is None or abs(result.gap) != float("inf") else None,
        "seconds": result.seconds,
        "checked": None if check is None else check.feasible,
        "solution": None if result.solution is None else result.solution.to_json(),
        "log": [[point.seconds, point.objective, point.bound] for point in result.log],
    }


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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the model in the folder of the run.")] = False,
) -> None:
    """Train an algorithm on an environment; saves model.zip and config.json.

    An object as argument is a mapping with a target, for instance random instances: --env-kwargs
    '{"instance": {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 6, "n_machines": 6}}'.

    Ctrl-C saves what has been learned so far; exit code 130. Targets in the config.json of a run are code,
    which runs when the run is resumed or evaluated: load only runs you trust.
    """
    from orl.training import TrainingRun
    from orl.training import train as run_training

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
    result = run_training(run, folder, resume=resume, console=_console(stderr=True))
    console = _console()
    console.print(f"{result.steps:,} steps, {result.seconds:.1f} s")
    for path in result.files:
        console.print(f"written: {path}", highlight=False, soft_wrap=True)
    if result.interrupted:
        console.print("ended by Ctrl-C; go on with --resume")
        raise typer.Exit(INTERRUPTED)


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
    console = _console()
    console.print(_evaluation_table(table))
    if csv is not None:
        with atomic_path(csv) as temporary:
            table.to_csv(temporary, index=False)
        console.print(f"written: {csv}", highlight=False, soft_wrap=True)
    if table["interrupted"].any():
        console.print("ended by Ctrl-C in the last row")
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
        return {"subject": _make_solver(room.name, key, options), "problems": problems or [room.load(room.example)]}
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
            _number(row["objective"]),
            _number(row["bound"]),
            _percent(row["gap"]),
            _number(row["best_known"]),
            _percent(row["gap_to_best_known"]),
            _number(row["return"], 3),
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
    _console().print(_table("Data files", ("domain", "file", "here", "what"), rows))


@data_app.command("fetch")
def data_fetch(domain: Annotated[str | None, typer.Argument(help="Only this domain.")] = None) -> None:
    """Download the data files that are missing, each checked against its SHA-256."""
    from orl import registry
    from orl.common.data import fetch

    console = _console()
    for room in registry.domains() if domain is None else (registry.domain(domain),):
        for path in fetch(room.name, room.files()):
            console.print(f"{room.name}: {path}", highlight=False, soft_wrap=True)


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
    table = run_demo(out, train_seconds=train_seconds, quick=quick, seed=seed, console=_console())
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
            _console(stderr=True).print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
