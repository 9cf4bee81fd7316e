"""TD3 of Stable-Baselines3 with the same mathematics in less time.

``FastTD3`` is used like ``stable_baselines3.TD3``. Where the model is eligible
(:func:`orl.fast.td3_step.td3_ineligible`: MLPs on flat observations, on the CPU), rollouts and updates run on flat
buffers with hand-written gradients; elsewhere SB3's own code runs. Given the same seed both draw the same transitions
and, to rounding, give the same parameters. Saved models hold SB3's own policy and optimisers: plain SB3 loads them.

>>> model = FastTD3("MlpPolicy", "Pendulum-v1", learning_starts=10, buffer_size=100, seed=0, device="cpu")
>>> model.learn(20).num_timesteps, model.engine_in_use
(20, 'fast')
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.td3.policies import TD3Policy

from orl.fast.engine_choice import Engine
from orl.fast.off_policy import FastOffPolicy
from orl.fast.td3_step import Td3Engine, td3_ineligible


class FastTD3(FastOffPolicy, TD3):
    """TD3 with the mathematics, arguments, logger keys and files of ``stable_baselines3.TD3``.

    Args:
        policy, env, learning_rate, ...: As in ``stable_baselines3.TD3``. A Gymnasium env is wrapped in a Monitor and a
            :class:`~orl.fast.lean_vec_env.LeanVecEnv`.
        engine: ``"auto"``, ``"fast"`` or ``"torch"``, see :class:`~orl.fast.engine_choice.EngineChoice`.

    Raises:
        InputError: Unknown engine; and at ``learn`` with ``engine="fast"`` if the model is not eligible.
    """

    def __init__(
        self,
        policy: str | type[TD3Policy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
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
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            policy_delay=policy_delay,
            target_policy_noise=target_policy_noise,
            target_noise_clip=target_noise_clip,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def engine_ineligible(self) -> str | None:
        """Why the fast path cannot run on this model as it is now; None if it can."""
        return td3_ineligible(self)

    def _new_engine(self) -> Td3Engine:
        return Td3Engine(self)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        engine: Td3Engine | None = self.fast_engine()
        if engine is None:
            super().train(gradient_steps, batch_size)
            return
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        actor_losses, critic_losses = [], []
        for _ in range(gradient_steps):
            self._n_updates += 1
            batch = engine.transitions.draw(self.replay_buffer, batch_size, self.gamma, self._vec_normalize_env)
            critic_losses.append(engine.step_critics(batch, self.target_policy_noise, self.target_noise_clip))
            if self._n_updates % self.policy_delay == 0:
                actor_losses.append(engine.step_actor(batch, self.tau))
        record = self.logger.record
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        if actor_losses:
            record("train/actor_loss", float(np.mean(actor_losses)))
        record("train/critic_loss", float(np.mean(critic_losses)))
