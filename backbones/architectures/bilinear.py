"""Bilinear CNN on VGG-16 with batch norm, for fine-grained images (Lin, RoyChowdhury and Maji, ICCV 2015, B-CNN [D,D]).

The last feature map of every image, behind relu5_3, is multiplied with itself and averaged over positions; the C x C
matrix goes through a signed square root and L2 normalisation into a linear classifier.

Every channel can be pruned, those of the last convolution included: the classifier's weight is kept as (classes, C, C),
so a channel is one row and one column of it, and the normalisation is exact, because what a dropped channel would add
to the norm is zero. Flat C * C features would tie row and column crosswise in one dimension, which the trace freezes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from backbones.architectures.image_size import check_at_least
from backbones.architectures.vgg import convolutions, initialise

EPSILON = 1e-8
"""Inside the square root, whose slope at zero is infinite; an exact zero stays zero through the sign."""


class PairLinear(nn.Module):
    """A linear layer on all pairs of channels: weight (outputs, channels, channels), bias (outputs,)."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, channels, channels))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, 0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, channels) -> (N, outputs)."""
        weight = self.weight if x.dtype == self.weight.dtype else self.weight.to(x.dtype)  # autocast knows no tensordot
        logits: Tensor = torch.tensordot(x, weight, ([1, 2], [1, 2])) + self.bias
        return logits

    def extra_repr(self) -> str:
        """What the printed module shows."""
        outputs, channels, _ = self.weight.shape
        return f"channels={channels}, outputs={outputs}"


class BilinearVGG16(nn.Module):
    """B-CNN [D,D].

    Args:
        num_classes: number of logits.
        in_channels: channels of the image, 3 for colour.
        small: for images of 32 pixels: three of the four poolings, so that 4x4 positions are left to average over, and
            any smaller image gets through (8x8 digits); otherwise the form for 448 or 224 pixels.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, small: bool) -> None:
        super().__init__()
        self.smallest = 1 if small else 16
        self.features = convolutions(in_channels, norm=True, ceil=small, pools=3 if small else 4)
        self.classifier = PairLinear(512, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), H, W >= 16 in the large form -> (N, num_classes) logits."""
        check_at_least(x, self.smallest, "bcnn_vgg16_bn")
        maps = self.features(x).flatten(2)
        pairs = maps @ maps.transpose(1, 2) / maps.shape[2]
        pairs = pairs.sign() * (pairs.abs() + EPSILON).sqrt()
        pairs = pairs / torch.linalg.vector_norm(pairs, dim=(1, 2), keepdim=True).clamp_min(1e-12)
        logits: Tensor = self.classifier(pairs)
        return logits


BACKBONES = {
    "bcnn_vgg16_bn": partial(BilinearVGG16, small=False),
    "bcnn_vgg16_bn_cifar": partial(BilinearVGG16, small=True),
}
