"""AlexNet in the one-column form (Krizhevsky, "One weird trick", arXiv:1404.5997)."""

from __future__ import annotations

from torch import Tensor, nn

from backbones.architectures import vgg
from backbones.architectures.image_size import check_at_least


class AlexNet(nn.Module):
    """Five convolutions and three linear layers for images of 224 pixels, parameter names as in torchvision."""

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            *_last_three(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 36, vgg.HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(vgg.HIDDEN, vgg.HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(vgg.HIDDEN, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) with H, W >= 63 -> (N, num_classes) logits."""
        check_at_least(x, 63, "alexnet")
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


class CifarAlexNet(nn.Module):
    """AlexNet for images of 32 pixels: padding 5 in front, 2x2 pooling, one linear layer.

    The form of github.com/bearpaw/pytorch-classification (2.47 M parameters for ten classes). Pooling rounds up and an
    average follows, which changes nothing at 32 pixels and lets any smaller image through (digits of 8x8). Without
    norms it wants a small learning rate: AdamW at 1e-3 learns digits, SGD at 0.1 does not. Fresh convolutions are those
    of He et al.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
            *_last_three(),
            nn.MaxPool2d(2, ceil_mode=True),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(256, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes) logits."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def _last_three() -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return layers


BACKBONES = {"alexnet": AlexNet, "alexnet_cifar": CifarAlexNet}
