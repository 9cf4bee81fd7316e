"""Where the instance of each episode comes from: names, paths, instances and generators, alone or in a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orl.common.errors import InputError
from orl.envs.lot_sizing.instance import LotSizingInstance

Generator = Callable[[np.random.Generator], LotSizingInstance]
InstanceLike = str | Path | LotSizingInstance | Generator


class InstanceSource:
    """Where the instance of an episode comes from: fixed instances (drawn uniformly) and generators."""

    def __init__(self, instance: InstanceLike | Sequence[InstanceLike]) -> None:
        items: list[Any] = list(instance) if isinstance(instance, (list, tuple)) else [instance]
        if not items:
            raise InputError("no instance given", field="instance", value=instance, expected="at least one")
        self.items: list[LotSizingInstance | Generator] = [_resolve(item) for item in items]
        self.fixed = [item for item in self.items if isinstance(item, LotSizingInstance)]
        self.random = len(self.fixed) < len(self.items)
        samples = self.fixed or [self._make(0, np.random.default_rng(0))]
        self.n_items, self.n_machines = samples[0].n_items, samples[0].n_machines
        for sample in samples:
            self.require_size(sample)
        self.sample = samples[0]

    def draw(self, key: np.uint64) -> tuple[int, LotSizingInstance]:
        """Index of the item and its instance for the episode of a key, which decides everything."""
        if len(self.items) == 1 and not self.random:
            return 0, self.fixed[0]
        rng = np.random.default_rng(int(key))
        index = int(rng.integers(len(self.items))) if len(self.items) > 1 else 0
        return index, self._make(index, rng)

    def _make(self, index: int, rng: np.random.Generator) -> LotSizingInstance:
        item = self.items[index]
        return item if isinstance(item, LotSizingInstance) else item(rng)

    def require_size(self, instance: LotSizingInstance) -> None:
        """Raise InputError unless the instance has the items and machines of this source."""
        if not isinstance(instance, LotSizingInstance):
            raise InputError("not an instance", field="instance", value=instance, expected="a LotSizingInstance")
        found, wanted = (instance.n_items, instance.n_machines), (self.n_items, self.n_machines)
        if found != wanted:
            raise InputError(
                "instances of one env have equal sizes",
                source=instance.name,
                field="instance",
                value=f"{found[0]} items, {found[1]} machines",
                expected=f"{wanted[0]} items, {wanted[1]} machines",
            )


def _resolve(item: InstanceLike) -> LotSizingInstance | Generator:
    if isinstance(item, (str, Path)):
        from orl.envs.lot_sizing import library

        return library.load(item)
    if isinstance(item, LotSizingInstance) or callable(item):
        return item
    raise InputError(
        "not an instance",
        field="instance",
        value=item,
        expected="a library name, a path, a LotSizingInstance, a callable(rng) -> LotSizingInstance, or a list of them",
    )
