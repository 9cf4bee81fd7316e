"""Two-stage deep decision rules (TS-DDR): policies that name the next state, trained with the duals of programmes.

Source of the method: Rosemberg, Street, Valladão and Van Hentenryck, *Efficiently Training Deep-Learning Parametric
Policies using Lagrangian Duality* (arXiv 2405.14973).
"""

from orl.tsddr.policies import LinearTarget, LSTMTarget, MLPTarget, TargetPolicy
from orl.tsddr.tsddr import TSDDR

__all__ = ["TSDDR", "LSTMTarget", "LinearTarget", "MLPTarget", "TargetPolicy"]
