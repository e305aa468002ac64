"""ResNets for small images (He et al., CVPR 2016, section 4.2): 6n + 2 layers, stages of 16, 32, 64 channels."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn


class ZeroPadShortcut(nn.Module):
    """The parameter-free shortcut (option A): subsample positions, pad channels with zeros.

    Args:
        stride: one position in so many is kept, in both directions.
        before, after: number of zero channels put in front and behind. Surgery changes them.
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = before
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, before + C + after, ceil(H / stride), ceil(W / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """What the printed module shows."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            if projection:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )
            else:
                missing = outputs - inputs
                self.shortcut = ZeroPadShortcut(stride, missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-(6n + 2) for images from 8x8 pixels up.

    Args:
        blocks: n, the number of blocks in each stage.
        num_classes: number of logits.
        in_channels: channels of the image, 3 for colour.
        projection: 1x1 convolutions (option B) instead of zero padding (option A) where the width changes.
    """

    def __init__(self, blocks: int, num_classes: int, in_channels: int = 3, *, projection: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1, projection)
        self.layer2 = _stage(16, 32, blocks, 2, projection)
        self.layer3 = _stage(32, 64, blocks, 2, projection)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes) logits."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.adaptive_avg_pool2d(out, 1).flatten(1)
        logits: Tensor = self.linear(out)
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int, projection: bool) -> nn.Sequential:
    first = CifarBlock(inputs, outputs, stride, projection=projection)
    rest = [CifarBlock(outputs, outputs, 1, projection=projection) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


BACKBONES = {
    f"resnet{6 * blocks + 2}{suffix}": partial(CifarResNet, blocks, projection=projection)
    for blocks in (3, 5, 7, 9, 18)
    for suffix, projection in (("", False), ("_proj", True))
}
