"""TSDDR: two-stage deep decision rules as an SB3 algorithm."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from orl.common import counter_noise
from orl.common.errors import InputError
from orl.common.protocols import SoftTargetModel, TargetModel
from orl.tsddr.models import Mode, check_mode, check_spaces, target_model_of
from orl.tsddr.paths import Floats, Path, Simulation, follow, simulate, state_gradient
from orl.tsddr.policies import Dtype, LinearTarget, LSTMTarget, MLPTarget, TargetPolicy
from orl.tsddr.schedules import CosineDecay, PenaltySchedule, annealed

PANEL_KEY = np.uint64(0x7364_6472_7061_6E65)
"""Key of the noise of evaluations: the same for every seed, and never that of a training."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """The episodes of an update: their noise float64[T, B, m] and the path of the policy along it."""

    noise: Floats
    path: Path


class TSDDR(BaseAlgorithm):
    """Two-stage deep decision rules (Rosemberg et al., arXiv 2405.14973).

    A policy names the next state, a convex programme finds the cheapest way to it, and the programme's duals say how
    the cost changes with the state named: with them, the gradient of an episode's cost runs back through all its stages
    to the parameters of the policy. There is no critic, no exploration and no sampled gradient of the reward. What it
    takes is a model of the environment, ``target_model()`` (:class:`orl.common.protocols.TargetModel`); the
    environment itself is not stepped.

    ``mode="strict"`` names states that can be reached (the environment's actions are fractions of what is reachable).
    The states are then data of the programmes, every stage is priced by itself, and the gradient is exact:
    dJ/dx_t is the derivative of stage t by where it ends plus that of stage t + 1 by where it begins.

    ``mode="soft"`` is the published form: actions are targets that need not be reachable, one programme over all stages
    of an episode (or over ``window`` of them) follows them as well as pays, and a penalty for every unit missed is part
    of the training's loss. These programmes know the noise ahead; so costs are always reported of the environment
    itself, where each target is moved to the nearest reachable state.

    An update draws ``batch_size`` episodes and counts as ``n_stages * batch_size`` time steps. Callbacks hear of each
    ``n_envs`` steps, as those of SB3 do, before the gradient step of the update. Every ``eval_freq`` updates and at the
    end the policy plays a panel of ``n_eval_episodes`` that is the same for all trainings in this environment; the
    parameters of the least mean cost are what ``learn`` leaves behind, also when Ctrl-C ends it.

    Logged: ``train/cost`` (mean cost of the update's episodes, in the model's unit), ``train/gradient_norm``,
    ``train/learning_rate``, ``train/n_updates``, soft also ``train/violation_share`` (of the programmes' costs with
    penalties, the share of the penalties) and ``train/penalty``; ``eval/cost``, ``eval/best_cost``; ``time/...`` as in
    SB3.

    Args:
        policy: ``"LSTMTarget"``, ``"MLPTarget"`` (also ``"MlpPolicy"``), ``"LinearTarget"`` or a
            :class:`~orl.tsddr.policies.TargetPolicy` class.
        env: Environment, VecEnv or registered id with ``target_model()``.
        learning_rate: Of Adam. A number falls along a half cosine to ``final_lr_share`` of itself; an SB3 schedule is
            taken as it is.
        batch_size: Episodes of an update.
        mode: ``"strict"`` or ``"soft"``.
        window: Soft mode: stages of one programme; None: all.
        penalty: Soft mode: price of a unit missed; ``"auto"``: the model's own, above any value of a unit.
        penalty_schedule: Soft mode: factor of the penalty as a function of the remaining progress, or ``"annealed"``
            (:func:`orl.tsddr.schedules.annealed`); None: 1.
        n_eval_episodes: Episodes of the panel.
        eval_freq: Updates between evaluations; 0: never, and ``learn`` leaves the last parameters behind.
        keep_best: Whether ``learn`` leaves the best evaluated parameters behind rather than the last.
        final_lr_share: See ``learning_rate``; 1 keeps a number constant.
        max_grad_norm: Largest norm of the gradient; None: any.
        policy_kwargs: Of the policy (:class:`~orl.tsddr.policies.TargetPolicy`): ``lstm_hidden``, ``net_arch``,
            ``stretch``, ``squash`` ...
        dtype: Of the policy, ``"float64"`` or ``"float32"``.
        stats_window_size: As in SB3, as are ``tensorboard_log``, ``verbose``, ``seed``.
        device: Of the policy. Stages follow one another, so a small policy is quicker on the CPU.

    Raises:
        InputError: no ``target_model()``, one that does not fit the mode, or a value outside its range.

    >>> import gymnasium
    >>> env = gymnasium.make("orl:orl/Hydrothermal-v0", instance="tri3")
    >>> model = TSDDR("MLPTarget", env, batch_size=4, seed=0).learn(64)
    >>> model.num_timesteps
    64
    >>> observation, _ = env.reset(seed=1)
    >>> model.predict(observation)[0].shape
    (3,)
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "LSTMTarget": LSTMTarget,
        "MLPTarget": MLPTarget,
        "LinearTarget": LinearTarget,
        "MlpPolicy": MLPTarget,
    }
    policy: TargetPolicy

    def __init__(
        self,
        policy: str | type[TargetPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-2,
        batch_size: int = 16,
        mode: Mode = "strict",
        window: int | None = None,
        penalty: float | Literal["auto"] = "auto",
        penalty_schedule: PenaltySchedule | Literal["annealed"] | None = None,
        n_eval_episodes: int = 30,
        eval_freq: int = 25,
        keep_best: bool = True,
        final_lr_share: float = 0.02,
        max_grad_norm: float | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        dtype: Dtype = "float64",
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        _require(batch_size >= 1, "batch_size", batch_size, ">= 1")
        _require(mode in ("strict", "soft"), "mode", mode, "'strict' or 'soft'")
        _require(window is None or window >= 1, "window", window, "None or >= 1")
        _require(penalty == "auto" or _positive(penalty), "penalty", penalty, "'auto' or a positive number")
        known = penalty_schedule in (None, "annealed") or callable(penalty_schedule)
        _require(known, "penalty_schedule", penalty_schedule, "None, 'annealed' or a function")
        _require(n_eval_episodes >= 1, "n_eval_episodes", n_eval_episodes, ">= 1")
        _require(eval_freq >= 0, "eval_freq", eval_freq, ">= 0")
        _require(0.0 <= final_lr_share <= 1.0, "final_lr_share", final_lr_share, "between 0 and 1")
        _require(max_grad_norm is None or max_grad_norm > 0, "max_grad_norm", max_grad_norm, "None or positive")
        self.batch_size, self.mode, self.window = batch_size, mode, window
        self.penalty, self.penalty_schedule = penalty, penalty_schedule
        self.n_eval_episodes, self.eval_freq, self.keep_best = n_eval_episodes, eval_freq, keep_best
        self.final_lr_share, self.max_grad_norm, self.dtype = final_lr_share, max_grad_norm, dtype
        self._noise_key = int(counter_noise.draw_key(np.random.default_rng(seed)))
        self._best: dict[str, npt.NDArray[Any]] | None = None
        self.best_cost = float("inf")
        """Mean cost on the panel of the best parameters so far."""
        self.target_model: TargetModel | None = None
        if self.env is not None:
            self.target_model = self._model_of(self.env)
            self.state_at = self.target_model.state_at
        if _init_setup_model:
            self._setup_model()

    def _model_of(self, env: VecEnv) -> TargetModel:
        if getattr(unwrap_vec_normalize(env), "norm_obs", False):
            expected = "no VecNormalize, or norm_obs=False: features of a target model are scaled already"
            raise InputError("the observations are normalised", field="env", value=env, expected=expected)
        model = target_model_of(env)
        check_spaces(model, env.observation_space, env.action_space)
        return model

    def _setup_model(self) -> None:
        if self.target_model is not None:
            check_mode(self.target_model, self.mode)
        rate = self.learning_rate
        self.lr_schedule = FloatSchedule(rate if callable(rate) else CosineDecay(rate, self.final_lr_share))
        self.set_random_seed(self.seed)
        policy_class: Any = self.policy_class
        self.policy = policy_class(
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            **{"state_at": self.state_at, "dtype": self.dtype, **self.policy_kwargs},
        ).to(self.device)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """As in SB3; the new environment has a ``target_model()`` too, and the best cost is of it alone.

        Raises:
            InputError: it has none, or one that does not fit the mode.
        """
        env = self._wrap_env(env, self.verbose)
        model = self._model_of(env)
        check_mode(model, self.mode)
        super().set_env(env, force_reset)
        self.target_model = model
        self._best, self.best_cost = None, float("inf")

    @classmethod
    def load(cls, path: Any, env: GymEnv | None = None, *args: Any, **kwargs: Any) -> Self:
        """As in SB3; with an environment, the best parameters are priced anew in it: it may be another problem."""
        model = super().load(path, env, *args, **kwargs)
        if model.target_model is not None and model._best is not None:
            present = model._copied_parameters()
            model._take_parameters(model._best)
            model.best_cost = model.evaluate()
            model._take_parameters(present)
        return model

    # ---- training ----------------------------------------------------------------------------------------------
    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 10,
        tb_log_name: str = "TSDDR",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for at least ``total_timesteps`` stages; ``log_interval`` counts updates.

        Raises:
            InputError: the model was loaded without an environment.
        """
        model = self._model()
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        updates, evaluated = 0, True
        try:
            while self.num_timesteps < total_timesteps:
                rollout = self.collect_rollouts(model, callback)
                if rollout is None:
                    break
                self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
                self.train(rollout)
                updates += 1
                evaluated = self.eval_freq == 0 or self._n_updates % self.eval_freq == 0
                if evaluated and self.eval_freq:
                    self._note_best()
                if log_interval is not None and updates % log_interval == 0:
                    self.dump_logs(updates)
            if not evaluated:
                self._note_best()
        finally:
            self._restore_best()
        callback.on_training_end()
        return self

    def collect_rollouts(self, model: TargetModel, callback: BaseCallback) -> Rollout | None:
        """Draw the episodes of an update and follow the policy through them; None when a callback ends the training."""
        callback.on_rollout_start()
        self.policy.set_training_mode(True)
        noise = model.draw(self._keys())
        rollout = Rollout(noise, follow(self.policy, model, noise))
        steps = model.n_stages * self.batch_size
        for first in range(0, steps, self.n_envs):
            stages = np.arange(first, min(first + self.n_envs, steps))  # counted episode after episode
            dones = (stages + 1) % model.n_stages == 0
            self.num_timesteps += len(stages)
            callback.update_locals(locals())
            if not callback.on_step():
                return None
        callback.on_rollout_end()
        return rollout

    def train(self, rollout: Rollout) -> None:
        """One gradient step on the mean cost of the episodes."""
        model, noise, path = self._model(), rollout.noise, rollout.path
        self.policy.set_training_mode(True)
        states = np.concatenate([np.broadcast_to(model.initial_state, path.states[:1].shape), _numbers(path.states)])
        if not np.isfinite(states).all():
            raise FloatingPointError("the policy gives numbers that are not finite: try a lower learning_rate")
        costs, by_before, by_after = model.costs_and_gradients(states[:-1], noise, states[1:])
        if self.mode == "strict":
            named, gradient = path.states, state_gradient(by_before, by_after)
        else:
            named, gradient = self._soft_gradient(cast(SoftTargetModel, model), noise, path.fractions)
        scale = self.batch_size * model.cost_unit
        loss = (named * torch.from_numpy(gradient / scale)).sum()  # its gradient is that of the mean cost

        self._update_learning_rate(self.policy.optimizer)
        self.policy.optimizer.zero_grad()
        loss.backward()
        largest = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), largest)
        self.policy.optimizer.step()
        self._n_updates += 1
        self.logger.record("train/cost", float(costs.sum(0).mean()))
        self.logger.record("train/gradient_norm", norm.item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _soft_gradient(
        self, model: SoftTargetModel, noise: Floats, fractions: torch.Tensor
    ) -> tuple[torch.Tensor, Floats]:
        """Targets as a graph, and the derivatives of the programmes' costs by them, float64[T, B, n]."""
        width = torch.from_numpy(model.target_upper - model.target_lower)
        targets = torch.from_numpy(model.target_lower) + width * fractions
        penalty = self.present_penalty()
        costs, penalties, gradient = model.soft_costs_and_gradients(noise, _numbers(targets), penalty, self.window)
        paid = float(penalties.sum())
        self.logger.record("train/violation_share", paid / max(float(costs.sum()) + paid, 1e-300))
        self.logger.record("train/penalty", penalty)
        return targets, gradient

    def present_penalty(self) -> float:
        """Soft mode: the price of a unit missed at the present progress."""
        model = cast(SoftTargetModel, self._model())
        base = float(model.penalty) if self.penalty == "auto" else float(self.penalty)
        if self.penalty_schedule is None:
            return base
        schedule = annealed if self.penalty_schedule == "annealed" else self.penalty_schedule
        return base * schedule(self._current_progress_remaining)

    def _keys(self) -> npt.NDArray[np.uint64]:
        """Keys uint64[B] of the episodes of the next update."""
        episodes = np.arange(self.batch_size)
        keys: npt.NDArray[np.uint64] = counter_noise.bits(np.uint64(self._noise_key), self._n_updates, episodes)
        return keys

    # ---- evaluation --------------------------------------------------------------------------------------------
    def simulate(self, noise: Floats) -> Simulation:
        """Episodes with noise float64[T, B, m] as the environment would play them, all at once.

        >>> import gymnasium
        >>> env = gymnasium.make("orl:orl/Hydrothermal-v0", instance="tri3")
        >>> model = TSDDR("LinearTarget", env, seed=0)
        >>> noise = model.target_model.draw(np.arange(5, dtype=np.uint64))
        >>> model.simulate(noise).totals.shape
        (5,)
        """
        return simulate(self.policy, self._model(), noise)

    def evaluate(self) -> float:
        """Mean cost of the policy as it is on the panel of ``n_eval_episodes``."""
        panel = counter_noise.bits(PANEL_KEY, 0, np.arange(self.n_eval_episodes), draw=1)
        return float(self.simulate(self._model().draw(panel)).totals.mean())

    def _note_best(self) -> None:
        """Evaluate, and keep the parameters if they are the best so far."""
        cost = self.evaluate()
        if cost < self.best_cost:
            self.best_cost = cost
            self._best = self._copied_parameters()
        self.logger.record("eval/cost", cost)
        self.logger.record("eval/best_cost", self.best_cost)

    def _restore_best(self) -> None:
        if self.keep_best and self.eval_freq and self._best is not None:
            self._take_parameters(self._best)

    def _copied_parameters(self) -> dict[str, npt.NDArray[Any]]:
        return {name: value.cpu().numpy().copy() for name, value in self.policy.state_dict().items()}

    def _take_parameters(self, parameters: dict[str, npt.NDArray[Any]]) -> None:
        self.policy.load_state_dict({name: torch.from_numpy(value) for name, value in parameters.items()})

    def predict(  # type: ignore[override]
        self,
        observation: npt.NDArray[Any],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.float32], tuple[npt.NDArray[Any], ...] | None]:
        """Actions and the memory for the next call: see :meth:`orl.tsddr.policies.TargetPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    # ---- what SB3 asks of an algorithm -------------------------------------------------------------------------
    def dump_logs(self, iteration: int = 0) -> None:
        """Write what was recorded; ``iteration`` is the update of this call of ``learn``, 0 to leave it out."""
        seconds = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        if iteration:
            self.logger.record("time/iterations", iteration, exclude="tensorboard")
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / seconds))
        self.logger.record("time/time_elapsed", int(seconds), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    def _model(self) -> TargetModel:
        if self.target_model is None:
            raise InputError("the model has no environment", field="env", expected="set_env, or load(..., env=...)")
        return self.target_model

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "target_model"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []


def _numbers(tensor: torch.Tensor) -> Floats:
    numbers: Floats = tensor.detach().numpy()
    return numbers


def _positive(number: Any) -> bool:
    return isinstance(number, int | float) and number > 0


def _require(holds: bool, field: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError("out of range", field=field, value=value, expected=expected)
