"""PDPPO: proximal policy optimisation that looks at a step in two halves, the decision and the noise after it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv

from orl.common.errors import InputError
from orl.common.post_decision import exogenous_sampler, post_decision_reader
from orl.fast.masked_policies import masks_wanted, predict_masked
from orl.fast.ppo import Engine, FastOnPolicy, train_fast
from orl.fast.ppo_step import ActorCriticEngine
from orl.fast.rollouts import collect
from orl.pdppo.advantages import MODES, Mode, Rollout, episode_ends, estimate
from orl.pdppo.autograd_step import train_on_autograd
from orl.pdppo.fast_step import OneCriticEngine, PostBatch, TwoCriticsEngine, post_critic_ineligible
from orl.pdppo.lookahead import LookaheadPolicy
from orl.pdppo.post_critic import PostCritic, same_layout
from orl.pdppo.rollout import FinishFirst, PostDecisionRecord, StepWatch, Values, values_in_chunks

SPACE = "post_decision_space"


class PDPPO(FastOnPolicy, PPO):
    """Post-Decision Proximal Policy Optimization (after Felizardo et al., IJCNN 2025, arXiv 2504.05150).

    PPO for environments whose step is a decision with a known outcome followed by exogenous noise
    (:class:`orl.common.protocols.PostDecision`), with a second critic V^x for the state between the two. Policy and
    state critic V are SB3's, with its optimiser and its losses; what changes is the advantage, and the targets. V^x has
    an optimiser and a gradient clipping of its own and is fitted on the same minibatches.

    The modes and their targets are those of :func:`orl.pdppo.advantages.estimate`: ``"interleaved"`` (the default:
    GAE in half steps, in which ``stochastic_lambda`` = lx damps what the noise contributes), ``"max_full"``,
    ``"paper_max"`` (the published rule: each critic predicts its own stream of rewards, the larger advantage counts),
    ``"early_min"`` (an older version of it) and ``"pre"`` (plain PPO on any environment, without a post-decision
    critic; with ``engine="torch"`` bit for bit that of SB3 or, where actions are masked, of sb3-contrib).

    **Averages over the noise.** With ``n_exogenous_samples`` = K > 1 the environment draws the noise of every step
    another K - 1 times from the same post-decision state (:class:`orl.common.protocols.ExogenousSampler`). Then

        A_t = delta^d_t + lx (mean_K delta^w_t + gamma lambda A_{t+1}),    delta^w = r^w + gamma V(s') - V^x(s^x),

    where A_{t+1} is that of the path that happened. The targets hold the same averages: with
    ``c_t = mean_K(r^w + gamma V(s')) - (r^w_t + gamma V(s_{t+1}))``, whose expectation is zero, every mode is computed
    from ``r_t + c_t`` and ``r^w_t + c_t``. So V is fitted to ``R_t = A^pre_t + V(s_t)``, with A^pre the advantage above
    for lx = 1, and V^x to ``R^x_t = r^w_t + c_t + gamma R_{t+1}``. K = 1 is the plain mode to the last bit. It uses the
    environment's model: say so where you compare.

    Given the same seed, policy weights, actions and minibatches begin as those of SB3's PPO in every mode. At lx = 1
    and K = 1, V^x cancels from ``"interleaved"``, and the run is that of PPO to the last bit.

    Args:
        policy, env, learning_rate, ...: As in ``stable_baselines3.PPO``, ``env`` with post-decision data for every mode
            but ``"pre"``. Policies given by name take masks where the environment offers them. ``policy_kwargs`` may
            hold ``net_arch=dict(pi=..., vf=..., vfx=...)``; V^x has the layers of V unless ``vfx`` says otherwise.
            ``clip_range_vf`` holds for both critics.
        advantage: ``"interleaved"``, ``"max_full"``, ``"paper_max"``, ``"early_min"`` or ``"pre"``.
        stochastic_lambda: lx in [0, 1] of ``"interleaved"``.
        n_critics: 2; or 1: V itself values post-decision observations, too, and the sum of its two values is fitted to
            the sum of the two targets (as the authors' variant with one critic does).
        post_vf_coef: Weight of V^x's loss; with Adam it matters for the gradient clipping only. At 0 V^x is not
            trained, which saves its time where it cancels (``"interleaved"`` at lx = 1).
        post_learning_rate: Of V^x; None: ``learning_rate``.
        gae_lambda_post: Lambda of the stream of deterministic rewards in ``"paper_max"``; None: ``gae_lambda``. The
            published rule has both at 1 (Monte Carlo).
        n_exogenous_samples: K, counting the draw that happens.
        use_masking: Mask illegal actions; None: where the environment offers masks.
        engine: ``"auto"``, ``"fast"`` or ``"torch"``, see :class:`~orl.fast.engine_choice.EngineChoice`.

    Logged beside PPO's keys: ``train/post_value_loss``, ``train/post_explained_variance``, ``rollout/adv_corr`` (of the
    advantages of the two critics) and, in the modes with a maximum, ``rollout/adv_post_share`` (how often it is that of
    V^x).

    Raises:
        InputError: A value outside its range; at ``learn``: an environment without post-decision data, or with
            K > 1 without further draws; ``engine="fast"`` where it cannot run.

    >>> from orl.common.post_decision import FunctionalPostDecision
    >>> import gymnasium
    >>> env = FunctionalPostDecision(gymnasium.make("CartPole-v1"), lambda observation, action: (observation, 1.0))
    >>> model = PDPPO("MlpPolicy", env, n_steps=64, advantage="max_full", seed=0, device="cpu")
    >>> model.learn(128).num_timesteps, model.engine_in_use
    (128, 'fast')
    """

    policy: Any
    post_critic: PostCritic | None = None
    post_decision_space: spaces.Space[Any] | None = None
    _record: PostDecisionRecord | None = None
    _watch: StepWatch | None = None

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy] | type[MaskableActorCriticPolicy],
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
        advantage: Mode = "interleaved",
        stochastic_lambda: float = 1.0,
        n_critics: int = 2,
        post_vf_coef: float = 0.5,
        post_learning_rate: float | Schedule | None = None,
        gae_lambda_post: float | None = None,
        n_exogenous_samples: int = 1,
        use_masking: bool | None = None,
        engine: Engine = "auto",
    ) -> None:
        self._set_engine(engine)
        super().__init__(
            policy,  # type: ignore[arg-type]
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
            _init_setup_model=False,
        )
        _require(advantage in MODES, "advantage", advantage, f"one of {MODES}")
        _require(0.0 <= stochastic_lambda <= 1.0, "stochastic_lambda", stochastic_lambda, "between 0 and 1")
        _require(n_critics in (1, 2), "n_critics", n_critics, "1 or 2")
        _require(n_exogenous_samples >= 1, "n_exogenous_samples", n_exogenous_samples, "at least 1")
        if advantage == "pre" and n_exogenous_samples > 1:
            raise InputError(
                "plain PPO takes no further draws",
                field="n_exogenous_samples",
                value=n_exogenous_samples,
                expected="1, or advantage='interleaved', which is PPO with averages at stochastic_lambda=1",
            )
        self.advantage: Mode = advantage
        self.stochastic_lambda = stochastic_lambda
        self.n_critics = n_critics
        self.post_vf_coef = post_vf_coef
        self.post_learning_rate = post_learning_rate
        self.gae_lambda_post = gae_lambda_post
        self.n_exogenous_samples = n_exogenous_samples
        self.return_statistics = (0.0, 1.0)
        """Mean and deviation of the last rollout's returns, which the critics of ``"early_min"`` are scaled with."""
        self.use_masking = masks_wanted(self, use_masking)
        if self.env is not None and advantage != "pre":
            self.post_decision_space = _space_of(self.env)
        if _init_setup_model:
            self._setup_model()

    # ---- networks and engine -----------------------------------------------------------------------------------
    def _setup_model(self) -> None:
        setup: Any = MaskablePPO._setup_model if self._takes_masks else PPO._setup_model
        setup(self)
        self._post_lr_schedule = (
            self.lr_schedule if self.post_learning_rate is None else FloatSchedule(self.post_learning_rate)
        )
        self.post_critic = None
        self._build_post_critic()

    def _build_post_critic(self) -> None:
        """Draw the post-decision critic, if there is to be one, and leave torch's generator as it was."""
        if self.advantage == "pre" or self.n_critics == 1 or self.post_decision_space is None:
            return
        with torch.random.fork_rng(devices=[]):
            critic = PostCritic(self.post_decision_space, self.policy, self._post_lr_schedule(1))
        self.post_critic = critic.to(self.device)

    @property
    def _takes_masks(self) -> bool:
        return issubclass(self.policy_class, MaskableActorCriticPolicy)

    def engine_ineligible(self) -> str | None:
        """Why the fast path cannot run on this model as it is now; None if it can."""
        reason = super().engine_ineligible()
        return reason or (None if self.post_critic is None else post_critic_ineligible(self.post_critic))

    def _new_engine(self) -> ActorCriticEngine:
        if self.advantage == "pre":
            return ActorCriticEngine(self.policy)
        return OneCriticEngine(self.policy) if self.n_critics == 1 else TwoCriticsEngine(self.policy, self.post_critic)

    # ---- rollouts ----------------------------------------------------------------------------------------------
    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.advantage != "pre" and self.env is not None:
            self._watch_post_decisions(self.env)
        return super()._setup_learn(*args, **kwargs)

    def _watch_post_decisions(self, env: VecEnv) -> None:
        """Make ready to note post-decision data.

        Raises:
            InputError: The environment has none, or others than the critic was made for, or no further draws.
        """
        space = _space_of(env)
        if space is None:
            raise InputError(
                f"advantage={self.advantage!r} needs post-decision data, and the environment has none",
                field="env",
                value=env,
                expected=f"the attribute {SPACE} and those beside it (orl.common.protocols.PostDecision); "
                "orl.common.post_decision.FunctionalPostDecision adds them, advantage='pre' does without",
            )
        if self.post_decision_space is None:
            self.post_decision_space = space
            self._build_post_critic()
        for known in (self.post_decision_space, *([self.observation_space] if self.n_critics == 1 else [])):
            if not same_layout(known, space):
                raise InputError(
                    "no critic of this model reads these post-decision observations",
                    field=SPACE,
                    value=space,
                    expected=f"the layout of {known}",
                )
        draws = None
        if self.n_exogenous_samples > 1:
            draws = exogenous_sampler(env, self.seed)
            if draws is None:
                raise InputError(
                    "the environment cannot draw its noise again",
                    field="n_exogenous_samples",
                    value=self.n_exogenous_samples,
                    expected="1, or an environment with orl.common.protocols.ExogenousSampler or PostDecisionModel",
                )
        read = post_decision_reader(env)
        self._record = PostDecisionRecord(self.n_steps, env.num_envs, read, draws, self.n_exogenous_samples)
        self._watch = StepWatch(env, self._record)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """SB3's rollout, sb3-contrib's masked one, or the same from the fast engine; with post-decision data."""
        engine = self.fast_engine()
        watched: Any = callback
        if self._record is not None:
            assert self._watch is not None
            values = self._state_values(engine)
            if self.advantage == "early_min":
                values = partial(_rescaled, values, *self.return_statistics)
            self._record.begin(self.gamma, values)
            env, watched = self._watch, FinishFirst(callback, partial(self._finish_rollout, engine, self._record))
        if engine is not None and n_rollout_steps == rollout_buffer.buffer_size:
            self.policy.set_training_mode(False)
            return collect(self, engine, env, watched, rollout_buffer, use_masking=self.use_masking)
        if self._takes_masks:
            masked: Any = MaskablePPO.collect_rollouts  # needs nothing of MaskablePPO but what is here too
            return bool(masked(self, env, watched, rollout_buffer, n_rollout_steps, self.use_masking))
        return super().collect_rollouts(env, watched, rollout_buffer, n_rollout_steps)

    def _state_values(self, engine: Any) -> Values:
        """V as a function of batches of observations."""
        if engine is not None:
            return lambda observations: engine.values(engine.features(observations))
        return partial(values_in_chunks, self.policy.predict_values, self.device)

    def _post_values(self, engine: Any) -> Values:
        """V^x as a function of batches of post-decision observations."""
        if engine is not None:
            return lambda observations: engine.post_values(engine.post_features(observations))
        if self.post_critic is None:
            return self._state_values(None)
        self.post_critic.set_training_mode(False)
        return partial(values_in_chunks, self.post_critic, self.device)

    def _finish_rollout(self, engine: Any, record: PostDecisionRecord) -> None:
        """Write advantages and targets of the mode into the buffer and the record."""
        buffer = self.rollout_buffer
        shape = buffer.rewards.shape
        ends = episode_ends(buffer.episode_starts, self._last_episode_starts)  # type: ignore[arg-type]
        bootstrap = np.where(record.truncated, buffer.rewards - record.rewards, np.float32(0.0))
        record.post_values[...] = self._post_values(engine)(_one_axis(record.post_observations)).reshape(shape)
        result = estimate(
            self.advantage,
            Rollout(
                rewards=buffer.rewards,
                deterministic=record.deterministic,
                stochastic=record.stochastic + bootstrap,
                values=buffer.values,
                post_values=record.post_values,
                last_values=self._state_values(engine)(self._last_obs),
                ends=ends,
                truncated=record.truncated,
                bootstrap=bootstrap,
                other_draws=record.other_draws if self.n_exogenous_samples > 1 else None,
                n_draws=self.n_exogenous_samples,
            ),
            self.gamma,
            self.gae_lambda,
            self.gae_lambda if self.gae_lambda_post is None else self.gae_lambda_post,
            self.stochastic_lambda,
            self.return_statistics,
        )
        buffer.advantages[...], buffer.returns[...] = result.advantages, result.returns
        record.post_returns[...] = result.post_returns
        self.return_statistics = result.statistics
        if result.plain.std() > 0 and result.decisions.std() > 0:
            correlation = np.corrcoef(result.plain.ravel(), result.decisions.ravel())[0, 1]
            self.logger.record("rollout/adv_corr", float(correlation))
        if self.advantage != "interleaved":
            self.logger.record("rollout/adv_post_share", float((result.decisions > result.plain).mean()))

    # ---- training ----------------------------------------------------------------------------------------------
    def train(self) -> None:
        """PPO's update of policy and state critic, and one of the post-decision critic on the same minibatches."""
        engine, record = self.fast_engine(), self._record
        if record is None:
            self._train_plain(engine)
            return
        progress = self._current_progress_remaining
        if self.post_critic is not None:
            update_learning_rate(self.post_critic.optimizer, self._post_lr_schedule(progress))
        schedule: Any = self.clip_range_vf
        clip_range_vf = None if schedule is None else schedule(progress)
        if isinstance(engine, TwoCriticsEngine | OneCriticEngine):
            losses: list[float] = []
            engine.post_batch = PostBatch(
                engine.post_features(record.flat(record.post_observations)),
                record.flat(record.post_values),
                record.flat(record.post_returns),
                self.post_vf_coef,
                clip_range_vf,
                losses,
            )
            train_fast(self, engine)
        else:
            losses = train_on_autograd(self, record, clip_range_vf)
        if losses:
            self.logger.record("train/post_value_loss", np.mean(losses))
        explained = explained_variance(record.post_values.ravel(), record.post_returns.ravel())
        self.logger.record("train/post_explained_variance", explained)

    def _train_plain(self, engine: ActorCriticEngine | None) -> None:
        if engine is not None:
            train_fast(self, engine)
        elif self._takes_masks:
            masked: Any = MaskablePPO.train
            masked(self)
        else:
            super().train()

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PDPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    # ---- prediction --------------------------------------------------------------------------------------------
    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """As in SB3; ``action_masks`` bool[A] or bool[N, A] where the policy can mask. Needs no post-decision data.

        Raises:
            ValueError: Masks for a policy that cannot take them.
        """
        maskable = action_masks is None or isinstance(self.policy, MaskableActorCriticPolicy)
        if deterministic and maskable and (actions := self._greedy(observation, action_masks)) is not None:
            return actions, state
        return predict_masked(self.policy, observation, state, episode_start, deterministic, action_masks)

    def predict_lookahead(self, env: Any, n_samples: int = 0, max_actions: int = 1024) -> npt.NDArray[Any]:
        """Actions [N, ...] of a :class:`~orl.pdppo.lookahead.LookaheadPolicy` in the present states of ``env``.

        All legal actions are scored; make the policy itself where there are more than ``max_actions``, or to act for
        longer.

        Raises:
            InputError: See there; or there are more legal actions.
        """
        actions, _ = LookaheadPolicy(self, env, n_samples, max_actions).predict(None)
        return actions

    def predict_values(self, observations: Any) -> npt.NDArray[np.float32]:
        """V float32[B] of a batch of observations (an array, or a dict of arrays)."""
        self.policy.set_training_mode(False)
        return self._state_values(None)(observations)

    def predict_post_values(self, observations: Any) -> npt.NDArray[np.float32]:
        """V^x float32[B] of a batch of post-decision observations.

        Raises:
            InputError: The model has no critic of them.
        """
        if self.advantage == "pre" or (self.n_critics == 2 and self.post_critic is None):
            raise InputError("the model has no post-decision critic", field="advantage", value=self.advantage)
        self.policy.set_training_mode(False)
        return self._post_values(None)(observations)

    # ---- persistence -------------------------------------------------------------------------------------------
    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "post_critic", "_record", "_watch", "_post_lr_schedule"]

    def __getstate__(self) -> dict[str, Any]:
        """Pickles and copies leave out what ``learn`` makes again."""
        return {key: value for key, value in super().__getstate__().items() if key not in ("_record", "_watch")}

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, variables = super()._get_torch_save_params()
        return (names if self.post_critic is None else [*names, "post_critic", "post_critic.optimizer"]), variables


def _space_of(env: VecEnv) -> spaces.Space[Any] | None:
    """Space of the post-decision observations of a batch, None if it has none."""
    return env.get_attr(SPACE)[0] if env.has_attr(SPACE) else None


def _one_axis(array: Any) -> Any:
    """[T, N, ...] as [T * N, ...], and dicts of such arrays."""
    if isinstance(array, Mapping):
        return {key: _one_axis(part) for key, part in array.items()}
    return array.reshape(-1, *array.shape[2:])


def _rescaled(values: Values, mean: float, deviation: float, observations: Any) -> npt.NDArray[np.float32]:
    return values(observations) * np.float32(deviation) + np.float32(mean)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError("not allowed", field=name, value=value, expected=expected)
