"""Operations research and reinforcement learning side by side.

Importing registers the environments with Gymnasium. The other public names are loaded when first used, so that the
import stays quick: it brings neither torch nor numba.

>>> import gymnasium, orl
>>> "orl/JobShop-v0" in gymnasium.registry
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orl.registry import register_envs, resolve

if TYPE_CHECKING:
    from orl.common.evaluation import evaluate as evaluate
    from orl.common.vec_env import make_vec as make_vec
    from orl.common.vector_env_checker import check_vector_env as check_vector_env
    from orl.fast.ppo import FastMaskablePPO as FastMaskablePPO
    from orl.fast.ppo import FastPPO as FastPPO
    from orl.fast.sac import FastSAC as FastSAC
    from orl.fast.td3 import FastTD3 as FastTD3
    from orl.mdpo.mdpo import MDPO as MDPO
    from orl.mdpo.off_policy_mdpo import OffPolicyMDPO as OffPolicyMDPO
    from orl.pdppo.pdppo import PDPPO as PDPPO
    from orl.tsddr.tsddr import TSDDR as TSDDR

__version__ = "0.1.0"

_LAZY = {
    "FastMaskablePPO": "orl.fast.ppo:FastMaskablePPO",
    "FastPPO": "orl.fast.ppo:FastPPO",
    "FastSAC": "orl.fast.sac:FastSAC",
    "FastTD3": "orl.fast.td3:FastTD3",
    "MDPO": "orl.mdpo:MDPO",
    "OffPolicyMDPO": "orl.mdpo:OffPolicyMDPO",
    "PDPPO": "orl.pdppo:PDPPO",
    "TSDDR": "orl.tsddr:TSDDR",
    "check_vector_env": "orl.common.vector_env_checker:check_vector_env",
    "evaluate": "orl.common.evaluation:evaluate",
    "make_vec": "orl.common.vec_env:make_vec",
}
__all__ = [
    "MDPO",
    "PDPPO",
    "TSDDR",
    "FastMaskablePPO",
    "FastPPO",
    "FastSAC",
    "FastTD3",
    "OffPolicyMDPO",
    "check_vector_env",
    "evaluate",
    "make_vec",
]

register_envs()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return globals().setdefault(name, resolve(_LAZY[name]))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
