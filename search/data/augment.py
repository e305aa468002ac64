"""Random crops, flips and cut-outs of whole batches: tensor operations only, no Python per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.arguments import explains
from backbones.errors import SecateurError

WIDEST = 512
"""Pixels of a border or a cut-out beyond which memory ends before an image does."""


@dataclass(frozen=True, slots=True)
@explains("__post_init__")
class Augment:
    """What is drawn anew for every image in every epoch; the default changes nothing.

    Attributes:
        crop: pixels of black border added on each side before a crop of the original size is taken at a random place
            (4 is usual for 32 x 32 images; He et al., CVPR 2016).
        flip: mirror left to right with probability one half.
        cutout: side in pixels of a square with a random centre that is blanked, clipped at the border (DeVries and
            Taylor, arXiv:1708.04552); 0 for none.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for name, value in (("crop", self.crop), ("cutout", self.cutout)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= WIDEST:
                raise SecateurError(
                    f"augment.{name} must be a whole number of pixels, 0 to {WIDEST}, but got {name}={value!r}"
                )

    def __call__(self, images: Tensor, generator: torch.Generator, fill: Tensor | None = None) -> Tensor:
        """Returns an augmented copy (or `images` itself when there is nothing to do).

        Args:
            images: (N, C, H, W), any number type, on any device.
            generator: on the CPU; the same state gives the same draw on every device.
            fill: (C,) colour of a cut-out in the units of `images`, black when not given.
        """
        if self.crop:
            images = _crop(images, self.crop, generator)
        if self.flip:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
        if self.cutout:
            images = _cut(images, self.cutout, generator, fill)
        return images


def _crop(images: Tensor, border: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    # Every window of the padded batch is a view (N, C, 2b+1, 2b+1, H, W): one gather picks one window an image.
    windows = F.pad(images, (border,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(0, 2 * border + 1, (2, count), generator=generator).to(images.device)
    return windows[torch.arange(count, device=images.device), :, top, left]


def _cut(images: Tensor, side: int, generator: torch.Generator, fill: Tensor | None) -> Tensor:
    count, channels, height, width = images.shape
    centres = torch.rand(2, count, generator=generator).to(images.device)
    rows = _inside(centres[0] * height, height, side)
    columns = _inside(centres[1] * width, width, side)
    square = (rows[:, :, None] & columns[:, None, :])[:, None]
    colour = torch.zeros(channels) if fill is None else fill
    return torch.where(square, colour.to(images.device, images.dtype)[None, :, None, None], images)


def _inside(centres: Tensor, length: int, side: int) -> Tensor:
    """(N, length) mask of the positions covered by a stretch of `side` pixels around each centre."""
    start = centres.floor().long() - side // 2
    positions = torch.arange(length, device=centres.device)
    return (positions >= start[:, None]) & (positions < start[:, None] + side)
