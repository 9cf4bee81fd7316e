"""Sweep files: what they expand to, one line for each mistake, and hashes that know no order."""

from __future__ import annotations

import copy
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import orl
from orl import registry
from orl.bench import versions
from orl.bench.configuration import AlgorithmPart, GeneratedInstance, InstanceFile, SolverPart
from orl.bench.description import read_sweep
from orl.bench.execution import execute
from orl.bench.plan import Keep, Plan, Scale
from orl.bench.sweep_file import SweepFileError
from orl.common.errors import InputError
from orl.envs.job_shop import library

UNIFORM = {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 3, "n_machines": 3}
SHOPS: dict[str, Any] = {"environments": [{"id": "orl/JobShop-v0", "instances": ["ft06", "ta01"]}]}
CART = """\
environments: [CartPole-v1]
algorithms: [ppo]
budget: {steps: 1000}
"""


def plan_of(folder: Path, content: str | bytes | dict[str, Any], **kwargs: Any) -> Plan:
    file = folder / "s.yaml"
    text = yaml.safe_dump(content, sort_keys=False) if isinstance(content, dict) else content
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sweep(file, **kwargs)


def mistakes(folder: Path, content: str | bytes | dict[str, Any]) -> list[str]:
    """The messages, with the name of the file instead of its path."""
    with pytest.raises(SweepFileError) as caught:
        plan_of(folder, content)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.errors)
    return [line.replace(f"{folder}/", "") for line in lines]


def hashes(plan: Plan) -> list[str]:
    return sorted(task.configuration.hash for task in plan.tasks)


# ---- what a file expands to ----------------------------------------------------------------------------------------
def test_short_entries_are_runs_with_every_default_written_out(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, CART)
    [task] = plan.tasks
    assert (plan.name, plan.source, plan.text, plan.threads) == ("s", "s.yaml", CART, 1)
    assert (task.environment, task.subject, task.keep) == ("CartPole-v1", "ppo", Keep())
    assert task.configuration.to_json() == {
        "environment": {
            "id": "CartPole-v1",
            "version": versions.env_version("CartPole-v1"),
            "kwargs": {},
            "instances": [],
            "train_kwargs": None,
        },
        "subject": {
            "kind": "algorithm",
            "key": "ppo",
            "policy": None,
            "hyper": {},
            "n_envs": 1,
            "normalize": None,
            "frame_stack": None,
            "wrappers": [],
        },
        "seed": 0,
        "budget": {"steps": 1000, "seconds": None},
        "evaluation": {
            "every": None,
            "episodes": 10,
            "curve_episodes": 5,
            "seed": 1_000_000,
            "deterministic": True,
            "best_of": 1,
            "kwargs": {},
        },
        "orl": orl.__version__,
        "commit": None,
    }


def test_the_documented_example_is_a_sweep(tmp_path: Path) -> None:
    """The docstring of the module, as far as its files exist: a typing error in it would be copied by everybody."""
    import orl.bench.description as description

    text = str(description.__doc__).partition("In full::\n")[2].partition("\nA mapping with a")[0]
    (tmp_path / "ppo.yml").write_text("default: {n_envs: 2, policy: MlpPolicy}\n")
    plan = plan_of(tmp_path, text)
    labels = Counter((task.environment, task.subject) for task in plan.tasks)
    assert labels["small shops[noop=true]", "set policy[gamma=0.99]"] == 2
    assert labels["small shops[noop=false]", "spt"] == 110
    assert labels["CartPole-v1", "ppo"] == 10
    assert plan.scales == {"CartPole-v1": Scale(20, 500)}


def test_rules_and_solvers_run_on_each_instance_with_each_seed(tmp_path: Path) -> None:
    shops = SHOPS | {"rules": ["spt"], "solvers": [{"solver": "cp-sat", "time_limit": 2}], "seeds": [3, 5]}
    tasks = plan_of(tmp_path, shops | {"evaluation": {"every": 1000, "kwargs": {"reward": "dense"}}}).tasks
    runs = [(t.subject, t.configuration.environment.instances, t.configuration.seed) for t in tasks]
    assert runs == [(s, (i,), k) for s in ("spt", "cp-sat") for i in ("ft06", "ta01") for k in (3, 5)]
    assert all(task.configuration.budget is None and task.keep == Keep(None, False) for task in tasks)
    assert tasks[-1].configuration.subject == SolverPart(key="cp-sat", time_limit=2)
    # What cannot change a result does not change its name.
    assert {task.configuration.evaluation.every for task in tasks} == {None}
    assert tasks[-1].configuration.evaluation.kwargs == {}
    other = plan_of(
        tmp_path, shops | {"evaluation": {"every": 5000, "curve_episodes": 9, "kwargs": {"reward": "dense"}}}
    )
    assert hashes(other) == sorted(task.configuration.hash for task in tasks)


def test_training_kwargs_make_one_training_for_all_instances_and_without_them_there_is_one_each(tmp_path: Path) -> None:
    sweep = copy.deepcopy(SHOPS) | {"algorithms": ["maskable-ppo"], "budget": {"steps": 10}}
    assert [t.configuration.environment.instances for t in plan_of(tmp_path, sweep).tasks] == [("ft06",), ("ta01",)]
    sweep["environments"][0]["train"] = {"instance": UNIFORM}
    sweep["rules"] = ["spt"]
    learned, *played = plan_of(tmp_path, sweep).tasks
    assert learned.configuration.environment.instances == ("ft06", "ta01")
    assert learned.configuration.environment.train_kwargs == {"instance": UNIFORM}
    assert [task.configuration.environment.train_kwargs for task in played] == [None, None]  # rules do not train


def test_instances_come_from_the_library_files_generators_and_the_env_itself(tmp_path: Path) -> None:
    shop = library.load("ft06")
    (tmp_path / "mine.json").write_text(json.dumps(shop.to_json()))
    generator = {"generator": UNIFORM, "count": 2, "seed": 9}
    sweep: dict[str, Any] = {"environments": [{"id": "orl/JobShop-v0"}], "rules": ["spt"]}

    def sources(**entry: Any) -> list[Any]:
        sweep["environments"][0] = {"id": "orl/JobShop-v0", **entry}
        return [source for t in plan_of(tmp_path, sweep).tasks for source in t.configuration.environment.instances]

    named, file, first, second = sources(instances=["ta01", "mine.json", generator])
    assert named == "ta01"
    assert isinstance(file, InstanceFile)
    assert Path(file.file) == tmp_path / "mine.json"
    assert (first, second) == tuple(GeneratedInstance(generator=UNIFORM, seed=9, index=k) for k in (0, 1))
    before = hashes(plan_of(tmp_path, sweep))
    (tmp_path / "mine.json").write_text(json.dumps(library.load("ft10").to_json()))
    assert len(set(before) & set(hashes(plan_of(tmp_path, sweep)))) == 3  # a changed file is another run
    assert sources() == ["ft06"]  # the default of the env, said aloud
    assert sources(kwargs={"instance": "ta02"}) == ["ta02"]
    assert sources(grid={"instance": ["ta02", "ta03"]}) == ["ta02", "ta03"]
    assert sources(kwargs={"instance": UNIFORM}) == []  # drawn by the env, episode by episode


def test_grids_expand_to_labelled_choices(tmp_path: Path) -> None:
    sweep: dict[str, Any] = {
        "environments": [{"id": "CartPole-v1", "name": "cart", "grid": {"sutton_barto_reward": [True, False]}}],
        "algorithms": [
            {"algorithm": "ppo", "hyper": {"n_steps": 8}, "grid": {"n_epochs": [1, 2], "gamma": [0.9, 1.0]}}
        ],
        "budget": {"steps": 10},
        "scores": {"cart": {"low": 0, "high": 1}},
    }
    plan = plan_of(tmp_path, sweep)
    assert len(plan.tasks) == 8
    assert plan.tasks[1].environment == "cart[sutton_barto_reward=true]"
    assert plan.tasks[1].subject == "ppo[gamma=0.9,n_epochs=2]"
    part = plan.tasks[1].configuration.subject
    assert isinstance(part, AlgorithmPart)
    assert part.hyper == {"n_steps": 8, "gamma": 0.9, "n_epochs": 2}
    assert set(plan.scales) == {"cart[sutton_barto_reward=true]", "cart[sutton_barto_reward=false]"}
    sweep["algorithms"][0]["name"] = "p"
    assert plan_of(tmp_path, sweep).tasks[0].subject == "p[gamma=0.9,n_epochs=1]"


def test_entries_override_seeds_and_budget_and_choose_environments(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        """
        environments: [CartPole-v1, Acrobot-v1]
        algorithms:
          - ppo
          - {algorithm: a2c, environments: [Acrobot-v1], seeds: {first: 7, count: 2}, budget: {seconds: 2}}
        budget: {steps: 100}
        checkpoints: {every: 1e4, model: false}
        tensorboard: true
        """,
    )
    got = [(t.environment, t.subject, t.configuration.seed, t.configuration.budget) for t in plan.tasks]
    assert [run[:3] for run in got] == [
        ("CartPole-v1", "ppo", 0),
        ("Acrobot-v1", "ppo", 0),
        ("Acrobot-v1", "a2c", 7),
        ("Acrobot-v1", "a2c", 8),
    ]
    assert [run[3].model_dump() for run in got[1:3] if run[3]] == [
        {"steps": 100, "seconds": None},
        {"steps": None, "seconds": 2.0},
    ]
    assert plan.tasks[0].keep == Keep(10_000, False, True, True)


def test_a_rule_runs_on_the_environments_whose_domain_knows_it(tmp_path: Path) -> None:
    sweep = SHOPS | {"rules": ["spt"]}
    mixed = sweep | {"environments": ["CartPole-v1", *SHOPS["environments"]]}
    assert {task.environment for task in plan_of(tmp_path, mixed).tasks} == {"JobShop-v0"}


def test_algorithm_settings_reach_the_configuration(tmp_path: Path) -> None:
    entry = {
        "algorithm": "ppo",
        "policy": "MlpPolicy",
        "hyper": {"gamma": 0.9, "learning_rate": "lin_1e-3", "policy_kwargs": "dict(net_arch=[8])"},
        "policy_kwargs": {"activation_fn": {"object": "torch.nn:ReLU"}},
        "n_envs": 2,
        "normalize": True,
        "frame_stack": 3,
        "wrappers": [
            "gymnasium.wrappers.FlattenObservation",
            {"target": "gymnasium.wrappers:TimeLimit", "max_episode_steps": 9},
        ],
    }
    [task] = plan_of(tmp_path, {"environments": ["CartPole-v1"], "algorithms": [entry], "budget": {"seconds": 1}}).tasks
    part = task.configuration.subject
    assert isinstance(part, AlgorithmPart)
    assert part.hyper["learning_rate"] == {
        "target": "stable_baselines3.common.utils:LinearSchedule",
        "start": 1e-3,
        "end": 0.0,
        "end_fraction": 1.0,
    }
    assert part.hyper["policy_kwargs"] == {"net_arch": [8], "activation_fn": {"object": "torch.nn:ReLU"}}
    assert part.normalize == {"gamma": 0.9}  # VecNormalize discounts as the algorithm does
    assert [wrapper["target"] for wrapper in part.wrappers] == [
        "gymnasium.wrappers:FlattenObservation",
        "gymnasium.wrappers:TimeLimit",
    ]
    assert (part.n_envs, part.frame_stack, part.policy) == (2, 3, "MlpPolicy")


def test_a_whole_number_written_as_a_float_reaches_the_algorithm_whole(tmp_path: Path) -> None:
    sac = "{algorithm: sac, hyper: {buffer_size: 1e4, gamma: 1.0}, grid: {batch_size: [64, 1.28e2]}}"
    plan = plan_of(tmp_path, CART.replace("[ppo]", f"[{sac}]").replace("CartPole-v1", "Pendulum-v1"))
    for task, batch_size in zip(plan.tasks, (64, 128), strict=True):
        assert isinstance(task.configuration.subject, AlgorithmPart)
        hyper = task.configuration.subject.hyper
        assert hyper == {"buffer_size": 10_000, "gamma": 1.0, "batch_size": batch_size}
        assert [type(value) for value in hyper.values()] == [int, float, int]


def test_zoo_entries_are_taken_by_environment_and_stated_keys_win(tmp_path: Path) -> None:
    (tmp_path / "zoo.yml").write_text(
        "CartPole-v1: {n_timesteps: !!float 5e4, n_envs: 8, n_steps: 32, gamma: 0.98, normalize: true}\n"
        "default: {n_timesteps: 100, policy: MlpPolicy, n_steps: 16}\n"
    )
    text = (
        "environments: [CartPole-v1, Acrobot-v1]\nalgorithms:\n- {algorithm: ppo, zoo: zoo.yml, hyper: {gamma: 0.5}}\n"
    )
    cart, acrobot = (task.configuration for task in plan_of(tmp_path, text).tasks)
    assert isinstance(cart.subject, AlgorithmPart)
    assert cart.subject.hyper == {"n_steps": 32, "gamma": 0.5}
    assert (cart.subject.n_envs, cart.subject.normalize) == (8, {"gamma": 0.5})
    assert isinstance(acrobot.subject, AlgorithmPart)
    assert (acrobot.subject.n_envs, acrobot.subject.hyper) == (1, {"n_steps": 16, "gamma": 0.5})
    assert [c.budget.steps for c in (cart, acrobot) if c.budget] == [50_000, 100]
    shorter = plan_of(tmp_path, text + "budget: {steps: 10}\n")
    assert [t.configuration.budget.steps for t in shorter.tasks if t.configuration.budget] == [10, 10]
    plain = text.replace("hyper: {gamma: 0.5}", "normalize: false, n_envs: 3")
    part = plan_of(tmp_path, plain).tasks[0].configuration.subject
    assert isinstance(part, AlgorithmPart)
    assert (part.normalize, part.n_envs) == (None, 3)


def test_an_environment_of_a_module_of_ones_own_is_checked_and_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_carts_of_a_test.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('own/Cart-v7', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = CART.replace("CartPole-v1", "own_carts_of_a_test:own/Cart-v7").replace("ppo", "{algorithm: a2c}")
    try:
        [task] = plan_of(tmp_path, text.replace("1000", "20") + "evaluation: {episodes: 1}\n").tasks
        assert (task.environment, task.configuration.environment.id) == ("Cart-v7", "own_carts_of_a_test:own/Cart-v7")
        record = execute(task, sweep="s", work=tmp_path / "work").record
    finally:
        gymnasium.registry.pop("own/Cart-v7", None)
        sys.modules.pop("own_carts_of_a_test", None)
    assert record["steps"] == 20


def test_a_sweep_without_algorithms_is_read_without_torch(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("environments: [orl/JobShop-v0]\nrules: [spt]\n")
    program = "import sys; from orl.bench.description import read_sweep; read_sweep('s.yaml'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"torch", "stable_baselines3", "pandas", "plotly", "ray"} & set(done.stdout.split())


def test_strict_code_puts_the_commit_into_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = plan_of(tmp_path, CART)
    monkeypatch.setattr("orl.bench.description.code_state", lambda: "abc")
    strict = plan_of(tmp_path, CART, strict_code=True)
    assert strict.tasks[0].configuration.commit == "abc"
    assert hashes(strict) != hashes(plain)


def test_five_thousand_runs_have_five_thousand_names(tmp_path: Path) -> None:
    entry = {"algorithm": "ppo", "grid": {"gamma": [k / 100 for k in range(50)]}}
    plan = plan_of(
        tmp_path, {"environments": ["CartPole-v1"], "algorithms": [entry], "seeds": 100, "budget": {"steps": 1}}
    )
    assert len(set(hashes(plan))) == 5000


# ---- hashes know no order ------------------------------------------------------------------------------------------
BASE: dict[str, Any] = {
    "environments": [
        {
            "id": "orl/JobShop-v0",
            "kwargs": {"window": 4, "noop": True},
            "instances": ["ta01", "ft06", {"generator": UNIFORM, "count": 3, "seed": 1}],
            "train": {"instance": UNIFORM},
            "grid": {"symmetry_breaking": [True, False], "propagation": [0, 1]},
        },
        {"id": "CartPole-v1"},
    ],
    "algorithms": [
        {
            "algorithm": "maskable-ppo",
            "hyper": {"gamma": 0.9, "n_steps": 8, "policy_kwargs": {"net_arch": [8, 4], "ortho_init": True}},
            "normalize": {"norm_reward": False, "clip_obs": 5},
            "environments": ["JobShop-v0"],
            "grid": {"ent_coef": [0, 0.25], "n_epochs": [1, 3]},
        },
        {"algorithm": "ppo", "environments": ["CartPole-v1"]},
    ],
    "rules": ["spt", {"rule": "random", "best_of": 3, "seeds": [1, 0]}],
    "solvers": [{"solver": "cp-sat", "time_limit": 2, "options": {"num_workers": 1, "auto_hint": False}}],
    "seeds": [4, 2],
    "budget": {"steps": 1000, "seconds": 60},
    "evaluation": {"episodes": 3, "every": 100},
}
ORDERED = ("net_arch",)


def shuffled(value: Any, shuffle: random.Random, respell: bool, key: str = "") -> Any:
    """The same sweep with keys and list entries in another order, and whole numbers written as 1.0."""
    if isinstance(value, dict):
        keys = list(value)
        shuffle.shuffle(keys)
        return {k: shuffled(value[k], shuffle, respell, k) for k in keys}
    if isinstance(value, list):
        items = [shuffled(item, shuffle, respell, key) for item in value]
        if key not in ORDERED:
            shuffle.shuffle(items)
        return items
    if respell and type(value) is int:
        return float(value)
    return value


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), respell=st.booleans())
def test_another_order_or_spelling_of_a_file_gives_the_same_hashes(
    tmp_path_factory: pytest.TempPathFactory, seed: int, respell: bool
) -> None:
    folder = tmp_path_factory.mktemp("order")
    expected = hashes(plan_of(folder, BASE))
    assert len(expected) == 2 * (4 * 4 + 1) + 4 * 5 * (2 + 2 + 2)
    assert hashes(plan_of(folder, shuffled(BASE, random.Random(seed), respell))) == expected
    shutil.rmtree(folder)


@settings(max_examples=20, deadline=None)
@given(value=st.integers(-(2**50), 2**50))
def test_a_whole_number_has_one_hash_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, value: int
) -> None:
    folder = tmp_path_factory.mktemp("spelling")
    texts = {str(value), f"{value}.0", f"{value:.20e}", f"!!float {value}"}
    entry = (
        "environments: [CartPole-v1]\nbudget: {{steps: 9}}\nalgorithms: [{{algorithm: ppo, hyper: {{ent_coef: {}}}}}]"
    )
    assert len({hashes(plan_of(folder, entry.format(text)))[0] for text in texts}) == 1
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("budget", "steps"), 1001),
        (("evaluation", "episodes"), 4),
        (("environments", 0, "kwargs", "window"), 5),
        (("environments", 0, "instances", 0), "ta02"),
        (("algorithms", 0, "hyper", "gamma"), 0.91),
        (("algorithms", 0, "hyper", "policy_kwargs", "net_arch"), [4, 8]),
        (("algorithms", 0, "normalize"), None),
        (("algorithms", 0, "n_envs"), 2),
    ],
)
def test_what_changes_a_training_changes_its_hash(tmp_path: Path, where: tuple[Any, ...], value: Any) -> None:
    base = BASE | {"algorithms": BASE["algorithms"][:1], "rules": [], "solvers": []}
    changed = copy.deepcopy(base)
    place: Any = changed
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    assert not set(hashes(plan_of(tmp_path, changed))) & set(hashes(plan_of(tmp_path, base)))


@pytest.mark.parametrize("extra", [{"tensorboard": True}, {"threads": 2}, {"name": "x"}, {"checkpoints": {"every": 5}}])
def test_what_changes_no_result_changes_no_hash(tmp_path: Path, extra: dict[str, Any]) -> None:
    assert hashes(plan_of(tmp_path, BASE | extra)) == hashes(plan_of(tmp_path, BASE))


# ---- mistakes ------------------------------------------------------------------------------------------------------
TWELVE: dict[str, tuple[str | bytes, str]] = {
    "unknown environment": (
        CART.replace("CartPole-v1", "CartPol-v1"),
        "s.yaml, line 1, environments[0].id: unknown name (got 'CartPol-v1', expected one of",
    ),
    "unknown algorithm": (
        CART.replace("ppo", "ppoo"),
        "s.yaml, line 2, algorithms[0].algorithm: unknown algorithm (got 'ppoo', expected one of",
    ),
    "unknown key": (
        CART + "evaluation:\n  episods: 3\n",
        "s.yaml, line 5, evaluation.episods: unknown key (expected one of 7 known names; did you mean 'episodes'",
    ),
    "wrong type": (
        CART + "\nthreads: two\n",
        "s.yaml, line 5, threads: wrong type (got 'two', expected a whole number)",
    ),
    "negative seeds": (
        CART + "seeds:\n  - 0\n  - -1\n",
        "s.yaml, line 6, seeds[1]: too small (got -1, expected >= 0)",
    ),
    "duplicate names": (
        CART.replace("[ppo]", "\n  - ppo\n  - {algorithm: a2c, name: ppo}"),
        "s.yaml, line 4, algorithms[1]: duplicate name (got 'ppo', expected a key name that tells it from the one in "
        "line 3)",
    ),
    "empty grid": (
        CART.replace("[ppo]", "\n  - algorithm: ppo\n    grid:\n      gamma: []"),
        "s.yaml, line 5, algorithms[0].grid.gamma: empty grid (expected a list of values)",
    ),
    "unreadable file": (
        "environments:\n  - id: orl/JobShop-v0\n    instances:\n      - ft06\n      - none.json\nrules: [spt]\n",
        "s.yaml, line 5, environments[0].instances[1]: cannot be read: No such file or directory (got 'none.json', "
        "expected an instance file)",
    ),
    "unknown extra": (
        CART + "requires: [ray, rey]\n",
        "s.yaml, line 4, requires[1]: unknown extra (got 'rey', expected one of",
    ),
    "budget 0": (
        CART.replace("1000", "0"),
        "s.yaml, line 3, budget.steps: too small (got 0, expected >= 1)",
    ),
    "two documents": (
        CART + "---\n" + CART,
        "s.yaml, line 4: a second document (got '---', expected one document a file)",
    ),
    "not UTF-8": (
        CART.encode() + "name: Köln\n".encode("latin-1"),
        "s.yaml, line 4: not UTF-8 (got b'\\xf6', expected text in UTF-8)",
    ),
}


@pytest.mark.parametrize("kind", TWELVE)
def test_a_mistake_is_one_line_that_names_file_line_and_key(tmp_path: Path, kind: str) -> None:
    content, message = TWELVE[kind]
    [line] = mistakes(tmp_path, content)
    assert line.startswith(message)


def test_twelve_mistakes_in_one_file_are_twelve_lines(tmp_path: Path) -> None:
    content = b"""\
environments:
  - CartPol-v1
  - CartPole-v1
  - id: orl/JobShop-v0
    instances: [ft06, none.json]
algorithms:
  - ppoo
  - {algorithm: ppo, environments: [CartPole-v1], grid: {}}
  - {algorithm: a2c, environments: [CartPole-v1], hypr: {}}
rules:
  - spt
  - {rule: lpt, name: spt}
seeds: -3
requires: [rey]
budget: {steps: 0}
threads: two
name: K\xf6ln
---
name: again
"""
    lines = mistakes(tmp_path, content)
    assert [int(line.partition("line ")[2].partition(",")[0].partition(":")[0]) for line in lines] == [
        2, 5, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "line 1: wrong type (got [1], expected a mapping)"),
        ("rules: [spt]\n", "line 1, environments: no environments (expected at least one)"),
        ("environments: [CartPole-v1]\n", "line 1: nothing to run (expected algorithms, rules or solvers)"),
        (CART.replace("budget: {steps: 1000}", ""), "line 2, algorithms[0]: no budget"),
        (CART.replace("{steps: 1000}", "{}"), "line 3, budget: empty (expected steps, seconds, or both)"),
        (CART.replace("{steps: 1000}", "1000"), "line 3, budget: wrong type (got 1000, expected a mapping)"),
        (CART + "seeds: []\n", "line 4, seeds: empty"),
        (CART + "seeds: [1, 2, 1]\n", "line 4, seeds[2]: duplicate seed (got 1)"),
        (CART + "seeds: 1e9\n", "line 4, seeds: too large (got 1000000000.0, expected <= 100000)"),
        (CART.replace("[ppo]", "[{algoritm: ppo}]"), "line 2, algorithms[0].algoritm: unknown key"),
        (
            CART.replace("[CartPole-v1]", "[{id: CartPole-v1, kwargs: {x: 1}}]"),
            "kwargs.x: unknown argument of CartPole-v1",
        ),
        (
            CART.replace("[CartPole-v1]", "[{id: CartPole-v1, instances: [a]}]"),
            "instances: CartPole-v1 takes no instances",
        ),
        (CART.replace("CartPole-v1", "no_such_module:Env-v0"), "environments[0].id: cannot be used: "),
        (CART + "scores: {cart: {low: 0, high: 1}}\n", "line 4, scores.cart: no environment of this sweep"),
        (CART + "scores: {CartPole-v1: {low: 1, high: 1}}\n", "line 4, scores.CartPole-v1: no scale"),
        (CART + "evaluation: {kwargs: {x: 1}}\n", "line 4, evaluation.kwargs.x: unknown argument of CartPole-v1"),
        (
            CART + "rules: [spt]\n",
            "line 4, rules[0].rule: unknown rule (got 'spt', expected an environment whose domain",
        ),
        (CART + "seeds: 5\nseeds: 6\n", "line 5, seeds: duplicate key"),
        (
            CART.replace("[ppo]", "[ppo, {algorithm: ppo, name: same}]"),
            "line 2, algorithms[1]: the same run as ppo on Cart",
        ),
        (CART + "requires: [ray\n", "not YAML"),
    ],
)
def test_other_mistakes_are_one_line_as_well(tmp_path: Path, text: str, message: str) -> None:
    [line] = mistakes(tmp_path, text)
    assert message in line
    assert line.startswith("s.yaml, line ")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("hyper: {gama: 1}", "algorithms[0].hyper.gama: unknown hyper-parameter"),
        ("hyper: {seed: 1}", "algorithms[0].hyper.seed: given by the sweep"),
        ("grid: {gama: [1]}", "algorithms[0].grid.gama: unknown hyper-parameter"),
        ("grid: {gamma: [1, 1.0]}", "grid.gamma[1]: duplicate value in a grid"),
        ("environments: [Cart]", "environments[0]: no environment of this sweep"),
        ("hyper: {learning_rate: exp_1}", "hyper.learning_rate: unknown schedule"),
        ("wrappers: [gymnasium.wrappers.Flat]", "wrappers[0].target: cannot be imp"),
        ("zoo: none.yml", "line 2, algorithms[0].zoo: cannot be read: No such"),
        ("hyper: {n_steps: '64'}", "hyper.n_steps: wrong type (got '64', expected a number)"),
        ("hyper: {policy_kwargs: {a: {object: 'torch.nn:Rel'}}}", "policy_kwargs.a.object: cannot be imported"),
        ("policy_kwargs: {a: {object: 'torch.nn:Rel'}}", "policy_kwargs.a.object: cannot be imported"),
        ("grid: {policy_kwargs: [{a: {object: 'torch.nn:Rel'}}]}", "grid.policy_kwargs.a.object: cannot be imported"),
        ("grid: {learning_rate: [1, exp_1], gamma: [0.9, 1]}", "grid.learning_rate: unknown schedule"),
        ("policy: MlpPolcy", "policy: unknown policy of ppo (got 'MlpPolcy', expected module:Class, or one of 4"),
        ("policy: 'orl.policies:NoPolicy'", "policy: cannot be imported"),
        ("normalize: {norm_rewards: false}", "normalize: got an unexpected keyword argument 'norm_rewards'"),
    ],
)
def test_mistakes_about_an_algorithm_are_one_line(tmp_path: Path, entry: str, message: str) -> None:
    [line] = mistakes(tmp_path, CART.replace("[ppo]", f"[{{algorithm: ppo, {entry}}}]"))
    assert message in line
    assert line.startswith("s.yaml, line 2, algorithms[0].")


@pytest.mark.parametrize(
    ("entry", "subjects", "message"),
    [
        ({"instances": ["ft66"]}, {}, "instances[0]: unknown instance (got 'ft66', expected one of"),
        ({"instances": []}, {}, "instances: empty"),
        ({"instances": ["ft06", "ft06"]}, {}, "instances[1]: duplicate instance (got 'ft06')"),
        ({"instances": ["s.yaml"]}, {}, "instances[0]: not an instance: "),
        (
            {"instances": [{"generator": {"target": "orl.no:G"}}]},
            {},
            "generator.target: cannot be imported (got 'orl.no:G'",
        ),
        ({"instances": [{"generator": UNIFORM | {"njobs": 3}}]}, {}, "got an unexpected keyword argument 'njobs'"),
        ({"instances": [{"generator": {"n_jobs": 3}}]}, {}, "generator: the key 'target' is missing"),
        ({"instances": ["ft06"], "kwargs": {"instance": "ft06"}}, {}, "kwargs.instance: instance beside instances"),
        ({"instances": ["ft06"], "train": {"noop": True}}, {}, "train: names no instance"),
        (
            {"kwargs": {"instance": UNIFORM}},
            {"solvers": ["cp-sat"]},
            "a solver needs instances, and JobShop-v0 has none",
        ),
        (
            {},
            {"rules": ["sptt"]},
            "rules[0].rule: unknown rule (got 'sptt', expected one of 11 known names; did you mean",
        ),
        ({}, {"rules": [{"rule": "spt", "options": {"x": 1}}]}, "rules[0].options.x: unknown option of spt"),
        (
            {},
            {"solvers": [{"solver": "cp-sat", "options": {"x": 1}}]},
            "solvers[0].options.x: unknown option of cp-sat",
        ),
        (
            {},
            {"solvers": [{"solver": "cp-sat", "time_limit": 0}]},
            "solvers[0].time_limit: too small (got 0, expected > 0",
        ),
        ({}, {"solvers": ["spt"]}, "solvers[0]: duplicate name (got 'spt'"),
        ({}, {"algorithms": ["ppo"]}, "raises on illegal actions, and this algorithm takes no action masks"),
    ],
)
def test_mistakes_about_instances_rules_and_solvers_are_one_line(
    tmp_path: Path, entry: dict[str, Any], subjects: dict[str, Any], message: str
) -> None:
    sweep = {"environments": [{"id": "orl/JobShop-v0", **entry}], "rules": ["spt"], "budget": {"steps": 1}} | {
        key: value for key, value in subjects.items() if key != "rules"
    }
    sweep["rules"] = subjects.get("rules", ["spt"])
    [line] = mistakes(tmp_path, sweep)
    assert message in line


def test_a_sweep_file_that_cannot_be_read_is_one_line_without_a_number(tmp_path: Path) -> None:
    with pytest.raises(SweepFileError) as caught:
        read_sweep(tmp_path / "none.yaml")
    expected = "cannot be read: No such file or directory (expected a sweep file)"
    assert str(caught.value) == f"{tmp_path / 'none.yaml'}: {expected}"
    assert caught.value.line is None


def test_an_extra_that_is_not_installed_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = versions.importlib.metadata.version

    def without_ray(name: str) -> str:
        if name == "ray":
            raise versions.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(versions.importlib.metadata, "version", without_ray)
    [line] = mistakes(tmp_path, CART + "requires:\n  - ray\n")
    assert line == (
        "s.yaml, line 5, requires[0]: this sweep needs the package 'ray': install it with `pip install 'orl[ray]'`"
    )


def test_an_algorithm_whose_extra_is_missing_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.Entry("needy", "no_such_package.module:Needy", "an algorithm with an extra", extra="morl")
    monkeypatch.setattr(registry, "_ALGORITHMS", (*registry.algorithms(), entry))
    [line] = mistakes(tmp_path, CART.replace("ppo", "needy"))
    assert line.startswith("s.yaml, line 2, algorithms[0].algorithm: needy needs the package 'no_such_package'")
    assert "orl[morl]" in line


def test_mistakes_of_a_hyper_parameter_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "zoo.yml").write_text("CartPole-v1:\n  n_timesteps: 10\n  gama: 0.9\n")
    text = CART.replace("[ppo]", "[{algorithm: ppo, zoo: zoo.yml}]")
    [line] = mistakes(tmp_path, text)
    assert line.startswith("zoo.yml, line 3, CartPole-v1.gama: unknown hyper-parameter of ppo")
    (tmp_path / "zoo.yml").write_text("CartPole-v1:\n  n_timesteps: 10\n  env_kwargs: {x_threshold: 9}\n")
    [line] = mistakes(tmp_path, text)
    assert line.startswith("zoo.yml, line 3, CartPole-v1.env_kwargs: another environment than in the sweep")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_damage_to_a_file_ends_in_mistakes_with_lines_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    sweep = copy.deepcopy(BASE)
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            places.append((value, key))
            visit(item)

    visit(sweep)
    container, key = data.draw(st.sampled_from(places))
    junk = st.none() | st.booleans() | st.integers(-2, 3) | st.floats(-2, 2) | st.sampled_from(["", "x", "a:b", "lin_"])
    container[key] = data.draw(
        junk | st.lists(junk, max_size=2) | st.dictionaries(st.sampled_from("ab"), junk, max_size=2)
    )
    folder, found = tmp_path_factory.mktemp("damage"), None
    try:
        plan_of(folder, sweep)
    except SweepFileError as error:
        found = error
    finally:
        shutil.rmtree(folder)
    if found is not None:
        assert all(error.line is not None for error in found.errors)
        assert len(str(found).splitlines()) == len(found.errors)


def test_a_strict_sweep_needs_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "git_state", lambda: {"commit": None, "dirty": None})
    with pytest.raises(InputError, match="--strict-code"):
        plan_of(tmp_path, CART, strict_code=True)
