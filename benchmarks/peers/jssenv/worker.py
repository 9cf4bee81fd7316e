"""jssenv 1.1.0 behind the shared worker loop: its observation is the (J, 7) table and the action mask."""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from serve import MaskedEnvironment, SingleDriver, serve, write_standard_file

# isort: split
from JSSEnv.envs.jss_env import JssEnv


class JssEnvironment(MaskedEnvironment):
    build = "plain Python"
    packages = ("jssenv", "numpy", "gymnasium")

    def load(self, machines: np.ndarray, durations: np.ndarray) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/instance"
            write_standard_file(path, machines, durations)
            self.env = JssEnv({"instance_path": path})

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return self.env.instance_matrix[:, :, 0], self.env.instance_matrix[:, :, 1]

    def reset(self) -> np.ndarray:
        return self.env.reset()["action_mask"]

    def step(self, action: int) -> tuple[np.ndarray, bool]:
        observation, _, terminated, truncated, _ = self.env.step(action)
        return observation["action_mask"], terminated or truncated

    def starts(self) -> np.ndarray:
        return self.env.last_solution


if __name__ == "__main__":
    serve(SingleDriver(JssEnvironment()))
