"""What the networks of the zoo have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.parity import noise


@dataclass(frozen=True)
class Sample:
    """A network and the inputs it is traced with.

    Attributes:
        model: in any mode.
        example: its inputs.
        without_gradient: parameters that the code keeps from getting a gradient.
        uncounted: torch's counter knows nothing of some layer in it (nn.LSTM, nn.Bilinear).
    """

    model: nn.Module
    example: tuple[Tensor, ...]
    without_gradient: tuple[str, ...] = ()
    uncounted: bool = False


def image(channels: int = 3, size: int = 8, *, seed: int = 0) -> Tensor:
    """One float64 image."""
    return noise(1, channels, size, size, seed=seed)


class Between(nn.Module):
    """Convolution to 8 channels, norm, ReLU, what the subclass does to them, convolution to 6, head.

    Subclasses say how many channels their part makes (`width`).
    """

    width = 8
    without_gradient: tuple[str, ...] = ()
    uncounted = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.make()
        self.tail = nn.Conv2d(self.width, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def make(self) -> None:
        """Adds the subclass's layers."""

    def between(self, x: Tensor) -> Tensor:
        """(N, 8, H, W) -> (N, width, H', W')."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.tail(self.between(F.relu(self.bn(self.stem(x)))))
        logits: Tensor = self.head(F.leaky_relu(x).mean((2, 3)))
        return logits


def patterns(names: Mapping[str, object]) -> Mapping[str, Callable[[], Sample]]:
    """The subclasses of `Between` in a module, as zoo entries."""
    found = [
        entry
        for entry in names.values()
        if isinstance(entry, type) and issubclass(entry, Between) and entry is not Between
    ]
    return {entry.__name__: partial(_sample, entry) for entry in found}


def _sample(entry: type[Between]) -> Sample:
    return Sample(entry(), (image(),), entry.without_gradient, entry.uncounted)
