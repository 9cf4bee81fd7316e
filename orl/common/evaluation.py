"""``evaluate``: learned policies, hand-written policies and solvers in one table, every solution checked.

Each row is one episode (policies) or one solve (solvers) of one instance. The objective is recomputed by the instance's
own checker; a solution that fails has no objective and its violations are named.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from orl.common.action_masks import is_legal
from orl.common.errors import InputError
from orl.common.interrupts import CtrlC, noting_ctrl_c
from orl.common.problem import relative_gap

if TYPE_CHECKING:
    import pandas

MASKS = "action_masks"


@dataclass(frozen=True)
class Row:
    """One row of the table; None where a figure does not exist.

    Attributes:
        subject: Name of the policy or solver.
        instance: Name of the instance, or of the env when it has none.
        episode: 0, 1, ... for each instance.
        seed: Seed of the episode or solve.
        return_: Undiscounted return (column ``return``); None for solvers.
        objective: Minimised objective of the checked solution.
        bound: Lower bound on the objective. Solvers: the larger of what they report and the instance's own cheap bound.
            Policies: what the env reports of the episode (where demand is random it is about the demand that came), the
            instance's own bound if there is none.
        gap: ``(objective - bound) / |bound|``.
        best_known: Best known objective of a public instance.
        gap_to_best_known: ``(objective - best_known) / |best_known|``.
        seconds, cpu_seconds: Wall and processor time of the decisions, env steps included; all attempts.
        status: ``optimal``, ``feasible``, ``infeasible`` or ``unknown``; without a solution to check, ``terminated`` or
            ``truncated``.
        checked: True: the instance accepts the solution; False: it does not; None: there was nothing to check.
        violations: What the checker or the comparison of figures found, joined by semicolons.
        illegal_actions: Actions of the episode that the mask forbade; None where there is no mask.
        interrupted: Ctrl-C cut this row short, the last of its table: a solver's best so far; nothing of a policy.
    """

    subject: str
    instance: str
    episode: int
    seed: int
    return_: float | None = None
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    best_known: float | None = None
    gap_to_best_known: float | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    status: str = "unknown"
    checked: bool | None = None
    violations: str = ""
    illegal_actions: int | None = None
    interrupted: bool = False


COLUMNS = tuple(name.rstrip("_") for name in Row.__dataclass_fields__)
FIGURES = ("return", "objective", "bound", "gap", "best_known", "gap_to_best_known", "seconds", "cpu_seconds")


def evaluate(
    subject: Any,
    problems: Any,
    *,
    env_id: str | None = None,
    n_episodes: int = 1,
    seed: int = 0,
    time_limit: float | None = None,
    deterministic: bool = True,
    best_of: int = 1,
    env_kwargs: dict[str, Any] | None = None,
    name: str | None = None,
    progress: bool = False,
    sampling_seed: int | None = None,
    on_row: Callable[[Row, Any, Any], None] | None = None,
) -> pandas.DataFrame:
    """Run a policy or a solver on problems and tabulate return, objective, bound, gap and time (columns: :class:`Row`).

    Episode e of an instance uses seed ``seed + e``; env, solver and sampled actions depend on it alone. Observations
    are normalised with the model's own VecNormalize statistics if it was trained with some. Policies whose ``predict``
    has the keyword ``action_masks`` are given the masks.

    Ctrl-C ends the evaluation but loses no row: the table comes back, its last row is the one that was cut short and is
    marked in the column ``interrupted``. A caller's own loop has to look there, or at :func:`noting_ctrl_c`.

    Args:
        subject: A Solver; a policy with SB3's ``predict`` (model, rule built on the env that is evaluated); or a
            callable that builds a policy on an env, e.g. ``functools.partial(RulePolicy, "spt")``.
        problems: One or a list of: instances; for policies also envs, env ids and (with ``env_id``) instance names.
        env_id: Env in which a policy plays instances: made with ``instance=...``.
        n_episodes: Rows for each problem.
        time_limit: Wall seconds a row: a solver's limit; further attempts of ``best_of`` start only within it.
        deterministic: Whether a policy acts greedily.
        best_of: Attempts a row, the best is kept: a solver with other seeds; a policy with sampled actions after a
            first attempt that obeys ``deterministic``.
        env_kwargs: Further keyword arguments of envs made here. Illegal actions are counted, not raised, unless
            ``illegal`` says otherwise.
        name: Name of the subject in the table.
        progress: Show a progress bar.
        sampling_seed: The actions that a policy samples in episode e depend on ``sampling_seed + e`` instead of
            ``seed + e``: policies can then draw differently in equal episodes of the env.
        on_row: Called after each row that was not cut short with the row, its instance and its solution, both None
            where there is none. What it raises ends the evaluation.

    Raises:
        InputError: A problem that does not go with the subject; ``n_episodes`` or ``best_of`` below 1.

    Warns:
        UserWarning: A masked env is played by a policy that takes no masks.

    >>> class Left:
    ...     def predict(self, observation, state=None, episode_start=None, deterministic=False):
    ...         return 0, state
    >>> table = evaluate(Left(), "CartPole-v1", n_episodes=2)
    >>> [bool(r < 15) for r in table["return"]]
    [True, True]
    """
    import pandas
    from tqdm import tqdm

    for field, value in (("n_episodes", n_episodes), ("best_of", best_of)):
        if value < 1:
            raise InputError("too small", field=field, value=value, expected=">= 1")
    listed = list(problems) if isinstance(problems, list | tuple) else [problems]
    label = name or _label(subject)
    rows: list[Row] = []
    with noting_ctrl_c() as ctrl_c, tqdm(total=len(listed) * n_episodes, disable=not progress, desc=label) as bar:
        sampling = seed if sampling_seed is None else sampling_seed
        plan = _Plan(label, n_episodes, seed, sampling, time_limit, deterministic, best_of, ctrl_c)
        for problem in listed:
            begin, done = time.perf_counter(), 0
            try:
                for row, instance, solution in _rows_of(subject, problem, plan, env_id, env_kwargs or {}):
                    rows.append(replace(row, interrupted=ctrl_c.pressed))
                    bar.update()
                    if on_row is not None and not ctrl_c.pressed:
                        on_row(row, instance, solution)
                    begin, done = time.perf_counter(), done + 1
                    if ctrl_c.pressed:
                        break
            except KeyboardInterrupt:
                ctrl_c.pressed = True
                if done < n_episodes:
                    rows.append(_cut_short(problem, plan, done, time.perf_counter() - begin))
            if ctrl_c.pressed:
                break
    table = pandas.DataFrame([[*vars(row).values()] for row in rows], columns=list(COLUMNS))
    return table.astype(dict.fromkeys(FIGURES, "float64") | {"checked": "boolean", "illegal_actions": "Int64"})


@dataclass(frozen=True)
class _Plan:
    label: str
    n_episodes: int
    seed: int
    sampling_seed: int
    time_limit: float | None
    deterministic: bool
    best_of: int
    ctrl_c: CtrlC


_Priced = tuple[Row, Any, Any]
"""A row with its instance and its solution."""


def _rows_of(
    subject: Any, problem: Any, plan: _Plan, env_id: str | None, env_kwargs: dict[str, Any]
) -> Iterator[_Priced]:
    if hasattr(subject, "solve"):
        _require_instance(problem)
        for episode in range(plan.n_episodes):
            yield _solve(subject, problem, plan, episode)
        return
    env, ours = _env_of(problem, env_id, env_kwargs)
    try:
        policy = _policy_on(subject, env)
        for episode in range(plan.n_episodes):
            yield _play(policy, env, plan, episode)
    finally:
        if ours:
            env.close()


def _cut_short(problem: Any, plan: _Plan, episode: int, seconds: float) -> Row:
    """The row of an episode that Ctrl-C did not let end."""
    name = str(getattr(problem, "name", problem))
    if isinstance(problem, gymnasium.Env):
        own = problem.get_wrapper_attr("instance") if problem.has_wrapper_attr("instance") else None
        name = _problem_name(own, problem)
    return Row(plan.label, name, episode, plan.seed + episode, seconds=seconds, interrupted=True)


def _label(subject: Any) -> str:
    if isinstance(getattr(subject, "name", None), str):
        return str(subject.name)
    if inspect.isfunction(subject) or inspect.isclass(subject):
        return subject.__name__
    if hasattr(subject, "func"):
        return " ".join([subject.func.__name__, *map(str, subject.args), *map(str, subject.keywords.values())])
    return type(subject).__name__


# ---- solvers -------------------------------------------------------------------------------------------------------
def _require_instance(problem: Any) -> None:
    if not (hasattr(problem, "check") and hasattr(problem, "lower_bound")):
        raise InputError(
            "a solver needs instances",
            field="problems",
            value=problem,
            expected="objects with check() and lower_bound(); load names with the domain's library",
        )


def _solve(solver: Any, instance: Any, plan: _Plan, episode: int) -> _Priced:
    started, cpu = time.perf_counter(), time.process_time()
    seed, best = plan.seed + episode, None
    bounds = [float(instance.lower_bound())]
    for attempt in range(plan.best_of):
        left = None if plan.time_limit is None else plan.time_limit - (time.perf_counter() - started)
        if attempt and (plan.ctrl_c.pressed or (left is not None and left <= 0)):
            break
        # Attempts of one row are seeds far from those of the other rows.
        result = solver.solve(instance, time_limit=left, seed=seed + 1_000_003 * attempt)
        if result.bound is not None:
            bounds.append(float(result.bound))
        if best is None or _better(result.objective, best.objective):
            best = result
        if result.status in ("optimal", "infeasible"):
            break
    assert best is not None
    row = Row(
        subject=plan.label,
        instance=str(instance.name),
        episode=episode,
        seed=seed,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        status=best.status,
    )
    return _price(row, instance, best.solution, best.objective, max(bounds)), instance, best.solution


def _better(objective: float | None, than: float | None) -> bool:
    return objective is not None and (than is None or objective < than)


# ---- policies ------------------------------------------------------------------------------------------------------
def _env_of(problem: Any, env_id: str | None, env_kwargs: dict[str, Any]) -> tuple[gymnasium.Env[Any, Any], bool]:
    """The env that plays a problem, and whether it was made here."""
    if isinstance(problem, gymnasium.Env):
        if env_kwargs:
            raise InputError("an env that is already made takes no keyword arguments", field="env_kwargs")
        return problem, False
    if isinstance(problem, str) and env_id is None:
        return make_env(problem, env_kwargs), True
    if env_id is None:
        expected = "an env or env id, or the keyword env_id beside instances, e.g. env_id='orl/JobShop-v0'"
        raise InputError("a policy needs an env", field="problems", value=problem, expected=expected)
    return make_env(env_id, {**env_kwargs, "instance": problem}), True


def make_env(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The env in which a policy is evaluated: ``gym.make(env_id, **kwargs)``.

    If the env knows the keyword ``illegal``, its default here is ``"count"``.
    """
    if "illegal" in kwargs:
        return gymnasium.make(env_id, **kwargs)
    module, separator, plain = env_id.rpartition(":")
    if separator:
        importlib.import_module(module)
    entry_point: Any = gymnasium.spec(plain).entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    if "illegal" in inspect.signature(creator).parameters:
        kwargs = {**kwargs, "illegal": "count"}
    return gymnasium.make(env_id, **kwargs)


def _policy_on(subject: Any, env: gymnasium.Env[Any, Any]) -> Any:
    """The policy that plays ``env``; warns if it will not see the masks."""
    if not hasattr(subject, "predict") or inspect.isclass(subject):
        if not callable(subject):
            expected = "solve(), predict(), or a callable that builds a policy on an env"
            raise InputError("cannot be evaluated", field="subject", value=subject, expected=expected)
        return subject(env)
    own = getattr(subject, "env", None)
    if own is not None and not hasattr(subject, "learn"):
        if getattr(own, "unwrapped", own) is not env.unwrapped:
            raise InputError(
                "a rule built on one env cannot play another",
                field="subject",
                value=subject,
                expected="evaluate it on its own env, or pass a callable that builds it, e.g. "
                "functools.partial(RulePolicy, 'spt')",
            )
        return subject
    if env.has_wrapper_attr(MASKS) and not _takes_masks(subject):
        warnings.warn(
            f"{type(subject).__name__}.predict takes no action_masks, but the env masks actions: illegal ones will be "
            "made (see the column illegal_actions). Train with MaskablePPO or another algorithm that takes masks.",
            UserWarning,
            stacklevel=4,
        )
    return subject


def _takes_masks(policy: Any) -> bool:
    parameters = inspect.signature(policy.predict).parameters
    return MASKS in parameters


@dataclass(frozen=True)
class _Episode:
    return_: float
    objective: float | None
    terminated: bool
    illegal_actions: int | None
    info: dict[str, Any]
    instance: Any


def _play(policy: Any, env: gymnasium.Env[Any, Any], plan: _Plan, episode: int) -> _Priced:
    started, cpu = time.perf_counter(), time.process_time()
    seed = plan.seed + episode
    best: _Episode | None = None
    with _seeded(plan.sampling_seed + episode):
        for attempt in range(plan.best_of):
            if attempt and plan.time_limit is not None and time.perf_counter() - started >= plan.time_limit:
                break
            played = _rollout(policy, env, seed, plan.deterministic and attempt == 0)
            if best is None or _better_episode(played, best):
                best = played
    assert best is not None
    row = Row(
        subject=plan.label,
        instance=_problem_name(best.instance, env),
        episode=episode,
        seed=seed,
        return_=best.return_,
        objective=best.objective,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        status="terminated" if best.terminated else "truncated",
        illegal_actions=best.illegal_actions,
    )
    if best.instance is None:
        return row, None, None
    reported, solution = best.info.get("bound"), best.info.get("solution")
    bound = float(best.instance.lower_bound() if reported is None else reported)
    return _price(row, best.instance, solution, best.objective, bound), best.instance, solution


def _better_episode(a: _Episode, b: _Episode) -> bool:
    if a.objective is not None or b.objective is not None:
        return _better(a.objective, b.objective)
    return a.return_ > b.return_


def _rollout(policy: Any, env: gymnasium.Env[Any, Any], seed: int, deterministic: bool) -> _Episode:
    masked = env.has_wrapper_attr(MASKS)
    gives_masks = masked and _takes_masks(policy)
    normalise = _normalisation(policy)
    observation, info = env.reset(seed=seed)
    state, first = None, np.ones(1, np.bool_)
    total, illegal = 0.0, 0
    terminated = truncated = False
    while not (terminated or truncated):
        # The mask is read also for policies that ignore it: that is how their illegal actions are counted.
        mask = env.get_wrapper_attr(MASKS)() if masked else None
        extra = {MASKS: mask} if gives_masks else {}
        action, state = policy.predict(
            normalise(observation), state=state, episode_start=first, deterministic=deterministic, **extra
        )
        if mask is not None:
            illegal += not is_legal(env.action_space, mask, action)
        if isinstance(env.action_space, gymnasium.spaces.Discrete):
            action = int(np.asarray(action).item())
        observation, reward, terminated, truncated, info = env.step(action)
        total += float(reward)
        first[:] = False
    objective = info.get("objective")
    return _Episode(
        return_=total,
        objective=None if objective is None else float(objective),
        terminated=bool(terminated),
        illegal_actions=illegal if masked else None,
        info=info,
        instance=env.get_wrapper_attr("instance") if env.has_wrapper_attr("instance") else None,
    )


def _normalisation(policy: Any) -> Callable[[Any], Any]:
    """Observation normalisation that an SB3 model was trained with, or nothing."""
    getter = getattr(policy, "get_vec_normalize_env", None)
    statistics = getter() if getter is not None else None
    return (lambda observation: observation) if statistics is None else statistics.normalize_obs


def _problem_name(instance: Any, env: gymnasium.Env[Any, Any]) -> str:
    if instance is not None:
        return str(instance.name)
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Sampling policies draw from the global generators of numpy and torch: seed them, and put them back afterwards.

    A policy that samples with torch has imported it, so ``sys.modules`` tells whether there is anything to do.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002
    torch: Any = sys.modules.get("torch")
    torch_state = None if torch is None else torch.random.get_rng_state()
    np.random.seed(seed % 2**32)  # noqa: NPY002
    if torch is not None:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        if torch is not None:
            torch.random.set_rng_state(torch_state)


# ---- pricing -------------------------------------------------------------------------------------------------------
def _price(row: Row, instance: Any, solution: Any, reported: float | None, bound: float) -> Row:
    """Check the solution and fill in objective, bound, gaps, status and violations."""
    known = instance.best_known()
    values = {**vars(row), "best_known": None if known is None else float(known.upper)}
    violations: list[str] = []
    if known is not None and bound > known.upper + _slack(known.upper):
        violations.append(f"bound {bound:g} above the best known objective {known.upper:g}")
        bound = float(instance.lower_bound())
    values["bound"] = bound
    if solution is None:
        values.update(objective=None, checked=None)
        if row.status in ("terminated", "truncated"):
            values["status"] = "unknown"
    else:
        check = instance.check(solution)
        violations.extend(check.violations)
        values["checked"] = bool(check.feasible)
        if not check.feasible or check.objective is None:
            values.update(objective=None, status="unknown")
        else:
            objective = float(check.objective)
            if reported is None or abs(reported - objective) > _slack(objective):
                violations.append(f"reported objective {reported}, recomputed {objective:g}")
            if bound > objective + _slack(objective):
                violations.append(f"bound {bound:g} above the objective {objective:g}")
            values.update(objective=objective, gap=relative_gap(objective, bound))
            if values["best_known"] is not None:
                values["gap_to_best_known"] = relative_gap(objective, values["best_known"])
            if row.status in ("terminated", "truncated"):
                values["status"] = "optimal" if objective <= bound + _slack(objective) else "feasible"
    values["violations"] = "; ".join(violations)
    return Row(**values)


def _slack(value: float) -> float:
    """Rounding allowed when two figures of one quantity are compared."""
    return 1e-6 * max(1.0, abs(value))
