"""Small networks, one per way in which channels can be coupled."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Between, Sample, image


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


class GroupNorm(Between):
    def make(self) -> None:
        self.norm = nn.GroupNorm(2, 8)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(x)


class PlainGroupNorm(GroupNorm):
    def make(self) -> None:
        self.norm = nn.GroupNorm(2, 8, affine=False)


class InstanceNorm(Between):
    def make(self) -> None:
        self.norm = nn.InstanceNorm2d(8, affine=True)
        self.plain = nn.InstanceNorm2d(8)
        self.tracking = nn.InstanceNorm2d(8, track_running_stats=True)

    def between(self, x: Tensor) -> Tensor:
        return self.tracking(F.relu(self.plain(F.relu(self.norm(x)))))


class PlainBatchNorm(Between):
    def make(self) -> None:
        self.norm = nn.BatchNorm2d(8, affine=False)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(x)


class LayerNorm(Between):
    def make(self) -> None:
        self.norm = nn.LayerNorm(8)
        self.plain = nn.LayerNorm(8, elementwise_affine=False)

    def between(self, x: Tensor) -> Tensor:
        return self.plain(F.relu(self.norm(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


class RmsNorm(Between):
    def make(self) -> None:
        self.norm = nn.RMSNorm(8)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerNormOfImage(Between):
    """A norm over channels and positions: one weight per element of the map."""

    def make(self) -> None:
        self.norm = nn.LayerNorm([8, 8, 8])

    def between(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Prelu(Between):
    def make(self) -> None:
        self.each = nn.PReLU(8)
        self.all = nn.PReLU()

    def between(self, x: Tensor) -> Tensor:
        return self.all(self.each(x) - 0.5)


class SqueezeExcite(Between):
    def make(self) -> None:
        self.down = nn.Conv2d(8, 3, 1)
        self.up = nn.Conv2d(3, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class LinearSqueezeExcite(Between):
    def make(self) -> None:
        self.down = nn.Linear(8, 3)
        self.up = nn.Linear(3, 8)

    def between(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return x * gate.view(batch, channels, 1, 1).expand_as(x)


class EfficientChannelAttention(Between):
    """ECA: a 1-d convolution over the channel dimension mixes neighbours."""

    def make(self) -> None:
        self.mix = nn.Conv1d(1, 1, 3, padding=1)

    def between(self, x: Tensor) -> Tensor:
        gate = self.mix(x.mean((2, 3)).unsqueeze(1)).squeeze(1)
        return x * torch.sigmoid(gate)[:, :, None, None]


class SpatialAttention(Between):
    """CBAM: a map made of the mean and the largest over channels."""

    def make(self) -> None:
        self.mix = nn.Conv2d(2, 1, 3, padding=1)
        self.after = nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        gate = self.mix(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        return self.after(x * torch.sigmoid(gate))


class SelectiveKernel(Between):
    """SKNet: branches stacked, weighted by a softmax over the branches."""

    def make(self) -> None:
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 1)
        self.gates = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def between(self, x: Tensor) -> Tensor:
        branches = torch.stack([self.one(x), self.two(x)], 1)
        pooled = branches.sum(1).mean((2, 3))
        gates = torch.softmax(torch.stack([gate(pooled) for gate in self.gates], 1), 1)
        return (branches * gates[..., None, None]).sum(1)


class GlobalResponseNorm(Between):
    """ConvNeXt V2: a channel's energy over the mean energy of all channels."""

    def make(self) -> None:
        self.gamma = nn.Parameter(torch.rand(1, 1, 1, 8))
        self.beta = nn.Parameter(torch.rand(1, 1, 1, 8))
        self.after = nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        energy = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        x = self.gamma * (x * (energy / (energy.mean(-1, keepdim=True) + 1e-6))) + self.beta + x
        return self.after(x.permute(0, 3, 1, 2))


class LayerScale(Between):
    def make(self) -> None:
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.register_buffer("shift", torch.rand(1, 8, 1, 1))
        self.temperature = nn.Parameter(torch.tensor(0.7))

    def between(self, x: Tensor) -> Tensor:
        return (x * self.scale + self.shift) / self.temperature


class InputNormalisation(Between):
    def make(self) -> None:
        self.register_buffer("mean", torch.rand(3, 1, 1))

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / 0.5)


class PositionMap(Between):
    """A parameter with one value per channel and position."""

    def make(self) -> None:
        self.position = nn.Parameter(torch.rand(1, 8, 8, 8))

    def between(self, x: Tensor) -> Tensor:
        return x + self.position


class Recycled(Between):
    """One convolution used three times, one norm twice."""

    def make(self) -> None:
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def between(self, x: Tensor) -> Tensor:
        return self.again(F.relu(self.norm(self.again(F.relu(self.norm(self.again(x)))))))


class TiedConvolutions(Between):
    """Autoencoder with one weight for the way there and back."""

    def make(self) -> None:
        self.code = nn.Conv2d(8, 5, 3, padding=1)
        self.decode = nn.ConvTranspose2d(5, 8, 3, padding=1)
        self.decode.weight = self.code.weight

    def between(self, x: Tensor) -> Tensor:
        return self.decode(F.relu(self.code(x)))


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


class ImageStep(Between):
    """1x1 products written as matrix products and einsum."""

    def make(self) -> None:
        self.mix = nn.Parameter(torch.randn(8, 6) * 0.3)
        self.other = nn.Parameter(torch.randn(6, 8) * 0.3)

    def between(self, x: Tensor) -> Tensor:
        x = F.relu(x.permute(0, 2, 3, 1) @ self.mix)
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


PATTERNS: Mapping[str, Callable[[], Sample]] = {
    entry.__name__: (lambda entry=entry: Sample(entry(), (image(),), entry.without_gradient))  # type: ignore[misc]
    for entry in list(globals().values())
    if isinstance(entry, type) and issubclass(entry, Between) and entry is not Between
}
