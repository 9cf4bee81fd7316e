"""Every registered solver answers the smallest instance of its domain as the Solver contract says."""

from __future__ import annotations

import pytest

from orl import registry
from orl.common.evaluation import evaluate
from orl.common.problem import Instance, Solution, Solver, SolveResult

LIMITS = {"tabu-search": 2.0}
"""Seconds for methods that use all the time they get; the others end when they have proved the optimum."""
SOLVERS = [pytest.param(e, id=f"{e.domain}-{e.key}") for e in registry.solvers()]
RULES = [pytest.param(e, id=f"{e.domain}-{e.key}") for e in registry.rules()]


def example(domain: str) -> Instance:
    room = registry.domain(domain)
    instance: Instance = room.load(room.example)
    return instance


@pytest.fixture(scope="module")
def solved() -> dict[tuple[str, str], SolveResult]:
    return {}


def solve(entry: registry.Entry, solved: dict, **kwargs) -> SolveResult:
    key = (entry.domain, entry.key)
    if key not in solved or kwargs:
        result = entry.make().solve(
            example(entry.domain), **{"time_limit": LIMITS.get(entry.key, 60.0), "seed": 0, **kwargs}
        )
        solved.setdefault(key, result)
        return result
    return solved[key]


@pytest.mark.parametrize("entry", SOLVERS)
class TestSolver:
    def test_its_solution_passes_the_instances_own_check(self, entry, solved) -> None:
        assert isinstance(entry.make(), Solver)
        result, instance = solve(entry, solved), example(entry.domain)
        assert result.status in ("optimal", "feasible")
        assert isinstance(result.solution, Solution)
        check = instance.check(result.solution)
        assert check.feasible, check.violations
        assert check.objective == pytest.approx(result.objective)

    def test_its_bound_is_valid(self, entry, solved) -> None:
        result, instance = solve(entry, solved), example(entry.domain)
        known = instance.best_known()
        if result.bound is not None:
            assert result.bound <= result.objective + 1e-6
            if known is not None:
                assert result.bound <= known.upper + 1e-6
        if result.status == "optimal":
            assert result.bound == pytest.approx(result.objective)

    def test_its_log_only_improves(self, entry, solved) -> None:
        log = solve(entry, solved).log
        objectives = [p.objective for p in log if p.objective is not None]
        bounds = [p.bound for p in log if p.bound is not None]
        assert objectives == sorted(objectives, reverse=True)
        assert bounds == sorted(bounds)
        assert [p.seconds for p in log] == sorted(p.seconds for p in log)

    def test_it_takes_a_hint(self, entry, solved) -> None:
        first = solve(entry, solved)
        result = solve(entry, solved, hint=first.solution)
        assert example(entry.domain).check(result.solution).feasible

    def test_it_honours_a_time_limit_loosely(self, entry, solved) -> None:
        """Generous: the machine may be busy, and a compiled method may still have to be compiled."""
        result = solve(entry, solved, time_limit=1.0)
        assert result.seconds < 60.0

    def test_a_solution_survives_json(self, entry, solved) -> None:
        room, instance, result = registry.domain(entry.domain), example(entry.domain), solve(entry, solved)
        again = room.solution(result.solution.to_json())
        assert instance.check(again).objective == pytest.approx(result.objective)

    def test_it_stands_in_the_table_of_evaluate(self, entry, solved) -> None:
        limit = LIMITS.get(entry.key, 60.0)
        row = evaluate(entry.make(), example(entry.domain), time_limit=limit).iloc[0]
        assert row["checked"]
        assert row["violations"] == ""
        assert row["gap"] >= 0
        assert row["status"] == solve(entry, solved).status


@pytest.mark.parametrize("entry", [p for p in SOLVERS if p.values[0].reproducible])
def test_a_reproducible_solver_repeats_itself(entry) -> None:
    first, second = (entry.make().solve(example(entry.domain), seed=5).solution.to_json() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("entry", RULES)
def test_a_rule_plays_every_env_of_its_domain_without_illegal_actions(entry) -> None:
    ids = [env.lazy_id for env in registry.environments(entry.domain)]
    kwargs = {"illegal": "raise"}
    if len(ids) == 1:  # environments of several kinds play instances of their own kinds
        kwargs["instance"] = registry.domain(entry.domain).example
    table = evaluate(lambda env: entry.make(env=env), ids, env_kwargs=kwargs, name=entry.key)
    assert table["checked"].all()
    assert table["illegal_actions"].eq(0).all()
    assert table["violations"].eq("").all()
