"""job-shop-cp-env 1.0.0 behind the shared worker loop.

The wheel holds the module twice: plain Python as ``compiled_jss.CPEnv`` and, because its source tree has a package
named ``src``, the mypyc-compiled one as ``src.compiled_jss.CPEnv``. The compiled one is measured. One action is given a
step; the environment writes its full observation (interval window, masks, job-resource mask) each time.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from serve import MaskedEnvironment, SingleDriver, serve, write_standard_file

# isort: split
from src.compiled_jss import CPEnv


class JobShopCPEnv(MaskedEnvironment):
    build = "mypyc-compiled" if CPEnv.__file__.endswith(".so") else "plain Python"
    packages = ("job-shop-cp-env", "numpy", "gym")

    def load(self, machines: np.ndarray, durations: np.ndarray) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/instance"
            write_standard_file(path, machines, durations)
            self.env = CPEnv.CompiledJssEnvCP(path)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        data = np.array(self.env.jobs_data)
        return data[:, :, 0], data[:, :, 1]

    def reset(self) -> np.ndarray:
        return self.env.reset()["action_mask"]

    def step(self, action: int) -> tuple[np.ndarray, bool]:
        observation, _, done, self.info = self.env.step(np.array([action]))
        return observation["action_mask"], done

    def starts(self) -> np.ndarray:
        return np.array(json.loads(self.info["solution"]))


if __name__ == "__main__":
    serve(SingleDriver(JobShopCPEnv()))
