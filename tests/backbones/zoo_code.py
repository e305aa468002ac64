# mypy: disable-error-code="no-any-return,operator,index"
"""Small networks with code that pruners stumble over: in-place writes, literal sizes, computed weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Between, patterns


class InPlace(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        y += x
        y.mul_(0.5).relu_()
        return y


class SliceAssigned(Between):
    def between(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :3] = 0.1
        return x


class TemporalShift(Between):
    """TSM: an eighth of the channels moved by a position."""

    def between(self, x: Tensor) -> Tensor:
        fold = x.shape[1] // 4
        out = torch.zeros_like(x)
        out[:, :fold, :-1] = x[:, :fold, 1:]
        out[:, fold:] = x[:, fold:]
        return out


class ChannelPad(Between):
    width = 12

    def between(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 2, 2))


class CatZeros(Between):
    width = 12

    def between(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x[:, :4])], 1)


class LiteralView(Between):
    width = 8

    def make(self) -> None:
        self.fold = nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return self.fold(x).view(-1, 8, 64).mean(2)[:, :, None, None]


class CountAsNumber(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return self.inner(x / x.shape[1] + x.mean((2, 3), keepdim=True))


class NormalisedChannels(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return F.normalize(self.inner(x), dim=1)


class StandardisedWeights(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        weight = self.inner.weight
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.inner.bias, padding=1)


class NormalisedWeights(Between):
    def make(self) -> None:
        self.inner = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))

    def between(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Products(Between):
    """1x1 products written as matrix products."""

    def make(self) -> None:
        self.mix = nn.Parameter(torch.randn(8, 6) * 0.3)
        self.other = nn.Parameter(torch.randn(8, 6) * 0.3)

    def between(self, x: Tensor) -> Tensor:
        x = F.relu(x.permute(0, 2, 3, 1) @ self.mix)
        return torch.matmul(x, self.other.t()).permute(0, 3, 1, 2)


class Einsum(Between):
    """The same as einsum; with a single channel left torch takes another way, which its counter does not see."""

    uncounted = True

    def make(self) -> None:
        self.mix = nn.Parameter(torch.randn(8, 6) * 0.3)
        self.other = nn.Parameter(torch.randn(6, 8) * 0.3)

    def between(self, x: Tensor) -> Tensor:
        x = F.relu(torch.einsum("bihw,io->bhwo", x, self.mix))
        return torch.einsum("bhwi,io->bohw", x, self.other)


class Unfolded(Between):
    """im2col: every channel becomes kernel x kernel rows."""

    width = 72

    def between(self, x: Tensor) -> Tensor:
        return F.unfold(x, 3, padding=1).view(x.shape[0], -1, 8, 8)


class ChannelsLast(Between):
    """Linear layers on (N, H, W, C), the MLP of a ConvNeXt."""

    def make(self) -> None:
        self.up = nn.Linear(8, 20)
        self.down = nn.Linear(20, 8)

    def between(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class Mixer(Between):
    """MLP-Mixer: one MLP over positions, one over channels."""

    def make(self) -> None:
        self.tokens = nn.Sequential(nn.Linear(64, 10), nn.GELU(), nn.Linear(10, 64))
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    def between(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = x + self.tokens(x)
        x = x.transpose(1, 2)
        return (x + self.mlp(x)).transpose(1, 2).unflatten(2, (8, 8))


class Resampled(Between):
    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def between(self, x: Tensor) -> Tensor:
        small = F.max_pool2d(x, 2) + F.avg_pool2d(x, 2) + self.inner(x)
        up = F.interpolate(small, scale_factor=2, mode="bilinear")
        return up + F.interpolate(small, size=x.shape[-2:])


class LocalResponse(Between):
    """A norm over neighbouring channels: they stay."""

    def between(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, 3)


class Checkpointed(Between):
    def make(self) -> None:
        self.inner = nn.Sequential(nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 8, 1))

    def between(self, x: Tensor) -> Tensor:
        out: Tensor = torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=False)
        return out


class WithoutGradient(Between):
    without_gradient = ("stem.weight", "bn.weight", "bn.bias", "inner.weight", "inner.bias")

    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = F.relu(self.inner(x))
        return x


class Permuted(Between):
    """Channels reversed and picked by an index list: literal orders freeze, flips do not."""

    def make(self) -> None:
        self.inner = nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return self.inner(x.flip(1))[:, [3, 1, 0, 2, 7, 6, 5, 4]]


class Res2(Between):
    """Res2Net: pieces in a chain, each added to the next."""

    def make(self) -> None:
        self.steps = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

    def between(self, x: Tensor) -> Tensor:
        pieces = torch.split(x, 2, 1)
        out = [pieces[0]]
        for piece, step in zip(pieces[1:], self.steps, strict=True):
            out.append(F.relu(step(piece + out[-1])))
        return torch.cat(out, 1)


CODE = patterns(globals())
