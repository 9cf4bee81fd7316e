"""What ``orl demo`` runs: rules, tabu search, CP-SAT and a policy trained on the spot, on public benchmark instances.

Everything here goes through the same doors as any other experiment: methods are Solvers, ``orl.evaluate`` prices and
checks their schedules, the registry's domain draws them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecMonitor

import orl
from orl import registry
from orl.common.atomic import atomic_path, write_text
from orl.common.interrupts import noting_ctrl_c
from orl.common.problem import SolveResult, relative_gap
from orl.page import Row, page
from orl.policies.policy_solver import PolicySolver
from orl.policies.set_policy import SetPolicy
from orl.training import ProgressBar

DOMAIN, ENV_ID = "job_shop", "orl/JobShop-v0"
INSTANCES = ("ft06", "ta01", "ta11", "ta21", "tai4_4_01")
QUICK_INSTANCES = ("ft06", "tai4_4_01")
RULES = ("spt", "mwkr", "mopnr", "fdd-mwkr", "lrpt")
SAMPLES = 32
ENV_KWARGS: dict[str, Any] = {"observation": "compact", "reward": "lower_bound", "propagation": 1, "noop": False}
"""Non-delay schedules, as the rules build them; the reward is the fall of the lower bound that machines join."""
HYPER: dict[str, Any] = {
    "n_steps": 64,
    "batch_size": 512,
    "n_epochs": 4,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "ent_coef": 0.01,
}
N_ENVS, LEARNING_RATE = 64, 1e-3


@dataclass
class Recorder:
    """A Solver that remembers the solutions of the solver it wraps, by instance name."""

    solver: Any
    name: str
    time_limit: float | None = None
    solutions: dict[str, Any] = field(default_factory=dict)

    def solve(
        self, instance: Any, *, time_limit: float | None = None, seed: int = 0, hint: Any | None = None
    ) -> SolveResult:
        result: SolveResult = self.solver.solve(instance, time_limit=self.time_limit, seed=seed, hint=hint)
        self.solutions[instance.name] = result.solution
        return result


def train_policy(seconds: float, seed: int = 0, console: Console | None = None) -> tuple[SetPolicy, float]:
    """A MaskablePPO set policy after ``seconds`` of training on random 6x6 job shops, and the seconds it has had.

    Ctrl-C ends the training early.

    The learning rate falls linearly over the time, which is why the run is not reproducible to the last digit.
    """
    generator = registry.resolve("orl.envs.job_shop.generators:UniformJobShop")(6, 6)
    env = VecMonitor(orl.make_vec(ENV_ID, N_ENVS, seed=seed, instance=generator, **ENV_KWARGS))
    begin = time.perf_counter()

    def learning_rate(_: float) -> float:
        return LEARNING_RATE * max(0.05, 1.0 - (time.perf_counter() - begin) / seconds)

    model = MaskablePPO(SetPolicy, env, learning_rate=learning_rate, seed=seed, device="cpu", **HYPER)
    bar = ProgressBar(2**40, seconds, console, "training on random 6x6 job shops")
    try:
        model.learn(2**40, callback=bar)
    except KeyboardInterrupt:
        pass  # the demo goes on with what has been learned
    finally:
        bar.close()
        env.close()
    elapsed, policy = time.perf_counter() - begin, model.policy
    assert isinstance(policy, SetPolicy)
    return policy, elapsed


def methods(policy: SetPolicy, quick: bool) -> list[Recorder]:
    """The subjects of the table, in its order."""
    learned = PolicySolver(policy.for_spaces, ENV_ID, ENV_KWARGS)
    sampled = PolicySolver(policy.for_spaces, ENV_ID, ENV_KWARGS, samples=SAMPLES)
    rules = [Recorder(registry.solver(DOMAIN, rule), f"rule {rule}") for rule in RULES]
    return [
        *rules,
        Recorder(registry.solver(DOMAIN, "lrpt", samples=SAMPLES), f"rule lrpt, best of {SAMPLES}"),
        Recorder(learned, "learned policy, greedy"),
        Recorder(sampled, f"learned policy, best of {SAMPLES}"),
        Recorder(registry.solver(DOMAIN, "tabu-search"), "tabu search", 0.2 if quick else 1.0),
        Recorder(registry.solver(DOMAIN, "cp-sat"), "CP-SAT", 2.0 if quick else 8.0),
    ]


def compare(subjects: Sequence[Recorder], instances: Sequence[Any], seed: int, console: Console) -> pandas.DataFrame:
    """Rows of :func:`orl.evaluate`, instance by instance; ``bound`` becomes the best valid bound of all methods.

    Ctrl-C ends the comparison with the row at hand, which is marked ``interrupted``, or if there is none, with
    KeyboardInterrupt.
    """
    warm_up = registry.domain(DOMAIN)
    small = warm_up.load(warm_up.example)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    frames = []
    with noting_ctrl_c() as ctrl_c, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("compiling", total=len(subjects) * len(instances))
        for subject in subjects:  # once, so that no row pays for numba's compilation
            subject.solver.solve(small, time_limit=0.1, seed=seed)
            if ctrl_c.pressed:
                raise KeyboardInterrupt
        for instance, subject in itertools.product(instances, subjects):
            progress.update(task, description=f"{subject.name} on {instance.name}")
            if subject.name != "tabu search" or instance.kind == "job_shop":
                frames.append(orl.evaluate(subject, instance, seed=seed))
                if frames[-1]["interrupted"].any():
                    break
            progress.advance(task)
    table = pandas.concat(frames, ignore_index=True)
    table["bound"] = table.groupby("instance")["bound"].transform("max")
    table["gap"] = [relative_gap(*pair) for pair in zip(table["objective"], table["bound"], strict=True)]
    return table


COLUMNS = ("instance", "method", "objective", "bound", "best known", "gap to best known", "seconds", "checked")


def text_rows(table: pandas.DataFrame) -> list[Row]:
    """The table as text; the best objective of an instance is strong."""
    rows, previous = [], None
    best = table.groupby("instance")["objective"].transform("min")
    for row, least in zip(table.to_dict("records"), best, strict=True):
        solved, known = pandas.notna(row["objective"]), pandas.notna(row["best_known"])
        cells = (
            row["instance"],
            row["subject"],
            f"{row['objective']:.0f}" if solved else "-",
            f"{row['bound']:.0f}" if pandas.notna(row["bound"]) else "-",
            f"{row['best_known']:.0f}" if known else "-",
            f"{100 * row['gap_to_best_known']:.1f} %" if solved and known else "-",
            f"{row['seconds']:.3f}",
            "-" if pandas.isna(row["checked"]) else "yes" if row["checked"] else f"NO: {row['violations']}",
        )
        rows.append(Row(cells, group=row["instance"] != previous, strong=row["objective"] == least))
        previous = row["instance"]
    return rows


def rich_table(rows: Sequence[Row]) -> Table:
    """The same rows for the terminal."""
    table = Table(title="Rules, a learned policy and solvers on the same instances", title_justify="left")
    for k, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if k < 2 else "right", no_wrap=True)
    for k, row in enumerate(rows):
        if row.group and k:
            table.add_section()
        table.add_row(*row.cells, style="bold" if row.strong else "")
    return table


def learned_in_words(table: pandas.DataFrame) -> str:
    """One sentence that says where the learned policy stands, whatever the outcome."""
    names = [f"learned policy, best of {SAMPLES}", f"rule lrpt, best of {SAMPLES}", "CP-SAT"]
    best = table.pivot(index="instance", columns="subject", values="objective").reindex(columns=names).dropna()
    if best.empty:
        return "No instance has been answered by the learned policy, the randomised LRPT rule and CP-SAT."
    ours, rule, solver = (best[name] for name in names)
    won, drawn = int((ours < rule).sum()), int((ours == rule).sum())
    behind = 100 * (ours / solver - 1).mean()
    return (
        f"The learned policy (best of {SAMPLES}) beats the randomised LRPT rule with as many attempts on {won} of "
        f"{len(best)} instances and draws on {drawn}; on average it is {behind:.1f} % behind CP-SAT."
    )


def run_demo(
    out: Path,
    *,
    train_seconds: float = 120.0,
    quick: bool = False,
    seed: int = 0,
    console: Console | None = None,
) -> pandas.DataFrame:
    """Train, compare, print the table, write ``index.html``, ``results.csv`` and one PNG a picture into ``out``.

    Args:
        out: Folder, made when missing.
        train_seconds: Wall seconds of training (at most 10 with ``quick``).
        quick: Two small instances and short limits.
        seed: Seed of everything.
        console: Where to print.
    """
    console = console or Console()
    begin = time.perf_counter()
    torch.set_num_threads(1)  # the network is small: more threads only wait for each other
    seconds = min(train_seconds, 10.0) if quick else train_seconds
    room = registry.domain(DOMAIN)
    instances = [room.load(name) for name in (QUICK_INSTANCES if quick else INSTANCES)]
    policy, trained = train_policy(seconds, seed, console)
    subjects = methods(policy, quick)
    table = compare(subjects, instances, seed, console)
    rows = text_rows(table)
    words = learned_in_words(table)
    if table["interrupted"].any():
        words += " The comparison was ended by Ctrl-C in its last row."
    console.print(rich_table(rows))
    console.print(words)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "results.csv") as temporary:
        table.to_csv(temporary, index=False)
    pictures = draw(subjects, instances, out)
    minutes = (time.perf_counter() - begin) / 60
    paragraphs = (
        "Every method answers the same instances; every schedule is checked by its instance, independently of the "
        "method that made it. The bound is the best valid lower bound of this run, best known the best published "
        "makespan.",
        f"The policy is a permutation-equivariant network trained by MaskablePPO for {trained:.0f} seconds on random "
        "job shops of 6 jobs and 6 machines; the same weights then dispatch 15 and 20 jobs, and an open shop. Greedy "
        f"takes the likeliest action; best of {SAMPLES} adds {SAMPLES - 1} sampled schedules.",
        words,
    )
    footer = f"orl {orl.__version__}, seed {seed}, {minutes:.1f} minutes in all."
    write_text(
        out / "index.html",
        page("Job shops: rules, a learned policy, solvers", paragraphs, COLUMNS, rows, pictures, footer),
    )
    for line in (f"page: {out / 'index.html'}", f"figures: {out / 'results.csv'}", f"pictures: {out}/*.png"):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"{minutes:.1f} minutes", highlight=False)
    return table


def draw(subjects: Sequence[Recorder], instances: Sequence[Any], out: Path) -> list[tuple[str, Path]]:
    """Gantt charts of the learned policy and CP-SAT on every instance; captions and files."""
    room = registry.domain(DOMAIN)
    pictures = []
    for instance in instances:
        for subject in subjects:
            solution = subject.solutions.get(instance.name)
            if solution is None or subject.name not in (f"learned policy, best of {SAMPLES}", "CP-SAT"):
                continue
            path = out / f"{instance.name}-{'cp-sat' if subject.name == 'CP-SAT' else 'learned'}.png"
            with atomic_path(path) as temporary:
                room.draw(instance, solution, temporary)
            objective = instance.check(solution).objective
            pictures.append((f"{instance.name}, {subject.name}: makespan {objective:.0f}", path))
    return pictures
