"""MDPO through the registry: training runs with evaluation, and hyper-parameters drawn from its search spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orl import registry
from orl.bench.search_spaces import Setting, find_space
from orl.training import TrainingRun, build_targets, load_policy, train

optuna = pytest.importorskip("optuna")


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [("CartPole-v1", {}), ("orl:orl/JobShop-v0", {"observation": "compact"})],
    ids=["without masks", "with masks"],
)
def test_training_with_evaluation_runs_with_and_without_masks(
    env_id: str, env_kwargs: dict[str, Any], tmp_path: Path
) -> None:
    hyper = {"n_steps": 32, "vf_batch_size": 32}
    run = TrainingRun(
        "mdpo", env_id, n_envs=2, hyper=hyper, env_kwargs=env_kwargs, steps=128, eval_every=64, eval_episodes=2
    )
    assert train(run, tmp_path).steps == 128
    assert (tmp_path / "evaluations.npz").exists()
    assert load_policy(tmp_path).model.use_masking == bool(env_kwargs)


@pytest.mark.parametrize(("key", "env_id"), [("mdpo", "CartPole-v1"), ("off-policy-mdpo", "Pendulum-v1")])
def test_every_draw_of_the_search_space_makes_a_model(key: str, env_id: str) -> None:
    space, algorithm = find_space(key), registry.algorithm(key)
    for setting in (Setting(n_envs=1, steps=300), Setting(n_envs=1, steps=100_000)):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        names = set()
        for _ in range(3):
            trial = study.ask()
            hyper = build_targets(space(trial, setting))
            names.add(frozenset(trial.params))
            model = algorithm("MlpPolicy", env_id, device="cpu", **hyper)
            assert model.policy_kwargs["net_arch"]
        assert len(names) == 1  # the same names in every trial
    own = space(optuna.create_study().ask(), Setting(policy="module:Policy"))
    assert "policy_kwargs" not in own
