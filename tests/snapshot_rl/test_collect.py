"""What a teacher leaves behind: when snapshots are taken, what they are worth, who can teach."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from snapshot_cases import CountingEnv, RandomTeacher
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import orl
from orl.common.errors import InputError
from orl.mdpo import MDPO, OffPolicyMDPO
from orl.pdppo import PDPPO
from orl.snapshot_rl import collect_snapshots, teacher_from_actions

LAKE = "orl:orl/PostDecisionFrozenLake-v0"


def play(ends_after: int, **options):
    env = CountingEnv(ends_after)
    return collect_snapshots(RandomTeacher(env), env, **options)


class TestWhen:
    def test_after_the_first_reset_and_then_every_tenth_step_of_all_episodes(self) -> None:
        snapshots = play(27, n_episodes=3)
        # global steps 0, 1, 11, 21 | 31, 41, 51 | 61, 71; the step 81 ends the last episode
        assert snapshots.episodes.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
        assert snapshots.elapsed.tolist() == [0, 1, 11, 21, 4, 14, 24, 7, 17]
        assert snapshots.about["teacher_steps"] == 81

    def test_no_state_in_which_an_episode_is_over_but_the_next_ones_first(self) -> None:
        snapshots = play(11, n_episodes=3)
        assert snapshots.episodes.tolist() == [0, 0, 1, 1, 2]
        assert snapshots.elapsed.tolist() == [0, 1, 0, 10, 9]

    def test_interval_one_takes_every_state(self) -> None:
        snapshots = play(5, n_episodes=2, interval=1)
        assert snapshots.elapsed.tolist() == [0, 1, 2, 3, 4] * 2
        assert snapshots.observations[:, 0].tolist() == [0, 1, 2, 3, 4] * 2

    def test_the_best_episodes_are_kept(self) -> None:
        everything = play(7, n_episodes=5, interval=2)
        best = play(7, n_episodes=5, interval=2, best_k=2)
        assert sorted(everything.episode_returns)[-2:] == sorted(best.episode_returns)

    @pytest.mark.parametrize("name", ["n_episodes", "interval", "best_k"])
    def test_numbers_below_one_are_refused(self, name) -> None:
        with pytest.raises(InputError, match=name):
            play(5, **{name: -1})


class TestWhat:
    def test_returns_so_far_and_to_go_add_up(self) -> None:
        snapshots = play(9, n_episodes=3, interval=2, value="return_to_go")
        total = snapshots.episode_returns[snapshots.episodes]
        np.testing.assert_allclose(snapshots.returns + snapshots.values, total)
        half = play(9, n_episodes=1, interval=1, value="return_to_go", gamma=0.5)
        rewards = np.diff([*half.returns, half.episode_returns[0]])
        assert half.values[-1] == pytest.approx(rewards[-1])
        assert half.values[3] == pytest.approx(rewards[3] + 0.5 * half.values[4])

    def test_a_function_gives_the_values(self) -> None:
        snapshots = play(9, value=lambda observations: -observations[:, 0])
        np.testing.assert_array_equal(snapshots.values, -snapshots.elapsed)
        assert snapshots.about["value"] == "function"

    def test_the_same_seed_gives_the_same_set(self) -> None:
        model = PPO("MlpPolicy", gymnasium.make("CartPole-v1"), seed=0, device="cpu")
        with pytest.warns(UserWarning, match="deep copies"):
            one, two = (collect_snapshots(model, gymnasium.make("CartPole-v1"), seed=4) for _ in range(2))
        np.testing.assert_array_equal(one.observations, two.observations)
        assert np.isfinite(one.values).all()

    def test_torchs_stream_is_left_alone(self) -> None:
        model = PPO("MlpPolicy", CountingEnv(9), seed=0, device="cpu")
        before = torch.get_rng_state()
        collect_snapshots(model, CountingEnv(9))
        assert torch.equal(torch.get_rng_state(), before)


class TestWho:
    @pytest.mark.parametrize("kind", [SAC, TD3, OffPolicyMDPO])
    def test_the_first_critic_at_the_greedy_action(self, kind) -> None:
        env = gymnasium.make("Pendulum-v1")
        model = kind("MlpPolicy", env, seed=0, device="cpu", buffer_size=10)
        with pytest.warns(UserWarning, match="deep copies"):
            snapshots = collect_snapshots(model, env, n_episodes=1)
        x = torch.as_tensor(snapshots.observations)
        with torch.no_grad():
            policy = model.policy
            action = policy.actor(x) if kind is TD3 else policy.actor(x, deterministic=True)
            expected = policy.critic(x, action)[0].flatten().numpy()
        np.testing.assert_allclose(snapshots.values, expected, rtol=1e-5)
        assert snapshots.about["deterministic"] == (kind is TD3)

    @pytest.mark.parametrize("kind", [PPO, MaskablePPO, PDPPO, MDPO])
    def test_state_values_of_the_actor_critic_family(self, kind) -> None:
        env = gymnasium.make(LAKE, instance="lake-4x4")
        model = kind("MlpPolicy", env, seed=0, device="cpu")
        snapshots = collect_snapshots(model, env, n_episodes=4, interval=2)
        with torch.no_grad():
            expected = model.policy.predict_values(torch.as_tensor(snapshots.observations)).flatten().numpy()
        np.testing.assert_allclose(snapshots.values, expected, rtol=1e-5)
        assert snapshots.about["value"] == "critic"
        assert not snapshots.about["deterministic"]

    def test_the_greatest_q(self) -> None:
        env = CountingEnv(20)
        model = DQN("MlpPolicy", env, seed=0, device="cpu", buffer_size=10)
        snapshots = collect_snapshots(model, env)
        with torch.no_grad():
            expected = model.q_net(torch.as_tensor(snapshots.observations).float()).max(1).values.numpy()
        np.testing.assert_allclose(snapshots.values, expected, rtol=1e-5)

    def test_a_teacher_behind_vec_normalize_sees_as_it_learned_and_leaves_raw_observations(self) -> None:
        venv = VecNormalize(DummyVecEnv([lambda: CountingEnv(30)]))
        model = PPO("MlpPolicy", venv, n_steps=64, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(64)
        statistics = venv.obs_rms.mean.copy(), venv.obs_rms.count
        snapshots = collect_snapshots(model, CountingEnv(30))
        np.testing.assert_array_equal(snapshots.observations[:, 0], snapshots.elapsed)
        x = torch.as_tensor(venv.normalize_obs(snapshots.observations)).float()
        with torch.no_grad():
            expected = model.policy.predict_values(x).flatten().numpy()
        np.testing.assert_allclose(snapshots.values, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(venv.obs_rms.mean, statistics[0])
        assert venv.obs_rms.count == statistics[1]

    def test_masks_are_passed_on(self) -> None:
        env = gymnasium.make("orl:orl/JobShop-v0", observation="compact")  # raises on an illegal action
        model = MaskablePPO("MlpPolicy", env, seed=0, device="cpu")
        assert collect_snapshots(model, env, n_episodes=3, interval=5).episode_returns.shape == (3,)

    def test_rules_teach_by_their_return_to_go(self) -> None:
        env = gymnasium.make("orl:orl/JobShop-v0")
        snapshots = collect_snapshots(orl.registry.rule("job_shop", "spt", env), env, n_episodes=1, interval=3)
        assert snapshots.about["value"] == "return_to_go"
        with pytest.raises(InputError, match="no critic"):
            collect_snapshots(RandomTeacher(env), env, value="critic")

    def test_a_schedule_of_cp_sat_teaches(self) -> None:
        """An optimal schedule, turned into actions, is replayed; its snapshots lead to the optimum."""
        env = gymnasium.make("orl:orl/JobShop-v0", instance="ft06", reward="makespan")
        base = env.unwrapped
        schedule = orl.registry.solver("job_shop", "cp-sat").solve(base.instance, time_limit=10).solution
        actions = schedule_actions(env, schedule)
        snapshots = collect_snapshots(teacher_from_actions(actions), env, n_episodes=1, interval=1)
        assert len(snapshots) == len(actions)
        base.set_state(snapshots.states[-1])
        *_, info = env.step(actions[-1])
        assert info["makespan"] == 55

    def test_recorded_actions_that_end_too_early_are_refused(self) -> None:
        with pytest.raises(InputError, match="actions are over"):
            collect_snapshots(teacher_from_actions([0, 1]), CountingEnv(5))
        with pytest.raises(InputError, match="no actions"):
            teacher_from_actions([])
        teacher = teacher_from_actions([[0] * 3, [2] * 3])
        snapshots = collect_snapshots(teacher, CountingEnv(3), n_episodes=4, interval=1)
        assert (np.diff(snapshots.episode_returns) * [1, -1, 1] > 3).all()


def schedule_actions(env, schedule) -> list[int]:
    """The actions that build a schedule of a job shop in time order: start what it starts now, else wait."""
    env.reset()
    base, actions, over = env.unwrapped, [], False
    starts = np.asarray(schedule.start)
    while not over:
        mask = base.action_masks()
        done = np.asarray(base.schedule().start)
        choice = len(mask) - 1
        for action in np.flatnonzero(mask[:-1]).tolist():
            state = base.get_state()
            *_, over, _, info = env.step(action)
            after = info["solution"].start if over else base.schedule().start
            base.set_state(state)
            changed = np.flatnonzero(np.asarray(after) != done)
            if (np.asarray(after)[changed] == starts[changed]).all():
                choice = action
                break
        actions.append(choice)
        _, _, over, _, _ = env.step(choice)
    return actions
