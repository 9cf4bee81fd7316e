"""The post-decision protocol in batches: what a step's decision led to, before the exogenous randomness came.

Envs offer :class:`orl.common.protocols.PostDecision`; algorithms read it here, from any stack of vector envs, without
knowing which env it is:

- :func:`post_decision_reader`: post-decision observations and the two shares of the reward of the last step;
- :func:`exogenous_sampler`: further draws of the randomness (:class:`orl.common.protocols.ExogenousSampler`);
- :class:`FunctionalPostDecision`: makes a post-decision env of anyone's env and one pure function;
- :func:`check_post_decision_env`: whether an env keeps the protocol (``orl.common.post_decision_checker``).

**Automatic resets.** The side channels describe steps and a reset leaves them alone. So after the last step of an
episode they hold that step's own values, although the copy shows the first observation of the next episode already.
Under Gymnasium's NEXT_STEP mode the step after an end only resets: there too they still hold the values of the last
real step, with ``infos="full"`` the mask ``infos["_post_decision_observation"]`` is False there, and such rows have to
be left out of training data. (Behind SB3's interface no such step exists.)

Source of the notion: W. B. Powell, *Approximate Dynamic Programming*, 2nd edition, Wiley 2011, section 4.6.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from orl.common.batched_values import copy_tree
from orl.common.errors import InputError
from orl.common.post_decision_checker import PostDecisionError, check_post_decision_env, missing_model_methods
from orl.common.venv_layers import WrapperStack, batch_with, copies, owner_of, refuse_transforms, unwrap

__all__ = [
    "KEYS",
    "ExogenousDraws",
    "FunctionalPostDecision",
    "PostDecisionError",
    "PostDecisionStep",
    "check_post_decision_env",
    "exogenous_sampler",
    "has_post_decision",
    "post_decision_reader",
]

SPACE = "post_decision_space"
KEYS = ("post_decision_observation", "reward_deterministic", "reward_stochastic")
"""Names of the side-channel attributes, and of the info keys."""
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class PostDecisionStep(NamedTuple):
    """What the last step of a batch decided and what came of it.

    Attributes:
        post_observations: ``[N, ...]`` in the env's dtype (float32 behind VecNormalize), or a dict of such arrays.
        reward_deterministic: float64[N], the share of the reward that the decision alone settles.
        reward_stochastic: float64[N], the rest. The two add up to the reward.
    """

    post_observations: Any
    reward_deterministic: Floats
    reward_stochastic: Floats


Reader = Callable[[Any], PostDecisionStep]


# ---- reading --------------------------------------------------------------------------------------------------------
def has_post_decision(venv: Any, infos: Any = None) -> bool:
    """Whether :func:`post_decision_reader` can read that batch: attributes, or keys in the ``infos`` of a step.

    >>> from orl.common.vec_env import make_vec
    >>> has_post_decision(make_vec("CartPole-v1", 2))
    False
    """
    _, base = unwrap(venv)
    if _attribute_source(base) is not None:
        return True
    if isinstance(infos, Mapping):
        return all(key in infos for key in KEYS)
    return bool(infos) and all(key in info for info in infos for key in KEYS)


def post_decision_reader(venv: Any) -> Reader:
    """A function that gives the :class:`PostDecisionStep` of the last ``venv.step``, from the ``infos`` it returned.

    It reads side-channel attributes of a native batch; else those of the copies of DummyVecEnv, LeanVecEnv,
    SubprocVecEnv, SyncVectorEnv; else it stacks the info keys :data:`KEYS`. ``venv`` is an SB3 VecEnv with any wrappers
    (or a Gymnasium VectorEnv, whose ``infos`` is a dict). A VecNormalize in the stack applies: post-decision
    observations are normalised with the running statistics of the observations, which they never update; both shares of
    the reward are divided by ``sqrt(ret_rms.var + epsilon)``, the divisor of that step's reward. They are not clipped,
    so that they add up to the normalised reward wherever that was not clipped either.

    Make a new reader when the stack changes.

    Raises:
        InputError: A wrapper transforms observations or rewards outside the post-decision data in a way that cannot be
            followed. The reader itself raises it where no data is found.

    >>> import orl
    >>> venv = orl.make_vec("orl:orl/PostDecisionFrozenLake-v0", 2, seed=0)
    >>> read = post_decision_reader(venv)
    >>> _ = venv.reset()
    >>> observations, rewards, dones, infos = venv.step(np.array([1, 2]))
    >>> step = read(infos)
    >>> step.post_observations.shape
    (2, 100)
    >>> bool(np.allclose(step.reward_deterministic + step.reward_stochastic, rewards))
    True
    """
    wrappers, base = unwrap(venv)
    stack = WrapperStack(wrappers)
    read = _attribute_source(base)
    if read is None:
        read = _from_infos(base)

    def reader(infos: Any) -> PostDecisionStep:
        post, deterministic, stochastic = read(infos)
        return PostDecisionStep(
            stack.observations(post, 1), stack.rewards(_floats(deterministic)), stack.rewards(_floats(stochastic))
        )

    return reader


def _floats(values: Any) -> Floats:
    return np.array(values, np.float64)


Source = Callable[[Any], tuple[Any, Any, Any]]


def _attribute_source(base: Any) -> Source | None:
    """How to read the attributes of a batch or of its copies; None if there are none."""
    batch = batch_with(base, SPACE)
    if batch is not None:
        return lambda infos: _required(batch, copy=True)
    envs = copies(base)
    if envs is not None:
        owners = [owner_of(env, SPACE) for env in envs]
        if any(owner is None for owner in owners):
            return None
        for env, owner in zip(envs, owners, strict=True):
            refuse_transforms(env, owner)
        return lambda infos: _stacked([_required(owner) for owner in owners])
    if isinstance(base, gymnasium.vector.AsyncVectorEnv) or not (hasattr(base, "has_attr") and base.has_attr(SPACE)):
        return None

    def through_get_attr(infos: Any) -> tuple[Any, Any, Any]:
        columns = [base.get_attr(key) for key in KEYS]
        return _stacked([_not_none(row) for row in zip(*columns, strict=True)])

    return through_get_attr


def _required(owner: Any, copy: bool = False) -> tuple[Any, Any, Any]:
    """The three attributes of a batch or a copy."""
    try:
        values = _not_none((owner.post_decision_observation, owner.reward_deterministic, owner.reward_stochastic))
    except AttributeError as error:
        raise InputError("incomplete post-decision data", source=str(owner), expected=", ".join(KEYS)) from error
    return (copy_tree(values[0]), values[1], values[2]) if copy else values


def _not_none(values: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    if any(value is None for value in values):
        raise InputError("no post-decision data yet", expected="a step before it is read")
    return values[0], values[1], values[2]


def _stacked(rows: Sequence[tuple[Any, Any, Any]]) -> tuple[Any, list[float], list[float]]:
    return _stack([row[0] for row in rows]), [row[1] for row in rows], [row[2] for row in rows]


def _stack(observations: Sequence[Any]) -> Any:
    """Observations of N copies as one batch."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {key: _stack([observation[key] for observation in observations]) for key in first}
    return np.stack(observations)


def _from_infos(base: Any) -> Source:
    """Read the info keys: a list with one dict a copy, or Gymnasium's dict of arrays."""

    def missing(where: str) -> InputError:
        return InputError(
            "no post-decision data",
            source=str(base),
            field=where,
            expected=f"an env with the attributes {SPACE}, {', '.join(KEYS)}, or these keys in its infos; "
            "orl.common.post_decision.FunctionalPostDecision adds them to any env",
        )

    def read(infos: Any) -> tuple[Any, Any, Any]:
        if isinstance(infos, Mapping):
            for key in KEYS:
                if key not in infos or not np.all(infos.get("_" + key, True)):
                    raise missing(f"infos[{key!r}]")
            return copy_tree(infos[KEYS[0]]), infos[KEYS[1]], infos[KEYS[2]]
        for i, info in enumerate(infos):
            for key in KEYS:
                if key not in info:
                    raise missing(f"infos[{i}][{key!r}]")
        return _stacked([(info[KEYS[0]], info[KEYS[1]], info[KEYS[2]]) for info in infos])

    return read


# ---- further draws --------------------------------------------------------------------------------------------------
class ExogenousDraws(ABC):
    """Further draws of the randomness of a batch, in the units of the top of its stack (see :func:`exogenous_sampler`).

    Around a step: ``before_step(actions)``, ``venv.step(actions)``, ``exogenous_samples(n)``.
    """

    @abstractmethod
    def before_step(self, actions: npt.NDArray[Any]) -> None:
        """Tell the actions [N, ...] that the next ``venv.step`` is going to take."""

    @abstractmethod
    def exogenous_samples(self, n_samples: int) -> tuple[Any, Floats, Flags]:
        """See :meth:`orl.common.protocols.ExogenousSampler.exogenous_samples`."""

    @abstractmethod
    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Any, Floats, Any, Floats, Flags]:
        """See :meth:`orl.common.protocols.ExogenousSampler.simulate_decisions`."""


def exogenous_sampler(venv: Any, seed: int | None = 0) -> ExogenousDraws | None:
    """What draws the randomness of that batch again, or None if nothing here can.

    A native batch draws by itself (:class:`orl.common.protocols.ExogenousSampler`). For single envs in this process
    (DummyVecEnv, LeanVecEnv, SyncVectorEnv behind the bridge) that implement
    :class:`orl.common.protocols.PostDecisionModel` the draws come from their pure functions, one Python call a draw:
    slower by two orders of magnitude, and with noise of its own (``seed``), which is common to all actions of a copy,
    too. Observations and rewards come as the top of the stack shows them: VecNormalize applies as in
    :func:`post_decision_reader`.

    Raises:
        InputError: A wrapper cannot be followed; or single envs have ``sample_exogenous`` and lack other methods of
            the model.
    """
    wrappers, base = unwrap(venv)
    stack = WrapperStack(wrappers)
    batch = batch_with(base, "exogenous_samples")
    if batch is not None:
        return _NativeDraws(batch, stack)
    envs = copies(base)
    if envs is None:
        return None
    owners = [owner_of(env, "sample_exogenous") for env in envs]
    if any(owner is None for owner in owners):
        return None
    for env, owner in zip(envs, owners, strict=True):
        refuse_transforms(env, owner)
        if missing := missing_model_methods(owner):
            raise InputError(
                "the model is not complete",
                source=str(owner),
                field=missing[0],
                expected="the methods of orl.common.protocols.PostDecisionModel",
            )
    return _ModelDraws(owners, stack, seed)


class _NativeDraws(ExogenousDraws):
    def __init__(self, batch: Any, stack: WrapperStack) -> None:
        self._batch, self._stack = batch, stack

    def before_step(self, actions: npt.NDArray[Any]) -> None:
        """Nothing to do: the batch remembers its last step."""

    def exogenous_samples(self, n_samples: int) -> tuple[Any, Floats, Flags]:
        observations, rewards, terminated = self._batch.exogenous_samples(n_samples)
        return self._stack.observations(observations, 2), self._stack.rewards(rewards), terminated

    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Any, Floats, Any, Floats, Flags]:
        post, deterministic, observations, rewards, terminated = self._batch.simulate_decisions(actions, n_samples)
        to, scaled = self._stack.observations, self._stack.rewards
        return to(post, 2), scaled(deterministic), to(observations, 3), scaled(rewards), terminated


class _ModelDraws(ExogenousDraws):
    """Draws through the pure functions of single envs."""

    def __init__(self, models: Sequence[Any], stack: WrapperStack, seed: int | None) -> None:
        self._models, self._stack = list(models), stack
        self._key = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        self._steps = 0
        self._post_states: list[Any] | None = None

    def _generator(self, copy: int, draw: int) -> np.random.Generator:
        """The noise of one draw in the current step of one copy: the same for every action."""
        return np.random.default_rng([self._key, self._steps, copy, draw])

    def before_step(self, actions: npt.NDArray[Any]) -> None:
        self._steps += 1
        self._post_states = [
            model.post_decision(model.current_state(), action)[0]
            for model, action in zip(self._models, actions, strict=True)
        ]

    def exogenous_samples(self, n_samples: int) -> tuple[Any, Floats, Flags]:
        if self._post_states is None:
            raise InputError("no step to sample", expected="before_step(actions) ahead of venv.step(actions)")
        rows = [self._draws(i, state, n_samples) for i, state in enumerate(self._post_states)]
        observations = _stack([row[0] for row in rows])
        rewards, terminated = np.array([row[1] for row in rows]), np.array([row[2] for row in rows], np.bool_)
        return self._stack.observations(observations, 2), self._stack.rewards(rewards), terminated

    def simulate_decisions(
        self, actions: npt.NDArray[Any], n_samples: int = 0
    ) -> tuple[Any, Floats, Any, Floats, Flags]:
        self._steps += 1
        post, deterministic, draws = [], [], []
        for i, model in enumerate(self._models):
            decided = [model.post_decision(model.current_state(), action) for action in actions[i]]
            post.append(_stack([model.observe_post_decision(state) for state, _ in decided]))
            deterministic.append([reward for _, reward in decided])
            draws.append([self._draws(i, state, n_samples) for state, _ in decided])
        observations = _stack([_stack([row[0] for row in rows]) for rows in draws])
        rewards = np.array([[row[1] for row in rows] for rows in draws])
        terminated = np.array([[row[2] for row in rows] for rows in draws], np.bool_)
        to, scaled = self._stack.observations, self._stack.rewards
        return to(_stack(post), 2), scaled(np.array(deterministic)), to(observations, 3), scaled(rewards), terminated

    def _draws(self, copy: int, post_state: Any, n: int) -> tuple[Any, Floats, Flags]:
        """Draws 1..n of one copy from one post-decision state."""
        model = self._models[copy]
        drawn = [model.sample_exogenous(post_state, self._generator(copy, k)) for k in range(1, n + 1)]
        if not drawn:
            empty = _stack([model.observe_post_decision(post_state)])
            return _first(empty, 0), np.zeros(0), np.zeros(0, np.bool_)
        return (
            _stack([model.observe(state) for state, _ in drawn]),
            np.array([float(reward) for _, reward in drawn]),
            np.array([bool(model.is_terminal(state)) for state, _ in drawn]),
        )


def _first(value: Any, n: int) -> Any:
    return {key: _first(part, n) for key, part in value.items()} if isinstance(value, Mapping) else value[:n]


# ---- anyone's env ---------------------------------------------------------------------------------------------------
PostFunction = Callable[[Any, Any], tuple[Any, float]]


class FunctionalPostDecision(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """A post-decision env out of any env and one function that knows what a decision leads to.

    Steps and spaces are those of the env. The attributes of :class:`orl.common.protocols.PostDecision` describe the
    last step; before the first one they are None. The stochastic share of the reward is the reward minus the
    deterministic share, so they add up by construction; whether the function is right is not checked.

    Args:
        env: Any single env. Wrappers that change observations or rewards belong below this one.
        post_fn: ``(observation, action) -> (post-decision observation, deterministic share of the reward)``; pure. The
            observation is a copy of the one before the step.
        post_decision_space: Space of the post-decision observations; None: the observation space.
        infos: ``"full"`` puts the three values into every step's info under the attributes' names.

    >>> env = FunctionalPostDecision(gymnasium.make("CartPole-v1"), lambda observation, action: (observation, 1.0))
    >>> observation, _ = env.reset(seed=0)
    >>> _ = env.step(1)
    >>> bool((env.post_decision_observation == observation).all()), env.reward_deterministic, env.reward_stochastic
    (True, 1.0, 0.0)
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        post_fn: PostFunction,
        post_decision_space: spaces.Space[Any] | None = None,
        infos: str = "lean",
    ) -> None:
        if infos not in ("lean", "full"):
            raise InputError("unknown choice", field="infos", value=infos, expected="'lean' or 'full'")
        gymnasium.utils.RecordConstructorArgs.__init__(
            self, post_fn=post_fn, post_decision_space=post_decision_space, infos=infos
        )
        gymnasium.Wrapper.__init__(self, env)
        self.post_fn = post_fn
        self.post_decision_space = env.observation_space if post_decision_space is None else post_decision_space
        self.post_decision_observation: Any = None
        self.reward_deterministic: float | None = None
        self.reward_stochastic: float | None = None
        self._observation: Any = None
        self._full = infos == "full"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the env; the attributes keep describing the last step."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._observation = copy_tree(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the env and note what the decision alone led to."""
        post, deterministic = self.post_fn(self._observation, action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.post_decision_observation = _cast(self.post_decision_space, post)
        self.reward_deterministic = float(deterministic)
        self.reward_stochastic = float(reward) - self.reward_deterministic
        self._observation = copy_tree(observation)
        if self._full:
            values = (copy_tree(self.post_decision_observation), self.reward_deterministic, self.reward_stochastic)
            info = {**info, **dict(zip(KEYS, values, strict=True))}
        return observation, reward, terminated, truncated, info


def _cast(space: spaces.Space[Any], value: Any) -> Any:
    """A fresh copy in the dtypes of the space."""
    if isinstance(space, spaces.Dict):
        return {key: _cast(part, value[key]) for key, part in space.spaces.items()}
    return np.array(value, space.dtype)
