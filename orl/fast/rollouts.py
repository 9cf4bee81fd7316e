"""Rollouts without Python work for every step beyond the env's own.

:func:`collect` fills an SB3 rollout buffer with the transitions that ``collect_rollouts`` of PPO or MaskablePPO would
store given the same state of torch's generator. A step computes the action only; values and log-probabilities of the
whole rollout, and the values of time-outs, follow in one batch each.

Callbacks are called after every step with SB3's ``locals``: ``actions``, ``clipped_actions``, ``new_obs``, ``rewards``,
``dones``, ``infos``, ``n_steps``, ``env``, ``rollout_buffer`` and so on. One difference: ``values`` and ``log_probs``
are rows of the buffer that are filled when the rollout ends. A callback must not change the policy within a rollout
(none of SB3's does): values and log-probabilities are those of the parameters at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from orl.common.kernel_cache import drop_stale_kernels
from orl.common.vec_env import GymVecEnv
from orl.fast.lean_vec_env import LeanVecEnv
from orl.fast.ppo_step import ActorCriticEngine, Batch
from orl.fast.sampling import sampler

drop_stale_kernels()

Masks = npt.NDArray[np.bool_]

_BUFFERS = (RolloutBuffer, DictRolloutBuffer, MaskableRolloutBuffer, MaskableDictRolloutBuffer)


def buffer_ineligible(buffer: Any) -> str | None:
    """Why :func:`collect` and :func:`batch_of` cannot use this rollout buffer; None if they can."""
    if type(buffer) not in _BUFFERS:
        return f"the rollout buffer is a {type(buffer).__name__}"
    return None


@numba.njit(cache=True, error_model="numpy")
def _advantages(rewards, values, episode_starts, last_values, dones, gamma, decay, advantages):
    """Generalised advantage estimation (Schulman et al., arXiv 1506.02438), float32 as SB3 computes it."""
    steps, copies = rewards.shape
    one = np.float32(1.0)
    for i in range(copies):
        running = np.float32(0.0)
        for t in range(steps - 1, -1, -1):
            if t == steps - 1:
                alive, following = one - np.float32(dones[i]), last_values[i]
            else:
                alive, following = one - episode_starts[t + 1, i], values[t + 1, i]
            delta = rewards[t, i] + gamma * following * alive - values[t, i]
            running = delta + decay * alive * running
            advantages[t, i] = running


def returns_and_advantages(buffer: Any, last_values: npt.NDArray[np.float32], dones: npt.NDArray[np.bool_]) -> None:
    """``compute_returns_and_advantage`` of an SB3 rollout buffer, bit for bit, in compiled code."""
    _advantages(
        buffer.rewards,
        buffer.values,
        buffer.episode_starts,
        last_values,
        dones,
        np.float32(buffer.gamma),
        np.float32(buffer.gamma * buffer.gae_lambda),
        buffer.advantages,
    )
    buffer.returns = buffer.advantages + buffer.values


def mask_reader(env: VecEnv) -> Callable[[], Masks]:
    """A function that gives the masks bool[N, A] of all copies, in one call where the batch itself can."""
    layer = env
    while isinstance(layer, VecEnvWrapper):
        if type(layer).env_method is not VecEnvWrapper.env_method:
            return lambda: get_action_masks(env)
        layer = layer.venv
    if isinstance(layer, GymVecEnv):
        if isinstance(masks := layer.action_masks(), np.ndarray) and len(masks) == env.num_envs:
            return layer.action_masks
    if isinstance(layer, LeanVecEnv):
        return layer.action_masks
    return lambda: get_action_masks(env)


def collect(model: Any, engine: ActorCriticEngine, env: VecEnv, callback: Any, buffer: Any, use_masking: bool) -> bool:
    """Fill ``buffer`` with one rollout of ``model``'s policy.

    Args:
        model: PPO or MaskablePPO; its ``num_timesteps``, ``_last_obs``, ``_last_episode_starts`` and episode
            statistics are kept as SB3 keeps them.
        engine: That of ``model.policy``.
        env: The training envs.
        callback: Initialised SB3 callback.
        buffer: Rollout buffer; the rollout is as long as it is.
        use_masking: Ask the env for action masks.

    Returns:
        False if the callback ended training.

    Raises:
        ValueError: Masks are wanted and the env has none, or the policy gives numbers that are not finite.
    """
    if use_masking and not is_masking_supported(env):
        raise ValueError("Environment does not support action masking. Consider using ActionMasker wrapper")
    buffer.reset()
    callback.on_rollout_start()
    space, copies, steps = model.action_space, env.num_envs, buffer.buffer_size
    box, discrete = isinstance(space, spaces.Box), isinstance(space, spaces.Discrete)
    low, high = (space.low, space.high) if isinstance(space, spaces.Box) else (np.zeros(0), np.zeros(0))
    read_masks = mask_reader(env) if use_masking else None
    dict_keys = list(buffer.observations) if isinstance(buffer.observations, dict) else None
    draw: Any = sampler(engine.family, engine.policy, copies)
    act, features = engine.networks.actor.predict_few, engine.features
    rows = np.empty((copies, features.width), np.float32)
    quiet = type(callback) is ConvertCallback and callback.callback is None
    masks: Masks | None = None
    late: list[tuple[int, int, npt.NDArray[np.float32]]] = []
    obs, starts = model._last_obs, model._last_episode_starts
    _require_finite(engine)

    for step in range(steps):
        parameters = act(features(obs, rows))
        if read_masks is not None:
            masks = read_masks()
            buffer.action_masks[step] = masks
        actions = draw(parameters, masks)
        buffer.actions[step] = actions
        if discrete:
            env_actions = actions[:, 0]
        else:
            env_actions = actions if actions.shape[1:] == space.shape else actions.reshape(copies, *space.shape)
            if box:
                env_actions = np.minimum(np.maximum(env_actions, low), high)
        if dict_keys is None:
            buffer.observations[step] = obs if obs.shape == buffer.observations.shape[1:] else obs.reshape(copies, -1)
        else:
            for key in dict_keys:
                stored = buffer.observations[key]
                stored[step] = np.reshape(obs[key], stored.shape[1:])
        buffer.episode_starts[step] = starts
        new_obs, rewards, dones, infos = env.step(env_actions)
        model.num_timesteps += copies
        if quiet:
            callback.n_calls += 1
            callback.num_timesteps = model.num_timesteps
        else:
            callback.update_locals(
                {
                    "self": model,
                    "env": env,
                    "callback": callback,
                    "rollout_buffer": buffer,
                    "n_rollout_steps": steps,
                    "n_steps": step,
                    "use_masking": use_masking,
                    "action_masks": masks,
                    "actions": env_actions if discrete else actions.reshape(copies, *space.shape),
                    "clipped_actions": env_actions,
                    "values": buffer.values[step][:, None],
                    "log_probs": buffer.log_probs[step],
                    "new_obs": new_obs,
                    "rewards": rewards,
                    "dones": dones,
                    "infos": infos,
                }
            )
            if not callback.on_step():
                return False
        if any(infos):
            model._update_info_buffer(infos, dones)
        buffer.rewards[step] = rewards
        if dones.any():
            for i in np.flatnonzero(dones).tolist():
                last = infos[i].get("terminal_observation")
                if last is not None and infos[i].get("TimeLimit.truncated", False):
                    single = {k: np.asarray(v)[None] for k, v in last.items()} if dict_keys else np.asarray(last)[None]
                    late.append((step, i, features(single)[0]))
        buffer.pos = step + 1
        obs = model._last_obs = new_obs
        starts = model._last_episode_starts = dones

    buffer.full = True
    if late:
        bonus = model.gamma * engine.values(np.stack([row for *_, row in late]))
        for (step, i, _), value in zip(late, bonus, strict=True):
            buffer.rewards[step, i] += value
    flat = (steps * copies,)
    stored_obs = buffer.observations
    together = (
        stored_obs.reshape(*flat, *stored_obs.shape[2:])
        if dict_keys is None
        else {key: stored_obs[key].reshape(*flat, *stored_obs[key].shape[2:]) for key in dict_keys}
    )
    all_rows = features(together)
    buffer.values[...] = engine.values(all_rows).reshape(steps, copies)
    taken = buffer.actions.reshape(*flat, -1)
    if box and taken.dtype != np.float32:
        taken = taken.astype(np.float32)
    all_masks = buffer.action_masks.reshape(*flat, -1).astype(np.bool_) if read_masks is not None else None
    buffer.log_probs[...] = engine.log_probs(all_rows, taken, all_masks).reshape(steps, copies)
    if not (np.isfinite(buffer.values).all() and np.isfinite(buffer.log_probs).all()):
        raise ValueError("the policy or the observations hold numbers that are not finite")
    last_values = engine.values(features(new_obs))
    returns_and_advantages(buffer, last_values, dones)
    callback.update_locals({"values": last_values[:, None], "n_steps": steps, "rollout_buffer": buffer})
    callback.on_rollout_end()
    return True


def _require_finite(engine: ActorCriticEngine) -> None:
    if not np.isfinite(engine.flat.data.sum().item()):
        raise ValueError("the policy holds parameters that are not finite")


def flatten(buffer: Any) -> None:
    """Leave a full rollout buffer flattened, copy after copy, as ``buffer.get`` leaves it.

    Raises:
        ValueError: It is not full.
    """
    if not buffer.full:
        raise ValueError("the rollout buffer is not full")
    if buffer.generator_ready:
        return
    names = ["actions", "values", "log_probs", "advantages", "returns"]
    names += ["action_masks"] if hasattr(buffer, "action_masks") else []
    if isinstance(buffer.observations, dict):
        for key, part in buffer.observations.items():
            buffer.observations[key] = buffer.swap_and_flatten(part)
    else:
        names.append("observations")
    for name in names:
        setattr(buffer, name, buffer.swap_and_flatten(getattr(buffer, name)))
    buffer.generator_ready = True


def batch_of(buffer: Any, engine: ActorCriticEngine) -> Batch:
    """The transitions of a full rollout buffer, which is left flattened as ``buffer.get`` leaves it."""
    flatten(buffer)
    masked = isinstance(buffer, MaskableRolloutBuffer | MaskableDictRolloutBuffer)
    return Batch(
        features=engine.features(buffer.observations),
        actions=np.ascontiguousarray(buffer.actions, np.float32),
        old_values=buffer.values.ravel(),
        old_log_probs=buffer.log_probs.ravel(),
        advantages=buffer.advantages.ravel(),
        returns=buffer.returns.ravel(),
        masks=buffer.action_masks.astype(np.bool_) if masked else None,
    )
