"""VGG-16 with batch normalisation (Simonyan and Zisserman, ICLR 2015, configuration D)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""Output channels of the thirteen convolutions; 0 is a 2x2 max pooling."""


class VGG16BN(nn.Module):
    """Thirteen 3x3 convolutions and a classifier.

    Args:
        num_classes: outputs.
        in_channels: of the image.
        small: for images of 32 pixels: average pooling to 1x1 and one linear layer; otherwise the ImageNet form with
            7x7 pooling and three linear layers, parameter names as in torchvision.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, small: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in WIDTHS:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                in_channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1 if small else 7)
        if small:
            self.classifier: nn.Module = nn.Linear(512, num_classes)
        else:
            self.classifier = nn.Sequential(
                nn.Linear(512 * 49, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(4096, num_classes),
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) with H, W >= 32 -> (N, num_classes) logits."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


BACKBONES = {"vgg16_bn_cifar": partial(VGG16BN, small=True), "vgg16_bn": partial(VGG16BN, small=False)}
