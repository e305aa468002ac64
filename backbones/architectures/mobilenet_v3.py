"""MobileNetV3 (Howard et al., ICCV 2019, tables 1 and 2), for large and for small images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class BlockRow:
    """One line of the paper's tables.

    Attributes:
        kernel: side of the depthwise convolution's kernel, in pixels.
        expanded: channels inside the block.
        outputs: channels behind it.
        squeeze: whether the block has a squeeze-and-excite part.
        swish: hard-swish instead of ReLU.
        stride: stride of the depthwise convolution, 1 or 2.
    """

    kernel: int
    expanded: int
    outputs: int
    squeeze: bool
    swish: bool
    stride: int


LARGE_ROWS = (
    BlockRow(3, 16, 16, False, False, 1),
    BlockRow(3, 64, 24, False, False, 2),
    BlockRow(3, 72, 24, False, False, 1),
    BlockRow(5, 72, 40, True, False, 2),
    BlockRow(5, 120, 40, True, False, 1),
    BlockRow(5, 120, 40, True, False, 1),
    BlockRow(3, 240, 80, False, True, 2),
    BlockRow(3, 200, 80, False, True, 1),
    BlockRow(3, 184, 80, False, True, 1),
    BlockRow(3, 184, 80, False, True, 1),
    BlockRow(3, 480, 112, True, True, 1),
    BlockRow(3, 672, 112, True, True, 1),
    BlockRow(5, 672, 160, True, True, 2),
    BlockRow(5, 960, 160, True, True, 1),
    BlockRow(5, 960, 160, True, True, 1),
)
"""Table 1."""

SMALL_ROWS = (
    BlockRow(3, 16, 16, True, False, 2),
    BlockRow(3, 72, 24, False, False, 2),
    BlockRow(3, 88, 24, False, False, 1),
    BlockRow(5, 96, 40, True, True, 2),
    BlockRow(5, 240, 40, True, True, 1),
    BlockRow(5, 240, 40, True, True, 1),
    BlockRow(5, 120, 48, True, True, 1),
    BlockRow(5, 144, 48, True, True, 1),
    BlockRow(5, 288, 96, True, True, 2),
    BlockRow(5, 576, 96, True, True, 1),
    BlockRow(5, 576, 96, True, True, 1),
)
"""Table 2."""


class SqueezeExcite(nn.Module):
    """A gate per channel from the channel means: two 1x1 convolutions, hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _divisible(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), same shape out."""
        gate = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return F.hardsigmoid(gate) * x


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excite, linear projection; a shortcut where shapes agree."""

    def __init__(self, inputs: int, row: BlockRow, stride: int) -> None:
        super().__init__()
        activation = nn.Hardswish if row.swish else nn.ReLU
        layers: list[nn.Module] = []
        if row.expanded != inputs:
            layers.append(_normed(inputs, row.expanded, 1, activation=activation))
        layers.append(
            _normed(row.expanded, row.expanded, row.kernel, stride, groups=row.expanded, activation=activation)
        )
        if row.squeeze:
            layers.append(SqueezeExcite(row.expanded))
        layers.append(_normed(row.expanded, row.outputs, 1))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == row.outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        out: Tensor = self.block(x)
        return out + x if self.residual else out


class MobileNetV3(nn.Module):
    """MobileNetV3 on images of any size, parameter names as in torchvision.

    Args:
        rows: the blocks.
        hidden: width of the linear layer in front of the last.
        num_classes: number of logits.
        in_channels: channels of the image, 3 for colour.
        small: for images of 32 pixels: the stem and the first striding block keep their size, so that 4x4 positions are
            left at the end instead of one; 8x8 digits work too.
    """

    def __init__(
        self, rows: tuple[BlockRow, ...], hidden: int, num_classes: int, in_channels: int = 3, *, small: bool
    ) -> None:
        super().__init__()
        strides = [row.stride for row in rows]
        if small:
            strides[strides.index(2)] = 1
        width = 16
        layers = [_normed(in_channels, width, 3, 1 if small else 2, activation=nn.Hardswish)]
        for row, stride in zip(rows, strides, strict=True):
            layers.append(InvertedResidual(width, row, stride))
            width = row.outputs
        layers.append(_normed(width, 6 * width, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(6 * width, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, num_classes)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes) logits."""
        out = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        logits: Tensor = self.classifier(out)
        return logits


def _normed(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Module:
    """A convolution without bias, batch norm with torchvision's epsilon and momentum, and an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


def _divisible(width: int) -> int:
    """The nearest multiple of 8, at least 8, never more than a tenth below `width`."""
    rounded = max(8, (width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


BACKBONES = {
    f"mobilenet_v3_{size}{form}": partial(MobileNetV3, rows, hidden, small=bool(form))
    for size, rows, hidden in (("large", LARGE_ROWS, 1280), ("small", SMALL_ROWS, 1024))
    for form in ("", "_cifar")
}
