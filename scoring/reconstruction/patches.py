"""The rows of a layer's least-squares problem: its input patches at sampled output positions, no whole unfolding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


@dataclass(frozen=True, eq=False)
class Sample:
    """Sampled output positions of one layer, and where its input patches for them lie.

    Attributes:
        outputs: (rows,) positions in the output, counted over all dimensions but the channels'.
        inputs: (rows, taps) positions in the input, likewise; a linear layer has one tap.
        inside: (rows, taps) 1 where a tap lies inside the input, 0 in the zero padding; None when all do.
    """

    outputs: Tensor
    inputs: Tensor
    inside: Tensor | None

    @cached_property
    def outside(self) -> Tensor | None:
        """Which of all taps, counted row by row, lie in the zero padding."""
        return None if self.inside is None else (~self.inside).reshape(-1).nonzero()[:, 0]

    def to(self, device: torch.device) -> Sample:
        """The same positions where the activations live that they are gathered from."""
        inside = None if self.inside is None else self.inside.to(device)
        return Sample(self.outputs.to(device), self.inputs.to(device), inside)


def parts(module: nn.Module) -> int:
    """Into how many independent problems the layer falls: the groups of a convolution."""
    return module.groups if isinstance(module, _ConvNd) else 1


def channel_rows(values: Tensor, module: nn.Module) -> Tensor:
    """(positions, channels) view of an input or output; a copy only where memory lies otherwise."""
    moved = values.movedim(1, -1) if isinstance(module, _ConvNd) else values
    return moved.reshape(-1, moved.shape[-1])


def positions(values: Tensor, module: nn.Module) -> tuple[int, ...]:
    """Shape of an input or output without its channels."""
    shape = tuple(values.shape)
    return (shape[0], *shape[2:]) if isinstance(module, _ConvNd) else shape[:-1]


def padded(values: Tensor, module: nn.Module) -> Tensor:
    """The input with every padding but the plain one of zeros put on."""
    if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd):
        return values
    if module.padding_mode != "zeros":
        return F.pad(values, module._reversed_padding_repeated_twice, mode=module.padding_mode)
    if isinstance(module.padding, str):
        return F.pad(values, module._reversed_padding_repeated_twice)
    return values


def sample(module: nn.Module, entered: Sequence[int], left: Sequence[int], rows: int, seed: int) -> Sample:
    """Draws output positions, as many from every image as from every other.

    Args:
        module: the layer.
        entered: shape of its (padded) input.
        left: shape of its output.
        rows: how many at most, but at least one an image.
        seed: same seed, same positions.
    """
    if not isinstance(module, _ConvNd):
        first, inner = left[0], math.prod(left[1:-1])
        outputs = _spread(first, inner, rows, seed)
        return Sample(outputs, outputs[:, None], None)
    spatial, before = tuple(left[2:]), tuple(entered[2:])
    outputs = _spread(left[0], math.prod(spatial), rows, seed)
    place = torch.stack(_unravelled(outputs % math.prod(spatial), spatial), dim=1)  # (rows, dims)
    taps = torch.tensor(list(product(*(range(size) for size in module.kernel_size))))  # (taps, dims)
    stride, dilation = torch.tensor(module.stride), torch.tensor(module.dilation)
    plain = not isinstance(module.padding, str) and (
        module.padding_mode == "zeros" or isinstance(module, _ConvTransposeNd)
    )
    padding = torch.tensor(module.padding if plain else [0] * len(spatial))
    if isinstance(module, _ConvTransposeNd):
        reach = place[:, None] + padding - taps * dilation
        inside = (reach % stride == 0).all(2)
        at = torch.div(reach, stride, rounding_mode="floor")
    else:
        at = place[:, None] * stride - padding + taps * dilation
        inside = torch.ones(at.shape[:2], dtype=torch.bool)
    size = torch.tensor(before)
    inside &= ((at >= 0) & (at < size)).all(2)
    at = torch.minimum(at.clamp(min=0), size - 1)
    flat = torch.div(outputs, math.prod(spatial), rounding_mode="floor")[:, None].expand(at.shape[:2])
    for dim, length in enumerate(before):
        flat = flat * length + at[..., dim]
    return Sample(outputs, flat.contiguous(), None if bool(inside.all()) else inside)


def _spread(first: int, inner: int, rows: int, seed: int) -> Tensor:
    """Positions of a (first, inner) grid in order, equally many in every row of it."""
    each = min(inner, max(1, rows // max(1, first)))
    if each == inner:
        return torch.arange(first * inner)
    random = torch.rand(first, inner, generator=torch.Generator().manual_seed(seed))
    picked = random.topk(each, dim=1).indices.sort(dim=1).values
    return (picked + inner * torch.arange(first)[:, None]).reshape(-1)


def _unravelled(flat: Tensor, shape: Sequence[int]) -> list[Tensor]:
    found = []
    for size in reversed(shape):
        found.append(flat % size)
        flat = torch.div(flat, size, rounding_mode="floor")
    return found[::-1]


def gather(module: nn.Module, entered: Tensor, where: Sample, dtype: torch.dtype) -> Tensor:
    """(parts, rows, taps x inputs of a part) patches."""
    table = channel_rows(padded(entered, module), module)
    groups, channels = parts(module), table.shape[1]
    rows, taps = where.inputs.shape
    found = table.index_select(0, where.inputs.reshape(-1)).to(dtype)
    if where.outside is not None:
        found.index_fill_(0, where.outside, 0)
    if groups == 1:
        return found.reshape(1, rows, taps * channels)
    return found.reshape(rows, taps, groups, channels // groups).permute(2, 0, 1, 3).reshape(groups, rows, -1)


def weight_matrix(module: nn.Module, weight: Tensor) -> Tensor:
    """(parts, taps x inputs of a part, outputs of a part): the weight as the matrix that patches are multiplied by."""
    groups = parts(module)
    if not isinstance(module, _ConvNd):
        return weight.T[None]
    if isinstance(module, _ConvTransposeNd):
        inputs, outputs = weight.shape[:2]
        matrix = weight.reshape(groups, inputs // groups, outputs, -1).permute(0, 3, 1, 2)
        return matrix.reshape(groups, -1, outputs)
    outputs, inputs = weight.shape[:2]
    return (
        weight.reshape(groups, outputs // groups, inputs, -1).permute(0, 3, 2, 1).reshape(groups, -1, outputs // groups)
    )


def weight_of(module: nn.Module, matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `weight_matrix`, in the shape of `like`."""
    groups = parts(module)
    if not isinstance(module, _ConvNd):
        return matrix[0].T.reshape(like.shape)
    taps = math.prod(like.shape[2:])
    outputs = matrix.shape[2]
    cube = matrix.reshape(groups, taps, -1, outputs)
    order = (0, 2, 3, 1) if isinstance(module, _ConvTransposeNd) else (0, 3, 2, 1)
    return cube.permute(*order).reshape(like.shape)


def split_outputs(values: Tensor, groups: int) -> Tensor:
    """(rows, outputs) -> (groups, rows, outputs of a group)."""
    rows, outputs = values.shape
    return values.reshape(rows, groups, outputs // groups).movedim(1, 0)


def join_outputs(values: Tensor) -> Tensor:
    """The inverse of `split_outputs`."""
    groups, rows, outputs = values.shape
    return values.movedim(0, 1).reshape(rows, groups * outputs)


def outputs_kept(module: nn.Module, kept: Mapping[int, Sequence[int]]) -> Sequence[int] | None:
    """Positions of a dense layer's outputs that a structure keeps; None for all.

    Args:
        module: the dense layer.
        kept: dimension of its weight -> kept positions.
    """
    if not isinstance(module, _ConvTransposeNd):
        return kept.get(0)
    groups, width = module.groups, module.out_channels // module.groups
    depthwise = groups > 1 and groups == module.in_channels
    if (not depthwise and groups == 1) or (0 if depthwise else 1) not in kept:
        return kept.get(1) if not depthwise else None
    rows, inner = (kept[0], range(width)) if depthwise else (range(groups), kept[1])
    return [group * width + position for group in rows for position in inner]
