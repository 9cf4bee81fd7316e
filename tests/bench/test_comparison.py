"""Paired comparisons and summaries of tables of evaluate and load."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas
import pytest

import orl
from orl.bench.comparison import COMPARISON, compare, compare_policies
from orl.bench.statistics import bootstrap_interval, iqm, paired_difference, probability_of_improvement
from orl.bench.summaries import SUMMARY, summary
from orl.common.errors import InputError, UnknownNameError
from orl.common.problem import SolveResult


def rows(subject: str, returns: Any, seeds: Any = None, **others: Any) -> pandas.DataFrame:
    """A table as evaluate writes it: one instance, one row a seed."""
    values = np.asarray(returns, np.float64)
    columns: dict[str, Any] = {
        "subject": subject,
        "instance": "x",
        "seed": range(len(values)) if seeds is None else seeds,
    }
    columns |= {
        "return": values,
        "objective": np.nan,
        "bound": np.nan,
        "gap": np.nan,
        "seconds": 1.0,
        "status": "terminated",
    }
    return pandas.DataFrame(columns | others)


def runs_of(subject: str, by_run: dict[int, list[float]], kind: str = "algorithm", **others: Any) -> pandas.DataFrame:
    """A table as load writes it: an environment, runs, and one row an episode."""
    parts = [
        rows(subject, values, run_seed=run, environment="E", kind=kind, **others) for run, values in by_run.items()
    ]
    return pandas.concat(parts, ignore_index=True)


def join(*tables: pandas.DataFrame) -> pandas.DataFrame:
    return pandas.concat(tables, ignore_index=True)


# ---- pairs -----------------------------------------------------------------------------------------------------------
def test_pairing_by_seed_finds_a_difference_that_the_means_hide() -> None:
    luck = np.random.default_rng(0).normal(0, 100, size=30)
    gain = np.random.default_rng(1).normal(1, 0.5, size=30)
    shuffled = rows("b", luck + gain).sample(frac=1, random_state=0)
    found = compare(join(rows("a", luck), shuffled), "a").iloc[0]
    expected = paired_difference(luck + gain, luck)
    assert (found["subject"], found["baseline"], found["unit"]) == ("b", "a", "scenario")
    for name in ("difference", "std_error", "low", "high", "win_rate", "p_value", "bootstrap_low", "bootstrap_high"):
        assert found[name] == pytest.approx(getattr(expected, name)), name
    assert found["low"] > 0
    assert found["std"] > 50
    unpaired = probability_of_improvement(luck + gain, luck)
    assert found["probability_of_improvement"] == unpaired.estimate
    assert found["probability_low"] < 0.5 < found["probability_high"]


def test_columns_and_types_are_those_of_the_schema() -> None:
    found = compare(join(runs_of("a", {0: [1.0, 2.0]}), runs_of("b", {0: [2.0, 2.0]})))
    assert list(found) == ["environment", *COMPARISON]
    assert found.astype({"environment": "str", **COMPARISON}).dtypes.equals(found.dtypes)
    assert list(summary(join(rows("a", [1.0]), rows("b", [2.0])))) == list(SUMMARY)


def test_objectives_are_minimised_and_returns_maximised() -> None:
    tables = join(
        rows("a", [-10.0, -20.0], objective=[10.0, 20.0], bound=[8.0, 16.0]),
        rows("b", [-9.0, -16.0], objective=[9.0, 16.0], bound=[9.0, 15.0]),
    )
    objective, by_return = compare(tables, "a").iloc[0], compare(tables, "a", value="return").iloc[0]
    assert (objective["value"], objective["difference"], objective["win_rate"]) == ("objective", -2.5, 1.0)
    assert (by_return["value"], by_return["difference"], by_return["win_rate"]) == ("return", 2.5, 1.0)
    assert not objective["maximise"]
    assert by_return["maximise"]
    assert objective["bound"] == (9 + 16) / 2
    score = compare(tables, "a", value="score").iloc[0]
    assert score["mean"] == pytest.approx((1 + 15 / 16) / 2)
    assert score["baseline_mean"] == pytest.approx(0.8)


def test_runs_are_paired_by_run_seed_and_the_error_is_that_of_training_again() -> None:
    one = {0: [1.0, 2.0, 3.0], 1: [2.0, 2.0, 2.0], 2: [5.0, 6.0, 7.0]}
    other = {2: [4.0, 4.0, 4.0], 0: [1.0, 1.0, 1.0], 1: [0.0, 1.0, 2.0]}
    found = compare(join(runs_of("a", other), runs_of("b", one)), "a").iloc[0]
    expected = paired_difference([2.0, 2.0, 6.0], [1.0, 1.0, 4.0])
    assert (found["unit"], found["n"], found["n_pairs"], found["n_alone"]) == ("run", 3, 9, 0)
    assert found["difference"] == pytest.approx(expected.difference)
    assert found["std_error"] == pytest.approx(expected.std_error)
    assert found["win_rate"] == pytest.approx((7 + 0.5 * 2) / 9)  # of the nine pairs of episodes
    by_scenario = compare(join(runs_of("a", other), runs_of("b", one)), "a", unit="scenario").iloc[0]
    assert (by_scenario["unit"], by_scenario["n"]) == ("scenario", 3)
    assert by_scenario["difference"] == pytest.approx(expected.difference)


def test_rules_are_not_counted_once_more_for_every_run_seed() -> None:
    same = {0: [1.0, 3.0], 1: [1.0, 3.0], 2: [1.0, 3.0]}
    better = {seed: [value + 1 + (i == 1) for i, value in enumerate(values)] for seed, values in same.items()}
    found = compare(join(runs_of("spt", same, kind="rule"), runs_of("cp-sat", better, kind="solver"))).iloc[0]
    assert (found["unit"], found["n"], found["n_pairs"]) == ("scenario", 2, 6)
    assert found["std_error"] == pytest.approx(0.5)


def test_beside_a_solver_with_seeds_of_its_own_an_instance_is_one_scenario() -> None:
    rule = join(*(runs_of("spt", {0: [v, v + 2]}, kind="rule", instance=i) for i, v in (("x", 4.0), ("y", 7.0))))
    best = (("x", 3.0), ("y", 5.0))
    solver = [runs_of("cp-sat", {0: [v]}, kind="solver", instance=i) for i, v in best]
    tabu = [runs_of("tabu", {0: [v], 1: [v + 1]}, kind="solver", instance=i) for i, v in best]
    table = join(rule, *(part.assign(seed=part["seed"] + 1_000) for part in solver), *tabu)
    by_name = compare(table, "cp-sat").set_index("subject")
    assert by_name.loc["spt", ["difference", "n", "n_pairs", "n_alone"]].tolist() == [2.5, 2, 2, 0]
    assert by_name.loc["tabu", ["difference", "n", "n_pairs", "n_alone"]].tolist() == [0.5, 2, 4, 0]
    lost = compare(table.assign(**{"return": table["return"].mask(table["return"] == 4.0)}), "cp-sat").iloc[0]
    assert (lost["difference"], lost["n_pairs"], lost["n_missing"]) == (3.0, 1, 1)  # not half of the episodes of x


def test_a_table_of_evaluate_is_paired_with_every_run_of_a_sweep() -> None:
    swept = runs_of("ppo", {0: [3.0, 4.0], 1: [5.0, 6.0]}).drop(columns="environment")
    alone = rows("mine", [1.0, 2.0], run_seed=np.nan)
    found = compare(join(alone, swept), "mine").iloc[0]
    assert (found["unit"], found["n"], found["n_pairs"]) == ("scenario", 2, 4)
    assert found["difference"] == 3.0


def test_environments_are_compared_apart_and_all_subjects_with_each_other() -> None:
    first = join(*(runs_of(name, {0: [float(i)] * 3}) for i, name in enumerate("abc")))
    second = join(*(runs_of(name, {0: [10.0 * i] * 3}) for i, name in enumerate("ab"))).assign(environment="F")
    found = compare(join(first, second))
    assert found[["environment", "subject", "baseline", "difference"]].values.tolist() == [
        ["E", "b", "a", 1.0],
        ["E", "c", "a", 2.0],
        ["E", "c", "b", 1.0],
        ["F", "b", "a", 10.0],
    ]
    assert len(compare(join(first, second), by=["environment", "seed"])) == 12


def test_missing_values_and_rows_without_partner_are_counted() -> None:
    one = rows("a", [1.0, 2.0, np.nan, 4.0])
    other = rows("b", [2.0, 4.0, 3.0, 4.0], seeds=[0, 1, 2, 9])
    found = compare(join(one, other), "a").iloc[0]
    assert (found["n_pairs"], found["n_missing"], found["n_alone"], found["difference"]) == (2, 1, 2, 1.5)
    assert "no partner: 2." in found["note"]
    assert "value is missing: 1." in found["note"]


def test_rows_that_were_interrupted_do_not_count() -> None:
    one = rows("a", [1.0, 2.0, 9.0], interrupted=[False, False, True])
    found = compare(join(one, rows("b", [1.0, 2.0, 3.0], interrupted=False)), "a").iloc[0]
    assert (found["n_pairs"], found["n_alone"]) == (2, 1)


def test_tables_that_cannot_be_compared_say_why() -> None:
    apart = join(rows("a", [1.0, 2.0]), rows("b", [1.0, 2.0], seeds=[5, 6]))
    with pytest.raises(InputError, match="no two subjects share a scenario.*agree in instance, seed"):
        compare(apart)
    with pytest.raises(InputError, match="no two subjects"):
        compare(rows("a", [1.0, 2.0]))
    with pytest.raises(UnknownNameError, match="did you mean 'spt'"):
        compare(join(rows("spt", [1.0]), rows("b", [1.0])), "stp")
    with pytest.raises(InputError, match="occurs twice"):
        compare(join(rows("a", [1.0]), rows("a", [1.0]), rows("b", [1.0])))
    both = join(rows("a", [1.0]), rows("b", [1.0]))
    with pytest.raises(UnknownNameError, match="objectve"):
        compare(both, value="objectve")
    with pytest.raises(InputError, match="higher is better"):
        compare(both.assign(speed=1.0), value="speed")
    with pytest.raises(InputError, match="not numbers"):
        compare(both, value="status", maximise=True)
    with pytest.raises(InputError, match="infinite"):
        compare(both.assign(gap=np.inf), value="gap")
    with pytest.raises(InputError, match="no run seeds"):
        compare(both, unit="run")
    with pytest.raises(InputError, match="seed: column missing"):
        compare(both.drop(columns="seed"))
    assert compare(both.assign(speed=1.0), value="speed", maximise=False)["ties"].tolist() == [1.0]


# ---- one paired panel ------------------------------------------------------------------------------------------------
def test_policies_and_solvers_meet_on_the_same_scenarios() -> None:
    domain = orl.registry.domain("job_shop")
    subjects = {
        "random": functools.partial(orl.registry.rule, "job_shop", "random"),
        "spt": orl.registry.solver("job_shop", "spt"),
    }
    instances = [domain.load("ft06"), domain.load("ta01")]
    panel = compare_policies(subjects, instances, n_scenarios=3, seed=7, env_id="orl:orl/JobShop-v0", baseline="random")
    assert panel.table.groupby("subject")["seed"].apply(sorted).tolist() == [[7, 7, 8, 8, 9, 9]] * 2
    found = panel.comparison.iloc[0]
    assert (found["subject"], found["baseline"], found["value"], found["n_pairs"]) == ("spt", "random", "objective", 6)
    means = panel.table.groupby("subject")["objective"].mean()
    assert found["difference"] == pytest.approx(means["spt"] - means["random"])
    assert found["bound"] <= means.min()
    assert found["seconds"] > 0


class PressesCtrlC:
    """A solver during whose second call the user presses Ctrl-C."""

    name = "pressed"

    def __init__(self) -> None:
        self.calls = 0

    def solve(self, instance: Any, *, time_limit: Any = None, seed: int = 0, hint: Any = None) -> SolveResult:
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return SolveResult("unknown")


def test_ctrl_c_leaves_the_rows_that_are_there() -> None:
    instance = orl.registry.domain("job_shop").load("ft06")
    subjects = {"pressed": PressesCtrlC(), "never": orl.registry.solver("job_shop", "spt")}
    panel = compare_policies(subjects, instance, n_scenarios=3, baseline="never")
    assert panel.table["interrupted"].tolist() == [False, True]
    assert panel.comparison.empty
    assert list(panel.comparison) == list(COMPARISON)


@pytest.mark.parametrize("subjects", [{}, {"a": None}])
def test_a_panel_needs_two_subjects(subjects: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare_policies(subjects, "CartPole-v1", n_scenarios=1)


def test_a_panel_needs_a_known_baseline() -> None:
    with pytest.raises(UnknownNameError, match="subject: unknown"):
        compare_policies({"a": None, "c": None}, "CartPole-v1", n_scenarios=1, baseline="b")


# ---- summary ---------------------------------------------------------------------------------------------------------
def test_a_summary_is_over_runs_each_the_mean_of_its_episodes() -> None:
    values = np.random.default_rng(0).normal(size=(12, 5))
    table = runs_of("a", {seed: list(row) for seed, row in enumerate(values)}, gap=0.5, status="optimal")
    found = summary(table).iloc[0]
    scores = values.mean(1)
    interval = bootstrap_interval(scores, iqm)
    assert (found["environment"], found["subject"], found["value"]) == ("E", "a", "return")
    assert (found["n_runs"], found["n_rows"], found["fails"]) == (12, 60, 0)
    assert found["iqm"] == pytest.approx(float(iqm(scores)))
    assert found["mean"] == pytest.approx(scores.mean())
    assert found["median"] == pytest.approx(np.median(scores))
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert (found["gap"], found["optimal"], found["seconds"], found["note"]) == (0.5, 1.0, 1.0, "")


def test_runs_that_miss_a_value_or_an_instance_are_left_out_and_counted() -> None:
    table = join(
        runs_of("a", {0: [1.0, 2.0], 1: [3.0, np.nan], 2: [5.0, 6.0], 3: [7.0, 8.0]}).assign(instance=["x", "y"] * 4),
        runs_of("b", {0: [1.0]}),
    )
    one, other = summary(table).to_dict("records")
    assert (one["n_runs"], one["fails"], one["mean"]) == (3, 1, pytest.approx((1.5 + 5.5 + 7.5) / 3))
    assert "an instance: 1." in one["note"]
    assert "3 runs a task" in one["note"]
    assert other["n_runs"] == 0
    assert np.isnan([other["iqm"], other["mean"], other["low"]]).all()


def test_without_run_seeds_each_episode_seed_is_a_run() -> None:
    table = join(rows("a", [1.0, 2.0, 3.0]), rows("a", [3.0, 4.0, 5.0]).assign(instance="y"))
    found = summary(table).iloc[0]
    assert (found["n_runs"], found["iqm"], found["n_rows"]) == (3, 3.0, 6)
    named_by_seed = rows("a", [1.0, 2.0, 3.0]).assign(instance=["x0", "x1", "x2"])  # an env that draws its instances
    assert summary(named_by_seed)["n_runs"].tolist() == [3]


def test_solutions_that_were_refused_are_failures() -> None:
    table = rows("a", [1.0, 2.0], objective=[1.0, np.nan], checked=[True, False])
    found = summary(table, value="return").iloc[0]
    assert (found["fails"], found["n_runs"]) == (1, 2)
    with pytest.raises(UnknownNameError):
        summary(table, statistic="iqr")


def test_a_subject_of_one_run_stands_beside_every_run_of_the_other() -> None:
    learned = [("ppo", "algorithm", seed, float(10 + seed)) for seed in range(4)]
    table = pandas.DataFrame(
        [*learned, ("exact", "solver", 0, 10.0)], columns=["subject", "kind", "run_seed", "objective"]
    )
    found = compare(table.assign(instance="x", seed=7), "exact").iloc[0]
    assert (found["n_pairs"], found["n"], found["unit"]) == (4, 4, "run")
    assert found["difference"] == pytest.approx(1.5)


def test_each_environment_is_compared_and_summed_up_in_its_own_value() -> None:
    rows = [
        (e, s, seed, o, r) for s in "ab" for seed in range(3) for e, o, r in (("shop", 5.0, -5.0), ("pole", None, 9.0))
    ]
    table = pandas.DataFrame(rows, columns=["environment", "subject", "seed", "objective", "return"]).assign(
        instance="x"
    )
    for found in (compare(table), summary(table)):
        assert dict(zip(found["environment"], found["value"], strict=True)) == {"shop": "objective", "pole": "return"}
    assert (summary(table)["n_runs"] == 3).all()
