"""``SnapshotSet``: what a teacher passed through, as records that restore an env, in memory and in one file."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orl.common.atomic import atomic_path
from orl.common.errors import InputError
from orl.snapshot_rl.selection import cluster_points, cluster_values
from orl.snapshot_rl.state_trees import pack, unpack

SCHEMA = "orl.snapshots/1"
Feature = Literal["value", "elapsed", "return", "observation"]
FEATURES = ("value", "elapsed", "return", "observation")
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_COLUMNS = ("elapsed", "returns", "values", "episodes", "clusters")


@dataclass(frozen=True, eq=False)
class SnapshotSet:
    """n snapshots, in the order in which the teacher passed through them.

    Attributes:
        states: What the env's codec needs to restore each one.
        observations: [n, ...], what the env showed there (not normalised), or a dict of such arrays.
        elapsed: int64[n], steps since the episode began.
        returns: float64[n], undiscounted return of the episode so far.
        values: float64[n], what the teacher expects of the rest.
        episodes: int64[n], the teacher's episode, 0, 1, ...
        episode_returns: float64[E], return of each whole episode.
        clusters: int64[n]; :meth:`classify` sets them.
        n_clusters, feature: How they were set.
        about: Where the snapshots come from (JSON): env, codec, teacher, steps it took.

    >>> snapshots = SnapshotSet.of([{"level": 1}, {"level": 2}], np.zeros((2, 3), np.float32), values=[0.5, 2.0])
    >>> len(snapshots), snapshots.classify(2).clusters.tolist()
    (2, [0, 1])
    """

    states: Sequence[Any]
    observations: Any
    elapsed: Integers
    returns: Floats
    values: Floats
    episodes: Integers
    episode_returns: Floats
    clusters: Integers
    n_clusters: int = 1
    feature: Feature = "value"
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.states)
        parts = self.observations.values() if isinstance(self.observations, Mapping) else [self.observations]
        sizes = {name: len(getattr(self, name)) for name in _COLUMNS} | {"observations": len(next(iter(parts), ()))}
        for name, size in sizes.items():
            if size != n:
                raise InputError("another number of records", field=name, value=size, expected=f"{n} as in states")
        if n and not (self.episodes.min() >= 0 and self.episodes.max() < len(self.episode_returns)):
            raise InputError(
                "no such episode",
                field="episodes",
                value=self.episodes.max(),
                expected=f"< {len(self.episode_returns)}",
            )

    @classmethod
    def of(
        cls,
        states: Sequence[Any],
        observations: Any,
        *,
        values: npt.ArrayLike,
        elapsed: npt.ArrayLike | None = None,
        returns: npt.ArrayLike | None = None,
        episodes: npt.ArrayLike | None = None,
        episode_returns: npt.ArrayLike | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> SnapshotSet:
        """A set from what is known of each record, all in one cluster; what is left out is 0."""
        n = len(states)
        which = np.zeros(n, np.int64) if episodes is None else np.asarray(episodes, np.int64)
        n_episodes = int(which.max(initial=-1)) + 1
        return cls(
            list(states),
            observations,
            np.zeros(n, np.int64) if elapsed is None else np.asarray(elapsed, np.int64),
            np.zeros(n) if returns is None else np.asarray(returns, np.float64),
            np.asarray(values, np.float64),
            which,
            np.zeros(n_episodes) if episode_returns is None else np.asarray(episode_returns, np.float64),
            np.zeros(n, np.int64),
            about=dict(about or {}),
        )

    def __len__(self) -> int:
        return len(self.states)

    def observation(self, i: int) -> Any:
        """The observation of record ``i``, a copy."""
        if isinstance(self.observations, Mapping):
            return {key: value[i].copy() for key, value in self.observations.items()}
        return self.observations[i].copy()

    # ---- choosing ----------------------------------------------------------------------------------------------
    def subset(self, which: npt.ArrayLike) -> SnapshotSet:
        """The records of an index array or a mask bool[n], with the clusters they have."""
        chosen = np.asarray(which)
        indices = np.arange(len(self))[chosen if chosen.size else chosen.astype(np.int64)]
        columns = {name: getattr(self, name)[indices] for name in _COLUMNS}
        return replace(
            self,
            states=[self.states[i] for i in indices.tolist()],
            observations=_rows(self.observations, indices),
            **columns,
        )

    def best_k(self, k: int) -> SnapshotSet:
        """Only the ``k`` episodes of greatest return (of equal ones, the earlier), classified anew.

        Raises:
            InputError: ``k`` is less than 1.
        """
        if k < 1:
            raise InputError("no episode", field="best_k", value=k, expected=">= 1")
        best = np.sort(np.argsort(-self.episode_returns, kind="stable")[:k])
        chosen = self.subset(np.isin(self.episodes, best))
        renamed = replace(
            chosen, episodes=np.searchsorted(best, chosen.episodes), episode_returns=self.episode_returns[best]
        )
        return renamed.classify(self.n_clusters, self.feature)

    def classify(self, n_clusters: int = 6, feature: Feature = "value", seed: int = 0) -> SnapshotSet:
        """The same records in ``n_clusters`` groups (fewer if there are fewer distinct ones) by k-means.

        Args:
            n_clusters: K; 6 in the paper's experiments.
            feature: ``"value"``, ``"elapsed"``, ``"return"`` (so far), or ``"observation"`` (all entries, as they are).
            seed: Of the start of k-means on observations; the other features need none.

        Raises:
            InputError: Unknown feature, or values that are not finite.
        """
        if feature not in FEATURES:
            raise InputError("unknown feature", field="feature", value=feature, expected=f"one of {FEATURES}")
        if feature == "observation":
            parts = self.observations.values() if isinstance(self.observations, Mapping) else [self.observations]
            flat = [np.asarray(part, np.float64).reshape(len(self), -1) for part in parts]
            labels = cluster_points(np.concatenate(flat, axis=1), n_clusters, seed)
        else:
            column = {"value": self.values, "elapsed": self.elapsed, "return": self.returns}[feature]
            labels = cluster_values(column, n_clusters)
        return replace(self, clusters=labels, n_clusters=n_clusters, feature=feature)

    @staticmethod
    def concatenate(sets: Sequence[SnapshotSet]) -> SnapshotSet:
        """All records of several sets of one env, episodes counted on, classified as the first set is.

        Raises:
            InputError: No set, or observations of different layouts.
        """
        if not sets:
            raise InputError("no sets", field="sets", expected="at least one")
        for other in sets[1:]:
            if _layout(other.observations) != _layout(sets[0].observations):
                raise InputError(
                    "observations of another layout",
                    field="observations",
                    value=_layout(other.observations),
                    expected=str(_layout(sets[0].observations)),
                )
        columns: dict[str, Any] = {name: np.concatenate([getattr(s, name) for s in sets]) for name in _COLUMNS}
        first = np.cumsum([0] + [len(s.episode_returns) for s in sets])
        columns["episodes"] = np.concatenate([s.episodes + n for s, n in zip(sets, first, strict=False)])
        return replace(
            sets[0],
            states=[state for s in sets for state in s.states],
            observations=_joined([s.observations for s in sets]),
            episode_returns=np.concatenate([s.episode_returns for s in sets]),
            **columns,
        ).classify(sets[0].n_clusters, sets[0].feature)

    # ---- files -------------------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.npz`` file (compressed, no pickle inside), whole or not at all.

        Raises:
            InputError: The name has another suffix, or a state holds what :mod:`orl.snapshot_rl.state_trees` does not
                know; the message names its type and where it stands.
        """
        _require_suffix(path)
        nested = isinstance(self.observations, Mapping)
        observations = self.observations if nested else {"": self.observations}
        head = {
            "schema": SCHEMA,
            "n_clusters": self.n_clusters,
            "feature": self.feature,
            "about": dict(self.about),
            "observation_keys": list(observations) if nested else None,
        }
        arrays: dict[str, Any] = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
        arrays |= {f"observation_{i}": value for i, value in enumerate(observations.values())}
        arrays |= {name: getattr(self, name) for name in (*_COLUMNS, "episode_returns")}
        arrays |= {f"state_{name}": array for name, array in pack(self.states).items()}
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SnapshotSet:
        """Read what :meth:`save` wrote; the file can hold no code.

        Raises:
            InputError: Not such a file; the message names it.
            OSError: It cannot be read.
        """
        source = os.fspath(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            head = json.loads(bytes(arrays["head"]))
            schema = head["schema"]
        except (KeyError, TypeError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError("not a set of snapshots", source=source, value=str(error), expected=SCHEMA) from error
        if schema != SCHEMA:
            raise InputError("not a set of snapshots", source=source, field="schema", value=schema, expected=SCHEMA)
        try:
            keys = head["observation_keys"]
            parts = [arrays[f"observation_{i}"] for i in range(1 if keys is None else len(keys))]
            columns = {name: arrays[name] for name in (*_COLUMNS, "episode_returns")}
            settings = {name: head[name] for name in ("n_clusters", "feature", "about")}
        except (KeyError, TypeError) as error:
            raise InputError("incomplete", source=source, field=str(error), expected=SCHEMA) from error
        states = unpack({n.removeprefix("state_"): a for n, a in arrays.items() if n.startswith("state_")}, source)
        observations = parts[0] if keys is None else dict(zip(keys, parts, strict=True))
        return cls(states, observations, **columns, **settings)


def as_snapshots(snapshots: SnapshotSet | str | os.PathLike[str]) -> SnapshotSet:
    """A set, or the one in the file of that name."""
    return snapshots if isinstance(snapshots, SnapshotSet) else SnapshotSet.load(snapshots)


def stack_observations(observations: Sequence[Any]) -> Any:
    """Observations as one array [n, ...], or a dict of arrays for flat dicts.

    Raises:
        InputError: A tuple, a nested dict or an array of objects.
    """
    first = observations[0]
    if isinstance(first, Mapping):
        if any(isinstance(value, Mapping | tuple) for value in first.values()):
            raise InputError("nested observation", field="observation", value=first, expected="an array or a flat dict")
        return {key: stack_observations([observation[key] for observation in observations]) for key in first}
    if isinstance(first, tuple):
        raise InputError("a tuple", field="observation", value=first, expected="an array or a flat dict of arrays")
    stacked = np.stack([np.asarray(observation) for observation in observations])
    if stacked.dtype.hasobject:
        raise InputError("objects", field="observation", value=first, expected="an array or a flat dict of arrays")
    return stacked


def _rows(batch: Any, indices: Integers) -> Any:
    return {k: v[indices] for k, v in batch.items()} if isinstance(batch, Mapping) else batch[indices]


def _joined(batches: Sequence[Any]) -> Any:
    if isinstance(batches[0], Mapping):
        return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    return np.concatenate(batches)


def _layout(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return {key: _layout(value) for key, value in batch.items()}
    return batch.shape[1:], batch.dtype.str


def _require_suffix(path: str | os.PathLike[str]) -> None:
    if not os.fspath(path).endswith(".npz"):
        raise InputError("unknown format", source=os.fspath(path), field="suffix", expected="a name that ends in .npz")
