"""Sets of snapshots: files without pickle, small; choosing and joining."""

from __future__ import annotations

import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from snapshot_cases import counting_snapshots, snapshots_of

from orl import registry
from orl.common.batched_values import equal_trees
from orl.common.errors import InputError
from orl.snapshot_rl import SnapshotSet
from orl.snapshot_rl.state_trees import same_bits

IDS = [env.lazy_id for env in registry.environments()]
COLUMNS = ("elapsed", "returns", "values", "episodes", "episode_returns", "clusters")


def require_equal(a: SnapshotSet, b: SnapshotSet) -> None:
    assert same_bits(list(a.states), list(b.states))
    assert equal_trees(a.observations, b.observations)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True)
    assert (a.n_clusters, a.feature, dict(a.about)) == (b.n_clusters, b.feature, dict(b.about))


@pytest.mark.parametrize("id", [*IDS, "Hopper-v5"])
def test_files_hold_everything_and_no_pickle(id, tmp_path) -> None:
    if id == "Hopper-v5":
        pytest.importorskip("mujoco")
    snapshots = snapshots_of(id, n_episodes=2, interval=4)
    snapshots.save(tmp_path / "a.npz")
    require_equal(SnapshotSet.load(tmp_path / "a.npz"), snapshots)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "biufcSU" for name in file.files)
    require_equal(pickle.loads(pickle.dumps(snapshots)), snapshots)


def test_a_thousand_snapshots_of_hopper_take_less_than_five_megabytes(tmp_path) -> None:
    pytest.importorskip("mujoco")
    snapshots = snapshots_of("Hopper-v5", n_episodes=60, interval=1).subset(np.arange(1000))
    assert len(snapshots) == 1000
    snapshots.save(tmp_path / "hopper.npz")
    assert (tmp_path / "hopper.npz").stat().st_size <= 5e6
    assert len(pickle.dumps(snapshots)) <= 5e6


def test_best_episodes_are_chosen_and_counted_anew() -> None:
    base = SnapshotSet.of(
        list(range(6)),
        np.arange(6.0),
        values=np.arange(6.0),
        episodes=[0, 0, 1, 1, 2, 2],
        episode_returns=[5.0, 1.0, 7.0],
    ).classify(3)
    best = base.best_k(2)
    assert list(best.states) == [0, 1, 4, 5]
    assert best.episodes.tolist() == [0, 0, 1, 1]
    assert best.episode_returns.tolist() == [5.0, 7.0]
    assert set(best.clusters) == {0, 1, 2}
    assert len(base.best_k(9)) == 6
    with pytest.raises(InputError, match="best_k"):
        base.best_k(0)


def test_sets_are_joined_and_classified_as_the_first() -> None:
    one, two = counting_snapshots(10), counting_snapshots(20)
    both = SnapshotSet.concatenate([one.classify(4, "elapsed"), two])
    assert len(both) == 30
    assert both.episodes.tolist() == [0] * 10 + [1] * 20
    assert len(both.episode_returns) == 2
    assert (both.n_clusters, both.feature) == (4, "elapsed")
    assert both.observation(29).tolist() == two.observation(19).tolist()
    other = SnapshotSet.of([0], np.zeros((1, 5)), values=[0.0])
    with pytest.raises(InputError, match="another layout"):
        SnapshotSet.concatenate([one, other])


@pytest.mark.parametrize("feature", ["value", "elapsed", "return", "observation"])
def test_every_feature_classifies(feature) -> None:
    snapshots = counting_snapshots(30).classify(5, feature)
    assert set(snapshots.clusters) == set(range(5))
    np.testing.assert_array_equal(snapshots.classify(5, feature).clusters, snapshots.clusters)
    nested = replace(snapshots, observations={"a": snapshots.observations, "b": np.arange(30)})
    assert set(nested.classify(5, feature).clusters) == set(range(5))


def test_an_observation_that_was_handed_out_is_a_copy() -> None:
    snapshots = counting_snapshots(5)
    snapshots.observation(0)[:] = 9
    assert snapshots.observation(0)[0] == 0


def test_a_state_that_cannot_be_stored_is_named_and_leaves_no_file(tmp_path) -> None:
    bad = SnapshotSet.of([{"x": 1}, {"x": Fraction(1, 2)}], np.zeros((2, 1)), values=[0, 1])
    with pytest.raises(InputError, match=r"state 1\['x'\].*Fraction"):
        bad.save(tmp_path / "bad.npz")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="npz"):
        counting_snapshots(3).save(tmp_path / "bad.txt")


def test_other_files_are_refused_by_name(tmp_path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "b.npz", head=np.zeros(3))
    np.savez(tmp_path / "c.npz", x=np.array([None], object))
    for name in "abc":
        with pytest.raises(InputError, match=f"{name}.npz.*not a set of snapshots"):
            SnapshotSet.load(tmp_path / f"{name}.npz")
    counting_snapshots(3).save(tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for missing in ("values", "observation_0", "state_floats", "state_kinds"):
        np.savez(tmp_path / "e.npz", **{k: v for k, v in arrays.items() if k != missing})
        with pytest.raises(InputError, match="e.npz"):
            SnapshotSet.load(tmp_path / "e.npz")
    np.savez(tmp_path / "f.npz", **(arrays | {"values": np.zeros(2)}))
    with pytest.raises(InputError, match="another number of records"):
        SnapshotSet.load(tmp_path / "f.npz")
