"""How large an instance is, as far as spaces and padding care."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import numpy as np

from orl.common.errors import InputError
from orl.envs.job_shop.instance import ShopInstance


@dataclass(frozen=True)
class Sizes:
    """Sizes that fix the spaces of an env; ``a | b`` holds both."""

    lines: int
    max_modes: int
    longest_line: int
    resources: int  # declared ones
    ops: int
    arcs: int

    @classmethod
    def of(cls, instance: ShopInstance) -> Sizes:
        return cls(
            lines=instance.n_lines,
            max_modes=instance.max_modes,
            longest_line=int(np.diff(instance.line_ptr).max()),
            resources=instance.n_declared_resources,
            ops=instance.n_ops,
            arcs=len(instance.pred_op),
        )

    def __or__(self, other: Sizes) -> Sizes:
        return Sizes(*map(max, astuple(self), astuple(other)))

    def require(self, instance: ShopInstance, *, graph: bool) -> None:
        """Raise InputError when the spaces cannot hold ``instance`` (operations and arcs matter to graphs only)."""
        found = Sizes.of(instance)
        for f in fields(self):
            if f.name in ("ops", "arcs") and not graph:
                continue
            if getattr(found, f.name) > getattr(self, f.name):
                raise InputError(
                    "the instance is larger than the observation space",
                    source=instance.name,
                    field=f.name,
                    value=getattr(found, f.name),
                    expected=f"at most {getattr(self, f.name)}; pass pad_to=<the largest instance>",
                )
