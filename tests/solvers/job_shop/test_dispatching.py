"""Dispatching rules: golden makespans, policies equal to solvers, sampling, active schedules."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from job_shop_families import FAMILIES

import orl
from orl.common.errors import DataUnavailableError, InputError, UnknownNameError
from orl.envs.job_shop import builders, generators, library
from orl.envs.job_shop.vector import JobShopVectorEnv
from orl.solvers.job_shop.dispatching import RULES, DispatchingRule, RulePolicy

ORDER = ("spt", "lpt", "mwkr", "lwkr", "mopnr", "fifo", "lrpt", "fdd-mwkr", "sps")
GOLDEN = {
    "ft06": (88, 77, 61, 83, 59, 65, 60, 67, 68),
    "ft10": (1074, 1295, 1108, 1334, 1163, 1184, 1090, 1097, 1352),
    "ft20": (1267, 1631, 1501, 1392, 1601, 1645, 1454, 1480, 1487),
    "la01": (751, 822, 735, 933, 763, 772, 671, 747, 941),
    "la16": (1156, 1229, 1054, 1347, 1108, 1180, 1081, 1118, 1119),
    "la21": (1324, 1451, 1264, 1518, 1251, 1265, 1230, 1174, 1547),
    "orb01": (1478, 1410, 1359, 1398, 1307, 1368, 1275, 1263, 1410),
    "abz7": (849, 903, 769, 1113, 775, 803, 746, 765, 933),
    "swv01": (1737, 2145, 1988, 1835, 1971, 2154, 1919, 2014, 1838),
    "yn1": (1196, 1115, 1005, 1238, 1045, 1113, 1010, 1069, 1205),
    "ta01": (1462, 1701, 1491, 1710, 1438, 1486, 1484, 1433, 1737),
    "ta41": (2499, 2925, 2620, 3118, 2538, 2543, 2583, 2537, 2976),
    "ta71": (6232, 7038, 6036, 7118, 5938, 6270, 5801, 5852, 6993),
    "dmu01": (2981, 3896, 3237, 3679, 3264, 3511, 3180, 3265, 3597),
    "dmu41": (4213, 4826, 4516, 4482, 4218, 4321, 4264, 4107, 4397),
}
MEAN_GAPS = {  # per cent over best known, specification section 8
    ("ta", 1, 10): (25.9, 41.2, 19.2, 47.7, 20.5, 23.9, 19.5, 17.7),
    ("ta", 21, 30): (27.8, 40.9, 21.8, 47.7, 21.7, 27.4, 17.7, 19.9),
    ("ta", 51, 60): (24.1, 41.2, 16.9, 38.5, 17.4, 20.7, 14.3, 15.3),
    ("ta", 71, 80): (14.4, 31.9, 8.3, 28.9, 9.2, 13.6, 6.5, 7.6),
    ("dmu", 1, 40): (30.4, 47.2, 20.4, 48.6, 19.9, 27.2, 17.2, 18.1),
    ("dmu", 41, 80): (30.5, 54.7, 38.5, 39.7, 47.6, 48.4, 34.9, 41.5),
}
ANYWHERE = [rule for rule in RULES if rule not in ("edd", "cr", "atc")]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_makespans(name: str) -> None:
    try:
        instance = library.load(name)
    except DataUnavailableError as error:
        pytest.skip(str(error))
    found = []
    for rule in ORDER:
        result = DispatchingRule(rule).solve(instance)
        check = instance.check(result.solution)
        assert check.feasible
        assert check.objective == result.objective
        found.append(int(result.objective))
    assert tuple(found) == GOLDEN[name]


@pytest.mark.parametrize("family", MEAN_GAPS)
def test_mean_gaps_of_families(family: tuple[str, int, int]) -> None:
    prefix, first, last = family
    instances = [library.load(f"{prefix}{i:02d}") for i in range(first, last + 1)]
    for rule, expected in zip(ORDER, MEAN_GAPS[family], strict=False):
        gaps = [DispatchingRule(rule).solve(x).objective / x.best_known().upper - 1 for x in instances]
        assert 100 * np.mean(gaps) == pytest.approx(expected, abs=0.051)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_rule_gives_a_feasible_schedule_everywhere(family: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):
        instance = FAMILIES[family](rng)
        for rule in ANYWHERE:
            result = DispatchingRule(rule, samples=3).solve(instance, seed=5)
            assert instance.check(result.solution).feasible
            assert result.bound <= result.objective


@pytest.mark.parametrize("rule", ["spt", "fdd-mwkr", "lrpt"])
def test_policies_on_single_and_batched_envs_play_the_solver(rule: str) -> None:
    expected = [DispatchingRule(rule).solve(library.load(name)).objective for name in ("ft06", "ft10", "tai4_4_01")]
    for name, makespan in zip(("ft06", "ft10", "tai4_4_01"), expected, strict=True):
        env = gymnasium.make("orl:orl/JobShop-v0", instance=name)
        policy, done = RulePolicy(rule, env), False
        obs, _ = env.reset(seed=0)
        while not done:
            action, _ = policy.predict(obs)
            obs, _, done, _, info = env.step(action)
        assert info["makespan"] == makespan
    envs = JobShopVectorEnv(3, "ft06")
    policy = RulePolicy(rule, envs)
    obs, _ = envs.reset(seed=0)
    finished = 0
    while finished < 3:
        obs, _, ended, _, infos = envs.step(policy.predict(obs)[0])
        finished += int(ended.sum())
        assert (infos["final_info"]["makespan"][ended] == expected[0]).all() if ended.any() else True


def test_stock_evaluate_policy_takes_rules() -> None:
    from stable_baselines3.common.evaluation import evaluate_policy

    vec = orl.make_vec("orl:orl/JobShop-v0", 4, instance="ft06", seed=0)
    returns, _ = evaluate_policy(RulePolicy("mwkr", vec), vec, n_eval_episodes=4, warn=False)
    assert returns == pytest.approx((52 - 61) / 52, abs=1e-6)  # LB_0 = 52


def test_best_of_n_never_loses_to_the_rule_and_depends_on_the_seed_alone() -> None:
    instance = library.load("ta01")
    single = DispatchingRule("lrpt").solve(instance)
    one = DispatchingRule("lrpt", samples=32).solve(instance, seed=3)
    again = DispatchingRule("lrpt", samples=32).solve(instance, seed=3)
    other = DispatchingRule("lrpt", samples=32).solve(instance, seed=4)
    assert one.objective < single.objective
    np.testing.assert_array_equal(one.solution.start, again.solution.start)
    assert not np.array_equal(one.solution.start, other.solution.start)
    assert [p.objective for p in one.log] == sorted((p.objective for p in one.log), reverse=True)


def test_active_schedules_cannot_start_any_operation_earlier() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        instance = generators.UniformJobShop(4, 4, 1, 20)(rng)
        result = DispatchingRule("spt", generation="active").solve(instance)
        start = result.solution.start.astype(int)
        assert instance.check(result.solution).feasible
        for o in range(instance.n_ops):  # no gap on its machine or job order would take it earlier
            for earlier in range(instance.release[o], start[o]):
                moved = start.copy()
                moved[o] = earlier
                assert not instance.check(type(result.solution)(moved, result.solution.mode)).feasible
    with pytest.raises(InputError, match="active"):
        DispatchingRule("spt", generation="active").solve(library.load("flex6x6_01"))


def test_flexible_ties_go_to_the_faster_machine() -> None:
    instance = builders.flexible_job_shop([[[(0, 9), (1, 2)]]])
    assert DispatchingRule("mwkr").solve(instance).objective == 2


def test_due_date_rules_need_due_dates() -> None:
    with pytest.raises(InputError, match="due dates"):
        DispatchingRule("edd").solve(library.load("ft06"))
    machines, durations = [[0, 1], [1, 0]], [[3, 2], [4, 1]]
    dated = builders.job_shop(machines, durations, due=[20, 5], weight=[1, 2], objective="weighted_tardiness")
    for rule in ("edd", "cr", "atc"):
        result = DispatchingRule(rule).solve(dated)
        assert dated.check(result.solution).feasible


def test_unknown_rules_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="mwkr"):
        DispatchingRule("mwk")
    with pytest.raises(InputError, match="env"):
        RulePolicy("spt", gymnasium.make("CartPole-v1"))
