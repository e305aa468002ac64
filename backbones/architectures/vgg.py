"""VGG-16 (Simonyan and Zisserman, ICLR 2015, configuration D), with and without batch normalisation."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from backbones.architectures.image_size import check_at_least

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""Output channels of the thirteen convolutions; 0 is a 2x2 max pooling."""
HIDDEN = 4096
"""Units of each of the two linear layers in front of the last, as in AlexNet."""


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions and a classifier.

    Args:
        num_classes: number of logits.
        in_channels: channels of the image, 3 for colour.
        small: for images of 32 pixels: average pooling to 1x1 and one linear layer; otherwise the ImageNet form with
            7x7 pooling and three linear layers, parameter names as in torchvision.
        norm: batch normalisation behind every convolution.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, small: bool, norm: bool) -> None:
        super().__init__()
        self.smallest = 1 if small else 32
        self.features = convolutions(in_channels, norm=norm, ceil=small)
        self.avgpool = nn.AdaptiveAvgPool2d(1 if small else 7)
        if small:
            self.classifier: nn.Module = nn.Linear(512, num_classes)
        else:
            self.classifier = nn.Sequential(
                nn.Linear(512 * 49, HIDDEN),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(HIDDEN, HIDDEN),
                nn.ReLU(inplace=True),
                nn.Dropout(),
                nn.Linear(HIDDEN, num_classes),
            )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), H, W >= 32 in the ImageNet form -> (N, num_classes) logits."""
        check_at_least(x, self.smallest, "vgg16")
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def convolutions(in_channels: int, *, norm: bool, ceil: bool, pools: int = 5) -> nn.Sequential:
    """The thirteen convolutions, their norms, ReLUs and poolings, numbered as in torchvision.

    Args:
        in_channels: channels of the image, 3 for colour.
        norm: batch normalisation behind every convolution.
        ceil: pooling rounds up, so that images below 32 pixels get through (8x8 digits); the same at 32 pixels.
        pools: how many of the five poolings there are; an identity stands where the others would.
    """
    layers: list[nn.Module] = []
    for width in WIDTHS:
        if width == 0:
            layers.append(nn.MaxPool2d(2, ceil_mode=ceil) if pools > 0 else nn.Identity())
            pools -= 1
        else:
            layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
            if norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            in_channels = width
    return nn.Sequential(*layers)


def initialise(model: nn.Module) -> None:
    """Fresh weights: He et al. for convolutions, small normal numbers for linear layers, no biases."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


BACKBONES = {
    f"vgg16{suffix}{form}": partial(VGG16, small=bool(form), norm=norm)
    for suffix, norm in (("", False), ("_bn", True))
    for form in ("", "_cifar")
}
