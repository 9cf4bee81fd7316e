"""SAC of Stable-Baselines3 with the same mathematics in less time.

``FastSAC`` is used like ``stable_baselines3.SAC``. Where the model is eligible
(:func:`orl.fast.sac_step.sac_ineligible`: MLPs on flat observations, on the CPU), rollouts and updates run on flat
buffers with hand-written gradients; elsewhere SB3's own code runs. Given the same seed both draw the same transitions
and, to rounding, give the same parameters. Saved models hold SB3's own policy and optimisers: plain SB3 loads them.

>>> model = FastSAC("MlpPolicy", "Pendulum-v1", learning_starts=10, buffer_size=100, seed=0, device="cpu")
>>> model.learn(20).num_timesteps, model.engine_in_use
(20, 'fast')
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.sac.policies import SACPolicy

from orl.fast.engine_choice import Engine
from orl.fast.off_policy import FastOffPolicy
from orl.fast.sac_step import SacEngine, sac_ineligible


class FastSAC(FastOffPolicy, SAC):
    """SAC with the mathematics, arguments, logger keys and files of ``stable_baselines3.SAC``.

    Args:
        policy, env, learning_rate, ...: As in ``stable_baselines3.SAC``. A Gymnasium env is wrapped in a Monitor and a
            :class:`~orl.fast.lean_vec_env.LeanVecEnv`.
        engine: ``"auto"``, ``"fast"`` or ``"torch"``, see :class:`~orl.fast.engine_choice.EngineChoice`.

    Raises:
        InputError: Unknown engine; and at ``learn`` with ``engine="fast"`` if the model is not eligible.
    """

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
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
        ent_coef: str | float = "auto",
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
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
            ent_coef=ent_coef,
            target_update_interval=target_update_interval,
            target_entropy=target_entropy,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            use_sde_at_warmup=use_sde_at_warmup,
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
        return sac_ineligible(self)

    def _new_engine(self) -> SacEngine:
        return SacEngine(self)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        engine: SacEngine | None = self.fast_engine()
        if engine is None:
            super().train(gradient_steps, batch_size)
            return
        automatic = self.ent_coef_optimizer is not None
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        self._update_learning_rate([*optimizers, self.ent_coef_optimizer] if automatic else optimizers)  # type: ignore[list-item]
        ent_coef = None if automatic else self.ent_coef_tensor.item()
        figures = np.empty((gradient_steps, 4))
        for k in range(gradient_steps):
            batch = engine.transitions.draw(self.replay_buffer, batch_size, self.gamma, self._vec_normalize_env)
            tau = self.tau if k % self.target_update_interval == 0 else None
            figures[k] = engine.step(batch, float(self.target_entropy), ent_coef, tau)
        self._n_updates += gradient_steps
        mean_ent_coef, actor_loss, critic_loss, ent_coef_loss = figures.mean(axis=0).tolist()
        record = self.logger.record
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/ent_coef", mean_ent_coef)
        record("train/actor_loss", actor_loss)
        record("train/critic_loss", critic_loss)
        if automatic:
            record("train/ent_coef_loss", ent_coef_loss)
