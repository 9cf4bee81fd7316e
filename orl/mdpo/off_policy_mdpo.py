"""Off-policy MDPO: soft actor-critic whose actor stays near an older copy of itself."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch.nn import functional

from orl.fast.engine_choice import Engine
from orl.fast.off_policy import FastOffPolicy
from orl.mdpo.fast_off_policy_step import SoftMirrorEngine, Terms, soft_mirror_ineligible
from orl.mdpo.mirror_descent import generalised_log, soft_mirror_step
from orl.mdpo.state_value import StateValue, state_value

SQUASHING_FLOOR = 1e-6
"""Added to ``1 - tanh^2`` inside the logarithm, as in SB3."""


class SampledActions(NamedTuple):
    """Actions of N states and their densities.

    Attributes:
        actions: In [-1, 1], float[N, D]; gradients flow to the actor.
        log_probs: Log-density of each component, float[N, D].
        old_log_probs: The same under the old policy, at the same action before squashing.
        mean, log_std: Of the Gaussian before squashing, float[N, D].
    """

    actions: torch.Tensor
    log_probs: torch.Tensor
    old_log_probs: torch.Tensor
    mean: torch.Tensor
    log_std: torch.Tensor


class OffPolicyMDPO(FastOffPolicy, SAC):
    """Mirror Descent Policy Optimization, off-policy (Tomar et al., arXiv 2005.09814); Box actions, as SAC.

    The actor minimises, over states of the replay buffer and its own actions a,

        c ln_q pi(a|s) - q (c - lambda) ln_q pi_old(a|s) - Q(s, a),

    with c = ``bregman_coef`` (one over the mirror-descent step size), lambda = ``ent_coef`` (the temperature) and
    pi_old a copy of the actor that is renewed every ``old_policy_interval`` steps. With c = lambda the old policy
    drops out: ``critic_mode="q", actor_q="min", reg_coef=0, tsallis_q=1`` is then SB3's ``SAC(ent_coef=lambda)``,
    step for step.

    Args:
        policy: As in SB3's SAC, as are ``env``, ``learning_rate``, ``buffer_size``, ``batch_size``, ``tau``, ``gamma``,
            ``train_freq``, ``gradient_steps``, ``action_noise``, ``replay_buffer_class``, ``replay_buffer_kwargs``,
            ``optimize_memory_usage`` and ``n_steps``.
        learning_starts: Steps with random actions before the first update; 10 000 as in the authors' code.
        ent_coef: Temperature lambda, a number (it is not learned).
        bregman_coef: c, the weight of the divergence from the old policy plus the temperature's share in it.
        tsallis_q: Order q of the logarithm, in [1, 2]; 1 is the KL divergence.
        tsallis_mode: For q > 1: ``"factorised"`` sums ln_q over the action components, ``"joint"`` takes ln_q of the
            joint density, which explodes with the number of components.
        old_policy_interval: Environment steps, over all copies, after which pi_old becomes the current actor.
        critic_mode: ``"v"`` fits Q1, Q2 and V with a target network of V only (the paper); ``"q"`` fits Q1 and Q2 with
            target networks of them (SAC).
        actor_q: ``"q1"``: the actor follows the first critic (the authors' code); ``"min"``: the smallest (SAC).
        reg_coef: Weight of ``mean(mu^2) + mean((log sigma)^2)`` of the Gaussian before squashing in the actor's loss.
        deterministic_rollouts: Act without noise after the warm-up, as the authors' code does.
        target_update_interval: As in SB3's SAC, as are ``use_sde``, ``sde_sample_freq``, ``use_sde_at_warmup``,
            ``stats_window_size``, ``tensorboard_log``, ``policy_kwargs``, ``verbose``, ``seed`` and ``device``.
        engine: ``"auto"`` runs rollouts and updates on flat buffers with hand-written gradients where the model allows
            (:mod:`orl.fast`; MLPs on flat observations, on the CPU, without gSDE) and on autograd elsewhere; ``"fast"``
            raises elsewhere; ``"torch"`` always takes autograd and SB3's rollouts. The results agree to rounding.

    Raises:
        ValueError: A value outside its range.
        InputError: Unknown engine; and at ``learn`` with ``engine="fast"`` if the model is not eligible.

    >>> import gymnasium
    >>> env = gymnasium.make("Pendulum-v1")
    >>> model = OffPolicyMDPO("MlpPolicy", env, learning_starts=32, batch_size=16, buffer_size=64, device="cpu")
    >>> model.learn(40).num_timesteps
    40
    """

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 10_000,
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
        ent_coef: float = 0.2,
        bregman_coef: float = 1.0,
        tsallis_q: float = 1.0,
        tsallis_mode: str = "factorised",
        old_policy_interval: int = 1000,
        critic_mode: str = "v",
        actor_q: str = "q1",
        reg_coef: float = 1e-3,
        deterministic_rollouts: bool = False,
        target_update_interval: int = 1,
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
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            n_steps=n_steps,
            ent_coef=ent_coef,
            target_update_interval=target_update_interval,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            use_sde_at_warmup=use_sde_at_warmup,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        is_number = isinstance(ent_coef, float | int)
        _require(is_number and ent_coef >= 0, "ent_coef", ent_coef, "a number that is not negative")
        _require(bregman_coef > 0, "bregman_coef", bregman_coef, "positive")
        _require(1.0 <= tsallis_q <= 2.0, "tsallis_q", tsallis_q, "between 1 and 2")
        _require(tsallis_mode in ("factorised", "joint"), "tsallis_mode", tsallis_mode, '"factorised" or "joint"')
        _require(old_policy_interval >= 1, "old_policy_interval", old_policy_interval, "at least 1")
        _require(critic_mode in ("v", "q"), "critic_mode", critic_mode, '"v" or "q"')
        _require(actor_q in ("q1", "min"), "actor_q", actor_q, '"q1" or "min"')
        self.bregman_coef = bregman_coef
        self.tsallis_q = tsallis_q
        self.tsallis_mode = tsallis_mode
        self.old_policy_interval = old_policy_interval
        self.critic_mode = critic_mode
        self.actor_q = actor_q
        self.reg_coef = reg_coef
        self.deterministic_rollouts = deterministic_rollouts
        self.old_policy_step = 0
        """Environment step at which the old policy was copied."""
        self.n_old_policies = 0
        """Copies made in this training."""
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        policy: Any = self.policy
        with torch.random.fork_rng(devices=[]):  # its weights are the actor's: no random number may go into them
            policy.old_actor = policy.make_actor().requires_grad_(False)
        policy.old_actor.set_training_mode(False)
        if self.critic_mode == "v":
            policy.value_net = state_value(policy)
            policy.value_net_target = state_value(policy).requires_grad_(False)
            policy.value_net_target.load_state_dict(policy.value_net.state_dict())
            policy.value_net_target.set_training_mode(False)
            policy.value_net.optimizer = policy.optimizer_class(
                policy.value_net.parameters(), lr=self.lr_schedule(1), **policy.optimizer_kwargs
            )
        self._name_networks()
        self.old_actor.load_state_dict(self.actor.state_dict())

    def _name_networks(self) -> None:
        policy: Any = self.policy
        self.old_actor: Actor = policy.old_actor
        if self.critic_mode == "v":
            self.value_net: StateValue = policy.value_net
            self.value_net_target: StateValue = policy.value_net_target

    # ---- the old policy ----------------------------------------------------------------------------------------
    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        out = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if reset_num_timesteps:
            self.n_old_policies = 0
            self._renew_old_policy()
        return out

    def _on_step(self) -> None:
        super()._on_step()
        if self.num_timesteps // self.old_policy_interval != self.old_policy_step // self.old_policy_interval:
            self._renew_old_policy()

    def _renew_old_policy(self) -> None:
        self.old_actor.load_state_dict(self.actor.state_dict())
        self.old_policy_step = self.num_timesteps
        self.n_old_policies += 1

    # ---- training ----------------------------------------------------------------------------------------------
    def engine_ineligible(self) -> str | None:
        """Why the fast path cannot run on this model as it is now; None if it can."""
        return soft_mirror_ineligible(self)

    def _new_engine(self) -> SoftMirrorEngine:
        return SoftMirrorEngine(self)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Gradient steps on actor and critics, in the order of the critic mode."""
        engine: SoftMirrorEngine | None = self.fast_engine()
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        if self.critic_mode == "v":
            optimizers.append(self.value_net.optimizer)
        self._update_learning_rate(optimizers)
        records = (
            self._train_on_autograd(gradient_steps, batch_size)
            if engine is None
            else self._train_on_flat_buffers(engine, gradient_steps, batch_size)
        )
        self._n_updates += gradient_steps
        for name, values in records.items():
            self.logger.record(f"train/{name}", np.mean(values))
        self.logger.record("train/ent_coef", self._temperature)
        self.logger.record("train/bregman_coef", self.bregman_coef)
        self.logger.record("train/old_policy_age", self.num_timesteps - self.old_policy_step)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _train_on_flat_buffers(
        self, engine: SoftMirrorEngine, gradient_steps: int, batch_size: int
    ) -> dict[str, list[float]]:
        terms = Terms(
            self.bregman_coef,
            self._temperature,
            self.tsallis_q,
            self.tsallis_mode == "joint",
            self.reg_coef,
            self.actor_q == "q1",
        )
        records: defaultdict[str, list[float]] = defaultdict(list)
        for gradient_step in range(gradient_steps):
            batch = engine.transitions.draw(self.replay_buffer, batch_size, self.gamma, self._vec_normalize_env)
            tau = self.tau if gradient_step % self.target_update_interval == 0 else None
            for name, figure in engine.step(batch, terms, tau).items():
                records[name].append(figure)
        return records

    def _train_on_autograd(self, gradient_steps: int, batch_size: int) -> dict[str, list[float]]:
        self.policy.set_training_mode(True)
        if self.critic_mode == "v":
            self.value_net.set_training_mode(True)
        step = self._step_with_state_values if self.critic_mode == "v" else self._step_with_target_critics
        records: defaultdict[str, list[float]] = defaultdict(list)

        for gradient_step in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)  # type: ignore[union-attr]
            if self.use_sde:
                self.actor.reset_noise()
            sampled = self._sample(data.observations)
            losses = step(data, sampled)
            if gradient_step % self.target_update_interval == 0:
                self._update_targets()
            for name, loss in losses.items():
                records[name].append(loss.item())
            records["kl_old"].append((sampled.log_probs - sampled.old_log_probs).detach().sum(1).mean().item())
        return records

    def _step_with_state_values(self, data: Any, sampled: SampledActions) -> dict[str, torch.Tensor]:
        """Actor first, then Q1, Q2 and V towards targets from the critics as they were before."""
        q_values = torch.cat(self.critic(data.observations, sampled.actions), dim=1)
        with torch.no_grad():
            value_target = q_values.min(1, keepdim=True).values - self._temperature * self._ln(sampled.log_probs)
            next_values = self.value_net_target(data.next_observations)
            target = data.rewards + (1 - data.dones) * self._discounts(data) * next_values
        actor_loss = self._improve_actor(sampled, q_values)
        critic_loss = self._fit_critics(data, target)
        value_loss = 0.5 * functional.mse_loss(self.value_net(data.observations), value_target)
        self.value_net.optimizer.zero_grad()
        value_loss.backward()
        self.value_net.optimizer.step()
        return {"actor_loss": actor_loss, "critic_loss": critic_loss, "value_loss": value_loss}

    def _step_with_target_critics(self, data: Any, sampled: SampledActions) -> dict[str, torch.Tensor]:
        """SAC's order: Q1 and Q2 first, then the actor on the new critics."""
        with torch.no_grad():
            following = self._sample(data.next_observations)
            next_q = torch.cat(self.critic_target(data.next_observations, following.actions), dim=1)
            next_values = next_q.min(1, keepdim=True).values - self._temperature * self._ln(following.log_probs)
            target = data.rewards + (1 - data.dones) * self._discounts(data) * next_values
        critic_loss = self._fit_critics(data, target)
        actor_loss = self._improve_actor(sampled, torch.cat(self.critic(data.observations, sampled.actions), dim=1))
        return {"actor_loss": actor_loss, "critic_loss": critic_loss}

    def _improve_actor(self, sampled: SampledActions, q_values: torch.Tensor) -> torch.Tensor:
        """One step on the actor; ``q_values`` float[N, critics] of the sampled actions."""
        q_value = q_values[:, :1] if self.actor_q == "q1" else q_values.min(1, keepdim=True).values
        ln_new, ln_old = self._ln(sampled.log_probs), self._ln(sampled.old_log_probs)
        loss = soft_mirror_step(ln_new, ln_old, q_value, self.bregman_coef, self._temperature, self.tsallis_q).mean()
        if self.reg_coef:
            loss = loss + self.reg_coef * (sampled.mean.square().mean() + sampled.log_std.square().mean())
        self.actor.optimizer.zero_grad()
        loss.backward(inputs=list(self.actor.parameters()))
        self.actor.optimizer.step()
        return loss

    def _fit_critics(self, data: Any, target: torch.Tensor) -> torch.Tensor:
        losses = [functional.mse_loss(q, target) for q in self.critic(data.observations, data.actions)]
        loss = 0.5 * torch.stack(losses).sum()
        self.critic.optimizer.zero_grad()
        loss.backward()
        self.critic.optimizer.step()
        return loss

    def _update_targets(self) -> None:
        networks: tuple[torch.nn.Module, torch.nn.Module]
        if self.critic_mode == "v":
            networks = self.value_net, self.value_net_target
        else:
            networks = self.critic, self.critic_target
        online, target = networks
        polyak_update(online.parameters(), target.parameters(), self.tau)
        statistics, target_statistics = (get_parameters_by_name(network, ["running_"]) for network in networks)
        polyak_update(statistics, target_statistics, 1.0)  # of batch normalisation, as in SAC

    @property
    def _temperature(self) -> float:
        return float(self.ent_coef)

    def _discounts(self, data: Any) -> Any:
        return self.gamma if data.discounts is None else data.discounts

    def _sample(self, observations: Any) -> SampledActions:
        """Actions of the actor, with their densities under the actor and under the old policy."""
        normal, mean, log_std, noise = self._gaussian(self.actor, observations)
        old_normal, *_ = self._gaussian(self.old_actor, observations)
        unsquashed = normal.rsample() if noise is None else normal.mean + noise
        actions = torch.tanh(unsquashed)
        correction = torch.log(1 - actions**2 + SQUASHING_FLOOR)
        return SampledActions(
            actions,
            normal.log_prob(unsquashed) - correction,
            old_normal.log_prob(unsquashed) - correction,
            mean,
            log_std,
        )

    def _gaussian(self, actor: Actor, observations: Any) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Normal distribution before squashing, its mean and log_std, and the noise of gSDE (None without it)."""
        mean, log_std, exploration = actor.get_action_dist_params(observations)
        distribution: Any = actor.action_dist.proba_distribution(mean, log_std, **exploration)
        if not self.use_sde:
            return distribution.distribution, mean, log_std, None
        noise = distribution.get_noise(exploration["latent_sde"])
        return distribution.distribution, mean, distribution.distribution.stddev.log(), noise

    def _ln(self, log_probs: torch.Tensor) -> torch.Tensor:
        """ln_q of densities given by components, float[N, D] -> float[N, 1]."""
        if self.tsallis_mode == "joint":
            log_probs = log_probs.sum(1, keepdim=True)
        return generalised_log(log_probs, self.tsallis_q).sum(1, keepdim=True)

    # ---- what SB3 asks of an algorithm -------------------------------------------------------------------------
    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        if not self.deterministic_rollouts or self.num_timesteps < learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        assert self._last_obs is not None
        action = self.policy.scale_action(self.predict(self._last_obs, deterministic=True)[0])
        if action_noise is not None:
            action = np.clip(action + action_noise(), -1, 1)
        return self.policy.unscale_action(action), action

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "OffPolicyMDPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "old_actor", "value_net", "value_net_target"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, *(["value_net.optimizer"] if self.critic_mode == "v" else [])], variables


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}, expected {expected}")
