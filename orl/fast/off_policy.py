"""What the fast off-policy classes share: the choice of engine and environment steps with little Python work.

:class:`FastOffPolicy` collects the transitions that SB3's ``collect_rollouts`` would collect from the same random
state. With one env and one step before every update, SB3 does much between env and network: tensors and distribution
objects for one row, copies of the observation, the training mode of every module. Here the actor runs on arrays and a
plain replay buffer is written in place. Callbacks see SB3's ``locals``; noise, logs, VecNormalize and any replay buffer
work as before.

The networks of an eligible policy have no layer that depends on the training mode, so the policy is left in evaluation
mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import should_collect_more_steps
from stable_baselines3.common.vec_env import VecEnv

from orl.fast.engine_choice import EngineChoice
from orl.fast.mlp import observations_ineligible


def spaces_ineligible(policy: Any) -> str | None:
    """Why a policy's observations or actions are no plain rows of numbers; None if they are."""
    action_space = policy.action_space
    if not isinstance(action_space, spaces.Box) or action_space.dtype not in (np.float32, np.float64):
        return f"the actions are {action_space}, not a Box of floats"
    return observations_ineligible(policy.observation_space)


class FastOffPolicy(EngineChoice, OffPolicyAlgorithm):
    """A mixin before SB3's SAC or TD3.

    Its engine has ``intact(model)`` and ``act(observations)``, which gives actions in [-1, 1], float32[N, P], as the
    policy would in a rollout. Whether the model is eligible is decided when ``learn`` starts.
    """

    _given_up = False

    def fast_engine(self) -> Any:
        """The engine of the policy as it is now, None for SB3's own code.

        Raises:
            InputError: ``engine="fast"`` and the model is not eligible.
        """
        if self.engine == "torch" or self._given_up:
            self._fast = None
            return None
        if self._fast is not None and self._fast.intact(self):
            return self._fast
        self._fast = None
        if (reason := self.engine_ineligible()) is not None:
            self.refuse_or_tell(reason)
            return None
        self._fast = self._new_engine()
        return self._fast

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        self._fast, self._given_up = None, False
        self._given_up = self.fast_engine() is None
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_given_up"]

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        engine = self.fast_engine()
        if engine is None:
            return super().collect_rollouts(
                env, callback, train_freq, replay_buffer, action_noise, learning_starts, log_interval
            )
        if self.policy.training:
            self.policy.set_training_mode(False)
        if env.num_envs > 1 and train_freq.unit != TrainFrequencyUnit.STEP:
            raise ValueError("episodes as the unit of train_freq need a single env")
        num_collected_steps, num_collected_episodes = 0, 0
        callback.on_rollout_start()
        while should_collect_more_steps(train_freq, num_collected_steps, num_collected_episodes):
            actions, buffer_actions = self._sample_action(learning_starts, action_noise, env.num_envs)
            new_obs, rewards, dones, infos = env.step(actions)
            self.num_timesteps += env.num_envs
            num_collected_steps += 1
            callback.update_locals(
                {
                    "self": self,
                    "env": env,
                    "callback": callback,
                    "train_freq": train_freq,
                    "replay_buffer": replay_buffer,
                    "action_noise": action_noise,
                    "learning_starts": learning_starts,
                    "log_interval": log_interval,
                    "num_collected_steps": num_collected_steps,
                    "num_collected_episodes": num_collected_episodes,
                    "continue_training": True,
                    "actions": actions,
                    "buffer_actions": buffer_actions,
                    "new_obs": new_obs,
                    "rewards": rewards,
                    "dones": dones,
                    "infos": infos,
                }
            )
            if not callback.on_step():
                return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, False)
            self._update_info_buffer(infos, dones)
            self._store_transition(replay_buffer, buffer_actions, new_obs, rewards, dones, infos)  # type: ignore[arg-type]
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()
            if dones.any():
                for index in np.flatnonzero(dones).tolist():
                    num_collected_episodes += 1
                    self._episode_num += 1
                    if action_noise is not None:
                        action_noise.reset(**({"indices": [index]} if env.num_envs > 1 else {}))
                    if log_interval is not None and self._episode_num % log_interval == 0:
                        self.dump_logs()
        callback.on_rollout_end()
        return RolloutReturn(num_collected_steps * env.num_envs, num_collected_episodes, True)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        engine = self._fast
        if engine is None or self.num_timesteps < learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        policy = self.policy
        actions = engine.act(self._last_obs)
        if len(self.action_space.shape or ()) != 1:
            actions = actions.reshape(-1, *self.action_space.shape)  # type: ignore[misc]
        # To the env's bounds and back: the same rounding as in SB3.
        scaled = policy.scale_action(policy.unscale_action(actions))
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
        return policy.unscale_action(scaled), scaled

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: npt.NDArray[Any],
        new_obs: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        reward: npt.NDArray[Any],
        dones: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        buffer = replay_buffer
        if (
            self._fast is None
            or self._vec_normalize_env is not None
            or type(buffer) is not ReplayBuffer
            or not isinstance(buffer.observation_space, spaces.Box)
        ):
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            return
        at, size = buffer.pos, buffer.buffer_size
        self._last_original_obs = self._last_obs
        buffer.observations[at] = self._last_obs
        following = (
            buffer.observations[(at + 1) % size] if buffer.optimize_memory_usage else buffer.next_observations[at]
        )
        following[...] = new_obs
        if dones.any():
            for index in np.flatnonzero(dones).tolist():
                last = infos[index].get("terminal_observation")
                if last is not None:
                    following[index] = last
        buffer.actions[at] = buffer_action.reshape(buffer.n_envs, buffer.action_dim)
        buffer.rewards[at] = reward
        buffer.dones[at] = dones
        if buffer.handle_timeout_termination:
            buffer.timeouts[at] = [info.get("TimeLimit.truncated", False) for info in infos]
        buffer.pos = at + 1
        if buffer.pos == size:
            buffer.full, buffer.pos = True, 0
        self._last_obs = new_obs
