"""The networks that secateur can build by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from backbones.architectures import alexnet, bilinear, mobilenet_v3, resnet, resnet_cifar, vgg
from backbones.arguments import explained
from backbones.errors import SecateurError, did_you_mean, one_line

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    **resnet_cifar.BACKBONES,
    **resnet.BACKBONES,
    **alexnet.BACKBONES,
    **vgg.BACKBONES,
    **mobilenet_v3.BACKBONES,
    **bilinear.BACKBONES,
}
"""Name -> function of (num_classes, in_channels)."""


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """How a network was built, so that an artefact can build it again.

    Attributes:
        name: a key of `BACKBONES`.
        num_classes: number of logits.
        in_channels: channels of the image.
    """

    name: str
    num_classes: int
    in_channels: int


@explained
def build(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised backbone.

    Args:
        name: a key of `BACKBONES`; it fixes the input form and the shortcut: `resnet56` (32 pixels, zero-padded
            shortcuts), `resnet56_proj` (projections), `resnet18` (224 pixels), `resnet18_tiny` (64), `vgg16_bn` (224),
            `vgg16_bn_cifar` (32). Forms for 32 and 64 pixels take smaller images too, down to one pixel.
        num_classes: number of logits.
        in_channels: channels of the image, 3 for colour.

    Raises:
        SecateurError: for an unknown name or numbers below 1.
    """
    if name not in BACKBONES:
        hint = did_you_mean(name, BACKBONES) or f"known are {', '.join(BACKBONES)}"
        raise SecateurError(f"unknown backbone {name!r}; {hint}")
    if num_classes < 1 or in_channels < 1:
        raise SecateurError(
            f"num_classes >= 1 and in_channels >= 1 must hold, but got num_classes={num_classes}, "
            f"in_channels={in_channels}"
        )
    try:
        model = BACKBONES[name](num_classes=num_classes, in_channels=in_channels)
    except RuntimeError as error:  # of torch, for tensors that no memory holds
        raise SecateurError(
            f"{name} with num_classes={num_classes}, in_channels={in_channels} cannot be built: {one_line(error)}"
        ) from None
    model.secateur_spec = BackboneSpec(name, num_classes, in_channels)  # type: ignore[assignment]
    return model
