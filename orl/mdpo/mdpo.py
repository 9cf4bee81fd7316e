"""MDPO: on-policy mirror descent policy optimisation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer, MaskableRolloutBuffer
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv

from orl.fast.masked_policies import masks_wanted, predict_masked
from orl.fast.ppo import Engine, FastOnPolicy
from orl.fast.rollouts import batch_of, buffer_ineligible, collect
from orl.mdpo.fast_step import MirrorEngine, mirror_ineligible
from orl.mdpo.mirror_descent import (
    bregman_divergence,
    clipped_value_loss,
    detached,
    factors,
    mirror_step_loss,
)


class MDPO(FastOnPolicy):
    """Mirror Descent Policy Optimization, on-policy (Tomar et al., arXiv 2005.09814).

    An iteration collects a rollout with the policy, computes GAE advantages and standardises them over the rollout,
    then takes ``n_policy_steps`` gradient steps on the whole rollout that maximise

        mean(ratio * advantage) - mean(KL(new || old)) / t,

    with KL(new || old) from the old policy in closed form; then the value function is fitted by its own optimiser. The
    step size t falls from ``1 + 1/K`` to ``2/K`` over the K iterations of the training.

    Discrete, MultiDiscrete, MultiBinary and Box actions. Where the env offers ``action_masks()``, illegal actions are
    masked as in sb3-contrib's MaskablePPO, and ``predict`` takes ``action_masks=``.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a policy class (of sb3-contrib's maskable
            kind for masked actions; the names become that kind by themselves).
        env: Environment, VecEnv or registered id.
        learning_rate: Of the policy; a number or an SB3 schedule.
        n_steps: Steps of each env in a rollout.
        n_policy_steps: Gradient steps on the policy per iteration, the paper's m. One step is a plain policy gradient.
            In 300,000 steps on MuJoCo 30 were better than the paper's 10 on three tasks of four
            (``benchmarks/mdpo_mujoco``).
        step_size: t: ``"linear"``, a number (constant), or a function of the remaining progress (see
            :meth:`mirror_step_size`).
        vf_learning_rate: Of the value function; a number or an SB3 schedule.
        vf_epochs: Passes over the rollout in which the value function is fitted.
        vf_batch_size: Minibatch of these passes; the rest of a pass that does not fill a minibatch is left out.
        clip_range_vf: Range in which a value may move from the old one before its loss is held; None: no clipping.
            It depends on the scale of the returns. A number or an SB3 schedule.
        gamma: Discount.
        gae_lambda: Lambda of generalised advantage estimation.
        normalize_advantage: Standardise advantages over the rollout.
        ent_coef: Weight of the entropy bonus in the loss.
        max_grad_norm: Largest global norm of the policy's gradient.
        tsallis_q: Order q of the divergence in [1, 2]: 1 is the KL divergence (:mod:`orl.mdpo.mirror_descent`).
        schedule_offset: Iterations by which ``step_size`` looks back from SB3's progress; 2 is the authors' code.
        use_masking: Mask illegal actions; None: where the env offers masks.
        use_sde: SB3's state-dependent exploration (Box actions), with ``sde_sample_freq``.
        rollout_buffer_class: As in SB3's PPO, as are ``rollout_buffer_kwargs``, ``stats_window_size``,
            ``tensorboard_log``, ``policy_kwargs``, ``verbose``, ``seed`` and ``device``.
        engine: ``"auto"`` runs rollouts and updates on flat buffers with hand-written gradients where the policy allows
            (:mod:`orl.fast`; MLPs on flat observations, on the CPU, q = 1) and on autograd elsewhere; ``"fast"`` raises
            elsewhere; ``"torch"`` always takes autograd and SB3's rollouts. The results agree to rounding.

    Raises:
        ValueError: A value outside its range, or a policy class that cannot mask although masks are asked for.

    >>> import gymnasium
    >>> model = MDPO("MlpPolicy", gymnasium.make("CartPole-v1"), n_steps=64, vf_batch_size=32, seed=0, device="cpu")
    >>> model.learn(128).num_timesteps
    128
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCriticPolicy,
        "CnnPolicy": ActorCriticCnnPolicy,
        "MultiInputPolicy": MultiInputActorCriticPolicy,
    }
    policy: Any

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy] | type[MaskableActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        n_policy_steps: int = 10,
        step_size: str | float | Schedule = "linear",
        vf_learning_rate: float | Schedule = 3e-4,
        vf_epochs: int = 5,
        vf_batch_size: int = 128,
        clip_range_vf: float | Schedule | None = 0.2,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        max_grad_norm: float = 0.5,
        tsallis_q: float = 1.0,
        schedule_offset: int = 2,
        use_masking: bool | None = None,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
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
            policy,  # type: ignore[arg-type]
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
        )
        _require(n_policy_steps >= 1, "n_policy_steps", n_policy_steps, "at least 1")
        _require(vf_epochs >= 0, "vf_epochs", vf_epochs, "at least 0")
        _require(vf_batch_size >= 1, "vf_batch_size", vf_batch_size, "at least 1")
        _require(1.0 <= tsallis_q <= 2.0, "tsallis_q", tsallis_q, "between 1 and 2")
        if isinstance(step_size, str):
            _require(step_size == "linear", "step_size", step_size, '"linear", a positive number or a function')
        elif not callable(step_size):
            _require(step_size > 0, "step_size", step_size, "positive")
        self.n_policy_steps = n_policy_steps
        self.step_size = step_size
        self.schedule_offset = schedule_offset
        self.vf_learning_rate = vf_learning_rate
        self.vf_epochs = vf_epochs
        self.vf_batch_size = vf_batch_size
        self.clip_range_vf = clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.tsallis_q = tsallis_q
        self.use_masking = masks_wanted(self, use_masking)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.vf_lr_schedule = FloatSchedule(self.vf_learning_rate)
        self.clip_range_vf_schedule = None if self.clip_range_vf is None else FloatSchedule(self.clip_range_vf)
        self.set_random_seed(self.seed)
        if self.rollout_buffer_class is None:
            plain = (MaskableRolloutBuffer, MaskableDictRolloutBuffer) if self.use_masking else _BUFFERS
            self.rollout_buffer_class = plain[isinstance(self.observation_space, spaces.Dict)]
        self.rollout_buffer = self.rollout_buffer_class(
            self.n_steps,
            self.observation_space,
            self.action_space,
            device=self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
        maskable = issubclass(self.policy_class, MaskableActorCriticPolicy)
        exploration = {} if maskable else {"use_sde": self.use_sde}
        policy_class: Any = self.policy_class
        policy = policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **exploration, **self.policy_kwargs
        )
        self.policy = policy.to(self.device)
        self._split_optimizer()
        self._maybe_recommend_cpu()
        rollout = self.n_steps * self.n_envs
        if self.vf_batch_size > rollout:
            warnings.warn(
                f"vf_batch_size={self.vf_batch_size} is more than {self.n_steps} steps of {self.n_envs} envs: "
                f"the value function is fitted to all {rollout} transitions at once",
                stacklevel=2,
            )

    def _split_optimizer(self) -> None:
        """Give policy and value function an optimiser each; parts that both use belong to the policy."""
        policy = self.policy
        modules = [policy.value_net]
        if hasattr(policy.mlp_extractor, "value_net"):
            modules.append(policy.mlp_extractor.value_net)
        if not policy.share_features_extractor:
            modules.append(policy.vf_features_extractor)
        self._value_parameters = [p for module in modules for p in module.parameters()]
        ours = {id(p) for p in self._value_parameters}
        self._policy_parameters = [p for p in policy.parameters() if id(p) not in ours]
        for name, parameters, rate in (
            ("optimizer", self._policy_parameters, self.lr_schedule(1)),
            ("value_optimizer", self._value_parameters, self.vf_lr_schedule(1)),
        ):
            setattr(policy, name, policy.optimizer_class(parameters, lr=rate, **policy.optimizer_kwargs))

    # ---- rollouts and engine -----------------------------------------------------------------------------------
    def engine_ineligible(self) -> str | None:
        """Why the fast path cannot run on this model as it is now; None if it can."""
        if self.tsallis_q != 1.0:
            return f"tsallis_q is {self.tsallis_q:g}, the fast path knows 1"
        return mirror_ineligible(self.policy) or buffer_ineligible(self.rollout_buffer)

    def _new_engine(self) -> MirrorEngine:
        return MirrorEngine(self.policy)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """SB3's rollout, sb3-contrib's masked one, or the same from the fast engine."""
        engine = self.fast_engine()
        if engine is not None and n_rollout_steps == rollout_buffer.buffer_size:
            self.policy.set_training_mode(False)
            return collect(self, engine, env, callback, rollout_buffer, use_masking=self.use_masking)
        if self.use_masking:
            masked: Any = MaskablePPO.collect_rollouts  # needs nothing of MaskablePPO but what is here too
            return bool(masked(self, env, callback, rollout_buffer, n_rollout_steps))
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    # ---- training ----------------------------------------------------------------------------------------------
    def mirror_step_size(self) -> float:
        """t of the iteration whose rollout has just been collected.

        Iteration k = 0, 1, ... of the ``K = total_timesteps // rollout`` of the training sees the progress
        ``1 - (k + 1 - schedule_offset) / K``, never less than ``1 / K``; ``"linear"`` is that progress. After a load
        and ``learn(..., reset_num_timesteps=False)``, the steps before and after count together.

        Raises:
            ValueError: A schedule of the user's returned no positive number.
        """
        rollout = self.n_steps * self.n_envs
        iterations = max(self._total_timesteps // rollout, 1)
        progress = 1.0 - (self.num_timesteps / rollout - self.schedule_offset) / iterations
        progress = max(progress, 1.0 / iterations)
        if isinstance(self.step_size, str):
            return progress
        step_size = float(self.step_size(progress) if callable(self.step_size) else self.step_size)
        _require(step_size > 0, f"step_size at progress {progress:g}", step_size, "positive")
        return step_size

    def train(self) -> None:
        """One mirror-descent step of the policy on the rollout, then the fit of the value function."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        update_learning_rate(self.policy.value_optimizer, self.vf_lr_schedule(self._current_progress_remaining))
        t = self.mirror_step_size()
        if (engine := self.fast_engine()) is None:
            batch = next(self.rollout_buffer.get(batch_size=None))  # the whole rollout, shuffled
            figures = self._improve_policy(batch, self._standardised(batch.advantages), t)
            value_losses = [self._fit_values(batch, rows) for rows in self._minibatches()]
        else:
            assert isinstance(engine, MirrorEngine)
            flat = batch_of(self.rollout_buffer, engine)
            shuffled = np.random.permutation(len(flat.returns))  # noqa: NPY002 - the shuffle of SB3's buffer
            advantages = self._standardised(torch.from_numpy(flat.advantages)).numpy()
            figures = engine.improve_policy(flat, advantages, t, self.n_policy_steps, self.ent_coef, self.max_grad_norm)
            clip_range = self._clip_range_vf()
            value_losses = [engine.fit_values(flat, shuffled[rows], clip_range) for rows in self._minibatches()]

        self._n_updates += self.n_policy_steps
        for name, figure in figures.items():
            self.logger.record(f"train/{name}", figure)
        self.logger.record("train/step_size", t)
        self.logger.record("train/value_loss", np.mean(value_losses) if value_losses else float("nan"))
        returns, values = self.rollout_buffer.returns.flatten(), self.rollout_buffer.values.flatten()
        self.logger.record("train/explained_variance", explained_variance(values, returns))
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", torch.exp(self.policy.log_std).mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _improve_policy(self, batch: Any, advantages: torch.Tensor, t: float) -> dict[str, float]:
        """``n_policy_steps`` full-batch steps from the old policy; figures of the policy that they reach."""
        actions = batch.actions.long().flatten() if isinstance(self.action_space, spaces.Discrete) else batch.actions
        with torch.no_grad():
            distribution = self._distribution(batch)
            old, old_log_prob = detached(factors(distribution)), distribution.log_prob(actions)
        gradient_norm = torch.zeros(())
        for _ in range(self.n_policy_steps):
            distribution = self._distribution(batch)
            log_prob = distribution.log_prob(actions)
            divergence = bregman_divergence(factors(distribution), old, self.tsallis_q)
            loss = mirror_step_loss(log_prob, old_log_prob, advantages, divergence, t)
            loss = loss - self.ent_coef * _entropy(distribution, log_prob)

            self.policy.optimizer.zero_grad()
            loss.backward()
            gradient_norm = torch.nn.utils.clip_grad_norm_(self._policy_parameters, self.max_grad_norm)
            self.policy.optimizer.step()

        with torch.no_grad():
            distribution = self._distribution(batch)
            log_prob, new = distribution.log_prob(actions), factors(distribution)
            ratio, kl = torch.exp(log_prob - old_log_prob), bregman_divergence(new, old)
            figures = {
                "policy_gradient_loss": -(ratio * advantages).mean(),
                "entropy_loss": -_entropy(distribution, log_prob),
                "kl": kl.mean(),
                "kl_max": kl.max(),
                "ratio_max": ratio.max(),
                "policy_grad_norm": gradient_norm,
            }
            if self.tsallis_q != 1.0:
                figures["divergence"] = bregman_divergence(new, old, self.tsallis_q).mean()
        return {name: figure.item() for name, figure in figures.items()}

    def _fit_values(self, batch: Any, rows: npt.NDArray[np.int64]) -> float:
        """One step of the value function on some transitions of the batch; returns the loss before it."""
        chosen = torch.as_tensor(rows, device=self.device)
        values = self.policy.predict_values(_rows(batch.observations, chosen)).flatten()
        loss = clipped_value_loss(values, batch.old_values[chosen], batch.returns[chosen], self._clip_range_vf())
        self.policy.value_optimizer.zero_grad()
        loss.backward(inputs=self._value_parameters)
        self.policy.value_optimizer.step()
        return loss.item()

    def _minibatches(self) -> Iterator[npt.NDArray[np.int64]]:
        """Rows of the minibatches of ``vf_epochs`` passes, shuffled; a last one that is not full is left out."""
        n = self.n_steps * self.n_envs
        size = min(self.vf_batch_size, n)
        for _ in range(self.vf_epochs):
            order = np.random.permutation(n)  # noqa: NPY002 - SB3's seeded stream
            for start in range(0, n - size + 1, size):
                yield order[start : start + size]

    def _standardised(self, advantages: torch.Tensor) -> torch.Tensor:
        if not self.normalize_advantage:
            return advantages
        return (advantages - advantages.mean()) / (advantages.std(unbiased=False) + 1e-8)

    def _clip_range_vf(self) -> float | None:
        if self.clip_range_vf_schedule is None:
            return None
        return self.clip_range_vf_schedule(self._current_progress_remaining)

    def _distribution(self, batch: Any) -> Any:
        """Distribution of the policy's actions in the states of the batch, under their masks."""
        if self.use_masking:
            return self.policy.get_distribution(batch.observations, action_masks=batch.action_masks)
        return self.policy.get_distribution(batch.observations)

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """As in SB3; ``action_masks`` bool[A] or bool[N, A] where the policy can mask.

        Raises:
            ValueError: Masks for a policy that cannot take them.
        """
        maskable = action_masks is None or isinstance(self.policy, MaskableActorCriticPolicy)
        if deterministic and maskable and (actions := self._greedy(observation, action_masks)) is not None:
            return actions, state
        return predict_masked(self.policy, observation, state, episode_start, deterministic, action_masks)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "MDPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_policy_parameters", "_value_parameters"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer", "policy.value_optimizer"], []


_BUFFERS = (RolloutBuffer, DictRolloutBuffer)


def _entropy(distribution: Any, log_prob: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the batch; by samples where there is no closed form, as in SB3's PPO."""
    entropy = distribution.entropy()
    return -log_prob.mean() if entropy is None else entropy.mean()


def _rows(observations: Any, rows: torch.Tensor) -> Any:
    if isinstance(observations, Mapping):
        return {key: value[rows] for key, value in observations.items()}
    return observations[rows]


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}, expected {expected}")
