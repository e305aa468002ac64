# mypy: disable-error-code="no-any-return,operator,index"
"""Small networks, one per way in which layers couple channels: pieces, shuffles, groups, tied weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Between, patterns


class Residual(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def between(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.inner(x)))


class DenseConcat(Between):
    width = 8 + 4 + 4

    def make(self) -> None:
        self.one = nn.Conv2d(8, 4, 3, padding=1)
        self.two = nn.Conv2d(12, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)

    def between(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.one(x)], 1)
        return torch.cat([x, self.two(F.relu(self.norm(x)))], 1)


class GatedHalves(Between):
    width = 4

    def between(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, 1)
        return value * torch.sigmoid(gate)


class Glu(Between):
    width = 4

    def between(self, x: Tensor) -> Tensor:
        return F.glu(x, 1)


class UntiedHalves(Between):
    """Halves that nobody adds: each way has its own convolution, but the code wants them equal in size."""

    width = 6

    def make(self) -> None:
        self.left = nn.Conv2d(4, 3, 3, padding=1)
        self.right = nn.Conv2d(4, 3, 1)

    def between(self, x: Tensor) -> Tensor:
        left, right = x.split(4, 1)
        return torch.cat([self.left(left), self.right(right)], 1)


class ChunkedHalves(UntiedHalves):
    def between(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return torch.cat([self.left(left), self.right(right)], 1)


class SlicedHalves(UntiedHalves):
    def between(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return torch.cat([self.left(x[:, :half]), self.right(x[:, half:])], 1)


class NestedHalves(Between):
    width = 8

    def make(self) -> None:
        self.inner = nn.Conv2d(2, 2, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        first, second = left.chunk(2, 1)
        return torch.cat([self.inner(first), second, right], 1)


class UnequalSplit(UntiedHalves):
    def make(self) -> None:
        self.left = nn.Conv2d(3, 3, 3, padding=1)
        self.right = nn.Conv2d(5, 3, 1)

    def between(self, x: Tensor) -> Tensor:
        left, right = x.split([3, 5], 1)
        return torch.cat([self.left(left), self.right(right)], 1)


class ViewShuffle(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=2)

    def between(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.inner(x.view(batch, channels, height, width))


class LibraryShuffle(ViewShuffle):
    def between(self, x: Tensor) -> Tensor:
        return self.inner(F.channel_shuffle(x, 2))


class PixelShuffle(Between):
    width = 2

    def between(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, 2)


class PixelUnshuffle(Between):
    width = 32

    def between(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2)


class SpaceToDepth(Between):
    """Focus of YOLOv5: four subsampled copies of every channel side by side."""

    width = 32

    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


class Maxout(Between):
    width = 4

    def between(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.view(batch, channels // 2, 2, height, width).amax(2)


class Grouped(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.out = nn.Conv2d(12, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.inner(x)))


class Depthwise(Between):
    width = 16

    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.wide = nn.Conv2d(8, 16, 3, padding=1, groups=8)

    def between(self, x: Tensor) -> Tensor:
        return self.wide(F.relu6(self.inner(x)))


class Transposed(Between):
    width = 6

    def make(self) -> None:
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.depthwise = nn.ConvTranspose2d(6, 6, 3, padding=1, groups=6)
        self.grouped = nn.ConvTranspose2d(6, 6, 3, padding=1, groups=2)

    def between(self, x: Tensor) -> Tensor:
        return self.grouped(F.relu(self.depthwise(self.up(x))))


COUPLINGS = patterns(globals())
