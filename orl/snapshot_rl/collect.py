"""``collect_snapshots``: let a teacher play, and keep what is needed to start from where it has been.

Source: Zhao et al., *Snapshot Reinforcement Learning* (arXiv 2403.00673), and the order of events in its authors' code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import gymnasium
import numpy as np
import numpy.typing as npt

from orl.common.batched_values import copy_tree
from orl.common.errors import InputError
from orl.snapshot_rl.codecs import StateCodec, codec_of, refuse_stateful_layers
from orl.snapshot_rl.snapshots import SnapshotSet, stack_observations
from orl.snapshot_rl.teachers import Player, Values, critic_of, samples_actions

Value = Literal["auto", "critic", "return_to_go"] | Values


def collect_snapshots(
    teacher: Any,
    env: gymnasium.Env[Any, Any],
    *,
    n_episodes: int = 10,
    interval: int = 10,
    best_k: int | None = None,
    deterministic: bool | None = None,
    seed: int | None = 0,
    value: Value = "auto",
    gamma: float = 1.0,
    n_clusters: int = 6,
    vec_normalize: Any = None,
    codec: StateCodec | None = None,
) -> SnapshotSet:
    """Play ``n_episodes`` episodes and keep a snapshot of every ``interval``-th state.

    One snapshot is taken after the first reset, then one after steps 1, 11, 21, ... of the whole collection (with
    ``interval=10``), so the first states of later episodes are there only where the count falls on a reset. A state in
    which an episode is over is never kept: where the count falls on its last step, the first state of the next episode
    is.

    Observations are kept as the env shows them. A teacher trained behind VecNormalize sees them normalised with its
    statistics, which do not change.

    Args:
        teacher: An SB3 model, a rule with ``predict``, or :func:`~orl.snapshot_rl.teachers.teacher_from_actions`. Masks
            are given to those that take them.
        env: A single env, in the wrappers in which the student will see it. It is played and stays open.
        n_episodes: Episodes to finish.
        interval: Steps from one snapshot to the next.
        best_k: Keep only those of the best episodes by return; None: of all.
        deterministic: Whether the teacher acts greedily; None: policies that draw actions (SAC, PPO and its kin) do so,
            TD3, DQN and rules act greedily.
        seed: Of the first reset, and of sampled actions.
        value: What the teacher expects of a state: ``"critic"``, its own (V(s), or Q1(s, pi(s))); ``"return_to_go"``,
            what it got from there on; ``"auto"``, the critic if there is one; or a function of a batch of observations
            (not normalised) that gives float[n].
        gamma: Discount of the return to go.
        n_clusters: Clusters of the values (:meth:`SnapshotSet.classify` makes others).
        vec_normalize: The teacher's VecNormalize; None: the one it was trained in, if it has an env.
        codec: How states are taken; None: :func:`~orl.snapshot_rl.codecs.codec_of` the env.

    Returns:
        About ``steps / interval`` records. ``about["teacher_steps"]`` is what they cost.

    Raises:
        InputError: A value outside its range, an env that cannot be restored, a teacher without a critic where one is
            asked for.

    >>> from orl.snapshot_rl import teacher_from_actions
    >>> env = gymnasium.make("orl:orl/PostDecisionFrozenLake-v0", instance="lake-4x4")
    >>> snapshots = collect_snapshots(teacher_from_actions([2] * 100), env, n_episodes=3, interval=2)
    >>> snapshots.elapsed[0], len(snapshots.episode_returns)
    (np.int64(0), 3)
    """
    for name, number in (("n_episodes", n_episodes), ("interval", interval), ("best_k", best_k or 1)):
        if number < 1:
            raise InputError("too small", field=name, value=number, expected=">= 1")
    if not 0.0 <= gamma <= 1.0:
        raise InputError("no discount", field="gamma", value=gamma, expected="between 0 and 1")
    refuse_stateful_layers(env)
    if vec_normalize is None and hasattr(teacher, "get_vec_normalize_env"):
        vec_normalize = teacher.get_vec_normalize_env()
    normalize = None if vec_normalize is None else vec_normalize.normalize_obs
    values = _valuation(teacher, value, normalize)
    greedy = not samples_actions(teacher) if deterministic is None else deterministic
    codec = codec_of(env) if codec is None else codec
    with _torch_seeded(seed):
        records = _play(Player(teacher, env, greedy, normalize), env, codec, n_episodes, interval, seed)
    observations = stack_observations(records.observations)
    out = SnapshotSet.of(
        records.states,
        observations,
        values=records.returns_to_go(gamma) if values is None else values(observations),
        elapsed=records.elapsed,
        returns=records.returns,
        episodes=records.episodes,
        episode_returns=[sum(rewards) for rewards in records.rewards],
        about={
            "env": str(env.unwrapped) if env.spec is None else env.spec.id,
            "codec": type(codec).__name__,
            "teacher": type(teacher).__name__,
            "value": "return_to_go" if values is None else "function" if callable(value) else "critic",
            "deterministic": bool(greedy),
            "interval": interval,
            "seed": seed,
            "teacher_steps": sum(map(len, records.rewards)),
        },
    ).classify(n_clusters)
    return out if best_k is None else out.best_k(best_k)


class _Records:
    """What is noted while the teacher plays."""

    def __init__(self) -> None:
        self.states: list[Any] = []
        self.observations: list[Any] = []
        self.elapsed: list[int] = []
        self.returns: list[float] = []
        self.episodes: list[int] = []
        self.rewards: list[list[float]] = []

    def returns_to_go(self, gamma: float) -> npt.NDArray[np.float64]:
        """float64[n]: discounted rewards from each record to the end of its episode."""
        tails = []
        for rewards in self.rewards:
            tail = np.zeros(len(rewards) + 1)
            for t in range(len(rewards) - 1, -1, -1):
                tail[t] = rewards[t] + gamma * tail[t + 1]
            tails.append(tail)
        return np.array([tails[e][t] for e, t in zip(self.episodes, self.elapsed, strict=True)])


def _play(
    player: Player, env: gymnasium.Env[Any, Any], codec: StateCodec, n_episodes: int, interval: int, seed: int | None
) -> _Records:
    records = _Records()
    due, steps = True, 0
    for episode in range(n_episodes):
        observation, _ = env.reset(seed=seed if episode == 0 else None)
        rewards: list[float] = []
        records.rewards.append(rewards)
        over = False
        while not over:
            if due:
                records.states.append(codec.get_state(env))
                records.observations.append(copy_tree(observation))
                records.elapsed.append(len(rewards))
                records.returns.append(sum(rewards))
                records.episodes.append(episode)
            observation, reward, terminated, truncated, _ = env.step(player.action(observation, not rewards))
            rewards.append(float(reward))
            over = terminated or truncated
            steps += 1
            due = (steps - 1) % interval == 0
    return records


def _valuation(teacher: Any, value: Value, normalize: Callable[[Any], Any] | None) -> Values | None:
    """A function of observations as the env shows them; None for the return to go."""
    if callable(value):
        return value
    if value not in ("auto", "critic", "return_to_go"):
        raise InputError(
            "unknown value", field="value", value=value, expected="'auto', 'critic', 'return_to_go' or a function"
        )
    if value == "return_to_go":
        return None
    critic = critic_of(teacher)
    if critic is None:
        if value == "critic":
            raise InputError(
                "the teacher has no critic",
                source=type(teacher).__name__,
                field="value",
                value=value,
                expected="'return_to_go', or a function of observations",
            )
        return None
    if normalize is None:
        return critic
    return lambda observations: critic(normalize(observations))


@contextmanager
def _torch_seeded(seed: int | None) -> Iterator[None]:
    """Sampled actions drawn from ``seed``; torch's own streams are as before afterwards."""
    torch = sys.modules.get("torch")
    if torch is None or seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
