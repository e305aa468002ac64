"""A running average of the weights (Polyak and Juditsky, 1992), often better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of every floating-point parameter and buffer of one network.

    The decay starts small, min(decay, (1 + n) / (10 + n)) after n steps, so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._live = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        self._mean = [tensor.clone() for tensor in self._live]
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights as they are now."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._mean, self._live, 1 - decay)
        self._steps += 1

    @torch.no_grad()
    def apply(self) -> None:
        """Writes the average into the network."""
        torch._foreach_copy_(self._live, self._mean)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network holds the average inside the block, its own weights again afterwards."""
        kept: list[Tensor] = [tensor.clone() for tensor in self._live]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._live, kept)

    def state(self) -> dict[str, Any]:
        """For a snapshot."""
        return {"mean": self._mean, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """From a snapshot."""
        with torch.no_grad():
            for mean, saved in zip(self._mean, state["mean"], strict=True):
                mean.copy_(saved)
        self._steps = state["steps"]
