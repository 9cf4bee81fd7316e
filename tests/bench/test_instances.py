"""Instances of a run: by name, from a file, or generated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orl import registry
from orl.bench.configuration import GeneratedInstance, InstanceFile
from orl.bench.instances import build_instance, file_digest
from orl.common.errors import InputError, UnknownNameError

GENERATOR = {"target": "orl.envs.job_shop.generators:UniformJobShop", "n_jobs": 3, "n_machines": 2}


def test_a_library_name() -> None:
    assert build_instance("ft06", "job-shop").name == "ft06"
    with pytest.raises(UnknownNameError, match="ft06"):
        build_instance("ft6", "job_shop")


def test_a_file_counts_only_while_it_is_the_one_that_was_planned(tmp_path: Path) -> None:
    file = tmp_path / "shop.json"
    file.write_text(json.dumps(registry.domain("job_shop").load("ft06").to_json()))
    source = InstanceFile(file=str(file), sha256=file_digest(file))
    assert build_instance(source, "job_shop").to_json() == registry.domain("job_shop").load("ft06").to_json()
    file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError, match=r"shop.json, sha256: the file has changed"):
        build_instance(source, "job_shop")
    file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        build_instance(source, "job_shop")


def test_generated_instances_are_repeatable_and_named_apart() -> None:
    sources = [GeneratedInstance(generator=GENERATOR, seed=s, index=i) for s in (1, 2) for i in range(3)]
    built = [build_instance(source, "job_shop") for source in sources]
    assert [instance.name for instance in built[:2]] == ["uniform_job_shop_3x2#1.0", "uniform_job_shop_3x2#1.1"]
    assert len({instance.name for instance in built}) == 6
    assert len({json.dumps(instance.to_json() | {"name": ""}) for instance in built}) == 6
    assert [instance.to_json() for instance in built] == [build_instance(s, "job_shop").to_json() for s in sources]


@pytest.mark.parametrize(
    "generator, message",
    [
        ({"target": "fractions:Fraction"}, "not a generator"),
        ({"object": "builtins:repr"}, "something else than an instance"),
        (GENERATOR | {"n_jobz": 3}, "n_jobz"),
    ],
)
def test_what_is_no_generator_is_refused(generator: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_instance(GeneratedInstance(generator=generator, seed=0, index=0), "job_shop")
