"""The choice between the fast path and SB3's own code, shared by all Fast classes."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any, Literal

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.patch_gym import _patch_env

from orl.common.errors import InputError
from orl.fast.lean_vec_env import LeanVecEnv

Engine = Literal["auto", "fast", "torch"]
ENGINES = ("auto", "fast", "torch")
_PASSING = ("_fast", "_told", "_predicts_slowly")
"""Attributes that belong to the process, not to the model."""


class EngineChoice(BaseAlgorithm):
    """A mixin before an SB3 class: the keyword ``engine``, and gym envs wrapped without needless copies.

    ``engine="auto"`` takes the fast path where it can and says once (log level INFO) why it cannot; ``"fast"`` raises
    then; ``"torch"`` always runs SB3's own code. A class provides :meth:`engine_ineligible` and :meth:`_new_engine`;
    its engine object has ``intact(model) -> bool``.
    """

    engine: Engine
    _fast: Any = None
    _told: str | None = None

    def _set_engine(self, engine: Engine) -> None:
        if engine not in ENGINES:
            raise InputError("unknown engine", field="engine", value=engine, expected=f"one of {ENGINES}")
        self.engine = engine

    @abstractmethod
    def engine_ineligible(self) -> str | None:
        """Why the fast path cannot run on this model as it is now; None if it can."""

    @abstractmethod
    def _new_engine(self) -> Any:
        """The engine of the policy as it is now."""

    @property
    def engine_in_use(self) -> Literal["fast", "torch"]:
        """The engine that the next rollout and update use."""
        return "torch" if self.engine == "torch" or self.engine_ineligible() is not None else "fast"

    def refuse_or_tell(self, reason: str) -> None:
        """Raise for ``engine="fast"``; else say once why SB3's own code runs.

        Raises:
            InputError: ``engine="fast"``.
        """
        if self.engine == "fast":
            raise InputError(
                f"the fast engine cannot run: {reason}", field="engine", value="fast", expected="'auto' or 'torch'"
            )
        if reason != self._told:
            self._told = reason
            log = logging.getLogger(type(self).__module__)
            log.info("%s runs SB3's own code: %s", type(self).__name__, reason)

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if not isinstance(env, VecEnv):
            single = _patch_env(env)
            if monitor_wrapper and not is_wrapped(single, Monitor):
                if verbose >= 1:
                    print("Wrapping the env with a `Monitor` wrapper")
                single = Monitor(single)
            if verbose >= 1:
                print("Wrapping the env in a LeanVecEnv.")
            env = LeanVecEnv([lambda: single])
        return BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *_PASSING]

    def __getstate__(self) -> dict[str, Any]:
        """Pickles and copies leave the engine out; it is built again when needed."""
        return {key: value for key, value in self.__dict__.items() if key not in _PASSING}
