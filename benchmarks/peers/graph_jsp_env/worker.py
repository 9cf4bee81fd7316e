"""graph-jsp-env 1.1.1, DisjunctiveGraphJspEnv with its defaults (task actions, left shift), behind the shared loop."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from serve import MaskedEnvironment, SingleDriver, serve

# isort: split
from graph_jsp_env.disjunctive_graph_jsp_env import DisjunctiveGraphJspEnv


class GraphJspEnvironment(MaskedEnvironment):
    build = "plain Python"
    packages = ("graph-jsp-env", "numpy", "gymnasium", "networkx")

    def load(self, machines: np.ndarray, durations: np.ndarray) -> None:
        self.env = DisjunctiveGraphJspEnv(jps_instance=np.stack([machines, durations]))

    def _nodes(self, attribute: str) -> np.ndarray:
        """An attribute of every operation, int[J, M]: node 0 is the source, then job by job."""
        values = [self.env.G.nodes[node][attribute] for node in range(1, self.env.total_tasks_without_dummies + 1)]
        return np.array(values).reshape(self.env.n_jobs, self.env.n_machines)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self._nodes("machine"), self._nodes("duration")

    def reset(self) -> list[bool]:
        self.env.reset()
        return np.asarray(self.env.valid_action_mask())

    def step(self, action: int) -> tuple[np.ndarray, bool]:
        _, _, terminated, truncated, _ = self.env.step(action)
        return np.asarray(self.env.valid_action_mask()), terminated or truncated

    def starts(self) -> np.ndarray:
        return self._nodes("start_time")


if __name__ == "__main__":
    serve(SingleDriver(GraphJspEnvironment()))
