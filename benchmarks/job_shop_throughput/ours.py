"""Our environments behind the shared worker loop: ``ours.py single`` or ``ours.py batch [COPIES]``.

The batch shows in every step what job-shop-cp-env shows: the interval window, the action mask and the resource mask.
Like both packages, it hands out its own buffers (``copy=False``), which the next step overwrites.
The single env has its default observation, the window; the mask comes from ``action_masks()``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from orl.envs.job_shop.builders import job_shop
from orl.envs.job_shop.instance import ShopInstance
from orl.envs.job_shop.vector import JobShopVectorEnv

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
from serve import MaskedEnvironment, SingleDriver, sample, serve

SHOWN: dict[str, Any] = {"observation": "window", "observe_mask": True, "observe_resource_mask": True}


def instance_arrays(instance: ShopInstance) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Machines and durations int32[J, M] of a rectangular job shop."""
    shape = (instance.n_jobs, instance.n_ops // instance.n_jobs)
    return instance.use_resource.reshape(shape), instance.mode_duration.reshape(shape)


class Single(MaskedEnvironment):
    """The registered single environment, as a user makes it (without Gymnasium's own checker around it)."""

    build = "numba"
    packages = ("numpy", "numba", "gymnasium")

    def load(self, machines: npt.NDArray[np.int64], durations: npt.NDArray[np.int64]) -> None:
        self.instance = job_shop(machines, durations, name="loaded")
        self.env = gymnasium.make(
            "orl:orl/JobShop-v0", instance=self.instance, illegal="raise", disable_env_checker=True
        )
        self.masks = self.env.get_wrapper_attr("action_masks")

    def arrays(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        return instance_arrays(self.env.get_wrapper_attr("instance"))

    def reset(self) -> npt.NDArray[np.bool_]:
        self.env.reset()
        return self.masks()

    def step(self, action: int) -> tuple[npt.NDArray[np.bool_], bool]:
        _, _, terminated, truncated, self.info = self.env.step(action)
        return self.masks(), terminated or truncated

    def starts(self) -> npt.NDArray[np.int32]:
        return self.info["solution"].start.reshape(self.instance.n_jobs, -1)


class Batch:
    """The native batch; finished copies are reset inside the step (SAME_STEP)."""

    build = "numba"
    packages = ("numpy", "numba", "gymnasium")

    def __init__(self, copies: int) -> None:
        self.copies = copies

    def load(self, machines: npt.NDArray[np.int64], durations: npt.NDArray[np.int64]) -> None:
        self.envs = JobShopVectorEnv(
            self.copies, job_shop(machines, durations, name="loaded"), illegal="count", copy=False, **SHOWN
        )

    def arrays(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        return instance_arrays(self.envs.instances[0])


class BatchDriver:
    """The loop of ``serve.SingleDriver`` for a batch: a run counts one step for each copy."""

    def __init__(self, env: Batch) -> None:
        self.env = env
        self.masks: npt.NDArray[np.bool_] | None = None

    def load(self, machines: npt.NDArray[np.int64], durations: npt.NDArray[np.int64], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.shape = durations.shape
        self.env.load(machines, durations)
        self.masks = None

    def choose(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """A legal action for every copy, drawn uniformly: the largest of independent uniform numbers."""
        return np.where(masks, self.rng.random(masks.shape, np.float32), np.float32(-1)).argmax(1)

    def episode(self, actions: list[int] | None = None) -> dict[str, Any]:
        """One episode of copy 0, with the given actions or random ones; the other copies act at random."""
        envs, taken = self.env.envs, []
        envs.reset()
        masks = [envs.action_masks()]
        while True:
            action = self.choose(masks[-1])
            if actions is not None:
                action[0] = actions[len(taken)]
            taken.append(int(action[0]))
            _, _, terminated, _, infos = envs.step(action)
            if terminated[0]:
                break
            masks.append(envs.action_masks())
        self.masks = None
        return {
            "actions": taken,
            "masks": [mask[0].astype(int).tolist() for mask in masks],
            "starts": infos["final_info"]["solution"][0].start.reshape(self.shape).tolist(),
            "makespan": int(infos["final_info"]["makespan"][0]),
        }

    def run(self, seconds: float) -> dict[str, Any]:
        envs, clock = self.env.envs, time.process_time
        calls, env_seconds, makespans = 0, 0.0, []
        wall_start, loop_start = time.perf_counter(), clock()
        if self.masks is None:
            before = clock()
            envs.reset()
            self.masks = envs.action_masks()
            env_seconds += clock() - before
        masks = self.masks
        while clock() - loop_start < seconds:
            actions = self.choose(masks)
            before = clock()
            _, _, terminated, _, infos = envs.step(actions)
            masks = envs.action_masks()
            env_seconds += clock() - before
            calls += 1
            if infos:
                makespans.extend(infos["final_info"]["makespan"][terminated].astype(int).tolist())
        loop_seconds = clock() - loop_start
        self.masks = masks
        illegal = int(envs.illegal_actions.sum())
        if illegal:
            raise RuntimeError(f"the random policy made {illegal} illegal actions")
        return sample(calls * envs.num_envs, env_seconds, loop_seconds, time.perf_counter() - wall_start, makespans)


if __name__ == "__main__":
    if sys.argv[1] == "single":
        serve(SingleDriver(Single()))
    else:
        serve(BatchDriver(Batch(int(sys.argv[2]) if len(sys.argv) > 2 else 64)))
