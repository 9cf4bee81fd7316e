"""``check_post_decision_env``: whether anyone's env keeps the post-decision protocol, as a few small experiments."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.common.action_masks import random_legal_actions
from orl.common.batched_values import copy_tree, equal_trees
from orl.common.protocols import PostDecisionModel

TOLERANCE = 1e-6
"""Relative to the reward where that is above 1."""
LARGEST_Z = 6.0
"""One step alone reaches 4 at most; a normal variable is beyond 6 twice in a thousand million times."""
DRAWS = 16
REPEATS = 20
ACTIONS = 8
SHARED_SEEDS = 3


class PostDecisionError(ValueError):
    """An env breaks the post-decision protocol; the message names the rule, what was seen and how to mend it."""


def check_post_decision_env(env: gymnasium.Env[Any, Any], n_steps: int = 200, seed: int = 0) -> tuple[str, ...]:
    """Play ``env`` with random legal actions and hold every rule against it; the first one broken raises.

    (a) *spaces*: after each step ``post_decision_observation`` lies in ``post_decision_space``, which has the layout of
    the observation space; it is a fresh array, and a reset leaves it alone.
    (b) *rewards*: ``reward_deterministic + reward_stochastic`` is the reward, to 1e-6.

    The other rules need the pure functions of :class:`orl.common.protocols.PostDecisionModel`:

    (c) *decisions*: ``post_decision`` gives the same answer 20 times, whatever is drawn in between, mutates nothing,
    and is what ``step`` reports.
    (d) *Markov*: states that look the same after the decision have the same future: under shared seeds
    ``sample_exogenous`` gives the same next observation and reward, whichever state and action led there.
    (e) *draws*: the outcomes of ``step`` and of ``sample_exogenous`` have the same distribution. The env's own noise
    cannot be shared, so this is a test: the step's reward, next observation and end, and their squares, against 16
    draws, summed over all steps, must not be 6 standard errors off.

    Args:
        env: A single env, wrapped or not; it is stepped and reset many times and stays open.
        n_steps: Steps to play; choose it so that a few episodes end.
        seed: Seed of resets, actions and draws.

    Returns:
        Names of the rules that were checked; ``("spaces", "rewards")`` for an env without a model. ``"markov"`` is
        missing where no two different decisions led to the same post-decision observation.

    Raises:
        PostDecisionError: A rule is broken.

    >>> check_post_decision_env(gymnasium.make("orl:orl/PostDecisionFrozenLake-v0"))
    ('spaces', 'rewards', 'decisions', 'markov', 'draws')
    """
    owner = _owner(env)
    space = owner.post_decision_space
    if _layout(space) != _layout(env.observation_space):
        advice = "It may have other bounds, but needs the same keys, shapes and dtypes (VecNormalize treats both alike)"
        raise _fail(env, f"post_decision_space {space} has another layout than {env.observation_space}", advice)
    model = owner if hasattr(owner, "sample_exogenous") else None
    if model is not None and (missing := missing_model_methods(model)):
        advice = "A model has all methods of orl.common.protocols.PostDecisionModel"
        raise _fail(env, f"it has sample_exogenous, but no {missing[0]}", advice)
    rng = np.random.default_rng(seed)
    meetings = _Meetings(env)
    draws = _Draws(env)
    env.reset(seed=seed)
    held: Any = None
    for _ in range(n_steps):
        action = _random_action(env, rng)
        predicted = None if model is None else _check_decision(env, model, action, rng)
        if model is not None:
            meetings.explore(model, _some_actions(env, rng), int(rng.integers(2**31)))
        outcome = env.step(action)
        _, reward, terminated, truncated, _ = outcome
        post = owner.post_decision_observation
        _check_step(env, owner, reward, held)
        if model is not None and predicted is not None:
            _check_reported(env, owner, model, predicted)
            draws.add(model, predicted[0], outcome, float(owner.reward_stochastic), rng)
        held = (post, copy_tree(post))
        if terminated or truncated:
            env.reset()
            if not equal_trees(owner.post_decision_observation, held[1]):
                raise _fail(env, "a reset changed post_decision_observation", "Leave it to the last step")
    if model is None:
        return ("spaces", "rewards")
    draws.judge()
    return ("spaces", "rewards", "decisions", *(("markov",) if meetings.count else ()), "draws")


def missing_model_methods(owner: Any) -> list[str]:
    """The methods of :class:`orl.common.protocols.PostDecisionModel` that ``owner`` lacks."""
    return [name for name in vars(PostDecisionModel) if not name.startswith("_") and not hasattr(owner, name)]


def _fail(env: Any, problem: str, advice: str) -> PostDecisionError:
    return PostDecisionError(f"{env}: {problem}. {advice}.")


def _owner(env: gymnasium.Env[Any, Any]) -> Any:
    """The outermost layer that has the post-decision data."""
    layer: Any = env
    while not hasattr(layer, "post_decision_space"):
        if not isinstance(layer, gymnasium.Wrapper):
            advice = "Set it in the constructor (see orl.common.protocols.PostDecision), or use FunctionalPostDecision"
            raise _fail(env, "it has no attribute post_decision_space", advice)
        layer = layer.env
    return layer


def _layout(space: spaces.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _layout(part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map(_layout, space.spaces))
    return space.shape, space.dtype


def _random_action(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> Any:
    if env.has_wrapper_attr("action_masks"):
        masks = np.asarray(env.get_wrapper_attr("action_masks")())[None]
        return random_legal_actions(env.action_space, masks, rng)[0]
    env.action_space.seed(int(rng.integers(2**31)))
    return env.action_space.sample()


def _some_actions(env: gymnasium.Env[Any, Any], rng: np.random.Generator) -> list[Any]:
    return [_random_action(env, rng) for _ in range(ACTIONS)]


# ---- (a) and (b) ----------------------------------------------------------------------------------------------------
def _check_step(env: Any, owner: Any, reward: Any, held: Any) -> None:
    for name in ("post_decision_observation", "reward_deterministic", "reward_stochastic"):
        if getattr(owner, name, None) is None:
            raise _fail(env, f"after a step there is no {name}", "Set it at every step, also at the last of an episode")
    post = owner.post_decision_observation
    if post not in owner.post_decision_space:
        advice = "Widen the space (it is not the observation space's twin: stock may exceed its cap, for example)"
        raise _fail(env, f"post_decision_observation {post} lies outside {owner.post_decision_space}", advice)
    if held is not None and not equal_trees(held[0], held[1]):
        raise _fail(env, "a step overwrote the post_decision_observation of the step before", "Make a fresh array")
    shares = float(owner.reward_deterministic), float(owner.reward_stochastic)
    if not abs(sum(shares) - float(reward)) <= TOLERANCE * max(1.0, abs(float(reward))):
        advice = "reward_deterministic and reward_stochastic must add up to it"
        raise _fail(env, f"the reward is {float(reward)}, its shares are {shares[0]} and {shares[1]}", advice)


# ---- (c) ------------------------------------------------------------------------------------------------------------
def _check_decision(env: Any, model: Any, action: Any, rng: np.random.Generator) -> tuple[Any, float, Any]:
    """Post-decision state, deterministic reward and observation of (current state, action), all as pure functions."""
    state = model.current_state()
    before, action_before = copy.deepcopy(state), copy.deepcopy(action)
    post_state, reward = model.post_decision(state, action)
    observation = copy_tree(model.observe_post_decision(post_state))
    post_before = copy.deepcopy(post_state)
    for _ in range(REPEATS):
        model.sample_exogenous(post_state, np.random.default_rng(int(rng.integers(2**31))))
        again, reward_again = model.post_decision(state, action)
        if reward_again != reward or not equal_trees(model.observe_post_decision(again), observation):
            advice = "Everything random belongs into sample_exogenous"
            raise _fail(env, f"post_decision gave two answers for state {state} and action {action}", advice)
    current = model.current_state()
    for name, now, then in (
        ("the state", state, before),
        ("the action", action, action_before),
        ("the post-decision state", post_state, post_before),
        ("the env's own state", current, before),
    ):
        if not _same(now, then):
            raise _fail(env, f"post_decision or sample_exogenous changed {name}", "They must be pure functions")
    return post_state, float(reward), observation


def _same(a: Any, b: Any) -> bool:
    """Whether two states are equal: arrays, numbers, tuples, lists, dicts, or objects that compare by value."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return equal_trees(np.asarray(a), np.asarray(b))
    return bool(a == b)


def _check_reported(env: Any, owner: Any, model: Any, predicted: tuple[Any, float, Any]) -> None:
    _, reward, observation = predicted
    if not equal_trees(owner.post_decision_observation, observation):
        advice = "observe_post_decision(post_decision(state, action)) must be what step reports"
        found = f"{owner.post_decision_observation} instead of {observation}"
        raise _fail(env, f"step reports the post_decision_observation {found}", advice)
    if abs(float(owner.reward_deterministic) - reward) > TOLERANCE * max(1.0, abs(reward)):
        found = f"{float(owner.reward_deterministic)} instead of {reward}"
        raise _fail(env, f"step reports the reward_deterministic {found}", "It must be what post_decision gives")


# ---- (d) ------------------------------------------------------------------------------------------------------------
class _Meetings:
    """Decisions that led to the same post-decision observation from different states or by different actions."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.count = 0
        self._first: dict[bytes, tuple[Any, Any, int, list[tuple[Any, float]]]] = {}

    def explore(self, model: Any, actions: list[Any], seed: int) -> None:
        """Try several actions in the current state and compare with what led to the same place before."""
        state = model.current_state()
        for action in actions:
            post_state, _ = model.post_decision(state, action)
            key = _flat(model.observe_post_decision(post_state)).tobytes()
            if key not in self._first:
                self._first[key] = state, action, seed, self._draw(model, post_state, seed)
                continue
            other_state, other_action, shared, futures = self._first[key]
            if _same(other_state, state) and _same(other_action, action):
                continue
            self.count += 1
            for one, two in zip(futures, self._draw(model, post_state, shared), strict=True):
                if not equal_trees(one[0], two[0]) or abs(one[1] - two[1]) > TOLERANCE * max(1.0, abs(one[1])):
                    raise _fail(
                        self.env,
                        f"action {other_action} in state {other_state} and action {action} in state {state} have the "
                        f"same post-decision observation, but under one seed their futures differ: {one} and {two}",
                        "Put everything that the future depends on into the post-decision observation",
                    )

    @staticmethod
    def _draw(model: Any, post_state: Any, seed: int) -> list[tuple[Any, float]]:
        drawn = [model.sample_exogenous(post_state, np.random.default_rng([seed, k])) for k in range(SHARED_SEEDS)]
        return [(copy_tree(model.observe(state)), float(reward)) for state, reward in drawn]


def _flat(observation: Any) -> npt.NDArray[np.float64]:
    """All numbers of an observation in one float64 array."""
    if isinstance(observation, Mapping):
        return np.concatenate([_flat(observation[key]) for key in sorted(observation)])
    if isinstance(observation, tuple):
        return np.concatenate([_flat(part) for part in observation])
    return np.asarray(observation, np.float64).ravel()


# ---- (e) ------------------------------------------------------------------------------------------------------------
class _Draws:
    """Compares what happened in each step with draws from the same post-decision state.

    If both have one distribution, what happened is any member of the pool of 1 + 16 outcomes with equal probability:
    its expected distance from the pool's mean is zero and its variance that of the pool. Sums of such distances over
    steps are martingales.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self._distance: Any = 0.0
        self._variance: Any = 0.0

    def add(
        self, model: Any, post_state: Any, outcome: Any, reward_stochastic: float, rng: np.random.Generator
    ) -> None:
        observation, _, terminated, _, _ = outcome
        pool = [self._features(observation, reward_stochastic, bool(terminated))]
        for _ in range(DRAWS):
            state, reward = model.sample_exogenous(post_state, np.random.default_rng(int(rng.integers(2**31))))
            pool.append(self._features(model.observe(state), float(reward), bool(model.is_terminal(state))))
        values = np.array(pool)
        self._distance = self._distance + values[0] - values.mean(0)
        self._variance = self._variance + values.var(0)

    @staticmethod
    def _features(observation: Any, reward: float, terminated: bool) -> npt.NDArray[np.float64]:
        values = np.concatenate([[reward, float(terminated)], _flat(observation)])
        return np.concatenate([values, values**2])

    def judge(self) -> None:
        spread = np.sqrt(np.maximum(self._variance, 0.0))
        noise = 1e-9 * (1.0 + np.abs(self._distance))
        z = np.where(spread > noise, np.abs(self._distance) / np.maximum(spread, noise), 0.0)
        worst = int(np.argmax(z))
        if z[worst] > LARGEST_Z:
            number = worst % (len(z) // 2)
            what = (
                ("the stochastic reward", "the end of episodes")[number]
                if number < 2
                else f"next observation, entry {number - 2}"
            )
            power = "" if worst == number else " (its square)"
            raise _fail(
                self.env,
                f"steps and draws of sample_exogenous disagree about {what}{power}: {z[worst]:.1f} standard errors",
                "step must be post_decision followed by one draw of sample_exogenous",
            )
