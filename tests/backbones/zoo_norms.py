# mypy: disable-error-code="no-any-return,operator,index"
"""Small networks, one per kind of norm, gate and per-channel value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Between, patterns


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


NORMS = patterns(globals())
