"""``orl solve``: one instance, one solver, one checked solution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

from orl.common.atomic import atomic_path, write_json
from orl.common.errors import InputError
from orl.common.json_files import read_json
from orl.terminal import console, key_values, number, percent, require_writable

LARGEST_SOLUTION = 2**26
"""Bytes of a file that ``--hint`` reads."""


def solve_command(
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
    method = make_solver(room.name, solver, option)
    with _live(f"{solver} on {problem.name}", time_limit):
        result = method.solve(problem, time_limit=time_limit, seed=seed, hint=start)
    check = None if result.solution is None else problem.check(result.solution)
    known = problem.best_known()
    terminal = console()
    terminal.print(_result_table(problem, solver, result, check, known))
    if save is not None:
        write_json(save, _result_json(room.name, problem, solver, seed, result, check), indent=None)
        terminal.print(f"written: {save}", highlight=False, soft_wrap=True)
    if plot is not None and result.solution is not None:
        with atomic_path(plot) as temporary:
            room.draw(problem, result.solution, temporary)
        terminal.print(f"written: {plot}", highlight=False, soft_wrap=True)
    for violation in check.violations if check else ():
        terminal.print(f"[red]violated[/]: {violation}")
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


def make_solver(domain: str, key: str, options: list[str] | None = None) -> Any:
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
        console=console(stderr=True),
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
        "objective": number(result.objective),
        "bound": number(result.bound),
        "gap to bound": percent(result.gap),
        "best known": "-" if known is None else f"{number(best)} ({known.source}, {known.date})",
        "gap to best known": percent(to_best),
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
    shown = [f"{number(point.objective)} ({point.seconds:.1f} s)" for point in points[-most:]]
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
