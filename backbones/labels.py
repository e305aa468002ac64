"""Label tensors: integer tensors shaped like activations, whose entries name the channel an element belongs to.

Labels that do not change along a dimension are kept as expanded (stride 0) views, so that a feature map costs as much
as its channel vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NONE = -1
"""An element that belongs to no channel: the network's input, a constant, the result of a frozen operation."""
UNIFORM = -2
"""An element of a constant that is the same everywhere (zeros, ones, full): any slice of it equals any other."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Labels of an outer product: every element belongs to two channels at once and stays only if both stay.

    Attributes:
        rows: the channel of each element that comes from the left factor, in the activation's shape.
        columns: the one that comes from the right factor, in the same shape.
    """

    rows: Tensor
    columns: Tensor

    @property
    def shape(self) -> torch.Size:
        """The activation's shape."""
        return self.rows.shape


def constant_labels(shape: Sequence[int], label: int) -> Tensor:
    """A tensor of `shape` with one label everywhere."""
    return torch.full((1,) * len(shape), label, dtype=torch.int64).expand(tuple(shape))


def compact(labels: Tensor) -> Tensor:
    """The same labels with every expanded dimension cut to size 1."""
    return labels[
        tuple(
            slice(0, 1) if stride == 0 and size > 1 else slice(None)
            for stride, size in zip(labels.stride(), labels.shape, strict=True)
        )
    ]


def compress(labels: Tensor) -> Tensor:
    """Equal labels, with every dimension along which they do not change turned into an expanded one."""
    small = compact(labels)
    for dim, size in enumerate(small.shape):
        first = small.narrow(dim, 0, 1) if size > 1 else small
        if size > 1 and bool((small == first).all()):
            small = first
    return small.expand(labels.shape)


def varying(labels: Tensor) -> list[int]:
    """The dimensions along which the labels change."""
    return [dim for dim, size in enumerate(compact(compress(labels)).shape) if size > 1]


def along(dim: int, vector: Tensor, shape: Sequence[int]) -> Tensor:
    """The labels of `shape` that change along `dim` only, as `vector` says."""
    view = [1] * len(shape)
    view[dim % len(shape)] = len(vector)
    return vector.reshape(view).expand(tuple(shape))
