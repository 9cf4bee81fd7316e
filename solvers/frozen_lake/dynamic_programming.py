"""Exact dynamic programming over the steps to go, in post-decision form.

With W_t(u) the expected stochastic reward and value after the move to tile u, and r(u) its deterministic share:

    V_t(s) = max_a r(u) + W_t(u), u = move(s, a);    W_t(u) = E[r^w + V_{t+1}(s')];    V_T = 0.

So the maximisation needs no expectation, and the expectation no maximisation. The probability of the goal obeys the
same recursion with the reward 1 at the goal and no other. Policies of (almost) the same largest probability of the goal
may differ much in their return: the last digits decide between them, so only the probability is a figure to rely on.

    >>> from orl.envs.frozen_lake.library import load
    >>> plan = plan_lake(load("lake-10x10-1"))
    >>> round(plan.expected_return, 2), round(plan.success, 3)
    (43.83, 0.705)
    >>> safe = plan_lake(load("lake-10x10-1"), "success")
    >>> round(safe.expected_return, 2), round(safe.success, 3)
    (22.61, 0.984)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from orl.common.errors import InputError
from orl.common.kernel_batches import kernel_batches
from orl.common.problem import Progress, SolveResult
from orl.envs.frozen_lake.instance import LakeInstance, LakePolicy
from orl.envs.frozen_lake.transition import expected_reward, expected_value

Goal = Literal["return", "success"]


@dataclass(frozen=True, eq=False)
class LakePlan:
    """What dynamic programming finds out.

    Attributes:
        actions: int64[T, S], the best action on tile s at step t (ties: the first).
        value: float64[T + 1, S], expected return from tile s at step t under these actions.
        post_value: float64[T, S], expected reward and value after the move to tile s at step t, W_t above.
        success_probability: float64[T + 1, S], probability to reach the goal from there.
        expected_return: From the start.
        success: Probability of the goal from the start.
    """

    actions: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    post_value: npt.NDArray[np.float64]
    success_probability: npt.NDArray[np.float64]
    expected_return: float
    success: float

    @property
    def policy(self) -> LakePolicy:
        """The actions as a solution."""
        return LakePolicy(self.actions)


def plan_lake(lake: LakeInstance, maximise: Goal = "return") -> LakePlan:
    """The best time-dependent policy: largest expected return, or largest probability of the goal."""
    if maximise not in get_args(Goal):
        raise InputError("unknown goal", field="maximise", value=maximise, expected=" or ".join(get_args(Goal)))
    tables, horizon, n = lake.tables, lake.horizon, lake.n_tiles
    tile, running, mean = np.arange(n), ~tables.ends, expected_reward(tables)
    actions = np.zeros((horizon, n), np.int64)
    value, post_value = np.zeros((horizon + 1, n)), np.zeros((horizon, n))
    success = np.zeros((horizon + 1, n))
    success[:, tables.goal] = 1.0
    for t in reversed(range(horizon)):
        post_value[t] = mean + expected_value(tables, value[t + 1])
        by_return = (tables.decided + post_value[t])[tables.neighbours]
        by_success = expected_value(tables, success[t + 1])[tables.neighbours]
        actions[t] = (by_return if maximise == "return" else by_success).argmax(1)
        value[t, running] = by_return[tile, actions[t]][running]
        success[t, running] = by_success[tile, actions[t]][running]
    return LakePlan(actions, value, post_value, success, float(value[0, lake.start]), float(success[0, lake.start]))


@dataclass(frozen=True)
class DynamicProgramming:
    """The exact optimum of a lake, as a policy; its objective is the negative expected return.

    Takes milliseconds, so it heeds neither time limit, nor seed, nor hint. The bound holds for policies in expectation:
    a single episode may be luckier.

    Args:
        maximise: ``"return"``: proves the optimum; ``"success"``: the policy with the largest probability of the goal,
            priced by its return like any other.
    """

    maximise: Goal = "return"

    @property
    def name(self) -> str:
        """Key of the method."""
        return "dynamic-programming" if self.maximise == "return" else "max-success"

    def solve(
        self,
        instance: LakeInstance,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        hint: Any | None = None,
    ) -> SolveResult:
        """The policy, its expected objective and the optimal one as a bound."""
        begin = time.perf_counter()
        plan = plan_lake(instance, self.maximise)
        best = plan if self.maximise == "return" else plan_lake(instance)
        seconds = time.perf_counter() - begin
        objective, bound = -plan.expected_return, -best.expected_return
        return SolveResult(
            "optimal" if objective <= bound else "feasible",
            solution=plan.policy,
            objective=objective,
            bound=min(bound, objective),
            seconds=seconds,
            log=(Progress(seconds, objective, min(bound, objective)),),
        )


class RulePolicy:
    """A plan with SB3's ``predict``, reading tile and step from the env that it is built on.

    Args:
        env: The single env (also wrapped), the native batch, or an SB3 VecEnv over them.
        maximise: As in :class:`DynamicProgramming`.

    >>> import gymnasium
    >>> env = gymnasium.make("orl:orl/PostDecisionFrozenLake-v0", instance="lake-4x4")
    >>> policy = RulePolicy(env)
    >>> obs, info = env.reset(seed=0)
    >>> done = False
    >>> while not done:
    ...     action, _ = policy.predict(obs)
    ...     obs, reward, terminated, truncated, info = env.step(action)
    ...     done = terminated or truncated
    >>> env.unwrapped.instance.check(info["solution"]).feasible
    True
    """

    def __init__(self, env: Any, maximise: Goal = "return") -> None:
        self.env, self.maximise = env, maximise
        self._batches, self._single = kernel_batches(env, expected="orl/PostDecisionFrozenLake-v0, alone or as a batch")
        self._plans: dict[int, tuple[LakeInstance, LakePlan]] = {}

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Actions of all copies, int64[N] (a scalar array for a single env); the observation is not needed."""
        parts = []
        for batch in self._batches:
            plan = self._plan(batch.instance(0))
            parts.append(plan.actions[np.minimum(batch.period, len(plan.actions) - 1), batch.tile])
        actions = np.concatenate(parts)
        return (actions[0] if self._single else actions), state

    def _plan(self, lake: LakeInstance) -> LakePlan:
        if id(lake) not in self._plans:
            self._plans[id(lake)] = lake, plan_lake(lake, self.maximise)
        return self._plans[id(lake)][1]
