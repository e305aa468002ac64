"""What a trace finds: the coupled channels of a network, where they live, and what may not be touched."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backbones.cost_table import CostTable
from backbones.program import Program

Role = Literal["filter", "input", "vector", "both"]
Index = NDArray[np.int64]
SizeAttribute = tuple[str, str, int]
"""(path of an attribute, layer whose channels it counts, value)."""


def owner(tensor: str) -> str:
    """The module that a tensor belongs to, the tensor's own name when that is the network itself."""
    return tensor.rpartition(".")[0] or tensor


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """Where the channels of one group live in one dimension of one parameter or buffer.

    Attributes:
        tensor: name in the model's state dict, `layer1.0.conv1.weight`.
        dim: the dimension that shrinks when channels go.
        role: `filter` (a layer's weight, the dimension its outputs are made of), `input` (a layer's weight, the
            dimension it reads), `both` (a tied weight, read by one layer and made by another), or `vector` (bias,
            normalisation, any other per-channel tensor).
        index: (size, width) positions in that dimension owned by each channel of the group, in channel order. The
            width is 1 for a plain layer, H*W behind a flatten, the number of groups in a grouped convolution.
    """

    tensor: str
    dim: int
    role: Role
    index: Index

    @property
    def layer(self) -> str:
        """The module that owns the tensor, `layer1.0.conv1`."""
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Channels that must be kept or dropped together wherever they appear, one decision per channel.

    Attributes:
        name: the first layer that produces the channels (`#2` and so on where one layer starts several groups).
        size: number of channels.
        members: every tensor dimension that holds them.
    """

    name: str
    size: int
    members: tuple[Member, ...]

    @property
    def filters(self) -> tuple[Member, ...]:
        """The weights whose outputs these channels are: rows along `dim` are the group's filters."""
        return tuple(member for member in self.members if member.role in ("filter", "both"))

    @property
    def inputs(self) -> tuple[Member, ...]:
        """The weights that read these channels."""
        return tuple(member for member in self.members if member.role in ("input", "both"))


@dataclass(frozen=True, slots=True)
class Frozen:
    """Channels that stay, and why.

    Attributes:
        layer: the module that produces them.
        channels: their positions in that layer's output.
        op: the operation that could not be followed (`aten.sort.stable`), or `output`.
        module: the module in whose forward that operation stands.
        line: the source line, `model.py:12: x = x.sort(1)`, empty when unknown.
        reason: one short sentence.
    """

    layer: str
    channels: tuple[int, ...]
    op: str
    module: str
    line: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class TensorMap:
    """For one parameter or buffer: which channel unit owns each position, per dimension that can shrink.

    Attributes:
        shape: the dense shape.
        units: dimension -> int64 vector of that dimension's length; entries are unit numbers, or -1 for positions
            that always stay. Unit u is channel u - offset of the group whose offset range holds it.
    """

    shape: tuple[int, ...]
    units: Mapping[int, Index]


@dataclass(frozen=True, slots=True)
class Activation:
    """One non-linearity of the traced forward pass.

    Attributes:
        op: the ATen operation, `aten.relu.default`.
        module: the module in whose forward it stands.
        shape: shape of its input, batch included.
    """

    op: str
    module: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Layers whose filters stay, whatever the trace finds.

    Attributes:
        ignore, only: globs of module paths, as given to `trace`.
        failed: layers that a trial pruning found not to be prunable, with the source line and the reason.
        literal: numbers of the program's steps whose slices a trial pruning found to have literal bounds.
        sizes: attributes of modules that hold how many channels a layer makes: (path of the attribute, layer, value).
        heads: the same for attributes that hold a number of attention heads, or how many channels these make.
        irremovable: modules that a trial found not to be replaceable by the identity, though their shapes are equal.
    """

    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    failed: tuple[Frozen, ...] = ()
    literal: frozenset[int] = frozenset()
    sizes: tuple[SizeAttribute, ...] = ()
    heads: tuple[SizeAttribute, ...] = ()
    irremovable: tuple[Frozen, ...] = ()

    def left_out(self, layer: str) -> str:
        """Which of "only" and "ignore" says that a layer's filters stay; empty for neither."""
        if self.only and not any(fnmatchcase(layer, pattern) for pattern in self.only):
            return "only"
        return "ignore" if any(fnmatchcase(layer, pattern) for pattern in self.ignore) else ""


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The coupled channels of one network. Made by `trace`, read by everything else.

    Attributes:
        groups: prunable channels, in the order of the forward pass.
        frozen: channels that stay, with reasons.
        tensors: every parameter and buffer with a dimension that can shrink.
        costs: the arithmetic behind `cost`.
        sized: what holds a channel count and no tensor to read it from: modules (`ZeroPadShortcut`, a layer norm
            without affine parameters) and attributes that the code uses as one. Their path -> unit number of each
            channel (-1: stays).
        mixed: groups whose channels share layer or group statistics: dropping some changes the others' values.
        heads: groups whose channels are attention heads, each with its queries, keys and values.
        summed: groups that an operation without weights sums over (an L2 norm): a dropped channel counts as zero there.
        activations: the non-linearities, in order.
        layers: module path -> class name of every layer with a weight that the trace reached.
        unreached: parameters that the forward pass never used (auxiliary heads, dead code).
        program: the traced forward pass itself, for re-deriving the graph with layers removed.
        example: the inputs it was traced with.
        fixed: what was to stay whatever the trace finds.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    tensors: Mapping[str, TensorMap]
    costs: CostTable
    sized: Mapping[str, Index]
    mixed: frozenset[str]
    heads: frozenset[str]
    summed: frozenset[str]
    activations: tuple[Activation, ...]
    layers: Mapping[str, str]
    unreached: tuple[str, ...]
    program: Program
    example: tuple[Any, ...]
    fixed: Fixed

    @cached_property
    def offsets(self) -> Mapping[str, int]:
        """Group name -> number of its first channel unit; units of a group are consecutive."""
        ends = np.cumsum([0] + [group.size for group in self.groups])
        return {group.name: int(start) for group, start in zip(self.groups, ends, strict=False)}

    @cached_property
    def by_name(self) -> Mapping[str, Group]:
        """Group name -> group."""
        return {group.name: group for group in self.groups}

    @cached_property
    def channels(self) -> int:
        """Number of prunable channels over all groups."""
        return sum(group.size for group in self.groups)

    @cached_property
    def id(self) -> str:
        """Short content id: equal for equal couplings, so that a structure can tell its own graph."""
        text = repr([(group.name, group.size) for group in self.groups]) + repr(
            sorted((name, tensor.shape) for name, tensor in self.tensors.items())
        )
        return hashlib.sha256(text.encode()).hexdigest()[:12]
