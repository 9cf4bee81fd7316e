"""Paired comparisons from tables of :func:`orl.evaluate` and :func:`orl.bench.load`.

Two subjects that played the same scenarios (environment, instance, episode seed) are compared pair by pair: what the
scenario does to both cancels, and the difference is known far better than either mean (common random numbers; Law
2015, "Simulation Modeling and Analysis", section 11.2).

Columns that mean the same have the same name as in :func:`orl.bench.load`. Rows that Ctrl-C cut short are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from orl.bench.score_tables import SCENARIO, group_columns, groups, has_runs, prepared, scenario_columns
from orl.bench.statistics import (
    Difference,
    Interval,
    paired_difference,
    probability_of_improvement,
)
from orl.common.errors import InputError, UnknownNameError
from orl.common.evaluation import evaluate

if TYPE_CHECKING:
    import pandas

Unit = Literal["auto", "run", "scenario"]

COMPARISON: dict[str, str] = {
    "subject": "str",
    "baseline": "str",
    "value": "str",
    "maximise": "bool",
    "mean": "float64",
    "std": "float64",
    "baseline_mean": "float64",
    "baseline_std": "float64",
    "difference": "float64",
    "std_error": "float64",
    "low": "float64",
    "high": "float64",
    "bootstrap_low": "float64",
    "bootstrap_high": "float64",
    "confidence": "float64",
    "win_rate": "float64",
    "ties": "float64",
    "p_value": "float64",
    "probability_of_improvement": "float64",
    "probability_low": "float64",
    "probability_high": "float64",
    "unit": "str",
    "n": "int64",
    "n_pairs": "int64",
    "n_missing": "int64",
    "n_alone": "int64",
    "bound": "float64",
    "seconds": "float64",
    "baseline_seconds": "float64",
    "note": "str",
}
"""Columns of :func:`compare`, after those of ``by``, and their types."""


# ---- paired comparison -----------------------------------------------------------------------------------------------
def compare(
    table: pandas.DataFrame,
    baseline: str | None = None,
    *,
    value: str | None = None,
    maximise: bool | None = None,
    by: str | Sequence[str] | None = None,
    unit: Unit = "auto",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pandas.DataFrame:
    """Compare subjects on the scenarios that they share: one row a pair of subjects (and group of ``by``).

    Rows are paired that agree in environment, instance and episode seed, and in the run seed where both have several;
    a subject of a single run is paired with every run of the other. A solver (column ``kind``) draws from
    seeds of its own: where they are not those of the other, an instance is one scenario, and a run has there the mean
    of its episodes.
    Columns, after those of ``by``:

    - ``subject, baseline, value, maximise``: who is compared with whom, in what, and whether higher is better.
    - ``mean, std, baseline_mean, baseline_std``: over the units below.
    - ``difference, std_error, low, high``: mean of subject minus baseline, its standard error and t interval;
      ``bootstrap_low, bootstrap_high``: bootstrap interval; ``confidence``: of all intervals.
    - ``win_rate, ties``: share of pairs in which the subject is better (ties counted half), and of ties.
    - ``p_value``: Wilcoxon signed-rank test of the units, not corrected for the number of comparisons.
    - ``probability_of_improvement, probability_low, probability_high``: that a unit of the subject beats any unit of
      the baseline on the same instance, pairing ignored.
    - ``unit, n``: what counts as one independent observation and how many there are. ``run``: the mean over the
      scenarios of each run seed, so that the error is that of training again; ``scenario``: the mean over run seeds of
      each scenario, so that the error is that of drawing other scenarios for the same runs.
    - ``n_pairs, n_missing, n_alone``: pairs with both values; pairs in which one is missing; rows of either subject
      without a partner.
    - ``bound``: mean over pairs of the larger of the two lower bounds.
    - ``seconds, baseline_seconds``: medians over pairs.
    - ``note``: what weakens the figures.

    Args:
        table: Rows as :func:`orl.evaluate` or :func:`orl.bench.load` write them.
        baseline: Subject with which each other one is compared; by default each is compared with all before it.
        value: Column to compare, or ``score`` for bound / objective; by default the objective if the
            group has any, else the return.
        maximise: Whether higher is better; known for the columns of ``load``.
        by: Columns that split the table; by default the environment, if the table has that column.
        unit: ``auto`` is ``run`` where both subjects have two or more run seeds in common and one of them learns
            (column ``kind``; without that column, every subject may), else ``scenario``.

    Raises:
        InputError: A column is missing, a scenario occurs twice for a subject, a value is infinite, or no two subjects
            share a scenario. UnknownNameError: no such baseline.

    >>> import pandas
    >>> rows = [("a", s, 10.0 * s) for s in range(1, 4)] + [("b", s, 10.0 * s + 1) for s in range(1, 4)]
    >>> table = pandas.DataFrame(rows, columns=["subject", "seed", "return"]).assign(instance="x")
    >>> compare(table, "a")[["subject", "difference", "std_error", "win_rate", "n"]].values.tolist()
    [['b', 1.0, 0.0, 1.0, 3]]
    """
    subjects = list(dict.fromkeys(table["subject"])) if "subject" in table else []
    if baseline is not None and subjects and baseline not in subjects:
        raise UnknownNameError("subject", baseline, subjects)
    options = _Options(value, maximise, unit, confidence, resamples, seed)
    found = _compared(table, baseline, group_columns(table, by), options)
    if not found["n_pairs"].any():
        raise InputError(
            "no two subjects share a scenario with a value for both",
            source="table",
            value=subjects,
            expected=f"rows that agree in {', '.join(scenario_columns(table))} (and in run_seed where both have one)",
        )
    return found


class _Options(NamedTuple):
    value: str | None
    maximise: bool | None
    unit: Unit
    confidence: float
    resamples: int
    seed: int


def _compared(table: pandas.DataFrame, baseline: str | None, keys: list[str], options: _Options) -> pandas.DataFrame:
    """The rows of :func:`compare`, none where no two subjects meet."""
    import pandas

    subjects = list(dict.fromkeys(table["subject"])) if "subject" in table else []
    pairs = (
        [(second, first) for first, second in combinations(subjects, 2)]
        if baseline is None
        else [(subject, baseline) for subject in subjects if subject != baseline]
    )
    found: list[dict[str, Any]] = []
    for labels, part in groups(table, keys):
        group, value, maximise = prepared(part, options.value, options.maximise)
        members = {str(name): part for name, part in group.groupby("subject", sort=False)}
        for member in members.values():
            _require_single(member)
        for subject, other in pairs:
            if subject in members and other in members:
                names = {"subject": subject, "baseline": other, "value": value, "maximise": maximise}
                found.append(labels | names | _comparison(members[subject], members[other], maximise, options))
    columns = {key: table[key].dtype for key in keys} | COMPARISON
    return pandas.DataFrame(found, columns=list(columns)).astype(columns)


def _require_single(rows: pandas.DataFrame) -> None:
    """Raise InputError when a subject has two rows for the same scenario and run."""
    own = [*scenario_columns(rows), *(["run_seed"] if has_runs(rows) else [])]
    twice = rows.duplicated(own)
    if twice.any():
        where = rows.loc[twice, own].iloc[0].to_dict()
        name = str(rows["subject"].iloc[0])
        raise InputError("a scenario occurs twice", source=name, value=where, expected="one row a scenario and run")


def _comparison(one: pandas.DataFrame, other: pandas.DataFrame, maximise: bool, options: _Options) -> dict[str, Any]:
    """What the columns of :data:`COMPARISON` after ``maximise`` hold for two subjects."""
    if not _share_seeds(one, other):
        one, other = _by_instance(one), _by_instance(other)
    scenario = scenario_columns(one)
    with_runs = has_runs(one) and has_runs(other)
    alone_in_seed = [with_runs and part["run_seed"].nunique() == 1 for part in (one, other)]
    keys = [*scenario, "run_seed"] if with_runs and alone_in_seed[0] == alone_in_seed[1] else scenario
    sides = []
    for part, single in zip((one, other), alone_in_seed, strict=True):
        # A subject of one run, an exact solver for instance, stands beside every run of the other.
        own_seed = with_runs and (keys != scenario or not single)
        sides.append(part[[*scenario, *(["run_seed"] if own_seed else []), "value", "bound", "seconds"]])
    met = sides[0].merge(sides[1], on=keys, how="outer", suffixes=("", "_baseline"), indicator="met")
    joined = met[met["met"] == "both"]
    alone = len(met) - len(joined)
    complete = joined[joined["value"].notna() & joined["value_baseline"].notna()]
    notes = [f"Rows left out because they have no partner: {alone}."] if alone else []
    row: dict[str, Any] = {
        "confidence": options.confidence,
        "unit": "scenario" if options.unit == "auto" else options.unit,
        "n": 0,
        "n_pairs": len(complete),
        "n_missing": len(joined) - len(complete),
        "n_alone": alone,
    }
    if complete.empty:
        return row | {"note": " ".join(["No shared scenario has a value for both.", *notes])}
    unit = options.unit
    if unit == "auto":
        unit = "run" if _learns(one, other) and with_runs and complete["run_seed"].nunique() > 1 else "scenario"
    elif unit == "run" and not with_runs:
        raise InputError(
            "no run seeds", field="unit", value=unit, expected="tables with the column run_seed, or 'scenario'"
        )
    values = ["value", "value_baseline"]
    units = complete.groupby(["run_seed"] if unit == "run" else scenario, sort=True)[values].mean()
    found = paired_difference(
        units["value"].to_numpy(),
        units["value_baseline"].to_numpy(),
        maximise=maximise,
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
    )
    better = _probability(complete, unit, maximise, options)
    gain = (complete["value"] - complete["value_baseline"]).to_numpy() * (1 if maximise else -1)
    if row["n_missing"]:
        notes.append(f"Pairs left out because a value is missing: {row['n_missing']}.")
    if found.note:
        notes.append(found.note)
    return row | {
        "mean": found.mean_a,
        "std": _deviation(units["value"]),
        "baseline_mean": found.mean_b,
        "baseline_std": _deviation(units["value_baseline"]),
        **{name: getattr(found, name) for name in _FROM_DIFFERENCE},
        "win_rate": float((gain > 0).mean() + (gain == 0).mean() / 2),
        "ties": float((gain == 0).mean()),
        "probability_of_improvement": better.estimate,
        "probability_low": better.low,
        "probability_high": better.high,
        "unit": unit,
        "bound": float(complete[["bound", "bound_baseline"]].max(axis=1).mean()),
        "seconds": float(complete["seconds"].median()),
        "baseline_seconds": float(complete["seconds_baseline"].median()),
        "note": " ".join(notes),
    }


def _share_seeds(one: pandas.DataFrame, other: pandas.DataFrame) -> bool:
    """Whether seeds are scenarios of both: always without a solver, else only if both have the same ones."""
    if not any("kind" in part and (part["kind"] == "solver").any() for part in (one, other)):
        return True
    seen = [set(part[scenario_columns(part)].itertuples(index=False, name=None)) for part in (one, other)]
    return seen[0] == seen[1]


def _by_instance(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row an instance and run, the mean of its episodes, with seed 0; without a value if one of them has none."""
    keys = [name for name in (*scenario_columns(rows), "run_seed", "kind") if name in rows and name != "seed"]
    episodes = rows.groupby(keys, sort=False, dropna=False)
    means = episodes[["value", "bound", "seconds"]].mean()
    means["value"] = means["value"].where(episodes["value"].count() == episodes.size())
    return means.reset_index().assign(subject=rows["subject"].iloc[0], seed=0)


_FROM_DIFFERENCE = ("difference", "std_error", "low", "high", "bootstrap_low", "bootstrap_high", "p_value", "n")
assert all(name in Difference.__dataclass_fields__ for name in _FROM_DIFFERENCE)


def _learns(one: pandas.DataFrame, other: pandas.DataFrame) -> bool:
    """Whether runs differ because one of the subjects is trained."""
    return any("kind" not in part or (part["kind"] == "algorithm").any() for part in (one, other))


def _probability(pairs: pandas.DataFrame, unit: str, maximise: bool, options: _Options) -> Interval:
    """Probability of improvement over instances as tasks."""
    tasks = [name for name in SCENARIO if name in pairs and name != "seed"]
    run = "run_seed" if unit == "run" else "seed"
    means = pairs.groupby([*tasks, run])[["value", "value_baseline"]].mean()
    wide = means.unstack(tasks) if tasks else means
    sides = [wide[name].to_numpy().reshape(len(wide), -1) for name in ("value", "value_baseline")]
    return probability_of_improvement(
        *sides,
        maximise=maximise,
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
    )


def _deviation(values: pandas.Series[float]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


# ---- one paired panel ------------------------------------------------------------------------------------------------
class Panel(NamedTuple):
    """What :func:`compare_policies` gives.

    Attributes:
        table: The episodes, as :func:`orl.evaluate` tabulates them, subject after subject.
        comparison: As :func:`compare` gives it; no rows when Ctrl-C left no pair.
    """

    table: pandas.DataFrame
    comparison: pandas.DataFrame


def compare_policies(
    subjects: Mapping[str, Any],
    problems: Any,
    *,
    n_scenarios: int,
    seed: int = 0,
    baseline: str | None = None,
    value: str | None = None,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    time_limit: float | None = None,
    deterministic: bool = True,
    best_of: int = 1,
    confidence: float = 0.95,
    progress: bool = False,
) -> Panel:
    """Evaluate policies and solvers on the same scenarios and compare them pair by pair.

    Scenario e of a problem has the seed ``seed + e`` for every subject. Ctrl-C ends it with the rows that are there.

    Args:
        subjects: Policies, solvers or callables that build a policy on an env, by name (:func:`orl.evaluate`).
        problems: Instances, envs or env ids.
        n_scenarios: Episodes or solves of each problem.
        baseline, value, confidence: As in :func:`compare`.
        env_id, env_kwargs, time_limit, deterministic, best_of, progress: As in :func:`orl.evaluate`.

    Raises:
        InputError: Fewer than two subjects; what :func:`orl.evaluate` and :func:`compare` refuse.
        UnknownNameError: No such baseline.

    >>> class Push:
    ...     def __init__(self, action): self.action = action
    ...     def predict(self, observation, state=None, episode_start=None, deterministic=False):
    ...         return self.action, state
    >>> panel = compare_policies({"left": Push(0), "right": Push(1)}, "CartPole-v1", n_scenarios=5)
    >>> len(panel.table), panel.comparison[["subject", "baseline", "n_pairs"]].values.tolist()
    (10, [['right', 'left', 5]])
    """
    import pandas

    if len(subjects) < 2:
        expected = "two or more policies or solvers by name (for a single one: orl.evaluate)"
        raise InputError("nothing to compare", field="subjects", value=list(subjects), expected=expected)
    if baseline is not None and baseline not in subjects:
        raise UnknownNameError("subject", baseline, subjects)
    parts: list[pandas.DataFrame] = []
    for name, subject in subjects.items():
        part = evaluate(
            subject,
            problems,
            env_id=env_id,
            n_episodes=n_scenarios,
            seed=seed,
            time_limit=time_limit,
            deterministic=deterministic,
            best_of=best_of,
            env_kwargs=env_kwargs,
            name=name,
            progress=progress,
        )
        parts.append(part)
        if part["interrupted"].any():
            break
    table = pandas.concat(parts, ignore_index=True)
    if not table["interrupted"].any():
        return Panel(table, compare(table, baseline, value=value, confidence=confidence))
    options = _Options(value, None, "auto", confidence, 2000, 0)
    return Panel(table, _compared(table, baseline, [], options))
