"""Mirror Descent Policy Optimization (MDPO), on-policy and off-policy, as SB3 algorithms.

Source of the method: Tomar, Shani, Efroni and Ghavamzadeh, *Mirror Descent Policy Optimization*, ICLR 2022
(arXiv 2005.09814).
"""

from orl.mdpo.mdpo import MDPO
from orl.mdpo.off_policy_mdpo import OffPolicyMDPO

__all__ = ["MDPO", "OffPolicyMDPO"]
