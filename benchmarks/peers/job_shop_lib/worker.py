"""job-shop-lib 1.7.2, SingleJobShopGraphEnv, behind the shared worker loop.

Resource-task graph, three feature observers, default dominated-operations filter. It has no mask: the legal actions are
the ``available_operations_with_ids`` of its info.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from serve import SingleDriver, serve

# isort: split
from job_shop_lib import JobShopInstance, Operation
from job_shop_lib.dispatching.feature_observers import FeatureObserverType
from job_shop_lib.graphs import build_resource_task_graph
from job_shop_lib.reinforcement_learning import SingleJobShopGraphEnv

OBSERVERS = [FeatureObserverType.IS_READY, FeatureObserverType.EARLIEST_START_TIME, FeatureObserverType.DURATION]


class JobShopLibEnvironment:
    build = "plain Python"
    packages = ("job-shop-lib", "numpy", "gymnasium", "networkx")

    def load(self, machines: np.ndarray, durations: np.ndarray) -> None:
        jobs = [
            [Operation(machine, duration) for machine, duration in zip(*job, strict=True)]
            for job in zip(machines.tolist(), durations.tolist(), strict=True)
        ]
        self.env = SingleJobShopGraphEnv(build_resource_task_graph(JobShopInstance(jobs)), OBSERVERS)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        jobs = self.env.instance.jobs
        return (
            np.array([[operation.machine_id for operation in job] for job in jobs]),
            np.array([[operation.duration for operation in job] for job in jobs]),
        )

    def reset(self) -> list[tuple[int, int, int]]:
        return self.env.reset()[1]["available_operations_with_ids"]

    def step(self, action: tuple[int, int]) -> tuple[list[tuple[int, int, int]], bool]:
        _, _, terminated, truncated, info = self.env.step(action)
        return info["available_operations_with_ids"], terminated or truncated

    def choose(self, rng: np.random.Generator, legal: list[tuple[int, int, int]]) -> tuple[int, int]:
        _, machine, job = legal[rng.integers(len(legal))]
        return job, machine

    def starts(self) -> np.ndarray:
        starts = np.full((self.env.instance.num_jobs, self.env.instance.num_machines), -1)
        for machine in self.env.dispatcher.schedule.schedule:
            for scheduled in machine:
                starts[scheduled.operation.job_id, scheduled.operation.position_in_job] = scheduled.start_time
        return starts


if __name__ == "__main__":
    serve(SingleDriver(JobShopLibEnvironment()))
