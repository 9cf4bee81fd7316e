"""CleanRL 1.2.0: its script ``ppo_continuous_action.py`` as published, one iteration after the other.

The script reports its speed to TensorBoard at the end of every iteration. In the place of TensorBoard's writer stands
one that keeps nothing and waits there until more steps are asked for.
"""

import runpy
import sys
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from learners import Requests

# isort: split
import torch

MANY = 10**9


class WaitingWriter:
    """``SummaryWriter`` for the calls of the script."""

    requests: Requests
    wanted = 0
    begun = 0

    def __init__(self, log_dir: str) -> None:
        pass

    def add_text(self, tag: str, text: str) -> None:
        pass

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        if tag == "charts/SPS" and step - self.begun >= self.wanted:
            self.requests.done(step - self.begun)
            self.begun, self.wanted = step, self.requests.steps()


def main() -> None:
    requests = WaitingWriter.requests = Requests("cleanrl", "torch", "gymnasium", "mujoco", "numpy")
    torch.set_num_threads(1)
    request = requests.load()
    if request["algorithm"] != "PPO":
        raise ValueError(f"only PPO is run here, got {request['algorithm']!r}")
    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = WaitingWriter  # type: ignore[attr-defined]
    sys.modules[stand_in.__name__] = stand_in
    options = {"env-id": request["env_id"], "num-steps": request["n_steps"], "total-timesteps": MANY, "cuda": False}
    sys.argv = [
        "ppo_continuous_action.py",
        *(str(part) for key, value in options.items() for part in (f"--{key}", value)),
    ]
    WaitingWriter.wanted = requests.steps()
    runpy.run_module("cleanrl.ppo_continuous_action", run_name="__main__")


if __name__ == "__main__":
    main()
