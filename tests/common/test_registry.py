"""Names resolve lazily, unknown ones are answered with the nearest match, and ids work in fresh processes."""

from __future__ import annotations

import gymnasium
import pytest

import orl
from orl import registry
from orl.common.errors import MissingExtraError, UnknownNameError


@pytest.mark.parametrize(
    "look_up, wrong, right",
    [
        (lambda name: registry.domain(name), "jobshop", "job_shop"),
        (lambda name: registry.solver("job_shop", name), "cpsat", "cp-sat"),
        (lambda name: registry.rule("job_shop", name, None), "sptt", "spt"),
        (lambda name: registry.algorithm(name), "maskable_ppo", "maskable-ppo"),
        (lambda name: registry.environment(name), "orl/JobShp-v0", "orl/JobShop-v0"),
        (lambda name: registry.solvers(name), "job-shp", "job_shop"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(look_up, wrong, right) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{right}'") as caught:
        look_up(wrong)
    assert right in caught.value.matches


def test_keys_are_unique_and_kebab_case() -> None:
    for rows in (registry.solvers(), registry.rules(), registry.algorithms()):
        names = [(row.domain, row.key) for row in rows]
        assert len(set(names)) == len(names)
        assert all(key == key.lower() and "_" not in key and " " not in key for _, key in names)


def test_every_row_belongs_to_a_known_domain() -> None:
    known = {d.name for d in registry.domains()}
    assert {row.domain for row in (*registry.solvers(), *registry.rules(), *registry.environments())} <= known
    for domain in registry.domains():
        assert [e.id for e in registry.environments(domain.name)] == list(domain.environments)


def test_registration_can_be_repeated_and_keeps_the_defaults() -> None:
    before = dict(gymnasium.registry)
    registry.register_envs()
    assert dict(gymnasium.registry) == before
    spec = gymnasium.spec("orl/OpenShop-v0")
    assert spec.kwargs == {"instance": "tai4_4_01"}
    assert spec.vector_entry_point == "orl.envs.job_shop.vector:JobShopVectorEnv"


def test_a_missing_dependency_names_the_extra(monkeypatch) -> None:
    entry = registry.Entry("x", "no_such_package_of_ours:X", "", extra="report")
    with pytest.raises(MissingExtraError, match=r"orl\[report\]"):
        entry.load()
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        registry.Entry("x", "no_such_package_of_ours:X", "").load()


def test_entry_arguments_can_be_overridden() -> None:
    entry = registry.Entry("x", "builtins:dict", "", kwargs={"a": 1, "b": 2})
    assert entry.make(b=3) == {"a": 1, "b": 3}


def test_dotted_targets_resolve() -> None:
    assert registry.resolve("builtins:dict.fromkeys")("ab") == {"a": None, "b": None}
    assert orl.make_vec is registry.resolve("orl.common.vec_env:make_vec")
