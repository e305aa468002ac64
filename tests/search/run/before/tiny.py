"""The user's own module of the run folder: a network with a removable layer, and three kinds of stripes."""

import torch
from torch import nn

import secateur as sc


class Tiny(nn.Module):
    """A stem, a residual block, a wider layer."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3, padding=1)
        )
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores per class."""
        early = self.stem(images)
        out: torch.Tensor = self.head(self.wide(early + self.block(early)).mean((2, 3)))
        return out


def net(num_classes: int, in_channels: int) -> nn.Module:
    """The network of `[model] factory`."""
    return Tiny(num_classes, in_channels)


def images() -> sc.Data:
    """The images of `[data] factory`."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(80)
    pictures = torch.rand(240, 1, 8, 8, generator=draws) * 0.5
    for label in range(3):
        pictures[labels == label, :, 2 * label : 2 * label + 3] += 0.5
    return sc.Data.from_tensors("stripes", (pictures[:180], labels[:180]), (pictures[180:], labels[180:]))
