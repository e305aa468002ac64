# mypy: disable-error-code="no-any-return,operator,index"
"""Miniatures of the convolutional families: every trick of the real network, a few channels of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.backbones.zoo import Sample, image


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Excite(nn.Module):
    def __init__(self, channels: int, squeezed: int, gate: Any = nn.Sigmoid) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(F.relu(self.fc1(self.pool(x)))))


class Head(nn.Sequential):
    """Pooling, flatten, dropout, linear."""

    def __init__(self, channels: int, classes: int = 5) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, classes))


class AlexNet(nn.Sequential):
    def __init__(self) -> None:
        features = [
            nn.Conv2d(3, 8, 5, 2, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, 1, 1),
            nn.ReLU(),
        ]
        classifier = [nn.Dropout(), nn.Linear(12 * 9, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 16), nn.ReLU()]
        super().__init__(*features, nn.AdaptiveAvgPool2d(3), nn.Flatten(), *classifier, nn.Linear(16, 5))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, groups: int, squeezed: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, inner, 1), conv(inner, inner, 3, stride, groups)
        self.excite = Excite(inner, squeezed) if squeezed else nn.Identity()
        self.conv3 = conv(inner, outputs, 1, act=None)
        same = inputs == outputs and stride == 1
        self.down = nn.Identity() if same else conv(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv3(self.excite(self.conv2(self.conv1(x)))) + self.down(x))


def bottlenecks(groups: int = 1, squeezed: int = 0) -> nn.Module:
    """ResNet-50, ResNeXt, RegNet (squeeze-excite between)."""
    blocks = [Bottleneck(8, 8, 16, 1, groups, squeezed), Bottleneck(16, 8, 16, 1, groups, squeezed)]
    blocks.append(Bottleneck(16, 12, 24, 2, groups, squeezed))
    return nn.Sequential(conv(3, 8), nn.MaxPool2d(3, 2, 1), *blocks, Head(24))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, growth, 3, padding=1, bias=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(list(features), 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.first = nn.ModuleList(DenseLayer(8 + 4 * i, 4) for i in range(3))
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1), nn.AvgPool2d(2))
        self.second = nn.ModuleList(DenseLayer(10 + 4 * i, 4) for i in range(2))
        self.norm, self.head = nn.BatchNorm2d(18), nn.Linear(18, 5)

    def block(self, x: Tensor, layers: nn.ModuleList) -> Tensor:
        features = [x]
        for layer in layers:
            features.append(layer(features))
        return torch.cat(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.transition(self.block(self.stem(x), self.first)), self.second)
        return self.head(F.adaptive_avg_pool2d(F.relu(self.norm(x)), (1, 1)).flatten(1))


class Inception(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.one, self.three = conv(inputs, 4, 1), nn.Sequential(conv(inputs, 4, 1), conv(4, 6))
        self.wide = nn.Sequential(nn.Conv2d(inputs, 4, (1, 5), padding=(0, 2)), nn.Conv2d(4, 4, (5, 1), padding=(2, 0)))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.wide(x), self.pool(x)], 1)


class GoogLeNet(nn.Module):
    """With an auxiliary head that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 8, stride=2), Inception(8), Inception(17)
        self.aux, self.head = Head(17), Head(17)

    def forward(self, x: Tensor) -> Any:
        x = (x * 0.5 + 0.1).clamp(-3, 3)
        x = self.a(self.stem(x))
        if self.training:
            return self.head(self.b(x)), self.aux(x)
        return self.head(self.b(x))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, outputs, 1), nn.Conv2d(squeezed, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class SqueezeNet(nn.Sequential):
    def __init__(self) -> None:
        fires = [Fire(8, 4, 6), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(12, 4, 8), nn.Dropout(0.5)]
        tail = [nn.Conv2d(16, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), *fires, *tail)


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, inner: int, outputs: int, stride: int, squeezed: int = 0, act: Any = nn.ReLU6
    ) -> None:
        super().__init__()
        layers = [conv(inputs, inner, 1, act=act), conv(inner, inner, 3, stride, inner, act=act)]
        if squeezed:
            layers.append(Excite(inner, squeezed, nn.Hardsigmoid if act is nn.Hardswish else nn.Sigmoid))  # type: ignore[arg-type]
        self.body = nn.Sequential(*layers, conv(inner, outputs, 1, act=None))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobile(squeezed: int = 0, act: Any = nn.ReLU6) -> nn.Module:
    """MobileNetV2 and MNASNet; with squeeze-excite MobileNetV3 (Hardswish) and EfficientNet (SiLU)."""
    blocks = [InvertedResidual(8, 8, 6, 1, squeezed, act), InvertedResidual(6, 18, 6, 1, squeezed, act)]
    blocks.append(InvertedResidual(6, 18, 10, 2, squeezed, act))
    return nn.Sequential(conv(3, 8, act=act), *blocks, conv(10, 20, 1, act=act), Head(20))


class ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.short = nn.Sequential()
        if stride > 1:
            self.short = nn.Sequential(conv(inputs, inputs, 3, 2, inputs, act=None), conv(inputs, half, 1))
        start = inputs if stride > 1 else half
        self.long = nn.Sequential(
            conv(start, half, 1), conv(half, half, 3, stride, half, act=None), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            out = torch.cat((left, self.long(right)), 1)
        else:
            out = torch.cat((self.short(x), self.long(x)), 1)
        batch, channels, height, width = out.size()
        out = out.view(batch, 2, channels // 2, height, width)
        return torch.transpose(out, 1, 2).contiguous().view(batch, channels, height, width)


def shufflenet() -> nn.Module:
    """ShuffleNetV2."""
    units = [ShuffleUnit(8, 12, 2), ShuffleUnit(12, 12, 1), ShuffleUnit(12, 12, 1), ShuffleUnit(12, 16, 2)]
    return nn.Sequential(conv(3, 8), *units, ShuffleUnit(16, 16, 1), conv(16, 12, 1), Head(12))


class GroupedShuffleUnit(nn.Module):
    """ShuffleNetV1: grouped 1x1 convolutions with a shuffle in between."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.a, self.b = conv(channels, channels, 1, groups=groups), conv(channels, channels, groups=channels, act=None)
        self.c = conv(channels, channels, 1, groups=groups, act=None)

    def forward(self, x: Tensor) -> Tensor:
        out = self.a(x)
        n, c, h, w = out.shape
        out = out.reshape(n, self.groups, c // self.groups, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)
        return F.relu(x + self.c(self.b(out)))


class Ghost(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.primary = conv(inputs, (outputs + 1) // 2, 1)
        self.cheap = conv((outputs + 1) // 2, (outputs + 1) // 2, 3, groups=(outputs + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], dim=1)[:, : self.outputs, :, :]


class GhostBottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.one, self.two = Ghost(inputs, inner), Ghost(inner, outputs)
        self.excite = Excite(inner, 4, nn.Hardsigmoid)
        self.down = nn.Sequential(conv(inputs, inputs, groups=inputs, act=None), conv(inputs, outputs, 1, act=None))

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.excite(self.one(x))) + self.down(x)


class RepVgg(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.three, self.one = conv(channels, channels, act=None), conv(channels, channels, 1, act=None)
        self.identity = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.three(x) + self.one(x) + self.identity(x))


class HighResolution(nn.Module):
    """HRNet: streams of two resolutions that exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fork = conv(3, 8), conv(8, 12, stride=2)
        self.high, self.low = RepVgg(8), RepVgg(12)
        self.up, self.down = conv(12, 8, 1, act=None), conv(8, 12, stride=2, act=None)
        self.head = nn.Conv2d(20, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.stem(x)
        low = self.low(self.fork(high))
        high = self.high(high)
        mixed = F.relu(high + F.interpolate(self.up(low), size=high.shape[2:], mode="bilinear", align_corners=False))
        low = F.relu(low + self.down(high))
        return self.head(torch.cat([mixed, F.interpolate(low, scale_factor=2)], 1))


class XceptionBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depth1, self.point1 = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs), nn.Conv2d(inputs, outputs, 1)
        self.depth2, self.point2 = nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs), nn.Conv2d(outputs, outputs, 1)
        self.norm1, self.norm2, self.skip = (
            nn.BatchNorm2d(outputs),
            nn.BatchNorm2d(outputs),
            nn.Conv2d(inputs, outputs, 1, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.point1(self.depth1(F.relu(x))))
        y = self.norm2(self.point2(self.depth2(F.relu(y, inplace=False))))
        return F.max_pool2d(y, 3, 2, 1) + self.skip(x)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, layer norm over channels last, MLP, layer scale that starts at 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(channels, channels, 7, padding=3, groups=channels), nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return x + self.scale * y


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """ConvNeXt."""
    first = [nn.Conv2d(3, 8, 2, 2), LayerNorm2d(8), ConvNextBlock(8), ConvNextBlock(8)]
    second = [LayerNorm2d(8), nn.Conv2d(8, 12, 2, 2), ConvNextBlock(12), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*first, *second, LayerNorm2d(12), nn.Flatten(1), nn.Linear(12, 5))


def of(make: Callable[[], nn.Module], size: int = 16) -> Callable[[], Sample]:
    """A zoo entry for a network on images."""
    return lambda: Sample(make(), (image(size=size),))


CONVNETS: Mapping[str, Callable[[], Sample]] = {
    "alexnet": of(AlexNet, 32),
    "resnet50": of(bottlenecks),
    "resnext": of(lambda: bottlenecks(groups=4)),
    "regnet": of(lambda: bottlenecks(groups=2, squeezed=4)),
    "densenet": of(DenseNet),
    "googlenet": of(GoogLeNet),
    "squeezenet": of(SqueezeNet),
    "mobilenet_v2": of(mobile),
    "mobilenet_v3": of(lambda: mobile(4, nn.Hardswish)),
    "efficientnet": of(lambda: mobile(3, nn.SiLU)),
    "shufflenet_v1": of(
        lambda: nn.Sequential(conv(3, 12), GroupedShuffleUnit(12, 3), GroupedShuffleUnit(12, 2), Head(12))
    ),
    "shufflenet_v2": of(shufflenet),
    "ghostnet": of(lambda: nn.Sequential(conv(3, 8), GhostBottleneck(8, 16, 8), GhostBottleneck(8, 11, 9), Head(9))),
    "repvgg": of(lambda: nn.Sequential(conv(3, 8), RepVgg(8), RepVgg(8), Head(8))),
    "hrnet": of(HighResolution),
    "xception": of(lambda: nn.Sequential(conv(3, 8), XceptionBlock(8, 12), XceptionBlock(12, 14), Head(14))),
    "convnext": of(convnext),
}
