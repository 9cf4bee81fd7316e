"""Post-Decision Proximal Policy Optimization (PDPPO) as an SB3 algorithm, and the authors' protocol beside it.

Source of the method: Felizardo, Fadda, Brandimarte, Del-Moral-Hernandez and Nascimento, *A Reinforcement Learning
Method for Environments with Stochastic Variables: Post-Decision Proximal Policy Optimization with Dual Critic
Networks*, IJCNN 2025 (arXiv 2504.05150).
"""

from orl.pdppo.lookahead import LookaheadPolicy
from orl.pdppo.pdppo import PDPPO
from orl.pdppo.reference import ReferencePDPPO, reference_config

__all__ = ["PDPPO", "LookaheadPolicy", "ReferencePDPPO", "reference_config"]
