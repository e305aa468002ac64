"""The order in which images and weights lie in memory, said so that layers see it where there is one channel, too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def in_order(value: Tensor, order: torch.memory_format) -> Tensor:
    """A tensor of four dimensions in a memory order, others as they are; a copy only where memory lies otherwise.

    With one channel the two orders are the same memory: `Tensor.contiguous` changes nothing, and torch takes the tensor
    for contiguous. A convolution from one channel then leaves the order of the rest, and so does all that its output is
    added to. Here the strides say which order is meant.

    Args:
        value: images (B, C, H, W), a weight (outputs, inputs, height, width), or anything else.
        order: `torch.channels_last` or `torch.contiguous_format`.
    """
    if value.ndim != 4:
        return value
    value, strides = value.contiguous(memory_format=order), _strides(value.shape, order)
    return value if value.stride() == strides else value.as_strided(value.shape, strides)


def says_channels_last(value: Tensor) -> bool:
    """Whether the strides of a tensor of four dimensions say that its channels lie last."""
    if value.ndim != 4:
        return False
    last, first = (_strides(value.shape, order) for order in (torch.channels_last, torch.contiguous_format))
    return value.stride() == last != first


def keep_order(model: nn.Module, order: torch.memory_format) -> None:
    """Lets images that enter a network in a memory order go through it so: also behind a layer of one channel.

    What a convolution gives lies as its input or its weight says. Of one channel an operation between (ReLU, batch
    norm) does not hand on what the strides say, so the weight does. Such parameters are replaced, not changed: a
    network that shares them keeps its own.
    """
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None and value.ndim == 4 and value.shape[1] == 1:
                module._parameters[name] = nn.Parameter(in_order(value.detach(), order), value.requires_grad)


def _strides(shape: Sequence[int], order: torch.memory_format) -> tuple[int, ...]:
    _, channels, height, width = shape
    whole = channels * height * width
    if order is torch.channels_last:
        return whole, 1, width * channels, channels
    return whole, height * width, width, 1
