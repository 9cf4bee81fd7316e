"""Rules where policies and solvers are expected: SB3's ``predict`` on any environment, ``solve`` on scenarios."""

from __future__ import annotations

import hashlib
import inspect
import time
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orl.common.errors import UnknownNameError
from orl.common.interruption import minding_ctrl_c
from orl.common.kernel_batches import kernel_batches
from orl.common.problem import Progress, SolveResult, Status
from orl.envs.lot_sizing import scenario, transition
from orl.envs.lot_sizing.instance import LotSizingInstance, LotSizingPlan
from orl.solvers.lot_sizing.heuristics import base_stock
from orl.solvers.lot_sizing.rules import Decide, make_rule, rule_factory

REMEMBERED = 8
"""Problems whose rules an object keeps."""
_START = ("name", "initial_inventory", "initial_setup", "demand_path")


class RulePolicy:
    """A rule with SB3's ``predict``, reading the kernel state of the env it is built on.

    Args:
        rule: Key of :data:`orl.solvers.lot_sizing.rules.RULES`.
        env: ``LotSizingEnv`` (also wrapped), ``LotSizingVectorEnv``, or an SB3 VecEnv over them.
        options: Keyword arguments of the rule's factory.

    A rule is made once for each problem that the env plays, not for each scenario. Rules are deterministic whatever
    ``deterministic`` says, except ``random``.

    >>> import gymnasium
    >>> env = gymnasium.make("orl:orl/LotSizing-v0", instance="ls-2x1-t6")
    >>> policy, done = RulePolicy("greedy", env), False
    >>> observation, info = env.reset(seed=0)
    >>> while not done:
    ...     action, _ = policy.predict(observation)
    ...     observation, reward, terminated, truncated, info = env.step(action)
    ...     done = terminated or truncated
    >>> info["objective"] >= info["bound"]
    True
    """

    def __init__(self, rule: str, env: Any, **options: Any) -> None:
        self.rule, self.env, self.options = rule, env, options
        self._rules = _RuleMemory(rule, options)
        self._batches, self._single = kernel_batches(env, expected="LotSizingEnv or LotSizingVectorEnv")
        self._latest: dict[tuple[int, int], tuple[LotSizingInstance, Decide]] = {}

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        """Actions of all copies, int64[N, M] (int64[M] for a single env); the observation is not needed."""
        chosen = []
        for k, batch in enumerate(self._batches):
            inventory, setup = (np.asarray(a, np.int64) for a in (batch.inventory, batch.setup))
            decides = [self._decide(k, b, batch.instance(b)) for b in range(len(setup))]
            last = np.array([self._latest[k, b][0].horizon for b in range(len(setup))]) - 1
            period = np.minimum(np.asarray(batch.period, np.int64), last)
            actions = np.zeros_like(setup)
            for decide in dict.fromkeys(decides):
                here = np.array([decide is other for other in decides])
                actions[here] = decide(inventory[here], setup[here], period[here])
            chosen.append(one_machine_an_item(actions) if batch.settings.exclusive_items else actions)
        joined = np.concatenate(chosen)
        return (joined[0] if self._single else joined), state

    def _decide(self, k: int, b: int, instance: LotSizingInstance) -> Decide:
        """The rule for copy b of batch k; the instance of a copy rarely changes."""
        known = self._latest.get((k, b))
        if known is None or known[0] is not instance:
            known = self._latest[k, b] = (instance, self._rules.get(instance))
        return known[1]


class RuleSolver:
    """A rule as a solver: the plan that its policy plays on a scenario, which it meets period by period.

    Args:
        rule: Key of :data:`orl.solvers.lot_sizing.rules.RULES`.
        options: Keyword arguments of the rule's factory. A factory with the arguments ``seed`` or
            ``time_limit_per_decision`` is given the solver's seed, and its time limit over the number of periods.

    The bound reported is the scenario's own lower bound, valid for this demand path. When the time limit (or Ctrl-C)
    comes before the last period, ``base-stock`` plays the rest. Rules need no hint and ignore it.

    >>> from orl.envs.lot_sizing.library import load
    >>> result = RuleSolver("static").solve(load("ls-2x1-t6/scenario-0"))
    >>> result.status, result.solution.actions.shape, result.bound <= result.objective
    ('feasible', (6, 1), True)
    """

    def __init__(self, rule: str, **options: Any) -> None:
        self.rule, self.options = rule, options
        self._rules = _RuleMemory(rule, options)

    @property
    def name(self) -> str:
        """Key of the rule, with its options."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.rule}({options})" if options else self.rule

    def solve(
        self,
        instance: LotSizingInstance,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        hint: LotSizingPlan | None = None,
    ) -> SolveResult:
        """Play the rule on a scenario. ``feasible`` unless the cost meets the bound.

        Raises:
            InputError: The instance has no demand path.
        """
        begin = time.perf_counter()
        path = scenario.require_demand_path(instance)
        extra: dict[str, Any] = {"seed": seed}
        if time_limit is not None:
            extra["time_limit_per_decision"] = time_limit / instance.horizon
        decide = quick = base_stock(replace(instance, demand_path=None))
        try:
            decide = self._rules.get(instance, **extra)
        except KeyboardInterrupt:
            time_limit = 0.0
        inventory, setup = instance.initial_inventory[None], instance.initial_setup[None]
        actions = np.zeros((instance.horizon, instance.n_machines), np.int64)
        with minding_ctrl_c() as pressed:
            for t in range(instance.horizon):
                if pressed() or (time_limit is not None and time.perf_counter() - begin > time_limit):
                    decide = quick
                chosen = decide(inventory, setup, np.array([t]))
                post, setup, _ = transition.decide(instance, inventory, setup, chosen)
                inventory = transition.realise(instance, post, path[t])[0]
                actions[t] = setup[0]
        plan = LotSizingPlan(actions, path, instance.initial_inventory, instance.initial_setup)
        objective = float(scenario.replay(instance, plan)[1].sum())
        bound = float(instance.lower_bound())
        status: Status = "optimal" if objective <= bound else "feasible"
        seconds = time.perf_counter() - begin
        return SolveResult(status, plan, objective, bound, seconds=seconds, log=(Progress(seconds, objective, bound),))


class _RuleMemory:
    """Rules of the last few problems; scenarios of one problem share a rule."""

    def __init__(self, rule: str, options: dict[str, Any]) -> None:
        self._rule, self._options = rule, options
        self._accepted = [name for name in inspect.signature(rule_factory(rule)).parameters if name != "instance"]
        for name in options:
            if name not in self._accepted:
                raise UnknownNameError(f"option of {rule}", name, self._accepted)
        self._made: dict[tuple[Any, ...], Decide] = {}

    def get(self, instance: LotSizingInstance, **extra: Any) -> Decide:
        """The rule for an instance; of ``extra`` the factory gets what it asks for and the options do not set."""
        given = {k: v for k, v in extra.items() if k in self._accepted and k not in self._options}
        key = (_fingerprint(instance), *sorted(given.items()))
        if key not in self._made:
            if len(self._made) >= REMEMBERED:
                del self._made[next(iter(self._made))]
            self._made[key] = make_rule(self._rule, instance, **self._options, **given)
        return self._made[key]


def one_machine_an_item(actions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Actions int64[B, M] where a machine idles if an earlier one has its item, as ``exclusive_items`` demands.

    >>> one_machine_an_item(np.array([[2, 1, 2], [0, 0, 3]])).tolist()
    [[2, 1, 0], [0, 0, 3]]
    """
    kept = actions.copy()
    for m in range(1, actions.shape[1]):
        kept[(actions[:, :m] == actions[:, m : m + 1]).any(1), m] = 0
    return kept


def _fingerprint(instance: LotSizingInstance) -> bytes:
    """Digest of everything that a rule may know of an instance."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (instance, instance.demand):
        for f in fields(part):
            value = getattr(part, f.name)
            if f.name not in _START and f.name != "demand":
                array = np.asarray(0 if value is None else value)
                digest.update(f"{f.name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()
