"""Parameters of a policy as views into one flat buffer, with their gradients in a second one.

One buffer lets the optimiser, the gradient norm and a target update each be one call instead of one a parameter. The
parameters stay ordinary ``nn.Parameter`` objects: ``state_dict``, ``load_state_dict``, ``save`` and other optimisers
work as before. Whatever replaces their memory (``deepcopy``, ``.to(dtype)``, ``load_state_dict(assign=True)``,
``share_memory``) is noticed by :meth:`FlatParameters.refresh`, which lays them out again.

>>> layer = torch.nn.Linear(3, 2)
>>> flat = FlatParameters(layer.parameters())
>>> with torch.no_grad():
...     _ = flat.data.fill_(1.0)
>>> layer(torch.ones(3))[0].item()
4.0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch


class FlatParameters:
    """Parameters laid out one after the other in ``data``, their gradients in ``grad``.

    Attributes:
        parameters: The parameters, in the order of the buffer.
        data: Values, float[P], contiguous; ``parameters[i].data`` is a view of it.
        grad: Gradients, float[P], contiguous; ``parameters[i].grad`` is a view of it.
        bounds: For each parameter the half-open range ``(start, stop)`` of its entries.

    Args:
        parameters: Parameters of one dtype on one device, each once. The order decides which of them are neighbours.

    Raises:
        ValueError: No parameters, a parameter twice, or several dtypes or devices.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.parameters: Sequence[torch.nn.Parameter] = tuple(parameters)
        if not self.parameters:
            raise ValueError("there are no parameters to lay out")
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ValueError("a parameter appears twice")
        kinds = {(p.dtype, p.device) for p in self.parameters}
        if len(kinds) > 1:
            raise ValueError(f"parameters of one dtype on one device expected, got {sorted(map(str, kinds))}")
        stops = torch.tensor([p.numel() for p in self.parameters]).cumsum(0).tolist()
        self.bounds: Sequence[tuple[int, int]] = tuple(zip([0, *stops[:-1]], stops, strict=True))
        self._lay_out()

    def _lay_out(self) -> None:
        first = self.parameters[0]
        self.data = torch.empty(self.bounds[-1][1], dtype=first.dtype, device=first.device)
        self.grad = torch.zeros_like(self.data)
        for parameter, view in zip(self.parameters, self.views(self.data), strict=True):
            view.copy_(parameter.data)
            parameter.data = view
        self._attach_grads()
        self._layout = [(p.data_ptr(), p.stride(), p.dtype) for p in self.parameters]
        self._grad_addresses = [view.data_ptr() for view in self.views(self.grad)]

    def _attach_grads(self) -> None:
        for parameter, view in zip(self.parameters, self.views(self.grad), strict=True):
            parameter.grad = view

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Views of a buffer of P entries, one a parameter and in its shape."""
        return [
            buffer[start:stop].view(parameter.shape)
            for parameter, (start, stop) in zip(self.parameters, self.bounds, strict=True)
        ]

    @property
    def intact(self) -> bool:
        """Whether every parameter still lies in the buffer and the buffer where it was."""
        return (
            self.data.data_ptr() == self._layout[0][0]
            and self.grad.data_ptr() == self._grad_addresses[0]
            and [(p.data_ptr(), p.stride(), p.dtype) for p in self.parameters] == self._layout
        )

    def refresh(self) -> bool:
        """Lay the parameters out again if their memory was replaced, and attach gradients that were dropped.

        Returns:
            Whether the buffers are new; views taken of the old ones are then worthless.
        """
        if not self.intact:
            self._lay_out()
            return True
        if [-1 if p.grad is None else p.grad.data_ptr() for p in self.parameters] != self._grad_addresses:
            self._attach_grads()
        return False
