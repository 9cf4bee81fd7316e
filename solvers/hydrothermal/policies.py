"""Rules where policies and solvers are expected: SB3's ``predict`` on any environment, ``solve`` on scenarios."""

from __future__ import annotations

import inspect
import time
from typing import Any

import numpy as np

from orl.common.errors import InputError, UnknownNameError
from orl.common.interruption import minding_ctrl_c
from orl.common.kernel_batches import kernel_batches
from orl.common.problem import Progress, SolveResult, Status
from orl.envs.hydrothermal.instance import Dispatch, Floats, HydrothermalInstance
from orl.envs.hydrothermal.plan import ReservoirPlan
from orl.envs.hydrothermal.reach import ReachableMap
from orl.solvers.hydrothermal.heuristics import empty
from orl.solvers.hydrothermal.problem_key import problem_key, same_data
from orl.solvers.hydrothermal.rules import Decide, make_rule, rule_factory
from orl.solvers.hydrothermal.simulation import play, reach_actions, target_actions

REMEMBERED = 8
"""Problems whose rules an object keeps."""
MODES = ("reach", "target")
TIME_OF_MAKING = 0.5  # of a solver's time limit


class RulePolicy:
    """A rule with SB3's ``predict``, reading the kernel state of the env it is built on.

    Args:
        rule: Key of :data:`orl.solvers.hydrothermal.rules.RULES`, or a rule made for the env's problem, so that what
            :func:`orl.solvers.hydrothermal.rules.make_rule` trained once plays many envs.
        env: ``HydrothermalEnv`` (also wrapped), ``HydrothermalVectorEnv``, or an SB3 VecEnv over them, with the action
            mode ``reach`` or ``target``.
        options: Keyword arguments of the rule's factory, if a key is given.

    Rules are deterministic whatever ``deterministic`` says, except ``random``.

    Raises:
        InputError: Another environment or action mode. UnknownNameError: no such rule, no such option.

    >>> import gymnasium
    >>> env = gymnasium.make("orl:orl/Hydrothermal-v0", instance="tri3")
    >>> policy, done = RulePolicy("rolling-horizon", env), False
    >>> observation, info = env.reset(seed=0)
    >>> while not done:
    ...     action, _ = policy.predict(observation)
    ...     observation, reward, terminated, truncated, info = env.step(action)
    ...     done = terminated or truncated
    >>> info["objective"] >= info["bound"]
    True
    """

    def __init__(self, rule: str | Decide, env: Any, **options: Any) -> None:
        self.rule, self.env, self.options = rule, env, options
        self._rules = _RuleMemory(rule, options)
        self._batches, self._single = kernel_batches(env, expected="HydrothermalEnv or HydrothermalVectorEnv")
        for batch in self._batches:
            if (mode := batch.settings.action_mode) not in MODES:
                raise InputError("rules name volumes", field="action_mode", value=mode, expected=" or ".join(MODES))
        self._latest: list[tuple[HydrothermalInstance, Decide] | None] = [None] * len(self._batches)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Floats, Any]:
        """Actions of all copies, float64[N, n] (float64[n] for a single env); the observation is not needed."""
        chosen = []
        for k, batch in enumerate(self._batches):
            instance, decide = self._of_batch(k)
            stage = np.minimum(np.asarray(batch.stage, np.int64), instance.horizon - 1)
            volumes, inflows = np.asarray(batch.volumes, np.float64), np.asarray(batch.inflows, np.float64)
            wanted = decide(stage, volumes, inflows)
            if batch.settings.action_mode == "target":
                chosen.append(target_actions(instance, batch.reach.project(volumes, inflows, wanted).volumes))
            else:
                chosen.append(reach_actions(batch.reach, volumes, inflows, wanted))
        joined = np.concatenate(chosen)
        return (joined[0] if self._single else joined), state

    def _of_batch(self, k: int) -> tuple[HydrothermalInstance, Decide]:
        """An instance of batch k and the rule for it; its copies play scenarios of one problem."""
        instance, known = self._batches[k].instance(0), self._latest[k]
        if known is None or not same_data(known[0], instance):
            known = self._latest[k] = (instance, self._rules.get(instance))
        return known


class RuleSolver:
    """A rule as a solver: the plan that its policy plays on a scenario, which it meets stage by stage.

    Args:
        rule: Key of :data:`orl.solvers.hydrothermal.rules.RULES`, or a rule made for the problem of all scenarios.
        options: Keyword arguments of the rule's factory. A factory with the arguments ``seed`` or ``time_limit`` is
            given the solver's seed, and half its time limit. Scenarios of one problem and equal seeds share a rule,
            whatever their time limits.

    The bound reported is the scenario's own lower bound, valid for its inflows. When the time limit (or Ctrl-C) comes
    before the last stage, ``empty`` plays the rest. Rules need no hint and ignore it.

    >>> from orl.envs.hydrothermal.library import load
    >>> result = RuleSolver("myopic").solve(load("tri3/scenario-0"))
    >>> result.status, result.solution.volumes.shape, result.bound <= result.objective
    ('feasible', (5, 3), True)
    """

    def __init__(self, rule: str | Decide, **options: Any) -> None:
        self.rule, self.options = rule, options
        self._rules = _RuleMemory(rule, options)

    @property
    def name(self) -> str:
        """Key of the rule, with its options; ``rule`` for one without a key."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        name = self.rule if isinstance(self.rule, str) else "rule"
        return f"{name}({options})" if options else name

    def solve(
        self,
        instance: HydrothermalInstance,
        *,
        time_limit: float | None = None,
        seed: int = 0,
        hint: ReservoirPlan | Dispatch | None = None,
    ) -> SolveResult:
        """Play the rule on a scenario. ``feasible`` unless the cost meets the bound.

        ``unknown``, without a plan, where the rule's volumes force more power than an instance without ``surplus`` can
        take in some stage; whether other volumes do not is not looked into.

        Raises:
            InputError: The instance has no columns.
        """
        begin = time.perf_counter()
        if instance.columns is None:
            raise InputError(
                "a rule is played on given inflows",
                source=instance.name,
                field="columns",
                expected="a scenario: NAME/scenario-SEED, instance.scenario(seed) or instance.scenario_of(columns)",
            )
        extra: dict[str, Any] = {"seed": seed}
        if time_limit is not None:
            extra["time_limit"] = TIME_OF_MAKING * time_limit
        decide = quick = empty(instance)
        try:
            decide = self._rules.get(instance, **extra)
        except KeyboardInterrupt:
            time_limit = 0.0
        reach, inflows = ReachableMap(instance), instance.path_inflows(instance.columns)
        volumes = np.tile(instance.initial_volume, (instance.horizon + 1, 1))
        with minding_ctrl_c() as pressed:
            for t in range(instance.horizon):
                if pressed() or (time_limit is not None and time.perf_counter() - begin > time_limit):
                    decide = quick
                volumes[t + 1] = play(reach, decide, np.array([t]), volumes[t][None], inflows[t][None])[0]
        plan = ReservoirPlan(instance.columns, volumes)
        objective, bound = instance.check(plan).objective, float(instance.lower_bound())
        seconds = time.perf_counter() - begin
        if objective is None:
            return SolveResult("unknown", bound=bound, seconds=seconds)
        bound = min(bound, objective)
        status: Status = "optimal" if objective <= bound else "feasible"
        return SolveResult(status, plan, objective, bound, seconds=seconds, log=(Progress(seconds, objective, bound),))


class _RuleMemory:
    """Rules of the last few problems; scenarios of one problem share a rule."""

    def __init__(self, rule: str | Decide, options: dict[str, Any]) -> None:
        self._rule, self._options = rule, options
        self._accepted: list[str] = []
        if isinstance(rule, str):
            self._accepted = [name for name in inspect.signature(rule_factory(rule)).parameters if name != "instance"]
        for name in options:
            if name not in self._accepted:
                raise UnknownNameError(f"option of {rule}", name, self._accepted)
        self._made: dict[tuple[Any, ...], Decide] = {}

    def get(self, instance: HydrothermalInstance, **extra: Any) -> Decide:
        """The rule for an instance; of ``extra`` the factory gets what it asks for and the options do not set."""
        if not isinstance(self._rule, str):
            return self._rule
        given = {k: v for k, v in extra.items() if k in self._accepted and k not in self._options}
        key = problem_key(instance), given.get("seed")
        if key not in self._made:
            if len(self._made) >= REMEMBERED:
                del self._made[next(iter(self._made))]
            self._made[key] = make_rule(self._rule, instance, **self._options, **given)
        return self._made[key]
