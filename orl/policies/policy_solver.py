"""A trained policy as a Solver: plays many episodes of one instance at once in the native batch and keeps the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from orl.common.problem import Progress, SolveResult

LARGEST_BATCH = 256


@dataclass(frozen=True)
class PolicySolver:
    """Attempts of a policy on an instance: the first greedy, the others sampled; the best solution counts.

    Args:
        policy: What :meth:`solve` asks for a policy of the env's sizes: ``(observation_space, action_space) -> policy``
            with SB3's ``predict`` and its keyword ``action_masks``; ``SetPolicy.for_spaces`` for instance.
        env_id: Env that plays the instance; has a native batch with ``action_masks``, and terminal infos with
            ``objective``, ``bound`` and ``solution``.
        env_kwargs: Its further keyword arguments.
        samples: Number of attempts.
        name: Name in tables.
    """

    policy: Callable[[Any, Any], Any]
    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    name: str = "policy"

    def solve(
        self, instance: Any, *, time_limit: float | None = None, seed: int = 0, hint: Any | None = None
    ) -> SolveResult:
        """Play the attempts in batches of at most 256; Ctrl-C or the limit end them after the batch at hand.

        The first batch is always played to its end, unless Ctrl-C comes: then the status is ``unknown``.
        ``hint`` is not used: a policy builds its solutions from nothing.
        """
        del hint
        started = time.perf_counter()
        best: dict[str, Any] | None = None
        log: list[Progress] = []
        try:
            for first in range(0, self.samples, LARGEST_BATCH):
                if first and time_limit is not None and time.perf_counter() - started >= time_limit:
                    break
                n = min(LARGEST_BATCH, self.samples - first)
                for info in self._play(instance, n, seed + first, greedy_first=first == 0):
                    if best is None or info["objective"] < best["objective"]:
                        best = info
                        log.append(Progress(time.perf_counter() - started, float(info["objective"])))
        except KeyboardInterrupt:
            pass  # the contract of a Solver: the best so far instead of the exception
        seconds = time.perf_counter() - started
        if best is None:
            return SolveResult("unknown", bound=float(instance.lower_bound()), seconds=seconds)
        objective, bound = float(best["objective"]), float(best["bound"])
        status = "optimal" if objective <= bound else "feasible"
        return SolveResult(status, best["solution"], objective, bound, seconds=seconds, log=tuple(log))  # type: ignore[arg-type]

    def _play(self, instance: Any, n: int, seed: int, greedy_first: bool) -> list[dict[str, Any]]:
        """Terminal infos of ``n`` episodes; those without a finite objective (dead ends) are left out."""
        env: Any = gymnasium.make_vec(
            self.env_id,
            num_envs=n,
            vectorization_mode="vector_entry_point",
            instance=instance,
            autoreset_mode=AutoresetMode.SAME_STEP,
            **self.env_kwargs,
        )
        ended: dict[int, dict[str, Any]] = {}
        with torch.random.fork_rng(devices=[]):
            policy = self.policy(env.single_observation_space, env.single_action_space)
            torch.manual_seed(seed)
            observation, _ = env.reset(seed=seed)
            while len(ended) < n:
                masks = env.unwrapped.action_masks()
                if greedy_first:
                    actions, _ = policy.predict(observation, deterministic=True, action_masks=masks)
                if n > 1 or not greedy_first:
                    sampled, _ = policy.predict(observation, deterministic=False, action_masks=masks)
                    actions = np.concatenate((actions[:1], sampled[1:])) if greedy_first else sampled
                observation, _, terminated, truncated, infos = env.step(actions)
                for i in np.flatnonzero(terminated | truncated):
                    if i not in ended:
                        ended[int(i)] = {key: value[i] for key, value in infos["final_info"].items()}
        env.close()
        return [info for i, info in sorted(ended.items()) if np.isfinite(info.get("objective", np.inf))]
