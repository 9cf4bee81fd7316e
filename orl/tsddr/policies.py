"""Policies that name the next state by fractions in [0, 1], one for each component of the state.

Each has two parts. ``encode`` reads what the observation tells beside the state; it does not depend on decisions, so
that all stages of an episode are encoded at once. ``decide`` adds the state, and is all that has to be done stage by
stage. The gradient of an episode runs through both, and through the states that the fractions lead to.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from orl.common.errors import InputError

Squash = Literal["stretch", "clip"]
Dtype = Literal["float32", "float64"]
Memory = tuple[torch.Tensor, torch.Tensor]
"""Hidden and cell state of an LSTM, [1, B, hidden] each."""


class TargetPolicy(BasePolicy):
    """A network from observations to fractions y in [0, 1]^n; actions are a = 2 y - 1.

    Args:
        observation_space: Box of one axis, in which the state stands at ``state_at``.
        action_space: Box [-1, 1]^n.
        lr_schedule: Learning rate of the optimiser.
        state_at: Where the state stands in an observation.
        lstm_hidden: Units of an LSTM over what the observation tells beside the state; 0 for none.
        net_arch: Widths of the hidden layers of the head, which takes the output of the LSTM (or the rest of the
            observation) and the state. With none, the head is linear; without LSTM too, it begins at zero.
        activation_fn: Activation of the hidden layers.
        squash: From outputs z to fractions. ``"stretch"``: (sigmoid(z) - a) / b, cut to [0, 1 - c], with (a, b, c) from
            ``stretch``: a sigmoid alone reaches neither end, where many good targets lie. ``"clip"``: z + 1/2 cut to
            [0, 1].
        stretch: (a, b, c) of ``squash="stretch"``.
        dtype: Of parameters and computations.
        optimizer_class: Optimiser, made as ``optimizer_class(parameters, lr=..., **optimizer_kwargs)``.
        optimizer_kwargs: Its further arguments.

    Raises:
        InputError: a value outside its range.

    >>> box, action = spaces.Box(-9, 9, (5,)), spaces.Box(-1, 1, (2,))
    >>> policy = MLPTarget(box, action, lambda progress: 1e-3, state_at=slice(0, 2))
    >>> policy.predict(np.zeros((7, 5), np.float32))[0].shape
    (7, 2)
    """

    defaults: ClassVar[dict[str, Any]] = {"lstm_hidden": 0, "net_arch": (), "squash": "stretch"}
    """What ``lstm_hidden``, ``net_arch`` and ``squash`` are where they are not given."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        state_at: slice,
        lstm_hidden: int | None = None,
        net_arch: Sequence[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        squash: Squash | None = None,
        stretch: tuple[float, float, float] = (0.03, 0.94, 1e-3),
        dtype: Dtype = "float64",
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        given = {"lstm_hidden": lstm_hidden, "net_arch": net_arch, "squash": squash}
        chosen = self.defaults | {name: value for name, value in given.items() if value is not None}
        self.lstm_hidden = int(chosen["lstm_hidden"])
        self.net_arch = [int(width) for width in chosen["net_arch"]]
        self.squash: Squash = chosen["squash"]
        self.state_at, self.stretch, self.activation_fn = state_at, tuple(stretch), activation_fn
        self.dtype_name, self.torch_dtype = dtype, _torch_dtype(dtype)
        self.optimizer_class, self.optimizer_kwargs = optimizer_class, optimizer_kwargs or {}
        self._check()

        size, n = observation_space.shape[0], action_space.shape[0]  # type: ignore[index]
        self.context_at = np.setdiff1d(np.arange(size), np.arange(size)[state_at])
        """Where the rest of the observation stands, int64[d - n]."""
        widths = [*self.net_arch, n]
        self.lstm = nn.LSTM(len(self.context_at), self.lstm_hidden) if self.lstm_hidden else None
        self.from_context = nn.Linear(self.lstm_hidden or len(self.context_at), widths[0])
        self.from_state = nn.Linear(n, widths[0], bias=False)
        layers: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers += [activation_fn(), nn.Linear(width, following)]
        self.head = nn.Sequential(*layers)
        if not layers and self.lstm is None:  # a linear rule that begins anywhere else may get stuck where it is cut
            for parameter in self.parameters():
                nn.init.zeros_(parameter)
        self.to(self.torch_dtype)
        self.optimizer = optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _check(self) -> None:
        _require(self.lstm_hidden >= 0, "lstm_hidden", self.lstm_hidden, ">= 0")
        _require(all(width >= 1 for width in self.net_arch), "net_arch", self.net_arch, "widths >= 1")
        _require(self.squash in ("stretch", "clip"), "squash", self.squash, "'stretch' or 'clip'")
        fine = len(self.stretch) == 3 and self.stretch[1] > 0 and 0 <= self.stretch[2] < 1
        _require(fine, "stretch", self.stretch, "(a, b, c) with b > 0 and 0 <= c < 1")

    # ---- the function ------------------------------------------------------------------------------------------
    def encode(self, context: torch.Tensor, memory: Memory | None = None) -> tuple[torch.Tensor, Memory | None]:
        """What the head needs of T stages, beside the state.

        Args:
            context: [T, B, d - n], observations without the state.
            memory: The LSTM's memory before the first of them; None: of the beginning of an episode.

        Returns:
            [T, B, k], and the memory after the last one (None without LSTM).
        """
        if self.lstm is None:
            return self.from_context(context), None
        hidden, memory = self.lstm(context, memory)
        return self.from_context(hidden), memory

    def decide(self, encoded: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Fractions [B, n] from one stage's encoding [B, k] and the states [B, n] as observations show them."""
        z = self.head(encoded + self.from_state(state))
        if self.squash == "clip":
            return (z + 0.5).clamp(0.0, 1.0)
        shift, scale, margin = self.stretch
        return ((torch.sigmoid(z) - shift) / scale).clamp(0.0, 1.0 - margin)

    def forward(self, observation: torch.Tensor, memory: Memory | None = None) -> tuple[torch.Tensor, Memory | None]:
        """Fractions [B, n] from observations [B, d] of one stage, and the memory after it."""
        encoded, memory = self.encode(observation[None, :, self.context_at], memory)
        return self.decide(encoded[0], observation[:, self.state_at]), memory

    # ---- SB3's predict -----------------------------------------------------------------------------------------
    def predict(  # type: ignore[override]
        self,
        observation: npt.NDArray[Any],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[np.float32], tuple[npt.NDArray[Any], ...] | None]:
        """Actions of observations, with SB3's rules for recurrent policies.

        Args:
            observation: float32[d], or float32[B, d] of B envs.
            state: What the previous call returned; None at the beginning.
            episode_start: bool[B], where episodes begin: the memory is cleared there. None: nowhere.
            deterministic: Without meaning, these policies draw nothing.

        Returns:
            Actions float32[n] or [B, n] in [-1, 1], and the memory for the next call, two arrays [1, B, hidden]
            (without LSTM: ``state`` as given).
        """
        self.set_training_mode(False)
        tensor, batched = self.obs_to_tensor(observation)
        assert isinstance(tensor, torch.Tensor)
        with torch.no_grad():
            memory = self._memory(state, episode_start, len(tensor))
            fractions, memory = self(tensor.to(self.torch_dtype), memory)
        actions = as_actions(fractions)
        if memory is not None:
            state = tuple(part.cpu().numpy() for part in memory)
        return actions if batched else actions[0], state

    def _memory(self, state: Any, episode_start: Any, size: int) -> Memory | None:
        if self.lstm is None or state is None:
            return None
        kept = 1.0 if episode_start is None else 1.0 - np.reshape(episode_start, (1, -1, 1)).astype(np.float64)
        parts = [np.broadcast_to(part * kept, (1, size, self.lstm_hidden)) for part in state]
        hidden, cell = (torch.tensor(part, dtype=self.torch_dtype, device=self.device) for part in parts)
        return hidden, cell

    def _predict(self, observation: Any, deterministic: bool = True) -> torch.Tensor:
        return 2.0 * self(observation.to(self.torch_dtype))[0] - 1.0

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # dummy, as in SB3's policies
            "state_at": self.state_at,
            "lstm_hidden": self.lstm_hidden,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "squash": self.squash,
            "stretch": self.stretch,
            "dtype": self.dtype_name,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


class LSTMTarget(TargetPolicy):
    """An LSTM of 64 units over the noise and the time, and a hidden layer of 64 units."""

    defaults: ClassVar[dict[str, Any]] = {"lstm_hidden": 64, "net_arch": (64,), "squash": "stretch"}


class MLPTarget(TargetPolicy):
    """Two hidden layers of 64 units on the present observation: enough where noise depends on the stage alone."""

    defaults: ClassVar[dict[str, Any]] = {"lstm_hidden": 0, "net_arch": (64, 64), "squash": "stretch"}


class LinearTarget(TargetPolicy):
    """A linear decision rule, cut to [0, 1]: one matrix for all stages on the present observation."""

    defaults: ClassVar[dict[str, Any]] = {"lstm_hidden": 0, "net_arch": (), "squash": "clip"}


def as_actions(fractions: torch.Tensor) -> npt.NDArray[np.float32]:
    """Fractions as the actions that an env gets: 2 y - 1, rounded to float32.

    >>> as_actions(torch.tensor([0.0, 0.25, 1.0])).tolist()
    [-1.0, -0.5, 1.0]
    """
    actions: npt.NDArray[np.float32] = (2.0 * fractions - 1.0).to(torch.float32).cpu().numpy()
    return actions


def _torch_dtype(name: str) -> torch.dtype:
    _require(name in ("float32", "float64"), "dtype", name, "'float32' or 'float64'")
    return torch.float64 if name == "float64" else torch.float32


def _require(holds: bool, field: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError("out of range", field=field, value=value, expected=expected)
