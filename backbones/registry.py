"""The networks that secateur can build by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from backbones import resnet_cifar, vgg
from backbones.errors import SecateurError

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {**resnet_cifar.BACKBONES, **vgg.BACKBONES}
"""Name -> function of (num_classes, in_channels)."""


@dataclass(frozen=True, slots=True)
class Spec:
    """How a network was built, so that an artefact can build it again."""

    name: str
    num_classes: int
    in_channels: int


def build(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """A freshly initialised backbone.

    Args:
        name: a key of `BACKBONES`; it fixes the input form and the shortcut: `resnet56`, `resnet56_proj`,
            `vgg16_bn_cifar`, `vgg16_bn`.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        SecateurError: for an unknown name or numbers below 1.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, 1)
        hint = f"did you mean {near[0]!r}" if near else f"known are {', '.join(BACKBONES)}"
        raise SecateurError(f"unknown backbone {name!r}; {hint}")
    if num_classes < 1 or in_channels < 1:
        raise SecateurError(
            f"num_classes >= 1 and in_channels >= 1 must hold, but got num_classes={num_classes}, "
            f"in_channels={in_channels}"
        )
    model = BACKBONES[name](num_classes=num_classes, in_channels=in_channels)
    model.secateur_spec = Spec(name, num_classes, in_channels)  # type: ignore[assignment]
    return model
