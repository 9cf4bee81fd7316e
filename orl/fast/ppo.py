"""PPO and MaskablePPO of Stable-Baselines3 and sb3-contrib with the same mathematics in less time.

``FastPPO`` and ``FastMaskablePPO`` are used like the classes they derive from. Where the policy is eligible
(:func:`orl.fast.mlp.policy_ineligible`: MLPs on flat observations, on the CPU), rollouts and updates run on flat
buffers with hand-written gradients; elsewhere SB3's own code runs. Given the same seed both give the same actions and,
to rounding, the same parameters. Saved models hold SB3's own policy and optimiser: plain SB3 loads them.

>>> model = FastPPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu")
>>> model.learn(64).num_timesteps, model.engine_in_use
(64, 'fast')
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecEnv

from orl.fast.engine_choice import Engine, EngineChoice
from orl.fast.ppo_step import ActorCriticEngine, Coefficients, engine_ineligible
from orl.fast.prediction import greedy_actions
from orl.fast.rollouts import batch_of, buffer_ineligible, collect


class FastOnPolicy(EngineChoice, OnPolicyAlgorithm):
    """What the fast on-policy classes share; a mixin before an SB3 class."""

    _fast: ActorCriticEngine | None = None
    _predicts_slowly = False

    def engine_ineligible(self) -> str | None:
        """Why the fast path cannot run on this model as it is now; None if it can."""
        return engine_ineligible(self.policy) or buffer_ineligible(self.rollout_buffer)

    def fast_engine(self) -> ActorCriticEngine | None:
        """The engine of the policy as it is now, None for SB3's own code.

        Raises:
            InputError: ``engine="fast"`` and the model is not eligible.
        """
        if self.engine == "torch":
            return None
        if (reason := self.engine_ineligible()) is not None:
            self.refuse_or_tell(reason)
            return None
        if self._fast is None or not self._fast.intact(self.policy):
            self._fast = self._new_engine()
        return self._fast

    def _new_engine(self) -> ActorCriticEngine:
        return ActorCriticEngine(self.policy)

    def _greedy(self, observation: Any, action_masks: Any = None) -> Any:
        """Actions of ``predict(deterministic=True)`` from the engine, None where SB3's own code has to give them."""
        if self.engine == "torch":
            return None
        if self._fast is None or not self._fast.intact(self.policy):
            if self._predicts_slowly or self.engine_ineligible() is not None:
                self._predicts_slowly = True
                return None
            self._fast = self._new_engine()
        return greedy_actions(self._fast, self.action_space, observation, action_masks)


def train_fast(model: Any, engine: ActorCriticEngine) -> None:
    """``PPO.train`` and ``MaskablePPO.train`` on flat buffers: same minibatches, same updates, same logger keys.

    Minibatches come from ``numpy.random`` as in SB3's buffers. One repair: a minibatch of one transition keeps its
    advantage as it is, where MaskablePPO divides by a standard deviation that is not a number.
    """
    policy, buffer = model.policy, model.rollout_buffer
    policy.set_training_mode(True)
    model._update_learning_rate(policy.optimizer)
    clip_range = model.clip_range(model._current_progress_remaining)
    clip_range_vf = None
    if model.clip_range_vf is not None:
        clip_range_vf = model.clip_range_vf(model._current_progress_remaining)
    coefficients = Coefficients(
        clip_range, clip_range_vf, model.normalize_advantage, model.ent_coef, model.vf_coef, model.max_grad_norm
    )
    total = buffer.buffer_size * buffer.n_envs
    size = total if model.batch_size is None else model.batch_size
    batch = batch_of(buffer, engine)
    figures: list[Any] = []
    epoch_start = 0
    going_on = True
    for epoch in range(model.n_epochs):
        order = np.random.permutation(total)  # noqa: NPY002 - SB3's own random stream
        epoch_start = len(figures)
        for first in range(0, total, size):
            chosen = order[first : first + size]
            figures.append(engine.losses(batch, chosen, coefficients).copy())
            if model.target_kl is not None and figures[-1][4] > 1.5 * model.target_kl:
                going_on = False
                if model.verbose >= 1:
                    print(f"Early stopping at step {epoch} due to reaching max kl: {figures[-1][4]:.2f}")
                break
            engine.step(batch, chosen, model.max_grad_norm)
        model._n_updates += 1
        if not going_on:
            break

    record_training(model, np.array(figures), epoch_start, clip_range, clip_range_vf)


def record_training(
    model: Any, figures: npt.NDArray[np.float64], epoch_start: int, clip_range: float, clip_range_vf: float | None
) -> None:
    """Log an update under SB3's keys.

    Args:
        model: PPO or MaskablePPO.
        figures: float64[minibatches, 6]: policy, value and entropy loss, total loss, approximate KL, clip fraction.
        epoch_start: First minibatch of the last epoch.
        clip_range, clip_range_vf: As they were in this update.
    """
    policy, buffer = model.policy, model.rollout_buffer
    policy_loss, value_loss, entropy_loss, _, _, clip_fraction = figures.mean(axis=0)
    record = model.logger.record
    record("train/entropy_loss", entropy_loss)
    record("train/policy_gradient_loss", policy_loss)
    record("train/value_loss", value_loss)
    record("train/approx_kl", figures[epoch_start:, 4].mean())
    record("train/clip_fraction", clip_fraction)
    record("train/loss", float(figures[-1, 3]))
    record("train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
    if hasattr(policy, "log_std"):
        record("train/std", torch.exp(policy.log_std).mean().item())
    record("train/n_updates", model._n_updates, exclude="tensorboard")
    record("train/clip_range", clip_range)
    if clip_range_vf is not None:
        record("train/clip_range_vf", clip_range_vf)


class FastPPO(FastOnPolicy, PPO):
    """PPO with the mathematics, arguments, logger keys and files of ``stable_baselines3.PPO``.

    Args:
        policy, env, learning_rate, ...: As in ``stable_baselines3.PPO``. A Gymnasium env is wrapped in a Monitor and a
            :class:`~orl.fast.lean_vec_env.LeanVecEnv`.
        engine: ``"auto"``, ``"fast"`` or ``"torch"``, see :class:`~orl.fast.engine_choice.EngineChoice`.

    Raises:
        InputError: Unknown engine; and at ``learn`` with ``engine="fast"`` if the model is not eligible.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        engine: Engine = "auto",
    ) -> None:
        self._set_engine(engine)
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        engine = self.fast_engine()
        if engine is None or n_rollout_steps != rollout_buffer.buffer_size:
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        self.policy.set_training_mode(False)
        return collect(self, engine, env, callback, rollout_buffer, use_masking=False)

    def train(self) -> None:
        engine = self.fast_engine()
        if engine is None:
            super().train()
        else:
            train_fast(self, engine)

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """As in SB3; greedy actions come from the engine."""
        if deterministic and (actions := self._greedy(observation)) is not None:
            return actions, state
        return super().predict(observation, state, episode_start, deterministic)


class FastMaskablePPO(FastOnPolicy, MaskablePPO):
    """PPO with action masks: the mathematics, arguments, logger keys and files of ``sb3_contrib.MaskablePPO``.

    Args:
        policy, env, learning_rate, ...: As in ``sb3_contrib.MaskablePPO``.
        engine: ``"auto"``, ``"fast"`` or ``"torch"``, see :class:`~orl.fast.engine_choice.EngineChoice`.

    Raises:
        InputError: Unknown engine; and at ``learn`` with ``engine="fast"`` if the model is not eligible.
    """

    def __init__(
        self,
        policy: str | type[MaskableActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int | None = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        engine: Engine = "auto",
    ) -> None:
        self._set_engine(engine)
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        use_masking: bool = True,
    ) -> bool:
        engine = self.fast_engine()
        if engine is None or n_rollout_steps != rollout_buffer.buffer_size:
            return bool(super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps, use_masking))
        self.policy.set_training_mode(False)
        return collect(self, engine, env, callback, rollout_buffer, use_masking=use_masking)

    def train(self) -> None:
        engine = self.fast_engine()
        if engine is None:
            super().train()
        else:
            train_fast(self, engine)

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """As in sb3-contrib; greedy actions come from the engine."""
        if deterministic and (actions := self._greedy(observation, action_masks)) is not None:
            return actions, state
        return super().predict(observation, state, episode_start, deterministic, action_masks)
