"""Actions by looking one decision ahead: what the environment says of the decision, and a critic of what follows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from orl.common.action_masks import mask_width, option_counts, split_masks
from orl.common.errors import InputError
from orl.common.post_decision import exogenous_sampler
from orl.common.venv_layers import owner_of, refuse_transforms
from orl.pdppo.rollout import values_in_chunks

MASKS = "action_masks"


class LookaheadPolicy:
    """A trained model that chooses, in the states its environments are in, the action of the largest

        ``r^d + V^x(s^x)``                                     with ``n_samples=0``, or
        ``r^d + mean over n draws of (r^w + gamma V(s'))``     with ``n_samples=n``,

    where decision and draws come from the environment (:class:`orl.common.protocols.ExogenousSampler` or
    :class:`orl.common.protocols.PostDecisionModel`). The draws are common to all actions, so that actions are compared
    under equal noise; they are the environment's alternatives, never the noise that is going to happen.

    All legal actions are scored where there are at most ``max_actions``; else the policy's own best action and
    ``max_actions - 1`` that it samples. Like a hand-written rule, it is built on the environments that it acts in; it
    looks at the observation it is given only to sample. With ``n_samples`` above zero, a model of any on-policy
    algorithm of SB3 will do.

    Args:
        model: With ``n_samples=0`` a :class:`~orl.pdppo.PDPPO` whose critic V^x values states
            (``advantage="interleaved"`` or ``"max_full"``, ``n_critics=2``).
        env: SB3 VecEnv or single env. A VecNormalize in its stack counts; without one, that of the model's own envs.
        n_samples: Draws for each action.
        max_actions: Largest number of actions that are scored in a state.
        seed: Of the draws of environments without a sampler of their own.

    Raises:
        InputError: The environment gives no decisions to look at, or the model has no critic that fits.

    >>> import orl
    >>> from orl.pdppo import PDPPO
    >>> env = orl.make_vec("orl:orl/PostDecisionFrozenLake-v0", 2, seed=0)
    >>> model = PDPPO("MlpPolicy", env, n_steps=16, batch_size=32, seed=0, device="cpu").learn(32)
    >>> observations = env.reset()
    >>> LookaheadPolicy(model, env).predict(observations)[0].shape
    (2,)
    """

    def __init__(self, model: Any, env: Any, n_samples: int = 0, max_actions: int = 1024, seed: int = 0) -> None:
        for name, value, least in (("n_samples", n_samples, 0), ("max_actions", max_actions, 1)):
            if value < least:
                raise InputError("too small", field=name, value=value, expected=f">= {least}")
        if n_samples == 0:
            _require_post_values(model)
        self.model, self.env, self.n_samples, self.max_actions = model, env, n_samples, max_actions
        self._single = isinstance(env, gymnasium.Env)
        self._copies = 1 if self._single else env.num_envs
        self._draws = _decisions(env, seed)
        self._normalise = None if self._single is False and unwrap_vec_normalize(env) else model.get_vec_normalize_env()
        self._space = model.action_space
        self._enumerated: dict[bytes, npt.NDArray[Any] | None] = {}

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[npt.NDArray[Any], Any]:
        """Actions of all copies [N, ...] (one action for a single env), as SB3's ``predict``.

        Args:
            observation: Needed only where actions are sampled.
            action_masks: bool[N, A]; None: the environment is asked, if it has masks.
        """
        candidates = self.candidates(observation, action_masks)
        scores = self.scores(candidates)
        chosen = candidates[np.arange(len(candidates)), scores.argmax(axis=1)]
        return (chosen[0] if self._single else chosen), state

    def scores(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Score float64[N, A] of candidate actions [N, A, ...] in the current states."""
        simulated = self._draws.simulate_decisions(actions, self.n_samples)
        post, deterministic, observations, stochastic, terminated = simulated
        scale, values = 1.0, partial(values_in_chunks, self.model.policy.predict_values, self.model.device)
        self.model.policy.set_training_mode(False)
        seen = post if self.n_samples == 0 else observations
        seen = _one_axis(seen, 2 if self.n_samples == 0 else 3)
        if self._normalise is not None:
            seen = self._normalise.normalize_obs(seen)
            if self._normalise.norm_reward:
                scale = 1.0 / np.sqrt(float(self._normalise.ret_rms.var) + self._normalise.epsilon)
        if self.n_samples == 0:
            return scale * deterministic + self.model.predict_post_values(seen).reshape(deterministic.shape)
        following = self.model.gamma * values(seen).reshape(stochastic.shape) * ~terminated
        return scale * deterministic + (scale * stochastic + following).mean(axis=-1)

    # ---- candidates --------------------------------------------------------------------------------------------
    def candidates(self, observation: Any, action_masks: Any = None) -> npt.NDArray[Any]:
        """Actions [N, A, ...] to be scored; where copies have different numbers, some appear twice."""
        masks = self._masks(action_masks)
        if masks is None:
            listed = [self._listed(None)] * self._copies
        else:
            listed = [self._listed(mask) for mask in masks]
        if any(actions is None for actions in listed):
            return self._sampled(observation, masks)
        width = max(len(actions) for actions in listed if actions is not None)
        if all(actions is listed[0] for actions in listed):
            return np.stack(listed)  # type: ignore[arg-type]
        return np.stack([actions[np.arange(width) % len(actions)] for actions in listed if actions is not None])

    def _masks(self, given: Any) -> npt.NDArray[np.bool_] | None:
        if given is None:
            if isinstance(self._space, spaces.Box):
                return None
            if self._single:
                given = self.env.get_wrapper_attr(MASKS)() if self.env.has_wrapper_attr(MASKS) else None
            else:
                given = np.stack(self.env.env_method(MASKS)) if self.env.has_attr(MASKS) else None
        return None if given is None else np.asarray(given, np.bool_).reshape(self._copies, -1)

    def _listed(self, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any] | None:
        """All legal actions [A, ...], None if there are too many."""
        if isinstance(self._space, spaces.Box):
            return None
        full = np.ones(mask_width(self._space), np.bool_) if mask is None else mask
        key = full.tobytes()
        if key not in self._enumerated:
            if len(self._enumerated) >= 1024:
                del self._enumerated[next(iter(self._enumerated))]
            self._enumerated[key] = legal_actions(self._space, full, self.max_actions)
        return self._enumerated[key]

    def _sampled(self, observation: Any, masks: npt.NDArray[np.bool_] | None) -> npt.NDArray[Any]:
        """The policy's best action and further ones that it samples, [N, A, ...]."""
        if observation is None:
            raise InputError("sampled actions need the observations", field="observation", value=None)
        batch = _with_axis(observation) if self._single else observation
        if self._normalise is not None:
            batch = self._normalise.normalize_obs(batch)
        further = {} if masks is None else {MASKS: masks}
        best = self.model.predict(batch, deterministic=True, **further)[0]
        drawn = [self.model.predict(batch, deterministic=False, **further)[0] for _ in range(self.max_actions - 1)]
        return np.stack([best, *drawn], axis=1)


def legal_actions(space: spaces.Space[Any], mask: npt.NDArray[np.bool_], most: int) -> npt.NDArray[np.int64] | None:
    """All joint actions that ``mask`` bool[A] allows, int64[n] (Discrete) or int64[n, D]; None if more than ``most``.

    >>> legal_actions(spaces.MultiDiscrete([2, 2]), np.array([True, True, False, True]), 10).tolist()
    [[0, 1], [1, 1]]
    """
    options = [np.flatnonzero(part) for part in split_masks(space, mask)]
    if np.prod([float(len(part)) for part in options]) > most:
        return None
    if isinstance(space, spaces.Discrete):
        return (options[0] + int(space.start)).astype(np.int64)
    joint = np.array(list(product(*options)), np.int64)
    return joint.reshape(len(joint), len(option_counts(space)))


def _require_post_values(model: Any) -> None:
    """Raise InputError unless the model has a critic that values post-decision states."""
    modes = ("interleaved", "max_full")
    if getattr(model, "advantage", None) not in modes or getattr(model, "n_critics", 2) != 2:
        raise InputError(
            "the model has no critic of what follows a decision",
            field="model",
            value=model,
            expected=f"a PDPPO with n_critics=2 and advantage one of {modes}, or n_samples above 0",
        )


class _OneCopy:
    """A single env where a batch is expected."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.envs = [env]


def _decisions(env: Any, seed: int) -> Any:
    """What says where decisions lead (``simulate_decisions``)."""
    single = isinstance(env, gymnasium.Env)
    owner = owner_of(env, "simulate_decisions") if single else None
    if owner is not None:
        refuse_transforms(env, owner)
        return owner
    draws = exogenous_sampler(_OneCopy(env) if single else env, seed)
    if draws is None:
        raise InputError(
            "it cannot say what a decision would lead to",
            field="env",
            value=env,
            expected="orl.common.protocols.ExogenousSampler or PostDecisionModel",
        )
    return draws


def _one_axis(observations: Any, lead: int) -> Any:
    """Observations with ``lead`` leading axes as one batch."""
    if isinstance(observations, Mapping):
        return {key: _one_axis(part, lead) for key, part in observations.items()}
    return observations.reshape(-1, *observations.shape[lead:])


def _with_axis(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {key: _with_axis(part) for key, part in observation.items()}
    return np.asarray(observation)[None]
