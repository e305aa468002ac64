"""How many samples an example holds: the size of that dimension along which a network looks at each by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from backbones.errors import SecateurError
from backbones.inputs import tensors_in
from backbones.masked_reference import relative_difference

SAME = 1e-3
"""Relative difference up to which two outputs count as the same: sums run in another order where a batch is larger."""


def count_samples(output: Callable[[Any], Any], inputs: Any) -> int:
    """The number of samples in the inputs of a network.

    A first dimension of size 1 is taken for a batch of one. Otherwise other inputs are put behind the given ones, along
    the first dimension, then along the second: samples are what does not change when others stand behind it. Where
    nothing is found and the output does not start with as many entries as the inputs, the example is one sample without
    a batch: an image (channels, rows, columns).

    Args:
        output: what the network computes from inputs.
        inputs: the example, tensors inside nested containers.

    Raises:
        SecateurError: when samples are not independent, or sizes of the batch are literal in the code.
    """
    tensors = [leaf for leaf in tensors_in(inputs) if leaf.ndim > 0]
    if not tensors or tensors[0].shape[0] == 1:
        return 1
    first = tensors[0]
    before = tensors_in(output(inputs))
    for dim in range(min(2, first.ndim)):
        if _independent(output, inputs, before, dim, first.shape[dim]):
            return int(first.shape[dim])
    if any(one.ndim == 0 or one.shape[0] == first.shape[0] for one in before):
        raise SecateurError(
            f"cannot tell how many samples the example holds: its inputs begin with shape {tuple(first.shape)}, and "
            f"their samples are not independent; give an example of one sample, or samples={first.shape[0]}"
        )
    return 1


def _independent(output: Callable[[Any], Any], inputs: Any, before: list[Tensor], dim: int, size: int) -> bool:
    """Whether the output of what is there stays the same when as much again is put behind it along a dimension."""

    def longer(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim > dim and value.shape[dim] == size:
            other = value.flip(tuple(range(value.ndim)))
            return torch.cat([value, other * 0.5 if value.is_floating_point() else other], dim)
        return value

    longer_inputs = tree_map(longer, inputs)
    try:
        after = tensors_in(output(longer_inputs))
    except Exception:
        return False
    cut = [_first_half(one, two) for one, two in zip(before, after, strict=False)]
    grown = any(one.shape != two.shape for one, two in zip(before, after, strict=False))
    return grown and len(after) == len(before) and relative_difference(cut, before) <= SAME


def _first_half(one: Tensor, two: Tensor) -> Tensor:
    """The half of `two` that has the shape of `one`, in the dimension where it is twice as long; else as it is."""
    grown = [dim for dim in range(min(one.ndim, two.ndim)) if two.shape[dim] == 2 * one.shape[dim]]
    return two.narrow(grown[0], 0, one.shape[grown[0]]) if len(grown) == 1 else two
